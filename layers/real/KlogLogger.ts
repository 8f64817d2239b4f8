/**
 * Log lines as klog writes them, in its text and its JSON form, to stderr.
 *
 *   I1123 14:35:35.123456    4711 driver.ts:0] "words" err="what failed" key="value"
 *   {"level":"info","timestamp":"...","caller":"driver.ts:0","message":"words","key":"value","error":"what failed"}
 *
 * Each line is one synchronous write, so nothing is held in memory and nothing is lost when the process ends. Redacted
 * values and bytes are never shown. Texts, lists and nesting are cut at generous limits.
 *
 * @source reference/driver.md 1.4
 */
import { writeSync } from "node:fs"
import { type Cause, Clock, Effect, Layer, Logger, type LogLevel, Predicate, Redacted, References } from "effect"
import { goQuote } from "../../schemas/GoQuote.ts"
import { LogLevel as LogLevelPort } from "../../src/ports/LogLevel.ts"
import {
  CALLER_KEY,
  ChangingVerbosity,
  DEFAULT_CALLER,
  LineVerbosity,
  Verbosity,
  verbosityOf
} from "../../src/telemetry/Log.ts"
import { LogKeys } from "../../src/telemetry/LogKeys.ts"

const TEXT_LENGTH_MAX = 32 * 1024
const ITEMS_MAX = 256
const DEPTH_MAX = 8
/** From here on, errors come with their stack. */
const STACK_VERBOSITY = 6

type Plain = string | number | boolean | null | ReadonlyArray<Plain> | { readonly [key: string]: Plain }

const cut = (text: string): string =>
  text.length <= TEXT_LENGTH_MAX
    ? text
    : `${text.slice(0, TEXT_LENGTH_MAX)}... (${text.length - TEXT_LENGTH_MAX} more characters)`

/** A message and the messages of its causes, without those that it already repeats. */
const messages = (error: Error, depth = 0): string => {
  const { cause } = error
  const message = error.message === "" ? error.name : error.message
  const reason =
    depth >= DEPTH_MAX || cause === undefined
      ? ""
      : cause instanceof Error
        ? messages(cause, depth + 1)
        : Predicate.isString(cause)
          ? cause
          : ""
  return reason === "" || message.includes(reason) ? message : `${message}: ${reason}`
}

const errorText = (error: unknown, withStack: boolean): string => {
  if (!(error instanceof Error)) {
    const shown = plain(error)
    return Predicate.isString(shown) ? shown : JSON.stringify(shown)
  }
  const text = messages(error)
  return withStack && error.stack !== undefined ? `${text}\n${error.stack}` : text
}

const record = (entries: Iterable<readonly [unknown, unknown]>, depth: number): Plain =>
  Object.fromEntries(
    Array.from(entries)
      .slice(0, ITEMS_MAX)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => [String(key), plain(value, depth + 1)])
  )

/** What may be shown of a value, as JSON. */
const plain = (value: unknown, depth = 0): Plain => {
  if (Redacted.isRedacted(value)) return "<redacted>"
  if (Predicate.isString(value)) return cut(value)
  if (Predicate.isNumber(value)) return Number.isFinite(value) ? value : String(value)
  if (Predicate.isBoolean(value)) return value
  if (value === null || value === undefined) return null
  if (!Predicate.isObjectKeyword(value)) return String(value)
  if (typeof value === "function") return "<function>"
  if (value instanceof Error) return cut(messages(value))
  if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) return `<${value.byteLength} bytes>`
  if (depth >= DEPTH_MAX) return "..."
  if (value instanceof Map) return record(value, depth)
  if (Array.isArray(value) || value instanceof Set) {
    return Array.from(value)
      .slice(0, ITEMS_MAX)
      .map((item) => plain(item, depth + 1))
  }
  if (Predicate.hasProperty(value, "toJSON") && typeof value.toJSON === "function") {
    return plain(value.toJSON(), depth + 1)
  }
  return record(Object.entries(value), depth)
}

interface Line {
  readonly isError: boolean
  /** Of the JSON format. */
  readonly level: string
  readonly nanos: bigint
  readonly caller: string
  readonly message: string
  readonly error: string | undefined
  readonly fields: ReadonlyArray<readonly [key: string, value: Plain]>
}

/** The level that a line of some verbosity has in the JSON format. */
const levelOf = (logLevel: LogLevel.LogLevel, verbosity: number): string => {
  if (logLevel === "Error" || logLevel === "Fatal") return "error"
  if (logLevel === "Debug") return "debug"
  if (logLevel === "Trace") return "trace"
  if (verbosity >= 8) return "all"
  if (verbosity >= 6) return "trace"
  return verbosity >= 4 || verbosity === 1 ? "debug" : "info"
}

const isFields = (part: unknown): part is object =>
  Predicate.isObject(part) &&
  !(part instanceof Error) &&
  !(part instanceof Map) &&
  !(part instanceof Set) &&
  !Redacted.isRedacted(part)

const reasonText = (reason: Cause.Reason<unknown>, withStack: boolean): string => {
  if (reason._tag === "Interrupt") return "interrupted"
  if (reason._tag === "Fail") return errorText(reason.error, withStack)
  const { defect } = reason
  return defect instanceof Error ? `${defect.name}: ${errorText(defect, withStack)}` : errorText(defect, withStack)
}

/** Takes a log call apart. Later fields win over earlier ones and over annotations. */
const lineOf = ({ cause, fiber, logLevel, message }: Logger.Options<unknown>): Line => {
  const withStack = verbosityOf(fiber) >= STACK_VERBOSITY
  const parts: ReadonlyArray<unknown> = Array.isArray(message) ? message : [message]
  const fields = new Map<string, unknown>(Object.entries(fiber.getRef(References.CurrentLogAnnotations)))
  for (const part of parts.filter(isFields)) {
    for (const [key, value] of Object.entries(part)) fields.set(key, value)
  }
  const errors = [
    ...cause.reasons.map((reason) => reasonText(reason, withStack)),
    ...parts.filter(Predicate.isError).map((error) => errorText(error, withStack))
  ]
  const named = fields.get(LogKeys.error)
  if (named !== undefined) errors.push(errorText(named, withStack))
  const caller = fields.get(CALLER_KEY)
  fields.delete(LogKeys.error)
  fields.delete(CALLER_KEY)
  const words = parts.filter((part) => !isFields(part) && !Predicate.isError(part)).map((part) => plain(part))
  return {
    isError: logLevel === "Error" || logLevel === "Fatal",
    level: levelOf(logLevel, fiber.getRef(LineVerbosity)),
    nanos: fiber.getRef(Clock.Clock).currentTimeNanosUnsafe(),
    caller: Predicate.isString(caller) ? caller : DEFAULT_CALLER,
    message: words.map((word) => (Predicate.isString(word) ? word : JSON.stringify(word))).join(" "),
    error: errors.length === 0 ? undefined : cut([...new Set(errors)].join("; ")),
    fields: [...fields].filter(([, value]) => value !== undefined).map(([key, value]) => [key, plain(value)])
  }
}

const digits = (value: number | bigint, width: number): string => value.toString().padStart(width, "0")

/** Month, day and time of day where the process runs, as klog has it. */
const stamp = (nanos: bigint): string => {
  const date = new Date(Number(nanos / 1_000_000n))
  const day = `${digits(date.getMonth() + 1, 2)}${digits(date.getDate(), 2)}`
  const time = [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => digits(part, 2)).join(":")
  return `${day} ${time}.${digits((nanos / 1_000n) % 1_000_000n, 6)}`
}

/** RFC 3339 with microseconds. */
const timestamp = (nanos: bigint): string =>
  `${new Date(Number(nanos / 1_000_000n)).toISOString().slice(0, 20)}${digits((nanos / 1_000n) % 1_000_000n, 6)}Z`

const renderText = (line: Line, pid: number): string => {
  const head = `${line.isError ? "E" : "I"}${stamp(line.nanos)} ${String(pid).padStart(7)} ${line.caller}]`
  const error = line.error === undefined ? "" : ` err=${goQuote(line.error)}`
  const fields = line.fields.map(
    ([key, value]) => ` ${key}=${Predicate.isString(value) ? goQuote(value) : JSON.stringify(value)}`
  )
  return `${head} ${goQuote(line.message)}${error}${fields.join("")}`
}

const OWN_KEYS: ReadonlySet<string> = new Set(["level", "timestamp", "caller", "message", "error"])

const renderJson = (line: Line): string =>
  JSON.stringify({
    level: line.level,
    timestamp: timestamp(line.nanos),
    caller: line.caller,
    message: line.message,
    ...Object.fromEntries(line.fields.map(([key, value]) => [OWN_KEYS.has(key) ? `${key}_` : key, value])),
    ...(line.error === undefined ? {} : { error: line.error })
  })

const STDERR = 2
const ATTEMPTS_MAX = 100
const pause = new Int32Array(new SharedArrayBuffer(4))
let isStuck = false

/**
 * Writes all of a line before it returns. A reader that does not read is waited for, up to a tenth of a second; then
 * lines are dropped until it reads again, since a log must not stop the driver.
 */
const writeStderr = (line: string): void => {
  let rest = Buffer.from(`${line}\n`)
  for (let attempt = 0; rest.length > 0 && attempt < (isStuck ? 1 : ATTEMPTS_MAX); attempt++) {
    try {
      rest = rest.subarray(writeSync(STDERR, rest))
      attempt = 0
      isStuck = false
    } catch (error) {
      // Anything but "try again" is a closed pipe: there is nobody left to tell.
      if (!(Predicate.hasProperty(error, "code") && error.code === "EAGAIN")) return
      if (!isStuck) Atomics.wait(pause, 0, 0, 1)
    }
  }
  isStuck = rest.length > 0
}

export interface KlogOptions {
  readonly json: boolean
  /** klog's -v. */
  readonly verbosity: number
  readonly pid: number
  /** Takes one line, without its end; stderr when absent. */
  readonly write?: (line: string) => void
}

const DEBUG_VERBOSITY = 4
const TRACE_VERBOSITY = 6

const loggerOf = ({ json, pid, write = writeStderr }: Omit<KlogOptions, "verbosity">) => {
  return (options: Logger.Options<unknown>): void => {
    const line = lineOf(options)
    write(json ? renderJson(line) : renderText(line, pid))
  }
}

/**
 * Replaces every logger and sets the verbosity. Debug lines need a verbosity of 4, trace lines one of 6.
 *
 * @shape  (options) -> Layer
 * @errors none; what cannot be written is lost
 */
export const layer = ({ verbosity, ...options }: KlogOptions): Layer.Layer<never> =>
  Layer.mergeAll(
    Logger.layer([Logger.make(loggerOf(options))]),
    Layer.succeed(Verbosity, verbosity),
    Layer.succeed(
      References.MinimumLogLevel,
      verbosity >= TRACE_VERBOSITY ? "Trace" : verbosity >= DEBUG_VERBOSITY ? "Debug" : "Info"
    )
  )

/**
 * The same, with a verbosity that can be changed through the port.
 *
 * @shape  (options, whose verbosity is the first) -> Layer
 * @errors none; what cannot be written is lost
 * @source reference/operator.md 3.2
 */
export const layerChanging = ({ verbosity: first, ...options }: KlogOptions): Layer.Layer<LogLevelPort> =>
  Layer.suspend(() => {
    const write = loggerOf(options)
    let verbosity = first
    const isWanted = (level: LogLevel.LogLevel): boolean =>
      level === "Trace" ? verbosity >= TRACE_VERBOSITY : level === "Debug" ? verbosity >= DEBUG_VERBOSITY : true
    return Layer.mergeAll(
      Logger.layer([
        Logger.make<unknown, void>((line) => {
          if (isWanted(line.logLevel)) write(line)
        })
      ]),
      Layer.succeed(ChangingVerbosity, { now: () => verbosity }),
      // The choice is the logger's: what is decided here is decided for good.
      Layer.succeed(References.MinimumLogLevel, "Trace"),
      Layer.succeed(
        LogLevelPort,
        LogLevelPort.of({
          current: Effect.sync(() => verbosity),
          set: (next) =>
            Effect.sync(() => {
              verbosity = next
            })
        })
      )
    )
  })
