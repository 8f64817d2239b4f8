/**
 * What the operator is started with, after flags, config file and environment have been read.
 */
import { Schema } from "effect"

/** Of the operand's containers; a variable that is not set is empty. */
export const Images = Schema.Struct({
  /** DRIVER_IMAGE */
  driver: Schema.String,
  /** NODE_DRIVER_REGISTRAR_IMAGE and LIVENESS_PROBE_IMAGE: both set ask for upstream's three containers, none for ours. */
  registrar: Schema.String,
  livenessProbe: Schema.String
})
export type Images = typeof Images.Type

export const OperatorConfig = Schema.Struct({
  /** Of the operator and of the operand. */
  namespace: Schema.String,
  images: Images,
  /** Becomes `status.version`. */
  version: Schema.String,
  /** Prefix of the finalizer and of Events' component. */
  operatorName: Schema.String,
  /** Of the pod that the operator runs in, for the owner of its Events; empty when it is not known. */
  podName: Schema.String,
  /** That decides which of several operators writes. */
  lease: Schema.Struct({ namespace: Schema.String, name: Schema.String })
})
export type OperatorConfig = typeof OperatorConfig.Type
