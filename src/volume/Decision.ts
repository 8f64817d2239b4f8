/**
 * What one publish call does, and what a refresh does when its turn has come: the thinking of NodePublish, without
 * effects.
 */
import type { MountState } from "../ports/Mounter.ts"
import { dueAt, isDue, type Schedule } from "./Rotation.ts"

export interface Observed {
  /** What is at the target path. */
  readonly mount: MountState
  /** The mount holds content that a provider answered with. */
  readonly populated: boolean
  /**
   * What is known of the volume: remembered by this process or found in its pod status ("Recorded"), certainly never
   * recorded ("Unrecorded"), or unknown because the API server could not be asked ("Unknown").
   */
  readonly record: "Recorded" | "Unrecorded" | "Unknown"
  /** When its content is to be looked at again. Of no meaning while rotation is off. */
  readonly schedule: Pick<Schedule, "dueMillis" | "awaitsTokens" | "setMillis">
}

export type Decision =
  | { readonly _tag: "Mount"; readonly leftover: boolean }
  /** Filled, and never recorded: fetched once more, and recorded. */
  | { readonly _tag: "Complete" }
  | { readonly _tag: "KeepMounted" }
  /** The driver's own clock refreshes it; the caller does not wait for that. */
  | { readonly _tag: "Due" }
  | { readonly _tag: "NotDue"; readonly dueInMillis: number }

/**
 * Decides what one publish call does, from what was observed.
 *
 * The mount is looked at before the age, unlike driver v1.6.0 (Q3, D2): OK always means mounted and filled. A filled
 * mount without a pod status is what a crash between the two leaves behind; it is completed, not believed.
 *
 * @shape  (observed, whether rotation is on, nowMillis) -> Decision
 * @units  milliseconds since the Unix epoch; the due time itself counts as due
 * @errors none: every input has a decision
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go, NodePublishVolume; reference/driver.md 2.7, Q3, Q4
 */
export const decide = (observed: Observed, rotates: boolean, nowMillis: number): Decision => {
  const leftover = observed.mount === "Mounted" || observed.mount === "Corrupted"
  // An empty mount is what a crash leaves behind: it is not a volume yet.
  if (observed.mount !== "Mounted" || !observed.populated) return { _tag: "Mount", leftover }
  if (observed.record === "Unrecorded") return { _tag: "Complete" }
  if (!rotates) return { _tag: "KeepMounted" }
  if (isDue(observed.schedule, nowMillis)) return { _tag: "Due" }
  return { _tag: "NotDue", dueInMillis: dueAt(observed.schedule) - nowMillis }
}

export type RefreshDecision =
  | { readonly _tag: "Refresh" }
  | { readonly _tag: "NotDue" }
  /** What is not mounted, or empty, is left to the next publish call, which knows what is wanted. */
  | { readonly _tag: "Gone" }
  /** A provider would refuse these tokens, and the kubelet brings others. */
  | { readonly _tag: "AwaitTokens"; readonly expiredMillis: number }

/**
 * Decides what a refresh does when its turn has come: it may have waited, and much may have happened meanwhile.
 *
 * @shape  (observed, nowMillis) -> RefreshDecision
 * @units  milliseconds since the Unix epoch; a token is good until the time of its expiry, and not at that time
 * @errors none: every input has a decision
 */
export const decideRefresh = (
  observed: Pick<Observed, "mount" | "populated" | "schedule"> & { readonly tokensExpireMillis: number },
  nowMillis: number
): RefreshDecision => {
  if (!isDue(observed.schedule, nowMillis)) return { _tag: "NotDue" }
  if (observed.mount !== "Mounted" || !observed.populated) return { _tag: "Gone" }
  const { tokensExpireMillis } = observed
  return tokensExpireMillis <= nowMillis
    ? { _tag: "AwaitTokens", expiredMillis: tokensExpireMillis }
    : { _tag: "Refresh" }
}
