/**
 * Objects of Kubernetes' core group, as far as the driver reads or writes them.
 */
import { Schema } from "effect"
import { FORCE_REFRESH_KEY } from "./ForceRefresh.ts"
import { CachedMeta, ObjectMeta, OwnerReference, open } from "./Meta.ts"

const text = Schema.optionalKey(Schema.String)

/** A pod as it is cached. */
export const Pod = Schema.Struct({
  metadata: CachedMeta,
  spec: Schema.optionalKey(Schema.Struct({ nodeName: text })),
  status: Schema.optionalKey(Schema.Struct({ phase: text }))
})
export type Pod = typeof Pod.Type

/** A pod as the node driver keeps it: nothing of what it does not look at. */
export const NodePod = Schema.Struct({
  metadata: Schema.Struct({
    name: text,
    namespace: text,
    uid: text,
    resourceVersion: text,
    deletionTimestamp: text,
    annotations: Schema.optionalKey(Schema.Struct({ [FORCE_REFRESH_KEY]: text })),
    ownerReferences: Schema.optionalKey(Schema.Array(OwnerReference))
  }),
  spec: Schema.optionalKey(
    Schema.Struct({
      volumes: Schema.optionalKey(
        Schema.Array(
          Schema.Struct({
            name: text,
            csi: Schema.optionalKey(
              Schema.Struct({
                driver: text,
                volumeAttributes: Schema.optionalKey(Schema.Struct({ secretProviderClass: text }))
              })
            )
          })
        )
      )
    })
  ),
  status: Schema.optionalKey(Schema.Struct({ phase: text }))
})
export type NodePod = typeof NodePod.Type

/** A Secret as it is read to be compared: its values are base64, and redacted. */
export const Secret = open({
  metadata: ObjectMeta,
  type: text,
  immutable: Schema.optionalKey(Schema.Boolean),
  data: Schema.optionalKey(Schema.Record(Schema.String, Schema.RedactedFromValue(Schema.String)))
})
export type Secret = typeof Secret.Type

/** A Secret as it is kept: that it exists, and in which version. */
export const SecretVersion = Schema.Struct({
  metadata: Schema.Struct({ name: text, namespace: text, uid: text, resourceVersion: text })
})
export type SecretVersion = typeof SecretVersion.Type

/** A Secret without its content. */
export const SyncedSecret = Schema.Struct({ metadata: CachedMeta })
export type SyncedSecret = typeof SyncedSecret.Type

export const ObjectReference = Schema.Struct({ apiVersion: text, kind: text, name: text, namespace: text, uid: text })
export type ObjectReference = typeof ObjectReference.Type

/** An object of which only its owners are of interest. */
export const Owned = Schema.Struct({ metadata: CachedMeta })

/**
 * An Event in its older form, with a count and without `eventTime`: the form in which the API server lets the writer
 * change count and message later. Times are RFC 3339 in whole seconds.
 */
export const Event = Schema.Struct({
  metadata: CachedMeta,
  involvedObject: ObjectReference,
  type: text,
  reason: text,
  message: text,
  source: Schema.optionalKey(Schema.Struct({ component: text, host: text })),
  reportingComponent: text,
  reportingInstance: text,
  count: Schema.optionalKey(Schema.Int),
  firstTimestamp: text,
  lastTimestamp: text
})
export type Event = typeof Event.Type
