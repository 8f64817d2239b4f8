import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Redacted } from "effect"
import { TestClock } from "effect/testing"
import * as KlogLogger from "../../layers/real/KlogLogger.ts"
import { ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import { logV } from "../../src/telemetry/Log.ts"

// In local time, which is what the text format shows.
const MOMENT = new Date(2026, 10, 23, 4, 5, 6, 78).getTime()

const written = Effect.fnUntraced(function* (
  program: Effect.Effect<void>,
  options: { readonly json?: boolean; readonly verbosity?: number } = {}
) {
  const lines: Array<string> = []
  const layer = KlogLogger.layer({
    json: options.json ?? false,
    verbosity: options.verbosity ?? 0,
    pid: 4711,
    write: (line) => void lines.push(line)
  })
  yield* TestClock.setTime(MOMENT)
  yield* Effect.provide(program, layer)
  return lines
})

const HEAD = "1123 04:05:06.078000    4711 driver.ts:0]"

describe("klog text", () => {
  it.effect.each<{
    readonly name: string
    readonly program: Effect.Effect<void>
    readonly expected: ReadonlyArray<string>
    readonly verbosity?: number
  }>([
    { name: "a message", program: Effect.logInfo("words"), expected: [`I${HEAD} "words"`] },
    { name: "a warning is an ordinary line", program: Effect.logWarning("words"), expected: [`I${HEAD} "words"`] },
    { name: "an error", program: Effect.logError("words"), expected: [`E${HEAD} "words"`] },
    {
      name: "an escaped message",
      program: Effect.logInfo('two\nlines "quoted"'),
      expected: [`I${HEAD} "two\\nlines \\"quoted\\""`]
    },
    {
      name: "fields by kind",
      program: Effect.logInfo("words", {
        text: "a b",
        number: 1.5,
        boolean: true,
        nothing: null,
        absent: undefined,
        big: 7n,
        list: ["x", 1],
        object: { a: { b: "c" } }
      }),
      expected: [
        `I${HEAD} "words" text="a b" number=1.5 boolean=true nothing=null big="7" list=["x",1] object={"a":{"b":"c"}}`
      ]
    },
    {
      name: "annotations come first, fields win",
      program: Effect.annotateLogs(Effect.logInfo("words", { b: 2, c: 3 }), { a: 1, b: 1 }),
      expected: [`I${HEAD} "words" a=1 b=2 c=3`]
    },
    {
      name: "the caller is an annotation",
      program: Effect.annotateLogs(Effect.logInfo("words"), { caller: "node.ts:0" }),
      expected: ['I1123 04:05:06.078000    4711 node.ts:0] "words"']
    },
    {
      name: "an error with its causes, before the fields",
      program: Effect.logError("words", new Error("outer", { cause: new Error("inner") }), { k: "v" }),
      expected: [`E${HEAD} "words" err="outer: inner" k="v"`]
    },
    {
      name: "a cause that is told already is not repeated",
      program: Effect.logError("words", new Error("outer: inner", { cause: new Error("inner") })),
      expected: [`E${HEAD} "words" err="outer: inner"`]
    },
    {
      name: "an error under its key",
      program: Effect.logError("words", { k: "v", err: "what failed" }),
      expected: [`E${HEAD} "words" err="what failed" k="v"`]
    },
    {
      name: "a failure of ours, in a cause",
      program: Effect.logError(
        "words",
        Cause.fail(
          new ProviderNotFound({ provider: "p", searched: [{ directory: "/d", found: "empty" }], waitedMillis: 0 })
        )
      ),
      expected: [`E${HEAD} "words" err="provider not found: provider \\"p\\", searched /d (empty)"`]
    },
    {
      name: "a defect, without its stack",
      program: Effect.logError("words", Cause.die(new TypeError("bug"))),
      expected: [`E${HEAD} "words" err="TypeError: bug"`]
    },
    {
      name: "no secret is shown",
      program: Effect.logInfo("words", {
        direct: Redacted.make("s3cret"),
        labelled: Redacted.make("s3cret", { label: "token" }),
        nested: { list: [Redacted.make("s3cret")], map: new Map([["k", Redacted.make("s3cret")]]) },
        bytes: new TextEncoder().encode("s3cret"),
        err: Redacted.make("s3cret")
      }),
      expected: [
        `I${HEAD} "words" err="<redacted>" direct="<redacted>" labelled="<redacted>" nested={"list":["<redacted>"],"map":{"k":"<redacted>"}} bytes="<6 bytes>"`
      ]
    },
    {
      name: "what is not verbose enough is not written",
      program: Effect.andThen(logV(2)("two"), logV(3)("three")),
      verbosity: 2,
      expected: [`I${HEAD} "two"`]
    },
    {
      name: "debug lines need 4",
      program: Effect.andThen(Effect.logDebug("debug"), Effect.logTrace("trace")),
      verbosity: 4,
      expected: [`I${HEAD} "debug"`]
    },
    { name: "debug lines need 4", program: Effect.logDebug("debug"), verbosity: 3, expected: [] },
    {
      name: "logV takes fields",
      program: logV(5)("words", { k: "v" }),
      verbosity: 5,
      expected: [`I${HEAD} "words" k="v"`]
    }
  ])("1.4 $name", ({ expected, program, verbosity }) =>
    Effect.map(written(program, { verbosity: verbosity ?? 0 }), (lines) => assert.deepStrictEqual(lines, expected))
  )

  it.effect("1.4 from verbosity 6 on an error has its stack, in the same line", () =>
    Effect.gen(function* () {
      const lines = yield* written(Effect.logError("words", new Error("bad")), { verbosity: 6 })
      assert.strictEqual(lines.length, 1)
      assert.match(lines[0]!, /^E\S+ \S+ +4711 driver\.ts:0\] "words" err="bad\\nError: bad\\n {4}at [^\n]+"$/u)
    })
  )

  it.effect("1.4 huge and circular values are cut", () =>
    Effect.gen(function* () {
      const circle: { self?: unknown } = {}
      circle.self = circle
      const lines = yield* written(Effect.logInfo("words", { circle, long: "x".repeat(100_000) }))
      assert.isBelow(lines[0]!.length, 40_000)
      assert.include(lines[0]!, "(67232 more characters)")
    })
  )

  it.effect("1.4 the line of a failed unmount is an error, a healthy one is not", () =>
    Effect.gen(function* () {
      const lines = yield* written(Effect.logError("failed to clean and unmount target path", { err: "busy" }))
      assert.match(lines[0]!, /^E.*failed to clean and unmount target path.*$/u)
    })
  )
})

describe("klog JSON", () => {
  const iso = `${new Date(MOMENT).toISOString().slice(0, 19)}.078000Z`

  it.effect("1.4 keys in their order, and a reserved word as a key", () =>
    Effect.gen(function* () {
      const lines = yield* written(
        Effect.logError("words", new Error("bad"), { k: "v", message: "m", s: Redacted.make("s3cret") }),
        { json: true }
      )
      assert.deepStrictEqual(lines, [
        `{"level":"error","timestamp":"${iso}","caller":"driver.ts:0","message":"words","k":"v","message_":"m","s":"<redacted>","error":"bad"}`
      ])
    })
  )

  it.effect.each([
    [0, "info"],
    [1, "debug"],
    [2, "info"],
    [3, "info"],
    [4, "debug"],
    [5, "debug"],
    [6, "trace"],
    [7, "trace"],
    [8, "all"],
    [9, "all"]
  ] as const)("1.4 a line of verbosity %s has the level %s", ([verbosity, level]) =>
    Effect.gen(function* () {
      const lines = yield* written(logV(verbosity)("words"), { json: true, verbosity: 10 })
      assert.deepStrictEqual(lines, [
        `{"level":"${level}","timestamp":"${iso}","caller":"driver.ts:0","message":"words"}`
      ])
    })
  )

  it.effect("1.4 a warning is of the level info", () =>
    Effect.gen(function* () {
      const lines = yield* written(Effect.logWarning("words"), { json: true })
      assert.include(lines[0]!, '"level":"info"')
    })
  )
})
