/**
 * The clock of rotation: sleeps until the earliest volume is due, and has it refreshed.
 *
 * One fiber for all volumes, not a timer each. A volume is refreshed by one fiber at a time; when a refresh may call its
 * provider is ProviderBudget's business.
 */
import { Clock, Effect, FiberSet, Queue } from "effect"
import { dueAt, isDue } from "./Rotation.ts"
import type { VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** A volume rests this long after a refresh, whatever has become of its schedule. */
const REST_MILLIS = 250
/** A clock with fractions may stand so little before a due time that no sleep is short enough for the rest. */
const SLEEP_MIN_MILLIS = 1

/**
 * Runs for ever. `refresh` gets a volume that is due, and leaves a later schedule in the table. What is under way ends
 * with the caller's scope.
 *
 * @shape  (refresh) -> never
 * @errors none: a failed refresh is the business of `refresh`
 */
export const run = Effect.fnUntraced(function* <R>(refresh: (record: VolumeRecord) => Effect.Effect<void, never, R>) {
  const table = yield* VolumeTable
  const fibers = yield* FiberSet.make<void, never>()
  const bell = yield* Queue.sliding<void>(1)
  const busy = new Set<string>()
  const begin = (record: VolumeRecord) => {
    const { targetPath } = record
    busy.add(targetPath)
    const whole = refresh(record).pipe(
      Effect.andThen(Effect.sleep(REST_MILLIS)),
      Effect.ensuring(
        Effect.sync(() => {
          busy.delete(targetPath)
          Queue.offerUnsafe(bell, undefined)
        })
      )
    )
    return FiberSet.run(fibers, whole)
  }

  return yield* Effect.forever(
    Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const idle = table.all().filter(({ targetPath }) => !busy.has(targetPath))
      yield* Effect.forEach(
        idle.filter(({ schedule }) => isDue(schedule, now)),
        begin,
        { discard: true }
      )
      const next = idle
        .filter(({ schedule }) => !isDue(schedule, now))
        .reduce((earliest, { schedule }) => Math.min(earliest, dueAt(schedule)), Number.POSITIVE_INFINITY)
      yield* Effect.raceAllFirst([
        Number.isFinite(next) ? Effect.sleep(Math.max(SLEEP_MIN_MILLIS, next - now)) : Effect.never,
        table.untilEarlier(next),
        Queue.take(bell)
      ])
    })
  )
}, Effect.scoped)
