/**
 * The DaemonSet controller, the scheduler and all kubelets in one: a pod of the driver per node, replaced one at a time;
 * nodes that come and go, pods that crash, and pods of others that use volumes of the driver.
 */
import { type Clock, Duration, Effect } from "effect"
import { DAEMON_SET, DRIVER_NAME } from "../../../src/operator/Names.ts"
import type { KubernetesApi, KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import { isEqual, type JsonObject, metadataOf, objectAt } from "../KubernetesObject.ts"
import type { Chance } from "./Chance.ts"
import type { OperatorFaults } from "./OperatorFaults.ts"
import { NAMESPACE, type OperatorWitness } from "./OperatorWitness.ts"

const TICK_MILLIS = 1_000
const MINUTE = 60_000
const CONSUMER_MILLIS = { least: MINUTE, most: 20 * MINUTE }
export const CONSUMER_NAMESPACES = ["team-a", "team-b", "team-c"] as const

interface NodePod {
  readonly node: string
  readonly uid: number
  readonly template: string
  readyAtMillis: number
  /** On its way out until then. */
  goneAtMillis: number | undefined
}

export interface ControlPlaneOptions {
  readonly api: KubernetesApi["Service"]
  readonly witness: OperatorWitness
  readonly clock: Clock.Clock
  readonly chance: Chance
  readonly faults: OperatorFaults
  readonly nodes: number
}

export class OperatorControlPlane {
  private readonly options: ControlPlaneOptions
  private readonly nodes = new Set<string>()
  private readonly pods: Array<NodePod> = []
  private readonly consumers: Array<string> = []
  private count = 0
  private last: { readonly live: JsonObject; readonly template: string } | undefined
  /** Pods that are made from now on never become ready. */
  isBroken = false

  constructor(options: ControlPlaneOptions) {
    this.options = options
    for (let index = 0; index < options.nodes; index++) this.nodes.add(`node-${index}`)
  }

  private now(): number {
    return this.options.clock.currentTimeMillisUnsafe()
  }

  private sleep(millis: number): Effect.Effect<void> {
    return this.options.clock.sleep(Duration.millis(Math.ceil(millis)))
  }

  /** What is refused is tried again, or not, by whoever sees the need. */
  private send(request: KubernetesRequest): Effect.Effect<void> {
    return Effect.ignore(this.options.api.request(request))
  }

  private podPath(name: string, namespace: string = NAMESPACE): string {
    return `/api/v1/namespaces/${namespace}/pods${name === "" ? "" : `/${name}`}`
  }

  private nameOf({ node, uid }: NodePod): string {
    return `${DAEMON_SET}-${node}-${uid}`
  }

  // ---- pods of the driver

  private start(node: string, template: string): Effect.Effect<void> {
    const { chance, faults } = this.options
    const readyAtMillis = this.isBroken
      ? Number.POSITIVE_INFINITY
      : this.now() + (faults.active ? chance.between(500, 20_000) : 2_000)
    const pod: NodePod = { node, uid: this.count++, template, readyAtMillis, goneAtMillis: undefined }
    this.pods.push(pod)
    return this.send({
      method: "POST",
      path: this.podPath(""),
      body: {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: this.nameOf(pod), namespace: NAMESPACE, labels: { app: DAEMON_SET } },
        spec: { nodeName: node }
      }
    })
  }

  private end(pod: NodePod): void {
    pod.goneAtMillis ??= this.now() + (this.options.faults.active ? this.options.chance.between(500, 30_000) : 2_000)
  }

  private reap(): Effect.Effect<void> {
    const gone = this.pods.filter(({ goneAtMillis }) => goneAtMillis !== undefined && goneAtMillis <= this.now())
    return Effect.forEach(
      gone,
      (pod) => {
        this.pods.splice(this.pods.indexOf(pod), 1)
        return this.send({ method: "DELETE", path: this.podPath(this.nameOf(pod)) })
      },
      { discard: true }
    )
  }

  private isReady(pod: NodePod): boolean {
    return pod.goneAtMillis === undefined && pod.readyAtMillis <= this.now()
  }

  /** As text, made once of each object. */
  private templateOf(live: JsonObject): string {
    if (this.last?.live !== live) {
      this.last = { live, template: JSON.stringify(objectAt(objectAt(live, "spec"), "template")) }
    }
    return this.last.template
  }

  private readonly tick: Effect.Effect<void> = Effect.suspend(() => {
    const live = this.options.witness.daemonSet
    if (live === undefined) {
      for (const pod of this.pods) this.end(pod)
      return this.reap()
    }
    const template = this.templateOf(live)
    for (const pod of this.pods.filter(({ node }) => !this.nodes.has(node))) this.end(pod)
    const serving = this.pods.filter(({ goneAtMillis }) => goneAtMillis === undefined)
    const missing = [...this.nodes].filter((node) => !this.pods.some((pod) => pod.node === node))
    const old = serving.filter((pod) => pod.template !== template)
    // One at a time; those that serve nobody go first.
    const next = old.find((pod) => !this.isReady(pod)) ?? old[0]
    const others = this.pods.filter((pod) => pod !== next)
    const mayReplace = missing.length === 0 && others.every((pod) => this.isReady(pod))
    if (next !== undefined && (mayReplace || !this.isReady(next))) this.end(next)
    return Effect.forEach(missing, (node) => this.start(node, template), { discard: true }).pipe(
      Effect.andThen(this.reap()),
      Effect.andThen(Effect.suspend(() => this.report(live, template)))
    )
  })

  private report(live: JsonObject, template: string): Effect.Effect<void> {
    const scheduled = this.pods.filter(({ node }) => this.nodes.has(node))
    const ready = scheduled.filter((pod) => this.isReady(pod)).length
    const desired = this.nodes.size
    const status = {
      currentNumberScheduled: scheduled.length,
      desiredNumberScheduled: desired,
      numberMisscheduled: 0,
      numberReady: ready,
      ...(ready === 0 ? {} : { numberAvailable: ready }),
      ...(desired === ready ? {} : { numberUnavailable: desired - ready }),
      observedGeneration: metadataOf(live)["generation"],
      updatedNumberScheduled: scheduled.filter((pod) => pod.goneAtMillis === undefined && pod.template === template)
        .length
    }
    if (isEqual(objectAt(live, "status"), status)) return Effect.void
    return this.send({
      method: "PATCH",
      path: `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/${DAEMON_SET}/status`,
      contentType: "application/merge-patch+json",
      body: { status: { numberAvailable: null, numberUnavailable: null, ...status } }
    })
  }

  /** Never returns. */
  readonly run: Effect.Effect<never> = Effect.suspend(() =>
    Effect.forever(Effect.andThen(this.tick, this.sleep(TICK_MILLIS)))
  )

  readonly nodeComesOrGoes: Effect.Effect<void> = Effect.sync(() => {
    const { chance, faults, nodes } = this.options
    const idle = [...this.nodes]
    const goes = idle.length > 1 && chance.happens(0.5)
    faults.note(goes ? "node goes" : "node comes")
    if (goes) this.nodes.delete(chance.oneOf(idle))
    else if (idle.length < nodes + 2) this.nodes.add(`node-${nodes + this.count++}`)
  })

  readonly podCrashes: Effect.Effect<void> = Effect.sync(() => {
    const { chance, faults } = this.options
    const running = this.pods.filter((pod) => this.isReady(pod))
    if (running.length === 0) return
    faults.note("pod crash")
    chance.oneOf(running).readyAtMillis = this.now() + chance.between(1_000, 3 * MINUTE)
  })

  /** What does not become ready is repaired: no new template is needed for it. */
  repair(): void {
    this.isBroken = false
    for (const pod of this.pods) pod.readyAtMillis = Math.min(pod.readyAtMillis, this.now() + 2_000)
  }

  // ---- pods that use volumes

  readonly startConsumer: Effect.Effect<string> = Effect.suspend(() => {
    const { chance } = this.options
    const namespace = chance.oneOf(CONSUMER_NAMESPACES)
    const name = `app-${this.count++}`
    this.consumers.push(`${namespace}/${name}`)
    const create = this.send({
      method: "POST",
      path: this.podPath("", namespace),
      body: {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name, namespace },
        spec: {
          nodeName: chance.oneOf([...this.nodes]),
          containers: [{ name: "app", image: "app" }],
          volumes: [{ name: "secrets", csi: { driver: DRIVER_NAME, readOnly: true } }]
        }
      }
    })
    return Effect.as(create, `${namespace}/${name}`)
  })

  private endConsumer(key: string): Effect.Effect<void> {
    const [namespace = "", name = ""] = key.split("/")
    return Effect.suspend(() => {
      const at = this.consumers.indexOf(key)
      if (at < 0) return Effect.void
      this.consumers.splice(at, 1)
      return this.send({ method: "DELETE", path: this.podPath(name, namespace) })
    })
  }

  /** One pod, for as long as it lives. */
  readonly useVolumes: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const key = yield* this.startConsumer
    yield* this.sleep(this.options.chance.between(CONSUMER_MILLIS.least, CONSUMER_MILLIS.most))
    yield* this.endConsumer(key)
  })

  readonly endConsumers: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.consumers], (key) => this.endConsumer(key), { discard: true })
  )
}
