/**
 * Every series that the driver counts. The first block has upstream's names and labels to the letter, the second is
 * ours and is prefixed `secrets_store_`. A series appears with its first update. Labels come from small sets: a pod is
 * never a label, and what a provider or a user chooses is bounded.
 *
 * @source driver v1.6.0, pkg/secrets-store/stats_reporter.go; reference/driver.md 8.2, Q20, Q21
 */
import { Cause, Clock, Effect, Exit, Metric } from "effect"
import type { GrpcCode } from "../../schemas/errors/CsiStatus.ts"
import type { ProviderCallFailed, ProviderNameInvalid, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"

/** Geometric from 0.1 to 2 in eleven steps, as upstream computes it; other mathematics differs in the last digit. */
const SECONDS = [
  0.1, 0.13492828476735633, 0.18205642030260802, 0.24564560522315804, 0.3314454017339986, 0.4472135954999578,
  0.6034176336545162, 0.8141810630738084, 1.0985605433061172, 1.4822688982138947, 1.9999999999999991
]

/** Of what may end at once, or after the two minutes that a call is given. */
const CALL_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120]

/** What the OpenTelemetry exporter puts on every series of upstream. */
const SCOPE = {
  os_type: "linux",
  otel_scope_name: "sigs.k8s.io/secrets-store-csi-driver",
  otel_scope_schema_url: "",
  otel_scope_version: ""
}

const counter = (name: string, description: string, attributes: Readonly<Record<string, string>>) =>
  Metric.counter(name, { description, attributes, incremental: true })

const publishTotal = counter("node_publish_total", "Total number of node publish calls", SCOPE)
const publishErrorTotal = counter("node_publish_error_total", "Total number of node publish calls with error", SCOPE)
const unpublishTotal = counter("node_unpublish_total", "Total number of node unpublish calls", SCOPE)
const unpublishErrorTotal = counter(
  "node_unpublish_error_total",
  "Total number of node unpublish calls with error",
  SCOPE
)
const rotationTotal = counter("rotation_reconcile_total", "Total number of rotation reconciles", {
  ...SCOPE,
  rotated: "true"
})
const rotationErrorTotal = counter("rotation_reconcile_error_total", "Total number of rotation reconciles with error", {
  ...SCOPE,
  rotated: "true"
})
const rotationSeconds = Metric.histogram("rotation_reconcile_duration_sec", {
  description: "Distribution of how long it took to rotate secrets-store content for pods",
  attributes: SCOPE,
  boundaries: SECONDS
})
// Upstream defines these two and never updates them.
const syncTotal = counter("sync_k8s_secret_total", "Total number of k8s secrets synced", SCOPE)
const syncSeconds = Metric.histogram("k8s_secret_duration_sec", {
  description: "Distribution of how long it took to sync k8s secret",
  attributes: SCOPE,
  boundaries: SECONDS
})

const outcomesTotal = counter("secrets_store_publish_outcomes_total", "Publish calls by what they did", {})
const volumesNow = Metric.gauge("secrets_store_volumes", { description: "Volumes published on this node" })
const callsInFlight = Metric.gauge("secrets_store_calls_in_flight", {
  description: "Volumes that a publish or unpublish call is working on"
})
const contentAge = Metric.gauge("secrets_store_content_age_seconds", {
  description: "Age of the oldest content of a provider's volumes: since a provider last answered for it"
})
const awaitingTokens = Metric.gauge("secrets_store_volumes_awaiting_tokens", {
  description: "Volumes that are not refreshed before the kubelet brings fresh service account tokens"
})
const fibers = Metric.gauge("secrets_store_fibers", { description: "Fibers that have begun and not ended" })
const providerRequestsTotal = counter(
  "secrets_store_provider_requests_total",
  "Mount calls made to providers, by gRPC status code",
  {}
)
const providerSeconds = Metric.histogram("secrets_store_provider_request_duration_seconds", {
  description: "How long providers took to answer mount calls",
  boundaries: CALL_SECONDS
})
const providerUp = Metric.gauge("secrets_store_provider_up", {
  description: "Whether a provider answered its last health check"
})
const providerHealthChecksTotal = counter(
  "secrets_store_provider_health_checks_total",
  "Health checks of providers, by gRPC status code",
  {}
)
const reconcileTotal = counter("secrets_store_reconcile_total", "Reconciles by what became of them", {})
const reconcileSeconds = Metric.histogram("secrets_store_reconcile_duration_seconds", {
  description: "How long reconciles took",
  boundaries: CALL_SECONDS
})
const reconcileQueueLength = Metric.gauge("secrets_store_reconcile_queue_length", {
  description: "Objects that are to be reconciled and wait for a worker"
})
const leading = Metric.gauge("leader_election_master_status", {
  description: "Whether this process holds the lease (1) or waits for it (0)"
})
const buildInfo = Metric.gauge("secrets_store_build_info", { description: "The version that is running, as a label" })

/** Error types of the driver itself; they are never counted against the bound of foreign ones. */
const STANDARD_ERROR_TYPES: ReadonlySet<string> = new Set([
  "",
  "Cancelled",
  "FailedToEnsureMountPoint",
  "FailedToLookupProviderGRPCClient",
  "FailedToMount",
  "FailedToRotate",
  "FailedToUnmount",
  "FailedToWritePodStatus",
  "FileWriteError",
  "GRPCProviderError",
  "IncompatibleProviderVersion",
  "KubernetesApiFailed",
  "NodePublishSecretRefNotFound",
  "PodNotFound",
  "PodVolumeNotFound",
  "ProviderBusy",
  "ProviderError",
  "SecretProviderClassNotFound",
  "UnexpectedTargetPath"
])
const NO_PROVIDER: ReadonlySet<string> = new Set([""])

const LABEL_LENGTH_MAX = 64
const LABEL_VALUES_MAX = 64
const OTHER = "Other"

/**
 * The label value to use for a foreign word: itself while it is short, plain, and among the first to be seen, else
 * "Other". Upstream uses such words as they come, so a provider can grow its metrics without bound.
 *
 * @shape  (word, standard words, foreign words so far) -> label value
 * @errors none
 */
export const boundedLabel = (word: string, standard: ReadonlySet<string>, seen: ReadonlySet<string>): string => {
  if (standard.has(word)) return word
  const label = word.slice(0, LABEL_LENGTH_MAX)
  if (!/^[A-Za-z0-9_.-]+$/u.test(label)) return OTHER
  return seen.has(label) || seen.size < LABEL_VALUES_MAX ? label : OTHER
}

interface Seen {
  readonly errorTypes: Set<string>
  readonly providers: Set<string>
}

// Foreign words live and die with the registry that holds their series: one per process, or one per test.
const seenIn = new WeakMap<object, Seen>()

const admit = (word: string, standard: ReadonlySet<string>, seen: Set<string>): string => {
  const label = boundedLabel(word, standard, seen)
  if (!standard.has(label) && label !== OTHER) seen.add(label)
  return label
}

/** Labels that have an age at present, by the registry that holds it. */
const agedIn = new WeakMap<object, ReadonlyArray<string>>()

/** Labels of a provider and an error type, both bounded. */
const foreignLabels = (words: { readonly provider?: string; readonly errorType?: string }) =>
  Effect.withFiber<Readonly<Record<string, string>>>((fiber) =>
    Effect.sync(() => {
      const registry = fiber.getRef(Metric.MetricRegistry)
      const seen = seenIn.get(registry) ?? { errorTypes: new Set(), providers: new Set() }
      seenIn.set(registry, seen)
      return {
        ...(words.provider === undefined ? {} : { provider: admit(words.provider, NO_PROVIDER, seen.providers) }),
        ...(words.errorType === undefined
          ? {}
          : { error_type: admit(words.errorType, STANDARD_ERROR_TYPES, seen.errorTypes) })
      }
    })
  )

const add = (metric: Metric.Counter<number>, labels: Readonly<Record<string, string>>) =>
  Metric.update(Metric.withAttributes(metric, labels), 1)

/**
 * "not_due": a republish too early to do anything; "due": one whose volume the driver is about to refresh; "kept":
 * mounted, and rotation is off; "refreshed": what a crash has left unrecorded was fetched and recorded.
 */
export type PublishOutcome = "mounted" | "refreshed" | "kept" | "due" | "not_due"

/**
 * A publish call that was answered OK, also when there was nothing to do. `provider` is empty when it is not known.
 *
 * @source reference/driver.md 8.2, Q20
 */
export const nodePublished = Effect.fnUntraced(function* (call: {
  readonly provider: string
  readonly outcome: PublishOutcome
}) {
  const labels = yield* foreignLabels({ provider: call.provider })
  yield* add(publishTotal, labels)
  yield* add(outcomesTotal, { ...labels, outcome: call.outcome })
})

/** A publish call that failed, whether or not the kubelet was told. */
export const nodePublishFailed = Effect.fnUntraced(function* (call: {
  readonly provider: string
  readonly errorType: string
}) {
  const labels = yield* foreignLabels(call)
  yield* add(publishErrorTotal, labels)
  yield* add(outcomesTotal, { provider: labels["provider"] ?? "", outcome: "failed" })
})

export const nodeUnpublished: Effect.Effect<void> = Metric.update(unpublishTotal, 1)
export const nodeUnpublishFailed: Effect.Effect<void> = Metric.update(unpublishErrorTotal, 1)

/** A refresh of a mounted volume that brought the provider's present answer. */
export const rotationReconciled = Effect.fnUntraced(function* (refresh: {
  readonly provider: string
  readonly seconds: number
}) {
  yield* add(rotationTotal, yield* foreignLabels({ provider: refresh.provider }))
  yield* Metric.update(rotationSeconds, refresh.seconds)
})

export const rotationFailed = Effect.fnUntraced(function* (refresh: {
  readonly provider: string
  readonly errorType: string
}) {
  yield* add(rotationErrorTotal, yield* foreignLabels(refresh))
})

/** A Kubernetes Secret that was written. */
export const secretSynced = Effect.fnUntraced(function* (sync: {
  readonly provider: string
  readonly seconds: number
}) {
  yield* add(syncTotal, yield* foreignLabels({ provider: sync.provider }))
  yield* Metric.update(syncSeconds, sync.seconds)
})

export const setVolumes = (count: number): Effect.Effect<void> => Metric.update(volumesNow, count)

export const setAwaitingTokens = (count: number): Effect.Effect<void> => Metric.update(awaitingTokens, count)

/** What stays above zero on a node at rest is a call that never ends. */
export const setCallsInFlight = (count: number): Effect.Effect<void> => Metric.update(callsInFlight, count)

/**
 * The oldest content by provider. A provider without volumes keeps no series.
 *
 * @shape  (volumes, nowMillis) -> void
 * @units  milliseconds since the epoch; the series is in seconds
 */
export const setContentAges = (
  volumes: ReadonlyArray<{ readonly provider: string; readonly lastSuccessMillis: number }>,
  nowMillis: number
): Effect.Effect<void> =>
  Effect.gen(function* () {
    const oldest = new Map<string, number>()
    for (const { lastSuccessMillis, provider } of volumes) {
      // Providers beyond the bound of labels share one.
      const { provider: label = "" } = yield* foreignLabels({ provider })
      oldest.set(label, Math.min(lastSuccessMillis, oldest.get(label) ?? Number.POSITIVE_INFINITY))
    }
    const registry = yield* Metric.MetricRegistry
    for (const label of agedIn.get(registry) ?? []) {
      if (!oldest.has(label)) yield* Metric.remove(Metric.withAttributes(contentAge, { provider: label }))
    }
    agedIn.set(registry, [...oldest.keys()])
    for (const [label, millis] of oldest) {
      const seconds = Math.max(0, nowMillis - millis) / 1_000
      yield* Metric.update(Metric.withAttributes(contentAge, { provider: label }), seconds)
    }
  })

export const setFibers = (count: number): Effect.Effect<void> => Metric.update(fibers, count)

/**
 * Counts the fibers of whatever it is provided to. Two additions a fiber; Effect's own series would be four, in names
 * that are not ours.
 *
 * @shape  () -> the service to provide as `Metric.FiberRuntimeMetrics`, and how many fibers there are now
 */
export const countFibers = (): {
  readonly service: Metric.FiberRuntimeMetricsService
  readonly running: () => number
} => {
  let running = 0
  return {
    service: {
      recordFiberStart: () => {
        running += 1
      },
      recordFiberEnd: () => {
        running -= 1
      }
    },
    running: () => running
  }
}

/**
 * A health check of a provider that has ended; a provider is up when it answered OK. Providers beyond the bound of
 * labels share the gauge "Other", which then tells of the one that was checked last.
 */
export const providerChecked = Effect.fnUntraced(function* (check: {
  readonly provider: string
  readonly grpcCode: GrpcCode
}) {
  const labels = yield* foreignLabels({ provider: check.provider })
  yield* add(providerHealthChecksTotal, { ...labels, grpc_code: check.grpcCode })
  yield* Metric.update(Metric.withAttributes(providerUp, labels), check.grpcCode === "OK" ? 1 : 0)
})

/** A provider that is not checked any more: its gauge goes, its counters stay. */
export const providerForgotten = Effect.fnUntraced(function* (provider: string) {
  yield* Metric.remove(Metric.withAttributes(providerUp, yield* foreignLabels({ provider })))
})

/** Whatever has a reconcile loop of its own. */
export type Controller = "secret-sync" | "pod-status" | "operator"

/** "died": a bug; "timed_out": it took too long and was interrupted. */
export type ReconcileResult = "done" | "requeue_after" | "failed" | "timed_out" | "died"

/** A reconcile that has ended by itself or by its time. */
export const reconciled = Effect.fnUntraced(function* (reconcile: {
  readonly controller: Controller
  readonly result: ReconcileResult
  readonly seconds: number
}) {
  const { controller, result, seconds } = reconcile
  yield* add(reconcileTotal, { controller, result })
  yield* Metric.update(Metric.withAttributes(reconcileSeconds, { controller }), seconds)
})

export const setReconcileQueueLength = (controller: Controller, length: number): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(reconcileQueueLength, { controller }), length)

/** A loop that has ended: its gauge goes, its counters stay. */
export const reconcileLoopEnded = (controller: Controller): Effect.Effect<void> =>
  Effect.asVoid(Metric.remove(Metric.withAttributes(reconcileQueueLength, { controller })))

/** `name` is that of the Lease. */
export const setLeading = (name: string, isLeading: boolean): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(leading, { name }), isLeading ? 1 : 0)

export const setBuildInfo = (version: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(buildInfo, { version }), 1)

type CallFailed = ProviderNameInvalid | ProviderNotFound | ProviderCallFailed

const grpcCodeOf = (exit: Exit.Exit<unknown, CallFailed>): string | undefined => {
  if (Exit.isSuccess(exit)) return "OK"
  const failure = Cause.findErrorOption(exit.cause)
  if (failure._tag === "None") return Cause.hasInterruptsOnly(exit.cause) ? "CANCELLED" : "INTERNAL"
  // Without a socket or a usable name no call was made.
  return failure.value._tag === "ProviderCallFailed" ? failure.value.grpcCode : undefined
}

/**
 * Counts one call to a provider by its status code, and how long it took. An interrupted call is CANCELLED.
 *
 * @shape  (provider) -> (call) -> the same call, measured
 * @units  seconds of the monotonic clock
 */
export const measureProviderRequest =
  (provider: string) =>
  <A, E extends CallFailed, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(Clock.monotonicTimeNanos, (started) =>
      Effect.onExit(
        call,
        Effect.fnUntraced(function* (exit) {
          const grpcCode = grpcCodeOf(exit)
          if (grpcCode === undefined) return
          const seconds = Number((yield* Clock.monotonicTimeNanos) - started) / 1e9
          const labels = yield* foreignLabels({ provider })
          yield* add(providerRequestsTotal, { ...labels, grpc_code: grpcCode })
          yield* Metric.update(Metric.withAttributes(providerSeconds, labels), seconds)
        })
      )
    )
