/**
 * Whether a volume may be synced from, and into which Secrets: the thinking about one pod status, without effects.
 *
 * A pod status is an object that others may write as well, and it names a path that the driver reads as root: the path
 * has to be that of a volume that the pod, by its own specification, really has.
 *
 * @source driver v1.6.0, controllers; reference/driver.md 6.3 #2-8, 11, 13.1 TestSPCVolume, Q14
 */
import type { NodePod } from "../../schemas/Core.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import type { CachedPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import { parseTargetPath } from "../../schemas/TargetPath.ts"
import type { SecretObject } from "./SecretData.ts"

export type VolumeDecision =
  | { readonly _tag: "Usable"; readonly targetPath: string }
  /** The pod is about to end, or has ended: nothing is synced from it any more. */
  | { readonly _tag: "Ending" }
  /** Not known yet, or not any more. */
  | { readonly _tag: "NoPod" }
  | { readonly _tag: "Mismatch"; readonly why: string }

const ENDED: ReadonlySet<string> = new Set(["Succeeded", "Failed"])

/** @shape (pod) -> it will not come back to its volumes */
const isEnding = ({ metadata, status }: Pick<NodePod, "metadata" | "status">): boolean =>
  metadata.deletionTimestamp !== undefined || ENDED.has(status?.phase ?? "")

/**
 * Decides whether a volume may be synced from.
 *
 * @shape  (pod status, the pod that it names, name of the CSI driver) -> VolumeDecision
 * @errors Mismatch, in upstream's words
 */
export const decide = (podStatus: CachedPodStatus, pod: NodePod | undefined, driverName: string): VolumeDecision => {
  if (pod === undefined) return { _tag: "NoPod" }
  if (isEnding(pod)) return { _tag: "Ending" }
  const { secretProviderClassName, targetPath = "" } = podStatus.status ?? {}
  const name = `${pod.metadata.namespace ?? ""}/${pod.metadata.name ?? ""}`
  const mismatch = (why: string): VolumeDecision => ({ _tag: "Mismatch", why })
  const volumes = (pod.spec?.volumes ?? []).filter(
    ({ csi }) => csi?.driver === driverName && csi.volumeAttributes?.secretProviderClass === secretProviderClassName
  )
  if (secretProviderClassName === undefined || volumes.length === 0) {
    return mismatch(`failed to find secret provider class pod status volume for pod ${name}`)
  }
  const { podUid, volumeName } = parseTargetPath(targetPath)
  if (podUid === "" || podUid !== pod.metadata.uid) {
    return mismatch(`secret provider class pod status targetPath did not match pod UID for pod ${name}`)
  }
  // Any of the pod's volumes of this class: it may have the class twice (Q14).
  if (!volumes.some((volume) => volume.name === volumeName)) {
    return mismatch(`secret provider class pod status volume name did not match pod Volume for pod ${name}`)
  }
  return { _tag: "Usable", targetPath }
}

const nameOf = ({ secretName = "" }: SecretObject): string => secretName.trim()

/** @shape (class) -> names of the Secrets that it asks for, trimmed (Q15), without empty ones */
export const secretNames = ({ spec }: SecretProviderClass): ReadonlyArray<string> => [
  ...new Set((spec?.secretObjects ?? []).map(nameOf).filter((name) => name !== ""))
]

/** @shape (class, name) -> its last entry of that name, which wins as upstream's later write does */
export const entryOf = ({ spec }: SecretProviderClass, name: string): SecretObject | undefined =>
  (spec?.secretObjects ?? []).findLast((entry) => nameOf(entry) === name)
