/**
 * gRPC over grpc-js as effects: handlers are effects, and so are calls.
 *
 * A caller that cancels, or whose deadline passes, interrupts the handler; interrupting a call cancels it on the wire. A
 * failure travels as its status; a defect becomes INTERNAL with constant words, and only the log has its text.
 */
import { lstatSync, unlinkSync } from "node:fs"
import * as grpc from "@grpc/grpc-js"
import { Cause, Clock, type Context, Data, Effect, Exit, type Scope } from "effect"
import { type CsiStatus, GRPC_CODES, type GrpcCode } from "../../schemas/errors/CsiStatus.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"

// grpc-js would write lines of its own to stderr; everything that it has to say reaches us as an error as well.
grpc.setLogVerbosity(grpc.logVerbosity.NONE)

export const codeName = (code: grpc.status): GrpcCode => GRPC_CODES[code] ?? "UNKNOWN"

/** What a handler may know of its call. */
export interface ServedCall {
  /** Milliseconds since the epoch; Infinity when the caller never stops waiting. */
  readonly deadlineMillis: number
}

const deadlineOf = (deadline: grpc.Deadline): number => (deadline instanceof Date ? deadline.getTime() : deadline)

const answerOf = (cause: Cause.Cause<CsiStatus>): Partial<grpc.StatusObject> => {
  const failure = Cause.findErrorOption(cause)
  if (failure._tag === "Some") {
    return { code: GRPC_CODES.indexOf(failure.value.grpcCode), details: failure.value.details }
  }
  return Cause.hasInterruptsOnly(cause)
    ? { code: grpc.status.CANCELLED, details: "the driver is shutting down" }
    : { code: grpc.status.INTERNAL, details: "internal error" }
}

/** Runs a handler per call, with the services and references of whoever serves. */
export const handleUnary = <Request, Response>(
  context: Context.Context<never>,
  handler: (request: Request, call: ServedCall) => Effect.Effect<Response, CsiStatus>
): grpc.handleUnaryCall<Request, Response> => {
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
    call.on("cancelled", () => fiber.interruptUnsafe())
    fiber.addObserver((exit) => (Exit.isSuccess(exit) ? callback(null, exit.value) : callback(answerOf(exit.cause))))
  }
}

/** Removes what an earlier process has left at a socket's path; anything but a socket is somebody else's. */
export const removeStaleSocket = (path: string): Effect.Effect<void, EndpointFailed> =>
  Effect.suspend(() => {
    const found = lstatSync(path, { throwIfNoEntry: false })
    if (found === undefined) return Effect.void
    if (!found.isSocket()) {
      return Effect.fail(new EndpointFailed({ endpoint: path, detail: `${path} exists and is not a socket` }))
    }
    return Effect.try({
      try: () => unlinkSync(path),
      catch: (cause) => new EndpointFailed({ endpoint: path, detail: `remove ${path}: ${String(cause)}` })
    })
  })

/** Takes calls until the scope closes; then calls under way have `graceMillis` to end. */
export const serve = Effect.fnUntraced(function* (options: {
  /** In grpc-js's form: "unix:/path" or "host:port". */
  readonly address: string
  readonly graceMillis: number
  readonly register: (server: grpc.Server) => void
}): Effect.fn.Return<number, EndpointFailed, Scope.Scope> {
  const server = new grpc.Server()
  options.register(server)
  yield* Effect.addFinalizer(() =>
    Effect.callback<void>((resume) => server.tryShutdown(() => resume(Effect.void))).pipe(
      Effect.timeoutOption(options.graceMillis),
      Effect.andThen(Effect.sync(() => server.forceShutdown()))
    )
  )
  return yield* Effect.callback<number, EndpointFailed>((resume) => {
    server.bindAsync(options.address, grpc.ServerCredentials.createInsecure(), (error, port) =>
      resume(
        error === null
          ? Effect.succeed(port)
          : Effect.fail(new EndpointFailed({ endpoint: options.address, detail: error.message }))
      )
    )
  })
})

/** A call that was answered with another status than OK, or not at all. */
export class CallFailed extends Data.TaggedError("CallFailed")<{
  readonly grpcCode: GrpcCode
  readonly details: string
  /** Nothing of an answer had been received. */
  readonly unanswered: boolean
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
          resume(Effect.fail(new CallFailed({ grpcCode, details, unanswered: !answered })))
        }
      )
      call.on("metadata", () => {
        answered = true
      })
      return Effect.sync(() => call.cancel())
    })
  )
