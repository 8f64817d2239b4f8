/**
 * Writes Events: the one core of the driver's and the operator's.
 *
 * Recording never fails and never waits. What is said again about the same thing within a while is only counted; after
 * that the same Event is written again with the new count. Under pressure the oldest unwritten ones are dropped.
 */
import { Clock, DateTime, Effect, Latch, Queue } from "effect"
import type { Event, ObjectReference } from "../../schemas/Core.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Resource from "./Resource.ts"
import { eventRetry } from "./Schedules.ts"

const MESSAGE_LENGTH_MAX = 1_024
const NAME_LENGTH_MAX = 253
const QUEUE_LENGTH_MAX = 100
/** For one Event with all its tries. */
const WRITE_TIMEOUT = "5 seconds"
/** For all that are unwritten, when the process ends. */
const FLUSH_TIMEOUT = "5 seconds"
/** The API server forgets Events after an hour; there is nothing to count on then. */
const REMEMBERED_MILLIS = 3_600_000
const REMEMBERED_MAX = 1_000

/** One occasion to say something. */
export interface Occasion {
  readonly type: "Normal" | "Warning"
  /** One word in CamelCase. */
  readonly reason: string
  readonly message: string
  readonly about: ObjectReference
  /** Of the Event; that of what it is about, when that has one. */
  readonly namespace: string
  readonly component: string
  /** The node it comes from. */
  readonly host?: string | undefined
  /** The process that it comes from. */
  readonly instance?: string | undefined
  /** Occasions with the same are one Event, with a count. */
  readonly sameAs: ReadonlyArray<string>
  /** The Event is written at most once in this time. */
  readonly everyMillis: number
  /** What the log calls it when it is not written. */
  readonly logged: Readonly<Record<string, string>>
}

/** What is known of one Event. */
export interface Remembered {
  readonly id: string
  readonly name: string
  readonly firstMillis: number
  /** When it was last handed over for writing. */
  lastMillis: number
  count: number
  /** True once the API server has it. */
  written: boolean
  /** What is to be written, while it waits in the queue. */
  pending: Occasion | undefined
}

/** @shape (text) -> its first 1024 characters; no character is cut in two */
export const cut = (text: string): string =>
  text.length <= MESSAGE_LENGTH_MAX ? text : [...text].slice(0, MESSAGE_LENGTH_MAX).join("")

/** RFC 3339 in whole seconds, which is what the API server keeps. */
const timestamp = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis)).replace(/\.\d+Z$/u, "Z")

/** @shape (name, nanoseconds since the epoch) -> "<name>.<hex>", at most 253 characters */
const nameOf = (about: string, nanos: bigint): string => {
  const suffix = `.${nanos.toString(16)}`
  return `${about.slice(0, NAME_LENGTH_MAX - suffix.length).replace(/[^a-z0-9]+$/u, "")}${suffix}`
}

/**
 * The whole object.
 *
 * @shape  (occasion, { name, firstMillis, lastMillis, count }) -> Event
 * @units  milliseconds since the epoch
 * @errors none
 * @source reference/driver.md 8.3, Q26; reference/operator.md 1.7; reference/wire.md e.1
 */
export const render = (
  { about, component, host, instance, message, namespace, reason, type }: Occasion,
  { count, firstMillis, lastMillis, name }: Pick<Remembered, "name" | "firstMillis" | "lastMillis" | "count">
): Event => ({
  metadata: { name, namespace },
  involvedObject: about,
  type,
  reason,
  message: cut(message),
  source: host === undefined ? { component } : { component, host },
  reportingComponent: component,
  ...(instance === undefined ? {} : { reportingInstance: instance }),
  count,
  firstTimestamp: timestamp(firstMillis),
  lastTimestamp: timestamp(lastMillis)
})

interface EventWriter {
  readonly record: (occasion: Occasion) => Effect.Effect<void>
  /** Waits until what was recorded so far is written or given up, for no longer than five seconds. */
  readonly flush: Effect.Effect<void>
}

/**
 * A writer, until the scope closes; what is unwritten then is lost.
 *
 * @shape  () -> EventWriter
 * @errors none: what cannot be written is logged
 */
export const make = Effect.gen(function* () {
  const api = yield* KubernetesApi
  const queue = yield* Queue.dropping<Remembered>(QUEUE_LENGTH_MAX)
  /** Least recently handed over first. */
  const remembered = new Map<string, Remembered>()
  let lastNanos = 0n
  /** Open while there is nothing left to write. */
  const idle = yield* Latch.make(true)

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

  const begin = (id: string, about: string, nowMillis: number, nowNanos: bigint): Remembered => {
    // Two Events about one object may be told at the same nanosecond of a coarse clock.
    lastNanos = nowNanos > lastNanos ? nowNanos : lastNanos + 1n
    const name = nameOf(about, lastNanos)
    return { id, name, firstMillis: nowMillis, lastMillis: nowMillis, count: 0, written: false, pending: undefined }
  }

  const enqueue = (entry: Remembered) => {
    if (Queue.isFullUnsafe(queue)) {
      const oldest = Queue.takeUnsafe(queue)
      if (oldest?._tag === "Success") forget(oldest.value)
    }
    idle.closeUnsafe()
    Queue.offerUnsafe(queue, entry)
  }

  /** Counts, and queues what is to be written: in one piece, so that no other fiber comes between. */
  const note = (input: Occasion, nowMillis: number, nowNanos: bigint) => {
    forgetOld(nowMillis)
    const id = input.sameAs.join("\u0000")
    const known = remembered.get(id)
    const entry = known ?? begin(id, input.about.name ?? "", nowMillis, nowNanos)
    entry.count += 1
    if (known !== undefined && nowMillis - known.lastMillis < input.everyMillis) return
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
    input: Occasion,
    failure: KubernetesApiFailed | undefined
  ) {
    // What the API server refuses, it refuses again: then the whole while is waited for.
    if (failure === undefined || failure.isTransient) forget(entry)
    yield* Effect.logWarning("event is not written", {
      ...input.logged,
      reason: input.reason,
      [LogKeys.error]: failure?.message ?? "no answer in time"
    })
  })

  const write = Effect.fnUntraced(function* (entry: Remembered) {
    const input = entry.pending
    if (input === undefined) return
    entry.pending = undefined
    yield* send(entry.written, render(input, entry)).pipe(
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
      Effect.andThen(
        Effect.sync(() => {
          if (Queue.sizeUnsafe(queue) === 0) idle.openUnsafe()
        })
      ),
      Effect.forever,
      Effect.tapCause((cause) => Effect.logError("the event writer ended", { cause }))
    )
  )

  const writer: EventWriter = {
    record: (input) =>
      Effect.flatMap(Clock.currentTimeMillis, (nowMillis) =>
        Effect.map(Clock.currentTimeNanos, (nowNanos) => note(input, nowMillis, nowNanos))
      ),
    flush: Effect.asVoid(Effect.timeoutOption(idle.await, FLUSH_TIMEOUT))
  }
  return writer
})
