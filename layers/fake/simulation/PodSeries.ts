/**
 * The pods of a node alone: each is made, ends after a while, and is made again under its name, with another uid.
 */
import { Clock, Deferred, Effect } from "effect"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { isObject, metadataOf, textAt } from "../KubernetesObject.ts"
import type { Chance } from "./Chance.ts"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import { type Kubelet, type PodVolume, podBody, podsPath, type Stage, WISH_MILLIS_MAX } from "./Kubelet.ts"
import { laneOf, type SimulatedVolume, sourceOf, volumeOf } from "./Volume.ts"

const LIFETIME_MILLIS_MAX = 3_600_000
const BRIEF_MILLIS_MAX = 15_000

/** A pod that is made again whenever it has ended, under the same name. */
export interface PodTemplate {
  readonly name: string
  readonly namespace: string
  readonly serviceAccountName: string
  /** A StatefulSet of the pod's name owns it, and is itself made anew now and then. */
  readonly isOwned: boolean
  readonly volumes: ReadonlyArray<PodVolume>
}

export interface PodSeriesOptions {
  readonly nodeName: string
  readonly kubelet: Kubelet
  readonly api: KubernetesApi["Service"]
  readonly volumes: Map<string, SimulatedVolume>
  readonly podObjects: Set<string>
  readonly faults: Faults
  readonly chance: Chance
  readonly history: History
}

export class PodSeries {
  private readonly it: PodSeriesOptions
  private readonly ending = Deferred.makeUnsafe<void>()
  private stage: Stage = "Chaos"
  /** Of pods that somebody deletes before their time, by a volume's target path. */
  private readonly deletions = new Map<string, Deferred.Deferred<void>>()
  /** By template. */
  private readonly renewals = new Map<PodTemplate, number>()

  constructor(options: PodSeriesOptions) {
    this.it = options
  }

  /** Pods stay from now on, and no new ones come. */
  calm(): void {
    this.stage = "Calm"
    this.it.kubelet.calm()
  }

  /** While pods stay: each of these is made anew once, as by a rolling update, when its volumes are next looked at. */
  renew(templates: ReadonlyArray<PodTemplate>): void {
    for (const template of templates) this.renewals.set(template, this.renewalsOf(template) + 1)
  }

  private renewalsOf(template: PodTemplate): number {
    return this.renewals.get(template) ?? 0
  }

  /** Somebody deletes the pod of a volume. */
  deletePodOf(targetPath: string): void {
    const deletion = this.deletions.get(targetPath)
    if (deletion !== undefined) Deferred.doneUnsafe(deletion, Effect.void)
  }

  /** All pods go. */
  end(): void {
    this.stage = "Ending"
    Deferred.doneUnsafe(this.ending, Effect.void)
    this.it.kubelet.end()
  }

  /** Uid of what owns a pod, by the pod's. */
  private readonly ownerUids = new Map<string, string>()

  /** @shape (volume) -> uid of what owns its pod; undefined for a pod that nobody owns */
  ownerUidOf(volume: SimulatedVolume): string | undefined {
    return this.ownerUids.get(volume.pod.uid)
  }

  private readonly recreateOwner = Effect.fnUntraced({ self: this }, function* ({ name, namespace }: PodTemplate) {
    const { api } = this.it
    const path = `/apis/apps/v1/namespaces/${namespace}/statefulsets`
    yield* Effect.ignore(api.request({ method: "DELETE", path: `${path}/${name}` }))
    const body = { apiVersion: "apps/v1", kind: "StatefulSet", metadata: { name, namespace }, spec: {} }
    const made = yield* Effect.orDie(api.request({ method: "POST", path, body }))
    return isObject(made) ? (textAt(metadataOf(made), "uid") ?? "") : ""
  })

  private readonly createPod = Effect.fnUntraced(
    { self: this },
    function* ({ name, namespace, volumes }: PodTemplate, ownerUid: string | undefined) {
      const owner = { apiVersion: "apps/v1", kind: "StatefulSet", name, uid: ownerUid }
      const pod = yield* Effect.orDie(
        this.it.api.request({
          method: "POST",
          path: podsPath(namespace),
          body: podBody({
            name,
            namespace,
            volumes,
            nodeName: this.it.nodeName,
            owners: ownerUid === undefined ? [] : [owner]
          })
        })
      )
      const uid = isObject(pod) ? (textAt(metadataOf(pod), "uid") ?? "") : ""
      this.it.podObjects.add(uid)
      if (ownerUid !== undefined) this.ownerUids.set(uid, ownerUid)
      return uid
    }
  )

  private readonly deletePod = (uid: string, { name, namespace }: PodTemplate) =>
    Effect.suspend(() => {
      if (!this.it.podObjects.delete(uid)) return Effect.void
      return Effect.orDie(
        Effect.asVoid(this.it.api.request({ method: "DELETE", path: `${podsPath(namespace)}/${name}` }))
      )
    })

  /** One pod after the other under one name, until no new ones are wanted. */
  readonly runPods = (template: PodTemplate): Effect.Effect<void> =>
    Effect.gen({ self: this }, function* () {
      const { chance, faults, history, kubelet, volumes } = this.it
      yield* Effect.sleep(chance.between(0, 5_000))
      let ownerUid: string | undefined
      let renewals = 0
      const isToBeRenewed = () => this.renewalsOf(template) > renewals
      while (this.stage === "Chaos" || (this.stage === "Calm" && isToBeRenewed())) {
        const isRenewed = isToBeRenewed()
        renewals = this.renewalsOf(template)
        if (template.isOwned && (ownerUid === undefined || isRenewed || chance.happens(0.5))) {
          ownerUid = yield* this.recreateOwner(template)
        }
        const uid = yield* this.createPod(template, ownerUid)
        history.count("pods")
        const { name, namespace, serviceAccountName } = template
        const pod = { name, namespace, uid, serviceAccountName }
        const nowMillis = yield* Clock.currentTimeMillis
        // A wish from before may still be on its way to the driver.
        const own = template.volumes.map((volume) =>
          volumeOf(pod, volume, nowMillis - volume.class.askedMillis < WISH_MILLIS_MAX)
        )
        const deletion = Deferred.makeUnsafe<void>()
        for (const volume of own) {
          volumes.set(volume.targetPath, volume)
          this.deletions.set(volume.targetPath, deletion)
          history.state(
            laneOf(volume),
            `to be published, of ${sourceOf(volume.class)}${volume.isPinned ? ", frozen" : ""}, at ${volume.targetPath}`
          )
        }
        // Some are gone before all of it has come about.
        const lifetimeMillisMax = chance.happens(0.2) ? BRIEF_MILLIS_MAX : LIFETIME_MILLIS_MAX
        const untilMillis = (yield* Clock.currentTimeMillis) + chance.between(0, lifetimeMillisMax)
        // All volumes of a pod or none: a pod that has begun to end does not come back.
        let isEnding = false
        const isWanted = Effect.map(Clock.currentTimeMillis, (now) => {
          isEnding ||= this.stage === "Ending" || isToBeRenewed() || (this.stage === "Chaos" && now >= untilMillis)
          isEnding ||= Deferred.isDoneUnsafe(deletion)
          return !isEnding
        })
        const isForced = faults.active && chance.happens(faults.plan.forceDeleteRate)
        const podObjectGone = isForced ? this.deletePod(uid, template) : Effect.void
        const leaving = Effect.raceFirst(Deferred.await(this.ending), Deferred.await(deletion))
        yield* kubelet.runPod(own, { isWanted, leaving, podObjectGone })
        yield* this.deletePod(uid, template)
        for (const { targetPath } of own) {
          volumes.delete(targetPath)
          this.deletions.delete(targetPath)
        }
        yield* Effect.timeoutOption(
          Deferred.await(this.ending),
          chance.between(0, this.stage === "Chaos" ? 30_000 : 2_000)
        )
      }
    })
}
