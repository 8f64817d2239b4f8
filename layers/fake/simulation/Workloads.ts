/**
 * What runs in a simulated cluster: Deployments, StatefulSets and bare pods whose pods are made, put on nodes, ended,
 * evicted and deleted by force. A pod that is deleted by force has a successor at once, while its node still has to
 * notice.
 */
import { Clock, Deferred, Effect } from "effect"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { isObject, type JsonObject, metadataOf, textAt } from "../KubernetesObject.ts"
import type { Chance } from "./Chance.ts"
import type { History } from "./History.ts"
import { podBody, WISH_MILLIS_MAX } from "./Kubelet.ts"
import type { SimulatedNode } from "./SimulatedNode.ts"
import { laneOf, type SimulatedClass, type SimulatedVolume, sourceOf, volumeOf } from "./Volume.ts"

const KINDS = ["Deployment", "StatefulSet", "Pod"] as const
const LIFETIME_MILLIS_MAX = 3_600_000
const LOOK_MILLIS = 5_000
const PEOPLE_LANE = "pods and people"

export interface Workload {
  readonly kind: (typeof KINDS)[number]
  readonly name: string
  readonly namespace: string
  readonly replicasMax: number
  readonly volumes: ReadonlyArray<{ readonly name: string; readonly class: SimulatedClass; readonly isPinned: boolean }>
  /** How many there should be now. */
  replicas: number
}

/** One pod, from its object to the end of its volumes. */
interface Instance {
  readonly workload: Workload
  readonly node: SimulatedNode
  readonly volumes: ReadonlyArray<SimulatedVolume>
  readonly leaving: Deferred.Deferred<void>
  /** The object is gone, and another of that name may come. */
  readonly objectGone: Deferred.Deferred<void>
  isWanted: boolean
  isForced: boolean
}

export interface WorkloadsOptions {
  readonly api: KubernetesApi["Service"]
  readonly nodes: ReadonlyArray<SimulatedNode>
  readonly podObjects: Set<string>
  /** By target path. */
  readonly volumes: Map<string, SimulatedVolume>
  readonly chance: Chance
  readonly history: History
}

/** @shape (namespaces' classes, pods in all, chance) -> workloads of one to four pods each */
export const draw = (
  classes: ReadonlyMap<string, SimulatedClass>,
  pods: number,
  chance: Chance
): ReadonlyArray<Workload> => {
  const workloads: Array<Workload> = []
  const all = [...classes.values()]
  for (let left = pods; left > 0; ) {
    const kind = chance.oneOf(KINDS)
    const { namespace } = chance.oneOf(all)
    const own = all.filter((it) => it.namespace === namespace)
    const replicasMax = kind === "Pod" ? 1 : Math.min(left, 1 + chance.below(4))
    workloads.push({
      kind,
      name: `${kind.toLowerCase()}-${workloads.length}`,
      namespace,
      replicasMax,
      replicas: replicasMax,
      volumes: Array.from({ length: 1 + chance.below(2) }, (_, index) => ({
        name: `volume-${index}`,
        class: chance.oneOf(own),
        isPinned: chance.happens(0.2)
      }))
    })
    left -= replicasMax
  }
  return workloads
}

const OWNERS = { Deployment: "ReplicaSet", StatefulSet: "StatefulSet" } as const

export class Workloads {
  private readonly it: WorkloadsOptions
  private readonly instances = new Set<Instance>()
  private stage: "Chaos" | "Calm" | "Ending" = "Chaos"
  private readonly ownerPaths: Array<string> = []
  private made = 0

  constructor(options: WorkloadsOptions) {
    this.it = options
  }

  /** Every pod that should run does so from now on, and stays. */
  calm(workloads: ReadonlyArray<Workload>): void {
    this.stage = "Calm"
    for (const workload of workloads) workload.replicas = workload.replicasMax
  }

  /** All pods go, and no new ones come. */
  end(): void {
    this.stage = "Ending"
    for (const instance of this.instances) this.dismiss(instance, false)
  }

  /** Somebody deletes the workloads themselves. */
  readonly removeOwners = Effect.suspend(() =>
    Effect.forEach(this.ownerPaths, (path) => Effect.orDie(this.it.api.request({ method: "DELETE", path })), {
      discard: true
    })
  )

  /** How many pods have an object or volumes. */
  get running(): number {
    return this.instances.size
  }

  private dismiss(instance: Instance, isForced: boolean): void {
    instance.isForced ||= isForced
    instance.isWanted = false
    Deferred.doneUnsafe(instance.leaving, Effect.void)
  }

  /** Somebody deletes a pod. */
  deleteOne(isForced: boolean): void {
    const all = [...this.instances].filter(({ isWanted }) => isWanted)
    if (all.length > 0) this.dismiss(this.it.chance.oneOf(all), isForced)
  }

  /** Every pod leaves the node, except those of DaemonSets. */
  evict(node: SimulatedNode): void {
    for (const instance of this.instances) if (instance.node === node) this.dismiss(instance, false)
  }

  scale(workload: Workload): void {
    const { chance, history } = this.it
    workload.replicas = chance.below(workload.replicasMax + 1)
    history.note(`${workload.namespace}/${workload.name} is to have ${workload.replicas} pods`, PEOPLE_LANE)
  }

  /** The object that owns a workload's pods; bare pods have none. */
  private readonly own = Effect.fnUntraced({ self: this }, function* ({ kind, name, namespace }: Workload) {
    if (kind === "Pod") return []
    const owner = OWNERS[kind]
    const created = yield* Effect.orDie(
      this.it.api.request({
        method: "POST",
        path: `/apis/apps/v1/namespaces/${namespace}/${owner.toLowerCase()}s`,
        body: { apiVersion: "apps/v1", kind: owner, metadata: { name, namespace }, spec: {} }
      })
    )
    this.ownerPaths.push(`/apis/apps/v1/namespaces/${namespace}/${owner.toLowerCase()}s/${name}`)
    return [{ apiVersion: "apps/v1", kind: owner, name, uid: uidOf(created), controller: true }]
  })

  private readonly start = Effect.fnUntraced(
    { self: this },
    function* (workload: Workload, node: SimulatedNode, name: string, owners: ReadonlyArray<JsonObject>) {
      const { api, history, podObjects } = this.it
      const { namespace } = workload
      const path = `/api/v1/namespaces/${namespace}/pods`
      const body = podBody({ ...workload, name, nodeName: node.name, owners })
      const uid = uidOf(yield* Effect.orDie(api.request({ method: "POST", path, body })))
      podObjects.add(uid)
      history.count("pods")
      history.note(`pod ${namespace}/${name} (${uid}) is for ${node.name}`, PEOPLE_LANE)
      const nowMillis = yield* Clock.currentTimeMillis
      const pod = { name, namespace, uid, serviceAccountName: `${workload.name}-account` }
      // A wish from before may still be on its way to the driver.
      const volumes = workload.volumes.map((volume) =>
        volumeOf(pod, volume, nowMillis - volume.class.askedMillis < WISH_MILLIS_MAX)
      )
      for (const volume of volumes) {
        node.take(volume)
        history.state(laneOf(volume), `to be published on ${node.name}, of ${sourceOf(volume.class)}`)
      }
      const instance: Instance = {
        workload,
        node,
        volumes,
        leaving: Deferred.makeUnsafe(),
        objectGone: Deferred.makeUnsafe(),
        isWanted: true,
        isForced: false
      }
      this.instances.add(instance)
      const objectGone = Effect.suspend(() => {
        if (!podObjects.delete(uid)) return Effect.void
        return Effect.orDie(api.request({ method: "DELETE", path: `${path}/${name}` })).pipe(
          Effect.andThen(Deferred.succeed(instance.objectGone, undefined)),
          Effect.asVoid
        )
      })
      // Its node goes on with it after a successor has come.
      yield* Effect.forkScoped(
        node.kubelet
          .runPod(volumes, {
            isWanted: Effect.sync(() => instance.isWanted),
            leaving: Deferred.await(instance.leaving),
            podObjectGone: Effect.suspend(() => (instance.isForced ? objectGone : Effect.void))
          })
          .pipe(
            Effect.andThen(objectGone),
            Effect.andThen(
              Effect.sync(() => {
                this.instances.delete(instance)
                for (const { targetPath } of volumes) this.it.volumes.delete(targetPath)
              })
            )
          )
      )
      return instance
    }
  )

  /** One replica after the other, for ever. */
  private readonly fill = (workload: Workload, index: number, owners: ReadonlyArray<JsonObject>) =>
    Effect.gen({ self: this }, function* () {
      const { chance, nodes } = this.it
      yield* Effect.sleep(chance.between(0, LOOK_MILLIS))
      for (;;) {
        const free = nodes.filter(({ isSchedulable }) => isSchedulable)
        if (this.stage === "Ending" || index >= workload.replicas || free.length === 0) {
          yield* Effect.sleep(LOOK_MILLIS)
          continue
        }
        this.made += 1
        const name = workload.kind === "Deployment" ? `${workload.name}-${this.made}` : `${workload.name}-${index}`
        const instance = yield* this.start(workload, chance.oneOf(free), name, owners)
        let lifetimeMillis = chance.between(0, LIFETIME_MILLIS_MAX)
        while (instance.isWanted) {
          yield* Effect.timeoutOption(Deferred.await(instance.leaving), LOOK_MILLIS * 4)
          lifetimeMillis -= LOOK_MILLIS * 4
          const isOver = this.stage === "Chaos" && (lifetimeMillis <= 0 || index >= workload.replicas)
          if (isOver) this.dismiss(instance, false)
        }
        yield* Deferred.await(instance.objectGone)
      }
    })

  /** Makes a workload's pods; returns at once. */
  readonly run = (workload: Workload) =>
    Effect.gen({ self: this }, function* () {
      const owners = yield* this.own(workload)
      for (let index = 0; index < workload.replicasMax; index++) {
        yield* Effect.forkScoped(this.fill(workload, index, owners))
      }
    })
}

const uidOf = (created: unknown): string => (isObject(created) ? (textAt(metadataOf(created), "uid") ?? "") : "")
