import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKubernetes, layer as memoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { type EventInput, EventRecorder, render } from "../../src/reconciler/Events.ts"
import { cut } from "../../src/reconciler/EventWriter.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

const pod = { name: "web", namespace: "ns", uid: "uid-1" }
const input = (change: Partial<EventInput> = {}): EventInput => ({
  type: "Warning",
  reason: "MountFailed",
  message: "100% of %s failed",
  pod,
  key: "/target",
  ...change
})

const EVENTS = "/api/v1/namespaces/ns/events"

const run = <A, E>(
  api: ScriptedApi,
  program: (record: EventRecorder["Service"]["record"], logged: ReadonlyArray<string>) => Effect.Effect<A, E>
) =>
  Effect.suspend(() => {
    const logged: Array<string> = []
    const logger = Logger.layer([Logger.make(({ message }) => logged.push(JSON.stringify(message)))])
    return EventRecorder.pipe(
      Effect.flatMap(({ record }) => program(record, logged)),
      Effect.provide(Layer.provideMerge(EventRecorder.layer("node-1"), Layer.merge(api.layer, logger)))
    )
  })

/** The API server answers with what it was given. */
const echoing = () =>
  new ScriptedApi(({ body }) => Effect.succeed({ metadata: {}, involvedObject: {}, ...Object(body) }))
const settle = TestClock.adjust(0)
const bodies = (api: ScriptedApi) => api.requests.map(({ body }) => body as Record<string, unknown>)

describe("cut", () => {
  it.each([
    { name: "short", text: "100%d", expected: "100%d" },
    { name: "1024 characters", text: "x".repeat(1024), expected: "x".repeat(1024) },
    { name: "1025 characters", text: `${"x".repeat(1024)}y`, expected: "x".repeat(1024) },
    { name: "no half characters", text: `${"x".repeat(1023)}\u{1f600}y`, expected: `${"x".repeat(1023)}\u{1f600}` },
    { name: "characters, not code units", text: "\u{1f600}".repeat(1024), expected: "\u{1f600}".repeat(1024) }
  ])("8.3 $name", ({ text, expected }) => assert.strictEqual(cut(text), expected))
})

describe("render", () => {
  it("8.3 the whole object; Q26 `%` is left as it is", () =>
    assert.deepStrictEqual<unknown>(
      render(input(), "node-1", {
        name: "web.1",
        firstMillis: 1_700_000_000_123,
        lastMillis: 1_700_000_300_999,
        count: 2
      }),
      {
        metadata: { name: "web.1", namespace: "ns" },
        involvedObject: { apiVersion: "v1", kind: "Pod", name: "web", namespace: "ns", uid: "uid-1" },
        type: "Warning",
        reason: "MountFailed",
        message: "100% of %s failed",
        source: { component: "csi-secrets-store-controller", host: "node-1" },
        reportingComponent: "csi-secrets-store-controller",
        reportingInstance: "node-1",
        count: 2,
        firstTimestamp: "2023-11-14T22:13:20Z",
        lastTimestamp: "2023-11-14T22:18:20Z"
      }
    ))
})

describe("record", () => {
  it.effect(
    "8.3, 13.1 TestGenerateEvent: one POST, named after the pod and the time in hexadecimal nanoseconds",
    () => {
      const api = echoing()
      return run(api, (record) =>
        Effect.gen(function* () {
          yield* TestClock.setTime(1_700_000_000_000)
          yield* record(input())
          yield* settle
          assert.deepStrictEqual(api.lines, [`POST ${EVENTS}`])
          const [body] = bodies(api)
          assert.deepStrictEqual(body?.["metadata"], {
            name: `web.${(1_700_000_000_000_000_000n).toString(16)}`,
            namespace: "ns"
          })
          assert.strictEqual(body?.["kind"], "Event")
          assert.strictEqual(body?.["apiVersion"], "v1")
          assert.strictEqual(body?.["count"], 1)
        })
      )
    }
  )

  it.effect("D4 at most one per key and reason in five minutes; after that the same one with its count", () => {
    const api = echoing()
    return run(api, (record) =>
      Effect.gen(function* () {
        for (let n = 0; n < 10; n++) {
          yield* record(input({ message: `attempt ${n}` }))
          yield* TestClock.adjust("30 seconds")
        }
        assert.deepStrictEqual(api.lines, [`POST ${EVENTS}`])
        yield* record(input({ message: "attempt 10" }))
        yield* settle
        const { name } = bodies(api)[0]!["metadata"] as { readonly name: string }
        assert.deepStrictEqual(api.lines, [`POST ${EVENTS}`, `PATCH ${EVENTS}/${name}`])
        assert.deepStrictEqual(bodies(api)[1], {
          count: 11,
          lastTimestamp: "1970-01-01T00:05:00Z",
          message: "attempt 10"
        })
        assert.strictEqual(api.requests[1]?.contentType, "application/merge-patch+json")
      })
    )
  })

  it.effect.each([
    { name: "another key", change: { key: "/other" }, posts: 2 },
    { name: "another reason", change: { reason: "Other" }, posts: 2 },
    { name: "a pod made anew", change: { pod: { ...pod, uid: "uid-2" } }, posts: 2 },
    { name: "another message", change: { message: "other" }, posts: 1 },
    { name: "one millisecond early", after: 299_999, change: {}, posts: 1 },
    { name: "a shorter time, not over", after: 9_999, change: { everyMillis: 10_000 }, posts: 1 },
    { name: "a shorter time, over", after: 10_000, change: { everyMillis: 10_000 }, posts: 1, patches: 1 },
    { name: "after an hour it is a new one", after: 3_600_000, change: {}, posts: 2 }
  ])("D4 $name", ({ after = 0, change, patches = 0, posts }) => {
    const api = echoing()
    return run(api, (record) =>
      Effect.gen(function* () {
        yield* record(input())
        yield* TestClock.adjust(after)
        yield* record(input(change))
        yield* settle
        assert.strictEqual(api.lines.filter((line) => line.startsWith("POST")).length, posts)
        assert.strictEqual(api.lines.filter((line) => line.startsWith("PATCH")).length, patches)
        const names = bodies(api).map(({ metadata }) => JSON.stringify(metadata))
        assert.strictEqual(new Set(names).size, names.length, "names differ, also at the same nanosecond")
      })
    )
  })

  it.effect("an Event that the API server has forgotten is made again, with its count", () => {
    const api = echoing()
    return run(api, (record) =>
      Effect.gen(function* () {
        yield* record(input())
        yield* TestClock.adjust("10 minutes")
        const inner = api.respond
        api.respond = (request, index) =>
          request.method === "PATCH" ? Effect.fail(failed(404, "NotFound")) : inner(request, index)
        yield* record(input())
        yield* settle
        assert.deepStrictEqual(
          api.requests.map(({ method }) => method),
          ["POST", "PATCH", "POST"]
        )
        assert.strictEqual(bodies(api)[2]?.["count"], 2)
        assert.deepStrictEqual(bodies(api)[2]?.["metadata"], bodies(api)[0]?.["metadata"])
      })
    )
  })

  it.effect("a long pod name leaves room for the time", () => {
    const api = echoing()
    return run(api, (record) =>
      Effect.gen(function* () {
        yield* TestClock.setTime(1_700_000_000_000)
        yield* record(input({ pod: { ...pod, name: `${"x".repeat(235)}-${"y".repeat(17)}` } }))
        yield* settle
        const { name } = bodies(api)[0]!["metadata"] as { readonly name: string }
        assert.match(name, /^x{235}\.[0-9a-f]{16}$/u)
      })
    )
  })
})

describe("faults", () => {
  it.effect("an API server that comes back is written to within the same five seconds", () => {
    const api = ScriptedApi.answering(failed(0, "Network"), failed(503, "ServiceUnavailable"), {
      metadata: {},
      involvedObject: {}
    })
    return run(api, (record, logged) =>
      Effect.gen(function* () {
        yield* record(input())
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(api.requests.length, 3)
        assert.deepStrictEqual(logged, [])
        yield* record(input())
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(api.requests.length, 3, "and that counts as written")
      })
    )
  })

  it.effect("a lost answer does not make two Events", () => {
    const api = ScriptedApi.answering(failed(0, "Network"), failed(409, "AlreadyExists"))
    return run(api, (record, logged) =>
      Effect.gen(function* () {
        yield* record(input())
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(api.requests.length, 2)
        assert.strictEqual(JSON.stringify(api.requests[0]), JSON.stringify(api.requests[1]))
        assert.deepStrictEqual(logged, [])
      })
    )
  })

  it.effect("what was not written for want of an answer is written at the next occasion", () => {
    const api = ScriptedApi.answering(failed(0, "Network"))
    return run(api, (record, logged) =>
      Effect.gen(function* () {
        yield* record(input())
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(api.requests.length, 3)
        assert.strictEqual(logged.length, 1)
        yield* record(input())
        yield* settle
        assert.strictEqual(api.requests.length, 4)
      })
    )
  })

  it.effect("what the API server refuses is not repeated before its time", () => {
    const api = ScriptedApi.answering(failed(403, "Forbidden"))
    return run(api, (record, logged) =>
      Effect.gen(function* () {
        for (let n = 0; n < 10; n++) {
          yield* record(input())
          yield* TestClock.adjust("10 seconds")
        }
        assert.strictEqual(api.requests.length, 1)
        assert.strictEqual(logged.length, 1)
      })
    )
  })

  it.effect("recording does not wait for an API server that is silent; others get their turn", () => {
    const api = new ScriptedApi((_, index) =>
      index === 0 ? Effect.never : Effect.succeed({ metadata: {}, involvedObject: {} })
    )
    return run(api, (record, logged) =>
      Effect.gen(function* () {
        yield* record(input({ key: "first" }))
        yield* settle
        yield* record(input({ key: "second" }))
        yield* settle
        assert.strictEqual(api.requests.length, 1)
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(api.requests.length, 2)
        assert.strictEqual(logged.length, 1)
      })
    )
  })

  it.effect("S15 under pressure the oldest are dropped, and may be told again", () => {
    const api = new ScriptedApi(() => Effect.never)
    return run(api, (record) =>
      Effect.gen(function* () {
        yield* record(input({ key: "stuck" }))
        yield* settle
        for (let n = 0; n < 150; n++) yield* record(input({ key: `key ${n}`, message: `message ${n}` }))
        api.respond = ({ body }) => Effect.succeed({ metadata: {}, involvedObject: {}, ...Object(body) })
        yield* TestClock.adjust("5 seconds")
        const messages = bodies(api).map((body) => body["message"])
        assert.deepStrictEqual(
          messages.slice(1),
          Array.from({ length: 100 }, (_, n) => `message ${n + 50}`)
        )
        yield* record(input({ key: "key 0" }))
        yield* record(input({ key: "key 149" }))
        yield* settle
        assert.strictEqual(api.requests.length, 102, "a dropped one is new, a written one is counted")
      })
    )
  })

  it.effect("S15 a thousand keys are remembered, the oldest is forgotten first", () => {
    const api = echoing()
    return run(api, (record) =>
      Effect.gen(function* () {
        for (let n = 0; n <= 1_001; n++) {
          yield* record(input({ key: `key ${n}` }))
          yield* settle
        }
        const before = api.requests.length
        yield* record(input({ key: "key 1001" }))
        yield* settle
        assert.strictEqual(api.requests.length, before)
        yield* record(input({ key: "key 0" }))
        yield* settle
        assert.strictEqual(api.requests.length, before + 1)
      })
    )
  })
})

describe("on an API server in memory", () => {
  it.effect("8.3 it accepts an Event, and its count later", () =>
    Effect.gen(function* () {
      const server = yield* MemoryKubernetes
      const { record } = yield* EventRecorder
      for (let minute = 0; minute < 7; minute++) {
        yield* record(input())
        yield* TestClock.adjust("1 minute")
      }
      const [event, ...others] = yield* server.all("events")
      assert.deepStrictEqual(others, [])
      assert.strictEqual(event?.["count"], 6)
      assert.strictEqual(event?.["firstTimestamp"], "1970-01-01T00:00:00Z")
      assert.strictEqual(event?.["lastTimestamp"], "1970-01-01T00:05:00Z")
      assert.strictEqual(yield* server.requestCount({ method: "POST" }), 1)
      assert.strictEqual(yield* server.requestCount({ method: "PATCH" }), 1)
    }).pipe(Effect.provide(Layer.provideMerge(EventRecorder.layer("node-1"), memoryKubernetes)))
  )
})
