import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import { fence } from "../../src/reconciler/Fence.ts"
import * as Term from "../../src/reconciler/Term.ts"

const timings = { leaseMillis: 137_000, renewMillis: 107_000, retryMillis: 26_000 }

/** A term by a clock that the test moves. */
const at = (sentAtMillis: number) => {
  const clock = { millis: sentAtMillis }
  return { clock, term: Term.begin(timings, () => clock.millis, sentAtMillis) }
}

describe("Term", () => {
  it.each([
    { name: "begins", nowMillis: 0, held: true, left: 107_000, writeLeft: 132_000 },
    { name: "nearly over", nowMillis: 106_999, held: true, left: 1, writeLeft: 25_001 },
    { name: "over", nowMillis: 107_000, held: false, left: 0, writeLeft: 25_000 },
    { name: "a pause that outlasts the lease", nowMillis: 999_999, held: false, left: 0, writeLeft: 0 }
  ])("1.6 $name", ({ held, left, nowMillis, writeLeft }) => {
    const { clock, term } = at(0)
    clock.millis = nowMillis
    assert.deepStrictEqual(
      { held: term.isHeld(), left: term.millisLeft(), writeLeft: term.writeMillisLeft() },
      { held, left, writeLeft }
    )
  })

  it("1.6 a renewal counts from when it was sent", () => {
    const { clock, term } = at(0)
    clock.millis = 40_000
    assert.isTrue(term.renewed(30_000))
    assert.strictEqual(term.millisLeft(), 97_000)
  })

  it("1.6 the end of a write that began in time is before the end of the lease", () => {
    for (const it of [timings, { leaseMillis: 270_000, renewMillis: 240_000, retryMillis: 60_000 }]) {
      const clock = { millis: 0 }
      const term = Term.begin(it, () => clock.millis, 0)
      clock.millis = it.renewMillis - 1
      assert.isTrue(term.isHeld())
      assert.isBelow(clock.millis + term.writeMillisLeft(), it.leaseMillis)
    }
  })

  it.each([
    {
      name: "a renewal that is answered after the end",
      act: (it: ReturnType<typeof at>) => (it.clock.millis = 107_000)
    },
    { name: "a renewal after the end was said", act: (it: ReturnType<typeof at>) => it.term.end() }
  ])("1.6 never begins again: $name", ({ act }) => {
    const it = at(0)
    act(it)
    assert.isFalse(it.term.renewed(106_000))
    assert.isFalse(it.term.isHeld())
  })

  it("1.10 is not quiet during a write, and for a while after one without an answer", () => {
    const { clock, term } = at(0)
    term.writeBegan()
    assert.isFalse(term.isQuiet())
    term.writeEnded(true)
    assert.isTrue(term.isQuiet())
    term.writeBegan()
    term.writeEnded(false)
    clock.millis = 29_999
    assert.isFalse(term.isQuiet())
    clock.millis = 30_000
    assert.isTrue(term.isQuiet())
  })
})

describe("fence", () => {
  const behind = (answer: Effect.Effect<unknown, KubernetesApiFailed>, term: Term.Term) => {
    const sent: Array<string> = []
    const api = KubernetesApi.of({
      request: ({ method }) =>
        Effect.andThen(
          Effect.sync(() => sent.push(method)),
          answer
        ),
      watch: () => Stream.make({ type: "ADDED", object: {} })
    })
    return { sent, api: fence(api, term) }
  }
  const request = (method: KubernetesRequest["method"]) => ({ method, path: "/api/v1/things/x" })

  it.effect.each([
    { method: "GET", passes: true },
    { method: "POST", passes: false },
    { method: "PUT", passes: false },
    { method: "PATCH", passes: false },
    { method: "DELETE", passes: false }
  ] as const)("1.6 after the term: $method passes: $passes", ({ method, passes }) =>
    Effect.gen(function* () {
      const { term } = at(0)
      const { api, sent } = behind(Effect.succeed("answer"), term)
      assert.strictEqual(yield* api.request(request(method)), "answer")
      term.end()
      const result = yield* Effect.result(api.request(request(method)))
      assert.strictEqual(result._tag, passes ? "Success" : "Failure")
      assert.strictEqual(sent.length, passes ? 2 : 1)
      assert.strictEqual((yield* Stream.runCollect(api.watch({ path: "/" }, 1))).length, 1)
    })
  )

  it.effect("1.6 a refused write names its reason, and is not worth another try", () =>
    Effect.gen(function* () {
      const { clock, term } = at(0)
      clock.millis = 107_000
      const failure = yield* Effect.flip(behind(Effect.succeed({}), term).api.request(request("PUT")))
      assert.deepInclude(
        { ...failure, isTransient: failure.isTransient, isNotLeader: failure.isNotLeader },
        { status: 0, reason: "NotLeader", method: "PUT", isTransient: false, isNotLeader: true }
      )
      assert.isTrue(term.isQuiet())
    })
  )

  it.effect("1.6 a write without an answer is given up before the lease ends", () =>
    Effect.gen(function* () {
      const { clock, term } = at(0)
      clock.millis = 100_000
      const { api } = behind(Effect.never, term)
      const writing = yield* Effect.forkChild(Effect.flip(api.request(request("PATCH"))), { startImmediately: true })
      yield* TestClock.adjust(31_999)
      assert.isUndefined(writing.pollUnsafe())
      yield* TestClock.adjust(1)
      const failure = yield* Fiber.join(writing)
      assert.strictEqual(failure.reason, "Timeout")
      assert.isTrue(failure.isTransient)
      assert.isFalse(term.isQuiet())
    })
  )

  it.effect("1.10 a write that is interrupted may take effect later", () =>
    Effect.gen(function* () {
      const { term } = at(0)
      const { api } = behind(Effect.never, term)
      const writing = yield* Effect.forkChild(api.request(request("PATCH")), { startImmediately: true })
      yield* Fiber.interrupt(writing)
      assert.isFalse(term.isQuiet())
    })
  )
})
