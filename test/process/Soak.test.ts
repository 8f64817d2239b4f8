/**
 * Five thousand volumes come and go on one real driver, sixteen at a time, over HTTPS as in a cluster: what it holds of
 * the system afterwards is what it held before.
 */
import { readdirSync, readFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { eventually, freePort, get, isRoot, make, tell, valueOf, volumeOf } from "../support/DriverWorld.ts"

const CYCLES = Number(process.env["SOAK_CYCLES"] ?? 5_000)
const STRETCH = CYCLES / 5
const CONCURRENCY = 16
const TRIM_SECONDS = 2
const GROWTH_MAX_MIB = 5
/** How often the driver brings its gauges up to date. */
const GAUGES_SECONDS = 10

const held = (pid: number, directory: string) => {
  const status = readFileSync(`/proc/${pid}/status`, "utf8")
  const mounts = readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n")
  return {
    files: readdirSync(`/proc/${pid}/fd`).length,
    threads: Number(/^Threads:\s+(\d+)$/mu.exec(status)![1]),
    // Those of others on this machine come and go as they like.
    mounts: mounts.filter((line) => line.includes(` ${directory}/`)).length
  }
}

const residentMiB = (pid: number) =>
  Number(/^VmRSS:\s+(\d+) kB$/mu.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) / 1024

it.live.skipIf(!isRoot)(
  `S15: ${CYCLES} volumes leave no file, mount, thread, fiber or memory behind (needs root)`,
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        const port = yield* freePort
        const driver = yield* bench.startDriver({
          flags: [`--memory-trim-interval=${TRIM_SECONDS}s`, `--metrics-addr=127.0.0.1:${port}`]
        })
        const { pid } = driver
        let number = 0
        const cycle = Effect.suspend(() => {
          const volume = volumeOf(`pod-${number++}`)
          return Effect.andThen(bench.kubelet.publish(volume), bench.kubelet.unpublish(volume))
        })
        // Pod statuses go with their pods, of which there are none here.
        const cycles = (count: number) =>
          Effect.forEach(Array.from({ length: count }), () => cycle, { concurrency: CONCURRENCY, discard: true }).pipe(
            Effect.andThen(bench.kubernetes.collectGarbage)
          )
        const rest = Effect.sleep(`${2 * TRIM_SECONDS + 1} seconds`)

        yield* cycles(50)
        yield* rest
        const fibers = Effect.map(get(`http://127.0.0.1:${port}/metrics`), ({ body }) =>
          valueOf(body, "secrets_store_fibers")
        )
        yield* Effect.sleep(`${GAUGES_SECONDS} seconds`)
        const fibersBefore = yield* fibers
        const before = held(pid, bench.directory)
        const [firstTook] = yield* Effect.timed(cycles(STRETCH))
        yield* rest
        const firstMiB = residentMiB(pid)
        for (let stretch = 1; stretch < 5; stretch++) yield* cycles(STRETCH)
        yield* rest
        const lastMiB = residentMiB(pid)
        const after = yield* eventually(
          () => held(pid, bench.directory),
          (now) => now.files <= before.files && now.threads <= before.threads && now.mounts === before.mounts
        )
        const { anonymousMiB, residentMiB: settledMiB } = driver.memory()
        tell(
          `first ${STRETCH} volumes: ${Duration.toSeconds(firstTook).toFixed(1)} s, then ${firstMiB.toFixed(1)} MiB resident`
        )
        tell(
          `all ${CYCLES} volumes: ${lastMiB.toFixed(1)} MiB resident; before and after: ${JSON.stringify({ before, after })}`
        )
        tell(`at rest: ${settledMiB.toFixed(1)} MiB resident, ${anonymousMiB.toFixed(1)} MiB anonymous`)

        assert.isAtMost(lastMiB, firstMiB + GROWTH_MAX_MIB)
        assert.deepStrictEqual(yield* bench.mounted, [])
        assert.strictEqual(provider.asked.length, CYCLES + 50)
        yield* Effect.sleep(`${GAUGES_SECONDS} seconds`)
        const { body } = yield* get(`http://127.0.0.1:${port}/metrics`)
        assert.strictEqual(valueOf(body, "secrets_store_calls_in_flight"), 0)
        assert.strictEqual(valueOf(body, "secrets_store_volumes"), 0)
        assert.strictEqual(valueOf(body, "node_unpublish_total"), CYCLES + 50)
        tell(`fibers before and after: ${fibersBefore}, ${yield* fibers}`)
        assert.isAbove(fibersBefore!, 0)
        assert.strictEqual(yield* fibers, fibersBefore)
      })
    ),
  { timeout: 400_000 }
)
