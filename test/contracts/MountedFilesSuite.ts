/** What is found in, and removed from, a mounted volume, as a function of the disk: reference/driver.md 4.5, Q3. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, type Layer, type PlatformError } from "effect"
import * as AtomicWriter from "../../src/volume/AtomicWriter.ts"
import * as MountedFiles from "../../src/volume/MountedFiles.ts"
import { atOnce, type Files, type MakeDirectory, payloadOf } from "./AtomicWriterSuite.ts"

type Failed = PlatformError.PlatformError
type Disk = FileSystem.FileSystem

/** What somebody does to a volume: text is a file, a trailing slash a directory, "-> x" a symbolic link to x. */
type Plain = Readonly<Record<string, string>>

const place = (targetPath: string, plain: Plain): Effect.Effect<void, Failed, Disk> =>
  Effect.gen(function* () {
    const disk = yield* FileSystem.FileSystem
    for (const [name, text] of Object.entries(plain)) {
      const path = `${targetPath}/${name}`
      if (name.endsWith("/")) yield* disk.makeDirectory(path.slice(0, -1))
      else if (text.startsWith("-> ")) yield* disk.symlink(text.slice(3), path)
      else yield* disk.writeFileString(path, text)
    }
  })

const written = (targetPath: string, files: Files) => atOnce(AtomicWriter.write(targetPath, payloadOf(files), {}))

export const suite = <E>(name: string, layer: Layer.Layer<Disk, E>, makeDirectory: MakeDirectory): void =>
  it.layer(layer)(`MountedFiles (${name})`, (it) => {
    describe("4.5, 4.6, 13.1 TestGetMountedFiles: list", () => {
      it.effect.each<{
        readonly row: string
        readonly name: string
        readonly plain?: Plain
        readonly files?: Files
        readonly expected: ReadonlyArray<string>
      }>([
        { row: "4.6 list", name: "empty dir", expected: [] },
        { row: "4.6 list", name: "file", plain: { "secret.txt": "1" }, expected: ["secret.txt"] },
        {
          row: "4.6 list",
          name: "subdir/file",
          plain: { "subdir/": "", "subdir/secret.txt": "1" },
          expected: ["subdir/secret.txt"]
        },
        {
          row: "4.6 list",
          name: "atomic symlinks",
          files: { "foo/bar.txt": "1", "foo/baz.txt": "2", "foo.txt": "3" },
          expected: ["foo.txt", "foo/bar.txt", "foo/baz.txt"]
        },
        {
          row: "4.5",
          name: "a provider's files beside ours, empty directories, deep ones",
          plain: { own: "1", "empty/": "", "d/": "", "d/e/": "", "d/e/f": "2" },
          files: { foo: "3", "a/b/c": "4" },
          expected: ["a/b/c", "d/e/f", "foo", "own"]
        },
        {
          row: "4.5",
          name: "names that start with two dots are the writer's",
          plain: { "..x": "1", "...y": "2", ".z": "3", "d/": "", "d/..k": "4" },
          expected: [".z", "d/..k"]
        },
        {
          row: "4.5",
          name: "links of somebody else, to a file and to a directory",
          plain: { "d/": "", "d/x": "1", "to-file": "-> d/x", "to-dir": "-> d" },
          expected: ["d/x", "to-dir/x", "to-file"]
        },
        {
          row: "4.5",
          name: "a link in a directory is listed and not followed",
          plain: { "d/": "", "d/loop": "-> ..", "d/nowhere": "-> nowhere" },
          expected: ["d/loop", "d/nowhere"]
        },
        {
          row: "4.3 #6",
          name: "a link of ours without a file in the generation is no file",
          files: { foo: "1" },
          plain: { bar: "-> ..data/bar" },
          expected: ["foo"]
        }
      ])("$row $name", ({ expected, files, plain }) =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          if (files !== undefined) yield* written(targetPath, files)
          if (plain !== undefined) yield* place(targetPath, plain)
          const listed = yield* MountedFiles.list(targetPath)
          assert.deepStrictEqual([...listed.keys()], expected)
          for (const [key, path] of listed) {
            assert.isTrue(path.startsWith(`${targetPath}/`), path)
            if ((yield* disk.lstat(path)).type === "SymbolicLink") continue
            assert.strictEqual(yield* disk.readFileString(path), yield* disk.readFileString(`${targetPath}/${key}`))
          }
        })
      )

      it.effect.each([
        { name: "4.6 list target path not found", path: "" },
        { name: "4.5 a target that is missing", path: "/missing/target" }
      ])("$name", ({ path }) =>
        Effect.gen(function* () {
          assert.strictEqual((yield* Effect.flip(MountedFiles.list(path))).reason._tag, "NotFound")
        })
      )

      it.effect("4.5 links without a generation are an error", () =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          yield* place(targetPath, { foo: "-> ..data/foo" })
          assert.strictEqual((yield* Effect.flip(MountedFiles.list(targetPath))).reason._tag, "NotFound")
        })
      )

      it.effect("4.5 a link of somebody else that leads nowhere is an error", () =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          yield* place(targetPath, { foo: "-> nowhere" })
          assert.strictEqual((yield* Effect.flip(MountedFiles.list(targetPath))).reason._tag, "NotFound")
        })
      )

      it.effect("D8 all paths are in one generation, and stay so when the next one comes", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* written(targetPath, { crt: "1", key: "1" })
          const listed = yield* MountedFiles.list(targetPath)
          assert.strictEqual(yield* disk.readFileString(listed.get("crt")!), "1")
          yield* written(targetPath, { crt: "2", key: "2" })
          const failed = yield* Effect.flip(disk.readFileString(listed.get("key")!))
          assert.strictEqual(failed.reason._tag, "NotFound")
        })
      )
    })

    describe("Q3 populated", () => {
      it.effect.each<{ readonly name: string; readonly plain: Plain; readonly expected: boolean }>([
        { name: "an empty directory", plain: {}, expected: false },
        { name: "..data and its directory", plain: { "..1/": "", "..data": "-> ..1" }, expected: true },
        { name: "..data that leads nowhere", plain: { "..data": "-> ..1" }, expected: false },
        { name: "..data that leads to a file", plain: { "..1": "x", "..data": "-> ..1" }, expected: false },
        { name: "..data that leads to itself", plain: { "..data": "-> ..data" }, expected: false },
        {
          name: "only what a first write had made",
          plain: { "..1/": "", "..data_tmp": "-> ..1", foo: "-> ..data/foo" },
          expected: false
        },
        {
          name: "links of ours and a ..data that leads nowhere",
          plain: { "..data": "-> ..1", foo: "-> ..data/foo" },
          expected: false
        },
        { name: "a provider's file", plain: { foo: "1" }, expected: true },
        { name: "a provider's directory", plain: { "foo/": "" }, expected: true },
        { name: "a provider's dotfile", plain: { ".foo": "1" }, expected: true },
        { name: "a provider's link", plain: { "..own/": "", foo: "-> ..own/foo" }, expected: true },
        { name: "a provider's file beside links of ours", plain: { bar: "1", foo: "-> ..data/foo" }, expected: true }
      ])("$name: $expected", ({ expected, plain }) =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          yield* place(targetPath, plain)
          assert.strictEqual(yield* MountedFiles.populated(targetPath), expected)
        })
      )

      it.effect("a missing target: false", () =>
        Effect.gen(function* () {
          assert.isFalse(yield* MountedFiles.populated(`${yield* makeDirectory}/missing`))
        })
      )

      it.effect("a target that is a file: an error", () =>
        Effect.gen(function* () {
          const parent = yield* makeDirectory
          yield* place(parent, { target: "1" })
          assert.strictEqual(
            (yield* Effect.flip(MountedFiles.populated(`${parent}/target`))).reason._tag,
            "BadResource"
          )
        })
      )
    })

    describe("clear", () => {
      it.effect("removes all, and follows no link", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const parent = yield* makeDirectory
          const targetPath = `${parent}/target`
          yield* place(parent, { "target/": "", "outside/": "", "outside/kept": "kept" })
          yield* written(targetPath, { foo: "1", "a/b/c": "2" })
          yield* place(targetPath, {
            own: "1",
            "own-dir/": "",
            "own-dir/deep/": "",
            "own-dir/deep/x": "2",
            "own-dir/out": "-> ../../outside",
            out: "-> ../outside",
            "..2020_01_01_00_00_00.1/": "",
            "..data_tmp": "-> ..nowhere",
            ".dotfile": "3"
          })
          assert.deepStrictEqual(yield* MountedFiles.clear(targetPath), [])
          assert.deepStrictEqual(yield* disk.readDirectory(targetPath), [])
          assert.strictEqual(yield* disk.readFileString(`${parent}/outside/kept`), "kept")
          assert.deepStrictEqual(yield* MountedFiles.clear(targetPath), [])
        })
      )

      it.effect("a missing target has nothing to remove", () =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* MountedFiles.clear(`${yield* makeDirectory}/missing`), [])
        })
      )

      it.effect("a target that is a file is said, and left", () =>
        Effect.gen(function* () {
          const parent = yield* makeDirectory
          yield* place(parent, { target: "1" })
          assert.deepStrictEqual(yield* MountedFiles.clear(`${parent}/target`), [
            `scandir ${parent}/target: not a directory`
          ])
        })
      )

      it.effect("what cannot be removed is said, once per entry, and all else is gone", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* written(targetPath, { "stuck/x": "1", foo: "2" })
          yield* place(targetPath, { stuck2: "1", "d/": "", "d/stuck3": "1", "d/stuck4": "1", "d/gone": "1" })
          const broken: Disk = {
            ...disk,
            remove: (path, options) =>
              path.includes("stuck") ? disk.remove(`${path}/\u0000`, options) : disk.remove(path, options)
          }
          const left = yield* MountedFiles.clear(targetPath).pipe(Effect.provideService(FileSystem.FileSystem, broken))
          assert.strictEqual(left.length, 4)
          const rest = yield* disk.readDirectory(targetPath, { recursive: true })
          const kept = rest.map((path) => path.replace(/^\.\.\d[^/]*/u, "..<generation>")).sort()
          assert.deepStrictEqual(kept, [
            "..<generation>",
            "..<generation>/stuck",
            "..<generation>/stuck/x",
            // The mark of a removal that has not ended.
            "..clearing",
            "..clearing/stuck3",
            "..clearing/stuck4",
            "stuck",
            "stuck2"
          ])
          assert.deepStrictEqual(yield* MountedFiles.clear(targetPath), [])
        })
      )

      it.effect("Q3 a provider's own files are no content from the first step of their removal on", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* place(targetPath, { a: "1", b: "2", "c/": "", "c/d": "3" })
          assert.isTrue(yield* MountedFiles.populated(targetPath))
          let calls = 0
          const seen: Array<boolean> = []
          const watched: Disk = {
            ...disk,
            remove: (path, options) =>
              Effect.gen(function* () {
                calls += 1
                seen.push(yield* Effect.orDie(MountedFiles.populated(targetPath)))
                // The driver is killed somewhere in the middle, or the disk fails.
                if (calls === 2) yield* disk.remove(`${path}/\u0000`, options)
                yield* disk.remove(path, options)
              }).pipe(Effect.provideService(FileSystem.FileSystem, disk))
          }
          const left = yield* MountedFiles.clear(targetPath).pipe(Effect.provideService(FileSystem.FileSystem, watched))
          assert.strictEqual(left.length, 1)
          assert.deepStrictEqual([...new Set(seen)], [false])
          assert.isFalse(yield* MountedFiles.populated(targetPath))
          assert.deepStrictEqual(yield* MountedFiles.clear(targetPath), [])
          assert.deepStrictEqual(yield* disk.readDirectory(targetPath), [])
        })
      )

      it.effect("S1 while the link to the files cannot be removed, the files stay: a part of them is no volume", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* written(targetPath, { foo: "1", "d/bar": "2" })
          const before = yield* disk.readDirectory(targetPath, { recursive: true })
          const broken: Disk = {
            ...disk,
            remove: (path, options) =>
              path.endsWith("/..data") ? disk.remove(`${path}/\u0000`, options) : disk.remove(path, options)
          }
          const left = yield* MountedFiles.clear(targetPath).pipe(Effect.provideService(FileSystem.FileSystem, broken))
          assert.strictEqual(left.length, 1)
          assert.deepStrictEqual((yield* disk.readDirectory(targetPath, { recursive: true })).sort(), before.sort())
        })
      )

      it.effect("more files than are removed at a time", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const targetPath = yield* makeDirectory
          yield* written(targetPath, Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`f${index}`, ""])))
          assert.deepStrictEqual(yield* MountedFiles.clear(targetPath), [])
          assert.deepStrictEqual(yield* disk.readDirectory(targetPath), [])
        })
      )
    })

    describe("7.1 the clock", () => {
      it.effect.each([0, 1, 999, 1_700_000_000_123, 1_795_482_814_997])("%i is read as it was set", (millis) =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          yield* MountedFiles.touch(targetPath, millis)
          assert.strictEqual(yield* MountedFiles.lastChange(targetPath), millis)
        })
      )

      it.effect("a missing target has no time, and setting it fails nobody", () =>
        Effect.gen(function* () {
          const targetPath = `${yield* makeDirectory}/missing`
          yield* MountedFiles.touch(targetPath, 1)
          assert.isUndefined(yield* MountedFiles.lastChange(targetPath))
        })
      )

      it.effect("4.3 #3c a write that changes nothing leaves the time", () =>
        Effect.gen(function* () {
          const targetPath = yield* makeDirectory
          yield* written(targetPath, { foo: "1" })
          yield* MountedFiles.touch(targetPath, 5_000)
          yield* written(targetPath, { foo: "1" })
          assert.strictEqual(yield* MountedFiles.lastChange(targetPath), 5_000)
          yield* written(targetPath, { foo: "2" })
          assert.notStrictEqual(yield* MountedFiles.lastChange(targetPath), 5_000)
        })
      )
    })

    describe("what went wrong is said in Go's words", () => {
      it.effect("one path", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const path = `${yield* makeDirectory}/it's, missing`
          const failed = yield* Effect.flip(disk.readFile(path))
          assert.strictEqual(MountedFiles.explain(failed), `open ${path}: no such file or directory`)
        })
      )

      it.effect("two paths", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const directory = yield* makeDirectory
          const failed = yield* Effect.flip(disk.rename(`${directory}/a`, `${directory}/b`))
          assert.strictEqual(
            MountedFiles.explain(failed),
            `rename ${directory}/a ${directory}/b: no such file or directory`
          )
        })
      )

      it.effect("an argument that the system is not asked with", () =>
        Effect.gen(function* () {
          const disk = yield* FileSystem.FileSystem
          const failed = yield* Effect.flip(disk.readLink("a\u0000b"))
          assert.include(MountedFiles.explain(failed), "null bytes")
        })
      )
    })
  })
