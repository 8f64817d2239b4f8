/**
 * What is in a mounted volume: the files that a pod sees, whether there are any, and how to take all of them away.
 *
 * Names that start with ".." belong to the atomic writer. Symbolic links are looked at, never followed, so nothing
 * outside of the volume is listed or removed through a link of somebody else.
 *
 * @source driver v1.6.0, pkg/util/fileutil/filesystem.go; reference/driver.md 4.1, 4.5, Q3
 */
import { Effect, FileSystem, Option, PlatformError } from "effect"
import { cleanPath } from "./Payload.ts"

type Failed = PlatformError.PlatformError

/** The link to the current generation of files. */
export const DATA = "..data"

/** What the first of a provider's own files becomes when they are removed: whatever is beside it is not all of them. */
const CLEARING = "..clearing"

/** A volume is replaced about once a minute, and listed in milliseconds. */
const LIST_ATTEMPTS = 4

const isNotFound = (failed: Failed): boolean => failed.reason._tag === "NotFound"

/**
 * What went wrong with a file, in the form and words of Go: `open /dir/file: permission denied`.
 *
 * @shape  (failed) -> text
 * @errors none
 */
export const explain = ({ reason }: Failed): string => {
  if (reason._tag === "BadArgument") return reason.message
  const { cause, method, pathOrDescriptor = "", syscall = method } = reason
  if (!(cause instanceof Error)) return reason.message
  // Node says "ENOENT: no such file or directory, open '/dir/file'", and leaves the path out for an open file.
  const [, words = cause.message, paths] = /^[^:]+: ([^,]+)(?:, \w+(?: '(.*)')?)?$/su.exec(cause.message) ?? []
  return `${syscall} ${paths?.replace("' -> '", " ") ?? pathOrDescriptor}: ${words}`
}

// ---- reading

const walk = (path: string, key: string, found: Array<readonly [string, string]>): Walk =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    for (const { name, type } of yield* files.readDirectoryEntries(path)) {
      if (type === "Directory") yield* walk(`${path}/${name}`, `${key}/${name}`, found)
      else found.push([`${key}/${name}`, `${path}/${name}`])
    }
  })

type Walk = Effect.Effect<void, Failed, FileSystem.FileSystem>

const linksOf = Effect.fnUntraced(function* (targetPath: string, names: ReadonlyArray<string>) {
  const files = yield* FileSystem.FileSystem
  return yield* Effect.forEach(names, (name) =>
    Effect.map(files.readLink(`${targetPath}/${name}`), (link) => [name, link] as const)
  )
})

const isOwnLink = (link: string) => link.startsWith(`${DATA}/`) && !link.includes("/", DATA.length + 1)

/** The files of a volume whose `..data` leads to `generation`; undefined: it leads nowhere that is known. */
const listGeneration = Effect.fnUntraced(function* (targetPath: string, generation: string | undefined) {
  const files = yield* FileSystem.FileSystem
  const found: Array<readonly [string, string]> = []
  const add = Effect.fnUntraced(function* (key: string, path: string, type: FileSystem.File.Type) {
    if (type === "Directory") yield* walk(path, key, found)
    else found.push([key, path])
  })
  const visible = (yield* files.readDirectoryEntries(targetPath)).filter(({ name }) => !name.startsWith(".."))
  for (const { name, type } of visible) {
    if (type !== "SymbolicLink") yield* add(name, `${targetPath}/${name}`, type)
  }
  const links = yield* linksOf(
    targetPath,
    visible.flatMap(({ name, type }) => (type === "SymbolicLink" ? [name] : []))
  )
  const types = new Map<string, FileSystem.File.Type>()
  let directory = ""
  if (links.some(([, link]) => isOwnLink(link))) {
    directory = cleanPath(`${targetPath}/${generation ?? (yield* files.readLink(`${targetPath}/${DATA}`))}`)
    for (const { name, type } of yield* files.readDirectoryEntries(directory)) types.set(name, type)
  }
  for (const [name, link] of links) {
    if (isOwnLink(link)) {
      const inside = link.slice(DATA.length + 1)
      const type = types.get(inside)
      // A link without a file is not of this generation: its file comes with the next one, or went with the last.
      if (type !== undefined) yield* add(name, `${directory}/${inside}`, type)
    } else {
      const path = cleanPath(`${targetPath}/${link}`)
      yield* add(name, path, (yield* files.lstat(path)).type)
    }
  }
  return new Map(found.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
})

const currentGeneration = Effect.fnUntraced(function* (targetPath: string) {
  const files = yield* FileSystem.FileSystem
  return yield* files.readLink(`${targetPath}/${DATA}`).pipe(Effect.orElseSucceed(() => undefined))
})

/**
 * The files that a pod sees in a volume.
 *
 * The paths lead to one generation, which was current from the beginning of the listing to its end: reading all of them
 * gives one answer of the provider, or fails with NotFound when a newer one has taken its place meanwhile.
 *
 * @shape  (targetPath) -> map of name relative to the volume -> absolute path, sorted by name
 * @errors PlatformError: the volume or a part of it cannot be read, or it was replaced again and again meanwhile
 * @source driver v1.6.0, pkg/util/fileutil/filesystem.go, GetMountedFiles; reference/driver.md 4.5
 */
export const list = Effect.fnUntraced(function* (
  targetPath: string
): Effect.fn.Return<ReadonlyMap<string, string>, Failed, FileSystem.FileSystem> {
  for (let attempt = 0; attempt < LIST_ATTEMPTS; attempt++) {
    const generation = yield* currentGeneration(targetPath)
    const listed = yield* Effect.result(listGeneration(targetPath, generation))
    // Names of generations are not used twice: the same one means that nothing of it was removed.
    if ((yield* currentGeneration(targetPath)) === generation) return yield* Effect.fromResult(listed)
  }
  return yield* PlatformError.systemError({
    _tag: "NotFound",
    module: "MountedFiles",
    method: "list",
    pathOrDescriptor: targetPath,
    description: "the files were replaced while they were listed"
  })
})

/**
 * Whether a mount holds content. Links to a `..data` that is not there are what a crash leaves before the first
 * generation is complete; they are no content, and neither is what a removal that did not end has left.
 *
 * @shape  (targetPath) -> true when `..data` leads to a directory or a provider's own file is there; a missing target is
 *         not populated
 * @errors PlatformError: the target cannot be looked at
 * @source reference/driver.md Q3
 */
export const populated = Effect.fnUntraced(function* (
  targetPath: string
): Effect.fn.Return<boolean, Failed, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  const hasData = yield* files.stat(`${targetPath}/${DATA}`).pipe(
    Effect.map(({ type }) => type === "Directory"),
    // BadResource: a link to itself, or a target that is no directory, which the next step reports.
    Effect.catchIf(
      ({ reason }) => reason._tag === "NotFound" || reason._tag === "BadResource",
      () => Effect.succeed(false)
    )
  )
  if (hasData) return true
  const entries = yield* files
    .readDirectoryEntries(targetPath)
    .pipe(Effect.catchIf(isNotFound, () => Effect.succeed([])))
  if (entries.some(({ name }) => name === CLEARING)) return false
  const visible = entries.filter(({ name }) => !name.startsWith(".."))
  if (visible.some(({ type }) => type !== "SymbolicLink")) return true
  const links = yield* linksOf(
    targetPath,
    visible.map(({ name }) => name)
  )
  return links.some(([, link]) => !link.startsWith(`${DATA}/`))
})

// ---- removing

const removeOne = Effect.fnUntraced(function* (path: string, recursive: boolean) {
  const files = yield* FileSystem.FileSystem
  return yield* files.remove(path, { recursive }).pipe(
    Effect.as(undefined),
    Effect.catch((failed) => Effect.succeed(isNotFound(failed) ? undefined : explain(failed)))
  )
})

/**
 * Removes one entry of a directory with everything in it, as far as possible. A directory of thousands of files is
 * taken apart a few at a time: Node's own recursive removal starts on all of them at once and holds up everything else.
 *
 * @shape  (path, type) -> the first thing that could not be removed, or undefined; nothing there is success
 * @errors none
 */
export const removeEntry = (
  path: string,
  type: FileSystem.File.Type
): Effect.Effect<string | undefined, never, FileSystem.FileSystem> =>
  type === "Directory" ? removeDirectory(path) : removeOne(path, false)

/** What is in an entry goes, and the entry stays. */
const removeContent = Effect.fnUntraced(function* (path: string, type: FileSystem.File.Type) {
  const files = yield* FileSystem.FileSystem
  const removing =
    type === "Directory"
      ? Effect.flatMap(files.readDirectoryEntries(path), (entries) => removeEntries(path, entries))
      : Effect.as(files.writeFile(path, new Uint8Array()), [])
  return yield* Effect.match(removing, { onFailure: explain, onSuccess: ([first]) => first })
})

const removeDirectory = Effect.fnUntraced(function* (
  path: string
): Effect.fn.Return<string | undefined, never, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  const entries = yield* Effect.result(files.readDirectoryEntries(path))
  if (entries._tag === "Failure") return isNotFound(entries.failure) ? undefined : explain(entries.failure)
  const left = yield* removeEntries(path, entries.success)
  return left[0] ?? (yield* removeOne(path, true))
})

const removeEntries = Effect.fnUntraced(function* (
  directory: string,
  entries: ReadonlyArray<FileSystem.DirectoryEntry>
) {
  const left = yield* Effect.forEach(entries, ({ name, type }) =>
    type === "Directory" ? Effect.undefined : removeOne(`${directory}/${name}`, false)
  )
  for (const { name, type } of entries) {
    if (type === "Directory") left.push(yield* removeDirectory(`${directory}/${name}`))
  }
  return left.filter((text) => text !== undefined)
})

/** Says that what a provider has written is being removed. A rename needs no room, unlike a mark of our own. */
const markClearing = Effect.fnUntraced(function* (
  targetPath: string,
  entries: ReadonlyArray<FileSystem.DirectoryEntry>
): Effect.fn.Return<ReadonlyArray<FileSystem.DirectoryEntry>, never, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  if (entries.some(({ name }) => name === CLEARING)) return entries
  for (const entry of entries) {
    if (entry.name.startsWith("..") || entry.type === "SymbolicLink") continue
    const renamed = yield* Effect.result(files.rename(`${targetPath}/${entry.name}`, `${targetPath}/${CLEARING}`))
    if (renamed._tag === "Failure") continue
    return [...entries.filter((it) => it !== entry), { ...entry, name: CLEARING }]
  }
  return entries
})

/**
 * Removes everything below a target path, and not the target itself. What pods see goes first, in one step; if that is
 * refused, the rest stays as well: a part of the files must never pass for a volume, whatever comes next. A provider's own
 * files go one by one, and do not count as content from the first step on.
 *
 * @shape  (targetPath) -> a short text per entry that could not be removed; a missing target has nothing to remove
 * @errors none
 */
export const clear = Effect.fnUntraced(function* (
  targetPath: string
): Effect.fn.Return<ReadonlyArray<string>, never, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  const entries = yield* Effect.result(files.readDirectoryEntries(targetPath))
  if (entries._tag === "Failure") return isNotFound(entries.failure) ? [] : [explain(entries.failure)]
  const markPath = `${targetPath}/${CLEARING}`
  const named = (wanted: string) => (entry: FileSystem.DirectoryEntry) => entry.name === wanted
  const left = [...(yield* removeEntries(targetPath, entries.success.filter(named(DATA))))]
  if (left.length > 0) return left
  const others = yield* markClearing(
    targetPath,
    entries.success.filter((entry) => !named(DATA)(entry))
  )
  left.push(
    ...(yield* removeEntries(
      targetPath,
      others.filter((entry) => !named(CLEARING)(entry))
    ))
  )
  const mark = others.find(named(CLEARING))
  if (mark === undefined) return left
  const removed =
    left.length === 0 ? yield* removeEntry(markPath, mark.type) : yield* removeContent(markPath, mark.type)
  return removed === undefined ? left : [...left, removed]
})

// ---- the clock that other releases of the driver read

/**
 * When the volume was last written.
 *
 * @shape  (targetPath) -> mtime of the directory, or undefined when it cannot be told
 * @units  milliseconds since the Unix epoch
 * @errors none
 * @source driver v1.6.0, pkg/secrets-store/utils.go, getLastUpdateTime; reference/driver.md 7.1, Q4
 */
export const lastChange = Effect.fnUntraced(function* (
  targetPath: string
): Effect.fn.Return<number | undefined, never, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  return yield* files.stat(targetPath).pipe(
    Effect.map(({ mtime }) => Option.getOrUndefined(mtime)?.getTime()),
    Effect.orElseSucceed(() => undefined)
  )
})

/**
 * Says that the volume is as good as newly written.
 *
 * @shape  (targetPath, millis) -> void
 * @units  milliseconds since the Unix epoch
 * @errors none: a clock that cannot be set only causes an early refresh after a restart
 */
export const touch = Effect.fnUntraced(function* (
  targetPath: string,
  millis: number
): Effect.fn.Return<void, never, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  // Seconds as a fraction are cut off on their way to the disk: half a millisecond more, and the same one is read back.
  const seconds = (millis + 0.5) / 1000
  yield* Effect.ignore(files.utimes(targetPath, seconds, seconds))
})
