/**
 * The kubelet of a simulated node: each volume is published until that succeeds, published again every one to two
 * minutes, and unpublished until that succeeds. What it knows of a volume between its own lives is on the node's disk.
 *
 * @source reference/driver.md 2.6
 */
import { Clock, Deferred, Effect, Fiber, type FileSystem, Option, Redacted } from "effect"
import { type NodePublishVolumeRequest, TOKENS_KEY } from "../../../schemas/Csi.ts"
import { FORCE_REFRESH_KEY } from "../../../schemas/ForceRefresh.ts"
import { DRIVER_NAME } from "../../../src/operator/Names.ts"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { INTERVAL_KEY } from "../../../src/volume/Rotation.ts"
import type { JsonObject } from "../KubernetesObject.ts"
import type { Chance } from "./Chance.ts"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import * as Invariants from "./Invariants.ts"
import type { Lives } from "./Lives.ts"
import type { Referee } from "./Referee.ts"
import type { Strangers } from "./Strangers.ts"
import { NO_TOKENS, type TokenSettings, Tokens } from "./Tokens.ts"
import * as VersionInvariants from "./VersionInvariants.ts"
import { laneOf, type SimulatedClass, type SimulatedVolume } from "./Volume.ts"
import type { Witness } from "./Witness.ts"

/** The kubelet's own limit for a CSI call. */
const CALL_MILLIS = 120_000
const BACKOFF_MILLIS_MIN = 500
export const BACKOFF_MILLIS_MAX = 122_000
const REPUBLISH_MILLIS_MIN = 60_000
export const REPUBLISH_MILLIS_MAX = 120_000
/** Between the end of one kubelet and the beginning of the next: mostly brief. */
const RESTART_MILLIS_MAX = 20_000
const DOWN_MILLIS_MAX = 300_000
/** Until a kubelet has noticed a volume that no pod wants. */
const ORPHAN_MILLIS_MAX = 90_000
/** An outage of the API server, and the wait before a watch is opened again. */
export const WISH_MILLIS_MAX = 600_000

export interface PodVolume {
  readonly name: string
  readonly class: SimulatedClass
  readonly isPinned: boolean
}

/** @shape (pod) -> its object, on the node that it is for */
export const podBody = (pod: {
  readonly name: string
  readonly namespace: string
  readonly nodeName: string
  readonly owners: ReadonlyArray<JsonObject>
  readonly volumes: ReadonlyArray<PodVolume>
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

/** What a kubelet process waits for, and waits with. */
interface Process {
  /** It answers nobody and asks nobody before. */
  readonly began: Deferred.Deferred<void>
  readonly ended: Deferred.Deferred<void>
}

/** The driver may still be at work: a volume of such an answer is taken away as one that is mounted. */
const UNCERTAIN: ReadonlySet<string> = new Set([
  "cancelled",
  "CANCELLED",
  "DEADLINE_EXCEEDED",
  "UNAVAILABLE",
  "RESOURCE_EXHAUSTED",
  "ABORTED"
])

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
  /** Uids of pods whose objects are there. */
  readonly podObjects: ReadonlySet<string>
  readonly strangers: Pick<Strangers, "holdsOneOf">
}

const ALWAYS_REPUBLISHED: CsiDriverView = { requiresRepublish: true, tokens: NO_TOKENS }

/** What a kubelet notes of a volume before it asks for it, and without which it does not know how to take it away. */
const noteOf = (targetPath: string) => `${parentOf(targetPath)}/vol_data.json`
const parentOf = (targetPath: string) => targetPath.slice(0, targetPath.lastIndexOf("/"))
/** The first that is tried. */
const statusNameOf = ({ class: { name }, pod }: SimulatedVolume) => `${pod.name}-${pod.namespace}-${name}`
export const podsPath = (namespace: string) => `/api/v1/namespaces/${namespace}/pods`

export class Kubelet {
  private readonly it: KubeletOptions
  private readonly ending = Deferred.makeUnsafe<void>()
  private stage: Stage = "Chaos"
  private readonly lost = Deferred.makeUnsafe<void>()
  /** Calls that nobody waits for. */
  private readonly duplicates = new Map<Fiber.Fiber<unknown>, SimulatedVolume>()
  private process: Process = { began: Deferred.makeUnsafe(), ended: Deferred.makeUnsafe() }
  private readonly csiDriver: () => CsiDriverView | undefined

  private readonly tokens: Tokens

  constructor(options: KubeletOptions) {
    this.it = options
    this.tokens = new Tokens(options.faults, options.faults.plan)
    this.csiDriver = options.csiDriver ?? (() => ALWAYS_REPUBLISHED)
    Deferred.doneUnsafe(this.process.began, Effect.void)
  }

  // ---- the process

  /** Ends it. What the next one needs to know, it finds on the disk. */
  private endProcess(): Process {
    const before = this.process
    this.process = { began: Deferred.makeUnsafe(), ended: Deferred.makeUnsafe() }
    Deferred.doneUnsafe(before.ended, Effect.void)
    return this.process
  }

  /** The kubelet ends, and is started again after a while: whatever it wants, it then wants at once. */
  readonly restart: Effect.Effect<void> = Effect.suspend(() => {
    const { chance, faults, history, nodeName } = this.it
    if (!Deferred.isDoneUnsafe(this.process.began)) return Effect.void
    faults.note("kubelet restart")
    history.state(`${nodeName} kubelet`, "down")
    const next = this.endProcess()
    const downMillisMax = chance.happens(0.3) ? DOWN_MILLIS_MAX : RESTART_MILLIS_MAX
    return Effect.ensuring(
      Effect.sleep(chance.between(1_000, downMillisMax)),
      Effect.sync(() => {
        history.state(`${nodeName} kubelet`, "")
        Deferred.doneUnsafe(next.began, Effect.void)
      })
    )
  })

  /** The node is gone: nobody asks for anything there any more. */
  lose(): void {
    Deferred.doneUnsafe(this.lost, Effect.void)
    this.endProcess()
  }

  private get isLost(): boolean {
    return Deferred.isDoneUnsafe(this.lost)
  }

  /** Waits until a kubelet works, or for something else. */
  private readonly whileDown = (until: Effect.Effect<void> = Effect.never) =>
    Effect.suspend(() => {
      const { began } = this.process
      if (Deferred.isDoneUnsafe(began)) return Effect.void
      return Effect.raceFirst(Deferred.await(began), Effect.raceFirst(until, Deferred.await(this.lost)))
    })

  /** Pods stay from now on, and no new ones come. Whoever looks after the node starts a kubelet that has lost sight of something. */
  calm(): void {
    this.stage = "Calm"
    Deferred.doneUnsafe(this.endProcess().began, Effect.void)
  }

  /** All pods go. */
  end(): void {
    this.stage = "Ending"
    Deferred.doneUnsafe(this.ending, Effect.void)
  }

  /** No longer than the process lasts. */
  private readonly wait = (millis: number, until = Deferred.await(this.ending)) =>
    Effect.suspend(() => Effect.timeoutOption(Effect.raceFirst(until, Deferred.await(this.process.ended)), millis))

  // ---- the disk

  private readonly noteVolume = ({ pod, targetPath, volumeId }: SimulatedVolume) =>
    Effect.gen({ self: this }, function* () {
      const { files } = this.it
      yield* files.makeDirectory(parentOf(targetPath), { recursive: true })
      yield* files.writeFileString(noteOf(targetPath), JSON.stringify({ volumeHandle: volumeId, podUID: pod.uid }))
    }).pipe(Effect.orDie)

  private readonly forgetVolume = ({ targetPath }: SimulatedVolume) =>
    Effect.orDie(this.it.files.remove(parentOf(targetPath), { recursive: true, force: true }))

  /** After a failure that is final: what is no mount and has nothing in it goes, with the note of it. */
  private readonly cleanUp = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    const { files, history, witness } = this.it
    if (witness.mounts().includes(volume.targetPath)) return
    const inside = yield* Effect.orElseSucceed(files.readDirectory(volume.targetPath), () => [])
    if (inside.length > 0) return
    history.count("kubelet clean-ups")
    yield* this.forgetVolume(volume)
  })

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
    yield* this.noteVolume(volume)
    if (lives.isLegacy()) this.checkHandOver(volume)
    const found = witness.look(volume)
    const before = { life: lives.number(), mounts: found.mounts, faults: faults.disk.mountFaults }
    const answered = this.asks("publish", volume)
    volume.isUnpublished = false
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
      const again = yield* Effect.forkChild(Effect.andThen(Effect.sleep(chance.between(0, 100)), call))
      this.duplicates.set(again, volume)
      again.addObserver(() => this.duplicates.delete(again))
    }
    const patienceMillis = isHasty ? chance.between(1, 5_000) : 2 * CALL_MILLIS
    volume.waitsSinceMillis = now
    const answer = yield* Effect.raceFirst(Effect.timeoutOption(call, patienceMillis), this.cutOff)
    volume.waitsSinceMillis = undefined
    const { code, details } = Option.getOrElse(answer, () => ({ code: "cancelled", details: "" }))
    answered(code, details)
    if (code === "OK") {
      volume.isHeld = true
      if (volume.state === "Publishing") volume.publishedMillis = yield* Clock.currentTimeMillis
      this.checkPublished(volume, found.files.size > 0)
      return true
    }
    if (UNCERTAIN.has(code) || isDuplicate) {
      volume.isHeld = true
      return false
    }
    // A driver that has died may still have to undo.
    const isUndisturbed = before.life === lives.number() && lives.isAlive() && before.faults === faults.disk.mountFaults
    if (isUndisturbed && before.mounts === 0 && volume.state === "Publishing") {
      this.it.referee.check(Invariants.failedPublishLeavesNoMount, { volume, view: witness.look(volume) })
    }
    if (volume.state === "Publishing") volume.isHeld = false
    if (volume.state === "Publishing" || faults.plan.keepsFailedRepublish === 0) yield* this.cleanUp(volume)
    return false
  })

  /** Before a call to upstream's release, which may have to go on with what ours has left. */
  private checkHandOver(volume: SimulatedVolume): void {
    const { lives, referee, volumes, witness } = this.it
    // Of volumes whose pod statuses want one name, it takes that for the one that is published last (D7).
    for (const other of volumes.values()) {
      if (other.pod.namespace === volume.pod.namespace && statusNameOf(other) === statusNameOf(volume)) {
        other.recorded = false
      }
    }
    // It knows nothing of frozen volumes, and may have recorded this one when it dies.
    volume.mayChange = true
    volume.wasUpstreams = true
    if (volume.state !== "Published" || !lives.isLeftByOurs(volume.targetPath)) return
    referee.check(VersionInvariants.upstreamCanRefresh, { volume, layout: witness.layout(volume) })
  }

  private checkPublished(volume: SimulatedVolume, wasFilled: boolean): void {
    const { referee, witness } = this.it
    referee.check(Invariants.publishedHoldsOneReply, { volume, view: witness.look(volume) })
    const mountsMade = witness.mountsMade(volume)
    if (volume.state === "Publishing") Object.assign(volume, { state: "Published", mountsMade })
    if (volume.state === "Published") referee.check(VersionInvariants.publishedIsNotMountedAnew, { volume, mountsMade })
    witness.checkVolume(volume)
    if (this.it.lives.isLegacy()) {
      // Of two volumes of one name, upstream records the one that came last (D7).
      volume.recorded = false
    } else this.checkPodStatus(volume, !wasFilled || volume.recorded)
  }

  /** Whatever others have done to the pod statuses, by now they are right. */
  checkPodStatuses(volumes: ReadonlyArray<SimulatedVolume>): void {
    for (const volume of volumes) {
      volume.isDisturbed = false
      this.checkPodStatus(volume, true)
    }
  }

  /** Of a volume whose pod's object is gone nothing is expected: what it owned may be gone as well. */
  private checkPodStatus(volume: SimulatedVolume, mustBeThere: boolean): void {
    const { referee, witness } = this.it
    if (!this.it.podObjects.has(volume.pod.uid)) return
    const statuses = witness.statuses()
    // What is held back may go at any moment, whoever has written it since.
    if (this.it.strangers.holdsOneOf(volume.pod.namespace, statusNameOf(volume))) volume.isDisturbed = true
    if (volume.isDisturbed === true) {
      const isWrong = Invariants.podStatusNamesItsVolume.broken({ volume, statuses, mustBeThere: true }) !== undefined
      if (isWrong) return
      volume.isDisturbed = false
    }
    referee.check(Invariants.podStatusNamesItsVolume, { volume, statuses, mustBeThere })
    volume.recorded ||= statuses.some(({ targetPath }) => targetPath === volume.targetPath)
  }

  /** The answer to a call is lost with the process that waits for it; whoever serves it notices. */
  private readonly cutOff = Effect.suspend(() => Effect.as(Deferred.await(this.process.ended), Option.none()))

  /** @shape (volume) -> whether it was answered OK */
  private readonly unpublish = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    const { lives, referee, witness } = this.it
    const { targetPath, volumeId } = volume
    const deadlineMillis = (yield* Clock.currentTimeMillis) + CALL_MILLIS
    const answered = this.asks("unpublish", volume)
    const call = lives.call("NodeUnpublishVolume", { volumeId, targetPath }, { deadlineMillis }).pipe(
      Effect.as({ code: "OK", details: "" }),
      Effect.catch(({ details, grpcCode }) => Effect.succeed({ code: grpcCode, details }))
    )
    const answer = yield* Effect.raceFirst(Effect.asSome(call), this.cutOff)
    const { code, details } = Option.getOrElse(answer, () => ({ code: "cancelled", details: "" }))
    answered(code, details)
    if (code !== "OK") {
      if (lives.isLegacy()) volume.isTornDown = true
      return false
    }
    referee.check(Invariants.unpublishLeavesNothing, { volume, view: witness.look(volume) })
    volume.state = "Gone"
    volume.isUnpublished = true
    this.it.history.state(laneOf(volume), "")
    return true
  })

  // ---- one volume

  private readonly publishUntilLeaving = Effect.fnUntraced(
    { self: this },
    function* (volume: SimulatedVolume, { isWanted, leaving }: Stay) {
      const { chance } = this.it
      let process: Process | undefined
      let isPublished = false
      let backoffMillis = BACKOFF_MILLIS_MIN
      for (;;) {
        yield* this.whileDown(leaving)
        if (this.isLost || !(yield* isWanted)) return
        if (process !== this.process) {
          // Whatever was published is so no longer for all that it knows.
          process = this.process
          isPublished = false
          backoffMillis = BACKOFF_MILLIS_MIN
        }
        // A volume that the node has lost is mounted again in any case.
        const isDue: boolean =
          !isPublished || this.csiDriver()?.requiresRepublish === true || volume.state === "Publishing"
        const isOk: boolean = isDue && (yield* this.publish(volume))
        isPublished ||= isOk
        if (!(yield* isWanted)) return
        yield* isPublished
          ? this.wait(chance.between(REPUBLISH_MILLIS_MIN, REPUBLISH_MILLIS_MAX), leaving)
          : this.wait(backoffMillis, leaving)
        backoffMillis = Math.min(2 * backoffMillis, BACKOFF_MILLIS_MAX)
      }
    }
  )

  private readonly unpublishUntilOk = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    let process = this.process
    let backoffMillis = BACKOFF_MILLIS_MIN
    for (;;) {
      yield* this.whileDown()
      if (this.isLost) return
      if (process !== this.process) backoffMillis = BACKOFF_MILLIS_MIN
      process = this.process
      if (yield* this.unpublish(volume)) return
      yield* this.stage === "Ending" ? Effect.sleep(Math.min(backoffMillis, 5_000)) : this.wait(backoffMillis)
      backoffMillis = Math.min(2 * backoffMillis, BACKOFF_MILLIS_MAX)
    }
  })

  /** What a failure that is final has left is not seen by this kubelet any more, and by the next one if it is there still. */
  private readonly isToBeUnpublished = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    const { files, history } = this.it
    const { targetPath } = volume
    yield* this.whileDown()
    if (this.isLost) return false
    if (volume.isHeld) return true
    const isThere = Effect.orElseSucceed(files.exists(noteOf(targetPath)), () => false)
    if (!(yield* isThere)) return false
    history.count("orphans")
    if (this.stage === "Chaos") yield* Effect.raceFirst(Deferred.await(this.process.ended), Deferred.await(this.lost))
    yield* this.whileDown()
    return !this.isLost
  })

  private readonly takeAway = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    const { chance, faults, history } = this.it
    volume.state = "Unpublishing"
    history.state(laneOf(volume), "to be unpublished")
    // Nobody asks for a volume that he takes away.
    for (const [duplicate, asked] of this.duplicates) if (asked === volume) yield* Fiber.interrupt(duplicate)
    if (yield* this.isToBeUnpublished(volume)) {
      yield* this.unpublishUntilOk(volume)
      if (faults.active && chance.happens(faults.plan.unpublishTwiceRate)) {
        faults.note("unpublish twice")
        yield* this.unpublishUntilOk(volume)
      }
    }
    volume.state = "Gone"
    // The kubelet removes what it has made, and nothing else.
    if (!this.isLost) yield* this.forgetVolume(volume)
  })

  /** For a kubelet that has not heard yet of the pod's end, the volume is a new one. */
  private readonly publishLate = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume) {
    const { chance, faults } = this.it
    faults.note("publish after unpublish")
    Object.assign(volume, { state: "Publishing", recorded: false, generationSeen: 0, mayChange: true })
    yield* this.whileDown()
    if (!this.isLost) yield* this.publish(volume)
    yield* this.wait(chance.between(0, ORPHAN_MILLIS_MAX))
    yield* this.takeAway(volume)
  })

  private readonly runVolume = Effect.fnUntraced({ self: this }, function* (volume: SimulatedVolume, stay: Stay) {
    const { chance, faults } = this.it
    yield* this.publishUntilLeaving(volume, stay)
    yield* stay.podObjectGone
    yield* this.takeAway(volume)
    if (faults.active && !this.isLost && chance.happens(faults.plan.latePublishRate)) yield* this.publishLate(volume)
  })

  // ---- one pod

  /** Pods whose objects are there: those that somebody can annotate. */
  hasPodObject(volume: SimulatedVolume): boolean {
    return this.it.podObjects.has(volume.pod.uid)
  }

  /** An administrator who wants a pod's volumes refreshed now. */
  readonly askForRefresh = ({ name, namespace, uid }: SimulatedVolume["pod"], value: string) =>
    Effect.suspend(() => {
      const { api, history, volumes } = this.it
      if (!this.it.podObjects.has(uid)) return Effect.void
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

  /** All volumes of one pod, until the last of them is gone. */
  readonly runPod = (own: ReadonlyArray<SimulatedVolume>, stay: Stay): Effect.Effect<void> =>
    Effect.forEach(own, (volume) => this.runVolume(volume, stay), { concurrency: own.length, discard: true })
}
