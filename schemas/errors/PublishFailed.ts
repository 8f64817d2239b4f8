/**
 * Why a volume was not published, one class per stage. `code` is the `error_type` label of the metrics; the message
 * is what the kubelet puts into the pod's event, in the words that other programs look for.
 *
 * @source reference/driver.md 2.7, 3.6
 */
import { Schema } from "effect"
import { FilesNotWritten } from "./FilesNotWritten.ts"
import { KubernetesApiFailed } from "./KubernetesApiFailed.ts"
import { MountFailed } from "./MountFailed.ts"
import {
  ProviderAnswerInvalid,
  ProviderBusy,
  ProviderCallFailed,
  ProviderNameInvalid,
  ProviderNotFound,
  ProviderRefused
} from "./ProviderFailed.ts"

/** The request itself cannot be served, whatever the state of the world. */
export class RequestInvalid extends Schema.TaggedError<RequestInvalid>()("RequestInvalid", {
  detail: Schema.String,
  remedy: Schema.String
}) {
  readonly code = "FailedToMount"

  override get message() {
    return this.detail
  }
}

/** Whether something is mounted at the target path could not be found out. */
export class TargetNotInspected extends Schema.TaggedError<TargetNotInspected>()("TargetNotInspected", {
  targetPath: Schema.String,
  detail: Schema.String
}) {
  readonly code = "FailedToEnsureMountPoint"
  readonly remedy = "check the file system of the kubelet's pods directory on this node"

  override get message() {
    return `failed to check if target path ${this.targetPath} is mount point, err: ${this.detail}`
  }
}

export class TargetNotCreated extends Schema.TaggedError<TargetNotCreated>()("TargetNotCreated", {
  targetPath: Schema.String,
  detail: Schema.String
}) {
  readonly code = "FailedToMount"
  readonly remedy = "check that the driver container mounts the kubelet's pods directory and may write to it"

  override get message() {
    return `failed to create target path ${this.targetPath}, err: ${this.detail}`
  }
}

/** tmpfs could not be mounted on the target path, or a leftover there could not be unmounted. */
export class TargetNotMounted extends Schema.TaggedError<TargetNotMounted>()("TargetNotMounted", {
  reason: MountFailed
}) {
  readonly code = "FailedToMount"

  override get message() {
    return `mount failed: ${this.reason.message}`
  }

  get remedy() {
    return this.reason.remedy
  }
}

export class SecretProviderClassUnavailable extends Schema.TaggedError<SecretProviderClassUnavailable>()(
  "SecretProviderClassUnavailable",
  { namespace: Schema.String, name: Schema.String, reason: KubernetesApiFailed }
) {
  readonly code = "SecretProviderClassNotFound"

  override get message() {
    return `failed to get secretproviderclass ${this.namespace}/${this.name}, error: ${this.reason.message}`
  }

  get remedy() {
    return this.reason.isNotFound
      ? "create the SecretProviderClass in the pod's namespace, or correct its name in the pod's volume"
      : this.reason.remedy
  }
}

/** The volume names no class, or the class lacks what a provider needs. */
export class SecretProviderClassIncomplete extends Schema.TaggedError<SecretProviderClassIncomplete>()(
  "SecretProviderClassIncomplete",
  { detail: Schema.String, remedy: Schema.String }
) {
  readonly code = "FailedToMount"

  override get message() {
    return this.detail
  }
}

/** No payload came from the provider, or it could not be written. */
export class ContentNotMounted extends Schema.TaggedError<ContentNotMounted>()("ContentNotMounted", {
  pod: Schema.String,
  reason: Schema.Union([
    ProviderNameInvalid,
    ProviderNotFound,
    ProviderCallFailed,
    ProviderBusy,
    ProviderRefused,
    ProviderAnswerInvalid,
    FilesNotWritten
  ])
}) {
  get code() {
    return this.reason.code
  }

  override get message() {
    const { reason } = this
    const cause =
      reason._tag === "ProviderNotFound" || reason._tag === "ProviderNameInvalid"
        ? `error connecting to provider ${JSON.stringify(reason.provider)}: ${reason.message}`
        : reason.message
    return `failed to mount secrets store objects for pod ${this.pod}, err: ${cause}`
  }

  get remedy() {
    return this.reason.remedy
  }
}

export class PodStatusNotWritten extends Schema.TaggedError<PodStatusNotWritten>()("PodStatusNotWritten", {
  pod: Schema.String,
  reason: KubernetesApiFailed
}) {
  readonly code = "FailedToWritePodStatus"

  override get message() {
    return `failed to create secret provider class pod status for pod ${this.pod}, err: ${this.reason.message}`
  }

  get remedy() {
    return this.reason.remedy
  }
}

export type PublishFailed =
  | RequestInvalid
  | TargetNotInspected
  | TargetNotCreated
  | TargetNotMounted
  | SecretProviderClassUnavailable
  | SecretProviderClassIncomplete
  | ContentNotMounted
  | PodStatusNotWritten
