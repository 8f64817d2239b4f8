/**
 * Provider plugins as a port. A call is made once: what to do about a failure is the program's business.
 */
import { Context, type Effect } from "effect"
import type { ProviderCallFailed, ProviderNameInvalid, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import type { MountRequest, MountResponse, VersionResponse } from "../../schemas/Provider.ts"

type CallFailed = ProviderNameInvalid | ProviderNotFound | ProviderCallFailed

export class Providers extends Context.Service<
  Providers,
  {
    /** Succeeds once the provider's socket exists; waits for it at most this long (0: looks once). */
    readonly locate: (
      provider: string,
      waitMillis: number
    ) => Effect.Effect<void, ProviderNameInvalid | ProviderNotFound>
    /**
     * Asks for the content of a volume. Waits for a provider whose socket exists but does not accept yet; has no time
     * limit of its own. Interruption cancels the call.
     */
    readonly mount: (provider: string, request: MountRequest) => Effect.Effect<MountResponse, CallFailed>
    /** Unlike `mount`, fails at once when the socket does not accept. */
    readonly version: (provider: string) => Effect.Effect<VersionResponse, CallFailed>
    /** Names of the providers that were called successfully or are connected, sorted. */
    readonly known: Effect.Effect<ReadonlyArray<string>>
  }
>()("secrets-store/ports/Providers") {}
