/**
 * The words of the simulation's command line, and the words that lead back to a run.
 */
import { parseArgs } from "node:util"
import { DEFAULT_SCENARIO, SCENARIOS, scenarioOf, WORLDS } from "../../../layers/fake/Scenarios.ts"
import type { Rates, Scenario } from "../../../layers/fake/simulation/Scenario.ts"
import { exitCodeLines } from "./ExitCodes.ts"

export interface Flags {
  readonly scenario: Scenario
  /** What a campaign takes turns with, seed by seed: all of them unless a scenario is named. */
  readonly worlds: ReadonlyArray<Scenario>
  readonly seed: number
  readonly hours: number
  readonly runs: number
  /** Exactly these faults, and no others; undefined: as drawn. */
  readonly rates: Rates | undefined
  /** Runs of a campaign. */
  readonly campaign: number | undefined
  /** Of real time, after which a campaign begins no run. */
  readonly minutes: number | undefined
  readonly jobs: number | undefined
  readonly report: string | undefined
  readonly minimize: boolean
  readonly twice: boolean
}

const OPTIONS = {
  seed: { type: "string" },
  scenario: { type: "string" },
  hours: { type: "string" },
  runs: { type: "string", default: "1" },
  rates: { type: "string" },
  campaign: { type: "string" },
  minutes: { type: "string" },
  jobs: { type: "string" },
  report: { type: "string" },
  minimize: { type: "boolean", default: false },
  twice: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false }
} as const

/** Without their dashes. */
export const SIMULATE_FLAGS: ReadonlyArray<string> = Object.keys(OPTIONS)

const SEED_MAX = 2 ** 31 - 1
const HOURS_MIN = 0.1
const HOURS_MAX = 240
const RUNS_MAX = 100_000
const HOURS = "2"
/** Many short runs meet more than few long ones: rates are drawn anew for each. */
const CAMPAIGN_HOURS = "0.5"
const MINUTES_MIN = 0.01
const MINUTES_MAX = 10_000
const JOBS_MAX = 256

const names = () => SCENARIOS.map(({ description, name }) => `  ${name.padEnd(10)} ${description}`).join("\n")

/** @shape () -> what the command can do, on one screen */
export const usage = (): string => `usage: npm run simulate [-- flags]

Runs the programs against a simulated world, with faults, and checks their promises. One number decides all of a run.

  --seed N         which run, or the first of several (default: drawn, and printed)
  --scenario NAME  which world (default ${DEFAULT_SCENARIO}, of a campaign all in turn), see below
  --hours H        virtual hours of faults, ${HOURS_MIN} to ${HOURS_MAX} (default ${HOURS}, of a campaign ${CAMPAIGN_HOURS})
  --runs N         how many runs, of consecutive seeds, until one fails (default 1)
  --twice          also run it in another process, and compare the digests
  --rates LIST     just these faults, as name=number,name=number, or none (default: drawn)
  --report FILE    write the run as one page to look at in a browser
  --minimize       of a failing seed, find the few faults that matter
  --campaign N     run N seeds on all cores, and sum up
  --minutes M      begin no run of the campaign after this time
  --jobs J         runs of the campaign at a time (default: one per core)

scenarios:
${names()}

exit codes:
${exitCodeLines().join("\n")}
`

const number = (name: string, text: string, min: number, max: number, isWhole: boolean): number => {
  const value = /^\d+(?:\.\d+)?$/u.test(text) ? Number(text) : Number.NaN
  if (value >= min && value <= max && (!isWhole || Number.isInteger(value))) return value
  const kind = isWhole ? "a whole number" : "a number"
  throw new Error(`invalid value ${JSON.stringify(text)} for --${name}: give ${kind} from ${min} to ${max}`)
}

const optional = (name: string, text: string | undefined, min: number, max: number, isWhole: boolean) =>
  text === undefined ? undefined : number(name, text, min, max, isWhole)

const scenarioNamed = (name: string): Scenario => {
  const found = scenarioOf(name)
  if (found !== undefined) return found
  const known = SCENARIOS.map((it) => it.name).join(", ")
  throw new Error(`invalid value ${JSON.stringify(name)} for --scenario: give one of ${known}`)
}

const NO_RATES = "none"

const ratesOf = (text: string | undefined): Rates | undefined => {
  if (text === undefined) return undefined
  if (text === NO_RATES) return {}
  return Object.fromEntries(
    text.split(",").map((pair) => {
      const [, name, value] = /^([\w.]+)=(\d+(?:\.\d+)?)$/u.exec(pair) ?? []
      if (name === undefined) {
        throw new Error(`invalid value ${JSON.stringify(text)} for --rates: give name=number,name=number, or none`)
      }
      return [name, Number(value)]
    })
  )
}

/** @shape (words, drawn seed) -> the flags, or what is wrong with them; undefined when help is asked for */
export const parse = (words: ReadonlyArray<string>, drawn: number): Flags | string | undefined => {
  try {
    const { values } = parseArgs({
      args: [...words],
      options: { ...OPTIONS, seed: { type: "string", default: String(drawn) } }
    })
    if (values.help) return undefined
    const scenario = scenarioNamed(values.scenario ?? DEFAULT_SCENARIO)
    const hours = values.hours ?? (values.campaign === undefined ? HOURS : CAMPAIGN_HOURS)
    const flags: Flags = {
      scenario,
      worlds: values.scenario === undefined ? WORLDS : [scenario],
      seed: number("seed", values.seed, 0, SEED_MAX, true),
      hours: number("hours", hours, HOURS_MIN, HOURS_MAX, false),
      runs: number("runs", values.runs, 1, RUNS_MAX, true),
      rates: ratesOf(values.rates),
      campaign: optional("campaign", values.campaign, 1, RUNS_MAX, true),
      minutes: optional("minutes", values.minutes, MINUTES_MIN, MINUTES_MAX, false),
      jobs: optional("jobs", values.jobs, 1, JOBS_MAX, true),
      report: values.report,
      minimize: values.minimize,
      twice: values.twice
    }
    return contradiction(flags) ?? flags
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause)
  }
}

/** @shape (flags) -> which of them cannot be had together */
const contradiction = ({ campaign, jobs, minimize, minutes, report, runs }: Flags): string | undefined => {
  if (campaign === undefined && minutes !== undefined) return "--minutes goes with --campaign"
  if (campaign === undefined && jobs !== undefined) return "--jobs goes with --campaign"
  if (campaign !== undefined && runs > 1) return "give --campaign or --runs, not both"
  if (minimize && (campaign !== undefined || runs > 1)) return "--minimize is for one seed"
  if (report !== undefined && (campaign !== undefined || runs > 1)) return "--report is for one seed"
  return undefined
}

/** @shape (flags) -> the change of drawn rates that a scenario takes */
export const changeOf = (rates: Rates | undefined): ((drawn: Rates) => Rates) | undefined =>
  rates === undefined
    ? undefined
    : (drawn) => ({ ...Object.fromEntries(Object.keys(drawn).map((name) => [name, 0])), ...rates })

/** @shape (what to run) -> the command that runs it */
export const commandOf = ({ hours, rates, scenario, seed }: Pick<Flags, "hours" | "rates" | "scenario" | "seed">) => {
  const pairs = Object.entries(rates ?? {}).map(([name, rate]) => `${name}=${rate}`)
  return [
    "npm run simulate --",
    ...(scenario.name === DEFAULT_SCENARIO ? [] : [`--scenario ${scenario.name}`]),
    `--seed ${seed} --hours ${hours}`,
    ...(rates === undefined ? [] : [`--rates ${pairs.length === 0 ? NO_RATES : pairs.join(",")}`])
  ].join(" ")
}
