/** Tables of reference/driver.md 4.5 and Q3, on a real disk and on the one in memory. */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import { Effect, FileSystem } from "effect"
import * as MemoryNode from "../../layers/fake/MemoryNode.ts"
import { suite } from "../contracts/MountedFilesSuite.ts"

const temporary = Effect.flatMap(FileSystem.FileSystem, (disk) => disk.makeTempDirectoryScoped({ prefix: "mounted-" }))

const inMemory = Effect.gen(function* () {
  const disk = yield* FileSystem.FileSystem
  yield* disk.makeDirectory("/tmp", { recursive: true })
  return yield* disk.makeTempDirectory({ prefix: "mounted-" })
})

suite("disk", NodeFileSystem.layer, temporary)
suite("memory", MemoryNode.layer, inMemory)
