/**
 * Plain data for the operator's decisions: the shipped manifests, a ClusterCSIDriver, and a cluster that keeps what a
 * plan asks of it, without any API server.
 */
import { fileURLToPath } from "node:url"
import { Effect, Layer, Schema } from "effect"
import * as AssetFiles from "../../layers/real/AssetFiles.ts"
import * as NodeDigest from "../../layers/real/NodeDigest.ts"
import { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"
import { isEqual, type JsonObject, objectAt } from "../../schemas/Json.ts"
import { Manifest } from "../../schemas/Manifest.ts"
import type { StringMap } from "../../schemas/Meta.ts"
import type { OperatorConfig } from "../../schemas/OperatorConfig.ts"
import type { Outcome } from "../../src/operator/Conditions.ts"
import { withDefaults } from "../../src/operator/DaemonSetDefaults.ts"
import * as Desired from "../../src/operator/Desired.ts"
import { idOf, keyOf } from "../../src/operator/Kinds.ts"
import { Annotation, DRIVER_NAME, finalizerOf, LEASE, OPERATOR_NAME } from "../../src/operator/Names.ts"
import type { Fixed, Observed } from "../../src/operator/Observed.ts"
import { type Action, type Plan, plan } from "../../src/operator/Plan.ts"
import { Assets } from "../../src/ports/Assets.ts"
import { Digest } from "../../src/ports/Digest.ts"

export const NAMESPACE = "openshift-cluster-csi-drivers"
export const FINALIZER = finalizerOf(OPERATOR_NAME)

const shared = Layer.mergeAll(
  AssetFiles.layer(fileURLToPath(new URL("../../assets/driver", import.meta.url))),
  NodeDigest.layer
)

const { manifests, sha256 } = Effect.runSync(
  Effect.gen(function* () {
    return { manifests: (yield* Assets).manifests, sha256: (yield* Digest).sha256 }
  }).pipe(Effect.provide(shared))
)

export { manifests, sha256 }

/** The driver alone. */
export const SINGLE = { driver: "drv", registrar: "", livenessProbe: "" } as const
/** The driver with upstream's two sidecars. */
export const SIDECARS = { driver: "drv", registrar: "reg", livenessProbe: "live" } as const

export const config: OperatorConfig = {
  namespace: NAMESPACE,
  images: SINGLE,
  version: "1.0.0",
  operatorName: OPERATOR_NAME,
  podName: "",
  lease: { namespace: NAMESPACE, name: LEASE }
}

export const fixed: Fixed = { config, manifests, sha256 }

export const withImages = (images: OperatorConfig["images"]): Fixed => ({ ...fixed, config: { ...config, images } })

/** JSON as an API server answers it. */
export const manifestOf = Schema.decodeUnknownSync(Manifest)
const clusterCsiDriverOf = Schema.decodeUnknownSync(ClusterCSIDriver)

export const clusterCsiDriver = (
  spec: JsonObject = { managementState: "Managed" },
  metadata: JsonObject = {},
  status?: JsonObject
): ClusterCSIDriver =>
  clusterCsiDriverOf({
    apiVersion: "operator.openshift.io/v1",
    kind: "ClusterCSIDriver",
    metadata: { name: DRIVER_NAME, uid: "uid-of-it", resourceVersion: "7", generation: 1, ...metadata },
    spec,
    ...(status === undefined ? {} : { status })
  })

export const byKey = (objects: ReadonlyArray<Manifest>): ReadonlyMap<string, Manifest> =>
  new Map(objects.map((object) => [keyOf(idOf(object)), object]))

const OPENSHIFT_GROUPS: ReadonlySet<string> = new Set([
  "config.openshift.io",
  "operator.openshift.io",
  "security.openshift.io"
])

/** An OpenShift cluster without anything of the operand. */
export const observed = (change: Partial<Observed> = {}): Observed => ({
  clusterCsiDriver: clusterCsiDriver(),
  live: new Map(),
  unread: new Map(),
  syncNamespaces: new Set(),
  servedGroups: OPENSHIFT_GROUPS,
  apiServerPorts: [6443],
  proxy: {},
  observationFailures: [],
  consumers: [],
  driverPods: [],
  stuckMillis: undefined,
  ...change
})

/** As an API server keeps an object that is written for the first time. */
export const stored = (object: Manifest): Manifest => ({
  ...object,
  metadata: {
    ...object.metadata,
    uid: `uid-of-${object.metadata.name}`,
    resourceVersion: "1",
    ...(object.kind === "DaemonSet" ? { generation: 1 } : {})
  },
  ...(object.kind === "DaemonSet" ? { spec: withDefaults(objectAt(object, "spec")) } : {})
})

const rewritten = (before: Manifest | undefined, object: Manifest): Manifest => {
  if (object.kind !== "DaemonSet") return object
  const spec = withDefaults(objectAt(object, "spec"))
  const isRollout = !isEqual(before?.["spec"], spec)
  return {
    ...object,
    metadata: { ...object.metadata, generation: (before?.metadata.generation ?? 0) + (isRollout ? 1 : 0) },
    spec
  }
}

/** What comes of actions when nothing goes wrong; a finalizer or an annotation is not a live object. */
export const carriedOut = (live: ReadonlyMap<string, Manifest>, actions: ReadonlyArray<Action>): Outcome => {
  const after = new Map(live)
  for (const action of actions) {
    if (action._tag === "Delete") after.delete(action.key)
    if (action._tag !== "Apply") continue
    const { change } = action
    after.set(
      action.key,
      change._tag === "Update" ? rewritten(after.get(action.key), change.object) : stored(change.object)
    )
  }
  return { live: after, errors: new Map() }
}

/** The same DaemonSet when all its pods run. */
export const rolledOut = (daemonSet: Manifest, nodes = 3): Manifest => ({
  ...daemonSet,
  status: {
    observedGeneration: daemonSet.metadata.generation,
    desiredNumberScheduled: nodes,
    updatedNumberScheduled: nodes,
    numberReady: nodes,
    numberAvailable: nodes
  }
})

const markedBy = (before: ClusterCSIDriver, action: Action): ClusterCSIDriver => {
  switch (action._tag) {
    case "EnsureFinalizer":
    case "RemoveFinalizer":
      return { ...before, metadata: { ...before.metadata, finalizers: action.finalizers } }
    case "Remember": {
      const { [Annotation.rememberedTokens]: _, ...rest } = before.metadata.annotations ?? {}
      const annotations: StringMap =
        action.value === null ? rest : { ...rest, [Annotation.rememberedTokens]: action.value }
      return { ...before, metadata: { ...before.metadata, annotations } }
    }
    default:
      return before
  }
}

const ROUNDS_MAX = 10

/** The cluster after as many plans as it takes, with every pod running. */
export const settled = (from: Observed, by: Fixed = fixed): Observed => {
  let at = from
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const { actions }: Plan = plan(at, by)
    if (actions.length === 0) return at
    const key = keyOf(Desired.daemonSetId(by.config.namespace))
    const live = new Map(carriedOut(at.live, actions).live)
    let it = at.clusterCsiDriver
    for (const action of actions) it = it === undefined ? undefined : markedBy(it, action)
    const daemonSet = live.get(key)
    if (daemonSet !== undefined) live.set(key, rolledOut(daemonSet))
    at = { ...at, live, clusterCsiDriver: it }
  }
  throw new Error(`the plan is not empty after ${ROUNDS_MAX} rounds`)
}
