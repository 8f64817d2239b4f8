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
  /** What the clock said when this was decided. */
  readonly setMillis: number
  /** Refreshes that failed since the last success. */
  readonly failures: number
  /** Somebody asked for a refresh: it is tried until it succeeds, also when the volume is frozen. */
  readonly asked: boolean
  /** Its service account tokens have expired: it is not due before the kubelet hands over others. */
  readonly awaitsTokens: boolean
}

/** Shorter ones would be a load and no gain: a call to a provider takes some tenths of a second. */
const INTERVAL_MIN_MILLIS = 1_000
/** Volumes that were mounted together come apart by up to this share of their first interval; a tenth is promised. */
const SPREAD_SHARE = 0.08
const BACKOFF_FIRST_MILLIS = 5_000
const BACKOFF_FACTOR = 2
/** To either side. */
const JITTER_SHARE = 0.2
/** Nothing is waited for longer because a provider asks for it. */
const HINT_MAX_MILLIS = 3_600_000
/** A frozen volume has no interval to bound the backoff of a refresh that was asked for. */
const FROZEN_BACKOFF_MAX_MILLIS = 120_000
/** A clock that stands this much before a time that it has shown was set back; less than that is corrected by waiting. */
const CLOCK_STEP_MILLIS = 60_000
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
  setMillis: lastSuccessMillis,
  failures: 0,
  asked: false,
  awaitsTokens: false
})

/** @shape (interval, nowMillis) -> Schedule: due an interval from now, whether the content had changed or not */
export const afterSuccess = (interval: Interval, nowMillis: number): Schedule => ({
  interval,
  dueMillis: interval._tag === "Frozen" ? Number.POSITIVE_INFINITY : nowMillis + interval.millis,
  setMillis: nowMillis,
  failures: 0,
  asked: false,
  awaitsTokens: false
})

/**
 * After a refresh that failed: soon, then doubled with each failure, with jitter, at most an interval; later when the
 * provider asks for it. A frozen volume is tried again only while somebody's wish for a refresh is open.
 *
 * A provider that throttles is asked less and less by all of its volumes together (ProviderBudget), so that each takes
 * its place among those that wait soon.
 *
 * @shape  (schedule, { nowMillis, random in [0, 1), hintMillis, isThrottled }) -> Schedule
 */
export const afterFailure = (
  schedule: Schedule,
  failed: {
    readonly nowMillis: number
    readonly random: number
    readonly hintMillis: number | undefined
    readonly isThrottled: boolean
  }
): Schedule => {
  const { asked, interval } = schedule
  const failures = failed.isThrottled ? schedule.failures : schedule.failures + 1
  const setMillis = failed.nowMillis
  if (interval._tag === "Frozen" && !asked) {
    return { ...schedule, setMillis, dueMillis: Number.POSITIVE_INFINITY, failures }
  }
  const longest = interval._tag === "Frozen" ? FROZEN_BACKOFF_MAX_MILLIS : interval.millis
  const backoff = BACKOFF_FIRST_MILLIS * BACKOFF_FACTOR ** (failed.isThrottled ? 0 : failures - 1)
  const jittered = backoff * (1 - JITTER_SHARE + 2 * JITTER_SHARE * failed.random)
  const hint = Math.min(failed.hintMillis ?? 0, HINT_MAX_MILLIS)
  return {
    ...schedule,
    setMillis,
    dueMillis: failed.nowMillis + Math.max(hint, Math.round(Math.min(jittered, longest))),
    failures
  }
}

/** @shape (schedule, nowMillis) -> Schedule: due now, and again until it has succeeded */
export const askNow = (schedule: Schedule, nowMillis: number): Schedule => ({
  ...schedule,
  dueMillis: Math.min(schedule.dueMillis, nowMillis),
  asked: true
})

/** @shape (schedule, awaitsTokens) -> Schedule; when the tokens come, what was due before is due then */
export const withTokens = (schedule: Schedule, awaitsTokens: boolean): Schedule =>
  schedule.awaitsTokens === awaitsTokens ? schedule : { ...schedule, awaitsTokens }

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
  // What somebody asked for is not put off by a longer interval.
  if (schedule.asked) return { ...schedule, interval }
  if (interval._tag === "Frozen") return { ...schedule, interval, dueMillis: Number.POSITIVE_INFINITY }
  const dueMillis =
    schedule.failures === 0
      ? lastSuccessMillis + interval.millis
      : Math.min(schedule.dueMillis, nowMillis + interval.millis)
  return { ...schedule, interval, dueMillis }
}

const sameInterval = (a: Interval, b: Interval): boolean =>
  a._tag === "Every" && b._tag === "Every" ? a.millis === b.millis : a._tag === b._tag

/** @shape (schedule) -> when it is to be refreshed, in milliseconds since the epoch; Infinity: not by itself */
export const dueAt = ({ awaitsTokens, dueMillis }: Pick<Schedule, "dueMillis" | "awaitsTokens">): number =>
  awaitsTokens ? Number.POSITIVE_INFINITY : dueMillis

/**
 * @shape  (schedule, nowMillis) -> at its due time, and after it; also when the clock was set back since: how long it has
 *         really been is not known then
 */
export const isDue = (
  schedule: Pick<Schedule, "dueMillis" | "awaitsTokens" | "setMillis">,
  nowMillis: number
): boolean => {
  const due = dueAt(schedule)
  return due <= nowMillis || (Number.isFinite(due) && nowMillis < schedule.setMillis - CLOCK_STEP_MILLIS)
}
