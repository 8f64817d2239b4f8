/** The cluster's TLS profile cannot be used as it stands. */
import { Schema } from "effect"

export class TlsProfileInvalid extends Schema.TaggedError<TlsProfileInvalid>()("TlsProfileInvalid", {
  detail: Schema.String
}) {
  readonly code = "TLSProfileInvalid"
  readonly remedy = "correct spec.tlsSecurityProfile of apiservers.config.openshift.io/cluster"

  override get message() {
    return this.detail
  }
}
