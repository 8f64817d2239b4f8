/**
 * A node in memory on which the whole, unchanged driver lives, dies and lives again, with a kubelet, pods, providers,
 * an API server and everything that goes wrong between them. One seed decides all of it.
 *
 * A run has three parts: faults, while what must always be true is checked at every step; calm, in which what must
 * become true is waited for; and the end of all pods, without API server and providers, after which nothing is left.
 */
import { Clock, Context, Effect, FileSystem, Layer } from "effect"
import { FORCE_REFRESH_KEY } from "../../schemas/ForceRefresh.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../src/ports/Mounter.ts"
import { PluginRegistry } from "../../src/ports/PluginRegistry.ts"
import { Providers } from "../../src/ports/Providers.ts"
import * as KlogLogger from "../real/KlogLogger.ts"
import { MemoryKubernetes, make as makeKubernetes } from "./MemoryKubernetes.ts"
import { MemoryNode, make as makeNode } from "./MemoryNode.ts"
import * as MemoryPluginRegistry from "./MemoryPluginRegistry.ts"
import * as MemoryProviders from "./MemoryProviders.ts"
import { apiChaos, driverReach } from "./simulation/ApiChaos.ts"
import * as Backend from "./simulation/Backend.ts"
import { type Chance, every, make as makeChance } from "./simulation/Chance.ts"
import {
  classLane,
  classObject,
  classPath,
  drawClasses,
  FLAWS,
  type Flaw,
  NAMESPACES,
  PROVIDERS
} from "./simulation/Classes.ts"
import { diskTroubles } from "./simulation/DiskFaults.ts"
import { configOf, drawOddSettings, ROTATION_MILLIS } from "./simulation/DriverSettings.ts"
import { adjustPlan, drawPlan, type FaultPlan, Faults } from "./simulation/Faults.ts"
import type { History } from "./simulation/History.ts"
import * as Invariants from "./simulation/Invariants.ts"
import { BACKOFF_MILLIS_MAX, Kubelet, REPUBLISH_MILLIS_MAX } from "./simulation/Kubelet.ts"
import * as Lives from "./simulation/Lives.ts"
import { PodSeries, type PodTemplate } from "./simulation/PodSeries.ts"
import { providerTroubles } from "./simulation/ProviderFaults.ts"
import { HOUR, type Judges, listed, MINUTE, run as runOnce } from "./simulation/Run.ts"
import type { RunOptions, RunResult, Scenario } from "./simulation/Scenario.ts"
import { Strangers } from "./simulation/Strangers.ts"
import { NodeClock, timeTroubles } from "./simulation/TimeFaults.ts"
import { drawTokenSettings } from "./simulation/Tokens.ts"
import {
  ALWAYS,
  MARK,
  NODE_NAME,
  PODS_DIRECTORY,
  type SimulatedClass,
  type SimulatedVolume,
  secretNameOf,
  versionOf
} from "./simulation/Volume.ts"
import { Witness } from "./simulation/Witness.ts"

/** Puts something between the driver and its world: a mistake that has to be found. */
export type Plant = (ports: Lives.Ports, node: MemoryNode["Service"]) => Lives.Ports

/** Calm and end take about half an hour of virtual time more than `hours`. */
export interface NodeSimulationOptions extends RunOptions {
  readonly plant?: Plant
}

/** Two waits of the kubelet's, one for the last fault and one for the driver that was just starting, and the calls. */
const PUBLISHED_WITHIN_MILLIS = 2 * BACKOFF_MILLIS_MAX + 2 * MINUTE
/** A volume becomes due just after a republish; the provider and the disk take their time. */
const NEWEST_WITHIN_MILLIS = ROTATION_MILLIS + REPUBLISH_MILLIS_MAX + MINUTE / 2
/** A pod is told to end when its volumes are republished, and its successor is there soon after; two rounds of garbage. */
const RENEWED_WITHIN_MILLIS = REPUBLISH_MILLIS_MAX + MINUTE
const SYNCED_WITHIN_MILLIS = 5_000
const ASKED_WITHIN_MILLIS = 10_000
/** A moment to be sure, another one while somebody works on the volume, and the request. */
const RECORDED_WITHIN_MILLIS = 15_000
const STATUSES_EDITED = 4
const QUIET_MILLIS = 10 * MINUTE
/** How much longer than the last pod the last outage is. */
const OUTAGE_LEFT_MILLIS_MAX = 8 * MINUTE
const UNPUBLISHED_WITHIN_MILLIS = 2 * MINUTE
/** A reconcile that failed while the API server was away comes back soon after it, and two looks lie between. */
const GONE_WITHIN_MILLIS = MINUTE
const READER_MILLIS_MAX = 10_000
const IMPATIENT_MILLIS_MAX = 4_000
/** Within the second that a replaced generation is kept for its readers. */
const SLOW_READER_MILLIS_MAX = 900
/** Longer than until every volume was due once. */
const REFUSED_MILLIS = ROTATION_MILLIS + MINUTE
/** Until a provider that has throttled is tried again, which has to succeed, and all that has waited since. */
const DRAINED_WITHIN_MILLIS = MINUTE
/** A call that has not gone on for this long waits for its turn. */
const WAITING_MILLIS = 1_000
/** Whatever has gone wrong, and with an interval of a second. */
const CALLS_PER_MINUTE_MAX = 120
/** From its turn to the question. */
const MOUNTING_MILLIS = 100
const WRONG_CLASS_RATE = 0.3
/** A call to a provider and what is done with its answer, while nothing goes wrong. */
const REFRESH_MILLIS_MAX = 5_000
const GARBAGE_MILLIS = 30_000
const API_LANE = "API server"
/** What the driver said, whose first part, in quotes, is constant. */
const LOG_LINE = /\] ("((?:[^"\\]|\\.)*)".*)/su

const POD_NAMES = ["web", "web-x", "db", "job", "cache", "api"]

const drawPods = (chance: Chance, classes: ReadonlyMap<string, SimulatedClass>): ReadonlyArray<PodTemplate> =>
  NAMESPACES.flatMap((namespace) => {
    const own = [...classes.values()].filter((it) => it.namespace === namespace)
    return POD_NAMES.slice(0, 3 + chance.below(4)).map((name) => ({
      name,
      namespace,
      serviceAccountName: `${name}-account`,
      isOwned: chance.happens(0.5),
      volumes: Array.from({ length: 1 + chance.below(2) }, (_, index) => ({
        name: `volume-${index}`,
        class: chance.oneOf(own),
        isPinned: chance.happens(0.2)
      }))
    }))
  })

/** What a run keeps outside of its program, so that it is there however the run ends. */
interface Notes {
  readonly volumes: Map<string, SimulatedVolume>
  plan: FaultPlan | undefined
  rotationEnabled: boolean
  volumesMax: number
}

const program = (
  { hours, plant = (ports) => ports, rates }: NodeSimulationOptions,
  notes: Notes,
  { history, referee, setClock }: Judges
) =>
  Effect.gen(function* () {
    setClock(yield* Clock.Clock)
    const { volumes } = notes
    const chance = yield* makeChance
    const plan = adjustPlan(drawPlan(chance), rates)
    const rotationEnabled = chance.happens(0.8)
    notes.plan = plan
    notes.rotationEnabled = rotationEnabled
    const faults = new Faults(plan, chance, history)

    // ---- the world

    const nodeContext = yield* makeNode
    const kubernetesContext = yield* makeKubernetes()
    const providersContext = yield* Layer.build(MemoryProviders.layer)
    const registryContext = yield* Layer.build(MemoryPluginRegistry.layer)
    const node = Context.get(nodeContext, MemoryNode)
    const files = Context.get(nodeContext, FileSystem.FileSystem)
    const api = Context.get(kubernetesContext, KubernetesApi)
    const control = Context.get(kubernetesContext, MemoryKubernetes)
    const installed = Context.get(providersContext, MemoryProviders.MemoryProviders)
    yield* Context.get(registryContext, MemoryPluginRegistry.MemoryPluginRegistry).answerWith({
      registered: true,
      error: ""
    })
    const classes = drawClasses(chance, plan.oddClassesRate)
    const context = yield* Effect.context<never>()
    const world = yield* Clock.Clock
    const clock = new NodeClock(world)
    const tokens = drawTokenSettings(chance, PROVIDERS)
    let isBacklog = false
    const refreshes: Array<{ readonly provider: string; readonly millis: number; readonly volume: SimulatedVolume }> =
      []
    const onCall = (provider: string, targetPath: string) => {
      const volume = volumes.get(targetPath)
      if (volume === undefined) return
      const millis = world.currentTimeMillisUnsafe()
      const earlier = backend.calls(targetPath).at(-CALLS_PER_MINUTE_MAX)?.millis ?? Number.NEGATIVE_INFINITY
      referee.check(Invariants.providersAreSpared, {
        volume,
        calls: millis - earlier < MINUTE ? CALLS_PER_MINUTE_MAX + 1 : 0,
        callsMax: CALLS_PER_MINUTE_MAX
      })
      if (!isBacklog) return
      if (volume.state === "Published") return void refreshes.push({ provider, millis, volume })
      const { waitsSinceMillis } = volume
      if (volume.state !== "Publishing" || waitsSinceMillis === undefined) return
      const sinceMillis = Math.max(waitsSinceMillis, backend.calls(targetPath).at(-1)?.millis ?? 0) + WAITING_MILLIS
      const before = refreshes.filter((it) => it.provider === provider && it.millis > sinceMillis)
      referee.check(Invariants.firstMountsGoFirst, {
        volume,
        refreshed: before.filter((it) => it.millis < millis - MOUNTING_MILLIS).map((it) => it.volume)
      })
    }
    const backend = Backend.make({ classes, faults, chance, history, files, context, tokens: () => tokens, onCall })
    const templates = drawPods(chance, classes)
    notes.volumesMax = templates.reduce((sum, template) => sum + template.volumes.length, 0)
    const install = (provider: string) =>
      installed.install(provider, backend.handler(provider), backend.version(provider))
    for (const provider of PROVIDERS) yield* install(provider)
    for (const it of classes.values()) {
      const body = classObject(it)
      yield* Effect.orDie(api.request({ method: "POST", path: classPath(it.namespace), body }))
    }
    yield* Effect.orDie(files.makeDirectory(PODS_DIRECTORY, { recursive: true }))

    const spoilt = new Set<string>()
    const witness = new Witness({ files, node, control, volumes, classes, spoilt, faults, referee, history }, context)

    const strangers = new Strangers({
      ...{ api, classes, volumes, spoilt, chance },
      note: (site) => {
        // What is done to a node at rest is no fault that was drawn.
        if (faults.active) faults.note(site)
      },
      collectGarbage: Effect.suspend(() => collectGarbage)
    })

    let isOdd = false
    const lives = yield* Lives.make({
      nodeName: NODE_NAME,
      config: () => {
        isOdd = faults.active && chance.happens(plan.oddSettingsRate)
        const [name, change] = isOdd ? drawOddSettings(chance) : ["", {}]
        if (isOdd) faults.note(`settings ${name}`)
        return configOf(NODE_NAME, { rotationEnabled, ...change })
      },
      world: {
        mounter: faults.disk.mounter(witness.mounter(Context.get(nodeContext, Mounter))),
        fileSystem: faults.disk.fileSystem(witness.fileSystem(files)),
        kubernetes: faults.kubernetes(witness.kubernetes(api), strangers),
        legacyKubernetes: faults.kubernetes(api, strangers),
        providers: Context.get(providersContext, Providers),
        registry: Context.get(registryContext, PluginRegistry)
      },
      plant: (ports) => plant(ports, node),
      surroundings: KlogLogger.layer({
        json: false,
        verbosity: 5,
        pid: 1,
        write: (line) => {
          history.count("log lines")
          witness.checkText("a log line", line)
          const [, said = "", message = ""] = LOG_LINE.exec(line) ?? []
          // The kubelet's lane tells of calls already.
          if (message === "request" || message === "response") return
          history.count(`decision ${message}`)
          if (!said.includes(MARK)) history.note(`says ${said}`, Lives.laneOf(NODE_NAME))
        }
      }),
      faults,
      clock,
      chance,
      history,
      referee
    })
    const podObjects = new Set<string>()
    const kubelet = new Kubelet({
      nodeName: NODE_NAME,
      lives,
      files,
      api,
      volumes,
      witness,
      faults,
      chance,
      history,
      referee,
      csiDriver: () => ({ requiresRepublish: true, tokens }),
      podObjects,
      strangers
    })
    const pods = new PodSeries({
      ...{ api, chance, faults, history, kubelet, podObjects, volumes },
      nodeName: NODE_NAME
    })
    faults.whenDiskHangs((targetPath) => pods.deletePodOf(targetPath))
    const current = () => [...volumes.values()]

    // ---- what goes on

    const tellGeneration = (it: SimulatedClass) =>
      history.state(classLane(it), `generation ${it.generation} at ${it.provider}`)
    for (const it of classes.values()) tellGeneration(it)

    const rotate = Effect.sync(() => {
      const it = chance.oneOf([...classes.values()])
      it.generation += 1
      history.count("generations")
      tellGeneration(it)
    })

    const renewAll = () => {
      for (const it of classes.values()) {
        it.generation += 1
        tellGeneration(it)
      }
    }

    /** A workload: a look at all of a volume at one instant, and the one file that must be there whenever it is asked. */
    const read = Effect.gen(function* () {
      yield* Effect.sleep(chance.between(0, READER_MILLIS_MAX))
      const published = current().filter(({ state }) => state === "Published")
      if (published.length === 0) return
      const volume = chance.oneOf(published)
      history.count("reads")
      witness.checkVolume(volume)
      const path = `${volume.targetPath}/${ALWAYS}`
      yield* Effect.catch(files.readFileString(path), (failure) =>
        Effect.sync(() => {
          if (volume.state === "Published") {
            referee.check(Invariants.aFileNeverDisappears, { path, failure: failure.reason._tag })
          }
        })
      )
    })

    let stops = 0
    /** A workload that follows the link first, and takes its time with the files after it. */
    const readSlowly = Effect.gen(function* () {
      yield* Effect.sleep(chance.between(0, READER_MILLIS_MAX))
      // What a provider writes itself has no generations.
      const published = current().filter((it) => it.state === "Published" && !it.class.writesItself)
      if (published.length === 0) return
      const volume = chance.oneOf(published)
      // A driver that ends takes replaced files away at once, and one that begins what its forerunner has left.
      const [life, stopped] = [lives.number(), stops]
      // And with a volume that is unpublished goes all that was in it, also when it is published once more at once.
      const mounts = witness.mountsMade(volume)
      const link = yield* Effect.option(files.readLink(`${volume.targetPath}/..data`))
      // Upstream's release takes them away at once.
      if (link._tag === "None" || !lives.isAlive() || lives.isLegacy() || !lives.isAlone()) return
      const afterMillis = chance.between(0, SLOW_READER_MILLIS_MAX)
      yield* Effect.sleep(afterMillis)
      const path = `${volume.targetPath}/${link.value}/${ALWAYS}`
      if (yield* Effect.orElseSucceed(files.exists(path), () => false)) return
      if (volume.state !== "Published" || mounts !== witness.mountsMade(volume)) return
      if (life !== lives.number() || stopped !== stops || !lives.isAlive()) return
      referee.check(Invariants.readersMayFinish, { path, afterMillis })
    })

    let isSettled = false
    const collectGarbage = Effect.gen(function* () {
      const deleted = yield* control.collectGarbage
      const now = yield* Clock.currentTimeMillis
      for (const name of deleted) history.note(`garbage ${name}`, API_LANE)
      // While the API server or the driver has troubles, an owner may come late; the Secret is made anew then.
      if (!isSettled) return
      for (const name of deleted) {
        const its = [...classes.values()].find((it) => name === `secrets ${it.namespace}/${secretNameOf(it)}`)
        const users = current().filter(
          (volume) =>
            volume.class === its &&
            volume.state === "Published" &&
            kubelet.hasPodObject(volume) &&
            now - volume.publishedMillis > SYNCED_WITHIN_MILLIS
        )
        referee.check(Invariants.usedSecretStays, { name, users })
      }
    })

    const reboot = Effect.gen(function* () {
      faults.note("reboot")
      yield* lives.kill
      for (const volume of current()) {
        if (volume.state === "Published") volume.state = "Publishing"
        // Its content is gone, so that there is nothing left to keep.
        volume.mayChange = true
      }
      yield* node.reboot
      history.note("has rebooted", Lives.laneOf(NODE_NAME))
      yield* kubelet.restart
    })

    let wishes = 0
    /** Somebody wants a pod's volumes, or those of a class, refreshed now. */
    const askOnce = Effect.fnUntraced(function* (volume: SimulatedVolume) {
      wishes += 1
      history.count("wishes")
      if (chance.happens(0.5)) return yield* kubelet.askForRefresh(volume.pod, `wish ${wishes}`)
      volume.class.askedMillis = yield* Clock.currentTimeMillis
      for (const other of current()) if (other.class === volume.class) other.mayChange = true
      yield* Effect.ignore(
        api.request({
          method: "PATCH",
          path: `${classPath(volume.class.namespace)}/${volume.class.name}`,
          contentType: "application/merge-patch+json",
          body: { metadata: { annotations: { [FORCE_REFRESH_KEY]: `wish ${wishes}` } } }
        })
      )
    })
    /** Some change their mind at once, and want the next generation while the last one is on its way to everybody. */
    const ask = Effect.gen(function* () {
      if (current().length === 0) return
      const volume = chance.oneOf(current())
      yield* askOnce(volume)
      for (let again = chance.below(4); again > 0; again--) {
        yield* Effect.sleep(chance.between(0, IMPATIENT_MILLIS_MAX))
        volume.class.generation += 1
        tellGeneration(volume.class)
        yield* askOnce(volume)
      }
    })

    const replaceClass = (it: SimulatedClass, flaw?: Flaw) =>
      Effect.ignore(
        api.request({
          method: "PUT",
          path: `${classPath(it.namespace)}/${it.name}`,
          body: classObject(it, flaw)
        })
      )
    const classBroken = Effect.gen(function* () {
      const it = chance.oneOf([...classes.values()])
      const flaw = chance.oneOf(FLAWS)
      faults.note(`SecretProviderClass ${flaw}`)
      history.note(`is made useless by an edit: ${flaw}`, classLane(it))
      yield* replaceClass(it, flaw)
      yield* Effect.sleep(chance.between(0, 5 * MINUTE)).pipe(Effect.ensuring(replaceClass(it)))
      history.note("is put right", classLane(it))
    })

    const latency = Effect.suspend(() => control.setLatencyMillis(chance.between(0, plan.apiLatencyMillisMax)))

    /** Somebody was first, with a Secret of that name, and takes it away after a while. */
    const foreignSecret = (it: SimulatedClass) => {
      if (!it.isSynced || !chance.happens(plan.secretTouchedEveryMillis > 0 ? 0.3 : 0)) return Effect.void
      const path = `/api/v1/namespaces/${it.namespace}/secrets`
      const name = secretNameOf(it)
      const body = { apiVersion: "v1", kind: "Secret", metadata: { namespace: it.namespace, name }, data: {} }
      return api
        .request({ method: "POST", path, body })
        .pipe(
          Effect.andThen(
            Effect.sleep(chance.between(0, 10 * MINUTE)).pipe(
              Effect.ensuring(Effect.ignore(api.request({ method: "DELETE", path: `${path}/${name}` })))
            )
          ),
          Effect.ignore
        )
    }

    const stop = Effect.suspend(() => {
      stops += 1
      faults.note("SIGTERM")
      return lives.stop
    })

    const site = {
      ...{ name: NODE_NAME, faults, lives, files, install, clock },
      uninstall: installed.remove,
      setSocket: installed.setSocket,
      laneOf: (provider: string) => Backend.laneOf(provider),
      mounts: () => witness.mounts()
    }
    const chaos = Effect.all(
      [
        every(chance, plan.stopEveryMillis, stop),
        every(chance, plan.rebootEveryMillis, reboot),
        every(chance, plan.kubeletRestartEveryMillis, kubelet.restart),
        ...providerTroubles({ nodes: [site], rates: plan, classes, chance, history }),
        ...diskTroubles({ nodes: [site], rates: plan, chance, context }),
        ...timeTroubles({ nodes: [site], rates: plan, chance, history }),
        every(chance, 5 * MINUTE, ask),
        ...apiChaos({
          ...{ control, chance, history },
          rates: plan,
          reach: driverReach(NAMESPACES),
          clients: [faults],
          note: (site) => faults.note(site),
          empty: strangers.empty
        }),
        every(chance, plan.classBrokenEveryMillis, classBroken),
        every(chance, plan.classRemadeEveryMillis, strangers.remakeClass),
        every(chance, plan.secretTouchedEveryMillis, strangers.editSecret),
        every(chance, plan.statusTouchedEveryMillis, strangers.editStatus),
        Effect.forEach(classes.values(), foreignSecret, { concurrency: "unbounded", discard: true }),
        every(chance, plan.apiLatencyMillisMax > 0 ? MINUTE : 0, latency),
        every(chance, (chance.between(1, 15) * MINUTE) / classes.size, rotate)
      ],
      { concurrency: "unbounded", discard: true }
    )

    /** What is not as it should be after this long. */
    const whoIsNot = (state: SimulatedVolume["state"], withinMillis: number) =>
      Effect.as(Effect.sleep(withinMillis), undefined).pipe(
        Effect.map(() => current().filter((volume) => volume.state !== state))
      )

    // ---- the run

    yield* Effect.forkScoped(lives.supervise)
    yield* Effect.forkScoped(Effect.forever(read))
    yield* Effect.forkScoped(Effect.forever(readSlowly))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(GARBAGE_MILLIS), collectGarbage)))
    for (const template of templates) yield* Effect.forkScoped(pods.runPods(template))

    history.note("faults begin")
    yield* Effect.timeoutOption(chaos, hours * HOUR)

    history.note("faults end")
    faults.active = false
    lives.spare()
    // What is promised in calm is promised for usual settings.
    if (isOdd) yield* lives.kill
    pods.calm()
    yield* control.setLatencyMillis(0)
    // What was to put it right may not have reached the API server.
    for (const it of classes.values()) yield* strangers.restore(it)
    yield* strangers.letAllGo
    const unpublished = yield* whoIsNot("Published", PUBLISHED_WITHIN_MILLIS)
    referee.check(Invariants.everyVolumeIsPublished, { left: unpublished, withinMillis: PUBLISHED_WITHIN_MILLIS })
    kubelet.checkPodStatuses(current())
    for (const volume of current()) {
      if (!rotationEnabled || volume.isPinned) continue
      const view = witness.look(volume)
      referee.check(Invariants.newestGenerationArrives, { volume, view, withinMillis: PUBLISHED_WITHIN_MILLIS })
      // Of a pinned one nobody may look after what a kill has left.
      referee.check(Invariants.oldGenerationsGo, { volume, view })
    }

    history.note("every pod is made anew")
    isSettled = true
    pods.renew(templates)
    const wrong = [...classes.values()].filter(() => chance.happens(WRONG_CLASS_RATE))
    if (wrong.length > 0) {
      for (const it of wrong) {
        const flaw = chance.oneOf(FLAWS)
        history.note(`is wrong: ${flaw}`, classLane(it))
        yield* replaceClass(it, flaw)
      }
      // Long enough for all pods to meet it.
      yield* Effect.sleep(REPUBLISH_MILLIS_MAX)
      for (const it of wrong) {
        yield* replaceClass(it)
        history.note("is put right", classLane(it))
      }
    }
    const life = lives.number()
    const unpublishedAgain = yield* whoIsNot("Published", RENEWED_WITHIN_MILLIS)
    for (const it of wrong) {
      referee.check(Invariants.correctedClassesServe, {
        class: it,
        left: unpublishedAgain.filter((volume) => volume.class === it && volume.state === "Publishing"),
        restarts: lives.number() - life,
        withinMillis: RENEWED_WITHIN_MILLIS
      })
    }
    referee.check(Invariants.everyVolumeIsPublished, { left: unpublishedAgain, withinMillis: RENEWED_WITHIN_MILLIS })
    kubelet.checkPodStatuses(current())

    if (rotationEnabled) {
      history.note("providers refuse")
      const sinceMillis = yield* Clock.currentTimeMillis
      faults.providers.refuse = true
      yield* Effect.sleep(REFUSED_MILLIS)
      faults.providers.refuse = false
      for (const volume of current().filter((it) => !it.isPinned && kubelet.hasPodObject(it))) {
        // Whoever is not called has refused nobody; that is L2's business.
        if (!backend.calls(volume.targetPath).some(({ millis }) => millis >= sinceMillis)) continue
        referee.check(Invariants.failuresAreTold, {
          volume,
          warnings: witness.warnings(volume.pod.uid, sinceMillis),
          withinMillis: REFUSED_MILLIS
        })
      }

      renewAll()
      history.note("new generations")
      yield* Effect.sleep(NEWEST_WITHIN_MILLIS)
      for (const volume of current().filter(({ isPinned }) => !isPinned)) {
        const view = witness.look(volume)
        referee.check(Invariants.newestGenerationArrives, { volume, view, withinMillis: NEWEST_WITHIN_MILLIS })
      }
      yield* Effect.sleep(SYNCED_WITHIN_MILLIS)
      const wanted = [...classes.values()].filter(
        (it) =>
          it.isSynced &&
          current().some((volume) => volume.class === it && !volume.isPinned && kubelet.hasPodObject(volume))
      )
      const checkSecrets = () => {
        for (const it of wanted) {
          referee.check(Invariants.secretFollows, {
            class: it,
            secrets: witness.secrets(),
            withinMillis: SYNCED_WITHIN_MILLIS
          })
          witness.checkRestored(it)
          const users = current().filter((volume) => volume.class === it && kubelet.hasPodObject(volume))
          witness.checkOwners(it, users, (volume) => pods.ownerUidOf(volume))
        }
      }
      checkSecrets()
      history.note("Secrets are edited")
      for (const it of wanted) yield* Effect.andThen(strangers.spoil(it), strangers.disown(it))
      yield* Effect.sleep(SYNCED_WITHIN_MILLIS)
      checkSecrets()
      history.note("pod statuses are edited")
      for (let index = 0; index < STATUSES_EDITED; index++) yield* strangers.editStatusOnce
      yield* Effect.sleep(RECORDED_WITHIN_MILLIS)
      kubelet.checkPodStatuses(current())

      if (chance.happens(0.5)) {
        history.note("providers throttle")
        for (const provider of PROVIDERS) faults.providers.throttling.add(provider)
        renewAll()
        pods.renew(templates.filter(() => chance.happens(0.5)))
        isBacklog = true
        yield* Effect.sleep(REFUSED_MILLIS)
        faults.providers.throttling.clear()
        history.note("providers take calls again")
        const unpublishedYet = yield* whoIsNot("Published", DRAINED_WITHIN_MILLIS)
        isBacklog = false
        referee.check(Invariants.everyVolumeIsPublished, { left: unpublishedYet, withinMillis: DRAINED_WITHIN_MILLIS })
        for (const volume of current().filter((it) => !it.isPinned && kubelet.hasPodObject(it))) {
          const view = witness.look(volume)
          referee.check(Invariants.backlogDrains, { volume, view, withinMillis: DRAINED_WITHIN_MILLIS })
        }
      }

      renewAll()
      history.note("new generations, which are asked for")
      const named = new Map(current().map(({ pod }) => [pod.uid, pod]))
      for (const pod of named.values()) yield* kubelet.askForRefresh(pod, "at the end")
      yield* Effect.sleep(ASKED_WITHIN_MILLIS)
      for (const volume of current().filter((it) => kubelet.hasPodObject(it))) {
        const view = witness.look(volume)
        referee.check(Invariants.askedForArrives, { volume, view, withinMillis: ASKED_WITHIN_MILLIS })
      }
    }

    for (const it of classes.values()) {
      const users = current().filter((volume) => volume.class === it && kubelet.hasPodObject(volume))
      if (it.isSynced) witness.checkOwners(it, users, (volume) => pods.ownerUidOf(volume))
    }

    history.note("quiet, with two more kills")
    const quietFrom = yield* Clock.currentTimeMillis
    const [apiWrites, fileWrites] = [history.figure("API writes"), history.figure("file writes")]
    yield* lives.kill
    yield* Effect.sleep(QUIET_MILLIS / 2)
    const killedAgain = yield* Clock.currentTimeMillis
    yield* lives.kill
    yield* Effect.sleep(QUIET_MILLIS / 2)
    referee.check(Invariants.quietMeansNoWrites, {
      quietMillis: QUIET_MILLIS,
      apiWrites: history.figure("API writes") - apiWrites,
      fileWrites: history.figure("file writes") - fileWrites
    })
    for (const volume of current()) {
      const view = witness.look(volume)
      referee.check(Invariants.whatIsReachedStays, { volume, view })
      // Of the others nobody may look after what a kill has left.
      if (rotationEnabled && !volume.isPinned) referee.check(Invariants.oldGenerationsGo, { volume, view })
      const all = backend.calls(volume.targetPath)
      const calls = all.filter(({ millis }) => millis >= quietFrom)
      const callsMax = rotationEnabled ? 1 + QUIET_MILLIS / ROTATION_MILLIS : 0
      referee.check(Invariants.providersAreSpared, { volume, calls: calls.length, callsMax })
      // What a kill has cut off is begun anew.
      const isCutOff = [quietFrom, killedAgain].some((kill) =>
        all.some(({ millis }) => millis <= kill && kill < millis + REFRESH_MILLIS_MAX)
      )
      const millis = all.slice(-calls.length - 1).map((call) => call.millis)
      if (!isCutOff) {
        referee.check(Invariants.providersAreCalledWhenDue, { volume, millis, leastMillis: ROTATION_MILLIS - 1_000 })
      }
      const version = versionOf(volume.class, Invariants.generationOf(view))
      if (!kubelet.hasPodObject(volume)) continue
      for (const { versions } of calls) {
        referee.check(Invariants.providersAreToldVersions, { volume, told: versions, version })
      }
    }

    history.note("the end, without API server and providers")
    faults.apiIsDown = true
    history.state(API_LANE, "out of reach")
    for (const provider of PROVIDERS) {
      history.state(Backend.laneOf(provider), "gone")
      yield* installed.remove(provider)
    }
    // An API server that has too much to do refuses requests, and lets the watches go on that it has: what they have told
    // by its end is not told again.
    if (chance.happens(0.5)) yield* control.dropWatches("error")
    pods.end()
    const left = yield* whoIsNot("Gone", UNPUBLISHED_WITHIN_MILLIS)
    referee.check(Invariants.unpublishNeedsNobody, { left, withinMillis: UNPUBLISHED_WITHIN_MILLIS })
    // Whoever waits longer and longer between two tries waits long by its end.
    yield* Effect.sleep(chance.between(0, OUTAGE_LEFT_MILLIS_MAX))
    faults.apiIsDown = false
    history.state(API_LANE, "")
    yield* Effect.sleep(GONE_WITHIN_MILLIS)
    referee.check(Invariants.nothingIsLeft, {
      mounts: witness.mounts(),
      entries: witness.entries(),
      statuses: witness.statuses(),
      secrets: witness.ownSecrets()
    })
    const table = lives.table()
    if (table !== undefined) {
      referee.check(Invariants.nothingIsRemembered, { remembered: table.all().length, busy: table.busy() })
    }
    history.note("done")
  }).pipe(Effect.scoped)

/**
 * Runs one simulation.
 *
 * @shape  (options) -> RunResult
 * @units  hours of virtual time
 * @errors none: a broken promise is a violation in the result; a defect of the simulation itself is thrown
 */
export const run = (options: NodeSimulationOptions): RunResult => {
  const notes: Notes = { volumes: new Map(), plan: undefined, rotationEnabled: false, volumesMax: 0 }
  const result = runOnce(options, (judges) => program(options, notes, judges))
  return { ...result, rates: notes.plan, summary: summaryOf(notes, result.history) }
}

const summaryOf = ({ rotationEnabled, volumesMax }: Notes, history: History): RunResult["summary"] => {
  const counted = (name: string, figure = name) => `${history.figure(figure)} ${name}`
  const rotation = `rotation ${rotationEnabled ? "on" : "off"}`
  return [
    [
      "node",
      `${volumesMax} volumes at a time, ${counted("pods")}, ${rotation}, ${counted("new generations", "generations")}, ${counted("reads")}`
    ],
    ["publish", listed(history.figuresOf("publish "))],
    ["unpublish", listed(history.figuresOf("unpublish "))],
    ["driver", `${counted("kills")}, ${counted("stops")}`]
  ]
}

/** One node, whose driver lives through everything that is drawn. */
export const scenario: Scenario = {
  name: "node",
  description: "the node driver with a kubelet, pods, providers, a disk and an API server",
  run
}
