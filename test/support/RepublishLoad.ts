/**
 * Republishes as fast as the driver answers, and at little cost: whoever measures shares the driver's processors. The
 * requests are encoded once, and calls follow each other without effects in between.
 */
import { readFileSync } from "node:fs"
import * as grpc from "@grpc/grpc-js"
import { Clock, Data, Effect } from "effect"
import { NodePublishVolumeRequest, NodeService } from "../../proto/gen/csi.ts"

export class RepublishFailed extends Data.TaggedError("RepublishFailed")<{ readonly message: string }> {}

export interface Republished {
  readonly seconds: number
  /** Of each call, in the order of their ends. */
  readonly millis: ReadonlyArray<number>
  /** Processor time of the driver and of this process, as shares of one processor. */
  readonly driverShare: number
  readonly ownShare: number
}

/** The kubelet's limit for one call. */
const CALL_MILLIS = 120_000
/** Of the kernel, wherever Node runs. */
const TICKS_PER_SECOND = 100

/** Processor time of a process so far, in seconds. */
const cpuSecondsOf = (pid: number): number => {
  // The name, in brackets, may hold anything.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /su, "")
    .split(" ")
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

const ownCpuSeconds = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1e6
}

/**
 * Makes `count` calls, so many at a time, one volume after the other and round again.
 *
 * @errors RepublishFailed with the first answer that is not OK
 */
export const republish = (options: {
  readonly socket: string
  readonly pid: number
  readonly requests: ReadonlyArray<NodePublishVolumeRequest>
  readonly count: number
  readonly concurrency: number
}): Effect.Effect<Republished, RepublishFailed> =>
  Effect.scoped(
    Effect.gen(function* () {
      const { concurrency, count, pid, requests } = options
      const bodies = requests.map((request) => Buffer.from(NodePublishVolumeRequest.encode(request).finish()))
      const client = yield* Effect.acquireRelease(
        Effect.sync(
          () =>
            new grpc.Client(`unix:${options.socket}`, grpc.credentials.createInsecure(), { "grpc.enable_channelz": 0 })
        ),
        (it) => Effect.sync(() => it.close())
      )
      const metadata = new grpc.Metadata({ waitForReady: true })
      const deadline = (yield* Clock.currentTimeMillis) + CALL_MILLIS
      const asIs = (bytes: Buffer) => bytes
      const millis: Array<number> = []
      let begun = 0
      const call = (done: (error: grpc.ServiceError | null) => void) => {
        const started = performance.now()
        client.makeUnaryRequest(
          NodeService.nodePublishVolume.path,
          asIs,
          asIs,
          bodies[begun++ % bodies.length]!,
          metadata,
          { deadline },
          (error) => {
            millis.push(performance.now() - started)
            done(error)
          }
        )
      }
      const driverBefore = cpuSecondsOf(pid)
      const ownBefore = ownCpuSeconds()
      const started = performance.now()
      yield* Effect.callback<void, RepublishFailed>((resume) => {
        const next = (error: grpc.ServiceError | null): void => {
          if (error !== null) resume(Effect.fail(new RepublishFailed({ message: error.message })))
          else if (begun < count) call(next)
          else if (millis.length === count) resume(Effect.void)
        }
        for (let lane = 0; lane < Math.min(concurrency, count); lane++) call(next)
      })
      const seconds = (performance.now() - started) / 1_000
      return {
        seconds,
        millis,
        driverShare: (cpuSecondsOf(pid) - driverBefore) / seconds,
        ownShare: (ownCpuSeconds() - ownBefore) / seconds
      }
    })
  )
