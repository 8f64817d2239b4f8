/**
 * Keys that want to be looked at: now, at a time, or again after a failure. First come, first served.
 *
 * Holds every key once, however often it is added, and gives it to one worker at a time; see QueuedKey for what becomes
 * of a key. Each change is one synchronous step, so it may be made from a listener. One fiber waits for all times. What
 * is remembered is bounded by the keys that its users add, and a key with nothing to remember takes no room.
 */
import { Cause, Clock, Effect, type Exit, Latch, Queue, Random, type Scope } from "effect"
import { agenda } from "./Agenda.ts"
import * as QueuedKey from "./QueuedKey.ts"
import { type Backoff, reconcileBackoff } from "./Schedules.ts"

export interface WorkQueue {
  /** A reconcile of the key will begin after this, as soon as a worker is free. */
  readonly add: (key: string) => void
  /**
   * A reconcile of the key will begin at this time or soon after, even if others begin before. Of several wishes for a
   * key that are not due yet, the earliest counts for all.
   *
   * @units milliseconds from now; Infinity is never, and what is not above 0 is now
   */
  readonly addAfter: (key: string, millis: number) => void
  /** The key's next failure counts as its first one. */
  readonly forget: (key: string) => void
  /**
   * Waits for a key, and works on it until `handle` has ended, however it ends: a defect counts as a failure, and a key
   * whose worker is interrupted is ready again. `handle` is called in the step in which the key is taken.
   *
   * @shape  (handle: (key) -> Result) -> false once the queue is closed
   * @errors defects and interruptions of `handle`
   */
  readonly work: <R>(
    handle: (key: string) => Effect.Effect<QueuedKey.Result, never, R>
  ) => Effect.Effect<boolean, never, R>
  /** Reconciles of the key in a row that failed. */
  readonly failures: (key: string) => number
  /** Keys that are ready and wait for a worker. */
  readonly length: () => number
  /** Keys that are to be looked at later, whatever is done with them now. */
  readonly delayed: () => number
  /** Keys that are worked on. */
  readonly working: () => number
  /** Keys of which anything is remembered. */
  readonly known: () => number
}

export interface Options {
  readonly backoff?: Backoff
  /** For tests of the tests. */
  readonly decisions?: QueuedKey.Decisions
}

const resultOf = (exit: Exit.Exit<QueuedKey.Result>): QueuedKey.Result => {
  if (exit._tag === "Success") return exit.value
  return { _tag: Cause.hasInterruptsOnly(exit.cause) ? "Interrupted" : "Failed" }
}

/**
 * A queue that is open until the scope closes. Then whoever waits in `work` is told so, and what waits for its time is
 * forgotten; who works on a key is not disturbed.
 *
 * @shape  ({ backoff?, decisions? }) -> WorkQueue
 * @errors none
 */
export const make = Effect.fnUntraced(function* ({
  backoff = reconcileBackoff,
  decisions = QueuedKey.decisions
}: Options = {}): Effect.fn.Return<WorkQueue, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  /** Open while a key is ready: whoever is woken and leaves takes no news along. */
  const filled = Latch.makeUnsafe()
  /** Rung for the timer: there is something to wait for that is earlier than before. */
  const alarm = yield* Queue.sliding<void>(1)
  const keys = new Map<string, QueuedKey.QueuedKey>()
  /** In the order in which they became ready. */
  const ready = new Set<string>()
  const times = agenda()
  let working = 0
  let isOpen = true

  /** A clock that was set must neither hold up a reconcile nor bring all of them at once. */
  const nowMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const get = (key: string) => keys.get(key) ?? QueuedKey.UNKNOWN

  /** The only place that changes anything; wakes others last, when all is as it should be. */
  const put = (key: string, after: QueuedKey.QueuedKey) => {
    const before = get(key)
    if (after === before) return
    if (QueuedKey.isUnknown(after)) keys.delete(key)
    else keys.set(key, after)
    working += Number(QueuedKey.isWorking(after)) - Number(QueuedKey.isWorking(before))
    const due = QueuedKey.dueMillis(after)
    if (Number.isFinite(due)) times.set(key, due)
    else times.delete(key)
    if (after.stage === "Ready") ready.add(key)
    else ready.delete(key)
    if (due < QueuedKey.dueMillis(before) && times.first()?.key === key) Queue.offerUnsafe(alarm, undefined)
    if (ready.size > 0 || !isOpen) filled.openUnsafe()
    else filled.closeUnsafe()
  }

  const change = (key: string, decide: (before: QueuedKey.QueuedKey) => QueuedKey.QueuedKey) => {
    if (isOpen) put(key, decide(get(key)))
  }

  const take = (): string | undefined => {
    const [key] = ready
    if (key === undefined) return undefined
    put(key, decisions.taken(get(key), nowMillis()))
    return key
  }

  const finish = (key: string, result: QueuedKey.Result) => {
    const now = { nowMillis: nowMillis(), random: random.nextDoubleUnsafe() }
    put(key, isOpen ? decisions.finished(get(key), result, backoff, now) : QueuedKey.UNKNOWN)
  }

  const close = () => {
    isOpen = false
    for (const [key, before] of [...keys]) {
      put(key, QueuedKey.isWorking(before) ? { ...QueuedKey.UNKNOWN, stage: "Working" } : QueuedKey.UNKNOWN)
    }
    filled.openUnsafe()
  }

  /** Makes ready whatever is due; answers when there is something to do again, Infinity when nobody knows. */
  const advance = (now: number): number => {
    for (let first = times.first(); first !== undefined && first.millis <= now; first = times.first()) {
      put(first.key, decisions.due(get(first.key), now))
    }
    return times.first()?.millis ?? Number.POSITIVE_INFINITY
  }

  const timer = Effect.forever(
    Effect.suspend(() => {
      const now = nowMillis()
      const next = advance(now)
      const rung = Queue.take(alarm)
      // Whole milliseconds, as timers have them: never early, and never a wait that is too short to move the clock.
      return Number.isFinite(next) ? Effect.asVoid(Effect.timeoutOption(rung, Math.ceil(next - now))) : rung
    })
  )
  yield* Effect.addFinalizer(() => Effect.sync(close))
  yield* Effect.forkScoped(Effect.tapCause(timer, (cause) => Effect.logError("a work queue's timer ended", { cause })))

  return {
    add: (key) => change(key, decisions.added),
    addAfter: (key, millis) => change(key, (before) => decisions.addedAfter(before, millis, nowMillis())),
    forget: (key) => change(key, decisions.forgotten),
    work: <R>(handle: (key: string) => Effect.Effect<QueuedKey.Result, never, R>) =>
      Effect.uninterruptibleMask((restore) => {
        // The latch runs those who wait at once; they give way to whoever has added the key.
        const woken = restore(Effect.andThen(filled.await, Effect.yieldNow))
        const begin = (key: string) => {
          try {
            return restore(handle(key))
          } catch (defect) {
            return Effect.die(defect)
          }
        }
        const next: Effect.Effect<boolean, never, R> = Effect.suspend(() => {
          if (!isOpen) return Effect.succeed(false)
          const key = take()
          return key === undefined
            ? Effect.andThen(woken, next)
            : Effect.as(
                Effect.onExit(begin(key), (exit) => Effect.sync(() => finish(key, resultOf(exit)))),
                true
              )
        })
        return next
      }),
    failures: (key) => get(key).failures,
    length: () => ready.size,
    delayed: () => times.size(),
    working: () => working,
    known: () => keys.size
  }
})
