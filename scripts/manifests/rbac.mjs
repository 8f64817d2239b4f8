// What the operator may do: what it does itself, and what it hands on. Kubernetes lets it create a role or a binding only
// if it holds every right in it, or may bind the role; so the rules of assets/driver/rbac have to be among these.
//
// Rights are given by name wherever the API can tell one: to create has no name yet, and a list by label names nobody.
import { DRIVER, NODE_ACCOUNT, NODE_APP, OPERATOR, SECRET_SYNC } from "./place.mjs"

const READ = ["get", "list", "watch"]
/** What is kept is replaced with the version that was read, never patched. */
const CHANGE = ["update", "delete"]

const rule = (apiGroup, resources, verbs, resourceNames = []) => ({
  apiGroups: [apiGroup],
  resources,
  ...(resourceNames.length > 0 && { resourceNames }),
  verbs
})

const RBAC = "rbac.authorization.k8s.io"
const SECRETS_STORE = "secrets-store.csi.x-k8s.io"

/** Everything on these names; watched by name. */
const kept = (apiGroup, resource, ...names) => [
  rule(apiGroup, [resource], [...READ, ...CHANGE], names),
  rule(apiGroup, [resource], ["create"])
]

export const CLUSTER_RULES = [
  // What it is told, and what it answers: a finalizer and a status, both patched.
  rule("operator.openshift.io", ["clustercsidrivers"], [...READ, "patch"], [DRIVER]),
  rule("operator.openshift.io", ["clustercsidrivers/status"], ["patch"], [DRIVER]),
  rule("config.openshift.io", ["apiservers"], READ, ["cluster"]),
  rule("config.openshift.io", ["infrastructures", "proxies"], ["get"], ["cluster"]),
  // The operand's objects that are in no namespace.
  ...kept("storage.k8s.io", "csidrivers", DRIVER),
  ...kept(RBAC, "clusterroles", "secretproviderclasses-role", "secrets-store-privileged-role"),
  ...kept(RBAC, "clusterrolebindings", "secretproviderclasses-rolebinding", "secrets-store-node-privileged-binding"),
  // Sync: a binding in each namespace whose SecretProviderClasses ask for it, found again by its label. Of the role that
  // is bound the operator itself holds nothing.
  rule(RBAC, ["clusterroles"], ["bind"], [SECRET_SYNC]),
  rule(RBAC, ["rolebindings"], CHANGE, [SECRET_SYNC]),
  rule(RBAC, ["rolebindings"], ["create", "list", "watch"]),
  // Handed on to the node driver; classes, pods and pod statuses are also looked at before the driver is removed.
  rule("", ["events"], ["create", "patch"]),
  rule("", ["pods"], READ),
  rule(SECRETS_STORE, ["secretproviderclasses"], READ),
  rule(SECRETS_STORE, ["secretproviderclasspodstatuses"], ["create", "get", "list", "update", "watch"]),
  rule("security.openshift.io", ["securitycontextconstraints"], ["use"], ["privileged"]),
  // Who asks for metrics, and may they.
  rule("authentication.k8s.io", ["tokenreviews"], ["create"]),
  rule("authorization.k8s.io", ["subjectaccessreviews"], ["create"])
]

/** In the operator's own namespace. OLM widens these to all namespaces, so names matter here as well. */
export const NAMESPACE_RULES = [
  ...kept("", "serviceaccounts", NODE_ACCOUNT),
  ...kept("", "configmaps", "secrets-store-csi-driver-trusted-ca-bundle"),
  ...kept("apps", "daemonsets", NODE_APP),
  ...kept(
    "networking.k8s.io",
    "networkpolicies",
    ...["sscsi-default-deny-operand", "sscsi-allow-ingress-to-metrics-operand"],
    "sscsi-allow-egress-to-api-server-operand"
  ),
  // Whose Events these are: the ReplicaSet of the Pod names its Deployment.
  rule("apps", ["replicasets"], ["get"]),
  rule("coordination.k8s.io", ["leases"], ["get", "update"], [`${OPERATOR}-lock`]),
  rule("coordination.k8s.io", ["leases"], ["create"])
]

/** Single objects in namespaces of others; a bundle can ask for these only in all namespaces. */
export const FOREIGN_RULES = [
  {
    namespace: "kube-system",
    why: "who signs client certificates",
    rules: [rule("", ["configmaps"], ["get"], ["extension-apiserver-authentication"])]
  },
  {
    namespace: "default",
    why: "at which ports the API server listens, for the egress policy",
    rules: [rule("discovery.k8s.io", ["endpointslices"], ["get"], ["kubernetes"])]
  }
]

/** Every right on Secrets that there is, in a role that nobody holds until it is bound. */
export const secretSyncRole = () => ({
  apiVersion: `${RBAC}/v1`,
  kind: "ClusterRole",
  metadata: { name: SECRET_SYNC },
  rules: [rule("", ["secrets"], ["create", "delete", "get", "list", "patch", "update", "watch"])]
})

export const role = (kind, name, rules, namespace) => ({
  apiVersion: `${RBAC}/v1`,
  kind,
  metadata: { name, ...(namespace !== undefined && { namespace }) },
  rules
})

/** Binds the role of that name, in a namespace or everywhere, to a service account. */
export const binding = (role, account, namespace) => ({
  apiVersion: `${RBAC}/v1`,
  kind: namespace === undefined ? "ClusterRoleBinding" : "RoleBinding",
  metadata: { name: role.metadata.name, ...(namespace !== undefined && { namespace }) },
  subjects: [{ kind: "ServiceAccount", ...account }],
  roleRef: { apiGroup: RBAC, kind: role.kind, name: role.metadata.name }
})
