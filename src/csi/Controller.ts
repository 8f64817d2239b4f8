/**
 * CSI Controller: a stub. Inline volumes never reach a controller.
 *
 * @source driver v1.6.0, pkg/secrets-store/controllerserver.go; reference/driver.md 2.4
 */
import { Effect } from "effect"
import type { ControllerGetCapabilitiesResponse } from "../../schemas/Csi.ts"
import { CsiStatus } from "../../schemas/errors/CsiStatus.ts"

export const controllerCapabilities: ControllerGetCapabilitiesResponse = { rpcs: ["UNKNOWN"] }

export const unimplemented = (details: string): Effect.Effect<never, CsiStatus> =>
  Effect.fail(new CsiStatus({ grpcCode: "UNIMPLEMENTED", details }))
