/**
 * A cluster in memory: one to five nodes, each with the whole, unchanged driver, a kubelet, a disk and providers; the
 * whole, unchanged operator, alone or beside another one, which installs the driver; one API server; workloads whose pods
 * come, move and go; and everything that goes wrong between them. One seed decides all of it.
 *
 * A run has four parts: faults, while what must always be true is checked at every step; calm, in which what must become
 * true is waited for; quiet, in which nothing is written; and the removal of the driver, which waits for all volumes.
 */
import { Clock, Context, Effect, Scope } from "effect"
import { FORCE_REFRESH_KEY } from "../../schemas/ForceRefresh.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "./KubernetesObject.ts"
import { MemoryKubernetes, make as makeKubernetes } from "./MemoryKubernetes.ts"
import { Administrator } from "./simulation/Administrator.ts"
import { apiChaos, driverReach, operatorReach } from "./simulation/ApiChaos.ts"
import { type Chance, every, make as makeChance } from "./simulation/Chance.ts"
import { classLane, classObject, classPath, drawClasses, FLAWS, type Flaw, NAMESPACES } from "./simulation/Classes.ts"
import * as ClusterInvariants from "./simulation/ClusterInvariants.ts"
import { diskTroubles } from "./simulation/DiskFaults.ts"
import { DriverPods } from "./simulation/DriverPods.ts"
import type { DriverSettings } from "./simulation/DriverSettings.ts"
import { drawPlan, type FaultPlan } from "./simulation/Faults.ts"
import type { History } from "./simulation/History.ts"
import * as Invariants from "./simulation/Invariants.ts"
import { BACKOFF_MILLIS_MAX, REPUBLISH_MILLIS_MAX } from "./simulation/Kubelet.ts"
import type * as Lives from "./simulation/Lives.ts"
import { drawRates, OperatorFaults, type OperatorRates } from "./simulation/OperatorFaults.ts"
import * as OperatorInvariants from "./simulation/OperatorInvariants.ts"
import * as OperatorLives from "./simulation/OperatorLives.ts"
import { FINALIZER, NAMESPACE, OperatorWitness } from "./simulation/OperatorWitness.ts"
import { providerTroubles } from "./simulation/ProviderFaults.ts"
import { HOUR, type Judges, listed, MINUTE, run as runOnce } from "./simulation/Run.ts"
import type { Rates, RunOptions, RunResult, Scenario } from "./simulation/Scenario.ts"
import * as SimulatedNode from "./simulation/SimulatedNode.ts"
import { Strangers } from "./simulation/Strangers.ts"
import { timeTroubles } from "./simulation/TimeFaults.ts"
import type { TokenSettings } from "./simulation/Tokens.ts"
import { ALWAYS, type SimulatedClass, type SimulatedVolume } from "./simulation/Volume.ts"
import { draw as drawWorkloads, Workloads } from "./simulation/Workloads.ts"

export interface ClusterSimulationOptions extends RunOptions {
  /** One to five are drawn when absent. */
  readonly nodes?: number
  /** How many pods there are per node at most. */
  readonly podsPerNode?: number
  /** Puts something between a node's driver and its world: a mistake that has to be found. */
  readonly plant?: SimulatedNode.Shared["plant"]
  /** The same between an operator and its world. */
  readonly operatorPlant?: OperatorLives.OperatorPlant
}

const NODES_MAX = 5
const PODS_PER_NODE = 4
const PUBLISHED_WITHIN_MILLIS = 2 * BACKOFF_MILLIS_MAX + 2 * MINUTE
const SYNCED_WITHIN_MILLIS = 5_000
/** Outages, drivers that die, and back-offs, one after the other. */
const OWNED_WITHIN_MILLIS = 10 * MINUTE
/** What was on its way to a watch when faults ended arrives so late. */
const LAG_MILLIS_MAX = 2 * MINUTE
const ASKED_WITHIN_MILLIS = 10_000
const RESTARTED_WITHIN_MILLIS = 10_000
/** The Lease of an operator that died, its successor's turn to look, a rollout on every node, and its back-off. */
const REST_WITHIN_MILLIS = 20 * MINUTE
const LOOK_MILLIS = 5_000
const SETTLED_MILLIS = 2 * MINUTE
/** Pods are looked for once a minute at least. */
const REMOVED_WITHIN_MILLIS = 3 * MINUTE
const QUIET_MILLIS = 10 * MINUTE
const UNPUBLISHED_WITHIN_MILLIS = 2 * MINUTE
const GONE_WITHIN_MILLIS = MINUTE
const READER_MILLIS_MAX = 10_000
const GARBAGE_MILLIS = 30_000
const API_LANE = "API server"
const PEOPLE_LANE = "pods and people"

/** Besides what goes wrong on each node. */
type ClusterPlan = FaultPlan & {
  readonly drainEveryMillis: number
  readonly scaleEveryMillis: number
  readonly deleteEveryMillis: number
  /** A node is gone, without a word, and another one comes. */
  readonly nodeLostEveryMillis: number
  /** An autoscaler changes the number of pods again and again. */
  readonly flapEveryMillis: number
  /** The administrator changes a setting, or whether there is a driver at all. */
  readonly administratorEveryMillis: number
}

/** As the rates of a run are named; those of operators are told apart from those of nodes. */
const OPERATOR_PREFIX = "operator."

const drawClusterPlan = (chance: Chance): ClusterPlan => {
  const interval = (longest: number) => (chance.happens(0.3) ? 0 : chance.between(longest / 8, longest))
  return {
    ...drawPlan(chance),
    drainEveryMillis: interval(60 * MINUTE),
    scaleEveryMillis: interval(20 * MINUTE),
    deleteEveryMillis: interval(20 * MINUTE),
    nodeLostEveryMillis: interval(60 * MINUTE),
    flapEveryMillis: interval(30 * MINUTE),
    administratorEveryMillis: interval(20 * MINUTE)
  }
}

interface Plans {
  readonly nodes: ClusterPlan
  readonly operators: OperatorRates
}

const ratesOf = ({ nodes, operators }: Plans): Rates => ({
  ...nodes,
  ...Object.fromEntries(Object.entries(operators).map(([name, rate]) => [`${OPERATOR_PREFIX}${name}`, rate]))
})

const drawPlans = (chance: Chance, change: RunOptions["rates"]): Plans => {
  const drawn = { nodes: drawClusterPlan(chance), operators: drawRates(chance) }
  if (change === undefined) return drawn
  const changed = change(ratesOf(drawn))
  const operators = Object.entries(changed).flatMap(([name, rate]) =>
    name.startsWith(OPERATOR_PREFIX) ? [[name.slice(OPERATOR_PREFIX.length), rate]] : []
  )
  return {
    nodes: { ...drawn.nodes, ...changed },
    operators: { ...drawn.operators, ...Object.fromEntries(operators) }
  }
}

// ---- what the administrator wants

const storeOf = (clusterCsiDriver: JsonObject | undefined): JsonObject =>
  objectAt(objectAt(objectAt(clusterCsiDriver ?? {}, "spec"), "driverConfig"), "secretsStore")

/** @shape (ClusterCSIDriver) -> what it asks of rotation */
const wantedOf = (clusterCsiDriver: JsonObject | undefined): DriverSettings => {
  const { custom, type } = objectAt(storeOf(clusterCsiDriver), "secretRotation")
  const seconds = type === "Custom" && isObject(custom) ? Number(custom["minimumRefreshAge"]) : 120
  return { rotationEnabled: type !== "None", rotationPollIntervalMillis: (type === "None" ? 120 : seconds) * 1_000 }
}

const drawRotation = (chance: Chance): JsonObject =>
  chance.happens(0.3)
    ? { type: "None", custom: null }
    : { type: "Custom", custom: { minimumRefreshAge: 60 * (1 + chance.below(4)) } }

const storeConfig = (secretsStore: JsonObject): JsonObject => ({
  spec: { driverConfig: { driverType: "SecretsStore", secretsStore } }
})

/** @shape (CSIDriver) -> the tokens that kubelets send because of it */
const tokensOf = (csiDriver: JsonObject): TokenSettings => ({
  audiences: listAt(objectAt(csiDriver, "spec"), "tokenRequests").flatMap((request) =>
    isObject(request) ? [textAt(request, "audience") ?? ""] : []
  ),
  inSecrets: objectAt(csiDriver, "spec")["serviceAccountTokenInSecrets"] === true
})

/** What a run keeps outside of its program, so that it is there however the run ends. */
interface Notes {
  plans: Plans | undefined
  operators: number
  nodes: number
  workloads: number
  pods: number
}

const program = (options: ClusterSimulationOptions, notes: Notes, { history, referee, setClock }: Judges) =>
  Effect.gen(function* () {
    setClock(yield* Clock.Clock)
    const { hours, operatorPlant, plant = (ports: Lives.Ports) => ports, rates } = options
    const { podsPerNode = PODS_PER_NODE } = options
    const chance = yield* makeChance
    const plans = drawPlans(chance, rates)
    const plan = plans.nodes
    notes.plans = plans
    const nodeCount = options.nodes ?? 1 + chance.below(NODES_MAX)
    notes.nodes = nodeCount
    const operators = chance.happens(0.6) ? ["a", "b"] : ["a"]
    notes.operators = operators.length

    // ---- the world

    const kubernetesContext = yield* makeKubernetes()
    const server = Context.get(kubernetesContext, KubernetesApi)
    const control = Context.get(kubernetesContext, MemoryKubernetes)
    const clock = yield* Clock.Clock
    const context = yield* Effect.context<never>()
    const operatorWitness = new OperatorWitness({ control, clock, referee, history, context })
    operatorWitness.refresh()
    const api = operatorWitness.forOthers(server, "others")
    const classes = drawClasses(chance, plan.oddClassesRate)
    const create = (path: string, body: unknown) => Effect.orDie(api.request({ method: "POST", path, body }))
    for (const it of classes.values()) yield* create(classPath(it.namespace), classObject(it))

    const volumes = new Map<string, SimulatedVolume>()
    const podObjects = new Set<string>()
    const csiDriver = () => {
      const found = operatorWitness.csiDriver
      return found === undefined
        ? undefined
        : { requiresRepublish: objectAt(found, "spec")["requiresRepublish"] === true, tokens: tokensOf(found) }
    }
    const nodes: Array<SimulatedNode.SimulatedNode> = []
    const spoilt = new Set<string>()
    const upstreamsSecrets = new Set<string>()
    const strangers = new Strangers({
      ...{ api, classes, volumes, spoilt, chance },
      note: (site) => nodes[0]?.faults.note(site),
      collectGarbage: Effect.suspend(() => collectGarbage)
    })
    const driverPods = new DriverPods({ namespace: NAMESPACE, api, control, nodes: () => nodes, history, referee })
    const shared = {
      ...{ api: server, control, classes, volumes, podObjects, spoilt, strangers, csiDriver, plant, chance, history },
      upstreamsSecrets,
      referee
    }
    let made = 0
    const makeNode = Effect.suspend(() => {
      made += 1
      const name = `node-${made}`
      return SimulatedNode.make({ name, plan, config: () => driverPods.config(name) }, shared)
    })
    for (let index = 1; index <= nodeCount; index++) nodes.push(yield* makeNode)
    const current = () => nodes.flatMap((node) => node.volumes())
    const [firstNode] = nodes
    if (firstNode === undefined) return yield* Effect.die(new Error("a cluster has a node"))
    /** Where it does not matter which one looks. */
    const witness = firstNode.witness

    const workloads = drawWorkloads(classes, nodeCount * podsPerNode, nodeCount, chance)
    notes.workloads = workloads.length
    notes.pods = workloads.reduce((sum, { replicasMax }) => sum + replicasMax, 0)
    const pods = new Workloads({
      api: operatorWitness.forOthers(server, "control plane"),
      nodes,
      podObjects,
      volumes,
      chance,
      history,
      lostForGood: (lost, withinMillis) => {
        referee.check(ClusterInvariants.lostNodeLeavesNothing, {
          volumes: lost,
          // What somebody holds back goes when he lets go of it.
          statuses: witness.statuses().filter(({ name }) => !strangers.holds(name)),
          withinMillis
        })
      }
    })

    const noPatience = ({ faults }: SimulatedNode.SimulatedNode) =>
      faults.whenDiskHangs((targetPath) => pods.deletePodOf(targetPath))
    for (const node of nodes) noPatience(node)

    const operatorFaults = new OperatorFaults(plans.operators, chance, history)
    const administrator = new Administrator({
      ...{ control, clock, chance },
      api: operatorWitness.forOthers(server, "administrator"),
      witness: operatorWitness,
      faults: operatorFaults
    })
    /** What is on its way does not stand still with the process that has sent it. */
    const network = KubernetesApi.of({
      ...server,
      request: (request) => Effect.provideService(server.request(request), Clock.Clock, clock)
    })
    const operatorLives = yield* OperatorLives.make({
      ...{ chance, history, referee },
      api: network,
      witness: operatorWitness,
      faults: operatorFaults,
      neighbours: administrator,
      ...(operatorPlant === undefined ? {} : { plant: operatorPlant })
    })
    yield* administrator.prepare
    operatorWitness.refresh()
    const wanted = () => wantedOf(operatorWitness.clusterCsiDriver)

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

    let isChaos = true
    let chaosEndedMillis = 0
    const collectGarbage = Effect.gen(function* () {
      const deleted = yield* control.collectGarbage
      const now = yield* Clock.currentTimeMillis
      // A new user's owner may come late, and the Secret is made anew then; it is late no longer than what it waits for.
      const isLate = isChaos || now - chaosEndedMillis < LAG_MILLIS_MAX
      const ownedWithinMillis = isLate ? OWNED_WITHIN_MILLIS : SYNCED_WITHIN_MILLIS
      if (deleted.length > 0) operatorWitness.refresh()
      for (const name of deleted) {
        history.note(`garbage ${name}`, API_LANE)
        const [kind, secret = ""] = name.split(" ")
        if (kind !== "secrets" || (isChaos && upstreamsSecrets.has(secret))) continue
        const users = witness.usersOf(secret).filter(({ publishedMillis }) => now - publishedMillis > ownedWithinMillis)
        referee.check(ClusterInvariants.collectedSecretIsUnused, { name: secret, users })
      }
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
      firstNode.faults.note(`SecretProviderClass ${flaw}`)
      yield* replaceClass(it, flaw)
      yield* Effect.sleep(chance.between(0, 5 * MINUTE)).pipe(Effect.ensuring(replaceClass(it)))
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

    const scope = yield* Effect.scope
    const addNode = Effect.gen(function* () {
      const node = yield* makeNode
      noPatience(node)
      history.note(`${node.name} comes`, PEOPLE_LANE)
      nodes.push(node)
      yield* Effect.forkIn(Effect.forever(read(node)), scope)
    }).pipe(Effect.provideService(Scope.Scope, scope))
    const loseNode = Effect.gen(function* () {
      if (nodes.length < 2) return
      const node = chance.oneOf(nodes)
      history.note(`${node.name} is lost`, PEOPLE_LANE)
      nodes.splice(nodes.indexOf(node), 1)
      pods.lose(node)
      yield* node.lose
      yield* driverPods.lose(node)
      yield* Effect.sleep(chance.between(0, 10 * MINUTE)).pipe(Effect.ensuring(addNode))
    })

    const stop = Effect.suspend(() => {
      const node = chance.oneOf(nodes)
      node.faults.note("SIGTERM")
      return node.lives.stop
    })

    const manage = (managementState: string) => {
      history.note(`the driver is to be ${managementState}`, PEOPLE_LANE)
      return administrator.patchClusterCsiDriver({ spec: { managementState } })
    }
    const administrate = Effect.suspend(() => {
      switch (chance.below(5)) {
        case 0:
        case 1:
          return administrator.patchClusterCsiDriver(storeConfig({ secretRotation: drawRotation(chance) }))
        case 2: {
          const audiences = ["vault", "azure"].filter(() => chance.happens(0.5)).map((audience) => ({ audience }))
          const tokenRequests = chance.happens(0.5)
            ? { type: "Unmanaged", managed: null }
            : { type: "Managed", managed: { audiences } }
          return administrator.patchClusterCsiDriver(storeConfig({ tokenRequests }))
        }
        case 3:
          return administrator.patchClusterCsiDriver({
            spec: { logLevel: chance.oneOf(["Normal", "Debug", "Trace"]) }
          })
        default:
          return Effect.andThen(
            manage(chance.oneOf(["Unmanaged", "Removed"])),
            Effect.ensuring(Effect.sleep(chance.between(0, 10 * MINUTE)), manage("Managed"))
          )
      }
    })
    const upgrade = Effect.gen(function* () {
      operatorLives.release = chance.oneOf(OperatorLives.VERSIONS)
      operatorFaults.note(`release ${operatorLives.release.version}`)
      yield* operatorLives.stop()
    })
    const operatorChaos = [
      operatorFaults.every(
        "stopEveryMillis",
        Effect.suspend(() => operatorLives.stop(chance.oneOf(operators)))
      ),
      operatorFaults.every(
        "pauseEveryMillis",
        Effect.suspend(() => operatorLives.pause(chance.oneOf(operators), chance.between(0, 6 * MINUTE)))
      ),
      operatorFaults.every("upgradeEveryMillis", upgrade),
      ...apiChaos({
        ...{ control, chance, history },
        rates: { ...plans.operators, definitionEveryMillis: 0 },
        reach: operatorReach([]),
        clients: [operatorFaults],
        note: (site) => operatorFaults.note(site)
      }),
      operatorFaults.every("discoveryEveryMillis", administrator.loseDiscovery),
      operatorFaults.every("deniedEveryMillis", administrator.deny),
      every(chance, plan.administratorEveryMillis, administrate)
    ]

    const perNode = (meanMillis: number) => meanMillis / nodeCount
    const chaos = Effect.all(
      [
        ...operatorChaos,
        every(chance, perNode(plan.stopEveryMillis), stop),
        every(
          chance,
          perNode(plan.rebootEveryMillis),
          Effect.suspend(() => chance.oneOf(nodes).reboot)
        ),
        every(
          chance,
          perNode(plan.kubeletRestartEveryMillis),
          Effect.suspend(() => chance.oneOf(nodes).kubelet.restart)
        ),
        ...providerTroubles({ nodes, rates: plan, classes, chance, history }),
        ...diskTroubles({ nodes, rates: plan, chance, context }),
        ...timeTroubles({ nodes, rates: plan, chance, history }),
        every(chance, perNode(5 * MINUTE), ask),
        ...apiChaos({
          ...{ control, chance, history },
          rates: plan,
          reach: driverReach(NAMESPACES),
          clients: nodes.map(({ faults }) => faults),
          note: (site) => firstNode.faults.note(site),
          empty: strangers.empty
        }),
        every(chance, plan.classRemadeEveryMillis, strangers.remakeClass),
        every(chance, plan.secretTouchedEveryMillis, strangers.editSecret),
        every(chance, plan.statusTouchedEveryMillis, strangers.editStatus),
        every(chance, plan.classBrokenEveryMillis, classBroken),
        every(chance, plan.apiLatencyMillisMax > 0 ? MINUTE : 0, latency),
        every(chance, (chance.between(1, 15) * MINUTE) / classes.size, rotate),
        every(chance, plan.drainEveryMillis, drain),
        every(
          chance,
          perNode(plan.scaleEveryMillis),
          Effect.sync(() => pods.scale(chance.oneOf(workloads)))
        ),
        every(chance, plan.nodeLostEveryMillis, loseNode),
        every(
          chance,
          plan.flapEveryMillis,
          Effect.suspend(() => {
            firstNode.faults.note("replicas flap")
            return pods.flap(chance.oneOf(workloads))
          })
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
    for (const name of operators) yield* Effect.forkScoped(operatorLives.supervise(name))
    yield* administrator.createClusterCsiDriver({
      managementState: "Managed",
      driverConfig: { driverType: "SecretsStore", secretsStore: { secretRotation: drawRotation(chance) } }
    })
    for (const node of nodes) yield* Effect.forkScoped(Effect.forever(read(node)))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(GARBAGE_MILLIS), collectGarbage)))
    for (const workload of workloads) yield* pods.run(workload)

    history.note("faults begin")
    yield* Effect.timeoutOption(chaos, hours * HOUR)

    history.note("faults end")
    isChaos = false
    chaosEndedMillis = yield* Clock.currentTimeMillis
    for (const { faults, kubelet, lives } of nodes) {
      faults.active = false
      lives.spare()
      kubelet.calm()
    }
    pods.calm(workloads)
    yield* control.setLatencyMillis(0)
    for (const it of classes.values()) yield* strangers.restore(it)
    yield* strangers.letAllGo
    operatorFaults.end()
    operatorLives.spare()
    yield* administrator.serve(administrator.isOpenShift)
    yield* manage("Managed")

    const restless = () => {
      const conditions = operatorWitness.conditions()
      const expected = { Available: "True AsExpected", Progressing: "False AsExpected", Degraded: "False AsExpected" }
      const wrong = Object.entries(expected).filter(([type, value]) => conditions.get(type) !== value)
      return wrong.length > 0
        ? wrong.map(([type]) => `${type} ${conditions.get(type) ?? "absent"}`).join(", ")
        : ClusterInvariants.driversFollow.broken({
            wanted: wanted(),
            found: driverPods.settings(),
            nodes: nodes.length
          })
    }
    let why = restless()
    for (let waited = 0; why !== undefined && waited < REST_WITHIN_MILLIS; waited += LOOK_MILLIS) {
      yield* Effect.sleep(LOOK_MILLIS)
      why = restless()
    }
    referee.check(OperatorInvariants.comesToRest, { why, withinMillis: REST_WITHIN_MILLIS })
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
    for (const node of nodes) node.kubelet.checkPodStatuses(node.volumes())

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
    // Who restarts is not ready for a moment, and the operator says so.
    yield* Effect.sleep(SETTLED_MILLIS)
    const operatorWrites = operatorWitness.writes
    yield* operatorLives.kill()
    yield* Effect.sleep(QUIET_MILLIS)
    const quietMillis = RESTARTED_WITHIN_MILLIS + SETTLED_MILLIS + QUIET_MILLIS
    referee.check(OperatorInvariants.quietMeansNoWrites, {
      writes: operatorWitness.writes - operatorWrites,
      quietMillis: QUIET_MILLIS
    })
    referee.check(Invariants.quietMeansNoWrites, {
      quietMillis,
      apiWrites: history.figure("API writes") - apiWrites,
      fileWrites: history.figure("file writes") - fileWrites
    })
    for (const { before, node, volume } of callsBefore) {
      const callsMax = wanted().rotationEnabled ? 1 + Math.ceil(quietMillis / rotationPollIntervalMillis) : 0
      referee.check(Invariants.providersAreSpared, {
        volume,
        calls: node.backend.calls(volume.targetPath).length - before,
        callsMax
      })
      referee.check(Invariants.whatIsReachedStays, { volume, view: node.witness.look(volume) })
    }

    history.note("removal, which waits for pods")
    driverPods.isRemoval = true
    yield* manage("Removed")
    yield* Effect.sleep(SETTLED_MILLIS)
    referee.check(OperatorInvariants.removalWaits, {
      progressing: operatorWitness.conditions().get("Progressing") ?? "absent",
      hasDaemonSet: operatorWitness.daemonSet !== undefined
    })
    history.note("the end of all pods")
    pods.end()
    for (const { kubelet } of nodes) kubelet.end()
    yield* Effect.sleep(UNPUBLISHED_WITHIN_MILLIS)
    const left = current()
    referee.check(Invariants.unpublishNeedsNobody, { left, withinMillis: UNPUBLISHED_WITHIN_MILLIS })
    yield* pods.removeOwners
    yield* Effect.sleep(GONE_WITHIN_MILLIS)
    referee.check(Invariants.nothingIsLeft, {
      mounts: nodes.flatMap((node) => node.witness.mounts()),
      entries: nodes.flatMap((node) => node.witness.entries()),
      statuses: witness.statuses(),
      secrets: witness.ownSecrets()
    })
    yield* Effect.sleep(REMOVED_WITHIN_MILLIS)
    referee.check(OperatorInvariants.nothingIsLeft, {
      left: [...operatorWitness.operandLeft(), ...operatorWitness.driverPods()],
      hasFinalizer: listAt(metadataOf(operatorWitness.clusterCsiDriver ?? {}), "finalizers").includes(FINALIZER),
      withinMillis: REMOVED_WITHIN_MILLIS
    })
    referee.check(OperatorInvariants.canariesLive, { lost: yield* administrator.lostCanaries })
    history.note("done")
  }).pipe(Effect.scoped)

const summaryOf = ({ nodes, operators, pods, workloads }: Notes, history: History): RunResult["summary"] => {
  const counted = (name: string, figure = name) => `${history.figure(figure)} ${name}`
  return [
    [
      "cluster",
      `${nodes} nodes, ${pods} pods at a time of ${workloads} workloads, ${counted("pods")}, ${counted("new generations", "generations")}, ${counted("reads")}, ${counted("drains")}`
    ],
    ["publish", listed(history.figuresOf("publish "))],
    ["unpublish", listed(history.figuresOf("unpublish "))],
    ["operators", `${operators}, ${counted("terms lost")}, ${counted("rollouts")}`],
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
  const notes: Notes = { plans: undefined, operators: 0, nodes: 0, workloads: 0, pods: 0 }
  const result = runOnce(options, (judges) => program(options, notes, judges))
  return {
    ...result,
    rates: notes.plans === undefined ? undefined : ratesOf(notes.plans),
    summary: summaryOf(notes, result.history)
  }
}

/** Several nodes, whose drivers live through everything that is drawn, and pods that move between them. */
export const scenario: Scenario = {
  name: "cluster",
  description: "several nodes with their drivers, kubelets and providers, one API server, and pods that move",
  run
}
