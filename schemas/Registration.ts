/**
 * The kubelet's plugin registration, as the driver serves it when asked to register itself.
 *
 * @source reference/wire.md (c)
 */
import { Schema } from "effect"

export const PluginInfo = Schema.Struct({
  type: Schema.Literal("CSIPlugin"),
  name: Schema.String,
  /** Path of the CSI socket on the host. */
  endpoint: Schema.String,
  supportedVersions: Schema.Array(Schema.String)
})
export type PluginInfo = typeof PluginInfo.Type

/** The kubelet's answer; `error` says why `registered` is false. */
export const RegistrationStatus = Schema.Struct({ registered: Schema.Boolean, error: Schema.String })
export type RegistrationStatus = typeof RegistrationStatus.Type
