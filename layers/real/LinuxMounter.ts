/**
 * Mounting on Linux: mount(2) and umount2(2), called through koffi; no process is started.
 *
 * Taking a mount away may have to wait for others, so it happens on koffi's own threads; it cannot be taken back, and is
 * waited for even when its caller is interrupted. Errors are named where errno still belongs to the call.
 */
import { lstatSync, readFile, realpath, type Stats, statSync } from "node:fs"
import { dirname } from "node:path"
import { Data, Effect, Layer, RcMap, Semaphore } from "effect"
import koffi from "koffi"
import { MountFailed } from "../../schemas/errors/MountFailed.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter, type MountState, type TmpfsOptions } from "../../src/ports/Mounter.ts"

/** One line of mountinfo. */
export interface MountInfo {
  readonly target: string
  readonly fstype: string
  readonly source: string
  /** Of this mount: "nosuid", "noexec". */
  readonly options: ReadonlyArray<string>
  /** Of the file system: "size=64k", "mode=755". */
  readonly superOptions: ReadonlyArray<string>
}

const unescape = (field: string) =>
  field.replace(/\\([0-7]{3})/gu, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/**
 * @shape  (text of /proc/self/mountinfo) -> mounts, in the order of the table
 * @errors none: a line of another shape is left out
 * @source proc_pid_mountinfo(5): `36 35 98:0 /root /target options [tags...] - fstype source superOptions`
 */
export const parseMountInfo = (text: string): ReadonlyArray<MountInfo> =>
  text.split("\n").flatMap((line) => {
    const [left, right] = line.split(" - ", 2)
    const [, , , , target, options] = left?.split(" ") ?? []
    const [fstype, source, superOptions] = right?.split(" ") ?? []
    if (target === undefined || options === undefined || fstype === undefined || source === undefined) return []
    return {
      target: unescape(target),
      fstype,
      source: unescape(source),
      options: options.split(","),
      superOptions: superOptions?.split(",") ?? []
    }
  })

/** A system call's error, by name. */
class SystemCallFailed extends Data.TaggedError("SystemCallFailed")<{ readonly errno: string }> {}

const MS_NOSUID = 2
const MS_NODEV = 4
const MS_NOEXEC = 8
const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8

/** koffi refuses more than 256 calls at once. */
const CALLS_MAX = 8
/** How many mounts one `unmount` takes away; only a mount that comes back at once has more. */
const ROUNDS_MAX = 32

/** What is said of a mount whose other end is gone. EACCES is among them, as it is for the kubelet. */
const CORRUPTED: ReadonlySet<string> = new Set(["ENOTCONN", "ESTALE", "EIO", "EACCES", "EHOSTDOWN"])

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(koffi.os.errno).map(([name, errno]) => [errno, name])
)
const nameOf = (errno: number) => ERRNO_NAMES.get(errno) ?? `errno ${errno}`

/** By number, since libuv has no name for some errors that matter here, such as ESTALE. */
const failedIn = (error: NodeJS.ErrnoException) =>
  new SystemCallFailed({ errno: error.errno === undefined ? (error.code ?? "EIO") : nameOf(-error.errno) })

/** Trailing slashes would make the system follow a link. */
const bare = (path: string) => path.replace(/(?<=.)\/+$/u, "")

/** A C string would end at the first NUL, and mean another path. */
const refuseNul = (path: string) =>
  path.includes("\u0000") ? Effect.fail(new SystemCallFailed({ errno: "EINVAL" })) : Effect.void

/**
 * At once: the kernel knows the answer for a directory of this node's tmpfs or of its own disk, and a trip to Node's
 * threads would cost twenty times as much, on every publish and unpublish. A path that is not there is no exception.
 */
const look = (
  call: (path: string, options: { readonly throwIfNoEntry: false }) => Stats | undefined,
  path: string
): Effect.Effect<Stats | undefined, SystemCallFailed> =>
  Effect.andThen(
    refuseNul(path),
    Effect.suspend(() => {
      try {
        return Effect.succeed(call(path, { throwIfNoEntry: false }))
      } catch (cause) {
        return cause instanceof Error ? Effect.fail(failedIn(cause)) : Effect.die(cause)
      }
    })
  )

const canonical = (path: string) =>
  Effect.andThen(
    refuseNul(path),
    Effect.callback<string, SystemCallFailed>((resume) =>
      realpath(path, (error, real) => resume(error === null ? Effect.succeed(real) : Effect.fail(failedIn(error))))
    )
  )

const mountInfo = Effect.callback<string, SystemCallFailed>((resume) =>
  readFile("/proc/self/mountinfo", "utf8", (error, text) =>
    resume(error === null ? Effect.succeed(text) : Effect.fail(failedIn(error)))
  )
).pipe(Effect.map(parseMountInfo))

const mountData = ({ gid, mode, sizeBytes }: TmpfsOptions): ReadonlyArray<string> => [
  `mode=0${(mode & 0o7777).toString(8)}`,
  ...(sizeBytes > 0 ? [`size=${sizeBytes}`] : []),
  ...(gid === undefined ? [] : [`gid=${gid}`])
]

/** A mount point is on another device than the directory that it is in, as upstream and the kubelet see it. */
const lookAt = Effect.fnUntraced(function* (path: string) {
  const target = yield* look(lstatSync, bare(path))
  if (target === undefined) return "Missing"
  // The directory it is in may be named by a link.
  const parent = yield* look(statSync, dirname(bare(path)))
  if (parent === undefined) return "Missing"
  if (target.dev !== parent.dev) return "MountPoint"
  return target.isDirectory() ? "Directory" : "Other"
})

const hasErrno =
  (...names: ReadonlyArray<string>) =>
  ({ errno }: SystemCallFailed) =>
    names.includes(errno)

const failsWith = (operation: MountFailed["operation"], targetPath: string) =>
  Effect.mapError(({ errno }: SystemCallFailed) => new MountFailed({ operation, targetPath, errno }))

/** glibc has one name everywhere, musl one per architecture. */
const loadLibc = () => {
  try {
    return koffi.load("libc.so.6")
  } catch {
    return koffi.load(`libc.musl-${process.arch === "arm64" ? "aarch64" : "x86_64"}.so.1`)
  }
}

/**
 * @shape  Mounter
 * @units  sizes in bytes; the kernel rounds them up to pages
 * @errors MountFailed with the kernel's errno; EBUSY when something is mounted at the path already
 * @source reference/driver.md 2.8 and 2.9; mount(2), umount(2)
 */
export const layer: Layer.Layer<Mounter> = Layer.effect(
  Mounter,
  Effect.gen(function* () {
    const libc = loadLibc()
    const mount = libc.func(
      "int mount(const char *source, const char *target, const char *fstype, unsigned long flags, const char *data)"
    )
    const umount2 = libc.func("int umount2(const char *target, int flags)")
    const lanes = yield* Semaphore.make(CALLS_MAX)
    const locks = yield* RcMap.make({ lookup: (_: string) => Semaphore.make(1) })
    // noswap came with Linux 6.4. What the first mount finds out holds for as long as the process lives.
    let noswap = true

    /** Between looking and mounting, and between two rounds of unmounting, nobody else here touches the path. */
    const exclusive =
      (path: string) =>
      <A, E>(self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
        Effect.scoped(Effect.flatMap(RcMap.get(locks, bare(path)), (lock) => lock.withPermits(1)(self)))

    const call = (path: string, start: (done: (error: unknown, result: unknown) => void) => void) =>
      Effect.callback<void, SystemCallFailed>((resume) =>
        start((error, result) => {
          const errno = result === 0 ? 0 : koffi.errno()
          if (error !== null && error !== undefined) resume(Effect.die(error))
          else resume(errno === 0 ? Effect.void : Effect.fail(new SystemCallFailed({ errno: nameOf(errno) })))
        })
      ).pipe(Effect.uninterruptible, lanes.withPermits(1), (effect) => Effect.andThen(refuseNul(path), effect))

    // At once, like looking: making an empty tmpfs takes twenty microseconds, and nothing has to be waited for.
    const mountTmpfs = (path: string, data: ReadonlyArray<string>) =>
      Effect.andThen(
        refuseNul(path),
        Effect.suspend(() => {
          const result: unknown = mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, data.join(","))
          return result === 0 ? Effect.void : Effect.fail(new SystemCallFailed({ errno: nameOf(koffi.errno()) }))
        })
      )

    const unmount = (path: string, flags: number) =>
      call(path, (done) => umount2.async(path, UMOUNT_NOFOLLOW | flags, done))

    return Mounter.of({
      inspect: (path) =>
        lookAt(path).pipe(
          Effect.map(
            (found): MountState => (found === "Missing" ? found : found === "MountPoint" ? "Mounted" : "NotMounted")
          ),
          Effect.catchIf(hasErrno("ENOENT"), () => Effect.succeed<MountState>("Missing")),
          Effect.catchIf(hasErrno(...CORRUPTED), () => Effect.succeed<MountState>("Corrupted")),
          failsWith("inspect", path)
        ),

      mountTmpfs: Effect.fnUntraced(
        function* (path, options) {
          const found = yield* lookAt(path)
          if (found === "Missing") return yield* new SystemCallFailed({ errno: "ENOENT" })
          if (found === "MountPoint") return yield* new SystemCallFailed({ errno: "EBUSY" })
          // mount(2) would follow a link, and mount where unmount never looks.
          if (found === "Other") return yield* new SystemCallFailed({ errno: "ENOTDIR" })
          const data = mountData(options)
          if (!noswap) return yield* mountTmpfs(bare(path), data)
          return yield* mountTmpfs(bare(path), [...data, "noswap"]).pipe(
            Effect.catchIf(hasErrno("EINVAL"), () =>
              Effect.tap(mountTmpfs(bare(path), data), () =>
                Effect.sync(() => {
                  noswap = false
                })
              )
            )
          )
        },
        (effect, path) => failsWith("mount", path)(exclusive(path)(effect))
      ),

      unmount: Effect.fnUntraced(
        function* (path) {
          for (let round = 0; round < ROUNDS_MAX; round++) {
            const removed = yield* unmount(bare(path), 0).pipe(
              Effect.catchIf(hasErrno("EBUSY"), () => unmount(bare(path), MNT_DETACH)),
              Effect.as(true),
              // EINVAL: nothing is mounted there.
              Effect.catchIf(hasErrno("EINVAL", "ENOENT"), () => Effect.succeed(false))
            )
            if (!removed) return
            // Nearly always the end, and seen sooner than by asking for an error. What cannot be looked at is tried.
            const left = yield* Effect.orElseSucceed(lookAt(path), () => "MountPoint" as const)
            if (left !== "MountPoint") return
          }
          return yield* new SystemCallFailed({ errno: "EBUSY" })
        },
        (effect, path) => failsWith("unmount", path)(exclusive(path)(effect))
      ),

      listTmpfs: Effect.fnUntraced(
        function* (below) {
          // The table has canonical paths; they are given back as the caller wrote the directory.
          const real = yield* canonical(below)
          const prefix = real === "/" ? "/" : `${real}/`
          const shown = below === "/" ? "" : bare(below)
          const targets = (yield* mountInfo)
            .filter(({ fstype, target }) => fstype === "tmpfs" && (target === real || target.startsWith(prefix)))
            .map(({ target }) => TargetPath.make(target === real ? below : `${shown}/${target.slice(prefix.length)}`))
          return [...new Set(targets)]
        },
        (effect, below) =>
          effect.pipe(
            Effect.catchIf(hasErrno("ENOENT"), () => Effect.succeed([])),
            failsWith("inspect", below)
          )
      )
    })
  })
)
