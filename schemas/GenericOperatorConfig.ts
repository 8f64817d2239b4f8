/**
 * GenericOperatorConfig of operator.openshift.io/v1alpha1: the file that `--config` names. apiVersion and kind are not
 * looked at, and fields that are not listed are ignored, as they always were.
 *
 * @source reference/operator.md 1.4
 */
import { Schema } from "effect"

const text = Schema.optionalKey(Schema.String)
const disabled = Schema.optionalKey(Schema.Struct({ disabled: Schema.optionalKey(Schema.Boolean) }))

export const GenericOperatorConfig = Schema.Struct({
  servingInfo: Schema.optionalKey(
    Schema.Struct({
      bindAddress: text,
      certFile: text,
      keyFile: text,
      minTLSVersion: text,
      cipherSuites: Schema.optionalKey(Schema.Array(Schema.String)),
      // Accepted without effect.
      bindNetwork: text,
      clientCA: text,
      namedCertificates: Schema.optionalKey(Schema.Array(Schema.Unknown)),
      maxRequestsInFlight: Schema.optionalKey(Schema.Int),
      requestTimeoutSeconds: Schema.optionalKey(Schema.Int)
    })
  ),
  leaderElection: Schema.optionalKey(Schema.Struct({ namespace: text, name: text })),
  authentication: disabled,
  authorization: disabled
})
export type GenericOperatorConfig = typeof GenericOperatorConfig.Type
