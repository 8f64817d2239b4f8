import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Held from "../../src/reconciler/Held.ts"

describe("what is held while it is wanted", () => {
  const world = Effect.gen(function* () {
    const log: Array<string> = []
    const held = yield* Held.make((key) =>
      Effect.acquireRelease(
        Effect.andThen(
          Effect.yieldNow,
          Effect.sync(() => {
            log.push(`open ${key}`)
            return `value of ${key}`
          })
        ),
        () => Effect.sync(() => void log.push(`close ${key}`))
      )
    )
    return { held, log }
  })

  it.effect("is opened once, closed when it is not wanted any more, and opened again", () =>
    Effect.gen(function* () {
      const { held, log } = yield* world
      yield* held.keep(new Set(["a", "b"]))
      yield* held.keep(new Set(["a", "b"]))
      assert.strictEqual(held.get("a"), "value of a")
      yield* held.keep(new Set(["b"]))
      assert.isUndefined(held.get("a"))
      yield* held.keep(new Set(["a", "b"]))
      assert.deepStrictEqual(log, ["open a", "open b", "close a", "open a"])
    })
  )

  it.effect("is opened once by many who want it at the same time", () =>
    Effect.gen(function* () {
      const { held, log } = yield* world
      yield* Effect.all(
        Array.from({ length: 5 }, () => held.keep(new Set(["a"]))),
        { concurrency: 5 }
      )
      assert.deepStrictEqual(log, ["open a"])
    })
  )

  it.effect("is closed with the scope", () =>
    Effect.gen(function* () {
      const log = yield* Effect.scoped(
        Effect.gen(function* () {
          const made = yield* world
          yield* made.held.keep(new Set(["a", "b"]))
          return made.log
        })
      )
      assert.sameMembers(log.slice(2), ["close a", "close b"])
    })
  )
})
