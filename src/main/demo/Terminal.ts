/**
 * What a person sees of the demo: one line per step, with a spinner while it runs where the output is a terminal, and
 * plain lines where it is a file or a pipe.
 */
import { Clock, Effect, Exit, Fiber, Schedule } from "effect"
import { type DemoFailed, inStep } from "./Check.ts"

export interface Output {
  readonly isTTY?: boolean
  readonly columns?: number
  readonly write: (text: string) => unknown
}

export interface Terminal {
  readonly say: (...lines: ReadonlyArray<string>) => Effect.Effect<void>
  /** Runs a step and shows its title, how it ended, and the lines that it has to show. */
  readonly step: <A, E extends { readonly _tag: string; readonly message: string }, R>(
    title: string,
    run: Effect.Effect<A, E, R>,
    show: (value: A) => ReadonlyArray<string>
  ) => Effect.Effect<A, DemoFailed, R>
  /** How many steps have ended well so far. */
  readonly passed: () => number
}

const FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
const everyFrame = Schedule.spaced("80 millis")

const ESCAPE = "\u001b["
const CLEAR_LINE = `\r${ESCAPE}2K`
const HIDE_CURSOR = `${ESCAPE}?25l`
const SHOW_CURSOR = `${ESCAPE}?25h`

/** @shape (output, colours) -> Terminal */
export const make = (output: Output, withColours: boolean): Terminal => {
  const live = output.isTTY === true
  const colour = (code: number, text: string) => (withColours ? `${ESCAPE}${code}m${text}${ESCAPE}0m` : text)
  const green = (text: string) => colour(32, text)
  const red = (text: string) => colour(31, text)
  const dim = (text: string) => colour(2, text)

  const write = (text: string) => Effect.sync(() => void output.write(text))
  const indented = (lines: ReadonlyArray<string>) => lines.map((line) => `    ${dim(line)}\n`).join("")

  /** A line that changes must not wrap. */
  const fitting = (title: string) => title.slice(0, Math.max(10, (output.columns ?? 80) - 4))

  const spinner = (title: string) => {
    let frame = 0
    return Effect.repeat(
      Effect.suspend(() => write(`${CLEAR_LINE}${FRAMES[frame++ % FRAMES.length] ?? ""} ${fitting(title)}`)),
      everyFrame
    )
  }

  /** Shows that something goes on, for as long as it does. */
  const spinning = <A, E, R>(title: string, run: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    live
      ? Effect.acquireUseRelease(
          Effect.andThen(write(HIDE_CURSOR), Effect.forkChild(spinner(title))),
          () => run,
          (fiber) => Effect.andThen(Fiber.interrupt(fiber), write(`${CLEAR_LINE}${SHOW_CURSOR}`))
        )
      : run

  let passed = 0
  return {
    passed: () => passed,
    say: (...lines) => write(lines.map((line) => `${line}\n`).join("")),
    step: (title, run, show) =>
      Effect.gen(function* () {
        const started = yield* Clock.currentTimeMillis
        const exit = yield* Effect.exit(spinning(title, run))
        const took = dim(`${(yield* Clock.currentTimeMillis) - started} ms`)
        if (Exit.isSuccess(exit)) {
          passed++
          yield* write(`${live ? green("✓") : "ok"} ${title}  ${took}\n${indented(show(exit.value))}`)
          return exit.value
        }
        yield* write(`${live ? red("✗") : "FAILED"} ${title}  ${took}\n`)
        return yield* Effect.mapError(exit, inStep(title))
      })
  }
}
