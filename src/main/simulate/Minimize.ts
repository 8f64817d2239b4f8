/**
 * Shrinks a failing run to the few faults that matter: delta debugging over the rates that were drawn, then over hours.
 *
 * Without a fault the rest of a run happens otherwise, so that a few neighbours of the seed are tried as well before a
 * fault is said to be needed. What is found breaks the same promise, and is itself one command.
 */
import type { Rates, RunResult, Scenario } from "../../../layers/fake/simulation/Scenario.ts"

export interface Minimized {
  readonly seed: number
  readonly hours: number
  readonly rates: Rates
  readonly result: RunResult
  readonly tries: number
}

export interface MinimizeOptions {
  readonly scenario: Scenario
  readonly seed: number
  readonly hours: number
  readonly change: ((drawn: Rates) => Rates) | undefined
  /** Told before each try: which faults are left, and the seed. */
  readonly onTry: (names: ReadonlyArray<string>, seed: number, hours: number) => void
}

/** The seed itself and its neighbours. */
const SEEDS_TRIED = 6
const TRIES_MAX = 300
const HOURS_MIN = 0.1
const DIGITS = 3

const promiseOf = ({ violation }: RunResult) =>
  violation === undefined ? undefined : `${violation.id} ${violation.invariant}`

/** @shape (items, n) -> the items in n parts of about the same length */
const partsOf = <A>(items: ReadonlyArray<A>, n: number): ReadonlyArray<ReadonlyArray<A>> =>
  Array.from({ length: n }, (_, index) =>
    items.slice(Math.floor((index * items.length) / n), Math.floor(((index + 1) * items.length) / n))
  )

/**
 * @shape  (options) -> Minimized; undefined when the run breaks no promise
 * @source Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input, 2002: ddmin
 */
export const minimize = ({ change, hours, onTry, scenario, seed }: MinimizeOptions): Minimized | undefined => {
  const whole = scenario.run({ seed, hours, ...(change === undefined ? {} : { rates: change }) })
  const promise = promiseOf(whole)
  if (promise === undefined) return undefined
  const drawn = Object.fromEntries(
    Object.entries(whole.rates ?? {})
      .filter(([, rate]) => rate > 0)
      // As they are printed, so that the command is the run.
      .map(([name, rate]) => [name, Number(rate.toPrecision(DIGITS))])
  )
  let tries = 1

  const attempt = (names: ReadonlyArray<string>, hoursTried: number, first: number): Minimized | undefined => {
    const rates = Object.fromEntries(Object.entries(drawn).filter(([name]) => names.includes(name)))
    const off = Object.fromEntries(Object.keys(whole.rates ?? {}).map((name) => [name, 0]))
    for (let index = 0; index < SEEDS_TRIED && tries < TRIES_MAX; index++) {
      const other = index === 0 ? first : seed + index
      onTry(names, other, hoursTried)
      tries += 1
      const result = scenario.run({ seed: other, hours: hoursTried, rates: () => ({ ...off, ...rates }) })
      if (promiseOf(result) === promise) return { seed: other, hours: hoursTried, rates, result, tries }
    }
    return undefined
  }

  const every = Object.keys(drawn)
  let best = attempt(every, hours, seed)
  // Rounded rates are another run; without any luck the run is as small as it gets.
  if (best === undefined) return { seed, hours, rates: whole.rates ?? {}, result: whole, tries }

  const shorten = (from: Minimized, names: ReadonlyArray<string>): Minimized => {
    let shortest = from
    for (;;) {
      const half = Number((shortest.hours / 2).toPrecision(2))
      const found = half < HOURS_MIN ? undefined : attempt(names, half, shortest.seed)
      if (found === undefined) return shortest
      shortest = found
    }
  }

  let names: ReadonlyArray<string> = every
  for (let n = 2; names.length > 0; ) {
    const parts = partsOf(names, Math.min(n, names.length))
    const without = parts.map((part) => names.filter((name) => !part.includes(name)))
    let found: Minimized | undefined
    for (const candidate of without) {
      found = attempt(candidate, best.hours, best.seed)
      if (found === undefined) continue
      names = candidate
      best = found
      break
    }
    if (found !== undefined) n = Math.max(2, n - 1)
    else if (n >= names.length) break
    else n = Math.min(2 * n, names.length)
  }
  // Last: in a short run, what is rare may not happen at all.
  best = shorten(best, names)
  return { ...best, tries }
}
