/**
 * A cluster in memory: one to five nodes, each with the whole, unchanged driver, a kubelet, a disk and providers; one API
 * server; workloads whose pods come, move and go; and everything that goes wrong between them. One seed decides all of it.
 *
 * A run has the parts of a node's run: faults; calm, in which what must become true is waited for; and the end of all
 * pods.
 */
import { Clock, Context, Effect } from "effect"
import { FORCE_REFRESH_KEY } from "../../schemas/ForceRefresh.ts"
import { DAEMON_SET, DRIVER_CONTAINER, DRIVER_NAME } from "../../src/operator/Names.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { objectAt } from "./KubernetesObject.ts"
import { MemoryKubernetes, make as makeKubernetes } from "./MemoryKubernetes.ts"
import { type Chance, every, make as makeChance } from "./simulation/Chance.ts"
import { classLane, classObject, classPath, drawClasses, PROVIDERS } from "./simulation/Classes.ts"
import * as ClusterInvariants from "./simulation/ClusterInvariants.ts"
import { DriverPods } from "./simulation/DriverPods.ts"
import { drawPlan, type FaultPlan } from "./simulation/Faults.ts"
import type { History } from "./simulation/History.ts"
import * as Invariants from "./simulation/Invariants.ts"
import { BACKOFF_MILLIS_MAX, REPUBLISH_MILLIS_MAX } from "./simulation/Kubelet.ts"
import type * as Lives from "./simulation/Lives.ts"
import { HOUR, type Judges, listed, MINUTE, run as runOnce } from "./simulation/Run.ts"
import type { RunOptions, RunResult, Scenario } from "./simulation/Scenario.ts"
import * as SimulatedNode from "./simulation/SimulatedNode.ts"
import { ALWAYS, type SimulatedClass, type SimulatedVolume } from "./simulation/Volume.ts"
import { draw as drawWorkloads, Workloads } from "./simulation/Workloads.ts"

export interface ClusterSimulationOptions extends RunOptions {
  /** One to five are drawn when absent. */
  readonly nodes?: number
  /** How many pods there are per node at most. */
  readonly podsPerNode?: number
  /** Puts something between a node's driver and its world: a mistake that has to be found. */
  readonly plant?: SimulatedNode.Shared["plant"]
}

const NODES_MAX = 5
const PODS_PER_NODE = 4
const PUBLISHED_WITHIN_MILLIS = 2 * BACKOFF_MILLIS_MAX + 2 * MINUTE
const SYNCED_WITHIN_MILLIS = 5_000
const ASKED_WITHIN_MILLIS = 10_000
const RESTARTED_WITHIN_MILLIS = 10_000
const QUIET_MILLIS = 10 * MINUTE
const UNPUBLISHED_WITHIN_MILLIS = 2 * MINUTE
const GONE_WITHIN_MILLIS = MINUTE
const READER_MILLIS_MAX = 10_000
const GARBAGE_MILLIS = 30_000
const NAMESPACE = "openshift-cluster-csi-drivers"
const API_LANE = "API server"
const PEOPLE_LANE = "pods and people"

/** Besides what goes wrong on each node. */
type ClusterPlan = FaultPlan & {
  readonly drainEveryMillis: number
  readonly scaleEveryMillis: number
  readonly deleteEveryMillis: number
}

const drawClusterPlan = (chance: Chance): ClusterPlan => {
  const interval = (longest: number) => (chance.happens(0.3) ? 0 : chance.between(longest / 8, longest))
  return {
    ...drawPlan(chance),
    drainEveryMillis: interval(60 * MINUTE),
    scaleEveryMillis: interval(20 * MINUTE),
    deleteEveryMillis: interval(20 * MINUTE)
  }
}

const adjustClusterPlan = (drawn: ClusterPlan, change: RunOptions["rates"]): ClusterPlan =>
  change === undefined ? drawn : { ...drawn, ...change(drawn) }

/** What a run keeps outside of its program, so that it is there however the run ends. */
interface Notes {
  plan: ClusterPlan | undefined
  nodes: number
  workloads: number
  pods: number
}

const program = (options: ClusterSimulationOptions, notes: Notes, { history, referee, setClock }: Judges) =>
  Effect.gen(function* () {
    setClock(yield* Clock.Clock)
    const { hours, plant = (ports: Lives.Ports) => ports, podsPerNode = PODS_PER_NODE, rates } = options
    const chance = yield* makeChance
    const plan = adjustClusterPlan(drawClusterPlan(chance), rates)
    notes.plan = plan
    const nodeCount = options.nodes ?? 1 + chance.below(NODES_MAX)
    notes.nodes = nodeCount
    const rotationEnabled = chance.happens(0.8)

    // ---- the world

    const kubernetesContext = yield* makeKubernetes()
    const api = Context.get(kubernetesContext, KubernetesApi)
    const control = Context.get(kubernetesContext, MemoryKubernetes)
    const atOnce = Effect.runSyncWith(yield* Effect.context<never>())
    const classes = drawClasses(chance)
    const create = (path: string, body: unknown) => Effect.orDie(api.request({ method: "POST", path, body }))
    for (const it of classes.values()) yield* create(classPath(it.namespace), classObject(it, true))

    const volumes = new Map<string, SimulatedVolume>()
    const podObjects = new Set<string>()
    const csiDriver = () => {
      const [found] = atOnce(control.all("csidrivers.storage.k8s.io"))
      if (found === undefined) return undefined
      return { requiresRepublish: objectAt(found, "spec")["requiresRepublish"] === true }
    }
    const nodes: Array<SimulatedNode.SimulatedNode> = []
    const driverPods = new DriverPods({ namespace: NAMESPACE, api, control, nodes: () => nodes, history, referee })
    const shared = { api, control, classes, volumes, podObjects, csiDriver, plant, chance, history, referee }
    for (let index = 1; index <= nodeCount; index++) {
      const name = `node-${index}`
      nodes.push(yield* SimulatedNode.make({ name, plan, config: () => driverPods.config(name) }, shared))
    }
    const current = () => nodes.flatMap((node) => node.volumes())
    const [firstNode] = nodes
    if (firstNode === undefined) return yield* Effect.die(new Error("a cluster has a node"))
    /** Where it does not matter which one looks. */
    const witness = firstNode.witness

    const workloads = drawWorkloads(classes, nodeCount * podsPerNode, chance)
    notes.workloads = workloads.length
    notes.pods = workloads.reduce((sum, { replicasMax }) => sum + replicasMax, 0)
    const pods = new Workloads({ api, nodes, podObjects, volumes, chance, history })

    yield* create("/apis/storage.k8s.io/v1/csidrivers", {
      apiVersion: "storage.k8s.io/v1",
      kind: "CSIDriver",
      metadata: { name: DRIVER_NAME },
      spec: { attachRequired: false, podInfoOnMount: true, requiresRepublish: rotationEnabled }
    })
    const labels = { app: DAEMON_SET }
    const args = [`--enable-secret-rotation=${rotationEnabled}`, "--rotation-poll-interval=2m"]
    yield* create(`/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets`, {
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      metadata: { name: DAEMON_SET, namespace: NAMESPACE },
      spec: {
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { containers: [{ name: DRIVER_CONTAINER, image: "drv", args }] } }
      }
    })
    const wanted = () => ({ rotationEnabled, rotationPollIntervalMillis: 2 * MINUTE })

    // ---- what goes on

    const renew = (it: SimulatedClass) => {
      it.generation += 1
      history.count("generations")
      history.state(classLane(it), `generation ${it.generation}`)
    }
    const renewAll = () => {
      for (const it of classes.values()) renew(it)
    }
    const rotate = Effect.sync(() => renew(chance.oneOf([...classes.values()])))

    /** A workload: a look at all of a volume at one instant, and the one file that must be there whenever it is asked. */
    const read = Effect.fnUntraced(function* (node: SimulatedNode.SimulatedNode) {
      yield* Effect.sleep(chance.between(0, READER_MILLIS_MAX))
      const published = node.volumes().filter(({ state }) => state === "Published")
      if (published.length === 0) return
      const volume = chance.oneOf(published)
      history.count("reads")
      node.witness.checkVolume(volume)
      const path = `${volume.targetPath}/${ALWAYS}`
      yield* Effect.catch(node.files.readFileString(path), (failure) =>
        Effect.sync(() => {
          if (volume.state === "Published") {
            referee.check(Invariants.aFileNeverDisappears, { path, failure: failure.reason._tag })
          }
        })
      )
    })

    const collectGarbage = Effect.map(control.collectGarbage, (deleted) => {
      for (const name of deleted) {
        history.note(`garbage ${name}`, API_LANE)
        const [kind, secret = ""] = name.split(" ")
        if (kind !== "secrets") continue
        referee.check(ClusterInvariants.collectedSecretIsUnused, { name: secret, users: witness.usersOf(secret) })
      }
    })

    const providerGone = Effect.gen(function* () {
      const [node, provider] = [chance.oneOf(nodes), chance.oneOf(PROVIDERS)]
      node.faults.note("Providers.locate")
      yield* node.uninstall(provider)
      yield* Effect.sleep(chance.between(0, 3 * MINUTE)).pipe(Effect.ensuring(node.install(provider)))
    })

    /** It throttles whoever asks, on all nodes. */
    const providerThrottles = Effect.gen(function* () {
      const provider = chance.oneOf(PROVIDERS)
      firstNode.faults.note("Providers throttle")
      for (const { faults } of nodes) faults.throttling.add(provider)
      yield* Effect.sleep(chance.between(0, 10 * MINUTE)).pipe(
        Effect.ensuring(
          Effect.sync(() => {
            for (const { faults } of nodes) faults.throttling.delete(provider)
          })
        )
      )
    })

    let wishes = 0
    const ask = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const all = current()
      if (all.length === 0) return Effect.void
      wishes += 1
      history.count("wishes")
      const volume = chance.oneOf(all)
      if (chance.happens(0.5)) return firstNode.kubelet.askForRefresh(volume.pod, `wish ${wishes}`)
      volume.class.askedMillis = now
      for (const other of all) if (other.class === volume.class) other.mayChange = true
      return Effect.ignore(
        api.request({
          method: "PATCH",
          path: `${classPath(volume.class.namespace)}/${volume.class.name}`,
          contentType: "application/merge-patch+json",
          body: { metadata: { annotations: { [FORCE_REFRESH_KEY]: `wish ${wishes}` } } }
        })
      )
    })

    /** Of one node, or of all. */
    const outage = Effect.gen(function* () {
      const affected = chance.happens(0.5) ? nodes : [chance.oneOf(nodes)]
      firstNode.faults.note("KubernetesApi outage")
      history.note(`out of reach of ${affected.map(({ name }) => name).join(", ")}`, API_LANE)
      for (const { faults } of affected) faults.apiIsDown = true
      yield* control.dropWatches("error")
      yield* Effect.sleep(chance.between(0, 5 * MINUTE)).pipe(
        Effect.ensuring(
          Effect.sync(() => {
            for (const { faults } of affected) faults.apiIsDown = false
          })
        )
      )
    })

    const watchCut = Effect.gen(function* () {
      firstNode.faults.note("KubernetesApi watch")
      if (chance.happens(0.5)) yield* control.compact
      yield* control.dropWatches(chance.happens(0.5) ? "close" : "error")
    })

    const replaceClass = (it: SimulatedClass, isUsable: boolean) =>
      Effect.ignore(
        api.request({
          method: "PUT",
          path: `${classPath(it.namespace)}/${it.name}`,
          body: classObject(it, isUsable)
        })
      )
    const classBroken = Effect.gen(function* () {
      const it = chance.oneOf([...classes.values()])
      firstNode.faults.note("SecretProviderClass")
      yield* replaceClass(it, false)
      yield* Effect.sleep(chance.between(0, 5 * MINUTE)).pipe(Effect.ensuring(replaceClass(it, true)))
    })

    const latency = Effect.suspend(() => control.setLatencyMillis(chance.between(0, plan.apiLatencyMillisMax)))

    const drain = Effect.gen(function* () {
      const node = chance.oneOf(nodes)
      history.count("drains")
      history.note(`${node.name} is drained`, PEOPLE_LANE)
      node.isSchedulable = false
      pods.evict(node)
      yield* Effect.sleep(chance.between(MINUTE, 10 * MINUTE)).pipe(
        Effect.ensuring(
          Effect.sync(() => {
            node.isSchedulable = true
          })
        )
      )
    })

    const stop = Effect.suspend(() => {
      const node = chance.oneOf(nodes)
      node.faults.note("SIGTERM")
      return node.lives.stop
    })

    const perNode = (meanMillis: number) => meanMillis / nodeCount
    const chaos = Effect.all(
      [
        every(chance, perNode(plan.stopEveryMillis), stop),
        every(
          chance,
          perNode(plan.rebootEveryMillis),
          Effect.suspend(() => chance.oneOf(nodes).reboot)
        ),
        every(chance, perNode(plan.providerGoneEveryMillis), providerGone),
        every(chance, plan.providerThrottlesEveryMillis, providerThrottles),
        every(chance, perNode(5 * MINUTE), ask),
        every(chance, plan.apiOutageEveryMillis, outage),
        every(chance, plan.watchCutEveryMillis, watchCut),
        every(chance, plan.classBrokenEveryMillis, classBroken),
        every(chance, plan.apiLatencyMillisMax > 0 ? MINUTE : 0, latency),
        every(chance, (chance.between(1, 15) * MINUTE) / classes.size, rotate),
        every(chance, plan.drainEveryMillis, drain),
        every(
          chance,
          perNode(plan.scaleEveryMillis),
          Effect.sync(() => pods.scale(chance.oneOf(workloads)))
        ),
        every(
          chance,
          perNode(plan.deleteEveryMillis),
          Effect.sync(() => pods.deleteOne(chance.happens(plan.forceDeleteRate)))
        )
      ],
      { concurrency: "unbounded", discard: true }
    )

    // ---- the run

    yield* Effect.forkScoped(driverPods.run)
    for (const node of nodes) yield* Effect.forkScoped(Effect.forever(read(node)))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(GARBAGE_MILLIS), collectGarbage)))
    for (const workload of workloads) yield* pods.run(workload)

    history.note("faults begin")
    yield* Effect.timeoutOption(chaos, hours * HOUR)

    history.note("faults end")
    for (const { faults, kubelet, lives } of nodes) {
      faults.active = false
      faults.throttling.clear()
      lives.spare()
      kubelet.calm()
    }
    pods.calm(workloads)
    yield* control.setLatencyMillis(0)
    yield* Effect.sleep(PUBLISHED_WITHIN_MILLIS)
    const withinMillis = PUBLISHED_WITHIN_MILLIS
    const unpublished = current().filter(({ state }) => state !== "Published")
    referee.check(Invariants.everyVolumeIsPublished, { left: unpublished, withinMillis })
    referee.check(ClusterInvariants.everyPodRuns, { running: pods.running, wanted: notes.pods, withinMillis })
    referee.check(ClusterInvariants.driversFollow, {
      wanted: wanted(),
      found: driverPods.settings(),
      nodes: nodes.length
    })
    for (const node of nodes) for (const volume of node.volumes()) node.kubelet.checkPodStatus(volume, true)

    const checkEach = (
      invariant: typeof Invariants.askedForArrives,
      isDue: (volume: SimulatedVolume) => boolean,
      withinMillis: number
    ) => {
      for (const node of nodes) {
        for (const volume of node.volumes().filter(isDue)) {
          referee.check(invariant, { volume, view: node.witness.look(volume), withinMillis })
        }
      }
    }
    const { rotationPollIntervalMillis } = wanted()
    if (wanted().rotationEnabled) {
      // A volume becomes due just after a republish; the provider and the disk take their time.
      const newestWithinMillis = rotationPollIntervalMillis + REPUBLISH_MILLIS_MAX + MINUTE / 2
      renewAll()
      history.note("new generations")
      yield* Effect.sleep(newestWithinMillis)
      checkEach(Invariants.newestGenerationArrives, ({ isPinned }) => !isPinned, newestWithinMillis)
      yield* Effect.sleep(SYNCED_WITHIN_MILLIS)
      const secrets = witness.secrets()
      for (const it of classes.values()) {
        const isWanted = current().some((volume) => volume.class === it && !volume.isPinned)
        if (it.isSynced && isWanted) {
          referee.check(Invariants.secretFollows, { class: it, secrets, withinMillis: SYNCED_WITHIN_MILLIS })
        }
      }
      renewAll()
      history.note("new generations, which are asked for")
      for (const pod of new Map(current().map((volume) => [volume.pod.uid, volume.pod])).values()) {
        yield* firstNode.kubelet.askForRefresh(pod, "at the end")
      }
      yield* Effect.sleep(ASKED_WITHIN_MILLIS)
      checkEach(Invariants.askedForArrives, () => true, ASKED_WITHIN_MILLIS)
    }

    history.note("quiet, after the drivers of all nodes are killed")
    for (const { lives } of nodes) yield* lives.kill
    const [apiWrites, fileWrites] = [history.figure("API writes"), history.figure("file writes")]
    const callsBefore = nodes.flatMap((node) =>
      node.volumes().map((volume) => ({ node, volume, before: node.backend.calls(volume.targetPath).length }))
    )
    yield* Effect.sleep(RESTARTED_WITHIN_MILLIS)
    for (const { lives, name } of nodes) {
      const deadlineMillis = (yield* Clock.currentTimeMillis) + 1_000
      const answer = yield* lives.call("Probe", {}, { deadlineMillis }).pipe(
        Effect.map(({ ready }) => (ready ? "ready" : "not ready")),
        Effect.catch(({ details }) => Effect.succeed(details))
      )
      const withinMillis = RESTARTED_WITHIN_MILLIS
      referee.check(ClusterInvariants.restartedDriverServes, { node: name, answer, withinMillis })
    }
    yield* Effect.sleep(QUIET_MILLIS)
    referee.check(Invariants.quietMeansNoWrites, {
      quietMillis: QUIET_MILLIS + RESTARTED_WITHIN_MILLIS,
      apiWrites: history.figure("API writes") - apiWrites,
      fileWrites: history.figure("file writes") - fileWrites
    })
    for (const { before, node, volume } of callsBefore) {
      const callsMax = wanted().rotationEnabled
        ? 1 + Math.ceil((QUIET_MILLIS + RESTARTED_WITHIN_MILLIS) / rotationPollIntervalMillis)
        : 0
      referee.check(Invariants.providersAreSpared, {
        volume,
        calls: node.backend.calls(volume.targetPath).length - before,
        callsMax
      })
      referee.check(Invariants.whatIsReachedStays, { volume, view: node.witness.look(volume) })
    }

    history.note("the end of all pods")
    pods.end()
    for (const { kubelet } of nodes) kubelet.end()
    yield* Effect.sleep(UNPUBLISHED_WITHIN_MILLIS)
    const left = current()
    referee.check(Invariants.unpublishNeedsNobody, { left, withinMillis: UNPUBLISHED_WITHIN_MILLIS })
    yield* Effect.sleep(GONE_WITHIN_MILLIS)
    referee.check(Invariants.nothingIsLeft, {
      mounts: nodes.flatMap((node) => node.witness.mounts()),
      entries: nodes.flatMap((node) => node.witness.entries()),
      statuses: witness.statuses(),
      secrets: witness.secrets()
    })
    for (const { lives } of nodes) {
      const table = lives.table()
      if (table === undefined) continue
      referee.check(Invariants.nothingIsRemembered, { remembered: table.all().length, busy: table.busy() })
    }
    history.note("done")
  }).pipe(Effect.scoped)

const summaryOf = ({ nodes, pods, workloads }: Notes, history: History): RunResult["summary"] => {
  const counted = (name: string, figure = name) => `${history.figure(figure)} ${name}`
  return [
    [
      "cluster",
      `${nodes} nodes, ${pods} pods at a time of ${workloads} workloads, ${counted("pods")}, ${counted("new generations", "generations")}, ${counted("reads")}, ${counted("drains")}`
    ],
    ["publish", listed(history.figuresOf("publish "))],
    ["unpublish", listed(history.figuresOf("unpublish "))],
    ["drivers", `${counted("pods", "driver pods")}, ${counted("kills")}, ${counted("stops")}`]
  ]
}

/**
 * Runs one simulation. Calm and end take about half an hour of virtual time more than `hours`.
 *
 * @shape  (options) -> RunResult
 * @units  hours of virtual time
 * @errors none: a broken promise is a violation in the result; a defect of the simulation itself is thrown
 */
export const run = (options: ClusterSimulationOptions): RunResult => {
  const notes: Notes = { plan: undefined, nodes: 0, workloads: 0, pods: 0 }
  const result = runOnce(options, (judges) => program(options, notes, judges))
  return { ...result, rates: notes.plan, summary: summaryOf(notes, result.history) }
}

/** Several nodes, whose drivers live through everything that is drawn, and pods that move between them. */
export const scenario: Scenario = {
  name: "cluster",
  description: "several nodes with their drivers, kubelets and providers, one API server, and pods that move",
  run
}
