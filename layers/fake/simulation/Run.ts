/**
 * One run of a scenario, from its seed to what is known when it has ended, however it ends.
 */
import { type Clock, Effect } from "effect"
import { Stuck, simulate } from "../SeededScheduler.ts"
import { History } from "./History.ts"
import { runEnds } from "./Invariants.ts"
import { Referee } from "./Referee.ts"
import type { RunOptions, RunResult } from "./Scenario.ts"

const START_MILLIS = Date.UTC(2026, 0, 1)
const STEPS_PER_HOUR_MAX = 20_000_000

export const MINUTE = 60_000
export const HOUR = 60 * MINUTE

const PREEMPTION_MIN = 0.02
const PREEMPTION_MAX = 0.5

/**
 * How often fibers are pre-empted: in most runs as little as the machine does it, in some at every second step.
 *
 * @shape (seed) -> a chance per step, 0.07 in the mean
 */
const preemptionOf = (seed: number): number => {
  const share = (Math.imul(seed, 0x9e3779b1) >>> 8) / 2 ** 24
  return PREEMPTION_MIN + (PREEMPTION_MAX - PREEMPTION_MIN) * share ** 8
}

/** Who sees and judges a run. */
export interface Judges {
  readonly history: History
  readonly referee: Referee
  /** By which they tell the time; without it, no time passes for them. */
  readonly setClock: (clock: Clock.Clock) => void
}

/** For a line of a summary. */
export const listed = (figures: ReadonlyArray<readonly [string, number]>): string =>
  figures.length === 0 ? "none" : figures.map(([name, count]) => `${name} ${count}`).join(", ")

/**
 * @shape  (options, program of its judges) -> the result, without what only the scenario knows
 * @units  hours of virtual time
 * @errors none: a broken promise, or a run that cannot end, is a violation; a defect of the simulation itself is thrown
 */
export const run = (
  { hours, seed, timeline }: RunOptions,
  program: (judges: Judges) => Effect.Effect<void>
): Omit<RunResult, "rates" | "summary"> => {
  let clock: Clock.Clock | undefined
  const elapsedMillis = () => (clock?.currentTimeMillisUnsafe() ?? START_MILLIS) - START_MILLIS
  const history = new History(elapsedMillis, timeline)
  const referee = new Referee(history, elapsedMillis)
  const setClock = (it: Clock.Clock) => {
    clock = it
  }
  const whole = Effect.raceFirst(program({ history, referee, setClock }), referee.violated)
  const stepsMax = Math.ceil((hours + 1) * STEPS_PER_HOUR_MAX)
  const steps = stepsOf(
    () => simulate(whole, { seed, preemption: preemptionOf(seed), startMillis: START_MILLIS, stepsMax }),
    referee
  )
  return {
    seed,
    violation: referee.violation,
    digest: history.digest(),
    steps,
    virtualMillis: elapsedMillis(),
    history
  }
}

/** A run that cannot end is a violation like others; any other throw is a mistake of ours. */
const stepsOf = (start: () => ReturnType<typeof simulate<void, never>>, referee: Referee): number => {
  try {
    const { exit, steps } = start()
    if (exit._tag === "Failure") throw new Error("the simulation itself failed", { cause: exit.cause })
    return steps
  } catch (cause) {
    if (!(cause instanceof Stuck)) throw cause
    referee.check(runEnds, { message: cause.message })
    return cause.steps
  }
}
