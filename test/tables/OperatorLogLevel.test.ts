import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as KlogLogger from "../../layers/real/KlogLogger.ts"
import { decideLogLevel, levelOf } from "../../src/operator/LogLevel.ts"
import { LogLevel } from "../../src/ports/LogLevel.ts"
import { logV } from "../../src/telemetry/Log.ts"

const changed = (from: string, to: string) => ({
  type: "Normal",
  reason: "OperatorLogLevelChange",
  message: `Operator log level changed from "${from}" to "${to}"`
})
const invalid = {
  type: "Warning",
  reason: "OperatorLogLevelInvalid",
  message: 'Invalid logLevel "Loud", falling back to "Normal"'
}

describe("operatorLogLevel", () => {
  it.each([
    { asked: undefined, now: 2, verbosity: undefined, events: [] },
    { asked: "", now: 2, verbosity: undefined, events: [] },
    { asked: "Normal", now: 3, verbosity: undefined, events: [] },
    { asked: "Normal", now: 0, verbosity: 2, events: [] },
    { asked: "Normal", now: 1, verbosity: 2, events: [] },
    { asked: "Debug", now: 0, verbosity: 4, events: [] },
    { asked: "Debug", now: 2, verbosity: 4, events: [changed("Normal", "Debug")] },
    { asked: "Trace", now: 5, verbosity: 6, events: [changed("Debug", "Trace")] },
    { asked: "TraceAll", now: 7, verbosity: 8, events: [changed("Trace", "TraceAll")] },
    { asked: "TraceAll", now: 10, verbosity: undefined, events: [] },
    { asked: undefined, now: 9, verbosity: 2, events: [changed("TraceAll", "Normal")] },
    { asked: "Loud", now: 2, verbosity: undefined, events: [invalid] },
    { asked: "Loud", now: 4, verbosity: 2, events: [invalid, changed("Debug", "Normal")] }
  ])("3.2 $asked at $now", ({ asked, events, now, verbosity }) => {
    assert.deepStrictEqual<unknown>(decideLogLevel(asked, now), { verbosity, events })
  })

  it("3.2 below Normal there is no name", () => {
    assert.deepStrictEqual([levelOf(0), levelOf(1), levelOf(2)], [undefined, undefined, "Normal"])
  })
})

describe("a verbosity that changes", () => {
  it.effect("3.2 holds from the next line on, also for fibers that were there before", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const layer = KlogLogger.layerChanging({
        json: false,
        verbosity: 2,
        pid: 1,
        write: (line) => void lines.push(line.slice(line.indexOf('"')))
      })
      yield* Effect.gen(function* () {
        const level = yield* LogLevel
        const speak = Effect.gen(function* () {
          yield* logV(5)("five")
          yield* Effect.logDebug("debug")
          yield* Effect.logTrace("trace")
          yield* Effect.logInfo("info")
        })
        yield* Effect.forkScoped(Effect.andThen(Effect.sleep("1 second"), speak))
        yield* speak
        assert.deepStrictEqual(lines.splice(0), ['"info"'])
        assert.strictEqual(yield* level.current, 2)
        yield* level.set(5)
        assert.strictEqual(yield* level.current, 5)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(lines.splice(0), ['"five"', '"debug"', '"info"'])
        yield* level.set(6)
        yield* speak
        assert.deepStrictEqual(lines.splice(0), ['"five"', '"debug"', '"trace"', '"info"'])
      }).pipe(Effect.provide(layer))
    })
  )
})
