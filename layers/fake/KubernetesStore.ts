/**
 * An API server's objects, versions and history, without time, chance or effects: one request is one call, and nothing
 * else happens meanwhile. What is refused is thrown as `Refused`, in the API server's own words.
 */
import type { KubernetesRequest, WatchEvent } from "../../src/ports/KubernetesApi.ts"
import { apply, type Cause, conflictWords, duplicateIn, nullsIn } from "./ApplyPatch.ts"
import { definitionComplaints, RULES_NOT_CHECKED } from "./KubernetesDefinitions.ts"
import { discover } from "./KubernetesDiscovery.ts"
import {
  clean,
  freeze,
  isEqual,
  isObject,
  type JsonObject,
  listAt,
  mergePatch,
  metadataOf,
  objectAt,
  textAt,
  without
} from "./KubernetesObject.ts"
import {
  apiVersionOf,
  metadataComplaints,
  qualifiedKind,
  qualifiedName,
  RESOURCES,
  type ResourceType
} from "./KubernetesResources.ts"
import { parseFieldSelector, parseLabelSelector, type Selector, SelectorRefused } from "./KubernetesSelectors.ts"
import {
  type Author,
  afterUpdate,
  compare as compareFields,
  entriesOf,
  ownersBefore,
  withoutEmpty
} from "./ManagedFields.ts"
import { mergeSchemaOf } from "./MergeSchemas.ts"
import { shaped, undeclaredIn } from "./StructuralSchema.ts"

/** An answer that is a Status. */
export class Refused extends Error {
  readonly status: number
  readonly reason: string
  readonly causes: ReadonlyArray<Cause>

  constructor(status: number, reason: string, message: string, causes: ReadonlyArray<Cause> = []) {
    super(message)
    this.status = status
    this.reason = reason
    this.causes = causes
  }
}

/** What a request is about. */
export interface Route {
  readonly type: ResourceType
  readonly version: string
  /** Undefined: all of them, or a kind without namespaces. */
  readonly namespace: string | undefined
  readonly name: string | undefined
  readonly subresource: string | undefined
}

export interface World {
  readonly nowMillis: number
  /** RFC 3339, whole seconds. */
  readonly timestamp: string
  /** In [0, 1). */
  readonly chance: () => number
  /** Who asks, as the header field says it. */
  readonly userAgent: string
}

export interface Answer {
  readonly status: 200 | 201
  readonly body: unknown
}

/** Who is told of changes. */
export interface Watcher {
  readonly deliver: (event: WatchEvent) => void
  /** The connection is over: closed by the server, or lost. */
  readonly end: (how: "close" | "error") => void
}

interface Watching extends Watcher {
  readonly route: Route
  readonly selects: Selector
  readonly bookmarks: boolean
  readonly since: number
}

interface Change {
  readonly revision: number
  readonly type: ResourceType
  readonly event: "ADDED" | "MODIFIED" | "DELETED"
  readonly object: JsonObject
  readonly previous: JsonObject | undefined
}

interface Snapshot {
  readonly revision: number
  readonly question: string
  readonly items: ReadonlyArray<JsonObject>
}

const FIRST_REVISION = 1
/** Older changes are forgotten, as if compacted. */
const HISTORY_MAX = 20_000
/** Lists whose next page may still be asked for. */
const SNAPSHOTS_MAX = 100
const UID_DIGITS = 32
const SUFFIX_LENGTH = 5
const SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
const GENERATED_NAME_MAX = 63 - SUFFIX_LENGTH
const GENERATED_ATTEMPTS = 8

/** Whose schemas may say anything. */
const DEFINITIONS = "apiextensions.k8s.io"
const MERGE_PATCH = "application/merge-patch+json"
const APPLY_PATCH = "application/apply-patch+yaml"
const BODY_BYTES_MAX = 3 * 1024 * 1024
const MANAGER_BYTES_MAX = 128

/** "apps/v1, Kind=Deployment", "/v1, Kind=Pod". */
const gvkOf = (apiVersion: string, kind: string) => `${apiVersion.includes("/") ? "" : "/"}${apiVersion}, Kind=${kind}`

const keyOf = (namespace: string | undefined, name: string) => `${namespace ?? ""}/${name}`

const compare = (one: string, other: string) => (one < other ? -1 : one > other ? 1 : 0)

const noSuchResource = () => new Refused(404, "NotFound", "the server could not find the requested resource")
/** Of a group that nobody serves: it is not even JSON. */
const noSuchGroup = () => new Refused(404, "NotFound", "404 page not found")
const notAllowed = () =>
  new Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
const badRequest = (message: string) => new Refused(400, "BadRequest", message)
const expired = (message: string) => new Refused(410, "Expired", message)

const nameIn = (type: ResourceType, name: string) => `${qualifiedName(type)} ${JSON.stringify(name)}`
const notFound = (type: ResourceType, name: string) => new Refused(404, "NotFound", `${nameIn(type, name)} not found`)
const conflict = (type: ResourceType, name: string, why: string) =>
  new Refused(409, "Conflict", `Operation cannot be fulfilled on ${nameIn(type, name)}: ${why}`)
const changed = "the object has been modified; please apply your changes to the latest version and try again"
/** Of a DELETE, in other words, and by the kind. */
const notMeant = (type: ResourceType, name: string, what: string, wanted: string, found: unknown, why: string) =>
  new Refused(
    409,
    "Conflict",
    `Operation cannot be fulfilled on ${qualifiedKind(type)} ${JSON.stringify(name)}: the ${what} in the precondition (${wanted}) does not match the ${what} in record (${String(found)}). The object might have been ${why}`
  )
const otherUid = (wanted: string, found: string | undefined) =>
  `Precondition failed: UID in precondition: ${wanted}, UID in object meta: ${found ?? ""}`

const invalid = (type: Pick<ResourceType, "group" | "kind">, name: string, complaints: ReadonlyArray<string>) => {
  const list = complaints.length === 1 ? complaints[0] : `[${complaints.join(", ")}]`
  return new Refused(422, "Invalid", `${qualifiedKind(type)} ${JSON.stringify(name)} is invalid: ${list}`)
}

/** What is wrong with how a write is asked for, which has a kind of its own: "PatchOptions". */
const checkOptions = ({ contentType, method, query = {} }: KubernetesRequest): void => {
  const isApply = isApplyPatch(contentType)
  const manager = String(query["fieldManager"] ?? "")
  const complaints = [
    ...(isApply && manager === "" ? ["fieldManager: Required value: is required for apply patch"] : []),
    ...(method === "PATCH" && !isApply && query["force"] !== undefined
      ? ["force: Forbidden: may not be specified for non-apply patch"]
      : []),
    ...(Buffer.byteLength(manager) > MANAGER_BYTES_MAX
      ? [`fieldManager: Too long: may not be more than ${MANAGER_BYTES_MAX} bytes`]
      : []),
    ...(/\p{C}/u.test(manager)
      ? [`fieldManager: Invalid value: ${JSON.stringify(manager)}: should only contain printable characters`]
      : [])
  ]
  const kind = OPTIONS[method]
  if (kind !== undefined && complaints.length > 0) throw invalid({ group: "meta.k8s.io", kind }, "", complaints)
}

const OPTIONS: Partial<Record<KubernetesRequest["method"], string>> = {
  POST: "CreateOptions",
  PUT: "UpdateOptions",
  PATCH: "PatchOptions"
}

const isApplyPatch = (contentType = "") => contentType.split(";")[0] === APPLY_PATCH

/** The name of whoever writes: what it calls itself, or its program. */
const managerOf = ({ query = {} }: KubernetesRequest, { userAgent }: World): string =>
  String(query["fieldManager"] ?? "") ||
  (userAgent.split("/")[0] ?? "").replace(/\p{C}/gu, "").slice(0, MANAGER_BYTES_MAX) ||
  "unknown"

const nameOf = (object: JsonObject) => textAt(metadataOf(object), "name") ?? ""
const namespaceOf = (object: JsonObject) => textAt(metadataOf(object), "namespace")
const versionOf = (object: JsonObject) => textAt(metadataOf(object), "resourceVersion")
const isLeaving = (object: JsonObject) => metadataOf(object)["deletionTimestamp"] !== undefined
const isHeld = (object: JsonObject) => listAt(metadataOf(object), "finalizers").length > 0

/** Go leaves empty maps and lists of metadata out. */
const withMetadata = (object: JsonObject, metadata: JsonObject): JsonObject => ({
  ...object,
  metadata: Object.fromEntries(
    Object.entries(metadata).filter(
      ([, value]) => !(typeof value === "object" && isEqual(value, Array.isArray(value) ? [] : {}))
    )
  )
})

const withVersion = (object: JsonObject, revision: number) =>
  withMetadata(object, { ...metadataOf(object), resourceVersion: String(revision) })

const decodePart = (part: string): string => {
  try {
    return decodeURIComponent(part)
  } catch {
    throw noSuchResource()
  }
}

/** Of an object that is sent to the address of its status: what is looked at. */
const statusOf = ({ apiVersion, kind, metadata, status }: JsonObject): JsonObject => {
  const { name, namespace, resourceVersion, uid } = isObject(metadata) ? metadata : {}
  const identity = clean({ name, namespace, resourceVersion, uid })
  return { apiVersion, kind, metadata: identity, ...(status === undefined ? {} : { status }) }
}

const withoutOwners = (object: JsonObject): JsonObject =>
  withMetadata(object, without(metadataOf(object), "managedFields"))

/** What every object of a kind has from the beginning. Of a custom resource, all is somebody's. */
const blankOf = ({ blankSpec = {}, custom }: ResourceType): JsonObject =>
  custom === true ? {} : { metadata: {}, spec: blankSpec, status: {} }

/** A write, and who makes it. */
interface Write {
  readonly method: KubernetesRequest["method"]
  readonly route: Route
  readonly author: Author
  readonly world: World
}

const isRevision = (text: string) => /^\d{1,15}$/u.test(text)

export class KubernetesStore {
  private readonly types: ReadonlyMap<string, ResourceType>
  private readonly tables = new Map<ResourceType, Map<string, JsonObject>>()
  /** As they are listed, until the next write: lists are asked for more often than there are writes. */
  private readonly sorted = new Map<ResourceType, ReadonlyArray<JsonObject>>()
  private readonly watchers = new Set<Watching>()
  private readonly snapshots = new Map<string, Snapshot>()
  /** Those that are served. */
  private readonly groups: Set<string>
  private history: Array<Change> = []
  private revision = FIRST_REVISION
  /** A watch may go on from here, or from later. */
  private oldest = FIRST_REVISION
  private lists = 0

  constructor(resources: ReadonlyArray<ResourceType> = RESOURCES) {
    this.types = new Map(
      resources.flatMap((type) =>
        type.versions.map((version) => [`${apiVersionOf(type.group, version)}/${type.plural}`, type] as const)
      )
    )
    for (const type of resources) this.tables.set(type, new Map())
    this.groups = new Set(resources.map(({ group }) => group))
  }

  /** @errors Refused for a path that leads nowhere */
  route(path: string): Route {
    const [empty, root, ...parts] = path.split("/").map(decodePart)
    const core = root === "api"
    const [group, version, ...rest] = core ? ["", ...parts] : parts
    if (empty !== "" || (!core && root !== "apis") || group === undefined) throw noSuchResource()
    if (!core && !this.groups.has(group)) throw noSuchGroup()
    if (version === undefined) throw noSuchResource()
    const inNamespace = rest[0] === "namespaces" && rest.length >= 3 && rest[2] !== "status" && rest[2] !== "finalize"
    const namespace = inNamespace ? rest[1] : undefined
    const [plural, name, subresource, ...more] = inNamespace ? rest.slice(2) : rest
    const type = this.types.get(`${apiVersionOf(group, version)}/${plural}`)
    if (type === undefined || more.length > 0 || namespace === "" || name === "") throw noSuchResource()
    // An object of a namespace has no address outside of it.
    if (type.namespaced ? namespace === undefined && name !== undefined : namespace !== undefined)
      throw noSuchResource()
    return { type, version, namespace, name, subresource }
  }

  /**
   * Answers one request, wherever it leads.
   *
   * @shape  (request, world) -> the status and body of a 2xx answer, frozen
   * @errors Refused
   */
  respond(request: KubernetesRequest, world: World): Answer {
    const document = discover(this.servedTypes, request.path)
    if (document === undefined) return this.answer(this.route(request.path), request, world)
    if (request.method !== "GET") throw notAllowed()
    return { status: 200, body: freeze(document) }
  }

  /** A group that is not served has no paths: its watches end, and its objects are kept until it is served again. */
  setServed(group: string, served: boolean): void {
    if (served) this.groups.add(group)
    else {
      this.groups.delete(group)
      this.endWatches("close", ({ type }) => type.group === group)
    }
  }

  /**
   * Answers one request.
   *
   * @shape  (route, request, world) -> the status and body of a 2xx answer, frozen
   * @errors Refused
   */
  private answer(route: Route, request: KubernetesRequest, world: World): Answer {
    const { name, namespace, subresource, type, version } = route
    if (subresource !== undefined && (subresource !== "status" || type.statusApart !== true)) throw noSuchResource()
    const body = this.bodyOf(request)
    checkOptions(request)
    const author: Author = {
      manager: managerOf(request, world),
      operation: "Update",
      apiVersion: apiVersionOf(type.group, version),
      ...(subresource === undefined ? {} : { subresource })
    }
    const write: Write = { method: request.method, route, author, world }
    const answered = (object: unknown, status: Answer["status"] = 200): Answer => ({ status, body: object })
    if (name === undefined) {
      if (request.method === "GET") return answered(this.list(route, request.query ?? {}))
      if (request.method === "POST" && (namespace !== undefined || !type.namespaced)) {
        return answered(this.served(route, this.create(write, body)), 201)
      }
      throw notAllowed()
    }
    switch (request.method) {
      case "GET":
        return answered(this.served(route, this.existing(route, name)))
      case "PUT":
        return answered(this.served(route, this.replace(write, name, body)))
      case "PATCH": {
        if (!isApplyPatch(request.contentType)) return answered(this.served(route, this.patch(write, name, body)))
        const isNew = !this.table(type).has(keyOf(namespace, name))
        const force = String(request.query?.["force"] ?? "") === "true"
        const by: Write = { ...write, author: { ...author, operation: "Apply" } }
        return answered(this.served(route, this.apply(by, name, body, force)), isNew ? 201 : 200)
      }
      case "DELETE":
        if (subresource !== undefined) throw notAllowed()
        return answered(this.remove(route, name, body, world))
      default:
        throw notAllowed()
    }
  }

  /**
   * Opens a watch: tells first what happened since the version, then what happens.
   *
   * @shape  (route, query, watcher) -> what ends it
   * @errors Refused; an old version is 410
   */
  watch(route: Route, query: NonNullable<KubernetesRequest["query"]>, watcher: Watcher): () => void {
    const version = String(query["resourceVersion"] ?? "")
    if (version !== "" && !isRevision(version)) {
      throw badRequest(`invalid resource version ${JSON.stringify(version)}: strconv.ParseUint: invalid syntax`)
    }
    const fromNow = version === "" || version === "0"
    const since = fromNow ? this.revision : Number(version)
    if (since < this.oldest) throw expired(`too old resource version: ${since} (${this.oldest})`)
    const selects = this.selection(route, query)
    const bookmarks = String(query["allowWatchBookmarks"] ?? "") === "true"
    const watching: Watching = { ...watcher, route, selects, bookmarks, since }
    if (fromNow) {
      for (const object of this.objects(route.type).filter(selects)) {
        watcher.deliver({ type: "ADDED", object: this.served(route, object) })
      }
    }
    for (const change of this.history) this.tell(watching, change)
    this.watchers.add(watching)
    return () => void this.watchers.delete(watching)
  }

  /** What a watcher would be told in a bookmark, for those who asked for them. */
  bookmark(only?: Watcher): void {
    for (const watching of this.watchers) {
      if (!watching.bookmarks || (only !== undefined && only.deliver !== watching.deliver)) continue
      const { type, version } = watching.route
      // A bookmark never goes back behind what the watch was opened with.
      const resourceVersion = String(Math.max(this.revision, watching.since))
      const object = { kind: type.kind, apiVersion: apiVersionOf(type.group, version), metadata: { resourceVersion } }
      watching.deliver({ type: "BOOKMARK", object: freeze(object) })
    }
  }

  /** Forgets history: a watch from an older version, and the next page of an older list, are refused from now on. */
  compact(): void {
    this.history = []
    this.oldest = this.revision
    this.snapshots.clear()
  }

  /** @shape how -> the number of watches that ended */
  dropWatches(how: "close" | "error"): number {
    return this.endWatches(how, () => true)
  }

  private endWatches(how: "close" | "error", ends: (route: Route) => boolean): number {
    const dropped = [...this.watchers].filter(({ route }) => ends(route))
    for (const watching of dropped) {
      this.watchers.delete(watching)
      watching.end(how)
    }
    return dropped.length
  }

  private get servedTypes(): ReadonlyArray<ResourceType> {
    return [...this.tables.keys()].filter(({ group }) => this.groups.has(group))
  }

  get watches(): ReadonlyArray<Route> {
    return [...this.watchers].map(({ route }) => route)
  }

  /** @shape ("pods" or "daemonsets.apps") -> type */
  typeNamed(resource: string): ResourceType | undefined {
    return [...this.tables.keys()].find((type) => qualifiedName(type) === resource || type.plural === resource)
  }

  /** In the order of lists: by namespace, then name. */
  objects(type: ResourceType): ReadonlyArray<JsonObject> {
    const known = this.sorted.get(type)
    if (known !== undefined) return known
    const objects = [...this.table(type)].sort(([one], [other]) => compare(one, other)).map(([, object]) => object)
    this.sorted.set(type, objects)
    return objects
  }

  /**
   * Deletes what only the dead own, and takes dead owners off what others own as well, until nothing is left to do. An
   * owner of a kind that is not known here counts as alive.
   *
   * @shape (world) -> "secrets default/x", in the order of deletion
   */
  collectGarbage(world: World): ReadonlyArray<string> {
    const deleted: Array<string> = []
    for (let found = true; found; ) {
      found = false
      for (const type of this.tables.keys()) {
        for (const object of this.objects(type)) {
          const owners = listAt(metadataOf(object), "ownerReferences")
          const alive = owners.filter((owner) => this.isAlive(owner, namespaceOf(object)))
          if (alive.length === owners.length || isLeaving(object)) continue
          found = true
          if (alive.length === 0) {
            deleted.push(`${qualifiedName(type)} ${keyOf(namespaceOf(object), nameOf(object)).replace(/^\//u, "")}`)
            this.leave(type, object, world)
          } else {
            this.store(type, withMetadata(object, { ...metadataOf(object), ownerReferences: alive }), object)
          }
        }
      }
    }
    return deleted
  }

  private isAlive(owner: unknown, namespace: string | undefined): boolean {
    if (!isObject(owner)) return true
    const apiVersion = textAt(owner, "apiVersion") ?? ""
    const kind = textAt(owner, "kind")
    const type = [...this.tables.keys()].find(
      (known) => known.kind === kind && known.versions.some((it) => apiVersionOf(known.group, it) === apiVersion)
    )
    if (type === undefined) return true
    const found = this.table(type).get(keyOf(type.namespaced ? namespace : undefined, textAt(owner, "name") ?? ""))
    return found !== undefined && metadataOf(found)["uid"] === owner["uid"]
  }

  private table(type: ResourceType): Map<string, JsonObject> {
    const table = this.tables.get(type)
    if (table === undefined) throw noSuchResource()
    return table
  }

  private existing({ namespace, type }: Route, name: string): JsonObject {
    const object = this.table(type).get(keyOf(namespace, name))
    if (object === undefined) throw notFound(type, name)
    return object
  }

  private served({ type, version }: Route, object: JsonObject): JsonObject {
    return version === type.versions[0] ? object : freeze({ ...object, apiVersion: apiVersionOf(type.group, version) })
  }

  private bodyOf({ body, contentType = "application/json", method }: KubernetesRequest): JsonObject {
    if (body === undefined) return {}
    const accepted = method === "PATCH" ? [MERGE_PATCH, APPLY_PATCH] : ["application/json"]
    if (!accepted.includes(contentType.split(";")[0] ?? "")) {
      throw new Refused(
        415,
        "UnsupportedMediaType",
        `the body of the request was in an unknown format - accepted media types include: ${accepted.join(", ")}`
      )
    }
    if (Buffer.byteLength(JSON.stringify(body)) > BODY_BYTES_MAX) {
      throw new Refused(413, "RequestEntityTooLarge", `Request entity too large: limit is ${BODY_BYTES_MAX}`)
    }
    if (!isObject(body)) throw badRequest("the object provided is unrecognized (must be of type object)")
    return body
  }

  private selection({ name, namespace, type }: Route, query: NonNullable<KubernetesRequest["query"]>): Selector {
    const parse = (): ReadonlyArray<Selector> => {
      try {
        return [
          ...(query["labelSelector"] ? [parseLabelSelector(String(query["labelSelector"]))] : []),
          ...(query["fieldSelector"] ? [parseFieldSelector(String(query["fieldSelector"]), type.fields ?? [])] : [])
        ]
      } catch (cause) {
        throw cause instanceof SelectorRefused ? badRequest(cause.message) : cause
      }
    }
    const selectors = parse()
    return (object) =>
      (namespace === undefined || namespaceOf(object) === namespace) &&
      (name === undefined || nameOf(object) === name) &&
      selectors.every((selects) => selects(object))
  }

  private list(route: Route, query: NonNullable<KubernetesRequest["query"]>): unknown {
    const { type, version } = route
    const apiVersion = apiVersionOf(type.group, version)
    const token = query["continue"]
    const question = JSON.stringify([
      ...[apiVersion, type.plural, route.namespace ?? ""],
      ...[query["labelSelector"] ?? "", query["fieldSelector"] ?? ""]
    ])
    const [id = "", offset = "0"] = token === undefined || token === "" ? [] : String(token).split(":")
    if (id !== "" && (!isRevision(id) || !isRevision(offset))) throw badRequest("continue key is not valid")
    const snapshot = id === "" ? this.snapshot(route, query, question) : this.snapshots.get(id)
    if (snapshot === undefined) {
      throw expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
      )
    }
    if (snapshot.question !== question) throw badRequest("continue key is not valid: it belongs to another list")
    const from = Number(offset)
    const limit = Number(query["limit"] ?? 0)
    const to = Number.isInteger(limit) && limit > 0 ? from + limit : snapshot.items.length
    const left = snapshot.items.length - to
    const next = id === "" ? String(++this.lists) : id
    if (left > 0) this.keep(next, snapshot)
    else this.snapshots.delete(next)
    return freeze({
      kind: `${type.kind}List`,
      apiVersion,
      metadata: {
        resourceVersion: String(snapshot.revision),
        ...(left > 0 ? { continue: `${next}:${to}`, remainingItemCount: left } : {})
      },
      // Only custom resources repeat what the list says of itself.
      items: snapshot.items
        .slice(from, to)
        .map((object) => (type.custom === true ? this.served(route, object) : without(object, "kind", "apiVersion")))
    })
  }

  private snapshot(route: Route, query: NonNullable<KubernetesRequest["query"]>, question: string): Snapshot {
    const wanted = String(query["resourceVersion"] ?? "")
    if (query["resourceVersionMatch"] === "Exact" && Number(wanted) !== this.revision) {
      throw expired(`The resourceVersion for the provided list is too old: ${wanted}`)
    }
    const selects = this.selection(route, query)
    return { revision: this.revision, question, items: this.objects(route.type).filter(selects) }
  }

  private keep(id: string, snapshot: Snapshot): void {
    this.snapshots.set(id, snapshot)
    for (const oldest of this.snapshots.keys()) {
      if (this.snapshots.size <= SNAPSHOTS_MAX) break
      this.snapshots.delete(oldest)
    }
  }

  /** The object as it would be kept, with the address of the request. */
  private admitted({ name, namespace, type, version }: Route, input: JsonObject): JsonObject {
    const expected = { apiVersion: apiVersionOf(type.group, version), kind: type.kind }
    for (const field of ["apiVersion", "kind"] as const) {
      const given = textAt(input, field)
      if (given === undefined && type.group !== "") {
        throw badRequest(`Object '${field === "kind" ? "Kind" : "apiVersion"}' is missing`)
      }
      if (given !== undefined && given !== expected[field]) {
        const what = field === "kind" ? "kind" : "API version"
        throw badRequest(`the ${what} in the data (${given}) does not match the expected ${what} (${expected[field]})`)
      }
    }
    const isPlain = type.custom === true || type.group === DEFINITIONS
    const cleaned = isPlain ? clean(input) : withoutEmpty(clean(input), mergeSchemaOf(type.kind))
    const object = isObject(cleaned) ? cleaned : {}
    const metadata = metadataOf(object)
    const givenName = textAt(metadata, "name")
    if (name !== undefined && givenName !== undefined && givenName !== name) {
      throw badRequest(`the name of the object (${givenName}) does not match the name on the URL (${name})`)
    }
    const givenNamespace = textAt(metadata, "namespace")
    if (givenNamespace !== undefined && givenNamespace !== "" && givenNamespace !== namespace) {
      throw badRequest("the namespace of the provided object does not match the namespace sent on the request")
    }
    const addressed = withMetadata(
      { ...object, ...expected, apiVersion: apiVersionOf(type.group, type.versions[0]) },
      {
        ...without(metadata, "managedFields", "selfLink", "namespace"),
        ...(name === undefined ? {} : { name }),
        ...(namespace === undefined ? {} : { namespace })
      }
    )
    const prepared = type.prepare?.(addressed) ?? addressed
    return type.definition === undefined ? prepared : shaped(prepared, type.definition.schema)
  }

  private check(
    { subresource, type }: Pick<Route, "subresource" | "type">,
    object: JsonObject,
    previous: JsonObject | undefined
  ): void {
    const complaints = [
      ...metadataComplaints(type, object),
      ...(type.validate?.(object, previous) ?? []),
      ...(type.definition === undefined ? [] : definitionComplaints(type.definition, object, previous, subresource))
    ]
    if (complaints.length > 0) throw invalid(type, nameOf(object), complaints)
  }

  /** @shape (write, object, who owns what of it, when that is known already) -> the object as stored */
  private create(write: Write, input: JsonObject, managedFields?: ReadonlyArray<JsonObject>): JsonObject {
    const { author, route, world } = write
    const { namespace, type } = route
    const admitted = this.admitted(route, input)
    const object = type.statusApart === true ? without(admitted, "status") : admitted
    const metadata = metadataOf(object)
    if (versionOf(object) !== undefined) {
      throw new Refused(500, "InternalError", "resourceVersion should not be set on objects to be created")
    }
    const name = textAt(metadata, "name") || this.generateName(route, textAt(metadata, "generateName") ?? "", world)
    const named = withMetadata(object, {
      ...without(metadata, "deletionTimestamp", "deletionGracePeriodSeconds"),
      name,
      uid: uidOf(world),
      creationTimestamp: world.timestamp,
      ...(type.counted === true ? { generation: 1 } : {})
    })
    const made = type.settle?.(named, undefined) ?? named
    this.check(route, made, undefined)
    if (this.table(type).has(keyOf(namespace, name))) {
      throw new Refused(409, "AlreadyExists", `${nameIn(type, name)} already exists`)
    }
    const entries =
      managedFields ??
      entriesOf(
        afterUpdate(
          ownersBefore(undefined, input),
          compareFields(blankOf(type), made, mergeSchemaOf(type.kind)),
          author,
          world.timestamp
        )
      )
    const owned = withMetadata(made, { ...metadataOf(made), managedFields: entries })
    // Nobody owns what nobody wrote.
    const { blankStatus } = type
    return this.store(type, blankStatus === undefined ? owned : { ...owned, status: blankStatus }, undefined)
  }

  private generateName({ namespace, type }: Route, prefix: string, world: World): string {
    if (prefix === "") return ""
    const suffix = () =>
      Array.from(
        { length: SUFFIX_LENGTH },
        () => SUFFIX_ALPHABET[Math.floor(world.chance() * SUFFIX_ALPHABET.length)]
      ).join("")
    let name = ""
    for (let attempt = 0; attempt < GENERATED_ATTEMPTS; attempt++) {
      name = `${prefix.slice(0, GENERATED_NAME_MAX)}${suffix()}`
      if (!this.table(type).has(keyOf(namespace, name))) break
    }
    return name
  }

  private replace(write: Write, name: string, input: JsonObject): JsonObject {
    const { route } = write
    const incoming = this.admitted(route, input)
    // The shape comes first: a wrong name is told even when there is no such object.
    const previous = this.existing(route, name)
    if (textAt(metadataOf(incoming), "name") === undefined) {
      throw badRequest("the name of the object must be specified")
    }
    if (route.type.requiresVersion === true && versionOf(incoming) === undefined) {
      // Before the object is looked at, and so named as in its path.
      const complaint = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
      throw new Refused(422, "Invalid", `${nameIn(route.type, name)} is invalid: ${complaint}`)
    }
    return this.update(write, previous, incoming, input)
  }

  private patch(write: Write, name: string, body: JsonObject): JsonObject {
    const { route } = write
    const previous = this.existing(route, name)
    const merged = mergePatch(this.served(route, previous), body)
    const patched = isObject(merged) ? merged : {}
    // A patch without a version is about the newest one, and every version that is given has to be that.
    return this.update(write, previous, this.admitted(route, patched), patched)
  }

  /** @source k8s.io/apiserver, pkg/endpoints/handlers/patch.go: applyPatcher */
  private apply(write: Write, name: string, body: JsonObject, force: boolean): JsonObject {
    const { author, route, world } = write
    const { namespace, subresource, type } = route
    const [apiVersion, kind] = [textAt(body, "apiVersion") ?? "", textAt(body, "kind") ?? ""]
    if (apiVersion !== author.apiVersion || kind !== type.kind) {
      throw badRequest(`invalid object type: ${gvkOf(apiVersion, kind)}`)
    }
    if (metadataOf(body)["managedFields"] !== undefined) throw badRequest("metadata.managedFields must be nil")
    const previous = this.table(type).get(keyOf(namespace, name))
    if (previous === undefined && subresource !== undefined) throw notFound(type, name)
    const cleaned = clean(body)
    const whole = isObject(cleaned) ? cleaned : {}
    // Each address takes its own part, and loses no word on the other.
    const applied =
      type.statusApart !== true ? whole : subresource === "status" ? statusOf(whole) : without(whole, "status")
    const schema = mergeSchemaOf(type.kind)
    const undeclared = type.definition === undefined ? undefined : undeclaredIn(applied, type.definition.schema)
    const duplicate =
      undeclared === undefined ? duplicateIn(whole, schema) : `${undeclared}: field not declared in schema`
    if (duplicate !== undefined) {
      const where = `${namespaceOf(whole) ?? ""}/${nameOf(whole)}; ${gvkOf(apiVersion, kind)}`
      throw new Refused(500, "InternalError", `failed to create typed patch object (${where}): ${duplicate}`)
    }
    const outcome = apply({
      applied,
      author,
      blank: blankOf(type),
      force,
      live: previous === undefined ? undefined : withoutOwners(this.served(route, previous)),
      owners: ownersBefore(previous),
      schema,
      time: world.timestamp
    })
    if (outcome._tag === "Conflicts") {
      const { causes, message } = conflictWords(outcome.conflicts)
      throw new Refused(409, "Conflict", message, causes)
    }
    const { object } = outcome
    // What is left empty is null, and only Kubernetes' own kinds take that for nothing.
    const nulls = type.custom === true ? nullsIn(without(object, "metadata"), schema) : []
    if (nulls.length > 0) {
      // What is told is where in the part that was looked at.
      const part = subresource ?? ""
      const fault = (field: string, is: string) => {
        const inner = field === part ? "" : part === "" ? field : field.replace(`${part}.`, "")
        return `${field}: Invalid value: "null": ${inner} in body must be of type ${is}: "null"`
      }
      throw invalid(type, name, [
        ...nulls.map(([field, is]) => fault(field, is)),
        ...(type.definition === undefined ? [] : [RULES_NOT_CHECKED])
      ])
    }
    const entries = entriesOf(outcome.owners)
    if (previous !== undefined) return this.update(write, previous, this.admitted(route, object), object, entries)
    const uid = textAt(metadataOf(object), "uid")
    if (uid !== undefined) {
      const why = `uid mismatch: the provided object specified uid ${uid}, and no existing object was found`
      throw conflict(type, name, why)
    }
    return this.create(write, object, entries)
  }

  /**
   * @shape (write, the object as it was, as it shall be, as it was sent, who owns what of it, when that is known already)
   *   -> the object as stored
   */
  private update(
    write: Write,
    previous: JsonObject,
    incoming: JsonObject,
    sent: JsonObject,
    managedFields?: ReadonlyArray<JsonObject>
  ): JsonObject {
    const { author, method, route, world } = write
    const { subresource, type } = route
    const before = metadataOf(previous)
    const after = metadataOf(incoming)
    const name = nameOf(previous)
    const uid = textAt(after, "uid")
    const isOther = uid !== undefined && uid !== before["uid"]
    if (isOther && method === "PUT") throw conflict(type, name, otherUid(uid, textAt(before, "uid")))
    const version = textAt(after, "resourceVersion") ?? ""
    if (version !== "" && version !== before["resourceVersion"]) throw conflict(type, name, changed)
    if (isOther) {
      throw invalid(type, name, [`metadata.uid: Invalid value: ${JSON.stringify(uid)}: field is immutable`])
    }
    const withStatus = (object: JsonObject, from: JsonObject): JsonObject => {
      const status = { ...type.blankStatus, ...objectAt(from, "status") }
      // Of a custom resource, an empty one is somebody's as well.
      const isNothing = isEqual(status, {}) && (type.custom !== true || from["status"] === undefined)
      return { ...without(object, "status"), ...(isNothing ? {} : { status }) }
    }
    const content: JsonObject =
      type.statusApart !== true
        ? incoming
        : subresource === "status"
          ? withStatus(withoutOwners(previous), incoming)
          : withStatus(incoming, previous)
    const serverOwned = Object.fromEntries(
      ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"]
        .filter((key) => before[key] !== undefined)
        .map((key) => [key, before[key]])
    )
    const kept = without(metadataOf(content), "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
    const written = withMetadata(content, { ...kept, ...serverOwned })
    // Whoever writes owns what was sent, before the server has its say.
    const settled = type.settle?.(written, previous) ?? written
    const next = withMetadata(settled, {
      ...metadataOf(settled),
      managedFields: managedFields ?? this.owned(type, previous, written, sent, author, world)
    })
    if (isEqual(next, previous)) return previous
    this.check(route, next, previous)
    const added = isLeaving(previous)
      ? listAt(metadataOf(next), "finalizers").filter((it) => !listAt(before, "finalizers").includes(it))
      : []
    if (added.length > 0) {
      const named = `[]string{${added.map((it) => JSON.stringify(it)).join(", ")}}`
      throw invalid(type, name, [
        `metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ${named}`
      ])
    }
    const isNewSpec = !isEqual(without(next, "metadata", "status"), without(previous, "metadata", "status"))
    const generation = Number(before["generation"] ?? 0) + 1
    const counted =
      type.counted !== undefined && isNewSpec ? withMetadata(next, { ...metadataOf(next), generation }) : next
    // The last finalizer was all that kept it.
    if (isLeaving(counted) && !isHeld(counted)) return this.erase(type, counted)
    return this.store(type, counted, previous)
  }

  /** Who owns what after an ordinary change. Nobody begins to, while nobody does. */
  private owned(
    type: ResourceType,
    previous: JsonObject,
    next: JsonObject,
    sent: JsonObject,
    author: Author,
    world: World
  ): ReadonlyArray<JsonObject> {
    const before = ownersBefore(previous, author.subresource === undefined ? sent : undefined)
    if (before.length === 0) return []
    const difference = compareFields(withoutOwners(previous), next, mergeSchemaOf(type.kind))
    return entriesOf(afterUpdate(before, difference, author, world.timestamp))
  }

  private remove(route: Route, name: string, options: JsonObject, world: World): unknown {
    const { type } = route
    const object = this.existing(route, name)
    const { resourceVersion, uid } = objectAt(options, "preconditions")
    const { resourceVersion: version, uid: found } = metadataOf(object)
    if (typeof uid === "string" && uid !== found) {
      throw notMeant(type, name, "UID", uid, found, "deleted and then recreated")
    }
    if (typeof resourceVersion === "string" && resourceVersion !== version) {
      throw notMeant(type, name, "ResourceVersion", resourceVersion, version, "modified")
    }
    const left = this.leave(type, object, world)
    if (left !== undefined) return this.served(route, left)
    return freeze({
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Success",
      details: {
        name,
        ...(type.group === "" ? {} : { group: type.group }),
        kind: type.plural,
        uid: metadataOf(object)["uid"]
      }
    })
  }

  /** @shape -> the object when finalizers still hold it */
  private leave(type: ResourceType, object: JsonObject, world: World): JsonObject | undefined {
    if (!isHeld(object)) {
      this.erase(type, object)
      return undefined
    }
    if (isLeaving(object)) return object
    const before = metadataOf(object)
    // A change of the spec, to whoever counts them.
    const counted = typeof before["generation"] === "number" ? { generation: before["generation"] + 1 } : {}
    const metadata = { ...before, ...counted, deletionTimestamp: world.timestamp, deletionGracePeriodSeconds: 0 }
    return this.store(type, withMetadata(object, metadata), object)
  }

  private store(type: ResourceType, object: JsonObject, previous: JsonObject | undefined): JsonObject {
    const stored = freeze(withVersion(object, ++this.revision))
    this.table(type).set(keyOf(namespaceOf(stored), nameOf(stored)), stored)
    this.sorted.delete(type)
    const event = previous === undefined ? "ADDED" : "MODIFIED"
    this.record({ revision: this.revision, type, event, object: stored, previous })
    return stored
  }

  private erase(type: ResourceType, object: JsonObject): JsonObject {
    const erased = freeze(withVersion(object, ++this.revision))
    const key = keyOf(namespaceOf(erased), nameOf(erased))
    const previous = this.table(type).get(key)
    this.table(type).delete(key)
    this.sorted.delete(type)
    this.record({ revision: this.revision, type, event: "DELETED", object: erased, previous })
    return erased
  }

  private record(change: Change): void {
    this.history.push(change)
    if (this.history.length > HISTORY_MAX) {
      const forgotten = this.history.splice(0, HISTORY_MAX / 2)
      this.oldest = forgotten.at(-1)?.revision ?? this.oldest
    }
    for (const watching of this.watchers) this.tell(watching, change)
  }

  /** An object that comes into a selection is new to its watcher, and one that leaves it is gone. */
  private tell(watching: Watching, { event, object, previous, revision, type }: Change): void {
    if (watching.route.type !== type || revision <= watching.since) return
    const was = previous !== undefined && watching.selects(previous)
    const is = event !== "DELETED" && watching.selects(object)
    if (!was && !is) return
    const shown = is || event === "DELETED" || previous === undefined ? object : freeze(withVersion(previous, revision))
    const told = is ? (was ? "MODIFIED" : "ADDED") : "DELETED"
    watching.deliver({ type: told, object: this.served(watching.route, shown) })
  }
}

/** In the form of version 4, digit by digit. */
const uidOf = ({ chance }: World): string => {
  const digits = Array.from({ length: UID_DIGITS }, (_, index) => {
    if (index === 12) return "4"
    const digit = Math.floor(chance() * 16)
    return (index === 16 ? 8 + (digit % 4) : digit).toString(16)
  }).join("")
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/u, "$1-$2-$3-$4-")
}
