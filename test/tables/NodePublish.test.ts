import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Deferred, Effect, Exit, Fiber, FileSystem, Layer, Redacted, Result } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { MemoryNode } from "../../layers/fake/MemoryNode.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import { type NodePublishVolumeRequest, TOKENS_KEY } from "../../schemas/Csi.ts"
import { ProviderCallFailed, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { statusOf } from "../../src/csi/Status.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../src/ports/Mounter.ts"
import { exposition } from "../../src/telemetry/PrometheusText.ts"
import { Ending } from "../../src/volume/Ending.ts"
import * as MountedFiles from "../../src/volume/MountedFiles.ts"
import { publish } from "../../src/volume/NodePublish.ts"
import { unpublish } from "../../src/volume/NodeUnpublish.ts"
import { INTERVAL_KEY } from "../../src/volume/Rotation.ts"
import { VolumeTable } from "../../src/volume/VolumeTable.ts"
import * as Node from "../support/FakeNode.ts"

const never = Number.POSITIVE_INFINITY
const rotation = { rotationEnabled: true, rotationPollIntervalMillis: 120_000 } satisfies Partial<DriverConfig>

/** An interval, and the tenth by which the first one may be longer. */
const FIRST_DUE = "133 seconds"

const call = (request: NodePublishVolumeRequest = Node.request, deadlineMillis = never) =>
  publish(request, deadlineMillis)
const status = (request?: NodePublishVolumeRequest) =>
  Effect.map(Effect.flip(call(request)), (failure) => ({ ...statusOf(failure), code: failure.code }))

const mountPaths = Effect.flatMap(MemoryNode, (node) =>
  Effect.map(node.mounts, (mounts) => mounts.map(({ path }) => path))
)
const podStatuses = Effect.flatMap(MemoryKubernetes, (kubernetes) => kubernetes.all("secretproviderclasspodstatuses"))
const writes = Effect.flatMap(MemoryKubernetes, (kubernetes) =>
  Effect.map(kubernetes.requests, (requests) =>
    requests
      .filter(({ method, resource }) => method !== "GET" && resource !== "events")
      .reduce((sum, { count }) => sum + count, 0)
  )
)
const reads = Effect.flatMap(MemoryKubernetes, (kubernetes) =>
  Effect.map(kubernetes.requests, (requests) =>
    requests.filter(({ method, watch }) => method === "GET" && !watch).reduce((sum, { count }) => sum + count, 0)
  )
)

/** A few steps for each who has something to do. */
const settle = Effect.repeat(TestClock.adjust(1), { times: 20 })

/** A target and a class whose provider never answers: done when it is asked. */
const hanging = Effect.fnUntraced(function* (provider: Node.Script) {
  yield* Node.prepareTarget()
  yield* Node.putClass()
  const asked = yield* Deferred.make<void>()
  provider.mount = () => Effect.andThen(Deferred.succeed(asked, undefined), Effect.never)
  return asked
})

/** As another driver does, that finds an empty mount. */
const mountAnew = Effect.gen(function* () {
  const mounter = yield* Mounter
  yield* mounter.unmount(TargetPath.make(Node.TARGET))
  yield* mounter.mountTmpfs(TargetPath.make(Node.TARGET), { sizeBytes: 0, mode: 0o755 })
})

/** A test of one life of the driver, on a node and an API server of its own. */
const inWorld = <A, E, R>(
  body: (provider: Node.Script) => Effect.Effect<A, E, R>,
  settings: Partial<DriverConfig> = {}
) => {
  const provider = Node.script()
  const life = settings.rotationEnabled === true ? Effect.andThen(Node.rotating, body(provider)) : body(provider)
  return life.pipe(
    Effect.scoped,
    Effect.provide(Node.driverLayer(provider, settings).pipe(Layer.provideMerge(Node.worldLayer)))
  )
}

const failing = (grpcCode: ProviderCallFailed["grpcCode"], details = "sealed") =>
  Effect.fail(new ProviderCallFailed({ provider: "vault", grpcCode, details, unanswered: false }))

describe("NodePublish: refusals (2.7, 13.1 TestNodePublishVolume_Errors)", () => {
  const { volumeCapability: _, ...rest } = Node.request
  const without = { ...rest, volumeCapability: undefined }
  interface Row {
    readonly row: string
    readonly name: string
    readonly request: NodePublishVolumeRequest
    readonly class?: unknown
    readonly namespace?: string
    readonly grpc: string
    readonly says: RegExp
    readonly errorType?: string
  }
  const rows: ReadonlyArray<Row> = [
    {
      row: "2.7 #1",
      name: "volume capabilities nil",
      request: { ...without, volumeId: "", targetPath: "", volumeContext: {} },
      grpc: "INVALID_ARGUMENT",
      says: /^Volume capability missing in request$/u
    },
    {
      row: "2.7 #2",
      name: "volume id is empty",
      request: { ...Node.request, volumeId: "", targetPath: "", volumeContext: {} },
      grpc: "INVALID_ARGUMENT",
      says: /^Volume ID missing in request$/u
    },
    {
      row: "2.7 #3",
      name: "target path is empty",
      request: { ...Node.request, targetPath: "", volumeContext: {} },
      grpc: "INVALID_ARGUMENT",
      says: /^Target path missing in request$/u
    },
    {
      row: "2.7 #4",
      name: "volume context is not set",
      request: { ...Node.request, volumeContext: {} },
      grpc: "INVALID_ARGUMENT",
      says: /^Volume attributes missing in request$/u
    },
    {
      row: "2.7 #11",
      name: "no class named",
      request: { ...Node.request, volumeContext: { "csi.storage.k8s.io/pod.namespace": "default" } },
      grpc: "UNKNOWN",
      says: /^secretProviderClass is not set/u
    },
    {
      row: "2.7 #12",
      name: "secret provider class not found",
      request: Node.request,
      grpc: "UNKNOWN",
      says: /^failed to get secretproviderclass default\/spc, error: SecretProviderClass.secrets-store.csi.x-k8s.io "spc" not found/u,
      errorType: "SecretProviderClassNotFound"
    },
    {
      row: "2.7 #12",
      name: "spc missing: it exists in another namespace",
      request: Node.request,
      class: { provider: "vault", parameters: { a: "b" } },
      namespace: "other",
      grpc: "UNKNOWN",
      says: /not found/u,
      errorType: "SecretProviderClassNotFound"
    },
    {
      row: "2.7 #13",
      name: "provider not set in secret provider class",
      request: Node.request,
      class: { parameters: { a: "b" } },
      grpc: "UNKNOWN",
      says: /^provider not set in default\/spc/u
    },
    {
      row: "2.7 #14",
      name: "parameters not set in secret provider class",
      request: Node.request,
      class: { provider: "vault" },
      grpc: "UNKNOWN",
      says: /^parameters not set in default\/spc/u
    },
    {
      row: "2.7 #17",
      name: "read only is not set to true",
      request: { ...Node.request, readonly: false },
      class: { provider: "vault", parameters: { a: "b" } },
      grpc: "INVALID_ARGUMENT",
      says: /^Readonly is not true in request$/u
    }
  ]
  it.effect.each(rows)("$row $name, twice", ({ class: spec, errorType, grpc, namespace, request, says }) =>
    inWorld(() =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        if (spec !== undefined) yield* Node.putClass(spec, "spc", namespace)
        for (const time of [1, 2]) {
          const refused = yield* status(request)
          assert.strictEqual(refused.grpcCode, grpc)
          assert.match(refused.details, says)
          assert.strictEqual(refused.code, errorType ?? "FailedToMount")
          assert.include(
            yield* exposition(),
            `node_publish_error_total{error_type="${errorType ?? "FailedToMount"}"`,
            `${time}`
          )
        }
        assert.deepStrictEqual(yield* mountPaths, [])
      })
    )
  )

  it.effect("3.1 Q19 provider not installed: UNKNOWN, nothing mounted, the search is told", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        provider.locate = Effect.fail(
          new ProviderNotFound({
            provider: "vault",
            searched: [{ directory: "/providers", found: "empty" }],
            waitedMillis: 0
          })
        )
        const refused = yield* status()
        assert.deepStrictEqual([refused.grpcCode, refused.code], ["UNKNOWN", "FailedToLookupProviderGRPCClient"])
        assert.include(refused.details, 'provider not found: provider "vault", searched /providers (empty)')
        assert.deepStrictEqual(yield* mountPaths, [])
      })
    )
  )

  it.effect.each([
    {
      row: "3.4 #1 Q17",
      grpcCode: "PERMISSION_DENIED" as const,
      answer: failing("PERMISSION_DENIED"),
      says: /rpc error: code = PermissionDenied desc = sealed/u,
      code: "GRPCProviderError"
    },
    {
      row: "3.4 #1 D2",
      grpcCode: "UNAVAILABLE" as const,
      answer: failing("UNAVAILABLE"),
      says: /rpc error: code = Unavailable desc = sealed/u,
      code: "GRPCProviderError"
    },
    {
      row: "3.4 #2",
      grpcCode: "UNKNOWN" as const,
      answer: Effect.succeed({ ...Node.answer("v1"), errorCode: "AuthenticationFailed" }),
      says: /mount request failed with provider error code AuthenticationFailed/u,
      code: "AuthenticationFailed"
    },
    {
      row: "3.4 #3",
      grpcCode: "UNKNOWN" as const,
      answer: Effect.succeed({ ...Node.answer("v1"), objectVersions: [] }),
      says: /missing object versions/u,
      code: "GRPCProviderError"
    },
    {
      row: "3.4 #7 Q6",
      grpcCode: "UNKNOWN" as const,
      answer: Effect.succeed(Node.answer("v1", Node.file(".", "x"))),
      says: /invalid filepath: "\."/u,
      code: "FileWriteError"
    },
    {
      row: "4.2 #4",
      grpcCode: "UNKNOWN" as const,
      answer: Effect.succeed(Node.answer("v1", Node.file("../../etc/passwd", "x"))),
      says: /must not contain/u,
      code: "FileWriteError"
    }
  ])(
    "$row 13.1 TestMountContentError: a first publish that fails with $code leaves no mount, and its retry is no OK",
    ({ answer, code, grpcCode, says }) =>
      inWorld(
        (provider) =>
          Effect.gen(function* () {
            yield* Node.prepareTarget()
            yield* Node.putClass()
            provider.mount = () => answer
            for (const _ of [1, 2]) {
              const refused = yield* status()
              assert.deepStrictEqual([refused.grpcCode, refused.code], [grpcCode, code])
              assert.match(refused.details, says)
              assert.deepStrictEqual(yield* mountPaths, [])
            }
            // D2: with the fault gone, the same volume is mounted and filled.
            provider.mount = () => Effect.succeed(Node.answer("v1"))
            yield* call()
            assert.strictEqual(yield* Node.read("foo"), "secret v1")
          }),
        rotation
      )
  )

  it.effect("2.7 #21 a pod status that cannot be written undoes the mount", () =>
    inWorld(() =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        const kubernetes = yield* MemoryKubernetes
        yield* kubernetes.failNext(
          ({ method, resource }) => method === "POST" && resource.startsWith("secretproviderclasspodstatuses"),
          { status: 403, reason: "Forbidden" },
          { applied: false }
        )
        const refused = yield* status()
        assert.deepStrictEqual([refused.grpcCode, refused.code], ["UNKNOWN", "FailedToWritePodStatus"])
        assert.match(refused.details, /^failed to create secret provider class pod status for pod default\/web, err: /u)
        assert.deepStrictEqual(yield* mountPaths, [])
      })
    )
  )

  it.effect("3.2 UNAVAILABLE without an answer is tried three times, other codes once", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        provider.mount = () =>
          Effect.fail(
            new ProviderCallFailed({ provider: "vault", grpcCode: "UNAVAILABLE", details: "down", unanswered: true })
          )
        const fiber = yield* Effect.forkChild(status())
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* Fiber.join(fiber)).grpcCode, "UNAVAILABLE")
        assert.strictEqual(provider.calls.length, 3)
      })
    )
  )

  it.effect(
    "Q25 a provider that never answers: the caller hears its name before the deadline, and nothing is mounted",
    () =>
      inWorld((provider) =>
        Effect.gen(function* () {
          const asked = yield* hanging(provider)
          const fiber = yield* Effect.forkChild(Effect.flip(call(Node.request, 30_000)))
          yield* Deferred.await(asked)
          yield* TestClock.adjust("29 seconds")
          const failure = statusOf(yield* Fiber.join(fiber))
          assert.strictEqual(failure.grpcCode, "DEADLINE_EXCEEDED")
          assert.include(failure.details, 'provider "vault" did not answer within 29000 ms')
          assert.deepStrictEqual(yield* mountPaths, [])
        })
      )
  )

  it.effect("an interrupted first publish is undone", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        const asked = yield* hanging(provider)
        const fiber = yield* Effect.forkChild(call())
        yield* Deferred.await(asked)
        assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* mountPaths, [])
        assert.strictEqual((yield* VolumeTable).busy(), 0)
        assert.include(yield* exposition(), 'node_publish_error_total{error_type="Cancelled"')
      })
    )
  )

  it.effect.each([
    { name: "its own mount goes", another: false, written: "", expected: [] },
    { name: "so it does with what its provider has written there", another: false, written: "foo", expected: [] },
    { name: "the mount of the next driver stays", another: true, written: "", expected: [Node.TARGET] },
    {
      name: "also when that has begun to write",
      another: true,
      written: "..2026_01_01_00_00_01.1",
      expected: [Node.TARGET]
    }
  ])("S5 a driver that ends while a call hangs: $name", ({ another, expected, written }) =>
    inWorld((provider) =>
      Effect.gen(function* () {
        const asked = yield* hanging(provider)
        const fiber = yield* Effect.forkChild(Effect.provideService(call(), Ending, { isEnding: () => true }))
        yield* Deferred.await(asked)
        yield* TestClock.adjust("1 second")
        if (another) yield* mountAnew
        if (written !== "") yield* (yield* FileSystem.FileSystem).writeFileString(`${Node.TARGET}/${written}`, "secret")
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* mountPaths, expected)
      })
    )
  )

  it.effect.each([
    { name: "is cut off", end: (fiber: Fiber.Fiber<unknown, unknown>) => Fiber.interrupt(fiber) },
    { name: "fails", end: () => Effect.void }
  ])("S3 what another driver has published meanwhile stays when the call $name", ({ end }) =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        const [asked, over] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const refused = new ProviderCallFailed({
          provider: "vault",
          grpcCode: "INTERNAL",
          details: "no",
          unanswered: false
        })
        provider.mount = () =>
          Deferred.succeed(asked, undefined).pipe(
            Effect.andThen(Deferred.await(over)),
            Effect.andThen(Effect.fail(refused))
          )
        const fiber = yield* Effect.forkChild(call())
        yield* Deferred.await(asked)
        const files = yield* FileSystem.FileSystem
        yield* mountAnew
        yield* files.makeDirectory(`${Node.TARGET}/..2026_01_01_00_00_01.1`)
        yield* files.writeFileString(`${Node.TARGET}/..2026_01_01_00_00_01.1/foo`, "secret v2")
        yield* files.symlink("..2026_01_01_00_00_01.1", `${Node.TARGET}/..data`)
        yield* files.symlink("..data/foo", `${Node.TARGET}/foo`)
        yield* end(fiber)
        yield* Deferred.succeed(over, undefined)
        yield* Fiber.await(fiber)
        assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
        assert.strictEqual(yield* Node.read("foo"), "secret v2")
      })
    )
  )
})

describe("NodePublish: first mounts", () => {
  it.effect("13.1 volume mount: rotation off, two calls, one mount, one provider call, the metric rises twice", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        yield* call()
        yield* call()
        assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
        assert.strictEqual(provider.calls.length, 1)
        assert.strictEqual(yield* Node.read("foo"), "secret v1")
        const text = yield* exposition()
        assert.match(text, /node_publish_total\{[^}]*provider="vault"\} 2\n/u)
        assert.match(text, /secrets_store_publish_outcomes_total\{outcome="mounted",provider="vault"\} 1\n/u)
        assert.match(text, /secrets_store_publish_outcomes_total\{outcome="kept",provider="vault"\} 1\n/u)
      })
    )
  )

  it.effect("13.1 volume mount with refresh token: rotation on, always due: OK twice, one mount", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          const withTokens = { ...Node.request, serviceAccountTokens: Redacted.make('{"aud":{"token":"t"}}') }
          yield* call(withTokens)
          // The shortest interval there is: a second, and its tenth.
          yield* TestClock.adjust("1100 millis")
          yield* call(withTokens)
          assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
          assert.strictEqual(provider.calls.length, 2)
          for (const asked of provider.calls) assert.include(Redacted.value(asked.attributes), TOKENS_KEY)
        }),
      { rotationEnabled: true, rotationPollIntervalMillis: 0 }
    )
  )

  it.effect.each([
    { name: "no files", files: [], modes: {} },
    { name: "response with file", files: [Node.file("foo", "0", 0o666)], modes: { foo: 0o666 } },
    {
      name: "multiple files",
      files: [Node.file("foo", "0", 0o666), Node.file("bar", "1", 0o444)],
      modes: { foo: 0o666, bar: 0o444 }
    },
    {
      name: "nested files (linux)",
      files: [Node.file("foo", "0"), Node.file("baz/bar", "1", 0o777), Node.file("baz/qux", "2", 0o777)],
      modes: { foo: 0o644, "baz/bar": 0o777, "baz/qux": 0o777 }
    },
    {
      name: "nested files (windows): plain names here",
      files: [Node.file("foo", "0"), Node.file("baz\\bar", "1", 0o777), Node.file("baz\\qux", "2", 0o777)],
      modes: { foo: 0o644, "baz\\bar": 0o777, "baz\\qux": 0o777 }
    }
  ])("13.1 TestMountContent: $name", ({ files, modes }) =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        const objectVersions = [
          { id: "secret/secret1", version: "v1" },
          { id: "secret/secret2", version: "v2" }
        ]
        provider.mount = () => Effect.succeed({ objectVersions, errorCode: "", files, sizeBytes: 100 })
        yield* call()
        const found = yield* MountedFiles.list(Node.TARGET)
        assert.sameMembers([...found.keys()], Object.keys(modes))
        const disk = yield* FileSystem.FileSystem
        for (const [index, [path, mode]] of Object.entries(modes).entries()) {
          assert.strictEqual((yield* disk.stat(`${Node.TARGET}/${path}`)).mode & 0o777, mode, path)
          assert.strictEqual(yield* Node.read(path), String(index))
        }
        const [podStatus] = yield* podStatuses
        assert.deepNestedInclude(podStatus, { "status.objects": objectVersions })
      })
    )
  )

  it.effect("13.1 volume mount with rotation but skipped (Q3): a directory just made is mounted, not skipped", () =>
    inWorld(
      () =>
        Effect.gen(function* () {
          const files = yield* FileSystem.FileSystem
          yield* files.makeDirectory(Node.TARGET, { recursive: true })
          yield* Node.putClass()
          yield* call()
          assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
          assert.strictEqual(yield* Node.read("foo"), "secret v1")
        }),
      rotation
    )
  )

  it.effect("13.1 Q3 with a filled mount that is not due: skipped", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          yield* TestClock.adjust("119 seconds")
          yield* call()
          assert.strictEqual(provider.calls.length, 1)
          assert.match(yield* exposition(), /outcome="not_due",provider="vault"\} 1\n/u)
        }),
      rotation
    )
  )

  it.effect("5.5 the pod status has the shape of wire.md e.1", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        provider.mount = () =>
          Effect.succeed({
            ...Node.answer("v1"),
            objectVersions: [
              { id: "b", version: "v1" },
              { id: "a", version: "v2" }
            ]
          })
        yield* call()
        const [written] = yield* podStatuses
        const {
          creationTimestamp: _,
          resourceVersion: __,
          uid: ___,
          generation: ____,
          managedFields: _____,
          ...metadata
        } = Object(written?.["metadata"])
        assert.deepStrictEqual(metadata, {
          name: "web-default-spc",
          namespace: "default",
          labels: { "internal.secrets-store.csi.k8s.io/node-name": "node-1" },
          ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-1" }]
        })
        assert.deepStrictEqual<unknown>(written?.["status"], {
          podName: "web",
          secretProviderClassName: "spc",
          mounted: true,
          targetPath: Node.TARGET,
          objects: [
            { id: "a", version: "v2" },
            { id: "b", version: "v1" }
          ]
        })
      })
    )
  )

  it.effect(
    "one first publish: one write, no read once the namespace's classes are known; an unchanged refresh: none",
    () =>
      inWorld(
        () =>
          Effect.gen(function* () {
            yield* Node.putClass()
            yield* Node.prepareTarget()
            yield* call()
            const kubernetes = yield* MemoryKubernetes
            yield* kubernetes.resetRequests
            const second = Node.targetOf("uid-2")
            yield* Node.prepareTarget(second)
            const volumeContext = {
              ...Node.request.volumeContext,
              "csi.storage.k8s.io/pod.name": "web-2",
              "csi.storage.k8s.io/pod.uid": "uid-2"
            }
            const other = { ...Node.request, volumeId: "csi-2", targetPath: second, volumeContext }
            yield* call(other)
            assert.deepStrictEqual([yield* writes, yield* reads], [1, 0])
            yield* kubernetes.resetRequests
            yield* TestClock.adjust("3 minutes")
            yield* kubernetes.resetRequests
            yield* call(other)
            assert.deepStrictEqual([yield* writes, yield* reads], [0, 0])
          }),
        rotation
      )
  )

  it.effect("3.4 #6 no files in the answer: the provider wrote them, nothing is touched", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        yield* Node.prepareTarget()
        yield* Node.putClass()
        provider.mount = () =>
          Effect.as(Effect.orDie(files.writeFileString(`${Node.TARGET}/own`, "by the provider")), {
            ...Node.answer("v1"),
            files: []
          })
        yield* call()
        yield* call()
        assert.strictEqual(yield* Node.read("own"), "by the provider")
        assert.deepStrictEqual(yield* files.readDirectory(Node.TARGET), ["own"])
        assert.strictEqual(provider.calls.length, 1)
      })
    )
  )

  it.effect("3.4 #4 duplicate object ids: the last one wins; an empty version is one", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        provider.mount = () =>
          Effect.succeed({
            ...Node.answer("v1"),
            objectVersions: [
              { id: "a", version: "1" },
              { id: "a", version: "" }
            ]
          })
        yield* call()
        assert.deepStrictEqual((yield* VolumeTable).get(Node.TARGET)?.objectVersions, [{ id: "a", version: "" }])
      })
    )
  )

  it.effect("2.7 #10 mock_provider: mounted, without provider, class or pod status", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        const mock = {
          ...Node.request,
          volumeContext: { ...Node.request.volumeContext, providerName: "Mock_Provider" }
        }
        yield* call(mock)
        yield* call(mock)
        assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
        assert.deepStrictEqual([provider.calls.length, (yield* podStatuses).length], [0, 0])
      })
    )
  )

  it.effect("VOLUME_MOUNT_GROUP: root, directories and files get the pod's group before they are seen", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          const files = yield* FileSystem.FileSystem
          yield* Node.prepareTarget()
          yield* Node.putClass()
          provider.mount = () => Effect.succeed(Node.answer("v1", Node.file("dir/foo", "x", 0o400)))
          const volumeCapability = { ...Node.request.volumeCapability!, volumeMountGroup: "2000" }
          yield* call({ ...Node.request, volumeCapability })
          for (const path of ["", "/dir", "/dir/foo"]) {
            const info = yield* files.stat(`${Node.TARGET}${path}`)
            assert.strictEqual(info.gid._tag === "Some" ? info.gid.value : -1, 2000, path)
          }
          assert.strictEqual((yield* files.stat(`${Node.TARGET}/dir/foo`)).mode & 0o777, 0o440)
        }),
      { volumeMountGroup: true }
    )
  )

  it.effect("without the flag a mount group is not applied", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        yield* Node.prepareTarget()
        yield* Node.putClass()
        const volumeCapability = { ...Node.request.volumeCapability!, volumeMountGroup: "2000" }
        yield* call({ ...Node.request, volumeCapability })
        const info = yield* files.stat(`${Node.TARGET}/foo`)
        assert.strictEqual(info.gid._tag === "Some" ? info.gid.value : -1, 0)
      })
    )
  )

  it.effect("D7 the same class twice in a pod: two statuses, each naming its own target", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const second = Node.targetOf(Node.POD.uid, "more")
        yield* Node.putClass()
        for (const targetPath of [Node.TARGET, second]) {
          yield* Node.prepareTarget(targetPath)
          yield* call({ ...Node.request, targetPath })
        }
        const found = (yield* podStatuses).map((status) => Object(status["status"]).targetPath)
        assert.deepStrictEqual(found.sort(), [second, Node.TARGET].sort())
      })
    )
  )

  it.effect("Q14 mounted again after a reboot, a volume keeps the pod status that it had to give another name", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const second = Node.targetOf(Node.POD.uid, "more")
        yield* Node.putClass()
        for (const targetPath of [Node.TARGET, second]) {
          yield* Node.prepareTarget(targetPath)
          yield* call({ ...Node.request, targetPath })
        }
        const before = (yield* podStatuses).map((status) => Object(status["metadata"]).name)
        // The name that both wanted is free by now.
        yield* Node.removePodStatus(before.find((name) => !/-[0-9a-z]{13}$/u.test(name)))
        yield* (yield* MemoryNode).reboot
        yield* call({ ...Node.request, targetPath: second })
        const found = (yield* podStatuses).map((status) => Object(status["status"]).targetPath)
        assert.deepStrictEqual(found, [second])
      })
    )
  )

  it.each<{
    readonly known: string
    readonly follow: (table: VolumeTable["Service"], targetPath: string) => void
    readonly forget: boolean
  }>([
    { known: "by its record", follow: () => {}, forget: false },
    { known: "not yet", follow: (table) => void table.followPodStatuses(), forget: true },
    {
      known: "by the pod statuses of the node",
      follow: (table, targetPath) => table.followPodStatuses().all(new Set([targetPath])),
      forget: true
    }
  ])("S13 a volume whose directory was removed keeps its pod status, which is known $known", ({ follow, forget }) =>
    inWorld(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const table = yield* VolumeTable
        const second = Node.targetOf(Node.POD.uid, "more")
        yield* Node.putClass()
        for (const targetPath of [Node.TARGET, second]) {
          yield* Node.prepareTarget(targetPath)
          yield* call({ ...Node.request, targetPath })
        }
        const before = (yield* podStatuses).map((status) => Object(status["metadata"]).name)
        yield* Node.removePodStatus(before.find((name) => !/-[0-9a-z]{13}$/u.test(name)))
        // As a kubelet does after a republish that has failed for good.
        yield* (yield* MemoryNode).reboot
        yield* files.remove(second, { recursive: true })
        if (forget) table.remove(second)
        follow(table, second)
        yield* call({ ...Node.request, targetPath: second })
        const found = (yield* podStatuses).map((status) => Object(status["status"]).targetPath)
        assert.deepStrictEqual(found, [second])
      })
    ).pipe(Effect.runPromise)
  )

  it.effect("concurrent calls for one target run one after the other: one mount, one provider call", () =>
    inWorld((provider) =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        yield* Effect.all([call(), call(), call(), call()], { concurrency: 4 })
        assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
        assert.strictEqual(provider.calls.length, 1)
      })
    )
  )
})

describe("NodePublish: refreshes", () => {
  it.effect("2.7 a due republish brings new content in one swap, records it, and sends the current versions (D3)", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          provider.mount = () => Effect.succeed(Node.answer("v2"))
          yield* TestClock.adjust(FIRST_DUE)
          yield* call()
          assert.strictEqual(yield* Node.read("foo"), "secret v2")
          assert.deepStrictEqual(provider.calls[1]?.currentObjectVersions, [{ id: "secret/foo", version: "v1" }])
          const [written] = yield* podStatuses
          assert.deepStrictEqual<unknown>(Object(written?.["status"]).objects, [{ id: "secret/foo", version: "v2" }])
          assert.match(yield* exposition(), /rotation_reconcile_total\{[^}]*provider="vault",rotated="true"\} 1\n/u)
        }),
      rotation
    )
  )

  it.effect("same version, new content: the files follow all the same", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          provider.mount = () => Effect.succeed(Node.answer("v1", Node.file("foo", "changed")))
          yield* TestClock.adjust(FIRST_DUE)
          yield* call()
          assert.strictEqual(yield* Node.read("foo"), "changed")
        }),
      rotation
    )
  )

  it.effect("Q4 unchanged content counts as fresh: the next call comes one interval later", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          for (let minute = 0; minute < 60; minute++) {
            yield* TestClock.adjust("1 minute")
            yield* call()
          }
          // Due after two minutes and a bit, so at the third call; from then on every other one.
          assert.strictEqual(provider.calls.length, 1 + 29)
        }),
      rotation
    )
  )

  it.effect.each([
    { row: "2.7 #20", name: "the provider fails", fault: "provider", errorType: "GRPCProviderError" },
    { row: "2.7 #21", name: "the pod status cannot be written", fault: "status", errorType: "FailedToWritePodStatus" }
  ])("$row masked: $name, the caller hears OK, the pod keeps files and the failure is told", ({ errorType, fault }) =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          const kubernetes = yield* MemoryKubernetes
          provider.mount = () => (fault === "provider" ? failing("UNAVAILABLE") : Effect.succeed(Node.answer("v2")))
          if (fault === "status") {
            yield* kubernetes.failNext(
              ({ method }) => method === "PUT",
              { status: 403, reason: "Forbidden" },
              { applied: false }
            )
          }
          yield* TestClock.adjust(FIRST_DUE)
          yield* call()
          yield* TestClock.adjust("1 second")
          assert.strictEqual(yield* Node.read("foo"), fault === "provider" ? "secret v1" : "secret v2")
          assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
          const text = yield* exposition()
          assert.include(text, `rotation_reconcile_error_total{error_type="${errorType}"`)
          // D9: the call itself had nothing to complain of.
          assert.notInclude(text, "node_publish_error_total")
          assert.include(text, 'secrets_store_publish_outcomes_total{outcome="not_due",provider="vault"} 1')
          const events = yield* kubernetes.all("events")
          assert.deepStrictEqual(
            events.map(({ reason, type }) => [reason, type]),
            [["MountRotationFailed", "Warning"]]
          )
        }),
      rotation
    )
  )

  it.effect.each([
    { name: "masked: the kubelet hears OK", returnRotationErrors: false },
    { name: "not masked, if a flag says so", returnRotationErrors: true }
  ])("Q18 2.7 #11-18 $name; the class is gone, and the pod keeps its files", ({ returnRotationErrors }) =>
    inWorld(
      () =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          const api = yield* KubernetesApi
          yield* api.request({ method: "DELETE", path: `${Node.classPath("default")}/spc` })
          yield* TestClock.adjust("1 second")
          yield* TestClock.adjust(FIRST_DUE)
          const answered = yield* Effect.result(call())
          assert.deepStrictEqual(
            Result.isFailure(answered) ? answered.failure.code : "OK",
            returnRotationErrors ? "SecretProviderClassNotFound" : "OK"
          )
          assert.strictEqual(yield* Node.read("foo"), "secret v1")
          const text = yield* exposition()
          assert.include(text, 'rotation_reconcile_error_total{error_type="SecretProviderClassNotFound"')
          yield* TestClock.adjust("1 second")
          const kubernetes = yield* MemoryKubernetes
          const [gone, failed] = yield* kubernetes.all("events")
          assert.deepNestedInclude(gone, { type: "Warning", reason: "SecretProviderClassDeleted" })
          assert.match(String(failed?.["message"]), /"spc" not found; .*; next attempt in \d+s$/u)
        }),
      { ...rotation, returnRotationErrors }
    )
  )
})

describe("NodePublish: the interval of a volume", () => {
  const MINUTE = 60_000
  const asking = (interval: string) => ({
    ...Node.request,
    volumeContext: { ...Node.request.volumeContext, [INTERVAL_KEY]: interval }
  })
  const spec = { provider: "vault", parameters: { roleName: "r" } }

  /** Mounts, and republishes every minute for an hour and a minute. */
  const callsInAnHour = (request: NodePublishVolumeRequest, annotations: Readonly<Record<string, string>> = {}) =>
    Effect.gen(function* () {
      yield* Node.prepareTarget()
      yield* Node.putClass(spec, "spc", Node.POD.namespace, annotations)
      for (let minute = 0; minute <= 60; minute++) {
        yield* call(request)
        yield* TestClock.adjust(MINUTE)
      }
    })

  it.effect.each([
    { name: "the driver's two minutes", request: Node.request, annotations: {}, calls: 31 },
    { name: "the volume's ten minutes", request: asking("10m"), annotations: {}, calls: 7 },
    { name: "the class's ten minutes", request: Node.request, annotations: { [INTERVAL_KEY]: "10m" }, calls: 7 },
    { name: "the shorter of both", request: asking("1h"), annotations: { [INTERVAL_KEY]: "10m" }, calls: 7 },
    { name: "frozen by the volume", request: asking("never"), annotations: {}, calls: 1 },
    { name: "frozen by the class", request: asking("2m"), annotations: { [INTERVAL_KEY]: "0" }, calls: 1 },
    { name: "unreadable: the driver's", request: asking("soon"), annotations: {}, calls: 31 }
  ])("D1 $name: $calls provider calls in an hour", ({ annotations, calls, request }) =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* callsInAnHour(request, annotations)
          assert.strictEqual(provider.calls.length, calls)
        }),
      rotation
    )
  )

  it.effect("an interval that cannot be read is told on the pod, with what to write", () =>
    inWorld(
      () =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call(asking("soon"))
          yield* TestClock.adjust("1 second")
          const kubernetes = yield* MemoryKubernetes
          const [event] = yield* kubernetes.all("events")
          assert.deepNestedInclude(event, { type: "Warning", reason: "RotationIntervalInvalid" })
          assert.match(String(event?.["message"]), /"soon": give a duration such as 90s, or "never"/u)
        }),
      rotation
    )
  )

  it.effect("a class that is annotated while its volumes are mounted has its way at once", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          yield* Node.annotateClass({ [INTERVAL_KEY]: "10s" })
          yield* TestClock.adjust("1 second")
          yield* TestClock.adjust("9 seconds")
          assert.strictEqual(provider.calls.length, 2)
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual(provider.calls.length, 3)
          yield* Node.annotateClass({ [INTERVAL_KEY]: "never" })
          yield* TestClock.adjust("1 second")
          yield* TestClock.adjust("1 hour")
          yield* call()
          assert.strictEqual(provider.calls.length, 3)
        }),
      rotation
    )
  )

  it.effect(
    "D1, D4 a provider that fails is asked less and less often, never beyond the interval, and the pod is told when",
    () =>
      inWorld(
        (provider) =>
          Effect.gen(function* () {
            yield* Node.prepareTarget()
            yield* Node.putClass()
            yield* call()
            const asked: Array<number> = []
            provider.mount = () =>
              Effect.flatMap(Clock.currentTimeMillis, (now) => {
                asked.push(now)
                return failing("PERMISSION_DENIED")
              })
            // Of a kubelet that never stops asking: a republish every second.
            for (let second = 0; second < 800; second++) {
              yield* TestClock.adjust("1 second")
              yield* call()
            }
            const gaps = asked.slice(1).map((at, index) => at - (asked[index] ?? 0))
            for (const [index, expected] of [5_000, 10_000, 20_000, 40_000, 80_000].entries()) {
              assert.isAtLeast(gaps[index] ?? 0, 0.8 * expected)
              assert.isAtMost(gaps[index] ?? 0, 1.2 * expected)
            }
            for (const gap of gaps) assert.isAtMost(gap, 120_000)
            assert.isAtLeast(gaps.length, 8)
            const kubernetes = yield* MemoryKubernetes
            const events = yield* kubernetes.all("events")
            assert.match(String(events[0]?.["message"]), /provider "vault"; .*; next attempt in \d+s$/u)
            // One success, and everything is as before.
            provider.mount = () => Effect.succeed(Node.answer("v2"))
            yield* TestClock.adjust("2 minutes")
            const table = yield* VolumeTable
            const success = table.get(Node.TARGET)?.lastSuccessMillis ?? 0
            const calls = provider.calls.length
            yield* TestClock.adjust(success + 119_999 - (yield* Clock.currentTimeMillis))
            assert.strictEqual(provider.calls.length, calls)
            yield* TestClock.adjust(1)
            assert.strictEqual(provider.calls.length, calls + 1)
          }),
        rotation
      )
  )

  it.effect("a provider's own hint is kept to", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          provider.mount = () =>
            Effect.fail(
              new ProviderCallFailed({
                provider: "vault",
                grpcCode: "RESOURCE_EXHAUSTED",
                details: "slow down",
                unanswered: false,
                retryAfterMillis: 300_000
              })
            )
          const table = yield* VolumeTable
          yield* TestClock.adjust(table.get(Node.TARGET)?.schedule.dueMillis ?? 0)
          assert.strictEqual(provider.calls.length, 2)
          yield* TestClock.adjust("299 seconds")
          yield* call()
          assert.strictEqual(provider.calls.length, 2)
          yield* TestClock.adjust("1 second")
          assert.strictEqual(provider.calls.length, 3)
        }),
      rotation
    )
  )
})

describe("NodePublish: refreshed by the driver's own clock", () => {
  const inRotation = <A, E, R>(body: (provider: Node.Script) => Effect.Effect<A, E, R>) =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          return yield* body(provider)
        }),
      rotation
    )

  it.effect("D1, B2 new content comes without a republish, and is recorded; no publish is counted", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* call()
        provider.mount = () => Effect.succeed(Node.answer("v2"))
        yield* TestClock.adjust(FIRST_DUE)
        assert.strictEqual(yield* Node.read("foo"), "secret v2")
        assert.include(JSON.stringify(yield* podStatuses), '"version":"v2"')
        const text = yield* exposition()
        assert.match(text, /rotation_reconcile_total\{[^}]*\} 1\n/u)
        assert.match(text, /node_publish_total\{[^}]*\} 1\n/u)
      })
    )
  )

  it.effect("Q4 unchanged content: a call to the provider each interval, and nothing else", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* call()
        const before = yield* writes
        for (let minute = 0; minute < 24 * 60; minute++) {
          yield* TestClock.adjust("1 minute")
          yield* call()
        }
        assert.isAtMost(Math.abs(provider.calls.length - 720), 1)
        assert.strictEqual(yield* writes, before)
      })
    )
  )

  it.effect("a republish that is not due hands over its credentials", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        const tokens = (token: string) => ({
          ...Node.request,
          serviceAccountTokens: Redacted.make(JSON.stringify({ aud: { token } }))
        })
        yield* call(tokens("first"))
        yield* TestClock.adjust("90 seconds")
        yield* call(tokens("second"))
        assert.strictEqual(provider.calls.length, 1)
        yield* TestClock.adjust(FIRST_DUE)
        assert.strictEqual(provider.calls.length, 2)
        assert.include(Redacted.value(provider.calls[1]!.attributes), "second")
      })
    )
  )

  it.effect("a provider that hangs does not hold up the end of its volume", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* call()
        let interrupted = false
        provider.mount = () =>
          Effect.onInterrupt(Effect.never, () =>
            Effect.sync(() => {
              interrupted = true
            })
          )
        yield* TestClock.adjust(FIRST_DUE)
        assert.strictEqual(provider.calls.length, 2)
        yield* unpublish({ volumeId: Node.request.volumeId, targetPath: Node.TARGET })
        assert.isTrue(interrupted)
        assert.deepStrictEqual(yield* mountPaths, [])
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(provider.calls.length, 2)
      })
    )
  )

  it.effect("a class that is not at hand thaws and hastens nothing", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* Node.annotateClass({ [INTERVAL_KEY]: "never" })
        yield* TestClock.adjust("1 second")
        yield* call()
        const api = yield* KubernetesApi
        yield* api.request({ method: "DELETE", path: `${Node.classPath("default")}/spc` })
        yield* TestClock.adjust("1 second")
        yield* call()
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(provider.calls.length, 1)
        const kubernetes = yield* MemoryKubernetes
        assert.deepStrictEqual(
          (yield* kubernetes.all("events")).map(({ reason }) => reason),
          ["SecretProviderClassDeleted"]
        )
      })
    )
  )

  it.effect("S4 what is not mounted any more is not written to", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* call()
        const mounter = yield* Mounter
        yield* mounter.unmount(TargetPath.make(Node.TARGET))
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(provider.calls.length, 1)
        const files = yield* FileSystem.FileSystem
        assert.deepStrictEqual(yield* files.readDirectory(Node.TARGET), [])
      })
    )
  )
})

describe("NodePublish: a republish hands over and is answered at once", () => {
  const tokens = (token: string, expirationTimestamp: string) => ({
    ...Node.request,
    serviceAccountTokens: Redacted.make(JSON.stringify({ aud: { token, expirationTimestamp } }))
  })

  it.effect("while its volume is being refreshed: without waiting, and without ending the refresh", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          const answer = yield* Deferred.make<void>()
          provider.mount = () => Effect.as(Deferred.await(answer), Node.answer("v2"))
          yield* TestClock.adjust(FIRST_DUE)
          assert.strictEqual(provider.calls.length, 2)
          const republish = yield* Effect.forkChild(call(), { startImmediately: true })
          yield* TestClock.adjust(1)
          assert.isTrue(Exit.isSuccess(yield* Fiber.await(republish)))
          assert.match(yield* exposition(), /outcome="due",provider="vault"\} 1\n/u)
          yield* Deferred.succeed(answer, undefined)
          yield* settle
          assert.strictEqual(yield* Node.read("foo"), "secret v2")
          assert.strictEqual(provider.calls.length, 2)
        }),
      rotation
    )
  )

  it.effect("not due: no call to the provider, no request to the API server", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call()
          const kubernetes = yield* MemoryKubernetes
          yield* kubernetes.resetRequests
          for (let time = 0; time < 100; time++) yield* call()
          assert.strictEqual(provider.calls.length, 1)
          assert.deepStrictEqual([yield* reads, yield* writes], [0, 0])
        }),
      rotation
    )
  )

  it.effect("F3 35 expired tokens are waited for, which is told; fresh ones are used at once", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call(tokens("first", "1970-01-01T00:02:00Z"))
          yield* TestClock.adjust("1 hour")
          assert.strictEqual(provider.calls.length, 1)
          const kubernetes = yield* MemoryKubernetes
          const [event, ...more] = yield* kubernetes.all("events")
          assert.deepNestedInclude(event, { type: "Warning", reason: "MountRotationWaiting" })
          assert.match(
            String(event?.["message"]),
            /tokens of the volume expired at 1970-01-01T00:02:00.000Z; .*requiresRepublish/u
          )
          assert.deepStrictEqual(more, [])
          // These are no better.
          yield* call(tokens("second", "1970-01-01T00:59:59Z"))
          yield* TestClock.adjust("1 second")
          assert.strictEqual(provider.calls.length, 1)
          yield* call(tokens("third", "1970-01-01T02:00:00Z"))
          yield* settle
          assert.strictEqual(provider.calls.length, 2)
          assert.include(Redacted.value(provider.calls[1]!.attributes), "third")
        }),
      rotation
    )
  )

  it.effect("credentials that come while the provider is called are those of the next refresh", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass()
          yield* call(tokens("first", "1970-01-01T02:00:00Z"))
          provider.mount = () => Effect.delay(Effect.succeed(Node.answer("v1")), "10 seconds")
          yield* TestClock.adjust("125 seconds")
          yield* call(tokens("second", "1970-01-01T02:00:00Z"))
          yield* TestClock.adjust("3 minutes")
          assert.strictEqual(provider.calls.length, 3)
          assert.include(Redacted.value(provider.calls[2]!.attributes), "second")
        }),
      rotation
    )
  )
})

describe("NodePublish: a provider that is asked too much", () => {
  const throttling = Effect.fail(
    new ProviderCallFailed({ provider: "vault", grpcCode: "UNKNOWN", details: "StatusCode=429", unanswered: false })
  )
  const events = Effect.flatMap(MemoryKubernetes, (kubernetes) => kubernetes.all("events"))
  /** A first mount that meets a provider that throttles; it has ten seconds. */
  const starting = (provider: Node.Script) =>
    Effect.gen(function* () {
      yield* Node.putClass()
      const request = yield* Node.putPod()
      yield* TestClock.adjust("1 second")
      provider.mount = () => throttling
      const deadline = (yield* Clock.currentTimeMillis) + 11_000
      const first = yield* Effect.forkChild(Effect.result(call(request, deadline)), { startImmediately: true })
      yield* Effect.repeat(TestClock.adjust("100 millis"), { times: 120 })
      return { request, answer: yield* Fiber.join(first) }
    })
  const later = (seconds: number) => Effect.repeat(TestClock.adjust("100 millis"), { times: seconds * 10 })

  it.effect("S11 a first mount asks less and less often, hears why, and its pod is told", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          const { answer } = yield* starting(provider)
          if (!Result.isFailure(answer)) return assert.fail("answered OK")
          assert.strictEqual(statusOf(answer.failure).grpcCode, "RESOURCE_EXHAUSTED")
          assert.match(
            answer.failure.message,
            /"vault" was not asked within \d+ ms: it is asked too much, and said: .*429/u
          )
          // At once, and after about 1, 3 and 7 seconds.
          assert.strictEqual(provider.calls.length, 4)
          assert.deepStrictEqual(yield* mountPaths, [])
          assert.deepStrictEqual((yield* events).map(({ reason }) => reason).sort(), ["MountFailed", "MountWaiting"])
        }),
      rotation
    )
  )

  it.effect("L7 the mount goes on after its call, and the kubelet's next one finds it", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          const { request } = yield* starting(provider)
          provider.mount = () => Effect.succeed(Node.answer("v1"))
          yield* later(20)
          assert.deepStrictEqual(yield* mountPaths, [request.targetPath])
          const calls = provider.calls.length
          yield* call(request)
          assert.strictEqual(provider.calls.length, calls)
          assert.strictEqual((yield* podStatuses).length, 1)
        }),
      rotation
    )
  )

  const removePod = Effect.flatMap(KubernetesApi, (api) =>
    api.request({ method: "DELETE", path: `${Node.podsPath("default")}/web` })
  )
  const removeDirectory = Effect.flatMap(FileSystem.FileSystem, (files) =>
    files.remove("/var/lib/kubelet/pods", { recursive: true })
  )
  it.effect.each([
    { name: "when its pod is gone", end: () => Effect.asVoid(removePod) },
    { name: "when the kubelet has removed its directory", end: () => removeDirectory },
    { name: "when it is unpublished", end: (request: NodePublishVolumeRequest) => unpublish(request) }
  ])("it does not go on $name", ({ end }) =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          const { request } = yield* starting(provider)
          yield* end(request)
          yield* later(1)
          provider.mount = () => Effect.succeed(Node.answer("v1"))
          const calls = provider.calls.length
          yield* later(60)
          assert.strictEqual(provider.calls.length, calls)
          assert.deepStrictEqual(yield* mountPaths, [])
        }),
      rotation
    )
  )

  it.effect("a call that comes while the late mount is at work waits for it", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          const { request } = yield* starting(provider)
          const before = provider.calls.length
          provider.mount = () => Effect.delay(Effect.succeed(Node.answer("v1")), "5 seconds")
          while (provider.calls.length === before) yield* later(1)
          const next = yield* Effect.forkChild(call(request), { startImmediately: true })
          yield* later(10)
          assert.isTrue(Exit.isSuccess(yield* Fiber.await(next)))
          assert.strictEqual(provider.calls.length, before + 1)
        }),
      rotation
    )
  )

  it.effect("it is forgotten five minutes after its last call", () =>
    inWorld(
      (provider) =>
        Effect.gen(function* () {
          yield* starting(provider)
          yield* later(320)
          provider.mount = () => Effect.succeed(Node.answer("v1"))
          const calls = provider.calls.length
          yield* later(60)
          assert.strictEqual(provider.calls.length, calls)
        }),
      rotation
    )
  )
})

describe("NodePublish: after a restart or a crash", () => {
  /** Two lives of the driver on one node. */
  const lives = <A, B, E, F, R, S>(
    first: (provider: Node.Script) => Effect.Effect<A, E, R>,
    second: (provider: Node.Script) => Effect.Effect<B, F, S>,
    settings: Partial<DriverConfig> = {}
  ) => {
    const life = Effect.fnUntraced(function* <C, G, T>(body: (provider: Node.Script) => Effect.Effect<C, G, T>) {
      const provider = Node.script()
      const life = settings.rotationEnabled === true ? Effect.andThen(Node.rotating, body(provider)) : body(provider)
      return yield* Effect.provide(Effect.scoped(life), Layer.fresh(Node.driverLayer(provider, settings)))
    })
    return Effect.andThen(life(first), life(second)).pipe(Effect.provide(Node.worldLayer))
  }
  const mounted = () =>
    Effect.gen(function* () {
      yield* Node.prepareTarget()
      yield* Node.putClass()
      yield* call()
    })

  it.effect(
    "D3 a volume is learnt again: no provider call, its versions from the pod status, its age from the mtime",
    () =>
      lives(
        mounted,
        (provider) =>
          Effect.gen(function* () {
            yield* TestClock.adjust("1 minute")
            yield* call()
            assert.strictEqual(provider.calls.length, 0)
            yield* TestClock.adjust("73 seconds")
            assert.deepStrictEqual(provider.calls[0]?.currentObjectVersions, [{ id: "secret/foo", version: "v1" }])
            assert.strictEqual(yield* writes, 2)
          }),
        rotation
      )
  )

  it.effect.each([
    { name: "fetched once more while rotation is on", settings: rotation, calls: 1, objects: 1 },
    { name: "recorded as it is while rotation is off", settings: {}, calls: 0, objects: 0 }
  ])("a filled mount without a pod status is $name", ({ calls, objects, settings }) =>
    lives(
      mounted,
      (provider) =>
        Effect.gen(function* () {
          yield* Node.removePodStatus("web-default-spc")
          yield* call()
          yield* call()
          assert.strictEqual(provider.calls.length, calls)
          const [status, ...more] = yield* podStatuses
          assert.strictEqual((Object(status?.["status"]).objects ?? []).length, objects)
          assert.deepStrictEqual(more, [])
          assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
        }),
      settings
    )
  )

  it.effect("S14 a frozen volume without a pod status is recorded as it is", () =>
    lives(
      () =>
        Effect.gen(function* () {
          yield* Node.prepareTarget()
          yield* Node.putClass(undefined, "spc", "default", { [INTERVAL_KEY]: "never" })
          yield* call()
        }),
      (provider) =>
        Effect.gen(function* () {
          yield* Node.removePodStatus("web-default-spc")
          yield* call()
          yield* call()
          assert.strictEqual(provider.calls.length, 0)
          const [status, ...more] = yield* podStatuses
          assert.deepNestedInclude(status, { "status.targetPath": Node.TARGET, "status.mounted": true })
          assert.deepStrictEqual(more, [])
        }),
      rotation
    )
  )

  it.effect("without the API server at its start the driver refreshes all the same, and records it later", () =>
    lives(
      mounted,
      (provider) =>
        Effect.gen(function* () {
          const kubernetes = yield* MemoryKubernetes
          const isStatus = ({ path }: { readonly path: string }) => path.includes("podstatuses")
          yield* kubernetes.failNext(isStatus, { status: 503, reason: "ServiceUnavailable" }, { applied: false })
          yield* call()
          provider.mount = () => Effect.succeed(Node.answer("v2"))
          yield* TestClock.adjust(FIRST_DUE)
          assert.strictEqual(provider.calls.length, 1)
          assert.strictEqual(yield* Node.read("foo"), "secret v2")
          assert.strictEqual((yield* podStatuses).length, 1)
          assert.include(JSON.stringify(yield* podStatuses), '"version":"v2"')
        }),
      rotation
    )
  )

  it.effect.each([
    { name: "when it could not be written", method: "POST" },
    { name: "when it could not be looked for", method: "GET" }
  ] as const)("without rotation a pod status is written later, though nobody comes back: $name", ({ method }) =>
    lives(mounted, (provider) =>
      Effect.gen(function* () {
        yield* Node.removePodStatus("web-default-spc")
        const kubernetes = yield* MemoryKubernetes
        yield* kubernetes.failNext(
          (asked) => asked.method === method && asked.path.includes("podstatuses"),
          { status: 503, reason: "ServiceUnavailable" },
          { applied: false }
        )
        yield* call()
        yield* Effect.repeat(TestClock.adjust("1 second"), { times: 9 })
        assert.strictEqual(provider.calls.length, 0)
        const [status, ...more] = yield* podStatuses
        assert.deepNestedInclude(status, { "status.targetPath": Node.TARGET, "status.mounted": true })
        assert.deepStrictEqual(more, [])
      })
    )
  )

  it.effect("without the API server a running pod keeps its files, and the caller hears OK", () =>
    lives(mounted, (provider) =>
      Effect.gen(function* () {
        const kubernetes = yield* MemoryKubernetes
        yield* kubernetes.failNext(
          ({ method }) => method === "GET",
          { status: 503, reason: "ServiceUnavailable" },
          { applied: false }
        )
        yield* call()
        assert.strictEqual(provider.calls.length, 0)
        assert.strictEqual(yield* Node.read("foo"), "secret v1")
      })
    )
  )

  it.effect("Q3 (b) a mount without files is mounted afresh, once", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const node = yield* MemoryNode
        yield* Node.putClass()
        yield* files.makeDirectory(Node.TARGET, { recursive: true })
        yield* node.mount(Node.TARGET, { sizeBytes: 0, mode: 0o755 })
        yield* files.symlink("..data/foo", `${Node.TARGET}/foo`)
        yield* call()
        assert.deepStrictEqual(yield* mountPaths, [Node.TARGET])
        assert.strictEqual(yield* Node.read("foo"), "secret v1")
      })
    )
  )

  it.effect("2.8 a mount that cannot be entered is replaced", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const node = yield* MemoryNode
        yield* Node.prepareTarget()
        yield* Node.putClass()
        yield* call()
        yield* node.breakMount(Node.TARGET, "ESTALE")
        yield* call()
        assert.strictEqual((yield* mountPaths).length, 1)
        assert.strictEqual(yield* Node.read("foo"), "secret v1")
      })
    )
  )

  it.effect("after a reboot the directories are there and the mounts are not: mounted again", () =>
    lives(
      mounted,
      (provider) =>
        Effect.gen(function* () {
          yield* (yield* MemoryNode).reboot
          yield* call()
          assert.strictEqual(provider.calls.length, 1)
          assert.deepStrictEqual(provider.calls[0]?.currentObjectVersions, [])
          assert.strictEqual(yield* Node.read("foo"), "secret v1")
        }),
      rotation
    )
  )
})

describe("NodeUnpublish (2.9)", () => {
  const ask = { volumeId: "csi-1", targetPath: Node.TARGET }

  it.effect("13.1 TestNodeUnpublishVolume: a mounted volume, two calls: OK both, nothing left, the metric rises", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        yield* Node.prepareTarget()
        yield* Node.putClass()
        yield* call()
        const kubernetes = yield* MemoryKubernetes
        yield* kubernetes.resetRequests
        yield* unpublish(ask)
        yield* unpublish(ask)
        assert.deepStrictEqual(yield* mountPaths, [])
        assert.isFalse(yield* files.exists(Node.TARGET))
        assert.strictEqual((yield* VolumeTable).all().length, 0)
        assert.match(yield* exposition(), /node_unpublish_total\{[^}]*\} 2\n/u)
        // Neither the API server nor a provider is needed.
        assert.deepStrictEqual([yield* writes, yield* reads], [0, 0])
      })
    )
  )

  it.effect.each([
    { row: "2.9 #1 id empty", request: { volumeId: "", targetPath: "/t" }, says: "Volume ID missing in request" },
    { row: "2.9 #2 target empty", request: { volumeId: "v", targetPath: "" }, says: "Target path missing in request" }
  ])("13.1 TestNodeUnpublishVolume_Error $row", ({ request, says }) =>
    inWorld(() =>
      Effect.gen(function* () {
        const refused = statusOf(yield* Effect.flip(unpublish(request)))
        assert.deepStrictEqual([refused.grpcCode, refused.details], ["INVALID_ARGUMENT", says])
        assert.include(yield* exposition(), "node_unpublish_error_total{")
      })
    )
  )

  it.effect("2.9 #3 the sanity target is left alone, whatever its case", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        yield* files.makeDirectory("/tmp/csi/mount", { recursive: true })
        yield* unpublish({ volumeId: "v", targetPath: "/tmp/CSI/mount" })
        yield* unpublish({ volumeId: "v", targetPath: "/tmp/csi/mount" })
        assert.isTrue(yield* files.exists("/tmp/csi/mount"))
      })
    )
  )

  it.effect("2.9 #6 a plain directory with files is emptied and removed; a missing one is OK", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        yield* unpublish(ask)
        yield* files.makeDirectory(`${Node.TARGET}/dir`, { recursive: true })
        yield* files.writeFileString(`${Node.TARGET}/dir/.hidden`, "x")
        yield* unpublish(ask)
        assert.isFalse(yield* files.exists(Node.TARGET))
      })
    )
  )

  it.effect("2.9 stacked mounts are all taken away", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const node = yield* MemoryNode
        yield* files.makeDirectory(Node.TARGET, { recursive: true })
        yield* node.mount(Node.TARGET, { sizeBytes: 0, mode: 0o755 })
        yield* node.mount(Node.TARGET, { sizeBytes: 0, mode: 0o755 })
        yield* unpublish(ask)
        assert.deepStrictEqual(yield* mountPaths, [])
        assert.isFalse(yield* files.exists(Node.TARGET))
      })
    )
  )

  it.effect("2.9 #6 a corrupted mount is unmounted and removed", () =>
    inWorld(() =>
      Effect.gen(function* () {
        const node = yield* MemoryNode
        yield* Node.prepareTarget()
        yield* Node.putClass()
        yield* call()
        yield* node.breakMount(Node.TARGET, "ESTALE")
        yield* unpublish(ask)
        assert.deepStrictEqual(yield* mountPaths, [])
      })
    )
  )

  it.effect("an interrupted unpublish still ends what it began", () =>
    inWorld(() =>
      Effect.gen(function* () {
        yield* Node.prepareTarget()
        yield* Node.putClass()
        yield* call()
        const fiber = yield* Effect.forkChild(unpublish(ask), { startImmediately: true })
        const exit = yield* Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
        assert.isTrue(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause))
        yield* unpublish(ask)
        assert.deepStrictEqual(yield* mountPaths, [])
      })
    )
  )
})
