/**
 * The directories, files, links and mounts of one node, in memory: what Linux does for the system calls that the
 * driver makes, as root with umask 022. Each method is one call: it happens at once or throws `SystemCallFailed`.
 *
 * The tree does not wait, read a clock or draw a number: time is an argument, and inodes and devices are counted.
 */
import { Clock, Data, Effect, type FileSystem } from "effect"

/** Number and words of each error, as libuv has them. */
export const ERRNOS = {
  EPERM: [1, "operation not permitted"],
  ENOENT: [2, "no such file or directory"],
  EIO: [5, "i/o error"],
  EBADF: [9, "bad file descriptor"],
  EACCES: [13, "permission denied"],
  EBUSY: [16, "resource busy or locked"],
  EEXIST: [17, "file already exists"],
  EXDEV: [18, "cross-device link not permitted"],
  ENOTDIR: [20, "not a directory"],
  EISDIR: [21, "illegal operation on a directory"],
  EINVAL: [22, "invalid argument"],
  ENOSPC: [28, "no space left on device"],
  ENAMETOOLONG: [36, "name too long"],
  ENOTEMPTY: [39, "directory not empty"],
  ELOOP: [40, "too many symbolic links encountered"],
  ENOTCONN: [107, "socket is not connected"],
  EHOSTDOWN: [112, "host is down"],
  ESTALE: [116, "stale file handle"]
} as const

export type Errno = keyof typeof ERRNOS

/** What a system call answers instead of a result; thrown inside the tree, a failure outside of it. */
export class SystemCallFailed extends Data.TaggedError("SystemCallFailed")<{ readonly errno: Errno }> {
  override get message() {
    return `${this.errno}: ${ERRNOS[this.errno][1]}`
  }
}

/** Calls on a tree as an effect, at the time of its clock. Nothing runs in between. */
export const systemCall = <A>(perform: (nowMillis: number) => A): Effect.Effect<A, SystemCallFailed> =>
  Clock.clockWith((clock) =>
    Effect.suspend(() => {
      try {
        return Effect.succeed(perform(clock.currentTimeMillisUnsafe()))
      } catch (cause) {
        if (cause instanceof SystemCallFailed) return Effect.fail(cause)
        throw cause
      }
    })
  )

/** One of each: most are answers that a caller expects, and nobody asks where they were made. */
const FAILURES = new Map<Errno, SystemCallFailed>()

const failed = (errno: Errno): SystemCallFailed => {
  const made = FAILURES.get(errno) ?? new SystemCallFailed({ errno })
  FAILURES.set(errno, made)
  return made
}

interface Metadata {
  readonly ino: bigint
  readonly volume: Volume
  /** Permission bits with set-id and sticky; the type is not in it. */
  mode: number
  uid: number
  gid: number
  atimeMillis: number
  mtimeMillis: number
  readonly birthtimeMillis: number
  /** How many names a file or link has. */
  names: number
}

export interface Directory extends Metadata {
  readonly type: "Directory"
  readonly entries: Map<string, Inode>
  /** None for the root of a volume. */
  parent: Directory | undefined
  name: string
  /** What covers it, the newest of those; its root is seen instead. */
  coveredBy: Mount | undefined
  /** Whose root it is. */
  rootOf: Mount | undefined
}

export interface RegularFile extends Metadata {
  readonly type: "File"
  data: Uint8Array
  handles: number
}

interface Link extends Metadata {
  readonly type: "SymbolicLink"
  readonly target: string
}

export type Inode = Directory | RegularFile | Link

interface Volume {
  readonly dev: bigint
  /** 0 is unbounded. */
  readonly pagesMax: number
  pages: number
  /** Open handles: a volume that has some is busy. */
  handles: number
}

export interface MemoryMountOptions {
  /** Rounded up to whole pages; 0 is unbounded. */
  readonly sizeBytes: number
  readonly mode: number
  readonly gid?: number
}

interface Mount {
  readonly root: Directory
  readonly covers: Directory
  readonly options: MemoryMountOptions
  /** What every call answers that enters this mount. */
  broken: Errno | undefined
}

export interface Stat {
  readonly type: Inode["type"]
  readonly dev: bigint
  readonly ino: bigint
  /** With the bits of the type. */
  readonly mode: number
  readonly nlink: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly atimeMillis: number
  readonly mtimeMillis: number
  readonly birthtimeMillis: number
}

export interface MemoryMount {
  readonly path: string
  readonly sizeBytes: number
  readonly usedBytes: number
  readonly mode: number
  readonly gid: number
  readonly broken: Errno | undefined
}

/** One line of a snapshot. Contents are only counted: they may be secret. */
export interface MemoryEntry {
  readonly path: string
  readonly type: Inode["type"]
  /** Four octal digits. */
  readonly mode: string
  readonly uid: number
  readonly gid: number
  readonly mtimeMillis: number
  /** Of a file. */
  readonly sizeBytes?: number
  /** Of a symbolic link. */
  readonly target?: string
  /** Of a mount point: "tmpfs", or the error that entering it gives. */
  readonly mount?: string
}

/** A directory as its readers see it. Contents are the tree's own, and may be secret. */
export interface MemoryReadable {
  readonly names: ReadonlyArray<string>
  /** Names of links that lead nowhere. */
  readonly dangling: ReadonlyArray<string>
  /** By path below the directory. */
  readonly files: ReadonlyMap<string, Uint8Array>
}

export interface Handle {
  readonly node: Directory | RegularFile
  readonly flag: FileSystem.OpenFlag
  open: boolean
}

/** Where a path leads. A name of "." or ".." means that the path ends so; "" is the root. */
interface Place {
  readonly parent: Directory
  readonly name: string
  readonly node: Inode | undefined
  /** The path ends in "/", and so means a directory. */
  readonly slash: boolean
}

/**
 * What becomes of a path's last name: "follow" goes through a link; "keep" does so only when a slash asks for it;
 * "name" never does, for calls that make, move or remove names; "create" follows, and no slash may come after it.
 */
type Last = "follow" | "keep" | "name" | "create"

const PAGE_BYTES = 4096
const NAME_BYTES_MAX = 255
const PATH_BYTES_MAX = 4095
const LINKS_MAX = 40
const UMASK = 0o022
const SET_GROUP = 0o2000
const TYPE_BITS = { Directory: 0o040000, File: 0o100000, SymbolicLink: 0o120000 } as const

const pagesOf = (bytes: number) => Math.ceil(bytes / PAGE_BYTES)

const isTooLong = (text: string, bytesMax: number) => text.length * 3 > bytesMax && Buffer.byteLength(text) > bytesMax

const isNamed = ({ name }: Place) => name !== "" && name !== "." && name !== ".."

/** Its own two, and one of each directory in it. */
const linksOf = ({ entries }: Directory): number => {
  let links = 2
  for (const { type } of entries.values()) if (type === "Directory") links += 1
  return links
}

const namesIn = (path: string) => path.split("/").filter((name) => name !== "")

/** What is left of a path before these names, the next one last. */
const pushReversed = (rest: Array<string>, path: string) => {
  const names = path.split("/")
  for (let index = names.length - 1; index >= 0; index--) {
    const name = names[index]
    if (name !== undefined && name !== "") rest.push(name)
  }
}

const ASCII = /^[\0-\x7f]*$/u

/** Names in the order of their UTF-8 bytes, which is how Node lists a directory. */
const sorted = (names: Iterable<string>) => {
  const all = [...names]
  return all.every((name) => ASCII.test(name))
    ? all.sort()
    : all.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
}

export class MemoryTree {
  #inodes = 1n
  #devices = 1n
  /** In the order of mounting. */
  #mounts: ReadonlyArray<Mount> = []
  readonly #root: Directory

  constructor() {
    this.#root = this.#format(0, 0o755, 0, 0)
    this.mkdir("/tmp", 0o777, 0)
    this.chmod("/tmp", 0o1777)
  }

  // Inodes

  #metadata(volume: Volume, mode: number, nowMillis: number): Metadata {
    return {
      ino: this.#inodes++,
      volume,
      mode,
      uid: 0,
      gid: 0,
      atimeMillis: nowMillis,
      mtimeMillis: nowMillis,
      birthtimeMillis: nowMillis,
      names: 1
    }
  }

  /** A new, empty file system. */
  #format(sizeBytes: number, mode: number, gid: number, nowMillis: number): Directory {
    const volume: Volume = { dev: this.#devices++, pagesMax: pagesOf(sizeBytes), pages: 0, handles: 0 }
    return {
      ...this.#metadata(volume, mode, nowMillis),
      gid,
      type: "Directory",
      entries: new Map(),
      parent: undefined,
      name: "",
      coveredBy: undefined,
      rootOf: undefined
    }
  }

  /** Metadata of something new in a directory; a set-group-id directory passes its group on. */
  #born(parent: Directory, mode: number, nowMillis: number): Metadata {
    const metadata = this.#metadata(parent.volume, mode, nowMillis)
    return (parent.mode & SET_GROUP) === 0 ? metadata : { ...metadata, gid: parent.gid }
  }

  #insert(parent: Directory, name: string, node: Inode, nowMillis: number) {
    parent.entries.set(name, node)
    parent.mtimeMillis = nowMillis
    if (node.type === "Directory") {
      node.parent = parent
      node.name = name
    }
  }

  #drop(parent: Directory, name: string, nowMillis: number) {
    const node = parent.entries.get(name)
    parent.entries.delete(name)
    parent.mtimeMillis = nowMillis
    if (node === undefined) return
    node.names -= 1
    if (node.type === "File") this.#release(node)
  }

  /** A file without names lives until its last handle is closed. */
  #release(file: RegularFile) {
    if (file.names > 0 || file.handles > 0) return
    this.#resize(file, 0)
  }

  /** Pages are counted by length; holes take part, unlike in a tmpfs. */
  #resize(file: RegularFile, length: number) {
    const more = pagesOf(length) - pagesOf(file.data.length)
    if (more > 0 && file.volume.pagesMax > 0 && file.volume.pages + more > file.volume.pagesMax) throw failed("ENOSPC")
    file.volume.pages += more
    const data = new Uint8Array(length)
    data.set(file.data.subarray(0, length))
    file.data = data
  }

  // Paths

  /** Directories know what covers them, so that a path is walked without looking anything up. */
  #setMounts(mounts: ReadonlyArray<Mount>) {
    for (const { covers, root } of this.#mounts) {
      covers.coveredBy = undefined
      root.rootOf = undefined
    }
    this.#mounts = mounts
    for (const mount of mounts) {
      mount.covers.coveredBy = mount
      mount.root.rootOf = mount
    }
  }

  /** The directory that is seen where this one is: the root of what is mounted on top of it. */
  #enter(directory: Directory): Directory {
    let seen = directory
    for (let mount = seen.coveredBy; mount !== undefined; mount = seen.coveredBy) {
      if (mount.broken !== undefined) throw failed(mount.broken)
      seen = mount.root
    }
    return seen
  }

  /** Below the roots of all mounts that are stacked here. */
  #leave(directory: Directory): Directory {
    return directory.rootOf === undefined ? directory : this.#leave(directory.rootOf.covers)
  }

  #parentOf(directory: Directory): Directory {
    const { parent } = this.#leave(directory)
    return this.#enter(parent ?? this.#root)
  }

  #pathOf(directory: Directory): string {
    const names: Array<string> = []
    for (let at = this.#leave(directory); at.parent !== undefined; at = this.#leave(at.parent)) names.push(at.name)
    return `/${names.reverse().join("/")}`
  }

  /** A path that does not begin with "/" begins at `from`. */
  #walk(path: string, last: Last, from?: Directory): Place {
    if (path === "") throw failed("ENOENT")
    if (path.includes("\u0000")) throw failed("EINVAL")
    if (isTooLong(path, PATH_BYTES_MAX)) throw failed("ENAMETOOLONG")
    let slash = path.endsWith("/")
    let links = 0
    let parent = from ?? this.#enter(this.#root)
    /** The last name that led to `parent`. */
    let arrived = ""
    const rest: Array<string> = []
    pushReversed(rest, path)
    for (let name = rest.pop(); name !== undefined; name = rest.pop()) {
      if (name === "." || name === "..") {
        if (name === "..") parent = this.#parentOf(parent)
        arrived = name
        continue
      }
      if (isTooLong(name, NAME_BYTES_MAX)) throw failed("ENAMETOOLONG")
      const isLast = rest.length === 0
      if (isLast && slash && last === "create") throw failed("EISDIR")
      const node = parent.entries.get(name)
      if (node === undefined) {
        if (!isLast) throw failed("ENOENT")
        return { parent, name, node, slash }
      }
      if (node.type === "Directory") {
        const seen = this.#enter(node)
        if (isLast) return { parent, name, node: seen, slash }
        parent = seen
        continue
      }
      if (isLast && last === "name") return { parent, name, node, slash }
      if (node.type === "SymbolicLink" && (!isLast || slash || last === "follow" || last === "create")) {
        links += 1
        if (links > LINKS_MAX) throw failed("ELOOP")
        if (isLast && node.target.endsWith("/")) slash = true
        if (node.target.startsWith("/")) parent = this.#enter(this.#root)
        arrived = ""
        pushReversed(rest, node.target)
        continue
      }
      if (!isLast || slash) throw failed("ENOTDIR")
      return { parent, name, node, slash }
    }
    return { parent, name: arrived, node: parent, slash }
  }

  #find(path: string, last: Last): Inode {
    const { node } = this.#walk(path, last)
    if (node === undefined) throw failed("ENOENT")
    return node
  }

  #directory(path: string): Directory {
    const node = this.#find(path, "follow")
    if (node.type !== "Directory") throw failed("ENOTDIR")
    return node
  }

  /** What lies in a directory under this name, also when a mount covers it. */
  #covered({ name, parent }: Place): Inode | undefined {
    return parent.entries.get(name)
  }

  #isMountPoint(node: Inode | undefined) {
    return node?.type === "Directory" && node.coveredBy !== undefined
  }

  // System calls on files

  /** @errors those of `stat`; root may do everything that is not impossible. */
  access(path: string): void {
    this.#find(path, "follow")
  }

  stat(path: string): Stat {
    return this.statNode(this.#find(path, "follow"))
  }

  lstat(path: string): Stat {
    return this.statNode(this.#find(path, "keep"))
  }

  statNode(node: Inode): Stat {
    const { atimeMillis, birthtimeMillis, gid, ino, mode, mtimeMillis, names, type, uid, volume } = node
    return {
      type,
      dev: volume.dev,
      ino,
      mode: TYPE_BITS[type] | mode,
      nlink: node.type === "Directory" ? linksOf(node) : names,
      uid,
      gid,
      size:
        node.type === "File"
          ? node.data.length
          : node.type === "SymbolicLink"
            ? Buffer.byteLength(node.target)
            : node.entries.size * 20,
      atimeMillis,
      mtimeMillis,
      birthtimeMillis
    }
  }

  chmod(path: string, mode: number): void {
    this.#find(path, "follow").mode = mode & 0o7777
  }

  /** -1 leaves an owner as it is. */
  chown(path: string, uid: number, gid: number): void {
    const node = this.#find(path, "follow")
    if (uid !== -1) node.uid = uid
    if (gid !== -1) node.gid = gid
  }

  utimes(path: string, atimeMillis: number, mtimeMillis: number): void {
    const node = this.#find(path, "follow")
    node.atimeMillis = atimeMillis
    node.mtimeMillis = mtimeMillis
  }

  mkdir(path: string, mode: number, nowMillis: number): void {
    const { name, node, parent } = this.#walk(path, "name")
    if (node !== undefined) throw failed("EEXIST")
    const metadata = this.#born(parent, (mode & 0o1777 & ~UMASK) | (parent.mode & SET_GROUP), nowMillis)
    this.#insert(
      parent,
      name,
      { ...metadata, type: "Directory", entries: new Map(), parent, name, coveredBy: undefined, rootOf: undefined },
      nowMillis
    )
  }

  readdir(path: string): ReadonlyArray<{ readonly name: string; readonly type: Inode["type"] }> {
    const { entries } = this.#directory(path)
    return sorted(entries.keys()).flatMap((name) => {
      const type = entries.get(name)?.type
      return type === undefined ? [] : [{ name, type }]
    })
  }

  symlink(target: string, path: string, nowMillis: number): void {
    if (target === "") throw failed("ENOENT")
    if (isTooLong(target, PATH_BYTES_MAX)) throw failed("ENAMETOOLONG")
    const { name, node, parent, slash } = this.#walk(path, "name")
    if (node !== undefined) throw failed("EEXIST")
    if (slash) throw failed("ENOENT")
    this.#insert(parent, name, { ...this.#born(parent, 0o777, nowMillis), type: "SymbolicLink", target }, nowMillis)
  }

  readlink(path: string): string {
    const node = this.#find(path, "keep")
    if (node.type !== "SymbolicLink") throw failed("EINVAL")
    return node.target
  }

  link(from: string, to: string, nowMillis: number): void {
    const node = this.#find(from, "keep")
    const place = this.#walk(to, "name")
    if (place.node !== undefined) throw failed("EEXIST")
    if (place.slash) throw failed("ENOENT")
    if (node.type === "Directory") throw failed("EPERM")
    if (node.volume !== place.parent.volume) throw failed("EXDEV")
    node.names += 1
    this.#insert(place.parent, place.name, node, nowMillis)
  }

  realpath(path: string): string {
    const { name, node, parent } = this.#walk(path, "follow")
    if (node === undefined) throw failed("ENOENT")
    if (node.type === "Directory") return this.#pathOf(node)
    const directory = this.#pathOf(parent)
    return `${directory === "/" ? "" : directory}/${name}`
  }

  unlink(path: string, nowMillis: number): void {
    const { name, node, parent, slash } = this.#walk(path, "name")
    if (node === undefined) throw failed("ENOENT")
    if (node.type === "Directory") throw failed("EISDIR")
    if (slash) throw failed("ENOTDIR")
    this.#drop(parent, name, nowMillis)
  }

  rmdir(path: string, nowMillis: number): void {
    const place = this.#walk(path, "name")
    if (place.name === ".") throw failed("EINVAL")
    if (place.name === "..") throw failed("ENOTEMPTY")
    if (place.name === "") throw failed("EBUSY")
    if (place.node === undefined) throw failed("ENOENT")
    if (place.node.type !== "Directory") throw failed("ENOTDIR")
    if (this.#isMountPoint(this.#covered(place))) throw failed("EBUSY")
    if (place.node.entries.size > 0) throw failed("ENOTEMPTY")
    this.#drop(place.parent, place.name, nowMillis)
  }

  rename(from: string, to: string, nowMillis: number): void {
    const source = this.#walk(from, "name")
    const target = this.#walk(to, "name")
    if (source.parent.volume !== target.parent.volume) throw failed("EXDEV")
    if (!isNamed(source) || !isNamed(target)) throw failed("EBUSY")
    const moved = this.#covered(source)
    const replaced = this.#covered(target)
    if (moved === undefined) throw failed("ENOENT")
    if (moved.type !== "Directory" && (source.slash || target.slash)) throw failed("ENOTDIR")
    if (moved.type === "Directory" && this.#isWithin(target.parent, moved)) throw failed("EINVAL")
    if (replaced?.type === "Directory" && this.#isWithin(source.parent, replaced)) throw failed("ENOTEMPTY")
    // Two names of one file are left alone, as POSIX asks.
    if (moved === replaced) return
    if (replaced !== undefined && moved.type === "Directory" && replaced.type !== "Directory") throw failed("ENOTDIR")
    if (replaced?.type === "Directory" && moved.type !== "Directory") throw failed("EISDIR")
    if (this.#isMountPoint(moved) || this.#isMountPoint(replaced)) throw failed("EBUSY")
    if (replaced?.type === "Directory" && replaced.entries.size > 0) throw failed("ENOTEMPTY")
    if (replaced !== undefined) this.#drop(target.parent, target.name, nowMillis)
    source.parent.entries.delete(source.name)
    source.parent.mtimeMillis = nowMillis
    this.#insert(target.parent, target.name, moved, nowMillis)
  }

  #isWithin(directory: Directory, ancestor: Directory): boolean {
    return directory === ancestor || (directory.parent !== undefined && this.#isWithin(directory.parent, ancestor))
  }

  // System calls on open files

  open(path: string, flag: FileSystem.OpenFlag, mode: number, noFollow: boolean, nowMillis: number): Handle {
    const creates = !flag.startsWith("r")
    const exclusive = flag.includes("x")
    const { name, node, parent, slash } = this.#walk(
      path,
      exclusive ? "name" : noFollow ? "keep" : creates ? "create" : "follow"
    )
    if (slash && creates) throw failed("EISDIR")
    if (node === undefined) {
      if (!creates) throw failed("ENOENT")
      const metadata = this.#born(parent, mode & 0o7777 & ~UMASK, nowMillis)
      const file: RegularFile = { ...metadata, type: "File", data: new Uint8Array(0), handles: 0 }
      this.#insert(parent, name, file, nowMillis)
      return this.#handle(file, flag)
    }
    if (exclusive) throw failed("EEXIST")
    if (node.type === "SymbolicLink") throw failed("ELOOP")
    if (node.type === "Directory" && flag !== "r") throw failed("EISDIR")
    if (node.type === "File" && flag.startsWith("w")) {
      this.#resize(node, 0)
      node.mtimeMillis = nowMillis
    }
    return this.#handle(node, flag)
  }

  #handle(node: Directory | RegularFile, flag: FileSystem.OpenFlag): Handle {
    node.volume.handles += 1
    if (node.type === "File") node.handles += 1
    return { node, flag, open: true }
  }

  close(handle: Handle): void {
    if (!handle.open) throw failed("EBADF")
    handle.open = false
    handle.node.volume.handles -= 1
    if (handle.node.type !== "File") return
    handle.node.handles -= 1
    this.#release(handle.node)
  }

  /** At most `length` bytes from `position`, as a copy; none at the end. */
  read(handle: Handle, position: number, length: number): Uint8Array {
    if (!handle.open || (handle.flag !== "r" && !handle.flag.includes("+"))) throw failed("EBADF")
    if (handle.node.type === "Directory") throw failed("EISDIR")
    return handle.node.data.slice(position, position + length)
  }

  /** Writes what there is room for and says how much that was. Appends when the handle does. */
  write(handle: Handle, position: number, bytes: Uint8Array, nowMillis: number): number {
    const file = this.#writable(handle)
    const { pages, pagesMax } = file.volume
    const start = handle.flag.startsWith("a") ? file.data.length : position
    const roomPages = pagesMax === 0 ? Number.POSITIVE_INFINITY : pagesMax - pages + pagesOf(file.data.length)
    const written = bytes.subarray(0, Math.max(0, Math.min(bytes.length, roomPages * PAGE_BYTES - start)))
    if (written.length === 0 && bytes.length > 0) throw failed("ENOSPC")
    const end = start + written.length
    if (end > file.data.length) this.#resize(file, end)
    file.data.set(written, start)
    file.mtimeMillis = nowMillis
    return written.length
  }

  ftruncate(handle: Handle, length: number, nowMillis: number): void {
    const file = this.#writable(handle)
    this.#resize(file, length)
    file.mtimeMillis = nowMillis
  }

  #writable(handle: Handle): RegularFile {
    if (!handle.open || handle.flag === "r") throw failed("EBADF")
    if (handle.node.type === "Directory") throw failed("EISDIR")
    return handle.node
  }

  // System calls on mounts

  /** As mount(2): stacks on what is mounted there already, and follows links. */
  mount(path: string, options: MemoryMountOptions, nowMillis: number): void {
    const covers = this.#directory(path)
    const root = this.#format(options.sizeBytes, options.mode & 0o7777, options.gid ?? 0, nowMillis)
    this.#setMounts([...this.#mounts, { root, covers, options, broken: undefined }])
  }

  /** The topmost mount at exactly this path. It need not be possible to enter it. */
  #mountAt(path: string): Mount {
    const { name, parent } = this.#above(path)
    const node = name === "" ? this.#root : parent.entries.get(name)
    if (node === undefined) throw failed("ENOENT")
    if (node.type !== "Directory") throw failed("EINVAL")
    let top = node.coveredBy
    for (let next = top; next !== undefined; next = next.root.coveredBy) top = next
    if (top === undefined) throw failed("EINVAL")
    return top
  }

  #above(path: string): { readonly parent: Directory; readonly name: string } {
    const names = namesIn(path)
    const name = names.pop() ?? ""
    return { parent: this.#directory(`/${names.join("/")}`), name }
  }

  /** As umount2(2) with UMOUNT_NOFOLLOW; `detach` is MNT_DETACH and takes mounts further in along. */
  umount(path: string, detach: boolean): void {
    const mount = this.#mountAt(path)
    const inner = this.#within(mount)
    if (!detach && (inner.size > 1 || mount.root.volume.handles > 0)) throw failed("EBUSY")
    this.#setMounts(this.#mounts.filter((each) => !inner.has(each)))
  }

  /** A mount and all mounts in it. */
  #within(mount: Mount): ReadonlySet<Mount> {
    const found = new Set([mount])
    // In the order of mounting, so an outer mount is met before those in it.
    for (const each of this.#mounts) {
      if ([...found].some(({ root }) => root.volume === each.covers.volume)) found.add(each)
    }
    return found
  }

  /** Makes the topmost mount at the path one that cannot be entered any more. */
  break(path: string, errno: Errno): void {
    this.#mountAt(path).broken = errno
  }

  /** In the order of mounting. */
  mounts(): ReadonlyArray<MemoryMount> {
    return this.#mounts.map(({ broken, covers, options, root }) => ({
      path: this.#pathOf(covers),
      sizeBytes: options.sizeBytes,
      usedBytes: root.volume.pages * PAGE_BYTES,
      mode: options.mode,
      gid: options.gid ?? 0,
      broken
    }))
  }

  /** How many mounts are stacked at exactly this path. */
  mountsAt(path: string): number {
    const place = this.#reachAbove(path)
    const covered = place?.parent.entries.get(place.name)
    let mounts = 0
    let mount = covered?.type === "Directory" ? covered.coveredBy : undefined
    for (; mount !== undefined; mount = mount.root.coveredBy) mounts += 1
    return mounts
  }

  #reachAbove(path: string): { readonly parent: Directory; readonly name: string } | undefined {
    try {
      return this.#above(path)
    } catch (cause) {
      if (cause instanceof SystemCallFailed) return undefined
      throw cause
    }
  }

  /** What a restart of the node does: no mount is left, and what they covered is visible again. */
  reboot(): void {
    this.#setMounts([])
  }

  /** What a reader of a directory finds, through links; names that begin with ".." are only listed. */
  readable(path: string): MemoryReadable {
    const directory = this.#directory(path)
    const names = [...directory.entries.keys()]
    const files = new Map<string, Uint8Array>()
    const visit = (from: Directory, name: string, shown: string) => {
      const node = this.#reach(from, name)
      if (node?.type === "File") files.set(shown, node.data)
      if (node?.type !== "Directory") return
      for (const entry of sorted(node.entries.keys())) visit(node, entry, `${shown}/${entry}`)
    }
    for (const name of sorted(names)) if (!name.startsWith("..")) visit(directory, name, name)
    return { names, dangling: names.filter((name) => this.#reach(directory, name) === undefined), files }
  }

  #reach(from: Directory, name: string): Inode | undefined {
    try {
      return this.#walk(name, "follow", from).node
    } catch (cause) {
      if (cause instanceof SystemCallFailed) return undefined
      throw cause
    }
  }

  /** All that is at and below a path, in the order of names. */
  snapshot(below: string): ReadonlyArray<MemoryEntry> {
    const found: Array<MemoryEntry> = []
    const visit = (path: string, covered: Inode) => {
      const mount = covered.type === "Directory" ? covered.coveredBy : undefined
      const broken = mount?.broken
      const node = covered.type === "Directory" && broken === undefined ? this.#enter(covered) : covered
      found.push({
        path,
        type: node.type,
        mode: node.mode.toString(8).padStart(4, "0"),
        uid: node.uid,
        gid: node.gid,
        mtimeMillis: node.mtimeMillis,
        ...(node.type === "File" ? { sizeBytes: node.data.length } : {}),
        ...(node.type === "SymbolicLink" ? { target: node.target } : {}),
        ...(mount === undefined ? {} : { mount: broken ?? "tmpfs" })
      })
      if (node.type !== "Directory" || broken !== undefined) return
      for (const name of sorted(node.entries.keys())) {
        const entry = node.entries.get(name)
        if (entry !== undefined) visit(`${path === "/" ? "" : path}/${name}`, entry)
      }
    }
    const { name, parent } = this.#above(below)
    const start = name === "" ? this.#root : parent.entries.get(name)
    if (start === undefined) throw failed("ENOENT")
    visit(`/${namesIn(below).join("/")}`, start)
    return found
  }
}
