/**
 * Effect's `FileSystem` over a `MemoryTree`, for programs that would run on `NodeFileSystem`.
 *
 * Outcomes are those of Node on Linux, as root: same results, same `reason._tag`, and a cause with Node's `code`,
 * `syscall` and message. Every system call is a step of its own, so that other fibers run in between: reading and
 * writing a file, making directories recursively and removing a tree are several. Copying and watching are not there.
 */
import { posix } from "node:path"
import { ByteSize, DateTime, Effect, FileSystem, Option, PlatformError, Result, Stream } from "effect"
import { ERRNOS, type Errno, type Handle, type MemoryTree, type Stat, systemCall } from "./MemoryTree.ts"

/** What Node throws; programs find it as `cause` of a `PlatformError`. */
class ErrnoException extends Error {
  readonly errno: number
  readonly code: string
  readonly syscall: string

  constructor(message: string, code: string, errno: number, syscall: string) {
    super(message)
    this.code = code
    this.errno = errno
    this.syscall = syscall
  }
}

const REASONS: Readonly<Partial<Record<Errno, PlatformError.SystemErrorTag>>> = {
  ENOENT: "NotFound",
  EACCES: "PermissionDenied",
  EPERM: "PermissionDenied",
  EEXIST: "AlreadyExists",
  EISDIR: "BadResource",
  ENOTDIR: "BadResource",
  EBUSY: "Busy",
  ELOOP: "BadResource"
}

/** What is said of a call that fails. */
interface Call {
  /** Of `FileSystem`. */
  readonly method: string
  readonly path: string | number
  /** Its name in libuv. */
  readonly syscall: string
  /** In Node's message: none for calls on open files. */
  readonly paths: ReadonlyArray<string>
}

const systemError = ({ method, path, paths, syscall }: Call, errno: Errno) => {
  const [number, words] = ERRNOS[errno]
  // libuv has no name for this one.
  const code = errno === "ESTALE" ? `Unknown system error -${number}` : errno
  const where = paths.length === 0 ? "" : ` ${paths.map((each) => `'${each}'`).join(" -> ")}`
  return PlatformError.systemError({
    _tag: REASONS[errno] ?? "Unknown",
    module: "FileSystem",
    method,
    pathOrDescriptor: path,
    syscall,
    cause: new ErrnoException(`${code}: ${words}, ${syscall}${where}`, code, -number, syscall)
  })
}

/** Node's own refusal to remove a directory that was not said to be one. */
const isDirectoryError = (method: string, path: string) =>
  PlatformError.systemError({
    _tag: "Unknown",
    module: "FileSystem",
    method,
    pathOrDescriptor: path,
    syscall: "rm",
    cause: new ErrnoException(
      `Path is a directory: rm returned EISDIR (is a directory) ${path}`,
      "ERR_FS_EISDIR",
      ERRNOS.EISDIR[0],
      "rm"
    )
  })

const badArgument = (method: string, description: string) =>
  PlatformError.badArgument({ module: "FileSystem", method, description })

const unimplemented = (method: string) => new Error(`MemoryFileSystem has no ${method}`)

/** One system call: others may run before it, nobody during it. */
const step = <A>(call: Call, perform: (nowMillis: number) => A): Effect.Effect<A, PlatformError.PlatformError> =>
  Effect.andThen(Effect.yieldNow, systemCall(perform)).pipe(Effect.mapError(({ errno }) => systemError(call, errno)))

const onPaths = (method: string, syscall: string, ...paths: ReadonlyArray<string>): Call => ({
  method,
  syscall,
  path: paths[0] ?? "",
  paths
})

/** A step whose paths are checked first, as Node does before it calls the system. */
const stepAt = <A>(call: Call, perform: (nowMillis: number) => A) =>
  call.paths.some((path) => path.includes("\u0000"))
    ? Effect.fail(
        badArgument(call.method, "The argument 'path' must be a string, Uint8Array, or URL without null bytes.")
      )
    : step(call, perform)

const toInfo = (stat: Stat): FileSystem.File.Info => ({
  type: stat.type,
  mtime: Option.some(DateTime.toDateUtc(DateTime.makeUnsafe(stat.mtimeMillis))),
  atime: Option.some(DateTime.toDateUtc(DateTime.makeUnsafe(stat.atimeMillis))),
  birthtime: Option.some(DateTime.toDateUtc(DateTime.makeUnsafe(stat.birthtimeMillis))),
  dev: stat.dev,
  ino: Option.some(stat.ino),
  mode: stat.mode,
  nlink: Option.some(BigInt(stat.nlink)),
  uid: Option.some(stat.uid),
  gid: Option.some(stat.gid),
  rdev: Option.some(0n),
  size: ByteSize.bytes(stat.size),
  blksize: Option.some(ByteSize.bytes(4096)),
  blocks: Option.some(BigInt(Math.ceil(stat.size / 4096) * 8))
})

/** Node takes a number as seconds, and makes one of a date; the fraction is cut, so a millisecond may be lost. */
const toMillis = (time: Date | number) => {
  const seconds = typeof time === "number" ? time : time.getTime() / 1000
  const whole = Math.floor(seconds)
  return whole * 1000 + Math.floor(Math.trunc((seconds - whole) * 1e9) / 1e6)
}

const parentOf = (path: string) => {
  const trimmed = path.replace(/\/+$/u, "")
  const slash = trimmed.lastIndexOf("/")
  return slash <= 0 ? "/" : trimmed.slice(0, slash)
}

const errnoOf = (error: PlatformError.PlatformError) =>
  error.reason.cause instanceof ErrnoException ? error.reason.cause.code : undefined

const FIRST_DESCRIPTOR = 3

/**
 * @shape  (tree) -> FileSystem; paths that are not absolute start at "/"
 * @units  modes without type bits; a time given as number is in seconds since the Unix epoch, as in Node
 * @errors PlatformError with the reason that NodeFileSystem gives for the same mistake
 * @source test/contracts/FileSystemSuite.ts compares the two, row by row
 */
export const make = (tree: MemoryTree): FileSystem.FileSystem => {
  let descriptors = FIRST_DESCRIPTOR
  let temporary = 0

  const openHandle = (method: string, path: string, flag: FileSystem.OpenFlag, mode = 0o666, noFollow = false) =>
    stepAt(onPaths(method, "open", path), (nowMillis) => tree.open(path, flag, mode, noFollow, nowMillis))

  const closeHandle = (handle: Handle) => Effect.sync(() => tree.close(handle))

  /** The handle that a whole-file operation uses, closed whatever happens. */
  const withHandle = <A>(
    opened: Effect.Effect<Handle, PlatformError.PlatformError>,
    use: (handle: Handle) => Effect.Effect<A, PlatformError.PlatformError>
  ) => Effect.acquireUseRelease(opened, use, closeHandle)

  /** Writes all of it, or what there is room for. */
  const writeAll = Effect.fnUntraced(function* (call: Call, handle: Handle, from: number, data: Uint8Array) {
    let position = from
    for (let rest = data; rest.length > 0; ) {
      const at = position
      const chunk = rest
      const written = yield* step(call, (nowMillis) => tree.write(handle, at, chunk, nowMillis))
      position += written
      rest = rest.subarray(written)
    }
    return position
  })

  const makeFile = (handle: Handle, descriptor: number): FileSystem.File => {
    const appends = handle.flag.startsWith("a")
    let position = 0
    const call = (method: string, syscall: string): Call => ({ method, syscall, path: descriptor, paths: [] })

    const readSome = (method: string, length: number, options: FileSystem.File.ReadOptions | undefined) => {
      const explicit = options?.position
      if (explicit !== undefined && explicit < 0n) {
        return Effect.fail(badArgument(method, "Cannot read before the start of the file"))
      }
      return step(call(method, "read"), () => {
        const bytes = tree.read(handle, explicit === undefined ? position : Number(explicit), length)
        if (explicit === undefined) position += bytes.length
        return bytes
      })
    }

    const advance = (from: number) => {
      if (!appends) position = from
    }

    return {
      [FileSystem.FileTypeId]: FileSystem.FileTypeId,
      stat: step(call("stat", "fstat"), () => toInfo(tree.statNode(handle.node))),
      sync: step(call("sync", "fsync"), () => {}),
      seek: (offset, from) =>
        Effect.suspend(() => {
          const target = from === "start" ? Number(offset) : position + Number(offset)
          if (target < 0) return Effect.fail(badArgument("seek", "Cannot seek before the start of the file"))
          position = target
          return Effect.succeed(BigInt(target))
        }),
      read: (buffer, options) =>
        Effect.map(readSome("read", buffer.length, options), (bytes) => {
          buffer.set(bytes)
          return bytes.length
        }),
      readAlloc: (size, options) =>
        Number.isInteger(size) && size >= 0
          ? Effect.map(readSome("readAlloc", size, options), (bytes) =>
              bytes.length === 0 ? Option.none() : Option.some(bytes)
            )
          : Effect.fail(badArgument("readAlloc", "size must be a non-negative integer")),
      truncate: (length = 0) =>
        step(call("truncate", "ftruncate"), (nowMillis) => {
          tree.ftruncate(handle, length, nowMillis)
          advance(Math.min(position, length))
        }),
      write: (buffer) =>
        step(call("write", "write"), (nowMillis) => {
          const written = tree.write(handle, position, buffer, nowMillis)
          advance(position + written)
          return written
        }),
      writeAll: (buffer) => Effect.map(writeAll(call("writeAll", "write"), handle, position, buffer), advance)
    }
  }

  const makeDirectory = Effect.fnUntraced(function* (
    method: string,
    path: string,
    options?: { readonly recursive?: boolean | undefined; readonly mode?: number | undefined }
  ): Effect.fn.Return<void, PlatformError.PlatformError> {
    const call = onPaths(method, "mkdir", path)
    const mkdir = (at: string) => stepAt(call, (nowMillis) => tree.mkdir(at, options?.mode ?? 0o777, nowMillis))
    if (options?.recursive !== true) return yield* mkdir(path)
    const missing = [path]
    while (true) {
      const at = missing.at(-1)
      if (at === undefined) return
      const outcome = yield* Effect.result(mkdir(at))
      if (Result.isSuccess(outcome)) {
        missing.pop()
        continue
      }
      const errno = errnoOf(outcome.failure)
      if (errno === "ENOENT" && parentOf(at) !== at) {
        missing.push(parentOf(at))
        continue
      }
      if (errno !== "EEXIST") return yield* outcome.failure
      // Somebody was faster, or it was there all along: fine, when it is a directory.
      const found = yield* Effect.result(step(call, () => tree.stat(at)))
      const isDirectory = Result.isSuccess(found) && found.success.type === "Directory"
      if (!isDirectory && at !== path) {
        // Node names what could not be looked at, but not what is of the wrong kind.
        return yield* systemError(Result.isFailure(found) ? { ...call, paths: [at] } : call, "ENOTDIR")
      }
      if (Result.isFailure(found)) return yield* found.failure
      if (!isDirectory) return yield* systemError(call, "EEXIST")
      missing.pop()
    }
  })

  /**
   * Removes a directory: first as it is, so that a mount point keeps its content, then entry by entry. An entry that
   * fails does not spare the others; the first failure is told.
   */
  const removeTree = (method: string, path: string): Effect.Effect<void, PlatformError.PlatformError> =>
    Effect.gen(function* () {
      const rmdir = step(onPaths(method, "rmdir", path), (nowMillis) => tree.rmdir(path, nowMillis))
      const first = yield* Effect.result(rmdir)
      if (Result.isSuccess(first)) return
      if (errnoOf(first.failure) !== "ENOTEMPTY") return yield* first.failure
      const entries = yield* step(onPaths(method, "scandir", path), () => tree.readdir(path))
      const outcomes = yield* Effect.forEach(entries, ({ name, type }) => {
        const child = `${path}/${name}`
        return Effect.result(
          type === "Directory"
            ? removeTree(method, child)
            : step(onPaths(method, "unlink", child), (nowMillis) => tree.unlink(child, nowMillis))
        )
      })
      const failure = outcomes.filter(Result.isFailure).find((outcome) => errnoOf(outcome.failure) !== "ENOENT")
      if (failure !== undefined) return yield* failure.failure
      yield* rmdir
    }).pipe(
      Effect.catchIf(
        (error) => errnoOf(error) === "ENOENT",
        () => Effect.void
      )
    )

  const remove = Effect.fnUntraced(function* (
    method: string,
    path: string,
    options?: { readonly recursive?: boolean | undefined; readonly force?: boolean | undefined }
  ): Effect.fn.Return<void, PlatformError.PlatformError> {
    const found = yield* Effect.result(stepAt(onPaths(method, "lstat", path), () => tree.lstat(path)))
    if (Result.isFailure(found)) {
      if (options?.force === true && errnoOf(found.failure) === "ENOENT") return
      return yield* found.failure
    }
    if (found.success.type !== "Directory") {
      return yield* step(onPaths(method, "unlink", path), (nowMillis) => tree.unlink(path, nowMillis))
    }
    if (options?.recursive === true) return yield* removeTree(method, path)
    return yield* isDirectoryError(method, path)
  })

  /** Named by counting, since nothing here is drawn. */
  const makeTempDirectory = Effect.fnUntraced(function* (
    method: string,
    options?: { readonly directory?: string | undefined; readonly prefix?: string | undefined }
  ) {
    temporary += 1
    const path = `${options?.directory ?? "/tmp"}/${options?.prefix ?? ""}${temporary.toString().padStart(6, "0")}`
    yield* makeDirectory(method, path, { mode: 0o700 })
    return path
  })

  const makeTempFile = Effect.fnUntraced(function* (
    method: string,
    options?: {
      readonly directory?: string | undefined
      readonly prefix?: string | undefined
      readonly suffix?: string | undefined
    }
  ) {
    const path = `${yield* makeTempDirectory(method, options)}/file${options?.suffix ?? ""}`
    yield* withHandle(openHandle(method, path, "w"), () => Effect.void)
    return path
  })

  const scoped = (
    made: Effect.Effect<string, PlatformError.PlatformError>,
    method: string,
    top: (path: string) => string
  ) => Effect.acquireRelease(made, (path) => Effect.orDie(remove(method, top(path), { recursive: true, force: true })))

  /** Recursively it follows links to directories, as Node does; one to itself ends with ELOOP. */
  const readDirectory = Effect.fnUntraced(function* (path: string, recursive: boolean) {
    const names: Array<string> = []
    const pending = [""]
    for (let at = pending.shift(); at !== undefined; at = pending.shift()) {
      const prefix = at === "" ? "" : `${at}/`
      const directory = at === "" ? path : `${path}/${at}`
      const call = onPaths("readDirectory", "scandir", directory)
      const entries = yield* stepAt(call, () => tree.readdir(directory))
      for (const { name, type } of entries) {
        names.push(`${prefix}${name}`)
        if (!recursive || type === "File") continue
        const child = `${path}/${prefix}${name}`
        const found = yield* Effect.option(step(call, () => tree.stat(child)))
        if (Option.isSome(found) && found.value.type === "Directory") pending.push(`${prefix}${name}`)
      }
    }
    return names
  })

  /** Name by name, as Node does it; dots are taken away first, whatever links there are. */
  const realPath = Effect.fnUntraced(function* (path: string) {
    let real = "/"
    for (const name of posix.resolve("/", path).split("/").filter(Boolean)) {
      const at = posix.join(real, name)
      const { type } = yield* stepAt(onPaths("realPath", "lstat", at), () => tree.lstat(at))
      real = type === "SymbolicLink" ? yield* step(onPaths("realPath", "stat", at), () => tree.realpath(at)) : at
    }
    return real
  })

  return FileSystem.make({
    access: (path) => stepAt(onPaths("access", "access", path), () => tree.access(path)),
    chmod: (path, mode) => stepAt(onPaths("chmod", "chmod", path), () => tree.chmod(path, mode)),
    chown: (path, uid, gid) => stepAt(onPaths("chown", "chown", path), () => tree.chown(path, uid, gid)),
    copy: () => Effect.die(unimplemented("copy")),
    copyFile: () => Effect.die(unimplemented("copyFile")),
    link: (from, to) => stepAt(onPaths("link", "link", from, to), (nowMillis) => tree.link(from, to, nowMillis)),
    lstat: (path) => stepAt(onPaths("lstat", "lstat", path), () => toInfo(tree.lstat(path))),
    makeDirectory: (path, options) => makeDirectory("makeDirectory", path, options),
    makeTempDirectory: (options) => makeTempDirectory("makeTempDirectory", options),
    makeTempDirectoryScoped: (options) =>
      scoped(makeTempDirectory("makeTempDirectoryScoped", options), "makeTempDirectoryScoped", (path) => path),
    makeTempFile: (options) => makeTempFile("makeTempFile", options),
    makeTempFileScoped: (options) =>
      scoped(makeTempFile("makeTempFileScoped", options), "makeTempFileScoped", parentOf),
    open: (path, options) =>
      Effect.acquireRelease(
        openHandle("open", path, options?.flag ?? "r", options?.mode, options?.noFollow),
        closeHandle
      ).pipe(Effect.map((handle) => makeFile(handle, descriptors++))),
    readDirectory: (path, options) => readDirectory(path, options?.recursive ?? false),
    readDirectoryEntries: (path) => stepAt(onPaths("readDirectoryEntries", "scandir", path), () => tree.readdir(path)),
    readFile: (path) =>
      withHandle(openHandle("readFile", path, "r"), (handle) =>
        step(onPaths("readFile", "read", path), () => tree.read(handle, 0, Number.POSITIVE_INFINITY))
      ),
    readLink: (path) => stepAt(onPaths("readLink", "readlink", path), () => tree.readlink(path)),
    realPath,
    remove: (path, options) => remove("remove", path, options),
    rename: (from, to) =>
      stepAt(onPaths("rename", "rename", from, to), (nowMillis) => tree.rename(from, to, nowMillis)),
    stat: (path) => stepAt(onPaths("stat", "stat", path), () => toInfo(tree.stat(path))),
    symlink: (target, path) =>
      stepAt(onPaths("symlink", "symlink", target, path), (nowMillis) => tree.symlink(target, path, nowMillis)),
    truncate: (path, length = 0) =>
      withHandle(openHandle("truncate", path, "r+"), (handle) =>
        step({ method: "truncate", path, syscall: "ftruncate", paths: [] }, (nowMillis) =>
          tree.ftruncate(handle, length, nowMillis)
        )
      ),
    utimes: (path, atime, mtime) =>
      stepAt(onPaths("utime", "utime", path), () => tree.utimes(path, toMillis(atime), toMillis(mtime))),
    watch: () => Stream.die(unimplemented("watch")),
    writeFile: (path, data, options) =>
      withHandle(openHandle("writeFile", path, options?.flag ?? "w", options?.mode), (handle) =>
        Effect.asVoid(writeAll({ method: "writeFile", path, syscall: "write", paths: [] }, handle, 0, data))
      )
  })
}
