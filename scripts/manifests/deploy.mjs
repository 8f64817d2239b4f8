// assets/deploy: what kubectl applies on a cluster without OLM.
import { crd, KUBERNETES_CRDS, operand } from "./assets.mjs"
import { deploymentSpec, metricsService, networkPolicies } from "./operator.mjs"
import {
  DRIVER,
  IMAGES,
  METRICS_READER,
  METRICS_SERVICE,
  NAMESPACES,
  NODE_ACCOUNT,
  NODE_APP,
  OPERATOR
} from "./place.mjs"
import { binding, CLUSTER_RULES, FOREIGN_RULES, NAMESPACE_RULES, role, secretSyncRole } from "./rbac.mjs"

const NAMESPACE = NAMESPACES.kubernetes
const values = { NAMESPACE, DRIVER_IMAGE: IMAGES.driver, LOG_LEVEL: "2" }
const operatorAccount = { name: OPERATOR, namespace: NAMESPACE }
const nodeAccount = { name: NODE_ACCOUNT, namespace: NAMESPACE }

const bound = (role, account, namespace) => [role, binding(role, account, namespace)]

/** The node driver mounts into the pods of its node, which takes a privileged container. */
export const namespaceObject = (name) => ({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: {
    name,
    labels: {
      "pod-security.kubernetes.io/enforce": "privileged",
      "pod-security.kubernetes.io/audit": "privileged",
      "pod-security.kubernetes.io/warn": "privileged"
    }
  }
})

/** Without driverConfig, which a ClusterCSIDriver of an older OpenShift does not have for this driver. */
export const clusterCsiDriver = () => ({
  apiVersion: "operator.openshift.io/v1",
  kind: "ClusterCSIDriver",
  metadata: { name: DRIVER },
  spec: { managementState: "Managed", logLevel: "Normal", operatorLogLevel: "Normal" }
})

const operator = () => [
  namespaceObject(NAMESPACE),
  { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: OPERATOR, namespace: NAMESPACE } },
  ...bound(role("ClusterRole", OPERATOR, CLUSTER_RULES), operatorAccount),
  ...bound(role("Role", OPERATOR, NAMESPACE_RULES, NAMESPACE), operatorAccount, NAMESPACE),
  ...FOREIGN_RULES.flatMap(({ namespace, rules }) =>
    bound(role("Role", OPERATOR, rules, namespace), operatorAccount, namespace)
  ),
  secretSyncRole(),
  metricsService({ namespace: NAMESPACE, servingCert: false }),
  ...networkPolicies(NAMESPACE),
  {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: OPERATOR, namespace: NAMESPACE, labels: { app: OPERATOR } },
    spec: deploymentSpec()
  }
]

const csiDriver = () => {
  const { metadata, spec, ...rest } = operand("csidriver.yaml")
  // Nobody manages it here, and the kubelet brings fresh tokens only to a driver that it calls again.
  const { annotations: _, ...unmanaged } = metadata
  return { ...rest, metadata: unmanaged, spec: { ...spec, requiresRepublish: true } }
}

const driver = () => [
  namespaceObject(NAMESPACE),
  operand("node_sa.yaml", values),
  operand("rbac/secretproviderclasses_role.yaml"),
  operand("rbac/secretproviderclasses_binding.yaml", values),
  csiDriver(),
  operand("node_single.yaml", values)
]

const driverNetworkPolicies = () =>
  ["default-deny-operand", "allow-ingress-to-metrics-operand", "allow-egress-to-api-server-operand"].map((name) =>
    operand(`network-policy/${name}.yaml`, values)
  )

const EXAMPLE_NAMESPACE = "default"

const monitoring = (kind, name, spec) => ({
  apiVersion: "monitoring.coreos.com/v1",
  kind,
  metadata: { name, namespace: NAMESPACE },
  spec
})

/** Prometheus asks with its own token, and may if it is bound to the reader. */
const monitors = () => [
  ...bound(role("ClusterRole", METRICS_READER, [{ nonResourceURLs: ["/metrics"], verbs: ["get"] }]), {
    name: "prometheus-k8s",
    namespace: "monitoring"
  }),
  monitoring("ServiceMonitor", OPERATOR, {
    selector: { matchLabels: { app: METRICS_SERVICE } },
    endpoints: [
      {
        port: "https",
        scheme: "https",
        path: "/metrics",
        bearerTokenFile: "/var/run/secrets/kubernetes.io/serviceaccount/token",
        tlsConfig: { insecureSkipVerify: true }
      }
    ]
  }),
  monitoring("PodMonitor", NODE_APP, {
    selector: { matchLabels: { app: NODE_APP } },
    podMetricsEndpoints: [{ port: "metrics", path: "/metrics" }]
  })
]

/** Files by name: what they are for, and their objects. */
export const deployFiles = () => ({
  "crds.yaml": {
    why: [
      "Everything that the operator and the driver read and write. First of all:",
      "  kubectl apply --server-side -f crds.yaml",
      "Not for OpenShift, which has a ClusterCSIDriver of its own: install the bundle there."
    ],
    objects: KUBERNETES_CRDS.map(crd)
  },
  "operator.yaml": {
    why: [
      "The operator, without OLM. After crds.yaml; then clustercsidriver.yaml tells it to run the driver.",
      "With DRIVER_IMAGE alone the driver is one container on each node. NODE_DRIVER_REGISTRAR_IMAGE and LIVENESS_PROBE_IMAGE,",
      "both set beside it, ask for upstream's two sidecars.",
      "An API server that listens at another port than 443 or 6443 has to be added to the egress policy."
    ],
    objects: operator()
  },
  "clustercsidriver.yaml": {
    why: [
      "Tells the operator to run the driver. Delete it, and wait until it is gone, before the operator is removed."
    ],
    objects: [clusterCsiDriver()]
  },
  "driver.yaml": {
    why: [
      "The driver without an operator. After crds.yaml.",
      "It may not touch Secrets; driver-secret-sync.yaml or driver-secret-sync-namespace.yaml let it."
    ],
    objects: driver()
  },
  "driver-network-policy.yaml": {
    why: [
      "The pods of driver.yaml talk with the API server, and answer for metrics; nothing else.",
      "An API server that listens at another port than 443 or 6443 has to be added first."
    ],
    objects: driverNetworkPolicies()
  },
  "driver-secret-sync.yaml": {
    why: [
      "For driver.yaml: lets it keep Secrets in all namespaces, as secretObjects of SecretProviderClasses ask.",
      "driver-secret-sync-namespace.yaml does so for one namespace. The operator needs neither."
    ],
    objects: bound(secretSyncRole(), nodeAccount)
  },
  "driver-secret-sync-namespace.yaml": {
    why: [
      `For driver.yaml: lets it keep Secrets in the namespace "${EXAMPLE_NAMESPACE}"; one binding for each namespace.`
    ],
    objects: [
      secretSyncRole(),
      operand("rbac/secret_sync_binding.yaml", { NAMESPACE, SYNC_NAMESPACE: EXAMPLE_NAMESPACE })
    ]
  },
  "servicemonitor.yaml": {
    why: [
      "Where the Prometheus operator is: metrics of the operator and of the driver.",
      `Its account (here monitoring/prometheus-k8s) has to be bound to ${METRICS_READER}.`,
      "The operator's certificate is its own here. With one of a known authority, name that in tlsConfig instead."
    ],
    objects: monitors()
  }
})
