import { type IncomingHttpHeaders, request } from "node:http"
import { connect } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Logger, Metric, References, Result, Scope } from "effect"
import { type HealthChecks, parseListenAddress } from "../../layers/real/HttpRoutes.ts"
import { layer, serveHealth, serveMetrics, serveProfiles } from "../../layers/real/ManagementHttp.ts"
import * as Metrics from "../../src/telemetry/Metrics.ts"

interface Reply {
  readonly status: number | undefined
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

const ask = (port: number, path: string, method = "GET", body?: string) =>
  Effect.callback<Reply, Error>((resume) => {
    const call = request({ host: "127.0.0.1", port, path, method, agent: false }, (response) => {
      let text = ""
      response.setEncoding("utf8")
      response.on("data", (chunk) => {
        text += chunk
      })
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode, headers: response.headers, body: text }))
      )
    })
    call.on("error", (error) => resume(Effect.fail(error)))
    call.end(body)
    return Effect.sync(() => call.destroy())
  })

const ownRegistry = Effect.provideService(Metric.MetricRegistry, new Map())
const healthy: HealthChecks = { live: Effect.void, ready: Effect.void }
const ANY_PORT = "127.0.0.1:0"

describe("/metrics", () => {
  it.live("8.1 the page, its type, and what is not there", () =>
    Effect.gen(function* () {
      const port = yield* serveMetrics(ANY_PORT)
      yield* Metrics.nodeUnpublished
      const page = yield* ask(port, "/metrics?x=y")
      assert.strictEqual(page.status, 200)
      assert.strictEqual(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
      assert.match(page.body, /^node_unpublish_total\{.*\} 1$/mu)
      assert.match(page.body, /^process_resident_memory_bytes \d/mu)
      assert.match(page.body, /^process_open_fds [1-9]/mu)
      assert.match(page.body, /^process_cpu_seconds_total \d/mu)
      assert.match(page.body, /^process_start_time_seconds 1\.\d+e\+09$/mu)

      const head = yield* ask(port, "/metrics", "HEAD")
      assert.deepStrictEqual([head.status, head.body], [200, ""])
      assert.isAbove(Number(head.headers["content-length"]), 100)
      const post = yield* ask(port, "/metrics", "POST", "ignored")
      assert.deepStrictEqual([post.status, post.headers["allow"]], [405, "GET, HEAD"])
      for (const path of ["/", "/metrics/", "/healthz", "//metrics"]) {
        assert.strictEqual((yield* ask(port, path)).status, 404)
      }
    }).pipe(Effect.scoped, ownRegistry)
  )

  it.live("8.1 a port in use is a failure that says so", () =>
    Effect.gen(function* () {
      const port = yield* serveMetrics(ANY_PORT)
      const failed = yield* Effect.flip(serveMetrics(`127.0.0.1:${port}`))
      assert.strictEqual(failed.message, `listen tcp 127.0.0.1:${port}: bind: address already in use`)
      assert.strictEqual(failed.code, "EndpointFailed")
    }).pipe(Effect.scoped)
  )

  it.live("8.1 an address that cannot be read is a failure", () =>
    Effect.gen(function* () {
      const failed = yield* Effect.flip(serveMetrics("8095"))
      assert.strictEqual(failed.message, "listen tcp: address 8095: missing port in address")
    }).pipe(Effect.scoped)
  )

  it.live("the end of the scope closes the port, whatever a client still holds open", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const port = yield* Scope.provide(serveMetrics(ANY_PORT), scope)
      const socket = connect(port, "127.0.0.1")
      const closed = Deferred.makeUnsafe<void>()
      socket.on("error", () => {})
      socket.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
      socket.resume()
      yield* Effect.callback<void>((resume) => {
        socket.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", () => resume(Effect.void))
      })
      yield* ask(port, "/metrics")
      yield* Scope.close(scope, Exit.void)
      yield* Deferred.await(closed)
      assert.strictEqual((yield* Effect.exit(ask(port, "/metrics")))._tag, "Failure")
    })
  )
})

describe("listen addresses", () => {
  it.each([
    [":8095", { port: 8095 }],
    ["0.0.0.0:9808", { host: "0.0.0.0", port: 9808 }],
    ["127.0.0.1:0", { host: "127.0.0.1", port: 0 }],
    ["localhost:80", { host: "localhost", port: 80 }],
    ["[::1]:80", { host: "::1", port: 80 }],
    ["[]:80", { port: 80 }],
    [":", { port: 0 }]
  ] as const)("8.1 %s", (address, expected) => {
    assert.deepStrictEqual(parseListenAddress(address), Result.succeed(expected))
  })

  it.each([
    ["", "listen tcp: address : missing port in address"],
    ["8095", "listen tcp: address 8095: missing port in address"],
    ["::1:80", "listen tcp: address ::1:80: too many colons in address"],
    [":metrics", "listen tcp: lookup tcp/metrics: unknown port"],
    [":65536", "listen tcp: address 65536: invalid port"]
  ] as const)("8.1 %j is refused", (address, message) => {
    assert.deepStrictEqual(parseListenAddress(address), Result.fail(message))
  })
})

describe("/healthz and /readyz", () => {
  it.live("8.4 ok", () =>
    Effect.gen(function* () {
      const port = yield* serveHealth(ANY_PORT, healthy)
      for (const path of ["/healthz", "/readyz"]) {
        const { body, status } = yield* ask(port, path)
        assert.deepStrictEqual([status, body], [200, "ok"])
      }
      assert.strictEqual((yield* ask(port, "/metrics")).status, 404)
    }).pipe(Effect.scoped)
  )

  it.live("8.4 each check answers for itself, with its reason", () =>
    Effect.gen(function* () {
      const port = yield* serveHealth(ANY_PORT, {
        live: Effect.void,
        ready: Effect.fail({ message: "the CSI socket is not open" })
      })
      assert.strictEqual((yield* ask(port, "/healthz")).status, 200)
      const { body, status } = yield* ask(port, "/readyz")
      assert.deepStrictEqual([status, body], [500, "the CSI socket is not open"])
    }).pipe(Effect.scoped)
  )

  it.live("8.4 a check that hangs has failed after three seconds, and is interrupted", () =>
    Effect.gen(function* () {
      let wasInterrupted = false
      const port = yield* serveHealth(ANY_PORT, {
        ...healthy,
        live: Effect.onInterrupt(Effect.never, () =>
          Effect.sync(() => {
            wasInterrupted = true
          })
        )
      })
      const { body, status } = yield* ask(port, "/healthz")
      assert.deepStrictEqual([status, body], [500, "no answer within 3 seconds"])
      assert.isTrue(wasInterrupted)
    }).pipe(Effect.scoped)
  )

  it.live("a client that leaves interrupts its check", () =>
    Effect.gen(function* () {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const port = yield* serveHealth(ANY_PORT, {
        ...healthy,
        live: Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        )
      })
      const client = yield* Effect.forkChild(ask(port, "/healthz"))
      yield* Deferred.await(started)
      yield* Fiber.interrupt(client)
      yield* Effect.timeout(Deferred.await(interrupted), "2 seconds")
    }).pipe(Effect.scoped)
  )

  it.live("a bug in a check is answered with constant words and logged", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ message }) => void lines.push(String(message)))
      yield* Effect.gen(function* () {
        const port = yield* serveHealth(ANY_PORT, { ...healthy, live: Effect.die("s3cret") })
        const { body, status } = yield* ask(port, "/healthz")
        assert.deepStrictEqual([status, body], [500, "internal error\n"])
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger])))
      assert.deepStrictEqual(lines, ["a management request could not be answered"])
    })
  )
})

describe("/debug/pprof/", () => {
  it.live("8.4 index, command line, and what does not exist", () =>
    Effect.gen(function* () {
      const port = (yield* serveProfiles(0))!
      const index = yield* ask(port, "/debug/pprof/")
      assert.strictEqual(index.status, 200)
      assert.include(index.body, "a dump of the heap would hold the secrets")
      assert.strictEqual((yield* ask(port, "/debug/pprof")).headers["location"], "/debug/pprof/")
      assert.strictEqual((yield* ask(port, "/debug/pprof/cmdline")).body, process.argv.join("\0"))
      assert.strictEqual((yield* ask(port, "/debug/pprof/heap")).status, 404)
      for (const seconds of ["0", "-1", "301", "x"]) {
        assert.strictEqual((yield* ask(port, `/debug/pprof/profile?seconds=${seconds}`)).status, 400)
      }
    }).pipe(Effect.scoped)
  )

  it.live("8.4 one CPU profile at a time", () =>
    Effect.gen(function* () {
      const port = (yield* serveProfiles(0))!
      const first = yield* Effect.forkChild(ask(port, "/debug/pprof/profile?seconds=0.3"))
      yield* Effect.sleep("100 millis")
      assert.strictEqual((yield* ask(port, "/debug/pprof/profile?seconds=0.3")).status, 503)
      const { body, status } = yield* Fiber.join(first)
      assert.strictEqual(status, 200)
      assert.containsAllKeys(JSON.parse(body), ["nodes", "startTime", "endTime", "samples"])
      assert.strictEqual((yield* ask(port, "/debug/pprof/profile?seconds=0.01")).status, 200)
    }).pipe(Effect.scoped)
  )

  it.live("1.5 a port in use is only logged", () =>
    Effect.gen(function* () {
      const taken = (yield* serveProfiles(0))!
      assert.isUndefined(yield* serveProfiles(taken))
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
  )
})

describe("what is served", () => {
  const config = { metricsAddr: "0", healthAddr: "", pprofEnabled: false, pprofPort: 0 }

  it.live("1.2 nothing, when everything is off", () => Effect.provide(Effect.void, layer(config, healthy)))

  it.live("1.2 a wrong address stops the driver", () =>
    Effect.gen(function* () {
      const failed = yield* Effect.flip(Effect.provide(Effect.void, layer({ ...config, healthAddr: "x" }, healthy)))
      assert.strictEqual(failed.endpoint, "x")
    })
  )
})
