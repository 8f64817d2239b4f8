/**
 * What becomes of one Secret, given what is wanted and what is there: the thinking of SecretSync, without effects.
 *
 * A Secret is written only when something of it has to change, and only if it is ours: made by this driver or by
 * upstream's, which the managed label says. What others have put into it (labels, annotations, owners, finalizers) stays.
 *
 * Several nodes may write one Secret. Each write says of which version of the class it is, and when its content was
 * fetched; a node whose content is older leaves the Secret alone, also when it knows that its provider still gives it: a
 * provider may give different pods different content, and they would write it by turns. What says to have been fetched in
 * the future counts as well, as long as there is the pod that it was fetched for: its node, whose clock is ahead, would
 * write it again at once, and would find out by itself that it is old. Once its clock is put right, that node takes such a
 * time back.
 *
 * @source reference/driver.md 6.4, Q1, Q2; reference/defects.md D5, D6, D8
 */
import { DateTime, Redacted } from "effect"
import type { Secret } from "../../schemas/Core.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import { united } from "./OwnerReferences.ts"
import { MANAGED_LABEL, type SecretData } from "./SecretData.ts"

/** Under which the API server notes what we write. */
export const FIELD_MANAGER = "secrets-store-csi-driver"
/** Those whose labels and annotations are ours to take away: upstream's driver was here before. */
const OUR_MANAGERS: ReadonlySet<string> = new Set([FIELD_MANAGER, "secrets-store-csi"])

/** Annotations of ours on a synced Secret. */
export const KEYS = {
  /** Name of the class that it is made of. */
  className: "secrets-store.csi.k8s.io/class",
  /** "<creation time of the class>/<its generation>", which grows with every edit. */
  classVersion: "secrets-store.csi.k8s.io/class-version",
  /** When the content was fetched, and by which volume: the name of its generation. */
  fetched: "secrets-store.csi.k8s.io/fetched",
  /** UID of the pod that it was fetched for. */
  fetchedFor: "secrets-store.csi.k8s.io/fetched-for",
  /** Nobody was seen to use it: it is about to be removed. Whoever uses it takes this away. */
  unused: "secrets-store.csi.k8s.io/unused-since"
} as const

/** Keeps the Secret when nobody uses it any more. On the class, and from there on the Secret; "true". */
export const RETAIN_KEY = "secrets-store.csi.k8s.io/retain"

/** What one node wants a Secret to be. */
export interface Wanted {
  readonly namespace: string
  readonly secret: SecretData
  readonly owners: ReadonlyArray<OwnerReference>
  readonly className: string
  readonly classVersion: string
  /** As `fetchedAt` writes it: texts compare as times, and two volumes never have the same. */
  readonly fetched: string
  /** UID of the pod that it was fetched for. */
  readonly fetchedFor: string
  /** When the live Secret says that its content was fetched counts; see `standingOf`. */
  readonly trusts: boolean
  /** The live Secret names a time to come for content of a volume here: other nodes would believe it until then. */
  readonly isMisdated: boolean
  /** The class asks for Secrets of others to be taken over. */
  readonly adopts: boolean
  /** Another class asks for the Secret as well, was created later, and is in use: its content counts. */
  readonly yields: boolean
}

export type SecretDecision =
  | { readonly _tag: "Create"; readonly object: unknown }
  /** A JSON merge patch with the version that it was made of. */
  | { readonly _tag: "Patch"; readonly patch: unknown; readonly changes: ReadonlyArray<Change> }
  | { readonly _tag: "Unchanged" }
  /** Somebody else's: it is left alone. */
  | { readonly _tag: "Foreign" }
  /** What cannot be changed in it would have to change. A patch, if any, says only who uses it, so that it stays. */
  | { readonly _tag: "Blocked"; readonly why: string; readonly remedy: string; readonly patch?: unknown }
  /** It goes; the next look makes it anew. */
  | { readonly _tag: "Terminating" }

type Change = "data" | "labels" | "annotations" | "owners" | "mark"

/** @shape (creation time of a class, its generation) -> text that compares as the versions do */
export const classVersionOf = (creationTimestamp: string, generation: number): string =>
  `${creationTimestamp}/${`${generation}`.padStart(12, "0")}`

const digits = (value: number, length: number): string => `${value}`.padStart(length, "0")

/**
 * @shape  (millis, suffix) -> "2026_11_25_22_35_21.<suffix>", as generations of a volume are named
 * @units  milliseconds since the epoch
 */
export const fetchedAt = (millis: number, suffix: string): string => {
  const { day, hour, minute, month, second, year } = DateTime.toPartsUtc(DateTime.makeUnsafe(millis))
  return `${digits(year, 4)}_${[month, day, hour, minute, second].map((part) => digits(part, 2)).join("_")}.${suffix}`
}

/** Clocks of nodes may differ by so much. */
export const CLOCK_SKEW_MILLIS = 60_000

/** Content that says to have been fetched in the future, and the clocks when that was seen first. */
export interface Undated extends Clocks {
  readonly named: string
}

export interface Clocks {
  /** Time of day. */
  readonly nowMillis: number
  /** How much that is ahead of the monotonic clock: it changes when the time of day is set. */
  readonly leadMillis: number
}

/**
 * Content of the future was fetched before the clock was set back, and how old it is is not known, also when that time has
 * come. Unless it is the clock that was wrong when this was seen, and has been put right since.
 *
 * @shape  (what is known of the volume so far, name of its generation, clocks now) -> undefined: its name says its age
 * @units  milliseconds
 * @errors none
 */
export const undatedOf = (known: Undated | undefined, named: string, clocks: Clocks): Undated | undefined => {
  const isBeyond = (nowMillis: number) => named > fetchedAt(nowMillis + CLOCK_SKEW_MILLIS, "")
  const seen = known?.named === named ? known : { named, ...clocks }
  const wasBeyond = isBeyond(seen.nowMillis + clocks.leadMillis - seen.leadMillis)
  return isBeyond(clocks.nowMillis) || wasBeyond ? seen : undefined
}

const base64 = (data: Redacted.Redacted<Uint8Array>): string => Buffer.from(Redacted.value(data)).toString("base64")

const encoded = (secret: SecretData): ReadonlyMap<string, string> =>
  new Map([...secret.data].map(([key, data]) => [key, base64(data)] as const))

const stamps = ({ className, classVersion, fetched, fetchedFor }: Wanted) => ({
  [KEYS.className]: className,
  [KEYS.classVersion]: classVersion,
  [KEYS.fetched]: fetched,
  [KEYS.fetchedFor]: fetchedFor
})

/** @shape (wanted) -> the whole Secret, as it is created; values are in base64 */
const whole = (wanted: Wanted) => ({
  apiVersion: "v1",
  kind: "Secret",
  metadata: {
    name: wanted.secret.name,
    namespace: wanted.namespace,
    labels: wanted.secret.labels,
    annotations: { ...wanted.secret.annotations, ...stamps(wanted) },
    ownerReferences: united([], wanted.owners)
  },
  type: wanted.secret.type,
  data: Object.fromEntries(encoded(wanted.secret))
})

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const at = (value: unknown, ...path: ReadonlyArray<string>): unknown =>
  path.reduce<unknown>((found, key) => (isObject(found) ? found[key] : undefined), value)

/** The labels or annotations that we, or upstream's driver, have written, by the API server's own account. */
const writtenByUs = (live: Secret, part: "labels" | "annotations"): ReadonlySet<string> => {
  const managed = live.metadata["managedFields"]
  const ours = (Array.isArray(managed) ? managed : []).filter((entry) => OUR_MANAGERS.has(String(at(entry, "manager"))))
  const fields = ours.map((entry) => at(entry, "fieldsV1", "f:metadata", `f:${part}`))
  return new Set(
    fields
      .flatMap((found) => (isObject(found) ? Object.keys(found) : []))
      .flatMap((key) => (key.startsWith("f:") ? [key.slice(2)] : []))
  )
}

type Texts = Readonly<Record<string, string>>

/** What has to be set, and what of ours has to go: a part of a merge patch, empty when all is as it should be. */
const differences = (
  live: Texts,
  wanted: Texts,
  ours: ReadonlySet<string>
): Readonly<Record<string, string | null>> => {
  const patch: Record<string, string | null> = {}
  for (const [key, value] of Object.entries(wanted)) if (live[key] !== value) patch[key] = value
  for (const key of ours) if (key in live && !(key in wanted)) patch[key] = null
  return patch
}

const dataDifferences = (live: NonNullable<Secret["data"]>, wanted: ReadonlyMap<string, string>) => {
  const patch: Record<string, string | null> = {}
  for (const [key, value] of wanted) {
    const found = live[key]
    if (found === undefined || Redacted.value(found) !== value) patch[key] = value
  }
  for (const key of Object.keys(live)) if (!wanted.has(key)) patch[key] = null
  return patch
}

const isEmpty = (patch: Readonly<Record<string, unknown>>): boolean => Object.keys(patch).length === 0

/** @shape (live Secret) -> made by this driver, or by upstream's */
export const isOurs = (live: Secret): boolean => live.metadata.labels?.[MANAGED_LABEL] === "true"

/**
 * Whose it is is what our own annotation says: what upstream's driver left is its owners' business.
 *
 * @shape (metadata of a Secret of ours) -> it lasts no longer than its users
 */
export const mayGo = ({ annotations = {}, deletionTimestamp }: Secret["metadata"]): boolean =>
  annotations[KEYS.className] !== undefined && annotations[RETAIN_KEY] !== "true" && deletionTimestamp === undefined

/** Another node has written it of a newer class, or of newer content. */
const knowsMore = (live: Secret, { className, classVersion, fetched, trusts, yields }: Wanted): boolean => {
  const { annotations = {} } = live.metadata
  if (annotations[KEYS.className] !== className) return yields
  const version = annotations[KEYS.classVersion] ?? ""
  if (version !== classVersion) return version > classVersion
  return trusts && (annotations[KEYS.fetched] ?? "") > fetched
}

/** What is worth of it when a live Secret says when its content was fetched. */
export type Standing =
  | { readonly _tag: "Counts" }
  /** The volume that it was fetched for is of this node, and has other content by now. */
  | { readonly _tag: "Outdated"; readonly isInFuture: boolean }
  /** In the future: the clock of the node of this pod is ahead, or ours is behind. It counts while there is the pod. */
  | { readonly _tag: "InFuture"; readonly podUid: string }

/**
 * @shape  (live, UID of a pod here -> when the contents of its volumes were fetched, what is later than now) -> Standing
 * @errors none: a Secret without such a note counts, as oldest
 */
export const standingOf = (
  live: Secret | undefined,
  fetchedHere: (podUid: string) => ReadonlyArray<string>,
  fetchedMax: string
): Standing => {
  const { annotations = {} } = live?.metadata ?? {}
  const fetched = annotations[KEYS.fetched] ?? ""
  const podUid = annotations[KEYS.fetchedFor] ?? ""
  const here = fetchedHere(podUid)
  const isInFuture = fetched > fetchedMax
  if (here.length > 0) return here.includes(fetched) ? { _tag: "Counts" } : { _tag: "Outdated", isInFuture }
  return isInFuture ? { _tag: "InFuture", podUid } : { _tag: "Counts" }
}

/**
 * Decides what is done about one Secret.
 *
 * @shape  (live, or undefined when there is none, wanted) -> SecretDecision
 * @errors none: every pair has a decision
 */
export const decide = (live: Secret | undefined, wanted: Wanted): SecretDecision => {
  if (live === undefined) return { _tag: "Create", object: whole(wanted) }
  if (live.metadata.deletionTimestamp !== undefined) return { _tag: "Terminating" }
  if (!isOurs(live) && !wanted.adopts) return { _tag: "Foreign" }
  const { annotations = {}, labels = {}, ownerReferences = [] } = live.metadata
  const owners = united(ownerReferences, wanted.owners)
  const metadata: Record<string, unknown> = {}
  const patch: Record<string, unknown> = { metadata }
  const changes: Array<Change> = []
  const note = (change: Change, differs: boolean) => {
    if (differs) changes.push(change)
    return differs
  }

  // Owners and the mark are about who uses it, of which every node knows its own part.
  if (note("owners", owners.length > ownerReferences.length)) metadata["ownerReferences"] = owners
  const marked: Record<string, string | null> = KEYS.unused in annotations ? { [KEYS.unused]: null } : {}
  note("mark", !isEmpty(marked))

  const finished = () => {
    if (!isEmpty(marked)) metadata["annotations"] = marked
    metadata["resourceVersion"] = live.metadata.resourceVersion
    return patch
  }
  const blocked = (why: string, outcome = "it is made anew"): SecretDecision => ({
    _tag: "Blocked",
    why,
    remedy: `delete Secret ${wanted.namespace}/${wanted.secret.name}, and ${outcome}`,
    ...(changes.length > 0 && { patch: finished() })
  })

  if (!knowsMore(live, wanted)) {
    const ourAnnotations = new Set([...writtenByUs(live, "annotations")].filter((key) => !isStamp(key)))
    const ourLabels = writtenByUs(live, "labels")
    const newLabels = differences(labels, wanted.secret.labels, ourLabels)
    const newAnnotations = differences(annotations, wanted.secret.annotations, ourAnnotations)
    const data = dataDifferences(live.data ?? {}, encoded(wanted.secret))
    if ((live.type ?? "Opaque") !== wanted.secret.type) {
      const why = `it is of type ${live.type ?? "Opaque"}, and a type cannot be changed`
      return blocked(why, `it is made anew with type ${wanted.secret.type}`)
    }
    if (!isEmpty(data) && live.immutable === true) return blocked("it is immutable")
    if (note("data", !isEmpty(data))) patch["data"] = data
    if (note("labels", !isEmpty(newLabels))) metadata["labels"] = newLabels
    note("annotations", !isEmpty(newAnnotations))
    Object.assign(marked, newAnnotations)
    // What only stamps say is seldom a reason to write; with a write they are brought up to date.
    const isStampWrong = annotations[KEYS.className] !== wanted.className || wanted.isMisdated
    if (changes.some((change) => change !== "owners" && change !== "mark") || isStampWrong) {
      if (isStampWrong) note("annotations", !changes.includes("annotations"))
      Object.assign(marked, stamps(wanted))
    }
  }
  if (changes.length === 0) return { _tag: "Unchanged" }
  return { _tag: "Patch", patch: finished(), changes }
}

/**
 * What becomes of a Secret whose new content cannot be made, as after a mistake in its class: what is there stays, and has
 * the users of this node among its owners, so that it does not go with the pods that are replaced.
 *
 * @shape  (live, or undefined when there is none, { owners, className }) -> a JSON merge patch, or undefined
 */
export const keep = (
  live: Secret | undefined,
  { className, owners }: Pick<Wanted, "className" | "owners">
): unknown => {
  if (live === undefined || !isOurs(live)) return undefined
  const { annotations = {}, deletionTimestamp, ownerReferences = [], resourceVersion } = live.metadata
  if (annotations[KEYS.className] !== className || deletionTimestamp !== undefined) return undefined
  const all = united(ownerReferences, owners)
  return all.length > ownerReferences.length ? { metadata: { resourceVersion, ownerReferences: all } } : undefined
}

const STAMPS: ReadonlySet<string> = new Set(Object.values(KEYS))
const isStamp = (key: string): boolean => STAMPS.has(key)

/**
 * The other class that a Secret is made of, when it was created later than this one: whether it is still in use is to be
 * found out. The later one counts on every node, so that two classes never write a Secret by turns.
 *
 * @shape  (live, className, classVersion) -> name of the other class, or undefined
 */
export const laterClass = (live: Secret | undefined, className: string, classVersion: string): string | undefined => {
  const { annotations = {} } = live?.metadata ?? {}
  const recorded = annotations[KEYS.className]
  if (recorded === undefined || recorded === className) return undefined
  return (annotations[KEYS.classVersion] ?? "") > classVersion ? recorded : undefined
}

/** @shape (live Secret, when; null takes it back) -> the merge patch that says that nobody was seen to use it */
export const markUnused = (live: Secret, since: string | null): unknown => ({
  metadata: { resourceVersion: live.metadata.resourceVersion, annotations: { [KEYS.unused]: since } }
})
