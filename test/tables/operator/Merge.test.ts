import { assert, describe, it } from "@effect/vitest"
import type { JsonObject } from "../../../schemas/Json.ts"
import { type Change, decide, mergeMetadata, UNCHANGED } from "../../../src/operator/Merge.ts"
import { manifestOf } from "../../support/OperatorFixtures.ts"

const owner = (uid: string, apiVersion = "apps/v1", name = "o") => ({ apiVersion, kind: "Deployment", name, uid })

describe("metadata", () => {
  it.each<{
    readonly name: string
    readonly live: JsonObject
    readonly required: JsonObject
    readonly expected: JsonObject
  }>([
    { name: "nothing is required", live: { labels: { a: "1" } }, required: {}, expected: { labels: { a: "1" } } },
    {
      name: "what is required is added and overwritten, what is not is kept",
      live: { labels: { a: "1", b: "2" }, annotations: { x: "1" } },
      required: { labels: { b: "3", c: "4" }, annotations: { y: "2" } },
      expected: { labels: { a: "1", b: "3", c: "4" }, annotations: { x: "1", y: "2" } }
    },
    {
      name: 'a key that ends in "-" takes away',
      live: { labels: { a: "1", b: "2" } },
      required: { labels: { "a-": "" } },
      expected: { labels: { b: "2" } }
    },
    {
      name: "all its dashes are stripped",
      live: { annotations: { a: "1" } },
      required: { annotations: { "a---": "" } },
      expected: {}
    },
    {
      name: "taking away what is not there changes nothing",
      live: { labels: { b: "2" } },
      required: { labels: { "a-": "" } },
      expected: { labels: { b: "2" } }
    },
    {
      name: "an owner that is missing is added",
      live: { ownerReferences: [owner("1")] },
      required: { ownerReferences: [owner("2", "apps/v1", "p")] },
      expected: { ownerReferences: [owner("1"), owner("2", "apps/v1", "p")] }
    },
    {
      name: "an owner is the same by name, kind and group, whatever the version",
      live: { ownerReferences: [owner("1", "apps/v1beta1")] },
      required: { ownerReferences: [owner("2", "apps/v1")] },
      expected: { ownerReferences: [owner("2", "apps/v1")] }
    },
    {
      name: "an owner of another group is another",
      live: { ownerReferences: [owner("1", "v1")] },
      required: { ownerReferences: [owner("2", "apps/v1")] },
      expected: { ownerReferences: [owner("1", "v1"), owner("2", "apps/v1")] }
    },
    {
      name: 'an owner whose uid ends in "-" is taken away',
      live: { ownerReferences: [owner("1")] },
      required: { ownerReferences: [owner("1-")] },
      expected: {}
    },
    {
      name: "finalizers and managedFields are not touched",
      live: { finalizers: ["f"], managedFields: [{ manager: "m" }] },
      required: { labels: { a: "1" }, finalizers: ["g"] },
      expected: { finalizers: ["f"], managedFields: [{ manager: "m" }], labels: { a: "1" } }
    }
  ])("4.1 $name", ({ expected, live, required }) => {
    const meta = (metadata: JsonObject) => manifestOf({ apiVersion: "v1", kind: "ServiceAccount", metadata }).metadata
    assert.deepStrictEqual<unknown>(mergeMetadata(meta(live), meta(required)), expected)
  })
})

const RBAC = "rbac.authorization.k8s.io"
const meta = { name: "x", uid: "u", resourceVersion: "1" }
const account = { kind: "ServiceAccount", name: "sa", namespace: "ns" }
const roleRef = { apiGroup: RBAC, kind: "ClusterRole", name: "r" }
const rules = [{ apiGroups: [""], resources: ["pods"], verbs: ["get"] }]
const otherRules = [{ apiGroups: [""], resources: ["secrets"], verbs: ["get"] }]
const INJECT = { "config.openshift.io/inject-trusted-cabundle": "true" }
const policy = { podSelector: {}, policyTypes: ["Ingress"] }

interface Row {
  readonly row: string
  readonly name: string
  readonly kind: string
  readonly live: JsonObject | undefined
  readonly required: JsonObject
  /** Undefined: unchanged. An update's object is the live one with these fields; undefined takes one away. */
  readonly expected: "Create" | "Recreate" | JsonObject | undefined
  readonly detail?: string
}

const rows: ReadonlyArray<Row> = [
  { row: "4.2", name: "absent", kind: "ServiceAccount", live: undefined, required: {}, expected: "Create" },
  {
    row: "4.2",
    name: "secrets and imagePullSecrets are somebody else's",
    kind: "ServiceAccount",
    live: { secrets: [{ name: "s" }], imagePullSecrets: [{ name: "i" }], automountServiceAccountToken: false },
    required: {},
    expected: undefined
  },
  {
    row: "4.2",
    name: "a missing label is added",
    kind: "ServiceAccount",
    live: { metadata: { ...meta, labels: { b: "2" } } },
    required: { metadata: { name: "x", labels: { a: "1" } } },
    expected: { metadata: { ...meta, labels: { a: "1", b: "2" } } }
  },
  {
    row: "Q1",
    name: "one that is being deleted is waited for",
    kind: "ServiceAccount",
    live: { metadata: { ...meta, deletionTimestamp: "2026-01-01T00:00:00Z" } },
    required: { metadata: { name: "x", labels: { a: "1" } } },
    expected: undefined
  },
  {
    row: "4.2 9.3",
    name: "other people's labels are tolerated",
    kind: "ConfigMap",
    live: { metadata: { ...meta, labels: { b: "2" } }, data: { a: "1" } },
    required: { data: { a: "1" } },
    expected: undefined
  },
  {
    row: "4.2 9.3",
    name: "an injected bundle is kept",
    kind: "ConfigMap",
    live: { metadata: { ...meta, labels: INJECT }, data: { "ca-bundle.crt": "PEM" } },
    required: { metadata: { name: "x", labels: INJECT } },
    expected: undefined
  },
  {
    row: "4.2 9.3 Q20",
    name: "other keys are pruned beside it",
    kind: "ConfigMap",
    live: { metadata: { ...meta, labels: INJECT }, data: { "ca-bundle.crt": "PEM", b: "2", a: "1" } },
    required: { metadata: { name: "x", labels: INJECT } },
    expected: { data: { "ca-bundle.crt": "PEM" } },
    detail: "changed: data.a, data.b"
  },
  {
    row: "4.2 9.3",
    name: "an explicit bundle wins",
    kind: "ConfigMap",
    live: { metadata: { ...meta, labels: INJECT }, data: { "ca-bundle.crt": "PEM" } },
    required: { metadata: { name: "x", labels: INJECT }, data: { "ca-bundle.crt": "OURS" } },
    expected: { data: { "ca-bundle.crt": "OURS" } },
    detail: "changed: data.ca-bundle.crt"
  },
  {
    row: "4.2",
    name: "without the label the bundle is pruned like any key",
    kind: "ConfigMap",
    live: { data: { "ca-bundle.crt": "PEM" } },
    required: {},
    expected: { data: undefined },
    detail: "changed: data.ca-bundle.crt"
  },
  {
    row: "4.2",
    name: 'the label has to be "true"',
    kind: "ConfigMap",
    live: {
      metadata: { ...meta, labels: { "config.openshift.io/inject-trusted-cabundle": "false" } },
      data: { "ca-bundle.crt": "PEM" }
    },
    required: { metadata: { name: "x", labels: { "config.openshift.io/inject-trusted-cabundle": "false" } } },
    expected: { data: undefined },
    detail: "changed: data.ca-bundle.crt"
  },
  {
    row: "4.2",
    name: "binaryData is replaced",
    kind: "ConfigMap",
    live: { binaryData: { a: "AA==" } },
    required: {},
    expected: { binaryData: undefined }
  },
  {
    row: "4.2 13",
    name: "a label that was taken away comes back, and the bundle stays",
    kind: "ConfigMap",
    live: { data: { "ca-bundle.crt": "by hand" } },
    required: { metadata: { name: "x", labels: INJECT } },
    expected: { metadata: { ...meta, labels: INJECT } }
  },
  { row: "4.2", name: "same rules", kind: "ClusterRole", live: { rules }, required: { rules }, expected: undefined },
  {
    row: "4.2",
    name: "other rules are replaced",
    kind: "ClusterRole",
    live: { rules: otherRules },
    required: { rules },
    expected: { rules }
  },
  {
    row: "4.2",
    name: "no rules and an empty list are the same",
    kind: "ClusterRole",
    live: { rules: null },
    required: { rules: [] },
    expected: undefined
  },
  {
    row: "4.2",
    name: "an aggregationRule that nobody asked for would rewrite the rules",
    kind: "ClusterRole",
    live: { rules, aggregationRule: { clusterRoleSelectors: [{ matchLabels: { a: "1" } }] } },
    required: { rules },
    expected: { aggregationRule: undefined }
  },
  {
    row: "4.2",
    name: "rules are not looked at where an aggregationRule is required",
    kind: "ClusterRole",
    live: { rules: otherRules, aggregationRule: { clusterRoleSelectors: [] } },
    required: { rules, aggregationRule: { clusterRoleSelectors: [] } },
    expected: undefined
  },
  {
    row: "4.2",
    name: "same subjects and role",
    kind: "ClusterRoleBinding",
    live: { subjects: [account], roleRef },
    required: { subjects: [account], roleRef },
    expected: undefined
  },
  {
    row: "4.2",
    name: "the API group of roleRef and of a User is what it has to be",
    kind: "ClusterRoleBinding",
    live: { subjects: [{ apiGroup: RBAC, kind: "User", name: "u" }], roleRef },
    required: { subjects: [{ kind: "User", name: "u" }], roleRef: { kind: "ClusterRole", name: "r" } },
    expected: undefined
  },
  {
    row: "4.2",
    name: "other subjects are replaced",
    kind: "ClusterRoleBinding",
    live: { subjects: [account, { ...account, name: "extra" }], roleRef },
    required: { subjects: [account], roleRef },
    expected: { subjects: [account] }
  },
  {
    row: "4.2",
    name: "subjects that were taken away come back",
    kind: "RoleBinding",
    live: { roleRef },
    required: { subjects: [account], roleRef },
    expected: { subjects: [account] }
  },
  {
    row: "Q27",
    name: "another role cannot be put in",
    kind: "ClusterRoleBinding",
    live: {
      metadata: { ...meta, creationTimestamp: "2026-01-01T00:00:00Z", labels: { b: "2" } },
      subjects: [account],
      roleRef: { ...roleRef, name: "cluster-admin" }
    },
    required: { subjects: [account], roleRef },
    expected: "Recreate"
  },
  {
    row: "Q27",
    name: "nor one of another kind",
    kind: "RoleBinding",
    live: { metadata: { ...meta, labels: { b: "2" } }, subjects: [account], roleRef: { ...roleRef, kind: "Role" } },
    required: { subjects: [account], roleRef },
    expected: "Recreate"
  },
  {
    row: "4.2",
    name: "same spec",
    kind: "NetworkPolicy",
    live: { spec: { ...policy, podSelector: {} } },
    required: { spec: policy },
    expected: undefined
  },
  {
    row: "4.2",
    name: "another spec is replaced as a whole",
    kind: "NetworkPolicy",
    live: { spec: { ...policy, ingress: [{}] } },
    required: { spec: policy },
    expected: { spec: policy }
  }
]

describe("one object", () => {
  it.each(rows)("$row $kind: $name", ({ detail, expected, kind, live, required }) => {
    const object = (fields: JsonObject, metadata: JsonObject) =>
      manifestOf({ apiVersion: "v1", kind, metadata, ...fields })
    const [wanted, found] = [object(required, { name: "x" }), live === undefined ? undefined : object(live, meta)]
    const change = decide(wanted, found)
    if (expected === undefined) return assert.deepStrictEqual(change, UNCHANGED)
    if (expected === "Create") return assert.deepStrictEqual<Change>(change, { _tag: "Create", object: wanted })
    if (expected === "Recreate") {
      const object = { ...found, ...wanted, metadata: { name: "x", labels: { b: "2" } } }
      return assert.deepStrictEqual<unknown>(change, { _tag: "Recreate", uid: "u", object })
    }
    const updated = Object.fromEntries(
      Object.entries({ ...found, ...expected }).filter(([, value]) => value !== undefined)
    )
    return assert.deepStrictEqual<unknown>(change, {
      _tag: "Update",
      object: updated,
      ...(detail === undefined ? {} : { detail })
    })
  })

  it("4.1 a new object is made without the keys that take away", () => {
    const metadata = {
      name: "x",
      labels: { "a-": "" },
      annotations: { "b-": "", c: "1" },
      ownerReferences: [owner("1-")]
    }
    const change = decide(manifestOf({ apiVersion: "v1", kind: "ServiceAccount", metadata }), undefined)
    const expected = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "x", annotations: { c: "1" } } }
    assert.deepStrictEqual<unknown>(change, { _tag: "Create", object: expected })
  })

  it("4.1 what was merged once is merged", () => {
    for (const { expected, kind, live, required } of rows) {
      const object = (fields: JsonObject, metadata: JsonObject) =>
        manifestOf({ apiVersion: "v1", kind, metadata, ...fields })
      if (live === undefined || expected === "Recreate") continue
      const wanted = object(required, { name: "x" })
      const change = decide(wanted, object(live, meta))
      if (change._tag === "Update") assert.deepStrictEqual(decide(wanted, change.object), UNCHANGED)
    }
  })
})
