/**
 * Asks every provider that was used so far for its version, now and then.
 *
 * @source driver v1.6.0, pkg/secrets-store/provider_client.go, HealthCheck; reference/driver.md 3.3
 */
import { Duration, Effect } from "effect"
import { Providers } from "../ports/Providers.ts"
import { logV } from "../telemetry/Log.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"

const CHECK_TIMEOUT = "5 seconds"
const VERBOSITY = 4
/** Providers asked at a time: one that hangs does not hold up the others. */
const CONCURRENCY = 4

const checkOne = Effect.fnUntraced(function* (provider: string) {
  const providers = yield* Providers
  const answer = yield* Effect.result(Effect.timeout(providers.version(provider), CHECK_TIMEOUT))
  const fields = { [LogKeys.provider]: provider }
  yield* answer._tag === "Success"
    ? logV(VERBOSITY)("provider healthcheck successful", { ...fields, runtimeVersion: answer.success.runtimeVersion })
    : logV(VERBOSITY)("provider healthcheck failed", { ...fields, [LogKeys.error]: answer.failure.message })
})

/** Never ends; the first check comes one interval after the start. */
export const watchProviders = Effect.fnUntraced(function* (intervalMillis: number) {
  const providers = yield* Providers
  const sweep = Effect.flatMap(providers.known, (names) =>
    Effect.forEach(names, checkOne, { concurrency: CONCURRENCY, discard: true })
  )
  return yield* Effect.forever(Effect.delay(sweep, Duration.millis(Math.max(1, intervalMillis))))
})
