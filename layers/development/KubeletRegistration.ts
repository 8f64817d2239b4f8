/**
 * Plays the kubelet's plugin watcher: asks the registration socket who is there, asks that plugin for its node id, and
 * says that it is registered. For the demo and the tests.
 *
 * @source reference/wire.md (c); kubelet, pluginmanager and csi_plugin.go
 */
import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import * as grpc from "@grpc/grpc-js"
import { Effect, Schedule, type Scope } from "effect"
import { NodeClient } from "../../proto/gen/csi.ts"
import { type PluginInfo, RegistrationClient } from "../../proto/gen/registration.ts"
import { type CsiCallFailed, call } from "./Kubelet.ts"

/** The kubelet's limits, in milliseconds. */
const REGISTRATION_MILLIS = 10_000
const NODE_INFO_MILLIS = 120_000

interface Registered {
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
const register = (socket: string): Effect.Effect<Registered, CsiCallFailed> =>
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

export interface PluginWatcher {
  /** Everybody that was registered so far, in order. */
  readonly registered: () => ReadonlyArray<Registered>
  /** Until interrupted. */
  readonly run: Effect.Effect<never>
}

const often = Schedule.spaced("50 millis")

/** Files that came and went under the same name are told apart. */
const identityOf = (path: string): string | undefined => {
  const found = statSync(path, { throwIfNoEntry: false })
  return found?.isSocket() === true ? `${path} ${found.ino} ${found.ctimeMs}` : undefined
}

/**
 * Registers every plugin whose socket appears in a directory, once per socket; one that could not be is tried again.
 *
 * @shape  (directory that plugins put their registration sockets into) -> PluginWatcher
 * @errors none
 */
export const watch = (directory: string): PluginWatcher => {
  const registered: Array<Registered> = []
  const seen = new Set<string>()
  const look = Effect.gen(function* () {
    for (const name of readdirSync(directory)) {
      const path = join(directory, name)
      const identity = identityOf(path)
      if (identity === undefined || seen.has(identity)) continue
      const done = yield* Effect.option(register(path))
      if (done._tag === "None") continue
      seen.add(identity)
      registered.push(done.value)
    }
  })
  return { registered: () => registered, run: Effect.andThen(Effect.repeat(look, often), Effect.never) }
}
