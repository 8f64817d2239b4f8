import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Layer, Result } from "effect"
import { TestClock } from "effect/testing"
import { NodeClock } from "../../layers/fake/simulation/TimeFaults.ts"
import type { Kind, Outcome } from "../../src/volume/Budget.ts"
import { ProviderBudget, type Tell, type Turn } from "../../src/volume/ProviderBudget.ts"
import { Settings } from "../../src/volume/Settings.ts"
import { settings } from "../support/FakeNode.ts"

const limits = { providerMountsMax: 2, providerRefreshesMax: 1, providerRefreshesPerSecond: 2 }
const never = Number.POSITIVE_INFINITY

const inBudget = <A, E, R>(body: Effect.Effect<A, E, R>, more: Partial<typeof limits> = {}) =>
  Effect.scoped(body).pipe(
    Effect.provide(
      ProviderBudget.layer.pipe(Layer.provide(Layer.succeed(Settings, { ...settings, ...limits, ...more })))
    )
  )

const answered: Outcome = { _tag: "Answered" }
const throttled: Outcome = { _tag: "Throttled", retryAfterMillis: undefined }

const turn = (kind: Kind, change: Partial<Turn> = {}): Turn => ({
  provider: "vault",
  kind,
  className: "ns/spc",
  waitMillis: never,
  ...change
})

/** Calls that last until they are told to end, in the order in which they began. */
const calls = Effect.gen(function* () {
  const budget = yield* ProviderBudget
  const begun: Array<readonly [name: string, millis: number]> = []
  const start = Effect.fnUntraced(function* (name: string, its: Turn) {
    const end = yield* Deferred.make<Outcome>()
    const call = (tell: Tell) =>
      Effect.gen(function* () {
        begun.push([name, yield* Clock.currentTimeMillis])
        tell(yield* Deferred.await(end), `the words of ${name}`)
      })
    const fiber = yield* Effect.forkScoped(Effect.result(budget.run(its, call)), { startImmediately: true })
    const ended = (outcome: Outcome) => Effect.andThen(Deferred.succeed(end, outcome), Fiber.await(fiber))
    return { ended, fiber }
  })
  const names = () => begun.map(([name]) => name)
  return { begun, names, start, budget }
})

describe("ProviderBudget", () => {
  it.effect("a call that ends lets the next one in: mounts, then what was asked for, then what is due", () =>
    inBudget(
      Effect.gen(function* () {
        const { names, start } = yield* calls
        const first = yield* start("first", turn("Due"))
        yield* start("due", turn("Due"))
        yield* start("asked", turn("Asked"))
        const mount = yield* start("mount", turn("Mount"))
        assert.deepStrictEqual(names(), ["first", "mount"])
        yield* first.ended(answered)
        assert.deepStrictEqual(names(), ["first", "mount", "asked"])
        yield* mount.ended(answered)
        assert.deepStrictEqual(names(), ["first", "mount", "asked"])
      })
    )
  )

  it.effect("each provider has its own", () =>
    inBudget(
      Effect.gen(function* () {
        const { names, start } = yield* calls
        yield* start("vault", turn("Asked"))
        yield* start("azure", turn("Asked", { provider: "azure" }))
        assert.deepStrictEqual(names(), ["vault", "azure"])
      })
    )
  )

  it.effect("due refreshes come at their rate, without a call that ends", () =>
    inBudget(
      Effect.gen(function* () {
        const { begun, start } = yield* calls
        for (const name of ["a", "b", "c", "d"]) yield* start(name, turn("Due"))
        yield* TestClock.adjust("10 seconds")
        // Two at once after a rest, then one each half second.
        assert.deepStrictEqual(begun, [
          ["a", 0],
          ["b", 0],
          ["c", 500],
          ["d", 1_000]
        ])
      }),
      { providerRefreshesMax: 0 }
    )
  )

  it.effect("who is not served in time is told who was first", () =>
    inBudget(
      Effect.gen(function* () {
        const { names, start } = yield* calls
        yield* start("a", turn("Asked"))
        const late = yield* start("b", turn("Asked", { waitMillis: 3_000 }))
        yield* TestClock.adjust("3 seconds")
        const failure = Result.getOrThrow(Result.flip(yield* Fiber.join(late.fiber)))
        assert.strictEqual(
          failure.message,
          'provider "vault" was not asked within 3000 ms: other pods are served first'
        )
        assert.deepStrictEqual(names(), ["a"])
      })
    )
  )

  it.effect("while a provider throttles one call tries it, less and less often; the others follow its answer", () =>
    inBudget(
      Effect.gen(function* () {
        const { begun, budget, names, start } = yield* calls
        const first = yield* start("first", turn("Mount"))
        yield* first.ended(throttled)
        assert.strictEqual(budget.throttledBy("vault"), "the words of first")
        const second = yield* start("second", turn("Mount"))
        yield* start("third", turn("Mount", { waitMillis: 60_000 }))
        yield* start("fourth", turn("Due"))
        assert.deepStrictEqual(names(), ["first"])
        yield* TestClock.adjust("1200 millis")
        assert.deepStrictEqual(names(), ["first", "second"])
        yield* TestClock.adjust("20 seconds")
        assert.deepStrictEqual(names(), ["first", "second"])
        yield* second.ended(answered)
        assert.deepStrictEqual(names(), ["first", "second", "third", "fourth"])
        assert.isUndefined(budget.throttledBy("vault"))
        assert.isAtLeast(begun[1]?.[1] ?? 0, 800)
      })
    )
  )

  it.effect.each([
    { name: "back", stepMillis: -6 * 3_600_000 },
    { name: "ahead, and back", stepMillis: 6 * 3_600_000 }
  ])("a clock that is set $name holds nobody up", ({ stepMillis }) =>
    Effect.gen(function* () {
      const world = yield* Clock.Clock
      const node = new NodeClock(world)
      const adjust = (millis: number) => Effect.provideService(TestClock.adjust(millis), Clock.Clock, world)
      node.stepMillis = Math.max(0, stepMillis)
      yield* inBudget(
        Effect.gen(function* () {
          const { names, start } = yield* calls
          const [mount, due] = [yield* start("mount", turn("Mount")), yield* start("due", turn("Due"))]
          yield* mount.ended(throttled)
          yield* due.ended(answered)
          node.stepMillis = Math.min(0, stepMillis)
          const again = yield* start("again", turn("Mount"))
          yield* adjust(2_000)
          assert.deepStrictEqual(names(), ["mount", "due", "again"])
          yield* again.ended(answered)
          for (const name of ["due 1", "due 2", "due 3", "due 4"]) {
            const next = yield* start(name, turn("Due"))
            yield* adjust(1_000)
            yield* next.ended(answered)
          }
          assert.strictEqual(names().length, 7)
        })
      ).pipe(Effect.provideService(Clock.Clock, node.clock))
    })
  )

  it.effect("who waits in vain for a provider that throttles is told its words", () =>
    inBudget(
      Effect.gen(function* () {
        const { start } = yield* calls
        const first = yield* start("first", turn("Mount"))
        yield* first.ended(throttled)
        const late = yield* start("late", turn("Mount", { waitMillis: 500 }))
        yield* TestClock.adjust("500 millis")
        const failure = Result.getOrThrow(Result.flip(yield* Fiber.join(late.fiber)))
        assert.match(failure.message, /within 500 ms: it is asked too much, and said: the words of first$/u)
      })
    )
  )

  it.effect("who gives up is out of the queue, before its turn and in it", () =>
    inBudget(
      Effect.gen(function* () {
        const { names, start } = yield* calls
        const running = yield* start("running", turn("Asked"))
        const waiting = yield* start("waiting", turn("Asked"))
        yield* start("next", turn("Asked"))
        yield* Fiber.interrupt(waiting.fiber)
        yield* Fiber.interrupt(running.fiber)
        assert.deepStrictEqual(names(), ["running", "next"])
      })
    )
  )

  it.effect("a trial that is given up is made again by somebody else", () =>
    inBudget(
      Effect.gen(function* () {
        const { names, start } = yield* calls
        yield* (yield* start("first", turn("Mount"))).ended(throttled)
        const trial = yield* start("trial", turn("Mount"))
        yield* start("other", turn("Mount"))
        yield* TestClock.adjust("1200 millis")
        yield* Fiber.interrupt(trial.fiber)
        yield* TestClock.adjust("1200 millis")
        assert.deepStrictEqual(names(), ["first", "trial", "other"])
      })
    )
  )

  it.effect("a turn that was not used shows nothing: the next one tries at once", () =>
    inBudget(
      Effect.gen(function* () {
        const { budget, names, start } = yield* calls
        yield* (yield* start("first", turn("Mount"))).ended(throttled)
        yield* Effect.forkScoped(budget.run(turn("Mount"), () => Effect.void))
        yield* start("next", turn("Mount"))
        yield* TestClock.adjust("1200 millis")
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(names(), ["first", "next"])
      })
    )
  )

  it.effect("a call that fails gives its place back, and fails as it did", () =>
    inBudget(
      Effect.gen(function* () {
        const budget = yield* ProviderBudget
        for (let time = 0; time < 5; time++) {
          const failed = yield* Effect.flip(budget.run(turn("Asked"), () => Effect.fail("sealed" as const)))
          assert.strictEqual(failed, "sealed")
        }
      })
    )
  )
})
