/** The content of a file is not what it is asked for as: another format, damaged, encrypted, or without the part wanted. */
import { Schema } from "effect"

export class ContentInvalid extends Schema.TaggedError<ContentInvalid>()("ContentInvalid", {
  /** What is wrong, in words that were there before the content was read. */
  detail: Schema.String,
  remedy: Schema.String
}) {
  readonly code = "FailedToCreateSecret"

  override get message() {
    return this.detail
  }
}
