/**
 * Runs of several nodes and the operator together; and mistakes that no single node, and no operator alone, would show.
 */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type ClusterSimulationOptions, run } from "../../layers/fake/ClusterSimulation.ts"
import { NO_API_RATES } from "../../layers/fake/simulation/ApiFaults.ts"
import { isObject, listAt, objectAt } from "../../schemas/Json.ts"

const HOURS = 0.2
const root = join(import.meta.dirname, "../..")

const broken = ({ seed, violation }: ReturnType<typeof run>): string =>
  violation === undefined
    ? ""
    : `seed ${seed}, ${violation.virtualMillis} ms: ${violation.id} ${violation.invariant}: ${violation.seen}`

describe("nodes and operators in a simulated cluster", () => {
  let published = 0
  it.each([103, 105, 106, 107])("keep every promise: seed %i", (seed) => {
    const result = run({ seed, hours: HOURS })
    assert.strictEqual(broken(result), "")
    assert.isAbove(result.history.figure("driver pods"), 0)
    published += result.history.figure("publish OK")
  })

  it("have had something to do", () => {
    assert.isAbove(published, 100)
  })

  it("the same seed gives the same digest, also in another process", () => {
    const { digest } = run({ seed: 104, hours: 0.1 })
    const { status, stdout } = spawnSync(
      process.execPath,
      ["src/main/simulate.ts", "--scenario", "cluster", "--seed", "104", "--hours", "0.1"],
      { cwd: root, encoding: "utf8" }
    )
    assert.strictEqual(status, 0, stdout)
    assert.include(stdout, digest.slice(0, 32))
    assert.notStrictEqual(run({ seed: 118, hours: 0.1 }).digest, digest)
  })
})

// ---- mistakes

type Mistake = Omit<ClusterSimulationOptions, "seed" | "hours">

const mistakes: ReadonlyArray<{
  readonly what: string
  readonly mistake: Mistake
  /** Which promises may notice it. */
  readonly breaks: ReadonlyArray<string>
}> = [
  {
    what: "a driver that takes the users of a Secret on its own node for all of them",
    mistake: {
      nodes: 3,
      // Pods come and go, so that nodes lose their last user of a Secret that others still use.
      rates: (drawn) => ({ ...drawn, deleteEveryMillis: 120_000, scaleEveryMillis: 120_000, ...NO_API_RATES }),
      plant: (ports, nodeName) => ({
        ...ports,
        kubernetes: {
          ...ports.kubernetes,
          request: (request) =>
            Effect.map(ports.kubernetes.request(request), (answer) => {
              if (request.method !== "GET" || !request.path.endsWith("/pods") || !isObject(answer)) return answer
              const isHere = (pod: unknown) => isObject(pod) && objectAt(pod, "spec")["nodeName"] === nodeName
              return { ...answer, items: listAt(answer, "items").filter(isHere) }
            })
        }
      })
    },
    // Or two nodes that do not agree mark the Secret and take the mark away by turns.
    breaks: ["S9 usedSecretStays", "S10 quietMeansNoWrites"]
  },
  {
    what: "an operator whose CSIDriver never comes about",
    mistake: {
      nodes: 1,
      operatorPlant: (api) => ({
        ...api,
        request: (request) =>
          request.method === "POST" && request.path.endsWith("/csidrivers")
            ? Effect.succeed({ ...(isObject(request.body) ? request.body : {}) })
            : api.request(request)
      })
    },
    breaks: ["L1 everyVolumeIsPublished"]
  },
  {
    what: "an operator that removes the driver without looking for pods",
    mistake: {
      nodes: 2,
      operatorPlant: (api) => ({
        ...api,
        request: (request) =>
          request.method === "GET" && request.path === "/api/v1/pods"
            ? Effect.succeed({ metadata: { resourceVersion: "1" }, items: [] })
            : api.request(request)
      })
    },
    breaks: ["Q7 removalWaits", "Q7 driverOutlivesVolumes", "S17 volumesGoFirst"]
  },
  {
    what: "an operator that does not tell the drivers of another interval",
    mistake: {
      nodes: 2,
      operatorPlant: (api) => ({
        ...api,
        request: (request) => {
          if (request.method === "GET" || !request.path.includes("/daemonsets")) return api.request(request)
          const text = JSON.stringify(request.body ?? null)
          return api.request({
            ...request,
            body: JSON.parse(text.replace(/--rotation-poll-interval=\w+/u, "--rotation-poll-interval=9m"))
          })
        }
      })
    },
    breaks: ["L9 comesToRest", "Q5 oneRolloutPerChange"]
  }
]

describe("a mistake is found that only a cluster shows", () => {
  it.each(mistakes)("$what: $breaks.0", ({ breaks, mistake }) => {
    const seeds = [21, 22, 23, 24, 25, 26, 27, 28, 29, 30]
    for (const seed of seeds) {
      const { violation } = run({ seed, hours: HOURS, ...mistake })
      if (violation === undefined) continue
      assert.include(breaks, `${violation.id} ${violation.invariant}`, violation.seen)
      return
    }
    assert.fail(`not within the seeds ${seeds.join(", ")}`)
  })
})
