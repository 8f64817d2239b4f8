import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKubernetes, layer as memoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { NOTHING_ASKED } from "../../schemas/ForceRefresh.ts"
import type { SecretProviderClassPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import * as PodStatus from "../../src/volume/PodStatus.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

const COLLECTION = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/ns/secretproviderclasspodstatuses"
const LABEL = "internal.secrets-store.csi.k8s.io/node-name"

const targetOf = (uid: string, volume = "v") => `/var/lib/kubelet/pods/${uid}/volumes/kubernetes.io~csi/${volume}/mount`

const volume = (
  change: Partial<PodStatus.PodStatusInput> & { readonly uid?: string; readonly podName?: string } = {}
) => {
  const { podName = "web", uid = "uid-1", ...rest } = change
  return {
    nodeId: "test-node",
    pod: { name: podName, namespace: "ns", uid, serviceAccountName: "default" },
    secretProviderClassName: "spc",
    targetPath: targetOf(uid),
    objectVersions: [
      { id: "b", version: "v1" },
      { id: "a", version: "v2" }
    ],
    ...rest
  }
}

const wanted = PodStatus.desired(volume())
const stored = (change: Partial<SecretProviderClassPodStatus> = {}): SecretProviderClassPodStatus => ({
  ...wanted,
  ...change,
  metadata: { ...wanted.metadata, resourceVersion: "7", uid: "object-uid", ...change.metadata }
})
const status = (change: NonNullable<SecretProviderClassPodStatus["status"]>) => ({
  status: { ...wanted.status, ...change }
})
const metadata = (change: Partial<SecretProviderClassPodStatus["metadata"]>) => ({ metadata: change })

describe("nameOf", () => {
  const long = "x".repeat(200)
  it.each([
    { row: "5.4", name: "pod, namespace, class", parts: ["web", "ns", "spc"], expected: "web-ns-spc" },
    { row: "D7", name: "web + x-y", parts: ["web", "x", "x-y"], expected: "web-x-x-y" },
    { row: "D7", name: "web-x + y has the same", parts: ["web-x", "x", "y"], expected: "web-x-x-y" },
    {
      row: "5.4",
      name: "253 characters fit",
      parts: [long, "ns", "y".repeat(49)],
      expected: `${long}-ns-${"y".repeat(49)}`
    }
  ])("$row $name", ({ parts: [pod, namespace, spc], expected }) =>
    assert.strictEqual(PodStatus.nameOf(pod!, namespace!, spc!), expected)
  )

  it("D7 beyond 253 characters names are shortened, and stay apart", () => {
    const names = ["y", "z"].map((end) => PodStatus.nameOf(long, "ns", `${"y".repeat(60)}${end}`))
    for (const name of names) {
      assert.isAtMost(name.length, 253)
      assert.match(name, /^x{200}-ns-y+-[0-9a-z]{13}$/u)
    }
    assert.notStrictEqual(names[0], names[1])
    assert.strictEqual(PodStatus.nameOf(long, "ns", `${"y".repeat(60)}y`), names[0])
  })

  it("D7 a shortened name is not cut after a dot or a dash", () => {
    const name = PodStatus.nameOf("x".repeat(238), "ns", `${"-.".repeat(20)}y`)
    assert.match(name, /^x{238}-[0-9a-z]{13}$/u)
  })
})

describe("suffixedName", () => {
  // The hash is FNV-1a of 64 bits: af63dc4c8601ec8c and 85944171f73967e8, in base 36.
  it.each([
    { name: "published vector: a", told: "a", expected: `n-${0xaf63dc4c8601ec8cn.toString(36)}` },
    { name: "published vector: foobar", told: "foobar", expected: `n-${0x85944171f73967e8n.toString(36)}` },
    { name: "published vector: nothing", told: "", expected: `n-${0xcbf29ce484222325n.toString(36)}` }
  ])("Q14 $name", ({ told, expected }) => assert.strictEqual(PodStatus.suffixedName("n", told), expected))

  it("Q14 two volumes of a pod with one class have two names, each at most 253 long", () => {
    const plain = PodStatus.nameOf("x".repeat(253), "ns", "spc")
    const names = ["one", "two"].map((name) => PodStatus.suffixedName(plain, targetOf("uid-1", name)))
    assert.notStrictEqual(names[0], names[1])
    for (const name of names) assert.isAtMost(name.length, 253)
  })
})

describe("nodeLabel", () => {
  it.each([
    { name: "as it is", nodeId: "ip-10-0-0-1.ec2.internal", expected: /^ip-10-0-0-1\.ec2\.internal$/u },
    { name: "63 characters fit", nodeId: "n".repeat(63), expected: /^n{63}$/u },
    { name: "64 are shortened", nodeId: "n".repeat(64), expected: /^n{49}-[0-9a-z]{13}$/u },
    { name: "not cut after a dot", nodeId: `${"n".repeat(48)}.${"m".repeat(40)}`, expected: /^n{48}-[0-9a-z]{13}$/u },
    { name: "none", nodeId: "", expected: /^$/u }
  ])("D7 $name", ({ nodeId, expected }) => {
    const label = PodStatus.nodeLabel(nodeId)
    assert.match(label, expected)
    assert.match(label, /^(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/u)
  })
})

describe("13.1 TestOrderSecretProviderClassObjectByID", () => {
  it.each([
    { name: "empty", ids: [], expected: [] },
    { name: "one", ids: ["a"], expected: ["a"] },
    { name: "two", ids: ["b", "a"], expected: ["a", "b"] },
    { name: "unsorted", ids: ["c", "a", "b"], expected: ["a", "b", "c"] },
    { name: "nested ids", ids: ["a/b", "a", "a-b", "a/a"], expected: ["a", "a-b", "a/a", "a/b"] },
    // In UTF-16 the second one would come first.
    {
      name: "by bytes, not by UTF-16",
      ids: ["\u{1f600}", "\uff5e", "é", "z"],
      expected: ["z", "é", "\uff5e", "\u{1f600}"]
    },
    { name: "upper case first", ids: ["a", "B"], expected: ["B", "a"] }
  ])("$name", ({ ids, expected }) => {
    const versions = ids.map((id) => ({ id, version: `v-${id}` }))
    const before = structuredClone(versions)
    assert.deepStrictEqual(
      PodStatus.orderById(versions),
      expected.map((id) => ({ id, version: `v-${id}` }))
    )
    assert.deepStrictEqual(versions, before)
  })
})

describe("desired", () => {
  it("wire.md e.1 the whole object", () =>
    assert.strictEqual(
      JSON.stringify(wanted),
      JSON.stringify({
        apiVersion: "secrets-store.csi.x-k8s.io/v1",
        kind: "SecretProviderClassPodStatus",
        metadata: {
          name: "web-ns-spc",
          namespace: "ns",
          labels: { [LABEL]: "test-node" },
          ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-1" }]
        },
        status: {
          podName: "web",
          secretProviderClassName: "spc",
          mounted: true,
          targetPath: targetOf("uid-1"),
          objects: [
            { id: "a", version: "v2" },
            { id: "b", version: "v1" }
          ]
        }
      })
    ))

  it("5.4 the node label", () => assert.strictEqual(PodStatus.NODE_LABEL, LABEL))

  it("5.3 empty fields are left out", () => {
    assert.deepStrictEqual(PodStatus.desired(volume({ objectVersions: [{ id: "a", version: "" }] })).status?.objects, [
      { id: "a" }
    ])
    assert.notProperty(PodStatus.desired(volume({ objectVersions: [] })).status, "objects")
  })
})

describe("decide", () => {
  const rows: ReadonlyArray<{
    readonly row: string
    readonly name: string
    readonly existing: SecretProviderClassPodStatus
    readonly expected: PodStatus.PodStatusDecision
  }> = [
    { row: "5.5", name: "what is wanted is there", existing: stored(), expected: { _tag: "Unchanged" } },
    {
      row: "5.5",
      name: "labels and annotations of others make no difference",
      existing: stored(metadata({ labels: { [LABEL]: "test-node", mine: "x" }, annotations: { a: "b" } })),
      expected: { _tag: "Unchanged" }
    },
    {
      row: "13.1",
      name: "TestCreateOrUpdateSecretProviderClassPodStatus: update, of an older pod and another node",
      existing: stored({
        ...status({ targetPath: targetOf("uid-0"), objects: [{ id: "a", version: "v0" }] }),
        ...metadata({
          labels: { [LABEL]: "old-node", mine: "x" },
          annotations: { a: "b" },
          ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-0" }]
        })
      }),
      expected: {
        _tag: "Update",
        object: stored(metadata({ labels: { [LABEL]: "test-node", mine: "x" }, annotations: { a: "b" } }))
      }
    },
    {
      row: "Q5",
      name: "no labels at all",
      existing: (({ labels: _, ...rest }) => ({ ...stored(), metadata: rest }))(stored().metadata),
      expected: { _tag: "Update", object: stored() }
    },
    {
      row: "5.5",
      name: "no status yet",
      existing: (({ status: _, ...rest }) => rest)(stored()),
      expected: { _tag: "Update", object: stored() }
    },
    {
      row: "5.5",
      name: "another version of an object",
      existing: stored(
        status({
          objects: [
            { id: "a", version: "v1" },
            { id: "b", version: "v1" }
          ]
        })
      ),
      expected: { _tag: "Update", object: stored() }
    },
    {
      row: "5.5",
      name: "one object more than wanted",
      existing: stored(status({ objects: [...(wanted.status?.objects ?? []), { id: "c", version: "v1" }] })),
      expected: { _tag: "Update", object: stored() }
    },
    {
      row: "5.5",
      name: "owners are replaced wholesale",
      existing: stored(
        metadata({
          ownerReferences: [
            { apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-1" },
            { apiVersion: "v1", kind: "Pod", name: "other", uid: "uid-9" }
          ]
        })
      ),
      expected: { _tag: "Update", object: stored() }
    },
    {
      row: "5.4",
      name: "the owner without its flags",
      existing: stored(
        metadata({ ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "web", uid: "uid-1", controller: true }] })
      ),
      expected: { _tag: "Update", object: stored() }
    },
    {
      row: "5.5",
      name: "not marked as mounted",
      existing: stored(status({ mounted: false })),
      expected: { _tag: "Update", object: stored() }
    },
    {
      row: "5.5",
      name: "fields that are not ours are kept",
      existing: { ...stored(status({ mounted: false })), extra: { kept: true } },
      expected: { _tag: "Update", object: { ...stored(), extra: { kept: true } } }
    },
    {
      row: "D7",
      name: "another pod",
      existing: stored(status({ podName: "web-ns" })),
      expected: { _tag: "OtherVolume" }
    },
    {
      row: "D7",
      name: "another class",
      existing: stored(status({ secretProviderClassName: "ns-spc" })),
      expected: { _tag: "OtherVolume" }
    },
    {
      row: "Q14",
      name: "another volume of the same pod",
      existing: stored(status({ targetPath: targetOf("uid-1", "other") })),
      expected: { _tag: "OtherVolume" }
    }
  ]
  it.each(rows)("$row $name", ({ existing, expected }) =>
    assert.deepStrictEqual(PodStatus.decide(existing, wanted), expected)
  )

  it("S10 deciding about what was decided changes nothing", () => {
    for (const { existing } of rows) {
      const decision = PodStatus.decide(existing, wanted)
      if (decision._tag === "Update") {
        assert.deepStrictEqual(PodStatus.decide(decision.object, wanted), { _tag: "Unchanged" })
      }
    }
  })
})

/** The collection of one namespace, with versions, as an API server keeps it. */
const apiServer = (...initial: ReadonlyArray<SecretProviderClassPodStatus>) => {
  const objects = new Map<string, SecretProviderClassPodStatus>()
  let version = 100
  const put = (object: SecretProviderClassPodStatus) => {
    const next = { ...object, metadata: { ...object.metadata, resourceVersion: String(++version) } }
    objects.set(object.metadata.name ?? "", next)
    return next
  }
  for (const object of initial) put(object)
  const api = new ScriptedApi(({ body, method, path }) =>
    Effect.suspend(() => {
      const sent = structuredClone(body) as SecretProviderClassPodStatus
      const name = method === "POST" ? sent.metadata.name! : path.slice(COLLECTION.length + 1)
      const existing = objects.get(name)
      if (method === "POST") {
        return existing === undefined ? Effect.succeed(put(sent)) : Effect.fail(failed(409, "AlreadyExists"))
      }
      if (existing === undefined) return Effect.fail(failed(404, "NotFound"))
      if (method === "GET") return Effect.succeed(existing)
      return sent.metadata.resourceVersion === existing.metadata.resourceVersion
        ? Effect.succeed(put(sent))
        : Effect.fail(failed(409, "Conflict"))
    })
  )
  const before = api.respond
  /** Runs something around the n-th request (from 0): before it, or instead of its answer. */
  const at = (n: number, disturb: (answer: ReturnType<typeof before>) => ReturnType<typeof before>) => {
    const inner = api.respond
    api.respond = (request, index) => (index === n ? disturb(inner(request, index)) : inner(request, index))
  }
  const verbs = () => api.requests.map(({ method, path }) => `${method} ${path.slice(COLLECTION.length + 1)}`.trim())
  const record = (input: PodStatus.PodStatusInput, knownName?: string) =>
    Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(PodStatus.record({ ...input, knownName }))
      yield* TestClock.adjust("1 minute")
      return yield* Fiber.join(fiber)
    }).pipe(Effect.provide(api.layer))
  const find = (input: PodStatus.PodStatusInput) => Effect.provide(PodStatus.find(input), api.layer)
  return { api, at, find, objects, put, record, verbs }
}

const NAME = "web-ns-spc"
const OWN = PodStatus.suffixedName(NAME, targetOf("uid-1"))

describe("record", () => {
  it.effect("13.1 TestCreateOrUpdateSecretProviderClassPodStatus: create is one write and no read", () =>
    Effect.gen(function* () {
      const server = apiServer()
      assert.deepStrictEqual(yield* server.record(volume()), { name: NAME, written: true })
      assert.deepStrictEqual(server.verbs(), ["POST"])
      assert.deepStrictEqual<unknown>(server.api.requests[0]?.body, wanted)
    })
  )

  it.effect("13.1 TestCreateOrUpdateSecretProviderClassPodStatus: update", () =>
    Effect.gen(function* () {
      const server = apiServer(PodStatus.desired(volume({ nodeId: "old-node", uid: "uid-0" })))
      assert.deepStrictEqual(yield* server.record(volume()), { name: NAME, written: true })
      assert.deepStrictEqual(server.verbs(), ["POST", `GET ${NAME}`, "GET", `PUT ${NAME}`])
      const { metadata, status } = server.objects.get(NAME)!
      assert.deepStrictEqual(metadata.labels, { [LABEL]: "test-node" })
      assert.deepStrictEqual<unknown>(metadata.ownerReferences, wanted.metadata.ownerReferences)
      assert.deepStrictEqual(status, wanted.status)
    })
  )

  it.effect("S10 what is known and right is read and not written", () =>
    Effect.gen(function* () {
      const server = apiServer(wanted)
      assert.deepStrictEqual(yield* server.record(volume(), NAME), { name: NAME, written: false })
      assert.deepStrictEqual(server.verbs(), [`GET ${NAME}`])
    })
  )

  it.effect("5.5 what is known and differs is written once", () =>
    Effect.gen(function* () {
      const server = apiServer(wanted)
      const input = volume({ objectVersions: [{ id: "a", version: "v3" }] })
      assert.deepStrictEqual(yield* server.record(input, NAME), { name: NAME, written: true })
      assert.deepStrictEqual(yield* server.record(input, NAME), { name: NAME, written: false })
      assert.deepStrictEqual(server.verbs(), [`GET ${NAME}`, `PUT ${NAME}`, `GET ${NAME}`])
    })
  )

  it.effect("5.5 what was known and is gone is made again", () =>
    Effect.gen(function* () {
      const server = apiServer()
      assert.deepStrictEqual(yield* server.record(volume(), NAME), { name: NAME, written: true })
      assert.deepStrictEqual(server.verbs(), [`GET ${NAME}`, "POST"])
    })
  )

  it.effect("5.5 it vanishes between POST and GET", () =>
    Effect.gen(function* () {
      const server = apiServer(wanted)
      server.at(1, (answer) =>
        Effect.andThen(
          Effect.sync(() => server.objects.delete(NAME)),
          answer
        )
      )
      assert.deepStrictEqual(yield* server.record(volume()), { name: NAME, written: true })
      assert.deepStrictEqual(server.verbs(), ["POST", `GET ${NAME}`, "POST"])
    })
  )

  it.effect("5.5 it vanishes between GET and PUT", () =>
    Effect.gen(function* () {
      const server = apiServer(stored(status({ mounted: false })))
      server.at(1, (answer) => Effect.tap(answer, () => Effect.sync(() => server.objects.delete(NAME))))
      assert.deepStrictEqual(yield* server.record(volume()), { name: NAME, written: true })
      assert.deepStrictEqual(server.verbs(), ["POST", `GET ${NAME}`, `PUT ${NAME}`, `GET ${NAME}`, "POST"])
    })
  )

  it.effect("D7 a conflict is decided again on what is there then", () =>
    Effect.gen(function* () {
      const server = apiServer(stored(status({ mounted: false })))
      // A foreign label comes in after our read: the first PUT is refused, the second one keeps it.
      server.at(1, (answer) =>
        Effect.tap(answer, () =>
          Effect.sync(() => {
            const { metadata, ...rest } = server.objects.get(NAME)!
            server.put({ ...rest, metadata: { ...metadata, labels: { ...metadata.labels, foreign: "yes" } } })
          })
        )
      )
      assert.deepStrictEqual(yield* server.record(volume()), { name: NAME, written: true })
      assert.deepStrictEqual(server.verbs(), ["POST", `GET ${NAME}`, `PUT ${NAME}`, `GET ${NAME}`, `PUT ${NAME}`])
      assert.deepStrictEqual(server.objects.get(NAME)?.metadata.labels, { [LABEL]: "test-node", foreign: "yes" })
    })
  )

  it.effect("e.2 five conflicts are enough", () =>
    Effect.gen(function* () {
      const server = apiServer(stored(status({ mounted: false })))
      const inner = server.api.respond
      server.api.respond = (request, index) =>
        request.method === "PUT" ? Effect.fail(failed(409, "Conflict")) : inner(request, index)
      const failure = yield* Effect.flip(server.record(volume(), NAME))
      assert.isTrue(failure.isConflict)
      assert.strictEqual(server.verbs().filter((verb) => verb.startsWith("PUT")).length, 5)
    })
  )

  it.effect("F3 1-4 the answer to the POST is lost: looking again finds it, and does not write", () =>
    Effect.gen(function* () {
      const server = apiServer()
      server.at(0, (answer) => Effect.andThen(answer, Effect.fail(failed(0, "Network"))))
      assert.deepStrictEqual(yield* server.record(volume()), { name: NAME, written: false })
      assert.deepStrictEqual(server.verbs(), ["POST", `GET ${NAME}`])
    })
  )

  it.effect("F3 1-4 the answer to the PUT is lost: looking again finds it, and does not write", () =>
    Effect.gen(function* () {
      const server = apiServer(stored(status({ mounted: false })))
      server.at(1, (answer) => Effect.andThen(answer, Effect.fail(failed(0, "Closed"))))
      assert.deepStrictEqual(yield* server.record(volume(), NAME), { name: NAME, written: false })
    })
  )

  it.effect.each([
    { row: "e.2", name: "forbidden", failure: failed(403, "Forbidden"), requests: 1 },
    { row: "5.5", name: "the resource does not exist", failure: failed(404, "NotFound"), requests: 1 },
    { row: "5.5", name: "refused as invalid", failure: failed(422, "Invalid"), requests: 1 },
    { row: "e.2", name: "no answer in time", failure: failed(0, "Timeout"), requests: 1 },
    { row: "e.2", name: "no connection, five times", failure: failed(0, "Network"), requests: 5 }
  ])("$row fails: $name", ({ failure, requests }) =>
    Effect.gen(function* () {
      const server = apiServer()
      server.api.respond = () => Effect.fail(failure)
      const result = yield* Effect.flip(server.record(volume()))
      assert.strictEqual(result.reason, failure.reason)
      assert.strictEqual(server.api.requests.length, requests)
    })
  )

  it.effect("D7 web + x-y and web-x + y in namespace x: each has its own, whoever comes first", () =>
    Effect.gen(function* () {
      const first = volume({ secretProviderClassName: "ns-y" })
      const second = volume({ podName: "web-ns", uid: "uid-2", secretProviderClassName: "y" })
      const server = apiServer()
      const one = yield* server.record(first)
      const two = yield* server.record(second)
      assert.strictEqual(one.name, "web-ns-ns-y")
      assert.strictEqual(two.name, PodStatus.suffixedName("web-ns-ns-y", second.targetPath))
      assert.strictEqual(server.objects.get(one.name)?.status?.podName, "web")
      assert.strictEqual(server.objects.get(two.name)?.status?.podName, "web-ns")
      // And so it stays, with or without the memory of it.
      assert.deepStrictEqual(yield* server.record(second, two.name), { name: two.name, written: false })
      assert.deepStrictEqual(yield* server.record(second), { name: two.name, written: false })
      assert.deepStrictEqual(yield* server.record(first), { name: one.name, written: false })
      assert.strictEqual(server.objects.size, 2)
    })
  )

  it.effect("Q14 the same class twice in a pod", () =>
    Effect.gen(function* () {
      const server = apiServer()
      const names: Array<string> = []
      for (const targetPath of [targetOf("uid-1", "one"), targetOf("uid-1", "two"), targetOf("uid-1", "one")]) {
        names.push((yield* server.record(volume({ targetPath }))).name)
      }
      assert.deepStrictEqual(names, [NAME, PodStatus.suffixedName(NAME, targetOf("uid-1", "two")), NAME])
      assert.strictEqual(server.objects.size, 2)
    })
  )

  it.effect("5.5 an older volume does not take back what a newer pod of its name took over", () =>
    Effect.gen(function* () {
      const server = apiServer()
      const older = volume({ uid: "uid-0" })
      const { name } = yield* server.record(older)
      yield* server.record(volume())
      const again = yield* server.record(older, name)
      assert.strictEqual(again.name, PodStatus.suffixedName(NAME, older.targetPath))
      assert.strictEqual(server.objects.get(NAME)?.status?.targetPath, targetOf("uid-1"))
    })
  )

  it.effect.each([
    { name: "the pod of the name is the newer one", living: "uid-1", taken: false },
    { name: "the pod of the name is this one", living: "uid-0", taken: true },
    { name: "there is no pod of the name", living: undefined, taken: true }
  ])("5.5 an older pod's volume that is recorded for the first time: $name", ({ living, taken }) =>
    Effect.gen(function* () {
      const server = apiServer()
      const respond = server.api.respond
      server.api.respond = (request, index) => {
        if (!request.path.includes("/pods/")) return respond(request, index)
        const pod = { apiVersion: "v1", kind: "Pod", metadata: { name: "web", namespace: "ns", uid: living } }
        return living === undefined ? Effect.fail(failed(404, "NotFound")) : Effect.succeed(pod)
      }
      yield* server.record(volume())
      const older = volume({ uid: "uid-0" })
      const { name } = yield* server.record(older)
      assert.strictEqual(name, taken ? NAME : PodStatus.suffixedName(NAME, older.targetPath))
      assert.strictEqual(server.objects.get(NAME)?.status?.targetPath, targetOf(taken ? "uid-0" : "uid-1"))
    })
  )

  it.effect("D7 both names belong to others", () =>
    Effect.gen(function* () {
      const others = [NAME, OWN].map((name) => stored({ ...status({ podName: "other" }), ...metadata({ name }) }))
      const failure = yield* Effect.flip(apiServer(...others).record(volume()))
      assert.isTrue(failure.isAlreadyExists)
      assert.include(failure.message, "belongs to another volume")
    })
  )
})

describe("find", () => {
  const objectVersions = [
    { id: "a", version: "v2" },
    { id: "b", version: "v1" }
  ]
  it.effect.each([
    { name: "nothing", existing: [], expected: undefined },
    { name: "by its name", existing: [wanted], expected: { name: NAME, objectVersions } },
    {
      name: "by the name of its own, beside another volume's",
      existing: [stored(status({ targetPath: targetOf("uid-1", "other") })), PodStatus.desired(volume(), OWN)],
      expected: { name: OWN, objectVersions }
    },
    {
      name: "by the name of its own, alone",
      existing: [PodStatus.desired(volume(), OWN)],
      expected: { name: OWN, objectVersions }
    },
    { name: "not that of an older pod", existing: [PodStatus.desired(volume({ uid: "uid-0" }))], expected: undefined },
    {
      name: "not one of this pod with another target path",
      existing: [stored(status({ targetPath: targetOf("uid-1", "other") }))],
      expected: undefined
    },
    {
      name: "not one of this target path with another owner",
      existing: [stored(metadata({ ownerReferences: [] }))],
      expected: undefined
    },
    {
      name: "a version that was left out",
      existing: [stored(status({ objects: [{ id: "a" }] }))],
      expected: { name: NAME, objectVersions: [{ id: "a", version: "" }] }
    }
  ])("Q14 $name", ({ existing, expected }) =>
    Effect.gen(function* () {
      const server = apiServer(...existing)
      const found = yield* server.find(volume())
      assert.deepStrictEqual(found, expected === undefined ? undefined : { ...expected, honoured: NOTHING_ASKED })
      assert.isTrue(server.verbs().every((verb) => verb.startsWith("GET ")))
    })
  )

  it.effect("a failure is not nothing", () =>
    Effect.gen(function* () {
      const server = apiServer()
      server.api.respond = () => Effect.fail(failed(403, "Forbidden"))
      assert.strictEqual((yield* Effect.flip(server.find(volume()))).status, 403)
    })
  )
})

describe("what was asked for and has been done", () => {
  const asked = { pod: "now", secretProviderClass: "2026-11-25" }

  it.effect("is recorded, found again, replaced and taken away; annotations of others stay", () =>
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const { name } = yield* PodStatus.record({ ...volume(), honoured: asked, knownName: undefined })
      yield* api.request({
        method: "PATCH",
        path: `${Resource.pathOf(Resource.podStatuses, volume().pod.namespace)}/${name}`,
        contentType: "application/merge-patch+json",
        body: { metadata: { annotations: { "others/own": "kept" } } }
      })
      const honoured = Effect.map(PodStatus.find(volume()), (found) => found?.honoured)
      assert.deepStrictEqual(yield* honoured, asked)
      const again = { ...volume(), honoured: { ...asked, pod: "again" }, knownName: name }
      assert.isTrue((yield* PodStatus.record(again)).written)
      assert.isFalse((yield* PodStatus.record(again)).written)
      assert.deepStrictEqual(yield* honoured, { ...asked, pod: "again" })
      yield* PodStatus.record({ ...volume(), honoured: NOTHING_ASKED, knownName: name })
      assert.deepStrictEqual(yield* honoured, NOTHING_ASKED)
      const server = yield* MemoryKubernetes
      const [object] = yield* server.all("secretproviderclasspodstatuses")
      assert.deepNestedInclude(object, { "metadata.annotations": { "others/own": "kept" } })
    }).pipe(Effect.provide(memoryKubernetes))
  )
})

describe("on an API server in memory", () => {
  it.effect.each([
    { name: "short names", change: {} },
    {
      name: "a name beyond 253 characters",
      change: { secretProviderClassName: `${"s".repeat(200)}.${"c".repeat(52)}` }
    },
    { name: "a node id beyond 63 characters", change: { nodeId: `ip-10-0-0-1.${"subdomain.".repeat(8)}internal` } },
    { name: "no objects", change: { objectVersions: [] } }
  ])("D7 it accepts what is written, created and updated: $name", ({ change }) =>
    Effect.gen(function* () {
      const server = yield* MemoryKubernetes
      const input = volume(change)
      const { name } = yield* PodStatus.record({ ...input, knownName: undefined })
      const next = { ...input, objectVersions: [{ id: "é", version: "v9" }] }
      assert.deepStrictEqual(yield* PodStatus.record({ ...next, knownName: name }), { name, written: true })
      assert.deepStrictEqual(yield* PodStatus.record({ ...next, knownName: name }), { name, written: false })
      assert.deepStrictEqual(yield* PodStatus.find(input), {
        name,
        objectVersions: next.objectVersions,
        honoured: NOTHING_ASKED
      })
      assert.strictEqual(yield* server.requestCount({ method: "POST" }), 1)
      assert.strictEqual(yield* server.requestCount({ method: "PUT" }), 1)
      assert.strictEqual((yield* server.all("secretproviderclasspodstatuses")).length, 1)
    }).pipe(Effect.provide(memoryKubernetes))
  )
})
