/**
 * Deterministic simulation: one seed decides every interleaving, every random number and the passing of time.
 *
 * All fibers of a run share one bag of ready tasks, of which the seed draws the next; running fibers are pre-empted at
 * seeded points. Time is virtual and jumps to the earliest sleeper when the bag is empty. There are no timers and no
 * promises: a run is one synchronous loop, and the same seed gives the same run in every process.
 */
import { Clock, Context, Data, Duration, Effect, type Exit, Random, Scheduler } from "effect"

/** A small generator with good spread (splitmix32): numbers in [0, 1). */
const makeRandom = (seed: number): (() => number) => {
  let state = seed | 0
  return () => {
    state = (state + 0x9e3779b9) | 0
    let mixed = state ^ (state >>> 16)
    mixed = Math.imul(mixed, 0x21f0aaad)
    mixed ^= mixed >>> 15
    mixed = Math.imul(mixed, 0x735a2d97)
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 4294967296
  }
}

export interface SimulationOptions {
  readonly seed: number
  /** Chance of pre-empting a fiber at each step of its run loop. */
  readonly preemption?: number
  /** After this many tasks the run is called a livelock. */
  readonly stepsMax?: number
  readonly startMillis?: number
}

/** The program will never end: nothing is ready and nobody sleeps, or it never stops being busy. */
export class Stuck extends Data.TaggedError("Stuck")<{
  readonly kind: "deadlock" | "livelock"
  readonly seed: number
  readonly virtualMillis: number
  readonly steps: number
}> {
  override get message() {
    return `${this.kind} after ${this.steps} steps at ${this.virtualMillis} ms of virtual time (seed ${this.seed})`
  }
}

export interface SimulationResult<A, E> {
  readonly exit: Exit.Exit<A, E>
  readonly steps: number
  readonly virtualMillis: number
}

/**
 * Runs a program to its end on virtual time.
 *
 * @shape  (program, options) -> exit, steps, virtual milliseconds
 * @errors throws Stuck when the program can never end
 */
export const simulate = <A, E>(
  program: Effect.Effect<A, E>,
  { preemption = 0.1, seed, startMillis = 0, stepsMax = 5_000_000 }: SimulationOptions
): SimulationResult<A, E> => {
  const next = makeRandom(seed)
  const ready: Array<() => void> = []
  let sleepers: Array<{ readonly at: number; readonly wake: () => void }> = []
  let now = startMillis
  let steps = 0

  const take = <T>(items: Array<T>): T | undefined => {
    const index = Math.floor(next() * items.length)
    const item = items[index]
    const last = items.pop()
    if (index < items.length && last !== undefined) items[index] = last
    return item
  }
  const nanos = () => BigInt(Math.round(now * 1e6))
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => now,
    currentTimeMillis: Effect.sync(() => now),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration) => {
      const millis = Duration.toMillis(duration)
      if (millis <= 0) return Effect.yieldNow
      return Effect.callback<void>((resume) => {
        if (!Number.isFinite(millis)) return
        const sleeper = { at: now + millis, wake: () => resume(Effect.void) }
        sleepers.push(sleeper)
        return Effect.sync(() => {
          sleepers = sleepers.filter((other) => other !== sleeper)
        })
      })
    }
  }
  const scheduler: Scheduler.Scheduler = {
    executionMode: "async",
    // Not before its first operation: that of a fiber which is interrupted before it has begun is its end, and the task
    // that begins it would take its place.
    shouldYield: (fiber) =>
      fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield || (fiber.currentOpCount > 1 && next() < preemption),
    makeDispatcher: () => ({ scheduleTask: (task) => void ready.push(task), flush: () => {} })
  }
  const context = Context.make(Clock.Clock, clock).pipe(
    Context.add(Random.Random, {
      nextDoubleUnsafe: next,
      nextIntUnsafe: () => Math.floor(next() * Number.MAX_SAFE_INTEGER)
    }),
    Context.add(Scheduler.Scheduler, scheduler)
  )

  const fiber = Effect.runForkWith(context)(program)
  for (;;) {
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return { exit, steps, virtualMillis: now - startMillis }
    steps += 1
    const stuck = (kind: Stuck["kind"]) => new Stuck({ kind, seed, steps, virtualMillis: now - startMillis })
    if (steps > stepsMax) throw stuck("livelock")
    const task = take(ready)
    if (task !== undefined) {
      task()
      continue
    }
    if (sleepers.length === 0) throw stuck("deadlock")
    now = sleepers.reduce((earliest, { at }) => Math.min(earliest, at), Number.POSITIVE_INFINITY)
    const due = sleepers.filter(({ at }) => at <= now)
    sleepers = sleepers.filter(({ at }) => at > now)
    for (let sleeper = take(due); sleeper !== undefined; sleeper = take(due)) ready.push(sleeper.wake)
  }
}
