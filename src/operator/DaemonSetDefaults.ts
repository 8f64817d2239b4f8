/**
 * What the API server fills into a DaemonSet's spec, so that ours can be compared with a live one. A default that is
 * missing here costs one write after somebody else's change, no more: see DaemonSet.
 *
 * @source k8s.io/kubernetes, pkg/apis/apps/v1 and pkg/apis/core/v1, defaults.go
 */
import { isObject, type JsonObject, listAt, objectAt } from "../../schemas/Json.ts"

const eachOf = (object: JsonObject, key: string, change: (item: JsonObject) => JsonObject): JsonObject =>
  Array.isArray(object[key]) ? { [key]: listAt(object, key).map((item) => (isObject(item) ? change(item) : item)) } : {}

const inside = (object: JsonObject, key: string, change: (value: JsonObject) => JsonObject): JsonObject =>
  isObject(object[key]) ? { [key]: change(objectAt(object, key)) } : {}

const probe = (given: JsonObject): JsonObject => ({
  timeoutSeconds: 1,
  periodSeconds: 10,
  successThreshold: 1,
  failureThreshold: 3,
  ...given,
  ...inside(given, "httpGet", (get) => ({ scheme: "HTTP", ...get }))
})

const environment = (variable: JsonObject): JsonObject => ({
  ...variable,
  ...inside(variable, "valueFrom", (from) => ({
    ...from,
    ...inside(from, "fieldRef", (field) => ({ apiVersion: "v1", ...field }))
  }))
})

const container = (given: JsonObject): JsonObject => ({
  terminationMessagePath: "/dev/termination-log",
  terminationMessagePolicy: "File",
  resources: {},
  ...given,
  ...eachOf(given, "ports", (port) => ({ protocol: "TCP", ...port })),
  ...eachOf(given, "env", environment),
  ...inside(given, "livenessProbe", probe),
  ...inside(given, "readinessProbe", probe)
})

const FILE_MODE = 0o644

const volume = (given: JsonObject): JsonObject => ({
  ...given,
  ...inside(given, "configMap", (source) => ({ defaultMode: FILE_MODE, ...source })),
  ...inside(given, "hostPath", (source) => ({ type: "", ...source }))
})

const podSpec = (given: JsonObject): JsonObject => ({
  restartPolicy: "Always",
  terminationGracePeriodSeconds: 30,
  dnsPolicy: "ClusterFirst",
  securityContext: {},
  schedulerName: "default-scheduler",
  ...(given["serviceAccountName"] === undefined ? {} : { serviceAccount: given["serviceAccountName"] }),
  ...given,
  ...eachOf(given, "containers", container),
  ...eachOf(given, "initContainers", container),
  ...eachOf(given, "volumes", volume)
})

/** @shape (spec as we write it) -> as the API server keeps it */
export const withDefaults = (spec: JsonObject): JsonObject => ({
  revisionHistoryLimit: 10,
  ...spec,
  ...inside(spec, "template", (template) => ({ ...template, ...inside(template, "spec", podSpec) })),
  ...inside(spec, "updateStrategy", (strategy) => ({
    ...strategy,
    ...inside(strategy, "rollingUpdate", (rolling) => ({ maxSurge: 0, ...rolling }))
  }))
})
