import { X509Certificate } from "node:crypto"
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { request } from "node:https"
import { connect as connectPlain } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type ConnectionOptions, connect, createSecureContext, type TLSSocket } from "node:tls"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Logger, Metric, PubSub, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { HealthChecks } from "../../layers/real/HttpRoutes.ts"
import { contextOf, type Options, serve } from "../../layers/real/SecureHttp.ts"
import * as SelfSigned from "../../layers/real/SelfSigned.ts"
import { readClientCa } from "../../src/operator/ClientCa.ts"
import * as MetricsAccess from "../../src/operator/MetricsAccess.ts"
import { DEFAULT_TLS, resolveTlsProfile, servingTls, type TlsSettings } from "../../src/operator/TlsProfile.ts"
import { LogLevel } from "../../src/ports/LogLevel.ts"
import { hasOpenssl, makeWorkshop, needsOpenssl } from "../support/OpenSsl.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

const CLIENT_CA = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
const PROMETHEUS = "system:serviceaccount:openshift-monitoring:prometheus-k8s"

// ---- a server, and everything around it

interface World {
  readonly port: number
  readonly api: ScriptedApi
  readonly directory: string
  readonly logged: ReadonlyArray<string>
  readonly change: (tls: TlsSettings) => Effect.Effect<void>
  readonly verbosity: () => number
  /** Lets a period of the watchers pass. */
  readonly pass: (seconds: number) => Effect.Effect<void>
}

/** Certificates and sockets take real time. */
const rest = TestClock.withLive(Effect.sleep("120 millis"))

/** Looks again and again, for as long as a slow machine may take. */
const eventually = (look: Effect.Effect<boolean, Error>) =>
  Effect.gen(function* () {
    for (let attempt = 0; attempt < 100; attempt++) {
      if (yield* look) return
      yield* rest
    }
    assert.fail("it has not come to pass")
  })

/** The TLS library judges certificates by the machine's clock. */
const NOW = Effect.runSync(Clock.currentTimeMillis)

/** Making one takes a tenth of a second. */
const issued = SelfSigned.make(NOW)

interface Given {
  readonly tls?: TlsSettings
  readonly checks?: HealthChecks
  readonly pair?: "absent" | { readonly cert: string; readonly key: string }
  readonly clientCa?: () => unknown
  readonly access?: Partial<MetricsAccess.Options>
}

const place = (directory: string, { cert, key }: { readonly cert: string; readonly key: string }) => {
  for (const [name, content] of [
    ["tls.crt", cert],
    ["tls.key", key]
  ] as const) {
    writeFileSync(join(directory, `.${name}`), content)
    renameSync(join(directory, `.${name}`), join(directory, name))
  }
}

/** Who the token "good" is, and who may do what. */
const respond =
  (clientCa: () => unknown): ScriptedApi["respond"] =>
  ({ body, path }) => {
    if (path === CLIENT_CA) {
      const found = clientCa()
      return found === undefined ? Effect.fail(failed(404, "NotFound")) : Effect.succeed(found)
    }
    const spec: unknown = JSON.parse(JSON.stringify(body)).spec
    const asked = JSON.stringify(spec)
    if (path.endsWith("/tokenreviews")) {
      const username = asked.includes("prometheus") ? PROMETHEUS : asked.includes("reader") ? "reader" : undefined
      return Effect.succeed(username === undefined ? {} : { status: { authenticated: true, user: { username } } })
    }
    if (asked.includes("broken")) return Effect.fail(failed(500, "InternalError"))
    return Effect.succeed({ status: { allowed: asked.includes('"user":"reader"') } })
  }

const run = <A, E>(given: Given, program: (world: World) => Effect.Effect<A, E>) =>
  Effect.suspend(() => {
    const directory = mkdtempSync(join(tmpdir(), "secure-"))
    const logged: Array<string> = []
    const api = new ScriptedApi(respond(given.clientCa ?? (() => undefined)))
    let verbosity = 2
    const level = Layer.succeed(
      LogLevel,
      LogLevel.of({
        current: Effect.sync(() => verbosity),
        set: (next) =>
          Effect.sync(() => {
            verbosity = next
          })
      })
    )
    const logger = Logger.layer([
      Logger.make(({ logLevel, message }) => logged.push(`${logLevel} ${[message].flat()[0]}`))
    ])
    return Effect.gen(function* () {
      if (given.pair !== "absent") place(directory, given.pair ?? (yield* Effect.promise(() => issued)))
      const changes = yield* PubSub.unbounded<TlsSettings>()
      const options: Options = {
        listen: "127.0.0.1:0",
        certificate: { certFile: join(directory, "tls.crt"), keyFile: join(directory, "tls.key") },
        tls: { initial: given.tls ?? DEFAULT_TLS, changes: Stream.fromPubSub(changes) },
        checks: given.checks ?? { live: Effect.void, ready: Effect.void },
        access: yield* MetricsAccess.make({
          metricsUser: PROMETHEUS,
          authenticationDisabled: false,
          authorizationDisabled: false,
          hash: (token) => token,
          ...given.access
        }),
        version: { gitVersion: "v1" }
      }
      const now = yield* Clock.currentTimeMillis
      yield* TestClock.setTime(Math.max(now, NOW))
      const port = yield* serve(options)
      return yield* program({
        port,
        api,
        directory,
        logged,
        change: (tls) => Effect.andThen(rest, PubSub.publish(changes, tls)).pipe(Effect.andThen(rest)),
        verbosity: () => verbosity,
        pass: (seconds) => Effect.andThen(rest, TestClock.adjust(`${seconds} seconds`)).pipe(Effect.andThen(rest))
      })
    }).pipe(
      Effect.scoped,
      Effect.provide(Layer.mergeAll(api.layer, level, logger)),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.ensuring(Effect.sync(() => rmSync(directory, { recursive: true, force: true })))
    )
  })

// ---- a client

interface Reply {
  readonly status: number | undefined
  readonly body: string
  readonly headers: Readonly<Record<string, unknown>>
}

interface Call {
  readonly method?: string
  readonly token?: string
  readonly body?: string
  readonly tls?: ConnectionOptions
}

const ask = (port: number, path: string, { body, method = "GET", tls = {}, token }: Call = {}) =>
  Effect.callback<Reply, Error>((resume) => {
    const call = request(
      {
        host: "127.0.0.1",
        port,
        path,
        method,
        agent: false,
        servername: "localhost",
        rejectUnauthorized: false,
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        ...tls
      },
      (response) => {
        let text = ""
        response.setEncoding("utf8")
        response.on("data", (chunk) => {
          text += chunk
        })
        response.on("end", () =>
          resume(Effect.succeed({ status: response.statusCode, body: text, headers: response.headers }))
        )
      }
    )
    call.on("error", (error) => resume(Effect.fail(error)))
    call.end(body)
    return Effect.sync(() => call.destroy())
  })

const handshake = (port: number, options: ConnectionOptions = {}) =>
  Effect.callback<TLSSocket, Error>((resume) => {
    const socket = connect(
      { host: "127.0.0.1", port, servername: "localhost", rejectUnauthorized: false, ...options },
      () => resume(Effect.succeed(socket))
    )
    socket.on("error", (error) => resume(Effect.fail(error)))
    return Effect.sync(() => socket.destroy())
  })

/** "TLSv1.3 TLS_AES_128_GCM_SHA256", or "refused". */
const negotiated = (port: number, options: ConnectionOptions = {}) =>
  handshake(port, options).pipe(
    Effect.map((socket) => {
      const line = `${socket.getProtocol()} ${socket.getCipher().standardName}`
      socket.destroy()
      return line
    }),
    Effect.orElseSucceed(() => "refused")
  )

const subjectOf = (port: number) =>
  Effect.map(handshake(port), (socket) => {
    const { issuer, subject } = socket.getPeerCertificate()
    socket.destroy()
    return { subject: subject.CN, issuer: issuer.CN }
  })

const TLS12: ConnectionOptions = { minVersion: "TLSv1.2", maxVersion: "TLSv1.2" }
const OLD: ConnectionOptions = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT:@SECLEVEL=0" }

const profile = (type: string) =>
  servingTls(
    resolveTlsProfile({
      metadata: {},
      spec: { tlsSecurityProfile: { type }, tlsAdherence: "StrictAllComponents" }
    }).pipe((it) => (it._tag === "Success" ? it.success : undefined)),
    DEFAULT_TLS
  )

const own = (millis = NOW) => Effect.promise(() => SelfSigned.make(millis))

// ---- what is promised

/** Texts of the kind in DER, which is tag, length and the characters; those of a name are short. */
const textsOf = (der: Buffer, tag: number): ReadonlyArray<string> =>
  [...der.keys()].flatMap((at) => {
    const [kind, length = 0] = der.subarray(at, at + 2)
    const text = der.subarray(at + 2, at + 2 + length).toString("latin1")
    return kind === tag && length > 3 && text.length === length && /^[\x20-\x7e]+$/u.test(text) ? [text] : []
  })
const PRINTABLE_STRING = 0x13
const UTF8_STRING = 0x0c

describe("a certificate of our own", () => {
  it.effect("is one that Go reads too: nothing in a PrintableString that may not be there", () =>
    Effect.gen(function* () {
      const { cert } = yield* own()
      const all = cert.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/gu) ?? []
      assert.lengthOf(all, 2)
      for (const der of all.map((pem) => new X509Certificate(pem).raw)) {
        for (const text of textsOf(der, PRINTABLE_STRING)) assert.match(text, /^[A-Za-z0-9 '()+,./:=?-]+$/u)
        assert.isTrue(textsOf(der, UTF8_STRING).some((text) => text.includes("-signer@")))
      }
    })
  )
})

describe("TLS", () => {
  it.effect("1.5 defaults: TLS 1.2 with the first of its suites that fits, 1.3, and nothing older; no HTTP/2", () =>
    run({}, ({ port }) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* negotiated(port, TLS12), "TLSv1.2 TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")
        assert.match(yield* negotiated(port), /^TLSv1\.3 /u)
        assert.strictEqual(yield* negotiated(port, OLD), "refused")
        assert.strictEqual(yield* negotiated(port, { ...TLS12, ciphers: "AES128-SHA256" }), "refused")
        const socket = yield* handshake(port, { ALPNProtocols: ["h2", "http/1.1"] })
        assert.strictEqual(socket.alpnProtocol, "http/1.1")
        socket.destroy()
      })
    )
  )

  it.effect("1.3 3.8 Q21 a profile is taken up while it serves, stricter or weaker, and the port stays open", () =>
    run({ tls: profile("Intermediate") }, ({ change, logged, port }) =>
      Effect.gen(function* () {
        assert.match(yield* negotiated(port, TLS12), /^TLSv1\.2 /u)
        yield* change(profile("Modern"))
        assert.strictEqual(yield* negotiated(port, TLS12), "refused")
        assert.match(yield* negotiated(port), /^TLSv1\.3 /u)
        assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
        yield* change(profile("Old"))
        assert.match(yield* negotiated(port, OLD), /^TLSv1\.1 /u)
        assert.match(yield* negotiated(port, { ...TLS12, ciphers: "AES128-SHA256" }), /_AES_128_CBC_SHA256$/u)
        const taken = logged.filter((line) => line === "Info TLS settings taken up").length
        yield* change(profile("Old"))
        assert.strictEqual(logged.filter((line) => line === "Info TLS settings taken up").length, taken)
      })
    )
  )

  it.effect("1.3 settings that the TLS library refuses leave the last good ones in force", () =>
    run({}, ({ change, logged, port }) =>
      Effect.gen(function* () {
        yield* change({ minTlsVersion: "VersionTLS12", ciphers: ["NO-SUCH-CIPHER"], groups: [] })
        assert.include(logged, "Error the TLS settings cannot be used, those before stay in force")
        assert.match(yield* negotiated(port, TLS12), /CHACHA20/u)
      })
    )
  )

  it.effect("1.3 settings that are refused at the start give way to the default ones", () =>
    run({ tls: { minTlsVersion: "VersionTLS12", ciphers: ["NO-SUCH-CIPHER"], groups: [] } }, ({ logged, port }) =>
      Effect.gen(function* () {
        assert.include(logged, "Error the TLS settings cannot be used, serving with the default ones")
        assert.match(yield* negotiated(port, TLS12), /CHACHA20/u)
      })
    )
  )

  it.effect("3.8 a connection that is kept ends after its next answer, and is not resumed under older settings", () =>
    run({ tls: profile("Intermediate") }, ({ change, port }) =>
      Effect.gen(function* () {
        const socket = yield* handshake(port, TLS12)
        let text = ""
        socket.on("data", (chunk) => {
          text += String(chunk)
        })
        // Begun, so that it is not idle.
        socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\n")
        yield* rest
        yield* change(profile("Modern"))
        yield* Effect.callback<void>((resume) => {
          socket.on("close", () => resume(Effect.void))
          socket.write("\r\n")
        })
        assert.match(text, /^HTTP\/1\.1 200 OK/u)
        assert.match(text, /^Connection: close\r$/mu)
        assert.strictEqual(yield* negotiated(port, { ...TLS12, session: socket.getSession() }), "refused")
      })
    )
  )

  it.effect("1.3 every group of the profiles is known to the TLS library", () =>
    Effect.gen(function* () {
      const { cert, key } = yield* own()
      for (const type of ["Old", "Intermediate", "Modern"]) {
        const context = contextOf({ cert, key, clientCa: undefined, tls: profile(type) })
        assert.strictEqual(context.ecdhCurve, "X25519MLKEM768:X25519:P-256:P-384")
        // Absent, it would mean every public CA.
        assert.deepStrictEqual(context.ca, [])
        createSecureContext(context)
      }
      const unknown = { ...DEFAULT_TLS, groups: ["made-up"] }
      assert.isUndefined(contextOf({ cert, key, clientCa: undefined, tls: unknown }).ecdhCurve)
    })
  )
})

describe("the serving certificate", () => {
  it.effect("1.5 Q31 none: one of our own for localhost, said so; the real one is taken up when it appears", () =>
    run({ pair: "absent" }, ({ directory, logged, pass, port }) =>
      Effect.gen(function* () {
        const first = yield* subjectOf(port)
        assert.strictEqual(first.subject, "localhost")
        assert.match(String(first.issuer), /^secrets-store-csi-driver-operator-signer@\d{10}$/u)
        assert.include(logged, "Warn serving with an insecure, self-signed certificate")
        const real = yield* own(NOW - 3_600_000)
        writeFileSync(join(directory, "tls.crt"), real.cert)
        yield* pass(5)
        assert.deepStrictEqual(yield* subjectOf(port), first)
        place(directory, real)
        yield* pass(5)
        assert.notDeepEqual(yield* subjectOf(port), first)
        assert.include(logged, "Info serving certificate taken up")
      })
    )
  )

  it.effect("1.5 Q21 a rotated certificate is taken up within five seconds, a broken one is not", () =>
    Effect.gen(function* () {
      const [one, two] = [yield* own(NOW - 1_000_000), yield* own(NOW - 2_000_000)]
      yield* run({ pair: one }, ({ directory, logged, pass, port }) =>
        Effect.gen(function* () {
          const before = yield* subjectOf(port)
          place(directory, { cert: two.cert, key: one.key })
          yield* pass(5)
          assert.deepStrictEqual(yield* subjectOf(port), before)
          yield* pass(20)
          const errors = logged.filter((line) => line.startsWith("Error"))
          assert.deepStrictEqual(errors, ["Error the serving certificate cannot be used, the one before stays in use"])
          place(directory, two)
          yield* pass(5)
          assert.notDeepEqual(yield* subjectOf(port), before)
          rmSync(join(directory, "tls.key"))
          yield* pass(60)
          assert.notDeepEqual(yield* subjectOf(port), before)
        })
      )
    })
  )

  it.effect("1.5 a certificate that is broken at the start is answered with one of our own", () =>
    run({ pair: { cert: "x", key: "y" } }, ({ logged, port }) =>
      Effect.gen(function* () {
        assert.strictEqual((yield* subjectOf(port)).subject, "localhost")
        assert.include(logged, "Error the serving certificate cannot be used")
      })
    )
  )

  it.effect("1.5 our own is renewed ten days before it ends", () =>
    run({ pair: "absent" }, ({ pass, port }) =>
      Effect.gen(function* () {
        const before = yield* subjectOf(port)
        yield* pass(5)
        assert.deepStrictEqual(yield* subjectOf(port), before)
        yield* TestClock.setTime(NOW + 20 * 86_400_000 + 60_000)
        yield* pass(5)
        yield* eventually(Effect.map(subjectOf(port), ({ issuer }) => issuer !== before.issuer))
      })
    )
  )

  it.effect("1.5 our own is accepted by whoever knows its CA, for 30 days", () =>
    Effect.gen(function* () {
      const { cert, key, untilMillis } = yield* own()
      assert.strictEqual(untilMillis - NOW, 30 * 86_400_000)
      const ca = cert.slice(cert.lastIndexOf("-----BEGIN"))
      yield* run({ pair: { cert, key } }, ({ port }) =>
        Effect.gen(function* () {
          assert.match(yield* negotiated(port, { ca, rejectUnauthorized: true }), /^TLSv1\.3/u)
        })
      )
    })
  )
})

describe("who may ask what", () => {
  it.effect.each<{ readonly path: string; readonly call?: Call; readonly status: number; readonly says?: RegExp }>([
    { path: "/healthz", status: 200, says: /^ok$/u },
    { path: "/livez", status: 200 },
    { path: "/readyz?verbose", status: 200 },
    { path: "/readyz", call: { method: "HEAD" }, status: 200 },
    { path: "/readyz", call: { method: "POST", body: "x" }, status: 405 },
    { path: "/nothing", status: 404 },
    { path: "/metrics", status: 403, says: /^forbidden: User "system:anonymous" cannot get path "\/metrics"$/mu },
    { path: "/metrics", call: { token: "unknown" }, status: 401 },
    { path: "/metrics", call: { token: "prometheus" }, status: 200 },
    { path: "/metrics?x=y", call: { token: "prometheus" }, status: 200 },
    { path: "/metrics", call: { token: "prometheus", method: "POST" }, status: 403 },
    { path: "/version", call: { token: "prometheus" }, status: 403 },
    { path: "/version", call: { token: "reader" }, status: 200, says: /"gitVersion": "v1"/u },
    { path: "/", call: { token: "reader" }, status: 200, says: /"\/metrics"/u },
    { path: "/", status: 403 },
    { path: "/debug/pprof/", status: 403 },
    { path: "/debug/pprof/", call: { token: "reader" }, status: 200 },
    { path: "/debug/pprof/cmdline", status: 403 },
    { path: "/debug/flags/v", call: { method: "PUT", body: "9" }, status: 403 },
    { path: "/debug/flags/v", call: { method: "PUT", body: "9", token: "unknown" }, status: 401 }
  ])("1.5 $call.method $path of $call.token: $status", ({ call = {}, path, says = /^/u, status }) =>
    run({}, ({ port, verbosity }) =>
      Effect.gen(function* () {
        const reply = yield* ask(port, path, call)
        assert.strictEqual(reply.status, status)
        assert.match(reply.body, says)
        assert.strictEqual(verbosity(), 2)
      })
    )
  )

  it.effect("1.5 the verbosity is read and set by whoever may", () =>
    run({}, ({ port, verbosity }) =>
      Effect.gen(function* () {
        const call = { method: "PUT", token: "reader" }
        const set = yield* ask(port, "/debug/flags/v", { ...call, body: "6\n" })
        assert.deepStrictEqual([set.status, set.body], [200, "successfully set klog.logging.verbosity to 6\n"])
        assert.strictEqual(verbosity(), 6)
        assert.strictEqual((yield* ask(port, "/debug/flags/v", { token: "reader" })).body, "6\n")
        assert.strictEqual((yield* ask(port, "/debug/flags/v", { ...call, body: "-1" })).status, 400)
        assert.strictEqual((yield* ask(port, "/debug/flags/v", { ...call, body: "" })).status, 400)
        assert.strictEqual((yield* ask(port, "/debug/flags/v", { ...call, body: "1".repeat(2_000) })).status, 413)
        assert.strictEqual(verbosity(), 6)
        const wrong = yield* ask(port, "/debug/flags/v", { token: "reader", method: "POST" })
        assert.deepStrictEqual([wrong.status, wrong.headers["allow"]], [405, "GET, HEAD, PUT"])
      })
    )
  )

  it.effect("1.5 1.4 a permission that cannot be found out is none; with authorization off everybody has it", () =>
    Effect.gen(function* () {
      yield* run({ access: { metricsUser: "other" } }, ({ api, port }) =>
        Effect.gen(function* () {
          api.respond = () => Effect.fail(failed(403, "Forbidden"))
          assert.strictEqual((yield* ask(port, "/metrics")).status, 500)
          assert.strictEqual((yield* ask(port, "/metrics", { token: "prometheus" })).status, 401)
          assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
        })
      )
      yield* run({ access: { authorizationDisabled: true } }, ({ port }) =>
        Effect.gen(function* () {
          assert.strictEqual((yield* ask(port, "/metrics")).status, 200)
        })
      )
    })
  )

  it.effect("1.5 readiness is what the operator says of itself", () =>
    run({ checks: { live: Effect.void, ready: Effect.fail({ message: "shutting down" }) } }, ({ port }) =>
      Effect.gen(function* () {
        const { body, status } = yield* ask(port, "/readyz")
        assert.deepStrictEqual([status, body], [500, "shutting down"])
        assert.strictEqual((yield* ask(port, "/livez")).status, 200)
      })
    )
  )

  it.effect("1.5 bytes that are no TLS are hung up on", () =>
    run({}, ({ port }) =>
      Effect.gen(function* () {
        yield* Effect.callback<void>((resume) => {
          const socket = connectPlain(port, "127.0.0.1", () => socket.write("GET /healthz HTTP/1.1\r\n\r\n"))
          socket.resume()
          socket.on("error", () => {})
          socket.on("close", () => resume(Effect.void))
        })
        assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
      })
    )
  )
})

describe.skipIf(!hasOpenssl)(`client certificates${needsOpenssl}`, () => {
  /** Two CAs, and an administrator of each. */
  const authorities = Effect.acquireRelease(
    Effect.sync(() => {
      const workshop = makeWorkshop()
      for (const ca of ["one", "two"]) {
        workshop.openssl(
          `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ${ca}.key -out ${ca}.crt -subj /CN=${ca} -days 2`
        )
        workshop.openssl(
          `req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ${ca}-admin.key -out ${ca}.csr -subj /O=system:masters/CN=admin`
        )
        workshop.write("ext", "extendedKeyUsage=clientAuth\n")
        workshop.openssl(
          `x509 -req -in ${ca}.csr -CA ${ca}.crt -CAkey ${ca}.key -CAcreateserial -days 2 -extfile ext -out ${ca}-admin.crt`
        )
        workshop.write("ext", "extendedKeyUsage=serverAuth\n")
        workshop.openssl(
          `x509 -req -in ${ca}.csr -CA ${ca}.crt -CAkey ${ca}.key -CAcreateserial -days 2 -extfile ext -out ${ca}-server.crt`
        )
      }
      return workshop
    }),
    (workshop) => Effect.sync(() => workshop.remove())
  )

  it.effect("1.5 are believed when the cluster's CA signed them, and only then; the CA may change or go", () =>
    Effect.gen(function* () {
      const workshop = yield* authorities
      const of = (ca: string, kind = "admin") => ({
        tls: { cert: workshop.text(`${ca}-${kind}.crt`), key: workshop.text(`${ca}-admin.key`) }
      })
      let clientCa: unknown
      const config = (ca: string) => ({ data: { "client-ca-file": workshop.text(`${ca}.crt`) } })
      yield* run({ clientCa: () => clientCa }, ({ api, logged, pass, port }) =>
        Effect.gen(function* () {
          const statuses = Effect.gen(function* () {
            return [
              (yield* ask(port, "/metrics", of("one"))).status,
              (yield* ask(port, "/metrics", of("two"))).status,
              (yield* ask(port, "/metrics")).status
            ]
          })
          assert.deepStrictEqual(yield* statuses, [403, 403, 403])
          clientCa = config("one")
          yield* pass(60)
          assert.deepStrictEqual(yield* statuses, [200, 403, 403])
          // A certificate of a server says nothing about a client.
          assert.strictEqual((yield* ask(port, "/metrics", of("one", "server"))).status, 403)
          clientCa = config("two")
          yield* pass(60)
          assert.deepStrictEqual(yield* statuses, [403, 200, 403])

          const before = api.respond
          api.respond = (asked, index) =>
            asked.path === CLIENT_CA ? Effect.fail(failed(503, "ServiceUnavailable")) : before(asked, index)
          yield* pass(180)
          assert.deepStrictEqual(yield* statuses, [403, 200, 403])
          const unread = "Warn the CA of client certificates cannot be read, trying again every minute"
          assert.strictEqual(logged.filter((line) => line === unread).length, 1)
          api.respond = before

          clientCa = undefined
          yield* pass(60)
          assert.deepStrictEqual(yield* statuses, [403, 403, 403])
        })
      )
    })
  )

  it.effect("1.5 a connection that is kept loses what an older CA vouched for", () =>
    Effect.gen(function* () {
      const workshop = yield* authorities
      let ca = "one"
      yield* run({ clientCa: () => ({ data: { "client-ca-file": workshop.text(`${ca}.crt`) } }) }, ({ pass, port }) =>
        Effect.gen(function* () {
          const socket = yield* handshake(port, {
            cert: workshop.text("one-admin.crt"),
            key: workshop.text("one-admin.key")
          })
          let received = ""
          socket.on("data", (chunk) => {
            received += String(chunk)
          })
          // Begun, so that it is not idle.
          socket.write("GET /metrics HTTP/1.1\r\nHost: x\r\n")
          ca = "two"
          yield* pass(60)
          socket.write("\r\n")
          yield* TestClock.withLive(Effect.sleep("100 millis"))
          assert.match(received, /^HTTP\/1\.1 403 /u)
        })
      )
    })
  )

  it.effect.each([
    { name: "no data", answer: {}, expected: undefined },
    { name: "null", answer: { data: null }, expected: undefined },
    { name: "an empty file", answer: { data: { "client-ca-file": "\n" } }, expected: undefined },
    { name: "a file", answer: { data: { "client-ca-file": "pem" } }, expected: "pem" }
  ])("1.5 the ConfigMap: $name", ({ answer, expected }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* readClientCa, expected)
    }).pipe(Effect.provide(ScriptedApi.answering(answer).layer))
  )
})
