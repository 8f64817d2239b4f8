/**
 * A publish request with everything in it that every call needs, checked.
 *
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go; reference/driver.md 2.7 #1-5
 */
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import { RequestInvalid } from "../../schemas/errors/PublishFailed.ts"
import { TargetPath } from "../../schemas/TargetPath.ts"
import type { PodIdentity } from "./VolumeRecord.ts"

/** An answer is given this long before the caller stops waiting, so that it hears the reason. */
const ANSWER_MARGIN_MILLIS = 1_000

const KEY = {
  className: "secretProviderClass",
  providerName: "providerName",
  podName: "csi.storage.k8s.io/pod.name",
  podNamespace: "csi.storage.k8s.io/pod.namespace",
  podUid: "csi.storage.k8s.io/pod.uid",
  serviceAccount: "csi.storage.k8s.io/serviceAccount.name"
} as const

/** A publish request with everything in it that every call needs. */
export interface Volume {
  readonly _tag: "Volume"
  readonly request: NodePublishVolumeRequest
  readonly targetPath: TargetPath
  readonly pod: PodIdentity
  readonly className: string
  /** The pod's fsGroup, when the driver was asked to apply it. */
  readonly gid: number | undefined
  /** When an answer is due, in milliseconds since the epoch. */
  readonly answerByMillis: number
}

export const invalid = (detail: string, remedy: string) => new RequestInvalid({ detail, remedy })

const byKubelet = "the kubelet sets it; other callers have to as well"

/** @shape (request, deadlineMillis, volumeMountGroup) -> Volume or RequestInvalid; 2.7 #1-5 */
export const check = (
  request: NodePublishVolumeRequest,
  deadlineMillis: number,
  volumeMountGroup: boolean
): Volume | RequestInvalid => {
  const capability = request.volumeCapability
  if (capability === undefined) return invalid("Volume capability missing in request", byKubelet)
  if (request.volumeId === "") return invalid("Volume ID missing in request", byKubelet)
  if (request.targetPath === "") return invalid("Target path missing in request", byKubelet)
  if (Object.keys(request.volumeContext).length === 0 && request.serviceAccountTokens === undefined) {
    return invalid(
      "Volume attributes missing in request",
      "set volumeAttributes.secretProviderClass in the pod's volume"
    )
  }
  const context = request.volumeContext
  const group = volumeMountGroup ? capability.volumeMountGroup : ""
  if (group !== "" && !/^\d{1,10}$/u.test(group)) {
    return invalid(`Volume mount group ${JSON.stringify(group)} is not a group id`, "set a numeric fsGroup in the pod")
  }
  return {
    _tag: "Volume",
    request,
    targetPath: TargetPath.make(request.targetPath),
    pod: {
      name: context[KEY.podName] ?? "",
      namespace: context[KEY.podNamespace] ?? "",
      uid: context[KEY.podUid] ?? "",
      serviceAccountName: context[KEY.serviceAccount] ?? ""
    },
    className: context[KEY.className] ?? "",
    gid: group === "" ? undefined : Number(group),
    answerByMillis: deadlineMillis - ANSWER_MARGIN_MILLIS
  }
}

/**
 * @shape (pod, class, target path) -> a request for a volume that no call asks for, without credentials; its id, which
 *        nobody else is told, is the target path
 */
export const requestOf = (
  pod: Pick<PodIdentity, "name" | "namespace" | "uid">,
  className: string,
  targetPath: string
): NodePublishVolumeRequest => ({
  volumeId: targetPath,
  publishContext: {},
  stagingTargetPath: "",
  targetPath,
  volumeCapability: { accessType: "mount", fsType: "", mountFlags: [], volumeMountGroup: "", accessMode: 1 },
  readonly: true,
  secrets: {},
  volumeContext: {
    [KEY.className]: className,
    [KEY.podName]: pod.name,
    [KEY.podNamespace]: pod.namespace,
    [KEY.podUid]: pod.uid
  },
  serviceAccountTokens: undefined
})

/** @shape (pod) -> "namespace/name" */
export const podKey = (pod: PodIdentity): string => `${pod.namespace}/${pod.name}`

/** @shape (request) -> the provider that the volume itself names, which upstream takes for a label only */
export const namedProvider = ({ volumeContext }: NodePublishVolumeRequest): string =>
  volumeContext[KEY.providerName] ?? ""

/** Mounted, and nothing else: what csi-sanity asks for. 2.7 #10 */
export const isMock = ({ request }: Volume): boolean => namedProvider(request).toLowerCase() === "mock_provider"
