/**
 * A custom resource as its definition has it: what is not declared is pruned, defaults are filled in, and what does not
 * fit is told in the API server's words. Total functions over plain JSON. Rules in CEL are the caller's.
 *
 * @source k8s.io/apiextensions-apiserver, pkg/apiserver/schema (pruning, defaulting, listtype) and validation
 */
import { isEqual, isObject, type JsonObject, listAt, objectAt, textAt } from "./KubernetesObject.ts"

const PRESERVES = "x-kubernetes-preserve-unknown-fields"

const propertiesOf = (schema: JsonObject): JsonObject => objectAt(schema, "properties")

/** Of a part that the schema describes; undefined for what is kept as it is. */
const walk = (
  value: unknown,
  schema: JsonObject,
  change: (object: JsonObject, schema: JsonObject) => JsonObject
): unknown => {
  if (Array.isArray(value)) return value.map((item) => walk(item, objectAt(schema, "items"), change))
  if (!isObject(value)) return value
  const properties = propertiesOf(schema)
  const entries = Object.entries(change(value, schema)).map(
    ([name, part]) => [name, isObject(properties[name]) ? walk(part, properties[name], change) : part] as const
  )
  return Object.fromEntries(entries)
}

/** Everything below these is of every object, and not of its definition. */
const isStandard = (name: string) => name === "apiVersion" || name === "kind" || name === "metadata"

/**
 * @shape  (object, schema of its kind) -> the object without what is not declared, and with its defaults
 * @errors none
 */
export const shaped = (object: JsonObject, schema: JsonObject): JsonObject => {
  const change = (part: JsonObject, its: JsonObject): JsonObject => {
    const properties = Object.entries(propertiesOf(its))
    const isMap = its["additionalProperties"] !== undefined || its[PRESERVES] === true
    const kept = isMap
      ? part
      : Object.fromEntries(Object.entries(part).filter(([name]) => properties.some(([declared]) => declared === name)))
    const defaults = properties.flatMap(([name, its]) =>
      isObject(its) && its["default"] !== undefined ? [[name, its["default"]] as const] : []
    )
    return { ...Object.fromEntries(defaults), ...kept }
  }
  const parts = Object.entries(object).flatMap(([name, part]) => {
    const its = propertiesOf(schema)[name]
    if (isStandard(name)) return [[name, part] as const]
    return isObject(its) ? [[name, walk(part, its, change)] as const] : []
  })
  return Object.fromEntries(parts)
}

/** @shape (object as it is applied, schema) -> ".status.other", of the first field that is not declared */
export const undeclaredIn = (value: unknown, schema: JsonObject, path = ""): string | undefined => {
  if (Array.isArray(value)) {
    return value.map((item) => undeclaredIn(item, objectAt(schema, "items"), path)).find((it) => it !== undefined)
  }
  if (!isObject(value) || schema[PRESERVES] === true || schema["additionalProperties"] !== undefined) return undefined
  for (const [name, part] of Object.entries(value)) {
    if (path === "" && isStandard(name)) continue
    const its = propertiesOf(schema)[name]
    const at = `${path}.${name}`
    const found = isObject(its) ? undeclaredIn(part, its, at) : at
    if (found !== undefined) return found
  }
  return undefined
}

export interface Fault {
  readonly complaint: string
  /** Rules are not looked at beside it. */
  readonly hidesRules: boolean
}

const DATE_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/iu

const typeOf = (value: unknown): string => {
  if (value === null) return "null"
  if (Array.isArray(value)) return "array"
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number"
  return typeof value
}

const quoted = (value: unknown) => JSON.stringify(value)

/** A path as a validator sees that began at some part of the object. */
const seenFrom = (start: string, path: string): string =>
  path === start ? "" : start === "" ? path : path.slice(start.length + 1)

/**
 * @shape  (value, its schema, where it is, where the looking began) -> what is wrong with it
 * @errors none
 */
export const faultsOf = (value: unknown, schema: JsonObject, path: string, start: string): ReadonlyArray<Fault> => {
  const fault = (complaint: string, hidesRules: boolean): Fault => ({ complaint: `${path}: ${complaint}`, hidesRules })
  const body = `${seenFrom(start, path)} in body`
  const type = textAt(schema, "type")
  const found = typeOf(value)
  if (type !== undefined && found !== type && !(type === "number" && found === "integer")) {
    return [fault(`Invalid value: "${found}": ${body} must be of type ${type}: "${found}"`, true)]
  }
  const limit = (name: string) => (typeof schema[name] === "number" ? schema[name] : undefined)
  const [minimum, maximum, least, most] = ["minimum", "maximum", "minProperties", "maxItems"].map(limit)
  if (typeof value === "string") {
    const allowed = listAt(schema, "enum")
    const longest = limit("maxLength") ?? Number.POSITIVE_INFINITY
    const pattern = textAt(schema, "pattern")
    return [
      ...(allowed.length > 0 && !allowed.includes(value)
        ? [fault(`Unsupported value: ${quoted(value)}: supported values: ${allowed.map(quoted).join(", ")}`, true)]
        : []),
      ...([...value].length > longest ? [fault(`Too long: may not be more than ${longest} bytes`, true)] : []),
      ...(pattern !== undefined && !new RegExp(pattern, "u").test(value)
        ? [fault(`Invalid value: ${quoted(value)}: ${body} should match '${pattern}'`, false)]
        : []),
      ...(schema["format"] === "date-time" && !DATE_TIME.test(value)
        ? [fault(`Invalid value: ${quoted(value)}: ${body} must be of type date-time: ${quoted(value)}`, true)]
        : [])
    ]
  }
  if (typeof value === "number") {
    return [
      ...(minimum !== undefined && value < minimum
        ? [fault(`Invalid value: ${value}: ${body} should be greater than or equal to ${minimum}`, false)]
        : []),
      ...(maximum !== undefined && value > maximum
        ? [fault(`Invalid value: ${value}: ${body} should be less than or equal to ${maximum}`, false)]
        : [])
    ]
  }
  if (Array.isArray(value)) {
    const keys = listAt(schema, "x-kubernetes-list-map-keys").map(String)
    const keyed = value.map((item: unknown) =>
      isObject(item) && keys.length > 0 ? Object.fromEntries(keys.toSorted().map((key) => [key, item[key]])) : undefined
    )
    return [
      ...(most !== undefined && value.length > most
        ? [fault(`Too many: ${value.length}: must have at most ${most} items`, true)]
        : []),
      ...value.flatMap((item: unknown, index) => faultsOf(item, objectAt(schema, "items"), `${path}[${index}]`, start)),
      ...keyed.flatMap((key, index) =>
        key !== undefined && keyed.findIndex((other) => isEqual(other, key)) < index
          ? [{ complaint: `${path}[${index}]: Duplicate value: ${quoted(key)}`, hidesRules: false }]
          : []
      )
    ]
  }
  if (!isObject(value)) return []
  const below = (name: string) => (path === "" ? name : `${path}.${name}`)
  const count = Object.keys(value).length
  return [
    ...(least !== undefined && count < least
      ? [fault(`Invalid value: ${count}: ${body} should have at least ${least} properties`, false)]
      : []),
    ...listAt(schema, "required")
      .map(String)
      .flatMap((name) =>
        value[name] === undefined ? [{ complaint: `${below(name)}: Required value`, hidesRules: true }] : []
      ),
    ...Object.entries(propertiesOf(schema)).flatMap(([name, its]) =>
      isObject(its) && value[name] !== undefined ? faultsOf(value[name], its, below(name), start) : []
    )
  ]
}
