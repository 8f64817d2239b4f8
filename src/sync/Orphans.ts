/**
 * Kubernetes Secrets of ours whose last user went while no driver was there to see it: found once, after a start. And those
 * whose last user here may go unseen, as a pod that ends before any of its volumes is mounted.
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

/** Who looks for them. */
export interface Seeker {
  readonly driverName: string
  readonly nodeId: string
}

/**
 * A Secret that only awaits its users is for the nodes of these to look after. Who has no node yet is told of by the one
 * that it gets; if it goes before that, the next start of any driver finds out.
 *
 * @shape  ({ secrets, classes, pods } of one namespace, Seeker) -> names of the Secrets that this node is to look after
 *         although nobody here has mounted anything for them
 * @errors none
 */
export const among = ({ classes, pods, secrets }: Found, { driverName, nodeId }: Seeker): ReadonlyArray<string> => {
  const podsHere = pods.filter(({ spec }) => spec?.nodeName === nodeId)
  const names = new Map(classes.map((it) => [it.metadata.name ?? "", new Set(secretNames(it))]))
  return secrets.flatMap(({ metadata: { annotations = {}, name = "" } }) => {
    const asksFor = (className: string) =>
      // Of a class that is gone it is only known what has been made of it.
      annotations[KEYS.className] === className || names.get(className)?.has(name) === true
    const use = useOf(pods, name, driverName, asksFor)
    if (use === "Used") return []
    return use === "Unused" || useOf(podsHere, name, driverName, asksFor) !== "Unused" ? [name] : []
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
  seeker: Seeker
) {
  const selection = { namespace, labelSelector: `${MANAGED_LABEL}=true` }
  const { objects } = yield* Resource.list(Resource.syncedSecrets, selection)
  const secrets = objects.filter(({ metadata }) => mayGo(metadata))
  if (secrets.length === 0) return []
  const { objects: pods } = yield* Resource.list(Resource.podUses, { namespace })
  return among({ secrets, classes, pods }, seeker).map((name) => ({ namespace, name }))
})

const classesIn = (where: Where) =>
  where === "everywhere"
    ? Effect.map(Resource.list(Resource.secretProviderClasses), ({ objects }) => objects)
    : Effect.map(
        Effect.forEach(where, (namespace) => Resource.list(Resource.secretProviderClasses, { namespace })),
        (lists) => lists.flatMap(({ objects }) => objects)
      )

/**
 * @shape  (Seeker, where to look) -> namespaces and names of the Secrets that `among` finds, and where to look again
 * @errors KubernetesApiFailed, when trying again at once may help
 */
export const find = Effect.fnUntraced(function* (seeker: Seeker, where: Where = "everywhere") {
  const listed = yield* allowed(classesIn(where))
  if (Option.isNone(listed)) return { found: [], refused: where } satisfies Search
  const classes = Map.groupBy(
    listed.value.filter((it) => secretNames(it).length > 0),
    ({ metadata }) => metadata.namespace ?? ""
  )
  const searches = yield* Effect.forEach([...classes], ([namespace, its]) =>
    Effect.map(allowed(inNamespace(namespace, its, seeker)), (found) => ({ namespace, found }))
  )
  return {
    found: searches.flatMap(({ found }) => Option.getOrElse(found, () => [])),
    refused: searches.flatMap(({ found, namespace }) => (Option.isNone(found) ? [namespace] : []))
  } satisfies Search
})
