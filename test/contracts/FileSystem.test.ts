/**
 * The FileSystem contract on Node's and in memory; then both are given the same random steps and have to agree.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, FileSystem, Schema } from "effect"
import { TestClock } from "effect/testing"
import { make, layer as memoryNode } from "../../layers/fake/MemoryNode.ts"
import * as LocalFileSystem from "../../layers/real/LocalFileSystem.ts"
import { outcomeOf, type Place, type Step, steps, suite, tree } from "./FileSystemSuite.ts"

const hasPowers = process.getuid?.() === 0 && process.umask() === 0o022
const needs = hasPowers ? "" : " (needs root and umask 022)"

const directory = Effect.gen(function* () {
  const files = yield* FileSystem.FileSystem
  return yield* Effect.flatMap(files.makeTempDirectoryScoped({ prefix: "files-" }), files.realPath)
}).pipe(Effect.orDie)

suite("in memory", memoryNode, { directory, later: TestClock.adjust })

describe.skipIf(!hasPowers)(`on this disk${needs}`, () => {
  suite("Node", NodeFileSystem.layer, { directory, later: () => Effect.void })
  suite("the driver's", LocalFileSystem.layer, { directory, later: () => Effect.void })
})

// A few names, so that steps meet each other.
const Path = Schema.Literals(["a", "b", "d", "d/", "d/a", "d/b", "d/e", "d/e/a", "a/b", "d/../b", "b/.", "d/e/../../a"])

const Random = Schema.Struct({
  what: Schema.Literals([
    "write",
    "write",
    "append",
    "exclusive",
    "truncate",
    "mkdir",
    "mkdir",
    "parents",
    "symlink",
    "symlink",
    "absoluteSymlink",
    "link",
    "rename",
    "rename",
    "remove",
    "removeTree",
    "readLink",
    "read",
    "list",
    "listAll",
    "entries",
    "exists",
    "stat",
    "lstat",
    "realPath",
    "chmod"
  ]),
  one: Path,
  two: Path
})

const stepOf = ({ one, two, what }: typeof Random.Type): Step => {
  switch (what) {
    case "write":
      return steps.write(one, two)
    case "append":
      return steps.write(one, "+", { flag: "a" })
    case "exclusive":
      return steps.write(one, "x", { flag: "wx" })
    case "parents":
      return steps.mkdir(one, { recursive: true })
    case "symlink":
      return steps.symlink(two, one)
    case "absoluteSymlink":
      return (place) => steps.symlink(place.at(two), one)(place)
    case "link":
      return steps.link(one, two)
    case "rename":
      return steps.rename(one, two)
    case "removeTree":
      return steps.remove(one, { recursive: true, force: true })
    case "listAll":
      return steps.list(one, { recursive: true })
    case "chmod":
      return steps.chmod(one, 0o640)
    default:
      return steps[what](one)
  }
}

describe.skipIf(!hasPowers)(`both at once${needs}`, () => {
  it.layer(NodeFileSystem.layer)((it) => {
    it.effect.prop(
      "the same steps have the same outcomes, and leave the same tree",
      [Schema.Array(Random).check(Schema.isMinLength(5), Schema.isMaxLength(40))],
      ([random]) =>
        Effect.scoped(
          Effect.gen(function* () {
            const real = yield* directory
            const memory = Context.get(yield* make, FileSystem.FileSystem)
            // At the same path, so that links to full paths are alike.
            yield* memory.makeDirectory(real, { recursive: true })
            const at = (path: string) => `${real}/${path}`
            const onDisk: Place = { files: yield* FileSystem.FileSystem, at }
            const inMemory: Place = { files: memory, at }
            for (const each of random) {
              const step = stepOf(each)
              const said = `${each.what} ${each.one} ${each.two}`
              assert.deepStrictEqual(yield* outcomeOf(inMemory, step), yield* outcomeOf(onDisk, step), said)
            }
            assert.deepStrictEqual(yield* tree(inMemory), yield* tree(onDisk))
          })
        ),
      { arbitrary: { runs: 200 } }
    )
  })
})
