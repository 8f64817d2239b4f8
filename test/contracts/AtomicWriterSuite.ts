/**
 * What the atomic writer does to a disk, as a function of the disk: reference/driver.md 3.5, 4 and its Q rows.
 *
 * Beside the tables it is stopped, failed and interrupted at every single call it makes. A pod then sees one whole
 * generation, old or new, and the next write leaves nothing of the accident.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Effect,
  Exit,
  Fiber,
  FileSystem,
  Layer,
  Logger,
  Option,
  PlatformError,
  Redacted,
  Result,
  type Scope
} from "effect"
import { TestClock } from "effect/testing"
import type { PayloadFile } from "../../schemas/Provider.ts"
import * as AtomicWriter from "../../src/volume/AtomicWriter.ts"
import * as MountedFiles from "../../src/volume/MountedFiles.ts"
import { OldGenerations } from "../../src/volume/OldGenerations.ts"
import * as Payload from "../../src/volume/Payload.ts"

type Failed = PlatformError.PlatformError
type Disk = FileSystem.FileSystem

/** An empty directory of the disk under test. */
export type MakeDirectory = Effect.Effect<string, Failed, Disk | Scope.Scope>

/** Text by path; a mode other than 0644 beside it. */
export type Files = Readonly<Record<string, string | readonly [text: string, mode: number]>>

/** Text and mode by path, as a pod finds them. */
export type View = Readonly<Record<string, string>>

export const payloadOf = (files: Files): ReadonlyArray<PayloadFile> =>
  Object.entries(files).map(([path, content]) => {
    const [text, mode] = typeof content === "string" ? [content, 0o644] : content
    return { path, mode, contents: Redacted.make(new TextEncoder().encode(text)) }
  })

const line = (text: string, mode: number) => `${(mode & 0o7777).toString(8).padStart(4, "0")} ${text}`

/** What a pod should find. */
export const viewOf = (files: Files): View =>
  Object.fromEntries(
    Object.entries(files)
      .map(([path, content]) => {
        const [text, mode] = typeof content === "string" ? [content, 0o644] : content
        return [Payload.cleanPath(path), line(text, mode & 0o777)] as const
      })
      .sort(([a], [b]) => (a < b ? -1 : 1))
  )

/** What a pod does find: links are followed, and a link that leads nowhere is no file. */
export const view = (targetPath: string): Effect.Effect<View, Failed, Disk> =>
  Effect.gen(function* () {
    const disk = yield* FileSystem.FileSystem
    const found: Array<readonly [string, string]> = []
    const look = (path: string, key: string): Effect.Effect<void, Failed> =>
      Effect.gen(function* () {
        const info = yield* Effect.option(disk.stat(path))
        if (Option.isNone(info)) return
        if (info.value.type === "Directory") {
          for (const name of yield* disk.readDirectory(path)) yield* look(`${path}/${name}`, `${key}/${name}`)
        } else found.push([key, line(new TextDecoder().decode(yield* disk.readFile(path)), info.value.mode)])
      })
    for (const name of yield* disk.readDirectory(targetPath)) {
      if (!name.startsWith("..")) yield* look(`${targetPath}/${name}`, name)
    }
    return Object.fromEntries(found.sort(([a], [b]) => (a < b ? -1 : 1)))
  })

/** Everything directly in the target: a link with where it leads, names of generations without their numbers. */
export const layout = (targetPath: string) =>
  Effect.gen(function* () {
    const disk = yield* FileSystem.FileSystem
    const hide = (name: string) => name.replace(/^\.\.\d{4}(?:_\d{2}){5}\.\d+$/u, "..<generation>")
    const found: Array<string> = []
    for (const { name, type } of yield* disk.readDirectoryEntries(targetPath)) {
      const link = type === "SymbolicLink" ? ` -> ${hide(yield* disk.readLink(`${targetPath}/${name}`))}` : ""
      found.push(`${hide(name)}${type === "Directory" ? "/" : ""}${link}`)
    }
    return found.sort()
  })

/** The layout of a volume with these files and nothing left over. */
export const layoutOf = (files: Files): ReadonlyArray<string> => {
  const names = new Set(Object.keys(files).map((path) => Payload.cleanPath(path).split("/")[0]!))
  return [
    "..<generation>/",
    "..data -> ..<generation>",
    ...[...names].map((name) => `${name} -> ..data/${name}`)
  ].sort()
}

/** As by a driver of its own that ends right afterwards, and so keeps no old generation. */
export const atOnce = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provide(effect, Layer.fresh(OldGenerations.layer))

const writePayload = (targetPath: string, payload: ReadonlyArray<PayloadFile>, options: AtomicWriter.WriteOptions) =>
  atOnce(AtomicWriter.write(targetPath, payload, options))

const write = (targetPath: string, files: Files) => writePayload(targetPath, payloadOf(files), {})

/** By the writer alone, which also takes unclean paths. */
const writeUnclean = (targetPath: string, files: Files) =>
  Effect.flatMap(Effect.fromResult(Payload.clean(payloadOf(files))), (payload) =>
    atOnce(AtomicWriter.writePayload(targetPath, payload, {}))
  )

/** Inode, times and size of everything: equal when nothing was touched. */
const untouched = (targetPath: string) =>
  Effect.gen(function* () {
    const disk = yield* FileSystem.FileSystem
    const paths = ["", ...(yield* disk.readDirectory(targetPath, { recursive: true }))].sort()
    return yield* Effect.forEach(paths, (path) =>
      Effect.map(disk.lstat(`${targetPath}/${path}`), ({ ino, mtime, size }) => ({ path, ino, mtime, size }))
    )
  })

const isRoot = process.getuid?.() === 0

// 125 bytes, among them ends of lines and of texts; those above 0x7f come out of a decoder as they went in.
const BINARY = Array.from({ length: 125 }, (_, index) => String.fromCharCode((index * 7) % 128)).join("")

const DEEP = "a/b/c/d/e/f/g/h/i/j/k"

// ---- tables

interface Row {
  readonly row: string
  readonly name: string
  /** One write after the other; after each the volume is exactly this. */
  readonly rounds: ReadonlyArray<Files>
  /** By round; without it every round changes something. */
  readonly changed?: ReadonlyArray<boolean>
}

const rows: ReadonlyArray<Row> = [
  { row: "4.6 once", name: "basic 1", rounds: [{ foo: "foo", bar: "bar" }] },
  { row: "4.6 once", name: "basic 2", rounds: [{ "binary.bin": BINARY, ".binary.bin": BINARY }] },
  { row: "4.6 once", name: "basic mode 1", rounds: [{ foo: ["foo", 0o777], bar: ["bar", 0o400] }] },
  {
    row: "4.6 once",
    name: "dotfiles",
    rounds: [{ foo: "foo", bar: "bar", ".dotfile": "dotfile", ".dotfile.file": "dotfile.file" }]
  },
  {
    row: "4.6 once",
    name: "dotfiles mode",
    rounds: [
      { foo: ["foo", 0o407], bar: ["bar", 0o440], ".dotfile": ["dotfile", 0o777], ".dotfile.file": ["file", 0o666] }
    ]
  },
  { row: "4.6 once", name: "subdirectories 1", rounds: [{ "foo/bar.txt": "foo/bar", "bar/zab.txt": "bar/zab.txt" }] },
  {
    row: "4.6 once",
    name: "subdirectories mode 1",
    rounds: [{ "foo/bar.txt": ["foo/bar", 0o400], "bar/zab.txt": ["bar/zab.txt", 0o644] }]
  },
  {
    row: "4.6 once",
    name: "subdirectories 2",
    rounds: [{ "foo//bar.txt": "foo//bar", "bar///bar/zab.txt": "bar/../bar/zab.txt" }]
  },
  {
    row: "4.6 once",
    name: "subdirectories 3",
    rounds: [
      {
        "foo/bar.txt": "foo/bar",
        "bar/zab.txt": "bar/zab",
        "foo/blaz/bar.txt": "foo/blaz",
        "bar/zib/zab.txt": "bar/zib"
      }
    ]
  },
  {
    row: "4.6 once",
    name: "kitchen sink",
    rounds: [
      {
        foo: "foo",
        bar: "bar",
        ".dotfile": ["dotfile", 0o777],
        ".dotfile.file": ["dotfile.file", 0o400],
        "foo2/bar.txt": "foo2/bar",
        [`${DEEP}/bar.txt`]: ["11 levels", 0o400],
        "bar2/zab.txt": ["bar2/zab", 0o777],
        "bar2/zib/zab/..x": "an allowed name"
      }
    ]
  },
  {
    row: "4.6 update",
    name: "update",
    rounds: [
      { foo: "foo", bar: ["bar", 0o640] },
      { foo: ["foo2", 0o640], bar: ["bar2", 0o400] }
    ]
  },
  {
    row: "4.6 update",
    name: "no update",
    rounds: [
      { foo: "foo", bar: "bar" },
      { foo: "foo", bar: "bar" }
    ],
    changed: [true, false]
  },
  {
    row: "4.6 update",
    name: "no update 2",
    rounds: [
      { "foo/bar.txt": "foo", "bar/zab.txt": ["bar", 0o400] },
      { "foo/bar.txt": "foo", "bar/zab.txt": ["bar", 0o400] }
    ],
    changed: [true, false]
  },
  {
    row: "4.6 update",
    name: "add 1",
    rounds: [
      { "foo/bar.txt": "foo", "bar/zab.txt": "bar" },
      { "foo/bar.txt": "foo", "bar/zab.txt": "bar", "blu/zip.txt": "zip" }
    ]
  },
  {
    row: "4.6 update",
    name: "add 2",
    rounds: [
      { "foo/bar.txt": "foo", "bar/zab.txt": "bar" },
      { "foo/bar.txt": "foo", "bar/zab.txt": "bar", "blu/two/2/3/4/5/zip.txt": "zip" }
    ]
  },
  {
    row: "4.6 update",
    name: "add 3",
    rounds: [
      { "foo/bar.txt": "foo", "bar/zab.txt": "bar" },
      { "foo/bar.txt": "foo", "bar/zab.txt": "bar", "bar/2/3/4/5/zip.txt": "zip" }
    ]
  },
  {
    row: "4.6 update",
    name: "delete 1",
    rounds: [{ "foo/bar.txt": "foo", "bar/zab.txt": "bar" }, { "foo/bar.txt": "foo" }]
  },
  {
    row: "4.6 update",
    name: "delete 2",
    rounds: [{ "foo/bar.txt": "foo", "bar/1/2/3/zab.txt": "bar" }, { "foo/bar.txt": "foo" }]
  },
  {
    row: "4.6 update",
    name: "delete 3",
    rounds: [
      { "foo/bar.txt": "foo", "bar/1/2/sip.txt": "sip", "bar/1/2/3/zab.txt": "bar" },
      { "foo/bar.txt": "foo", "bar/1/2/sip.txt": "sip" }
    ]
  },
  {
    row: "4.6 update",
    name: "delete 4",
    rounds: [
      { "foo/bar.txt": "foo", "bar/1/2/sip.txt": "sip", "bar/1/2/3/4/5/6zab.txt": "bar" },
      { "foo/bar.txt": "foo", "bar/1/2/sip.txt": "sip" }
    ]
  },
  { row: "4.6 update", name: "delete all", rounds: [{ "foo/bar.txt": "foo", "bar/1/2/sip.txt": "sip" }, {}] },
  { row: "4.6 update", name: "add and delete 1", rounds: [{ "foo/bar.txt": "foo" }, { "bar/baz.txt": "baz" }] },
  {
    row: "4.6 multi",
    name: "update 1",
    rounds: [
      { foo: "foo", bar: "bar" },
      { foo: ["foo2", 0o400], bar: ["bar2", 0o400] },
      { foo: ["foo3", 0o600], bar: ["bar3", 0o600] }
    ]
  },
  {
    row: "4.6 multi",
    name: "update 2",
    rounds: [
      { "foo/bar.txt": "foo", "bar/zab.txt": "bar" },
      { "foo/bar.txt": ["foo2", 0o400], "bar/zab.txt": "bar2" }
    ]
  },
  {
    row: "4.6 multi",
    name: "clear sentinel",
    rounds: [
      { foo: "foo", bar: "bar" },
      { foo: "foo2", bar: "bar2" },
      { foo: "foo3", bar: "bar3" },
      { foo: "foo4", bar: "bar4" }
    ]
  },
  {
    row: "4.6 multi",
    name: "subdirectories 2",
    rounds: [
      { "foo/bar.txt": "foo", "bar//zab.txt": "bar", "foo/blaz/bar.txt": "blaz", "bar/zib////zib/zab.txt": "zib" },
      { "foo/bar.txt": "foo2", "bar//zab.txt": "bar2", "foo/blaz/bar.txt": "blaz2", "bar/zib////zib/zab.txt": "zib2" }
    ]
  },
  {
    row: "4.6 multi",
    name: "add 1",
    rounds: [
      { "foo/bar.txt": "foo", "bar//zab.txt": "bar", "foo/blaz/bar.txt": "blaz", "bar/zib////zib/zab.txt": "zib" },
      {
        "foo/bar.txt": "foo2",
        "bar//zab.txt": "bar2",
        "foo/blaz/bar.txt": "blaz2",
        "bar/zib////zib/zab.txt": "zib2",
        "add/new/keys.txt": "added"
      }
    ]
  },
  {
    row: "4.6 multi",
    name: "add 2",
    rounds: [
      { "foo/bar.txt": "foo2", "bar//zab.txt": "bar2", "add/new/keys.txt": "added" },
      { "foo/bar.txt": "foo2", "bar//zab.txt": "bar2", "add/new/keys.txt": "added", "add/new/keys2.txt": "added2" },
      {
        "foo/bar.txt": "foo2",
        "bar//zab.txt": "bar2",
        "add/new/keys.txt": "added",
        "add/new/keys2.txt": "added2",
        "add/new/keys3.txt": "added3"
      }
    ]
  },
  {
    row: "4.6 multi",
    name: "remove 1",
    rounds: [
      { "foo/bar.txt": "foo", "bar//zab.txt": "bar", "foo/blaz/bar.txt": "blaz", "zip/zap/zup/fop.txt": "zip" },
      { "foo/bar.txt": "foo2", "bar//zab.txt": "bar2" },
      { "foo/bar.txt": "foo" }
    ]
  },
  { row: "4.6 links", name: "simple path", rounds: [{ foo: "1", bar: "2" }] },
  { row: "4.6 links", name: "simple nested", rounds: [{ "foo/bar": "1", "foo/baz/txt": "2", "bar/txt": "3" }] },
  { row: "4.6 links", name: "unclean nested", rounds: [{ "./bar": "1", "foo///bar": "2" }] },
  {
    row: "4.6 write",
    name: "simple",
    rounds: [{ "foo.txt": "old" }, { "foo.txt": "new" }]
  },
  {
    row: "4.6 write",
    name: "mode 0440 to 0644",
    rounds: [{ "foo.txt": ["old", 0o440] }, { "foo.txt": "new" }]
  },
  { row: "4.6 write", name: "mode 0777", rounds: [{ "foo.txt": ["old", 0o440] }, { "foo.txt": ["new", 0o777] }] },
  { row: "4.6 write", name: "mode 0666", rounds: [{ "foo.txt": ["old", 0o440] }, { "foo.txt": ["new", 0o666] }] },
  { row: "4.6 write", name: "nested", rounds: [{ "foo/bar.txt": "old" }, { "foo/bar.txt": "new" }] },
  {
    row: "4.6 write",
    name: "multi nested",
    rounds: [{ "foo/bar/baz.txt": "old" }, { "foo/bar/baz.txt": "new" }]
  },
  {
    row: "4.6 write",
    name: "multi nested files",
    rounds: [
      { "foo/bar.txt": "old", "foo/baz/bar.txt": "old", "zab/baz.txt": "old" },
      { "foo/bar.txt": "new", "foo/baz/bar.txt": "new", "zab/baz.txt": "new" }
    ]
  },
  { row: "4.6 write", name: "removed path simple", rounds: [{ "foo.txt": "old" }, { "bar.txt": "new" }] },
  { row: "4.6 write", name: "removed path nested", rounds: [{ "a/foo.txt": "old" }, { "a/bar.txt": "new" }] },
  {
    row: "4.6 write",
    name: "removed path double nesting",
    rounds: [{ "a/b/foo.txt": "old" }, { "a/c/bar.txt": "new" }]
  },
  { row: "4.3 #3", name: "a change back and forth", rounds: [{ foo: "1" }, { foo: "2" }, { foo: "1" }] },
  {
    row: "4.4",
    name: "same size, other bytes",
    rounds: [
      { foo: "1234", bar: "x" },
      { foo: "1235", bar: "x" }
    ]
  },
  {
    row: "4.4",
    name: "an empty file",
    rounds: [{ foo: "" }, { foo: "1" }, { foo: "" }, { foo: "" }],
    changed: [true, true, true, false]
  },
  { row: "4.4", name: "an empty payload, twice", rounds: [{ foo: "1" }, {}, {}], changed: [true, true, false] },
  { row: "4.4", name: "an empty payload for a new volume", rounds: [{}, { foo: "1" }] },
  {
    row: "Q29",
    name: "a mode and nothing else",
    rounds: [{ foo: "1" }, { foo: ["1", 0o400] }, { foo: ["1", 0o400] }],
    changed: [true, true, false]
  },
  {
    row: "Q7",
    name: "a file becomes a directory",
    rounds: [
      { foo: "1", bar: "2" },
      { "foo/bar": "1", bar: "2" }
    ]
  },
  {
    row: "Q7",
    name: "a directory becomes a file",
    rounds: [
      { "foo/bar": "1", bar: "2" },
      { foo: "1", bar: "2" }
    ]
  },
  {
    row: "Q7",
    name: "a file becomes a directory below, and back",
    rounds: [{ "a/b": "1" }, { "a/b/c": "1" }, { "a/b": "1" }, { a: "1" }]
  },
  {
    row: "3.5",
    name: "names with spaces, newlines and backslashes",
    rounds: [{ "a b": "1", "c\nd": "2", "e\\f": "3", "\u20ac/\u{1f511}": "4" }, { "c\nd": "5" }]
  },
  {
    row: "3.5",
    name: "longest names",
    rounds: [{ [`${"n".repeat(255)}/${"m".repeat(255)}`]: "1" }, { [`${"n".repeat(255)}/${"m".repeat(254)}`]: "2" }]
  },
  {
    row: "4.3",
    name: "more files than are written at a time",
    rounds: [
      Object.fromEntries(Array.from({ length: 150 }, (_, index) => [`d${index % 7}/f${index}`, `${index}`])),
      Object.fromEntries(Array.from({ length: 149 }, (_, index) => [`f${index}`, `${index}`])),
      Object.fromEntries(Array.from({ length: 149 }, (_, index) => [`f${index}`, `${index}`]))
    ],
    changed: [true, true, false]
  }
]

// ---- accidents

/** What goes wrong at one call to the disk. */
type Accident =
  /** The process is killed, before or after the call has done its work. */
  | "killed before"
  | "killed after"
  /** The call fails; "after": it has done its work all the same. */
  | "fails before"
  | "fails after"
  /** Somebody interrupts the writer during the call. */
  | "interrupted"

const EIO = PlatformError.systemError({
  _tag: "Unknown",
  module: "FileSystem",
  method: "test",
  syscall: "test",
  pathOrDescriptor: "/x",
  cause: new Error("EIO: i/o error, test '/x'")
})

/** A disk on which the accident happens at the `at`th call, counted from 1. A killed process makes no more calls. */
const accidental = (disk: Disk, accident: Accident, at: number, interrupt: Effect.Effect<void>) => {
  let calls = 0
  const log: Array<string> = []
  const guard = <A>(method: string, self: Effect.Effect<A, Failed>, half = self): Effect.Effect<A, Failed> =>
    Effect.suspend(() => {
      calls += 1
      log.push(method)
      const killed = Effect.die("killed")
      if (calls > at) return accident.startsWith("killed") ? killed : self
      if (calls < at) return self
      if (accident === "killed before") return killed
      if (accident === "killed after") return Effect.andThen(Effect.exit(half), killed)
      if (accident === "fails before") return Effect.fail(EIO)
      if (accident === "fails after") return Effect.andThen(Effect.exit(half), Effect.fail(EIO))
      return Effect.andThen(interrupt, self)
    })
  const wrapped: Disk = {
    ...disk,
    readDirectoryEntries: (path) => guard("readDirectoryEntries", disk.readDirectoryEntries(path)),
    readLink: (path) => guard("readLink", disk.readLink(path)),
    readFile: (path) => guard("readFile", disk.readFile(path)),
    lstat: (path) => guard("lstat", disk.lstat(path)),
    stat: (path) => guard("stat", disk.stat(path)),
    makeDirectory: (path, options) => guard("makeDirectory", disk.makeDirectory(path, options)),
    // A process can end in the middle of a file.
    writeFile: (path, data, options) =>
      guard(
        "writeFile",
        disk.writeFile(path, data, options),
        disk.writeFile(path, data.subarray(0, data.length / 2), options)
      ),
    chmod: (path, mode) => guard("chmod", disk.chmod(path, mode)),
    chown: (path, uid, gid) => guard("chown", disk.chown(path, uid, gid)),
    symlink: (target, path) => guard("symlink", disk.symlink(target, path)),
    rename: (from, to) => guard("rename", disk.rename(from, to)),
    remove: (path, options) => guard("remove", disk.remove(path, options))
  }
  return { wrapped, log, hasHappened: () => calls >= at }
}

interface Story {
  readonly name: string
  /** Undefined: the volume is new. */
  readonly old: Files | undefined
  readonly next: Files
}

const stories: ReadonlyArray<Story> = [
  { name: "a first write", old: undefined, next: { foo: "1", "bar/baz": ["2", 0o600] } },
  { name: "an update", old: { foo: "1", "bar/baz": "2" }, next: { foo: "one", "bar/baz": "two" } },
  {
    name: "an update that adds and removes names",
    old: { foo: "1", gone: "x", "gone2/x": "y" },
    next: { foo: "one", added: "2", "added2/y": "3" }
  },
  {
    name: "a file that becomes a directory, and the reverse",
    old: { a: "1", "b/c": "2" },
    next: { "a/d": "3", b: "4" }
  },
  { name: "an update to nothing", old: { foo: "1" }, next: {} }
]

const accidents: ReadonlyArray<Accident> = [
  "killed before",
  "killed after",
  "fails before",
  "fails after",
  "interrupted"
]

export const suite = <E>(name: string, layer: Layer.Layer<Disk, E>, makeDirectory: MakeDirectory): void => {
  const at = (accident: Accident, count: number, story: Story) =>
    Effect.scoped(
      Effect.gen(function* () {
        const disk = yield* FileSystem.FileSystem
        const targetPath = yield* makeDirectory
        if (story.old !== undefined) yield* write(targetPath, story.old)
        const before = yield* view(targetPath)
        const interrupt = Effect.sync(() => fiber.interruptUnsafe())
        const { hasHappened, log, wrapped } = accidental(disk, accident, count, interrupt)
        const fiber: Fiber.Fiber<{ readonly changed: boolean }, unknown> = yield* Effect.forkChild(
          write(targetPath, story.next).pipe(Effect.provideService(FileSystem.FileSystem, wrapped))
        )
        const exit = yield* Fiber.await(fiber)
        const where = `${accident} at call ${count} (${log[count - 1]})`
        const after = yield* view(targetPath)
        const next = viewOf(story.next)
        const isOld = JSON.stringify(after) === JSON.stringify(before)
        const isNew = JSON.stringify(after) === JSON.stringify(next)
        assert.isTrue(isOld || isNew, `${where}: a mixture: ${JSON.stringify(after)}`)
        assert.strictEqual(
          yield* MountedFiles.populated(targetPath),
          story.old !== undefined || isNew,
          `${where}: populated`
        )
        if (Exit.isSuccess(exit)) assert.isTrue(isNew, `${where}: success without the new files`)
        // Only a killed process, a call that lies about its work and a failed removal may leave something.
        if (
          accident === "interrupted" ||
          (accident === "fails before" && !/^(?:remove|readDirectoryEntries)$/u.test(log[count - 1] ?? ""))
        ) {
          const expected = isNew || story.old === undefined ? (isNew ? layoutOf(story.next) : []) : layoutOf(story.old)
          assert.deepStrictEqual(yield* layout(targetPath), expected, `${where}: leftovers`)
        }
        // Whatever the next answer is, the volume is then that and nothing else.
        const retried = count % 2 === 0 && story.old !== undefined ? story.old : story.next
        yield* write(targetPath, retried)
        assert.deepStrictEqual(yield* view(targetPath), viewOf(retried), `${where}: repaired`)
        assert.deepStrictEqual(yield* layout(targetPath), layoutOf(retried), `${where}: repaired layout`)
        assert.isFalse((yield* write(targetPath, retried)).changed, `${where}: settled`)
        return hasHappened()
      })
    )

  it.layer(layer)(`AtomicWriter (${name})`, (it) => {
    describe("3.5, 4.3, 4.6 rounds of writes", () => {
      it.effect.each(rows)("$row $name", ({ changed, rounds }) =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          for (const [index, files] of rounds.entries()) {
            const result = yield* writeUnclean(targetPath, files)
            assert.strictEqual(result.changed, changed?.[index] ?? true, `round ${index}`)
            assert.deepStrictEqual(yield* view(targetPath), viewOf(files), `round ${index}`)
            assert.deepStrictEqual(yield* layout(targetPath), layoutOf(files), `round ${index}`)
            const listed = yield* MountedFiles.list(targetPath)
            assert.deepStrictEqual([...listed.keys()], Object.keys(viewOf(files)), `round ${index}`)
          }
        })
      )
    })

    describe("refused", () => {
      it.effect.each<{ readonly row: string; readonly name: string; readonly files: Files; readonly detail: string }>([
        {
          row: "4.6 once",
          name: "invalid payload 1",
          files: { foo: "foo", "..bar": "bar", "binary.bin": BINARY },
          detail: "invalid path: must not start with '..': ..bar"
        },
        {
          row: "4.6 once",
          name: "invalid payload 2",
          files: { "foo/../bar": "foo" },
          detail: "invalid path: must not contain '..': foo/../bar"
        },
        { row: "Q6", name: "the volume itself", files: { foo: "2", ".": "x" }, detail: 'invalid filepath: "."' },
        {
          row: "4.4",
          name: "foo and foo/bar",
          files: { foo: "2", "foo/bar": "3" },
          detail: 'invalid filepath: "foo": other files are below it'
        },
        { row: "3.5", name: "unclean", files: { foo: "2", "a//b": "3" }, detail: 'invalid filepath: "a//b"' }
      ])("$row $name: nothing is touched", ({ detail, files }) =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          yield* write(targetPath, { foo: "1", bar: "2" })
          const before = yield* untouched(targetPath)
          const failed = yield* Effect.flip(write(targetPath, files))
          assert.strictEqual(failed.detail, detail)
          assert.deepStrictEqual(yield* untouched(targetPath), before)
        })
      )

      it.effect("4.6 ctor missing dir: the words of stat", () =>
        Effect.gen(function* () {
          const targetPath = `${yield* makeDirectory}/missing`
          const failed = yield* Effect.flip(write(targetPath, { foo: "1" }))
          assert.strictEqual(failed.detail, `stat ${targetPath}: no such file or directory`)
        })
      )

      it.effect("4.6 ctor existing dir: written", () =>
        Effect.gen(function* () {
          assert.isTrue((yield* write(yield* makeDirectory, { foo: "1" })).changed)
        })
      )

      it.effect("4.3 #2 ..data is a real directory", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* disk.makeDirectory(`${targetPath}/..data`)
          const failed = yield* Effect.flip(write(targetPath, { foo: "1" }))
          assert.strictEqual(failed.detail, `readlink ${targetPath}/..data: invalid argument`)
          assert.deepStrictEqual(yield* layout(targetPath), ["..data/"])
        })
      )

      it.effect("a path that the system does not take leaves nothing behind", () =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          yield* write(targetPath, { foo: "1" })
          const failed = yield* Effect.flip(write(targetPath, { foo: "secret", "a\u0000b": "secret" }))
          assert.notInclude(failed.detail, "secret")
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: "1" }))
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "1" }))
        })
      )
    })

    it.effect("4.4 an identical payload touches nothing", () =>
      Effect.gen(function* () {
        const targetPath = yield* makeDirectory
        const files = { foo: "1", "bar/baz": ["2", 0o4600], "bar/x": "" } as const
        yield* write(targetPath, files)
        const before = yield* untouched(targetPath)
        assert.deepStrictEqual(yield* write(targetPath, files), { changed: false })
        assert.deepStrictEqual(yield* untouched(targetPath), before)
      })
    )

    it.effect("4.4 a ..data that leads nowhere is a full write, and nothing is stale", () =>
      Effect.gen(function* () {
        const disk = yield* FileSystem.FileSystem
        const targetPath = yield* makeDirectory
        yield* disk.symlink("..2026_11_23_14_33_34.470336674", `${targetPath}/..data`)
        assert.isTrue((yield* write(targetPath, { foo: "1" })).changed)
        assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "1" }))
      })
    )

    it.effect.each(["/", "../outside", "..", "..data", "dir"])(
      "4.3 #2 a ..data that leads to %s is replaced only",
      (link) =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const parent = yield* makeDirectory
          const targetPath = `${parent}/target`
          yield* disk.makeDirectory(`${targetPath}/dir`, { recursive: true })
          yield* disk.makeDirectory(`${parent}/outside`)
          yield* disk.writeFileString(`${parent}/outside/kept`, "kept")
          yield* disk.writeFileString(`${targetPath}/dir/kept`, "kept")
          yield* disk.symlink(link, `${targetPath}/..data`)
          yield* write(targetPath, { foo: "1" })
          assert.deepStrictEqual(yield* layout(targetPath), [...layoutOf({ foo: "1" }), "dir/"].sort())
          assert.strictEqual(yield* disk.readFileString(`${parent}/outside/kept`), "kept")
          assert.strictEqual(yield* disk.readFileString(`${targetPath}/dir/kept`), "kept")
        })
    )

    it.effect.skipIf(!isRoot)("4.3 mode 0 is honoured (needs root)", () =>
      Effect.gen(function* () {
        const targetPath = yield* makeDirectory
        const files = { foo: ["1", 0] } as const
        yield* write(targetPath, files)
        assert.deepStrictEqual(yield* view(targetPath), viewOf(files))
        assert.isFalse((yield* write(targetPath, files)).changed)
      })
    )

    it.effect("4.1 names of generations are UTC times", () =>
      Effect.gen(function* () {
        const disk = yield* FileSystem.FileSystem
        const targetPath = yield* makeDirectory
        yield* write(targetPath, { foo: "1" })
        assert.match(yield* disk.readLink(`${targetPath}/..data`), /^\.\.1970_01_01_00_00_00\.\d+$/u)
      })
    )

    it.effect("4.1 directories can be entered by everybody", () =>
      Effect.gen(function* () {
        const disk = yield* FileSystem.FileSystem
        const targetPath = yield* makeDirectory
        yield* write(targetPath, { "a/b/c": "1" })
        for (const path of ["..data/", "a", "a/b"]) {
          assert.strictEqual((yield* disk.stat(`${targetPath}/${path}`)).mode & 0o7777, 0o755, path)
        }
      })
    )

    describe("legacy", () => {
      it.effect("4.6 legacy backward compatible: a provider's own file gives way", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* disk.writeFileString(`${targetPath}/foo.txt`, "old")
          assert.isTrue((yield* write(targetPath, { "foo.txt": "new" })).changed)
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ "foo.txt": "new" }))
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ "foo.txt": "new" }))
        })
      )

      it.effect("4.6 legacy cleanup: links are kept, anything else is replaced, other names are left alone", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* write(targetPath, { foo: "foo", "bar/baz": "bar" })
          yield* disk.writeFileString(`${targetPath}/asdf`, "asdf")
          yield* disk.makeDirectory(`${targetPath}/abc`)
          yield* disk.writeFileString(`${targetPath}/abc/123`, "abc")
          yield* disk.writeFileString(`${targetPath}/other`, "kept")
          yield* disk.chmod(`${targetPath}/other`, 0o644)
          const files = { foo: "foo", "bar/baz": "bar", asdf: "1", "abc/123": "2" }
          const payload = Result.getOrThrow(Payload.check(payloadOf(files)))
          const change = AtomicWriter.plan(yield* atOnce(AtomicWriter.observe(targetPath, payload, {})), payload)
          assert.deepStrictEqual(change._tag === "Write" && change.blocking, ["asdf", "abc"])
          yield* write(targetPath, files)
          assert.deepStrictEqual(yield* layout(targetPath), [...layoutOf(files), "other"].sort())
          assert.deepStrictEqual(yield* view(targetPath), { ...viewOf(files), other: "0644 kept" })
        })
      )

      it.effect("3.5 #2 a link of somebody else is kept, and what it leads to", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* disk.writeFileString(`${targetPath}/mine`, "kept")
          yield* disk.symlink("mine", `${targetPath}/foo`)
          yield* disk.symlink("mine", `${targetPath}/unrelated`)
          yield* write(targetPath, { foo: "1" })
          assert.strictEqual(yield* disk.readLink(`${targetPath}/foo`), "mine")
          assert.strictEqual(yield* disk.readLink(`${targetPath}/unrelated`), "mine")
          assert.strictEqual(yield* disk.readFileString(`${targetPath}/mine`), "kept")
        })
      )

      it.effect("3.5 #2 content is unchanged, but a file hides the link: replaced", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* write(targetPath, { foo: "1" })
          yield* disk.remove(`${targetPath}/foo`)
          yield* disk.makeDirectory(`${targetPath}/foo`)
          assert.isTrue((yield* write(targetPath, { foo: "1" })).changed)
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "1" }))
        })
      )
    })

    describe("leftovers", () => {
      const orphan = "..2020_01_01_00_00_00.123"

      it.effect.each([
        { left: "..data_tmp", name: "unchanged", next: { foo: "1", bar: "2" } },
        { left: "..data_tmp", name: "changed", next: { foo: "one", bar: "2" } },
        { left: "..data_next", name: "unchanged", next: { foo: "1", bar: "2" } },
        { left: "..data_next", name: "changed", next: { foo: "one", bar: "2" } }
      ])("Q31 $left and orphan generations go, content $name", ({ left, name, next }) =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* write(targetPath, { foo: "1", bar: "2" })
          yield* disk.symlink(orphan, `${targetPath}/${left}`)
          yield* disk.makeDirectory(`${targetPath}/${orphan}/deep/er`, { recursive: true })
          yield* disk.writeFileString(`${targetPath}/${orphan}/deep/er/x`, "x")
          yield* disk.makeDirectory(`${targetPath}/..2020_01_01_00_00_00.124`)
          yield* disk.makeDirectory(`${targetPath}/..other`)
          const result = yield* write(targetPath, next)
          assert.strictEqual(result.changed, name === "changed")
          assert.deepStrictEqual(yield* layout(targetPath), [...layoutOf(next), "..other/"].sort())
        })
      )

      it.effect.each(["..data_tmp", "..data_next"])("Q31 a %s that is a directory", (left) =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* disk.makeDirectory(`${targetPath}/${left}`)
          yield* write(targetPath, { foo: "1" })
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "1" }))
        })
      )

      it.effect("Q32 missing links come back though the content is unchanged", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          const files = { foo: "1", "bar/baz": "2" }
          yield* write(targetPath, files)
          const generation = yield* disk.readLink(`${targetPath}/..data`)
          yield* disk.remove(`${targetPath}/bar`)
          assert.isTrue((yield* write(targetPath, files)).changed)
          assert.deepStrictEqual(yield* view(targetPath), viewOf(files))
          assert.strictEqual(yield* disk.readLink(`${targetPath}/..data`), generation)
        })
      )

      it.effect("Q32 links that a crash has left to names of no generation go", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* write(targetPath, { foo: "1" })
          yield* disk.symlink("..data/bar", `${targetPath}/bar`)
          assert.isTrue((yield* write(targetPath, { foo: "1" })).changed)
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "1" }))
        })
      )
    })

    describe("group", () => {
      const own = process.getgid?.() ?? 0

      it.effect("B14 the group may read files and enter directories before they are seen", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          const files = payloadOf({ foo: ["1", 0o600], "bar/baz": "2" })
          yield* writePayload(targetPath, files, { gid: own })
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: ["1", 0o640], "bar/baz": "2" }))
          for (const path of ["foo", "bar", "bar/baz", "..data/"]) {
            assert.deepStrictEqual((yield* disk.stat(`${targetPath}/${path}`)).gid, Option.some(own), path)
          }
          assert.isFalse((yield* writePayload(targetPath, files, { gid: own })).changed)
        })
      )

      it.effect.skipIf(!isRoot)("B14 another group, and a change of it (needs root)", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          const files = payloadOf({ foo: ["1", 0o400], "bar/baz": "2" })
          yield* writePayload(targetPath, files, {})
          for (const gid of [2000, 3000]) {
            assert.isTrue((yield* writePayload(targetPath, files, { gid })).changed)
            assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: ["1", 0o440], "bar/baz": "2" }))
            for (const path of ["foo", "bar", "bar/baz", "..data/"]) {
              const info = yield* disk.stat(`${targetPath}/${path}`)
              assert.deepStrictEqual([info.gid, info.uid], [Option.some(gid), Option.some(0)], path)
            }
            assert.isFalse((yield* writePayload(targetPath, files, { gid })).changed)
          }
        })
      )
    })

    describe("calls to the disk", () => {
      const counted = (targetPath: string, files: Files) =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const { log, wrapped } = accidental(disk, "fails before", Number.POSITIVE_INFINITY, Effect.void)
          yield* write(targetPath, files).pipe(Effect.provideService(FileSystem.FileSystem, wrapped))
          const counts: Record<string, number> = {}
          for (const method of log) counts[method] = (counts[method] ?? 0) + 1
          return counts
        })

      const usual = process.umask() === 0o022

      it.effect.skipIf(!usual)("two small files: new, the same again, another size (needs umask 022)", () =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          assert.deepStrictEqual(yield* counted(targetPath, { foo: "1", bar: "2" }), {
            readDirectoryEntries: 1,
            makeDirectory: 1,
            lstat: 1,
            writeFile: 2,
            symlink: 3,
            rename: 1
          })
          assert.deepStrictEqual(yield* counted(targetPath, { foo: "1", bar: "2" }), {
            readDirectoryEntries: 2,
            readLink: 1,
            lstat: 2,
            readFile: 2
          })
          const update = yield* counted(targetPath, { foo: "1", bar: "22" })
          assert.isUndefined(update["readFile"])
          assert.isUndefined(update["chmod"])
        })
      )
    })

    describe("accidents at every call", () => {
      it.effect.each(accidents.flatMap((accident) => stories.map((story) => ({ accident, story, name: story.name }))))(
        "$name, $accident",
        ({ accident, story }) =>
          Effect.gen(function* () {
            let count = 1
            while (yield* at(accident, count, story)) count += 1
            assert.isAbove(count, 5)
          })
      )
    })

    describe("grace: readers that are in an old generation", () => {
      const put = (targetPath: string, files: Files) => AtomicWriter.write(targetPath, payloadOf(files), {})
      const current = (targetPath: string) =>
        Effect.flatMap(FileSystem.FileSystem, (disk) => disk.readLink(`${targetPath}/..data`))
      const generations = (targetPath: string) =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          return (yield* disk.readDirectory(targetPath)).filter((name) => /^\.\.\d/u.test(name)).sort()
        })
      /** A volume that holds "2", and for a second from now on "1" as well, in this directory. */
      const replaced = Effect.gen(function* () {
        const targetPath = yield* makeDirectory
        yield* put(targetPath, { foo: "1" })
        const name = yield* current(targetPath)
        yield* put(targetPath, { foo: "2" })
        return { targetPath, name, path: `${targetPath}/${name}` }
      })

      it.effect("it stays for a second, which nobody waits for", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const old = yield* OldGenerations
          const { path, targetPath } = yield* replaced
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: "2" }))
          assert.strictEqual(yield* disk.readFileString(`${path}/foo`), "1")
          yield* TestClock.adjust("999 millis")
          assert.strictEqual(yield* disk.readFileString(`${path}/foo`), "1")
          yield* TestClock.adjust("1 millis")
          yield* old.untilGone(path)
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "2" }))
          yield* old.untilGone(path)
        }).pipe(Effect.provide(OldGenerations.layer))
      )

      it.effect("unchanged content and missing links do not wait for it, and leave it alone", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const { name, targetPath } = yield* replaced
          const both = [name, yield* current(targetPath)].sort()
          assert.isFalse((yield* put(targetPath, { foo: "2" })).changed)
          yield* disk.remove(`${targetPath}/foo`)
          assert.isTrue((yield* put(targetPath, { foo: "2" })).changed)
          assert.deepStrictEqual(yield* generations(targetPath), both)
        }).pipe(Effect.provide(OldGenerations.layer))
      )

      it.effect("writes that follow each other quickly wait for it: there are never three generations", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const { path, targetPath } = yield* replaced
          const counts: Array<number> = []
          const counting: Disk = {
            ...disk,
            makeDirectory: (directory, options) =>
              Effect.andThen(
                disk.makeDirectory(directory, options),
                Effect.map(generations(targetPath).pipe(Effect.provideService(FileSystem.FileSystem, disk)), (names) =>
                  counts.push(names.length)
                )
              )
          }
          const writer = yield* Effect.forkChild(
            Effect.forEach(["3", "4", "5", "6"], (text) => put(targetPath, { foo: text }), { discard: true }).pipe(
              Effect.provideService(FileSystem.FileSystem, counting)
            )
          )
          yield* TestClock.adjust("999 millis")
          assert.strictEqual(yield* disk.readFileString(`${path}/foo`), "1")
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: "2" }))
          while (writer.pollUnsafe() === undefined) yield* TestClock.adjust("1 second")
          yield* Fiber.join(writer)
          assert.deepStrictEqual(counts, [2, 2, 2, 2])
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: "6" }))
        }).pipe(Effect.provide(OldGenerations.layer))
      )

      it.effect("a write that is interrupted owes the removal all the same", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const old = yield* OldGenerations
          const targetPath = yield* makeDirectory
          yield* put(targetPath, { foo: "1" })
          const path = `${targetPath}/${yield* current(targetPath)}`
          const interrupting: Disk = {
            ...disk,
            rename: (from, to) =>
              Effect.andThen(
                Effect.sync(() => writer.interruptUnsafe()),
                disk.rename(from, to)
              )
          }
          const writer: Fiber.Fiber<unknown, unknown> = yield* Effect.forkChild(
            put(targetPath, { foo: "2" }).pipe(Effect.provideService(FileSystem.FileSystem, interrupting))
          )
          assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(writer)))
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: "2" }))
          assert.strictEqual(yield* disk.readFileString(`${path}/foo`), "1")
          yield* TestClock.adjust("1 second")
          yield* old.untilGone(path)
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "2" }))
        }).pipe(Effect.provide(OldGenerations.layer))
      )

      it.effect("a write that waits is interrupted at once, and has touched nothing", () =>
        Effect.gen(function* () {
          const old = yield* OldGenerations
          const { name, path, targetPath } = yield* replaced
          const both = [name, yield* current(targetPath)].sort()
          const writer = yield* Effect.forkChild(put(targetPath, { foo: "3" }))
          yield* TestClock.adjust("10 millis")
          yield* Fiber.interrupt(writer)
          assert.deepStrictEqual(yield* generations(targetPath), both)
          yield* TestClock.adjust("990 millis")
          yield* old.untilGone(path)
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "2" }))
        }).pipe(Effect.provide(OldGenerations.layer))
      )

      it.effect("it goes at once when the driver ends", () =>
        Effect.gen(function* () {
          const { targetPath } = yield* atOnce(replaced)
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "2" }))
          // Nor is one kept by a write that ends later than everything else.
          const ended = yield* atOnce(OldGenerations)
          yield* put(targetPath, { foo: "3" }).pipe(Effect.provideService(OldGenerations, ended))
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "3" }))
        })
      )

      it.effect.each([
        { name: "unchanged", next: "2" },
        { name: "changed", next: "3" }
      ])("what a killed driver has left goes with the next write, content $name", ({ next }) =>
        Effect.gen(function* () {
          const { targetPath } = yield* replaced
          // A second driver: it does not know of what the first one keeps.
          yield* write(targetPath, { foo: next })
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: next }))
        }).pipe(Effect.provide(OldGenerations.layer))
      )

      it.effect("it goes with its volume, and a new volume at the same path waits for nothing", () =>
        Effect.gen(function* () {
          const { targetPath } = yield* replaced
          assert.deepStrictEqual(yield* MountedFiles.clear(targetPath), [])
          yield* put(targetPath, { foo: "3" })
          yield* put(targetPath, { foo: "4" })
          assert.strictEqual((yield* generations(targetPath)).length, 2)
          assert.deepStrictEqual(yield* view(targetPath), viewOf({ foo: "4" }))
        }).pipe(Effect.provide(OldGenerations.layer))
      )

      it.effect("a removal that fails is logged with its volume, and made up for by the next write", () => {
        const lines: Array<string> = []
        const logger = Logger.layer([
          Logger.make(({ logLevel, message }) => lines.push(`${logLevel} ${JSON.stringify(message)}`))
        ])
        return Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const old = yield* OldGenerations
          const { name, path, targetPath } = yield* replaced.pipe(
            Effect.provideService(FileSystem.FileSystem, { ...disk, remove: () => Effect.fail(EIO) })
          )
          yield* TestClock.adjust("1 second")
          yield* old.untilGone(path)
          assert.include(yield* generations(targetPath), name)
          assert.deepStrictEqual(lines, [
            `Error ["failed to remove replaced files",{"targetPath":"${targetPath}","err":"test /x: i/o error"}]`
          ])
          assert.isFalse((yield* put(targetPath, { foo: "2" })).changed)
          assert.deepStrictEqual(yield* layout(targetPath), layoutOf({ foo: "2" }))
        }).pipe(Effect.provide(Layer.merge(OldGenerations.layer, logger)))
      })
    })

    it.effect("S2 a reader of all files sees one generation, while it is replaced again and again", () =>
      Effect.gen(function* () {
        const disk = yield* FileSystem.FileSystem
        const targetPath = yield* makeDirectory
        const generation = (round: number): Files => ({
          a: `${round}`,
          "b/c": `${round}`,
          ...(round % 2 === 0 ? { even: `${round}` } : { "odd/x": `${round}` })
        })
        yield* write(targetPath, generation(0))
        const writer = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 30 }, (_, index) => index + 1),
            (round) => write(targetPath, generation(round)),
            { discard: true }
          )
        )
        let complete = 0
        while (writer.pollUnsafe() === undefined) {
          const read = Effect.gen(function* () {
            const found: Record<string, string> = {}
            for (const [key, path] of yield* MountedFiles.list(targetPath))
              found[key] = yield* disk.readFileString(path)
            return found
          })
          const seen = yield* Effect.result(read)
          if (Result.isSuccess(seen)) {
            complete += 1
            assert.deepStrictEqual<unknown>(seen.success, generation(Number(seen.success["a"])))
          } else assert.strictEqual(seen.failure.reason._tag, "NotFound")
          yield* Effect.yieldNow
        }
        yield* Fiber.join(writer)
        assert.isAbove(complete, 0)
        assert.deepStrictEqual(yield* view(targetPath), viewOf(generation(30)))
      })
    )
  })
}
