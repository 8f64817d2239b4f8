/**
 * The driver's process, again and again: the unchanged `Driver` on ports that die with it. A life ends between two port
 * calls (SIGKILL), or in good order (SIGTERM); its fibers are never joined, since a dead process's never end.
 */
import { Cause, Clock, Context, Deferred, Effect, Exit, FileSystem, Layer, Metric, type Scope } from "effect"
import type { DriverConfig } from "../../../schemas/Config.ts"
import { CsiStatus } from "../../../schemas/errors/CsiStatus.ts"
import * as Driver from "../../../src/Driver.ts"
import { CsiEndpoint } from "../../../src/ports/CsiEndpoint.ts"
import { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../../src/ports/Mounter.ts"
import { PluginRegistry } from "../../../src/ports/PluginRegistry.ts"
import { Providers } from "../../../src/ports/Providers.ts"
import { Shutdown } from "../../../src/ports/Shutdown.ts"
import { VolumeTable } from "../../../src/volume/VolumeTable.ts"
import * as NodeFileFormats from "../../real/NodeFileFormats.ts"
import { Life } from "../Life.ts"
import * as MemoryCsiEndpoint from "../MemoryCsiEndpoint.ts"
import type { Chance } from "./Chance.ts"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import { driverKeepsRunning } from "./Invariants.ts"
import * as LegacyDriver from "./LegacyDriver.ts"
import type { Referee } from "./Referee.ts"
import type { NodeClock } from "./TimeFaults.ts"

const DOWNTIME_MILLIS_MAX = 30_000
const DOWNTIME_MILLIS_MIN = 100
/** How long one may take to end. */
const GRACE_MILLIS = 30_000
const NEXT_LINK = "/..data_tmp"

/** Where the story of a node's driver is told. */
export const laneOf = (nodeName: string): string => `${nodeName} driver`

/** What the driver reaches the world by. */
export interface Ports {
  readonly mounter: Mounter["Service"]
  readonly fileSystem: FileSystem.FileSystem
  readonly kubernetes: KubernetesApi["Service"]
  readonly providers: Providers["Service"]
  readonly endpoint: CsiEndpoint["Service"]
}

interface Process {
  readonly number: number
  readonly life: Life
  readonly endpoint: MemoryCsiEndpoint.MemoryCsiEndpoint["Service"]
  readonly isLegacy: boolean
  /** Told to stop. */
  readonly stop: Deferred.Deferred<string>
  /** Killed, or ended in good order. */
  readonly ended: Deferred.Deferred<void>
  table: VolumeTable["Service"] | undefined
  /** A successor comes before it has ended. */
  readonly overtaken: Deferred.Deferred<void>
}

export interface Lives {
  /** Starts the driver, and starts it again some time after it ended, until it is retired. */
  readonly supervise: Effect.Effect<void>
  /** SIGTERM, and SIGKILL when that takes too long; it starts again only when it is supervised again. */
  readonly retire: (graceMillis: number) => Effect.Effect<void>
  /** A call as the kubelet makes it: a driver that is not there, or dies meanwhile, is UNAVAILABLE. */
  readonly call: MemoryCsiEndpoint.Call
  readonly kill: Effect.Effect<void>
  readonly stop: Effect.Effect<void>
  /** The life that is running was not started or ended since `number` was asked for. */
  readonly number: () => number
  readonly isAlive: () => boolean
  /** It is upstream's release that runs, or was the last to run. */
  readonly isLegacy: () => boolean
  /** No release of upstream is known to have been cut off while it wrote, and none of ours is at work besides. */
  readonly isLeftByOurs: (targetPath: string) => boolean
  /** A link is there that upstream's release has made for an exchange, and not exchanged. */
  readonly noteUpstreamsLink: (targetPath: string) => void
  /** False: another one is on its way out, and takes what it has replaced with it. */
  readonly isAlone: () => boolean
  /** From now on the driver is not killed any more. */
  readonly spare: () => void
  /** What the driver remembers; undefined while none runs. */
  readonly table: () => VolumeTable["Service"] | undefined
}

export interface LivesOptions {
  readonly nodeName: string
  /** What a life is started with. */
  readonly config: () => DriverConfig
  /** Everything but the endpoint, which belongs to one life. */
  readonly world: Omit<Ports, "endpoint"> & {
    readonly registry: PluginRegistry["Service"]
    /** The API server as upstream's release reaches it: nobody judges what it does there. */
    readonly legacyKubernetes: KubernetesApi["Service"]
  }
  /** What is put between the driver and its world. */
  readonly plant: (ports: Ports) => Ports
  /** Loggers, and what else a process has. */
  readonly surroundings: Layer.Layer<never>
  readonly faults: Faults
  /** What its processes tell the time by, one after the other. */
  readonly clock: NodeClock
  readonly chance: Chance
  readonly history: History
  readonly referee: Referee
}

const unavailable = (details: string) => new CsiStatus({ grpcCode: "UNAVAILABLE", details })

/** @shape (options) -> Lives; nothing runs until `supervise` does */
export const make = (options: LivesOptions): Effect.Effect<Lives, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { chance, clock, faults, history, plant, referee, surroundings, world } = options
    const worldClock = yield* Clock.Clock
    const lane = laneOf(options.nodeName)
    let number = 0
    let supervision = 0
    let current: Process | undefined
    /** Told to end, and at work still while another one serves. */
    const forerunners = new Set<Process>()
    const scope = yield* Effect.scope
    const legacyLinks = new Set<string>()
    /** Notes where a release of upstream is about to exchange the files. */
    const noted = (files: FileSystem.FileSystem): FileSystem.FileSystem =>
      FileSystem.make({
        ...files,
        symlink: (target, path) =>
          Effect.tap(files.symlink(target, path), () =>
            Effect.sync(() => {
              if (path.endsWith(NEXT_LINK)) legacyLinks.add(path.slice(0, -NEXT_LINK.length))
            })
          ),
        rename: (from, to) =>
          Effect.tap(files.rename(from, to), () =>
            Effect.sync(() => legacyLinks.delete(from.slice(0, -NEXT_LINK.length)))
          )
      })

    const begin = Effect.gen(function* () {
      number += 1
      const own = number
      const { killEveryCalls, legacyRate } = faults.plan
      const isLegacy = faults.active && chance.happens(own === 1 ? Math.sqrt(legacyRate) : legacyRate)
      if (isLegacy) faults.note("driver of upstream")
      history.state(lane, `life ${own}${isLegacy ? ", upstream's" : ""}`)
      // A socket of its own: whoever is connected to a dead process does not reach the next one.
      const sockets = yield* Layer.build(Layer.fresh(MemoryCsiEndpoint.layer))
      const ended = Deferred.makeUnsafe<void>()
      const stop = Deferred.makeUnsafe<string>()
      const life = new Life(
        () => {
          const isTold = Deferred.isDoneUnsafe(stop)
          history.note(`life ${own} ${isTold ? "ends in good order" : "is killed"}`, lane)
          history.state(lane, "")
          history.count(isTold ? "stops" : "kills")
          Deferred.doneUnsafe(ended, Effect.void)
        },
        (site, subject) => {
          history.count(`call ${site}`)
          return history.begin(lane, `${site} ${subject}`)
        },
        clock
      )
      const process: Process = {
        number: own,
        life,
        endpoint: Context.get(sockets, MemoryCsiEndpoint.MemoryCsiEndpoint),
        stop,
        ended,
        isLegacy,
        overtaken: Deferred.makeUnsafe(),
        table: undefined
      }
      const config = options.config()
      if (faults.active && killEveryCalls > 0) life.killAtBoundary(1 + chance.below(2 * killEveryCalls))
      current = process
      const unchanged = { ...world, endpoint: Context.get(sockets, CsiEndpoint) }
      const ports = plant(unchanged)
      const context = Context.make(Mounter, life.mounter(ports.mounter)).pipe(
        Context.add(FileSystem.FileSystem, life.fileSystem(ports.fileSystem)),
        // The API server has a clock of its own.
        Context.add(
          KubernetesApi,
          life.kubernetes({
            ...ports.kubernetes,
            request: (request) => Effect.provideService(ports.kubernetes.request(request), Clock.Clock, worldClock)
          })
        ),
        Context.add(Providers, life.providers(ports.providers)),
        Context.add(PluginRegistry, life.pluginRegistry(world.registry)),
        Context.add(CsiEndpoint, ports.endpoint),
        Context.add(Shutdown, Shutdown.of({ requested: Deferred.await(process.stop) })),
        Context.add(Metric.MetricRegistry, new Map()),
        Context.add(Clock.Clock, clock.clock)
      )
      const legacy = LegacyDriver.run(config, {
        mounter: life.mounter(world.mounter),
        fileSystem: life.fileSystem(noted(world.fileSystem)),
        kubernetes: life.kubernetes(world.legacyKubernetes),
        providers: life.providers(world.providers),
        endpoint: unchanged.endpoint
      }).pipe(Effect.andThen(Deferred.await(process.stop)), Effect.asVoid, Effect.scoped)
      const ours = Effect.gen(function* () {
        process.table = yield* VolumeTable
        // Whoever asks for its version hears that it is another one.
        yield* Driver.run(config, `simulated-${own}`)
      }).pipe(
        Effect.provide(Layer.provideMerge(Driver.layer(config), Layer.mergeAll(surroundings, NodeFileFormats.layer))),
        Effect.provideContext(context)
      )
      const fiber = yield* Effect.forkDetach(isLegacy ? legacy : ours)
      fiber.addObserver((exit) => {
        if (!life.isAlive) return
        const isTold = Deferred.isDoneUnsafe(process.stop)
        if (Exit.isFailure(exit) || !isTold) {
          referee.check(driverKeepsRunning, { cause: Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "no failure" })
        }
        // The process ends with its main fiber.
        life.kill()
      })
      return process
    })

    const supervise = Effect.gen(function* () {
      supervision += 1
      const own = supervision
      while (own === supervision) {
        const { ended, overtaken } = yield* begin
        yield* Effect.raceFirst(Deferred.await(ended), Deferred.await(overtaken))
        yield* Effect.sleep(faults.active ? chance.between(DOWNTIME_MILLIS_MIN, DOWNTIME_MILLIS_MAX) : 1_000)
      }
    }).pipe(Effect.scoped)

    /** Tells it to end, and looks after it until it has. */
    const end = Effect.fnUntraced(function* (process: Process, graceMillis: number) {
      Deferred.doneUnsafe(process.stop, Effect.succeed("SIGTERM"))
      yield* Effect.timeoutOption(Deferred.await(process.ended), graceMillis)
      process.life.kill()
      forerunners.delete(process)
    })

    /** @shape (process) -> whether its successor does not wait for its end */
    const overtake = Effect.fnUntraced(function* (process: Process) {
      if (!faults.active || !process.life.isAlive || !chance.happens(faults.plan.overlapRate)) return false
      faults.note("driver pods overlap")
      forerunners.add(process)
      Deferred.doneUnsafe(process.overtaken, Effect.void)
      yield* Effect.forkIn(end(process, GRACE_MILLIS), scope)
      return true
    })

    const retire = Effect.fnUntraced(function* (graceMillis: number) {
      supervision += 1
      if (current === undefined || (yield* overtake(current))) return
      yield* end(current, graceMillis)
    })

    const call: MemoryCsiEndpoint.Call = (method, request, callOptions) =>
      Effect.suspend(() => {
        if (current === undefined || !current.life.isAlive) return Effect.fail(unavailable("No connection established"))
        return Effect.raceFirst(
          current.endpoint.call(method, request, callOptions),
          Effect.andThen(Deferred.await(current.ended), Effect.fail(unavailable("the connection was closed")))
        )
      })

    return {
      supervise,
      retire,
      call,
      kill: Effect.sync(() => {
        for (const process of forerunners) process.life.kill()
        current?.life.kill()
      }),
      stop: Effect.gen(function* () {
        if (current === undefined || (yield* overtake(current))) return
        Deferred.doneUnsafe(current.stop, Effect.succeed("SIGTERM"))
      }),
      number: () => number,
      isAlive: () => current?.life.isAlive === true,
      isLegacy: () => current?.isLegacy === true,
      isAlone: () => forerunners.size === 0,
      noteUpstreamsLink: (targetPath) => void legacyLinks.add(targetPath),
      isLeftByOurs: (targetPath) => forerunners.size === 0 && !legacyLinks.has(targetPath),
      spare: () => {
        for (const { life } of forerunners) life.killAtBoundary(Number.POSITIVE_INFINITY)
        current?.life.killAtBoundary(Number.POSITIVE_INFINITY)
        // Nobody stays with upstream's release.
        if (current?.isLegacy === true) Deferred.doneUnsafe(current.stop, Effect.succeed("SIGTERM"))
      },
      table: () => (current?.life.isAlive === true ? current.table : undefined)
    }
  })
