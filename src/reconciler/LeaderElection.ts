/**
 * Of several processes one leads: the one that holds the Lease.
 *
 * `lead` begins when the Lease was acquired, and gets a Kubernetes API that refuses its writes as soon as the term is
 * over. A term that is lost is a failure, of which nobody hears before `lead` was interrupted. Whoever is told to stop
 * lets `lead` finish what it is at, and releases the Lease last.
 */
import { Cause, Clock, Deferred, Effect, Exit, Fiber, Option, Semaphore } from "effect"
import type { Lease } from "../../schemas/Coordination.ts"
import type { ObjectReference } from "../../schemas/Core.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { LeadershipLost } from "../../schemas/errors/LeadershipLost.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import { complaints } from "./Complaints.ts"
import { fence } from "./Fence.ts"
import * as LeaseRecord from "./LeaseRecord.ts"
import * as Resource from "./Resource.ts"
import { leaseAcquisition, leaseRelease, leaseRenewal } from "./Schedules.ts"
import * as Term from "./Term.ts"

/**
 * With other candidates at hand, and without: a cluster of one node has nobody to hand over to, and an API server that
 * is away for minutes while it is updated.
 *
 * @units  milliseconds
 * @source reference/operator.md 1.6
 */
export const TIMINGS = {
  HIGHLY_AVAILABLE: { leaseMillis: 137_000, renewMillis: 107_000, retryMillis: 26_000 },
  SINGLE_REPLICA: { leaseMillis: 270_000, renewMillis: 240_000, retryMillis: 60_000 }
} as const satisfies Readonly<Record<string, Term.Timings>>

/** One request about the Lease must leave time for others. */
const REQUEST_MILLIS_MAX = 10_000
/** A `lead` that was interrupted and does not end is left alone after this long: it cannot write. */
const INTERRUPTION_MILLIS = 10_000
/** Also for an acquisition that is under way when we are told to stop. */
const RELEASE_MILLIS = 5_000
/** Saying so must not hold up the election. */
const EVENT_MILLIS = 1_000

/** What is said about the Lease, for an Event of the reason "LeaderElection". */
export interface ElectionEvent {
  readonly _tag: "BecameLeader" | "StoppedLeading"
  /** "<identity> became leader", "<identity> stopped leading". */
  readonly message: string
  /** The Lease. */
  readonly about: ObjectReference
}

/** What `lead` knows of its term. */
export interface Leadership {
  readonly identity: string
  /** False from the moment at which writes are refused; never true again. */
  readonly isHeld: () => boolean
  /** Succeeds when `lead` is to finish what it is at, and to end by itself. */
  readonly stopping: Effect.Effect<void>
}

export interface Options<A, E, R> {
  readonly namespace: string
  readonly name: string
  /** Of this process, and of no other ever. */
  readonly identity: string
  readonly timings: Term.Timings
  readonly lead: (leadership: Leadership) => Effect.Effect<A, E, R>
  /** How long `lead` may take to end by itself after `stopping`; then it is interrupted. */
  readonly drainMillis: number
  readonly onEvent?: (event: ElectionEvent) => Effect.Effect<void>
}

type Lost = { readonly _tag: "Lost"; readonly why: LeadershipLost["why"] }
const EXPIRED: Lost = { _tag: "Lost", why: "expired" }
const TAKEN: Lost = { _tag: "Lost", why: "taken" }
const DELETED: Lost = { _tag: "Lost", why: "deleted" }

/** The Lease as we last wrote it, and the term that it gives. */
interface Held {
  lease: Lease
  readonly term: Term.Term
}

type Candidate = Omit<Options<never, never, never>, "lead" | "drainMillis">

/**
 * Waits for the Lease, then runs `lead` in a scope of its own, with the fenced API. Ends as `lead` ends, and releases
 * the Lease after that.
 *
 * Interrupted, it tells `lead` to stop and goes on renewing until that has ended, at most for `drainMillis`; then it
 * interrupts it. The Lease is released last, and not at all while a write may still take effect: then it expires.
 *
 * @shape  ({ namespace, name, identity, timings, lead, drainMillis, onEvent? }) -> what `lead` succeeds with
 * @units  milliseconds of the monotonic clock
 * @errors those of `lead`; LeadershipLost once `lead` was interrupted and awaited
 * @source reference/operator.md 1.6, 1.10, 11
 */
export const run = <A, E, R>(options: Options<A, E, R>) =>
  Effect.uninterruptibleMask(
    Effect.fnUntraced(function* (restore) {
      const stop = yield* Deferred.make<void>()
      // The election itself is never interrupted: every step of it has a bound once it is told to stop.
      const election = yield* Effect.forkChild(elect(options, stop))
      return yield* Effect.onInterrupt(restore(Fiber.join(election)), () =>
        Effect.andThen(Deferred.succeed(stop, undefined), Fiber.await(election))
      )
    })
  )

const elect = Effect.fnUntraced(function* <A, E, R>(options: Options<A, E, R>, stop: Deferred.Deferred<void>) {
  const { drainMillis, identity, lead, name, namespace } = options
  const lease = `${namespace}/${name}`
  const api = yield* KubernetesApi
  const stopped = Effect.as(Deferred.await(stop), { _tag: "Stopped" } as const)
  yield* Metrics.setLeading(name, false)
  const held = yield* acquire(options, stopped)
  if (held === undefined) return yield* Effect.interrupt
  const { term } = held
  yield* Metrics.setLeading(name, true)
  yield* Effect.logInfo("became leader", { lease, identity })
  yield* say(options, "BecameLeader", held.lease)

  const told = yield* Deferred.make<void>()
  const leadership: Leadership = { identity, isHeld: term.isHeld, stopping: Deferred.await(told) }
  // Not a child: one that does not end would be waited for without bound. It is interrupted below in every case.
  const leading = yield* Effect.forkDetach(
    Effect.scoped(Effect.suspend(() => lead(leadership))).pipe(Effect.provideService(KubernetesApi, fence(api, term)))
  )
  const keeping = yield* Effect.forkChild(keep(options, held))
  const over = Effect.raceFirst(
    Effect.as(Fiber.await(leading), { _tag: "Ended" } as const),
    // A bug there is no reason to go on.
    Effect.map(Fiber.await(keeping), (exit) => (Exit.isSuccess(exit) ? exit.value : EXPIRED))
  )
  const first = yield* Effect.raceFirst(over, stopped)
  if (first._tag === "Stopped") yield* Deferred.succeed(told, undefined)
  const outcome =
    first._tag === "Stopped"
      ? yield* Effect.timeoutOrElse(over, { duration: drainMillis, orElse: () => stopped })
      : first

  // Writes are refused before anything else is done about it.
  if (outcome._tag === "Lost") term.end()
  leading.interruptUnsafe()
  const exit = yield* Effect.timeoutOption(Fiber.await(leading), INTERRUPTION_MILLIS)
  term.end()
  yield* Fiber.interrupt(keeping)
  yield* Metrics.setLeading(name, false)
  yield* resign(options, held, Option.isSome(exit), outcome)
  if (outcome._tag === "Lost") return yield* new LeadershipLost({ lease, identity, why: outcome.why })
  // Without an exit we were told to stop, and nobody waits for a value.
  return yield* Option.isSome(exit) ? exit.value : Effect.interrupt
})

const whereOf = ({ name, namespace }: Candidate) => ({ namespace, name })

const monotonicMillis = Effect.map(Clock.Clock, (clock) => () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6)

const find = (candidate: Candidate): Effect.Effect<Lease | undefined, KubernetesApiFailed, KubernetesApi> =>
  Effect.catchIf(
    Resource.get(Resource.leases, candidate.namespace, candidate.name),
    (failure) => failure.isNotFound,
    () => Effect.undefined
  )

/** The Lease as it is to be written now. */
const claim = (candidate: Candidate, lease: Lease | undefined) =>
  Effect.map(Clock.currentTimeMillis, (nowMillis) =>
    LeaseRecord.claimed(lease, whereOf(candidate), {
      identity: candidate.identity,
      leaseMillis: candidate.timings.leaseMillis,
      nowMillis
    })
  )

/** Tries once, within its time; a failure is said once, and is no reason to stop trying. */
const tryOnce = Effect.fnUntraced(function* (candidate: Candidate) {
  const nowMillis = yield* monotonicMillis
  const said = complaints()
  const limitMillis = Math.min(candidate.timings.retryMillis, REQUEST_MILLIS_MAX)
  const timedOut = new KubernetesApiFailed({
    method: "PUT",
    path: Resource.pathOf(Resource.leases, candidate.namespace, candidate.name),
    status: 0,
    reason: "Timeout",
    detail: `no answer about the lease within ${limitMillis} ms`
  })
  return <A>(attempt: Effect.Effect<A | undefined, KubernetesApiFailed, KubernetesApi>) =>
    attempt.pipe(
      Effect.timeoutOrElse({ duration: limitMillis, orElse: () => Effect.fail(timedOut) }),
      Effect.tap(() => Effect.sync(() => said.settle("", nowMillis()))),
      Effect.catch((failure) =>
        // Another candidate was faster.
        failure.isConflict || failure.isAlreadyExists || !said.isNew("", failure.message, nowMillis())
          ? Effect.undefined
          : Effect.as(
              Effect.logWarning("lease could not be had, trying again", {
                lease: `${candidate.namespace}/${candidate.name}`,
                [LogKeys.error]: failure.message,
                [LogKeys.remedy]: failure.remedy
              }),
              undefined
            )
      )
    )
})

/** Undefined when we were told to stop first; a Lease that was acquired in that moment is held, and to be released. */
const acquire = Effect.fnUntraced(function* (candidate: Candidate, stopped: Effect.Effect<unknown>) {
  const { identity, timings } = candidate
  const nowMillis = yield* monotonicMillis
  const once = yield* tryOnce(candidate)
  const turn = yield* Semaphore.make(1)
  let observed: LeaseRecord.Observed | undefined
  let waitsFor = ""
  let won: Held | undefined

  const attempt = Effect.gen(function* () {
    const lease = yield* find(candidate)
    observed = lease === undefined ? undefined : LeaseRecord.observe(observed, lease, nowMillis())
    const decision = LeaseRecord.decide(observed, { identity, leaseMillis: timings.leaseMillis }, nowMillis())
    if (decision._tag === "Wait") {
      if (decision.holder === waitsFor) return
      waitsFor = decision.holder
      return yield* Effect.logInfo("another process leads", { holder: decision.holder })
    }
    const sentAtMillis = nowMillis()
    const wanted = yield* claim(candidate, lease)
    const stored = yield* decision._tag === "Create"
      ? Resource.create(Resource.leases, wanted)
      : Resource.replace(Resource.leases, wanted)
    const term = Term.begin(timings, nowMillis, sentAtMillis)
    // After an answer that was so long in coming it is ours, and has to be renewed first.
    if (term.isHeld()) won = { lease: stored, term }
  })

  const looking = yield* Effect.forkChild(
    Effect.repeat(turn.withPermits(1)(once(attempt)), {
      schedule: leaseAcquisition(timings.retryMillis),
      until: () => won !== undefined
    })
  )
  yield* Effect.raceFirst(Fiber.join(looking), stopped)
  // An attempt that is under way may win.
  yield* Effect.timeoutOption(turn.withPermits(1)(Effect.void), RELEASE_MILLIS)
  yield* Fiber.interrupt(looking)
  return won
})

/** Renews until the Lease is lost, or the term is over. */
const keep = Effect.fnUntraced(
  function* (candidate: Candidate, held: Held) {
    const { retryMillis } = candidate.timings
    const { term } = held
    const nowMillis = yield* monotonicMillis
    const once = yield* tryOnce(candidate)

    const write = Effect.fnUntraced(function* (lease: Lease) {
      const wanted = yield* claim(candidate, lease)
      const sentAtMillis = nowMillis()
      held.lease = yield* Resource.replace(Resource.leases, wanted)
      return term.renewed(sentAtMillis) ? undefined : EXPIRED
    })

    /** Somebody wrote it: another holder, somebody who changed a label, or we, and the answer was lost. */
    const lookAgain = Effect.gen(function* () {
      const lease = yield* find(candidate)
      if (lease === undefined) return DELETED
      return LeaseRecord.holderOf(lease) === candidate.identity ? yield* write(lease) : TAKEN
    })

    const renewal = Effect.suspend(() => write(held.lease)).pipe(
      Effect.catchIf(
        (failure) => failure.isConflict || failure.isNotFound,
        () => lookAgain
      )
    )
    const renewing = Effect.delay(
      Effect.repeat(once(renewal), { schedule: leaseRenewal(retryMillis), until: (lost) => lost !== undefined }),
      retryMillis
    )
    const expiring = Effect.repeat(
      Effect.suspend(() => Effect.sleep(Math.ceil(term.millisLeft()))),
      { while: term.isHeld }
    )
    const lost = yield* Effect.raceFirst(renewing, Effect.as(expiring, EXPIRED))
    return lost ?? EXPIRED
  },
  Effect.tapCause((cause) =>
    Cause.hasDies(cause) ? Effect.logError("the renewal of the lease ended", { cause }) : Effect.void
  )
)

/** Gives the Lease back if that is safe, and says that the term is over. */
const resign = Effect.fnUntraced(function* (
  candidate: Candidate,
  { lease, term }: Held,
  hasEnded: boolean,
  outcome: Lost | { readonly _tag: "Ended" | "Stopped" }
) {
  const where = { lease: `${candidate.namespace}/${candidate.name}`, identity: candidate.identity }
  const mayBeOurs = outcome._tag !== "Lost" || outcome.why === "expired"
  if (mayBeOurs && hasEnded && term.isQuiet()) {
    yield* release(candidate, lease)
  } else if (mayBeOurs) {
    // To release it would let another begin while something of ours may still take effect.
    yield* Effect.logWarning("lease is not released, it expires", { ...where, hasEnded })
  }
  yield* Effect.logInfo("stopped leading", { ...where, why: outcome._tag === "Lost" ? outcome.why : "stopped" })
  yield* say(candidate, "StoppedLeading", lease)
})

const release = Effect.fnUntraced(
  function* (candidate: Candidate, lease: Lease) {
    const nowMillis = yield* Clock.currentTimeMillis
    const lookAgain = Effect.flatMap(find(candidate), (found) =>
      found === undefined || LeaseRecord.holderOf(found) !== candidate.identity
        ? Effect.void
        : Effect.asVoid(Resource.replace(Resource.leases, LeaseRecord.released(found, nowMillis)))
    )
    yield* Resource.replace(Resource.leases, LeaseRecord.released(lease, nowMillis)).pipe(
      Effect.asVoid,
      Effect.catchIf(
        (failure) => failure.isConflict || failure.isNotFound,
        () => lookAgain
      ),
      Effect.retry({ schedule: leaseRelease, while: (failure) => failure.isTransient || failure.isConflict })
    )
  },
  (released, candidate) =>
    released.pipe(
      Effect.map(() => ""),
      Effect.timeoutOrElse({ duration: RELEASE_MILLIS, orElse: () => Effect.succeed("no answer in time") }),
      Effect.catch((failure) => Effect.succeed(failure.message)),
      Effect.flatMap((error) =>
        error === ""
          ? Effect.void
          : Effect.logWarning("lease could not be released, it expires", {
              lease: `${candidate.namespace}/${candidate.name}`,
              [LogKeys.error]: error
            })
      )
    )
)

const MESSAGES = { BecameLeader: "became leader", StoppedLeading: "stopped leading" } as const

const say = (candidate: Candidate, _tag: ElectionEvent["_tag"], lease: Lease) =>
  candidate.onEvent === undefined
    ? Effect.void
    : Effect.asVoid(
        Effect.timeoutOption(
          candidate.onEvent({
            _tag,
            message: `${candidate.identity} ${MESSAGES[_tag]}`,
            about: {
              apiVersion: "coordination.k8s.io/v1",
              kind: "Lease",
              ...whereOf(candidate),
              ...(lease.metadata.uid === undefined ? {} : { uid: lease.metadata.uid })
            }
          }),
          EVENT_MILLIS
        )
      )
