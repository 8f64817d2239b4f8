/** A Kubernetes Secret could not be made of mounted files, or is not ours to write. */
import { Schema } from "effect"

export class SyncFailed extends Schema.TaggedError<SyncFailed>()("SyncFailed", {
  detail: Schema.String,
  remedy: Schema.String,
  /** "namespace/name" of the pod whose volume it is. */
  pod: Schema.String
}) {
  readonly code = "FailedToCreateSecret"

  override get message() {
    return this.detail
  }
}
