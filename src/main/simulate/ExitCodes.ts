/**
 * How a simulation can end, as exit codes that scripts can rely on.
 */
import type { Violation } from "../../../layers/fake/simulation/Referee.ts"

export type Outcome = "held" | "safety" | "usage" | "liveness" | "stuck" | "digest" | "failed"

/** In this order: what comes first is worse. "usage" is of the command line alone. */
const OUTCOMES: ReadonlyArray<{ readonly outcome: Outcome; readonly code: number; readonly means: string }> = [
  { outcome: "failed", code: 6, means: "the simulation itself failed, or a run never ended" },
  { outcome: "digest", code: 5, means: "the same seed gave two digests" },
  { outcome: "safety", code: 1, means: "something happened that must never happen (S1, S2, ...)" },
  { outcome: "stuck", code: 4, means: "the run could not end: everybody waits, or somebody is busy for ever" },
  { outcome: "liveness", code: 3, means: "something did not happen in time, or did not last (L1, L2, ...)" },
  { outcome: "usage", code: 2, means: "the command line makes no sense" },
  { outcome: "held", code: 0, means: "every promise held" }
]

/** @shape (the first broken promise) -> how the run ended */
export const outcomeOf = (violation: Pick<Violation, "id" | "invariant"> | undefined): Outcome => {
  if (violation === undefined) return "held"
  if (violation.invariant === "runEnds") return "stuck"
  return violation.id.startsWith("L") ? "liveness" : "safety"
}

export const exitCodeOf = (outcome: Outcome): number => OUTCOMES.find((it) => it.outcome === outcome)?.code ?? 6

/** @shape (outcomes) -> the worst of them; "held" of none */
export const worstOf = (outcomes: Iterable<Outcome>): Outcome => {
  const all = new Set(outcomes)
  return OUTCOMES.find(({ outcome }) => all.has(outcome))?.outcome ?? "held"
}

/** @shape () -> one line per code, ascending */
export const exitCodeLines = (): ReadonlyArray<string> =>
  [...OUTCOMES].sort((a, b) => a.code - b.code).map(({ code, means }) => `  ${code}  ${means}`)
