/**
 * Which releases of the driver a node has, one after the other or for a moment beside each other.
 */
import type { Chance } from "./Chance.ts"

/** Chances per life of the driver. */
export type VersionRates = {
  /** It is upstream's, before an upgrade or after a downgrade. */
  readonly legacyRate: number
  /** One that is told to end has a successor at once, while it still has time to end. */
  readonly overlapRate: number
}

export const drawVersionRates = (chance: Chance): VersionRates => ({
  legacyRate: chance.happens(0.3) ? chance.between(0.1, 0.5) : 0,
  overlapRate: chance.sometimes(1)
})
