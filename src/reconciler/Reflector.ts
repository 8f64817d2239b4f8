/**
 * Keeps the objects of one selection in memory: list, then watch from there, for ever.
 *
 * A watch that ends goes on from the last version seen, bookmarks included; a version that is no longer kept (410) means
 * listing again. No error ends it: it tries again, less and less often, and says so once per kind of error. What it
 * holds may be behind the API server, so a caller that misses an object asks the API server before it says so.
 */
import { Clock, Deferred, Effect, Option, type Scope, Stream } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type WatchEvent } from "../ports/KubernetesApi.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Resource from "./Resource.ts"
import { watchReconnect } from "./Schedules.ts"

/** The API server ends a watch after this long. */
const WATCH_SECONDS = 290
/** A watch that says nothing for longer than the API server lets it live is dead. */
const IDLE_MILLIS = (WATCH_SECONDS + 10) * 1_000
/** A watch that lived this long was a good one, whatever ended it. */
const SETTLED_MILLIS = 60_000

/**
 * What happened to the objects held. After a list, those that are gone are told one by one, before `Synced`; which is
 * also told when following goes on after a failure.
 */
export type Change<A> =
  | { readonly _tag: "Synced"; readonly objects: ReadonlyMap<string, A> }
  | { readonly _tag: "Applied"; readonly key: string; readonly object: A }
  | { readonly _tag: "Deleted"; readonly key: string; readonly object: A }

export interface Options<A extends Resource.KubernetesObject> {
  readonly resource: Resource.Resource<A>
  readonly selection?: Resource.Selection
  readonly pageSize?: number
  /** Runs within the watch and holds it up: puts a key into a queue, and does not work itself. */
  readonly onChange?: (change: Change<A>) => Effect.Effect<void>
}

export interface Reflector<A> {
  /** By `Resource.keyOf`. */
  readonly get: (key: string) => A | undefined
  /** What is held now; changes under the reader. */
  readonly objects: () => ReadonlyMap<string, A>
  /** True from the first complete list on. */
  readonly isSynced: () => boolean
  /** Why it is not following the API server just now; undefined when it is. */
  readonly failure: () => KubernetesApiFailed | undefined
  /** The first attempt to list has ended, well or badly. */
  readonly attempted: Effect.Effect<void>
  /** Waits for the first complete list; after `withinMillis` it fails with the last failure, or with "Timeout". */
  readonly synced: (withinMillis: number) => Effect.Effect<void, KubernetesApiFailed>
}

/** What is known between two connections. */
interface State<A> {
  objects: Map<string, A>
  /** To go on watching from; undefined means that a list is needed. */
  version: string | undefined
  synced: boolean
  failure: KubernetesApiFailed | undefined
}

/** @shape (the object of an ERROR event) -> the Status as a failure */
const statusOf = (path: string, object: unknown): KubernetesApiFailed => {
  const field = (name: string): unknown =>
    typeof object === "object" && object !== null && name in object ? Reflect.get(object, name) : undefined
  const [code, reason, message] = [field("code"), field("reason"), field("message")]
  return new KubernetesApiFailed({
    method: "GET",
    path,
    status: typeof code === "number" && Number.isInteger(code) ? code : 500,
    reason: typeof reason === "string" ? reason : "",
    detail: typeof message === "string" ? message : "the watch failed"
  })
}

/** A connection that ended as connections do says nothing about the API server. */
const isOrdinary = (failure: KubernetesApiFailed): boolean => failure.reason === "Closed" || failure.isGone

/**
 * Starts following a selection, until the scope closes. Does not wait for the first list.
 *
 * @shape  (options) -> Reflector
 * @errors none; see `failure` and `synced`
 * @source guides of this house; reference/wire.md (e)
 */
export const make = Effect.fnUntraced(function* <A extends Resource.KubernetesObject>({
  onChange = () => Effect.void,
  pageSize,
  resource,
  selection = {}
}: Options<A>): Effect.fn.Return<Reflector<A>, never, KubernetesApi | Scope.Scope> {
  const api = yield* KubernetesApi
  const path = Resource.pathOf(resource, selection.namespace)
  const state: State<A> = { objects: new Map(), version: undefined, synced: false, failure: undefined }
  const attempted = yield* Deferred.make<void>()
  const synced = yield* Deferred.make<void>()

  /** @shape () -> whether something was wrong until now */
  const healthy = Effect.suspend(() => {
    if (state.failure === undefined) return Effect.succeed(false)
    state.failure = undefined
    return Effect.as(
      Effect.logInfo("following the API server again", { resource: Resource.qualifiedName(resource), path }),
      true
    )
  })

  /** Takes over a list in one piece, then tells what changed. */
  const relist = Effect.gen(function* () {
    const listed = yield* Resource.list(resource, selection, pageSize)
    const before = state.objects
    state.objects = new Map(listed.objects.map((object) => [Resource.keyOf(object), object]))
    state.version = listed.resourceVersion
    state.synced = true
    yield* healthy
    for (const [key, object] of before) {
      if (!state.objects.has(key)) yield* onChange({ _tag: "Deleted", key, object })
    }
    yield* onChange({ _tag: "Synced", objects: state.objects })
    yield* Deferred.succeed(synced, undefined)
  }).pipe(Effect.ensuring(Deferred.succeed(attempted, undefined)))

  const forget = (key: string): Effect.Effect<void> => {
    const object = state.objects.get(key)
    if (object === undefined) return Effect.void
    state.objects.delete(key)
    return onChange({ _tag: "Deleted", key, object })
  }

  const apply = Effect.fnUntraced(function* (event: WatchEvent) {
    if (event.type === "ERROR") return yield* statusOf(path, event.object)
    const metadata = Resource.metadataOf(event.object)
    const key = Resource.keyOf({ metadata })
    // Whoever did not trust what was held may do so again, though nothing of it has changed.
    if (yield* healthy) yield* onChange({ _tag: "Synced", objects: state.objects })
    switch (event.type) {
      case "ADDED":
      case "MODIFIED": {
        const object = yield* Resource.decodeOrSkip(resource, event.object)
        if (object === undefined) {
          // What it was before is not true any more.
          yield* forget(key)
          break
        }
        state.objects.set(key, object)
        yield* onChange({ _tag: "Applied", key, object })
        break
      }
      case "DELETED":
        yield* forget(key)
        break
      default:
        break
    }
    // Only now: an event whose change was not told comes again.
    state.version = metadata.resourceVersion ?? state.version
  })

  /** One watch, which always ends in a failure. Whatever passes through shows that it was a good one. */
  const watch = Stream.suspend(() => {
    const { fieldSelector, labelSelector } = selection
    const query = {
      resourceVersion: state.version,
      allowWatchBookmarks: true,
      timeoutSeconds: WATCH_SECONDS,
      labelSelector,
      fieldSelector
    }
    const closed = new KubernetesApiFailed({ method: "GET", path, status: 0, reason: "Closed", detail: "watch ended" })
    return Stream.unwrap(
      Effect.map(Clock.currentTimeMillis, (opened) =>
        api.watch({ path, query }, IDLE_MILLIS).pipe(
          Stream.mapEffect(apply),
          Stream.concat(Stream.fail(closed)),
          Stream.catch((failure) =>
            Stream.unwrap(
              Effect.map(Clock.currentTimeMillis, (now) =>
                now - opened >= SETTLED_MILLIS
                  ? Stream.concat(Stream.succeed<void>(undefined), Stream.fail(failure))
                  : Stream.fail(failure)
              )
            )
          )
        )
      )
    )
  })

  const note = (failure: KubernetesApiFailed): Effect.Effect<void> => {
    if (failure.isGone) state.version = undefined
    if (isOrdinary(failure)) return Effect.void
    const before = state.failure
    state.failure = failure
    if (before?.status === failure.status && before.reason === failure.reason) return Effect.void
    return Effect.logWarning("not following the API server, trying again", {
      resource: Resource.qualifiedName(resource),
      path,
      [LogKeys.error]: failure.message,
      [LogKeys.remedy]: failure.remedy
    })
  }

  // A list alone does not reset the delays: one whose watch fails at once must not be repeated in a hurry.
  const forever = Stream.suspend(() =>
    state.version === undefined ? Stream.concat(Stream.fromEffectDrain(relist), watch) : watch
  ).pipe(
    Stream.tapError(note),
    Stream.retry(watchReconnect),
    Stream.runDrain,
    Effect.tapCause((cause) => Effect.logError("a reflector ended", { path, cause }))
  )
  yield* Effect.forkScoped(Effect.provideService(forever, KubernetesApi, api))

  const timedOut = () =>
    state.failure ??
    new KubernetesApiFailed({
      method: "GET",
      path,
      status: 0,
      reason: "Timeout",
      detail: `${Resource.qualifiedName(resource)} are not listed yet`
    })
  return {
    get: (key) => state.objects.get(key),
    objects: () => state.objects,
    isSynced: () => state.synced,
    failure: () => state.failure,
    attempted: Deferred.await(attempted),
    synced: (withinMillis) =>
      Effect.flatMap(Effect.timeoutOption(Deferred.await(synced), withinMillis), (done) =>
        Option.isSome(done) ? Effect.void : Effect.suspend(() => Effect.fail(timedOut()))
      )
  }
})
