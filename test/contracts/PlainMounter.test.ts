/**
 * The mounter of a demo without root: as much of the contract as plain directories can keep.
 */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as PlainMounter from "../../layers/development/PlainMounter.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter } from "../../src/ports/Mounter.ts"

const options = { sizeBytes: 0, mode: 0o755 }

it.layer(PlainMounter.layer)("Mounter (plain directories)", (it) => {
  const fresh = Effect.gen(function* () {
    const parent = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "plain-mounter-"))),
      (made) => Effect.sync(() => rmSync(made, { recursive: true }))
    )
    const target = TargetPath.make(join(parent, "mount"))
    mkdirSync(target)
    return { mounter: yield* Mounter, parent, target }
  })

  it.effect("2.7: a mount lasts until unmount, and its content goes with it", () =>
    Effect.gen(function* () {
      const { mounter, parent, target } = yield* fresh
      chmodSync(target, 0o750)
      assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
      yield* mounter.mountTmpfs(target, options)
      assert.strictEqual(yield* mounter.inspect(target), "Mounted")
      assert.strictEqual(statSync(target).mode & 0o777, 0o755)
      assert.deepStrictEqual(readdirSync(target), [])
      mkdirSync(join(target, "..data"))
      writeFileSync(join(target, "..data/file"), "content")
      assert.deepStrictEqual(yield* mounter.listTmpfs(parent), [target])
      yield* mounter.unmount(target)
      assert.strictEqual(yield* mounter.inspect(target), "NotMounted")
      assert.deepStrictEqual(yield* mounter.listTmpfs(parent), [])
      assert.deepStrictEqual(readdirSync(target), [])
      assert.deepStrictEqual(readdirSync(parent), ["mount"])
    })
  )

  it.effect("2.9 row 6: unmount may be repeated, also for what is missing, and takes nothing that is not mounted", () =>
    Effect.gen(function* () {
      const { mounter, target } = yield* fresh
      writeFileSync(join(target, "file"), "of somebody else")
      yield* mounter.unmount(target)
      assert.deepStrictEqual(readdirSync(target), ["file"])
      rmSync(target, { recursive: true })
      yield* mounter.unmount(target)
      assert.strictEqual(yield* mounter.inspect(target), "Missing")
      assert.deepStrictEqual(yield* mounter.listTmpfs(target), [])
    })
  )

  it.effect.each([
    { name: "a missing path", at: "missing", errno: "ENOENT" },
    { name: "a file", at: "file", errno: "ENOTDIR" },
    { name: "a link to a directory", at: "link", errno: "ENOTDIR" },
    { name: "a mounted directory", at: "mounted", errno: "EBUSY" },
    { name: "a directory that is not empty", at: "full", errno: "ENOTEMPTY" }
  ])("2.8: $name is not mounted on: $errno", ({ at, errno }) =>
    Effect.gen(function* () {
      const { mounter, parent } = yield* fresh
      writeFileSync(join(parent, "file"), "")
      symlinkSync("mount", join(parent, "link"))
      mkdirSync(join(parent, "full/inside"), { recursive: true })
      mkdirSync(join(parent, "mounted"))
      yield* mounter.mountTmpfs(TargetPath.make(join(parent, "mounted")), options)
      const target = TargetPath.make(join(parent, at))
      const failed = yield* Effect.flip(mounter.mountTmpfs(target, options))
      assert.deepStrictEqual([failed.operation, failed.targetPath, failed.errno], ["mount", target, errno])
      assert.deepStrictEqual(yield* mounter.listTmpfs(parent), [TargetPath.make(join(parent, "mounted"))])
    })
  )
})
