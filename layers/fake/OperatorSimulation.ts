/**
 * A cluster in memory on which the whole, unchanged operator lives, dies and lives again, alone or beside another one,
 * with a control plane, an administrator, others who write what is not theirs, and everything that goes wrong between
 * them. One seed decides all of it.
 *
 * A run has four parts: faults, while what must always be true is checked at every write; calm, in which the cluster
 * has to become what an undisturbed one becomes; quiet, in which nothing is written; and the removal, after which
 * nothing is left.
 */
import { Clock, Context, Effect } from "effect"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt, without } from "./KubernetesObject.ts"
import { MemoryKubernetes, make as makeKubernetes } from "./MemoryKubernetes.ts"
import { Administrator, pathOf } from "./simulation/Administrator.ts"
import { apiChaos, operatorReach } from "./simulation/ApiChaos.ts"
import { type Chance, make as makeChance } from "./simulation/Chance.ts"
import { History } from "./simulation/History.ts"
import * as Old from "./simulation/OldOperator.ts"
import { CONSUMER_NAMESPACES, OperatorControlPlane } from "./simulation/OperatorControlPlane.ts"
import { drawRates, NO_RATES, OperatorFaults, type OperatorRates } from "./simulation/OperatorFaults.ts"
import * as Invariants from "./simulation/OperatorInvariants.ts"
import * as OperatorLives from "./simulation/OperatorLives.ts"
import { FINALIZER, NAMESPACE, OPERAND, OperatorWitness } from "./simulation/OperatorWitness.ts"
import type { Referee } from "./simulation/Referee.ts"
import * as Run from "./simulation/Run.ts"
import type { RunOptions, RunResult, Scenario } from "./simulation/Scenario.ts"

const { HOUR, MINUTE } = Run
const LOOK_MILLIS = 5_000
/** The Lease of a process that died, the next one's turn to look, a rollout, and a minute's back-off. */
const REST_WITHIN_MILLIS = 20 * MINUTE
const RESTFUL_MILLIS = 20_000
const RESYNC_MILLIS = 65_000
/** From a look to the last write that comes of it. */
const ACTED_MILLIS = 4_000
const QUIET_MILLIS = 10 * MINUTE
/** Until a successor of a process that was killed leads, on a cluster of one node. */
const TURN_MILLIS = 8 * MINUTE
const STUCK_MILLIS = 15 * MINUTE
const SEEN_MILLIS = 3 * MINUTE
/** Pods are looked for once a minute at least. */
const GONE_WITHIN_MILLIS = 3 * MINUTE
const RELEASES = OperatorLives.VERSIONS

export interface OperatorSimulationOptions extends RunOptions {
  readonly plant?: OperatorLives.OperatorPlant
}

// ---- what is compared

const SERVER_METADATA = ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"]
const STABLE = "storage.openshift.io/stable-generation"
/** Counted by the API server, in words of old. */
const COUNT = "deprecated.daemonset.template.generation"
/** An object that was taken over from Helm keeps what Helm has noted at it. */
const OF_OTHERS = ["others/", "meta.helm.sh/"]
const RESTARTED = "kubectl.kubernetes.io/restartedAt"
const REMEMBERED = "secrets-store.csi.k8s.io/remembered-token-requests"

/** Without what differs from run to run, or is somebody else's. */
const plainTexts = (texts: JsonObject): JsonObject =>
  Object.fromEntries(
    Object.entries(texts)
      .filter(([key]) => !OF_OTHERS.some((prefix) => key.startsWith(prefix)) && key !== RESTARTED && key !== COUNT)
      .map(([key, value]) => [key, key === STABLE ? "a generation" : value])
  )

const plainMetadata = (object: JsonObject): JsonObject => {
  const metadata = metadataOf(object)
  return {
    ...without(metadata, ...SERVER_METADATA),
    labels: plainTexts(objectAt(metadata, "labels")),
    annotations: plainTexts(objectAt(metadata, "annotations"))
  }
}

const plainOperand = (object: JsonObject): JsonObject => {
  const plain = { ...without(object, "status"), metadata: plainMetadata(object) }
  if (object["kind"] !== "DaemonSet") return plain
  const spec = objectAt(object, "spec")
  const template = objectAt(spec, "template")
  return { ...plain, spec: { ...spec, template: { ...template, metadata: plainMetadata(template) } } }
}

const plainClusterCsiDriver = (it: JsonObject): JsonObject => {
  const status = objectAt(it, "status")
  const annotations = objectAt(metadataOf(it), "annotations")
  const text = textAt(annotations, REMEMBERED)
  const parsed: unknown = text === undefined ? {} : JSON.parse(text)
  const conditions = listAt(status, "conditions").filter(isObject)
  return {
    spec: it["spec"],
    finalizers: metadataOf(it)["finalizers"],
    annotations: without(annotations, REMEMBERED),
    remembered: without(isObject(parsed) ? parsed : {}, "uid"),
    version: status["version"],
    readyReplicas: status["readyReplicas"],
    conditions: Object.fromEntries(
      conditions.map((condition) => [String(condition["type"]), without(condition, "lastTransitionTime")])
    )
  }
}

const pictureOf = (witness: OperatorWitness): JsonObject => {
  const operands = OPERAND.flatMap(({ key, resource }) => {
    const object = witness.find(resource, key)
    return object === undefined ? [] : [[`${resource} ${key}`, plainOperand(object)] as const]
  })
  return {
    ...Object.fromEntries(operands),
    bindings: witness.syncBindings(),
    clusterCsiDriver: plainClusterCsiDriver(witness.clusterCsiDriver ?? {})
  }
}

/** Why a cluster is not at rest; undefined when it is. */
const restlessness = (
  { lives, witness }: Pick<Cluster, "lives" | "witness">,
  sinceMillis: number,
  now: number
): string | undefined => {
  const { version } = lives.release
  // What changes without a watch is seen by the next look.
  const lookedMillis = lives.lookedMillis(witness.holder)
  if (lookedMillis < sinceMillis + RESYNC_MILLIS) return "nobody leads, or has looked since then"
  // Until then the status is that of whoever led before, and may have been cut off in the middle.
  if (now - lookedMillis < ACTED_MILLIS) return "what was seen just now is not acted on yet"
  const conditions = witness.conditions()
  const wanted = { Available: "True AsExpected", Progressing: "False AsExpected", Degraded: "False AsExpected" }
  for (const [type, value] of Object.entries(wanted)) {
    const found = conditions.get(type) ?? "absent"
    if (found !== value) return `${type} is ${found}: ${messageOf(witness, type)}`
  }
  const found = textAt(objectAt(witness.clusterCsiDriver ?? {}, "status"), "version")
  if (found !== version) return `the version is ${found ?? "unknown"}, not ${version}`
  // A pod that has crashed may take its time: a complete generation is not Progressing meanwhile.
  const pods = objectAt(witness.daemonSet ?? {}, "status")
  const [ready, desired] = [pods["numberReady"] ?? 0, pods["desiredNumberScheduled"] ?? 0]
  if (ready !== desired) return `${ready} of ${desired} node pods are ready`
  const told = objectAt(witness.clusterCsiDriver ?? {}, "status")["readyReplicas"] ?? 0
  if (told !== ready) return `${ready} node pods are ready, and ${told} are told of`
  return now - witness.lastWriteMillis < RESTFUL_MILLIS ? "there was a write just now" : undefined
}

const messageOf = (witness: OperatorWitness, type: string): string => {
  const conditions = listAt(objectAt(witness.clusterCsiDriver ?? {}, "status"), "conditions").filter(isObject)
  return textAt(conditions.find((it) => it["type"] === type) ?? {}, "message") ?? ""
}

/** Looks until it is undefined, or time is over; says what it was last. */
const waitUntilNot = Effect.fnUntraced(function* (why: () => string | undefined, withinMillis: number) {
  for (let waited = 0; ; waited += LOOK_MILLIS) {
    const found = why()
    if (found === undefined || waited >= withinMillis) return found
    yield* Effect.sleep(LOOK_MILLIS)
  }
})

// ---- one cluster

interface ClusterOptions {
  readonly rates: OperatorRates
  readonly chance: Chance
  readonly clock: Clock.Clock
  readonly history: History
  readonly referee: Referee
  readonly nodes: number
  readonly plant?: OperatorLives.OperatorPlant | undefined
}

const makeCluster = Effect.fnUntraced(function* (options: ClusterOptions) {
  const { chance, clock, history, nodes, plant, rates, referee } = options
  const kubernetes = yield* makeKubernetes()
  const api = Context.get(kubernetes, KubernetesApi)
  const control = Context.get(kubernetes, MemoryKubernetes)
  const faults = new OperatorFaults(rates, chance, history)
  const context = yield* Effect.context<never>()
  const witness = new OperatorWitness({ control, clock, referee, history, context })
  const others = (who: string) => witness.forOthers(api, who)
  const controlPlane = new OperatorControlPlane({
    api: others("control plane"),
    witness,
    clock,
    chance,
    faults,
    nodes
  })
  const administrator = new Administrator({ api: others("administrator"), control, witness, clock, chance, faults })
  const lives = yield* OperatorLives.make({
    api,
    witness,
    faults,
    chance,
    history,
    referee,
    ...(plant === undefined ? {} : { plant }),
    neighbours: administrator
  })
  return { api: others("others"), control, faults, witness, controlPlane, administrator, lives }
})
type Cluster = Effect.Success<ReturnType<typeof makeCluster>>

/** Everything that is wanted of one cluster, in another one where nothing has ever gone wrong. */
const undisturbed = Effect.fnUntraced(function* (like: Cluster, options: ClusterOptions) {
  const cluster = yield* makeCluster(options)
  const { administrator, api, controlPlane, faults, lives, witness } = cluster
  faults.end()
  lives.release = like.lives.release
  yield* administrator.prepare
  yield* administrator.serve(like.administrator.isOpenShift)
  const copy = Effect.fnUntraced(function* (path: string, change: (found: JsonObject) => JsonObject) {
    const found = yield* Effect.orElseSucceed(like.api.request({ method: "GET", path }), () => undefined)
    if (!isObject(found)) return
    const { name, namespace } = metadataOf(found)
    const body = { apiVersion: found["apiVersion"], kind: found["kind"], ...change(found) }
    const metadata = { name, ...(namespace === undefined ? {} : { namespace }), ...objectAt(body, "metadata") }
    const collection = path.slice(0, path.lastIndexOf("/"))
    yield* Effect.ignore(api.request({ method: "DELETE", path }))
    yield* Effect.ignore(api.request({ method: "POST", path: collection, body: { ...body, metadata } }))
  })
  for (const name of ["proxies", "apiservers"]) {
    yield* copy(`/apis/config.openshift.io/v1/${name}/cluster`, ({ spec, status }) => ({ spec, status }))
  }
  const configMaps = pathOf("configmaps", `${NAMESPACE}/secrets-store-csi-driver-trusted-ca-bundle`)
  yield* copy(configMaps, ({ data }) => (data === undefined ? {} : { data }))
  const { csiDriver } = like.witness
  if (csiDriver !== undefined) {
    yield* copy(pathOf("csidrivers.storage.k8s.io", textAt(metadataOf(csiDriver), "name") ?? ""), ({ spec }) => ({
      spec
    }))
  }
  for (const object of like.witness.objects("secretproviderclasses.secrets-store.csi.x-k8s.io").values()) {
    const { name, namespace } = metadataOf(object)
    yield* copy(pathOf("secretproviderclasses.secrets-store.csi.x-k8s.io", `${namespace}/${name}`), ({ spec }) => ({
      spec
    }))
  }
  witness.refresh()
  yield* Effect.forkScoped(controlPlane.run)
  yield* Effect.forkScoped(lives.supervise("undisturbed"))
  const spec = objectAt(like.witness.clusterCsiDriver ?? {}, "spec")
  yield* administrator.createClusterCsiDriver(spec)
  const now = () => options.clock.currentTimeMillisUnsafe()
  const sinceMillis = now()
  const why = yield* waitUntilNot(() => restlessness(cluster, sinceMillis, now()), REST_WITHIN_MILLIS)
  options.referee.check(Invariants.comesToRest, { why, withinMillis: REST_WITHIN_MILLIS })
  yield* lives.kill()
  return pictureOf(witness)
}, Effect.scoped)

/** What a run keeps outside of its program, so that it is there however the run ends. */
interface Drawn {
  rates: OperatorRates | undefined
  operators: number
}

const program = (options: OperatorSimulationOptions, { history, referee, setClock }: Run.Judges, drawn: Drawn) =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    setClock(clock)
    const now = () => clock.currentTimeMillisUnsafe()
    const chance = yield* makeChance
    const rates = drawRates(chance, options.rates)
    drawn.rates = rates
    const names = chance.happens(0.6) ? ["a", "b"] : ["a"]
    drawn.operators = names.length
    const nodes = 2 + chance.below(3)
    const clusterOptions = { chance, clock, history, referee, nodes }
    const cluster = yield* makeCluster({ ...clusterOptions, rates, plant: options.plant })
    const { administrator, api, control, controlPlane, faults, lives, witness } = cluster

    yield* administrator.prepare
    const isTakeOver = administrator.isOpenShift && chance.happens(0.25)
    if (isTakeOver) {
      history.note("an old operator was here")
      const tokenRequests = chance.happens(0.5) ? [{ audience: "vault" }] : []
      yield* Effect.provideService(Old.leaveBehind({ certificates: false, tokenRequests }), KubernetesApi, api)
      if (chance.happens(0.5)) yield* Effect.provideService(Old.leaveStaleCondition, KubernetesApi, api)
      lives.release = RELEASES[2] ?? lives.release
    }
    witness.refresh()

    // ---- what goes on

    const upgrade = Effect.gen(function* () {
      lives.release = chance.oneOf(RELEASES)
      faults.note(`release ${lives.release.version}`)
      for (const name of names) {
        yield* Effect.sleep(chance.between(0, MINUTE))
        yield* lives.stop(name)
      }
    })
    const stop = Effect.suspend(() => {
      faults.note("SIGTERM")
      return lives.stop(chance.oneOf(names))
    })
    const pause = Effect.suspend(() => {
      faults.note("SIGSTOP")
      return lives.pause(chance.oneOf(names), chance.between(0, 6 * MINUTE))
    })
    const chaos = Effect.all(
      [
        faults.every("stopEveryMillis", stop),
        faults.every("pauseEveryMillis", pause),
        faults.every("upgradeEveryMillis", upgrade),
        ...apiChaos({
          ...{ control, chance, history, rates },
          reach: operatorReach(CONSUMER_NAMESPACES),
          clients: [faults],
          note: (site) => faults.note(site)
        }),
        faults.every("discoveryEveryMillis", administrator.loseDiscovery),
        faults.every("deniedEveryMillis", administrator.deny),
        faults.every("nodeEveryMillis", controlPlane.nodeComesOrGoes),
        faults.every("podCrashEveryMillis", controlPlane.podCrashes),
        faults.every("consumerEveryMillis", controlPlane.useVolumes),
        faults.every("foreignEveryMillis", administrator.interfere),
        faults.every("administratorEveryMillis", administrator.administrate),
        faults.every("classEveryMillis", administrator.changeClass),
        faults.every("surroundingsEveryMillis", administrator.changeSurroundings)
      ],
      { concurrency: "unbounded", discard: true }
    )

    // ---- faults

    yield* Effect.forkScoped(controlPlane.run)
    for (const name of names) yield* Effect.forkScoped(lives.supervise(name))
    yield* Effect.sleep(chance.between(0, 5_000))
    if (!isTakeOver) yield* administrator.createClusterCsiDriver(administrator.drawSpec())
    history.note("faults begin")
    yield* Effect.timeoutOption(chaos, options.hours * HOUR)

    // ---- calm

    history.note("faults end")
    faults.end()
    lives.spare()
    yield* administrator.serve(administrator.isOpenShift)
    yield* administrator.removeHelm
    yield* controlPlane.endConsumers
    yield* lives.stop()
    // One that was deleted goes first, whoever deleted it.
    const isGoing = () =>
      metadataOf(witness.clusterCsiDriver ?? {})["deletionTimestamp"] === undefined
        ? undefined
        : `the ClusterCSIDriver is not gone: ${messageOf(witness, "Progressing")}`
    const going = yield* waitUntilNot(isGoing, REST_WITHIN_MILLIS)
    referee.check(Invariants.comesToRest, { why: going, withinMillis: REST_WITHIN_MILLIS })
    if (witness.clusterCsiDriver === undefined) {
      yield* administrator.createClusterCsiDriver({ managementState: "Managed" })
    } else {
      const names = ["remove-without-waiting", "adopt-foreign-objects"]
      const annotations = Object.fromEntries(names.map((name) => [`secrets-store.csi.k8s.io/${name}`, null]))
      yield* administrator.patchClusterCsiDriver({ metadata: { annotations }, spec: { managementState: "Managed" } })
    }
    const sinceMillis = now()
    const restless = () => restlessness(cluster, sinceMillis, now())
    const why = yield* waitUntilNot(restless, REST_WITHIN_MILLIS)
    referee.check(Invariants.comesToRest, { why, withinMillis: REST_WITHIN_MILLIS })
    const status = objectAt(witness.daemonSet ?? {}, "status")
    const numberOf = (key: string) => Number(status[key] ?? 0)
    referee.check(Invariants.conditionsAreTrue, {
      conditions: witness.conditions(),
      available: numberOf("numberAvailable"),
      desired: numberOf("desiredNumberScheduled"),
      updated: numberOf("updatedNumberScheduled")
    })
    const bound = witness.syncBindings().map((key) => key.split("/")[0] ?? "")
    referee.check(Invariants.rightsFollowClasses, { bound, asking: administrator.asking() })
    history.note("the same, undisturbed")
    const picture = pictureOf(witness)
    const apart = new History(() => 0)
    const scheduled = numberOf("desiredNumberScheduled")
    const other = yield* undisturbed(cluster, {
      ...clusterOptions,
      rates: NO_RATES,
      history: apart,
      nodes: scheduled
    })
    referee.check(Invariants.sameAsUndisturbed, { picture, undisturbed: other })

    // ---- quiet

    history.note("quiet, after one more kill")
    const before = witness.writes
    yield* lives.kill()
    yield* Effect.sleep(TURN_MILLIS + QUIET_MILLIS)
    referee.check(Invariants.quietMeansNoWrites, { writes: witness.writes - before, quietMillis: QUIET_MILLIS })

    if (chance.happens(0.4)) {
      history.note("a rollout that is stuck")
      controlPlane.isBroken = true
      const level = textAt(objectAt(witness.clusterCsiDriver ?? {}, "spec"), "logLevel") === "Debug" ? "Trace" : "Debug"
      yield* administrator.patchClusterCsiDriver({ spec: { logLevel: level } })
      yield* Effect.sleep(STUCK_MILLIS + SEEN_MILLIS)
      const degraded = () => witness.conditions().get("Degraded") ?? "absent"
      referee.check(Invariants.stuckIsSaid, { degraded: degraded(), expected: "True RolloutStuck" })
      controlPlane.repair()
      yield* Effect.sleep(SEEN_MILLIS)
      referee.check(Invariants.stuckIsSaid, { degraded: degraded(), expected: "False AsExpected" })
    }

    // ---- the end

    history.note("removal")
    yield* controlPlane.startConsumer
    yield* chance.happens(0.5)
      ? administrator.deleteClusterCsiDriver
      : administrator.patchClusterCsiDriver({ spec: { managementState: "Removed" } })
    yield* Effect.sleep(2 * MINUTE)
    referee.check(Invariants.removalWaits, {
      progressing: witness.conditions().get("Progressing") ?? "absent",
      hasDaemonSet: witness.daemonSet !== undefined
    })
    yield* controlPlane.endConsumers
    yield* Effect.sleep(GONE_WITHIN_MILLIS)
    referee.check(Invariants.nothingIsLeft, {
      left: witness.operandLeft(),
      hasFinalizer: listAt(metadataOf(witness.clusterCsiDriver ?? {}), "finalizers").includes(FINALIZER),
      withinMillis: GONE_WITHIN_MILLIS
    })
    referee.check(Invariants.canariesLive, { lost: yield* administrator.lostCanaries })
    history.note("done")
  }).pipe(Effect.scoped)

/**
 * Runs one simulation. Calm, quiet and removal take about an hour of virtual time more than `hours`.
 *
 * @shape  (options) -> RunResult
 * @units  hours of virtual time
 * @errors none: a broken promise is a violation in the result; a defect of the simulation itself is thrown
 */
export const run = (options: OperatorSimulationOptions): RunResult => {
  const drawn: Drawn = { rates: undefined, operators: 0 }
  const result = Run.run(options, (judges) => program(options, judges, drawn))
  return { ...result, rates: drawn.rates, summary: summaryOf(result.history, drawn) }
}

const summaryOf = (history: History, { operators }: Drawn): RunResult["summary"] => {
  const counted = (name: string) => `${history.figure(name)} ${name}`
  return [
    [
      "operators",
      `${operators}, ${counted("kills")}, ${counted("stops")}, ${counted("terms lost")}, ${counted("rollouts")}`
    ],
    ["writes", Run.listed(history.figuresOf("write "))]
  ]
}

/** One cluster, whose operators live through everything that is drawn. */
export const scenario: Scenario = {
  name: "operator",
  description: "one or two operators with a control plane, an administrator, foreign writers and an API server",
  run
}
