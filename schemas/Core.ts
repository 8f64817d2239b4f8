/**
 * Objects of Kubernetes' core group, as far as the driver reads or writes them.
 */
import { Schema } from "effect"
import { FORCE_REFRESH_KEY } from "./ForceRefresh.ts"
import { CachedMeta } from "./Meta.ts"

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
    annotations: Schema.optionalKey(Schema.Struct({ [FORCE_REFRESH_KEY]: text }))
  })
})
export type NodePod = typeof NodePod.Type

const ObjectReference = Schema.Struct({ apiVersion: text, kind: text, name: text, namespace: text, uid: text })

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
