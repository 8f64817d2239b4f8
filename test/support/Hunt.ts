/**
 * Runs a simulation of the sources beside it, seed after seed, until a promise breaks; a process of its own, so that it
 * can be one of changed sources. Writes one line of JSON.
 *
 * @shape `node Hunt.ts '{ "scenario", "hours", "seeds", "promises" }'` -> { runs, found }; without promises any of them
 *         counts; "regression/<thread>" is a story, which has no seeds
 */
import { writeSync } from "node:fs"
import { Schema } from "effect"
import { scenarioOf } from "../../layers/fake/Scenarios.ts"
import { REGRESSIONS } from "./Regressions.ts"

const Order = Schema.Struct({
  scenario: Schema.String,
  hours: Schema.Finite,
  seeds: Schema.Array(Schema.Int),
  promises: Schema.Array(Schema.String)
})
const decodeOrder = Schema.decodeUnknownSync(Schema.fromJsonString(Order))

const STDOUT = 1

const { hours, promises, scenario, seeds } = decodeOrder(process.argv[2])

const STORY = "regression/"

interface Found {
  readonly promise: string
  readonly seen: string
}

const look = (seed: number): Found | undefined => {
  if (scenario.startsWith(STORY)) {
    const story = REGRESSIONS.find(({ thread }) => `${STORY}${thread}` === scenario)
    if (story === undefined) throw new Error(`there is no ${scenario}`)
    const seen = story.run()
    return seen === undefined ? undefined : { promise: story.thread, seen }
  }
  const world = scenarioOf(scenario)
  if (world === undefined) throw new Error(`there is no ${scenario}`)
  const { violation } = world.run({ seed, hours })
  return violation === undefined
    ? undefined
    : { promise: `${violation.id} ${violation.invariant}`, seen: violation.seen }
}

let runs = 0
let found: (Found & { readonly seed: number }) | null = null
for (const seed of seeds) {
  runs += 1
  const broken = look(seed)
  if (broken === undefined || (promises.length > 0 && !promises.includes(broken.promise))) continue
  found = { seed, ...broken }
  break
}
writeSync(STDOUT, `${JSON.stringify({ runs, found })}\n`)
