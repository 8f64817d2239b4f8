import { assert, describe, it } from "@effect/vitest"
import * as Budget from "../../src/volume/Budget.ts"

const limits: Budget.Limits = { mountsMax: 3, refreshesMax: 2, refreshesPerSecond: 4 }
const free = Budget.initial(limits, 0)
const waiter = (kind: Budget.Kind, className = "ns/spc"): Budget.Waiter => ({ kind, className })
const admit = (index: number): Budget.Decision => ({ _tag: "Admit", index })
const idle: Budget.Decision = { _tag: "Idle" }
const wait = (untilMillis: number): Budget.Decision => ({ _tag: "Wait", untilMillis })

/** After so many throttled answers in a row, without jitter. */
const throttled = (times: number, nowMillis = 0, from = free): Budget.State => {
  let state = from
  for (let time = 0; time < times; time++) {
    const call = { epoch: state.epoch, className: "ns/spc" }
    state = Budget.answered(state, call, { _tag: "Throttled", retryAfterMillis: undefined }, limits, {
      nowMillis,
      random: 0.5
    })
  }
  return state
}

const answer = (state: Budget.State, outcome: Budget.Outcome, nowMillis = 0, epoch = state.epoch) =>
  Budget.answered(state, { epoch, className: "ns/spc" }, outcome, limits, { nowMillis, random: 0.5 })

interface Row {
  readonly name: string
  readonly state?: Budget.State
  readonly waiters: ReadonlyArray<Budget.Waiter>
  readonly nowMillis?: number
  readonly limits?: Budget.Limits
  readonly expected: Budget.Decision
}

const holding = (className: string, until: number): Budget.State => ({ ...free, holds: new Map([[className, until]]) })

const rows: ReadonlyArray<Row> = [
  { name: "nobody waits", waiters: [], expected: idle },
  { name: "the first of equals", waiters: [waiter("Due"), waiter("Due")], expected: admit(0) },
  {
    name: "a first mount before everything else",
    waiters: [waiter("Due"), waiter("Asked"), waiter("Mount"), waiter("Mount")],
    expected: admit(2)
  },
  {
    name: "what was asked for before what is due",
    waiters: [waiter("Due"), waiter("Asked")],
    expected: admit(1)
  },
  { name: "mounts: as many as allowed", state: { ...free, mounts: 3 }, waiters: [waiter("Mount")], expected: idle },
  {
    name: "mounts do not wait for refreshes",
    state: { ...free, mounts: 2, refreshes: 2 },
    waiters: [waiter("Mount")],
    expected: admit(0)
  },
  {
    name: "a refresh does not pass a mount that waits",
    state: { ...free, mounts: 3 },
    waiters: [waiter("Due"), waiter("Mount")],
    expected: idle
  },
  {
    name: "refreshes: as many as allowed",
    state: { ...free, refreshes: 2 },
    waiters: [waiter("Asked")],
    expected: idle
  },
  {
    name: "0 is no limit",
    state: { ...free, mounts: 1_000, refreshes: 1_000, allowance: 0 },
    limits: { mountsMax: 0, refreshesMax: 0, refreshesPerSecond: 0 },
    waiters: [waiter("Due")],
    expected: admit(0)
  },
  {
    name: "due refreshes: so many a second",
    state: { ...free, allowance: 0.5, allowanceMillis: 1_000 },
    nowMillis: 1_000,
    waiters: [waiter("Due")],
    expected: wait(1_125)
  },
  {
    name: "the allowance has grown",
    state: { ...free, allowance: 0.5, allowanceMillis: 1_000 },
    nowMillis: 1_125,
    waiters: [waiter("Due")],
    expected: admit(0)
  },
  {
    name: "what was asked for needs no allowance",
    state: { ...free, allowance: 0 },
    waiters: [waiter("Asked")],
    expected: admit(0)
  },
  { name: "throttled: nobody", state: throttled(1), nowMillis: 999, waiters: [waiter("Mount")], expected: wait(1_000) },
  {
    name: "throttled, and the time has come: one",
    state: throttled(1),
    nowMillis: 1_000,
    waiters: [waiter("Due"), waiter("Mount")],
    expected: admit(1)
  },
  {
    name: "throttled, and one is trying: nobody else",
    state: { ...throttled(1), current: 1, mounts: 1 },
    nowMillis: 60_000,
    waiters: [waiter("Mount")],
    expected: idle
  },
  {
    name: "throttled: who called before does not hold up the trial",
    state: { ...throttled(1), mounts: 3 },
    nowMillis: 1_000,
    waiters: [waiter("Mount")],
    expected: admit(0)
  },
  {
    name: "coming back: two at a time",
    state: { ...free, window: 2, current: 2, mounts: 2 },
    waiters: [waiter("Mount")],
    expected: idle
  },
  {
    name: "a class that is to wait does, and others pass it",
    state: holding("ns/slow", 9_000),
    waiters: [waiter("Mount", "ns/slow"), waiter("Due", "ns/quick")],
    expected: admit(1)
  },
  {
    name: "a class that is to wait, alone",
    state: holding("ns/slow", 9_000),
    waiters: [waiter("Mount", "ns/slow")],
    expected: wait(9_000)
  },
  {
    name: "a class whose time has come",
    state: holding("ns/slow", 9_000),
    nowMillis: 9_000,
    waiters: [waiter("Mount", "ns/slow")],
    expected: admit(0)
  },
  {
    name: "whoever is blocked comes back when the held one may",
    state: { ...holding("ns/slow", 9_000), mounts: 3 },
    waiters: [waiter("Mount", "ns/slow"), waiter("Mount", "ns/quick")],
    expected: wait(9_000)
  }
]

describe("who may call a provider", () => {
  it.each(rows)("$name", ({ expected, nowMillis = 0, state = free, waiters, ...row }) =>
    assert.deepStrictEqual(Budget.decide(state, waiters, row.limits ?? limits, nowMillis), expected)
  )
})

describe("a provider that throttles (S11)", () => {
  it.each([
    [1, 1_000],
    [2, 2_000],
    [5, 16_000],
    [6, 30_000],
    [60, 30_000]
  ])("after %d such answers it is tried again in %d ms", (times, expected) =>
    assert.strictEqual(throttled(times).throttle?.openMillis, expected)
  )

  it.each([
    [0, 800],
    [1, 1_200]
  ])("jitter: a random %d makes it %d ms", (random, expected) => {
    const call = { epoch: 0, className: "ns/spc" }
    const told: Budget.Outcome = { _tag: "Throttled", retryAfterMillis: undefined }
    const state = Budget.answered(free, call, told, limits, { nowMillis: 0, random })
    assert.strictEqual(state.throttle?.openMillis, expected)
  })

  it("many calls that were under way together count once", () => {
    const once = throttled(1)
    const again = answer(once, { _tag: "Throttled", retryAfterMillis: undefined }, 500, 0)
    assert.deepStrictEqual(again.throttle, once.throttle)
  })

  it("comes back with two calls at a time, then one more with each answer, then without a bound", () => {
    let state = answer(throttled(3), { _tag: "Answered" })
    assert.isUndefined(state.throttle)
    const windows = [state.window]
    for (let answers = 0; answers < 3; answers++) {
      state = answer(state, { _tag: "Answered" })
      windows.push(state.window)
    }
    assert.deepStrictEqual(windows, [2, 3, 4, Number.POSITIVE_INFINITY])
    // As if nothing had been.
    assert.strictEqual(throttled(1, 0, state).throttle?.openMillis, 1_000)
  })

  it("an answer to an older call says nothing of the present", () => {
    const state = throttled(2)
    assert.strictEqual(answer(state, { _tag: "Answered" }, 0, 0), state)
  })

  it("a trial that was not answered is made again, no later than before", () => {
    const state = answer(throttled(3, 0), { _tag: "Unknown" }, 10_000)
    assert.deepStrictEqual(state.throttle, { times: 3, openMillis: 14_000 })
  })

  it.each([
    ["its time", 300_000, 300_000],
    ["an hour at most", 1e9, 3_600_000]
  ])("a class that is told when to come back waits for %s; the others as for any such answer", (_, told, expected) => {
    const state = answer(free, { _tag: "Throttled", retryAfterMillis: told }, 0)
    assert.deepStrictEqual([...state.holds], [["ns/spc", expected]])
    assert.strictEqual(state.throttle?.openMillis, 1_000)
    // Those that are over are forgotten.
    const call = { epoch: state.epoch, className: "ns/other" }
    const next: Budget.Outcome = { _tag: "Throttled", retryAfterMillis: 1_000 }
    const later = Budget.answered(state, call, next, limits, { nowMillis: expected, random: 0.5 })
    assert.deepStrictEqual([...later.holds.keys()], ["ns/other"])
  })
})

describe("counting", () => {
  it("what begins and ends leaves nothing", () => {
    for (const kind of ["Mount", "Asked", "Due"] as const) {
      const begun = Budget.begun(free, kind, limits, 0)
      assert.strictEqual(begun.mounts + begun.refreshes, 1)
      const ended = Budget.ended(begun, { kind, epoch: 0 })
      assert.deepStrictEqual([ended.mounts, ended.refreshes, ended.current], [0, 0, 0])
    }
  })

  it("who began before the provider throttled is not counted as trying it", () => {
    const begun = Budget.begun(free, "Mount", limits, 0)
    const state = Budget.ended(throttled(1, 0, begun), { kind: "Mount", epoch: 0 })
    assert.deepStrictEqual([state.mounts, state.current], [0, 0])
  })

  it("only a due refresh uses the allowance, and never more than there is", () => {
    assert.strictEqual(Budget.begun(free, "Mount", limits, 0).allowance, 4)
    assert.strictEqual(Budget.begun(free, "Asked", limits, 0).allowance, 4)
    assert.strictEqual(Budget.begun(free, "Due", limits, 0).allowance, 3)
    assert.strictEqual(Budget.begun({ ...free, allowance: 0 }, "Due", limits, 0).allowance, 0)
    // After a pause there are no more than those of a second.
    assert.strictEqual(Budget.begun({ ...free, allowance: 0 }, "Due", limits, 3_600_000).allowance, 3)
  })
})
