/**
 * Operators as processes: the unchanged `Operator` on ports that die with it. A life ends between two port calls
 * (SIGKILL) or in good order (SIGTERM); some stand still for a while, clock and network with them. What was sent arrives,
 * whatever becomes of its sender.
 */
import { fileURLToPath } from "node:url"
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  type Scope,
  Stream
} from "effect"
import type { OperatorConfig } from "../../../schemas/OperatorConfig.ts"
import * as Operator from "../../../src/Operator.ts"
import { LEASE, OPERATOR_NAME } from "../../../src/operator/Names.ts"
import { Assets } from "../../../src/ports/Assets.ts"
import { Digest } from "../../../src/ports/Digest.ts"
import { KubernetesApi, type KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import { LogLevel } from "../../../src/ports/LogLevel.ts"
import { Shutdown } from "../../../src/ports/Shutdown.ts"
import * as AssetFiles from "../../real/AssetFiles.ts"
import * as KlogLogger from "../../real/KlogLogger.ts"
import * as NodeDigest from "../../real/NodeDigest.ts"
import { isObject } from "../KubernetesObject.ts"
import { Life } from "../Life.ts"
import { failedAs, type Neighbours } from "./ApiFaults.ts"
import type { Chance } from "./Chance.ts"
import type { History } from "./History.ts"
import type { OperatorFaults } from "./OperatorFaults.ts"
import * as Invariants from "./OperatorInvariants.ts"
import { CANARY, CR_PATH, NAMESPACE, type OperatorWitness, type Sender } from "./OperatorWitness.ts"
import type { Referee } from "./Referee.ts"

/** A release of the operator: what it installs, and what it calls itself. */
export interface Version {
  readonly version: string
  readonly images: OperatorConfig["images"]
}

export const VERSIONS: readonly [Version, ...ReadonlyArray<Version>] = [
  { version: "1.0.0", images: { driver: "drv", registrar: "", livenessProbe: "" } },
  { version: "1.1.0", images: { driver: "drv:1.1", registrar: "", livenessProbe: "" } },
  { version: "1.2.0", images: { driver: "drv", registrar: "reg", livenessProbe: "live" } }
]

/** An operator's request is on its way for no longer, or the Lease would not protect anybody. */
const SENT_MILLIS_MAX = 4_000
const DOWNTIME_MILLIS = { least: 500, most: 90_000, calm: 1_000 }
/** By SIGTERM, a process that does not end is killed. */
const GRACE_MILLIS = 30_000

const NOBODY: Neighbours = {
  touch: () => Effect.void,
  remake: () => Effect.void,
  collectGarbage: Effect.void
}

/** Puts something between an operator and its world: a mistake that has to be found. */
export type OperatorPlant = (api: KubernetesApi["Service"]) => KubernetesApi["Service"]

interface Process {
  readonly sender: Sender
  readonly life: Life
  readonly stop: Deferred.Deferred<string>
  readonly ended: Deferred.Deferred<void>
  /** Its process does not run until then. */
  pausedUntilMillis: number
}

export interface OperatorLivesOptions {
  readonly api: KubernetesApi["Service"]
  readonly witness: OperatorWitness
  readonly faults: OperatorFaults
  readonly chance: Chance
  readonly history: History
  readonly referee: Referee
  readonly plant?: OperatorPlant
  /** Those who write objects as well. */
  readonly neighbours?: Neighbours
}

export interface OperatorLives {
  /** Starts an operator, and another one some time after it ended; never returns. */
  readonly supervise: (name: string) => Effect.Effect<never>
  /** SIGKILL to all, or to one of them. */
  readonly kill: (name?: string) => Effect.Effect<void>
  /** SIGTERM to all, or to one of them. */
  readonly stop: (name?: string) => Effect.Effect<void>
  readonly pause: (name: string, millis: number) => Effect.Effect<void>
  /** From now on nobody is killed or stands still any more. */
  readonly spare: () => void
  /** When the process of this identity last read the ClusterCSIDriver; 0 when none lives or did. */
  readonly lookedMillis: (identity: string) => number
  /** What is started from now on. */
  release: Version
}

/** @shape (name) -> where its story is told */
const laneOf = (name: string): string => `operator ${name}`

const parts = Layer.mergeAll(
  AssetFiles.layer(fileURLToPath(new URL("../../../assets/driver", import.meta.url))),
  NodeDigest.layer
)

/** @shape (options) -> OperatorLives; nothing runs until `supervise` does */
export const make = Effect.fnUntraced(function* (
  options: OperatorLivesOptions
): Effect.fn.Return<OperatorLives, never, Scope.Scope> {
  const { api, chance, faults, history, referee, neighbours = NOBODY, witness } = options
  const plant = options.plant ?? ((it) => it)
  const shared = yield* Effect.orDie(Layer.build(parts))
  const wire = yield* Effect.scope
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const sleep = (millis: number) => clock.sleep(Duration.millis(Math.ceil(millis)))
  const running = new Map<string, Process>()
  let lives = 0

  /** The way of a process's requests to the API server and back. */
  const networkOf = (process: () => Process, sender: Sender): KubernetesApi["Service"] => {
    const server = witness.forOperator(api, sender)
    const awake: Effect.Effect<void> = Effect.suspend(() =>
      process().pausedUntilMillis > now()
        ? Effect.andThen(sleep(process().pausedUntilMillis - now()), awake)
        : Effect.void
    )
    const request = Effect.fnUntraced(function* (asked: KubernetesRequest) {
      const refusal = faults.refusal(asked)
      const fate = refusal === undefined ? faults.api.fate() : undefined
      const failure = refusal ?? fate?.failure
      // What is given up has arrived long before, or never does.
      const arrives = refusal === undefined && fate?.takesEffect !== "never"
      const others = arrives ? faults.api.meanwhile(asked, neighbours) : undefined
      const arrival = Effect.gen(function* () {
        yield* sleep(faults.travelMillis() + Math.min(SENT_MILLIS_MAX, fate?.sentMillis ?? 0))
        if (!arrives && failure !== undefined) return yield* failedAs(asked, failure)
        if (others !== undefined) yield* others.before
        const answer = yield* server.request(asked)
        if (others !== undefined) yield* others.after
        return answer
      })
      const travelling = yield* Effect.forkIn(arrival, wire)
      const exit = yield* Fiber.await(travelling)
      yield* sleep(faults.travelMillis() + (fate?.answeredMillis ?? 0))
      yield* awake
      if (failure !== undefined) return yield* failedAs(asked, failure)
      if (asked.method === "GET" && asked.path === CR_PATH) note(sender, exit)
      return yield* exit
    })
    return KubernetesApi.of({
      request,
      watch: (asked, idleMillis) => {
        const refusal = faults.refusal({ ...asked, method: "GET" })
        return refusal === undefined
          ? Stream.tap(faults.api.watch(asked, idleMillis, api), () => awake)
          : Stream.fail(failedAs({ ...asked, method: "GET" }, refusal))
      }
    })
  }

  const note = (sender: Sender, exit: Exit.Exit<unknown, { readonly isNotFound: boolean }>): void => {
    if (Exit.isSuccess(exit)) {
      sender.read = { it: isObject(exit.value) ? exit.value : undefined, atMillis: now() }
      return
    }
    const isAbsent = exit.cause.reasons.some((reason) => Cause.isFailReason(reason) && reason.error.isNotFound)
    if (isAbsent) sender.read = { it: undefined, atMillis: now() }
  }

  const begin = Effect.fnUntraced(function* (name: string, release: Version) {
    lives += 1
    const identity = `${name}-${lives}`
    const lane = laneOf(name)
    history.state(lane, `${identity}, version ${release.version}`)
    const ended = Deferred.makeUnsafe<void>()
    const stop = Deferred.makeUnsafe<string>()
    const life = new Life(
      () => {
        const isTold = Deferred.isDoneUnsafe(stop)
        history.note(`${identity} ${isTold ? "ends in good order" : "is killed"}`, lane)
        history.state(lane, "")
        history.count(isTold ? "stops" : "kills")
        Deferred.doneUnsafe(ended, Effect.void)
      },
      (site, subject) => {
        history.count(`call ${site}`)
        return history.begin(lane, `${site} ${subject}`)
      }
    )
    const sender: Sender = { identity, images: JSON.stringify(release.images), read: undefined, writes: 0 }
    const process: Process = { sender, life, stop, ended, pausedUntilMillis: 0 }
    const { killEveryCalls } = faults.rates
    if (faults.active && killEveryCalls > 0) life.killAtBoundary(1 + chance.below(2 * killEveryCalls))
    running.set(name, process)

    const awake: Effect.Effect<void> = Effect.suspend(() =>
      process.pausedUntilMillis > now() ? Effect.andThen(sleep(process.pausedUntilMillis - now()), awake) : Effect.void
    )
    const clockOfProcess: Clock.Clock = { ...clock, sleep: (duration) => Effect.andThen(clock.sleep(duration), awake) }
    const network = networkOf(() => process, sender)
    let verbosity = 2
    const context = Context.make(KubernetesApi, life.kubernetes(plant(network))).pipe(
      Context.add(Assets, Context.get(shared, Assets)),
      Context.add(Digest, Context.get(shared, Digest)),
      Context.add(Shutdown, Shutdown.of({ requested: Deferred.await(stop) })),
      Context.add(
        LogLevel,
        LogLevel.of({
          current: Effect.sync(() => verbosity),
          set: (level) =>
            Effect.sync(() => {
              verbosity = level
            })
        })
      ),
      Context.add(Metric.MetricRegistry, new Map()),
      Context.add(Clock.Clock, clockOfProcess)
    )
    const config: OperatorConfig = {
      namespace: NAMESPACE,
      images: release.images,
      version: release.version,
      operatorName: OPERATOR_NAME,
      podName: "",
      lease: { namespace: NAMESPACE, name: LEASE }
    }
    const record: Operator.Surroundings["record"] = (event) =>
      Effect.sync(() => {
        history.count(`decision ${event.reason}`)
        referee.check(Invariants.neverPanics, event)
        referee.check(Invariants.nothingSecretIsSaid, {
          where: `Event ${event.reason}`,
          isThere: event.message.includes(CANARY)
        })
      })
    const logger = KlogLogger.layer({
      json: false,
      verbosity: 5,
      pid: 1,
      write: (line) => {
        history.count("log lines")
        referee.check(Invariants.nothingSecretIsSaid, { where: "a log line", isThere: line.includes(CANARY) })
      }
    })
    const program = Operator.run(config, { identity, record, recordElection: () => Effect.void }).pipe(
      Effect.provide(logger),
      Effect.provideContext(context)
    )
    const fiber = yield* Effect.forkDetach(program)
    fiber.addObserver((exit) => {
      if (!life.isAlive) return
      const isTold = Deferred.isDoneUnsafe(stop)
      const isDeposed =
        Exit.isFailure(exit) && Cause.findErrorOption(exit.cause)._tag === "Some" && !Cause.hasDies(exit.cause)
      if (isDeposed) history.count("terms lost")
      else if (!isTold) {
        const cause = Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "no failure"
        referee.check(Invariants.operatorKeepsRunning, { cause })
      }
      // The process ends with its main fiber.
      life.kill()
    })
    return process
  })

  const told = (process: Process) =>
    Effect.gen(function* () {
      Deferred.doneUnsafe(process.stop, Effect.succeed("SIGTERM"))
      yield* Effect.forkIn(
        Effect.andThen(
          sleep(GRACE_MILLIS),
          Effect.sync(() => process.life.kill())
        ),
        wire
      )
    })
  const those = (name: string | undefined) =>
    [...running].filter(([each]) => name === undefined || each === name).map(([, process]) => process)

  const made: OperatorLives = {
    release: VERSIONS[0],
    supervise: (name) =>
      Effect.gen(function* () {
        for (;;) {
          const { ended } = yield* begin(name, made.release)
          yield* Deferred.await(ended)
          yield* sleep(
            faults.active ? chance.between(DOWNTIME_MILLIS.least, DOWNTIME_MILLIS.most) : DOWNTIME_MILLIS.calm
          )
        }
      }),
    kill: (name) =>
      Effect.sync(() => {
        for (const { life } of those(name)) life.kill()
      }),
    stop: (name) => Effect.forEach(those(name), told, { discard: true }),
    pause: (name, millis) =>
      Effect.sync(() => {
        history.note(`stands still for ${Math.round(millis)} ms`, laneOf(name))
        for (const process of those(name)) process.pausedUntilMillis = now() + millis
      }),
    lookedMillis: (identity) => {
      const process = [...running.values()].find(({ life, sender }) => life.isAlive && sender.identity === identity)
      return process?.sender.read?.atMillis ?? 0
    },
    spare: () => {
      for (const process of running.values()) {
        process.life.killAtBoundary(Number.POSITIVE_INFINITY)
        process.pausedUntilMillis = 0
      }
    }
  }
  return made
})
