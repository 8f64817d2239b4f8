/**
 * What a simulated node's driver is started with: fixed settings, and those that a pod template's arguments change.
 */
import { Result } from "effect"
import type { DriverConfig } from "../../../schemas/Config.ts"
import { parseGoDuration } from "../../../schemas/GoDuration.ts"
import { DRIVER_NAME } from "../../../src/operator/Names.ts"
import type { Chance } from "./Chance.ts"

export const ROTATION_MILLIS = 120_000

/** What differs between the drivers of a run. */
export interface DriverSettings {
  readonly rotationEnabled: boolean
  readonly rotationPollIntervalMillis: number
}

/** @shape (node, changes) -> settings of the driver on that node */
export const configOf = (nodeId: string, change: Partial<DriverConfig>): DriverConfig => ({
  endpoint: "unix:///csi/csi.sock",
  driverName: DRIVER_NAME,
  nodeId,
  logFormatJson: false,
  verbosity: 5,
  providerDirectories: ["/providers"],
  metricsAddr: "0",
  rotationEnabled: true,
  rotationPollIntervalMillis: ROTATION_MILLIS,
  pprofEnabled: false,
  pprofPort: 6065,
  maxCallRecvBytes: 4_194_304,
  providerHealthCheck: true,
  providerHealthCheckIntervalMillis: ROTATION_MILLIS,
  kubeconfig: "",
  kubeletRegistrationPath: "/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
  pluginRegistrationDirectory: "/registration",
  healthAddr: "",
  providerWaitMillis: 10_000,
  tmpfsSizeBytes: 0,
  volumeMountGroup: false,
  shutdownGraceMillis: 25_000,
  returnRotationErrors: false,
  refreshOnClassChange: false,
  providerMountsMax: 32,
  providerRefreshesMax: 4,
  providerRefreshesPerSecond: 10,
  memoryTrimIntervalMillis: 0,
  ...change
})

/** What an administrator may write, and hardly ever does: each alone is a driver that works, slower or busier. */
const ODD_SETTINGS: ReadonlyArray<readonly [name: string, change: Partial<DriverConfig>]> = [
  ["one mount at a time", { providerMountsMax: 1 }],
  ["one refresh at a time", { providerRefreshesMax: 1 }],
  ["one refresh a second", { providerRefreshesPerSecond: 1 }],
  ["no limits", { providerMountsMax: 0, providerRefreshesMax: 0, providerRefreshesPerSecond: 0 }],
  ["no waiting for sockets", { providerWaitMillis: 0 }],
  ["rotation every second", { rotationPollIntervalMillis: 1_000 }],
  ["rotation once a year", { rotationPollIntervalMillis: 365 * 86_400_000 }],
  ["constant health checks", { providerHealthCheckIntervalMillis: 1_000 }],
  ["rotation errors returned", { returnRotationErrors: true }],
  ["refresh on class change", { refreshOnClassChange: true }],
  ["no time to stop", { shutdownGraceMillis: 0 }]
]

/** @shape (chance) -> a name, and the change that it stands for */
export const drawOddSettings = (chance: Chance): (typeof ODD_SETTINGS)[number] => chance.oneOf(ODD_SETTINGS)

const valueOf = (args: ReadonlyArray<string>, flag: string): string | undefined =>
  args.findLast((arg) => arg.startsWith(`${flag}=`))?.slice(flag.length + 1)

/**
 * What the arguments of a driver's container say of rotation; what they do not say is as the driver has it by default.
 *
 * @shape (arguments) -> settings
 * @units milliseconds
 */
export const settingsOf = (args: ReadonlyArray<string>): DriverSettings => {
  const interval = parseGoDuration(valueOf(args, "--rotation-poll-interval") ?? "2m")
  return {
    rotationEnabled: valueOf(args, "--enable-secret-rotation") === "true",
    rotationPollIntervalMillis: Result.isSuccess(interval) ? Number(interval.success / 1_000_000n) : ROTATION_MILLIS
  }
}
