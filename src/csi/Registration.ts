/**
 * What the driver tells the kubelet's plugin watcher, and what it does with the answer.
 *
 * @source node-driver-registrar v2.16; reference/wire.md (c), reference/driver.md 8.4, 10
 */
import { Deferred, Effect, Schedule } from "effect"
import type { PluginInfo, RegistrationStatus } from "../../schemas/Registration.ts"
import { PluginRegistry } from "../ports/PluginRegistry.ts"
import { Health } from "./Health.ts"

const retryAfterRefusal = Schedule.spaced("5 seconds")

export const pluginInfo = (driverName: string, endpoint: string): PluginInfo => ({
  type: "CSIPlugin",
  name: driverName,
  endpoint,
  supportedVersions: ["1.0.0"]
})

/**
 * Stays registered until interrupted. The kubelet looks at a registration socket once, when it appears; after a
 * refusal the socket is therefore withdrawn and offered again five seconds later.
 */
export const stayRegistered = Effect.fnUntraced(function* (directory: string, info: PluginInfo) {
  const registry = yield* PluginRegistry
  const health = yield* Health
  const once = Effect.scoped(
    Effect.gen(function* () {
      const refused = yield* Deferred.make<string>()
      const onStatus = ({ error, registered }: RegistrationStatus) =>
        Effect.gen(function* () {
          health.setRegistered(registered)
          if (registered) return yield* Effect.logInfo("registered with kubelet", { driver: info.name })
          yield* Effect.logError("kubelet refused the registration", { err: error })
          yield* Deferred.succeed(refused, error)
        })
      yield* registry.register(directory, info, onStatus)
      yield* Deferred.await(refused)
    })
  )
  return yield* once.pipe(
    Effect.tapError((failure) =>
      Effect.logError("registration socket not open", { err: failure.message, remedy: failure.remedy })
    ),
    Effect.ignore,
    Effect.repeat(retryAfterRefusal)
  )
})
