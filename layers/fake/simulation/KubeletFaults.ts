/**
 * What goes wrong with a kubelet, besides with its single calls.
 */
import type { Chance } from "./Chance.ts"

/** Rates are chances per volume that is taken away; intervals are means, and 0 is never. */
export type KubeletRates = {
  /** It ends, and another one learns from the node's disk what there is, and does all of it at once. */
  readonly kubeletRestartEveryMillis: number
  /** It asks once more for what was taken away already. */
  readonly unpublishTwiceRate: number
  /** A publish arrives when its volume was taken away: the kubelet has not heard of the pod's end. */
  readonly latePublishRate: number
  /**
   * 1: as kubelets are since their pull request 139045, 0: as before, when one that was told that a republish has failed
   * for good removed the volume's directory, unless it was a mount.
   */
  readonly keepsFailedRepublish: number
}

const RESTART_EVERY_MILLIS_MAX = 30 * 60_000

export const drawKubeletRates = (chance: Chance): KubeletRates => ({
  kubeletRestartEveryMillis: chance.happens(0.4) ? 0 : chance.between(0.1, 1) * RESTART_EVERY_MILLIS_MAX,
  unpublishTwiceRate: chance.sometimes(0.3),
  latePublishRate: chance.sometimes(0.3),
  keepsFailedRepublish: chance.happens(0.5) ? 1 : 0
})
