/**
 * Who may call a provider now: the thinking of ProviderBudget, without effects. One state per provider.
 *
 * Pods that wait for their first mount come before refreshes that somebody asked for, and those before refreshes that
 * are due. A provider that throttles is left alone: after a while one call tries it, and only when that one is answered
 * the others follow, two at a time, then three, and so on. One class whose provider names a time to come back waits for
 * that time by itself, since other classes may ask for what other quotas pay for.
 *
 * @source reference/defects.md S11, L7; reference/driver.md 3.4
 */

/** A first mount, a refresh that was asked for, or one whose time has come. In this order. */
export type Kind = "Mount" | "Asked" | "Due"

const RANK: Readonly<Record<Kind, number>> = { Mount: 0, Asked: 1, Due: 2 }

export interface Limits {
  /** First mounts at a time; 0 is no limit. */
  readonly mountsMax: number
  /** Refreshes at a time, of both kinds; 0 is no limit. */
  readonly refreshesMax: number
  /** Refreshes that are due, a second; 0 is no limit. So many may also come at once after a pause. */
  readonly refreshesPerSecond: number
}

/** What a call has shown of its provider. */
export type Outcome =
  /** `retryAfterMillis`: how long the provider wants to be left alone with this class. */
  | { readonly _tag: "Throttled"; readonly retryAfterMillis: number | undefined }
  /** With files, or with an error that is not about too many calls. */
  | { readonly _tag: "Answered" }
  /** It was not reached, did not answer in time, or nobody waited for the answer. */
  | { readonly _tag: "Unknown" }

interface Throttle {
  /** Answers in a row that said so. */
  readonly times: number
  /** When one call may try again, in milliseconds of the same clock as all times here. */
  readonly openMillis: number
}

export interface State {
  readonly mounts: number
  readonly refreshes: number
  /** Undefined while the provider takes calls. */
  readonly throttle: Throttle | undefined
  /** Grows whenever the provider begins to throttle or stops: answers to older calls say nothing of the present. */
  readonly epoch: number
  /** Calls under way that have begun in this epoch. */
  readonly current: number
  /** How many of these at a time while the provider comes back; Infinity in ordinary times. */
  readonly window: number
  /** Refreshes that may begin now, with a fraction; as of `allowanceMillis`. */
  readonly allowance: number
  readonly allowanceMillis: number
  /** Classes whose provider wants them to wait, and until when. */
  readonly holds: ReadonlyMap<string, number>
}

export interface Waiter {
  readonly kind: Kind
  /** "namespace/name" of the class. */
  readonly className: string
}

export type Decision =
  | { readonly _tag: "Admit"; readonly index: number }
  /** Nobody before this time, in milliseconds of the same clock as all times here, unless a call ends. */
  | { readonly _tag: "Wait"; readonly untilMillis: number }
  /** Nobody before a call ends, or somebody else comes. */
  | { readonly _tag: "Idle" }

const PROBE_FIRST_MILLIS = 1_000
const PROBE_FACTOR = 2
/** Whatever a provider says, it is tried this often: pods wait for it. */
const PROBE_MAX_MILLIS = 30_000
/** To either side. */
const JITTER_SHARE = 0.2
const WINDOW_FIRST = 2
const HOLD_MAX_MILLIS = 3_600_000

/** @shape (limits, nowMillis) -> a provider of which nothing is known */
export const initial = (limits: Limits, nowMillis: number): State => ({
  mounts: 0,
  refreshes: 0,
  throttle: undefined,
  epoch: 0,
  current: 0,
  window: Number.POSITIVE_INFINITY,
  allowance: limits.refreshesPerSecond,
  allowanceMillis: nowMillis,
  holds: new Map()
})

const unlimited = (limit: number): number => (limit <= 0 ? Number.POSITIVE_INFINITY : limit)

const allowanceAt = (state: State, { refreshesPerSecond }: Limits, nowMillis: number): number =>
  Math.min(
    refreshesPerSecond,
    state.allowance + (Math.max(0, nowMillis - state.allowanceMillis) / 1_000) * refreshesPerSecond
  )

/** Fractions add up to a little less than they should. */
const ALMOST = 1 - 1e-6

/**
 * Decides who is let through next, if anybody.
 *
 * @shape  (state, waiters in the order of their arrival, limits, nowMillis) -> Decision
 * @units  milliseconds of a clock that is never set back; at a time itself waiting is over
 * @errors none: every state has a decision
 */
export const decide = (state: State, waiters: ReadonlyArray<Waiter>, limits: Limits, nowMillis: number): Decision => {
  const { current, holds, mounts, refreshes, throttle, window } = state
  let first = -1
  let heldUntil = Number.POSITIVE_INFINITY
  for (const [index, waiter] of waiters.entries()) {
    const until = holds.get(waiter.className) ?? 0
    if (until > nowMillis) heldUntil = Math.min(heldUntil, until)
    else if (first < 0 || RANK[waiter.kind] < RANK[waiters[first]?.kind ?? "Due"]) first = index
  }
  const waiter = waiters[first]
  if (waiter === undefined) {
    return Number.isFinite(heldUntil) ? { _tag: "Wait", untilMillis: heldUntil } : { _tag: "Idle" }
  }
  const later = (untilMillis: number): Decision => ({ _tag: "Wait", untilMillis: Math.min(untilMillis, heldUntil) })
  // Somebody of a higher rank may be held; whoever is first among the others does not wait for them.
  const blocked: Decision = Number.isFinite(heldUntil) ? { _tag: "Wait", untilMillis: heldUntil } : { _tag: "Idle" }
  if (throttle !== undefined) {
    if (nowMillis < throttle.openMillis) return later(throttle.openMillis)
    return current > 0 ? blocked : { _tag: "Admit", index: first }
  }
  if (current >= window) return blocked
  if (waiter.kind === "Mount") {
    return mounts < unlimited(limits.mountsMax) ? { _tag: "Admit", index: first } : blocked
  }
  if (refreshes >= unlimited(limits.refreshesMax)) return blocked
  if (waiter.kind === "Due" && limits.refreshesPerSecond > 0) {
    const allowance = allowanceAt(state, limits, nowMillis)
    if (allowance < ALMOST) return later(nowMillis + Math.ceil(((1 - allowance) / limits.refreshesPerSecond) * 1_000))
  }
  return { _tag: "Admit", index: first }
}

/** @shape (state, kind, limits, nowMillis) -> State: a call has begun, in the state's epoch */
export const begun = (state: State, kind: Kind, limits: Limits, nowMillis: number): State => {
  const current = state.current + 1
  if (kind === "Mount") return { ...state, current, mounts: state.mounts + 1 }
  const refreshes = state.refreshes + 1
  if (kind === "Asked") return { ...state, current, refreshes }
  return {
    ...state,
    current,
    refreshes,
    allowance: Math.max(0, allowanceAt(state, limits, nowMillis) - 1),
    allowanceMillis: nowMillis
  }
}

/** @shape (state, call: { kind, epoch as it began }) -> State: what was begun has ended */
export const ended = (state: State, call: { readonly kind: Kind; readonly epoch: number }): State => ({
  ...state,
  current: call.epoch === state.epoch ? state.current - 1 : state.current,
  mounts: call.kind === "Mount" ? state.mounts - 1 : state.mounts,
  refreshes: call.kind === "Mount" ? state.refreshes : state.refreshes - 1
})

/** How long after the n-th answer of a kind the provider is tried again. */
const probeMillis = (times: number, random: number): number =>
  Math.round(
    Math.min(PROBE_FIRST_MILLIS * PROBE_FACTOR ** (times - 1), PROBE_MAX_MILLIS) *
      (1 - JITTER_SHARE + 2 * JITTER_SHARE * random)
  )

const holding = (holds: State["holds"], className: string, until: number, nowMillis: number): State["holds"] => {
  const next = new Map([...holds].filter(([, millis]) => millis > nowMillis))
  next.set(className, Math.max(until, next.get(className) ?? 0))
  return next
}

/**
 * What an answer changes.
 *
 * @shape  (state, call: { epoch as it began, className }, outcome, limits, { nowMillis, random in [0, 1) }) -> State
 * @errors none
 */
export const answered = (
  state: State,
  call: { readonly epoch: number; readonly className: string },
  outcome: Outcome,
  limits: Limits,
  { nowMillis, random }: { readonly nowMillis: number; readonly random: number }
): State => {
  const { throttle } = state
  if (outcome._tag === "Throttled") {
    const hold = Math.min(outcome.retryAfterMillis ?? 0, HOLD_MAX_MILLIS)
    const holds = hold > 0 ? holding(state.holds, call.className, nowMillis + hold, nowMillis) : state.holds
    // Many calls may have been under way when the first of them was told.
    if (call.epoch !== state.epoch) return { ...state, holds }
    const times = (throttle?.times ?? 0) + 1
    return {
      ...state,
      holds,
      epoch: state.epoch + 1,
      current: 0,
      window: WINDOW_FIRST,
      throttle: { times, openMillis: nowMillis + probeMillis(times, random) }
    }
  }
  if (call.epoch !== state.epoch) return state
  if (outcome._tag === "Answered") {
    if (throttle !== undefined) {
      return { ...state, epoch: state.epoch + 1, current: 0, throttle: undefined, window: WINDOW_FIRST }
    }
    if (!Number.isFinite(state.window)) return state
    const window = state.window + 1
    const most = unlimited(limits.mountsMax) + unlimited(limits.refreshesMax)
    return { ...state, window: window >= most ? Number.POSITIVE_INFINITY : window }
  }
  return throttle === undefined
    ? state
    : { ...state, throttle: { ...throttle, openMillis: nowMillis + probeMillis(throttle.times, random) } }
}
