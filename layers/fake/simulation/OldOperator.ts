/**
 * What the operator of today leaves behind on an OpenShift cluster, built from the reference: every object as it applied
 * it, and a status with its field managers.
 *
 * @source reference/operator.md 3, 4, 5, 6
 */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { Effect } from "effect"
import { parse } from "yaml"
import { KubernetesApi, type KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "../KubernetesObject.ts"

/** Where OpenShift suggests that it runs. */
const OPENSHIFT_NAMESPACE = "openshift-cluster-csi-drivers"
const SPEC_HASH = "operator.openshift.io/spec-hash"
const NODE = "SecretsStoreDriverNodeServiceController"
const STATIC = "SecretsStoreConditionalStaticResourcesController"
/** Too long for a name, so it is a hash: of the ConfigMap in the namespace that OpenShift suggests. */
const DEPENDENCY = "operator.openshift.io/dep-bf84c74b4a7c1cfaaf2cfffd10a70c59d7723"

/** With images drv, reg and live at log level 2, without certificates. */
const DAEMON_SET_HASH = "26d33606f8c420c0a8804d6dde427df5f7b9f96c0f0171d58086aca203fdcc69"
const CSI_DRIVER_HASH = "231f3836fed69a3709202a6e804a0f3b9765229217037cc1e259dd58433d60e8"

const VALUES: Readonly<Record<string, string>> = {
  DRIVER_IMAGE: "drv",
  NODE_DRIVER_REGISTRAR_IMAGE: "reg",
  LIVENESS_PROBE_IMAGE: "live",
  LOG_LEVEL: "2"
}

const asset = (file: string, namespace: string): JsonObject => {
  const text = readFileSync(new URL(`../../../assets/driver/${file}`, import.meta.url), "utf8")
  const values: Readonly<Record<string, string>> = { ...VALUES, NAMESPACE: namespace }
  const filled = text.replaceAll(/\$\{([A-Z_]+)\}/gu, (placeholder, name: string) => values[name] ?? placeholder)
  const object: unknown = parse(filled)
  return isObject(object) ? object : {}
}

const withMetadata = (object: JsonObject, metadata: JsonObject): JsonObject => ({
  ...object,
  metadata: {
    ...metadataOf(object),
    ...metadata,
    annotations: { ...objectAt(metadataOf(object), "annotations"), ...objectAt(metadata, "annotations") }
  }
})

/** The rule that is not granted any more: all Secrets of the cluster. */
const SECRETS = {
  apiGroups: [""],
  resources: ["secrets"],
  verbs: ["create", "delete", "get", "list", "patch", "update", "watch"]
}

const oldRole = (role: JsonObject): JsonObject => {
  const [events, pods, ...rest] = listAt(role, "rules")
  return { ...role, rules: [events, pods, SECRETS, ...rest] }
}

const oldCsiDriver = (object: JsonObject, tokenRequests: ReadonlyArray<JsonObject>): JsonObject => {
  return withMetadata(
    {
      ...object,
      spec: {
        ...objectAt(object, "spec"),
        requiresRepublish: true,
        ...(tokenRequests.length === 0 ? {} : { tokenRequests })
      }
    },
    { annotations: { [SPEC_HASH]: CSI_DRIVER_HASH } }
  )
}

/** Certificates that the cluster puts into the ConfigMap, and the volume that no container mounts. */
const withCertificates = (daemonSet: JsonObject): JsonObject => {
  const spec = objectAt(daemonSet, "spec")
  const template = objectAt(spec, "template")
  const podSpec = objectAt(template, "spec")
  const volume = {
    name: "non-standard-root-system-trust-ca-bundle",
    configMap: {
      name: "secrets-store-csi-driver-trusted-ca-bundle",
      items: [{ key: "ca-bundle.crt", path: "tls-ca-bundle.pem" }]
    }
  }
  const annotations = { [DEPENDENCY]: "hgbyuQ==" }
  return withMetadata(
    {
      ...daemonSet,
      spec: {
        ...spec,
        template: {
          ...withMetadata(template, { annotations }),
          spec: { ...podSpec, volumes: [...listAt(podSpec, "volumes"), volume] }
        }
      }
    },
    { annotations }
  )
}

const condition = (type: string, status: "True" | "False", reason?: string, message?: string): JsonObject => ({
  type,
  status,
  lastTransitionTime: "2026-01-01T00:00:00Z",
  ...(reason === undefined ? {} : { reason }),
  ...(message === undefined ? {} : { message })
})

/** By field manager. */
const statusIn = (namespace: string): Readonly<Record<string, JsonObject>> => ({
  "secrets-store-csi-driver-ManagementState": { conditions: [condition("ManagementStateDegraded", "False")] },
  [`${STATIC}-StaticResources`]: { conditions: [condition(`${STATIC}Degraded`, "False", "AsExpected")] },
  "SecretsStoreDriverCSIConfigObserverController-ConfigObserver": {
    conditions: [condition("ConfigObservationDegraded", "False")]
  },
  [`${NODE}-CSIDriverNodeService`]: {
    conditions: [
      condition(`${NODE}Available`, "True", "AsExpected", "DaemonSet is available"),
      condition(`${NODE}Progressing`, "False", "AsExpected", "DaemonSet is not progressing")
    ],
    generations: [
      {
        group: "apps",
        resource: "daemonsets",
        namespace,
        name: "secrets-store-csi-driver-node",
        lastGeneration: 1
      }
    ]
  },
  [`${NODE}-reportDegraded`]: { conditions: [condition(`${NODE}Degraded`, "False", "AsExpected")] }
})

const OBSERVED_CONFIG = {
  targetcsiconfig: {
    servingInfo: { minTLSVersion: "VersionTLS12", cipherSuites: ["TLS_AES_128_GCM_SHA256"] }
  }
}

const collectionsIn = (namespace: string): Readonly<Record<string, string>> => ({
  ServiceAccount: `/api/v1/namespaces/${namespace}/serviceaccounts`,
  ConfigMap: `/api/v1/namespaces/${namespace}/configmaps`,
  ClusterRole: "/apis/rbac.authorization.k8s.io/v1/clusterroles",
  ClusterRoleBinding: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
  CSIDriver: "/apis/storage.k8s.io/v1/csidrivers",
  NetworkPolicy: `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`,
  DaemonSet: `/apis/apps/v1/namespaces/${namespace}/daemonsets`
})

const send = (request: KubernetesRequest) => Effect.flatMap(KubernetesApi, (api) => Effect.orDie(api.request(request)))

/** The last thing that is written of the DaemonSet, once it is complete. */
export const daemonSetIsStable = (namespace = OPENSHIFT_NAMESPACE) =>
  send({
    method: "PATCH",
    path: `${collectionsIn(namespace)["DaemonSet"]}/secrets-store-csi-driver-node`,
    contentType: "application/merge-patch+json",
    body: { metadata: { annotations: { "storage.openshift.io/stable-generation": "1" } } }
  })

/**
 * @shape ({ tokenRequests: of an administrator, certificates, namespace: OpenShift's where there are certificates }) ->
 *        everything exists, but for the DaemonSet's stability
 */
export const leaveBehind = Effect.fnUntraced(function* ({
  certificates,
  namespace = OPENSHIFT_NAMESPACE,
  tokenRequests
}: {
  readonly tokenRequests: ReadonlyArray<JsonObject>
  readonly certificates: boolean
  readonly namespace?: string
}) {
  const collections = collectionsIn(namespace)
  const create = (object: JsonObject) =>
    send({ method: "POST", path: collections[textAt(object, "kind") ?? ""] ?? "", body: object })
  yield* send({
    method: "POST",
    path: "/apis/operator.openshift.io/v1/clustercsidrivers",
    body: {
      apiVersion: "operator.openshift.io/v1",
      kind: "ClusterCSIDriver",
      metadata: {
        name: "secrets-store.csi.k8s.io",
        finalizers: [`secrets-store-csi-driver-operator.operator.openshift.io/${NODE}`]
      },
      spec: {
        managementState: "Managed",
        logLevel: "Normal",
        operatorLogLevel: "Normal",
        observedConfig: OBSERVED_CONFIG,
        unsupportedConfigOverrides: null
      }
    }
  })
  const configMap = asset("cabundle_cm.yaml", namespace)
  yield* create(asset("node_sa.yaml", namespace))
  yield* create(oldCsiDriver(asset("csidriver.yaml", namespace), tokenRequests))
  yield* create(certificates ? { ...configMap, data: { "ca-bundle.crt": "test" } } : configMap)
  yield* create(asset("rbac/privileged_role.yaml", namespace))
  yield* create(asset("rbac/node_privileged_binding.yaml", namespace))
  yield* create(oldRole(asset("rbac/secretproviderclasses_role.yaml", namespace)))
  yield* create(asset("rbac/secretproviderclasses_binding.yaml", namespace))
  yield* create(asset("network-policy/allow-ingress-to-metrics-operand.yaml", namespace))
  const daemonSet = asset("node.yaml", namespace)
  const written = certificates ? withCertificates(daemonSet) : daemonSet
  const hash = certificates
    ? createHash("sha256").update(`of the old operator, with certificates`).digest("hex")
    : DAEMON_SET_HASH
  yield* create(withMetadata(written, { annotations: { [SPEC_HASH]: hash } }))
  for (const [fieldManager, status] of Object.entries(statusIn(namespace))) {
    yield* send({
      method: "PATCH",
      path: "/apis/operator.openshift.io/v1/clustercsidrivers/secrets-store.csi.k8s.io/status",
      query: { fieldManager, force: true },
      contentType: "application/apply-patch+yaml",
      body: {
        apiVersion: "operator.openshift.io/v1",
        kind: "ClusterCSIDriver",
        metadata: { name: "secrets-store.csi.k8s.io" },
        status
      }
    })
  }
  // Released, as the old operator does when it is told to stop.
  yield* send({
    method: "POST",
    path: `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`,
    body: {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name: "secrets-store-csi-driver-operator-lock", namespace },
      spec: {
        holderIdentity: "",
        leaseDurationSeconds: 1,
        acquireTime: "2026-01-01T00:00:00.000000Z",
        renewTime: "2026-01-01T00:00:00.000000Z",
        leaseTransitions: 3
      }
    }
  })
})

/** Of an operator before 2023-08; those after it have another name for it, and have left it as it was. */
export const STALE = "SecretsStoreStaticResourcesControllerDegraded"

/** It wrote the whole status, in its own name. */
export const leaveStaleCondition = Effect.gen(function* () {
  const path = "/apis/operator.openshift.io/v1/clustercsidrivers/secrets-store.csi.k8s.io"
  const live = yield* send({ method: "GET", path })
  const conditions = listAt(objectAt(isObject(live) ? live : {}, "status"), "conditions")
  yield* send({
    method: "PATCH",
    path: `${path}/status`,
    query: { fieldManager: "secrets-store-csi-driver-operator" },
    contentType: "application/merge-patch+json",
    body: { status: { conditions: [...conditions, condition(STALE, "True", "SyncError", "of long ago")] } }
  })
})
