/**
 * What the servers for administrators have in common: routes, answers, limits, and how a server is opened and closed.
 * `node:http` alone: a framework would cost more memory than all of them.
 *
 * @source reference/driver.md 8.1, 8.4; reference/operator.md 1.5
 */
import { readdir } from "node:fs/promises"
import type { IncomingMessage, Server, ServerOptions, ServerResponse } from "node:http"
import type { Server as SecureServer } from "node:https"
import type { Server as NetServer } from "node:net"
import { Cause, Effect, Exit, type Fiber, Result, type Scope } from "effect"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { exposition, type ProcessStats } from "../../src/telemetry/PrometheusText.ts"

const CHECK_TIMEOUT = "3 seconds"
const CONNECTIONS_MAX = 64
const PROFILE_SECONDS_DEFAULT = 30
const PROFILE_SECONDS_MAX = 300

/** Slow and idle clients are cut. */
export const SERVER_OPTIONS = {
  headersTimeout: 5_000,
  requestTimeout: 10_000,
  keepAliveTimeout: 5_000,
  connectionsCheckingInterval: 5_000,
  maxHeaderSize: 8 * 1024
} satisfies ServerOptions

export interface Answer {
  readonly status: number
  readonly contentType: string
  readonly body: string
  readonly location?: string
  /** Methods there are, of an answer 405. */
  readonly allow?: string
}

export const text = (status: number, body: string): Answer => ({
  status,
  contentType: "text/plain; charset=utf-8",
  body
})

export type Handler = (query: URLSearchParams, request: IncomingMessage) => Effect.Effect<Answer>

/** By path, and by method where there is more than GET. A HEAD is answered as its GET. */
export type Routes = ReadonlyMap<string, Handler | { readonly GET: Handler; readonly PUT: Handler }>

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
    ...(answer.allow === undefined ? {} : { Allow: answer.allow })
  })
  response.end(request.method === "HEAD" ? undefined : body)
}

/** Answers one request, unless the client leaves first. */
export const answerOf = (routes: Routes, request: IncomingMessage): Effect.Effect<Answer> => {
  const { method = "" } = request
  const [path = "", query = ""] = (request.url ?? "/").split(/\?(.*)/su)
  const route = routes.get(path)
  if (route === undefined) return Effect.succeed(text(404, "404 page not found\n"))
  const handlers = new Map<string, Handler>(typeof route === "function" ? [["GET", route]] : Object.entries(route))
  const handler = handlers.get(method === "HEAD" ? "GET" : method)
  if (handler === undefined) {
    const allow = [...handlers.keys()].flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name]))
    return Effect.succeed({ ...text(405, "method not allowed\n"), allow: allow.join(", ") })
  }
  return handler(new URLSearchParams(query), request)
}

/** Answers requests for as long as the context's owner lives; a client that leaves interrupts its answer. */
export const listenerOf =
  (
    run: (effect: Effect.Effect<Answer>) => Fiber.Fiber<Answer>,
    answer: (request: IncomingMessage) => Effect.Effect<Answer>
  ) =>
  (request: IncomingMessage, response: ServerResponse): void => {
    const logged = Effect.tapCause(answer(request), (cause) =>
      Cause.hasInterruptsOnly(cause)
        ? Effect.void
        : Effect.logError("a management request could not be answered", cause)
    )
    const fiber = run(logged)
    response.once("close", () => fiber.interruptUnsafe())
    fiber.addObserver((exit) =>
      respond(request, response, Exit.isSuccess(exit) ? exit.value : text(500, "internal error\n"))
    )
  }

/** Go's words for what an administrator can do something about. */
const BIND_ERRORS: ReadonlyMap<string, string> = new Map([
  ["EADDRINUSE", "bind: address already in use"],
  ["EACCES", "bind: permission denied"],
  ["EADDRNOTAVAIL", "bind: cannot assign requested address"]
])

const listening = (server: NetServer, address: string, { host, port }: ListenAddress) =>
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

/**
 * Opens a server until the scope closes, and then drops every connection.
 *
 * @shape  (address, how to make the server) -> the server and its port
 * @errors EndpointFailed when the address is wrong or taken
 */
export const open = Effect.fnUntraced(function* <S extends Server | SecureServer>(
  address: string,
  create: () => S
): Effect.fn.Return<{ readonly server: S; readonly port: number }, EndpointFailed, Scope.Scope> {
  const parsed = parseListenAddress(address)
  if (Result.isFailure(parsed)) {
    return yield* new EndpointFailed({ endpoint: address, detail: parsed.failure })
  }
  const server = yield* Effect.acquireRelease(Effect.sync(create), (it) =>
    Effect.callback<void>((resume) => {
      it.close(() => resume(Effect.void))
      it.closeAllConnections()
    })
  )
  server.maxConnections = CONNECTIONS_MAX
  const port = yield* listening(server, address, parsed.success)
  // A server that is open has no errors that anybody could act on.
  server.removeAllListeners("error").on("error", () => {})
  return { server, port }
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

/** @shape (options of the page) -> the metrics page */
export const metricsPage = (options: { readonly targetInfo: boolean }): Effect.Effect<Answer> =>
  Effect.map(
    Effect.flatMap(processStats, (stats) => exposition(stats, options)),
    (body) => ({
      status: 200,
      contentType: "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
      body
    })
  )

export interface HealthChecks {
  /** Fails when the process ought to be restarted. */
  readonly live: Effect.Effect<void, { readonly message: string }>
  /** Fails while the driver should not be counted as working. */
  readonly ready: Effect.Effect<void, { readonly message: string }>
}

/** 200 "ok", or 500 and why not; a check that takes too long has failed. */
export const checked = (check: HealthChecks["live"]): Effect.Effect<Answer> =>
  check.pipe(
    Effect.as(text(200, "ok")),
    Effect.catch(({ message }) => Effect.succeed(text(500, message))),
    Effect.timeoutOrElse({
      duration: CHECK_TIMEOUT,
      orElse: () => Effect.succeed(text(500, `no answer within ${CHECK_TIMEOUT}`))
    })
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

/** @shape () -> the routes below /debug/pprof, with a state of their own */
export const profileRoutes = (): Routes =>
  new Map([
    ["/debug/pprof", () => Effect.succeed({ ...text(301, ""), location: "/debug/pprof/" })],
    ["/debug/pprof/", () => Effect.succeed(text(200, INDEX))],
    ["/debug/pprof/cmdline", () => Effect.succeed(text(200, process.argv.join("\0")))],
    ["/debug/pprof/profile", profileRoute()]
  ])
