/**
 * Carries out a plan, action by action: each is one or two requests, each may be done twice, and each says what came of
 * it. An action whose forerunner has failed is left for the next time.
 */
import { Effect, Result } from "effect"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { KubernetesApi } from "../ports/KubernetesApi.ts"
import * as Resource from "../reconciler/Resource.ts"
import type { Outcome } from "./Conditions.ts"
import { idOf, keyOf, resourceOf } from "./Kinds.ts"
import { Annotation, DRIVER_NAME } from "./Names.ts"
import type { Action } from "./Plan.ts"

/** How one action has ended: with the object as it is now, if there is one. */
export type Ended = Result.Result<Manifest | undefined, KubernetesApiFailed>

export interface Performed extends Outcome {
  /** Those that were begun, in order. */
  readonly ended: ReadonlyArray<{ readonly action: Action; readonly result: Ended }>
}

/** A namespace on its way out takes nothing new, and needs nothing any more. */
const isEnding = (action: Action, { detail, status }: KubernetesApiFailed): boolean =>
  action._tag === "Apply" && action.id.kind === "RoleBinding" && status === 403 && detail.includes("being terminated")

const absentIsDone = <R>(effect: Effect.Effect<void, KubernetesApiFailed, R>) =>
  Effect.catchIf(
    effect,
    ({ isNotFound }) => isNotFound,
    () => Effect.void
  )

/** Changes metadata of the ClusterCSIDriver, if it still is the one that was planned on. Says which version it is now. */
const mark = (resourceVersion: string, metadata: Readonly<Record<string, unknown>>) =>
  Effect.map(
    Resource.mergePatch(Resource.clusterCsiDrivers, "", DRIVER_NAME, { metadata: { ...metadata, resourceVersion } }),
    (it) => it.metadata.resourceVersion ?? ""
  )

const applyChange = Effect.fnUntraced(function* (
  action: Action & { readonly _tag: "Apply" }
): Effect.fn.Return<Manifest | undefined, KubernetesApiFailed, KubernetesApi> {
  const resource = resourceOf(action.id.kind)
  if (resource === undefined) return undefined
  const { change, id } = action
  switch (change._tag) {
    case "Create":
      return yield* Resource.create(resource, change.object)
    case "Update":
      return yield* Resource.replace(resource, change.object)
    case "Recreate":
      yield* absentIsDone(Resource.remove(resource, id.namespace, id.name, { uid: change.uid }))
      return yield* Resource.create(resource, change.object)
  }
})

/**
 * @shape  (actions, live objects before) -> what came of each
 * @errors none: they are part of the outcome
 */
export const perform = Effect.fn("Operator.perform")(function* (
  actions: ReadonlyArray<Action>,
  before: ReadonlyMap<string, Manifest>
): Effect.fn.Return<Performed, never, KubernetesApi> {
  const live = new Map(before)
  const errors = new Map<string, string>()
  const undone = new Set<string>()
  const ended: Array<{ readonly action: Action; readonly result: Ended }> = []
  /** Of the ClusterCSIDriver, after our own changes. */
  let version: string | undefined

  const run = (action: Action): Effect.Effect<Manifest | undefined, KubernetesApiFailed, KubernetesApi> => {
    switch (action._tag) {
      case "EnsureFinalizer":
      case "RemoveFinalizer":
        return Effect.map(mark(version ?? action.resourceVersion, { finalizers: action.finalizers }), (it) => {
          version = it
          return undefined
        })
      case "Remember":
        return Effect.map(
          mark(version ?? action.resourceVersion, { annotations: { [Annotation.rememberedTokens]: action.value } }),
          (it) => {
            version = it
            return undefined
          }
        )
      case "Apply":
        return applyChange(action)
      case "Delete": {
        const resource = resourceOf(action.id.kind)
        return resource === undefined
          ? Effect.undefined
          : Effect.as(
              absentIsDone(Resource.remove(resource, action.id.namespace, action.id.name, { uid: action.uid })),
              undefined
            )
      }
    }
  }

  for (const action of actions) {
    if (action.requires.some((key) => undone.has(key))) {
      undone.add(action.key)
      continue
    }
    const result = yield* Effect.result(run(action))
    if (Result.isFailure(result) && isEnding(action, result.failure)) continue
    ended.push({ action, result })
    if (Result.isFailure(result)) {
      undone.add(action.key)
      errors.set(action.key, `${result.failure.message} (${result.failure.remedy})`)
    } else if (result.success !== undefined) {
      live.set(keyOf(idOf(result.success)), result.success)
    } else if (action._tag === "Delete") {
      live.delete(action.key)
    }
  }
  return { live, errors, ended }
})
