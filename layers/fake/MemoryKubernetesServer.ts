/**
 * Serves a `KubernetesApi`, usually the one in memory, over HTTP or HTTPS on the loopback address: for whoever can only
 * speak to a real socket, such as another process.
 *
 * Bodies, statuses and watches are those of the API server. A failure without a status (a broken connection) breaks the
 * connection here as well. Everything is closed with the scope, watches first.
 */
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse
} from "node:http"
import { createServer as createHttpsServer } from "node:https"
import { Cause, Duration, Effect, FiberSet, type Scope, Stream } from "effect"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import { Succeeds, UserAgent, WatchAccepted } from "./MemoryKubernetes.ts"

export interface ServeOptions {
  /** One that is free when absent. */
  readonly port?: number
  /** PEM. HTTP when absent. */
  readonly tls?: { readonly key: string; readonly cert: string }
  /** The only one that is let in, now or (as a function) at each request; when absent, everybody is. */
  readonly bearerToken?: string | (() => string)
  /** What every answer that is not a watch takes at least, in milliseconds. */
  readonly delayMillis?: number
}

export interface Served {
  readonly url: string
  readonly port: number
}

const HOST = "127.0.0.1"
/** As long as a real one keeps a silent connection. */
const KEEP_ALIVE_MILLIS = 90_000
const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"] as const

const detailsOf = ({ causes, retryAfterSeconds }: KubernetesApiFailed) => ({
  ...(causes === undefined ? {} : { causes }),
  ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds })
})

const statusBody = (failure: KubernetesApiFailed) => ({
  kind: "Status",
  apiVersion: "v1",
  metadata: {},
  status: "Failure",
  message: failure.detail,
  reason: failure.reason,
  ...(Object.keys(detailsOf(failure)).length === 0 ? {} : { details: detailsOf(failure) }),
  code: failure.status
})

const respond = (response: ServerResponse, status: number, body: unknown, retryAfterSeconds?: number): void => {
  if (response.destroyed || response.writableEnded) return
  const bytes = Buffer.from(JSON.stringify(body))
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": bytes.length,
    ...(retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) })
  })
  response.end(bytes)
}

const refuse = (response: ServerResponse, failure: KubernetesApiFailed): void => {
  if (failure.status === 0 || response.headersSent) response.destroy()
  else respond(response, failure.status, statusBody(failure), failure.retryAfterSeconds)
}

const bodyOf = (incoming: IncomingMessage): Effect.Effect<string> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk))
    incoming.on("end", () => resume(Effect.succeed(Buffer.concat(chunks).toString())))
    // Whoever left does not wait for an answer.
    incoming.on("error", () => resume(Effect.interrupt))
  })

const parse = (method: string, path: string, text: string): Effect.Effect<unknown, KubernetesApiFailed> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(JSON.parse(text))
    } catch {
      const detail = "the object provided is unrecognized (must be of type object)"
      return Effect.fail(new KubernetesApiFailed({ method, path, status: 400, reason: "BadRequest", detail }))
    }
  })

/** One request, as the port takes it. */
const read = Effect.fnUntraced(function* (incoming: IncomingMessage) {
  const [path = "", search = ""] = (incoming.url ?? "/").split(/\?(.*)/su)
  const method = METHODS.find((known) => known === incoming.method)
  if (method === undefined) {
    const detail = "the server does not allow this method on the requested resource"
    const asked = { method: String(incoming.method), path }
    return yield* new KubernetesApiFailed({ ...asked, status: 405, reason: "MethodNotAllowed", detail })
  }
  const text = yield* bodyOf(incoming)
  const contentType = incoming.headers["content-type"]
  const request: KubernetesRequest = {
    method,
    path,
    query: Object.fromEntries(new URLSearchParams(search)),
    ...(text === "" ? {} : { body: yield* parse(method, path, text) }),
    ...(contentType === undefined ? {} : { contentType })
  }
  return request
})

/** Sends the events of a watch until it ends, one per line. */
const follow = (api: KubernetesApi["Service"], { path, query = {} }: KubernetesRequest, response: ServerResponse) => {
  const begin = Effect.sync(() => {
    if (response.headersSent) return
    response.writeHead(200, { "content-type": "application/json", "transfer-encoding": "chunked" })
    response.flushHeaders()
  })
  return api.watch({ path, query }, Number.POSITIVE_INFINITY).pipe(
    Stream.runForEach((event) =>
      Effect.andThen(
        begin,
        Effect.sync(() => void response.write(`${JSON.stringify(event)}\n`))
      )
    ),
    // A watch that is accepted may stay silent, and its client wants to know nevertheless.
    Effect.provideService(WatchAccepted, begin),
    Effect.andThen(begin),
    Effect.andThen(Effect.sync(() => void response.end()))
  )
}

const isTrue = (value: unknown) => value === "true" || value === "1"

/** All of one exchange. Fails with what is answered instead. */
const answer = Effect.fnUntraced(function* (
  api: KubernetesApi["Service"],
  incoming: IncomingMessage,
  response: ServerResponse,
  { bearerToken, delayMillis = 0 }: ServeOptions
) {
  const request = yield* read(incoming)
  const token = typeof bearerToken === "function" ? bearerToken() : bearerToken
  if (token !== undefined && incoming.headers.authorization !== `Bearer ${token}`) {
    const { method, path } = request
    return yield* new KubernetesApiFailed({
      ...{ method, path },
      ...{ status: 401, reason: "Unauthorized", detail: "Unauthorized" }
    })
  }
  if (request.method === "GET" && isTrue(request.query?.["watch"])) return yield* follow(api, request, response)
  let status = request.method === "POST" ? 201 : 200
  const succeeds = (code: 200 | 201) => {
    status = code
  }
  const [took, body] = yield* Effect.timed(api.request(request)).pipe(
    Effect.provideService(Succeeds, succeeds),
    Effect.provideService(UserAgent, incoming.headers["user-agent"] ?? "")
  )
  const rest = delayMillis - Duration.toMillis(took)
  if (rest > 0) yield* Effect.sleep(rest)
  respond(response, status, body)
})

const listening = (server: Server, port: number) =>
  Effect.callback<number, EndpointFailed>((resume) => {
    const endpoint = `${HOST}:${port}`
    server.once("error", ({ message }) => resume(Effect.fail(new EndpointFailed({ endpoint, detail: message }))))
    server.listen({ host: HOST, port }, () => {
      const bound = server.address()
      resume(Effect.succeed(typeof bound === "object" && bound !== null ? bound.port : port))
    })
  })

/**
 * Serves until the scope closes.
 *
 * @shape  (options) -> { url: "http://127.0.0.1:1234", port }
 * @units  milliseconds
 * @errors EndpointFailed when the port is taken or the certificate cannot be used
 */
export const serve = Effect.fnUntraced(function* (
  options: ServeOptions = {}
): Effect.fn.Return<Served, EndpointFailed, Scope.Scope | KubernetesApi> {
  const api = yield* KubernetesApi
  const run = yield* FiberSet.makeRuntime<never>()
  const listener: RequestListener = (incoming, response) => {
    const exchange = answer(api, incoming, response, options).pipe(
      Effect.catch((failure) => Effect.sync(() => refuse(response, failure))),
      Effect.tapCause((cause) =>
        Cause.hasInterruptsOnly(cause)
          ? Effect.void
          : Effect.andThen(
              Effect.logError("a request could not be answered", cause),
              Effect.sync(() => void response.destroy())
            )
      )
    )
    const fiber = run(exchange)
    response.once("close", () => fiber.interruptUnsafe())
  }
  const server = yield* Effect.acquireRelease(
    Effect.try({
      try: (): Server =>
        options.tls === undefined ? createHttpServer(listener) : createHttpsServer({ ...options.tls }, listener),
      catch: (cause) => new EndpointFailed({ endpoint: HOST, detail: String(cause) })
    }),
    (open) =>
      Effect.callback<void>((resume) => {
        open.close(() => resume(Effect.void))
        open.closeAllConnections()
      })
  )
  server.keepAliveTimeout = KEEP_ALIVE_MILLIS
  const port = yield* listening(server, options.port ?? 0)
  server.removeAllListeners("error").on("error", () => {})
  return { port, url: `${options.tls === undefined ? "http" : "https"}://${HOST}:${port}` }
})
