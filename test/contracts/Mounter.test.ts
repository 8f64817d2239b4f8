/**
 * The Mounter contract on both mounters, and what only Linux can show: the kernel's own table.
 */
import { closeSync, openSync, readFileSync } from "node:fs"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { ByteSize, Context, Effect, Fiber, FileSystem, Layer, type Scope } from "effect"
import koffi from "koffi"
import { MemoryNode, make as makeNode, layer as memoryNode } from "../../layers/fake/MemoryNode.ts"
import { layer as linuxMounter, parseMountInfo } from "../../layers/real/LinuxMounter.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter } from "../../src/ports/Mounter.ts"
import { suite } from "./MounterSuite.ts"

const isRoot = process.getuid?.() === 0

/** A directory whose mounts are gone before it is removed. */
const directory: Effect.Effect<string, never, FileSystem.FileSystem | Mounter | Scope.Scope> = Effect.gen(function* () {
  const files = yield* FileSystem.FileSystem
  const mounter = yield* Mounter
  return yield* Effect.acquireRelease(
    files.makeTempDirectory({ prefix: "mounter-" }).pipe(Effect.flatMap(files.realPath), Effect.orDie),
    (path) =>
      Effect.gen(function* () {
        for (const target of [...(yield* mounter.listTmpfs(path))].reverse()) yield* mounter.unmount(target)
        yield* files.remove(path, { recursive: true })
      }).pipe(Effect.orDie)
  )
})

suite("in memory", memoryNode, {
  directory,
  stack: (path) => Effect.flatMap(MemoryNode, (node) => Effect.orDie(node.mount(path, { sizeBytes: 0, mode: 0o755 }))),
  corrupt: (path) =>
    Effect.gen(function* () {
      const node = yield* MemoryNode
      yield* node.mount(path, { sizeBytes: 0, mode: 0o755 })
      yield* node.breakMount(path, "ENOTCONN")
    }).pipe(Effect.orDie)
})

const rawMount = (type: string, path: string, data: string) => {
  const mount = koffi
    .load("libc.so.6")
    .func("int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)")
  if (mount(type, path, type, 0, data) !== 0) throw new Error(`mount ${type}: errno ${koffi.errno()}`)
}

const fuse = ((): string | undefined => {
  try {
    closeSync(openSync("/dev/fuse", "r+"))
    return undefined
  } catch (error) {
    return `needs /dev/fuse: ${error}`
  }
})()

const linux = Layer.merge(linuxMounter, NodeFileSystem.layer)

describe.skipIf(!isRoot)(isRoot ? "on this kernel" : "on this kernel (needs root)", () => {
  suite("Linux", linux, {
    directory,
    stack: (path) => Effect.sync(() => rawMount("tmpfs", path, "")),
    // A file system in user space whose server has left.
    corrupt:
      fuse ??
      ((path) =>
        Effect.sync(() => {
          const server = openSync("/dev/fuse", "r+")
          rawMount("fuse", path, `fd=${server},rootmode=40000,user_id=0,group_id=0`)
          closeSync(server)
        }))
  })

  it.layer(linux)("the kernel's table", (it) => {
    it.effect("shows a tmpfs with the flags, size, mode and group asked for, and without swap", () =>
      Effect.gen(function* () {
        const mounter = yield* Mounter
        const target = TargetPath.make(yield* directory)
        yield* mounter.mountTmpfs(target, { sizeBytes: 65_536, mode: 0o750, gid: 2000 })
        const found = parseMountInfo(readFileSync("/proc/self/mountinfo", "utf8")).filter((it) => it.target === target)
        assert.lengthOf(found, 1)
        const { fstype, options, source, superOptions } = found[0]!
        assert.deepStrictEqual({ fstype, source }, { fstype: "tmpfs", source: "tmpfs" })
        assert.includeMembers([...options], ["rw", "nosuid", "nodev", "noexec"])
        assert.includeMembers([...superOptions], ["size=64k", "mode=750", "gid=2000"])
        const [major = 0, minor = 0] = readFileSync("/proc/sys/kernel/osrelease", "utf8").split(".").map(Number)
        assert.strictEqual(superOptions.includes("noswap"), major > 6 || (major === 6 && minor >= 4))
      })
    )
  })
})

describe("the node in memory", () => {
  const target = TargetPath.make("/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/volume/mount")
  const withMount = Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const mounter = yield* Mounter
    const node = yield* MemoryNode
    yield* files.makeDirectory(target, { recursive: true })
    yield* mounter.mountTmpfs(target, { sizeBytes: 65_536, mode: 0o755, gid: 2000 })
    yield* files.writeFileString(`${target}/secret`, "s3cr3t", { mode: 0o400 })
    yield* files.symlink("secret", `${target}/link`)
    return { files, mounter, node }
  })

  it.effect("a restart takes the mounts away and leaves the directories", () =>
    Effect.gen(function* () {
      const { files, mounter, node } = yield* withMount
      yield* node.reboot
      assert.deepStrictEqual(yield* node.mounts, [])
      assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
      assert.deepStrictEqual(yield* files.readDirectory(target), [])
    }).pipe(Effect.provide(Layer.fresh(memoryNode)))
  )

  it.effect("a snapshot tells all but contents, as plain data", () =>
    Effect.gen(function* () {
      const { node } = yield* withMount
      const owner = { uid: 0, gid: 0, mtimeMillis: 0 }
      assert.deepStrictEqual(yield* node.snapshot(target), [
        { path: target, type: "Directory", mode: "0755", ...owner, gid: 2000, mount: "tmpfs" },
        { path: `${target}/link`, type: "SymbolicLink", mode: "0777", ...owner, target: "secret" },
        { path: `${target}/secret`, type: "File", mode: "0400", ...owner, sizeBytes: 6 }
      ])
      const whole = JSON.stringify(yield* node.snapshot())
      assert.notInclude(whole, "s3cr3t")
      assert.include(whole, '"path":"/tmp"')
    }).pipe(Effect.provide(Layer.fresh(memoryNode)))
  )

  it.effect("mounts are told with their size and use; a broken one with its error", () =>
    Effect.gen(function* () {
      const { mounter, node } = yield* withMount
      const mount = { path: target, sizeBytes: 65_536, usedBytes: 4096, mode: 0o755, gid: 2000 }
      assert.deepStrictEqual(yield* node.mounts, [{ ...mount, broken: undefined }])
      yield* node.breakMount(target, "ESTALE")
      assert.deepStrictEqual(yield* node.mounts, [{ ...mount, broken: "ESTALE" }])
      assert.deepStrictEqual(
        (yield* node.snapshot(target)).map(({ mount, path }) => [path, mount]),
        [[target, "ESTALE"]]
      )
      assert.strictEqual(yield* mounter.inspect(target), "Corrupted")
      yield* node.unmount(target)
      assert.strictEqual((yield* Effect.flip(node.unmount(target))).errno, "EINVAL")
    }).pipe(Effect.provide(Layer.fresh(memoryNode)))
  )

  it.effect("writing a file is not atomic: for a moment it is empty", () =>
    Effect.gen(function* () {
      const { files } = yield* withMount
      const path = `${target}/secret`
      const writer = yield* Effect.forkChild(files.writeFileString(path, "new"), { startImmediately: true })
      const sizes: Array<bigint> = []
      for (let i = 0; i < 4; i++) sizes.push(ByteSize.toBigInt((yield* files.stat(path)).size))
      yield* Fiber.join(writer)
      assert.deepStrictEqual(sizes, [0n, 3n, 3n, 3n])
    }).pipe(Effect.provide(Layer.fresh(memoryNode)))
  )

  it.effect("each context has a disk of its own", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* makeNode, yield* makeNode]
      yield* Context.get(one, FileSystem.FileSystem).writeFileString("/file", "")
      assert.isFalse(yield* Context.get(other, FileSystem.FileSystem).exists("/file"))
    })
  )
})

describe("mountinfo", () => {
  it.each([
    {
      name: "a line with no optional field",
      line: "36 35 0:42 / /target rw,nosuid - tmpfs tmpfs rw,size=64k",
      expected: {
        target: "/target",
        fstype: "tmpfs",
        source: "tmpfs",
        options: ["rw", "nosuid"],
        superOptions: ["rw", "size=64k"]
      }
    },
    {
      name: "a line with several optional fields",
      line: "36 35 98:0 /mnt1 /mnt2 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue",
      expected: {
        target: "/mnt2",
        fstype: "ext3",
        source: "/dev/root",
        options: ["rw", "noatime"],
        superOptions: ["rw", "errors=continue"]
      }
    },
    {
      name: "a line with escapes, also of what looks like one",
      line: "36 35 0:42 / /a\\040b\\011c\\012d\\134040e\\043f rw - tmpfs my\\040source rw",
      expected: {
        target: "/a b\tc\nd\\040e#f",
        fstype: "tmpfs",
        source: "my source",
        options: ["rw"],
        superOptions: ["rw"]
      }
    },
    {
      name: "a line with an empty source",
      line: "36 35 0:42 / /target rw - tmpfs  rw",
      expected: { target: "/target", fstype: "tmpfs", source: "", options: ["rw"], superOptions: ["rw"] }
    },
    { name: "an empty line", line: "", expected: undefined },
    { name: "a line cut short", line: "36 35 0:42 / /target rw shared:1", expected: undefined },
    { name: "a line cut short on the right", line: "36 35 0:42 / /target rw - tmpfs", expected: undefined }
  ])("$name", ({ expected, line }) => {
    assert.deepStrictEqual<unknown>(parseMountInfo(`${line}\n`), expected === undefined ? [] : [expected])
  })

  it("is read in its order", () => {
    const text = ["/b", "/a"].map((target) => `1 1 0:1 / ${target} rw - tmpfs tmpfs rw\n`).join("")
    assert.deepStrictEqual(
      parseMountInfo(text).map(({ target }) => target),
      ["/b", "/a"]
    )
  })
})
