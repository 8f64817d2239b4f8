/**
 * The whole operator on virtual time: what it promises over hours, through every management state, and beside another
 * operator.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Stream } from "effect"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "../../layers/fake/KubernetesObject.ts"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import * as World from "../support/OperatorWorld.ts"

/** Of the virtual clock. */
const START_MILLIS = Date.UTC(2026, 0, 1)
const DAY_MILLIS = 86_400_000
const CSI_DRIVER = "/apis/storage.k8s.io/v1/csidrivers/secrets-store.csi.k8s.io"
const NODE = "SecretsStoreDriverNodeServiceController"
const AUDIENCES = [{ audience: "sts.amazonaws.com", expirationSeconds: 3600 }, { audience: "vault" }]

const send = (request: KubernetesRequest) => Effect.flatMap(KubernetesApi, (api) => Effect.orDie(api.request(request)))

const mergePatch = (path: string, body: JsonObject) =>
  send({ method: "PATCH", path, contentType: "application/merge-patch+json", body })

const rotation = (type: "None" | "Custom", minimumRefreshAge = 60) => ({
  driverType: "SecretsStore",
  secretsStore: {
    secretRotation: type === "None" ? { type, custom: null } : { type, custom: { minimumRefreshAge } }
  }
})

/** A pod of somebody that uses a volume of the driver. */
const createConsumer = (name: string, namespace = "team-a") =>
  send({
    method: "POST",
    path: `/api/v1/namespaces/${namespace}/pods`,
    body: {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace },
      spec: {
        nodeName: "node-0",
        containers: [{ name: "app", image: "app" }],
        volumes: [{ name: "secrets", csi: { driver: "secrets-store.csi.k8s.io", readOnly: true } }]
      }
    }
  })

const deleteConsumer = (name: string, namespace = "team-a") =>
  send({ method: "DELETE", path: `/api/v1/namespaces/${namespace}/pods/${name}` })

const createClass = (namespace: string, secretObjects: ReadonlyArray<JsonObject>) =>
  send({
    method: "POST",
    path: `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${namespace}/secretproviderclasses`,
    body: {
      apiVersion: "secrets-store.csi.x-k8s.io/v1",
      kind: "SecretProviderClass",
      metadata: { name: "web", namespace },
      spec: { provider: "vault", secretObjects }
    }
  })

const SYNCED = [{ secretName: "web", type: "Opaque", data: [{ objectName: "a", key: "a" }] }]

const installed = Effect.fnUntraced(function* (identity: string, spec: JsonObject = { managementState: "Managed" }) {
  const operator = yield* World.operator(identity)
  yield* World.createClusterCsiDriver(spec)
  yield* World.until("installed", World.settled(operator))
  return operator
})

const message = (type: string) =>
  Effect.map(World.clusterCsiDriver, (found) => {
    const conditions = listAt(objectAt(found ?? {}, "status"), "conditions").filter(isObject)
    return textAt(conditions.find((condition) => condition["type"] === type) ?? {}, "message") ?? ""
  })

const driverArguments = Effect.map(World.daemonSet, (found) => {
  const podSpec = objectAt(objectAt(objectAt(found ?? {}, "spec"), "template"), "spec")
  const [driver] = listAt(podSpec, "containers").filter(isObject)
  return listAt(driver ?? {}, "args").map(String)
})

describe("a settled cluster", () => {
  it("is not written to in a day of resyncs", { timeout: 120_000 }, () => {
    World.onVirtualTime(
      1,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        yield* createClass("team-a", SYNCED)
        const operator = yield* installed("a")
        const before = operator.sent.length
        yield* Effect.sleep(DAY_MILLIS)
        const since = operator.sent.slice(before)
        assert.deepStrictEqual(since.filter(World.isOperandWrite), [])
        // It did look, every minute.
        const looks = since.filter(({ path }) => path.endsWith("/clustercsidrivers/secrets-store.csi.k8s.io"))
        assert.isAtLeast(looks.length, 1_440)
      })
    )
  })

  it("is not written to either when it is removed, or in any state in which nothing is done", {
    timeout: 120_000
  }, () => {
    for (const managementState of ["Removed", "Unmanaged", "Force"]) {
      World.onVirtualTime(
        2,
        Effect.gen(function* () {
          yield* Effect.forkScoped(World.controlPlane())
          const operator = yield* installed("a")
          yield* World.patchClusterCsiDriver({ spec: { managementState } })
          yield* Effect.sleep(60_000)
          const before = operator.sent.length
          yield* Effect.sleep(6 * 3_600_000)
          assert.deepStrictEqual(operator.sent.slice(before).filter(World.isOperandWrite), [], managementState)
        })
      )
    }
  })
})

describe("a fresh install", () => {
  it("is Available within three reconciles of the DaemonSet", () => {
    World.onVirtualTime(
      1,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* World.operator("a")
        yield* World.createClusterCsiDriver()
        const isReady = Effect.map(World.daemonSet, (found) => objectAt(found ?? {}, "status")["numberAvailable"] === 3)
        while (!(yield* isReady)) yield* Effect.sleep(10)
        const before = operator.sent.length
        const isAvailable = World.isCondition(`${NODE}Available`, "True AsExpected")
        while (!(yield* isAvailable)) yield* Effect.sleep(10)
        const reconciles = operator.sent
          .slice(before)
          .filter(
            ({ method, path }) => method === "GET" && path.endsWith("/clustercsidrivers/secrets-store.csi.k8s.io")
          )
        assert.isAtMost(reconciles.length, 3)
        assert.strictEqual(yield* World.condition("Available"), "True AsExpected")
      })
    )
  })

  it("makes the ServiceAccount and its bindings before the DaemonSet (Q42), and the finalizer before all", () => {
    World.onVirtualTime(
      4,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        const creations = operator.sent.filter(World.isOperandWrite).map(({ method, path }) => `${method} ${path}`)
        const at = (part: string) => creations.findIndex((creation) => creation.includes(part))
        assert.strictEqual(at("PATCH /apis/operator.openshift.io/v1/clustercsidrivers/"), 0)
        assert.isBelow(at("/serviceaccounts"), at("/daemonsets"))
        assert.isBelow(at("/clusterrolebindings"), at("/daemonsets"))
        assert.isBelow(at("/csidrivers"), at("/daemonsets"))
      })
    )
  })

  it("waits without a word of harm where the API of ClusterCSIDrivers is not there yet (Q2)", () => {
    World.onVirtualTime(
      5,
      Effect.gen(function* () {
        const control = yield* MemoryKubernetes
        yield* control.setServed("operator.openshift.io", false)
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* World.operator("a")
        yield* Effect.sleep(1_200_000)
        assert.deepStrictEqual(operator.sent.filter(World.isOperandWrite), [])
        assert.isUndefined(operator.fiber.pollUnsafe())
        yield* control.setServed("operator.openshift.io", true)
        yield* World.createClusterCsiDriver()
        yield* World.until("installed", World.settled(operator))
      })
    )
  })

  it("does without OpenShift, and takes it up when it comes (Q2)", () => {
    World.onVirtualTime(
      6,
      Effect.gen(function* () {
        const control = yield* MemoryKubernetes
        yield* control.setServed("config.openshift.io", false)
        yield* control.setServed("security.openshift.io", false)
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        assert.strictEqual(yield* World.condition("OpenShiftAPIsAvailable"), "False NotServed")
        assert.strictEqual(yield* World.condition("Degraded"), "False AsExpected")
        assert.notInclude(yield* World.operandObjects, "ClusterRole secrets-store-privileged-role")
        yield* control.setServed("config.openshift.io", true)
        yield* control.setServed("security.openshift.io", true)
        yield* World.until("seen", World.isCondition("OpenShiftAPIsAvailable", "True AsExpected"))
        yield* World.until("settled", World.settled(operator))
        assert.include(yield* World.operandObjects, "ClusterRole secrets-store-privileged-role")
      })
    )
  })
})

describe("1,000 changes of rotation", () => {
  it("never take the CSIDriver away, nor its audiences", { timeout: 300_000 }, () => {
    World.onVirtualTime(
      8,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        const api = yield* KubernetesApi
        yield* mergePatch(CSI_DRIVER, { spec: { tokenRequests: AUDIENCES } })
        const deletions: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(api.watch({ path: "/apis/storage.k8s.io/v1/csidrivers" }, 10 * DAY_MILLIS), ({ type }) =>
            Effect.sync(() => {
              if (type === "DELETED") deletions.push(type)
            })
          ).pipe(Effect.orDie)
        )
        // Mounts: each needs the object at its own moment.
        let mounts = 0
        const mount = Effect.gen(function* () {
          const found = yield* World.csiDriver
          assert.isDefined(found)
          assert.deepStrictEqual(objectAt(found ?? {}, "spec")["tokenRequests"], AUDIENCES)
          mounts++
          yield* Effect.sleep(37)
        })
        const mounting = yield* Effect.forkScoped(Effect.forever(mount))
        for (let flip = 0; flip < 1_000; flip++) {
          const type = flip % 2 === 0 ? "None" : "Custom"
          yield* World.patchClusterCsiDriver({ spec: { driverConfig: rotation(type, 60 + flip) } })
          yield* World.until(
            `flip ${flip}`,
            Effect.map(
              World.csiDriver,
              (found) => objectAt(found ?? {}, "spec")["requiresRepublish"] === (type === "Custom")
            )
          )
        }
        assert.isUndefined(mounting.pollUnsafe())
        assert.deepStrictEqual(deletions, [])
        assert.isAbove(mounts, 5_000)
        yield* World.until("settled", World.settled(operator), 600_000)
        assert.deepStrictEqual(
          (yield* driverArguments).filter((argument) => argument.includes("rotation")),
          ["--enable-secret-rotation=true", "--rotation-poll-interval=17m39s"]
        )
      })
    )
  })
})

describe("audiences that are not managed", () => {
  it("come back with a CSIDriver that somebody deletes, and with one that is Managed again after Removed", () => {
    World.onVirtualTime(
      9,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        const tokens = Effect.map(World.csiDriver, (found) => objectAt(found ?? {}, "spec")["tokenRequests"])
        const areKept = Effect.map(tokens, (found) => JSON.stringify(found) === JSON.stringify(AUDIENCES))
        yield* mergePatch(CSI_DRIVER, { spec: { tokenRequests: AUDIENCES } })
        yield* Effect.sleep(10_000)
        yield* send({ method: "DELETE", path: CSI_DRIVER })
        yield* World.until("made again", areKept)
        yield* World.patchClusterCsiDriver({ spec: { managementState: "Removed" } })
        yield* World.until("removed", World.removed(operator))
        yield* World.patchClusterCsiDriver({ spec: { managementState: "Managed" } })
        yield* World.until("installed again", World.settled(operator))
        assert.deepStrictEqual(yield* tokens, AUDIENCES)
        // Given up on purpose, they stay given up.
        yield* mergePatch(CSI_DRIVER, { spec: { tokenRequests: null } })
        yield* Effect.sleep(10_000)
        yield* send({ method: "DELETE", path: CSI_DRIVER })
        yield* World.until(
          "made again",
          Effect.map(World.csiDriver, (found) => found !== undefined)
        )
        assert.isUndefined(yield* tokens)
      })
    )
  })
})

describe("a removal", () => {
  it("waits for pods that use volumes, names them, and goes in order (Q1, Q7)", () => {
    World.onVirtualTime(
      10,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        yield* createConsumer("web-0")
        yield* createConsumer("web-1")
        yield* World.deleteClusterCsiDriver
        yield* World.until("waiting", World.isCondition(`${NODE}Progressing`, "True WaitingForPods"))
        assert.include(
          yield* message(`${NODE}Progressing`),
          "2 pods that use volumes of the driver: team-a/web-0, team-a/web-1"
        )
        yield* Effect.sleep(120_000)
        assert.isDefined(yield* World.daemonSet)
        yield* deleteConsumer("web-0")
        yield* World.until(
          "one less",
          Effect.map(message("Progressing"), (found) => found.includes("1 pod that uses"))
        )
        yield* deleteConsumer("web-1")
        yield* World.until(
          "gone",
          Effect.map(World.clusterCsiDriver, (found) => found === undefined)
        )
        assert.deepStrictEqual(yield* World.operandObjects, [])
        const order = operator.sent
          .filter(({ method }) => method === "DELETE")
          .map(({ path }) => path.split("/").at(-2))
        assert.deepStrictEqual(order, [
          "daemonsets",
          "csidrivers",
          ...["clusterrolebindings", "clusterrolebindings", "clusterroles", "clusterroles"],
          ...["serviceaccounts", "configmaps", "networkpolicies", "networkpolicies", "networkpolicies"]
        ])
      })
    )
  })

  it("leaves the driver's objects until the last of its pods has ended", () => {
    World.onVirtualTime(
      11,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane({ endMillis: 20_000 }))
        const operator = yield* installed("a")
        yield* World.deleteClusterCsiDriver
        yield* World.until(
          "the DaemonSet is gone",
          Effect.map(World.daemonSet, (found) => found === undefined)
        )
        yield* Effect.sleep(30_000)
        assert.isDefined(yield* World.csiDriver)
        assert.include(yield* message(`${NODE}Progressing`), "of the driver to end")
        yield* World.until("removed", World.removed(operator), 300_000)
      })
    )
  })

  it("does not wait when it is told not to", () => {
    World.onVirtualTime(
      12,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        yield* createConsumer("web-0")
        yield* World.patchClusterCsiDriver({
          metadata: { annotations: { "secrets-store.csi.k8s.io/remove-without-waiting": "true" } },
          spec: { managementState: "Removed" }
        })
        yield* World.until("removed", World.removed(operator))
        assert.strictEqual(yield* World.condition("Available"), "False Removed")
        assert.strictEqual(yield* World.condition(`${NODE}Progressing`), "False Removed")
      })
    )
  })

  it("of an Unmanaged ClusterCSIDriver does not hang, and leaves the operand (Q4)", () => {
    World.onVirtualTime(
      13,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        yield* World.patchClusterCsiDriver({ spec: { managementState: "Unmanaged" } })
        yield* World.until("settled", World.isQuiet(operator))
        const before = yield* World.operandObjects
        yield* World.deleteClusterCsiDriver
        yield* World.until(
          "gone",
          Effect.map(World.clusterCsiDriver, (found) => found === undefined)
        )
        assert.deepStrictEqual(yield* World.operandObjects, before)
        assert.include(
          operator.events.map(({ reason }) => reason),
          "OperandLeftInPlace"
        )
      })
    )
  })
})

describe("rights to Secrets (Q29)", () => {
  it("are given in the namespaces that ask for them, and taken away again", () => {
    World.onVirtualTime(
      14,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        yield* createClass("team-b", [])
        const operator = yield* installed("a")
        const namespaces = Effect.map(World.all("rolebindings.rbac.authorization.k8s.io"), (found) =>
          found.map((binding) => metadataOf(binding)["namespace"])
        )
        assert.deepStrictEqual(yield* namespaces, [])
        yield* createClass("team-a", SYNCED)
        yield* World.until(
          "bound",
          Effect.map(namespaces, (found) => found.length === 1)
        )
        assert.deepStrictEqual(yield* namespaces, ["team-a"])
        yield* send({
          method: "DELETE",
          path: "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/team-a/secretproviderclasses/web"
        })
        yield* World.until(
          "unbound",
          Effect.map(namespaces, (found) => found.length === 0)
        )
        yield* World.until("settled", World.settled(operator))
        const roles = yield* World.all("clusterroles.rbac.authorization.k8s.io")
        assert.notInclude(JSON.stringify(roles.map((role) => role["rules"])), '"secrets"')
      })
    )
  })
})

describe("a rollout", () => {
  it("that makes no progress is Degraded after a quarter of an hour, and recovers (Q15)", () => {
    World.onVirtualTime(
      15,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane({ isBroken: (template) => template.includes("--v=8") }))
        const operator = yield* installed("a")
        yield* World.patchClusterCsiDriver({ spec: { logLevel: "TraceAll" } })
        yield* World.until("begun", World.isCondition(`${NODE}Progressing`, "True Deploying"))
        yield* Effect.sleep(14 * 60_000)
        assert.strictEqual(yield* World.condition(`${NODE}Degraded`), "False AsExpected")
        yield* Effect.sleep(3 * 60_000)
        assert.strictEqual(yield* World.condition(`${NODE}Degraded`), "True RolloutStuck")
        assert.strictEqual(yield* World.condition("Degraded"), "True RolloutStuck")
        yield* World.patchClusterCsiDriver({ spec: { logLevel: "Normal" } })
        yield* World.until("settled", World.settled(operator))
        assert.strictEqual(yield* World.condition("Degraded"), "False AsExpected")
      })
    )
  })

  it("by kubectl happens once, and is not undone (Q11)", () => {
    World.onVirtualTime(
      16,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* installed("a")
        yield* mergePatch(`/apis/apps/v1/namespaces/${World.NAMESPACE}/daemonsets/secrets-store-csi-driver-node`, {
          spec: {
            template: { metadata: { annotations: { "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" } } }
          }
        })
        yield* Effect.sleep(120_000)
        yield* World.until("settled", World.settled(operator))
        const found = (yield* World.daemonSet) ?? {}
        assert.strictEqual(metadataOf(found)["generation"], 2)
        // Whatever else somebody changes is changed back, once.
        yield* mergePatch(`/apis/apps/v1/namespaces/${World.NAMESPACE}/daemonsets/secrets-store-csi-driver-node`, {
          spec: { template: { spec: { priorityClassName: "low" } } }
        })
        yield* Effect.sleep(120_000)
        const after = (yield* World.daemonSet) ?? {}
        assert.strictEqual(metadataOf(after)["generation"], 4)
        assert.include(JSON.stringify(after["spec"]), "system-node-critical")
        assert.include(JSON.stringify(after["spec"]), "restartedAt")
      })
    )
  })
})

describe("a request that fails", () => {
  /** Every status that one condition has had, in order. */
  const history = Effect.fnUntraced(function* (type: string) {
    const api = yield* KubernetesApi
    const seen: Array<string> = []
    yield* Effect.forkScoped(
      Stream.runForEach(
        api.watch({ path: "/apis/operator.openshift.io/v1/clustercsidrivers" }, DAY_MILLIS),
        ({ object }) =>
          Effect.sync(() => {
            const conditions = listAt(objectAt(isObject(object) ? object : {}, "status"), "conditions").filter(isObject)
            const status = textAt(conditions.find((condition) => condition["type"] === type) ?? {}, "status")
            if (status !== undefined && status !== seen.at(-1)) seen.push(status)
          })
      ).pipe(Effect.orDie)
    )
    return seen
  })

  it.each([
    { name: "a conflict", failure: { status: 409, reason: "Conflict" }, applied: false },
    { name: "an answer that is lost", failure: { status: 0, reason: "Network" }, applied: true },
    { name: "an API server that is busy", failure: { status: 503, reason: "ServiceUnavailable" }, applied: false }
  ])("is tried again before anybody hears of it (Q25, Q26): $name", ({ applied, failure }) => {
    for (const method of ["POST", "PUT"] as const) {
      World.onVirtualTime(
        18,
        Effect.gen(function* () {
          yield* Effect.forkScoped(World.controlPlane())
          const control = yield* MemoryKubernetes
          const seen = yield* history("Degraded")
          const resources = ["daemonsets.apps", "csidrivers.storage.k8s.io", "clusterroles.rbac.authorization.k8s.io"]
          for (const resource of resources) {
            yield* control.failNext((request) => request.method === method && request.resource === resource, failure, {
              applied
            })
          }
          const operator = yield* installed("a")
          yield* World.patchClusterCsiDriver({ spec: { logLevel: "Debug", driverConfig: rotation("None") } })
          yield* Effect.sleep(30_000)
          yield* World.until("settled", World.settled(operator))
          assert.deepStrictEqual(seen, ["False"])
        })
      )
    }
  })

  it("for good is reported with what to do about it, and forgotten when it is put right", () => {
    World.onVirtualTime(
      19,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        let isForbidden = true
        const operator = yield* World.operator("a", {}, (api) => ({
          ...api,
          request: (request) =>
            isForbidden && request.method === "POST" && request.path.endsWith("/clusterroles")
              ? Effect.fail(
                  new KubernetesApiFailed({
                    method: request.method,
                    path: request.path,
                    status: 403,
                    reason: "Forbidden",
                    detail: "attempting to grant rights not currently held"
                  })
                )
              : api.request(request)
        }))
        yield* World.createClusterCsiDriver()
        const type = "SecretsStoreConditionalStaticResourcesControllerDegraded"
        yield* World.until("reported", World.isCondition(type, "True SyncError"))
        assert.include(yield* message(type), "attempting to grant rights not currently held")
        assert.include(yield* message(type), "ServiceAccount")
        // Without its rights, the driver is not started.
        assert.isUndefined(yield* World.daemonSet)
        isForbidden = false
        yield* World.until("settled", World.settled(operator), 300_000)
        assert.strictEqual(yield* World.condition(type), "False AsExpected")
      })
    )
  })
})

describe("another installation (Q41)", () => {
  it("is reported and not overwritten, until the administrator says so", () => {
    World.onVirtualTime(
      17,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const path = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        yield* send({
          method: "POST",
          path,
          body: {
            apiVersion: "rbac.authorization.k8s.io/v1",
            kind: "ClusterRole",
            metadata: {
              name: "secretproviderclasses-role",
              labels: { "app.kubernetes.io/managed-by": "Helm" },
              annotations: { "meta.helm.sh/release-name": "csi", "meta.helm.sh/release-namespace": "kube-system" }
            },
            rules: []
          }
        })
        const operator = yield* World.operator("a")
        yield* World.createClusterCsiDriver()
        yield* World.until("reported", World.isCondition("Degraded", "True ForeignOwnership"))
        assert.include(yield* message("Degraded"), "secretproviderclasses-role of Helm release kube-system/csi")
        yield* Effect.sleep(120_000)
        const objects = yield* World.operandObjects
        assert.deepStrictEqual(objects, ["ClusterRole secretproviderclasses-role"])
        yield* World.patchClusterCsiDriver({
          metadata: { annotations: { "secrets-store.csi.k8s.io/adopt-foreign-objects": "true" } }
        })
        yield* World.until("installed", World.settled(operator))
      })
    )
  })
})

describe("two operators", () => {
  it("do not both write, whatever becomes of the requests of the one that leads", { timeout: 120_000 }, () => {
    for (let seed = 20; seed < 30; seed++) {
      World.onVirtualTime(
        seed,
        Effect.gen(function* () {
          yield* Effect.forkScoped(World.controlPlane())
          const clock = yield* Clock.Clock
          const late: Array<string> = []
          const holder = Effect.map(World.all("leases.coordination.k8s.io"), ([lease]) =>
            textAt(objectAt(lease ?? {}, "spec"), "holderIdentity")
          )
          const control = yield* Effect.context<MemoryKubernetes>()
          /** Between an operator and its API server: from some moment on requests take minutes, and renewals are lost. */
          const network =
            (identity: string, cutMillis: number) =>
            (api: KubernetesApi["Service"]): KubernetesApi["Service"] => ({
              request: (request) => {
                const isCut = clock.currentTimeMillisUnsafe() - START_MILLIS > cutMillis
                const isLease = request.path.includes("/leases/")
                const isOperand = request.method !== "GET" && !request.path.includes("/leases")
                const noted = Effect.flatMap(Effect.provideContext(holder, control), (held) =>
                  Effect.sync(() => {
                    if (isOperand && held !== identity) late.push(`${identity} while ${held}: ${request.path}`)
                  })
                )
                if (!isCut) return Effect.andThen(noted, api.request(request))
                if (isLease) return Effect.never
                return Effect.delay(Effect.andThen(noted, api.request(request)), (seed - 19) * 17_000)
              },
              watch: api.watch
            })
          const a = yield* World.operator("a", {}, network("a", 60_000))
          yield* World.createClusterCsiDriver()
          yield* World.until("installed", World.settled(a))
          const b = yield* World.operator("b", {}, network("b", Number.POSITIVE_INFINITY))
          // Always something to write.
          yield* Effect.forkScoped(
            Effect.forever(
              Effect.gen(function* () {
                const level = yield* Effect.map(clock.currentTimeMillis, (now) =>
                  Math.floor(now / 1_000) % 2 === 0 ? "Debug" : "Normal"
                )
                yield* World.patchClusterCsiDriver({ spec: { logLevel: level } })
                yield* Effect.sleep(7_000)
              })
            )
          )
          yield* World.until(
            "the other one leads",
            Effect.sync(() => b.sent.some(World.isOperandWrite)),
            900_000
          )
          yield* Effect.sleep(300_000)
          assert.deepStrictEqual(late, [], `seed ${seed}`)
          assert.isAbove(b.sent.filter(World.isOperandWrite).length, 10)
        })
      )
    }
  })

  it("hand over within seconds when one is told to stop", () => {
    World.onVirtualTime(
      31,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const a = yield* installed("a")
        const b = yield* World.operator("b")
        yield* Effect.sleep(30_000)
        const stopped = yield* Clock.currentTimeMillis
        a.stop()
        yield* World.until(
          "it has ended",
          Effect.sync(() => a.fiber.pollUnsafe() !== undefined)
        )
        assert.strictEqual(a.sent.at(-1)?.method, "PUT")
        assert.include(a.sent.at(-1)?.path ?? "", "/leases/")
        yield* World.until(
          "the other one leads",
          Effect.sync(() => b.sent.some(({ path }) => path.includes("/clustercsidrivers/")))
        )
        assert.isBelow((yield* Clock.currentTimeMillis) - stopped, 60_000)
      })
    )
  })
})

describe("the log level (3.2)", () => {
  it("follows the ClusterCSIDriver in every management state", () => {
    World.onVirtualTime(
      40,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* World.operator("a")
        yield* World.createClusterCsiDriver({ managementState: "Unmanaged", operatorLogLevel: "Debug" })
        yield* World.until(
          "it follows",
          Effect.sync(() => operator.verbosity === 4)
        )
        assert.include(
          operator.events.map((event) => event.message),
          'Operator log level changed from "Normal" to "Debug"'
        )
      })
    )
  })
})
