/**
 * SecretProviderClass: which provider to ask for what, and which Kubernetes Secrets to make of it.
 *
 * Nothing in it is required, as in the resource that users already have; what is missing is said at publish time.
 */
import { Schema } from "effect"
import { CachedMeta, StringMap } from "./Meta.ts"

const text = (description: string) => Schema.optionalKey(Schema.String.annotate({ description }))
const strings = (description: string) => Schema.optionalKey(StringMap.annotate({ description }))

const SecretObjectData = Schema.Struct({
  objectName: text("path of the mounted file, relative to the volume"),
  key: text("key of the Secret's data that gets the file's content")
})

const SecretObject = Schema.Struct({
  secretName: text("name of the Secret"),
  type: text("type of the Secret"),
  labels: strings("labels of the Secret"),
  annotations: strings("annotations of the Secret"),
  data: Schema.optionalKey(
    Schema.Array(SecretObjectData).annotate({ description: "which file becomes which key of the Secret" })
  )
})

export const SecretProviderClassSpec = Schema.Struct({
  provider: text("name of the provider, which is also the name of its socket"),
  parameters: strings("what the provider is asked for; its meaning is the provider's"),
  secretObjects: Schema.optionalKey(
    Schema.Array(SecretObject).annotate({ description: "Kubernetes Secrets to make of the mounted files" })
  )
})
export type SecretProviderClassSpec = typeof SecretProviderClassSpec.Type

/** v1: an object without properties, which the API server always prunes to nothing. */
export const SecretProviderClassStatus = Schema.Struct({}).annotate({ description: "unused" })

/** v1alpha1 only; never written by the driver. */
export const SecretProviderClassStatusV1Alpha1 = Schema.Struct({
  byPod: Schema.optionalKey(
    Schema.Array(Schema.Struct({ id: text("unused"), namespace: text("unused") })).annotate({ description: "unused" })
  )
})

/** As the driver reads and caches it. */
export const SecretProviderClass = Schema.Struct({
  metadata: CachedMeta,
  spec: Schema.optionalKey(SecretProviderClassSpec)
})
export type SecretProviderClass = typeof SecretProviderClass.Type
