/** New content without a new pod: by the interval, and when somebody asks for it. */
import { setTimeout as sleep } from "node:timers/promises"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { driverReady, intervalOf } from "../support/Driver.ts"
import {
  apply,
  at,
  eventThat,
  exec,
  find,
  get,
  kubectl,
  list,
  podReady,
  remove,
  textAt,
  until
} from "../support/Kubectl.ts"
import {
  clusterCsiDriver,
  inNewNamespace,
  MOUNT,
  type Provider,
  pod,
  ROTATION_SECONDS,
  secretProviderClass,
  secretsStore,
  startProvider
} from "../support/Objects.ts"
import { report } from "../support/Report.ts"

const METRICS_PORT = 8095
const read = (name: string) => exec("rotation", name, "cat", `${MOUNT}/foo`)

describe("rotation", () => {
  let provider: Provider
  beforeAll(async () => {
    provider = await startProvider("rotating-provider")
    await inNewNamespace("rotation")
    await apply(
      secretProviderClass({
        namespace: "rotation",
        name: "class",
        provider: "rotating-provider",
        objects: ["foo"],
        secretObjects: [{ secretName: "rotationsecret", data: { username: "foo" } }]
      }),
      pod({ namespace: "rotation", name: "app", classes: ["class"] })
    )
    await podReady("rotation", "app")
    await until("the Secret", 60, () => find("secret", "rotationsecret", "rotation"))
  }, 180_000)

  it("Test auto rotation of mount contents and K8s secrets: file and Secret follow the store, faster than the kubelet publishes again", async () => {
    assert.strictEqual(await read("app"), "secret")
    await provider.set("/rotation", { rotated: "true" })
    const since = performance.now()
    await until("the new file", 30, async () => (await read("app")) === "rotated")
    report(`rotation, interval ${ROTATION_SECONDS} s, to the file`, `${Math.round(performance.now() - since)} ms`)
    await until("the new Secret", 30, async () => {
      const secret = await get("secret", "rotationsecret", "rotation")
      return Buffer.from(textAt(secret, "data", "username"), "base64").toString() === "rotated"
    })
    report("and to the Secret", `${Math.round(performance.now() - since)} ms`)
    const status = await get("secretproviderclasspodstatus", "app-rotation-class", "rotation")
    assert.strictEqual(at(status, "status", "objects", 0, "version"), "v2")
    const pods = await list("pods", "--namespace", "rotation")
    assert.strictEqual(at(pods, 0, "status", "containerStatuses", 0, "restartCount"), 0)
    await provider.set("/rotation", { rotated: "false" })
    await until("the old file again", 30, async () => (await read("app")) === "secret")
  })

  it("a store that cannot be read: the files stay, an Event says so, and it goes on when it can", async () => {
    await provider.set("/error", { code: "Forbidden" })
    await eventThat("rotation", "app", /MountRotationFailed: .*Forbidden.*next attempt in/su)
    assert.strictEqual(await read("app"), "secret")
    await provider.set("/rotation", { rotated: "true" })
    await provider.set("/error", { code: "" })
    await until("the new file", 60, async () => (await read("app")) === "rotated")
    await provider.set("/rotation", { rotated: "false" })
    await until("the old file again", 30, async () => (await read("app")) === "secret")
  })

  it("Validate metrics: publish, unpublish and rotation are counted", async () => {
    await apply(pod({ namespace: "rotation", name: "counted", classes: ["class"] }))
    await podReady("rotation", "counted")
    await remove("pod", "counted", "rotation")
    const { address } = await driverReady()
    await until("the three counters", 60, async () => {
      const response = await fetch(`http://${address}:${METRICS_PORT}/metrics`)
      const text = await response.text()
      const missing = ["node_publish_total", "node_unpublish_total", "rotation_reconcile_total"].filter(
        (name) => !new RegExp(`^${name}\\{.*\\} [1-9]`, "mu").test(text)
      )
      if (missing.length > 0) throw new Error(`without ${missing.join(", ")}`)
      return true
    })
  })

  it("another interval replaces the driver; a refresh is forced by an annotation", async () => {
    await apply(clusterCsiDriver(secretsStore(600)))
    await driverReady((_, daemonSet) => intervalOf(daemonSet) === "10m")
    await provider.set("/rotation", { rotated: "true" })
    await sleep(3 * ROTATION_SECONDS * 1_000)
    assert.strictEqual(await read("app"), "secret", "nobody asked, and the interval is not over")
    const since = performance.now()
    await kubectl(["annotate", "pod", "--namespace", "rotation", "app", "secrets-store.csi.k8s.io/force-refresh=now"])
    await until("the new file", 20, async () => (await read("app")) === "rotated")
    report("forced refresh to the file", `${Math.round(performance.now() - since)} ms`)
    await apply(clusterCsiDriver(secretsStore(ROTATION_SECONDS)))
    await driverReady((_, daemonSet) => intervalOf(daemonSet) === "5s")
  })
})
