/**
 * The kinds of object that the operand consists of, and how one of them is named.
 */
import { Manifest } from "../../schemas/Manifest.ts"
import * as Resource from "../reconciler/Resource.ts"

const RBAC = "rbac.authorization.k8s.io"

const define = (kind: string, group: string, plural: string, namespaced: boolean) =>
  Resource.make({ group, version: "v1", plural, kind, namespaced, schema: Manifest })

const RESOURCES: ReadonlyMap<string, Resource.Resource<Manifest>> = new Map(
  [
    define("ServiceAccount", "", "serviceaccounts", true),
    define("ConfigMap", "", "configmaps", true),
    define("ClusterRole", RBAC, "clusterroles", false),
    define("ClusterRoleBinding", RBAC, "clusterrolebindings", false),
    define("RoleBinding", RBAC, "rolebindings", true),
    define("CSIDriver", "storage.k8s.io", "csidrivers", false),
    define("NetworkPolicy", "networking.k8s.io", "networkpolicies", true),
    define("DaemonSet", "apps", "daemonsets", true)
  ].map((resource) => [resource.kind, resource])
)

/** @shape (kind) -> its resource; undefined for a kind that is no part of an operand */
export const resourceOf = (kind: string): Resource.Resource<Manifest> | undefined => RESOURCES.get(kind)

/** One object of the operand. */
export interface OperandId {
  readonly kind: string
  /** Empty for what has none. */
  readonly namespace: string
  readonly name: string
}

export const idOf = ({ kind, metadata }: Manifest): OperandId => ({
  kind,
  namespace: metadata.namespace ?? "",
  name: metadata.name ?? ""
})

/** @shape (id) -> text that no other id has: "RoleBinding team-a/x" */
export const keyOf = ({ kind, name, namespace }: OperandId): string =>
  `${kind} ${namespace === "" ? "" : `${namespace}/`}${name}`

/** As the operator's Events name an object: "DaemonSet.apps/name -n namespace". */
export const describe = ({ kind, name, namespace }: OperandId): string => {
  const group = RESOURCES.get(kind)?.group ?? ""
  return `${kind}${group === "" ? "" : `.${group}`}/${name}${namespace === "" ? "" : ` -n ${namespace}`}`
}
