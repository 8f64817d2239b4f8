/**
 * Rows of reference/driver.md 13.1, pkg/secrets-store/provider_client_test.go: the client of real providers on sockets.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Redacted, References, type Scope } from "effect"
import * as DevelopmentProvider from "../../layers/development/DevelopmentProvider.ts"
import { layer as providerSockets } from "../../layers/real/ProviderSockets.ts"
import { ProviderCallFailed, ProviderNameInvalid, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import type { MountRequest } from "../../schemas/Provider.ts"
import { Providers } from "../../src/ports/Providers.ts"
import { watchProviders } from "../../src/volume/ProviderHealth.ts"

const RECEIVE_BYTES_MAX = 4_194_304

const request: MountRequest = {
  attributes: Redacted.make(JSON.stringify({ objects: "array:\n  - 'objectName: foo'\n" })),
  secrets: Redacted.make("null"),
  targetPath: "/target",
  permission: "420",
  currentObjectVersions: []
}

const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "client-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

const start = (directory: string, name: string) =>
  DevelopmentProvider.serve({ endpoint: `unix://${join(directory, `${name}.sock`)}` })

const mount = (name: string) => Effect.flatMap(Providers, (providers) => providers.mount(name, request))

const withDirectories = <A, E>(
  use: (first: string, second: string) => Effect.Effect<A, E, Providers | Scope.Scope>,
  maxReceiveBytes = RECEIVE_BYTES_MAX
) =>
  Effect.gen(function* () {
    const [first, second] = [yield* temporary, yield* temporary]
    return yield* Effect.provide(use(first, second), providerSockets({ directories: [first, second], maxReceiveBytes }))
  })

const names = Array.from({ length: 10 }, (_, i) => `server-${i}`)

describe("13.1 provider_client_test.go", () => {
  it.live("TestPluginClientBuilder: ten providers, asked in parallel", () =>
    withDirectories((first) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(first, name)
        const answers = yield* Effect.forEach(names, mount, { concurrency: 10 })
        assert.deepStrictEqual(
          answers.map(({ objectVersions }) => objectVersions),
          names.map(() => [{ id: "secret/foo", version: "v1" }])
        )
        assert.deepStrictEqual(yield* Effect.flatMap(Providers, ({ known }) => known), names)
      })
    )
  )

  it.live("TestPluginClientBuilderMultiPath: the first directory is empty", () =>
    withDirectories((_, second) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(second, name)
        yield* Effect.forEach(names, mount, { concurrency: 10 })
      })
    )
  )

  it.live("TestPluginClientBuilder_ConcurrentGet: ten at once share one connection", () => {
    const connecting: Array<unknown> = []
    const log = Logger.make(({ message }) => {
      const [words] = Array.isArray(message) ? message : [message]
      if (words === "connecting to provider") connecting.push(words)
    })
    return withDirectories((first) =>
      Effect.gen(function* () {
        const provider = yield* start(first, "server")
        const calls = names.map(() => mount("server"))
        yield* Effect.all(calls, { concurrency: 10 })
        assert.strictEqual(provider.calls().total, 10)
        assert.strictEqual(connecting.length, 1)
      })
    ).pipe(Effect.provide(Layer.merge(Logger.layer([log]), Layer.succeed(References.MinimumLogLevel, "Debug"))))
  })

  it.live("TestPluginClientBuilderErrorNotFound: not cached, so a provider that starts is found", () =>
    withDirectories((first, second) =>
      Effect.gen(function* () {
        const failure = yield* Effect.flip(mount("notfoundprovider"))
        assert.instanceOf(failure, ProviderNotFound)
        assert.strictEqual(
          failure.message,
          `provider not found: provider "notfoundprovider", searched ${first} (no sockets), ${second} (no sockets)`
        )
        yield* start(first, "notfoundprovider")
        yield* mount("notfoundprovider")
      })
    )
  )

  it.live("3.1 not found: directories that do not exist are said to be missing", () =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(mount("lost"))
      assert.strictEqual(
        failure.message,
        'provider not found: provider "lost", searched /no/such/place (no such directory)'
      )
    }).pipe(Effect.provide(providerSockets({ directories: ["/no/such/place"], maxReceiveBytes: RECEIVE_BYTES_MAX })))
  )

  it.live("TestPluginClientBuilderErrorInvalid", () =>
    withDirectories(() =>
      Effect.gen(function* () {
        const failure = yield* Effect.flip(mount("bad/provider/name"))
        assert.instanceOf(failure, ProviderNameInvalid)
        assert.strictEqual(failure.message, 'invalid provider: provider "bad/provider/name"')
      })
    )
  )

  it.live("TestVersion", () =>
    withDirectories((first) =>
      Effect.gen(function* () {
        yield* start(first, "server")
        const providers = yield* Providers
        assert.deepStrictEqual(yield* providers.version("server"), {
          version: "v1alpha1",
          runtimeName: "E2EMockProvider",
          runtimeVersion: "v0.0.10"
        })
      })
    )
  )

  it.live("TestPluginClientBuilder_HealthCheck: looking every millisecond stops nobody", () =>
    withDirectories((first) =>
      Effect.gen(function* () {
        for (const name of names) yield* start(first, name)
        const watching = yield* Effect.forkChild(watchProviders(1), { startImmediately: true })
        for (const _ of [1, 2, 3]) {
          yield* Effect.timeout(Effect.forEach(names, mount, { concurrency: 10 }), "5 seconds")
        }
        yield* Fiber.interrupt(watching)
      })
    )
  )

  it.live("TestMountContent_TooLarge: five bytes are taken at most", () =>
    withDirectories(
      (first) =>
        Effect.gen(function* () {
          yield* start(first, "server")
          const failure = yield* Effect.flip(mount("server"))
          assert.instanceOf(failure, ProviderCallFailed)
          assert.deepStrictEqual(
            [failure.grpcCode, failure.code, failure.isTooLarge],
            ["RESOURCE_EXHAUSTED", "GRPCProviderError", true]
          )
          assert.match(
            failure.message,
            /^rpc error: code = ResourceExhausted desc = grpc: received message larger than max \(\d+ vs\. 5\)$/u
          )
          assert.include(failure.remedy, "--max-call-recv-msg-size")
        }),
      5
    )
  )

  it.each([
    { name: "another error", grpcCode: "UNKNOWN", details: "plain error", expected: false },
    { name: "a quota", grpcCode: "RESOURCE_EXHAUSTED", details: "quota exceeded", expected: false },
    {
      name: "larger than this machine can take",
      grpcCode: "RESOURCE_EXHAUSTED",
      details: "grpc: received message larger than max length allowed on current machine (1 vs. 2)",
      expected: false
    },
    {
      name: "larger than the flag allows",
      grpcCode: "RESOURCE_EXHAUSTED",
      details: "grpc: received message larger than max (5 vs. 4)",
      expected: true
    }
  ] as const)("TestIsMaxRecvMsgSizeError: $name", ({ details, expected, grpcCode }) => {
    const failure = new ProviderCallFailed({ provider: "p", grpcCode, details, unanswered: false })
    assert.strictEqual(failure.isTooLarge, expected)
  })

  it.live("3.1 the driver's authority is one that the e2e provider takes", () =>
    withDirectories((first) =>
      Effect.gen(function* () {
        yield* start(first, "e2e-provider")
        assert.strictEqual((yield* mount("e2e-provider")).errorCode, "")
      })
    )
  )
})
