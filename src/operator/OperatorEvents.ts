/**
 * Events of the operator: about the Deployment that it runs as, so that they outlive its pods.
 *
 * Recording never fails and never waits. The same message again is counted; another one is another Event. Whoever says
 * too much is not heard until a second per Event has passed. Made over the API without a fence: a process that leads no
 * more may say so.
 */
import { Clock, Context, Effect, Layer, Result } from "effect"
import type { ObjectReference } from "../../schemas/Core.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import type { KubernetesApi } from "../ports/KubernetesApi.ts"
import * as EventWriter from "../reconciler/EventWriter.ts"
import * as Resource from "../reconciler/Resource.ts"

/**
 * Who says it: what follows the operator's name in `source.component`.
 *
 * @source reference/operator.md 1.7
 */
export const COMPONENTS = {
  operator: "",
  logLevel: "loggingsyncer",
  managementState: "management-state-recorder-secrets-store-csi-driver-managementstate",
  staticResources:
    "secretsstoreconditionalstaticresourcescontroller-secretsstoreconditionalstaticresourcescontroller-staticresources",
  configObserver:
    "csi-config-observer-controller-secretsstoredrivercsiconfigobservercontroller-config-observer-configobserver",
  node: "csi-driver-node-service_secretsstoredrivernodeservicecontroller-secretsstoredrivernodeservicecontroller"
} as const

export interface OperatorEvent {
  readonly type: "Normal" | "Warning"
  /** One word in CamelCase. */
  readonly reason: string
  readonly message: string
  /** Of COMPONENTS. */
  readonly component: string
}

const BURST = 60
const REFILL_MILLIS = 1_000
/** Of (source, object); a bucket that is full again says nothing and is forgotten. */
const BUCKETS_MAX = 1_000
const RESOLVE_TIMEOUT = "5 seconds"
/** Pod, ReplicaSet, Deployment. */
const HOPS_MAX = 2

interface Bucket {
  readonly tokens: number
  readonly atMillis: number
}

/**
 * One Event is to be written: is there a token for it?
 *
 * @shape  (bucket: undefined when nothing was said yet, nowMillis) -> the bucket afterwards, undefined when it is empty
 * @units  60 tokens, one more each second; milliseconds of the monotonic clock
 * @errors none
 * @source client-go, tools/record, spam filter; reference/operator.md 1.7
 */
export const take = (bucket: Bucket | undefined, nowMillis: number): Bucket | undefined => {
  const before = bucket ?? { tokens: BURST, atMillis: nowMillis }
  const tokens = Math.min(BURST, before.tokens + (nowMillis - before.atMillis) / REFILL_MILLIS)
  return tokens < 1 ? undefined : { tokens: tokens - 1, atMillis: nowMillis }
}

/** @shape (owners) -> the one that controls, undefined when none does */
const controllerOf = ({ ownerReferences = [] }: { readonly ownerReferences?: ReadonlyArray<OwnerReference> }) =>
  ownerReferences.find((owner) => owner["controller"] === true)

/** The namespace itself, which is there whatever else is not. */
const ofNamespace = (namespace: string): ObjectReference => ({
  apiVersion: "v1",
  kind: "Namespace",
  name: namespace,
  namespace
})

/** What controls an object in the end; the object itself when nothing does. */
const topOf = Effect.fnUntraced(function* (
  namespace: string,
  name: string
): Effect.fn.Return<ObjectReference, KubernetesApiFailed, KubernetesApi> {
  const pod = yield* Resource.get(Resource.pods, namespace, name)
  let top: ObjectReference = { apiVersion: "v1", kind: "Pod", name, namespace }
  if (pod.metadata.uid !== undefined) top = { ...top, uid: pod.metadata.uid }
  let owner = controllerOf(pod.metadata)
  for (let hop = 0; hop < HOPS_MAX && owner !== undefined; hop++) {
    top = { apiVersion: owner.apiVersion, kind: owner.kind, name: owner.name, namespace, uid: owner.uid }
    if (owner.kind !== "ReplicaSet") return top
    owner = controllerOf((yield* Resource.get(Resource.replicaSets, namespace, owner.name)).metadata)
  }
  return top
})

/**
 * What the operator's Events are about.
 *
 * @shape  (namespace, podName: of this process, when it is known) -> reference
 * @errors none: whatever cannot be found out, it is the namespace
 * @source reference/operator.md 1.7; unlike there, no pod is guessed when ours is not known
 */
export const involved = (
  namespace: string,
  podName: string | undefined
): Effect.Effect<ObjectReference, never, KubernetesApi> =>
  podName === undefined || podName === ""
    ? Effect.succeed(ofNamespace(namespace))
    : Effect.map(
        Effect.result(Effect.timeoutOption(topOf(namespace, podName), RESOLVE_TIMEOUT)),
        Result.match({
          onFailure: () => ofNamespace(namespace),
          onSuccess: (top) => (top._tag === "Some" ? top.value : ofNamespace(namespace))
        })
      )

export class OperatorEvents extends Context.Service<
  OperatorEvents,
  {
    /** About the operator itself. */
    readonly record: (event: OperatorEvent) => Effect.Effect<void>
    /** About another object, in the operator's namespace. */
    readonly recordOn: (about: ObjectReference, event: OperatorEvent) => Effect.Effect<void>
    /** Waits until all is written or given up, for no longer than five seconds. */
    readonly flush: Effect.Effect<void>
  }
>()("secrets-store/operator/OperatorEvents") {
  /** Finds out at once what the Events are about, for no longer than five seconds. Flushes when its scope closes. */
  static readonly layer = (options: {
    readonly namespace: string
    readonly podName: string | undefined
    readonly componentPrefix: string
  }) => Layer.effect(OperatorEvents, make(options))
}

const make = Effect.fnUntraced(function* ({
  componentPrefix,
  namespace,
  podName
}: {
  readonly namespace: string
  readonly podName: string | undefined
  readonly componentPrefix: string
}) {
  const itself = yield* involved(namespace, podName)
  const writer = yield* EventWriter.make
  const buckets = new Map<string, Bucket>()

  /** In one piece. */
  const isHeard = (key: string, nowMillis: number): boolean => {
    const after = take(buckets.get(key), nowMillis)
    if (after === undefined) return false
    buckets.delete(key)
    buckets.set(key, after)
    for (const oldest of buckets.keys()) {
      if (buckets.size <= BUCKETS_MAX) break
      buckets.delete(oldest)
    }
    return true
  }

  const recordOn = (about: ObjectReference, { component, message, reason, type }: OperatorEvent) =>
    Effect.flatMap(Clock.monotonicTimeNanos, (nanos) => {
      const source = component === "" ? componentPrefix : `${componentPrefix}-${component}`
      const object = [about.kind ?? "", about.namespace ?? "", about.name ?? "", about.uid ?? ""]
      if (!isHeard([source, ...object].join("\u0000"), Number(nanos) / 1e6)) return Effect.void
      return writer.record({
        type,
        reason,
        message,
        about,
        namespace,
        component: source,
        instance: podName,
        sameAs: [source, ...object, type, reason, message],
        everyMillis: 0,
        logged: { object: `${about.kind ?? ""}/${about.name ?? ""}` }
      })
    })

  yield* Effect.addFinalizer(() => writer.flush)
  return OperatorEvents.of({ record: (event) => recordOn(itself, event), recordOn, flush: writer.flush })
})
