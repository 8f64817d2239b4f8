/**
 * The operator's command line: every flag with its default, and what a command line asks for.
 *
 * The rules are those of pflag and cobra: `--name=value`, `--name value`, `-v=2`, `-v 2`, `-v2`; flags stand anywhere
 * up to "--"; an underscore in a name is a hyphen; the flags of `start` are unknown without it.
 *
 * @source Go, spf13/pflag and spf13/cobra (error texts); reference/operator.md 1.1
 */
import { Result } from "effect"
import { formatGoDuration, parseGoDuration } from "../../schemas/GoDuration.ts"
import { goQuote } from "../../schemas/GoQuote.ts"
import { OPERATOR_NAME } from "../operator/Names.ts"
import * as Go from "./GoFlags.ts"

interface OperatorFlag<A> extends Go.Flag<A> {
  readonly shorthand: string
  /** May be given more than once; one value each time. */
  readonly repeats: boolean
}

const long = <A>(flag: Go.Flag<A>): OperatorFlag<A> => ({ ...flag, shorthand: "", repeats: false })

const FLUSH_NANOS = 5_000_000_000n

const start = {
  config: long(Go.string("config", "", "file of kind GenericOperatorConfig, in YAML or JSON")),
  kubeconfig: long(Go.string("kubeconfig", "", "path of a kubeconfig file; empty is the pod's service account")),
  namespace: long(
    Go.string("namespace", "", "namespace of the operand, of Events and of the lease; empty is the pod's own")
  ),
  listen: long(Go.string("listen", "", "ip:port to serve on, instead of servingInfo.bindAddress of the config file")),
  terminateOnFiles: {
    ...long(Go.string("terminate-on-files", "", "a file whose change ends the process; may be given again")),
    typeName: "stringArray",
    repeats: true
  }
}

const persistent = {
  verbosity: {
    ...long(Go.klogLevel("v", "verbosity of the log, until spec.operatorLogLevel is read")),
    typeName: "Level",
    shorthand: "v"
  },
  vmodule: { ...long(Go.klogModules("vmodule", "accepted without effect")), typeName: "pattern=N,..." },
  logFlushFrequency: long({
    ...Go.duration("log-flush-frequency", 5_000, "accepted without effect: lines are written at once"),
    defaultText: formatGoDuration(FLUSH_NANOS),
    // This package gives the reason of the value's own parser.
    parse: parseGoDuration
  })
}

const PERSISTENT_FLAGS = Object.values<OperatorFlag<unknown>>(persistent)
const START_FLAGS = [...Object.values<OperatorFlag<unknown>>(start), ...PERSISTENT_FLAGS]

/** Of `start`, in the order in which documents list them. */
export const OPERATOR_FLAGS: ReadonlyArray<Go.Flag<unknown>> = START_FLAGS

export interface OperatorFlags {
  readonly config: string
  readonly kubeconfig: string
  readonly namespace: string
  readonly listen: string
  readonly terminateOnFiles: ReadonlyArray<string>
  readonly verbosity: number
}

export type OperatorCommand =
  | { readonly _tag: "Run"; readonly flags: OperatorFlags }
  /** For stdout. Without a command it is no success. */
  | { readonly _tag: "Help"; readonly exitCode: 0 | 1; readonly text: string }
  | { readonly _tag: "Version" }
  /** For stderr, without a final new line; exit status 1. */
  | { readonly _tag: "Refused"; readonly message: string }

const NO_VALUE = { typeName: "", defaultText: "" }
const HELP = { ...NO_VALUE, name: "help", shorthand: "h", usage: "this text" }
const VERSION = { ...NO_VALUE, name: "version", shorthand: "", usage: "the version, in JSON" }

type Described = Pick<OperatorFlag<unknown>, "name" | "shorthand" | "typeName" | "defaultText" | "usage">

/** In the order of their names, as pflag has them. */
const flagLines = (flags: ReadonlyArray<Described>): string => {
  const lines = flags
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, shorthand, typeName, ...rest }) => {
      const names = shorthand === "" ? `      --${name}` : `  -${shorthand}, --${name}`
      return { ...rest, head: typeName === "" ? names : `${names} ${typeName}` }
    })
  const width = Math.max(...lines.map(({ head }) => head.length)) + 3
  return lines
    .map(({ defaultText, head, usage }) => {
      const ending = defaultText === "" ? "" : ` (default ${defaultText})`
      return `${head.padEnd(width)}${usage}${ending}\n`
    })
    .join("")
}

const usageOf = (isStart: boolean): string =>
  isStart
    ? `Usage:
  ${OPERATOR_NAME} start [flags]

Flags:
${flagLines([...START_FLAGS, HELP])}`
    : `Usage:
  ${OPERATOR_NAME} [command]

Available Commands:
  start   run the operator

Flags:
${flagLines([...PERSISTENT_FLAGS, HELP, VERSION])}`

interface Values {
  readonly _tag: "Values"
  readonly texts: ReadonlyMap<string, ReadonlyArray<string>>
}
type Parsed = Values | { readonly _tag: "Help" } | { readonly _tag: "Version" } | RefusedFlag
interface RefusedFlag {
  readonly _tag: "RefusedFlag"
  readonly message: string
  readonly remedy: string
}

const refusedFlag = (message: string, remedy: string): RefusedFlag => ({ _tag: "RefusedFlag", message, remedy })

const LIST_REMEDY = "correct or remove it; the flags are listed above"

/** What one word that begins with a hyphen says: a flag and its value, if the value is in the same word. */
type Word =
  | { readonly _tag: "Flag"; readonly flag: OperatorFlag<unknown>; readonly text: string | undefined }
  | Exclude<Parsed, Values>

const readLong = (word: string, flags: ReadonlyArray<OperatorFlag<unknown>>): Word => {
  const body = word.slice(2)
  if (/^[-=]/u.test(body)) {
    return refusedFlag(`bad flag syntax: ${word}`, "write a flag as --name or --name=value")
  }
  const [, given = body, text] = /^([^=]*)=(.*)$/su.exec(body) ?? []
  const name = given.replaceAll("_", "-")
  const flag = flags.find((known) => known.name === name)
  if (flag !== undefined) return { _tag: "Flag", flag, text }
  if (name === "help") return { _tag: "Help" }
  if (name === "version") return { _tag: "Version" }
  return refusedFlag(`unknown flag: --${given}`, LIST_REMEDY)
}

const readShort = (word: string, flags: ReadonlyArray<OperatorFlag<unknown>>): Word => {
  const letter = word.charAt(1)
  const flag = flags.find((known) => known.shorthand === letter)
  if (flag !== undefined) {
    const rest = word.slice(2)
    return { _tag: "Flag", flag, text: rest === "" ? undefined : rest.replace(/^=(?=.)/su, "") }
  }
  if (letter === "h") return { _tag: "Help" }
  return refusedFlag(`unknown shorthand flag: '${letter}' in ${word}`, LIST_REMEDY)
}

/** Operands among flags are left out: `start` takes none, and none has ever been refused. */
const parseFlags = (words: ReadonlyArray<string>, flags: ReadonlyArray<OperatorFlag<unknown>>): Parsed => {
  const texts = new Map<string, ReadonlyArray<string>>()
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? ""
    if (word === "--") break
    if (word.length < 2 || !word.startsWith("-")) continue
    const isLong = word.startsWith("--")
    const read = isLong ? readLong(word, flags) : readShort(word, flags)
    if (read._tag !== "Flag") return read
    const { flag } = read
    const text = read.text ?? words[++index]
    if (text === undefined) {
      const what = isLong ? `--${flag.name}` : `'${flag.shorthand}' in ${word}`
      return refusedFlag(`flag needs an argument: ${what}`, `give --${flag.name} ${flag.expects}`)
    }
    const value = flag.parse(text)
    if (Result.isFailure(value)) {
      const names = flag.shorthand === "" ? `--${flag.name}` : `-${flag.shorthand}, --${flag.name}`
      return refusedFlag(
        `invalid argument ${goQuote(text)} for ${goQuote(names)} flag: ${value.failure}`,
        `give --${flag.name} ${flag.expects}, instead of ${goQuote(text)}`
      )
    }
    texts.set(flag.name, flag.repeats ? [...(texts.get(flag.name) ?? []), text] : [text])
  }
  return { _tag: "Values", texts }
}

/** The first word that is neither a flag nor a flag's value. Whether a flag is known is not asked yet. */
const commandAt = (words: ReadonlyArray<string>): number => {
  for (let index = 0; index < words.length; index++) {
    const word = words[index] ?? ""
    if (word === "--") return -1
    if (word === "" || word === "-") continue
    if (!word.startsWith("-")) return index
    const takesNext = word.startsWith("--") ? !/=|^--(?:help|version)$/u.test(word) : word === "-v"
    if (takesNext) index++
  }
  return -1
}

/** klog is asked level by level up to this one. */
const VERBOSITY_MAX = 999_999

const read = <A>({ texts }: Values, flag: OperatorFlag<A>): A => {
  const text = texts.get(flag.name)?.at(-1)
  return text === undefined ? flag.defaultValue : Result.getOrElse(flag.parse(text), () => flag.defaultValue)
}

/**
 * Decides what a command line asks for.
 *
 * @shape  (words after the program's name) -> Run with the flags of `start`, Help, Version, or Refused
 * @errors Refused: for a flag the usage, then "Error: ..." in pflag's words, then "remedy: ..."
 * @source reference/operator.md 1.1
 */
export const parseOperator = (words: ReadonlyArray<string>): OperatorCommand => {
  const at = commandAt(words)
  const command = words[at]
  if (command === "help") return { _tag: "Help", exitCode: 0, text: usageOf(words[at + 1] === "start") }
  if (command !== undefined && command !== "start") {
    return {
      _tag: "Refused",
      message: `Error: unknown command ${goQuote(command)} for ${goQuote(OPERATOR_NAME)}\nremedy: the only command is start; ${OPERATOR_NAME} --help lists the flags`
    }
  }
  const isStart = command === "start"
  const rest = isStart ? words.filter((_, index) => index !== at) : words
  const parsed = parseFlags(rest, isStart ? START_FLAGS : PERSISTENT_FLAGS)
  if (parsed._tag === "Help") return { _tag: "Help", exitCode: 0, text: usageOf(isStart) }
  if (parsed._tag === "Version") return parsed
  if (parsed._tag === "RefusedFlag") {
    return { _tag: "Refused", message: `${usageOf(isStart)}\nError: ${parsed.message}\nremedy: ${parsed.remedy}` }
  }
  if (!isStart) return { _tag: "Help", exitCode: 1, text: usageOf(false) }
  return {
    _tag: "Run",
    flags: {
      config: read(parsed, start.config),
      kubeconfig: read(parsed, start.kubeconfig),
      namespace: read(parsed, start.namespace),
      listen: read(parsed, start.listen),
      terminateOnFiles: parsed.texts.get(start.terminateOnFiles.name) ?? [],
      verbosity: Math.max(0, Math.min(read(parsed, persistent.verbosity), VERBOSITY_MAX))
    }
  }
}
