/**
 * Registration with the kubelet: the contract in memory and on a socket, and what only the socket can show.
 */
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import { Effect, Exit, type Layer, Scope } from "effect"
import { MemoryPluginRegistry, layer as memoryPluginRegistry } from "../../layers/fake/MemoryPluginRegistry.ts"
import { unary } from "../../layers/real/Grpc.ts"
import { layer as pluginRegistrySocket } from "../../layers/real/PluginRegistrySocket.ts"
import { RegistrationService } from "../../proto/gen/registration.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import type { PluginInfo, RegistrationStatus } from "../../schemas/Registration.ts"
import { pluginInfo } from "../../src/csi/Registration.ts"
import { PluginRegistry } from "../../src/ports/PluginRegistry.ts"

const info = pluginInfo("secrets-store.csi.k8s.io", "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock")

/** The kubelet: what it sees in the directory, and how it answers. */
interface KubeletWorld<R> {
  readonly directory: Effect.Effect<string, never, R | Scope.Scope>
  readonly seen: (directory: string) => Effect.Effect<ReadonlyArray<PluginInfo>, never, R>
  readonly notify: (directory: string, name: string, status: RegistrationStatus) => Effect.Effect<void, never, R>
}

const suite = <R>(name: string, layer: Layer.Layer<PluginRegistry | R>, world: KubeletWorld<R>) =>
  it.layer(layer, { excludeTestServices: true })(`PluginRegistry (${name})`, (it) => {
    it.effect("wire.md (c): the plugin is seen as long as it is offered", () =>
      Effect.gen(function* () {
        const registry = yield* PluginRegistry
        const directory = yield* world.directory
        const scope = yield* Scope.make()
        yield* Scope.provide(
          registry.register(directory, info, () => Effect.void),
          scope
        )
        assert.deepStrictEqual(yield* world.seen(directory), [info])
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* world.seen(directory), [])
      })
    )

    it.effect("the kubelet's answers arrive, each time", () =>
      Effect.gen(function* () {
        const registry = yield* PluginRegistry
        const directory = yield* world.directory
        const statuses: Array<RegistrationStatus> = []
        yield* registry.register(directory, info, (status) => Effect.sync(() => void statuses.push(status)))
        const refusal = { registered: false, error: "driver name is taken" }
        yield* world.notify(directory, info.name, refusal)
        yield* world.notify(directory, info.name, { registered: true, error: "" })
        assert.deepStrictEqual(statuses, [refusal, { registered: true, error: "" }])
      })
    )

    it.effect("a plugin is offered again after a refusal", () =>
      Effect.gen(function* () {
        const registry = yield* PluginRegistry
        const directory = yield* world.directory
        for (const _ of [1, 2]) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              yield* registry.register(directory, info, () => Effect.void)
              assert.deepStrictEqual(yield* world.seen(directory), [info])
            })
          )
          assert.deepStrictEqual(yield* world.seen(directory), [])
        }
      })
    )
  })

let memoryDirectories = 0

suite("in memory", memoryPluginRegistry, {
  directory: Effect.sync(() => `/memory/registration-${memoryDirectories++}`),
  seen: (directory) =>
    Effect.map(MemoryPluginRegistry, (kubelet) =>
      kubelet
        .offered()
        .filter((offered) => offered.directory === directory)
        .map((offered) => offered.info)
    ),
  notify: (_, name, status) =>
    Effect.flatMap(MemoryPluginRegistry, (kubelet) =>
      Effect.map(kubelet.notify(name, status), (reached) => assert.isTrue(reached))
    )
})

// ---- on a socket

const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "registration-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

const withClient = <A, E>(socket: string, use: (client: grpc.Client) => Effect.Effect<A, E>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new grpc.Client(`unix:${socket}`, grpc.credentials.createInsecure())),
    use,
    (client) => Effect.sync(() => client.close())
  )

const socketIn = (directory: string, name: string) => join(directory, `${name}-reg.sock`)

suite("on a socket", pluginRegistrySocket, {
  directory: temporary,
  // The kubelet looks at every socket whose name does not start with a dot.
  seen: (directory) =>
    Effect.forEach(
      readdirSync(directory).filter((name) => name.endsWith(".sock")),
      (name) => withClient(join(directory, name), (client) => unary(client, RegistrationService.getInfo, {}))
    ).pipe(
      Effect.map((infos) =>
        infos.map((found) => {
          assert.strictEqual(found.type, "CSIPlugin")
          return { ...found, type: "CSIPlugin" as const }
        })
      ),
      Effect.orDie
    ),
  notify: (directory, name, { error, registered }) =>
    withClient(socketIn(directory, name), (client) =>
      unary(client, RegistrationService.notifyRegistrationStatus, { pluginRegistered: registered, error })
    ).pipe(Effect.asVoid, Effect.orDie)
})

describe("in memory only", () => {
  it.live("a kubelet that answers by itself", () =>
    Effect.gen(function* () {
      const registry = yield* PluginRegistry
      const kubelet = yield* MemoryPluginRegistry
      const statuses: Array<RegistrationStatus> = []
      const status = { registered: true, error: "" }
      yield* kubelet.answerWith(status)
      yield* registry.register("/registration", info, (said) => Effect.sync(() => void statuses.push(said)))
      yield* Effect.sleep(10)
      assert.deepStrictEqual(statuses, [status])
      assert.strictEqual(kubelet.offers(), 1)
      assert.isFalse(yield* kubelet.notify("another", status))
    }).pipe(Effect.provide(memoryPluginRegistry))
  )
})

describe("on a socket only", () => {
  const register = (directory: string) =>
    Effect.flatMap(PluginRegistry, (registry) => registry.register(directory, info, () => Effect.void)).pipe(
      Effect.provide(pluginRegistrySocket)
    )

  it.live("wire.md (c): mode 0600, whatever the umask", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      chmodSync(directory, 0o777)
      yield* register(directory)
      const found = statSync(socketIn(directory, info.name))
      assert.isTrue(found.isSocket())
      assert.strictEqual(found.mode & 0o777, 0o600)
    })
  )

  it.live("a stale socket is replaced, and nothing is left at the end", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const socket = socketIn(directory, info.name)
      const scope = yield* Scope.make()
      yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof createServer>>((resume) => {
          const stale = createServer()
          stale.listen(socket, () => resume(Effect.succeed(stale)))
        }),
        (stale) => Effect.sync(() => stale.close())
      )
      yield* Scope.provide(register(directory), scope)
      const found = yield* withClient(socket, (client) => unary(client, RegistrationService.getInfo, {}))
      assert.strictEqual(found.name, info.name)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(readdirSync(directory), [])
    })
  )

  it.live("what is not a socket is left alone", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const path = socketIn(directory, info.name)
      writeFileSync(path, "somebody's file")
      assert.instanceOf(yield* Effect.flip(register(directory)), EndpointFailed)
      assert.isTrue(existsSync(path))
    })
  )

  it.live("no directory", () =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(register(join(yield* temporary, "missing")))
      assert.instanceOf(failure, EndpointFailed)
    })
  )
})
