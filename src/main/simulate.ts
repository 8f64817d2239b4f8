/**
 * The simulation: whole programs in a world in memory, where one seed decides what happens in which order and what goes
 * wrong. Nothing outside of this process is touched, but the report that is asked for.
 *
 * The exit code says how it ended; see `simulate/ExitCodes.ts`. A failure comes with the command that replays it.
 */
import { spawnSync } from "node:child_process"
import { writeFileSync, writeSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import type { RunResult } from "../../layers/fake/simulation/Scenario.ts"
import { campaign, summarize, type Terminal } from "./simulate/Campaign.ts"
import { exitCodeOf, type Outcome, outcomeOf } from "./simulate/ExitCodes.ts"
import { changeOf, commandOf, type Flags, parse, usage } from "./simulate/Flags.ts"
import { minimize } from "./simulate/Minimize.ts"
import { reportOf } from "./simulate/Report.ts"
import { details, drawnRates, headline, hoursOf, violationLines } from "./simulate/Screen.ts"

const STDOUT = 1
const STDERR = 2
const SECOND_RUN_MILLIS_MAX = 600_000

const write = (descriptor: number, text: string): void => {
  try {
    writeSync(descriptor, text)
  } catch (cause) {
    // Whoever reads has seen enough.
    if (!(cause instanceof Error && "code" in cause && cause.code === "EPIPE")) throw cause
  }
}

const say = (...lines: ReadonlyArray<string>): void => {
  write(STDOUT, lines.map((line) => `${line}\n`).join(""))
}

const isTerminal = process.stderr.isTTY === true
const ERASE_LINE = "\u001b[2K\r"

const terminal: Terminal = {
  say,
  progress: isTerminal ? (line) => write(STDERR, `${ERASE_LINE}${line}`) : undefined
}

const run = ({ hours, rates, report, scenario }: Flags, seed: number): RunResult => {
  const change = changeOf(rates)
  return scenario.run({
    seed,
    hours,
    ...(change === undefined ? {} : { rates: change }),
    timeline: report !== undefined
  })
}

/** @shape (flags, digest) -> whether another process comes to the same */
const isConfirmed = (flags: Flags, seed: number, digest: string): boolean => {
  const words = commandOf({ ...flags, seed })
    .split(" ")
    .slice(4)
  const script = fileURLToPath(import.meta.url)
  const { stdout } = spawnSync(process.execPath, [...process.execArgv, script, ...words], {
    encoding: "utf8",
    timeout: SECOND_RUN_MILLIS_MAX
  })
  const [, other] = /digest ([0-9a-f]+)/u.exec(stdout) ?? []
  return other !== undefined && digest.startsWith(other)
}

const runAll = (flags: Flags): Outcome => {
  const started = process.hrtime.bigint()
  let steps = 0
  let virtualMillis = 0
  for (let index = 0; index < flags.runs; index++) {
    const seed = flags.seed + index
    const result = run(flags, seed)
    steps += result.steps
    virtualMillis += result.virtualMillis
    say(headline(result))
    if (flags.runs === 1) say(...details(result))
    const command = commandOf({ ...flags, seed })
    if (flags.report !== undefined) {
      writeFileSync(flags.report, reportOf({ result, scenario: flags.scenario, command }))
      say("", `report: ${flags.report}`)
    }
    if (flags.twice && !isConfirmed(flags, seed, result.digest)) {
      say("", `another process came to another digest: seed ${seed}`, `replay: ${command} --twice`)
      return "digest"
    }
    if (result.violation !== undefined) {
      say(...violationLines(result), "", `replay: ${command}`)
      return outcomeOf(result.violation)
    }
  }
  const seconds = Number(process.hrtime.bigint() - started) / 1e9
  say(
    "",
    `every promise held: ${flags.runs} ${flags.runs === 1 ? "run" : "runs"}, ${hoursOf(virtualMillis)} virtual hours, ${steps} steps in ${seconds.toFixed(1)} s`,
    `replay: ${commandOf(flags)}${flags.runs === 1 ? "" : ` --runs ${flags.runs}`}`
  )
  return "held"
}

const runSmallest = (flags: Flags): Outcome => {
  const { hours, rates, report, scenario, seed } = flags
  const found = minimize({
    scenario,
    seed,
    hours,
    change: changeOf(rates),
    onTry: (names, other, hoursTried) =>
      terminal.progress?.(
        `seed ${other}, ${hoursTried} hours, ${names.length} faults: ${names.join(", ")}`.slice(0, 150)
      )
  })
  if (isTerminal) write(STDERR, ERASE_LINE)
  if (found === undefined) {
    say(`seed ${seed} breaks no promise: there is nothing to minimize`)
    return "held"
  }
  const smallest = { scenario, seed: found.seed, hours: found.hours, rates: found.rates }
  const command = commandOf(smallest)
  say(headline(found.result), ...violationLines(found.result), "")
  const left = drawnRates(found)
  say(
    left.length === 0
      ? "it needs no fault at all"
      : `it takes ${left.length} ${left.length === 1 ? "fault" : "faults"}: ${left.map(([name, rate]) => `${name} ${rate}`).join(", ")}`,
    `found in ${found.tries} tries`,
    "",
    `replay: ${command}`
  )
  if (report !== undefined) {
    const result = run({ ...flags, ...smallest }, found.seed)
    writeFileSync(report, reportOf({ result, scenario, command }))
    say(`report: ${report}`)
  }
  return outcomeOf(found.result.violation)
}

const runCampaign = async (flags: Flags): Promise<Outcome> => {
  const result = await Effect.runPromise(campaign(flags, terminal))
  if (isTerminal) write(STDERR, ERASE_LINE)
  const { lines, outcome } = summarize(result, flags)
  say(...lines)
  return outcome
}

const main = async (words: ReadonlyArray<string>): Promise<Outcome> => {
  // The one number of a run that is not from its seed is the seed.
  const flags = parse(words, Number(process.hrtime.bigint() % 1_000_000n))
  if (flags === undefined) {
    write(STDOUT, usage())
    return "held"
  }
  if (typeof flags === "string") {
    write(STDERR, `${flags}\n\n${usage()}`)
    return "usage"
  }
  try {
    if (flags.campaign !== undefined) return await runCampaign(flags)
    return flags.minimize ? runSmallest(flags) : runAll(flags)
  } catch (cause) {
    write(
      STDERR,
      `the simulation itself failed: ${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}\n`
    )
    if (cause instanceof Error && cause.cause !== undefined) write(STDERR, `caused by: ${String(cause.cause)}\n`)
    return "failed"
  }
}

process.exitCode = exitCodeOf(await main(process.argv.slice(2)))
