/**
 * From what a Reflector tells to the keys of a WorkQueue.
 *
 * Remembers which keys an object had: an object that names others now, or is gone, concerns those that it named before.
 */
import { Effect } from "effect"
import type { Change } from "./Reflector.ts"

/**
 * A Reflector's `onChange` that enqueues the keys of every object told, before and after; a list means all of them.
 *
 * @shape  (add, keysOf: (object) -> keys) -> onChange
 * @errors none
 */
export const enqueueKeys = <A>(
  add: (key: string) => void,
  keysOf: (object: A) => Iterable<string>
): ((change: Change<A>) => Effect.Effect<void>) => {
  const known = new Map<string, ReadonlyArray<string>>()
  const look = (id: string, object: A | undefined) => {
    const before = known.get(id) ?? []
    const now = object === undefined ? [] : [...keysOf(object)]
    if (now.length > 0) known.set(id, now)
    else known.delete(id)
    for (const key of new Set([...before, ...now])) add(key)
  }
  return (change) =>
    Effect.sync(() => {
      if (change._tag === "Synced") for (const [id, object] of change.objects) look(id, object)
      else look(change.key, change._tag === "Applied" ? change.object : undefined)
    })
}
