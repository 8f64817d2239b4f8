import { assert, describe, it } from "@effect/vitest"
import { type Decision, decide, type Observed } from "../../src/volume/Decision.ts"

const filled: Observed = { mount: "Mounted", populated: true, record: "Recorded", dueMillis: 120_000 }

interface Row {
  readonly row: string
  readonly name: string
  readonly observed?: Partial<Observed>
  readonly rotates?: boolean
  readonly nowMillis?: number
  readonly expected: Decision
}

const rows: ReadonlyArray<Row> = [
  {
    row: "2.7 #8",
    name: "nothing there yet",
    observed: { mount: "Missing", populated: false },
    expected: { _tag: "Mount", leftover: false }
  },
  {
    row: "2.7 #9",
    name: "a plain directory",
    observed: { mount: "NotMounted", populated: false },
    expected: { _tag: "Mount", leftover: false }
  },
  {
    row: "Q3 (a)",
    name: "a plain directory, rotation on, just touched",
    observed: { mount: "NotMounted", populated: false },
    rotates: true,
    nowMillis: 1,
    expected: { _tag: "Mount", leftover: false }
  },
  {
    row: "Q3 (b)",
    name: "an empty mount is a crash's leftover",
    observed: { populated: false },
    expected: { _tag: "Mount", leftover: true }
  },
  {
    row: "Q3 (b)",
    name: "an empty mount, rotation on",
    observed: { populated: false },
    rotates: true,
    nowMillis: 1,
    expected: { _tag: "Mount", leftover: true }
  },
  {
    row: "2.8",
    name: "a mount that cannot be entered",
    observed: { mount: "Corrupted", populated: false },
    expected: { _tag: "Mount", leftover: true }
  },
  { row: "2.7 #9", name: "filled, rotation off", expected: { _tag: "KeepMounted" } },
  { row: "2.7 #9", name: "filled, rotation off, years old", nowMillis: 1e12, expected: { _tag: "KeepMounted" } },
  {
    row: "2.7 #21",
    name: "filled but never recorded: finished, not believed",
    observed: { record: "Unrecorded" },
    expected: { _tag: "Refresh", why: "Unrecorded" }
  },
  {
    row: "2.7 #21",
    name: "filled but never recorded, not due",
    observed: { record: "Unrecorded" },
    rotates: true,
    nowMillis: 1,
    expected: { _tag: "Refresh", why: "Unrecorded" }
  },
  {
    row: "2.7 #9",
    name: "no API server: a filled mount is kept",
    observed: { record: "Unknown" },
    expected: { _tag: "KeepMounted" }
  },
  {
    row: "2.7 Q4",
    name: "one millisecond young",
    rotates: true,
    nowMillis: 119_999,
    expected: { _tag: "NotDue", dueInMillis: 1 }
  },
  {
    row: "2.7 Q4",
    name: "exactly due",
    rotates: true,
    nowMillis: 120_000,
    expected: { _tag: "Refresh", why: "Due" }
  },
  {
    row: "2.7 Q4",
    name: "overdue",
    rotates: true,
    nowMillis: 500_000,
    expected: { _tag: "Refresh", why: "Due" }
  },
  {
    row: "0 or never",
    name: "a frozen volume is never due",
    observed: { dueMillis: Number.POSITIVE_INFINITY },
    rotates: true,
    nowMillis: 1e15,
    expected: { _tag: "NotDue", dueInMillis: Number.POSITIVE_INFINITY }
  },
  {
    row: "F3 37",
    name: "a success in the future waits for its time",
    observed: { dueMillis: 130_000 },
    rotates: true,
    nowMillis: 0,
    expected: { _tag: "NotDue", dueInMillis: 130_000 }
  }
]

describe("Decision", () => {
  it.each(rows)("$row $name", ({ expected, nowMillis, observed, rotates }) => {
    assert.deepStrictEqual(decide({ ...filled, ...observed }, rotates ?? false, nowMillis ?? 0), expected)
  })
})
