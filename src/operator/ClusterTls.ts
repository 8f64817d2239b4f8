/**
 * Follows the cluster's TLS profile, on every replica: a server that is told of changes needs no restart, and one that
 * does not lead serves as well (Q21).
 *
 * Where config.openshift.io is not served there is no profile; that is looked at again every minute. What cannot be read
 * or resolved leaves the last good profile in force, is logged once, and is there to be reported.
 *
 * @source reference/operator.md 1.3, 3.8, Q21; reference/defects.md B9
 */
import { Effect, Exit, Option, Result, Schema, Scope, type Stream, SubscriptionRef } from "effect"
import { ApiServer } from "../../schemas/ApiServerConfig.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import * as Reflector from "../reconciler/Reflector.ts"
import * as Resource from "../reconciler/Resource.ts"
import { apiGroupCheck, tlsProfileRead } from "../reconciler/Schedules.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import { type ClusterProfile, resolveTlsProfile } from "./TlsProfile.ts"

const GROUP = "config.openshift.io"
const VERSION = "v1"
const CLUSTER = "cluster"
const OBJECT = `apiservers.${GROUP}/${CLUSTER}`
const START_BUDGET = "30 seconds"

export const apiServers = Resource.make({
  group: GROUP,
  version: VERSION,
  plural: "apiservers",
  kind: "APIServer",
  namespaced: false,
  schema: ApiServer
})

export interface ClusterTls {
  /** Undefined until it could be read for the first time. */
  readonly current: Effect.Effect<ClusterProfile | undefined>
  /** The present one, and then each that differs from the one before. */
  readonly changes: Stream.Stream<ClusterProfile | undefined>
  /** Why the profile in force may not be the cluster's, in words for a condition; undefined when it is. */
  readonly failure: Effect.Effect<string | undefined>
}

const ResourceList = Schema.Struct({
  resources: Schema.optionalKey(Schema.Array(Schema.Struct({ name: Schema.optionalKey(Schema.String) })))
})
const decodeResourceList = Schema.decodeUnknownResult(Schema.toCodecGoJson(ResourceList))

/** Whether the API server knows APIServers of the cluster. */
const isServed: Effect.Effect<boolean, KubernetesApiFailed, KubernetesApi> = Effect.gen(function* () {
  const api = yield* KubernetesApi
  const answer = yield* api.request({ method: "GET", path: `/apis/${GROUP}/${VERSION}` })
  const list = decodeResourceList(answer)
  return Result.isSuccess(list) && (list.success.resources ?? []).some(({ name }) => name === apiServers.plural)
}).pipe(
  Effect.catchIf(
    ({ isNotFound }) => isNotFound,
    () => Effect.succeed(false)
  )
)

/** None when there is no such object. */
const read: Effect.Effect<Option.Option<ApiServer>, KubernetesApiFailed, KubernetesApi> = Resource.get(
  apiServers,
  "",
  CLUSTER
).pipe(
  Effect.asSome,
  Effect.catchIf(
    ({ isNotFound }) => isNotFound,
    () => Effect.succeedNone
  )
)

const isSame = (a: ClusterProfile | undefined, b: ClusterProfile): boolean =>
  a !== undefined && JSON.stringify(a) === JSON.stringify(b)

/**
 * Reads the profile, for up to 30 seconds, and follows it until the scope closes. An API server that cannot be read does
 * not keep the operator from starting.
 *
 * @shape  () -> ClusterTls
 * @units  the first attempt at once, then every 2 s; discovery every minute
 * @errors none; see `failure`
 */
export const make: Effect.Effect<ClusterTls, never, KubernetesApi | Scope.Scope> = Effect.gen(function* () {
  const profile = yield* SubscriptionRef.make<ClusterProfile | undefined>(undefined)
  /** Of the profile itself, and of reaching it. */
  let unresolved: string | undefined
  let unread: string | undefined
  let following: { readonly scope: Scope.Closeable; readonly reflector: Reflector.Reflector<ApiServer> } | undefined
  const isHealthy = () => following?.reflector.isSynced() === true && following.reflector.failure() === undefined

  const notRead = Effect.fnUntraced(function* (failure: KubernetesApiFailed) {
    const isNew = unread === undefined
    unread = `cannot read ${OBJECT}: ${failure.message}`
    if (!isNew) return
    yield* Effect.logWarning("the cluster's TLS profile cannot be read, trying again every minute", {
      [LogKeys.error]: failure.message,
      [LogKeys.remedy]: failure.remedy
    })
  })

  const observe = Effect.fnUntraced(function* (apiServer: ApiServer | undefined) {
    unread = undefined
    const resolved = resolveTlsProfile(apiServer)
    if (Result.isFailure(resolved)) {
      const { message, remedy } = resolved.failure
      const isNew = unresolved !== message
      unresolved = message
      if (isNew) {
        yield* Effect.logWarning("the cluster's TLS profile cannot be used, the last good one stays in force", {
          [LogKeys.error]: message,
          [LogKeys.remedy]: remedy
        })
      }
      return
    }
    unresolved = undefined
    const before = yield* SubscriptionRef.get(profile)
    if (isSame(before, resolved.success)) return
    yield* SubscriptionRef.set(profile, resolved.success)
    const { honour, iana, minTlsVersion, warnings } = resolved.success
    for (const warning of warnings) yield* Effect.logWarning(warning)
    yield* Effect.logInfo("the cluster's TLS profile is read", { honoured: honour, minTlsVersion, ciphers: iana })
  })

  const follow = Effect.gen(function* () {
    const scope = yield* Scope.make()
    const reflector = yield* Scope.provide(
      Reflector.make({
        resource: apiServers,
        selection: { fieldSelector: `metadata.name=${CLUSTER}` },
        onChange: (change) => {
          if (change._tag === "Synced") return observe(change.objects.get(CLUSTER))
          if (change.key !== CLUSTER) return Effect.void
          return observe(change._tag === "Applied" ? change.object : undefined)
        }
      }),
      scope
    )
    following = { scope, reflector }
  })

  const unfollow = Effect.suspend(() => {
    const before = following
    following = undefined
    return before === undefined ? Effect.void : Scope.close(before.scope, Exit.void)
  })

  /** Whoever follows well has nothing to ask. */
  const check = Effect.gen(function* () {
    if (isHealthy()) {
      unread = undefined
      return
    }
    if (yield* isServed) {
      if (following === undefined) yield* follow
      return
    }
    yield* unfollow
    yield* observe(undefined)
  }).pipe(Effect.catch(notRead))

  const first = yield* read.pipe(
    Effect.tapError((failure) =>
      Effect.sync(() => {
        unread = `cannot read ${OBJECT}: ${failure.message}`
      })
    ),
    Effect.retry(tlsProfileRead),
    Effect.timeoutOption(START_BUDGET),
    Effect.catch(() => Effect.succeedNone)
  )
  if (Option.isSome(first)) yield* observe(Option.getOrUndefined(first.value))
  else {
    yield* Effect.logWarning("the cluster's TLS profile could not be read in time, starting without it", {
      [LogKeys.error]: unread ?? `no answer within ${START_BUDGET}`
    })
  }

  yield* Effect.addFinalizer(() => unfollow)
  yield* Effect.forkScoped(Effect.repeat(check, apiGroupCheck))

  return {
    current: SubscriptionRef.get(profile),
    changes: SubscriptionRef.changes(profile),
    failure: Effect.sync(() => {
      if (unresolved !== undefined || isHealthy()) return unresolved
      const failure = following?.reflector.failure()
      return failure === undefined ? unread : `cannot follow ${OBJECT}: ${failure.message}`
    })
  }
})
