/**
 * The demo as a person starts it: what it prints, its exit code, and that nothing of it is left, however it ends.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chownSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Schedule, type Scope } from "effect"
import { ENDING, SHOWING } from "../../src/main/demo/Steps.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const isRoot = process.getuid?.() === 0
/** nobody, on most systems. */
const NOBODY = 65_534

interface Run {
  /** Holds everything that the demo makes. */
  readonly directory: string
  readonly output: () => string
  readonly signal: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly exitCode: Effect.Effect<number | string>
}

const start = (words: ReadonlyArray<string>, uid?: number): Effect.Effect<Run, never, Scope.Scope> =>
  Effect.gen(function* () {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "d-"))),
      (made) => Effect.sync(() => rmSync(made, { recursive: true }))
    )
    if (uid !== undefined) chownSync(directory, uid, uid)
    let output = ""
    const child: ChildProcess = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [join(root, "src/main/demo.ts"), ...words], {
          env: { PATH: process.env["PATH"] ?? "", TMPDIR: directory },
          stdio: ["ignore", "pipe", "pipe"],
          ...(uid === undefined ? {} : { uid, gid: uid })
        })
      ),
      (running) => Effect.sync(() => void running.kill("SIGKILL"))
    )
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString("utf8")
      })
    }
    const ended = new Promise<number | string>((resolve) =>
      child.on("close", (code, signal) => resolve(code ?? signal ?? "unknown"))
    )
    return {
      directory,
      output: () => output,
      signal: (signal) => Effect.sync(() => void child.kill(signal)),
      exitCode: Effect.promise(() => ended)
    }
  })

class NotShown extends Data.TaggedError("NotShown")<{ readonly message: string }> {}

const shows = (run: Run, text: string) =>
  Effect.retry(
    Effect.suspend(() => (run.output().includes(text) ? Effect.void : Effect.fail(text))),
    Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(1000)])
  ).pipe(
    Effect.mapError(() => new NotShown({ message: `${JSON.stringify(text)} does not appear in:\n${run.output()}` }))
  )

/** What is left in the directory, in the table of mounts, and of processes that were started there. */
const leftIn = (directory: string) => ({
  files: readdirSync(directory),
  mounts: readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.includes(directory)),
  processes: readdirSync("/proc")
    .filter((name) => /^\d+$/u.test(name))
    .flatMap((pid) => {
      try {
        return [readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\u0000", " ")]
      } catch {
        return []
      }
    })
    .filter((command) => command.includes(directory))
})
const nothing = { files: [], mounts: [], processes: [] }

const titles = (output: string) =>
  output.split("\n").flatMap((line) => /^(ok|FAILED) (.*?)(?: {2}\d+ ms)?$/u.exec(line)?.slice(1, 3).join(" ") ?? [])

/** What the operator has to have done. */
const OF_THE_OPERATOR = [
  "condition Available: True AsExpected",
  "RoleBinding demo/secrets-store-csi-driver-secret-sync",
  "--rotation-poll-interval=5s -> --rotation-poll-interval=2s",
  "Waiting for 2 pods that use volumes of the driver: demo/web-0, demo/web-1",
  "condition Available: False Removed"
]

/** It runs to its end, and every step of it succeeds. */
const succeeds = (uid?: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const run = yield* start([], uid)
      const exitCode = yield* run.exitCode
      assert.strictEqual(exitCode, 0, run.output())
      const seen = titles(run.output())
      const wanted = [...SHOWING, ...ENDING].map(({ title }) => `ok ${title}`)
      assert.deepStrictEqual(
        seen.filter((title) => wanted.includes(title)),
        wanted
      )
      assert.deepStrictEqual(
        seen.filter((title) => !title.startsWith("ok ")),
        []
      )
      assert.include(run.output(), `all ${seen.length} steps passed`)
      for (const line of OF_THE_OPERATOR) assert.include(run.output(), line)
      assert.notInclude(run.output(), "\u001b")
      assert.deepStrictEqual(leftIn(run.directory), nothing)
      return run.output()
    })
  )

const REAL = "Volumes are real tmpfs mounts"
const PLAIN = "PLAIN DIRECTORIES"

/** Why the demo cannot be run as another user here; empty when it can. */
const whyNot = (() => {
  if (!isRoot) return ""
  const script = 'require("node:fs").accessSync(process.argv[1] + "/node_modules/effect/package.json")'
  const { status } = spawnSync(process.execPath, ["-e", script, root], { uid: NOBODY, gid: NOBODY })
  return status === 0 ? "" : " (needs a checkout and a Node that other users can read)"
})()

describe("demo", () => {
  it.live.skipIf(!isRoot)("every step succeeds, on real mounts (needs root)", () =>
    Effect.map(succeeds(), (output) => assert.include(output, REAL))
  )

  it.live.skipIf(whyNot !== "")(`every step succeeds without root${whyNot}`, () =>
    Effect.map(succeeds(isRoot ? NOBODY : undefined), (output) => assert.include(output, PLAIN))
  )

  it.live.each([
    { moment: "while the driver starts", step: "the operator makes the operand of it" },
    { moment: "in the middle", step: "the pod sees its secrets as files" },
    { moment: "while one driver follows another", step: "the metrics count all of this" }
  ])("Ctrl-C $moment leaves nothing behind", ({ step }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const run = yield* start([])
        yield* shows(run, step)
        yield* run.signal("SIGINT")
        assert.strictEqual(yield* run.exitCode, 130, run.output())
        assert.deepStrictEqual(leftIn(run.directory), nothing)
      })
    )
  )

  it.live("--keep shows a secret that a person changes, until Ctrl-C ends it in good order", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const run = yield* start(["--keep"])
        yield* shows(run, "Ctrl-C")
        const [made] = readdirSync(run.directory)
        writeFileSync(join(run.directory, made!, "secrets", "password"), "changed by hand")
        yield* shows(run, "changed by hand")
        yield* run.signal("SIGINT")
        assert.strictEqual(yield* run.exitCode, 0, run.output())
        assert.deepStrictEqual(leftIn(run.directory), nothing)
      })
    )
  )

  it.live.each([
    { name: "a wrong word", words: ["--kep"], exitCode: 2, says: "usage: npm run demo" },
    { name: "--help", words: ["--help"], exitCode: 0, says: "usage: npm run demo" }
  ])("$name is answered with $exitCode and the usage", ({ exitCode, says, words }) =>
    Effect.scoped(
      Effect.gen(function* () {
        const run = yield* start(words)
        assert.strictEqual(yield* run.exitCode, exitCode)
        assert.include(run.output(), says)
      })
    )
  )
})
