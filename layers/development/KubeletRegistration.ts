/**
 * Plays the kubelet's plugin watcher: asks the registration socket who is there, asks that plugin for its node id, and
 * says that it is registered. For the demo and the tests.
 *
 * @source reference/wire.md (c); kubelet, pluginmanager and csi_plugin.go
 */
import * as grpc from "@grpc/grpc-js"
import { Effect, type Scope } from "effect"
import { NodeClient } from "../../proto/gen/csi.ts"
import { type PluginInfo, RegistrationClient } from "../../proto/gen/registration.ts"
import { type CsiCallFailed, call } from "./Kubelet.ts"

/** The kubelet's limits, in milliseconds. */
const REGISTRATION_MILLIS = 10_000
const NODE_INFO_MILLIS = 120_000

export interface Registered {
  readonly info: PluginInfo
  readonly nodeId: string
}

const connected = <A extends grpc.Client>(open: () => A): Effect.Effect<A, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.sync(open), (client) => Effect.sync(() => client.close()))

/**
 * Registers the plugin behind a registration socket, in the kubelet's order.
 *
 * @shape  (path of the registration socket) -> what the plugin says of itself, and its node id
 * @errors CsiCallFailed when one of the calls is not answered with OK
 */
export const register = (socket: string): Effect.Effect<Registered, CsiCallFailed> =>
  Effect.scoped(
    Effect.gen(function* () {
      const credentials = grpc.credentials.createInsecure()
      const plugin = yield* connected(() => new RegistrationClient(`unix:${socket}`, credentials))
      const info = yield* call<PluginInfo>(
        (metadata, settings, answer) => plugin.getInfo({}, metadata, settings, answer),
        REGISTRATION_MILLIS
      )
      const node = yield* connected(() => new NodeClient(`unix:${info.endpoint}`, credentials))
      const { nodeId } = yield* call<{ readonly nodeId: string }>(
        (metadata, settings, answer) => node.nodeGetInfo({}, metadata, settings, answer),
        NODE_INFO_MILLIS
      )
      yield* call(
        (metadata, settings, answer) =>
          plugin.notifyRegistrationStatus({ pluginRegistered: true, error: "" }, metadata, settings, answer),
        REGISTRATION_MILLIS
      )
      return { info, nodeId }
    })
  )
