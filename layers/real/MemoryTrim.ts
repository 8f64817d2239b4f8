/**
 * Gives memory back to the system: a full collection, then the allocator's free pages. A driver rests most of the time,
 * and what a burst of mounts needed is otherwise kept for ever. Takes 15 to 35 ms of the only thread, so it happens
 * seldom: in a pause, and not at all while nothing was done since the last time. Where the collector or `malloc_trim`
 * cannot be had, the other one is used alone.
 */
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { Cause, Effect, Schedule, type Scope } from "effect"

const loadCollector = (): (() => void) => {
  if (globalThis.gc === undefined) setFlagsFromString("--expose-gc")
  // Node without the flag shows it only in a new context, which then stays in memory.
  const collect: unknown = globalThis.gc ?? runInNewContext("gc")
  return typeof collect === "function"
    ? () => void collect({ type: "major", execution: "sync", flavor: "last-resort" })
    : () => {}
}

const loadMallocTrim = async (): Promise<() => void> => {
  const { default: koffi } = await import("koffi")
  const mallocTrim = koffi.load("libc.so.6").func("int malloc_trim(size_t pad)")
  return () => void mallocTrim(0)
}

/** Loads one of the two parts, or says once why it is not there. */
const optional = (part: string, load: () => (() => void) | Promise<() => void>): Effect.Effect<Effect.Effect<void>> =>
  Effect.tryPromise(async () => load()).pipe(
    Effect.map((use) => Effect.ignore(Effect.try(use))),
    Effect.catch((error) =>
      Effect.as(Effect.logInfo("memory is trimmed without a part of it", { part, err: error }), Effect.void)
    )
  )

export interface TrimState {
  /** The activity of the last interval. */
  readonly seen: number | undefined
  /** The activity at the last trim. */
  readonly trimmed: number | undefined
  /** Intervals without a pause since then. */
  readonly busyIntervals: number
}

/** A driver that never pauses is trimmed all the same, this seldom. */
const BUSY_INTERVALS_MAX = 12

/**
 * Decides whether to trim at the end of an interval. A collection also throws compiled code away, so it waits for a pause
 * between bursts.
 *
 * @shape  (state, activity) -> { trim, state }
 * @errors none
 */
export const decide = (
  { busyIntervals, seen, trimmed }: TrimState,
  activity: number
): { readonly trim: boolean; readonly state: TrimState } => {
  if (activity === trimmed) return { trim: false, state: { seen: activity, trimmed, busyIntervals: 0 } }
  const isBusy = activity !== seen
  const trim = !isBusy || busyIntervals + 1 >= BUSY_INTERVALS_MAX
  return trim
    ? { trim, state: { seen: activity, trimmed: activity, busyIntervals: 0 } }
    : { trim, state: { seen: activity, trimmed, busyIntervals: busyIntervals + 1 } }
}

/**
 * Trims after the first interval in which nothing was done, counted from the start or from the last thing done, until the
 * scope closes.
 *
 * @shape  ({ intervalMillis, activity }) -> Effect<void>, which returns at once
 * @units  milliseconds; 0 is never. `activity` is any number that changes when the driver works
 * @errors none
 */
export const trimPeriodically = Effect.fnUntraced(function* (options: {
  readonly intervalMillis: number
  readonly activity: Effect.Effect<number>
}): Effect.fn.Return<void, never, Scope.Scope> {
  if (options.intervalMillis <= 0) return
  let state: TrimState = { seen: undefined, trimmed: undefined, busyIntervals: 0 }
  const parts = yield* Effect.cached(
    Effect.all([optional("gc", loadCollector), optional("malloc_trim", loadMallocTrim)])
  )
  const trimIfActive = Effect.gen(function* () {
    const decision = decide(state, yield* options.activity)
    state = decision.state
    if (!decision.trim) return
    for (const part of yield* parts) yield* part
  })
  yield* Effect.forkScoped(
    Effect.repeat(Effect.delay(trimIfActive, options.intervalMillis), Schedule.forever).pipe(
      Effect.tapCause((cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError("memory is no longer trimmed", cause)
      )
    )
  )
})
