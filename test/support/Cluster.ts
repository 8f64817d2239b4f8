/**
 * A small cluster on virtual time: nodes with the whole driver, pods that take their time to start and to end, owners
 * whose garbage is collected, and a witness who sees every version of every Secret.
 *
 * A pod is held by a finalizer of the kubelet's while it ends, as a real one is while its containers stop.
 */
import { Clock, Context, Effect, Fiber, Random, Schedule, Stream } from "effect"
import { isObject, type JsonObject, metadataOf, objectAt, textAt } from "../../layers/fake/KubernetesObject.ts"
import { MemoryCsiEndpoint } from "../../layers/fake/MemoryCsiEndpoint.ts"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { MemoryProviders, type MountHandler } from "../../layers/fake/MemoryProviders.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import * as Node from "./FakeNode.ts"
import * as Whole from "./WholeDriver.ts"

const NAMESPACE = "default"
const KUBELET = "kubelet/runs-it"
const START_MILLIS = { least: 1_000, most: 3_000 }
const END_MILLIS = { least: 100, most: 2_000 }
const STATUS_MILLIS = 500
const UNPUBLISH_MILLIS = 30_000

export type ClusterNode = Effect.Success<ReturnType<typeof Whole.node>>

/** A pod with one volume. It lives from its first OK on, until somebody wants it to end. */
export interface ClusterPod {
  readonly name: string
  readonly className: string
  readonly node: ClusterNode
  readonly published: Whole.Published
  readonly kubelet: Fiber.Fiber<unknown, unknown>
  endingMillis: number | undefined
}

/** One version of a Secret. */
export interface Seen {
  readonly type: string
  readonly millis: number
  readonly name: string
  readonly uid: string
  readonly object: JsonObject
  /** Not in base64. */
  readonly data: Readonly<Record<string, string>>
}

const path = (resource: string) => `/api/v1/namespaces/${NAMESPACE}/${resource}`
const between = ({ least, most }: { readonly least: number; readonly most: number }) => Random.nextBetween(least, most)

/** @shape (from, to, in milliseconds) -> sleeps for a time between them */
export const sleepBetween = (least: number, most: number) => Effect.flatMap(between({ least, most }), Effect.sleep)

const decodedData = (object: JsonObject) =>
  Object.fromEntries(
    Object.entries(objectAt(object, "data")).map(([key, value]) => [
      key,
      Buffer.from(String(value), "base64").toString()
    ])
  )

/** A node whose providers all answer with the same handler. */
export const node = Effect.fnUntraced(function* (
  nodeId: string,
  handler: MountHandler,
  change: Partial<DriverConfig> = {},
  between: Parameters<typeof Whole.node>[2] = {}
) {
  const made = yield* Whole.node(nodeId, change, between)
  yield* Context.get(made.context, MemoryProviders).install("vault", handler)
  return made
})

/** What owns pods. */
export const owner = Effect.fnUntraced(function* (name: string, kind: "ReplicaSet" | "StatefulSet" = "ReplicaSet") {
  const api = yield* KubernetesApi
  const made = yield* api.request({
    method: "POST",
    path: `/apis/apps/v1/namespaces/${NAMESPACE}/${kind.toLowerCase()}s`,
    body: { apiVersion: "apps/v1", kind, metadata: { name }, spec: {} }
  })
  return { apiVersion: "apps/v1", kind, name, uid: Resource.metadataOf(made).uid ?? "" } satisfies OwnerReference
})

export const removeOwner = ({ kind, name }: OwnerReference) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({ method: "DELETE", path: `/apis/apps/v1/namespaces/${NAMESPACE}/${kind.toLowerCase()}s/${name}` })
  )

/** @shape (entries: Secret's name -> its keys, by the files that they are made of) -> spec of a class */
export const classOf = (secrets: Readonly<Record<string, Readonly<Record<string, string>>>>) => ({
  provider: "vault",
  parameters: { roleName: "r" },
  secretObjects: Object.entries(secrets).map(([secretName, keys]) => ({
    secretName,
    type: "Opaque",
    data: Object.entries(keys).map(([key, objectName]) => ({ key, objectName }))
  }))
})

/** Creates a pod; the kubelet of its node then starts it. Does not wait for that. */
export const startPod = Effect.fnUntraced(function* (
  on: ClusterNode,
  {
    className,
    name,
    ownerReferences
  }: {
    readonly name: string
    readonly className: string
    readonly ownerReferences: ReadonlyArray<OwnerReference>
  }
) {
  const api = yield* KubernetesApi
  const created = yield* api.request({
    method: "POST",
    path: path("pods"),
    body: {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, ownerReferences, finalizers: [KUBELET] },
      spec: {
        nodeName: on.nodeId,
        volumes: [
          {
            name: "secrets",
            csi: {
              driver: Node.settings.driverName,
              readOnly: true,
              volumeAttributes: { secretProviderClass: className }
            }
          }
        ]
      }
    }
  })
  const { uid = "" } = Resource.metadataOf(created)
  const targetPath = Node.targetOf(uid)
  const published: Whole.Published = {
    request: {
      ...Node.request,
      volumeId: `csi-${uid}`,
      targetPath,
      volumeContext: {
        ...Node.request.volumeContext,
        secretProviderClass: className,
        "csi.storage.k8s.io/pod.name": name,
        "csi.storage.k8s.io/pod.uid": uid
      }
    },
    okMillis: undefined,
    republishes: []
  }
  const starting = Effect.gen(function* () {
    yield* Effect.flatMap(between(START_MILLIS), Effect.sleep)
    yield* Node.prepareTarget(targetPath)
    yield* Effect.forkChild(
      Effect.gen(function* () {
        while (published.okMillis === undefined) yield* Effect.sleep(STATUS_MILLIS)
        yield* Effect.ignore(
          api.request({
            method: "PATCH",
            path: `${path("pods")}/${name}/status`,
            contentType: "application/merge-patch+json",
            body: { metadata: { uid }, status: { phase: "Running" } }
          })
        )
      })
    )
    return yield* Whole.keepPublished(published)
  })
  const kubelet = yield* Effect.forkScoped(Effect.provideContext(starting, on.context))
  const pod: ClusterPod = { name, className, node: on, published, kubelet, endingMillis: undefined }
  return pod
})

export const isMounted = ({ published }: ClusterPod): boolean => published.okMillis !== undefined

/** Deletes a pod, and waits until it is gone. */
export const endPod = Effect.fnUntraced(function* (pod: ClusterPod) {
  const api = yield* KubernetesApi
  const ownPath = `${path("pods")}/${pod.name}`
  pod.endingMillis = yield* Clock.currentTimeMillis
  yield* api.request({ method: "DELETE", path: ownPath })
  yield* Effect.flatMap(between(END_MILLIS), Effect.sleep)
  yield* Fiber.interrupt(pod.kubelet)
  const { targetPath, volumeId } = pod.published.request
  const { call } = Context.get(pod.node.context, MemoryCsiEndpoint)
  const unpublish = Effect.flatMap(Clock.currentTimeMillis, (now) =>
    call("NodeUnpublishVolume", { volumeId, targetPath }, { deadlineMillis: now + UNPUBLISH_MILLIS })
  )
  yield* Effect.retry(unpublish, Schedule.spaced("1 second"))
  yield* api.request({
    method: "PATCH",
    path: ownPath,
    contentType: "application/merge-patch+json",
    body: { metadata: { finalizers: null } }
  })
})

/** As the garbage collector does, every few seconds; as the API server does, bookmarks now and then. */
export const collecting = (everyMillis = 2_000) =>
  Effect.flatMap(MemoryKubernetes, (control) =>
    Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(everyMillis), control.collectGarbage)))
  )

/** Hears of every version of every Secret, in the moment in which it comes to be. */
export const witness = Effect.fnUntraced(function* (hear: (seen: Seen) => void) {
  const api = yield* KubernetesApi
  const told = ({ object, type }: { readonly type: string; readonly object: unknown }) =>
    Effect.map(Clock.currentTimeMillis, (millis) => {
      if (!isObject(object)) return
      const metadata = metadataOf(object)
      const [name, uid] = [textAt(metadata, "name") ?? "", textAt(metadata, "uid") ?? ""]
      hear({ type, millis, name, uid, object, data: decodedData(object) })
    })
  // Nobody cuts this one: what a node does not hear is decided between the node and the API server.
  const watch = api.watch({ path: path("secrets") }, Number.POSITIVE_INFINITY).pipe(Stream.runForEach(told))
  yield* Effect.forkScoped(Effect.orDie(watch))
  yield* Effect.sleep(1)
})

/** What lies between a node and the API server. */
export interface Line {
  /** Every event of a watch comes at most this much later. */
  readonly lagMillisMax: number
  /** Every watch ends after a while, and none can be opened for some seconds then. */
  readonly isCut: boolean
}

const lost = (asked: string) =>
  new KubernetesApiFailed({
    method: "GET",
    path: asked,
    status: 0,
    reason: "Network",
    detail: "the connection was lost"
  })

/** An API server whose watches are late and break. */
export const behind =
  ({ isCut, lagMillisMax }: Line) =>
  (api: KubernetesApi["Service"]): KubernetesApi["Service"] => {
    let closedUntil = 0
    const cut = Effect.gen(function* () {
      yield* sleepBetween(5_000, 60_000)
      const now = yield* Clock.currentTimeMillis
      closedUntil = now + (yield* Random.nextBetween(0, 8_000))
    })
    return {
      ...api,
      watch: (request, idleMillis) =>
        Stream.unwrap(
          Effect.gen(function* () {
            if (isCut && (yield* Clock.currentTimeMillis) < closedUntil) return Stream.fail(lost(request.path))
            const late = api
              .watch(request, idleMillis)
              .pipe(
                Stream.mapEffect((event) =>
                  lagMillisMax === 0 ? Effect.succeed(event) : Effect.as(sleepBetween(0, lagMillisMax), event)
                )
              )
            return isCut ? Stream.interruptWhen(late, cut) : late
          })
        )
    }
  }
