/**
 * Every entry of the list of faults is met by some run, and every fault of a run is in the list; every promise of the
 * list of invariants is checked by some run, and so is every function that says what one means.
 */
import { beforeAll, describe, expect, it } from "vitest"
import { SCENARIOS } from "../../layers/fake/Scenarios.ts"
import { FAULT_LIST, standsFor } from "../../layers/fake/simulation/FaultList.ts"
import { figureOf, PROMISES } from "../../layers/fake/simulation/Promises.ts"

const RUNS_MAX = 30
const HOURS = 0.5
const NUMBERS = [
  ...["1-4", "5-8", "9-12", "13-14", "15-18", "19-22", "23-26", "27-32"],
  ...["33-34", "35-36", "37-38", "39-40", "41-42", "43"]
]

const listed = FAULT_LIST.flatMap(({ sites }) => sites)

const PROMISE_IDS = [
  ...Array.from({ length: 20 }, (_, index) => `S${index + 1}`),
  ...Array.from({ length: 10 }, (_, index) => `L${index + 1}`)
]

/** Counted only when they are broken, or almost. */
const ASKED_LATE: ReadonlySet<string> = new Set([
  ...["runEnds", "driverKeepsRunning", "operatorKeepsRunning", "aFileNeverDisappears", "readersMayFinish"]
])
const CHECKED = PROMISES.filter(({ name }) => !ASKED_LATE.has(name))

/** Runs each scenario, seed by seed, until all of both lists was met. */
const metFigures = () => {
  const struck = new Set<string>()
  const checked = new Set<string>()
  const isComplete = () =>
    listed.every((site) => [...struck].some((it) => standsFor(site, it))) &&
    CHECKED.every((promise) => checked.has(figureOf(promise)))
  const scenarios = SCENARIOS.filter(({ name }) => name !== "canary")
  for (let seed = 1; seed <= RUNS_MAX && !isComplete(); seed++) {
    for (const scenario of scenarios) {
      const { history } = scenario.run({ seed, hours: HOURS })
      for (const [site] of history.figuresOf("fault ")) struck.add(site)
      for (const promise of PROMISES) if (history.figure(figureOf(promise)) > 0) checked.add(figureOf(promise))
    }
  }
  return { struck, checked }
}

let struck: ReadonlySet<string> = new Set()
let checked: ReadonlySet<string> = new Set()

beforeAll(() => {
  const met = metFigures()
  struck = met.struck
  checked = met.checked
}, 600_000)

describe("list of faults", () => {
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

describe("list of promises", () => {
  it.each(PROMISE_IDS)("%s is said by a function", (id) => {
    expect(PROMISES.filter((promise) => promise.id === id)).not.toEqual([])
  })

  it.each(CHECKED)("$id $name is checked by some run", (promise) => {
    expect(checked.has(figureOf(promise))).toBe(true)
  })
})
