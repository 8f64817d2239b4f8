/** The operator's own specs, row by row: how often volumes are refreshed, and whose the audiences of tokens are. */
import { setTimeout as sleep } from "node:timers/promises"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { driverReady, intervalOf, operatorReports, rotationOf } from "../support/Driver.ts"
import { apply, at, get, type Json, kubectl, until } from "../support/Kubectl.ts"
import { clusterCsiDriver, DAEMON_SET, DRIVER, NAMESPACE, ROTATION_SECONDS, secretsStore } from "../support/Objects.ts"

const MANUAL = [{ audience: "manual", expirationSeconds: 3600 }]
/** How long what is nobody's business of ours is looked at. */
const UNTOUCHED_SECONDS = 30

const withSettings = (settings: Json) =>
  clusterCsiDriver({ driverConfig: { driverType: "SecretsStore", secretsStore: settings } })
const every = (seconds: number): Json => ({ type: "Custom", custom: { minimumRefreshAge: seconds } })

const audiences = async () => at(await get("csidriver", DRIVER), "spec", "tokenRequests")
const setAudiences = (requests: ReadonlyArray<Json>) =>
  kubectl([
    ...["patch", "csidriver", DRIVER, "--type=merge"],
    `--patch=${JSON.stringify({ spec: { tokenRequests: requests } })}`
  ])

/** What the CSIDriver and the driver's arguments say. */
const rotates = (republishes: boolean, enabled: string, interval?: string) =>
  until(`requiresRepublish ${republishes}, rotation ${enabled}, every ${interval}`, 30, async () => {
    const daemonSet = await get("daemonset", DAEMON_SET, NAMESPACE)
    const found = [
      at(await get("csidriver", DRIVER), "spec", "requiresRepublish"),
      rotationOf(daemonSet),
      interval === undefined ? undefined : intervalOf(daemonSet)
    ]
    if (JSON.stringify(found) === JSON.stringify([republishes, enabled, interval])) return true
    throw new Error(JSON.stringify(found))
  })

const staysManual = async () => {
  for (let second = 0; second < UNTOUCHED_SECONDS; second++) {
    assert.deepStrictEqual(await audiences(), MANUAL)
    await sleep(1_000)
  }
}

describe("specs of the operator", () => {
  beforeAll(() => setAudiences(MANUAL))

  it("tokens omitted (upgrade), rotation default: an audience by hand stays, requiresRepublish, true and 2m", async () => {
    await apply(clusterCsiDriver())
    await rotates(true, "true", "2m")
    await staysManual()
  })

  it("tokens Unmanaged, rotation custom: an audience by hand stays, requiresRepublish, true and 5m", async () => {
    await apply(withSettings({ secretRotation: every(300), tokenRequests: { type: "Unmanaged" } }))
    await rotates(true, "true", "5m")
    await staysManual()
  })

  it("rotation invalid: Custom without custom is refused", async () => {
    const refused = await apply(withSettings({ secretRotation: { type: "Custom" } })).catch(String)
    assert.include(refused, "custom must be set when type is 'Custom'")
    await rotates(true, "true", "5m")
  })

  it("rotation none: neither is on", async () => {
    await apply(withSettings({ secretRotation: { type: "None" } }))
    await rotates(false, "false")
  })

  it("rotation toggle: None, and then every minute", async () => {
    await apply(withSettings({ secretRotation: every(60) }))
    await rotates(true, "true", "1m")
    await setAudiences([])
    await apply(clusterCsiDriver(secretsStore(ROTATION_SECONDS, [])))
    await driverReady((_, daemonSet) => intervalOf(daemonSet) === `${ROTATION_SECONDS}s`)
    await operatorReports("Degraded", "False")
    await operatorReports("Available", "True")
  })
})
