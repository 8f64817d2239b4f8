/**
 * Shutdown by signal. The first SIGTERM or SIGINT is a request; a second one ends the process at once with status 1,
 * for whoever does not want to wait. The process is listened to for as long as the layer lives.
 *
 * @source reference/driver.md 1.5
 */
import { Deferred, Effect, Layer } from "effect"
import { Shutdown } from "../../src/ports/Shutdown.ts"

const SIGNALS = ["SIGTERM", "SIGINT"] as const

/** What of a process is needed; a test brings its own. */
export interface SignalSource {
  readonly on: (signal: (typeof SIGNALS)[number], listener: (signal: string) => void) => unknown
  readonly off: (signal: (typeof SIGNALS)[number], listener: (signal: string) => void) => unknown
  readonly exit: (status: number) => unknown
}

export const layerOf = (source: SignalSource): Layer.Layer<Shutdown> =>
  Layer.effect(
    Shutdown,
    Effect.gen(function* () {
      const first = Deferred.makeUnsafe<string>()
      const listener = (signal: string) => {
        if (!Deferred.doneUnsafe(first, Effect.succeed(signal))) source.exit(1)
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          for (const signal of SIGNALS) source.on(signal, listener)
        }),
        () =>
          Effect.sync(() => {
            for (const signal of SIGNALS) source.off(signal, listener)
          })
      )
      return Shutdown.of({ requested: Deferred.await(first) })
    })
  )

export const layer: Layer.Layer<Shutdown> = layerOf(process)
