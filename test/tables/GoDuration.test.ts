import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { formatGoDuration, parseGoDuration } from "../../schemas/GoDuration.ts"
import { goQuote } from "../../schemas/GoQuote.ts"

// Every row was also given to Go's own time package.
describe("Go durations", () => {
  it.each([
    ["0", 0n, "0s"],
    ["-0", 0n, "0s"],
    ["+0", 0n, "0s"],
    ["2m", 120_000_000_000n, "2m0s"],
    ["90s", 90_000_000_000n, "1m30s"],
    ["1h30m", 5_400_000_000_000n, "1h30m0s"],
    ["500ms", 500_000_000n, "500ms"],
    ["-1h", -3_600_000_000_000n, "-1h0m0s"],
    ["1.5s", 1_500_000_000n, "1.5s"],
    [".5s", 500_000_000n, "500ms"],
    ["1.s", 1_000_000_000n, "1s"],
    ["1µs", 1_000n, "1µs"],
    ["1μs", 1_000n, "1µs"],
    ["1us", 1_000n, "1µs"],
    ["1500ns", 1_500n, "1.5µs"],
    ["1500000ns", 1_500_000n, "1.5ms"],
    ["1h1h", 7_200_000_000_000n, "2h0m0s"],
    ["3600s", 3_600_000_000_000n, "1h0m0s"],
    ["1.0000001s", 1_000_000_100n, "1.0000001s"],
    ["1.00000000000000000001ns", 1n, "1ns"],
    ["0.3333333333333333333h", 1_200_000_000_000n, "20m0s"],
    ["0.9223372036854775808h", 3_320_413_933_267n, "55m20.413933267s"],
    ["0.100000000000000000000h", 360_000_000_000n, "6m0s"],
    ["9223372036854775807ns", 9_223_372_036_854_775_807n, "2562047h47m16.854775807s"],
    ["2562047h47m16.854775807s", 9_223_372_036_854_775_807n, "2562047h47m16.854775807s"],
    ["-9223372036854775808ns", -9_223_372_036_854_775_808n, "-2562047h47m16.854775808s"]
  ] as const)("1.1 %s is %s ns and written %s", (text, nanos, written) => {
    assert.deepStrictEqual(parseGoDuration(text), Result.succeed(nanos))
    assert.strictEqual(formatGoDuration(nanos), written)
  })

  it.each([
    ["30", 'time: missing unit in duration "30"'],
    ["3ms4", 'time: missing unit in duration "3ms4"'],
    ["", 'time: invalid duration ""'],
    ["-", 'time: invalid duration "-"'],
    ["+", 'time: invalid duration "+"'],
    [".", 'time: invalid duration "."'],
    [".s", 'time: invalid duration ".s"'],
    ["s", 'time: invalid duration "s"'],
    ["1d", 'time: unknown unit "d" in duration "1d"'],
    ["1 s", 'time: unknown unit " s" in duration "1 s"'],
    ["1e3s", 'time: unknown unit "e" in duration "1e3s"'],
    ["1m\n", 'time: unknown unit "m\\x0a" in duration "1m\\x0a"'],
    ['a"\\\n\u0001é', 'time: invalid duration "a\\"\\\\\\x0a\\x01\\xc3\\xa9"'],
    ["9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'],
    ["-9223372036854775809ns", 'time: invalid duration "-9223372036854775809ns"'],
    ["2562047h47m16.854775808s", 'time: invalid duration "2562047h47m16.854775808s"'],
    ["100000000000000000000s", 'time: invalid duration "100000000000000000000s"']
  ] as const)("1.1 %j is refused", (text, message) => {
    assert.deepStrictEqual(parseGoDuration(text), Result.fail(message))
  })

  it.effect.prop(
    "1.1 every number of nanoseconds survives its notation",
    [Schema.Int, Schema.Int.check(Schema.isBetween({ minimum: -1000, maximum: 1000 }))],
    ([whole, factor]) =>
      Effect.sync(() => {
        const nanos = BigInt(whole) * BigInt(factor)
        assert.deepStrictEqual(parseGoDuration(formatGoDuration(nanos)), Result.succeed(nanos))
      }),
    { arbitrary: { runs: 300 } }
  )

  it.effect.prop("1.1 any text is read or refused, never thrown at", [Schema.String], ([text]) =>
    Effect.sync(() => {
      const parsed = parseGoDuration(text)
      if (Result.isFailure(parsed)) assert.match(parsed.failure, /^time: (?:invalid|missing unit in|unknown unit)/u)
    })
  )
})

describe("Go quotation", () => {
  it("1.4 escapes as strconv.Quote does", () => {
    assert.strictEqual(
      goQuote('a"b\\\n\u0000\u007fé\u200b😀\ufeff\t\v\u0007\b\f\u00a0\ue000\u{10ffff}'),
      '"a\\"b\\\\\\n\\x00\\x7fé\\u200b😀\\ufeff\\t\\v\\a\\b\\f\\u00a0\\ue000\\U0010ffff"'
    )
    assert.strictEqual(goQuote("plain words = 1"), '"plain words = 1"')
    assert.strictEqual(goQuote("\ud800"), '"\ufffd"')
  })
})
