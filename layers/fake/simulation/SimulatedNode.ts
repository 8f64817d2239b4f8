/**
 * One node of a simulated cluster: its disk and mounts, its providers' sockets, its kubelet, the driver's lives on it, and
 * a witness of all that. The API server, the classes and the pods are the cluster's.
 */
import { Clock, Context, Effect, FileSystem, Layer, type Scope } from "effect"
import type { DriverConfig } from "../../../schemas/Config.ts"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../../src/ports/Mounter.ts"
import { PluginRegistry } from "../../../src/ports/PluginRegistry.ts"
import { Providers } from "../../../src/ports/Providers.ts"
import * as KlogLogger from "../../real/KlogLogger.ts"
import type { MemoryKubernetes } from "../MemoryKubernetes.ts"
import { MemoryNode, make as makeDisk } from "../MemoryNode.ts"
import * as MemoryPluginRegistry from "../MemoryPluginRegistry.ts"
import * as MemoryProviders from "../MemoryProviders.ts"
import * as Backend from "./Backend.ts"
import type { Chance } from "./Chance.ts"
import { PROVIDERS } from "./Classes.ts"
import { type FaultPlan, Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import { type CsiDriverView, Kubelet } from "./Kubelet.ts"
import * as Lives from "./Lives.ts"
import type { Referee } from "./Referee.ts"
import type { Strangers } from "./Strangers.ts"
import { NodeClock } from "./TimeFaults.ts"
import { NO_TOKENS } from "./Tokens.ts"
import { PODS_DIRECTORY, type SimulatedClass, type SimulatedVolume } from "./Volume.ts"
import { Witness } from "./Witness.ts"

/** What all nodes have in common. */
export interface Shared {
  readonly api: KubernetesApi["Service"]
  readonly control: MemoryKubernetes["Service"]
  /** By "namespace/name". */
  readonly classes: ReadonlyMap<string, SimulatedClass>
  /** Of all nodes, by target path, which holds the pod's uid. */
  readonly volumes: Map<string, SimulatedVolume>
  /** Uids of pods whose objects are there. */
  readonly podObjects: Set<string>
  /** Secrets in which others have written. */
  readonly spoilt: Set<string>
  /** Secrets that upstream's release has written, by "namespace/name": it takes the owners of other nodes off (D5). */
  readonly upstreamsSecrets: Set<string>
  /** Others who write objects of the driver. */
  readonly strangers: Strangers
  readonly csiDriver: () => CsiDriverView | undefined
  /** What is put between a node's driver and its world. */
  readonly plant: (ports: Lives.Ports, nodeName: string) => Lives.Ports
  readonly chance: Chance
  readonly history: History
  readonly referee: Referee
}

export interface SimulatedNode {
  readonly name: string
  readonly faults: Faults
  readonly lives: Lives.Lives
  readonly kubelet: Kubelet
  readonly witness: Witness
  readonly backend: Backend.Backend
  readonly files: FileSystem.FileSystem
  readonly install: (provider: string) => Effect.Effect<void>
  readonly uninstall: (provider: string) => Effect.Effect<void>
  readonly setSocket: (provider: string, state: MemoryProviders.SocketState) => Effect.Effect<void>
  /** Where a provider's story is told. */
  readonly laneOf: (provider: string) => string
  /** What the driver here tells the time by. */
  readonly clock: NodeClock
  readonly mounts: () => ReadonlyArray<string>
  /** Nothing that was mounted is left, and the driver begins anew. */
  readonly reboot: Effect.Effect<void>
  /** All that is here is gone for good, from one instant to the next. */
  readonly lose: Effect.Effect<void>
  /** Target paths that belong here. */
  readonly volumes: () => ReadonlyArray<SimulatedVolume>
  /** Puts a volume on this node. */
  readonly take: (volume: SimulatedVolume) => void
  /** False: no pod is put here. */
  isSchedulable: boolean
}

export interface NodeOptions {
  readonly name: string
  readonly plan: FaultPlan
  /** What the driver here is started with. */
  readonly config: () => DriverConfig
}

const SECRET_PATH = /\/namespaces\/([^/]+)\/secrets\/([^/]+)$/u

/** Notes which Secrets are written. */
const noted = (api: KubernetesApi["Service"], written: Set<string>): KubernetesApi["Service"] => ({
  ...api,
  request: (request) =>
    Effect.suspend(() => {
      const [, namespace, name] = SECRET_PATH.exec(request.path) ?? []
      if (name !== undefined && request.method !== "GET") written.add(`${namespace}/${name}`)
      return api.request(request)
    })
})

/** @shape (options, cluster) -> a node without a driver; `lives.supervise` runs one */
export const make = (
  { config, name, plan }: NodeOptions,
  shared: Shared
): Effect.Effect<SimulatedNode, never, Scope.Scope> =>
  Effect.gen(function* () {
    const {
      api,
      chance,
      classes,
      control,
      csiDriver,
      history,
      plant,
      podObjects,
      referee,
      spoilt,
      upstreamsSecrets,
      strangers,
      volumes
    } = shared
    const faults = new Faults(plan, chance, history)
    const disk = yield* makeDisk
    const providers = yield* Layer.build(Layer.fresh(MemoryProviders.layer))
    const registry = yield* Layer.build(Layer.fresh(MemoryPluginRegistry.layer))
    const node = Context.get(disk, MemoryNode)
    const files = Context.get(disk, FileSystem.FileSystem)
    const installed = Context.get(providers, MemoryProviders.MemoryProviders)
    yield* Context.get(registry, MemoryPluginRegistry.MemoryPluginRegistry).answerWith({ registered: true, error: "" })
    const context = yield* Effect.context<never>()
    const clock = new NodeClock(yield* Clock.Clock)
    const backend = Backend.make({
      ...{ classes, faults, chance, history, files, context },
      nodeName: name,
      tokens: () => csiDriver()?.tokens ?? NO_TOKENS
    })
    const install = (provider: string) =>
      installed.install(provider, backend.handler(provider), backend.version(provider))
    for (const provider of PROVIDERS) yield* install(provider)
    yield* Effect.orDie(files.makeDirectory(PODS_DIRECTORY, { recursive: true }))

    const world = { files, node, control, volumes, classes, spoilt, faults, referee, history }
    const witness = new Witness(world, context)
    const lives = yield* Lives.make({
      nodeName: name,
      config,
      world: {
        mounter: faults.disk.mounter(witness.mounter(Context.get(disk, Mounter))),
        fileSystem: faults.disk.fileSystem(witness.fileSystem(files)),
        kubernetes: faults.kubernetes(witness.kubernetes(api), strangers),
        legacyKubernetes: faults.kubernetes(noted(api, upstreamsSecrets), strangers),
        providers: Context.get(providers, Providers),
        registry: Context.get(registry, PluginRegistry)
      },
      plant: (ports) => plant(ports, name),
      surroundings: KlogLogger.layer({
        json: false,
        verbosity: 2,
        pid: 1,
        write: (line) => {
          history.count("log lines")
          witness.checkText("a log line", line)
        }
      }),
      faults,
      clock,
      chance,
      history,
      referee
    })
    const kubelet = new Kubelet({
      ...{ lives, files, api, volumes, witness, faults, chance, history, referee, csiDriver, podObjects, strangers },
      nodeName: name
    })
    const own = new Set<SimulatedVolume>()

    return {
      name,
      faults,
      lives,
      kubelet,
      witness,
      backend,
      files,
      install,
      uninstall: (provider) => installed.remove(provider),
      setSocket: installed.setSocket,
      laneOf: (provider) => Backend.laneOf(provider, name),
      clock,
      mounts: () => witness.mounts(),
      reboot: Effect.gen(function* () {
        faults.note("reboot")
        yield* lives.kill
        for (const volume of own) {
          if (volume.state === "Published") volume.state = "Publishing"
          // Its content is gone, so that there is nothing left to keep.
          volume.mayChange = true
        }
        yield* node.reboot
        yield* kubelet.restart
      }),
      lose: Effect.gen(function* () {
        faults.note("node lost")
        witness.nodeLost()
        for (const volume of own) volume.state = "Gone"
        kubelet.lose()
        yield* lives.kill
        yield* lives.retire(0)
      }),
      volumes: () => {
        for (const volume of own) if (volume.state === "Gone") own.delete(volume)
        return [...own]
      },
      take: (volume) => {
        own.add(volume)
        volumes.set(volume.targetPath, volume)
      },
      isSchedulable: true
    }
  })
