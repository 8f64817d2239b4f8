import { assert, describe, it } from "@effect/vitest"
import { type Decision, decide, decideRefresh, type Observed, type RefreshDecision } from "../../src/volume/Decision.ts"

const due = (dueMillis: number) => ({ dueMillis, setMillis: 0, awaitsTokens: false })

const filled: Observed = { mount: "Mounted", populated: true, record: "Recorded", schedule: due(120_000) }

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
    expected: { _tag: "Complete" }
  },
  {
    row: "2.7 #21",
    name: "filled but never recorded, not due",
    observed: { record: "Unrecorded" },
    rotates: true,
    nowMillis: 1,
    expected: { _tag: "Complete" }
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
    expected: { _tag: "Due" }
  },
  {
    row: "2.7 Q4",
    name: "overdue",
    rotates: true,
    nowMillis: 500_000,
    expected: { _tag: "Due" }
  },
  {
    row: "0 or never",
    name: "a frozen volume is never due",
    observed: { schedule: due(Number.POSITIVE_INFINITY) },
    rotates: true,
    nowMillis: 1e15,
    expected: { _tag: "NotDue", dueInMillis: Number.POSITIVE_INFINITY }
  },
  {
    row: "F3 37",
    name: "a clock that was set back a little: waited for",
    observed: { schedule: { ...due(250_000), setMillis: 130_000 } },
    rotates: true,
    nowMillis: 70_000,
    expected: { _tag: "NotDue", dueInMillis: 180_000 }
  },
  {
    row: "F3 37",
    name: "a clock that was set back by hours: due, not stale for hours",
    observed: { schedule: { ...due(20_120_000), setMillis: 20_000_000 } },
    rotates: true,
    nowMillis: 70_000,
    expected: { _tag: "Due" }
  },
  {
    row: "F3 35",
    name: "due, but without good tokens: not before they come",
    observed: { schedule: { ...due(0), awaitsTokens: true } },
    rotates: true,
    nowMillis: 1e15,
    expected: { _tag: "NotDue", dueInMillis: Number.POSITIVE_INFINITY }
  }
]

describe("Decision", () => {
  it.each(rows)("$row $name", ({ expected, nowMillis, observed, rotates }) => {
    assert.deepStrictEqual(decide({ ...filled, ...observed }, rotates ?? false, nowMillis ?? 0), expected)
  })
})

describe("a refresh whose turn has come", () => {
  const ready = { mount: "Mounted", populated: true, schedule: due(1_000), tokensExpireMillis: 2_000 } as const
  const rows: ReadonlyArray<{
    readonly name: string
    readonly observed?: Partial<Parameters<typeof decideRefresh>[0]>
    readonly nowMillis?: number
    readonly expected: RefreshDecision
  }> = [
    { name: "due, with good tokens", expected: { _tag: "Refresh" } },
    { name: "a millisecond before its time", nowMillis: 999, expected: { _tag: "NotDue" } },
    { name: "frozen while it waited", observed: { schedule: due(Infinity) }, expected: { _tag: "NotDue" } },
    { name: "unmounted while it waited", observed: { mount: "NotMounted" }, expected: { _tag: "Gone" } },
    { name: "emptied while it waited", observed: { populated: false }, expected: { _tag: "Gone" } },
    { name: "tokens good for one more millisecond", nowMillis: 1_999, expected: { _tag: "Refresh" } },
    { name: "tokens that expire now", nowMillis: 2_000, expected: { _tag: "AwaitTokens", expiredMillis: 2_000 } },
    {
      name: "without tokens",
      observed: { tokensExpireMillis: Infinity },
      nowMillis: 9e12,
      expected: { _tag: "Refresh" }
    }
  ]
  it.each(rows)("$name", ({ expected, nowMillis = 1_500, observed }) =>
    assert.deepStrictEqual(decideRefresh({ ...ready, ...observed }, nowMillis), expected)
  )
})
