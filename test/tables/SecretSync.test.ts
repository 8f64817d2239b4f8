import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Effect, FileSystem, Layer, Redacted, Stream } from "effect"
import { TestClock } from "effect/testing"
import { isObject, objectAt } from "../../layers/fake/KubernetesObject.ts"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import { KEYS } from "../../src/sync/SecretPlan.ts"
import { publish } from "../../src/volume/NodePublish.ts"
import { unpublish } from "../../src/volume/NodeUnpublish.ts"
import * as Node from "../support/FakeNode.ts"

const never = Number.POSITIVE_INFINITY
const rotation = { rotationEnabled: true, rotationPollIntervalMillis: 120_000 } satisfies Partial<DriverConfig>
const deployment = (name: string) => ({ apiVersion: "apps/v1", kind: "ReplicaSet", name, uid: `uid-of-${name}` })

/** A ReplicaSet that exists, as a reference to it. */
const replicaSet = Effect.fn(function* (name = "rs") {
  const api = yield* KubernetesApi
  const made = yield* api.request({
    method: "POST",
    path: "/apis/apps/v1/namespaces/default/replicasets",
    body: { apiVersion: "apps/v1", kind: "ReplicaSet", metadata: { name }, spec: {} }
  })
  return { apiVersion: "apps/v1", kind: "ReplicaSet", name, uid: Resource.metadataOf(made).uid ?? "" }
})

const entry = (change: Readonly<Record<string, unknown>> = {}) => ({
  secretName: "synced",
  type: "Opaque",
  labels: { environment: "test" },
  annotations: { "an/annotation": "yes" },
  data: [{ objectName: "foo", key: "username" }],
  ...change
})
const classWith = (...secretObjects: ReadonlyArray<unknown>) => ({
  provider: "vault",
  parameters: { roleName: "r" },
  secretObjects
})

/** Events and watches take their way. */
const soon = Effect.repeat(TestClock.adjust("10 millis"), { times: 30 })
const later = (seconds: number) => Effect.repeat(TestClock.adjust("1 second"), { times: seconds })

const secrets = Effect.flatMap(MemoryKubernetes, (kubernetes) => kubernetes.all("secrets"))
const secret = Effect.map(secrets, ([first]) => first)
const decoded = (value: unknown) => Buffer.from(String(value), "base64").toString()
const contents = Effect.map(secrets, (all) =>
  all.map((it) => Object.fromEntries(Object.entries(objectAt(it, "data")).map(([key, value]) => [key, decoded(value)])))
)
const ownerUids = Effect.map(secret, (it) => {
  const references = isObject(it) ? objectAt(it, "metadata")["ownerReferences"] : []
  return Array.isArray(references) ? references.map(({ uid }) => uid) : []
})
const secretWrites = Effect.flatMap(MemoryKubernetes, (kubernetes) =>
  Effect.map(kubernetes.requests, (requests) =>
    requests
      .filter(({ method, resource }) => method !== "GET" && resource === "secrets")
      .reduce((sum, { count }) => sum + count, 0)
  )
)
const eventMessages = Effect.flatMap(MemoryKubernetes, (kubernetes) =>
  Effect.map(kubernetes.all("events"), (events) => events.map(({ message, reason }) => `${reason}: ${message}`))
)

const inSync = <A, E, R>(
  body: (provider: Node.Script) => Effect.Effect<A, E, R>,
  change: Partial<DriverConfig> = {},
  between: (api: KubernetesApi["Service"]) => KubernetesApi["Service"] = (api) => api
) => {
  const provider = Node.script()
  const running = change.rotationEnabled === true ? Effect.andThen(Node.rotating, Node.syncing) : Node.syncing
  return Effect.andThen(running, body(provider)).pipe(
    Effect.scoped,
    Effect.provide(
      Node.driverLayer(provider, change).pipe(
        Layer.provideMerge(Layer.effect(KubernetesApi, Effect.map(KubernetesApi, between))),
        Layer.provideMerge(Node.worldLayer)
      )
    )
  )
}

const mounted = (
  spec: unknown,
  metadata: Parameters<typeof Node.putPod>[1] = { ownerReferences: [deployment("rs-1")] },
  annotations: Readonly<Record<string, string>> = {}
) =>
  Effect.gen(function* () {
    yield* Node.putClass(spec, "spc", "default", annotations)
    const request = yield* Node.putPod(Node.POD, metadata)
    yield* soon
    yield* publish(request, never)
    yield* soon
    return request
  })

/** A Secret that a node has made. */
const putSynced = (annotations: Readonly<Record<string, string>>, name = "synced") =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "POST",
      path: "/api/v1/namespaces/default/secrets",
      body: {
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name, annotations, labels: { "secrets-store.csi.k8s.io/managed": "true" } },
        data: {}
      }
    })
  )

const deletePod = (name = Node.POD.name) =>
  Effect.flatMap(KubernetesApi, (api) => api.request({ method: "DELETE", path: `${Node.podsPath("default")}/${name}` }))

describe("a Secret is made of mounted files (6.3, 6.4)", () => {
  it.effect("created once, with data, labels, annotations and the owner of the pod, and not written again", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()))
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
        const made = yield* secret
        assert.deepNestedInclude(made, {
          "metadata.name": "synced",
          "metadata.labels": { environment: "test", "secrets-store.csi.k8s.io/managed": "true" },
          "metadata.ownerReferences": [deployment("rs-1")],
          type: "Opaque"
        })
        assert.strictEqual(yield* secretWrites, 1)
        yield* later(3_600)
        assert.strictEqual(yield* secretWrites, 1)
      })
    )
  )

  it.effect("6.7 a pod without owners: its pod status owns the Secret", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()), {})
        const made = yield* secret
        assert.deepNestedInclude(made, { "metadata.ownerReferences[0].kind": "SecretProviderClassPodStatus" })
      })
    )
  )

  it.effect("13.2 several owners: one reference each, told apart by uid (Q11)", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()))
        for (const [index, owner] of [
          deployment("rs-1"),
          deployment("rs-2"),
          { ...deployment("rs-2"), uid: "anew" }
        ].entries()) {
          const request = yield* Node.putPod({ ...Node.POD, name: `web-${index}` }, { ownerReferences: [owner] })
          yield* soon
          yield* publish(request, never)
          yield* soon
        }
        assert.deepStrictEqual(yield* ownerUids, ["uid-of-rs-1", "uid-of-rs-2", "anew"])
      })
    )
  )

  it.effect("D5, Q1 what others have put into it stays, and what was ours is mended", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()))
        const api = yield* KubernetesApi
        yield* api.request({
          method: "PATCH",
          path: "/api/v1/namespaces/default/secrets/synced",
          contentType: "application/merge-patch+json",
          body: {
            metadata: {
              labels: { theirs: "kept", environment: "changed" },
              annotations: { "their/own": "kept" },
              finalizers: ["their/finalizer"],
              ownerReferences: [deployment("rs-1"), { ...deployment("theirs"), kind: "Deployment" }]
            },
            data: { username: Buffer.from("changed").toString("base64"), surplus: "eA==" }
          }
        })
        yield* soon
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
        const made = yield* secret
        assert.deepNestedInclude(made, {
          "metadata.labels.theirs": "kept",
          "metadata.labels.environment": "test",
          "metadata.annotations.their/own": "kept",
          "metadata.finalizers": ["their/finalizer"]
        })
        assert.deepStrictEqual(yield* ownerUids, ["uid-of-rs-1", "uid-of-theirs"])
      })
    )
  )

  it.effect("7.1 it follows a rotation, also one under an unchanged version", () =>
    inSync(
      (provider) =>
        Effect.gen(function* () {
          yield* mounted(classWith(entry()))
          provider.mount = () => Effect.succeed(Node.answer("v2"))
          yield* TestClock.adjust("133 seconds")
          yield* soon
          assert.deepStrictEqual(yield* contents, [{ username: "secret v2" }])
          provider.mount = () => Effect.succeed(Node.answer("v2", Node.file("foo", "same version")))
          yield* TestClock.adjust("133 seconds")
          yield* soon
          assert.deepStrictEqual(yield* contents, [{ username: "same version" }])
          assert.strictEqual(yield* secretWrites, 3)
        }),
      rotation
    )
  )

  it.effect("S9, L4 a Secret of a later version of the class than the one that is known here is not removed", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()))
        const api = yield* KubernetesApi
        yield* api.request({
          method: "PATCH",
          path: "/api/v1/namespaces/default/secrets/synced",
          contentType: "application/merge-patch+json",
          body: { metadata: { annotations: { [KEYS.classVersion]: "9999-01-01T00:00:00Z/000000000001" } } }
        })
        yield* Node.changeClass({ secretObjects: [entry({ secretName: "second" })] })
        yield* later(60)
        assert.sameDeepMembers([...(yield* contents)], [{ username: "secret v1" }, { username: "secret v1" }])
        assert.notInclude(JSON.stringify(yield* secrets), KEYS.unused)
      })
    )
  )

  it.effect("deleted while it is used: made again within 5 s", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()))
        const api = yield* KubernetesApi
        yield* api.request({ method: "DELETE", path: "/api/v1/namespaces/default/secrets/synced" })
        yield* soon
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
      })
    )
  )

  it.effect("Q36, L4 an edit of the class is reflected: keys, names, labels", () =>
    inSync((provider) =>
      Effect.gen(function* () {
        provider.mount = () => Effect.succeed(Node.answer("v1", Node.file("foo", "1"), Node.file("bar", "2")))
        yield* mounted(classWith(entry()))
        yield* Node.changeClass({
          secretObjects: [
            entry({ data: [{ objectName: "bar", key: "password" }], labels: { environment: "production" } }),
            entry({ secretName: "second" })
          ]
        })
        yield* soon
        assert.sameDeepMembers([...(yield* contents)], [{ password: "2" }, { username: "1" }])
        yield* Node.changeClass({ secretObjects: [entry({ secretName: "second" })] })
        yield* later(30)
        assert.deepStrictEqual(yield* contents, [{ username: "1" }])
      })
    )
  )
})

describe("what the class does not ask for any more (L4, S7)", () => {
  it.effect("labels, annotations and keys of ours go; those of others stay", () =>
    inSync((provider) =>
      Effect.gen(function* () {
        provider.mount = () => Effect.succeed(Node.answer("v1", Node.file("foo", "1"), Node.file("bar", "2")))
        const both = [
          { objectName: "foo", key: "a" },
          { objectName: "bar", key: "b" }
        ]
        yield* mounted(classWith(entry({ data: both, labels: { environment: "test", team: "one" } })))
        const api = yield* KubernetesApi
        yield* api.request({
          method: "PATCH",
          path: "/api/v1/namespaces/default/secrets/synced",
          query: { fieldManager: "somebody" },
          contentType: "application/merge-patch+json",
          body: { metadata: { labels: { theirs: "kept" }, annotations: { theirs: "kept" } } }
        })
        yield* soon
        yield* Node.changeClass({
          secretObjects: [entry({ data: [both[0]], labels: { team: "one" }, annotations: {} })]
        })
        yield* soon
        assert.deepStrictEqual(yield* contents, [{ a: "1" }])
        const metadata = objectAt((yield* secret) ?? {}, "metadata")
        assert.deepStrictEqual(objectAt(metadata, "labels"), {
          team: "one",
          theirs: "kept",
          "secrets-store.csi.k8s.io/managed": "true"
        })
        const annotations = objectAt(metadata, "annotations")
        assert.strictEqual(annotations["theirs"], "kept")
        assert.notProperty(annotations, "an/annotation")
      })
    )
  )
})

describe("two classes ask for one Secret", () => {
  const second = (name: string) =>
    Effect.gen(function* () {
      const request = yield* Node.putPod({ ...Node.POD, name: `pod-of-${name}` }, {}, undefined, name)
      yield* soon
      yield* publish(request, never)
      yield* soon
      return request
    })

  it.effect(
    "the one that was created later counts, whichever was mounted last; the other when that is used no more",
    () =>
      inSync((provider) =>
        Effect.gen(function* () {
          provider.mount = ({ attributes }) =>
            Effect.succeed(
              Node.answer("v1", Node.file("foo", Redacted.value(attributes).includes("late") ? "late" : "early"))
            )
          yield* mounted(classWith(entry()))
          yield* later(2)
          yield* Node.putClass({ ...classWith(entry()), parameters: { roleName: "late" } }, "late")
          const request = yield* second("late")
          assert.deepStrictEqual(yield* contents, [{ username: "late" }])
          const writes = yield* secretWrites
          const again = yield* Node.putPod({ ...Node.POD, name: "another" })
          yield* soon
          yield* publish(again, never)
          yield* later(600)
          assert.deepStrictEqual(yield* contents, [{ username: "late" }])
          // The new pod's status owns it as well.
          assert.isAtMost((yield* secretWrites) - writes, 1)
          yield* unpublish(request)
          yield* deletePod("pod-of-late")
          yield* later(330)
          assert.deepStrictEqual(yield* contents, [{ username: "early" }])
        })
      )
  )
})

describe("a Secret that is not ours (Q2, S7)", () => {
  const theirs = Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "POST",
      path: "/api/v1/namespaces/default/secrets",
      body: { apiVersion: "v1", kind: "Secret", metadata: { name: "synced", labels: { a: "b" } }, data: { x: "eA==" } }
    })
  )
  it.effect("is left alone, and the pod is told what to do", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* theirs
        yield* mounted(classWith(entry()))
        yield* later(60)
        assert.deepStrictEqual(yield* contents, [{ x: "x" }])
        const [message] = yield* eventMessages
        assert.match(
          message ?? "",
          /FailedToCreateSecret: secret default\/synced exists and is not managed by the driver/u
        )
        assert.strictEqual(yield* secretWrites, 1)
      })
    )
  )
  it.effect("is taken over when the class asks for it", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* theirs
        yield* mounted(classWith(entry()), undefined, { "secrets-store.csi.k8s.io/adopt-secrets": "true" })
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
        assert.deepNestedInclude(yield* secret, { "metadata.labels.a": "b" })
      })
    )
  )
})

describe("what is wrong is told, and holds up nobody else (Q10)", () => {
  it.effect.each([
    {
      row: "6.3 #10c, 6.5",
      name: "no such file",
      entry: entry({ data: [{ objectName: "none", key: "k" }] }),
      says: /failed to get data in spc default\/spc for secret synced, err: file matching objectName none not found in the pod/u
    },
    {
      row: "6.5",
      name: "no key",
      entry: entry({ data: [{ objectName: "foo" }] }),
      says: /err: key in secretObjects.data is empty/u
    },
    {
      row: "6.6",
      name: "no certificate",
      entry: entry({ type: "kubernetes.io/tls", data: [{ objectName: "foo", key: "tls.crt" }] }),
      says: /failed to get cert data from file/u
    }
  ])("$row $name: an Event on the pod, and the other Secret of the class is there", ({ entry: wrong, says }) =>
    inSync(() =>
      Effect.gen(function* () {
        // It is loaded when the first such file is met, which takes real time.
        yield* Effect.promise(() => import("../../layers/real/Pkcs12.ts"))
        yield* mounted(classWith(wrong, entry({ secretName: "right" })))
        yield* soon
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
        assert.match((yield* eventMessages).join("\n"), says)
      })
    )
  )

  it.effect("Q12, 6.8 without the right to write Secrets: one Event with the hint, and it goes on once it may", () =>
    inSync(() =>
      Effect.gen(function* () {
        const kubernetes = yield* MemoryKubernetes
        for (let time = 0; time < 3; time++) {
          yield* kubernetes.failNext(
            ({ method, path }) => method === "POST" && path.endsWith("/secrets"),
            { status: 403, reason: "Forbidden" },
            { applied: false }
          )
        }
        yield* mounted(classWith(entry()))
        yield* later(30)
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
        const messages = yield* eventMessages
        assert.strictEqual(messages.length, 1)
        assert.match(messages[0] ?? "", /syncSecret.enabled=true/u)
      })
    )
  )
})

describe("the steps of a reconcile that meet a fault (6.3)", () => {
  const isCreation = ({ method, path }: { readonly method: string; readonly path: string }) =>
    method === "POST" && path.endsWith("/secrets")

  // While its pod is there it is written again; see PodStatusKeeper.
  it.effect("#1 a pod status that is gone with its pod: nothing is made of it", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()))
        yield* later(1)
        yield* deletePod()
        const api = yield* KubernetesApi
        const kubernetes = yield* MemoryKubernetes
        const [podStatus] = yield* kubernetes.all("secretproviderclasspodstatuses")
        yield* Node.removePodStatus(Resource.metadataOf(podStatus).name ?? "")
        yield* soon
        yield* api.request({ method: "DELETE", path: "/api/v1/namespaces/default/secrets/synced" })
        yield* later(30)
        assert.deepStrictEqual(yield* secrets, [])
        assert.deepStrictEqual(yield* eventMessages, [])
      })
    )
  )

  it.effect("#4 a class that is gone: what was made of it stays, and it is made again once the class is back", () =>
    inSync(() =>
      Effect.gen(function* () {
        yield* mounted(classWith(entry()))
        const api = yield* KubernetesApi
        yield* Node.removeClass()
        yield* later(600)
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
        yield* api.request({ method: "DELETE", path: "/api/v1/namespaces/default/secrets/synced" })
        yield* Node.putClass(classWith(entry()))
        yield* soon
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
      })
    )
  )

  it.effect("#9 files that cannot be read: one Event that says so, and they are read once they can be", () =>
    inSync(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const { targetPath } = yield* mounted(classWith(entry()))
        yield* later(1)
        yield* files.rename(`${targetPath}/..data`, `${targetPath}/..kept`)
        yield* files.symlink("..none", `${targetPath}/..data`)
        yield* Node.changeClass({ secretObjects: [entry({ data: [{ objectName: "foo", key: "renamed" }] })] })
        yield* later(60)
        const messages = yield* eventMessages
        assert.strictEqual(messages.length, 1)
        assert.match(messages[0] ?? "", /FailedToCreateSecret: failed to get mounted files, err: /u)
        assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
        yield* files.remove(`${targetPath}/..data`)
        yield* files.rename(`${targetPath}/..kept`, `${targetPath}/..data`)
        yield* later(300)
        assert.deepStrictEqual(yield* contents, [{ renamed: "secret v1" }])
      })
    )
  )

  it.effect("#10e a Secret that somebody else has made meanwhile: it is looked at again at once, and no Event", () =>
    inSync(
      () =>
        Effect.gen(function* () {
          yield* mounted(classWith(entry()))
          yield* later(1)
          assert.deepStrictEqual(yield* contents, [{ username: "secret v1" }])
          assert.deepStrictEqual(yield* eventMessages, [])
        }),
      {},
      (api) => ({
        ...api,
        // Another node is a moment ahead, with the same Secret.
        request: (request) =>
          isCreation(request) ? Effect.andThen(api.request(request), api.request(request)) : api.request(request)
      })
    )
  )

  it.effect("#10f, #11 what the API server refuses: one Event, the other Secret is there, and it is tried again", () =>
    inSync(() =>
      Effect.gen(function* () {
        const kubernetes = yield* MemoryKubernetes
        for (let time = 0; time < 5; time++) {
          yield* kubernetes.failNext(
            (request) => isCreation(request) && JSON.stringify(request.body).includes('"name":"synced"'),
            { status: 500, reason: "InternalError" },
            { applied: false }
          )
        }
        yield* mounted(classWith(entry(), entry({ secretName: "other" })))
        yield* soon
        const names = Effect.map(secrets, (all) => all.map((it) => Resource.metadataOf(it).name))
        assert.deepStrictEqual(yield* names, ["other"])
        assert.match(
          (yield* eventMessages).join("\n"),
          /^FailedToCreateSecret: failed to write secret default\/synced/u
        )
        yield* later(120)
        assert.sameDeepMembers([...(yield* names)], ["other", "synced"])
        assert.strictEqual((yield* eventMessages).length, 1)
      })
    )
  )

  it.effect("#12 files that a provider has written itself, and nobody has told of: within five minutes", () =>
    inSync(() =>
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const { targetPath } = yield* mounted(classWith(entry()))
        yield* later(1)
        yield* files.remove(`${targetPath}/..data`)
        yield* files.remove(`${targetPath}/foo`)
        yield* files.writeFileString(`${targetPath}/foo`, "written by the provider")
        yield* later(310)
        assert.deepStrictEqual(yield* contents, [{ username: "written by the provider" }])
      })
    )
  )
})

describe("a Secret lives as long as pods use it (L5, S9)", () => {
  const end = (request: Parameters<typeof unpublish>[0], name?: string) =>
    Effect.gen(function* () {
      yield* unpublish(request)
      yield* deletePod(name)
      const kubernetes = yield* MemoryKubernetes
      yield* kubernetes.collectGarbage
    })

  it.effect("after its last pod it is marked, and gone within a minute", () =>
    inSync(() =>
      Effect.gen(function* () {
        const owner = yield* replicaSet()
        const request = yield* mounted(classWith(entry()), { ownerReferences: [owner] })
        yield* end(request)
        yield* later(2)
        assert.strictEqual((yield* secrets).length, 1)
        yield* later(58)
        assert.deepStrictEqual(yield* secrets, [])
        // Nobody here is left to be followed for.
        yield* later(300)
        const kubernetes = yield* MemoryKubernetes
        assert.strictEqual(yield* kubernetes.openWatches("secrets"), 0)
      })
    )
  )

  it.effect.each([
    {
      name: "a pod of another node mounts the class",
      spec: {
        volumes: [
          { name: "v", csi: { driver: "secrets-store.csi.k8s.io", volumeAttributes: { secretProviderClass: "spc" } } }
        ]
      }
    },
    {
      name: "a pod has it in its environment",
      spec: {
        containers: [
          { name: "c", env: [{ name: "E", valueFrom: { secretKeyRef: { name: "synced", key: "username" } } }] }
        ]
      }
    },
    { name: "a pod mounts it", spec: { volumes: [{ name: "v", secret: { secretName: "synced" } }] } }
  ])("not while $name", ({ spec }) =>
    inSync(() =>
      Effect.gen(function* () {
        const owner = yield* replicaSet()
        const request = yield* mounted(classWith(entry()), { ownerReferences: [owner] })
        const api = yield* KubernetesApi
        yield* api.request({
          method: "POST",
          path: Node.podsPath("default"),
          body: { apiVersion: "v1", kind: "Pod", metadata: { name: "user" }, spec: { nodeName: "node-2", ...spec } }
        })
        yield* end(request)
        yield* later(120)
        assert.strictEqual((yield* secrets).length, 1)
        // It goes without having run here: nobody else would notice.
        yield* deletePod("user")
        yield* later(60)
        assert.deepStrictEqual(yield* secrets, [])
      })
    )
  )

  const patchSecret = (api: KubernetesApi["Service"], annotations: Readonly<Record<string, string | null>>) =>
    api.request({
      method: "PATCH",
      path: "/api/v1/namespaces/default/secrets/synced",
      contentType: "application/merge-patch+json",
      body: { metadata: { annotations } }
    })

  /** @shape (Secret, or a patch of one) -> since when nobody uses it, as it says */
  const markOf = (body: unknown): unknown =>
    isObject(body) ? objectAt(objectAt(body, "metadata"), "annotations")[KEYS.unused] : undefined

  it.effect("S18 not when somebody has taken the mark away after the pods were listed", () => {
    let takenAway = 0
    const markedMillis = (body: unknown) => {
      const since = markOf(body)
      return typeof since === "string" ? DateTime.toEpochMillis(DateTime.makeUnsafe(since)) : Number.POSITIVE_INFINITY
    }
    return inSync(
      () =>
        Effect.gen(function* () {
          const owner = yield* replicaSet()
          const request = yield* mounted(classWith(entry()), { ownerReferences: [owner] })
          yield* end(request)
          yield* later(60)
          const kubernetes = yield* MemoryKubernetes
          assert.isAbove(takenAway, 1)
          assert.strictEqual((yield* secrets).length, 1)
          assert.isAbove(yield* kubernetes.requestCount({ method: "DELETE", resource: "secrets" }), 0)
        }),
      {},
      (api) => ({
        ...api,
        request: (request) =>
          request.method === "GET" && request.path.endsWith("/pods") && request.query?.["fieldSelector"] === undefined
            ? Effect.tap(api.request(request), () =>
                Effect.gen(function* () {
                  const found = yield* api.request({
                    method: "GET",
                    path: "/api/v1/namespaces/default/secrets/synced"
                  })
                  // When nothing but the removal is left to do.
                  if (markedMillis(found) + 10_000 > (yield* Clock.currentTimeMillis)) return
                  takenAway += 1
                  yield* patchSecret(api, { [KEYS.unused]: null })
                })
              )
            : api.request(request)
      })
    )
  })

  it.effect("S10 a mark that somebody takes away at once is set again after ten seconds, not at once", () => {
    let marks = 0
    return inSync(
      () =>
        Effect.gen(function* () {
          const owner = yield* replicaSet()
          const request = yield* mounted(classWith(entry()), { ownerReferences: [owner] })
          yield* end(request)
          yield* later(60)
          assert.isAtLeast(marks, 4)
          assert.isAtMost(marks, 7)
        }),
      {},
      (api) => ({
        ...api,
        request: (request) =>
          request.method === "PATCH" && typeof markOf(request.body) === "string"
            ? Effect.tap(api.request(request), () => {
                marks += 1
                return marks > 1_000 ? Effect.never : patchSecret(api, { [KEYS.unused]: null })
              })
            : api.request(request)
      })
    )
  })

  it.effect("S9 not because of pods that were listed long ago", () =>
    inSync(
      () =>
        Effect.gen(function* () {
          const owner = yield* replicaSet()
          const request = yield* mounted(classWith(entry()), { ownerReferences: [owner] })
          yield* end(request)
          yield* later(180)
          assert.strictEqual((yield* secrets).length, 1)
        }),
      {},
      (api) => ({
        ...api,
        request: (request) =>
          request.method === "GET" && request.path.endsWith("/pods") && request.query?.["fieldSelector"] === undefined
            ? Effect.tap(api.request(request), () => Effect.sleep("6 seconds"))
            : api.request(request)
      })
    )
  )

  it.effect("S8 a note of the future counts as long as there is the pod that it is for", () =>
    inSync(() =>
      Effect.gen(function* () {
        const api = yield* KubernetesApi
        yield* mounted(classWith(entry()), { ownerReferences: [yield* replicaSet()] })
        const [ours] = yield* contents
        const user = yield* api.request({
          method: "POST",
          path: Node.podsPath("default"),
          body: { apiVersion: "v1", kind: "Pod", metadata: { name: "user" }, spec: { nodeName: "node-2" } }
        })
        yield* api.request({
          method: "PATCH",
          path: "/api/v1/namespaces/default/secrets/synced",
          contentType: "application/merge-patch+json",
          body: {
            metadata: {
              annotations: {
                [KEYS.fetched]: "2999_01_01_00_00_00.1",
                [KEYS.fetchedFor]: Resource.metadataOf(user).uid ?? ""
              }
            },
            data: { username: Buffer.from("of another node").toString("base64") }
          }
        })
        yield* later(600)
        assert.deepStrictEqual(yield* contents, [{ username: "of another node" }])
        yield* deletePod("user")
        yield* later(310)
        assert.deepStrictEqual(yield* contents, [ours])
      })
    )
  )

  it.effect("L4 a note of the future that a volume here is said to have made is taken back: others believe it", () =>
    inSync(() =>
      Effect.gen(function* () {
        const api = yield* KubernetesApi
        yield* mounted(classWith(entry()), { ownerReferences: [yield* replicaSet()] })
        const before = yield* secret
        yield* api.request({
          method: "PATCH",
          path: "/api/v1/namespaces/default/secrets/synced",
          contentType: "application/merge-patch+json",
          body: { metadata: { annotations: { [KEYS.fetched]: "2999_01_01_00_00_00.1" } } }
        })
        yield* later(310)
        const after = yield* secret
        const annotationsOf = (object: unknown) =>
          isObject(object) ? objectAt(objectAt(object, "metadata"), "annotations") : undefined
        assert.isDefined(annotationsOf(before)?.[KEYS.fetched])
        assert.deepStrictEqual(annotationsOf(after), annotationsOf(before))
        yield* later(310)
        assert.deepStrictEqual(yield* secret, after)
      })
    )
  )

  it.effect("S9 an old mark is taken away by whoever sees a user, also when that is another node's", () =>
    inSync(() =>
      Effect.gen(function* () {
        const owner = yield* replicaSet()
        const request = yield* mounted(classWith(entry()), { ownerReferences: [owner] })
        const api = yield* KubernetesApi
        yield* end(request)
        yield* later(3)
        assert.include(JSON.stringify(yield* secret), "unused-since")
        yield* api.request({
          method: "POST",
          path: Node.podsPath("default"),
          body: {
            apiVersion: "v1",
            kind: "Pod",
            metadata: { name: "user" },
            spec: { nodeName: "node-2", volumes: [{ name: "v", secret: { secretName: "synced" } }] }
          }
        })
        yield* later(15)
        assert.notInclude(JSON.stringify(yield* secret), "unused-since")
        // So the next pause begins with a new mark.
        yield* deletePod("user")
        yield* later(24)
        assert.include(JSON.stringify(yield* secret), "unused-since")
        yield* later(11)
        assert.deepStrictEqual(yield* secrets, [])
      })
    )
  )

  it.effect(
    "after an hour in which the API server did not answer: within a minute, with few requests meanwhile",
    () => {
      let isDown = false
      let asked = 0
      const unreachable = new KubernetesApiFailed({
        method: "GET",
        path: "",
        status: 0,
        reason: "Network",
        detail: "connection refused"
      })
      return inSync(
        () =>
          Effect.gen(function* () {
            const owner = yield* replicaSet()
            const entries = Array.from({ length: 10 }, (_, index) => entry({ secretName: `synced-${index}` }))
            const request = yield* mounted(classWith(...entries), { ownerReferences: [owner] })
            assert.strictEqual((yield* secrets).length, 10)
            isDown = true
            yield* end(request)
            yield* later(3_590)
            // By their own waits each of them a dozen times, then every five minutes; and one every half minute for all.
            assert.isBelow(asked, 10 * (10 + 3_600 / 240) + 3_600 / 30)
            isDown = false
            yield* later(60)
            assert.deepStrictEqual(yield* secrets, [])
          }),
        {},
        (api) => ({
          ...api,
          request: (request) =>
            Effect.suspend(() => {
              if (!isDown || !/\/secrets\/[^/]+$/u.test(request.path)) return api.request(request)
              asked += 1
              return Effect.fail(unreachable)
            })
        })
      )
    }
  )

  it.effect("a node that never heard of its pod's status looks after the Secret all the same", () =>
    inSync(
      () =>
        Effect.gen(function* () {
          yield* Node.putClass(classWith(entry()))
          yield* putSynced({ [KEYS.className]: "spc" })
          const request = yield* Node.putPod(Node.POD)
          yield* soon
          yield* publish(request, never)
          yield* later(30)
          assert.strictEqual((yield* secrets).length, 1)
          yield* end(request)
          yield* later(60)
          assert.deepStrictEqual(yield* secrets, [])
        }),
      {},
      (api) => ({
        ...api,
        watch: (request, idleMillis) =>
          request.path.includes("secretproviderclasspodstatuses") ? Stream.never : api.watch(request, idleMillis)
      })
    )
  )

  it.effect("whose last pod went while no driver was there: gone soon after the start, and those in use stay", () =>
    Effect.gen(function* () {
      yield* Node.putClass(classWith(entry()))
      yield* putSynced({ [KEYS.className]: "spc" })
      yield* putSynced({ [KEYS.className]: "gone" }, "of-nobody")
      yield* Node.putClass(classWith(entry({ secretName: "used" })), "used")
      yield* putSynced({ [KEYS.className]: "used" }, "used")
      yield* Node.putPod({ ...Node.POD, name: "elsewhere" }, {}, "node-2", "used")
      yield* Node.syncing
      yield* later(120)
      assert.deepStrictEqual(
        (yield* secrets).map((it) => objectAt(it, "metadata")["name"]),
        ["used"]
      )
      // Nobody here is left to be followed for.
      const kubernetes = yield* MemoryKubernetes
      yield* later(60)
      assert.strictEqual(yield* kubernetes.openWatches("secrets"), 0)
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Node.driverLayer(Node.script()), Node.worldLayer)))
  )

  it.effect("S9 also where the right to list Secrets came minutes after the start", () => {
    let isAllowed = false
    return inSync(
      () =>
        Effect.gen(function* () {
          yield* Node.putClass(classWith(entry()))
          yield* putSynced({ [KEYS.className]: "spc" })
          yield* later(120)
          isAllowed = true
          assert.strictEqual((yield* secrets).length, 1)
          yield* later(320)
          assert.deepStrictEqual(yield* secrets, [])
        }),
      {},
      (api) => ({
        ...api,
        request: (request) =>
          Effect.suspend(() =>
            isAllowed || request.method !== "GET" || !request.path.endsWith("/secrets")
              ? api.request(request)
              : Effect.fail(
                  new KubernetesApiFailed({ ...request, status: 403, reason: "Forbidden", detail: "no right to list" })
                )
          )
      })
    )
  })

  it.effect("a pod that comes back takes the mark away", () =>
    inSync(() =>
      Effect.gen(function* () {
        const owner = yield* replicaSet()
        const request = yield* mounted(classWith(entry()), { ownerReferences: [owner] })
        yield* end(request)
        yield* later(3)
        assert.deepNestedInclude(yield* secret, { "metadata.name": "synced" })
        const again = yield* Node.putPod(Node.POD, { ownerReferences: [owner] })
        yield* soon
        yield* publish(again, never)
        yield* later(120)
        assert.strictEqual((yield* secrets).length, 1)
        assert.notInclude(JSON.stringify(yield* secret), "unused-since")
      })
    )
  )

  it.effect("retain keeps it", () =>
    inSync(() =>
      Effect.gen(function* () {
        const owner = yield* replicaSet()
        const request = yield* mounted(
          classWith(entry()),
          { ownerReferences: [owner] },
          { "secrets-store.csi.k8s.io/retain": "true" }
        )
        yield* end(request)
        yield* Node.removeClass()
        yield* later(120)
        assert.strictEqual((yield* secrets).length, 1)
      })
    )
  )
})
