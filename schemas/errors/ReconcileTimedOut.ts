/**
 * A reconcile that did not end in its time, and was interrupted.
 */
import { Schema } from "effect"

export class ReconcileTimedOut extends Schema.TaggedError<ReconcileTimedOut>()("ReconcileTimedOut", {
  limitMillis: Schema.Finite
}) {
  readonly code = "ReconcileTimedOut"
  readonly remedy = "see which of the calls that it makes does not answer; it is tried again"
  override get message() {
    return `not reconciled within ${this.limitMillis} ms`
  }
}
