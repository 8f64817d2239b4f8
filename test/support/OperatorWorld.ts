/**
 * The whole operator on virtual time, with an API server in memory and a control plane that runs what a DaemonSet asks
 * for: pods that take their time to start and to end, one node after the other.
 */
import { fileURLToPath } from "node:url"
import { Clock, Context, Effect, type Exit, type Fiber, Layer, Logger, Metric, type Scope } from "effect"
import { isEqual, isObject, type JsonObject, metadataOf, objectAt, textAt } from "../../layers/fake/KubernetesObject.ts"
import { Life } from "../../layers/fake/Life.ts"
import * as MemoryKubernetes from "../../layers/fake/MemoryKubernetes.ts"
import { simulate } from "../../layers/fake/SeededScheduler.ts"
import * as AssetFiles from "../../layers/real/AssetFiles.ts"
import * as NodeDigest from "../../layers/real/NodeDigest.ts"
import type { OperatorConfig } from "../../schemas/OperatorConfig.ts"
import * as Operator from "../../src/Operator.ts"
import type { OperatorEvent } from "../../src/operator/ActionEvents.ts"
import { DAEMON_SET, DRIVER_NAME, LEASE, OPERATOR_NAME } from "../../src/operator/Names.ts"
import { Assets } from "../../src/ports/Assets.ts"
import { Digest } from "../../src/ports/Digest.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import { LogLevel } from "../../src/ports/LogLevel.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"

export const NAMESPACE = "openshift-cluster-csi-drivers"
const STEPS_MAX = 400_000_000
const CR_PATH = "/apis/operator.openshift.io/v1/clustercsidrivers"
const TICK_MILLIS = 500

const config: OperatorConfig = {
  namespace: NAMESPACE,
  images: { driver: "drv", registrar: "", livenessProbe: "" },
  version: "1.0.0",
  operatorName: OPERATOR_NAME,
  podName: "",
  lease: { namespace: NAMESPACE, name: LEASE }
}

/** Upstream's three containers. */
export const SIDECARS = { driver: "drv", registrar: "reg", livenessProbe: "live" } as const

/** What an operator has sent, in order. */
export interface Sent extends KubernetesRequest {
  readonly millis: number
  readonly identity: string
  /** Undefined while it is under way. */
  succeeded: boolean | undefined
}

const isWrite = ({ method }: Pick<Sent, "method">): boolean => method !== "GET"
const isLease = ({ path }: Pick<Sent, "path">): boolean => path.includes("/leases")
/** Everything but the election. */
export const isOperandWrite = (sent: Sent): boolean => isWrite(sent) && !isLease(sent)

export interface OperatorProcess {
  readonly identity: string
  readonly sent: Array<Sent>
  readonly events: Array<OperatorEvent>
  readonly life: Life
  readonly fiber: Fiber.Fiber<unknown, unknown>
  verbosity: number
  /** As SIGTERM does. */
  readonly stop: () => void
}

const shared = Layer.mergeAll(
  AssetFiles.layer(fileURLToPath(new URL("../../assets/driver", import.meta.url))),
  NodeDigest.layer
)

/** One operator, as a process of its own: it can be stopped, and it can be killed between any two requests. */
export const operator = Effect.fnUntraced(function* (
  identity: string,
  change: Partial<OperatorConfig> = {},
  between: (api: KubernetesApi["Service"]) => KubernetesApi["Service"] = (api) => api
) {
  const api = yield* KubernetesApi
  const assets = yield* Assets
  const digest = yield* Digest
  const clock = yield* Clock.Clock
  const sent: Array<Sent> = []
  const events: Array<OperatorEvent> = []
  const life = new Life(
    () => {},
    () => undefined
  )
  const recorded: KubernetesApi["Service"] = {
    request: (request) =>
      Effect.suspend(() => {
        const entry: Sent = { ...request, millis: clock.currentTimeMillisUnsafe(), identity, succeeded: undefined }
        sent.push(entry)
        return Effect.onExit(api.request(request), (exit: Exit.Exit<unknown, unknown>) =>
          Effect.sync(() => {
            entry.succeeded = exit._tag === "Success"
          })
        )
      }),
    watch: api.watch
  }
  let request: (signal: string) => void = () => {}
  const requested = Effect.callback<string>((resume) => {
    request = (signal) => resume(Effect.succeed(signal))
  })
  const process: { verbosity: number } = { verbosity: 2 }
  const surroundings: Operator.Surroundings = {
    identity,
    record: (event) => Effect.sync(() => void events.push(event)),
    recordElection: () => Effect.void
  }
  const context = Context.make(KubernetesApi, between(life.kubernetes(recorded))).pipe(
    Context.add(Assets, assets),
    Context.add(Digest, digest),
    Context.add(Shutdown, Shutdown.of({ requested })),
    Context.add(
      LogLevel,
      LogLevel.of({
        current: Effect.sync(() => process.verbosity),
        set: (verbosity) =>
          Effect.sync(() => {
            process.verbosity = verbosity
          })
      })
    )
  )
  const fiber = yield* Effect.forkScoped(
    Operator.run({ ...config, ...change }, surroundings).pipe(
      Effect.provideContext(context),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.exit
    )
  )
  const made: OperatorProcess = {
    identity,
    sent,
    events,
    life,
    fiber,
    get verbosity() {
      return process.verbosity
    },
    stop: () => request("SIGTERM")
  }
  return made
})

const bodyOf = (value: unknown): JsonObject => (isObject(value) ? value : {})

/** What an administrator, or the control plane, does. */
const send = Effect.fnUntraced(function* (request: KubernetesRequest) {
  const api = yield* KubernetesApi
  return bodyOf(yield* Effect.orDie(api.request(request)))
})

export const createClusterCsiDriver = (spec: JsonObject = { managementState: "Managed" }, metadata: JsonObject = {}) =>
  send({
    method: "POST",
    path: CR_PATH,
    body: {
      apiVersion: "operator.openshift.io/v1",
      kind: "ClusterCSIDriver",
      metadata: { name: DRIVER_NAME, ...metadata },
      spec
    }
  })

/** A JSON merge patch by an administrator. */
export const patchClusterCsiDriver = (patch: JsonObject) =>
  send({
    method: "PATCH",
    path: `${CR_PATH}/${DRIVER_NAME}`,
    contentType: "application/merge-patch+json",
    body: patch
  })

export const deleteClusterCsiDriver = send({ method: "DELETE", path: `${CR_PATH}/${DRIVER_NAME}` })

export const all = Effect.fnUntraced(function* (resource: string) {
  const control = yield* MemoryKubernetes.MemoryKubernetes
  return yield* control.all(resource)
})

const oneOf = (resource: string, name: string) =>
  Effect.map(all(resource), (objects) => objects.find((object) => metadataOf(object)["name"] === name))

export const clusterCsiDriver = oneOf("clustercsidrivers.operator.openshift.io", DRIVER_NAME)
export const csiDriver = oneOf("csidrivers.storage.k8s.io", DRIVER_NAME)
export const daemonSet = oneOf("daemonsets.apps", DAEMON_SET)

/** "True Removed" of one condition; undefined when there is none. */
export const condition = (type: string) =>
  Effect.map(clusterCsiDriver, (it) => {
    const conditions = it === undefined ? [] : objectAt(it, "status")["conditions"]
    const found = (Array.isArray(conditions) ? conditions : [])
      .filter(isObject)
      .find((candidate) => candidate["type"] === type)
    return found === undefined ? undefined : `${textAt(found, "status")} ${textAt(found, "reason") ?? ""}`.trim()
  })

/** The kinds that the operand consists of. */
const OPERAND_KINDS = [
  "serviceaccounts",
  "configmaps",
  "clusterroles.rbac.authorization.k8s.io",
  "clusterrolebindings.rbac.authorization.k8s.io",
  "rolebindings.rbac.authorization.k8s.io",
  "csidrivers.storage.k8s.io",
  "networkpolicies.networking.k8s.io",
  "daemonsets.apps"
]

/** The one uid that an annotation holds is as good as "the CSIDriver that is there". */
const withoutUid = (it: JsonObject, uid: unknown): JsonObject => {
  const { metadata } = it
  const text = JSON.stringify(metadata)
  return typeof uid === "string" ? { ...it, metadata: JSON.parse(text.replaceAll(uid, "<of the CSIDriver>")) } : it
}

const SERVER_METADATA = ["uid", "resourceVersion", "creationTimestamp", "managedFields"]

/** Without what differs from run to run. */
const plain = (object: JsonObject): JsonObject => {
  const metadata = Object.fromEntries(
    Object.entries(metadataOf(object)).filter(([key]) => !SERVER_METADATA.includes(key))
  )
  return { ...object, metadata }
}

/** Every object of the operand, and the ClusterCSIDriver without times, comparable between runs. */
export const picture = Effect.gen(function* () {
  const operands = yield* Effect.forEach(OPERAND_KINDS, all)
  const it = yield* clusterCsiDriver
  const conditions = it === undefined ? [] : objectAt(it, "status")["conditions"]
  const status =
    it === undefined
      ? undefined
      : {
          ...objectAt(it, "status"),
          conditions: (Array.isArray(conditions) ? conditions : [])
            .filter(isObject)
            .map(({ lastTransitionTime: _, ...rest }) => rest)
            .sort((one, other) => String(one["type"]).localeCompare(String(other["type"])))
        }
  return {
    operands: operands.flat().map(plain),
    clusterCsiDriver:
      it === undefined ? undefined : { ...withoutUid(plain(it), metadataOf((yield* csiDriver) ?? {})["uid"]), status }
  }
})

export const operandObjects = Effect.map(Effect.forEach(OPERAND_KINDS, all), (objects) =>
  objects.flat().map((object) => `${textAt(object, "kind")} ${textAt(metadataOf(object), "name")}`)
)

interface NodePod {
  template: string
  readyAtMillis: number
}

/**
 * The DaemonSet controller, the scheduler and all kubelets in one: a pod per node, replaced one at a time.
 *
 * @shape ({ nodes, startMillis: until a pod is ready, endMillis: until it is gone }) -> runs for ever
 */
export const controlPlane = Effect.fnUntraced(function* ({
  endMillis = 2_000,
  nodes = 3,
  startMillis = 2_000,
  isBroken = () => false
}: {
  readonly nodes?: number
  readonly startMillis?: number
  readonly endMillis?: number
  /** Pods of such a template never become ready. */
  readonly isBroken?: (template: string) => boolean
} = {}) {
  const pods = new Map<string, NodePod>()
  const clock = yield* Clock.Clock
  const podPath = (name: string) => `/api/v1/namespaces/${NAMESPACE}/pods/${name}`

  const create = Effect.fnUntraced(function* (node: string, template: string) {
    pods.set(node, { template, readyAtMillis: clock.currentTimeMillisUnsafe() + startMillis })
    yield* send({
      method: "POST",
      path: `/api/v1/namespaces/${NAMESPACE}/pods`,
      body: {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: `${DAEMON_SET}-${node}`, namespace: NAMESPACE, labels: { app: DAEMON_SET } },
        spec: { nodeName: node }
      }
    })
  })

  const end = Effect.fnUntraced(function* (node: string) {
    yield* Effect.sleep(endMillis)
    pods.delete(node)
    yield* send({ method: "DELETE", path: podPath(`${DAEMON_SET}-${node}`) })
  })

  const tick = Effect.gen(function* () {
    const live = yield* daemonSet
    const names = Array.from({ length: nodes }, (_, index) => `node-${index}`)
    if (live === undefined) {
      for (const node of [...pods.keys()]) yield* end(node)
      return
    }
    const now = clock.currentTimeMillisUnsafe()
    const template = JSON.stringify(objectAt(objectAt(live, "spec"), "template"))
    const isReady = (pod: NodePod | undefined) =>
      pod !== undefined && pod.readyAtMillis <= now && !isBroken(pod.template)
    const missing = names.filter((node) => !pods.has(node))
    for (const node of missing) yield* create(node, template)
    const old = names.find((node) => pods.get(node)?.template !== template)
    if (missing.length === 0 && old !== undefined && names.every((node) => node === old || isReady(pods.get(node)))) {
      yield* end(old)
      yield* create(old, template)
    }
    const ready = names.filter((node) => isReady(pods.get(node))).length
    const status = {
      currentNumberScheduled: pods.size,
      desiredNumberScheduled: nodes,
      numberMisscheduled: 0,
      numberReady: ready,
      ...(ready === 0 ? {} : { numberAvailable: ready }),
      ...(nodes === ready ? {} : { numberUnavailable: nodes - ready }),
      observedGeneration: metadataOf(live)["generation"],
      updatedNumberScheduled: names.filter((node) => pods.get(node)?.template === template).length
    }
    if (isEqual(objectAt(live, "status"), status)) return
    const api = yield* KubernetesApi
    yield* Effect.ignore(
      api.request({
        method: "PATCH",
        path: `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/${DAEMON_SET}/status`,
        contentType: "application/merge-patch+json",
        body: { status: { numberAvailable: null, numberUnavailable: null, ...status } }
      })
    )
  })
  return yield* Effect.forever(Effect.andThen(tick, Effect.sleep(TICK_MILLIS)))
})

const LOOK_MILLIS = 250

/** Looks four times a second; dies when it does not come true in time. */
export const until = Effect.fnUntraced(function* <R>(
  what: string,
  predicate: Effect.Effect<boolean, never, R>,
  withinMillis = 120_000
): Effect.fn.Return<void, never, R> {
  for (let waited = 0; waited <= withinMillis; waited += LOOK_MILLIS) {
    if (yield* predicate) return
    yield* Effect.sleep(LOOK_MILLIS)
  }
  return yield* Effect.die(new Error(`not within ${withinMillis} ms: ${what}`))
})

export const isCondition = (type: string, expected: string) =>
  Effect.map(condition(type), (found) => found === expected)

/** Nothing has been sent for this long but reads and the election. */
export const isQuiet = (process: OperatorProcess, millis = 5_000) =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const last = process.sent.findLast(isOperandWrite)
    return last === undefined || now - last.millis >= millis
  })

/** Installed, rolled out and at rest. */
export const settled = (process: OperatorProcess) =>
  Effect.gen(function* () {
    const progressing = yield* condition("Progressing")
    return (
      (yield* condition("Available")) === "True AsExpected" &&
      progressing === "False AsExpected" &&
      (yield* isQuiet(process))
    )
  })

export const removed = (process: OperatorProcess) =>
  Effect.gen(function* () {
    return (yield* operandObjects).length === 0 && (yield* isQuiet(process))
  })

type World = KubernetesApi | MemoryKubernetes.MemoryKubernetes | Assets | Digest

/** @shape (seed, program) -> what it ends with; it throws what it dies of */
export const onVirtualTime = <A, E>(seed: number, program: Effect.Effect<A, E, World | Scope.Scope>): A => {
  const whole = Effect.scoped(program).pipe(
    Effect.provide(Layer.mergeAll(Layer.fresh(MemoryKubernetes.layer), shared, Logger.layer([]))),
    Effect.orDie
  )
  const { exit } = simulate(whole, { seed, preemption: 0, stepsMax: STEPS_MAX, startMillis: Date.UTC(2026, 0, 1) })
  if (exit._tag === "Failure") throw new Error(`the program died (seed ${seed})`, { cause: exit.cause })
  return exit.value
}
