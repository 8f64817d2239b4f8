/**
 * Runs of the whole operator on a simulated cluster; and mistakes that are planted between the operator and that
 * cluster, to see that a promise is broken when it should be.
 */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { isObject, type JsonObject, listAt, metadataOf, objectAt } from "../../layers/fake/KubernetesObject.ts"
import { run } from "../../layers/fake/OperatorSimulation.ts"
import { NO_RATES } from "../../layers/fake/simulation/OperatorFaults.ts"
import type { OperatorPlant } from "../../layers/fake/simulation/OperatorLives.ts"
import { CANARY } from "../../layers/fake/simulation/OperatorWitness.ts"
import type { Rates, RunResult } from "../../layers/fake/simulation/Scenario.ts"
import type { KubernetesApi, KubernetesRequest } from "../../src/ports/KubernetesApi.ts"

const HOURS = 1
const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8]
const root = join(import.meta.dirname, "../..")

const results = new Map<number, RunResult>()
const runOf = (seed: number): RunResult => {
  const result = results.get(seed) ?? run({ seed, hours: HOURS })
  results.set(seed, result)
  return result
}

const broken = ({ seed, violation }: RunResult): string =>
  violation === undefined
    ? ""
    : `seed ${seed}, ${violation.virtualMillis} ms: ${violation.id} ${violation.invariant}: ${violation.seen}`

describe("operators on a simulated cluster", () => {
  it.each(SEEDS)("keep every promise: seed %i", { timeout: 120_000 }, (seed) => {
    const result = runOf(seed)
    assert.strictEqual(broken(result), "")
    assert.isAbove(result.history.figure("checks"), 200)
  })

  it.each([
    {
      seed: 244,
      hours: 1.5,
      rates: {},
      found: "Q5: a new process took a proxy that it could not read for none, and replaced every pod twice"
    },
    {
      seed: 37,
      hours: 0.5,
      rates: {},
      found: "L9, a mistake of the simulation: a pod that was still coming back was compared as if it were there"
    },
    {
      seed: 16,
      hours: 0.7,
      rates: {
        ...NO_RATES,
        administratorEveryMillis: 60_000,
        surroundingsEveryMillis: 120_000,
        stopEveryMillis: 1_200_000
      },
      found: "L9: the hash of certificates that were not asked for any more stayed"
    }
  ])("keep what once failed: seed $seed ($found)", { timeout: 120_000 }, ({ hours, rates, seed }) => {
    assert.strictEqual(broken(run({ seed, hours, rates: (drawn) => ({ ...drawn, ...rates }) })), "")
  })

  it("most of what can go wrong does go wrong within these seeds", () => {
    const all = SEEDS.map(runOf)
    const sum = (figure: string) => all.reduce((total, { history }) => total + history.figure(figure), 0)
    const figures = [
      "kills",
      "stops",
      "terms lost",
      "rollouts",
      "fault SIGSTOP",
      "fault API 503",
      "fault API conflict",
      "fault API outage",
      "fault discovery",
      "fault denied",
      "fault node goes",
      "fault pod crash",
      "fault administrator Removed",
      "fault administrator deletes",
      "fault others edit the DaemonSet",
      "fault CSIDriver of somebody else"
    ]
    for (const figure of figures) assert.isAbove(sum(figure), 0, figure)
  })

  it("the same seed gives the same digest, also in another process, with a timeline or without, and others others", {
    timeout: 120_000
  }, () => {
    const [one, again, other] = [
      run({ seed: 11, hours: 0.2 }),
      run({ seed: 11, hours: 0.2, timeline: true }),
      run({ seed: 12, hours: 0.2 })
    ].map(({ digest }) => digest)
    assert.strictEqual(one, again)
    assert.notStrictEqual(one, other)
    const program = `import { run } from "./layers/fake/OperatorSimulation.ts"
      process.stdout.write(run({ seed: 11, hours: 0.2 }).digest)`
    const { stdout } = spawnSync(process.execPath, ["--input-type=module-typescript", "-e", program], {
      cwd: root,
      encoding: "utf8"
    })
    assert.strictEqual(stdout, one)
  })
})

type Request = KubernetesApi["Service"]["request"]

/** @shape (change: of one request, given the way on) -> plant */
const onRequests =
  (change: (request: KubernetesRequest, send: Request) => ReturnType<Request> | undefined): OperatorPlant =>
  (api) => ({ ...api, request: (request) => change(request, api.request) ?? api.request(request) })

const bodyOf = ({ body }: KubernetesRequest): JsonObject => JSON.parse(JSON.stringify(body ?? {}))
const asObject = (value: unknown): JsonObject => (isObject(value) ? value : {})
const isLease = ({ path }: KubernetesRequest) => path.includes("/leases")
const isAbout = (plural: string, { path }: KubernetesRequest) => path.includes(`/${plural}`)

const withMetadata = (object: JsonObject, metadata: JsonObject): JsonObject => ({
  ...object,
  metadata: { ...metadataOf(object), ...metadata }
})

const mistakes: ReadonlyArray<{
  readonly what: string
  readonly plant: () => OperatorPlant
  /** What makes it show soon. */
  readonly rates?: Rates
  readonly breaks: ReadonlyArray<string>
}> = [
  {
    what: "a Lease that is taken from whoever has it",
    plant: () =>
      onRequests((request, send) =>
        request.method === "GET" && isLease(request)
          ? Effect.map(send(request), (lease) => {
              const spec = objectAt(asObject(lease), "spec")
              return { ...asObject(lease), spec: { ...spec, holderIdentity: "" } }
            })
          : undefined
      ),
    breaks: ["S18 writesAreFenced"]
  },
  {
    what: "a CSIDriver that is deleted and made anew for every change",
    plant: () =>
      onRequests((request, send) => {
        if (request.method !== "PUT" || !isAbout("csidrivers", request)) return undefined
        const { metadata, ...rest } = bodyOf(request)
        const { resourceVersion: _, uid: __, ...kept } = asObject(metadata)
        const path = request.path.slice(0, request.path.lastIndexOf("/"))
        return Effect.andThen(
          send({ method: "DELETE", path: request.path }),
          send({ method: "POST", path, body: { ...rest, metadata: kept } })
        )
      }),
    rates: { foreignEveryMillis: 120_000 },
    breaks: ["S16 csiDriverStays"]
  },
  {
    what: "audiences of an administrator that are written over",
    plant: () =>
      onRequests((request, send) => {
        if (request.method !== "PUT" || !isAbout("csidrivers", request)) return undefined
        const object = bodyOf(request)
        const { tokenRequests: _, ...spec } = objectAt(object, "spec")
        return send({ ...request, body: { ...object, spec } })
      }),
    rates: { foreignEveryMillis: 60_000, administratorEveryMillis: 120_000 },
    breaks: ["S16 audiencesNeverShrink"]
  },
  {
    what: "a finalizer that is forgotten",
    plant: () =>
      onRequests((request, send) => {
        const isFinalizer = "finalizers" in metadataOf(bodyOf(request))
        if (request.method !== "PATCH" || !isFinalizer) return undefined
        return send({ method: "GET", path: request.path })
      }),
    breaks: ["Q1 finalizerGoesFirst"]
  },
  {
    what: "a finalizer that goes while objects are left",
    plant: () =>
      onRequests((request, send) =>
        request.method === "GET" && /\/(?:configmaps|networkpolicies)\//u.test(request.path)
          ? send({ ...request, path: `${request.path}-that-is-not-there` })
          : undefined
      ),
    breaks: ["Q1 finalizerGoesLast", "L9 comesToRest", "L9 sameAsUndisturbed"]
  },
  {
    what: "pods that are not looked for before the driver goes",
    plant: () =>
      onRequests((request, send) =>
        request.method === "GET" && request.path === "/api/v1/pods"
          ? Effect.map(send(request), (list) => ({ ...asObject(list), items: [] }))
          : undefined
      ),
    breaks: ["Q7 driverOutlivesVolumes", "Q7 removalWaits"]
  },
  {
    what: "a DaemonSet without the ServiceAccount of its pods",
    plant: () =>
      onRequests((request) =>
        request.method === "POST" && isAbout("serviceaccounts", request)
          ? Effect.succeed(withMetadata(bodyOf(request), { uid: "none", resourceVersion: "1" }))
          : undefined
      ),
    breaks: ["Q42 rightsComeBeforePods"]
  },
  {
    what: "a removal by label instead of by name",
    plant: () =>
      onRequests((request, send) =>
        request.method === "DELETE" && isAbout("clusterroles", request)
          ? Effect.andThen(
              Effect.ignore(
                send({
                  method: "DELETE",
                  path: "/apis/rbac.authorization.k8s.io/v1/clusterroles/secretproviderclasses-admin-role"
                })
              ),
              send(request)
            )
          : undefined
      ),
    breaks: ["S17 writesOnlyItsOwn"]
  },
  {
    what: "a ClusterCSIDriver that is read out of a cache",
    plant: () => {
      let cached: unknown
      return onRequests((request, send) => {
        if (request.method !== "GET" || !request.path.endsWith("/clustercsidrivers/secrets-store.csi.k8s.io")) {
          return undefined
        }
        if (cached !== undefined) return Effect.succeed(cached)
        return Effect.tap(send(request), (found) =>
          Effect.sync(() => {
            cached = found
          })
        )
      })
    },
    breaks: ["S17 actsOnWhatIsWanted", "S17 writesOnlyItsOwn", "Q1 finalizerGoesFirst", "L9 comesToRest"]
  },
  {
    what: "pods that are replaced at every write",
    plant: () => {
      let writes = 0
      return onRequests((request, send) => {
        if (request.method !== "PUT" || !isAbout("daemonsets", request)) return undefined
        const object = bodyOf(request)
        const spec = objectAt(object, "spec")
        const template = objectAt(spec, "template")
        const annotations = { ...objectAt(metadataOf(template), "annotations"), written: `${writes++}` }
        const body = { ...object, spec: { ...spec, template: withMetadata(template, { annotations }) } }
        return send({ ...request, body })
      })
    },
    breaks: ["Q5 oneRolloutPerChange"]
  },
  {
    what: "labels of others that are written over",
    plant: () =>
      onRequests((request, send) => {
        if (request.method !== "PUT" || isLease(request)) return undefined
        const object = bodyOf(request)
        const labels = Object.entries(objectAt(metadataOf(object), "labels")).filter(
          ([key]) => !key.startsWith("others/")
        )
        return send({ ...request, body: withMetadata(object, { labels: Object.fromEntries(labels) }) })
      }),
    rates: { conflictRate: 0.5 },
    breaks: ["S7 labelsOfOthersStay"]
  },
  {
    what: "rights to all Secrets",
    plant: () =>
      onRequests((request, send) => {
        if (request.method !== "POST" || !isAbout("clusterroles", request)) return undefined
        const object = bodyOf(request)
        const rules = [...listAt(object, "rules"), { apiGroups: [""], resources: ["secrets"], verbs: ["get"] }]
        return send({ ...request, body: { ...object, rules } })
      }),
    breaks: ["Q29 secretsStayShut"]
  },
  {
    what: "rights that are not given",
    plant: () =>
      onRequests((request, send) =>
        request.method === "GET" && request.path === "/apis/rbac.authorization.k8s.io/v1/rolebindings"
          ? Effect.map(send(request), (list) => ({ ...asObject(list), items: [] }))
          : undefined
      ),
    rates: { classEveryMillis: 120_000 },
    breaks: ["L9 comesToRest", "Q29 rightsFollowClasses", "Q1 finalizerGoesLast"]
  },
  {
    what: "a password in a condition",
    plant: () =>
      onRequests((request, send) => {
        if (request.method !== "PATCH" || !request.path.endsWith("/status")) return undefined
        const object = bodyOf(request)
        const status = objectAt(object, "status")
        const conditions = listAt(status, "conditions").map((it) => ({ ...asObject(it), message: CANARY }))
        return send({ ...request, body: { ...object, status: { ...status, conditions } } })
      }),
    breaks: ["S5 nothingSecretIsSaid"]
  },
  {
    what: "conditions of two owners",
    plant: () =>
      onRequests((request, send) =>
        request.method === "PATCH" && request.path.endsWith("/status")
          ? Effect.andThen(send({ ...request, query: { ...request.query, fieldManager: "twin" } }), send(request))
          : undefined
      ),
    breaks: ["S13 oneOwnerPerCondition"]
  },
  {
    what: "a status that is not written",
    plant: () =>
      onRequests((request) =>
        request.method === "PATCH" && request.path.endsWith("/status") ? Effect.succeed({}) : undefined
      ),
    breaks: ["L9 comesToRest"]
  },
  {
    what: "a write at every look",
    plant: () => {
      let looks = 0
      return onRequests((request, send) =>
        request.method === "GET" && request.path.endsWith("/clusterroles/secretproviderclasses-role")
          ? Effect.flatMap(send(request), (found) =>
              Effect.as(
                Effect.ignore(
                  send({
                    method: "PATCH",
                    path: request.path,
                    contentType: "application/merge-patch+json",
                    body: { metadata: { annotations: { looked: `${looks++}` } } }
                  })
                ),
                found
              )
            )
          : undefined
      )
    },
    breaks: ["L6 quietMeansNoWrites", "L9 comesToRest", "S17 actsOnWhatIsWanted"]
  },
  {
    what: "a finalizer that is never taken away",
    plant: () =>
      onRequests((request, send) => {
        const { finalizers } = metadataOf(bodyOf(request))
        if (request.method !== "PATCH" || !Array.isArray(finalizers) || finalizers.length > 0) return undefined
        return send({ method: "GET", path: request.path })
      }),
    rates: { administratorEveryMillis: 0 },
    breaks: ["L-removal nothingIsLeft"]
  }
]

describe("a mistake is found", () => {
  const PLANT_SEEDS = [21, 22, 23, 24, 25, 26]
  it.each(mistakes)("$what: $breaks.0", { timeout: 120_000 }, ({ breaks, plant, rates }) => {
    for (const seed of PLANT_SEEDS) {
      const { violation } = run({ seed, hours: 0.5, plant: plant(), rates: (drawn) => ({ ...drawn, ...rates }) })
      if (violation === undefined) continue
      assert.include(breaks, `${violation.id} ${violation.invariant}`, violation.seen)
      return
    }
    assert.fail(`not within the seeds ${PLANT_SEEDS.join(", ")}`)
  })
})
