/**
 * Refreshes a volume whose time has come: with the credentials of its last request, and when its provider has time.
 *
 * Gives way to calls for the same volume. What fails changes nothing on disk; it is counted, logged, told in an Event,
 * and tried again.
 */
import { Clock, DateTime, Effect } from "effect"
import type { PublishFailed } from "../../schemas/errors/PublishFailed.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import { decideRefresh } from "./Decision.ts"
import { ProviderBudget, type Tell } from "./ProviderBudget.ts"
import { type Progress, progressOf, refreshEnded, tellPod } from "./PublishReport.ts"
import { check, podKey, type Volume } from "./PublishRequest.ts"
import * as Rotation from "./Rotation.ts"
import { Settings } from "./Settings.ts"
import { expiryMillis } from "./Tokens.ts"
import { CALL_MILLIS_MAX, observe, postpone, readClass, refill } from "./VolumeContent.ts"
import type { VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** Waiting is told once when it begins: to the log, and to whoever looks at the pod. */
const awaitTokens = Effect.fnUntraced(function* (volume: Volume, known: VolumeRecord, expiredMillis: number) {
  const table = yield* VolumeTable
  const present = table.get(known.targetPath) ?? known
  table.set({ ...present, schedule: Rotation.withTokens(present.schedule, true) })
  const expired = DateTime.formatIso(DateTime.makeUnsafe(expiredMillis))
  const remedy =
    "the kubelet brings others if the CSIDriver has requiresRepublish: true; see the kubelet's log if it does not"
  yield* Effect.logWarning("volume waits for fresh service account tokens", {
    [LogKeys.targetPath]: volume.targetPath,
    [LogKeys.pod]: podKey(volume.pod),
    expired,
    [LogKeys.remedy]: remedy
  })
  yield* tellPod(volume, {
    type: "Warning",
    reason: "MountRotationWaiting",
    message: `the service account tokens of the volume expired at ${expired}; it keeps its files and is refreshed once there are others; ${remedy}`
  })
})

/** The volume's own part of a refresh: what is there now decides, not what was there when it became due. */
const turn = Effect.fnUntraced(function* (targetPath: string, progress: Progress, tell: Tell) {
  const { volumeMountGroup } = yield* Settings
  const table = yield* VolumeTable
  const known = table.get(targetPath)
  if (known === undefined) return
  const started = yield* Clock.currentTimeMillis
  const volume = check(known.request, started + CALL_MILLIS_MAX, volumeMountGroup)
  if (volume._tag === "RequestInvalid") return
  const { mount, populated } = yield* observe(volume)
  const tokensExpireMillis = expiryMillis(known.request)
  const decision = decideRefresh({ mount, populated, schedule: known.schedule, tokensExpireMillis }, started)
  switch (decision._tag) {
    case "NotDue":
      return
    case "Gone":
      return table.remove(targetPath)
    case "AwaitTokens":
      return yield* awaitTokens(volume, known, decision.expiredMillis)
    case "Refresh": {
      const nanos = yield* Clock.monotonicTimeNanos
      const usableClass = yield* readClass(volume, progress)
      const mayBeRecorded = known.podStatusName === undefined
      yield* refill(volume, { usableClass, known, mayBeRecorded }, tell)
      const seconds = Number((yield* Clock.monotonicTimeNanos) - nanos) / 1e9
      yield* refreshEnded({ volume, progress, failure: undefined, seconds })
    }
  }
})

const failed = Effect.fnUntraced(function* (
  volume: Volume,
  known: VolumeRecord,
  failure: PublishFailed,
  progress: Progress
) {
  yield* postpone(volume.targetPath, known, failure, progress)
  yield* refreshEnded({ volume, progress, failure, seconds: 0 })
})

/**
 * Refreshes one volume, if it is due.
 *
 * @shape  (targetPath) -> void
 * @errors none
 */
export const refreshDue = Effect.fn("VolumeRefresh.refreshDue")(function* (targetPath: string) {
  const { volumeMountGroup } = yield* Settings
  const table = yield* VolumeTable
  const budget = yield* ProviderBudget
  const refreshing = Effect.gen(function* () {
    const nowMillis = yield* Clock.currentTimeMillis
    const known = table.get(targetPath)
    if (known === undefined || !Rotation.isDue(known.schedule, nowMillis)) return
    const volume = check(known.request, nowMillis + CALL_MILLIS_MAX, volumeMountGroup)
    if (volume._tag === "RequestInvalid") return
    const progress = progressOf(known.provider)
    const usableClass = readClass(volume, progress)
    const whole = Effect.flatMap(usableClass, ({ content }) =>
      budget.run(
        {
          provider: content.provider,
          kind: known.schedule.asked ? "Asked" : "Due",
          className: `${volume.pod.namespace}/${volume.className}`,
          waitMillis: Number.POSITIVE_INFINITY
        },
        (tell) => turn(targetPath, progress, tell)
      )
    )
    yield* whole.pipe(
      // It is waited for without a limit.
      Effect.catchTag("ProviderBusy", (busy) => Effect.die(busy)),
      Effect.catch((failure) => failed(volume, known, failure, progress))
    )
  })
  yield* table.inBackground(targetPath, refreshing)
})
