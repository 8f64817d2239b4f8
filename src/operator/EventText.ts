/**
 * What the operator says about objects that it has made, changed and deleted, or could not. The words are those that
 * people and scripts know; the reason begins with the object's kind.
 */
import type { OperatorEvent } from "./OperatorEvents.ts"

export interface Named {
  readonly kind: string
  /** Empty for the core group. */
  readonly group: string
  readonly name: string
  readonly namespace?: string | undefined
}

type Text = Omit<OperatorEvent, "component">

/** @shape (object) -> "DaemonSet.apps/name -n namespace" */
const textOf = ({ group, kind, name, namespace }: Named): string =>
  `${kind}${group === "" ? "" : `.${group}`}/${name}${namespace === undefined || namespace === "" ? "" : ` -n ${namespace}`}`

const normal = ({ kind }: Named, what: string, message: string): Text => ({
  type: "Normal",
  reason: `${kind}${what}`,
  message
})

const failed = (object: Named, what: string, verb: string, error: { readonly message: string }): Text => ({
  type: "Warning",
  reason: `${object.kind}${what}`,
  message: `Failed to ${verb} ${textOf(object)}: ${error.message}`
})

/** @source reference/operator.md 3.12, 4.5 */
export const created = (object: Named): Text =>
  normal(object, "Created", `Created ${textOf(object)} because it was missing`)

/**
 * @shape  (object, details: lines, none when there are none) -> event
 * @source reference/operator.md 3.12, 4.5
 */
export const updated = (object: Named, details: ReadonlyArray<string> = []): Text =>
  normal(
    object,
    "Updated",
    details.length === 0
      ? `Updated ${textOf(object)} because it changed`
      : `Updated ${textOf(object)}:\n${details.join("\n")}`
  )

/**
 * @shape  (object, details: lines, none when there are none) -> event
 * @source reference/operator.md 3.12, 4.5
 */
export const deleted = (object: Named, details: ReadonlyArray<string> = []): Text =>
  normal(object, "Deleted", [`Deleted ${textOf(object)}${details.length === 0 ? "" : ":"}`, ...details].join("\n"))

/** @shape (object, error: its message is told) -> event, also of the next two; @source reference/operator.md 4.5 */
export const createFailed = (object: Named, error: { readonly message: string }): Text =>
  failed(object, "CreateFailed", "create", error)

export const updateFailed = (object: Named, error: { readonly message: string }): Text =>
  failed(object, "UpdateFailed", "update", error)

export const deleteFailed = (object: Named, error: { readonly message: string }): Text =>
  failed(object, "DeleteFailed", "delete", error)

/**
 * The line about a ConfigMap that was updated: always one, and empty when no data changed.
 *
 * @shape  (keys of data that were added, changed or removed) -> details
 * @source reference/operator.md 4.5
 */
export const configMapDetails = (keys: ReadonlyArray<string>): ReadonlyArray<string> => [
  keys.length === 0
    ? ""
    : `cause by changes in ${[...keys]
        .sort()
        .map((key) => `data.${key}`)
        .join(",")}`
]
