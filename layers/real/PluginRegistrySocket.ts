/**
 * The registration socket: the kubelet's plugin watcher finds it in its directory and asks it who we are.
 *
 * @source node-driver-registrar v2.16; reference/wire.md (c)
 */
import { join } from "node:path"
import { Effect, Layer } from "effect"
import * as Wire from "../../proto/gen/registration.ts"
import { PluginRegistry } from "../../src/ports/PluginRegistry.ts"
import { serve } from "./Grpc.ts"

/** Calls here are short; nobody waits for them when the driver stops. */
const GRACE_MILLIS = 1_000
const SOCKET_MODE = 0o600

export const layer: Layer.Layer<PluginRegistry> = Layer.succeed(
  PluginRegistry,
  PluginRegistry.of({
    register: (directory, info, onStatus) =>
      serve({
        listen: { socket: join(directory, `${info.name}-reg.sock`), mode: SOCKET_MODE },
        graceMillis: GRACE_MILLIS,
        register: (server, handle) =>
          server.addService(Wire.RegistrationService, {
            getInfo: handle<Wire.InfoRequest, Wire.PluginInfo>(() =>
              Effect.succeed({ ...info, supportedVersions: [...info.supportedVersions] })
            ),
            notifyRegistrationStatus: handle<Wire.RegistrationStatus, Wire.RegistrationStatusResponse>(
              ({ error, pluginRegistered }) => Effect.as(onStatus({ registered: pluginRegistered, error }), {})
            )
          })
      })
  })
)
