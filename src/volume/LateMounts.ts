/**
 * First mounts that go on after their call has ended, because a provider that is asked too much had not yet had time for
 * them. The kubelet comes back for such a volume, at its own leisure, and then finds it mounted.
 *
 * So does recording a volume that was mounted while it could not be recorded. One per volume at most; all of them end with the driver.
 */
import { Context, Effect, Fiber, FiberMap, Layer, Option } from "effect"

export class LateMounts extends Context.Service<
  LateMounts,
  {
    /**
     * Goes on with a mount in the background; one of the same volume that is under way is ended first. The mount says
     * when its turn has come and it begins to work.
     */
    readonly begin: <R>(
      targetPath: string,
      mount: (atWork: Effect.Effect<void>) => Effect.Effect<void, never, R>
    ) => Effect.Effect<void, never, R>
    readonly isUnderWay: (targetPath: string) => boolean
    /** For the next call of the volume: waits for a mount that is at work, so long at most, and ends any other. */
    readonly join: (targetPath: string, withinMillis: number) => Effect.Effect<void>
    /** Ends it; what it had begun is undone before anybody else can have the volume. */
    readonly end: (targetPath: string) => Effect.Effect<void>
  }
>()("secrets-store/volume/LateMounts") {
  static readonly layer = Layer.effect(
    LateMounts,
    Effect.map(FiberMap.make<string, void>(), (fibers) => {
      const working = new Set<string>()
      const end = (targetPath: string) => FiberMap.remove(fibers, targetPath)
      return LateMounts.of({
        begin: (targetPath, mount) => {
          const atWork = Effect.sync(() => void working.add(targetPath))
          const whole = Effect.ensuring(
            mount(atWork),
            Effect.sync(() => working.delete(targetPath))
          )
          return Effect.asVoid(FiberMap.run(fibers, targetPath, whole))
        },
        isUnderWay: (targetPath) => FiberMap.hasUnsafe(fibers, targetPath),
        join: (targetPath, withinMillis) =>
          Effect.suspend(() => {
            const fiber = FiberMap.getUnsafe(fibers, targetPath)
            if (Option.isNone(fiber) || !working.has(targetPath)) return end(targetPath)
            return Effect.andThen(Effect.timeoutOption(Fiber.await(fiber.value), withinMillis), end(targetPath))
          }),
        end
      })
    })
  )
}
