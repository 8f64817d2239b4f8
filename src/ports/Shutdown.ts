/**
 * Being told to stop, as a port.
 */
import { Context, type Effect } from "effect"

export class Shutdown extends Context.Service<
  Shutdown,
  {
    /**
     * Succeeds with the signal's name ("SIGTERM", "SIGINT") once the process has been told to stop, and at once for
     * whoever asks later.
     */
    readonly requested: Effect.Effect<string>
  }
>()("secrets-store/ports/Shutdown") {}
