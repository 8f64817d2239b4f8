/**
 * Who a client is and what it may do, in the answers of a real API server.
 *
 * @source reference/operator.md 1.5, Q22
 */
import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { layer as kubernetesHttp } from "../../layers/real/KubernetesHttp.ts"
import { readClientCa } from "../../src/operator/ClientCa.ts"
import * as ClusterTls from "../../src/operator/ClusterTls.ts"
import * as MetricsAccess from "../../src/operator/MetricsAccess.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"

const kubeconfig = process.env["TEST_KUBECONFIG"] ?? ""
const needs = kubeconfig === "" ? " (needs TEST_KUBECONFIG)" : ""

const NAME = "metrics-reader"
const ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
const RBAC = "/apis/rbac.authorization.k8s.io/v1"

const IssuedToken = Schema.Struct({ status: Schema.Struct({ token: Schema.String }) })

/** A ServiceAccount that may read /metrics of whatever asks; gone with the scope. */
const reader = Effect.gen(function* () {
  const { request } = yield* KubernetesApi
  const created = (collection: string, body: unknown) =>
    Effect.acquireRelease(request({ method: "POST", path: collection, body }), () =>
      Effect.ignore(request({ method: "DELETE", path: `${collection}/${NAME}` }))
    )
  const metadata = { name: NAME }
  yield* created(ACCOUNTS, { metadata })
  yield* created(`${RBAC}/clusterroles`, { metadata, rules: [{ nonResourceURLs: ["/metrics"], verbs: ["get"] }] })
  yield* created(`${RBAC}/clusterrolebindings`, {
    metadata,
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: NAME },
    subjects: [{ kind: "ServiceAccount", name: NAME, namespace: "default" }]
  })
  const issued = yield* request({
    method: "POST",
    path: `${ACCOUNTS}/${NAME}/token`,
    body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: { expirationSeconds: 600 } }
  })
  return (yield* Schema.decodeUnknownEffect(IssuedToken)(issued)).status.token
})

const USER = `system:serviceaccount:default:${NAME}`
const METRICS = { verb: "get", path: "/metrics" }
const anonymous = { certificate: undefined, authorization: undefined }

const options = {
  metricsUser: "somebody else",
  authenticationDisabled: false,
  authorizationDisabled: false,
  hash: (token: string) => createHash("sha256").update(token).digest("hex")
}

describe.skipIf(kubeconfig === "")(`access on a real API server${needs}`, () => {
  const administrator = kubernetesHttp({ kubeconfig, userAgent: "access/1.0", environment: process.env })

  it.live("1.5 Q22 a token is its account's, and may what its account may", () =>
    Effect.gen(function* () {
      const token = yield* reader
      const client = { certificate: undefined, authorization: `Bearer ${token}` }
      const access = yield* MetricsAccess.make(options)
      // Roles reach the authorizer a moment after they are written.
      yield* Effect.sleep("500 millis")
      assert.deepStrictEqual(yield* access(client, METRICS), { _tag: "Allowed" })
      assert.deepStrictEqual(yield* access(client, { verb: "put", path: "/debug/flags/v" }), {
        _tag: "Forbidden",
        user: USER
      })
      assert.deepStrictEqual(yield* access({ ...client, authorization: "Bearer made.up" }, METRICS), {
        _tag: "Unauthorized"
      })
      const named = yield* MetricsAccess.make({ ...options, metricsUser: USER })
      assert.deepStrictEqual(yield* named(client, METRICS), { _tag: "Allowed" })
    }).pipe(Effect.scoped, Effect.provide(administrator))
  )

  it.live("1.5 nobody may read the version, and no metrics; a certificate's user is looked up like any other", () =>
    Effect.gen(function* () {
      const access = yield* MetricsAccess.make(options)
      assert.deepStrictEqual(yield* access(anonymous, { verb: "get", path: "/version" }), { _tag: "Allowed" })
      assert.deepStrictEqual(yield* access(anonymous, METRICS), { _tag: "Forbidden", user: "system:anonymous" })
      const monitoring = { certificate: { CN: "m", O: "system:monitoring" }, authorization: undefined }
      assert.deepStrictEqual(yield* access(monitoring, METRICS), { _tag: "Allowed" })
      const other = { certificate: { CN: "m" }, authorization: undefined }
      assert.deepStrictEqual(yield* access(other, METRICS), { _tag: "Forbidden", user: "m" })
    }).pipe(Effect.provide(administrator))
  )

  it.live("1.3 1.5 a cluster without config.openshift.io has no profile; its CA of clients is read or is none", () =>
    Effect.gen(function* () {
      const tls = yield* ClusterTls.make
      const profile = yield* tls.current
      assert.deepStrictEqual([profile?.honour, yield* tls.failure], [false, undefined])
      const clientCa = yield* readClientCa
      assert.match(clientCa ?? "-----BEGIN CERTIFICATE-----", /^-----BEGIN CERTIFICATE-----/u)
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(administrator)))
  )
})
