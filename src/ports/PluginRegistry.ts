/**
 * The kubelet's plugin registration as a port: a socket in a directory that the kubelet watches, answered for as long
 * as the driver wants to be known.
 */
import { Context, type Effect, type Scope } from "effect"
import type { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import type { PluginInfo, RegistrationStatus } from "../../schemas/Registration.ts"

export class PluginRegistry extends Context.Service<
  PluginRegistry,
  {
    /**
     * Offers the plugin at `<directory>/<name>-reg.sock` (mode 0600; a stale socket is removed first) until the scope
     * closes. Each time the kubelet says how the registration went, `onStatus` runs.
     */
    readonly register: (
      directory: string,
      info: PluginInfo,
      onStatus: (status: RegistrationStatus) => Effect.Effect<void>
    ) => Effect.Effect<void, EndpointFailed, Scope.Scope>
  }
>()("secrets-store/ports/PluginRegistry") {}
