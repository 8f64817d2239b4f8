/**
 * One key of a WorkQueue: what is known of it, and what becomes of it. The thinking of WorkQueue, without effects.
 *
 * A key waits at most once, and one worker at a time works on it. What is added meanwhile is worked on again afterwards.
 * There are two reasons to look later. The last reconcile's own, a resync or another try: it holds until the next
 * reconcile begins, since that one says it anew, so work that was done sooner is not done twice. And the wishes of
 * others: the earliest one is kept until its time, whatever is done before, since nobody says it again.
 */
import type { Backoff } from "./Schedules.ts"

export interface QueuedKey {
  /** "WorkingAgain": worked on, and to be worked on again after that. */
  readonly stage: "Resting" | "Ready" | "Working" | "WorkingAgain"
  /** When the last reconcile wants the next one; Infinity is never. */
  readonly returnMillis: number
  /** When others want one; Infinity is never. */
  readonly wishMillis: number
  /** Reconciles in a row that failed. */
  readonly failures: number
  /**
   * By how many of them the next wait is longer: those that were waited for. A reconcile that news brings on before its
   * time says little about how long to wait, or much news while nothing works would put off the one that succeeds.
   */
  readonly waits: number
}

/** How a reconcile ended. */
export type Result =
  | { readonly _tag: "Done" }
  /** Infinity is never, and what is not above 0 is now. */
  | { readonly _tag: "RequeueAfter"; readonly millis: number }
  | { readonly _tag: "Failed" }
  /** Broken off from outside: nothing is known, and it is no failure. */
  | { readonly _tag: "Interrupted" }

/** A key of which there is nothing to remember. */
export const UNKNOWN: QueuedKey = {
  stage: "Resting",
  returnMillis: Number.POSITIVE_INFINITY,
  wishMillis: Number.POSITIVE_INFINITY,
  failures: 0,
  waits: 0
}

/** @shape (key) -> whether it need not be remembered */
export const isUnknown = ({ failures, returnMillis, stage, wishMillis }: QueuedKey): boolean =>
  stage === "Resting" && returnMillis === UNKNOWN.returnMillis && wishMillis === UNKNOWN.wishMillis && failures === 0

/** @shape (key) -> whether a worker has it */
export const isWorking = ({ stage }: QueuedKey): boolean => stage === "Working" || stage === "WorkingAgain"

/** @shape (key) -> when it is to be looked at for one reason or the other; Infinity is never */
export const dueMillis = ({ returnMillis, wishMillis }: QueuedKey): number => Math.min(returnMillis, wishMillis)

/** Everything that a WorkQueue leaves to be decided. */
export interface Decisions {
  readonly added: (key: QueuedKey) => QueuedKey
  readonly addedAfter: (key: QueuedKey, millis: number, nowMillis: number) => QueuedKey
  readonly due: (key: QueuedKey, nowMillis: number) => QueuedKey
  readonly taken: (key: QueuedKey, nowMillis: number) => QueuedKey
  readonly finished: (
    key: QueuedKey,
    result: Result,
    backoff: Backoff,
    now: { readonly nowMillis: number; readonly random: number }
  ) => QueuedKey
  readonly forgotten: (key: QueuedKey) => QueuedKey
}

/** Somebody wants it looked at now. */
const added: Decisions["added"] = (key) => {
  switch (key.stage) {
    case "Resting":
      return { ...key, stage: "Ready" }
    case "Working":
      // What the worker has read already may be older than the reason to look.
      return { ...key, stage: "WorkingAgain" }
    case "Ready":
    case "WorkingAgain":
      return key
  }
}

/** Time has passed. */
const due: Decisions["due"] = (key, nowMillis) => {
  if (dueMillis(key) > nowMillis) return key
  return added({
    ...key,
    returnMillis: key.returnMillis <= nowMillis ? UNKNOWN.returnMillis : key.returnMillis,
    wishMillis: key.wishMillis <= nowMillis ? UNKNOWN.wishMillis : key.wishMillis
  })
}

/** Somebody wants it looked at after a time. What is no time to wait for, NaN included, is now. */
const addedAfter: Decisions["addedAfter"] = (key, millis, nowMillis) => {
  // A wish that is due is no wish any more, even if nobody has looked at the clock since: it stands for no later one.
  const present = due(key, nowMillis)
  return millis > 0 ? { ...present, wishMillis: Math.min(present.wishMillis, nowMillis + millis) } : added(present)
}

/** A worker begins with it. Before its time, it takes the place of the try that would have come then. */
const taken: Decisions["taken"] = (key, nowMillis) => {
  const isEarly = Number.isFinite(key.returnMillis) && key.returnMillis > nowMillis
  return {
    ...key,
    stage: "Working",
    returnMillis: UNKNOWN.returnMillis,
    wishMillis: key.wishMillis <= nowMillis ? UNKNOWN.wishMillis : key.wishMillis,
    waits: isEarly ? Math.max(key.waits - 1, 0) : key.waits
  }
}

/**
 * @shape (backoff, waits in a row from 1, random in [0, 1)) -> how long to wait before the next try
 * @units whole milliseconds
 */
export const backoffMillis = (
  { factor, firstMillis, jitterShare, maxMillis }: Backoff,
  waits: number,
  random: number
): number =>
  Math.round(Math.min(firstMillis * factor ** (waits - 1), maxMillis) * (1 - jitterShare + 2 * jitterShare * random))

/** A worker has ended with it. What was added meanwhile does not wait, even after a failure: the world has changed. */
const finished: Decisions["finished"] = (key, result, backoff, { nowMillis, random }) => {
  const stage = key.stage === "WorkingAgain" ? "Ready" : "Resting"
  switch (result._tag) {
    case "Done":
      return { ...key, stage, failures: 0, waits: 0 }
    case "RequeueAfter": {
      const returnMillis = result.millis > 0 ? nowMillis + result.millis : nowMillis
      return { ...key, stage, failures: 0, waits: 0, returnMillis }
    }
    case "Failed": {
      const waits = key.waits + 1
      const returnMillis = nowMillis + backoffMillis(backoff, waits, random)
      return { ...key, stage, failures: key.failures + 1, waits, returnMillis }
    }
    case "Interrupted":
      return { ...key, stage: "Ready" }
  }
}

/** The next failure counts as the first one; when it is looked at stays as it is. */
const forgotten: Decisions["forgotten"] = (key) => (key.failures === 0 ? key : { ...key, failures: 0, waits: 0 })

/**
 * What becomes of a key.
 *
 * @shape  (key, what happened) -> key
 * @units  milliseconds of one clock that does not go back; a time itself counts as due
 * @errors none: every state has a decision
 * @source client-go, util/workqueue: a key waits once, and once more while it is worked on
 */
export const decisions: Decisions = { added, addedAfter, due, taken, finished, forgotten }
