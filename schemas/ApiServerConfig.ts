/**
 * APIServer, Proxy and Infrastructure of config.openshift.io/v1: the fields that the operator reads, of the one object
 * named "cluster" that each has. They are never written.
 *
 * Words are plain text here: what an unknown one means is decided where it is used.
 *
 * @source reference/operator.md 1.3, 1.6, 3.5
 */
import { Schema } from "effect"
import { CachedMeta } from "./Meta.ts"

const text = Schema.optionalKey(Schema.String)
const texts = Schema.optionalKey(Schema.Array(Schema.String))

/** Empty fields are as good as absent ones. */
export const TlsSecurityProfile = Schema.Struct({
  type: text,
  custom: Schema.optionalKey(Schema.Struct({ ciphers: texts, minTLSVersion: text, groups: texts }))
})
export type TlsSecurityProfile = typeof TlsSecurityProfile.Type

export const ApiServer = Schema.Struct({
  metadata: CachedMeta,
  spec: Schema.optionalKey(
    Schema.Struct({ tlsSecurityProfile: Schema.optionalKey(TlsSecurityProfile), tlsAdherence: text })
  )
})
export type ApiServer = typeof ApiServer.Type

export const Proxy = Schema.Struct({
  metadata: CachedMeta,
  status: Schema.optionalKey(Schema.Struct({ httpProxy: text, httpsProxy: text, noProxy: text }))
})
export type Proxy = typeof Proxy.Type

export const Infrastructure = Schema.Struct({
  metadata: CachedMeta,
  status: Schema.optionalKey(Schema.Struct({ controlPlaneTopology: text }))
})
export type Infrastructure = typeof Infrastructure.Type
