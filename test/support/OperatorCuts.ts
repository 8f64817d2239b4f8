/**
 * The operator is killed between any two of its API calls, and before and after each of them takes effect. Whoever leads
 * next has to reach what an undisturbed run reaches. Every cut is made, none is sampled; each part is a file of its own, so
 * that they run beside each other.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import type { JsonObject } from "../../layers/fake/KubernetesObject.ts"
import * as Old from "../../layers/fake/simulation/OldOperator.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { tell } from "./DriverWorld.ts"
import * as World from "./OperatorWorld.ts"

const AUDIENCES = [{ audience: "sts.amazonaws.com", expirationSeconds: 3600 }, { audience: "vault" }]

interface Flow {
  readonly name: string
  /** Goes before, undisturbed. */
  readonly before?: "installed"
  /** What was there before any operator of ours. */
  readonly prepare?: Effect.Effect<unknown, never, KubernetesApi>
  /** Of the CSIDriver that is there at first. */
  readonly csiDriver?: JsonObject
  readonly images?: { readonly driver: string; readonly registrar: string; readonly livenessProbe: string }
  readonly act: Effect.Effect<unknown, never, KubernetesApi>
  readonly end: "settled" | "removed"
  /** Fewer cuts would mean that the flow does less than it says. */
  readonly cutsMin: number
}

const patchCsiDriver = (spec: JsonObject) =>
  Effect.flatMap(KubernetesApi, (api) =>
    Effect.orDie(
      api.request({
        method: "PATCH",
        path: "/apis/storage.k8s.io/v1/csidrivers/secrets-store.csi.k8s.io",
        contentType: "application/merge-patch+json",
        body: { spec }
      })
    )
  )

const createCsiDriver = (spec: JsonObject) =>
  Effect.flatMap(KubernetesApi, (api) =>
    Effect.orDie(
      api.request({
        method: "POST",
        path: "/apis/storage.k8s.io/v1/csidrivers",
        body: {
          apiVersion: "storage.k8s.io/v1",
          kind: "CSIDriver",
          metadata: { name: "secrets-store.csi.k8s.io" },
          spec
        }
      })
    )
  )

const createClass = Effect.flatMap(KubernetesApi, (api) =>
  Effect.orDie(
    api.request({
      method: "POST",
      path: "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/team-a/secretproviderclasses",
      body: {
        apiVersion: "secrets-store.csi.x-k8s.io/v1",
        kind: "SecretProviderClass",
        metadata: { name: "web", namespace: "team-a" },
        spec: { provider: "vault", secretObjects: [{ secretName: "web", type: "Opaque", data: [] }] }
      }
    })
  )
)

const rotation = (type: "None" | "Custom", minimumRefreshAge?: number) => ({
  driverType: "SecretsStore",
  secretsStore: { secretRotation: type === "None" ? { type } : { type, custom: { minimumRefreshAge } } }
})

/** From nothing, or from what others have left, to all of it. */
export const INSTALLATIONS: ReadonlyArray<Flow> = [
  { name: "install", act: Effect.andThen(createClass, World.createClusterCsiDriver()), end: "settled", cutsMin: 100 },
  {
    name: "install over a CSIDriver that has to be made anew, with audiences of an administrator",
    csiDriver: {
      attachRequired: true,
      podInfoOnMount: true,
      volumeLifecycleModes: ["Persistent"],
      tokenRequests: AUDIENCES
    },
    act: World.createClusterCsiDriver(),
    end: "settled",
    cutsMin: 100
  },
  {
    name: "take-over from the operator of today",
    images: World.SIDECARS,
    prepare: Old.leaveBehind({ tokenRequests: AUDIENCES, certificates: true }),
    act: Effect.void,
    end: "settled",
    cutsMin: 60
  }
]

export const CHANGES: ReadonlyArray<Flow> = [
  {
    name: "change of rotation, log level and audiences",
    before: "installed",
    act: Effect.andThen(
      patchCsiDriver({ tokenRequests: AUDIENCES }),
      World.patchClusterCsiDriver({ spec: { logLevel: "Debug", driverConfig: rotation("Custom", 300) } })
    ),
    end: "settled",
    cutsMin: 40
  },
  {
    name: "upgrade to other images",
    before: "installed",
    images: { driver: "drv:2", registrar: "reg:2", livenessProbe: "live:2" },
    act: Effect.void,
    end: "settled",
    cutsMin: 40
  }
]

export const REMOVALS: ReadonlyArray<Flow> = [
  {
    name: "removal by management state",
    before: "installed",
    act: Effect.andThen(createClass, World.patchClusterCsiDriver({ spec: { managementState: "Removed" } })),
    end: "removed",
    cutsMin: 60
  },
  {
    name: "removal by deletion",
    before: "installed",
    act: World.deleteClusterCsiDriver,
    end: "removed",
    cutsMin: 60
  }
]

const EXPIRY_MILLIS = 600_000

/** @shape (flow, cut: boundary at which the first operator dies, seed) -> how it ends, and whether it was cut at all */
const run = (flow: Flow, cut: number) =>
  World.onVirtualTime(
    7,
    Effect.gen(function* () {
      yield* Effect.forkScoped(World.controlPlane({ nodes: 2 }))
      const change = flow.images === undefined ? {} : { images: flow.images }
      if (flow.prepare !== undefined) yield* flow.prepare
      if (flow.csiDriver !== undefined) yield* createCsiDriver(flow.csiDriver)
      const ended = flow.end === "settled" ? World.settled : World.removed
      if (flow.before === "installed") {
        const first = yield* World.operator("first")
        yield* World.createClusterCsiDriver()
        yield* World.until("installed", World.settled(first), EXPIRY_MILLIS)
        first.stop()
        yield* World.until(
          "the first one has stopped",
          Effect.sync(() => first.fiber.pollUnsafe() !== undefined)
        )
      }
      const cutOff = yield* World.operator("cut-off", change)
      cutOff.life.killAtBoundary(cut)
      yield* flow.act
      // An upgrade is settled before it has begun.
      yield* World.until(
        "it leads, or is dead",
        Effect.sync(() => !cutOff.life.isAlive || cutOff.sent.some(World.isOperandWrite)),
        EXPIRY_MILLIS
      )
      yield* World.until(
        "it is done, or is dead",
        Effect.map(ended(cutOff), (isDone) => isDone || !cutOff.life.isAlive),
        EXPIRY_MILLIS
      )
      const wasCut = !cutOff.life.isAlive
      if (wasCut) {
        const next = yield* World.operator("next", change)
        yield* World.until(
          "the next one leads",
          Effect.sync(() => next.sent.some(({ path }) => path.includes("/clustercsidrivers/"))),
          EXPIRY_MILLIS
        )
        yield* Effect.sleep(5_000)
        yield* World.until(`${flow.name}, cut at ${cut}: the next one is done`, ended(next), EXPIRY_MILLIS)
      }
      return { wasCut, picture: yield* World.picture }
    })
  )

/** Tests of these flows. */
export const cutEverywhere = (flows: ReadonlyArray<Flow>): void => {
  it.each(flows)("an operator that is killed: $name: at every boundary", { timeout: 600_000 }, (flow) => {
    const undisturbed = run(flow, Number.POSITIVE_INFINITY)
    assert.isFalse(undisturbed.wasCut)
    let cut = 1
    for (; ; cut++) {
      const { picture, wasCut } = run(flow, cut)
      assert.deepStrictEqual(picture, undisturbed.picture, `cut at boundary ${cut}`)
      if (!wasCut) break
    }
    tell(`${flow.name}: ${cut - 1} cuts`)
    assert.isAtLeast(cut, flow.cutsMin)
  })
}
