import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"
import { agenda } from "../../src/reconciler/Agenda.ts"
import {
  backoffMillis,
  decisions,
  isUnknown,
  type QueuedKey,
  type Result,
  UNKNOWN
} from "../../src/reconciler/QueuedKey.ts"
import { type Backoff, reconcileBackoff } from "../../src/reconciler/Schedules.ts"
import * as WorkQueue from "../../src/reconciler/WorkQueue.ts"

const NOW = 1_000
const DONE: Result = { _tag: "Done" }
const FAILED: Result = { _tag: "Failed" }
const requeue = (millis: number): Result => ({ _tag: "RequeueAfter", millis })
const steady: Backoff = { firstMillis: 500, factor: 2, maxMillis: 300_000, jitterShare: 0 }

describe("what becomes of a key", () => {
  const resting = UNKNOWN
  const ready: QueuedKey = { ...UNKNOWN, stage: "Ready" }
  const working: QueuedKey = { ...UNKNOWN, stage: "Working" }
  const again: QueuedKey = { ...UNKNOWN, stage: "WorkingAgain" }
  const { added, addedAfter, due, finished, forgotten, taken } = decisions
  const end = (key: QueuedKey, result: Result) => finished(key, result, steady, { nowMillis: NOW, random: 0.5 })

  it.each<readonly [name: string, key: QueuedKey, expected: QueuedKey]>([
    ["added: ready", added(resting), ready],
    ["added twice: ready once", added(ready), ready],
    ["added while worked on: again", added(working), again],
    ["added twice while worked on: again once", added(again), again],
    [
      "added: a wish and a resync stay",
      added({ ...resting, wishMillis: 5, returnMillis: 6 }),
      { ...ready, wishMillis: 5, returnMillis: 6 }
    ],
    ["added after a time", addedAfter(resting, 50, NOW), { ...resting, wishMillis: 1_050 }],
    [
      "added after a longer time",
      addedAfter({ ...resting, wishMillis: 1_050 }, 51, NOW),
      { ...resting, wishMillis: 1_050 }
    ],
    [
      "added after a shorter time",
      addedAfter({ ...resting, wishMillis: 1_050 }, 49, NOW),
      { ...resting, wishMillis: 1_049 }
    ],
    [
      "added after a time: a resync stays",
      addedAfter({ ...resting, returnMillis: 9_000 }, 50, NOW),
      { ...resting, returnMillis: 9_000, wishMillis: 1_050 }
    ],
    ["added after a time, ready: a look now is none then", addedAfter(ready, 50, NOW), { ...ready, wishMillis: 1_050 }],
    ["added after a time, worked on", addedAfter(working, 50, NOW), { ...working, wishMillis: 1_050 }],
    ["added after no time", addedAfter(working, 0, NOW), again],
    ["added after less than no time", addedAfter(resting, -1, NOW), ready],
    ["added after what is no number", addedAfter(resting, Number.NaN, NOW), ready],
    [
      "added after a time: an earlier wish that is due by now counts by itself",
      addedAfter({ ...resting, wishMillis: 1_000 }, 50, NOW),
      { ...ready, wishMillis: 1_050 }
    ],
    ["added never", addedAfter(resting, Number.POSITIVE_INFINITY, NOW), resting],
    [
      "due: not yet",
      due({ ...resting, wishMillis: 1_001, returnMillis: 1_002 }, NOW),
      { ...resting, wishMillis: 1_001, returnMillis: 1_002 }
    ],
    [
      "due: a wish, exactly",
      due({ ...resting, wishMillis: 1_000, returnMillis: 1_002 }, NOW),
      { ...ready, returnMillis: 1_002 }
    ],
    [
      "due: a resync, exactly",
      due({ ...resting, wishMillis: 1_001, returnMillis: 1_000 }, NOW),
      { ...ready, wishMillis: 1_001 }
    ],
    ["due: both", due({ ...resting, wishMillis: 900, returnMillis: 800 }, NOW), ready],
    ["due: while ready", due({ ...ready, wishMillis: 900 }, NOW), ready],
    ["due: while worked on", due({ ...working, wishMillis: 900 }, NOW), again],
    ["taken", taken(ready, NOW), working],
    ["taken: the resync is said anew by who works now", taken({ ...ready, returnMillis: 9_000 }, NOW), working],
    ["taken: a wish for later stays", taken({ ...ready, wishMillis: 1_001 }, NOW), { ...working, wishMillis: 1_001 }],
    ["taken: a wish that is due is met", taken({ ...ready, wishMillis: 1_000 }, NOW), working],
    ["taken: failures stay", taken({ ...ready, failures: 3 }, NOW), { ...working, failures: 3 }],
    [
      "taken before its time: the wait that it cuts short counts for nothing",
      taken({ ...ready, failures: 3, waits: 3, returnMillis: 1_001 }, NOW),
      { ...working, failures: 3, waits: 2 }
    ],
    [
      "taken in its time",
      taken({ ...ready, failures: 3, waits: 3, returnMillis: 1_000 }, NOW),
      { ...working, failures: 3, waits: 3 }
    ],
    [
      "taken before its time, again and again: the wait does not grow",
      end(taken({ ...ready, failures: 9, waits: 1, returnMillis: 1_500 }, NOW), FAILED),
      { ...resting, failures: 10, waits: 1, returnMillis: 1_500 }
    ],
    ["done", end({ ...working, failures: 3, waits: 2 }, DONE), resting],
    ["done, added meanwhile", end({ ...again, failures: 3, waits: 3 }, DONE), ready],
    ["done, wished for later", end({ ...working, wishMillis: 1_001 }, DONE), { ...resting, wishMillis: 1_001 }],
    ["to return", end({ ...working, failures: 3, waits: 3 }, requeue(50)), { ...resting, returnMillis: 1_050 }],
    ["to return, added meanwhile", end(again, requeue(50)), { ...ready, returnMillis: 1_050 }],
    ["to return: at once", end(working, requeue(0)), { ...resting, returnMillis: 1_000 }],
    ["to return: what is no number", end(working, requeue(Number.NaN)), { ...resting, returnMillis: 1_000 }],
    ["to return: never", end(working, requeue(Number.POSITIVE_INFINITY)), resting],
    ["failed", end(working, FAILED), { ...resting, failures: 1, waits: 1, returnMillis: 1_500 }],
    [
      "failed again",
      end({ ...working, failures: 2, waits: 2 }, FAILED),
      { ...resting, failures: 3, waits: 3, returnMillis: 3_000 }
    ],
    ["failed, added meanwhile: at once", end(again, FAILED), { ...ready, failures: 1, waits: 1, returnMillis: 1_500 }],
    [
      "interrupted: ready, and no failure",
      end({ ...working, failures: 2, wishMillis: 5_000 }, { _tag: "Interrupted" }),
      { ...ready, failures: 2, wishMillis: 5_000 }
    ],
    [
      "forgotten",
      forgotten({ ...resting, failures: 2, waits: 2, returnMillis: 1_500 }),
      { ...resting, returnMillis: 1_500 }
    ],
    ["forgotten, nothing to forget", forgotten(ready), ready]
  ])("%s", (_, key, expected) => assert.deepStrictEqual(key, expected))

  it.each<readonly [name: string, key: QueuedKey, expected: boolean]>([
    ["nothing", UNKNOWN, true],
    ["ready", ready, false],
    ["worked on", working, false],
    ["a wish", { ...resting, wishMillis: 1 }, false],
    ["a resync", { ...resting, returnMillis: 1 }, false],
    ["failures", { ...resting, failures: 1 }, false]
  ])("need not be remembered: %s", (_, key, expected) => assert.strictEqual(isUnknown(key), expected))

  it.each([
    { failures: 1, random: 0.5, expected: 500 },
    { failures: 1, random: 0, expected: 400 },
    { failures: 1, random: 1, expected: 600 },
    { failures: 2, random: 0.5, expected: 1_000 },
    { failures: 10, random: 0.5, expected: 256_000 },
    { failures: 11, random: 0.5, expected: 300_000 },
    { failures: 11, random: 1, expected: 360_000 },
    { failures: 5_000, random: 0, expected: 240_000 }
  ])("waits $expected ms after $failures failures, chance $random", ({ expected, failures, random }) =>
    assert.strictEqual(backoffMillis(reconcileBackoff, failures, random), expected)
  )
})

describe("agenda", () => {
  const drained = (times: ReturnType<typeof agenda>) => {
    const seen: Array<string> = []
    for (let first = times.first(); first !== undefined; first = times.first()) {
      seen.push(`${first.key}@${first.millis}`)
      times.delete(first.key)
    }
    return seen
  }

  it("the earliest first, and of two the one that was set first", () => {
    const times = agenda()
    for (const [key, millis] of [
      ["c", 3],
      ["a", 1],
      ["b", 3],
      ["d", 2]
    ] as const)
      times.set(key, millis)
    assert.deepStrictEqual(drained(times), ["a@1", "d@2", "c@3", "b@3"])
  })

  it("a key has one time, and may have none", () => {
    const times = agenda()
    for (const [key, millis] of [
      ["a", 1],
      ["b", 2],
      ["a", 3],
      ["b", 2],
      ["c", 0]
    ] as const)
      times.set(key, millis)
    times.delete("c")
    times.delete("unknown")
    assert.strictEqual(times.size(), 2)
    assert.deepStrictEqual(drained(times), ["b@2", "a@3"])
    assert.strictEqual(times.size(), 0)
  })

  it.effect("as a plain list would", () =>
    Effect.gen(function* () {
      const times = agenda()
      const model = new Map<string, number>()
      for (let step = 0; step < 3_000; step++) {
        const key = `k${yield* Random.nextIntBetween(0, 40)}`
        const millis = yield* Random.nextIntBetween(0, 20)
        if (millis < 5) {
          times.delete(key)
          model.delete(key)
        } else {
          times.set(key, millis)
          model.set(key, millis)
        }
        const earliest = model.size === 0 ? undefined : Math.min(...model.values())
        assert.strictEqual(times.first()?.millis, earliest)
        assert.strictEqual(times.size(), model.size)
      }
    })
  )
})

/** A queue with workers, what they began when, and what they answer. */
const world = <A, E>(
  body: (it: {
    readonly queue: WorkQueue.WorkQueue
    readonly begun: ReadonlyArray<string>
    /** Forgets what was begun until now. */
    readonly clear: () => void
    readonly doing: (next: (key: string) => Effect.Effect<Result>) => void
    readonly workers: Fiber.Fiber<unknown>
  }) => Effect.Effect<A, E>,
  workers = 2
) =>
  Effect.gen(function* () {
    const queue = yield* WorkQueue.make({ backoff: steady })
    const begun: Array<string> = []
    let act: (key: string) => Effect.Effect<Result> = () => Effect.succeed(DONE)
    const handle = Effect.fnUntraced(function* (key: string) {
      begun.push(`${key}@${yield* Clock.currentTimeMillis}`)
      return yield* act(key)
    })
    const worker = Effect.repeat(queue.work(handle), { while: (isOpen) => isOpen })
    const fiber = yield* Effect.forkScoped(
      Effect.forEach(Array.from({ length: workers }), () => worker, { concurrency: workers, discard: true })
    )
    yield* settle
    const doing = (next: typeof act) => {
      act = next
    }
    const clear = () => {
      begun.length = 0
    }
    return yield* body({ queue, begun, clear, doing, workers: fiber })
  })

/** Lets everything happen that needs no time. */
const settle = TestClock.adjust(0)

/** In steps: what is set in the middle of one step is not seen before its end. */
const pass = (millis: number) =>
  Effect.gen(function* () {
    for (let passed = 0; passed < millis; passed += 50) yield* TestClock.adjust(Math.min(50, millis - passed))
  })

const counts = (queue: WorkQueue.WorkQueue) => [queue.length(), queue.delayed(), queue.working(), queue.known()]
const EMPTY = [0, 0, 0, 0]

describe("keys and workers", () => {
  it.effect("a key that is added many times is worked on once", () =>
    world(({ begun, queue }) =>
      Effect.gen(function* () {
        for (let n = 0; n < 10; n++) queue.add("a")
        assert.deepStrictEqual(counts(queue), [1, 0, 0, 1])
        yield* settle
        assert.deepStrictEqual(begun, ["a@0"])
        assert.deepStrictEqual(counts(queue), EMPTY)
      })
    )
  )

  it.effect("what is added while it is worked on is worked on again, afterwards and once", () =>
    world(({ begun, doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.as(Effect.sleep(10), DONE))
        queue.add("a")
        yield* TestClock.adjust(5)
        for (let n = 0; n < 3; n++) queue.add("a")
        yield* settle
        assert.deepStrictEqual(counts(queue), [0, 0, 1, 1])
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(begun, ["a@0", "a@10"])
        assert.deepStrictEqual(counts(queue), EMPTY)
      })
    )
  )

  it.effect("first come, first served; an added again does not move", () =>
    world(
      ({ begun, doing, queue }) =>
        Effect.gen(function* () {
          doing(() => Effect.as(Effect.sleep(1), DONE))
          for (const key of ["a", "b", "c", "b", "a", "d"]) queue.add(key)
          yield* TestClock.adjust(1)
          // It comes after those that wait.
          queue.add("a")
          yield* TestClock.adjust(10)
          assert.deepStrictEqual(begun, ["a@0", "b@1", "c@2", "d@3", "a@4"])
        }),
      1
    )
  )

  it.effect("all workers are woken by one change after the other", () =>
    world(
      ({ begun, doing, queue }) =>
        Effect.gen(function* () {
          doing(() => Effect.never)
          for (const key of ["a", "b", "c", "d", "e"]) queue.add(key)
          yield* settle
          assert.strictEqual(begun.length, 4)
          assert.deepStrictEqual(counts(queue), [1, 0, 4, 5])
        }),
      4
    )
  )

  it.effect("whoever is woken and leaves does not take the news along", () =>
    Effect.gen(function* () {
      const queue = yield* WorkQueue.make()
      const begun: Array<string> = []
      const work = queue.work((key) => Effect.sync(() => begun.push(key)).pipe(Effect.as(DONE)))
      const first = yield* Effect.forkChild(work, { startImmediately: true })
      yield* Effect.forkChild(work, { startImmediately: true })
      queue.add("a")
      yield* Effect.yieldNow
      first.interruptUnsafe()
      yield* settle
      assert.deepStrictEqual(begun, ["a"])
    })
  )

  it.effect("a handle that throws, dies or is interrupted gives its key back", () =>
    Effect.gen(function* () {
      const queue = yield* WorkQueue.make({ backoff: steady })
      queue.add("a")
      yield* Effect.exit(
        queue.work((): Effect.Effect<Result> => {
          throw new Error("bug")
        })
      )
      assert.strictEqual(queue.failures("a"), 1)
      assert.deepStrictEqual(counts(queue), [0, 1, 0, 1])
      queue.add("a")
      yield* Effect.exit(queue.work(() => Effect.die("bug")))
      assert.strictEqual(queue.failures("a"), 2)
      assert.deepStrictEqual(counts(queue), [0, 1, 0, 1])
      queue.add("a")
      const worker = yield* Effect.forkChild(
        queue.work(() => Effect.never),
        { startImmediately: true }
      )
      assert.deepStrictEqual(counts(queue), [0, 0, 1, 1])
      yield* Fiber.interrupt(worker)
      assert.strictEqual(queue.failures("a"), 2)
      assert.deepStrictEqual(counts(queue), [1, 0, 0, 1])
    })
  )
})

describe("times", () => {
  it.effect("never early, and not late when a worker is free", () =>
    world(({ begun, queue }) =>
      Effect.gen(function* () {
        queue.addAfter("b", 20)
        queue.addAfter("a", 10)
        queue.addAfter("c", 30)
        assert.deepStrictEqual(counts(queue), [0, 3, 0, 3])
        yield* TestClock.adjust(9)
        assert.deepStrictEqual(begun, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(begun, ["a@10"])
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(begun, ["a@10", "b@20", "c@30"])
        assert.deepStrictEqual(counts(queue), EMPTY)
      })
    )
  )

  it.effect("the earliest of all wishes counts, whatever came first", () =>
    world(({ begun, queue }) =>
      Effect.gen(function* () {
        queue.addAfter("a", 1_000)
        yield* TestClock.adjust(1)
        queue.addAfter("a", 10)
        queue.addAfter("a", 500)
        yield* TestClock.adjust(10_000)
        assert.deepStrictEqual(begun, ["a@11"])
        assert.deepStrictEqual(counts(queue), EMPTY)
      })
    )
  )

  it.effect("an add does not take a wish of others away", () =>
    world(({ begun, queue }) =>
      Effect.gen(function* () {
        queue.addAfter("a", 100)
        queue.add("a")
        yield* TestClock.adjust(1_000)
        assert.deepStrictEqual(begun, ["a@0", "a@100"])
        assert.deepStrictEqual(counts(queue), EMPTY)
      })
    )
  )

  it.effect("a wish that becomes due while its key waits costs no second turn", () =>
    world(
      ({ begun, doing, queue }) =>
        Effect.gen(function* () {
          doing((key) => Effect.as(key === "slow" ? Effect.sleep(100) : Effect.void, DONE))
          queue.add("slow")
          yield* settle
          queue.add("a")
          queue.addAfter("a", 50)
          yield* TestClock.adjust(1_000)
          assert.deepStrictEqual(begun, ["slow@0", "a@100"])
        }),
      1
    )
  )

  it.effect("a wish that becomes due while its key is worked on is met afterwards", () =>
    world(({ begun, doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.as(Effect.sleep(100), DONE))
        queue.add("a")
        queue.addAfter("a", 50)
        yield* TestClock.adjust(1_000)
        assert.deepStrictEqual(begun, ["a@0", "a@100"])
      })
    )
  )

  it.effect("a resync is moved by whatever is done before, and is not lost", () =>
    world(({ begun, doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.succeed(requeue(300)))
        queue.add("a")
        yield* TestClock.adjust(100)
        queue.add("a")
        yield* pass(650)
        assert.deepStrictEqual(begun, ["a@0", "a@100", "a@400", "a@700"])
        assert.deepStrictEqual(counts(queue), [0, 1, 0, 1])
      })
    )
  )

  it.effect("a fraction of a millisecond is waited for to its end", () =>
    world(({ begun, queue }) =>
      Effect.gen(function* () {
        queue.addAfter("a", 0.25)
        yield* settle
        assert.deepStrictEqual(begun, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(begun, ["a@1"])
      })
    )
  )

  it.effect("one fiber waits for all times", () =>
    Effect.gen(function* () {
      const queue = yield* WorkQueue.make()
      yield* settle
      for (let n = 0; n < 10_000; n++) queue.addAfter(`key ${(n * 7_919) % 10_000}`, 1_000 + n)
      yield* TestClock.adjust(999)
      assert.deepStrictEqual(counts(queue), [0, 10_000, 0, 10_000])
      yield* TestClock.adjust(5_001)
      assert.deepStrictEqual(counts(queue), [5_001, 4_999, 0, 10_000])
      yield* TestClock.adjust(10_000)
      assert.deepStrictEqual(counts(queue), [10_000, 0, 0, 10_000])
    })
  )
})

describe("failures", () => {
  it.effect("are tried again later and later, and a success forgets them", () =>
    world(({ begun, clear, doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.succeed(FAILED))
        queue.add("a")
        yield* pass(7_600)
        assert.deepStrictEqual(begun, ["a@0", "a@500", "a@1500", "a@3500", "a@7500"])
        assert.strictEqual(queue.failures("a"), 5)
        doing(() => Effect.succeed(DONE))
        yield* pass(8_000)
        assert.strictEqual(begun.length, 6)
        assert.deepStrictEqual(counts(queue), EMPTY)
        clear()
        doing(() => Effect.succeed(FAILED))
        queue.add("a")
        yield* pass(600)
        assert.deepStrictEqual(begun, ["a@15600", "a@16100"])
      })
    )
  )

  it.effect("of one key do not hold up another, nor an add", () =>
    world(({ begun, doing, queue }) =>
      Effect.gen(function* () {
        doing((key) => Effect.succeed(key === "a" ? FAILED : DONE))
        queue.add("a")
        yield* TestClock.adjust(10)
        queue.add("b")
        queue.add("a")
        yield* pass(490)
        // The try after the first failure is not made as well.
        assert.deepStrictEqual(begun, ["a@0", "b@10", "a@10"])
        yield* pass(10)
        assert.deepStrictEqual(begun, ["a@0", "b@10", "a@10", "a@510"])
      })
    )
  )

  it.effect("that much news brings on before their time do not put off the next try", () =>
    world(({ begun, clear, doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.succeed(FAILED))
        for (let news = 0; news < 10; news++) {
          queue.add("a")
          yield* TestClock.adjust(100)
        }
        assert.strictEqual(begun.length, 10)
        assert.strictEqual(queue.failures("a"), 10)
        clear()
        yield* pass(1_400)
        // The last of them was at 900; after it as after the first failure.
        assert.deepStrictEqual(begun, ["a@1400", "a@2400"])
      })
    )
  )

  it.effect("that are forgotten begin anew", () =>
    world(({ begun, doing, queue }) =>
      Effect.gen(function* () {
        doing(() => Effect.succeed(FAILED))
        queue.add("a")
        yield* pass(1_600)
        assert.strictEqual(queue.failures("a"), 3)
        queue.forget("a")
        queue.forget("unknown")
        assert.strictEqual(queue.failures("a"), 0)
        assert.strictEqual(queue.known(), 1)
        yield* pass(2_500)
        assert.deepStrictEqual(begun, ["a@0", "a@500", "a@1500", "a@3500", "a@4000"])
      })
    )
  )
})

describe("the end of the scope", () => {
  it.effect("ends those who wait, forgets what is delayed, and lets a worker finish", () =>
    Effect.gen(function* () {
      const closing = yield* Deferred.make<void>()
      const opened = yield* Deferred.make<WorkQueue.WorkQueue>()
      const scope = yield* Effect.forkChild(
        Effect.scoped(
          Effect.gen(function* () {
            yield* Deferred.succeed(opened, yield* WorkQueue.make())
            yield* Deferred.await(closing)
          })
        )
      )
      const queue = yield* Deferred.await(opened)
      const busy = yield* Effect.forkChild(queue.work(() => Effect.as(Effect.sleep(50), FAILED)))
      queue.add("busy")
      yield* settle
      const waiting = yield* Effect.forkChild(
        Effect.all([queue.work(() => Effect.never), queue.work(() => Effect.never)], { concurrency: 2 })
      )
      queue.addAfter("late", 1_000)
      queue.add("busy")
      yield* settle
      assert.deepStrictEqual(counts(queue), [0, 1, 1, 2])
      yield* Deferred.succeed(closing, undefined)
      yield* Fiber.join(scope)
      assert.deepStrictEqual(yield* Fiber.join(waiting), [false, false])
      assert.deepStrictEqual(counts(queue), [0, 0, 1, 1])
      queue.add("more")
      queue.addAfter("more", 1)
      yield* TestClock.adjust(50)
      assert.isTrue(yield* Fiber.join(busy))
      assert.deepStrictEqual(counts(queue), EMPTY)
      assert.isFalse(yield* queue.work(() => Effect.never))
    })
  )
})
