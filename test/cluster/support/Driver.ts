/** The node driver's pod, and what the operator says of it. */
import { at, conditionOf, get, type Json, kubectl, list, listAt, program, textAt, until } from "./Kubectl.ts"
import { DAEMON_SET, DRIVER, NAMESPACE } from "./Objects.ts"

export interface DriverPod {
  readonly name: string
  readonly uid: string
  readonly image: string
  readonly ready: boolean
  readonly address: string
}

const describe = (pod: unknown): DriverPod => ({
  name: textAt(pod, "metadata", "name"),
  uid: textAt(pod, "metadata", "uid"),
  image: textAt(pod, "spec", "containers", 0, "image"),
  ready: conditionOf(pod, "Ready").status === "True" && at(pod, "metadata", "deletionTimestamp") === undefined,
  address: textAt(pod, "status", "podIP")
})

const argumentOf = (daemonSet: unknown, name: string): string => {
  const args = listAt(daemonSet, "spec", "template", "spec", "containers", 0, "args").map(String)
  return args.find((arg) => arg.startsWith(`--${name}=`))?.split("=")[1] ?? ""
}
/** @shape (DaemonSet) -> "10m": how often the driver is told to refresh volumes */
export const intervalOf = (daemonSet: unknown): string => argumentOf(daemonSet, "rotation-poll-interval")
/** @shape (DaemonSet) -> "true": whether it is told to */
export const rotationOf = (daemonSet: unknown): string => argumentOf(daemonSet, "enable-secret-rotation")

export const driverPods = async (): Promise<ReadonlyArray<DriverPod>> =>
  (await list("pods", "--namespace", NAMESPACE, `--selector=app=${DAEMON_SET}`)).map(describe)

export const driverPod = async (): Promise<DriverPod> => {
  const [pod] = await driverPods()
  if (pod === undefined) throw new Error("there is no driver pod")
  return pod
}

/** One driver pod, Ready and of the newest DaemonSet, with all that is asked of it. */
export const driverReady = (
  asked: (pod: DriverPod, daemonSet: Json) => boolean = () => true,
  seconds = 90
): Promise<DriverPod> =>
  until("the driver Ready", seconds, async () => {
    const daemonSet = await get("daemonset", DAEMON_SET, NAMESPACE)
    const isCurrent =
      at(daemonSet, "status", "observedGeneration") === at(daemonSet, "metadata", "generation") &&
      at(daemonSet, "status", "updatedNumberScheduled") === 1 &&
      at(daemonSet, "status", "numberReady") === 1
    const [pod, ...others] = await driverPods()
    if (!isCurrent || pod === undefined || others.length > 0) return undefined
    return pod.ready && asked(pod, daemonSet) ? pod : undefined
  })

export const operatorReports = (type: string, status: string, pattern = /^/u, seconds = 60): Promise<string> =>
  until(`${type} ${status} ${pattern}`, seconds, async () => {
    const condition = conditionOf(await get("clustercsidriver", DRIVER), type)
    if (condition.status === status && pattern.test(condition.message)) return `${condition.message} `
    throw new Error(`${condition.status}: ${condition.message}`)
  })

export const driverLog = async (): Promise<string> =>
  kubectl(["logs", "--namespace", NAMESPACE, (await driverPod()).name, "--tail=-1"])

/** Mount points of our volumes on the node, where the kubelet has them. */
export const mountedVolumes = async (): Promise<ReadonlyArray<string>> => {
  const { stdout } = await program("cat", ["/proc/self/mountinfo"])
  return stdout
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((path) => /^\/var\/lib\/kubelet\/pods\/[^/]+\/volumes\/kubernetes\.io~csi\/[^/]+\/mount$/u.test(path))
}
