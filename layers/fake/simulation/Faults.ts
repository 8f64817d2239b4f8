/**
 * What goes wrong in a run. Rates are drawn once per run, many of them zero, so that some runs are quiet and some cruel
 * (swarm testing); each fault is then drawn call by call, until faults end.
 */
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { ApiFaults, type ApiRates, drawApiRates, type Neighbours } from "./ApiFaults.ts"
import { type Chance, interval, ofAKind } from "./Chance.ts"
import { DiskFaults, type DiskRates, drawDiskRates } from "./DiskFaults.ts"
import type { History } from "./History.ts"
import { drawKubeletRates, type KubeletRates } from "./KubeletFaults.ts"
import { drawProviderRates, ProviderFaults, type ProviderRates } from "./ProviderFaults.ts"
import type { RunOptions } from "./Scenario.ts"
import type { Striker } from "./Striker.ts"
import { drawTimeRates, type TimeRates } from "./TimeFaults.ts"
import { drawTokenRates, type TokenRates } from "./Tokens.ts"
import { drawVersionRates, type VersionRates } from "./VersionFaults.ts"
import { targetPathIn } from "./Volume.ts"

/** Rates are chances per call; intervals are means, and 0 is never. */
export type FaultPlan = ApiRates &
  DiskRates &
  ProviderRates &
  TimeRates &
  TokenRates &
  KubeletRates &
  VersionRates & {
    /** Boundaries between port calls that a life of the driver lasts. */
    readonly killEveryCalls: number
    /** A life of the driver has settings that hardly anybody chooses. */
    readonly oddSettingsRate: number
    /** SIGTERM. */
    readonly stopEveryMillis: number
    readonly rebootEveryMillis: number
    readonly apiLatencyMillisMax: number
    /** The kubelet leaves before the answer, or gives little time. */
    readonly cancelRate: number
    /** A pod's object is gone before its volumes are. */
    readonly forceDeleteRate: number
    /** A class is useless for a while. */
    readonly classBrokenEveryMillis: number
    /** Somebody else writes or deletes a pod status. */
    readonly statusTouchedEveryMillis: number
    /** Somebody deletes a class, and makes it again. */
    readonly classRemadeEveryMillis: number
    /** Somebody else writes something into a synced Secret, or has one of that name. */
    readonly secretTouchedEveryMillis: number
    /** The kubelet asks twice at once, as one does that was just started again. */
    readonly duplicateRate: number
  }

const MINUTE = 60_000

export const drawPlan = (chance: Chance): FaultPlan => ({
  ...drawDiskRates(ofAKind(chance)),
  ...drawProviderRates(ofAKind(chance)),
  ...drawTimeRates(ofAKind(chance)),
  ...drawTokenRates(ofAKind(chance)),
  killEveryCalls: chance.happens(0.3) ? 0 : Math.ceil(10 ** chance.between(2, 4)),
  oddSettingsRate: chance.sometimes(0.5),
  stopEveryMillis: interval(chance, 40 * MINUTE),
  rebootEveryMillis: interval(chance, 90 * MINUTE),
  ...drawApiRates(chance),
  apiLatencyMillisMax: chance.sometimes(500),
  cancelRate: chance.sometimes(0.2),
  forceDeleteRate: chance.sometimes(0.5),
  classBrokenEveryMillis: interval(chance, 40 * MINUTE),
  statusTouchedEveryMillis: interval(chance, 20 * MINUTE),
  classRemadeEveryMillis: interval(chance, 40 * MINUTE),
  secretTouchedEveryMillis: interval(chance, 10 * MINUTE),
  duplicateRate: chance.sometimes(0.1),
  ...drawKubeletRates(chance),
  ...drawVersionRates(chance)
})

/** @shape (drawn, change) -> the plan with what the change makes of it; an unnamed rate stays as it was drawn */
export const adjustPlan = (drawn: FaultPlan, change: RunOptions["rates"]): FaultPlan =>
  change === undefined ? drawn : { ...drawn, ...change(drawn) }

/** How often somebody deletes a pod because it hangs. */
const IMPATIENCE = 0.3
/** What goes wrong, all in one place; what comes of it is in the lanes of those who meet it. */
const FAULTS_LANE = "faults"

export class Faults implements Striker {
  /** False: whatever is called from now on works. */
  active = true
  /** True: no request of the driver reaches the API server, whether faults are active or not. */
  apiIsDown = false
  readonly plan: FaultPlan
  /** Of requests and watches. */
  readonly api: ApiFaults
  readonly disk: DiskFaults
  readonly providers: ProviderFaults
  private readonly chance: Chance
  private readonly history: History

  constructor(plan: FaultPlan, chance: Chance, history: History) {
    this.plan = plan
    this.chance = chance
    this.history = history
    this.api = new ApiFaults(plan, chance, this)
    this.disk = new DiskFaults(this, plan, chance)
    this.providers = new ProviderFaults(this, plan, chance)
  }

  note(site: string): void {
    this.history.count(`fault ${site}`)
    this.history.note(site, FAULTS_LANE, "fault")
  }

  strikes(site: string, rate: number): boolean {
    if (!this.active || !this.chance.happens(rate)) return false
    this.note(site)
    return true
  }

  /** Somebody has no patience with a pod whose disk hangs. */
  whenDiskHangs(deletePodOf: (targetPath: string) => void): void {
    this.disk.onHang = (path) => {
      const targetPath = targetPathIn(path)
      if (targetPath !== undefined && this.strikes("unpublish at work", IMPATIENCE)) deletePodOf(targetPath)
    }
  }

  kubernetes(api: KubernetesApi["Service"], neighbours: Neighbours): KubernetesApi["Service"] {
    return this.api.client(api, neighbours)
  }
}
