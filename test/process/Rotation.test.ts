/**
 * Rotation on the real driver, in real time: reference/defects.md D1, L8, S10 and S11. The bounds that are asserted here
 * are promises to users: a new secret is there an interval later, or at once when it is asked for. How many republishes
 * a second there may be is a figure of the benchmark.
 */
import { readFileSync, rmSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Data, Duration, Effect, Schedule } from "effect"
import type { InlineVolume } from "../../layers/development/Kubelet.ts"
import * as LinuxMounter from "../../layers/real/LinuxMounter.ts"
import { FORCE_REFRESH_KEY } from "../../schemas/ForceRefresh.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter } from "../../src/ports/Mounter.ts"
import { INTERVAL_KEY } from "../../src/volume/Rotation.ts"
import {
  annotate,
  classPath,
  eventually,
  following,
  isRoot,
  make,
  mountsAt,
  PROVIDER,
  podPath,
  putPod,
  tell,
  volumeOf
} from "../support/DriverWorld.ts"
import { republish } from "../support/RepublishLoad.ts"
import { answer } from "../support/ScriptedProvider.ts"

type World = Effect.Success<ReturnType<typeof make>>

/** A node's full house. */
const VOLUMES = 110
/** So many volumes a kubelet works on at a time. */
const CONCURRENCY = 16
const CALL_MILLIS = 200
/** What is not to happen has this long to happen. */
const QUIET = "3 seconds"

const rotationEvery = (interval: string) => ["--enable-secret-rotation=true", `--rotation-poll-interval=${interval}`]

class NotSeen extends Data.TaggedError("NotSeen")<{ readonly message: string }> {}

/** The time, in milliseconds since the epoch, at which the volume shows this content; looked at every 20 ms. */
const seenAt = (target: string, content: string, withinSeconds: number) =>
  Effect.sync(() => readFileSync(join(target, "user"), "utf8")).pipe(
    Effect.filterOrFail(
      (seen) => seen === content,
      (seen) => new NotSeen({ message: `${target} still shows ${seen}, not ${content}` })
    ),
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: withinSeconds * 50 }))),
    Effect.andThen(Clock.currentTimeMillis)
  )

/** As a kubelet does it, which also tries again what fails. */
const publishAll = ({ bench }: World, volumes: ReadonlyArray<InlineVolume>) =>
  Effect.forEach(
    volumes,
    (volume) =>
      Effect.retry(bench.kubelet.publish(volume), Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 200 }))),
    { concurrency: CONCURRENCY }
  )

describe.skipIf(!isRoot)("rotation on the real driver (needs root)", () => {
  it.live(
    "D1: an interval of 5 s is 5 s, of the driver or of the volume, though the kubelet republishes every 90 s",
    () =>
      Effect.gen(function* () {
        const rows = [
          { whose: "the driver's", flags: rotationEvery("5s"), attributes: {} },
          { whose: "the volume's", flags: rotationEvery("24h"), attributes: { [INTERVAL_KEY]: "5s" } }
        ]
        // One after the other they would take twice as long, and show the same.
        const took = yield* Effect.forEach(rows, newContent, { concurrency: rows.length })
        for (const [index, { whose }] of rows.entries()) {
          const { calls, millis } = took[index]!
          tell(`interval of 5 s, ${whose}: new content after ${millis.join(", ")} ms, in ${calls} calls`)
          for (const each of millis) assert.isAtLeast(each, 5_000, `${whose}: earlier than asked for`)
          // The first interval after a mount may be the whole tenth longer, which leaves no time for looking.
          for (const each of millis.slice(1)) assert.isAtMost(each, 5_000 * 1.1 + CALL_MILLIS, whose)
          // The mount, and one call for each new content.
          assert.strictEqual(calls, 1 + millis.length, whose)
        }
      }),
    { timeout: 60_000 }
  )

  it.live(
    "a refresh that is asked for comes within a second, once, and is neither repeated nor forgotten by a restart",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const world = yield* make()
          const { bench, provider } = world
          let content = "0"
          provider.respond(() => Effect.delay(Effect.succeed(answer({ user: content })), CALL_MILLIS))
          yield* bench.putClass("default", "other", PROVIDER, { objects: "others" })
          const first = yield* bench.startDriver({ flags: rotationEvery("24h") })
          const volumes = yield* Effect.forEach(
            [
              volumeOf("web"),
              volumeOf("api"),
              volumeOf("frozen", { attributes: { [INTERVAL_KEY]: "never" } }),
              volumeOf("elsewhere", { secretProviderClass: "other" })
            ],
            (volume) => putPod(bench, volume)
          )
          const [web, api, frozen] = [volumes[0]!, volumes[1]!, volumes[2]!]
          yield* publishAll(world, volumes)
          yield* following(world, "secretproviderclasses")

          const asked = () =>
            volumes.map((volume) => {
              const target = bench.kubelet.targetPath(volume)
              return provider.asked.filter(({ targetPath }) => targetPath === target).length
            })
          /** These volumes show new content within a second of what is done, after one call each; others are left alone. */
          const refreshes = (
            what: string,
            concerned: ReadonlyArray<InlineVolume>,
            act: Effect.Effect<unknown>,
            afterwards: Effect.Effect<unknown> = Effect.void
          ) =>
            Effect.gen(function* () {
              const before = asked()
              content = what
              const began = yield* Clock.currentTimeMillis
              yield* act
              for (const volume of concerned) {
                const took = (yield* seenAt(bench.kubelet.targetPath(volume), what, 5)) - began
                tell(`${what}: ${volume.podName} has new content after ${took} ms`)
                assert.isAtMost(took, 1_000, `${what}: ${volume.podName}`)
              }
              yield* afterwards
              yield* Effect.sleep(QUIET)
              const expected = volumes.map((volume, index) => before[index]! + (concerned.includes(volume) ? 1 : 0))
              assert.deepStrictEqual(asked(), expected, what)
            })
          const force = (path: string, value: string, more: Readonly<Record<string, string>> = {}) =>
            annotate(bench, path, { [FORCE_REFRESH_KEY]: value, ...more })

          yield* refreshes("asked for by a pod", [web], force(podPath(web), "one"))
          yield* refreshes(
            "asked for by the pod of a frozen volume",
            [frozen],
            force(podPath(frozen), "one"),
            // Another change of the pod, with the same wish.
            force(podPath(frozen), "one", { note: "changed" })
          )
          yield* refreshes(
            "asked for by a class",
            [web, api, frozen],
            force(classPath(web), "two"),
            force(classPath(web), "two", { note: "changed" })
          )

          yield* first.kill("SIGTERM")
          assert.strictEqual(yield* first.exited, 0)
          yield* force(podPath(api), "while the driver was down")
          yield* bench.startDriver({ flags: rotationEvery("24h") })
          yield* refreshes("asked for while the driver was down", [api], Effect.orDie(publishAll(world, volumes)))
          yield* refreshes("asked for after a restart", [web], force(podPath(web), "three"))
        })
      ),
    { timeout: 60_000 }
  )

  it.live(
    `L8: killed with ${VOLUMES} volumes, it serves all of them again within 10 s, and no provider is called for that`,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const world = yield* make()
          const { bench, provider } = world
          let content = "before"
          provider.respond(() => Effect.succeed(answer({ user: content })))
          const first = yield* bench.startDriver({ flags: rotationEvery("2m") })
          const volumes = yield* Effect.forEach(
            Array.from({ length: VOLUMES }, (_, index) => volumeOf(`pod-${index}`)),
            (volume) => putPod(bench, volume)
          )
          yield* publishAll(world, volumes)
          assert.strictEqual(provider.asked.length, VOLUMES)
          yield* following(world, "secretproviderclasses")
          yield* first.kill("SIGKILL")
          yield* first.exited
          yield* eventually(bench.kubernetes.openWatches(), (open) => open === 0)
          yield* bench.kubernetes.resetRequests

          const [took] = yield* Effect.timed(
            Effect.all([bench.startDriver({ flags: rotationEvery("2m") }), publishAll(world, volumes)], {
              concurrency: 2
            })
          )
          tell(
            `${VOLUMES} volumes served again ${Duration.toMillis(took).toFixed(0)} ms after the start of the process`,
            ...(yield* bench.kubernetes.requests).map(
              ({ count, method, resource, watch }) =>
                `  ${watch ? "WATCH" : method} ${resource}: ${count}, ${(count / VOLUMES).toFixed(2)} a volume`
            )
          )
          assert.isBelow(Duration.toMillis(took), 10_000)
          yield* following(world, "secretproviderclasses")
          yield* Effect.sleep(QUIET)
          assert.strictEqual(provider.asked.length, VOLUMES)
          for (const volume of volumes) assert.strictEqual(mountsAt(bench.kubelet.targetPath(volume)).length, 1)
          const writes = (yield* bench.kubernetes.requests).filter(({ method }) => method !== "GET")
          assert.deepStrictEqual<unknown>(writes, [])

          // It is in service: what is asked for happens, to the one volume.
          const last = volumes[VOLUMES - 1]!
          content = "after"
          const began = yield* Clock.currentTimeMillis
          yield* annotate(bench, podPath(last), { [FORCE_REFRESH_KEY]: "now" })
          assert.isAtMost((yield* seenAt(bench.kubelet.targetPath(last), "after", 5)) - began, 1_000)
          assert.strictEqual(provider.asked.length, VOLUMES + 1)
        })
      ),
    { timeout: 60_000 }
  )

  it.live(
    `S10: ${VOLUMES} volumes that are not due, republished 5,000 times: no request to anybody, and OK means mounted and filled`,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const world = yield* make()
          const { bench, provider } = world
          const driver = yield* bench.startDriver({ flags: rotationEvery("1h") })
          const volumes = Array.from({ length: VOLUMES }, (_, index) => volumeOf(`pod-${index}`))
          const targets = yield* publishAll(world, volumes)
          yield* following(world, "secretproviderclasses")
          yield* bench.kubernetes.resetRequests
          const { driverShare, millis, ownShare, seconds } = yield* republish({
            socket: bench.socket,
            pid: driver.pid,
            requests: volumes.map(bench.kubelet.publishRequest),
            count: 5_000,
            concurrency: CONCURRENCY
          })
          const share = (of: number) => `${(of * 100).toFixed(0)} %`
          tell(
            `${(millis.length / seconds).toFixed(0)} republishes a second, ${CONCURRENCY} at a time; of one processor ` +
              `the driver took ${share(driverShare)}, the caller ${share(ownShare)}`
          )
          assert.strictEqual(millis.length, 5_000)
          assert.deepStrictEqual<unknown>(yield* bench.kubernetes.requests, [])
          assert.strictEqual(provider.asked.length, VOLUMES)

          // As quick as it is, each call looks: what somebody else has unmounted or emptied is mounted and filled again.
          const [unmounted, emptied] = [targets[0]!, targets[1]!]
          const mounter = yield* Mounter
          yield* mounter.unmount(TargetPath.make(unmounted))
          rmSync(join(emptied, "..data"))
          yield* publishAll(world, volumes)
          for (const target of [unmounted, emptied]) {
            assert.strictEqual(mountsAt(target).length, 1)
            assert.strictEqual(readFileSync(join(target, "user"), "utf8"), "alice")
          }
          assert.strictEqual(provider.asked.length, VOLUMES + 2)
        })
      ).pipe(Effect.provide(LinuxMounter.layer)),
    { timeout: 60_000 }
  )
})

interface Row {
  readonly flags: ReadonlyArray<string>
  readonly attributes: Readonly<Record<string, string>>
}

/** How long a volume has old content, when a newer one is there as soon as a call to the provider has ended. */
const newContent = ({ attributes, flags }: Row) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { bench, provider } = yield* make()
      const changedAt: Array<number> = []
      provider.respond(() =>
        Effect.gen(function* () {
          yield* Effect.sleep(CALL_MILLIS)
          changedAt.push(yield* Clock.currentTimeMillis)
          return answer({ user: `content ${changedAt.length}` }, `v${changedAt.length}`)
        })
      )
      yield* bench.startDriver({ flags })
      const target = yield* bench.kubelet.publish(volumeOf("web", { attributes }))
      const millis: Array<number> = []
      // No republish comes meanwhile: all of it is over long before the kubelet's 90 seconds are.
      for (let change = 0; change < 4; change++) {
        const seen = yield* seenAt(target, `content ${change + 2}`, 10)
        millis.push(seen - changedAt[change]!)
      }
      return { millis, calls: provider.asked.length }
    })
  )
