/**
 * Who owns a synced Secret: whatever owns the pods that use it, so that it goes when they do.
 *
 * References are told apart by uid: an owner that was made anew under its old name is another one (Q11, D6). Those of
 * others stay, whoever they are.
 *
 * @source driver v1.6.0, controllers, patchSecretWithOwnerRef; reference/driver.md 6.7
 */
import type { NodePod } from "../../schemas/Core.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import type { CachedPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"

/** The four fields that say who it is; that it controls or blocks deletion is the pod's business. */
const reduced = ({ apiVersion, kind, name, uid }: OwnerReference): OwnerReference => ({ apiVersion, kind, name, uid })

/**
 * @shape  (pod, its pod status) -> references; those of the pod, or the pod status for a pod that nobody owns
 * @errors none
 */
export const ownersOf = (
  pod: Pick<NodePod, "metadata">,
  podStatus: Pick<CachedPodStatus, "metadata">
): ReadonlyArray<OwnerReference> => {
  const { ownerReferences = [] } = pod.metadata
  if (ownerReferences.length > 0) return ownerReferences.map(reduced)
  const { name = "", uid = "" } = podStatus.metadata
  return [{ apiVersion: "secrets-store.csi.x-k8s.io/v1", kind: "SecretProviderClassPodStatus", name, uid }]
}

/** @shape (references, more) -> all of them, one per uid; the first one stays as it is */
export const united = (
  references: ReadonlyArray<OwnerReference>,
  more: ReadonlyArray<OwnerReference>
): ReadonlyArray<OwnerReference> => {
  const known = new Set(references.map(({ uid }) => uid))
  const all = [...references]
  for (const reference of more) {
    if (known.has(reference.uid)) continue
    known.add(reference.uid)
    all.push(reference)
  }
  return all
}
