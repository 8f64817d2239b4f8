/**
 * A gRPC status, as the CSI side answers it. Only `src/csi/Status.ts` makes these out of failures.
 */
import { Schema } from "effect"

/** gRPC status codes by name, in the order of their numbers. */
export const GRPC_CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED"
] as const

export const GrpcCode = Schema.Literals(GRPC_CODES)
export type GrpcCode = typeof GrpcCode.Type

export class CsiStatus extends Schema.TaggedError<CsiStatus>()("CsiStatus", {
  grpcCode: GrpcCode,
  details: Schema.String,
  /** Asks the caller to wait this long before it calls again; a whole number, not negative. */
  retryAfterMillis: Schema.optional(Schema.Finite)
}) {
  override get message() {
    return this.details
  }
}
