/**
 * What the ClusterCSIDriver's status says: the conditions that have always been there, with their types, reasons and
 * owners, and a summary of our own beside them.
 *
 * @source reference/operator.md 3.1 to 3.6, 3.11, Q15, Q16, Q17
 */
import type { Condition, Generation } from "../../schemas/ClusterCSIDriver.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import * as DaemonSet from "./DaemonSet.ts"
import * as Desired from "./Desired.ts"
import { keyOf } from "./Kinds.ts"
import { Annotation, DAEMON_SET, FieldManager, NODE_CONTROLLER, OPERAND_NAME, STATIC_CONTROLLER } from "./Names.ts"
import type { Fixed, Observed } from "./Observed.ts"
import type { Plan, Removal } from "./Plan.ts"

/** A condition before it is known since when it has been so. */
export type Finding = Pick<Condition, "type" | "status" | "reason" | "message">

/** The part of the status that one field manager owns. */
export interface Report {
  readonly fieldManager: string
  readonly conditions: ReadonlyArray<Finding>
  readonly generations?: ReadonlyArray<Generation>
  readonly observedGeneration?: number
  readonly readyReplicas?: number
  readonly version?: string
}

/** What came of a plan. */
export interface Outcome {
  /** The operand's objects as they are now, by key. */
  readonly live: ReadonlyMap<string, Manifest>
  /** Why an action has failed, by its key. */
  readonly errors: ReadonlyMap<string, string>
}

const NAMES_MAX = 10
/** Without progress for this long, a rollout is stuck. */
export const STUCK_MILLIS = 15 * 60_000

const is = (type: string, isTrue: boolean, reason?: string, message?: string): Finding => ({
  type,
  status: isTrue ? "True" : "False",
  ...(reason === undefined ? {} : { reason }),
  ...(message === undefined || message === "" ? {} : { message })
})

/** @shape (names) -> "a, b and 3 more" */
export const named = (names: ReadonlyArray<string>): string =>
  names.length <= NAMES_MAX
    ? names.join(", ")
    : `${names.slice(0, NAMES_MAX).join(", ")} and ${names.length - NAMES_MAX} more`

const managementState = ({ management }: Plan): Finding => {
  const type = "ManagementStateDegraded"
  const isKnown =
    management._tag !== "Unsupported" && (management._tag !== "Released" || management.value === "Unmanaged")
  return isKnown
    ? is(type, false)
    : is(
        type,
        true,
        "Unknown",
        `Unsupported management state "${"value" in management ? management.value : ""}" for ${OPERAND_NAME} operator`
      )
}

const ADOPT = `remove the other installation, or set the annotation ${Annotation.adoptForeign}: "true" on the ClusterCSIDriver to take its objects over`

const staticResources = (plan: Plan, outcome: Outcome): Finding => {
  const type = `${STATIC_CONTROLLER}Degraded`
  if (plan.management._tag === "Managed" && plan.foreign.length > 0) {
    return is(type, true, "ForeignOwnership", `nothing is applied: ${named(plan.foreign)}; ${ADOPT}`)
  }
  const failed = plan.actions.flatMap((action) => {
    const error = outcome.errors.get(action.key)
    if (error === undefined || isNodeAction(action.key)) return []
    return [{ file: action._tag === "Apply" ? action.file : action.key, error }]
  })
  const lines = [...plan.staticErrors, ...failed].map(({ error, file }) => `${JSON.stringify(file)}: ${error}\n`)
  return lines.length === 0 ? is(type, false, "AsExpected") : is(type, true, "SyncError", lines.join(""))
}

const isNodeAction = (key: string): boolean => key === "finalizer" || key === "remember" || key.startsWith("DaemonSet ")

const configObservation = ({ observationFailures }: Observed): Finding =>
  observationFailures.length === 0
    ? is("ConfigObservationDegraded", false)
    : is("ConfigObservationDegraded", true, "Error", [...observationFailures].sort().join("\n"))

const counted = ({ length }: ReadonlyArray<string>, one: string, more: string): string =>
  `${length} ${length === 1 ? one : more}`

const removalWords = (removal: Removal): string => {
  switch (removal._tag) {
    case "WaitingForPods":
      return `Waiting for ${counted(removal.pods, "pod that uses", "pods that use")} volumes of the driver: ${named(removal.pods)}; delete them, or set the annotation ${Annotation.removeWithoutWaiting}: "true" on the ClusterCSIDriver`
    case "StoppingDriver":
      return removal.pods.length === 0
        ? "Waiting for the DaemonSet to be deleted"
        : `Waiting for ${counted(removal.pods, "pod", "pods")} of the driver to end: ${named(removal.pods)}`
    case "DeletingObjects":
      return `Deleting ${named(removal.objects)}`
    case "Done":
      return "The operand is removed"
  }
}

const REMOVAL_REASONS = {
  WaitingForPods: "WaitingForPods",
  StoppingDriver: "Removing",
  DeletingObjects: "Removing",
  Done: "Removed"
} as const satisfies Readonly<Record<Removal["_tag"], string>>

interface Node {
  readonly available: Finding
  readonly progressing: Finding
  readonly degraded: Finding
}

const AVAILABLE = `${NODE_CONTROLLER}Available`
const PROGRESSING = `${NODE_CONTROLLER}Progressing`
const DEGRADED = `${NODE_CONTROLLER}Degraded`

const nodeErrors = (plan: Plan, outcome: Outcome): ReadonlyArray<string> => [
  ...plan.nodeErrors,
  ...[...outcome.errors].flatMap(([key, error]) => (isNodeAction(key) ? [error] : []))
]

const degraded = (errors: ReadonlyArray<string>, observed: Observed, progress: string | undefined): Finding => {
  if (errors.length > 0) return is(DEGRADED, true, "SyncError", errors.join("\n"))
  const stuck = observed.stuckMillis ?? 0
  return progress === undefined || stuck < STUCK_MILLIS
    ? is(DEGRADED, false, "AsExpected")
    : is(
        DEGRADED,
        true,
        "RolloutStuck",
        `no node pod has become ready for ${STUCK_MILLIS / 60_000} minutes: ${progress}; see the events and logs of the pods of DaemonSet ${DAEMON_SET}`
      )
}

/** From the live DaemonSet, whoever manages it; only a rollout of ours can be stuck. */
const nodeOf = (
  daemonSet: Manifest | undefined,
  observed: Observed,
  errors: ReadonlyArray<string>,
  isManaged: boolean
): Node => {
  const waiting = "Waiting for the DaemonSet to deploy the CSI Node Service"
  if (daemonSet === undefined) {
    return {
      available: is(AVAILABLE, false, "Deploying", waiting),
      progressing: is(PROGRESSING, true, "Deploying", "Waiting for the DaemonSet to be created"),
      degraded: degraded(errors, observed, undefined)
    }
  }
  const rollout = DaemonSet.rolloutOf(daemonSet)
  const progress = DaemonSet.progressOf(rollout)
  return {
    available:
      rollout.available > 0
        ? is(AVAILABLE, true, "AsExpected", "DaemonSet is available")
        : is(AVAILABLE, false, "Deploying", waiting),
    progressing:
      progress === undefined
        ? is(PROGRESSING, false, "AsExpected", "DaemonSet is not progressing")
        : is(PROGRESSING, true, "Deploying", progress),
    degraded: degraded(errors, observed, isManaged ? progress : undefined)
  }
}

const node = (observed: Observed, plan: Plan, outcome: Outcome, daemonSet: Manifest | undefined): Node => {
  const errors = nodeErrors(plan, outcome)
  const { management, removal } = plan
  if (removal !== undefined) {
    const reason = REMOVAL_REASONS[removal._tag]
    const isOver = removal._tag === "Done"
    const left = plan.foreign.length === 0 ? "" : `; left alone: ${named(plan.foreign)}`
    // While it waits, the driver serves as before.
    const serves = removal._tag === "WaitingForPods"
    return {
      available: serves
        ? nodeOf(daemonSet, observed, errors, false).available
        : is(AVAILABLE, false, "Removed", "The operand is being removed, or is removed"),
      progressing: is(PROGRESSING, !isOver, reason, `${removalWords(removal)}${left}`),
      degraded: degraded(errors, observed, undefined)
    }
  }
  if (daemonSet === undefined && management._tag !== "Managed") {
    const word = management._tag === "Unsupported" ? "Unsupported" : "Unmanaged"
    return {
      available: is(AVAILABLE, false, word, "There is no DaemonSet, and none is deployed in this management state"),
      progressing: is(PROGRESSING, false, word, "Nothing is changed in this management state"),
      degraded: degraded(errors, observed, undefined)
    }
  }
  if (daemonSet === undefined && plan.foreign.length > 0) {
    return {
      available: is(AVAILABLE, false, "ForeignOwnership", "Another installation of the driver is in the way"),
      progressing: is(PROGRESSING, false, "ForeignOwnership", "Nothing is applied"),
      degraded: degraded(errors, observed, undefined)
    }
  }
  return nodeOf(daemonSet, observed, errors, management._tag === "Managed")
}

const OPENSHIFT = "OpenShiftAPIsAvailable"

/** The conditions of all parts as one. */
const summary = (
  { clusterCsiDriver, servedGroups: served }: Observed,
  { available, progressing }: Node,
  parts: ReadonlyArray<Finding>
): ReadonlyArray<Finding> => {
  const bad = parts.filter(({ status }) => status === "True")
  // What is not known just now stays as it was.
  const before = clusterCsiDriver?.status?.conditions?.filter(({ type }) => type === OPENSHIFT) ?? []
  return [
    is("Available", available.status === "True", available.reason, available.message),
    bad.length === 0
      ? is("Degraded", false, "AsExpected")
      : is(
          "Degraded",
          true,
          bad.length === 1 ? (bad[0]?.reason ?? "Error") : "MultipleConditions",
          bad.map(({ message = "", type }) => `${type}: ${message.trim()}`).join("\n")
        ),
    is("Progressing", progressing.status === "True", progressing.reason, progressing.message),
    ...(served === undefined
      ? before.map(({ lastTransitionTime: _, ...finding }) => finding)
      : [
          served.has("config.openshift.io")
            ? is(OPENSHIFT, true, "AsExpected")
            : is(
                OPENSHIFT,
                false,
                "NotServed",
                "config.openshift.io is not served: there is no cluster-wide proxy or TLS profile to follow"
              )
        ])
  ]
}

/** The DaemonSet's generation after our last write, or after what was found to say the same. */
const generationsOf = (
  { clusterCsiDriver }: Observed,
  plan: Plan,
  outcome: Outcome,
  { config: { namespace } }: Fixed,
  generation: number | undefined
): ReadonlyArray<Generation> => {
  const known = clusterCsiDriver?.status?.generations?.filter(({ name }) => name === DAEMON_SET) ?? []
  const isOurs = plan.management._tag === "Managed" && plan.foreign.length === 0
  if (plan.removal !== undefined) return []
  if (!isOurs || nodeErrors(plan, outcome).length > 0) return known
  return generation === undefined
    ? []
    : [{ group: "apps", resource: "daemonsets", namespace, name: DAEMON_SET, lastGeneration: generation }]
}

/**
 * Everything that is to be reported after a plan was carried out, by field manager.
 *
 * @shape  (observed, plan, outcome, fixed) -> reports; none without a ClusterCSIDriver, or when it is about to go
 * @errors none
 */
export const reports = (observed: Observed, plan: Plan, outcome: Outcome, fixed: Fixed): ReadonlyArray<Report> => {
  const it = observed.clusterCsiDriver
  if (it === undefined || (plan.management._tag === "Removing" && plan.management.isDeleting && isOver(plan))) return []
  if (plan.management._tag === "Released") return []
  const { config } = fixed
  const daemonSet = outcome.live.get(keyOf(Desired.daemonSetId(config.namespace)))
  const management = managementState(plan)
  const statics = staticResources(plan, outcome)
  const observation = configObservation(observed)
  const nodeService = node(observed, plan, outcome, daemonSet)
  const rollout = daemonSet === undefined ? undefined : DaemonSet.rolloutOf(daemonSet)
  const generations = generationsOf(observed, plan, outcome, fixed, rollout?.generation)
  // What is not applied is not of this version.
  const isApplied =
    plan.management._tag === "Managed" &&
    statics.status === "False" &&
    nodeService.progressing.status === "False" &&
    nodeService.degraded.status === "False"
  const version = isApplied ? config.version : it.status?.version
  return [
    { fieldManager: FieldManager.managementState, conditions: [management] },
    // An operand that is somebody else's business is not spoken of.
    ...(plan.management._tag === "Unmanaged"
      ? []
      : [{ fieldManager: FieldManager.staticResources, conditions: [statics] }]),
    { fieldManager: FieldManager.configObserver, conditions: [observation] },
    {
      fieldManager: FieldManager.nodeService,
      conditions: [nodeService.available, nodeService.progressing],
      generations
    },
    { fieldManager: FieldManager.reportDegraded, conditions: [nodeService.degraded] },
    {
      fieldManager: FieldManager.summary,
      conditions: summary(observed, nodeService, [
        management,
        ...(plan.management._tag === "Unmanaged" ? [] : [statics]),
        observation,
        nodeService.degraded
      ]),
      ...(it.metadata.generation === undefined ? {} : { observedGeneration: it.metadata.generation }),
      readyReplicas: rollout?.ready ?? 0,
      ...(version === undefined || plan.removal?._tag === "Done" ? {} : { version })
    }
  ]
}

const isOver = ({ removal }: Plan): boolean => removal?._tag === "Done"
