/**
 * The CSI socket: gRPC on a unix socket or a TCP port, between the wire's messages and those of `schemas/Csi.ts`.
 *
 * @source driver v1.6.0, pkg/secrets-store/server.go; reference/driver.md 2.1-2.5, reference/wire.md (a)
 */
import * as grpc from "@grpc/grpc-js"
import { Effect, Layer, Redacted, Result } from "effect"
import * as Wire from "../../proto/gen/csi.ts"
import {
  type CONTROLLER_STUBS,
  type NodePublishVolumeRequest,
  type NodeStageVolumeRequest,
  type OtherRequest,
  TOKENS_KEY,
  type VolumeCapability
} from "../../schemas/Csi.ts"
import type { CsiStatus } from "../../schemas/errors/CsiStatus.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { type Endpoint, parseEndpoint, socketPath } from "../../src/csi/Endpoint.ts"
import { type CsiCall, CsiEndpoint, type CsiHandlers } from "../../src/ports/CsiEndpoint.ts"
import { serve, unary } from "./Grpc.ts"

// ---- messages

const redacted = (values: Readonly<Record<string, string>>): Readonly<Record<string, Redacted.Redacted<string>>> =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [key, Redacted.make(value)]))

const capabilityOf = (capability: Wire.VolumeCapability | undefined): VolumeCapability | undefined =>
  capability === undefined
    ? undefined
    : {
        accessType: capability.block === undefined ? "mount" : "block",
        fsType: capability.mount?.fsType ?? "",
        mountFlags: capability.mount?.mountFlags ?? [],
        volumeMountGroup: capability.mount?.volumeMountGroup ?? "",
        accessMode: capability.accessMode?.mode ?? 0
      }

const publishRequestOf = (request: Wire.NodePublishVolumeRequest): NodePublishVolumeRequest => {
  const { [TOKENS_KEY]: tokens, ...volumeContext } = request.volumeContext
  return {
    ...request,
    volumeCapability: capabilityOf(request.volumeCapability),
    secrets: redacted(request.secrets),
    volumeContext,
    serviceAccountTokens: tokens === undefined ? undefined : Redacted.make(tokens)
  }
}

const stageRequestOf = (request: Wire.NodeStageVolumeRequest): NodeStageVolumeRequest => ({
  ...request,
  volumeCapability: capabilityOf(request.volumeCapability),
  secrets: redacted(request.secrets)
})

/** A message that only the log looks at, with its secrets hidden. */
const otherRequestOf = (request: object): OtherRequest =>
  Object.fromEntries(
    Object.entries(request).map(([key, value]): readonly [string, unknown] =>
      key === "secrets" && typeof value === "object" && value !== null ? [key, redacted({ ...value })] : [key, value]
    )
  )

const NODE_RPCS = {
  STAGE_UNSTAGE_VOLUME: Wire.NodeServiceCapability_RPC_Type.STAGE_UNSTAGE_VOLUME,
  VOLUME_MOUNT_GROUP: Wire.NodeServiceCapability_RPC_Type.VOLUME_MOUNT_GROUP
} as const

// ---- services

const register = (server: grpc.Server, handlers: CsiHandlers, run: Run) => {
  const other = <A, B>(
    method: string,
    handler: (request: OtherRequest, call: CsiCall) => Effect.Effect<A, CsiStatus>,
    encode: (answer: A) => B
  ) => run<object, B>(method, (request, call) => Effect.map(handler(otherRequestOf(request), call), encode))
  const nothing = () => ({})
  const stub = (method: (typeof CONTROLLER_STUBS)[number]) =>
    other(method, handlers.controllerStub, (never: never) => never)

  server.addService(Wire.IdentityService, {
    getPluginInfo: other("GetPluginInfo", handlers.GetPluginInfo, ({ name, vendorVersion }) => ({
      name,
      vendorVersion,
      manifest: {}
    })),
    getPluginCapabilities: other("GetPluginCapabilities", handlers.GetPluginCapabilities, ({ services }) => ({
      capabilities: services.map((service) => ({
        service: { type: Wire.PluginCapability_Service_Type[service] },
        volumeExpansion: undefined
      }))
    })),
    probe: other("Probe", handlers.Probe, ({ ready }) => ({ ready }))
  })

  server.addService(Wire.ControllerService, {
    controllerGetCapabilities: other("ControllerGetCapabilities", handlers.ControllerGetCapabilities, ({ rpcs }) => ({
      capabilities: rpcs.map((rpc) => ({ rpc: { type: Wire.ControllerServiceCapability_RPC_Type[rpc] } }))
    })),
    createVolume: stub("CreateVolume"),
    deleteVolume: stub("DeleteVolume"),
    controllerPublishVolume: stub("ControllerPublishVolume"),
    controllerUnpublishVolume: stub("ControllerUnpublishVolume"),
    validateVolumeCapabilities: stub("ValidateVolumeCapabilities"),
    listVolumes: stub("ListVolumes"),
    getCapacity: stub("GetCapacity"),
    createSnapshot: stub("CreateSnapshot"),
    deleteSnapshot: stub("DeleteSnapshot"),
    listSnapshots: stub("ListSnapshots"),
    controllerExpandVolume: stub("ControllerExpandVolume"),
    controllerGetVolume: stub("ControllerGetVolume")
  })

  server.addService(Wire.NodeService, {
    nodeStageVolume: run("NodeStageVolume", (request: Wire.NodeStageVolumeRequest, call) =>
      handlers.NodeStageVolume(stageRequestOf(request), call)
    ),
    nodeUnstageVolume: run("NodeUnstageVolume", (request: Wire.NodeUnstageVolumeRequest, call) =>
      handlers.NodeUnstageVolume(request, call)
    ),
    nodePublishVolume: run("NodePublishVolume", (request: Wire.NodePublishVolumeRequest, call) =>
      handlers.NodePublishVolume(publishRequestOf(request), call)
    ),
    nodeUnpublishVolume: run("NodeUnpublishVolume", (request: Wire.NodeUnpublishVolumeRequest, call) =>
      handlers.NodeUnpublishVolume(request, call)
    ),
    nodeGetVolumeStats: other("NodeGetVolumeStats", handlers.NodeGetVolumeStats, nothing),
    nodeExpandVolume: other("NodeExpandVolume", handlers.NodeExpandVolume, nothing),
    nodeGetCapabilities: other("NodeGetCapabilities", handlers.NodeGetCapabilities, ({ rpcs }) => ({
      capabilities: rpcs.map((rpc) => ({ rpc: { type: NODE_RPCS[rpc] } }))
    })),
    nodeGetInfo: other("NodeGetInfo", handlers.NodeGetInfo, ({ nodeId }) => ({
      nodeId,
      maxVolumesPerNode: 0n,
      accessibleTopology: undefined
    }))
  })
}

type Run = <Request, Response>(
  method: string,
  handler: (request: Request, call: CsiCall) => Effect.Effect<Response, CsiStatus>
) => grpc.handleUnaryCall<Request, Response>

// ---- the port

const parse = (endpoint: string): Effect.Effect<Endpoint, EndpointFailed> =>
  Result.match(parseEndpoint(endpoint), {
    onFailure: (detail) => Effect.fail(new EndpointFailed({ endpoint, detail })),
    onSuccess: Effect.succeed
  })

/** The scheme's case does not matter (Q33). */
const isUnix = ({ scheme }: Endpoint) => scheme.toLowerCase() === "unix"

const addressOf = (endpoint: Endpoint) => (isUnix(endpoint) ? `unix:${socketPath(endpoint)}` : endpoint.address)

/**
 * @shape  CsiEndpoint
 * @errors EndpointFailed: the endpoint's text, what is in the socket's place, or what the system says to listening
 */
export const layer: Layer.Layer<CsiEndpoint> = Layer.succeed(
  CsiEndpoint,
  CsiEndpoint.of({
    serve: Effect.fnUntraced(function* (text, handlers, { graceMillis }) {
      const endpoint = yield* parse(text)
      yield* serve({
        listen: isUnix(endpoint) ? { socket: socketPath(endpoint) } : { address: endpoint.address },
        graceMillis,
        register: (server, handle) =>
          register(server, handlers, (method, handler) =>
            handle((request, { deadlineMillis }) => handler(request, { method, deadlineMillis }))
          )
      })
    })
  })
)

const PROBE_MILLIS = 2_500

/**
 * Asks the driver's own socket whether it is ready, as the liveness sidecar does.
 *
 * @errors { message }: the socket does not answer
 */
export const probe = (endpointText: string): Effect.Effect<void, { readonly message: string }> =>
  Effect.scoped(
    Effect.gen(function* () {
      const endpoint = yield* parse(endpointText)
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new grpc.Client(addressOf(endpoint), grpc.credentials.createInsecure())),
        (it) => Effect.sync(() => it.close())
      )
      yield* unary(client, Wire.IdentityService.probe, {}, { timeoutMillis: PROBE_MILLIS }).pipe(
        Effect.mapError(({ details, grpcCode }) => ({ message: `probe of the CSI socket: ${grpcCode} ${details}` }))
      )
    })
  )
