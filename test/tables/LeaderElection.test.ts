import { assert, describe, it } from "@effect/vitest"
import { Clock, Data, Effect, Exit, Fiber, Metric, Option, References } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { TestClock } from "effect/testing"
import { MemoryKubernetes, make } from "../../layers/fake/MemoryKubernetes.ts"
import { LeadershipLost } from "../../schemas/errors/LeadershipLost.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as LeaderElection from "../../src/reconciler/LeaderElection.ts"
import * as Resource from "../../src/reconciler/Resource.ts"

const timings = LeaderElection.TIMINGS.HIGHLY_AVAILABLE
const { leases } = Resource
const isLeaseWrite = ({ method, resource }: { readonly method: string; readonly resource: string }) =>
  method !== "GET" && resource === "leases.coordination.k8s.io"
const LOST_ANSWER = { status: 0, reason: "Network" }

/** What happens, in order. */
const diary = () => {
  const lines: Array<string> = []
  return { lines, note: (line: string) => Effect.sync(() => void lines.push(line)) }
}

const onServer = <A, E>(program: Effect.Effect<A, E, KubernetesApi | MemoryKubernetes>) =>
  Effect.flatMap(make(), (context) =>
    program.pipe(
      Effect.provideContext(context),
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  )

type Some = Omit<LeaderElection.Options<unknown, unknown, never>, "lead">
const candidate = <A, E, R>(
  lead: (leadership: LeaderElection.Leadership) => Effect.Effect<A, E, R>,
  options: Partial<Some> = {}
) =>
  LeaderElection.run({ namespace: "ns", name: "lock", identity: "us", timings, drainMillis: 10_000, lead, ...options })

/** Ends as soon as it is told to: on the test's clock, nobody would wait for one that does not. */
const untilStopped = ({ stopping }: LeaderElection.Leadership) => stopping

const start = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const settled = Effect.repeat(Effect.yieldNow, { times: 60 })

/** Time passes in small steps, in each of which everything happens that is due: answers come before time is up. */
const pass = Effect.fnUntraced(function* (millis: number) {
  yield* settled
  for (let left = millis; left > 0; left -= 1_000) {
    yield* TestClock.adjust(Math.min(left, 1_000))
    yield* settled
  }
})

const stored = Effect.map(
  Effect.flatMap(MemoryKubernetes, (server) => server.all("leases")),
  ([lease]) => lease?.["spec"] as Record<string, unknown> | undefined
)
const holder = Effect.map(stored, (spec) => spec?.["holderIdentity"])

const of = (holderIdentity: string, spec: object = {}) => ({
  metadata: { namespace: "ns", name: "lock" },
  spec: { holderIdentity, leaseDurationSeconds: 137, leaseTransitions: 4, ...spec }
})

const write = (name: string) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "POST",
      path: "/api/v1/namespaces/ns/configmaps",
      body: { apiVersion: "v1", kind: "ConfigMap", metadata: { name, namespace: "ns" } }
    })
  )
const written = Effect.map(
  Effect.flatMap(MemoryKubernetes, (server) => server.all("configmaps")),
  (objects) => objects.map((object) => Resource.metadataOf(object).name)
)

describe("acquiring", () => {
  it.effect("1.6 an absent Lease is made, held while `lead` runs, and released when it ends", () =>
    onServer(
      Effect.gen(function* () {
        const { lines, note } = diary()
        const result = yield* candidate(
          ({ identity, isHeld }) =>
            Effect.gen(function* () {
              assert.deepStrictEqual<unknown>(yield* stored, {
                holderIdentity: "us",
                leaseDurationSeconds: 137,
                acquireTime: "1970-01-01T00:00:00.000000Z",
                renewTime: "1970-01-01T00:00:00.000000Z",
                leaseTransitions: 0
              })
              yield* Effect.addFinalizer(() => Effect.flatMap(holder, (it) => note(`closed, held by ${it}`)))
              yield* write("one")
              return { identity, held: isHeld() }
            }),
          {
            onEvent: ({ about, message }) => {
              assert.deepInclude(about, { kind: "Lease", namespace: "ns", name: "lock" })
              assert.isString(about.uid)
              return note(message)
            }
          }
        )
        assert.deepStrictEqual(result, { identity: "us", held: true })
        assert.deepStrictEqual(lines, ["us became leader", "closed, held by us", "us stopped leading"])
        assert.deepStrictEqual(yield* written, ["one"])
        assert.deepStrictEqual<unknown>(yield* stored, {
          holderIdentity: "",
          leaseDurationSeconds: 1,
          acquireTime: "1970-01-01T00:00:00.000000Z",
          renewTime: "1970-01-01T00:00:00.000000Z",
          leaseTransitions: 0
        })
      })
    )
  )

  it.effect.each([
    { name: "its holder's clock is behind", renewTime: "1960-01-01T00:00:00.000000Z" },
    { name: "its holder's clock is ahead", renewTime: "2960-01-01T00:00:00.000000Z" }
  ])("1.6 an abandoned Lease is taken when it was seen unchanged for its time: $name", ({ renewTime }) =>
    onServer(
      Effect.gen(function* () {
        yield* Resource.create(leases, of("dead", { renewTime }))
        yield* start(candidate(untilStopped))
        yield* pass(136_000)
        assert.strictEqual(yield* holder, "dead")
        // The next look comes after at most 2.2 periods.
        yield* pass(1_000 + 2.2 * 26_000)
        assert.strictEqual(yield* holder, "us")
        assert.strictEqual((yield* stored)?.["leaseTransitions"], 5)
      })
    )
  )

  it.effect("1.6 a Lease that is renewed is never taken", () =>
    onServer(
      Effect.gen(function* () {
        yield* start(candidate(untilStopped, { identity: "other" }))
        yield* pass(0)
        yield* start(candidate(() => Effect.die("leads as well")))
        yield* pass(3_600_000)
        assert.strictEqual(yield* holder, "other")
        assert.strictEqual((yield* stored)?.["leaseTransitions"], 0)
        assert.strictEqual((yield* stored)?.["acquireTime"], "1970-01-01T00:00:00.000000Z")
      })
    )
  )

  it.effect("1.6 a released Lease is taken at the next look", () =>
    onServer(
      Effect.gen(function* () {
        const first = yield* start(candidate(untilStopped, { identity: "other" }))
        yield* pass(0)
        yield* start(candidate(untilStopped))
        yield* pass(600_000)
        assert.strictEqual(yield* holder, "other")
        yield* Fiber.interrupt(first)
        assert.strictEqual(yield* holder, "")
        yield* pass(2.2 * 26_000)
        assert.strictEqual(yield* holder, "us")
      })
    )
  )

  it.effect.each([
    { name: "refused", failure: { status: 403, reason: "Forbidden" }, applied: false },
    { name: "another was faster", failure: { status: 409, reason: "AlreadyExists" }, applied: false },
    { name: "applied, but the answer was lost", failure: LOST_ANSWER, applied: true }
  ])("1.6 is tried again: $name", ({ applied, failure }) =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        yield* server.failNext(isLeaseWrite, failure, { applied })
        const { lines, note } = diary()
        yield* start(candidate((it) => Effect.andThen(note("leads"), untilStopped(it))))
        yield* pass(25_999)
        assert.deepStrictEqual(lines, [])
        yield* pass(1 + 1.2 * 26_000)
        assert.deepStrictEqual(lines, ["leads"])
        assert.strictEqual((yield* stored)?.["leaseTransitions"], 0)
      })
    )
  )
})

describe("holding", () => {
  const leadsOn = Effect.fnUntraced(function* (
    trouble: Effect.Effect<void, unknown, KubernetesApi | MemoryKubernetes>
  ) {
    const leader = yield* start(candidate(untilStopped))
    yield* pass(10_000)
    yield* trouble
    yield* pass(600_000)
    assert.isUndefined(leader.pollUnsafe())
    assert.strictEqual(yield* holder, "us")
    assert.strictEqual((yield* stored)?.["acquireTime"], "1970-01-01T00:00:00.000000Z")
    yield* Effect.flatMap(MemoryKubernetes, (server) => server.setLatencyMillis(0))
    return String((yield* stored)?.["renewTime"])
  })
  const failRenewals = (
    times: number,
    failure: { readonly status: number; readonly reason: string },
    applied = false
  ) =>
    Effect.flatMap(MemoryKubernetes, (server) =>
      Effect.forEach(Array.from({ length: times }), () => server.failNext(isLeaseWrite, failure, { applied }), {
        discard: true
      })
    )

  it.effect.each([
    { name: "nothing special", trouble: Effect.void, renewed: "1970-01-01T00:09:58.000000Z" },
    {
      name: "somebody changed a label",
      trouble: Effect.asVoid(Resource.mergePatch(leases, "ns", "lock", { metadata: { labels: { a: "b" } } }))
    },
    { name: "the answer of a renewal was lost", trouble: failRenewals(1, LOST_ANSWER, true) },
    { name: "three renewals failed", trouble: failRenewals(3, { status: 500, reason: "InternalError" }) },
    {
      name: "slow answers",
      trouble: Effect.flatMap(MemoryKubernetes, (server) => server.setLatencyMillis(9_000))
    }
  ])("1.6 goes on: $name", ({ renewed, trouble }) =>
    onServer(
      Effect.gen(function* () {
        const renewTime = yield* leadsOn(trouble)
        if (renewed !== undefined) assert.strictEqual(renewTime, renewed)
        assert.isAbove(Date.parse(renewTime), 560_000)
      })
    )
  )

  it.effect.each([{ by: 31_536_000_000 }, { by: -31_536_000_000 }])(
    "1.6 goes on, and keeps others out, when the wall clock jumps by $by ms",
    ({ by }) =>
      onServer(
        Effect.gen(function* () {
          const clock = yield* Clock.Clock
          let offset = 0
          const jumping: Clock.Clock = {
            ...clock,
            currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + offset,
            currentTimeMillis: Effect.map(clock.currentTimeMillis, (millis) => millis + offset),
            monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
            sleep: (duration) => clock.sleep(duration)
          }
          const leader = yield* start(Effect.provideService(candidate(untilStopped), Clock.Clock, jumping))
          yield* pass(10_000)
          yield* start(candidate(() => Effect.die("leads as well"), { identity: "other" }))
          offset = by
          yield* pass(600_000)
          assert.isUndefined(leader.pollUnsafe())
          assert.strictEqual(yield* holder, "us")
        })
      )
  )
})

describe("losing", () => {
  const lost = (why: LeadershipLost["why"]) => new LeadershipLost({ lease: "ns/lock", identity: "us", why })

  /** A leader of whom one fiber does not stop when it is told to. */
  const withStray = Effect.gen(function* () {
    const { lines, note } = diary()
    let strayApi: KubernetesApi["Service"] | undefined
    const leader = yield* start(
      candidate(
        ({ isHeld }) =>
          Effect.gen(function* () {
            strayApi = yield* KubernetesApi
            yield* write("before")
            return yield* Effect.onInterrupt(Effect.never, () => note(`interrupted, held: ${isHeld()}`))
          }),
        { onEvent: ({ message }) => note(message) }
      )
    )
    yield* pass(0)
    const stray = (name: string) =>
      Effect.result(Effect.suspend(() => Effect.provideService(write(name), KubernetesApi, strayApi!)))
    return { leader, lines, stray }
  })

  it.effect("1.6 while the API server is away: at the renew deadline, not before; nothing is written after it", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const { leader, lines, stray } = yield* withStray
        for (let n = 0; n < 4; n++) yield* server.failNext(isLeaseWrite, LOST_ANSWER, { applied: false })
        yield* pass(106_999)
        assert.strictEqual((yield* stray("in-time"))._tag, "Success")
        assert.isUndefined(leader.pollUnsafe())
        yield* pass(1)
        assert.strictEqual((yield* stray("too-late"))._tag, "Failure")
        assert.deepStrictEqual<unknown>(yield* Fiber.await(leader), Exit.fail(lost("expired")))
        assert.deepStrictEqual(lines, ["us became leader", "interrupted, held: false", "us stopped leading"])
        assert.deepStrictEqual(yield* written, ["before", "in-time"])
        assert.strictEqual(yield* holder, "", "nobody has taken it: it is given back")
      })
    )
  )

  it.effect.each([
    { name: "an acquisition", slowFrom: 0, sentAt: 4_000, answeredAt: 8_000 },
    { name: "a renewal", slowFrom: 10_000, sentAt: 26_000, answeredAt: 30_000 }
  ])("1.6 the time of $name counts from when it was sent, not answered", ({ answeredAt, sentAt, slowFrom }) =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const leader = yield* start(candidate(untilStopped))
        if (slowFrom > 0) yield* pass(slowFrom)
        yield* server.setLatencyMillis(4_000)
        yield* pass(answeredAt - slowFrom)
        yield* server.setLatencyMillis(0)
        for (let n = 0; n < 3; n++) yield* server.failNext(isLeaseWrite, LOST_ANSWER, { applied: false })
        yield* pass(sentAt + timings.renewMillis - 1 - answeredAt)
        assert.isUndefined(leader.pollUnsafe())
        yield* pass(1)
        assert.deepStrictEqual<unknown>(leader.pollUnsafe(), Exit.fail(lost("expired")))
      })
    )
  )

  it.effect.each([
    { name: "another has taken it", why: "taken" as const, spec: of("other"), holds: "other" },
    { name: "somebody has released it", why: "taken" as const, spec: of(""), holds: "" }
  ])("1.6 at the next renewal: $name", ({ holds, spec, why }) =>
    onServer(
      Effect.gen(function* () {
        const { leader, lines, stray } = yield* withStray
        yield* Resource.mergePatch(leases, "ns", "lock", { spec: spec.spec })
        yield* pass(26_000)
        assert.deepStrictEqual<unknown>(yield* Fiber.await(leader), Exit.fail(lost(why)))
        assert.strictEqual((yield* stray("too-late"))._tag, "Failure")
        assert.deepStrictEqual(lines, ["us became leader", "interrupted, held: false", "us stopped leading"])
        assert.deepInclude(yield* stored, { holderIdentity: holds, leaseTransitions: 4 })
      })
    )
  )

  it.effect("1.6 at the next renewal: it was deleted, and is not made again", () =>
    onServer(
      Effect.gen(function* () {
        const { leader, stray } = yield* withStray
        yield* Resource.remove(leases, "ns", "lock")
        yield* pass(26_000)
        assert.deepStrictEqual<unknown>(yield* Fiber.await(leader), Exit.fail(lost("deleted")))
        assert.strictEqual((yield* stray("too-late"))._tag, "Failure")
        assert.isUndefined(yield* stored)
      })
    )
  )

  it.effect("1.6 a process that was paused while it prepared a write does not send it", () =>
    onServer(
      Effect.gen(function* () {
        const clock = yield* Clock.Clock
        let pausedNanos = 0n
        const paused: Clock.Clock = {
          ...clock,
          currentTimeMillis: clock.currentTimeMillis,
          currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
          monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + pausedNanos,
          sleep: (duration) => clock.sleep(duration)
        }
        const { lines, note } = diary()
        const leader = yield* start(
          Effect.provideService(
            candidate(() =>
              Effect.gen(function* () {
                yield* Effect.sleep(1_000)
                pausedNanos = 107_000_000_000n
                const result = yield* Effect.flip(write("prepared"))
                yield* note(String(Option.getOrUndefined(Option.some(result))?.reason))
                return yield* Effect.never
              })
            ),
            Clock.Clock,
            paused
          )
        )
        yield* pass(1_000)
        assert.deepStrictEqual(lines, ["NotLeader"])
        assert.deepStrictEqual(yield* written, [])
        // Also a renewal that succeeds then does not bring the term back.
        yield* pass(26_000)
        assert.deepStrictEqual<unknown>(yield* Fiber.await(leader), Exit.fail(lost("expired")))
      })
    )
  )

  it.effect("1.6 a `lead` that does not end is left alone after ten seconds; the Lease is not released", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const leader = yield* start(candidate(() => Effect.uninterruptible(Effect.never)))
        yield* pass(0)
        for (let n = 0; n < 4; n++) yield* server.failNext(isLeaseWrite, LOST_ANSWER, { applied: false })
        yield* pass(116_999)
        assert.isUndefined(leader.pollUnsafe())
        yield* pass(1)
        assert.deepStrictEqual<unknown>(yield* Fiber.await(leader), Exit.fail(lost("expired")))
        assert.strictEqual(yield* holder, "us")
      })
    )
  )
})

describe("stopping", () => {
  it.effect("1.10 `lead` finishes what it is at, writes included; then the Lease is released", () =>
    onServer(
      Effect.gen(function* () {
        const { lines, note } = diary()
        const leader = yield* start(
          candidate(
            ({ stopping }) =>
              Effect.gen(function* () {
                yield* stopping
                yield* note(`told to stop, held by ${yield* holder}`)
                yield* Effect.sleep(60_000)
                yield* write("last")
                yield* note(`finished, held by ${yield* holder}`)
              }),
            { drainMillis: 70_000 }
          )
        )
        yield* pass(1_000)
        const stop = yield* start(Fiber.interrupt(leader))
        yield* pass(59_000)
        assert.strictEqual((yield* stored)?.["renewTime"], "1970-01-01T00:00:52.000000Z", "renewed meanwhile")
        yield* pass(1_000)
        yield* Fiber.join(stop)
        assert.deepStrictEqual(lines, ["told to stop, held by us", "finished, held by us"])
        assert.deepStrictEqual(yield* written, ["last"])
        assert.strictEqual(yield* holder, "")
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(leader)))
      })
    )
  )

  it.effect("1.10 `lead` is interrupted when its time is over", () =>
    onServer(
      Effect.gen(function* () {
        const { lines, note } = diary()
        const leader = yield* start(candidate(() => Effect.onInterrupt(Effect.never, () => note("interrupted"))))
        yield* pass(0)
        const stop = yield* start(Fiber.interrupt(leader))
        yield* pass(9_999)
        assert.deepStrictEqual(lines, [])
        yield* pass(1)
        yield* Fiber.join(stop)
        assert.deepStrictEqual(lines, ["interrupted"])
        assert.strictEqual(yield* holder, "")
      })
    )
  )

  it.effect("1.10 the Lease is left to expire when a write was cut off: it may take effect after its release", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const leader = yield* start(candidate(() => Effect.andThen(Effect.sleep(1_000), write("one"))))
        yield* pass(0)
        yield* server.setLatencyMillis(60_000)
        yield* pass(1_000)
        const stop = yield* start(Fiber.interrupt(leader))
        yield* pass(10_000)
        yield* Fiber.join(stop)
        assert.strictEqual(yield* holder, "us")
      })
    )
  )

  it.effect.each([
    { name: "the Lease changed", failure: { status: 409, reason: "Conflict" }, after: 0 },
    { name: "the API server was away for a moment", failure: { status: 503, reason: "ServiceUnavailable" }, after: 600 }
  ])("1.10 the release is tried again: $name", ({ after, failure }) =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const leader = yield* start(
          candidate(() => Effect.andThen(server.failNext(isLeaseWrite, failure, { applied: false }), Effect.void))
        )
        yield* pass(after)
        yield* Fiber.await(leader)
        assert.strictEqual(yield* holder, "")
      })
    )
  )

  it.effect("1.10 a release without an answer is waited for no longer than five seconds", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const leader = yield* start(candidate(() => server.setLatencyMillis(600_000)))
        yield* pass(4_999)
        assert.isUndefined(leader.pollUnsafe())
        yield* pass(1)
        assert.isTrue(Exit.isSuccess(yield* Fiber.await(leader)))
      })
    )
  )

  it.effect("1.10 one that waits for its turn stops at once, and writes nothing", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        yield* Resource.create(leases, of("other"))
        const waiting = yield* start(candidate(() => Effect.die("leads as well")))
        yield* pass(1_000)
        yield* server.resetRequests
        yield* Fiber.interrupt(waiting)
        assert.deepStrictEqual(yield* server.requests, [])
        assert.strictEqual(yield* holder, "other")
      })
    )
  )

  it.effect("1.10 a Lease that is acquired just then is given back, and nothing is led", () =>
    onServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        yield* server.setLatencyMillis(1_000)
        const waiting = yield* start(candidate(() => Effect.die("leads")))
        yield* pass(1_800)
        const stop = yield* start(Fiber.interrupt(waiting))
        yield* pass(200)
        assert.strictEqual(yield* holder, "us")
        yield* pass(1_000)
        yield* Fiber.join(stop)
        assert.strictEqual(yield* holder, "")
      })
    )
  )

  class Broke extends Data.TaggedError("Broke") {}
  it.effect.each([
    { name: "fails", lead: Effect.fail(new Broke()), expected: Exit.fail(new Broke()) },
    { name: "dies", lead: Effect.die("a bug"), expected: Exit.die("a bug") }
  ])("1.10 a `lead` that $name ends the election with its own words, and the Lease is released", ({ expected, lead }) =>
    onServer(
      Effect.gen(function* () {
        const exit = yield* Effect.exit(candidate(() => lead))
        assert.deepStrictEqual<unknown>(exit, expected)
        assert.strictEqual(yield* holder, "")
      })
    )
  )

  it.effect("1.6 an event that is not told in time holds up nothing", () =>
    onServer(
      Effect.gen(function* () {
        const leader = yield* start(candidate(() => write("one"), { onEvent: () => Effect.never }))
        yield* pass(2_000)
        yield* Fiber.await(leader)
        assert.deepStrictEqual(yield* written, ["one"])
        assert.strictEqual(yield* holder, "")
      })
    )
  )

  it.effect("1.6 leader_election_master_status", () =>
    onServer(
      Effect.gen(function* () {
        const value = Effect.map(PrometheusMetrics.format(), (text) =>
          text.split("\n").filter((line) => line.startsWith("leader_election_master_status"))
        )
        const during = yield* candidate(() => value)
        const after = yield* value
        assert.deepStrictEqual(
          [during, after],
          [['leader_election_master_status{name="lock"} 1'], ['leader_election_master_status{name="lock"} 0']]
        )
      })
    )
  )
})
