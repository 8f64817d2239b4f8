/**
 * What rotation costs and when it comes, on the whole driver and virtual time: days of ordinary life, and a provider that
 * throttles for half an hour while five hundred pods start.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect } from "effect"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { MemoryProviders } from "../../layers/fake/MemoryProviders.ts"
import { ProviderCallFailed } from "../../schemas/errors/ProviderFailed.ts"
import { INTERVAL_KEY } from "../../src/volume/Rotation.ts"
import { tell } from "../support/DriverWorld.ts"
import * as Node from "../support/FakeNode.ts"
import * as Whole from "../support/WholeDriver.ts"

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const seed = 3

/** Calls of a volume, by target path. */
const countsOf = (targets: Iterable<string>): ReadonlyMap<string, number> => {
  const counts = new Map<string, number>()
  for (const target of targets) counts.set(target, (counts.get(target) ?? 0) + 1)
  return counts
}

describe("48 hours in which nothing changes", () => {
  const HOURS = 48
  const VOLUMES = 110
  const intervals = [
    { text: "2m", millis: 2 * MINUTE },
    { text: "1h", millis: HOUR },
    { text: "24h", millis: 24 * HOUR }
  ] as const

  /** Upstream refreshes at every republish once the target, which it never touches again, is older than the interval. */
  const upstreamCalls = ({ okMillis = 0, republishes }: Whole.Published, intervalMillis: number) =>
    1 + republishes.filter((millis) => millis >= okMillis + intervalMillis).length

  const days = Effect.gen(function* () {
    const kubernetes = yield* MemoryKubernetes
    const providers = yield* MemoryProviders
    yield* providers.install("vault", () => Effect.delay(Effect.succeed(Node.answer("v1")), "50 millis"))
    yield* Node.putClass()
    yield* Whole.start({})
    const volumes = yield* Effect.forEach(Array.from({ length: VOLUMES }).keys(), (index) =>
      Whole.pod(`web-${index}`, { [INTERVAL_KEY]: intervals[index % 3]?.text ?? "" })
    )
    for (const volume of volumes) yield* Effect.forkScoped(Whole.keepPublished(volume))
    yield* Effect.sleep(MINUTE)
    yield* kubernetes.resetRequests
    yield* Effect.sleep(HOURS * HOUR - MINUTE)
    const requests = yield* kubernetes.requests
    return { volumes, requests, calls: providers.calls.map(({ request }) => request.targetPath) }
  })

  it("D1, S10: provider calls per volume are elapsed / interval ± 1, and no write reaches the API server", () => {
    const { calls, requests, volumes } = Whole.onVirtualTime(seed, days)
    const counts = countsOf(calls)
    const sums = intervals.map(() => ({ ours: 0, upstream: 0, volumes: 0 }))
    for (const [index, volume] of volumes.entries()) {
      const interval = intervals[index % 3]
      const sum = sums[index % 3]
      if (interval === undefined || sum === undefined) continue
      const count = counts.get(volume.request.targetPath) ?? 0
      // The first of them is the mount's.
      const expected = 1 + (HOURS * HOUR) / interval.millis
      assert.isAtMost(Math.abs(count - expected), 1, `${interval.text}: ${count} of ${expected}`)
      assert.isAtLeast(volume.republishes.length, (HOURS * HOUR) / (90 * SECOND) - 2)
      sum.ours += count
      sum.upstream += upstreamCalls(volume, interval.millis)
      sum.volumes += 1
    }
    for (const [index, { ours, upstream, volumes: of }] of sums.entries()) {
      const { text = "" } = intervals[index] ?? {}
      tell(
        `${of} volumes, interval ${text}, ${HOURS} h: ${ours} provider calls; upstream v1.6.0 ${upstream}, ${(upstream / ours).toFixed(1)} times as many`
      )
    }
    const writes = requests.filter(({ method }) => method !== "GET")
    assert.deepStrictEqual(writes, [])
    const readsPerHour = requests.filter(({ watch }) => !watch).reduce((sum, { count }) => sum + count, 0) / HOURS
    assert.strictEqual(readsPerHour, 0)
  }, 180_000)
})

describe("a provider that throttles for half an hour while 500 pods start", () => {
  const STARTING = 500
  const RUNNING = 50
  const BEGIN = 10 * MINUTE

  interface Asked {
    readonly target: string
    readonly millis: number
    readonly isMount: boolean
  }

  const window = Effect.fnUntraced(function* (end: number) {
    const providers = yield* MemoryProviders
    const asked: Array<Asked> = []
    const mounted = new Map<string, number>()
    yield* providers.install("vault", ({ targetPath }) =>
      Effect.gen(function* () {
        const millis = yield* Clock.currentTimeMillis
        asked.push({ target: targetPath, millis, isMount: !mounted.has(targetPath) })
        yield* Effect.sleep("200 millis")
        const now = yield* Clock.currentTimeMillis
        if (millis >= BEGIN && millis < end) {
          return yield* new ProviderCallFailed({
            provider: "vault",
            grpcCode: "RESOURCE_EXHAUSTED",
            details: "quota",
            unanswered: false
          })
        }
        if (!mounted.has(targetPath)) mounted.set(targetPath, now)
        return Node.answer("v1")
      })
    )
    yield* Node.putClass()
    yield* Whole.start({})
    const running = yield* Effect.forEach(Array.from({ length: RUNNING }).keys(), (n) => Whole.pod(`running-${n}`))
    for (const volume of running) yield* Effect.forkScoped(Whole.keepPublished(volume))
    yield* Effect.sleep(BEGIN)
    const starting = yield* Effect.forEach(Array.from({ length: STARTING }).keys(), (n) => Whole.pod(`starting-${n}`))
    for (const volume of starting) yield* Effect.forkScoped(Whole.keepPublished(volume))
    yield* Effect.sleep(end - BEGIN + 10 * MINUTE)
    return { asked, mounted, starting, running }
  })

  // The kubelet's own backoff decides whether pods are waiting within a call when it ends, or between two of them.
  it.each([30, 28])(
    "S11, L7: first mounts within 60 s of its end and before refreshes, at most 5 % of the calls: %d min",
    (minutes) => {
      const end = BEGIN + minutes * MINUTE
      const { asked, mounted, running, starting } = Whole.onVirtualTime(seed, window(end))
      const during = asked.filter(({ millis }) => millis >= BEGIN && millis < end).length
      const republishes = [...starting, ...running].length * ((end - BEGIN) / (75 * SECOND))
      assert.isAtMost(during, 0.05 * republishes)

      const mounts = starting.map(({ request }) => mounted.get(request.targetPath) ?? Number.POSITIVE_INFINITY)
      const lastMount = Math.max(...mounts)
      assert.isAtMost(lastMount, end + MINUTE)
      // Then the kubelet comes back, as soon as its own backoff lets it.
      const lastOk = Math.max(...starting.map(({ okMillis = Number.POSITIVE_INFINITY }) => okMillis))
      assert.isAtMost(lastOk, end + MINUTE + 122 * SECOND)

      const lastMountBegun = Math.max(
        ...asked.filter(({ isMount, millis }) => isMount && millis >= end).map((it) => it.millis)
      )
      const firstRefresh = Math.min(
        ...asked.filter(({ isMount, millis }) => !isMount && millis >= end).map((it) => it.millis)
      )
      assert.isAtLeast(firstRefresh, lastMountBegun)
      // All of them are up to date again soon.
      const refreshed = new Set(asked.filter(({ isMount, millis }) => !isMount && millis >= end).map((it) => it.target))
      for (const { request } of running) assert.isTrue(refreshed.has(request.targetPath))
      tell(
        `${during} provider calls in ${minutes} min of throttling (${((100 * during) / republishes).toFixed(1)} % of one per volume and republish); ` +
          `500 mounts done ${((lastMount - end) / SECOND).toFixed(1)} s after its end, the last OK to the kubelet after ` +
          `${((lastOk - end) / SECOND).toFixed(1)} s, the first refresh after ${((firstRefresh - end) / SECOND).toFixed(1)} s`
      )
    },
    180_000
  )
})
