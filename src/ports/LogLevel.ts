/**
 * How much is logged, as a port: it can be changed while the process runs.
 */
import { Context, type Effect } from "effect"

export class LogLevel extends Context.Service<
  LogLevel,
  {
    /** klog's -v. */
    readonly current: Effect.Effect<number>
    readonly set: (verbosity: number) => Effect.Effect<void>
  }
>()("secrets-store/ports/LogLevel") {}
