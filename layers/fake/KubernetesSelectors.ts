/**
 * Label and field selectors, as lists and watches of the API server take them.
 */
import { isObject, type JsonObject, metadataOf, textAt } from "./KubernetesObject.ts"

export type Selector = (object: JsonObject) => boolean

/** The words of the API server's 400. */
export class SelectorRefused extends Error {}

/** At commas that are not between parentheses. */
const split = (selector: string): ReadonlyArray<string> =>
  selector
    .split(/,(?![^(]*\))/u)
    .map((part) => part.trim())
    .filter((part) => part !== "")

const REQUIREMENT = /^(!?)\s*([^\s=!(),]+)\s*(?:(=|==|!=)\s*([^\s=!(),]*)|\s(in|notin)\s*\(([^()]*)\))?$/u

const requirement = (part: string): Selector => {
  const [matched, negation, key = "", operator, value = "", setOperator, members = ""] = REQUIREMENT.exec(part) ?? []
  if (matched === undefined || (negation === "!" && (operator ?? setOperator) !== undefined)) {
    throw new SelectorRefused(`unable to parse requirement: found ${JSON.stringify(part)}`)
  }
  const set = new Set(members.split(",").map((member) => member.trim()))
  const holds = (label: string | undefined): boolean => {
    if (operator === "!=") return label !== value
    if (operator !== undefined) return label === value
    if (setOperator === "notin") return label === undefined || !set.has(label)
    if (setOperator === "in") return label !== undefined && set.has(label)
    return (label === undefined) === (negation === "!")
  }
  return (object) => {
    const labels = metadataOf(object)["labels"]
    return holds(isObject(labels) ? textAt(labels, key) : undefined)
  }
}

/**
 * @shape  ("a=b,c!=d,e,!f,g in (h,i)") -> selector
 * @errors throws SelectorRefused
 */
export const parseLabelSelector = (selector: string): Selector => {
  const requirements = split(selector).map(requirement)
  return (object) => requirements.every((holds) => holds(object))
}

const FIELD = /^([A-Za-z][A-Za-z.]*)(=|==|!=)([^=!,]*)$/u

const fieldOf = (object: JsonObject, path: string): string => {
  let value: unknown = object
  for (const key of path.split(".")) value = isObject(value) ? value[key] : undefined
  return value === undefined || value === null ? "" : String(value)
}

/**
 * @shape  ("metadata.name=a,spec.nodeName!=b", the kind's own fields) -> selector
 * @errors throws SelectorRefused, also for a field that the kind cannot be selected by
 */
export const parseFieldSelector = (selector: string, fields: ReadonlyArray<string>): Selector => {
  const terms = split(selector).map((part): Selector => {
    const [, path, operator, value] = FIELD.exec(part) ?? []
    if (path === undefined) throw new SelectorRefused(`invalid selector: ${JSON.stringify(selector)}`)
    if (path !== "metadata.name" && path !== "metadata.namespace" && !fields.includes(path)) {
      throw new SelectorRefused(`field label not supported: ${path}`)
    }
    return (object) => (fieldOf(object, path) === value) === (operator !== "!=")
  })
  return (object) => terms.every((holds) => holds(object))
}
