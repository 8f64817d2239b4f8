/**
 * The CSI socket as a port: whoever serves it hands over one effect per RPC.
 */
import { Context, type Effect, type Scope } from "effect"
import type * as Csi from "../../schemas/Csi.ts"
import type { CsiStatus } from "../../schemas/errors/CsiStatus.ts"
import type { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"

/** What an RPC may know of the call that it serves. */
export interface CsiCall {
  /** The method's name, such as "NodePublishVolume". */
  readonly method: string
  /** When the caller stops waiting, in milliseconds since the epoch; Infinity when it never does. */
  readonly deadlineMillis: number
}

type Handler<Request, Response> = (request: Request, call: CsiCall) => Effect.Effect<Response, CsiStatus>
type Nothing = Readonly<Record<string, never>>

/**
 * One handler per RPC. A handler is interrupted when its caller cancels or its deadline passes. A defect is answered
 * INTERNAL with constant words.
 */
export interface CsiHandlers {
  readonly GetPluginInfo: Handler<Csi.OtherRequest, Csi.GetPluginInfoResponse>
  readonly GetPluginCapabilities: Handler<Csi.OtherRequest, Csi.GetPluginCapabilitiesResponse>
  readonly Probe: Handler<Csi.OtherRequest, Csi.ProbeResponse>
  readonly ControllerGetCapabilities: Handler<Csi.OtherRequest, Csi.ControllerGetCapabilitiesResponse>
  /** All of `CONTROLLER_STUBS`; `call.method` says which. */
  readonly controllerStub: Handler<Csi.OtherRequest, never>
  readonly NodeStageVolume: Handler<Csi.NodeStageVolumeRequest, Nothing>
  readonly NodeUnstageVolume: Handler<Csi.NodeUnstageVolumeRequest, Nothing>
  readonly NodePublishVolume: Handler<Csi.NodePublishVolumeRequest, Nothing>
  readonly NodeUnpublishVolume: Handler<Csi.NodeUnpublishVolumeRequest, Nothing>
  readonly NodeGetVolumeStats: Handler<Csi.OtherRequest, never>
  readonly NodeExpandVolume: Handler<Csi.OtherRequest, never>
  readonly NodeGetCapabilities: Handler<Csi.OtherRequest, Csi.NodeGetCapabilitiesResponse>
  readonly NodeGetInfo: Handler<Csi.OtherRequest, Csi.NodeGetInfoResponse>
}

export class CsiEndpoint extends Context.Service<
  CsiEndpoint,
  {
    /**
     * Serves until the scope closes: then no call is accepted any more, calls under way may end within `graceMillis`,
     * and the rest is interrupted. A stale socket is removed first; the socket is removed at the end.
     */
    readonly serve: (
      endpoint: string,
      handlers: CsiHandlers,
      options: { readonly graceMillis: number }
    ) => Effect.Effect<void, EndpointFailed, Scope.Scope>
  }
>()("secrets-store/ports/CsiEndpoint") {}
