/**
 * The clock of rotation: sleeps until the earliest volume is due, and has it refreshed.
 *
 * One fiber for all volumes, not a timer each. A volume is refreshed by one fiber at a time; a provider is asked for a
 * few volumes at a time, so that many due at once are no burst, and one that hangs holds up nobody else's.
 */
import { Clock, Effect, FiberSet, Queue, Semaphore } from "effect"
import { isDue } from "./Rotation.ts"
import type { VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** Refreshes of one provider at a time. */
const LANES = 4
/** A volume rests this long after a refresh, whatever has become of its schedule. */
const REST_MILLIS = 1_000

/**
 * Runs for ever. `refresh` gets the volume as it is when its turn has come, and leaves a later schedule in the table; it
 * is not called for a volume that is gone or not due any more by then. What is under way ends with the caller's scope.
 *
 * @shape  (refresh) -> never
 * @errors none: a failed refresh is the business of `refresh`
 */
export const run = Effect.fnUntraced(function* <R>(refresh: (record: VolumeRecord) => Effect.Effect<void, never, R>) {
  const table = yield* VolumeTable
  const fibers = yield* FiberSet.make<void, never>()
  const bell = yield* Queue.sliding<void>(1)
  const busy = new Set<string>()
  const lanes = new Map<string, Semaphore.Semaphore>()
  const laneOf = (provider: string) => {
    const lane = lanes.get(provider) ?? Semaphore.makeUnsafe(LANES)
    lanes.set(provider, lane)
    return lane
  }

  const turn = (targetPath: string) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const record = table.get(targetPath)
      return record === undefined || !isDue(record.schedule, now) ? Effect.void : refresh(record)
    })
  const begin = ({ provider, targetPath }: VolumeRecord) => {
    busy.add(targetPath)
    const whole = laneOf(provider)
      .withPermits(1)(turn(targetPath))
      .pipe(
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
        .reduce((earliest, { schedule }) => Math.min(earliest, schedule.dueMillis), Number.POSITIVE_INFINITY)
      yield* Effect.raceAllFirst([
        Number.isFinite(next) ? Effect.sleep(next - now) : Effect.never,
        table.untilEarlier(next),
        Queue.take(bell)
      ])
    })
  )
}, Effect.scoped)
