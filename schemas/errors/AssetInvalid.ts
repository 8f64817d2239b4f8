/** A manifest of the operand, as it is shipped, is missing or cannot be read. */
import { Schema } from "effect"

export class AssetInvalid extends Schema.TaggedError<AssetInvalid>()("AssetInvalid", {
  /** Or the directory. */
  file: Schema.String,
  detail: Schema.String
}) {
  readonly code = "AssetInvalid"
  readonly remedy = "use the operator's image as it is released, or set ASSETS_DIR to its directory assets/driver"

  override get message() {
    return `${this.file} is no manifest: ${this.detail}`
  }
}
