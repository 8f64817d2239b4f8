import { assert, describe, it } from "@effect/vitest"
import type { JsonObject } from "../../../schemas/Json.ts"
import { formatInterval, type OperandSettings, settingsOf } from "../../../src/operator/Settings.ts"
import { clusterCsiDriver } from "../../support/OperatorFixtures.ts"

const defaults: OperandSettings = {
  rotation: { enabled: true, intervalSeconds: 120 },
  tokenRequests: undefined,
  logLevel: 2
}

const driverConfig = (secretsStore: JsonObject): JsonObject => ({
  managementState: "Managed",
  driverConfig: { driverType: "SecretsStore", secretsStore }
})
const rotation = (secretRotation: JsonObject) => driverConfig({ secretRotation })
const tokens = (tokenRequests: JsonObject) => driverConfig({ tokenRequests })
const audiences = (list: ReadonlyArray<JsonObject>) => tokens({ type: "Managed", managed: { audiences: list } })

describe("settings", () => {
  it("2.3 there is no ClusterCSIDriver", () => {
    assert.deepStrictEqual(settingsOf(undefined), defaults)
  })

  it.each<{
    readonly row: string
    readonly name: string
    readonly spec: JsonObject
    readonly changed: Partial<OperandSettings>
  }>([
    { row: "2.3", name: "no driverConfig", spec: { managementState: "Managed" }, changed: {} },
    { row: "2.3", name: "another driverType", spec: { driverConfig: { driverType: "AWS" } }, changed: {} },
    { row: "2.3 Q28", name: "an empty driverType", spec: { driverConfig: { driverType: "" } }, changed: {} },
    {
      row: "2.3",
      name: "another driverType, whatever is below secretsStore",
      spec: { driverConfig: { driverType: "AWS", secretsStore: { secretRotation: { type: "None" } } } },
      changed: {}
    },
    {
      row: "2.3",
      name: "SecretsStore without secretsStore",
      spec: { driverConfig: { driverType: "SecretsStore" } },
      changed: {}
    },
    { row: "2.3", name: "an empty secretsStore", spec: driverConfig({}), changed: {} },
    { row: "2.3", name: "rotation without a type", spec: rotation({}), changed: {} },
    {
      row: "2.3",
      name: "rotation of an unknown type",
      spec: rotation({ type: "Weekly", custom: { minimumRefreshAge: 5 } }),
      changed: {}
    },
    {
      row: "2.3 Q18",
      name: "rotation None",
      spec: rotation({ type: "None" }),
      changed: { rotation: { enabled: false, intervalSeconds: 120 } }
    },
    {
      row: "2.3",
      name: "rotation None keeps the default interval",
      spec: rotation({ type: "None", custom: { minimumRefreshAge: 300 } }),
      changed: { rotation: { enabled: false, intervalSeconds: 120 } }
    },
    {
      row: "2.3",
      name: "rotation Custom",
      spec: rotation({ type: "Custom", custom: { minimumRefreshAge: 300 } }),
      changed: { rotation: { enabled: true, intervalSeconds: 300 } }
    },
    {
      row: "2.3",
      name: "the shortest Custom",
      spec: rotation({ type: "Custom", custom: { minimumRefreshAge: 1 } }),
      changed: { rotation: { enabled: true, intervalSeconds: 1 } }
    },
    { row: "2.3", name: "Custom without custom", spec: rotation({ type: "Custom" }), changed: {} },
    { row: "2.3", name: "Custom without an age", spec: rotation({ type: "Custom", custom: {} }), changed: {} },
    {
      row: "2.3",
      name: "Custom with an age of 0",
      spec: rotation({ type: "Custom", custom: { minimumRefreshAge: 0 } }),
      changed: {}
    },
    { row: "2.3", name: "tokenRequests without a type", spec: tokens({}), changed: {} },
    { row: "2.3", name: "tokenRequests of an unknown type", spec: tokens({ type: "Mine" }), changed: {} },
    { row: "2.3", name: "tokenRequests Unmanaged", spec: tokens({ type: "Unmanaged" }), changed: {} },
    {
      row: "2.3",
      name: "tokenRequests Unmanaged, whatever is below managed",
      spec: tokens({ type: "Unmanaged", managed: { audiences: [{ audience: "a" }] } }),
      changed: {}
    },
    { row: "2.3", name: "Managed without managed", spec: tokens({ type: "Managed" }), changed: {} },
    {
      row: "2.3",
      name: "Managed with audiences undefined",
      spec: tokens({ type: "Managed", managed: {} }),
      changed: {}
    },
    { row: "2.3", name: "Managed with an empty list", spec: audiences([]), changed: { tokenRequests: [] } },
    {
      row: "2.3",
      name: "Managed, in order",
      spec: audiences([{ audience: "b", expirationSeconds: 3600 }, { audience: "a" }]),
      changed: { tokenRequests: [{ audience: "b", expirationSeconds: 3600 }, { audience: "a" }] }
    },
    {
      row: "2.3",
      name: "an audience that is missing is empty, and a time of 0 is none",
      spec: audiences([{ expirationSeconds: 0 }]),
      changed: { tokenRequests: [{ audience: "" }] }
    },
    {
      row: "2.3",
      name: "nothing else of an audience",
      spec: audiences([{ audience: "a", comment: "x" }]),
      changed: { tokenRequests: [{ audience: "a" }] }
    },
    { row: "5.1", name: "logLevel Normal", spec: { logLevel: "Normal" }, changed: {} },
    { row: "5.1", name: "an empty logLevel", spec: { logLevel: "" }, changed: {} },
    { row: "5.1", name: "an unknown logLevel", spec: { logLevel: "Loud" }, changed: {} },
    { row: "5.1", name: "logLevel Debug", spec: { logLevel: "Debug" }, changed: { logLevel: 4 } },
    { row: "5.1", name: "logLevel Trace", spec: { logLevel: "Trace" }, changed: { logLevel: 6 } },
    { row: "5.1", name: "logLevel TraceAll", spec: { logLevel: "TraceAll" }, changed: { logLevel: 8 } },
    { row: "5.1", name: "the operator's own level is another", spec: { operatorLogLevel: "Debug" }, changed: {} }
  ])("$row $name", ({ changed, spec }) => {
    assert.deepStrictEqual<unknown>(settingsOf(clusterCsiDriver(spec)), { ...defaults, ...changed })
  })
})

describe("interval as an argument", () => {
  it.each<readonly [seconds: number, text: string]>([
    [1, "1s"],
    [45, "45s"],
    [59, "59s"],
    [60, "1m"],
    [90, "1m30s"],
    [120, "2m"],
    [300, "5m"],
    [3600, "60m"],
    [3605, "1h0m5s"],
    [3661, "1h1m1s"],
    [31_560_000, "526000m"],
    [31_559_999, "8766h39m59s"]
  ])("2.3 %i seconds are %s", (seconds, text) => {
    assert.strictEqual(formatInterval(seconds), text)
  })
})
