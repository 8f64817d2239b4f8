/**
 * How long the service account tokens of a volume are good for. Nothing but the time leaves this file.
 *
 * @source reference/driver.md 2.6: `{"<audience>":{"token":"...","expirationTimestamp":"<RFC 3339>"},...}`
 */
import { DateTime, Option, Redacted, Result, Schema } from "effect"
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import { tokensOf } from "./ProviderRequest.ts"

const decode = Schema.decodeUnknownResult(
  Schema.fromJsonString(
    Schema.Record(Schema.String, Schema.Struct({ expirationTimestamp: Schema.optionalKey(Schema.String) }))
  )
)

/**
 * When the first of a request's tokens expires. A provider does not say which of them it uses, and the kubelet replaces
 * all of them together.
 *
 * @shape  (request) -> Infinity without tokens, or when they do not say
 * @units  milliseconds since the epoch
 * @errors none
 */
export const expiryMillis = (request: Pick<NodePublishVolumeRequest, "secrets" | "serviceAccountTokens">): number => {
  const tokens = tokensOf(request)
  if (tokens === undefined) return Number.POSITIVE_INFINITY
  const decoded = decode(Redacted.value(tokens))
  if (Result.isFailure(decoded)) return Number.POSITIVE_INFINITY
  const times = Object.values(decoded.success).flatMap(({ expirationTimestamp }) =>
    Option.match(DateTime.make(expirationTimestamp ?? ""), {
      onNone: () => [],
      onSome: (time) => [DateTime.toEpochMillis(time)]
    })
  )
  return Math.min(Number.POSITIVE_INFINITY, ...times)
}
