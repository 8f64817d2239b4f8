/**
 * Who wrote which fields of an object, as the API server keeps it in metadata.managedFields: pure functions over plain
 * JSON and sets of paths.
 *
 * A path is made of the steps that FieldsV1 has: "f:name" into an object, `k:{"name":"a"}` to an item of a list that is
 * known by its keys, `v:"a"` to a member of a set.
 *
 * @source sigs.k8s.io/structured-merge-diff, fieldpath and typed; k8s.io/apimachinery, pkg/util/managedfields
 */
import { isEqual, isObject, type JsonObject, listAt, metadataOf, textAt } from "./KubernetesObject.ts"

/** What is owned and merged as one. Where nothing is said, objects are taken apart and lists are not. */
export interface MergeSchema {
  readonly atomic?: true
  /** Of an object. */
  readonly fields?: Readonly<Record<string, MergeSchema>>
  /** An object whose names are data, as in labels: an entry is owned besides what is in it. */
  readonly each?: MergeSchema
  /** A list whose items are known by these. */
  readonly keys?: ReadonlyArray<string>
  /** Of keys that an item may leave out. */
  readonly defaults?: JsonObject
  readonly item?: MergeSchema
  /** A list of values that are there or not. */
  readonly set?: true
}

export type Fields = ReadonlySet<string>

/** No name of a field has it, and it sorts before all that they have. */
const SEPARATOR = "\u0000"

export const join = (path: string, step: string): string => (path === "" ? step : `${path}${SEPARATOR}${step}`)
export const stepsOf = (path: string): ReadonlyArray<string> => path.split(SEPARATOR)

interface Part {
  readonly step: string
  readonly value: unknown
  readonly schema: MergeSchema
  /** Owned besides what is in it. */
  readonly member: boolean
}

const itemStep = (item: unknown, { defaults = {}, keys }: MergeSchema): string => {
  if (keys === undefined || !isObject(item)) return `v:${JSON.stringify(item)}`
  const sorted = [...keys].sort().flatMap((key) => {
    const value = item[key] ?? defaults[key]
    return value === undefined ? [] : [[key, value] as const]
  })
  return `k:${JSON.stringify(Object.fromEntries(sorted))}`
}

/** The parts of what is not owned as one; none for a scalar, an atomic, or what is empty. */
export const partsOf = (value: unknown, schema: MergeSchema): ReadonlyArray<Part> => {
  if (schema.atomic === true) return []
  if (Array.isArray(value)) {
    if (schema.keys === undefined && schema.set !== true) return []
    return value.map((item) => ({ step: itemStep(item, schema), value: item, schema: schema.item ?? {}, member: true }))
  }
  if (!isObject(value)) return []
  return Object.entries(value).map(([name, item]) => ({
    step: `f:${name}`,
    value: item,
    schema: schema.fields?.[name] ?? schema.each ?? {},
    member: schema.each !== undefined
  }))
}

/** @shape (object of one of Kubernetes' own kinds, schema) -> without empty lists and maps, which Go leaves out */
export const withoutEmpty = (value: unknown, schema: MergeSchema): unknown => {
  if (Array.isArray(value)) return value.map((item) => withoutEmpty(item, schema.item ?? {}))
  if (!isObject(value)) return value
  const entries = Object.entries(value).flatMap(([name, item]) => {
    const inner = schema.fields?.[name] ?? schema.each ?? {}
    const isEmpty = Array.isArray(item) ? item.length === 0 : inner.each !== undefined && isEqual(item, {})
    return isEmpty ? [] : [[name, withoutEmpty(item, inner)] as const]
  })
  return Object.fromEntries(entries)
}

/** @shape (object, schema) -> its fields, as whoever applies the object owns them */
export const fieldsOf = (value: unknown, schema: MergeSchema): Fields => {
  const fields = new Set<string>()
  const walk = (path: string, parts: ReadonlyArray<Part>): void => {
    for (const part of parts) {
      const at = join(path, part.step)
      const inner = partsOf(part.value, part.schema)
      const isLeaf = inner.length === 0 && !(isList(part.schema) && Array.isArray(part.value))
      if (part.member || isLeaf) fields.add(at)
      walk(at, inner)
    }
  }
  walk("", partsOf(value, schema))
  return fields
}

const isList = (schema: MergeSchema) => schema.keys !== undefined || schema.set === true

export interface Comparison {
  readonly added: Fields
  readonly changed: Fields
  readonly removed: Fields
}

/** @shape (old, new, schema) -> what is different; whatever holds something new is new as well */
export const compare = (before: unknown, after: unknown, schema: MergeSchema): Comparison => {
  const [added, changed, removed] = [new Set<string>(), new Set<string>(), new Set<string>()]
  const walk = (path: string, one: unknown, other: unknown, at: MergeSchema): void => {
    if (one === other) return
    const [parts, others] = [partsOf(one, at), partsOf(other, at)]
    const isLeaf = parts.length === 0 && others.length === 0
    if (one === undefined) added.add(path)
    else if (other === undefined) removed.add(path)
    else if (isLeaf && !isEqual(one, other)) changed.add(path)
    const left = new Map(parts.map((part) => [part.step, part.value]))
    const right = new Map(others.map((part) => [part.step, part.value]))
    const schemas = new Map([...parts, ...others].map((part) => [part.step, part.schema]))
    for (const [step, inner] of schemas) walk(join(path, step), left.get(step), right.get(step), inner)
  }
  walk("", before, after, schema)
  return { added, changed, removed }
}

/**
 * What is left empty is null: it is not there any more, but whoever owns it does so still.
 *
 * @shape (object, fields, schema) -> the object without them
 */
export const remove = (value: unknown, fields: Fields, schema: MergeSchema, path = ""): unknown => {
  const parts = partsOf(value, schema)
  if (parts.length === 0) return value
  const kept = parts.flatMap((part) => {
    const at = join(path, part.step)
    return fields.has(at) ? [] : [{ step: part.step, left: remove(part.value, fields, part.schema, at) }]
  })
  if (kept.length === 0) return null
  return Array.isArray(value)
    ? kept.map(({ left }) => left)
    : Object.fromEntries(kept.map(({ left, step }) => [step.slice(2), left]))
}

/** With the objects that hold them: those are not owned by name, but stay for what is in them. */
export const closed = (fields: Fields, schema: MergeSchema): Fields => {
  const all = new Set(fields)
  for (const path of fields) {
    let [at, above] = [schema, ""]
    for (const step of stepsOf(path).slice(0, -1)) {
      above = join(above, step)
      const isNamed = step.startsWith("f:")
      if (isNamed && at.each === undefined) all.add(above)
      at = (isNamed ? (at.fields?.[step.slice(2)] ?? at.each) : at.item) ?? {}
    }
  }
  return all
}

interface Tree {
  [step: string]: Tree
}

/** What was decoded, both ways: most fields outlive many writes. Entries are frozen and live as long as their object. */
const decoded = new WeakMap<JsonObject, Fields>()
const encoded = new WeakMap<Fields, JsonObject>()

/** @shape fields -> FieldsV1 */
export const encode = (fields: Fields): JsonObject => {
  const known = encoded.get(fields)
  if (known !== undefined) return known
  const root: Tree = {}
  // Whatever holds others comes before them.
  for (const path of [...fields].sort()) {
    let node = root
    let at = ""
    for (const step of stepsOf(path)) {
      if (fields.has(at)) node["."] = {}
      at = join(at, step)
      const child = node[step] ?? {}
      node[step] = child
      node = child
    }
  }
  return root
}

/** @shape FieldsV1 -> fields */
export const decode = (fieldsV1: JsonObject): Fields => {
  const known = decoded.get(fieldsV1)
  if (known !== undefined) return known
  const fields = new Set<string>()
  const walk = (path: string, node: JsonObject): void => {
    const inner = Object.entries(node)
    if (path !== "" && (inner.length === 0 || "." in node)) fields.add(path)
    for (const [step, child] of inner) if (step !== "." && isObject(child)) walk(join(path, step), child)
  }
  walk("", fieldsV1)
  if (Object.isFrozen(fieldsV1)) {
    decoded.set(fieldsV1, fields)
    encoded.set(fields, fieldsV1)
  }
  return fields
}

/** What an entry of metadata.managedFields says besides its fields. */
export interface Author {
  readonly manager: string
  readonly operation: "Apply" | "Update"
  readonly apiVersion: string
  readonly subresource?: string
}

export interface Owner extends Author {
  /** Of the last write that gave it a field. */
  readonly time?: string
  readonly fields: Fields
}

/** Whoever applies is the same in all versions. */
export const idOf = ({ apiVersion, manager, operation, subresource }: Author): string =>
  JSON.stringify({
    manager,
    operation,
    ...(operation === "Update" ? { apiVersion } : {}),
    ...(subresource === undefined ? {} : { subresource })
  })

const ownerOf = (entry: unknown): Owner | undefined => {
  if (!isObject(entry)) return undefined
  const { fieldsV1, operation, subresource, time } = entry
  if ((operation !== "Apply" && operation !== "Update") || !isObject(fieldsV1)) return undefined
  return {
    manager: textAt(entry, "manager") ?? "",
    operation,
    apiVersion: textAt(entry, "apiVersion") ?? "",
    ...(typeof subresource === "string" && subresource !== "" ? { subresource } : {}),
    ...(typeof time === "string" ? { time } : {}),
    fields: decode(fieldsV1)
  }
}

/** Undefined when one of them cannot be read. */
const ownersIn = (object: JsonObject): ReadonlyArray<Owner> | undefined => {
  const entries = listAt(metadataOf(object), "managedFields")
  const owners = entries.flatMap((entry) => ownerOf(entry) ?? [])
  return owners.length === entries.length ? owners : undefined
}

/** Nobody is the owner of anything any more, until somebody applies: [] or [{}]. */
const isReset = (object: JsonObject): boolean => {
  const entries = metadataOf(object)["managedFields"]
  return Array.isArray(entries) && (entries.length === 0 || isEqual(entries, [{}]))
}

/**
 * Who owned what before a write. Whoever writes may say so; who does not know of managedFields does not take them away.
 *
 * @shape (the object as it was, or undefined; the object as it was sent) -> owners
 */
export const ownersBefore = (live: JsonObject | undefined, sent?: JsonObject): ReadonlyArray<Owner> => {
  if (sent !== undefined && isReset(sent)) return []
  const named = sent === undefined ? [] : (ownersIn(sent) ?? [])
  return named.length > 0 || live === undefined ? named : (ownersIn(live) ?? [])
}

const NOT_OWNED = ["name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation"]
const STRIPPED: Fields = new Set([
  ...["f:apiVersion", "f:kind", "f:metadata"],
  ...[...NOT_OWNED, "managedFields", "resourceVersion"].map((name) => join("f:metadata", `f:${name}`))
])

/** The same set, when it loses nothing. */
export const minus = (fields: Fields, lost: Fields): Fields =>
  fields.isDisjointFrom(lost) ? fields : fields.difference(lost)

/** Without those that nobody owns. */
export const stripped = (fields: Fields): Fields => fields.difference(STRIPPED)

/**
 * Who owns what after an ordinary write: what it set is its author's alone.
 *
 * @shape (owners before, what was different, author, time) -> owners
 */
export const afterUpdate = (
  owners: ReadonlyArray<Owner>,
  { added, changed, removed }: Comparison,
  author: Author,
  time: string
): ReadonlyArray<Owner> => {
  const taken = added.union(changed)
  const set = stripped(taken)
  const lost = taken.union(removed)
  const left = owners.map((owner) => ({ ...owner, fields: minus(owner.fields, lost) }))
  if (set.size === 0) return left.filter(({ fields }) => fields.size > 0)
  const mine = left.find((owner) => idOf(owner) === idOf(author))
  const others = left.filter((owner) => owner !== mine && owner.fields.size > 0)
  return [...others, { ...author, time, fields: mine === undefined ? set : set.union(mine.fields) }]
}

const rank = ({ apiVersion, manager, operation, subresource = "", time = "" }: Owner): string =>
  [operation, time, manager, apiVersion, subresource].join(SEPARATOR)

/** @shape owners -> metadata.managedFields, in the API server's order */
export const entriesOf = (owners: ReadonlyArray<Owner>): ReadonlyArray<JsonObject> =>
  [...owners]
    .sort((one, other) => (rank(one) < rank(other) ? -1 : 1))
    .map(({ apiVersion, fields, manager, operation, subresource, time }) => ({
      manager,
      operation,
      apiVersion,
      ...(time === undefined ? {} : { time }),
      fieldsType: "FieldsV1",
      fieldsV1: encode(fields),
      ...(subresource === undefined ? {} : { subresource })
    }))
