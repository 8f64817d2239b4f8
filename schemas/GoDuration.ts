/**
 * Durations in Go's notation ("2m0s", "1h30m", "1.5s"), read and written as Go's `time` package does it: the same texts
 * are accepted, with the same rounding, the same bounds and the same errors.
 *
 * @source Go 1.25, time.ParseDuration and Duration.String; reference/driver.md 1.1
 */
import { Result } from "effect"

const NANOS_MAX = 2n ** 63n
const NANOS: ReadonlyMap<string, bigint> = new Map([
  ["ns", 1n],
  ["us", 1_000n],
  ["µs", 1_000n],
  ["μs", 1_000n],
  ["ms", 1_000_000n],
  ["s", 1_000_000_000n],
  ["m", 60_000_000_000n],
  ["h", 3_600_000_000_000n]
])

/** As `time` quotes in its errors: every byte outside printable ASCII is written by its number. */
const quote = (text: string): string => {
  const bytes = [...new TextEncoder().encode(text)].map((byte) => {
    if (byte < 0x20 || byte >= 0x80) return `\\x${byte.toString(16).padStart(2, "0")}`
    const character = String.fromCharCode(byte)
    return character === '"' || character === "\\" ? `\\${character}` : character
  })
  return `"${bytes.join("")}"`
}

/** Digits after the point, as a numerator and its power of ten. Digits that no longer fit are dropped. */
const fraction = (digits: string): { readonly numerator: bigint; readonly scale: number } => {
  let numerator = 0n
  let scale = 1
  for (const digit of digits) {
    if (numerator > (NANOS_MAX - 1n) / 10n) break
    const next = numerator * 10n + BigInt(digit)
    if (next > NANOS_MAX) break
    numerator = next
    scale *= 10
  }
  return { numerator, scale }
}

/** A number, and whatever stands between it and the next number. */
const PART = /^(\d*)(?:\.(\d*))?([^.\d]*)/u

/**
 * Reads a duration.
 *
 * @shape  (text) -> nanoseconds, or Go's error text
 * @units  nanoseconds, within 64 bits
 * @errors `time: invalid duration "x"`, `time: missing unit in duration "30"`, `time: unknown unit "d" in duration "1d"`
 */
export const parseGoDuration = (text: string): Result.Result<bigint, string> => {
  const invalid = Result.fail(`time: invalid duration ${quote(text)}`)
  const unsigned = text.replace(/^[+-]/u, "")
  if (unsigned === "0") return Result.succeed(0n)
  if (unsigned === "") return invalid
  let total = 0n
  for (let rest = unsigned; rest !== ""; ) {
    const [part = "", whole = "", decimals = "", unit = ""] = PART.exec(rest) ?? []
    if (whole === "" && decimals === "") return invalid
    if (BigInt(whole) > NANOS_MAX) return invalid
    if (unit === "") return Result.fail(`time: missing unit in duration ${quote(text)}`)
    const nanos = NANOS.get(unit)
    if (nanos === undefined) return Result.fail(`time: unknown unit ${quote(unit)} in duration ${quote(text)}`)
    const { numerator, scale } = fraction(decimals)
    total += BigInt(whole) * nanos + BigInt(Math.trunc(Number(numerator) * (Number(nanos) / scale)))
    if (total > NANOS_MAX) return invalid
    rest = rest.slice(part.length)
  }
  if (text.startsWith("-")) return Result.succeed(-total)
  return total === NANOS_MAX ? invalid : Result.succeed(total)
}

/** `count / unit` without trailing zeros; `decimals` is the number of digits in `unit` after its 1. */
const decimal = (count: bigint, decimals: number): string => {
  const unit = 10n ** BigInt(decimals)
  const after = (count % unit).toString().padStart(decimals, "0").replace(/0+$/u, "")
  return after === "" ? `${count / unit}` : `${count / unit}.${after}`
}

/**
 * Writes a duration: hours, minutes and seconds from one second on, the largest fitting unit below it.
 *
 * @shape  (nanoseconds) -> text that `parseGoDuration` reads back to the same number
 * @errors none
 */
export const formatGoDuration = (nanos: bigint): string => {
  if (nanos === 0n) return "0s"
  if (nanos < 0n) return `-${formatGoDuration(-nanos)}`
  if (nanos < 1_000n) return `${nanos}ns`
  if (nanos < 1_000_000n) return `${decimal(nanos, 3)}µs`
  if (nanos < 1_000_000_000n) return `${decimal(nanos, 6)}ms`
  const minutes = nanos / 60_000_000_000n
  const seconds = `${decimal(nanos % 60_000_000_000n, 9)}s`
  if (minutes === 0n) return seconds
  return minutes < 60n ? `${minutes}m${seconds}` : `${minutes / 60n}h${minutes % 60n}m${seconds}`
}
