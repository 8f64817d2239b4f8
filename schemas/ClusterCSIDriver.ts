/**
 * ClusterCSIDriver of operator.openshift.io/v1, as far as the operator of this driver reads or writes it. Everything
 * else of the object is kept.
 *
 * These are the shapes of a live object: whatever an API server may have stored decodes, and what an unknown word means
 * is decided where it is used. What an API server accepts is said by `ClusterCSIDriverSpec` and its rules.
 *
 * @source reference/operator.md 2
 */
import { Schema } from "effect"
import { ObjectMeta, open } from "./Meta.ts"

const text = Schema.optionalKey(Schema.String)

/** One of `spec.driverConfig.secretsStore.tokenRequests.managed.audiences`, and one of a CSIDriver's tokenRequests. */
export const TokenRequest = open({ audience: text, expirationSeconds: Schema.optionalKey(Schema.Int) })
export type TokenRequest = typeof TokenRequest.Type

const SecretRotation = open({
  type: text,
  custom: Schema.optionalKey(open({ minimumRefreshAge: Schema.optionalKey(Schema.Int) }))
})

const TokenRequests = open({
  type: text,
  managed: Schema.optionalKey(open({ audiences: Schema.optionalKey(Schema.Array(TokenRequest)) }))
})

const SecretsStoreConfig = open({
  secretRotation: Schema.optionalKey(SecretRotation),
  tokenRequests: Schema.optionalKey(TokenRequests)
})

/** `lastTransitionTime` is RFC 3339 in whole seconds. */
export const Condition = open({
  type: Schema.String,
  status: Schema.String,
  lastTransitionTime: text,
  reason: text,
  message: text
})
export type Condition = typeof Condition.Type

export const Generation = open({
  group: Schema.String,
  resource: Schema.String,
  namespace: Schema.String,
  name: Schema.String,
  lastGeneration: Schema.optionalKey(Schema.Int)
})
export type Generation = typeof Generation.Type

export const ClusterCSIDriver = open({
  metadata: ObjectMeta,
  spec: Schema.optionalKey(
    open({
      managementState: text,
      logLevel: text,
      operatorLogLevel: text,
      driverConfig: Schema.optionalKey(
        open({ driverType: text, secretsStore: Schema.optionalKey(SecretsStoreConfig) })
      ),
      unsupportedConfigOverrides: Schema.optionalKey(Schema.Unknown)
    })
  ),
  status: Schema.optionalKey(
    open({
      conditions: Schema.optionalKey(Schema.Array(Condition)),
      generations: Schema.optionalKey(Schema.Array(Generation)),
      observedGeneration: Schema.optionalKey(Schema.Int),
      readyReplicas: Schema.optionalKey(Schema.Int),
      version: text
    })
  )
})
export type ClusterCSIDriver = typeof ClusterCSIDriver.Type
