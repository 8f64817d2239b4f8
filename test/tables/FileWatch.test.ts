import { mkdtempSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { compare, layer, look } from "../../layers/real/FileWatch.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "watch-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const content = (hash: string) => ({ _tag: "Content", hash }) as const
const absent = { _tag: "Absent" } as const
const unreadable = { _tag: "Unreadable", reason: "EACCES" } as const

describe("what a change is", () => {
  it.each([
    { before: content("a"), now: content("a"), changed: false, kept: content("a") },
    { before: content("a"), now: content("b"), changed: true, kept: content("b") },
    { before: content("a"), now: absent, changed: true, kept: absent },
    { before: absent, now: content("a"), changed: true, kept: content("a") },
    { before: absent, now: absent, changed: false, kept: absent },
    { before: content("a"), now: unreadable, changed: false, kept: content("a") },
    { before: unreadable, now: content("a"), changed: false, kept: content("a") },
    { before: unreadable, now: unreadable, changed: false, kept: unreadable }
  ])("1.1 $before, then $now", ({ before, changed, kept, now }) => {
    assert.deepStrictEqual(compare(before, now), { changed, kept })
  })

  it.live("1.2 what is there", () =>
    Effect.gen(function* () {
      const path = yield* directory
      writeFileSync(join(path, "a"), "x")
      assert.strictEqual((yield* look(join(path, "a")))._tag, "Content")
      assert.strictEqual((yield* look(join(path, "b")))._tag, "Absent")
      assert.strictEqual((yield* look(join(path, "a", "b")))._tag, "Absent")
      assert.deepStrictEqual(yield* look(path), { _tag: "Unreadable", reason: "EISDIR" })
    })
  )
})

/** Real files take real time; the ten seconds do not. */
const rest = TestClock.withLive(Effect.sleep("30 millis"))
const tenSeconds = Effect.andThen(TestClock.adjust("10 seconds"), rest)

const started = Effect.fnUntraced(function* (paths: ReadonlyArray<string>) {
  const signal = yield* Deferred.make<string>()
  const context = yield* Layer.build(
    Layer.provide(layer(paths), Layer.succeed(Shutdown, Shutdown.of({ requested: Deferred.await(signal) })))
  )
  const asked = yield* Effect.forkScoped(
    Effect.provide(
      Effect.flatMap(Shutdown, (it) => it.requested),
      context
    ),
    {
      startImmediately: true
    }
  )
  return { signal, asked }
})

describe("being told to stop by a file", () => {
  it.effect("1.10 a swapped link of a mounted Secret is a change, after at most ten seconds", () =>
    Effect.gen(function* () {
      const path = yield* directory
      const file = join(path, "tls.crt")
      writeFileSync(join(path, "1"), "one")
      writeFileSync(join(path, "2"), "two")
      symlinkSync("1", file)
      const { asked } = yield* started([join(path, "absent"), file])
      yield* tenSeconds
      yield* tenSeconds
      assert.isUndefined(asked.pollUnsafe())
      unlinkSync(file)
      symlinkSync("2", file)
      yield* tenSeconds
      assert.strictEqual(yield* Fiber.join(asked), `change of ${file}`)
    })
  )

  it.effect("1.10 signals are heard as before, with files and without", () =>
    Effect.gen(function* () {
      for (const paths of [[], ["/nowhere"]]) {
        const { asked, signal } = yield* started(paths)
        yield* Deferred.succeed(signal, "SIGTERM")
        assert.strictEqual(yield* Fiber.join(asked), "SIGTERM")
      }
    })
  )
})
