import { assert, describe, it } from "@effect/vitest"
import { Redacted } from "effect"
import type { Secret } from "../../schemas/Core.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import type { SecretData } from "../../src/sync/SecretData.ts"
import * as SecretPlan from "../../src/sync/SecretPlan.ts"

const MANAGED = "secrets-store.csi.k8s.io/managed"
const { className, classVersion, fetched, fetchedFor, unused } = SecretPlan.KEYS
const bytes = (text: string) => Redacted.make(new TextEncoder().encode(text))
const base64 = (text: string) => Buffer.from(text).toString("base64")
const owner = (uid: string): OwnerReference => ({ apiVersion: "apps/v1", kind: "ReplicaSet", name: "web", uid })

const version = SecretPlan.classVersionOf("2026-01-01T00:00:00Z", 3)
const MINUTE_0 = "2026-01-01T12:00:00.000Z"
const MINUTE_1 = "2026-01-01T12:01:00.000Z"
const MINUTE_2 = "2026-01-01T12:02:00.000Z"

const secret: SecretData = {
  name: "synced",
  type: "Opaque",
  labels: { environment: "test", [MANAGED]: "true" },
  annotations: { "an/annotation": "yes" },
  data: new Map([["username", bytes("alice")]])
}
const wanted: SecretPlan.Wanted = {
  namespace: "default",
  secret,
  owners: [owner("uid-1")],
  className: "spc",
  classVersion: version,
  fetched: MINUTE_1,
  fetchedFor: "uid-of-pod",
  trusts: true,
  isMisdated: false,
  adopts: false,
  yields: false
}
const stamps = { [className]: "spc", [classVersion]: version, [fetched]: MINUTE_1, [fetchedFor]: "uid-of-pod" }
const live: Secret = {
  apiVersion: "v1",
  kind: "Secret",
  metadata: {
    name: "synced",
    namespace: "default",
    uid: "uid-of-secret",
    resourceVersion: "7",
    labels: secret.labels,
    annotations: { ...secret.annotations, ...stamps },
    ownerReferences: [owner("uid-1")]
  },
  type: "Opaque",
  data: { username: Redacted.make(base64("alice")) }
}
const liveWith = (metadata: Partial<Secret["metadata"]>, rest: Partial<Secret> = {}): Secret => ({
  ...live,
  ...rest,
  metadata: { ...live.metadata, ...metadata }
})
const wantedWith = (part: Partial<SecretData>, rest: Partial<SecretPlan.Wanted> = {}): SecretPlan.Wanted => ({
  ...wanted,
  ...rest,
  secret: { ...secret, ...part }
})
const dataOf = (data: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(data).map(([key, text]) => [key, Redacted.make(base64(text))]))
const managedBy = (manager: string, part: "f:labels" | "f:annotations", ...keys: ReadonlyArray<string>) => ({
  manager,
  operation: "Update",
  fieldsType: "FieldsV1",
  fieldsV1: { "f:metadata": { [part]: { ".": {}, ...Object.fromEntries(keys.map((key) => [`f:${key}`, {}])) } } }
})

const patch = (
  changes: ReadonlyArray<string>,
  metadata: Readonly<Record<string, unknown>>,
  data?: Readonly<Record<string, string | null>>
) => ({
  _tag: "Patch",
  changes,
  patch: { metadata: { ...metadata, resourceVersion: "7" }, ...(data === undefined ? {} : { data }) }
})
const unchanged = { _tag: "Unchanged" }
const terminating = { _tag: "Terminating" }

interface Row {
  readonly row: string
  readonly name: string
  readonly live?: Secret | undefined
  readonly wanted?: SecretPlan.Wanted
  readonly expected: unknown
}

const created = {
  apiVersion: "v1",
  kind: "Secret",
  metadata: {
    name: "synced",
    namespace: "default",
    labels: { environment: "test", [MANAGED]: "true" },
    annotations: { "an/annotation": "yes", ...stamps },
    ownerReferences: [owner("uid-1")]
  },
  type: "Opaque",
  data: { username: base64("alice") }
}

const create: ReadonlyArray<Row> = [
  {
    row: "6.4, 13.1 TestCreateOrUpdateK8sSecret",
    name: "there is none: all of it",
    live: undefined,
    expected: { _tag: "Create", object: created }
  },
  {
    row: "6.7",
    name: "there is none: owners are in it, once each",
    live: undefined,
    wanted: { ...wanted, owners: [owner("uid-1"), owner("uid-2"), owner("uid-1")] },
    expected: {
      _tag: "Create",
      object: { ...created, metadata: { ...created.metadata, ownerReferences: [owner("uid-1"), owner("uid-2")] } }
    }
  },
  {
    row: "6.4",
    name: "it is being deleted: it goes first",
    live: liveWith({ deletionTimestamp: MINUTE_1 }, { data: dataOf({ username: "bob" }) }),
    expected: terminating
  }
]

const same: ReadonlyArray<Row> = [
  { row: "Q1", name: "as it should be: nothing", live, expected: unchanged },
  {
    row: "Q1",
    name: "fetched later: no reason to write",
    live,
    wanted: { ...wanted, fetched: MINUTE_2 },
    expected: unchanged
  },
  {
    row: "Q1",
    name: "a newer class that asks for the same: no reason to write",
    live,
    wanted: { ...wanted, classVersion: SecretPlan.classVersionOf("2026-01-01T00:00:00Z", 4) },
    expected: unchanged
  },
  {
    row: "Q1, S7",
    name: "labels, annotations, owners, finalizers and fields of others: nothing",
    live: liveWith({
      labels: { ...secret.labels, "their/label": "1" },
      annotations: { ...live.metadata.annotations, "their/annotation": "1" },
      ownerReferences: [owner("theirs"), owner("uid-1")],
      finalizers: ["their/finalizer"]
    }),
    expected: unchanged
  },
  {
    row: "Q1",
    name: "no owners wanted, and the annotations of kubectl: nothing",
    live: liveWith({
      managedFields: [managedBy("kubectl", "f:labels", "environment"), "odd", { manager: SecretPlan.FIELD_MANAGER }]
    }),
    wanted: { ...wanted, owners: [] },
    expected: unchanged
  },
  {
    row: "6.4",
    name: "an immutable one that is as it should be: nothing",
    live: liveWith({}, { immutable: true }),
    expected: unchanged
  },
  {
    row: "6.4",
    name: "without a type it is Opaque",
    live: { metadata: live.metadata, data: live.data ?? {} },
    expected: unchanged
  }
]

const data: ReadonlyArray<Row> = [
  {
    row: "6.4",
    name: "another value: the key, and the stamps of now",
    live,
    wanted: wantedWith({ data: new Map([["username", bytes("bob")]]) }, { fetched: MINUTE_2 }),
    expected: patch(["data"], { annotations: { ...stamps, [fetched]: MINUTE_2 } }, { username: base64("bob") })
  },
  {
    row: "6.4, Q36",
    name: "a key more and a key less",
    live,
    wanted: wantedWith({ data: new Map([["password", bytes("x")]]) }),
    expected: patch(["data"], { annotations: stamps }, { password: base64("x"), username: null })
  },
  {
    row: "6.4",
    name: "none of its data is there",
    live: { metadata: live.metadata, type: "Opaque" },
    expected: patch(["data"], { annotations: stamps }, { username: base64("alice") })
  },
  {
    row: "6.4",
    name: "an empty value is a value",
    live,
    wanted: wantedWith({ data: new Map([["username", bytes("")]]) }),
    expected: patch(["data"], { annotations: stamps }, { username: "" })
  },
  {
    row: "6.4",
    name: "a key that others have added goes",
    live: liveWith({}, { data: dataOf({ username: "alice", theirs: "x" }) }),
    expected: patch(["data"], { annotations: stamps }, { theirs: null })
  }
]

const metadata: ReadonlyArray<Row> = [
  {
    row: "6.3 #10d, 13.1 TestCreateOrUpdateK8sSecret",
    name: "a label is missing, and one differs",
    live: liveWith({ labels: { environment: "changed", [MANAGED]: "true" } }),
    wanted: wantedWith({ labels: { ...secret.labels, more: "1" } }),
    expected: patch(["labels"], { labels: { environment: "test", more: "1" }, annotations: stamps })
  },
  {
    row: "Q36",
    name: "a label of ours that is not asked for any more goes",
    live: liveWith({
      labels: { ...secret.labels, old: "1", theirs: "1" },
      managedFields: [
        managedBy(SecretPlan.FIELD_MANAGER, "f:labels", "old", "environment", MANAGED, "gone"),
        managedBy("kubectl", "f:labels", "theirs")
      ]
    }),
    expected: patch(["labels"], { labels: { old: null }, annotations: stamps })
  },
  {
    row: "Q36",
    name: "so does one that upstream's driver wrote",
    live: liveWith({
      labels: { ...secret.labels, old: "1" },
      managedFields: [managedBy("secrets-store-csi", "f:labels", "old")]
    }),
    expected: patch(["labels"], { labels: { old: null }, annotations: stamps })
  },
  {
    row: "Q36",
    name: "an annotation of ours that is not asked for any more goes; stamps stay",
    live: liveWith({
      annotations: { ...live.metadata.annotations, old: "1", theirs: "1" },
      managedFields: [managedBy(SecretPlan.FIELD_MANAGER, "f:annotations", "old", className, classVersion, fetched)]
    }),
    expected: patch(["annotations"], { annotations: { ...stamps, old: null } })
  },
  {
    row: "6.3 #10d",
    name: "an annotation is missing, and one differs",
    live: liveWith({ annotations: { ...stamps, "an/annotation": "no" } }),
    wanted: wantedWith({ annotations: { "an/annotation": "yes", more: "1" } }),
    expected: patch(["annotations"], { annotations: { ...stamps, "an/annotation": "yes", more: "1" } })
  },
  {
    row: "6.7",
    name: "an owner is missing: all of them, and no stamps",
    live: liveWith({ ownerReferences: [{ ...owner("theirs"), controller: true }] }),
    expected: patch(["owners"], { ownerReferences: [{ ...owner("theirs"), controller: true }, owner("uid-1")] })
  },
  {
    row: "Q11",
    name: "the owner was made anew under its name",
    live: liveWith({ ownerReferences: [owner("old")] }),
    expected: patch(["owners"], { ownerReferences: [owner("old"), owner("uid-1")] })
  },
  {
    row: "13.1 TestPatchSecretWithOwnerRef",
    name: "the same owner again: nothing",
    live,
    wanted: { ...wanted, owners: [owner("uid-1"), owner("uid-1")] },
    expected: unchanged
  },
  {
    row: "S9",
    name: "marked as unused: the mark goes, and no more is written",
    live: liveWith({ annotations: { ...live.metadata.annotations, [unused]: MINUTE_1 } }),
    expected: patch(["mark"], { annotations: { [unused]: null } })
  },
  {
    row: "S9",
    name: "marked, of an older content and without the owner: all in one write",
    live: liveWith({ annotations: { ...live.metadata.annotations, [unused]: MINUTE_1 }, ownerReferences: [] }),
    wanted: wantedWith({ data: new Map([["username", bytes("bob")]]) }),
    expected: patch(
      ["owners", "mark", "data"],
      { ownerReferences: [owner("uid-1")], annotations: { [unused]: null, ...stamps } },
      { username: base64("bob") }
    )
  }
]

const bob = new Map([["username", bytes("bob")]])
const classAt = (generation: number, creation = "2026-01-01T00:00:00Z") =>
  SecretPlan.classVersionOf(creation, generation)

/** Who knows more: what is wanted differs in its data, and would be written by the one who knows most. */
const knows: ReadonlyArray<Row> = [
  {
    row: "S8",
    name: "of an older class than the Secret: left to the one who knows more",
    live,
    wanted: wantedWith({ data: bob }, { classVersion: classAt(2), fetched: MINUTE_2 }),
    expected: unchanged
  },
  {
    row: "S8",
    name: "generations are numbers: 3 is before 10",
    live,
    wanted: wantedWith({ data: bob }, { classVersion: classAt(10), fetched: MINUTE_0 }),
    expected: patch(
      ["data"],
      { annotations: { ...stamps, [classVersion]: classAt(10), [fetched]: MINUTE_0 } },
      { username: base64("bob") }
    )
  },
  {
    row: "S8",
    name: "a class that was made anew is newer, though its generation is lower",
    live,
    wanted: wantedWith({ data: bob }, { classVersion: classAt(1, "2026-01-02T00:00:00Z") }),
    expected: patch(
      ["data"],
      { annotations: { ...stamps, [classVersion]: classAt(1, "2026-01-02T00:00:00Z") } },
      { username: base64("bob") }
    )
  },
  {
    row: "S8",
    name: "of the same class, fetched earlier: left to the one who asked later",
    live,
    wanted: wantedWith({ data: bob }, { fetched: MINUTE_0 }),
    expected: unchanged
  },
  {
    row: "S8",
    name: "of the same class, fetched at the same time: written",
    live,
    wanted: wantedWith({ data: bob }),
    expected: patch(["data"], { annotations: stamps }, { username: base64("bob") })
  },
  {
    row: "S9",
    name: "who knows less still adds its owners and takes the mark away",
    live: liveWith({ annotations: { ...live.metadata.annotations, [unused]: MINUTE_1 } }),
    wanted: wantedWith(
      { data: bob, labels: { [MANAGED]: "true", other: "1" } },
      { fetched: MINUTE_0, owners: [owner("uid-2")] }
    ),
    expected: patch(["owners", "mark"], {
      ownerReferences: [owner("uid-1"), owner("uid-2")],
      annotations: { [unused]: null }
    })
  },
  {
    row: "6.4",
    name: "who knows less has no say about the type either",
    live,
    wanted: wantedWith({ type: "kubernetes.io/basic-auth" }, { fetched: MINUTE_0 }),
    expected: unchanged
  },
  {
    row: "Q2",
    name: "another class asks for it: only the stamps differ, and it is this class's from now on",
    live,
    wanted: { ...wanted, className: "second", classVersion: classAt(1), fetched: MINUTE_0 },
    expected: patch(["annotations"], {
      annotations: {
        [className]: "second",
        [classVersion]: classAt(1),
        [fetched]: MINUTE_0,
        [fetchedFor]: "uid-of-pod"
      }
    })
  },
  {
    row: "Q1",
    name: "left by upstream's driver, without stamps and owners: it becomes ours",
    live: liveWith({ annotations: { "an/annotation": "yes" }, ownerReferences: [] }),
    expected: patch(["owners", "annotations"], { ownerReferences: [owner("uid-1")], annotations: stamps })
  },
  {
    row: "Q1",
    name: "left by upstream's driver with other labels: labels and stamps, and annotations are named once",
    live: liveWith({ labels: { [MANAGED]: "true" }, annotations: {} }),
    expected: patch(["labels", "annotations"], {
      labels: { environment: "test" },
      annotations: { "an/annotation": "yes", ...stamps }
    })
  },
  {
    row: "S8",
    name: "a class name without version and time knows nothing",
    live: liveWith({ annotations: { "an/annotation": "yes", [className]: "spc" } }),
    wanted: wantedWith({ data: bob }),
    expected: patch(["data"], { annotations: stamps }, { username: base64("bob") })
  }
]

const foreign = liveWith({ labels: { theirs: "1" }, annotations: {}, ownerReferences: [] })
const adopts: ReadonlyArray<Row> = [
  { row: "Q2, S7", name: "without our label", live: foreign, expected: { _tag: "Foreign" } },
  {
    row: "Q2, S7",
    name: "with our label at another value",
    live: liveWith({ labels: { [MANAGED]: "false" } }),
    expected: { _tag: "Foreign" }
  },
  { row: "Q2, S7", name: "without labels", live: { metadata: { name: "synced" } }, expected: { _tag: "Foreign" } },
  {
    row: "Q2, 13.1 TestCreateOrUpdateK8sSecret",
    name: "existing without our label, and to be taken over",
    live: foreign,
    wanted: { ...wanted, adopts: true },
    expected: patch(["owners", "labels", "annotations"], {
      ownerReferences: [owner("uid-1")],
      labels: secret.labels,
      annotations: { "an/annotation": "yes", ...stamps }
    })
  },
  {
    row: "Q2",
    name: "one that is being deleted is not told about",
    live: { ...foreign, metadata: { ...foreign.metadata, deletionTimestamp: MINUTE_1 } },
    expected: terminating
  }
]

const blocked: ReadonlyArray<Row> = [
  {
    row: "6.4",
    name: "another type",
    live,
    wanted: wantedWith({ type: "kubernetes.io/tls" }),
    expected: {
      _tag: "Blocked",
      why: "it is of type Opaque, and a type cannot be changed",
      remedy: "delete Secret default/synced, and it is made anew with type kubernetes.io/tls"
    }
  },
  {
    row: "6.4",
    name: "immutable, and its data would change",
    live: liveWith({}, { immutable: true }),
    wanted: wantedWith({ data: bob }),
    expected: {
      _tag: "Blocked",
      why: "it is immutable",
      remedy: "delete Secret default/synced, and it is made anew"
    }
  },
  {
    row: "S9",
    name: "immutable, with a new user: that is among its owners, so that it stays",
    live: liveWith(
      { ownerReferences: [owner("uid-0")], annotations: { ...secret.annotations, ...stamps, [unused]: MINUTE_1 } },
      { immutable: true }
    ),
    wanted: wantedWith({ data: bob }),
    expected: {
      _tag: "Blocked",
      why: "it is immutable",
      remedy: "delete Secret default/synced, and it is made anew",
      patch: {
        metadata: {
          ownerReferences: [owner("uid-0"), owner("uid-1")],
          annotations: { [unused]: null },
          resourceVersion: "7"
        }
      }
    }
  },
  {
    row: "S9",
    name: "another type, with a new user",
    live: liveWith({ ownerReferences: [owner("uid-0")] }),
    wanted: wantedWith({ type: "kubernetes.io/tls" }),
    expected: {
      _tag: "Blocked",
      why: "it is of type Opaque, and a type cannot be changed",
      remedy: "delete Secret default/synced, and it is made anew with type kubernetes.io/tls",
      patch: { metadata: { ownerReferences: [owner("uid-0"), owner("uid-1")], resourceVersion: "7" } }
    }
  },
  {
    row: "6.4",
    name: "immutable, and only its labels change",
    live: liveWith({ labels: { [MANAGED]: "true" } }, { immutable: true }),
    expected: patch(["labels"], { labels: { environment: "test" }, annotations: stamps })
  }
]

const tables = { create, same, data, metadata, knows, adopts, blocked }
const rows: ReadonlyArray<Row> = Object.values(tables).flat()

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

describe("what becomes of one Secret (6.4)", () => {
  it.each(create)("nothing there, or about to be ($row): $name", (row) =>
    assert.deepStrictEqual<unknown>(SecretPlan.decide(row.live, row.wanted ?? wanted), row.expected)
  )
  it.each(same)("no difference ($row): $name", (row) =>
    assert.deepStrictEqual<unknown>(SecretPlan.decide(row.live, row.wanted ?? wanted), row.expected)
  )
  it.each(data)("data ($row): $name", (row) =>
    assert.deepStrictEqual<unknown>(SecretPlan.decide(row.live, row.wanted ?? wanted), row.expected)
  )
  it.each(metadata)("metadata ($row): $name", (row) =>
    assert.deepStrictEqual<unknown>(SecretPlan.decide(row.live, row.wanted ?? wanted), row.expected)
  )
  it.each(knows)("who knows more ($row): $name", (row) =>
    assert.deepStrictEqual<unknown>(SecretPlan.decide(row.live, row.wanted ?? wanted), row.expected)
  )
  it.each(adopts)("a Secret of others ($row): $name", (row) =>
    assert.deepStrictEqual<unknown>(SecretPlan.decide(row.live, row.wanted ?? wanted), row.expected)
  )
  it.each(blocked)("what cannot be changed ($row): $name", (row) =>
    assert.deepStrictEqual<unknown>(SecretPlan.decide(row.live, row.wanted ?? wanted), row.expected)
  )
})

describe("versions and marks", () => {
  it("classes compare as text: by creation, then by generation", () => {
    const versions = [classAt(1), classAt(2), classAt(10), classAt(999_999), classAt(1, "2026-01-01T00:00:01Z")]
    assert.deepStrictEqual([...versions].sort(), versions)
    assert.strictEqual(classAt(3), "2026-01-01T00:00:00Z/000000000003")
  })

  it("S9 the mark is of the version that was looked at", () =>
    assert.deepStrictEqual(SecretPlan.markUnused(live, MINUTE_2), {
      metadata: { resourceVersion: "7", annotations: { [unused]: MINUTE_2 } }
    }))

  it.each([
    { labels: { [MANAGED]: "true" }, expected: true },
    { labels: { [MANAGED]: "false" }, expected: false },
    { labels: { other: "true" }, expected: false }
  ])("6.2 ours: $labels $expected", ({ expected, labels }) =>
    assert.strictEqual(SecretPlan.isOurs({ metadata: { labels } }), expected)
  )
})

describe("a mistake is found by these rows", () => {
  type Decide = typeof SecretPlan.decide
  const withoutStamps = (found: Secret | undefined): Secret | undefined => {
    if (found === undefined) return undefined
    const { [classVersion]: _, [fetched]: __, [fetchedFor]: ___, ...annotations } = found.metadata.annotations ?? {}
    return { ...found, metadata: { ...found.metadata, annotations } }
  }
  const mistakes: ReadonlyArray<{ readonly what: string; readonly decide: Decide; readonly by: string }> = [
    {
      what: "whoever comes last writes",
      decide: (found, it) => SecretPlan.decide(withoutStamps(found), it),
      by: "of an older class than the Secret: left to the one who knows more"
    },
    {
      what: "owners are told apart by name",
      decide: (found, it) => {
        const names = new Set(found?.metadata.ownerReferences?.map(({ name }) => name))
        return SecretPlan.decide(found, { ...it, owners: it.owners.filter(({ name }) => !names.has(name)) })
      },
      by: "the owner was made anew under its name"
    },
    {
      what: "it is written again and again",
      decide: (found, it) => {
        const decision = SecretPlan.decide(found, it)
        return decision._tag === "Unchanged" ? { _tag: "Patch", patch: { metadata: {} }, changes: ["data"] } : decision
      },
      by: "as it should be: nothing"
    },
    {
      what: "any Secret is taken over",
      decide: (found, it) => SecretPlan.decide(found, { ...it, adopts: true }),
      by: "without our label"
    },
    {
      what: "the mark is not seen",
      decide: (found, it) => {
        if (found === undefined) return SecretPlan.decide(found, it)
        const { [unused]: _, ...annotations } = found.metadata.annotations ?? {}
        return SecretPlan.decide({ ...found, metadata: { ...found.metadata, annotations } }, it)
      },
      by: "marked as unused: the mark goes, and no more is written"
    },
    {
      what: "a patch of whatever version is there",
      decide: (found, it) => {
        const unversioned = found && { ...found, metadata: { ...found.metadata, resourceVersion: "" } }
        return SecretPlan.decide(unversioned, it)
      },
      by: "another value: the key, and the stamps of now"
    },
    {
      what: "what was ours stays for ever",
      decide: (found, it) => {
        const unmanaged = found && { ...found, metadata: { ...found.metadata, managedFields: [] } }
        return SecretPlan.decide(unmanaged, it)
      },
      by: "a label of ours that is not asked for any more goes"
    }
  ]
  it.each(mistakes)("$what", ({ by, decide }) => {
    const failing = rows.filter(
      (row) =>
        JSON.stringify(plain(decide(row.live, row.wanted ?? wanted))) !==
        JSON.stringify(plain(SecretPlan.decide(row.live, row.wanted ?? wanted)))
    )
    assert.include(
      failing.map(({ name }) => name),
      by
    )
  })
})

describe("two classes ask for one Secret", () => {
  const of = (className: string, version: string): Secret => ({
    ...live,
    metadata: {
      ...live.metadata,
      annotations: {
        ...live.metadata.annotations,
        [SecretPlan.KEYS.className]: className,
        [SecretPlan.KEYS.classVersion]: version
      }
    }
  })
  it.each([
    { name: "none yet", live: undefined, expected: undefined },
    { name: "its own", live: of("spc", "9"), expected: undefined },
    { name: "another, created later", live: of("other", "9"), expected: "other" },
    { name: "another, created before", live: of("other", "1"), expected: undefined }
  ])("whose content counts: $name", ({ expected, live: found }) =>
    assert.strictEqual(SecretPlan.laterClass(found, "spc", "5"), expected)
  )

  it("while the later one is in use, its content stays; owners are added all the same", () => {
    const others = of("other", "9")
    const ours = { ...wanted, secret: { ...secret, data: new Map([["username", bytes("bob")]]) }, yields: true }
    assert.deepStrictEqual(SecretPlan.decide(others, ours), { _tag: "Unchanged" })
    const more = SecretPlan.decide(others, { ...ours, owners: [owner("uid-9")] })
    assert.deepStrictEqual(more._tag === "Patch" ? more.changes : more, ["owners"])
    const taken = SecretPlan.decide(others, { ...ours, yields: false })
    assert.include(taken._tag === "Patch" ? taken.changes : [], "data")
  })
})

describe("S9 content that cannot be made", () => {
  const asked = { className: "spc", owners: [owner("uid-1"), owner("uid-2")] }
  it.each<{ readonly name: string; readonly live: Secret | undefined; readonly expected: unknown }>([
    { name: "nothing there", live: undefined, expected: undefined },
    { name: "somebody else's", live: liveWith({ labels: {} }), expected: undefined },
    { name: "of another class", live: liveWith({ annotations: { [className]: "other" } }), expected: undefined },
    { name: "on its way out", live: liveWith({ deletionTimestamp: MINUTE_0 }), expected: undefined },
    {
      name: "its owners are there",
      live: liveWith({ ownerReferences: [owner("uid-2"), owner("uid-1")] }),
      expected: undefined
    },
    {
      name: "one is missing",
      live,
      expected: { metadata: { resourceVersion: "7", ownerReferences: [owner("uid-1"), owner("uid-2")] } }
    }
  ])("what is there stays for its users: $name", ({ expected, live: found }) =>
    assert.deepStrictEqual(SecretPlan.keep(found, asked), expected)
  )
})

describe("a clock that is wrong", () => {
  it("what says to have been fetched in the future counts as far as it is trusted", () => {
    const future = {
      ...live,
      metadata: { ...live.metadata, annotations: { ...live.metadata.annotations, [SecretPlan.KEYS.fetched]: "9" } }
    }
    const ours = { ...wanted, secret: { ...secret, data: new Map([["username", bytes("bob")]]) } }
    assert.deepStrictEqual(SecretPlan.decide(future, ours), { _tag: "Unchanged" })
    assert.strictEqual(SecretPlan.decide(future, { ...ours, trusts: false })._tag, "Patch")
  })

  it("a time to come of a volume here is taken back, once, though all else is as it should be", () => {
    const annotations = { ...live.metadata.annotations, [SecretPlan.KEYS.fetched]: "9" }
    const ours = { ...wanted, trusts: false, isMisdated: true, fetched: SecretPlan.fetchedAt(0, "1") }
    assert.deepStrictEqual(SecretPlan.decide(liveWith({ annotations }), ours), {
      _tag: "Patch",
      patch: {
        metadata: { resourceVersion: "7", annotations: { ...stamps, [SecretPlan.KEYS.fetched]: ours.fetched } }
      },
      changes: ["annotations"]
    })
    const takenBack = liveWith({ annotations: { ...annotations, [SecretPlan.KEYS.fetched]: ours.fetched } })
    const standing = SecretPlan.standingOf(takenBack, () => [ours.fetched], "5")
    assert.deepStrictEqual(standing, { _tag: "Counts" })
    assert.deepStrictEqual(SecretPlan.decide(takenBack, { ...ours, trusts: true, isMisdated: false }), {
      _tag: "Unchanged"
    })
  })

  it.each<{
    readonly name: string
    readonly noted: Readonly<Record<string, string>>
    readonly here: Readonly<Record<string, ReadonlyArray<string>>>
    readonly expected: SecretPlan.Standing
  }>([
    { name: "no note", noted: {}, here: {}, expected: { _tag: "Counts" } },
    {
      name: "by a volume of another node",
      noted: { [fetched]: "3", [fetchedFor]: "a" },
      here: { b: ["4"] },
      expected: { _tag: "Counts" }
    },
    {
      name: "by a volume of another node, in the future",
      noted: { [fetched]: "7", [fetchedFor]: "a" },
      here: { b: ["4"] },
      expected: { _tag: "InFuture", podUid: "a" }
    },
    {
      name: "by nobody knows whom, in the future",
      noted: { [fetched]: "7" },
      here: { b: ["4"] },
      expected: { _tag: "InFuture", podUid: "" }
    },
    {
      name: "by a volume of this node, which still has it",
      noted: { [fetched]: "3", [fetchedFor]: "a" },
      here: { a: ["2", "3"] },
      expected: { _tag: "Counts" }
    },
    {
      name: "by a volume of this node, whose clock was set back before it fetched other content",
      noted: { [fetched]: "7", [fetchedFor]: "a" },
      here: { a: ["2"] },
      expected: { _tag: "Outdated", isInFuture: true }
    },
    {
      name: "by a volume of this node, which has fetched other content since",
      noted: { [fetched]: "3", [fetchedFor]: "a" },
      here: { a: ["4"] },
      expected: { _tag: "Outdated", isInFuture: false }
    }
  ])("what the note of a Secret is worth: $name", ({ expected, here, noted }) =>
    assert.deepStrictEqual(
      SecretPlan.standingOf(
        { ...live, metadata: { ...live.metadata, annotations: noted } },
        (podUid) => here[podUid] ?? [],
        "5"
      ),
      expected
    )
  )

  const HOUR = 3_600_000
  const at = (hours: number) => SecretPlan.fetchedAt(hours * HOUR, "1")
  /** Seen at two hours by a clock that is so many hours ahead of the monotonic one. */
  const seenAtTwo = (named: string) => SecretPlan.undatedOf(undefined, named, { nowMillis: 2 * HOUR, leadMillis: 0 })

  it.each([
    { name: "of the past", hours: 1, isUndated: false },
    { name: "of the next seconds: clocks of nodes differ", hours: 2 + 1 / 120, isUndated: false },
    { name: "of the future", hours: 3, isUndated: true }
  ])("content $name", ({ hours, isUndated }) => {
    assert.strictEqual(seenAtTwo(at(hours)) !== undefined, isUndated)
  })

  it.each([
    { name: "when its time has come", named: 3, now: { hours: 4, lead: 0 }, isUndated: true },
    { name: "when the clock was behind, and was put right", named: 3, now: { hours: 5, lead: 2 }, isUndated: false },
    { name: "when the clock was put forward by too little", named: 5, now: { hours: 6, lead: 1 }, isUndated: true },
    { name: "when the clock was set back further", named: 3, now: { hours: 1, lead: -2 }, isUndated: true }
  ])("content of the future, $name: $isUndated", ({ isUndated, named, now }) => {
    const clocks = { nowMillis: now.hours * HOUR, leadMillis: now.lead * HOUR }
    assert.strictEqual(SecretPlan.undatedOf(seenAtTwo(at(named)), at(named), clocks) !== undefined, isUndated)
  })

  it("another content of the volume is judged by its own name", () => {
    const clocks = { nowMillis: 4 * HOUR, leadMillis: 0 }
    assert.isUndefined(SecretPlan.undatedOf(seenAtTwo(at(3)), at(3.5), clocks))
  })
})
