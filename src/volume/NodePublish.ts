/**
 * NodePublishVolume: one volume of one pod becomes a mounted, filled tmpfs.
 *
 * OK means mounted and filled. A first publish that fails or is interrupted leaves no mount behind. A volume that is
 * mounted, filled and known is answered for at once: the call hands over its credentials, and when they are used is the
 * business of the driver's own clock. Calls that mount run one after the other for one target path.
 *
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go; reference/driver.md 2.7, Q3-Q7, Q14, Q17-Q19
 */
import { Cause, Clock, Effect, FileSystem, Option } from "effect"
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import type { MountFailed } from "../../schemas/errors/MountFailed.ts"
import {
  ContentNotMounted,
  PodStatusNotWritten,
  type PublishFailed,
  TargetNotCreated,
  TargetNotMounted
} from "../../schemas/errors/PublishFailed.ts"
import { NOTHING_ASKED } from "../../schemas/ForceRefresh.ts"
import type { ObjectVersion } from "../../schemas/Provider.ts"
import { Mounter } from "../ports/Mounter.ts"
import { Providers } from "../ports/Providers.ts"
import { lateRecord } from "../reconciler/Schedules.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import { decide, type Observed } from "./Decision.ts"
import { Ending } from "./Ending.ts"
import { LateMounts } from "./LateMounts.ts"
import * as MountedFiles from "./MountedFiles.ts"
import { NodePods } from "./NodePods.ts"
import * as PodStatus from "./PodStatus.ts"
import { ProviderBudget, type Tell } from "./ProviderBudget.ts"
import { type Progress, progressOf, publishEnded, tellPod } from "./PublishReport.ts"
import { check, isMock, namedProvider, podKey, type Volume } from "./PublishRequest.ts"
import * as RefreshTriggers from "./RefreshTriggers.ts"
import * as Rotation from "./Rotation.ts"
import { SecretProviderClasses } from "./SecretProviderClasses.ts"
import { Settings } from "./Settings.ts"
import { expiryMillis } from "./Tokens.ts"
import {
  CALL_MILLIS_MAX,
  fill,
  intervalOf,
  isThrottling,
  observe,
  postpone,
  readClass,
  refill,
  remainingMillis,
  type UsableClass
} from "./VolumeContent.ts"
import type { VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** Of the tmpfs root: pods read, only root writes. */
const ROOT_MODE = 0o755
/** A mount that nobody has asked for any more for this long is not wanted: the kubelet comes back every two minutes. */
const LATE_MILLIS_MAX = 300_000

/** Of what has no record. */
const NEVER = { dueMillis: Number.POSITIVE_INFINITY, setMillis: 0, awaitsTokens: false }

// ---- a volume that is known

/** @shape (record, request, nowMillis) -> the record with the credentials of its latest request */
const handOver = (record: VolumeRecord, request: NodePublishVolumeRequest, nowMillis: number): VolumeRecord => ({
  ...record,
  request,
  schedule:
    record.schedule.awaitsTokens && expiryMillis(request) > nowMillis
      ? Rotation.withTokens(record.schedule, false)
      : record.schedule
})

/**
 * Answers for a volume that is mounted, filled, known and recorded, without waiting for anybody: also while it is
 * refreshed in the background.
 *
 * @shape  (volume, progress) -> true when that is all there was to do
 * @errors TargetNotInspected; with the flag for it, what the volume's last refresh has failed with
 */
const stand = Effect.fnUntraced(function* (volume: Volume, progress: Progress) {
  const { returnRotationErrors, rotationEnabled } = yield* Settings
  const table = yield* VolumeTable
  const { targetPath } = volume
  if (table.get(targetPath)?.podStatusName === undefined) return false
  const { mount, populated } = yield* observe(volume)
  const nowMillis = yield* Clock.currentTimeMillis
  // From here to the end of this step nobody else runs.
  const known = table.get(targetPath)
  if (mount !== "Mounted" || !populated || known?.podStatusName === undefined || !table.isUnattended(targetPath)) {
    return false
  }
  const record = handOver(known, volume.request, nowMillis)
  table.set(record)
  progress.provider = record.provider
  const { schedule } = record
  progress.decision = decide({ mount, populated, record: "Recorded", schedule }, rotationEnabled, nowMillis)._tag
  if (returnRotationErrors && rotationEnabled && record.failure !== undefined) return yield* record.failure
  return true
})

/** What is known of a filled mount that this process did not make: its pod status, and the age of its files. */
const learn = Effect.fnUntraced(function* (volume: Volume) {
  const table = yield* VolumeTable
  const classes = yield* SecretProviderClasses
  const { rotationEnabled } = yield* Settings
  const { className, pod, request, targetPath } = volume
  const before = table.get(targetPath)
  if (before?.podStatusName !== undefined) {
    const known = handOver(before, request, yield* Clock.currentTimeMillis)
    table.set(known)
    return { record: "Recorded", known } as const
  }
  const found = rotationEnabled ? yield* classes.held(pod.namespace, className) : undefined
  const { interval } = yield* intervalOf(volume, found?.metadata.annotations?.[Rotation.INTERVAL_KEY])
  const changedMillis = before?.lastSuccessMillis ?? (yield* MountedFiles.lastChange(targetPath)) ?? 0
  // A clock that was set back has left times that are still to come.
  const nowMillis = yield* Clock.currentTimeMillis
  const lastSuccessMillis = Math.min(changedMillis, nowMillis)
  const remembered = (objectVersions: ReadonlyArray<ObjectVersion>): VolumeRecord => ({
    volumeId: request.volumeId,
    targetPath,
    pod,
    secretProviderClassName: className,
    provider: found?.spec?.provider ?? namedProvider(request),
    objectVersions,
    lastSuccessMillis,
    schedule: Rotation.begin(interval, targetPath, lastSuccessMillis),
    podStatusName: undefined,
    honoured: NOTHING_ASKED,
    wanted: NOTHING_ASKED,
    classUsed: undefined,
    classSeen: undefined,
    classGone: false,
    failure: undefined,
    ...before,
    request
  })
  const examine = yield* RefreshTriggers.examiner
  return yield* PodStatus.find({ pod, secretProviderClassName: className, targetPath }).pipe(
    Effect.map((status) => {
      if (status === undefined) return { record: "Unrecorded", known: remembered([]) } as const
      const { honoured, name, objectVersions } = status
      const recorded = {
        ...remembered(objectVersions),
        objectVersions,
        podStatusName: name,
        honoured,
        wanted: honoured
      }
      // What is asked for now is compared with what was done.
      const { record: known } = examine(recorded, nowMillis)
      table.set(known)
      return { record: "Recorded", known } as const
    }),
    // Without the API server a running pod keeps its files, which go on being refreshed; the next republish learns the
    // rest.
    Effect.catchTag("KubernetesApiFailed", (cause) =>
      Effect.gen(function* () {
        yield* Effect.logWarning("pod status of a mounted volume is not known", { [LogKeys.error]: cause.message })
        const known = remembered([])
        table.set(known)
        return { record: "Unknown", known } as const
      })
    )
  )
})

// ---- a volume that is not mounted yet

/** What a call that mounted a volume knows about its mount. */
interface Made {
  /** The generation that it has written, or has begun to. */
  readonly generation: string | undefined
  readonly mountedMillis: number
}

/** What is mounted there now is what the call has mounted, as far as that can be told: a new tmpfs is as empty as its own. */
const isStillOurs = Effect.fnUntraced(function* ({ targetPath }: Volume, { generation, mountedMillis }: Made) {
  const files = yield* FileSystem.FileSystem
  const entries = yield* files.readDirectoryEntries(targetPath)
  if (generation !== undefined) return entries.some(({ name }) => name === generation)
  // Files that a provider writes itself have no generation.
  if (entries.length > 0) return entries.every(({ name }) => !name.startsWith(".."))
  const { mtime } = yield* files.stat(targetPath)
  return Option.exists(mtime, (changed) => changed.getTime() <= mountedMillis)
})

/**
 * Takes a mount away again, with whatever was written to it. Never fails: what is left is found by the next call.
 *
 * During a rollout another driver may have begun, and have mounted the volume anew while this call hung. So what shows
 * content that is not of this call, whose mount was empty, stays. A driver that is ending takes only its own mount away
 * once nobody waits for the call any more, and does so in one step: the kubelet may be calling the next one.
 */
const undo = Effect.fnUntraced(function* (volume: Volume, made: Made, cause: Cause.Cause<unknown>) {
  const { answerByMillis, targetPath } = volume
  const files = yield* FileSystem.FileSystem
  const mounter = yield* Mounter
  const { isEnding } = yield* Ending
  const isGivenUp = Cause.hasInterrupts(cause) || (yield* Clock.currentTimeMillis) >= answerByMillis
  if (isEnding() && isGivenUp) {
    if (!(yield* Effect.orElseSucceed(isStillOurs(volume, made), () => false))) return
  } else {
    const shown = yield* Effect.orElseSucceed(files.readLink(`${targetPath}/${MountedFiles.DATA}`), () => undefined)
    if (shown !== undefined && shown !== made.generation) return
    yield* MountedFiles.clear(targetPath)
  }
  yield* Effect.catch(mounter.unmount(targetPath), (failed) =>
    Effect.logError("failed to unmount after a failed publish", { [LogKeys.targetPath]: targetPath, cause: failed })
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

/** What is mounted is unmounted again unless all of it succeeds. */
const mountAndFill = Effect.fnUntraced(function* (
  volume: Volume,
  usableClass: UsableClass,
  found: { readonly leftover: boolean; readonly mayBeRecorded: boolean },
  tell: Tell
) {
  const { mayBeRecorded } = found
  let generation: string | undefined
  const onGeneration = (name: string) => {
    generation = name
  }
  yield* Effect.acquireUseRelease(
    Effect.andThen(mountTarget(volume, found.leftover), Clock.currentTimeMillis),
    () => fill(volume, { usableClass, known: undefined, mayBeRecorded, onGeneration }, tell),
    (mountedMillis, exit) =>
      exit._tag === "Success" ? Effect.void : undo(volume, { generation, mountedMillis }, exit.cause)
  )
})

/** Somebody who looks at a pod that does not start learns why. */
const tellWaiting = Effect.fnUntraced(function* (volume: Volume, provider: string) {
  const budget = yield* ProviderBudget
  const words = budget.throttledBy(provider)
  if (words === undefined) return
  yield* tellPod(volume, {
    type: "Warning",
    reason: "MountWaiting",
    message: `provider ${JSON.stringify(provider)} is asked too much, and said: ${words}; the mount waits for its turn, and first mounts come before refreshes`
  })
})

/** Kept of the time of a call for the provider's answer: a mount that is cut off in it waits for the kubelet to come back. */
const ANSWER_MILLIS_MAX = 5_000
const ANSWER_SHARE = 0.1

/** Does something with a turn of the provider, for which it waits as long as its caller does. */
const inTurn = Effect.fnUntraced(function* <A, R>(
  volume: Volume,
  { content: { provider } }: UsableClass,
  use: (tell: Tell) => Effect.Effect<A, PublishFailed, R>
) {
  const budget = yield* ProviderBudget
  const className = `${volume.pod.namespace}/${volume.className}`
  const leftMillis = yield* remainingMillis(volume)
  const waitMillis = leftMillis - Math.min(ANSWER_MILLIS_MAX, leftMillis * ANSWER_SHARE)
  return yield* budget
    .run({ provider, kind: "Mount", className, waitMillis }, use)
    .pipe(
      Effect.catchTag("ProviderBusy", (reason) =>
        Effect.fail(new ContentNotMounted({ pod: podKey(volume.pod), reason }))
      )
    )
})

/** Waits for a turn of the provider, and for another one when it is asked too much. */
const mountInTurn = (volume: Volume, usableClass: UsableClass, found: { leftover: boolean; mayBeRecorded: boolean }) =>
  tellWaiting(volume, usableClass.content.provider).pipe(
    Effect.andThen(inTurn(volume, usableClass, (tell) => mountAndFill(volume, usableClass, found, tell))),
    Effect.retry({ while: isThrottling })
  )

const mount = Effect.fn("NodePublish.mount")(function* (
  volume: Volume,
  found: { readonly leftover: boolean; readonly mayBeRecorded: boolean },
  progress: Progress
) {
  const table = yield* VolumeTable
  table.remove(volume.targetPath)
  if (isMock(volume)) return yield* mountTarget(volume, found.leftover)
  const usableClass = yield* readClass(volume, progress)
  const providers = yield* Providers
  const { providerWaitMillis } = yield* Settings
  const waitMillis = Math.min(providerWaitMillis, yield* remainingMillis(volume))
  yield* Effect.mapError(
    providers.locate(usableClass.content.provider, waitMillis),
    (reason) => new ContentNotMounted({ pod: podKey(volume.pod), reason })
  )
  yield* mountInTurn(volume, usableClass, found)
})

/**
 * A mount that goes on after its call. The kubelet was told that it may still come about, so that it takes the volume
 * away with the pod; a pod that is gone all the same, and a directory that the kubelet has removed, end it.
 */
const mountLate = Effect.fn("NodePublish.mountLate")(
  function* (volume: Volume, atWork: Effect.Effect<void>) {
    const files = yield* FileSystem.FileSystem
    const pods = yield* NodePods
    const table = yield* VolumeTable
    const { targetPath } = volume
    const now = yield* Clock.currentTimeMillis
    const waiting = { ...volume, answerByMillis: Math.min(now + LATE_MILLIS_MAX, expiryMillis(volume.request)) }
    const progress = progressOf("")
    const usableClass = yield* readClass(waiting, progress)
    const budget = yield* ProviderBudget
    const { provider } = usableClass.content
    const className = `${volume.pod.namespace}/${volume.className}`
    const attempt = Effect.gen(function* () {
      const waitMillis = Math.max(0, waiting.answerByMillis - (yield* Clock.currentTimeMillis))
      yield* budget.run({ provider, kind: "Mount", className, waitMillis }, (tell) =>
        table.inBackground(
          targetPath,
          Effect.gen(function* () {
            const parent = targetPath.slice(0, targetPath.lastIndexOf("/"))
            const isWanted = yield* Effect.orElseSucceed(files.exists(parent), () => false)
            if (!isWanted || pods.isEnding(volume.pod) || table.get(targetPath) !== undefined) return
            yield* atWork
            const nowMillis = yield* Clock.currentTimeMillis
            const within = { ...volume, answerByMillis: nowMillis + CALL_MILLIS_MAX }
            yield* mountAndFill(within, usableClass, { leftover: true, mayBeRecorded: true }, tell)
            yield* Effect.logInfo("volume mounted after its call had ended", {
              [LogKeys.targetPath]: targetPath,
              [LogKeys.pod]: podKey(volume.pod)
            })
          })
        )
      )
    })
    yield* Effect.retry(attempt, { while: (failure) => failure._tag !== "ProviderBusy" && isThrottling(failure) })
  },
  // The next call for the volume meets the same failure, and tells it.
  (effect) => Effect.ignore(effect)
)

// ---- the call

/** Records what is mounted as it is, for a volume whose content is not to change, whatever its versions were. */
const recordAsItIs = Effect.fnUntraced(function* (volume: Volume, known: VolumeRecord, progress: Progress) {
  const { className, pod, targetPath } = volume
  const { nodeId } = yield* Settings
  const table = yield* VolumeTable
  // What was asked for before it was recorded is not to change it afterwards.
  const { asked } = yield* readClass(volume, progress)
  const wished = yield* RefreshTriggers.askedNow(pod, className)
  const honoured = { pod: wished.pod, secretProviderClass: asked }
  const { name } = yield* PodStatus.record({
    nodeId,
    pod,
    secretProviderClassName: className,
    targetPath,
    objectVersions: known.objectVersions,
    honoured,
    knownName: undefined
  }).pipe(Effect.mapError((reason) => new PodStatusNotWritten({ pod: podKey(pod), reason })))
  table.set({ ...known, podStatusName: name, honoured, wanted: honoured })
})

/** Fetches once more what a crash has left unrecorded, and records it. */
const fetchAgain = Effect.fnUntraced(function* (volume: Volume, known: VolumeRecord, progress: Progress) {
  const usableClass = yield* readClass(volume, progress)
  yield* inTurn(volume, usableClass, (tell) => refill(volume, { usableClass, known, mayBeRecorded: false }, tell))
})

/** A volume that a crash has left unrecorded: its files are complete. What goes wrong leaves them. */
const complete = Effect.fn("NodePublish.complete")(function* (volume: Volume, known: VolumeRecord, progress: Progress) {
  const { returnRotationErrors, rotationEnabled } = yield* Settings
  const keepsItsContent = !rotationEnabled || known.schedule.interval._tag === "Frozen"
  yield* (keepsItsContent ? recordAsItIs(volume, known, progress) : fetchAgain(volume, known, progress)).pipe(
    Effect.tapError((failure) => postpone(volume.targetPath, known, failure, progress)),
    // A kubelet without the fix for its issue 121271 would take an error for a lost volume (Q18).
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
  const table = yield* VolumeTable
  const { mount: state, populated } = yield* observe(volume)
  const filled = state === "Mounted" && (populated || isMock(volume))
  const learnt = filled && !isMock(volume) ? yield* learn(volume) : undefined
  if (learnt !== undefined && learnt.known.provider !== "") progress.provider = learnt.known.provider
  const observed: Observed = {
    mount: state,
    populated: filled,
    record: learnt?.record ?? "Recorded",
    schedule: learnt?.known.schedule ?? NEVER
  }
  const decision = decide(observed, rotationEnabled && !isMock(volume), yield* Clock.currentTimeMillis)
  progress.decision = decision._tag
  if (decision._tag === "Mount") {
    // Where there is not even a directory, nobody was before, or the kubelet has removed what a failure had left.
    const { targetPath } = volume
    const mayBeRecorded =
      state !== "Missing" || table.get(targetPath)?.podStatusName !== undefined || table.mayHavePodStatus(targetPath)
    yield* mount(volume, { leftover: decision.leftover, mayBeRecorded }, progress)
  }
  if (decision._tag === "Complete" && learnt !== undefined) yield* complete(volume, learnt.known, progress)
})

/**
 * Records a filled volume as soon as that is possible. Without rotation the kubelet need not come back for a volume that
 * was answered OK, and what is not recorded is found by nobody who looks for it in the API.
 *
 * @shape  (volume) -> void; ends when it is recorded, or is no volume
 * @errors none: what fails is logged and tried again
 */
export const recordLate = Effect.fn("NodePublish.recordLate")(function* (volume: Volume) {
  const table = yield* VolumeTable
  const { targetPath } = volume
  let isOver = false
  const attempt = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    const within = { ...volume, answerByMillis: now + CALL_MILLIS_MAX }
    const { mount: state, populated } = yield* observe(within)
    // What is not a volume is left to the next call.
    if (state === "Mounted" && populated) {
      const { known, record } = yield* learn(within)
      if (record === "Unknown") return
      if (record === "Unrecorded") yield* recordAsItIs(within, known, progressOf(known.provider))
    }
    isOver = true
  })
  const tried = Effect.catch(table.inBackground(targetPath, attempt), (failure) =>
    Effect.logWarning("a mounted volume could not be recorded", {
      [LogKeys.targetPath]: targetPath,
      [LogKeys.error]: failure.message
    })
  )
  yield* Effect.repeat(tried, { schedule: lateRecord, until: () => isOver })
})

/** Not mounted in time, because others were first: it is still wanted. */
const isLate = (failure: PublishFailed): boolean =>
  failure._tag === "ContentNotMounted" && failure.reason._tag === "ProviderBusy"

const serve = Effect.fnUntraced(function* (volume: Volume, progress: Progress) {
  if (yield* stand(volume, progress)) return
  const late = yield* LateMounts
  const table = yield* VolumeTable
  if (late.isUnderWay(volume.targetPath)) {
    yield* late.join(volume.targetPath, yield* remainingMillis(volume))
    if (yield* stand(volume, progress)) return
  }
  yield* table
    .exclusive(volume.targetPath, act(volume, progress))
    .pipe(
      Effect.tapError((failure) =>
        progress.decision === "Mount" && isLate(failure)
          ? late.begin(volume.targetPath, (atWork) => mountLate(volume, atWork))
          : Effect.void
      )
    )
  const { rotationEnabled } = yield* Settings
  const isRecorded = isMock(volume) || table.get(volume.targetPath)?.podStatusName !== undefined
  if (!rotationEnabled && !isRecorded) yield* late.begin(volume.targetPath, () => recordLate(volume))
})

/**
 * Serves one NodePublishVolume call.
 *
 * @shape  (request, deadlineMillis) -> void
 * @units  deadlineMillis: milliseconds since the epoch, Infinity when the caller never stops waiting
 * @errors PublishFailed; what a refresh fails with is returned only if a flag says so
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go, NodePublishVolume; reference/driver.md 2.7
 */
export const publish = Effect.fn("NodePublish.publish")(function* (
  request: NodePublishVolumeRequest,
  deadlineMillis: number
) {
  const { volumeMountGroup } = yield* Settings
  const progress = progressOf(namedProvider(request))
  const latestMillis = (yield* Clock.currentTimeMillis) + CALL_MILLIS_MAX
  const volume = check(request, Math.min(deadlineMillis, latestMillis), volumeMountGroup)
  if (volume._tag === "RequestInvalid") {
    yield* publishEnded({ volume: undefined, progress, failure: volume, seconds: 0 })
    return yield* volume
  }
  const started = yield* Clock.monotonicTimeNanos
  const ended = (failure: PublishFailed | undefined) =>
    Effect.flatMap(Clock.monotonicTimeNanos, (now) =>
      publishEnded({ volume, progress, failure, seconds: Number(now - started) / 1e9 })
    )
  yield* serve(volume, progress).pipe(
    Effect.tap(() => ended(undefined)),
    Effect.tapError(ended),
    Effect.onInterrupt(() => Metrics.nodePublishFailed({ provider: progress.provider, errorType: "Cancelled" }))
  )
})
