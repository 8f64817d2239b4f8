import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { MemoryKubernetes, layer as memoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as Orphans from "../../src/sync/Orphans.ts"
import { KEYS } from "../../src/sync/SecretPlan.ts"
import * as Node from "../support/FakeNode.ts"

const DRIVER = "secrets-store.csi.k8s.io"
const SEEKER: Orphans.Seeker = { driverName: DRIVER, nodeId: "node-1" }

const classOf = (name: string, ...secretNames: ReadonlyArray<string>) => ({
  metadata: { name, namespace: "default" },
  spec: { secretObjects: secretNames.map((secretName) => ({ secretName })) }
})
const secretOf = (name: string, className = "spc") => ({
  metadata: { name, namespace: "default", annotations: { [KEYS.className]: className } }
})
const podOf = (className: string, phase = "Running", nodeName = "node-2") => ({
  metadata: { name: "web" },
  spec: {
    nodeName,
    volumes: [{ csi: { driver: DRIVER, volumeAttributes: { secretProviderClass: className } } }]
  },
  status: { phase }
})

const ENDING = { name: "web", deletionTimestamp: "2026-01-01T00:00:00Z" }

describe("Secrets that nobody uses (L5, S9)", () => {
  it.each([
    { name: "no pod at all", pods: [], expected: ["a", "b"] },
    { name: "a pod that mounts the class", pods: [podOf("spc")], expected: ["b"] },
    { name: "a pod of another node that does not run yet", pods: [podOf("spc", "Pending")], expected: ["b"] },
    { name: "a pod of this node", pods: [podOf("spc", "Running", "node-1")], expected: ["b"] },
    {
      name: "a pod of this node that does not run yet",
      pods: [podOf("spc", "Pending", "node-1")],
      expected: ["a", "b"]
    },
    {
      name: "a pod of this node that is about to end",
      pods: [{ ...podOf("spc", "Running", "node-1"), metadata: ENDING }],
      expected: ["a", "b"]
    },
    {
      name: "a pod of another node that is about to end",
      pods: [{ ...podOf("spc"), metadata: ENDING }],
      expected: ["b"]
    },
    {
      name: "a pod of this node that does not run yet, and one of another that does",
      pods: [podOf("spc", "Pending", "node-1"), podOf("spc")],
      expected: ["b"]
    },
    {
      name: "a pod of this node that has ended, and one of another that does not run yet",
      pods: [podOf("spc", "Failed", "node-1"), podOf("spc", "Pending")],
      expected: ["b"]
    },
    { name: "a pod that has no node yet", pods: [podOf("spc", "Pending", "")], expected: ["b"] },
    { name: "a pod that has ended", pods: [podOf("spc", "Succeeded")], expected: ["a", "b"] },
    { name: "a pod that mounts another class that asks for it", pods: [podOf("other")], expected: ["b"] },
    { name: "a pod that mounts a class that is gone", pods: [podOf("gone")], expected: ["a"] },
    { name: "a pod that mounts a class that asks for nothing", pods: [podOf("third")], expected: ["a", "b"] },
    {
      name: "a pod that refers to it",
      pods: [{ metadata: { name: "web" }, spec: { volumes: [{ secret: { secretName: "b" } }] } }],
      expected: ["a"]
    }
  ])("$name: $expected", ({ expected, pods }) => {
    const classes = [classOf("spc", "a"), classOf("other", "a", "c"), classOf("third")]
    assert.deepStrictEqual(
      Orphans.among({ secrets: [secretOf("a"), secretOf("b", "gone")], classes, pods }, SEEKER),
      expected
    )
  })
})

const putSecret = (name: string, annotations: Readonly<Record<string, string>>, labels = MANAGED) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "POST",
      path: "/api/v1/namespaces/default/secrets",
      body: { apiVersion: "v1", kind: "Secret", metadata: { name, annotations, labels }, data: {} }
    })
  )
const MANAGED = { "secrets-store.csi.k8s.io/managed": "true" }
const OURS = { [KEYS.className]: "spc" }
const refusing = (status: number, path: RegExp) =>
  Layer.provideMerge(
    Layer.effect(
      KubernetesApi,
      Effect.map(KubernetesApi, (api) => ({
        ...api,
        request: (request) =>
          request.method === "GET" && path.test(request.path)
            ? Effect.fail(
                new KubernetesApiFailed({ method: "GET", path: request.path, status, reason: "Refused", detail: "no" })
              )
            : api.request(request)
      }))
    ),
    memoryKubernetes
  )

describe("what is asked for (L5)", () => {
  const prepared = Effect.gen(function* () {
    yield* Node.putClass({ provider: "vault", secretObjects: [{ secretName: "synced" }] })
    yield* Node.putClass({ provider: "vault" }, "plain", "plain")
    yield* putSecret("synced", OURS)
    yield* putSecret("retained", { ...OURS, "secrets-store.csi.k8s.io/retain": "true" })
    yield* putSecret("of-upstream", {})
    yield* putSecret("of-others", OURS, { ...MANAGED, "secrets-store.csi.k8s.io/managed": "false" })
  })

  it.effect("classes, and Secrets and pods of a namespace that has any", () =>
    Effect.gen(function* () {
      const kubernetes = yield* MemoryKubernetes
      yield* prepared
      yield* kubernetes.resetRequests
      assert.deepStrictEqual(yield* Orphans.find(SEEKER), {
        found: [{ namespace: "default", name: "synced" }],
        refused: []
      })
      const requests = yield* kubernetes.requests
      assert.deepStrictEqual(requests.map(({ count, method, resource }) => `${count} ${method} ${resource}`).sort(), [
        "1 GET pods",
        "1 GET secretproviderclasses.secrets-store.csi.x-k8s.io",
        "1 GET secrets"
      ])
    }).pipe(Effect.provide(memoryKubernetes))
  )

  it.effect.each<{ readonly name: string; readonly path: RegExp; readonly refused: Orphans.Where }>([
    { name: "Secrets", path: /\/secrets$/u, refused: ["default"] },
    { name: "classes", path: /\/secretproviderclasses$/u, refused: "everywhere" },
    { name: "pods", path: /\/pods$/u, refused: ["default"] }
  ])("nothing is found where $name may not be listed, which is said", ({ path, refused }) =>
    Effect.gen(function* () {
      yield* prepared
      assert.deepStrictEqual(yield* Orphans.find(SEEKER), { found: [], refused })
      assert.deepStrictEqual(yield* Orphans.find(SEEKER, ["default"]), { found: [], refused: ["default"] })
    }).pipe(Effect.provide(refusing(403, path)))
  )

  it.effect("again only where it was refused", () =>
    Effect.gen(function* () {
      const kubernetes = yield* MemoryKubernetes
      yield* prepared
      yield* kubernetes.resetRequests
      assert.deepStrictEqual(yield* Orphans.find(SEEKER, ["plain"]), { found: [], refused: [] })
      const requests = yield* kubernetes.requests
      assert.deepStrictEqual(
        requests.map(({ count, method, resource }) => `${count} ${method} ${resource}`),
        ["1 GET secretproviderclasses.secrets-store.csi.x-k8s.io"]
      )
      const { found } = yield* Orphans.find(SEEKER, ["default"])
      assert.deepStrictEqual(found, [{ namespace: "default", name: "synced" }])
    }).pipe(Effect.provide(memoryKubernetes))
  )

  it.effect("an API server that does not answer is asked again by whoever asks", () =>
    Effect.gen(function* () {
      yield* prepared
      assert.isTrue((yield* Effect.flip(Orphans.find(SEEKER))).isTransient)
    }).pipe(Effect.provide(refusing(503, /\/secrets$/u)))
  )
})
