/**
 * What the driver expects of the way to its providers, real or not. Rows quote reference/driver.md.
 *
 * A test's providers have names of their own, since the layer is shared.
 */
import { assert, it } from "@effect/vitest"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, type Layer, Redacted, Schedule, type Scope } from "effect"
import type { MountHandler } from "../../layers/fake/MemoryProviders.ts"
import { GRPC_CODES } from "../../schemas/errors/CsiStatus.ts"
import { ProviderCallFailed, ProviderNameInvalid, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import type { MountRequest, MountResponse } from "../../schemas/Provider.ts"
import { Providers } from "../../src/ports/Providers.ts"

/** What a suite has to be able to do besides. */
export interface ProvidersWorld<R> {
  /** Lets a provider answer under this name. It may go away with the scope. */
  readonly install: (name: string, handler: MountHandler) => Effect.Effect<void, never, R | Scope.Scope>
  /** Ends a provider, and the calls that it is answering. */
  readonly remove: (name: string) => Effect.Effect<void, never, R>
  /** Leaves a socket under this name at which nobody accepts, as a killed process does. */
  readonly leaveSocket: (name: string) => Effect.Effect<void, never, R>
}

const RECEIVE_BYTES_MAX = 4_194_304
const GO_CODES = GRPC_CODES.filter((code) => code !== "OK")

export const request: MountRequest = {
  attributes: Redacted.make('{"objects":"foo","secretProviderClass":"spc"}'),
  secrets: Redacted.make("null"),
  targetPath: "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/secrets/mount",
  permission: "420",
  currentObjectVersions: [{ id: "secret/foo", version: "v0" }]
}

export const answer = (contents: string): MountResponse => ({
  objectVersions: [
    { id: "secret/foo", version: "v1" },
    { id: "secret/bar", version: "" }
  ],
  errorCode: "",
  files: [
    { path: "foo", mode: 0o644, contents: Redacted.make(new TextEncoder().encode(contents)) },
    { path: "nested/bar", mode: 0o400, contents: Redacted.make(new Uint8Array()) }
  ],
  sizeBytes: 64
})

/** Without the size, which is the wire's, and with what is redacted in the open. */
const plain = ({ errorCode, files, objectVersions }: MountResponse) => ({
  objectVersions,
  errorCode,
  files: files.map(({ contents, mode, path }) => ({ path, mode, contents: [...Redacted.value(contents)] }))
})

/**
 * Asks as the driver does: once more when nothing was heard. A connection whose other end has just gone refuses the
 * first call after that.
 */
export const contentsOf = (provider: string) =>
  Effect.flatMap(Providers, (providers) => providers.mount(provider, request)).pipe(
    Effect.retry({
      schedule: Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(2)]),
      while: (failure) => failure._tag === "ProviderCallFailed" && failure.unanswered
    }),
    Effect.map(({ files }) => new TextDecoder().decode(Redacted.value(files[0]!.contents))),
    Effect.timeout("5 seconds")
  )

export const suite = <R, E>(
  name: string,
  layer: Layer.Layer<Providers | R, E>,
  { install, leaveSocket, remove }: ProvidersWorld<R>
) =>
  it.layer(layer, { excludeTestServices: true })(`Providers (${name})`, (it) => {
    const ok: MountHandler = () => Effect.succeed(answer("secret"))

    it.effect("3.1 a provider that listens is located at once, also with no time to wait", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        yield* install("present", ok)
        yield* providers.locate("present", 0)
        yield* providers.locate("present", 60_000)
      })
    )

    it.effect("13.1 TestPluginClientBuilderErrorNotFound: unknown until it is there", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const attempts = [
          Effect.flip(providers.locate("later", 0)),
          Effect.flip(providers.mount("later", request)),
          Effect.flip(providers.version("later"))
        ]
        for (const failure of yield* Effect.all(attempts)) {
          assert.instanceOf(failure, ProviderNotFound)
          assert.strictEqual(failure.waitedMillis, 0)
          assert.isTrue(failure.message.startsWith('provider not found: provider "later", searched '), failure.message)
          assert.isTrue(failure.searched.length > 0)
        }
        yield* install("later", ok)
        yield* providers.locate("later", 0)
        yield* providers.mount("later", request)
      })
    )

    it.effect("3.1 not found: the sockets that are there are named", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        yield* install("a-neighbour", ok)
        const failure = yield* Effect.flip(providers.mount("a-neighbuor", request))
        assert.isTrue(failure.message.includes("a-neighbour.sock"), failure.message)
      })
    )

    it.effect("locate waits for a provider that comes late", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const waiting = yield* Effect.forkChild(providers.locate("late", 10_000), { startImmediately: true })
        yield* Effect.sleep(60)
        assert.strictEqual(waiting.pollUnsafe(), undefined)
        const installed = yield* Clock.currentTimeMillis
        yield* install("late", ok)
        yield* Fiber.join(waiting)
        assert.isBelow((yield* Clock.currentTimeMillis) - installed, 2_000)
      })
    )

    it.effect("locate waits no longer than it may, and says how long it has waited", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const failure = yield* Effect.flip(providers.locate("never", 120))
        assert.instanceOf(failure, ProviderNotFound)
        assert.isAtLeast(failure.waitedMillis, 119)
        assert.isBelow(failure.waitedMillis, 5_000)
        assert.match(failure.message, / for \d+ ms$/u)
      })
    )

    it.effect("Q25: a stale socket is waited at, and a provider that takes its place answers", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        yield* leaveSocket("stale")
        yield* providers.locate("stale", 0)
        const waiting = yield* Effect.forkChild(contentsOf("stale"), { startImmediately: true })
        yield* Effect.sleep(300)
        assert.strictEqual(waiting.pollUnsafe(), undefined)
        yield* remove("stale")
        yield* install("stale", () => Effect.succeed(answer("alive")))
        assert.strictEqual(yield* Fiber.join(waiting).pipe(Effect.timeout("5 seconds")), "alive")
      })
    )

    it.effect("Q25: waiting at a stale socket is interruptible", () =>
      Effect.gen(function* () {
        yield* leaveSocket("left-alone")
        const outcome = yield* Effect.timeoutOption(contentsOf("left-alone"), 100)
        assert.strictEqual(outcome._tag, "None")
      })
    )

    it.effect("3.3 version fails at once where nobody accepts", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        yield* leaveSocket("dead")
        const failure = yield* Effect.flip(providers.version("dead")).pipe(Effect.timeout("5 seconds"))
        assert.strictEqual(failure._tag === "ProviderCallFailed" ? failure.grpcCode : failure._tag, "UNAVAILABLE")
      })
    )

    it.effect("waiting is interruptible", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const waiting = yield* Effect.forkChild(providers.locate("never", 60_000), { startImmediately: true })
        yield* Effect.sleep(20)
        yield* Fiber.interrupt(waiting)
      })
    )

    it.effect.each([
      { provider: "bad/provider/name", row: "13.1 TestPluginClientBuilderErrorInvalid" },
      { provider: "a".repeat(31), row: "3.1 31 characters" },
      { provider: "dots.not.allowed", row: "3.1 a dot" },
      { provider: "name\n", row: "3.1 a trailing newline" },
      { provider: "ümlaut", row: "3.1 ASCII only" }
    ])("$row: invalid provider", ({ provider }) =>
      Effect.gen(function* () {
        const providers = yield* Providers
        for (const attempt of [
          providers.locate(provider, 60_000),
          providers.mount(provider, request),
          providers.version(provider)
        ]) {
          const failure = yield* Effect.flip(attempt)
          assert.instanceOf(failure, ProviderNameInvalid)
          assert.strictEqual(failure.message, `invalid provider: provider ${JSON.stringify(provider)}`)
        }
      })
    )

    it.effect("3.1 thirty letters, digits, dashes and underscores are a name", () =>
      Effect.gen(function* () {
        const longest = `Name_with-${"9".repeat(20)}`
        yield* install(longest, ok)
        yield* Effect.flatMap(Providers, (providers) => providers.mount(longest, request))
      })
    )

    it.effect("3.4 mount: request and answer arrive as they were sent", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const asked: Array<MountRequest> = []
        yield* install("exact", (got) =>
          Effect.sync(() => {
            asked.push(got)
            return answer("s\u0000crét")
          })
        )
        const response = yield* providers.mount("exact", request)
        assert.deepStrictEqual(plain(response), plain(answer("s\u0000crét")))
        assert.isAbove(response.sizeBytes, 0)
        assert.deepStrictEqual(
          asked.map((got) => ({
            ...got,
            attributes: Redacted.value(got.attributes),
            secrets: Redacted.value(got.secrets)
          })),
          [{ ...request, attributes: Redacted.value(request.attributes), secrets: Redacted.value(request.secrets) }]
        )
      })
    )

    it.effect("3.4 #2: a provider's own error code is an answer", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        yield* install("refusing", () =>
          Effect.succeed({ objectVersions: [], errorCode: "AuthenticationFailed", files: [], sizeBytes: 24 })
        )
        const response = yield* providers.mount("refusing", request)
        assert.deepStrictEqual(plain(response), { objectVersions: [], errorCode: "AuthenticationFailed", files: [] })
      })
    )

    it.effect("3.4 #1: every gRPC code arrives with its words", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        let grpcCode: (typeof GO_CODES)[number] = "UNKNOWN"
        yield* install("failing", (_) =>
          Effect.fail(
            new ProviderCallFailed({ provider: "failing", grpcCode, details: `says ${grpcCode}`, unanswered: true })
          )
        )
        for (grpcCode of GO_CODES) {
          const failure = yield* Effect.flip(providers.mount("failing", request))
          assert.instanceOf(failure, ProviderCallFailed)
          assert.deepStrictEqual(
            [failure.provider, failure.grpcCode, failure.details],
            ["failing", grpcCode, `says ${grpcCode}`]
          )
        }
      })
    )

    it.effect.each([
      { provider: "busy-unknown", retryAfterMillis: undefined },
      { provider: "busy-now", retryAfterMillis: 0 },
      { provider: "busy-seconds", retryAfterMillis: 1_501 },
      { provider: "busy-a-day", retryAfterMillis: 86_400_000 }
    ])("a failure's hint when to call again arrives: $retryAfterMillis ms", ({ provider, retryAfterMillis }) =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const grpcCode = "RESOURCE_EXHAUSTED"
        yield* install(provider, () =>
          Effect.fail(
            new ProviderCallFailed({ provider, grpcCode, details: "quota", unanswered: true, retryAfterMillis })
          )
        )
        const failure = yield* Effect.flip(providers.mount(provider, request))
        assert.instanceOf(failure, ProviderCallFailed)
        assert.deepStrictEqual([failure.grpcCode, failure.retryAfterMillis], [grpcCode, retryAfterMillis])
      })
    )

    it.effect("3.4 #1: an over-size answer", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const size = RECEIVE_BYTES_MAX + 1
        const contents = Redacted.make(new Uint8Array(size))
        yield* install("large", () =>
          Effect.succeed({ ...answer(""), files: [{ path: "foo", mode: 0o644, contents }], sizeBytes: size })
        )
        const failure = yield* Effect.flip(providers.mount("large", request))
        assert.instanceOf(failure, ProviderCallFailed)
        assert.strictEqual(failure.grpcCode, "RESOURCE_EXHAUSTED")
        assert.match(failure.details, /^grpc: received message larger than max \(\d+ vs\. 4194304\)$/u)
        assert.isTrue(failure.isTooLarge)
      })
    )

    it.effect("interruption cancels the call, and the provider hears of it", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const started = yield* Deferred.make<void>()
        const stopped = yield* Deferred.make<void>()
        yield* install("slow", () =>
          Deferred.succeed(started, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(stopped, undefined))
          )
        )
        const calling = yield* Effect.forkChild(providers.mount("slow", request))
        yield* Deferred.await(started)
        yield* Fiber.interrupt(calling)
        const exit = yield* Fiber.await(calling)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        yield* Effect.timeout(Deferred.await(stopped), "5 seconds")
      })
    )

    it.effect("a provider that ends in the middle of a call is UNAVAILABLE, or says CANCELLED", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        const started = yield* Deferred.make<void>()
        yield* install("dying", () => Effect.andThen(Deferred.succeed(started, undefined), Effect.never))
        const calling = yield* Effect.forkChild(Effect.flip(providers.mount("dying", request)))
        yield* Deferred.await(started)
        yield* remove("dying")
        const failure = yield* Effect.timeout(Fiber.join(calling), "5 seconds")
        assert.instanceOf(failure, ProviderCallFailed)
        assert.include(["UNAVAILABLE", "CANCELLED"], failure.grpcCode)
      })
    )

    it.effect("a provider that was replaced is asked in place of the old one", () =>
      Effect.gen(function* () {
        const contentsNow = contentsOf("replaced")
        yield* install("replaced", () => Effect.succeed(answer("first")))
        assert.strictEqual(yield* contentsNow, "first")
        yield* remove("replaced")
        yield* install("replaced", () => Effect.succeed(answer("second")))
        assert.strictEqual(yield* contentsNow, "second")
      })
    )

    it.effect("13.1 TestVersion", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        yield* install("versioned", ok)
        assert.deepStrictEqual(yield* providers.version("versioned"), {
          version: "v1alpha1",
          runtimeName: "versioned",
          runtimeVersion: "0.0.10"
        })
      })
    )

    it.effect("known: sorted, without those that were never reached", () =>
      Effect.gen(function* () {
        const providers = yield* Providers
        for (const known of ["known-b", "known-a", "known-c"]) yield* install(known, ok)
        yield* providers.mount("known-b", request)
        yield* providers.version("known-a")
        yield* Effect.flip(providers.mount("known-d", request))
        const known = yield* providers.known
        assert.deepStrictEqual(
          known.filter((it) => it.startsWith("known-")),
          ["known-a", "known-b"]
        )
      })
    )
  })
