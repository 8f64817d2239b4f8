/**
 * The whole operator on a real API server, with the token and the rights of its own account. Everything that others do
 * there is done by the administrator of TEST_KUBECONFIG.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert } from "@effect/vitest"
import {
  Clock,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Result,
  Schema,
  type Scope,
  Stream
} from "effect"
import { parse, parseAllDocuments, stringify } from "yaml"
import * as AssetFiles from "../../layers/real/AssetFiles.ts"
import { layer as kubernetesHttp } from "../../layers/real/KubernetesHttp.ts"
import * as NodeDigest from "../../layers/real/NodeDigest.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import * as Operator from "../../src/Operator.ts"
import type { OperatorEvent } from "../../src/operator/ActionEvents.ts"
import { DAEMON_SET, DRIVER_NAME, LEASE, OPERATOR_NAME } from "../../src/operator/Names.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import { LogLevel } from "../../src/ports/LogLevel.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"

export const kubeconfig = process.env["TEST_KUBECONFIG"] ?? ""
export const assets = fileURLToPath(new URL("../../assets", import.meta.url))
export const NAMESPACE = "secrets-store-csi-driver"
export const NODE_ACCOUNT = "secrets-store-csi-driver-node-sa"
const userAgent = "csi-secrets-store-operator/test"

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
export type Manifest = typeof Manifest.Type
export const manifestOf = Schema.decodeUnknownSync(Manifest)

export const manifestsOf = (text: string): ReadonlyArray<Manifest> =>
  parseAllDocuments(text).map((document) => manifestOf(document.toJS()))
export const read = (path: string) => manifestsOf(readFileSync(join(assets, path), "utf8"))
export const filesIn = (folder: string) => readdirSync(join(assets, folder)).filter((name) => name.endsWith(".yaml"))

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

export const apply = Effect.fnUntraced(function* (object: Manifest, namespace: string, dryRun: boolean) {
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

export const makeNamespace = (name: string) =>
  apply(manifestOf({ apiVersion: "v1", kind: "Namespace", metadata: { name } }), "", false)

const tokenOf = Schema.decodeUnknownSync(Schema.Struct({ status: Schema.Struct({ token: Schema.String }) }))

/** The API server as an account knows it, with a token of its own. */
export const asAccount = Effect.fnUntraced(function* (account: string) {
  const api = yield* KubernetesApi
  const answer = yield* api.request({
    method: "POST",
    path: `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${account}/token`,
    body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: { expirationSeconds: 3600 } }
  })
  const { token } = tokenOf(answer).status
  const config = parse(readFileSync(kubeconfig, "utf8"))
  const path = join(yield* scratch, "kubeconfig")
  const users = [{ name: config.users[0].name, user: { token } }]
  writeFileSync(path, stringify({ ...config, users }), { mode: 0o600 })
  return yield* Layer.build(kubernetesHttp({ kubeconfig: path, userAgent, environment: {} }))
})

export const scratch = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "manifests-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Looks until it is so; what is still wrong after 20 seconds is the failure. */
export const until = <A, R>(what: string, look: Effect.Effect<A | undefined, KubernetesApiFailed, R>) =>
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

export const get = (path: string) => Effect.flatMap(KubernetesApi, (api) => api.request({ method: "GET", path }))
export const isGone = (path: string) =>
  get(path).pipe(
    Effect.as<true | undefined>(undefined),
    Effect.catchIf(
      ({ status }) => status === 404,
      () => Effect.succeed(true)
    )
  )
export const statusOf = (path: string) =>
  Effect.match(get(path), { onFailure: ({ status }) => status, onSuccess: () => 200 })

/** Everything that the operator needs from others, as its manifests give it. */
export const installed = Effect.gen(function* () {
  const objects = read("deploy/operator.yaml")
  for (const object of objects) assert.isTrue(yield* apply(object, NAMESPACE, false), object.kind)
})

/** What an operator has sent, in order of the answers. */
export interface Sent extends KubernetesRequest {
  /** Of the answer. */
  readonly status: number
}

export interface RunningOperator {
  readonly sent: ReadonlyArray<Sent>
  /** What was refused for want of rights, in the API server's words. */
  readonly refused: ReadonlyArray<string>
  readonly logged: ReadonlyArray<string>
  readonly events: ReadonlyArray<OperatorEvent>
  /** As SIGTERM does; ends when the operator has. */
  readonly stop: Effect.Effect<void>
}

/** Time that passes faster: what takes a minute in it takes a fraction of that. */
const fasterClock = (clock: Clock.Clock, factor: number): Clock.Clock => ({
  currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
  currentTimeMillis: clock.currentTimeMillis,
  currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
  currentTimeNanos: clock.currentTimeNanos,
  monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() * BigInt(factor),
  monotonicTimeNanos: Effect.map(clock.monotonicTimeNanos, (nanos) => nanos * BigInt(factor)),
  sleep: (duration) => clock.sleep(Duration.times(duration, 1 / factor))
})

const ONE_CONTAINER = { driver: "ghcr.io/secrets-store-csi/driver:test", registrar: "", livenessProbe: "" }
const LEASE_PATH = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases/${LEASE}`

/**
 * Starts the whole operator with a token of its own account, once its rights are known. It is told to stop when the scope
 * closes.
 *
 * @shape ({ identity, images, speed: of its clock, which others need not share }) -> RunningOperator
 */
export const operator = Effect.fnUntraced(function* ({
  identity = "contract",
  images = ONE_CONTAINER,
  speed = 1
}: {
  readonly identity?: string
  readonly images?: { readonly driver: string; readonly registrar: string; readonly livenessProbe: string }
  readonly speed?: number
} = {}) {
  const own = yield* asAccount(OPERATOR_NAME)
  for (const path of [clusterCsiDriver, LEASE_PATH]) {
    yield* until(
      "its rights are known",
      Effect.map(Effect.provide(statusOf(path), own), (it) => (it === 403 ? undefined : it))
    )
  }
  const api = Context.get(own, KubernetesApi)
  const sent: Array<Sent> = []
  const refused: Array<string> = []
  const logged: Array<string> = []
  const events: Array<OperatorEvent> = []
  const note = ({ detail, status }: KubernetesApiFailed) =>
    Effect.sync(() => {
      if (status === 403) refused.push(detail)
    })
  const recorded = KubernetesApi.of({
    request: (request) =>
      api.request(request).pipe(
        Effect.tap(() => Effect.sync(() => sent.push({ ...request, status: 200 }))),
        Effect.tapError((failure) => Effect.sync(() => sent.push({ ...request, status: failure.status }))),
        Effect.tapError(note)
      ),
    watch: (request, idleMillis) => Stream.tapError(api.watch(request, idleMillis), note)
  })
  const requested = yield* Deferred.make<string>()
  const layers = Layer.mergeAll(
    Layer.succeed(KubernetesApi, recorded),
    AssetFiles.layer(join(assets, "driver")),
    NodeDigest.layer,
    Logger.layer([Logger.make(({ message }) => logged.push(JSON.stringify(message)))]),
    Layer.succeed(Shutdown, Shutdown.of({ requested: Deferred.await(requested) })),
    Layer.succeed(LogLevel, LogLevel.of({ current: Effect.succeed(2), set: () => Effect.void }))
  )
  const config = {
    namespace: NAMESPACE,
    images,
    version: "0.0.0",
    operatorName: OPERATOR_NAME,
    podName: "",
    lease: { namespace: NAMESPACE, name: LEASE }
  }
  const surroundings: Operator.Surroundings = {
    identity,
    record: (event) => Effect.sync(() => void events.push(event)),
    recordElection: () => Effect.void
  }
  const clock = yield* Clock.Clock
  const running = yield* Effect.forkScoped(
    Operator.run(config, surroundings).pipe(
      Effect.provide(layers),
      Effect.provideService(Clock.Clock, speed === 1 ? clock : fasterClock(clock, speed)),
      Effect.exit
    )
  )
  const stop = Effect.gen(function* () {
    yield* Deferred.succeed(requested, "SIGTERM")
    const exit = yield* Fiber.join(running)
    assert.isTrue(Exit.isSuccess(exit), String(exit))
  })
  yield* Effect.addFinalizer(() => stop)
  const made: RunningOperator = { sent, refused, logged, events, stop }
  return made
})

export const clusterCsiDriver = `/apis/operator.openshift.io/v1/clustercsidrivers/${DRIVER_NAME}`
export const csiDriver = `/apis/storage.k8s.io/v1/csidrivers/${DRIVER_NAME}`
export const daemonSet = `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/${DAEMON_SET}`
export const clusterRole = "/apis/rbac.authorization.k8s.io/v1/clusterroles/secretproviderclasses-role"
export const clusterRoleBinding =
  "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/secretproviderclasses-rolebinding"
export const operandPaths = [
  `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${NODE_ACCOUNT}`,
  csiDriver,
  clusterRole,
  clusterRoleBinding,
  daemonSet,
  ...["default-deny", "allow-ingress-to-metrics", "allow-egress-to-api-server"].map(
    (name) => `/apis/networking.k8s.io/v1/namespaces/${NAMESPACE}/networkpolicies/sscsi-${name}-operand`
  )
]

export const onRealServer = <A, E>(program: Effect.Effect<A, E, KubernetesApi | Scope.Scope>) =>
  Effect.gen(function* () {
    const context = yield* Layer.build(kubernetesHttp({ kubeconfig, userAgent, environment: {} }))
    return yield* Effect.provide(program, Layer.succeed(KubernetesApi, Context.get(context, KubernetesApi)))
  })
