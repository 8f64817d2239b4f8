/**
 * The workers of a WorkQueue: each takes a key, has it reconciled, and gives it back with what became of it.
 *
 * A failure, a bug or too long a time of one key brings that key back later and later, and concerns no other. What was
 * said about a key is not said again until it has succeeded.
 */
import { Cause, Clock, Duration, Effect, Exit, Option, Schedule } from "effect"
import { ReconcileTimedOut } from "../../schemas/errors/ReconcileTimedOut.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import { complaints } from "./Complaints.ts"
import type { Result } from "./QueuedKey.ts"
import type { WorkQueue } from "./WorkQueue.ts"

const TIME_LIMIT_MILLIS = 120_000
/** What is done about a failure must not hold up the worker. */
const ON_ERROR_MILLIS = 5_000
const everyTenSeconds = Schedule.spaced("10 seconds")

/** What a reconcile says of its key: nothing to do before somebody adds it, or look again after this long. */
export type Outcome = Extract<Result, { readonly _tag: "Done" | "RequeueAfter" }>

export const DONE: Outcome = { _tag: "Done" }

/** @shape (millis above 0) -> Outcome */
export const requeueAfter = (millis: number): Outcome => ({ _tag: "RequeueAfter", millis })

/** A failure that can be logged. */
export interface Explained {
  readonly message: string
  readonly remedy?: string
}

export interface Options<E extends Explained, R> {
  readonly name: Metrics.Controller
  /** Keys that are reconciled at a time. */
  readonly workers: number
  readonly queue: WorkQueue
  readonly reconcile: (key: string) => Effect.Effect<Outcome, E, R>
  /** Hears of every failure but bugs, with the number of failures in a row; is cut off after five seconds. */
  readonly onError?: (key: string, error: E | ReconcileTimedOut, failures: number) => Effect.Effect<void, never, R>
  /** Two minutes when absent. A reconcile that cannot be interrupted is waited for all the same. */
  readonly timeLimitMillis?: number
}

/** How a reconcile has ended. */
type Ended<E> =
  | Outcome
  | { readonly _tag: "Failed"; readonly error: E }
  | { readonly _tag: "TimedOut"; readonly error: ReconcileTimedOut }
  | { readonly _tag: "Died"; readonly cause: Cause.Cause<E> }

const RESULTS = {
  Done: "done",
  RequeueAfter: "requeue_after",
  Failed: "failed",
  TimedOut: "timed_out",
  Died: "died"
} as const satisfies Readonly<Record<Ended<never>["_tag"], Metrics.ReconcileResult>>

/** None when its time was over. A reconcile that interrupts itself is a bug: nobody has asked for it. */
const endOf = <E>(exit: Option.Option<Exit.Exit<Outcome, E>>, limitMillis: number): Ended<E> => {
  if (Option.isNone(exit)) return { _tag: "TimedOut", error: new ReconcileTimedOut({ limitMillis }) }
  if (Exit.isSuccess(exit.value)) return exit.value.value
  const { cause } = exit.value
  const failure = Cause.findErrorOption(cause)
  return Option.isSome(failure) && !Cause.hasDies(cause)
    ? { _tag: "Failed", error: failure.value }
    : { _tag: "Died", cause }
}

const words = (defect: unknown): string => (defect instanceof Error ? defect.message : String(defect))

/**
 * Runs until the queue is closed. An interruption interrupts the workers and waits for them; what they had is ready for
 * the next loop on the same queue.
 *
 * @shape  ({ name, workers, queue, reconcile, onError?, timeLimitMillis? }) -> void
 * @errors none: they are the business of `onError`, the log and the metrics
 * @source reference/driver.md 6; controller-runtime, Reconciler
 */
export const run = Effect.fnUntraced(function* <E extends Explained, R>({
  name,
  onError = () => Effect.void,
  queue,
  reconcile,
  timeLimitMillis = TIME_LIMIT_MILLIS,
  workers
}: Options<E, R>): Effect.fn.Return<void, never, R> {
  const told = complaints()
  const nowMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

  const tell = Effect.fnUntraced(function* (
    key: string,
    error: E | ReconcileTimedOut
  ): Effect.fn.Return<void, never, R> {
    const failures = queue.failures(key) + 1
    if (told.isNew(key, error.message, yield* nowMillis)) {
      yield* Effect.logWarning("reconcile failed, trying again", {
        controller: name,
        key,
        [LogKeys.error]: error.message,
        ...(error.remedy === undefined ? {} : { [LogKeys.remedy]: error.remedy })
      })
    }
    const exit = yield* Effect.exit(
      Effect.timeoutOption(
        Effect.suspend(() => onError(key, error, failures)),
        ON_ERROR_MILLIS
      )
    )
    if (Exit.isFailure(exit)) yield* bug(key, exit.cause)
  })

  const bug = Effect.fnUntraced(function* (key: string, cause: Cause.Cause<unknown>) {
    if (!told.isNew(key, words(Cause.squash(cause)), yield* nowMillis)) return
    yield* Effect.logError("bug in a reconcile, trying again", { controller: name, key, cause })
  })

  const settled = Effect.fnUntraced(function* (key: string) {
    if (!told.settle(key, yield* nowMillis)) return
    yield* Effect.logInfo("reconciled after failures", { controller: name, key })
  })

  const one = Effect.fnUntraced(function* (key: string): Effect.fn.Return<Result, never, R> {
    const bounded = Effect.timeoutOption(Effect.exit(Effect.suspend(() => reconcile(key))), timeLimitMillis)
    const [duration, exit] = yield* Effect.timed(bounded)
    const ended = endOf(exit, timeLimitMillis)
    yield* Metrics.reconciled({ controller: name, result: RESULTS[ended._tag], seconds: Duration.toSeconds(duration) })
    switch (ended._tag) {
      case "Done":
      case "RequeueAfter":
        yield* settled(key)
        return ended
      case "Failed":
      case "TimedOut":
        yield* tell(key, ended.error)
        return { _tag: "Failed" }
      case "Died":
        yield* bug(key, ended.cause)
        return { _tag: "Failed" }
    }
  })

  const worker = Effect.repeat(queue.work(one), { while: (isOpen) => isOpen })
  const measured = Effect.repeat(
    Effect.suspend(() => Metrics.setReconcileQueueLength(name, queue.length())),
    everyTenSeconds
  )
  yield* Effect.forEach(Array.from({ length: workers }), () => worker, { concurrency: workers, discard: true }).pipe(
    Effect.raceFirst(measured),
    Effect.ensuring(Metrics.reconcileLoopEnded(name))
  )
})
