/** What the atomic writer decides (reference/driver.md 4), and what it does on a real disk and on the one in memory. */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Result, Schema } from "effect"
import * as MemoryNode from "../../layers/fake/MemoryNode.ts"
import * as AtomicWriter from "../../src/volume/AtomicWriter.ts"
import * as Payload from "../../src/volume/Payload.ts"
import { atOnce, type Files, layout, layoutOf, payloadOf, suite, view, viewOf } from "../contracts/AtomicWriterSuite.ts"

const { plan, stalePaths } = AtomicWriter
type Observed = AtomicWriter.Observed
type Plan = AtomicWriter.Plan

const write = (...request: Parameters<typeof AtomicWriter.write>) => atOnce(AtomicWriter.write(...request))

const payload = (files: Files) => Result.getOrThrow(Payload.check(payloadOf(files)))

/** Every path of a generation with these files. */
const pathsOf = (...paths: ReadonlyArray<string>) => {
  const { directories, files } = payload(Object.fromEntries(paths.map((path) => [path, ""])))
  return [...directories, ...files.keys()]
}

describe("4.6 stale", () => {
  it.each([
    { name: "simple", old: ["foo.txt", "bar.txt"], next: ["foo.txt"], expected: ["bar.txt"] },
    { name: "simple 2", old: ["foo.txt", "zip/bar.txt"], next: ["foo.txt"], expected: ["zip", "zip/bar.txt"] },
    {
      name: "subdirs 1",
      old: ["foo.txt", "zip/zap/bar.txt"],
      next: ["foo.txt"],
      expected: ["zip", "zip/zap", "zip/zap/bar.txt"]
    },
    {
      name: "subdirs 2",
      old: ["foo.txt", "zip/1/2/3/4/bar.txt"],
      next: ["foo.txt"],
      expected: ["zip", "zip/1", "zip/1/2", "zip/1/2/3", "zip/1/2/3/4", "zip/1/2/3/4/bar.txt"]
    },
    {
      name: "subdirs 3",
      old: ["foo.txt", "zip/1/2/3/4/bar.txt", "zap/a/b/c/bar.txt"],
      next: ["foo.txt"],
      expected: [
        "zap",
        "zap/a",
        "zap/a/b",
        "zap/a/b/c",
        "zap/a/b/c/bar.txt",
        "zip",
        "zip/1",
        "zip/1/2",
        "zip/1/2/3",
        "zip/1/2/3/4",
        "zip/1/2/3/4/bar.txt"
      ]
    },
    {
      name: "subdirs 4",
      old: ["foo.txt", "zap/1/2/3/4/bar.txt", "zap/1/2/c/bar.txt", "zap/1/2/magic.txt"],
      next: ["foo.txt", "zap/1/2/magic.txt"],
      expected: ["zap/1/2/3", "zap/1/2/3/4", "zap/1/2/3/4/bar.txt", "zap/1/2/c", "zap/1/2/c/bar.txt"]
    },
    {
      name: "subdirs 5",
      old: ["foo.txt", "zap/1/2/3/4/bar.txt", "zap/1/2/c/bar.txt"],
      next: ["foo.txt", "zap/1/2/magic.txt"],
      expected: ["zap/1/2/3", "zap/1/2/3/4", "zap/1/2/3/4/bar.txt", "zap/1/2/c", "zap/1/2/c/bar.txt"]
    }
  ])("$name", ({ expected, next, old }) =>
    assert.deepStrictEqual(
      [...stalePaths(pathsOf(...old), payload(Object.fromEntries(next.map((path) => [path, ""]))))].sort(),
      expected
    )
  )
})

const CURRENT = "..2026_11_23_14_33_34.1"
const ORPHAN = "..2026_11_23_14_33_33.2"

/** A volume with foo and bar/baz, as it was written. */
const settled: Observed = {
  entries: new Map([
    [CURRENT, "Directory"],
    ["..data", "SymbolicLink"],
    ["foo", "SymbolicLink"],
    ["bar", "SymbolicLink"]
  ]),
  current: CURRENT,
  kept: undefined,
  generation: new Map([
    ["foo", "File"],
    ["bar", "Directory"],
    ["bar/baz", "File"]
  ]),
  filesEqual: true,
  surplusLinks: []
}
const same: Files = { foo: "", "bar/baz": "" }
const none = { blocking: [], links: [], stale: [], leftovers: [] }

const withEntries = (...entries: ReadonlyArray<readonly [string, FileSystem.File.Type]>): Observed => ({
  ...settled,
  entries: new Map([...settled.entries, ...entries])
})
const without = (name: string): Observed => ({
  ...settled,
  entries: new Map([...settled.entries].filter(([key]) => key !== name))
})

/** A plan without the payload in it. */
const brief = (change: Plan) => {
  if (change._tag !== "Write") return change
  const { directories: _, files: __, ...rest } = change
  return rest
}

interface PlanRow {
  readonly row: string
  readonly name: string
  readonly observed: Observed
  readonly next?: Files
  readonly expected: ReturnType<typeof brief>
}

const plans: ReadonlyArray<PlanRow> = [
  { row: "4.3 #3c", name: "nothing differs", observed: settled, expected: { _tag: "Nothing" } },
  {
    row: "4.3 #2",
    name: "an empty volume",
    observed: {
      entries: new Map(),
      current: undefined,
      kept: undefined,
      generation: undefined,
      filesEqual: false,
      surplusLinks: []
    },
    expected: { _tag: "Write", ...none, links: ["foo", "bar"], previous: undefined }
  },
  {
    row: "4.3 #3b",
    name: "content or mode differs",
    observed: { ...settled, filesEqual: false },
    expected: { _tag: "Write", ...none, previous: CURRENT }
  },
  {
    row: "4.3 #3a",
    name: "a name is gone",
    observed: settled,
    next: { foo: "" },
    expected: { _tag: "Write", ...none, stale: ["bar"], previous: CURRENT }
  },
  {
    row: "4.3 #3a",
    name: "a file deep inside is gone, its name is not",
    observed: settled,
    next: { foo: "", "bar/x": "" },
    expected: { _tag: "Write", ...none, previous: CURRENT }
  },
  {
    row: "4.3 #3a",
    name: "an empty directory too many in the generation",
    observed: { ...settled, generation: new Map([...settled.generation!, ["empty", "Directory"]]) },
    expected: { _tag: "Write", ...none, previous: CURRENT }
  },
  {
    row: "4.3 #6",
    name: "a new name",
    observed: settled,
    next: { ...same, new: "" },
    expected: { _tag: "Write", ...none, links: ["new"], previous: CURRENT }
  },
  {
    row: "4.4",
    name: "an empty payload",
    observed: settled,
    next: {},
    expected: { _tag: "Write", ...none, stale: ["foo", "bar"], previous: CURRENT }
  },
  {
    row: "4.4",
    name: "..data leads nowhere",
    observed: { ...without(CURRENT), generation: undefined, filesEqual: false },
    expected: { _tag: "Write", ...none, previous: undefined }
  },
  {
    row: "Q7",
    name: "a file becomes a directory: the link stays",
    observed: settled,
    next: { "foo/x": "", "bar/baz": "" },
    expected: { _tag: "Write", ...none, previous: CURRENT }
  },
  {
    row: "Q7",
    name: "a directory becomes a file: the link stays",
    observed: settled,
    next: { foo: "", bar: "" },
    expected: { _tag: "Write", ...none, previous: CURRENT }
  },
  {
    row: "Q31",
    name: "leftovers, content unchanged",
    observed: withEntries(["..data_next", "SymbolicLink"], ["..data_tmp", "SymbolicLink"], [ORPHAN, "Directory"]),
    expected: { _tag: "RepairLinks", ...none, leftovers: ["..data_next", "..data_tmp", ORPHAN] }
  },
  {
    row: "Q31",
    name: "leftovers, content changed: the current one is not among them",
    observed: { ...withEntries([ORPHAN, "Directory"]), filesEqual: false },
    expected: { _tag: "Write", ...none, leftovers: [ORPHAN], previous: CURRENT }
  },
  {
    row: "Q31",
    name: "other reserved names are not ours",
    observed: withEntries(["..other", "Directory"], ["..2026_1_1_1_1_1.1", "Directory"], ["..data_tmp2", "File"]),
    expected: { _tag: "Nothing" }
  },
  {
    row: "grace",
    name: "an old generation that has readers is no leftover, content unchanged",
    observed: { ...withEntries([ORPHAN, "Directory"]), kept: ORPHAN },
    expected: { _tag: "Nothing" }
  },
  {
    row: "grace",
    name: "an old generation that has readers, beside one of a killed write",
    observed: { ...withEntries([ORPHAN, "Directory"], ["..2026_11_23_14_33_32.3", "Directory"]), kept: ORPHAN },
    expected: { _tag: "RepairLinks", ...none, leftovers: ["..2026_11_23_14_33_32.3"] }
  },
  {
    row: "grace",
    name: "content changed, and the generation before the current one has readers: there are not three",
    observed: { ...withEntries([ORPHAN, "Directory"]), kept: ORPHAN, filesEqual: false },
    expected: { _tag: "AwaitReaders", kept: ORPHAN }
  },
  {
    row: "Q32",
    name: "a link is missing",
    observed: without("bar"),
    expected: { _tag: "RepairLinks", ...none, links: ["bar"] }
  },
  {
    row: "Q32",
    name: "a link of ours to no file of the generation",
    observed: { ...withEntries(["x", "SymbolicLink"]), surplusLinks: ["x"] },
    expected: { _tag: "RepairLinks", ...none, stale: ["x"] }
  },
  {
    row: "3.5 #2",
    name: "a provider's file and directory where links belong",
    observed: withEntries(["foo", "File"], ["bar", "Directory"]),
    expected: { _tag: "RepairLinks", ...none, blocking: ["foo", "bar"], links: ["foo", "bar"] }
  },
  {
    row: "3.5 #2",
    name: "a provider's own files beside ours stay",
    observed: withEntries(["own", "File"], ["owndir", "Directory"], ["ownlink", "SymbolicLink"]),
    expected: { _tag: "Nothing" }
  },
  {
    row: "4.3 #9",
    name: "a directory in the place of a name that is gone stays",
    observed: withEntries(["bar", "Directory"]),
    next: { foo: "" },
    expected: { _tag: "Write", ...none, previous: CURRENT }
  }
]

describe("4.3 plan", () => {
  it.each(plans)("$row $name", ({ expected, next, observed }) =>
    assert.deepStrictEqual(brief(plan(observed, payload(next ?? same))), expected)
  )
})

// ---- properties

/** Few names, so that files, directories and what is there already meet. */
const Name = Schema.Literals(["a", "b", "c", "a/b", "a/b/c", "b/a", "c/c/c"])
const Answer = Schema.Array(Name)
const Type = Schema.Literals(["File", "Directory", "SymbolicLink"])
const Entry = Schema.Tuple([
  Schema.Literals(["a", "b", "c", "x", "y", "..data", "..data_tmp", "..data_next", CURRENT, ORPHAN, "..other"]),
  Type
])
const Old = Schema.Struct({
  entries: Schema.Array(Entry),
  hasCurrent: Schema.Boolean,
  hasKept: Schema.Boolean,
  generation: Schema.Array(Schema.Tuple([Name, Type])),
  walked: Schema.Boolean,
  filesEqual: Schema.Boolean,
  surplus: Schema.Array(Schema.Literals(["x", "y", "a", "b"]))
})

/** What is there once a plan has been carried out. */
const applied = (observed: Observed, change: Plan): Observed => {
  if (change._tag === "Nothing") return observed
  const entries = new Map(observed.entries)
  if (change._tag === "AwaitReaders") {
    entries.delete(change.kept)
    return { ...observed, entries, kept: undefined }
  }
  for (const name of [...change.blocking, ...change.leftovers]) entries.delete(name)
  for (const name of change.links) entries.set(name, "SymbolicLink")
  for (const name of change.stale) entries.delete(name)
  const surplusLinks = observed.surplusLinks.filter((name) => !change.stale.includes(name))
  if (change._tag === "RepairLinks") return { ...observed, entries, surplusLinks }
  const current = "..2026_11_23_14_33_35.3"
  entries.set(current, "Directory").set("..data", "SymbolicLink")
  const generation = new Map<string, FileSystem.File.Type>()
  for (const path of change.directories) generation.set(path, "Directory")
  for (const path of change.files.keys()) generation.set(path, "File")
  return { entries, current, kept: change.previous, generation, filesEqual: true, surplusLinks }
}

describe("properties", () => {
  it.effect.prop(
    "what a plan has made needs no plan",
    [Old, Answer],
    ([old, names]) =>
      Effect.sync(() => {
        const checked = Payload.check(payloadOf(Object.fromEntries(names.map((name) => [name, ""]))))
        if (Result.isFailure(checked)) return
        const entries = new Map<string, FileSystem.File.Type>(old.entries)
        const observed: Observed = {
          entries,
          current: old.hasCurrent ? CURRENT : undefined,
          kept: old.hasKept && entries.has(ORPHAN) ? ORPHAN : undefined,
          generation: old.hasCurrent && old.walked ? new Map(old.generation) : undefined,
          filesEqual: old.filesEqual,
          surplusLinks: old.surplus.filter(
            (name) => entries.get(name) === "SymbolicLink" && !checked.success.names.has(name)
          )
        }
        const first = plan(observed, checked.success)
        // What readers are in is taken away only by waiting for them.
        if (first._tag === "RepairLinks") assert.notInclude(first.leftovers, observed.kept)
        const ready = first._tag === "AwaitReaders" ? applied(observed, first) : observed
        const after = applied(ready, plan(ready, checked.success))
        assert.deepStrictEqual(plan(after, checked.success), { _tag: "Nothing" })
        assert.isAtMost(
          after.entries
            .keys()
            .filter((name) => name.startsWith("..2026"))
            .toArray().length,
          2
        )
        for (const name of checked.success.names) assert.strictEqual(after.entries.get(name), "SymbolicLink")
        // What is not the writer's is still there.
        for (const [name, type] of entries) {
          const isOurs = checked.success.names.has(name) || name.startsWith("..") || type === "SymbolicLink"
          if (!isOurs && observed.generation?.has(name) !== true) assert.strictEqual(after.entries.get(name), type)
        }
      }),
    { arbitrary: { runs: 500 } }
  )
})

// ---- a volume of its own size, which only the node in memory gives to everybody

const TARGET = "/target"

const onVolume = <A, E>(body: Effect.Effect<A, E, FileSystem.FileSystem | MemoryNode.MemoryNode>) =>
  Effect.gen(function* () {
    const disk = yield* FileSystem.FileSystem
    const node = yield* MemoryNode.MemoryNode
    yield* disk.makeDirectory(TARGET)
    yield* node.mount(TARGET, { sizeBytes: 64 * 1024, mode: 0o755 })
    return yield* body
  }).pipe(Effect.provide(MemoryNode.layer))

describe("a volume that is full", () => {
  const old: Files = { foo: "1", bar: "2" }

  it.effect("the old files stay, nothing of the new ones does, and the remedy is said", () =>
    onVolume(
      Effect.gen(function* () {
        yield* write(TARGET, payloadOf(old), {})
        const failed = yield* Effect.flip(
          write(TARGET, payloadOf({ foo: "one", new: "x".repeat(65_536), "d/e": "3" }), {})
        )
        assert.match(failed.detail, /^write \/target\/\.\.1970_01_01_00_00_00\.\d+\/[^:]+: no space left on device$/u)
        assert.strictEqual(failed.remedy, "raise --tmpfs-size, or mount fewer or smaller objects")
        assert.deepStrictEqual(yield* view(TARGET), viewOf(old))
        assert.deepStrictEqual(yield* layout(TARGET), layoutOf(old))
      })
    )
  )

  it.effect("Q31 the room that a killed write has taken is given back first", () =>
    onVolume(
      Effect.gen(function* () {
        const disk = yield* FileSystem.FileSystem
        yield* write(TARGET, payloadOf(old), {})
        yield* disk.makeDirectory(`${TARGET}/${ORPHAN}`)
        yield* disk.writeFileString(`${TARGET}/${ORPHAN}/x`, "x".repeat(40_000))
        const next: Files = { foo: "x".repeat(40_000) }
        yield* write(TARGET, payloadOf(next), {})
        assert.deepStrictEqual(yield* view(TARGET), viewOf(next))
        assert.deepStrictEqual(yield* layout(TARGET), layoutOf(next))
      })
    )
  )

  it.effect("a volume that answers nothing any more", () =>
    onVolume(
      Effect.gen(function* () {
        const node = yield* MemoryNode.MemoryNode
        yield* write(TARGET, payloadOf(old), {})
        yield* node.breakMount(TARGET, "EIO")
        const failed = yield* Effect.flip(write(TARGET, payloadOf({ foo: "secret" }), {}))
        assert.strictEqual(failed.detail, `scandir ${TARGET}: i/o error`)
      })
    )
  )
})

describe("any answer after any other", () => {
  const Mode = Schema.Literals([0o644, 0o600, 0o4755])
  const Disk = Schema.Array(Schema.Tuple([Name, Mode, Schema.Literals(["", "1", "2", "22"])]))

  it.effect.prop(
    "the volume is the last one that is allowed, settled",
    [Schema.Array(Disk)],
    ([rounds]) =>
      onVolume(
        Effect.gen(function* () {
          for (const round of rounds) {
            const files: Files = Object.fromEntries(round.map(([path, mode, text]) => [path, [text, mode] as const]))
            const checked = Payload.check(payloadOf(files))
            if (Result.isFailure(checked)) continue
            const before = yield* view(TARGET)
            const { changed } = yield* write(TARGET, payloadOf(files), {})
            assert.deepStrictEqual(yield* view(TARGET), viewOf(files))
            assert.deepStrictEqual(yield* layout(TARGET), layoutOf(files))
            // Only the very first write of nothing makes a difference that no pod sees.
            if (!changed) assert.deepStrictEqual(before, viewOf(files))
            const observed = yield* atOnce(AtomicWriter.observe(TARGET, checked.success, {}))
            assert.deepStrictEqual(plan(observed, checked.success), { _tag: "Nothing" })
          }
        })
      ),
    { arbitrary: { runs: 100 } }
  )
})

const temporary = Effect.flatMap(FileSystem.FileSystem, (disk) => disk.makeTempDirectoryScoped({ prefix: "writer-" }))

const inMemory = Effect.gen(function* () {
  const disk = yield* FileSystem.FileSystem
  yield* disk.makeDirectory("/tmp", { recursive: true })
  return yield* disk.makeTempDirectory({ prefix: "writer-" })
})

suite("disk", NodeFileSystem.layer, temporary)
suite("memory", MemoryNode.layer, inMemory)
