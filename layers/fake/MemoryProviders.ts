/**
 * Providers in memory: installed under a name, answering with an effect each. Waiting happens on the Effect clock. Each
 * has a socket, which may be there without anybody who accepts on it.
 *
 * @source test/contracts/ProvidersSuite.ts runs on this and on ProviderSockets
 */
import { Clock, Context, Deferred, Effect, Layer } from "effect"
import { ProviderCallFailed, ProviderNameInvalid, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import {
  type MountRequest,
  type MountResponse,
  PROVIDER_API_VERSION,
  type VersionResponse
} from "../../schemas/Provider.ts"
import { Providers } from "../../src/ports/Providers.ts"

export type MountHandler = (request: MountRequest) => Effect.Effect<MountResponse, ProviderCallFailed>

export interface ProviderCall {
  readonly provider: string
  readonly request: MountRequest
}

/** A socket that is there; of one that is not, nothing is kept. "forbidden": it may not be opened. */
export type SocketState = "listening" | "refusing" | "forbidden"

/** What a provider says of itself. */
export type VersionHandler = () => Effect.Effect<VersionResponse, ProviderCallFailed>

/** Unlike the driver's port, these happen at once: no other fiber runs before they have. */
export class MemoryProviders extends Context.Service<
  MemoryProviders,
  {
    /** Wakes whoever waits for this name; replaces a provider of the same name, whose calls under way then break. */
    readonly install: (name: string, handler: MountHandler, version?: VersionHandler) => Effect.Effect<void>
    /** Calls under way break, as when a provider's process ends. */
    readonly remove: (name: string) => Effect.Effect<void>
    /** Unless it listens, calls under way break, and new ones wait. Nothing, for a name that is not installed. */
    readonly setSocket: (name: string, state: SocketState) => Effect.Effect<void>
    /** Every mount that reached a provider so far, in order. */
    readonly calls: ReadonlyArray<ProviderCall>
  }
>()("secrets-store/fake/MemoryProviders") {}

const NAME = /^[a-zA-Z0-9_-]{0,30}$/u
const NAMES_TOLD_MAX = 10
const DIRECTORY = "/memory/providers"
/** The default of --max-call-recv-msg-size. */
const RECEIVE_BYTES_MAX = 4_194_304

interface Installed {
  readonly handler: MountHandler
  readonly version: VersionHandler
  socket: SocketState
  broken: Deferred.Deferred<never, ProviderCallFailed>
}

const REFUSALS: Readonly<Record<Exclude<SocketState, "listening">, string>> = {
  refusing: "connect ECONNREFUSED",
  forbidden: "connect EACCES"
}

const make: Effect.Effect<Context.Context<Providers | MemoryProviders>> = Effect.sync(() => {
  const installed = new Map<string, Installed>()
  const connected = new Set<string>()
  const calls: Array<ProviderCall> = []
  let arrival = Deferred.makeUnsafe<void>()

  const unavailable = (provider: string, details: string) =>
    new ProviderCallFailed({ provider, grpcCode: "UNAVAILABLE", details, unanswered: true })
  const disconnect = (name: string, { broken }: Installed) =>
    void Deferred.doneUnsafe(broken, Effect.fail(unavailable(name, "the connection was closed")))
  const remove = (name: string) => {
    const provider = installed.get(name)
    installed.delete(name)
    if (provider !== undefined) disconnect(name, provider)
  }
  /** Wakes whoever waits for a socket. */
  const announce = () => {
    const arrived = arrival
    arrival = Deferred.makeUnsafe()
    Deferred.doneUnsafe(arrived, Effect.void)
  }

  const control = MemoryProviders.of({
    install: (name, handler, version) =>
      Effect.sync(() => {
        remove(name)
        const usual = { version: PROVIDER_API_VERSION, runtimeName: name, runtimeVersion: "0.0.10" }
        installed.set(name, {
          handler,
          version: version ?? (() => Effect.succeed(usual)),
          socket: "listening",
          broken: Deferred.makeUnsafe()
        })
        announce()
      }),
    remove: (name) => Effect.sync(() => remove(name)),
    setSocket: (name, state) =>
      Effect.sync(() => {
        const provider = installed.get(name)
        if (provider === undefined) return
        provider.socket = state
        if (state === "listening") return announce()
        disconnect(name, provider)
        provider.broken = Deferred.makeUnsafe()
      }),
    calls
  })

  const checkName = (provider: string) =>
    NAME.test(provider) ? Effect.void : Effect.fail(new ProviderNameInvalid({ provider }))
  const notFound = (provider: string, waitedMillis: number) =>
    Effect.suspend(() => {
      const sockets = [...installed.keys()].map((name) => `${name}.sock`).sort()
      const told = sockets.slice(0, NAMES_TOLD_MAX).join(", ")
      const more = sockets.length > NAMES_TOLD_MAX ? ` and ${sockets.length - NAMES_TOLD_MAX} more` : ""
      const found = sockets.length === 0 ? "no sockets" : `found ${told}${more}`
      return Effect.fail(new ProviderNotFound({ provider, searched: [{ directory: DIRECTORY, found }], waitedMillis }))
    })
  const connection = Effect.fnUntraced(function* (provider: string) {
    yield* Effect.yieldNow
    yield* checkName(provider)
    const found = installed.get(provider)
    if (found === undefined) return yield* notFound(provider, 0)
    connected.add(provider)
    return found
  })
  /** Who listens, now or later; whoever waits goes on connecting, also while the socket is gone again. */
  const listening = Effect.fnUntraced(function* (provider: string) {
    for (;;) {
      const found = installed.get(provider)
      if (found?.socket === "listening") return found
      yield* Deferred.await(arrival)
    }
  })

  const providers = Providers.of({
    locate: Effect.fnUntraced(function* (provider, waitMillis) {
      yield* Effect.yieldNow
      yield* checkName(provider)
      if (installed.has(provider)) return
      if (waitMillis <= 0) return yield* notFound(provider, 0)
      const started = yield* Clock.currentTimeMillis
      const appeared = Effect.gen(function* () {
        while (!installed.has(provider)) yield* Deferred.await(arrival)
      })
      yield* Effect.timeoutOrElse(appeared, {
        duration: waitMillis,
        orElse: () => Effect.flatMap(Clock.currentTimeMillis, (now) => notFound(provider, now - started))
      })
    }),
    mount: Effect.fnUntraced(function* (provider, request) {
      yield* connection(provider)
      const { broken, handler } = yield* listening(provider)
      calls.push({ provider, request })
      const answer = yield* Effect.raceFirst(
        Effect.suspend(() => handler(request)),
        Deferred.await(broken)
      )
      if (answer.sizeBytes <= RECEIVE_BYTES_MAX) return answer
      return yield* new ProviderCallFailed({
        provider,
        grpcCode: "RESOURCE_EXHAUSTED",
        details: `grpc: received message larger than max (${answer.sizeBytes} vs. ${RECEIVE_BYTES_MAX})`,
        unanswered: false
      })
    }),
    version: Effect.fnUntraced(function* (provider) {
      const { broken, socket, version } = yield* connection(provider)
      if (socket !== "listening") return yield* unavailable(provider, REFUSALS[socket])
      return yield* Effect.raceFirst(version(), Deferred.await(broken))
    }),
    known: Effect.andThen(
      Effect.yieldNow,
      Effect.sync(() => [...connected].sort())
    )
  })

  return Context.make(Providers, providers).pipe(Context.add(MemoryProviders, control))
})

/** Whoever keeps what this builds keeps the providers, so a driver can be killed and started again among them. */
export const layer: Layer.Layer<Providers | MemoryProviders> = Layer.effectContext(make)
