/**
 * Plays the DaemonSet controller, the scheduler and the kubelet of one node: for a DaemonSet that is there it keeps one
 * pod, whose container is a process of this machine with the arguments of the pod template; a changed template replaces
 * the pod, and a deleted DaemonSet takes it away. A pod counts as available once its driver says that it is ready.
 *
 * A driver that dies by itself is not started again: whoever looks on is to notice, and to read its log.
 */
import { Data, Effect, Schedule, Scope } from "effect"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { isEqual, isObject, type JsonObject, objectAt } from "../../schemas/Json.ts"
import { DAEMON_SET, DRIVER_CONTAINER } from "../../src/operator/Names.ts"
import type { KubernetesApi, KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import * as DriverProcess from "./DriverProcess.ts"
import { get } from "./Http.ts"
import { argumentsOf, type PlayedNode } from "./PodTemplate.ts"

class PodNotStarted extends Data.TaggedError("PodNotStarted")<{ readonly message: string }> {}

/** A pod of the DaemonSet, for as long as its process runs and after that. */
interface DriverPod {
  readonly name: string
  /** Of the process, as far as they come from the template. */
  readonly args: ReadonlyArray<string>
  readonly driver: DriverProcess.DriverProcess
}

export interface DaemonSetController {
  /** All pods so far, the newest one last. */
  readonly pods: () => ReadonlyArray<DriverPod>
  /** Until interrupted. The processes outlive it: they end with the scope in which the controller was made. */
  readonly run: Effect.Effect<never, KubernetesApiFailed | DriverProcess.DriverDied | PodNotStarted>
}

export interface Options {
  readonly api: KubernetesApi["Service"]
  readonly namespace: string
  readonly node: PlayedNode
  /** The driver's program. */
  readonly entry: string
  /** Beside those of the template. */
  readonly flags: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  /** Answers with 200 once a pod is ready. */
  readonly readyUrl: string
}

const often = Schedule.spaced("50 millis")
/** Of a pod whose template says nothing else. */
const TERMINATION_GRACE = "30 seconds"

interface Running extends DriverPod {
  readonly template: JsonObject
  isReady: boolean
}

const asObject = (value: unknown): JsonObject => (isObject(value) ? value : {})

/** @shape (options) -> DaemonSetController; nothing happens before its `run` */
export const make = Effect.fnUntraced(function* ({
  api,
  entry,
  environment,
  flags,
  namespace,
  node,
  readyUrl
}: Options): Effect.fn.Return<DaemonSetController, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const pods: Array<DriverPod> = []
  let current: Running | undefined

  const daemonSetPath = `/apis/apps/v1/namespaces/${namespace}/daemonsets/${DAEMON_SET}`
  const podsPath = `/api/v1/namespaces/${namespace}/pods`
  const send = (request: KubernetesRequest) => Effect.map(api.request(request), asObject)
  const patchStatus = (path: string, status: JsonObject) =>
    send({ method: "PATCH", path: `${path}/status`, contentType: "application/merge-patch+json", body: { status } })
  const orAbsent = <A>(effect: Effect.Effect<A, KubernetesApiFailed>) =>
    Effect.catchIf(
      effect,
      ({ isNotFound }) => isNotFound,
      () => Effect.undefined
    )

  const start = Effect.fnUntraced(function* (daemonSet: JsonObject, template: JsonObject) {
    const args = yield* argumentsOf(template, DRIVER_CONTAINER, node).pipe(
      Effect.fromResult,
      Effect.mapError((message) => new PodNotStarted({ message }))
    )
    const { name: owner, uid } = objectAt(daemonSet, "metadata")
    const name = `${DAEMON_SET}-${pods.length + 1}`
    yield* send({
      method: "POST",
      path: podsPath,
      body: {
        apiVersion: "v1",
        kind: "Pod",
        metadata: {
          ...objectAt(template, "metadata"),
          name,
          namespace,
          ownerReferences: [{ apiVersion: "apps/v1", kind: "DaemonSet", name: owner, uid, controller: true }]
        },
        spec: { ...objectAt(template, "spec"), nodeName: node.name }
      }
    })
    const driver = yield* DriverProcess.start({
      entry,
      flags: [...args, ...flags],
      environment,
      ownProcessGroup: true
    }).pipe(Scope.provide(scope))
    yield* patchStatus(`${podsPath}/${name}`, { phase: "Running" })
    current = { name, args, driver, template, isReady: false }
    pods.push(current)
  })

  /** As the kubelet ends a pod: told first, killed when it does not listen. */
  const end = Effect.fnUntraced(function* ({ driver, name }: Running) {
    yield* driver.kill("SIGTERM")
    const ended = yield* Effect.timeoutOption(driver.exited, TERMINATION_GRACE)
    if (ended._tag === "None") yield* driver.kill("SIGKILL")
    current = undefined
    yield* orAbsent(send({ method: "DELETE", path: `${podsPath}/${name}` }))
  })

  const probe = Effect.fnUntraced(function* (pod: Running) {
    const ready = yield* get(readyUrl).pipe(
      Effect.map(({ status }) => status === 200),
      Effect.orElseSucceed(() => false)
    )
    if (ready === pod.isReady) return
    pod.isReady = ready
    const conditions = [{ type: "Ready", status: ready ? "True" : "False" }]
    yield* patchStatus(`${podsPath}/${pod.name}`, { phase: "Running", conditions })
  })

  const report = Effect.fnUntraced(function* (daemonSet: JsonObject) {
    const available = current?.isReady === true ? 1 : 0
    const counts = {
      currentNumberScheduled: current === undefined ? 0 : 1,
      desiredNumberScheduled: 1,
      numberMisscheduled: 0,
      numberReady: available,
      updatedNumberScheduled: current === undefined ? 0 : 1,
      observedGeneration: objectAt(daemonSet, "metadata")["generation"],
      // Go leaves a count of nothing out.
      ...(available === 1 ? { numberAvailable: 1 } : { numberUnavailable: 1 })
    }
    if (isEqual(objectAt(daemonSet, "status"), counts)) return
    yield* orAbsent(patchStatus(daemonSetPath, { numberAvailable: null, numberUnavailable: null, ...counts }))
  })

  const look = Effect.gen(function* () {
    const daemonSet = yield* orAbsent(send({ method: "GET", path: daemonSetPath }))
    const isWanted = daemonSet !== undefined && objectAt(daemonSet, "metadata")["deletionTimestamp"] === undefined
    const template = objectAt(objectAt(daemonSet ?? {}, "spec"), "template")
    if (current !== undefined && !(isWanted && isEqual(current.template, template))) yield* end(current)
    if (!isWanted) return
    if (current === undefined) yield* start(daemonSet, template)
    if (current !== undefined) yield* probe(current)
    yield* report(daemonSet)
  })

  return {
    pods: () => pods,
    run: Effect.andThen(Effect.repeat(look, often), Effect.never)
  }
})
