/**
 * The Lease of the coordination group, by which several processes agree on one that acts.
 */
import { Schema } from "effect"
import { ObjectMeta, open } from "./Meta.ts"

/**
 * Whoever holds a Lease writes back what it does not know. Times are RFC 3339 with six digits after the point; they are
 * for people: no decision is made by the clock of another machine.
 */
export const Lease = open({
  metadata: ObjectMeta,
  spec: Schema.optionalKey(
    open({
      /** Absent or empty: nobody's. */
      holderIdentity: Schema.optionalKey(Schema.String),
      leaseDurationSeconds: Schema.optionalKey(Schema.Int),
      acquireTime: Schema.optionalKey(Schema.String),
      renewTime: Schema.optionalKey(Schema.String),
      /** How often the holder has changed. */
      leaseTransitions: Schema.optionalKey(Schema.Int)
    })
  )
})
export type Lease = typeof Lease.Type
