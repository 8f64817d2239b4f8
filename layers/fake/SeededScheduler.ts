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
  /** After this many tasks, or `STEPS_PER_INSTANT_MAX` in which no time passes, the run is called a livelock. */
  readonly stepsMax?: number
  readonly startMillis?: number
}

/** A cluster that begins anew, at one instant, takes some thousands. */
const STEPS_PER_INSTANT_MAX = 300_000
/** Nobody sleeps for less, as with real timers: a difference of two times may be less than can be added to a time. */
const LEAST_MILLIS = 1e-3

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

interface Sleeper {
  readonly at: number
  /** Undefined: it sleeps no more. */
  wake: (() => void) | undefined
}

/** By time, in a heap; whoever is woken early stays in it as an empty place. */
class Sleepers {
  private readonly heap: Array<Sleeper> = []
  private empty = 0

  add(sleeper: Sleeper): void {
    const { heap } = this
    let index = heap.push(sleeper) - 1
    while (index > 0) {
      const above = (index - 1) >> 1
      const parent = heap[above]
      if (parent === undefined || parent.at <= sleeper.at) break
      heap[index] = parent
      index = above
    }
    heap[index] = sleeper
  }

  forget(sleeper: Sleeper): void {
    if (sleeper.wake === undefined) return
    sleeper.wake = undefined
    this.empty += 1
    // Most timeouts never come to pass, and an hour's would be kept for an hour.
    if (this.empty > 1_000 && this.empty > this.heap.length / 2) this.compact()
  }

  private compact(): void {
    const left = this.heap.filter(({ wake }) => wake !== undefined).sort((a, b) => a.at - b.at)
    this.heap.splice(0, this.heap.length, ...left)
    this.empty = 0
  }

  /** All that sleep until the earliest time at which anybody wakes; none when nobody sleeps. */
  takeEarliest(): Array<Sleeper> {
    const due: Array<Sleeper> = []
    for (let top = this.heap[0]; top !== undefined; top = this.heap[0]) {
      if (due[0] !== undefined && top.at > due[0].at) break
      this.removeTop()
      if (top.wake === undefined) this.empty -= 1
      else due.push(top)
    }
    return due
  }

  private removeTop(): void {
    const { heap } = this
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let index = 0
    for (;;) {
      const left = 2 * index + 1
      const [one, other] = [heap[left], heap[left + 1]]
      if (one === undefined) break
      const isRight = other !== undefined && other.at < one.at
      const child = isRight ? other : one
      if (child.at >= last.at) break
      heap[index] = child
      index = isRight ? left + 1 : left
    }
    heap[index] = last
  }
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
  const sleepers = new Sleepers()
  let now = startMillis
  let steps = 0
  /** As time last passed. */
  let stepsBefore = 0

  const take = <T>(items: Array<T>): T | undefined => {
    const index = Math.floor(next() * items.length)
    const item = items[index]
    const last = items.pop()
    if (index < items.length && last !== undefined) items[index] = last
    return item
  }
  /** Drawn once per pre-emption, instead of at each step; the chance is the same. */
  // Without pre-emption the quotient would be minus infinity, which is at every operation.
  const untilPreempted = () =>
    preemption > 0 ? Math.ceil(Math.log(1 - next()) / Math.log(1 - preemption)) : Number.POSITIVE_INFINITY
  let operations = untilPreempted()
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
        const sleeper: Sleeper = { at: now + Math.max(millis, LEAST_MILLIS), wake: () => resume(Effect.void) }
        sleepers.add(sleeper)
        return Effect.sync(() => sleepers.forget(sleeper))
      })
    }
  }
  const scheduler: Scheduler.Scheduler = {
    executionMode: "async",
    // Not before its first operation: that of a fiber which is interrupted before it has begun is its end, and the task
    // that begins it would take its place.
    shouldYield: (fiber) => {
      operations -= 1
      if (operations > 0 || fiber.currentOpCount <= 1) return fiber.currentOpCount >= fiber.cache.maxOpsBeforeYield
      operations = untilPreempted()
      return true
    },
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
    if (steps > stepsMax || steps - stepsBefore > STEPS_PER_INSTANT_MAX) throw stuck("livelock")
    const task = take(ready)
    if (task !== undefined) {
      task()
      continue
    }
    const due = sleepers.takeEarliest()
    const [first] = due
    if (first === undefined) throw stuck("deadlock")
    if (first.at > now) stepsBefore = steps
    now = first.at
    for (let sleeper = take(due); sleeper !== undefined; sleeper = take(due)) {
      const { wake } = sleeper
      sleeper.wake = undefined
      if (wake !== undefined) ready.push(wake)
    }
  }
}
