/**
 * A run's chance, for code that must not wait: the generator is the one that also orders the run's fibers.
 */
import { Effect, Random } from "effect"

export interface Chance {
  /** In [from, to). */
  readonly between: (from: number, to: number) => number
  /** A whole number in [0, n). */
  readonly below: (n: number) => number
  readonly happens: (rate: number) => boolean
  /** Swarm: nothing in a third of all runs, else anything up to the maximum. */
  readonly sometimes: (max: number) => number
  /** Dies when there is nothing to take. */
  readonly oneOf: <A>(items: ReadonlyArray<A>) => A
}

/** The chance of the run that asks. */
export const make: Effect.Effect<Chance> = Effect.map(Random.Random, (random): Chance => {
  const next = () => random.nextDoubleUnsafe()
  const below = (n: number) => Math.floor(next() * n)
  return {
    between: (from, to) => from + next() * (to - from),
    below,
    happens: (rate) => rate > 0 && next() < rate,
    sometimes: (max) => (next() < 1 / 3 ? 0 : next() * max),
    oneOf: (items) => {
      const item = items[below(items.length)]
      if (item === undefined) throw new Error("there is nothing to take one of")
      return item
    }
  }
})

/** Swarm: a mean interval between an eighth of the longest and the longest, or 0, which is never. */
export const interval = (chance: Chance, longest: number): number => {
  const share = chance.sometimes(1)
  return share === 0 ? 0 : (longest / 8) * (1 + 7 * share)
}

/** Swarm, of whole kinds of faults: in some runs there is none of a kind, and the others are met without it. */
export const ofAKind = (chance: Chance): Chance => (chance.happens(0.25) ? { ...chance, sometimes: () => 0 } : chance)

/** Repeats something at random intervals of a mean length; never when that is 0. */
export const every = (chance: Chance, meanMillis: number, what: Effect.Effect<void>): Effect.Effect<void> =>
  meanMillis === 0
    ? Effect.never
    : Effect.forever(
        Effect.andThen(
          Effect.suspend(() => Effect.sleep(chance.between(0, 2 * meanMillis))),
          what
        )
      )
