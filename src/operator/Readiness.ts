/**
 * Whether this replica counts as working: it has seen the API server, and is not on its way out. Who waits for the Lease
 * is as ready as who holds it.
 *
 * @source reference/operator.md 1.5
 */
import { Effect, type Scope } from "effect"
import type { OperatorConfig } from "../../schemas/OperatorConfig.ts"
import type { KubernetesApi } from "../ports/KubernetesApi.ts"
import { Shutdown } from "../ports/Shutdown.ts"
import * as Resource from "../reconciler/Resource.ts"
import { leaseFirstRead } from "../reconciler/Schedules.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"

/**
 * Looks at the Lease until it could be read once; that there is none yet is an answer, too.
 *
 * @shape  (config) -> { check }, which fails with the reason
 * @units  one request a second
 * @errors none
 */
export const make = Effect.fnUntraced(function* ({
  lease
}: Pick<OperatorConfig, "lease">): Effect.fn.Return<
  { readonly check: Effect.Effect<void, { readonly message: string }> },
  never,
  KubernetesApi | Shutdown | Scope.Scope
> {
  const shutdown = yield* Shutdown
  let reason: string | undefined = "the lease was not read yet"
  let isSaid = false

  yield* Resource.get(Resource.leases, lease.namespace, lease.name).pipe(
    Effect.asVoid,
    Effect.catchIf(
      ({ isNotFound }) => isNotFound,
      () => Effect.void
    ),
    Effect.tapError((failure) => {
      reason = `the lease cannot be read: ${failure.message}`
      if (isSaid) return Effect.void
      isSaid = true
      return Effect.logWarning("the lease cannot be read, not ready until it can", {
        [LogKeys.error]: failure.message,
        [LogKeys.remedy]: failure.remedy
      })
    }),
    Effect.retry(leaseFirstRead),
    Effect.andThen(
      Effect.sync(() => {
        reason = undefined
      })
    ),
    Effect.forkScoped
  )
  let isStopping = false
  yield* Effect.forkScoped(
    Effect.andThen(
      shutdown.requested,
      Effect.sync(() => {
        isStopping = true
      })
    )
  )
  return {
    check: Effect.suspend(() => {
      const message = isStopping ? "shutting down" : reason
      return message === undefined ? Effect.void : Effect.fail({ message })
    })
  }
})
