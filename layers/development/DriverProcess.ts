/**
 * The real driver, or operator, as a process: started as its image starts it, watched, and killed when asked. For the
 * demo, the tests and the benchmark.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { Data, Effect, type Scope } from "effect"

export class DriverDied extends Data.TaggedError("DriverDied")<{ readonly message: string }> {}

/**
 * Flags of Node, in the image's command too: a small young generation, a bound on the old one, and neither optimizing
 * compilers nor threads for them. A node mounts a few volumes a second at most; machine code made once from bytecode is
 * fast enough for some hundred, and optimizing costs 12 MiB that stay. What was not called since
 * the collection before is thrown away by the one after, so that nothing of a start-up or of a burst stays.
 */
export const NODE_FLAGS = [
  "--max-semi-space-size=1",
  "--max-old-space-size=64",
  "--no-opt",
  "--no-maglev",
  "--v8-pool-size=0",
  "--flush-baseline-code",
  "--expose-gc",
  "--bytecode-old-age=1"
] as const
/** Environment of the image: one malloc arena instead of one per thread. */
const NODE_ENVIRONMENT = { MALLOC_ARENA_MAX: "1" }

export interface DriverProcess {
  readonly pid: number
  /** Everything written to stderr and stdout so far. */
  readonly output: () => string
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** The exit code, or the signal that ended it. */
  readonly exited: Effect.Effect<number | string>
  readonly memory: () => { readonly residentMiB: number; readonly anonymousMiB: number }
}

const mebibytes = (rollup: string, key: string): number => {
  const found = new RegExp(`^${key}:\\s+(\\d+) kB`, "mu").exec(rollup)
  return found?.[1] === undefined ? Number.NaN : Number(found[1]) / 1024
}

/** The last this much of the output is kept. */
const OUTPUT_MAX = 4_000_000
/** For a killed process to be gone. */
const KILL_TIMEOUT = "2 seconds"

/** Starts the program; it is killed when the scope closes. */
export const start = (options: {
  readonly entry: string
  readonly flags: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  /** Out of reach of the Ctrl-C that is meant for whoever started it. */
  readonly ownProcessGroup?: boolean
}): Effect.Effect<DriverProcess, DriverDied, Scope.Scope> =>
  Effect.gen(function* () {
    let output = ""
    let ended: number | string | undefined
    const waiting = new Set<(value: number | string) => void>()
    const exited = Effect.callback<number | string>((resume) => {
      if (ended !== undefined) return resume(Effect.succeed(ended))
      const done = (value: number | string) => resume(Effect.succeed(value))
      waiting.add(done)
      return Effect.sync(() => void waiting.delete(done))
    })
    const child: ChildProcess = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [...NODE_FLAGS, options.entry, ...options.flags], {
          stdio: ["ignore", "pipe", "pipe"],
          detached: options.ownProcessGroup ?? false,
          env: { PATH: process.env["PATH"] ?? "", ...NODE_ENVIRONMENT, ...options.environment }
        })
      ),
      // What it used is cleaned away next.
      (running) =>
        Effect.suspend(() => {
          running.kill("SIGKILL")
          return Effect.timeoutOption(exited, KILL_TIMEOUT)
        })
    )
    const keep = (chunk: Buffer) => {
      output = (output + chunk.toString("utf8")).slice(-OUTPUT_MAX)
    }
    child.stdout?.on("data", keep)
    child.stderr?.on("data", keep)
    child.on("error", (error) => keep(Buffer.from(`${error.message}\n`)))
    child.on("close", (code, signal) => {
      ended = code ?? signal ?? "unknown"
      for (const resume of waiting) resume(ended)
      waiting.clear()
    })
    const { pid } = child
    if (pid === undefined)
      return yield* new DriverDied({ message: `the process could not be started: ${options.entry}` })
    return {
      pid,
      output: () => output,
      kill: (signal) => Effect.sync(() => void child.kill(signal)),
      exited,
      memory: () => {
        const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8")
        return { residentMiB: mebibytes(rollup, "Rss"), anonymousMiB: mebibytes(rollup, "Anonymous") }
      }
    }
  })
