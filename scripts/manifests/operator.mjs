// The operator's own objects: the same Deployment in a bundle and in a plain manifest.
import { IMAGES, METRICS_SERVICE, OPERATOR, SERVING_CERT } from "./place.mjs"

const APP = { app: OPERATOR }
const HTTPS_PORT = 8443

const probe = (path) => ({ httpGet: { path, port: "https", scheme: "HTTPS" } })

/** With DRIVER_IMAGE alone the operator runs one container on each node; with all three, upstream's three. */
const operandImages = () => [
  { name: "DRIVER_IMAGE", value: IMAGES.driver },
  ...(IMAGES.registrar !== "" && IMAGES.livenessProbe !== ""
    ? [
        { name: "NODE_DRIVER_REGISTRAR_IMAGE", value: IMAGES.registrar },
        { name: "LIVENESS_PROBE_IMAGE", value: IMAGES.livenessProbe }
      ]
    : [])
]

/** Every image that the Deployment runs or hands on. */
export const relatedImages = () => [
  { name: OPERATOR, image: IMAGES.operator },
  ...operandImages().map(({ name, value }) => ({
    name: name
      .replace(/_IMAGE$/u, "")
      .toLowerCase()
      .replaceAll("_", "-"),
    image: value
  }))
]

const CONTROL_PLANES = ["node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"]

export const deploymentSpec = () => ({
  // Two work as well: the second waits for the lease.
  replicas: 1,
  selector: { matchLabels: APP },
  template: {
    metadata: {
      annotations: { "target.workload.openshift.io/management": '{"effect": "PreferredDuringScheduling"}' },
      labels: {
        ...APP,
        "openshift.storage.network-policy.operator-metrics-range": "allow",
        "openshift.storage.network-policy.api-server": "allow"
      }
    },
    spec: {
      serviceAccountName: OPERATOR,
      priorityClassName: "system-cluster-critical",
      // A reconcile under way ends, then the lease is released and the last Events are written.
      terminationGracePeriodSeconds: 45,
      // Preferred, not required: a hosted cluster has no such nodes.
      affinity: {
        nodeAffinity: {
          preferredDuringSchedulingIgnoredDuringExecution: CONTROL_PLANES.map((key) => ({
            weight: 100,
            preference: { matchExpressions: [{ key, operator: "Exists" }] }
          }))
        }
      },
      tolerations: [
        { key: "CriticalAddonsOnly", operator: "Exists" },
        ...CONTROL_PLANES.map((key) => ({ key, operator: "Exists", effect: "NoSchedule" }))
      ],
      securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
      containers: [
        {
          name: OPERATOR,
          image: IMAGES.operator,
          imagePullPolicy: "IfNotPresent",
          // New certificates are taken up while it runs: no --terminate-on-files.
          args: ["start", "-v=2", "--namespace=$(POD_NAMESPACE)"],
          env: [
            { name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
            { name: "POD_NAMESPACE", valueFrom: { fieldRef: { fieldPath: "metadata.namespace" } } },
            ...operandImages(),
            { name: "OPERATOR_NAME", value: OPERATOR }
          ],
          ports: [{ name: "https", containerPort: HTTPS_PORT, protocol: "TCP" }],
          // The cluster's TLS settings and the lease are waited for before it listens, up to half a minute each.
          startupProbe: { ...probe("/healthz"), periodSeconds: 5, failureThreshold: 30 },
          livenessProbe: { ...probe("/healthz"), timeoutSeconds: 5, periodSeconds: 15, failureThreshold: 5 },
          readinessProbe: { ...probe("/readyz"), timeoutSeconds: 5, periodSeconds: 10 },
          resources: { requests: { cpu: "10m", memory: "50Mi" } },
          securityContext: {
            allowPrivilegeEscalation: false,
            capabilities: { drop: ["ALL"] },
            readOnlyRootFilesystem: true
          },
          terminationMessagePolicy: "FallbackToLogsOnError",
          volumeMounts: [
            { name: "tmp", mountPath: "/tmp" },
            { name: "serving-cert", mountPath: "/var/run/secrets/serving-cert", readOnly: true }
          ]
        }
      ],
      volumes: [
        { name: "tmp", emptyDir: { medium: "Memory" } },
        // Without it the operator makes a certificate of its own.
        { name: "serving-cert", secret: { secretName: SERVING_CERT, optional: true } }
      ]
    }
  }
})

/** Where OpenShift's service CA is, the annotation makes the serving certificate. */
export const metricsService = ({ namespace, servingCert }) => ({
  apiVersion: "v1",
  kind: "Service",
  metadata: {
    name: METRICS_SERVICE,
    ...(namespace !== undefined && { namespace }),
    ...(servingCert && { annotations: { "service.beta.openshift.io/serving-cert-secret-name": SERVING_CERT } }),
    labels: { app: METRICS_SERVICE }
  },
  spec: {
    type: "ClusterIP",
    selector: APP,
    ports: [{ name: "https", port: 443, protocol: "TCP", targetPort: HTTPS_PORT }]
  }
})

const policy = (namespace, name, spec) => ({
  apiVersion: "networking.k8s.io/v1",
  kind: "NetworkPolicy",
  metadata: { name, namespace },
  spec: { podSelector: { matchLabels: APP }, ...spec }
})
const ports = (protocol, ...numbers) => numbers.map((port) => ({ port, protocol }))

/** The operator's pods talk with nobody but these. Those of the driver's pods are in assets/driver. */
export const networkPolicies = (namespace) => [
  policy(namespace, "sscsi-default-deny-operator", { policyTypes: ["Ingress", "Egress"] }),
  policy(namespace, "sscsi-allow-ingress-to-metrics-operator", {
    policyTypes: ["Ingress"],
    ingress: [{ ports: ports("TCP", HTTPS_PORT) }]
  }),
  policy(namespace, "sscsi-allow-egress-to-api-server-operator", {
    policyTypes: ["Egress"],
    egress: [
      { ports: ports("TCP", 443, 6443) },
      // Where the API server is known by a name.
      { ports: [...ports("UDP", 53, 5353), ...ports("TCP", 53, 5353)] }
    ]
  })
]
