import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, type Scope } from "effect"
import { TestClock } from "effect/testing"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import type { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as Reflector from "../../src/reconciler/Reflector.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

type Spc = SecretProviderClass

const spc = (name: string, resourceVersion: string, provider = "p") => ({
  metadata: { name, namespace: "ns", resourceVersion, managedFields: [{ manager: "x" }] },
  spec: { provider }
})
const list = (resourceVersion: string, ...items: ReadonlyArray<unknown>) => ({ metadata: { resourceVersion }, items })
const expired = { kind: "Status", code: 410, reason: "Expired", message: "too old resource version: 1 (9)" }

/** A reflector on a scripted API, with what it told and what it logged. */
const started = Effect.fnUntraced(function* (options: Partial<Reflector.Options<Spc>> = {}) {
  const told: Array<string> = []
  const reflector = yield* Reflector.make<Spc>({
    resource: Resource.secretProviderClasses,
    selection: { namespace: "ns" },
    onChange: (change: Reflector.Change<Spc>) =>
      Effect.sync(() => {
        told.push(
          change._tag === "Synced"
            ? `Synced ${[...change.objects.keys()].join(",")}`
            : `${change._tag} ${change.key} ${change.object.spec?.provider}`
        )
      }),
    ...options
  })
  return { ...reflector, told, held: () => [...reflector.objects().keys()] }
})

const run = <A, E>(
  api: ScriptedApi,
  program: (logged: ReadonlyArray<string>) => Effect.Effect<A, E, KubernetesApi | Scope.Scope>
) =>
  Effect.suspend(() => {
    const logged: Array<string> = []
    const logger = Logger.layer([Logger.make(({ logLevel, message }) => logged.push(`${logLevel} ${String(message)}`))])
    return Effect.provide(program(logged), Layer.merge(api.layer, logger))
  })

/** Lets everything happen that needs no time. */
const settle = TestClock.adjust(0)

describe("list, then watch", () => {
  it.effect(
    "wire.md (e): the watch goes on from the list, asks for bookmarks, and is cut a little after its time",
    () => {
      const api = ScriptedApi.answering(list("42", spc("a", "7")))
      return run(api, () =>
        Effect.gen(function* () {
          const reflector = yield* started({ selection: { namespace: "ns", labelSelector: "x=y" } })
          assert.isFalse(reflector.isSynced())
          yield* settle
          assert.isTrue(reflector.isSynced())
          assert.deepStrictEqual(api.lastWatch.query, {
            resourceVersion: "42",
            allowWatchBookmarks: true,
            timeoutSeconds: 290,
            labelSelector: "x=y",
            fieldSelector: undefined
          })
          assert.strictEqual(api.lastWatch.idleMillis, 300_000)
        })
      )
    }
  )

  it.effect("events are applied, and only fields of the schema are kept", () => {
    const api = ScriptedApi.answering(list("42", spc("a", "7")))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        yield* api.lastWatch.send({ type: "ADDED", object: spc("b", "43") })
        yield* api.lastWatch.send({ type: "MODIFIED", object: spc("b", "44", "q") })
        yield* api.lastWatch.send({ type: "DELETED", object: spc("a", "45") })
        yield* api.lastWatch.send({ type: "DELETED", object: spc("unknown", "46") })
        yield* api.lastWatch.send({ type: "SOMETHING", object: {} })
        yield* settle
        assert.deepStrictEqual(reflector.told, ["Synced ns/a", "Applied ns/b p", "Applied ns/b q", "Deleted ns/a p"])
        assert.deepStrictEqual<unknown>(
          [...reflector.objects()],
          [["ns/b", { metadata: { name: "b", namespace: "ns", resourceVersion: "44" }, spec: { provider: "q" } }]]
        )
        assert.isUndefined(reflector.get("ns/a"))
        assert.strictEqual(reflector.get("ns/b")?.spec?.provider, "q")
      })
    )
  })

  it.effect("paging", () => {
    const api = ScriptedApi.answering(
      { metadata: { resourceVersion: "42", continue: "t" }, items: [spc("a", "1"), spc("b", "2")] },
      list("42", spc("c", "3"))
    )
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started({ pageSize: 2 })
        yield* settle
        assert.deepStrictEqual(reflector.told, ["Synced ns/a,ns/b,ns/c"])
        assert.deepStrictEqual(
          api.requests.map(({ query }) => query?.["continue"]),
          [undefined, "t"]
        )
      })
    )
  })

  it.effect("nothing is asked for once the scope is closed", () => {
    const api = ScriptedApi.answering(list("42"))
    return run(api, () =>
      Effect.gen(function* () {
        yield* Effect.scoped(Effect.andThen(started(), settle))
        assert.isTrue(api.lastWatch.closed)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(api.requests.length, 1)
        assert.strictEqual(api.watches.length, 1)
      })
    )
  })
})

describe("a watch that ends goes on from the last version", () => {
  const ends: ReadonlyArray<{
    readonly name: string
    readonly end: (api: ScriptedApi) => Effect.Effect<unknown>
    readonly isFailure: boolean
  }> = [
    { name: "closed by the server", end: (api) => api.lastWatch.close, isFailure: false },
    { name: "a broken connection", end: (api) => api.lastWatch.fail(failed(0, "Network")), isFailure: true },
    { name: "silence", end: (api) => api.lastWatch.fail(failed(0, "Idle")), isFailure: true },
    {
      name: "an ERROR event that is not 410",
      end: (api) => api.lastWatch.send({ type: "ERROR", object: { code: 500, reason: "InternalError", message: "m" } }),
      isFailure: true
    },
    {
      name: "an ERROR event without a Status",
      end: (api) => api.lastWatch.send({ type: "ERROR", object: null }),
      isFailure: true
    }
  ]
  it.effect.each(ends)("$name", ({ end, isFailure }) => {
    const api = ScriptedApi.answering(list("42", spc("a", "7")))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        yield* api.lastWatch.send({ type: "ADDED", object: spc("b", "43") })
        yield* api.lastWatch.send({ type: "BOOKMARK", object: { metadata: { resourceVersion: "99" } } })
        yield* settle
        yield* end(api)
        yield* settle
        assert.strictEqual(reflector.failure() !== undefined, isFailure)
        yield* TestClock.adjust("399 millis")
        assert.strictEqual(api.watches.length, 1, "it waits a little")
        yield* TestClock.adjust("201 millis")
        assert.strictEqual(api.watches.length, 2)
        assert.strictEqual(api.lastWatch.query["resourceVersion"], "99")
        assert.strictEqual(api.requests.length, 1, "without another list")
        assert.deepStrictEqual(reflector.held(), ["ns/a", "ns/b"])
        yield* api.lastWatch.send({ type: "BOOKMARK", object: { metadata: { resourceVersion: "100" } } })
        yield* settle
        assert.isUndefined(reflector.failure(), "what passes shows that it follows again")
      })
    )
  })
})

describe("a version that is no longer kept means a list", () => {
  const ways: ReadonlyArray<{ readonly name: string; readonly gone: (api: ScriptedApi) => Effect.Effect<unknown> }> = [
    { name: "410 as an event", gone: (api) => api.lastWatch.send({ type: "ERROR", object: expired }) },
    { name: "410 as a status", gone: (api) => api.lastWatch.fail(failed(410, "Gone")) }
  ]
  it.effect.each(ways)("$name", ({ gone }) => {
    const api = ScriptedApi.answering(
      list("42", spc("a", "1"), spc("b", "2")),
      list("60", spc("b", "50", "q"), spc("c", "51"))
    )
    return run(api, (logged) =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        yield* gone(api)
        yield* settle
        assert.strictEqual(api.requests.length, 1, "not at once: others list as well")
        assert.deepStrictEqual(reflector.held(), ["ns/a", "ns/b"], "what is held is held until then")
        yield* TestClock.adjust("600 millis")
        assert.deepStrictEqual(reflector.told, ["Synced ns/a,ns/b", "Deleted ns/a p", "Synced ns/b,ns/c"])
        assert.strictEqual(api.lastWatch.query["resourceVersion"], "60")
        assert.deepStrictEqual(logged, [])
        assert.isUndefined(reflector.failure())
      })
    )
  })

  it.effect("between two pages", () => {
    const first = { metadata: { resourceVersion: "42", continue: "t" }, items: [spc("a", "1")] }
    const api = ScriptedApi.answering(first, failed(410, "Expired"), list("60", spc("b", "50")))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        assert.isFalse(reflector.isSynced())
        yield* TestClock.adjust("600 millis")
        assert.deepStrictEqual(reflector.told, ["Synced ns/b"])
        assert.isUndefined(api.requests.at(-1)?.query?.["continue"])
      })
    )
  })

  it.effect("S11 a list whose watch is gone at once is not repeated in a hurry", () => {
    const api = ScriptedApi.answering(list("42"))
    return run(api, () =>
      Effect.gen(function* () {
        for (let n = 0; n < 100; n++) api.refusals.push(failed(410, "Gone"))
        yield* started()
        yield* TestClock.adjust("10 minutes")
        // 0.5 + 1 + 2 + ... + 16 seconds, then every 30, with jitter.
        assert.isAtMost(api.requests.length, 33)
        assert.isAtLeast(api.requests.length, 20)
      })
    )
  })
})

describe("delays", () => {
  /** When the n-th request was made. */
  const times = (api: ScriptedApi, duration: number) =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      for (let millis = 0; millis < duration; millis += 50) {
        if (api.requests.length > seen.length) seen.push(millis)
        yield* TestClock.adjust(50)
      }
      return seen
    })

  it.effect("grow from half a second to half a minute, 20 % to either side, without end", () => {
    const api = ScriptedApi.answering(failed(0, "Network"))
    return run(api, (logged) =>
      Effect.gen(function* () {
        yield* started()
        yield* settle
        const seen = yield* times(api, 300_000)
        const delays = seen.slice(1).map((at, index) => at - seen[index]!)
        const expected = [500, 1_000, 2_000, 4_000, 8_000, 16_000, ...delays.slice(6).map(() => 30_000)]
        assert.isAtLeast(delays.length, 12)
        for (const [index, delay] of delays.entries()) {
          assert.isAtLeast(delay, expected[index]! * 0.8 - 50)
          assert.isAtMost(delay, expected[index]! * 1.2 + 50)
        }
        assert.deepStrictEqual(
          logged.map((line) => line.split(" ")[0]),
          ["Warn"],
          "said once"
        )
      })
    )
  })

  it.effect("begin anew after an event, a bookmark, or a quiet minute", () => {
    const api = ScriptedApi.answering(list("42"))
    return run(api, () =>
      Effect.gen(function* () {
        yield* started()
        yield* settle
        const bookmark = { type: "BOOKMARK", object: { metadata: { resourceVersion: "43" } } }
        for (let round = 1; round <= 10; round++) {
          if (round % 2 === 0) yield* api.lastWatch.send(bookmark)
          else yield* TestClock.adjust("1 minute")
          yield* settle
          yield* api.lastWatch.fail(failed(0, "Network"))
          yield* TestClock.adjust("600 millis")
          assert.strictEqual(api.watches.length, round + 1)
        }
      })
    )
  })

  it.effect("grow when the server closes every watch at once", () => {
    const api = ScriptedApi.answering(list("42"))
    return run(api, () =>
      Effect.gen(function* () {
        yield* started()
        yield* settle
        for (let second = 0; second < 600; second++) {
          yield* api.lastWatch.close
          yield* TestClock.adjust("1 second")
        }
        assert.isAtMost(api.watches.length, 35)
        assert.strictEqual(api.requests.length, 1)
      })
    )
  })
})

describe("errors that stay", () => {
  it.effect("are said once per kind, and are tried again for ever", () => {
    const api = ScriptedApi.answering(failed(403, "Forbidden"))
    return run(api, (logged) =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(reflector.failure()?.status, 403)
        api.respond = () => Effect.fail(failed(404, "NotFound"))
        yield* TestClock.adjust("2 minutes")
        assert.strictEqual(reflector.failure()?.status, 404)
        assert.isFalse(reflector.isSynced())
        api.respond = () => Effect.succeed(list("42"))
        yield* TestClock.adjust("1 minute")
        assert.isTrue(reflector.isSynced())
        assert.isUndefined(reflector.failure())
        assert.deepStrictEqual(
          logged.map((line) => line.split(" ")[0]),
          ["Warn", "Warn", "Info"]
        )
      })
    )
  })

  it.effect("a watch that is forbidden is a failure, although there is a list", () => {
    const api = ScriptedApi.answering(list("42", spc("a", "1")))
    api.refusals.push(failed(403, "Forbidden"))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        assert.isTrue(reflector.isSynced())
        assert.strictEqual(reflector.failure()?.status, 403)
      })
    )
  })
})

describe("when an error is over", () => {
  it.effect("what is held is told again, for those who have not trusted it", () => {
    const api = ScriptedApi.answering(list("42", spc("a", "1")))
    api.refusals.push(failed(403, "Forbidden"))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        assert.strictEqual(reflector.failure()?.status, 403)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(reflector.told, ["Synced ns/a"])
        yield* api.lastWatch.send({ type: "BOOKMARK", object: { metadata: { resourceVersion: "43" } } })
        yield* settle
        assert.isUndefined(reflector.failure())
        assert.deepStrictEqual(reflector.told, ["Synced ns/a", "Synced ns/a"])
      })
    )
  })
})

describe("synced", () => {
  it.effect("waits for the first list", () => {
    const api = ScriptedApi.answering(failed(0, "Network"), failed(0, "Network"), list("42"))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        const fiber = yield* Effect.forkChild(reflector.synced(5_000))
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(fiber)
        assert.isTrue(reflector.isSynced())
      })
    )
  })

  it.effect.each([
    { name: "the last cause", answer: Effect.fail(failed(403, "Forbidden")), reason: "Forbidden" },
    { name: "no cause yet", answer: Effect.never, reason: "Timeout" }
  ])("fails when its time is over: $name", ({ answer, reason }) => {
    const api = new ScriptedApi(() => answer)
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        const fiber = yield* Effect.forkChild(Effect.flip(reflector.synced(5_000)))
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual((yield* Fiber.join(fiber)).reason, reason)
      })
    )
  })

  it.effect("the first attempt is over, well or badly", () => {
    const api = ScriptedApi.answering(failed(403, "Forbidden"))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* reflector.attempted
        assert.isFalse(reflector.isSynced())
      })
    )
  })
})

describe("objects of the wrong shape", () => {
  const broken = (name: string, resourceVersion: string) => ({ ...spc(name, resourceVersion), spec: { provider: 7 } })

  it.effect("are left out of a list and of a watch, and take nothing else away", () => {
    const api = ScriptedApi.answering(list("42", spc("a", "1"), broken("b", "2")))
    return run(api, (logged) =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        yield* api.lastWatch.send({ type: "ADDED", object: broken("c", "43") })
        yield* api.lastWatch.send({ type: "ADDED", object: "text" })
        yield* api.lastWatch.send({ type: "ADDED", object: spc("d", "44") })
        yield* settle
        assert.deepStrictEqual(reflector.held(), ["ns/a", "ns/d"])
        assert.strictEqual(logged.length, 3)
        assert.isTrue(logged[0]?.includes("left out"))
      })
    )
  })

  it.effect("an object that becomes one is not held any more", () => {
    const api = ScriptedApi.answering(list("42", spc("a", "1")))
    return run(api, () =>
      Effect.gen(function* () {
        const reflector = yield* started()
        yield* settle
        yield* api.lastWatch.send({ type: "MODIFIED", object: broken("a", "43") })
        yield* settle
        assert.deepStrictEqual(reflector.told, ["Synced ns/a", "Deleted ns/a p"])
        yield* api.lastWatch.close
        yield* TestClock.adjust("1 second")
        assert.strictEqual(api.lastWatch.query["resourceVersion"], "43")
      })
    )
  })
})
