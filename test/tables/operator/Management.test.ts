import { assert, describe, it } from "@effect/vitest"
import { type Management, managementOf } from "../../../src/operator/Management.ts"
import { clusterCsiDriver } from "../../support/OperatorFixtures.ts"

const DELETED = "2026-01-01T00:00:00Z"

describe("management state", () => {
  it("3.10 absent", () => {
    assert.deepStrictEqual(managementOf(undefined), { _tag: "Absent" })
  })

  it.each<{
    readonly row: string
    readonly state: string | undefined
    readonly isDeleting: boolean
    readonly expected: Management
  }>([
    { row: "3.10", state: "Managed", isDeleting: false, expected: { _tag: "Managed" } },
    { row: "3.10", state: "Managed", isDeleting: true, expected: { _tag: "Removing", isDeleting: true } },
    { row: "3.10", state: "Unmanaged", isDeleting: false, expected: { _tag: "Unmanaged" } },
    { row: "3.10 Q4", state: "Unmanaged", isDeleting: true, expected: { _tag: "Released", value: "Unmanaged" } },
    { row: "3.10", state: "Removed", isDeleting: false, expected: { _tag: "Removing", isDeleting: false } },
    { row: "3.10", state: "Removed", isDeleting: true, expected: { _tag: "Removing", isDeleting: true } },
    { row: "3.10 Q16", state: "Force", isDeleting: false, expected: { _tag: "Unsupported", value: "Force" } },
    { row: "3.10 Q4", state: "Force", isDeleting: true, expected: { _tag: "Released", value: "Force" } },
    { row: "3.10 Q16", state: "", isDeleting: false, expected: { _tag: "Unsupported", value: "" } },
    { row: "3.10 Q16", state: undefined, isDeleting: false, expected: { _tag: "Unsupported", value: "" } },
    { row: "3.10 Q4", state: undefined, isDeleting: true, expected: { _tag: "Released", value: "" } },
    { row: "3.10", state: "managed", isDeleting: false, expected: { _tag: "Unsupported", value: "managed" } }
  ])("$row state $state, deleting $isDeleting", ({ expected, isDeleting, state }) => {
    const spec = state === undefined ? {} : { managementState: state }
    assert.deepStrictEqual(
      managementOf(clusterCsiDriver(spec, isDeleting ? { deletionTimestamp: DELETED } : {})),
      expected
    )
  })
})
