/**
 * Pod statuses that others have written or deleted, on a whole node: each volume keeps one that is true of it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { objectAt } from "../../layers/fake/KubernetesObject.ts"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { publish } from "../../src/volume/NodePublish.ts"
import * as Node from "../support/FakeNode.ts"

const NEVER = Number.POSITIVE_INFINITY
const PATH = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/default/secretproviderclasspodstatuses/web-default-spc"
const FORBIDDEN = { status: 403, reason: "Forbidden" }

const later = (seconds: number) => Effect.repeat(TestClock.adjust("1 second"), { times: seconds })

const patch = (body: unknown, path = PATH) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({ method: "PATCH", path, contentType: "application/merge-patch+json", body })
  )
const remove = (path: string) => Effect.flatMap(KubernetesApi, (api) => api.request({ method: "DELETE", path }))

/** What counts of each: not what the API server has to say. */
const statuses = Effect.flatMap(MemoryKubernetes, (kubernetes) =>
  Effect.map(kubernetes.all("secretproviderclasspodstatuses"), (all) =>
    all.map((it) => {
      const { annotations, labels, name, ownerReferences } = objectAt(it, "metadata")
      return { annotations, labels, name, ownerReferences, status: it["status"] }
    })
  )
)
const writes = Effect.flatMap(MemoryKubernetes, (kubernetes) =>
  Effect.map(kubernetes.requests, (requests) =>
    requests
      .filter(({ method, resource }) => method !== "GET" && resource.startsWith("secretproviderclasspodstatuses"))
      .reduce((sum, { count }) => sum + count, 0)
  )
)

type Api = KubernetesApi["Service"]

const onNode = <A, E, R>(body: Effect.Effect<A, E, R>, between: (api: Api) => Api = (api) => api) =>
  Effect.gen(function* () {
    yield* Node.syncing
    yield* Node.putClass({ provider: "vault", parameters: { roleName: "r" } })
    const request = yield* Node.putPod()
    yield* later(1)
    yield* publish(request, NEVER)
    yield* later(1)
    return yield* body
  }).pipe(
    Effect.scoped,
    Effect.provide(
      Node.driverLayer(Node.script()).pipe(
        Layer.provideMerge(Layer.effect(KubernetesApi, Effect.map(KubernetesApi, between))),
        Layer.provideMerge(Node.worldLayer)
      )
    )
  )

describe("a pod status of a published volume (S13)", () => {
  it.effect.each([
    { deed: "deletes it", act: remove(PATH) },
    {
      deed: "takes the node label away",
      act: patch({ metadata: { labels: { "internal.secrets-store.csi.k8s.io/node-name": null } } })
    },
    { deed: "takes its objects away", act: patch({ status: { objects: null } }) },
    { deed: "says that nothing is mounted", act: patch({ status: { mounted: false } }) }
  ])("is right again when somebody $deed", ({ act }) =>
    onNode(
      Effect.gen(function* () {
        const before = yield* statuses
        assert.strictEqual(before.length, 1)
        yield* act
        assert.notDeepEqual(yield* statuses, before)
        yield* later(10)
        assert.deepStrictEqual(yield* statuses, before)
        const done = yield* writes
        yield* later(600)
        assert.strictEqual(yield* writes, done, "once")
      })
    )
  )

  it.effect("Q14 one that somebody makes another volume's is left alone, and the volume gets one of its own", () =>
    onNode(
      Effect.gen(function* () {
        const [before] = yield* statuses
        yield* patch({ status: { targetPath: "/elsewhere" } })
        yield* later(10)
        const [others, own, ...more] = yield* statuses
        assert.deepStrictEqual(more, [])
        assert.strictEqual(objectAt(others ?? {}, "status")["targetPath"], "/elsewhere")
        assert.deepStrictEqual({ ...own, name: before?.name }, before)
      })
    )
  )

  it.effect("what others note in it stays, and is no reason to write it", () =>
    onNode(
      Effect.gen(function* () {
        yield* patch({ metadata: { labels: { "others/note": "kept" } } })
        const before = [yield* statuses, yield* writes]
        yield* later(600)
        assert.deepStrictEqual([yield* statuses, yield* writes], before)
      })
    )
  )

  it.effect("goes with its pod, and does not come back while the volume is still there", () =>
    onNode(
      Effect.gen(function* () {
        yield* remove(`${Node.podsPath("default")}/web`)
        yield* remove(PATH)
        yield* later(600)
        assert.deepStrictEqual(yield* statuses, [])
      })
    )
  )

  it.effect("a write that is refused is tried again", () =>
    onNode(
      Effect.gen(function* () {
        const kubernetes = yield* MemoryKubernetes
        const before = yield* statuses
        yield* kubernetes.failNext(({ method }) => method === "POST", FORBIDDEN, { applied: false })
        yield* remove(PATH)
        yield* later(10)
        assert.deepStrictEqual(yield* statuses, before)
      })
    )
  )

  it.effect("that came and went while a watch was silent, and is in no list after that, is made again", () => {
    const isOver = Deferred.makeUnsafe<void>()
    const gone = new KubernetesApiFailed({
      method: "GET",
      path: PATH,
      status: 410,
      reason: "Expired",
      detail: "too old"
    })
    const silent = Stream.fromEffect(Effect.andThen(Deferred.await(isOver), Effect.fail(gone)))
    return onNode(
      Effect.gen(function* () {
        yield* later(5)
        const before = yield* statuses
        assert.strictEqual(before.length, 1)
        yield* remove(PATH)
        yield* later(60)
        assert.deepStrictEqual(yield* statuses, [])
        yield* Deferred.succeed(isOver, undefined)
        yield* later(10)
        assert.deepStrictEqual(yield* statuses, before)
      }),
      (api) => ({
        ...api,
        watch: (request, idleMillis) =>
          request.path.includes("secretproviderclasspodstatuses") && !Deferred.isDoneUnsafe(isOver)
            ? silent
            : api.watch(request, idleMillis)
      })
    )
  })

  it.effect("is right again once its pod is heard of, however late that is", () => {
    const isHeard = Deferred.makeUnsafe<void>()
    return onNode(
      Effect.gen(function* () {
        const before = yield* statuses
        yield* patch({ status: { mounted: false } })
        yield* later(60)
        assert.notDeepEqual(yield* statuses, before)
        yield* Deferred.succeed(isHeard, undefined)
        yield* later(10)
        assert.deepStrictEqual(yield* statuses, before)
      }),
      (api) => ({
        ...api,
        watch: (request, idleMillis) =>
          request.path === "/api/v1/pods"
            ? Stream.unwrap(Effect.as(Deferred.await(isHeard), api.watch(request, idleMillis)))
            : api.watch(request, idleMillis)
      })
    )
  })

  it.effect("that lost its label before this process could ask for it has it again", () => {
    let isRefused = false
    const node = Node.driverLayer(Node.script())
    const reluctant = Layer.effect(
      KubernetesApi,
      Effect.map(KubernetesApi, (api) => ({
        ...api,
        request: (request) =>
          isRefused && request.method === "GET" && request.path === PATH
            ? Effect.fail(new KubernetesApiFailed({ method: "GET", path: PATH, detail: "not now", ...FORBIDDEN }))
            : api.request(request)
      }))
    )
    return Effect.gen(function* () {
      yield* Node.putClass({ provider: "vault", parameters: { roleName: "r" } })
      const request = yield* Node.putPod()
      yield* Effect.provide(publish(request, NEVER), node)
      const before = yield* statuses
      yield* patch({ metadata: { labels: { "internal.secrets-store.csi.k8s.io/node-name": null } } })
      isRefused = true
      yield* Effect.gen(function* () {
        yield* Node.syncing
        yield* Effect.ignore(publish(request, NEVER))
        yield* later(4)
        isRefused = false
        yield* publish(request, NEVER)
        yield* later(10)
        assert.deepStrictEqual(yield* statuses, before)
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Layer.fresh(node), reluctant)))
    }).pipe(Effect.provide(Node.worldLayer))
  })
})
