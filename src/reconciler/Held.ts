/**
 * Things that are open while they are wanted, by key: each has a scope of its own, which ends when its key is not wanted
 * any more, and with the scope in which all of them were made.
 */
import { Effect, Exit, Scope, Semaphore } from "effect"

export interface Held<A> {
  /** Opens what is wanted and not open yet, and closes what is not wanted. */
  readonly keep: (wanted: ReadonlySet<string>) => Effect.Effect<void>
  readonly get: (key: string) => A | undefined
}

/**
 * @shape  (open: (key) -> what is held, until its scope closes) -> Held
 * @errors none
 */
export const make = Effect.fnUntraced(function* <A>(
  open: (key: string) => Effect.Effect<A, never, Scope.Scope>
): Effect.fn.Return<Held<A>, never, Scope.Scope> {
  const all = new Map<string, { readonly scope: Scope.Closeable; readonly value: A }>()
  yield* Effect.addFinalizer(() =>
    Effect.forEach([...all.values()], ({ scope }) => Scope.close(scope, Exit.void), { discard: true })
  )
  // Two who want the same thing at once must not open it twice.
  const one = yield* Semaphore.make(1)
  const keep = Effect.fnUntraced(function* (wanted: ReadonlySet<string>) {
    for (const [key, { scope }] of [...all]) {
      if (wanted.has(key)) continue
      all.delete(key)
      yield* Scope.close(scope, Exit.void)
    }
    for (const key of wanted) {
      if (all.has(key)) continue
      const scope = yield* Scope.make()
      all.set(key, { scope, value: yield* Scope.provide(open(key), scope) })
    }
  })
  return {
    keep: (wanted) => one.withPermits(1)(Effect.uninterruptible(keep(wanted))),
    get: (key) => all.get(key)?.value
  }
})
