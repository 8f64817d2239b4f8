/** The objects that the scenarios make, with what they do not care about filled in. */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { Schema } from "effect"
import { parseAllDocuments } from "yaml"
import { apply, get, type Json, podReady, textAt, until } from "./Kubectl.ts"

export const DRIVER = "secrets-store.csi.k8s.io"
/** Of the operator and of the node driver. */
export const NAMESPACE = "secrets-store-csi-driver"
export const OPERATOR = "secrets-store-csi-driver-operator"
export const DAEMON_SET = "secrets-store-csi-driver-node"
export const NODE_ACCOUNT = "secrets-store-csi-driver-node-sa"
/** Names of what the operator makes; kind and namespace of each. */
export const OPERAND: ReadonlyArray<readonly [kind: string, name: string, namespace?: string]> = [
  ["csidriver", DRIVER],
  ["clusterrole", "secretproviderclasses-role"],
  ["clusterrolebinding", "secretproviderclasses-rolebinding"],
  ["serviceaccount", NODE_ACCOUNT, NAMESPACE],
  ["configmap", "secrets-store-csi-driver-trusted-ca-bundle", NAMESPACE],
  ["daemonset", DAEMON_SET, NAMESPACE],
  ["networkpolicy", "sscsi-default-deny-operand", NAMESPACE],
  ["networkpolicy", "sscsi-allow-ingress-to-metrics-operand", NAMESPACE],
  ["networkpolicy", "sscsi-allow-egress-to-api-server-operand", NAMESPACE]
]
/** And what it makes beside that where security.openshift.io is served. */
export const PRIVILEGED: typeof OPERAND = [
  ["clusterrole", "secrets-store-privileged-role"],
  ["clusterrolebinding", "secrets-store-node-privileged-binding"]
]
/** What the driver may do in namespaces with synced Secrets: a ClusterRole of the manifests, and RoleBindings to it. */
export const SECRET_SYNC = "secrets-store-csi-driver-secret-sync"

export const IMAGES = {
  driver: "localhost/secrets-store-csi/driver:1.0.0",
  nextDriver: "localhost/secrets-store-csi/driver:1.0.1",
  operator: "localhost/secrets-store-csi/operator:1.0.0",
  tools: "localhost/tools:1",
  busybox: "localhost/busybox:1"
}
export const MOUNT = "/mnt/secrets-store"
export const PROVIDERS_NAMESPACE = "providers"
/** Fewer seconds than the kubelet takes to publish a volume again. */
export const ROTATION_SECONDS = 5
export const AUDIENCES = ["vault", "api://AzureADTokenExchange"]

export const asset = (path: string) =>
  readFileSync(fileURLToPath(new URL(`../../../assets/${path}`, import.meta.url)), "utf8")
const objectOf = Schema.decodeUnknownSync(Schema.Record(Schema.String, Schema.Unknown))
/** The objects of one of our manifests, with our own images where it names the published ones. */
export const manifests = (path: string): ReadonlyArray<Json> =>
  parseAllDocuments(
    asset(path)
      .replaceAll(/ghcr\.io\/secrets-store-csi\/operator:[\w.-]+/gu, IMAGES.operator)
      .replaceAll(/ghcr\.io\/secrets-store-csi\/driver:[\w.-]+/gu, IMAGES.driver)
  )
    .map((document): unknown => document.toJS())
    .filter((object) => object !== null)
    .map((object) => objectOf(object))

export const namespace = (name: string, level = "privileged"): Json => ({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name, labels: { "pod-security.kubernetes.io/enforce": level } }
})

/** A new namespace whose pods can be made. */
export const inNewNamespace = async (name: string, level?: string): Promise<string> => {
  await apply(namespace(name, level))
  await until(`the default ServiceAccount of ${name}`, 30, () => get("serviceaccount", "default", name))
  return name
}

export const clusterCsiDriver = (spec: Json = {}): Json => ({
  apiVersion: "operator.openshift.io/v1",
  kind: "ClusterCSIDriver",
  metadata: { name: DRIVER },
  spec: { managementState: "Managed", logLevel: "Normal", operatorLogLevel: "Normal", ...spec }
})

/** Rotation every `seconds`, and tokens for the audiences; once managed, they stay managed. */
export const secretsStore = (seconds: number, audiences: ReadonlyArray<string> = AUDIENCES): Json => ({
  driverConfig: {
    driverType: "SecretsStore",
    secretsStore: {
      secretRotation: { type: "Custom", custom: { minimumRefreshAge: seconds } },
      ...(audiences.length > 0 && {
        tokenRequests: {
          type: "Managed",
          managed: { audiences: audiences.map((audience) => ({ audience, expirationSeconds: 600 })) }
        }
      })
    }
  }
})

const openShiftDefinition = (group: string, plural: string, kind: string): Json => ({
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: `${plural}.${group}` },
  spec: {
    group,
    scope: "Cluster",
    names: { plural, singular: kind.toLowerCase(), kind, listKind: `${kind}List` },
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        schema: { openAPIV3Schema: { type: "object", "x-kubernetes-preserve-unknown-fields": true } }
      }
    ]
  }
})
/** What the operator looks at on OpenShift, as far as it looks. */
export const OPEN_SHIFT_DEFINITIONS: ReadonlyArray<Json> = [
  openShiftDefinition("config.openshift.io", "apiservers", "APIServer"),
  openShiftDefinition("config.openshift.io", "infrastructures", "Infrastructure"),
  openShiftDefinition("config.openshift.io", "proxies", "Proxy"),
  openShiftDefinition("security.openshift.io", "securitycontextconstraints", "SecurityContextConstraints")
]
export const OPEN_SHIFT_OBJECTS: ReadonlyArray<Json> = ["APIServer", "Infrastructure", "Proxy"].map((kind) => ({
  apiVersion: "config.openshift.io/v1",
  kind,
  metadata: { name: "cluster" },
  spec: {}
}))

/** @shape ["foo", "token:vault"] -> the `objects` of a SecretProviderClass; a name after "=" is the file's */
const objectsOf = (objects: ReadonlyArray<string>): string => {
  const items = objects.map((object) => {
    const [name = "", fileName = name.replaceAll(":", "-")] = object.split("=")
    return `  - |\n    objectName: "${name}"\n    fileName: ${fileName}\n    mode: 0644\n`
  })
  return `array:\n${items.join("")}`
}

interface SecretObject {
  readonly secretName: string
  /** Key of the Secret -> name of the object. */
  readonly data: Readonly<Record<string, string>>
  readonly labels?: Readonly<Record<string, string>>
}

export const secretProviderClass = (options: {
  readonly namespace: string
  readonly name: string
  readonly provider?: string
  readonly objects?: ReadonlyArray<string>
  readonly secretObjects?: ReadonlyArray<SecretObject>
  readonly apiVersion?: "v1" | "v1alpha1"
}): Json => ({
  apiVersion: `secrets-store.csi.x-k8s.io/${options.apiVersion ?? "v1"}`,
  kind: "SecretProviderClass",
  metadata: { name: options.name, namespace: options.namespace },
  spec: {
    provider: options.provider ?? "e2e-provider",
    parameters: { objects: objectsOf(options.objects ?? ["foo", "fookey"]) },
    ...(options.secretObjects !== undefined && {
      secretObjects: options.secretObjects.map(({ data, labels, secretName }) => ({
        secretName,
        type: "Opaque",
        ...(labels !== undefined && { labels }),
        data: Object.entries(data).map(([key, objectName]) => ({ key, objectName }))
      }))
    })
  }
})

interface PodOptions {
  readonly namespace: string
  readonly name: string
  /** One volume for each, the first at MOUNT, the others at MOUNT-1, MOUNT-2, ... */
  readonly classes: ReadonlyArray<string>
  readonly env?: ReadonlyArray<Json>
  readonly attributes?: Readonly<Record<string, string>>
  readonly publishSecret?: string
  readonly securityContext?: Json
  readonly containerSecurityContext?: Json
  readonly serviceAccount?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly annotations?: Readonly<Record<string, string>>
}

const podSpec = (options: Omit<PodOptions, "name" | "namespace">): Json => ({
  terminationGracePeriodSeconds: 0,
  ...(options.serviceAccount !== undefined && { serviceAccountName: options.serviceAccount }),
  ...(options.securityContext !== undefined && { securityContext: options.securityContext }),
  containers: [
    {
      name: "app",
      image: IMAGES.busybox,
      imagePullPolicy: "IfNotPresent",
      command: ["/bin/sleep", "100000"],
      ...(options.env !== undefined && { env: options.env }),
      ...(options.containerSecurityContext !== undefined && { securityContext: options.containerSecurityContext }),
      volumeMounts: options.classes.map((_, index) => ({
        name: `secrets-${index}`,
        mountPath: index === 0 ? MOUNT : `${MOUNT}-${index}`,
        readOnly: true
      }))
    }
  ],
  volumes: options.classes.map((name, index) => ({
    name: `secrets-${index}`,
    csi: {
      driver: DRIVER,
      readOnly: true,
      volumeAttributes: { secretProviderClass: name, ...options.attributes },
      ...(options.publishSecret !== undefined && { nodePublishSecretRef: { name: options.publishSecret } })
    }
  }))
})

export const pod = (options: PodOptions): Json => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    name: options.name,
    namespace: options.namespace,
    ...(options.labels !== undefined && { labels: options.labels }),
    ...(options.annotations !== undefined && { annotations: options.annotations })
  },
  spec: podSpec(options)
})

export const deployment = (options: PodOptions & { readonly replicas: number }): Json => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name: options.name, namespace: options.namespace },
  spec: {
    replicas: options.replicas,
    selector: { matchLabels: { app: options.name } },
    template: { metadata: { labels: { app: options.name } }, spec: podSpec(options) }
  }
})

/** The provider of these tests, and how its switches are set. */
export interface Provider {
  readonly set: (path: string, values?: Readonly<Record<string, string | number>>) => Promise<string>
}

const CONTROL_PORT = 8080

export const startProvider = async (name: string): Promise<Provider> => {
  await apply(
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "provider", namespace: PROVIDERS_NAMESPACE } },
    {
      apiVersion: "rbac.authorization.k8s.io/v1",
      kind: "ClusterRoleBinding",
      metadata: { name: "cluster-test-provider" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "system:auth-delegator" },
      subjects: [{ kind: "ServiceAccount", name: "provider", namespace: PROVIDERS_NAMESPACE }]
    },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace: PROVIDERS_NAMESPACE },
      spec: {
        serviceAccountName: "provider",
        terminationGracePeriodSeconds: 1,
        tolerations: [{ operator: "Exists" }],
        containers: [
          {
            name: "provider",
            image: IMAGES.tools,
            imagePullPolicy: "IfNotPresent",
            args: [`--endpoint=unix:///providers/${name}.sock`, `--control=0.0.0.0:${CONTROL_PORT}`],
            securityContext: { readOnlyRootFilesystem: true },
            volumeMounts: [{ name: "providers", mountPath: "/providers" }]
          }
        ],
        volumes: [
          {
            name: "providers",
            hostPath: { path: "/var/run/secrets-store-csi-providers", type: "DirectoryOrCreate" }
          }
        ]
      }
    }
  )
  const address = textAt(await podReady(PROVIDERS_NAMESPACE, name), "status", "podIP")
  const set: Provider["set"] = async (path, values = {}) => {
    const query = new URLSearchParams(Object.entries(values).map(([key, value]) => [key, String(value)]))
    const response = await fetch(`http://${address}:${CONTROL_PORT}${path}?${query}`)
    if (!response.ok) throw new Error(`provider ${name}: ${path} answered ${response.status}`)
    return response.text()
  }
  await until(`provider ${name} answers`, 30, () => set("/calls"))
  return { set }
}
