/**
 * Names that other programs and the operator's predecessors know.
 *
 * @source reference/operator.md 0, 3.1, 3.7
 */

/** Of the ClusterCSIDriver, of the CSIDriver, and of the CSI driver. */
export const DRIVER_NAME = "secrets-store.csi.k8s.io"
export const OPERAND_NAME = "secrets-store-csi-driver"
export const OPERATOR_NAME = "secrets-store-csi-driver-operator"
export const DAEMON_SET = "secrets-store-csi-driver-node"
export const DRIVER_CONTAINER = "csi-driver"
export const CA_CONFIG_MAP = "secrets-store-csi-driver-trusted-ca-bundle"
export const LEASE = "secrets-store-csi-driver-operator-lock"
/** Marks the RoleBindings that let the driver write Secrets. */
export const SYNC_LABEL = "secrets-store.csi.k8s.io/secret-sync"

export const NODE_CONTROLLER = "SecretsStoreDriverNodeServiceController"
export const STATIC_CONTROLLER = "SecretsStoreConditionalStaticResourcesController"

/** @shape (operator's name) -> the only finalizer on the ClusterCSIDriver */
export const finalizerOf = (operatorName: string): string => `${operatorName}.operator.openshift.io/${NODE_CONTROLLER}`

/** A condition of operators before 2023-08, renamed since: nobody has said it for years, and it is there all the same. */
export const STALE_CONDITION = "SecretsStoreStaticResourcesControllerDegraded"

/** Annotations. */
export const Annotation = {
  specHash: "operator.openshift.io/spec-hash",
  stableGeneration: "storage.openshift.io/stable-generation",
  dependencyPrefix: "operator.openshift.io/dep-",
  /** Of a pod template, written by `kubectl rollout restart`. */
  restartedAt: "kubectl.kubernetes.io/restartedAt",
  /** Of a ClusterCSIDriver: what was last seen in a CSIDriver whose audiences are not ours. */
  rememberedTokens: "secrets-store.csi.k8s.io/remembered-token-requests",
  /** Of a ClusterCSIDriver, "true": removal does not wait for pods. */
  removeWithoutWaiting: "secrets-store.csi.k8s.io/remove-without-waiting",
  /** Of a ClusterCSIDriver, "true": objects of another installation are taken over. */
  adoptForeign: "secrets-store.csi.k8s.io/adopt-foreign-objects"
} as const

/** On roles and bindings, whose names other installations use as well. */
export const MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

export const PROFILE_LABEL = "security.openshift.io/csi-ephemeral-volume-profile"

/** Who owns what in the ClusterCSIDriver's status. */
export const FieldManager = {
  managementState: "secrets-store-csi-driver-ManagementState",
  staticResources: `${STATIC_CONTROLLER}-StaticResources`,
  configObserver: "SecretsStoreDriverCSIConfigObserverController-ConfigObserver",
  nodeService: `${NODE_CONTROLLER}-CSIDriverNodeService`,
  reportDegraded: `${NODE_CONTROLLER}-reportDegraded`,
  /** Ours alone: what concerns the whole. */
  summary: "secrets-store-csi-driver-operator-Summary"
} as const
