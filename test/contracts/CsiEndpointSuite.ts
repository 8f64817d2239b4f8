/**
 * What the driver expects of a CSI socket, real or not, as seen by its caller. Rows quote reference/driver.md and
 * reference/wire.md.
 */
import { assert, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Fiber, type Layer, Logger, Redacted, Scope } from "effect"
import type { CallOptions, CsiMethod } from "../../layers/fake/MemoryCsiEndpoint.ts"
import {
  CONTROLLER_STUBS,
  type NodePublishVolumeRequest,
  type NodeStageVolumeRequest,
  type OtherRequest
} from "../../schemas/Csi.ts"
import { CsiStatus, GRPC_CODES } from "../../schemas/errors/CsiStatus.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { type CsiCall, CsiEndpoint, type CsiHandlers } from "../../src/ports/CsiEndpoint.ts"
import { Verbosity } from "../../src/telemetry/Log.ts"

/** What a suite has to be able to do besides. */
export interface CsiWorld<R> {
  /** One that nobody serves. */
  readonly endpoint: Effect.Effect<string, never, R | Scope.Scope>
  /** Calls whoever serves the endpoint; requests and answers are those of `CsiHandlers`. */
  readonly call: (
    endpoint: string,
    method: CsiMethod,
    request: object,
    options?: CallOptions
  ) => Effect.Effect<unknown, CsiStatus, R>
}

const GRACE = { graceMillis: 5_000 }

export const publishRequest: NodePublishVolumeRequest = {
  volumeId: "csi-1",
  publishContext: { published: "yes" },
  stagingTargetPath: "/staging",
  targetPath: "/target",
  volumeCapability: {
    accessType: "mount",
    fsType: "tmpfs",
    mountFlags: ["ro"],
    volumeMountGroup: "1000",
    accessMode: 1
  },
  readonly: true,
  secrets: { password: Redacted.make("hunter2") },
  volumeContext: { "csi.storage.k8s.io/pod.name": "web", secretProviderClass: "spc" },
  serviceAccountTokens: Redacted.make('{"aud":{"token":"jwt"}}')
}

const stageRequest: NodeStageVolumeRequest = {
  volumeId: "csi-1",
  publishContext: {},
  stagingTargetPath: "/staging",
  volumeCapability: undefined,
  secrets: {},
  volumeContext: { key: "value" }
}

/** The answers of a driver in which nothing happens. */
export const handlers: CsiHandlers = {
  GetPluginInfo: () => Effect.succeed({ name: "secrets-store.csi.k8s.io", vendorVersion: "v1.6.0" }),
  GetPluginCapabilities: () => Effect.succeed({ services: ["CONTROLLER_SERVICE"] }),
  Probe: () => Effect.succeed({ ready: true }),
  ControllerGetCapabilities: () => Effect.succeed({ rpcs: ["UNKNOWN"] }),
  controllerStub: () => new CsiStatus({ grpcCode: "UNIMPLEMENTED", details: "" }),
  NodeStageVolume: () => Effect.succeed({}),
  NodeUnstageVolume: () => Effect.succeed({}),
  NodePublishVolume: () => Effect.succeed({}),
  NodeUnpublishVolume: () => Effect.succeed({}),
  NodeGetVolumeStats: () => new CsiStatus({ grpcCode: "UNIMPLEMENTED", details: "" }),
  NodeExpandVolume: () => new CsiStatus({ grpcCode: "UNIMPLEMENTED", details: "NodeExpandVolume is not implemented" }),
  NodeGetCapabilities: () => Effect.succeed({ rpcs: ["STAGE_UNSTAGE_VOLUME", "VOLUME_MOUNT_GROUP"] }),
  NodeGetInfo: () => Effect.succeed({ nodeId: "node-1" })
}

/** Redacted values in the open, for comparing. */
const plain = (value: unknown): unknown => {
  if (Redacted.isRedacted(value)) return `redacted ${Redacted.value(value)}`
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
}

export const suite = <R, E>(
  name: string,
  layer: Layer.Layer<CsiEndpoint | R, E>,
  { call, endpoint: freshEndpoint }: CsiWorld<R>
) =>
  it.layer(layer, { excludeTestServices: true })(`CsiEndpoint (${name})`, (it) => {
    /** Serves until the test ends. */
    const serving = (changes: Partial<CsiHandlers>) =>
      Effect.gen(function* () {
        const endpoint = yield* freshEndpoint
        const port = yield* CsiEndpoint
        yield* port.serve(endpoint, { ...handlers, ...changes }, GRACE)
        return endpoint
      })

    /** Serves in a scope of its own, which the test closes. */
    const servingUntil = (changes: Partial<CsiHandlers>, graceMillis: number) =>
      Effect.gen(function* () {
        const endpoint = yield* freshEndpoint
        const port = yield* CsiEndpoint
        const scope = yield* Scope.make()
        yield* Scope.provide(port.serve(endpoint, { ...handlers, ...changes }, { graceMillis }), scope)
        return { endpoint, close: Scope.close(scope, Exit.void) }
      })

    it.effect("2.3-2.5 every RPC is answered", () =>
      Effect.gen(function* () {
        const endpoint = yield* serving({})
        const answers: Array<readonly [string, unknown]> = []
        for (const [method, request] of [
          ["GetPluginInfo", {}],
          ["GetPluginCapabilities", {}],
          ["Probe", {}],
          ["ControllerGetCapabilities", {}],
          ["NodeStageVolume", stageRequest],
          ["NodeUnstageVolume", { volumeId: "csi-1", stagingTargetPath: "/staging" }],
          ["NodePublishVolume", publishRequest],
          ["NodeUnpublishVolume", { volumeId: "csi-1", targetPath: "/target" }],
          ["NodeGetCapabilities", {}],
          ["NodeGetInfo", {}]
        ] as const) {
          answers.push([method, yield* call(endpoint, method, request)])
        }
        assert.deepStrictEqual(answers, [
          ["GetPluginInfo", { name: "secrets-store.csi.k8s.io", vendorVersion: "v1.6.0" }],
          ["GetPluginCapabilities", { services: ["CONTROLLER_SERVICE"] }],
          ["Probe", { ready: true }],
          ["ControllerGetCapabilities", { rpcs: ["UNKNOWN"] }],
          ["NodeStageVolume", {}],
          ["NodeUnstageVolume", {}],
          ["NodePublishVolume", {}],
          ["NodeUnpublishVolume", {}],
          ["NodeGetCapabilities", { rpcs: ["STAGE_UNSTAGE_VOLUME", "VOLUME_MOUNT_GROUP"] }],
          ["NodeGetInfo", { nodeId: "node-1" }]
        ])
      })
    )

    it.effect("2.4 controller RPCs are told apart, and UNIMPLEMENTED without words", () =>
      Effect.gen(function* () {
        const told: Array<string> = []
        const endpoint = yield* serving({
          controllerStub: (_: OtherRequest, { method }: CsiCall) => {
            told.push(method)
            return new CsiStatus({ grpcCode: "UNIMPLEMENTED", details: "" })
          }
        })
        for (const method of CONTROLLER_STUBS) {
          const status = yield* Effect.flip(call(endpoint, method, {}))
          assert.deepStrictEqual([status.grpcCode, status.details], ["UNIMPLEMENTED", ""])
        }
        assert.deepStrictEqual(told, [...CONTROLLER_STUBS])
      })
    )

    it.effect("2.5 NodeGetVolumeStats and NodeExpandVolume", () =>
      Effect.gen(function* () {
        const endpoint = yield* serving({})
        const stats = yield* Effect.flip(call(endpoint, "NodeGetVolumeStats", {}))
        const expand = yield* Effect.flip(call(endpoint, "NodeExpandVolume", {}))
        assert.deepStrictEqual([stats.grpcCode, stats.details], ["UNIMPLEMENTED", ""])
        assert.deepStrictEqual(
          [expand.grpcCode, expand.details],
          ["UNIMPLEMENTED", "NodeExpandVolume is not implemented"]
        )
      })
    )

    it.effect("wire.md a.4: requests arrive whole, with their secrets and tokens redacted", () =>
      Effect.gen(function* () {
        const arrived: Array<unknown> = []
        const keep = (request: object) =>
          Effect.sync(() => {
            arrived.push(plain(request))
            assert.notInclude(JSON.stringify(request), "hunter2")
            assert.notInclude(JSON.stringify(request), "jwt")
            return {}
          })
        const endpoint = yield* serving({
          NodePublishVolume: keep,
          NodeStageVolume: keep,
          NodeUnpublishVolume: keep,
          NodeUnstageVolume: keep
        })
        const unpublish = { volumeId: "csi-1", targetPath: "/target" }
        const unstage = { volumeId: "csi-1", stagingTargetPath: "/staging" }
        const bare: NodePublishVolumeRequest = {
          ...publishRequest,
          volumeCapability: undefined,
          readonly: false,
          secrets: {},
          serviceAccountTokens: undefined
        }
        yield* call(endpoint, "NodePublishVolume", publishRequest)
        yield* call(endpoint, "NodePublishVolume", bare)
        yield* call(endpoint, "NodeStageVolume", stageRequest)
        yield* call(endpoint, "NodeUnpublishVolume", unpublish)
        yield* call(endpoint, "NodeUnstageVolume", unstage)
        assert.deepStrictEqual(arrived, [plain(publishRequest), plain(bare), stageRequest, unpublish, unstage])
      })
    )

    it.effect("every status arrives with its words", () =>
      Effect.gen(function* () {
        let grpcCode: (typeof GRPC_CODES)[number] = "UNKNOWN"
        const endpoint = yield* serving({
          NodePublishVolume: () => new CsiStatus({ grpcCode, details: `über ${grpcCode}\nin two lines` })
        })
        for (grpcCode of GRPC_CODES.filter((code) => code !== "OK")) {
          const status = yield* Effect.flip(call(endpoint, "NodePublishVolume", publishRequest))
          assert.deepStrictEqual([status.grpcCode, status.details], [grpcCode, `über ${grpcCode}\nin two lines`])
        }
      })
    )

    it.effect("a defect is INTERNAL with constant words, and its text is in the log only", () =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const log = Logger.make(({ message }) => lines.push(JSON.stringify(message)))
        const endpoint = yield* Effect.provide(
          serving({ NodePublishVolume: () => Effect.die(new Error("the secret is hunter2")) }),
          Logger.layer([log])
        )
        const status = yield* Effect.flip(call(endpoint, "NodePublishVolume", publishRequest))
        assert.deepStrictEqual([status.grpcCode, status.details], ["INTERNAL", "internal error"])
        assert.strictEqual(lines.length, 1)
        assert.include(lines[0]!, "a call ended with a defect")
      })
    )

    it.effect("2.1 handlers log and are as verbose as whoever serves", () =>
      Effect.gen(function* () {
        const lines: Array<unknown> = []
        const log = Logger.make(({ message }) => lines.push(message))
        const endpoint = yield* serving({
          NodeGetInfo: () =>
            Effect.gen(function* () {
              const verbosity = yield* Verbosity
              yield* Effect.logInfo("seen by the server's logger")
              return { nodeId: `verbosity ${verbosity}` }
            })
        }).pipe(Effect.provideService(Verbosity, 5), Effect.provide(Logger.layer([log])))
        assert.deepStrictEqual(yield* call(endpoint, "NodeGetInfo", {}), { nodeId: "verbosity 5" })
        assert.deepStrictEqual(lines.flat(), ["seen by the server's logger"])
      })
    )

    it.effect("a handler knows its method and its caller's deadline", () =>
      Effect.gen(function* () {
        const told: Array<CsiCall> = []
        const endpoint = yield* serving({
          Probe: (_, info) => {
            told.push(info)
            return Effect.succeed({ ready: true })
          }
        })
        const now = yield* Clock.currentTimeMillis
        yield* call(endpoint, "Probe", {}, { deadlineMillis: now + 30_000 })
        yield* call(endpoint, "Probe", {})
        assert.deepStrictEqual(
          told.map(({ method }) => method),
          ["Probe", "Probe"]
        )
        // The wire carries what is left, so both clocks have their share in it.
        assert.isBelow(Math.abs(told[0]!.deadlineMillis - now - 30_000), 1_000)
        assert.strictEqual(told[1]!.deadlineMillis, Number.POSITIVE_INFINITY)
      })
    )

    const hanging = Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const stopped = yield* Deferred.make<void>()
      const handler = () =>
        Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(stopped, undefined))
        )
      return { started, handler, stopped: Effect.timeout(Deferred.await(stopped), "5 seconds") }
    })

    it.effect("a caller that cancels interrupts the handler", () =>
      Effect.gen(function* () {
        const { handler, started, stopped } = yield* hanging
        const endpoint = yield* serving({ NodePublishVolume: handler })
        const calling = yield* Effect.forkChild(call(endpoint, "NodePublishVolume", publishRequest))
        yield* Deferred.await(started)
        yield* Fiber.interrupt(calling)
        yield* stopped
      })
    )

    it.effect("a deadline that passes interrupts the handler, and is DEADLINE_EXCEEDED", () =>
      Effect.gen(function* () {
        const { handler, stopped } = yield* hanging
        const endpoint = yield* serving({ NodePublishVolume: handler })
        const now = yield* Clock.currentTimeMillis
        const status = yield* Effect.flip(
          call(endpoint, "NodePublishVolume", publishRequest, { deadlineMillis: now + 150 })
        )
        assert.strictEqual(status.grpcCode, "DEADLINE_EXCEEDED")
        yield* stopped
      })
    )

    it.effect("calls are served side by side", () =>
      Effect.gen(function* () {
        const both = yield* Deferred.make<void>()
        let here = 0
        const endpoint = yield* serving({
          NodePublishVolume: () =>
            Effect.suspend(() => {
              here += 1
              return here === 20 ? Deferred.succeed(both, undefined) : Deferred.await(both)
            }).pipe(Effect.as({}))
        })
        yield* Effect.forEach(
          Array.from({ length: 20 }, (_, i) => i),
          () => call(endpoint, "NodePublishVolume", publishRequest),
          { concurrency: 20 }
        )
        assert.strictEqual(here, 20)
      })
    )

    it.effect("nobody serves: UNAVAILABLE, before and after", () =>
      Effect.gen(function* () {
        const nowhere = yield* freshEndpoint
        assert.strictEqual((yield* Effect.flip(call(nowhere, "Probe", {}))).grpcCode, "UNAVAILABLE")
        const { close, endpoint } = yield* servingUntil({}, 1_000)
        yield* call(endpoint, "Probe", {})
        yield* close
        assert.strictEqual((yield* Effect.flip(call(endpoint, "Probe", {}))).grpcCode, "UNAVAILABLE")
      })
    )

    it.effect("1.5 closing waits for calls under way, and takes no others", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const finish = yield* Deferred.make<void>()
        const { close, endpoint } = yield* servingUntil(
          {
            NodePublishVolume: () =>
              Deferred.succeed(started, undefined).pipe(Effect.andThen(Deferred.await(finish)), Effect.as({}))
          },
          10_000
        )
        const calling = yield* Effect.forkChild(call(endpoint, "NodePublishVolume", publishRequest))
        yield* Deferred.await(started)
        const closing = yield* Effect.forkChild(close, { startImmediately: true })
        yield* Effect.sleep(50)
        assert.strictEqual(closing.pollUnsafe(), undefined)
        assert.strictEqual((yield* Effect.flip(call(endpoint, "Probe", {}))).grpcCode, "UNAVAILABLE")
        yield* Deferred.succeed(finish, undefined)
        assert.deepStrictEqual(yield* Fiber.join(calling), {})
        yield* Effect.timeout(Fiber.join(closing), "5 seconds")
      })
    )

    it.effect("1.5 closing waits no longer than the grace, then interrupts", () =>
      Effect.gen(function* () {
        const { handler, started, stopped } = yield* hanging
        const { close, endpoint } = yield* servingUntil({ NodePublishVolume: handler }, 150)
        const calling = yield* Effect.forkChild(Effect.flip(call(endpoint, "NodePublishVolume", publishRequest)))
        yield* Deferred.await(started)
        const begun = yield* Clock.currentTimeMillis
        yield* Effect.timeout(close, "5 seconds")
        assert.isAtLeast((yield* Clock.currentTimeMillis) - begun, 149)
        yield* stopped
        assert.include(["CANCELLED", "UNAVAILABLE"], (yield* Fiber.join(calling)).grpcCode)
      })
    )

    it.effect("1.5 closing lets a call that is cut off undo what it began", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        let undone = false
        const undo = Effect.andThen(
          Effect.sleep(200),
          Effect.sync(() => {
            undone = true
          })
        )
        const handler = () =>
          Effect.onInterrupt(Effect.andThen(Deferred.succeed(started, undefined), Effect.never), () => undo)
        const { close, endpoint } = yield* servingUntil({ NodePublishVolume: handler }, 50)
        yield* Effect.forkChild(Effect.flip(call(endpoint, "NodePublishVolume", publishRequest)))
        yield* Deferred.await(started)
        yield* close
        assert.isTrue(undone)
      })
    )

    it.effect("1.5 closing does not wait for ever for an undo", () =>
      Effect.gen(function* () {
        const started = yield* Deferred.make<void>()
        const handler = () =>
          Effect.onInterrupt(Effect.andThen(Deferred.succeed(started, undefined), Effect.never), () => Effect.never)
        const { close, endpoint } = yield* servingUntil({ NodePublishVolume: handler }, 50)
        yield* Effect.forkChild(Effect.flip(call(endpoint, "NodePublishVolume", publishRequest)))
        yield* Deferred.await(started)
        const begun = yield* Clock.currentTimeMillis
        yield* Effect.timeout(close, "4500 millis")
        assert.isAtLeast((yield* Clock.currentTimeMillis) - begun, 2_900)
      })
    )

    it.effect("an endpoint is served again after its end", () =>
      Effect.gen(function* () {
        const { close, endpoint } = yield* servingUntil({}, 1_000)
        yield* close
        const port = yield* CsiEndpoint
        yield* port.serve(endpoint, { ...handlers, NodeGetInfo: () => Effect.succeed({ nodeId: "second" }) }, GRACE)
        assert.deepStrictEqual(yield* call(endpoint, "NodeGetInfo", {}), { nodeId: "second" })
      })
    )

    it.effect("2.1 whoever ends late leaves its successor in place", () =>
      Effect.gen(function* () {
        const { close, endpoint } = yield* servingUntil({}, 1_000)
        const port = yield* CsiEndpoint
        yield* port.serve(endpoint, { ...handlers, NodeGetInfo: () => Effect.succeed({ nodeId: "second" }) }, GRACE)
        yield* close
        assert.deepStrictEqual(yield* call(endpoint, "NodeGetInfo", {}), { nodeId: "second" })
      })
    )

    it.effect("2.1 an endpoint that is none", () =>
      Effect.gen(function* () {
        const port = yield* CsiEndpoint
        const failure = yield* Effect.flip(port.serve("unix:/fake.sock/", handlers, GRACE))
        assert.instanceOf(failure, EndpointFailed)
        assert.strictEqual(failure.message, "invalid endpoint: unix:/fake.sock/")
      })
    )
  })
