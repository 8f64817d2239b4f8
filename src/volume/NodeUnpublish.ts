/**
 * NodeUnpublishVolume: nothing of the volume is left on the node. Needs neither the API server nor a provider, may be
 * repeated, and says everything that it could not remove in one failure.
 *
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go, NodeUnpublishVolume; reference/driver.md 2.9
 */
import { Effect, FileSystem } from "effect"
import type { NodeUnpublishVolumeRequest } from "../../schemas/Csi.ts"
import { RequestInvalid } from "../../schemas/errors/PublishFailed.ts"
import { UnpublishFailed } from "../../schemas/errors/UnpublishFailed.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter } from "../ports/Mounter.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import { LateMounts } from "./LateMounts.ts"
import * as MountedFiles from "./MountedFiles.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** A target of csi-sanity that was never published; touching it would be wrong. */
const SANITY_TARGET = "/tmp/csi/mount"

const check = (request: NodeUnpublishVolumeRequest): TargetPath | RequestInvalid => {
  const missing = (what: string) =>
    new RequestInvalid({
      detail: `${what} missing in request`,
      remedy: "the kubelet sets it; other callers have to as well"
    })
  if (request.volumeId === "") return missing("Volume ID")
  if (request.targetPath === "") return missing("Target path")
  return TargetPath.make(request.targetPath)
}

const removeTarget = Effect.fnUntraced(function* (targetPath: TargetPath) {
  const files = yield* FileSystem.FileSystem
  const mounter = yield* Mounter
  const table = yield* VolumeTable
  const left: Array<string> = []
  const note = (cause: { readonly message: string }) => Effect.sync(() => void left.push(cause.message))

  // Without knowing what is there, every step is tried: each of them succeeds where there is nothing to do.
  const state = yield* mounter
    .inspect(targetPath)
    .pipe(Effect.catchTag("MountFailed", (cause) => Effect.as(note(cause), "Mounted" as const)))
  if (state === "Missing") {
    table.remove(targetPath)
    return left
  }
  // The files go first: whoever else still holds the mount must not go on reading them.
  if (state !== "Corrupted") left.push(...(yield* MountedFiles.clear(targetPath)))
  if (state !== "NotMounted") yield* Effect.catchTag(mounter.unmount(targetPath), "MountFailed", note)
  // Empty by now, or still a mount: then the file system refuses, and nothing is taken from whoever uses it.
  yield* files
    .remove(targetPath, { recursive: true })
    .pipe(Effect.catchTag("PlatformError", (cause) => (cause.reason._tag === "NotFound" ? Effect.void : note(cause))))
  if (left.length === 0) table.remove(targetPath)
  return left
})

/**
 * Serves one NodeUnpublishVolume call.
 *
 * @shape  (request) -> void
 * @errors RequestInvalid; UnpublishFailed names everything that is left
 */
export const unpublish = Effect.fn("NodeUnpublish.unpublish")(
  function* (request: NodeUnpublishVolumeRequest) {
    const targetPath = check(request)
    if (typeof targetPath !== "string") return yield* targetPath
    if (targetPath.toLowerCase() === SANITY_TARGET) return
    const late = yield* LateMounts
    const table = yield* VolumeTable
    yield* late.end(targetPath)
    const left = yield* table.exclusive(targetPath, Effect.uninterruptible(removeTarget(targetPath)))
    if (left.length > 0) {
      yield* Effect.logError("failed to clean and unmount target path", {
        [LogKeys.targetPath]: targetPath,
        [LogKeys.error]: left.join("; ")
      })
      return yield* new UnpublishFailed({ targetPath, left })
    }
    yield* Effect.logInfo("node unpublish volume complete", { [LogKeys.targetPath]: targetPath })
  },
  (effect) =>
    effect.pipe(
      Effect.tap(() => Metrics.nodeUnpublished),
      Effect.tapError(() => Metrics.nodeUnpublishFailed)
    )
)
