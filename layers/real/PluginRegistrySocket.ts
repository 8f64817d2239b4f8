/**
 * The registration socket: the kubelet's plugin watcher finds it in its directory and asks it who we are.
 *
 * @source node-driver-registrar v2.16; reference/wire.md (c)
 */
import { chmodSync, existsSync, mkdtempSync, renameSync, rmSync, unlinkSync } from "node:fs"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import * as Wire from "../../proto/gen/registration.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { PluginRegistry } from "../../src/ports/PluginRegistry.ts"
import { handleUnary, removeStaleSocket, serve } from "./Grpc.ts"

/** Calls here are short; nobody waits for them when the driver stops. */
const GRACE_MILLIS = 1_000
const SOCKET_MODE = 0o600

const attempt = <A>(endpoint: string, step: () => A) =>
  Effect.try({
    try: step,
    catch: (cause) => new EndpointFailed({ endpoint, detail: cause instanceof Error ? cause.message : String(cause) })
  })

export const layer: Layer.Layer<PluginRegistry> = Layer.succeed(
  PluginRegistry,
  PluginRegistry.of({
    register: Effect.fnUntraced(function* (directory, info, onStatus) {
      const path = join(directory, `${info.name}-reg.sock`)
      const context = yield* Effect.context<never>()
      yield* removeStaleSocket(path)
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          if (existsSync(path)) unlinkSync(path)
        })
      )
      // Opened where nobody else may look, then moved: the socket is never there with wider permissions. The umask is
      // the whole process's and stays out of it. The kubelet overlooks names that start with a dot.
      const hidden = yield* Effect.acquireRelease(
        attempt(path, () => mkdtempSync(join(directory, `.${info.name}-`))),
        (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
      )
      const opened = join(hidden, "reg.sock")
      yield* serve({
        address: `unix:${opened}`,
        graceMillis: GRACE_MILLIS,
        register: (server) =>
          server.addService(Wire.RegistrationService, {
            getInfo: handleUnary<Wire.InfoRequest, Wire.PluginInfo>(context, () =>
              Effect.succeed({ ...info, supportedVersions: [...info.supportedVersions] })
            ),
            notifyRegistrationStatus: handleUnary<Wire.RegistrationStatus, Wire.RegistrationStatusResponse>(
              context,
              ({ error, pluginRegistered }) => Effect.as(onStatus({ registered: pluginRegistered, error }), {})
            )
          })
      })
      yield* attempt(path, () => {
        chmodSync(opened, SOCKET_MODE)
        renameSync(opened, path)
      })
    })
  })
)
