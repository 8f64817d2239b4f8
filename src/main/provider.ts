/**
 * The development provider as a program of its own: serves a directory's files, or mock objects, on a socket.
 *
 * @source reference/driver.md 12
 */
import { parseArgs } from "node:util"
import { Cause, Effect, Exit } from "effect"
import * as DevelopmentProvider from "../../layers/development/DevelopmentProvider.ts"

const USAGE = `usage: node src/main/provider.ts [flags]

  --endpoint      where to listen (default unix:///tmp/e2e-provider.sock)
  --directory     serve the files of this directory; without it, the mock objects of the e2e provider
  --control-addr  host:port of an HTTP listener that changes its behaviour; off by default
`

const EXIT_USAGE = 2

interface Flags {
  readonly endpoint: string
  readonly directory?: string
  readonly controlAddr?: string
}

/** @shape (words) -> the flags, or what is wrong with them; undefined when help is asked for */
const parse = (words: ReadonlyArray<string>): Flags | string | undefined => {
  try {
    const { values } = parseArgs({
      args: [...words],
      options: {
        endpoint: { type: "string", default: "unix:///tmp/e2e-provider.sock" },
        directory: { type: "string" },
        "control-addr": { type: "string" },
        help: { type: "boolean", short: "h", default: false }
      }
    })
    if (values.help) return undefined
    return {
      endpoint: values.endpoint,
      ...(values.directory === undefined ? {} : { directory: values.directory }),
      ...(values["control-addr"] === undefined ? {} : { controlAddr: values["control-addr"] })
    }
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause)
  }
}

const provider = (flags: Flags) =>
  Effect.gen(function* () {
    const { controlPort } = yield* DevelopmentProvider.serve(flags)
    const control = controlPort === undefined ? "" : `, control on port ${controlPort}`
    process.stdout.write(`serving ${flags.directory ?? "mock objects"} on ${flags.endpoint}${control}\n`)
    return yield* Effect.never
  }).pipe(Effect.scoped)

const main = (words: ReadonlyArray<string>): void => {
  const flags = parse(words)
  if (flags === undefined) {
    process.stdout.write(USAGE)
    return
  }
  if (typeof flags === "string") {
    process.stderr.write(`${flags}\n\n${USAGE}`)
    process.exitCode = EXIT_USAGE
    return
  }
  const fiber = Effect.runFork(provider(flags))
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => fiber.interruptUnsafe())
  fiber.addObserver((exit) => {
    if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return process.exit(0)
    const failure = Cause.findErrorOption(exit.cause)
    process.stderr.write(`${failure._tag === "Some" ? failure.value.message : Cause.pretty(exit.cause)}\n`)
    process.exit(1)
  })
}

main(process.argv.slice(2))
