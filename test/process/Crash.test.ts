/**
 * The real driver, killed with SIGKILL at random moments of publish, republish and unpublish, and started again; the
 * kubelet calls until it is answered OK. Whatever the moment, OK means mounted and filled, and nothing left after
 * unpublish.
 *
 * The seed is printed; CRASH_SEED replays its choices (the moments are the machine's, too), CRASH_KILLS their number.
 */
import { randomInt } from "node:crypto"
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { dirname, join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Random, Schedule, Scope } from "effect"
import { inject } from "vitest"
import type { DriverProcess } from "../../layers/development/DriverProcess.ts"
import type { InlineVolume } from "../../layers/development/Kubelet.ts"
import * as Workbench from "../../layers/development/Workbench.ts"
import { eventually } from "../support/DriverWorld.ts"
import * as ScriptedProvider from "../support/ScriptedProvider.ts"

const isRoot = process.getuid?.() === 0
const SEED = process.env["CRASH_SEED"] ?? String(randomInt(1_000_000))
const KILLS = Number(process.env["CRASH_KILLS"] ?? 306)

const VOLUMES = 4
const FILES = ["password", "user", "tls/cert.pem", "tls/key.pem", "deep/er/token", "large"]
const LARGE = "x".repeat(100_000)

/** Says whose file it is, and which answer of the provider it came in. */
const contentOf = (target: string, generation: number, file: string) =>
  `${generation}\n${target}\n${file}\n${file === "large" ? LARGE : ""}`

type Stage = "nothing there" | "mounted, empty" | "mounted, half written" | "filled" | "half unmounted" | "not mounted"

/** The generation that a reader sees through the links; undefined unless it is one and whole. */
const generationSeen = (target: string): number | undefined => {
  const generations = FILES.map((file) => {
    try {
      const content = readFileSync(join(target, file), "utf8")
      const generation = Number(content.slice(0, content.indexOf("\n")))
      return content === contentOf(target, generation, file) ? generation : undefined
    } catch {
      return undefined
    }
  })
  return generations.every((it) => it === generations[0]) ? generations[0] : undefined
}

/** What lies in a volume beside its generation when nothing is left of a write that was cut off. */
const TOP_LEVEL = ["..data", "deep", "large", "password", "tls", "user"]

const mountsOf = (targets: ReadonlyArray<string>) => {
  const table = readFileSync("/proc/self/mountinfo", "utf8")
  return targets.map((target) => table.split("\n").filter((line) => line.split(" ")[4] === target).length)
}

const stageOf = (target: string, mounts: number, unpublishing: boolean): Stage => {
  if (!existsSync(target)) return "nothing there"
  if (mounts === 0) return "not mounted"
  if (generationSeen(target) !== undefined) return "filled"
  if (unpublishing) return "half unmounted"
  return readdirSync(target).length === 0 ? "mounted, empty" : "mounted, half written"
}

const tell = (line: string) => console.log(line)

const untilOk = Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 500 }))

/** One node, on which a driver lives and dies. */
const node = (name: string, wanted: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const bench = yield* Workbench.make({ entry: inject("driverEntry"), credentials: "in-cluster", delayMillis: 8 })
      let generation = 0
      yield* ScriptedProvider.serve(join(bench.providersDirectory, "scripted.sock"), ({ targetPath }) => {
        generation += 1
        const files = Object.fromEntries(FILES.map((file) => [file, contentOf(targetPath, generation, file)]))
        return Effect.delay(Effect.succeed(ScriptedProvider.answer(files, `v${generation}`)), "12 millis")
      })
      yield* bench.putClass("default", "spc", "scripted", { objects: "all" })

      let life: { readonly driver: DriverProcess; readonly scope: Scope.Closeable } | undefined
      const start = (flags: ReadonlyArray<string>) =>
        Effect.gen(function* () {
          const scope = yield* Scope.make()
          life = { scope, driver: yield* Scope.provide(bench.startDriver({ flags }), scope) }
        })
      const kill = Effect.gen(function* () {
        const { driver, scope } = life!
        yield* driver.kill("SIGKILL")
        yield* driver.exited
        yield* Scope.close(scope, Exit.void)
      })
      yield* Effect.addFinalizer(() => (life === undefined ? Effect.void : Scope.close(life.scope, Exit.void)))

      const publish = (volume: InlineVolume) => Effect.retry(bench.kubelet.publish(volume), untilOk)
      const unpublish = (volume: InlineVolume) => Effect.retry(bench.kubelet.unpublish(volume), untilOk)
      const stages = {
        publish: new Map<Stage, number>(),
        republish: new Map<Stage, number>(),
        unpublish: new Map<Stage, number>()
      }
      const inTheMiddle = { publish: 0, republish: 0, unpublish: 0 }
      /** How long each operation takes on a driver that was just started; measured, then brought up to date. */
      const longest = { publish: 0, republish: 0, unpublish: 0 }
      let kills = 0

      /** Runs an operation on all volumes, kills the driver in the middle of it, and waits until all are OK. */
      const disturbed = (
        operation: keyof typeof longest,
        volumes: ReadonlyArray<InlineVolume>,
        flags: ReadonlyArray<string>
      ) =>
        Effect.gen(function* () {
          const act = operation === "unpublish" ? unpublish : publish
          const targets = volumes.map(bench.kubelet.targetPath)
          const running = yield* Effect.forkChild(
            Effect.forEach(volumes, (volume) => Effect.asVoid(act(volume)), {
              concurrency: VOLUMES,
              discard: true
            }),
            { startImmediately: true }
          )
          const moment = (yield* Random.next) * longest[operation]
          yield* Effect.sleep(Duration.millis(moment))
          const wasRunning = running.pollUnsafe() === undefined
          // One in ten is to end before its kill: the last stage of an operation is its answer.
          longest[operation] *= wasRunning ? 1.02 : 0.85
          yield* kill
          kills += 1
          if (wasRunning) inTheMiddle[operation] += 1
          const counts = stages[operation]
          mountsOf(targets).forEach((mounts, index) => {
            const target = targets[index]!
            assert.isAtMost(mounts, 1, `mounted twice: ${target}`)
            const stage = stageOf(target, mounts, operation === "unpublish")
            counts.set(stage, (counts.get(stage) ?? 0) + 1)
            // The pod is running: it reads on, also without a driver.
            if (operation === "republish") assert.strictEqual(stage, "filled", target)
          })
          yield* start(flags)
          yield* Fiber.join(running)
        })

      /**
       * What is there now and is not content goes: what readers may be in after a second, and what a driver left that was
       * killed meanwhile with the next write, which the kubelet's next calls bring about.
       */
      const cleanedUp = (volume: InlineVolume) => {
        const target = bench.kubelet.targetPath(volume)
        const names = readdirSync(target)
        const current = readlinkSync(join(target, "..data"))
        const surplus = new Set(names.filter((name) => name !== current && !TOP_LEVEL.includes(name)))
        assert.includeMembers(names, TOP_LEVEL)
        assert.isAtMost(surplus.size, 2, names.join(" "))
        return eventually(
          Effect.gen(function* () {
            const left = readdirSync(target).filter((name) => surplus.has(name))
            if (left.length > 0) yield* publish(volume)
            return left
          }).pipe(Effect.orDie),
          (left) => left.length === 0
        )
      }

      const recorded = Effect.map(bench.kubernetes.all("secretproviderclasspodstatuses"), (all) =>
        all.map((it) => JSON.stringify(it))
      )
      const rotation = ["--enable-secret-rotation=true", "--rotation-poll-interval=1ms"]
      const many = (round: string): ReadonlyArray<InlineVolume> =>
        Array.from({ length: VOLUMES }, (_, index) => {
          const podName = `${name}-${round}-${index}`
          return {
            ...{ podName, podNamespace: "default", podUid: `uid-${podName}` },
            ...{ volumeName: "secrets", secretProviderClass: "spc" }
          }
        })
      const timed = (operation: keyof typeof longest, volumes: ReadonlyArray<InlineVolume>) =>
        Effect.gen(function* () {
          const act = operation === "unpublish" ? unpublish : publish
          const [took] = yield* Effect.timed(Effect.forEach(volumes, act, { concurrency: VOLUMES, discard: true }))
          longest[operation] = Math.max(longest[operation], Duration.toMillis(took))
          yield* kill
          yield* start(rotation)
        })

      yield* start(rotation)
      for (const operation of ["publish", "republish", "unpublish"] as const) yield* timed(operation, many("first"))
      yield* kill
      yield* start([])
      tell(`${name}, undisturbed, in milliseconds: ${JSON.stringify(longest)}`)

      for (let round = 0; kills < wanted; round++) {
        const volumes = many(String(round))
        const targets = volumes.map(bench.kubelet.targetPath)
        const rotates = round % 2 === 1
        const newest = new Map<string, number>()
        const published = (when: string) =>
          Effect.gen(function* () {
            assert.deepStrictEqual(mountsOf(targets), [1, 1, 1, 1], when)
            const statuses = yield* recorded
            for (const target of targets) {
              const generation = generationSeen(target)
              assert.isDefined(generation, `${when}: not filled: ${target}`)
              assert.isAtLeast(generation, newest.get(target) ?? 0, `${when}: went back: ${target}`)
              newest.set(target, generation)
              assert.strictEqual(statuses.filter((it) => it.includes(`"${target}"`)).length, 1, `${when}: ${target}`)
            }
            if (rotates) yield* Effect.forEach(volumes, cleanedUp, { concurrency: VOLUMES, discard: true })
          })
        const flags = rotates ? rotation : []
        yield* disturbed("publish", volumes, flags)
        yield* published(`round ${round}, after publish`)
        if (rotates) {
          yield* disturbed("republish", volumes, flags)
          yield* published(`round ${round}, after republish`)
        }
        yield* disturbed("unpublish", volumes, [])
        for (const target of targets) {
          assert.deepStrictEqual(readdirSync(dirname(target)), [], `round ${round}: left after unpublish`)
        }
        assert.deepStrictEqual(yield* bench.mounted, [], `round ${round}: still mounted`)
      }
      const left = readdirSync(bench.kubeletRoot, { recursive: true, withFileTypes: true })
      assert.deepStrictEqual(
        left.filter((entry) => entry.name === "mount" || !entry.isDirectory()).map(({ name }) => name),
        []
      )
      return { inTheMiddle, stages }
    }).pipe(Random.withSeed(`${SEED}/${name}`))
  )

it.live.skipIf(!isRoot)(
  `S1-S4, 2.7, 2.9, D2: ${KILLS} kills, and OK still means mounted and filled, or nothing left (needs root)`,
  () =>
    Effect.gen(function* () {
      tell(`CRASH_SEED=${SEED}`)
      // Two, since a driver that starts uses one processor and waits for nothing.
      const nodes = yield* Effect.forEach(["a", "b"], (name) => node(name, Math.ceil(KILLS / 2)), { concurrency: 2 })
      for (const operation of ["publish", "republish", "unpublish"] as const) {
        const killed = nodes.reduce((sum, { inTheMiddle }) => sum + inTheMiddle[operation], 0)
        const stages = new Map<Stage, number>()
        for (const [stage, count] of nodes.flatMap((it) => [...it.stages[operation]])) {
          stages.set(stage, (stages.get(stage) ?? 0) + count)
        }
        tell(`${killed} kills before the last answer of ${operation}: ${JSON.stringify(Object.fromEntries(stages))}`)
        assert.isAbove(killed, KILLS / 20, `too few kills in the middle of ${operation}`)
      }
    }),
  { timeout: 400_000 }
)
