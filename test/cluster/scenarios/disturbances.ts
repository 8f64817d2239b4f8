/** What happens to a node: drivers and kubelets that end, drains, upgrades. Mounted volumes stay and go on. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { driverPods, driverReady, mountedVolumes, operatorReports } from "../support/Driver.ts"
import { apply, at, exec, get, kubectl, list, listAt, podReady, program, textAt, until } from "../support/Kubectl.ts"
import {
  DRIVER,
  IMAGES,
  inNewNamespace,
  MOUNT,
  NAMESPACE,
  OPERATOR,
  type Provider,
  pod,
  secretProviderClass,
  startProvider
} from "../support/Objects.ts"

const namespace = "disturbed"
/** A new operator asks for the Lease every half a minute or so. */
const HANDED_OVER_SECONDS = 180
const read = () => exec(namespace, "app", "cat", `${MOUNT}/foo`)

/** Variables of the operator's container. */
const setImages = async (images: Readonly<Record<string, string>>) => {
  const args = Object.entries(images).map(([name, image]) => (image === "" ? `${name}-` : `${name}=${image}`))
  await kubectl(["set", "env", "--namespace", NAMESPACE, `deployment/${OPERATOR}`, ...args])
}

/** The volume is the same one, and what the store has anew reaches it. */
const goesOn = async (provider: Provider, uid: string) => {
  // A kubelet that has just started does not know its pods yet.
  const now = (await until("the file can be read", 30, read)) === "secret"
  const ready = await podReady(namespace, "app")
  assert.strictEqual(textAt(ready, "metadata", "uid"), uid)
  assert.strictEqual(at(ready, "status", "containerStatuses", 0, "restartCount"), 0)
  await provider.set("/rotation", { rotated: String(now) })
  await until("what the store has now", 60, async () => (await read()) === (now ? "rotated" : "secret"))
}

describe("disturbances", () => {
  let provider: Provider
  let uid: string
  beforeAll(async () => {
    provider = await startProvider("steady-provider")
    await inNewNamespace(namespace)
    await apply(
      secretProviderClass({ namespace, name: "class", provider: "steady-provider", objects: ["foo"] }),
      pod({ namespace, name: "app", classes: ["class"] })
    )
    uid = textAt(await podReady(namespace, "app"), "metadata", "uid")
  }, 120_000)

  it("the driver's pod is killed and replaced: the volume can be read all the time, and goes on", async () => {
    const { name } = await driverReady()
    let failed = 0
    let ended = false
    const reading = (async () => {
      while (!ended) if (!["secret", "rotated"].includes(await read())) failed += 1
    })()
    await kubectl(["delete", "pod", "--namespace", NAMESPACE, name, "--grace-period=0", "--force", "--wait=false"])
    await driverReady((driver) => driver.name !== name)
    ended = true
    await reading
    assert.strictEqual(failed, 0)
    await goesOn(provider, uid)
  })

  it("the kubelet restarts: the driver is registered again, and the volume goes on", async () => {
    const { stdout } = await program("pgrep", ["-x", "kubelet"])
    await program("pkill", ["-KILL", "-x", "kubelet"])
    await until("another kubelet", 30, async () => {
      const { stdout: now } = await program("pgrep", ["-x", "kubelet"])
      return now.trim() !== "" && now !== stdout
    })
    await goesOn(provider, uid)
    await apply(pod({ namespace, name: "after", classes: ["class"] }))
    await podReady(namespace, "after")
    await kubectl(["delete", "pod", "--namespace", namespace, "after", "--timeout=60s"])
  })

  it("another version of the driver: rolled out under mounted volumes", async () => {
    const before = await driverReady()
    await setImages({ DRIVER_IMAGE: IMAGES.nextDriver })
    const after = await driverReady(({ image }) => image === IMAGES.nextDriver, HANDED_OVER_SECONDS)
    assert.notStrictEqual(after.uid, before.uid)
    const metrics = await (await fetch(`http://${after.address}:8095/metrics`)).text()
    assert.include(metrics, 'secrets_store_build_info{version="1.0.1"} 1')
    await goesOn(provider, uid)
  })

  it("the version before, in upstream's three containers instead of one, and back", async () => {
    // All at once: each change is another operator, which waits for the Lease of the one before.
    await setImages({
      DRIVER_IMAGE: IMAGES.driver,
      NODE_DRIVER_REGISTRAR_IMAGE: IMAGES.tools,
      LIVENESS_PROBE_IMAGE: IMAGES.tools
    })
    const { name } = await driverReady(
      ({ image }, daemonSet) =>
        image === IMAGES.driver && listAt(daemonSet, "spec", "template", "spec", "containers").length === 3,
      HANDED_OVER_SECONDS
    )
    const three = await get("pod", name, NAMESPACE)
    assert.deepStrictEqual(
      listAt(three, "spec", "containers").map((container) => textAt(container, "name")),
      ["csi-driver", "csi-node-driver-registrar", "csi-liveness-probe"]
    )
    await apply(pod({ namespace, name: "of-three", classes: ["class"] }))
    await podReady(namespace, "of-three")
    await goesOn(provider, uid)
    await kubectl(["delete", "pod", "--namespace", namespace, "of-three", "--timeout=60s"])
    await setImages({ NODE_DRIVER_REGISTRAR_IMAGE: "", LIVENESS_PROBE_IMAGE: "" })
    await driverReady(
      (_, daemonSet) => listAt(daemonSet, "spec", "template", "spec", "containers").length === 1,
      HANDED_OVER_SECONDS
    )
    await goesOn(provider, uid)
  })

  it("the node is drained: volumes are unmounted, the driver stays", async () => {
    const flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"]
    await kubectl(["drain", "node1", ...flags])
    await until("no volume of the pod", 60, async () => (await mountedVolumes()).every((path) => !path.includes(uid)))
    assert.strictEqual((await driverPods()).length, 1)
    await kubectl(["uncordon", "node1"])
    await operatorReports("Available", "True")
    const drivers = listAt(await get("csinode", "node1"), "spec", "drivers")
    assert.isTrue(drivers.some((driver) => at(driver, "name") === DRIVER))
    assert.strictEqual((await list("pods", "--namespace", namespace)).length, 0)
  })
})
