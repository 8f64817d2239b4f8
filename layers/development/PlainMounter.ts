/**
 * A Mounter without mounts, for a demo without root: the target directory itself takes the place of the tmpfs, and a
 * marker beside it says that it is "mounted". What is written to it reaches the disk, so it is no place for secrets.
 *
 * Options of the file system (size, noexec, noswap) have no counterpart here. A target has to be empty to be mounted,
 * since nothing can cover what is in it.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  lstatSync,
  openSync,
  readdirSync,
  rmSync,
  type Stats,
  writeSync
} from "node:fs"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { MountFailed } from "../../schemas/errors/MountFailed.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter, type MountState } from "../../src/ports/Mounter.ts"

/** Beside the target, where neither the pod nor the driver's cleaning looks; it outlives the driver, as a mount does. */
const MARKER_SUFFIX = ".plain-mount"

const bare = (path: string) => path.replace(/(?<=.)\/+$/u, "")
const markerOf = (path: string) => `${bare(path)}${MARKER_SUFFIX}`

const errnoOf = (error: unknown): string =>
  error instanceof Error && "code" in error && typeof error.code === "string" && /^E[A-Z\d]+$/u.test(error.code)
    ? error.code
    : "EIO"

const attempt = <A>(operation: MountFailed["operation"], targetPath: string, step: () => A) =>
  Effect.try({ try: step, catch: (error) => new MountFailed({ operation, targetPath, errno: errnoOf(error) }) })

const refuse = (operation: MountFailed["operation"], targetPath: string, errno: string) =>
  Effect.fail(new MountFailed({ operation, targetPath, errno }))

const emptied = (path: string) => {
  for (const name of readdirSync(path)) rmSync(join(path, name), { recursive: true, force: true })
}

/**
 * @shape  Mounter
 * @errors MountFailed with the errno that mount(2) would have; ENOTEMPTY for a target that is not empty
 * @source src/ports/Mounter.ts
 */
export const layer: Layer.Layer<Mounter> = Layer.succeed(
  Mounter,
  Mounter.of({
    inspect: (path) =>
      attempt("inspect", path, (): MountState => {
        const found: Stats | undefined = lstatSync(bare(path), { throwIfNoEntry: false })
        if (found === undefined) return "Missing"
        return existsSync(markerOf(path)) ? "Mounted" : "NotMounted"
      }),

    mountTmpfs: (path, { gid, mode }) =>
      attempt("mount", path, () => {
        if (!lstatSync(bare(path)).isDirectory()) return "ENOTDIR"
        if (existsSync(markerOf(path))) return "EBUSY"
        if (readdirSync(path).length > 0) return "ENOTEMPTY"
        chmodSync(path, mode)
        if (gid !== undefined) chownSync(path, -1, gid)
        const marker = openSync(markerOf(path), "wx", 0o600)
        writeSync(marker, "a plain directory that stands for a mounted tmpfs\n")
        closeSync(marker)
        return undefined
      }).pipe(Effect.flatMap((errno) => (errno === undefined ? Effect.void : refuse("mount", path, errno)))),

    unmount: (path) =>
      attempt("unmount", path, () => {
        if (!existsSync(markerOf(path))) return
        if (existsSync(path)) emptied(path)
        rmSync(markerOf(path))
      }),

    listTmpfs: (below) =>
      attempt("inspect", below, () =>
        existsSync(below)
          ? readdirSync(below, { recursive: true, encoding: "utf8" })
              .filter((name) => name.endsWith(MARKER_SUFFIX))
              .map((name) => TargetPath.make(join(below, name.slice(0, -MARKER_SUFFIX.length))))
          : []
      )
  })
)
