/**
 * The settings that publish and unpublish depend on, a part of the driver's configuration.
 */
import { Context } from "effect"
import type { DriverConfig } from "../../schemas/Config.ts"

export class Settings extends Context.Service<
  Settings,
  Pick<
    DriverConfig,
    | "nodeId"
    | "rotationEnabled"
    | "rotationPollIntervalMillis"
    | "returnRotationErrors"
    | "refreshOnClassChange"
    | "providerMountsMax"
    | "providerRefreshesMax"
    | "providerRefreshesPerSecond"
    | "providerWaitMillis"
    | "tmpfsSizeBytes"
    | "volumeMountGroup"
  >
>()("secrets-store/volume/Settings") {}
