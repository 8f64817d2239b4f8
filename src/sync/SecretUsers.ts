/**
 * Who uses a Secret: pods that mount a class that asks for it, and pods that refer to it themselves. Asked before a
 * Secret is removed, of all pods of a namespace on all nodes.
 */
import type { PodUse } from "../../schemas/PodUse.ts"

/** @shape (pod, Secret's name) -> whether the pod refers to it: environment, volume or pull secret */
const refersTo = ({ spec }: PodUse, secretName: string): boolean => {
  const containers = [...(spec?.initContainers ?? []), ...(spec?.containers ?? [])]
  return (
    containers.some(({ env = [] }) => env.some(({ valueFrom }) => valueFrom?.secretKeyRef?.name === secretName)) ||
    containers.some(({ envFrom = [] }) => envFrom.some(({ secretRef }) => secretRef?.name === secretName)) ||
    (spec?.imagePullSecrets ?? []).some(({ name }) => name === secretName) ||
    (spec?.volumes ?? []).some(
      ({ projected, secret }) =>
        secret?.secretName === secretName ||
        (projected?.sources ?? []).some((source) => source.secret?.name === secretName)
    )
  )
}

/** @shape (pod, name of the CSI driver) -> names of the classes that it mounts */
const classesOf = ({ spec }: PodUse, driverName: string): ReadonlyArray<string> =>
  (spec?.volumes ?? []).flatMap(({ csi }) => {
    const name = csi?.driver === driverName ? csi.volumeAttributes?.secretProviderClass : undefined
    return name === undefined ? [] : [name]
  })

export type Use = "Used" | "Awaited" | "Ending" | "Unused"

/**
 * What the pods of a namespace say about one Secret.
 *
 * @shape  (pods, secretName, driverName, asksFor: (className) -> whether that class asks for the Secret) -> Used: by a
 *         pod that runs with the class, whose node looks after the Secret; Awaited: by pods that do not run yet, or that
 *         only refer to it, and may go without any node's noticing; Ending: only by pods that are about to end; Unused
 * @errors none
 */
export const useOf = (
  pods: ReadonlyArray<PodUse>,
  secretName: string,
  driverName: string,
  asksFor: (className: string) => boolean
): Use => {
  const mounts = (pod: PodUse) => classesOf(pod, driverName).some(asksFor)
  const users = pods.filter((pod) => !ENDED.has(pod.status?.phase ?? "") && (refersTo(pod, secretName) || mounts(pod)))
  if (users.length === 0) return "Unused"
  const lasting = users.filter(({ metadata }) => metadata.deletionTimestamp === undefined)
  if (lasting.length === 0) return "Ending"
  return lasting.some((pod) => pod.status?.phase === "Running" && mounts(pod)) ? "Used" : "Awaited"
}

const ENDED: ReadonlySet<string> = new Set(["Succeeded", "Failed"])

/** @shape (pods of a namespace, UID) -> that pod is there, and has not begun to end */
export const isAlive = (pods: ReadonlyArray<PodUse>, uid: string): boolean =>
  pods.some(
    ({ metadata, status }) =>
      metadata.uid === uid && metadata.deletionTimestamp === undefined && !ENDED.has(status?.phase ?? "")
  )
