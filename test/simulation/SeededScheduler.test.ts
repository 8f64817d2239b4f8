/** What runs a simulation, by itself: time, interleavings that a seed decides, and programs that never end. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Random } from "effect"
import { Stuck, simulate } from "../../layers/fake/SeededScheduler.ts"
import { NodeClock } from "../../layers/fake/simulation/TimeFaults.ts"

const stuckOf = (program: Effect.Effect<unknown>, stepsMax?: number): Stuck => {
  try {
    simulate(program, { seed: 1, ...(stepsMax === undefined ? {} : { stepsMax }) })
  } catch (cause) {
    if (cause instanceof Stuck) return cause
    throw cause
  }
  return assert.fail("it ended")
}

/** Three fibers that say in which order they came to run. */
const race = Effect.gen(function* () {
  const order: Array<string> = []
  const say = (name: string) =>
    Effect.gen(function* () {
      for (let turn = 0; turn < 5; turn++) {
        order.push(`${name}${turn}`)
        yield* Effect.sleep(Math.floor((yield* Random.next) * 10))
      }
    })
  yield* Effect.all([say("a"), say("b"), say("c")], { concurrency: "unbounded" })
  return order.join(" ")
})

const orderOf = (seed: number): string => {
  const { exit } = simulate(race, { seed, preemption: 0.1 })
  return Exit.isSuccess(exit) ? exit.value : assert.fail("it failed")
}

describe("the seeded scheduler", () => {
  it("an hour passes at once", () => {
    const program = Effect.andThen(Effect.sleep("1 hour"), Clock.currentTimeMillis)
    const { exit, virtualMillis } = simulate(program, { seed: 1, startMillis: 5 })
    assert.deepStrictEqual(exit, Exit.succeed(3_600_005))
    assert.strictEqual(virtualMillis, 3_600_000)
  })

  it("whoever sleeps for next to nothing again and again comes to a later time, also on a node's clock", () => {
    const startMillis = Date.UTC(2026, 0, 1)
    const until = (clock: Clock.Clock) =>
      Effect.gen(function* () {
        const endMillis = clock.currentTimeMillisUnsafe() + 0.1
        while (clock.currentTimeMillisUnsafe() < endMillis) yield* clock.sleep(Duration.nanos(50n))
      })
    const program = Effect.gen(function* () {
      const world = yield* Clock.Clock
      yield* until(new NodeClock(world).clock)
      yield* until(world)
    })
    assert.isTrue(Exit.isSuccess(simulate(program, { seed: 1, startMillis }).exit))
  })

  it("one seed is one order, and of many seeds there are many", () => {
    assert.strictEqual(orderOf(7), orderOf(7))
    assert.isAbove(new Set(Array.from({ length: 20 }, (_, seed) => orderOf(seed))).size, 15)
  })

  it("nobody is ready, and nobody sleeps: a deadlock", () => {
    assert.strictEqual(stuckOf(Effect.never).kind, "deadlock")
  })

  it("busy for ever at one instant: a livelock, long before its steps are used up", () => {
    const { kind, steps } = stuckOf(Effect.forever(Effect.yieldNow), 1_000_000_000)
    assert.strictEqual(kind, "livelock")
    assert.isBelow(steps, 1_000_000)
  })

  it("busy for ever while time passes: a livelock when its steps are used up", () => {
    const { kind, steps } = stuckOf(Effect.forever(Effect.sleep("1 milli")), 10_000)
    assert.strictEqual(kind, "livelock")
    assert.isAbove(steps, 9_999)
  })
})
