/**
 * Every retry of the driver and the operator, by name: one place, one policy.
 *
 * A schedule says when to try again and when to give up; whether an error is worth it is said where it is used. Jitter
 * is 20 % to either side of the delay.
 */
import { Duration, Effect, Random, Schedule } from "effect"

const atMost = (longest: Duration.Input) => {
  const limit = Duration.fromInputUnsafe(longest)
  return Schedule.modifyDelay(({ duration }: { readonly duration: Duration.Duration }) =>
    Effect.succeed(Duration.min(duration, limit))
  )
}

/**
 * A list or watch that ended, for whatever reason. Never gives up.
 *
 * @units 500 ms, doubled each time up to 30 s
 */
export const watchReconnect = Schedule.exponential("500 millis", 2).pipe(atMost("30 seconds"), Schedule.jittered)

/**
 * An object that somebody else wrote between our read and our write.
 *
 * @units five tries in total; 10 ms, doubled each time
 */
export const conflictRetry = Schedule.exponential("10 millis", 2).pipe(Schedule.jittered, Schedule.upTo({ times: 4 }))

/**
 * A provider that was UNAVAILABLE before anything of an answer came.
 *
 * @units  three calls in total; 1 s, then 1.1 times the one before, at most 10 s
 * @source driver v1.6.0, pkg/secrets-store/provider_client.go, ServiceConfig; reference/driver.md 3.2
 */
export const providerRetry = Schedule.exponential("1 second", 1.1).pipe(
  atMost("10 seconds"),
  Schedule.jittered,
  Schedule.upTo({ times: 2 })
)

/**
 * A volume that is mounted and could not be recorded. Ends with the volume.
 *
 * @units 1 s, doubled each time up to 1 min
 */
export const lateRecord = Schedule.exponential("1 second", 2).pipe(atMost("1 minute"), Schedule.jittered)

/**
 * An Event that could not be written.
 *
 * @units three tries in total; 500 ms, doubled each time
 */
export const eventRetry = Schedule.exponential("500 millis", 2).pipe(Schedule.jittered, Schedule.upTo({ times: 2 }))

/**
 * The cluster's TLS profile, before the operator serves anything. Whoever uses it gives it 30 s in all.
 *
 * @units  2 s
 * @source reference/operator.md 1.3
 */
export const tlsProfileRead = Schedule.spaced("2 seconds")

/**
 * The first look at the Lease, before the operator calls itself ready. Never gives up.
 *
 * @units  1 s
 * @source reference/operator.md 1.5
 */
export const leaseFirstRead = Schedule.spaced("1 second")

/**
 * A read of the operator that a busy API server did not answer: of the dozen of one reconcile, one would often fail.
 *
 * @units  three tries in total; 100 ms, doubled each time
 * @source reference/operator.md Q26
 */
export const observationRetry = Schedule.exponential("100 millis", 2).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 2 })
)

/**
 * Whether a group of APIs has appeared or gone, and whatever could not be read the last time.
 *
 * @units one minute
 */
export const apiGroupCheck = Schedule.spaced("1 minute")

/**
 * Looks at the Lease of another. Candidates that began together do not come together for ever. Never gives up.
 *
 * @shape  (retryMillis) -> schedule
 * @units  from 1 to 2.2 times retryMillis
 * @source client-go, tools/leaderelection, JitterFactor; reference/operator.md 1.6
 */
export const leaseAcquisition = (retryMillis: number) =>
  Schedule.spaced(retryMillis).pipe(
    Schedule.modifyDelay(({ duration }) =>
      Effect.map(Random.next, (chance) => Duration.times(duration, 1 + LEASE_JITTER_FACTOR * chance))
    )
  )

const LEASE_JITTER_FACTOR = 1.2

/**
 * Renewals of our own Lease, whether or not the last one succeeded: the end of the term ends them. It counts no time
 * of its own, which would be that of the wall clock.
 *
 * @shape (retryMillis) -> schedule
 * @units retryMillis after each one
 */
export const leaseRenewal = (retryMillis: number) => Schedule.spaced(retryMillis)

/**
 * A Lease that could not be released.
 *
 * @units three tries in total; 500 ms, doubled each time
 */
export const leaseRelease = Schedule.exponential("500 millis", 2).pipe(Schedule.jittered, Schedule.upTo({ times: 2 }))

/** Waits that grow with the number of failures, for whoever counts them himself. */
export interface Backoff {
  readonly firstMillis: number
  readonly factor: number
  /** Before jitter. */
  readonly maxMillis: number
  /** To either side, of 1. */
  readonly jitterShare: number
}

/**
 * A reconcile that failed, by key. Never gives up. The first wait leaves the API server in peace, and is no longer than
 * what an administrator waits for anyway.
 *
 * @units 500 ms, doubled each time up to 5 min
 */
export const reconcileBackoff: Backoff = { firstMillis: 500, factor: 2, maxMillis: 300_000, jitterShare: 0.2 }

/**
 * A reconcile of the operator that failed: an administrator who puts something right sees the effect within a minute.
 *
 * @units  500 ms, doubled each time up to one minute
 * @source reference/operator.md 3.0
 */
export const operatorBackoff: Backoff = { firstMillis: 500, factor: 2, maxMillis: 60_000, jitterShare: 0.2 }
