/**
 * The pods of this node, as far as they matter here: who they are, and what they ask for in an annotation. Followed
 * while rotation is on; before that, and where the API server does not allow it, nothing is known of them.
 */
import { Context, Effect, Layer, References, type Scope } from "effect"
import type { NodePod } from "../../schemas/Core.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { listeners } from "../reconciler/Listeners.ts"
import * as Reflector from "../reconciler/Reflector.ts"
import * as Resource from "../reconciler/Resource.ts"
import { Settings } from "./Settings.ts"
import type { PodIdentity } from "./VolumeRecord.ts"

type Named = Pick<PodIdentity, "namespace" | "name" | "uid">

export class NodePods extends Context.Service<
  NodePods,
  {
    /** Follows the pods of this node until the scope closes. */
    readonly follow: Effect.Effect<void, never, Scope.Scope>
    /** The very pod: another one of the same name is none. */
    readonly get: (pod: Named) => NodePod | undefined
    /** Whichever pod has this name now. */
    readonly named: (namespace: string, name: string) => NodePod | undefined
    /** They have been listed: a pod that is not known is not there, or not yet. */
    readonly isSynced: () => boolean
    /** It is about to end, or is not among the pods that are followed: gone, or not heard of yet. */
    readonly isEnding: (pod: Named) => boolean
    /** Until the scope closes; runs at once, and does not work itself. */
    readonly onChange: (listener: (namespace: string, name: string) => void) => Effect.Effect<void, never, Scope.Scope>
  }
>()("secrets-store/volume/NodePods") {
  static readonly layer = Layer.effect(
    NodePods,
    Effect.gen(function* () {
      const api = yield* KubernetesApi
      const { nodeId } = yield* Settings
      const changes = listeners<readonly [namespace: string, name: string]>()
      let reflector: Reflector.Reflector<NodePod> | undefined
      const tell = ({ metadata }: NodePod) => changes.tell(metadata.namespace ?? "", metadata.name ?? "")
      const onChange = (change: Reflector.Change<NodePod>) =>
        Effect.sync(() => {
          if (change._tag !== "Synced") return tell(change.object)
          for (const pod of change.objects.values()) tell(pod)
        })
      const get = ({ name, namespace, uid }: Named) => {
        const found = reflector?.get(`${namespace}/${name}`)
        return found?.metadata.uid === uid ? found : undefined
      }
      return NodePods.of({
        // Without a name of its own a node has no pods: the selector would find those that no node has yet.
        follow:
          nodeId === ""
            ? Effect.void
            : Reflector.make({
                resource: Resource.nodePods,
                selection: { fieldSelector: `spec.nodeName=${nodeId}` },
                onChange
              }).pipe(
                Effect.flatMap((made) =>
                  Effect.sync(() => {
                    reflector = made
                  })
                ),
                Effect.provideService(KubernetesApi, api),
                Effect.provideService(References.CurrentLogAnnotations, {})
              ),
        get,
        named: (namespace, name) => reflector?.get(`${namespace}/${name}`),
        isSynced: () => reflector?.isSynced() === true,
        isEnding: (pod) => {
          if (reflector === undefined || !reflector.isSynced() || reflector.failure() !== undefined) return false
          const found = get(pod)
          return found === undefined || found.metadata.deletionTimestamp !== undefined
        },
        onChange: changes.add
      })
    })
  )
}
