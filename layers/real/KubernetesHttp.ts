/**
 * The Kubernetes API over `node:http` and `node:https`, on one keep-alive agent.
 *
 * Every request has a time limit and is destroyed when its caller leaves. A Status that comes back is a failure in the
 * API server's own words; what never came back has status 0. A token that is refused is read again, and the request sent
 * once more; so is a request that met a kept connection which the server had closed. No error holds a token.
 */
import { type ClientRequest, request as httpRequest, type IncomingMessage, STATUS_CODES } from "node:http"
import { request as httpsRequest, type RequestOptions } from "node:https"
import { StringDecoder } from "node:string_decoder"
import { Clock, Data, Effect, Layer, Redacted, Semaphore, Stream } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { KubernetesConfigInvalid } from "../../schemas/errors/KubernetesConfigInvalid.ts"
import { KubernetesApi, type KubernetesRequest, type WatchEvent } from "../../src/ports/KubernetesApi.ts"
import { monotonic } from "../MonotonicClock.ts"
import {
  CONNECTIONS_MAX,
  type Connection,
  type Credentials,
  connect,
  dropIdle,
  type Environment
} from "./KubernetesConnection.ts"

export interface Options {
  /** Empty: KUBECONFIG, the pod's service account, or ~/.kube/config. */
  readonly kubeconfig: string
  readonly userAgent: string
  /** 30 seconds when absent. For a watch, until it is answered. */
  readonly requestTimeoutMillis?: number
  readonly environment: Environment
}

const REQUEST_TIMEOUT_MILLIS = 30_000
/** Far beyond what an API server keeps in one object. */
const LINE_LENGTH_MAX = 32 * 1024 * 1024
const DETAIL_LENGTH_MAX = 1_000
const CONFLICT_CAUSE = "FieldManagerConflict"

/** No answer, or not a whole one. */
class Broken extends Data.TaggedError("Broken")<{
  readonly reason: "Network" | "Invalid"
  readonly detail: string
  /** The server had closed the kept connection before it could see the request. */
  readonly isStale: boolean
}> {}

interface Answer {
  readonly status: number
  readonly retryAfter: string | undefined
  readonly text: string
  /** Of a watch that was accepted: still open. */
  readonly open: IncomingMessage | undefined
}

const codeOf = (cause: Error): string => ("code" in cause && typeof cause.code === "string" ? cause.code : "")

const broken = (cause: unknown, isStale = false): Broken => {
  // Of several addresses tried in vain, the first tells enough.
  const error = cause instanceof AggregateError ? cause.errors[0] : cause
  const detail = error instanceof Error ? error.message || codeOf(error) || error.name : "unknown error"
  return new Broken({ reason: "Network", detail, isStale })
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

const parseJson = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** What the API server calls such an answer, for those that a proxy gave in its place. */
const REASONS: Readonly<Record<number, string>> = {
  400: "BadRequest",
  401: "Unauthorized",
  403: "Forbidden",
  404: "NotFound",
  405: "MethodNotAllowed",
  409: "Conflict",
  410: "Expired",
  422: "Invalid",
  429: "TooManyRequests",
  500: "InternalError",
  503: "ServiceUnavailable",
  504: "Timeout"
}

type Asked = Pick<KubernetesRequest, "method" | "path">

const retryAfterOf = (answer: Answer, details: unknown): number | undefined => {
  const inside = isObject(details) ? details["retryAfterSeconds"] : undefined
  const seconds = answer.retryAfter === undefined ? inside : Number(answer.retryAfter)
  return typeof seconds === "number" && Number.isFinite(seconds) && seconds >= 0 ? seconds : undefined
}

/** Which fields an apply met that are somebody else's; what else a server gives as causes is in its message as well. */
const causesOf = (details: unknown): KubernetesApiFailed["causes"] => {
  const list = isObject(details) ? details["causes"] : undefined
  const causes = (Array.isArray(list) ? list : []).flatMap((cause: unknown) => {
    const { field, message, reason } = isObject(cause) ? cause : {}
    return reason === CONFLICT_CAUSE && typeof message === "string" && typeof field === "string"
      ? [{ reason, message, field }]
      : []
  })
  return causes.length === 0 ? undefined : causes
}

const failureOf = ({ method, path }: Asked, answer: Answer): KubernetesApiFailed => {
  const body = parseJson(answer.text)
  const status = isObject(body) ? body : {}
  const { details, message, reason } = status
  const shown = answer.text.slice(0, DETAIL_LENGTH_MAX).replace(/\s+/gu, " ").trim()
  const standard = `${answer.status} ${STATUS_CODES[answer.status] ?? ""}`.trim()
  const retryAfterSeconds = retryAfterOf(answer, details)
  const causes = causesOf(details)
  return new KubernetesApiFailed({
    method,
    path,
    status: answer.status,
    reason: typeof reason === "string" && reason !== "" ? reason : (REASONS[answer.status] ?? "Unknown"),
    detail: typeof message === "string" && message !== "" ? message : shown === "" ? standard : `${standard}: ${shown}`,
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
    ...(causes === undefined ? {} : { causes })
  })
}

const failed = ({ method, path }: Asked, reason: string, detail: string, status = 0) =>
  new KubernetesApiFailed({ method, path, status, reason, detail })

/** Without the scheme before it; empty when there is none. */
const tokenOf = ({ authorization }: Credentials): string =>
  authorization === undefined ? "" : Redacted.value(authorization).replace(/^\S+\s+/u, "")

/** A server or proxy may repeat what it was sent. */
const hide = (failure: KubernetesApiFailed, credentials: Credentials): KubernetesApiFailed => {
  const secret = tokenOf(credentials)
  const { causes, detail } = failure
  if (secret === "" || !JSON.stringify([detail, causes]).includes(secret)) return failure
  const without = (text: string) => text.replaceAll(secret, "<redacted>")
  return new KubernetesApiFailed({
    ...failure,
    detail: without(detail),
    ...(causes === undefined
      ? {}
      : { causes: causes.map((it) => ({ ...it, message: without(it.message), field: without(it.field) })) })
  })
}

const urlOf = (server: URL, { path, query = {} }: Pick<KubernetesRequest, "path" | "query">): string => {
  const terms = Object.entries(query).flatMap(([name, value]) =>
    value === undefined ? [] : [`${encodeURIComponent(name)}=${encodeURIComponent(value)}`]
  )
  const base = server.pathname.replace(/\/+$/u, "")
  return `${base}${path}${terms.length === 0 ? "" : `?${terms.join("&")}`}`
}

/** The whole body, or how it broke off. */
const collect = (response: IncomingMessage, done: (body: Effect.Effect<string, Broken>) => void): void => {
  const chunks: Array<Buffer> = []
  response.on("data", (chunk: Buffer) => chunks.push(chunk))
  // One tick later the connection is free: whoever goes on with another request finds it.
  response.on("end", () => process.nextTick(() => done(Effect.succeed(Buffer.concat(chunks).toString()))))
  response.on("error", (cause) => done(Effect.fail(broken(cause))))
}

/**
 * Sends one request over one connection.
 *
 * @shape (options, body, whether a 200 stays open, told of the request) -> answer
 */
const send = (
  options: RequestOptions,
  body: string | undefined,
  staysOpen: boolean,
  hold: (outgoing: ClientRequest) => void
): Effect.Effect<Answer, Broken> =>
  Effect.callback<Answer, Broken>((resume) => {
    const issue = options.protocol === "http:" ? httpRequest : httpsRequest
    const answered = (response: IncomingMessage): void => {
      const status = response.statusCode ?? 0
      const retryAfter = response.headers["retry-after"]
      if (staysOpen && status === 200) {
        resume(Effect.succeed({ status, retryAfter, text: "", open: response }))
        return
      }
      collect(response, (text) =>
        resume(Effect.map(text, (it): Answer => ({ status, retryAfter, text: it, open: undefined })))
      )
    }
    try {
      const outgoing = issue(options, answered)
      hold(outgoing)
      outgoing.setNoDelay(true)
      outgoing.on("error", (cause) => {
        const isReset = ["ECONNRESET", "EPIPE"].includes(codeOf(cause))
        resume(Effect.fail(broken(cause, isReset && outgoing.reusedSocket)))
      })
      outgoing.end(body)
      return Effect.sync(() => void outgoing.destroy())
    } catch (cause) {
      // What cannot be in a header or path is refused before it is sent; the message may quote it.
      const detail = `the request cannot be sent (${cause instanceof Error ? codeOf(cause) : ""})`
      resume(Effect.fail(new Broken({ reason: "Invalid", detail, isStale: false })))
      return Effect.void
    }
  })

/** Cuts a body into lines, wherever its chunks begin and end. */
class Lines {
  private readonly decoder = new StringDecoder("utf8")
  private rest = ""

  push(chunk: Uint8Array): ReadonlyArray<string> {
    const [head = "", ...tail] = this.decoder.write(chunk).split("\n")
    if (tail.length === 0) {
      this.rest += head
      return []
    }
    const lines = [this.rest + head, ...tail]
    this.rest = lines.pop() ?? ""
    return lines.filter((line) => line.trim() !== "")
  }

  get unfinished(): string {
    return this.rest
  }
}

const eventOf = (line: string): WatchEvent | undefined => {
  const event = parseJson(line)
  return isObject(event) && typeof event["type"] === "string"
    ? { type: event["type"], object: event["object"] }
    : undefined
}

const eventsOf = (
  asked: Asked,
  lines: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<WatchEvent>, KubernetesApiFailed> => {
  const events: Array<WatchEvent> = []
  for (const line of lines) {
    const event = eventOf(line)
    if (event === undefined) return Effect.fail(failed(asked, "Invalid", "a line of the watch is not an event", 200))
    events.push(event)
  }
  return Effect.succeed(events)
}

const make = Effect.fnUntraced(function* (options: Options, connection: Connection) {
  const { server } = connection
  const timeoutMillis = options.requestTimeoutMillis ?? REQUEST_TIMEOUT_MILLIS
  const lanes = yield* Semaphore.make(CONNECTIONS_MAX)

  const optionsFor = (
    asked: KubernetesRequest,
    body: string | undefined,
    credentials: Credentials
  ): RequestOptions => ({
    protocol: server.protocol,
    // Node wants addresses of version 6 bare.
    hostname: server.hostname.replace(/^\[|\]$/gu, ""),
    port: server.port,
    path: urlOf(server, asked),
    method: asked.method,
    agent: credentials.agent,
    headers: {
      accept: "application/json",
      "user-agent": options.userAgent,
      ...credentials.headers,
      ...(credentials.authorization === undefined ? {} : { authorization: Redacted.value(credentials.authorization) }),
      ...(body === undefined
        ? {}
        : { "content-type": asked.contentType ?? "application/json", "content-length": Buffer.byteLength(body) })
    }
  })

  /** Until there is an answer that is good, or final. */
  const exchange = Effect.fnUntraced(function* (
    asked: KubernetesRequest,
    staysOpen: boolean,
    hold: (outgoing: ClientRequest) => void
  ) {
    const body = asked.body === undefined ? undefined : JSON.stringify(asked.body)
    const obtain = (renew: boolean) =>
      Effect.mapError(connection.credentials(renew), ({ detail }) => failed(asked, "Invalid", detail))
    const attempt = (credentials: Credentials) => {
      const once = Effect.suspend(() => send(optionsFor(asked, body, credentials), body, staysOpen, hold))
      return once.pipe(
        Effect.catchIf(
          ({ isStale }) => isStale,
          () => {
            dropIdle(credentials.agent)
            return once
          }
        ),
        Effect.mapError(({ detail, reason }) => hide(failed(asked, reason, detail), credentials))
      )
    }

    let credentials = yield* obtain(false)
    let answer = yield* attempt(credentials)
    if (answer.status === 401) {
      const refused = credentials
      credentials = yield* obtain(true)
      // The same token would be refused again.
      if (tokenOf(credentials) !== tokenOf(refused)) answer = yield* attempt(credentials)
    }
    if (answer.status < 200 || answer.status >= 300) return yield* hide(failureOf(asked, answer), credentials)
    return answer
  })

  const withinTime =
    (asked: Asked) =>
    <A>(effect: Effect.Effect<A, KubernetesApiFailed>): Effect.Effect<A, KubernetesApiFailed> =>
      Effect.timeoutOrElse(effect, {
        duration: timeoutMillis,
        orElse: () => Effect.fail(failed(asked, "Timeout", `no answer within ${timeoutMillis} ms`))
      })

  const request = (asked: KubernetesRequest): Effect.Effect<unknown, KubernetesApiFailed> =>
    exchange(asked, false, () => {}).pipe(
      lanes.withPermits(1),
      withinTime(asked),
      Effect.flatMap(({ status, text }) => {
        if (text === "") return Effect.succeed<unknown>({})
        const body = parseJson(text)
        return body === undefined
          ? Effect.fail(failed(asked, "Invalid", "the answer is not JSON", status))
          : Effect.succeed(body)
      })
    )

  /** An open watch, whose connection is cut when the scope closes. */
  const open = Effect.fnUntraced(function* (asked: KubernetesRequest, idleMillis: number) {
    let held: ClientRequest | undefined
    yield* Effect.addFinalizer(() => Effect.sync(() => void held?.destroy()))
    const answer = yield* exchange(asked, true, (outgoing) => {
      held = outgoing
    }).pipe(withinTime(asked))
    const { open: response } = answer
    // Another kind of success is not a watch.
    if (response === undefined) return yield* failed(asked, "Invalid", "the answer is not a watch", answer.status)
    const lines = new Lines()
    const idle = failed(asked, "Idle", `nothing was heard for ${idleMillis} ms`)
    const tooLong = failed(asked, "Invalid", "a line of the watch is too long", answer.status)
    const lastLine = Stream.suspend(() => {
      const event = eventOf(lines.unfinished)
      if (event !== undefined) return Stream.succeed(event)
      return lines.unfinished.trim() === ""
        ? Stream.empty
        : Stream.fail(failed(asked, "Network", "the watch ended within a line"))
    })
    return Stream.fromAsyncIterable<Buffer, KubernetesApiFailed>(response, (cause) =>
      failed(asked, "Network", broken(cause).detail)
    ).pipe(
      Stream.timeoutOrElse({ duration: idleMillis, orElse: () => Stream.fail(idle) }),
      Stream.provideService(Clock.Clock, monotonic(yield* Clock.Clock)),
      Stream.mapEffect((chunk) => {
        const complete = lines.push(chunk)
        return lines.unfinished.length > LINE_LENGTH_MAX ? Effect.fail(tooLong) : eventsOf(asked, complete)
      }),
      Stream.flattenIterable,
      Stream.concat(lastLine)
    )
  })

  return KubernetesApi.of({
    request,
    watch: ({ path, query }, idleMillis) =>
      Stream.unwrap(open({ method: "GET", path, query: { ...query, watch: true } }, idleMillis))
  })
})

/**
 * @shape  (options) -> KubernetesApi
 * @units  milliseconds
 * @errors KubernetesConfigInvalid when it cannot be told where the API server is; it is not asked anything yet
 * @source reference/driver.md 1.5 #7; reference/wire.md (e)
 */
export const layer = (options: Options): Layer.Layer<KubernetesApi, KubernetesConfigInvalid> =>
  Layer.effect(
    KubernetesApi,
    Effect.acquireRelease(connect(options.kubeconfig, options.environment), (connection) =>
      Effect.sync(connection.close)
    ).pipe(Effect.flatMap((connection) => make(options, connection)))
  )
