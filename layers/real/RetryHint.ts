/**
 * When a server that failed a call asks to be called again, read from the trailers of that call: gRPC's own
 * `grpc-retry-pushback-ms`, and google.rpc.RetryInfo among the details of the status. Trailers come from somebody else's
 * program; what makes no sense in them is no hint, and never a failure.
 *
 * @source gRFC A6, "Pushback"; google/rpc/error_details.proto
 */
import type { Metadata } from "@grpc/grpc-js"
import { Option } from "effect"
import * as Wire from "../../proto/gen/status.ts"

const MILLIS_MAX = 24 * 60 * 60 * 1_000
const NANOS_MAX = 999_999_999
const RETRY_INFO = "google.rpc.RetryInfo"

type Value = ReturnType<Metadata["get"]>[number]

/** A negative number means "not again" there, which says nothing of the time. */
const ofPushback = (value: Value): ReadonlyArray<number> =>
  typeof value === "string" && /^\d+$/u.test(value) ? [Number(value)] : []

const decodeStatus = Option.liftThrowable((bytes: Uint8Array) => Wire.Status.decode(bytes))
const decodeRetryInfo = Option.liftThrowable((bytes: Uint8Array) => Wire.RetryInfo.decode(bytes))

const ofRetryInfo = (bytes: Uint8Array): ReadonlyArray<number> => {
  const delay = Option.getOrUndefined(decodeRetryInfo(bytes))?.retryDelay
  if (delay === undefined || delay.seconds < 0n || delay.nanos < 0 || delay.nanos > NANOS_MAX) return []
  return [Number(delay.seconds) * 1_000 + Math.ceil(delay.nanos / 1e6)]
}

const ofDetails = (value: Value): ReadonlyArray<number> => {
  const status = typeof value === "string" ? undefined : Option.getOrUndefined(decodeStatus(value))
  return (status?.details ?? [])
    .filter(({ typeUrl }) => typeUrl.slice(typeUrl.lastIndexOf("/") + 1) === RETRY_INFO)
    .flatMap((detail) => ofRetryInfo(detail.value))
}

/**
 * How long the server asks to be left alone; the longest, if it says so more than once.
 *
 * @shape  (trailers of a failed call) -> milliseconds, or undefined when there is no hint that makes sense
 * @units  milliseconds, rounded up, from 0 to 24 hours; what is longer counts as 24 hours
 * @errors none, whatever the bytes
 */
export const retryAfterMillisOf = (trailers: Pick<Metadata, "get">): number | undefined => {
  const hints = [
    ...trailers.get("grpc-retry-pushback-ms").flatMap(ofPushback),
    ...trailers.get("grpc-status-details-bin").flatMap(ofDetails)
  ]
  return hints.length === 0 ? undefined : Math.min(Math.max(...hints), MILLIS_MAX)
}
