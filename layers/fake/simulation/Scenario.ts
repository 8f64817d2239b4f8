/**
 * What a simulation is to whoever runs it: a name, and a function of one number. The command, campaigns, minimizing and
 * reports know nothing else of the world that is simulated.
 *
 * A run counts figures, which a campaign adds up. Their prefixes have a meaning: `fault SITE` is a fault that struck,
 * `call SITE` a port call, `check ID NAME` a promise that was checked, `decision WORDS` what the program under test said
 * or decided, and `publish CODE`, `unpublish CODE` and `outcome WORDS` what came of it. Others are the scenario's own.
 */
import type { History } from "./History.ts"
import type { Violation } from "./Referee.ts"

/** Of one run's faults, by name: chances per call, or means of intervals; 0 is never. */
export type Rates = Readonly<Record<string, number>>

export interface RunOptions {
  readonly seed: number
  /** Virtual hours of faults; what follows them is the scenario's. */
  readonly hours: number
  /** Changes what was drawn: 0 switches a fault off. */
  readonly rates?: (drawn: Rates) => Rates
  /** Keep every event, for a report. Nothing else depends on it. */
  readonly timeline?: boolean
}

export interface RunResult {
  readonly seed: number
  /** The first broken promise. */
  readonly violation: Violation | undefined
  /** Of everything that happened: equal for equal options, in every process. */
  readonly digest: string
  readonly steps: number
  readonly virtualMillis: number
  readonly history: History
  /** Undefined when the run ended before they were drawn. */
  readonly rates: Rates | undefined
  /** For one screen, in words. */
  readonly summary: ReadonlyArray<readonly [title: string, text: string]>
}

export interface Scenario {
  readonly name: string
  /** One line. */
  readonly description: string
  readonly run: (options: RunOptions) => RunResult
}
