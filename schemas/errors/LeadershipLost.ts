/**
 * The Lease was held, and is not any more: what was done under it has been stopped.
 */
import { Schema } from "effect"

export class LeadershipLost extends Schema.TaggedError<LeadershipLost>()("LeadershipLost", {
  /** "namespace/name". */
  lease: Schema.String,
  identity: Schema.String,
  /** "expired": not renewed in time; "taken": it has another holder, or none; "deleted": it is gone. */
  why: Schema.Literals(["expired", "taken", "deleted"])
}) {
  readonly code = "LeadershipLost"

  override get message() {
    return `leader election lost: lease ${this.lease} of ${this.identity} is ${this.why}`
  }

  get remedy() {
    if (this.why === "expired") return "check that the API server answers in time; another candidate goes on meanwhile"
    return "nothing is to be done as long as another candidate goes on; nobody but them should write the lease"
  }
}
