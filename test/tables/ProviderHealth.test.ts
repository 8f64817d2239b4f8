/**
 * The health check of providers: what a check means, row by row, and when checks happen, on a clock of the test's.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Layer, Metric, Redacted, Result } from "effect"
import { TestClock } from "effect/testing"
import * as DevelopmentProvider from "../../layers/development/DevelopmentProvider.ts"
import * as KlogLogger from "../../layers/real/KlogLogger.ts"
import { layer as providerSockets } from "../../layers/real/ProviderSockets.ts"
import { ProviderCallFailed, ProviderNameInvalid, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import { PROVIDER_API_VERSION, type VersionResponse } from "../../schemas/Provider.ts"
import { Providers } from "../../src/ports/Providers.ts"
import { exposition } from "../../src/telemetry/PrometheusText.ts"
import { judge, watchProviders } from "../../src/volume/ProviderHealth.ts"
import { answer, request } from "../contracts/ProvidersSuite.ts"

const version: VersionResponse = { version: PROVIDER_API_VERSION, runtimeName: "vault", runtimeVersion: "1.2.3" }
const failing = (grpcCode: ProviderCallFailed["grpcCode"], provider = "vault") =>
  new ProviderCallFailed({ provider, grpcCode, details: "sealed", unanswered: true })
const absent = new ProviderNotFound({
  provider: "vault",
  searched: [{ directory: "/providers", found: "no sockets" }],
  waitedMillis: 0
})

describe("3.3, D10 what a check means", () => {
  const successful = {
    level: "V(4)",
    words: "provider healthcheck successful",
    fields: { provider: "vault", runtimeVersion: "1.2.3" }
  }
  const failed = (err: string) => ({
    level: "V(4)",
    words: "provider healthcheck failed",
    fields: { provider: "vault", err }
  })
  const wentDown = (err: string, remedy: string) => ({
    level: "Warning",
    words: "provider does not answer health checks",
    fields: { provider: "vault", err, remedy }
  })
  const cameUp = { ...successful, level: "Info", words: "provider answers health checks again" }
  const SEALED = "rpc error: code = Unavailable desc = sealed"
  const CHECK_POD = "check that the pod of provider vault on this node is running"

  it.each([
    {
      name: "a first success is no news",
      wasUp: undefined,
      answer: Result.succeed(version),
      grpcCode: "OK",
      lines: [successful]
    },
    { name: "up, as before", wasUp: true, answer: Result.succeed(version), grpcCode: "OK", lines: [successful] },
    {
      name: "down, and up again",
      wasUp: false,
      answer: Result.succeed(version),
      grpcCode: "OK",
      lines: [successful, cameUp]
    },
    {
      name: "a first failure is told: the provider was called, so it was up",
      wasUp: undefined,
      answer: Result.fail(failing("UNAVAILABLE")),
      grpcCode: "UNAVAILABLE",
      lines: [failed(SEALED), wentDown(SEALED, CHECK_POD)]
    },
    {
      name: "up, and down",
      wasUp: true,
      answer: Result.fail(failing("UNAVAILABLE")),
      grpcCode: "UNAVAILABLE",
      lines: [failed(SEALED), wentDown(SEALED, CHECK_POD)]
    },
    {
      name: "down, as before",
      wasUp: false,
      answer: Result.fail(failing("UNAVAILABLE")),
      grpcCode: "UNAVAILABLE",
      lines: [failed(SEALED)]
    },
    {
      name: "down for another reason is not told again",
      wasUp: false,
      answer: Result.fail(absent),
      grpcCode: "UNAVAILABLE",
      lines: [failed(absent.message)]
    },
    {
      name: "an answer that is an error",
      wasUp: true,
      answer: Result.fail(failing("UNIMPLEMENTED")),
      grpcCode: "UNIMPLEMENTED",
      lines: [
        failed("rpc error: code = Unimplemented desc = sealed"),
        wentDown("rpc error: code = Unimplemented desc = sealed", "see the log of provider vault on this node")
      ]
    },
    {
      name: "the socket is gone",
      wasUp: true,
      answer: Result.fail(absent),
      grpcCode: "UNAVAILABLE",
      lines: [failed(absent.message), wentDown(absent.message, absent.remedy)]
    },
    {
      name: "no name for a provider",
      wasUp: false,
      answer: Result.fail(new ProviderNameInvalid({ provider: "vault" })),
      grpcCode: "INVALID_ARGUMENT",
      lines: [failed('invalid provider: provider "vault"')]
    }
  ] as const)("$name", ({ answer, grpcCode, lines, wasUp }) => {
    assert.deepStrictEqual<unknown>(judge("vault", wasUp, answer), { grpcCode, lines })
  })
})

/** Providers by name; what a version call does is the test's, and every one that begins is kept. */
const scripted = () => {
  const versions = new Map<string, Effect.Effect<VersionResponse, ProviderCallFailed | ProviderNotFound>>()
  const asked: Array<string> = []
  let underWay = 0
  let underWayMax = 0
  const layer = Layer.succeed(
    Providers,
    Providers.of({
      locate: () => Effect.void,
      mount: () => Effect.succeed(answer("secret")),
      version: (provider) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          asked.push(`${provider} at ${now}`)
          underWay += 1
          underWayMax = Math.max(underWayMax, underWay)
          return versions.get(provider) ?? Effect.fail(failing("UNKNOWN", provider))
        }).pipe(
          Effect.ensuring(
            Effect.sync(() => {
              underWay -= 1
            })
          )
        ),
      known: Effect.sync(() => [...versions.keys()].sort())
    })
  )
  return { layer, versions, asked, underWay: () => underWay, underWayMax: () => underWayMax }
}

interface Watching extends ReturnType<typeof scripted> {
  /** The series of the health check that there are now. */
  readonly series: Effect.Effect<ReadonlyArray<string>>
  /** Log lines since the last look, without their heads. */
  readonly logged: () => ReadonlyArray<string>
}

/** Watches from moment 0 on, until `use` ends. */
const watching = <A, E>(
  intervalMillis: number,
  use: (watching: Watching) => Effect.Effect<A, E, Providers>,
  verbosity = 0
) => {
  const providers = scripted()
  const lines: Array<string> = []
  const log = KlogLogger.layer({
    json: false,
    verbosity,
    pid: 1,
    write: (line) => void lines.push(line.replace(/^.*?\] /u, "").trimEnd())
  })
  const series = Effect.map(exposition(), (text) =>
    text
      .split("\n")
      .filter((line) => /^secrets_store_provider_(?:up|health_checks_total)\{/u.test(line))
      .map((line) => line.slice("secrets_store_provider_".length))
  )
  return Effect.gen(function* () {
    const fiber = yield* Effect.forkChild(watchProviders(intervalMillis), { startImmediately: true })
    const result = yield* use({ ...providers, series, logged: () => lines.splice(0) })
    assert.isUndefined(fiber.pollUnsafe(), "it never ends")
    yield* Fiber.interrupt(fiber)
    return result
  }).pipe(Effect.provide(Layer.merge(providers.layer, log)), Effect.provideService(Metric.MetricRegistry, new Map()))
}

const ok = Effect.succeed(version)

describe("3.3 when checks happen", () => {
  it.effect("the first one interval after the start, then one interval apart", () =>
    watching(60_000, ({ asked, versions }) =>
      Effect.gen(function* () {
        versions.set("vault", ok)
        yield* TestClock.adjust(59_999)
        assert.deepStrictEqual(asked, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(asked, ["vault at 60000"])
        yield* TestClock.adjust(60_000)
        assert.deepStrictEqual(asked, ["vault at 60000", "vault at 120000"])
      })
    )
  )

  it.effect("nobody is known yet: nothing is asked and nothing counted", () =>
    watching(1_000, ({ asked, logged, series }) =>
      Effect.gen(function* () {
        yield* TestClock.adjust(10_000)
        assert.deepStrictEqual([asked, yield* series, logged()], [[], [], []])
      })
    )
  )

  it.effect("a provider that hangs costs five seconds, and the others nothing", () =>
    watching(60_000, ({ asked, logged, series, underWay, versions }) =>
      Effect.gen(function* () {
        versions.set("a-hangs", Effect.never).set("vault", ok)
        yield* TestClock.adjust(60_000)
        assert.deepStrictEqual(asked, ["a-hangs at 60000", "vault at 60000"])
        assert.deepStrictEqual(yield* series, [
          'health_checks_total{grpc_code="OK",provider="vault"} 1',
          'up{provider="vault"} 1'
        ])
        yield* TestClock.adjust(4_999)
        assert.strictEqual(underWay(), 1)
        yield* TestClock.adjust(1)
        assert.strictEqual(underWay(), 0)
        assert.deepStrictEqual(yield* series, [
          'health_checks_total{grpc_code="DEADLINE_EXCEEDED",provider="a-hangs"} 1',
          'health_checks_total{grpc_code="OK",provider="vault"} 1',
          'up{provider="a-hangs"} 0',
          'up{provider="vault"} 1'
        ])
        assert.deepStrictEqual(logged(), [
          '"provider does not answer health checks" err="rpc error: code = DeadlineExceeded desc = provider \\"a-hangs\\" did not answer within 5000 ms" provider="a-hangs" remedy="check that the pod of provider a-hangs on this node is running"'
        ])
        yield* TestClock.adjust(59_999)
        assert.strictEqual(asked.length, 2)
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(asked.slice(2), ["a-hangs at 125000", "vault at 125000"])
      })
    )
  )

  it.effect("Q24: lookups and mounts take no time while a check hangs", () =>
    watching(1_000, ({ underWay, versions }) =>
      Effect.gen(function* () {
        const providers = yield* Providers
        versions.set("vault", Effect.never)
        yield* TestClock.adjust(1_000)
        assert.strictEqual(underWay(), 1)
        for (const provider of ["vault", "never-asked-before"]) {
          yield* providers.locate(provider, 0)
          yield* providers.mount(provider, request)
        }
        assert.deepStrictEqual([yield* Clock.currentTimeMillis, underWay()], [1_000, 1])
      })
    )
  )

  it.effect("a sweep never overlaps itself, however short the interval", () =>
    watching(1_000, ({ asked, underWayMax, versions }) =>
      Effect.gen(function* () {
        versions.set("vault", Effect.never)
        yield* TestClock.adjust(20_000)
        assert.strictEqual(underWayMax(), 1)
        assert.deepStrictEqual(asked, ["vault at 1000", "vault at 7000", "vault at 13000", "vault at 19000"])
      })
    )
  )

  it.effect("four are asked at a time", () =>
    watching(1_000, ({ asked, underWayMax, versions }) =>
      Effect.gen(function* () {
        for (const name of ["a", "b", "c", "d", "e"]) versions.set(name, Effect.delay(ok, 100))
        yield* TestClock.adjust(1_200)
        assert.strictEqual(underWayMax(), 4)
        assert.deepStrictEqual(asked.slice(3), ["d at 1000", "e at 1100"])
      })
    )
  )

  it.effect.each([[0], [-1], [-120_000], [0.000_001]])("an interval of %s ms counts as one millisecond", ([interval]) =>
    watching(interval ?? 0, ({ asked, versions }) =>
      Effect.gen(function* () {
        versions.set("vault", ok)
        assert.deepStrictEqual(asked, [])
        yield* TestClock.adjust(3)
        assert.deepStrictEqual(asked, ["vault at 1", "vault at 2", "vault at 3"])
      })
    )
  )
})

describe("D10 what is told", () => {
  it.effect("one line when a provider goes down, and one when it is up again", () =>
    watching(1_000, ({ logged, series, versions }) =>
      Effect.gen(function* () {
        versions.set("vault", ok)
        yield* TestClock.adjust(3_000)
        assert.deepStrictEqual(logged(), [])
        versions.set("vault", Effect.fail(absent))
        yield* TestClock.adjust(2_000)
        assert.deepStrictEqual(logged(), [
          '"provider does not answer health checks" err="provider not found: provider \\"vault\\", searched /providers (no sockets)" provider="vault" remedy="install the provider on this node, so that it listens on vault.sock in one of these directories, or correct spec.provider"'
        ])
        assert.deepStrictEqual(yield* series, [
          'health_checks_total{grpc_code="OK",provider="vault"} 3',
          'health_checks_total{grpc_code="UNAVAILABLE",provider="vault"} 2',
          'up{provider="vault"} 0'
        ])
        versions.set("vault", ok)
        yield* TestClock.adjust(2_000)
        assert.deepStrictEqual(logged(), [
          '"provider answers health checks again" provider="vault" runtimeVersion="1.2.3"'
        ])
        assert.include(yield* series, 'up{provider="vault"} 1')
      })
    )
  )

  it.effect("3.3 every check, at -v=4", () =>
    watching(
      1_000,
      ({ logged, versions }) =>
        Effect.gen(function* () {
          versions.set("azure", Effect.fail(failing("UNAVAILABLE", "azure"))).set("vault", ok)
          yield* TestClock.adjust(1_000)
          logged()
          yield* TestClock.adjust(1_000)
          assert.deepStrictEqual(logged(), [
            '"provider healthcheck failed" err="rpc error: code = Unavailable desc = sealed" provider="azure"',
            '"provider healthcheck successful" provider="vault" runtimeVersion="1.2.3"'
          ])
        }),
      4
    )
  )

  it.effect("a provider that is not known any more leaves no gauge, and starts anew if it comes back", () =>
    watching(1_000, ({ logged, series, versions }) =>
      Effect.gen(function* () {
        versions.set("azure", ok).set("vault", Effect.fail(failing("UNAVAILABLE")))
        yield* TestClock.adjust(1_000)
        assert.strictEqual(logged().length, 1)
        versions.delete("vault")
        yield* TestClock.adjust(1_000)
        assert.deepStrictEqual(yield* series, [
          'health_checks_total{grpc_code="OK",provider="azure"} 2',
          'health_checks_total{grpc_code="UNAVAILABLE",provider="vault"} 1',
          'up{provider="azure"} 1'
        ])
        versions.set("vault", ok)
        yield* TestClock.adjust(1_000)
        assert.include(yield* series, 'up{provider="vault"} 1')
        assert.deepStrictEqual(logged(), [])
      })
    )
  )

  it.effect("labels are bounded", () =>
    watching(1_000, ({ series, versions }) =>
      Effect.gen(function* () {
        for (let n = 0; n < 70; n++) versions.set(`p${n}`, ok)
        yield* TestClock.adjust(1_000)
        const lines = yield* series
        assert.strictEqual(lines.length, 2 * 65)
        assert.include(lines, 'health_checks_total{grpc_code="OK",provider="Other"} 6')
      })
    )
  )
})

describe("on sockets", () => {
  const temporary = Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "health-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
  )
  const mute = (socket: string) =>
    Effect.acquireRelease(
      Effect.callback<ReturnType<typeof createServer>>((resume) => {
        const server = createServer((connection) => connection.on("error", () => {}).resume())
        server.listen(socket, () => resume(Effect.succeed(server)))
      }),
      (server) => Effect.sync(() => server.close())
    )

  const attributes = Redacted.make(JSON.stringify({ objects: "array:\n  - 'objectName: foo'\n" }))
  const served = { ...request, attributes }

  it.live("Q24: a first call to a provider does not wait for the check of one that hangs", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      yield* mute(join(directory, "mute.sock"))
      yield* DevelopmentProvider.serve({ endpoint: `unix://${join(directory, "vault.sock")}` })
      yield* Effect.gen(function* () {
        const providers = yield* Providers
        yield* Effect.timeoutOption(providers.version("mute"), 50)
        assert.deepStrictEqual(yield* providers.known, ["mute"])
        const fiber = yield* Effect.forkChild(watchProviders(1), { startImmediately: true })
        yield* Effect.sleep(50)
        yield* providers.locate("vault", 0)
        yield* Effect.timeout(providers.mount("vault", served), "2 seconds")
        assert.deepStrictEqual(yield* providers.known, ["mute", "vault"])
        yield* Fiber.interrupt(fiber)
      }).pipe(Effect.provide(providerSockets({ directories: [directory], maxReceiveBytes: 4_194_304 })))
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})
