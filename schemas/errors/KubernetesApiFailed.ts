/**
 * A `Status` that the API server answered, or a failure to reach it (status 0).
 */
import { Schema } from "effect"

export class KubernetesApiFailed extends Schema.TaggedError<KubernetesApiFailed>()("KubernetesApiFailed", {
  method: Schema.String,
  /** The request's path, without its query. */
  path: Schema.String,
  /** HTTP status; 0 when no answer came. */
  status: Schema.Int,
  /** The API server's reason ("NotFound", "AlreadyExists", "Conflict", "Forbidden", "Expired", ...), or one of ours
   * when no answer came: "Network", "Timeout", "Idle", "Closed", "Invalid", "NotLeader". */
  reason: Schema.String,
  /** The API server's own words. */
  detail: Schema.String,
  retryAfterSeconds: Schema.optionalKey(Schema.Finite),
  /** Of a conflict between those who apply: each field that is somebody else's, and whose. */
  causes: Schema.optionalKey(
    Schema.Array(Schema.Struct({ reason: Schema.String, message: Schema.String, field: Schema.String }))
  )
}) {
  readonly code = "KubernetesApiFailed"

  override get message() {
    return this.detail
  }

  get remedy() {
    if (this.isNotLeader) return "nothing is to be done: whoever holds the lease now writes it"
    if (this.status === 403 && this.detail.includes("RBAC permissions not currently held")) {
      return "nobody may grant what he does not have: give the ServiceAccount in the message the rules listed there, or the verb bind on the role, as the manifests of this version do"
    }
    if (this.status === 403) return "grant this program's ServiceAccount the verb named in the message"
    if (this.status === 0) return "check that the API server is reachable from here"
    return "see the API server's message"
  }

  get isNotFound() {
    return this.status === 404
  }

  get isAlreadyExists() {
    return this.status === 409 && this.reason === "AlreadyExists"
  }

  get isConflict() {
    return this.status === 409 && this.reason === "Conflict"
  }

  /** The version asked for is no longer kept: list again. */
  get isGone() {
    return this.status === 410 || this.reason === "Expired" || this.reason === "Gone"
  }

  /** Was not sent: another process may be at it by now. */
  get isNotLeader() {
    return this.status === 0 && this.reason === "NotLeader"
  }

  /** Trying again may help. */
  get isTransient() {
    if (this.isNotLeader) return false
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500
  }
}
