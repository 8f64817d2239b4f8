/**
 * What an API server accepts as a ClusterCSIDriver where our definition of it is installed, and in which words it refuses
 * the rest: in memory, and a real one when there is one.
 *
 * @source reference/operator.md 2.1, 2.2, 2.4, 9.2
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { layer as memory } from "../../layers/fake/MemoryKubernetes.ts"
import { layer as kubernetesHttp } from "../../layers/real/KubernetesHttp.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"

const kubeconfig = process.env["TEST_KUBECONFIG"] ?? ""
const needs = kubeconfig === "" ? " (needs TEST_KUBECONFIG)" : ""
const real = kubernetesHttp({ kubeconfig, userAgent: "crd/1.0", environment: process.env })

const MERGE = "application/merge-patch+json"
const DRIVERS = "/apis/operator.openshift.io/v1/clustercsidrivers"
const NAME = "secrets-store.csi.k8s.io"
const OTHER = "efs.csi.aws.com"

type Json = Readonly<Record<string, unknown>>

const driver = (spec: unknown, name = NAME, more: Json = {}) => ({
  apiVersion: "operator.openshift.io/v1",
  kind: "ClusterCSIDriver",
  metadata: { name },
  ...(spec === undefined ? {} : { spec }),
  ...more
})

const configured = (secretsStore?: unknown, driverType: unknown = "SecretsStore") => ({
  driverConfig: { driverType, ...(secretsStore === undefined ? {} : { secretsStore }) }
})
const rotating = (secretRotation: unknown) => configured({ secretRotation })
const every = (minimumRefreshAge: unknown) => rotating({ type: "Custom", custom: { minimumRefreshAge } })
const requesting = (tokenRequests: unknown) => configured({ tokenRequests })
const managed = (...audiences: ReadonlyArray<unknown>) => requesting({ type: "Managed", managed: { audiences } })
const expiring = (expirationSeconds: unknown) => managed({ audience: "a", expirationSeconds })
const unmanaged = requesting({ type: "Unmanaged" })
const none = rotating({ type: "None" })

const UNION = {
  secretsStore: "secretsStore must be set if driverType is 'SecretsStore', but remain unset otherwise",
  ibmcloud: "ibmcloud must be set if driverType is 'IBMCloud', but remain unset otherwise",
  custom: "custom must be set when type is 'Custom', and must not be set otherwise",
  managed: "managed must be set when type is 'Managed', and must not be set otherwise"
}
const NAMED = `driverType 'SecretsStore' requires metadata.name '${NAME}'`
const TYPED = `metadata.name '${NAME}' requires driverType 'SecretsStore'`
const KEPT = "tokenRequests type cannot be changed from Managed"

const many = (count: number) => Array.from({ length: count }, (_, index) => ({ audience: `audience-${index}` }))

const ACCEPTED = [
  { row: "9.2", name: "the least that there is", spec: {} },
  { row: "9.2", name: "our name without driverConfig", spec: { managementState: "Managed" } },
  ...["Managed", "Unmanaged", "Force", "Removed"].map((managementState) => ({
    ...{ row: "2.1", name: `managementState ${managementState}` },
    spec: { managementState }
  })),
  ...["", "Normal", "Debug", "Trace", "TraceAll"].map((level) => ({
    ...{ row: "2.1", name: `log level ${JSON.stringify(level)}` },
    spec: { logLevel: level, operatorLogLevel: level }
  })),
  {
    row: "2.1",
    name: "what nobody looks at",
    spec: { unsupportedConfigOverrides: { a: { b: 1 } }, observedConfig: {} }
  },
  { row: "2.1", name: "null for it", spec: { unsupportedConfigOverrides: null, observedConfig: null } },
  { row: "2.1", name: "a state of a StorageClass", spec: { storageClassState: "Unmanaged" } },
  { row: "9.2", name: "Managed", spec: managed({ audience: "a" }) },
  { row: "9.2", name: "Unmanaged", spec: unmanaged },
  { row: "9.2", name: "None", spec: none },
  {
    row: "9.2",
    name: "all of it",
    spec: configured({
      secretRotation: { type: "Custom", custom: { minimumRefreshAge: 3600 } },
      tokenRequests: { type: "Managed", managed: { audiences: [{ audience: "a", expirationSeconds: 3600 }] } }
    })
  },
  { row: "9.2", name: "an audience without a name", spec: managed({ audience: "" }) },
  { row: "9.2", name: "Managed with no audience", spec: managed() },
  { row: "9.2", name: "expirationSeconds", spec: managed({ audience: "a", expirationSeconds: 3600 }) },
  { row: "9.2", name: "several audiences", spec: managed({ audience: "a" }, { audience: "b" }, { audience: "" }) },
  { row: "2.2", name: "ten audiences", spec: managed(...many(10)) },
  { row: "2.2", name: "an audience of 253 characters", spec: managed({ audience: "a".repeat(253) }) },
  { row: "2.2", name: "a refresh every second", spec: every(1) },
  { row: "2.2", name: "a refresh once a year", spec: every(31_560_000) },
  { row: "2.2", name: "tokens of ten minutes", spec: expiring(600) },
  { row: "2.2", name: "tokens of ten years", spec: expiring(315_360_000) },
  {
    ...{ row: "2.1", name: "another driver, with what it has", on: OTHER },
    spec: { driverConfig: { driverType: "AWS", aws: { kmsKeyARN: "arn" } } }
  },
  {
    ...{ row: "2.1", name: "IBMCloud, with what it has", on: "vpc.block.csi.ibm.io" },
    spec: { driverConfig: { driverType: "IBMCloud", ibmcloud: { encryptionKeyCRN: "crn" } } }
  }
]

const enumOf = (field: string, value: string) => `${field}: Unsupported value: ${JSON.stringify(value)}`
const SECRETS_STORE = "spec.driverConfig.secretsStore"
const AUDIENCES = `${SECRETS_STORE}.tokenRequests.managed.audiences`
const AGE = `${SECRETS_STORE}.secretRotation.custom.minimumRefreshAge`

const REFUSED = [
  { row: "9.2", name: "SecretsStore without secretsStore", spec: configured(), message: UNION.secretsStore },
  {
    ...{ row: "9.2", name: "secretsStore without the type", on: OTHER, message: UNION.secretsStore },
    spec: configured({ secretRotation: { type: "None" } }, "AWS")
  },
  {
    row: "9.2",
    name: "our name with another type",
    spec: { driverConfig: { driverType: "AWS" } },
    message: TYPED
  },
  { row: "2.2", name: "our name with no type", spec: { driverConfig: { driverType: "" } }, message: TYPED },
  { row: "9.2", name: "our type on another name", on: OTHER, spec: none, message: NAMED },
  {
    row: "2.1",
    name: "a name that nobody has",
    on: "csi.example.com",
    spec: {},
    message: "metadata.name: Unsupported"
  },
  { row: "2.1", name: "no spec", spec: undefined, message: "spec: Required value" },
  {
    row: "2.1",
    name: "driverConfig without a type",
    spec: { driverConfig: {} },
    message: "driverType: Required value"
  },
  {
    ...{ row: "2.2", name: "IBMCloud without ibmcloud", on: OTHER, message: UNION.ibmcloud },
    spec: { driverConfig: { driverType: "IBMCloud" } }
  },
  {
    row: "9.2",
    name: "empty secretsStore",
    spec: configured({}),
    message: `${SECRETS_STORE} in body should have at least 1 properties`
  },
  {
    row: "9.2",
    name: "empty custom",
    spec: rotating({ type: "Custom", custom: {} }),
    message: "secretRotation.custom in body should have at least 1 properties"
  },
  {
    row: "9.2",
    name: "empty managed",
    spec: requesting({ type: "Managed", managed: {} }),
    message: "tokenRequests.managed in body should have at least 1 properties"
  },
  {
    row: "9.2",
    name: "secretRotation without a type",
    spec: rotating({ custom: { minimumRefreshAge: 60 } }),
    message: "secretRotation.type: Required value"
  },
  {
    row: "9.2",
    name: "tokenRequests without a type",
    spec: requesting({ managed: { audiences: [] } }),
    message: "tokenRequests.type: Required value"
  },
  {
    row: "9.2",
    name: "a rotation that is neither",
    spec: rotating({ type: "Sometimes" }),
    message: enumOf(`${SECRETS_STORE}.secretRotation.type`, "Sometimes")
  },
  {
    row: "9.2",
    name: "tokenRequests that are neither",
    spec: requesting({ type: "" }),
    message: enumOf(`${SECRETS_STORE}.tokenRequests.type`, "")
  },
  {
    row: "9.2",
    name: "a driver that nobody knows",
    spec: configured(undefined, "secretsStore"),
    message: enumOf("spec.driverConfig.driverType", "secretsStore")
  },
  {
    row: "2.1",
    name: "a log level that is none",
    spec: { logLevel: "Loud" },
    message: enumOf("spec.logLevel", "Loud")
  },
  {
    row: "2.1",
    name: "a log level of the operator that is none",
    spec: { operatorLogLevel: "normal" },
    message: enumOf("spec.operatorLogLevel", "normal")
  },
  {
    row: "2.1",
    name: "a state of a StorageClass that is none",
    spec: { storageClassState: "Force" },
    message: enumOf("spec.storageClassState", "Force")
  },
  {
    row: "2.1",
    name: "a managementState with more around it",
    spec: { managementState: "Managed!" },
    message: "spec.managementState in body should match '^(Managed|Unmanaged|Force|Removed)$'"
  },
  { row: "2.1", name: "no managementState at all", spec: { managementState: "" }, message: "should match" },
  { row: "9.2", name: "Custom without custom", spec: rotating({ type: "Custom" }), message: UNION.custom },
  {
    row: "2.2",
    name: "None with custom",
    spec: rotating({ type: "None", custom: { minimumRefreshAge: 60 } }),
    message: UNION.custom
  },
  { row: "9.2", name: "Managed without managed", spec: requesting({ type: "Managed" }), message: UNION.managed },
  {
    row: "2.2",
    name: "Unmanaged with managed",
    spec: requesting({ type: "Unmanaged", managed: { audiences: [] } }),
    message: UNION.managed
  },
  {
    row: "9.2",
    name: "a refresh always",
    spec: every(0),
    message: `${AGE} in body should be greater than or equal to 1`
  },
  {
    row: "9.2",
    name: "a refresh too seldom",
    spec: every(31_560_001),
    message: `${AGE} in body should be less than or equal to 31560000`
  },
  { row: "2.2", name: "a refresh in words", spec: every("1m"), message: `${AGE} in body must be of type integer` },
  {
    row: "9.2",
    name: "tokens of five minutes",
    spec: expiring(300),
    message: `${AUDIENCES}[0].expirationSeconds in body should be greater than or equal to 600`
  },
  {
    row: "9.2",
    name: "tokens for ever",
    spec: expiring(315_360_001),
    message: `${AUDIENCES}[0].expirationSeconds in body should be less than or equal to 315360000`
  },
  {
    row: "9.2",
    name: "an audience twice",
    spec: managed({ audience: "a" }, { audience: "b" }, { audience: "a" }),
    message: `${AUDIENCES}[2]: Duplicate value`
  },
  { row: "2.2", name: "eleven audiences", spec: managed(...many(11)), message: `${AUDIENCES}: Too many: 11` },
  {
    row: "2.2",
    name: "an audience of 254 characters",
    spec: managed({ audience: "a".repeat(254) }),
    message: `${AUDIENCES}[0].audience: Too long: may not be more than 253 bytes`
  },
  {
    row: "2.2",
    name: "an audience that is not there",
    spec: managed({ expirationSeconds: 600 }),
    message: `${AUDIENCES}[0].audience: Required value`
  }
]

const patched = (patch: unknown) => ({ patch })
const replaced = (spec: unknown) => ({ spec })

const ACCEPTED_CHANGES = [
  {
    row: "9.2",
    name: "our configuration comes to an old object",
    before: {},
    change: replaced(managed({ audience: "" }))
  },
  {
    row: "9.2",
    name: "something else of an old object changes",
    before: { managementState: "Managed" },
    change: patched({ spec: { logLevel: "Debug" } })
  },
  { row: "9.2", name: "Unmanaged becomes Managed", before: unmanaged, change: replaced(managed()) },
  {
    row: "9.2",
    name: "audiences change while Managed",
    before: managed({ audience: "a" }),
    change: replaced(managed({ audience: "b", expirationSeconds: 600 }))
  },
  {
    row: "2.2",
    name: "audiences are emptied while Managed",
    before: managed({ audience: "a" }),
    change: replaced(managed())
  },
  {
    row: "2.2",
    name: "rotation changes while Managed",
    before: managed({ audience: "a" }),
    change: patched({ spec: { driverConfig: { secretsStore: { secretRotation: { type: "None" } } } } })
  },
  { row: "2.2", name: "Unmanaged goes", before: unmanaged, change: replaced({}) },
  {
    row: "2.2",
    name: "driverConfig goes by null",
    before: every(60),
    change: patched({ spec: { driverConfig: null } })
  },
  { row: "2.2", name: "Custom becomes None, all of it replaced", before: every(60), change: replaced(none) },
  {
    row: "2.2",
    name: "Custom becomes None, by a patch that takes custom away",
    before: every(60),
    change: patched({ spec: { driverConfig: { secretsStore: { secretRotation: { type: "None", custom: null } } } } })
  },
  {
    row: "2.4",
    name: "a revision increases",
    before: {},
    status: { latestAvailableRevision: 2 },
    change: patched({ status: { latestAvailableRevision: 3 } })
  },
  {
    row: "2.4",
    name: "conditions of two types, and what was written last",
    before: {},
    change: patched({
      status: {
        conditions: ["Available", "example.com/Ready_1"].map((type) => ({
          ...{ type, status: "Unknown" },
          lastTransitionTime: "2026-01-01T00:00:00Z"
        })),
        generations: [{ group: "apps", resource: "daemonsets", namespace: "a", name: "b", lastGeneration: 1 }]
      }
    })
  }
]

const condition = (more: Json) => ({ type: "A", status: "True", lastTransitionTime: "2026-01-01T00:00:00Z", ...more })
const conditions = (...list: ReadonlyArray<Json>) => patched({ status: { conditions: list } })

const REFUSED_CHANGES = [
  { row: "9.2", name: "Managed becomes Unmanaged", before: managed(), change: replaced(unmanaged), message: KEPT },
  { row: "9.2", name: "driverConfig goes while Managed", before: managed(), change: replaced({}), message: KEPT },
  {
    row: "9.2",
    name: "driverConfig goes by null while Managed",
    before: managed({ audience: "a" }),
    change: patched({ spec: { driverConfig: null } }),
    message: KEPT
  },
  { row: "9.2", name: "tokenRequests go while Managed", before: managed(), change: replaced(none), message: KEPT },
  {
    row: "2.2",
    name: "secretsStore goes while Managed",
    before: managed(),
    change: patched({ spec: { driverConfig: { secretsStore: null } } }),
    message: KEPT
  },
  {
    row: "2.2",
    name: "Custom becomes None by a patch, and custom stays behind",
    before: every(60),
    change: patched({ spec: { driverConfig: { secretsStore: { secretRotation: { type: "None" } } } } }),
    message: UNION.custom
  },
  {
    row: "2.4",
    name: "a revision decreases",
    before: {},
    status: { latestAvailableRevision: 2 },
    change: patched({ status: { latestAvailableRevision: 1 } }),
    message: "must only increase"
  },
  {
    row: "2.4",
    name: "a condition twice",
    before: {},
    change: conditions(condition({}), condition({ status: "False" })),
    message: "status.conditions[1]: Duplicate value"
  },
  {
    row: "2.4",
    name: "a condition that is neither",
    before: {},
    change: conditions(condition({ status: "Perhaps" })),
    message: enumOf("status.conditions[0].status", "Perhaps")
  },
  {
    row: "2.4",
    name: "a condition with a blank in its type",
    before: {},
    change: conditions(condition({ type: "A B" })),
    message: "conditions[0].type in body should match"
  },
  {
    row: "2.4",
    name: "a condition with a type of 317 characters",
    before: {},
    change: conditions(condition({ type: "A".repeat(317) })),
    message: "status.conditions[0].type: Too long: may not be more than 316 bytes"
  },
  {
    row: "2.4",
    name: "a condition since nobody knows when",
    before: {},
    change: conditions({ type: "A", status: "True" }),
    message: "status.conditions[0].lastTransitionTime: Required value"
  }
]

const send = (request: KubernetesRequest) => Effect.flatMap(KubernetesApi, (api) => api.request(request))

const forget = (name: string) => Effect.ignore(send({ method: "DELETE", path: `${DRIVERS}/${name}` }))

/** Gone with the test. */
const created = Effect.fnUntraced(function* (spec: unknown, name: string) {
  yield* forget(name)
  yield* Effect.addFinalizer(() => forget(name))
  const query = { fieldValidation: "Strict" }
  return yield* send({ method: "POST", path: DRIVERS, body: driver(spec, name), query })
})

interface Change {
  readonly spec?: unknown
  readonly patch?: unknown
}

/** Changes an object that is there. */
const changed = Effect.fnUntraced(function* (before: unknown, status: unknown, { patch, spec }: Change) {
  const path = `${DRIVERS}/${NAME}`
  const made = yield* created(before, NAME)
  const isStatus = patch !== undefined && JSON.stringify(patch).startsWith('{"status"')
  const byPatch = (body: unknown) =>
    send({ method: "PATCH", path: `${path}${isStatus ? "/status" : ""}`, body, contentType: MERGE })
  if (status !== undefined) yield* byPatch({ status })
  if (patch !== undefined) return yield* byPatch(patch)
  const { metadata } = made as { readonly metadata: Json }
  return yield* send({ method: "PUT", path, body: driver(spec, NAME, { metadata }) })
})

const suite = <E>(title: string, layer: Layer.Layer<KubernetesApi, E>) =>
  it.layer(layer, { excludeTestServices: true })(`ClusterCSIDriver (${title})`, (it) => {
    it.effect.each(ACCEPTED)("$row accepts $name", (row) =>
      Effect.asVoid(created(row.spec, "on" in row ? row.on : NAME))
    )

    it.effect.each(REFUSED)("$row refuses $name (422)", (row) =>
      Effect.gen(function* () {
        const refused = yield* Effect.flip(created(row.spec, "on" in row ? row.on : NAME))
        assert.deepStrictEqual([refused.status, refused.reason], [422, "Invalid"])
        assert.include(refused.message, row.message)
      })
    )

    it.effect.each(ACCEPTED_CHANGES)("$row accepts that $name", ({ before, change, ...row }) =>
      Effect.asVoid(changed(before, "status" in row ? row.status : undefined, change))
    )

    it.effect.each(REFUSED_CHANGES)("$row refuses that $name (422)", ({ before, change, message, ...row }) =>
      Effect.gen(function* () {
        const refused = yield* Effect.flip(changed(before, "status" in row ? row.status : undefined, change))
        assert.deepStrictEqual([refused.status, refused.reason], [422, "Invalid"])
        assert.include(refused.message, message)
      })
    )

    it.effect("2.1: what other drivers configure, and what nobody looks at, is kept as it is", () =>
      Effect.gen(function* () {
        const spec = {
          unsupportedConfigOverrides: { a: { b: [1] } },
          observedConfig: { targetcsiconfig: { servingInfo: { minTLSVersion: "VersionTLS12" } } },
          driverConfig: { driverType: "AWS", aws: { kmsKeyARN: "arn", efsVolumeMetrics: { state: "Disabled" } } }
        }
        const kept = yield* created(spec, OTHER)
        assert.deepStrictEqual<unknown>((kept as { spec: unknown }).spec, {
          ...spec,
          logLevel: "Normal",
          operatorLogLevel: "Normal"
        })
      })
    )

    it.effect("2.4: what is not declared is pruned, and cannot be applied", () =>
      Effect.gen(function* () {
        yield* created({}, OTHER)
        const path = `${DRIVERS}/${OTHER}/status`
        const status = { conditions: [condition({ hash: "a" })], other: 1 }
        const pruned = yield* send({ method: "PATCH", path, body: { status }, contentType: MERGE })
        assert.deepStrictEqual<unknown>((pruned as { status: unknown }).status, { conditions: [condition({})] })
        const refused = yield* Effect.flip(
          send({
            method: "PATCH",
            path,
            body: driver(undefined, OTHER, { status: { other: 1 } }),
            contentType: "application/apply-patch+yaml",
            query: { fieldManager: "a" }
          })
        )
        assert.deepStrictEqual(
          [refused.status, refused.message],
          [
            500,
            `failed to create typed patch object (/${OTHER}; operator.openshift.io/v1, Kind=ClusterCSIDriver): .status.other: field not declared in schema`
          ]
        )
      })
    )
  })

suite("in memory", memory)

describe.skipIf(kubeconfig === "")(`a real API server${needs}`, () => {
  suite("real", real)

  it.live.each([
    ...REFUSED.map((row) => ({
      ...{ row: row.row, name: row.name },
      refused: created(row.spec, "on" in row ? row.on : NAME)
    })),
    ...REFUSED_CHANGES.map(({ before, change, ...row }) => ({
      ...{ row: row.row, name: row.name },
      refused: changed(before, "status" in row ? row.status : undefined, change)
    }))
  ])("$row in memory it is refused in the same words: $name", ({ refused }) =>
    Effect.gen(function* () {
      const words = Effect.map(Effect.flip(Effect.scoped(refused)), ({ message, reason, status }) => ({
        ...{ message, reason, status }
      }))
      const ours = yield* Effect.provide(words, Layer.fresh(memory))
      assert.deepStrictEqual(ours, yield* Effect.provide(words, real))
    })
  )
})
