/** Leaving: with pods still mounted, by state and by deletion; and nothing stays behind. */
import { existsSync, readdirSync } from "node:fs"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { driverReady, mountedVolumes, operatorReports } from "../support/Driver.ts"
import { apply, at, conditionOf, exec, find, get, gone, kubectl, podReady, until } from "../support/Kubectl.ts"
import {
  clusterCsiDriver,
  DRIVER,
  inNewNamespace,
  MOUNT,
  manifests,
  NAMESPACE,
  OPEN_SHIFT_DEFINITIONS,
  OPERAND,
  PRIVILEGED,
  PROVIDERS_NAMESPACE,
  pod,
  ROTATION_SECONDS,
  secretProviderClass,
  secretsStore,
  startProvider
} from "../support/Objects.ts"

const namespace = "leaving"
const wanted = secretsStore(ROTATION_SECONDS)

const usePod = async (name: string) => {
  await apply(pod({ namespace, name, classes: ["class"] }))
  await podReady(namespace, name)
}

const endPod = (name: string) => kubectl(["delete", "pod", "--namespace", namespace, name, "--timeout=60s"])

const nothingIsLeft = async () => {
  for (const [kind, name, inside] of [...OPERAND, ...PRIVILEGED]) await gone(kind, name, inside)
  await until("no driver pod", 60, async () => {
    return (await kubectl(["get", "pods", "--namespace", NAMESPACE, "--output=name"])).includes("driver-node") === false
  })
}

describe("removal", () => {
  beforeAll(async () => {
    await startProvider("e2e-provider")
    await inNewNamespace(namespace)
    await apply(secretProviderClass({ namespace, name: "class" }))
    await usePod("app")
  }, 120_000)

  it("Removed waits for mounted pods and names them, then everything goes", async () => {
    await apply(clusterCsiDriver({ ...wanted, managementState: "Removed" }))
    await until("a condition that names the pod", 60, async () => {
      return JSON.stringify(at(await get("clustercsidriver", DRIVER), "status", "conditions")).includes("leaving/app")
    })
    await driverReady()
    assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/foo`), "secret")
    await endPod("app")
    await nothingIsLeft()
    assert.deepStrictEqual(await mountedVolumes(), [])
    assert.isDefined(await find("clustercsidriver", DRIVER))
  })

  it("Managed again: everything is back", async () => {
    await apply(clusterCsiDriver(wanted))
    await driverReady()
    await operatorReports("Available", "True")
    await usePod("again")
  })

  it("a deleted ClusterCSIDriver waits for mounted pods as well", async () => {
    await kubectl(["delete", "clustercsidriver", DRIVER, "--wait=false"])
    await until("a condition that names the pod", 60, async () => {
      return JSON.stringify(at(await get("clustercsidriver", DRIVER), "status", "conditions")).includes("leaving/again")
    })
    await endPod("again")
    await gone("clustercsidriver", DRIVER)
    await nothingIsLeft()
  })

  it("uninstalled: nothing in the cluster and no socket on the node has our name", async () => {
    const files = ["deploy/operator.yaml", "deploy/crds.yaml"].flatMap((path) => manifests(path))
    for (const object of [...OPEN_SHIFT_DEFINITIONS, ...files.reverse()]) {
      await kubectl(["delete", "--ignore-not-found", "--wait=true", "--timeout=90s", "-f", "-"], JSON.stringify(object))
    }
    await kubectl(["delete", "namespace", namespace, PROVIDERS_NAMESPACE, "--timeout=90s"])
    await gone("namespace", NAMESPACE)
    const kinds = (await kubectl(["api-resources", "--verbs=list", "--output=name"])).trim().split("\n")
    const skipped = /^(?:events|componentstatuses)/u
    const left: Array<string> = []
    for (const kind of kinds.filter((it) => !skipped.test(it))) {
      const names = await kubectl(["get", kind, "--all-namespaces", "--output=name", "--ignore-not-found"])
      left.push(...names.split("\n").filter((name) => /secrets-?store|secretprovider|clustercsidriver/iu.test(name)))
    }
    assert.deepStrictEqual(left, [])
    assert.isFalse(existsSync("/var/lib/kubelet/plugins/csi-secrets-store/csi.sock"))
    assert.deepStrictEqual(readdirSync("/var/lib/kubelet/plugins_registry"), [])
    assert.strictEqual(conditionOf(await get("node", "node1"), "Ready").status, "True")
  })
})
