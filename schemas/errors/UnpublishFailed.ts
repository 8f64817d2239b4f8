/** What was left behind by an unpublish, all of it. */
import { Schema } from "effect"

export class UnpublishFailed extends Schema.TaggedError<UnpublishFailed>()("UnpublishFailed", {
  targetPath: Schema.String,
  /** One text per thing that could not be removed. */
  left: Schema.Array(Schema.String)
}) {
  readonly code = "FailedToUnmount"
  readonly remedy = "see which process on the node still uses the path; the kubelet will try again"

  override get message() {
    return `failed to clean and unmount target path ${this.targetPath}, err: ${this.left.join("; ")}`
  }
}
