/**
 * The kinds that the API server in memory knows, and what it refuses in an object: names, labels, owners, and what
 * Secrets and Events have of their own. A kind is added by a row.
 */
import {
  DAEMON_SET_SPEC,
  DAEMON_SET_STATUS,
  prepareBinding,
  prepareCsiDriver,
  prepareDaemonSet,
  prepareEndpointSlice,
  prepareNetworkPolicy,
  settleDaemonSet,
  validateBinding,
  validateCsiDriver,
  validateDaemonSet
} from "./KubernetesDefaults.ts"
import { clusterCsiDriverDefinition, type Definition } from "./KubernetesDefinitions.ts"
import { isEqual, isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "./KubernetesObject.ts"

/** One sentence of an Invalid (422): "metadata.name: Invalid value: ...". */
export type Complaint = string

export interface ResourceType {
  /** Empty for the core group. */
  readonly group: string
  /** All of them show the same objects, which are kept in the first. */
  readonly versions: readonly [string, ...ReadonlyArray<string>]
  readonly plural: string
  readonly kind: string
  readonly namespaced: boolean
  /** Field selectors besides metadata.name and metadata.namespace. */
  readonly fields?: ReadonlyArray<string>
  readonly custom?: true
  /** Of a custom resource whose objects are looked at. */
  readonly definition?: Definition
  /** A PUT without resourceVersion is refused. */
  readonly requiresVersion?: true
  /**
   * metadata.generation counts the changes of everything but metadata and status. It begins with 1; when only changes
   * are counted, an object that was never changed has none.
   */
  readonly counted?: true | "changes"
  /** The status is written at an address of its own, and only there. */
  readonly statusApart?: true
  /** What a spec shows that nobody has written. */
  readonly blankSpec?: JsonObject
  /** What a status shows that nobody has written yet. */
  readonly blankStatus?: JsonObject
  /** What the API server fills in or takes out. */
  readonly prepare?: (object: JsonObject) => JsonObject
  /** What it writes itself, by what changes. */
  readonly settle?: (object: JsonObject, previous: JsonObject | undefined) => JsonObject
  readonly validate?: (object: JsonObject, previous: JsonObject | undefined) => ReadonlyArray<Complaint>
}

/** "pods", "daemonsets.apps": how the API server's messages name it. */
export const qualifiedName = ({ group, plural }: Pick<ResourceType, "group" | "plural">): string =>
  group === "" ? plural : `${plural}.${group}`

/** "Pod", "DaemonSet.apps". */
export const qualifiedKind = ({ group, kind }: Pick<ResourceType, "group" | "kind">): string =>
  group === "" ? kind : `${kind}.${group}`

export const apiVersionOf = (group: string, version: string): string => (group === "" ? version : `${group}/${version}`)

const quote = (value: string) => JSON.stringify(value)

const SUBDOMAIN_MAX = 253
const LABEL_MAX = 63
const ANNOTATIONS_BYTES_MAX = 256 * 1024
const SECRET_BYTES_MAX = 1024 * 1024

const LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
const SUBDOMAIN = `${LABEL}(\\.${LABEL})*`
const QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
const LABEL_VALUE = `(${QUALIFIED})?`
const CONFIG_KEY = "[-._a-zA-Z0-9]+"

const whole = (pattern: string) => new RegExp(`^(?:${pattern})$`, "u")
const matches = {
  label: whole(LABEL),
  subdomain: whole(SUBDOMAIN),
  qualified: whole(QUALIFIED),
  labelValue: whole(LABEL_VALUE),
  configKey: whole(CONFIG_KEY)
}

const bytesOf = (text: string) => Buffer.byteLength(text)

const tooLong = (max: number) => `must be no more than ${max} bytes`
const usedFor = (pattern: string) => `regex used for validation is '${pattern}'`
const aSubdomain = `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', ${usedFor(SUBDOMAIN)})`
const aLabel = `a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', ${usedFor(LABEL)})`

/** @shape (name, as the kind wants it) -> why it cannot be; empty when it can */
const nameFaults = (name: string, kind: "label" | "subdomain"): ReadonlyArray<string> => [
  ...(bytesOf(name) > (kind === "label" ? LABEL_MAX : SUBDOMAIN_MAX)
    ? [tooLong(kind === "label" ? LABEL_MAX : SUBDOMAIN_MAX)]
    : []),
  ...(matches[kind].test(name) ? [] : [kind === "label" ? aLabel : aSubdomain])
]

const qualifiedFaults = (key: string): ReadonlyArray<string> => {
  const parts = key.split("/")
  const [name = ""] = parts.slice(-1)
  const prefix = parts.length === 1 ? undefined : parts.slice(0, -1).join("/")
  const wrong = `name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', ${usedFor(QUALIFIED)})`
  return [
    ...(prefix === undefined ? [] : nameFaults(prefix, "subdomain").map((fault) => `prefix part ${fault}`)),
    ...(name === "" ? ["name part must be non-empty"] : []),
    ...(bytesOf(name) > LABEL_MAX ? [`name part ${tooLong(LABEL_MAX)}`] : []),
    ...(matches.qualified.test(name) ? [] : [wrong])
  ]
}

const labelValueFaults = (value: string): ReadonlyArray<string> => [
  ...(bytesOf(value) > LABEL_MAX ? [tooLong(LABEL_MAX)] : []),
  ...(matches.labelValue.test(value)
    ? []
    : [
        `a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', ${usedFor(LABEL_VALUE)})`
      ])
]

const invalidValue = (field: string, value: string, faults: ReadonlyArray<string>): ReadonlyArray<Complaint> =>
  faults.map((fault) => `${field}: Invalid value: ${quote(value)}: ${fault}`)

const ownerComplaints = (owners: ReadonlyArray<unknown>): ReadonlyArray<Complaint> => {
  const field = "metadata.ownerReferences"
  const missing = owners
    .filter(isObject)
    .flatMap((owner) => [
      ...(textAt(owner, "apiVersion") ? [] : [`${field}.apiVersion: Invalid value: "": version must not be empty`]),
      ...["kind", "name", "uid"].flatMap((part) =>
        textAt(owner, part) ? [] : [`${field}.${part}: Invalid value: "": must not be empty`]
      )
    ])
  const controllers = owners.filter((owner) => isObject(owner) && owner["controller"] === true)
  return controllers.length <= 1
    ? missing
    : [...missing, `${field}: Invalid value: Only one reference can have Controller set to true`]
}

/**
 * What is wrong with an object's metadata.
 *
 * @source k8s.io/apimachinery, pkg/api/validation and pkg/util/validation: names, labels, annotations, owners
 */
export const metadataComplaints = (type: ResourceType, object: JsonObject): ReadonlyArray<Complaint> => {
  const metadata = metadataOf(object)
  const name = textAt(metadata, "name") ?? ""
  const annotations = Object.entries(objectAt(metadata, "annotations"))
  const annotationBytes = annotations.reduce((sum, [key, value]) => sum + bytesOf(key) + bytesOf(String(value)), 0)
  const nameKind = type.plural === "namespaces" ? "label" : "subdomain"
  return [
    ...(name === ""
      ? ["metadata.name: Required value: name or generateName is required"]
      : invalidValue("metadata.name", name, nameFaults(name, nameKind))),
    ...(type.namespaced
      ? invalidValue(
          "metadata.namespace",
          textAt(metadata, "namespace") ?? "",
          nameFaults(textAt(metadata, "namespace") ?? "", "label")
        )
      : []),
    ...Object.entries(objectAt(metadata, "labels")).flatMap(([key, value]) => [
      ...invalidValue("metadata.labels", key, qualifiedFaults(key)),
      ...invalidValue("metadata.labels", String(value), labelValueFaults(String(value)))
    ]),
    ...annotations.flatMap(([key]) => invalidValue("metadata.annotations", key, qualifiedFaults(key.toLowerCase()))),
    ...(annotationBytes > ANNOTATIONS_BYTES_MAX
      ? [`metadata.annotations: Too long: may not be more than ${ANNOTATIONS_BYTES_MAX} bytes`]
      : []),
    ...ownerComplaints(listAt(metadata, "ownerReferences"))
  ]
}

const base64 = (text: string) => Buffer.from(text).toString("base64")

const prepareSecret = (secret: JsonObject): JsonObject => {
  const { data: _, stringData: __, type: ___, ...rest } = secret
  const written = Object.entries(objectAt(secret, "stringData")).map(([key, value]) => [key, base64(String(value))])
  const data = { ...objectAt(secret, "data"), ...Object.fromEntries(written) }
  return {
    ...rest,
    ...(Object.keys(data).length === 0 ? {} : { data }),
    type: textAt(secret, "type") || "Opaque"
  }
}

/** Keys that must be there, by the secret's type. */
const SECRET_KEYS: Readonly<Record<string, ReadonlyArray<string>>> = {
  "kubernetes.io/tls": ["tls.crt", "tls.key"],
  "kubernetes.io/ssh-auth": ["ssh-privatekey"],
  "kubernetes.io/dockercfg": [".dockercfg"],
  "kubernetes.io/dockerconfigjson": [".dockerconfigjson"]
}

/** Why something cannot be the name of a file in a volume. */
const keyFaults = (key: string): ReadonlyArray<string> =>
  key.length > SUBDOMAIN_MAX
    ? [tooLong(SUBDOMAIN_MAX)]
    : matches.configKey.test(key) && key !== "." && key !== ".." && !key.startsWith("..")
      ? []
      : [
          `a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', ${usedFor(CONFIG_KEY)})`
        ]

/** What cannot be changed of an object that says so of itself. */
const immutableComplaints = (
  object: JsonObject,
  previous: JsonObject | undefined,
  fields: ReadonlyArray<string>
): ReadonlyArray<Complaint> => {
  if (previous?.["immutable"] !== true) return []
  const changed = fields.filter((field) => !isEqual(objectAt(object, field), objectAt(previous, field)))
  return [...(object["immutable"] === true ? [] : ["immutable"]), ...changed].map(
    (field) => `${field}: Forbidden: field is immutable when \`immutable\` is set`
  )
}

const validateConfigMap = (configMap: JsonObject, previous: JsonObject | undefined): ReadonlyArray<Complaint> => {
  const [data, binary] = [objectAt(configMap, "data"), objectAt(configMap, "binaryData")]
  const size =
    Object.values(data).reduce<number>((sum, value) => sum + bytesOf(String(value)), 0) +
    Object.values(binary).reduce<number>((sum, value) => sum + Buffer.byteLength(String(value), "base64"), 0)
  const faults = (field: string, key: string) => invalidValue(`${field}[${key}]`, key, keyFaults(key))
  return [
    ...immutableComplaints(configMap, previous, ["data", "binaryData"]),
    ...Object.keys(data).flatMap((key) => [
      ...faults("data", key),
      ...(key in binary ? invalidValue(`data[${key}]`, key, ["duplicate of key present in binaryData"]) : [])
    ]),
    ...Object.keys(binary).flatMap((key) => faults("binaryData", key)),
    ...(size > SECRET_BYTES_MAX ? [`: Too long: may not be more than ${SECRET_BYTES_MAX} bytes`] : [])
  ]
}

const validateSecret = (secret: JsonObject, previous: JsonObject | undefined): ReadonlyArray<Complaint> => {
  const data = objectAt(secret, "data")
  const type = textAt(secret, "type") ?? ""
  const size = Object.values(data).reduce<number>((sum, value) => sum + Buffer.byteLength(String(value), "base64"), 0)
  return [
    ...(previous !== undefined && previous["type"] !== type
      ? [`type: Invalid value: ${quote(type)}: field is immutable`]
      : []),
    ...immutableComplaints(secret, previous, ["data"]),
    ...Object.keys(data).flatMap((key) => invalidValue(`data[${key}]`, key, keyFaults(key))),
    ...(size > SECRET_BYTES_MAX ? [`data: Too long: may not be more than ${SECRET_BYTES_MAX} bytes`] : []),
    ...(SECRET_KEYS[type] ?? []).flatMap((key) => (key in data ? [] : [`data[${key}]: Required value`]))
  ]
}

const validateEvent = (event: JsonObject): ReadonlyArray<Complaint> => {
  const involved = textAt(objectAt(event, "involvedObject"), "namespace") ?? ""
  const namespace = textAt(metadataOf(event), "namespace") ?? ""
  // An event about something without a namespace is in the default one.
  return involved === namespace || (involved === "" && namespace === "default")
    ? []
    : [`involvedObject.namespace: Invalid value: ${quote(involved)}: does not match event.namespace`]
}

const STORE = "secrets-store.csi.x-k8s.io"

/** @source reference/wire.md (e); the rest is for the surroundings of a driver */
export const RESOURCES: ReadonlyArray<ResourceType> = [
  {
    group: "",
    versions: ["v1"],
    plural: "pods",
    kind: "Pod",
    namespaced: true,
    statusApart: true,
    fields: ["spec.nodeName", "status.phase"]
  },
  {
    group: "",
    versions: ["v1"],
    plural: "events",
    kind: "Event",
    namespaced: true,
    fields: [
      ...["kind", "namespace", "name", "uid", "apiVersion"].map((field) => `involvedObject.${field}`),
      "reason",
      "type"
    ],
    validate: validateEvent
  },
  {
    group: "",
    versions: ["v1"],
    plural: "secrets",
    kind: "Secret",
    namespaced: true,
    fields: ["type"],
    prepare: prepareSecret,
    validate: validateSecret
  },
  {
    group: "",
    versions: ["v1"],
    plural: "configmaps",
    kind: "ConfigMap",
    namespaced: true,
    validate: validateConfigMap
  },
  { group: "", versions: ["v1"], plural: "serviceaccounts", kind: "ServiceAccount", namespaced: true },
  { group: "", versions: ["v1"], plural: "namespaces", kind: "Namespace", namespaced: false, statusApart: true },
  { group: "", versions: ["v1"], plural: "nodes", kind: "Node", namespaced: false, statusApart: true },
  // A real API server asks for a version on every custom resource. The driver only reads classes, and whoever plays the
  // administrator here may write them without looking.
  {
    group: STORE,
    versions: ["v1", "v1alpha1"],
    plural: "secretproviderclasses",
    kind: "SecretProviderClass",
    namespaced: true,
    custom: true,
    counted: true
  },
  {
    group: STORE,
    versions: ["v1", "v1alpha1"],
    plural: "secretproviderclasspodstatuses",
    kind: "SecretProviderClassPodStatus",
    namespaced: true,
    custom: true,
    counted: true,
    requiresVersion: true
  },
  {
    group: "storage.k8s.io",
    versions: ["v1"],
    plural: "csidrivers",
    kind: "CSIDriver",
    namespaced: false,
    counted: "changes",
    requiresVersion: true,
    prepare: prepareCsiDriver,
    validate: validateCsiDriver
  },
  {
    group: "storage.k8s.io",
    versions: ["v1"],
    plural: "csinodes",
    kind: "CSINode",
    namespaced: false,
    requiresVersion: true
  },
  {
    group: "apps",
    versions: ["v1"],
    plural: "daemonsets",
    kind: "DaemonSet",
    namespaced: true,
    counted: true,
    statusApart: true,
    blankSpec: DAEMON_SET_SPEC,
    blankStatus: DAEMON_SET_STATUS,
    prepare: prepareDaemonSet,
    settle: settleDaemonSet,
    validate: validateDaemonSet
  },
  ...(
    [
      ["deployments", "Deployment"],
      ["replicasets", "ReplicaSet"],
      ["statefulsets", "StatefulSet"]
    ] as const
  ).map(
    ([plural, kind]): ResourceType => ({
      group: "apps",
      versions: ["v1"],
      plural,
      kind,
      namespaced: true,
      counted: true,
      statusApart: true
    })
  ),
  {
    group: "batch",
    versions: ["v1"],
    plural: "jobs",
    kind: "Job",
    namespaced: true,
    counted: true,
    statusApart: true
  },
  {
    group: "coordination.k8s.io",
    versions: ["v1"],
    plural: "leases",
    kind: "Lease",
    namespaced: true,
    requiresVersion: true
  },
  { group: "rbac.authorization.k8s.io", versions: ["v1"], plural: "roles", kind: "Role", namespaced: true },
  {
    group: "rbac.authorization.k8s.io",
    versions: ["v1"],
    plural: "rolebindings",
    kind: "RoleBinding",
    namespaced: true,
    prepare: prepareBinding,
    validate: validateBinding
  },
  {
    group: "rbac.authorization.k8s.io",
    versions: ["v1"],
    plural: "clusterroles",
    kind: "ClusterRole",
    namespaced: false
  },
  {
    group: "rbac.authorization.k8s.io",
    versions: ["v1"],
    plural: "clusterrolebindings",
    kind: "ClusterRoleBinding",
    namespaced: false,
    prepare: prepareBinding,
    validate: validateBinding
  },
  {
    group: "networking.k8s.io",
    versions: ["v1"],
    plural: "networkpolicies",
    kind: "NetworkPolicy",
    namespaced: true,
    counted: true,
    blankSpec: { podSelector: {} },
    prepare: prepareNetworkPolicy
  },
  {
    group: "discovery.k8s.io",
    versions: ["v1"],
    plural: "endpointslices",
    kind: "EndpointSlice",
    namespaced: true,
    counted: true,
    prepare: prepareEndpointSlice
  },
  {
    group: "operator.openshift.io",
    versions: ["v1"],
    plural: "clustercsidrivers",
    kind: "ClusterCSIDriver",
    namespaced: false,
    custom: true,
    definition: clusterCsiDriverDefinition,
    counted: true,
    requiresVersion: true,
    statusApart: true
  },
  // What the operator reads on OpenShift and never writes: whoever plays OpenShift writes all of it at once.
  ...(
    [
      ["config.openshift.io", "apiservers", "APIServer"],
      ["config.openshift.io", "infrastructures", "Infrastructure"],
      ["config.openshift.io", "proxies", "Proxy"],
      ["security.openshift.io", "securitycontextconstraints", "SecurityContextConstraints"]
    ] as const
  ).map(
    ([group, plural, kind]): ResourceType => ({
      group,
      versions: ["v1"],
      plural,
      kind,
      namespaced: false,
      custom: true,
      counted: true
    })
  ),
  {
    group: "apiextensions.k8s.io",
    versions: ["v1"],
    plural: "customresourcedefinitions",
    kind: "CustomResourceDefinition",
    namespaced: false,
    counted: true,
    statusApart: true
  }
]
