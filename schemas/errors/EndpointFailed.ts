/** A socket of ours could not be opened. */
import { Schema } from "effect"

export class EndpointFailed extends Schema.TaggedError<EndpointFailed>()("EndpointFailed", {
  endpoint: Schema.String,
  detail: Schema.String
}) {
  readonly code = "EndpointFailed"
  readonly remedy = "check the endpoint's spelling, and that its directory exists and may be written"

  override get message() {
    return this.detail
  }
}
