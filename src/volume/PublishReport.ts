/**
 * What is told of a publish call or a refresh that has ended: metrics, a log line, an Event on the pod.
 *
 * @source reference/driver.md 2.7, 8.2; reference/defects.md D4, D9
 */
import { Clock, Effect } from "effect"
import type { PublishFailed } from "../../schemas/errors/PublishFailed.ts"
import { EventRecorder } from "../reconciler/Events.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import type { Decision } from "./Decision.ts"
import { podKey, type Volume } from "./PublishRequest.ts"

/** What is known of it while it runs. */
export interface Progress {
  provider: string
  decision: Decision["_tag"] | undefined
  masked: PublishFailed | undefined
  /** Of a refresh that failed, in milliseconds since the epoch. */
  nextAttemptMillis: number | undefined
}

/** @shape (provider) -> nothing is known yet */
export const progressOf = (provider: string): Progress => ({
  provider,
  decision: undefined,
  masked: undefined,
  nextAttemptMillis: undefined
})

const OUTCOMES = {
  Mount: "mounted",
  Complete: "refreshed",
  KeepMounted: "kept",
  Due: "due",
  NotDue: "not_due"
} as const

/** @shape (progress, nowMillis) -> "; next attempt in 5s", or that there is none; empty for a first publish */
const nextAttempt = ({ nextAttemptMillis }: Progress, nowMillis: number): string => {
  if (nextAttemptMillis === undefined) return ""
  return Number.isFinite(nextAttemptMillis)
    ? `; next attempt in ${Math.max(1, Math.round((nextAttemptMillis - nowMillis) / 1_000))}s`
    : "; no next attempt: rotation of this volume is frozen"
}

interface Report {
  /** Undefined: the request was refused as a whole. */
  readonly volume: Volume | undefined
  readonly progress: Progress
  readonly failure: PublishFailed | undefined
  /** How long it took. */
  readonly seconds: number
}

/** An Event on the volume's pod, if the request names one. */
export const tellPod = Effect.fnUntraced(function* (
  volume: Volume,
  event: { readonly type: "Normal" | "Warning"; readonly reason: string; readonly message: string }
) {
  if (volume.pod.name === "") return
  const events = yield* EventRecorder
  yield* events.record({ ...event, pod: volume.pod, key: volume.targetPath })
})

const wordsOf = ({ pod, targetPath }: Volume, seconds: number) => ({
  [LogKeys.targetPath]: targetPath,
  [LogKeys.pod]: podKey(pod),
  [LogKeys.time]: `${(seconds * 1000).toFixed(1)}ms`
})

/** A failure of either kind, told to the log and to the pod. */
const tellFailure = Effect.fnUntraced(function* (
  volume: Volume,
  progress: Progress,
  failure: PublishFailed,
  told: { readonly line: string; readonly reason: string }
) {
  const { provider } = progress
  yield* Effect.logError(told.line, {
    [LogKeys.error]: failure.message,
    [LogKeys.remedy]: failure.remedy,
    [LogKeys.code]: failure.code,
    [LogKeys.pod]: podKey(volume.pod),
    [LogKeys.targetPath]: volume.targetPath,
    [LogKeys.provider]: provider
  })
  const next = nextAttempt(progress, yield* Clock.currentTimeMillis)
  yield* tellPod(volume, {
    type: "Warning",
    reason: told.reason,
    message: `${failure.message}; code ${failure.code}, provider ${JSON.stringify(provider)}; ${failure.remedy}${next}`
  })
})

const REFRESH_FAILED = { line: "failed to refresh volume", reason: "MountRotationFailed" }
const MOUNT_FAILED = { line: "failed to mount secrets store volume", reason: "MountFailed" }

/** Of a refresh, whoever began it. */
export const refreshEnded = Effect.fnUntraced(function* ({ failure, progress, seconds, volume }: Report) {
  const { provider } = progress
  if (failure !== undefined) {
    yield* Metrics.rotationFailed({ provider, errorType: failure.code })
    if (volume !== undefined) yield* tellFailure(volume, progress, failure, REFRESH_FAILED)
    return
  }
  yield* Metrics.rotationReconciled({ provider, seconds })
  if (volume !== undefined) yield* Effect.logInfo("volume refreshed", wordsOf(volume, seconds))
})

/** Of a publish call. */
export const publishEnded = Effect.fnUntraced(function* (report: Report) {
  const { failure, progress, seconds, volume } = report
  const { decision, provider } = progress
  const failed = failure ?? progress.masked
  yield* failed === undefined
    ? Metrics.nodePublished({ provider, outcome: OUTCOMES[decision ?? "KeepMounted"] })
    : Metrics.nodePublishFailed({ provider, errorType: failed.code })
  if (decision === "Complete") return yield* refreshEnded({ ...report, failure: failed })
  if (failed !== undefined) {
    // What the last refresh ran into was told when it did.
    const isTold = decision === "KeepMounted" || decision === "Due" || decision === "NotDue"
    if (volume !== undefined && !isTold) yield* tellFailure(volume, progress, failed, MOUNT_FAILED)
    return
  }
  if (decision === "Mount" && volume !== undefined) {
    yield* Effect.logInfo("node publish volume complete", wordsOf(volume, seconds))
  }
})
