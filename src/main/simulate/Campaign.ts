/**
 * Many seeds on all cores: each worker thread is given the next seed when it has done one, so that no run knows of any
 * other. What is kept does not depend on which thread ran it, nor on the order in which they end.
 */
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import { Clock, Effect, Option } from "effect"
import { scenarioOf } from "../../../layers/fake/Scenarios.ts"
import { type Outcome, worstOf } from "./ExitCodes.ts"
import { commandOf, type Flags } from "./Flags.ts"
import { failedRecord, type Order, type RunRecord } from "./RunRecord.ts"
import { hoursOf } from "./Screen.ts"

export interface Terminal {
  readonly say: (...lines: ReadonlyArray<string>) => void
  /** A line that the next one replaces; undefined where nobody watches. */
  readonly progress: ((line: string) => void) | undefined
}

export interface CampaignResult {
  /** By seed, ascending. */
  readonly records: ReadonlyArray<RunRecord>
  readonly seconds: number
}

/** A run that takes longer than this has met a loop that no step ends. */
const RUN_MILLIS_MAX = 600_000
const MINUTE_MILLIS = 60_000
const BAR_WIDTH = 30
const FAILURES_SHOWN = 20
const PAIRS_SHOWN = 12

/** One thread, and one run at a time on it; it is made anew after a run that it did not survive. */
class Thread {
  private worker: Worker | undefined

  /** Never fails: whatever happens to the thread is what became of the run. */
  perform(order: Order): Effect.Effect<RunRecord> {
    const lost = (why: string) => Effect.as(this.end, failedRecord(order, why))
    return Effect.callback<Effect.Effect<RunRecord>>((resume) => {
      const worker = this.worker ?? new Worker(new URL("./worker.ts", import.meta.url))
      this.worker = worker
      const onMessage = (record: RunRecord) => resume(Effect.succeed(Effect.succeed(record)))
      const onError = (cause: unknown) => resume(Effect.succeed(lost(String(cause))))
      const onExit = (code: number) => resume(Effect.succeed(lost(`its thread ended with ${code}`)))
      worker.once("message", onMessage).once("error", onError).once("exit", onExit)
      worker.postMessage(order)
    }).pipe(
      Effect.timeoutOption(RUN_MILLIS_MAX),
      Effect.flatMap(Option.getOrElse(() => lost(`did not end within ${RUN_MILLIS_MAX / MINUTE_MILLIS} minutes`))),
      Effect.ensuring(
        Effect.sync(() => {
          for (const event of ["message", "error", "exit"]) this.worker?.removeAllListeners(event)
        })
      )
    )
  }

  readonly end = Effect.suspend(() => {
    const { worker } = this
    this.worker = undefined
    return worker === undefined ? Effect.void : Effect.promise(() => worker.terminate())
  })
}

/**
 * @shape  (flags, terminal) -> what was found
 * @errors none: a thread that dies or hangs costs its run, not the campaign
 */
export const campaign = Effect.fn("campaign")(function* (flags: Flags, { progress }: Pick<Terminal, "progress">) {
  const { hours, rates, seed, twice, worlds } = flags
  const total = flags.campaign ?? 1
  const begunMillis = yield* Clock.currentTimeMillis
  const untilMillis = begunMillis + (flags.minutes ?? Number.POSITIVE_INFINITY) * MINUTE_MILLIS
  const records: Array<RunRecord> = []
  let next = 0

  const show = (nowMillis: number) => {
    const elapsedMillis = Math.max(1, nowMillis - begunMillis)
    const share = Math.min(1, Math.max(records.length / total, elapsedMillis / (untilMillis - begunMillis)))
    const bar = "#".repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH, ".")
    const failing = records.filter(({ outcome }) => outcome !== "held").length
    const perMinute = ((records.length * MINUTE_MILLIS) / elapsedMillis).toFixed(1)
    progress?.(`[${bar}] ${records.length} of ${total} runs, ${failing} failing, ${perMinute} per minute`)
  }

  const work = (thread: Thread) =>
    Effect.gen(function* () {
      while (next < total && (yield* Clock.currentTimeMillis) < untilMillis) {
        const scenario = worlds[next % worlds.length] ?? flags.scenario
        const order: Order = { scenario: scenario.name, seed: seed + next, hours, rates }
        next += 1
        const record = yield* thread.perform(order)
        // Whoever fails has to fail again, or its seed is worth nothing.
        const isRepeated = record.outcome !== "failed" && (twice || record.outcome !== "held")
        records.push(isRepeated ? compared(record, yield* thread.perform(order)) : record)
        show(yield* Clock.currentTimeMillis)
      }
    })
  const jobs = Math.min(total, flags.jobs ?? availableParallelism())
  yield* Effect.forEach(
    Array.from({ length: jobs }),
    () =>
      Effect.acquireUseRelease(
        Effect.sync(() => new Thread()),
        work,
        (thread) => thread.end
      ),
    { concurrency: "unbounded", discard: true }
  )
  const result: CampaignResult = {
    records: records.sort((a, b) => a.seed - b.seed),
    seconds: ((yield* Clock.currentTimeMillis) - begunMillis) / 1_000
  }
  return result
})

const compared = (record: RunRecord, again: RunRecord): RunRecord =>
  record.digest === again.digest
    ? record
    : { ...record, outcome: "digest", seen: `digests ${record.digest} and ${again.digest}; ${record.seen}` }

const sum = (records: ReadonlyArray<RunRecord>, pick: (record: RunRecord) => number) =>
  records.reduce((total, record) => total + pick(record), 0)

interface Total {
  readonly name: string
  count: number
  runs: number
}

const totals = (
  records: ReadonlyArray<RunRecord>,
  pick: (record: RunRecord) => RunRecord["faults"]
): ReadonlyArray<Total> => {
  const all = new Map<string, Total>()
  for (const record of records) {
    for (const [name, count] of pick(record)) {
      const total = all.get(name) ?? { name, count: 0, runs: 0 }
      total.count += count
      total.runs += 1
      all.set(name, total)
    }
  }
  return [...all.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

export interface Coverage {
  readonly faults: ReadonlyArray<Total>
  readonly decisions: ReadonlyArray<Total>
  /**
   * In how many runs a fault struck and a decision was made: by fault, then by decision, in the order of these. Undefined
   * where no scenario has both.
   */
  readonly together: ReadonlyArray<ReadonlyArray<number | undefined>>
}

/** @shape (records) -> which faults were met by which decisions */
export const coverageOf = (records: ReadonlyArray<RunRecord>): Coverage => {
  const faults = totals(records, (record) => record.faults)
  const decisions = totals(records, (record) => record.decisions)
  const sets = records.map((record) => ({
    scenario: record.scenario,
    faults: new Set(record.faults.map(([name]) => name)),
    decisions: new Set(record.decisions.map(([name]) => name))
  }))
  const worlds = Map.groupBy(sets, ({ scenario }) => scenario)
  const inWorlds = [...worlds.values()].map((runs) => ({
    faults: new Set(runs.flatMap((run) => [...run.faults])),
    decisions: new Set(runs.flatMap((run) => [...run.decisions]))
  }))
  return {
    faults,
    decisions,
    together: faults.map((fault) => {
      const struck = sets.filter((run) => run.faults.has(fault.name))
      const within = inWorlds.filter((world) => world.faults.has(fault.name))
      return decisions.map((decision) =>
        within.some((world) => world.decisions.has(decision.name))
          ? struck.filter((run) => run.decisions.has(decision.name)).length
          : undefined
      )
    })
  }
}

const right = (value: string | number, width: number) => String(value).padStart(width)

/** How fast it is says what one core does, whatever the others do meanwhile. */
const worldLine = (name: string, records: ReadonlyArray<RunRecord>): string => {
  const runs = records.filter(({ scenario }) => scenario === name)
  const failed = runs.filter(({ outcome }) => outcome !== "held").length
  const virtualMillis = sum(runs, (record) => record.virtualMillis)
  const seconds = sum(runs, (record) => record.seconds)
  const speed = Math.round(virtualMillis / 1_000 / Math.max(seconds, 1e-3))
  return `${name.padEnd(34)} ${right(runs.length, 8)} ${right(failed, 6)} ${right(hoursOf(virtualMillis), 15)} ${right(speed, 15)}`
}

const cut = (text: string, width: number) => (text.length <= width ? text : `${text.slice(0, width - 3)}...`)

/** @shape (result, flags) -> lines for a terminal, and how the campaign ended */
export const summarize = (
  { records, seconds }: CampaignResult,
  flags: Flags
): { readonly lines: ReadonlyArray<string>; readonly outcome: Outcome } => {
  const coverage = coverageOf(records)
  const { decisions, faults, together } = coverage
  const virtualMillis = sum(records, (record) => record.virtualMillis)
  const failing = records.filter(({ outcome }) => outcome !== "held")
  const possible = together.flat().filter((runs) => runs !== undefined)
  const met = possible.filter((runs) => runs > 0).length
  const never = faults.flatMap((fault, row) =>
    decisions.flatMap((decision, column) =>
      together[row]?.[column] === 0 ? [{ fault, decision, chance: fault.runs * decision.runs }] : []
    )
  )
  const lines = [
    `seeds ${flags.seed} to ${flags.seed + records.length - 1}, ${flags.hours} hours of faults each`,
    "",
    `${"scenario".padEnd(34)} ${right("runs", 8)} ${right("failed", 6)} ${right("virtual hours", 15)} ${right("times as fast", 15)}`,
    ...flags.worlds.map(({ name }) => worldLine(name, records)),
    "",
    `${"fault".padEnd(34)} ${right("struck", 8)} ${right("runs", 6)} ${right("decisions met", 15)}`,
    ...faults.map(({ count, name, runs }, row) => {
      const reached = (together[row] ?? []).filter((times) => times !== undefined && times > 0).length
      return `${cut(name, 34).padEnd(34)} ${right(count, 8)} ${right(runs, 6)} ${right(`${reached} of ${decisions.length}`, 15)}`
    }),
    "",
    `${"state or decision reached".padEnd(64)} ${right("times", 8)} ${right("runs", 6)}`,
    ...decisions.map(({ count, name, runs }) => `${cut(name, 64).padEnd(64)} ${right(count, 8)} ${right(runs, 6)}`),
    "",
    `${"other figures".padEnd(64)} ${right("times", 8)} ${right("runs", 6)}`,
    ...totals(records, (record) => record.others).map(
      ({ count, name, runs }) => `${cut(name, 64).padEnd(64)} ${right(count, 8)} ${right(runs, 6)}`
    ),
    "",
    `fault x decision: ${met} of ${possible.length} pairs met in a run (${((100 * met) / Math.max(1, possible.length)).toFixed(1)} %)`,
    ...(never.length === 0 ? [] : ["never met, most likely ones first:"]),
    ...never
      .sort((a, b) => b.chance - a.chance)
      .slice(0, PAIRS_SHOWN)
      .map(({ decision, fault }) => `  ${fault.name} x ${cut(decision.name, 64)}`),
    "",
    `${records.length} runs in ${seconds.toFixed(1)} s: ${((60 * records.length) / Math.max(seconds, 1e-3)).toFixed(1)} seeds per minute, ${hoursOf(virtualMillis)} virtual hours, ${(virtualMillis / 3_600_000 / Math.max(seconds, 1e-3)).toFixed(2)} per second of real time (${Math.round(virtualMillis / 1_000 / Math.max(seconds, 1e-3))} times as fast)`,
    ...(failing.length === 0
      ? [`every promise held in ${records.length} runs`]
      : [
          `${failing.length} of ${records.length} runs failed:`,
          ...failing
            .slice(0, FAILURES_SHOWN)
            .flatMap((record) => [
              `  ${record.scenario} seed ${record.seed}, ${record.outcome}: ${cut(record.seen, 160)}`,
              `    ${commandOf({ ...flags, scenario: scenarioOf(record.scenario) ?? flags.scenario, seed: record.seed })}`
            ]),
          ...(failing.length > FAILURES_SHOWN ? [`  and ${failing.length - FAILURES_SHOWN} more`] : [])
        ])
  ]
  return { lines, outcome: worstOf(records.map(({ outcome }) => outcome)) }
}
