import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, References } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKubernetes, layer as memoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { COMPONENTS, involved, type OperatorEvent, OperatorEvents, take } from "../../src/operator/OperatorEvents.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"

const PREFIX = "secrets-store-csi-driver-operator"
const namespaceItself = { apiVersion: "v1", kind: "Namespace", name: "ns", namespace: "ns" }

const put = Effect.fnUntraced(function* (
  kind: "Pod" | "ReplicaSet",
  name: string,
  owner?: { readonly kind: string; readonly name: string; readonly controller?: boolean }
) {
  const api = yield* KubernetesApi
  const group = kind === "Pod" ? "api/v1" : "apis/apps/v1"
  const ownerReferences =
    owner === undefined ? [] : [{ apiVersion: "apps/v1", controller: true, uid: `uid of ${owner.name}`, ...owner }]
  yield* api.request({
    method: "POST",
    path: `/${group}/namespaces/ns/${kind.toLowerCase()}s`,
    body: {
      apiVersion: kind === "Pod" ? "v1" : "apps/v1",
      kind,
      metadata: { name, namespace: "ns", ownerReferences }
    }
  })
})
const replicaSet = { kind: "ReplicaSet", name: "rs" }
const deployment = { kind: "Deployment", name: "operator" }
const nothing = Effect.void

describe("involved", () => {
  it.effect.each([
    {
      name: "the Deployment behind the ReplicaSet",
      world: Effect.andThen(put("Pod", "pod", replicaSet), put("ReplicaSet", "rs", deployment)),
      expected: { apiVersion: "apps/v1", kind: "Deployment", name: "operator", namespace: "ns", uid: "uid of operator" }
    },
    {
      name: "another controller",
      world: put("Pod", "pod", { kind: "StatefulSet", name: "set" }),
      expected: { apiVersion: "apps/v1", kind: "StatefulSet", name: "set", namespace: "ns", uid: "uid of set" }
    },
    {
      name: "a ReplicaSet of nobody",
      world: Effect.andThen(put("Pod", "pod", replicaSet), put("ReplicaSet", "rs")),
      expected: { apiVersion: "apps/v1", kind: "ReplicaSet", name: "rs", namespace: "ns", uid: "uid of rs" }
    },
    { name: "without POD_NAME", podName: undefined, world: put("Pod", "other", deployment), expected: namespaceItself },
    { name: "an empty POD_NAME", podName: "", world: nothing, expected: namespaceItself },
    { name: "no such pod", world: nothing, expected: namespaceItself },
    { name: "the ReplicaSet cannot be read", world: put("Pod", "pod", replicaSet), expected: namespaceItself }
  ])("1.7 $name", ({ expected, world, ...rest }) =>
    Effect.gen(function* () {
      yield* world
      const podName = "podName" in rest ? rest.podName : "pod"
      assert.deepStrictEqual<unknown>(yield* involved("ns", podName), expected)
    }).pipe(Effect.provide(memoryKubernetes))
  )

  it.effect("1.7 a pod of nobody; an owner that does not control", () =>
    Effect.gen(function* () {
      yield* put("Pod", "pod", { ...deployment, controller: false })
      assert.deepInclude(yield* involved("ns", "pod"), { kind: "Pod", name: "pod" })
    }).pipe(Effect.provide(memoryKubernetes))
  )

  it.effect("1.7 an API server that does not answer is waited for no longer than five seconds", () =>
    Effect.gen(function* () {
      const finding = yield* Effect.forkChild(involved("ns", "pod"), { startImmediately: true })
      yield* TestClock.adjust(5_000)
      assert.deepStrictEqual<unknown>(finding.pollUnsafe(), Exit.succeed(namespaceItself))
    }).pipe(Effect.provide(Layer.mock(KubernetesApi, { request: () => Effect.never })))
  )
})

describe("take", () => {
  it("1.7 sixty at once, then one a second", () => {
    let bucket = take(undefined, 0)
    for (let n = 1; n < 60; n++) bucket = take(bucket, 0)
    assert.deepStrictEqual(bucket, { tokens: 0, atMillis: 0 })
    assert.isUndefined(take(bucket, 999))
    assert.deepStrictEqual(take(bucket, 1_000), { tokens: 0, atMillis: 1_000 })
    assert.deepStrictEqual(take(bucket, 3_600_000), { tokens: 59, atMillis: 3_600_000 })
  })
})

describe("record", () => {
  const layer = OperatorEvents.layer({ namespace: "ns", podName: undefined, componentPrefix: PREFIX })
  const world = Layer.provideMerge(layer, memoryKubernetes)
  const event: OperatorEvent = {
    type: "Normal",
    reason: "DaemonSetCreated",
    message: "one",
    component: COMPONENTS.node
  }
  const all = Effect.flatMap(MemoryKubernetes, (server) => server.all("events"))

  it.effect("1.7 the whole object", () =>
    Effect.gen(function* () {
      const { flush, record } = yield* OperatorEvents
      yield* record(event)
      yield* flush
      const [{ metadata: _, ...written } = {}, ...others] = yield* all
      assert.deepStrictEqual(others, [])
      const component = `${PREFIX}-csi-driver-node-service_secretsstoredrivernodeservicecontroller-secretsstoredrivernodeservicecontroller`
      assert.deepStrictEqual<unknown>(written, {
        apiVersion: "v1",
        kind: "Event",
        involvedObject: namespaceItself,
        type: "Normal",
        reason: "DaemonSetCreated",
        message: "one",
        source: { component },
        reportingComponent: component,
        count: 1,
        firstTimestamp: "1970-01-01T00:00:00Z",
        lastTimestamp: "1970-01-01T00:00:00Z"
      })
    }).pipe(Effect.provide(world))
  )

  it.effect.each([
    { name: "the same again", change: {}, counts: [2] },
    { name: "another message", change: { message: "two" }, counts: [1, 1] },
    { name: "another reason", change: { reason: "Other" }, counts: [1, 1] },
    { name: "another type", change: { type: "Warning" as const }, counts: [1, 1] },
    { name: "from elsewhere", change: { component: COMPONENTS.logLevel }, counts: [1, 1] }
  ])("1.7 $name", ({ change, counts }) =>
    Effect.gen(function* () {
      const { flush, record } = yield* OperatorEvents
      yield* record(event)
      yield* flush
      yield* record({ ...event, ...change })
      yield* flush
      assert.deepStrictEqual(
        (yield* all).map(({ count }) => count),
        counts
      )
    }).pipe(Effect.provide(world))
  )

  it.effect("1.7 who says too much is not heard for a while; others are", () =>
    Effect.gen(function* () {
      const { flush, record } = yield* OperatorEvents
      for (let n = 0; n < 70; n++) yield* record({ ...event, message: `${n}` })
      yield* record({ ...event, component: COMPONENTS.operator })
      yield* flush
      assert.strictEqual((yield* all).length, 61)
      yield* TestClock.adjust(1_000)
      yield* record({ ...event, message: "after a second" })
      yield* record({ ...event, message: "at once after that" })
      yield* flush
      assert.strictEqual((yield* all).length, 62)
    }).pipe(Effect.provide(world))
  )

  it.effect("1.6 about the Lease", () =>
    Effect.gen(function* () {
      const { flush, recordOn } = yield* OperatorEvents
      const lease = { apiVersion: "coordination.k8s.io/v1", kind: "Lease", name: "lock", namespace: "ns", uid: "u" }
      yield* recordOn(lease, { ...event, reason: "LeaderElection", message: "us became leader", component: "" })
      yield* flush
      const [written] = yield* all
      assert.deepInclude(written, { involvedObject: lease, source: { component: PREFIX }, reason: "LeaderElection" })
    }).pipe(Effect.provide(world))
  )

  it.effect("1.7, 1.10 what is unwritten when the process ends is written, within five seconds", () =>
    Effect.gen(function* () {
      yield* Effect.provide(
        Effect.flatMap(OperatorEvents, ({ record }) => record(event)),
        layer
      )
      assert.strictEqual((yield* all).length, 1)
    }).pipe(Effect.provide(memoryKubernetes))
  )

  it.effect("1.10 an API server that does not answer does not hold up the end", () =>
    Effect.gen(function* () {
      const { flush, record } = yield* OperatorEvents
      yield* record(event)
      const flushing = yield* Effect.forkChild(flush, { startImmediately: true })
      yield* TestClock.adjust(4_999)
      assert.isUndefined(flushing.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.isDefined(flushing.pollUnsafe())
    }).pipe(
      Effect.provide(Layer.provide(layer, Layer.mock(KubernetesApi, { request: () => Effect.never }))),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
  )
})
