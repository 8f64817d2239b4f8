/**
 * Events on pods: what an administrator sees in `kubectl describe pod`.
 *
 * There is at most one per pod, key and reason in five minutes, whatever it says; how it is written is the business of
 * `EventWriter`.
 */
import { Context, Effect, Layer } from "effect"
import type { Event } from "../../schemas/Core.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as EventWriter from "./EventWriter.ts"

/** Alert rules and scripts know the driver under this name. */
const COMPONENT = "csi-secrets-store-controller"
const EVERY_MILLIS = 300_000

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

const occasionOf = ({ everyMillis = EVERY_MILLIS, key, message, pod, reason, type }: EventInput, host: string) => ({
  type,
  reason,
  message,
  about: { apiVersion: "v1", kind: "Pod", name: pod.name, namespace: pod.namespace, uid: pod.uid },
  namespace: pod.namespace,
  component: COMPONENT,
  host,
  instance: host,
  sameAs: [pod.uid, key, reason],
  everyMillis,
  logged: { [LogKeys.pod]: `${pod.namespace}/${pod.name}` }
})

/**
 * The whole object.
 *
 * @shape  (input, host, { name, firstMillis, lastMillis, count }) -> Event
 * @units  milliseconds since the epoch
 * @errors none
 * @source reference/driver.md 8.3, Q26; reference/wire.md e.1
 */
export const render = (input: EventInput, host: string, remembered: Parameters<typeof EventWriter.render>[1]): Event =>
  EventWriter.render(occasionOf(input, host), remembered)

export class EventRecorder extends Context.Service<
  EventRecorder,
  {
    readonly record: (input: EventInput) => Effect.Effect<void>
  }
>()("secrets-store/reconciler/EventRecorder") {
  /** Needs the node's id, which becomes the Events' host. What is unwritten when its scope closes is lost. */
  static readonly layer = (nodeId: string) =>
    Layer.effect(
      EventRecorder,
      Effect.map(EventWriter.make, ({ record }) =>
        EventRecorder.of({ record: (input) => record(occasionOf(input, nodeId)) })
      )
    )
}
