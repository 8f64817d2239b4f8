import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { NOTHING_ASKED } from "../../schemas/ForceRefresh.ts"
import * as Refresher from "../../src/volume/Refresher.ts"
import { afterSuccess, begin, type Interval, withTokens } from "../../src/volume/Rotation.ts"
import type { VolumeRecord } from "../../src/volume/VolumeRecord.ts"
import { VolumeTable } from "../../src/volume/VolumeTable.ts"
import { request } from "../support/FakeNode.ts"

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const every = (millis: number): Interval => ({ _tag: "Every", millis })

const volume = (targetPath: string, interval: Interval, provider = "vault"): VolumeRecord => ({
  volumeId: `id of ${targetPath}`,
  targetPath,
  pod: { name: "web", namespace: "default", uid: "uid-1", serviceAccountName: "default" },
  secretProviderClassName: "spc",
  provider,
  request,
  objectVersions: [],
  lastSuccessMillis: 0,
  schedule: begin(interval, targetPath, 0),
  podStatusName: undefined,
  honoured: NOTHING_ASKED,
  wanted: NOTHING_ASKED,
  classUsed: undefined,
  classSeen: undefined,
  classGone: false,
  failure: undefined
})

/** Due exactly then. */
const dueAt = (record: VolumeRecord, dueMillis: number): VolumeRecord => ({
  ...record,
  schedule: { ...record.schedule, dueMillis }
})

/** A table, and what is refreshed when. */
const world = <A, E>(
  body: (it: {
    readonly table: VolumeTable["Service"]
    readonly refreshed: ReadonlyArray<readonly [string, number]>
    /** Replaces what a refresh does before it succeeds. */
    readonly doing: (next: (record: VolumeRecord) => Effect.Effect<void>) => void
    readonly clock: Fiber.Fiber<never>
  }) => Effect.Effect<A, E>
) =>
  Effect.gen(function* () {
    const table = yield* VolumeTable
    const refreshed: Array<readonly [string, number]> = []
    let act: (record: VolumeRecord) => Effect.Effect<void> = () => Effect.void
    const refresh = Effect.fnUntraced(function* (record: VolumeRecord) {
      refreshed.push([record.targetPath, yield* Clock.currentTimeMillis])
      yield* act(record)
      const now = yield* Clock.currentTimeMillis
      if (table.get(record.targetPath) !== undefined) {
        table.set({ ...record, lastSuccessMillis: now, schedule: afterSuccess(record.schedule.interval, now) })
      }
    })
    const clock = yield* Effect.forkChild(Refresher.run(refresh), { startImmediately: true })
    const doing = (next: typeof act) => {
      act = next
    }
    return yield* body({ table, refreshed, doing, clock })
  }).pipe(Effect.provide(VolumeTable.layer))

describe("work in the background of a volume", () => {
  const inTable = <A, E>(body: (table: VolumeTable["Service"]) => Effect.Effect<A, E>) =>
    Effect.flatMap(VolumeTable, body).pipe(Effect.provide(VolumeTable.layer))

  it.effect("gives way to a call at once, even to one that comes before it has begun", () =>
    inTable((table) =>
      Effect.gen(function* () {
        const background = yield* Effect.forkChild(table.inBackground("/a", Effect.never), { startImmediately: true })
        assert.strictEqual(yield* table.exclusive("/a", Effect.succeed("call")), "call")
        yield* Fiber.await(background)
        assert.strictEqual(table.busy(), 0)
      })
    )
  )

  it.effect("is not begun while a call is there", () =>
    inTable((table) =>
      Effect.gen(function* () {
        const calling = yield* Effect.forkChild(table.exclusive("/a", Effect.never), { startImmediately: true })
        let begun = false
        yield* table.inBackground(
          "/a",
          Effect.sync(() => {
            begun = true
          })
        )
        assert.isFalse(begun)
        yield* Fiber.interrupt(calling)
        assert.strictEqual(table.busy(), 0)
      })
    )
  )
})

describe("Refresher", () => {
  it.effect("110 volumes, 48 hours, intervals of 2 minutes, an hour and a day: elapsed/interval ± 1 each", () =>
    world(({ refreshed, table }) =>
      Effect.gen(function* () {
        const intervals = [2 * MINUTE, HOUR, 24 * HOUR] as const
        for (let index = 0; index < 110; index++) table.set(volume(`/pods/${index}`, every(intervals[index % 3]!)))
        yield* TestClock.adjust(48 * HOUR)
        const counts = new Map<string, number>()
        for (const [path] of refreshed) counts.set(path, (counts.get(path) ?? 0) + 1)
        for (let index = 0; index < 110; index++) {
          const expected = (48 * HOUR) / intervals[index % 3]!
          const count = counts.get(`/pods/${index}`) ?? 0
          assert.isAtMost(Math.abs(count - expected), 1, `volume ${index}: ${count} of ${expected}`)
        }
      })
    )
  )

  it.effect("at its due time, and not before", () =>
    world(({ refreshed, table }) =>
      Effect.gen(function* () {
        table.set(dueAt(volume("/a", every(MINUTE)), 90_000))
        yield* TestClock.adjust(89_999)
        assert.deepStrictEqual(refreshed, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(refreshed, [["/a", 90_000]])
      })
    )
  )

  it.effect("a volume that becomes due earlier wakes it from a longer sleep", () =>
    world(({ refreshed, table }) =>
      Effect.gen(function* () {
        table.set(dueAt(volume("/a", every(HOUR)), HOUR))
        yield* TestClock.adjust(1_000)
        table.set(dueAt(volume("/b", every(HOUR)), 5_000))
        table.set(dueAt(volume("/a", every(HOUR)), 2_000))
        yield* TestClock.adjust(10_000)
        assert.deepStrictEqual(refreshed, [
          ["/a", 2_000],
          ["/b", 5_000]
        ])
      })
    )
  )

  it.effect("a frozen volume is never refreshed, until its schedule says otherwise", () =>
    world(({ refreshed, table }) =>
      Effect.gen(function* () {
        table.set(volume("/a", { _tag: "Frozen" }))
        yield* TestClock.adjust(1_000 * HOUR)
        assert.deepStrictEqual(refreshed, [])
        const now = yield* Clock.currentTimeMillis
        table.set(dueAt(volume("/a", { _tag: "Frozen" }), now))
        yield* TestClock.adjust(1)
        assert.strictEqual(refreshed.length, 1)
      })
    )
  )

  it.effect("a volume that waits for tokens is woken by them, and by nothing else", () =>
    world(({ refreshed, table }) =>
      Effect.gen(function* () {
        const record = dueAt(volume("/a", every(MINUTE)), 1_000)
        table.set({ ...record, schedule: withTokens(record.schedule, true) })
        yield* TestClock.adjust(HOUR)
        assert.deepStrictEqual(refreshed, [])
        table.set(record)
        yield* TestClock.adjust(1)
        assert.strictEqual(refreshed.length, 1)
      })
    )
  )

  it.effect("one refresh of a volume at a time, however late it is", () =>
    world(({ doing, refreshed, table }) =>
      Effect.gen(function* () {
        let active = 0
        let most = 0
        doing(() =>
          Effect.gen(function* () {
            active += 1
            most = Math.max(most, active)
            yield* Effect.sleep(10_000)
            active -= 1
          })
        )
        const record = volume("/a", every(1_000))
        table.set(record)
        yield* TestClock.adjust(5_000)
        // A republish that hands over credentials puts it in again while it is being refreshed.
        table.set(dueAt(record, 0))
        yield* TestClock.adjust(60_000)
        assert.strictEqual(most, 1)
        assert.isAtLeast(refreshed.length, 5)
      })
    )
  )

  it.effect("a refresh that leaves the volume due is no endless loop", () =>
    Effect.gen(function* () {
      const table = yield* VolumeTable
      let times = 0
      yield* Effect.forkChild(
        Refresher.run(() =>
          Effect.sync(() => {
            times += 1
          })
        ),
        { startImmediately: true }
      )
      table.set(dueAt(volume("/a", every(MINUTE)), 0))
      yield* TestClock.adjust(10_500)
      // Four a second, which is the rest after each.
      assert.isAtMost(times, 43)
      assert.isAtLeast(times, 40)
    }).pipe(Effect.provide(VolumeTable.layer))
  )

  it.effect("its end ends the refreshes under way", () =>
    world(({ clock, doing, table }) =>
      Effect.gen(function* () {
        let undone = false
        doing(() =>
          Effect.onInterrupt(Effect.never, () =>
            Effect.sync(() => {
              undone = true
            })
          )
        )
        table.set(dueAt(volume("/a", every(MINUTE)), 0))
        yield* TestClock.adjust(1)
        yield* Fiber.interrupt(clock)
        assert.isTrue(undone)
      })
    )
  )
})
