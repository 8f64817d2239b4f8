/**
 * Whether the tables would notice: the rules of rotation are changed for the worse, one at a time, in a copy of the
 * sources, and the tests named beside each change have to fail there. A test that cannot be loaded counts for nothing.
 *
 * A change is given as text that stands in its file exactly once, so that it cannot quietly come to change nothing.
 */
import { spawn } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Duration, Effect, Schema, type Scope } from "effect"
import { tell } from "../support/DriverWorld.ts"

interface Mutation {
  readonly name: string
  readonly file: string
  readonly from: string
  readonly to: string
  /** Names of tables, of which at least one row has to fail. */
  readonly tables: ReadonlyArray<string>
}

const ROTATION = "src/volume/Rotation.ts"
const CONTENT = "src/volume/VolumeContent.ts"
const TRIGGERS = "src/volume/RefreshTriggers.ts"

const mutations: ReadonlyArray<Mutation> = [
  {
    name: "at its due time a volume is not due yet",
    file: ROTATION,
    from: "return due <= nowMillis ||",
    to: "return due < nowMillis ||",
    tables: ["Rotation"]
  },
  {
    name: "the interval after a success counts in seconds",
    file: ROTATION,
    from: "Number.POSITIVE_INFINITY : nowMillis + interval.millis",
    to: "Number.POSITIVE_INFINITY : nowMillis + interval.millis / 1000",
    tables: ["Rotation"]
  },
  {
    name: "the first interval counts in seconds",
    file: ROTATION,
    from: "lastSuccessMillis + Math.round(interval.millis *",
    to: "lastSuccessMillis + Math.round((interval.millis / 1000) *",
    tables: ["Rotation"]
  },
  {
    name: "of class and volume the longer interval counts",
    file: ROTATION,
    from: "Math.min(...millis)",
    to: "Math.max(...millis)",
    tables: ["Rotation"]
  },
  {
    name: "unchanged content does not set the clock",
    file: CONTENT,
    from: "    yield* commit(record, wished)\n",
    to: "    if (changed) yield* commit(record, wished)\n",
    tables: ["VolumeContent"]
  },
  {
    name: "unchanged content keeps the time of the last success",
    file: CONTENT,
    from: "    lastSuccessMillis,\n    schedule:",
    to: "    lastSuccessMillis: changed || known === undefined ? lastSuccessMillis : known.lastSuccessMillis,\n    schedule:",
    tables: ["VolumeContent"]
  },
  {
    name: "unchanged content leaves the target's mtime as it was",
    file: CONTENT,
    from: "if (!changed) yield* MountedFiles.touch",
    to: "if (changed) yield* MountedFiles.touch",
    tables: ["VolumeContent"]
  },
  {
    name: "after a restart the target's mtime is not looked at",
    file: "src/volume/NodePublish.ts",
    from: "before?.lastSuccessMillis ?? (yield* MountedFiles.lastChange(targetPath)) ?? 0",
    to: "before?.lastSuccessMillis ?? 0",
    tables: ["VolumeContent"]
  },
  {
    name: "the backoff grows beyond the interval",
    file: ROTATION,
    from: "Math.round(Math.min(jittered, longest))",
    to: "Math.round(jittered + 0 * longest)",
    tables: ["Rotation"]
  },
  {
    name: "the backoff does not grow",
    file: ROTATION,
    from: "BACKOFF_FACTOR ** (failed.isThrottled ? 0 : failures - 1)",
    to: "BACKOFF_FACTOR ** (0 * failures)",
    tables: ["Rotation"]
  },
  {
    name: "the hint of a provider is ignored by the schedule",
    file: ROTATION,
    from: "Math.max(hint, ",
    to: "Math.max(0 * hint, ",
    tables: ["Rotation"]
  },
  {
    name: "the hint of a provider does not reach the schedule",
    file: CONTENT,
    from: '_tag === "ProviderCallFailed" ? reason.retryAfterMillis : undefined',
    to: '_tag === "ProviderCallFailed" ? undefined : undefined',
    tables: ["VolumeContent"]
  },
  {
    name: "refreshes that are due come before first mounts",
    file: "src/volume/Budget.ts",
    from: "{ Mount: 0, Asked: 1, Due: 2 }",
    to: "{ Mount: 2, Asked: 1, Due: 0 }",
    tables: ["Budget"]
  },
  {
    name: "refreshes that are due come before those that are asked for",
    file: "src/volume/Budget.ts",
    from: "{ Mount: 0, Asked: 1, Due: 2 }",
    to: "{ Mount: 0, Asked: 2, Due: 1 }",
    tables: ["Budget"]
  },
  {
    name: "what was asked for and done is not recorded",
    file: CONTENT,
    from: "    honoured: asked,\n    knownName:",
    to: '    honoured: { pod: "", secretProviderClass: "" },\n    knownName:',
    tables: ["VolumeContent"]
  },
  {
    name: "what was asked for and done is recorded only with new versions",
    file: CONTENT,
    from: "sameAsked(known.honoured, asked)",
    to: "sameAsked(asked, asked)",
    tables: ["VolumeContent"]
  },
  {
    name: "a wish that comes while the provider is called is lost",
    file: TRIGGERS,
    from: "asksMore(latest.wanted, record.honoured, wished)",
    to: "false",
    tables: ["VolumeContent"]
  },
  {
    name: "a wish does not make its volume due",
    file: ROTATION,
    from: "dueMillis: Math.min(schedule.dueMillis, nowMillis)",
    to: "dueMillis: Math.max(schedule.dueMillis, nowMillis)",
    tables: ["Rotation"]
  },
  {
    name: "tokens are good once they have expired",
    file: "src/volume/Decision.ts",
    from: "return tokensExpireMillis <= nowMillis",
    to: "return tokensExpireMillis >= nowMillis",
    tables: ["Decision"]
  },
  {
    name: "of several tokens the last one to expire counts",
    file: "src/volume/Tokens.ts",
    from: "return Math.min(Number.POSITIVE_INFINITY, ...times)",
    to: "return Math.max(...times)",
    tables: ["Tokens"]
  },
  {
    name: "fresh tokens do not end the wait for them",
    file: "src/volume/NodePublish.ts",
    from: "expiryMillis(request) > nowMillis",
    to: "expiryMillis(request) < nowMillis",
    tables: ["VolumeContent"]
  },
  {
    name: "a volume that waits for tokens is due all the same",
    file: ROTATION,
    from: "awaitsTokens ? Number.POSITIVE_INFINITY : dueMillis",
    to: "awaitsTokens ? dueMillis : dueMillis",
    tables: ["Rotation"]
  },
  {
    name: "a clock that was set back is waited for",
    file: ROTATION,
    from: "nowMillis < schedule.setMillis - CLOCK_STEP_MILLIS",
    to: "nowMillis < schedule.setMillis - Number.POSITIVE_INFINITY * CLOCK_STEP_MILLIS",
    tables: ["Rotation"]
  }
]

const ROOT = fileURLToPath(new URL("../..", import.meta.url))
const COPIED = ["src", "schemas", "layers", "proto", "test", "package.json", "tsconfig.json"]
/** As the suite runs its tables; what a run remembers of itself stays in the copy. */
const CONFIG = `export default {
  cacheDir: ".cache",
  test: { pool: "threads", isolate: false, maxWorkers: 1, include: ["test/tables/**/*.test.ts"], testTimeout: 10_000 }
}
`

/** What vitest writes with its JSON reporter, as far as it is of interest. */
const Report = Schema.fromJsonString(
  Schema.Struct({
    numPassedTests: Schema.Int,
    testResults: Schema.Array(
      Schema.Struct({
        name: Schema.String,
        message: Schema.String,
        assertionResults: Schema.Array(
          Schema.Struct({
            fullName: Schema.String,
            status: Schema.String,
            failureMessages: Schema.Array(Schema.String)
          })
        )
      })
    )
  })
)
const decodeReport = Schema.decodeUnknownEffect(Report)

/** A copy of all that a table needs, for as long as the scope is open. */
const copy = (mutation: Mutation | undefined): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "mutation-"))
      for (const name of COPIED) cpSync(join(ROOT, name), join(directory, name), { recursive: true })
      symlinkSync(join(ROOT, "node_modules"), join(directory, "node_modules"))
      writeFileSync(join(directory, "vitest.config.mjs"), CONFIG)
      mkdirSync(join(directory, ".cache"))
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ).pipe(
    Effect.tap((directory) =>
      Effect.sync(() => {
        if (mutation === undefined) return
        const path = join(directory, mutation.file)
        const parts = readFileSync(path, "utf8").split(mutation.from)
        assert.strictEqual(parts.length, 2, `${mutation.name}: ${mutation.file} has exactly once: ${mutation.from}`)
        writeFileSync(path, parts.join(mutation.to))
      })
    )
  )

/** The exit code, or the signal that ended it; it is killed with the scope. */
const vitest = (directory: string, words: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["node_modules/vitest/vitest.mjs", "run", ...words], {
          cwd: directory,
          stdio: ["ignore", "ignore", "inherit"],
          // Not those of the run that this is a part of.
          env: { PATH: process.env["PATH"] ?? "" }
        })
      ),
      (it) => Effect.sync(() => void it.kill("SIGKILL"))
    )
    return yield* Effect.callback<number | string | null>((resume) => {
      child.on("close", (code, signal) => resume(Effect.succeed(code ?? signal)))
    })
  })

const run = (mutation: Mutation | undefined, tables: ReadonlyArray<string>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const directory = yield* copy(mutation)
      const file = join(directory, "report.json")
      // One row that fails is enough.
      const words = ["--reporter=json", `--outputFile=${file}`, ...(mutation === undefined ? [] : ["--bail=1"])]
      const exit = yield* vitest(directory, [...words, ...tables.map((name) => `test/tables/${name}.test.ts`)])
      const report = yield* decodeReport(readFileSync(file, "utf8"))
      return { exit, report }
    })
  )

type Ran = Effect.Success<ReturnType<typeof run>>

const failuresOf = ({ report }: Ran) =>
  report.testResults.flatMap(({ assertionResults }) =>
    assertionResults.flatMap(({ failureMessages, fullName }) =>
      failureMessages.map((message) => ({ fullName, message }))
    )
  )

/** Files that were not even read, such as those that import what is not there. */
const unreadOf = ({ report }: Ran) =>
  report.testResults.flatMap(({ assertionResults, message, name }) =>
    assertionResults.length === 0 ? [`${name}: ${message}`] : []
  )

it.live(
  `S10, S11: each of ${mutations.length} changes for the worse makes a table fail`,
  () =>
    Effect.gen(function* () {
      const tables = [...new Set(mutations.flatMap((mutation) => mutation.tables))]
      const [tookBefore, before] = yield* Effect.timed(run(undefined, tables))
      assert.deepStrictEqual(
        { exit: before.exit, unread: unreadOf(before), failures: failuresOf(before) },
        {
          exit: 0,
          unread: [],
          failures: []
        }
      )
      assert.isAbove(before.report.numPassedTests, 0)
      const [took, survived] = yield* Effect.timed(
        Effect.forEach(
          mutations,
          (mutation) =>
            Effect.map(run(mutation, mutation.tables), (ran): ReadonlyArray<string> => {
              const noticed = failuresOf(ran).find(({ message }) => message.startsWith("AssertionError"))
              if (ran.exit !== 0 && noticed !== undefined && unreadOf(ran).length === 0) {
                tell(`${mutation.name}: noticed by "${noticed.fullName}"`)
                return []
              }
              return [
                [mutation.name, `exit ${ran.exit}`, ...unreadOf(ran), ...failuresOf(ran).map((it) => it.message)].join(
                  "; "
                )
              ]
            }),
          { concurrency: 2 }
        )
      )
      const seconds = (duration: Duration.Duration) => Duration.toSeconds(duration).toFixed(1)
      tell(
        `${tables.length} tables unchanged in ${seconds(tookBefore)} s, ${mutations.length} changes in ${seconds(took)} s`
      )
      assert.deepStrictEqual(survived.flat(), [])
    }),
  { timeout: 240_000 }
)
