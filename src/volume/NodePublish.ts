/**
 * NodePublishVolume: one volume of one pod becomes a mounted, filled tmpfs.
 *
 * OK means mounted and filled. A first publish that fails or is interrupted leaves no mount behind; a refresh that
 * fails leaves the files that were there. Calls for one target path run one after the other.
 *
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go; reference/driver.md 2.7, 3.4, Q3-Q7, Q14, Q17-Q19
 */
import { Clock, Effect, FileSystem, Random } from "effect"
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { MountFailed } from "../../schemas/errors/MountFailed.ts"
import {
  ProviderAnswerInvalid,
  ProviderCallFailed,
  type ProviderFailed,
  ProviderRefused
} from "../../schemas/errors/ProviderFailed.ts"
import {
  ContentNotMounted,
  PodStatusNotWritten,
  type PublishFailed,
  RequestInvalid,
  SecretProviderClassIncomplete,
  SecretProviderClassUnavailable,
  TargetNotCreated,
  TargetNotInspected,
  TargetNotMounted
} from "../../schemas/errors/PublishFailed.ts"
import type { MountResponse, ObjectVersion } from "../../schemas/Provider.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter } from "../ports/Mounter.ts"
import { Providers } from "../ports/Providers.ts"
import { EventRecorder } from "../reconciler/Events.ts"
import { providerRetry } from "../reconciler/Schedules.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import * as AtomicWriter from "./AtomicWriter.ts"
import { type Decision, decide, type Observed } from "./Decision.ts"
import * as MountedFiles from "./MountedFiles.ts"
import * as PodStatus from "./PodStatus.ts"
import { providerRequest } from "./ProviderRequest.ts"
import * as Rotation from "./Rotation.ts"
import { SecretProviderClasses } from "./SecretProviderClasses.ts"
import { Settings } from "./Settings.ts"
import type { PodIdentity, VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** Of the tmpfs root: pods read, only root writes. */
const ROOT_MODE = 0o755
/** An answer is given this long before the caller stops waiting, so that it hears the reason. */
const ANSWER_MARGIN_MILLIS = 1_000
/** The kubelet's own limit, for callers that set none. */
const CALL_MILLIS_MAX = 120_000
/** Beyond this, a Kubernetes Secret made of the reply is likely to be refused. */
const SECRET_BYTES_MAX = 1_048_576

const KEY = {
  className: "secretProviderClass",
  providerName: "providerName",
  podName: "csi.storage.k8s.io/pod.name",
  podNamespace: "csi.storage.k8s.io/pod.namespace",
  podUid: "csi.storage.k8s.io/pod.uid",
  serviceAccount: "csi.storage.k8s.io/serviceAccount.name"
} as const

/** A publish request with everything in it that every call needs. */
interface Volume {
  readonly _tag: "Volume"
  readonly request: NodePublishVolumeRequest
  readonly targetPath: TargetPath
  readonly pod: PodIdentity
  readonly className: string
  /** The pod's fsGroup, when the driver was asked to apply it. */
  readonly gid: number | undefined
  /** When an answer is due, in milliseconds since the epoch. */
  readonly answerByMillis: number
}

/** A class that a provider can be asked with. */
interface UsableClass {
  readonly provider: string
  readonly parameters: Readonly<Record<string, string>>
  /** Its own wish for the interval of its volumes, as it is written. */
  readonly interval: string | undefined
}

const invalid = (detail: string, remedy: string) => new RequestInvalid({ detail, remedy })

const byKubelet = "the kubelet sets it; other callers have to as well"

/** @shape (request, deadlineMillis, volumeMountGroup) -> Volume or RequestInvalid; 2.7 #1-5 */
const check = (
  request: NodePublishVolumeRequest,
  deadlineMillis: number,
  volumeMountGroup: boolean
): Volume | RequestInvalid => {
  const capability = request.volumeCapability
  if (capability === undefined) return invalid("Volume capability missing in request", byKubelet)
  if (request.volumeId === "") return invalid("Volume ID missing in request", byKubelet)
  if (request.targetPath === "") return invalid("Target path missing in request", byKubelet)
  if (Object.keys(request.volumeContext).length === 0 && request.serviceAccountTokens === undefined) {
    return invalid(
      "Volume attributes missing in request",
      "set volumeAttributes.secretProviderClass in the pod's volume"
    )
  }
  const context = request.volumeContext
  const group = volumeMountGroup ? capability.volumeMountGroup : ""
  if (group !== "" && !/^\d{1,10}$/u.test(group)) {
    return invalid(`Volume mount group ${JSON.stringify(group)} is not a group id`, "set a numeric fsGroup in the pod")
  }
  return {
    _tag: "Volume",
    request,
    targetPath: TargetPath.make(request.targetPath),
    pod: {
      name: context[KEY.podName] ?? "",
      namespace: context[KEY.podNamespace] ?? "",
      uid: context[KEY.podUid] ?? "",
      serviceAccountName: context[KEY.serviceAccount] ?? ""
    },
    className: context[KEY.className] ?? "",
    gid: group === "" ? undefined : Number(group),
    answerByMillis: deadlineMillis - ANSWER_MARGIN_MILLIS
  }
}

/** @shape (class) -> UsableClass or what is missing; 2.7 #13-14 */
const usable = (
  namespace: string,
  name: string,
  found: SecretProviderClass
): UsableClass | SecretProviderClassIncomplete => {
  const { provider = "", parameters = {} } = found.spec ?? {}
  const missing = (what: string) =>
    new SecretProviderClassIncomplete({
      detail: `${what} not set in ${namespace}/${name}`,
      remedy: `set spec.${what} in the SecretProviderClass`
    })
  if (provider === "") return missing("provider")
  if (Object.keys(parameters).length === 0) return missing("parameters")
  return { provider, parameters, interval: found.metadata.annotations?.[Rotation.INTERVAL_KEY] }
}

/** @shape (provider, response) -> the versions, one per id, the last one winning; 3.4 #2-4 */
const versionsOf = (
  provider: string,
  response: MountResponse
): ReadonlyArray<ObjectVersion> | ProviderRefused | ProviderAnswerInvalid => {
  if (response.errorCode !== "") return new ProviderRefused({ provider, errorCode: response.errorCode })
  if (response.objectVersions.length === 0)
    return new ProviderAnswerInvalid({ provider, detail: "missing object versions" })
  const byId = new Map(response.objectVersions.map(({ id, version }) => [id, version]))
  return [...byId].map(([id, version]) => ({ id, version })).sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
}

const podKey = (pod: PodIdentity) => `${pod.namespace}/${pod.name}`

const isMock = (volume: Volume) => volume.request.volumeContext[KEY.providerName]?.toLowerCase() === "mock_provider"

// ---- observe

const observe = Effect.fnUntraced(function* (volume: Volume) {
  const { targetPath } = volume
  const inspectFailed = (cause: { readonly message: string }) =>
    new TargetNotInspected({ targetPath, detail: cause.message })
  const mounter = yield* Mounter
  const mount = yield* Effect.mapError(mounter.inspect(targetPath), inspectFailed)
  const populated =
    mount === "Mounted" && (yield* MountedFiles.populated(targetPath).pipe(Effect.mapError(inspectFailed)))
  return { mount, populated }
})

const intervalOf = (volume: Volume, ofClass: string | undefined) =>
  Effect.map(Settings, ({ rotationPollIntervalMillis }) =>
    Rotation.intervalOf({
      driverMillis: rotationPollIntervalMillis,
      volume: volume.request.volumeContext[Rotation.INTERVAL_KEY],
      secretProviderClass: ofClass
    })
  )

/** The class of a mounted volume, where it is held anyway. */
const heldClass = Effect.fnUntraced(function* (volume: Volume) {
  const { rotationEnabled } = yield* Settings
  const classes = yield* SecretProviderClasses
  return rotationEnabled ? yield* classes.held(volume.pod.namespace, volume.className) : undefined
})

/** A volume's schedule under the interval that it has now. A class that is not at hand just now has changed nothing. */
const rescheduled = Effect.fnUntraced(function* (volume: Volume, { lastSuccessMillis, schedule }: VolumeRecord) {
  const found = yield* heldClass(volume)
  if (found === undefined) return schedule
  const { interval } = yield* intervalOf(volume, found.metadata.annotations?.[Rotation.INTERVAL_KEY])
  const nowMillis = yield* Clock.currentTimeMillis
  return Rotation.reschedule(schedule, interval, { lastSuccessMillis, nowMillis })
})

/** What is known of a filled mount that this process did not make: its pod status, and the age of its files. */
const learn = Effect.fnUntraced(function* (volume: Volume) {
  const table = yield* VolumeTable
  const known = table.get(volume.targetPath)
  if (known !== undefined) {
    const now: VolumeRecord = { ...known, request: volume.request, schedule: yield* rescheduled(volume, known) }
    table.set(now)
    return { record: "Recorded", known: now } as const
  }
  const found = yield* heldClass(volume)
  const { interval } = yield* intervalOf(volume, found?.metadata.annotations?.[Rotation.INTERVAL_KEY])
  const lastSuccessMillis = (yield* MountedFiles.lastChange(volume.targetPath)) ?? 0
  const { pod, className, targetPath, request } = volume
  const remember = (objectVersions: ReadonlyArray<ObjectVersion>, podStatusName: string | undefined): VolumeRecord => ({
    volumeId: request.volumeId,
    targetPath,
    pod,
    secretProviderClassName: className,
    provider: request.volumeContext[KEY.providerName] ?? "",
    request,
    objectVersions,
    lastSuccessMillis,
    schedule: Rotation.begin(interval, targetPath, lastSuccessMillis),
    podStatusName
  })
  return yield* PodStatus.find({ pod, secretProviderClassName: className, targetPath }).pipe(
    Effect.map((found) => {
      if (found === undefined) return { record: "Unrecorded", known: remember([], undefined) } as const
      const known = remember(found.objectVersions, found.name)
      table.set(known)
      return { record: "Recorded", known } as const
    }),
    // Without the API server a running pod keeps its files; the next republish learns the rest.
    Effect.catchTag("KubernetesApiFailed", (cause) =>
      Effect.as(Effect.logWarning("pod status of a mounted volume is not known", { [LogKeys.error]: cause.message }), {
        record: "Unknown",
        known: remember([], undefined)
      } as const)
    )
  )
})

// ---- act

const readClass = Effect.fnUntraced(function* (volume: Volume, progress: Progress) {
  const { className: name, pod } = volume
  if (name === "") {
    return yield* new SecretProviderClassIncomplete({
      detail: "secretProviderClass is not set",
      remedy: "set volumeAttributes.secretProviderClass in the pod's volume"
    })
  }
  const classes = yield* SecretProviderClasses
  const found = yield* classes
    .get(pod.namespace, name)
    .pipe(Effect.mapError((reason) => new SecretProviderClassUnavailable({ namespace: pod.namespace, name, reason })))
  const result = usable(pod.namespace, name, found)
  if ("_tag" in result) return yield* result
  progress.provider = result.provider
  if (!volume.request.readonly) {
    return yield* invalid("Readonly is not true in request", "set csi.readOnly: true in the pod's volume")
  }
  return result
})

const remainingMillis = (volume: Volume) =>
  Effect.map(Clock.currentTimeMillis, (now) => Math.max(0, Math.min(volume.answerByMillis - now, CALL_MILLIS_MAX)))

/** Asks the provider, and says who did not answer when time runs out. */
const ask = Effect.fnUntraced(function* (
  volume: Volume,
  { parameters, provider }: UsableClass,
  currentObjectVersions: ReadonlyArray<ObjectVersion>
): Effect.fn.Return<MountResponse, ProviderFailed, Providers> {
  const providers = yield* Providers
  const within = yield* remainingMillis(volume)
  const request = providerRequest(volume.request, parameters, currentObjectVersions)
  return yield* providers.mount(provider, request).pipe(
    Metrics.measureProviderRequest(provider),
    Effect.retry({
      schedule: providerRetry,
      while: (failure) =>
        failure._tag === "ProviderCallFailed" && failure.grpcCode === "UNAVAILABLE" && failure.unanswered
    }),
    Effect.timeoutOrElse({
      duration: within,
      orElse: () =>
        Effect.fail(
          new ProviderCallFailed({
            provider,
            grpcCode: "DEADLINE_EXCEEDED",
            details: `provider ${JSON.stringify(provider)} did not answer within ${Math.round(within)} ms`,
            unanswered: true
          })
        )
    })
  )
})

/**
 * Fetches and writes the content of a mounted volume, then records it. `mayBeRecorded`: another life of the driver may
 * have done so, under a name that this one does not know.
 */
const fill = Effect.fnUntraced(function* (
  volume: Volume,
  usableClass: UsableClass,
  known: VolumeRecord | undefined,
  mayBeRecorded: boolean
) {
  const { pod, targetPath, className } = volume
  const contentNotMounted = (reason: ContentNotMounted["reason"]) => new ContentNotMounted({ pod: podKey(pod), reason })
  const { nodeId } = yield* Settings
  const table = yield* VolumeTable
  const response = yield* Effect.mapError(ask(volume, usableClass, known?.objectVersions ?? []), (reason) => {
    return contentNotMounted(reason)
  })
  const objectVersions = versionsOf(usableClass.provider, response)
  if ("_tag" in objectVersions) return yield* contentNotMounted(objectVersions)
  if (response.sizeBytes > SECRET_BYTES_MAX) {
    yield* Effect.logInfo("proto above 1MiB, secret sync may fail", { sizeBytes: response.sizeBytes })
  }
  // No files: the provider wrote them itself.
  const { changed } =
    response.files.length === 0
      ? { changed: false }
      : yield* AtomicWriter.write(targetPath, response.files, volume.gid === undefined ? {} : { gid: volume.gid }).pipe(
          Effect.mapError(contentNotMounted)
        )
  const lastSuccessMillis = yield* Clock.currentTimeMillis
  const { complaints, interval } = yield* intervalOf(volume, usableClass.interval)
  yield* Effect.forEach(complaints, (complaint) => complain(volume, complaint), { discard: true })
  const record: VolumeRecord = {
    volumeId: volume.request.volumeId,
    targetPath,
    pod,
    secretProviderClassName: className,
    provider: usableClass.provider,
    request: volume.request,
    objectVersions,
    lastSuccessMillis,
    schedule:
      known === undefined
        ? Rotation.begin(interval, targetPath, lastSuccessMillis)
        : Rotation.afterSuccess(interval, lastSuccessMillis),
    podStatusName: known?.podStatusName
  }
  if (known?.podStatusName !== undefined && sameVersions(known.objectVersions, objectVersions)) {
    table.set(record)
    return { changed, record }
  }
  const notWritten = (reason: KubernetesApiFailed) => new PodStatusNotWritten({ pod: podKey(pod), reason })
  // Two volumes may want one name. Which of them got it is not decided anew, or one volume would have two objects.
  const found =
    known?.podStatusName === undefined && mayBeRecorded
      ? yield* Effect.mapError(PodStatus.find({ pod, secretProviderClassName: className, targetPath }), notWritten)
      : undefined
  const { name } = yield* PodStatus.record({
    nodeId,
    pod,
    secretProviderClassName: className,
    targetPath,
    objectVersions,
    knownName: known?.podStatusName ?? found?.name
  }).pipe(Effect.mapError(notWritten))
  const recorded = { ...record, podStatusName: name }
  table.set(recorded)
  return { changed, record: recorded }
})

/** A wish for an interval that cannot be read: told to whoever looks at the pod, and otherwise as if it were not there. */
const complain = Effect.fnUntraced(function* (volume: Volume, complaint: string) {
  yield* Effect.logWarning("rotation interval is ignored", {
    [LogKeys.error]: complaint,
    [LogKeys.targetPath]: volume.targetPath,
    [LogKeys.pod]: podKey(volume.pod)
  })
  if (volume.pod.name === "") return
  const events = yield* EventRecorder
  yield* events.record({
    type: "Warning",
    reason: "RotationIntervalInvalid",
    message: complaint,
    pod: volume.pod,
    key: volume.targetPath
  })
})

const sameVersions = (a: ReadonlyArray<ObjectVersion>, b: ReadonlyArray<ObjectVersion>): boolean =>
  a.length === b.length && a.every(({ id, version }, index) => b[index]?.id === id && b[index]?.version === version)

/** Takes a mount away again, with whatever was written to it. Never fails: what is left is found by the next call. */
const undo = Effect.fnUntraced(function* (targetPath: TargetPath) {
  const mounter = yield* Mounter
  yield* MountedFiles.clear(targetPath)
  yield* Effect.catch(mounter.unmount(targetPath), (cause) =>
    Effect.logError("failed to unmount after a failed publish", { [LogKeys.targetPath]: targetPath, cause })
  )
})

const mountTarget = Effect.fnUntraced(function* (volume: Volume, leftover: boolean) {
  const { gid, targetPath } = volume
  const files = yield* FileSystem.FileSystem
  const mounter = yield* Mounter
  const { tmpfsSizeBytes } = yield* Settings
  const notMounted = (reason: MountFailed) => new TargetNotMounted({ reason })
  if (leftover) yield* Effect.mapError(mounter.unmount(targetPath), notMounted)
  yield* files
    .makeDirectory(targetPath, { recursive: true, mode: 0o750 })
    .pipe(Effect.mapError((cause) => new TargetNotCreated({ targetPath, detail: cause.message })))
  yield* mounter
    .mountTmpfs(targetPath, { sizeBytes: tmpfsSizeBytes, mode: ROOT_MODE, ...(gid === undefined ? {} : { gid }) })
    .pipe(Effect.mapError(notMounted))
})

/** Mounts and fills; what was mounted is unmounted again unless all of it succeeded. */
const mount = Effect.fn("NodePublish.mount")(function* (
  volume: Volume,
  { leftover, mayBeRecorded }: { readonly leftover: boolean; readonly mayBeRecorded: boolean },
  progress: Progress
) {
  const table = yield* VolumeTable
  table.remove(volume.targetPath)
  if (isMock(volume)) return yield* mountTarget(volume, leftover)
  const usableClass = yield* readClass(volume, progress)
  const providers = yield* Providers
  const { providerWaitMillis } = yield* Settings
  const waitMillis = Math.min(providerWaitMillis, yield* remainingMillis(volume))
  yield* Effect.mapError(
    providers.locate(usableClass.provider, waitMillis),
    (reason) => new ContentNotMounted({ pod: podKey(volume.pod), reason })
  )
  yield* Effect.acquireUseRelease(
    mountTarget(volume, leftover),
    () => fill(volume, usableClass, undefined, mayBeRecorded),
    (_, exit) => (exit._tag === "Success" ? Effect.void : undo(volume.targetPath))
  )
})

/** When a refresh that failed is tried again. */
const postpone = Effect.fnUntraced(function* (
  volume: Volume,
  known: VolumeRecord,
  failure: PublishFailed,
  progress: Progress
) {
  const table = yield* VolumeTable
  const reason = failure._tag === "ContentNotMounted" ? failure.reason : undefined
  const schedule = Rotation.afterFailure(known.schedule, {
    nowMillis: yield* Clock.currentTimeMillis,
    random: yield* Random.next,
    hintMillis: reason?._tag === "ProviderCallFailed" ? reason.retryAfterMillis : undefined
  })
  progress.nextAttemptMillis = schedule.dueMillis
  // Only a volume that is in the table has a clock of its own; the others are learnt again by the next call.
  const recorded = table.get(volume.targetPath)
  if (recorded !== undefined) table.set({ ...recorded, schedule })
})

/**
 * Newer content for a volume that is in use. What goes wrong does not reach the caller unless a flag says so (Q18): the
 * pod keeps its files, and a kubelet without the fix for its issue 121271 would take an error for a lost volume.
 */
const refresh = Effect.fn("NodePublish.refresh")(function* (
  volume: Volume,
  { known, record }: { readonly known: VolumeRecord; readonly record: Observed["record"] },
  progress: Progress
) {
  const { returnRotationErrors } = yield* Settings
  yield* Effect.andThen(readClass(volume, progress), (usableClass) =>
    fill(volume, usableClass, known, record === "Unknown")
  ).pipe(
    Effect.flatMap(({ changed }) =>
      changed
        ? Effect.void
        : Effect.flatMap(Clock.currentTimeMillis, (now) => MountedFiles.touch(volume.targetPath, now))
    ),
    Effect.tapError((failure) => postpone(volume, known, failure, progress)),
    Effect.catchIf(
      () => !returnRotationErrors,
      (failure) =>
        Effect.sync(() => {
          progress.masked = failure
        })
    )
  )
})

const act = Effect.fnUntraced(function* (volume: Volume, progress: Progress) {
  const { rotationEnabled } = yield* Settings
  const { mount: state, populated } = yield* observe(volume)
  const filled = state === "Mounted" && (populated || isMock(volume))
  const learnt = filled && !isMock(volume) ? yield* learn(volume) : undefined
  if (learnt !== undefined && learnt.known.provider !== "") progress.provider = learnt.known.provider
  const decision = decide(
    {
      mount: state,
      populated: filled,
      record: learnt?.record ?? "Recorded",
      dueMillis: learnt?.known.schedule.dueMillis ?? Number.POSITIVE_INFINITY
    },
    rotationEnabled && !isMock(volume),
    yield* Clock.currentTimeMillis
  )
  progress.decision = decision._tag
  if (decision._tag === "Mount") {
    // Where there is not even a directory, nobody was before.
    yield* mount(volume, { leftover: decision.leftover, mayBeRecorded: state !== "Missing" }, progress)
  }
  if (decision._tag === "Refresh" && learnt !== undefined) yield* refresh(volume, learnt, progress)
})

// ---- the call

/** What is known of a call while it runs, for its metrics and log lines. */
interface Progress {
  provider: string
  decision: Decision["_tag"] | undefined
  masked: PublishFailed | undefined
  /** Of a refresh that failed, in milliseconds since the epoch. */
  nextAttemptMillis: number | undefined
}

const OUTCOMES = { Mount: "mounted", Refresh: "refreshed", KeepMounted: "kept", NotDue: "not_due" } as const

/** @shape (progress, nowMillis) -> "; next attempt in 5s", or that there is none; empty for a first publish */
const nextAttempt = ({ nextAttemptMillis }: Progress, nowMillis: number): string => {
  if (nextAttemptMillis === undefined) return ""
  return Number.isFinite(nextAttemptMillis)
    ? `; next attempt in ${Math.max(1, Math.round((nextAttemptMillis - nowMillis) / 1_000))}s`
    : "; no next attempt: rotation of this volume is frozen"
}

/** Metrics, log line and Event of a call that has ended. */
const report = Effect.fnUntraced(function* (
  volume: Volume | undefined,
  progress: Progress,
  failure: PublishFailed | undefined,
  seconds: number,
  /** False for a refresh that the driver's own clock has begun. */
  isCall = true
) {
  const { decision, provider } = progress
  const failed = failure ?? progress.masked
  const refreshed = decision === "Refresh"
  if (failed === undefined) {
    if (isCall) yield* Metrics.nodePublished({ provider, outcome: OUTCOMES[decision ?? "KeepMounted"] })
    if (refreshed) yield* Metrics.rotationReconciled({ provider, seconds })
    if (decision === "Mount" || refreshed) {
      yield* Effect.logInfo(isCall ? "node publish volume complete" : "volume refreshed", {
        [LogKeys.targetPath]: volume?.targetPath,
        [LogKeys.pod]: volume === undefined ? "" : podKey(volume.pod),
        [LogKeys.time]: `${(seconds * 1000).toFixed(1)}ms`
      })
    }
    return
  }
  if (isCall) yield* Metrics.nodePublishFailed({ provider, errorType: failed.code })
  if (refreshed) yield* Metrics.rotationFailed({ provider, errorType: failed.code })
  if (volume === undefined) return
  yield* Effect.logError(refreshed ? "failed to refresh volume" : "failed to mount secrets store volume", {
    [LogKeys.error]: failed.message,
    [LogKeys.remedy]: failed.remedy,
    [LogKeys.code]: failed.code,
    [LogKeys.pod]: podKey(volume.pod),
    [LogKeys.targetPath]: volume.targetPath,
    [LogKeys.provider]: provider
  })
  if (volume.pod.name === "") return
  const events = yield* EventRecorder
  const now = yield* Clock.currentTimeMillis
  yield* events.record({
    type: "Warning",
    reason: refreshed ? "MountRotationFailed" : "MountFailed",
    message: `${failed.message}; code ${failed.code}, provider ${JSON.stringify(provider)}; ${failed.remedy}${nextAttempt(progress, now)}`,
    pod: volume.pod,
    key: volume.targetPath
  })
})

/**
 * Serves one NodePublishVolume call.
 *
 * @shape  (request, deadlineMillis) -> void
 * @units  deadlineMillis: milliseconds since the epoch, Infinity when the caller never stops waiting
 * @errors PublishFailed; of a volume that is mounted and filled they are reported, and returned only if a flag says so
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go, NodePublishVolume; reference/driver.md 2.7
 */
export const publish = Effect.fn("NodePublish.publish")(function* (
  request: NodePublishVolumeRequest,
  deadlineMillis: number
) {
  const { volumeMountGroup } = yield* Settings
  const table = yield* VolumeTable
  const progress: Progress = {
    provider: request.volumeContext[KEY.providerName] ?? "",
    decision: undefined,
    masked: undefined,
    nextAttemptMillis: undefined
  }
  const volume = check(request, deadlineMillis, volumeMountGroup)
  if (volume._tag === "RequestInvalid") {
    yield* report(undefined, progress, volume, 0)
    return yield* volume
  }
  const started = yield* Clock.monotonicTimeNanos
  const seconds = Effect.map(Clock.monotonicTimeNanos, (now) => Number(now - started) / 1e9)
  yield* table.exclusive(volume.targetPath, act(volume, progress)).pipe(
    Effect.tap(() => Effect.flatMap(seconds, (took) => report(volume, progress, undefined, took))),
    Effect.tapError((failure) => Effect.flatMap(seconds, (took) => report(volume, progress, failure, took))),
    Effect.onInterrupt(() => Metrics.nodePublishFailed({ provider: progress.provider, errorType: "Cancelled" }))
  )
})

/**
 * Refreshes a volume whose time has come, with the credentials of its last request. Gives way to calls for the same
 * volume. A mount that is not there any more, or empty, is left to the next call, which knows what is wanted.
 *
 * @shape  (targetPath) -> void
 * @errors none: what fails is counted, logged and told in an Event, and tried again
 */
export const refreshDue = Effect.fn("NodePublish.refreshDue")(function* (targetPath: string) {
  const { volumeMountGroup } = yield* Settings
  const table = yield* VolumeTable
  const refreshing = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const known = table.get(targetPath)
    if (known === undefined) return
    const volume = check(known.request, nowMillis + CALL_MILLIS_MAX, volumeMountGroup)
    if (volume._tag === "RequestInvalid") return
    const present = { ...known, schedule: yield* rescheduled(volume, known) }
    table.set(present)
    if (!Rotation.isDue(present.schedule, nowMillis)) return
    const progress: Progress = {
      provider: known.provider,
      decision: "Refresh",
      masked: undefined,
      nextAttemptMillis: undefined
    }
    const started = yield* Clock.monotonicTimeNanos
    const seconds = Effect.map(Clock.monotonicTimeNanos, (now) => Number(now - started) / 1e9)
    const outcome = yield* Effect.result(
      Effect.gen(function* () {
        const { mount: state, populated } = yield* Effect.tapError(observe(volume), (failure) =>
          postpone(volume, present, failure, progress)
        )
        if (state === "Mounted" && populated) yield* refresh(volume, { known: present, record: "Recorded" }, progress)
        else table.remove(targetPath)
      })
    )
    if (table.get(targetPath) === undefined) return
    yield* report(volume, progress, outcome._tag === "Failure" ? outcome.failure : undefined, yield* seconds, false)
  })
  yield* table.inBackground(targetPath, refreshing)
})
