/**
 * What the driver remembers of one published volume. Its secrets are those of the last request, and redacted.
 */
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import type { ObjectVersion } from "../../schemas/Provider.ts"
import type { Schedule } from "./Rotation.ts"

export interface PodIdentity {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly serviceAccountName: string
}

export interface VolumeRecord {
  readonly volumeId: string
  readonly targetPath: string
  readonly pod: PodIdentity
  readonly secretProviderClassName: string
  readonly provider: string
  /** The last one: its credentials are the freshest there are. */
  readonly request: NodePublishVolumeRequest
  /** Of the last answer that was written, sorted by id. */
  readonly objectVersions: ReadonlyArray<ObjectVersion>
  /** When the provider last answered and its answer was in place, in milliseconds since the epoch. */
  readonly lastSuccessMillis: number
  /** When it is refreshed; of no meaning while rotation is off. */
  readonly schedule: Schedule
  /** Name of its SecretProviderClassPodStatus; undefined while none is known to exist. */
  readonly podStatusName: string | undefined
}
