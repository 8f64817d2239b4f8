/**
 * The real driver as a process: how it is started and stopped, registers itself, and tells of itself.
 */
import { spawnSync } from "node:child_process"
import { existsSync, statSync, unlinkSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import { Duration, Effect, Fiber } from "effect"
import { inject } from "vitest"
import { call } from "../../layers/development/Kubelet.ts"
import { type PluginInfo, RegistrationClient, type RegistrationStatusResponse } from "../../proto/gen/registration.ts"
import { eventually, freePort, get, isRoot, make, mountsAt, volumeOf } from "../support/DriverWorld.ts"
import { answer } from "../support/ScriptedProvider.ts"

const runDriver = (...words: ReadonlyArray<string>) =>
  spawnSync(process.execPath, [inject("driverEntry"), ...words], { encoding: "utf8", timeout: 20_000 })

describe("command line", () => {
  it("1.2: --version prints one line of JSON and exits 0", () => {
    const { status, stderr, stdout } = runDriver("--version")
    assert.strictEqual(status, 0)
    assert.strictEqual(stderr, "")
    assert.match(stdout, /^\{"BuildVersion":"[^"]+","GitCommit":"[^"]*","BuildDate":"[^"]*"\}\n$/u)
  })

  it("1.1: an unknown flag exits 2, with Go's words, a remedy and the usage", () => {
    const { status, stderr } = runDriver("--no-such-flag=1")
    assert.strictEqual(status, 2)
    assert.match(stderr, /^flag provided but not defined: -no-such-flag\nremedy: /u)
    assert.include(stderr, "-rotation-poll-interval")
  })

  it("1.5: without a usable Kubernetes configuration it exits 1, with the cause and the remedy", () => {
    const { status, stderr } = runDriver("--kubeconfig=/no/such/kubeconfig", "--metrics-addr=0", "--nodeid=n")
    assert.strictEqual(status, 1)
    assert.include(stderr, "no usable Kubernetes configuration in /no/such/kubeconfig")
    assert.include(stderr, "give a readable kubeconfig")
  })

  it.live("2.1: an endpoint that cannot be served exits 1 and says why", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        const { message } = yield* Effect.flip(bench.startDriver({ flags: ["--endpoint=http://x"] }))
        assert.include(message, "the driver ended with 1")
        assert.include(message, "invalid endpoint: http://x")
      })
    )
  )
})

describe("shutdown", () => {
  it.live.each(["SIGTERM", "SIGINT"] as const)("1.5: %s at rest ends with 0 and takes the socket away", (signal) =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        const driver = yield* bench.startDriver()
        assert.isTrue(existsSync(bench.socket))
        yield* driver.kill(signal)
        const [took, how] = yield* Effect.timed(driver.exited)
        assert.strictEqual(how, 0)
        assert.isFalse(existsSync(bench.socket))
        assert.isBelow(Duration.toMillis(took), 2_000)
      })
    )
  )

  it.live.skipIf(!isRoot)("1.5: SIGTERM lets a publish that is under way end (needs root)", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        provider.respond(() => Effect.delay(Effect.succeed(answer({ user: "alice" })), "700 millis"))
        const driver = yield* bench.startDriver()
        const publishing = yield* Effect.forkChild(bench.kubelet.publish(volumeOf("web")))
        yield* eventually(provider.active, (active) => active === 1)
        yield* driver.kill("SIGTERM")
        assert.strictEqual(yield* driver.exited, 0)
        assert.strictEqual(mountsAt(yield* Fiber.join(publishing)).length, 1)
      })
    )
  )

  it.live.skipIf(!isRoot)("Q34: a provider that hangs delays the end by the grace period only (needs root)", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        provider.respond(() => Effect.never)
        const driver = yield* bench.startDriver({ flags: ["--shutdown-grace-period=1s"] })
        const publishing = yield* Effect.forkChild(Effect.exit(bench.kubelet.publish(volumeOf("web"), 30_000)))
        yield* eventually(provider.active, (active) => active === 1)
        yield* driver.kill("SIGTERM")
        const [took, how] = yield* Effect.timed(driver.exited)
        assert.strictEqual(how, 0)
        assert.isAtLeast(Duration.toMillis(took), 900)
        assert.isBelow(Duration.toMillis(took), 4_000)
        publishing.interruptUnsafe()
        // A first publish that fails leaves no mount, also when it is the driver that ends.
        assert.strictEqual(mountsAt(bench.kubelet.targetPath(volumeOf("web"))).length, 0)
        provider.respond(() => Effect.succeed(answer({ user: "alice" })))
        yield* bench.startDriver()
        const target = yield* bench.kubelet.publish(volumeOf("web"))
        assert.strictEqual(mountsAt(target).length, 1)
      })
    )
  )

  it.live.skipIf(!isRoot)("1.5: a second signal ends it at once, with 1 (needs root)", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        provider.respond(() => Effect.never)
        const driver = yield* bench.startDriver()
        const publishing = yield* Effect.forkChild(Effect.exit(bench.kubelet.publish(volumeOf("web"), 30_000)))
        yield* eventually(provider.active, (active) => active === 1)
        yield* driver.kill("SIGTERM")
        yield* Effect.sleep("200 millis")
        yield* driver.kill("SIGTERM")
        const [took, how] = yield* Effect.timed(driver.exited)
        assert.strictEqual(how, 1)
        assert.isBelow(Duration.toMillis(took), 1_000)
        publishing.interruptUnsafe()
      })
    )
  )
})

describe("what it tells of itself", () => {
  it.live("wire (c), 8.4: it registers itself with the kubelet, and health follows", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        const port = yield* freePort
        const driver = yield* bench.startDriver({
          flags: [
            "--kubelet-registration-path=/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
            `--plugin-registration-path=${bench.registrationDirectory}`,
            `--health-addr=127.0.0.1:${port}`
          ]
        })
        const health = (path: string) => get(`http://127.0.0.1:${port}${path}`)
        const socket = join(bench.registrationDirectory, "secrets-store.csi.k8s.io-reg.sock")
        yield* eventually(
          () => existsSync(socket),
          (exists) => exists
        )
        assert.strictEqual(statSync(socket).mode & 0o777, 0o600)
        const kubelet = yield* Effect.acquireRelease(
          Effect.sync(() => new RegistrationClient(`unix:${socket}`, grpc.credentials.createInsecure())),
          (client) => Effect.sync(() => client.close())
        )
        const notify = (pluginRegistered: boolean, error: string) =>
          call<RegistrationStatusResponse>(
            (metadata, options, done) =>
              kubelet.notifyRegistrationStatus({ pluginRegistered, error }, metadata, options, done),
            2_000
          )
        assert.strictEqual((yield* health("/healthz")).status, 200)
        assert.notStrictEqual((yield* health("/readyz")).status, 200)

        const info = yield* call<PluginInfo>(
          (metadata, options, done) => kubelet.getInfo({}, metadata, options, done),
          2_000
        )
        assert.deepStrictEqual(info, {
          type: "CSIPlugin",
          name: "secrets-store.csi.k8s.io",
          endpoint: "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
          supportedVersions: ["1.0.0"]
        })
        yield* notify(true, "")
        assert.strictEqual((yield* health("/readyz")).status, 200)
        assert.include(driver.output(), "registered with kubelet")

        yield* notify(false, "not now")
        const refused = yield* health("/readyz")
        assert.notStrictEqual(refused.status, 200)
        assert.strictEqual((yield* health("/healthz")).status, 200)
        yield* driver.kill("SIGTERM")
        assert.strictEqual(yield* driver.exited, 0)
        assert.isFalse(existsSync(socket))
      })
    )
  )

  it.live("8.4: /healthz notices that the CSI socket's file is gone", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        const port = yield* freePort
        yield* bench.startDriver({ flags: [`--health-addr=127.0.0.1:${port}`] })
        assert.strictEqual((yield* get(`http://127.0.0.1:${port}/healthz`)).status, 200)
        assert.strictEqual((yield* get(`http://127.0.0.1:${port}/readyz`)).status, 200)
        unlinkSync(bench.socket)
        assert.strictEqual((yield* get(`http://127.0.0.1:${port}/healthz`)).status, 500)
      })
    )
  )

  it.live.skipIf(!isRoot)("8.2: /metrics holds what upstream's e2e test looks for (needs root)", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        const port = yield* freePort
        yield* bench.startDriver({
          flags: [`--metrics-addr=127.0.0.1:${port}`, "--enable-secret-rotation=true", "--rotation-poll-interval=1s"]
        })
        yield* bench.kubelet.publish(volumeOf("web"))
        // Due after a second and at most a tenth, and then not before another one.
        yield* Effect.sleep("1400 millis")
        yield* bench.kubelet.publish(volumeOf("web"))
        yield* bench.kubelet.unpublish(volumeOf("web"))
        const { body, status } = yield* get(`http://127.0.0.1:${port}/metrics`)
        assert.strictEqual(status, 200)
        const scope =
          'os_type="linux",otel_scope_name="sigs.k8s.io/secrets-store-csi-driver",otel_scope_schema_url="",otel_scope_version=""'
        for (const line of [
          `node_publish_total{${scope},provider="scripted"} 2`,
          `node_unpublish_total{${scope}} 1`,
          `rotation_reconcile_total{${scope},provider="scripted",rotated="true"} 1`
        ]) {
          assert.include(body.split("\n"), line)
        }
        const info = yield* bench.kubelet.pluginInfo
        assert.deepStrictEqual(info.name, "secrets-store.csi.k8s.io")
      })
    )
  )
})
