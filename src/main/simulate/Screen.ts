/**
 * A run in words, on one screen.
 */
import type { RunResult } from "../../../layers/fake/simulation/Scenario.ts"

const WIDTH = 96
const TITLE_WIDTH = 12
const DIGEST_SHOWN = 32
const LINE_LENGTH_MAX = 220
const HOUR_MILLIS = 3_600_000

export const hoursOf = (millis: number): string => (millis / HOUR_MILLIS).toFixed(2)

const listed = (figures: ReadonlyArray<readonly [string, number]>): string =>
  figures.length === 0 ? "none" : figures.map(([name, count]) => `${name} ${count}`).join(", ")

/** A list in lines of a screen's width, below a title. */
const folded = (title: string, text: string): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const part of text.split(", ")) {
    if (line !== "" && line.length + part.length > WIDTH) {
      lines.push(`${line},`)
      line = ""
    }
    line = line === "" ? part : `${line}, ${part}`
  }
  lines.push(line)
  return lines.map((each, index) => `  ${(index === 0 ? title : "").padEnd(TITLE_WIDTH)} ${each}`)
}

/** As people read them: chances with two digits, intervals whole. */
export const drawnRates = ({ rates }: Pick<RunResult, "rates">): ReadonlyArray<readonly [string, number]> =>
  Object.entries(rates ?? {})
    .filter(([, rate]) => rate > 0)
    .map(([name, rate]) => [name, rate < 1 ? Number(rate.toPrecision(2)) : Math.round(rate)])

export const headline = ({ digest, history, seed, steps }: RunResult): string =>
  `seed ${seed}: ${steps} steps, ${history.figure("checks")} checks, digest ${digest.slice(0, DIGEST_SHOWN)}`

/** @shape (result) -> lines: what was drawn, and what happened */
export const details = (result: RunResult): ReadonlyArray<string> => [
  ...result.summary.flatMap(([title, text]) => folded(title, text)),
  ...folded("drawn", listed(drawnRates(result))),
  ...folded("faults", listed(result.history.figuresOf("fault "))),
  ...folded("port calls", listed(result.history.figuresOf("call ")))
]

/** @shape (result) -> lines: the broken promise and what led to it; none when all were kept */
export const violationLines = ({ history, seed, violation }: RunResult): ReadonlyArray<string> =>
  violation === undefined
    ? []
    : [
        "",
        `VIOLATED ${violation.id} ${violation.invariant}, seed ${seed}, at ${Math.round(violation.virtualMillis)} ms of virtual time:`,
        `  ${violation.seen}`,
        "",
        "what happened last (milliseconds, then where, and what):",
        ...upTo(history.last(), violation.seen).map((line) => `  ${cut(line.replace(/^(\d+)\.\d+/u, "$1"))}`)
      ]

const cut = (line: string) => (line.length <= LINE_LENGTH_MAX ? line : `${line.slice(0, LINE_LENGTH_MAX)}...`)

/** Without what was still under way when the promise broke. */
const upTo = (lines: ReadonlyArray<string>, seen: string): ReadonlyArray<string> => {
  const last = lines.findIndex((line) => line.endsWith(seen))
  return last < 0 ? lines : lines.slice(0, last + 1)
}
