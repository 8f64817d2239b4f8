/**
 * What is said in Events about actions, and about the cluster's configuration.
 *
 * @source reference/operator.md 1.7, 3.5, 3.12, 4.5, Q4, Q20, Q34
 */
import { Result } from "effect"
import { isEqual } from "../../schemas/Json.ts"
import { describe, type OperandId } from "./Kinds.ts"
import type { Management } from "./Management.ts"
import type { ClusterConfig } from "./Observe.ts"
import type { Ended } from "./Perform.ts"
import type { Action } from "./Plan.ts"

/** Who speaks: one of the operator's parts, as each has always had a name of its own. */
export type Speaker =
  | "operator"
  | "loggingSyncer"
  | "managementState"
  | "staticResources"
  | "configObserver"
  | "nodeService"

export interface OperatorEvent {
  readonly type: "Normal" | "Warning"
  readonly reason: string
  readonly message: string
  readonly speaker: Speaker
}

const speakerOf = (id: OperandId): Speaker => (id.kind === "DaemonSet" ? "nodeService" : "staticResources")

const withDetail = (words: string, detail: string | undefined, otherwise: string): string =>
  detail === undefined ? `${words}${otherwise}` : `${words}:\n${detail}`

const changed = ({ change, id }: Action & { readonly _tag: "Apply" }, error: string | undefined): OperatorEvent => {
  const [object, speaker] = [describe(id), speakerOf(id)]
  const [doing, word] = change._tag === "Create" ? ["create", "Create"] : ["update", "Update"]
  if (error !== undefined) {
    const message = `Failed to ${doing} ${object}: ${error}`
    return { type: "Warning", reason: `${id.kind}${word}Failed`, message, speaker }
  }
  const done = { type: "Normal", reason: `${id.kind}${word}d`, speaker } as const
  switch (change._tag) {
    case "Create":
      return { ...done, message: `Created ${object} because it was missing` }
    case "Update":
      return { ...done, message: withDetail(`Updated ${object}`, change.detail, " because it changed") }
    case "Recreate":
      return {
        ...done,
        message: `Updated ${object}:\ndeleted and created again: what changed cannot be changed in place`
      }
  }
}

/**
 * @shape  (action, how it ended, management state) -> what is said of it
 * @errors none
 */
export const eventsOf = (action: Action, result: Ended, management: Management): ReadonlyArray<OperatorEvent> => {
  const error = Result.isFailure(result) ? result.failure.message : undefined
  switch (action._tag) {
    case "Apply":
      return [changed(action, error)]
    case "Delete":
      return [
        error === undefined
          ? {
              type: "Normal",
              reason: `${action.id.kind}Deleted`,
              message: `Deleted ${describe(action.id)}`,
              speaker: speakerOf(action.id)
            }
          : {
              type: "Warning",
              reason: `${action.id.kind}DeleteFailed`,
              message: `Failed to delete ${describe(action.id)}: ${error}`,
              speaker: speakerOf(action.id)
            }
      ]
    case "RemoveFinalizer":
      return management._tag === "Released" && error === undefined
        ? [
            {
              type: "Warning",
              reason: "OperandLeftInPlace",
              message: `The ClusterCSIDriver was deleted in management state "${management.value}": the driver and its objects are left as they are. Create it again with managementState Managed, then set Removed, to have them removed`,
              speaker: "nodeService"
            }
          ]
        : []
    case "EnsureFinalizer":
    case "Remember":
      return []
  }
}

/**
 * What changed of the cluster's configuration. Nothing is said of what is seen for the first time, except that there is
 * no proxy where one is expected.
 *
 * @shape  (before, now) -> events
 * @errors none
 */
export const configEvents = (
  before: ClusterConfig | undefined,
  now: ClusterConfig | undefined
): ReadonlyArray<OperatorEvent> => {
  if (now === undefined) return []
  const speaker = "configObserver"
  const isMissing = !now.hasProxy && (before === undefined || before.hasProxy)
  const missing: ReadonlyArray<OperatorEvent> = isMissing
    ? [
        {
          type: "Warning",
          reason: "ObserveProxyConfig",
          message: "proxy.config.openshift.io/cluster not found",
          speaker
        }
      ]
    : []
  if (before === undefined) return missing
  const [hadProxy, hasProxy] = [before, now].map(({ proxy = {} }) => Object.keys(proxy).sort().join(", "))
  const { cipherSuites, minTLSVersion } = now.servingInfo
  const proxyChanged = before.proxy !== undefined && !isEqual(before.proxy, now.proxy)
  const tlsChanged = !isEqual(before.servingInfo, now.servingInfo)
  return [
    ...missing,
    // The addresses may hold a password.
    ...(proxyChanged
      ? [
          {
            type: "Normal",
            reason: "ObserveProxyConfig",
            message: `proxy changed: set are ${hasProxy || "no variables"}, before ${hadProxy || "none"}`,
            speaker
          } as const
        ]
      : []),
    ...(tlsChanged
      ? [
          {
            type: "Normal",
            reason: "ObserveTLSSecurityProfile",
            message: `minTLSVersion is ${minTLSVersion}, cipherSuites are ${cipherSuites.join(",")}`,
            speaker
          } as const
        ]
      : []),
    ...(proxyChanged || tlsChanged
      ? [
          {
            type: "Normal",
            reason: "ObservedConfigChanged",
            message: `the observed configuration changed: ${[proxyChanged ? "proxy" : "", tlsChanged ? "servingInfo" : ""].filter((it) => it !== "").join(", ")}`,
            speaker
          } as const
        ]
      : [])
  ]
}
