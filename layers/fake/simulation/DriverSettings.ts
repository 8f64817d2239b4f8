/**
 * What a simulated node's driver is started with: fixed settings, and those that a pod template's arguments change.
 */
import { Result } from "effect"
import type { DriverConfig } from "../../../schemas/Config.ts"
import { parseGoDuration } from "../../../schemas/GoDuration.ts"
import { DRIVER_NAME } from "../../../src/operator/Names.ts"

export const ROTATION_MILLIS = 120_000

/** What differs between the drivers of a run. */
export interface DriverSettings {
  readonly rotationEnabled: boolean
  readonly rotationPollIntervalMillis: number
}

/** @shape (node, changes) -> settings of the driver on that node */
export const configOf = (nodeId: string, change: Partial<DriverSettings>): DriverConfig => ({
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
