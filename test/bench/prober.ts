/**
 * Asks the driver's Probe again and again from a thread of its own, and notes the longest wait: what other calls feel
 * of a busy event loop. The thread is not held up by whatever keeps the benchmark itself busy.
 */
import { setTimeout as later } from "node:timers/promises"
import { parentPort, workerData } from "node:worker_threads"
import * as grpc from "@grpc/grpc-js"
import { IdentityClient } from "../../proto/gen/csi.ts"

const client = new IdentityClient(`unix:${String(workerData)}`, grpc.credentials.createInsecure())
let longestMillis = 0
let stopped = false

/** Not without a pause: the driver is to be idle when nothing else is asked of it. */
const PAUSE_MILLIS = 2

const probe = (): void => {
  if (stopped) return
  const started = performance.now()
  client.probe({}, () => {
    longestMillis = Math.max(longestMillis, performance.now() - started)
    void later(PAUSE_MILLIS).then(probe)
  })
}

parentPort?.on("message", (message) => {
  if (message === "stop") {
    stopped = true
    client.close()
    parentPort?.close()
    return
  }
  parentPort?.postMessage(longestMillis)
  longestMillis = 0
})
client.waitForReady(performance.timeOrigin + performance.now() + 5_000, () => {
  probe()
  parentPort?.postMessage(0)
})
