/**
 * Command lines by the rules of Go's `flag` package, as pure functions: what is accepted, what is refused, the words of
 * a refusal and the usage text are Go's. Where Go is brief, a second line says what to do.
 *
 *   -name  --name  -name=value  --name=value  -name value
 *
 * A boolean takes a value only after "="; the last occurrence of a flag wins; parsing stops at "--" and at the first
 * word that is not a flag.
 *
 * @source Go 1.25, flag; klog 2.120 for its own kinds of value; reference/driver.md 1.1, 1.3
 */
import { Result } from "effect"
import { formatGoDuration, parseGoDuration } from "../../schemas/GoDuration.ts"
import { goQuote } from "../../schemas/GoQuote.ts"
import { parseQuantityBytes } from "../../schemas/Quantity.ts"

export interface Flag<A> {
  readonly name: string
  /** As the usage text shows it; empty for a boolean. */
  readonly typeName: string
  readonly defaultValue: A
  /** As the usage text shows it; empty where Go shows none. */
  readonly defaultText: string
  readonly usage: string
  /** A failure is the end of Go's error line. */
  readonly parse: (text: string) => Result.Result<A, string>
  /** What a value has to look like. */
  readonly expects: string
}

const PARSE_ERROR = "parse error"
const OUT_OF_RANGE = "value out of range"

const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...["1", "t", "T", "true", "TRUE", "True"].map((text) => [text, true] as const),
  ...["0", "f", "F", "false", "FALSE", "False"].map((text) => [text, false] as const)
])

export const bool = (name: string, defaultValue: boolean, usage: string): Flag<boolean> => ({
  name,
  typeName: "",
  defaultValue,
  defaultText: defaultValue ? "true" : "",
  usage,
  parse: (text) => {
    const value = BOOLEANS.get(text)
    return value === undefined ? Result.fail(PARSE_ERROR) : Result.succeed(value)
  },
  expects: "true or false, after an equals sign"
})

export const string = (name: string, defaultValue: string, usage: string): Flag<string> => ({
  name,
  typeName: "string",
  defaultValue,
  defaultText: defaultValue === "" ? "" : goQuote(defaultValue),
  usage,
  parse: Result.succeed,
  expects: "a text"
})

/** Underscores may stand between digits, and between a prefix and its digits. */
const INTEGER = /^[+-]?(?:0[xX](?:_?[\da-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*|[1-9](?:_?\d)*)$/u

const integerWithin =
  (min: bigint, max: bigint) =>
  (text: string): Result.Result<bigint, string> => {
    if (!INTEGER.test(text) || (min === 0n && /^[+-]/u.test(text))) return Result.fail(PARSE_ERROR)
    const digits = text.replace(/^[+-]/u, "").replaceAll("_", "")
    const magnitude = BigInt(/^0\d/u.test(digits) ? `0o${digits.slice(1)}` : digits)
    const value = text.startsWith("-") ? -magnitude : magnitude
    return value < min || value > max ? Result.fail(OUT_OF_RANGE) : Result.succeed(value)
  }

/** The nearest number that JavaScript counts exactly. */
const toSafeInteger = (value: bigint): number =>
  Math.max(Number.MIN_SAFE_INTEGER, Math.min(Number(value), Number.MAX_SAFE_INTEGER))

/** 64 bits are accepted; what does not fit a double becomes the largest or smallest safe integer. */
export const int = (name: string, defaultValue: number, usage: string): Flag<number> => ({
  name,
  typeName: "int",
  defaultValue,
  defaultText: defaultValue === 0 ? "" : `${defaultValue}`,
  usage,
  parse: (text) => Result.map(integerWithin(-(2n ** 63n), 2n ** 63n - 1n)(text), toSafeInteger),
  expects: "a whole number"
})

export const uint = (name: string, defaultValue: number, usage: string): Flag<number> => ({
  ...int(name, defaultValue, usage),
  typeName: "uint",
  parse: (text) => Result.map(integerWithin(0n, 2n ** 64n - 1n)(text), toSafeInteger),
  expects: "a whole number that is not negative"
})

/** In nanoseconds; the default is given in milliseconds. */
export const duration = (name: string, defaultMillis: number, usage: string): Flag<bigint> => {
  const defaultValue = BigInt(defaultMillis) * 1_000_000n
  return {
    name,
    typeName: "duration",
    defaultValue,
    defaultText: defaultValue === 0n ? "" : formatGoDuration(defaultValue),
    usage,
    parse: (text) => Result.mapError(parseGoDuration(text), () => PARSE_ERROR),
    expects: "a duration with its unit, such as 2m0s, 90s or 500ms"
  }
}

/** In bytes; undefined for an empty text. */
export const quantity = (name: string, usage: string): Flag<number | undefined> => ({
  name,
  typeName: "quantity",
  defaultValue: undefined,
  defaultText: "",
  usage,
  parse: (text) => (text === "" ? Result.succeed(undefined) : parseQuantityBytes(text)),
  expects: "bytes or a Kubernetes quantity, such as 64Mi"
})

/** Base ten and 32 bits, with strconv's own error text. */
const parseInt32 = (text: string): Result.Result<number, string> => {
  const refuse = (why: string) => Result.fail(`strconv.ParseInt: parsing ${goQuote(text)}: ${why}`)
  if (!/^[+-]?\d+$/u.test(text)) return refuse("invalid syntax")
  const value = BigInt(text.replace(/^\+/u, ""))
  return value < -(2n ** 31n) || value >= 2n ** 31n ? refuse(OUT_OF_RANGE) : Result.succeed(Number(value))
}

/** klog's -v. */
export const klogLevel = (name: string, usage: string): Flag<number> => ({
  name,
  typeName: "value",
  defaultValue: 0,
  defaultText: "",
  usage,
  parse: parseInt32,
  expects: "a decimal number"
})

const SEVERITIES = ["INFO", "WARNING", "ERROR", "FATAL"]

/** klog's -stderrthreshold. */
export const klogSeverity = (name: string, defaultValue: number, usage: string): Flag<number> => ({
  name,
  typeName: "value",
  defaultValue,
  defaultText: `${defaultValue}`,
  usage,
  parse: (text) => {
    const named = SEVERITIES.indexOf(text.toUpperCase())
    return named >= 0 ? Result.succeed(named) : parseInt32(text)
  },
  expects: "INFO, WARNING, ERROR, FATAL, or a number"
})

/** klog's -vmodule. */
export const klogModules = (name: string, usage: string): Flag<string> => ({
  name,
  typeName: "value",
  defaultValue: "",
  defaultText: "",
  usage,
  parse: (text) => {
    for (const item of text.split(",")) {
      // As in klog: an empty item ends nothing, and a level of nought needs no entry.
      if (item === "") continue
      const [pattern = "", level = "", ...more] = item.split("=")
      if (pattern === "" || level === "" || more.length > 0) {
        return Result.fail("syntax error: expect comma-separated list of filename=N")
      }
      const number = parseInt32(level)
      if (Result.isFailure(number)) return Result.fail("syntax error: expect comma-separated list of filename=N")
      if (number.success < 0) return Result.fail("negative value for vmodule level")
    }
    return Result.succeed(text)
  },
  expects: "a list such as driver=4,node*=5"
})

/** klog's -log_backtrace_at. */
export const klogTraceLocation = (name: string, usage: string): Flag<string> => ({
  name,
  typeName: "value",
  defaultValue: "",
  defaultText: "",
  usage,
  parse: (text) => {
    if (text === "") return Result.succeed(text)
    const [file = "", line = "", ...more] = text.split(":")
    if (more.length > 0 || !file.includes(".") || line === "") {
      return Result.fail("syntax error: expect file.go:234")
    }
    if (!/^[+-]?\d+$/u.test(line)) return Result.fail(`strconv.Atoi: parsing ${goQuote(line)}: invalid syntax`)
    return Number(line) <= 0 ? Result.fail("negative or zero value for level") : Result.succeed(text)
  },
  expects: "a file and a line, such as driver.go:234"
})

export type Parsed =
  | {
      readonly _tag: "Parsed"
      /** The flag's last value, or its default. */
      readonly valueOf: <A>(flag: Flag<A>) => A
      readonly operands: ReadonlyArray<string>
    }
  | { readonly _tag: "Help" }
  | {
      readonly _tag: "Refused"
      /** Go's line. */
      readonly message: string
      readonly remedy: string
    }

/**
 * Reads the words after the program's name.
 *
 * @shape  (flags, words, remedies of flags that no longer exist) -> Parsed
 * @errors Refused, for what Go's package refuses
 */
export const parse = (
  flags: ReadonlyArray<Flag<unknown>>,
  words: ReadonlyArray<string>,
  removed: ReadonlyMap<string, string> = new Map()
): Parsed => {
  const known = new Map(flags.map((flag) => [flag.name, flag]))
  const texts = new Map<string, string>()
  let index = 0
  for (; index < words.length; index++) {
    const word = words[index] ?? ""
    if (word.length < 2 || !word.startsWith("-")) break
    if (word === "--") {
      index++
      break
    }
    const body = word.slice(word.startsWith("--") ? 2 : 1)
    if (/^(?:$|[-=])/u.test(body)) {
      return { _tag: "Refused", message: `bad flag syntax: ${word}`, remedy: "write a flag as -name or -name=value" }
    }
    const [, name = body, given] = /^([^=]+)=(.*)$/su.exec(body) ?? []
    const flag = known.get(name)
    if (flag === undefined) {
      if (name === "help" || name === "h") return { _tag: "Help" }
      return {
        _tag: "Refused",
        message: `flag provided but not defined: -${name}`,
        remedy: removed.get(name) ?? `correct or remove -${name}; the flags are listed below`
      }
    }
    const isBoolean = flag.typeName === ""
    const text = given ?? (isBoolean ? "true" : words[++index])
    if (text === undefined) {
      return {
        _tag: "Refused",
        message: `flag needs an argument: -${name}`,
        remedy: `give -${name} ${flag.expects}`
      }
    }
    const value = flag.parse(text)
    if (Result.isFailure(value)) {
      return {
        _tag: "Refused",
        message: isBoolean
          ? `invalid boolean value ${goQuote(text)} for -${name}: ${value.failure}`
          : `invalid value ${goQuote(text)} for flag -${name}: ${value.failure}`,
        remedy: `give -${name} ${flag.expects}, instead of ${goQuote(text)}`
      }
    }
    texts.set(name, text)
  }
  return {
    _tag: "Parsed",
    valueOf: (flag) => {
      const text = texts.get(flag.name)
      return text === undefined ? flag.defaultValue : Result.getOrElse(flag.parse(text), () => flag.defaultValue)
    },
    operands: words.slice(index)
  }
}

/**
 * What `-h` prints.
 *
 * @shape  (program, flags) -> text, ending with a new line; flags in the order of their names
 * @errors none
 * @source Go 1.25, flag.PrintDefaults
 */
export const usage = (program: string, flags: ReadonlyArray<Flag<unknown>>): string => {
  const lines = [...flags]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((flag) => {
      const head = flag.typeName === "" ? `  -${flag.name}` : `  -${flag.name} ${flag.typeName}`
      const gap = head.length <= 4 ? "\t" : "\n    \t"
      const ending = flag.defaultText === "" ? "" : ` (default ${flag.defaultText})`
      return `${head}${gap}${flag.usage.replaceAll("\n", "\n    \t")}${ending}\n`
    })
  return `Usage of ${program}:\n${lines.join("")}`
}
