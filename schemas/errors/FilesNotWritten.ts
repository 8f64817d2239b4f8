/** The payload could not be written to the volume, or its paths are not allowed. */
import { Schema } from "effect"

export class FilesNotWritten extends Schema.TaggedError<FilesNotWritten>()("FilesNotWritten", {
  targetPath: Schema.String,
  detail: Schema.String
}) {
  readonly code = "FileWriteError"

  override get message() {
    return this.detail
  }

  get remedy() {
    return this.detail.includes("ENOSPC") || this.detail.includes("no space")
      ? "raise --tmpfs-size, or mount fewer or smaller objects"
      : "correct the file names that the SecretProviderClass asks the provider for"
  }
}
