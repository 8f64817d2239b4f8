import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Schema } from "effect"
import { CachedMeta } from "../../schemas/Meta.ts"
import type { KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

const SPC = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/ns/secretproviderclasses"
const spc = (name: string, spec: unknown = {}) => ({ metadata: { name, namespace: "ns" }, spec })

const nodes = Resource.make({
  group: "",
  version: "v1",
  plural: "nodes",
  kind: "Node",
  namespaced: false,
  schema: Schema.Struct({ metadata: CachedMeta })
})

describe("wire.md (e): paths", () => {
  it.each([
    {
      name: "a core resource",
      path: Resource.pathOf(Resource.pods, "ns", "p"),
      expected: "/api/v1/namespaces/ns/pods/p"
    },
    { name: "all namespaces", path: Resource.pathOf(Resource.pods), expected: "/api/v1/pods" },
    { name: "a collection", path: Resource.pathOf(Resource.secretProviderClasses, "ns"), expected: SPC },
    { name: "an object", path: Resource.pathOf(Resource.secretProviderClasses, "ns", "a.b"), expected: `${SPC}/a.b` },
    {
      name: "a name that needs encoding",
      path: Resource.pathOf(Resource.secretProviderClasses, "ns", "a?b #/é"),
      expected: `${SPC}/a%3Fb%20%23%2F%C3%A9`
    },
    {
      name: "a lone surrogate",
      path: Resource.pathOf(Resource.secretProviderClasses, "ns", "a\ud800"),
      expected: `${SPC}/a%EF%BF%BD`
    },
    {
      name: "a resource without namespaces",
      path: Resource.pathOf(nodes, "ns", "n"),
      expected: "/api/v1/nodes/n"
    }
  ])("$name", ({ path, expected }) => assert.strictEqual(path, expected))
})

describe("wire.md (e): requests", () => {
  const pod = { metadata: { name: "p", namespace: "ns" }, spec: { nodeName: "n" } }
  const rows: ReadonlyArray<{
    readonly name: string
    readonly run: Effect.Effect<unknown, unknown, Effect.Services<ReturnType<typeof Resource.get>>>
    readonly expected: KubernetesRequest
  }> = [
    {
      name: "get",
      run: Resource.get(Resource.pods, "ns", "p"),
      expected: { method: "GET", path: "/api/v1/namespaces/ns/pods/p" }
    },
    {
      name: "create adds apiVersion and kind",
      run: Resource.create(Resource.pods, pod),
      expected: {
        method: "POST",
        path: "/api/v1/namespaces/ns/pods",
        body: { apiVersion: "v1", kind: "Pod", ...pod }
      }
    },
    {
      name: "replace",
      run: Resource.replace(Resource.pods, pod),
      expected: {
        method: "PUT",
        path: "/api/v1/namespaces/ns/pods/p",
        body: { apiVersion: "v1", kind: "Pod", ...pod }
      }
    },
    {
      name: "merge patch",
      run: Resource.mergePatch(Resource.pods, "ns", "p", { a: 1 }),
      expected: {
        method: "PATCH",
        path: "/api/v1/namespaces/ns/pods/p",
        body: { a: 1 },
        contentType: "application/merge-patch+json"
      }
    },
    {
      name: "apply",
      run: Resource.apply(Resource.pods, pod, { fieldManager: "me" }),
      expected: {
        method: "PATCH",
        path: "/api/v1/namespaces/ns/pods/p",
        body: { apiVersion: "v1", kind: "Pod", ...pod },
        contentType: "application/apply-patch+yaml",
        query: { fieldManager: "me", force: false }
      }
    },
    {
      name: "apply by force",
      run: Resource.apply(Resource.pods, pod, { fieldManager: "me", force: true }),
      expected: {
        method: "PATCH",
        path: "/api/v1/namespaces/ns/pods/p",
        body: { apiVersion: "v1", kind: "Pod", ...pod },
        contentType: "application/apply-patch+yaml",
        query: { fieldManager: "me", force: true }
      }
    },
    {
      name: "remove",
      run: Resource.remove(Resource.pods, "ns", "p"),
      expected: { method: "DELETE", path: "/api/v1/namespaces/ns/pods/p" }
    },
    {
      name: "remove the one that is meant",
      run: Resource.remove(Resource.pods, "ns", "p", { uid: "u" }),
      expected: {
        method: "DELETE",
        path: "/api/v1/namespaces/ns/pods/p",
        body: { apiVersion: "v1", kind: "DeleteOptions", preconditions: { uid: "u" } }
      }
    }
  ]
  it.effect.each(rows)("$name", ({ run, expected }) =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering(pod)
      yield* Effect.provide(run, api.layer)
      assert.deepStrictEqual(api.requests, [expected])
    })
  )

  it.effect.each([
    { name: "empty", object: "" },
    { name: "this directory", object: "." },
    { name: "the one above", object: ".." },
    { name: "a slash", object: "a/b" },
    { name: "a percent sign", object: "a%2fb" }
  ])("a name that cannot be is not found, without a request: $name", ({ object }) =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering({})
      const failure = yield* Effect.flip(
        Effect.provide(Resource.get(Resource.secretProviderClasses, "ns", object), api.layer)
      )
      assert.isTrue(failure.isNotFound)
      assert.include(failure.message, "not found")
      const removal = yield* Effect.flip(
        Effect.provide(Resource.remove(Resource.secretProviderClasses, object, "a"), api.layer)
      )
      assert.isTrue(removal.isNotFound)
      assert.deepStrictEqual(api.requests, [])
    })
  )
})

describe("decoding", () => {
  it.effect("null is absent, and what the schema does not name is dropped", () =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering({
        apiVersion: "secrets-store.csi.x-k8s.io/v1",
        metadata: { name: "a", namespace: "ns", labels: null, managedFields: [{ manager: "x" }] },
        spec: { provider: "p", parameters: null, secretObjects: null, usePodIdentity: true },
        status: {}
      })
      const object = yield* Effect.provide(Resource.get(Resource.secretProviderClasses, "ns", "a"), api.layer)
      assert.deepStrictEqual(object, { metadata: { name: "a", namespace: "ns" }, spec: { provider: "p" } })
    })
  )

  it.effect.each([
    {
      name: "a value that is no string",
      body: spc("a", { parameters: { objects: { hidden: "hunter2" } } }),
      field: '["spec"]["parameters"]["objects"]'
    },
    { name: "a list instead of a map", body: spc("a", { parameters: ["hunter2"] }), field: '["spec"]["parameters"]' },
    { name: "text instead of an object", body: "hunter2", field: "" }
  ])("the wrong shape is Invalid, names the field and no value: $name", ({ body, field }) =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering(body)
      const failure = yield* Effect.flip(
        Effect.provide(Resource.get(Resource.secretProviderClasses, "ns", "a"), api.layer)
      )
      assert.strictEqual(failure.reason, "Invalid")
      assert.isFalse(failure.isTransient)
      assert.include(failure.message, `SecretProviderClass "a": `)
      assert.include(failure.message, field)
      assert.notInclude(failure.message, "hunter2")
      assert.notInclude(failure.message, "\n")
    })
  )

  it.effect("an object that is written back keeps what the schema does not name", () =>
    Effect.gen(function* () {
      const stored = {
        apiVersion: "secrets-store.csi.x-k8s.io/v1",
        kind: "SecretProviderClassPodStatus",
        metadata: { name: "a", namespace: "ns", resourceVersion: "7", finalizers: ["f"], creationTimestamp: "t" },
        extra: { kept: true }
      }
      const api = ScriptedApi.answering(stored)
      const program = Effect.flatMap(Resource.get(Resource.podStatuses, "ns", "a"), (object) =>
        Resource.replace(Resource.podStatuses, object)
      )
      yield* Effect.provide(program, api.layer)
      assert.deepStrictEqual<unknown>(api.requests[1]?.body, stored)
    })
  )
})

describe("list", () => {
  const page = (names: ReadonlyArray<string>, next?: string) => ({
    metadata: { resourceVersion: "42", ...(next === undefined ? {} : { continue: next }) },
    items: names.map((name) => spc(name))
  })

  it.effect("pages of one snapshot", () =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering(page(["a", "b"], "t1"), page(["c"], "t2"), page([], ""))
      const selection = { namespace: "ns", labelSelector: "x=y" }
      const listed = yield* Effect.provide(Resource.list(Resource.secretProviderClasses, selection, 2), api.layer)
      assert.deepStrictEqual(
        listed.objects.map(({ metadata }) => metadata.name),
        ["a", "b", "c"]
      )
      assert.strictEqual(listed.resourceVersion, "42")
      assert.deepStrictEqual(
        api.requests.map(({ query }) => query),
        [undefined, "t1", "t2"].map((token) => ({
          limit: 2,
          continue: token,
          labelSelector: "x=y",
          fieldSelector: undefined
        }))
      )
    })
  )

  it.effect("Go's null for no items", () =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering({ metadata: { resourceVersion: "1" }, items: null })
      const listed = yield* Effect.provide(Resource.list(Resource.secretProviderClasses), api.layer)
      assert.deepStrictEqual(listed, { objects: [], resourceVersion: "1" })
    })
  )

  it.effect("an item of the wrong shape is left out, and the log names it", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      const items = [spc("good"), spc("bad", { parameters: { a: { b: "hunter2" } } }), "text", { metadata: {} }]
      const api = ScriptedApi.answering({ metadata: { resourceVersion: "1" }, items })
      const listed = yield* Resource.list(Resource.secretProviderClasses, { namespace: "ns" }).pipe(
        Effect.provide(Layer.merge(api.layer, Logger.layer([Logger.make(({ message }) => lines.push(message))])))
      )
      assert.deepStrictEqual(
        listed.objects.map(({ metadata }) => metadata.name),
        ["good"]
      )
      const log = JSON.stringify(lines)
      assert.strictEqual(lines.length, 3)
      assert.include(log, '"ns/bad"')
      assert.notInclude(log, "hunter2")
    })
  )

  it.effect.each([
    { name: "an expired snapshot", answer: failed(410, "Expired"), reason: "Expired" },
    { name: "not a list", answer: "text", reason: "Invalid" },
    { name: "a list without end", answer: { metadata: { continue: "again" }, items: [] }, reason: "Invalid" }
  ])("fails: $name", ({ answer, reason }) =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering(answer)
      const failure = yield* Effect.flip(Effect.provide(Resource.list(Resource.secretProviderClasses), api.layer))
      assert.strictEqual(failure.reason, reason)
    })
  )
})
