/**
 * A Kubernetes API whose every answer is written down by the test, for faults at one exact request. Where the
 * behaviour of an API server matters, tests use MemoryKubernetes.
 */
import { type Cause, Effect, Layer, Queue, Stream } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest, type WatchEvent } from "../../src/ports/KubernetesApi.ts"

export const failed = (status: number, reason: string, detail = reason): KubernetesApiFailed =>
  new KubernetesApiFailed({ method: "GET", path: "/", status, reason, detail })

export type Answer = Effect.Effect<unknown, KubernetesApiFailed>

export interface WatchHandle {
  readonly query: NonNullable<KubernetesRequest["query"]>
  readonly idleMillis: number
  readonly send: (event: WatchEvent) => Effect.Effect<void>
  readonly close: Effect.Effect<void>
  readonly fail: (failure: KubernetesApiFailed) => Effect.Effect<void>
  closed: boolean
}

export class ScriptedApi {
  readonly requests: Array<KubernetesRequest> = []
  /** Every watch that was opened, in order. */
  readonly watches: Array<WatchHandle> = []
  /** Watches that are answered with an error instead of being opened, first come first served. */
  readonly refusals: Array<KubernetesApiFailed> = []
  respond: (request: KubernetesRequest, index: number) => Answer

  constructor(respond: (request: KubernetesRequest, index: number) => Answer = () => Effect.succeed({})) {
    this.respond = respond
  }

  /** The answers, one after the other; the last one again and again. */
  static answering(...answers: ReadonlyArray<unknown>): ScriptedApi {
    return new ScriptedApi((_, index) => {
      const answer = answers[Math.min(index, answers.length - 1)]
      return answer instanceof KubernetesApiFailed ? Effect.fail(answer) : Effect.succeed(answer)
    })
  }

  /** "GET /path" of every request so far. */
  get lines(): ReadonlyArray<string> {
    return this.requests.map(({ method, path }) => `${method} ${path}`)
  }

  get lastWatch(): WatchHandle {
    return this.watches.at(-1)!
  }

  readonly layer = Layer.sync(KubernetesApi, () =>
    KubernetesApi.of({
      request: (request) =>
        Effect.suspend(() => {
          const index = this.requests.push(request) - 1
          return Effect.mapError(
            this.respond(request, index),
            ({ detail, reason, status }) =>
              new KubernetesApiFailed({ method: request.method, path: request.path, status, reason, detail })
          )
        }),
      watch: ({ query = {} }, idleMillis) =>
        Stream.unwrap(
          Effect.gen({ self: this }, function* () {
            const refusal = this.refusals.shift()
            if (refusal !== undefined) return Stream.fail(refusal)
            const queue = yield* Queue.unbounded<WatchEvent, KubernetesApiFailed | Cause.Done>()
            const handle: WatchHandle = {
              query,
              idleMillis,
              send: (event) => Queue.offer(queue, event),
              close: Queue.end(queue),
              fail: (failure) => Queue.fail(queue, failure),
              closed: false
            }
            this.watches.push(handle)
            yield* Effect.addFinalizer(() =>
              Effect.sync(() => {
                handle.closed = true
              })
            )
            return Stream.fromQueue(queue)
          })
        )
    })
  )
}
