/**
 * From a command line to a running operator: flags, files, layers, exit code.
 *
 * @source reference/operator.md 1.1, 1.2, 1.10
 */
import { createHash, randomUUID } from "node:crypto"
import { existsSync, readFileSync, writeSync } from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"
import { Cause, Effect, Exit, Layer, Predicate, Result, Stream } from "effect"
import * as AssetFiles from "../../layers/real/AssetFiles.ts"
import * as FileWatch from "../../layers/real/FileWatch.ts"
import * as KlogLogger from "../../layers/real/KlogLogger.ts"
import * as KubernetesHttp from "../../layers/real/KubernetesHttp.ts"
import * as MemoryTrim from "../../layers/real/MemoryTrim.ts"
import * as NodeDigest from "../../layers/real/NodeDigest.ts"
import * as ProcessShutdown from "../../layers/real/ProcessShutdown.ts"
import * as SecureHttp from "../../layers/real/SecureHttp.ts"
import type { AssetInvalid } from "../../schemas/errors/AssetInvalid.ts"
import type { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import type { KubernetesConfigInvalid } from "../../schemas/errors/KubernetesConfigInvalid.ts"
import type { LeadershipLost } from "../../schemas/errors/LeadershipLost.ts"
import { OperatorConfigInvalid } from "../../schemas/errors/OperatorConfigInvalid.ts"
import * as Operator from "../Operator.ts"
import type { Speaker } from "../operator/ActionEvents.ts"
import * as ClusterTls from "../operator/ClusterTls.ts"
import * as MetricsAccess from "../operator/MetricsAccess.ts"
import { OPERATOR_NAME } from "../operator/Names.ts"
import { COMPONENTS, OperatorEvents } from "../operator/OperatorEvents.ts"
import * as Readiness from "../operator/Readiness.ts"
import { servingTls } from "../operator/TlsProfile.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { Shutdown } from "../ports/Shutdown.ts"
import { CALLER_KEY } from "../telemetry/Log.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as OperatorMetrics from "../telemetry/OperatorMetrics.ts"
import { buildInfo } from "./buildInfo.ts"
import { type OperatorFlags, parseOperator } from "./OperatorFlags.ts"
import { NAMESPACE_FILE, type OperatorSettings, parseConfigFile, settle } from "./OperatorSettings.ts"
import { buildLabels, operatorUserAgent, versionLine } from "./Version.ts"

const STDOUT = 1
const STDERR = 2
const TRIM_MILLIS = 10_000

type StartFailed = OperatorConfigInvalid | KubernetesConfigInvalid | AssetInvalid | EndpointFailed

/**
 * @shape  (how the operator ended) -> exit status
 * @errors none
 * @source reference/operator.md 1.10
 */
export const exitCodeOf = (exit: Exit.Exit<void, StartFailed | LeadershipLost>): 0 | 1 | 255 => {
  if (Exit.isSuccess(exit)) return 0
  const failure = Cause.findErrorOption(exit.cause)
  if (failure._tag === "None") return Cause.hasInterruptsOnly(exit.cause) ? 0 : 1
  // Another operator goes on: there is nothing wrong with this one.
  return failure.value._tag === "LeadershipLost" ? 0 : 255
}

const readText = (path: string): Result.Result<string, string> =>
  Result.try({
    try: () => readFileSync(path, "utf8"),
    catch: (cause) => (Predicate.hasProperty(cause, "code") ? String(cause.code) : "unknown error")
  })

/** Reads what the flags name, once. */
const readSettings = (flags: OperatorFlags): Result.Result<OperatorSettings, OperatorConfigInvalid> => {
  const content =
    flags.config === ""
      ? Result.succeed("")
      : Result.mapError(
          readText(flags.config),
          (detail) =>
            new OperatorConfigInvalid({
              source: flags.config,
              detail: `cannot be read: ${detail}`,
              remedy: "correct --config, or remove the flag"
            })
        )
  return content.pipe(
    Result.flatMap((text) => parseConfigFile(flags.config, text)),
    Result.flatMap((file) =>
      settle({
        flags,
        file,
        environment: process.env,
        namespaceFile: Result.getOrUndefined(readText(NAMESPACE_FILE)),
        version: buildInfo.version
      })
    )
  )
}

/** Beside the bundle, one above it, or two above the sources. */
const assetsDirectory = (): string => {
  const given = process.env["ASSETS_DIR"] ?? ""
  if (given !== "") return given
  const candidates = [".", "..", "../.."].map((up) => join(import.meta.dirname, up, "assets", "driver"))
  return candidates.find((directory) => existsSync(directory)) ?? join(import.meta.dirname, "assets", "driver")
}

/** The real world. */
const ports = (settings: OperatorSettings) =>
  Layer.mergeAll(
    NodeDigest.layer,
    AssetFiles.layer(assetsDirectory()),
    Layer.provide(FileWatch.layer(settings.terminateOnFiles), ProcessShutdown.layer),
    KubernetesHttp.layer({
      kubeconfig: settings.kubeconfig,
      userAgent: operatorUserAgent(buildInfo, process),
      environment: process.env
    })
  )

/** Told to stop meanwhile, there is nothing to wait for. */
const unlessStopped = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(Shutdown, ({ requested }) =>
    Effect.raceFirst(Effect.asSome(effect), Effect.andThen(requested, Effect.succeedNone))
  )

/** Every replica serves, whether it leads or waits. */
const serve = Effect.fnUntraced(function* (settings: OperatorSettings, cluster: ClusterTls.ClusterTls) {
  const labels = buildLabels(buildInfo, process)
  yield* OperatorMetrics.setBuildInfo(settings.operator.namespace, labels)
  const access = yield* MetricsAccess.make({
    ...settings,
    hash: (token) => createHash("sha256").update(token).digest("base64")
  })
  const readiness = yield* Readiness.make(settings.operator)
  yield* SecureHttp.serve({
    listen: settings.listen,
    certificate: settings.certificate,
    tls: {
      initial: servingTls(yield* cluster.current, settings.tls),
      changes: Stream.map(cluster.changes, (profile) => servingTls(profile, settings.tls))
    },
    checks: { live: Effect.void, ready: readiness.check },
    access,
    version: { ...labels }
  })
})

/** As each part has always been named in Events. */
const COMPONENT_OF = {
  operator: COMPONENTS.operator,
  loggingSyncer: COMPONENTS.logLevel,
  managementState: COMPONENTS.managementState,
  staticResources: COMPONENTS.staticResources,
  configObserver: COMPONENTS.configObserver,
  nodeService: COMPONENTS.node
} as const satisfies Readonly<Record<Speaker, string>>

const surroundings = Effect.map(
  OperatorEvents,
  (events): Operator.Surroundings => ({
    identity: `${hostname()}_${randomUUID()}`,
    record: ({ message, reason, speaker, type }) =>
      events.record({ type, reason, message, component: COMPONENT_OF[speaker] }),
    recordElection: ({ about, message }) =>
      events.recordOn(about, { type: "Normal", reason: "LeaderElection", message, component: COMPONENTS.operator })
  })
)

/** The API, whose use shows that there may be memory to give back: after a start and after each look at the cluster. */
const trimmed = Effect.gen(function* () {
  const api = yield* KubernetesApi
  let requests = 0
  yield* MemoryTrim.trimPeriodically({ intervalMillis: TRIM_MILLIS, activity: Effect.sync(() => requests) })
  return KubernetesApi.of({
    ...api,
    request: (request) =>
      Effect.suspend(() => {
        requests += 1
        return api.request(request)
      })
  })
})

const program = (settings: OperatorSettings) =>
  Effect.gen(function* () {
    yield* Effect.logInfo(`${OPERATOR_NAME} version ${buildInfo.version}-${buildInfo.vcs}`)
    yield* Effect.forEach(settings.warnings, (warning) => Effect.logWarning(warning), { discard: true })
    const cluster = yield* unlessStopped(ClusterTls.make)
    if (cluster._tag === "None") return
    yield* serve(settings, cluster.value)
    const events = OperatorEvents.layer({
      namespace: settings.operator.namespace,
      podName: settings.operator.podName,
      componentPrefix: settings.operator.operatorName
    })
    const api = yield* trimmed
    yield* Effect.provide(
      Effect.flatMap(surroundings, (it) => Operator.run(settings.operator, it)),
      events
    ).pipe(Effect.provideService(KubernetesApi, api))
  }).pipe(Effect.scoped, Effect.provide(ports(settings)))

/** What ended the operator, and what to do about it. */
const logEnd = (cause: Cause.Cause<StartFailed | LeadershipLost>) => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.void
  const failure = Cause.findErrorOption(cause)
  if (failure._tag === "None") return Effect.logError("unrecoverable error encountered", cause)
  const { code, message, remedy } = failure.value
  const fields = { [LogKeys.error]: message, [LogKeys.remedy]: remedy, [LogKeys.code]: code }
  return code === "LeadershipLost"
    ? Effect.logInfo("leader election lost", fields)
    : Effect.logError("unrecoverable error encountered", fields)
}

const runForever = (flags: OperatorFlags): void => {
  const whole = Effect.fromResult(readSettings(flags)).pipe(
    Effect.flatMap(program),
    Effect.tapCause(logEnd),
    Effect.annotateLogs(CALLER_KEY, "operator.ts:0"),
    Effect.provide(KlogLogger.layerChanging({ json: false, verbosity: flags.verbosity, pid: process.pid }))
  )
  Effect.runFork(whole).addObserver((exit) => process.exit(exitCodeOf(exit)))
}

/** Does what the command line says; returns at once and ends the process when it is done. */
export const launchOperator = (words: ReadonlyArray<string>): void => {
  const command = parseOperator(words)
  switch (command._tag) {
    case "Run":
      runForever(command.flags)
      break
    case "Help":
      writeSync(STDOUT, command.text)
      process.exit(command.exitCode)
      break
    case "Version":
      writeSync(STDOUT, `${versionLine(buildInfo)}\n`)
      process.exit(0)
      break
    case "Refused":
      writeSync(STDERR, `${command.message}\n`)
      process.exit(1)
  }
}
