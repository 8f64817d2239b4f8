/**
 * Every entry of the list of faults is met by some run, and every fault of a run is in the list.
 */
import { beforeAll, describe, expect, it } from "vitest"
import { SCENARIOS } from "../../layers/fake/Scenarios.ts"
import { FAULT_LIST, standsFor } from "../../layers/fake/simulation/FaultList.ts"

const RUNS_MAX = 60
const HOURS = 0.5
const NUMBERS = [
  ...["1-4", "5-8", "9-12", "13-14", "15-18", "19-22", "23-26", "27-32"],
  ...["33-34", "35-36", "37-38", "39-40", "41-42", "43"]
]

const listed = FAULT_LIST.flatMap(({ sites }) => sites)

/** Runs each scenario, seed by seed, until all of the list was met. */
const struckSites = (): ReadonlySet<string> => {
  const struck = new Set<string>()
  const isComplete = () => listed.every((site) => [...struck].some((it) => standsFor(site, it)))
  const scenarios = SCENARIOS.filter(({ name }) => name !== "canary")
  for (let seed = 1; seed <= RUNS_MAX && !isComplete(); seed++) {
    for (const scenario of scenarios) {
      const { history } = scenario.run({ seed, hours: HOURS })
      for (const [site] of history.figuresOf("fault ")) struck.add(site)
    }
  }
  return struck
}

describe("list of faults", () => {
  let struck: ReadonlySet<string> = new Set()

  beforeAll(() => {
    struck = struckSites()
  }, 300_000)

  it.each(FAULT_LIST)("$numbers $fault", ({ sites, why }) => {
    expect(sites.length > 0 || (why ?? "") !== "").toBe(true)
    expect(sites.filter((site) => ![...struck].some((it) => standsFor(site, it)))).toEqual([])
  })

  it("every fault that strikes is listed", () => {
    expect([...struck].filter((it) => !listed.some((site) => standsFor(site, it)))).toEqual([])
  })

  it("every number is there", () => {
    expect(NUMBERS.filter((number) => !FAULT_LIST.some(({ numbers }) => numbers === number))).toEqual([])
  })
})
