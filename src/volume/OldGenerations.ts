/**
 * Generations of files that were just replaced: each stays a while for the readers that are in it, and is then removed.
 *
 * A pod follows `..data` first and opens files after it, several perhaps. If it began before the exchange, it must be
 * able to finish. Longer than that nobody's old secrets stay: the removal happens whatever becomes of the write, and at
 * once when the driver ends. What a killed driver leaves is removed by the next write.
 */
import { Context, Deferred, Effect, type FileSystem, Layer } from "effect"
import { LogKeys } from "../telemetry/LogKeys.ts"
import { removeEntry } from "./MountedFiles.ts"

/** Files are opened within a fraction of a millisecond; this is also enough for a reader that had to wait for the CPU. */
const GRACE_MILLIS = 1_000

export class OldGenerations extends Context.Service<
  OldGenerations,
  {
    /** The directory was replaced, and is still there for its readers. */
    readonly isKept: (path: string) => boolean
    /** Waits until a directory is not kept any more. It is gone then, or could not be removed. */
    readonly untilGone: (path: string) => Effect.Effect<void>
    /** Has a generation removed when its grace is over, without waiting for it. A removal that fails is logged. */
    readonly retire: (
      targetPath: string,
      generation: string,
      type: FileSystem.File.Type
    ) => Effect.Effect<void, never, FileSystem.FileSystem>
  }
>()("secrets-store/volume/OldGenerations") {
  /** @units milliseconds; generations that are kept when the layer's scope closes are removed at once */
  static readonly layer = Layer.effect(
    OldGenerations,
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const kept = new Map<string, Deferred.Deferred<void>>()
      const remove = Effect.fnUntraced(function* (targetPath: string, path: string, type: FileSystem.File.Type) {
        const left = yield* removeEntry(path, type)
        if (left === undefined) return
        yield* Effect.logError("failed to remove replaced files", {
          [LogKeys.targetPath]: targetPath,
          [LogKeys.error]: left
        })
      })
      return OldGenerations.of({
        isKept: (path) => kept.has(path),
        untilGone: (path) =>
          Effect.suspend(() => {
            const gone = kept.get(path)
            return gone === undefined ? Effect.void : Deferred.await(gone)
          }),
        retire: (targetPath, generation, type) =>
          Effect.suspend(() => {
            const path = `${targetPath}/${generation}`
            const removing = remove(targetPath, path, type)
            // Nobody is left to wait for the grace.
            if (scope.state._tag === "Closed") return removing
            const gone = Deferred.makeUnsafe<void>()
            kept.set(path, gone)
            const whole = Effect.interruptible(Effect.sleep(GRACE_MILLIS)).pipe(
              Effect.ensuring(removing),
              Effect.ensuring(
                Effect.sync(() => {
                  kept.delete(path)
                  Deferred.doneUnsafe(gone, Effect.void)
                })
              )
            )
            // Only the waiting may be interrupted, so that the removal is not lost, however early the scope closes.
            return Effect.asVoid(Effect.forkIn(whole, scope, { uninterruptible: true, startImmediately: true }))
          })
      })
    })
  )
}
