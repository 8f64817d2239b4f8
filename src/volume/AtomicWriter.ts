/**
 * Writes the files of a volume so that a reader sees one answer of the provider, old or new, and never a mixture.
 *
 * Each answer becomes a directory of its own, a generation; `..data` links to the current one and each visible name
 * links into `..data`, so that one rename exchanges everything. What a crash or a failure leaves behind is neither
 * content nor in the way: the next write removes it. A write that fails before the rename takes back what it has made.
 *
 * The generation that was replaced stays a while for readers that began in it (`OldGenerations`). There is one such at a
 * time: a write that would replace the next one before that waits until it is gone.
 *
 * @source driver v1.6.0, pkg/util/fileutil; reference/driver.md 3.5, 4, Q6, Q7, Q29, Q31, Q32
 */
import { DateTime, Effect, FileSystem, Option, type PlatformError, Random, Redacted, Result } from "effect"
import { FilesNotWritten } from "../../schemas/errors/FilesNotWritten.ts"
import type { PayloadFile } from "../../schemas/Provider.ts"
import { DATA, explain, removeEntry } from "./MountedFiles.ts"
import { OldGenerations } from "./OldGenerations.ts"
import * as Payload from "./Payload.ts"

type Failed = PlatformError.PlatformError
type FileType = FileSystem.File.Type

export interface WriteOptions {
  /** Group that owns every file and directory and may read them; undefined leaves ownership alone. */
  readonly gid?: number
  /** Told the name of a new generation as soon as it is there: long before it is what readers see. */
  readonly onGeneration?: (name: string) => void
}

/** What `..data` becomes by the rename. */
const DATA_NEXT = "..data_next"
/** Upstream's name for it. A release of upstream that finds one cannot write any more, so that ours has another name. */
const UPSTREAM_NEXT = "..data_tmp"
const GENERATION = /^\.\.\d{4}(?:_\d{2}){5}\.\d+$/u
const DIRECTORY_MODE = 0o755
const GROUP_READS = 0o440
/** Two writes of one second have different names; more than a few equal ones are not chance. */
const NAME_RETRIES = 4
/** Between so many files other fibers run, and an interruption is heard. */
const CHUNK = 64

const modeOf = (file: PayloadFile, { gid }: WriteOptions): number =>
  gid === undefined ? file.mode : file.mode | GROUP_READS

/** Everything in turn, with a pause after every chunk: on a tmpfs there is nothing to wait for, and so to overlap. */
const inChunks = <A, B, E, R>(
  items: Iterable<A>,
  pause: Effect.Effect<void>,
  use: (item: A) => Effect.Effect<B, E, R>
): Effect.Effect<void, E, R> =>
  Effect.gen(function* () {
    let chunk: Array<A> = []
    for (const item of items) {
      if (chunk.length === CHUNK) {
        yield* Effect.forEach(chunk, use, { discard: true })
        yield* pause
        chunk = []
      }
      chunk.push(item)
    }
    yield* Effect.forEach(chunk, use, { discard: true })
  })

// ---- observe

export interface Observed {
  /** What is in the target directory, by name. */
  readonly entries: ReadonlyMap<string, FileType>
  /** The generation that `..data` names; undefined before the first, or when the link leads to no name of ours. */
  readonly current: string | undefined
  /** A generation that was replaced, and is kept for readers that are still in it. */
  readonly kept: string | undefined
  /** All that is in the current generation, by relative path; undefined when it cannot be walked. */
  readonly generation: ReadonlyMap<string, FileType> | undefined
  /** Every file has the mode, group and content of the payload's. Looked at only when the paths are the same. */
  readonly filesEqual: boolean
  /** Visible names that link into `..data`, though neither the payload nor the current generation has them. */
  readonly surplusLinks: ReadonlyArray<string>
}

/**
 * Paths of an older generation that a payload has neither as file nor as directory.
 *
 * @shape  (paths, payload) -> the stale ones of `paths`, in their order
 * @errors none
 * @source driver v1.6.0, pkg/util/fileutil/atomic_writer.go, pathsToRemove; reference/driver.md 4.3 #3
 */
export const stalePaths = (paths: Iterable<string>, payload: Payload.Payload): ReadonlyArray<string> =>
  [...paths].filter((path) => !payload.files.has(path) && !payload.directories.has(path))

/** A name that is a file there and a directory here is a difference, not an error (Q7). */
const hasPathsOf = (generation: ReadonlyMap<string, FileType>, payload: Payload.Payload): boolean =>
  generation.size === payload.files.size + payload.directories.size &&
  generation.entries().every(([path, type]) => {
    if (type === "File") return payload.files.has(path)
    return type === "Directory" && payload.directories.has(path)
  })

const walk = (
  directory: string,
  prefix: string,
  found: Map<string, FileType>
): Effect.Effect<void, Failed, FileSystem.FileSystem> =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    for (const { name, type } of yield* files.readDirectoryEntries(directory)) {
      found.set(`${prefix}${name}`, type)
      if (type === "Directory") yield* walk(`${directory}/${name}`, `${prefix}${name}/`, found)
    }
  })

class Differs {
  readonly _tag = "Differs"
}

/** The cheap questions first, of all files: nothing is read of a generation in which a size has changed. */
const compare = Effect.fnUntraced(
  function* (directory: string, payload: Payload.Payload, options: WriteOptions) {
    const files = yield* FileSystem.FileSystem
    const differs = Effect.fail(new Differs())
    yield* inChunks(payload.files, Effect.yieldNow, ([path, file]) =>
      Effect.flatMap(files.lstat(`${directory}/${path}`), ({ gid, mode, size }) =>
        (mode & 0o7777) === modeOf(file, options) &&
        Number(size) === Redacted.value(file.contents).length &&
        (options.gid === undefined || Option.getOrUndefined(gid) === options.gid)
          ? Effect.void
          : differs
      )
    )
    yield* inChunks(payload.files, Effect.yieldNow, ([path, { contents }]) =>
      Effect.flatMap(files.readFile(`${directory}/${path}`), (bytes) =>
        Buffer.compare(bytes, Redacted.value(contents)) === 0 ? Effect.void : differs
      )
    )
    return true
  },
  // What cannot be read is written anew.
  (effect) => Effect.orElseSucceed(effect, () => false)
)

const readCurrent = Effect.fnUntraced(function* (targetPath: string, type: FileType | undefined) {
  if (type === undefined) return undefined
  const path = `${targetPath}/${DATA}`
  if (type !== "SymbolicLink") {
    return yield* new FilesNotWritten({ targetPath, detail: `readlink ${path}: invalid argument` })
  }
  const files = yield* FileSystem.FileSystem
  const link = yield* files.readLink(path)
  // Anything else is no directory that this writer has made, and is left alone.
  return link.startsWith("..") && link.length > 2 && !link.includes("/") && !link.startsWith(DATA) ? link : undefined
})

/**
 * Reads all that decides a write: few calls for a new volume, and the old files' contents only when all else is equal.
 *
 * @shape  (targetPath, payload, options) -> Observed
 * @errors PlatformError and FilesNotWritten: the target is not there, or `..data` is no link
 */
export const observe = Effect.fnUntraced(function* (
  targetPath: string,
  payload: Payload.Payload,
  options: WriteOptions
): Effect.fn.Return<Observed, Failed | FilesNotWritten, FileSystem.FileSystem | OldGenerations> {
  const files = yield* FileSystem.FileSystem
  const old = yield* OldGenerations
  const listed = yield* files
    .readDirectoryEntries(targetPath)
    .pipe(
      Effect.mapError((failed) =>
        failed.reason._tag === "NotFound"
          ? new FilesNotWritten({ targetPath, detail: `stat ${targetPath}: no such file or directory` })
          : failed
      )
    )
  const entries = new Map(listed.map(({ name, type }) => [name, type]))
  const current = yield* readCurrent(targetPath, entries.get(DATA))
  const kept = listed.find(({ name }) => old.isKept(`${targetPath}/${name}`))?.name
  const found = new Map<string, FileType>()
  const generation =
    current === undefined
      ? undefined
      : yield* walk(`${targetPath}/${current}`, "", found).pipe(
          Effect.as(found),
          Effect.orElseSucceed(() => undefined)
        )
  const filesEqual =
    generation !== undefined &&
    hasPathsOf(generation, payload) &&
    (yield* compare(`${targetPath}/${current}`, payload, options))
  const surplusLinks: Array<string> = []
  for (const { name, type } of listed) {
    if (type !== "SymbolicLink" || name.startsWith("..") || payload.names.has(name)) continue
    // Names that the current generation has are known to be stale without asking.
    if (generation?.has(name) === true) continue
    const link = yield* files.readLink(`${targetPath}/${name}`)
    if (link.startsWith(`${DATA}/`)) surplusLinks.push(name)
  }
  return { entries, current, kept, generation, filesEqual, surplusLinks }
})

// ---- decide

interface Upkeep {
  /** Entries where a link belongs: left by a provider that once wrote the files itself. */
  readonly blocking: ReadonlyArray<string>
  /** Visible names to link into `..data`. */
  readonly links: ReadonlyArray<string>
  /** Visible names of files that are gone. */
  readonly stale: ReadonlyArray<string>
  /** What writes that did not end have left, of whichever release: generations, and a link that is not exchanged yet. */
  readonly leftovers: ReadonlyArray<string>
}

export type Plan =
  | { readonly _tag: "Nothing" }
  /** There is to be a new generation, and readers may still be in the one before the current one. */
  | { readonly _tag: "AwaitReaders"; readonly kept: string }
  | (Upkeep & { readonly _tag: "RepairLinks" })
  | (Upkeep & {
      readonly _tag: "Write"
      /** Parents before children. */
      readonly directories: ReadonlySet<string>
      readonly files: ReadonlyMap<string, PayloadFile>
      /** The generation that the new one replaces. */
      readonly previous: string | undefined
    })

/**
 * What has to be done for a volume to hold a payload and nothing else of ours.
 *
 * Names in the payload that are links already stay as they are, whoever made them.
 *
 * @shape  (observed, payload) -> Plan; `Nothing` when the volume is as it should be
 * @errors none: every input has a plan
 * @source driver v1.6.0, pkg/util/fileutil/atomic_writer.go and writer.go; reference/driver.md 3.5 #2, 4.3, Q31, Q32
 */
export const plan = (observed: Observed, payload: Payload.Payload): Plan => {
  const { current, entries, filesEqual, generation, kept, surplusLinks } = observed
  const unchanged = filesEqual && generation !== undefined && hasPathsOf(generation, payload)
  // Of a volume there are two generations at most: each takes its room on the tmpfs, and holds secrets.
  if (!unchanged && kept !== undefined) return { _tag: "AwaitReaders", kept }
  const unlinked = [...payload.names].filter((name) => entries.get(name) !== "SymbolicLink")
  // Of the old generation's names, a directory in its place is somebody's own and stays.
  const old = generation === undefined ? [] : stalePaths(generation.keys(), payload)
  const isVisible = (name: string) => entries.has(name) && entries.get(name) !== "Directory"
  const upkeep: Upkeep = {
    blocking: unlinked.filter((name) => entries.has(name)),
    links: unlinked,
    stale: [...new Set([...surplusLinks, ...old.filter(isVisible)])],
    leftovers: [...entries.keys()].filter(
      (name) =>
        name === DATA_NEXT || name === UPSTREAM_NEXT || (GENERATION.test(name) && name !== current && name !== kept)
    )
  }
  if (!unchanged) {
    const previous = current !== undefined && entries.has(current) ? current : undefined
    return { _tag: "Write", ...upkeep, directories: payload.directories, files: payload.files, previous }
  }
  const settled = upkeep.links.length + upkeep.stale.length + upkeep.leftovers.length === 0
  return settled ? { _tag: "Nothing" } : { _tag: "RepairLinks", ...upkeep }
}

// ---- perform

/** Everything in here runs uninterruptibly; between files `pause` lets an interruption in. */
interface Work {
  readonly targetPath: string
  readonly entries: Observed["entries"]
  readonly options: WriteOptions
  readonly pause: Effect.Effect<void>
}

const removeAll = Effect.fnUntraced(function* ({ entries, targetPath }: Work, names: ReadonlyArray<string>) {
  const left: Array<string> = []
  for (const name of names) {
    const text = yield* removeEntry(`${targetPath}/${name}`, entries.get(name) ?? "File")
    if (text !== undefined) left.push(text)
  }
  return left
})

/** `made` learns each link that was not there before. */
const makeLinks = Effect.fnUntraced(function* (work: Work, { blocking, links }: Upkeep, made: Array<string>) {
  const { pause, targetPath } = work
  const files = yield* FileSystem.FileSystem
  const [left] = yield* removeAll(work, blocking)
  if (left !== undefined) return yield* new FilesNotWritten({ targetPath, detail: `cleanup failure: ${left}` })
  yield* inChunks(links, pause, (name) =>
    files.symlink(`${DATA}/${name}`, `${targetPath}/${name}`).pipe(
      Effect.tap(() => Effect.sync(() => made.push(name))),
      Effect.catchIf(
        ({ reason }) => reason._tag === "AlreadyExists",
        () => Effect.void
      )
    )
  )
})

const digits = (value: number, length: number) => `${value}`.padStart(length, "0")

const generationName = Effect.gen(function* () {
  const { day, hour, minute, month, second, year } = DateTime.toPartsUtc(yield* DateTime.now)
  const random = yield* Random.nextIntBetween(0, 2 ** 32)
  return `..${digits(year, 4)}_${[month, day, hour, minute, second].map((part) => digits(part, 2)).join("_")}.${random}`
})

const makeGeneration = (targetPath: string) =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const name = yield* generationName
    const path = `${targetPath}/${name}`
    yield* files.makeDirectory(path, { mode: DIRECTORY_MODE }).pipe(
      Effect.tapError(({ reason }) =>
        // Of another failure it is not known whether the directory was made.
        reason._tag === "AlreadyExists" ? Effect.void : Effect.asVoid(removeEntry(path, "Directory"))
      )
    )
    return name
  }).pipe(Effect.retry({ times: NAME_RETRIES, while: ({ reason }) => reason._tag === "AlreadyExists" }))

/** Directories, files, modes and owners of a new generation. */
const fill = Effect.fnUntraced(function* (work: Work, change: Plan & { readonly _tag: "Write" }, generation: string) {
  const { options, pause, targetPath } = work
  const files = yield* FileSystem.FileSystem
  const root = `${targetPath}/${generation}`
  // What the process's umask let through, and what new files belong to, is asked of the first directory: files of the
  // usual modes then need no call but their own creation.
  const made = yield* files.lstat(root)
  const granted = made.mode & DIRECTORY_MODE
  const uid = Option.getOrElse(made.uid, () => -1)
  const { gid } = options
  const owns = gid === undefined || Option.getOrUndefined(made.gid) === gid
  const settle = (path: string, mode: number) =>
    Effect.gen(function* () {
      if (!owns) yield* files.chown(path, uid, gid)
      if ((mode & ~granted) !== 0) yield* files.chmod(path, mode)
    })
  yield* settle(root, DIRECTORY_MODE)
  for (const directory of change.directories) {
    const path = `${root}/${directory}`
    yield* files.makeDirectory(path, { mode: DIRECTORY_MODE })
    yield* settle(path, DIRECTORY_MODE)
  }
  yield* inChunks(change.files, pause, ([relative, file]) => {
    const path = `${root}/${relative}`
    const mode = modeOf(file, options)
    return Effect.andThen(
      files.writeFile(path, Redacted.value(file.contents), { flag: "wx", mode }),
      settle(path, mode)
    )
  })
})

/** undefined: it cannot be told. */
const leadsTo = Effect.fnUntraced(function* (targetPath: string, generation: string) {
  const files = yield* FileSystem.FileSystem
  return yield* files.readLink(`${targetPath}/${DATA}`).pipe(
    Effect.map((link) => link === generation),
    Effect.catch(({ reason }) => Effect.succeed(reason._tag === "NotFound" ? false : undefined))
  )
})

/** The one step that readers see. It may have happened though its answer is a failure, so the link is asked. */
const exchange = Effect.fnUntraced(function* (targetPath: string, generation: string) {
  const files = yield* FileSystem.FileSystem
  yield* files
    .rename(`${targetPath}/${DATA_NEXT}`, `${targetPath}/${DATA}`)
    .pipe(
      Effect.catch((failed) =>
        Effect.flatMap(leadsTo(targetPath, generation), (leads) => (leads === true ? Effect.void : Effect.fail(failed)))
      )
    )
})

/** Takes back what a failed write has made. A generation that may be current stays: the next write knows more. */
const takeBack = Effect.fnUntraced(function* (targetPath: string, generation: string, links: ReadonlyArray<string>) {
  if ((yield* leadsTo(targetPath, generation)) !== false) return
  for (const name of [DATA_NEXT, ...links]) yield* removeEntry(`${targetPath}/${name}`, "SymbolicLink")
  yield* removeEntry(`${targetPath}/${generation}`, "Directory")
})

const writeGeneration = Effect.fnUntraced(function* (work: Work, change: Plan & { readonly _tag: "Write" }) {
  const { pause, targetPath } = work
  const files = yield* FileSystem.FileSystem
  const madeLinks: Array<string> = []
  const generation = yield* makeGeneration(targetPath)
  work.options.onGeneration?.(generation)
  yield* Effect.gen(function* () {
    yield* fill(work, change, generation)
    yield* files.symlink(generation, `${targetPath}/${DATA_NEXT}`)
    // Before the exchange, so that a new generation is never without its names. Until then the new ones lead nowhere.
    yield* makeLinks(work, change, madeLinks)
    yield* pause
    yield* exchange(targetPath, generation)
  }).pipe(Effect.onError(() => takeBack(targetPath, generation, madeLinks)))
})

const perform = (
  targetPath: string,
  entries: Observed["entries"],
  change: Extract<Plan, Upkeep>,
  options: WriteOptions
) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const old = yield* OldGenerations
      const work: Work = { targetPath, entries, options, pause: restore(Effect.yieldNow) }
      // First what takes room and what is in the way. What cannot be removed is reported at the end: it holds secrets.
      const left = yield* removeAll(work, change.leftovers)
      if (change._tag === "Write") yield* writeGeneration(work, change)
      else yield* makeLinks(work, change, [])
      left.push(...(yield* removeAll(work, change.stale)))
      if (change._tag === "Write" && change.previous !== undefined) {
        yield* old.retire(targetPath, change.previous, entries.get(change.previous) ?? "Directory")
      }
      const detail = left.at(-1)
      if (detail !== undefined) return yield* new FilesNotWritten({ targetPath, detail })
    })
  )

/**
 * Writes a checked payload; for the rules of paths that `write` adds see `Payload.check`.
 *
 * @shape  (targetPath, payload, options) -> { changed }: whether a reader could see a difference
 * @errors FilesNotWritten, with the errno's words
 * @source driver v1.6.0, pkg/util/fileutil/atomic_writer.go, Write; reference/driver.md 4.3
 */
export const writePayload = Effect.fnUntraced(
  function* (targetPath: string, payload: Payload.Payload, options: WriteOptions) {
    const old = yield* OldGenerations
    let observed = yield* observe(targetPath, payload, options)
    let change = plan(observed, payload)
    while (change._tag === "AwaitReaders") {
      yield* old.untilGone(`${targetPath}/${change.kept}`)
      observed = yield* observe(targetPath, payload, options)
      change = plan(observed, payload)
    }
    if (change._tag === "Nothing") return { changed: false }
    yield* perform(targetPath, observed.entries, change, options)
    return { changed: change._tag === "Write" || change.links.length + change.stale.length > 0 }
  },
  (effect, targetPath) =>
    Effect.catchTag(effect, "PlatformError", (failed) =>
      Effect.fail(new FilesNotWritten({ targetPath, detail: explain(failed) }))
    )
)

/**
 * Makes the files of a provider's answer those of the volume. A volume that has them already is not touched.
 *
 * @shape  (targetPath, files, { gid }) -> { changed }: whether a reader could see a difference
 * @units  gid: a numeric group id
 * @errors FilesNotWritten: a path is not allowed (nothing was touched), or the disk refused (the old files stay, or, if
 *         only the removal of old names or leftovers was refused, the new ones are in place). The generation that was
 *         replaced is removed later; if that is refused, it is logged, and the next write tries again
 * @source driver v1.6.0, pkg/util/fileutil/writer.go, WritePayloads; reference/driver.md 3.5
 */
export const write = Effect.fn("AtomicWriter.write")(function* (
  targetPath: string,
  files: ReadonlyArray<PayloadFile>,
  options: WriteOptions
): Effect.fn.Return<{ readonly changed: boolean }, FilesNotWritten, FileSystem.FileSystem | OldGenerations> {
  const payload = Payload.check(files)
  if (Result.isFailure(payload)) return yield* new FilesNotWritten({ targetPath, detail: payload.failure })
  return yield* writePayload(targetPath, payload.success, options)
})
