import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Outage from "../../src/reconciler/Outage.ts"

const range = (length: number) => Array.from({ length }, (_, index) => `k${index}`)

/** Wishes, as "key in seconds". */
const world = <A, E>(body: (outage: Outage.Outage, wishes: () => ReadonlyArray<string>) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    let wishes: Array<string> = []
    const outage = yield* Outage.make({
      addAfter: (key, millis) => {
        wishes.push(`${key} in ${millis / 1_000}`)
      }
    })
    return yield* body(outage, () => {
      const made = wishes
      wishes = []
      return made
    })
  })

const failing = (outage: Outage.Outage, key: string) => {
  outage.begun(key)
  outage.unanswered(key)
}

describe("an API server that does not answer (L5)", () => {
  it.effect("one key is tried every half minute for all, and each in its turn", () =>
    world((outage, wishes) =>
      Effect.gen(function* () {
        for (const key of range(100)) failing(outage, key)
        // With their own waits they fail as well.
        for (const key of range(100)) failing(outage, key)
        assert.deepStrictEqual(wishes(), ["k0 in 30"])
        for (const turn of range(5).keys()) {
          yield* TestClock.adjust("30 seconds")
          failing(outage, `k${turn}`)
          assert.deepStrictEqual(wishes(), [`k${turn + 1} in 30`])
        }
        assert.strictEqual(outage.size(), 100)
      })
    )
  )

  it.effect("the first answer brings all of them back at once", () =>
    world((outage, wishes) =>
      Effect.sync(() => {
        for (const key of range(3)) failing(outage, key)
        wishes()
        outage.begun("k1")
        outage.answered()
        assert.deepStrictEqual(wishes(), ["k0 in 0", "k2 in 0"])
        assert.strictEqual(outage.size(), 0)
        outage.answered()
        assert.deepStrictEqual(wishes(), [])
      })
    )
  )

  it.effect("what fails whoever else is answered comes back every half minute", () =>
    world((outage, wishes) =>
      Effect.gen(function* () {
        failing(outage, "bad")
        outage.answered()
        assert.deepStrictEqual(wishes(), ["bad in 30", "bad in 0"])
        for (const _ of range(10)) {
          failing(outage, "bad")
          yield* TestClock.adjust("1 second")
          outage.answered()
        }
        const times = wishes().map((wish) => Number(wish.split(" in ")[1]))
        assert.deepStrictEqual(
          // When each of them is due, from the beginning.
          times.map((seconds, index) => seconds + index + 1),
          [30, 60, 90, 120, 150, 180, 210, 240, 270, 300]
        )
      })
    )
  )

  it.effect("a key that is answered, or is nobody's any more, is not waited for; another asks in its place", () =>
    world((outage, wishes) =>
      Effect.gen(function* () {
        failing(outage, "a")
        failing(outage, "b")
        assert.deepStrictEqual(wishes(), ["a in 30"])
        yield* TestClock.adjust("30 seconds")
        outage.begun("a")
        assert.deepStrictEqual(wishes(), ["b in 30"])
        assert.strictEqual(outage.size(), 1)
      })
    )
  )
})
