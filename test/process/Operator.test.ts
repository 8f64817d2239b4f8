/**
 * The real operator as a process, beside an API server in memory: what it serves, how it takes up a TLS profile, and how
 * it stops.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect } from "node:tls"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { inject } from "vitest"
import * as DriverProcess from "../../layers/development/DriverProcess.ts"
import { isObject, type JsonObject, objectAt, textAt } from "../../layers/fake/KubernetesObject.ts"
import * as MemoryKubernetes from "../../layers/fake/MemoryKubernetes.ts"
import { serve } from "../../layers/fake/MemoryKubernetesServer.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { eventually, freePort, tell } from "../support/DriverWorld.ts"

const NAMESPACE = "openshift-cluster-csi-drivers"
const LEASE = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases/secrets-store-csi-driver-operator-lock`
const CLUSTER_CSI_DRIVERS = "/apis/operator.openshift.io/v1/clustercsidrivers"
const ASSETS_DIR = fileURLToPath(new URL("../../assets/driver", import.meta.url))

const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "secrets-store-operator-"))),
  (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
)

/** An API server, and a kubeconfig for it. */
const cluster = Effect.gen(function* () {
  const directory = yield* scratch
  const context = yield* Layer.build(Layer.fresh(MemoryKubernetes.layer))
  const api = Context.get(context, KubernetesApi)
  const served = yield* Effect.provideService(serve(), KubernetesApi, api)
  const kubeconfig = join(directory, "kubeconfig")
  writeFileSync(
    kubeconfig,
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      "current-context": "test",
      clusters: [{ name: "test", cluster: { server: served.url } }],
      users: [{ name: "test", user: {} }],
      contexts: [{ name: "test", context: { cluster: "test", user: "test" } }]
    })
  )
  return { api, kubeconfig }
})

const start = Effect.fnUntraced(function* (kubeconfig: string, environment: Readonly<Record<string, string>> = {}) {
  const port = yield* freePort
  const running = yield* DriverProcess.start({
    entry: inject("operatorEntry"),
    flags: ["start", `--namespace=${NAMESPACE}`, `--kubeconfig=${kubeconfig}`, `--listen=127.0.0.1:${port}`, "-v=2"],
    environment: { DRIVER_IMAGE: "driver:test", ASSETS_DIR, ...environment }
  })
  return { ...running, port }
})

const read = (api: KubernetesApi["Service"], path: string): Effect.Effect<JsonObject> =>
  api.request({ method: "GET", path }).pipe(
    Effect.map((body) => (isObject(body) ? body : {})),
    Effect.orElseSucceed(() => ({}))
  )

/** One request over TLS, which says what was agreed on; undefined when it was refused. */
const ask = (port: number, path: string, version?: "TLSv1.2") =>
  Effect.callback<{ readonly protocol: string; readonly status: number } | undefined>((resume) => {
    const socket = connect({
      port,
      host: "127.0.0.1",
      rejectUnauthorized: false,
      ...(version === undefined ? {} : { maxVersion: version })
    })
    let text = ""
    let protocol = ""
    socket.on("secureConnect", () => {
      protocol = socket.getProtocol() ?? ""
      // Whoever ends at once has left: the answer is not waited for.
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
    })
    socket.on("data", (chunk) => {
      text += chunk.toString()
    })
    socket.on("error", () => resume(Effect.undefined))
    socket.on("close", () => {
      const [, status] = /^HTTP\/1\.1 (\d+)/u.exec(text) ?? []
      resume(Effect.succeed(status === undefined ? undefined : { protocol, status: Number(status) }))
    })
    return Effect.sync(() => void socket.destroy())
  })

const createClusterCsiDriver = (api: KubernetesApi["Service"]) =>
  api.request({
    method: "POST",
    path: CLUSTER_CSI_DRIVERS,
    body: {
      apiVersion: "operator.openshift.io/v1",
      kind: "ClusterCSIDriver",
      metadata: { name: "secrets-store.csi.k8s.io" },
      spec: { managementState: "Managed" }
    }
  })

const holder = (api: KubernetesApi["Service"]) =>
  Effect.map(read(api, LEASE), (lease) => textAt(objectAt(lease, "spec"), "holderIdentity"))

const daemonSet = (api: KubernetesApi["Service"]) =>
  read(api, `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/secrets-store-csi-driver-node`)

describe("the operator as a process", () => {
  it.live(
    "1.5 1.6 1.10 leads, applies, serves over HTTPS, and releases the Lease when it is told to stop",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { api, kubeconfig } = yield* cluster
          const operator = yield* start(kubeconfig)
          yield* createClusterCsiDriver(api)
          yield* eventually(daemonSet(api), (found) => textAt(found, "kind") === "DaemonSet")
          assert.include(JSON.stringify(yield* daemonSet(api)), "driver:test")
          for (const path of ["/healthz", "/livez", "/readyz"]) {
            yield* eventually(ask(operator.port, path), (answer) => answer?.status === 200)
          }
          const metrics = yield* ask(operator.port, "/metrics")
          assert.include([401, 403, 500], metrics?.status)
          assert.match((yield* holder(api)) ?? "", /_[0-9a-f-]{36}$/u)
          const { anonymousMiB, residentMiB } = operator.memory()
          tell(`operator at rest: ${residentMiB.toFixed(0)} MiB resident, ${anonymousMiB.toFixed(0)} MiB anonymous`)
          yield* operator.kill("SIGTERM")
          assert.strictEqual(yield* operator.exited, 0)
          assert.strictEqual((yield* holder(api)) ?? "", "")
          assert.notInclude(operator.output(), "unrecoverable")
        })
      ),
    60_000
  )

  it.live(
    "3.8 Q21 takes up another TLS profile without a restart",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { api, kubeconfig } = yield* cluster
          const apiServers = "/apis/config.openshift.io/v1/apiservers"
          const profile = { tlsAdherence: "LegacyAdheringComponentsOnly", tlsSecurityProfile: { type: "Modern" } }
          yield* api.request({
            method: "POST",
            path: apiServers,
            body: {
              apiVersion: "config.openshift.io/v1",
              kind: "APIServer",
              metadata: { name: "cluster" },
              spec: profile
            }
          })
          const operator = yield* start(kubeconfig)
          yield* eventually(ask(operator.port, "/healthz", "TLSv1.2"), (answer) => answer?.protocol === "TLSv1.2")
          yield* api.request({
            method: "PATCH",
            path: `${apiServers}/cluster`,
            contentType: "application/merge-patch+json",
            body: { spec: { tlsAdherence: "StrictAllComponents" } }
          })
          yield* eventually(ask(operator.port, "/healthz", "TLSv1.2"), (answer) => answer === undefined)
          assert.deepStrictEqual(yield* ask(operator.port, "/healthz"), { protocol: "TLSv1.3", status: 200 })
          yield* operator.kill("SIGINT")
          assert.strictEqual(yield* operator.exited, 0)
        })
      ),
    60_000
  )

  it.live(
    "1.6 a second one waits, and writes nothing; killed, the first keeps the Lease until it expires",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { api, kubeconfig } = yield* cluster
          const first = yield* start(kubeconfig)
          const held = yield* eventually(holder(api), (found) => (found ?? "") !== "")
          const second = yield* start(kubeconfig, { DRIVER_IMAGE: "driver:other" })
          yield* eventually(ask(second.port, "/readyz"), (answer) => answer?.status === 200)
          yield* createClusterCsiDriver(api)
          yield* eventually(daemonSet(api), (found) => textAt(found, "kind") === "DaemonSet")
          assert.include(JSON.stringify(yield* daemonSet(api)), "driver:test")
          yield* first.kill("SIGKILL")
          yield* first.exited
          yield* Effect.sleep("3 seconds")
          assert.strictEqual(yield* holder(api), held)
          assert.notInclude(JSON.stringify(yield* daemonSet(api)), "driver:other")
        })
      ),
    60_000
  )
})
