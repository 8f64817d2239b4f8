/**
 * Keys and the times at which they are to be looked at, the earliest first. A key has one time; as many entries are held
 * as there are keys.
 */

export interface Agenda {
  /** Replaces the key's time, if it has one. */
  readonly set: (key: string, millis: number) => void
  readonly delete: (key: string) => void
  readonly first: () => { readonly key: string; readonly millis: number } | undefined
  readonly size: () => number
}

interface Entry {
  readonly key: string
  readonly millis: number
  /** Of two with the same time, the one that was set first comes first. */
  readonly order: number
}

const isBefore = (a: Entry, b: Entry): boolean => a.millis < b.millis || (a.millis === b.millis && a.order < b.order)

/** @shape () -> nothing yet */
export const agenda = (): Agenda => {
  // Sorted: to move some thousand references in one block costs less than to keep a heap and its holes.
  const sorted: Array<Entry> = []
  const entries = new Map<string, Entry>()
  let order = 0

  /** Where the entry is, or would be. */
  const indexOf = (entry: Entry): number => {
    let [low, high] = [0, sorted.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = sorted[middle]
      if (other !== undefined && isBefore(other, entry)) low = middle + 1
      else high = middle
    }
    return low
  }
  const remove = (key: string) => {
    const entry = entries.get(key)
    if (entry === undefined) return
    entries.delete(key)
    sorted.splice(indexOf(entry), 1)
  }
  return {
    set: (key, millis) => {
      if (entries.get(key)?.millis === millis) return
      remove(key)
      const entry = { key, millis, order: order++ }
      entries.set(key, entry)
      sorted.splice(indexOf(entry), 0, entry)
    },
    delete: remove,
    first: () => sorted[0],
    size: () => sorted.length
  }
}
