/**
 * An API server in memory behind the `KubernetesApi` port, and a second service by which a test or a simulated world
 * counts requests, breaks connections and lets time pass over old versions.
 *
 * It answers as a real one: versions, conflicts, pages of one snapshot, watches that resume, 410, finalizers, and
 * messages in the API server's words. Time and chance are Effect's, so one seed gives one history.
 */
import { Cause, Clock, Context, DateTime, Effect, Layer, Queue, Random, Stream } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest, type WatchEvent } from "../../src/ports/KubernetesApi.ts"
import { monotonic } from "../MonotonicClock.ts"
import type { JsonObject } from "./KubernetesObject.ts"
import { qualifiedName, RESOURCES, type ResourceType } from "./KubernetesResources.ts"
import { KubernetesStore, Refused, type World } from "./KubernetesStore.ts"

/** A request as it arrives. */
export interface Arrived extends KubernetesRequest {
  readonly watch: boolean
  /** "pods", "secretproviderclasses.secrets-store.csi.x-k8s.io"; empty for a path that leads to no objects. */
  readonly resource: string
}

export interface RequestCount {
  readonly method: KubernetesRequest["method"]
  readonly resource: string
  readonly watch: boolean
  readonly count: number
}

/** What a failing request is answered; status 0 is a connection that breaks. */
export type Failure = Pick<KubernetesApiFailed, "status" | "reason"> &
  Partial<Pick<KubernetesApiFailed, "detail" | "retryAfterSeconds" | "causes">>

export class MemoryKubernetes extends Context.Service<
  MemoryKubernetes,
  {
    /** Since the last reset, in alphabetical order. Failed requests count as well. */
    readonly requests: Effect.Effect<ReadonlyArray<RequestCount>>
    /** The sum of those that agree with what is given. */
    readonly requestCount: (like: Partial<Omit<RequestCount, "count">>) => Effect.Effect<number>
    readonly resetRequests: Effect.Effect<void>
    /** Forgets history: watches from an older version and later pages of an older list are answered 410. */
    readonly compact: Effect.Effect<void>
    /** How a watch learns that its version is too old: by an ERROR event (as from a watch cache), or by HTTP status. */
    readonly setExpiredAs: (how: "event" | "status") => Effect.Effect<void>
    /** Ends all open watches, and says how many that were. */
    readonly dropWatches: (how: "close" | "error") => Effect.Effect<number>
    /** How many watches are open, of one resource or of all. */
    readonly openWatches: (resource?: string) => Effect.Effect<number>
    /** Tells the newest version to all watches that asked for bookmarks. */
    readonly bookmark: Effect.Effect<void>
    /** The next request that matches fails, once, before or after it took effect. */
    readonly failNext: (
      matches: (request: Arrived) => boolean,
      failure: Failure,
      options: { readonly applied: boolean }
    ) => Effect.Effect<void>
    /** Deletes objects whose owners are all gone; answers with "secrets default/x" of each. */
    readonly collectGarbage: Effect.Effect<ReadonlyArray<string>>
    /** All objects of "pods", "daemonsets.apps" or "daemonsets", by namespace and name. Dies for an unknown kind. */
    readonly all: (resource: string) => Effect.Effect<ReadonlyArray<JsonObject>>
    /**
     * Takes an API group away ("config.openshift.io") or brings it back, with the objects that it had. All are served at
     * first.
     */
    readonly setServed: (group: string, served: boolean) => Effect.Effect<void>
    /** Of every answer; half of it passes before the request takes effect. */
    readonly setLatencyMillis: (latencyMillis: number) => Effect.Effect<void>
  }
>()("secrets-store/fake/MemoryKubernetes") {}

/** Runs when a watch was accepted, which a silent watch does not show otherwise. */
export const WatchAccepted = Context.Reference<Effect.Effect<void>>("secrets-store/fake/WatchAccepted", {
  defaultValue: () => Effect.void
})

/** The header field of whoever asks: its first part is who writes, when the request does not say it. */
export const UserAgent = Context.Reference<string>("secrets-store/fake/UserAgent", { defaultValue: () => "unknown" })

/** Is told the HTTP status of a request that succeeds. */
export const Succeeds = Context.Reference<(status: 200 | 201) => void>("secrets-store/fake/Succeeds", {
  defaultValue: () => () => {}
})

interface Fault {
  readonly matches: (request: Arrived) => boolean
  readonly failure: Failure
  readonly applied: boolean
}

const LOST: Failure = { status: 0, reason: "Network", detail: "the connection was lost" }

const failed = ({ method, path }: Pick<KubernetesRequest, "method" | "path">, failure: Failure) =>
  new KubernetesApiFailed({
    method,
    path,
    status: failure.status,
    reason: failure.reason,
    detail: failure.detail ?? `the request failed: ${failure.reason}`,
    ...(failure.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: failure.retryAfterSeconds }),
    ...(failure.causes === undefined ? {} : { causes: failure.causes })
  })

const refusedAs = (request: Pick<KubernetesRequest, "method" | "path">, { causes, message, reason, status }: Refused) =>
  failed(request, { status, reason, detail: message, ...(causes.length === 0 ? {} : { causes }) })

/** Nothing runs in between; what is refused is a failure, everything else a bug of ours. */
const attempt = <A>(
  request: Pick<KubernetesRequest, "method" | "path">,
  perform: (it: Effect.Success<typeof world>) => A
): Effect.Effect<A, KubernetesApiFailed> =>
  Effect.flatMap(world, (it) => {
    try {
      return Effect.succeed(perform(it))
    } catch (cause) {
      if (cause instanceof Refused) return Effect.fail(refusedAs(request, cause))
      throw cause
    }
  })

const world: Effect.Effect<World & { readonly succeeds: (status: 200 | 201) => void }> = Effect.gen(function* () {
  const nowMillis = yield* Clock.currentTimeMillis
  // In one step: kept seeds keep their histories.
  const { random, succeeds, userAgent } = yield* Effect.withFiber((fiber) =>
    Effect.succeed({
      random: fiber.getRef(Random.Random),
      succeeds: fiber.getRef(Succeeds),
      userAgent: fiber.getRef(UserAgent)
    })
  )
  const timestamp = DateTime.formatIso(DateTime.makeUnsafe(nowMillis)).replace(/\.\d+/u, "")
  return { nowMillis, timestamp, chance: () => random.nextDoubleUnsafe(), succeeds, userAgent }
})

/** The event by which a watch learns that its version is too old. */
const errorEvent = ({ detail, reason, status }: KubernetesApiFailed): WatchEvent => ({
  type: "ERROR",
  object: { kind: "Status", apiVersion: "v1", metadata: {}, status: "Failure", message: detail, reason, code: status }
})

const byName = (one: RequestCount, other: RequestCount) => {
  const [a, b] = [one, other].map((it) => `${it.resource} ${it.method} ${it.watch}`)
  return a === b ? 0 : String(a) < String(b) ? -1 : 1
}

/**
 * A new, empty API server. Whoever keeps the context keeps its objects.
 *
 * @shape (kinds) -> both services
 */
export const make = (
  resources: ReadonlyArray<ResourceType> = RESOURCES
): Effect.Effect<Context.Context<KubernetesApi | MemoryKubernetes>> =>
  Effect.sync(() => {
    const store = new KubernetesStore(resources)
    const counts = new Map<string, RequestCount>()
    let faults: ReadonlyArray<Fault> = []
    let halfLatencyMillis = 0
    let expiredAs: "event" | "status" = "event"

    const resourceOf = (path: string): string => {
      try {
        return qualifiedName(store.route(path).type)
      } catch {
        return ""
      }
    }

    /** Notes an arrival, and takes the fault that is meant for it. */
    const arrive = (request: KubernetesRequest, watch: boolean): Fault | undefined => {
      const arrived: Arrived = { ...request, watch, resource: resourceOf(request.path) }
      const key = `${arrived.method} ${arrived.resource} ${watch}`
      const { method, resource } = arrived
      counts.set(key, { method, resource, watch, count: (counts.get(key)?.count ?? 0) + 1 })
      const fault = faults.find(({ matches }) => matches(arrived))
      if (fault !== undefined) faults = faults.filter((other) => other !== fault)
      return fault
    }

    const travel = Effect.suspend(() => (halfLatencyMillis > 0 ? Effect.sleep(halfLatencyMillis) : Effect.void))

    const request = Effect.fnUntraced(function* (asked: KubernetesRequest) {
      yield* Effect.yieldNow
      yield* travel
      const fault = arrive(asked, false)
      if (fault !== undefined && !fault.applied) return yield* failed(asked, fault.failure)
      const outcome = yield* Effect.exit(
        attempt(asked, (it) => {
          const { body, status } = store.respond(asked, it)
          it.succeeds(status)
          return body
        })
      )
      yield* travel
      if (fault !== undefined) return yield* failed(asked, fault.failure)
      return yield* outcome
    })

    /** Opens a watch whose events go to a queue, until the scope closes. */
    const open = Effect.fnUntraced(function* (asked: KubernetesRequest, idleMillis: number) {
      yield* Effect.yieldNow
      yield* travel
      const fault = arrive(asked, true)
      if (fault !== undefined) return yield* failed(asked, fault.failure)
      const query = asked.query ?? {}
      const queue = yield* Queue.unbounded<WatchEvent, KubernetesApiFailed | Cause.Done>()
      const watcher = {
        deliver: (event: WatchEvent) => void Queue.offerUnsafe(queue, event),
        end: (how: "close" | "error") =>
          void (how === "close"
            ? Queue.endUnsafe(queue)
            : Queue.failCauseUnsafe(queue, Cause.fail(failed(asked, LOST))))
      }
      yield* Effect.acquireRelease(
        attempt(asked, () => store.watch(store.route(asked.path), query, watcher)),
        (stop) => Effect.sync(stop)
      ).pipe(
        Effect.catchIf(
          (failure) => failure.isGone && expiredAs === "event",
          (failure) =>
            Effect.sync(() => {
              watcher.deliver(errorEvent(failure))
              watcher.end("close")
            })
        )
      )
      yield* yield* WatchAccepted
      const timeoutSeconds = Number(query["timeoutSeconds"] ?? 0)
      if (timeoutSeconds > 0) {
        const ends = Effect.sync(() => {
          store.bookmark(watcher)
          watcher.end("close")
        })
        yield* Effect.forkScoped(Effect.delay(ends, timeoutSeconds * 1_000))
      }
      const idle = failed(asked, { status: 0, reason: "Idle", detail: `nothing was heard for ${idleMillis} ms` })
      return Stream.fromQueue(queue).pipe(
        Stream.timeoutOrElse({ duration: idleMillis, orElse: () => Stream.fail(idle) }),
        Stream.provideService(Clock.Clock, monotonic(yield* Clock.Clock))
      )
    })

    const api = KubernetesApi.of({
      request,
      watch: ({ path, query }, idleMillis) =>
        Stream.unwrap(open({ method: "GET", path, query: { ...query, watch: true } }, idleMillis))
    })

    const control = MemoryKubernetes.of({
      requests: Effect.sync(() => [...counts.values()].sort(byName)),
      requestCount: (like) =>
        Effect.sync(() =>
          [...counts.values()]
            .filter(
              (it) =>
                (like.method ?? it.method) === it.method &&
                (like.resource ?? it.resource) === it.resource &&
                (like.watch ?? it.watch) === it.watch
            )
            .reduce((sum, { count }) => sum + count, 0)
        ),
      resetRequests: Effect.sync(() => counts.clear()),
      compact: Effect.sync(() => store.compact()),
      setExpiredAs: (how) =>
        Effect.sync(() => {
          expiredAs = how
        }),
      dropWatches: (how) => Effect.sync(() => store.dropWatches(how)),
      openWatches: (resource) =>
        Effect.sync(
          () => store.watches.filter(({ type }) => resource === undefined || type === store.typeNamed(resource)).length
        ),
      bookmark: Effect.sync(() => store.bookmark()),
      failNext: (matches, failure, { applied }) =>
        Effect.sync(() => {
          faults = [...faults, { matches, failure, applied }]
        }),
      collectGarbage: Effect.map(world, (it) => store.collectGarbage(it)),
      all: (resource) =>
        Effect.suspend(() => {
          const type = store.typeNamed(resource)
          return type === undefined
            ? Effect.die(new Error(`no such resource: ${resource}`))
            : Effect.succeed(store.objects(type))
        }),
      setServed: (group, served) => Effect.sync(() => store.setServed(group, served)),
      setLatencyMillis: (latencyMillis) =>
        Effect.sync(() => {
          halfLatencyMillis = latencyMillis / 2
        })
    })
    return Context.make(KubernetesApi, api).pipe(Context.add(MemoryKubernetes, control))
  })

/** The services of one API server, with the kinds of `RESOURCES`; `make` takes others. */
export const layer: Layer.Layer<KubernetesApi | MemoryKubernetes> = Layer.effectContext(make())
