/**
 * What goes wrong between a process and the API server: with single requests, which are lost, refused, late, or come after
 * somebody else's; and with watches, which are refused, stall, and tell what happened some time ago. `ApiChaos` says what
 * goes wrong for a while, for everybody.
 *
 * A watch cache that is behind, and an API server that is older than the last one, are the same thing to a client that
 * lists by quorum and watches from the version of its list, as ours does: events come late.
 */
import { Clock, Deferred, Effect, Stream } from "effect"
import { KubernetesApiFailed } from "../../../schemas/errors/KubernetesApiFailed.ts"
import type { KubernetesApi, KubernetesRequest, WatchEvent } from "../../../src/ports/KubernetesApi.ts"
import { isObject, metadataOf, objectAt } from "../KubernetesObject.ts"
import type { Failure } from "../MemoryKubernetes.ts"
import type { Chance } from "./Chance.ts"

const MINUTE = 60_000

/** Rates are chances per request, watch or write; intervals are means in milliseconds, and 0 is never. */
export type ApiRates = typeof NO_API_RATES

export const NO_API_RATES = {
  /** Before it took effect. */
  apiLostRate: 0,
  /** It took effect, and its sender does not hear of it. */
  apiAnswerLostRate: 0,
  /** Nothing is heard for as long as a client waits. */
  apiTimeoutRate: 0,
  /** It takes effect after its sender has given it up. */
  apiLateRate: 0,
  apiThrottledRate: 0,
  apiErrorRate: 0,
  apiUnavailableRate: 0,
  apiGatewayRate: 0,
  apiForbiddenRate: 0,
  /** One takes up to half a minute, and others pass it. */
  apiSlowRate: 0,
  /** Somebody else writes an object between our read and our write. */
  conflictRate: 0,
  /** It is another one of the same name by then. */
  remadeRate: 0,
  /** The garbage collector runs just before or just after our read. */
  garbageRate: 0,
  watchRefusedRate: 0,
  watchLagMillisMax: 0,
  apiOutageEveryMillis: 0,
  watchCutEveryMillis: 0,
  watchStallEveryMillis: 0,
  watchBehindEveryMillis: 0,
  watchBookmarkEveryMillis: 0,
  rightEveryMillis: 0,
  quotaEveryMillis: 0,
  conversionEveryMillis: 0,
  definitionEveryMillis: 0,
  namespaceEveryMillis: 0
}

/** Swarm: most of it never happens in one run, and all of it in some. */
export const drawApiRates = (chance: Chance): ApiRates => {
  const rate = (most: number) => (chance.happens(0.5) ? 0 : chance.between(0, most))
  const interval = (longest: number) => (chance.happens(0.6) ? 0 : chance.between(longest / 8, longest))
  return {
    apiLostRate: rate(0.08),
    apiAnswerLostRate: rate(0.08),
    apiTimeoutRate: rate(0.02),
    apiLateRate: rate(0.03),
    apiThrottledRate: rate(0.08),
    apiErrorRate: rate(0.08),
    apiUnavailableRate: rate(0.08),
    apiGatewayRate: rate(0.05),
    apiForbiddenRate: rate(0.03),
    apiSlowRate: rate(0.03),
    conflictRate: rate(0.5),
    remadeRate: rate(0.2),
    garbageRate: rate(0.1),
    watchRefusedRate: rate(0.4),
    watchLagMillisMax: rate(MINUTE),
    apiOutageEveryMillis: interval(40 * MINUTE),
    watchCutEveryMillis: interval(20 * MINUTE),
    watchStallEveryMillis: interval(30 * MINUTE),
    watchBehindEveryMillis: interval(30 * MINUTE),
    watchBookmarkEveryMillis: interval(5 * MINUTE),
    rightEveryMillis: interval(30 * MINUTE),
    quotaEveryMillis: interval(30 * MINUTE),
    conversionEveryMillis: interval(40 * MINUTE),
    definitionEveryMillis: interval(40 * MINUTE),
    namespaceEveryMillis: interval(40 * MINUTE)
  }
}

// ---- single requests

/** As long as a client waits for an answer. */
const CLIENT_MILLIS = 30_000
const SLOW_MILLIS = { least: 1_000, most: CLIENT_MILLIS - 1_000 }

const LOST: Failure = { status: 0, reason: "Network", detail: "the connection was lost" }
const TIMEOUT: Failure = { status: 0, reason: "Timeout", detail: `no answer within ${CLIENT_MILLIS} ms` }
const UNREACHABLE: Failure = { status: 0, reason: "Network", detail: "connection refused" }

/** What becomes of one request. */
interface Fate {
  /** What its sender is told in the end; undefined: what the API server has answered. */
  readonly failure: Failure | undefined
  /** "late": after its sender has given it up. */
  readonly takesEffect: "at once" | "late" | "never"
  /** On its way there, and on the way back. */
  readonly sentMillis: number
  readonly answeredMillis: number
}

type Kind = Readonly<{ site: string; rate: keyof ApiRates; fate: (chance: Chance) => Partial<Fate> }>

/** Whoever is answered 500 or 504 does not know either: what the API server waited for may have happened. */
const perhaps = (chance: Chance): Fate["takesEffect"] => (chance.happens(0.5) ? "at once" : "never")

const refused = (status: number, reason: string, retryAfterSeconds?: number): Partial<Fate> => ({
  failure: {
    status,
    reason,
    detail: `injected: ${reason}`,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds })
  },
  takesEffect: "never"
})

const KINDS: ReadonlyArray<Kind> = [
  { site: "API lost", rate: "apiLostRate", fate: () => ({ failure: LOST, takesEffect: "never" }) },
  { site: "API answer lost", rate: "apiAnswerLostRate", fate: () => ({ failure: LOST }) },
  {
    site: "API timeout",
    rate: "apiTimeoutRate",
    fate: (chance) => ({ failure: TIMEOUT, takesEffect: perhaps(chance), answeredMillis: CLIENT_MILLIS })
  },
  {
    site: "API late",
    rate: "apiLateRate",
    fate: (chance) => ({
      failure: TIMEOUT,
      takesEffect: "late",
      sentMillis: CLIENT_MILLIS,
      answeredMillis: chance.between(0, CLIENT_MILLIS)
    })
  },
  {
    site: "API 429",
    rate: "apiThrottledRate",
    fate: (chance) => refused(429, "TooManyRequests", 1 + chance.below(5))
  },
  {
    site: "API 500",
    rate: "apiErrorRate",
    fate: (chance) => ({ ...refused(500, "InternalError"), takesEffect: perhaps(chance) })
  },
  { site: "API 503", rate: "apiUnavailableRate", fate: () => refused(503, "ServiceUnavailable") },
  {
    site: "API 504",
    rate: "apiGatewayRate",
    fate: (chance) => ({ ...refused(504, "Timeout"), takesEffect: perhaps(chance) })
  },
  { site: "API 403", rate: "apiForbiddenRate", fate: () => refused(403, "Forbidden") },
  {
    site: "API slow",
    rate: "apiSlowRate",
    fate: (chance) => {
      const millis = chance.between(SLOW_MILLIS.least, SLOW_MILLIS.most)
      const sentMillis = chance.between(0, millis)
      return { sentMillis, answeredMillis: millis - sentMillis }
    }
  }
]

/** @shape (request, failure) -> what its sender is told */
export const failedAs = (
  { method, path }: Pick<KubernetesRequest, "method" | "path">,
  { detail, ...failure }: Failure
): KubernetesApiFailed => new KubernetesApiFailed({ method, path, detail: detail ?? "injected", ...failure })

/** A write that says which version, or which object, it is about. */
const isAboutAVersion = ({ body, method }: KubernetesRequest): boolean => {
  if (method === "PUT") return true
  if (!isObject(body)) return false
  if (method === "PATCH") return metadataOf(body)["resourceVersion"] !== undefined
  return method === "DELETE" && objectAt(body, "preconditions")["resourceVersion"] !== undefined
}

const IS_KEPT_BY_OWNERS = /\/(?:secrets|secretproviderclasspodstatuses)(?:\/|$)/u

// ---- what is true for a while

/** What is refused for a while. */
export interface Rule {
  readonly site: string
  readonly applies: (request: Pick<KubernetesRequest, "method" | "path">) => boolean
  readonly failure: Failure
}

/** A time in which some watches say nothing any more. */
interface Stall {
  /** Of the watches that were open then, in [0, 1]. */
  readonly share: number
  readonly ended: Deferred.Deferred<void>
}

/** Those who take part in a run. */
export interface ApiHost {
  readonly active: boolean
  /** True: no request of this process reaches the API server, whether faults are active or not. */
  readonly apiIsDown: boolean
  readonly note: (site: string) => void
}

/** The clock of a node that is set does not hold up what is on its way to it. */
const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/** Others, and the control plane. */
export interface Neighbours {
  /** Somebody labels an object. */
  readonly touch: (path: string) => Effect.Effect<void>
  /** Somebody deletes an object, and makes another one of the same name. */
  readonly remake: (path: string) => Effect.Effect<void>
  readonly collectGarbage: Effect.Effect<void>
}

export class ApiFaults {
  /** What is refused at present. */
  readonly rules = new Set<Rule>()
  /** How far the watch cache is behind, of the API server that new watches reach. */
  behindMillis = 0
  private stall: Stall | undefined
  private readonly rates: ApiRates
  private readonly chance: Chance
  private readonly host: ApiHost
  /** Those that somebody has met: what nobody meets is no fault. */
  private readonly met = new WeakSet<Rule>()
  private readonly overdue = new WeakSet<KubernetesRequest>()
  private readonly total: number

  constructor(rates: ApiRates, chance: Chance, host: ApiHost) {
    this.rates = rates
    this.chance = chance
    this.host = host
    this.total = KINDS.reduce((sum, { rate }) => sum + rates[rate], 0)
  }

  private strikes(site: string, rate: number): boolean {
    if (!this.host.active || !this.chance.happens(rate)) return false
    this.host.note(site)
    return true
  }

  /** What a request is answered without reaching the API server; undefined: it does reach it. */
  refusal(request: Pick<KubernetesRequest, "method" | "path">): Failure | undefined {
    if (this.host.apiIsDown) return UNREACHABLE
    for (const rule of this.rules) {
      if (!rule.applies(request)) continue
      if (!this.met.has(rule)) this.host.note(rule.site)
      this.met.add(rule)
      return rule.failure
    }
    return undefined
  }

  /** Of kinds that lie beside each other, each as wide as its rate, the one that is met. */
  private kind(drawn: number): Kind | undefined {
    let left = drawn
    for (const kind of KINDS) {
      left -= this.rates[kind.rate]
      if (left < 0) return kind
    }
    return undefined
  }

  /** @shape () -> what becomes of the next request; undefined: what it asks for */
  fate(): Fate | undefined {
    if (!this.host.active || this.total === 0) return undefined
    const kind = this.kind(this.chance.between(0, Math.max(1, this.total)))
    if (kind === undefined) return undefined
    this.host.note(kind.site)
    return { failure: undefined, takesEffect: "at once", sentMillis: 0, answeredMillis: 0, ...kind.fate(this.chance) }
  }

  /** What others do just before a request takes effect, or just after; undefined: nothing. */
  meanwhile(
    request: KubernetesRequest,
    others: Neighbours
  ): { readonly before: Effect.Effect<void>; readonly after: Effect.Effect<void> } | undefined {
    const { conflictRate, garbageRate, remadeRate } = this.rates
    const before = (effect: Effect.Effect<void>) => ({ before: effect, after: Effect.void })
    if (request.method === "GET") {
      if (!IS_KEPT_BY_OWNERS.test(request.path)) return undefined
      if (this.strikes("garbage before a read", garbageRate / 2)) return before(others.collectGarbage)
      return this.strikes("garbage after a read", garbageRate / 2)
        ? { before: Effect.void, after: others.collectGarbage }
        : undefined
    }
    if (!isAboutAVersion(request)) return undefined
    if (this.strikes("API conflict", conflictRate)) return before(others.touch(request.path))
    return this.strikes("remade before a write", remadeRate) ? before(others.remake(request.path)) : undefined
  }

  /** A client whose requests and watches meet all of this. */
  client(api: KubernetesApi["Service"], neighbours: Neighbours): KubernetesApi["Service"] {
    const request = (asked: KubernetesRequest): Effect.Effect<unknown, KubernetesApiFailed> =>
      Effect.suspend(() => {
        const refusal = this.refusal(asked)
        if (refusal !== undefined) return Effect.fail(failedAs(asked, refusal))
        const fate = this.fate()
        const others = fate?.takesEffect === "never" ? undefined : this.meanwhile(asked, neighbours)
        const sent =
          others === undefined
            ? api.request(asked)
            : Effect.andThen(others.before, Effect.tap(api.request(asked), others.after))
        return fate === undefined ? sent : this.travel(asked, fate, sent)
      })
    return { request, watch: (asked, idleMillis) => this.watch(asked, idleMillis, api) }
  }

  /** It takes effect when its sender has given it up, and the world has gone on. */
  isOverdue(asked: KubernetesRequest): boolean {
    return this.overdue.has(asked)
  }

  private travel(
    asked: KubernetesRequest,
    { answeredMillis, failure, sentMillis, takesEffect }: Fate,
    sent: Effect.Effect<unknown, KubernetesApiFailed>
  ): Effect.Effect<unknown, KubernetesApiFailed> {
    const answer = failure === undefined ? undefined : Effect.fail(failedAs(asked, failure))
    if (takesEffect === "late") {
      this.overdue.add(asked)
      const late = Effect.forkDetach(Effect.andThen(Effect.sleep(sentMillis + answeredMillis), Effect.exit(sent)))
      return Effect.andThen(late, Effect.andThen(Effect.sleep(sentMillis), answer ?? sent))
    }
    const arrived = takesEffect === "never" ? Effect.void : Effect.exit(sent)
    return Effect.sleep(sentMillis).pipe(
      Effect.andThen(arrived),
      Effect.tap(() => Effect.sleep(answeredMillis)),
      Effect.flatMap((exit) => answer ?? exit ?? Effect.void)
    )
  }

  // ---- watches

  /**
   * Some of the watches that are open say nothing any more, not even that they end: until `ended` they are believed to
   * be alive, or until they have been silent for too long.
   */
  beginStall(stall: Stall): void {
    this.stall = stall
  }

  endStall(stall: Stall): void {
    if (this.stall === stall) this.stall = undefined
    Deferred.doneUnsafe(stall.ended, Effect.void)
  }

  watch(
    asked: Pick<KubernetesRequest, "path" | "query">,
    idleMillis: number,
    api: KubernetesApi["Service"]
  ): Stream.Stream<WatchEvent, KubernetesApiFailed> {
    return Stream.suspend(() => {
      const get = { method: "GET", path: asked.path } as const
      const refusal = this.refusal(get)
      if (refusal !== undefined) return Stream.fail(failedAs(get, refusal))
      if (this.strikes("watch refused", this.rates.watchRefusedRate)) {
        const statuses: ReadonlyArray<Failure> = [
          LOST,
          { status: 429, reason: "TooManyRequests", retryAfterSeconds: 1 },
          { status: 500, reason: "InternalError" },
          { status: 503, reason: "ServiceUnavailable" }
        ]
        return Stream.fail(failedAs(get, this.chance.oneOf(statuses)))
      }
      const events = api.watch(asked, idleMillis)
      if (!this.host.active) return events
      const lagMillis = this.behindMillis + this.chance.between(0, this.rates.watchLagMillisMax)
      const [luck, stallBefore] = [this.chance.between(0, 1), this.stall]
      const gate = Effect.suspend(() => {
        const { stall } = this
        return stall === undefined || stall === stallBefore || luck >= stall.share
          ? Effect.void
          : this.silence(get, stall, idleMillis)
      })
      return Stream.tap(lagMillis > 0 ? this.late(events, lagMillis) : events, () => gate)
    })
  }

  /** Nothing is told from now on, and what was about to be told is told by the next watch. */
  private readonly silence = Effect.fnUntraced(
    { self: this },
    function* (get: { readonly method: "GET"; readonly path: string }, { ended }: Stall, idleMillis: number) {
      this.host.note("watch stalls")
      const isOver = yield* Effect.timeoutOption(Deferred.await(ended), idleMillis)
      const idle: Failure = { status: 0, reason: "Idle", detail: `nothing was heard for ${idleMillis} ms` }
      return yield* failedAs(get, isOver._tag === "Some" ? LOST : idle)
    }
  )

  /** Every event so long after it happened, in their order. */
  private late(
    events: Stream.Stream<WatchEvent, KubernetesApiFailed>,
    lagMillis: number
  ): Stream.Stream<WatchEvent, KubernetesApiFailed> {
    return events.pipe(
      Stream.mapEffect((event) => Effect.map(monotonicMillis, (atMillis) => ({ event, atMillis }))),
      Stream.buffer({ capacity: "unbounded" }),
      Stream.mapEffect(({ atMillis, event }) =>
        Effect.flatMap(monotonicMillis, (now) => {
          const left = atMillis + lagMillis - now
          if (!this.host.active || left <= 0) return Effect.succeed(event)
          this.host.note("watch lags")
          return Effect.as(Effect.sleep(left), event)
        })
      )
    )
  }
}
