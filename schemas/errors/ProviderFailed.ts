/** Everything that can go wrong between the driver and a provider. */
import { Schema } from "effect"
import { GrpcCode } from "./CsiStatus.ts"

/** Go's spelling of a status code, which is what error texts carry. */
const GO_CODES: Readonly<Record<GrpcCode, string>> = {
  OK: "OK",
  CANCELLED: "Canceled",
  UNKNOWN: "Unknown",
  INVALID_ARGUMENT: "InvalidArgument",
  DEADLINE_EXCEEDED: "DeadlineExceeded",
  NOT_FOUND: "NotFound",
  ALREADY_EXISTS: "AlreadyExists",
  PERMISSION_DENIED: "PermissionDenied",
  RESOURCE_EXHAUSTED: "ResourceExhausted",
  FAILED_PRECONDITION: "FailedPrecondition",
  ABORTED: "Aborted",
  OUT_OF_RANGE: "OutOfRange",
  UNIMPLEMENTED: "Unimplemented",
  INTERNAL: "Internal",
  UNAVAILABLE: "Unavailable",
  DATA_LOSS: "DataLoss",
  UNAUTHENTICATED: "Unauthenticated"
}

/** Providers pass on what their store said in words of its own; few of them use the gRPC code that is meant for it. */
const THROTTLING =
  /(?:code|status|response|http)\D{0,12}429\b|too[ _-]?many[ _-]?requests|throttl|rate[ _-]?(?:limit|exceeded)|quota exceeded|resource ?exhausted/iu

export class ProviderNameInvalid extends Schema.TaggedError<ProviderNameInvalid>()("ProviderNameInvalid", {
  provider: Schema.String
}) {
  readonly code = "FailedToLookupProviderGRPCClient"
  readonly remedy = "spec.provider takes up to 30 letters, digits, '_' and '-'"

  override get message() {
    return `invalid provider: provider ${JSON.stringify(this.provider)}`
  }
}

export class ProviderNotFound extends Schema.TaggedError<ProviderNotFound>()("ProviderNotFound", {
  provider: Schema.String,
  /** Every directory searched, in order, with the sockets seen there, or why it could not be read. */
  searched: Schema.Array(Schema.Struct({ directory: Schema.String, found: Schema.String })),
  waitedMillis: Schema.Finite
}) {
  readonly code = "FailedToLookupProviderGRPCClient"

  override get message() {
    const places = this.searched.map(({ directory, found }) => `${directory} (${found})`).join(", ")
    const waited = this.waitedMillis > 0 ? ` for ${Math.round(this.waitedMillis)} ms` : ""
    return `provider not found: provider ${JSON.stringify(this.provider)}, searched ${places}${waited}`
  }

  get remedy() {
    return `install the provider on this node, so that it listens on ${this.provider}.sock in one of these directories, or correct spec.provider`
  }
}

export class ProviderCallFailed extends Schema.TaggedError<ProviderCallFailed>()("ProviderCallFailed", {
  provider: Schema.String,
  grpcCode: GrpcCode,
  /** The provider's own words. */
  details: Schema.String,
  /** True when nothing of an answer was received, so that the provider may be asked again. */
  unanswered: Schema.Boolean,
  /** How long the provider asks to be left alone, from 0 to 24 hours; absent: it does not say. */
  retryAfterMillis: Schema.optional(Schema.Finite)
}) {
  readonly code = "GRPCProviderError"

  override get message() {
    return `rpc error: code = ${GO_CODES[this.grpcCode]} desc = ${this.details}`
  }

  /** The reply was larger than the driver takes; other exhausted resources are the provider's. */
  get isTooLarge() {
    return (
      this.grpcCode === "RESOURCE_EXHAUSTED" &&
      this.details.includes("received message larger than max") &&
      !this.details.includes("received message larger than max length allowed on current machine")
    )
  }

  /** The provider, or the store behind it, says that it is asked too much. */
  get isThrottling() {
    if (this.details.includes("received message larger than max")) return false
    return (
      this.grpcCode === "RESOURCE_EXHAUSTED" || this.retryAfterMillis !== undefined || THROTTLING.test(this.details)
    )
  }

  get remedy() {
    if (this.isTooLarge) return "set --max-call-recv-msg-size to take larger replies, or ask for fewer objects"
    if (this.grpcCode === "UNAVAILABLE" || this.grpcCode === "DEADLINE_EXCEEDED") {
      return `check that the pod of provider ${this.provider} on this node is running`
    }
    if (this.isThrottling)
      return "ask for less: longer rotation intervals, fewer objects, or a larger quota of the store"
    return `see the log of provider ${this.provider} on this node`
  }
}

/** The provider answered, and its answer is a refusal. */
export class ProviderRefused extends Schema.TaggedError<ProviderRefused>()("ProviderRefused", {
  provider: Schema.String,
  errorCode: Schema.String
}) {
  get code() {
    return this.errorCode
  }

  /** The provider, or the store behind it, says that it is asked too much. */
  get isThrottling() {
    return THROTTLING.test(this.errorCode)
  }

  override get message() {
    return `mount request failed with provider error code ${this.errorCode}`
  }

  get remedy() {
    return `see the log of provider ${this.provider} on this node`
  }
}

/** The provider was not asked: others were first, or it has said that it is asked too much. */
export class ProviderBusy extends Schema.TaggedError<ProviderBusy>()("ProviderBusy", {
  provider: Schema.String,
  waitedMillis: Schema.Finite,
  /** Its last answer of that kind, while it throttles. */
  throttledBy: Schema.optional(Schema.String)
}) {
  readonly code = "ProviderBusy"

  override get message() {
    const why =
      this.throttledBy === undefined
        ? "other pods are served first"
        : `it is asked too much, and said: ${this.throttledBy}`
    return `provider ${JSON.stringify(this.provider)} was not asked within ${Math.round(this.waitedMillis)} ms: ${why}`
  }

  get remedy() {
    return this.throttledBy === undefined
      ? `nothing, the mount is tried again; see the log of provider ${this.provider} on this node if it does not get on`
      : "nothing, the mount is tried again; ask for less with longer rotation intervals or fewer objects, or get a larger quota of the store"
  }
}

/** The provider answered, and its answer breaks the contract. */
export class ProviderAnswerInvalid extends Schema.TaggedError<ProviderAnswerInvalid>()("ProviderAnswerInvalid", {
  provider: Schema.String,
  detail: Schema.String
}) {
  readonly code = "GRPCProviderError"

  override get message() {
    return this.detail
  }

  get remedy() {
    return `provider ${this.provider} has to be repaired or updated`
  }
}

export type ProviderFailed =
  | ProviderNameInvalid
  | ProviderNotFound
  | ProviderCallFailed
  | ProviderBusy
  | ProviderRefused
  | ProviderAnswerInvalid
