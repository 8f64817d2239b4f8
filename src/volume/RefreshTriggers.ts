/**
 * What brings a refresh forward: an annotation of the pod or its class that asks for one, an edit of the class, a
 * changed interval. Looked at whenever the pod, the class or the volume has changed, and always as a whole: a missed
 * event costs time, never a wish.
 *
 * What was asked for and has been done is kept in the volume's pod status, so that a driver that starts again knows it.
 */
import { Clock, Effect, Queue } from "effect"
import { type Asked, FORCE_REFRESH_KEY, NOTHING_ASKED } from "../../schemas/ForceRefresh.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import { EventRecorder } from "../reconciler/Events.ts"
import * as Held from "../reconciler/Held.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import { NodePods } from "./NodePods.ts"
import * as Rotation from "./Rotation.ts"
import { type HeldClass, SecretProviderClasses } from "./SecretProviderClasses.ts"
import { Settings } from "./Settings.ts"
import type { ClassContent, PodIdentity, VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

// ---- observe

interface Observed {
  /** The pod's own wish; undefined while the pod is not known. */
  readonly pod: string | undefined
  readonly secretProviderClass: HeldClass
}

interface Rules {
  readonly rotationPollIntervalMillis: number
  readonly refreshOnClassChange: boolean
}

/** Looks at what is held at the moment in which it is called. */
const observer = Effect.map(
  Effect.all([NodePods, SecretProviderClasses]),
  ([pods, classes]) =>
    (pod: PodIdentity, className: string): Observed => {
      const found = pods.get(pod)
      return {
        pod: found === undefined ? undefined : (found.metadata.annotations?.[FORCE_REFRESH_KEY] ?? ""),
        secretProviderClass: classes.current(pod.namespace, className)
      }
    }
)

const askedBy = ({ pod, secretProviderClass }: Observed, before: Asked): Asked => ({
  pod: pod ?? before.pod,
  secretProviderClass:
    secretProviderClass._tag === "Held"
      ? (secretProviderClass.object.metadata.annotations?.[FORCE_REFRESH_KEY] ?? "")
      : before.secretProviderClass
})

// ---- decide

/** A wish that was taken back is none; one that was seen or done before is none either. */
const asksMore = (wanted: Asked, ...than: ReadonlyArray<Asked>): boolean =>
  (wanted.pod !== "" && than.every(({ pod }) => pod !== wanted.pod)) ||
  (wanted.secretProviderClass !== "" &&
    than.every(({ secretProviderClass }) => secretProviderClass !== wanted.secretProviderClass))

/** @shape (class) -> what a provider is asked with */
const contentOf = ({ spec }: SecretProviderClass): ClassContent => ({
  provider: spec?.provider ?? "",
  parameters: spec?.parameters ?? {}
})

/** @shape (a, b) -> whether a provider is asked for the same with both; undefined is not known, and counts as the same */
const sameContent = (a: ClassContent | undefined, b: ClassContent | undefined): boolean => {
  if (a === undefined || b === undefined || a === b) return true
  const keys = Object.keys(a.parameters)
  return (
    a.provider === b.provider &&
    keys.length === Object.keys(b.parameters).length &&
    keys.every((key) => a.parameters[key] === b.parameters[key])
  )
}

export interface Decision {
  readonly record: VolumeRecord
  /** Why the volume is due now, when it was not before. */
  readonly why: "Asked" | "ClassChanged" | undefined
  /** The class was there and is not any more. */
  readonly classGone: boolean
}

/**
 * Decides what has become of a volume's schedule.
 *
 * @shape  (record, observed, rules, nowMillis) -> { record, why, classGone }; the same record when nothing has changed
 * @units  milliseconds since the epoch
 * @errors none: what is not known changes nothing
 */
export const decide = (record: VolumeRecord, observed: Observed, rules: Rules, nowMillis: number): Decision => {
  const held = observed.secretProviderClass
  const wanted = askedBy(observed, record.wanted)
  // Of a volume whose pod status could not be read it is not known which wishes have been fulfilled.
  const isAsked = record.podStatusName !== undefined && asksMore(wanted, record.wanted, record.honoured)
  const seen = held._tag === "Held" ? contentOf(held.object) : record.classSeen
  const interval =
    held._tag === "Held"
      ? Rotation.intervalOf({
          driverMillis: rules.rotationPollIntervalMillis,
          volume: record.request.volumeContext[Rotation.INTERVAL_KEY],
          secretProviderClass: held.object.metadata.annotations?.[Rotation.INTERVAL_KEY]
        }).interval
      : record.schedule.interval
  // What is frozen changes only when it is asked for.
  const isEdited =
    rules.refreshOnClassChange &&
    held._tag === "Held" &&
    interval._tag !== "Frozen" &&
    !sameContent(seen, record.classSeen) &&
    !sameContent(seen, record.classUsed)
  const { lastSuccessMillis } = record
  const rescheduled = Rotation.reschedule(record.schedule, interval, { lastSuccessMillis, nowMillis })
  const schedule = isAsked || isEdited ? Rotation.askNow(rescheduled, nowMillis) : rescheduled
  const classGone = held._tag === "Absent" || (held._tag === "Unknown" && record.classGone)
  const isSame =
    schedule === record.schedule &&
    classGone === record.classGone &&
    (seen === undefined) === (record.classSeen === undefined) &&
    sameContent(seen, record.classSeen) &&
    wanted.pod === record.wanted.pod &&
    wanted.secretProviderClass === record.wanted.secretProviderClass
  return {
    record: isSame ? record : { ...record, schedule, wanted, classSeen: seen, classGone },
    why: isAsked ? "Asked" : isEdited ? "ClassChanged" : undefined,
    classGone: classGone && !record.classGone
  }
}

// ---- act

/** @shape (pod, class, what was known before) -> what is asked for at this moment, as far as it is known */
export const askedNow = (pod: PodIdentity, className: string, before: Asked = NOTHING_ASKED) =>
  Effect.map(observer, (observe) => askedBy(observe(pod, className), before))

/**
 * A volume that was just filled, with what came for it while its provider was called.
 *
 * @shape  (record: as filled, latest: as it is in the table, wished: before its provider was called, nowMillis)
 *         -> VolumeRecord
 */
export const carriedOver = (
  record: VolumeRecord,
  latest: VolumeRecord,
  wished: Asked,
  nowMillis: number
): VolumeRecord => ({
  ...record,
  request: latest.request,
  wanted: latest.wanted,
  // A class that is asked for live may not say what was last heard of it.
  schedule: asksMore(latest.wanted, record.honoured, wished)
    ? Rotation.askNow(record.schedule, nowMillis)
    : record.schedule
})

/** @shape () -> (record, nowMillis) -> the record as its present pod and class want it */
export const examiner = Effect.map(
  Effect.all([observer, Settings]),
  ([observe, rules]) =>
    (record: VolumeRecord, nowMillis: number): Decision =>
      rules.rotationEnabled
        ? decide(record, observe(record.pod, record.secretProviderClassName), rules, nowMillis)
        : { record, why: undefined, classGone: false }
)

const WHY = {
  Asked: "refresh of a volume was asked for",
  ClassChanged: "secret provider class was changed, its volume is refreshed"
} as const

const look = Effect.fnUntraced(function* (targetPath: string) {
  const table = yield* VolumeTable
  const examine = yield* examiner
  const nowMillis = yield* Clock.currentTimeMillis
  const before = table.get(targetPath)
  if (before === undefined) return
  const { classGone, record, why } = examine(before, nowMillis)
  if (record !== before) table.set(record)
  const name = `${record.pod.namespace}/${record.secretProviderClassName}`
  const fields = {
    [LogKeys.targetPath]: targetPath,
    [LogKeys.pod]: `${record.pod.namespace}/${record.pod.name}`,
    [LogKeys.secretProviderClass]: name
  }
  if (why !== undefined) yield* Effect.logInfo(WHY[why], fields)
  if (!classGone) return
  const remedy = "create it again; until then the files stay as they are and are not refreshed"
  yield* Effect.logWarning("secret provider class of a mounted volume is gone", { ...fields, [LogKeys.remedy]: remedy })
  if (record.pod.name === "") return
  const events = yield* EventRecorder
  yield* events.record({
    type: "Warning",
    reason: "SecretProviderClassDeleted",
    message: `SecretProviderClass ${name} of a mounted volume was deleted; ${remedy}`,
    pod: record.pod,
    key: targetPath
  })
})

/**
 * Runs for ever; needed while rotation is on.
 *
 * @shape  () -> never
 * @errors none
 */
export const run = Effect.fnUntraced(function* () {
  const table = yield* VolumeTable
  const classes = yield* SecretProviderClasses
  const pods = yield* NodePods
  const bell = yield* Queue.sliding<void>(1)
  const changed = new Set<string>()
  const mark = (isConcerned: (record: VolumeRecord) => boolean) => {
    for (const record of table.all()) if (isConcerned(record)) changed.add(record.targetPath)
    Queue.offerUnsafe(bell, undefined)
  }
  yield* table.onVolumes((targetPath) => {
    changed.add(targetPath)
    Queue.offerUnsafe(bell, undefined)
  })
  yield* classes.onChange((namespace, name) =>
    mark(({ pod, secretProviderClassName }) => pod.namespace === namespace && secretProviderClassName === name)
  )
  yield* pods.onChange((namespace, name) => mark(({ pod }) => pod.namespace === namespace && pod.name === name))
  // Otherwise nothing would be heard of classes whose volumes are refreshed once a day.
  const namespaces = yield* Held.make(classes.follow)
  mark(() => true)
  return yield* Effect.forever(
    Effect.gen(function* () {
      yield* Queue.take(bell)
      yield* namespaces.keep(new Set(table.all().map(({ pod }) => pod.namespace)))
      const paths = [...changed]
      changed.clear()
      yield* Effect.forEach(paths, look, { discard: true })
    })
  )
}, Effect.scoped)
