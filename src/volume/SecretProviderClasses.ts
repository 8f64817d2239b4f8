/**
 * SecretProviderClasses of the namespaces that have volumes on this node.
 *
 * A namespace is followed from its first use on until ten minutes after its last. A class that is held is answered
 * without asking the API server; one that is not is asked for once before "not found" is said. Where listing or watching
 * is not allowed, every answer is a live read.
 */
import { Context, Effect, Layer, RcMap, References, type Scope, Tracer } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { listeners } from "../reconciler/Listeners.ts"
import * as Reflector from "../reconciler/Reflector.ts"
import * as Resource from "../reconciler/Resource.ts"

const IDLE_TIME_TO_LIVE = "10 minutes"
/** How long the first list of a namespace is waited for before the API server is asked for the one class. */
const FIRST_LIST = "5 seconds"

/**
 * The words that callers look for. A 404 that does not speak of the class speaks of the resource, and keeps its words.
 *
 * @source controller-runtime's cache reader, as used by driver v1.6.0; reference/driver.md 2.7 #12
 */
const inTheWordsOfTheCache = (failure: KubernetesApiFailed, name: string): KubernetesApiFailed =>
  failure.isNotFound && !/could not find the requested resource|page not found/u.test(failure.detail)
    ? new KubernetesApiFailed({
        method: failure.method,
        path: failure.path,
        status: failure.status,
        reason: failure.reason,
        detail: `SecretProviderClass.secrets-store.csi.x-k8s.io ${JSON.stringify(name)} not found`
      })
    : failure

/** What is held may be trusted while nothing but the connection is wrong. */
const isFollowing = (reflector: Reflector.Reflector<SecretProviderClass>): boolean => {
  const failure = reflector.failure()
  return reflector.isSynced() && (failure === undefined || failure.isTransient)
}

/** What is held of a class at one moment. */
export type HeldClass =
  | { readonly _tag: "Held"; readonly object: SecretProviderClass }
  /** Its namespace is followed without a fault, and it is not there. */
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Unknown" }

export class SecretProviderClasses extends Context.Service<
  SecretProviderClasses,
  {
    /** Fails as the API server does; a class that does not exist is a `KubernetesApiFailed` that `isNotFound`. */
    readonly get: (namespace: string, name: string) => Effect.Effect<SecretProviderClass, KubernetesApiFailed>
    /** What is known of a class without asking about it; opens its namespace like `get`. */
    readonly held: (namespace: string, name: string) => Effect.Effect<SecretProviderClass | undefined>
    /** What is held of a class now; opens nothing. */
    readonly current: (namespace: string, name: string) => HeldClass
    /** Follows a namespace until the scope closes, also when nobody asks for its classes. */
    readonly follow: (namespace: string) => Effect.Effect<void, never, Scope.Scope>
    /** Until the scope closes; runs at once, and does not work itself. */
    readonly onChange: (listener: (namespace: string, name: string) => void) => Effect.Effect<void, never, Scope.Scope>
    /** How many namespaces are being followed. */
    readonly openNamespaces: Effect.Effect<number>
  }
>()("secrets-store/volume/SecretProviderClasses") {
  static readonly layer = Layer.effect(
    SecretProviderClasses,
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const changes = listeners<readonly [namespace: string, name: string]>()
      const open = new Map<string, Reflector.Reflector<SecretProviderClass>>()
      const tell = ({ metadata }: SecretProviderClass) => changes.tell(metadata.namespace ?? "", metadata.name ?? "")
      const onChange = (change: Reflector.Change<SecretProviderClass>) =>
        Effect.sync(() => {
          if (change._tag !== "Synced") return tell(change.object)
          for (const found of change.objects.values()) tell(found)
        })
      const namespaces = yield* RcMap.make({
        lookup: (namespace: string) =>
          // It outlives the publish that happens to open it, and is not a part of that one's trace or log lines.
          Effect.acquireRelease(
            Effect.tap(
              Reflector.make({ resource: Resource.secretProviderClasses, selection: { namespace }, onChange }),
              (made) =>
                Effect.sync(() => {
                  open.set(namespace, made)
                  // Whoever was told of these before asked in vain what they are.
                  for (const found of made.objects().values()) tell(found)
                })
            ),
            () => Effect.sync(() => open.delete(namespace))
          ).pipe(
            Effect.provideService(References.CurrentLogAnnotations, {}),
            Effect.updateContext((context: Context.Context<KubernetesApi | Scope.Scope>) =>
              Context.omit(Tracer.ParentSpan)(context)
            )
          ),
        idleTimeToLive: IDLE_TIME_TO_LIVE
      })
      const live = (namespace: string, name: string) =>
        Resource.get(Resource.secretProviderClasses, namespace, name).pipe(
          Effect.provideService(KubernetesApi, api),
          Effect.mapError((failure) => inTheWordsOfTheCache(failure, name))
        )
      const held = Effect.fnUntraced(function* (namespace: string, name: string) {
        if (!Resource.isSegment(namespace)) return undefined
        const reflector = yield* RcMap.get(namespaces, namespace)
        if (!isFollowing(reflector)) yield* Effect.timeoutOption(reflector.attempted, FIRST_LIST)
        return isFollowing(reflector) ? reflector.get(`${namespace}/${name}`) : undefined
      }, Effect.scoped)
      return SecretProviderClasses.of({
        get: Effect.fnUntraced(function* (namespace, name) {
          return (yield* held(namespace, name)) ?? (yield* live(namespace, name))
        }),
        held,
        current: (namespace, name) => {
          const reflector = open.get(namespace)
          if (reflector === undefined || !isFollowing(reflector)) return { _tag: "Unknown" }
          const object = reflector.get(`${namespace}/${name}`)
          // While it cannot be reached, what has come meanwhile is not known.
          if (object === undefined) return { _tag: reflector.failure() === undefined ? "Absent" : "Unknown" }
          return { _tag: "Held", object }
        },
        follow: (namespace) =>
          Resource.isSegment(namespace) ? Effect.asVoid(RcMap.get(namespaces, namespace)) : Effect.void,
        onChange: changes.add,
        openNamespaces: Effect.map(RcMap.keys(namespaces), (keys) => [...keys].length)
      })
    })
  )
}
