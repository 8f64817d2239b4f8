/**
 * Since when a rollout has not moved: of one generation, the most pods that were ever updated and available count. A pod
 * that crashes and comes back again and again is no progress.
 *
 * @source reference/operator.md Q15
 */
import type { Manifest } from "../../schemas/Manifest.ts"
import { progressOf, rolloutOf } from "./DaemonSet.ts"

export interface Progress {
  readonly generation: number
  readonly updated: number
  readonly available: number
  readonly sinceMillis: number
}

/**
 * @shape  (what was known, DaemonSet as it is, now) -> what is known; undefined when nothing is to be waited for
 * @units  milliseconds of a clock that does not jump
 * @errors none
 */
export const advance = (
  before: Progress | undefined,
  daemonSet: Manifest | undefined,
  nowMillis: number
): Progress | undefined => {
  if (daemonSet === undefined) return undefined
  const { available, generation, isStable, updated, ...rest } = rolloutOf(daemonSet)
  if (progressOf({ available, generation, isStable, updated, ...rest }) === undefined) return undefined
  if (before === undefined || before.generation !== generation) {
    return { generation, updated, available, sinceMillis: nowMillis }
  }
  const hasMoved = updated > before.updated || available > before.available
  return hasMoved
    ? {
        generation,
        updated: Math.max(updated, before.updated),
        available: Math.max(available, before.available),
        sinceMillis: nowMillis
      }
    : before
}
