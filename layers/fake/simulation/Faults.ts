/**
 * What goes wrong in a run. Rates are drawn once per run, many of them zero, so that some runs are quiet and some cruel
 * (swarm testing); each fault is then drawn call by call, until faults end.
 */
import { Effect } from "effect"
import { KubernetesApi, type KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import type { Failure, MemoryKubernetes } from "../MemoryKubernetes.ts"
import { type Chance, interval, ofAKind } from "./Chance.ts"
import { DiskFaults, type DiskRates, drawDiskRates } from "./DiskFaults.ts"
import type { History } from "./History.ts"
import { drawProviderRates, ProviderFaults, type ProviderRates } from "./ProviderFaults.ts"
import type { RunOptions } from "./Scenario.ts"
import type { Striker } from "./Striker.ts"
import { drawTimeRates, type TimeRates } from "./TimeFaults.ts"
import { drawTokenRates, type TokenRates } from "./Tokens.ts"

/** Rates are chances per call; intervals are means, and 0 is never. */
export type FaultPlan = DiskRates & ProviderRates & TimeRates & TokenRates & OtherRates

type OtherRates = {
  /** Boundaries between port calls that a life of the driver lasts. */
  readonly killEveryCalls: number
  /** A life of the driver has settings that hardly anybody chooses. */
  readonly oddSettingsRate: number
  /** SIGTERM. */
  readonly stopEveryMillis: number
  readonly rebootEveryMillis: number
  readonly apiFailRate: number
  readonly apiLatencyMillisMax: number
  readonly apiOutageEveryMillis: number
  /** Watches are cut, sometimes with the loss of old versions. */
  readonly watchCutEveryMillis: number
  /** Somebody else writes an object just before the driver does. */
  readonly conflictRate: number
  /** The kubelet leaves before the answer, or gives little time. */
  readonly cancelRate: number
  /** A pod's object is gone before its volumes are. */
  readonly forceDeleteRate: number
  /** A class is useless for a while. */
  readonly classBrokenEveryMillis: number
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
  apiFailRate: chance.sometimes(0.3),
  apiLatencyMillisMax: chance.sometimes(500),
  apiOutageEveryMillis: interval(chance, 40 * MINUTE),
  watchCutEveryMillis: interval(chance, 20 * MINUTE),
  conflictRate: chance.sometimes(0.5),
  cancelRate: chance.sometimes(0.2),
  forceDeleteRate: chance.sometimes(0.5),
  classBrokenEveryMillis: interval(chance, 40 * MINUTE),
  secretTouchedEveryMillis: interval(chance, 10 * MINUTE),
  duplicateRate: chance.sometimes(0.1)
})

/** @shape (drawn, change) -> the plan with what the change makes of it; an unnamed rate stays as it was drawn */
export const adjustPlan = (drawn: FaultPlan, change: RunOptions["rates"]): FaultPlan =>
  change === undefined ? drawn : { ...drawn, ...change(drawn) }

const API_FAILURES: ReadonlyArray<Failure> = [
  { status: 0, reason: "Network", detail: "the connection was lost" },
  { status: 0, reason: "Timeout", detail: "no answer in time" },
  { status: 403, reason: "Forbidden" },
  { status: 429, reason: "TooManyRequests", retryAfterSeconds: 1 },
  { status: 500, reason: "InternalError" },
  { status: 503, reason: "ServiceUnavailable" }
]

const UNREACHABLE: Failure = { status: 0, reason: "Network", detail: "connection refused" }

/** What goes wrong, all in one place; what comes of it is in the lanes of those who meet it. */
const FAULTS_LANE = "faults"

export class Faults implements Striker {
  /** False: whatever is called from now on works. */
  active = true
  /** True: no request of the driver reaches the API server, whether faults are active or not. */
  apiIsDown = false
  readonly plan: FaultPlan
  readonly disk: DiskFaults
  readonly providers: ProviderFaults
  private readonly chance: Chance
  private readonly history: History

  constructor(plan: FaultPlan, chance: Chance, history: History) {
    this.plan = plan
    this.disk = new DiskFaults(this, plan, chance)
    this.providers = new ProviderFaults(this, plan, chance)
    this.chance = chance
    this.history = history
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

  /** Failures are the API server's own injection; `touch` is somebody else who writes an object. */
  kubernetes(
    api: KubernetesApi["Service"],
    control: MemoryKubernetes["Service"],
    touch: (path: string) => Effect.Effect<void>
  ): KubernetesApi["Service"] {
    const inject = (request: Pick<KubernetesRequest, "method" | "path">, failure: Failure, applied: boolean) =>
      control.failNext((arrived) => arrived.method === request.method && arrived.path === request.path, failure, {
        applied
      })
    const prepare = (request: Pick<KubernetesRequest, "method" | "path">) =>
      Effect.suspend(() => {
        if (this.apiIsDown) return inject(request, UNREACHABLE, false)
        if (!this.strikes(`KubernetesApi.${request.method}`, this.plan.apiFailRate)) return Effect.void
        const failure = this.chance.oneOf(API_FAILURES)
        // Done, and the answer lost: only who hears nothing can be wrong about it.
        const applied = failure.status === 0 && this.chance.happens(0.5)
        return inject(request, failure, applied)
      })
    return KubernetesApi.of({
      request: (request) =>
        Effect.suspend(() =>
          request.method === "PUT" && this.strikes("KubernetesApi conflict", this.plan.conflictRate)
            ? touch(request.path)
            : Effect.void
        ).pipe(Effect.andThen(prepare(request)), Effect.andThen(api.request(request))),
      watch: api.watch
    })
  }
}
