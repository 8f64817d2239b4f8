/**
 * The whole driver on a node in memory, on virtual time, without faults: for figures over hours and days. A kubelet
 * publishes, tries again as the kubelet does, and republishes.
 */
import { Clock, Context, Effect, FileSystem, Layer, Logger, Metric, Random, type Scope } from "effect"
import { MemoryCsiEndpoint, layer as memoryCsiEndpoint } from "../../layers/fake/MemoryCsiEndpoint.ts"
import * as MemoryKubernetes from "../../layers/fake/MemoryKubernetes.ts"
import * as MemoryNode from "../../layers/fake/MemoryNode.ts"
import * as MemoryPluginRegistry from "../../layers/fake/MemoryPluginRegistry.ts"
import * as MemoryProviders from "../../layers/fake/MemoryProviders.ts"
import { simulate } from "../../layers/fake/SeededScheduler.ts"
import * as NodeFileFormats from "../../layers/real/NodeFileFormats.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import * as Driver from "../../src/Driver.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"
import * as Node from "./FakeNode.ts"

const CALL_MILLIS = 120_000
const BACKOFF_MILLIS = { first: 500, max: 122_000 }
/** Two days of 110 volumes take a tenth of it. */
const STEPS_MAX = 200_000_000
const REPUBLISH_MILLIS = { least: 60_000, most: 90_000 }

/** What every node has for itself. */
const nodeLayer = Layer.mergeAll(
  MemoryNode.layer,
  MemoryProviders.layer,
  MemoryPluginRegistry.layer,
  NodeFileFormats.layer,
  memoryCsiEndpoint
)

/** Everything outside of the driver's process. */
const worldLayer = Layer.mergeAll(nodeLayer, MemoryKubernetes.layer)

/** The driver as a process that is never told to stop; it ends with the scope. */
export const start = (change: Partial<DriverConfig>) => {
  const config = { ...Node.settings, rotationEnabled: true, ...change }
  return Effect.forkScoped(
    Driver.run(config, "0.0.0").pipe(
      Effect.provide(Layer.fresh(Driver.layer(config))),
      Effect.provideService(Shutdown, Shutdown.of({ requested: Effect.never })),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.orDie
    )
  )
}

/**
 * One more node on the same API server, with a disk, a CSI socket, providers and a driver of its own. What its driver
 * has for API server and disk may be something in between.
 */
export const node = Effect.fnUntraced(function* (
  nodeId: string,
  change: Partial<DriverConfig> = {},
  between: {
    readonly api?: (api: KubernetesApi["Service"]) => KubernetesApi["Service"]
    readonly files?: (files: FileSystem.FileSystem) => FileSystem.FileSystem
  } = {}
) {
  const context = yield* Layer.build(Layer.fresh(nodeLayer))
  const { api = (it) => it, files = (it) => it } = between
  const forDriver = context.pipe(
    Context.add(FileSystem.FileSystem, files(Context.get(context, FileSystem.FileSystem))),
    Context.add(KubernetesApi, api(yield* KubernetesApi))
  )
  yield* Effect.provideContext(start({ ...change, nodeId }), forDriver)
  return { nodeId, context }
})

export interface Published {
  readonly request: NodePublishVolumeRequest
  /** When the kubelet first heard OK; undefined until then. */
  okMillis: number | undefined
  /** Times at which it asked again after that. */
  readonly republishes: Array<number>
}

/** One volume, as the kubelet has it: published until that is answered OK, and again every minute or so. */
export const keepPublished = Effect.fnUntraced(function* (published: Published) {
  const endpoint = yield* MemoryCsiEndpoint
  const attempt = Effect.flatMap(Clock.currentTimeMillis, (now) =>
    endpoint.call("NodePublishVolume", published.request, { deadlineMillis: now + CALL_MILLIS }).pipe(
      Effect.as(true),
      Effect.orElseSucceed(() => false)
    )
  )
  let backoff = BACKOFF_MILLIS.first
  while (!(yield* attempt)) {
    yield* Effect.sleep(backoff)
    backoff = Math.min(2 * backoff, BACKOFF_MILLIS.max)
  }
  published.okMillis = yield* Clock.currentTimeMillis
  return yield* Effect.forever(
    Effect.gen(function* () {
      yield* Effect.sleep(yield* Random.nextBetween(REPUBLISH_MILLIS.least, REPUBLISH_MILLIS.most))
      published.republishes.push(yield* Clock.currentTimeMillis)
      yield* attempt
    })
  )
})

/** A pod with one volume. */
export const pod = Effect.fnUntraced(function* (name: string, context: Readonly<Record<string, string>> = {}) {
  const made = yield* Node.putPod({ ...Node.POD, name })
  const request = { ...made, volumeContext: { ...made.volumeContext, ...context } }
  const published: Published = { request, okMillis: undefined, republishes: [] }
  return published
})

type World = Layer.Success<typeof worldLayer>

/** @shape (seed, program, preemption: chance per step, stepsMax: it is a livelock after that) -> what it ends with; it throws what it dies of */
export const onVirtualTime = <A, E>(
  seed: number,
  program: Effect.Effect<A, E, World | Scope.Scope>,
  preemption = 0,
  stepsMax = STEPS_MAX
): A => {
  const whole = Effect.scoped(program).pipe(Effect.provide(Layer.mergeAll(worldLayer, Logger.layer([]))), Effect.orDie)
  const { exit } = simulate(whole, { seed, preemption, stepsMax })
  if (exit._tag === "Failure") throw new Error(`the program died (seed ${seed})`, { cause: exit.cause })
  return exit.value
}
