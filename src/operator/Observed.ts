/**
 * What one reconcile knows of the cluster, read once. A record of plain data: everything is decided from it.
 */
import type { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { StringMap } from "../../schemas/Meta.ts"
import type { OperatorConfig } from "../../schemas/OperatorConfig.ts"
import type { Sha256 } from "../ports/Digest.ts"
import { keyOf, type OperandId } from "./Kinds.ts"

/** Key of the RoleBindings for Secrets among what could not be read: they are listed, not named. */
export const SYNC_BINDINGS = "RoleBinding"

export interface Observed {
  readonly clusterCsiDriver: ClusterCSIDriver | undefined
  /** The operand's objects that exist, by `Kinds.keyOf`; RoleBindings for Secrets are among them. */
  readonly live: ReadonlyMap<string, Manifest>
  /** Why an object could not be looked at, by its key; all RoleBindings have one. It is not touched then. */
  readonly unread: ReadonlyMap<string, string>
  /** Namespaces whose SecretProviderClasses ask for Secrets; undefined while that is not known. */
  readonly syncNamespaces: ReadonlySet<string> | undefined
  /** API groups of OpenShift that this API server serves; undefined while that is not known. */
  readonly servedGroups: ReadonlySet<string> | undefined
  readonly apiServerPorts: ReadonlyArray<number>
  /** Of the cluster's proxy: NO_PROXY, HTTP_PROXY, HTTPS_PROXY; undefined while that is not known. */
  readonly proxy: StringMap | undefined
  /** What of the cluster's configuration could not be observed, and why. */
  readonly observationFailures: ReadonlyArray<string>
  /** "namespace/name" of pods that use a volume of the driver; looked for only before the driver is removed. */
  readonly consumers: ReadonlyArray<string>
  /** "namespace/name" of the driver's own pods; looked for only when its DaemonSet is gone. */
  readonly driverPods: ReadonlyArray<string>
  /** Since when the DaemonSet has made no progress; undefined when it needs none. */
  readonly stuckMillis: number | undefined
}

/** What does not change while the operator runs. */
export interface Fixed {
  readonly config: OperatorConfig
  readonly manifests: ReadonlyMap<string, Manifest>
  readonly sha256: Sha256
}

export const liveOf = ({ live }: Pick<Observed, "live">, id: OperandId): Manifest | undefined => live.get(keyOf(id))
