import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Option, Redacted } from "effect"
import { FileSystem } from "effect/FileSystem"
import { TestClock } from "effect/testing"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import { ProviderCallFailed } from "../../schemas/errors/ProviderFailed.ts"
import { FORCE_REFRESH_KEY } from "../../schemas/ForceRefresh.ts"
import { publish } from "../../src/volume/NodePublish.ts"
import * as Refresher from "../../src/volume/Refresher.ts"
import * as RefreshTriggers from "../../src/volume/RefreshTriggers.ts"
import { refreshDue } from "../../src/volume/VolumeRefresh.ts"
import { VolumeTable } from "../../src/volume/VolumeTable.ts"
import * as Node from "../support/FakeNode.ts"

const HOUR = 3_600_000
const hourly = { rotationEnabled: true, rotationPollIntervalMillis: HOUR } satisfies Partial<DriverConfig>

/** A day after the epoch: a time of zero is one that is not known. */
const later = TestClock.adjust("24 hours")
/** Watches and refreshes take their way: a few steps for each who is on it. */
const settle = Effect.repeat(TestClock.adjust("10 millis"), { times: 20 })

/** One life of a driver that rotates every hour. */
const life = Effect.fnUntraced(function* <A, E, R>(body: (provider: Node.Script) => Effect.Effect<A, E, R>) {
  const provider = Node.script()
  const whole = Effect.gen(function* () {
    yield* Effect.forkScoped(Refresher.run(({ targetPath }) => refreshDue(targetPath)))
    yield* Effect.forkScoped(RefreshTriggers.run())
    return yield* body(provider)
  })
  return yield* Effect.provide(Effect.scoped(whole), Layer.fresh(Node.driverLayer(provider, hourly)))
})

const call = publish(Node.request, Number.POSITIVE_INFINITY)
const mounted = Effect.gen(function* () {
  yield* later
  yield* Node.prepareTarget()
  yield* Node.putClass()
  yield* call
  yield* settle
})
const inRotation = <A, E, R>(body: (provider: Node.Script) => Effect.Effect<A, E, R>) =>
  life((provider) => Effect.andThen(mounted, body(provider))).pipe(Effect.provide(Node.worldLayer))

const recorded = Effect.map(VolumeTable, (table) => table.get(Node.TARGET)!)
const isRecordedAs = (value: string) =>
  Effect.gen(function* () {
    const kubernetes = yield* MemoryKubernetes
    const [status] = yield* kubernetes.all("secretproviderclasspodstatuses")
    const annotations = { "secrets-store.csi.k8s.io/refreshed-for-class": value }
    assert.deepNestedInclude(status, { "metadata.annotations": annotations })
  })

/** Lets time pass until the volume has been refreshed at its time, and answers with that. */
const untilRefreshed = (provider: Node.Script) =>
  Effect.gen(function* () {
    const { schedule } = yield* recorded
    const calls = provider.calls.length
    yield* TestClock.adjust(schedule.dueMillis - (yield* Clock.currentTimeMillis))
    assert.strictEqual(provider.calls.length, calls + 1)
    return schedule.dueMillis
  })

describe("Q4 an answer that changes nothing is a success all the same", () => {
  it.effect("for the age of the content and the next due time", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        const at = yield* untilRefreshed(provider)
        yield* settle
        const { lastSuccessMillis, schedule } = yield* recorded
        assert.strictEqual(lastSuccessMillis, at)
        assert.strictEqual(schedule.dueMillis, at + HOUR)
      })
    )
  )

  it.effect("for a later life of the driver, which finds it in the target's mtime", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        const at = yield* untilRefreshed(provider)
        yield* settle
        const files = yield* FileSystem
        const { mtime } = yield* files.stat(Node.TARGET)
        assert.strictEqual(Option.getOrThrow(mtime).getTime(), at)
      })
    )
  )
})

it.effect("D3 after a restart a volume is due when it would have been, and not at once", () =>
  Effect.gen(function* () {
    const dueMillis = yield* life(() =>
      Effect.andThen(
        mounted,
        Effect.map(recorded, ({ schedule }) => schedule.dueMillis)
      )
    )
    yield* life((provider) =>
      Effect.gen(function* () {
        yield* call
        yield* settle
        assert.strictEqual(provider.calls.length, 0)
        assert.strictEqual((yield* recorded).schedule.dueMillis, dueMillis)
        yield* untilRefreshed(provider)
      })
    )
  }).pipe(Effect.provide(Node.worldLayer))
)

it.effect("S11 the next attempt is when the provider has asked for it, and the pod is told so", () =>
  inRotation((provider) =>
    Effect.gen(function* () {
      provider.mount = () =>
        Effect.fail(
          new ProviderCallFailed({
            provider: "vault",
            grpcCode: "RESOURCE_EXHAUSTED",
            details: "slow down",
            unanswered: false,
            retryAfterMillis: 300_000
          })
        )
      const at = yield* untilRefreshed(provider)
      yield* settle
      assert.strictEqual((yield* recorded).schedule.dueMillis, at + 300_000)
      const [event] = yield* Effect.flatMap(MemoryKubernetes, (kubernetes) => kubernetes.all("events"))
      assert.match(String(event?.["message"]), /; next attempt in 300s$/u)
    })
  )
)

describe("a refresh that is asked for", () => {
  it.effect("is recorded when it is done, also when it has changed nothing", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* Node.annotateClass({ [FORCE_REFRESH_KEY]: "one" })
        yield* settle
        assert.strictEqual(provider.calls.length, 2)
        yield* isRecordedAs("one")
      })
    )
  )

  it.effect("while the provider is called for another one: comes after it", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        provider.mount = () => Effect.delay(Effect.succeed(Node.answer("v2")), "5 seconds")
        yield* Node.annotateClass({ [FORCE_REFRESH_KEY]: "one" })
        yield* settle
        yield* Node.annotateClass({ [FORCE_REFRESH_KEY]: "two" })
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual(provider.calls.length, 3)
        yield* isRecordedAs("two")
      })
    )
  )
})

it.effect("F3 35 a volume whose tokens have expired is refreshed as soon as there are others", () => {
  const callWith = (token: string, expirationTimestamp: string) =>
    publish(
      {
        ...Node.request,
        serviceAccountTokens: Redacted.make(JSON.stringify({ aud: { token, expirationTimestamp } }))
      },
      Number.POSITIVE_INFINITY
    )
  return inRotation((provider) =>
    Effect.gen(function* () {
      yield* callWith("old", "1970-01-02T00:30:00Z")
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(provider.calls.length, 1)
      yield* callWith("new", "1970-01-02T03:00:00Z")
      yield* settle
      assert.strictEqual(provider.calls.length, 2)
      assert.include(Redacted.value(provider.calls[1]!.attributes), "new")
    })
  )
})
