/**
 * Why no Kubernetes Secret is made of the files of a volume. Messages have names, sizes and formats, never content; their
 * texts are upstream's where upstream has one.
 *
 * @source reference/driver.md 6.5, 6.6
 */
import { Schema } from "effect"

/** An annotation of the class asks for a mapping in words that are not understood. */
export class SecretMappingInvalid extends Schema.TaggedError<SecretMappingInvalid>()("SecretMappingInvalid", {
  annotation: Schema.String,
  detail: Schema.String,
  remedy: Schema.String
}) {
  readonly code = "FailedToCreateSecret"

  override get message() {
    return `annotation ${this.annotation}: ${this.detail}`
  }
}

/** The entry of `secretObjects` cannot become a Secret, whatever is mounted. */
export class SecretObjectInvalid extends Schema.TaggedError<SecretObjectInvalid>()("SecretObjectInvalid", {
  /** Trimmed; empty when the entry has none. */
  secretName: Schema.String,
  detail: Schema.String,
  advice: Schema.String
}) {
  readonly code = "FailedToCreateSecret"

  override get message() {
    return this.detail
  }

  get remedy() {
    return `${this.secretName === "" ? "secretObjects" : `Secret ${this.secretName}`}: ${this.advice}`
  }
}

/** One key of the Secret's data has no value. */
export class SecretKeyNotBuilt extends Schema.TaggedError<SecretKeyNotBuilt>()("SecretKeyNotBuilt", {
  secretName: Schema.String,
  /** Trimmed; empty when it is the key itself that is missing. */
  key: Schema.String,
  /** Trimmed, and the file that it names; empty when it is the file that is missing. */
  objectName: Schema.String,
  detail: Schema.String,
  advice: Schema.String
}) {
  readonly code = "FailedToCreateSecret"

  override get message() {
    return this.detail
  }

  get remedy() {
    const key = this.key === "" ? "" : `key ${this.key} of `
    const file = this.objectName === "" ? "" : ` (from ${this.objectName})`
    return `${key}Secret ${this.secretName}${file}: ${this.advice}`
  }
}

/** The API server would refuse the Secret for the size of its data. */
export class SecretTooLarge extends Schema.TaggedError<SecretTooLarge>()("SecretTooLarge", {
  secretName: Schema.String,
  sizeBytes: Schema.Int,
  limitBytes: Schema.Int,
  /** The largest values, beginning with the largest. */
  largest: Schema.Array(Schema.Struct({ key: Schema.String, objectName: Schema.String, sizeBytes: Schema.Int }))
}) {
  readonly code = "FailedToCreateSecret"

  override get message() {
    const largest = this.largest.map(
      ({ key, objectName, sizeBytes }) => `${key} from file ${objectName} (${sizeBytes} bytes)`
    )
    return `data of ${this.sizeBytes} bytes is more than the ${this.limitBytes} bytes that a Secret can hold; the largest: ${largest.join(", ")}`
  }

  get remedy() {
    return `Secret ${this.secretName}: spread its keys over several secretObjects, or leave the largest files to the volume`
  }
}

export type SecretNotSynced = SecretMappingInvalid | SecretObjectInvalid | SecretKeyNotBuilt | SecretTooLarge
