/**
 * Whoever wants to hear of a change at the moment in which it happens, to look at it later.
 */
import { Effect, type Scope } from "effect"

export interface Listeners<Args extends ReadonlyArray<unknown>> {
  /** Until the scope closes. A listener runs at once, does not fail and does not work itself: it notes and wakes. */
  readonly add: (listener: (...args: Args) => void) => Effect.Effect<void, never, Scope.Scope>
  readonly tell: (...args: Args) => void
}

/** @shape () -> none yet */
export const listeners = <Args extends ReadonlyArray<unknown>>(): Listeners<Args> => {
  const all = new Set<(...args: Args) => void>()
  return {
    add: (listener) =>
      Effect.asVoid(
        Effect.acquireRelease(
          Effect.sync(() => all.add(listener)),
          () => Effect.sync(() => all.delete(listener))
        )
      ),
    tell: (...args) => {
      for (const listener of all) listener(...args)
    }
  }
}
