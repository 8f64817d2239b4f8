/**
 * Providers in memory: installed under a name, answering with an effect each. Waiting happens on the Effect clock.
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

/** Unlike the driver's port, these happen at once: no other fiber runs before they have. */
export class MemoryProviders extends Context.Service<
  MemoryProviders,
  {
    /** Wakes whoever waits for this name; replaces a provider of the same name, whose calls under way then break. */
    readonly install: (name: string, handler: MountHandler) => Effect.Effect<void>
    /** Calls under way break, as when a provider's process ends. */
    readonly remove: (name: string) => Effect.Effect<void>
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
  readonly broken: Deferred.Deferred<never, ProviderCallFailed>
}

const make: Effect.Effect<Context.Context<Providers | MemoryProviders>> = Effect.sync(() => {
  const installed = new Map<string, Installed>()
  const connected = new Set<string>()
  const calls: Array<ProviderCall> = []
  let arrival = Deferred.makeUnsafe<void>()

  const remove = (name: string) => {
    const provider = installed.get(name)
    installed.delete(name)
    if (provider === undefined) return
    const details = "the connection was closed"
    const failure = new ProviderCallFailed({ provider: name, grpcCode: "UNAVAILABLE", details, unanswered: true })
    Deferred.doneUnsafe(provider.broken, Effect.fail(failure))
  }

  const control = MemoryProviders.of({
    install: (name, handler) =>
      Effect.sync(() => {
        remove(name)
        installed.set(name, { handler, broken: Deferred.makeUnsafe() })
        const arrived = arrival
        arrival = Deferred.makeUnsafe()
        Deferred.doneUnsafe(arrived, Effect.void)
      }),
    remove: (name) => Effect.sync(() => remove(name)),
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
      const { broken, handler } = yield* connection(provider)
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
    version: (provider) =>
      Effect.map(
        connection(provider),
        (): VersionResponse => ({ version: PROVIDER_API_VERSION, runtimeName: provider, runtimeVersion: "0.0.10" })
      ),
    known: Effect.andThen(
      Effect.yieldNow,
      Effect.sync(() => [...connected].sort())
    )
  })

  return Context.make(Providers, providers).pipe(Context.add(MemoryProviders, control))
})

/** Whoever keeps what this builds keeps the providers, so a driver can be killed and started again among them. */
export const layer: Layer.Layer<Providers | MemoryProviders> = Layer.effectContext(make)
