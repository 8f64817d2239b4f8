/**
 * A thread of a campaign: runs what it is told to run, one seed at a time, and sends back what is to be kept of it.
 */
import { parentPort } from "node:worker_threads"
import { scenarioOf } from "../../../layers/fake/Scenarios.ts"
import { changeOf } from "./Flags.ts"
import { failedRecord, type Order, type RunRecord, recordOf } from "./RunRecord.ts"

const perform = ({ hours, rates, scenario, seed }: Order): RunRecord => {
  try {
    const change = changeOf(rates)
    const found = scenarioOf(scenario)
    if (found === undefined) return failedRecord(seed, `there is no scenario ${scenario}`)
    return recordOf(found.run({ seed, hours, ...(change === undefined ? {} : { rates: change }) }))
  } catch (cause) {
    return failedRecord(seed, cause instanceof Error ? `${cause.message} ${String(cause.cause ?? "")}` : String(cause))
  }
}

parentPort?.on("message", (order: Order) => parentPort?.postMessage(perform(order)))
