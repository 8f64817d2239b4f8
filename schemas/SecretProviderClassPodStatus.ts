/**
 * SecretProviderClassPodStatus: what one volume of one pod holds. Written by the node driver, read by its sync.
 */
import { Schema } from "effect"
import { ObjectMeta, open } from "./Meta.ts"

/** One object of the provider, and the version that is mounted; the version may be empty. */
const ObjectVersion = Schema.Struct({
  id: Schema.optionalKey(Schema.String.annotate({ description: "the provider's name for the object" })),
  version: Schema.optionalKey(Schema.String.annotate({ description: "the version that is mounted" }))
})

const PodStatusFields = {
  podName: Schema.optionalKey(Schema.String.annotate({ description: "the pod that uses the volume" })),
  secretProviderClassName: Schema.optionalKey(Schema.String.annotate({ description: "the class it was made from" })),
  mounted: Schema.optionalKey(Schema.Boolean.annotate({ description: "true once files are mounted" })),
  targetPath: Schema.optionalKey(Schema.String.annotate({ description: "where the kubelet wanted the volume" })),
  objects: Schema.optionalKey(Schema.Array(ObjectVersion).annotate({ description: "what is mounted, sorted by id" }))
}

export const PodStatusStatus = Schema.Struct(PodStatusFields)
export type PodStatusStatus = typeof PodStatusStatus.Type

export const SecretProviderClassPodStatus = open({
  apiVersion: Schema.optionalKey(Schema.String),
  kind: Schema.optionalKey(Schema.String),
  metadata: ObjectMeta,
  status: Schema.optionalKey(PodStatusStatus)
})
/** What is kept of it to sync from. */
export const CachedPodStatus = Schema.Struct({
  metadata: Schema.Struct({
    name: Schema.optionalKey(Schema.String),
    namespace: Schema.optionalKey(Schema.String),
    uid: Schema.optionalKey(Schema.String),
    resourceVersion: Schema.optionalKey(Schema.String)
  }),
  status: Schema.optionalKey(PodStatusStatus)
})
export type CachedPodStatus = typeof CachedPodStatus.Type

export type SecretProviderClassPodStatus = typeof SecretProviderClassPodStatus.Type
