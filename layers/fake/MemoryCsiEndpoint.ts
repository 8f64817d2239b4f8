/**
 * The CSI socket in memory: a caller and whoever serves, with what the wire does between them. Nobody serving is
 * UNAVAILABLE; a caller that leaves, or whose deadline passes, interrupts the handler and does not wait for it.
 *
 * @source test/contracts/CsiEndpointSuite.ts runs on this and on CsiSocket
 */
import { Cause, Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Result } from "effect"
import type { ControllerStub, OtherRequest } from "../../schemas/Csi.ts"
import { CsiStatus } from "../../schemas/errors/CsiStatus.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { parseEndpoint } from "../../src/csi/Endpoint.ts"
import { type CsiCall, CsiEndpoint, type CsiHandlers } from "../../src/ports/CsiEndpoint.ts"

type Served = Exclude<keyof CsiHandlers, "controllerStub">
/** All RPCs that a CSI driver's socket knows. */
export type CsiMethod = Served | ControllerStub

type RequestOf = { readonly [M in Served]: Parameters<CsiHandlers[M]>[0] } & {
  readonly [M in ControllerStub]: OtherRequest
}
type ResponseOf = { readonly [M in Served]: Effect.Success<ReturnType<CsiHandlers[M]>> } & {
  readonly [M in ControllerStub]: never
}
type ByMethod = {
  readonly [M in CsiMethod]: (request: RequestOf[M], call: CsiCall) => Effect.Effect<ResponseOf[M], CsiStatus>
}

export interface CallOptions {
  /** When the caller stops waiting, in milliseconds since the epoch; never when absent. */
  readonly deadlineMillis?: number
}

export type Call = <M extends CsiMethod>(
  method: M,
  request: RequestOf[M],
  options?: CallOptions
) => Effect.Effect<ResponseOf[M], CsiStatus>

/** Plays the caller. */
export class MemoryCsiEndpoint extends Context.Service<
  MemoryCsiEndpoint,
  {
    readonly call: Call
    /** The endpoint that is served now. */
    readonly serving: () => string | undefined
  }
>()("secrets-store/fake/MemoryCsiEndpoint") {}

interface Server {
  readonly endpoint: string
  readonly handlers: ByMethod
  readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** Callers wait for these; interrupting one of them ends the call with CANCELLED. */
  readonly underWay: Set<Fiber.Fiber<unknown, unknown>>
  readonly drained: Deferred.Deferred<void>
  closing: boolean
}

const withStubs = ({ controllerStub, ...served }: CsiHandlers): ByMethod => ({
  ...served,
  CreateVolume: controllerStub,
  DeleteVolume: controllerStub,
  ControllerPublishVolume: controllerStub,
  ControllerUnpublishVolume: controllerStub,
  ValidateVolumeCapabilities: controllerStub,
  ListVolumes: controllerStub,
  GetCapacity: controllerStub,
  CreateSnapshot: controllerStub,
  DeleteSnapshot: controllerStub,
  ListSnapshots: controllerStub,
  ControllerExpandVolume: controllerStub,
  ControllerGetVolume: controllerStub
})

const answerOf = <A>(exit: Exit.Exit<A, CsiStatus>): Effect.Effect<A, CsiStatus> => {
  if (Exit.isSuccess(exit)) return Effect.succeed(exit.value)
  const failure = Cause.findErrorOption(exit.cause)
  if (failure._tag === "Some") return Effect.fail(failure.value)
  return Cause.hasInterruptsOnly(exit.cause)
    ? new CsiStatus({ grpcCode: "CANCELLED", details: "the driver is shutting down" })
    : new CsiStatus({ grpcCode: "INTERNAL", details: "internal error" })
}

/** Unlike `Fiber.join`: whoever leaves interrupts the handler, and does not wait for it to clean up. */
const answerFrom = <A>(fiber: Fiber.Fiber<A, CsiStatus>): Effect.Effect<A, CsiStatus> =>
  Effect.callback<A, CsiStatus>((resume) => {
    fiber.addObserver((exit) => resume(answerOf(exit)))
    return Effect.sync(() => fiber.interruptUnsafe())
  })

/** For calls that were cut off to undo what they began. */
const UNDO_MILLIS = 3_000

const expired = new CsiStatus({ grpcCode: "DEADLINE_EXCEEDED", details: "Deadline exceeded" })

const make: Effect.Effect<Context.Context<CsiEndpoint | MemoryCsiEndpoint>> = Effect.sync(() => {
  let current: Server | undefined

  const call: Call = (method, request, { deadlineMillis = Number.POSITIVE_INFINITY } = {}) =>
    Effect.gen(function* () {
      yield* Effect.yieldNow
      const server = current
      if (server === undefined || server.closing) {
        return yield* new CsiStatus({ grpcCode: "UNAVAILABLE", details: "No connection established" })
      }
      const now = yield* Clock.currentTimeMillis
      if (deadlineMillis <= now) return yield* expired
      const handler = server.handlers[method]
      // It begins after the call is counted as under way.
      const fiber = server.fork(
        Effect.yieldNow.pipe(
          // A deadline crosses the wire as the time that is left: whose clock is right is no question then.
          Effect.flatMap(() => Clock.currentTimeMillis),
          Effect.flatMap((its) => handler(request, { method, deadlineMillis: its + deadlineMillis - now })),
          Effect.tapCause((cause) =>
            Cause.hasDies(cause) ? Effect.logError("a call ended with a defect", { method, cause }) : Effect.void
          )
        )
      )
      server.underWay.add(fiber)
      fiber.addObserver(() => {
        server.underWay.delete(fiber)
        if (server.closing && server.underWay.size === 0) Deferred.doneUnsafe(server.drained, Effect.void)
      })
      const answered = answerFrom(fiber)
      if (deadlineMillis === Number.POSITIVE_INFINITY) return yield* answered
      return yield* Effect.timeoutOrElse(answered, {
        duration: deadlineMillis - now,
        orElse: () => Effect.fail(expired)
      })
    })

  const endpoint = CsiEndpoint.of({
    serve: Effect.fnUntraced(function* (text, handlers, { graceMillis }) {
      yield* Effect.yieldNow
      const parsed = parseEndpoint(text)
      if (Result.isFailure(parsed)) return yield* new EndpointFailed({ endpoint: text, detail: parsed.failure })
      const context = yield* Effect.context<never>()
      const server: Server = {
        endpoint: text,
        handlers: withStubs(handlers),
        fork: Effect.runForkWith(context),
        underWay: new Set(),
        drained: Deferred.makeUnsafe(),
        closing: false
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          current = server
        }),
        () =>
          Effect.gen(function* () {
            server.closing = true
            if (current === server) current = undefined
            if (server.underWay.size === 0) return
            yield* Effect.timeoutOption(Deferred.await(server.drained), graceMillis)
            yield* Effect.timeoutOption(Fiber.interruptAll(server.underWay), UNDO_MILLIS)
          })
      )
    })
  })

  const control = MemoryCsiEndpoint.of({ call, serving: () => current?.endpoint })
  return Context.make(CsiEndpoint, endpoint).pipe(Context.add(MemoryCsiEndpoint, control))
})

/** Whoever keeps what this builds can serve again after a kill. */
export const layer: Layer.Layer<CsiEndpoint | MemoryCsiEndpoint> = Layer.effectContext(make)
