/**
 * Runs the driver where the DaemonSet says, as the DaemonSet controller and the kubelets do together: one pod per node,
 * with the template's arguments, replaced one node after the other, and ended when the DaemonSet is gone.
 */
import { Clock, Effect, Fiber } from "effect"
import type { DriverConfig } from "../../../schemas/Config.ts"
import { DAEMON_SET, DRIVER_CONTAINER } from "../../../src/operator/Names.ts"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { isEqual, isObject, type JsonObject, listAt, metadataOf, objectAt } from "../KubernetesObject.ts"
import type { MemoryKubernetes } from "../MemoryKubernetes.ts"
import { volumesGoFirst } from "./ClusterInvariants.ts"
import { configOf, type DriverSettings, settingsOf } from "./DriverSettings.ts"
import type { History } from "./History.ts"
import { laneOf } from "./Lives.ts"
import type { Referee } from "./Referee.ts"
import type { SimulatedNode } from "./SimulatedNode.ts"

const TICK_MILLIS = 1_000
const GRACE_MILLIS = 30_000
/** From its start until a pod's probe has succeeded. */
const READY_MILLIS = 5_000

interface DriverPod {
  readonly name: string
  readonly template: JsonObject
  readonly supervisor: Fiber.Fiber<void>
  readonly readyAtMillis: number
}

export interface DriverPodsOptions {
  readonly namespace: string
  readonly api: KubernetesApi["Service"]
  readonly control: MemoryKubernetes["Service"]
  readonly nodes: () => ReadonlyArray<SimulatedNode>
  readonly history: History
  readonly referee: Referee
}

const argumentsOf = (template: JsonObject): ReadonlyArray<string> => {
  const containers = listAt(objectAt(template, "spec"), "containers").filter(isObject)
  const driver = containers.find((container) => container["name"] === DRIVER_CONTAINER) ?? {}
  return listAt(driver, "args").filter((arg) => typeof arg === "string")
}

export class DriverPods {
  private readonly it: DriverPodsOptions
  private readonly pods = new Map<string, DriverPod>()
  private readonly templates = new Map<string, JsonObject>()
  private made = 0
  /** Nobody but the operator takes the DaemonSet away from now on. */
  isRemoval = false

  constructor(options: DriverPodsOptions) {
    this.it = options
  }

  /** @shape (node) -> what the driver of its pod is started with, now */
  config(nodeName: string): DriverConfig {
    return configOf(nodeName, settingsOf(argumentsOf(this.templates.get(nodeName) ?? {})))
  }

  /** Of every node that has a pod. */
  settings(): ReadonlyArray<DriverSettings> {
    return [...this.pods.values()].map(({ template }) => settingsOf(argumentsOf(template)))
  }

  get count(): number {
    return this.pods.size
  }

  private readonly daemonSet = Effect.suspend(() =>
    Effect.map(this.it.control.all("daemonsets.apps"), (all) =>
      all.find((object) => metadataOf(object)["name"] === DAEMON_SET)
    )
  )

  private readonly begin = Effect.fnUntraced({ self: this }, function* (node: SimulatedNode, daemonSet: JsonObject) {
    const { api, history, namespace } = this.it
    const template = objectAt(objectAt(daemonSet, "spec"), "template")
    this.made += 1
    const name = `${DAEMON_SET}-${this.made}`
    this.templates.set(node.name, template)
    const body = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: {
        name,
        namespace,
        labels: objectAt(metadataOf(template), "labels")
      },
      spec: { ...objectAt(template, "spec"), nodeName: node.name }
    }
    yield* Effect.ignore(api.request({ method: "POST", path: `/api/v1/namespaces/${namespace}/pods`, body }))
    history.count("driver pods")
    history.note(`driver pod ${name} is for ${node.name}`, laneOf(node.name))
    const supervisor = yield* Effect.forkScoped(node.lives.supervise)
    const readyAtMillis = (yield* Clock.currentTimeMillis) + READY_MILLIS
    this.pods.set(node.name, { name, template, supervisor, readyAtMillis })
  })

  private readonly end = Effect.fnUntraced({ self: this }, function* (node: SimulatedNode) {
    const { api, namespace } = this.it
    const pod = this.pods.get(node.name)
    if (pod === undefined) return
    yield* node.lives.retire(GRACE_MILLIS)
    yield* Fiber.interrupt(pod.supervisor)
    this.pods.delete(node.name)
    yield* Effect.ignore(api.request({ method: "DELETE", path: `/api/v1/namespaces/${namespace}/pods/${pod.name}` }))
  })

  /** Its node is gone. */
  readonly lose = Effect.fnUntraced({ self: this }, function* (node: SimulatedNode) {
    const { api, namespace } = this.it
    const pod = this.pods.get(node.name)
    this.pods.delete(node.name)
    this.templates.delete(node.name)
    if (pod === undefined) return
    yield* Fiber.interrupt(pod.supervisor)
    yield* Effect.ignore(api.request({ method: "DELETE", path: `/api/v1/namespaces/${namespace}/pods/${pod.name}` }))
  })

  private isReady(node: SimulatedNode, nowMillis: number): boolean {
    const pod = this.pods.get(node.name)
    return pod !== undefined && pod.readyAtMillis <= nowMillis && node.lives.isAlive()
  }

  /** A DaemonSet that is gone takes its pods with it, and whoever removed it should have waited for their volumes. */
  private readonly removeAll = Effect.suspend(() => {
    const nodes = this.it.nodes().filter(({ name }) => this.pods.has(name))
    // While faults go on, somebody else may have deleted it.
    for (const node of this.isRemoval ? nodes : []) {
      this.it.referee.check(volumesGoFirst, { node: node.name, volumes: node.volumes() })
    }
    return Effect.forEach(nodes, this.end, { concurrency: "unbounded", discard: true })
  })

  private readonly report = Effect.fnUntraced(
    { self: this },
    function* (live: JsonObject, template: JsonObject, nowMillis: number) {
      const { api, namespace } = this.it
      const nodes = this.it.nodes()
      const ready = nodes.filter((node) => this.isReady(node, nowMillis)).length
      const status = {
        currentNumberScheduled: this.pods.size,
        desiredNumberScheduled: nodes.length,
        numberMisscheduled: 0,
        numberReady: ready,
        ...(ready === 0 ? {} : { numberAvailable: ready }),
        ...(nodes.length === ready ? {} : { numberUnavailable: nodes.length - ready }),
        observedGeneration: metadataOf(live)["generation"],
        updatedNumberScheduled: [...this.pods.values()].filter((pod) => isEqual(pod.template, template)).length
      }
      if (isEqual(objectAt(live, "status"), status)) return
      yield* Effect.ignore(
        api.request({
          method: "PATCH",
          path: `/apis/apps/v1/namespaces/${namespace}/daemonsets/${DAEMON_SET}/status`,
          contentType: "application/merge-patch+json",
          body: { status: { numberAvailable: null, numberUnavailable: null, ...status } }
        })
      )
    }
  )

  private readonly tick = Effect.gen({ self: this }, function* () {
    const live = yield* this.daemonSet
    if (live === undefined || metadataOf(live)["deletionTimestamp"] !== undefined) return yield* this.removeAll
    const nowMillis = yield* Clock.currentTimeMillis
    const nodes = [...this.it.nodes()]
    const template = objectAt(objectAt(live, "spec"), "template")
    for (const node of nodes) if (!this.pods.has(node.name)) yield* this.begin(node, live)
    const old = nodes.find(({ name }) => !isEqual(this.pods.get(name)?.template, template))
    if (old !== undefined && nodes.every((node) => node === old || this.isReady(node, nowMillis))) {
      yield* this.end(old)
      if (this.it.nodes().includes(old)) yield* this.begin(old, live)
    }
    yield* this.report(live, template, nowMillis)
  })

  readonly run = Effect.forever(
    Effect.andThen(
      Effect.suspend(() => this.tick),
      Effect.sleep(TICK_MILLIS)
    )
  )
}
