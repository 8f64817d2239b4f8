/**
 * From a command line to a running node driver: flags, layers, exit code.
 *
 * @source reference/driver.md 1.5
 */
import { writeSync } from "node:fs"
import { Cause, Clock, Effect, Exit, Layer, Metric, Schedule } from "effect"
import * as CsiSocket from "../../layers/real/CsiSocket.ts"
import * as KlogLogger from "../../layers/real/KlogLogger.ts"
import * as KubernetesHttp from "../../layers/real/KubernetesHttp.ts"
import * as LocalFileSystem from "../../layers/real/LocalFileSystem.ts"
import * as ManagementHttp from "../../layers/real/ManagementHttp.ts"
import * as MemoryTrim from "../../layers/real/MemoryTrim.ts"
import * as NodeFileFormats from "../../layers/real/NodeFileFormats.ts"
import * as PluginRegistrySocket from "../../layers/real/PluginRegistrySocket.ts"
import * as ProcessShutdown from "../../layers/real/ProcessShutdown.ts"
import * as ProviderSockets from "../../layers/real/ProviderSockets.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import type { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import type { KubernetesConfigInvalid } from "../../schemas/errors/KubernetesConfigInvalid.ts"
import { Health } from "../csi/Health.ts"
import * as Driver from "../Driver.ts"
import type { Mounter } from "../ports/Mounter.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"
import { VolumeTable } from "../volume/VolumeTable.ts"
import { buildInfo } from "./buildInfo.ts"
import { parseDriver } from "./Flags.ts"
import { userAgent, versionLine } from "./Version.ts"

const STDOUT = 1
const STDERR = 2
/** How often gauges that nothing else moves are brought up to date. */
const everyTenSeconds = Schedule.spaced("10 seconds")

/** The real world, but for mounting. */
const ports = (config: DriverConfig) =>
  Layer.mergeAll(
    LocalFileSystem.layer,
    NodeFileFormats.layer,
    CsiSocket.layer,
    PluginRegistrySocket.layer,
    ProcessShutdown.layer,
    ProviderSockets.layer({ directories: config.providerDirectories, maxReceiveBytes: config.maxCallRecvBytes }),
    KubernetesHttp.layer({
      kubeconfig: config.kubeconfig,
      userAgent: userAgent(buildInfo, process),
      environment: process.env
    })
  )

const serveManagement = Effect.fnUntraced(function* (config: DriverConfig) {
  const health = yield* Health
  const checks = {
    // What the liveness sidecar asks, over the same socket: it also notices that the socket's file is gone.
    live: CsiSocket.probe(config.endpoint),
    ready: Effect.suspend(() => {
      const message = health.notReady()
      return message === undefined ? Effect.void : Effect.fail({ message })
    })
  }
  yield* Layer.build(ManagementHttp.layer(config, checks))
})

/** What goes on beside the calls, for as long as the driver runs. */
const housekeeping = Effect.fnUntraced(function* (config: DriverConfig, fibers: () => number) {
  const table = yield* VolumeTable
  yield* Metrics.setBuildInfo(buildInfo.version)
  yield* Effect.forkScoped(
    Effect.repeat(
      Effect.suspend(() =>
        Effect.all(
          [
            Metrics.setVolumes(table.all().length),
            Metrics.setAwaitingTokens(table.all().filter(({ schedule }) => schedule.awaitsTokens).length),
            Effect.flatMap(Clock.currentTimeMillis, (now) => Metrics.setContentAges(table.all(), now)),
            Metrics.setCallsInFlight(table.busy()),
            Metrics.setFibers(fibers())
          ],
          { discard: true }
        )
      ),
      everyTenSeconds
    )
  )
  yield* MemoryTrim.trimPeriodically({
    intervalMillis: config.memoryTrimIntervalMillis,
    activity: Effect.sync(() => table.changes())
  })
})

const program = (config: DriverConfig, mounter: Layer.Layer<Mounter>, fibers: () => number) =>
  Effect.gen(function* () {
    yield* serveManagement(config)
    yield* housekeeping(config, fibers)
    yield* Driver.run(config, buildInfo.version)
  }).pipe(
    Effect.scoped,
    Effect.provide(Driver.layer(config).pipe(Layer.provideMerge(ports(config)), Layer.provideMerge(mounter)))
  )

/** What ended the driver, and what to do about it. */
const logEnd = (cause: Cause.Cause<EndpointFailed | KubernetesConfigInvalid>) => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.void
  const failure = Cause.findErrorOption(cause)
  return failure._tag === "None"
    ? Effect.logError("unrecoverable error encountered", cause)
    : Effect.logError("unrecoverable error encountered", {
        [LogKeys.error]: failure.value.message,
        [LogKeys.remedy]: failure.value.remedy,
        [LogKeys.code]: failure.value.code
      })
}

const runForever = (config: DriverConfig, mounter: Layer.Layer<Mounter>): void => {
  const logger = KlogLogger.layer({ json: config.logFormatJson, verbosity: config.verbosity, pid: process.pid })
  const fibers = Metrics.countFibers()
  const whole = program(config, mounter, fibers.running).pipe(
    Effect.tapCause(logEnd),
    Effect.provide(logger),
    Effect.provideService(Metric.FiberRuntimeMetrics, fibers.service)
  )
  Effect.runFork(whole).addObserver((exit) => process.exit(Exit.isSuccess(exit) ? 0 : 1))
}

/** Does what the command line says; returns at once and ends the process when it is done. */
export const launch = (words: ReadonlyArray<string>, mounter: Layer.Layer<Mounter>): void => {
  const command = parseDriver(words)
  if (command._tag === "Run") {
    runForever(command.config, mounter)
    return
  }
  if (command._tag === "Help") writeSync(STDERR, command.text)
  if (command._tag === "Version") writeSync(STDOUT, `${versionLine(buildInfo)}\n`)
  if (command._tag === "Refused") writeSync(STDERR, `${command.message}\n`)
  process.exit(command._tag === "Refused" ? command.exitCode : 0)
}
