/**
 * What the operator expects of every API server about the kinds that it reads and writes. Rows quote
 * reference/operator.md.
 *
 * The ClusterCSIDriver is one of another driver, which nobody else writes meanwhile.
 */
import { randomUUID } from "node:crypto"
import { assert, it } from "@effect/vitest"
import { Effect, type Layer, type Scope } from "effect"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"

const MERGE = "application/merge-patch+json"
const APPLY = "application/apply-patch+yaml"
const DRIVERS = "/apis/operator.openshift.io/v1/clustercsidrivers"
const NAME = "smb.csi.k8s.io"
const ROOT = `${DRIVERS}/${NAME}`
const STATUS = `${ROOT}/status`
const NEWEST = "please apply your changes to the latest version and try again"

type Json = Readonly<Record<string, unknown>>

interface Stored {
  readonly kind: string
  readonly metadata: Json & { readonly resourceVersion: string }
  readonly spec?: Json
  readonly status?: Json
}

const driver = (more: Json = {}) => ({
  apiVersion: "operator.openshift.io/v1",
  kind: "ClusterCSIDriver",
  metadata: { name: NAME },
  ...more
})

const condition = (type: string, status = "True") => ({
  type,
  status,
  lastTransitionTime: "2026-01-01T00:00:00Z",
  reason: "AsExpected",
  message: "as it should be"
})

const generation = (name: string, lastGeneration = 1) => ({
  group: "apps",
  resource: "daemonsets",
  namespace: "default",
  name,
  lastGeneration
})

interface Listed {
  readonly conditions?: ReadonlyArray<{ readonly type: string; readonly status: string }>
  readonly generations?: ReadonlyArray<{ readonly name: string; readonly lastGeneration: number }>
}

/** What a status lists, in words. */
const wordsOf = ({ status = {} }: Stored) => {
  const { conditions, generations } = status as Listed
  return {
    ...(conditions === undefined ? {} : { conditions: conditions.map((it) => `${it.type} ${it.status}`) }),
    ...(generations === undefined ? {} : { generations: generations.map((it) => `${it.name} ${it.lastGeneration}`) })
  }
}

const managersOf = ({ metadata }: Stored) =>
  ((metadata["managedFields"] ?? []) as ReadonlyArray<Json>)
    .map(({ manager, subresource }) => (subresource === undefined ? manager : `${manager} ${subresource}`))
    .sort()

export const suite = <E>(name: string, layer: Layer.Layer<KubernetesApi, E>) =>
  it.layer(layer, { excludeTestServices: true })(`the operator's kinds (${name})`, (it) => {
    const send = (request: KubernetesRequest): Effect.Effect<Stored, KubernetesApiFailed, KubernetesApi> =>
      Effect.flatMap(KubernetesApi, (api) => Effect.map(api.request(request), (body) => body as Stored))

    const patch = (path: string, body: unknown, fieldManager = "admin") =>
      send({ method: "PATCH", path, body, contentType: MERGE, query: { fieldManager } })

    const applyStatus = (fieldManager: string, status?: Json) =>
      send({
        method: "PATCH",
        path: STATUS,
        body: driver(status === undefined ? {} : { status }),
        contentType: APPLY,
        query: { fieldManager }
      })

    const forget = patch(ROOT, { metadata: { finalizers: null } }).pipe(
      Effect.andThen(send({ method: "DELETE", path: ROOT })),
      Effect.ignore
    )

    const create = (
      more: Json = { spec: {} }
    ): Effect.Effect<Stored, KubernetesApiFailed, KubernetesApi | Scope.Scope> =>
      Effect.addFinalizer(() => forget).pipe(
        Effect.andThen(forget),
        Effect.andThen(send({ method: "POST", path: DRIVERS, body: driver(more), query: { fieldManager: "admin" } }))
      )

    it.effect("2.1: log levels are Normal when nothing is said", () =>
      Effect.gen(function* () {
        const made = yield* create()
        assert.deepStrictEqual(made.spec, { logLevel: "Normal", operatorLogLevel: "Normal" })
        const bare = yield* patch(ROOT, { spec: { logLevel: null } })
        assert.deepStrictEqual(bare.spec, { logLevel: "Normal", operatorLogLevel: "Normal" })
      })
    )

    it.effect("2.4: the generation counts changes of spec, and of nothing else but the wish to be deleted", () =>
      Effect.gen(function* () {
        const made = yield* create({ spec: { managementState: "Managed" }, status: { version: "1" } })
        assert.deepStrictEqual([made.metadata["generation"], made.status], [1, undefined])
        const labelled = yield* patch(ROOT, { metadata: { labels: { a: "b" }, finalizers: ["example.com/a"] } })
        assert.strictEqual(labelled.metadata["generation"], 1)
        const told = yield* patch(STATUS, { status: { version: "1" }, spec: { managementState: "Removed" } })
        assert.deepStrictEqual(
          [told.metadata["generation"], told.status, told.spec?.["managementState"]],
          [1, { version: "1" }, "Managed"]
        )
        const changed = yield* patch(ROOT, { spec: { managementState: "Unmanaged" }, status: { version: "2" } })
        assert.deepStrictEqual([changed.metadata["generation"], changed.status], [2, { version: "1" }])
        yield* send({ method: "DELETE", path: ROOT })
        assert.strictEqual((yield* send({ method: "GET", path: ROOT })).metadata["generation"], 3)
      })
    )

    it.effect("3.9: a finalizer is patched in with the version that was read, and conflicts with any other", () =>
      Effect.gen(function* () {
        const made = yield* create()
        const { resourceVersion } = made.metadata
        const finalizers = ["example.com/operator"]
        const held = yield* patch(ROOT, { metadata: { resourceVersion, finalizers } })
        assert.deepStrictEqual(held.metadata["finalizers"], finalizers)
        const stale = yield* Effect.flip(patch(ROOT, { metadata: { resourceVersion, finalizers: null } }))
        assert.deepStrictEqual(
          [stale.status, stale.reason, stale.message],
          [
            409,
            "Conflict",
            `Operation cannot be fulfilled on clustercsidrivers.operator.openshift.io "${NAME}": the object has been modified; ${NEWEST}`
          ]
        )
        const fresh = { metadata: { resourceVersion: held.metadata.resourceVersion, finalizers: null } }
        assert.isUndefined((yield* patch(ROOT, fresh)).metadata["finalizers"])
      })
    )

    it.effect("3.9: whoever is held is marked, keeps its status, takes no new finalizer, and goes with the last", () =>
      Effect.gen(function* () {
        yield* create()
        yield* patch(ROOT, { metadata: { finalizers: ["example.com/a"] } })
        const marked = yield* send({ method: "DELETE", path: ROOT })
        assert.isString(marked.metadata["deletionTimestamp"])
        assert.strictEqual(marked.metadata["deletionGracePeriodSeconds"], 0)
        const again = yield* send({ method: "DELETE", path: ROOT })
        assert.strictEqual(again.metadata.resourceVersion, marked.metadata.resourceVersion)
        const told = yield* applyStatus("a", { conditions: [condition("A")] })
        assert.deepStrictEqual(wordsOf(told), { conditions: ["A True"] })
        const more = { metadata: { finalizers: ["example.com/a", "example.com/b"] } }
        const refused = yield* Effect.flip(patch(ROOT, more))
        assert.strictEqual(
          refused.message,
          `ClusterCSIDriver.operator.openshift.io "${NAME}" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"example.com/b"}`
        )
        yield* patch(ROOT, { metadata: { finalizers: null } })
        assert.isTrue((yield* Effect.flip(send({ method: "GET", path: ROOT }))).isNotFound)
        assert.isTrue((yield* Effect.flip(applyStatus("a", {}))).isNotFound)
      })
    )

    it.effect("3.1: a PUT has to say of which version it is", () =>
      Effect.gen(function* () {
        yield* create()
        const refused = yield* Effect.flip(send({ method: "PUT", path: ROOT, body: driver({ spec: {} }) }))
        assert.deepStrictEqual(
          [refused.status, refused.message],
          [
            422,
            `clustercsidrivers.operator.openshift.io "${NAME}" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update`
          ]
        )
      })
    )

    it.effect("3.1: two managers keep their own conditions, and spec is nobody's of them", () =>
      Effect.gen(function* () {
        const made = yield* create({ spec: { managementState: "Managed" } })
        yield* applyStatus("a", { conditions: [condition("A"), condition("B")] })
        const both = yield* applyStatus("b", { conditions: [condition("C")], generations: [generation("node")] })
        assert.deepStrictEqual(wordsOf(both), {
          conditions: ["A True", "B True", "C True"],
          generations: ["node 1"]
        })
        assert.deepStrictEqual(managersOf(both), ["a status", "admin", "b status"])
        const turned = yield* applyStatus("a", { conditions: [condition("A", "False")] })
        assert.deepStrictEqual(wordsOf(turned), { conditions: ["A False", "C True"], generations: ["node 1"] })
        const rolled = yield* applyStatus("b", { conditions: [condition("C")], generations: [generation("node", 2)] })
        assert.deepStrictEqual(wordsOf(rolled), { conditions: ["A False", "C True"], generations: ["node 2"] })
        const taken = yield* Effect.flip(applyStatus("b", { conditions: [condition("A"), condition("C")] }))
        assert.strictEqual(
          taken.message,
          'Apply failed with 1 conflict: conflict with "a" with subresource "status": .status.conditions[type="A"].status'
        )
        assert.deepStrictEqual([rolled.spec, rolled.metadata["generation"]], [made.spec, 1])
      })
    )

    it.effect("3.1: applying the same status again makes no version", () =>
      Effect.gen(function* () {
        yield* create()
        const status = { conditions: [condition("A")], generations: [generation("node")] }
        const one = yield* applyStatus("a", status)
        const same = yield* applyStatus("a", status)
        assert.strictEqual(same.metadata.resourceVersion, one.metadata.resourceVersion)
      })
    )

    it.effect.each([
      { name: "others have conditions", others: { conditions: [condition("A")] }, left: { conditions: ["A True"] } },
      {
        name: "others have both",
        others: { conditions: [condition("A")], generations: [generation("other")] },
        left: { conditions: ["A True"], generations: ["other 1"] }
      },
      { name: "nobody else has anything", others: undefined, left: {} }
    ])("3.1: whoever applies no status lets go of all it had: $name", ({ left, others }) =>
      Effect.gen(function* () {
        yield* create()
        if (others !== undefined) yield* applyStatus("a", others)
        yield* applyStatus("b", { conditions: [condition("C")], generations: [generation("node")] })
        const gone = yield* applyStatus("b")
        assert.deepStrictEqual<unknown>(wordsOf(gone), left)
        assert.notInclude(managersOf(gone), "b status")
        const again = yield* applyStatus("b")
        assert.strictEqual(again.metadata.resourceVersion, gone.metadata.resourceVersion)
        const back = yield* applyStatus("b", { conditions: [condition("C")] })
        assert.include(wordsOf(back).conditions ?? [], "C True")
      })
    )

    it.effect("3.1: an empty status says the same while others have some, and is refused to the last (422)", () =>
      Effect.gen(function* () {
        yield* create()
        yield* applyStatus("a", { conditions: [condition("A")] })
        yield* applyStatus("b", { conditions: [condition("C")], generations: [generation("node")] })
        assert.deepStrictEqual(wordsOf(yield* applyStatus("b", {})), { conditions: ["A True"] })
        yield* create()
        yield* applyStatus("b", { conditions: [condition("C")] })
        const refused = yield* Effect.flip(applyStatus("b", {}))
        assert.deepStrictEqual([refused.status, refused.reason], [422, "Invalid"])
        assert.include(refused.message, 'status: Invalid value: "null":  in body must be of type object: "null"')
      })
    )

    it.effect("3.1: an empty list is let go of at first, and is written when it is applied again", () =>
      Effect.gen(function* () {
        yield* create()
        yield* applyStatus("a", { conditions: [condition("A")] })
        yield* applyStatus("b", { conditions: [condition("C")], generations: [generation("node")] })
        const nothing = { conditions: [], generations: [] }
        assert.deepStrictEqual<unknown>(wordsOf(yield* applyStatus("b", nothing)), { conditions: ["A True"] })
        const written = wordsOf(yield* applyStatus("b", nothing))
        assert.deepStrictEqual<unknown>(written, { conditions: ["A True"], generations: [] })
      })
    )

    it.effect("13: documents say what is served", () =>
      Effect.gen(function* () {
        const read = (path: string) => Effect.map(send({ method: "GET", path }), (body) => body as unknown as Json)
        const groups = yield* read("/apis")
        const named = (groups["groups"] as ReadonlyArray<Json>).map((it) => it["name"])
        assert.strictEqual(groups["kind"], "APIGroupList")
        for (const group of ["apps", "storage.k8s.io", "networking.k8s.io", "operator.openshift.io"]) {
          assert.include(named, group)
        }
        const version = { groupVersion: "operator.openshift.io/v1", version: "v1" }
        assert.deepStrictEqual(yield* read("/apis/operator.openshift.io"), {
          kind: "APIGroup",
          apiVersion: "v1",
          name: "operator.openshift.io",
          versions: [version],
          preferredVersion: version
        })
        const resources = yield* read("/apis/operator.openshift.io/v1")
        assert.deepStrictEqual(
          [resources["kind"], resources["groupVersion"]],
          ["APIResourceList", "operator.openshift.io/v1"]
        )
        assert.deepStrictEqual<unknown>(
          (resources["resources"] as ReadonlyArray<Json>)
            .map(({ kind, name: plural, namespaced, singularName }) => ({ kind, plural, namespaced, singularName }))
            .sort((one, other) => (String(one.plural) < String(other.plural) ? -1 : 1)),
          [
            {
              kind: "ClusterCSIDriver",
              plural: "clustercsidrivers",
              namespaced: false,
              singularName: "clustercsidriver"
            },
            { kind: "ClusterCSIDriver", plural: "clustercsidrivers/status", namespaced: false, singularName: "" }
          ]
        )
      })
    )

    it.effect.each([
      { path: "/apis/nothing.example.com" },
      { path: "/apis/nothing.example.com/v1" },
      { path: "/apis/nothing.example.com/v1/nothings" }
    ])("13: what is not served has no documents and no objects: $path is 404, in no Status", ({ path }) =>
      Effect.gen(function* () {
        const refused = yield* Effect.flip(send({ method: "GET", path }))
        assert.deepStrictEqual([refused.status, refused.reason, refused.isNotFound], [404, "NotFound", true])
        assert.include(refused.message, "404 page not found")
      })
    )

    it.effect("13: nobody writes to a document (405)", () =>
      Effect.gen(function* () {
        const refused = yield* Effect.flip(send({ method: "POST", path: "/apis/apps/v1", body: {} }))
        assert.strictEqual(refused.status, 405)
      })
    )

    it.effect("3.6: a DaemonSet is deleted at once when its pods are left to others", () =>
      Effect.gen(function* () {
        const collection = "/apis/apps/v1/namespaces/default/daemonsets"
        const own = `operand-${randomUUID().slice(0, 8)}`
        const labels = { app: own }
        const body = {
          apiVersion: "apps/v1",
          kind: "DaemonSet",
          metadata: { name: own },
          spec: {
            selector: { matchLabels: labels },
            template: { metadata: { labels }, spec: { containers: [{ name: "a", image: "a:1" }] } }
          }
        }
        yield* send({ method: "POST", path: collection, body })
        const options = { apiVersion: "v1", kind: "DeleteOptions", propagationPolicy: "Background" }
        const answer = yield* send({ method: "DELETE", path: `${collection}/${own}`, body: options })
        assert.strictEqual(answer.kind, "Status")
        const missing = yield* Effect.flip(send({ method: "GET", path: `${collection}/${own}` }))
        assert.isTrue(missing.isNotFound)
      })
    )
  })
