/**
 * The operator's one reconcile: observe, plan, perform, report. What happened in between is seen by the next one, which
 * is soon: after every change it looks again.
 *
 * What others have changed in the same moment, and what an API server that is busy refuses, is tried again before it is
 * reported; what it will refuse again is reported at once.
 *
 * @source reference/operator.md 3, Q6, Q26, Q28
 */
import { Clock, DateTime, Effect, Random, Result } from "effect"
import type { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { OperandNotReconciled } from "../../schemas/errors/OperandNotReconciled.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { type Outcome, requeueAfter } from "../reconciler/ReconcileLoop.ts"
import * as Resource from "../reconciler/Resource.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import { configEvents, eventsOf, type OperatorEvent } from "./ActionEvents.ts"
import { reports } from "./Conditions.ts"
import { DRIVER_NAME } from "./Names.ts"
import { type Memory, observe } from "./Observe.ts"
import type { Fixed, Observed } from "./Observed.ts"
import { type Ended, type Performed, perform } from "./Perform.ts"
import { type Plan, plan } from "./Plan.ts"
import { type StatusApply, staleRemoval, statusApplies } from "./StatusApply.ts"

/** Whatever happens unseen is seen after this long. */
const RESYNC_MILLIS = 60_000
const AGAIN_MILLIS = 200
const WAITING_MILLIS = { StoppingDriver: 3_000, DeletingObjects: 1_000 } as const
/** Looking for pods may take this share of the time, however many there are in the cluster. */
const LOOKING_SHARE = 1 / 20
const PODS_MILLIS = { least: 3_000, most: 60_000 } as const
const ATTEMPTS = 4
const ATTEMPT_MILLIS = 100

export interface World {
  readonly fixed: Fixed
  readonly memory: Memory
  /** Namespaces whose SecretProviderClasses ask for Secrets; undefined while that is not known. */
  readonly syncNamespaces: () => ReadonlySet<string> | undefined
  readonly record: (event: OperatorEvent) => Effect.Effect<void>
}

/** Trying again at once may help, and nobody needs to hear of it. */
const isPassing = (failure: KubernetesApiFailed): boolean =>
  failure.isConflict || failure.isAlreadyExists || failure.isNotFound || failure.isTransient

const failuresOf = ({ ended }: Performed): ReadonlyArray<KubernetesApiFailed> =>
  ended.flatMap(({ result }) => (Result.isFailure(result) ? [result.failure] : []))

interface Attempt {
  readonly observed: Observed
  readonly planned: Plan
  readonly performed: Performed
}

const attempt = Effect.fnUntraced(function* ({ fixed, memory, record, syncNamespaces }: World) {
  const before = memory.clusterConfig
  const observed = yield* observe(fixed, memory, syncNamespaces)
  yield* Effect.forEach(configEvents(before, memory.clusterConfig), record, { discard: true })
  const planned = plan(observed, fixed)
  const performed = yield* perform(planned.actions, observed.live)
  const made: Attempt = { observed, planned, performed }
  yield* tell(made, Result.isSuccess, record)
  return made
})

/** What was done, and, once it is not tried again, what was not. */
const tell = Effect.fnUntraced(function* (
  { performed, planned }: Attempt,
  isMeant: (result: Ended) => boolean,
  record: World["record"]
) {
  for (const { action, result } of performed.ended) {
    if (!isMeant(result)) continue
    yield* Effect.logInfo(Result.isSuccess(result) ? "did" : "could not do", {
      action: action._tag,
      object: action.key,
      ...(Result.isFailure(result) ? { [LogKeys.error]: result.failure.message } : {})
    })
    yield* Effect.forEach(eventsOf(action, result, planned.management), record, { discard: true })
  }
})

const CR_PATH = Resource.pathOf(Resource.clusterCsiDrivers, undefined, DRIVER_NAME)
const STATUS_PATH = `${CR_PATH}/status`

const applyStatus = Effect.fnUntraced(function* ({ body, fieldManager }: StatusApply) {
  const api = yield* KubernetesApi
  yield* api.request({
    method: "PATCH",
    path: STATUS_PATH,
    query: { fieldManager, force: true },
    // JSON is YAML.
    contentType: "application/apply-patch+yaml",
    body
  })
})

/** Whoever was faster has written a version in which it can be looked for again. */
const removeStale = Effect.fnUntraced(function* (it: ClusterCSIDriver) {
  const body = staleRemoval(it)
  if (body === undefined) return
  const api = yield* KubernetesApi
  yield* api.request({ method: "PATCH", path: STATUS_PATH, contentType: "application/merge-patch+json", body })
})

/** Every part, whatever became of the others. A ClusterCSIDriver that is gone needs no status. */
const report = Effect.fnUntraced(function* (
  it: ClusterCSIDriver,
  { observed, performed, planned }: Attempt,
  fixed: Fixed
): Effect.fn.Return<ReadonlyArray<KubernetesApiFailed>, never, KubernetesApi> {
  const now = DateTime.formatIso(DateTime.makeUnsafe(yield* Clock.currentTimeMillis)).replace(/\.\d+Z$/u, "Z")
  const applies = statusApplies(it, reports(observed, planned, performed, fixed), now)
  const stale = Effect.catchIf(
    removeStale(it),
    ({ isConflict }) => isConflict,
    () => Effect.void
  )
  const results = yield* Effect.forEach([stale, ...applies.map(applyStatus)], Effect.result)
  return results
    .flatMap((result) => (Result.isFailure(result) ? [result.failure] : []))
    .filter(({ isNotFound }) => !isNotFound)
})

const INVALID_REMEDY = `if spec.driverConfig.driverType is empty, remove spec.driverConfig: kubectl patch clustercsidriver ${DRIVER_NAME} --type=json -p '[{"op":"remove","path":"/spec/driverConfig"}]'`

/**
 * An object that was stored before a rule was made: every write of it is refused, also those that have nothing to do with
 * the rule. So its conditions cannot say it.
 */
const isInvalid = ({ path, status }: KubernetesApiFailed): boolean => status === 422 && path.startsWith(CR_PATH)

const invalidEvent = ({ message }: KubernetesApiFailed): OperatorEvent => ({
  type: "Warning",
  reason: "ClusterCSIDriverInvalid",
  message: `Failed to update ClusterCSIDriver.operator.openshift.io/${DRIVER_NAME}: ${message}; ${INVALID_REMEDY}`,
  speaker: "managementState"
})

const nextLook = ({ performed, planned }: Attempt, { listMillis }: Memory): Outcome => {
  if (performed.ended.length > 0) return requeueAfter(AGAIN_MILLIS)
  const { removal } = planned
  if (removal === undefined || removal._tag === "Done") return requeueAfter(RESYNC_MILLIS)
  if (removal._tag !== "WaitingForPods") return requeueAfter(WAITING_MILLIS[removal._tag])
  return requeueAfter(Math.min(PODS_MILLIS.most, Math.max(PODS_MILLIS.least, listMillis / LOOKING_SHARE)))
}

/**
 * @shape  (world) -> when to look again
 * @errors KubernetesApiFailed when the ClusterCSIDriver cannot be read; OperandNotReconciled after what failed was
 *         reported
 */
export const reconcile = Effect.fn("Operator.reconcile")(function* (
  world: World
): Effect.fn.Return<Outcome, KubernetesApiFailed | OperandNotReconciled, KubernetesApi> {
  let last = yield* attempt(world)
  for (let tries = 1; tries < ATTEMPTS; tries++) {
    const failures = failuresOf(last.performed)
    if (failures.length === 0 || !failures.every(isPassing)) break
    const jitter = yield* Random.next
    yield* Effect.sleep(ATTEMPT_MILLIS * 2 ** tries * (0.8 + 0.4 * jitter))
    last = yield* attempt(world)
  }
  yield* tell(last, Result.isFailure, world.record)
  const { clusterCsiDriver } = last.observed
  if (clusterCsiDriver === undefined) return requeueAfter(RESYNC_MILLIS)
  const unreported = yield* report(clusterCsiDriver, last, world.fixed)
  const invalid = [...failuresOf(last.performed), ...unreported].find(isInvalid)
  if (invalid !== undefined) yield* world.record(invalidEvent(invalid))
  const all = [
    ...last.planned.staticErrors.map(({ error, file }) => `${file}: ${error}`),
    ...last.planned.nodeErrors,
    ...last.performed.errors.values(),
    // Each part of an invalid status is refused in the same words.
    ...new Set(unreported.map(({ message }) => `status: ${message}`)),
    ...(invalid === undefined ? [] : [INVALID_REMEDY])
  ]
  if (all.length > 0) return yield* new OperandNotReconciled({ failures: all })
  return nextLook(last, world.memory)
})
