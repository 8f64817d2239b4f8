/**
 * The simulation: the whole driver on a node in memory, where one seed decides what happens in which order and what goes
 * wrong. Nothing outside of this process is touched.
 *
 * The exit code is 0 when every promise held in every run, and 1 with the first violation and the command that replays
 * it.
 */
import { writeSync } from "node:fs"
import { parseArgs } from "node:util"
import { run } from "../../layers/fake/NodeSimulation.ts"
import type { RunResult } from "../../layers/fake/simulation/Scenario.ts"

const USAGE = `usage: npm run simulate [-- flags]

Runs the node driver against a simulated kubelet, API server, disk and providers, with faults, and checks its promises.

  --seed N   which run (default: drawn, and printed)
  --hours H  virtual hours of faults, 0.1 to 240 (default 2)
  --runs N   how many runs, of consecutive seeds, 1 to 100000 (default 1)
`

const EXIT_VIOLATED = 1
const EXIT_USAGE = 2
const SEED_MAX = 2 ** 31 - 1
const HOURS_MIN = 0.1
const HOURS_MAX = 240
const RUNS_MAX = 100_000
const HOUR_MILLIS = 3_600_000
const STDOUT = 1
const STDERR = 2

interface Flags {
  readonly seed: number
  readonly hours: number
  readonly runs: number
}

const number = (name: string, text: string, min: number, max: number, isWhole: boolean): number => {
  const value = /^\d+(?:\.\d+)?$/u.test(text) ? Number(text) : Number.NaN
  if (value >= min && value <= max && (!isWhole || Number.isInteger(value))) return value
  const kind = isWhole ? "a whole number" : "a number"
  throw new Error(`invalid value ${JSON.stringify(text)} for --${name}: give ${kind} from ${min} to ${max}`)
}

/** @shape (words, drawn seed) -> the flags, or what is wrong with them; undefined when help is asked for */
const parse = (words: ReadonlyArray<string>, drawn: number): Flags | string | undefined => {
  try {
    const { values } = parseArgs({
      args: [...words],
      options: {
        seed: { type: "string", default: String(drawn) },
        hours: { type: "string", default: "2" },
        runs: { type: "string", default: "1" },
        help: { type: "boolean", short: "h", default: false }
      }
    })
    if (values.help) return undefined
    return {
      seed: number("seed", values.seed, 0, SEED_MAX, true),
      hours: number("hours", values.hours, HOURS_MIN, HOURS_MAX, false),
      runs: number("runs", values.runs, 1, RUNS_MAX, true)
    }
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause)
  }
}

const say = (...lines: ReadonlyArray<string>): void => {
  writeSync(STDOUT, lines.map((line) => `${line}\n`).join(""))
}

const hoursOf = (millis: number): string => (millis / HOUR_MILLIS).toFixed(2)

const listed = (figures: ReadonlyArray<readonly [string, number]>): string =>
  figures.length === 0 ? "none" : figures.map(([name, count]) => `${name} ${count}`).join(", ")

/** A list in lines of a screen's width, below a title. */
const folded = (title: string, text: string): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const part of text.split(", ")) {
    if (line !== "" && line.length + part.length > 96) {
      lines.push(`${line},`)
      line = ""
    }
    line = line === "" ? part : `${line}, ${part}`
  }
  lines.push(line)
  return lines.map((each, index) => `  ${(index === 0 ? title : "").padEnd(12)} ${each}`)
}

const details = ({ history, rates: drawn, summary }: RunResult): ReadonlyArray<string> => {
  const rates = Object.entries(drawn ?? {}).filter(([, rate]) => rate > 0)
  return [
    ...summary.flatMap(([title, text]) => folded(title, text)),
    ...folded(
      "drawn",
      listed(rates.map(([name, rate]) => [name, rate < 1 ? Number(rate.toPrecision(2)) : Math.round(rate)]))
    ),
    ...folded("faults", listed(history.figuresOf("fault "))),
    ...folded("port calls", listed(history.figuresOf("call ")))
  ]
}

const replay = ({ hours }: Flags, seed: number): string => `npm run simulate -- --seed ${seed} --hours ${hours}`

const showViolation = (flags: Flags, { history, seed, violation }: RunResult): void => {
  if (violation === undefined) return
  say(
    "",
    `VIOLATED ${violation.id} ${violation.invariant}, seed ${seed}, at ${violation.virtualMillis} ms of virtual time:`,
    `  ${violation.seen}`,
    "",
    "what happened last (milliseconds, then life of the driver and port call):",
    ...history.last().map((line) => `  ${line}`),
    "",
    `replay: ${replay(flags, seed)}`
  )
}

const simulateAll = (flags: Flags): number => {
  const started = process.hrtime.bigint()
  let steps = 0
  let virtualMillis = 0
  for (let index = 0; index < flags.runs; index++) {
    const seed = flags.seed + index
    const result = run({ seed, hours: flags.hours })
    steps += result.steps
    virtualMillis += result.virtualMillis
    const checks = result.history.figure("checks")
    say(`seed ${seed}: ${result.steps} steps, ${checks} checks, digest ${result.digest.slice(0, 32)}`)
    if (flags.runs === 1) say(...details(result))
    if (result.violation !== undefined) {
      showViolation(flags, result)
      return EXIT_VIOLATED
    }
  }
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  say(
    "",
    `every promise held: ${flags.runs} ${flags.runs === 1 ? "run" : "runs"}, ${hoursOf(virtualMillis)} virtual hours, ${steps} steps in ${seconds.toFixed(1)} s`,
    `replay: ${replay(flags, flags.seed)}${flags.runs === 1 ? "" : ` --runs ${flags.runs}`}`
  )
  return 0
}

const main = (words: ReadonlyArray<string>): number => {
  // The one number of a run that is not from its seed is the seed.
  const flags = parse(words, Number(process.hrtime.bigint() % 1_000_000n))
  if (flags === undefined) {
    writeSync(STDOUT, USAGE)
    return 0
  }
  if (typeof flags === "string") {
    writeSync(STDERR, `${flags}\n\n${USAGE}`)
    return EXIT_USAGE
  }
  return simulateAll(flags)
}

process.exitCode = main(process.argv.slice(2))
