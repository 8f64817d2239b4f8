/**
 * Volumes that an earlier process of the driver has mounted and answered for, and did not live to record. A kubelet that
 * does not republish never asks for them again: without rotation they are looked for once, after a start.
 *
 * What the API server knows of this node is compared with itself, and only what is missing is looked for on the disk.
 *
 * @source reference/driver.md 5.5; reference/defects.md, invariant S13
 */
import { Effect } from "effect"
import type { DriverConfig } from "../../schemas/Config.ts"
import type { NodePod } from "../../schemas/Core.ts"
import type { CachedPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import { parseTargetPath } from "../../schemas/TargetPath.ts"
import * as Resource from "../reconciler/Resource.ts"
import { watchReconnect } from "../reconciler/Schedules.ts"
import { LateMounts } from "./LateMounts.ts"
import { recordLate } from "./NodePublish.ts"
import { NODE_LABEL, nodeLabel } from "./PodStatus.ts"
import { check, requestOf } from "./PublishRequest.ts"
import { VolumeTable } from "./VolumeTable.ts"

/** Where a kubelet keeps its things unless it is told otherwise. */
const KUBELET_ROOT = "/var/lib/kubelet"
const ENDED: ReadonlySet<string> = new Set(["Succeeded", "Failed"])

/** What is known of a volume by its pod. */
export interface PodVolume {
  readonly pod: { readonly name: string; readonly namespace: string; readonly uid: string }
  readonly className: string
  readonly volumeName: string
}

/**
 * @shape  (pods, pod statuses, name of the CSI driver) -> volumes of pods that go on and that no pod status names
 * @errors none
 */
export const unrecorded = (
  pods: ReadonlyArray<NodePod>,
  statuses: ReadonlyArray<CachedPodStatus>,
  driverName: string
): ReadonlyArray<PodVolume> => {
  const recorded = new Set(
    statuses.map(({ status }) => {
      const { podUid, volumeName } = parseTargetPath(status?.targetPath ?? "")
      return `${podUid}/${volumeName}`
    })
  )
  return pods
    .filter(({ metadata, status }) => metadata.deletionTimestamp === undefined && !ENDED.has(status?.phase ?? ""))
    .flatMap(({ metadata: { name = "", namespace = "", uid = "" }, spec }) =>
      (spec?.volumes ?? []).flatMap(({ csi, name: volumeName = "" }) => {
        const className = csi?.driver === driverName ? csi.volumeAttributes?.secretProviderClass : undefined
        return className === undefined || recorded.has(`${uid}/${volumeName}`)
          ? []
          : [{ pod: { name, namespace, uid }, className, volumeName }]
      })
    )
}

/**
 * The driver is not told where the kubelet keeps its pods; its socket for plugins and volumes that are known say so.
 *
 * @shape (the socket's path as the kubelet has it, or "", pod statuses) -> directories
 */
export const kubeletRoots = (registrationPath: string, statuses: ReadonlyArray<CachedPodStatus>): ReadonlySet<string> =>
  new Set(
    [
      KUBELET_ROOT,
      /^(.+)\/plugins\//u.exec(registrationPath)?.[1],
      ...statuses.map(({ status }) => /^(.+?)\/pods\//u.exec(status?.targetPath ?? "")?.[1])
    ].filter((root) => root !== undefined)
  )

/**
 * Asks for the pods and the pod statuses of this node, until it is answered; then each volume that is missing is recorded
 * in the background, or found not to be mounted. A call for a volume comes first.
 *
 * @shape  (what the driver was told of itself and its kubelet) -> void
 * @errors none
 */
export const recordAll = Effect.fn("Unrecorded.recordAll")(function* ({
  driverName,
  kubeletRegistrationPath,
  nodeId
}: Pick<DriverConfig, "driverName" | "kubeletRegistrationPath" | "nodeId">) {
  const table = yield* VolumeTable
  const late = yield* LateMounts
  // Without a name of its own a node has no pods: the selector would find those that no node has yet.
  if (nodeId === "") return
  const known = Effect.gen(function* () {
    // First the pods: a volume that comes after that is the business of its own call.
    const pods = yield* Resource.list(Resource.nodePods, { fieldSelector: `spec.nodeName=${nodeId}` })
    const labelSelector = `${NODE_LABEL}=${nodeLabel(nodeId)}`
    const statuses = yield* Resource.list(Resource.cachedPodStatuses, { labelSelector })
    return { pods: pods.objects, statuses: statuses.objects }
  })
  // It is tried until it succeeds.
  const { pods, statuses } = yield* Effect.orDie(Effect.retry(known, watchReconnect))
  for (const { className, pod, volumeName } of unrecorded(pods, statuses, driverName)) {
    for (const root of kubeletRoots(kubeletRegistrationPath, statuses)) {
      const targetPath = `${root}/pods/${pod.uid}/volumes/kubernetes.io~csi/${volumeName}/mount`
      const volume = check(requestOf(pod, className, targetPath), Number.POSITIVE_INFINITY, false)
      if (volume._tag === "RequestInvalid" || late.isUnderWay(targetPath) || !table.isUnattended(targetPath)) continue
      yield* late.begin(targetPath, () => recordLate(volume))
    }
  }
})
