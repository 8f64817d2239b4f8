/**
 * What the driver expects of every Mounter, real or not. Rows quote reference/driver.md.
 */
import { assert, it } from "@effect/vitest"
import { Effect, FileSystem, type Layer, Option, Result, type Scope } from "effect"
import { MountFailed } from "../../schemas/errors/MountFailed.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter, type TmpfsOptions } from "../../src/ports/Mounter.ts"

/** What a suite has to be able to do besides. */
export interface MountWorld<R> {
  /** An absolute path of a new, empty directory; goes away with the scope, and so do mounts below it. */
  readonly directory: Effect.Effect<string, never, R | Mounter | FileSystem.FileSystem | Scope.Scope>
  /** Mounts a tmpfs without asking what is there. */
  readonly stack: (path: string) => Effect.Effect<void, never, R>
  /** Makes a mount at the path that cannot be entered (ENOTCONN); why not, when that is impossible here. */
  readonly corrupt: ((path: string) => Effect.Effect<void, never, R>) | string
}

const plain: TmpfsOptions = { sizeBytes: 0, mode: 0o755 }
const PAGE_BYTES = 4096

export const suite = <R, E>(
  name: string,
  layer: Layer.Layer<Mounter | FileSystem.FileSystem | R, E>,
  world: MountWorld<R>
) =>
  it.layer(layer)(`Mounter (${name})`, (it) => {
    /** A fresh directory to mount on, inside a fresh one. */
    const fresh = Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const mounter = yield* Mounter
      const parent = yield* world.directory
      const target = TargetPath.make(`${parent}/mount`)
      yield* files.makeDirectory(target)
      return { files, mounter, parent, target }
    })

    const errnoOf = <A>(effect: Effect.Effect<A, MountFailed>) =>
      Effect.map(Effect.flip(effect), (error) => {
        assert.instanceOf(error, MountFailed)
        return [error.operation, error.targetPath, error.errno]
      })

    it.effect("2.7: a mount lasts until unmount, and its content goes with it", () =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* files.writeFileString(`${target}/below`, "covered while mounted")
        yield* mounter.mountTmpfs(target, plain)
        assert.strictEqual(yield* mounter.inspect(target), "Mounted")
        assert.deepStrictEqual(yield* files.readDirectory(target), [])
        yield* files.writeFileString(`${target}/file`, "content")
        assert.strictEqual(yield* mounter.inspect(target), "Mounted")
        yield* mounter.unmount(target)
        assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
        assert.deepStrictEqual(yield* files.readDirectory(target), ["below"])
        yield* mounter.mountTmpfs(target, plain)
        assert.deepStrictEqual(yield* files.readDirectory(target), [])
      })
    )

    it.effect("2.9 row 6: unmount may be repeated, also for what is missing", () =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* mounter.unmount(target)
        yield* mounter.mountTmpfs(target, plain)
        yield* mounter.unmount(target)
        yield* mounter.unmount(target)
        yield* files.remove(target, { recursive: true })
        yield* mounter.unmount(target)
        yield* mounter.unmount(TargetPath.make(`${parent}/no/such/directory`))
        assert.strictEqual(yield* mounter.inspect(target), "Missing")
      })
    )

    it.effect("2.8: a mount point is not mounted upon", () =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.writeFileString(`${target}/file`, "kept")
        assert.deepStrictEqual(yield* errnoOf(mounter.mountTmpfs(target, plain)), ["mount", target, "EBUSY"])
        assert.strictEqual(yield* files.readFileString(`${target}/file`), "kept")
        assert.deepStrictEqual(yield* mounter.listTmpfs(target), [target])
        yield* mounter.unmount(target)
        assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
      })
    )

    it.effect("2.8: of several mounts at once on one path, one succeeds", () =>
      Effect.gen(function* () {
        const { mounter, target } = yield* fresh
        const outcomes = yield* Effect.forEach([1, 2, 3, 4], () => Effect.result(mounter.mountTmpfs(target, plain)), {
          concurrency: 4
        })
        assert.deepStrictEqual(
          outcomes.map((outcome) => (Result.isSuccess(outcome) ? "mounted" : outcome.failure.errno)).sort(),
          ["EBUSY", "EBUSY", "EBUSY", "mounted"]
        )
      })
    )

    it.effect("many volumes are mounted and unmounted side by side", () =>
      Effect.gen(function* () {
        const { files, mounter, parent } = yield* fresh
        const targets = Array.from({ length: 24 }, (_, i) => TargetPath.make(`${parent}/many-${100 + i}`))
        const all = <A, B>(f: (target: TargetPath) => Effect.Effect<A, B>) =>
          Effect.forEach(targets, f, { concurrency: 24 })
        yield* all((target) => files.makeDirectory(target))
        yield* all((target) => mounter.mountTmpfs(target, plain))
        assert.deepStrictEqual([...(yield* mounter.listTmpfs(parent))].sort(), targets)
        yield* all((target) => mounter.unmount(target))
        assert.deepStrictEqual(yield* mounter.listTmpfs(parent), [])
      })
    )

    it.effect.each([
      { name: "a missing path", path: "missing", errno: "ENOENT" },
      { name: "a path below a missing one", path: "missing/mount", errno: "ENOENT" },
      { name: "a file", path: "file", errno: "ENOTDIR" },
      { name: "a path below a file", path: "file/mount", errno: "ENOTDIR" },
      { name: "a link to a directory", path: "link", errno: "ENOTDIR" },
      { name: "a link to a directory, written with a slash", path: "link/", errno: "ENOTDIR" },
      { name: "a path with NUL, which C would cut short", path: "mount\u0000/x", errno: "EINVAL" }
    ])("2.8: $name is not mounted on: $errno", ({ errno, path }) =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* files.writeFileString(`${parent}/file`, "")
        yield* files.symlink("mount", `${parent}/link`)
        const at = TargetPath.make(`${parent}/${path}`)
        assert.deepStrictEqual(yield* errnoOf(mounter.mountTmpfs(at, plain)), ["mount", at, errno])
        assert.deepStrictEqual(yield* mounter.listTmpfs(parent), [])
        assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
      })
    )

    it.effect("a size bounds the content to whole pages: ENOSPC beyond", () =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* mounter.mountTmpfs(target, { ...plain, sizeBytes: PAGE_BYTES + 1 })
        yield* files.writeFile(`${target}/one`, new Uint8Array(1))
        yield* files.writeFile(`${target}/two`, new Uint8Array(PAGE_BYTES))
        const error = yield* Effect.flip(files.writeFile(`${target}/three`, new Uint8Array(1)))
        assert.match(String(error.cause), /ENOSPC: no space left on device, write$/u)
        // What is removed makes room.
        yield* files.remove(`${target}/one`)
        yield* files.writeFile(`${target}/three`, new Uint8Array(1))
      })
    )

    it.effect("a size of 0 leaves the bound to the kernel", () =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.writeFile(`${target}/file`, new Uint8Array(64 * PAGE_BYTES))
      })
    )

    it.effect.each([
      { mode: 0o755, gid: undefined, expected: ["755", 0] },
      { mode: 0o750, gid: 2000, expected: ["750", 2000] },
      { mode: 0o2770, gid: 65_534, expected: ["2770", 65_534] },
      { mode: 0o1777, gid: 0, expected: ["1777", 0] }
    ])("the root directory has the mode and group asked for: $expected", ({ expected, gid, mode }) =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* mounter.mountTmpfs(target, { sizeBytes: 0, mode, ...(gid === undefined ? {} : { gid }) })
        const root = yield* files.stat(target)
        assert.deepStrictEqual<unknown>(
          [(root.mode & 0o7777).toString(8), Option.getOrUndefined(root.gid), Option.getOrUndefined(root.uid)],
          [...expected, 0]
        )
      })
    )

    it.effect.each([
      { name: "nothing", path: "missing", expected: "Missing" },
      { name: "nothing, below nothing", path: "missing/mount", expected: "Missing" },
      { name: "a directory", path: "directory", expected: "NotMounted" },
      { name: "a file", path: "file", expected: "NotMounted" },
      { name: "a directory in a mount", path: "mount/inside", expected: "NotMounted" },
      { name: "a link to a mount point", path: "link", expected: "NotMounted" },
      { name: "a dangling link", path: "dangling", expected: "NotMounted" },
      { name: "a mount point", path: "mount", expected: "Mounted" },
      { name: "a mount point, written with a slash", path: "mount/", expected: "Mounted" },
      { name: "a mount point below a link", path: "up/mount", expected: "Mounted" },
      { name: "a directory below a link to another device", path: "link/inside", expected: "NotMounted" }
    ])("2.8: inspect sees $name as $expected", ({ expected, path }) =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.makeDirectory(`${target}/inside`)
        yield* files.makeDirectory(`${parent}/directory`)
        yield* files.writeFileString(`${parent}/file`, "")
        yield* files.symlink("mount", `${parent}/link`)
        yield* files.symlink("nowhere", `${parent}/dangling`)
        yield* files.symlink(parent, `${parent}/up`)
        assert.strictEqual(yield* mounter.inspect(TargetPath.make(`${parent}/${path}`)), expected)
      })
    )

    it.effect("2.8: inspect fails where no directory can be", () =>
      Effect.gen(function* () {
        const { files, mounter, parent } = yield* fresh
        yield* files.writeFileString(`${parent}/file`, "")
        const at = TargetPath.make(`${parent}/file/mount`)
        assert.deepStrictEqual(yield* errnoOf(mounter.inspect(at)), ["inspect", at, "ENOTDIR"])
      })
    )

    const { corrupt } = world
    it.effect.skipIf(typeof corrupt === "string")(
      `2.9 row 6: a mount whose other end is gone is Corrupted, and can be unmounted${typeof corrupt === "string" ? ` (${corrupt})` : ""}`,
      () =>
        Effect.gen(function* () {
          const { mounter, target } = yield* fresh
          if (typeof corrupt === "string") return
          yield* corrupt(target)
          assert.strictEqual(yield* mounter.inspect(target), "Corrupted")
          assert.strictEqual((yield* errnoOf(mounter.mountTmpfs(target, plain)))[2], "ENOTCONN")
          yield* mounter.unmount(target)
          assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
        })
    )

    it.effect("2.9: unmount takes away everything that is stacked at the path", () =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* files.writeFileString(`${target}/below`, "")
        yield* mounter.mountTmpfs(target, plain)
        yield* world.stack(target)
        yield* world.stack(target)
        assert.deepStrictEqual(yield* mounter.listTmpfs(target), [target])
        yield* mounter.unmount(target)
        assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
        assert.deepStrictEqual(yield* files.readDirectory(target), ["below"])
      })
    )

    it.effect("2.9: unmount does not follow a link, with or without a slash", () =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.symlink("mount", `${parent}/link`)
        yield* mounter.unmount(TargetPath.make(`${parent}/link`))
        yield* mounter.unmount(TargetPath.make(`${parent}/link/`))
        assert.strictEqual(yield* mounter.inspect(target), "Mounted")
        yield* mounter.unmount(TargetPath.make(`${target}/`))
        assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
      })
    )

    it.effect("2.9: unmount leaves a directory in a mount alone", () =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.makeDirectory(`${target}/inside`)
        yield* mounter.unmount(TargetPath.make(`${target}/inside`))
        yield* mounter.unmount(TargetPath.make(`${target}\u0000/inside`))
        assert.strictEqual(yield* mounter.inspect(target), "Mounted")
      })
    )

    it.effect("a busy mount is detached: gone for all but those who hold it", () =>
      Effect.gen(function* () {
        const { files, mounter, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.writeFileString(`${target}/file`, "still here")
        const file = yield* files.open(`${target}/file`)
        yield* mounter.unmount(target)
        assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
        assert.deepStrictEqual(yield* files.readDirectory(target), [])
        const bytes = yield* file.readAlloc(100)
        assert.strictEqual(new TextDecoder().decode(Option.getOrThrow(bytes)), "still here")
      })
    )

    it.effect("a mount that holds another one goes together with it", () =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        const inner = TargetPath.make(`${target}/inner`)
        yield* files.makeDirectory(inner)
        yield* mounter.mountTmpfs(inner, plain)
        assert.deepStrictEqual([...(yield* mounter.listTmpfs(parent))].sort(), [target, inner])
        yield* mounter.unmount(target)
        assert.deepStrictEqual(yield* mounter.listTmpfs(parent), [])
        assert.strictEqual(yield* mounter.inspect(inner), "Missing")
      })
    )

    it.effect("10: a mount point cannot be removed, nor its content with it", () =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.writeFileString(`${target}/file`, "")
        for (const path of [target, parent]) {
          const error = yield* Effect.flip(files.remove(path, { recursive: true, force: true }))
          assert.strictEqual(error.reason._tag, "Busy")
        }
        assert.deepStrictEqual(yield* files.readDirectory(target), ["file"])
        assert.strictEqual(yield* mounter.inspect(target), "Mounted")
      })
    )

    it.effect("a mount is a file system of its own: nothing is renamed into it or out of it", () =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.writeFileString(`${target}/in`, "")
        yield* files.writeFileString(`${parent}/out`, "")
        for (const attempt of [
          files.rename(`${target}/in`, `${parent}/in`),
          files.rename(`${parent}/out`, `${target}/out`),
          files.link(`${target}/in`, `${parent}/in`)
        ]) {
          assert.match(String((yield* Effect.flip(attempt)).cause), /EXDEV: cross-device link not permitted/u)
        }
        assert.strictEqual((yield* Effect.flip(files.rename(target, `${parent}/moved`))).reason._tag, "Busy")
        // The directory above may move, and the mount goes along.
        yield* files.rename(parent, `${parent}-moved`)
        assert.deepStrictEqual<unknown>(yield* mounter.listTmpfs(`${parent}-moved`), [`${parent}-moved/mount`])
        yield* files.rename(`${parent}-moved`, parent)
        assert.strictEqual(yield* mounter.inspect(target), "Mounted")
      })
    )

    it.effect.each([
      { name: "the directory above", below: "", expected: ["a/mount", "a/mount/in", "ab", "with \\040 blank\n\t#"] },
      { name: "one beside it with a longer name", below: "/a", expected: ["a/mount", "a/mount/in"] },
      { name: "the mount point itself", below: "/a/mount", expected: ["a/mount", "a/mount/in"] },
      { name: "a name that mountinfo escapes", below: "/with \\040 blank\n\t#", expected: ["with \\040 blank\n\t#"] },
      { name: "a directory without mounts", below: "/empty", expected: [] },
      { name: "nothing", below: "/missing", expected: [] }
    ])("listTmpfs finds mounts at and below: $name", ({ below, expected }) =>
      Effect.gen(function* () {
        const { files, mounter, parent } = yield* fresh
        yield* files.makeDirectory(`${parent}/empty`)
        for (const path of ["a/mount", "a/mount/in", "ab", "with \\040 blank\n\t#"]) {
          const target = TargetPath.make(`${parent}/${path}`)
          yield* files.makeDirectory(target, { recursive: true })
          yield* mounter.mountTmpfs(target, plain)
        }
        assert.deepStrictEqual<unknown>(
          [...(yield* mounter.listTmpfs(`${parent}${below}`))].sort(),
          expected.map((path) => `${parent}/${path}`)
        )
      })
    )

    it.effect("listTmpfs answers in the words of the question, also through a link", () =>
      Effect.gen(function* () {
        const { files, mounter, parent, target } = yield* fresh
        yield* mounter.mountTmpfs(target, plain)
        yield* files.symlink(parent, `${parent}/up`)
        assert.deepStrictEqual<unknown>(yield* mounter.listTmpfs(`${parent}/up`), [`${parent}/up/mount`])
        assert.deepStrictEqual<unknown>(yield* mounter.listTmpfs(`${parent}/up/mount`), [`${parent}/up/mount`])
        assert.include(yield* mounter.listTmpfs("/"), target)
      })
    )
  })
