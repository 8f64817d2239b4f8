/**
 * Answers that are good for a while. Holds a fixed number of them: the oldest makes room.
 */
export interface ExpiringCache<A> {
  readonly get: (key: string, nowMillis: number) => A | undefined
  readonly set: (key: string, value: A, forMillis: number, nowMillis: number) => void
  readonly size: () => number
}

/** @shape (how many) -> nothing is held yet */
export const expiringCache = <A>(max: number): ExpiringCache<A> => {
  const held = new Map<string, { readonly value: A; readonly untilMillis: number }>()
  return {
    get: (key, nowMillis) => {
      const found = held.get(key)
      if (found === undefined) return undefined
      if (nowMillis < found.untilMillis) return found.value
      held.delete(key)
      return undefined
    },
    set: (key, value, forMillis, nowMillis) => {
      held.delete(key)
      held.set(key, { value, untilMillis: nowMillis + forMillis })
      for (const oldest of held.keys()) {
        if (held.size <= max) break
        held.delete(oldest)
      }
    },
    size: () => held.size
  }
}
