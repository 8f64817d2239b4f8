/**
 * Keeps the Kubernetes Secrets that SecretProviderClasses ask for like the files that this node's pods have mounted.
 *
 * One key per Secret, one worker per key: what is wanted is made of all volumes here that ask for it, compared with what
 * is there, and written only if it differs. A volume, class or pod that is broken concerns only the Secrets that are made
 * of it. A Secret that nobody uses any more is marked, and removed if nobody has taken the mark away meanwhile.
 *
 * @source driver v1.6.0, controllers/secretproviderclasspodstatus_controller.go; reference/driver.md 6
 */
import { Clock, DateTime, Effect, FileSystem, Queue, Random, Result } from "effect"
import type { NodePod, Secret } from "../../schemas/Core.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { SyncFailed } from "../../schemas/errors/SyncFailed.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import type { CachedPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { EventRecorder } from "../reconciler/Events.ts"
import * as Held from "../reconciler/Held.ts"
import * as Outage from "../reconciler/Outage.ts"
import * as ReconcileLoop from "../reconciler/ReconcileLoop.ts"
import * as Reflector from "../reconciler/Reflector.ts"
import * as Resource from "../reconciler/Resource.ts"
import { conflictRetry, watchReconnect } from "../reconciler/Schedules.ts"
import * as WorkQueue from "../reconciler/WorkQueue.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import * as MountedFiles from "../volume/MountedFiles.ts"
import { NodePods } from "../volume/NodePods.ts"
import { NODE_LABEL, nodeLabel } from "../volume/PodStatus.ts"
import * as PodStatusKeeper from "../volume/PodStatusKeeper.ts"
import { SecretProviderClasses } from "../volume/SecretProviderClasses.ts"
import { VolumeTable } from "../volume/VolumeTable.ts"
import * as Orphans from "./Orphans.ts"
import { ownersOf, united } from "./OwnerReferences.ts"
import * as SecretData from "./SecretData.ts"
import * as SecretFiles from "./SecretFiles.ts"
import * as SecretMapping from "./SecretMapping.ts"
import * as SecretPlan from "./SecretPlan.ts"
import * as SecretUsers from "./SecretUsers.ts"
import * as SyncedVolumes from "./SyncedVolumes.ts"
import * as UserKeys from "./UserKeys.ts"

export interface SyncOptions {
  readonly nodeId: string
  readonly driverName: string
}

const WORKERS = 2
/** What is right is looked at again after this long, without a request when nothing has changed. */
const RESYNC_MILLIS = 300_000
/** For what is on its way: a pod or class that is not known yet, a pod that is about to end. */
const SOON_MILLIS = 5_000
/** A Secret that was marked as unused goes this long after the mark at the earliest. */
const UNUSED_MILLIS = 10_000
/** A Secret that is used, but by nobody whose node is known to look after it. */
const AWAITED_MILLIS = 30_000
/** When Secrets are looked for that nobody looked after before the start: not by all nodes at once. */
const LOOK_BACK_MILLIS = { least: 10_000, most: 60_000 }
/** And again where that was not allowed: a namespace's rights may come after its classes. */
const LOOK_AGAIN_MILLIS = { least: 240_000, most: 300_000 }
/** Nothing is removed because of pods that were asked for longer ago. */
const LIST_MILLIS_MAX = 5_000

/** Takes over a Secret that somebody else has made. On the class; "true". */
const ADOPT_KEY = "secrets-store.csi.k8s.io/adopt-secrets"

const CREATE_HINT =
  "The secret operation failed with forbidden error. If you installed the CSI driver using helm, ensure syncSecret.enabled=true is set."

/** A volume of this node that asks for a Secret, with all that is known of it. */
interface Source {
  readonly podStatus: CachedPodStatus
  readonly pod: NodePod
  readonly object: SecretProviderClass
  readonly targetPath: string
  /** When its content was fetched, as `SecretPlan.fetchedAt` writes it. */
  readonly fetched: string
}

/** The last look at a Secret that was as it should be. */
interface Memo {
  readonly resourceVersion: string
  readonly madeOf: string
}

/** What says to have been fetched later than this is in the future, by the clock of this node. */
const fetchedMax = Effect.map(Clock.currentTimeMillis, (now) =>
  SecretPlan.fetchedAt(now + SecretPlan.CLOCK_SKEW_MILLIS, "")
)

const clocks = Effect.gen(function* () {
  const nowMillis = yield* Clock.currentTimeMillis
  const leadMillis = nowMillis - Number((yield* Clock.monotonicTimeNanos) / 1_000_000n)
  return { nowMillis, leadMillis } satisfies SecretPlan.Clocks
})

const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

const keyOf = (namespace: string, name: string) => `${namespace}/${name}`
const partsOf = (key: string): readonly [namespace: string, name: string] => {
  const slash = key.indexOf("/")
  return [key.slice(0, slash), key.slice(slash + 1)]
}
/** @shape (RFC 3339) -> milliseconds since the epoch; 0 for what is no time */
const millisOf = (text: string): number =>
  Result.getOrElse(
    Result.try(() => DateTime.toEpochMillis(DateTime.makeUnsafe(text))),
    () => 0
  )
const statusKeyOf = ({ metadata }: CachedPodStatus) => keyOf(metadata.namespace ?? "", metadata.name ?? "")

const classVersionOf = ({ metadata: { creationTimestamp = "", generation = 0 } }: SecretProviderClass) =>
  SecretPlan.classVersionOf(creationTimestamp, generation)

// ---- the program

/**
 * Runs for ever.
 *
 * @shape  ({ nodeId, driverName }) -> never
 * @errors none: what fails is logged, counted and told in Events on the pods concerned, and tried again
 */
export const run = Effect.fnUntraced(function* ({ driverName, nodeId }: SyncOptions) {
  const table = yield* VolumeTable
  const classes = yield* SecretProviderClasses
  const pods = yield* NodePods
  const events = yield* EventRecorder
  const api = yield* KubernetesApi
  const queue = yield* WorkQueue.make()
  const outage = yield* Outage.make(queue)

  /** Keys that pod statuses ask for. */
  const statusKeys = UserKeys.make()
  /** Keys that volumes ask for, by target path: of a pod's status this node may not hear before both are gone. */
  const volumeKeys = UserKeys.make()
  /** Keys that had users here, until it is known that the Secret is gone, or that another node looks after it. */
  const lookedAfter = new Set<string>()
  const memos = new Map<string, Memo>()
  /** When Secrets were marked as unused, by the monotonic clock. */
  const markedNanos = new Map<string, bigint>()
  /** By target path: content of which it is not known how old it is. */
  const undated = new Map<string, SecretPlan.Undated>()
  /** By pod status or target path, neither of which can be the other. */
  const namespaceOf = new Map<string, string>()
  /** Rung when namespaces may have come or gone. */
  const bell = yield* Queue.sliding<void>(1)

  const keysAskedBy = (namespace: string, className: string): ReadonlyArray<string> => {
    const held = classes.current(namespace, className)
    return held._tag === "Held" ? SyncedVolumes.secretNames(held.object).map((name) => keyOf(namespace, name)) : []
  }
  const come = (user: string, namespace: string) => {
    if (!namespaceOf.has(user)) Queue.offerUnsafe(bell, undefined)
    namespaceOf.set(user, namespace)
  }
  const go = (user: string) => {
    if (namespaceOf.delete(user)) Queue.offerUnsafe(bell, undefined)
  }
  const forget = (statusKey: string) => {
    go(statusKey)
    for (const key of statusKeys.forget(statusKey)) queue.add(key)
  }
  const note = (podStatus: CachedPodStatus) => {
    const statusKey = statusKeyOf(podStatus)
    const { namespace = "" } = podStatus.metadata
    come(statusKey, namespace)
    const keys = keysAskedBy(namespace, podStatus.status?.secretProviderClassName ?? "")
    for (const key of keys) lookedAfter.add(key)
    for (const key of statusKeys.note(statusKey, keys)) queue.add(key)
  }
  const noteVolume = (targetPath: string) => {
    const record = table.get(targetPath)
    if (record === undefined) {
      go(targetPath)
      undated.delete(targetPath)
      for (const key of volumeKeys.forget(targetPath)) {
        // Whoever has a pod status is heard of by it; without files nothing is to be made of it meanwhile.
        if (!statusKeys.hasUsers(key)) queue.add(key)
      }
      return
    }
    const { namespace } = record.pod
    come(targetPath, namespace)
    const keys = keysAskedBy(namespace, record.secretProviderClassName)
    for (const key of keys) lookedAfter.add(key)
    volumeKeys.note(targetPath, keys)
  }

  const keeper = yield* PodStatusKeeper.make((key) => statuses.get(key))
  const statuses: Reflector.Reflector<CachedPodStatus> = yield* Reflector.make({
    resource: Resource.cachedPodStatuses,
    selection: { labelSelector: `${NODE_LABEL}=${nodeLabel(nodeId)}` },
    onChange: (change) =>
      Effect.sync(() => {
        keeper.noticed(change)
        if (change._tag === "Deleted") return forget(change.key)
        if (change._tag === "Applied") return note(change.object)
        for (const podStatus of change.objects.values()) note(podStatus)
      })
  })
  const noteAll = (isConcerned: (podStatus: CachedPodStatus) => boolean) => {
    for (const podStatus of statuses.objects().values()) if (isConcerned(podStatus)) note(podStatus)
  }
  yield* table.onVolumes(noteVolume)
  for (const { targetPath } of table.all()) noteVolume(targetPath)
  yield* classes.onChange((namespace, name) => {
    for (const { pod, secretProviderClassName, targetPath } of table.all()) {
      if (pod.namespace === namespace && secretProviderClassName === name) noteVolume(targetPath)
    }
    noteAll(({ metadata, status }) => metadata.namespace === namespace && status?.secretProviderClassName === name)
  })
  yield* pods.onChange((namespace, name) =>
    noteAll(({ metadata, status }) => metadata.namespace === namespace && status?.podName === name)
  )
  // New content under the same versions changes no pod status.
  yield* table.onContent((targetPath) => noteAll(({ status }) => status?.targetPath === targetPath))

  // ---- namespaces

  /** Classes of every namespace with volumes here. */
  const namespaces = yield* Held.make(classes.follow)
  const followNamespaces = Effect.suspend(() =>
    namespaces.keep(new Set([...namespaceOf.values(), ...[...lookedAfter].map((key) => partsOf(key)[0])]))
  )
  /** Secrets of the namespaces in which some class asks for one, or one of ours may have to go. */
  const secretsOf = yield* Held.make((namespace) =>
    Reflector.make({
      resource: Resource.secretVersions,
      selection: { namespace, labelSelector: `${SecretData.MANAGED_LABEL}=true` },
      onChange: (change) =>
        Effect.sync(() => {
          if (change._tag !== "Synced") {
            if (lookedAfter.has(change.key)) queue.add(change.key)
            return
          }
          for (const key of lookedAfter) {
            if (partsOf(key)[0] === namespace) queue.add(key)
          }
        })
    }).pipe(Effect.provideService(KubernetesApi, api))
  )
  const followSecrets = Effect.suspend(() => secretsOf.keep(new Set([...lookedAfter].map((key) => partsOf(key)[0]))))

  // ---- one Secret

  const liveSecret = (key: string) => {
    const [namespace, name] = partsOf(key)
    return Effect.catchIf(
      Resource.get(Resource.secrets, namespace, name),
      (failure) => failure.isNotFound,
      () => Effect.undefined
    )
  }

  const tellPod = (pod: NodePod, key: string, message: string) =>
    events.record({
      type: "Warning",
      reason: "FailedToCreateSecret",
      message,
      pod: {
        name: pod.metadata.name ?? "",
        namespace: pod.metadata.namespace ?? "",
        uid: pod.metadata.uid ?? ""
      },
      key
    })

  interface Gathered {
    readonly sources: ReadonlyArray<Source>
    /** A pod that is not known, or about to end: to be looked at again soon. Of a class there is news. */
    readonly isUnsettled: boolean
    readonly complaints: ReadonlyArray<string>
  }

  /** Every volume of this node that asks for the Secret, and what is in the way of others. */
  const gather = Effect.fnUntraced(function* (key: string) {
    const [namespace, name] = partsOf(key)
    const files = yield* FileSystem.FileSystem
    const sources: Array<Source> = []
    const complaints: Array<string> = []
    let isUnsettled = false
    for (const statusKey of statusKeys.of(key)) {
      const podStatus = statuses.get(statusKey)
      if (podStatus === undefined) continue
      const { podName = "", secretProviderClassName = "" } = podStatus.status ?? {}
      const pod = pods.named(namespace, podName)
      const decision = SyncedVolumes.decide(podStatus, pod, driverName)
      const held = classes.current(namespace, secretProviderClassName)
      isUnsettled ||= decision._tag === "NoPod" || decision._tag === "Ending"
      if (decision._tag === "Mismatch") complaints.push(decision.why)
      if (decision._tag !== "Usable" || pod === undefined || held._tag !== "Held") continue
      if (SyncedVolumes.entryOf(held.object, name) === undefined) continue
      const { targetPath } = decision
      const generation = yield* files
        .readLink(`${targetPath}/${MountedFiles.DATA}`)
        .pipe(Effect.orElseSucceed(() => ""))
      // Files that a provider writes itself have no generation: then every refresh may have changed them.
      const named = generation.startsWith("..")
        ? generation.slice(2)
        : SecretPlan.fetchedAt((yield* MountedFiles.lastChange(targetPath)) ?? 0, targetPath)
      const unknown = SecretPlan.undatedOf(undated.get(targetPath), named, yield* clocks)
      if (unknown === undefined) undated.delete(targetPath)
      else undated.set(targetPath, unknown)
      const fetched = unknown === undefined ? named : SecretPlan.fetchedAt(0, targetPath)
      sources.push({ podStatus, pod, object: held.object, targetPath, fetched })
    }
    return { sources, isUnsettled, complaints } satisfies Gathered
  })

  /** What the Secret depends on here; equal texts mean that it needs no look. */
  const madeOf = (sources: ReadonlyArray<Source>): string =>
    JSON.stringify(
      sources
        .map(({ fetched, object, pod, podStatus, targetPath }) => [
          targetPath,
          fetched,
          object.metadata.uid ?? "",
          object.metadata.resourceVersion ?? "",
          ...ownersOf(pod, podStatus).map(({ uid }) => uid)
        ])
        .sort()
    )

  const failed = (source: Source, detail: string, remedy: string) =>
    new SyncFailed({ detail, remedy, pod: keyOf(source.pod.metadata.namespace ?? "", source.pod.metadata.name ?? "") })

  /** The Secret as one volume's files and class have it. */
  const wantedOf = Effect.fnUntraced(function* (key: string, source: Source, owners: SecretPlan.Wanted["owners"]) {
    const [namespace, name] = partsOf(key)
    const { fetched, object, targetPath } = source
    const { annotations = {} } = object.metadata
    const className = object.metadata.name ?? ""
    const entry = SyncedVolumes.entryOf(object, name) ?? {}
    const inClass = (cause: { readonly message: string; readonly remedy: string }) =>
      failed(
        source,
        `failed to get data in spc ${namespace}/${className} for secret ${name}, err: ${cause.message}`,
        cause.remedy
      )
    const mapping = yield* Effect.mapError(Effect.fromResult(SecretMapping.read(annotations)), inClass)
    const header = yield* Effect.mapError(Effect.fromResult(SecretData.validate(entry, mapping)), inClass)
    const files = yield* SecretFiles.read(targetPath, SecretFiles.needs(entry, mapping, header.type)).pipe(
      Effect.mapError((cause) =>
        failed(
          source,
          `failed to get mounted files, err: ${MountedFiles.explain(cause)}`,
          "nothing, it is tried again; see the driver's log if it does not get on"
        )
      )
    )
    const secret = yield* Effect.mapError(SecretData.build(entry, { targetPath, files }, mapping), inClass)
    const retained = annotations[SecretPlan.RETAIN_KEY] === "true" ? { [SecretPlan.RETAIN_KEY]: "true" } : {}
    return {
      namespace,
      secret: { ...secret, annotations: { ...secret.annotations, ...retained } },
      owners,
      className,
      classVersion: classVersionOf(source.object),
      fetched,
      fetchedFor: source.pod.metadata.uid ?? "",
      adopts: annotations[ADOPT_KEY] === "true"
    } satisfies Omit<SecretPlan.Wanted, "yields" | "trusts" | "isMisdated">
  })

  /** Of several classes that ask for one Secret the latest, and of its volumes the one whose content is newest. */
  const chosen = (sources: ReadonlyArray<Source>): Source | undefined =>
    [...sources].sort(
      (a, b) =>
        order(classVersionOf(b.object), classVersionOf(a.object)) ||
        order(a.object.metadata.name ?? "", b.object.metadata.name ?? "") ||
        order(b.fetched, a.fetched)
    )[0]

  /** A class that asks for the Secret, and that some pod of the namespace mounts. */
  const isInUse = Effect.fnUntraced(function* (key: string, className: string) {
    const [namespace, name] = partsOf(key)
    const held = classes.current(namespace, className)
    if (held._tag === "Absent") return false
    if (held._tag === "Held" && SyncedVolumes.entryOf(held.object, name) === undefined) return false
    const { objects } = yield* Resource.list(Resource.podUses, { namespace })
    const use = SecretUsers.useOf(objects, "", driverName, (mounted) => mounted === className)
    return use === "Used" || use === "Awaited"
  })

  const standingOf = Effect.fnUntraced(function* (live: Secret | undefined, sources: ReadonlyArray<Source>) {
    const fetchedHere = (podUid: string) =>
      sources.flatMap(({ fetched, pod }) => (pod.metadata.uid === podUid ? [fetched] : []))
    return SecretPlan.standingOf(live, fetchedHere, yield* fetchedMax)
  })

  /** What needs a look at the pods of all nodes is rare: a clock is wrong. */
  const isLasting = Effect.fnUntraced(function* (namespace: string, standing: SecretPlan.Standing) {
    if (standing._tag !== "InFuture") return true
    const { objects } = yield* Resource.list(Resource.podUses, { namespace })
    return SecretUsers.isAlive(objects, standing.podUid)
  })

  const remember = (key: string, body: unknown, sources: ReadonlyArray<Source>) => {
    const { resourceVersion } = Resource.metadataOf(body)
    if (resourceVersion !== undefined) memos.set(key, { resourceVersion, madeOf: madeOf(sources) })
  }

  const mayHaveChanged = (failure: KubernetesApiFailed | SyncFailed) =>
    failure._tag === "KubernetesApiFailed" && (failure.isConflict || failure.isAlreadyExists || failure.isNotFound)

  const bring = (key: string, sources: ReadonlyArray<Source>) =>
    Effect.gen(function* () {
      const [namespace, name] = partsOf(key)
      const started = yield* Clock.monotonicTimeNanos
      const live = yield* liveSecret(key)
      const source = chosen(sources)
      if (source === undefined) return
      const later = SecretPlan.laterClass(live, source.object.metadata.name ?? "", classVersionOf(source.object))
      const yields = later !== undefined && (yield* isInUse(key, later))
      const owners = sources.reduce((all, { pod, podStatus }) => united(all, ownersOf(pod, podStatus)), united([], []))
      const standing = yield* standingOf(live, sources)
      const trusts = standing._tag !== "Outdated" && (yield* isLasting(namespace, standing))
      const made = yield* Effect.tapError(wantedOf(key, source, owners), () => {
        const patch = SecretPlan.keep(live, { className: source.object.metadata.name ?? "", owners })
        return patch === undefined ? Effect.void : Resource.mergePatch(Resource.secretVersions, namespace, name, patch)
      })
      const wanted = { ...made, yields, trusts, isMisdated: standing._tag === "Outdated" && standing.isInFuture }
      const decision = SecretPlan.decide(live, wanted)
      const path = Resource.pathOf(Resource.secrets, namespace)
      const written = Effect.gen(function* () {
        const seconds = Number((yield* Clock.monotonicTimeNanos) - started) / 1e9
        yield* Metrics.secretSynced({ provider: source.object.spec?.provider ?? "", seconds })
        yield* Effect.logInfo("kubernetes secret synced", {
          secret: key,
          [LogKeys.secretProviderClass]: keyOf(namespace, wanted.className),
          changes: decision._tag === "Patch" ? decision.changes.join(",") : "created"
        })
      })
      const query = { fieldManager: SecretPlan.FIELD_MANAGER }
      switch (decision._tag) {
        case "Unchanged":
          // That the pod goes is heard of by nobody here.
          return trusts && standing._tag === "InFuture" ? memos.delete(key) : remember(key, live, sources)
        case "Create": {
          const body = yield* api.request({ method: "POST", path, query, body: decision.object })
          remember(key, body, sources)
          return yield* written
        }
        case "Patch": {
          const body = yield* api.request({
            method: "PATCH",
            path: `${path}/${encodeURIComponent(name)}`,
            query,
            contentType: "application/merge-patch+json",
            body: decision.patch
          })
          remember(key, body, sources)
          return yield* written
        }
        case "Foreign":
          return yield* failed(
            source,
            `secret ${key} exists and is not managed by the driver`,
            `give the Secret another name in SecretProviderClass ${keyOf(namespace, wanted.className)}, delete it, or let the class take it over with the annotation ${ADOPT_KEY}: "true"`
          )
        case "Blocked":
          if (decision.patch !== undefined)
            yield* Resource.mergePatch(Resource.secretVersions, namespace, name, decision.patch)
          return yield* failed(source, `secret ${key} cannot be updated: ${decision.why}`, decision.remedy)
        case "Terminating":
          return yield* failed(source, `secret ${key} is being deleted`, "nothing, it is made anew once it is gone")
      }
    }).pipe(Effect.retry({ schedule: conflictRetry, while: mayHaveChanged }))

  // ---- a Secret that nobody here uses

  const asksFor = (namespace: string, name: string, live: Secret) => (className: string) => {
    const { annotations = {} } = live.metadata
    const isMadeOfIt = annotations[SecretPlan.KEYS.className] === className
    const held = classes.current(namespace, className)
    // Of a class that is gone it is only known what has been made of it.
    if (held._tag !== "Held") return isMadeOfIt
    // Whoever made it has seen a later version than this node.
    const isBehind = isMadeOfIt && (annotations[SecretPlan.KEYS.classVersion] ?? "") > classVersionOf(held.object)
    return isBehind || SyncedVolumes.secretNames(held.object).includes(name)
  }

  const usersHere = (key: string) => [...statusKeys.of(key), ...volumeKeys.of(key)]

  const remove = Effect.fnUntraced(function* (key: string) {
    const [namespace, name] = partsOf(key)
    const done = () => {
      memos.delete(key)
      markedNanos.delete(key)
      return ReconcileLoop.DONE
    }
    const live = yield* liveSecret(key)
    const { annotations = {}, resourceVersion = "", uid = "" } = live?.metadata ?? {}
    if (live === undefined || !SecretPlan.isOurs(live) || !SecretPlan.mayGo(live.metadata)) return done()
    // After the mark: whoever has begun to use it since takes the mark away, and with it this version.
    const listedNanos = yield* Clock.monotonicTimeNanos
    const before = usersHere(key)
    const { objects } = yield* Resource.list(Resource.podUses, { namespace })
    const use = SecretUsers.useOf(objects, name, driverName, asksFor(namespace, name, live))
    const since = annotations[SecretPlan.KEYS.unused]
    const mark = (text: string | null) =>
      Resource.mergePatch(Resource.secretVersions, namespace, name, SecretPlan.markUnused(live, text))
    if (use !== "Unused") {
      // The node of the user may not have seen the mark yet, and an old one would end the next pause at once.
      if (since !== undefined) yield* mark(null)
      if (use === "Used") return done()
      return ReconcileLoop.requeueAfter(use === "Ending" ? SOON_MILLIS : AWAITED_MILLIS)
    }
    const now = yield* Clock.currentTimeMillis
    if (since === undefined) {
      // Whoever has just taken the mark away knows better: two nodes that do not agree do not write by turns all the time.
      const lastNanos = markedNanos.get(key)
      if (lastNanos !== undefined && Number(listedNanos - lastNanos) / 1e6 < UNUSED_MILLIS) {
        return ReconcileLoop.requeueAfter(UNUSED_MILLIS)
      }
      markedNanos.set(key, listedNanos)
      yield* mark(DateTime.formatIso(DateTime.makeUnsafe(now)))
      return ReconcileLoop.requeueAfter(UNUSED_MILLIS)
    }
    const markedMillis = millisOf(since)
    if (now - markedMillis < UNUSED_MILLIS) return ReconcileLoop.requeueAfter(UNUSED_MILLIS - (now - markedMillis))
    // An answer that took long is of another time, and who came meanwhile may not have taken the mark away yet.
    const listMillis = Number((yield* Clock.monotonicTimeNanos) - listedNanos) / 1e6
    if (listMillis > LIST_MILLIS_MAX || usersHere(key).some((user) => !before.includes(user))) {
      return ReconcileLoop.requeueAfter(SOON_MILLIS)
    }
    yield* Resource.remove(Resource.secretVersions, namespace, name, { uid, resourceVersion })
    yield* Effect.logInfo("kubernetes secret removed: nobody uses it any more", { secret: key })
    return done()
  })

  /** Conflicts and missing objects: somebody was there meanwhile, and the next look sees what is there now. */
  const removed = (key: string) =>
    Effect.catchIf(
      remove(key),
      (failure) => failure.isConflict || failure.isNotFound,
      () => Effect.succeed(ReconcileLoop.requeueAfter(SOON_MILLIS))
    )

  // ---- the loop

  const look = Effect.fnUntraced(function* (key: string) {
    if (!pods.isSynced()) return ReconcileLoop.requeueAfter(SOON_MILLIS)
    const { complaints, isUnsettled, sources } = yield* gather(key)
    const [namespace] = partsOf(key)
    const [complaint] = complaints
    const told = Effect.suspend(() =>
      complaint === undefined
        ? Effect.void
        : Effect.fail(new SyncFailed({ detail: complaint, remedy: FORGED, pod: key }))
    )
    const later = () => ReconcileLoop.requeueAfter(isUnsettled ? SOON_MILLIS : RESYNC_MILLIS)
    if (sources.length === 0) {
      if (!lookedAfter.has(key)) return ReconcileLoop.DONE
      // What comes or goes during the look is looked at again.
      const hasUsers = () => statusKeys.hasUsers(key) || volumeKeys.hasUsers(key)
      const hadUsers = hasUsers()
      const outcome = yield* removed(key)
      outage.answered()
      yield* told
      if (outcome._tag !== "Done") return outcome
      if (hadUsers || hasUsers()) return later()
      lookedAfter.delete(key)
      // It may have been the last of its namespace, which is followed no longer then.
      Queue.offerUnsafe(bell, undefined)
      yield* followSecrets
      return ReconcileLoop.DONE
    }
    yield* followSecrets
    const secrets = secretsOf.get(namespace)
    const memo = memos.get(key)
    const isKnown =
      memo !== undefined &&
      secrets?.get(key)?.metadata.resourceVersion === memo.resourceVersion &&
      memo.madeOf === madeOf(sources)
    if (!isKnown) {
      yield* Effect.tapError(bring(key, sources), (failure) => {
        memos.delete(key)
        const [first] = sources
        if (first === undefined) return Effect.void
        if (failure._tag === "SyncFailed") return tellPod(first.pod, key, failure.message)
        const hint = failure.status === 403 ? `; ${CREATE_HINT}` : ""
        return tellPod(first.pod, key, `failed to write secret ${key}, err: ${failure.message}${hint}`)
      })
      outage.answered()
    }
    yield* told
    return later()
  })

  const reconcile = (key: string) =>
    Effect.suspend(() => {
      outage.begun(key)
      return Effect.tapError(look(key), (failure) =>
        Effect.sync(() => {
          if (failure._tag === "KubernetesApiFailed" && failure.isTransient) outage.unanswered(key)
        })
      )
    })

  /** Once in each namespace: a driver that runs hears of every user that comes or goes. */
  const lookBack = Effect.gen(function* () {
    let where: Orphans.Where = "everywhere"
    let pause = LOOK_BACK_MILLIS
    while (where === "everywhere" || where.length > 0) {
      yield* Effect.sleep(yield* Random.nextBetween(pause.least, pause.most))
      // It is tried until there is an answer.
      const search: Orphans.Search = yield* Effect.orDie(
        Effect.retry(Orphans.find({ driverName, nodeId }, where), watchReconnect)
      )
      for (const { name, namespace } of search.found) {
        const key = keyOf(namespace, name)
        if (lookedAfter.has(key)) continue
        lookedAfter.add(key)
        queue.add(key)
      }
      where = search.refused
      pause = LOOK_AGAIN_MILLIS
      Queue.offerUnsafe(bell, undefined)
    }
  })

  const background = Effect.raceFirst(
    Effect.forever(Effect.andThen(Queue.take(bell), followNamespaces)),
    Effect.andThen(lookBack, Effect.never)
  )
  const loop = Effect.raceFirst(
    keeper.run,
    ReconcileLoop.run({ name: "secret-sync", workers: WORKERS, queue, reconcile })
  )
  return yield* Effect.raceFirst(Effect.andThen(loop, Effect.never), background)
}, Effect.scoped)

const FORGED =
  "the SecretProviderClassPodStatus names a volume that its pod does not have; delete it, and the driver makes it anew at the next mount"
