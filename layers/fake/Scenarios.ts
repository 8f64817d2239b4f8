/**
 * Every scenario that the command knows, by name.
 */
import * as ClusterSimulation from "./ClusterSimulation.ts"
import * as NodeSimulation from "./NodeSimulation.ts"
import * as OperatorSimulation from "./OperatorSimulation.ts"
import * as Canary from "./simulation/Canary.ts"
import type { Scenario } from "./simulation/Scenario.ts"

export const DEFAULT_SCENARIO = NodeSimulation.scenario.name

export const SCENARIOS: ReadonlyArray<Scenario> = [
  NodeSimulation.scenario,
  OperatorSimulation.scenario,
  ClusterSimulation.scenario,
  Canary.scenario
]

/** Those in which every promise holds, which is what a campaign asks; the others have a planted mistake. */
export const WORLDS: ReadonlyArray<Scenario> = SCENARIOS.filter((it) => it !== Canary.scenario)

export const scenarioOf = (name: string): Scenario | undefined => SCENARIOS.find((it) => it.name === name)
