/**
 * What an administrator may change of the node DaemonSet, in `spec.unsupportedConfigOverrides.secretsStoreDriver` of the
 * ClusterCSIDriver. Nothing of it is needed, and what else is in unsupportedConfigOverrides is not looked at.
 *
 * @source reference/operator.md Q3, Q19, Q40
 */
import { Schema } from "effect"
import { StringMap } from "./Meta.ts"

const text = Schema.optionalKey(Schema.String)

const Toleration = Schema.Struct({
  key: text,
  operator: Schema.optionalKey(Schema.Literals(["Exists", "Equal"])),
  value: text,
  effect: text,
  tolerationSeconds: Schema.optionalKey(Schema.Int)
})

const Resources = Schema.Struct({ requests: Schema.optionalKey(StringMap), limits: Schema.optionalKey(StringMap) })

export const OperandOverrides = Schema.Struct({
  /** Beside kubernetes.io/os, which stays. */
  nodeSelector: Schema.optionalKey(StringMap),
  /** Instead of the one that tolerates everything. */
  tolerations: Schema.optionalKey(Schema.Array(Toleration)),
  priorityClassName: text,
  /** Of the driver's container. */
  resources: Schema.optionalKey(Resources),
  /** Arguments of the driver's container, "--flag=value": in place of one that begins alike, or at the end. */
  args: Schema.optionalKey(Schema.Array(Schema.String.check(Schema.isPattern(/^--[a-z][a-z-]*=/u)))),
  /** Mounts the cluster's trusted certificates into the driver's container, which is replaced when they change. */
  trustedCABundle: Schema.optionalKey(Schema.Boolean),
  /** Gives the cluster's proxy to the driver's container. */
  proxy: Schema.optionalKey(Schema.Boolean)
})
export type OperandOverrides = typeof OperandOverrides.Type
