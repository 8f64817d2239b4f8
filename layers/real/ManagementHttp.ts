/**
 * What administrators look at over HTTP: metrics, health and profiles, each on a server of its own that lives as long
 * as its scope. `node:http` alone: a framework would cost more memory than all three.
 *
 * Only GET and HEAD are answered, bodies are ignored, and slow or idle clients are cut. A port that cannot be opened
 * fails metrics and health; profiles are a help, not a duty, so theirs is logged.
 *
 * @source reference/driver.md 8.1, 8.4
 */
import { createServer } from "node:http"
import { Effect, Layer, type Scope } from "effect"
import type { DriverConfig } from "../../schemas/Config.ts"
import type { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import {
  answerOf,
  checked,
  type HealthChecks,
  listenerOf,
  metricsPage,
  open,
  profileRoutes,
  type Routes,
  SERVER_OPTIONS
} from "./HttpRoutes.ts"

/** Serves until the scope closes, and then drops every connection. Succeeds with the port. */
const serve = Effect.fnUntraced(function* (
  address: string,
  routes: Routes
): Effect.fn.Return<number, EndpointFailed, Scope.Scope> {
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const listener = listenerOf(run, (request) => {
    request.resume()
    return answerOf(routes, request)
  })
  return (yield* open(address, () => createServer(SERVER_OPTIONS, listener))).port
})

/**
 * Serves /metrics.
 *
 * @shape  (address) -> the port
 * @errors EndpointFailed when the address is wrong or taken
 */
export const serveMetrics = (address: string) =>
  serve(address, new Map([["/metrics", () => metricsPage({ targetInfo: true })]]))

/**
 * Serves /healthz and /readyz.
 *
 * @shape  (address, checks) -> the port
 * @errors EndpointFailed when the address is wrong or taken
 */
export const serveHealth = (address: string, { live, ready }: HealthChecks) =>
  serve(
    address,
    new Map([
      ["/healthz", () => checked(live)],
      ["/readyz", () => checked(ready)]
    ])
  )

/**
 * Serves /debug/pprof/ on every interface, as upstream does: without authentication, and only when asked for.
 *
 * @shape  (port) -> the port, or undefined when it could not be opened
 * @errors none; what went wrong is logged
 */
export const serveProfiles = (port: number): Effect.Effect<number | undefined, never, Scope.Scope> =>
  serve(`:${port}`, profileRoutes()).pipe(
    Effect.catch((error) => Effect.as(Effect.logError("no profiles are served", error, { port }), undefined))
  )

/**
 * Everything that the configuration asks for, for as long as the layer lives.
 *
 * @shape  (config, checks) -> Layer
 * @errors EndpointFailed
 */
export const layer = (
  config: Pick<DriverConfig, "metricsAddr" | "healthAddr" | "pprofEnabled" | "pprofPort">,
  checks: HealthChecks
): Layer.Layer<never, EndpointFailed> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      if (config.pprofEnabled) yield* serveProfiles(config.pprofPort)
      if (config.metricsAddr !== "0") yield* serveMetrics(config.metricsAddr)
      if (config.healthAddr !== "") yield* serveHealth(config.healthAddr, checks)
    })
  )
