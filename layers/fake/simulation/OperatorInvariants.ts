/**
 * What must be true of the operator, whatever happens to it: one function per promise, of what was observed to what is
 * wrong with it. The ids are those of the list of invariants in the project's defect reference, or of the defects of the
 * old operator in its reference.
 *
 * Nothing that is said here repeats a secret value.
 */
import { isEqual, isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "../KubernetesObject.ts"
import type { Invariant } from "./Invariants.ts"

const invariant = <Observed>(
  id: string,
  name: string,
  broken: (observed: Observed) => string | undefined
): Invariant<Observed> => ({ id, name, broken })

/** What an operator may do, by what it last read of the ClusterCSIDriver. */
export type Mandate = "nothing" | "status" | "release" | "remove" | "manage"

/** @shape (ClusterCSIDriver as it was read, undefined when there was none) -> Mandate */
export const mandateOf = (it: JsonObject | undefined): Mandate => {
  if (it === undefined) return "nothing"
  const state = textAt(objectAt(it, "spec"), "managementState") ?? ""
  const isDeleting = metadataOf(it)["deletionTimestamp"] !== undefined
  if (state === "Removed" || (state === "Managed" && isDeleting)) return "remove"
  if (state === "Managed") return "manage"
  return isDeleting ? "release" : "status"
}

/** What kind of write it is. */
export type WriteKind = "operand" | "operand deletion" | "finalizer" | "annotation" | "status"

const MAY: Readonly<Record<Mandate, ReadonlyArray<WriteKind>>> = {
  nothing: [],
  status: ["status"],
  release: ["status", "finalizer"],
  remove: ["status", "finalizer", "operand deletion"],
  manage: ["status", "finalizer", "annotation", "operand", "operand deletion"]
}

// ---- at every write

/** Two that write at once undo each other's work, so only the holder of the Lease does. */
export const writesAreFenced = invariant<{
  readonly identity: string
  readonly holder: string
  readonly what: string
}>("S18", "writesAreFenced", ({ holder, identity, what }) =>
  holder === identity ? undefined : `${identity} did ${what} while ${holder === "" ? "nobody" : holder} held the Lease`
)

/** Unmanaged, unknown and absent mean hands off; Removed means that nothing new is made. */
export const actsOnWhatIsWanted = invariant<{
  readonly mandate: Mandate
  readonly kind: WriteKind
  readonly readAgoMillis: number
  readonly readAgoMillisMax: number
  readonly what: string
}>("S17", "actsOnWhatIsWanted", ({ kind, mandate, readAgoMillis, readAgoMillisMax, what }) => {
  if (!MAY[mandate].includes(kind)) return `${what} (${kind}), though what it last read allows ${mandate}`
  return readAgoMillis <= readAgoMillisMax ? undefined : `${what}, by what it read ${readAgoMillis} ms ago`
})

/** Everything else in the cluster is somebody else's, CRDs first: with them go all their objects. */
export const writesOnlyItsOwn = invariant<{ readonly isOurs: boolean; readonly what: string }>(
  "S17",
  "writesOnlyItsOwn",
  ({ isOurs, what }) => (isOurs ? undefined : what)
)

/** Two installations that both write an object undo each other's work for ever. */
export const objectsOfOthersStay = invariant<{
  readonly isForeign: boolean
  readonly isAdopted: boolean
  readonly what: string
}>("S17", "objectsOfOthersStay", ({ isAdopted, isForeign, what }) =>
  isForeign && !isAdopted ? `${what}, an object of a Helm release` : undefined
)

/** What an administrator wants is written by the administrator alone, or GitOps and the operator fight. */
export const specIsTheAdministrators = invariant<{
  readonly before: JsonObject | undefined
  readonly after: JsonObject | undefined
}>("Q8", "specIsTheAdministrators", ({ after, before }) =>
  before === undefined || after === undefined || isEqual(before["spec"], after["spec"])
    ? undefined
    : "an operator changed the ClusterCSIDriver's spec"
)

const othersIn = (object: JsonObject, part: "labels" | "annotations"): ReadonlyArray<string> =>
  Object.keys(objectAt(metadataOf(object), part)).filter((key) => key.startsWith("others/"))

/** Labels are how others find and count objects, ours included. */
export const labelsOfOthersStay = invariant<{
  readonly before: JsonObject | undefined
  readonly after: JsonObject | undefined
  readonly what: string
}>("S7", "labelsOfOthersStay", ({ after, before, what }) => {
  if (before === undefined || after === undefined) return undefined
  const lost = [...othersIn(before, "labels").filter((key) => !othersIn(after, "labels").includes(key))]
  return lost.length === 0 ? undefined : `${what} lost ${lost.join(", ")}`
})

/** Mounts fail while there is no CSIDriver, so while Managed it goes only for what Kubernetes cannot change. */
export const csiDriverStays = invariant<{
  readonly mandate: Mandate
  readonly differsImmutably: boolean
}>("S16", "csiDriverStays", ({ differsImmutably, mandate }) =>
  mandate === "remove" || differsImmutably ? undefined : "the CSIDriver was deleted while it could be changed in place"
)

/** @shape (CSIDriver) -> does it differ from what is wanted in what cannot be changed */
export const differsImmutably = (csiDriver: JsonObject): boolean => {
  const spec = objectAt(csiDriver, "spec")
  return spec["attachRequired"] !== false || !isEqual(listAt(spec, "volumeLifecycleModes"), ["Ephemeral"])
}

export const audiencesOf = (csiDriver: JsonObject | undefined): ReadonlyArray<string> =>
  listAt(objectAt(csiDriver ?? {}, "spec"), "tokenRequests")
    .filter(isObject)
    .map((request) => textAt(request, "audience") ?? "")
    .sort()

/** Audiences that an administrator wrote into the CSIDriver may be their only copy. */
export const audiencesNeverShrink = invariant<{
  readonly areManaged: boolean
  readonly before: ReadonlyArray<string>
  readonly after: ReadonlyArray<string>
}>("S16", "audiencesNeverShrink", ({ after, areManaged, before }) => {
  const lost = areManaged ? [] : before.filter((audience) => !after.includes(audience))
  return lost.length === 0 ? undefined : `an operator took away ${lost.join(", ")}`
})

/** Without a finalizer nobody is asked before the ClusterCSIDriver goes, and the operand stays for ever. */
export const finalizerGoesFirst = invariant<{ readonly hasFinalizer: boolean; readonly what: string }>(
  "Q1",
  "finalizerGoesFirst",
  ({ hasFinalizer, what }) => (hasFinalizer ? undefined : `${what} before there was a finalizer`)
)

/** The finalizer is what remembers that something is left to be removed. */
export const finalizerGoesLast = invariant<{
  readonly mandate: Mandate
  readonly left: ReadonlyArray<string>
}>("Q1", "finalizerGoesLast", ({ left, mandate }) =>
  mandate === "remove" && left.length > 0 ? `no finalizer any more, and left are ${left.join(", ")}` : undefined
)

/** Pods that come before their ServiceAccount and its rights are refused, and come back later and later. */
export const rightsComeBeforePods = invariant<{ readonly missing: ReadonlyArray<string> }>(
  "Q42",
  "rightsComeBeforePods",
  ({ missing }) => (missing.length === 0 ? undefined : `the DaemonSet was made without ${missing.join(", ")}`)
)

/** Pods cannot end while nobody unmounts their volumes. */
export const driverOutlivesVolumes = invariant<{
  readonly consumers: ReadonlyArray<string>
  readonly isHurried: boolean
}>("Q7", "driverOutlivesVolumes", ({ consumers, isHurried }) =>
  isHurried || consumers.length === 0
    ? undefined
    : `the DaemonSet was deleted while its volumes were used by ${consumers.join(", ")}`
)

/** A driver that still runs needs its rights, and the kubelet the CSIDriver. */
export const driverGoesFirst = invariant<{
  readonly what: string
  readonly hasDaemonSet: boolean
  readonly pods: ReadonlyArray<string>
  readonly isHurried: boolean
}>("Q1", "driverGoesFirst", ({ hasDaemonSet, isHurried, pods, what }) => {
  if (hasDaemonSet) return `${what} before the DaemonSet`
  return isHurried || pods.length === 0 ? undefined : `${what} before the driver's pods ${pods.join(", ")}`
})

/** Each rollout replaces the driver on every node: once for one change, never to undo what was done just before. */
export const oneRolloutPerChange = invariant<{ readonly changes: number; readonly generation: unknown }>(
  "Q5",
  "oneRolloutPerChange",
  ({ changes, generation }) =>
    changes > 0 ? undefined : `the DaemonSet's generation ${String(generation)} has no change behind it`
)

/** A node that is taken over must not give away every Secret of the cluster. */
export const secretsStayShut = invariant<{ readonly rules: ReadonlyArray<unknown>; readonly what: string }>(
  "Q29",
  "secretsStayShut",
  ({ rules, what }) => {
    const opens = rules
      .filter(isObject)
      .some((rule) => ["secrets", "*"].some((resource) => listAt(rule, "resources").includes(resource)))
    return opens ? `${what} gives Secrets of all namespaces` : undefined
  }
)

/** A proxy's password, which must be nowhere but where the proxy is used. */
export const nothingSecretIsSaid = invariant<{ readonly where: string; readonly isThere: boolean }>(
  "S5",
  "nothingSecretIsSaid",
  ({ isThere, where }) => (isThere ? `a secret value is in ${where}` : undefined)
)

/** What two own, neither can take back: the old operator's stale conditions stay for years like that. */
export const oneOwnerPerCondition = invariant<{ readonly it: JsonObject }>("S13", "oneOwnerPerCondition", ({ it }) => {
  const owners = new Map<string, Array<string>>()
  for (const entry of listAt(metadataOf(it), "managedFields").filter(isObject)) {
    if (entry["subresource"] !== "status") continue
    const conditions = objectAt(objectAt(objectAt(entry, "fieldsV1"), "f:status"), "f:conditions")
    for (const key of Object.keys(conditions).filter((item) => item !== ".")) {
      owners.set(key, [...(owners.get(key) ?? []), textAt(entry, "manager") ?? ""])
    }
  }
  const shared = [...owners].filter(([, managers]) => managers.length > 1)
  return shared.length === 0
    ? undefined
    : shared.map(([key, managers]) => `${key} of ${managers.join(" and ")}`).join("; ")
})

/** An operator ends when it is told to, or when another one leads. */
export const operatorKeepsRunning = invariant<{ readonly cause: string }>(
  "S20",
  "operatorKeepsRunning",
  ({ cause }) => `an operator ended by itself: ${cause}`
)

/** A bug in a decision would otherwise only be seen as nothing being done. */
export const neverPanics = invariant<{ readonly reason: string; readonly message: string }>(
  "S20",
  "neverPanics",
  ({ message, reason }) => (reason.endsWith("Panic") ? message : undefined)
)

// ---- once faults have ended

/** What is wanted is reached from every state that faults can leave, without anybody's help. */
export const comesToRest = invariant<{ readonly why: string | undefined; readonly withinMillis: number }>(
  "L9",
  "comesToRest",
  ({ why, withinMillis }) => (why === undefined ? undefined : `not within ${withinMillis} ms: ${why}`)
)

const firstDifference = (path: string, one: unknown, other: unknown): string => {
  if (isObject(one) && isObject(other)) {
    for (const key of [...new Set([...Object.keys(one), ...Object.keys(other)])].sort()) {
      if (!isEqual(one[key], other[key])) return firstDifference(`${path}.${key}`, one[key], other[key])
    }
  }
  if (Array.isArray(one) && Array.isArray(other)) {
    const index = Array.from({ length: Math.max(one.length, other.length) }, (_, at) => at).find(
      (at) => !isEqual(one[at], other[at])
    )
    if (index !== undefined) return firstDifference(`${path}[${index}]`, one[index], other[index])
  }
  return `${path} is ${JSON.stringify(one) ?? "absent"}, undisturbed ${JSON.stringify(other) ?? "absent"}`
}

/** Whatever went wrong on the way leaves no trace in the objects. */
export const sameAsUndisturbed = invariant<{ readonly picture: JsonObject; readonly undisturbed: JsonObject }>(
  "L9",
  "sameAsUndisturbed",
  ({ picture, undisturbed }) => (isEqual(picture, undisturbed) ? undefined : firstDifference("", picture, undisturbed))
)

/** A cluster at rest is left in peace. */
export const quietMeansNoWrites = invariant<{
  readonly writes: number
  readonly quietMillis: number
}>("L6", "quietMeansNoWrites", ({ quietMillis, writes }) =>
  writes === 0 ? undefined : `${writes} writes in ${quietMillis} ms of quiet`
)

/** Who looks at the conditions must not have to look at the pods. */
export const conditionsAreTrue = invariant<{
  readonly conditions: ReadonlyMap<string, string>
  readonly available: number
  readonly desired: number
  readonly updated: number
}>("Q15", "conditionsAreTrue", ({ available, conditions, desired, updated }) => {
  const expected = new Map([
    ["Available", available > 0 ? "True AsExpected" : "False Deploying"],
    ["Progressing", updated < desired ? "True Deploying" : "False AsExpected"],
    ["Degraded", "False AsExpected"]
  ])
  const wrong = [...expected].filter(([type, value]) => conditions.get(type) !== value)
  return wrong.length === 0
    ? undefined
    : `${wrong.map(([type]) => `${type} ${conditions.get(type) ?? "absent"}`).join(", ")} with ${available} of ${desired} pods available, ${updated} updated`
})

/** Rights to Secrets are where they are asked for, and nowhere else. */
export const rightsFollowClasses = invariant<{
  readonly bound: ReadonlyArray<string>
  readonly asking: ReadonlyArray<string>
}>("Q29", "rightsFollowClasses", ({ asking, bound }) =>
  isEqual(bound, asking) ? undefined : `bound in ${bound.join(", ")}; asked for in ${asking.join(", ")}`
)

/** A rollout that does not move is said to be stuck, and is not any more once it moves. */
export const stuckIsSaid = invariant<{ readonly degraded: string; readonly expected: string }>(
  "Q15",
  "stuckIsSaid",
  ({ degraded, expected }) => (degraded === expected ? undefined : `Degraded is ${degraded}, not ${expected}`)
)

/** Somebody's pods are more important than a removal. */
export const removalWaits = invariant<{ readonly progressing: string; readonly hasDaemonSet: boolean }>(
  "Q7",
  "removalWaits",
  ({ hasDaemonSet, progressing }) =>
    hasDaemonSet && progressing === "True WaitingForPods"
      ? undefined
      : `Progressing is ${progressing}, the DaemonSet is ${hasDaemonSet ? "there" : "gone"}`
)

/** What is removed leaves nothing behind, and nobody waits for ever. */
export const nothingIsLeft = invariant<{
  readonly left: ReadonlyArray<string>
  readonly hasFinalizer: boolean
  readonly withinMillis: number
}>("L-removal", "nothingIsLeft", ({ hasFinalizer, left, withinMillis }) => {
  const all = [...left, ...(hasFinalizer ? ["the finalizer"] : [])]
  return all.length === 0 ? undefined : `after ${withinMillis} ms: ${all.join(", ")}`
})

/** What only looks like ours is there at the end as it was at the beginning. */
export const canariesLive = invariant<{ readonly lost: ReadonlyArray<string> }>("S17", "canariesLive", ({ lost }) =>
  lost.length === 0 ? undefined : `gone or changed: ${lost.join(", ")}`
)
