/**
 * Which lists of which kinds are merged item by item, and which objects are one field, as the API server's schemas say.
 *
 * @source k8s.io/api, the markers listType, listMapKey and mapType; k8s.io/client-go, applyconfigurations/internal
 */
import type { MergeSchema } from "./ManagedFields.ts"

const ATOMIC: MergeSchema = { atomic: true }
const SET: MergeSchema = { set: true }
const MAP: MergeSchema = { each: {} }
const object = (fields: Readonly<Record<string, MergeSchema>>): MergeSchema => ({ fields })
const listBy = (keys: ReadonlyArray<string>, item: MergeSchema = {}): MergeSchema => ({ keys, item })

const METADATA = object({
  labels: MAP,
  annotations: MAP,
  finalizers: SET,
  ownerReferences: listBy(["uid"], ATOMIC)
})

/** @shape (fields of a kind) -> its schema, with metadata */
const kind = (fields: Readonly<Record<string, MergeSchema>> = {}): MergeSchema =>
  object({ metadata: METADATA, ...fields })

const CONDITIONS = listBy(["type"])
const STATUS = object({ conditions: CONDITIONS })

const CONTAINER = object({
  env: listBy(
    ["name"],
    object({
      valueFrom: object({ configMapKeyRef: ATOMIC, fieldRef: ATOMIC, resourceFieldRef: ATOMIC, secretKeyRef: ATOMIC })
    })
  ),
  ports: { keys: ["containerPort", "protocol"], defaults: { protocol: "TCP" } },
  resources: object({ limits: MAP, requests: MAP, claims: listBy(["name"]) }),
  volumeDevices: listBy(["devicePath"]),
  volumeMounts: listBy(["mountPath"])
})

const POD_SPEC = object({
  affinity: object({ nodeAffinity: object({ requiredDuringSchedulingIgnoredDuringExecution: ATOMIC }) }),
  containers: listBy(["name"], CONTAINER),
  ephemeralContainers: listBy(["name"], CONTAINER),
  hostAliases: listBy(["ip"]),
  imagePullSecrets: listBy(["name"], ATOMIC),
  initContainers: listBy(["name"], CONTAINER),
  nodeSelector: { atomic: true, each: {} },
  overhead: MAP,
  resourceClaims: listBy(["name"]),
  schedulingGates: listBy(["name"]),
  topologySpreadConstraints: listBy(["topologyKey", "whenUnsatisfiable"], object({ labelSelector: ATOMIC })),
  volumes: listBy(["name"], object({ csi: object({ nodePublishSecretRef: ATOMIC, volumeAttributes: MAP }) }))
})

const WORKLOAD = kind({
  spec: object({ selector: ATOMIC, template: object({ metadata: METADATA, spec: POD_SPEC }) }),
  status: STATUS
})

const SECRETS_STORE = object({
  tokenRequests: object({ managed: object({ audiences: listBy(["audience"]) }) })
})

/** By the kind; one that is not here has only metadata. */
const SCHEMAS: Readonly<Record<string, MergeSchema>> = {
  Pod: kind({ spec: POD_SPEC, status: object({ conditions: CONDITIONS, podIPs: listBy(["ip"]) }) }),
  Event: kind({ involvedObject: ATOMIC, related: ATOMIC }),
  Secret: kind({ data: MAP, stringData: MAP }),
  ConfigMap: kind({ binaryData: MAP, data: MAP }),
  ServiceAccount: kind({ secrets: listBy(["name"], ATOMIC) }),
  Namespace: kind({ status: STATUS }),
  Node: kind({
    spec: object({ podCIDRs: SET }),
    status: object({ addresses: listBy(["type"]), allocatable: MAP, capacity: MAP, conditions: CONDITIONS })
  }),
  SecretProviderClass: kind({ spec: object({ parameters: MAP }) }),
  CSIDriver: kind({ spec: object({ volumeLifecycleModes: SET }) }),
  CSINode: kind({ spec: object({ drivers: listBy(["name"]) }) }),
  DaemonSet: WORKLOAD,
  Deployment: WORKLOAD,
  ReplicaSet: WORKLOAD,
  StatefulSet: WORKLOAD,
  NetworkPolicy: kind({ spec: object({ podSelector: ATOMIC }) }),
  ClusterCSIDriver: kind({
    spec: object({ driverConfig: object({ secretsStore: SECRETS_STORE }) }),
    status: object({
      conditions: CONDITIONS,
      generations: listBy(["group", "name", "namespace", "resource"])
    })
  }),
  RoleBinding: kind({ roleRef: ATOMIC }),
  ClusterRoleBinding: kind({ roleRef: ATOMIC }),
  CustomResourceDefinition: kind({ status: STATUS })
}

const UNKNOWN = kind()

/** @shape kind -> what of it is one field */
export const mergeSchemaOf = (kindName: string): MergeSchema => SCHEMAS[kindName] ?? UNKNOWN
