import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Random, Schedule } from "effect"
import {
  conflictRetry,
  eventRetry,
  leaseAcquisition,
  leaseRelease,
  leaseRenewal,
  observationRetry,
  providerRetry,
  watchReconnect
} from "../../src/reconciler/Schedules.ts"

/** The delays of a schedule in milliseconds, at most `limit` of them, when chance always says the same. */
const delays = (schedule: Schedule.Schedule<unknown, unknown>, chance: number, limit = 20) =>
  Effect.gen(function* () {
    const step = yield* Schedule.toStep(schedule)
    const seen: Array<number> = []
    while (seen.length < limit) {
      const exit = yield* Effect.exit(step(0, undefined))
      if (Exit.isFailure(exit)) {
        assert.isTrue(exit.cause.reasons.every((reason) => Cause.isFailReason(reason)))
        break
      }
      seen.push(Math.round(Duration.toMillis(exit.value[1]) * 100) / 100)
    }
    return seen
  }).pipe(Effect.provideService(Random.Random, { nextDoubleUnsafe: () => chance, nextIntUnsafe: () => 0 }))

describe("schedules", () => {
  it.effect.each([
    { row: "3.2", name: "providerRetry", schedule: providerRetry, chance: 0.5, expected: [1_000, 1_100] },
    { row: "3.2", name: "providerRetry, 20 % less", schedule: providerRetry, chance: 0, expected: [800, 880] },
    { row: "3.2", name: "providerRetry, 20 % more", schedule: providerRetry, chance: 1, expected: [1_200, 1_320] },
    { row: "e.2", name: "conflictRetry", schedule: conflictRetry, chance: 0.5, expected: [10, 20, 40, 80] },
    { row: "8.3", name: "eventRetry", schedule: eventRetry, chance: 0.5, expected: [500, 1_000] },
    { row: "Q26", name: "observationRetry", schedule: observationRetry, chance: 0.5, expected: [100, 200] },
    { row: "1.6", name: "leaseRelease", schedule: leaseRelease, chance: 0.5, expected: [500, 1_000] },
    ...[
      { chance: 0, expected: 26_000 },
      { chance: 0.5, expected: 41_600 },
      { chance: 1, expected: 57_200 }
    ].map(({ chance, expected }) => ({
      row: "1.6",
      name: `leaseAcquisition, chance ${chance}`,
      schedule: leaseAcquisition(26_000),
      chance,
      expected: Array.from({ length: 20 }, () => expected)
    })),
    {
      row: "1.6",
      name: "leaseRenewal",
      schedule: leaseRenewal(26_000),
      chance: 0.9,
      expected: Array.from({ length: 20 }, () => 26_000)
    },
    {
      row: "design",
      name: "watchReconnect",
      schedule: watchReconnect,
      chance: 0.5,
      expected: [500, 1_000, 2_000, 4_000, 8_000, 16_000, ...Array.from({ length: 14 }, () => 30_000)]
    }
  ])("$row $name", ({ schedule, chance, expected }) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* delays(schedule, chance), expected)
    })
  )

  it.effect("watchReconnect is still there after months", () =>
    Effect.gen(function* () {
      const seen = yield* delays(watchReconnect, 0.5, 5_000)
      assert.strictEqual(seen.at(-1), 30_000)
    })
  )
})
