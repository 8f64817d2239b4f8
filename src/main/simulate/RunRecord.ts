/**
 * What a campaign keeps of a run, as plain data that crosses from a worker to the campaign.
 */
import type { RunResult } from "../../../layers/fake/simulation/Scenario.ts"
import { type Outcome, outcomeOf } from "./ExitCodes.ts"

export interface RunRecord {
  readonly scenario: string
  readonly seed: number
  readonly outcome: Outcome
  /** In words; empty when every promise held. */
  readonly seen: string
  readonly digest: string
  readonly steps: number
  readonly virtualMillis: number
  /** Of real time. */
  readonly seconds: number
  /** Site and count. */
  readonly faults: ReadonlyArray<readonly [string, number]>
  /** What the program decided or said, and what was answered. */
  readonly decisions: ReadonlyArray<readonly [string, number]>
  /** The scenario's own figures. */
  readonly others: ReadonlyArray<readonly [string, number]>
}

/** What a worker is asked to run. */
export interface Order {
  readonly scenario: string
  readonly seed: number
  readonly hours: number
  readonly rates: Readonly<Record<string, number>> | undefined
}

const FAULT = "fault "
const CALL = "call "
const DECISION = "decision "
const ANSWERS = ["publish ", "unpublish ", "outcome "]

/** @shape (scenario, its result, real time) -> record */
export const recordOf = (
  scenario: string,
  { digest, history, seed, steps, violation, virtualMillis }: RunResult,
  seconds: number
): RunRecord => {
  const isAnswer = (name: string) => ANSWERS.some((prefix) => name.startsWith(prefix))
  const all = history.figuresOf("")
  return {
    scenario,
    seed,
    outcome: outcomeOf(violation),
    seen: violation === undefined ? "" : `${violation.id} ${violation.invariant}: ${violation.seen}`,
    digest,
    steps,
    virtualMillis,
    seconds,
    faults: history.figuresOf(FAULT),
    decisions: [...history.figuresOf(DECISION), ...all.filter(([name]) => isAnswer(name))],
    others: all.filter(([name]) => ![FAULT, CALL, DECISION].some((it) => name.startsWith(it)) && !isAnswer(name))
  }
}

/** @shape (order, cause) -> the record of a run that is a mistake of the simulation's own */
export const failedRecord = ({ scenario, seed }: Pick<Order, "scenario" | "seed">, cause: string): RunRecord => ({
  scenario,
  seed,
  outcome: "failed",
  seen: cause,
  digest: "",
  steps: 0,
  virtualMillis: 0,
  seconds: 0,
  faults: [],
  decisions: [],
  others: []
})
