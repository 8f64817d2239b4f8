/**
 * Three candidates for one Lease, on a network that delays, loses and delivers late, in processes that are paused,
 * stopped and started again, in the order that a seed decides. A referee at the API server looks at every write when it
 * takes effect. The fence is taken away on purpose, to see that he notices.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Duration, Effect, Exit, Fiber, Metric, References } from "effect"
import { make, Succeeds } from "../../layers/fake/MemoryKubernetes.ts"
import { simulate } from "../../layers/fake/SeededScheduler.ts"
import * as Chance from "../../layers/fake/simulation/Chance.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import * as LeaderElection from "../../src/reconciler/LeaderElection.ts"

// Seed 36 found that a Lease was released while a fiber that nobody had stopped still waited for the answer to a write.
const SEEDS = Array.from({ length: 150 }, (_, index) => index + 1)
const timings = { leaseMillis: 20_000, renewMillis: 12_000, retryMillis: 3_000 }
/** Less than what is left of the Lease after the renew deadline: what is sent in time arrives in time. */
const DELAY_MAX = 7_000
const CANDIDATES = 3
const TROUBLE_MILLIS = 300_000
/** A Lease to expire, with what is under way, and a look at it. */
const RECOVERY_MILLIS = 60_000

const lost = ({ method, path }: KubernetesRequest) =>
  new KubernetesApiFailed({ method, path, status: 0, reason: "Network", detail: "lost" })

/** Sees what takes effect, in the order in which it does. */
const referee = () => {
  const history: Array<string> = []
  const broken: Array<string> = []
  const terms: Array<LeaderElection.Leadership> = []
  let holder = ""
  return {
    history,
    broken,
    holder: () => holder,
    writes: () => history.filter((line) => line.includes(" writes ")).length,
    leaders: () => terms.filter((term) => term.isHeld()).map(({ identity }) => identity),
    begins: (term: LeaderElection.Leadership) => {
      terms.push(term)
      const held = terms.filter((it) => it.isHeld())
      if (held.length > 1) broken.push(`${held.map(({ identity }) => identity).join(" and ")} lead at once`)
    },
    tookEffect: (who: string, { body, path }: KubernetesRequest, nowMillis: number) => {
      if (path.includes("/leases")) {
        holder = (body as { readonly spec: { readonly holderIdentity: string } }).spec.holderIdentity
        history.push(`${nowMillis} lease: ${holder}`)
        return
      }
      history.push(`${nowMillis} ${who} writes ${path}`)
      if (holder !== who) broken.push(`${who} wrote at ${nowMillis} while ${holder || "nobody"} held the lease`)
    }
  }
}
type Referee = ReturnType<typeof referee>

/** What a run can do to one candidate; all of it stops with the trouble. */
interface Weather {
  /** Its process does not run until then. */
  pausedUntil: number
  /** Nothing of it arrives until then. */
  cutOffUntil: number
  readonly lossRate: number
  readonly slowRate: number
}

/** A process: its clock and its network stand still with it. */
const processOf = Effect.fnUntraced(function* (who: () => string, weather: Weather, judge: Referee) {
  const clock = yield* Clock.Clock
  const server = yield* KubernetesApi
  const chance = yield* Chance.make
  const wire = yield* Effect.scope
  const now = () => clock.currentTimeMillisUnsafe()

  const awake: Effect.Effect<void> = Effect.suspend(() =>
    weather.pausedUntil > now()
      ? Effect.andThen(clock.sleep(Duration.millis(Math.ceil(weather.pausedUntil - now()))), awake)
      : Effect.void
  )
  const clockOfProcess: Clock.Clock = { ...clock, sleep: (duration) => Effect.andThen(clock.sleep(duration), awake) }
  const onTheWay = Effect.suspend(() =>
    clock.sleep(
      Duration.millis(chance.happens(weather.slowRate) ? chance.between(0, DELAY_MAX) : chance.between(0, 100))
    )
  )

  const request = Effect.fnUntraced(function* (asked: KubernetesRequest) {
    const sender = who()
    const isLost = chance.happens(weather.lossRate) || weather.cutOffUntil > now()
    const arrival = Effect.andThen(
      onTheWay,
      isLost
        ? Effect.fail(lost(asked))
        : Effect.provideService(server.request(asked), Succeeds, () => {
            if (asked.method !== "GET") judge.tookEffect(sender, asked, now())
          })
    )
    // What was sent arrives, whatever becomes of its sender.
    const travelling = yield* Effect.forkIn(arrival, wire)
    const exit = yield* Fiber.await(travelling)
    yield* onTheWay
    if (chance.happens(weather.lossRate)) return chance.happens(0.5) ? yield* Effect.never : yield* lost(asked)
    yield* awake
    return yield* exit
  })
  return { api: KubernetesApi.of({ request, watch: server.watch }), clock: clockOfProcess }
})

interface Canary {
  readonly fenced: boolean
}

/** One candidate, that is stopped and started again with another identity. */
const candidate = Effect.fnUntraced(function* (name: string, weather: Weather, judge: Referee, { fenced }: Canary) {
  const chance = yield* Chance.make
  const wire = yield* Effect.scope
  let life = 0
  const who = () => `${name}-${life}`
  const { api, clock } = yield* processOf(who, weather, judge)
  let writes = 0

  const write = Effect.suspend(() =>
    Effect.flatMap(KubernetesApi, ({ request }) => {
      const object = `${who()}-${writes++}`
      return request({
        method: "POST",
        path: "/api/v1/namespaces/ns/configmaps",
        body: { apiVersion: "v1", kind: "ConfigMap", metadata: { name: object, namespace: "ns" } }
      })
    })
  )
  const prepare = Effect.suspend(() =>
    Effect.sleep(chance.happens(0.1) ? chance.between(0, 30_000) : chance.between(0, 2_000))
  )
  const work = Effect.ignore(Effect.andThen(prepare, write))

  const lead = (leadership: LeaderElection.Leadership) =>
    Effect.gen(function* () {
      judge.begins(leadership)
      // Some fiber of it is not told to stop.
      yield* Effect.forkIn(Effect.repeat(work, { times: 10 }), wire)
      const isStopping = yield* Effect.forkChild(leadership.stopping)
      yield* Effect.repeat(work, { until: () => isStopping.pollUnsafe() !== undefined })
    }).pipe((effect) => (fenced ? effect : Effect.provideService(effect, KubernetesApi, api)))

  const lives = Effect.gen(function* () {
    for (;;) {
      const identity = who()
      const running = LeaderElection.run({ namespace: "ns", name: "lock", identity, timings, drainMillis: 4_000, lead })
      const patience = chance.happens(0.3) ? chance.between(1_000, 100_000) : Number.POSITIVE_INFINITY
      const exit = yield* Effect.exit(Effect.timeoutOption(running, patience))
      if (Exit.isFailure(exit) && Cause.hasDies(exit.cause)) judge.broken.push(Cause.pretty(exit.cause))
      judge.history.push(`${identity} ended`)
      yield* Effect.sleep(chance.between(0, 5_000))
      life += 1
    }
  })
  return yield* lives.pipe(Effect.provideService(KubernetesApi, api), Effect.provideService(Clock.Clock, clock))
})

const program = (canary: Canary) =>
  Effect.gen(function* () {
    const chance = yield* Chance.make
    const clock = yield* Clock.Clock
    const judge = referee()
    const weathers = Array.from({ length: CANDIDATES }, () => ({
      pausedUntil: 0,
      cutOffUntil: 0,
      lossRate: chance.sometimes(0.3),
      slowRate: chance.sometimes(0.5)
    }))
    for (const [index, weather] of weathers.entries()) {
      yield* Effect.forkScoped(candidate(`c${index}`, weather, judge, canary))
    }
    for (const end = clock.currentTimeMillisUnsafe() + TROUBLE_MILLIS; clock.currentTimeMillisUnsafe() < end; ) {
      yield* Effect.sleep(chance.between(0, 20_000))
      const weather = chance.oneOf(weathers)
      const until = clock.currentTimeMillisUnsafe() + chance.between(0, 40_000)
      if (chance.happens(0.5)) weather.pausedUntil = until
      else weather.cutOffUntil = until
    }
    for (const weather of weathers) Object.assign(weather, { pausedUntil: 0, cutOffUntil: 0, lossRate: 0, slowRate: 0 })
    yield* Effect.sleep(RECOVERY_MILLIS)
    const before = judge.writes()
    // Those that are stopped in the meantime leave it to others, and these look after a while.
    yield* Effect.sleep(RECOVERY_MILLIS)
    if (judge.writes() === before) judge.broken.push("nobody leads in the end")
    return judge
  }).pipe(Effect.scoped)

const onSeed = (seed: number, canary: Canary = { fenced: true }) => {
  const quiet = program(canary).pipe(
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
  const { exit } = simulate(
    Effect.flatMap(make(), (context) => Effect.provideContext(quiet, context)),
    { seed }
  )
  if (Exit.isSuccess(exit)) return exit.value
  throw new Error(`seed ${seed}: ${Cause.pretty(exit.cause)}`)
}

describe("LeaderElection", () => {
  it("1.6 only the holder of the Lease writes, and in the end somebody does: 150 seeds", () => {
    let [writes, terms] = [0, 0]
    for (const seed of SEEDS) {
      const judge = onSeed(seed)
      assert.deepStrictEqual(judge.broken, [], `seed ${seed}`)
      writes += judge.writes()
      terms += new Set(judge.history.filter((line) => line.includes("lease: c")).map((line) => line.split(": ")[1]))
        .size
    }
    // There was something to see.
    assert.isAbove(writes, 100 * SEEDS.length)
    assert.isAbove(terms, 5 * SEEDS.length)
  })

  it("the same seed gives the same run", () => {
    for (const seed of SEEDS.slice(0, 5)) assert.deepStrictEqual(onSeed(seed).history, onSeed(seed).history)
  })

  it("canary: without the fence, a write of a deposed leader is seen", () => {
    const noticed = SEEDS.slice(0, 20).filter((seed) =>
      onSeed(seed, { fenced: false }).broken.some((it) => it.includes("wrote at"))
    )
    assert.isAbove(noticed.length, 10)
  })
})
