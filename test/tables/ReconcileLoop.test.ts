import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Fiber, Layer, Logger, Metric, Random, type Scope } from "effect"
import { TestClock } from "effect/testing"
import type { ReconcileTimedOut } from "../../schemas/errors/ReconcileTimedOut.ts"
import { complaints } from "../../src/reconciler/Complaints.ts"
import { enqueueKeys } from "../../src/reconciler/KeyIndex.ts"
import * as ReconcileLoop from "../../src/reconciler/ReconcileLoop.ts"
import * as WorkQueue from "../../src/reconciler/WorkQueue.ts"
import type * as Metrics from "../../src/telemetry/Metrics.ts"
import { exposition } from "../../src/telemetry/PrometheusText.ts"

const MINUTE = 60_000
const { DONE, requeueAfter } = ReconcileLoop

class Refused extends Data.TaggedError("Refused")<{ readonly message: string; readonly remedy?: string }> {}

type Act = (key: string) => Effect.Effect<ReconcileLoop.Outcome, Refused>

const settle = TestClock.adjust(0)

/** In steps: what is set in the middle of one step is not seen before its end. */
const pass = (millis: number, step = 500) =>
  Effect.gen(function* () {
    for (let passed = 0; passed < millis; passed += step) yield* TestClock.adjust(Math.min(step, millis - passed))
  })

/** A loop of two workers with a log, metrics and no jitter; it is over when the test is. */
const world = <A, E>(
  body: (it: {
    readonly queue: WorkQueue.WorkQueue
    readonly doing: (next: Act) => void
    readonly begun: ReadonlyArray<string>
    readonly logged: Array<string>
    readonly loop: Fiber.Fiber<void>
    readonly start: Effect.Effect<Fiber.Fiber<void>, never, Scope.Scope>
  }) => Effect.Effect<A, E, Scope.Scope>,
  options: Partial<ReconcileLoop.Options<Refused, never>> = {}
) =>
  Effect.suspend(() => {
    const logged: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      const [words, fields] = Array.isArray(message) ? message : [message]
      logged.push(`${logLevel} ${words} ${fields.key} ${fields.err ?? ""}`.trim())
    })
    return Effect.gen(function* () {
      const begun: Array<string> = []
      let act: Act = () => Effect.succeed(DONE)
      const queue = yield* WorkQueue.make()
      const start = Effect.forkScoped(
        ReconcileLoop.run({
          name: "secret-sync",
          workers: 2,
          queue,
          reconcile: (key) => {
            begun.push(key)
            return act(key)
          },
          ...options
        })
      )
      const loop = yield* start
      yield* settle
      const doing = (next: Act) => {
        act = next
      }
      return yield* body({ queue, begun, doing, logged, loop, start })
    }).pipe(
      Effect.provide(Layer.merge(Logger.layer([logger]), Layer.succeed(Metric.MetricRegistry, new Map()))),
      Effect.provideService(Random.Random, { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 0 })
    )
  })

const series = (name: string) =>
  Effect.map(exposition(), (text) => text.split("\n").filter((line) => line.startsWith(`secrets_store_${name}`)))

const refuse = (message: string, remedy?: string) =>
  Effect.fail(new Refused({ message, ...(remedy === undefined ? {} : { remedy }) }))

describe("outcomes", () => {
  it.effect("done is done; to be looked at again is looked at again", () =>
    world(({ begun, doing, queue }) =>
      Effect.gen(function* () {
        doing((key) => Effect.succeed(key === "again" ? requeueAfter(5 * MINUTE) : DONE))
        queue.add("once")
        queue.add("again")
        yield* TestClock.adjust(5 * MINUTE - 1)
        assert.deepStrictEqual(begun, ["once", "again"])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(begun, ["once", "again", "again"])
        assert.deepStrictEqual(yield* series("reconcile_total"), [
          'secrets_store_reconcile_total{controller="secret-sync",result="done"} 1',
          'secrets_store_reconcile_total{controller="secret-sync",result="requeue_after"} 2'
        ])
      })
    )
  )

  it.effect("as many at a time as there are workers", () =>
    world(({ begun, doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.as(Effect.sleep(1_000), DONE))
        for (const key of ["a", "b", "c"]) queue.add(key)
        yield* settle
        assert.deepStrictEqual(begun, ["a", "b"])
        yield* TestClock.adjust(1_000)
        assert.deepStrictEqual(begun, ["a", "b", "c"])
      })
    )
  )

  const badly: ReadonlyArray<{
    readonly name: string
    readonly end: ReturnType<Act>
    readonly result: Metrics.ReconcileResult
    readonly told: string | undefined
    readonly line: string
  }> = [
    {
      name: "a failure",
      end: refuse("no", "ask"),
      result: "failed",
      told: "a Refused 1",
      line: "Warn reconcile failed, trying again a no"
    },
    {
      name: "a reconcile that does not end",
      end: Effect.never,
      result: "timed_out",
      told: "a ReconcileTimedOut 1",
      line: "Warn reconcile failed, trying again a not reconciled within 120000 ms"
    },
    {
      name: "a defect",
      end: Effect.die(new Error("bug")),
      result: "died",
      told: undefined,
      line: "Error bug in a reconcile, trying again a"
    },
    {
      name: "a defect that is a failure too",
      end: Effect.ensuring(refuse("no"), Effect.die("bug")),
      result: "died",
      told: undefined,
      line: "Error bug in a reconcile, trying again a"
    },
    {
      name: "an interruption that nobody asked for",
      end: Effect.interrupt,
      result: "died",
      told: undefined,
      line: "Error bug in a reconcile, trying again a"
    },
    {
      name: "a reconcile that throws",
      end: Effect.suspend(() => {
        throw new Error("bug")
      }),
      result: "died",
      told: undefined,
      line: "Error bug in a reconcile, trying again a"
    }
  ]
  it.effect.each(badly)("$name is counted, said, told and tried again, and the loop goes on", (row) => {
    const heard: Array<string> = []
    const onError = (key: string, error: Refused | ReconcileTimedOut, failures: number) =>
      Effect.sync(() => {
        heard.push(`${key} ${error._tag} ${failures}`)
      })
    return world(
      ({ begun, doing, logged, queue }) =>
        Effect.gen(function* () {
          doing(() => row.end)
          queue.add("a")
          yield* settle
          if (row.result === "timed_out") yield* TestClock.adjust(2 * MINUTE)
          assert.deepStrictEqual(yield* series("reconcile_total"), [
            `secrets_store_reconcile_total{controller="secret-sync",result="${row.result}"} 1`
          ])
          assert.deepStrictEqual(heard, row.told === undefined ? [] : [row.told])
          assert.deepStrictEqual(logged, [row.line])
          assert.strictEqual(queue.failures("a"), 1)
          doing(() => Effect.succeed(DONE))
          yield* TestClock.adjust(499)
          assert.deepStrictEqual(begun, ["a"])
          queue.add("b")
          yield* TestClock.adjust(1)
          assert.deepStrictEqual(begun, ["a", "b", "a"])
          assert.strictEqual(queue.known(), 0)
          assert.deepStrictEqual(logged, [row.line, "Info reconciled after failures a"])
        }),
      { onError }
    )
  })

  it.effect("how long they took", () =>
    world(({ doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.as(Effect.sleep(3_000), DONE))
        queue.add("a")
        yield* TestClock.adjust(3_000)
        const lines = yield* series("reconcile_duration_seconds")
        assert.include(lines, 'secrets_store_reconcile_duration_seconds_sum{controller="secret-sync"} 3')
        assert.include(lines, 'secrets_store_reconcile_duration_seconds_bucket{controller="secret-sync",le="2.5"} 0')
        assert.include(lines, 'secrets_store_reconcile_duration_seconds_bucket{controller="secret-sync",le="5"} 1')
      })
    )
  )

  it.effect("how many wait, every ten seconds and while the loop runs", () =>
    world(({ doing, loop, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.never)
        for (const key of ["a", "b", "c", "d", "e"]) queue.add(key)
        yield* TestClock.adjust(10_000)
        const name = "reconcile_queue_length"
        assert.deepStrictEqual(yield* series(name), [
          'secrets_store_reconcile_queue_length{controller="secret-sync"} 3'
        ])
        yield* Fiber.interrupt(loop)
        assert.deepStrictEqual(yield* series(name), [])
      })
    )
  )
})

describe("a bound of time", () => {
  it.effect("is the caller's, and what was interrupted has ended before the key is tried again", () => {
    let running = 0
    return world(
      ({ begun, doing, queue }) =>
        Effect.gen(function* () {
          doing(() =>
            Effect.suspend(() => {
              running += 1
              assert.strictEqual(running, 1)
              return Effect.never
            }).pipe(
              Effect.ensuring(
                Effect.andThen(
                  Effect.sleep(3_000),
                  Effect.sync(() => {
                    running -= 1
                  })
                )
              )
            )
          )
          queue.add("a")
          yield* TestClock.adjust(1_000)
          queue.add("a")
          yield* TestClock.adjust(2_999)
          assert.deepStrictEqual(begun, ["a"])
          yield* TestClock.adjust(1)
          assert.deepStrictEqual(begun, ["a", "a"])
          doing(() => Effect.succeed(DONE))
          yield* pass(6_000)
          assert.strictEqual(queue.known(), 0)
        }),
      { timeLimitMillis: 1_000 }
    )
  })
})

describe("onError", () => {
  it.effect.each<readonly [name: string, onError: Effect.Effect<void>, lines: number]>([
    ["that dies", Effect.die(new Error("bug")), 2],
    ["that interrupts itself", Effect.interrupt, 2],
    ["that does not end", Effect.never, 1]
  ])("%s ends no loop, and the key is tried again", ([, onError, lines]) =>
    world(
      ({ begun, doing, logged, queue }) =>
        Effect.gen(function* () {
          doing(() => refuse("no"))
          queue.add("a")
          yield* TestClock.adjust(5_000)
          assert.strictEqual(logged.length, lines)
          yield* TestClock.adjust(500)
          assert.isAtLeast(begun.length, 2)
          assert.isAtLeast(queue.failures("a"), 1)
        }),
      { onError: () => onError }
    )
  )
})

describe("the log", () => {
  it.effect("says what stays as it is once, and what is new at once", () =>
    world(({ begun, doing, logged, queue }) =>
      Effect.gen(function* () {
        doing(() => refuse("one"))
        queue.add("a")
        yield* pass(60 * MINUTE, 5_000)
        assert.isAbove(begun.length, 15)
        assert.deepStrictEqual(logged, ["Warn reconcile failed, trying again a one"])
        doing(() => refuse("two"))
        queue.add("a")
        queue.add("b")
        yield* settle
        assert.deepStrictEqual(logged.slice(1), [
          "Warn reconcile failed, trying again a two",
          "Warn reconcile failed, trying again b two"
        ])
      })
    )
  )

  it.effect("is not filled by a key that fails and succeeds in turn", () =>
    world(({ begun, doing, logged, queue }) =>
      Effect.gen(function* () {
        doing(() => (begun.length % 2 === 1 ? refuse("one") : Effect.succeed(DONE)))
        for (let round = 0; round < 600; round++) {
          queue.add("a")
          yield* settle
          yield* pass(1_000)
        }
        assert.isAtLeast(begun.length, 1_200)
        assert.deepStrictEqual(logged, [
          "Warn reconcile failed, trying again a one",
          "Info reconciled after failures a",
          "Warn reconcile failed, trying again a one",
          "Info reconciled after failures a"
        ])
      })
    )
  )
})

describe("what was said", () => {
  it("is new after a success that was five minutes ago, and until then it is not", () => {
    const told = complaints()
    assert.isTrue(told.isNew("a", "no", 0))
    assert.isFalse(told.isNew("a", "no", 100 * MINUTE))
    assert.isTrue(told.isNew("a", "other", 100 * MINUTE))
    assert.isTrue(told.isNew("b", "no", 100 * MINUTE))
    assert.isTrue(told.settle("a", 101 * MINUTE))
    assert.isFalse(told.settle("a", 101 * MINUTE))
    assert.isFalse(told.isNew("a", "other", 105 * MINUTE - 1))
    assert.isTrue(told.isNew("a", "other", 105 * MINUTE))
    assert.isTrue(told.isNew("a", "no", 105 * MINUTE))
    assert.isFalse(told.settle("c", 105 * MINUTE))
  })

  it("is forgotten when it is old and its key well, and is bounded", () => {
    const told = complaints()
    for (let n = 0; n < 100; n++) told.isNew("a", `no ${n}`, n)
    assert.isFalse(told.isNew("a", "no 80", 100))
    assert.isTrue(told.isNew("a", "no 79", 100))
    told.isNew("b", "no", 0)
    told.settle("a", 100)
    assert.strictEqual(told.size(), 2)
    told.settle("c", 6 * MINUTE)
    assert.strictEqual(told.size(), 1)
    told.settle("b", 7 * MINUTE)
    told.settle("c", 13 * MINUTE)
    assert.strictEqual(told.size(), 0)
  })
})

describe("the end", () => {
  it.effect("an interruption waits for the workers, and the next loop goes on with what they had", () =>
    world(({ begun, doing, loop, queue, start }) =>
      Effect.gen(function* () {
        const ended: Array<string> = []
        doing((key) =>
          Effect.onInterrupt(Effect.never, () =>
            Effect.andThen(
              Effect.sleep(100),
              Effect.sync(() => ended.push(key))
            )
          )
        )
        for (const key of ["a", "b", "c"]) queue.add(key)
        yield* settle
        const stop = yield* Effect.forkChild(Fiber.interrupt(loop))
        yield* TestClock.adjust(99)
        assert.isUndefined(stop.pollUnsafe())
        yield* TestClock.adjust(1)
        yield* Fiber.join(stop)
        assert.sameMembers(ended, ["a", "b"])
        assert.strictEqual(queue.length(), 3)
        assert.strictEqual(queue.failures("a"), 0)
        doing(() => Effect.succeed(DONE))
        yield* start
        yield* settle
        assert.sameMembers(begun.slice(2), ["a", "b", "c"])
        assert.strictEqual(queue.known(), 0)
      })
    )
  )

  it.effect("a queue that is closed ends the loop", () =>
    Effect.gen(function* () {
      const loop = yield* Effect.scoped(
        Effect.gen(function* () {
          const queue = yield* WorkQueue.make()
          const fiber = yield* Effect.forkDetach(
            ReconcileLoop.run({ name: "operator", workers: 3, queue, reconcile: () => Effect.succeed(DONE) })
          )
          yield* settle
          assert.isUndefined(fiber.pollUnsafe())
          return fiber
        })
      )
      yield* Fiber.join(loop)
    })
  )
})

describe("from what a Reflector tells to keys", () => {
  type Named = ReadonlyArray<string>
  const told = () => {
    const added: Array<string> = []
    const onChange = enqueueKeys<Named>(
      (key) => added.push(key),
      (names) => names
    )
    return {
      change: (change: Parameters<typeof onChange>[0]) => Effect.map(onChange(change), () => added.splice(0).join(","))
    }
  }
  const applied = (key: string, ...object: Named) => ({ _tag: "Applied", key, object }) as const

  it.effect("those that an object has, those that it had, and after a list all of them", () =>
    Effect.gen(function* () {
      const { change } = told()
      assert.strictEqual(yield* change(applied("x", "a", "b")), "a,b")
      assert.strictEqual(yield* change(applied("x", "b", "c")), "a,b,c")
      assert.strictEqual(yield* change(applied("x", "b", "c")), "b,c")
      assert.strictEqual(yield* change(applied("y", "c")), "c")
      const objects = new Map<string, Named>([
        ["x", ["d"]],
        ["y", ["c"]],
        ["z", []]
      ])
      assert.strictEqual(yield* change({ _tag: "Synced", objects }), "b,c,d,c")
      assert.strictEqual(yield* change({ _tag: "Deleted", key: "x", object: ["d"] }), "d")
      assert.strictEqual(yield* change({ _tag: "Deleted", key: "x", object: ["d"] }), "")
      assert.strictEqual(yield* change(applied("x")), "")
    })
  )
})
