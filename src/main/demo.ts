/**
 * The demo: operator and driver on this machine, with nothing installed. Everything but the cluster is real: both are
 * processes of their own, sockets are sockets, and where mounting is allowed the tmpfs is the kernel's.
 *
 * Every step is a check. The exit code is 0 only when each of them held.
 */
import { existsSync, mkdtempSync, rmdirSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Cause, Deferred, Effect, Exit } from "effect"
import * as LinuxMounter from "../../layers/real/LinuxMounter.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import { Mounter } from "../ports/Mounter.ts"
import { type DemoFailed, inStep, same } from "./demo/Check.ts"
import * as Files from "./demo/Files.ts"
import { keep } from "./demo/Keep.ts"
import type { Step } from "./demo/Look.ts"
import * as Stage from "./demo/Stage.ts"
import { ENDING, SHOWING } from "./demo/Steps.ts"
import * as Terminal from "./demo/Terminal.ts"

const USAGE = `usage: npm run demo [-- --keep]

Shows operator and driver at work on this machine, step by step, and cleans up.

  --keep  stay after the last step, so that you can change secrets and look; Ctrl-C ends it
`

const LOG_LINES_SHOWN = 20

const terminal = Terminal.make(process.stdout, process.stdout.isTTY && process.env["NO_COLOR"] === undefined)

/** Why nothing can be mounted here; undefined when it can. Not every root may, so it is tried. */
const whyNotMounted = Effect.acquireUseRelease(
  Effect.sync(() => TargetPath.make(mkdtempSync(join(tmpdir(), "secrets-store-")))),
  (directory) =>
    Effect.gen(function* () {
      const mounter = yield* Mounter
      yield* mounter.mountTmpfs(directory, { sizeBytes: 4096, mode: 0o700 })
      yield* mounter.unmount(directory)
    }).pipe(
      Effect.as(undefined),
      Effect.catchTag("MountFailed", ({ errno }) => Effect.succeed(errno))
    ),
  (directory) => Effect.sync(() => rmdirSync(directory))
).pipe(Effect.provide(LinuxMounter.layer))

const showAll = (steps: ReadonlyArray<Step>, stage: Stage.Stage) =>
  Effect.forEach(steps, ({ run, title }) => terminal.step(title, run(stage), (lines) => lines), { discard: true })

const lastLines = (output: string) => output.trimEnd().split("\n").slice(-LOG_LINES_SHOWN)

/** The last words of operator and driver, when a step has failed. */
const showLogs = ({ driverPods, operator }: Stage.Stage) =>
  terminal.say(
    ...["", "the operator's log:", ...lastLines(operator.output())],
    ...driverPods().flatMap(({ driver, name }) => ["", `the log of pod ${name}:`, ...lastLines(driver.output())])
  )

const onStage = (mountsAreReal: boolean, keepUntil: Effect.Effect<void> | undefined) =>
  Effect.gen(function* () {
    const stage = yield* Stage.open(terminal, mountsAreReal)
    const steps = Effect.gen(function* () {
      yield* showAll(SHOWING, stage)
      if (keepUntil !== undefined) yield* keep(stage, terminal, keepUntil)
      yield* showAll(ENDING, stage)
    })
    const cluster = Effect.mapError(stage.cluster, inStep("the cluster goes on"))
    yield* Effect.raceFirst(steps, cluster).pipe(Effect.tapError(() => showLogs(stage)))
    return {
      directory: stage.directory,
      pids: [stage.operator.pid, ...stage.driverPods().map(({ driver }) => driver.pid)]
    }
  }).pipe(Effect.scoped)

const cleaned = ({ directory, pids }: { readonly directory: string; readonly pids: ReadonlyArray<number> }) =>
  same(
    "what is left",
    { mounts: Files.mountLines(directory), directory: existsSync(directory), processes: pids.filter(Files.isAlive) },
    { mounts: [], directory: false, processes: [] }
  )

const demo = (keepUntil: Effect.Effect<void> | undefined) =>
  Effect.gen(function* () {
    const refusal = yield* whyNotMounted
    yield* terminal.say(
      refusal === undefined
        ? "Volumes are real tmpfs mounts."
        : `Nothing can be mounted here (${refusal}; run as root to see it): volumes are PLAIN DIRECTORIES instead of tmpfs.`,
      ""
    )
    const left = yield* onStage(refusal === undefined, keepUntil)
    yield* terminal.step("everything is cleaned up", cleaned(left), () => [`${left.directory} is gone`])
    yield* terminal.say("", `all ${terminal.passed()} steps passed`)
  })

const main = (words: ReadonlyArray<string>): void => {
  const unknown = words.filter((word) => word !== "--keep")
  if (unknown.length > 0) {
    const asked = unknown.every((word) => word === "--help" || word === "-h")
    ;(asked ? process.stdout : process.stderr).write(asked ? USAGE : `unknown: ${unknown.join(" ")}\n\n${USAGE}`)
    process.exitCode = asked ? 0 : 2
    return
  }
  const stopped = Deferred.makeUnsafe<void>()
  let keeping = false
  const keepUntil = Effect.suspend(() => {
    keeping = true
    return Deferred.await(stopped)
  }).pipe(
    Effect.ensuring(
      Effect.sync(() => {
        keeping = false
      })
    )
  )
  const fiber = Effect.runFork(demo(words.includes("--keep") ? keepUntil : undefined))
  // The first one ends --keep in good order; any other takes everything down at once.
  const onSignal = () => {
    if (keeping) Deferred.doneUnsafe(stopped, Effect.void)
    else fiber.interruptUnsafe()
  }
  // Whoever reads the output has gone: nothing may stay behind.
  process.stdout.on("error", () => fiber.interruptUnsafe())
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, onSignal)
  fiber.addObserver((exit) => process.exit(exitCode(exit)))
}

const exitCode = (exit: Exit.Exit<void, DemoFailed>): number => {
  if (Exit.isSuccess(exit)) return 0
  const interrupted = Cause.hasInterruptsOnly(exit.cause)
  const failure = Cause.findErrorOption(exit.cause)
  const why = failure._tag === "Some" ? failure.value.message : Cause.pretty(exit.cause)
  process.stderr.write(interrupted ? "\ninterrupted; everything is cleaned up\n" : `\nthe demo failed: ${why}\n`)
  return interrupted ? 130 : 1
}

main(process.argv.slice(2))
