import { assert, describe, it } from "@effect/vitest"
import type { JsonObject } from "../../../schemas/Json.ts"
import type { Manifest } from "../../../schemas/Manifest.ts"
import { Annotation } from "../../../src/operator/Names.ts"
import { advance, type Progress } from "../../../src/operator/Progress.ts"
import { manifestOf } from "../../support/OperatorFixtures.ts"

const NOW = 1_000_000

/** Three nodes, of which so many have new pods, and so many pods run. */
const daemonSet = (updated: number, available: number, metadata: JsonObject = {}): Manifest =>
  manifestOf({
    apiVersion: "apps/v1",
    kind: "DaemonSet",
    metadata: { name: "d", generation: 2, ...metadata },
    status: {
      observedGeneration: 2,
      desiredNumberScheduled: 3,
      updatedNumberScheduled: updated,
      numberAvailable: available,
      numberUnavailable: 3 - available
    }
  })

const known = (updated: number, available: number): Progress => ({
  generation: 2,
  updated,
  available,
  sinceMillis: NOW - 60_000
})
const since = (updated: number, available: number, generation = 2): Progress => ({
  generation,
  updated,
  available,
  sinceMillis: NOW
})

describe("progress of a rollout", () => {
  it.each<{
    readonly name: string
    readonly before: Progress | undefined
    readonly live: Manifest | undefined
    readonly expected: Progress | undefined
  }>([
    { name: "there is no DaemonSet", before: known(1, 1), live: undefined, expected: undefined },
    { name: "there is nothing to wait for", before: known(3, 2), live: daemonSet(3, 3), expected: undefined },
    {
      name: "a stable generation is not waited for",
      before: undefined,
      live: daemonSet(3, 1, { annotations: { [Annotation.stableGeneration]: "2" } }),
      expected: undefined
    },
    { name: "begins", before: undefined, live: daemonSet(0, 3), expected: since(0, 3) },
    {
      name: "begins again with another generation",
      before: known(1, 3),
      live: daemonSet(0, 2, { generation: 3 }),
      expected: since(0, 2, 3)
    },
    { name: "stands still", before: known(1, 2), live: daemonSet(1, 2), expected: known(1, 2) },
    { name: "one pod more is new", before: known(1, 2), live: daemonSet(2, 2), expected: since(2, 2) },
    { name: "one pod more runs", before: known(3, 1), live: daemonSet(3, 2), expected: since(3, 2) },
    { name: "one pod less is no progress", before: known(2, 3), live: daemonSet(2, 2), expected: known(2, 3) },
    {
      name: "a pod that crashes and comes back is no progress",
      before: known(3, 2),
      live: daemonSet(3, 2),
      expected: known(3, 2)
    },
    {
      name: "one pod is new while another is gone: the most that ever ran counts",
      before: known(1, 3),
      live: daemonSet(2, 1),
      expected: since(2, 3)
    }
  ])("Q15 $name", ({ before, expected, live }) => {
    assert.deepStrictEqual(advance(before, live, NOW), expected)
  })

  it("Q15 a crash loop has no progress for as long as it lasts", () => {
    let progress = advance(undefined, daemonSet(3, 2), 0)
    for (let minute = 1; minute <= 15; minute++) {
      progress = advance(progress, daemonSet(3, minute % 2 === 0 ? 2 : 1), minute * 60_000)
    }
    assert.strictEqual(progress?.sinceMillis, 0)
  })
})
