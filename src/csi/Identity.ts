/**
 * CSI Identity.
 *
 * @source driver v1.6.0, pkg/secrets-store/identityserver.go; reference/driver.md 2.3
 */
import { Effect } from "effect"
import type { GetPluginCapabilitiesResponse, GetPluginInfoResponse, ProbeResponse } from "../../schemas/Csi.ts"
import { CsiStatus } from "../../schemas/errors/CsiStatus.ts"

const unavailable = (details: string) => Effect.fail(new CsiStatus({ grpcCode: "UNAVAILABLE", details }))

export const getPluginInfo = (name: string, vendorVersion: string): Effect.Effect<GetPluginInfoResponse, CsiStatus> =>
  name === ""
    ? unavailable("driver name not configured")
    : vendorVersion === ""
      ? unavailable("driver version not configured")
      : Effect.succeed({ name, vendorVersion })

/** Kept although no controller is behind it: other programs look at it (Q9). */
export const pluginCapabilities: GetPluginCapabilitiesResponse = { services: ["CONTROLLER_SERVICE"] }

export const probe: ProbeResponse = { ready: true }
