/**
 * The CSI messages that the driver serves, without the wire. Secrets and service account tokens are `Redacted`.
 *
 * A message that proto3 leaves out is `undefined` here; scalars and maps have proto3's defaults.
 *
 * @source reference/wire.md (a), CSI 1.12
 */
import { Schema } from "effect"
import { StringMap } from "./Meta.ts"

/** The key under which the kubelet sends service account tokens, in the volume context or among the secrets. */
export const TOKENS_KEY = "csi.storage.k8s.io/serviceAccount.tokens"

const SecretMap = Schema.Record(Schema.String, Schema.Redacted(Schema.String))

export const VolumeCapability = Schema.Struct({
  /** "mount" also when the kubelet leaves the access type out. */
  accessType: Schema.Literals(["mount", "block"]),
  fsType: Schema.String,
  mountFlags: Schema.Array(Schema.String),
  /** The pod's fsGroup in decimal, only sent to drivers that advertise VOLUME_MOUNT_GROUP; else empty. */
  volumeMountGroup: Schema.String,
  accessMode: Schema.Int
})
export type VolumeCapability = typeof VolumeCapability.Type

export const NodePublishVolumeRequest = Schema.Struct({
  volumeId: Schema.String,
  publishContext: StringMap,
  stagingTargetPath: Schema.String,
  targetPath: Schema.String,
  volumeCapability: Schema.UndefinedOr(VolumeCapability),
  readonly: Schema.Boolean,
  secrets: SecretMap,
  /** Without the tokens, which are `serviceAccountTokens`. */
  volumeContext: StringMap,
  /** The volume context's tokens, when it has that key. */
  serviceAccountTokens: Schema.UndefinedOr(Schema.Redacted(Schema.String))
})
export type NodePublishVolumeRequest = typeof NodePublishVolumeRequest.Type

export const NodeUnpublishVolumeRequest = Schema.Struct({ volumeId: Schema.String, targetPath: Schema.String })
export type NodeUnpublishVolumeRequest = typeof NodeUnpublishVolumeRequest.Type

export const NodeStageVolumeRequest = Schema.Struct({
  volumeId: Schema.String,
  publishContext: StringMap,
  stagingTargetPath: Schema.String,
  volumeCapability: Schema.UndefinedOr(VolumeCapability),
  secrets: SecretMap,
  volumeContext: StringMap
})
export type NodeStageVolumeRequest = typeof NodeStageVolumeRequest.Type

export const NodeUnstageVolumeRequest = Schema.Struct({ volumeId: Schema.String, stagingTargetPath: Schema.String })
export type NodeUnstageVolumeRequest = typeof NodeUnstageVolumeRequest.Type

/** Any message whose fields do not matter to the answer, kept for the request log. */
export const OtherRequest = Schema.Record(Schema.String, Schema.Unknown)
export type OtherRequest = typeof OtherRequest.Type

export interface GetPluginInfoResponse {
  readonly name: string
  readonly vendorVersion: string
}
export interface GetPluginCapabilitiesResponse {
  readonly services: ReadonlyArray<"CONTROLLER_SERVICE">
}
export interface ProbeResponse {
  readonly ready: boolean
}
export interface NodeGetInfoResponse {
  readonly nodeId: string
}
export interface NodeGetCapabilitiesResponse {
  readonly rpcs: ReadonlyArray<"STAGE_UNSTAGE_VOLUME" | "VOLUME_MOUNT_GROUP">
}
export interface ControllerGetCapabilitiesResponse {
  readonly rpcs: ReadonlyArray<"UNKNOWN">
}

/** Controller RPCs that exist and are answered UNIMPLEMENTED. */
export const CONTROLLER_STUBS = [
  "CreateVolume",
  "DeleteVolume",
  "ControllerPublishVolume",
  "ControllerUnpublishVolume",
  "ValidateVolumeCapabilities",
  "ListVolumes",
  "GetCapacity",
  "CreateSnapshot",
  "DeleteSnapshot",
  "ListSnapshots",
  "ControllerExpandVolume",
  "ControllerGetVolume"
] as const
export type ControllerStub = (typeof CONTROLLER_STUBS)[number]
