/**
 * Kubernetes object metadata, and the two ways of describing an object.
 *
 * `closed` keeps the named fields only: for objects that are read and cached, so that memory does not follow the size
 * of other people's objects. `open` keeps every other field as well: for objects that are read, changed and written.
 */
import { Schema } from "effect"

/** Declared fields are typed; every other key survives decoding and encoding. */
export const open = <const F extends Schema.Struct.Fields>(fields: F) =>
  Schema.StructWithRest(Schema.Struct(fields), [Schema.Record(Schema.String, Schema.Unknown)])

/** Only the declared fields are kept. */
const closed = <const F extends Schema.Struct.Fields>(fields: F) => Schema.Struct(fields)

export const StringMap = Schema.Record(Schema.String, Schema.String)
export type StringMap = typeof StringMap.Type

export const OwnerReference = open({
  apiVersion: Schema.String,
  kind: Schema.String,
  name: Schema.String,
  uid: Schema.String
})

const metaFields = {
  name: Schema.optionalKey(Schema.String),
  namespace: Schema.optionalKey(Schema.String),
  uid: Schema.optionalKey(Schema.String),
  resourceVersion: Schema.optionalKey(Schema.String),
  generation: Schema.optionalKey(Schema.Int),
  creationTimestamp: Schema.optionalKey(Schema.String),
  deletionTimestamp: Schema.optionalKey(Schema.String),
  labels: Schema.optionalKey(StringMap),
  annotations: Schema.optionalKey(StringMap),
  ownerReferences: Schema.optionalKey(Schema.Array(OwnerReference))
}

export type OwnerReference = typeof OwnerReference.Type

/** Metadata of an object that is written back. */
export const ObjectMeta = open({ ...metaFields, finalizers: Schema.optionalKey(Schema.Array(Schema.String)) })
export type ObjectMeta = typeof ObjectMeta.Type

/** Metadata of an object that is only read. */
export const CachedMeta = closed(metaFields)
export type CachedMeta = typeof CachedMeta.Type
