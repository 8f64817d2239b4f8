/**
 * Publish and unpublish, end to end on the real driver: what the kernel, the API server, the provider and the kubelet
 * see of them.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from "node:fs"
import { release } from "node:os"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import {
  eventually,
  following,
  freePort,
  get,
  isGone,
  isRoot,
  make,
  mountsAt,
  NODE_NAME,
  POD_STATUSES,
  PROVIDER,
  putPod,
  valueOf,
  volumeOf
} from "../support/DriverWorld.ts"
import * as ScriptedProvider from "../support/ScriptedProvider.ts"

const { answer, ProviderSays } = ScriptedProvider
const MIB = 1024 * 1024
const rotationEvery = (interval: string) => ["--enable-secret-rotation=true", `--rotation-poll-interval=${interval}`]
const filesOf = (target: string) => ({
  user: readFileSync(join(target, "user"), "utf8"),
  key: readFileSync(join(target, "tls/key.pem"), "utf8")
})
/** Fields that the API server fills in. */
const SERVERS_OWN = new Set(["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"])
const FILES = { user: "alice", key: "a key" }

/** Linux 6.4 and newer know tmpfs without swap. */
const [major = 0, minor = 0] = release().split(".").map(Number)
const knowsNoswap = major > 6 || (major === 6 && minor >= 4)

describe.skipIf(!isRoot)("publish on the real driver (needs root)", () => {
  it.live("2.7 #19, 4.1: a bounded tmpfs with the payload behind ..data", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        yield* bench.startDriver({ flags: ["--tmpfs-size=3Mi"] })
        const target = yield* bench.kubelet.publish(volumeOf("web"))
        const [mount, ...others] = mountsAt(target)
        assert.deepStrictEqual(others, [])
        assert.strictEqual(mount!.fstype, "tmpfs")
        assert.includeMembers(mount!.options, ["rw", "nosuid", "nodev", "noexec"])
        assert.includeMembers(mount!.superOptions, [`size=${(3 * MIB) / 1024}k`, "mode=755"])
        assert.strictEqual(mount!.superOptions.includes("noswap"), knowsNoswap)

        const names = readdirSync(target).sort()
        assert.strictEqual(names.length, 4)
        const [generation, ...links] = names
        assert.match(generation!, /^\.\.\d{4}_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$/u)
        assert.deepStrictEqual(links, ["..data", "tls", "user"])
        assert.strictEqual(readlinkSync(join(target, "..data")), generation)
        assert.strictEqual(readlinkSync(join(target, "tls")), "..data/tls")
        assert.strictEqual(readlinkSync(join(target, "user")), "..data/user")
        assert.deepStrictEqual(filesOf(target), FILES)
        assert.strictEqual(statSync(join(target, "user")).mode & 0o7777, 0o644)
        assert.strictEqual(statSync(target).mode & 0o7777, 0o755)
      })
    )
  )

  it.live("5.3, wire e.1: the pod status is exactly this object", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        const files = answer({ user: "alice" }).files
        provider.respond(() =>
          Effect.succeed({
            files,
            error: undefined,
            objectVersion: [
              { id: "secret/b", version: "2" },
              { id: "secret/a", version: "" }
            ]
          })
        )
        yield* bench.startDriver()
        const targetPath = yield* bench.kubelet.publish(volumeOf("web"))
        const [status, ...others] = yield* bench.kubernetes.all(POD_STATUSES)
        assert.deepStrictEqual(others, [])
        const { metadata, ...rest } = status!
        const written = Object.entries(metadata ?? {}).filter(([key]) => !SERVERS_OWN.has(key))
        assert.deepStrictEqual<unknown>(
          { ...rest, metadata: Object.fromEntries(written) },
          {
            apiVersion: "secrets-store.csi.x-k8s.io/v1",
            kind: "SecretProviderClassPodStatus",
            metadata: {
              name: "web-default-spc",
              namespace: "default",
              labels: { "internal.secrets-store.csi.k8s.io/node-name": NODE_NAME },
              ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-web" }]
            },
            status: {
              podName: "web",
              secretProviderClassName: "spc",
              mounted: true,
              targetPath,
              objects: [{ id: "secret/a" }, { id: "secret/b", version: "2" }]
            }
          }
        )
      })
    )
  )

  it.live("S10: one write and no read for a first publish; nothing for a republish that is not due, or unchanged", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const world = yield* make()
        const { bench, provider } = world
        yield* bench.startDriver({ flags: rotationEvery("2s") })
        // Follows the namespace, and is gone before it is due.
        yield* bench.kubelet.publish(volumeOf("first"))
        yield* bench.kubelet.unpublish(volumeOf("first"))
        yield* following(world, "secretproviderclasses")
        yield* bench.kubernetes.resetRequests

        const target = yield* bench.kubelet.publish(volumeOf("web"))
        assert.deepStrictEqual<unknown>(yield* bench.kubernetes.requests, [
          { method: "POST", resource: `${POD_STATUSES}.secrets-store.csi.x-k8s.io`, watch: false, count: 1 }
        ])
        yield* bench.kubernetes.resetRequests
        const generation = readlinkSync(join(target, "..data"))
        yield* bench.kubelet.publish(volumeOf("web"))
        assert.strictEqual(provider.asked.length, 2)

        yield* eventually(
          () => provider.asked.length,
          (asked) => asked === 3
        )
        yield* bench.kubelet.publish(volumeOf("web"))
        assert.deepStrictEqual(provider.asked[2]!.currentObjectVersion, [{ id: "secret/scripted", version: "v1" }])
        assert.strictEqual(readlinkSync(join(target, "..data")), generation)
        assert.deepStrictEqual<unknown>(yield* bench.kubernetes.requests, [])
      })
    )
  )

  it.live("2.7 #9: without rotation a republish asks nobody", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const world = yield* make()
        const { bench, provider } = world
        yield* bench.startDriver()
        const target = yield* bench.kubelet.publish(volumeOf("web"))
        const before = lstatSync(join(target, "..data")).mtimeMs
        yield* following(world, "secretproviderclasses")
        yield* bench.kubernetes.resetRequests
        yield* Effect.repeat(bench.kubelet.publish(volumeOf("web")), { times: 3 })
        assert.strictEqual(provider.asked.length, 1)
        assert.strictEqual(lstatSync(join(target, "..data")).mtimeMs, before)
        assert.strictEqual(mountsAt(target).length, 1)
        assert.deepStrictEqual<unknown>(yield* bench.kubernetes.requests, [])
      })
    )
  )

  it.live("2.9, S4: unpublish leaves nothing, may be repeated, and needs neither API server nor provider", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        const first = yield* bench.startDriver()
        const target = yield* bench.kubelet.publish(volumeOf("web"))
        yield* bench.kubelet.publish(volumeOf("other"))
        yield* bench.kubelet.unpublish(volumeOf("web"))
        assert.isTrue(isGone(target))
        assert.deepStrictEqual(readdirSync(dirname(target)), [])
        yield* bench.kubelet.unpublish(volumeOf("web"))

        yield* first.kill("SIGTERM")
        assert.strictEqual(yield* first.exited, 0)
        rmSync(provider.socket)
        yield* bench.startDriver({ environment: { KUBERNETES_SERVICE_PORT: String(yield* freePort) } })
        const [took] = yield* Effect.timed(bench.kubelet.unpublish(volumeOf("other")))
        assert.isTrue(isGone(bench.kubelet.targetPath(volumeOf("other"))))
        assert.isBelow(Duration.toMillis(took), 1_000)
      })
    )
  )

  it.live("L1: a provider that appears late is waited for", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        yield* bench.putClass("default", "late", "late", { a: "b" })
        yield* bench.startDriver()
        const publishing = yield* Effect.forkChild(
          bench.kubelet.publish(volumeOf("web", { secretProviderClass: "late" }))
        )
        yield* Effect.sleep("400 millis")
        assert.isUndefined(publishing.pollUnsafe())
        yield* ScriptedProvider.serve(join(bench.providersDirectory, "late.sock"), () =>
          Effect.succeed(answer({ user: "alice" }))
        )
        const [took, target] = yield* Effect.timed(Fiber.join(publishing))
        assert.strictEqual(readFileSync(join(target, "user"), "utf8"), "alice")
        assert.isBelow(Duration.toMillis(took), 2_000)
      })
    )
  )

  it.live("3.1: a provider that is not there: the error says who, where, and what was found", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench } = yield* make()
        const missing = join(bench.directory, "nowhere")
        yield* bench.putClass("default", "absent", "absent", { a: "b" })
        yield* bench.startDriver({
          flags: ["--provider-wait-timeout=200ms", `--additional-provider-volume-paths=${missing}`]
        })
        const volume = volumeOf("web", { secretProviderClass: "absent" })
        const failure = yield* Effect.flip(bench.kubelet.publish(volume))
        assert.strictEqual(failure.grpcCode, "UNKNOWN")
        assert.include(failure.message, "failed to mount secrets store objects for pod default/web, err: ")
        assert.include(failure.message, 'provider not found: provider "absent"')
        assert.include(failure.message, `${missing} (no such directory)`)
        assert.include(failure.message, `${bench.providersDirectory} (found ${PROVIDER}.sock)`)
        assert.include(failure.message, "install the provider on this node")
        assert.strictEqual(mountsAt(bench.kubelet.targetPath(volume)).length, 0)
      })
    )
  )

  it.live("B14: with --volume-mount-group files belong to the pod's fsGroup", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        const files = answer({ user: "alice" }).files.map((file) => ({ ...file, mode: 0o400 }))
        provider.respond(() => Effect.succeed({ ...answer({}), files }))
        yield* bench.startDriver({ flags: ["--volume-mount-group"] })
        const target = yield* bench.kubelet.publish(volumeOf("web", { volumeMountGroup: "4321" }))
        const { gid, mode, uid } = statSync(join(target, "user"))
        assert.deepStrictEqual({ gid, uid, mode: mode & 0o7777 }, { gid: 4321, uid: 0, mode: 0o440 })
        assert.strictEqual(statSync(target).gid, 4321)
      })
    )
  )

  it.live("D7: several classes in one pod, one of them twice", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        provider.respond((request) =>
          Effect.succeed(answer({ who: ScriptedProvider.attributesOf(request)["objects"]! }))
        )
        yield* bench.putClass("default", "other", PROVIDER, { objects: "others" })
        yield* bench.startDriver()
        const volumes = [
          volumeOf("web", { volumeName: "one" }),
          volumeOf("web", { volumeName: "two" }),
          volumeOf("web", { volumeName: "three", secretProviderClass: "other" })
        ]
        const targets = yield* Effect.forEach(volumes, (volume) => bench.kubelet.publish(volume), { concurrency: 3 })
        assert.deepStrictEqual(
          targets.map((target) => readFileSync(join(target, "who"), "utf8")),
          ["all", "all", "others"]
        )
        const statuses = (yield* bench.kubernetes.all(POD_STATUSES)).map((it) => JSON.stringify(it))
        assert.strictEqual(statuses.length, 3)
        for (const target of targets) assert.strictEqual(statuses.filter((it) => it.includes(`"${target}"`)).length, 1)
        yield* bench.kubelet.unpublish(volumes[0]!)
        assert.isTrue(isGone(targets[0]!))
        assert.strictEqual(readFileSync(join(targets[1]!, "who"), "utf8"), "all")
      })
    )
  )

  it.live("S1: a caller that goes away in the middle of a slow provider's call leaves no mount", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        provider.respond(() => Effect.never)
        yield* bench.startDriver()
        const target = bench.kubelet.targetPath(volumeOf("web"))
        const publishing = yield* Effect.forkChild(bench.kubelet.publish(volumeOf("web")))
        yield* eventually(provider.active, (active) => active === 1)
        assert.strictEqual(mountsAt(target).length, 1)
        yield* Fiber.interrupt(publishing)
        yield* eventually(provider.abandoned, (abandoned) => abandoned === 1)
        yield* eventually(
          () => mountsAt(target).length,
          (mounts) => mounts === 0
        )
        provider.respond(() => Effect.succeed(answer({ user: "alice" })))
        yield* bench.kubelet.publish(volumeOf("web"))
        assert.strictEqual(mountsAt(target).length, 1)
      })
    )
  )

  it.live("2.1: before its deadline a caller hears which provider did not answer", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        provider.respond(() => Effect.never)
        yield* bench.startDriver()
        const failure = yield* Effect.flip(bench.kubelet.publish(volumeOf("web"), 2_500))
        assert.strictEqual(failure.grpcCode, "DEADLINE_EXCEEDED")
        assert.match(failure.message, /provider \\?"scripted\\?" did not answer within \d+ ms/u)
        assert.include(failure.message, "check that the pod of provider scripted on this node is running")
        assert.strictEqual(mountsAt(bench.kubelet.targetPath(volumeOf("web"))).length, 0)
      })
    )
  )

  it.live.each([
    { grpcCode: "UNAVAILABLE", goCode: "Unavailable", calls: 3 },
    { grpcCode: "PERMISSION_DENIED", goCode: "PermissionDenied", calls: 1 }
  ] as const)(
    "3.2, 3.4 #1, D2: $grpcCode of a provider is passed on, asked $calls times",
    ({ calls, goCode, grpcCode }) =>
      Effect.scoped(
        Effect.gen(function* () {
          const { bench, provider } = yield* make()
          provider.respond(() => Effect.fail(new ProviderSays({ grpcCode, details: "because of this" })))
          yield* bench.startDriver({ flags: rotationEvery("2m") })
          const failure = yield* Effect.flip(bench.kubelet.publish(volumeOf("web")))
          assert.strictEqual(failure.grpcCode, grpcCode)
          assert.include(failure.message, `rpc error: code = ${goCode} desc = because of this`)
          assert.strictEqual(provider.asked.length, calls)
          const target = bench.kubelet.targetPath(volumeOf("web"))
          assert.strictEqual(mountsAt(target).length, 0)
          // The directory is there and young, and is no volume all the same.
          provider.respond(() => Effect.succeed(answer({ user: "alice", "tls/key.pem": "a key" })))
          yield* bench.kubelet.publish(volumeOf("web"))
          assert.deepStrictEqual(filesOf(target), FILES)
        })
      )
  )

  it.live(
    "D2, S11: a provider that throttles is spared; its caller hears why, and its volume is mounted once it can be",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { bench, provider } = yield* make()
          const throttling = { grpcCode: "RESOURCE_EXHAUSTED", details: "slow down" } as const
          provider.respond(() => Effect.fail(new ProviderSays(throttling)))
          const volume = yield* putPod(bench, volumeOf("web"))
          yield* bench.startDriver({ flags: rotationEvery("2m") })
          const failure = yield* Effect.flip(bench.kubelet.publish(volume, 4_000))
          assert.strictEqual(failure.grpcCode, "RESOURCE_EXHAUSTED")
          assert.include(failure.message, "and said: rpc error: code = ResourceExhausted desc = slow down")
          // At once, after about one second, and after two more if there was time for it.
          assert.isAtMost(provider.asked.length, 3)
          const target = bench.kubelet.targetPath(volume)
          assert.strictEqual(mountsAt(target).length, 0)
          provider.respond(() => Effect.succeed(answer({ user: "alice", "tls/key.pem": "a key" })))
          yield* eventually(
            () => existsSync(join(target, "user")),
            (isThere) => isThere
          )
          const asked = provider.asked.length
          yield* bench.kubelet.publish(volume)
          assert.deepStrictEqual(filesOf(target), FILES)
          assert.strictEqual(provider.asked.length, asked)
        })
      )
  )

  it.live("7.1, S3, S20: rotation brings new content, and keeps the old when the provider fails", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { bench, provider } = yield* make()
        const port = yield* freePort
        yield* bench.startDriver({ flags: [...rotationEvery("1s"), `--metrics-addr=127.0.0.1:${port}`] })
        const target = yield* bench.kubelet.publish(volumeOf("web"))
        provider.respond(() => Effect.succeed(answer({ user: "bob", extra: "new" }, "v2")))
        // The driver's own clock: no kubelet asks for it.
        yield* Effect.sleep("1400 millis")
        assert.strictEqual(readFileSync(join(target, "user"), "utf8"), "bob")
        assert.isFalse(existsSync(join(target, "tls")))
        const [status] = yield* bench.kubernetes.all(POD_STATUSES)
        assert.include(JSON.stringify(status), '"version":"v2"')

        provider.respond(() => Effect.fail(new ProviderSays({ grpcCode: "PERMISSION_DENIED", details: "revoked" })))
        yield* Effect.sleep("1400 millis")
        yield* bench.kubelet.publish(volumeOf("web"))
        assert.strictEqual(readFileSync(join(target, "user"), "utf8"), "bob")
        const { body } = yield* get(`http://127.0.0.1:${port}/metrics`)
        const labels = [`provider="${PROVIDER}"`, 'error_type="GRPCProviderError"']
        assert.isAtLeast(valueOf(body, "rotation_reconcile_error_total", ...labels, 'rotated="true"') ?? 0, 1)
        assert.isAtLeast(valueOf(body, "rotation_reconcile_total", labels[0]!) ?? 0, 1)
        const events = yield* eventually(
          Effect.map(bench.kubernetes.all("events"), (all) => all.map((it) => JSON.stringify(it))),
          (seen) => seen.length === 1
        )
        assert.include(events[0], "MountRotationFailed")
        assert.include(events[0], "revoked")
      })
    )
  )

  it.live("2.7 #10: the mock provider's attribute mounts an empty tmpfs and asks nobody", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const world = yield* make()
        const { bench, provider } = world
        yield* bench.startDriver()
        yield* following(world)
        yield* bench.kubernetes.resetRequests
        const volume = volumeOf("web", { secretProviderClass: "none", attributes: { providerName: "Mock_Provider" } })
        const target = yield* bench.kubelet.publish(volume)
        assert.strictEqual(mountsAt(target).length, 1)
        assert.deepStrictEqual(readdirSync(target), [])
        assert.strictEqual(provider.asked.length, 0)
        assert.deepStrictEqual<unknown>(yield* bench.kubernetes.requests, [])
        yield* bench.kubelet.publish(volume)
        assert.strictEqual(mountsAt(target).length, 1)
        yield* bench.kubelet.unpublish(volume)
        assert.isTrue(isGone(target))
      })
    )
  )
})
