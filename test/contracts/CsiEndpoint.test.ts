/**
 * The CSI socket's contract in memory and on a socket, and what only the wire can show.
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import { Clock, Effect, Exit, Redacted, Scope } from "effect"
import {
  type CallOptions,
  type CsiMethod,
  MemoryCsiEndpoint,
  layer as memoryCsiEndpoint
} from "../../layers/fake/MemoryCsiEndpoint.ts"
import { layer as csiSocket, probe } from "../../layers/real/CsiSocket.ts"
import { unary } from "../../layers/real/Grpc.ts"
import * as Wire from "../../proto/gen/csi.ts"
import { TOKENS_KEY } from "../../schemas/Csi.ts"
import { CsiStatus } from "../../schemas/errors/CsiStatus.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { CsiEndpoint } from "../../src/ports/CsiEndpoint.ts"
import { handlers, publishRequest, suite } from "./CsiEndpointSuite.ts"

let memoryEndpoints = 0

suite("in memory", memoryCsiEndpoint, {
  endpoint: Effect.sync(() => `unix:///memory/${memoryEndpoints++}.sock`),
  call: (_, method, request, options) =>
    // The suite's requests are those of the methods that it calls.
    Effect.flatMap(MemoryCsiEndpoint, (memory) => memory.call(method, request as never, options))
})

// ---- on a socket

const METHODS = { ...Wire.IdentityService, ...Wire.ControllerService, ...Wire.NodeService }
type AnyMethod = grpc.MethodDefinition<object, Record<string, unknown>>
const methodOf = (name: CsiMethod) =>
  METHODS[`${name[0]!.toLowerCase()}${name.slice(1)}` as keyof typeof METHODS] as unknown as AnyMethod

/** Of a request as handlers see it, what the kubelet would have sent. */
const wireRequest = (request: Record<string, unknown>): Record<string, unknown> => {
  const { secrets, serviceAccountTokens, volumeCapability, volumeContext, ...rest } = request
  const open = (value: unknown) => (Redacted.isRedacted(value) ? Redacted.value(value) : value)
  const entries = Object.entries((secrets ?? {}) as Record<string, unknown>).map(([key, value]) => [key, open(value)])
  const { accessMode, accessType, ...mount } = (volumeCapability ?? {}) as Record<string, unknown>
  return {
    ...rest,
    ...(secrets === undefined ? {} : { secrets: Object.fromEntries(entries) }),
    ...(volumeContext === undefined
      ? {}
      : {
          volumeContext: {
            ...(volumeContext as object),
            ...(serviceAccountTokens === undefined ? {} : { [TOKENS_KEY]: open(serviceAccountTokens) })
          }
        }),
    ...(volumeCapability === undefined
      ? {}
      : {
          volumeCapability: {
            block: accessType === "block" ? {} : undefined,
            mount: accessType === "mount" ? mount : undefined,
            accessMode: { mode: accessMode }
          }
        })
  }
}

const nameIn = (names: Readonly<Record<string, number>>, value: number) =>
  Object.keys(names).find((name) => names[name] === value)

/** Of the wire's answer, what the handler has given. */
const plainAnswer = (method: CsiMethod, answer: Record<string, unknown>): unknown => {
  const capabilities = (answer["capabilities"] ?? []) as ReadonlyArray<{
    readonly service?: { readonly type: number }
    readonly rpc?: { readonly type: number }
  }>
  switch (method) {
    case "GetPluginInfo":
      return { name: answer["name"], vendorVersion: answer["vendorVersion"] }
    case "GetPluginCapabilities":
      return { services: capabilities.map(({ service }) => nameIn(Wire.PluginCapability_Service_Type, service!.type)) }
    case "ControllerGetCapabilities":
      return { rpcs: capabilities.map(({ rpc }) => nameIn(Wire.ControllerServiceCapability_RPC_Type, rpc!.type)) }
    case "NodeGetCapabilities":
      return { rpcs: capabilities.map(({ rpc }) => nameIn(Wire.NodeServiceCapability_RPC_Type, rpc!.type)) }
    case "NodeGetInfo":
      return { nodeId: answer["nodeId"] }
    default:
      return answer
  }
}

const client = (endpoint: string): Effect.Effect<grpc.Client, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new grpc.Client(endpoint.replace(/^unix:\/\//u, "unix:"), grpc.credentials.createInsecure())),
    (open) => Effect.sync(() => open.close())
  )

const call = (endpoint: string, method: CsiMethod, request: object, { deadlineMillis }: CallOptions = {}) =>
  Effect.scoped(
    Effect.gen(function* () {
      const definition = methodOf(method)
      const defaults = definition.requestDeserialize(Buffer.alloc(0))
      const now = yield* Clock.currentTimeMillis
      const answer = yield* unary(
        yield* client(endpoint),
        definition,
        { ...defaults, ...wireRequest({ ...request }) },
        deadlineMillis === undefined ? {} : { timeoutMillis: deadlineMillis - now }
      )
      return plainAnswer(method, answer)
    })
  ).pipe(Effect.mapError(({ details, grpcCode }) => new CsiStatus({ grpcCode, details })))

const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "csi-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)
const endpoint = Effect.map(directory, (made) => `unix://${made}/csi.sock`)

suite("on a socket", csiSocket, { endpoint, call })

describe("on a socket only", () => {
  const pathOf = (text: string) => text.slice("unix://".length)
  const serve = (text: string) =>
    Effect.flatMap(CsiEndpoint, (port) => port.serve(text, handlers, { graceMillis: 1_000 })).pipe(
      Effect.provide(csiSocket)
    )
  /** What comes back, undecoded. */
  const raw = (text: string, path: string, request: Buffer = Buffer.alloc(0)) =>
    Effect.scoped(
      Effect.flatMap(client(text), (open) =>
        unary(
          open,
          { path, requestSerialize: (bytes: Buffer) => bytes, responseDeserialize: (bytes: Buffer) => bytes },
          request
        )
      )
    )

  it.live.each([
    { path: "/csi.v1.Identity/GetPluginCapabilities", bytes: "0a040a020801" },
    { path: "/csi.v1.Identity/Probe", bytes: "0a020801" },
    { path: "/csi.v1.Controller/ControllerGetCapabilities", bytes: "0a020a00" },
    { path: "/csi.v1.Node/NodePublishVolume", bytes: "" }
  ])("wire.md a.6: the bytes of $path", ({ bytes, path }) =>
    Effect.gen(function* () {
      const text = yield* endpoint
      yield* serve(text)
      assert.strictEqual((yield* raw(text, path)).toString("hex"), bytes)
    })
  )

  it.live("wire.md a.6: the bytes of NodeGetCapabilities with staging alone", () =>
    Effect.gen(function* () {
      const text = yield* endpoint
      const port = yield* CsiEndpoint
      const changed = {
        ...handlers,
        NodeGetCapabilities: () => Effect.succeed({ rpcs: ["STAGE_UNSTAGE_VOLUME" as const] })
      }
      yield* port.serve(text, changed, { graceMillis: 1_000 })
      assert.strictEqual((yield* raw(text, "/csi.v1.Node/NodeGetCapabilities")).toString("hex"), "0a040a020801")
    }).pipe(Effect.provide(csiSocket))
  )

  it.live.each([
    { what: "a service that is not served", path: "/csi.v1.GroupController/GroupControllerGetCapabilities" },
    { what: "an RPC of a later CSI", path: "/csi.v1.Controller/ControllerModifyVolume" },
    { what: "no CSI at all", path: "/grpc.health.v1.Health/Check" }
  ])("2.1 UNIMPLEMENTED: $what", ({ path }) =>
    Effect.gen(function* () {
      const text = yield* endpoint
      yield* serve(text)
      assert.strictEqual((yield* Effect.flip(raw(text, path))).grpcCode, "UNIMPLEMENTED")
    })
  )

  it.live("2.1 a request above 4 MiB is RESOURCE_EXHAUSTED", () =>
    Effect.gen(function* () {
      const text = yield* endpoint
      yield* serve(text)
      const request = Wire.NodePublishVolumeRequest.encode({
        ...Wire.NodePublishVolumeRequest.decode(new Uint8Array()),
        volumeId: "x".repeat(4_194_305)
      }).finish()
      const failure = yield* Effect.flip(raw(text, "/csi.v1.Node/NodePublishVolume", Buffer.from(request)))
      assert.strictEqual(failure.grpcCode, "RESOURCE_EXHAUSTED")
    })
  )

  it.live("a request that is no message is refused, and the next one is served", () =>
    Effect.gen(function* () {
      const text = yield* endpoint
      yield* serve(text)
      const broken = raw(text, "/csi.v1.Node/NodePublishVolume", Buffer.from("ffffffff", "hex"))
      assert.include(["INTERNAL", "INVALID_ARGUMENT"], (yield* Effect.flip(broken)).grpcCode)
      assert.deepStrictEqual(yield* call(text, "NodePublishVolume", publishRequest), {})
    })
  )

  it.live("2.1 a stale socket is replaced, and the socket goes away at the end", () =>
    Effect.gen(function* () {
      const text = yield* endpoint
      const scope = yield* Scope.make()
      yield* Scope.provide(serve(text), scope)
      const first = statSync(pathOf(text)).ino
      // A second one takes over, as the next process does after a kill.
      const next = yield* Scope.make()
      yield* Scope.provide(serve(text), next)
      assert.notStrictEqual(statSync(pathOf(text)).ino, first)
      assert.deepStrictEqual(yield* call(text, "NodeGetInfo", {}), { nodeId: "node-1" })
      yield* Scope.close(next, Exit.void)
      assert.isFalse(existsSync(pathOf(text)))
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.live("nothing is written but in the socket's own directory: the file system around it may be read-only", () =>
    Effect.gen(function* () {
      const around = yield* directory
      const inside = join(around, "csi")
      mkdirSync(inside)
      const before = statSync(around, { bigint: true }).mtimeNs
      const text = `unix://${join(inside, "csi.sock")}`
      yield* serve(text)
      assert.strictEqual(statSync(around, { bigint: true }).mtimeNs, before)
      assert.deepStrictEqual(readdirSync(inside), ["csi.sock"])
      assert.deepStrictEqual(yield* call(text, "NodeGetInfo", {}), { nodeId: "node-1" })
    })
  )

  it.live("what is not a socket is left alone", () =>
    Effect.gen(function* () {
      const text = yield* endpoint
      writeFileSync(pathOf(text), "somebody's file")
      const failure = yield* Effect.flip(serve(text))
      assert.instanceOf(failure, EndpointFailed)
      assert.include(failure.message, "is not a socket")
      assert.isTrue(statSync(pathOf(text)).isFile())
    })
  )

  it.live("2.1 the directory is not made", () =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(serve(`unix://${yield* directory}/missing/csi.sock`))
      assert.instanceOf(failure, EndpointFailed)
    })
  )

  it.live("Q33: the scheme's case does not matter", () =>
    Effect.gen(function* () {
      const text = yield* endpoint
      yield* serve(text.replace("unix", "UNIX"))
      assert.deepStrictEqual(yield* call(text, "NodeGetInfo", {}), { nodeId: "node-1" })
    })
  )

  it.live("2.1 tcp", () =>
    Effect.gen(function* () {
      const port = yield* Effect.callback<number>((resume) => {
        const probing = createServer()
        probing.listen(0, "127.0.0.1", () => {
          const address = probing.address()
          probing.close(() =>
            resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0))
          )
        })
      })
      yield* serve(`tcp://127.0.0.1:${port}`)
      assert.deepStrictEqual(yield* call(`127.0.0.1:${port}`, "NodeGetInfo", {}), { nodeId: "node-1" })
    })
  )

  it.live("8.4 the driver's own probe asks over the socket", () =>
    Effect.gen(function* () {
      const text = yield* endpoint
      const failure = yield* Effect.flip(probe(text))
      assert.match(failure.message, /^probe of the CSI socket: UNAVAILABLE /u)
      yield* serve(text)
      yield* probe(text)
    })
  )
})
