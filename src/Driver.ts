/**
 * The whole node driver, minus the world: serves CSI until it is told to stop, and stays registered with the kubelet
 * if it is asked to register itself. Production, the demo and the simulation run this same value.
 */
import { Effect, FiberSet, type FileSystem, Layer } from "effect"
import type { DriverConfig } from "../schemas/Config.ts"
import * as Controller from "./csi/Controller.ts"
import { Health } from "./csi/Health.ts"
import * as Identity from "./csi/Identity.ts"
import * as Node from "./csi/Node.ts"
import { pluginInfo, stayRegistered } from "./csi/Registration.ts"
import { logged } from "./csi/RequestLog.ts"
import { statusOf } from "./csi/Status.ts"
import { CsiEndpoint, type CsiHandlers } from "./ports/CsiEndpoint.ts"
import type { KubernetesApi } from "./ports/KubernetesApi.ts"
import type { Mounter } from "./ports/Mounter.ts"
import type { Providers } from "./ports/Providers.ts"
import { Shutdown } from "./ports/Shutdown.ts"
import { EventRecorder } from "./reconciler/Events.ts"
import * as SecretSync from "./sync/SecretSync.ts"
import { Ending } from "./volume/Ending.ts"
import { LateMounts } from "./volume/LateMounts.ts"
import { NodePods } from "./volume/NodePods.ts"
import { publish } from "./volume/NodePublish.ts"
import { unpublish } from "./volume/NodeUnpublish.ts"
import { OldGenerations } from "./volume/OldGenerations.ts"
import { ProviderBudget } from "./volume/ProviderBudget.ts"
import { watchProviders } from "./volume/ProviderHealth.ts"
import * as Refresher from "./volume/Refresher.ts"
import * as RefreshTriggers from "./volume/RefreshTriggers.ts"
import { SecretProviderClasses } from "./volume/SecretProviderClasses.ts"
import { Settings } from "./volume/Settings.ts"
import * as Unrecorded from "./volume/Unrecorded.ts"
import { refreshDue } from "./volume/VolumeRefresh.ts"
import { VolumeTable } from "./volume/VolumeTable.ts"

/** What the driver's programs share: made once per process, out of the configuration and the ports. */
export const layer = (config: DriverConfig) =>
  Layer.mergeAll(
    Health.layer,
    VolumeTable.layer,
    OldGenerations.layer,
    SecretProviderClasses.layer,
    EventRecorder.layer(config.nodeId),
    NodePods.layer,
    ProviderBudget.layer,
    LateMounts.layer
  ).pipe(Layer.provideMerge(Layer.succeed(Settings, config)))

type Programs = Mounter | Providers | KubernetesApi | FileSystem.FileSystem | Layer.Success<ReturnType<typeof layer>>

/** One effect per RPC, each logged. */
const handlers = (config: DriverConfig, version: string) =>
  Effect.map(Effect.context<Programs>(), (context): CsiHandlers => {
    const nothing = {}
    return {
      GetPluginInfo: (request, call) => logged(request, call, Identity.getPluginInfo(config.driverName, version)),
      GetPluginCapabilities: (request, call) => logged(request, call, Effect.succeed(Identity.pluginCapabilities)),
      Probe: (request, call) => logged(request, call, Effect.succeed(Identity.probe)),
      ControllerGetCapabilities: (request, call) =>
        logged(request, call, Effect.succeed(Controller.controllerCapabilities)),
      controllerStub: (request, call) => logged(request, call, Controller.unimplemented("")),
      NodeStageVolume: (request, call) => logged(request, call, Node.stage(request)),
      NodeUnstageVolume: (request, call) => logged(request, call, Node.unstage(request)),
      NodePublishVolume: (request, call) =>
        publish(request, call.deadlineMillis).pipe(
          Effect.as(nothing),
          Effect.mapError(statusOf),
          Effect.provideContext(context),
          (effect) => logged(request, call, effect)
        ),
      NodeUnpublishVolume: (request, call) =>
        unpublish(request).pipe(
          Effect.as(nothing),
          Effect.mapError(statusOf),
          Effect.provideContext(context),
          (effect) => logged(request, call, effect)
        ),
      NodeGetVolumeStats: (request, call) => logged(request, call, Controller.unimplemented("")),
      NodeExpandVolume: (request, call) =>
        logged(request, call, Controller.unimplemented("NodeExpandVolume is not implemented")),
      NodeGetCapabilities: (request, call) =>
        logged(request, call, Effect.succeed(Node.nodeCapabilities(config.volumeMountGroup))),
      NodeGetInfo: (request, call) => logged(request, call, Effect.succeed({ nodeId: config.nodeId }))
    }
  })

/**
 * Runs until shutdown is requested, then stops accepting calls, lets those under way end within the grace period and
 * those cut off undo what they began, and returns.
 *
 * @errors EndpointFailed when the CSI socket cannot be opened
 */
export const run = Effect.fn("Driver.run")(function* (config: DriverConfig, version: string) {
  const endpoint = yield* CsiEndpoint
  const shutdown = yield* Shutdown
  const health = yield* Health
  const loops = yield* FiberSet.make<never, never>()
  let isEnding = false
  if (config.kubeletRegistrationPath !== "") health.requireRegistration()
  const calls = Effect.provideService(handlers(config, version), Ending, { isEnding: () => isEnding })
  yield* endpoint.serve(config.endpoint, yield* calls, { graceMillis: config.shutdownGraceMillis })
  health.setServing(true)
  yield* Effect.logInfo("listening for connections", { endpoint: config.endpoint })
  if (config.kubeletRegistrationPath !== "") {
    const info = pluginInfo(config.driverName, config.kubeletRegistrationPath)
    yield* FiberSet.run(loops, Effect.andThen(stayRegistered(config.pluginRegistrationDirectory, info), Effect.never))
  }
  if (config.providerHealthCheck) {
    yield* FiberSet.run(loops, watchProviders(config.providerHealthCheckIntervalMillis))
  }
  const pods = yield* NodePods
  yield* pods.follow
  yield* FiberSet.run(loops, SecretSync.run({ nodeId: config.nodeId, driverName: config.driverName }))
  if (config.rotationEnabled) {
    yield* FiberSet.run(
      loops,
      Refresher.run(({ targetPath }) => refreshDue(targetPath))
    )
    yield* FiberSet.run(loops, RefreshTriggers.run())
  } else {
    yield* FiberSet.run(loops, Effect.andThen(Unrecorded.recordAll(config), Effect.never))
  }
  const signal = yield* Effect.raceFirst(shutdown.requested, FiberSet.join(loops))
  isEnding = true
  health.setServing(false)
  yield* Effect.logInfo("received shutdown signal", { signal })
}, Effect.scoped)
