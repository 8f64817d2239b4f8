/**
 * Pod statuses that others have written or deleted: a volume that is published has one that is true of it.
 *
 * What is told of a pod status is compared with what this process has recorded, after a moment in which its own writes
 * are heard of. Only a pod that is known to be there gets one again: that of a pod that ends goes with its pod. A pod
 * status that was never recorded is the publish call's business; the volume is looked at again until it was.
 *
 * @source reference/driver.md 5.5; reference/defects.md S13
 */
import { Effect } from "effect"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import type { CachedPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import * as ReconcileLoop from "../reconciler/ReconcileLoop.ts"
import type * as Reflector from "../reconciler/Reflector.ts"
import * as WorkQueue from "../reconciler/WorkQueue.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import { NodePods } from "./NodePods.ts"
import * as PodStatus from "./PodStatus.ts"
import { Settings } from "./Settings.ts"
import type { VolumeRecord } from "./VolumeRecord.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** Until what was written is heard of, and a pod that is gone is known to be. */
const SETTLED_MILLIS = 2_000
/** Somebody works on the volume, or its pod is not known yet. */
const SOON_MILLIS = 5_000

/** @shape (pod status as it is held, what was recorded) -> it says that */
const isTrue = (held: CachedPodStatus | undefined, record: VolumeRecord): boolean => {
  const { pod, secretProviderClassName, targetPath } = record
  const wanted = PodStatus.desired({
    nodeId: "",
    pod,
    secretProviderClassName,
    targetPath,
    objectVersions: record.objectVersions
  })
  return held !== undefined && PodStatus.sameStatus(held.status, wanted.status)
}

/**
 * @shape  (held: by `Resource.keyOf`) -> noticed: to be told of every change, `run`: never ends
 * @errors none: what fails is logged and tried again
 */
export const make = Effect.fnUntraced(function* (held: (key: string) => CachedPodStatus | undefined) {
  const api = yield* KubernetesApi
  const pods = yield* NodePods
  const table = yield* VolumeTable
  const { nodeId } = yield* Settings
  const queue = yield* WorkQueue.make()

  const keyOf = ({ pod, podStatusName }: VolumeRecord) => `${pod.namespace}/${podStatusName ?? ""}`
  const heldOf = (record: VolumeRecord) => held(keyOf(record))

  /** The volume that has it by our own account, whatever it says itself. */
  const volumeOf = ({ metadata, status }: CachedPodStatus): VolumeRecord | undefined => {
    const isIts = ({ pod, podStatusName }: VolumeRecord) =>
      podStatusName === metadata.name && pod.namespace === metadata.namespace
    const named = table.get(status?.targetPath ?? "")
    return named !== undefined && isIts(named) ? named : table.all().find(isIts)
  }

  /** What it says now, or, of one that is gone, said last. */
  const look = (podStatus: CachedPodStatus, isThere: boolean): void => {
    const volume = volumeOf(podStatus)
    if (volume === undefined || (isThere && isTrue(podStatus, volume))) return
    queue.addAfter(volume.targetPath, SETTLED_MILLIS)
  }

  const notes = table.followPodStatuses()
  const targetPathOf = ({ status }: CachedPodStatus) => status?.targetPath ?? ""
  const noticed = (change: Reflector.Change<CachedPodStatus>): void => {
    if (change._tag === "Synced") {
      notes.all(new Set([...change.objects.values()].map(targetPathOf)))
      for (const podStatus of change.objects.values()) look(podStatus, true)
      // One that came and went unheard is in no list, and nobody says that it is gone.
      for (const record of table.all()) {
        const isListed = change.objects.has(keyOf(record))
        if (record.podStatusName !== undefined && !isListed) queue.addAfter(record.targetPath, SETTLED_MILLIS)
      }
      return
    }
    const isThere = change._tag === "Applied"
    if (isThere) notes.named(targetPathOf(change.object))
    else notes.gone(targetPathOf(change.object))
    look(change.object, isThere)
  }

  // What was written before this process knew the volume was told when there was nothing to compare it with.
  yield* table.onVolumes((targetPath) => {
    if (table.get(targetPath) !== undefined) queue.addAfter(targetPath, SETTLED_MILLIS)
  })

  const write = Effect.fnUntraced(function* (targetPath: string) {
    const known = table.get(targetPath)
    if (known?.podStatusName === undefined) return
    const { honoured, objectVersions, pod, podStatusName, secretProviderClassName } = known
    const input = { nodeId, pod, secretProviderClassName, targetPath, objectVersions, honoured }
    const { name, written } = yield* PodStatus.record({ ...input, knownName: podStatusName })
    const latest = table.get(targetPath)
    if (latest !== undefined) table.set({ ...latest, podStatusName: name })
    if (!written) return
    yield* Effect.logWarning("a pod status that was changed or deleted by somebody else is written again", {
      [LogKeys.targetPath]: targetPath,
      [LogKeys.pod]: `${pod.namespace}/${pod.name}`,
      podStatus: name
    })
  })

  const reconcile = Effect.fnUntraced(function* (
    targetPath: string
  ): Effect.fn.Return<ReconcileLoop.Outcome, KubernetesApiFailed, KubernetesApi> {
    const known = table.get(targetPath)
    if (known === undefined) return ReconcileLoop.DONE
    // Whoever found the volume could not ask for its record yet, and tells nobody when it has.
    if (known.podStatusName === undefined) return ReconcileLoop.requeueAfter(SOON_MILLIS)
    if (isTrue(heldOf(known), known)) return ReconcileLoop.DONE
    const pod = pods.get(known.pod)
    // Not there any more, or not heard of yet: its volume tells, which then goes or stays.
    if (pod === undefined) return ReconcileLoop.requeueAfter(SOON_MILLIS)
    if (pod.metadata.deletionTimestamp !== undefined) return ReconcileLoop.DONE
    let isDone = false
    yield* table.inBackground(
      targetPath,
      Effect.andThen(
        write(targetPath),
        Effect.sync(() => {
          isDone = true
        })
      )
    )
    return isDone ? ReconcileLoop.DONE : ReconcileLoop.requeueAfter(SOON_MILLIS)
  })

  const run = Effect.provideService(
    ReconcileLoop.run({ name: "pod-status", workers: 1, queue, reconcile }),
    KubernetesApi,
    api
  )
  return { noticed, run }
})
