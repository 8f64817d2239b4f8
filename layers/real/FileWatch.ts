/**
 * Files whose change ends the process, as another way of being told to stop.
 *
 * Contents are compared every ten seconds: files of a mounted Secret are links that are swapped, which no watch of the
 * file itself sees. Of a content only its hash is kept. A file that appears or goes has changed; one that cannot be read
 * for another reason has not, and that is logged once.
 *
 * @source reference/operator.md 1.1, 1.2, 1.10
 */
import { hash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { Deferred, Effect, Layer, Predicate, Schedule } from "effect"
import { Shutdown } from "../../src/ports/Shutdown.ts"
import { LogKeys } from "../../src/telemetry/LogKeys.ts"

const fileCheck = Schedule.spaced("10 seconds")

type Look =
  | { readonly _tag: "Content"; readonly hash: string }
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Unreadable"; readonly reason: string }

/** @shape (path) -> what is there now */
export const look = (path: string): Effect.Effect<Look> =>
  Effect.promise(async (): Promise<Look> => {
    try {
      return { _tag: "Content", hash: hash("sha256", await readFile(path)) }
    } catch (cause) {
      const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : "unknown error"
      return code === "ENOENT" || code === "ENOTDIR" ? { _tag: "Absent" } : { _tag: "Unreadable", reason: code }
    }
  })

/** @shape (before, now) -> whether that is a change, and what to compare with from now on */
export const compare = (before: Look, now: Look): { readonly changed: boolean; readonly kept: Look } => {
  if (now._tag === "Unreadable") return { changed: false, kept: before }
  // The first look that tells anything.
  if (before._tag === "Unreadable") return { changed: false, kept: now }
  const changed =
    before._tag !== now._tag || (before._tag === "Content" && now._tag === "Content" && before.hash !== now.hash)
  return { changed, kept: now }
}

/**
 * Wraps the Shutdown that there is: it is requested by a change of a file, too.
 *
 * @shape  (paths) -> Layer; does nothing without paths
 * @units  every ten seconds
 * @errors none
 */
export const layer = (paths: ReadonlyArray<string>): Layer.Layer<Shutdown, never, Shutdown> =>
  Layer.effect(
    Shutdown,
    Effect.gen(function* () {
      const shutdown = yield* Shutdown
      if (paths.length === 0) return shutdown
      const changed = yield* Deferred.make<string>()
      const kept = new Map<string, Look>()
      const complained = new Set<string>()
      const poll = Effect.forEach(
        paths,
        Effect.fnUntraced(function* (path) {
          const now = yield* look(path)
          if (now._tag === "Unreadable" && !complained.has(path)) {
            complained.add(path)
            yield* Effect.logWarning("a file to be watched cannot be read", { file: path, [LogKeys.error]: now.reason })
          }
          const verdict = compare(kept.get(path) ?? now, now)
          kept.set(path, verdict.kept)
          if (!verdict.changed) return
          yield* Effect.logInfo("a watched file has changed, stopping", { file: path })
          yield* Deferred.succeed(changed, `change of ${path}`)
        }),
        { discard: true }
      )
      yield* poll
      yield* Effect.forkScoped(Effect.delay(Effect.repeat(poll, fileCheck), "10 seconds"))
      return Shutdown.of({ requested: Effect.raceFirst(shutdown.requested, Deferred.await(changed)) })
    })
  )
