/**
 * Runs a simulation of the sources beside it, seed after seed, until a promise breaks; a process of its own, so that it
 * can be one of changed sources. Writes one line of JSON.
 *
 * @shape `node Hunt.ts '{ "scenario", "hours", "seeds" }'` -> { runs, found }
 */
import { writeSync } from "node:fs"
import { Schema } from "effect"
import { run } from "../../layers/fake/NodeSimulation.ts"

const Order = Schema.Struct({ hours: Schema.Finite, seeds: Schema.Array(Schema.Int) })
const decodeOrder = Schema.decodeUnknownSync(Schema.fromJsonString(Order))

const STDOUT = 1

const { hours, seeds } = decodeOrder(process.argv[2])
let runs = 0
let found: unknown = null
for (const seed of seeds) {
  runs += 1
  const { violation } = run({ seed, hours })
  if (violation === undefined) continue
  const { id, invariant, seen, virtualMillis } = violation
  found = { seed, promise: `${id} ${invariant}`, seen, virtualMillis }
  break
}
writeSync(STDOUT, `${JSON.stringify({ runs, found })}\n`)
