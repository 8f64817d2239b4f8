/**
 * What administrators look at over HTTP: metrics, health and profiles, each on a server of its own that lives as long
 * as its scope. `node:http` alone: a framework would cost more memory than all three.
 *
 * Only GET and HEAD are answered, bodies are ignored, and slow or idle clients are cut. A port that cannot be opened
 * fails metrics and health; profiles are a help, not a duty, so theirs is logged.
 *
 * @source reference/driver.md 8.1, 8.4
 */
import { readdir } from "node:fs/promises"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import { Cause, Effect, Exit, Layer, Result, type Scope } from "effect"
import type { DriverConfig } from "../../schemas/Config.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { exposition, type ProcessStats } from "../../src/telemetry/PrometheusText.ts"

const CHECK_TIMEOUT = "3 seconds"
const CONNECTIONS_MAX = 64
const PROFILE_SECONDS_DEFAULT = 30
const PROFILE_SECONDS_MAX = 300

interface Answer {
  readonly status: number
  readonly contentType: string
  readonly body: string
  readonly location?: string
}

const text = (status: number, body: string): Answer => ({
  status,
  contentType: "text/plain; charset=utf-8",
  body
})

type Routes = ReadonlyMap<string, (query: URLSearchParams) => Effect.Effect<Answer>>

interface ListenAddress {
  /** Every interface when absent. */
  readonly host?: string
  readonly port: number
}

/**
 * Reads an address as Go's `net.Listen("tcp", ...)` takes it: ":8095", "127.0.0.1:0", "[::1]:80".
 *
 * @shape  (text) -> { host?, port }
 * @errors Go's error text
 */
export const parseListenAddress = (address: string): Result.Result<ListenAddress, string> => {
  const [, bracketed, plain = "", port] = /^(?:\[([^[\]]*)\]|([^[\]:]*)):([^:]*)$/u.exec(address) ?? []
  if (port === undefined) {
    const why = address.split(":").length > 2 ? "too many colons in address" : "missing port in address"
    return Result.fail(`listen tcp: address ${address}: ${why}`)
  }
  if (!/^\d*$/u.test(port)) return Result.fail(`listen tcp: lookup tcp/${port}: unknown port`)
  if (Number(port) > 65_535) return Result.fail(`listen tcp: address ${port}: invalid port`)
  const host = bracketed ?? plain
  return Result.succeed({ port: Number(port), ...(host === "" ? {} : { host }) })
}

const respond = (request: IncomingMessage, response: ServerResponse, answer: Answer): void => {
  if (response.destroyed || response.writableEnded) return
  const body = Buffer.from(answer.body)
  response.writeHead(answer.status, {
    "Content-Type": answer.contentType,
    "Content-Length": body.length,
    "X-Content-Type-Options": "nosniff",
    ...(answer.location === undefined ? {} : { Location: answer.location }),
    ...(answer.status === 405 ? { Allow: "GET, HEAD" } : {})
  })
  response.end(request.method === "HEAD" ? undefined : body)
}

/** Answers one request, unless the client leaves first. */
const answerOf = (routes: Routes, request: IncomingMessage): Effect.Effect<Answer> => {
  const [path = "", query = ""] = (request.url ?? "/").split(/\?(.*)/su)
  const route = routes.get(path)
  if (route === undefined) return Effect.succeed(text(404, "404 page not found\n"))
  if (request.method !== "GET" && request.method !== "HEAD") return Effect.succeed(text(405, "method not allowed\n"))
  return route(new URLSearchParams(query))
}

/** Go's words for what an administrator can do something about. */
const BIND_ERRORS: ReadonlyMap<string, string> = new Map([
  ["EADDRINUSE", "bind: address already in use"],
  ["EACCES", "bind: permission denied"],
  ["EADDRNOTAVAIL", "bind: cannot assign requested address"]
])

const listening = (server: Server, address: string, { host, port }: ListenAddress) =>
  Effect.callback<number, EndpointFailed>((resume) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const why = BIND_ERRORS.get(error.code ?? "") ?? error.message
      resume(Effect.fail(new EndpointFailed({ endpoint: address, detail: `listen tcp ${address}: ${why}` })))
    })
    server.listen({ port, ...(host === undefined ? {} : { host }) }, () => {
      const bound = server.address()
      resume(Effect.succeed(typeof bound === "object" && bound !== null ? bound.port : port))
    })
  })

/** Serves until the scope closes, and then drops every connection. Succeeds with the port. */
const serve = Effect.fnUntraced(function* (
  address: string,
  routes: Routes
): Effect.fn.Return<number, EndpointFailed, Scope.Scope> {
  const parsed = parseListenAddress(address)
  if (Result.isFailure(parsed)) {
    return yield* new EndpointFailed({ endpoint: address, detail: parsed.failure })
  }
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const server = yield* Effect.acquireRelease(
    Effect.sync(() =>
      createServer(
        {
          headersTimeout: 5_000,
          requestTimeout: 10_000,
          keepAliveTimeout: 5_000,
          connectionsCheckingInterval: 5_000,
          maxHeaderSize: 8 * 1024
        },
        (request, response) => {
          request.resume()
          const fiber = run(answerOf(routes, request))
          response.once("close", () => fiber.interruptUnsafe())
          fiber.addObserver((exit) => {
            if (Exit.isSuccess(exit)) return respond(request, response, exit.value)
            if (!Cause.hasInterruptsOnly(exit.cause)) {
              run(Effect.logError("a management request could not be answered", exit.cause))
            }
            respond(request, response, text(500, "internal error\n"))
          })
        }
      )
    ),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  server.maxConnections = CONNECTIONS_MAX
  const port = yield* listening(server, address, parsed.success)
  // A server that is open has no errors that anybody could act on.
  server.removeAllListeners("error").on("error", () => {})
  return port
})

/** The process' own numbers, for the metrics page. */
const processStats: Effect.Effect<ProcessStats | undefined> = Effect.promise(async () => {
  try {
    const { system, user } = process.cpuUsage()
    return {
      residentBytes: process.memoryUsage.rss(),
      openFileDescriptors: (await readdir("/proc/self/fd")).length,
      cpuSeconds: (system + user) / 1e6,
      startTimeSeconds: Math.round(performance.timeOrigin) / 1e3
    }
  } catch {
    return undefined
  }
})

/**
 * Serves /metrics.
 *
 * @shape  (address) -> the port
 * @errors EndpointFailed when the address is wrong or taken
 */
export const serveMetrics = (address: string) =>
  serve(
    address,
    new Map([
      [
        "/metrics",
        () =>
          Effect.map(Effect.flatMap(processStats, exposition), (body) => ({
            status: 200,
            contentType: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
            body
          }))
      ]
    ])
  )

export interface HealthChecks {
  /** Fails when the process ought to be restarted. */
  readonly live: Effect.Effect<void, { readonly message: string }>
  /** Fails while the driver should not be counted as working. */
  readonly ready: Effect.Effect<void, { readonly message: string }>
}

/** 200 "ok", or 500 and why not; a check that takes too long has failed. */
const checked = (check: HealthChecks["live"]): Effect.Effect<Answer> =>
  check.pipe(
    Effect.as(text(200, "ok")),
    Effect.catch(({ message }) => Effect.succeed(text(500, message))),
    Effect.timeoutOrElse({
      duration: CHECK_TIMEOUT,
      orElse: () => Effect.succeed(text(500, `no answer within ${CHECK_TIMEOUT}`))
    })
  )

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

const INDEX = `/debug/pprof/

cmdline   the command line, its words separated by zero bytes
profile   a CPU profile of ?seconds=30, in the .cpuprofile format of Node and browsers

There is no heap, symbol or trace profile: a dump of the heap would hold the secrets that are being mounted.
`

/** A CPU profile of this process. The inspector opens no port, and is loaded when it is first asked for. */
const cpuProfile = (seconds: number): Effect.Effect<string> =>
  Effect.acquireUseRelease(
    Effect.promise(async () => {
      const { Session } = await import("node:inspector/promises")
      const session = new Session()
      session.connect()
      await session.post("Profiler.enable")
      await session.post("Profiler.start")
      return session
    }),
    (session) =>
      Effect.promise(() => session.post("Profiler.stop")).pipe(
        Effect.delay(`${seconds} seconds`),
        Effect.map(({ profile }) => JSON.stringify(profile))
      ),
    (session) => Effect.sync(() => session.disconnect())
  )

const profileRoute = () => {
  let isRunning = false
  return (query: URLSearchParams): Effect.Effect<Answer> =>
    Effect.suspend(() => {
      const seconds = Number(query.get("seconds") ?? PROFILE_SECONDS_DEFAULT)
      if (!(seconds > 0 && seconds <= PROFILE_SECONDS_MAX)) {
        return Effect.succeed(text(400, `seconds has to be more than 0 and at most ${PROFILE_SECONDS_MAX}\n`))
      }
      if (isRunning) return Effect.succeed(text(503, "another profile is being taken\n"))
      isRunning = true
      return cpuProfile(seconds).pipe(
        Effect.map((body) => ({ status: 200, contentType: "application/json", body })),
        Effect.ensuring(
          Effect.sync(() => {
            isRunning = false
          })
        )
      )
    })
}

/**
 * Serves /debug/pprof/ on every interface, as upstream does: without authentication, and only when asked for.
 *
 * @shape  (port) -> the port, or undefined when it could not be opened
 * @errors none; what went wrong is logged
 */
export const serveProfiles = (port: number): Effect.Effect<number | undefined, never, Scope.Scope> =>
  serve(
    `:${port}`,
    new Map([
      ["/debug/pprof", () => Effect.succeed({ ...text(301, ""), location: "/debug/pprof/" })],
      ["/debug/pprof/", () => Effect.succeed(text(200, INDEX))],
      ["/debug/pprof/cmdline", () => Effect.succeed(text(200, process.argv.join("\0")))],
      ["/debug/pprof/profile", profileRoute()]
    ])
  ).pipe(Effect.catch((error) => Effect.as(Effect.logError("no profiles are served", error, { port }), undefined)))

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
