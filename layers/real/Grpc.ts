/**
 * gRPC over grpc-js as effects: handlers are effects, and so are calls.
 *
 * A caller that cancels, or whose deadline passes, interrupts the handler; interrupting a call cancels it on the wire. A
 * failure travels as its status; a defect becomes INTERNAL with constant words, and only the log has its text.
 */
import { chmodSync, lstatSync, mkdtempSync, renameSync, rmSync, unlinkSync } from "node:fs"
import { dirname, join } from "node:path"
import * as grpc from "@grpc/grpc-js"
import { Cause, Clock, type Context, Data, Effect, Exit, Fiber, type Scope } from "effect"
import { type CsiStatus, GRPC_CODES, type GrpcCode } from "../../schemas/errors/CsiStatus.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { retryAfterMillisOf } from "./RetryHint.ts"

// grpc-js would write lines of its own to stderr; everything that it has to say reaches us as an error as well.
grpc.setLogVerbosity(grpc.logVerbosity.NONE)

/** Nobody asks grpc-js for its statistics of channels. */
export const QUIET = { "grpc.enable_channelz": 0 } as const

const codeName = (code: grpc.status): GrpcCode => GRPC_CODES[code] ?? "UNKNOWN"

/** What a handler may know of its call. */
interface ServedCall {
  /** Milliseconds since the epoch; Infinity when the caller never stops waiting. */
  readonly deadlineMillis: number
}

const deadlineOf = (deadline: grpc.Deadline): number => (deadline instanceof Date ? deadline.getTime() : deadline)

const answerOf = (cause: Cause.Cause<CsiStatus>): Partial<grpc.StatusObject> => {
  const failure = Cause.findErrorOption(cause)
  if (failure._tag === "Some") {
    const { details, grpcCode, retryAfterMillis } = failure.value
    const metadata = new grpc.Metadata()
    if (retryAfterMillis !== undefined) metadata.set("grpc-retry-pushback-ms", String(retryAfterMillis))
    return { code: GRPC_CODES.indexOf(grpcCode), details, metadata }
  }
  return Cause.hasInterruptsOnly(cause)
    ? { code: grpc.status.CANCELLED, details: "the driver is shutting down" }
    : { code: grpc.status.INTERNAL, details: "internal error" }
}

/** What a server does for each call of one method. */
export type Handle = <Request, Response>(
  handler: (request: Request, call: ServedCall) => Effect.Effect<Response, CsiStatus>
) => grpc.handleUnaryCall<Request, Response>

type Calls = Set<Fiber.Fiber<unknown, CsiStatus>>

/** Runs a handler per call, with the services and references of whoever serves. */
const handlingWith =
  (context: Context.Context<never>, underWay: Calls): Handle =>
  (handler) => {
    const run = Effect.runForkWith(context)
    return (call, callback) => {
      const fiber = run(
        Effect.suspend(() => handler(call.request, { deadlineMillis: deadlineOf(call.getDeadline()) })).pipe(
          Effect.tapCause((cause) =>
            Cause.hasDies(cause)
              ? Effect.logError("a call ended with a defect", { method: call.getPath(), cause })
              : Effect.void
          )
        )
      )
      underWay.add(fiber)
      call.on("cancelled", () => fiber.interruptUnsafe())
      fiber.addObserver((exit) => {
        underWay.delete(fiber)
        if (Exit.isSuccess(exit)) callback(null, exit.value)
        else callback(answerOf(exit.cause))
      })
    }
  }

// ---- listening

const failing = (endpoint: string) => (cause: unknown) =>
  new EndpointFailed({ endpoint, detail: cause instanceof Error ? cause.message : String(cause) })

const bind = (server: grpc.Server, address: string): Effect.Effect<number, EndpointFailed> =>
  Effect.callback<number, EndpointFailed>((resume) => {
    server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, port) =>
      resume(error === null ? Effect.succeed(port) : Effect.fail(failing(address)(error)))
    )
  })

/**
 * Opens a socket next to its place and moves it there, in place of what an earlier process has left.
 *
 * It is never there with wider permissions than asked for, nor before it is served: the umask is the whole process's
 * and stays out of it. Closing a listener unlinks the path that it was opened with, whoever's socket lies there by
 * then; after the move that is nobody's. For the same reason only our own socket is removed at the end, and before the
 * server stops, so that nobody finds a socket that is not served. The kubelet overlooks names that start with a dot.
 */
const bindSocket = Effect.fnUntraced(function* (server: grpc.Server, path: string, mode: number | undefined) {
  const attempt = <A>(step: () => A) => Effect.try({ try: step, catch: failing(path) })
  const found = yield* attempt(() => lstatSync(path, { throwIfNoEntry: false }))
  if (found !== undefined && !found.isSocket()) {
    return yield* new EndpointFailed({ endpoint: path, detail: `${path} exists and is not a socket` })
  }
  const inode = yield* Effect.acquireUseRelease(
    // Not joined: that would take the dot for the directory, and make a neighbour of it.
    attempt(() => mkdtempSync(`${dirname(path)}/.`)),
    (hidden) => {
      const opened = join(hidden, "s")
      return Effect.andThen(
        bind(server, `unix:${opened}`),
        attempt(() => {
          if (mode !== undefined) chmodSync(opened, mode)
          renameSync(opened, path)
          return lstatSync(path).ino
        })
      )
    },
    (hidden) => Effect.sync(() => rmSync(hidden, { recursive: true, force: true }))
  )
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      if (lstatSync(path, { throwIfNoEntry: false })?.ino === inode) unlinkSync(path)
    })
  )
})

/** For calls that were cut off to undo what they began; a process that ends earlier leaves it lying about. */
const UNDO_MILLIS = 3_000

const stop = (server: grpc.Server, underWay: Calls, graceMillis: number) =>
  Effect.callback<void>((resume) => server.tryShutdown(() => resume(Effect.void))).pipe(
    Effect.timeoutOption(graceMillis),
    Effect.andThen(Effect.suspend(() => Fiber.interruptAll(underWay))),
    Effect.timeoutOption(graceMillis + UNDO_MILLIS),
    Effect.andThen(Effect.sync(() => server.forceShutdown()))
  )

/** Where to listen: a unix socket's path, with its mode if the umask is not to decide; or "host:port". */
export type Listen = { readonly socket: string; readonly mode?: number } | { readonly address: string }

/**
 * Takes calls until the scope closes. Then calls under way have `graceMillis` to end, and those that are cut off three
 * seconds to undo what they began.
 *
 * @errors EndpointFailed: what is in the socket's place, or what the system says to listening
 */
export const serve = Effect.fnUntraced(function* (options: {
  readonly listen: Listen
  readonly graceMillis: number
  readonly register: (server: grpc.Server, handle: Handle) => void
}): Effect.fn.Return<void, EndpointFailed, Scope.Scope> {
  const { graceMillis, listen, register } = options
  const underWay: Calls = new Set()
  const server = new grpc.Server(QUIET)
  register(server, handlingWith(yield* Effect.context<never>(), underWay))
  yield* Effect.addFinalizer(() => stop(server, underWay, graceMillis))
  if ("socket" in listen) yield* bindSocket(server, listen.socket, listen.mode)
  else yield* bind(server, listen.address)
})

// ---- calling

/** A call that was answered with another status than OK, or not at all. */
export class CallFailed extends Data.TaggedError("CallFailed")<{
  readonly grpcCode: GrpcCode
  readonly details: string
  /** Nothing of an answer had been received. */
  readonly unanswered: boolean
  /** How long the server asks to be left alone, from 0 to 24 hours; undefined: it does not say. */
  readonly retryAfterMillis: number | undefined
}> {}

/** Calls one method; interruption cancels the call on the wire. */
export const unary = <Request, Response>(
  client: grpc.Client,
  method: Pick<grpc.MethodDefinition<Request, Response>, "path" | "requestSerialize" | "responseDeserialize">,
  request: Request,
  options: { readonly timeoutMillis?: number; readonly waitForReady?: boolean } = {}
): Effect.Effect<Response, CallFailed> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.callback<Response, CallFailed>((resume) => {
      const metadata = new grpc.Metadata({ waitForReady: options.waitForReady ?? false })
      const { timeoutMillis } = options
      let answered = false
      const call = client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadata,
        timeoutMillis === undefined ? {} : { deadline: now + timeoutMillis },
        (error, response) => {
          if (error === null && response !== undefined) return resume(Effect.succeed(response))
          const grpcCode = error === null ? "INTERNAL" : codeName(error.code)
          const details = error === null ? "an answer without a message" : error.details
          const retryAfterMillis = error === null ? undefined : retryAfterMillisOf(error.metadata)
          resume(Effect.fail(new CallFailed({ grpcCode, details, unanswered: !answered, retryAfterMillis })))
        }
      )
      call.on("metadata", () => {
        answered = true
      })
      return Effect.sync(() => call.cancel())
    })
  )
