/**
 * What one publish call does: the thinking of NodePublish, without effects.
 */
import type { MountState } from "../ports/Mounter.ts"
import { isDue } from "./Rotation.ts"

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
  /** When its content is to be looked at again; Infinity is never. Of no meaning while rotation is off. */
  readonly dueMillis: number
}

export type Decision =
  | { readonly _tag: "Mount"; readonly leftover: boolean }
  | { readonly _tag: "Refresh"; readonly why: "Due" | "Unrecorded" }
  | { readonly _tag: "KeepMounted" }
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
  if (observed.record === "Unrecorded") return { _tag: "Refresh", why: "Unrecorded" }
  if (!rotates) return { _tag: "KeepMounted" }
  if (isDue(observed, nowMillis)) return { _tag: "Refresh", why: "Due" }
  return { _tag: "NotDue", dueInMillis: observed.dueMillis - nowMillis }
}
