/**
 * A schema as the structural schema that a CustomResourceDefinition takes: the JSON Schema that Effect derives, without
 * what Kubernetes forbids.
 *
 *  - `$ref` is inlined; a recursive schema has no structural form
 *  - `additionalProperties: true` goes: what is not declared is pruned by the API server
 *  - an open value becomes x-kubernetes-preserve-unknown-fields
 *  - a union with null becomes nullable, integer or string becomes x-kubernetes-int-or-string, a constant an enum
 *  - bounds that only say "a safe integer" go
 *  - the annotations `default`, `format` and all that begin with x-kubernetes- stay
 *
 * @source https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions
 */
import { Predicate, Schema } from "effect"

export type CrdSchema = Readonly<Record<string, unknown>>

/** A schema that no CRD can have. Schemas are constants, so this is a mistake in ours. */
export class NotStructural extends Error {
  override readonly name = "NotStructural"
}

const isNode = (value: unknown): value is CrdSchema => Predicate.isObject(value) && !Array.isArray(value)
const nodesOf = (value: unknown): ReadonlyArray<CrdSchema> => (Array.isArray(value) ? value.filter(isNode) : [])

const without = (node: CrdSchema, ...keys: ReadonlyArray<string>): CrdSchema =>
  Object.fromEntries(Object.entries(node).filter(([key]) => !keys.includes(key)))

interface Place {
  readonly definitions: CrdSchema
  /** For messages: "$.spec.items[]". */
  readonly path: string
  /** References that are being inlined. */
  readonly inlining: ReadonlyArray<string>
}

const below = (place: Place, step: string): Place => ({ ...place, path: `${place.path}${step}` })

const inlineReference = (node: CrdSchema, reference: string, place: Place): CrdSchema => {
  const name = (reference.split("/").at(-1) ?? "").replaceAll("~1", "/").replaceAll("~0", "~")
  const target = place.definitions[name]
  if (place.inlining.includes(name)) throw new NotStructural(`${place.path}: recursive schema ${name}`)
  if (!isNode(target)) throw new NotStructural(`${place.path}: unknown schema ${name}`)
  return structural({ ...target, ...without(node, "$ref") }, { ...place, inlining: [...place.inlining, name] })
}

const union = (node: CrdSchema, place: Place): CrdSchema => {
  const members = nodesOf(node["anyOf"])
  const others = members.filter((member) => member["type"] !== "null")
  const rest = without(node, "anyOf")
  const nullable = others.length < members.length ? { nullable: true } : {}
  const [only, ...more] = others
  if (only !== undefined && more.length === 0) return structural({ ...only, ...rest, ...nullable }, place)
  if (others.every(({ type }) => type === "integer" || type === "string")) {
    return {
      ...rest,
      ...nullable,
      anyOf: [{ type: "integer" }, { type: "string" }],
      "x-kubernetes-int-or-string": true
    }
  }
  throw new NotStructural(`${place.path}: a union of ${others.length} members`)
}

/** Numbers: OpenAPI 3.0 says with a boolean that a bound is exclusive. */
const bounded = (node: CrdSchema): CrdSchema => {
  const { exclusiveMaximum, exclusiveMinimum, maximum, minimum } = node
  return {
    ...without(node, "exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"),
    ...(minimum === undefined || minimum === Number.MIN_SAFE_INTEGER ? {} : { minimum }),
    ...(maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? {} : { maximum }),
    ...(exclusiveMinimum === undefined ? {} : { minimum: exclusiveMinimum, exclusiveMinimum: true }),
    ...(exclusiveMaximum === undefined ? {} : { maximum: exclusiveMaximum, exclusiveMaximum: true })
  }
}

const object = (node: CrdSchema, place: Place): CrdSchema => {
  const { additionalProperties, properties } = node
  const rest = without(node, "additionalProperties", "properties")
  const isMap = isNode(additionalProperties) && Object.keys(additionalProperties).length > 0
  if (isNode(properties)) {
    if (isMap) throw new NotStructural(`${place.path}: properties beside a map`)
    const entries = Object.entries(properties).map(([name, value]) => {
      if (!isNode(value)) throw new NotStructural(`${place.path}.${name}: not a schema`)
      return [name, structural(value, below(place, `.${name}`))]
    })
    return { ...rest, properties: Object.fromEntries(entries) }
  }
  return isMap ? { ...rest, additionalProperties: structural(additionalProperties, below(place, "{}")) } : rest
}

const structural = (input: CrdSchema, place: Place): CrdSchema => {
  if (Predicate.isString(input["$ref"])) return inlineReference(input, input["$ref"], place)
  const merged: CrdSchema = Object.assign({}, without(input, "allOf"), ...nodesOf(input["allOf"]))
  if (merged["anyOf"] !== undefined && merged["x-kubernetes-int-or-string"] !== true) return union(merged, place)
  const node = "const" in merged ? { ...without(merged, "const"), enum: [merged["const"]] } : merged
  switch (node["type"]) {
    case "array":
      if (!isNode(node["items"])) throw new NotStructural(`${place.path}: an array without items`)
      return { ...node, items: structural(node["items"], below(place, "[]")) }
    case "object":
      return object(node, place)
    case "integer":
    case "number":
      return bounded(node)
    case undefined:
      // Schema.Struct({}) says "anything but null"; what is meant is an object without properties.
      if (node["not"] !== undefined) return { ...without(node, "not"), type: "object" }
      return node["enum"] !== undefined || node["x-kubernetes-int-or-string"] === true
        ? node
        : { ...node, "x-kubernetes-preserve-unknown-fields": true }
    default:
      return node
  }
}

/**
 * @shape  (schema) -> openAPIV3Schema
 * @errors throws NotStructural for a schema that has no such form
 */
export const toCrdSchema = (schema: Schema.Constraint): CrdSchema => {
  const document = Schema.toJsonSchemaDocument(schema, {
    generateDescriptions: false,
    includeAnnotationKey: (key) => key === "format" || key.startsWith("x-kubernetes-")
  })
  return structural(document.schema, { definitions: document.definitions, path: "$", inlining: [] })
}
