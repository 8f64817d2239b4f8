/**
 * Node's file system, with the small operations on volumes done at once.
 *
 * A volume is a tmpfs: making a link or a small file there takes a few microseconds, and a trip to Node's threads and
 * back ten to fifty times as long; a publish makes a dozen of them. What may take time stays on the threads: contents
 * of more than 64 KiB, making directories with their parents, and removing directories.
 */
import * as fs from "node:fs"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { ByteSize, Effect, FileSystem, Layer, Option, PlatformError } from "effect"

/** Copying so much takes about ten microseconds. */
const AT_ONCE_BYTES_MAX = 64 * 1024

const TAGS: ReadonlyMap<string, PlatformError.SystemErrorTag> = new Map([
  ["ENOENT", "NotFound"],
  ["EACCES", "PermissionDenied"],
  ["EPERM", "PermissionDenied"],
  ["EEXIST", "AlreadyExists"],
  ["EISDIR", "BadResource"],
  ["ENOTDIR", "BadResource"],
  ["ELOOP", "BadResource"],
  ["EBUSY", "Busy"]
])

const isErrno = (cause: unknown): cause is NodeJS.ErrnoException => cause instanceof Error && "syscall" in cause

/** As NodeFileSystem words it. */
const failedWith = (method: string, path: string, cause: unknown): PlatformError.PlatformError =>
  isErrno(cause)
    ? PlatformError.systemError({
        _tag: TAGS.get(cause.code ?? "") ?? "Unknown",
        module: "FileSystem",
        method,
        pathOrDescriptor: path,
        syscall: cause.syscall,
        cause
      })
    : PlatformError.badArgument({
        module: "FileSystem",
        method,
        description: cause instanceof Error ? cause.message : String(cause)
      })

const atOnce = <A>(method: string, path: string, operation: () => A): Effect.Effect<A, PlatformError.PlatformError> =>
  Effect.try({ try: operation, catch: (cause) => failedWith(method, path, cause) })

const typeOf = (entry: fs.Dirent | fs.BigIntStats): FileSystem.File.Type => {
  if (entry.isFile()) return "File"
  if (entry.isDirectory()) return "Directory"
  if (entry.isSymbolicLink()) return "SymbolicLink"
  if (entry.isFIFO()) return "FIFO"
  if (entry.isSocket()) return "Socket"
  if (entry.isCharacterDevice()) return "CharacterDevice"
  return entry.isBlockDevice() ? "BlockDevice" : "Unknown"
}

const unsigned = (value: bigint) => BigInt.asUintN(64, value)

const infoOf = (stats: fs.BigIntStats): FileSystem.File.Info => ({
  type: typeOf(stats),
  mtime: Option.some(stats.mtime),
  atime: Option.some(stats.atime),
  birthtime: Option.some(stats.birthtime),
  dev: unsigned(stats.dev),
  rdev: Option.some(unsigned(stats.rdev)),
  ino: Option.some(unsigned(stats.ino)),
  mode: Number(stats.mode),
  nlink: Option.some(unsigned(stats.nlink)),
  uid: Option.some(Number(stats.uid)),
  gid: Option.some(Number(stats.gid)),
  size: ByteSize.bytes(stats.size),
  blksize: Option.some(ByteSize.bytes(stats.blksize)),
  blocks: Option.some(stats.blocks)
})

const entriesOf = (path: string): ReadonlyArray<FileSystem.DirectoryEntry> =>
  fs.readdirSync(path, { withFileTypes: true }).map((entry) => ({ name: entry.name, type: typeOf(entry) }))

const override = (node: FileSystem.FileSystem): FileSystem.FileSystem =>
  FileSystem.make({
    ...node,
    chmod: (path, mode) => atOnce("chmod", path, () => fs.chmodSync(path, mode)),
    chown: (path, uid, gid) => atOnce("chown", path, () => fs.chownSync(path, uid, gid)),
    lstat: (path) => atOnce("lstat", path, () => infoOf(fs.lstatSync(path, { bigint: true }))),
    stat: (path) => atOnce("stat", path, () => infoOf(fs.statSync(path, { bigint: true }))),
    readLink: (path) => atOnce("readLink", path, () => fs.readlinkSync(path)),
    readDirectoryEntries: (path) => atOnce("readDirectoryEntries", path, () => entriesOf(path)),
    rename: (from, to) => atOnce("rename", from, () => fs.renameSync(from, to)),
    symlink: (target, path) => atOnce("symlink", target, () => fs.symlinkSync(target, path)),
    utimes: (path, atime, mtime) => atOnce("utimes", path, () => fs.utimesSync(path, atime, mtime)),
    makeDirectory: (path, options) =>
      // Parents are there as a rule; only without them it becomes a matter for the threads.
      Effect.catchIf(
        atOnce("makeDirectory", path, () =>
          fs.mkdirSync(path, options?.mode === undefined ? {} : { mode: options.mode })
        ),
        () => options?.recursive === true,
        () => node.makeDirectory(path, options)
      ),
    readFile: (path) =>
      Effect.flatMap(
        atOnce("readFile", path, () => fs.statSync(path).size),
        (size) =>
          size > AT_ONCE_BYTES_MAX ? node.readFile(path) : atOnce("readFile", path, () => fs.readFileSync(path))
      ).pipe(Effect.catch(() => node.readFile(path))),
    writeFile: (path, data, options) =>
      data.length > AT_ONCE_BYTES_MAX
        ? node.writeFile(path, data, options)
        : atOnce("writeFile", path, () =>
            fs.writeFileSync(path, data, {
              ...(options?.flag === undefined ? {} : { flag: options.flag }),
              ...(options?.mode === undefined ? {} : { mode: options.mode })
            })
          ),
    remove: (path, options) =>
      options?.recursive === true
        ? Effect.catch(removeEmptyDirectory(path), () => node.remove(path, options))
        : Effect.catch(
            atOnce("remove", path, () => fs.unlinkSync(path)),
            // A directory, nothing, or no permission: Node says it in its own words.
            () => node.remove(path, options)
          )
  })

/** One call where Node's removal of a tree makes several. */
const removeEmptyDirectory = (path: string): Effect.Effect<void, PlatformError.PlatformError> =>
  Effect.callback((resume) => {
    fs.rmdir(path, (cause) => resume(cause === null ? Effect.void : Effect.fail(failedWith("remove", path, cause))))
  })

/** @shape FileSystem */
export const layer: Layer.Layer<FileSystem.FileSystem> = Layer.effect(
  FileSystem.FileSystem,
  Effect.map(FileSystem.FileSystem, override)
).pipe(Layer.provide(NodeFileSystem.layer))
