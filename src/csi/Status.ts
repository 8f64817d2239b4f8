/**
 * The one table from failures to gRPC statuses.
 *
 * The kubelet treats CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED as "maybe still
 * running" and everything else as final, so a provider's own code is passed on unchanged (Q17).
 *
 * @source reference/driver.md 2.6, 2.7, 2.9
 */
import { CsiStatus, type GrpcCode } from "../../schemas/errors/CsiStatus.ts"
import type { PublishFailed } from "../../schemas/errors/PublishFailed.ts"
import type { UnpublishFailed } from "../../schemas/errors/UnpublishFailed.ts"

type Failed = PublishFailed | UnpublishFailed

const codeOf = (failure: Failed): GrpcCode => {
  switch (failure._tag) {
    case "RequestInvalid":
      return "INVALID_ARGUMENT"
    case "TargetNotInspected":
    case "TargetNotCreated":
    case "UnpublishFailed":
      return "INTERNAL"
    case "ContentNotMounted":
      if (failure.reason._tag === "ProviderCallFailed") return failure.reason.grpcCode
      // Not final: the mount is still wanted, and may come about before the kubelet asks again.
      return failure.reason._tag === "ProviderBusy" ? "RESOURCE_EXHAUSTED" : "UNKNOWN"
    case "TargetNotMounted":
    case "SecretProviderClassUnavailable":
    case "SecretProviderClassIncomplete":
    case "PodStatusNotWritten":
      return "UNKNOWN"
  }
}

/** @shape (failure) -> the status that the caller sees: code, cause, and what to do about it */
export const statusOf = (failure: Failed): CsiStatus =>
  new CsiStatus({
    grpcCode: codeOf(failure),
    // The words of a refused request are compared by other programs; they say themselves what to do.
    details: failure._tag === "RequestInvalid" ? failure.message : `${failure.message} (remedy: ${failure.remedy})`
  })
