/**
 * What the administrator wants of the operand, read from `spec.driverConfig` and the log levels.
 *
 * @source reference/operator.md 2.3, 3.6, 5.1
 */
import type { ClusterCSIDriver, TokenRequest } from "../../schemas/ClusterCSIDriver.ts"
import { formatGoDuration } from "../../schemas/GoDuration.ts"

interface Rotation {
  readonly enabled: boolean
  readonly intervalSeconds: number
}

export interface OperandSettings {
  readonly rotation: Rotation
  /** Undefined: whatever the live CSIDriver has stays. */
  readonly tokenRequests: ReadonlyArray<TokenRequest> | undefined
  /** klog's number, for every container. */
  readonly logLevel: number
}

const INTERVAL_SECONDS = 120
const LOG_LEVELS: ReadonlyMap<string, number> = new Map([
  ["Debug", 4],
  ["Trace", 6],
  ["TraceAll", 8]
])

type Config = NonNullable<NonNullable<NonNullable<ClusterCSIDriver["spec"]>["driverConfig"]>["secretsStore"]>

const rotationOf = (config: Config | undefined): Rotation => {
  const rotation = config?.secretRotation
  if (rotation?.type === "None") return { enabled: false, intervalSeconds: INTERVAL_SECONDS }
  const seconds = rotation?.type === "Custom" ? (rotation.custom?.minimumRefreshAge ?? 0) : 0
  return { enabled: true, intervalSeconds: seconds > 0 ? seconds : INTERVAL_SECONDS }
}

const tokensOf = (config: Config | undefined): OperandSettings["tokenRequests"] => {
  const requests = config?.tokenRequests
  if (requests?.type !== "Managed") return undefined
  return requests.managed?.audiences?.map(({ audience = "", expirationSeconds = 0 }) =>
    expirationSeconds === 0 ? { audience } : { audience, expirationSeconds }
  )
}

/**
 * @shape  (ClusterCSIDriver or undefined) -> settings; what is absent or unknown is the default
 * @units  seconds
 * @errors none
 */
export const settingsOf = (clusterCsiDriver: ClusterCSIDriver | undefined): OperandSettings => {
  const spec = clusterCsiDriver?.spec
  const driverConfig = spec?.driverConfig
  const config = driverConfig?.driverType === "SecretsStore" ? driverConfig.secretsStore : undefined
  return {
    rotation: rotationOf(config),
    tokenRequests: tokensOf(config),
    logLevel: LOG_LEVELS.get(spec?.logLevel ?? "") ?? 2
  }
}

/**
 * The interval as the driver's argument. Whole minutes stay in minutes: "2m" has to stay "2m", or every node's pod would
 * be replaced when operators are swapped.
 *
 * @shape (seconds above 0) -> "2m", "526000m", "1m30s", "45s"
 */
export const formatInterval = (seconds: number): string =>
  seconds % 60 === 0 ? `${seconds / 60}m` : formatGoDuration(BigInt(seconds) * 1_000_000_000n)
