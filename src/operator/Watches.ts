/**
 * What wakes the operator: one watch per object that it manages, by name, so that a busy cluster does not. An event says
 * only "look again"; of an object nothing but its version is kept.
 *
 * @source reference/operator.md 1.9, Q24
 */
import { Effect, Schema, type Scope } from "effect"
import type { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"
import type { KubernetesApi } from "../ports/KubernetesApi.ts"
import * as Reflector from "../reconciler/Reflector.ts"
import * as Resource from "../reconciler/Resource.ts"
import { type OperandId, resourceOf } from "./Kinds.ts"
import { DRIVER_NAME, SYNC_LABEL } from "./Names.ts"

const text = Schema.optionalKey(Schema.String)
const Version = Schema.Struct({ metadata: Schema.Struct({ name: text, namespace: text, resourceVersion: text }) })

/** SecretProviderClasses, as far as they ask for Secrets. */
const syncingClasses = Resource.make({
  group: "secrets-store.csi.x-k8s.io",
  version: "v1",
  plural: "secretproviderclasses",
  kind: "SecretProviderClass",
  namespaced: true,
  schema: Schema.Struct({
    metadata: Schema.Struct({ name: text, namespace: text, resourceVersion: text }),
    spec: Schema.optionalKey(
      Schema.Struct({ secretObjects: Schema.optionalKey(Schema.Array(Schema.Struct({ secretName: text }))) })
    )
  })
})

const versionOf = (kind: string): Resource.Resource<typeof Version.Type> | undefined => {
  const resource = resourceOf(kind)
  if (resource === undefined) return undefined
  const { group, namespaced, plural, version } = resource
  return Resource.make({ group, version, plural, kind, namespaced, schema: Version })
}

const follow = (
  kind: string,
  selection: Resource.Selection,
  changed: () => void
): Effect.Effect<void, never, KubernetesApi | Scope.Scope> => {
  const resource = versionOf(kind)
  return resource === undefined
    ? Effect.void
    : Effect.asVoid(Reflector.make({ resource, selection, onChange: () => Effect.sync(changed) }))
}

export interface Watches {
  /** Namespaces whose SecretProviderClasses ask for Secrets; undefined while that is not known. */
  readonly syncNamespaces: () => ReadonlySet<string> | undefined
  /** It was tried once to find out what there is. */
  readonly attempted: Effect.Effect<void>
}

export interface Options {
  readonly operands: ReadonlyArray<OperandId>
  /** Runs within a watch: notes, and does not work itself. */
  readonly operandChanged: () => void
  readonly clusterCsiDriverChanged: (it: ClusterCSIDriver | undefined) => Effect.Effect<void>
}

/**
 * Watches until the scope closes. A kind that is not served is asked for again and again, which is no failure.
 *
 * @shape  (options) -> Watches
 * @errors none
 */
export const make = Effect.fnUntraced(function* ({
  clusterCsiDriverChanged,
  operandChanged,
  operands
}: Options): Effect.fn.Return<Watches, never, KubernetesApi | Scope.Scope> {
  yield* Reflector.make({
    resource: Resource.clusterCsiDrivers,
    selection: { fieldSelector: `metadata.name=${DRIVER_NAME}` },
    onChange: (change) =>
      change._tag === "Synced"
        ? clusterCsiDriverChanged(change.objects.get(DRIVER_NAME))
        : clusterCsiDriverChanged(change._tag === "Applied" ? change.object : undefined)
  })
  for (const { kind, name, namespace } of operands) {
    const fieldSelector = `metadata.name=${name}`
    yield* follow(kind, namespace === "" ? { fieldSelector } : { namespace, fieldSelector }, operandChanged)
  }
  yield* follow("RoleBinding", { labelSelector: `${SYNC_LABEL}=true` }, operandChanged)
  const classes = yield* Reflector.make({
    resource: syncingClasses,
    onChange: () => Effect.sync(operandChanged)
  })
  return {
    attempted: classes.attempted,
    syncNamespaces: () => {
      // Where there are no SecretProviderClasses, none can ask for anything.
      if (!classes.isSynced()) return classes.failure()?.isNotFound === true ? new Set() : undefined
      const namespaces = new Set<string>()
      for (const { metadata, spec } of classes.objects().values()) {
        if ((spec?.secretObjects ?? []).length > 0 && metadata.namespace !== undefined)
          namespaces.add(metadata.namespace)
      }
      return namespaces
    }
  }
})
