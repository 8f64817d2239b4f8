import { EventEmitter } from "node:events"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { layerOf } from "../../layers/real/ProcessShutdown.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"

class FakeProcess extends EventEmitter {
  readonly exits: Array<number> = []
  readonly exit = (status: number) => this.exits.push(status)
  get listeners_() {
    return this.listenerCount("SIGTERM") + this.listenerCount("SIGINT")
  }
}

describe("shutdown by signal", () => {
  it.effect.each(["SIGTERM", "SIGINT"])("1.5 the first %s is a request, the second signal ends the process", (signal) =>
    Effect.gen(function* () {
      const source = new FakeProcess()
      yield* Effect.gen(function* () {
        const shutdown = yield* Shutdown
        const waiting = yield* Effect.forkChild(shutdown.requested, { startImmediately: true })
        assert.strictEqual(source.listeners_, 2)
        source.emit(signal, signal)
        assert.strictEqual(yield* Fiber.join(waiting), signal)
        assert.strictEqual(yield* shutdown.requested, signal)
        assert.deepStrictEqual(source.exits, [])
        source.emit("SIGTERM", "SIGTERM")
        assert.deepStrictEqual(source.exits, [1])
      }).pipe(Effect.provide(layerOf(source)))
      assert.strictEqual(source.listeners_, 0)
    })
  )
})
