/**
 * Ten thousand real exchanges of files on real tmpfs, under the eyes of another process that reads them in a tight loop.
 */
import { spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Deferred, Duration, Effect, FileSystem, Layer } from "effect"
import * as LinuxMounter from "../../layers/real/LinuxMounter.ts"
import * as LocalFileSystem from "../../layers/real/LocalFileSystem.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter } from "../../src/ports/Mounter.ts"
import { write } from "../../src/volume/AtomicWriter.ts"
import { OldGenerations } from "../../src/volume/OldGenerations.ts"
import { payloadOf } from "../contracts/AtomicWriterSuite.ts"
import { eventually, isRoot, tell } from "../support/DriverWorld.ts"
import type { ReaderReport } from "../support/VolumeReader.ts"

const SWAPS = 10_000
/** A volume is exchanged once a second: as fast as its old generations go. */
const VOLUMES = 400
const READER = fileURLToPath(new URL("../support/VolumeReader.ts", import.meta.url))

const filesOf = (generation: number) =>
  payloadOf({ a: `${generation}`, "sub/b": `${generation}`, c: `${generation}`, large: "x".repeat(generation) })

/** A mounted, filled volume for as long as the scope is open. */
const volume = (path: string) =>
  Effect.gen(function* () {
    const files = yield* FileSystem.FileSystem
    const mounter = yield* Mounter
    const target = TargetPath.make(path)
    yield* files.makeDirectory(path)
    yield* Effect.acquireRelease(mounter.mountTmpfs(target, { sizeBytes: 1024 * 1024, mode: 0o755 }), () =>
      Effect.orDie(mounter.unmount(target))
    )
    yield* write(path, filesOf(0), {})
    return path
  })

/** The reading process, once it has read everything; it is killed with the scope. */
const startReader = Effect.fnUntraced(function* (root: string) {
  const ready = yield* Deferred.make<void>()
  const exited = yield* Deferred.make<unknown>()
  let output = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [READER, root], { stdio: ["pipe", "pipe", "inherit"] })),
    (it) => Effect.sync(() => it.kill("SIGKILL"))
  )
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text
    Deferred.doneUnsafe(ready, Effect.void)
  })
  child.on("close", (code, signal) => {
    Deferred.doneUnsafe(ready, Effect.void)
    Deferred.doneUnsafe(exited, Effect.succeed(code ?? signal))
  })
  yield* Deferred.await(ready)
  return {
    /** Ends it, and returns what it has seen. */
    end: Effect.gen(function* () {
      child.stdin.end()
      assert.strictEqual(yield* Deferred.await(exited), 0)
      const report: ReaderReport = JSON.parse(output.slice(output.indexOf("{")))
      return report
    })
  }
})

const generationsIn = (target: string) => readdirSync(target).filter((name) => /^\.\.\d/u.test(name)).length

it.live.skipIf(!isRoot)(
  `S2, S3: ${SWAPS} swaps, and a reader in another process misses no file and sees no two generations at once (needs root)`,
  () =>
    Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const root = yield* files.makeTempDirectoryScoped({ prefix: "reader-" })
      const targets = yield* Effect.forEach(Array.from({ length: VOLUMES }), (_, index) =>
        volume(join(root, `${index}`))
      )
      const reader = yield* startReader(root)
      let swaps = 0
      let generationsMax = 0
      const [took] = yield* Effect.timed(
        Effect.forEach(
          targets,
          (target, index) =>
            Effect.gen(function* () {
              // One after the other, not all of them at the same moment.
              yield* Effect.sleep((index * 1_000) / VOLUMES)
              for (let generation = 1; generation <= SWAPS / VOLUMES; generation++) {
                if ((yield* write(target, filesOf(generation), {})).changed) swaps += 1
                generationsMax = Math.max(generationsMax, generationsIn(target))
              }
            }),
          { concurrency: VOLUMES, discard: true }
        )
      )
      const { missing, mixed, ...figures } = yield* reader.end
      tell(`${swaps} swaps in ${Duration.toSeconds(took).toFixed(1)} s, seen by the reader: ${JSON.stringify(figures)}`)
      tell(`${missing.length} files missing, ${mixed.length} times two generations`)
      assert.strictEqual(swaps, SWAPS)
      assert.deepStrictEqual(missing.slice(0, 5), [])
      assert.deepStrictEqual(mixed.slice(0, 5), [])
      // It was there, and not in the intervals only.
      assert.isAbove(figures.sets, 10 * SWAPS)
      assert.isAbove(figures.overtaken, SWAPS / 10)
      assert.isAbove(figures.generations, SWAPS / 2)
      // Old secrets do not pile up, and do not stay.
      assert.strictEqual(generationsMax, 2)
      yield* eventually(
        () => Math.max(...targets.map(generationsIn)),
        (most) => most === 1,
        5
      )
    }).pipe(
      Effect.scoped,
      Effect.provide(Layer.mergeAll(LocalFileSystem.layer, LinuxMounter.layer, OldGenerations.layer))
    ),
  { timeout: 120_000 }
)
