/**
 * The operator's own server: health for the kubelet, metrics and debugging for those who may, over HTTPS.
 *
 * Certificates, the CA of client certificates and the TLS settings are taken up while it serves: the listener stays
 * open, connections under way end as they began, and new ones, and kept ones after their next answer, are of the new
 * kind. Where there is no serving certificate it makes one itself, says so, and goes over to the real one when it
 * appears. What is refused by the TLS library leaves in force what was there before.
 *
 * @source reference/operator.md 1.5, Q21, Q22, Q31
 */
import { hash, X509Certificate } from "node:crypto"
import { readFile } from "node:fs/promises"
import type { IncomingMessage } from "node:http"
import { createServer, type Server } from "node:https"
import type { Socket } from "node:net"
import { type SecureContextOptions, type SecureVersion, TLSSocket } from "node:tls"
import { Clock, Effect, Result, Schedule, type Scope, Stream } from "effect"
import type { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { readClientCa } from "../../src/operator/ClientCa.ts"
import type { Access, Asked, Client } from "../../src/operator/MetricsAccess.ts"
import { DEFAULT_TLS, type TlsSettings, type TlsVersion } from "../../src/operator/TlsProfile.ts"
import type { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { LogLevel } from "../../src/ports/LogLevel.ts"
import { LogKeys } from "../../src/telemetry/LogKeys.ts"
import {
  type Answer,
  answerOf,
  checked,
  type Handler,
  type HealthChecks,
  listenerOf,
  metricsPage,
  open,
  profileRoutes,
  type Routes,
  SERVER_OPTIONS,
  text
} from "./HttpRoutes.ts"

const HANDSHAKE_TIMEOUT_MILLIS = 5_000
const BODY_BYTES_MAX = 1_024
/** A certificate of our own is renewed this long before it ends. */
const RENEW_MILLIS = 10 * 86_400_000

/** Files of a mounted Secret are swapped; no watch of theirs would see it. */
const certificateCheck = Schedule.spaced("5 seconds")
const clientCaCheck = Schedule.spaced("1 minute")

export interface Options {
  /** "0.0.0.0:8443" */
  readonly listen: string
  readonly certificate: { readonly certFile: string; readonly keyFile: string }
  readonly tls: {
    readonly initial: TlsSettings
    /** The present settings may come again. */
    readonly changes: Stream.Stream<TlsSettings>
  }
  readonly checks: HealthChecks
  readonly access: (client: Client, asked: Asked) => Effect.Effect<Access>
  /** What /version answers. */
  readonly version: Readonly<Record<string, string>>
}

// ---- TLS

const VERSIONS: Readonly<Record<TlsVersion, SecureVersion>> = {
  VersionTLS10: "TLSv1",
  VersionTLS11: "TLSv1.1",
  VersionTLS12: "TLSv1.2",
  VersionTLS13: "TLSv1.3"
}

/** By the names of config.openshift.io. */
const GROUPS: ReadonlyMap<string, string> = new Map([
  ["X25519MLKEM768", "X25519MLKEM768"],
  ["SecP256r1MLKEM768", "SecP256r1MLKEM768"],
  ["SecP384r1MLKEM1024", "SecP384r1MLKEM1024"],
  ["X25519", "X25519"],
  ["secp256r1", "P-256"],
  ["secp384r1", "P-384"],
  ["secp521r1", "P-521"]
])

interface Material {
  readonly cert: string
  readonly key: string
  readonly tls: TlsSettings
  readonly clientCa: string | undefined
}

/** @shape (what to serve with) -> the same for Node */
export const contextOf = ({ cert, clientCa, key, tls }: Material): SecureContextOptions => {
  const { groups, minTlsVersion } = tls
  const ciphers = tls.ciphers.length === 0 ? DEFAULT_TLS.ciphers : tls.ciphers
  const isOld = minTlsVersion === "VersionTLS10" || minTlsVersion === "VersionTLS11"
  const known = groups.flatMap((group) => GROUPS.get(group) ?? [])
  return {
    cert,
    key,
    // Without a list Node would believe every public CA.
    ca: clientCa === undefined ? [] : [clientCa],
    minVersion: VERSIONS[minTlsVersion],
    maxVersion: "TLSv1.3",
    // OpenSSL has the old versions only at its lowest level of security.
    ciphers: `${ciphers.join(":")}${isOld ? ":@SECLEVEL=0" : ""}`,
    honorCipherOrder: true,
    ...(known.length === 0 ? {} : { ecdhCurve: known.join(":") })
  }
}

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : "unknown error")

interface Pair {
  readonly cert: string
  readonly key: string
}

/** Undefined while one of the two is missing or cannot be read. */
const readPair = ({ certFile, keyFile }: Options["certificate"]): Effect.Effect<Pair | undefined> =>
  Effect.promise(async () => {
    try {
      return { cert: await readFile(certFile, "utf8"), key: await readFile(keyFile, "utf8") }
    } catch {
      return undefined
    }
  })

const hashOf = ({ cert, key }: Pair): string => hash("sha256", JSON.stringify([cert, key]))

const makeOwn = Effect.flatMap(Clock.currentTimeMillis, (now) =>
  Effect.promise(async () => (await import("./SelfSigned.ts")).make(now))
)

// ---- requests

const json = (body: unknown): Answer => ({
  status: 200,
  contentType: "application/json",
  body: `${JSON.stringify(body, undefined, 2)}\n`
})

/** The body, unless it is longer than anything that is wanted here. */
const bodyOf = (request: IncomingMessage): Effect.Effect<string | undefined> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let length = 0
    request.on("data", (chunk: Buffer) => {
      length += chunk.length
      if (length <= BODY_BYTES_MAX) chunks.push(chunk)
    })
    request.on("end", () =>
      resume(Effect.succeed(length > BODY_BYTES_MAX ? undefined : Buffer.concat(chunks).toString()))
    )
    request.on("error", () => resume(Effect.interrupt))
  })

const verbosityRoute = (level: LogLevel["Service"]): { readonly GET: Handler; readonly PUT: Handler } => ({
  GET: () => Effect.map(level.current, (verbosity) => text(200, `${verbosity}\n`)),
  PUT: Effect.fnUntraced(function* (_query, request) {
    const body = yield* bodyOf(request)
    if (body === undefined) return text(413, "the body is too long\n")
    const verbosity = body.trim()
    if (!/^\d{1,6}$/u.test(verbosity)) {
      return text(400, "the body has to be a verbosity: a whole number that is not negative\n")
    }
    yield* level.set(Number(verbosity))
    yield* Effect.logInfo("verbosity set", { verbosity: Number(verbosity) })
    return text(200, `successfully set klog.logging.verbosity to ${verbosity}\n`)
  })
})

const refusal = (access: Exclude<Access, { readonly _tag: "Allowed" }>, { path, verb }: Asked): Answer => {
  if (access._tag === "Unauthorized") return text(401, "Unauthorized\n")
  if (access._tag === "Failed") return text(500, "it could not be found out whether this is allowed\n")
  return text(403, `forbidden: User ${JSON.stringify(access.user)} cannot ${verb} path ${JSON.stringify(path)}\n`)
}

/** Health is for everybody; of everything else, not even the existence of a permission is told without asking. */
const makeAnswer = (
  { access, checks, version }: Options,
  level: LogLevel["Service"],
  certificateOf: (request: IncomingMessage) => Client["certificate"]
): ((request: IncomingMessage) => Effect.Effect<Answer>) => {
  const health: Routes = new Map([
    ["/healthz", () => checked(checks.live)],
    ["/livez", () => checked(checks.live)],
    ["/readyz", () => checked(checks.ready)]
  ])
  const guarded: Routes = new Map<string, Routes extends ReadonlyMap<string, infer A> ? A : never>([
    ["/", () => Effect.succeed(json({ paths: [...guarded.keys(), ...health.keys()].sort() }))],
    ["/metrics", () => metricsPage({ targetInfo: false })],
    ["/version", () => Effect.succeed(json(version))],
    ["/debug/flags/v", verbosityRoute(level)],
    ...profileRoutes()
  ])
  return Effect.fnUntraced(function* (request) {
    const [path = ""] = (request.url ?? "/").split("?")
    const isWanted = request.method === "PUT" && guarded.has(path)
    if (!isWanted) request.resume()
    if (!guarded.has(path)) return yield* answerOf(health, request)
    const asked = { verb: (request.method ?? "").toLowerCase(), path }
    const { authorization } = request.headers
    const verdict = yield* access({ certificate: certificateOf(request), authorization }, asked)
    if (verdict._tag === "Allowed") return yield* answerOf(guarded, request)
    request.resume()
    return refusal(verdict, asked)
  })
}

// ---- the server

/**
 * Serves until the scope closes.
 *
 * @shape  (options) -> the port
 * @units  files are looked at every 5 s, the CA of client certificates every minute
 * @errors EndpointFailed when the address is wrong or taken; everything that can be corrected later is logged
 * @source reference/operator.md 1.5
 */
export const serve = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<number, EndpointFailed, KubernetesApi | LogLevel | Scope.Scope> {
  const level = yield* LogLevel
  const run = Effect.runForkWith(yield* Effect.context<never>())

  const [found, clientCaAtStart] = yield* Effect.all([readPair(options.certificate), Effect.result(readClientCa)])
  const first = found ?? (yield* makeOwn)
  let material: Material = {
    cert: first.cert,
    key: first.key,
    tls: options.tls.initial,
    clientCa: Result.getOrUndefined(clientCaAtStart)
  }
  /** Changes with every security context, so that a connection can be told to be of an older one. */
  let generation = 0
  /** By the client's address and port. The context is chosen as the connection comes in, not when it is secure. */
  const connections = new Map<string, { readonly generation: number; readonly clientCa: string | undefined }>()
  const addressOf = ({ remoteAddress = "", remotePort = 0 }: Socket): string => `${remoteAddress} ${remotePort}`

  const certificateOf = ({ socket }: IncomingMessage): Client["certificate"] => {
    if (!(socket instanceof TLSSocket) || !socket.authorized || material.clientCa === undefined) return undefined
    // Whom an older CA vouched for, nobody vouches for now.
    if (connections.get(addressOf(socket))?.clientCa !== material.clientCa) return undefined
    const { subject } = socket.getPeerCertificate()
    return { CN: subject.CN, O: subject.O }
  }

  /** Takes up all of it, or leaves everything as it is. */
  const install = (server: Server, next: Partial<Material>): Result.Result<void, string> => {
    const wanted = { ...material, ...next }
    try {
      server.setSecureContext(contextOf(wanted))
    } catch (cause) {
      return Result.fail(reasonOf(cause))
    }
    material = wanted
    generation++
    server.closeIdleConnections()
    return Result.succeed(undefined)
  }

  const listener = listenerOf(run, makeAnswer(options, level, certificateOf))
  let notInstalled: string | undefined
  const create = (): Server => {
    const server = createServer(
      {
        ...SERVER_OPTIONS,
        handshakeTimeout: HANDSHAKE_TIMEOUT_MILLIS,
        requestCert: true,
        // Whoever shows a certificate that is not known is anonymous, and not turned away.
        rejectUnauthorized: false,
        ALPNProtocols: ["http/1.1"]
      },
      (request, response) => {
        if (connections.get(addressOf(request.socket))?.generation !== generation) response.shouldKeepAlive = false
        listener(request, response)
      }
    )
    server.on("connection", (socket: Socket) => {
      const address = addressOf(socket)
      const connection = { generation, clientCa: material.clientCa }
      connections.set(address, connection)
      socket.once("close", () => {
        if (connections.get(address) === connection) connections.delete(address)
      })
    })
    const installed = install(server, {})
    if (Result.isFailure(installed)) notInstalled = installed.failure
    return server
  }
  const { port, server } = yield* open(options.listen, create)

  let isOwn = found === undefined
  /** Of the files that were taken up, or refused, last. */
  let seen = found === undefined ? undefined : hashOf(found)
  let untilMillis = "untilMillis" in first && typeof first.untilMillis === "number" ? first.untilMillis : 0

  const useOwn = Effect.gen(function* () {
    const own = yield* makeOwn
    const installed = install(server, { cert: own.cert, key: own.key })
    if (Result.isFailure(installed)) return
    untilMillis = own.untilMillis
    isOwn = true
  })
  const sayOwn = Effect.logWarning("serving with an insecure, self-signed certificate", {
    certFile: options.certificate.certFile,
    [LogKeys.remedy]: "mount a serving certificate; it is taken up without a restart"
  })

  const lookAtCertificate = Effect.gen(function* () {
    const pair = yield* readPair(options.certificate)
    if (pair === undefined) {
      if (isOwn && (yield* Clock.currentTimeMillis) >= untilMillis - RENEW_MILLIS) yield* useOwn
      return
    }
    const hashed = hashOf(pair)
    if (hashed === seen) return
    seen = hashed
    const installed = install(server, pair)
    if (Result.isFailure(installed)) {
      return yield* Effect.logError("the serving certificate cannot be used, the one before stays in use", {
        certFile: options.certificate.certFile,
        [LogKeys.error]: installed.failure
      })
    }
    isOwn = false
    yield* Effect.logInfo("serving certificate taken up", {
      certFile: options.certificate.certFile,
      notAfter: Result.getOrElse(
        Result.try(() => new X509Certificate(pair.cert).validTo),
        () => ""
      )
    })
  })

  let isClientCaUnread = false
  const lookAtClientCa = Effect.gen(function* () {
    const clientCa = yield* readClientCa
    isClientCaUnread = false
    if (clientCa === material.clientCa) return
    const installed = install(server, { clientCa })
    yield* Result.isFailure(installed)
      ? Effect.logError("the CA of client certificates cannot be used", { [LogKeys.error]: installed.failure })
      : Effect.logInfo("CA of client certificates taken up", { present: clientCa !== undefined })
  }).pipe(
    Effect.catch((failure) => {
      if (isClientCaUnread) return Effect.void
      isClientCaUnread = true
      const isKept = material.clientCa !== undefined
      return Effect.logWarning("the CA of client certificates cannot be read, trying again every minute", {
        meanwhile: isKept ? "the last one stays in use" : "client certificates are not looked at",
        [LogKeys.error]: failure.message,
        [LogKeys.remedy]: failure.remedy
      })
    })
  )

  const takeUp = Effect.fnUntraced(function* (tls: TlsSettings) {
    if (JSON.stringify(tls) === JSON.stringify(material.tls)) return
    const installed = install(server, { tls })
    yield* Result.isFailure(installed)
      ? Effect.logError("the TLS settings cannot be used, those before stay in force", {
          [LogKeys.error]: installed.failure
        })
      : Effect.logInfo("TLS settings taken up", { minTlsVersion: tls.minTlsVersion, ciphers: tls.ciphers })
  })

  if (notInstalled !== undefined) {
    // Either the files or the settings; with both of our own there is always something to serve with.
    const why = { [LogKeys.error]: notInstalled }
    if (found !== undefined) yield* useOwn
    if (generation === 0 && Result.isSuccess(install(server, { tls: DEFAULT_TLS }))) {
      yield* Effect.logError("the TLS settings cannot be used, serving with the default ones", why)
    } else yield* Effect.logError("the serving certificate cannot be used", why)
  }
  if (isOwn) yield* sayOwn
  yield* Effect.forkScoped(Effect.repeat(lookAtCertificate, certificateCheck))
  yield* Effect.forkScoped(Effect.repeat(lookAtClientCa, clientCaCheck))
  yield* Effect.forkScoped(Stream.runForEach(options.tls.changes, takeUp))
  yield* Effect.logInfo("serving securely", { address: options.listen, port })
  return port
})
