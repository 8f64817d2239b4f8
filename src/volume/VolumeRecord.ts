/**
 * What the driver remembers of one published volume. Its secrets are those of the last request, and redacted.
 */
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import type { PublishFailed } from "../../schemas/errors/PublishFailed.ts"
import type { Asked } from "../../schemas/ForceRefresh.ts"
import type { ObjectVersion } from "../../schemas/Provider.ts"
import type { Schedule } from "./Rotation.ts"

export interface PodIdentity {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly serviceAccountName: string
}

/** The part of a SecretProviderClass that decides what a provider answers. */
export interface ClassContent {
  readonly provider: string
  readonly parameters: Readonly<Record<string, string>>
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
  /** What had been asked for when the content that is in place was fetched. */
  readonly honoured: Asked
  /** What has been asked for since, as far as it was seen. */
  readonly wanted: Asked
  /** What the content that is in place was fetched with; undefined after a restart. */
  readonly classUsed: ClassContent | undefined
  /** The last that was seen of its class; undefined before it was seen. */
  readonly classSeen: ClassContent | undefined
  readonly classGone: boolean
  /** Why its last refresh failed; undefined when it did not. */
  readonly failure: PublishFailed | undefined
}
