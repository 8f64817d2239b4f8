/**
 * What must be true of several nodes and an operator together, beyond what is true of each: one function per promise, as
 * for the node.
 */
import type { DriverSettings } from "./DriverSettings.ts"
import { type Invariant, namesOf, type PodStatusView } from "./Invariants.ts"
import type { SimulatedVolume } from "./Volume.ts"

const invariant = <Observed>(
  id: string,
  name: string,
  broken: (observed: Observed) => string | undefined
): Invariant<Observed> => ({ id, name, broken })

/** S17: a volume whose driver was removed first can be taken away by nobody, and its pod never ends. */
export const volumesGoFirst = invariant(
  "S17",
  "volumesGoFirst",
  ({ node, volumes }: { readonly node: string; readonly volumes: ReadonlyArray<SimulatedVolume> }) =>
    volumes.length > 0 ? `the driver is taken off ${node}, which has volumes: ${namesOf(volumes)}` : undefined
)

/** S9: an owner that dies takes the Secret with it, whoever else uses it on whichever node. */
export const collectedSecretIsUnused = invariant(
  "S9",
  "collectedSecretIsUnused",
  ({ name, users }: { readonly name: string; readonly users: ReadonlyArray<SimulatedVolume> }) =>
    users.length > 0 ? `${name} went with its owners while it is used: ${namesOf(users)}` : undefined
)

/** L1: pods that nobody makes, or that hang on a node that has given them up, are not running either. */
export const everyPodRuns = invariant(
  "L1",
  "everyPodRuns",
  (observed: { readonly running: number; readonly wanted: number; readonly withinMillis: number }) =>
    observed.running === observed.wanted
      ? undefined
      : `${observed.running} of ${observed.wanted} pods are there ${observed.withinMillis} ms after the last fault`
)

/** L8: all pods of a node wait for a driver that was just restarted. */
export const restartedDriverServes = invariant(
  "L8",
  "restartedDriverServes",
  ({
    answer,
    node,
    withinMillis
  }: {
    readonly node: string
    readonly answer: string
    readonly withinMillis: number
  }) =>
    answer === "ready"
      ? undefined
      : `${withinMillis} ms after it was killed, the driver of ${node} answers ${JSON.stringify(answer)}`
)

/** L9: what the administrator has asked for is what the drivers do, on every node. */
export const driversFollow = invariant(
  "L9",
  "driversFollow",
  (observed: {
    readonly wanted: DriverSettings
    readonly found: ReadonlyArray<DriverSettings>
    readonly nodes: number
  }) => {
    const { found, nodes, wanted } = observed
    const text = (it: DriverSettings) => `rotation ${it.rotationEnabled}, ${it.rotationPollIntervalMillis} ms`
    if (found.length !== nodes) return `${found.length} drivers run on ${nodes} nodes`
    const wrong = found.filter((it) => text(it) !== text(wanted))
    return wrong.length > 0
      ? `${wrong.length} of ${nodes} drivers run with ${wrong.map(text).join("; ")}, not ${text(wanted)}`
      : undefined
  }
)

/** L5: nobody on a node that is gone can clean up after itself, and its pods will not come back. */
export const lostNodeLeavesNothing = invariant(
  "L5",
  "lostNodeLeavesNothing",
  (observed: {
    readonly volumes: ReadonlyArray<SimulatedVolume>
    readonly statuses: ReadonlyArray<PodStatusView>
    readonly withinMillis: number
  }) => {
    const paths = new Set(observed.volumes.map(({ targetPath }) => targetPath))
    const left = observed.statuses.filter(({ targetPath }) => paths.has(targetPath)).map(({ name }) => name)
    return left.length > 0
      ? `${observed.withinMillis} ms after the pods of a lost node, pod statuses are there: ${left.join(", ")}`
      : undefined
  }
)
