/**
 * The whole operator on virtual time: install, change, upgrade, removal.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as World from "../support/OperatorWorld.ts"

describe("the operator on virtual time", () => {
  it("installs and removes the operand", () => {
    World.onVirtualTime(
      1,
      Effect.gen(function* () {
        yield* Effect.forkScoped(World.controlPlane())
        const operator = yield* World.operator("a")
        yield* World.createClusterCsiDriver()
        yield* World.until("installed", World.settled(operator))
        yield* World.patchClusterCsiDriver({ spec: { managementState: "Removed" } })
        yield* World.until("removed", World.removed(operator))
        assert.strictEqual(yield* World.condition("Available"), "False Removed")
      })
    )
  })
})
