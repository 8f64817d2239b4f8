/**
 * A real API server takes every manifest of assets/deploy and assets/olm, and no field of them is unknown to it; the whole
 * operator works there with the rights that its manifests give it, and so does must-gather. Needs a real API server.
 */
import { execFile, execFileSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { parse } from "yaml"
import { OPERATOR_NAME, SYNC_LABEL } from "../../src/operator/Names.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import {
  apply,
  asAccount,
  assets,
  clusterCsiDriver,
  filesIn,
  get,
  installed,
  isGone,
  kubeconfig,
  type Manifest,
  makeNamespace,
  manifestOf,
  manifestsOf,
  NAMESPACE,
  NODE_ACCOUNT,
  onRealServer,
  operandPaths,
  operator,
  read,
  scratch,
  statusOf,
  until
} from "../support/RealCluster.ts"

const SECRET_SYNC = "secrets-store-csi-driver-secret-sync"
const CANARY = "canary-of-a-secret"
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

const labelsOf = Schema.decodeUnknownSync(
  Schema.Struct({ metadata: Schema.Struct({ labels: Schema.Record(Schema.String, Schema.String) }) })
)

const bindingIn = (namespace: string) =>
  `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/rolebindings/${SECRET_SYNC}`

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
            const api = yield* KubernetesApi
            yield* installed
            yield* makeNamespace("contract-sync")
            const own = yield* asAccount(OPERATOR_NAME)
            const running = yield* operator()

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

            const node = yield* asAccount(NODE_ACCOUNT)
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
              `${apps}/replicasets/${OPERATOR_NAME}`,
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
            yield* running.stop
            assert.deepStrictEqual(running.refused, [])
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
