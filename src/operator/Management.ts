/**
 * What the ClusterCSIDriver asks of the operator as a whole.
 *
 * @source reference/operator.md 3.3, 3.10, Q4, Q16
 */
import type { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"

export type Management =
  /** There is no ClusterCSIDriver: nothing is written at all. */
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Managed" }
  /** Removed, or deleted while Managed. */
  | { readonly _tag: "Removing"; readonly isDeleting: boolean }
  | { readonly _tag: "Unmanaged" }
  /** Force, empty, or a word that nobody knows: no object is touched, and the status says so. */
  | { readonly _tag: "Unsupported"; readonly value: string }
  /** Deleted while Unmanaged or Unsupported: the operand stays, only the finalizer goes. */
  | { readonly _tag: "Released"; readonly value: string }

/**
 * @shape  (ClusterCSIDriver or undefined) -> Management
 * @errors none: every state has one
 */
export const managementOf = (clusterCsiDriver: ClusterCSIDriver | undefined): Management => {
  if (clusterCsiDriver === undefined) return { _tag: "Absent" }
  const value = clusterCsiDriver.spec?.managementState ?? ""
  const isDeleting = clusterCsiDriver.metadata.deletionTimestamp !== undefined
  if (value === "Removed") return { _tag: "Removing", isDeleting }
  if (value === "Managed") return isDeleting ? { _tag: "Removing", isDeleting } : { _tag: "Managed" }
  if (isDeleting) return { _tag: "Released", value }
  return value === "Unmanaged" ? { _tag: "Unmanaged" } : { _tag: "Unsupported", value }
}
