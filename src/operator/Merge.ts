/**
 * How what is required of an object is brought into the live one: labels, annotations and owners are merged, contents
 * are compared by kind. What others have written beside ours stays.
 *
 * @source reference/operator.md 4.1, 4.2, Q12, Q25, Q27
 */
import { isEqual, isObject, type JsonObject, objectAt } from "../../schemas/Json.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { ObjectMeta, OwnerReference } from "../../schemas/Meta.ts"

/** What is to be done about one object. */
export type Change =
  | { readonly _tag: "Unchanged" }
  | { readonly _tag: "Create"; readonly object: Manifest }
  /** With the live resourceVersion: refused when somebody else was faster. */
  | { readonly _tag: "Update"; readonly object: Manifest; readonly detail?: string }
  /** Something differs that cannot be changed. The object is deleted, if it still is this one, and created. */
  | { readonly _tag: "Recreate"; readonly object: Manifest; readonly uid: string }

export const UNCHANGED: Change = { _tag: "Unchanged" }

type Texts = Readonly<Record<string, string>>

/** A key that ends in "-" takes the key before it away. */
const mergeTexts = (live: Texts | undefined, required: Texts | undefined): Texts => {
  const merged = new Map(Object.entries(live ?? {}))
  for (const [key, value] of Object.entries(required ?? {})) {
    if (key.endsWith("-")) merged.delete(key.replace(/-+$/u, ""))
    else merged.set(key, value)
  }
  return Object.fromEntries(merged)
}

const groupOf = (apiVersion: string): string => (apiVersion.includes("/") ? (apiVersion.split("/")[0] ?? "") : "")

const isSameOwner = (one: OwnerReference, other: OwnerReference): boolean =>
  one.name === other.name && one.kind === other.kind && groupOf(one.apiVersion) === groupOf(other.apiVersion)

const mergeOwners = (
  live: ReadonlyArray<OwnerReference>,
  required: ReadonlyArray<OwnerReference>
): ReadonlyArray<OwnerReference> => {
  const kept = live.flatMap((owner) => {
    const wanted = required.find((other) => isSameOwner(owner, other))
    if (wanted === undefined) return [owner]
    return wanted.uid.endsWith("-") ? [] : [wanted]
  })
  const added = required.filter((owner) => !owner.uid.endsWith("-") && !live.some((other) => isSameOwner(owner, other)))
  return [...kept, ...added]
}

const unlessEmpty = (key: "labels" | "annotations", value: Texts) =>
  Object.keys(value).length === 0 ? {} : { [key]: value }

/** @shape (live, required) -> the live metadata with what is required of it */
export const mergeMetadata = (live: ObjectMeta, required: ObjectMeta): ObjectMeta => {
  const { annotations: _, labels: __, ownerReferences: ___, ...rest } = live
  const owners = mergeOwners(live.ownerReferences ?? [], required.ownerReferences ?? [])
  return {
    ...rest,
    ...unlessEmpty("labels", mergeTexts(live.labels, required.labels)),
    ...unlessEmpty("annotations", mergeTexts(live.annotations, required.annotations)),
    ...(owners.length === 0 ? {} : { ownerReferences: owners })
  }
}

/** What a new object gets: without the keys that take something away. */
export const forCreation = (required: Manifest): Manifest => {
  const { annotations: _, labels: __, ownerReferences: ___, ...rest } = required.metadata
  return { ...required, metadata: { ...rest, ...mergeMetadata({}, required.metadata) } }
}

/**
 * Of a live object, what a new one like it is made of.
 *
 * @shape (live, merged with what is required) -> without what the API server gives to every object
 */
export const forRecreation = (object: Manifest): Manifest => {
  const { creationTimestamp, deletionTimestamp, generation, managedFields, resourceVersion, uid, ...metadata } =
    object.metadata
  return { ...object, metadata }
}

/** Empty and absent are the same to Go. */
const orEmpty = (value: unknown): unknown => value ?? []

const INJECT_LABEL = "config.openshift.io/inject-trusted-cabundle"
const CA_KEY = "ca-bundle.crt"

/** Somebody else fills this key; it is theirs unless ours has one. */
const keptData = (live: Manifest, required: Manifest): JsonObject => {
  const [has, wants] = [objectAt(live, "data"), objectAt(required, "data")]
  const isInjected = required.metadata.labels?.[INJECT_LABEL] === "true" && !Object.hasOwn(wants, CA_KEY)
  return isInjected && Object.hasOwn(has, CA_KEY) ? { ...wants, [CA_KEY]: has[CA_KEY] } : wants
}

const changedKeys = (one: JsonObject, other: JsonObject): ReadonlyArray<string> =>
  [...new Set([...Object.keys(one), ...Object.keys(other)])].filter((key) => !isEqual(one[key], other[key])).sort()

const withField = (object: Manifest, key: string, value: JsonObject): Manifest => {
  const { [key]: _, ...rest } = object
  const { apiVersion, kind, metadata } = object
  return Object.keys(value).length === 0
    ? { ...rest, apiVersion, kind, metadata }
    : { ...rest, apiVersion, kind, metadata, [key]: value }
}

const configMap = (live: Manifest, required: Manifest): { readonly object: Manifest; readonly detail?: string } => {
  const data = keptData(live, required)
  const changed = changedKeys(objectAt(live, "data"), data)
  const object = withField(withField(live, "data", data), "binaryData", objectAt(required, "binaryData"))
  return changed.length === 0
    ? { object }
    : { object, detail: `changed: ${changed.map((key) => `data.${key}`).join(", ")}` }
}

const normalRoleRef = (value: unknown): unknown =>
  isObject(value) ? { apiGroup: "rbac.authorization.k8s.io", kind: value["kind"], name: value["name"] } : value

const normalSubject = (value: unknown): unknown => {
  if (!isObject(value)) return value
  const { apiGroup, ...subject } = value
  return subject["kind"] === "ServiceAccount"
    ? subject
    : { apiGroup: apiGroup ?? "rbac.authorization.k8s.io", ...subject }
}

const subjectsOf = (object: Manifest): unknown => {
  const subjects = object["subjects"]
  return Array.isArray(subjects) ? subjects.map(normalSubject) : []
}

/** An update of what differs, when anything does. */
const updated = (live: Manifest, object: Manifest, required: Manifest, detail?: string): Change => {
  const metadata = mergeMetadata(live.metadata, required.metadata)
  if (isEqual(metadata, live.metadata) && isEqual(object, live)) return UNCHANGED
  return { _tag: "Update", object: { ...object, metadata }, ...(detail === undefined ? {} : { detail }) }
}

/**
 * Decides about an object of a kind that has no decision of its own. A live object that is being deleted is left alone:
 * it is looked at again when it is gone.
 *
 * @shape  (required, live) -> Change
 * @errors none: every pair has a decision
 * @source reference/operator.md 4.2, Q27
 */
export const decide = (required: Manifest, live: Manifest | undefined): Change => {
  if (live === undefined) return { _tag: "Create", object: forCreation(required) }
  if (live.metadata.deletionTimestamp !== undefined) return UNCHANGED
  switch (required.kind) {
    case "ServiceAccount":
      return updated(live, live, required)
    case "ConfigMap": {
      const { detail, object } = configMap(live, required)
      return updated(live, object, required, detail)
    }
    case "ClusterRole": {
      // Rules that are put together from other roles are written by Kubernetes.
      const aggregated = withField(live, "aggregationRule", objectAt(required, "aggregationRule"))
      const isSame =
        isObject(required["aggregationRule"]) || isEqual(orEmpty(live["rules"]), orEmpty(required["rules"]))
      return updated(live, isSame ? aggregated : { ...aggregated, rules: required["rules"] }, required)
    }
    case "ClusterRoleBinding":
    case "RoleBinding": {
      const isSame = isEqual(subjectsOf(live), subjectsOf(required))
      const object = isSame ? live : { ...live, subjects: required["subjects"] }
      if (isEqual(normalRoleRef(live["roleRef"]), normalRoleRef(required["roleRef"]))) {
        return updated(live, object, required)
      }
      const metadata = mergeMetadata(live.metadata, required.metadata)
      const wanted = { ...object, roleRef: required["roleRef"], metadata }
      return { _tag: "Recreate", object: forRecreation(wanted), uid: live.metadata.uid ?? "" }
    }
    default: {
      const isSame = isEqual(live["spec"], required["spec"])
      return updated(live, isSame ? live : { ...live, spec: required["spec"] }, required)
    }
  }
}
