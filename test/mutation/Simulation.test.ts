/**
 * Whether the simulation would notice: what upstream's releases got wrong, and mistakes in decisions of ours, are put
 * into a copy of the sources, one at a time, and the simulation runs there until a promise breaks that is about the
 * mistake. A copy that cannot be loaded counts for nothing.
 *
 * Each row knows a seed that has found it, which is tried first; when the simulated world has changed since, seeds from 1
 * on are tried. Runs of the same seeds without any change keep every promise.
 */
import { spawn } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Duration, Effect, Schema, type Scope } from "effect"
import { tell } from "../support/DriverWorld.ts"
import { PLANTED, type PlantedMistake } from "../support/PlantedMistakes.ts"
import { REGRESSIONS } from "../support/Regressions.ts"

const RUNS_MAX = 200
const ROOT = fileURLToPath(new URL("../..", import.meta.url))
const COPIED = ["src", "schemas", "layers", "assets", "test/support", "package.json"]

/** What one hunt says at its end. */
const Hunted = Schema.fromJsonString(
  Schema.Struct({
    runs: Schema.Int,
    found: Schema.NullOr(Schema.Struct({ seed: Schema.Int, promise: Schema.String, seen: Schema.String }))
  })
)
const decodeHunted = Schema.decodeUnknownEffect(Hunted)

/** A copy of all that a run needs, for as long as the scope is open. */
const copy = (mistake: PlantedMistake | undefined): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "planted-"))
      for (const name of COPIED) cpSync(join(ROOT, name), join(directory, name), { recursive: true })
      symlinkSync(join(ROOT, "node_modules"), join(directory, "node_modules"))
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ).pipe(
    Effect.tap((directory) =>
      Effect.sync(() => {
        for (const { file, from, to } of mistake?.changes ?? []) {
          const path = join(directory, file)
          const parts = readFileSync(path, "utf8").split(from)
          assert.strictEqual(parts.length, 2, `${mistake?.name}: ${file} has exactly once: ${from}`)
          writeFileSync(path, parts.join(to))
        }
      })
    )
  )

/** Runs in a process of its own, which is killed with the scope. */
const hunt = (
  directory: string,
  order: {
    readonly scenario: string
    readonly hours: number
    readonly seeds: ReadonlyArray<number>
    readonly promises: ReadonlyArray<string>
  }
) =>
  Effect.gen(function* () {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, ["test/support/Hunt.ts", JSON.stringify(order)], {
          cwd: directory,
          stdio: ["ignore", "pipe", "inherit"],
          env: { PATH: process.env["PATH"] ?? "" }
        })
      ),
      (it) => Effect.sync(() => void it.kill("SIGKILL"))
    )
    let text = ""
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk
    })
    const exit = yield* Effect.callback<number | string | null>((resume) => {
      child.on("close", (code, signal) => resume(Effect.succeed(code ?? signal)))
    })
    assert.strictEqual(exit, 0, "the copy can be loaded and run")
    return yield* decodeHunted(text)
  })

const seedsOf = ({ seed }: PlantedMistake): ReadonlyArray<number> => [
  seed,
  ...Array.from({ length: RUNS_MAX - 1 }, (_, index) => index + 1).filter((it) => it !== seed)
]

interface Row {
  readonly mistake: PlantedMistake
  readonly hunted: typeof Hunted.Type
}

const wrongWith = ({ hunted: { found, runs }, mistake }: Row): ReadonlyArray<string> => {
  return found === null ? [`${mistake.name}: not found in ${runs} runs`] : []
}

const seconds = (duration: Duration.Duration) => Duration.toSeconds(duration).toFixed(1)

it.live(
  `each of ${PLANTED.length} mistakes breaks a promise of the simulation`,
  () =>
    Effect.gen(function* () {
      const [took, rows] = yield* Effect.timed(
        Effect.forEach(
          PLANTED,
          (mistake) =>
            Effect.scoped(
              Effect.gen(function* () {
                const directory = yield* copy(mistake)
                const { breaks, hours, scenario } = mistake
                return {
                  mistake,
                  hunted: yield* hunt(directory, { scenario, hours, seeds: seedsOf(mistake), promises: breaks })
                } satisfies Row
              })
            ),
          { concurrency: 2 }
        )
      )
      for (const { hunted, mistake } of rows) {
        const { found, runs } = hunted
        tell(`${mistake.name} | ${found?.promise ?? "not found"} | seed ${found?.seed ?? "-"} | ${runs} runs`)
      }
      tell(`${PLANTED.length} mistakes in ${seconds(took)} s`)
      assert.deepStrictEqual(rows.flatMap(wrongWith), [])

      // What was found was the mistake's doing.
      const ran = new Map<string, { readonly scenario: string; readonly hours: number; readonly seeds: Set<number> }>()
      for (const {
        hunted,
        mistake: { hours, scenario }
      } of rows) {
        const key = `${scenario} ${hours}`
        const group = ran.get(key) ?? { scenario, hours, seeds: new Set<number>() }
        ran.set(key, group)
        if (hunted.found !== null) group.seeds.add(hunted.found.seed)
      }
      const [tookUnchanged, unchanged] = yield* Effect.timed(
        Effect.scoped(
          Effect.flatMap(copy(undefined), (directory) =>
            Effect.forEach(
              ran.values(),
              ({ seeds, ...order }) => hunt(directory, { ...order, seeds: [...seeds], promises: [] }),
              {
                concurrency: 2
              }
            )
          )
        )
      )
      tell(`the same seeds unchanged in ${seconds(tookUnchanged)} s`)
      assert.deepStrictEqual(
        unchanged.flatMap(({ found }) => (found === null ? [] : [found])),
        []
      )
    }),
  { timeout: 900_000 }
)

it.live(
  "reference/defects.md 1, 2: a story of what happened to others fails when the behaviour is put back",
  () =>
    Effect.gen(function* () {
      const stories = REGRESSIONS.flatMap(({ putBack, thread }) => {
        const mistake = PLANTED.find(({ name }) => name === putBack)
        return mistake === undefined ? [] : [{ mistake, thread }]
      })
      const untouched = yield* Effect.forEach(
        stories,
        ({ mistake, thread }) =>
          Effect.scoped(
            Effect.gen(function* () {
              const directory = yield* copy(mistake)
              const { found } = yield* hunt(directory, {
                scenario: `regression/${thread}`,
                hours: 0,
                seeds: [1],
                promises: []
              })
              tell(`${thread} | ${found?.seen ?? "noticed nothing"}`)
              return found === null ? [thread] : []
            })
          ),
        { concurrency: 2 }
      )
      assert.deepStrictEqual(untouched.flat(), [])
    }),
  { timeout: 300_000 }
)
