/**
 * The log lines of a CSI call, at verbosity 5, and what of a request may stand in them.
 *
 * @source driver v1.6.0, pkg/secrets-store/utils.go, and csi-lib-utils' sanitiser; reference/driver.md 2.1, 2.2
 */
import { Cause, Clock, DateTime, Effect, Exit, Redacted } from "effect"
import { TOKENS_KEY } from "../../schemas/Csi.ts"
import type { CsiStatus } from "../../schemas/errors/CsiStatus.ts"
import type { CsiCall } from "../ports/CsiEndpoint.ts"
import { logV, Verbosity } from "../telemetry/Log.ts"

const STRIPPED = "***stripped***"
const VERBOSITY = 5

/** Fields that are maps: their keys are data and stay as they are. */
const MAPS: ReadonlySet<string> = new Set([
  "volumeContext",
  "publishContext",
  "parameters",
  "mutableParameters",
  "segments",
  "manifest"
])

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const snake = (name: string) => name.replace(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`)

/** proto3 does not send these, so they are not shown either. */
const isDefault = (value: unknown): boolean =>
  value === undefined ||
  value === "" ||
  value === 0 ||
  value === 0n ||
  value === false ||
  (Array.isArray(value) && value.length === 0) ||
  (isRecord(value) && !Redacted.isRedacted(value) && Object.keys(value).length === 0)

const shown = (value: unknown, isMap: boolean): unknown => {
  if (Redacted.isRedacted(value)) return STRIPPED
  if (typeof value === "bigint") return value.toString()
  if (Array.isArray(value)) return value.map((item) => shown(item, false))
  if (!isRecord(value)) return value
  const entries = Object.entries(value)
    .filter(([, inner]) => isMap || !isDefault(inner))
    .map(([key, inner]) =>
      key === "secrets" && !isMap
        ? (["secrets", STRIPPED] as const)
        : ([isMap ? key : snake(key), shown(inner, MAPS.has(key))] as const)
    )
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
}

/**
 * A request as it may be logged: compact JSON, proto field names, keys sorted, secrets and tokens replaced.
 *
 * @shape  (request) -> JSON text; "{}" for an empty request
 * @errors none
 */
export const sanitise = (request: Readonly<Record<string, unknown>>): string => {
  const { serviceAccountTokens, ...rest } = request
  if (serviceAccountTokens === undefined) return JSON.stringify(shown(rest, false))
  const context = isRecord(rest["volumeContext"]) ? rest["volumeContext"] : {}
  return JSON.stringify(shown({ ...rest, volumeContext: { ...context, [TOKENS_KEY]: STRIPPED } }, false))
}

const statusFields = (exit: Exit.Exit<unknown, CsiStatus>) => {
  if (Exit.isSuccess(exit)) return { "status.code": "OK", "status.message": "" }
  const failure = Cause.findErrorOption(exit.cause)
  if (failure._tag === "Some") return { "status.code": failure.value.grpcCode, "status.message": failure.value.details }
  return { "status.code": Cause.hasInterruptsOnly(exit.cause) ? "CANCELLED" : "INTERNAL", "status.message": "" }
}

/** Logs a request and what became of it; nothing is rendered below verbosity 5. */
export const logged = <A, R>(
  request: Readonly<Record<string, unknown>>,
  call: CsiCall,
  effect: Effect.Effect<A, CsiStatus, R>
): Effect.Effect<A, CsiStatus, R> =>
  Effect.gen(function* () {
    if ((yield* Verbosity) < VERBOSITY) return yield* effect
    const deadline = Number.isFinite(call.deadlineMillis)
      ? DateTime.formatIso(DateTime.makeUnsafe(call.deadlineMillis))
      : "none"
    const method = call.method
    yield* logV(VERBOSITY)("request", { method, req: sanitise(request), deadline })
    const started = yield* Clock.monotonicTimeNanos
    return yield* Effect.onExit(effect, (exit) =>
      Effect.flatMap(Clock.monotonicTimeNanos, (now) =>
        logV(VERBOSITY)("response", {
          method,
          deadline,
          duration: `${(Number(now - started) / 1e6).toFixed(3)}ms`,
          ...statusFields(exit)
        })
      )
    )
  })
