/**
 * Objects with the operand's names that belong to another installation of the driver, such as upstream's Helm chart.
 * Two installations that both write them would undo each other's work for ever.
 *
 * @source reference/operator.md 6, Q41
 */
import { isObject, listAt, textAt } from "../../schemas/Json.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import { Annotation, MANAGED_BY_LABEL, OPERATOR_NAME } from "./Names.ts"

const RELEASE = "meta.helm.sh/release-name"
const RELEASE_NAMESPACE = "meta.helm.sh/release-namespace"

/** A binding of somebody else's driver: none of its subjects is in our namespace. */
const bindsOthers = (object: Manifest, namespace: string): boolean => {
  const subjects = listAt(object, "subjects").filter(isObject)
  return (
    object.kind === "ClusterRoleBinding" &&
    subjects.length > 0 &&
    subjects.every((subject) => (textAt(subject, "namespace") ?? namespace) !== namespace)
  )
}

/**
 * @shape  (live object, the operator's namespace) -> whose it is; undefined when it may be ours
 * @errors none
 */
export const ownerOf = (object: Manifest, namespace: string): string | undefined => {
  const { annotations = {}, labels = {} } = object.metadata
  // Once taken over it is ours, whatever else it still says.
  if (labels[MANAGED_BY_LABEL] === OPERATOR_NAME || annotations[Annotation.specHash] !== undefined) return undefined
  const release = annotations[RELEASE]
  if (release !== undefined) return `Helm release ${annotations[RELEASE_NAMESPACE] ?? "default"}/${release}`
  if (labels[MANAGED_BY_LABEL] === "Helm") return "a Helm release"
  if (!bindsOthers(object, namespace)) return undefined
  const [subject] = listAt(object, "subjects").filter(isObject)
  const name = subject === undefined ? "" : `${textAt(subject, "namespace") ?? ""}/${textAt(subject, "name") ?? ""}`
  return `an installation whose ServiceAccount is ${name}`
}
