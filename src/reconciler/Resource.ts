/**
 * One kind of Kubernetes object, with its types: plain JSON of the `KubernetesApi` becomes objects of a schema here,
 * and only here.
 *
 * Go writes null where nothing is; that decodes as absent. An object of the wrong shape is a `KubernetesApiFailed` with
 * the reason "Invalid", which names the field and never its value; within a list it is left out and logged, so that one
 * broken object does not take the others away.
 */
import { Effect, Result, Schema } from "effect"
import { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"
import { Lease } from "../../schemas/Coordination.ts"
import { Event, NodePod, Owned, Pod, Secret, SecretVersion, SyncedSecret } from "../../schemas/Core.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { CachedMeta } from "../../schemas/Meta.ts"
import { PodUse } from "../../schemas/PodUse.ts"
import { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import { CachedPodStatus, SecretProviderClassPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import { KubernetesApi, type KubernetesRequest } from "../ports/KubernetesApi.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"

export interface KubernetesObject {
  readonly metadata: Pick<CachedMeta, "name" | "namespace" | "resourceVersion">
}

interface Definition<A extends KubernetesObject> {
  /** Empty for the core group. */
  readonly group: string
  readonly version: string
  readonly plural: string
  readonly kind: string
  readonly namespaced: boolean
  readonly schema: Schema.Codec<A, unknown>
}

export interface Resource<A extends KubernetesObject> extends Definition<A> {
  /** The failure is where the shape is wrong, without values. */
  readonly decode: (input: unknown) => Result.Result<A, string>
  readonly encode: (object: A) => unknown
}

/**
 * @shape  (definition) -> a resource, whose decoder is compiled once
 * @errors none
 */
export const make = <A extends KubernetesObject>(definition: Definition<A>): Resource<A> => {
  const codec = Schema.toCodecGoJson(definition.schema)
  const decode = Schema.decodeUnknownResult(codec)
  const encode = Schema.encodeSync(codec)
  const apiVersion = definition.group === "" ? definition.version : `${definition.group}/${definition.version}`
  return {
    ...definition,
    decode: (input) => Result.mapError(decode(input), (error) => error.message.replace(/\s+/gu, " ")),
    encode: (object) => {
      const encoded = encode(object)
      return typeof encoded === "object" && encoded !== null
        ? { apiVersion, kind: definition.kind, ...encoded }
        : { apiVersion, kind: definition.kind }
    }
  }
}

const STORE = "secrets-store.csi.x-k8s.io"

export const secretProviderClasses = make({
  group: STORE,
  version: "v1",
  plural: "secretproviderclasses",
  kind: "SecretProviderClass",
  namespaced: true,
  schema: SecretProviderClass
})

export const podStatuses = make({
  group: STORE,
  version: "v1",
  plural: "secretproviderclasspodstatuses",
  kind: "SecretProviderClassPodStatus",
  namespaced: true,
  schema: SecretProviderClassPodStatus
})

export const events = make({
  group: "",
  version: "v1",
  plural: "events",
  kind: "Event",
  namespaced: true,
  schema: Event
})

export const pods = make({
  group: "",
  version: "v1",
  plural: "pods",
  kind: "Pod",
  namespaced: true,
  schema: Pod
})

/** The same pods, as the node driver keeps them. */
export const nodePods = make({
  group: "",
  version: "v1",
  plural: "pods",
  kind: "Pod",
  namespaced: true,
  schema: NodePod
})

export const secrets = make({
  group: "",
  version: "v1",
  plural: "secrets",
  kind: "Secret",
  namespaced: true,
  schema: Secret
})

/** The same Secrets, of which nothing but the version is kept. */
export const secretVersions = make({
  group: "",
  version: "v1",
  plural: "secrets",
  kind: "Secret",
  namespaced: true,
  schema: SecretVersion
})

/** The same Secrets, with all but their content. */
export const syncedSecrets = make({
  group: "",
  version: "v1",
  plural: "secrets",
  kind: "Secret",
  namespaced: true,
  schema: SyncedSecret
})

/** Pods of all nodes, as far as they say which Secrets they use. */
export const podUses = make({
  group: "",
  version: "v1",
  plural: "pods",
  kind: "Pod",
  namespaced: true,
  schema: PodUse
})

/** The pod statuses of this node, as its sync keeps them. */
export const cachedPodStatuses = make({
  group: STORE,
  version: "v1",
  plural: "secretproviderclasspodstatuses",
  kind: "SecretProviderClassPodStatus",
  namespaced: true,
  schema: CachedPodStatus
})

export const clusterCsiDrivers = make({
  group: "operator.openshift.io",
  version: "v1",
  plural: "clustercsidrivers",
  kind: "ClusterCSIDriver",
  namespaced: false,
  schema: ClusterCSIDriver
})

/** As far as they say who controls them. */
export const replicaSets = make({
  group: "apps",
  version: "v1",
  plural: "replicasets",
  kind: "ReplicaSet",
  namespaced: true,
  schema: Owned
})

export const leases = make({
  group: "coordination.k8s.io",
  version: "v1",
  plural: "leases",
  kind: "Lease",
  namespaced: true,
  schema: Lease
})

/** What a list or a watch is about; without a namespace, all of them. */
export interface Selection {
  readonly namespace?: string | undefined
  readonly labelSelector?: string | undefined
  readonly fieldSelector?: string | undefined
}

type AnyDefinition = Omit<Definition<KubernetesObject>, "schema">

/** Objects are known by namespace and name, those without a namespace by their name. */
export const keyOf = ({ metadata }: KubernetesObject): string =>
  metadata.namespace === undefined ? (metadata.name ?? "") : `${metadata.namespace}/${metadata.name ?? ""}`

/** What the API server calls the resource in its messages. */
export const qualifiedName = ({ group, plural }: Pick<AnyDefinition, "group" | "plural">): string =>
  group === "" ? plural : `${plural}.${group}`

/** False for what cannot be the name of an object: as a part of a path, it would name something else. */
export const isSegment = (name: string): boolean => name !== "" && name !== "." && name !== ".." && !/[/%]/u.test(name)

/** @shape (resource, namespace?, name?) -> path, every part percent-encoded */
export const pathOf = (resource: AnyDefinition, namespace?: string, name?: string): string => {
  const root =
    resource.group === "" ? `/api/${resource.version}` : `/apis/${encode(resource.group)}/${resource.version}`
  const inside = resource.namespaced && namespace !== undefined ? `/namespaces/${encode(namespace)}` : ""
  return `${root}${inside}/${resource.plural}${name === undefined ? "" : `/${encode(name)}`}`
}

const encode = (part: string): string => encodeURIComponent(part.toWellFormed())

/** An answer that is not what was asked for. */
const invalid = (request: Pick<KubernetesRequest, "method" | "path">, detail: string): KubernetesApiFailed =>
  new KubernetesApiFailed({ method: request.method, path: request.path, status: 200, reason: "Invalid", detail })

/** The API server's words for an object that does not exist. */
const notFound = (resource: AnyDefinition, method: string, path: string, name: string): KubernetesApiFailed =>
  new KubernetesApiFailed({
    method,
    path,
    status: 404,
    reason: "NotFound",
    detail: `${qualifiedName(resource)} ${JSON.stringify(name)} not found`
  })

/** Sends a request about one object; what comes back is not looked at. */
const send = Effect.fnUntraced(function* (
  resource: AnyDefinition,
  method: KubernetesRequest["method"],
  object: { readonly namespace: string | undefined; readonly name: string },
  rest: Pick<KubernetesRequest, "body" | "contentType" | "query">
): Effect.fn.Return<{ readonly path: string; readonly body: unknown }, KubernetesApiFailed, KubernetesApi> {
  const collection = pathOf(resource, object.namespace)
  // A name that cannot be is answered here: put into a path, it would ask for something else.
  if (!isSegment(object.name) || (resource.namespaced && !isSegment(object.namespace ?? ""))) {
    return yield* notFound(resource, method, collection, object.name)
  }
  const path = method === "POST" ? collection : pathOf(resource, object.namespace, object.name)
  const api = yield* KubernetesApi
  return { path, body: yield* api.request({ method, path, ...rest }) }
})

/** Sends a request about one object, and decodes the object that comes back. */
const exchange = Effect.fnUntraced(function* <A extends KubernetesObject>(
  resource: Resource<A>,
  method: KubernetesRequest["method"],
  object: { readonly namespace: string | undefined; readonly name: string },
  rest: Pick<KubernetesRequest, "body" | "contentType" | "query">
): Effect.fn.Return<A, KubernetesApiFailed, KubernetesApi> {
  const { body, path } = yield* send(resource, method, object, rest)
  const decoded = resource.decode(body)
  return Result.isSuccess(decoded)
    ? decoded.success
    : yield* invalid({ method, path }, `${resource.kind} ${JSON.stringify(object.name)}: ${decoded.failure}`)
})

const named = ({ metadata }: KubernetesObject) => ({ namespace: metadata.namespace, name: metadata.name ?? "" })

/**
 * Reads one object from the API server.
 *
 * @shape  (resource, namespace, name) -> object; the namespace of a cluster-wide resource is not looked at
 * @errors KubernetesApiFailed, also for an object of another shape ("Invalid")
 */
export const get = <A extends KubernetesObject>(resource: Resource<A>, namespace: string, name: string) =>
  exchange(resource, "GET", { namespace, name }, {})

/** @shape (resource, object) -> the object as stored */
export const create = <A extends KubernetesObject>(resource: Resource<A>, object: A) =>
  exchange(resource, "POST", named(object), { body: resource.encode(object) })

/** As `create`, for whoever does not need the object as stored: decoding it is most of what a request costs. */
export const post = <A extends KubernetesObject>(resource: Resource<A>, object: A) =>
  Effect.asVoid(send(resource, "POST", named(object), { body: resource.encode(object) }))

/** PUT; refused with Conflict when the object carries a version that is not the newest. */
export const replace = <A extends KubernetesObject>(resource: Resource<A>, object: A) =>
  exchange(resource, "PUT", named(object), { body: resource.encode(object) })

/** @shape (resource, namespace, name, patch: JSON merge patch) -> the object as stored */
export const mergePatch = <A extends KubernetesObject>(
  resource: Resource<A>,
  namespace: string,
  name: string,
  patch: unknown
) => exchange(resource, "PATCH", { namespace, name }, { body: patch, contentType: "application/merge-patch+json" })

/**
 * Server-side apply: `fieldManager` owns the fields of the object, and those that it applied before and does not name
 * any more are taken away. What others own stays. Creates the object when there is none; applying the same again
 * changes nothing.
 *
 * @shape  (resource, object: only what is to be owned, { fieldManager, force? }) -> the object as stored
 * @errors KubernetesApiFailed; Conflict with `causes` when another manager owns a field that would change, unless
 *         `force` takes it over
 * @source https://kubernetes.io/docs/reference/using-api/server-side-apply
 */
export const apply = <A extends KubernetesObject>(
  resource: Resource<A>,
  object: A,
  { fieldManager, force = false }: { readonly fieldManager: string; readonly force?: boolean }
) =>
  exchange(resource, "PATCH", named(object), {
    body: resource.encode(object),
    // JSON is YAML.
    contentType: "application/apply-patch+yaml",
    query: { fieldManager, force }
  })

/** Deletes one object, when it still is the one that is meant. */
export const remove = Effect.fnUntraced(function* <A extends KubernetesObject>(
  resource: Resource<A>,
  namespace: string,
  name: string,
  preconditions?: { readonly uid?: string; readonly resourceVersion?: string }
): Effect.fn.Return<void, KubernetesApiFailed, KubernetesApi> {
  const path = pathOf(resource, namespace, name)
  if (!isSegment(name) || (resource.namespaced && !isSegment(namespace))) {
    return yield* notFound(resource, "DELETE", pathOf(resource, namespace), name)
  }
  const api = yield* KubernetesApi
  yield* api.request({
    method: "DELETE",
    path,
    ...(preconditions === undefined ? {} : { body: { apiVersion: "v1", kind: "DeleteOptions", preconditions } })
  })
})

/** The parts of any object that are needed to speak of it, or to go on watching after it. */
const Anything = Schema.Struct({
  metadata: Schema.optionalKey(
    Schema.Struct({
      name: Schema.optionalKey(Schema.String),
      namespace: Schema.optionalKey(Schema.String),
      uid: Schema.optionalKey(Schema.String),
      resourceVersion: Schema.optionalKey(Schema.String),
      continue: Schema.optionalKey(Schema.String)
    })
  )
})
const decodeAnything = Schema.decodeUnknownResult(Schema.toCodecGoJson(Anything))

/** @shape (any JSON) -> its metadata, empty when it has none */
export const metadataOf = (input: unknown): NonNullable<typeof Anything.Type.metadata> => {
  const decoded = decodeAnything(input)
  return Result.isSuccess(decoded) ? (decoded.success.metadata ?? {}) : {}
}

const decodePage = Schema.decodeUnknownResult(
  Schema.toCodecGoJson(Schema.Struct({ items: Schema.optionalKey(Schema.Array(Schema.Unknown)) }))
)

/** Decodes an object of a list or watch; one of the wrong shape, or without a name, is logged and is undefined. */
export const decodeOrSkip = Effect.fnUntraced(function* <A extends KubernetesObject>(
  resource: Resource<A>,
  input: unknown
): Effect.fn.Return<A | undefined> {
  const decoded = resource.decode(input)
  if (Result.isSuccess(decoded) && decoded.success.metadata.name !== undefined) return decoded.success
  const { name = "", namespace } = metadataOf(input)
  yield* Effect.logWarning("object of unexpected shape is left out", {
    resource: qualifiedName(resource),
    object: keyOf({ metadata: namespace === undefined ? { name } : { name, namespace } }),
    [LogKeys.error]: Result.isSuccess(decoded) ? "has no name" : decoded.failure
  })
  return undefined
})

/** Pages are kept small: only one of them is in memory as it came. */
const PAGE_SIZE = 500
/** An API server that hands out continue tokens for ever is broken. */
const PAGES_MAX = 10_000

export interface Listed<A> {
  readonly objects: ReadonlyArray<A>
  /** Where a watch goes on from. */
  readonly resourceVersion: string
}

/**
 * Lists in pages of one snapshot. Objects of the wrong shape are left out.
 *
 * @shape  (resource, selection, pageSize?) -> { objects, resourceVersion }
 * @errors KubernetesApiFailed; `isGone` when the snapshot expired between two pages: list again
 */
export const list = Effect.fnUntraced(function* <A extends KubernetesObject>(
  resource: Resource<A>,
  selection: Selection = {},
  pageSize: number = PAGE_SIZE
): Effect.fn.Return<Listed<A>, KubernetesApiFailed, KubernetesApi> {
  const api = yield* KubernetesApi
  const { fieldSelector, labelSelector, namespace } = selection
  const path = pathOf(resource, namespace)
  const objects: Array<A> = []
  let token: string | undefined
  for (let page = 0; page < PAGES_MAX; page++) {
    const body = yield* api.request({
      method: "GET",
      path,
      query: { limit: pageSize, continue: token, labelSelector, fieldSelector }
    })
    const decoded = decodePage(body)
    if (Result.isFailure(decoded)) return yield* invalid({ method: "GET", path }, `${resource.kind}List: not a list`)
    for (const item of decoded.success.items ?? []) {
      const object = yield* decodeOrSkip(resource, item)
      if (object !== undefined) objects.push(object)
    }
    const metadata = metadataOf(body)
    token = metadata.continue
    if (token === undefined || token === "") return { objects, resourceVersion: metadata.resourceVersion ?? "" }
  }
  return yield* invalid({ method: "GET", path }, `${resource.kind}List: does not end`)
})
