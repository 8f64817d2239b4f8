/**
 * Reads what one reconcile needs to know, and no more than its management state asks for. Objects are read from the API
 * server, not from a cache: what is decided is never older than the reconcile.
 *
 * An object that cannot be read is observed as such, by its name; only the ClusterCSIDriver itself has to be readable.
 *
 * @source reference/operator.md 3.4 to 3.7, Q2, Q5, Q34
 */
import { Clock, Duration, Effect, Result, Schema } from "effect"
import { Proxy } from "../../schemas/ApiServerConfig.ts"
import type { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import { CachedMeta, ObjectMeta, open, type StringMap } from "../../schemas/Meta.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import * as Resource from "../reconciler/Resource.ts"
import { observationRetry } from "../reconciler/Schedules.ts"
import { apiServers } from "./ClusterTls.ts"
import * as Desired from "./Desired.ts"
import { idOf, keyOf, type OperandId, resourceOf } from "./Kinds.ts"
import { managementOf } from "./Management.ts"
import { Annotation, DAEMON_SET, DRIVER_NAME, SYNC_LABEL } from "./Names.ts"
import { type Fixed, type Observed, SYNC_BINDINGS } from "./Observed.ts"
import { advance, type Progress } from "./Progress.ts"
import { type ObservedServingInfo, observeServingInfo, resolveTlsProfile } from "./TlsProfile.ts"

const CONCURRENCY = 4
const CLUSTER = "cluster"
const OPENSHIFT_CONFIG = "config.openshift.io"

/** The cluster's configuration as it was observed. */
export interface ClusterConfig {
  /** Undefined until it could be read once. */
  readonly proxy: StringMap | undefined
  readonly hasProxy: boolean
  readonly servingInfo: ObservedServingInfo
}

/** What one reconcile leaves to the next; a new process begins without. */
export interface Memory {
  progress: Progress | undefined
  servedGroups: ReadonlySet<string> | undefined
  clusterConfig: ClusterConfig | undefined
  /** How long it took to look for pods. */
  listMillis: number
}

export const emptyMemory = (): Memory => ({
  progress: undefined,
  servedGroups: undefined,
  clusterConfig: undefined,
  listMillis: 0
})

const proxies = Resource.make({
  group: OPENSHIFT_CONFIG,
  version: "v1",
  plural: "proxies",
  kind: "Proxy",
  namespaced: false,
  schema: Proxy
})

/** Where the API server listens. */
const endpointSlices = Resource.make({
  group: "discovery.k8s.io",
  version: "v1",
  plural: "endpointslices",
  kind: "EndpointSlice",
  namespaced: true,
  schema: Schema.Struct({
    metadata: CachedMeta,
    ports: Schema.optionalKey(Schema.Array(Schema.Struct({ port: Schema.optionalKey(Schema.Int) })))
  })
})

const text = Schema.optionalKey(Schema.String)

/** A pod as far as it says which driver serves its volumes. */
const consumers = Resource.make({
  group: "",
  version: "v1",
  plural: "pods",
  kind: "Pod",
  namespaced: true,
  schema: Schema.Struct({
    metadata: Schema.Struct({ name: text, namespace: text }),
    spec: Schema.optionalKey(
      Schema.Struct({
        nodeName: text,
        volumes: Schema.optionalKey(
          Schema.Array(Schema.Struct({ csi: Schema.optionalKey(Schema.Struct({ driver: text })) }))
        )
      })
    ),
    status: Schema.optionalKey(Schema.Struct({ phase: text }))
  })
})

const GroupList = Schema.Struct({
  groups: Schema.optionalKey(Schema.Array(Schema.Struct({ name: Schema.optionalKey(Schema.String) })))
})
const decodeGroups = Schema.decodeUnknownResult(Schema.toCodecGoJson(GroupList))

/** Asked every time: an API that was not there may have come, and one that was there may have gone. */
const servedGroups: Effect.Effect<ReadonlySet<string> | undefined, KubernetesApiFailed, KubernetesApi> = Effect.gen(
  function* () {
    const api = yield* KubernetesApi
    const list = decodeGroups(yield* api.request({ method: "GET", path: "/apis" }))
    if (Result.isFailure(list)) return undefined
    return new Set(list.success.groups?.flatMap(({ name }) => (name?.endsWith(".openshift.io") ? [name] : [])))
  }
)

/** What passes by itself is not observed: conditions would say so, and the opposite a second later. */
const patiently = <A, R>(effect: Effect.Effect<A, KubernetesApiFailed, R>) =>
  Effect.retry(effect, { schedule: observationRetry, while: ({ isTransient }) => isTransient })

const orAbsent = <A, R>(
  effect: Effect.Effect<A, KubernetesApiFailed, R>
): Effect.Effect<A | undefined, KubernetesApiFailed, R> =>
  Effect.catchIf(
    patiently(effect),
    ({ isNotFound }) => isNotFound,
    () => Effect.undefined
  )

/** @shape (what is read, in words) -> the failure as a sentence */
const sentence = (what: string, failure: KubernetesApiFailed): string =>
  `${what} cannot be read: ${failure.message} (${failure.remedy})`

const readOperand = (id: OperandId) => {
  const resource = resourceOf(id.kind)
  return resource === undefined ? Effect.undefined : orAbsent(Resource.get(resource, id.namespace, id.name))
}

/** In a list, the API server leaves out of every item what all of them are. */
const listedBindings = Resource.make({
  group: "rbac.authorization.k8s.io",
  version: "v1",
  plural: "rolebindings",
  kind: "RoleBinding",
  namespaced: true,
  schema: open({ metadata: ObjectMeta })
})

const syncBindings = Effect.map(
  patiently(Resource.list(listedBindings, { labelSelector: `${SYNC_LABEL}=true` })),
  ({ objects }): ReadonlyArray<Manifest> =>
    objects.map((object) => ({ ...object, apiVersion: "rbac.authorization.k8s.io/v1", kind: "RoleBinding" }))
)

interface Operands {
  readonly live: ReadonlyMap<string, Manifest>
  readonly unread: ReadonlyMap<string, string>
}

const readOperands = Effect.fnUntraced(function* (
  ids: ReadonlyArray<OperandId>,
  withBindings: boolean
): Effect.fn.Return<Operands, never, KubernetesApi> {
  const unread = new Map<string, string>()
  const read = yield* Effect.forEach(
    ids,
    (id) =>
      Effect.catch(readOperand(id), (failure) =>
        Effect.sync(() => {
          unread.set(keyOf(id), sentence(keyOf(id), failure))
          return undefined
        })
      ),
    { concurrency: CONCURRENCY }
  )
  const bindings = withBindings
    ? yield* Effect.catch(syncBindings, (failure) =>
        Effect.sync((): ReadonlyArray<Manifest> => {
          unread.set(SYNC_BINDINGS, sentence("RoleBindings for Secrets", failure))
          return []
        })
      )
    : []
  const objects = [...read, ...bindings].flatMap((object) => (object === undefined ? [] : [object]))
  return { live: new Map(objects.map((object) => [keyOf(idOf(object)), object])), unread }
})

const nonEmpty = (values: Readonly<Record<string, string | undefined>>): StringMap =>
  Object.fromEntries(
    Object.entries(values).flatMap(([name, value]) => (value === undefined || value === "" ? [] : [[name, value]]))
  )

/** Proxy and TLS profile of the cluster; what cannot be read stays as it was. */
const observeConfig = Effect.fnUntraced(function* (
  before: ClusterConfig | undefined
): Effect.fn.Return<
  { readonly config: ClusterConfig; readonly failures: ReadonlyArray<string> },
  never,
  KubernetesApi
> {
  const failures: Array<string> = []
  const [proxy, apiServer] = yield* Effect.all(
    [
      Effect.result(orAbsent(Resource.get(proxies, "", CLUSTER))),
      Effect.result(orAbsent(Resource.get(apiServers, "", CLUSTER)))
    ],
    { concurrency: CONCURRENCY }
  )
  if (Result.isFailure(proxy)) failures.push(sentence(`proxies.${OPENSHIFT_CONFIG}/cluster`, proxy.failure))
  if (Result.isFailure(apiServer)) failures.push(sentence(`apiservers.${OPENSHIFT_CONFIG}/cluster`, apiServer.failure))
  if (Result.isSuccess(apiServer)) {
    const profile = resolveTlsProfile(apiServer.success)
    if (Result.isFailure(profile)) failures.push(profile.failure.message)
  }
  const status = Result.isSuccess(proxy) ? proxy.success?.status : undefined
  const config: ClusterConfig = {
    proxy: Result.isSuccess(proxy)
      ? nonEmpty({ NO_PROXY: status?.noProxy, HTTP_PROXY: status?.httpProxy, HTTPS_PROXY: status?.httpsProxy })
      : before?.proxy,
    hasProxy: Result.isSuccess(proxy) ? proxy.success !== undefined : (before?.hasProxy ?? true),
    servingInfo: Result.isSuccess(apiServer)
      ? observeServingInfo(apiServer.success)
      : (before?.servingInfo ?? observeServingInfo(undefined))
  }
  return { config, failures }
})

const isUsed = (pod: typeof consumers.schema.Type): boolean =>
  pod.spec?.nodeName !== undefined &&
  pod.status?.phase !== "Succeeded" &&
  pod.status?.phase !== "Failed" &&
  (pod.spec.volumes ?? []).some(({ csi }) => csi?.driver === DRIVER_NAME)

/** "namespace/name" of pods that the kubelet would need the driver for. */
const findConsumers = Effect.map(patiently(Resource.list(consumers)), ({ objects }) =>
  objects.filter(isUsed).map(Resource.keyOf).sort()
)

/** A list of all pods is the dearest thing that is asked for: how dear, says when it is asked for again. */
const timed = <A, E, R>(list: Effect.Effect<A, E, R>, memory: Memory): Effect.Effect<A, E, R> =>
  Effect.map(Effect.timed(list), ([duration, found]) => {
    memory.listMillis = Duration.toMillis(duration)
    return found
  })

const findDriverPods = (namespace: string) =>
  Effect.map(
    patiently(Resource.list(Resource.pods, { namespace, labelSelector: `app=${DAEMON_SET}` })),
    ({ objects }) => objects.map(Resource.keyOf).sort()
  )

const EGRESS: OperandId = { kind: "NetworkPolicy", namespace: "", name: "sscsi-allow-egress-to-api-server-operand" }
const DENY: OperandId = { kind: "NetworkPolicy", namespace: "", name: "sscsi-default-deny-operand" }

/**
 * @shape  (fixed, memory: is brought up to date, namespaces that want Secrets) -> Observed
 * @errors KubernetesApiFailed when the ClusterCSIDriver cannot be read, or what a removal has to wait for
 */
export const observe = Effect.fn("Operator.observe")(function* (
  { config, manifests }: Fixed,
  memory: Memory,
  syncNamespaces: () => ReadonlySet<string> | undefined
): Effect.fn.Return<Observed, KubernetesApiFailed, KubernetesApi> {
  const clusterCsiDriver: ClusterCSIDriver | undefined = yield* orAbsent(
    Resource.get(Resource.clusterCsiDrivers, "", DRIVER_NAME)
  )
  const management = managementOf(clusterCsiDriver)
  const nothing: Observed = {
    clusterCsiDriver,
    live: new Map(),
    unread: new Map(),
    syncNamespaces: undefined,
    servedGroups: memory.servedGroups,
    apiServerPorts: [],
    proxy: {},
    observationFailures: [],
    consumers: [],
    driverPods: [],
    stuckMillis: undefined
  }
  if (management._tag === "Absent" || management._tag === "Released") return nothing

  // What was known stays known while the API server does not say.
  memory.servedGroups = (yield* Effect.catch(patiently(servedGroups), () => Effect.undefined)) ?? memory.servedGroups
  const isOpenShift = memory.servedGroups?.has(OPENSHIFT_CONFIG) === true
  const { config: clusterConfig, failures } = isOpenShift
    ? yield* observeConfig(memory.clusterConfig)
    : { config: undefined, failures: [] }
  memory.clusterConfig = clusterConfig ?? memory.clusterConfig

  const isWriting = management._tag === "Managed" || management._tag === "Removing"
  const daemonSetId = Desired.daemonSetId(config.namespace)
  const ids = isWriting ? Desired.operandIds(manifests, config) : [daemonSetId]
  const { live, unread } = yield* readOperands(ids, isWriting)
  const daemonSet = live.get(keyOf(daemonSetId))
  const nowMillis = Number(yield* Clock.monotonicTimeNanos) / 1e6
  memory.progress = advance(memory.progress, daemonSet, nowMillis)

  const ports =
    management._tag === "Managed"
      ? yield* Effect.result(orAbsent(Resource.get(endpointSlices, "default", "kubernetes")))
      : Result.succeed(undefined)
  const portless = Result.isFailure(ports)
    ? [EGRESS, DENY].map(
        (id) =>
          [keyOf({ ...id, namespace: config.namespace }), sentence("the API server's ports", ports.failure)] as const
      )
    : []

  const waits =
    management._tag === "Removing" &&
    clusterCsiDriver?.metadata.annotations?.[Annotation.removeWithoutWaiting] !== "true"
  return {
    ...nothing,
    live,
    unread: new Map([...unread, ...portless]),
    syncNamespaces: syncNamespaces(),
    servedGroups: memory.servedGroups,
    apiServerPorts: Result.isSuccess(ports)
      ? (ports.success?.ports ?? []).flatMap(({ port }) => (port === undefined ? [] : [port]))
      : [],
    proxy: isOpenShift ? clusterConfig?.proxy : memory.servedGroups === undefined ? undefined : {},
    observationFailures: failures,
    consumers: waits && daemonSet !== undefined ? yield* timed(findConsumers, memory) : [],
    driverPods:
      management._tag === "Removing" &&
      (live.size > 0 || (clusterCsiDriver?.metadata.finalizers ?? []).length > 0) &&
      (daemonSet === undefined || daemonSet.metadata.deletionTimestamp !== undefined)
        ? yield* findDriverPods(config.namespace)
        : [],
    stuckMillis: memory.progress === undefined ? undefined : nowMillis - memory.progress.sinceMillis
  }
})
