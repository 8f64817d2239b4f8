/**
 * Plain JSON as the API server in memory handles it: made once, frozen, compared and merged by value.
 */

import { isObject, type JsonObject, objectAt } from "../../schemas/Json.ts"

export { isEqual, isObject, type JsonObject, listAt, objectAt, textAt, without } from "../../schemas/Json.ts"

export const metadataOf = (object: JsonObject): JsonObject => objectAt(object, "metadata")

/** A copy as JSON would carry it, without the nulls in objects: what Go writes for "not there". */
export const clean = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map((item) => (item === undefined ? null : clean(item)))
  if (!isObject(value)) return value
  const cleaned: Record<string, unknown> = {}
  for (const [key, item] of Object.entries(value)) {
    // "__proto__" is a key like any other.
    if (item !== undefined && item !== null) {
      Object.defineProperty(cleaned, key, { value: clean(item), enumerable: true, writable: true, configurable: true })
    }
  }
  return cleaned
}

/** Every reader is given the same object, so nobody may change it. */
export const freeze = <A>(value: A): A => {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const item of Object.values(value)) freeze(item)
  }
  return value
}

/** @source RFC 7386 */
export const mergePatch = (target: unknown, patch: unknown): unknown => {
  if (!isObject(patch)) return patch
  const merged = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) merged.delete(key)
    else if (value !== undefined) merged.set(key, mergePatch(merged.get(key), value))
  }
  return Object.fromEntries(merged)
}
