/**
 * Keeps the first broken promise of a run, and ends the run with it.
 */
import { Deferred, Effect } from "effect"
import { type History, RUN_LANE } from "./History.ts"
import type { Invariant } from "./Invariants.ts"

export interface Violation {
  /** In the list of invariants, such as "S1". */
  readonly id: string
  readonly invariant: string
  /** Since the run began. */
  readonly virtualMillis: number
  readonly seen: string
}

export class Referee {
  violation: Violation | undefined
  private readonly whistle = Deferred.makeUnsafe<void>()
  private readonly history: History
  private readonly elapsedMillis: () => number

  constructor(history: History, elapsedMillis: () => number) {
    this.history = history
    this.elapsedMillis = elapsedMillis
  }

  /** Waits for the first violation. */
  get violated(): Effect.Effect<void> {
    return Deferred.await(this.whistle)
  }

  /** @shape (invariant, observed) -> whether it holds */
  check<Observed>({ broken, id, name }: Invariant<Observed>, observed: Observed): boolean {
    this.history.count("checks")
    this.history.count(`check ${id} ${name}`)
    const seen = broken(observed)
    if (seen === undefined) return true
    if (this.violation === undefined) {
      this.violation = { id, invariant: name, virtualMillis: this.elapsedMillis(), seen }
      this.history.note(`VIOLATION ${id} ${name}: ${seen}`, RUN_LANE, "violation")
      Deferred.doneUnsafe(this.whistle, Effect.void)
    }
    return false
  }
}
