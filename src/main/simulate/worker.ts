/**
 * A thread of a campaign: runs what it is told to run, one seed at a time, and sends back what is to be kept of it.
 */
import { parentPort } from "node:worker_threads"
import { scenarioOf } from "../../../layers/fake/Scenarios.ts"
import { changeOf } from "./Flags.ts"
import { failedRecord, type Order, type RunRecord, recordOf } from "./RunRecord.ts"

const perform = (order: Order): RunRecord => {
  const { hours, rates, scenario, seed } = order
  const begun = process.hrtime.bigint()
  try {
    const change = changeOf(rates)
    const found = scenarioOf(scenario)
    if (found === undefined) return failedRecord(order, `there is no scenario ${scenario}`)
    const result = found.run({ seed, hours, ...(change === undefined ? {} : { rates: change }) })
    return recordOf(scenario, result, Number(process.hrtime.bigint() - begun) / 1e9)
  } catch (cause) {
    return failedRecord(order, cause instanceof Error ? `${cause.message} ${String(cause.cause ?? "")}` : String(cause))
  }
}

parentPort?.on("message", (order: Order) => parentPort?.postMessage(perform(order)))
