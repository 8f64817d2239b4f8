/** The operator from our manifests, and everything that it brings. */
import { assert, describe, it } from "@effect/vitest"
import { driverPod, driverReady, operatorReports } from "../support/Driver.ts"
import { apply, at, conditionOf, find, get, kubectl, list, listAt, textAt, until } from "../support/Kubectl.ts"
import {
  clusterCsiDriver,
  DRIVER,
  manifests,
  NAMESPACE,
  namespace,
  OPERAND,
  OPERATOR,
  PROVIDERS_NAMESPACE,
  ROTATION_SECONDS,
  secretsStore
} from "../support/Objects.ts"
import { report } from "../support/Report.ts"

describe("install", () => {
  it("secretproviderclasses and secretproviderclasspodstatuses crd is established", async () => {
    await apply(...manifests("deploy/crds.yaml"))
    for (const name of [
      "secretproviderclasses.secrets-store.csi.x-k8s.io",
      "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io",
      "clustercsidrivers.operator.openshift.io"
    ]) {
      await until(`${name} established`, 60, async () => {
        return conditionOf(await get("crd", name), "Established").status === "True"
      })
    }
  })

  it("the operator from assets/deploy/operator.yaml becomes Available, and makes nothing unasked", async () => {
    await apply(...manifests("deploy/operator.yaml"), namespace(PROVIDERS_NAMESPACE))
    await until("the operator Available", 90, async () => {
      return conditionOf(await get("deployment", OPERATOR, NAMESPACE), "Available").status === "True"
    })
    for (const [kind, name, inside] of OPERAND) assert.isUndefined(await find(kind, name, inside), `${kind} ${name}`)
  })

  it("a ClusterCSIDriver brings the driver, which registers itself with the kubelet", async () => {
    const since = performance.now()
    await apply(clusterCsiDriver(secretsStore(ROTATION_SECONDS, [])))
    await until("the driver in CSINode", 60, async () => {
      const drivers = listAt(await get("csinode", "node1"), "spec", "drivers")
      return drivers.some((driver) => at(driver, "name") === DRIVER)
    })
    report("ClusterCSIDriver to registered", `${Math.round(performance.now() - since)} ms`)
    const { name } = await driverReady()
    const pod = await get("pod", name, NAMESPACE)
    const startedAt = Date.parse(textAt(pod, "status", "containerStatuses", 0, "state", "running", "startedAt"))
    const log = await kubectl(["logs", "--namespace", NAMESPACE, name, "--timestamps"])
    const registered = log.split("\n").find((line) => line.includes("registered with kubelet")) ?? ""
    assert.include(registered, "registered with kubelet")
    // The runtime gives the start in whole seconds.
    report(
      "driver container started to registered",
      `${Date.parse(registered.split(" ")[0] ?? "") - startedAt} ms (±1 s)`
    )
  })

  it("rbac roles and role bindings exist: every object of the operand is there, and the ClusterCSIDriver says so", async () => {
    for (const [kind, name, inside] of OPERAND) assert.isDefined(await find(kind, name, inside), `${kind} ${name}`)
    await operatorReports("Available", "True")
    await operatorReports("Degraded", "False")
    const driver = await get("clustercsidriver", DRIVER)
    assert.strictEqual(at(driver, "status", "readyReplicas"), 1)
    assert.deepStrictEqual(listAt(driver, "metadata", "finalizers").length, 1)
    const spec = at(await get("csidriver", DRIVER), "spec")
    assert.deepInclude(spec, { attachRequired: false, podInfoOnMount: true, requiresRepublish: true })
    assert.deepStrictEqual(listAt(spec, "volumeLifecycleModes"), ["Ephemeral"])
  })

  it("the pods run as hardened as they say", async () => {
    const pod = await get("pod", (await driverPod()).name, NAMESPACE)
    assert.strictEqual(listAt(pod, "spec", "containers").length, 1)
    assert.strictEqual(at(pod, "spec", "containers", 0, "securityContext", "readOnlyRootFilesystem"), true)
    const [operator] = await list("pods", "--namespace", NAMESPACE, `--selector=app=${OPERATOR}`)
    assert.strictEqual(at(operator, "spec", "securityContext", "runAsNonRoot"), true)
    assert.strictEqual(at(operator, "spec", "containers", 0, "securityContext", "readOnlyRootFilesystem"), true)
  })
})
