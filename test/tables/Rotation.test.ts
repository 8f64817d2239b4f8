import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import {
  afterFailure,
  afterSuccess,
  askNow,
  begin,
  formatInterval,
  type Interval,
  intervalOf,
  isDue,
  parseInterval,
  reschedule,
  type Schedule,
  withTokens
} from "../../src/volume/Rotation.ts"

const MINUTE = 60_000
const NEVER = Number.POSITIVE_INFINITY
const every = (millis: number): Interval => ({ _tag: "Every", millis })
const frozen: Interval = { _tag: "Frozen" }

describe("an interval as users write it", () => {
  it.each([
    ["2m", every(2 * MINUTE)],
    ["1h30m", every(90 * MINUTE)],
    [" 90s ", every(90_000)],
    ["500ms", every(1_000)],
    ["1ns", every(1_000)],
    ["0", frozen],
    ["0s", frozen],
    ["never", frozen],
    ["Never", frozen]
  ] as const)("%s", (text, expected) => {
    assert.deepStrictEqual(parseInterval(text), Result.succeed(expected))
  })

  it.each(["", "5", "-1m", "two minutes", "1d"])("%s is refused, with what to write", (text) => {
    const refused = parseInterval(text)
    assert.isTrue(Result.isFailure(refused))
    if (Result.isFailure(refused)) assert.match(refused.failure, /rotation-interval ".*": give a duration such as 90s/u)
  })

  it.each([
    [every(2 * MINUTE), "2m0s"],
    [frozen, "never"]
  ] as const)("is shown as Go shows it", (interval, text) => assert.strictEqual(formatInterval(interval), text))
})

describe("whose interval counts", () => {
  it.each([
    { name: "nobody's: the driver's", expected: every(2 * MINUTE) },
    { name: "the volume's, longer than the driver's", volume: "1h", expected: every(60 * MINUTE) },
    { name: "the volume's, shorter than the kubelet's republish", volume: "5s", expected: every(5_000) },
    { name: "the class's", ofClass: "24h", expected: every(1_440 * MINUTE) },
    { name: "the shorter of both: the volume's", volume: "10s", ofClass: "1h", expected: every(10_000) },
    { name: "the shorter of both: the class's", volume: "1h", ofClass: "10s", expected: every(10_000) },
    { name: "frozen by the volume", volume: "never", ofClass: "10s", expected: frozen },
    { name: "frozen by the class", volume: "10s", ofClass: "0", expected: frozen },
    { name: "unreadable: as if not given", volume: "soon", ofClass: "10s", expected: every(10_000), complaints: 1 },
    { name: "both unreadable", volume: "soon", ofClass: "later", expected: every(2 * MINUTE), complaints: 2 }
  ])("$name", ({ complaints = 0, expected, ofClass, volume }) => {
    const found = intervalOf({ driverMillis: 2 * MINUTE, volume, secretProviderClass: ofClass })
    assert.deepStrictEqual(found.interval, expected)
    assert.strictEqual(found.complaints.length, complaints)
  })
})

const dueAt = (dueMillis: number): Schedule => ({
  interval: every(120_000),
  dueMillis,
  setMillis: 0,
  failures: 0,
  asked: false,
  awaitsTokens: false
})

describe("when a volume is due", () => {
  it("first an interval after its mount, and up to a tenth later, by its path", () => {
    const dues = Array.from(
      { length: 110 },
      (_, index) => begin(every(120_000), `/pods/${index}/mount`, 1_000).dueMillis
    )
    assert.isTrue(dues.every((due) => due >= 121_000 && due <= 133_000))
    // Spread over the whole tenth, not in one corner.
    const quarters = new Set(dues.map((due) => Math.floor((due - 121_000) / 3_000)))
    assert.isAtLeast(quarters.size, 4)
    assert.isAtLeast(new Set(dues).size, 100)
    assert.deepStrictEqual(begin(every(120_000), "/a", 5), begin(every(120_000), "/a", 5))
  })

  it("then an interval after every success, exactly", () => {
    assert.deepStrictEqual(afterSuccess(every(120_000), 7), {
      interval: every(120_000),
      dueMillis: 120_007,
      setMillis: 7,
      failures: 0,
      asked: false,
      awaitsTokens: false
    })
  })

  it.each([
    [119_999, false],
    [120_000, true],
    [120_001, true]
  ])("of 120000 at %d: %s", (now, expected) => assert.strictEqual(isDue(dueAt(120_000), now), expected))

  it("never, when it is frozen", () => {
    assert.strictEqual(begin(frozen, "/a", 5).dueMillis, NEVER)
    assert.strictEqual(afterSuccess(frozen, 5).dueMillis, NEVER)
    assert.strictEqual(
      afterFailure(afterSuccess(frozen, 5), { nowMillis: 9, random: 0.5, hintMillis: 10, isThrottled: false })
        .dueMillis,
      NEVER
    )
    assert.isFalse(isDue(dueAt(NEVER), Number.MAX_SAFE_INTEGER))
  })
})

describe("after failures", () => {
  const failing = (
    failures: number,
    random: number,
    interval = every(120_000),
    hintMillis?: number,
    isThrottled = false
  ) => afterFailure({ ...dueAt(0), interval, failures }, { nowMillis: 1_000_000, random, hintMillis, isThrottled })

  it.each([
    [0, 5_000],
    [1, 10_000],
    [2, 20_000],
    [3, 40_000],
    [4, 80_000],
    // Never later than the interval.
    [5, 120_000],
    [60, 120_000]
  ])("the %d-th before it: %d ms", (failures, expected) => {
    const { dueMillis, failures: now } = failing(failures, 0.5)
    assert.strictEqual(dueMillis - 1_000_000, expected)
    assert.strictEqual(now, failures + 1)
  })

  it.each([0, 1, 3])("because of a provider that throttles: soon, and as many as before, %d", (failures) => {
    const next = failing(failures, 0.5, every(120_000), undefined, true)
    assert.deepStrictEqual([next.dueMillis - 1_000_000, next.failures], [5_000, failures])
  })

  it.each([
    [0, 4_000],
    [1, 6_000]
  ])("jitter: a random %d makes it %d ms", (random, expected) =>
    assert.strictEqual(failing(0, random).dueMillis - 1_000_000, expected)
  )

  it("not beyond a short interval, jitter included", () => {
    for (const random of [0, 0.5, 1]) assert.isAtMost(failing(3, random, every(5_000)).dueMillis, 1_005_000)
  })

  it.each([
    ["a shorter one changes nothing", 1_000, 5_000],
    ["a longer one is kept to", 90_000, 90_000],
    ["also beyond the interval", 300_000, 300_000],
    ["up to an hour", 1e9, 3_600_000]
  ])("the provider's hint: %s", (_, hint, expected) =>
    assert.strictEqual(failing(0, 0.5, every(120_000), hint).dueMillis - 1_000_000, expected)
  )
})

describe("a changed interval", () => {
  const at = { lastSuccessMillis: 1_000_000, nowMillis: 1_050_000 }
  const waiting = afterSuccess(every(120_000), 1_000_000)
  it.each([
    { name: "the same: nothing changes", from: waiting, to: every(120_000), due: 1_120_000 },
    { name: "longer: counted from the last success", from: waiting, to: every(3_600_000), due: 4_600_000 },
    { name: "shorter, and over: at once", from: waiting, to: every(10_000), due: 1_010_000 },
    { name: "frozen", from: waiting, to: frozen, due: NEVER },
    { name: "thawed", from: afterSuccess(frozen, 1_000_000), to: every(60_000), due: 1_060_000 },
    {
      name: "in backoff: not later than it was",
      from: { ...dueAt(1_060_000), interval: every(120_000), failures: 2 },
      to: every(3_600_000),
      due: 1_060_000
    },
    {
      name: "in backoff: not later than the new one",
      from: { ...dueAt(1_160_000), interval: every(120_000), failures: 5 },
      to: every(5_000),
      due: 1_055_000
    }
  ])("$name", ({ due, from, to }) => assert.strictEqual(reschedule(from, to, at).dueMillis, due))
})

describe("a refresh that was asked for", () => {
  const hourly = afterSuccess(every(3_600_000), 0)

  it("is due at once, also when the volume is frozen or in backoff", () => {
    for (const schedule of [hourly, afterSuccess(frozen, 0), { ...dueAt(900_000), failures: 7 }]) {
      assert.isTrue(isDue(askNow(schedule, 1_000), 1_000))
    }
    assert.strictEqual(askNow(dueAt(10), 1_000).dueMillis, 10)
  })

  it.each([
    [0, 5_000],
    [2, 20_000],
    [9, 120_000]
  ])("of a frozen volume is tried until it succeeds: after %d failures in %d ms", (failures, expected) => {
    const asked = { ...askNow(afterSuccess(frozen, 0), 0), failures }
    const next = afterFailure(asked, { nowMillis: 0, random: 0.5, hintMillis: undefined, isThrottled: false })
    assert.deepStrictEqual([next.dueMillis, next.asked], [expected, true])
    assert.strictEqual(afterSuccess(frozen, 9).dueMillis, NEVER)
  })

  it("is not put off by an interval that changes meanwhile", () => {
    const asked = askNow(hourly, 1_000)
    const { dueMillis, interval } = reschedule(asked, frozen, { lastSuccessMillis: 0, nowMillis: 2_000 })
    assert.deepStrictEqual([dueMillis, interval], [1_000, frozen])
  })

  it("is over with the next success", () => assert.isFalse(afterSuccess(every(1_000), 5).asked))
})

describe("without good tokens", () => {
  const waiting = withTokens(dueAt(1_000), true)
  it("a volume is not due, and is due at once when they come", () => {
    assert.isFalse(isDue(waiting, 1e12))
    assert.isTrue(isDue(withTokens(waiting, false), 1_000))
    assert.isFalse(isDue(withTokens(waiting, false), 999))
  })
  it("what does not change stays the same", () => assert.strictEqual(withTokens(waiting, true), waiting))
})

describe("F3 37 a clock that was set back", () => {
  const schedule = afterSuccess(every(120_000), 10_000_000)
  it.each([
    ["by less than a minute: waits", 9_940_000, false],
    ["by more: due", 9_939_999, true],
    ["not at all: waits", 10_119_999, false]
  ])("%s", (_, now, expected) => assert.strictEqual(isDue(schedule, now), expected))
  it("thaws nothing", () => assert.isFalse(isDue(afterSuccess(frozen, 10_000_000), 0)))
})
