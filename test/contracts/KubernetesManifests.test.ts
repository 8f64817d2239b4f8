/**
 * A real API server takes every manifest of assets/deploy and assets/olm, and no field of them is unknown to it; the whole
 * operator works there with the rights that its manifests give it, and so does must-gather. Needs a real API server.
 */
import { execFile, execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Result, Schema, type Scope, Stream } from "effect"
import { parse, parseAllDocuments, stringify } from "yaml"
import * as AssetFiles from "../../layers/real/AssetFiles.ts"
import { layer as kubernetesHttp } from "../../layers/real/KubernetesHttp.ts"
import * as NodeDigest from "../../layers/real/NodeDigest.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import * as Operator from "../../src/Operator.ts"
import { DAEMON_SET, DRIVER_NAME, LEASE, OPERATOR_NAME, SYNC_LABEL } from "../../src/operator/Names.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { LogLevel } from "../../src/ports/LogLevel.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"

const kubeconfig = process.env["TEST_KUBECONFIG"] ?? ""
const root = fileURLToPath(new URL("../..", import.meta.url))
const assets = join(root, "assets")
const NAMESPACE = "secrets-store-csi-driver"
const NODE_ACCOUNT = "secrets-store-csi-driver-node-sa"
const SECRET_SYNC = "secrets-store-csi-driver-secret-sync"
const CANARY = "canary-of-a-secret"
const userAgent = "csi-secrets-store-operator/test"

/** A program of the system, not of a package. */
const KUBECTL = "kubectl"

const hasKubectl = (() => {
  try {
    execFileSync(KUBECTL, ["version", "--client"], { stdio: "ignore" })
    return true
  } catch {
    return false
  }
})()

const Manifest = Schema.StructWithRest(
  Schema.Struct({
    apiVersion: Schema.String,
    kind: Schema.String,
    metadata: Schema.StructWithRest(
      Schema.Struct({ name: Schema.String, namespace: Schema.optionalKey(Schema.String) }),
      [Schema.Record(Schema.String, Schema.Unknown)]
    )
  }),
  [Schema.Record(Schema.String, Schema.Unknown)]
)
type Manifest = typeof Manifest.Type
const manifestOf = Schema.decodeUnknownSync(Manifest)

const manifestsOf = (text: string): ReadonlyArray<Manifest> =>
  parseAllDocuments(text).map((document) => manifestOf(document.toJS()))
const read = (path: string) => manifestsOf(readFileSync(join(assets, path), "utf8"))
const filesIn = (folder: string) => readdirSync(join(assets, folder)).filter((name) => name.endsWith(".yaml"))

const administrator = kubernetesHttp({ kubeconfig, userAgent, environment: {} })

const ResourceList = Schema.Struct({
  resources: Schema.Array(Schema.Struct({ name: Schema.String, kind: Schema.String, namespaced: Schema.Boolean }))
})
const resourceListOf = Schema.decodeUnknownSync(ResourceList)

/** Where an object of the kind is; undefined when the API server does not know it. */
const pathOf = Effect.fnUntraced(function* ({ apiVersion, kind, metadata }: Manifest, namespace: string) {
  const api = yield* KubernetesApi
  const base = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`
  const list = yield* Effect.result(api.request({ method: "GET", path: base }))
  if (Result.isFailure(list)) {
    assert.strictEqual(list.failure.status, 404, list.failure.message)
    return undefined
  }
  const { resources } = resourceListOf(list.success)
  const found = resources.find((resource) => resource.kind === kind && !resource.name.includes("/"))
  if (found === undefined) return undefined
  const inside = found.namespaced ? `/namespaces/${metadata.namespace ?? namespace}` : ""
  return `${base}${inside}/${found.name}/${metadata.name}`
})

const apply = Effect.fnUntraced(function* (object: Manifest, namespace: string, dryRun: boolean) {
  const path = yield* pathOf(object, namespace)
  if (path === undefined) return false
  const api = yield* KubernetesApi
  yield* api.request({
    method: "PATCH",
    path,
    query: { fieldManager: "contract", force: true, fieldValidation: "Strict", ...(dryRun && { dryRun: "All" }) },
    contentType: "application/apply-patch+yaml",
    body: object
  })
  return true
})

const makeNamespace = (name: string) =>
  apply(manifestOf({ apiVersion: "v1", kind: "Namespace", metadata: { name } }), "", false)

const csvOf = (flavour: string) => {
  const path = `olm/${flavour}/manifests/${OPERATOR_NAME}.clusterserviceversion.yaml`
  const Csv = Schema.Struct({ metadata: Schema.Struct({ annotations: Schema.Record(Schema.String, Schema.String) }) })
  return Schema.decodeUnknownSync(Csv)(parse(readFileSync(join(assets, path), "utf8"))).metadata.annotations
}
const examplesOf = (flavour: string): ReadonlyArray<Manifest> => {
  const annotations = csvOf(flavour)
  const examples: ReadonlyArray<unknown> = JSON.parse(annotations["alm-examples"] ?? "[]")
  return [...examples, JSON.parse(annotations["operatorframework.io/initialization-resource"] ?? "{}")].map((it) =>
    manifestOf(it)
  )
}
const samplesOf = (flavour: string): ReadonlyArray<Manifest> =>
  filesIn(`olm/${flavour}/manifests`)
    .filter((name) => name.startsWith("console-sample"))
    .flatMap((name) => {
      const Sample = Schema.Struct({ spec: Schema.Struct({ yaml: Schema.String }) })
      const [sample] = read(`olm/${flavour}/manifests/${name}`)
      return manifestsOf(Schema.decodeUnknownSync(Sample)(sample).spec.yaml)
    })

const tokenOf = Schema.decodeUnknownSync(Schema.Struct({ status: Schema.Struct({ token: Schema.String }) }))
const labelsOf = Schema.decodeUnknownSync(
  Schema.Struct({ metadata: Schema.Struct({ labels: Schema.Record(Schema.String, Schema.String) }) })
)

/** An account's kubeconfig, with a token of the API server. */
const kubeconfigOf = Effect.fnUntraced(function* (account: string, directory: string) {
  const api = yield* KubernetesApi
  const answer = yield* api.request({
    method: "POST",
    path: `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${account}/token`,
    body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: { expirationSeconds: 3600 } }
  })
  const { token } = tokenOf(answer).status
  const config = parse(readFileSync(kubeconfig, "utf8"))
  const path = join(directory, account)
  writeFileSync(path, stringify({ ...config, users: [{ name: config.users[0].name, user: { token } }] }))
  return path
})

const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "manifests-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Looks until it is so; what is still wrong after 20 seconds is the failure. */
const until = <A, R>(what: string, look: Effect.Effect<A | undefined, KubernetesApiFailed, R>) =>
  Effect.gen(function* () {
    for (let tries = 0; tries < 200; tries++) {
      const found = yield* Effect.catchIf(
        look,
        ({ status }) => status === 404 || status === 403,
        () => Effect.undefined
      )
      if (found !== undefined) return found
      yield* Effect.sleep("100 millis")
    }
    return yield* Effect.die(new Error(`not within 20 s: ${what}`))
  })

const get = (path: string) => Effect.flatMap(KubernetesApi, (api) => api.request({ method: "GET", path }))
const isGone = (path: string) =>
  get(path).pipe(
    Effect.as<true | undefined>(undefined),
    Effect.catchIf(
      ({ status }) => status === 404,
      () => Effect.succeed(true)
    )
  )
const statusOf = (path: string) => Effect.match(get(path), { onFailure: ({ status }) => status, onSuccess: () => 200 })

/** Notes what is refused for want of rights. */
const noting = (refused: Array<string>) =>
  Layer.effect(
    KubernetesApi,
    Effect.map(KubernetesApi, (api) => {
      const note = ({ detail, status }: KubernetesApiFailed) =>
        Effect.sync(() => {
          if (status === 403) refused.push(detail)
        })
      return KubernetesApi.of({
        request: (request) => Effect.tapError(api.request(request), note),
        watch: (request, idleMillis) => Stream.tapError(api.watch(request, idleMillis), note)
      })
    })
  )

const installed = Effect.gen(function* () {
  const objects = read("deploy/operator.yaml")
  for (const object of objects) assert.isTrue(yield* apply(object, NAMESPACE, false), object.kind)
})

/** The whole operator with the token of its own account. Ends well when it is told to stop. */
const operator = Effect.fnUntraced(function* (
  directory: string,
  refused: Array<string>,
  requested: Effect.Effect<string>
) {
  const own = kubernetesHttp({ kubeconfig: yield* kubeconfigOf(OPERATOR_NAME, directory), userAgent, environment: {} })
  const layers = Layer.mergeAll(
    Layer.provide(noting(refused), own),
    AssetFiles.layer(join(assets, "driver")),
    NodeDigest.layer,
    Logger.layer([]),
    Layer.succeed(Shutdown, Shutdown.of({ requested })),
    Layer.succeed(LogLevel, LogLevel.of({ current: Effect.succeed(2), set: () => Effect.void }))
  )
  const config = {
    namespace: NAMESPACE,
    images: { driver: "ghcr.io/secrets-store-csi/driver:test", registrar: "", livenessProbe: "" },
    version: "0.0.0",
    operatorName: OPERATOR_NAME,
    podName: "",
    lease: { namespace: NAMESPACE, name: LEASE }
  }
  const surroundings = { identity: "contract", record: () => Effect.void, recordElection: () => Effect.void }
  return yield* Effect.provide(Operator.run(config, surroundings), layers)
})

const clusterCsiDriver = `/apis/operator.openshift.io/v1/clustercsidrivers/${DRIVER_NAME}`
const operandPaths = [
  `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${NODE_ACCOUNT}`,
  `/apis/storage.k8s.io/v1/csidrivers/${DRIVER_NAME}`,
  "/apis/rbac.authorization.k8s.io/v1/clusterroles/secretproviderclasses-role",
  "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/secretproviderclasses-rolebinding",
  `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/${DAEMON_SET}`,
  ...["default-deny", "allow-ingress-to-metrics", "allow-egress-to-api-server"].map(
    (name) => `/apis/networking.k8s.io/v1/namespaces/${NAMESPACE}/networkpolicies/sscsi-${name}-operand`
  )
]
const bindingIn = (namespace: string) =>
  `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/rolebindings/${SECRET_SYNC}`

const onRealServer = <A, E>(program: Effect.Effect<A, E, KubernetesApi | Scope.Scope>) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(administrator)
    return yield* Effect.provide(program, Layer.succeed(KubernetesApi, Context.get(context, KubernetesApi)))
  })

describe.skipIf(kubeconfig === "")(
  kubeconfig === "" ? "manifests on a real API server (needs TEST_KUBECONFIG)" : "manifests on a real API server",
  () => {
    const MONITORING = ["PodMonitor", "ServiceMonitor"]
    const CONSOLE = ["ConsoleQuickStart", ...Array.from({ length: 4 }, () => "ConsoleYAMLSample")]
    const OLM = ["CatalogSource", "ClusterServiceVersion", "OperatorGroup", "Subscription"]

    it.live.each([
      {
        name: "assets/deploy",
        namespace: NAMESPACE,
        objects: () => filesIn("deploy").flatMap((name) => read(`deploy/${name}`)),
        unknown: MONITORING
      },
      ...["openshift", "kubernetes"].map((flavour) => ({
        name: `assets/olm/${flavour}`,
        namespace: csvOf(flavour)["operatorframework.io/suggested-namespace"] ?? "",
        objects: () => [
          ...filesIn(`olm/${flavour}/manifests`).flatMap((name) => read(`olm/${flavour}/manifests/${name}`)),
          ...["install.yaml", "network-policy.yaml"].flatMap((name) => read(`olm/${flavour}/${name}`)),
          ...examplesOf(flavour),
          ...samplesOf(flavour)
        ],
        unknown: [...OLM, ...(flavour === "openshift" ? CONSOLE : [])]
      }))
    ])("13 $name is accepted; only what is named cannot be checked", ({ namespace, objects, unknown }) =>
      onRealServer(
        Effect.gen(function* () {
          yield* makeNamespace(namespace)
          const notServed: Array<string> = []
          for (const object of objects()) {
            const applied = yield* Effect.result(apply(object, namespace, true))
            if (Result.isFailure(applied)) {
              assert.fail(`${object.kind} ${object.metadata.name}: ${applied.failure.message}`)
            }
            if (!applied.success) notServed.push(object.kind)
          }
          assert.deepStrictEqual(notServed.sort(), [...unknown].sort())
        })
      )
    )

    it.live(
      "7.3, Q29 the operator installs, binds and removes with its own rights, and the driver may touch Secrets only where asked",
      () =>
        onRealServer(
          Effect.gen(function* () {
            const directory = yield* scratch
            const api = yield* KubernetesApi
            yield* installed
            yield* makeNamespace("contract-sync")
            const refused: Array<string> = []
            const stop = yield* Deferred.make<string>()
            const own = yield* Layer.build(
              kubernetesHttp({ kubeconfig: yield* kubeconfigOf(OPERATOR_NAME, directory), userAgent, environment: {} })
            )
            const lease = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases/${LEASE}`
            for (const path of [clusterCsiDriver, lease]) {
              yield* until(
                "its rights are known",
                Effect.map(Effect.provide(statusOf(path), own), (it) => (it === 403 ? undefined : it))
              )
            }
            const running = yield* Effect.forkScoped(operator(directory, refused, Deferred.await(stop)))

            yield* apply(read("deploy/clustercsidriver.yaml")[0]!, "", false)
            for (const path of operandPaths) yield* until(path, get(path))
            assert.strictEqual(yield* statusOf(bindingIn("contract-sync")), 404)

            const secretObjects = [{ secretName: "a", type: "Opaque", data: [{ objectName: "a", key: "a" }] }]
            const wanting = manifestOf({
              apiVersion: "secrets-store.csi.x-k8s.io/v1",
              kind: "SecretProviderClass",
              metadata: { name: "wants-secrets", namespace: "contract-sync" },
              spec: { provider: "vault", secretObjects }
            })
            yield* apply(wanting, "", false)
            const bound = yield* until("a binding for the namespace", get(bindingIn("contract-sync")))
            assert.strictEqual(labelsOf(bound).metadata.labels[SYNC_LABEL], "true")

            const node = yield* Layer.build(
              kubernetesHttp({ kubeconfig: yield* kubeconfigOf(NODE_ACCOUNT, directory), userAgent, environment: {} })
            )
            const asNode = (path: string) => Effect.provide(statusOf(path), node)
            yield* until(
              "the driver may list Secrets there",
              Effect.map(asNode("/api/v1/namespaces/contract-sync/secrets"), (it) => (it === 200 ? true : undefined))
            )
            const elsewhere = [
              ...["/api/v1/secrets", "/api/v1/namespaces/default/secrets", `/api/v1/namespaces/${NAMESPACE}/secrets`],
              ...["/api/v1/nodes", "/api/v1/configmaps"]
            ]
            for (const path of elsewhere) assert.strictEqual(yield* asNode(path), 403, path)
            for (const path of ["/api/v1/pods", "/apis/secrets-store.csi.x-k8s.io/v1/secretproviderclasses"]) {
              assert.strictEqual(yield* asNode(path), 200, path)
            }

            const beyond = ["/api/v1/secrets", "/api/v1/namespaces/contract-sync/secrets", "/api/v1/configmaps"]
            for (const path of beyond) assert.strictEqual(yield* Effect.provide(statusOf(path), own), 403, path)
            const apps = `/apis/apps/v1/namespaces/${NAMESPACE}`
            const within = [
              "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
              "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
              ...["deployments", "replicasets"].map((plural) => `${apps}/${plural}/${OPERATOR_NAME}`),
              ...["infrastructures", "proxies", "apiservers"].map((it) => `/apis/config.openshift.io/v1/${it}/cluster`)
            ]
            for (const path of within) assert.notStrictEqual(yield* Effect.provide(statusOf(path), own), 403, path)
            const asks = (group: string, plural: string, kind: string, spec: object) =>
              Effect.flatMap(KubernetesApi, (it) =>
                it.request({
                  method: "POST",
                  path: `/apis/${group}/v1/${plural}`,
                  body: { apiVersion: `${group}/v1`, kind, spec }
                })
              )
            yield* Effect.provide(asks("authentication.k8s.io", "tokenreviews", "TokenReview", { token: "no" }), own)
            const nonResourceAttributes = { path: "/metrics", verb: "get" }
            const review = { user: "somebody", nonResourceAttributes }
            yield* Effect.provide(
              asks("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", review),
              own
            )
            // What it cannot hold, it cannot give away either.
            const role = {
              apiVersion: "rbac.authorization.k8s.io/v1",
              kind: "ClusterRole",
              metadata: { name: "secretproviderclasses-role-too" },
              rules: [{ apiGroups: [""], resources: ["secrets"], verbs: ["get"] }]
            }
            const path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
            const grant = yield* Effect.flip(
              Effect.provide(
                Effect.flatMap(KubernetesApi, (it) => it.request({ method: "POST", path, body: role })),
                own
              )
            )
            assert.strictEqual(grant.status, 403)
            assert.match(grant.detail, /attempting to grant RBAC permissions not currently held/u)

            yield* api.request({ method: "DELETE", path: clusterCsiDriver })
            yield* until("the ClusterCSIDriver is gone", isGone(clusterCsiDriver))
            for (const path of [...operandPaths, bindingIn("contract-sync")]) {
              assert.strictEqual(yield* statusOf(path), 404, path)
            }
            yield* Deferred.succeed(stop, "SIGTERM")
            yield* Fiber.join(running)
            assert.deepStrictEqual(refused, [])
            yield* api.request({
              method: "DELETE",
              path: "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/contract-sync/secretproviderclasses/wants-secrets"
            })
          })
        ),
      60_000
    )

    it.live.skipIf(!hasKubectl)(
      `8 must-gather finds what is installed, and no content of a Secret${hasKubectl ? "" : " (needs kubectl)"}`,
      () =>
        onRealServer(
          Effect.gen(function* () {
            const directory = yield* scratch
            yield* installed
            yield* makeNamespace("contract-gather")
            const secret = (namespace: string) => ({
              apiVersion: "v1",
              kind: "Secret",
              metadata: { name: "synced", namespace, labels: { "secrets-store.csi.k8s.io/managed": "true" } },
              stringData: { password: CANARY }
            })
            for (const namespace of [NAMESPACE, "contract-gather"]) {
              yield* apply(manifestOf(secret(namespace)), "", false)
            }
            const DESTINATION_DIR = join(directory, "out")
            const env = {
              ...{ PATH: process.env["PATH"], HOME: directory, KUBECONFIG: kubeconfig, KUBECTL },
              ...{ DESTINATION_DIR, OPERATOR_NAMESPACE: NAMESPACE }
            }
            const ended = yield* Effect.callback<string>((resume) => {
              execFile("bash", [join(assets, "must-gather/gather")], { env }, (error, _, stderr) =>
                resume(Effect.succeed(error === null ? "" : `${error.message} ${stderr}`))
              )
            })
            assert.strictEqual(ended, "")
            const text = (path: string) => readFileSync(join(DESTINATION_DIR, path), "utf8")
            const files = readdirSync(DESTINATION_DIR, { recursive: true, withFileTypes: true })
              .filter((entry) => entry.isFile())
              .map((entry) => join(entry.parentPath, entry.name))
            const everything = files.map((path) => readFileSync(path, "utf8")).join("\n")
            assert.notInclude(everything, CANARY)
            assert.notInclude(everything, Buffer.from(CANARY).toString("base64"))
            assert.match(text("objects/synced-secrets.txt"), /contract-gather\s+synced\s+Opaque\s+1/u)
            assert.match(text(`namespaces/${NAMESPACE}/secrets.txt`), /synced\s+Opaque\s+1/u)
            assert.match(text(`namespaces/${NAMESPACE}/deployment.yaml`), /DRIVER_IMAGE/u)
            assert.match(text(`cluster/clusterroles/${SECRET_SYNC}.yaml`), /secrets/u)
            assert.include(text("not-served.txt"), "infrastructures.config.openshift.io")
          })
        ),
      60_000
    )
  }
)
