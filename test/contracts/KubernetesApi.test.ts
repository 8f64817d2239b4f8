/**
 * The KubernetesApi contract in memory, over HTTP, over HTTPS as in a pod, and on a real API server when there is one;
 * and what only the way over HTTP can show: connections, time limits, broken answers, credentials.
 */
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as later } from "node:timers/promises"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Random, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKubernetes, layer as memory } from "../../layers/fake/MemoryKubernetes.ts"
import { type ServeOptions, serve } from "../../layers/fake/MemoryKubernetesServer.ts"
import { connect } from "../../layers/real/KubernetesConnection.ts"
import { layer as kubernetesHttp, type Options } from "../../layers/real/KubernetesHttp.ts"
import type { KubernetesConfigInvalid } from "../../schemas/errors/KubernetesConfigInvalid.ts"
import { KubernetesApi, type WatchEvent } from "../../src/ports/KubernetesApi.ts"
import { suite } from "./KubernetesApiSuite.ts"

const TOKEN = "token-that-nobody-may-see"
const OTHER_TOKEN = "another-token-that-nobody-may-see"
const PODS = "/api/v1/pods"
const userAgent = "csi-secrets-store/controller/test"

/** A program of the system, not of a package. */
const OPENSSL = "openssl"

const openssl = (...args: ReadonlyArray<string>) => execFileSync(OPENSSL, args, { stdio: ["ignore", "ignore", "pipe"] })

const hasOpenssl = (() => {
  try {
    openssl("version")
    return true
  } catch {
    return false
  }
})()
const needsOpenssl = hasOpenssl ? "" : " (needs openssl)"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "kubernetes-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

interface ConfigParts {
  readonly cluster?: object
  readonly user?: object
  readonly name?: string
}

/** JSON is YAML. */
const writeKubeconfig = (path: string, server: string, { cluster = {}, name = "it", user = {} }: ConfigParts = {}) => {
  const config = {
    apiVersion: "v1",
    kind: "Config",
    "current-context": name,
    clusters: [{ name, cluster: { server, ...cluster } }],
    users: [{ name, user }],
    contexts: [{ name, context: { cluster: name, user: name } }]
  }
  writeFileSync(path, JSON.stringify(config))
  return path
}

/** A certificate authority, and a server's certificate by it. */
const makeCertificates = (path: string) => {
  const at = (name: string) => join(path, name)
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
  openssl("req", "-x509", ...key, "-days", "2", "-subj", "/CN=ca", "-keyout", at("ca.key"), "-out", at("ca.crt"))
  openssl("req", ...key, "-subj", "/CN=kubernetes", "-keyout", at("tls.key"), "-out", at("tls.csr"))
  writeFileSync(at("tls.ext"), "subjectAltName=IP:127.0.0.1")
  openssl(
    ...["x509", "-req", "-in", at("tls.csr"), "-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial"],
    ...["-days", "2", "-extfile", at("tls.ext"), "-out", at("tls.crt")]
  )
  const read = (name: string) => readFileSync(at(name), "utf8")
  return { ca: read("ca.crt"), key: read("tls.key"), cert: read("tls.crt") }
}

/** An API server in memory behind a socket. */
const served = (options: ServeOptions) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Layer.fresh(memory))
    const server = yield* Effect.provideContext(serve(options), context)
    return { ...server, control: Layer.succeed(MemoryKubernetes, Context.get(context, MemoryKubernetes)) }
  })

/** A pod's view: the environment and files of a service account. */
const pod = (port: number, path: string, token: string, ca?: string) => {
  writeFileSync(join(path, "token"), `${token}\n`)
  if (ca !== undefined) writeFileSync(join(path, "ca.crt"), ca)
  return {
    KUBERNETES_SERVICE_HOST: "127.0.0.1",
    KUBERNETES_SERVICE_PORT: String(port),
    SECRETS_STORE_SERVICE_ACCOUNT_DIR: path
  }
}

const overHttp = Layer.unwrap(
  Effect.gen(function* () {
    const { control, url } = yield* served({ bearerToken: TOKEN })
    const kubeconfig = writeKubeconfig(join(yield* directory, "config"), url, { user: { token: TOKEN } })
    return Layer.merge(control, kubernetesHttp({ kubeconfig, userAgent, environment: {} }))
  })
)

const overHttps = Layer.unwrap(
  Effect.gen(function* () {
    const path = yield* directory
    const { ca, cert, key } = makeCertificates(path)
    const { control, port } = yield* served({ bearerToken: TOKEN, tls: { key, cert } })
    const environment = pod(port, path, TOKEN, ca)
    return Layer.merge(control, kubernetesHttp({ kubeconfig: "", userAgent, environment }))
  })
)

suite("in memory", memory, { control: MemoryKubernetes })
suite("over HTTP with a kubeconfig", overHttp, { control: MemoryKubernetes })

describe.skipIf(!hasOpenssl)(`in a pod, over HTTPS${needsOpenssl}`, () => {
  suite("over HTTPS with a service account", overHttps, { control: MemoryKubernetes })
})

const testKubeconfig = process.env["TEST_KUBECONFIG"] ?? ""

describe.skipIf(testKubeconfig === "")(
  testKubeconfig === "" ? "a real API server (needs TEST_KUBECONFIG)" : "a real API server",
  () => {
    suite("real", kubernetesHttp({ kubeconfig: testKubeconfig, userAgent, environment: process.env }), {
      control: "cannot be told to a real API server"
    })
  }
)

describe("MemoryKubernetes", () => {
  const classes = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/default/secretproviderclasses"
  const secrets = "/api/v1/namespaces/default/secrets"
  const pods = "/api/v1/namespaces/default/pods"
  const named = (name: string, more: object = {}) => ({ metadata: { name, ...more } })

  it.effect("counts requests by method and resource, watches apart", () =>
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const control = yield* MemoryKubernetes
      yield* api.request({ method: "POST", path: secrets, body: named("a") })
      yield* Effect.flip(api.request({ method: "GET", path: `${secrets}/b` }))
      yield* api.request({ method: "GET", path: "/api/v1/secrets" })
      yield* api.request({ method: "GET", path: classes })
      yield* api.watch({ path: secrets, query: { resourceVersion: "0" } }, 1_000).pipe(Stream.take(1), Stream.runDrain)
      yield* Effect.flip(api.request({ method: "GET", path: "/nowhere" }))
      const count = (method: "GET" | "POST", resource: string, times: number, watch = false) => ({
        ...{ method, resource, watch },
        count: times
      })
      assert.deepStrictEqual(yield* control.requests, [
        count("GET", "", 1),
        count("GET", "secretproviderclasses.secrets-store.csi.x-k8s.io", 1),
        count("GET", "secrets", 2),
        count("GET", "secrets", 1, true),
        count("POST", "secrets", 1)
      ])
      assert.strictEqual(yield* control.requestCount({ resource: "secrets", watch: false }), 3)
      assert.strictEqual(yield* control.requestCount({}), 6)
      yield* control.resetRequests
      assert.strictEqual(yield* control.requestCount({}), 0)
    }).pipe(Effect.provide(Layer.fresh(memory)))
  )

  it.effect("deletes what only the dead own, and all that hangs on it", () =>
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const control = yield* MemoryKubernetes
      const owner = (kind: string, name: string, uid: unknown) => ({ apiVersion: "v1", kind, name, uid })
      const uidOf = (body: unknown) => (body as { metadata: { uid: string } }).metadata.uid
      const create = (path: string, name: string, ...ownerReferences: ReadonlyArray<object>) =>
        Effect.map(api.request({ method: "POST", path, body: named(name, { ownerReferences }) }), uidOf)
      const [dead, alive] = [yield* create(pods, "dead"), yield* create(pods, "alive")]
      const child = yield* create(secrets, "child", owner("Pod", "dead", dead))
      yield* create(secrets, "grandchild", owner("Secret", "child", child))
      yield* create(secrets, "shared", owner("Pod", "dead", dead), owner("Pod", "alive", alive))
      yield* create(secrets, "stranger", { apiVersion: "example.com/v1", kind: "Thing", name: "x", uid: "y" })
      yield* create(secrets, "impostor", owner("Pod", "alive", dead))
      yield* create(secrets, "free")
      assert.deepStrictEqual(yield* control.collectGarbage, ["secrets default/impostor"])
      yield* api.request({ method: "DELETE", path: `${pods}/dead` })
      assert.deepStrictEqual(yield* control.collectGarbage, ["secrets default/child", "secrets default/grandchild"])
      assert.deepStrictEqual(yield* control.collectGarbage, [])
      const left = yield* control.all("secrets")
      assert.deepStrictEqual<unknown>(
        left.map(({ metadata }) => {
          const { name, ownerReferences = [] } = metadata as { name: string; ownerReferences?: Array<{ name: string }> }
          return [name, ...ownerReferences.map((it) => it.name)]
        }),
        [["free"], ["shared", "alive"], ["stranger", "x"]]
      )
    }).pipe(Effect.provide(Layer.fresh(memory)))
  )

  it.effect("fails a request that was chosen, once, before or after its effect", () =>
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const control = yield* MemoryKubernetes
      const post = { method: "POST", path: secrets, body: named("a") } as const
      const lost = { status: 0, reason: "Timeout", detail: "lost" }
      yield* control.failNext(({ method }) => method === "DELETE", lost, { applied: true })
      yield* control.failNext(({ method, resource }) => method === "POST" && resource === "secrets", lost, {
        applied: false
      })
      const error = yield* Effect.flip(api.request(post))
      assert.deepStrictEqual([error.status, error.reason, error.message], [0, "Timeout", "lost"])
      assert.deepStrictEqual(yield* control.all("secrets"), [])
      yield* api.request(post)
      assert.lengthOf(yield* control.all("secrets"), 1)
      assert.strictEqual(
        (yield* Effect.flip(api.request({ method: "DELETE", path: `${secrets}/a` }))).reason,
        "Timeout"
      )
      assert.deepStrictEqual(yield* control.all("secrets"), [])
    }).pipe(Effect.provide(Layer.fresh(memory)))
  )

  it.effect("answers as slowly as it is told to, half of it before the effect", () =>
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const control = yield* MemoryKubernetes
      yield* control.setLatencyMillis(100)
      const fiber = yield* Effect.forkChild(api.request({ method: "POST", path: secrets, body: named("a") }))
      yield* TestClock.adjust(49)
      assert.lengthOf(yield* control.all("secrets"), 0)
      yield* TestClock.adjust(1)
      assert.lengthOf(yield* control.all("secrets"), 1)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(50)
      assert.isDefined(fiber.pollUnsafe())
    }).pipe(Effect.provide(Layer.fresh(memory)))
  )

  it.effect("what it hands out cannot be changed, and takes nothing from whoever wrote it", () =>
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const body = named("a", { labels: { color: "red" } })
      const made = yield* api.request({ method: "POST", path: secrets, body })
      assert.isTrue(Object.isFrozen(made) && Object.isFrozen((made as typeof body).metadata))
      assert.isFalse(Object.isFrozen(body.metadata))
      assert.deepStrictEqual(body, named("a", { labels: { color: "red" } }))
    }).pipe(Effect.provide(Layer.fresh(memory)))
  )

  it.effect("one seed gives one history", () =>
    Effect.gen(function* () {
      const run = Effect.gen(function* () {
        const api = yield* KubernetesApi
        const control = yield* MemoryKubernetes
        for (const name of ["b", "a"]) {
          yield* api.request({ method: "POST", path: secrets, body: { metadata: { generateName: `${name}-` } } })
        }
        return yield* control.all("secrets")
      }).pipe(Effect.provide(Layer.fresh(memory)))
      const [one, same, other] = [
        yield* Random.withSeed(run, "seed"),
        yield* Random.withSeed(run, "seed"),
        yield* Random.withSeed(run, "other")
      ]
      assert.deepStrictEqual(one, same)
      assert.notDeepEqual(one, other)
    })
  )
})

/** A request of another program: the status, and who owns what came back. */
const exchange = async (url: string, method: string, type: string, body: object) => {
  const headers = { "content-type": type, "user-agent": "program/1.0 (linux)" }
  const response = await fetch(url, { method, headers, body: JSON.stringify(body) })
  const { metadata } = (await response.json()) as { metadata: { managedFields: [{ manager: string }] } }
  return [response.status, metadata.managedFields[0].manager]
}

describe("MemoryKubernetesServer", () => {
  it.live("an object that is made is 201, also by apply, and its owner is the program that asks", () =>
    Effect.gen(function* () {
      const { url } = yield* served({})
      const send = (method: string, path: string, type: string, body: object) =>
        Effect.promise(() => exchange(`${url}${path}`, method, type, body))
      const collection = "/api/v1/namespaces/default/configmaps"
      const object = (name: string) => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data: { a: "1" } })
      const apply = send("PATCH", `${collection}/b?fieldManager=me`, "application/apply-patch+yaml", object("b"))
      assert.deepStrictEqual(yield* send("POST", collection, "application/json", object("a")), [201, "program"])
      assert.deepStrictEqual(yield* send("PUT", `${collection}/a`, "application/json", object("a")), [200, "program"])
      assert.deepStrictEqual(yield* apply, [201, "me"])
      assert.deepStrictEqual(yield* apply, [200, "me"])
    })
  )
})

/** A server that answers as it is told, for as long as the scope is open. */
const answering = (listener: RequestListener) =>
  Effect.gen(function* () {
    let connections = 0
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => createServer(listener)),
      (open) =>
        Effect.callback<void>((resume) => {
          open.close(() => resume(Effect.void))
          open.closeAllConnections()
        })
    )
    server.on("connection", () => connections++)
    const port = yield* Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(typeof address === "object" ? (address?.port ?? 0) : 0))
      })
    })
    return { server, url: `http://127.0.0.1:${port}`, port, connections: () => connections }
  })

const clientWith = (options: Partial<Options>) =>
  Effect.map(Layer.build(kubernetesHttp({ kubeconfig: "", userAgent, environment: {}, ...options })), (context) =>
    Context.get(context, KubernetesApi)
  )

const clientOf = (
  url: string,
  options: Partial<Options> = {},
  parts: ConfigParts = { user: { token: TOKEN } }
): Effect.Effect<KubernetesApi["Service"], KubernetesConfigInvalid, Scope.Scope> =>
  Effect.flatMap(directory, (path) =>
    clientWith({ kubeconfig: writeKubeconfig(join(path, "config"), url, parts), ...options })
  )

const json = (response: ServerResponse, body: unknown, status = 200) => {
  response.writeHead(status, { "content-type": "application/json" })
  response.end(JSON.stringify(body))
}

const get = { method: "GET", path: PODS } as const
const post = { method: "POST", path: PODS, body: { metadata: { name: "x" } } } as const

describe("KubernetesHttp", () => {
  it.live("sends what it is asked to, with the header fields of an API client", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const { url } = yield* answering((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const { accept, authorization, "content-type": type, "user-agent": agent } = request.headers
          const body = Buffer.concat(chunks).toString()
          seen.push([request.method, request.url, accept, authorization, agent, type, body])
          json(response, {})
        })
      })
      const api = yield* clientOf(`${url}/behind/a/proxy/`)
      yield* api.request({
        ...get,
        query: { limit: 5, labelSelector: "a in (b,ü)", continue: undefined, watch: false }
      })
      yield* api.request({
        method: "PATCH",
        path: `${PODS}/x`,
        body: { ä: 1 },
        contentType: "application/merge-patch+json"
      })
      const common = ["application/json", `Bearer ${TOKEN}`, userAgent] as const
      const search = "limit=5&labelSelector=a%20in%20(b%2C%C3%BC)&watch=false"
      assert.deepStrictEqual(seen, [
        ["GET", `/behind/a/proxy${PODS}?${search}`, ...common, undefined, ""],
        ["PATCH", `/behind/a/proxy${PODS}/x`, ...common, "application/merge-patch+json", '{"ä":1}']
      ])
    })
  )

  it.live("a refused connection is Network", () =>
    Effect.gen(function* () {
      const api = yield* clientOf("http://127.0.0.1:1")
      for (const effect of [api.request(get), Stream.runCollect(api.watch({ path: PODS }, 1_000))]) {
        const error = yield* Effect.flip(effect)
        assert.deepStrictEqual([error.status, error.reason, error.isTransient, error.path], [0, "Network", true, PODS])
        assert.include(error.message, "ECONNREFUSED")
      }
    })
  )

  it.live("a slow answer, or one that stops half way, is Timeout, and its connection is cut", () =>
    Effect.gen(function* () {
      const closed: Array<string> = []
      const { url } = yield* answering((request, response) => {
        response.on("close", () => closed.push(request.url ?? ""))
        if (request.url === "/half") response.write('{"a":')
      })
      const api = yield* clientOf(url, { requestTimeoutMillis: 100 })
      for (const effect of [
        api.request({ ...get, path: "/none" }),
        api.request({ ...get, path: "/half" }),
        Stream.runCollect(api.watch({ path: "/watch" }, 5_000))
      ]) {
        const error = yield* Effect.flip(effect)
        assert.deepStrictEqual(
          [error.status, error.reason, error.message, error.isTransient],
          [0, "Timeout", "no answer within 100 ms", true]
        )
      }
      while (closed.length < 3) yield* Effect.sleep(5)
      assert.deepStrictEqual(closed, ["/none", "/half", "/watch?watch=true"])
    })
  )

  it.live("a caller that leaves takes its request along", () =>
    Effect.gen(function* () {
      const arrived = yield* Deferred.make<void>()
      const closed = yield* Deferred.make<void>()
      const { url } = yield* answering((_, response) => {
        Deferred.doneUnsafe(arrived, Effect.void)
        response.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
      })
      const api = yield* clientOf(url)
      const fiber = yield* Effect.forkChild(api.request(get))
      yield* Deferred.await(arrived)
      yield* Fiber.interrupt(fiber)
      yield* Deferred.await(closed)
    })
  )

  it.live.each([
    { name: "text that is not JSON", body: "<html>", expected: [200, "Invalid", "the answer is not JSON"] },
    { name: "JSON that is cut short", body: '{"kind":', expected: [200, "Invalid", "the answer is not JSON"] },
    {
      name: "an error that is not a Status",
      status: 502,
      body: "<html>\n  upstream is away",
      expected: [502, "Unknown", "502 Bad Gateway: <html> upstream is away"]
    },
    {
      name: "an error without a body",
      status: 503,
      body: "",
      expected: [503, "ServiceUnavailable", "503 Service Unavailable"]
    },
    {
      name: "a Status that says when to come back",
      status: 503,
      body: '{"kind":"Status","message":"busy","reason":"ServiceUnavailable","details":{"retryAfterSeconds":3}}',
      expected: [503, "ServiceUnavailable", "busy", 3]
    },
    {
      name: "a header field that does",
      status: 429,
      headers: { "retry-after": "2" },
      body: '{"kind":"Status","message":"busy","reason":"TooManyRequests"}',
      expected: [429, "TooManyRequests", "busy", 2]
    },
    {
      name: "a redirection",
      status: 301,
      headers: { location: "/x" },
      body: "",
      expected: [301, "Unknown", "301 Moved Permanently"]
    }
  ])("an answer that cannot be used: $name", ({ body, expected, headers = {}, status = 200 }) =>
    Effect.gen(function* () {
      const { url } = yield* answering((_, response) => {
        response.writeHead(status, headers)
        response.end(body)
      })
      const api = yield* clientOf(url)
      const error = yield* Effect.flip(api.request(get))
      assert.deepStrictEqual<unknown>(
        [error.status, error.reason, error.message, error.retryAfterSeconds],
        [...expected, ...(expected.length === 3 ? [undefined] : [])]
      )
      if (status !== 200)
        assert.strictEqual((yield* Effect.flip(Stream.runCollect(api.watch(get, 1_000)))).status, status)
    })
  )

  it.live("an answer without a body is an empty object, one that breaks off is Network", () =>
    Effect.gen(function* () {
      const { url } = yield* answering((request, response) => {
        if (request.url === PODS) response.end()
        else {
          response.writeHead(200, { "content-length": 100 })
          response.write("{", () => response.destroy())
        }
      })
      const api = yield* clientOf(url)
      assert.deepStrictEqual(yield* api.request(get), {})
      const error = yield* Effect.flip(api.request({ ...get, path: "/broken" }))
      assert.deepStrictEqual([error.status, error.reason], [0, "Network"])
    })
  )

  /** Answers a watch in pieces, each after the one before was sent. */
  const watching = (pieces: ReadonlyArray<Uint8Array | string>, end: (response: ServerResponse) => void) =>
    Effect.gen(function* () {
      const { url } = yield* answering((_, response) => {
        const next = (index: number): void => {
          const piece = pieces[index]
          if (piece === undefined) end(response)
          else response.write(piece, () => setImmediate(() => next(index + 1)))
        }
        next(0)
      })
      return yield* clientOf(url)
    })

  const event = (name: string): WatchEvent => ({ type: "ADDED", object: { name } })

  it.live("a watch is read over all boundaries: lines, and characters of several bytes", () =>
    Effect.gen(function* () {
      const events = [event("plain"), event("grüße 🗝️ €"), event("x".repeat(100_000)), event("last")]
      const bytes = Buffer.from(`\n${events.map((it) => JSON.stringify(it)).join("\n\n")}`)
      const long = bytes.subarray(200, -200)
      const single = (part: Buffer) => Array.from(part, (byte) => Uint8Array.of(byte))
      const pieces = [...single(bytes.subarray(0, 200)), long, ...single(bytes.subarray(-200))]
      const api = yield* watching(pieces, (response) => response.end())
      assert.deepStrictEqual(yield* Stream.runCollect(api.watch({ path: PODS }, 5_000)), events)
    })
  )

  it.live.each([
    {
      name: "a line that is not JSON",
      pieces: [`${JSON.stringify(event("one"))}\n`, "<html>\n"],
      expected: [200, "Invalid"]
    },
    {
      name: "a line that is no event",
      pieces: [`${JSON.stringify(event("one"))}\n`, "[1]\n"],
      expected: [200, "Invalid"]
    },
    {
      name: "an end within a line",
      pieces: [`${JSON.stringify(event("one"))}\n`, '{"type":'],
      expected: [0, "Network"]
    },
    {
      name: "a connection that breaks",
      pieces: [`${JSON.stringify(event("one"))}\n`],
      broken: true,
      expected: [0, "Network"]
    },
    { name: "silence", pieces: [`${JSON.stringify(event("one"))}\n`], silent: true, expected: [0, "Idle"] }
  ])("a watch tells its events, and then how it failed: $name", ({ broken, expected, pieces, silent }) =>
    Effect.gen(function* () {
      const api = yield* watching(pieces, (response) => {
        if (broken === true) response.destroy()
        else if (silent !== true) response.end()
      })
      const seen: Array<WatchEvent> = []
      const error = yield* api.watch({ path: PODS }, 200).pipe(
        Stream.runForEach((it) => Effect.sync(() => void seen.push(it))),
        Effect.flip
      )
      assert.deepStrictEqual(seen, [event("one")])
      assert.deepStrictEqual<unknown>([error.status, error.reason], expected)
    })
  )

  it.live("50 requests use one connection, and 50 at once at most 16", () =>
    Effect.gen(function* () {
      const { connections, url } = yield* answering((_, response) => void later(5).then(() => json(response, {})))
      const api = yield* clientOf(url)
      for (let index = 0; index < 50; index++) yield* api.request(index % 2 === 0 ? get : post)
      assert.strictEqual(connections(), 1)
      yield* Effect.forEach(Array.from({ length: 50 }), () => api.request(get), { concurrency: 50 })
      assert.isAtMost(connections(), 16)
    })
  )

  it.live("a kept connection that the server had closed is tried once more, whatever the method", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const used = new WeakSet<object>()
      const { url } = yield* answering((request, response) => {
        seen.push(request.method ?? "")
        // As a server that has just decided to close a silent connection.
        if (used.has(request.socket)) request.socket.resetAndDestroy()
        else json(response, {})
        used.add(request.socket)
      })
      const api = yield* clientOf(url)
      for (const request of [get, post, { ...post, method: "PUT" as const }]) {
        assert.deepStrictEqual(yield* api.request(request), {})
      }
      assert.deepStrictEqual(seen, ["GET", "POST", "POST", "PUT", "PUT"])
    })
  )

  it.live("a new connection that breaks is Network at once", () =>
    Effect.gen(function* () {
      let count = 0
      const { url } = yield* answering((request) => {
        count++
        request.socket.resetAndDestroy()
      })
      const api = yield* clientOf(url)
      const error = yield* Effect.flip(api.request(post))
      assert.deepStrictEqual([error.reason, count], ["Network", 1])
    })
  )

  it.live("no error shows the token, even when the server does", () =>
    Effect.gen(function* () {
      const repeat = (request: IncomingMessage) => `you said ${request.headers.authorization}`
      const { url } = yield* answering((request, response) => {
        if (request.url === "/text") {
          response.writeHead(403)
          response.end(repeat(request))
          return
        }
        const causes = [{ reason: "FieldManagerConflict", message: repeat(request), field: repeat(request) }]
        json(response, { kind: "Status", message: repeat(request), reason: "Forbidden", details: { causes } }, 403)
      })
      const api = yield* clientOf(url)
      for (const path of ["/text", "/json"]) {
        const error = yield* Effect.flip(api.request({ ...get, path }))
        assert.include(error.message, "you said Bearer <redacted>")
        assert.notInclude(`${error} ${JSON.stringify(error)}`, TOKEN)
      }
      const unsendable = yield* clientOf(url, {}, { user: { token: `${TOKEN}\nand more` } })
      const error = yield* Effect.flip(unsendable.request(get))
      assert.deepStrictEqual([error.status, error.reason], [0, "Invalid"])
      assert.notInclude(`${error} ${JSON.stringify(error)}`, TOKEN)
    })
  )
})

/** Lets in whoever has the token of the moment. */
const guarded = () => {
  const seen: Array<string> = []
  const guard = {
    token: TOKEN,
    seen,
    listener: (request: IncomingMessage, response: ServerResponse) => {
      const token = (request.headers.authorization ?? "").replace("Bearer ", "")
      seen.push(token)
      json(response, {}, token === guard.token ? 200 : 401)
    }
  }
  return guard
}

describe("KubernetesConnection", () => {
  describe.skipIf(!hasOpenssl)(`in a pod${needsOpenssl}`, () => {
    const inPod = Effect.gen(function* () {
      const path = yield* directory
      const certificates = makeCertificates(path)
      let expected = TOKEN
      const { port } = yield* served({ bearerToken: () => expected, tls: certificates })
      const environment = pod(port, path, TOKEN, certificates.ca)
      const expect = (token: string) => {
        expected = token
      }
      return { path, port, environment, expect }
    })

    it.effect("a token is read again when it is a minute old", () =>
      Effect.gen(function* () {
        const { environment, expect, path } = yield* inPod
        const api = yield* clientWith({ environment })
        yield* api.request(get)
        writeFileSync(join(path, "token"), OTHER_TOKEN)
        yield* TestClock.adjust("59 seconds")
        yield* api.request(get)
        expect(OTHER_TOKEN)
        yield* TestClock.adjust("1 second")
        yield* api.request(get)
      })
    )

    it.effect("a refused token is read again at once, for requests and watches", () =>
      Effect.gen(function* () {
        const { environment, expect, path } = yield* inPod
        const api = yield* clientWith({ environment })
        expect(OTHER_TOKEN)
        assert.strictEqual((yield* Effect.flip(api.request(get))).status, 401)
        writeFileSync(join(path, "token"), OTHER_TOKEN)
        yield* api.request(get)
        expect(TOKEN)
        writeFileSync(join(path, "token"), TOKEN)
        const query = { timeoutSeconds: 1 }
        const fiber = yield* Effect.forkChild(Stream.runCollect(api.watch({ path: PODS, query }, 60_000)))
        const ended = Effect.gen(function* () {
          while (fiber.pollUnsafe() === undefined) {
            yield* TestClock.adjust("1 second")
            yield* Effect.promise(() => later(5))
          }
        })
        yield* ended
        assert.deepStrictEqual(yield* Fiber.join(fiber), [])
      })
    )

    it.effect("a token that cannot be read any more stays in use", () =>
      Effect.gen(function* () {
        const { environment, path } = yield* inPod
        const api = yield* clientWith({ environment })
        rmSync(join(path, "token"))
        yield* TestClock.adjust("2 minutes")
        yield* api.request(get)
      })
    )

    it.effect("a new certificate authority is trusted when it is seen, and the old one no more", () =>
      Effect.gen(function* () {
        const { environment, path } = yield* inPod
        const other = yield* directory
        const { ca, cert, key } = makeCertificates(other)
        const { port } = yield* served({ bearerToken: TOKEN, tls: { key, cert } })
        const moved = yield* clientWith({ environment: { ...environment, KUBERNETES_SERVICE_PORT: String(port) } })
        const stays = yield* clientWith({ environment })
        yield* stays.request(get)
        const error = yield* Effect.flip(moved.request(get))
        assert.deepStrictEqual([error.status, error.reason], [0, "Network"])
        assert.match(error.message, /certificate/u)
        writeFileSync(join(path, "ca.crt"), ca)
        yield* TestClock.adjust("1 minute")
        yield* moved.request(get)
        assert.strictEqual((yield* Effect.flip(stays.request(get))).reason, "Network")
      })
    )
  })

  it.live("a token that is refused twice is sent once", () =>
    Effect.gen(function* () {
      const guard = guarded()
      guard.token = OTHER_TOKEN
      const { url } = yield* answering(guard.listener)
      const api = yield* clientOf(url)
      assert.strictEqual((yield* Effect.flip(api.request(get))).reason, "Unauthorized")
      assert.deepStrictEqual(guard.seen, [TOKEN])
    })
  )

  it.live("a kubeconfig that changed is read again when its token is refused", () =>
    Effect.gen(function* () {
      const guard = guarded()
      const { url } = yield* answering(guard.listener)
      const kubeconfig = writeKubeconfig(join(yield* directory, "config"), url, { user: { token: TOKEN } })
      const api = yield* clientWith({ kubeconfig })
      yield* api.request(get)
      guard.token = OTHER_TOKEN
      writeKubeconfig(kubeconfig, url, { user: { token: OTHER_TOKEN } })
      yield* api.request(post)
      assert.deepStrictEqual(guard.seen, [TOKEN, TOKEN, OTHER_TOKEN])
    })
  )

  it.live("a plugin's token is kept while it is good, and asked for again when it is refused", () =>
    Effect.gen(function* () {
      const guard = guarded()
      const { url } = yield* answering(guard.listener)
      const path = yield* directory
      const tokenFile = join(path, "token")
      writeFileSync(tokenFile, TOKEN)
      const script = `echo >> "${path}/calls"; printf '{"status":{"token":"%s"}}' "$(cat "${tokenFile}")"`
      const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "sh", args: ["-c", script] }
      const api = yield* clientOf(url, {}, { user: { exec } })
      for (const _ of [1, 2, 3]) yield* api.request(get)
      assert.strictEqual(readFileSync(`${path}/calls`, "utf8"), "\n")
      writeFileSync(tokenFile, OTHER_TOKEN)
      guard.token = OTHER_TOKEN
      yield* api.request(get)
      assert.deepStrictEqual(guard.seen, [TOKEN, TOKEN, TOKEN, TOKEN, OTHER_TOKEN])
    })
  )

  it.live("a user with a password, and impersonation", () =>
    Effect.gen(function* () {
      const seen: Array<unknown> = []
      const { url } = yield* answering((request, response) => {
        seen.push([request.headers.authorization, request.headers["impersonate-user"]])
        json(response, {})
      })
      const api = yield* clientOf(url, {}, { user: { username: "me", password: "pass", as: "you" } })
      yield* api.request(get)
      assert.deepStrictEqual(seen, [[`Basic ${Buffer.from("me:pass").toString("base64")}`, "you"]])
    })
  )

  describe.skipIf(!hasOpenssl)(`a kubeconfig over HTTPS${needsOpenssl}`, () => {
    it.live.each([
      { name: "its own authority", cluster: (ca: string) => ({ "certificate-authority-data": btoa(ca) }), works: true },
      { name: "no verification", cluster: () => ({ "insecure-skip-tls-verify": true }), works: true },
      { name: "the authorities of the system", cluster: () => ({}), works: false },
      {
        name: "another name of the server",
        cluster: (ca: string) => ({ "certificate-authority-data": btoa(ca), "tls-server-name": "other" }),
        works: false
      }
    ])("with $name", ({ cluster, works }) =>
      Effect.gen(function* () {
        const { ca, cert, key } = makeCertificates(yield* directory)
        const { url } = yield* served({ bearerToken: TOKEN, tls: { key, cert } })
        const api = yield* clientOf(url, {}, { cluster: cluster(ca), user: { token: TOKEN } })
        if (works) yield* api.request(get)
        else assert.strictEqual((yield* Effect.flip(api.request(get))).reason, "Network")
      })
    )
  })

  /** Every place that a configuration is looked for, each with a server of its own. */
  const places = Effect.gen(function* () {
    const path = yield* directory
    const config = (name: string) => writeKubeconfig(join(path, name), `https://${name}.example.com`, { name })
    mkdirSync(join(path, ".kube"))
    const home = writeKubeconfig(join(path, ".kube", "config"), "https://home.example.com")
    return {
      flag: config("flag"),
      variable: config("variable"),
      second: config("second"),
      home,
      HOME: path,
      missing: join(path, "missing"),
      pod: pod(6443, path, TOKEN)
    }
  })
  type Places = Effect.Success<typeof places>

  it.live.each([
    {
      name: "the flag before all others",
      flag: ({ flag }: Places) => flag,
      environment: ({ HOME, pod, variable }: Places) => ({ KUBECONFIG: variable, ...pod, HOME }),
      expected: "https://flag.example.com/"
    },
    {
      name: "KUBECONFIG before the pod",
      environment: ({ HOME, pod, variable }: Places) => ({ KUBECONFIG: variable, ...pod, HOME }),
      expected: "https://variable.example.com/"
    },
    {
      name: "the first of several files in KUBECONFIG that exists",
      environment: ({ missing, second, variable }: Places) => ({ KUBECONFIG: `${missing}::${second}:${variable}` }),
      expected: "https://second.example.com/"
    },
    {
      name: "the pod before the home directory",
      environment: ({ HOME, pod }: Places) => ({ KUBECONFIG: "", ...pod, HOME }),
      expected: "https://127.0.0.1:6443/"
    },
    {
      name: "a pod with an address of version 6",
      environment: ({ pod }: Places) => ({ ...pod, KUBERNETES_SERVICE_HOST: "fd00::1" }),
      expected: "https://[fd00::1]:6443/"
    },
    {
      name: "the home directory when the pod has no token",
      environment: ({ HOME, missing, pod }: Places) => ({ ...pod, SECRETS_STORE_SERVICE_ACCOUNT_DIR: missing, HOME }),
      expected: "https://home.example.com/"
    },
    {
      name: "the home directory at last",
      environment: ({ HOME }: Places) => ({ HOME }),
      expected: "https://home.example.com/"
    }
  ])("1.5 #7: $name", ({ environment, expected, flag = () => "" }) =>
    Effect.gen(function* () {
      const found = yield* places
      const connection = yield* connect(flag(found), environment(found))
      assert.strictEqual(connection.server.href, expected)
      connection.close()
    })
  )

  it.live.each([
    { name: "nothing at all", environment: {}, source: /^the environment$/u, detail: /KUBERNETES_SERVICE_HOST/u },
    {
      name: "a pod without a token",
      environment: {
        ...{ KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: "443" },
        SECRETS_STORE_SERVICE_ACCOUNT_DIR: "/nowhere"
      },
      source: /^\/nowhere\/token$/u,
      detail: /missing or empty/u
    },
    { name: "a file that is not there", kubeconfig: "/nowhere", source: /^\/nowhere$/u, detail: /ENOENT/u },
    {
      name: "YAML that is broken",
      content: `user: {token: ${TOKEN}\n  bad`,
      detail: /cannot be read as a kubeconfig/u
    },
    { name: "something else", content: `"${TOKEN}"`, detail: /no current context/u },
    { name: "an empty file", content: "", detail: /kubeconfig|context/u },
    {
      name: "a context without a cluster",
      content: JSON.stringify({
        "current-context": "a",
        contexts: [{ name: "a", context: { cluster: "b", user: "c" } }]
      }),
      detail: /without a cluster/u
    },
    { name: "a server that is no address", server: "not an address", detail: /not an http or https address/u },
    { name: "a server of another kind", server: "unix:///socket", detail: /not an http or https address/u },
    {
      name: "a plugin that fails, and says too much",
      server: "https://127.0.0.1:1",
      user: {
        exec: {
          apiVersion: "client.authentication.k8s.io/v1",
          command: "sh",
          args: ["-c", `echo ${TOKEN} >&2; echo ${TOKEN}; exit 1`]
        }
      },
      detail: /credentials could not be obtained/u
    },
    {
      name: "a plugin that is not there",
      server: "https://127.0.0.1:1",
      user: { exec: { apiVersion: "client.authentication.k8s.io/v1", command: "/nowhere" } },
      detail: /credentials could not be obtained \(ENOENT\)/u
    }
  ])("1.5 #7: $name is KubernetesConfigInvalid, without a word of what is in it", (row) =>
    Effect.gen(function* () {
      const path = join(yield* directory, "config")
      if (row.content !== undefined) writeFileSync(path, row.content)
      if (row.server !== undefined) writeKubeconfig(path, row.server, { user: row.user ?? {} })
      const written = row.content !== undefined || row.server !== undefined
      const error = yield* Effect.flip(connect(row.kubeconfig ?? (written ? path : ""), row.environment ?? {}))
      assert.deepStrictEqual([error._tag, error.code], ["KubernetesConfigInvalid", "KubernetesConfigInvalid"])
      if (row.source !== undefined) assert.match(error.source, row.source)
      assert.match(error.message, row.detail)
      assert.notInclude(`${error} ${JSON.stringify(error)}`, TOKEN)
    })
  )
})
