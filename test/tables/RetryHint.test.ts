/**
 * What a failing call's trailers say of the time to call again, well-formed or not.
 */
import { assert, describe, it } from "@effect/vitest"
import { Metadata } from "@grpc/grpc-js"
import { Effect, Schema } from "effect"
import { retryAfterMillisOf } from "../../layers/real/RetryHint.ts"
import { RetryInfo, Status } from "../../proto/gen/status.ts"

const DAY_MILLIS = 86_400_000
const RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"

interface Trailers {
  readonly pushback?: ReadonlyArray<string>
  readonly details?: ReadonlyArray<Uint8Array>
}

const hintOf = ({ details = [], pushback = [] }: Trailers): number | undefined => {
  const trailers = new Metadata()
  for (const value of pushback) trailers.add("grpc-retry-pushback-ms", value)
  for (const value of details) trailers.add("grpc-status-details-bin", Buffer.from(value))
  return retryAfterMillisOf(trailers)
}

const delay = (seconds: bigint, nanos = 0) => RetryInfo.encode({ retryDelay: { seconds, nanos } }).finish()
const detail = (value: Uint8Array, typeUrl = RETRY_INFO) => ({ typeUrl, value: Buffer.from(value) })
const status = (...details: ReadonlyArray<ReturnType<typeof detail>>) =>
  Status.encode({ code: 8, message: "quota", details: [...details] }).finish()
const bytes = (...values: ReadonlyArray<number>) => Uint8Array.from(values)

describe("grpc-retry-pushback-ms", () => {
  it.each<{ readonly pushback: ReadonlyArray<string>; readonly expected: number | undefined }>([
    { pushback: [], expected: undefined },
    { pushback: ["0"], expected: 0 },
    { pushback: ["1500"], expected: 1_500 },
    { pushback: ["007"], expected: 7 },
    { pushback: ["86400000"], expected: DAY_MILLIS },
    { pushback: ["86400001"], expected: DAY_MILLIS },
    { pushback: ["9".repeat(400)], expected: DAY_MILLIS },
    { pushback: ["-1"], expected: undefined },
    { pushback: ["+1"], expected: undefined },
    { pushback: ["1.5"], expected: undefined },
    { pushback: ["1e3"], expected: undefined },
    { pushback: ["0x10"], expected: undefined },
    { pushback: ["NaN"], expected: undefined },
    { pushback: ["Infinity"], expected: undefined },
    { pushback: ["soon"], expected: undefined },
    { pushback: [""], expected: undefined },
    { pushback: ["10", "30", "20"], expected: 30 },
    { pushback: ["never", "20"], expected: 20 }
  ])("$pushback: $expected", ({ expected, pushback }) => {
    assert.strictEqual(hintOf({ pushback }), expected)
  })
})

describe("google.rpc.RetryInfo in grpc-status-details-bin", () => {
  const hinted = status(detail(delay(1n, 500_000_000)))

  it.each<{
    readonly name: string
    readonly details: ReadonlyArray<Uint8Array>
    readonly expected: number | undefined
  }>([
    { name: "seconds and nanoseconds", details: [hinted], expected: 1_500 },
    { name: "a nanosecond is a millisecond", details: [status(detail(delay(0n, 1)))], expected: 1 },
    { name: "no time at all", details: [status(detail(delay(0n)))], expected: 0 },
    { name: "a delay of no bytes is zero", details: [status(detail(bytes(0x0a, 0)))], expected: 0 },
    { name: "a day and more", details: [status(detail(delay(86_401n)))], expected: DAY_MILLIS },
    { name: "as long as a Duration can be", details: [status(detail(delay(2n ** 63n - 1n)))], expected: DAY_MILLIS },
    { name: "a negative time", details: [status(detail(delay(-1n)))], expected: undefined },
    { name: "negative nanoseconds", details: [status(detail(delay(1n, -1)))], expected: undefined },
    { name: "more nanoseconds than a second has", details: [status(detail(delay(1n, 1e9)))], expected: undefined },
    { name: "without a delay", details: [status(detail(bytes()))], expected: undefined },
    { name: "no details", details: [status()], expected: undefined },
    { name: "no bytes", details: [bytes()], expected: undefined },
    {
      name: "among others",
      details: [status(detail(bytes(255), "type.googleapis.com/google.rpc.QuotaFailure"), detail(delay(2n)))],
      expected: 2_000
    },
    {
      name: "another server of types",
      details: [status(detail(delay(2n), "example.com/google.rpc.RetryInfo"))],
      expected: 2_000
    },
    { name: "no server of types", details: [status(detail(delay(2n), "google.rpc.RetryInfo"))], expected: 2_000 },
    { name: "another type", details: [status(detail(delay(2n), `${RETRY_INFO}2`))], expected: undefined },
    {
      name: "the longest of several",
      details: [status(detail(delay(1n)), detail(delay(3n))), status(detail(delay(2n)))],
      expected: 3_000
    },
    {
      name: "a broken one does not hide a good one",
      details: [status(detail(bytes(255)), detail(delay(3n)))],
      expected: 3_000
    },
    { name: "nor does a broken status", details: [bytes(255), hinted], expected: 1_500 },
    { name: "a tag of no field", details: [bytes(0)], expected: undefined },
    { name: "a length beyond the end", details: [bytes(0x1a, 0x7f, 1)], expected: undefined },
    { name: "a length beyond all ends", details: [bytes(0x1a, 255, 255, 255, 255, 15)], expected: undefined },
    { name: "a number without an end", details: [bytes(0x08, ...Array<number>(11).fill(255))], expected: undefined },
    { name: "groups in groups", details: [new Uint8Array(4_000).fill(0x23)], expected: undefined },
    { name: "text", details: [new TextEncoder().encode("retry in 5s")], expected: undefined }
  ])("$name: $expected", ({ details, expected }) => {
    assert.strictEqual(hintOf({ details }), expected)
  })

  it("cut off anywhere, it is no failure", () => {
    for (let length = 0; length < hinted.length; length++) {
      assert.include([undefined, 0, 1_000], hintOf({ details: [hinted.slice(0, length)] }), `after ${length} bytes`)
    }
  })

  const Bytes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
  it.effect.prop("whatever the bytes, a hint is from 0 to 24 hours", [Bytes, Bytes], ([first, second]) =>
    Effect.sync(() => {
      const values = [
        bytes(...first),
        status(detail(bytes(...second))),
        status(detail(bytes(0x0a, second.length, ...second)))
      ]
      for (const value of values) {
        const hint = hintOf({ details: [value] }) ?? 0
        assert.isTrue(Number.isInteger(hint) && hint >= 0 && hint <= DAY_MILLIS, String(hint))
      }
    })
  )
})

describe("both", () => {
  it.each([
    { pushback: ["3000"], seconds: 2n, expected: 3_000 },
    { pushback: ["1000"], seconds: 2n, expected: 2_000 },
    { pushback: ["-1"], seconds: 2n, expected: 2_000 },
    { pushback: ["3000"], seconds: -2n, expected: 3_000 }
  ])("the longer of $pushback ms and $seconds s: $expected", ({ expected, pushback, seconds }) => {
    assert.strictEqual(hintOf({ pushback, details: [status(detail(delay(seconds)))] }), expected)
  })
})
