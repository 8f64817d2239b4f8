/**
 * A node in memory with the driver's programs on it, for tests of publish and unpublish: what is asked of the provider
 * is kept, and what it answers is set by the test.
 */
import { Effect, FileSystem, Layer, Metric, Redacted } from "effect"
import * as MemoryKubernetes from "../../layers/fake/MemoryKubernetes.ts"
import * as MemoryNode from "../../layers/fake/MemoryNode.ts"
import * as NodeFileFormats from "../../layers/real/NodeFileFormats.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import type { ProviderCallFailed, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import type { MountRequest, MountResponse } from "../../schemas/Provider.ts"
import * as Driver from "../../src/Driver.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { Providers } from "../../src/ports/Providers.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import * as SecretSync from "../../src/sync/SecretSync.ts"
import { NodePods } from "../../src/volume/NodePods.ts"
import * as Refresher from "../../src/volume/Refresher.ts"
import * as RefreshTriggers from "../../src/volume/RefreshTriggers.ts"
import { refreshDue } from "../../src/volume/VolumeRefresh.ts"

/** What a test does not set itself. */
export const settings: DriverConfig = {
  endpoint: "unix:///csi/csi.sock",
  driverName: "secrets-store.csi.k8s.io",
  nodeId: "node-1",
  logFormatJson: false,
  verbosity: 0,
  providerDirectories: ["/providers"],
  metricsAddr: "0",
  rotationEnabled: false,
  rotationPollIntervalMillis: 120_000,
  pprofEnabled: false,
  pprofPort: 6065,
  maxCallRecvBytes: 4_194_304,
  providerHealthCheck: false,
  providerHealthCheckIntervalMillis: 120_000,
  kubeconfig: "",
  kubeletRegistrationPath: "",
  pluginRegistrationDirectory: "/registration",
  healthAddr: "",
  providerWaitMillis: 0,
  tmpfsSizeBytes: 0,
  volumeMountGroup: false,
  shutdownGraceMillis: 25_000,
  returnRotationErrors: false,
  refreshOnClassChange: false,
  providerMountsMax: 32,
  providerRefreshesMax: 4,
  providerRefreshesPerSecond: 10,
  memoryTrimIntervalMillis: 0
}

export const POD = { name: "web", namespace: "default", uid: "uid-1", serviceAccountName: "default" }
export const targetOf = (uid: string, volume = "secrets") =>
  `/var/lib/kubelet/pods/${uid}/volumes/kubernetes.io~csi/${volume}/mount`
export const TARGET = targetOf(POD.uid)

export const request: NodePublishVolumeRequest = {
  volumeId: "csi-1",
  publishContext: {},
  stagingTargetPath: "",
  targetPath: TARGET,
  volumeCapability: { accessType: "mount", fsType: "", mountFlags: [], volumeMountGroup: "", accessMode: 1 },
  readonly: true,
  secrets: {},
  volumeContext: {
    secretProviderClass: "spc",
    "csi.storage.k8s.io/pod.name": POD.name,
    "csi.storage.k8s.io/pod.namespace": POD.namespace,
    "csi.storage.k8s.io/pod.uid": POD.uid,
    "csi.storage.k8s.io/serviceAccount.name": POD.serviceAccountName,
    "csi.storage.k8s.io/ephemeral": "true"
  },
  serviceAccountTokens: undefined
}

export const file = (path: string, contents: string, mode = 0o644) => ({
  path,
  mode,
  contents: Redacted.make(new TextEncoder().encode(contents))
})

export const answer = (version: string, ...files: MountResponse["files"]): MountResponse => ({
  objectVersions: [{ id: "secret/foo", version }],
  errorCode: "",
  files: files.length === 0 ? [file("foo", `secret ${version}`)] : files,
  sizeBytes: 100
})

/** What the provider does next; tests replace it. */
export interface Script {
  mount: (request: MountRequest, call: number) => Effect.Effect<MountResponse, ProviderCallFailed>
  locate: Effect.Effect<void, ProviderNotFound>
  readonly calls: Array<MountRequest>
}

export const script = (): Script => ({
  mount: () => Effect.succeed(answer("v1")),
  locate: Effect.void,
  calls: []
})

const scripted = (provider: Script) =>
  Layer.succeed(
    Providers,
    Providers.of({
      locate: () => Effect.suspend(() => provider.locate),
      mount: (_, asked) =>
        Effect.suspend(() => {
          provider.calls.push(asked)
          return provider.mount(asked, provider.calls.length)
        }),
      version: () => Effect.die("not asked in these tests"),
      known: Effect.succeed([])
    })
  )

/** Everything below the driver's programs; the disk and the API server outlive a `driverLayer`. */
export const worldLayer = Layer.mergeAll(MemoryNode.layer, MemoryKubernetes.layer)

/** One life of the driver in a world. */
export const driverLayer = (provider: Script, change: Partial<DriverConfig> = {}) =>
  Layer.mergeAll(
    Driver.layer({ ...settings, ...change }),
    scripted(provider),
    NodeFileFormats.layer,
    Layer.succeed(Metric.MetricRegistry, new Map())
  )

export const classPath = (namespace: string) =>
  `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${namespace}/secretproviderclasses`

export const putClass = Effect.fn(function* (
  spec: unknown = { provider: "vault", parameters: { roleName: "r" } },
  name = "spc",
  namespace = POD.namespace,
  annotations: Readonly<Record<string, string>> = {}
) {
  const api = yield* KubernetesApi
  yield* api.request({
    method: "POST",
    path: classPath(namespace),
    body: {
      apiVersion: "secrets-store.csi.x-k8s.io/v1",
      kind: "SecretProviderClass",
      metadata: { name, namespace, annotations },
      spec
    }
  })
})

/** Adds annotations to a class that exists. */
export const annotateClass = (annotations: Readonly<Record<string, string>>, name = "spc", namespace = POD.namespace) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "PATCH",
      path: `${classPath(namespace)}/${name}`,
      contentType: "application/merge-patch+json",
      body: { metadata: { annotations } }
    })
  )

export const podsPath = (namespace: string) => `/api/v1/namespaces/${namespace}/pods`

/** Creates a pod on the node; the answer is a request for its volume, with the uid that the API server gave it. */
export const putPod = Effect.fn(function* (
  pod = POD,
  metadata: {
    readonly annotations?: Readonly<Record<string, string>>
    readonly ownerReferences?: ReadonlyArray<OwnerReference>
  } = {},
  nodeName = settings.nodeId,
  className = "spc"
) {
  const api = yield* KubernetesApi
  const created = yield* api.request({
    method: "POST",
    path: podsPath(pod.namespace),
    body: {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { ...metadata, name: pod.name, namespace: pod.namespace },
      spec: {
        nodeName,
        volumes: [
          {
            name: "secrets",
            csi: { driver: settings.driverName, readOnly: true, volumeAttributes: { secretProviderClass: className } }
          }
        ]
      }
    }
  })
  const { uid = "" } = Resource.metadataOf(created)
  yield* prepareTarget(targetOf(uid))
  return requestFor({ ...pod, uid }, { secretProviderClass: className })
})

/** @shape (pod, more of the volume context) -> the request for its volume */
const requestFor = (
  { name, namespace, serviceAccountName, uid }: typeof POD,
  context: Readonly<Record<string, string>> = {}
): NodePublishVolumeRequest => ({
  ...request,
  volumeId: `csi-${uid}`,
  targetPath: targetOf(uid),
  volumeContext: {
    ...request.volumeContext,
    "csi.storage.k8s.io/pod.name": name,
    "csi.storage.k8s.io/pod.namespace": namespace,
    "csi.storage.k8s.io/pod.uid": uid,
    "csi.storage.k8s.io/serviceAccount.name": serviceAccountName,
    ...context
  }
})

export const annotatePod = (annotations: Readonly<Record<string, string | null>>, { name, namespace } = POD) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "PATCH",
      path: `${podsPath(namespace)}/${name}`,
      contentType: "application/merge-patch+json",
      body: { metadata: { annotations } }
    })
  )

export const changeClass = (spec: unknown, name = "spc", namespace = POD.namespace) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "PATCH",
      path: `${classPath(namespace)}/${name}`,
      contentType: "application/merge-patch+json",
      body: { spec }
    })
  )

export const removeClass = (name = "spc", namespace = POD.namespace) =>
  Effect.flatMap(KubernetesApi, (api) => api.request({ method: "DELETE", path: `${classPath(namespace)}/${name}` }))

/** What `Driver.run` has running while rotation is on. */
export const rotating = Effect.gen(function* () {
  yield* Effect.forkScoped(Refresher.run(({ targetPath }) => refreshDue(targetPath)))
  const pods = yield* NodePods
  yield* pods.follow
  yield* Effect.forkScoped(RefreshTriggers.run())
})

/** What `Driver.run` has running for Kubernetes Secrets. */
export const syncing = Effect.gen(function* () {
  const pods = yield* NodePods
  yield* pods.follow
  yield* Effect.forkScoped(SecretSync.run({ nodeId: settings.nodeId, driverName: settings.driverName }))
})

export const removePodStatus = (name: string, namespace = POD.namespace) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({
      method: "DELETE",
      path: `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${namespace}/secretproviderclasspodstatuses/${name}`
    })
  )

/** The kubelet makes the parent of the target path. */
export const prepareTarget = (target = TARGET) =>
  Effect.flatMap(FileSystem.FileSystem, (files) =>
    files.makeDirectory(target.slice(0, target.lastIndexOf("/")), { recursive: true })
  )

/** What a pod reads, following links. */
export const read = (name: string, target = TARGET) =>
  Effect.flatMap(FileSystem.FileSystem, (files) => files.readFileString(`${target}/${name}`))
