/**
 * Asks every provider that was used so far for its version, now and then, and tells what came of it: in metrics, and in
 * the log when a provider stops or starts to answer. Routing and liveness do not depend on it, nobody waits for it, and
 * it does not fail.
 *
 * @source driver v1.6.0, pkg/secrets-store/provider_client.go, HealthCheck; reference/driver.md 3.3, Q24;
 *         reference/defects.md D10
 */
import { Duration, Effect, Result } from "effect"
import type { GrpcCode } from "../../schemas/errors/CsiStatus.ts"
import {
  ProviderCallFailed,
  type ProviderNameInvalid,
  type ProviderNotFound
} from "../../schemas/errors/ProviderFailed.ts"
import type { VersionResponse } from "../../schemas/Provider.ts"
import { Providers } from "../ports/Providers.ts"
import { logV } from "../telemetry/Log.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import * as Metrics from "../telemetry/Metrics.ts"

const CHECK_MILLIS_MAX = 5_000
const VERBOSITY = 4
/** Providers asked at a time: one that hangs does not hold up the others. */
const CONCURRENCY = 4

type CheckFailed = ProviderNameInvalid | ProviderNotFound | ProviderCallFailed

interface Line {
  /** V(4) is upstream's; the others are written at any verbosity. */
  readonly level: "V(4)" | "Info" | "Warning"
  readonly words: string
  readonly fields: Readonly<Record<string, string>>
}

interface Verdict {
  /** OK means up, everything else down. */
  readonly grpcCode: GrpcCode
  readonly lines: ReadonlyArray<Line>
}

const grpcCodeOf = (failure: CheckFailed): GrpcCode => {
  switch (failure._tag) {
    case "ProviderCallFailed":
      return failure.grpcCode
    // To whoever watches, a provider whose socket went and one that does not accept are the same.
    case "ProviderNotFound":
      return "UNAVAILABLE"
    case "ProviderNameInvalid":
      return "INVALID_ARGUMENT"
  }
}

/**
 * What one check means, given the one before. A provider is checked because it was called, so it counts as up before
 * its first check: a first failure is told, a first success is not.
 *
 * @shape  (provider, whether its last check found it up, if there was one, its answer) -> { grpcCode, lines }
 * @errors none
 * @source reference/driver.md 3.3 for the V(4) lines; reference/defects.md D10 for the others
 */
export const judge = (
  provider: string,
  wasUp: boolean | undefined,
  answer: Result.Result<VersionResponse, CheckFailed>
): Verdict => {
  if (Result.isSuccess(answer)) {
    const fields = { [LogKeys.provider]: provider, runtimeVersion: answer.success.runtimeVersion }
    const successful: Line = { level: "V(4)", words: "provider healthcheck successful", fields }
    const cameUp: Line = { level: "Info", words: "provider answers health checks again", fields }
    return { grpcCode: "OK", lines: wasUp === false ? [successful, cameUp] : [successful] }
  }
  const { failure } = answer
  const fields = { [LogKeys.provider]: provider, [LogKeys.error]: failure.message }
  const failed: Line = { level: "V(4)", words: "provider healthcheck failed", fields }
  const wentDown: Line = {
    level: "Warning",
    words: "provider does not answer health checks",
    fields: { ...fields, [LogKeys.remedy]: failure.remedy }
  }
  return { grpcCode: grpcCodeOf(failure), lines: wasUp === false ? [failed] : [failed, wentDown] }
}

const write = ({ fields, level, words }: Line): Effect.Effect<void> => {
  switch (level) {
    case "V(4)":
      return logV(VERBOSITY)(words, fields)
    case "Info":
      return Effect.logInfo(words, fields)
    case "Warning":
      return Effect.logWarning(words, fields)
  }
}

const ask = Effect.fnUntraced(function* (provider: string) {
  const providers = yield* Providers
  return yield* Effect.timeoutOrElse(providers.version(provider), {
    duration: CHECK_MILLIS_MAX,
    orElse: () =>
      Effect.fail(
        new ProviderCallFailed({
          provider,
          grpcCode: "DEADLINE_EXCEEDED",
          details: `provider ${JSON.stringify(provider)} did not answer within ${CHECK_MILLIS_MAX} ms`,
          unanswered: true
        })
      )
  })
})

/**
 * Never ends. The first check comes one interval after the start, the next one interval after the last one ended, so
 * that checks of a provider never overlap; each takes five seconds at most. A provider that is not known any more is
 * forgotten, and its gauge goes with it.
 *
 * @units milliseconds; what is below one, zero and negative numbers too, counts as one
 */
export const watchProviders = Effect.fnUntraced(function* (intervalMillis: number) {
  const providers = yield* Providers
  const wasUp = new Map<string, boolean>()
  const check = Effect.fnUntraced(function* (provider: string) {
    const { grpcCode, lines } = judge(provider, wasUp.get(provider), yield* Effect.result(ask(provider)))
    wasUp.set(provider, grpcCode === "OK")
    yield* Metrics.providerChecked({ provider, grpcCode })
    for (const line of lines) yield* write(line)
  })
  const sweep = Effect.gen(function* () {
    const known = yield* providers.known
    for (const gone of [...wasUp.keys()].filter((provider) => !known.includes(provider))) {
      wasUp.delete(gone)
      yield* Metrics.providerForgotten(gone)
    }
    yield* Effect.forEach(known, check, { concurrency: CONCURRENCY, discard: true })
  })
  return yield* Effect.forever(Effect.delay(sweep, Duration.millis(Math.max(1, intervalMillis))))
})
