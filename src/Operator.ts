/**
 * The whole operator, minus the world: waits for its turn, then keeps the operand as the ClusterCSIDriver wants it, until
 * it is told to stop. Production, the demo and the simulation run this same value.
 */
import { Effect, Exit, Scope } from "effect"
import { Infrastructure } from "../schemas/ApiServerConfig.ts"
import type { ClusterCSIDriver } from "../schemas/ClusterCSIDriver.ts"
import type { OperatorConfig } from "../schemas/OperatorConfig.ts"
import type { OperatorEvent } from "./operator/ActionEvents.ts"
import * as Desired from "./operator/Desired.ts"
import { decideLogLevel } from "./operator/LogLevel.ts"
import { DRIVER_NAME } from "./operator/Names.ts"
import { emptyMemory } from "./operator/Observe.ts"
import { reconcile } from "./operator/Reconcile.ts"
import * as Watches from "./operator/Watches.ts"
import { Assets } from "./ports/Assets.ts"
import { Digest } from "./ports/Digest.ts"
import { LogLevel } from "./ports/LogLevel.ts"
import { Shutdown } from "./ports/Shutdown.ts"
import * as LeaderElection from "./reconciler/LeaderElection.ts"
import * as ReconcileLoop from "./reconciler/ReconcileLoop.ts"
import * as Resource from "./reconciler/Resource.ts"
import { operatorBackoff } from "./reconciler/Schedules.ts"
import * as WorkQueue from "./reconciler/WorkQueue.ts"

/** What was begun when the operator was told to stop may take this long to end. */
const DRAIN_MILLIS = 20_000
/** Several changes at once are looked at once. */
const GATHER_MILLIS = 100
const ATTEMPT_MILLIS = 10_000
const RECONCILE_MILLIS = 120_000

/** What the process gives to the operator. */
export interface Surroundings {
  /** Of this process, and of no other ever. */
  readonly identity: string
  readonly record: (event: OperatorEvent) => Effect.Effect<void>
  readonly recordElection: (event: LeaderElection.ElectionEvent) => Effect.Effect<void>
}

const infrastructures = Resource.make({
  group: "config.openshift.io",
  version: "v1",
  plural: "infrastructures",
  kind: "Infrastructure",
  namespaced: false,
  schema: Infrastructure
})

/** How long a Lease lasts: longer where there is nobody to hand it over to. */
const timings = (record: Surroundings["record"]) =>
  Resource.get(infrastructures, "", "cluster").pipe(
    Effect.map(({ status }) =>
      status?.controlPlaneTopology === "SingleReplica"
        ? LeaderElection.TIMINGS.SINGLE_REPLICA
        : LeaderElection.TIMINGS.HIGHLY_AVAILABLE
    ),
    Effect.catch((failure) =>
      Effect.as(
        // A cluster that is not OpenShift has none.
        failure.isNotFound ? Effect.void : record(topologyUnknown(failure.message)),
        LeaderElection.TIMINGS.HIGHLY_AVAILABLE
      )
    )
  )

const topologyUnknown = (why: string): OperatorEvent => ({
  type: "Warning",
  reason: "ControlPlaneTopology",
  message: `unable to get the control plane's topology, assuming more than one replica: ${why}`,
  speaker: "operator"
})

/** A bug: the loop goes on, and somebody hears of it. */
const panicked = (defect: unknown): OperatorEvent => ({
  type: "Warning",
  reason: "Secrets-Store-Csi-Driver-OperatorPanic",
  message: `Panic observed: ${defect instanceof Error ? defect.message : "unknown"}`,
  speaker: "operator"
})

const followLogLevel = Effect.fnUntraced(function* (it: ClusterCSIDriver, record: Surroundings["record"]) {
  const level = yield* LogLevel
  const { events, verbosity } = decideLogLevel(it.spec?.operatorLogLevel, yield* level.current)
  if (verbosity !== undefined) yield* level.set(verbosity)
  yield* Effect.forEach(events, (event) => record({ ...event, speaker: "loggingSyncer" }), { discard: true })
})

/** For as long as the Lease is held: reconciles one key, whatever it was that has changed. */
const lead = Effect.fnUntraced(function* (
  config: OperatorConfig,
  { record }: Surroundings,
  stopping: Effect.Effect<void>
) {
  const { manifests } = yield* Assets
  const { sha256 } = yield* Digest
  const level = yield* LogLevel
  const open = yield* Scope.make()
  const queue = yield* Scope.provide(WorkQueue.make({ backoff: operatorBackoff }), open)
  const watches = yield* Watches.make({
    operands: Desired.operandIds(manifests, config),
    operandChanged: () => queue.addAfter(DRIVER_NAME, GATHER_MILLIS),
    clusterCsiDriverChanged: Effect.fnUntraced(function* (it) {
      queue.add(DRIVER_NAME)
      if (it !== undefined) yield* Effect.provideService(followLogLevel(it, record), LogLevel, level)
    })
  })
  // Rights to Secrets are not taken away before it is known who needs them.
  yield* Effect.timeoutOption(watches.attempted, ATTEMPT_MILLIS)
  queue.add(DRIVER_NAME)
  const world = {
    fixed: { config, manifests, sha256 },
    memory: emptyMemory(),
    syncNamespaces: watches.syncNamespaces,
    record
  }
  const loop = ReconcileLoop.run({
    name: "operator",
    workers: 1,
    queue,
    reconcile: () => Effect.tapDefect(reconcile(world), (defect) => record(panicked(defect))),
    timeLimitMillis: RECONCILE_MILLIS
  })
  // The reconcile under way ends; the next one is not begun.
  yield* Effect.forkScoped(Effect.andThen(stopping, Scope.close(open, Exit.void)))
  yield* Effect.ensuring(loop, Scope.close(open, Exit.void))
}, Effect.scoped)

/**
 * Runs until shutdown is requested, then lets the reconcile under way end and releases the Lease.
 *
 * @shape  (config, surroundings) -> void
 * @errors LeadershipLost: another operator goes on from here
 * @source reference/operator.md 1.2, 1.6, 1.10, Q32
 */
export const run = Effect.fn("Operator.run")(function* (config: OperatorConfig, surroundings: Surroundings) {
  const shutdown = yield* Shutdown
  const election = LeaderElection.run({
    namespace: config.lease.namespace,
    name: config.lease.name,
    identity: surroundings.identity,
    timings: yield* timings(surroundings.record),
    drainMillis: DRAIN_MILLIS,
    onEvent: surroundings.recordElection,
    lead: ({ stopping }) => lead(config, surroundings, stopping)
  })
  yield* Effect.raceFirst(
    Effect.flatMap(shutdown.requested, (signal) => Effect.logInfo("received shutdown signal", { signal })),
    election
  )
})
