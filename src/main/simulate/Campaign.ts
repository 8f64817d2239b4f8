/**
 * Many seeds on all cores: each worker thread is given the next seed when it has done one, so that no run knows of any
 * other. What is kept does not depend on which thread ran it, nor on the order in which they end.
 */
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
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

const nowMillis = () => Number(process.hrtime.bigint() / 1_000_000n)

/** One thread, and one run at a time on it. */
class Thread {
  private worker: Worker | undefined

  perform(order: Order): Promise<RunRecord> {
    const worker = this.worker ?? new Worker(new URL("./worker.ts", import.meta.url))
    this.worker = worker
    return new Promise((resolve) => {
      const timer = setTimeout(
        () => settle(failedRecord(order.seed, `did not end within ${RUN_MILLIS_MAX / MINUTE_MILLIS} minutes`), false),
        RUN_MILLIS_MAX
      )
      const onMessage = (record: RunRecord) => settle(record, true)
      const onError = (cause: unknown) => settle(failedRecord(order.seed, String(cause)), false)
      const onExit = (code: number) => settle(failedRecord(order.seed, `its thread ended with ${code}`), false)
      const settle = (record: RunRecord, isUsable: boolean) => {
        clearTimeout(timer)
        worker.off("message", onMessage).off("error", onError).off("exit", onExit)
        if (!isUsable) void this.end()
        resolve(record)
      }
      worker.on("message", onMessage).on("error", onError).on("exit", onExit)
      worker.postMessage(order)
    })
  }

  async end(): Promise<void> {
    const { worker } = this
    this.worker = undefined
    await worker?.terminate()
  }
}

/** @shape (flags, terminal) -> what was found; a thread that dies costs its run, not the campaign */
export const campaign = async (flags: Flags, { progress }: Pick<Terminal, "progress">): Promise<CampaignResult> => {
  const { hours, rates, scenario, seed, twice } = flags
  const total = flags.campaign ?? 1
  const begun = nowMillis()
  const untilMillis = begun + (flags.minutes ?? Number.POSITIVE_INFINITY) * MINUTE_MILLIS
  const records: Array<RunRecord> = []
  let next = 0

  const show = () => {
    const share = Math.min(
      1,
      Math.max(records.length / total, (nowMillis() - begun) / Math.max(1, untilMillis - begun))
    )
    const bar = "#".repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH, ".")
    const failing = records.filter(({ outcome }) => outcome !== "held").length
    progress?.(`[${bar}] ${records.length} of ${total} runs, ${failing} failing, ${perMinute(records.length, begun)}`)
  }

  const work = async (thread: Thread) => {
    while (next < total && nowMillis() < untilMillis) {
      const order: Order = { scenario: scenario.name, seed: seed + next, hours, rates }
      next += 1
      const record = await thread.perform(order)
      // Whoever fails has to fail again, or its seed is worth nothing.
      const isChecked = twice || record.outcome !== "held"
      records.push(isChecked && record.outcome !== "failed" ? compared(record, await thread.perform(order)) : record)
      show()
    }
    await thread.end()
  }

  const jobs = Math.min(total, flags.jobs ?? availableParallelism())
  await Promise.all(Array.from({ length: jobs }, () => work(new Thread())))
  records.sort((a, b) => a.seed - b.seed)
  return { records, seconds: (nowMillis() - begun) / 1_000 }
}

const compared = (record: RunRecord, again: RunRecord): RunRecord =>
  record.digest === again.digest
    ? record
    : { ...record, outcome: "digest", seen: `digests ${record.digest} and ${again.digest}; ${record.seen}` }

const perMinute = (runs: number, begunMillis: number): string =>
  `${((runs * MINUTE_MILLIS) / Math.max(1, nowMillis() - begunMillis)).toFixed(1)} per minute`

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
  /** In how many runs a fault struck and a decision was made: by fault, then by decision, in the order of these. */
  readonly together: ReadonlyArray<ReadonlyArray<number>>
}

/** @shape (records) -> which faults were met by which decisions */
export const coverageOf = (records: ReadonlyArray<RunRecord>): Coverage => {
  const faults = totals(records, (record) => record.faults)
  const decisions = totals(records, (record) => record.decisions)
  const sets = records.map((record) => ({
    faults: new Set(record.faults.map(([name]) => name)),
    decisions: new Set(record.decisions.map(([name]) => name))
  }))
  return {
    faults,
    decisions,
    together: faults.map((fault) => {
      const struck = sets.filter((run) => run.faults.has(fault.name))
      return decisions.map((decision) => struck.filter((run) => run.decisions.has(decision.name)).length)
    })
  }
}

const right = (value: string | number, width: number) => String(value).padStart(width)

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
  const met = together.flat().filter((runs) => runs > 0).length
  const pairs = faults.length * decisions.length
  const never = faults.flatMap((fault, row) =>
    decisions.flatMap((decision, column) =>
      together[row]?.[column] === 0 ? [{ fault, decision, chance: fault.runs * decision.runs }] : []
    )
  )
  const lines = [
    `scenario ${flags.scenario.name}, seeds ${flags.seed} to ${flags.seed + records.length - 1}, ${flags.hours} hours of faults each`,
    "",
    `${"fault".padEnd(34)} ${right("struck", 8)} ${right("runs", 6)} ${right("decisions met", 15)}`,
    ...faults.map(({ count, name, runs }, row) => {
      const reached = (together[row] ?? []).filter((times) => times > 0).length
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
    `fault x decision: ${met} of ${pairs} pairs met in a run (${((100 * met) / Math.max(1, pairs)).toFixed(1)} %)`,
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
              `  seed ${record.seed}, ${record.outcome}: ${cut(record.seen, 160)}`,
              `    ${commandOf({ ...flags, seed: record.seed })}`
            ]),
          ...(failing.length > FAILURES_SHOWN ? [`  and ${failing.length - FAILURES_SHOWN} more`] : [])
        ])
  ]
  return { lines, outcome: worstOf(records.map(({ outcome }) => outcome)) }
}
