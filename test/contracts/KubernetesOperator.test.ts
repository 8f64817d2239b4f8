/**
 * The operator's whole life on a real API server, with the token and the rights of its own account: what no fake can
 * vouch for. The administrator does everything else, and plays the DaemonSet controller. Needs a real API server.
 *
 * @source reference/operator.md 3, 4, 11, 13
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope, Stream } from "effect"
import * as Old from "../../layers/fake/simulation/OldOperator.ts"
import { clusterCsiDriverCrd } from "../../schemas/crd/ClusterCSIDriverCrd.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { isEqual, isObject, type JsonObject, listAt, objectAt, textAt } from "../../schemas/Json.ts"
import {
  DAEMON_SET,
  DRIVER_NAME,
  FieldManager,
  finalizerOf,
  LEASE,
  NODE_CONTROLLER,
  OPERATOR_NAME,
  STATIC_CONTROLLER
} from "../../src/operator/Names.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import {
  clusterCsiDriver,
  clusterRole,
  clusterRoleBinding,
  csiDriver,
  daemonSet,
  get,
  installed,
  isGone,
  kubeconfig,
  makeNamespace,
  NAMESPACE,
  onRealServer,
  operandPaths,
  operator,
  type RunningOperator,
  read,
  type Sent,
  statusOf,
  until
} from "../support/RealCluster.ts"

const TEAM = "contract-team"
const MERGE = "application/merge-patch+json"
const JSON_PATCH = "application/json-patch+json"
const RBAC = "/apis/rbac.authorization.k8s.io/v1"
const configMap = `/api/v1/namespaces/${NAMESPACE}/configmaps/secrets-store-csi-driver-trusted-ca-bundle`
const serviceAccount = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/secrets-store-csi-driver-node-sa`
const networkPolicy = `/apis/networking.k8s.io/v1/namespaces/${NAMESPACE}/networkpolicies/sscsi-allow-ingress-to-metrics-operand`
const lease = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases/${LEASE}`
const consumer = `/api/v1/namespaces/${TEAM}/pods/consumer`
const classes = `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${TEAM}/secretproviderclasses`
const definition = `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${clusterCsiDriverCrd.metadata.name}`
const operatorRole = `${RBAC}/clusterroles/${OPERATOR_NAME}`
const everything = [
  ...operandPaths,
  configMap,
  ...["clusterroles/secrets-store-privileged-role", "clusterrolebindings/secrets-store-node-privileged-binding"].map(
    (name) => `${RBAC}/${name}`
  ),
  `${RBAC}/namespaces/${TEAM}/rolebindings/secrets-store-csi-driver-secret-sync`
]

const AUDIENCES = [{ audience: "sts.amazonaws.com", expirationSeconds: 3600 }, { audience: "vault" }]
const AVAILABLE = `${NODE_CONTROLLER}Available`
const PROGRESSING = `${NODE_CONTROLLER}Progressing`

/** Written by the old operator, long ago. */
const LONG_AGO = "2026-01-01T00:00:00Z"

const bodyOf = (value: unknown): JsonObject => (isObject(value) ? value : {})
const metadataOf = (object: JsonObject): JsonObject => objectAt(object, "metadata")
const specOf = (object: JsonObject): JsonObject => objectAt(object, "spec")

/** By the administrator. */
const send = (request: KubernetesRequest) => Effect.flatMap(KubernetesApi, (api) => api.request(request))
const look = (path: string) => Effect.map(get(path), bodyOf)
const create = (path: string, body: JsonObject) => Effect.map(send({ method: "POST", path, body }), bodyOf)
const remove = (path: string) => send({ method: "DELETE", path })
const merge = (path: string, body: JsonObject) =>
  Effect.map(send({ method: "PATCH", path, contentType: MERGE, body }), bodyOf)
const patch = (path: string, body: ReadonlyArray<JsonObject>) =>
  Effect.map(send({ method: "PATCH", path, contentType: JSON_PATCH, body }), bodyOf)

const absentIsDone = <A, R>(effect: Effect.Effect<A, KubernetesApiFailed, R>) =>
  Effect.catchIf(
    effect,
    ({ status }) => status === 404,
    () => Effect.undefined
  )

const parentOf = (path: string): string => path.slice(0, path.lastIndexOf("/"))

const createClusterCsiDriver = (spec: JsonObject = { managementState: "Managed" }) =>
  create(parentOf(clusterCsiDriver), {
    apiVersion: "operator.openshift.io/v1",
    kind: "ClusterCSIDriver",
    metadata: { name: DRIVER_NAME },
    spec
  })

const setManagementState = (managementState: string) => merge(clusterCsiDriver, { spec: { managementState } })

const configured = (secretsStore: JsonObject) =>
  merge(clusterCsiDriver, { spec: { driverConfig: { driverType: "SecretsStore", secretsStore } } })

/** Whatever a test leaves: an operator that is gone by now is no help. */
const cleanUp = Effect.gen(function* () {
  yield* merge(definition, { spec: clusterCsiDriverCrd.spec })
  // An object that breaks a rule is put right first: without that nothing can be written to it, not even this.
  yield* Effect.ignore(merge(clusterCsiDriver, { spec: { driverConfig: null } }))
  for (const path of [clusterCsiDriver, csiDriver]) {
    yield* absentIsDone(remove(path))
    yield* absentIsDone(merge(path, { metadata: { finalizers: null } }))
  }
  for (const path of [...everything, lease, `${classes}/wants-secrets`]) yield* absentIsDone(remove(path))
  yield* absentIsDone(send({ method: "DELETE", path: consumer, query: { gracePeriodSeconds: 0 } }))
  yield* until("the ClusterCSIDriver is gone", isGone(clusterCsiDriver))
})

const whole = <A, E>(program: Effect.Effect<A, E, KubernetesApi | Scope.Scope>) =>
  onRealServer(
    Effect.gen(function* () {
      yield* installed
      yield* makeNamespace(TEAM)
      yield* cleanUp
      yield* Effect.addFinalizer(() => Effect.orDie(cleanUp))
      return yield* Effect.scoped(program)
    })
  )

/** The DaemonSet controller and its pods: whatever is asked for runs at once. */
const controlPlane = Effect.fnUntraced(function* (nodes = 2) {
  const tick = Effect.gen(function* () {
    const object = yield* look(daemonSet)
    const { generation } = metadataOf(object)
    if (objectAt(object, "status")["observedGeneration"] === generation) return
    const status = {
      observedGeneration: generation,
      currentNumberScheduled: nodes,
      desiredNumberScheduled: nodes,
      numberMisscheduled: 0,
      numberReady: nodes,
      numberAvailable: nodes,
      updatedNumberScheduled: nodes
    }
    yield* merge(`${daemonSet}/status`, { status })
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(absentIsDone(tick), Effect.sleep("50 millis"))))
})

const conditionIn = (object: JsonObject, type: string): JsonObject =>
  listAt(objectAt(object, "status"), "conditions")
    .filter(isObject)
    .find((it) => it["type"] === type) ?? {}
const condition = (type: string) => Effect.map(look(clusterCsiDriver), (it) => conditionIn(it, type))
const isCondition = (type: string, status: string, reason: string) =>
  Effect.map(condition(type), (it) => (it["status"] === status && it["reason"] === reason ? it : undefined))

const isWrite = ({ method, path }: Sent): boolean => method !== "GET" && !path.includes("/leases")
const writesOf = ({ sent }: RunningOperator, from = 0): ReadonlyArray<string> =>
  sent
    .slice(from)
    .filter(isWrite)
    .map(({ method, path, status }) => `${method} ${path} ${status}`)

/** Nothing but reads and the election for a while: the last look has found nothing to do. */
const quiet = Effect.fnUntraced(function* (it: RunningOperator) {
  let before = -1
  while (before !== it.sent.filter(isWrite).length) {
    before = it.sent.filter(isWrite).length
    yield* Effect.sleep("600 millis")
  }
})

const settled = Effect.fnUntraced(function* (it: RunningOperator) {
  yield* until("it is available", isCondition("Available", "True", "AsExpected"))
  yield* until("it is rolled out", isCondition("Progressing", "False", "AsExpected"))
  yield* quiet(it)
})

const start = Effect.fnUntraced(function* (spec?: JsonObject) {
  yield* controlPlane()
  const it = yield* operator()
  yield* createClusterCsiDriver(spec)
  yield* settled(it)
  return it
})

let touches = 0
/** The administrator changes something that concerns nobody; ends when the operator has looked at everything. */
const reconciled = Effect.fnUntraced(function* (it: RunningOperator) {
  const from = it.sent.length
  touches++
  yield* merge(clusterCsiDriver, { metadata: { annotations: { touched: String(touches) } } })
  yield* until(
    "it has looked",
    Effect.sync(() => (it.sent.slice(from).some(({ path }) => path === clusterCsiDriver) ? true : undefined))
  )
  let before = -1
  while (before !== it.sent.length) {
    before = it.sent.length
    yield* Effect.sleep("200 millis")
  }
})

/** The one driver type that was once nothing at all, and is against the rules of today. */
const OLD_CONFIG = { driverType: "" }

/** Writes what the rules of today forbid, as it was possible before there were any. */
const beforeTheRules = Effect.fnUntraced(function* (write: ReturnType<typeof createClusterCsiDriver>) {
  const withoutRules: unknown = JSON.parse(JSON.stringify(clusterCsiDriverCrd.spec), (key, value: unknown) =>
    key === "x-kubernetes-validations" ? undefined : value
  )
  const isInvalid = ({ status }: KubernetesApiFailed) => status === 422
  yield* merge(definition, { spec: withoutRules })
  yield* until(
    "it is taken",
    Effect.catchIf(write, isInvalid, () => Effect.undefined)
  )
  yield* merge(definition, { spec: clusterCsiDriverCrd.spec })
  // Of another name, and not stored.
  const tried = send({
    method: "POST",
    path: parentOf(clusterCsiDriver),
    query: { dryRun: "All" },
    body: {
      apiVersion: "operator.openshift.io/v1",
      kind: "ClusterCSIDriver",
      metadata: { name: "ebs.csi.aws.com" },
      spec: { managementState: "Managed", driverConfig: { driverType: "SecretsStore" } }
    }
  })
  yield* until(
    "the rules are known",
    Effect.catchIf(Effect.as(tried, undefined), isInvalid, () => Effect.succeed(true))
  )
})

/** "k:{...}" of each list in the status, and each scalar, with those who own it. */
const ownersOf = (object: JsonObject): ReadonlyMap<string, ReadonlyArray<string>> => {
  const owners = new Map<string, Array<string>>()
  for (const entry of listAt(metadataOf(object), "managedFields").filter(isObject)) {
    if (entry["subresource"] !== "status") continue
    const status = objectAt(objectAt(entry, "fieldsV1"), "f:status")
    const items = Object.keys(status).flatMap((key) =>
      key === "f:conditions" || key === "f:generations" ? Object.keys(objectAt(status, key)) : [key]
    )
    for (const item of items.filter((key) => key !== ".")) {
      owners.set(item, [...(owners.get(item) ?? []), textAt(entry, "manager") ?? ""])
    }
  }
  return owners
}
const conditionKey = (type: string) => `k:${JSON.stringify({ type })}`
const GENERATION = `k:${JSON.stringify({ group: "apps", name: DAEMON_SET, namespace: NAMESPACE, resource: "daemonsets" })}`

const OWNERS: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
  [conditionKey("ManagementStateDegraded"), [FieldManager.managementState]],
  [conditionKey(`${STATIC_CONTROLLER}Degraded`), [FieldManager.staticResources]],
  [conditionKey("ConfigObservationDegraded"), [FieldManager.configObserver]],
  [conditionKey(AVAILABLE), [FieldManager.nodeService]],
  [conditionKey(PROGRESSING), [FieldManager.nodeService]],
  [GENERATION, [FieldManager.nodeService]],
  [conditionKey(`${NODE_CONTROLLER}Degraded`), [FieldManager.reportDegraded]],
  ...["Available", "Degraded", "OpenShiftAPIsAvailable", "Progressing"].map(
    (type) => [conditionKey(type), [FieldManager.summary]] as const
  ),
  ...["f:observedGeneration", "f:readyReplicas", "f:version"].map((key) => [key, [FieldManager.summary]] as const)
]
const assertOwners = (object: JsonObject) =>
  assert.deepStrictEqual(Object.fromEntries(ownersOf(object)), Object.fromEntries(OWNERS))

const generationOf = (object: JsonObject) => metadataOf(object)["generation"]
const uidOf = (object: JsonObject) => metadataOf(object)["uid"]

describe.skipIf(kubeconfig === "")(
  kubeconfig === "" ? "the operator on a real API server (needs TEST_KUBECONFIG)" : "the operator on a real API server",
  { timeout: 60_000 },
  () => {
    it.live("3.1, 3.6: it installs, and says how far it is, each condition in the name of one manager", () =>
      whole(
        Effect.gen(function* () {
          const it = yield* operator()
          yield* createClusterCsiDriver()
          const waiting = yield* until("it waits", isCondition("Progressing", "True", "Deploying"))
          assert.strictEqual(waiting["message"], "Waiting for DaemonSet to act on changes")
          yield* until("none is ready", isCondition("Available", "False", "Deploying"))
          yield* controlPlane()
          yield* settled(it)
          const object = yield* look(clusterCsiDriver)
          assert.deepStrictEqual(metadataOf(object)["finalizers"], [finalizerOf(OPERATOR_NAME)])
          const { conditions, ...status } = objectAt(object, "status")
          assert.deepStrictEqual(status, {
            generations: [
              { group: "apps", resource: "daemonsets", namespace: NAMESPACE, name: DAEMON_SET, lastGeneration: 1 }
            ],
            observedGeneration: generationOf(object),
            readyReplicas: 2,
            version: "0.0.0"
          })
          const bad = listAt({ conditions }, "conditions")
            .filter(isObject)
            .filter(({ status: is, type }) => String(type).endsWith("Degraded") && is !== "False")
          assert.deepStrictEqual(bad, [])
          assertOwners(object)
          assert.strictEqual(generationOf(yield* look(daemonSet)), 1)
          assert.deepStrictEqual(it.refused, [])
        })
      )
    )

    it.live("4: what the API server adds to an object is no reason to write it; a restart happens once (Q11)", () =>
      whole(
        Effect.gen(function* () {
          const it = yield* start()
          let from = it.sent.length
          for (let round = 0; round < 10; round++) yield* reconciled(it)
          yield* merge(daemonSet, { metadata: { annotations: { "somebody.example.com/was": "here" } } })
          yield* reconciled(it)
          assert.deepStrictEqual(writesOf(it, from), [])
          const looks = it.sent.slice(from).filter(({ path }) => path === daemonSet)
          assert.isAtLeast(looks.length, 11)

          from = it.sent.length
          const restartedAt = { "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" }
          yield* merge(daemonSet, { spec: { template: { metadata: { annotations: restartedAt } } } })
          yield* until(
            "the new generation is known",
            Effect.map(look(clusterCsiDriver), (object) => {
              const [entry] = listAt(objectAt(object, "status"), "generations").filter(isObject)
              return entry?.["lastGeneration"] === 2 ? true : undefined
            })
          )
          yield* settled(it)
          const after = yield* look(daemonSet)
          assert.strictEqual(generationOf(after), 2)
          const annotations = objectAt(metadataOf(objectAt(specOf(after), "template")), "annotations")
          assert.include(annotations, restartedAt)
          assert.include(objectAt(metadataOf(after), "annotations"), {
            "somebody.example.com/was": "here",
            "storage.openshift.io/stable-generation": "2"
          })
          const written = new Set(
            it.sent
              .slice(from)
              .filter(isWrite)
              .map(({ path }) => path)
          )
          assert.deepStrictEqual([...written].sort(), [daemonSet, `${clusterCsiDriver}/status`])
          assert.deepStrictEqual(it.refused, [])
        })
      )
    )

    it.live(
      "4.4, Q10, Q12: 20 changes of rotation leave the CSIDriver and its audiences; Managed ones replace them",
      () =>
        whole(
          Effect.gen(function* () {
            const it = yield* start()
            const before = yield* merge(csiDriver, { spec: { tokenRequests: AUDIENCES } })
            const api = yield* KubernetesApi
            const seen: Array<string> = []
            const resourceVersion = textAt(metadataOf(before), "resourceVersion")
            yield* Effect.forkScoped(
              Stream.runForEach(
                api.watch({ path: parentOf(csiDriver), query: { resourceVersion, timeoutSeconds: 60 } }, 60_000),
                ({ object, type }) =>
                  Effect.sync(() => {
                    seen.push(`${type} ${uidOf(bodyOf(object))}`)
                  })
              )
            )
            for (let flip = 0; flip < 20; flip++) {
              const isOn = flip % 2 === 1
              yield* configured({
                secretRotation: isOn
                  ? { type: "Custom", custom: { minimumRefreshAge: 60 + flip } }
                  : { type: "None", custom: null }
              })
              yield* until(
                `change ${flip} is made`,
                Effect.map(look(csiDriver), (object) =>
                  specOf(object)["requiresRepublish"] === isOn ? true : undefined
                )
              )
              assert.deepStrictEqual(specOf(yield* look(csiDriver))["tokenRequests"], AUDIENCES)
            }
            yield* settled(it)
            const after = yield* look(csiDriver)
            assert.strictEqual(uidOf(after), uidOf(before))
            assert.deepStrictEqual([...new Set(seen)], [`MODIFIED ${uidOf(before)}`])
            assert.isAtLeast(seen.length, 20)

            const tokens = Effect.map(look(csiDriver), (object) => listAt(specOf(object), "tokenRequests"))
            const manage = (audiences: ReadonlyArray<JsonObject>) =>
              Effect.gen(function* () {
                yield* configured({ tokenRequests: { type: "Managed", managed: { audiences } } })
                yield* until(
                  "the list is there",
                  Effect.map(tokens, (found) => (isEqual(found, audiences) ? true : undefined))
                )
              })
            yield* manage([{ audience: "managed", expirationSeconds: 600 }])
            // A foreign entry at the end goes, too.
            yield* merge(csiDriver, {
              spec: { tokenRequests: [{ audience: "managed", expirationSeconds: 600 }, ...AUDIENCES] }
            })
            yield* until(
              "nothing but the list is there",
              Effect.map(tokens, (found) => (found.length === 1 ? true : undefined))
            )
            yield* manage([])
            const refusal = yield* Effect.flip(configured({ tokenRequests: { type: "Unmanaged", managed: null } }))
            assert.strictEqual(refusal.status, 422)
            assert.include(refusal.message, "tokenRequests type cannot be changed from Managed")
            assert.strictEqual(uidOf(yield* look(csiDriver)), uidOf(before))
            assert.isFalse(seen.some((event) => event.startsWith("DELETED")))
            assert.deepStrictEqual(it.refused, [])
          })
        )
    )

    it.live.each([
      { name: "attachRequired", change: { attachRequired: true } },
      { name: "volumeLifecycleModes", change: { volumeLifecycleModes: ["Persistent", "Ephemeral"] } }
    ])("4.4: a CSIDriver with another $name is made again, once, with its audiences", ({ change }) =>
      whole(
        Effect.gen(function* () {
          const [manifest] = read("driver/csidriver.yaml")
          const spec = { ...specOf({ ...manifest }), ...change, tokenRequests: AUDIENCES }
          const before = yield* create(parentOf(csiDriver), { ...manifest, spec })
          const it = yield* start()
          const after = yield* look(csiDriver)
          assert.notStrictEqual(uidOf(after), uidOf(before))
          const { attachRequired, tokenRequests, volumeLifecycleModes } = specOf(after)
          assert.deepStrictEqual(
            [attachRequired, tokenRequests, volumeLifecycleModes],
            [false, AUDIENCES, ["Ephemeral"]]
          )
          const deletions = writesOf(it).filter((write) => write.startsWith("DELETE"))
          assert.deepStrictEqual(deletions, [`DELETE ${csiDriver} 200`])
          yield* reconciled(it)
          assert.strictEqual(uidOf(yield* look(csiDriver)), uidOf(after))
          assert.deepStrictEqual(it.refused, [])
        })
      )
    )

    it.live("4.2, Q27: what others change in the operand is changed back, and what they add beside it stays", () =>
      whole(
        Effect.gen(function* () {
          const it = yield* start()
          const reverted = Effect.fnUntraced(function* (path: string, body: JsonObject, keys: ReadonlyArray<string>) {
            const contents = (object: JsonObject) => keys.map((key) => object[key])
            const before = yield* look(path)
            const edited = yield* merge(path, body)
            assert.notDeepEqual(contents(edited), contents(before), path)
            yield* until(
              `${path} is as before`,
              Effect.map(look(path), (now) => (isEqual(contents(now), contents(before)) ? true : undefined))
            )
          })
          yield* reverted(clusterRole, { rules: [{ apiGroups: [""], resources: ["pods"], verbs: ["get"] }] }, ["rules"])
          const more = { kind: "User", name: "somebody", apiGroup: "rbac.authorization.k8s.io" }
          const subjects = listAt(yield* look(clusterRoleBinding), "subjects")
          yield* reverted(clusterRoleBinding, { subjects: [...subjects, more] }, ["subjects"])
          yield* reverted(clusterRoleBinding, { subjects: [] }, ["subjects"])
          yield* reverted(configMap, { data: { extra: "key" } }, ["data"])
          yield* reverted(networkPolicy, { spec: { ingress: [{ ports: [{ port: 1, protocol: "TCP" }] }] } }, ["spec"])
          yield* reverted(csiDriver, { spec: { podInfoOnMount: false } }, ["spec"])
          const [driver] = listAt(specOf(objectAt(specOf(yield* look(daemonSet)), "template")), "containers")
          const image = { ...bodyOf(driver), image: "another" }
          yield* reverted(daemonSet, { spec: { template: { spec: { containers: [image] } } } }, ["spec"])
          assert.strictEqual(generationOf(yield* look(daemonSet)), 3)
          // What is given to the certificates' ConfigMap by the cluster is not ours.
          yield* merge(configMap, { data: { "ca-bundle.crt": "certificates" } })
          for (const path of [serviceAccount, clusterRole, networkPolicy, daemonSet]) {
            yield* merge(path, { metadata: { labels: { team: "a" } } })
          }
          yield* settled(it)
          yield* reconciled(it)
          for (const path of [serviceAccount, clusterRole, networkPolicy, daemonSet]) {
            assert.strictEqual(objectAt(metadataOf(yield* look(path)), "labels")["team"], "a", path)
          }
          assert.deepStrictEqual(objectAt(yield* look(configMap), "data"), { "ca-bundle.crt": "certificates" })

          for (const path of operandPaths) {
            const before = yield* look(path)
            yield* remove(path)
            yield* until(
              `${path} is made again`,
              Effect.map(look(path), (now) => (uidOf(now) === uidOf(before) ? undefined : true))
            )
          }
          yield* settled(it)
          yield* it.stop

          const binding = yield* look(clusterRoleBinding)
          yield* remove(clusterRoleBinding)
          const roleRef = { ...objectAt(binding, "roleRef"), name: "view" }
          const { name } = metadataOf(binding)
          yield* create(parentOf(clusterRoleBinding), {
            ...binding,
            roleRef,
            metadata: { name, labels: { team: "a" } }
          })
          const next = yield* operator()
          yield* until(
            "the right role is bound",
            Effect.map(look(clusterRoleBinding), (now) =>
              isEqual(now["roleRef"], binding["roleRef"]) ? now : undefined
            )
          )
          yield* settled(next)
          const now = yield* look(clusterRoleBinding)
          assert.deepStrictEqual(now["subjects"], binding["subjects"])
          assert.include(objectAt(metadataOf(now), "labels"), { team: "a" })
          assert.deepStrictEqual(
            writesOf(next).filter((write) => !write.includes("/clustercsidrivers/")),
            [`DELETE ${clusterRoleBinding} 200`, `POST ${parentOf(clusterRoleBinding)} 200`]
          )
          assert.deepStrictEqual([...it.refused, ...next.refused], [])
        })
      )
    )

    it.live("3.10, Q4: while it is Unmanaged edits stay, and its deletion leaves the operand", () =>
      whole(
        Effect.gen(function* () {
          const it = yield* start()
          yield* setManagementState("Unmanaged")
          yield* quiet(it)
          const from = it.sent.length
          yield* merge(networkPolicy, { spec: { ingress: [] } })
          yield* merge(clusterRoleBinding, { subjects: [] })
          yield* reconciled(it)
          yield* reconciled(it)
          assert.deepStrictEqual(writesOf(it, from), [])
          assert.isUndefined(specOf(yield* look(networkPolicy))["ingress"])
          yield* remove(clusterCsiDriver)
          yield* until("the ClusterCSIDriver is gone", isGone(clusterCsiDriver))
          yield* quiet(it)
          assert.deepStrictEqual(writesOf(it, from), [`PATCH ${clusterCsiDriver} 200`])
          for (const path of operandPaths) assert.strictEqual(yield* statusOf(path), 200, path)
          assert.include(
            it.events.map(({ reason }) => reason),
            "OperandLeftInPlace"
          )
          assert.deepStrictEqual(it.refused, [])
        })
      )
    )

    it.live(
      "3.9, 3.10, Q1, Q7, Q16: Removed waits for pods, takes everything away in order, and can be taken back",
      () =>
        whole(
          Effect.gen(function* () {
            const it = yield* start()
            yield* merge(csiDriver, { spec: { tokenRequests: AUDIENCES } })
            yield* create(parentOf(consumer), {
              apiVersion: "v1",
              kind: "Pod",
              metadata: { name: "consumer", namespace: TEAM },
              spec: {
                nodeName: "node-0",
                containers: [{ name: "app", image: "app" }],
                volumes: [{ name: "secrets", csi: { driver: DRIVER_NAME, readOnly: true } }]
              }
            })
            yield* quiet(it)
            const from = it.sent.length
            yield* setManagementState("Removed")
            const waiting = yield* until("it waits for the pod", isCondition(PROGRESSING, "True", "WaitingForPods"))
            assert.include(waiting["message"], `of the driver: ${TEAM}/consumer`)
            yield* reconciled(it)
            for (const path of everything.slice(0, operandPaths.length)) {
              assert.strictEqual(yield* statusOf(path), 200, path)
            }
            yield* send({ method: "DELETE", path: consumer, query: { gracePeriodSeconds: 0 } })
            // It looks every 15 seconds while it waits, and at once when something has changed.
            yield* reconciled(it)
            yield* until("all is gone", isCondition("Progressing", "False", "Removed"))
            yield* quiet(it)
            for (const path of everything) assert.strictEqual(yield* statusOf(path), 404, path)
            const order = it.sent
              .slice(from)
              .filter(({ method }) => method === "DELETE")
              .map(({ path }) => path.split("/").at(-2))
            assert.deepStrictEqual(order, [
              ...["daemonsets", "csidrivers", "clusterrolebindings", "clusterroles", "serviceaccounts", "configmaps"],
              ...["networkpolicies", "networkpolicies", "networkpolicies"]
            ])
            const object = yield* look(clusterCsiDriver)
            for (const type of ["Available", AVAILABLE]) {
              assert.include(conditionIn(object, type), { status: "False", reason: "Removed" })
            }
            const { conditions: _, ...status } = objectAt(object, "status")
            assert.deepStrictEqual(status, { observedGeneration: generationOf(object), readyReplicas: 0 })
            assert.isUndefined(metadataOf(object)["finalizers"])
            const idle = it.sent.length
            yield* reconciled(it)
            assert.deepStrictEqual(writesOf(it, idle), [])

            yield* setManagementState("Managed")
            yield* settled(it)
            assert.deepStrictEqual(specOf(yield* look(csiDriver))["tokenRequests"], AUDIENCES)
            assertOwners(yield* look(clusterCsiDriver))
            assert.deepStrictEqual(it.refused, [])
          })
        )
    )

    it.live("3.9, Q1: a ClusterCSIDriver that is deleted goes last", () =>
      whole(
        Effect.gen(function* () {
          const it = yield* start()
          // Somebody else is not done with the CSIDriver yet.
          yield* merge(csiDriver, { metadata: { finalizers: ["example.com/holds-it"] } })
          yield* remove(clusterCsiDriver)
          yield* until(
            "it is being deleted",
            Effect.map(look(csiDriver), (object) => metadataOf(object)["deletionTimestamp"] !== undefined || undefined)
          )
          yield* quiet(it)
          assert.strictEqual(yield* statusOf(clusterCsiDriver), 200)
          assert.include((yield* condition(PROGRESSING))["message"], DRIVER_NAME)
          yield* merge(csiDriver, { metadata: { finalizers: null } })
          yield* until("the ClusterCSIDriver is gone", isGone(clusterCsiDriver))
          for (const path of everything) assert.strictEqual(yield* statusOf(path), 404, path)
          yield* quiet(it)
          assert.deepStrictEqual(it.refused, [])
        })
      )
    )

    it.live(
      "13: what the old operator has left is taken over: no pod is replaced, and every condition keeps its owner and its time",
      () =>
        whole(
          Effect.gen(function* () {
            yield* controlPlane()
            yield* Old.leaveBehind({ tokenRequests: [], certificates: false, namespace: NAMESPACE })
            yield* until(
              "its pods run",
              Effect.map(look(daemonSet), (object) => objectAt(object, "status")["numberAvailable"] === 2 || undefined)
            )
            yield* Old.daemonSetIsStable(NAMESPACE)
            yield* Old.leaveStaleCondition
            const before = yield* Effect.forEach([daemonSet, csiDriver], look)
            const it = yield* operator({ images: { driver: "drv", registrar: "reg", livenessProbe: "live" } })
            yield* settled(it)
            // Rights to all Secrets, a label that says whose it is, and policies that the old one did not have.
            const policies = parentOf(networkPolicy)
            assert.deepStrictEqual(
              writesOf(it).filter((write) => !write.includes("/clustercsidrivers/")),
              [
                `PUT ${clusterRole} 200`,
                `PUT ${clusterRoleBinding} 200`,
                `POST ${policies} 200`,
                `POST ${policies} 200`
              ]
            )
            assert.deepStrictEqual(yield* Effect.forEach([daemonSet, csiDriver], look), before)
            const object = yield* look(clusterCsiDriver)
            assertOwners(object)
            assert.deepStrictEqual(conditionIn(object, Old.STALE), {})
            for (const type of [AVAILABLE, PROGRESSING, "ManagementStateDegraded"]) {
              assert.strictEqual(conditionIn(object, type)["lastTransitionTime"], LONG_AGO, type)
            }
            assert.strictEqual(generationOf(object), 1)
            assert.deepStrictEqual(it.refused, [])
          })
        )
    )

    it.live(
      "Q28: an object that a newer rule forbids is complained of, with the way out, and not again and again",
      () =>
        whole(
          Effect.gen(function* () {
            yield* beforeTheRules(createClusterCsiDriver({ managementState: "Managed", driverConfig: OLD_CONFIG }))
            yield* controlPlane()
            const it = yield* operator()
            yield* Effect.sleep("6 seconds")
            // Nothing can be written, not even the status, and nothing is done without the finalizer.
            const answers = it.sent.filter(isWrite).map(({ path, status }) => `${status} ${path}`)
            assert.deepStrictEqual([...new Set(answers)], [`422 ${clusterCsiDriver}`, `422 ${clusterCsiDriver}/status`])
            const looks = it.sent.filter(({ method, path }) => method === "GET" && path === clusterCsiDriver)
            assert.isAtMost(looks.length, 6)
            const rule = "metadata.name 'secrets-store.csi.k8s.io' requires driverType 'SecretsStore'"
            const remedy = `kubectl patch clustercsidriver ${DRIVER_NAME} --type=json -p '[{"op":"remove","path":"/spec/driverConfig"}]'`
            const complaints = it.logged.filter((line) => line.includes("trying again"))
            assert.lengthOf(complaints, 1)
            assert.lengthOf(complaints.join("").split(JSON.stringify(remedy).slice(1, -1)), 2)
            const [event, ...others] = [...new Set(it.events.map(({ message, reason }) => `${reason} ${message}`))]
            assert.deepStrictEqual(others, [])
            assert.match(event ?? "", /^ClusterCSIDriverInvalid /u)
            assert.include(event, rule)
            assert.include(event, remedy)
            // As it says.
            yield* patch(clusterCsiDriver, [{ op: "remove", path: "/spec/driverConfig" }])
            yield* settled(it)
            assert.deepStrictEqual(it.refused, [])
          })
        )
    )

    it.live(
      "Q28: an operand that was there before is looked after all the same, and goes once the object is in order",
      () =>
        whole(
          Effect.gen(function* () {
            const before = yield* start()
            yield* before.stop
            yield* beforeTheRules(merge(clusterCsiDriver, { spec: { driverConfig: OLD_CONFIG } }))
            const it = yield* operator()
            yield* merge(networkPolicy, { spec: { ingress: [] } })
            yield* until(
              "the policy is as before",
              Effect.map(look(networkPolicy), (object) =>
                listAt(specOf(object), "ingress").length > 0 ? true : undefined
              )
            )
            yield* remove(clusterCsiDriver)
            yield* until(
              "nothing but the finalizer is left",
              Effect.sync(() => (writesOf(it).at(-1) === `PATCH ${clusterCsiDriver} 422` ? true : undefined))
            )
            yield* Effect.sleep("300 millis")
            for (const path of everything) assert.strictEqual(yield* statusOf(path), 404, path)
            assert.include(
              it.logged.findLast((line) => line.includes("trying again")),
              "kubectl patch clustercsidriver"
            )
            assert.strictEqual(it.events.at(-1)?.reason, "ClusterCSIDriverInvalid")
            yield* patch(clusterCsiDriver, [{ op: "remove", path: "/spec/driverConfig" }])
            yield* until("the ClusterCSIDriver is gone", isGone(clusterCsiDriver))
            for (const path of everything) assert.strictEqual(yield* statusOf(path), 404, path)
            assert.deepStrictEqual(it.refused, [])
          })
        )
    )

    it.live.each([
      {
        name: "verb bind",
        isTaken: (rule: JsonObject) => listAt(rule, "verbs").includes("bind")
      },
      {
        name: "right that the driver's role gives",
        isTaken: (rule: JsonObject) => listAt(rule, "resources").includes("secretproviderclasspodstatuses")
      }
    ])(
      "7.3: without a $name it is Degraded, and says why in the API server's words; with it, it goes on",
      ({ isTaken }) =>
        whole(
          Effect.gen(function* () {
            yield* controlPlane()
            const it = yield* operator()
            const rules = listAt(yield* look(operatorRole), "rules").filter(isObject)
            const left = rules.filter((rule) => !isTaken(rule))
            assert.strictEqual(left.length, rules.length - 1)
            yield* merge(operatorRole, { rules: left })
            // Rights are known to the API server a moment later.
            yield* Effect.sleep("500 millis")
            yield* create(classes, {
              apiVersion: "secrets-store.csi.x-k8s.io/v1",
              kind: "SecretProviderClass",
              metadata: { name: "wants-secrets" },
              spec: {
                provider: "vault",
                secretObjects: [{ secretName: "a", type: "Opaque", data: [{ objectName: "a", key: "a" }] }]
              }
            })
            yield* createClusterCsiDriver()
            const found = yield* until("it is Degraded", isCondition("Degraded", "True", "SyncError"))
            assert.include(found["message"], "is attempting to grant RBAC permissions not currently held")
            assert.include(found["message"], "give the ServiceAccount in the message the rules listed there")
            assert.strictEqual(yield* statusOf(daemonSet), 404)
            yield* installed
            yield* until("it is not Degraded any more", isCondition("Degraded", "False", "AsExpected"))
            yield* settled(it)
            for (const words of it.refused)
              assert.match(words, /attempting to grant RBAC permissions not currently held/u)
          })
        )
    )

    it.live(
      "1.6: of two operators with tokens of one account only the holder of the Lease writes, and hands it over",
      () =>
        whole(
          Effect.gen(function* () {
            const holder = Effect.map(look(lease), (object) => textAt(specOf(object), "holderIdentity"))
            yield* controlPlane()
            // A minute of waiting for one's turn takes six seconds.
            const first = yield* operator({ identity: "first", speed: 10 })
            yield* until(
              "the first one leads",
              Effect.map(holder, (name) => (name === "first" ? true : undefined))
            )
            const second = yield* operator({ identity: "second", speed: 10 })
            yield* createClusterCsiDriver()
            yield* settled(first)
            yield* configured({ secretRotation: { type: "None" } })
            yield* settled(first)
            assert.isAbove(writesOf(first).length, 10)
            yield* until(
              "the second one waits for its turn",
              Effect.sync(() => (second.sent.filter(({ path }) => path === lease).length > 2 ? true : undefined))
            )
            assert.deepStrictEqual(
              second.sent.filter(({ path }) => path !== lease),
              second.sent.filter(({ path }) => path.includes("/infrastructures/"))
            )
            assert.deepStrictEqual(
              second.sent.filter(({ method }) => method !== "GET"),
              []
            )
            yield* first.stop
            assert.strictEqual(yield* holder, "")
            yield* until(
              "the second one leads",
              Effect.map(holder, (name) => (name === "second" ? true : undefined))
            )
            yield* merge(networkPolicy, { spec: { ingress: [] } })
            yield* until(
              "the second one works",
              Effect.map(look(networkPolicy), (object) =>
                listAt(specOf(object), "ingress").length > 0 ? true : undefined
              )
            )
            assert.isAbove(writesOf(second).length, 0)
            assert.deepStrictEqual([...first.refused, ...second.refused], [])
          })
        )
    )
  }
)
