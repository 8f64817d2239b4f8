/**
 * What goes wrong with time on a node: its clock is set forward or back by hours, and put right later; and a node, or the
 * machine that it is a guest of, stands still for minutes, of which its monotonic clock knows nothing.
 */
import { type Clock, Duration, Effect } from "effect"
import { type Chance, every, interval } from "./Chance.ts"
import type { History } from "./History.ts"

/** Means of intervals, and 0 is never. */
export type TimeRates = {
  readonly clockStepsEveryMillis: number
  readonly standsStillEveryMillis: number
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const STEP_MILLIS_MAX = 6 * HOUR
/** What time servers correct now and then. */
const SMALL_STEP_MILLIS_MAX = 2 * MINUTE
const WRONG_MILLIS_MAX = 20 * MINUTE
const STILL_MILLIS_MAX = 5 * MINUTE

export const drawTimeRates = (chance: Chance): TimeRates => ({
  clockStepsEveryMillis: interval(chance, 60 * MINUTE),
  standsStillEveryMillis: interval(chance, 60 * MINUTE)
})

/** The clocks of one node's driver, over those of the world. */
export class NodeClock {
  /** How much its wall clock is ahead of the world's. */
  stepMillis = 0
  private stillUntilMillis = Number.NEGATIVE_INFINITY
  /** Without the pause under way. */
  private stoodStillMillis = 0
  private stillSinceMillis = 0
  private readonly world: Clock.Clock

  constructor(world: Clock.Clock) {
    this.world = world
  }

  get isStill(): boolean {
    return this.stillUntilMillis > this.world.currentTimeMillisUnsafe()
  }

  /** Stands still for so long from now on. */
  standStill(millis: number): void {
    const now = this.world.currentTimeMillisUnsafe()
    this.settle(now)
    this.stillSinceMillis = now
    this.stillUntilMillis = now + millis
  }

  /** Goes on at once. */
  goOn(): void {
    const now = this.world.currentTimeMillisUnsafe()
    this.stillUntilMillis = Math.min(this.stillUntilMillis, now)
    this.settle(now)
  }

  private settle(now: number): void {
    this.stoodStillMillis = this.stoodStillAt(now)
    this.stillSinceMillis = now
  }

  private stoodStillAt(now: number): number {
    return this.stoodStillMillis + Math.max(0, Math.min(now, this.stillUntilMillis) - this.stillSinceMillis)
  }

  /** While it stands still, nothing comes back from here. */
  readonly awake: Effect.Effect<void> = Effect.suspend(() => {
    const leftMillis = this.stillUntilMillis - this.world.currentTimeMillisUnsafe()
    return leftMillis > 0 ? Effect.andThen(this.world.sleep(Duration.millis(leftMillis)), this.awake) : Effect.void
  })

  /** What its driver tells the time by. */
  get clock(): Clock.Clock {
    const { world } = this
    const wallMillis = () => world.currentTimeMillisUnsafe() + this.stepMillis
    const wallNanos = () => world.currentTimeNanosUnsafe() + BigInt(Math.round(this.stepMillis)) * 1_000_000n
    const monotonicMillis = () => {
      const now = world.currentTimeMillisUnsafe()
      return now - this.stoodStillAt(now)
    }
    const monotonicNanos = () =>
      world.monotonicTimeNanosUnsafe() -
      BigInt(Math.round(this.stoodStillAt(world.currentTimeMillisUnsafe()) * 1_000_000))
    const sleepUntil = (untilMillis: number): Effect.Effect<void> =>
      Effect.suspend(() => {
        if (this.isStill) return Effect.andThen(this.awake, sleepUntil(untilMillis))
        const leftMillis = untilMillis - monotonicMillis()
        if (leftMillis <= LEAST_MILLIS) return Effect.void
        return Effect.andThen(world.sleep(Duration.millis(leftMillis)), sleepUntil(untilMillis))
      })
    return {
      currentTimeMillisUnsafe: wallMillis,
      currentTimeMillis: Effect.sync(wallMillis),
      currentTimeNanosUnsafe: wallNanos,
      currentTimeNanos: Effect.sync(wallNanos),
      monotonicTimeNanosUnsafe: monotonicNanos,
      monotonicTimeNanos: Effect.sync(monotonicNanos),
      sleep: (duration) => {
        const millis = Duration.toMillis(duration)
        // As the world's clock has it: no sleep at all, and one without end.
        if (millis <= 0 || !Number.isFinite(millis)) return world.sleep(duration)
        return Effect.suspend(() => sleepUntil(monotonicMillis() + Math.max(millis, 2 * LEAST_MILLIS)))
      }
    }
  }
}

/** Differences of times with fractions are no exact zero. */
const LEAST_MILLIS = 1e-3

/** A node, as far as its time goes. */
export interface TimeSite {
  readonly name: string
  readonly faults: { readonly note: (site: string) => void }
  readonly clock: NodeClock
}

/** @shape (nodes, at least one; rates, chance, history) -> effects that never end, and put right what they have done */
export const timeTroubles = (options: {
  readonly nodes: ReadonlyArray<TimeSite>
  readonly rates: TimeRates
  readonly chance: Chance
  readonly history: History
}): ReadonlyArray<Effect.Effect<void>> => {
  const { chance, history, nodes, rates } = options
  const perNode = (meanMillis: number) => meanMillis / nodes.length
  const steps = Effect.suspend(() => {
    const { clock, faults, name } = chance.oneOf(nodes)
    const most = chance.happens(0.5) ? STEP_MILLIS_MAX : SMALL_STEP_MILLIS_MAX
    const stepMillis = Math.round(chance.between(-most, most))
    faults.note(stepMillis > 0 ? "clock ahead" : "clock behind")
    history.state(`${name} clock`, `${stepMillis > 0 ? "ahead" : "behind"} by ${Math.abs(stepMillis)} ms`)
    clock.stepMillis = stepMillis
    return Effect.ensuring(
      Effect.sleep(chance.between(0, WRONG_MILLIS_MAX)),
      Effect.sync(() => {
        clock.stepMillis = 0
        history.state(`${name} clock`, "")
      })
    )
  })
  const standsStill = Effect.suspend(() => {
    const { clock, faults, name } = chance.oneOf(nodes)
    const millis = chance.between(0, STILL_MILLIS_MAX)
    faults.note("node stands still")
    history.note(`stands still for ${Math.round(millis)} ms`, `${name} clock`)
    clock.standStill(millis)
    return Effect.ensuring(
      Effect.sleep(millis),
      Effect.sync(() => clock.goOn())
    )
  })
  return [
    every(chance, perNode(rates.clockStepsEveryMillis), steps),
    every(chance, perNode(rates.standsStillEveryMillis), standsStill)
  ]
}
