/**
 * The objects that the operator of today leaves behind are taken over: nothing is deleted, no pod is replaced, and every
 * condition still has one owner.
 *
 * @source reference/operator.md 13, take-over without disruption
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { isObject, listAt, metadataOf, objectAt, textAt } from "../../layers/fake/KubernetesObject.ts"
import * as Old from "../../layers/fake/simulation/OldOperator.ts"
import * as World from "../support/OperatorWorld.ts"

const AUDIENCES = [{ audience: "api://AzureADTokenExchange", expirationSeconds: 3600 }]

describe("an operator that takes over", () => {
  it.each([
    { name: "a cluster without certificates of its own", certificates: false, tokenRequests: [] },
    { name: "a condition that nobody says any more (3.11)", certificates: false, tokenRequests: [], stale: true },
    { name: "certificates that every pod has and no container mounts", certificates: true, tokenRequests: [] },
    { name: "audiences that an administrator has set", certificates: true, tokenRequests: AUDIENCES }
  ])("$name", ({ certificates, tokenRequests, ...row }) => {
    World.onVirtualTime(
      3,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        yield* Old.leaveBehind({ certificates, tokenRequests })
        yield* Effect.sleep(30_000)
        yield* Old.daemonSetIsStable()
        if ("stale" in row) yield* Old.leaveStaleCondition
        const before = { daemonSet: yield* World.daemonSet, csiDriver: yield* World.csiDriver }
        const pods = yield* World.all("pods")

        const operator = yield* World.operator("ours", { images: World.SIDECARS })
        yield* World.until(
          "it leads",
          Effect.sync(() => operator.sent.some(World.isOperandWrite))
        )
        yield* World.until("settled", World.settled(operator))

        const writes = operator.sent.filter(World.isOperandWrite)
        assert.deepStrictEqual(
          writes.filter(({ method }) => method === "DELETE"),
          []
        )
        const after = { daemonSet: yield* World.daemonSet, csiDriver: yield* World.csiDriver }
        assert.deepStrictEqual(
          metadataOf(after.daemonSet ?? {})["generation"],
          metadataOf(before.daemonSet ?? {})["generation"]
        )
        assert.deepStrictEqual(after.daemonSet?.["spec"], before.daemonSet?.["spec"])
        assert.deepStrictEqual(yield* World.all("pods"), pods)
        assert.deepStrictEqual(after.csiDriver?.["spec"], before.csiDriver?.["spec"])
        assert.strictEqual(metadataOf(after.csiDriver ?? {})["uid"], metadataOf(before.csiDriver ?? {})["uid"])
        if (tokenRequests.length === 0) assert.deepStrictEqual(after.csiDriver, before.csiDriver)
        if (!certificates) assert.deepStrictEqual(after.daemonSet, before.daemonSet)

        // Every entry of a list in the status has exactly one owner.
        const it = (yield* World.clusterCsiDriver) ?? {}
        const entries = listAt(metadataOf(it), "managedFields")
          .filter(isObject)
          .filter((entry) => entry["subresource"] === "status")
        const owners = new Map<string, Array<string>>()
        for (const entry of entries) {
          const status = objectAt(objectAt(entry, "fieldsV1"), "f:status")
          for (const list of ["f:conditions", "f:generations"]) {
            for (const key of Object.keys(objectAt(status, list)).filter((item) => item !== ".")) {
              owners.set(key, [...(owners.get(key) ?? []), textAt(entry, "manager") ?? ""])
            }
          }
        }
        assert.isAbove(owners.size, 9)
        assert.deepStrictEqual(
          [...owners].filter(([, managers]) => managers.length !== 1),
          []
        )
        assert.isUndefined(yield* World.condition(Old.STALE))
        // What has been so for long is still said to have been so since then.
        const conditions = listAt(objectAt(it, "status"), "conditions").filter(isObject)
        const available = conditions.find(
          (candidate) => candidate["type"] === "SecretsStoreDriverNodeServiceControllerAvailable"
        )
        assert.strictEqual(available?.["lastTransitionTime"], "2026-01-01T00:00:00Z")
        // Nobody but the administrator writes the spec.
        assert.strictEqual(metadataOf(it)["generation"], 1)
      })
    )
  })
})
