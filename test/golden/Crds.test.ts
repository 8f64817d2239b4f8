import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Predicate, Schema } from "effect"
import { parse } from "yaml"
import {
  CRD_FILES,
  PLAIN_CRD_FILES,
  secretProviderClassCrd,
  secretProviderClassPodStatusCrd
} from "../../schemas/crd/Crds.ts"
import { NotStructural, toCrdSchema } from "../../schemas/crd/toCrdSchema.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const checkedIn = join(root, "assets/crds")
const contents = (directory: string) =>
  Object.fromEntries(readdirSync(directory).map((name) => [name, readFileSync(join(directory, name), "utf8")]))

describe("assets/crds", () => {
  it('are what "npm run crds" writes', () => {
    const directory = mkdtempSync(join(tmpdir(), "crds-"))
    try {
      execFileSync(process.execPath, [join(root, "scripts/crds.mjs"), directory])
      assert.deepStrictEqual(contents(checkedIn), contents(directory))
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it.each(Object.entries({ ...CRD_FILES, ...PLAIN_CRD_FILES }))("%s reads back as the object", (name, definition) => {
    assert.deepStrictEqual<unknown>(parse(readFileSync(join(checkedIn, name), "utf8")), definition)
  })
})

/** Every field with its type: "spec.items[].name: string"; a map is written "map of string". */
const fieldsOf = (schema: unknown, path = ""): ReadonlyArray<string> => {
  if (!Predicate.isObject(schema)) return [`${path}: not a schema`]
  const { additionalProperties, items, properties, type, ...rest } = schema as Record<string, unknown>
  const unexpected = Object.keys(rest).filter((key) => key !== "description")
  if (unexpected.length > 0) return [`${path}: ${unexpected.join()}`]
  if (Predicate.isObject(additionalProperties)) {
    return [`${path}: map of ${(additionalProperties as { readonly type?: unknown }).type}`]
  }
  if (type === "array") return [`${path}: array`, ...fieldsOf(items, `${path}[]`)]
  if (!Predicate.isObject(properties)) return [`${path}: ${type}`]
  const inner = Object.entries(properties).flatMap(([name, value]) =>
    fieldsOf(value, path === "" ? name : `${path}.${name}`)
  )
  return path === "" ? inner : [`${path}: ${type}`, ...inner]
}

describe("5.1 common", () => {
  it.each([
    {
      crd: secretProviderClassCrd,
      kind: "SecretProviderClass",
      plural: "secretproviderclasses",
      singular: "secretproviderclass",
      deprecation: {
        deprecated: true,
        deprecationWarning:
          "secrets-store.csi.x-k8s.io/v1alpha1 is deprecated. Use secrets-store.csi.x-k8s.io/v1 instead."
      }
    },
    {
      crd: secretProviderClassPodStatusCrd,
      kind: "SecretProviderClassPodStatus",
      plural: "secretproviderclasspodstatuses",
      singular: "secretproviderclasspodstatus",
      deprecation: { deprecated: true }
    }
  ])("$kind", ({ crd, deprecation, kind, plural, singular }) => {
    const versions = crd.spec.versions.map(({ schema: _, ...version }) => version)
    assert.deepStrictEqual<unknown>(
      { ...crd, spec: { ...crd.spec, versions } },
      {
        apiVersion: "apiextensions.k8s.io/v1",
        kind: "CustomResourceDefinition",
        metadata: {
          name: `${plural}.secrets-store.csi.x-k8s.io`,
          annotations: { "controller-gen.kubebuilder.io/version": "v0.16.3" }
        },
        spec: {
          group: "secrets-store.csi.x-k8s.io",
          names: { kind, listKind: `${kind}List`, plural, singular },
          scope: "Namespaced",
          versions: [
            { name: "v1", served: true, storage: true },
            { name: "v1alpha1", served: true, storage: false, ...deprecation }
          ]
        }
      }
    )
  })
})

describe("5.2, 5.3 schemas, field by field", () => {
  const standard = ["apiVersion: string", "kind: string", "metadata: object"]
  const classSpec = [
    "spec: object",
    "spec.provider: string",
    "spec.parameters: map of string",
    "spec.secretObjects: array",
    "spec.secretObjects[]: object",
    "spec.secretObjects[].secretName: string",
    "spec.secretObjects[].type: string",
    "spec.secretObjects[].labels: map of string",
    "spec.secretObjects[].annotations: map of string",
    "spec.secretObjects[].data: array",
    "spec.secretObjects[].data[]: object",
    "spec.secretObjects[].data[].objectName: string",
    "spec.secretObjects[].data[].key: string"
  ]
  const podStatus = [
    "status: object",
    "status.podName: string",
    "status.secretProviderClassName: string",
    "status.mounted: boolean",
    "status.targetPath: string",
    "status.objects: array",
    "status.objects[]: object",
    "status.objects[].id: string",
    "status.objects[].version: string"
  ]

  it.each([
    { row: "5.2", crd: secretProviderClassCrd, version: "v1", own: [...classSpec, "status: object"] },
    {
      row: "5.2",
      crd: secretProviderClassCrd,
      version: "v1alpha1",
      own: [
        ...classSpec,
        "status: object",
        "status.byPod: array",
        "status.byPod[]: object",
        "status.byPod[].id: string",
        "status.byPod[].namespace: string"
      ]
    },
    { row: "5.3", crd: secretProviderClassPodStatusCrd, version: "v1", own: podStatus },
    { row: "5.3", crd: secretProviderClassPodStatusCrd, version: "v1alpha1", own: podStatus }
  ])("$row $crd.spec.names.kind $version", ({ crd, own, version }) => {
    const found = crd.spec.versions.find(({ name }) => name === version)
    assert.deepStrictEqual(fieldsOf(found?.schema.openAPIV3Schema), [...standard, ...own])
  })
})

describe("structural schemas", () => {
  it.each<readonly [name: string, schema: Schema.Constraint, expected: unknown]>([
    [
      "a string with checks",
      Schema.String.check(Schema.isPattern(/^[a-z]+$/u)),
      { type: "string", pattern: "^[a-z]+$" }
    ],
    ["any integer, without the bounds of JavaScript", Schema.Int, { type: "integer" }],
    ["a bounded integer", Schema.Int.check(Schema.isGreaterThanOrEqualTo(1)), { type: "integer", minimum: 1 }],
    [
      "an exclusive bound",
      Schema.Finite.check(Schema.isGreaterThan(0)),
      { type: "number", minimum: 0, exclusiveMinimum: true }
    ],
    ["one of some words", Schema.Literals(["a", "b"]), { type: "string", enum: ["a", "b"] }],
    ["one word", Schema.Literal("a"), { type: "string", enum: ["a"] }],
    ["or null", Schema.NullOr(Schema.String), { type: "string", nullable: true }],
    [
      "integer or string",
      Schema.Union([Schema.Int, Schema.String]),
      { anyOf: [{ type: "integer" }, { type: "string" }], "x-kubernetes-int-or-string": true }
    ],
    ["anything", Schema.Unknown, { "x-kubernetes-preserve-unknown-fields": true }],
    ["an empty object", Schema.Struct({}), { type: "object" }],
    [
      "required fields",
      Schema.Struct({ a: Schema.String, b: Schema.optionalKey(Schema.Array(Schema.Boolean)) }),
      {
        type: "object",
        required: ["a"],
        properties: { a: { type: "string" }, b: { type: "array", items: { type: "boolean" } } }
      }
    ],
    [
      "rules, whatever else is checked",
      Schema.Struct({ a: Schema.optionalKey(Schema.String) })
        .check(Schema.isMinProperties(1))
        .annotate({ "x-kubernetes-validations": [{ rule: "has(self.a)", message: "a is missing" }] }),
      {
        type: "object",
        properties: { a: { type: "string" } },
        minProperties: 1,
        "x-kubernetes-validations": [{ rule: "has(self.a)", message: "a is missing" }]
      }
    ],
    [
      "a list by key",
      Schema.Array(Schema.Struct({ a: Schema.String }))
        .check(Schema.isMaxLength(10))
        .annotate({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"] }),
      {
        type: "array",
        maxItems: 10,
        items: { type: "object", required: ["a"], properties: { a: { type: "string" } } },
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["a"]
      }
    ],
    [
      "a default",
      Schema.Literals(["", "Normal"]).annotate({ default: "Normal" }),
      { type: "string", enum: ["", "Normal"], default: "Normal" }
    ],
    ["a format", Schema.Int.annotate({ format: "int32" }), { type: "integer", format: "int32" }],
    [
      "any object, or null",
      Schema.NullOr(
        Schema.Record(Schema.String, Schema.Unknown).annotate({ "x-kubernetes-preserve-unknown-fields": true })
      ),
      { type: "object", nullable: true, "x-kubernetes-preserve-unknown-fields": true }
    ],
    ["a map", Schema.Record(Schema.String, Schema.Int), { type: "object", additionalProperties: { type: "integer" } }],
    [
      "a named schema",
      Schema.Struct({ a: Schema.String.annotate({ identifier: "Name" }) }),
      { type: "object", required: ["a"], properties: { a: { type: "string" } } }
    ]
  ])("%s", (_, schema, expected) => assert.deepStrictEqual<unknown>(toCrdSchema(schema), expected))

  interface Tree {
    readonly children: ReadonlyArray<Tree>
  }
  const Tree = Schema.Struct({
    children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
  }).annotate({ identifier: "Tree" })

  it.each<readonly [name: string, schema: Schema.Constraint, message: RegExp]>([
    ["recursion", Tree, /^\$\.children\[\]: recursive schema Tree$/u],
    ["a union of objects", Schema.Union([Schema.Struct({ a: Schema.String }), Schema.String]), /union of 2 members/u],
    ["a tuple", Schema.Struct({ t: Schema.Tuple([Schema.String]) }), /^\$\.t: an array without items$/u]
  ])("%s is refused", (_, schema, message) => {
    assert.throws(() => toCrdSchema(schema), NotStructural, message)
  })
})
