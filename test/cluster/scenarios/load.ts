/** A hundred pods with volumes at once. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { driverReady, intervalOf, mountedVolumes } from "../support/Driver.ts"
import { apply, conditionOf, kubectl, list, program, until } from "../support/Kubectl.ts"
import {
  clusterCsiDriver,
  inNewNamespace,
  NODE_ACCOUNT,
  pod,
  secretProviderClass,
  secretsStore,
  startProvider
} from "../support/Objects.ts"
import { report } from "../support/Report.ts"
import { requestsOf } from "../support/Rights.ts"

const PODS = 100
const namespace = "load"
const CLOCK_TICKS = 100

/** The driver's process as the node sees it. */
const driverProcess = (): number => {
  const found = readdirSync("/proc")
    .filter((name) => /^\d+$/u.test(name))
    .find((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("/app/driver.cjs")
      } catch {
        return false
      }
    })
  if (found === undefined) throw new Error("there is no driver process")
  return Number(found)
}

const cpuMillis = (pid: number): number => {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? []
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / CLOCK_TICKS
}

const kibibytes = (pid: number, key: string): number =>
  Number(new RegExp(`^${key}:\\s+(\\d+)`, "mu").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN)

/** Upper bound of the bucket that the quantile is in, of the kubelet's own histogram of calls to the driver. */
const publishQuantiles = async (before: ReadonlyMap<string, number>, quantiles: ReadonlyArray<number>) => {
  const after = await publishBuckets()
  const counts = [...after].map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)] as const)
  const total = counts.at(-1)?.[1] ?? 0
  return quantiles.map((quantile) => counts.find(([, count]) => count >= total * quantile)?.[0] ?? "?")
}

const publishBuckets = async (): Promise<ReadonlyMap<string, number>> => {
  const { stdout } = await program("kubectl", ["get", "--raw", "/api/v1/nodes/node1/proxy/metrics"])
  const lines = stdout
    .split("\n")
    .filter((line) => line.startsWith("csi_operations_seconds_bucket") && line.includes("NodePublishVolume"))
    .filter((line) => line.includes('grpc_status_code="OK"') && line.includes("secrets-store"))
  return new Map(lines.map((line) => [/le="([^"]*)"/u.exec(line)?.[1] ?? "", Number(line.split(" ").at(-1))]))
}

describe("load", () => {
  it(`${PODS} pods with volumes at once`, async () => {
    await startProvider("e2e-provider")
    // First mounts are measured, not refreshes.
    await apply(clusterCsiDriver(secretsStore(600)))
    await driverReady((_, daemonSet) => intervalOf(daemonSet) === "10m")
    await inNewNamespace(namespace)
    await apply(secretProviderClass({ namespace, name: "class" }))
    const pid = driverProcess()
    const mounted = (await mountedVolumes()).length
    const [cpu, buckets, sinceTime] = [
      cpuMillis(pid),
      await publishBuckets(),
      performance.timeOrigin + performance.now()
    ]
    const since = performance.now()
    await apply(
      ...Array.from({ length: PODS }, (_, index) => pod({ namespace, name: `app-${index}`, classes: ["class"] }))
    )
    await until("all pods Ready", 240, async () => {
      const pods = await list("pods", "--namespace", namespace)
      return pods.filter((it) => conditionOf(it, "Ready").status === "True").length === PODS
    })
    const seconds = (performance.now() - since) / 1_000
    assert.strictEqual((await mountedVolumes()).length, mounted + PODS)
    report(`${PODS} pods to Ready`, `${seconds.toFixed(1)} s`)
    const [p50, p99] = await publishQuantiles(buckets, [0.5, 0.99])
    report("NodePublishVolume as the kubelet measures it", `p50 <= ${p50} s, p99 <= ${p99} s`)
    report("driver's CPU for them", `${Math.round(cpuMillis(pid) - cpu)} ms`)
    const status = ["VmRSS", "RssAnon", "VmHWM"].map((key) => `${key} ${Math.round(kibibytes(pid, key) / 1024)} MiB`)
    report("driver's memory with them", status.join(", "))
    const audited = requestsOf(readFileSync(join(process.env["CLUSTER_DIRECTORY"] ?? "", "log/audit"), "utf8"))
    const own = audited.filter(({ timeMillis, user }) => timeMillis >= sinceTime && user.endsWith(`:${NODE_ACCOUNT}`))
    const counts = Map.groupBy(own, ({ resource, verb }) => `${verb} ${resource}`)
    report("driver's API requests for them", [...counts].map(([what, { length }]) => `${length} ${what}`).join(", "))

    const until0 = performance.now()
    await kubectl(["delete", "pods", "--namespace", namespace, "--all", "--wait=true", "--timeout=110s"])
    await until("no volume of them", 60, async () => (await mountedVolumes()).length === mounted)
    report(`${PODS} pods deleted and unmounted`, `${((performance.now() - until0) / 1_000).toFixed(1)} s`)
  })
})
