/**
 * The Providers contract on both ways to a provider, and what only sockets can show.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import { Cause, Context, Effect, Exit, Fiber, Layer, Redacted, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { MemoryProviders, type MountHandler, layer as memoryProviders } from "../../layers/fake/MemoryProviders.ts"
import { layer as providerSockets } from "../../layers/real/ProviderSockets.ts"
import {
  CSIDriverProviderService,
  type MountRequest as WireRequest,
  type MountResponse as WireResponse
} from "../../proto/gen/provider.ts"
import { RetryInfo, Status } from "../../proto/gen/status.ts"
import { ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import { Providers } from "../../src/ports/Providers.ts"
import { answer, contentsOf, request, suite } from "./ProvidersSuite.ts"

suite("in memory", memoryProviders, {
  install: (name, handler) => Effect.flatMap(MemoryProviders, (memory) => memory.install(name, handler)),
  remove: (name) => Effect.flatMap(MemoryProviders, (memory) => memory.remove(name)),
  leaveSocket: (name) =>
    Effect.flatMap(MemoryProviders, (memory) =>
      Effect.andThen(
        memory.install(name, () => Effect.die("nobody is there")),
        memory.setSocket(name, "refusing")
      )
    )
})

// ---- real sockets

const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "providers-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

/** As Google's libraries send a hint; the development provider sends gRPC's own. */
const trailersOf = (retryAfterMillis: number | undefined): grpc.Metadata => {
  const trailers = new grpc.Metadata()
  if (retryAfterMillis === undefined) return trailers
  const retryDelay = {
    seconds: BigInt(Math.floor(retryAfterMillis / 1_000)),
    nanos: (retryAfterMillis % 1_000) * 1_000_000
  }
  const value = Buffer.from(RetryInfo.encode({ retryDelay }).finish())
  const details = [{ typeUrl: "type.googleapis.com/google.rpc.RetryInfo", value }]
  const status = Status.encode({ code: grpc.status.RESOURCE_EXHAUSTED, message: "quota", details })
  trailers.set("grpc-status-details-bin", Buffer.from(status.finish()))
  return trailers
}

/** A provider at a socket, until `stop`. Its socket goes with it. */
const listen = (
  socket: string,
  handler: MountHandler,
  onCall: (call: { getHost(): string }) => void = () => {}
): Effect.Effect<() => void> =>
  Effect.callback((resume) => {
    const server = new grpc.Server()
    const name = socket.slice(socket.lastIndexOf("/") + 1, -".sock".length)
    server.addService(CSIDriverProviderService, {
      version: (
        call: grpc.ServerUnaryCall<{ readonly version: string }, unknown>,
        callback: grpc.sendUnaryData<unknown>
      ) => callback(null, { version: call.request.version, runtimeName: name, runtimeVersion: "0.0.10" }),
      mount: (call: grpc.ServerUnaryCall<WireRequest, WireResponse>, callback: grpc.sendUnaryData<WireResponse>) => {
        onCall(call)
        const { attributes, currentObjectVersion, permission, secrets, targetPath } = call.request
        const fiber = Effect.runFork(
          handler({
            attributes: Redacted.make(attributes),
            secrets: Redacted.make(secrets),
            targetPath,
            permission,
            currentObjectVersions: currentObjectVersion
          })
        )
        call.on("cancelled", () => fiber.interruptUnsafe())
        fiber.addObserver((exit) => {
          if (Exit.isSuccess(exit)) {
            const { errorCode, files, objectVersions } = exit.value
            return callback(null, {
              objectVersion: [...objectVersions],
              error: { code: errorCode },
              files: files.map((file) => ({ ...file, contents: Buffer.from(Redacted.value(file.contents)) }))
            })
          }
          const failure = Cause.findErrorOption(exit.cause)
          if (failure._tag === "Some") {
            const { details, grpcCode, retryAfterMillis } = failure.value
            callback({ code: grpc.status[grpcCode], details, metadata: trailersOf(retryAfterMillis) })
          }
        })
      }
    })
    server.bindAsync(`unix:${socket}`, grpc.ServerCredentials.createInsecure(), (error) =>
      resume(error === null ? Effect.succeed(() => server.forceShutdown()) : Effect.die(error))
    )
  })

class Sockets extends Context.Service<
  Sockets,
  { readonly directory: string; readonly running: Map<string, () => void> }
>()("test/Sockets") {}

const real = Layer.unwrap(
  Effect.gen(function* () {
    const [empty, directory] = [yield* temporary, yield* temporary]
    const running = new Map<string, () => void>()
    return Layer.merge(
      providerSockets({ directories: [empty, directory], maxReceiveBytes: 4_194_304 }),
      Layer.succeed(Sockets, { directory, running })
    )
  })
)

// TestPluginClientBuilderMultiPath comes with it: the first directory is empty.
suite("on sockets", real, {
  install: (name, handler) =>
    Effect.gen(function* () {
      const { directory, running } = yield* Sockets
      yield* Effect.acquireRelease(
        Effect.map(listen(join(directory, `${name}.sock`), handler), (stop) => running.set(name, stop)),
        () => Effect.sync(() => running.get(name)?.())
      )
    }),
  remove: (name) =>
    Effect.map(Sockets, ({ directory, running }) => {
      running.get(name)?.()
      rmSync(join(directory, `${name}.sock`), { force: true })
    }),
  // A file will do for that.
  leaveSocket: (name) => Effect.map(Sockets, ({ directory }) => writeFileSync(join(directory, `${name}.sock`), ""))
})

describe("in memory, with a clock of the test's", () => {
  it.effect("locate waits exactly as long as it may", () =>
    Effect.gen(function* () {
      const providers = yield* Providers
      const waiting = yield* Effect.forkChild(Effect.flip(providers.locate("never", 30_000)), {
        startImmediately: true
      })
      yield* TestClock.adjust(29_999)
      assert.strictEqual(waiting.pollUnsafe(), undefined)
      yield* TestClock.adjust(1)
      const failure = yield* Fiber.join(waiting)
      assert.instanceOf(failure, ProviderNotFound)
      assert.strictEqual(failure.waitedMillis, 30_000)
    }).pipe(Effect.provide(memoryProviders))
  )

  it.effect("calls are kept, and wakes for other names are no answer", () =>
    Effect.gen(function* () {
      const providers = yield* Providers
      const memory = yield* MemoryProviders
      const waiting = yield* Effect.forkChild(providers.locate("wanted", 30_000), { startImmediately: true })
      yield* TestClock.adjust(10)
      yield* memory.install("other", () => Effect.succeed(answer("other")))
      yield* TestClock.adjust(10)
      assert.strictEqual(waiting.pollUnsafe(), undefined)
      yield* memory.install("wanted", () => Effect.succeed(answer("wanted")))
      yield* Fiber.join(waiting)
      yield* providers.mount("wanted", request)
      yield* Effect.flip(providers.mount("absent", request))
      assert.deepStrictEqual(memory.calls, [{ provider: "wanted", request }])
    }).pipe(Effect.provide(memoryProviders))
  )
})

describe("on sockets only", () => {
  const ok =
    (contents: string): MountHandler =>
    () =>
      Effect.succeed(answer(contents))
  const started = (
    socket: string,
    handler: MountHandler,
    onCall?: (call: { getHost(): string }) => void
  ): Effect.Effect<() => void, never, Scope.Scope> =>
    Effect.acquireRelease(listen(socket, handler, onCall), (stop) => Effect.sync(stop))
  const withDirectories = <A, E>(
    use: (first: string, second: string) => Effect.Effect<A, E, Providers | Scope.Scope>
  ) =>
    Effect.gen(function* () {
      const [first, second] = [yield* temporary, yield* temporary]
      return yield* Effect.provide(
        use(first, second),
        providerSockets({ directories: [first, second], maxReceiveBytes: 4_194_304 })
      )
    })

  it.live("3.1 the first directory wins", () =>
    withDirectories((first, second) =>
      Effect.gen(function* () {
        yield* started(join(second, "both.sock"), ok("second"))
        yield* started(join(first, "both.sock"), ok("first"))
        assert.strictEqual(yield* contentsOf("both"), "first")
      })
    )
  )

  it.live("Q23: a provider that moved to another directory is found there", () =>
    withDirectories((first, second) =>
      Effect.gen(function* () {
        const stop = yield* started(join(first, "moving.sock"), ok("before"))
        assert.strictEqual(yield* contentsOf("moving"), "before")
        stop()
        yield* started(join(second, "moving.sock"), ok("after"))
        assert.strictEqual(yield* contentsOf("moving"), "after")
      })
    )
  )

  it.live("a socket that takes connections and says nothing is left by interruption", () =>
    withDirectories((first) =>
      Effect.gen(function* () {
        const socket = join(first, "mute.sock")
        const server = yield* Effect.acquireRelease(
          Effect.callback<ReturnType<typeof createServer>>((resume) => {
            const mute = createServer((connection) => connection.on("error", () => {}).resume())
            mute.listen(socket, () => resume(Effect.succeed(mute)))
          }),
          (mute) => Effect.sync(() => mute.close())
        )
        assert.isTrue(server.listening)
        const outcome = yield* Effect.timeoutOption(contentsOf("mute"), 200)
        assert.strictEqual(outcome._tag, "None")
      })
    )
  )

  it.live("3.1 :authority is localhost", () =>
    withDirectories((first) =>
      Effect.gen(function* () {
        const authorities: Array<string> = []
        yield* started(join(first, "strict.sock"), ok("ok"), (call) => authorities.push(call.getHost()))
        yield* contentsOf("strict")
        assert.deepStrictEqual(authorities, ["localhost"])
      })
    )
  )

  it.live("1.2 an empty reply's size is that of its bytes", () =>
    withDirectories((first) =>
      Effect.gen(function* () {
        const providers = yield* Providers
        yield* started(join(first, "sized.sock"), () =>
          Effect.succeed({ objectVersions: [{ id: "a", version: "b" }], errorCode: "", files: [], sizeBytes: 0 })
        )
        // object_version { id: "a", version: "b" } is 8 bytes, error {} is 2.
        assert.strictEqual((yield* providers.mount("sized", request)).sizeBytes, 10)
      })
    )
  )
})
