/**
 * Kubernetes Secrets of ours whose last user went while no driver was there to see it: found once, after a start.
 *
 * Asked for: the classes of the cluster, and of each namespace in which one of them wants a Secret, the Secrets of ours
 * and, if there are any, the pods. Where that is not allowed nothing is found. What is found is looked at again, and
 * marked, before it goes: this is a hint, and no verdict.
 */
import { Effect, Option } from "effect"
import type { SyncedSecret } from "../../schemas/Core.ts"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { PodUse } from "../../schemas/PodUse.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import * as Resource from "../reconciler/Resource.ts"
import { MANAGED_LABEL } from "./SecretData.ts"
import { KEYS, mayGo } from "./SecretPlan.ts"
import { useOf } from "./SecretUsers.ts"
import { secretNames } from "./SyncedVolumes.ts"

/** Of one namespace. */
interface Found {
  /** Those that may go. */
  readonly secrets: ReadonlyArray<SyncedSecret>
  readonly classes: ReadonlyArray<SecretProviderClass>
  readonly pods: ReadonlyArray<PodUse>
}

/**
 * @shape  ({ secrets, classes, pods } of one namespace, name of the CSI driver) -> names of the Secrets that nobody uses
 * @errors none
 */
export const among = ({ classes, pods, secrets }: Found, driverName: string): ReadonlyArray<string> => {
  const names = new Map(classes.map((it) => [it.metadata.name ?? "", new Set(secretNames(it))]))
  return secrets.flatMap(({ metadata: { annotations = {}, name = "" } }) => {
    const asksFor = (className: string) =>
      // Of a class that is gone it is only known what has been made of it.
      annotations[KEYS.className] === className || names.get(className)?.has(name) === true
    return useOf(pods, name, driverName, asksFor) === "Unused" ? [name] : []
  })
}

/** All namespaces, or some. */
export type Where = "everywhere" | ReadonlyArray<string>

export interface Search {
  readonly found: ReadonlyArray<{ readonly namespace: string; readonly name: string }>
  /** Where it is not allowed to look, as before the rights of a namespace are there. */
  readonly refused: Where
}

/** Nothing where asking again soon does not help. */
const allowed = <A, R>(effect: Effect.Effect<A, KubernetesApiFailed, R>) =>
  Effect.catchIf(
    Effect.asSome(effect),
    (failure) => !failure.isTransient,
    () => Effect.succeedNone
  )

const inNamespace = Effect.fnUntraced(function* (
  namespace: string,
  classes: ReadonlyArray<SecretProviderClass>,
  driverName: string
) {
  const selection = { namespace, labelSelector: `${MANAGED_LABEL}=true` }
  const { objects } = yield* Resource.list(Resource.syncedSecrets, selection)
  const secrets = objects.filter(({ metadata }) => mayGo(metadata))
  if (secrets.length === 0) return []
  const { objects: pods } = yield* Resource.list(Resource.podUses, { namespace })
  return among({ secrets, classes, pods }, driverName).map((name) => ({ namespace, name }))
})

const classesIn = (where: Where) =>
  where === "everywhere"
    ? Effect.map(Resource.list(Resource.secretProviderClasses), ({ objects }) => objects)
    : Effect.map(
        Effect.forEach(where, (namespace) => Resource.list(Resource.secretProviderClasses, { namespace })),
        (lists) => lists.flatMap(({ objects }) => objects)
      )

/**
 * @shape  (name of the CSI driver, where to look) -> namespaces and names of Secrets that nobody uses, and where to look again
 * @errors KubernetesApiFailed, when trying again at once may help
 */
export const find = Effect.fnUntraced(function* (driverName: string, where: Where = "everywhere") {
  const listed = yield* allowed(classesIn(where))
  if (Option.isNone(listed)) return { found: [], refused: where } satisfies Search
  const classes = Map.groupBy(
    listed.value.filter((it) => secretNames(it).length > 0),
    ({ metadata }) => metadata.namespace ?? ""
  )
  const searches = yield* Effect.forEach([...classes], ([namespace, its]) =>
    Effect.map(allowed(inNamespace(namespace, its, driverName)), (found) => ({ namespace, found }))
  )
  return {
    found: searches.flatMap(({ found }) => Option.getOrElse(found, () => [])),
    refused: searches.flatMap(({ found, namespace }) => (Option.isNone(found) ? [namespace] : []))
  } satisfies Search
})
