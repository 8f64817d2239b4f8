/**
 * How fast the real driver publishes and unpublishes, and what memory it holds, beside the figures of upstream v1.6.0.
 *
 *   npm run bench -- [--rounds N] [--cycles N] [--json FILE] [--entry BUNDLE]
 *
 * 110 volumes of two files each, an API server that takes 2 ms per answer, credentials as in a cluster (HTTPS). The
 * kubelet, the provider and the API server are played by this process, on the same processors. Figures are shown,
 * never asserted: they belong to the machine.
 */
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { availableParallelism, cpus, release } from "node:os"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { Worker } from "node:worker_threads"
import { Cause, Duration, Effect, Exit, Queue, Schedule, type Scope } from "effect"
import type { DriverProcess } from "../../layers/development/DriverProcess.ts"
import * as Kubelet from "../../layers/development/Kubelet.ts"
import * as Workbench from "../../layers/development/Workbench.ts"
import { type Republished, republish } from "../support/RepublishLoad.ts"
import * as ScriptedProvider from "../support/ScriptedProvider.ts"
import * as MemoryGroup from "./MemoryGroup.ts"

const VOLUMES = 110
const API_DELAY_MILLIS = 2
const CONCURRENCIES = [1, 16] as const
const STARTS = 5
/** Two of the driver's trims, and a little: then it is at rest. */
const REST_SECONDS = 25
/** Of one round: some seconds at the rates that are expected. */
const REPUBLISHES = 5_000
const LARGE_ROUNDS = 5
/** As much as the gRPC limit of 4 MiB lets through beside the names. */
const LARGE_BYTES = 4 * 1024 * 1024 - 4096

const { values: given } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    cycles: { type: "string", default: "5000" },
    json: { type: "string" },
    entry: { type: "string", default: fileURLToPath(new URL("../../dist/driver.cjs", import.meta.url)) }
  }
})
const ENTRY = resolve(given.entry)
const [ROUNDS = 0, CYCLES = 0] = [given.rounds, given.cycles].map((text) =>
  /^[1-9]\d*$/u.test(text) ? Number(text) : 0
)

/** What driver v1.6.0 was measured at under the same load, with its two sidecars. Not measured again here. */
const UPSTREAM = {
  1: { publishRate: 27, publishP50: 49, unpublishRate: 260, republishRate: undefined },
  16: { publishRate: 22, publishP50: 800, unpublishRate: 734, republishRate: 12 },
  republishRequests: 3,
  residentMiB: "41-49, and 18 and 20 for its two sidecars"
} as const

const tell = (...lines: ReadonlyArray<string>) => Effect.sync(() => process.stdout.write(`${lines.join("\n")}\n`))

const quantile = (values: ReadonlyArray<number>, share: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN
const median = (values: ReadonlyArray<number>) => quantile(values, 0.5)

interface Figures {
  readonly ratePerSecond: number
  readonly p50Millis: number
  readonly p99Millis: number
}

const medians = (rounds: ReadonlyArray<Figures>): Figures => ({
  ratePerSecond: median(rounds.map((it) => it.ratePerSecond)),
  p50Millis: median(rounds.map((it) => it.p50Millis)),
  p99Millis: median(rounds.map((it) => it.p99Millis))
})

const timedEach = <A, E>(items: ReadonlyArray<A>, concurrency: number, act: (item: A) => Effect.Effect<unknown, E>) =>
  Effect.gen(function* () {
    const [whole, each] = yield* Effect.timed(
      Effect.forEach(items, (item) => Effect.map(Effect.timed(act(item)), ([took]) => Duration.toMillis(took)), {
        concurrency
      })
    )
    const figures: Figures = {
      ratePerSecond: items.length / Duration.toSeconds(whole),
      p50Millis: quantile(each, 0.5),
      p99Millis: quantile(each, 0.99)
    }
    return figures
  })

const volumes = (name: string, count: number): ReadonlyArray<Kubelet.InlineVolume> =>
  Array.from({ length: count }, (_, index) => {
    const podName = `${name}-${index}`
    return {
      ...{ podName, podNamespace: "default", podUid: `uid-${podName}` },
      ...{ volumeName: "secrets", secretProviderClass: "spc" }
    }
  })

const twoFiles = ScriptedProvider.answer({ username: "a user's name", password: "x".repeat(64) })
const oneLargeFile = ScriptedProvider.answer({ large: "x".repeat(LARGE_BYTES) }, "large")

/** How fast the machine is just now, in milliseconds for always the same work: shared ones vary by half and more. */
const pace = (): number => {
  const data = Buffer.alloc(1024 * 1024, 7)
  const started = performance.now()
  for (let round = 0; round < 200; round++) createHash("sha256").update(data).digest()
  return performance.now() - started
}

type World = Effect.Success<typeof world>
const world = Effect.gen(function* () {
  const bench = yield* Workbench.make({ entry: ENTRY, credentials: "in-cluster", delayMillis: API_DELAY_MILLIS })
  const provider = yield* ScriptedProvider.serve(join(bench.providersDirectory, "scripted.sock"), () =>
    Effect.succeed(twoFiles)
  )
  yield* bench.putClass("default", "spc", "scripted", { objects: "all" })
  return { bench, provider }
})

// ---- what is measured

/** From the start of the process to the first answer; everybody looks for the socket, nobody knows when it comes. */
const measureStart = ({ bench }: World) =>
  Effect.scoped(
    Effect.gen(function* () {
      const look = Effect.suspend(() => (existsSync(bench.socket) ? Effect.void : Effect.fail("not yet")))
      const firstAnswer = Effect.gen(function* () {
        yield* Effect.retry(look, Schedule.spaced("1 millis"))
        const kubelet = yield* Kubelet.make({ socket: bench.socket, root: bench.kubeletRoot })
        yield* kubelet.probe(10_000)
      })
      const [started, [took]] = yield* Effect.all([bench.startDriver(), Effect.timed(firstAnswer)], {
        concurrency: "unbounded"
      })
      const { residentMiB } = started.memory()
      yield* started.kill("SIGTERM")
      yield* started.exited
      return { millis: Duration.toMillis(took), residentMiB }
    })
  )

const measureRound = ({ bench: { kubelet } }: World, name: string, concurrency: number) =>
  Effect.gen(function* () {
    const all = volumes(name, VOLUMES)
    // The kubelet's own work, before it calls.
    for (const volume of all) mkdirSync(dirname(kubelet.targetPath(volume)), { recursive: true })
    return {
      publish: yield* timedEach(all, concurrency, kubelet.publish),
      unpublish: yield* timedEach(all, concurrency, kubelet.unpublish)
    }
  })

const measureRates = (here: World, concurrency: number) =>
  Effect.gen(function* () {
    const rounds = yield* Effect.forEach(Array.from({ length: ROUNDS }), (_, round) =>
      measureRound(here, `c${concurrency}-${round}`, concurrency)
    )
    return {
      publish: medians(rounds.map((it) => it.publish)),
      unpublish: medians(rounds.map((it) => it.unpublish)),
      rounds
    }
  })

const republishFigures = ({ millis, seconds }: Republished): Figures => ({
  ratePerSecond: millis.length / seconds,
  p50Millis: quantile(millis, 0.5),
  p99Millis: quantile(millis, 0.99)
})

/** Service account tokens of the usual size, so that a request is as long as those of a kubelet. */
const TOKENS = JSON.stringify({ "": { token: "x".repeat(900), expirationTimestamp: "2099-01-01T00:00:00Z" } })

/** What a kubelet does every minute or so for each volume, when the driver has nothing to do. */
const measureRepublish = ({ bench, provider }: World) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { pid } = yield* bench.startDriver({
        flags: ["--enable-secret-rotation=true", "--rotation-poll-interval=24h"]
      })
      const all = volumes("republish", VOLUMES).map((volume) => ({ ...volume, tokens: TOKENS }))
      yield* timedEach(all, 16, bench.kubelet.publish)
      const requests = all.map(bench.kubelet.publishRequest)
      const round = (concurrency: number) =>
        republish({ socket: bench.socket, pid, requests, count: REPUBLISHES, concurrency })
      yield* round(4)
      yield* bench.kubernetes.resetRequests
      const asked = provider.asked.length
      const measured = (concurrency: number) =>
        Effect.map(
          Effect.forEach(Array.from({ length: ROUNDS }), () => round(concurrency)),
          (rounds) => ({
            ...medians(rounds.map(republishFigures)),
            best: Math.max(...rounds.map((it) => republishFigures(it).ratePerSecond)),
            driverShare: median(rounds.map((it) => it.driverShare)),
            ownShare: median(rounds.map((it) => it.ownShare))
          })
        )
      const one = yield* measured(CONCURRENCIES[0])
      const many = yield* measured(CONCURRENCIES[1])
      const kubernetesRequests = yield* bench.kubernetes.requestCount({ watch: false })
      const providerCalls = provider.asked.length - asked
      yield* timedEach(all, 16, bench.kubelet.unpublish)
      return { one, many, kubernetesRequests, providerCalls }
    })
  )

const atRest = (driver: DriverProcess) =>
  Effect.map(Effect.sleep(Duration.seconds(REST_SECONDS)), () => driver.memory())

/** Memory with a full node's volumes mounted. */
const measureMounted = ({ bench: { kubelet } }: World, driver: DriverProcess, workingSet: () => string) =>
  Effect.gen(function* () {
    const all = volumes("mounted", VOLUMES)
    yield* timedEach(all, 16, kubelet.publish)
    const memory = yield* atRest(driver)
    const container = workingSet()
    yield* timedEach(all, 16, kubelet.unpublish)
    return { ...memory, workingSet: container }
  })

const measureSoak = ({ bench: { kubelet, kubernetes } }: World, driver: DriverProcess) =>
  Effect.gen(function* () {
    const cycle = (volume: Kubelet.InlineVolume) => Effect.andThen(kubelet.publish(volume), kubelet.unpublish(volume))
    const { ratePerSecond } = yield* timedEach(volumes("soak", CYCLES), 16, cycle)
    // Pod statuses go with their pods, of which there are none here.
    yield* kubernetes.collectGarbage
    const after = driver.memory()
    return { cyclesPerSecond: ratePerSecond, after, rest: yield* atRest(driver) }
  })

/** The longest time that the driver answered nobody, as seen by Probe calls on a connection of their own. */
const measureStall = ({ bench: { kubelet, socket }, provider }: World) =>
  Effect.scoped(
    Effect.gen(function* () {
      const prober = yield* Effect.acquireRelease(
        Effect.sync(() => new Worker(new URL("./prober.ts", import.meta.url), { workerData: socket })),
        (worker) => Effect.sync(() => worker.postMessage("stop"))
      )
      const answers = yield* Queue.unbounded<number>()
      prober.on("message", (longestMillis: number) => Queue.offerUnsafe(answers, longestMillis))
      prober.on("error", (error) => Queue.failCauseUnsafe(answers, Cause.die(error)))
      const heard = Queue.take(answers)
      const longest = Effect.suspend(() => {
        prober.postMessage("longest")
        return heard
      })
      yield* heard
      // The thread has to be warm before its times mean anything.
      yield* Effect.sleep("1 second")
      yield* longest
      const rounds = yield* Effect.forEach(volumes("large", LARGE_ROUNDS), (volume) =>
        Effect.gen(function* () {
          yield* Effect.sleep("500 millis")
          const idleMillis = yield* longest
          provider.respond(() => Effect.succeed(oneLargeFile))
          const [took] = yield* Effect.timed(kubelet.publish(volume))
          yield* Effect.sleep("100 millis")
          const publishMillis = yield* longest
          yield* kubelet.unpublish(volume)
          yield* longest
          return { idleMillis, publishMillis, tookMillis: Duration.toMillis(took) }
        })
      )
      provider.respond(() => Effect.succeed(twoFiles))
      return {
        idleMillis: median(rounds.map((it) => it.idleMillis)),
        publishMillis: median(rounds.map((it) => it.publishMillis)),
        tookMillis: median(rounds.map((it) => it.tookMillis))
      }
    })
  )

// ---- what is shown

const cell = (value: number, unit: string) => `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${unit}`

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): ReadonlyArray<string> => {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  return rows.map((row) =>
    row.map((text, column) => (column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!))).join("  ")
  )
}

const times = (ours: number, theirs: number | undefined, better: "more" | "less") =>
  theirs === undefined ? "" : `${(better === "more" ? ours / theirs : theirs / ours).toFixed(1)} x`

const rateRows = (
  c: (typeof CONCURRENCIES)[number],
  rates: { readonly publish: Figures; readonly unpublish: Figures }
) => {
  const upstream = UPSTREAM[c]
  const row = (what: string, ours: number, unit: string, theirs: number | undefined, better: "more" | "less") => [
    `${what}, ${c} at a time`,
    cell(ours, unit),
    theirs === undefined ? "" : cell(theirs, unit),
    times(ours, theirs, better)
  ]
  const { publish, unpublish } = rates
  return [
    row("publish", publish.ratePerSecond, "/s", upstream.publishRate, "more"),
    row("  p50", publish.p50Millis, "ms", upstream.publishP50, "less"),
    row("  p99", publish.p99Millis, "ms", undefined, "less"),
    row("unpublish", unpublish.ratePerSecond, "/s", upstream.unpublishRate, "more"),
    row("  p50", unpublish.p50Millis, "ms", undefined, "less"),
    row("  p99", unpublish.p99Millis, "ms", undefined, "less")
  ]
}

type RepublishRates = Effect.Success<ReturnType<typeof measureRepublish>>["one"]

const republishRows = (c: (typeof CONCURRENCIES)[number], rates: RepublishRates) => {
  const theirs = UPSTREAM[c].republishRate
  return [
    [
      `republish of a volume that is not due, ${c} at a time`,
      cell(rates.ratePerSecond, "/s"),
      theirs === undefined ? "" : cell(theirs, "/s"),
      times(rates.ratePerSecond, theirs, "more")
    ],
    ["  best round", cell(rates.best, "/s"), "", ""],
    ["  p50", cell(rates.p50Millis, "ms"), "", ""],
    ["  p99", cell(rates.p99Millis, "ms"), "", ""]
  ]
}

const shareText = ({ driverShare, ownShare }: RepublishRates) =>
  `driver ${(driverShare * 100).toFixed(0)} %, caller ${(ownShare * 100).toFixed(0)} % of one processor`

const memoryText = ({ anonymousMiB, residentMiB }: ReturnType<DriverProcess["memory"]>) =>
  `${residentMiB.toFixed(1)} MiB resident, ${anonymousMiB.toFixed(1)} MiB anonymous`

const machine = `${availableParallelism()} x ${cpus()[0]?.model ?? "unknown"}, Linux ${release()}, Node ${process.version}`

const main = Effect.gen(function* () {
  yield* tell(
    machine,
    `${VOLUMES} volumes of 2 files, API server with ${API_DELAY_MILLIS} ms, HTTPS; medians of ${ROUNDS}`
  )
  const here = yield* world
  const paceBefore = pace()
  yield* measureStart(here)
  const starts = yield* Effect.forEach(Array.from({ length: STARTS }), () => measureStart(here))
  const context = yield* Effect.context<Scope.Scope>()
  const { group, result: started } = yield* Effect.promise(() =>
    MemoryGroup.around(`bench-${process.pid}`, () => Effect.runPromiseWith(context)(here.bench.startDriver()))
  )
  const workingSet = () => (group === undefined ? "not measured here" : `${group.workingSet().toFixed(1)} MiB`)
  // What is compiled only once it is used often, and connections that are opened once, are part of no round.
  for (const round of [1, 2]) yield* measureRound(here, `warm-${round}`, 4)
  const [one, many] = yield* Effect.all([measureRates(here, CONCURRENCIES[0]), measureRates(here, CONCURRENCIES[1])])
  const paceAfter = pace()
  const mounted = yield* measureMounted(here, started, workingSet)
  const soak = yield* measureSoak(here, started)
  const workingSetAtRest = workingSet()
  const stall = yield* measureStall(here)
  yield* started.kill("SIGTERM")
  const exit = yield* started.exited
  group?.remove()
  const republished = yield* measureRepublish(here)
  const left = yield* here.bench.mounted

  yield* tell(
    "",
    ...table([
      ["", "this driver", "upstream v1.6.0", "times better"],
      ...rateRows(1, one),
      ...rateRows(16, many),
      ...republishRows(1, republished.one),
      ...republishRows(16, republished.many)
    ]),
    "",
    `republish, requests            ${republished.kubernetesRequests} to the API server, ${republished.providerCalls} to the provider (upstream: ${UPSTREAM.republishRequests} each to the API server)`,
    `  1 at a time                 ${shareText(republished.one)}`,
    `  16 at a time                ${shareText(republished.many)}`,
    `start to first Probe answer   ${cell(median(starts.map((it) => it.millis)), "ms")}`,
    `resident when it answers      ${cell(median(starts.map((it) => it.residentMiB)), "MiB")}`,
    `with ${VOLUMES} volumes, at rest     ${memoryText(mounted)} (upstream: ${UPSTREAM.residentMiB})`,
    `  container working set       ${mounted.workingSet}`,
    `${CYCLES} cycles, 16 at a time   ${cell(soak.cyclesPerSecond, "/s")}`,
    `  right after                 ${memoryText(soak.after)}`,
    `  at rest                     ${memoryText(soak.rest)}`,
    `  container working set       ${workingSetAtRest}`,
    `4 MiB payload                 published in ${cell(stall.tookMillis, "ms")}; longest Probe meanwhile ${cell(stall.publishMillis, "ms")}, ${cell(stall.idleMillis, "ms")} when idle`,
    `pace of the machine           ${paceBefore.toFixed(0)} ms before, ${paceAfter.toFixed(0)} ms after the rounds, for SHA-256 of 200 MiB`,
    `driver's exit after SIGTERM   ${exit}, mounts left: ${left.length}`
  )
  const { json } = given
  if (json !== undefined) {
    const result = {
      machine,
      pace: [paceBefore, paceAfter],
      rounds: ROUNDS,
      starts,
      one,
      many,
      republished,
      stall,
      mounted,
      soak,
      upstream: UPSTREAM
    }
    yield* Effect.sync(() => writeFileSync(resolve(json), `${JSON.stringify(result, null, 2)}\n`))
  }
}).pipe(Effect.scoped)

if (process.getuid?.() !== 0) {
  process.stderr.write("npm run bench needs root: it mounts file systems\n")
  process.exit(1)
}
if (ROUNDS === 0 || CYCLES === 0) {
  process.stderr.write("--rounds and --cycles take a positive number\n")
  process.exit(2)
}
if (!existsSync(ENTRY)) {
  process.stderr.write("npm run bench builds the driver first; test/bench/bench.ts alone does not\n")
  process.exit(1)
}
const running = Effect.runFork(main)
// The driver and its mounts go with the scope.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => running.interruptUnsafe())
running.addObserver((exit) => {
  if (Exit.isFailure(exit)) process.stderr.write(`${String(exit.cause)}\n`)
  process.exit(Exit.isSuccess(exit) ? 0 : 1)
})
