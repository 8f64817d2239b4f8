/**
 * The status as several field managers apply it, each its own part: what one of them has said before is found in the
 * object's managedFields, a condition keeps its time while its status stays the same, and what is the same is not sent.
 *
 * @source reference/operator.md 3.1
 */
import { Option, Schema } from "effect"
import type { ClusterCSIDriver, Condition, Generation } from "../../schemas/ClusterCSIDriver.ts"
import { isEqual, isObject, type JsonObject, objectAt, textAt } from "../../schemas/Json.ts"
import type { Report } from "./Conditions.ts"
import { DRIVER_NAME, STALE_CONDITION } from "./Names.ts"

const ManagedFields = Schema.Array(
  Schema.Struct({
    manager: Schema.optionalKey(Schema.String),
    operation: Schema.optionalKey(Schema.String),
    subresource: Schema.optionalKey(Schema.String),
    fieldsV1: Schema.optionalKey(Schema.Unknown)
  })
)
const decodeManagedFields = Schema.decodeUnknownOption(ManagedFields)

/** What one field manager says of the status. */
export interface Part {
  readonly conditions?: ReadonlyArray<JsonObject>
  readonly generations?: ReadonlyArray<JsonObject>
  readonly observedGeneration?: number
  readonly readyReplicas?: number
  readonly version?: string
}

/** The tree of fields below `status` that this manager applied. */
const ownedBy = (it: ClusterCSIDriver, fieldManager: string): JsonObject => {
  const entries = Option.getOrElse(decodeManagedFields(it.metadata["managedFields"]), () => [])
  const entry = entries.find(
    ({ manager, operation, subresource }) =>
      manager === fieldManager && operation === "Apply" && subresource === "status"
  )
  return isObject(entry?.fieldsV1) ? objectAt(entry.fieldsV1, "f:status") : {}
}

const conditionKey = ({ type }: Condition): string => `k:${JSON.stringify({ type })}`
const generationKey = ({ group, name, namespace, resource }: Generation): string =>
  `k:${JSON.stringify({ group, name, namespace, resource })}`

const compare = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0)
const byType = (one: Condition, other: Condition): number => compare(one.type, other.type)
const byGenerationKey = (one: Generation, other: Generation): number =>
  compare(generationKey(one), generationKey(other))

const SCALARS = ["observedGeneration", "readyReplicas", "version"] as const

const nonEmpty = <A>(key: "conditions" | "generations", items: ReadonlyArray<A>) =>
  items.length === 0 ? {} : { [key]: items }

/** What others have put into an item beside us is theirs. */
const ownedOf = (item: JsonObject, tree: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(item).filter(([key]) => Object.hasOwn(tree, `f:${key}`)))

/** @shape (items in order, tree of owned fields, key of an item) -> those that are owned, as far as they are */
const ownedItems = <A extends JsonObject>(
  items: ReadonlyArray<A>,
  trees: JsonObject,
  keyOf: (item: A) => string
): ReadonlyArray<JsonObject> =>
  items.filter((item) => Object.hasOwn(trees, keyOf(item))).map((item) => ownedOf(item, objectAt(trees, keyOf(item))))

/** @shape (live object, field manager) -> its part as it is now; fields that it shares with others count */
export const previousPart = (it: ClusterCSIDriver, fieldManager: string): Part => {
  const owned = ownedBy(it, fieldManager)
  const { conditions = [], generations = [], observedGeneration, readyReplicas, version } = it.status ?? {}
  const scalars = { observedGeneration, readyReplicas, version }
  return {
    ...nonEmpty("conditions", ownedItems([...conditions].sort(byType), objectAt(owned, "f:conditions"), conditionKey)),
    ...nonEmpty(
      "generations",
      ownedItems([...generations].sort(byGenerationKey), objectAt(owned, "f:generations"), generationKey)
    ),
    ...Object.fromEntries(
      SCALARS.flatMap((key) =>
        Object.hasOwn(owned, `f:${key}`) && scalars[key] !== undefined ? [[key, scalars[key]]] : []
      )
    )
  }
}

/** @shape (report, its part as it is, RFC 3339) -> the part as it is to be */
const nextPart = (report: Report, previous: Part, now: string): Part => {
  const conditions = report.conditions
    .map((finding): Condition => {
      const before = previous.conditions?.find(({ type }) => type === finding.type) ?? {}
      const since = before["status"] === finding.status ? textAt(before, "lastTransitionTime") : undefined
      return { ...finding, lastTransitionTime: since ?? now }
    })
    .sort(byType)
  const generations = [...(report.generations ?? [])].sort(byGenerationKey)
  return {
    ...nonEmpty("conditions", conditions),
    ...nonEmpty("generations", generations),
    ...Object.fromEntries(SCALARS.flatMap((key) => (report[key] === undefined ? [] : [[key, report[key]]])))
  }
}

/** An object for server-side apply, and who applies it. */
export interface StatusApply {
  readonly fieldManager: string
  readonly body: JsonObject
}

/**
 * @shape  (live object, reports, RFC 3339 in whole seconds) -> what is to be sent; nothing of what is right already
 * @errors none
 */
export const statusApplies = (
  it: ClusterCSIDriver,
  reports: ReadonlyArray<Report>,
  now: string
): ReadonlyArray<StatusApply> =>
  reports.flatMap((report) => {
    const previous = previousPart(it, report.fieldManager)
    const next = nextPart(report, previous, now)
    if (isEqual(previous, next)) return []
    const body = {
      apiVersion: "operator.openshift.io/v1",
      kind: "ClusterCSIDriver",
      metadata: { name: DRIVER_NAME },
      // Whoever has nothing to say any more must not say an empty status: the API server would keep a null of it.
      ...(Object.keys(next).length === 0 ? {} : { status: next })
    }
    return [{ fieldManager: report.fieldManager, body }]
  })

/**
 * A merge patch of the status that takes away what no operator says any more. It belongs to somebody who has never
 * applied, so applying cannot take it away.
 *
 * @shape  (live object) -> patch, for this version only; undefined when there is nothing to take away
 * @errors none
 * @source reference/operator.md 3.11
 */
export const staleRemoval = ({ metadata, status }: ClusterCSIDriver): JsonObject | undefined => {
  const conditions = status?.conditions ?? []
  const kept = conditions.filter(({ type }) => type !== STALE_CONDITION)
  return kept.length === conditions.length
    ? undefined
    : { metadata: { resourceVersion: metadata.resourceVersion }, status: { conditions: kept } }
}
