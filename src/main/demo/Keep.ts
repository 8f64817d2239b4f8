/**
 * The demo that stays: the played kubelet republishes the volume every second, so that a changed secret appears, and
 * what changed is shown.
 */
import { DateTime, Effect, Schedule } from "effect"
import * as Files from "./Files.ts"
import { type Stage, SWITCHED_SECONDS } from "./Stage.ts"
import type { Terminal } from "./Terminal.ts"

const everySecond = Schedule.spaced("1 second")

const listed = (files: ReadonlyArray<Files.SeenFile>) =>
  files.map(({ content, mode, name }) => `${mode}  ${name}: ${JSON.stringify(content)}`)

/** @shape (stage, terminal, until) -> ends when `until` does; a failed republish is shown and tried again */
export const keep = Effect.fnUntraced(function* (stage: Stage, terminal: Terminal, until: Effect.Effect<void>) {
  yield* terminal.say(
    "",
    "The volume stays mounted. The kubelet republishes it every second, and it is refreshed every",
    `${SWITCHED_SECONDS} s. In another terminal:`,
    "",
    `  secrets=${stage.secretsDirectory}`,
    `  volume=${stage.target}`,
    "",
    "  echo -n hunter2 > $secrets/password; ls -la $volume; cat $volume/password",
    `  curl ${stage.healthUrl}/healthz ${stage.metricsUrl}`,
    "",
    "Ctrl-C unpublishes the volume and cleans up.",
    ""
  )
  let shown = JSON.stringify(Files.seenBy(stage.target))
  const once = Effect.gen(function* () {
    const failure = yield* stage.kubelet.publish(stage.volume).pipe(
      Effect.as(undefined),
      Effect.catchTag("CsiCallFailed", ({ grpcCode, message }) => Effect.succeed(`${grpcCode}: ${message}`))
    )
    const files = Files.seenBy(stage.target)
    const now = failure ?? JSON.stringify(files)
    if (now === shown) return
    shown = now
    const time = DateTime.formatIso(yield* DateTime.now).slice(11, 19)
    yield* terminal.say(
      ...(failure === undefined ? [`${time} the pod sees`, ...listed(files)] : [`${time} ${failure}`])
    )
  })
  yield* Effect.raceFirst(until, Effect.repeat(once, everySecond))
})
