/**
 * What was said about a key that fails, so that it is not said again and again: each complaint once until the key
 * succeeds, and at most once in five minutes if it succeeds and fails in turn.
 *
 * Remembers keys that fail, and those that did in the last minutes; of each its last few complaints.
 */

const EVERY_MILLIS = 300_000
const PER_KEY_MAX = 20

interface Said {
  readonly millis: number
  /** The key has not succeeded since. */
  readonly isOpen: boolean
}

export interface Complaints {
  /** @shape (key, complaint, nowMillis) -> whether it is to be said now */
  readonly isNew: (key: string, complaint: string, nowMillis: number) => boolean
  /** @shape (key, nowMillis) -> whether anything was said since it last succeeded */
  readonly settle: (key: string, nowMillis: number) => boolean
  /** Keys that are remembered. */
  readonly size: () => number
}

/** @shape () -> nothing was said yet */
export const complaints = (): Complaints => {
  const keys = new Map<string, Map<string, Said>>()
  let sweptMillis = Number.NEGATIVE_INFINITY

  const sweep = (nowMillis: number) => {
    if (nowMillis - sweptMillis < EVERY_MILLIS) return
    sweptMillis = nowMillis
    for (const [key, said] of keys) {
      for (const [complaint, { isOpen, millis }] of said) {
        if (!isOpen && nowMillis - millis >= EVERY_MILLIS) said.delete(complaint)
      }
      if (said.size === 0) keys.delete(key)
    }
  }

  return {
    isNew: (key, complaint, nowMillis) => {
      sweep(nowMillis)
      const said = keys.get(key) ?? new Map<string, Said>()
      const before = said.get(complaint)
      if (before !== undefined && (before.isOpen || nowMillis - before.millis < EVERY_MILLIS)) return false
      // The last one that was said comes last.
      said.delete(complaint)
      said.set(complaint, { millis: nowMillis, isOpen: true })
      for (const oldest of said.keys()) {
        if (said.size <= PER_KEY_MAX) break
        said.delete(oldest)
      }
      keys.set(key, said)
      return true
    },
    settle: (key, nowMillis) => {
      sweep(nowMillis)
      const said = keys.get(key)
      if (said === undefined) return false
      const wasOpen = [...said.values()].some(({ isOpen }) => isOpen)
      for (const [complaint, { millis }] of said) said.set(complaint, { millis, isOpen: false })
      return wasOpen
    },
    size: () => keys.size
  }
}
