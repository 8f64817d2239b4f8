/**
 * What the operator makes of a cluster, as files to review: what is observed, what is done, in order and with its
 * objects, and what is reported, by field manager. `UPDATE_GOLDEN=1 npx vitest run test/golden/Operator.test.ts` writes
 * them again, and the diff is the test.
 *
 * Only the fresh installation has whole objects. Elsewhere an object that is created says how it differs from the one
 * there, and an update says what of the live object it changes.
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { stringify } from "yaml"
import { isEqual, isObject, type JsonObject, objectAt, without } from "../../schemas/Json.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import { type Finding, type Report, reports } from "../../src/operator/Conditions.ts"
import { withDefaults } from "../../src/operator/DaemonSetDefaults.ts"
import { daemonSetId } from "../../src/operator/Desired.ts"
import { keyOf } from "../../src/operator/Kinds.ts"
import { type Action, plan } from "../../src/operator/Plan.ts"
import { carriedOut, fixed, observed, settled, withImages } from "../support/OperatorFixtures.ts"
import { CASES, FRESH, type Golden } from "../support/OperatorStates.ts"

const directory = fileURLToPath(new URL("operator", import.meta.url))
const isUpdate = process.env["UPDATE_GOLDEN"] === "1"

const isWord = (key: string): boolean => /^[A-Za-z0-9_-]+$/u.test(key)
const below = (path: string, key: string): string => {
  if (!isWord(key)) return `${path}["${key}"]`
  return path === "" ? key : `${path}.${key}`
}

/** By path: what is new or other, and null for what is gone. Lists are compared item by item when they are as long. */
const differences = (before: unknown, after: unknown, path = ""): JsonObject => {
  if (isEqual(before, after)) return {}
  if (isObject(before) && isObject(after)) {
    const keys = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    return Object.assign({}, ...keys.map((key) => differences(before[key], after[key], below(path, key))))
  }
  if (Array.isArray(before) && Array.isArray(after) && before.length === after.length) {
    return Object.assign({}, ...after.map((item, index) => differences(before[index], item, `${path}[${index}]`)))
  }
  return { [path]: after ?? null }
}

/** What the fresh installation creates, by key. */
const installed = new Map(
  plan(observed(), fixed).actions.flatMap((action) =>
    action._tag === "Apply" && action.change._tag === "Create" ? [[action.key, action.change.object] as const] : []
  )
)

/** The API server fills in what it took away from nobody. */
const asKept = (object: Manifest): JsonObject =>
  object.kind === "DaemonSet" ? { ...object, spec: withDefaults(objectAt(object, "spec")) } : object

const createdAs = (key: string, object: Manifest): JsonObject => {
  const known = installed.get(key)
  if (known === undefined) return { object }
  const changed = differences(known, object)
  return Object.keys(changed).length === 0 ? { object: `as in ${FRESH}` } : { [`as in ${FRESH}, but`]: changed }
}

const described = (action: Action, { given }: Golden, isWhole: boolean): JsonObject => {
  const requires = action.requires.length === 0 ? {} : { requires: action.requires }
  const head = (verb: string): JsonObject => ({ [verb]: action.key })
  switch (action._tag) {
    case "EnsureFinalizer":
    case "RemoveFinalizer":
      return { ...head(action._tag), finalizers: action.finalizers }
    case "Remember":
      return { ...head(action._tag), ...requires, value: action.value }
    case "Delete":
      return { ...head(action._tag), uid: action.uid }
    case "Apply": {
      const { change } = action
      if (change._tag === "Update") {
        const { resourceVersion } = change.object.metadata
        const changes = differences(given.live.get(action.key), asKept(change.object))
        return { ...head("Update"), ...requires, resourceVersion, changes }
      }
      const object = isWhole ? { object: change.object } : createdAs(action.key, change.object)
      if (change._tag === "Create") return { ...head("Create"), ...object }
      return { ...head("Recreate"), ...requires, uid: change.uid, ...object }
    }
  }
}

const ALL = new Set(installed.keys())

/** Metadata as far as it differs from state to state. */
const ownMetadata = (metadata: JsonObject): JsonObject =>
  without(metadata, "name", "uid", "resourceVersion", "generation")

/** Of what is observed, what is not as in an OpenShift cluster without an operand. */
const seen = ({ given }: Golden): JsonObject => {
  const { clusterCsiDriver, live, servedGroups, syncNamespaces, unread, ...rest } = given
  const ordinary = observed()
  const same = new Set(
    Object.entries(ordinary).flatMap(([key, value]) => (isEqual(value, Reflect.get(given, key)) ? [key] : []))
  )
  const { metadata, spec, status } = clusterCsiDriver ?? { metadata: undefined }
  return {
    clusterCSIDriver:
      clusterCsiDriver === undefined
        ? null
        : { ...ownMetadata(metadata ?? {}), spec, ...(status === undefined ? {} : { status }) },
    exists: isEqual([...live.keys()].sort(), [...ALL].sort()) ? `all of ${FRESH}` : [...live.keys()],
    ...(unread.size === 0 ? {} : { unread: Object.fromEntries(unread) }),
    ...(syncNamespaces?.size === 0
      ? {}
      : { syncNamespaces: syncNamespaces === undefined ? null : [...syncNamespaces] }),
    ...(isEqual([...(servedGroups ?? [])], [...(ordinary.servedGroups ?? [])])
      ? {}
      : { servedGroups: servedGroups === undefined ? null : [...servedGroups] }),
    ...Object.fromEntries(Object.entries(rest).filter(([key, value]) => !same.has(key) && value !== undefined))
  }
}

const words = ({ message, reason, status }: Finding): string =>
  [[status, reason].filter((word) => word !== undefined).join(" "), message].filter((it) => it !== undefined).join(": ")

const reported = ({ conditions, fieldManager, ...rest }: Report): readonly [string, JsonObject] => [
  fieldManager,
  { ...Object.fromEntries(conditions.map((finding) => [finding.type, words(finding)])), ...rest }
]

const render = (golden: Golden): string => {
  const { given, images = fixed.config.images, name, row, shows, title } = golden
  const by = withImages(images)
  const planned = plan(given, by)
  const outcome = carriedOut(given.live, planned.actions)
  const { actions, management, removal, ...rest } = planned
  const problems = Object.fromEntries(Object.entries(rest).filter(([, value]) => !isEqual(value, [])))
  const document = {
    description: `${row}: ${title}`,
    observed: { ...seen(golden), ...(isEqual(images, fixed.config.images) ? {} : { images }) },
    ...(shows === undefined ? {} : { "of which": shows(given) }),
    plan: {
      management,
      ...(removal === undefined ? {} : { removal }),
      ...problems,
      actions: actions.map((action) => described(action, golden, name === FRESH))
    },
    reports: Object.fromEntries(reports(given, planned, outcome, by).map(reported))
  }
  return stringify(document, { lineWidth: 120, aliasDuplicateObjects: false })
}

const fileOf = ({ name }: Golden): string => `${name}.yaml`

describe("goldens of the operator", () => {
  if (isUpdate) {
    const names = new Set(CASES.map(fileOf))
    for (const name of readdirSync(directory)) if (!names.has(name)) rmSync(join(directory, name))
    for (const golden of CASES) writeFileSync(join(directory, fileOf(golden)), render(golden))
  }

  it("there is one file per state, and no other", () => {
    assert.deepStrictEqual(readdirSync(directory).sort(), CASES.map(fileOf).sort())
  })

  it.each(CASES)("Q26 $name comes to rest, with at most one rollout", ({ given, images }) => {
    const key = keyOf(daemonSetId(fixed.config.namespace))
    const generationIn = ({ live }: typeof given) => live.get(key)?.metadata.generation ?? 0
    const rest = settled(given, withImages(images ?? fixed.config.images))
    assert.isAtMost(generationIn(rest), generationIn(given) + 1)
  })

  it.each(CASES)("$row $title", (golden) => {
    assert.strictEqual(render(golden), readFileSync(join(directory, fileOf(golden)), "utf8"))
  })
})
