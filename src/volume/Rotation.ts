/**
 * When a volume is refreshed: the thinking of rotation, without effects.
 *
 * The driver's own clock decides, not the kubelet's republish. A refresh that succeeds, also one that changes nothing,
 * sets the next one an interval later; one that fails is tried again sooner, and less and less often, but never later
 * than an interval.
 *
 * @source reference/defects.md D1; reference/driver.md 7.1, Q4
 */
import { Result } from "effect"
import { formatGoDuration, parseGoDuration } from "../../schemas/GoDuration.ts"

/** Volume attribute, and annotation of a SecretProviderClass: a Go duration, or "0" or "never". Upstream ignores it. */
export const INTERVAL_KEY = "secrets-store.csi.k8s.io/rotation-interval"

export type Interval = { readonly _tag: "Every"; readonly millis: number } | { readonly _tag: "Frozen" }

/** When a volume is due, and how it came to that. Milliseconds since the epoch. */
export interface Schedule {
  readonly interval: Interval
  /** Infinity: never by itself. */
  readonly dueMillis: number
  /** Refreshes that failed since the last success. */
  readonly failures: number
}

/** Shorter ones would be a load and no gain: a call to a provider takes some tenths of a second. */
const INTERVAL_MIN_MILLIS = 1_000
/** Volumes that were mounted together come apart by up to this share of their first interval. */
const SPREAD_SHARE = 0.1
const BACKOFF_FIRST_MILLIS = 5_000
const BACKOFF_FACTOR = 2
/** To either side. */
const JITTER_SHARE = 0.2
/** Nothing is waited for longer because a provider asks for it. */
const HINT_MAX_MILLIS = 3_600_000
const NANOS_PER_MILLI = 1_000_000n

const frozen: Interval = { _tag: "Frozen" }
const every = (millis: number): Interval => ({ _tag: "Every", millis: Math.max(INTERVAL_MIN_MILLIS, millis) })

/**
 * Reads an interval as users write it.
 *
 * @shape  (text) -> Every or Frozen
 * @units  a Go duration; less than a second is a second
 * @errors what is wrong with the text, and what to write
 */
export const parseInterval = (text: string): Result.Result<Interval, string> => {
  const word = text.trim()
  if (word.toLowerCase() === "never") return Result.succeed(frozen)
  const refused = Result.fail(
    `invalid ${INTERVAL_KEY} ${JSON.stringify(text)}: give a duration such as 90s, or "never"`
  )
  return Result.match(parseGoDuration(word), {
    onFailure: () => refused,
    onSuccess: (nanos) => {
      if (nanos < 0n) return refused
      return Result.succeed(nanos === 0n ? frozen : every(Number(nanos / NANOS_PER_MILLI)))
    }
  })
}

/** @shape (interval) -> "2m0s" or "never" */
export const formatInterval = (interval: Interval): string =>
  interval._tag === "Frozen" ? "never" : formatGoDuration(BigInt(Math.round(interval.millis)) * NANOS_PER_MILLI)

/**
 * The interval of one volume: frozen when the volume or its class says so, else the shorter of the two, else the
 * driver's. What cannot be read counts as not given, and is told.
 *
 * @shape  ({ driverMillis, volume, secretProviderClass }) -> { interval, complaints }
 */
export const intervalOf = (given: {
  readonly driverMillis: number
  readonly volume: string | undefined
  readonly secretProviderClass: string | undefined
}): { readonly interval: Interval; readonly complaints: ReadonlyArray<string> } => {
  const complaints: Array<string> = []
  const intervals: Array<Interval> = []
  const texts = [
    ["volume", given.volume],
    ["SecretProviderClass", given.secretProviderClass]
  ] as const
  for (const [whose, text] of texts) {
    if (text === undefined) continue
    Result.match(parseInterval(text), {
      onFailure: (complaint) => complaints.push(`${whose}: ${complaint}`),
      onSuccess: (interval) => intervals.push(interval)
    })
  }
  if (intervals.some(({ _tag }) => _tag === "Frozen")) return { interval: frozen, complaints }
  const millis = intervals.flatMap((interval) => (interval._tag === "Every" ? [interval.millis] : []))
  return { interval: every(millis.length === 0 ? given.driverMillis : Math.min(...millis)), complaints }
}

/** FNV-1a, as a share of all 32-bit numbers: the same text has the same share on every node and after every restart. */
const shareOf = (text: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  return (hash >>> 0) / 4_294_967_296
}

/**
 * After a first mount, or when a mounted volume is met after a restart, whose last change was at `lastSuccessMillis`.
 *
 * @shape  (interval, targetPath, lastSuccessMillis) -> Schedule, spread by the path's hash
 */
export const begin = (interval: Interval, targetPath: string, lastSuccessMillis: number): Schedule => ({
  interval,
  dueMillis:
    interval._tag === "Frozen"
      ? Number.POSITIVE_INFINITY
      : lastSuccessMillis + Math.round(interval.millis * (1 + SPREAD_SHARE * shareOf(targetPath))),
  failures: 0
})

/** @shape (interval, nowMillis) -> Schedule: due an interval from now, whether the content had changed or not */
export const afterSuccess = (interval: Interval, nowMillis: number): Schedule => ({
  interval,
  dueMillis: interval._tag === "Frozen" ? Number.POSITIVE_INFINITY : nowMillis + interval.millis,
  failures: 0
})

/**
 * After a refresh that failed: soon, then doubled with each failure, with jitter, at most an interval; later when the
 * provider asks for it. A frozen volume, whose refresh was asked for by hand, is not tried again by itself.
 *
 * @shape  (schedule, { nowMillis, random in [0, 1), hintMillis }) -> Schedule
 */
export const afterFailure = (
  schedule: Schedule,
  failed: { readonly nowMillis: number; readonly random: number; readonly hintMillis: number | undefined }
): Schedule => {
  const { interval } = schedule
  const failures = schedule.failures + 1
  if (interval._tag === "Frozen") return { interval, dueMillis: Number.POSITIVE_INFINITY, failures }
  const backoff = BACKOFF_FIRST_MILLIS * BACKOFF_FACTOR ** (failures - 1)
  const jittered = backoff * (1 - JITTER_SHARE + 2 * JITTER_SHARE * failed.random)
  const hint = Math.min(failed.hintMillis ?? 0, HINT_MAX_MILLIS)
  return {
    interval,
    dueMillis: failed.nowMillis + Math.max(hint, Math.round(Math.min(jittered, interval.millis))),
    failures
  }
}

/**
 * When the interval itself was changed, the last success counts from now on with the new one. A volume that is in
 * backoff is tried no later than it would have been, nor than the new interval.
 *
 * @shape  (schedule, interval, { lastSuccessMillis, nowMillis }) -> Schedule
 */
export const reschedule = (
  schedule: Schedule,
  interval: Interval,
  { lastSuccessMillis, nowMillis }: { readonly lastSuccessMillis: number; readonly nowMillis: number }
): Schedule => {
  if (sameInterval(schedule.interval, interval)) return schedule
  if (interval._tag === "Frozen") return { interval, dueMillis: Number.POSITIVE_INFINITY, failures: schedule.failures }
  const dueMillis =
    schedule.failures === 0
      ? lastSuccessMillis + interval.millis
      : Math.min(schedule.dueMillis, nowMillis + interval.millis)
  return { interval, dueMillis, failures: schedule.failures }
}

const sameInterval = (a: Interval, b: Interval): boolean =>
  a._tag === "Every" && b._tag === "Every" ? a.millis === b.millis : a._tag === b._tag

/** @shape (schedule, nowMillis) -> at its due time, and after it */
export const isDue = ({ dueMillis }: Pick<Schedule, "dueMillis">, nowMillis: number): boolean => dueMillis <= nowMillis
