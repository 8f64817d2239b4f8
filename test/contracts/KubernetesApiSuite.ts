/**
 * What the driver expects of every API server and of the way to it. Rows quote reference/wire.md (e).
 *
 * Everything happens in the namespace "default", on objects with names of their own, which are gone afterwards.
 */
import { randomUUID } from "node:crypto"
import { assert, it } from "@effect/vitest"
import { Clock, Effect, Fiber, type Layer, type Scope, Stream } from "effect"
import type { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest, type WatchEvent } from "../../src/ports/KubernetesApi.ts"

/** What a suite has to be able to do besides. */
export interface KubernetesWorld<R> {
  /** Breaks watches and compacts history; why not, when that is impossible. */
  readonly control: Effect.Effect<MemoryKubernetes["Service"], never, R> | string
}

const MERGE = "application/merge-patch+json"
const APPLY = "application/apply-patch+yaml"
const CORE = "/api/v1/namespaces/default"
const SECRETS = `${CORE}/secrets`
const CONFIG_MAPS = `${CORE}/configmaps`
const ACCOUNTS = `${CORE}/serviceaccounts`
const DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
const DRIVERS = "/apis/storage.k8s.io/v1/csidrivers"
const CLASSES = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/default/secretproviderclasses"
const STATUSES = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/default/secretproviderclasspodstatuses"
const IDLE_MILLIS = 5_000

interface Stored {
  readonly metadata: Readonly<Record<string, unknown>> & {
    readonly name: string
    readonly uid: string
    readonly resourceVersion: string
    readonly labels?: Readonly<Record<string, string>>
  }
  readonly data?: Readonly<Record<string, string>>
  readonly type?: string
  readonly spec?: unknown
  readonly status?: unknown
}

interface Listed {
  readonly kind: string
  readonly metadata: { readonly resourceVersion: string; readonly continue?: string }
  readonly items: ReadonlyArray<Stored>
}

const stored = (body: unknown) => body as Stored
const listed = (body: unknown) => body as Listed
const versionOf = (event: WatchEvent) => Number(stored(event.object).metadata.resourceVersion)

/** Who owns what, without the times, which are of the moment. */
const ownersOf = ({ metadata }: Stored) =>
  ((metadata["managedFields"] ?? []) as ReadonlyArray<Readonly<Record<string, unknown>>>).map(
    ({ apiVersion: _, fieldsType: __, fieldsV1, manager, operation, subresource, time: ___ }) => ({
      by: `${String(manager)} ${String(operation)}${subresource === undefined ? "" : ` ${String(subresource)}`}`,
      fields: fieldsV1
    })
  )

/** A Deployment that an API server takes. */
const deployment = (name: string, containers: ReadonlyArray<object>, more: object = {}) => ({
  apiVersion: "apps/v1",
  kind: "Deployment",
  metadata: { name },
  spec: {
    selector: { matchLabels: { app: name } },
    template: { metadata: { labels: { app: name } }, spec: { containers } },
    ...more
  }
})

const RUN = randomUUID().slice(0, 8)
let count = 0
/** Not yet used on any server. */
const uniqueName = () => `contract-${RUN}-${count++}`

export const suite = <R, E>(name: string, layer: Layer.Layer<KubernetesApi | R, E>, { control }: KubernetesWorld<R>) =>
  it.layer(layer, { excludeTestServices: true })(`KubernetesApi (${name})`, (it) => {
    const send = (request: KubernetesRequest) => Effect.flatMap(KubernetesApi, (api) => api.request(request))

    const refused = (request: KubernetesRequest) => Effect.flip(send(request))

    /** Gone with the test, whatever holds it. */
    const forget = (path: string) =>
      Effect.addFinalizer(() =>
        send({ method: "PATCH", path, body: { metadata: { finalizers: null } }, contentType: MERGE }).pipe(
          Effect.andThen(send({ method: "DELETE", path })),
          Effect.ignore
        )
      )

    const create = (
      body: Readonly<Record<string, unknown>> & {
        readonly metadata: { readonly name: string; readonly [key: string]: unknown }
      },
      collection = SECRETS
    ): Effect.Effect<Stored, KubernetesApiFailed, KubernetesApi | Scope.Scope> =>
      Effect.andThen(
        forget(`${collection}/${body.metadata.name}`),
        Effect.map(send({ method: "POST", path: collection, body }), stored)
      )

    /** Server-side apply, to "secrets" of the core group when the body does not say otherwise. */
    const apply = (
      path: string,
      body: Readonly<Record<string, unknown>>,
      fieldManager: string,
      query: KubernetesRequest["query"] = {}
    ): Effect.Effect<Stored, KubernetesApiFailed, KubernetesApi | Scope.Scope> => {
      const whole = { apiVersion: "v1", kind: path.startsWith(SECRETS) ? "Secret" : "ConfigMap", ...body }
      const request = {
        method: "PATCH",
        path,
        body: whole,
        contentType: APPLY,
        query: { fieldManager, ...query }
      } as const
      return Effect.andThen(forget(path.replace(/\/status$/u, "")), Effect.map(send(request), stored))
    }

    const patch = (path: string, body: object, query: KubernetesRequest["query"] = {}) =>
      Effect.map(send({ method: "PATCH", path, body, contentType: MERGE, query }), stored)

    const read = (path: string) => Effect.map(send({ method: "GET", path }), stored)

    const watched = (version: string, selector: string, events: number, path = SECRETS) =>
      Effect.flatMap(KubernetesApi, (api) =>
        api
          .watch(
            { path, query: { resourceVersion: version, labelSelector: selector, timeoutSeconds: 30 } },
            IDLE_MILLIS
          )
          .pipe(Stream.take(events), Stream.runCollect)
      )

    it.effect("e: what is created has a uid, a version and a time, and is read back as it is", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const made = yield* create({ metadata: { name, labels: { app: name } }, stringData: { key: "värde" } })
        assert.match(made.metadata.uid, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/u)
        assert.match(String(made.metadata["creationTimestamp"]), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/u)
        assert.match(made.metadata.resourceVersion, /^\d+$/u)
        assert.strictEqual(made.metadata["namespace"], "default")
        assert.deepStrictEqual([made.type, made.data], ["Opaque", { key: Buffer.from("värde").toString("base64") }])
        assert.deepStrictEqual(stored(yield* send({ method: "GET", path: `${SECRETS}/${name}` })), made)
      })
    )

    it.effect("a generated name begins with what was asked for", () =>
      Effect.gen(function* () {
        const generateName = `${uniqueName()}-`
        const made = stored(yield* send({ method: "POST", path: SECRETS, body: { metadata: { generateName } } }))
        yield* forget(`${SECRETS}/${made.metadata.name}`)
        assert.match(made.metadata.name, new RegExp(`^${generateName}[a-z0-9]{5}$`, "u"))
      })
    )

    it.effect("e.2: creating twice is AlreadyExists (409)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        yield* create({ metadata: { name } })
        const error = yield* refused({ method: "POST", path: SECRETS, body: { metadata: { name } } })
        assert.deepStrictEqual(
          [error.status, error.reason, error.message, error.method, error.path],
          [409, "AlreadyExists", `secrets "${name}" already exists`, "POST", SECRETS]
        )
        assert.isTrue(error.isAlreadyExists)
        assert.isFalse(error.isConflict || error.isTransient)
      })
    )

    it.effect.each([
      { method: "GET" as const },
      { method: "PUT" as const, body: { metadata: { name: "contract-missing" } } },
      { method: "PATCH" as const, body: { metadata: { labels: { a: "b" } } }, contentType: MERGE },
      { method: "DELETE" as const }
    ])("e.2: $method of what is not there is NotFound (404)", (request) =>
      Effect.gen(function* () {
        const error = yield* refused({ ...request, path: `${SECRETS}/contract-missing` })
        assert.deepStrictEqual(
          [error.status, error.reason, error.message, error.isNotFound],
          [404, "NotFound", `secrets "contract-missing" not found`, true]
        )
      })
    )

    it.effect.each([
      { name: "a resource that does not exist", path: `${CORE}/nothings` },
      { name: "a group that does not exist", path: "/apis/nothing.example.com/v1/nothings" },
      { name: "a version that does not exist", path: "/apis/apps/v0/daemonsets" }
    ])("$name is NotFound (404), in other words", ({ path }) =>
      Effect.gen(function* () {
        const error = yield* refused({ method: "GET", path })
        assert.strictEqual(error.status, 404)
        assert.notInclude(error.message, '"')
      })
    )

    it.effect.each([
      { name: "a name in capitals", metadata: { name: "Contract-Capital" }, field: "metadata.name" },
      { name: "a name with an underscore", metadata: { name: "contract_underscore" }, field: "metadata.name" },
      { name: "a name of 254 bytes", metadata: { name: "c".repeat(254) }, field: "metadata.name" },
      { name: "no name", metadata: {}, field: "metadata.name" },
      {
        name: "a label value of 64 bytes",
        metadata: { name: "contract-label", labels: { app: "v".repeat(64) } },
        field: "metadata.labels"
      },
      {
        name: "a label value that ends in a dot",
        metadata: { name: "contract-label", labels: { app: "v." } },
        field: "metadata.labels"
      },
      {
        name: "a label key with a blank",
        metadata: { name: "contract-label", labels: { "a b": "v" } },
        field: "metadata.labels"
      },
      {
        name: "an owner without uid",
        metadata: {
          name: "contract-owner",
          ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "pod", uid: "" }]
        },
        field: "metadata.ownerReferences"
      }
    ])("e.2: $name is Invalid (422), and the message names the field", ({ field, metadata }) =>
      Effect.gen(function* () {
        const error = yield* refused({ method: "POST", path: SECRETS, body: { metadata } })
        assert.deepStrictEqual([error.status, error.reason, error.isTransient], [422, "Invalid", false])
        assert.match(error.message, /^Secret "[^"]*" is invalid: /u)
        assert.include(error.message, field)
      })
    )

    it.effect("a name of 253 bytes and a label value of 63 are valid", () =>
      Effect.gen(function* () {
        const name = `${uniqueName()}-`.padEnd(253, "x")
        const made = yield* create({ metadata: { name, labels: { app: "v".repeat(63) } } })
        assert.strictEqual(made.metadata.name, name)
      })
    )

    it.effect("e.2: a Secret's type cannot be changed (422), and a key of TLS cannot be missing", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        yield* create({ metadata: { name } })
        const body = { metadata: { name }, type: "example.com/other" }
        const error = yield* refused({ method: "PUT", path: `${SECRETS}/${name}`, body })
        assert.deepStrictEqual([error.status, error.reason], [422, "Invalid"])
        assert.include(error.message, "type: Invalid value")
        assert.include(error.message, "field is immutable")
        const tls = { metadata: { name: uniqueName() }, type: "kubernetes.io/tls", stringData: { "tls.crt": "" } }
        const missing = yield* refused({ method: "POST", path: SECRETS, body: tls })
        assert.include(missing.message, "data[tls.key]: Required value")
      })
    )

    it.effect("an object of another name, namespace or kind than its path is a BadRequest (400)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        yield* create({ metadata: { name } })
        const rename = yield* refused({ method: "PUT", path, body: { metadata: { name: "contract-other" } } })
        assert.deepStrictEqual(
          [rename.status, rename.reason, rename.message],
          [400, "BadRequest", `the name of the object (contract-other) does not match the name on the URL (${name})`]
        )
        for (const body of [
          { metadata: { name, namespace: "contract-other" } },
          { apiVersion: "v1", kind: "Pod", metadata: { name } },
          ["not an object"]
        ]) {
          const error = yield* refused({ method: "PUT", path, body })
          assert.deepStrictEqual([error.status, error.reason], [400, "BadRequest"])
        }
      })
    )

    it.effect("a patch of an unknown media type is refused (415), a method that makes no sense too (405)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        yield* create({ metadata: { name } })
        const media = yield* refused({ method: "PATCH", path, body: {}, contentType: "text/plain" })
        assert.deepStrictEqual([media.status, media.reason], [415, "UnsupportedMediaType"])
        const method = yield* refused({ method: "POST", path, body: { metadata: { name } } })
        assert.deepStrictEqual([method.status, method.reason], [405, "MethodNotAllowed"])
      })
    )

    it.effect("e.2: only the newest version may be replaced: Conflict (409)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const { metadata } = yield* create({ metadata: { name } })
        const changed = { metadata: { ...metadata, labels: { step: "one" } } }
        const newer = stored(yield* send({ method: "PUT", path, body: changed }))
        assert.isAbove(Number(newer.metadata.resourceVersion), Number(metadata.resourceVersion))
        assert.deepStrictEqual([newer.metadata.uid, newer.metadata.labels], [metadata.uid, { step: "one" }])

        const words = `Operation cannot be fulfilled on secrets "${name}": the object has been modified; please apply your changes to the latest version and try again`
        const put = yield* refused({
          method: "PUT",
          path,
          body: { metadata: { ...metadata, labels: { step: "two" } } }
        })
        assert.deepStrictEqual([put.status, put.reason, put.message], [409, "Conflict", words])
        assert.isTrue(put.isConflict && !put.isAlreadyExists)
        const body = { metadata: { resourceVersion: metadata.resourceVersion, labels: { step: "two" } } }
        const patch = yield* refused({ method: "PATCH", path, body, contentType: MERGE })
        assert.deepStrictEqual([patch.status, patch.reason], [409, "Conflict"])
        assert.deepStrictEqual(stored(yield* send({ method: "GET", path })), newer)
      })
    )

    it.effect("e: a PUT without a version replaces whatever is there, and what it does not name is gone", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const made = yield* create({ metadata: { name, labels: { old: "yes" } }, stringData: { old: "1" } })
        const body = { metadata: { name, labels: { new: "yes" } }, type: "Opaque", data: { new: "Mg==" } }
        const replaced = stored(yield* send({ method: "PUT", path, body }))
        assert.deepStrictEqual(
          [replaced.metadata.uid, replaced.metadata.labels, replaced.data],
          [made.metadata.uid, { new: "yes" }, { new: "Mg==" }]
        )
        assert.strictEqual(replaced.metadata["creationTimestamp"], made.metadata["creationTimestamp"])
      })
    )

    it.effect("a PUT that changes nothing makes no version and tells no watch", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const made = yield* create({ metadata: { name, labels: { contract: name } }, stringData: { key: "1" } })
        const body = { type: "Opaque", data: made.data, metadata: { labels: { contract: name }, name } }
        assert.deepStrictEqual(stored(yield* send({ method: "PUT", path, body })).metadata, made.metadata)
        assert.deepStrictEqual(stored(yield* send({ method: "PUT", path, body: made })).metadata, made.metadata)
        yield* send({ method: "DELETE", path })
        const events = yield* watched(made.metadata.resourceVersion, `contract=${name}`, 1)
        assert.deepStrictEqual(
          events.map(({ type }) => type),
          ["DELETED"]
        )
      })
    )

    it.effect("e: a merge patch sets, replaces lists and takes away by null, and leaves the rest", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const owner = (uid: string) => ({ apiVersion: "example.com/v1", kind: "Thing", name: "thing", uid })
        const made = yield* create({
          metadata: { name, labels: { keep: "1", drop: "2" }, ownerReferences: [owner("a"), owner("b")] },
          stringData: { key: "1" }
        })
        const { resourceVersion } = made.metadata
        const body = { metadata: { resourceVersion, labels: { drop: null, add: "3" }, ownerReferences: [owner("c")] } }
        const patched = stored(yield* send({ method: "PATCH", path, body, contentType: MERGE }))
        assert.deepStrictEqual(
          [patched.metadata.labels, patched.metadata["ownerReferences"], patched.data],
          [{ keep: "1", add: "3" }, [owner("c")], made.data]
        )
      })
    )

    it.effect("DELETE asks for the uid and version that it is told to", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const { metadata } = yield* create({ metadata: { name } })
        const options = (preconditions: object) => ({ apiVersion: "v1", kind: "DeleteOptions", preconditions })
        const other = "00000000-0000-4000-8000-000000000000"
        for (const [preconditions, words] of [
          [
            { uid: other },
            `the UID in the precondition (${other}) does not match the UID in record (${metadata.uid}). The object might have been deleted and then recreated`
          ],
          [
            { resourceVersion: "1" },
            `the ResourceVersion in the precondition (1) does not match the ResourceVersion in record (${metadata.resourceVersion}). The object might have been modified`
          ]
        ] as const) {
          const error = yield* refused({ method: "DELETE", path, body: options(preconditions) })
          assert.deepStrictEqual(
            [error.status, error.reason, error.message],
            [409, "Conflict", `Operation cannot be fulfilled on Secret "${name}": ${words}`]
          )
        }
        const { resourceVersion, uid } = metadata
        yield* send({ method: "DELETE", path, body: options({ uid, resourceVersion }) })
        assert.isTrue((yield* refused({ method: "GET", path })).isNotFound)
      })
    )

    it.effect("an object with finalizers is marked, and goes with its last one", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const selector = `contract=${name}`
        const finalizers = ["example.com/contract"]
        const made = yield* create({ metadata: { name, labels: { contract: name }, finalizers } })
        yield* send({ method: "DELETE", path })
        const marked = stored(yield* send({ method: "GET", path }))
        assert.isString(marked.metadata["deletionTimestamp"])
        yield* send({ method: "DELETE", path })
        yield* send({ method: "PATCH", path, body: { metadata: { finalizers: null } }, contentType: MERGE })
        assert.isTrue((yield* refused({ method: "GET", path })).isNotFound)
        const events = yield* watched(made.metadata.resourceVersion, selector, 2)
        assert.deepStrictEqual(
          events.map(({ type }) => type),
          ["MODIFIED", "DELETED"]
        )
      })
    )

    it.effect("pages of a list are of one snapshot, in the order of names", () =>
      Effect.gen(function* () {
        const prefix = uniqueName()
        const labelSelector = `contract=${prefix}`
        const make = (suffix: string) =>
          create({ metadata: { name: `${prefix}-${suffix}`, labels: { contract: prefix } } })
        yield* Effect.forEach(["d", "b", "a", "c", "e"], make)
        const page = (token?: string) =>
          Effect.map(
            send({ method: "GET", path: SECRETS, query: { limit: 2, continue: token, labelSelector } }),
            listed
          )
        const first = yield* page()
        yield* make("bb")
        yield* send({ method: "DELETE", path: `${SECRETS}/${prefix}-e` })
        const second = yield* page(first.metadata.continue)
        const third = yield* page(second.metadata.continue)
        const names = [first, second, third].map(({ items }) => items.map((item) => item.metadata.name.at(-1)))
        assert.deepStrictEqual(names, [["a", "b"], ["c", "d"], ["e"]])
        assert.strictEqual(third.metadata.continue ?? "", "")
        assert.deepStrictEqual(
          [second.metadata.resourceVersion, third.metadata.resourceVersion, first.kind],
          [first.metadata.resourceVersion, first.metadata.resourceVersion, "SecretList"]
        )
        const events = yield* watched(first.metadata.resourceVersion, labelSelector, 2)
        assert.deepStrictEqual(
          events.map(({ object, type }) => [type, stored(object).metadata.name]),
          [
            ["ADDED", `${prefix}-bb`],
            ["DELETED", `${prefix}-e`]
          ]
        )
      })
    )

    it.effect("selectors choose by labels and fields, in one namespace or all", () =>
      Effect.gen(function* () {
        const prefix = uniqueName()
        const labels = { contract: prefix }
        yield* create({ metadata: { name: `${prefix}-a`, labels: { ...labels, tier: "one" } } })
        yield* create({ metadata: { name: `${prefix}-b`, labels: { ...labels, tier: "two" } }, type: "example.com/b" })
        yield* create({ metadata: { name: `${prefix}-c`, labels } })
        const mine = `contract=${prefix}`
        for (const { expected, path = SECRETS, query } of [
          { query: { labelSelector: mine }, expected: "abc" },
          { query: { labelSelector: mine }, path: "/api/v1/secrets", expected: "abc" },
          { query: { labelSelector: `contract==${prefix},tier=one` }, expected: "a" },
          { query: { labelSelector: `${mine},tier!=one` }, expected: "bc" },
          { query: { labelSelector: `${mine},tier` }, expected: "ab" },
          { query: { labelSelector: `${mine},!tier` }, expected: "c" },
          { query: { labelSelector: `${mine},tier in (two, three)` }, expected: "b" },
          { query: { labelSelector: `tier notin (two, three),${mine}` }, expected: "ac" },
          { query: { fieldSelector: `metadata.name=${prefix}-b` }, expected: "b" },
          { query: { labelSelector: mine, fieldSelector: "type=example.com/b" }, expected: "b" },
          { query: { labelSelector: mine, fieldSelector: "metadata.namespace!=default" }, expected: "" },
          { query: { labelSelector: mine }, path: "/api/v1/namespaces/contract-none/secrets", expected: "" }
        ]) {
          const { items } = listed(yield* send({ method: "GET", path, query }))
          const found = (items ?? []).map((item) => item.metadata.name.at(-1)).join("")
          assert.strictEqual(found, expected, JSON.stringify({ path, query }))
        }
        for (const query of [{ fieldSelector: "spec.color=red" }, { labelSelector: "a==b==c" }]) {
          const error = yield* refused({ method: "GET", path: SECRETS, query })
          assert.deepStrictEqual([error.status, error.reason], [400, "BadRequest"], JSON.stringify(query))
        }
      })
    )

    it.effect("a watch tells what happened since a version, in order, and goes on from any of them", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const labels = { contract: name }
        const { metadata } = listed(yield* send({ method: "GET", path: SECRETS, query: { limit: 1 } }))
        yield* create({ metadata: { name, labels } })
        yield* send({ method: "PATCH", path, body: { data: { n: "MQ==" } }, contentType: MERGE })
        const replayed = yield* watched(metadata.resourceVersion, `contract=${name}`, 2)
        assert.deepStrictEqual(
          replayed.map(({ type }) => type),
          ["ADDED", "MODIFIED"]
        )
        const fiber = yield* Effect.forkChild(watched(String(versionOf(replayed[0]!)), `contract=${name}`, 3))
        yield* send({ method: "PATCH", path, body: { data: { n: "Mg==" } }, contentType: MERGE })
        yield* send({ method: "DELETE", path })
        const resumed = yield* Fiber.join(fiber)
        assert.deepStrictEqual(
          resumed.map(({ object, type }) => [type, stored(object).data]),
          [
            ["MODIFIED", { n: "MQ==" }],
            ["MODIFIED", { n: "Mg==" }],
            ["DELETED", { n: "Mg==" }]
          ]
        )
        const versions = [...replayed.slice(0, 1), ...resumed].map(versionOf)
        assert.deepStrictEqual(
          versions,
          [...new Set(versions)].sort((a, b) => a - b)
        )
      })
    )

    it.effect("a watch without a version begins with what is there", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const made = yield* create({ metadata: { name, labels: { contract: name } } })
        const events = yield* watched("0", `contract=${name}`, 1)
        assert.deepStrictEqual(
          events.map(({ object, type }) => [type, stored(object).metadata.uid]),
          [["ADDED", made.metadata.uid]]
        )
      })
    )

    it.effect("an object that comes into a selection is ADDED to it, and one that leaves is DELETED", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const { metadata } = yield* create({ metadata: { name, labels: { contract: name } } })
        const label = (chosen: string | null) =>
          send({ method: "PATCH", path, body: { metadata: { labels: { chosen } } }, contentType: MERGE })
        yield* label("yes")
        yield* label(null)
        const events = yield* watched(metadata.resourceVersion, `contract=${name},chosen=yes`, 2)
        assert.deepStrictEqual(
          events.map(({ type }) => type),
          ["ADDED", "DELETED"]
        )
      })
    )

    it.effect("a watch ends after its timeoutSeconds, and is Idle after less", () =>
      Effect.gen(function* () {
        const api = yield* KubernetesApi
        const { metadata } = listed(yield* send({ method: "GET", path: SECRETS, query: { limit: 1 } }))
        const { resourceVersion } = metadata
        const query = { resourceVersion, timeoutSeconds: 1, labelSelector: "contract=nobody" }
        assert.deepStrictEqual(yield* api.watch({ path: SECRETS, query }, 20_000).pipe(Stream.runCollect), [])
        const idle = yield* api.watch({ path: SECRETS, query }, 100).pipe(Stream.runCollect, Effect.flip)
        assert.deepStrictEqual([idle.status, idle.reason, idle.isTransient, idle.path], [0, "Idle", true, SECRETS])
      })
    )

    it.effect("a watch is Idle in time, though the clock is set back meanwhile", () =>
      Effect.gen(function* () {
        const api = yield* KubernetesApi
        const { metadata } = listed(yield* send({ method: "GET", path: SECRETS, query: { limit: 1 } }))
        const query = {
          resourceVersion: metadata.resourceVersion,
          timeoutSeconds: 2,
          labelSelector: "contract=nobody"
        }
        const clock = yield* Clock.Clock
        let stepMillis = 0
        const millis = () => clock.currentTimeMillisUnsafe() + stepMillis
        const nanos = () => clock.currentTimeNanosUnsafe() + BigInt(stepMillis) * 1_000_000n
        const steps: Clock.Clock = {
          currentTimeMillisUnsafe: millis,
          currentTimeMillis: Effect.sync(millis),
          currentTimeNanosUnsafe: nanos,
          currentTimeNanos: Effect.sync(nanos),
          monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
          monotonicTimeNanos: clock.monotonicTimeNanos,
          sleep: (duration) => clock.sleep(duration)
        }
        const watch = api.watch({ path: SECRETS, query }, 300).pipe(Stream.runCollect, Effect.flip)
        const watching = yield* Effect.forkChild(Effect.provideService(watch, Clock.Clock, steps))
        yield* Effect.sleep(100)
        stepMillis = -3_600_000
        assert.strictEqual((yield* Fiber.join(watching)).reason, "Idle")
      })
    )

    it.effect("apply creates what is not there, and its manager owns what was applied", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        const body = { metadata: { name, labels: { contract: name } }, data: { a: "1" } }
        const made = yield* apply(path, body, "contract-a")
        assert.match(made.metadata.uid, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/u)
        assert.deepStrictEqual([made.data, made.metadata.labels], [{ a: "1" }, { contract: name }])
        const [entry] = made.metadata["managedFields"] as ReadonlyArray<Readonly<Record<string, unknown>>>
        assert.deepStrictEqual<unknown>(entry, {
          manager: "contract-a",
          operation: "Apply",
          apiVersion: "v1",
          time: made.metadata["creationTimestamp"],
          fieldsType: "FieldsV1",
          fieldsV1: { "f:data": { "f:a": {} }, "f:metadata": { "f:labels": { "f:contract": {} } } }
        })
        assert.deepStrictEqual(yield* read(path), made)
      })
    )

    it.effect("an ordinary write has an owner as well: what it calls itself, or its program", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        const made = yield* create({ metadata: { name, labels: { a: "1" } }, data: { a: "1", b: "1" } }, CONFIG_MAPS)
        const [{ by, fields }] = ownersOf(made) as [{ by: string; fields: unknown }]
        assert.match(by, /^(csi-secrets-store|unknown) Update$/u)
        assert.deepStrictEqual(fields, {
          "f:data": { ".": {}, "f:a": {}, "f:b": {} },
          "f:metadata": { "f:labels": { ".": {}, "f:a": {} } }
        })
        const patched = yield* patch(path, { data: { b: "2", c: "3" } }, { fieldManager: "contract-b" })
        assert.deepStrictEqual(
          ownersOf(patched)
            .toSorted((one, other) => (one.by < other.by ? 1 : -1))
            .slice(-2),
          [
            { by, fields: { "f:data": { ".": {}, "f:a": {} }, "f:metadata": { "f:labels": { ".": {}, "f:a": {} } } } },
            { by: "contract-b Update", fields: { "f:data": { "f:b": {}, "f:c": {} } } }
          ].toSorted((one, other) => (one.by < other.by ? 1 : -1))
        )
        // Whoever sends no managedFields takes them from nobody, and what is gone belongs to nobody.
        const body = { metadata: { name }, data: { b: "2", c: "4" } }
        const put = yield* send({ method: "PUT", path, body, query: { fieldManager: "contract-c" } })
        assert.deepStrictEqual(
          new Map(ownersOf(stored(put)).map((it) => [it.by, it.fields])),
          new Map<string, unknown>([
            [by, { "f:data": {} }],
            ["contract-b Update", { "f:data": { "f:b": {} } }],
            ["contract-c Update", { "f:data": { "f:c": {} } }]
          ])
        )
      })
    )

    it.effect("applying the same again makes no version and tells no watch", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const body = { metadata: { name, labels: { contract: name } }, type: "Opaque", data: { a: "MQ==" } }
        const made = yield* apply(path, body, "contract-a")
        for (const force of [false, true]) {
          assert.deepStrictEqual((yield* apply(path, body, "contract-a", { force })).metadata, made.metadata)
        }
        yield* send({ method: "DELETE", path })
        const events = yield* watched(made.metadata.resourceVersion, `contract=${name}`, 1)
        assert.deepStrictEqual(
          events.map(({ type }) => type),
          ["DELETED"]
        )
      })
    )

    it.effect("what is not applied any more goes, and what others wrote stays", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        const owner = { apiVersion: "example.com/v1", kind: "Thing", name: "thing", uid: "u-1" }
        const mine = (keys: ReadonlyArray<string>) => Object.fromEntries(keys.map((key) => [key, "mine"]))
        const body = (...keys: ReadonlyArray<string>) => ({
          metadata: { name, labels: mine(keys), annotations: mine(keys) },
          data: mine(keys)
        })
        yield* apply(path, body("a", "b"), "contract-a")
        yield* patch(path, {
          metadata: {
            labels: { other: "1" },
            annotations: { other: "1" },
            ownerReferences: [owner],
            finalizers: ["example.com/contract"]
          },
          data: { other: "1" }
        })
        const left = yield* apply(path, body("a"), "contract-a")
        const both = { a: "mine", other: "1" }
        assert.deepStrictEqual([left.metadata.labels, left.metadata["annotations"], left.data], [both, both, both])
        assert.deepStrictEqual(
          [left.metadata["ownerReferences"], left.metadata["finalizers"]],
          [[owner], ["example.com/contract"]]
        )
        const none = yield* apply(path, { metadata: { name } }, "contract-a")
        assert.deepStrictEqual([none.metadata.labels, none.data], [{ other: "1" }, { other: "1" }])
        assert.notInclude(
          ownersOf(none).map(({ by }) => by),
          "contract-a Apply"
        )
      })
    )

    it.effect("a value that another manager owns is a conflict (409), in words, and is taken by force", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        const body = (value: string) => ({ metadata: { name }, data: { a: value } })
        const made = yield* apply(path, body("1"), "contract-a")
        const error = yield* Effect.flip(apply(path, body("2"), "contract-b"))
        assert.deepStrictEqual(
          [error.status, error.reason, error.message, error.isConflict, error.isTransient],
          [409, "Conflict", 'Apply failed with 1 conflict: conflict with "contract-a": .data.a', true, false]
        )
        assert.deepStrictEqual(error.causes, [
          { reason: "FieldManagerConflict", message: 'conflict with "contract-a"', field: ".data.a" }
        ])
        assert.deepStrictEqual(yield* read(path), made)
        const forced = yield* apply(path, body("2"), "contract-b", { force: true })
        assert.deepStrictEqual(forced.data, { a: "2" })
        assert.deepStrictEqual(ownersOf(forced), [{ by: "contract-b Apply", fields: { "f:data": { "f:a": {} } } }])
      })
    )

    it.effect("a conflict with whoever wrote by an ordinary request names its version; several are a list", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        yield* apply(path, { metadata: { name }, data: { a: "1", b: "1" } }, "contract-a")
        yield* patch(path, { metadata: { labels: { l: "1" } }, data: { c: "1" } }, { fieldManager: "contract-u" })
        const one = yield* Effect.flip(apply(path, { metadata: { name }, data: { c: "2" } }, "contract-b"))
        assert.strictEqual(one.message, 'Apply failed with 1 conflict: conflict with "contract-u" using v1: .data.c')
        const body = { metadata: { name, labels: { l: "2" } }, data: { a: "2", b: "2", c: "2" } }
        const many = yield* Effect.flip(apply(path, body, "contract-b"))
        assert.strictEqual(
          many.message,
          [
            'Apply failed with 4 conflicts: conflicts with "contract-a":',
            "- .data.a",
            "- .data.b",
            'conflicts with "contract-u" using v1:',
            "- .data.c",
            "- .metadata.labels.l"
          ].join("\n")
        )
        assert.lengthOf(many.causes ?? [], 4)
      })
    )

    it.effect("a value that two managers apply goes with the last of them", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        const shared = { metadata: { name }, data: { a: "1", keep: "1" } }
        const less = { metadata: { name }, data: { keep: "1" } }
        const first = yield* apply(path, shared, "contract-a")
        const second = yield* apply(path, shared, "contract-b")
        assert.notStrictEqual(second.metadata.resourceVersion, first.metadata.resourceVersion)
        assert.deepStrictEqual(
          ownersOf(second)
            .map(({ by }) => by)
            .sort(),
          ["contract-a Apply", "contract-b Apply"]
        )
        // Whoever applies what is there already has changed nothing at any time.
        const entries = second.metadata["managedFields"] as ReadonlyArray<Readonly<Record<string, unknown>>>
        assert.deepStrictEqual(
          new Map(entries.map(({ manager, time }) => [manager, time !== undefined])),
          new Map([
            ["contract-a", true],
            ["contract-b", false]
          ])
        )
        assert.deepStrictEqual((yield* apply(path, less, "contract-a")).data, shared.data)
        assert.deepStrictEqual((yield* apply(path, less, "contract-b")).data, less.data)
      })
    )

    it.effect("what an ordinary write set to the same stays when it is not applied any more", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        yield* create({ metadata: { name }, data: { a: "1", b: "1" } }, CONFIG_MAPS)
        yield* apply(path, { metadata: { name }, data: { a: "1" } }, "contract-a")
        const left = yield* apply(path, { metadata: { name }, data: {} }, "contract-a")
        assert.deepStrictEqual(left.data, { a: "1", b: "1" })
      })
    )

    it.effect("owners and finalizers of two managers are one list", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const owner = (uid: string) => ({ apiVersion: "example.com/v1", kind: "Thing", name: `thing-${uid}`, uid })
        const body = (ownerReferences: ReadonlyArray<object>, finalizers: ReadonlyArray<string>) => ({
          metadata: { name, ownerReferences, finalizers }
        })
        const listsOf = ({ metadata }: Stored) => [metadata["ownerReferences"], metadata["finalizers"]]
        yield* apply(path, body([owner("b")], ["example.com/b"]), "contract-a")
        const both = yield* apply(path, body([owner("a")], ["example.com/a"]), "contract-b")
        assert.deepStrictEqual(listsOf(both), [
          [owner("b"), owner("a")],
          ["example.com/b", "example.com/a"]
        ])
        assert.deepStrictEqual(ownersOf(both).find(({ by }) => by === "contract-b Apply")?.fields, {
          "f:metadata": {
            "f:finalizers": { 'v:"example.com/a"': {} },
            "f:ownerReferences": { 'k:{"uid":"a"}': {} }
          }
        })
        const left = yield* apply(path, body([], []), "contract-a")
        assert.deepStrictEqual(listsOf(left), [[owner("a")], ["example.com/a"]])
        const twice = yield* Effect.flip(apply(path, body([owner("c"), owner("c")], []), "contract-a"))
        assert.strictEqual(twice.status, 500)
        assert.include(twice.message, '.metadata.ownerReferences: duplicate entries for key [uid="c"]')
      })
    )

    it.effect("an applied list keeps its order, with what others have in it", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const body = (finalizers: ReadonlyArray<string>) => ({
          metadata: { name, finalizers: finalizers.map((it) => `example.com/${it}`) }
        })
        const orderOf = ({ metadata }: Stored) =>
          (metadata["finalizers"] as ReadonlyArray<string>).map((it) => it.at(-1)).join("")
        yield* apply(path, body(["a", "x", "b"]), "contract-a")
        assert.strictEqual(orderOf(yield* apply(path, body(["b", "a"]), "contract-b")), "xba")
        assert.strictEqual(orderOf(yield* apply(path, body(["n", "b", "m"]), "contract-b")), "xnbam")
      })
    )

    it.effect("apply asks for the version and uid that the object carries", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        const body = (metadata: object, value: string) => ({ metadata: { name, ...metadata }, data: { a: value } })
        const uid = "00000000-0000-4000-8000-000000000000"
        const early = yield* Effect.flip(apply(path, body({ uid }, "1"), "contract-a"))
        assert.deepStrictEqual(
          [early.status, early.reason, early.message],
          [
            409,
            "Conflict",
            `Operation cannot be fulfilled on configmaps "${name}": uid mismatch: the provided object specified uid ${uid}, and no existing object was found`
          ]
        )
        const { metadata } = yield* apply(path, body({}, "1"), "contract-a")
        const { resourceVersion } = metadata
        const newer = yield* apply(path, body({ uid: metadata.uid, resourceVersion }, "2"), "contract-a")
        assert.deepStrictEqual(newer.data, { a: "2" })
        const old = yield* Effect.flip(apply(path, body({ resourceVersion }, "3"), "contract-a"))
        assert.deepStrictEqual(
          [old.status, old.reason, old.message],
          [
            409,
            "Conflict",
            `Operation cannot be fulfilled on configmaps "${name}": the object has been modified; please apply your changes to the latest version and try again`
          ]
        )
        const other = yield* Effect.flip(apply(path, body({ uid }, "3"), "contract-a"))
        assert.deepStrictEqual(
          [other.status, other.message],
          [422, `ConfigMap "${name}" is invalid: metadata.uid: Invalid value: "${uid}": field is immutable`]
        )
        assert.deepStrictEqual((yield* read(path)).data, { a: "2" })
      })
    )

    it.effect.each([
      {
        name: "without a manager",
        query: {},
        expected: [
          422,
          "Invalid",
          'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
        ]
      },
      {
        name: "by a manager of 129 bytes",
        query: { fieldManager: "m".repeat(129) },
        expected: [
          422,
          "Invalid",
          'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes'
        ]
      },
      {
        name: "of another kind",
        body: { apiVersion: "v1", kind: "Secret" },
        expected: [400, "BadRequest", "invalid object type: /v1, Kind=Secret"]
      },
      { name: "of no kind", body: {}, expected: [400, "BadRequest", "invalid object type: /, Kind="] },
      {
        name: "with managedFields",
        metadata: { managedFields: [] },
        expected: [400, "BadRequest", "metadata.managedFields must be nil"]
      },
      {
        name: "of another name",
        metadata: { name: "contract-other" },
        expected: [
          400,
          "BadRequest",
          "the name of the object (contract-other) does not match the name on the URL (contract-refused)"
        ]
      },
      {
        name: "in another namespace",
        metadata: { namespace: "contract-other" },
        expected: [
          400,
          "BadRequest",
          "the namespace of the provided object does not match the namespace sent on the request"
        ]
      }
    ])("apply $name is refused", ({ body = { apiVersion: "v1", kind: "ConfigMap" }, expected, metadata, query }) =>
      Effect.gen(function* () {
        const path = `${CONFIG_MAPS}/contract-refused`
        const error = yield* refused({
          method: "PATCH",
          path,
          body: { ...body, metadata: { name: "contract-refused", ...metadata } },
          contentType: APPLY,
          query: query ?? { fieldManager: "contract-a" }
        })
        assert.deepStrictEqual<unknown>([error.status, error.reason, error.message], expected)
        assert.isTrue((yield* refused({ method: "GET", path })).isNotFound)
      })
    )

    it.effect("only an apply may use force", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        yield* create({ metadata: { name } })
        const error = yield* Effect.flip(patch(`${SECRETS}/${name}`, {}, { force: true }))
        assert.deepStrictEqual(
          [error.status, error.message],
          [422, 'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch']
        )
      })
    )

    it.effect("managedFields that are emptied stay empty, until somebody applies", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        yield* apply(path, { metadata: { name }, data: { a: "1", b: "1" } }, "contract-a")
        assert.deepStrictEqual(ownersOf(yield* patch(path, { metadata: { managedFields: [{}] } })), [])
        assert.deepStrictEqual(ownersOf(yield* patch(path, { data: { b: "2" } })), [])
        const body = { metadata: { name }, data: { a: "2" } }
        const error = yield* Effect.flip(apply(path, body, "contract-a"))
        assert.strictEqual(
          error.message,
          'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a'
        )
        assert.deepStrictEqual(ownersOf(yield* apply(path, body, "contract-a", { force: true })), [
          { by: "contract-a Apply", fields: { "f:data": { "f:a": {} } } },
          { by: "before-first-apply Update", fields: { "f:data": { ".": {}, "f:b": {} } } }
        ])
      })
    )

    it.effect("containers are merged by name, their ports by number and protocol, tolerations are one value", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${DEPLOYMENTS}/${name}`
        const template = (spec: object) => ({
          apiVersion: "apps/v1",
          kind: "Deployment",
          metadata: { name },
          spec: { template: { spec } }
        })
        const tolerations = [{ operator: "Exists" }]
        const made = deployment(name, [{ name: "a", image: "a:1", ports: [{ containerPort: 1, protocol: "TCP" }] }])
        yield* apply(path, made, "contract-a")
        const more = {
          containers: [
            { name: "a", ports: [{ containerPort: 1, protocol: "UDP" }], env: [{ name: "E", value: "1" }] },
            { name: "b", image: "b:1" }
          ],
          tolerations
        }
        const merged = yield* apply(path, template(more), "contract-b")
        const specOf = ({ spec }: Stored) => (spec as { template: { spec: typeof more } }).template.spec
        const containersOf = (object: Stored) =>
          specOf(object).containers.map((it) => [
            it.name,
            it.image,
            (it.ports ?? []).map((port) => `${port.containerPort} ${port.protocol}`),
            (it.env ?? []).map((env) => env.name)
          ])
        assert.deepStrictEqual(containersOf(merged), [
          ["a", "a:1", ["1 TCP", "1 UDP"], ["E"]],
          ["b", "b:1", [], []]
        ])
        const conflict = yield* Effect.flip(
          apply(path, template({ tolerations: [...tolerations, { key: "k", operator: "Exists" }] }), "contract-c")
        )
        assert.strictEqual(
          conflict.message,
          'Apply failed with 1 conflict: conflict with "contract-b": .spec.template.spec.tolerations'
        )
        const image = yield* Effect.flip(
          apply(path, template({ containers: [{ name: "a", image: "a:2" }] }), "contract-c")
        )
        assert.strictEqual(
          image.message,
          'Apply failed with 1 conflict: conflict with "contract-a": .spec.template.spec.containers[name="a"].image'
        )
        const left = yield* apply(path, template({ containers: [{ name: "a" }] }), "contract-b")
        assert.deepStrictEqual(containersOf(left), [["a", "a:1", ["1 TCP"], []]])
        assert.isUndefined(specOf(left).tolerations)
      })
    )

    it.effect("a status is applied at its own address, and its conditions are merged by type", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${DEPLOYMENTS}/${name}`
        const time = "2026-01-01T00:00:00Z"
        const condition = (type: string, status = "True") => ({
          type,
          status,
          reason: "Contract",
          message: "as applied",
          lastUpdateTime: time,
          lastTransitionTime: time
        })
        const status = (...conditions: ReadonlyArray<object>) => ({
          apiVersion: "apps/v1",
          kind: "Deployment",
          metadata: { name },
          status: { conditions }
        })
        const typesOf = (object: Stored) =>
          ((object.status as { conditions?: ReadonlyArray<{ type: string; status: string }> }).conditions ?? []).map(
            (it) => `${it.type} ${it.status}`
          )
        const early = yield* Effect.flip(apply(`${path}/status`, status(condition("A")), "contract-a"))
        assert.isTrue(early.isNotFound)
        const made = yield* apply(
          path,
          { ...deployment(name, [{ name: "a", image: "a:1" }]), ...{ status: status(condition("A")).status } },
          "contract-m"
        )
        assert.isUndefined((made.status as { conditions?: unknown } | undefined)?.conditions)
        yield* apply(`${path}/status`, status(condition("A"), condition("B")), "contract-a")
        const both = yield* apply(`${path}/status`, status(condition("C")), "contract-b")
        assert.deepStrictEqual(typesOf(both), ["A True", "B True", "C True"])
        assert.deepStrictEqual(
          ownersOf(both)
            .map(({ by }) => by)
            .sort(),
          ["contract-a Apply status", "contract-b Apply status", "contract-m Apply"]
        )
        const conflict = yield* Effect.flip(apply(`${path}/status`, status(condition("A", "False")), "contract-b"))
        assert.strictEqual(
          conflict.message,
          'Apply failed with 1 conflict: conflict with "contract-a" with subresource "status": .status.conditions[type="A"].status'
        )
        const left = yield* apply(`${path}/status`, status(condition("B", "False")), "contract-a")
        assert.deepStrictEqual(typesOf(left), ["B False", "C True"])
        assert.deepStrictEqual([left.spec, left.metadata["generation"]], [made.spec, 1])
        const main = yield* apply(path, deployment(name, [{ name: "a", image: "a:2" }]), "contract-m")
        assert.deepStrictEqual([typesOf(main), main.metadata["generation"]], [["B False", "C True"], 2])
      })
    )

    it.effect("a kind without a status of its own has no address for it", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        yield* create({ metadata: { name } })
        assert.strictEqual((yield* refused({ method: "GET", path: `${SECRETS}/${name}/status` })).status, 404)
      })
    )

    it.effect("a CSIDriver's tokens are one value, its lifecycle modes a set", () =>
      Effect.gen(function* () {
        const name = `${uniqueName()}.example.com`
        const path = `${DRIVERS}/${name}`
        const driver = (spec: object) => ({
          apiVersion: "storage.k8s.io/v1",
          kind: "CSIDriver",
          metadata: { name },
          spec
        })
        const tokens = (...audiences: ReadonlyArray<string>) => audiences.map((audience) => ({ audience }))
        const made = yield* apply(
          path,
          driver({ attachRequired: false, tokenRequests: tokens("a"), volumeLifecycleModes: ["Ephemeral"] }),
          "contract-a"
        )
        assert.deepStrictEqual(ownersOf(made), [
          {
            by: "contract-a Apply",
            fields: {
              "f:spec": {
                "f:attachRequired": {},
                "f:tokenRequests": {},
                "f:volumeLifecycleModes": { 'v:"Ephemeral"': {} }
              }
            }
          }
        ])
        const error = yield* Effect.flip(apply(path, driver({ tokenRequests: tokens("a", "b") }), "contract-b"))
        assert.strictEqual(
          error.message,
          'Apply failed with 1 conflict: conflict with "contract-a": .spec.tokenRequests'
        )
      })
    )

    it.effect("lists of Kubernetes' own kinds that are empty are not there", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const account = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name } }
        const made = yield* create({ ...account, secrets: [], imagePullSecrets: [] }, ACCOUNTS)
        assert.notProperty(made, "secrets")
        assert.notProperty(made, "imagePullSecrets")
        const path = `${ACCOUNTS}/${name}`
        const same = yield* send({ method: "PUT", path, body: { ...account, secrets: [] } })
        assert.deepStrictEqual(stored(same), made)
        const merged = yield* apply(path, { ...account, imagePullSecrets: [{ name: "b" }] }, "contract-a")
        assert.deepStrictEqual(ownersOf(merged), [{ by: "contract-a Apply", fields: { "f:imagePullSecrets": {} } }])
      })
    )

    it.effect("a ConfigMap's keys are names of files, of text or bytes, and 1 MiB together (422)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CONFIG_MAPS}/${name}`
        const empty = yield* create({ metadata: { name }, data: {}, binaryData: {} }, CONFIG_MAPS)
        assert.notProperty(empty, "data")
        for (const [more, words] of [
          [{ data: { "a b": "" } }, 'data[a b]: Invalid value: "a b": a valid config key must consist of'],
          [
            { data: { a: "" }, binaryData: { a: "" } },
            'data[a]: Invalid value: "a": duplicate of key present in binaryData'
          ],
          [{ data: { a: "x".repeat(1024 * 1024 + 1) } }, "Too long: may not be more than 1048576 bytes"]
        ] as const) {
          const error = yield* Effect.flip(apply(path, { metadata: { name }, ...more }, "contract-a"))
          assert.strictEqual(error.status, 422)
          assert.include(error.message, words)
        }
        yield* patch(path, { immutable: true, data: { a: "1" } })
        const error = yield* Effect.flip(patch(path, { immutable: null, data: { a: "2" }, binaryData: { b: "" } }))
        const fault = (field: string) => `${field}: Forbidden: field is immutable when \`immutable\` is set`
        assert.strictEqual(
          error.message,
          `ConfigMap "${name}" is invalid: [${["immutable", "data", "binaryData"].map(fault).join(", ")}]`
        )
      })
    )

    it.effect("a custom resource is merged by its own schema: objects by field, lists as a whole", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${CLASSES}/${name}`
        const body = (spec: object) => ({
          apiVersion: "secrets-store.csi.x-k8s.io/v1",
          kind: "SecretProviderClass",
          metadata: { name },
          spec
        })
        const secretObjects = [{ secretName: "a", type: "Opaque", data: [{ key: "a", objectName: "a" }] }]
        const made = yield* apply(path, body({ provider: "fake", parameters: { a: "1" }, secretObjects }), "contract-a")
        assert.deepStrictEqual(ownersOf(made), [
          {
            by: "contract-a Apply",
            fields: { "f:spec": { "f:parameters": { "f:a": {} }, "f:provider": {}, "f:secretObjects": {} } }
          }
        ])
        const both = yield* apply(path, body({ parameters: { b: "2" } }), "contract-b")
        assert.deepStrictEqual<unknown>(both.spec, { provider: "fake", parameters: { a: "1", b: "2" }, secretObjects })
        assert.strictEqual(both.metadata["generation"], 2)
        const error = yield* Effect.flip(
          apply(path, body({ secretObjects: [...secretObjects, ...secretObjects] }), "contract-b")
        )
        assert.strictEqual(
          error.message,
          'Apply failed with 1 conflict: conflict with "contract-a": .spec.secretObjects'
        )
        // What is left empty is null, which the schema does not take: whoever applies the last entry cannot let go of it.
        yield* apply(path, body({ parameters: {} }), "contract-c")
        yield* apply(path, body({}), "contract-b")
        const last = yield* Effect.flip(apply(path, body({ provider: "fake", secretObjects }), "contract-a"))
        assert.deepStrictEqual(
          [last.status, last.message],
          [
            422,
            `SecretProviderClass.secrets-store.csi.x-k8s.io "${name}" is invalid: spec.parameters: Invalid value: "null": spec.parameters in body must be of type object: "null"`
          ]
        )
        const alpha = yield* Effect.flip(
          apply(path.replace("/v1/", "/v1alpha1/"), body({ provider: "fake" }), "contract-a")
        )
        assert.strictEqual(
          alpha.message,
          "invalid object type: secrets-store.csi.x-k8s.io/v1, Kind=SecretProviderClass"
        )
      })
    )

    it.effect("e.2: a Secret's type cannot be applied anew, nor what is immutable be changed (422)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const body = (more: object) => ({ metadata: { name }, data: { a: "MQ==" }, ...more })
        yield* apply(path, body({ type: "example.com/a", immutable: true }), "contract-a")
        const words = (faults: string) => `Secret "${name}" is invalid: ${faults}`
        for (const [more, faults] of [
          [{ type: "example.com/b", immutable: true }, 'type: Invalid value: "example.com/b": field is immutable'],
          [
            { type: "example.com/a", immutable: true, data: { a: "Mg==" } },
            "data: Forbidden: field is immutable when `immutable` is set"
          ],
          [
            { type: "example.com/a", immutable: false },
            "immutable: Forbidden: field is immutable when `immutable` is set"
          ]
        ] as const) {
          const error = yield* Effect.flip(apply(path, body(more), "contract-a"))
          assert.deepStrictEqual([error.status, error.reason, error.message], [422, "Invalid", words(faults)])
        }
        const label = yield* patch(path, { metadata: { labels: { a: "1" } } })
        assert.deepStrictEqual(label.metadata.labels, { a: "1" })
      })
    )

    it.effect("e.2: a Secret holds 1 MiB and not a byte more (422), a request 3 MiB (413)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const path = `${SECRETS}/${name}`
        const data = (bytes: number) => ({ a: Buffer.alloc(bytes).toString("base64") })
        yield* apply(path, { metadata: { name }, data: data(1024 * 1024) }, "contract-a")
        const larger = { metadata: { name }, data: data(1024 * 1024 + 1) }
        for (const error of [
          yield* Effect.flip(apply(path, larger, "contract-a")),
          yield* refused({ method: "PUT", path, body: larger })
        ]) {
          assert.deepStrictEqual(
            [error.status, error.message],
            [422, `Secret "${name}" is invalid: data: Too long: may not be more than 1048576 bytes`]
          )
        }
        const huge = yield* refused({ method: "PUT", path, body: { metadata: { name }, data: data(3 * 1024 * 1024) } })
        assert.deepStrictEqual(
          [huge.status, huge.reason, huge.message],
          [413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"]
        )
      })
    )

    it.effect("e.2: applied labels are looked at as others are (422)", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const error = yield* Effect.flip(
          apply(`${SECRETS}/${name}`, { metadata: { name, labels: { app: "v." } } }, "contract-a")
        )
        assert.deepStrictEqual(
          [error.status, error.message],
          [
            422,
            `Secret "${name}" is invalid: metadata.labels: Invalid value: "v.": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`
          ]
        )
      })
    )

    const why = typeof control === "string" ? ` (${control})` : ""
    const controlled = (
      title: string,
      test: (
        memory: MemoryKubernetes["Service"],
        api: KubernetesApi["Service"]
      ) => Effect.Effect<void, unknown, KubernetesApi | Scope.Scope>
    ) =>
      it.effect.skipIf(typeof control === "string")(`${title}${why}`, () =>
        Effect.gen(function* () {
          if (typeof control === "string") return
          yield* test(yield* control, yield* KubernetesApi)
        })
      )

    /** Waits until a watch of the resource is open. */
    const opened = (memory: MemoryKubernetes["Service"], resource: string) =>
      Effect.gen(function* () {
        while ((yield* memory.openWatches(resource)) === 0) yield* Effect.sleep(5)
      }).pipe(Effect.timeout("5 seconds"), Effect.orDie)

    controlled("a bookmark tells the newest version to those who asked for it", (memory, api) =>
      Effect.gen(function* () {
        const path = `${CORE}/configmaps`
        const name = uniqueName()
        const first = listed(yield* send({ method: "GET", path }))
        const query = { resourceVersion: first.metadata.resourceVersion, allowWatchBookmarks: true }
        const fiber = yield* Effect.forkChild(
          api.watch({ path, query }, IDLE_MILLIS).pipe(Stream.take(1), Stream.runCollect)
        )
        yield* opened(memory, "configmaps")
        const made = yield* create({ metadata: { name } })
        yield* memory.bookmark
        const [event] = yield* Fiber.join(fiber)
        assert.deepStrictEqual([event?.type, versionOf(event!)], ["BOOKMARK", Number(made.metadata.resourceVersion)])
      })
    )

    controlled("e.2: a version that is not kept any more is 410, as event and as status", (memory, api) =>
      Effect.gen(function* () {
        const name = uniqueName()
        const made = yield* create({ metadata: { name } })
        yield* send({ method: "DELETE", path: `${SECRETS}/${name}` })
        yield* memory.compact
        const watch = api.watch(
          { path: SECRETS, query: { resourceVersion: made.metadata.resourceVersion } },
          IDLE_MILLIS
        )
        const events = yield* Stream.runCollect(watch)
        assert.deepStrictEqual(
          events.map(({ object, type }) => {
            const { code, kind, reason } = object as { code: number; kind: string; reason: string }
            return [type, kind, code, reason]
          }),
          [["ERROR", "Status", 410, "Expired"]]
        )
        yield* memory.setExpiredAs("status")
        const error = yield* Effect.flip(Stream.runCollect(watch)).pipe(Effect.ensuring(memory.setExpiredAs("event")))
        assert.deepStrictEqual([error.status, error.reason, error.isGone], [410, "Expired", true])
        assert.match(error.message, /^too old resource version: \d+ \(\d+\)$/u)
      })
    )

    controlled("the next page of a list that is not kept any more is 410", (memory) =>
      Effect.gen(function* () {
        for (const _ of [1, 2, 3]) yield* create({ metadata: { name: uniqueName() } })
        const first = listed(yield* send({ method: "GET", path: SECRETS, query: { limit: 1 } }))
        yield* memory.compact
        const query = { limit: 1, continue: first.metadata.continue }
        const error = yield* refused({ method: "GET", path: SECRETS, query })
        assert.deepStrictEqual([error.status, error.reason, error.isGone], [410, "Expired", true])
      })
    )

    controlled("a watch that the server closes ends, and one whose connection breaks fails", (memory, api) =>
      Effect.gen(function* () {
        const path = `${CORE}/serviceaccounts`
        const watch = Stream.runCollect(api.watch({ path, query: {} }, IDLE_MILLIS))
        const closed = yield* Effect.forkChild(watch)
        yield* opened(memory, "serviceaccounts")
        assert.strictEqual(yield* memory.dropWatches("close"), 1)
        assert.deepStrictEqual(yield* Fiber.join(closed), [])
        const broken = yield* Effect.forkChild(Effect.flip(watch))
        yield* opened(memory, "serviceaccounts")
        assert.strictEqual(yield* memory.dropWatches("error"), 1)
        const error = yield* Fiber.join(broken)
        assert.deepStrictEqual([error.status, error.reason, error.isTransient], [0, "Network", true])
      })
    )

    controlled("leaving a watch closes it at the server", (memory, api) =>
      Effect.gen(function* () {
        const path = `${CORE}/serviceaccounts`
        const fiber = yield* Effect.forkChild(Stream.runDrain(api.watch({ path, query: {} }, IDLE_MILLIS)))
        yield* opened(memory, "serviceaccounts")
        yield* Fiber.interrupt(fiber)
        yield* Effect.gen(function* () {
          while ((yield* memory.openWatches()) > 0) yield* Effect.sleep(5)
        }).pipe(Effect.timeout("5 seconds"), Effect.orDie)
      })
    )

    controlled("an answer may be lost after the request took effect", (memory) =>
      Effect.gen(function* () {
        const name = uniqueName()
        const failure = { status: 0, reason: "Network" }
        yield* memory.failNext(({ method }) => method === "POST", failure, { applied: true })
        const error = yield* Effect.flip(create({ metadata: { name } }))
        // On a kept connection it is sent again, and finds itself.
        assert.include(["Network", "AlreadyExists"], error.reason)
        assert.strictEqual(stored(yield* send({ method: "GET", path: `${SECRETS}/${name}` })).metadata.name, name)
      })
    )

    controlled("a failure comes with the server's words, its code and how long to wait", (memory) =>
      Effect.gen(function* () {
        const failure = { status: 429, reason: "TooManyRequests", detail: "slow down", retryAfterSeconds: 7 }
        yield* memory.failNext(({ resource }) => resource === "secrets", failure, { applied: false })
        const error = yield* refused({ method: "GET", path: SECRETS })
        assert.deepStrictEqual(
          [error.status, error.reason, error.message, error.retryAfterSeconds, error.isTransient],
          [429, "TooManyRequests", "slow down", 7, true]
        )
      })
    )

    controlled("e: custom resources are one store under two versions, and ask for a version on PUT", () =>
      Effect.gen(function* () {
        const name = uniqueName()
        const body = (apiVersion: string) => ({
          apiVersion: `secrets-store.csi.x-k8s.io/${apiVersion}`,
          kind: "SecretProviderClass",
          metadata: { name },
          spec: { provider: "fake" }
        })
        const made = yield* create(body("v1"), CLASSES)
        assert.strictEqual(made.metadata["generation"], 1)
        const alpha = yield* send({ method: "GET", path: `${CLASSES.replace("/v1/", "/v1alpha1/")}/${name}` })
        assert.deepStrictEqual<unknown>(alpha, { ...made, apiVersion: "secrets-store.csi.x-k8s.io/v1alpha1" })
        const error = yield* refused({ method: "GET", path: `${CLASSES}/contract-missing` })
        assert.strictEqual(
          error.message,
          'secretproviderclasses.secrets-store.csi.x-k8s.io "contract-missing" not found'
        )
        const status = {
          apiVersion: "secrets-store.csi.x-k8s.io/v1",
          kind: "SecretProviderClassPodStatus",
          metadata: { name },
          status: { mounted: true }
        }
        yield* create(status, STATUSES)
        const put = yield* refused({ method: "PUT", path: `${STATUSES}/${name}`, body: status })
        assert.deepStrictEqual([put.status, put.reason], [422, "Invalid"])
        assert.include(put.message, "metadata.resourceVersion")
        const { kind: _, ...kindless } = body("v1")
        const missing = yield* refused({ method: "POST", path: CLASSES, body: kindless })
        assert.strictEqual(missing.status, 400)
      })
    )
  })
