import { assert, describe, it } from "@effect/vitest"
import { type Decision, decide, type Observed, type Rotation } from "../../src/volume/Decision.ts"

const filled: Observed = { mount: "Mounted", populated: true, record: "Recorded", lastSuccessMillis: 0 }
const off: Rotation = { enabled: false, pollIntervalMillis: 120_000 }
const everyTwoMinutes: Rotation = { enabled: true, pollIntervalMillis: 120_000 }

interface Row {
  readonly row: string
  readonly name: string
  readonly observed?: Partial<Observed>
  readonly rotation?: Rotation
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
    rotation: everyTwoMinutes,
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
    rotation: everyTwoMinutes,
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
    rotation: everyTwoMinutes,
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
    rotation: everyTwoMinutes,
    nowMillis: 119_999,
    expected: { _tag: "NotDue", dueInMillis: 1 }
  },
  {
    row: "2.7 Q4",
    name: "exactly due",
    rotation: everyTwoMinutes,
    nowMillis: 120_000,
    expected: { _tag: "Refresh", why: "Due" }
  },
  {
    row: "2.7 Q4",
    name: "overdue",
    rotation: everyTwoMinutes,
    nowMillis: 500_000,
    expected: { _tag: "Refresh", why: "Due" }
  },
  {
    row: "1.1",
    name: "a negative interval is always due",
    rotation: { enabled: true, pollIntervalMillis: -1 },
    expected: { _tag: "Refresh", why: "Due" }
  },
  {
    row: "F3 37",
    name: "a success in the future waits for its time",
    observed: { lastSuccessMillis: 10_000 },
    rotation: everyTwoMinutes,
    nowMillis: 0,
    expected: { _tag: "NotDue", dueInMillis: 130_000 }
  }
]

describe("Decision", () => {
  it.each(rows)("$row $name", ({ expected, nowMillis, observed, rotation }) => {
    assert.deepStrictEqual(decide({ ...filled, ...observed }, rotation ?? off, nowMillis ?? 0), expected)
  })
})
