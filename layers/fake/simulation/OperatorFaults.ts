/**
 * What goes wrong around operators in a run. Rates are drawn once per run, many of them zero, so that some runs are
 * quiet and some cruel; each fault is then drawn request by request, until faults end.
 */
import { Effect } from "effect"
import type { KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import type { Failure } from "../MemoryKubernetes.ts"
import { ApiFaults, type ApiRates, drawApiRates, NO_API_RATES } from "./ApiFaults.ts"
import type { Chance } from "./Chance.ts"
import type { History } from "./History.ts"
import type { Rates } from "./Scenario.ts"

const MINUTE = 60_000

/** Rates are chances per request; intervals are means in milliseconds, and 0 is never. */
export type OperatorRates = ApiRates & Readonly<Record<(typeof RATE_NAMES)[number], number>>

const RATE_NAMES = [
  /** Boundaries between port calls that a life lasts. */
  "killEveryCalls",
  "stopEveryMillis",
  "pauseEveryMillis",
  /** Another version of the operator takes over. */
  "upgradeEveryMillis",
  /** API groups of OpenShift are not served for a while. */
  "discoveryEveryMillis",
  /** The operator may not do something for a while. */
  "deniedEveryMillis",
  "nodeEveryMillis",
  "podCrashEveryMillis",
  "consumerEveryMillis",
  /** Somebody else changes or deletes what is the operator's. */
  "foreignEveryMillis",
  "administratorEveryMillis",
  "classEveryMillis",
  /** Proxy, TLS profile and certificates of the cluster. */
  "surroundingsEveryMillis"
] as const

const interval = (chance: Chance, longest: number): number =>
  chance.happens(0.35) ? 0 : chance.between(longest / 8, longest)

/** @shape (chance, change: of what was drawn) -> rates */
export const drawRates = (chance: Chance, change: (drawn: Rates) => Rates = (drawn) => drawn): OperatorRates => {
  const drawn: OperatorRates = {
    killEveryCalls: chance.happens(0.3) ? 0 : Math.ceil(10 ** chance.between(1.5, 3.3)),
    stopEveryMillis: interval(chance, 40 * MINUTE),
    pauseEveryMillis: interval(chance, 30 * MINUTE),
    upgradeEveryMillis: interval(chance, 60 * MINUTE),
    ...drawApiRates(chance),
    discoveryEveryMillis: interval(chance, 40 * MINUTE),
    deniedEveryMillis: interval(chance, 40 * MINUTE),
    nodeEveryMillis: interval(chance, 40 * MINUTE),
    podCrashEveryMillis: interval(chance, 20 * MINUTE),
    consumerEveryMillis: interval(chance, 20 * MINUTE),
    foreignEveryMillis: interval(chance, 20 * MINUTE),
    administratorEveryMillis: chance.between(2 * MINUTE, 20 * MINUTE),
    classEveryMillis: interval(chance, 20 * MINUTE),
    surroundingsEveryMillis: interval(chance, 20 * MINUTE)
  }
  return { ...drawn, ...change(drawn) }
}

export class OperatorFaults {
  /** False: whatever is asked from now on is answered. */
  active = true
  /** True: no request of an operator reaches the API server. */
  apiIsDown = false
  /** Parts of paths that an operator may not write or read at present. */
  readonly denied = new Set<string>()
  readonly rates: OperatorRates
  /** Of requests and watches. */
  readonly api: ApiFaults
  private readonly chance: Chance
  private readonly history: History

  constructor(rates: OperatorRates, chance: Chance, history: History) {
    this.rates = rates
    this.chance = chance
    this.history = history
    this.api = new ApiFaults(rates, chance, this)
  }

  note(site: string): void {
    this.history.count(`fault ${site}`)
    this.history.note(site, "faults", "fault")
  }

  strikes(site: string, rate: number): boolean {
    if (!this.active || !this.chance.happens(rate)) return false
    this.note(site)
    return true
  }

  end(): void {
    this.active = false
    this.apiIsDown = false
    this.denied.clear()
  }

  /** What a request is answered without reaching the API server; undefined: it does reach it. */
  refusal(request: Pick<KubernetesRequest, "method" | "path">): Failure | undefined {
    const isDenied = [...this.denied].some((part) => request.path.includes(part))
    return isDenied ? { status: 403, reason: "Forbidden", detail: "injected: no rights" } : this.api.refusal(request)
  }

  /** What a request, or its answer, takes on its way. */
  travelMillis(): number {
    return this.chance.between(0, this.active ? 60 : 5)
  }

  /** Repeats something at random intervals of a mean length; never when that is 0. */
  every(rate: keyof OperatorRates, what: Effect.Effect<void>): Effect.Effect<void> {
    const meanMillis = this.rates[rate]
    return meanMillis === 0
      ? Effect.never
      : Effect.forever(
          Effect.andThen(
            Effect.suspend(() => Effect.sleep(this.chance.between(0, 2 * meanMillis))),
            what
          )
        )
  }
}

/** Nothing goes wrong. */
export const NO_RATES: OperatorRates = {
  ...NO_API_RATES,
  killEveryCalls: 0,
  stopEveryMillis: 0,
  pauseEveryMillis: 0,
  upgradeEveryMillis: 0,
  discoveryEveryMillis: 0,
  deniedEveryMillis: 0,
  nodeEveryMillis: 0,
  podCrashEveryMillis: 0,
  consumerEveryMillis: 0,
  foreignEveryMillis: 0,
  administratorEveryMillis: 0,
  classEveryMillis: 0,
  surroundingsEveryMillis: 0
}
