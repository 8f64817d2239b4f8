/**
 * What the driver and a provider say to each other, without the wire. Everything that is or may hold a secret is
 * `Redacted`.
 *
 * @source reference/wire.md (b)
 */
import { Schema } from "effect"

/** One object of the provider and its version; ids are unique, versions are opaque and may be empty. */
export const ObjectVersion = Schema.Struct({ id: Schema.String, version: Schema.String })
export type ObjectVersion = typeof ObjectVersion.Type

/** One file of the volume: `mode` as the provider sent it (only 0o777 of it counts). */
export const PayloadFile = Schema.Struct({
  path: Schema.String,
  mode: Schema.Int,
  contents: Schema.Redacted(Schema.Uint8Array)
})
export type PayloadFile = typeof PayloadFile.Type

export const MountRequest = Schema.Struct({
  /** A JSON object from string to string, service account tokens included. */
  attributes: Schema.Redacted(Schema.String),
  /** A JSON object from string to string, or `null`. */
  secrets: Schema.Redacted(Schema.String),
  targetPath: Schema.String,
  /** A bare decimal number: some providers read nothing else. */
  permission: Schema.String,
  currentObjectVersions: Schema.Array(ObjectVersion)
})
export type MountRequest = typeof MountRequest.Type

export const MountResponse = Schema.Struct({
  objectVersions: Schema.Array(ObjectVersion),
  /** The provider's own code; empty means no error. */
  errorCode: Schema.String,
  /** Empty: the provider wrote the files itself. */
  files: Schema.Array(PayloadFile),
  /** Size of the encoded reply. */
  sizeBytes: Schema.Int
})
export type MountResponse = typeof MountResponse.Type

export const VersionResponse = Schema.Struct({
  version: Schema.String,
  runtimeName: Schema.String,
  runtimeVersion: Schema.String
})
export type VersionResponse = typeof VersionResponse.Type

/** The provider API version that the driver speaks. */
export const PROVIDER_API_VERSION = "v1alpha1"
