import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { decide, trimPeriodically } from "../../layers/real/MemoryTrim.ts"

describe("memory trimming", () => {
  it.effect("is asked for after every interval, and survives both parts", () =>
    Effect.gen(function* () {
      let asked = 0
      const activity = Effect.sync(() => ++asked)
      yield* trimPeriodically({ intervalMillis: 1000, activity })
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(asked, 0)
      for (let round = 1; round <= 3; round++) {
        yield* TestClock.adjust("1 second")
        // Loading the collector and the allocator is asynchronous.
        yield* TestClock.withLive(Effect.sleep("100 millis"))
        assert.strictEqual(asked, round)
      }
    }).pipe(Effect.scoped)
  )

  it.each([
    { name: "a pause after the start", activities: [0, 0], trims: [false, true] },
    { name: "nothing since the last trim", activities: [0, 0, 0, 0], trims: [false, true, false, false] },
    {
      name: "not while it works, then in the pause",
      activities: [1, 2, 3, 3, 3],
      trims: [false, false, false, true, false]
    },
    { name: "work after a trim, then a pause", activities: [0, 0, 5, 5], trims: [false, true, false, true] },
    {
      name: "a driver that never pauses, at the twelfth interval",
      activities: Array.from({ length: 13 }, (_, index) => index),
      trims: Array.from({ length: 13 }, (_, index) => index === 11)
    }
  ])("decides: $name", ({ activities, trims }) => {
    let state: Parameters<typeof decide>[0] = { seen: undefined, trimmed: undefined, busyIntervals: 0 }
    const decided = activities.map((activity) => {
      const decision = decide(state, activity)
      state = decision.state
      return decision.trim
    })
    assert.deepStrictEqual(decided, trims)
  })

  it.effect("0 is never", () =>
    Effect.gen(function* () {
      let asked = 0
      yield* trimPeriodically({ intervalMillis: 0, activity: Effect.sync(() => ++asked) })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(asked, 0)
    }).pipe(Effect.scoped)
  )

  it.effect("ends with its scope", () =>
    Effect.gen(function* () {
      let asked = 0
      yield* Effect.scoped(trimPeriodically({ intervalMillis: 1000, activity: Effect.sync(() => ++asked) }))
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(asked, 0)
    })
  )
})
