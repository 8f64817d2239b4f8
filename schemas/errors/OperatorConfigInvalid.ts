/** The operator cannot tell from its flags, config file and environment what it is to do. */
import { Schema } from "effect"

export class OperatorConfigInvalid extends Schema.TaggedError<OperatorConfigInvalid>()("OperatorConfigInvalid", {
  /** The file, variable or flag, and the field within it. */
  source: Schema.String,
  detail: Schema.String,
  remedy: Schema.String
}) {
  readonly code = "OperatorConfigInvalid"

  override get message() {
    return `${this.source}: ${this.detail}`
  }
}
