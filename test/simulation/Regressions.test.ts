/**
 * Each public thread about what this driver and operator do better, as a story of its own. That a story fails when its
 * behaviour is put back is shown in test/mutation/Simulation.test.ts.
 */
import { assert, describe, it } from "@effect/vitest"
import { PLANTED } from "../support/PlantedMistakes.ts"
import { REGRESSIONS } from "../support/Regressions.ts"

describe("reference/defects.md 1, 2: what happened to others", () => {
  it.each(REGRESSIONS)(
    "$thread: $holds",
    ({ run }) => {
      assert.strictEqual(run(), undefined)
    },
    60_000
  )

  it("what puts the behaviour back is a planted mistake", () => {
    const names = new Set(PLANTED.map(({ name }) => name))
    assert.deepStrictEqual(
      REGRESSIONS.flatMap(({ putBack }) => (putBack === undefined || names.has(putBack) ? [] : [putBack])),
      []
    )
  })
})
