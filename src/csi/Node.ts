/**
 * CSI Node, all but publish and unpublish: staging is validated and does nothing, statistics and expansion do not
 * exist.
 *
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go; reference/driver.md 2.5
 */
import { Effect } from "effect"
import type {
  NodeGetCapabilitiesResponse,
  NodeStageVolumeRequest,
  NodeUnstageVolumeRequest
} from "../../schemas/Csi.ts"
import { CsiStatus } from "../../schemas/errors/CsiStatus.ts"

const refuse = (details: string) => Effect.fail(new CsiStatus({ grpcCode: "INVALID_ARGUMENT", details }))
const done = Effect.succeed({})

export const nodeCapabilities = (volumeMountGroup: boolean): NodeGetCapabilitiesResponse => ({
  rpcs: volumeMountGroup ? ["STAGE_UNSTAGE_VOLUME", "VOLUME_MOUNT_GROUP"] : ["STAGE_UNSTAGE_VOLUME"]
})

export const stage = (request: NodeStageVolumeRequest): Effect.Effect<Readonly<Record<string, never>>, CsiStatus> => {
  if (request.volumeId === "") return refuse("Volume ID missing in request")
  if (request.stagingTargetPath === "") return refuse("Target path missing in request")
  if (request.volumeCapability === undefined) return refuse("Volume capability missing in request")
  return done
}

export const unstage = (
  request: NodeUnstageVolumeRequest
): Effect.Effect<Readonly<Record<string, never>>, CsiStatus> => {
  if (request.volumeId === "") return refuse("Volume ID missing in request")
  if (request.stagingTargetPath === "") return refuse("Target path missing in request")
  return done
}
