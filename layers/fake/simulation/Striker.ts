/** Decides whether a fault strikes, and counts those that do: what kinds of faults need of all of them. */
export interface Striker {
  /** False: nothing new goes wrong. */
  readonly active: boolean
  /** @shape (site, chance per call) -> whether it goes wrong this time; counted when it does */
  readonly strikes: (site: string, rate: number) => boolean
  /** Counts a fault. */
  readonly note: (site: string) => void
}
