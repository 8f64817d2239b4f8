/**
 * Mounting on a `MemoryTree`: the same answers as Linux gives to the driver. A mount that cannot be entered any more is
 * made with `MemoryNode.breakMount`.
 */
import { Effect } from "effect"
import { MountFailed } from "../../schemas/errors/MountFailed.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter, type MountState } from "../../src/ports/Mounter.ts"
import { type Errno, type MemoryTree, SystemCallFailed, systemCall } from "./MemoryTree.ts"

/** What is said of a mount whose other end is gone. */
const CORRUPTED: ReadonlySet<Errno> = new Set<Errno>(["ENOTCONN", "ESTALE", "EIO", "EACCES", "EHOSTDOWN"])
const ROUNDS_MAX = 32

const bare = (path: string) => path.replace(/(?<=.)\/+$/u, "")
const parentOf = (path: string) => path.slice(0, path.lastIndexOf("/")) || "/"

/** Others may run before each call, nobody during it. */
const step = <A>(perform: (nowMillis: number) => A) => Effect.andThen(Effect.yieldNow, systemCall(perform))

const failsWith = (operation: MountFailed["operation"], targetPath: string) =>
  Effect.mapError(({ errno }: SystemCallFailed) => new MountFailed({ operation, targetPath, errno }))

/**
 * @shape  (tree) -> Mounter
 * @errors MountFailed with the errno that LinuxMounter gives for the same mistake
 * @source test/contracts/MounterSuite.ts runs on both
 */
export const make = (tree: MemoryTree): Mounter["Service"] => {
  const isMountPoint = (path: string) => tree.lstat(bare(path)).dev !== tree.stat(parentOf(bare(path))).dev

  return Mounter.of({
    inspect: (path) =>
      step((): MountState => (isMountPoint(path) ? "Mounted" : "NotMounted")).pipe(
        Effect.catchIf(
          ({ errno }) => errno === "ENOENT",
          () => Effect.succeed<MountState>("Missing")
        ),
        Effect.catchIf(
          ({ errno }) => CORRUPTED.has(errno),
          () => Effect.succeed<MountState>("Corrupted")
        ),
        failsWith("inspect", path)
      ),

    mountTmpfs: (path, options) =>
      step((nowMillis) => {
        if (tree.lstat(bare(path)).type !== "Directory") throw new SystemCallFailed({ errno: "ENOTDIR" })
        if (isMountPoint(path)) throw new SystemCallFailed({ errno: "EBUSY" })
        tree.mount(path, options, nowMillis)
      }).pipe(failsWith("mount", path)),

    unmount: Effect.fnUntraced(
      function* (path) {
        for (let round = 0; round < ROUNDS_MAX; round++) {
          const left = yield* step(() => tree.umount(path, false)).pipe(
            Effect.catchIf(
              ({ errno }) => errno === "EBUSY",
              () => step(() => tree.umount(path, true))
            ),
            Effect.as(true),
            Effect.catchIf(
              ({ errno }) => errno === "EINVAL" || errno === "ENOENT",
              () => Effect.succeed(false)
            )
          )
          if (!left) return
        }
        return yield* new SystemCallFailed({ errno: "EBUSY" })
      },
      (effect, path) => failsWith("unmount", path)(effect)
    ),

    listTmpfs: (below) =>
      step(() => {
        const real = tree.realpath(below)
        const prefix = real === "/" ? "/" : `${real}/`
        const shown = below === "/" ? "" : bare(below)
        const found = tree
          .mounts()
          .filter(({ path }) => path === real || path.startsWith(prefix))
          .map(({ path }) => TargetPath.make(path === real ? below : `${shown}/${path.slice(prefix.length)}`))
        return [...new Set(found)]
      }).pipe(
        Effect.catchIf(
          ({ errno }) => errno === "ENOENT",
          () => Effect.succeed([])
        ),
        failsWith("inspect", below)
      )
  })
}
