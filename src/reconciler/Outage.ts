/**
 * Keys whose reconcile has failed because the API server did not answer, to be looked at again as soon as it does.
 *
 * Meanwhile one of them is tried every half minute, for all; the others keep their own waits, which grow. With the first
 * answer to anybody all of them come back, at most once in half a minute: what fails whoever else is answered is not
 * tried with every answer.
 */
import { Clock, Effect } from "effect"
import type { WorkQueue } from "./WorkQueue.ts"

const EVERY_MILLIS = 30_000

/** Each of them is one step, and is told in the order in which things happen. */
export interface Outage {
  /** The key is being looked at. */
  readonly begun: (key: string) => void
  /** It had no answer. */
  readonly unanswered: (key: string) => void
  /** Somebody had one. */
  readonly answered: () => void
  /** Keys that are waited for. */
  readonly size: () => number
}

/**
 * @shape  (queue) -> Outage; what is remembered is bounded by the queue's keys
 * @errors none
 */
export const make = (queue: Pick<WorkQueue, "addAfter">): Effect.Effect<Outage> =>
  Effect.map(Clock.Clock, (clock) => {
    /** In the order in which they were tried. */
    const cutOff = new Set<string>()
    let nextTryMillis = Number.NEGATIVE_INFINITY
    let nextReturnMillis = Number.NEGATIVE_INFINITY
    // A clock that was set must neither hold up a try nor bring many.
    const nowMillis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

    const tryOne = () => {
      const [first] = cutOff
      const now = nowMillis()
      if (first === undefined || now < nextTryMillis) return
      nextTryMillis = now + EVERY_MILLIS
      queue.addAfter(first, EVERY_MILLIS)
    }
    return {
      begun: (key) => {
        cutOff.delete(key)
        tryOne()
      },
      unanswered: (key) => {
        cutOff.add(key)
        tryOne()
      },
      answered: () => {
        if (cutOff.size === 0) return
        const now = nowMillis()
        const returnMillis = Math.max(now, nextReturnMillis)
        nextReturnMillis = returnMillis + EVERY_MILLIS
        for (const key of cutOff) queue.addAfter(key, returnMillis - now)
        cutOff.clear()
      },
      size: () => cutOff.size
    }
  })
