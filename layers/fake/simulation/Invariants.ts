/**
 * What must be true of the node driver, whatever happens to it: one function per promise, of what was observed to what
 * is wrong with it. The ids are those of the list of invariants in the project's defect reference.
 *
 * Nothing that is said here repeats a file's content: generations, names and paths only.
 */
import {
  identityOf,
  PODS_DIRECTORY,
  replyOf,
  type SimulatedClass,
  type SimulatedVolume,
  secretNameOf,
  sourceOf,
  stampOf
} from "./Volume.ts"

export interface Invariant<Observed> {
  readonly id: string
  readonly name: string
  /** What was seen, when it does not hold. */
  readonly broken: (observed: Observed) => string | undefined
}

/** A target path at one instant, as a pod sees it. */
export interface VolumeView {
  /** Something is at the target path. */
  readonly exists: boolean
  /** How many mounts are on the target path. */
  readonly mounts: number
  /** Directories of the writer: the one that `..data` leads to, and those before and after it. */
  readonly generations: number
  /** `..data` is there and leads nowhere. */
  readonly dangling: boolean
  /** Content by relative path, through the links; names that lead nowhere are no files. */
  readonly files: ReadonlyMap<string, string>
}

interface Looked {
  readonly volume: SimulatedVolume
  readonly view: VolumeView
}

/** A SecretProviderClassPodStatus, as far as it matters here. */
export interface PodStatusView {
  readonly name: string
  readonly podName: string
  readonly className: string
  readonly targetPath: string
  readonly ownerUids: ReadonlyArray<string>
  readonly labels: ReadonlyArray<string>
  readonly mounted: boolean
}

const invariant = <Observed>(
  id: string,
  name: string,
  broken: (observed: Observed) => string | undefined
): Invariant<Observed> => ({ id, name, broken })

const generationsIn = ({ files }: VolumeView): ReadonlyArray<number> =>
  [...new Set([...files.values()].map((content) => stampOf(content).generation))].sort((a, b) => a - b)

/** @shape (view) -> the newest generation that is in it, -1 without any */
export const generationOf = (view: VolumeView): number => Math.max(-1, ...generationsIn(view))

/** How a view is not exactly one complete reply; undefined when it is. */
const notOneReply = ({ view, volume }: Looked): string | undefined => {
  const generations = generationsIn(view)
  const [generation] = generations
  if (generation === undefined) return `${volume.targetPath} holds no file`
  if (generations.length > 1) return `${volume.targetPath} holds files of generations ${generations.join(" and ")}`
  const reply = replyOf(volume.class, identityOf(volume), generation)
  const missing = [...reply.keys()].filter((path) => !view.files.has(path))
  const surplus = [...view.files.keys()].filter((path) => !reply.has(path))
  if (missing.length > 0) return `${volume.targetPath} lacks ${missing.join(", ")} of generation ${generation}`
  if (surplus.length > 0) return `${volume.targetPath} has ${surplus.join(", ")}, unlike generation ${generation}`
  const torn = [...reply].filter(([path, content]) => view.files.get(path) !== content)
  return torn.length > 0
    ? `${volume.targetPath}: ${torn.map(([path]) => path).join(", ")} of generation ${generation} differ from the reply`
    : undefined
}

// ---- publish

/** S1: a pod starts on this answer and has no other way to know whether its files are there. */
export const publishedHoldsOneReply = invariant("S1", "publishedHoldsOneReply", ({ view, volume }: Looked) =>
  view.mounts === 1 ? notOneReply({ view, volume }) : `${volume.targetPath} has ${view.mounts} mounts after OK`
)

/** S1: a mount that nobody was told of is what the next publish, or an older driver, would take for a volume. */
export const failedPublishLeavesNoMount = invariant("S1", "failedPublishLeavesNoMount", ({ view, volume }: Looked) =>
  view.mounts === 0 ? undefined : `${volume.targetPath} has ${view.mounts} mounts after its first publish failed`
)

/** S2: key and certificate of different generations do not fit together, for however short a time they are seen. */
export const readersSeeOneGeneration = invariant("S2", "readersSeeOneGeneration", ({ view, volume }: Looked) => {
  // While a volume is taken away nobody reads it any more.
  if (view.dangling && volume.state === "Published")
    return `${volume.targetPath}/..data leads to a directory that is not there`
  const generations = generationsIn(view)
  if (generations.length > 1) return `${volume.targetPath} shows generations ${generations.join(" and ")} at once`
  return undefined
})

/** S2: a program follows the link once and opens its files after that; it has a second to do so. */
export const readersMayFinish = invariant(
  "S2",
  "readersMayFinish",
  ({ afterMillis, path }: { readonly path: string; readonly afterMillis: number }) =>
    `${path} was current ${afterMillis} ms ago, and cannot be read any more`
)

/** S3: whoever has read a file once counts on it until the pod ends, and a rotated credential may be revoked. */
export const publishedNeverGoesBack = invariant("S3", "publishedNeverGoesBack", ({ view, volume }: Looked) => {
  const wrong = notOneReply({ view, volume })
  if (wrong !== undefined) return `${wrong}, while it is published`
  const generation = generationOf(view)
  return generation < volume.generationSeen
    ? `${volume.targetPath} shows generation ${generation} after ${volume.generationSeen}`
    : undefined
})

/** S3: a workload opens its file when it pleases, and has no reason to expect that it is missing for an instant. */
export const aFileNeverDisappears = invariant(
  "S3",
  "aFileNeverDisappears",
  ({ failure, path }: { readonly path: string; readonly failure: string }) => `${path} cannot be read: ${failure}`
)

/** S6: content that was fetched with one identity is no business of another pod. */
export const contentIsThePodsOwn = invariant("S6", "contentIsThePodsOwn", ({ view, volume }: Looked) => {
  const { podUid, serviceAccountName, source } = identityOf(volume)
  for (const [path, content] of view.files) {
    const stamp = stampOf(content)
    if (stamp.generation < 0) continue
    if (stamp.source !== source || stamp.podUid !== podUid || stamp.serviceAccountName !== serviceAccountName) {
      return `${volume.targetPath}/${path} was fetched for pod ${stamp.podUid}, service account ${stamp.serviceAccountName}, class ${stamp.source}`
    }
  }
  return undefined
})

/** S14: whoever froze a volume has tested its application with that content, and decides when it changes. */
export const pinnedNeverChanges = invariant("S14", "pinnedNeverChanges", ({ view, volume }: Looked) => {
  const generation = generationOf(view)
  return volume.isPinned && !volume.mayChange && volume.generationSeen > 0 && generation > volume.generationSeen
    ? `${volume.targetPath} is pinned, and shows generation ${generation} after ${volume.generationSeen}`
    : undefined
})

// ---- unpublish

/** S4: the kubelet forgets the volume on this answer, so that whatever is left stays until the node ends. */
export const unpublishLeavesNothing = invariant("S4", "unpublishLeavesNothing", ({ view, volume }: Looked) => {
  if (view.mounts > 0) return `${volume.targetPath} has ${view.mounts} mounts after unpublish was answered OK`
  return view.exists ? `${volume.targetPath} is there after unpublish was answered OK` : undefined
})

/** S4: a call that was given up must not come back to life after the volume is gone. */
export const unpublishedStaysGone = invariant(
  "S4",
  "unpublishedStaysGone",
  ({
    mounts,
    volumes
  }: {
    readonly mounts: ReadonlyArray<string>
    readonly volumes: ReadonlyMap<string, SimulatedVolume>
  }) => {
    const stray = mounts.filter((path) => (volumes.get(path)?.state ?? "Gone") === "Gone")
    return stray.length > 0 ? `mounts of no volume: ${stray.join(", ")}` : undefined
  }
)

/** S4: the target path may be a directory on the node's disk by now, or be gone; nobody asked for anything in it. */
export const unpublishedIsLeftAlone = invariant(
  "S4",
  "unpublishedIsLeftAlone",
  ({ figure, path, volume }: { readonly figure: string; readonly path: string; readonly volume: SimulatedVolume }) =>
    volume.isUnpublished ? `${figure} at ${path} after ${volume.targetPath} was answered to be unpublished` : undefined
)

/** S4: a pod must be able to end while the API server or its provider does not work, or the node cannot be drained. */
export const unpublishNeedsNobody = invariant(
  "S4",
  "unpublishNeedsNobody",
  ({ left, withinMillis }: { readonly left: ReadonlyArray<SimulatedVolume>; readonly withinMillis: number }) =>
    left.length > 0
      ? `without API server and providers, ${left.length} volumes are not unpublished after ${withinMillis} ms: ${namesOf(left)}`
      : undefined
)

// ---- content

/** S5: a disk, a log or the API server keeps what it gets, and shows it to others than the pod. */
export const contentStaysOnTmpfs = invariant(
  "S5",
  "contentStaysOnTmpfs",
  ({ hasContent, where }: { readonly where: string; readonly hasContent: boolean }) =>
    hasContent ? `content of a file is in ${where}` : undefined
)

/** S12: the driver is root on the node: a path that leaves the volume reaches everything. */
export const writesStayInside = invariant(
  "S12",
  "writesStayInside",
  ({ insideVolume, mode, path }: { readonly path: string; readonly mode: number; readonly insideVolume: boolean }) => {
    if (!insideVolume) return `the driver writes ${path}, which is in no volume that it was asked to publish`
    return (mode & ~0o777) === 0 ? undefined : `the driver writes ${path} with mode ${mode.toString(8)}`
  }
)

// ---- pod status

/** S13: rotation, sync and the user learn from this object alone which pod holds what, and where. */
export const podStatusNamesItsVolume = invariant(
  "S13",
  "podStatusNamesItsVolume",
  (observed: {
    readonly volume: SimulatedVolume
    readonly statuses: ReadonlyArray<PodStatusView>
    /** False: the files were there before, and whether they were recorded could not be found out yet. */
    readonly mustBeThere: boolean
  }) => {
    const { mustBeThere, statuses, volume } = observed
    const found = statuses.filter(({ targetPath }) => targetPath === volume.targetPath)
    const [status, other] = found
    if (status === undefined) {
      return mustBeThere ? `${volume.targetPath} is published and no pod status names it` : undefined
    }
    // One of its own name may be there from before a downgrade, or from a request that was given up; it goes with its pod.
    if (other !== undefined && !volume.wasUpstreams && !volume.wasRecordedLate)
      return `${status.name} and ${other.name} both name ${volume.targetPath}`
    const { className, mounted, name, ownerUids, podName } = status
    const says = `${name} says pod ${podName} (owner ${ownerUids.join(", ")}), class ${className}, mounted ${mounted}`
    return podName === volume.pod.name &&
      ownerUids.length === 1 &&
      ownerUids[0] === volume.pod.uid &&
      className === volume.class.name &&
      mounted
      ? undefined
      : `${says}; the volume is of pod ${volume.pod.name} (${volume.pod.uid}), class ${volume.class.name}`
  }
)

/** S13: two volumes that write one object by turns never let it settle, and one of them is not recorded at any time. */
export const podStatusIsNotTaken = invariant(
  "S13",
  "podStatusIsNotTaken",
  (observed: {
    readonly before: PodStatusView
    readonly after: PodStatusView
    /** The volume that the object was of until now, if it still is one. */
    readonly holder: SimulatedVolume | undefined
  }) => {
    const { after, before, holder } = observed
    return before.targetPath !== after.targetPath && holder?.state === "Published"
      ? `${before.name} was of ${before.targetPath}, which is published, and is now of ${after.targetPath}`
      : undefined
  }
)

/** S7: what others have written in our objects is theirs, and they will write it again. */
export const labelsOfOthersStay = invariant(
  "S7",
  "labelsOfOthersStay",
  ({ after, before }: { readonly before: PodStatusView; readonly after: PodStatusView }) => {
    const lost = before.labels.filter((label) => !after.labels.includes(label))
    return lost.length > 0 ? `${before.name} lost the labels ${lost.join(", ")}` : undefined
  }
)

// ---- Kubernetes Secrets

/** A Kubernetes Secret, its values in clear. */
export interface SecretView {
  readonly name: string
  readonly values: ReadonlyMap<string, string>
}

interface Synced {
  readonly class: SimulatedClass
  readonly secret: SecretView
}

/** S8: whoever reads a Secret takes its keys for one set, as those of the mounted files are. */
export const secretIsOneGeneration = invariant("S8", "secretIsOneGeneration", ({ class: its, secret }: Synced) => {
  const [first] = secret.values.values()
  if (first === undefined) return `${secret.name} is empty`
  const { generation, ...identity } = stampOf(first)
  const reply = new Map(
    [...replyOf(its, identity, generation)].map(([path, text]) => [path.replaceAll("/", "."), text])
  )
  const isSame = reply.size === secret.values.size && [...reply].every(([key, text]) => secret.values.get(key) === text)
  return isSame ? undefined : `${secret.name} is not what one pod was answered in generation ${generation}`
})

/** What others have of a Secret that we may write, too. */
export interface SecretOfOthers {
  readonly name: string
  /** It has our label. */
  readonly isOurs: boolean
  /** Labels, annotations, owners and finalizers that are nobody's but theirs. */
  readonly theirs: ReadonlyArray<string>
  /** All of it, to be compared. */
  readonly text: string
}

/** S7: a Secret that we have not made holds what somebody else depends on; and what others note in ours, they need. */
export const secretsOfOthersStay = invariant(
  "S7",
  "secretsOfOthersStay",
  ({ after, before }: { readonly before: SecretOfOthers; readonly after: SecretOfOthers | undefined }) => {
    if (!before.isOurs) return after?.text === before.text ? undefined : `${before.name} is not ours, and was written`
    // Whether it may be deleted is another question.
    if (after === undefined) return undefined
    const lost = before.theirs.filter((it) => !after.theirs.includes(it))
    return lost.length > 0 ? `${before.name} lost ${lost.join(", ")}, which others have written` : undefined
  }
)

/** S9: a user that is not among the owners loses the Secret with the last one that is. */
export const usersOwnTheirSecret = invariant(
  "S9",
  "usersOwnTheirSecret",
  (observed: {
    readonly name: string
    readonly ownerUids: ReadonlyArray<string>
    /** Uids of what stands for its users: what owns their pods, or the pod statuses of pods that nobody owns. */
    readonly users: ReadonlyMap<string, string>
  }) => {
    const missing = [...observed.users].filter(([, uid]) => !observed.ownerUids.includes(uid))
    return missing.length > 0
      ? `${observed.name} is not owned by ${missing.map(([name, uid]) => `${name} (${uid})`).join(", ")}`
      : undefined
  }
)

/** S9: a container that starts again, and a pod that is made anew, ask for the Secret once more. */
export const usedSecretStays = invariant(
  "S9",
  "usedSecretStays",
  ({ name, users }: { readonly name: string; readonly users: ReadonlyArray<SimulatedVolume> }) =>
    users.length > 0 ? `${name} is deleted while it is used: ${namesOf(users)}` : undefined
)

/** L4: an application that reads its Secret may be told that the old credential is revoked, as one that reads files. */
export const secretFollows = invariant(
  "L4",
  "secretFollows",
  (observed: {
    readonly class: SimulatedClass
    readonly secrets: ReadonlyArray<SecretView>
    readonly withinMillis: number
  }) => {
    const { class: its, secrets, withinMillis } = observed
    const name = sourceOf({ ...its, name: secretNameOf(its) })
    const found = secrets.find((secret) => secret.name === name)
    const [first] = found?.values.values() ?? []
    if (first === undefined) return `${name} is not there`
    const { generation } = stampOf(first)
    return generation === its.generation
      ? undefined
      : `${name} is of generation ${generation} of ${its.generation}, ${withinMillis} ms after the files`
  }
)

// ---- when nothing is wrong any more

export const namesOf = (volumes: ReadonlyArray<SimulatedVolume>): string =>
  volumes.map(({ pod, state, targetPath }) => `${pod.name} ${state} ${targetPath}`).join("; ")

/** L1: what faults have done is over when they are; no pod may need a person to delete it. */
export const everyVolumeIsPublished = invariant(
  "L1",
  "everyVolumeIsPublished",
  ({ left, withinMillis }: { readonly left: ReadonlyArray<SimulatedVolume>; readonly withinMillis: number }) =>
    left.length > 0
      ? `${left.length} volumes are not published ${withinMillis} ms after the last fault: ${namesOf(left)}`
      : undefined
)

/** L1: a driver that ends without being told to is restarted again and again, and serves nobody meanwhile. */
export const driverKeepsRunning = invariant(
  "L1",
  "driverKeepsRunning",
  ({ cause }: { readonly cause: string }) => `the driver ended without being told to: ${cause}`
)

/** L1: something waits that nobody will wake, or goes round without end. */
export const runEnds = invariant("L1", "runEnds", ({ message }: { readonly message: string }) => message)

/** L2: rotation promises that an old credential may be revoked after this time. */
export const newestGenerationArrives = invariant(
  "L2",
  "newestGenerationArrives",
  ({ view, volume, withinMillis }: Looked & { readonly withinMillis: number }) => {
    const generation = generationOf(view)
    return generation === volume.class.generation
      ? undefined
      : `${volume.targetPath} shows generation ${generation} of ${volume.class.generation} after ${withinMillis} ms`
  }
)

/** L3: a credential that has leaked is revoked when its successor is in place, and somebody waits for that. */
export const askedForArrives = invariant(
  "L3",
  "askedForArrives",
  ({ view, volume, withinMillis }: Looked & { readonly withinMillis: number }) => {
    const generation = generationOf(view)
    return generation === volume.class.generation
      ? undefined
      : `${volume.targetPath} shows generation ${generation} of ${volume.class.generation}, ${withinMillis} ms after a refresh was asked for`
  }
)

interface Quiet {
  readonly apiWrites: number
  readonly fileWrites: number
  readonly quietMillis: number
}

/** S10: each write wakes every watcher in the cluster, and each new generation every program that watches its files. */
export const quietMeansNoWrites = invariant(
  "S10",
  "quietMeansNoWrites",
  ({ apiWrites, fileWrites, quietMillis }: Quiet) =>
    apiWrites + fileWrites > 0
      ? `${apiWrites} API writes and ${fileWrites} file writes in ${quietMillis} ms in which nothing changed`
      : undefined
)

/** L6: right once is not enough: what was reached must stay, without anybody writing it again. */
export const whatIsReachedStays = invariant("L6", "whatIsReachedStays", ({ view, volume }: Looked) => {
  const wrong = notOneReply({ view, volume })
  return volume.state === "Published" ? wrong : `${volume.targetPath} is ${volume.state} though nothing happened`
})

/** S11: providers bill and throttle by the call, and a restart of the driver is no reason for one. */
export const providersAreSpared = invariant(
  "S11",
  "providersAreSpared",
  (observed: { readonly volume: SimulatedVolume; readonly calls: number; readonly callsMax: number }) =>
    observed.calls > observed.callsMax
      ? `${observed.calls} provider calls for ${observed.volume.targetPath} where ${observed.callsMax} are due`
      : undefined
)

/** S11: a refresh before its time is a call for nothing, and a driver that starts again has no reason for one. */
export const providersAreCalledWhenDue = invariant(
  "S11",
  "providersAreCalledWhenDue",
  (observed: {
    readonly volume: SimulatedVolume
    readonly millis: ReadonlyArray<number>
    readonly leastMillis: number
  }) => {
    const { leastMillis, millis, volume } = observed
    const waits = millis.slice(1).map((it, index) => it - (millis[index] ?? it))
    const shortest = Math.min(Number.POSITIVE_INFINITY, ...waits)
    return shortest < leastMillis
      ? `the provider of ${volume.targetPath} was called again after ${shortest} ms, where ${leastMillis} are waited for`
      : undefined
  }
)

/** S11: a provider that learns what the volume has need not fetch it once more; some are billed by that. */
export const providersAreToldVersions = invariant(
  "S11",
  "providersAreToldVersions",
  ({
    told,
    version,
    volume
  }: {
    readonly volume: SimulatedVolume
    readonly told: ReadonlyArray<string>
    readonly version: string
  }) =>
    told.length === 1 && told[0] === version
      ? undefined
      : `${volume.targetPath} holds version ${version}, and its provider was told [${told.join(", ")}]`
)

/** S20: a rotation that does not work is found out by whoever looks at the pod, or when the old credential expires. */
export const failuresAreTold = invariant(
  "S20",
  "failuresAreTold",
  ({
    volume,
    warnings,
    withinMillis
  }: {
    readonly volume: SimulatedVolume
    /** Of its pod, since its provider refuses. */
    readonly warnings: number
    readonly withinMillis: number
  }) =>
    warnings === 0
      ? `the provider of ${volume.targetPath} refuses for ${withinMillis} ms, and no Event of pod ${volume.pod.name} says so`
      : undefined
)

/** L10: whoever has put a class right has done all there is to do. */
export const correctedClassesServe = invariant(
  "L10",
  "correctedClassesServe",
  ({
    class: { name, namespace },
    left,
    restarts,
    withinMillis
  }: {
    readonly class: SimulatedClass
    /** Its volumes that are not published. */
    readonly left: ReadonlyArray<SimulatedVolume>
    /** Of the driver, since it was put right. */
    readonly restarts: number
    readonly withinMillis: number
  }) => {
    const what = left.map(({ state, targetPath }) => `${targetPath} is ${state}`).join(", ")
    if (left.length > 0) return `${withinMillis} ms after class ${namespace}/${name} was put right: ${what}`
    return restarts > 0 ? `the driver was restarted ${restarts} times for class ${namespace}/${name}` : undefined
  }
)

/** L7: what could not be asked for meanwhile is asked for soon, not with the next rotation. */
export const backlogDrains = invariant(
  "L7",
  "backlogDrains",
  ({ view, volume, withinMillis }: Looked & { readonly withinMillis: number }) => {
    const generation = generationOf(view)
    return generation === volume.class.generation
      ? undefined
      : `${volume.targetPath} shows generation ${generation} of ${volume.class.generation}, ${withinMillis} ms after its provider has taken calls again`
  }
)

/** L7: a pod that has old content runs, one that has none does not. */
export const firstMountsGoFirst = invariant(
  "L7",
  "firstMountsGoFirst",
  ({
    refreshed: [first],
    volume
  }: {
    /** Whose turn it is at last. */
    readonly volume: SimulatedVolume
    /** Of the same provider, while it waited. */
    readonly refreshed: ReadonlyArray<SimulatedVolume>
  }) =>
    first === undefined
      ? undefined
      : `${first.targetPath} was refreshed, while ${volume.targetPath} waited to be published`
)

/** L5: with the last pod gone, whatever is left is a leak that grows with every pod. */
export const nothingIsLeft = invariant(
  "L5",
  "nothingIsLeft",
  (observed: {
    readonly mounts: ReadonlyArray<string>
    readonly entries: ReadonlyArray<string>
    readonly statuses: ReadonlyArray<PodStatusView>
    readonly secrets: ReadonlyArray<SecretView>
  }) => {
    const left = [
      ...observed.secrets.map(({ name }) => `secret ${name}`),
      ...observed.mounts.map((path) => `mount ${path}`),
      ...observed.entries.map((path) => `directory ${path}`),
      ...observed.statuses.map(({ name }) => `pod status ${name}`)
    ]
    return left.length > 0 ? `left below ${PODS_DIRECTORY} or in the API: ${left.join(", ")}` : undefined
  }
)

/** S15: what was replaced takes room on the tmpfs, and holds secrets that were taken out of use. */
export const oldGenerationsGo = invariant("S15", "oldGenerationsGo", ({ view, volume }: Looked) =>
  view.generations > 1 ? `${volume.targetPath} has ${view.generations} generations at rest` : undefined
)

/** S15: a driver runs for months: what it keeps of each pod that ended is what it dies of. */
export const nothingIsRemembered = invariant(
  "S15",
  "nothingIsRemembered",
  ({ busy, remembered }: { readonly remembered: number; readonly busy: number }) =>
    remembered + busy > 0 ? `the driver remembers ${remembered} volumes and is busy with ${busy}` : undefined
)
