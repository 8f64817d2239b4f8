/**
 * A kubelet in memory that sees which plugins are offered for registration, and says how it went.
 *
 * @source test/contracts/PluginRegistry.test.ts; reference/wire.md (c)
 */
import { Context, Effect, Layer } from "effect"
import type { PluginInfo, RegistrationStatus } from "../../schemas/Registration.ts"
import { PluginRegistry } from "../../src/ports/PluginRegistry.ts"

export interface Offered {
  readonly directory: string
  readonly info: PluginInfo
}

export class MemoryPluginRegistry extends Context.Service<
  MemoryPluginRegistry,
  {
    /** Plugins that are offered now, in the order of their coming. */
    readonly offered: () => ReadonlyArray<Offered>
    /** How often a plugin has been offered so far. */
    readonly offers: () => number
    /** Tells the plugin of this name; false when none is offered. */
    readonly notify: (name: string, status: RegistrationStatus) => Effect.Effect<boolean>
    /** What every plugin is told from now on as soon as it is offered; undefined: nothing, until `notify`. */
    readonly answerWith: (status: RegistrationStatus | undefined) => Effect.Effect<void>
  }
>()("secrets-store/fake/MemoryPluginRegistry") {}

interface Registration extends Offered {
  readonly tell: (status: RegistrationStatus) => Effect.Effect<void>
}

const make: Effect.Effect<Context.Context<PluginRegistry | MemoryPluginRegistry>> = Effect.sync(() => {
  const registrations = new Set<Registration>()
  let offers = 0
  let answer: RegistrationStatus | undefined

  const registry = PluginRegistry.of({
    register: Effect.fnUntraced(function* (directory, info, onStatus) {
      yield* Effect.yieldNow
      const registration: Registration = { directory, info, tell: onStatus }
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          // A plugin that is offered again takes the place of the one before, as its socket does.
          for (const other of registrations) {
            if (other.directory === directory && other.info.name === info.name) registrations.delete(other)
          }
          registrations.add(registration)
          offers += 1
        }),
        () => Effect.sync(() => void registrations.delete(registration))
      )
      // The kubelet calls; registering does not wait for it.
      if (answer !== undefined) yield* Effect.forkScoped(Effect.andThen(Effect.yieldNow, onStatus(answer)))
    })
  })

  const control = MemoryPluginRegistry.of({
    offered: () => [...registrations].map(({ directory, info }) => ({ directory, info })),
    offers: () => offers,
    notify: (name, status) =>
      Effect.suspend(() => {
        const registration = [...registrations].find(({ info }) => info.name === name)
        return registration === undefined ? Effect.succeed(false) : Effect.as(registration.tell(status), true)
      }),
    answerWith: (status) =>
      Effect.sync(() => {
        answer = status
      })
  })
  return Context.make(PluginRegistry, registry).pipe(Context.add(MemoryPluginRegistry, control))
})

export const layer: Layer.Layer<PluginRegistry | MemoryPluginRegistry> = Layer.effectContext(make)
