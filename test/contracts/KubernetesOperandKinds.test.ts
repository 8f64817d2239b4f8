/**
 * The operator's kinds in memory and on a real API server, when there is one; that both answer alike to what the
 * operator and its surroundings may send, down to defaults and managedFields; and groups that come and go.
 */
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Random, Stream } from "effect"
import { parse } from "yaml"
import { MemoryKubernetes, layer as memory } from "../../layers/fake/MemoryKubernetes.ts"
import * as Chance from "../../layers/fake/simulation/Chance.ts"
import { layer as kubernetesHttp } from "../../layers/real/KubernetesHttp.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import { asked } from "./KubernetesAnswers.ts"
import { suite } from "./KubernetesOperandKindsSuite.ts"

const kubeconfig = process.env["TEST_KUBECONFIG"] ?? ""
const needs = kubeconfig === "" ? " (needs TEST_KUBECONFIG)" : ""
const real = kubernetesHttp({ kubeconfig, userAgent: "operand/1.0", environment: process.env })

suite("in memory", memory)

describe.skipIf(kubeconfig === "")(`a real API server${needs}`, () => {
  suite("real", real)
})

type Json = Readonly<Record<string, unknown>>

const MERGE = "application/merge-patch+json"
const APPLY = "application/apply-patch+yaml"
const RUN = randomUUID().slice(0, 8)

interface Manifest extends Json {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: Json & { readonly name: string }
  readonly spec?: Json
}

const NAMESPACED = { DaemonSet: "daemonsets", NetworkPolicy: "networkpolicies", RoleBinding: "rolebindings" }
const EVERYWHERE = { CSIDriver: "csidrivers", ClusterRole: "clusterroles", ClusterRoleBinding: "clusterrolebindings" }
const CORE = { ConfigMap: "configmaps", ServiceAccount: "serviceaccounts" }

const collectionOf = ({ apiVersion, kind }: Manifest): string => {
  const [inNamespace, anywhere, core] = [NAMESPACED, EVERYWHERE, CORE].map((kinds) => new Map(Object.entries(kinds)))
  const root = apiVersion === "v1" ? "/api/v1" : `/apis/${apiVersion}`
  return anywhere?.has(kind) === true
    ? `${root}/${anywhere.get(kind)}`
    : `${root}/namespaces/default/${inNamespace?.get(kind) ?? core?.get(kind)}`
}

/** An operand of ours under a name of its own. */
const asset = (file: string): Manifest => {
  const path = fileURLToPath(new URL(`../../assets/driver/${file}`, import.meta.url))
  const text = readFileSync(path, "utf8")
    .replaceAll(/\$\{[A-Z_]*NAMESPACE\}/gu, "default")
    .replaceAll(/\$\{[A-Z_]+\}/gu, "v4")
  return renamed(parse(text) as Manifest, file)
}

const renamed = (manifest: Manifest, name: string): Manifest => ({
  ...manifest,
  metadata: { ...manifest.metadata, name: `operand-${RUN}-${name.toLowerCase().replaceAll(/[^a-z0-9]+/gu, "-")}` }
})

/** Requests about one object, from its making on. */
const story = (manifest: Manifest, ...rest: ReadonlyArray<(path: string) => KubernetesRequest>) => {
  const collection = collectionOf(manifest)
  const path = `${collection}/${manifest.metadata.name}`
  const made: KubernetesRequest = {
    method: "POST",
    path: collection,
    body: manifest,
    query: { fieldManager: "operator" }
  }
  return { path, requests: [made, ...rest.map((request) => request(path))] }
}

const patch =
  (body: Json, fieldManager = "admin", at = "") =>
  (path: string): KubernetesRequest => ({
    method: "PATCH",
    path: `${path}${at}`,
    body,
    contentType: MERGE,
    query: { fieldManager }
  })

const put =
  (body: Json) =>
  (path: string): KubernetesRequest => ({ method: "PUT", path, body, query: { fieldManager: "operator" } })

const apply =
  (body: Json, fieldManager = "applier") =>
  (path: string): KubernetesRequest => ({
    method: "PATCH",
    path,
    body,
    contentType: APPLY,
    query: { fieldManager, force: true }
  })

const read = (path: string): KubernetesRequest => ({ method: "GET", path })

const node = asset("node_single.yaml")
const csiDriver = asset("csidriver.yaml")
const binding = asset("rbac/node_privileged_binding.yaml")
const syncBinding = asset("rbac/secret_sync_binding.yaml")
const policy = asset("network-policy/allow-egress-to-api-server-operand.yaml")

const daemonSet = (name: string, podSpec: Json, spec: Json = {}): Manifest =>
  renamed(
    {
      apiVersion: "apps/v1",
      kind: "DaemonSet",
      metadata: { name },
      spec: {
        selector: { matchLabels: { a: "b" } },
        template: { metadata: { labels: { a: "b" } }, spec: podSpec },
        ...spec
      }
    },
    name
  )

const container = { name: "a", image: "a:1" }
const fieldRef = { fieldRef: { fieldPath: "metadata.labels" } }

/** Says as little as a DaemonSet can, of everything that it can say. */
const laconic = daemonSet(
  "laconic",
  {
    initContainers: [{ name: "i", image: "registry:5000/i", command: ["i"] }],
    containers: [
      {
        ...{ name: "a", image: "registry:5000/a:latest", ports: [{ containerPort: 1 }] },
        env: [
          { name: "FIELD", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } },
          { name: "EMPTY", value: "" }
        ],
        startupProbe: { exec: { command: ["a"] } },
        livenessProbe: { tcpSocket: { port: 1 } },
        readinessProbe: { grpc: { port: 1 } },
        lifecycle: { preStop: { httpGet: { port: 1 } } },
        volumeMounts: [{ name: "host", mountPath: "/host" }]
      },
      { name: "b", image: `b@sha256:${"0".repeat(64)}` },
      { name: "c", image: "c:1", imagePullPolicy: "Never", terminationMessagePolicy: "FallbackToLogsOnError" }
    ],
    volumes: [
      { name: "host", hostPath: { path: "/host" } },
      { name: "configmap", configMap: { name: "x" } },
      { name: "secret", secret: { secretName: "x" } },
      { name: "directory", emptyDir: {} },
      { name: "nothing" },
      { name: "downward", downwardAPI: { items: [{ path: "l", ...fieldRef }] } },
      {
        name: "projected",
        projected: {
          sources: [{ serviceAccountToken: { path: "t" } }, { downwardAPI: { items: [{ path: "l", ...fieldRef }] } }]
        }
      }
    ],
    securityContext: { runAsUser: 1 }
  },
  { updateStrategy: { type: "OnDelete" } }
)

const plain = daemonSet("plain", { containers: [container] })
const applied = daemonSet("applied", { containers: [container] })
const otherImage = (manifest: Manifest): Json => ({
  ...manifest,
  spec: {
    ...manifest.spec,
    template: { metadata: { labels: { a: "b" } }, spec: { containers: [{ ...container, image: "a:2" }] } }
  }
})

const ofKind = (apiVersion: string, kind: string, name: string, more: Json = {}): Manifest =>
  renamed({ apiVersion, kind, metadata: { name }, ...more }, name)
const networkPolicy = (name: string, more: Json = {}) => ofKind("networking.k8s.io/v1", "NetworkPolicy", name, more)
const storageDriver = (name: string, more: Json = {}) => ofKind("storage.k8s.io/v1", "CSIDriver", name, more)

const tokens = (...audiences: ReadonlyArray<string>) => ({
  spec: { tokenRequests: audiences.map((audience) => ({ audience })) }
})

const STORIES = [
  ...["node.yaml", "node_sa.yaml", "cabundle_cm.yaml", "rbac/privileged_role.yaml"],
  ...["rbac/secretproviderclasses_role.yaml", "rbac/secretproviderclasses_binding.yaml"],
  ...["network-policy/default-deny-operand.yaml", "network-policy/allow-ingress-to-metrics-operand.yaml"]
].map((file) => {
  const manifest = asset(file)
  const label = patch({ metadata: { labels: { a: "b" } } })
  return { row: "6", name: file, ...story(manifest, read, put(manifest), label, put(manifest)) }
})

const MORE_STORIES = [
  {
    row: "4.3",
    name: "a DaemonSet that is put again is the same, and another template is a new generation of both kinds",
    ...story(
      node,
      put(node),
      patch({ metadata: { annotations: { "deprecated.daemonset.template.generation": "7" } } }),
      patch({ spec: { minReadySeconds: 3 } }),
      patch({ spec: { template: { metadata: { annotations: { restarted: "now" } } } } }),
      put(node)
    )
  },
  {
    row: "4.3",
    name: "a DaemonSet's selector is what it was, and selects its pods",
    ...story(
      plain,
      patch({ spec: { selector: { matchLabels: { a: "c" } } } }),
      patch({ spec: { selector: { matchLabels: { a: "c" } }, template: { metadata: { labels: { a: "c" } } } } }),
      patch({ spec: { template: { metadata: { labels: { a: "c" } } } } }),
      put(otherImage(plain))
    )
  },
  {
    row: "4.3",
    name: "a DaemonSet's status counts from nothing, at an address of its own",
    ...story(
      daemonSet("counting", { containers: [container] }),
      patch({ status: { numberReady: 1, observedGeneration: 1 } }, "controller"),
      patch({ status: { numberReady: 1, observedGeneration: 1 } }, "controller", "/status"),
      patch({ status: { numberReady: 0 } }, "controller", "/status"),
      patch({ metadata: { labels: { a: "b" } } })
    )
  },
  { row: "5.3", name: "a DaemonSet that says little", ...story(laconic, read) },
  {
    row: "5.3",
    name: "defaults are nobody's who applies",
    ...story(applied, apply(applied), apply(otherImage(applied)), apply(applied, "another"))
  },
  {
    row: "4.4",
    name: "a CSIDriver keeps what is immutable",
    ...story(
      csiDriver,
      put(csiDriver),
      patch({ spec: { attachRequired: true } }),
      patch({ spec: { volumeLifecycleModes: ["Persistent"] } }),
      patch({ spec: { attachRequired: true, volumeLifecycleModes: ["Persistent"] } }),
      patch({ metadata: { labels: { a: "b" } } }),
      patch({ spec: { requiresRepublish: true } }, "operator"),
      patch({ spec: { podInfoOnMount: false, fsGroupPolicy: "None", seLinuxMount: true, storageCapacity: true } }),
      patch(tokens("", "a"), "operator"),
      patch(tokens("a", "a")),
      patch({ spec: { tokenRequests: [{ audience: "a", expirationSeconds: 30 }] } }),
      patch({ spec: { tokenRequests: [] } }),
      put(csiDriver)
    )
  },
  { row: "4.4", name: "a CSIDriver that says nothing", ...story(storageDriver("silent", { spec: {} }), read) },
  { row: "4.4", name: "a CSIDriver without a spec", ...story(storageDriver("empty"), read) },
  {
    row: "4.2",
    name: "a binding keeps its role, and says whose its subjects are",
    ...story(
      binding,
      patch({ roleRef: { name: "other" } }),
      patch({ subjects: [{ kind: "User", name: "a" }] }),
      put(binding),
      patch({ subjects: null })
    )
  },
  {
    row: "4.2",
    name: "a binding of one namespace too",
    ...story(syncBinding, patch({ roleRef: { name: "other" } }), put(syncBinding))
  },
  {
    row: "4.2",
    name: "a NetworkPolicy's rules are one value, and what selects its pods too",
    ...story(
      policy,
      put(policy),
      apply(networkPolicy("x", { ...policy, metadata: policy.metadata })),
      patch({ spec: { podSelector: { matchLabels: { a: "b" } } } }),
      patch({ spec: { egress: null } }),
      put(policy)
    )
  },
  {
    row: "6",
    name: "a NetworkPolicy with rules for both ways",
    ...story(networkPolicy("both", { spec: { ingress: [{}], egress: [{ ports: [{ port: 1 }] }] } }), read)
  },
  { row: "6", name: "a NetworkPolicy that says nothing", ...story(networkPolicy("silent"), read) }
]

const clean = (api: KubernetesApi["Service"], path: string) => Effect.ignore(api.request({ method: "DELETE", path }))

describe.skipIf(kubeconfig === "")(`operands in memory are as on a real API server${needs}`, () => {
  it.live.each([...STORIES, ...MORE_STORIES])("$row: $name", ({ path, requests }) =>
    Effect.gen(function* () {
      const fake = Context.get(yield* Layer.build(Layer.fresh(memory)), KubernetesApi)
      const server = Context.get(yield* Layer.build(real), KubernetesApi)
      yield* Effect.addFinalizer(() => clean(server, path))
      const [ours, theirs] = [yield* asked(fake, requests), yield* asked(server, requests)]
      assert.deepStrictEqual(ours, theirs)
    })
  )
})

const DRIVER = { apiVersion: "operator.openshift.io/v1", kind: "ClusterCSIDriver" }
const DRIVERS = "/apis/operator.openshift.io/v1/clustercsidrivers"
/** Of a driver that no other test is about. */
const DRIVER_NAME = "csi.kubevirt.io"
const SEEDS = Array.from({ length: 20 }, (_, index) => index + 1)
const REQUESTS = 30

/** What managers of a status, an administrator and a stranger may ask for. */
const statusRequest = ({ below, happens, oneOf }: Chance.Chance): KubernetesRequest => {
  const path = `${DRIVERS}/${DRIVER_NAME}`
  const some = <A>(items: ReadonlyArray<A>) => items.filter(() => happens(0.4))
  const condition = (type: string) => ({
    type,
    status: oneOf(["True", "False"]),
    lastTransitionTime: `2026-01-01T00:00:0${below(2)}Z`,
    ...(happens(0.5) ? { message: "as it is" } : {})
  })
  const generation = (name: string) => ({
    ...{ group: "apps", resource: "daemonsets", namespace: "a", name },
    lastGeneration: below(2)
  })
  const status = {
    ...(happens(0.7) ? { conditions: some(["A", "B", "C"]).map(condition) } : {}),
    ...(happens(0.4) ? { generations: some(["a", "b"]).map(generation) } : {}),
    ...(happens(0.2) ? { version: oneOf(["1", "2"]) } : {}),
    ...(happens(0.2) ? { readyReplicas: below(3) } : {})
  }
  const body = { ...DRIVER, metadata: { name: DRIVER_NAME }, ...(happens(0.8) ? { status } : {}) }
  const query = { fieldManager: oneOf(["a", "b", "c"]) }
  const at = { path: `${path}/status`, method: "PATCH" } as const
  switch (oneOf(["apply", "force", "force", "force", "patch", "spec", "get"])) {
    case "apply":
      return { ...at, body, contentType: APPLY, query }
    case "force":
      return { ...at, body, contentType: APPLY, query: { ...query, force: true } }
    case "patch":
      return { ...at, body: { status }, contentType: MERGE, query: { fieldManager: "stranger" } }
    case "spec":
      return {
        ...{ path, method: "PATCH", contentType: MERGE, query: { fieldManager: "admin" } },
        body: { spec: { managementState: oneOf(["Managed", "Removed"]) }, status }
      }
    default:
      return { path, method: "GET" }
  }
}

describe.skipIf(kubeconfig === "")(`a status in memory is as on a real API server${needs}`, () => {
  it.live.each(SEEDS.map((seed) => ({ seed })))("3.1: seed $seed", ({ seed }) =>
    Effect.gen(function* () {
      const fake = Context.get(yield* Layer.build(Layer.fresh(memory)), KubernetesApi)
      const server = Context.get(yield* Layer.build(real), KubernetesApi)
      const path = `${DRIVERS}/${DRIVER_NAME}`
      yield* clean(server, path)
      yield* Effect.addFinalizer(() => clean(server, path))
      const body = { ...DRIVER, metadata: { name: DRIVER_NAME }, spec: {} }
      const made: KubernetesRequest = { method: "POST", path: DRIVERS, body, query: { fieldManager: "admin" } }
      const drawn = yield* Effect.map(Chance.make, (chance) =>
        Array.from({ length: REQUESTS }, () => statusRequest(chance))
      ).pipe(Random.withSeed(`${seed}`))
      const requests = [made, ...drawn]
      const [ours, theirs] = [yield* asked(fake, requests), yield* asked(server, requests)]
      assert.deepStrictEqual(ours, theirs)
    })
  )
})

describe("MemoryKubernetes", () => {
  const proxies = "/apis/config.openshift.io/v1/proxies"
  const proxy = { apiVersion: "config.openshift.io/v1", kind: "Proxy", metadata: { name: "cluster" }, spec: { a: 1 } }

  it.effect("13: a group that is not served any more is as if it had never been, and comes back with its objects", () =>
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const control = yield* MemoryKubernetes
      const groups = Effect.map(
        api.request({ method: "GET", path: "/apis" }),
        (body) => (body as { groups: ReadonlyArray<{ name: string }> }).groups
      )
      yield* api.request({ method: "POST", path: proxies, body: proxy })
      const watching = yield* api
        .watch({ path: proxies, query: { resourceVersion: "0" } }, 60_000)
        .pipe(Stream.runCollect, Effect.forkChild({ startImmediately: true }))
      for (const path of ["/apis/config.openshift.io", "/apis/config.openshift.io/v1"]) {
        yield* api.request({ method: "GET", path })
      }
      yield* control.setServed("config.openshift.io", false)
      assert.lengthOf(yield* Fiber.join(watching), 1)
      for (const path of [proxies, `${proxies}/cluster`, "/apis/config.openshift.io", "/apis/config.openshift.io/v1"]) {
        const refused = yield* Effect.flip(api.request({ method: "GET", path }))
        assert.deepStrictEqual([refused.status, refused.message], [404, "404 page not found"])
      }
      assert.notInclude(
        (yield* groups).map(({ name }) => name),
        "config.openshift.io"
      )
      const unwatched = yield* api.watch({ path: proxies, query: {} }, 1_000).pipe(Stream.runDrain, Effect.flip)
      assert.strictEqual(unwatched.status, 404)
      yield* control.setServed("config.openshift.io", true)
      const found = yield* api.request({ method: "GET", path: `${proxies}/cluster` })
      assert.deepStrictEqual((found as Manifest).spec, { a: 1 })
      assert.include(
        (yield* groups).map(({ name }) => name),
        "config.openshift.io"
      )
    }).pipe(Effect.provide(Layer.fresh(memory)))
  )
})
