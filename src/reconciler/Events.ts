/**
 * Events on pods: what an administrator sees in `kubectl describe pod`.
 *
 * Recording never fails and never waits. What is said again about the same thing within a while is only counted; after
 * that the same Event is written again with the new count. Under pressure the oldest unwritten ones are dropped.
 */
import { Clock, Context, DateTime, Effect, Layer, Queue } from "effect"
import type { Event } from "../../schemas/Core.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Resource from "./Resource.ts"
import { eventRetry } from "./Schedules.ts"

/** Alert rules and scripts know the driver under this name. */
const COMPONENT = "csi-secrets-store-controller"
const EVERY_MILLIS = 300_000
const MESSAGE_LENGTH_MAX = 1_024
const NAME_LENGTH_MAX = 253
const QUEUE_LENGTH_MAX = 100
/** For one Event with all its tries. */
const WRITE_TIMEOUT = "5 seconds"
/** The API server forgets Events after an hour; there is nothing to count on then. */
const REMEMBERED_MILLIS = 3_600_000
const REMEMBERED_MAX = 1_000

export interface EventInput {
  readonly type: "Normal" | "Warning"
  /** One word in CamelCase. */
  readonly reason: string
  readonly message: string
  readonly pod: { readonly name: string; readonly namespace: string; readonly uid: string }
  /** What it is about, such as a target path: there is at most one Event per key and reason in `everyMillis`. */
  readonly key: string
  /** Five minutes when absent. */
  readonly everyMillis?: number
}

/** What is known of one (pod, key, reason). */
interface Remembered {
  readonly id: string
  readonly name: string
  readonly firstMillis: number
  /** When it was last handed over for writing. */
  lastMillis: number
  count: number
  /** True once the API server has it. */
  written: boolean
  /** What is to be written, while it waits in the queue. */
  pending: EventInput | undefined
}

/** @shape (text) -> its first 1024 characters; no character is cut in two */
export const cut = (text: string): string =>
  text.length <= MESSAGE_LENGTH_MAX ? text : [...text].slice(0, MESSAGE_LENGTH_MAX).join("")

/** RFC 3339 in whole seconds, which is what the API server keeps. */
const timestamp = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis)).replace(/\.\d+Z$/u, "Z")

/** @shape (pod, nanoseconds since the epoch) -> "<pod>.<hex>", at most 253 characters */
const nameOf = (pod: string, nanos: bigint): string => {
  const suffix = `.${nanos.toString(16)}`
  return `${pod.slice(0, NAME_LENGTH_MAX - suffix.length).replace(/[^a-z0-9]+$/u, "")}${suffix}`
}

/**
 * The whole object.
 *
 * @shape  (input, host, { name, firstMillis, lastMillis, count }) -> Event
 * @units  milliseconds since the epoch
 * @errors none
 * @source reference/driver.md 8.3, Q26; reference/wire.md e.1
 */
export const render = (
  { message, pod, reason, type }: EventInput,
  host: string,
  { count, firstMillis, lastMillis, name }: Pick<Remembered, "name" | "firstMillis" | "lastMillis" | "count">
): Event => ({
  metadata: { name, namespace: pod.namespace },
  involvedObject: { apiVersion: "v1", kind: "Pod", name: pod.name, namespace: pod.namespace, uid: pod.uid },
  type,
  reason,
  message: cut(message),
  source: { component: COMPONENT, host },
  reportingComponent: COMPONENT,
  reportingInstance: host,
  count,
  firstTimestamp: timestamp(firstMillis),
  lastTimestamp: timestamp(lastMillis)
})

export class EventRecorder extends Context.Service<
  EventRecorder,
  {
    readonly record: (input: EventInput) => Effect.Effect<void>
  }
>()("secrets-store/reconciler/EventRecorder") {
  /** Needs the node's id, which becomes the Events' host. What is unwritten when its scope closes is lost. */
  static readonly layer = (nodeId: string) => Layer.effect(EventRecorder, makeRecorder(nodeId))
}

const makeRecorder = Effect.fnUntraced(function* (host: string) {
  const api = yield* KubernetesApi
  const queue = yield* Queue.dropping<Remembered>(QUEUE_LENGTH_MAX)
  /** Least recently handed over first. */
  const remembered = new Map<string, Remembered>()
  let lastNanos = 0n

  const forgetOld = (nowMillis: number) => {
    for (const [id, { lastMillis }] of remembered) {
      if (remembered.size <= REMEMBERED_MAX && nowMillis - lastMillis < REMEMBERED_MILLIS) return
      remembered.delete(id)
    }
  }

  /** So that the next occasion is a first one. */
  const forget = (entry: Remembered) => {
    entry.pending = undefined
    if (!entry.written && remembered.get(entry.id) === entry) remembered.delete(entry.id)
  }

  const begin = (id: string, pod: string, nowMillis: number, nowNanos: bigint): Remembered => {
    // Two Events of one pod may be told at the same nanosecond of a coarse clock.
    lastNanos = nowNanos > lastNanos ? nowNanos : lastNanos + 1n
    const name = nameOf(pod, lastNanos)
    return { id, name, firstMillis: nowMillis, lastMillis: nowMillis, count: 0, written: false, pending: undefined }
  }

  const enqueue = (entry: Remembered) => {
    if (Queue.isFullUnsafe(queue)) {
      const oldest = Queue.takeUnsafe(queue)
      if (oldest?._tag === "Success") forget(oldest.value)
    }
    Queue.offerUnsafe(queue, entry)
  }

  /** Counts, and queues what is to be written: in one piece, so that no other fiber comes between. */
  const note = (input: EventInput, nowMillis: number, nowNanos: bigint) => {
    forgetOld(nowMillis)
    const id = [input.pod.uid, input.key, input.reason].join("\u0000")
    const known = remembered.get(id)
    const entry = known ?? begin(id, input.pod.name, nowMillis, nowNanos)
    entry.count += 1
    if (known !== undefined && nowMillis - known.lastMillis < (input.everyMillis ?? EVERY_MILLIS)) return
    const isQueued = entry.pending !== undefined
    entry.lastMillis = nowMillis
    entry.pending = input
    remembered.delete(id)
    remembered.set(id, entry)
    if (!isQueued) enqueue(entry)
  }

  const post = (event: Event) =>
    Effect.catchIf(
      Resource.post(Resource.events, event),
      // Ours: the answer to an earlier try was lost.
      (failure) => failure.isAlreadyExists,
      () => Effect.void
    )

  const patch = ({ count, lastTimestamp, message, metadata }: Event) =>
    Resource.mergePatch(Resource.events, metadata.namespace ?? "", metadata.name ?? "", {
      count,
      lastTimestamp,
      message
    })

  const send = (written: boolean, event: Event): Effect.Effect<void, KubernetesApiFailed, KubernetesApi> =>
    written
      ? Effect.catchIf(
          Effect.asVoid(patch(event)),
          // The API server has forgotten it meanwhile.
          (failure) => failure.isNotFound,
          () => post(event)
        )
      : post(event)

  const gaveUp = Effect.fnUntraced(function* (
    entry: Remembered,
    input: EventInput,
    failure: KubernetesApiFailed | undefined
  ) {
    // What the API server refuses, it refuses again: then the whole while is waited for.
    if (failure === undefined || failure.isTransient) forget(entry)
    yield* Effect.logWarning("event is not written", {
      [LogKeys.pod]: `${input.pod.namespace}/${input.pod.name}`,
      reason: input.reason,
      [LogKeys.error]: failure?.message ?? "no answer in time"
    })
  })

  const write = Effect.fnUntraced(function* (entry: Remembered) {
    const input = entry.pending
    if (input === undefined) return
    entry.pending = undefined
    yield* send(entry.written, render(input, host, entry)).pipe(
      Effect.retry({ schedule: eventRetry, while: (failure) => failure.isTransient }),
      Effect.andThen(
        Effect.sync(() => {
          entry.written = true
        })
      ),
      Effect.timeoutOrElse({ duration: WRITE_TIMEOUT, orElse: () => gaveUp(entry, input, undefined) }),
      Effect.catch((failure) => gaveUp(entry, input, failure)),
      Effect.provideService(KubernetesApi, api)
    )
  })

  yield* Effect.forkScoped(
    Queue.take(queue).pipe(
      Effect.flatMap(write),
      Effect.forever,
      Effect.tapCause((cause) => Effect.logError("the event writer ended", { cause }))
    )
  )

  return EventRecorder.of({
    record: (input) =>
      Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
        Effect.map(Clock.currentTimeNanos, (nowNanos) => note(input, nowMillis, nowNanos))
      )
  })
})
