/**
 * Providers behind unix sockets: found by name in a list of directories, called over gRPC.
 *
 * A connection is used as long as somebody answers on it. Otherwise the directories are searched again, so that a
 * provider that moved to another one, or was replaced, is found by the next call (Q23).
 *
 * @source driver v1.6.0, pkg/secrets-store/provider_client.go; reference/driver.md 3.1-3.4, reference/wire.md (b)
 */
import { type FSWatcher, watch } from "node:fs"
import { readdir, stat } from "node:fs/promises"
import { dirname } from "node:path"
import * as grpc from "@grpc/grpc-js"
import { Clock, Effect, Layer, Redacted } from "effect"
import * as Wire from "../../proto/gen/provider.ts"
import { ProviderCallFailed, ProviderNameInvalid, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import type { MountRequest, MountResponse } from "../../schemas/Provider.ts"
import { PROVIDER_API_VERSION } from "../../schemas/Provider.ts"
import { Providers } from "../../src/ports/Providers.ts"
import { type CallFailed, QUIET, unary } from "./Grpc.ts"

export interface ProviderSocketsOptions {
  /** In search order. */
  readonly directories: ReadonlyArray<string>
  /** Largest reply that is taken, in bytes. */
  readonly maxReceiveBytes: number
}

const NAME = /^[a-zA-Z0-9_-]{0,30}$/u
/** At most so many socket names are told of a directory. */
const NAMES_TOLD_MAX = 10
/** Directories are watched; looking now and then is the safety net where watching does not work. */
const LOOK_EVERY = "500 millis"

// ---- messages

const mountRequestOf = (request: MountRequest): Wire.MountRequest => ({
  attributes: Redacted.value(request.attributes),
  secrets: Redacted.value(request.secrets),
  targetPath: request.targetPath,
  permission: request.permission,
  currentObjectVersion: request.currentObjectVersions.map(({ id, version }) => ({ id, version }))
})

interface SizedResponse {
  readonly message: Wire.MountResponse
  readonly sizeBytes: number
}

/** The generated method, which also tells how large the reply was. */
const mountMethod = {
  path: Wire.CSIDriverProviderService.mount.path,
  requestSerialize: Wire.CSIDriverProviderService.mount.requestSerialize,
  responseDeserialize: (bytes: Buffer): SizedResponse => ({
    message: Wire.CSIDriverProviderService.mount.responseDeserialize(bytes),
    sizeBytes: bytes.length
  })
}

const mountResponseOf = ({ message, sizeBytes }: SizedResponse): MountResponse => ({
  objectVersions: message.objectVersion,
  errorCode: message.error?.code ?? "",
  files: message.files.map(({ contents, mode, path }) => ({ path, mode, contents: Redacted.make(contents) })),
  sizeBytes
})

/** grpc-js words an over-size reply in its own way; other programs look for the words that this has always had. */
const detailsOf = (details: string): string => {
  const [, size, limit] = /^Received message larger than max \((\d+) vs\.? (\d+)\)$/u.exec(details) ?? []
  return size === undefined ? details : `grpc: received message larger than max (${size} vs. ${limit})`
}

const callFailed =
  (provider: string) =>
  ({ details, grpcCode, retryAfterMillis, unanswered }: CallFailed) =>
    new ProviderCallFailed({ provider, grpcCode, details: detailsOf(details), unanswered, retryAfterMillis })

// ---- sockets

interface Located {
  readonly path: string
  /** Changes when another socket takes the place. */
  readonly identity: string
}

const identify = (path: string): Effect.Effect<Located | undefined> =>
  Effect.tryPromise(() => stat(path)).pipe(
    Effect.map(({ ctimeMs, dev, ino }) => ({ path, identity: `${dev}:${ino}:${ctimeMs}` })),
    Effect.orElseSucceed(() => undefined)
  )

const find = Effect.fnUntraced(function* (directories: ReadonlyArray<string>, provider: string) {
  for (const directory of directories) {
    const located = yield* identify(`${directory}/${provider}.sock`)
    if (located !== undefined) return located
  }
  return undefined
})

const describe = (directory: string) =>
  Effect.tryPromise(() => readdir(directory)).pipe(
    Effect.map((names) => {
      const sockets = names.filter((name) => name.endsWith(".sock")).sort()
      const told = sockets.slice(0, NAMES_TOLD_MAX).join(", ")
      const more = sockets.length > NAMES_TOLD_MAX ? ` and ${sockets.length - NAMES_TOLD_MAX} more` : ""
      return { directory, found: sockets.length === 0 ? "no sockets" : `found ${told}${more}` }
    }),
    Effect.orElseSucceed(() => ({ directory, found: "no such directory" }))
  )

/** Succeeds when something in a directory, or in the nearest one above that exists, has changed. */
const changed = (directory: string): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const open = (path: string): FSWatcher | undefined => {
      try {
        return watch(path, () => resume(Effect.void))
      } catch {
        return path === dirname(path) ? undefined : open(dirname(path))
      }
    }
    const watcher = open(directory)
    watcher?.on("error", () => resume(Effect.void))
    return Effect.sync(() => watcher?.close())
  })

interface Connection extends Located {
  readonly client: grpc.Client
}

/** @shape (options) -> Layer of Providers; clients are closed with it */
export const layer = ({ directories, maxReceiveBytes }: ProviderSocketsOptions): Layer.Layer<Providers> =>
  Layer.effect(
    Providers,
    Effect.gen(function* () {
      const connections = yield* Effect.acquireRelease(
        Effect.sync(() => new Map<string, Connection>()),
        (open) =>
          Effect.sync(() => {
            for (const { client } of open.values()) client.close()
          })
      )
      const connect = (provider: string, located: Located): Connection => {
        const client = new grpc.Client(`unix:${located.path}`, grpc.credentials.createInsecure(), {
          ...QUIET,
          "grpc.default_authority": "localhost",
          "grpc.max_receive_message_length": maxReceiveBytes,
          "grpc.initial_reconnect_backoff_ms": 100,
          "grpc.max_reconnect_backoff_ms": 500,
          "grpc.enable_retries": 0
        })
        connections.get(provider)?.client.close()
        const connection = { ...located, client }
        connections.set(provider, connection)
        return connection
      }
      /** Somebody answers there: then the directories need not be searched. */
      const connected = (provider: string): Connection | undefined => {
        const known = connections.get(provider)
        const state = known?.client.getChannel().getConnectivityState(false)
        return state === grpc.connectivityState.READY ? known : undefined
      }
      const checkName = (provider: string) =>
        NAME.test(provider) ? Effect.void : Effect.fail(new ProviderNameInvalid({ provider }))
      const notFound = (provider: string, waitedMillis: number) =>
        Effect.flatMap(Effect.forEach(directories, describe), (searched) =>
          Effect.fail(new ProviderNotFound({ provider, searched, waitedMillis }))
        )
      const connection = Effect.fnUntraced(function* (provider: string) {
        yield* checkName(provider)
        const ready = connected(provider)
        if (ready !== undefined) return ready
        const located = yield* find(directories, provider)
        if (located === undefined) return yield* notFound(provider, 0)
        // Looked up again after waiting: parallel first calls share what the first of them has made.
        const current = connections.get(provider)
        if (current?.path === located.path && current.identity === located.identity) return current
        yield* Effect.logDebug("connecting to provider", { provider, socket: located.path })
        return connect(provider, located)
      })

      return Providers.of({
        locate: Effect.fnUntraced(function* (provider, waitMillis) {
          yield* checkName(provider)
          if (connected(provider) !== undefined) return
          if ((yield* find(directories, provider)) !== undefined) return
          if (waitMillis <= 0) return yield* notFound(provider, 0)
          yield* Effect.logInfo("waiting for the provider's socket", { provider, waitMillis })
          const started = yield* Clock.currentTimeMillis
          const look = Effect.map(find(directories, provider), (located) => located !== undefined)
          const woken = Effect.raceAll([Effect.sleep(LOOK_EVERY), ...directories.map(changed)])
          const appeared = Effect.gen(function* () {
            while (!(yield* look)) yield* woken
          })
          yield* appeared.pipe(
            Effect.timeoutOrElse({
              duration: waitMillis,
              orElse: () => Effect.flatMap(Clock.currentTimeMillis, (now) => notFound(provider, now - started))
            })
          )
        }),
        mount: Effect.fnUntraced(function* (provider, request) {
          const { client } = yield* connection(provider)
          const response = yield* unary(client, mountMethod, mountRequestOf(request), { waitForReady: true }).pipe(
            Effect.mapError(callFailed(provider))
          )
          return mountResponseOf(response)
        }),
        version: Effect.fnUntraced(function* (provider) {
          const { client } = yield* connection(provider)
          return yield* unary(client, Wire.CSIDriverProviderService.version, { version: PROVIDER_API_VERSION }).pipe(
            Effect.mapError(callFailed(provider))
          )
        }),
        known: Effect.sync(() => [...connections.keys()].sort())
      })
    })
  )
