/**
 * Server-side apply: what an object becomes when somebody says which fields it shall have, and who is in the way.
 *
 * Whoever applies owns what is applied. What it applied before and does not any more goes, unless somebody else owns it
 * as well; a value that somebody else owns and that would change is a conflict, unless it is taken by force.
 *
 * @source sigs.k8s.io/structured-merge-diff, merge/update.go and typed/merge.go
 */
import { isEqual, isObject, type JsonObject } from "./KubernetesObject.ts"
import {
  type Author,
  afterUpdate,
  closed,
  compare,
  type Fields,
  fieldsOf,
  idOf,
  join,
  type MergeSchema,
  minus,
  type Owner,
  partsOf,
  remove,
  stepsOf,
  stripped
} from "./ManagedFields.ts"

export interface Conflict {
  readonly owner: Author
  readonly path: string
}

export type Applied =
  | { readonly _tag: "Applied"; readonly object: JsonObject; readonly owners: ReadonlyArray<Owner> }
  | { readonly _tag: "Conflicts"; readonly conflicts: ReadonlyArray<Conflict> }

/**
 * The applied order, with what only the other list has where it is: before what it is followed by.
 *
 * @shape (steps of the living list, steps of the applied one) -> steps of the merged list
 */
const mergedOrder = (live: ReadonlyArray<string>, applied: ReadonlyArray<string>): ReadonlyArray<string> => {
  const shared = applied.filter((step) => live.includes(step))
  const order: Array<string> = []
  let taken = 0
  for (const step of live) {
    if (!applied.includes(step)) order.push(step)
    else if (step === shared[0]) {
      const to = applied.indexOf(step) + 1
      order.push(...applied.slice(taken, to))
      taken = to
      shared.shift()
    }
  }
  return [...order, ...applied.slice(taken)]
}

/** @shape (living, applied, schema) -> the living, with all that is applied */
export const merge = (live: unknown, applied: unknown, schema: MergeSchema): unknown => {
  if (applied === undefined) return live
  const [parts, others] = [partsOf(live, schema), partsOf(applied, schema)]
  const isList = Array.isArray(live) && Array.isArray(applied)
  const isSame = schema.atomic !== true && (isList ? (schema.keys ?? schema.set) : isObject(live) && isObject(applied))
  if (!isSame) return applied
  const [left, right] = [new Map(parts.map((it) => [it.step, it])), new Map(others.map((it) => [it.step, it]))]
  const merged = mergedOrder([...left.keys()], [...right.keys()]).map((step) => {
    const [one, other] = [left.get(step), right.get(step)]
    return { step, value: merge(one?.value, other?.value, other?.schema ?? {}) }
  })
  return isList
    ? merged.map(({ value }) => value)
    : Object.fromEntries(merged.map(({ step, value }) => [step.slice(2), value]))
}

/**
 * Takes off what its author applied last time: all of it, then back what anybody owns now, then back what the author did
 * not own.
 *
 * @shape (merged, what the author owned, what is owned now, schema) -> what is left
 */
const prune = (merged: unknown, last: Fields, owned: Fields, schema: MergeSchema): unknown => {
  if (last.size === 0) return merged
  const mine = closed(last, schema)
  const fieldsAfter = (gone: Fields) => closed(fieldsOf(remove(merged, gone, schema), schema), schema)
  const all = closed(fieldsOf(merged, schema), schema)
  const staying = fieldsAfter(all.difference(fieldsAfter(mine).union(closed(owned, schema))))
  return remove(merged, all.difference(staying).intersection(mine), schema)
}

/** As the API server reads a set aloud: fields of an object before what is in its other fields. */
const inOrder = (one: string, other: string): number => {
  const [left, right] = [stepsOf(one), stepsOf(other)]
  const at = left.findIndex((step, index) => step !== right[index])
  if (at === -1 || right[at] === undefined) return left.length - right.length
  const [isLast, isOtherLast] = [at === left.length - 1, at === right.length - 1]
  if (isLast !== isOtherLast) return isLast ? -1 : 1
  return String(left[at]) < String(right[at]) ? -1 : 1
}

/** @shape path -> `.spec.containers[name="a"].image` */
const pathWords = (path: string): string =>
  stepsOf(path)
    .map((step) => {
      const [kind, rest] = [step.slice(0, 2), step.slice(2)]
      if (kind === "f:") return `.${rest}`
      if (kind === "v:") return `[=${rest}]`
      const keys: unknown = JSON.parse(rest)
      const named = Object.entries(isObject(keys) ? keys : {}).map(([key, value]) => `${key}=${JSON.stringify(value)}`)
      return `[${named.join(",")}]`
    })
    .join("")

/** @shape (object, schema) -> ".metadata.finalizers: duplicate entries for key ...", when a list names something twice */
export const duplicateIn = (value: unknown, schema: MergeSchema, path = ""): string | undefined => {
  const seen = new Set<string>()
  for (const { schema: inner, step, value: part } of partsOf(value, schema)) {
    if (seen.has(step)) return `${pathWords(path)}: duplicate entries for key ${pathWords(step)}`
    seen.add(step)
    const found = duplicateIn(part, inner, join(path, step))
    if (found !== undefined) return found
  }
  return undefined
}

/** @shape (object, schema) -> ["spec.parameters", "object"] of each null in it */
export const nullsIn = (
  value: unknown,
  schema: MergeSchema,
  path = ""
): ReadonlyArray<readonly [path: string, type: "array" | "object"]> =>
  partsOf(value, schema).flatMap(({ schema: inner, step, value: part }) => {
    const at = join(path, step)
    if (part !== null) return nullsIn(part, inner, at)
    return [[pathWords(at).slice(1), inner.keys === undefined && inner.set !== true ? "object" : "array"] as const]
  })

export interface Application {
  /** Without managedFields; undefined when there is no such object yet. */
  readonly live: JsonObject | undefined
  /** What every object of the kind has from the beginning: nobody wrote it. */
  readonly blank: JsonObject
  readonly applied: JsonObject
  /** Before it. */
  readonly owners: ReadonlyArray<Owner>
  readonly author: Author
  readonly force: boolean
  readonly time: string
  readonly schema: MergeSchema
}

/**
 * Decides what one apply does.
 *
 * @shape  application -> the object and its owners, or who is in the way
 * @errors none: a conflict is a case
 */
export const apply = ({ applied, author, blank, force, live, owners, schema, time }: Application): Applied => {
  // Until somebody applies, it may not be known who wrote an object: then it is all one author's.
  const unknown: Author = { ...author, manager: "before-first-apply", operation: "Update" }
  const before =
    owners.length > 0 || live === undefined ? owners : afterUpdate([], compare(blank, live, schema), unknown, time)
  const previous = before.find((owner) => idOf(owner) === idOf(author))
  const others = before.filter((owner) => owner !== previous)
  const fields = fieldsOf(applied, schema)
  const owned = others.reduce<Fields>((all, owner) => all.union(owner.fields), fields)
  const pruned = prune(merge(live ?? {}, applied, schema), previous?.fields ?? new Set(), owned, schema)
  const object = isObject(pruned) ? pruned : {}
  const { added, changed, removed } = compare(live ?? blank, object, schema)
  const taken = added.union(changed)
  const conflicts = others.flatMap((owner) =>
    [...owner.fields.intersection(taken)].sort(inOrder).map((path) => ({ owner, path }))
  )
  if (conflicts.length > 0 && !force) return { _tag: "Conflicts", conflicts }
  const lost = taken.union(removed)
  const isChange = live === undefined || !isEqual(live, object)
  const written = isChange ? time : previous?.time
  const mine: Owner = { ...author, ...(written === undefined ? {} : { time: written }), fields: stripped(fields) }
  const left = others.map((owner) => ({ ...owner, fields: minus(owner.fields, lost) }))
  return { _tag: "Applied", object, owners: [...left, mine].filter((owner) => owner.fields.size > 0) }
}

const ownerWords = ({ apiVersion, manager, operation, subresource }: Author): string => {
  const name = JSON.stringify(manager)
  const whole = subresource === undefined ? name : `${name} with subresource ${JSON.stringify(subresource)}`
  return operation === "Update" ? `${whole} using ${apiVersion}` : whole
}

/** What a Status says in details.causes. */
export interface Cause {
  readonly reason: string
  readonly message: string
  readonly field: string
}

/**
 * The API server's words.
 *
 * @source k8s.io/apimachinery, pkg/util/managedfields/internal/conflict.go
 */
export const conflictWords = (
  conflicts: ReadonlyArray<Conflict>
): { readonly message: string; readonly causes: ReadonlyArray<Cause> } => {
  const causes = conflicts.map(({ owner, path }) => ({
    reason: "FieldManagerConflict",
    message: `conflict with ${ownerWords(owner)}`,
    field: pathWords(path)
  }))
  const [first] = causes
  if (causes.length === 1 && first !== undefined) {
    return { message: `Apply failed with 1 conflict: ${first.message}: ${first.field}`, causes }
  }
  const byOwner = Map.groupBy(conflicts, ({ owner }) => idOf(owner))
  const lines = [...byOwner]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .flatMap(([, list]) => [
      ...list.slice(0, 1).map(({ owner }) => `conflicts with ${ownerWords(owner)}:`),
      ...list.map(({ path }) => `- ${pathWords(path)}`)
    ])
  return { message: `Apply failed with ${conflicts.length} conflicts: ${lines.join("\n")}`, causes }
}
