/**
 * A provider on a unix socket that answers as a test tells it to: late, wrongly, or not at all. It keeps what it was
 * asked.
 */
import * as grpc from "@grpc/grpc-js"
import { Data, Effect, Exit, type Scope } from "effect"
import { CSIDriverProviderService, type MountRequest, type MountResponse } from "../../proto/gen/provider.ts"

/** A gRPC status in place of an answer. */
export class ProviderSays extends Data.TaggedError("ProviderSays")<{
  readonly grpcCode: keyof typeof grpc.status
  readonly details: string
}> {}

export type Respond = (request: MountRequest) => Effect.Effect<MountResponse, ProviderSays>

export interface ScriptedProvider {
  readonly socket: string
  /** Every mount request so far. */
  readonly asked: ReadonlyArray<MountRequest>
  /** How many calls are being answered now. */
  readonly active: () => number
  /** How many calls ended because their caller went away. */
  readonly abandoned: () => number
  readonly respond: (next: Respond) => void
}

/** An answer with these files, mode 0644, and one object version that is `version`. */
export const answer = (files: Readonly<Record<string, string>>, version = "v1"): MountResponse => ({
  objectVersion: [{ id: "secret/scripted", version }],
  error: undefined,
  files: Object.entries(files).map(([path, contents]) => ({ path, mode: 0o644, contents: Buffer.from(contents) }))
})

export const attributesOf = (request: MountRequest): Readonly<Record<string, string>> => JSON.parse(request.attributes)

/** Serves until the scope closes. */
export const serve = (socket: string, first: Respond): Effect.Effect<ScriptedProvider, never, Scope.Scope> =>
  Effect.gen(function* () {
    const run = Effect.runForkWith(yield* Effect.context<never>())
    const asked: Array<MountRequest> = []
    let respond = first
    let active = 0
    let abandoned = 0
    const server = new grpc.Server()
    server.addService(CSIDriverProviderService, {
      version: (_: unknown, callback: grpc.sendUnaryData<unknown>) =>
        callback(null, { version: "v1alpha1", runtimeName: "scripted", runtimeVersion: "1.0.0" }),
      mount: (call: grpc.ServerUnaryCall<MountRequest, MountResponse>, callback: grpc.sendUnaryData<MountResponse>) => {
        asked.push(call.request)
        active += 1
        const fiber = run(respond(call.request))
        call.on("cancelled", () => fiber.interruptUnsafe())
        fiber.addObserver((exit) => {
          active -= 1
          if (Exit.isSuccess(exit)) return callback(null, exit.value)
          if (call.cancelled) abandoned += 1
          const says = exit.cause.reasons.find((reason) => reason._tag === "Fail")?.error
          callback({ code: grpc.status[says?.grpcCode ?? "INTERNAL"], details: says?.details ?? "interrupted" })
        })
      }
    })
    yield* Effect.acquireRelease(
      Effect.callback<void>((resume) =>
        server.bindAsync(`unix:${socket}`, grpc.ServerCredentials.createInsecure(), (error) =>
          resume(error === null ? Effect.void : Effect.die(error))
        )
      ),
      () => Effect.sync(() => server.forceShutdown())
    )
    return {
      socket,
      asked,
      active: () => active,
      abandoned: () => abandoned,
      respond: (next) => {
        respond = next
      }
    }
  })
