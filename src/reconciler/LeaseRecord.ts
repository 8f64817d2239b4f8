/**
 * What a Lease says, what a candidate makes of it, and what it writes: no effects, and no clock but the one it is given.
 *
 * The holder's clock is never asked. A Lease counts as expired when we have seen the same record for as long as it is
 * good for, by our own monotonic clock.
 */
import { DateTime } from "effect"
import type { Lease } from "../../schemas/Coordination.ts"

/** A record, and when this process first saw it as it is. */
export interface Observed {
  readonly lease: Lease
  /** Of the monotonic clock, after the answer came: never before the holder sent it. */
  readonly atMillis: number
}

export type Decision =
  | { readonly _tag: "Create" }
  /** Nobody's, or expired. */
  | { readonly _tag: "Take" }
  /** Ours. */
  | { readonly _tag: "Renew" }
  | { readonly _tag: "Wait"; readonly holder: string; readonly expiresInMillis: number }

/** Whoever writes. */
export interface Claim {
  readonly identity: string
  readonly leaseMillis: number
  /** Of the wall clock. */
  readonly nowMillis: number
}

/** Empty when it is nobody's. */
export const holderOf = (lease: Lease): string => lease.spec?.holderIdentity ?? ""

const recordOf = ({ spec = {} }: Lease): string =>
  JSON.stringify([
    spec.holderIdentity ?? "",
    spec.leaseDurationSeconds ?? 0,
    spec.acquireTime ?? "",
    spec.renewTime ?? "",
    spec.leaseTransitions ?? 0
  ])

/**
 * What is known after a look. Labels and versions that change do not prolong a Lease, only its record does.
 *
 * @shape  (what was known, lease, when it was seen) -> Observed
 * @units  milliseconds of the monotonic clock
 * @errors none
 * @source client-go, tools/leaderelection; reference/operator.md 1.6
 */
export const observe = (previous: Observed | undefined, lease: Lease, atMillis: number): Observed =>
  previous !== undefined && recordOf(previous.lease) === recordOf(lease)
    ? { lease, atMillis: previous.atMillis }
    : { lease, atMillis }

/**
 * What a candidate does about a Lease. The holder says how long its Lease is good for; one that does not say so is
 * given our own time.
 *
 * @shape  (observed: undefined when there is none, { identity, leaseMillis }, nowMillis) -> Decision
 * @units  milliseconds of the monotonic clock; a Lease is expired when its time is exactly over
 * @errors none: every input has a decision
 * @source client-go, tools/leaderelection; reference/operator.md 1.6
 */
export const decide = (
  observed: Observed | undefined,
  { identity, leaseMillis }: Pick<Claim, "identity" | "leaseMillis">,
  nowMillis: number
): Decision => {
  if (observed === undefined) return { _tag: "Create" }
  const holder = holderOf(observed.lease)
  if (holder === "") return { _tag: "Take" }
  if (holder === identity) return { _tag: "Renew" }
  const seconds = observed.lease.spec?.leaseDurationSeconds ?? 0
  const expiresInMillis = observed.atMillis + (seconds > 0 ? seconds * 1_000 : leaseMillis) - nowMillis
  return expiresInMillis > 0 ? { _tag: "Wait", holder, expiresInMillis } : { _tag: "Take" }
}

/** @shape (milliseconds since the epoch) -> "2006-01-02T15:04:05.000000Z" */
export const microTime = (millis: number): string =>
  DateTime.formatIso(DateTime.makeUnsafe(Math.trunc(millis))).replace(/Z$/u, "000Z")

/**
 * The Lease as its new or present holder writes it. What others put into it stays.
 *
 * @shape  (lease: undefined when there is none, { namespace, name }, claim) -> Lease
 * @units  leaseDurationSeconds in whole seconds, never fewer than leaseMillis
 * @errors none
 * @source client-go, tools/leaderelection; reference/operator.md 1.6
 */
export const claimed = (
  lease: Lease | undefined,
  where: { readonly namespace: string; readonly name: string },
  { identity, leaseMillis, nowMillis }: Claim
): Lease => {
  const time = microTime(nowMillis)
  const spec = lease?.spec ?? {}
  const isOurs = lease !== undefined && holderOf(lease) === identity
  const transitions = spec.leaseTransitions ?? 0
  return {
    ...lease,
    metadata: { ...lease?.metadata, ...where },
    spec: {
      ...spec,
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(leaseMillis / 1_000),
      acquireTime: isOurs ? (spec.acquireTime ?? time) : time,
      renewTime: time,
      leaseTransitions: isOurs || lease === undefined ? transitions : transitions + 1
    }
  }
}

/**
 * The Lease as it is left to whoever comes next. One second, for candidates that look at nothing but the time.
 *
 * @shape  (lease, nowMillis) -> Lease
 * @units  milliseconds since the epoch
 * @errors none
 */
export const released = (lease: Lease, nowMillis: number): Lease => {
  const time = microTime(nowMillis)
  return {
    ...lease,
    spec: { ...lease.spec, holderIdentity: "", leaseDurationSeconds: 1, acquireTime: time, renewTime: time }
  }
}
