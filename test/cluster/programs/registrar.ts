/**
 * Stands in for upstream's registrar sidecar, whose module cannot be had everywhere: asks the driver for its name and
 * registers it with the kubelet.
 *
 * @source kubernetes-csi/node-driver-registrar v2.16; reference/operator.md 5.3, reference/wire.md (c)
 */
import * as grpc from "@grpc/grpc-js"
import { Effect, Schedule } from "effect"
import * as Grpc from "../../../layers/real/Grpc.ts"
import * as PluginRegistrySocket from "../../../layers/real/PluginRegistrySocket.ts"
import * as Wire from "../../../proto/gen/csi.ts"
import { pluginInfo } from "../../../src/csi/Registration.ts"
import { PluginRegistry } from "../../../src/ports/PluginRegistry.ts"
import { flag, serveHealth } from "./run.ts"

const driverName = Effect.gen(function* () {
  const client = yield* Effect.acquireRelease(
    Effect.sync(() => new grpc.Client(`unix:${flag("csi-address")}`, grpc.credentials.createInsecure())),
    (it) => Effect.sync(() => it.close())
  )
  return yield* Grpc.unary(client, Wire.IdentityService.getPluginInfo, {}, { timeoutMillis: 5_000 })
}).pipe(Effect.scoped, Effect.retry(Schedule.spaced("1 second")))

export const registrar = Effect.gen(function* () {
  const { name } = yield* driverName
  const registry = yield* PluginRegistry
  yield* registry.register("/registration", pluginInfo(name, flag("kubelet-registration-path")), (status) =>
    Effect.sync(() => process.stdout.write(`${JSON.stringify(status)}\n`))
  )
  yield* serveHealth(flag("http-endpoint"), Effect.void)
  return yield* Effect.never
}).pipe(Effect.scoped, Effect.provide(PluginRegistrySocket.layer))
