import { assert, describe, it } from "@effect/vitest"
import type { ClusterCSIDriver } from "../../../schemas/ClusterCSIDriver.ts"
import type { JsonObject } from "../../../schemas/Json.ts"
import type { Report } from "../../../src/operator/Conditions.ts"
import { FieldManager } from "../../../src/operator/Names.ts"
import { previousPart, staleRemoval, statusApplies } from "../../../src/operator/StatusApply.ts"
import { clusterCsiDriver, NAMESPACE } from "../../support/OperatorFixtures.ts"

const NOW = "2026-01-02T00:00:00Z"
const THEN = "2026-01-01T00:00:00Z"
const MANAGER = FieldManager.nodeService

const condition = (type: string, status = "True", reason = "AsExpected", lastTransitionTime = THEN) => ({
  type,
  status,
  reason,
  lastTransitionTime
})
const finding = (type: string, status = "True", reason = "AsExpected") => ({ type, status, reason })
const generation = (name: string, lastGeneration = 1) => ({
  group: "apps",
  resource: "daemonsets",
  namespace: NAMESPACE,
  name,
  lastGeneration
})

const names = (...fields: ReadonlyArray<string>) => ({
  ".": {},
  ...Object.fromEntries(fields.map((field) => [`f:${field}`, {}]))
})
const CONDITION = names("type", "status", "reason", "lastTransitionTime")
const conditionTree = (type: string, tree: JsonObject = CONDITION) => ({ [`k:{"type":"${type}"}`]: tree })
/** As an API server writes the four keys: in the order of their names. */
const generationTree = (name: string) => ({
  [`k:{"group":"apps","name":"${name}","namespace":"${NAMESPACE}","resource":"daemonsets"}`]: names(
    "group",
    "name",
    "namespace",
    "resource",
    "lastGeneration"
  )
})

const entry = (status: JsonObject, change: JsonObject = {}) => ({
  manager: MANAGER,
  operation: "Apply",
  apiVersion: "operator.openshift.io/v1",
  subresource: "status",
  fieldsType: "FieldsV1",
  fieldsV1: { "f:status": status },
  ...change
})

const live = (managedFields: ReadonlyArray<JsonObject>, status: JsonObject): ClusterCSIDriver =>
  clusterCsiDriver({ managementState: "Managed" }, { managedFields }, status)

describe("what a field manager has said before", () => {
  const status = {
    conditions: [condition("B"), condition("A", "False"), condition("Theirs")],
    generations: [generation("z"), generation("d")],
    observedGeneration: 3,
    readyReplicas: 2,
    version: "1.0.0"
  }
  const conditions = { ...conditionTree("A"), ...conditionTree("B") }

  it.each<{
    readonly name: string
    readonly managedFields: ReadonlyArray<JsonObject>
    readonly expected: JsonObject
  }>([
    { name: "no entry", managedFields: [], expected: {} },
    {
      name: "its conditions, in order",
      managedFields: [entry({ "f:conditions": conditions })],
      expected: { conditions: [condition("A", "False"), condition("B")] }
    },
    {
      name: "generations by their four keys",
      managedFields: [entry({ "f:generations": { ...generationTree("d"), ...generationTree("other") } })],
      expected: { generations: [generation("d")] }
    },
    {
      name: "numbers and texts",
      managedFields: [entry(names("observedGeneration", "version"))],
      expected: { observedGeneration: 3, version: "1.0.0" }
    },
    {
      name: "of another manager",
      managedFields: [entry({ "f:conditions": conditions }, { manager: FieldManager.summary })],
      expected: {}
    },
    {
      name: "by an update",
      managedFields: [entry({ "f:conditions": conditions }, { operation: "Update" })],
      expected: {}
    },
    {
      name: "of the object itself",
      managedFields: [entry({ "f:conditions": conditions }, { subresource: "" })],
      expected: {}
    },
    {
      name: "no fields at all",
      managedFields: [entry({}, { fieldsV1: undefined })],
      expected: {}
    },
    {
      name: "one that is no longer there",
      managedFields: [entry({ "f:conditions": conditionTree("Gone") })],
      expected: {}
    },
    {
      name: "of a condition, the fields that are its own",
      managedFields: [entry({ "f:conditions": conditionTree("A", names("type", "status", "lastTransitionTime")) })],
      expected: { conditions: [{ type: "A", status: "False", lastTransitionTime: THEN }] }
    },
    { name: "managedFields that nobody understands", managedFields: [{ manager: 1 }], expected: {} }
  ])("3.1 $name", ({ expected, managedFields }) => {
    assert.deepStrictEqual<unknown>(previousPart(live(managedFields, status), MANAGER), expected)
  })
})

describe("what is sent", () => {
  const tree = entry({
    "f:conditions": { ...conditionTree("A"), ...conditionTree("B") },
    "f:generations": generationTree("d")
  })
  const before = live([tree], {
    conditions: [condition("A"), condition("B", "False", "AsExpected"), condition("Theirs")],
    generations: [generation("d")]
  })

  it.each<{
    readonly name: string
    readonly given: ClusterCSIDriver
    readonly report: Partial<Report>
    /** The status in the body; undefined when nothing is sent. */
    readonly expected: JsonObject | undefined
  }>([
    {
      name: "all is new",
      given: clusterCsiDriver(),
      report: { conditions: [finding("B"), finding("A")], generations: [generation("d")] },
      expected: {
        conditions: [condition("A", "True", "AsExpected", NOW), condition("B", "True", "AsExpected", NOW)],
        generations: [generation("d")]
      }
    },
    {
      name: "nothing is new",
      given: before,
      report: { conditions: [finding("B", "False"), finding("A")], generations: [generation("d")] },
      expected: undefined
    },
    {
      name: "another reason does not move the time",
      given: before,
      report: { conditions: [finding("A", "True", "Other"), finding("B", "False")], generations: [generation("d")] },
      expected: {
        conditions: [condition("A", "True", "Other"), condition("B", "False")],
        generations: [generation("d")]
      }
    },
    {
      name: "another status moves it, of that condition alone",
      given: before,
      report: { conditions: [finding("A", "False"), finding("B", "False")], generations: [generation("d")] },
      expected: {
        conditions: [condition("A", "False", "AsExpected", NOW), condition("B", "False")],
        generations: [generation("d")]
      }
    },
    {
      name: "the time of another manager's condition is not ours",
      given: before,
      report: { conditions: [finding("Theirs")] },
      expected: { conditions: [condition("Theirs", "True", "AsExpected", NOW)] }
    },
    {
      name: "a condition that is not listed is let go",
      given: before,
      report: { conditions: [finding("A")], generations: [generation("d")] },
      expected: { conditions: [condition("A")], generations: [generation("d")] }
    },
    {
      name: "another generation",
      given: before,
      report: { conditions: [finding("A"), finding("B", "False")], generations: [generation("d", 2)] },
      expected: { conditions: [condition("A"), condition("B", "False")], generations: [generation("d", 2)] }
    },
    {
      name: "generations are let go",
      given: before,
      report: { conditions: [finding("A"), finding("B", "False")], generations: [] },
      expected: { conditions: [condition("A"), condition("B", "False")] }
    },
    {
      name: "generations are sorted",
      given: clusterCsiDriver(),
      report: { conditions: [], generations: [generation("z"), generation("d")] },
      expected: { generations: [generation("d"), generation("z")] }
    },
    {
      name: "numbers and texts",
      given: live([entry(names("readyReplicas"))], { readyReplicas: 1 }),
      report: { conditions: [], readyReplicas: 0, observedGeneration: 1, version: "1.0.0" },
      expected: { readyReplicas: 0, observedGeneration: 1, version: "1.0.0" }
    },
    {
      name: "everything is let go",
      given: before,
      report: { conditions: [] },
      expected: {}
    },
    {
      name: "a reason that somebody else has added is left to them",
      given: live([entry({ "f:conditions": conditionTree("A", names("type", "status", "lastTransitionTime")) })], {
        conditions: [condition("A", "True", "Theirs")]
      }),
      report: { conditions: [{ type: "A", status: "True" }] },
      expected: undefined
    }
  ])("3.1 $name", ({ expected, given, report }) => {
    const applies = statusApplies(given, [{ fieldManager: MANAGER, conditions: [], ...report }], NOW)
    const body = {
      apiVersion: "operator.openshift.io/v1",
      kind: "ClusterCSIDriver",
      metadata: { name: "secrets-store.csi.k8s.io" },
      // An empty status would be kept as null.
      ...(Object.keys(expected ?? {}).length === 0 ? {} : { status: expected })
    }
    assert.deepStrictEqual<unknown>(applies, expected === undefined ? [] : [{ fieldManager: MANAGER, body }])
  })
})

describe("a condition that no operator says any more", () => {
  const STALE = "SecretsStoreStaticResourcesControllerDegraded"
  const metadata = { resourceVersion: "7" }

  it.each([
    { name: "no status", status: {}, expected: undefined },
    { name: "others only", status: { conditions: [condition("A"), condition("B")] }, expected: undefined },
    {
      name: "one among others, which stay as they are",
      status: { conditions: [condition("A"), condition(STALE, "False"), condition("B", "False")], readyReplicas: 1 },
      expected: { metadata, status: { conditions: [condition("A"), condition("B", "False")] } }
    },
    {
      name: "nothing else",
      status: { conditions: [condition(STALE)] },
      expected: { metadata, status: { conditions: [] } }
    }
  ])("3.11 $name", ({ expected, status }) => {
    const it = clusterCsiDriver({ managementState: "Managed" }, metadata, status)
    assert.deepStrictEqual<unknown>(staleRemoval(it), expected)
  })
})
