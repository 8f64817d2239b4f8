/**
 * Plays the kubelet against a driver's CSI socket: the same requests, directories and time limits. For the demo, the
 * tests and the benchmark.
 *
 * @source reference/driver.md 2.6
 */
import { createHash } from "node:crypto"
import { mkdirSync } from "node:fs"
import { dirname, join } from "node:path"
import * as grpc from "@grpc/grpc-js"
import { Clock, Data, Effect, type Scope } from "effect"
import { IdentityClient, NodeClient, type NodePublishVolumeRequest, type ProbeResponse } from "../../proto/gen/csi.ts"
import { TOKENS_KEY } from "../../schemas/Csi.ts"

/** A call that the driver did not answer with OK. */
export class CsiCallFailed extends Data.TaggedError("CsiCallFailed")<{
  readonly grpcCode: string
  readonly message: string
}> {}

export interface InlineVolume {
  readonly podName: string
  readonly podNamespace: string
  readonly podUid: string
  readonly volumeName: string
  readonly secretProviderClass: string
  readonly serviceAccountName?: string
  readonly tokens?: string
  readonly secrets?: Readonly<Record<string, string>>
  readonly volumeMountGroup?: string
  readonly readonly?: boolean
  readonly attributes?: Readonly<Record<string, string>>
}

export interface Kubelet {
  readonly targetPath: (volume: InlineVolume) => string
  /** What `publish` sends. */
  readonly publishRequest: (volume: InlineVolume) => NodePublishVolumeRequest
  readonly publish: (volume: InlineVolume, timeoutMillis?: number) => Effect.Effect<string, CsiCallFailed>
  readonly unpublish: (volume: InlineVolume) => Effect.Effect<void, CsiCallFailed>
  readonly pluginInfo: Effect.Effect<{ readonly name: string; readonly vendorVersion: string }, CsiCallFailed>
  readonly probe: (timeoutMillis: number) => Effect.Effect<boolean, CsiCallFailed>
}

/** The kubelet's limit for one call. */
const CALL_MILLIS = 120_000

type Answer<A> = (error: grpc.ServiceError | null, response: A) => void

const failed = (error: grpc.ServiceError) =>
  new CsiCallFailed({ grpcCode: grpc.status[error.code], message: error.details })

/** One unary call, which waits for its socket to appear. */
export const call = <A>(
  start: (metadata: grpc.Metadata, options: grpc.CallOptions, answer: Answer<A>) => grpc.ClientUnaryCall,
  timeoutMillis: number,
  waitForReady = true
): Effect.Effect<A, CsiCallFailed> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.callback<A, CsiCallFailed>((resume) => {
      const metadata = new grpc.Metadata()
      metadata.setOptions({ waitForReady })
      const started = start(metadata, { deadline: now + timeoutMillis }, (error, response) =>
        resume(error === null ? Effect.succeed(response) : Effect.fail(failed(error)))
      )
      return Effect.sync(() => started.cancel())
    })
  )

const volumeIdOf = ({ podUid, volumeName }: InlineVolume) =>
  `csi-${createHash("sha256").update(`${podUid}${volumeName}`).digest("hex")}`

/** Connects to the driver on demand, and again when it was restarted, until the scope closes. */
export const make = (options: {
  readonly socket: string
  /** The kubelet's root directory; pods are below it. */
  readonly root: string
}): Effect.Effect<Kubelet, never, Scope.Scope> =>
  Effect.gen(function* () {
    const channel: grpc.ClientOptions = {
      "grpc.initial_reconnect_backoff_ms": 20,
      "grpc.min_reconnect_backoff_ms": 20,
      "grpc.max_reconnect_backoff_ms": 100
    }
    const address = `unix:${options.socket}`
    const credentials = grpc.credentials.createInsecure()
    const [node, identity] = yield* Effect.acquireRelease(
      Effect.sync(
        () =>
          [new NodeClient(address, credentials, channel), new IdentityClient(address, credentials, channel)] as const
      ),
      ([nodeClient, identityClient]) =>
        Effect.sync(() => {
          nodeClient.close()
          identityClient.close()
        })
    )
    const targetPath = ({ podUid, volumeName }: InlineVolume) =>
      join(options.root, "pods", podUid, "volumes/kubernetes.io~csi", volumeName, "mount")
    const publishRequest = (volume: InlineVolume): NodePublishVolumeRequest => ({
      volumeId: volumeIdOf(volume),
      publishContext: {},
      stagingTargetPath: "",
      targetPath: targetPath(volume),
      volumeCapability: {
        block: undefined,
        mount: { fsType: "", mountFlags: [], volumeMountGroup: volume.volumeMountGroup ?? "" },
        accessMode: { mode: 1 }
      },
      readonly: volume.readonly ?? true,
      secrets: { ...volume.secrets },
      volumeContext: {
        secretProviderClass: volume.secretProviderClass,
        ...volume.attributes,
        "csi.storage.k8s.io/pod.name": volume.podName,
        "csi.storage.k8s.io/pod.namespace": volume.podNamespace,
        "csi.storage.k8s.io/pod.uid": volume.podUid,
        "csi.storage.k8s.io/serviceAccount.name": volume.serviceAccountName ?? "default",
        "csi.storage.k8s.io/ephemeral": "true",
        ...(volume.tokens === undefined ? {} : { [TOKENS_KEY]: volume.tokens })
      }
    })
    return {
      targetPath,
      publishRequest,
      publish: (volume, timeoutMillis = CALL_MILLIS) =>
        Effect.suspend(() => {
          const target = targetPath(volume)
          // The kubelet makes the parent, not the directory itself.
          mkdirSync(dirname(target), { recursive: true, mode: 0o750 })
          const body = publishRequest(volume)
          return Effect.as(
            call(
              (metadata, settings, answer) => node.nodePublishVolume(body, metadata, settings, answer),
              timeoutMillis
            ),
            target
          )
        }),
      unpublish: (volume) =>
        Effect.asVoid(
          call(
            (metadata, settings, answer) =>
              node.nodeUnpublishVolume(
                { volumeId: volumeIdOf(volume), targetPath: targetPath(volume) },
                metadata,
                settings,
                answer
              ),
            CALL_MILLIS
          )
        ),
      pluginInfo: call((metadata, settings, answer) => identity.getPluginInfo({}, metadata, settings, answer), 1_000),
      probe: (timeoutMillis) =>
        Effect.map(
          call<ProbeResponse>(
            (metadata, settings, answer) => identity.probe({}, metadata, settings, answer),
            timeoutMillis
          ),
          ({ ready }) => ready ?? true
        )
    }
  })
