/**
 * JSON as Go's encoder writes a Kubernetes object: fields in the order of the struct, maps sorted, nothing that is
 * empty, and `<`, `>` and `&` escaped. Hashes of it are annotations that an older operator wrote and compares.
 *
 * @source reference/operator.md 4.3, 4.4, 3.7
 */
import { Predicate } from "effect"

/** The order of a struct's fields; a field that is a struct, or a list of structs, has its own. */
interface Struct {
  readonly [field: string]: Struct | "value"
}

const POD_META: Struct = { name: "value", labels: "value", annotations: "value" }
const KEY: Struct = { name: "value", key: "value", optional: "value" }
const KEY_TO_PATH: Struct = { key: "value", path: "value", mode: "value" }
const PROBE: Struct = {
  exec: "value",
  httpGet: { path: "value", port: "value", host: "value", scheme: "value" },
  tcpSocket: "value",
  grpc: "value",
  initialDelaySeconds: "value",
  timeoutSeconds: "value",
  periodSeconds: "value",
  successThreshold: "value",
  failureThreshold: "value"
}
const CONTAINER: Struct = {
  name: "value",
  image: "value",
  command: "value",
  args: "value",
  workingDir: "value",
  ports: { name: "value", hostPort: "value", containerPort: "value", protocol: "value", hostIP: "value" },
  envFrom: "value",
  env: {
    name: "value",
    value: "value",
    valueFrom: {
      fieldRef: { apiVersion: "value", fieldPath: "value" },
      resourceFieldRef: "value",
      configMapKeyRef: KEY,
      secretKeyRef: KEY
    }
  },
  resources: { limits: "value", requests: "value", claims: "value" },
  volumeMounts: {
    name: "value",
    readOnly: "value",
    recursiveReadOnly: "value",
    mountPath: "value",
    subPath: "value",
    mountPropagation: "value"
  },
  livenessProbe: PROBE,
  readinessProbe: PROBE,
  startupProbe: PROBE,
  lifecycle: "value",
  terminationMessagePath: "value",
  terminationMessagePolicy: "value",
  imagePullPolicy: "value",
  securityContext: {
    capabilities: "value",
    privileged: "value",
    seLinuxOptions: "value",
    runAsUser: "value",
    runAsGroup: "value",
    runAsNonRoot: "value",
    readOnlyRootFilesystem: "value",
    allowPrivilegeEscalation: "value"
  }
}

/** @source k8s.io/api apps/v1 DaemonSetSpec, as far as our manifests and overrides reach */
export const DAEMON_SET_SPEC: Struct = {
  selector: "value",
  template: {
    metadata: POD_META,
    spec: {
      volumes: {
        name: "value",
        hostPath: { path: "value", type: "value" },
        emptyDir: "value",
        secret: "value",
        configMap: { name: "value", items: KEY_TO_PATH, defaultMode: "value", optional: "value" }
      },
      initContainers: CONTAINER,
      containers: CONTAINER,
      restartPolicy: "value",
      terminationGracePeriodSeconds: "value",
      dnsPolicy: "value",
      nodeSelector: "value",
      serviceAccountName: "value",
      securityContext: "value",
      affinity: "value",
      tolerations: { key: "value", operator: "value", value: "value", effect: "value", tolerationSeconds: "value" },
      priorityClassName: "value"
    }
  },
  updateStrategy: { type: "value", rollingUpdate: { maxUnavailable: "value", maxSurge: "value" } }
}

/** @source k8s.io/api storage/v1 CSIDriverSpec */
export const CSI_DRIVER_SPEC: Struct = {
  attachRequired: "value",
  podInfoOnMount: "value",
  volumeLifecycleModes: "value",
  storageCapacity: "value",
  fsGroupPolicy: "value",
  tokenRequests: { audience: "value", expirationSeconds: "value" },
  requiresRepublish: "value",
  seLinuxMount: "value"
}

const ESCAPED: Readonly<Record<string, string>> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029"
}

const quoted = (text: string): string =>
  JSON.stringify(text).replace(/[<>&\u2028\u2029]/gu, (character) => ESCAPED[character] ?? character)

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  Predicate.isObject(value) && !Array.isArray(value)

/** `omitempty` on what Go has as a list, map, text or number; a boolean is behind a pointer and stays. */
const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === "" ||
  value === 0 ||
  (Array.isArray(value) && value.length === 0) ||
  (isRecord(value) && Object.keys(value).length === 0)

/** Fields that Go writes even when they are empty: of a token request, the audience. */
const ALWAYS = new Set(["audience"])

const compare = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0)

const ordered = (value: Readonly<Record<string, unknown>>, struct: Struct): ReadonlyArray<string> => {
  const known = Object.keys(struct)
  const rest = Object.keys(value).filter((key) => !Object.hasOwn(struct, key))
  return [...known.filter((key) => Object.hasOwn(value, key)), ...rest.sort(compare)]
}

/**
 * @shape  (value, order of its fields; all else is sorted) -> JSON without blanks
 * @errors none
 */
export const encode = (value: unknown, struct: Struct | "value" = "value"): string => {
  if (typeof value === "string") return quoted(value)
  if (Array.isArray(value)) return `[${value.map((item) => encode(item, struct)).join(",")}]`
  if (!isRecord(value)) return JSON.stringify(value ?? null)
  const isStruct = struct !== "value"
  const keys = isStruct ? ordered(value, struct) : Object.keys(value).sort(compare)
  const fields = keys
    .filter((key) => !isStruct || ALWAYS.has(key) || !isEmpty(value[key]))
    .map((key) => `${quoted(key)}:${encode(value[key], isStruct ? (struct[key] ?? "value") : "value")}`)
  return `{${fields.join(",")}}`
}
