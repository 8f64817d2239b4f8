import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { trimPeriodically } from "../../layers/real/MemoryTrim.ts"

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
