/**
 * The content of one volume: asks the provider, writes what it answers, records it, and says when it is to be asked
 * again. Shared by first mounts and refreshes.
 *
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go and provider_client.go; reference/driver.md 2.7 #11-21, 3.4
 */
import { Clock, Effect, Random } from "effect"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
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
  SecretProviderClassIncomplete,
  SecretProviderClassUnavailable,
  TargetNotInspected
} from "../../schemas/errors/PublishFailed.ts"
import { type Asked, FORCE_REFRESH_KEY, sameAsked } from "../../schemas/ForceRefresh.ts"
import type { MountResponse, ObjectVersion } from "../../schemas/Provider.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import { Mounter } from "../ports/Mounter.ts"
import { Providers } from "../ports/Providers.ts"
import { providerRetry } from "../reconciler/Schedules.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import * as AtomicWriter from "./AtomicWriter.ts"
import type { Outcome } from "./Budget.ts"
import * as MountedFiles from "./MountedFiles.ts"
import * as PodStatus from "./PodStatus.ts"
import type { Tell } from "./ProviderBudget.ts"
import { providerRequest } from "./ProviderRequest.ts"
import { type Progress, tellPod } from "./PublishReport.ts"
import { invalid, podKey, type Volume } from "./PublishRequest.ts"
import * as RefreshTriggers from "./RefreshTriggers.ts"
import * as Rotation from "./Rotation.ts"
import { SecretProviderClasses } from "./SecretProviderClasses.ts"
import { Settings } from "./Settings.ts"
import type { ClassContent, VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** The kubelet's own limit, for callers that set none. */
export const CALL_MILLIS_MAX = 120_000
/** Beyond this, a Kubernetes Secret made of the reply is likely to be refused. */
const SECRET_BYTES_MAX = 1_048_576

/** A class that a provider can be asked with. */
export interface UsableClass {
  readonly content: ClassContent
  /** Its own wish for the interval of its volumes, as it is written. */
  readonly interval: string | undefined
  /** What its annotation asks for; a provider that is asked with this class has been asked for that. */
  readonly asked: string
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
  const { annotations = {} } = found.metadata
  return {
    content: { provider, parameters },
    interval: annotations[Rotation.INTERVAL_KEY],
    asked: annotations[FORCE_REFRESH_KEY] ?? ""
  }
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

/** @shape (failure of a call) -> what it shows of the provider */
const outcomeOf = (failure: ProviderFailed): Outcome => {
  switch (failure._tag) {
    case "ProviderCallFailed":
      if (failure.isThrottling) return { _tag: "Throttled", retryAfterMillis: failure.retryAfterMillis }
      return failure.grpcCode === "UNAVAILABLE" || failure.grpcCode === "DEADLINE_EXCEEDED"
        ? { _tag: "Unknown" }
        : { _tag: "Answered" }
    case "ProviderRefused":
      return failure.isThrottling ? { _tag: "Throttled", retryAfterMillis: undefined } : { _tag: "Answered" }
    case "ProviderAnswerInvalid":
      return { _tag: "Answered" }
    case "ProviderBusy":
    case "ProviderNotFound":
    case "ProviderNameInvalid":
      return { _tag: "Unknown" }
  }
}

/** @shape (failure) -> whether its provider is asked too much, so that asking again at once is of no use */
export const isThrottling = (failure: PublishFailed): boolean =>
  failure._tag === "ContentNotMounted" &&
  (failure.reason._tag === "ProviderCallFailed" || failure.reason._tag === "ProviderRefused") &&
  failure.reason.isThrottling

const sameVersions = (a: ReadonlyArray<ObjectVersion>, b: ReadonlyArray<ObjectVersion>): boolean =>
  a.length === b.length && a.every(({ id, version }, index) => b[index]?.id === id && b[index]?.version === version)

// ---- observe

export const observe = Effect.fnUntraced(function* (volume: Volume) {
  const { targetPath } = volume
  const inspectFailed = (cause: { readonly message: string }) =>
    new TargetNotInspected({ targetPath, detail: cause.message })
  const mounter = yield* Mounter
  const mount = yield* Effect.mapError(mounter.inspect(targetPath), inspectFailed)
  const populated =
    mount === "Mounted" && (yield* MountedFiles.populated(targetPath).pipe(Effect.mapError(inspectFailed)))
  return { mount, populated }
})

/** The interval of a volume, and what is wrong with what was written for it. */
export const intervalOf = (volume: Volume, ofClass: string | undefined) =>
  Effect.map(Settings, ({ rotationPollIntervalMillis }) =>
    Rotation.intervalOf({
      driverMillis: rotationPollIntervalMillis,
      volume: volume.request.volumeContext[Rotation.INTERVAL_KEY],
      secretProviderClass: ofClass
    })
  )

// ---- act

/** The class of a volume, usable and asked for rightly. */
export const readClass = Effect.fnUntraced(function* (volume: Volume, progress: Progress) {
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
  progress.provider = result.content.provider
  if (!volume.request.readonly) {
    return yield* invalid("Readonly is not true in request", "set csi.readOnly: true in the pod's volume")
  }
  return result
})

/** How long the caller still waits, within the kubelet's own limit. */
export const remainingMillis = (volume: Volume) =>
  Effect.map(Clock.currentTimeMillis, (now) => Math.max(0, Math.min(volume.answerByMillis - now, CALL_MILLIS_MAX)))

/** Asks the provider, and says who did not answer when time runs out. */
const ask = Effect.fnUntraced(function* (
  volume: Volume,
  { parameters, provider }: ClassContent,
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

/** The answer of a provider, checked; what it shows of the provider is told. */
const fetch = Effect.fnUntraced(function* (
  volume: Volume,
  content: ClassContent,
  currentObjectVersions: ReadonlyArray<ObjectVersion>,
  tell: Tell
) {
  // Until there is an answer, also when nobody waits for it any more.
  tell({ _tag: "Unknown" })
  return yield* ask(volume, content, currentObjectVersions).pipe(
    Effect.flatMap((response): Effect.Effect<Fetched, ProviderFailed> => {
      const objectVersions = versionsOf(content.provider, response)
      return "_tag" in objectVersions ? Effect.fail(objectVersions) : Effect.succeed({ response, objectVersions })
    }),
    Effect.tap(() => Effect.sync(() => tell({ _tag: "Answered" }))),
    Effect.tapError((failure) => Effect.sync(() => tell(outcomeOf(failure), failure.message))),
    Effect.mapError((reason) => new ContentNotMounted({ pod: podKey(volume.pod), reason }))
  )
})

interface Fetched {
  readonly response: MountResponse
  readonly objectVersions: ReadonlyArray<ObjectVersion>
}

/** What a volume is filled with, and what was there before. */
export interface Filling {
  readonly usableClass: UsableClass
  /** Undefined for a first mount. */
  readonly known: VolumeRecord | undefined
  /** Another life of the driver may have recorded the volume, under a name that this one does not know. */
  readonly mayBeRecorded: boolean
  /** As of `AtomicWriter.WriteOptions`. */
  readonly onGeneration?: (name: string) => void
}

/** Puts a volume into the table, with what has come for it meanwhile: credentials, and wishes for one more refresh. */
const commit = Effect.fnUntraced(function* (record: VolumeRecord, wished: Asked) {
  const table = yield* VolumeTable
  const examine = yield* RefreshTriggers.examiner
  const nowMillis = yield* Clock.currentTimeMillis
  const latest = table.get(record.targetPath)
  const merged = latest === undefined ? record : RefreshTriggers.carriedOver(record, latest, wished, nowMillis)
  table.set(examine(merged, nowMillis).record)
})

/**
 * Fetches and writes the content of a mounted volume, then records it.
 *
 * @shape  (volume, filling, tell) -> { changed }: whether a reader could see a difference
 * @errors ContentNotMounted, PodStatusNotWritten: the content is in place then
 */
export const fill = Effect.fnUntraced(function* (
  volume: Volume,
  { known, mayBeRecorded, onGeneration, usableClass }: Filling,
  tell: Tell
) {
  const { pod, targetPath, className } = volume
  // Before the provider is called: what is asked for while it answers is not in its answer.
  const wished = yield* RefreshTriggers.askedNow(pod, className, known?.wanted)
  const asked = { pod: wished.pod, secretProviderClass: usableClass.asked }
  const { content } = usableClass
  const { nodeId } = yield* Settings
  const { objectVersions, response } = yield* fetch(volume, content, known?.objectVersions ?? [], tell)
  if (response.sizeBytes > SECRET_BYTES_MAX) {
    yield* Effect.logInfo("proto above 1MiB, secret sync may fail", { sizeBytes: response.sizeBytes })
  }
  // No files: the provider wrote them itself.
  const { changed } =
    response.files.length === 0
      ? { changed: false }
      : yield* AtomicWriter.write(targetPath, response.files, {
          ...(volume.gid !== undefined && { gid: volume.gid }),
          ...(onGeneration !== undefined && { onGeneration })
        }).pipe(Effect.mapError((reason) => new ContentNotMounted({ pod: podKey(pod), reason })))
  const table = yield* VolumeTable
  // Files that the provider has written itself may have changed as well.
  if (changed || response.files.length === 0) table.contentChanged(targetPath)
  const lastSuccessMillis = yield* Clock.currentTimeMillis
  const { complaints, interval } = yield* intervalOf(volume, usableClass.interval)
  yield* Effect.forEach(complaints, (complaint) => complain(volume, complaint), { discard: true })
  const record: VolumeRecord = {
    volumeId: volume.request.volumeId,
    targetPath,
    pod,
    secretProviderClassName: className,
    provider: content.provider,
    request: volume.request,
    objectVersions,
    lastSuccessMillis,
    schedule:
      known === undefined
        ? Rotation.begin(interval, targetPath, lastSuccessMillis)
        : Rotation.afterSuccess(interval, lastSuccessMillis),
    podStatusName: known?.podStatusName,
    honoured: asked,
    wanted: asked,
    classUsed: content,
    classSeen: content,
    classGone: false,
    failure: undefined
  }
  if (
    known?.podStatusName !== undefined &&
    sameVersions(known.objectVersions, objectVersions) &&
    sameAsked(known.honoured, asked)
  ) {
    yield* commit(record, wished)
    return { changed }
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
    honoured: asked,
    knownName: known?.podStatusName ?? found?.name
  }).pipe(Effect.mapError(notWritten))
  yield* commit({ ...record, podStatusName: name }, wished)
  return { changed }
})

/** A wish for an interval that cannot be read: told to whoever looks at the pod, and otherwise as if it were not there. */
const complain = Effect.fnUntraced(function* (volume: Volume, complaint: string) {
  yield* Effect.logWarning("rotation interval is ignored", {
    [LogKeys.error]: complaint,
    [LogKeys.targetPath]: volume.targetPath,
    [LogKeys.pod]: podKey(volume.pod)
  })
  yield* tellPod(volume, { type: "Warning", reason: "RotationIntervalInvalid", message: complaint })
})

/**
 * Newer content for a volume that is in use. When it fails the files stay, and it is tried again later.
 *
 * @errors PublishFailed
 */
export const refill = Effect.fnUntraced(function* (
  volume: Volume,
  filling: Filling & { readonly known: VolumeRecord },
  tell: Tell
) {
  const { changed } = yield* fill(volume, filling, tell)
  if (!changed) yield* MountedFiles.touch(volume.targetPath, yield* Clock.currentTimeMillis)
})

/** When a refresh that failed is tried again. */
export const postpone = Effect.fnUntraced(function* (
  targetPath: string,
  known: VolumeRecord,
  failure: PublishFailed,
  progress: Progress
) {
  const table = yield* VolumeTable
  const reason = failure._tag === "ContentNotMounted" ? failure.reason : undefined
  const failed = {
    nowMillis: yield* Clock.currentTimeMillis,
    random: yield* Random.next,
    hintMillis: reason?._tag === "ProviderCallFailed" ? reason.retryAfterMillis : undefined,
    isThrottled: isThrottling(failure)
  }
  // Only a volume that is in the table has a clock of its own; the others are learnt again by the next call.
  const recorded = table.get(targetPath)
  const schedule = Rotation.afterFailure((recorded ?? known).schedule, failed)
  progress.nextAttemptMillis = schedule.dueMillis
  if (recorded !== undefined) table.set({ ...recorded, schedule, failure })
})
