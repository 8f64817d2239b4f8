/**
 * klog's verbosity for Effect's log functions: `logV(5)("words", fields)` is written when the driver runs with `-v=5`
 * or more. Errors and ordinary lines use `Effect.logError` and `Effect.logInfo`.
 *
 * @source reference/driver.md 1.3, 1.4
 */
import { Context, Effect, type Fiber } from "effect"

/** The process's -v. */
export const Verbosity = Context.Reference<number>("secrets-store/telemetry/Verbosity", { defaultValue: () => 0 })

/** Wins over `Verbosity` where it can be changed while the process runs. */
export const ChangingVerbosity = Context.Reference<{ readonly now: () => number } | undefined>(
  "secrets-store/telemetry/ChangingVerbosity",
  { defaultValue: () => undefined }
)

/** @shape (fiber) -> the verbosity that holds for it just now */
export const verbosityOf = (fiber: Fiber.Fiber<unknown, unknown>): number =>
  fiber.getRef(ChangingVerbosity)?.now() ?? fiber.getRef(Verbosity)

/** The verbosity that the line being written asked for; the JSON format derives its level from it. */
export const LineVerbosity = Context.Reference<number>("secrets-store/telemetry/LineVerbosity", {
  defaultValue: () => 0
})

/**
 * The annotation that a log line prints as its caller, "<file>:<line>". A bundled program has no useful line numbers,
 * so an area names itself once, with line 0, and everything else is `DEFAULT_CALLER`.
 */
export const CALLER_KEY = "caller"
export const DEFAULT_CALLER = "driver.ts:0"

/**
 * Writes a line only when the process is at least this verbose; costs next to nothing otherwise.
 *
 * @shape  (level) -> (constant words, fields?) -> Effect<void>
 * @errors none
 * @source klog V(n).InfoS; reference/driver.md 1.3
 */
export const logV =
  (level: number) =>
  (message: string, fields: Readonly<Record<string, unknown>> = {}): Effect.Effect<void> =>
    Effect.withFiber((fiber) =>
      verbosityOf(fiber) >= level
        ? Effect.provideService(Effect.logInfo(message, fields), LineVerbosity, level)
        : Effect.void
    )
