/**
 * What runs in a simulated cluster: Deployments, StatefulSets, DaemonSets, Jobs and bare pods whose pods are made, put on
 * nodes, ended, evicted, deleted by force, and lost with their nodes. A pod that is deleted by force has a successor at
 * once, while its node still has to notice; one of a Job that has completed stays as an object when its volumes are gone.
 */
import { Clock, Deferred, Effect } from "effect"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { isObject, type JsonObject, metadataOf, textAt } from "../KubernetesObject.ts"
import type { Chance } from "./Chance.ts"
import type { History } from "./History.ts"
import { podBody, WISH_MILLIS_MAX } from "./Kubelet.ts"
import type { SimulatedNode } from "./SimulatedNode.ts"
import { laneOf, type SimulatedClass, type SimulatedVolume, sourceOf, volumeOf } from "./Volume.ts"

const KINDS = ["Deployment", "StatefulSet", "DaemonSet", "Job", "Pod"] as const
const LIFETIME_MILLIS_MAX = 3_600_000
const JOB_MILLIS_MAX = 900_000
const LOOK_MILLIS = 5_000
/** From a pod's last look at its node until its object is taken away by force. */
const EVICTION_MILLIS_MAX = 300_000
/** How long a Job stays when it has completed. */
const FINISHED_MILLIS_MAX = 300_000
/** Two rounds of garbage. */
const COLLECTED_WITHIN_MILLIS = 60_000
const FLAPS_MAX = 6
const FLAP_MILLIS_MAX = 30_000
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
  /** Its containers have done what they were for. */
  isFinished: boolean
  /** Its node is not there any more. */
  isLost: boolean
}

interface Owner {
  readonly references: ReadonlyArray<JsonObject>
  readonly remove: Effect.Effect<void>
}

const NOBODY: Owner = { references: [], remove: Effect.void }

export interface WorkloadsOptions {
  readonly api: KubernetesApi["Service"]
  /** Those that are there now. */
  readonly nodes: ReadonlyArray<SimulatedNode>
  /** Volumes of a node that is gone, when nothing in the API server should speak of them any more. */
  readonly lostForGood: (volumes: ReadonlyArray<SimulatedVolume>, afterMillis: number) => void
  readonly podObjects: Set<string>
  /** By target path. */
  readonly volumes: Map<string, SimulatedVolume>
  readonly chance: Chance
  readonly history: History
}

/** @shape (namespaces' classes, pods in all, nodes, chance) -> workloads of one to four pods each, or one per node */
export const draw = (
  classes: ReadonlyMap<string, SimulatedClass>,
  pods: number,
  nodes: number,
  chance: Chance
): ReadonlyArray<Workload> => {
  const workloads: Array<Workload> = []
  const all = [...classes.values()]
  for (let left = pods; left > 0; ) {
    const kind = chance.oneOf(KINDS)
    const { namespace } = chance.oneOf(all)
    const own = all.filter((it) => it.namespace === namespace)
    const usually = kind === "Pod" ? 1 : Math.min(left, 1 + chance.below(4))
    const replicasMax = kind === "DaemonSet" ? nodes : usually
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

const OWNERS = {
  Deployment: { apiVersion: "apps/v1", kind: "ReplicaSet" },
  StatefulSet: { apiVersion: "apps/v1", kind: "StatefulSet" },
  DaemonSet: { apiVersion: "apps/v1", kind: "DaemonSet" },
  Job: { apiVersion: "batch/v1", kind: "Job" }
} as const

const ownerSpec = (kind: Workload["kind"], name: string): JsonObject => {
  const labels = { app: name }
  const template = { metadata: { labels }, spec: { containers: [{ name: "app", image: "app" }] } }
  return kind === "DaemonSet" ? { selector: { matchLabels: labels }, template } : {}
}

export class Workloads {
  private readonly it: WorkloadsOptions
  private readonly instances = new Set<Instance>()
  private stage: "Chaos" | "Calm" | "Ending" = "Chaos"
  private readonly ownerPaths = new Set<string>()
  private readonly calmed = Deferred.makeUnsafe<void>()
  private made = 0

  constructor(options: WorkloadsOptions) {
    this.it = options
  }

  /** Every pod that should run does so from now on, and stays. */
  calm(workloads: ReadonlyArray<Workload>): void {
    this.stage = "Calm"
    Deferred.doneUnsafe(this.calmed, Effect.void)
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

  /** How many pods are there to stay. */
  get running(): number {
    return [...this.instances].filter(({ isWanted }) => isWanted).length
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

  /** Somebody deletes the pod of a volume. */
  deletePodOf(targetPath: string): void {
    for (const instance of this.instances) {
      if (instance.volumes.some((volume) => volume.targetPath === targetPath)) this.dismiss(instance, false)
    }
  }

  /** Every pod leaves the node, except those of DaemonSets. */
  evict(node: SimulatedNode): void {
    for (const instance of this.instances) {
      if (instance.node === node && instance.workload.kind !== "DaemonSet") this.dismiss(instance, false)
    }
  }

  /** The node is gone with all that was on it; that its pods are, becomes known after a while. */
  lose(node: SimulatedNode): void {
    for (const instance of this.instances) {
      if (instance.node !== node) continue
      instance.isLost = true
      this.dismiss(instance, false)
    }
  }

  /** An autoscaler that cannot make up its mind. */
  readonly flap = Effect.fnUntraced({ self: this }, function* (workload: Workload) {
    const { chance } = this.it
    for (let left = 1 + chance.below(FLAPS_MAX); left > 0; left--) {
      this.scale(workload)
      yield* Effect.sleep(chance.between(0, FLAP_MILLIS_MAX))
    }
  })

  scale(workload: Workload): void {
    const { chance, history } = this.it
    if (workload.kind === "DaemonSet") return
    workload.replicas = chance.below(workload.replicasMax + 1)
    history.note(`${workload.namespace}/${workload.name} is to have ${workload.replicas} pods`, PEOPLE_LANE)
  }

  /** An object that owns pods; bare pods have none. */
  private readonly own = Effect.fnUntraced(
    { self: this },
    function* ({ kind, namespace }: Workload, name: string): Effect.fn.Return<Owner> {
      if (kind === "Pod") return NOBODY
      const { api } = this.it
      const owner = OWNERS[kind]
      const path = `/apis/${owner.apiVersion}/namespaces/${namespace}/${owner.kind.toLowerCase()}s`
      const body = { ...owner, metadata: { name, namespace }, spec: ownerSpec(kind, name) }
      const created = yield* Effect.orDie(api.request({ method: "POST", path, body }))
      const itsPath = `${path}/${name}`
      this.ownerPaths.add(itsPath)
      return {
        references: [{ ...owner, name, uid: uidOf(created), controller: true }],
        remove: Effect.suspend(() =>
          this.ownerPaths.delete(itsPath)
            ? Effect.asVoid(Effect.orDie(api.request({ method: "DELETE", path: itsPath })))
            : Effect.void
        )
      }
    }
  )

  /** What happens to a pod's object before its volumes are taken away; the first of them is enough. */
  private readonly leave = (instance: Instance, path: string, objectGone: Effect.Effect<void>) =>
    Effect.suspend(() => {
      if (instance.isForced) return objectGone
      if (!instance.isFinished || instance.isLost) return Effect.void
      // A pod that has completed uses nothing any more.
      for (const volume of instance.volumes) if (volume.state !== "Gone") volume.state = "Unpublishing"
      const body = { status: { phase: "Succeeded" } }
      const contentType = "application/merge-patch+json"
      return Effect.ignore(this.it.api.request({ method: "PATCH", path: `${path}/status`, contentType, body }))
    })

  /** How long a pod's object outlasts its volumes. */
  private readonly linger = ({ isFinished, isLost }: Instance) =>
    Effect.suspend(() => {
      const longest = isLost ? EVICTION_MILLIS_MAX : isFinished ? FINISHED_MILLIS_MAX : 0
      if (longest === 0) return Effect.void
      return Effect.timeoutOption(Deferred.await(this.calmed), this.it.chance.between(0, longest))
    })

  private readonly start = Effect.fnUntraced(
    { self: this },
    function* (workload: Workload, node: SimulatedNode, name: string, owner: Owner) {
      const { api, history, podObjects } = this.it
      const { namespace } = workload
      const path = `/api/v1/namespaces/${namespace}/pods`
      const body = podBody({ ...workload, name, nodeName: node.name, owners: owner.references })
      const uid = uidOf(yield* Effect.orDie(api.request({ method: "POST", path, body })))
      podObjects.add(uid)
      history.count("pods")
      history.count(`pods of a ${workload.kind}`)
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
        isForced: false,
        isFinished: false,
        isLost: false
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
            podObjectGone: this.leave(instance, `${path}/${name}`, objectGone)
          })
          .pipe(
            Effect.andThen(Effect.suspend(() => this.linger(instance))),
            Effect.andThen(objectGone),
            Effect.andThen(workload.kind === "Job" ? owner.remove : Effect.void),
            Effect.andThen(
              Effect.sync(() => {
                // Its node may have gone while it was put there.
                this.dismiss(instance, false)
                this.instances.delete(instance)
                for (const { targetPath } of volumes) this.it.volumes.delete(targetPath)
              })
            ),
            Effect.andThen(
              Effect.suspend(() =>
                instance.isLost
                  ? Effect.andThen(
                      Effect.sleep(COLLECTED_WITHIN_MILLIS),
                      Effect.sync(() => this.it.lostForGood(volumes, COLLECTED_WITHIN_MILLIS))
                    )
                  : Effect.void
              )
            )
          )
      )
      return instance
    }
  )

  /** Where a pod may be put: one of a DaemonSet where there is none yet. */
  private nodesFor(workload: Workload): ReadonlyArray<SimulatedNode> {
    const { nodes } = this.it
    if (workload.kind !== "DaemonSet") return nodes.filter(({ isSchedulable }) => isSchedulable)
    const taken = new Set([...this.instances].flatMap((it) => (it.workload === workload ? [it.node] : [])))
    return nodes.filter((node) => !taken.has(node))
  }

  /** One replica after the other, for ever. */
  private readonly fill = (workload: Workload, index: number, owner: Owner) =>
    Effect.gen({ self: this }, function* () {
      const { chance } = this.it
      yield* Effect.sleep(chance.between(0, LOOK_MILLIS))
      for (;;) {
        const free = this.nodesFor(workload)
        if (this.stage === "Ending" || index >= workload.replicas || free.length === 0) {
          yield* Effect.sleep(LOOK_MILLIS)
          continue
        }
        this.made += 1
        const isNumbered = workload.kind === "StatefulSet" || workload.kind === "Pod"
        const name = `${workload.name}-${isNumbered ? index : this.made}`
        const node = chance.oneOf(free)
        const itsOwner = workload.kind === "Job" ? yield* this.own(workload, name) : owner
        const instance = yield* this.start(workload, node, name, itsOwner)
        let lifetimeMillis = chance.between(0, workload.kind === "Job" ? JOB_MILLIS_MAX : LIFETIME_MILLIS_MAX)
        while (instance.isWanted) {
          yield* Effect.timeoutOption(Deferred.await(instance.leaving), LOOK_MILLIS * 4)
          lifetimeMillis -= LOOK_MILLIS * 4
          const isOver = this.stage === "Chaos" && (lifetimeMillis <= 0 || index >= workload.replicas)
          if (!isOver) continue
          instance.isFinished = workload.kind === "Job"
          this.dismiss(instance, false)
        }
        yield* Deferred.await(instance.objectGone)
      }
    })

  /** Makes a workload's pods; returns at once. */
  readonly run = (workload: Workload) =>
    Effect.gen({ self: this }, function* () {
      const owner = yield* workload.kind === "Job" ? Effect.succeed(NOBODY) : this.own(workload, workload.name)
      for (let index = 0; index < workload.replicasMax; index++) {
        yield* Effect.forkScoped(this.fill(workload, index, owner))
      }
    })
}

const uidOf = (created: unknown): string => (isObject(created) ? (textAt(metadataOf(created), "uid") ?? "") : "")
