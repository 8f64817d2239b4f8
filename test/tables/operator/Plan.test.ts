/**
 * What a plan does not do, and in which order it does the rest. What it does in each state is shown by the goldens.
 */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { JsonObject } from "../../../schemas/Json.ts"
import type { Manifest } from "../../../schemas/Manifest.ts"
import * as Desired from "../../../src/operator/Desired.ts"
import { idOf, keyOf } from "../../../src/operator/Kinds.ts"
import { Annotation } from "../../../src/operator/Names.ts"
import type { Observed } from "../../../src/operator/Observed.ts"
import { type Action, plan } from "../../../src/operator/Plan.ts"
import {
  byKey,
  carriedOut,
  clusterCsiDriver,
  config,
  FINALIZER,
  fixed,
  manifestOf,
  manifests,
  NAMESPACE,
  observed,
  settled
} from "../../support/OperatorFixtures.ts"

const settledCluster = settled(observed({ syncNamespaces: new Set(["team-a"]) }))
const daemonSetKey = keyOf(Desired.daemonSetId(NAMESPACE))
const csiDriverKey = keyOf(Desired.csiDriverId)
const ROLE = "ClusterRole secretproviderclasses-role"
const POLICY = `NetworkPolicy ${NAMESPACE}/sscsi-default-deny-operand`
const bindingKey = (namespace: string) => `RoleBinding ${namespace}/secrets-store-csi-driver-secret-sync`

const without = (from: Observed, ...keys: ReadonlyArray<string>): Observed => ({
  ...from,
  live: new Map([...from.live].filter(([key]) => !keys.includes(key)))
})

const withObject = (from: Observed, change: JsonObject, key: string): Observed => ({
  ...from,
  live: new Map(from.live).set(key, manifestOf({ ...from.live.get(key), ...change }))
})

const words = (actions: ReadonlyArray<Action>): ReadonlyArray<string> =>
  actions.map((action) => `${action._tag === "Apply" ? action.change._tag : action._tag} ${action.key}`)

const requirements = (actions: ReadonlyArray<Action>, key: string) =>
  actions.find((action) => action.key === key)?.requires

/** As an operator of before left it: the driver may read every Secret. */
const oldRole = (from: Observed): Observed =>
  withObject(from, { rules: [{ apiGroups: [""], resources: ["secrets"], verbs: ["get"] }] }, ROLE)

describe("a plan of a managed operand", () => {
  it("Q26 is empty once it was carried out", () => {
    assert.deepStrictEqual(plan(settledCluster, fixed).actions, [])
  })

  it("Q42 Q1 the finalizer comes before everything, the DaemonSet after all that its pods need", () => {
    const { actions } = plan(observed({ syncNamespaces: new Set(["team-a"]) }), fixed)
    assert.strictEqual(actions[0]?.key, "finalizer")
    for (const { key, requires } of actions.slice(1)) assert.include(requires, "finalizer", key)
    const last = actions.at(-1)
    assert.strictEqual(last?.key, daemonSetKey)
    assert.deepStrictEqual(
      last?.requires,
      actions.slice(0, -1).map(({ key }) => key)
    )
  })

  it("Q42 the first DaemonSet waits until it is known which rights its pods need, an update does not", () => {
    const first = plan(observed({ servedGroups: undefined }), fixed)
    assert.notInclude(words(first.actions), `Create ${daemonSetKey}`)
    assert.isNotEmpty(first.nodeErrors)
    assert.deepStrictEqual(plan({ ...settledCluster, servedGroups: undefined }, fixed).nodeErrors, [])
  })

  it("Q42 an update of the DaemonSet does not wait for other objects", () => {
    const { actions } = plan(
      {
        ...without(settledCluster, POLICY),
        clusterCsiDriver: clusterCsiDriver(
          { managementState: "Managed", logLevel: "Debug" },
          { finalizers: [FINALIZER] }
        )
      },
      fixed
    )
    assert.deepStrictEqual(words(actions), [`Create ${POLICY}`, `Update ${daemonSetKey}`])
    assert.deepStrictEqual(requirements(actions, daemonSetKey), [])
  })

  it("B5 audiences are noted before the CSIDriver is touched", () => {
    const key = csiDriverKey
    const spec = { attachRequired: true, volumeLifecycleModes: ["Ephemeral"], tokenRequests: [{ audience: "a" }] }
    const { actions } = plan(withObject(settledCluster, { spec }, key), fixed)
    assert.deepStrictEqual(words(actions), ["Remember remember", `Recreate ${key}`])
    assert.deepStrictEqual(requirements(actions, key), ["remember"])
  })

  it.each<{
    readonly row: string
    readonly name: string
    readonly given: Observed
    readonly expected: ReadonlyArray<string>
    readonly staticErrors?: ReadonlyArray<string>
    readonly nodeErrors?: ReadonlyArray<string>
  }>([
    {
      row: "Q29",
      name: "a namespace whose classes ask for Secrets gets a RoleBinding",
      given: { ...settledCluster, syncNamespaces: new Set(["team-b", "team-a"]) },
      expected: [`Create ${bindingKey("team-b")}`]
    },
    {
      row: "Q29",
      name: "and loses it when none asks any more",
      given: { ...settledCluster, syncNamespaces: new Set() },
      expected: [`Delete ${bindingKey("team-a")}`]
    },
    {
      row: "Q29",
      name: "while it is not known who asks, no right is taken away",
      given: oldRole({ ...settledCluster, syncNamespaces: undefined }),
      expected: []
    },
    {
      row: "Q29",
      name: "nor while RoleBindings cannot be read",
      given: oldRole({
        ...without(settledCluster, bindingKey("team-a")),
        unread: new Map([["RoleBinding", "RoleBindings cannot be read"]])
      }),
      expected: [],
      staticErrors: ["rbac/secret_sync_binding.yaml: RoleBindings cannot be read"]
    },
    {
      row: "Q29",
      name: "it is said that RoleBindings cannot be read, also when none is wanted",
      given: {
        ...without(settledCluster, bindingKey("team-a")),
        syncNamespaces: new Set(),
        unread: new Map([["RoleBinding", "RoleBindings cannot be read"]])
      },
      expected: [],
      staticErrors: ["rbac/secret_sync_binding.yaml: RoleBindings cannot be read"]
    },
    {
      row: "Q5",
      name: "an object that cannot be read is not touched, and the others are",
      given: { ...without(settledCluster, ROLE, POLICY), unread: new Map([[ROLE, "no"]]) },
      expected: [`Create ${POLICY}`],
      staticErrors: ["rbac/secretproviderclasses_role.yaml: no"]
    },
    {
      row: "Q10",
      name: "a CSIDriver that cannot be read is not taken for one that is not there",
      given: { ...without(settledCluster, csiDriverKey), unread: new Map([[csiDriverKey, "no"]]) },
      expected: [],
      staticErrors: ["csidriver.yaml: no"]
    },
    {
      row: "Q5",
      name: "nor is a DaemonSet",
      given: { ...without(settledCluster, daemonSetKey), unread: new Map([[daemonSetKey, "no"]]) },
      expected: [],
      nodeErrors: ["no"]
    },
    {
      row: "Q5",
      name: "without the ConfigMap that it is made of, the DaemonSet stays as it is",
      given: {
        ...settledCluster,
        clusterCsiDriver: clusterCsiDriver(
          { managementState: "Managed", logLevel: "Debug" },
          { finalizers: [FINALIZER] }
        ),
        unread: new Map([[`ConfigMap ${NAMESPACE}/secrets-store-csi-driver-trusted-ca-bundle`, "no"]])
      },
      expected: [],
      staticErrors: ["cabundle_cm.yaml: no"],
      nodeErrors: ["no"]
    },
    {
      row: "Q42",
      name: "a DaemonSet is not made while something that it needs cannot be",
      given: { ...without(settledCluster, daemonSetKey, ROLE), unread: new Map([[ROLE, "no"]]) },
      expected: [],
      staticErrors: ["rbac/secretproviderclasses_role.yaml: no"]
    }
  ])("$row $name", ({ expected, given, nodeErrors = [], staticErrors = [] }) => {
    const planned = plan(given, fixed)
    assert.deepStrictEqual(words(planned.actions), expected)
    assert.deepStrictEqual(
      planned.staticErrors.map(({ error, file }) => `${file}: ${error}`),
      staticErrors
    )
    assert.deepStrictEqual(planned.nodeErrors, nodeErrors)
  })

  it("Q29 the driver's role loses its Secrets after the RoleBindings are there", () => {
    const { actions } = plan(oldRole({ ...settledCluster, syncNamespaces: new Set(["team-a", "team-b"]) }), fixed)
    assert.deepStrictEqual(words(actions), [`Create ${bindingKey("team-b")}`, `Update ${ROLE}`])
    // One that is there already has nothing to fail.
    assert.deepStrictEqual(requirements(actions, ROLE), [bindingKey("team-a"), bindingKey("team-b")])
  })

  it("Q13 3.4 a missing asset is said by its name, and the others are applied", () => {
    const some = new Map([...manifests].filter(([file]) => file !== "node_sa.yaml"))
    const { actions, staticErrors } = plan(observed(), { ...fixed, manifests: some })
    assert.deepStrictEqual(staticErrors, [{ file: "node_sa.yaml", error: "asset node_sa.yaml is missing" }])
    assert.include(words(actions), `Create ${csiDriverKey}`)
    assert.notInclude(words(actions), `Create ${daemonSetKey}`)
  })

  it.each([
    { name: "Managed", annotations: {}, expected: 0 },
    { name: "asked to take over", annotations: { [Annotation.adoptForeign]: "true" }, expected: 2 },
    { name: 'asked with another word than "true"', annotations: { [Annotation.adoptForeign]: "yes" }, expected: 0 }
  ])("Q41 one foreign object stops all of it: $name", ({ annotations, expected }) => {
    const labels = { "app.kubernetes.io/managed-by": "Helm" }
    const given: Observed = {
      ...withObject(
        without(settledCluster, POLICY),
        { metadata: { ...settledCluster.live.get(ROLE)?.metadata, labels } },
        ROLE
      ),
      clusterCsiDriver: clusterCsiDriver({ managementState: "Managed" }, { annotations, finalizers: [FINALIZER] })
    }
    const { actions, foreign } = plan(given, fixed)
    assert.lengthOf(actions, expected)
    assert.deepStrictEqual(
      foreign,
      expected === 0 ? ["ClusterRole.rbac.authorization.k8s.io/secretproviderclasses-role of a Helm release"] : []
    )
  })
})

describe("a removal", () => {
  const removing = (change: Partial<Observed> = {}, annotations: JsonObject = {}): Observed => ({
    ...settledCluster,
    clusterCsiDriver: clusterCsiDriver(
      { managementState: "Removed" },
      { finalizers: ["other", FINALIZER], annotations }
    ),
    ...change
  })
  const FORCED = { [Annotation.removeWithoutWaiting]: "true" }

  it("Q1 Q7 goes step by step, and ends with the finalizer", () => {
    let at = removing({ consumers: ["team-a/app"] })
    const steps: Array<string> = []
    const step = (change: Partial<Observed>) => {
      const planned = plan(at, fixed)
      steps.push(`${planned.removal?._tag}: ${words(planned.actions).join(", ")}`)
      at = { ...at, live: carriedOut(at.live, planned.actions).live, ...change }
    }
    step({ consumers: [] })
    step({ driverPods: [`${NAMESPACE}/pod`] })
    step({ driverPods: [] })
    step({})
    step({})
    const names = settledCluster.live
    const keys = (kind: string) =>
      [...names.keys()].filter((key) => key.startsWith(`${kind} `)).map((key) => `Delete ${key}`)
    const rest = [
      "CSIDriver",
      "ClusterRoleBinding",
      "RoleBinding",
      "ClusterRole",
      "ServiceAccount",
      "ConfigMap",
      "NetworkPolicy"
    ]
    assert.deepStrictEqual(steps, [
      "WaitingForPods: ",
      `StoppingDriver: Delete ${daemonSetKey}`,
      "StoppingDriver: ",
      `DeletingObjects: ${rest.flatMap(keys).join(", ")}`,
      "Done: RemoveFinalizer finalizer"
    ])
    const { actions } = plan(at, fixed)
    assert.deepStrictEqual(actions[0]?._tag === "RemoveFinalizer" ? actions[0].finalizers : undefined, ["other"])
  })

  const dying: Manifest = manifestOf({
    ...settledCluster.live.get(daemonSetKey),
    metadata: { ...settledCluster.live.get(daemonSetKey)?.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" }
  })

  it.each<{
    readonly row: string
    readonly name: string
    readonly given: Observed
    readonly removal: string
    readonly expected: ReadonlyArray<string>
  }>([
    {
      row: "Q7",
      name: "an annotation ends the waiting for pods that use it",
      given: removing({ consumers: ["team-a/app"] }, FORCED),
      removal: "StoppingDriver",
      expected: [`Delete ${daemonSetKey}`]
    },
    {
      row: "Q7",
      name: "a DaemonSet that is being deleted is not waited for twice",
      given: removing({ consumers: ["team-a/app"], live: byKey([dying]) }),
      removal: "StoppingDriver",
      expected: []
    },
    {
      row: "Q7",
      name: "an annotation ends the waiting for the driver's pods",
      given: removing({ driverPods: [`${NAMESPACE}/pod`], live: new Map() }, FORCED),
      removal: "Done",
      expected: ["RemoveFinalizer finalizer"]
    },
    {
      row: "Q1",
      name: "an object on its way is waited for",
      given: removing({
        live: byKey([
          manifestOf({
            ...settledCluster.live.get(POLICY),
            metadata: { ...settledCluster.live.get(POLICY)?.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" }
          })
        ])
      }),
      removal: "DeletingObjects",
      expected: []
    },
    {
      row: "Q35",
      name: "what cannot be read is not taken for gone",
      given: removing({ live: new Map(), unread: new Map([[POLICY, "no"]]) }),
      removal: "DeletingObjects",
      expected: []
    },
    {
      row: "Q35",
      name: "no manifest and no image is needed",
      given: removing(),
      removal: "StoppingDriver",
      expected: [`Delete ${daemonSetKey}`]
    },
    {
      row: "3.10",
      name: "of nothing, it is over",
      given: removing({ live: new Map(), clusterCsiDriver: clusterCsiDriver({ managementState: "Removed" }) }),
      removal: "Done",
      expected: []
    }
  ])("$row $name", ({ expected, given, removal }) => {
    const nothing = {
      ...fixed,
      manifests: new Map(),
      config: { ...config, images: { driver: "", registrar: "", livenessProbe: "" } }
    }
    const planned = plan(given, nothing)
    assert.strictEqual(planned.removal?._tag, removal)
    assert.deepStrictEqual(words(planned.actions), expected)
  })

  it("Q41 leaves what belongs to others", () => {
    const labels = { "app.kubernetes.io/managed-by": "Helm" }
    const theirs = manifestOf({
      ...settledCluster.live.get(ROLE),
      metadata: { name: "secretproviderclasses-role", labels }
    })
    const planned = plan(removing({ live: byKey([theirs]) }), fixed)
    assert.deepStrictEqual(words(planned.actions), ["RemoveFinalizer finalizer"])
    assert.deepStrictEqual(planned.foreign, [
      "ClusterRole.rbac.authorization.k8s.io/secretproviderclasses-role of a Helm release"
    ])
  })
})

describe("objects as they are wanted", () => {
  const wanted = (change: Partial<Desired.Surroundings> = {}) =>
    Desired.staticObjects(manifests, config, {
      syncNamespaces: [],
      servedGroups: new Set(),
      apiServerPorts: [],
      ...change
    }).map((result) => manifestOf(Result.getOrThrow(result).manifest))

  it("13 SCCs are spoken of where they are served", () => {
    const names = wanted().map((object) => keyOf(idOf(object)))
    assert.deepStrictEqual(names, [
      `ServiceAccount ${NAMESPACE}/secrets-store-csi-driver-node-sa`,
      `ConfigMap ${NAMESPACE}/secrets-store-csi-driver-trusted-ca-bundle`,
      ROLE,
      "ClusterRoleBinding secretproviderclasses-rolebinding",
      csiDriverKey,
      `NetworkPolicy ${NAMESPACE}/sscsi-allow-ingress-to-metrics-operand`,
      `NetworkPolicy ${NAMESPACE}/sscsi-allow-egress-to-api-server-operand`,
      POLICY
    ])
    const served = wanted({ servedGroups: new Set(["security.openshift.io"]) }).map((object) => keyOf(idOf(object)))
    assert.deepStrictEqual(
      served.filter((key) => !names.includes(key)),
      ["ClusterRole secrets-store-privileged-role", "ClusterRoleBinding secrets-store-node-privileged-binding"]
    )
  })

  it.each([
    { name: "unknown", ports: [], expected: [443, 6443] },
    { name: "known already", ports: [6443, 443], expected: [443, 6443] },
    { name: "others, once and in order", ports: [8443, 1443, 8443], expected: [443, 6443, 1443, 8443] }
  ])("B10 the API server's ports are $name", ({ expected, ports }) => {
    const policy = wanted({ apiServerPorts: ports }).find(
      ({ metadata }) => metadata.name === "sscsi-allow-egress-to-api-server-operand"
    )
    assert.deepStrictEqual<unknown>(policy?.["spec"], {
      podSelector: { matchLabels: { app: "secrets-store-csi-driver-node" } },
      policyTypes: ["Egress"],
      egress: [{ ports: expected.map((port) => ({ port, protocol: "TCP" })) }]
    })
  })
})
