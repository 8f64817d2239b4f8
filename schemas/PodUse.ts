/**
 * A pod, as far as it says which Secrets and classes it uses. Read of all pods of a namespace, and not kept.
 */
import { Schema } from "effect"

const named = Schema.optionalKey(Schema.Struct({ name: Schema.optionalKey(Schema.String) }))
const Container = Schema.Struct({
  env: Schema.optionalKey(
    Schema.Array(Schema.Struct({ valueFrom: Schema.optionalKey(Schema.Struct({ secretKeyRef: named })) }))
  ),
  envFrom: Schema.optionalKey(Schema.Array(Schema.Struct({ secretRef: named })))
})
const text = Schema.optionalKey(Schema.String)

/** A pod, as far as it says which Secrets and classes it uses. */
export const PodUse = Schema.Struct({
  metadata: Schema.Struct({
    name: text,
    namespace: text,
    uid: text,
    resourceVersion: text,
    deletionTimestamp: text
  }),
  spec: Schema.optionalKey(
    Schema.Struct({
      nodeName: text,
      containers: Schema.optionalKey(Schema.Array(Container)),
      initContainers: Schema.optionalKey(Schema.Array(Container)),
      imagePullSecrets: Schema.optionalKey(Schema.Array(Schema.Struct({ name: text }))),
      volumes: Schema.optionalKey(
        Schema.Array(
          Schema.Struct({
            csi: Schema.optionalKey(
              Schema.Struct({
                driver: text,
                volumeAttributes: Schema.optionalKey(Schema.Struct({ secretProviderClass: text }))
              })
            ),
            secret: Schema.optionalKey(Schema.Struct({ secretName: text })),
            projected: Schema.optionalKey(
              Schema.Struct({ sources: Schema.optionalKey(Schema.Array(Schema.Struct({ secret: named }))) })
            )
          })
        )
      )
    })
  ),
  status: Schema.optionalKey(Schema.Struct({ phase: text }))
})
export type PodUse = typeof PodUse.Type
