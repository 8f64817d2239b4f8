/**
 * The SecretProviderClassPodStatus of a volume: which versions a pod has mounted, in the pod's own namespace.
 *
 * One object belongs to one volume. Its name is made of the names of pod, namespace and class, which two volumes may
 * share (D7, Q14): the second one then gets a name of its own. An object that says the right thing already is not
 * written. A pod that is made anew under its old name takes the object over, and not the other way round.
 *
 * @source driver v1.6.0, pkg/secrets-store/utils.go; reference/driver.md 5.3-5.5, Q5, Q14; reference/defects.md D7
 */
import { Effect } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { type Asked, NOTHING_ASKED, sameAsked } from "../../schemas/ForceRefresh.ts"
import type { ObjectVersion } from "../../schemas/Provider.ts"
import type { PodStatusStatus, SecretProviderClassPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import type { KubernetesApi } from "../ports/KubernetesApi.ts"
import * as Resource from "../reconciler/Resource.ts"
import { conflictRetry } from "../reconciler/Schedules.ts"
import type { PodIdentity } from "./VolumeRecord.ts"

/** Which node wrote the object; the driver's caches select by it. */
export const NODE_LABEL = "internal.secrets-store.csi.k8s.io/node-name"

/** The values of `secrets-store.csi.k8s.io/force-refresh` on pod and class that the mounted content is newer than. */
const HONOURED_KEYS = {
  pod: "secrets-store.csi.k8s.io/refreshed-for-pod",
  secretProviderClass: "secrets-store.csi.k8s.io/refreshed-for-class"
} as const

const NAME_LENGTH_MAX = 253
const LABEL_LENGTH_MAX = 63

/** One volume, and what it holds. */
export interface PodStatusInput {
  readonly nodeId: string
  readonly pod: PodIdentity
  readonly secretProviderClassName: string
  readonly targetPath: string
  readonly objectVersions: ReadonlyArray<ObjectVersion>
  /** Nothing when absent. */
  readonly honoured?: Asked
}

// ---- decide

const HASH_LENGTH = 13

/** FNV-1a of 64 bits over UTF-8, in base 36: names keep apart what they cannot spell out. Guards no secret. */
const hash = (text: string): string => {
  let value = 0xcbf29ce484222325n
  for (const byte of new TextEncoder().encode(text)) {
    value = BigInt.asUintN(64, (value ^ BigInt(byte)) * 0x100000001b3n)
  }
  return value.toString(36).padStart(HASH_LENGTH, "0")
}

/** The beginning of a text and the hash of what tells it apart; names may not have a dot or dash before the dash. */
const withHash = (text: string, told: string, lengthMax: number): string =>
  `${text.slice(0, lengthMax - HASH_LENGTH - 1).replace(/[^A-Za-z0-9]+$/u, "")}-${hash(told)}`

/**
 * The name of a volume's pod status.
 *
 * @shape  (podName, namespace, secretProviderClassName) -> name, at most 253 characters
 * @source reference/driver.md 5.4
 */
export const nameOf = (podName: string, namespace: string, secretProviderClassName: string): string => {
  const name = `${podName}-${namespace}-${secretProviderClassName}`
  return name.length > NAME_LENGTH_MAX ? withHash(name, name, NAME_LENGTH_MAX) : name
}

/** @shape (name, targetPath) -> the name to use when the first one belongs to another volume */
export const suffixedName = (name: string, targetPath: string): string => withHash(name, targetPath, NAME_LENGTH_MAX)

/** @shape (nodeId) -> the value of the node label: the node id as long as it fits */
export const nodeLabel = (nodeId: string): string =>
  nodeId.length > LABEL_LENGTH_MAX ? withHash(nodeId, nodeId, LABEL_LENGTH_MAX) : nodeId

// Surrogates stand for characters beyond all others, but are numbered before some.
const rank = (unit: number): number => (unit >= 0xe000 ? unit - 0x800 : unit >= 0xd800 ? unit + 0x2000 : unit)

/** The order of the texts' UTF-8 bytes, which is not JavaScript's. */
const byBytes = (a: string, b: string): number => {
  const length = Math.min(a.length, b.length)
  for (let index = 0; index < length; index++) {
    const difference = rank(a.charCodeAt(index)) - rank(b.charCodeAt(index))
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

/**
 * @shape  (versions) -> the same, sorted by the bytes of their ids; the given array is left alone
 * @source driver v1.6.0, pkg/util/spcpsutil; reference/driver.md 13.1
 */
export const orderById = (versions: ReadonlyArray<ObjectVersion>): ReadonlyArray<ObjectVersion> =>
  [...versions].sort((a, b) => byBytes(a.id, b.id))

const honouredIn = (annotations: Readonly<Record<string, string>> = {}): Asked => ({
  pod: annotations[HONOURED_KEYS.pod] ?? "",
  secretProviderClass: annotations[HONOURED_KEYS.secretProviderClass] ?? ""
})

/** @shape (annotations of others and an older wish of ours, wish) -> undefined when there are none */
const annotated = (
  annotations: Readonly<Record<string, string>>,
  honoured: Asked
): { readonly annotations?: Readonly<Record<string, string>> } => {
  const { [HONOURED_KEYS.pod]: _pod, [HONOURED_KEYS.secretProviderClass]: _class, ...others } = annotations
  const all = {
    ...others,
    ...notEmpty(HONOURED_KEYS.pod, honoured.pod),
    ...notEmpty(HONOURED_KEYS.secretProviderClass, honoured.secretProviderClass)
  }
  return Object.keys(all).length === 0 ? {} : { annotations: all }
}

const notEmpty = <K extends string>(key: K, value: string) => (value === "" ? {} : { [key]: value })

/**
 * The whole object, as it is created.
 *
 * @shape  (input, name?) -> SecretProviderClassPodStatus; empty fields are left out, as Go does
 * @errors none
 * @source reference/driver.md 5.5; reference/wire.md e.1
 */
export const desired = (
  { honoured = NOTHING_ASKED, nodeId, objectVersions, pod, secretProviderClassName, targetPath }: PodStatusInput,
  name: string = nameOf(pod.name, pod.namespace, secretProviderClassName)
): SecretProviderClassPodStatus => ({
  apiVersion: "secrets-store.csi.x-k8s.io/v1",
  kind: "SecretProviderClassPodStatus",
  metadata: {
    name,
    namespace: pod.namespace,
    labels: { [NODE_LABEL]: nodeLabel(nodeId) },
    ...annotated({}, honoured),
    ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: pod.name, uid: pod.uid }]
  },
  status: {
    ...notEmpty("podName", pod.name),
    ...notEmpty("secretProviderClassName", secretProviderClassName),
    mounted: true,
    ...notEmpty("targetPath", targetPath),
    ...(objectVersions.length === 0
      ? {}
      : {
          objects: orderById(objectVersions).map(({ id, version }) => ({
            ...notEmpty("id", id),
            ...notEmpty("version", version)
          }))
        })
  }
})

export type PodStatusDecision =
  | { readonly _tag: "Unchanged" }
  | { readonly _tag: "Update"; readonly object: SecretProviderClassPodStatus }
  | { readonly _tag: "OtherVolume" }

/** A field that was never written says nothing. */
const contradicts = (was: string | undefined, is: string | undefined): boolean =>
  was !== undefined && was !== "" && was !== is

const isOthers = (existing: SecretProviderClassPodStatus, wanted: SecretProviderClassPodStatus): boolean => {
  const was = existing.status ?? {}
  const is = wanted.status ?? {}
  if (contradicts(was.podName, is.podName)) return true
  if (contradicts(was.secretProviderClassName, is.secretProviderClassName)) return true
  // The same pod has the class twice. In an older pod of this name, the target path was another one anyway.
  return contradicts(was.targetPath, is.targetPath) && hasOwner(existing, ownerUid(wanted))
}

const ownerUid = (object: SecretProviderClassPodStatus): string => object.metadata.ownerReferences?.[0]?.uid ?? ""

const hasOwner = (object: SecretProviderClassPodStatus, uid: string): boolean =>
  (object.metadata.ownerReferences ?? []).some((reference) => reference.uid === uid)

/** @shape (a, b) -> they say the same of the same volume */
export const sameStatus = (a: PodStatusStatus = {}, b: PodStatusStatus = {}): boolean => {
  const [ours = [], theirs = []] = [a.objects, b.objects]
  return (
    (a.podName ?? "") === (b.podName ?? "") &&
    (a.secretProviderClassName ?? "") === (b.secretProviderClassName ?? "") &&
    (a.mounted ?? false) === (b.mounted ?? false) &&
    (a.targetPath ?? "") === (b.targetPath ?? "") &&
    ours.length === theirs.length &&
    ours.every(
      ({ id = "", version = "" }, index) =>
        id === (theirs[index]?.id ?? "") && version === (theirs[index]?.version ?? "")
    )
  )
}

/** Exactly the one owner, with exactly its four fields. */
const sameOwners = (existing: SecretProviderClassPodStatus, wanted: SecretProviderClassPodStatus): boolean => {
  const [is, ...others] = existing.metadata.ownerReferences ?? []
  const [owner] = wanted.metadata.ownerReferences ?? []
  return (
    is !== undefined &&
    owner !== undefined &&
    others.length === 0 &&
    Object.keys(is).length === Object.keys(owner).length &&
    Object.entries(owner).every(([key, value]) => is[key] === value)
  )
}

/**
 * What becomes of an object that exists under the wanted name.
 *
 * @shape  (existing, desired) -> Unchanged | Update (with the object to PUT, of the version that was read) | OtherVolume
 * @errors none: every pair has a decision
 * @source driver v1.6.0, pkg/secrets-store/utils.go, createOrUpdateSecretProviderClassPodStatus; reference/driver.md
 *         5.5, Q5, Q14; reference/defects.md D7
 */
export const decide = (
  existing: SecretProviderClassPodStatus,
  wanted: SecretProviderClassPodStatus
): PodStatusDecision => {
  if (isOthers(existing, wanted)) return { _tag: "OtherVolume" }
  const labels = existing.metadata.labels ?? {}
  const label = wanted.metadata.labels?.[NODE_LABEL] ?? ""
  const { annotations = {}, ...metadata } = existing.metadata
  const honoured = honouredIn(wanted.metadata.annotations)
  if (
    labels[NODE_LABEL] === label &&
    sameOwners(existing, wanted) &&
    sameStatus(existing.status, wanted.status) &&
    sameAsked(honouredIn(annotations), honoured)
  ) {
    return { _tag: "Unchanged" }
  }
  const { ownerReferences = [] } = wanted.metadata
  return {
    _tag: "Update",
    object: {
      ...existing,
      metadata: {
        ...metadata,
        labels: { ...labels, [NODE_LABEL]: label },
        ...annotated(annotations, honoured),
        ownerReferences
      },
      status: wanted.status ?? {}
    }
  }
}

// ---- act

type Written = "Written" | "Unchanged" | "OtherVolume"

const getOrUndefined = (namespace: string, name: string) =>
  Effect.catchIf(
    Resource.get(Resource.podStatuses, namespace, name),
    (failure) => failure.isNotFound,
    () => Effect.undefined
  )

/** Somebody was there between two requests of ours, or an answer was lost: what is there now has to be looked at. */
const mayHaveChanged = (failure: KubernetesApiFailed): boolean =>
  failure.isConflict ||
  failure.isAlreadyExists ||
  (failure.method === "PUT" && failure.isNotFound) ||
  failure.reason === "Network" ||
  failure.reason === "Closed"

/** A newer pod of the same name has it now. Its older volume, while it lasts, must not take it back. */
const isTakenOver = (existing: SecretProviderClassPodStatus, wanted: SecretProviderClassPodStatus): boolean =>
  (existing.metadata.ownerReferences ?? []).length > 0 && !hasOwner(existing, ownerUid(wanted))

/**
 * The pod that has the name now is the one that the object speaks of. A kubelet that has not heard of that yet may ask for
 * a volume of an older pod for the first time, and on another node.
 */
const isOfLivingPod = (
  existing: SecretProviderClassPodStatus,
  { name, namespace }: { readonly name: string; readonly namespace: string }
) =>
  Resource.get(Resource.podUses, namespace, name).pipe(
    Effect.map(({ metadata }) => hasOwner(existing, metadata.uid ?? "")),
    // Whoever may not look is told what it was told before.
    Effect.catchIf(
      (failure) => failure.isNotFound || failure.reason === "Forbidden",
      () => Effect.succeed(false)
    )
  )

/** Brings one name to what is wanted. Every further try reads afresh, also after a write whose answer was lost. */
const bring = (
  wanted: SecretProviderClassPodStatus,
  firstStep: "Create" | "Read"
): Effect.Effect<Written, KubernetesApiFailed, KubernetesApi> =>
  Effect.suspend(() => {
    const { name = "", namespace = "" } = wanted.metadata
    let step = firstStep
    const attempt = Effect.gen(function* (): Effect.gen.Return<Written, KubernetesApiFailed, KubernetesApi> {
      if (step === "Create") {
        step = "Read"
        const created = yield* Resource.post(Resource.podStatuses, wanted).pipe(
          Effect.as(true),
          Effect.catchIf(
            (failure) => failure.isAlreadyExists,
            () => Effect.succeed(false)
          )
        )
        if (created) return "Written"
      }
      const existing = yield* getOrUndefined(namespace, name)
      if (existing === undefined) {
        yield* Resource.post(Resource.podStatuses, wanted)
        return "Written"
      }
      if (isTakenOver(existing, wanted)) {
        if (firstStep === "Read") return "OtherVolume"
        if (yield* isOfLivingPod(existing, { namespace, name: wanted.status?.podName ?? "" })) return "OtherVolume"
      }
      const decision = decide(existing, wanted)
      if (decision._tag !== "Update") return decision._tag
      yield* Resource.replace(Resource.podStatuses, decision.object)
      return "Written"
    })
    return Effect.retry(attempt, { schedule: conflictRetry, while: mayHaveChanged })
  })

/**
 * Records what a volume holds. Without a known name the object is created, which is one request; what exists is read
 * and written only when it differs.
 *
 * @shape  (input; knownName: as last answered, undefined the first time) -> { name, written: false if it was right }
 * @errors KubernetesApiFailed, after five tries when others keep writing the object
 * @source reference/driver.md 5.5
 */
export const record = Effect.fn("PodStatus.record")(function* (
  input: PodStatusInput & { readonly knownName: string | undefined }
): Effect.fn.Return<{ readonly name: string; readonly written: boolean }, KubernetesApiFailed, KubernetesApi> {
  const { knownName, pod, secretProviderClassName, targetPath } = input
  const plain = nameOf(pod.name, pod.namespace, secretProviderClassName)
  const own = suffixedName(plain, targetPath)
  const first = knownName ?? plain
  const result = yield* bring(desired(input, first), knownName === undefined ? "Create" : "Read")
  if (result !== "OtherVolume") return { name: first, written: result === "Written" }
  const second = first === own ? "OtherVolume" : yield* bring(desired(input, own), "Create")
  if (second !== "OtherVolume") return { name: own, written: second === "Written" }
  return yield* new KubernetesApiFailed({
    method: "POST",
    path: Resource.pathOf(Resource.podStatuses, pod.namespace),
    status: 409,
    reason: "AlreadyExists",
    detail: `${Resource.qualifiedName(Resource.podStatuses)} ${JSON.stringify(own)} belongs to another volume`
  })
})

/**
 * Finds the object of a volume that another process of the driver recorded.
 *
 * @shape  (pod, class, targetPath) -> { name, objectVersions, honoured }, undefined when there is none
 * @errors KubernetesApiFailed
 */
export const find = Effect.fn("PodStatus.find")(function* (
  input: Pick<PodStatusInput, "pod" | "secretProviderClassName" | "targetPath">
): Effect.fn.Return<
  | { readonly name: string; readonly objectVersions: ReadonlyArray<ObjectVersion>; readonly honoured: Asked }
  | undefined,
  KubernetesApiFailed,
  KubernetesApi
> {
  const { pod, secretProviderClassName, targetPath } = input
  const plain = nameOf(pod.name, pod.namespace, secretProviderClassName)
  for (const name of [plain, suffixedName(plain, targetPath)]) {
    const found = yield* getOrUndefined(pod.namespace, name)
    if (found?.status?.targetPath === targetPath && hasOwner(found, pod.uid)) {
      const objects = found.status.objects ?? []
      const objectVersions = objects.map(({ id = "", version = "" }) => ({ id, version }))
      return { name, objectVersions, honoured: honouredIn(found.metadata.annotations) }
    }
  }
  return undefined
})
