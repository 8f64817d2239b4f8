/**
 * Stands in for upstream's liveness sidecar, whose module cannot be had everywhere: /healthz asks the driver's socket.
 *
 * @source kubernetes-csi/livenessprobe v2.17; reference/operator.md 5.3
 */
import { Effect } from "effect"
import { probe } from "../../../layers/real/CsiSocket.ts"
import { flag, serveHealth } from "./run.ts"

export const livenessProbe = Effect.andThen(
  serveHealth(flag("http-endpoint"), probe(`unix://${flag("csi-address")}`)),
  Effect.never
)
