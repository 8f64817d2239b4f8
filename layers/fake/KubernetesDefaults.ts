/**
 * What an API server writes into objects of the operator's kinds besides what it was sent, and what it refuses to
 * change in them. Total functions on plain JSON; each may be run twice on the same object.
 *
 * @source k8s.io/kubernetes, pkg/apis (core, apps, storage, networking, rbac), defaults and validation, as a server of
 *         1.36 answers
 */
import {
  isEqual,
  isObject,
  type JsonObject,
  listAt,
  metadataOf,
  objectAt,
  textAt,
  without
} from "./KubernetesObject.ts"

type Change = (object: JsonObject) => JsonObject

const filled = (object: JsonObject, defaults: JsonObject): JsonObject => ({ ...defaults, ...object })

/** Changes a part that is there. */
const at = (object: JsonObject, key: string, change: Change): JsonObject => {
  const part = object[key]
  return isObject(part) ? { ...object, [key]: change(part) } : object
}

/** Changes the items of a list that is there. */
const each = (object: JsonObject, key: string, change: Change): JsonObject => {
  const list = object[key]
  return Array.isArray(list)
    ? { ...object, [key]: list.map((item: unknown) => (isObject(item) ? change(item) : item)) }
    : object
}

const chained =
  (...changes: ReadonlyArray<Change>): Change =>
  (object) =>
    changes.reduce((changed, change) => change(changed), object)

const inPart =
  (key: string, ...changes: ReadonlyArray<Change>): Change =>
  (object) =>
    at(object, key, chained(...changes))
const inEach =
  (key: string, ...changes: ReadonlyArray<Change>): Change =>
  (object) =>
    each(object, key, chained(...changes))
const withDefaults =
  (defaults: JsonObject): Change =>
  (object) =>
    filled(object, defaults)

/** rw-r--r-- */
const FILE_MODE = 0o644
const FIELD_REF = inPart("fieldRef", withDefaults({ apiVersion: "v1" }))
const HTTP_GET = inPart("httpGet", withDefaults({ path: "/", scheme: "HTTP" }))
const FILES = withDefaults({ defaultMode: FILE_MODE })
const DOWNWARD = inEach("items", FIELD_REF)

/** Texts and lists that say nothing are left out. */
const withoutNothing =
  (...keys: ReadonlyArray<string>): Change =>
  (object) =>
    without(object, ...keys.filter((key) => object[key] === ""))

const PROBE = chained(
  withDefaults({ timeoutSeconds: 1, periodSeconds: 10, successThreshold: 1, failureThreshold: 3 }),
  HTTP_GET,
  inPart("grpc", withDefaults({ service: "" }))
)

/** "registry:5000/driver" has no tag, and "driver:latest" one that moves. */
const pullPolicyOf = (image: string): string => {
  const name = image.split("/").at(-1) ?? ""
  if (name.includes("@")) return "IfNotPresent"
  const [, tag = "latest"] = name.split(":")
  return tag === "latest" ? "Always" : "IfNotPresent"
}

const container: Change = chained(
  (it) => filled(it, { imagePullPolicy: pullPolicyOf(textAt(it, "image") ?? "") }),
  withDefaults({
    resources: {},
    terminationMessagePath: "/dev/termination-log",
    terminationMessagePolicy: "File"
  }),
  inEach("ports", withDefaults({ protocol: "TCP" })),
  inEach("env", withoutNothing("value"), inPart("valueFrom", FIELD_REF)),
  ...["livenessProbe", "readinessProbe", "startupProbe"].map((probe) => inPart(probe, PROBE)),
  inPart("lifecycle", inPart("postStart", HTTP_GET), inPart("preStop", HTTP_GET))
)

const VOLUME = chained(
  // A volume without a source is an empty directory.
  (it) => (Object.keys(it).some((key) => key !== "name") ? it : filled(it, { emptyDir: {} })),
  inPart("hostPath", withDefaults({ type: "" })),
  inPart("configMap", FILES),
  inPart("secret", FILES),
  inPart("downwardAPI", FILES, DOWNWARD),
  inPart(
    "projected",
    FILES,
    inEach(
      "sources",
      inPart("serviceAccountToken", withDefaults({ expirationSeconds: 3600 })),
      inPart("downwardAPI", DOWNWARD)
    )
  )
)

const POD_SPEC = chained(
  withDefaults({
    restartPolicy: "Always",
    terminationGracePeriodSeconds: 30,
    dnsPolicy: "ClusterFirst",
    securityContext: {},
    schedulerName: "default-scheduler"
  }),
  (spec) => {
    const account = textAt(spec, "serviceAccountName") ?? textAt(spec, "serviceAccount")
    // The old name of the field follows the new one.
    return account === undefined ? spec : { ...spec, serviceAccountName: account, serviceAccount: account }
  },
  inEach("volumes", VOLUME),
  inEach("initContainers", container),
  inEach("containers", container)
)

const ROLLING_UPDATE = { maxSurge: 0, maxUnavailable: 1 }

const updateStrategy: Change = (spec) => {
  const strategy = filled(objectAt(spec, "updateStrategy"), { type: "RollingUpdate" })
  const rolling = { rollingUpdate: filled(objectAt(strategy, "rollingUpdate"), ROLLING_UPDATE) }
  return { ...spec, updateStrategy: strategy["type"] === "RollingUpdate" ? { ...strategy, ...rolling } : strategy }
}

const TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"

const withAnnotation = (object: JsonObject, annotations: (before: JsonObject) => JsonObject): JsonObject => ({
  ...object,
  metadata: { ...metadataOf(object), annotations: annotations(objectAt(metadataOf(object), "annotations")) }
})

export const prepareDaemonSet: Change = chained(
  inPart(
    "spec",
    withDefaults({ revisionHistoryLimit: 10 }),
    updateStrategy,
    inPart("template", inPart("spec", POD_SPEC))
  ),
  // The annotation is a field to the server, and a number that is not there is zero.
  (daemonSet) => withAnnotation(daemonSet, (before) => filled(before, { [TEMPLATE_GENERATION]: "0" }))
)

/** How often the template changed is counted in an annotation, which nobody else can set. */
export const settleDaemonSet = (daemonSet: JsonObject, previous: JsonObject | undefined): JsonObject => {
  const templateOf = (object: JsonObject) => objectAt(objectAt(object, "spec"), "template")
  const before = Number(textAt(objectAt(metadataOf(previous ?? {}), "annotations"), TEMPLATE_GENERATION) ?? 0)
  const isSame = previous !== undefined && isEqual(templateOf(daemonSet), templateOf(previous))
  const count = String(isSame ? before : before + 1)
  return withAnnotation(daemonSet, (annotations) => ({ ...annotations, [TEMPLATE_GENERATION]: count }))
}

/** The parts that every DaemonSet has. */
export const DAEMON_SET_SPEC: JsonObject = {
  template: { metadata: {}, spec: { containers: [] } },
  updateStrategy: {}
}

/** Counts are shown, also those that nobody wrote. */
export const DAEMON_SET_STATUS: JsonObject = {
  currentNumberScheduled: 0,
  desiredNumberScheduled: 0,
  numberMisscheduled: 0,
  numberReady: 0
}

const sorted = (object: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(object).sort(([one], [other]) => (one < other ? -1 : 1)))

export const validateDaemonSet = (daemonSet: JsonObject, previous: JsonObject | undefined): ReadonlyArray<string> => {
  const spec = objectAt(daemonSet, "spec")
  const selector = objectAt(spec, "selector")
  const wanted = objectAt(selector, "matchLabels")
  const labels = objectAt(objectAt(objectAt(spec, "template"), "metadata"), "labels")
  const isChanged = previous !== undefined && !isEqual(selector, objectAt(objectAt(previous, "spec"), "selector"))
  const isMatched = Object.entries(wanted).every(([key, value]) => labels[key] === value)
  return [
    ...(isChanged ? [`spec.selector: Invalid value: ${JSON.stringify(selector)}: field is immutable`] : []),
    ...(isMatched
      ? []
      : [
          `spec.template.metadata.labels: Invalid value: ${JSON.stringify(sorted(labels))}: \`selector\` does not match template \`labels\``
        ])
  ]
}

const CSI_DRIVER: JsonObject = {
  attachRequired: true,
  podInfoOnMount: false,
  volumeLifecycleModes: ["Persistent"],
  storageCapacity: false,
  fsGroupPolicy: "ReadWriteOnceWithFSType",
  requiresRepublish: false,
  seLinuxMount: false
}

export const prepareCsiDriver: Change = (driver) => ({
  ...driver,
  spec: filled(objectAt(driver, "spec"), CSI_DRIVER)
})

const TOKEN_SECONDS_MIN = 600

export const validateCsiDriver = (driver: JsonObject, previous: JsonObject | undefined): ReadonlyArray<string> => {
  const spec = objectAt(driver, "spec")
  const before = previous === undefined ? spec : objectAt(previous, "spec")
  const immutable = (key: string, field: string) =>
    isEqual(spec[key], before[key])
      ? []
      : [`spec.${field}: Invalid value: ${JSON.stringify(spec[key])}: field is immutable`]
  const tokens = listAt(spec, "tokenRequests").filter(isObject)
  const audiences = tokens.map((token) => textAt(token, "audience") ?? "")
  return [
    // The message has a name of its own for it.
    ...immutable("attachRequired", "attachedRequired"),
    ...immutable("volumeLifecycleModes", "volumeLifecycleModes"),
    ...tokens.flatMap(({ expirationSeconds }, index) => {
      const field = `spec.tokenRequests[${index}]`
      const audience = audiences[index] ?? ""
      return [
        ...(audiences.indexOf(audience) < index
          ? [`${field}.audience: Duplicate value: ${JSON.stringify(audience)}`]
          : []),
        ...(typeof expirationSeconds === "number" && expirationSeconds < TOKEN_SECONDS_MIN
          ? [
              `${field}.expirationSeconds: Invalid value: ${expirationSeconds}: may not specify a duration less than 10 minutes`
            ]
          : [])
      ]
    })
  ]
}

const RULE = inEach("ports", withDefaults({ protocol: "TCP" }))

export const prepareNetworkPolicy: Change = (policy) => {
  const spec = objectAt(policy, "spec")
  const policyTypes = ["Ingress", ...(spec["egress"] === undefined ? [] : ["Egress"])]
  const whole = filled(spec, { podSelector: {}, policyTypes })
  return { ...policy, spec: chained(inEach("ingress", RULE), inEach("egress", RULE))(whole) }
}

const RBAC = "rbac.authorization.k8s.io"

/** Of a RoleBinding or ClusterRoleBinding. */
export const prepareBinding: Change = chained(
  inPart("roleRef", withDefaults({ apiGroup: RBAC })),
  inEach("subjects", (subject) =>
    subject["kind"] === "User" || subject["kind"] === "Group" ? filled(subject, { apiGroup: RBAC }) : subject
  )
)

export const validateBinding = (binding: JsonObject, previous: JsonObject | undefined): ReadonlyArray<string> => {
  const roleRef = objectAt(binding, "roleRef")
  if (previous === undefined || isEqual(roleRef, objectAt(previous, "roleRef"))) return []
  const { apiGroup: APIGroup, kind: Kind, name: Name } = roleRef
  return [`roleRef: Invalid value: ${JSON.stringify({ APIGroup, Kind, Name })}: cannot change roleRef`]
}

export const prepareEndpointSlice: Change = chained(
  inEach("endpoints", withDefaults({ conditions: {} })),
  inEach("ports", withDefaults({ name: "", protocol: "TCP" }))
)
