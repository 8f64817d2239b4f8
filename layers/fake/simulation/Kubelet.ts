/**
 * The kubelet of a simulated node, and the pods that it runs: each volume is published until that succeeds, published
 * again every one to two minutes, and unpublished until that succeeds; the next pod of that name has another uid.
 */
import { Clock, Deferred, Effect, type FileSystem, Option, Redacted } from "effect"
import { type NodePublishVolumeRequest, TOKENS_KEY } from "../../../schemas/Csi.ts"
import { FORCE_REFRESH_KEY } from "../../../schemas/ForceRefresh.ts"
import { DRIVER_NAME } from "../../../src/operator/Names.ts"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { INTERVAL_KEY } from "../../../src/volume/Rotation.ts"
import { isObject, type JsonObject, metadataOf, textAt } from "../KubernetesObject.ts"
import type { Chance } from "./Chance.ts"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import * as Invariants from "./Invariants.ts"
import type { Lives } from "./Lives.ts"
import type { Referee } from "./Referee.ts"
import { NO_TOKENS, type TokenSettings, Tokens } from "./Tokens.ts"
import { laneOf, type SimulatedClass, type SimulatedVolume, sourceOf, targetPathOf } from "./Volume.ts"
import type { Witness } from "./Witness.ts"

/** The kubelet's own limit for a CSI call. */
const CALL_MILLIS = 120_000
const BACKOFF_MILLIS_MIN = 500
export const BACKOFF_MILLIS_MAX = 122_000
const REPUBLISH_MILLIS_MIN = 60_000
export const REPUBLISH_MILLIS_MAX = 120_000
const LIFETIME_MILLIS_MAX = 3_600_000
const BRIEF_MILLIS_MAX = 15_000
/** An outage of the API server, and the wait before a watch is opened again. */
export const WISH_MILLIS_MAX = 600_000

/** A pod that is made again whenever it has ended, under the same name. */
export interface PodTemplate {
  readonly name: string
  readonly namespace: string
  readonly serviceAccountName: string
  /** A StatefulSet of the pod's name owns it, and is itself made anew now and then. */
  readonly isOwned: boolean
  readonly volumes: ReadonlyArray<{
    readonly name: string
    readonly class: SimulatedClass
    readonly isPinned: boolean
  }>
}

/** @shape (pod) -> its object, on the node that it is for */
export const podBody = (pod: {
  readonly name: string
  readonly namespace: string
  readonly nodeName: string
  readonly owners: ReadonlyArray<JsonObject>
  readonly volumes: PodTemplate["volumes"]
}): JsonObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    name: pod.name,
    namespace: pod.namespace,
    ...(pod.owners.length === 0 ? {} : { ownerReferences: pod.owners })
  },
  spec: {
    nodeName: pod.nodeName,
    volumes: pod.volumes.map((volume) => ({
      name: volume.name,
      csi: { driver: DRIVER_NAME, volumeAttributes: { secretProviderClass: volume.class.name } }
    }))
  }
})

/** What the kubelet reads in the CSIDriver object. */
export interface CsiDriverView {
  readonly requiresRepublish: boolean
  readonly tokens: TokenSettings
}

/** A pod's time on a node. */
export interface Stay {
  /** Asked before and after each call; what was false once stays false. */
  readonly isWanted: Effect.Effect<boolean>
  /** Ends every wait of a pod that is wanted no more. */
  readonly leaving: Effect.Effect<void>
  /** Done before volumes are taken away: a pod that is deleted by force loses its object here. */
  readonly podObjectGone: Effect.Effect<void>
}

/** "Chaos": pods come and go; "Calm": they stay; "Ending": they go. */
export type Stage = "Chaos" | "Calm" | "Ending"

export interface KubeletOptions {
  readonly nodeName: string
  readonly lives: Lives
  readonly files: FileSystem.FileSystem
  readonly api: KubernetesApi["Service"]
  readonly volumes: Map<string, SimulatedVolume>
  readonly witness: Witness
  readonly faults: Faults
  readonly chance: Chance
  readonly history: History
  readonly referee: Referee
  /** Undefined, and so no mount, while there is no such object. A kubelet that is not told of it has one at all times. */
  readonly csiDriver?: () => CsiDriverView | undefined
  /** Uids of pods whose objects are there, shared by the kubelets of a cluster. */
  readonly podObjects?: Set<string>
}

const ALWAYS_REPUBLISHED: CsiDriverView = { requiresRepublish: true, tokens: NO_TOKENS }

const parentOf = (targetPath: string) => targetPath.slice(0, targetPath.lastIndexOf("/"))
const podsPath = (namespace: string) => `/api/v1/namespaces/${namespace}/pods`

export class Kubelet {
  private readonly it: KubeletOptions
  private readonly ending = Deferred.makeUnsafe<void>()
  private stage: Stage = "Chaos"
  private readonly podObjects: Set<string>
  private readonly csiDriver: () => CsiDriverView | undefined
  private readonly tokens: Tokens
  private renewals = 0
  /** The driver's life that has answered OK for a volume which was not recorded then. */
  private readonly owed = new Map<string, number>()

  constructor(options: KubeletOptions) {
    this.it = options
    this.tokens = new Tokens(options.faults, options.faults.plan)
    this.podObjects = options.podObjects ?? new Set()
    this.csiDriver = options.csiDriver ?? (() => ALWAYS_REPUBLISHED)
  }

  /** Pods stay from now on, and no new ones come. */
  calm(): void {
    this.stage = "Calm"
  }

  /** While pods stay: each is made anew once, as by a rolling update, when its volumes are next looked at. */
  renew(): void {
    this.renewals += 1
  }

  /** All pods go. */
  end(): void {
    this.stage = "Ending"
    Deferred.doneUnsafe(this.ending, Effect.void)
  }

  private readonly wait = (millis: number, until = Deferred.await(this.ending)) => Effect.timeoutOption(until, millis)

  // ---- one call

  private request(volume: SimulatedVolume, nowMillis: number): NodePublishVolumeRequest {
    const { pod, targetPath, volumeId } = volume
    const settings = this.csiDriver()?.tokens ?? NO_TOKENS
    const text = this.tokens.textFor(pod, settings, nowMillis)
    const tokens = text === undefined ? undefined : Redacted.make(text)
    return {
      volumeId,
      publishContext: {},
      stagingTargetPath: "",
      targetPath,
      volumeCapability: { accessType: "mount", fsType: "", mountFlags: [], volumeMountGroup: "", accessMode: 1 },
      readonly: true,
      secrets: tokens !== undefined && settings.inSecrets ? { [TOKENS_KEY]: tokens } : {},
      volumeContext: {
        secretProviderClass: volume.class.name,
        "csi.storage.k8s.io/pod.name": pod.name,
        "csi.storage.k8s.io/pod.namespace": pod.namespace,
        "csi.storage.k8s.io/pod.uid": pod.uid,
        "csi.storage.k8s.io/serviceAccount.name": pod.serviceAccountName,
        "csi.storage.k8s.io/ephemeral": "true",
        ...(volume.isPinned ? { [INTERVAL_KEY]: "never" } : {})
      },
      serviceAccountTokens: settings.inSecrets ? undefined : tokens
    }
  }

  /** A call that begins; what is returned is to be told the answer. */
  private asks(method: string, { pod, targetPath }: SimulatedVolume): (answer: string, details: string) => void {
    const { history, witness } = this.it
    const answered = history.begin(
      `${this.it.nodeName} kubelet`,
      `${method} ${pod.namespace}/${pod.name} ${targetPath}`
    )
    return (answer, details) => {
      history.count(`${method} ${answer}`)
      witness.checkText(`the answer to ${method} ${targetPath}`, details)
      answered(answer === "OK" ? "" : `${answer} ${details}`)
    }
  }

  /** @shape (volume) -> whether it was answered OK */
  private readonly publish = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    const { chance, faults, lives, witness } = this.it
    if (this.csiDriver() === undefined) {
      this.asks("publish", volume)("no CSIDriver object", "")
      return false
    }
    const now = yield* Clock.currentTimeMillis
    const found = witness.look(volume)
    const before = { life: lives.number(), mounts: found.mounts, faults: faults.disk.mountFaults }
    const answered = this.asks("publish", volume)
    const isHasty = faults.active && chance.happens(faults.plan.cancelRate)
    const deadlineMillis = now + (isHasty && chance.happens(0.5) ? chance.between(1, 10_000) : CALL_MILLIS)
    const call = lives.call("NodePublishVolume", this.request(volume, now), { deadlineMillis }).pipe(
      Effect.as({ code: "OK", details: "" }),
      Effect.catch(({ details, grpcCode }) => Effect.succeed({ code: grpcCode, details }))
    )
    const isDuplicate = faults.active && chance.happens(faults.plan.duplicateRate)
    if (isDuplicate) {
      faults.note("publish twice")
      // Its answer is nobody's business: the volume is published or not.
      yield* Effect.forkChild(Effect.andThen(Effect.sleep(chance.between(0, 100)), call))
    }
    const answer = isHasty
      ? yield* Effect.map(
          Effect.timeoutOption(call, chance.between(1, 5_000)),
          Option.getOrElse(() => ({ code: "cancelled", details: "" }))
        )
      : yield* call
    answered(answer.code, answer.details)
    if (answer.code === "OK") {
      if (volume.state === "Publishing") volume.publishedMillis = yield* Clock.currentTimeMillis
      this.checkPublished(volume, found.files.size > 0)
      return true
    }
    // Whoever was cut off, and a driver that has died, may still have to undo.
    // A mount that a provider had no time for goes on, and may be there already.
    const isFinal =
      !["cancelled", "CANCELLED", "RESOURCE_EXHAUSTED"].includes(answer.code) && answer.details !== "Deadline exceeded"
    const isUndisturbed = before.life === lives.number() && lives.isAlive() && before.faults === faults.disk.mountFaults
    if (isFinal && isUndisturbed && !isDuplicate && before.mounts === 0 && volume.state === "Publishing") {
      this.it.referee.check(Invariants.failedPublishLeavesNoMount, { volume, view: witness.look(volume) })
    }
    return false
  })

  private checkPublished(volume: SimulatedVolume, wasFilled: boolean): void {
    const { referee, witness } = this.it
    referee.check(Invariants.publishedHoldsOneReply, { volume, view: witness.look(volume) })
    if (volume.state === "Publishing") volume.state = "Published"
    witness.checkVolume(volume)
    this.checkPodStatus(volume, !wasFilled || volume.recorded)
  }

  /** Of a volume whose pod's object is gone nothing is expected: what it owned may be gone as well. */
  checkPodStatus(volume: SimulatedVolume, mustBeThere: boolean): void {
    const { lives, referee, witness } = this.it
    if (!this.podObjects.has(volume.pod.uid)) return
    const statuses = witness.statuses()
    // What a life still owed when it ended, the next one learns from a republish, and where there is none, not at all.
    const owedByLife = this.owed.get(volume.targetPath)
    const isOwedByNobody = owedByLife !== undefined && owedByLife !== lives.number()
    const isLearnt = this.csiDriver()?.requiresRepublish === true || !isOwedByNobody
    referee.check(Invariants.podStatusNamesItsVolume, { volume, statuses, mustBeThere: mustBeThere && isLearnt })
    volume.recorded ||= statuses.some(({ targetPath }) => targetPath === volume.targetPath)
    if (volume.recorded) this.owed.delete(volume.targetPath)
    else if (owedByLife === undefined) this.owed.set(volume.targetPath, lives.number())
  }

  /** @shape (volume) -> whether it was answered OK */
  private readonly unpublish = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    const { lives, referee, witness } = this.it
    const { targetPath, volumeId } = volume
    const deadlineMillis = (yield* Clock.currentTimeMillis) + CALL_MILLIS
    const answered = this.asks("unpublish", volume)
    const answer = yield* lives.call("NodeUnpublishVolume", { volumeId, targetPath }, { deadlineMillis }).pipe(
      Effect.as({ code: "OK", details: "" }),
      Effect.catch(({ details, grpcCode }) => Effect.succeed({ code: grpcCode, details }))
    )
    answered(answer.code, answer.details)
    if (answer.code !== "OK") return false
    referee.check(Invariants.unpublishLeavesNothing, { volume, view: witness.look(volume) })
    volume.state = "Gone"
    this.it.history.state(laneOf(volume), "")
    return true
  })

  // ---- one volume

  private readonly untilOk = Effect.fnUntraced(
    { self: this },
    function* (attempt: Effect.Effect<boolean>, isWanted: Effect.Effect<boolean>, until?: Effect.Effect<void>) {
      let backoffMillis = BACKOFF_MILLIS_MIN
      while (yield* isWanted) {
        if (yield* attempt) return
        yield* this.stage === "Ending" ? Effect.sleep(Math.min(backoffMillis, 5_000)) : this.wait(backoffMillis, until)
        backoffMillis = Math.min(2 * backoffMillis, BACKOFF_MILLIS_MAX)
      }
    }
  )

  private readonly runVolume = Effect.fnUntraced(
    { self: this },
    function* (volume: SimulatedVolume, { isWanted, leaving, podObjectGone }: Stay) {
      const { chance, files } = this.it
      const attempt = this.publish(volume)
      yield* Effect.orDie(files.makeDirectory(parentOf(volume.targetPath), { recursive: true }))
      yield* this.untilOk(attempt, isWanted, leaving)
      while (yield* isWanted) {
        yield* this.wait(chance.between(REPUBLISH_MILLIS_MIN, REPUBLISH_MILLIS_MAX), leaving)
        // A volume that the node has lost is mounted again in any case.
        const isDue = this.csiDriver()?.requiresRepublish === true || volume.state === "Publishing"
        if ((yield* isWanted) && isDue) yield* attempt
      }
      yield* podObjectGone
      volume.state = "Unpublishing"
      this.it.history.state(laneOf(volume), "to be unpublished")
      yield* this.untilOk(this.unpublish(volume), Effect.succeed(true))
      // The kubelet removes what it has made, and nothing else.
      yield* Effect.orDie(files.remove(parentOf(volume.targetPath), { recursive: true, force: true }))
    }
  )

  // ---- one pod

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
      this.podObjects.add(uid)
      if (ownerUid !== undefined) this.ownerUids.set(uid, ownerUid)
      return uid
    }
  )

  /** Pods whose objects are there: those that somebody can annotate. */
  hasPodObject(volume: SimulatedVolume): boolean {
    return this.podObjects.has(volume.pod.uid)
  }

  /** An administrator who wants a pod's volumes refreshed now. */
  readonly askForRefresh = ({ name, namespace, uid }: SimulatedVolume["pod"], value: string) =>
    Effect.suspend(() => {
      const { api, history, volumes } = this.it
      if (!this.podObjects.has(uid)) return Effect.void
      history.note(`refresh of ${namespace}/${name} is asked for: ${value}`, "pods and people")
      for (const volume of volumes.values()) if (volume.pod.uid === uid) volume.mayChange = true
      return Effect.ignore(
        api.request({
          method: "PATCH",
          path: `${podsPath(namespace)}/${name}`,
          contentType: "application/merge-patch+json",
          body: { metadata: { annotations: { [FORCE_REFRESH_KEY]: value } } }
        })
      )
    })

  private readonly deletePod = (uid: string, { name, namespace }: PodTemplate) =>
    Effect.suspend(() => {
      if (!this.podObjects.delete(uid)) return Effect.void
      return Effect.orDie(
        Effect.asVoid(this.it.api.request({ method: "DELETE", path: `${podsPath(namespace)}/${name}` }))
      )
    })

  /** All volumes of one pod, until the last of them is gone. */
  readonly runPod = (own: ReadonlyArray<SimulatedVolume>, stay: Stay): Effect.Effect<void> =>
    Effect.forEach(own, (volume) => this.runVolume(volume, stay), { concurrency: own.length, discard: true })

  /** One pod after the other under one name, until no new ones are wanted. */
  readonly runPods = (template: PodTemplate): Effect.Effect<void> =>
    Effect.gen({ self: this }, function* () {
      const { chance, faults, history, volumes } = this.it
      yield* Effect.sleep(chance.between(0, 5_000))
      let ownerUid: string | undefined
      let renewals = 0
      while (this.stage === "Chaos" || (this.stage === "Calm" && this.renewals > renewals)) {
        const isRenewed = this.renewals > renewals
        renewals = this.renewals
        if (template.isOwned && (ownerUid === undefined || isRenewed || chance.happens(0.5))) {
          ownerUid = yield* this.recreateOwner(template)
        }
        const uid = yield* this.createPod(template, ownerUid)
        history.count("pods")
        const { name, namespace, serviceAccountName } = template
        const pod = { name, namespace, uid, serviceAccountName }
        const nowMillis = yield* Clock.currentTimeMillis
        const own = template.volumes.map((volume): SimulatedVolume => {
          const targetPath = targetPathOf(uid, volume.name)
          const volumeId = `csi-${uid}-${volume.name}`
          return {
            pod,
            class: volume.class,
            volumeId,
            targetPath,
            isPinned: volume.isPinned,
            state: "Publishing",
            publishedMillis: 0,
            recorded: false,
            generationSeen: 0,
            // A wish from before may still be on its way to the driver.
            mayChange: nowMillis - volume.class.askedMillis < WISH_MILLIS_MAX
          }
        })
        for (const volume of own) {
          volumes.set(volume.targetPath, volume)
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
          isEnding ||=
            this.stage === "Ending" || this.renewals > renewals || (this.stage === "Chaos" && now >= untilMillis)
          return !isEnding
        })
        const isForced = faults.active && chance.happens(faults.plan.forceDeleteRate)
        const podObjectGone = isForced ? this.deletePod(uid, template) : Effect.void
        yield* this.runPod(own, { isWanted, leaving: Deferred.await(this.ending), podObjectGone })
        yield* this.deletePod(uid, template)
        for (const { targetPath } of own) volumes.delete(targetPath)
        yield* this.wait(chance.between(0, this.stage === "Chaos" ? 30_000 : 2_000))
      }
    })
}
