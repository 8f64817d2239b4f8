/**
 * Conditions by what is observed and by what came of a plan. Whole statuses, one per state, are in the goldens.
 */
import { assert, describe, it } from "@effect/vitest"
import type { JsonObject } from "../../../schemas/Json.ts"
import { type Finding, named, reports, STUCK_MILLIS } from "../../../src/operator/Conditions.ts"
import * as Desired from "../../../src/operator/Desired.ts"
import { keyOf } from "../../../src/operator/Kinds.ts"
import { Annotation, FieldManager } from "../../../src/operator/Names.ts"
import type { Fixed, Observed } from "../../../src/operator/Observed.ts"
import { plan } from "../../../src/operator/Plan.ts"
import {
  carriedOut,
  clusterCsiDriver,
  FINALIZER,
  fixed,
  manifestOf,
  NAMESPACE,
  observed,
  settled,
  withImages
} from "../../support/OperatorFixtures.ts"

const settledCluster = settled(observed())
const daemonSetKey = keyOf(Desired.daemonSetId(NAMESPACE))
const NODE = "SecretsStoreDriverNodeServiceController"
const STATIC = "SecretsStoreConditionalStaticResourcesControllerDegraded"

const reported = (given: Observed, errors: ReadonlyMap<string, string> = new Map(), by: Fixed = fixed) => {
  const planned = plan(given, by)
  const done = planned.actions.filter(({ key }) => !errors.has(key))
  return reports(given, planned, { ...carriedOut(given.live, done), errors }, by)
}

const conditionsOf = (...given: Parameters<typeof reported>): ReadonlyMap<string, Finding> =>
  new Map(reported(...given).flatMap(({ conditions }) => conditions.map((it) => [it.type, it] as const)))

const text = (finding: Finding | undefined): string | undefined =>
  finding === undefined
    ? undefined
    : [finding.status, finding.reason, finding.message].filter((word) => word !== undefined).join(" | ")

const it7 = (spec: JsonObject, metadata: JsonObject = {}, status?: JsonObject) =>
  clusterCsiDriver(spec, { finalizers: [FINALIZER], ...metadata }, status)

const withDaemonSet = (change: JsonObject, from: Observed = settledCluster): Observed => ({
  ...from,
  live: new Map(from.live).set(daemonSetKey, manifestOf({ ...from.live.get(daemonSetKey), ...change }))
})
const pods = (status: JsonObject, generation = 2): Observed =>
  withDaemonSet({
    metadata: { ...settledCluster.live.get(daemonSetKey)?.metadata, generation },
    status: { desiredNumberScheduled: 3, observedGeneration: 2, ...status }
  })

describe("3.3 ManagementStateDegraded", () => {
  it.each([
    { state: "Managed", expected: "False" },
    { state: "Unmanaged", expected: "False" },
    { state: "Removed", expected: "False" },
    ...["", "Force", "Paused"].map((state) => ({
      state,
      expected: `True | Unknown | Unsupported management state "${state}" for secrets-store-csi-driver operator`
    }))
  ])('3.3 state "$state"', ({ expected, state }) => {
    const given = { ...settledCluster, clusterCsiDriver: it7({ managementState: state }) }
    assert.strictEqual(text(conditionsOf(given).get("ManagementStateDegraded")), expected)
  })
})

describe("3.10 who reports what", () => {
  const all = [
    "managementState",
    "staticResources",
    "configObserver",
    "nodeService",
    "reportDegraded",
    "summary"
  ] as const

  it.each<{
    readonly row: string
    readonly name: string
    readonly given: Observed
    readonly expected: ReadonlyArray<keyof typeof FieldManager>
  }>([
    { row: "Q6", name: "absent: nobody", given: observed({ clusterCsiDriver: undefined }), expected: [] },
    { row: "3.10", name: "Managed", given: settledCluster, expected: all },
    {
      row: "3.4",
      name: "Unmanaged: nothing of static resources",
      given: { ...settledCluster, clusterCsiDriver: it7({ managementState: "Unmanaged" }) },
      expected: all.filter((manager) => manager !== "staticResources")
    },
    {
      row: "3.10",
      name: "Force",
      given: { ...settledCluster, clusterCsiDriver: it7({ managementState: "Force" }) },
      expected: all
    },
    {
      row: "3.10",
      name: "Removed, and over",
      given: observed({ clusterCsiDriver: it7({ managementState: "Removed" }) }),
      expected: all
    },
    {
      row: "3.10",
      name: "deleted, and not over",
      given: { ...settledCluster, clusterCsiDriver: it7({ managementState: "Managed" }, { deletionTimestamp: "x" }) },
      expected: all
    },
    {
      row: "3.9",
      name: "deleted, and about to go: nobody",
      given: observed({ clusterCsiDriver: it7({ managementState: "Managed" }, { deletionTimestamp: "x" }) }),
      expected: []
    },
    {
      row: "Q4",
      name: "deleted while Unmanaged: nobody",
      given: { ...settledCluster, clusterCsiDriver: it7({ managementState: "Unmanaged" }, { deletionTimestamp: "x" }) },
      expected: []
    }
  ])("$row $name", ({ expected, given }) => {
    assert.deepStrictEqual(
      reported(given).map(({ fieldManager }) => fieldManager),
      expected.map((name) => FieldManager[name])
    )
  })
})

describe("3.4 static resources", () => {
  const CSI_DRIVER = keyOf(Desired.csiDriverId)
  const SA = `ServiceAccount ${NAMESPACE}/secrets-store-csi-driver-node-sa`

  it.each<{
    readonly row: string
    readonly name: string
    readonly errors?: ReadonlyMap<string, string>
    readonly given?: Observed
    readonly expected: string
  }>([
    { row: "3.4", name: "all is well", expected: "False | AsExpected" },
    {
      row: "3.4 Q20",
      name: "one line per file, without a type that says nothing",
      errors: new Map([
        [SA, "no"],
        [CSI_DRIVER, 'a "word"']
      ]),
      expected: 'True | SyncError | "node_sa.yaml": no\n"csidriver.yaml": a "word"\n'
    },
    {
      row: "3.4",
      name: "what concerns the DaemonSet is said elsewhere",
      errors: new Map([
        ["finalizer", "no"],
        [daemonSetKey, "no"]
      ]),
      expected: "False | AsExpected"
    },
    {
      row: "3.4",
      name: "what could not be read",
      given: observed({ unread: new Map([[SA, "cannot be read"]]) }),
      expected: 'True | SyncError | "node_sa.yaml": cannot be read\n'
    },
    {
      row: "Q1",
      name: "what could not be deleted, by its own name",
      given: {
        ...settledCluster,
        live: new Map([...settledCluster.live].filter(([key]) => key === CSI_DRIVER)),
        clusterCsiDriver: it7({ managementState: "Removed" })
      },
      errors: new Map([[CSI_DRIVER, "no"]]),
      expected: `True | SyncError | "${CSI_DRIVER}": no\n`
    }
  ])("$row $name", ({ errors, expected, given = observed() }) => {
    assert.strictEqual(text(conditionsOf(given, errors).get(STATIC)), expected)
  })
})

describe("3.5 configuration of the cluster", () => {
  it.each([
    { name: "observed", failures: [], expected: "False" },
    { name: "not observed, in order", failures: ["b", "a"], expected: "True | Error | a\nb" }
  ])("3.5 $name", ({ expected, failures }) => {
    const given = { ...settledCluster, observationFailures: failures }
    assert.strictEqual(text(conditionsOf(given).get("ConfigObservationDegraded")), expected)
  })
})

describe("3.6 node service", () => {
  const available = "True | AsExpected | DaemonSet is available"
  const unavailable = "False | Deploying | Waiting for the DaemonSet to deploy the CSI Node Service"
  const fine = "False | AsExpected"
  const stuck = STUCK_MILLIS

  it.each<{
    readonly row: string
    readonly name: string
    readonly given: Observed
    readonly errors?: ReadonlyMap<string, string>
    readonly by?: Fixed
    readonly expected: readonly [available: string, progressing: string, degraded: string]
  }>([
    {
      row: "9.3",
      name: "initial",
      given: observed(),
      expected: [unavailable, "True | Deploying | Waiting for DaemonSet to act on changes", fine]
    },
    {
      row: "3.6",
      name: "settled",
      given: settledCluster,
      expected: [available, "False | AsExpected | DaemonSet is not progressing", fine]
    },
    {
      row: "3.6",
      name: "an update is not seen yet",
      given: pods({ observedGeneration: 1, updatedNumberScheduled: 3, numberAvailable: 3 }),
      expected: [available, "True | Deploying | Waiting for DaemonSet to act on changes", fine]
    },
    {
      row: "3.6",
      name: "an update is under way",
      given: pods({ updatedNumberScheduled: 1, numberAvailable: 2, numberUnavailable: 1 }),
      expected: [available, "True | Deploying | Waiting for DaemonSet to update 3 node pods", fine]
    },
    {
      row: "3.6",
      name: "pods do not run yet",
      given: pods({ updatedNumberScheduled: 3, numberUnavailable: 3 }),
      expected: [unavailable, "True | Deploying | Waiting for DaemonSet to deploy node pods", fine]
    },
    {
      row: "3.6 Q37",
      name: "missing pods on a stable generation",
      given: withDaemonSet({
        status: { observedGeneration: 1, desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberUnavailable: 3 }
      }),
      expected: [unavailable, "False | AsExpected | DaemonSet is not progressing", fine]
    },
    {
      row: "Q15",
      name: "one millisecond before the deadline",
      given: { ...pods({ updatedNumberScheduled: 3, numberUnavailable: 3 }), stuckMillis: stuck - 1 },
      expected: [unavailable, "True | Deploying | Waiting for DaemonSet to deploy node pods", fine]
    },
    {
      row: "Q15",
      name: "stuck for 15 minutes",
      given: { ...pods({ updatedNumberScheduled: 3, numberUnavailable: 3 }), stuckMillis: stuck },
      expected: [
        unavailable,
        "True | Deploying | Waiting for DaemonSet to deploy node pods",
        "True | RolloutStuck | no node pod has become ready for 15 minutes: Waiting for DaemonSet to deploy node pods; see the events and logs of the pods of DaemonSet secrets-store-csi-driver-node"
      ]
    },
    {
      row: "3.10",
      name: "stuck, and Unmanaged: not ours to complain of",
      given: {
        ...pods({ updatedNumberScheduled: 3, numberUnavailable: 3 }),
        clusterCsiDriver: it7({ managementState: "Unmanaged" }),
        stuckMillis: stuck
      },
      expected: [unavailable, "True | Deploying | Waiting for DaemonSet to deploy node pods", fine]
    },
    {
      row: "3.6",
      name: "a write was refused",
      given: withDaemonSet({ spec: {} }),
      errors: new Map([[daemonSetKey, "no"]]),
      expected: [available, "False | AsExpected | DaemonSet is not progressing", "True | SyncError | no"]
    },
    {
      row: "3.6",
      name: "the finalizer was refused",
      given: observed(),
      errors: new Map([
        ["finalizer", "no"],
        [daemonSetKey, "forerunner"]
      ]),
      expected: [
        unavailable,
        "True | Deploying | Waiting for the DaemonSet to be created",
        "True | SyncError | no\nforerunner"
      ]
    },
    {
      row: "Q13",
      name: "there is no image",
      given: observed(),
      by: withImages({ driver: "", registrar: "", livenessProbe: "" }),
      expected: [
        unavailable,
        "True | Deploying | Waiting for the DaemonSet to be created",
        "True | SyncError | environment variable DRIVER_IMAGE of the operator is not set"
      ]
    },
    {
      row: "Q16",
      name: "Force, and there is none",
      given: observed({ clusterCsiDriver: it7({ managementState: "Force" }) }),
      expected: [
        "False | Unsupported | There is no DaemonSet, and none is deployed in this management state",
        "False | Unsupported | Nothing is changed in this management state",
        fine
      ]
    },
    {
      row: "Q16",
      name: "Unmanaged, and there is none",
      given: observed({ clusterCsiDriver: it7({ managementState: "Unmanaged" }) }),
      expected: [
        "False | Unmanaged | There is no DaemonSet, and none is deployed in this management state",
        "False | Unmanaged | Nothing is changed in this management state",
        fine
      ]
    },
    {
      row: "Q16",
      name: "Unmanaged, and there is one",
      given: { ...settledCluster, clusterCsiDriver: it7({ managementState: "Unmanaged" }) },
      expected: [available, "False | AsExpected | DaemonSet is not progressing", fine]
    }
  ])("$row $name", ({ by, errors, expected, given }) => {
    const conditions = conditionsOf(given, errors, by)
    assert.deepStrictEqual(
      ["Available", "Progressing", "Degraded"].map((word) => text(conditions.get(`${NODE}${word}`))),
      [...expected]
    )
  })
})

describe("a removal", () => {
  const removed = (change: Partial<Observed>): Observed => ({
    ...settledCluster,
    clusterCsiDriver: it7({ managementState: "Removed" }),
    ...change
  })
  const objects = [...settledCluster.live].filter(([key]) => key.startsWith("NetworkPolicy "))

  it.each<{ readonly row: string; readonly name: string; readonly given: Observed; readonly progressing: string }>([
    {
      row: "Q7",
      name: "waits for pods, by their names",
      given: removed({ consumers: ["team-a/one", "team-a/two"] }),
      progressing: `True | WaitingForPods | Waiting for 2 pods that use volumes of the driver: team-a/one, team-a/two; delete them, or set the annotation ${Annotation.removeWithoutWaiting}: "true" on the ClusterCSIDriver`
    },
    {
      row: "Q1",
      name: "deletes the DaemonSet",
      given: removed({}),
      progressing: "True | Removing | Waiting for the DaemonSet to be deleted"
    },
    {
      row: "Q1",
      name: "waits for the driver's pods",
      given: removed({ live: new Map(), driverPods: ["ns/pod"] }),
      progressing: "True | Removing | Waiting for 1 pod of the driver to end: ns/pod"
    },
    {
      row: "Q1",
      name: "deletes the objects",
      given: removed({ live: new Map(objects.slice(0, 1)) }),
      progressing: `True | Removing | Deleting NetworkPolicy.networking.k8s.io/sscsi-allow-ingress-to-metrics-operand -n ${NAMESPACE}`
    },
    {
      row: "Q16",
      name: "is over",
      given: removed({ live: new Map() }),
      progressing: "False | Removed | The operand is removed"
    }
  ])("$row $name", ({ given, progressing }) => {
    const conditions = conditionsOf(given)
    // While it waits for pods, the driver serves them.
    const available = progressing.includes("WaitingForPods")
      ? "True | AsExpected | DaemonSet is available"
      : "False | Removed | The operand is being removed, or is removed"
    assert.strictEqual(text(conditions.get(`${NODE}Available`)), available)
    assert.strictEqual(text(conditions.get(`${NODE}Progressing`)), progressing)
    assert.strictEqual(text(conditions.get(`${NODE}Degraded`)), "False | AsExpected")
    assert.strictEqual(text(conditions.get("Available")), available)
    assert.strictEqual(text(conditions.get("Progressing")), progressing)
  })

  it("Q7 ten names are enough", () => {
    const pod = (_: unknown, index: number) => `p${index}`
    assert.strictEqual(named(Array.from({ length: 10 }, pod)), "p0, p1, p2, p3, p4, p5, p6, p7, p8, p9")
    assert.match(named(Array.from({ length: 12 }, pod)), / p9 and 2 more$/u)
  })
})

describe("the whole", () => {
  const statusOf = (...given: Parameters<typeof reported>) =>
    reported(...given).find(({ fieldManager }) => fieldManager === FieldManager.summary)
  const generationsOf = (...given: Parameters<typeof reported>) =>
    reported(...given).find(({ fieldManager }) => fieldManager === FieldManager.nodeService)?.generations

  it.each<{
    readonly name: string
    readonly given: Observed
    readonly errors?: ReadonlyMap<string, string>
    readonly expected: string
  }>([
    { name: "nothing", given: settledCluster, expected: "False | AsExpected" },
    {
      name: "one part: its reason",
      given: { ...settledCluster, observationFailures: ["a"] },
      expected: "True | Error | ConfigObservationDegraded: a"
    },
    {
      name: "several parts",
      given: { ...settledCluster, observationFailures: ["a"], clusterCsiDriver: it7({ managementState: "Force" }) },
      expected:
        'True | MultipleConditions | ManagementStateDegraded: Unsupported management state "Force" for secrets-store-csi-driver operator\nConfigObservationDegraded: a'
    }
  ])("Q17 Degraded: $name", ({ errors, expected, given }) => {
    assert.strictEqual(text(conditionsOf(given, errors).get("Degraded")), expected)
  })

  it.each<{ readonly name: string; readonly given: Observed; readonly expected: string | undefined }>([
    { name: "served", given: settledCluster, expected: "True | AsExpected" },
    {
      name: "not served",
      given: { ...settledCluster, servedGroups: new Set() },
      expected:
        "False | NotServed | config.openshift.io is not served: there is no cluster-wide proxy or TLS profile to follow"
    },
    { name: "not known, and never was", given: { ...settledCluster, servedGroups: undefined }, expected: undefined },
    {
      name: "not known just now: as it was",
      given: {
        ...settledCluster,
        servedGroups: undefined,
        clusterCsiDriver: it7(
          { managementState: "Managed" },
          {},
          {
            conditions: [
              { type: "OpenShiftAPIsAvailable", status: "True", reason: "AsExpected", lastTransitionTime: "x" }
            ]
          }
        )
      },
      expected: "True | AsExpected"
    }
  ])("Q2 OpenShift's APIs are $name", ({ expected, given }) => {
    assert.strictEqual(text(conditionsOf(given).get("OpenShiftAPIsAvailable")), expected)
  })

  const before = { version: "0.9.0" }
  const old = it7({ managementState: "Managed" }, {}, before)
  const foreign = (from: Observed): Observed => ({
    ...from,
    live: new Map(from.live).set(
      "ClusterRole secretproviderclasses-role",
      manifestOf({
        apiVersion: "rbac.authorization.k8s.io/v1",
        kind: "ClusterRole",
        metadata: { name: "secretproviderclasses-role", labels: { "app.kubernetes.io/managed-by": "Helm" } }
      })
    )
  })

  it.each<{
    readonly name: string
    readonly given: Observed
    readonly errors?: ReadonlyMap<string, string>
    readonly expected: string | undefined
  }>([
    { name: "settled: the operator's", given: { ...settledCluster, clusterCsiDriver: old }, expected: "1.0.0" },
    { name: "not rolled out yet: as it was", given: observed({ clusterCsiDriver: old }), expected: "0.9.0" },
    { name: "not rolled out, for the first time: none", given: observed(), expected: undefined },
    {
      name: "something could not be applied: as it was",
      given: {
        ...settledCluster,
        clusterCsiDriver: old,
        unread: new Map([["ClusterRole secretproviderclasses-role", "no"]])
      },
      expected: "0.9.0"
    },
    {
      name: "another installation is in the way: none",
      given: foreign(observed()),
      expected: undefined
    },
    {
      name: "another installation has come: as it was",
      given: foreign({ ...settledCluster, clusterCsiDriver: old }),
      expected: "0.9.0"
    },
    {
      name: "Unmanaged: as it was",
      given: { ...settledCluster, clusterCsiDriver: it7({ managementState: "Unmanaged" }, {}, before) },
      expected: "0.9.0"
    },
    {
      name: "removed: none",
      given: observed({ clusterCsiDriver: it7({ managementState: "Removed" }, {}, before) }),
      expected: undefined
    }
  ])("Q17 version, $name", ({ errors, expected, given }) => {
    assert.strictEqual(statusOf(given, errors)?.version, expected)
  })

  it("Q17 observedGeneration and readyReplicas", () => {
    const summary = statusOf({
      ...settledCluster,
      clusterCsiDriver: it7({ managementState: "Managed" }, { generation: 4 })
    })
    assert.deepStrictEqual([summary?.observedGeneration, summary?.readyReplicas], [4, 3])
    assert.strictEqual(statusOf(observed())?.readyReplicas, 0)
  })

  const entry = (lastGeneration: number) => ({
    group: "apps",
    resource: "daemonsets",
    namespace: NAMESPACE,
    name: "secrets-store-csi-driver-node",
    lastGeneration
  })
  const knowing = (spec: JsonObject) => it7(spec, {}, { generations: [entry(7)] })

  it.each<{
    readonly row: string
    readonly name: string
    readonly given: Observed
    readonly errors?: ReadonlyMap<string, string>
    readonly expected: ReadonlyArray<JsonObject>
  }>([
    { row: "2.4", name: "after the first write", given: observed(), expected: [entry(1)] },
    {
      row: "4.3",
      name: "after a write of ours",
      given: withDaemonSet({
        metadata: { ...settledCluster.live.get(daemonSetKey)?.metadata, generation: 2 },
        spec: {}
      }),
      expected: [entry(3)]
    },
    {
      row: "Q11",
      name: "of what somebody else wrote, and says the same",
      given: withDaemonSet({ metadata: { ...settledCluster.live.get(daemonSetKey)?.metadata, generation: 2 } }),
      expected: [entry(2)]
    },
    {
      row: "4.3",
      name: "after a write that was refused: as it was",
      given: { ...withDaemonSet({ spec: {} }), clusterCsiDriver: knowing({ managementState: "Managed" }) },
      errors: new Map([[daemonSetKey, "no"]]),
      expected: [entry(7)]
    },
    {
      row: "3.10",
      name: "Unmanaged: as it was",
      given: { ...settledCluster, clusterCsiDriver: knowing({ managementState: "Unmanaged" }) },
      expected: [entry(7)]
    },
    {
      row: "Q16",
      name: "Removed: none",
      given: { ...settledCluster, clusterCsiDriver: knowing({ managementState: "Removed" }) },
      expected: []
    }
  ])("$row generations, $name", ({ errors, expected, given }) => {
    assert.deepStrictEqual<unknown>(generationsOf(given, errors), expected)
  })

  it("Q41 says whose objects are in the way, and what to do", () => {
    const conditions = conditionsOf(foreign(observed()))
    assert.strictEqual(
      text(conditions.get(STATIC)),
      `True | ForeignOwnership | nothing is applied: ClusterRole.rbac.authorization.k8s.io/secretproviderclasses-role of a Helm release; remove the other installation, or set the annotation ${Annotation.adoptForeign}: "true" on the ClusterCSIDriver to take its objects over`
    )
    assert.strictEqual(
      text(conditions.get("Available")),
      "False | ForeignOwnership | Another installation of the driver is in the way"
    )
    assert.strictEqual(text(conditions.get("Progressing")), "False | ForeignOwnership | Nothing is applied")
  })
})
