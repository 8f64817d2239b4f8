/**
 * Driver v1.6.0 as others see it: what it writes on a node and in the API server, and what it makes of what is there. It
 * runs in place of ours for some lives, before an upgrade and after a downgrade. What it gets wrong by itself is left
 * out, as far as it says nothing of what two releases have in common: a volume that is mounted and empty is mounted anew.
 *
 * @source reference/driver.md 2.7, 2.9, 4.1, 4.3, 5.5, 6.4, 6.7
 */
import { Clock, DateTime, Effect, type FileSystem, Option, Random, Redacted, Result, Semaphore } from "effect"
import type { DriverConfig } from "../../../schemas/Config.ts"
import type { NodePublishVolumeRequest, NodeUnpublishVolumeRequest } from "../../../schemas/Csi.ts"
import { CsiStatus } from "../../../schemas/errors/CsiStatus.ts"
import type { MountResponse, PayloadFile } from "../../../schemas/Provider.ts"
import { TargetPath } from "../../../schemas/TargetPath.ts"
import { controllerCapabilities, unimplemented } from "../../../src/csi/Controller.ts"
import { getPluginInfo, pluginCapabilities, probe } from "../../../src/csi/Identity.ts"
import { nodeCapabilities, stage, unstage } from "../../../src/csi/Node.ts"
import * as Payload from "../../../src/volume/Payload.ts"
import { providerRequest } from "../../../src/volume/ProviderRequest.ts"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "../KubernetesObject.ts"
import type { Ports } from "./Lives.ts"

const VERSION = "v1.6.0"
const GROUP = "/apis/secrets-store.csi.x-k8s.io/v1"
const NODE_LABEL = "internal.secrets-store.csi.k8s.io/node-name"
const MANAGED_LABEL = "secrets-store.csi.k8s.io/managed"
/** Is there while ours takes away what a provider has written itself. */
const CLEARING = "..clearing"
const RANDOM_MAX = 999_999_999
const GRACE_MILLIS = 5_000

const failed = (what: string) => (cause: { readonly message: string }) =>
  new CsiStatus({ grpcCode: "UNKNOWN", details: `${what}, err: ${cause.message}` })
const refused = (details: string) => new CsiStatus({ grpcCode: "UNKNOWN", details })

// ---- files

/** @shape (target path) -> the directory that its link leads to; undefined: there is none */
const current = (files: FileSystem.FileSystem, target: string) =>
  Effect.catchIf(
    files.readLink(`${target}/..data`),
    ({ reason }) => reason._tag === "NotFound",
    () => Effect.undefined
  )

/** Whether a mount holds files, of its own making or its provider's. */
const filled = Effect.fnUntraced(function* (files: FileSystem.FileSystem, target: string) {
  if ((yield* current(files, target)) !== undefined) return true
  const entries = yield* files.readDirectoryEntries(target)
  // The real one would take this for a volume, as it would what its own provider was writing when it ended.
  if (entries.some(({ name }) => name === CLEARING)) return false
  return entries.some(({ name, type }) => !name.startsWith("..") && type !== "SymbolicLink")
})

const pathsIn = Effect.fnUntraced(function* (files: FileSystem.FileSystem, directory: string) {
  const found: Array<string> = []
  for (const path of yield* files.readDirectory(directory, { recursive: true })) {
    if ((yield* files.stat(`${directory}/${path}`)).type !== "Directory") found.push(path)
  }
  return found
})

const sameBytes = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, index) => byte === b[index])

/** A new directory is filled beside the old one, and a link is exchanged; it fails where there is a link of that name. */
const write = Effect.fnUntraced(function* (
  files: FileSystem.FileSystem,
  target: string,
  content: ReadonlyArray<{ readonly path: string; readonly mode: number; readonly bytes: Uint8Array }>
) {
  const previous = yield* current(files, target)
  const names = [...new Set(content.map(({ path }) => path.split("/")[0] ?? ""))]
  const old = previous === undefined ? [] : yield* pathsIn(files, `${target}/${previous}`)
  if (previous !== undefined) {
    let isSame = old.length === content.length
    for (const { bytes, path } of content) {
      if (isSame)
        isSame = old.includes(path) && sameBytes(yield* files.readFile(`${target}/${previous}/${path}`), bytes)
    }
    if (isSame) return
  }
  const now = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
  const stamp = DateTime.formatIso(now).slice(0, 19).replaceAll(/[-:T]/gu, "_")
  const next = `..${stamp}.${yield* Random.nextIntBetween(1, RANDOM_MAX)}`
  yield* files.makeDirectory(`${target}/${next}`, { mode: 0o755 })
  for (const { bytes, mode, path } of content) {
    const parent = `${target}/${next}/${path}`.split("/").slice(0, -1).join("/")
    yield* files.makeDirectory(parent, { recursive: true })
    yield* files.writeFile(`${target}/${next}/${path}`, bytes, { mode })
  }
  for (const name of names) {
    const link = yield* Effect.option(files.readLink(`${target}/${name}`))
    if (Option.isNone(link)) yield* files.symlink(`..data/${name}`, `${target}/${name}`)
  }
  yield* files
    .symlink(next, `${target}/..data_tmp`)
    .pipe(Effect.tapError(() => Effect.ignore(files.remove(`${target}/${next}`, { recursive: true }))))
  yield* files.rename(`${target}/..data_tmp`, `${target}/..data`)
  const stale = new Set(old.map((path) => path.split("/")[0] ?? "").filter((name) => !names.includes(name)))
  for (const name of stale) yield* files.remove(`${target}/${name}`)
  if (previous !== undefined) yield* files.remove(`${target}/${previous}`, { recursive: true })
})

// ---- objects

interface Volume {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly className: string
  readonly target: string
}

const volumeOf = ({ targetPath, volumeContext }: NodePublishVolumeRequest): Volume => ({
  name: volumeContext["csi.storage.k8s.io/pod.name"] ?? "",
  namespace: volumeContext["csi.storage.k8s.io/pod.namespace"] ?? "",
  uid: volumeContext["csi.storage.k8s.io/pod.uid"] ?? "",
  className: volumeContext["secretProviderClass"] ?? "",
  target: targetPath
})

/** @shape (volume, node, versions) -> its pod status */
const statusOf = (volume: Volume, nodeId: string, { objectVersions }: MountResponse) => ({
  apiVersion: "secrets-store.csi.x-k8s.io/v1",
  kind: "SecretProviderClassPodStatus",
  metadata: {
    name: `${volume.name}-${volume.namespace}-${volume.className}`,
    namespace: volume.namespace,
    labels: { [NODE_LABEL]: nodeId },
    ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: volume.name, uid: volume.uid }]
  },
  status: {
    podName: volume.name,
    secretProviderClassName: volume.className,
    mounted: true,
    targetPath: volume.target,
    objects: [...objectVersions].sort((a, b) => (a.id < b.id ? -1 : 1))
  }
})

const asObject = (found: unknown): JsonObject => (isObject(found) ? found : {})

export const run = (config: DriverConfig, { endpoint, fileSystem: files, kubernetes, mounter, providers }: Ports) => {
  const create = (path: string, body: JsonObject) =>
    kubernetes.request({ method: "POST", path, body }).pipe(
      Effect.asSome,
      Effect.catchIf(
        (failure) => failure.isAlreadyExists,
        () => Effect.succeedNone
      )
    )

  const record = Effect.fnUntraced(function* (volume: Volume, answer: MountResponse) {
    const wanted = statusOf(volume, config.nodeId, answer)
    const path = `${GROUP}/namespaces/${volume.namespace}/secretproviderclasspodstatuses`
    const created = yield* create(path, wanted)
    if (Option.isSome(created)) return asObject(created.value)
    const itsPath = `${path}/${wanted.metadata.name}`
    const found = asObject(yield* kubernetes.request({ method: "GET", path: itsPath }))
    const labels = { ...objectAt(metadataOf(found), "labels"), ...wanted.metadata.labels }
    const { ownerReferences } = wanted.metadata
    const body = { ...found, metadata: { ...metadataOf(found), labels, ownerReferences }, status: wanted.status }
    return asObject(yield* kubernetes.request({ method: "PUT", path: itsPath, body }))
  })

  /** Whatever is there under that name is replaced; its owners come a moment later. */
  const sync = Effect.fnUntraced(function* (volume: Volume, its: JsonObject, status: JsonObject, answer: Content) {
    const path = `/api/v1/namespaces/${volume.namespace}/secrets`
    const pod = asObject(
      yield* kubernetes.request({ method: "GET", path: `/api/v1/namespaces/${volume.namespace}/pods/${volume.name}` })
    )
    if (textAt(metadataOf(pod), "uid") !== volume.uid) return
    const ofPod = listAt(metadataOf(pod), "ownerReferences").filter(isObject)
    const { apiVersion, kind } = status
    const itself = { apiVersion, kind, name: metadataOf(status)["name"], uid: metadataOf(status)["uid"] }
    const owners = (ofPod.length > 0 ? ofPod : [itself]).map((owner) => ({
      apiVersion: owner["apiVersion"],
      kind: owner["kind"],
      name: owner["name"],
      uid: owner["uid"]
    }))
    for (const secretObject of listAt(objectAt(its, "spec"), "secretObjects").filter(isObject)) {
      const name = textAt(secretObject, "secretName") ?? ""
      const data = Object.fromEntries(
        answer.map(({ bytes, path: file }) => [file.replaceAll("/", "."), Buffer.from(bytes).toString("base64")])
      )
      const metadata = { name, namespace: volume.namespace, labels: { [MANAGED_LABEL]: "true" }, annotations: {} }
      const body = { apiVersion: "v1", kind: "Secret", metadata, type: textAt(secretObject, "type") ?? "", data }
      const found = yield* Effect.option(kubernetes.request({ method: "GET", path: `${path}/${name}` }))
      // What somebody else has made is not part of what two releases share.
      const isOthers = Option.match(found, {
        onNone: () => false,
        onSome: (it) => objectAt(metadataOf(asObject(it)), "labels")[MANAGED_LABEL] !== "true"
      })
      if (isOthers) continue
      const made = yield* create(path, body)
      if (Option.isNone(made)) yield* kubernetes.request({ method: "PUT", path: `${path}/${name}`, body })
      yield* kubernetes.request({
        method: "PATCH",
        path: `${path}/${name}`,
        contentType: "application/merge-patch+json",
        body: { metadata: { ownerReferences: owners } }
      })
    }
  })

  type Content = ReadonlyArray<{ readonly path: string; readonly mode: number; readonly bytes: Uint8Array }>

  const contentOf = (answer: ReadonlyArray<PayloadFile>): Result.Result<Content, string> =>
    Result.map(Payload.check(answer), ({ files: checked }) =>
      [...checked].map(([path, { contents, mode }]) => ({ path, mode, bytes: Redacted.value(contents) }))
    )

  const fill = Effect.fnUntraced(function* (request: NodePublishVolumeRequest) {
    const volume = volumeOf(request)
    const path = `${GROUP}/namespaces/${volume.namespace}/secretproviderclasses/${volume.className}`
    const its = asObject(
      yield* Effect.mapError(kubernetes.request({ method: "GET", path }), failed("failed to get secretproviderclass"))
    )
    const spec = objectAt(its, "spec")
    const parameters = Object.entries(objectAt(spec, "parameters")).map(([key, value]) => [key, String(value)] as const)
    if (parameters.length === 0) return yield* refused("parameters not set")
    const provider = textAt(spec, "provider") ?? ""
    yield* Effect.mapError(providers.locate(provider, 0), failed("error connecting to provider"))
    // It never says which versions it has.
    const answer = yield* Effect.mapError(
      providers.mount(provider, providerRequest(request, Object.fromEntries(parameters), [])),
      (cause) =>
        cause._tag === "ProviderCallFailed"
          ? new CsiStatus({ grpcCode: cause.grpcCode, details: cause.message })
          : failed("failed to mount")(cause)
    )
    if (answer.errorCode !== "") return yield* refused(`provider error ${answer.errorCode}`)
    const content = contentOf(answer.files)
    if (Result.isFailure(content)) return yield* refused(content.failure)
    // Without files it is the provider that has written them (Q30).
    if (content.success.length > 0) {
      yield* Effect.mapError(write(files, volume.target, content.success), failed("failed to write"))
    }
    const status = yield* Effect.mapError(record(volume, answer), failed("failed to create pod status"))
    yield* Effect.ignore(sync(volume, its, status, content.success))
  })

  const publish = Effect.fnUntraced(function* (request: NodePublishVolumeRequest) {
    const target = TargetPath.make(request.targetPath)
    const state = yield* Effect.mapError(mounter.inspect(target), failed("failed to check mount point"))
    const isFilled =
      state === "Mounted" ? yield* Effect.mapError(filled(files, target), failed("failed to look")) : false
    if (isFilled) {
      if (!config.rotationEnabled) return {}
      // The age of the directory is the only clock that it has.
      const { mtime } = yield* Effect.mapError(files.stat(target), failed("failed to stat"))
      const changedMillis = Option.match(mtime, { onNone: () => 0, onSome: (it) => it.getTime() })
      const now = yield* Clock.currentTimeMillis
      if (now >= changedMillis + config.rotationPollIntervalMillis) yield* Effect.ignore(fill(request))
      return {}
    }
    if (state === "Mounted") yield* Effect.mapError(mounter.unmount(target), failed("unmount failed"))
    yield* Effect.mapError(files.makeDirectory(target, { recursive: true, mode: 0o750 }), failed("mkdir failed"))
    yield* Effect.acquireUseRelease(
      Effect.mapError(mounter.mountTmpfs(target, { sizeBytes: 0, mode: 0o1777 }), failed("mount failed")),
      () => fill(request),
      (_, exit) => (exit._tag === "Success" ? Effect.void : Effect.ignore(mounter.unmount(target)))
    )
    return {}
  })

  const unpublish = Effect.fnUntraced(function* (request: NodeUnpublishVolumeRequest) {
    const target = TargetPath.make(request.targetPath)
    const state = yield* mounter.inspect(target)
    if (state === "Missing") return {}
    for (const name of yield* files.readDirectory(target)) {
      yield* Effect.ignore(files.remove(`${target}/${name}`, { recursive: true }))
    }
    if (state === "Mounted") yield* mounter.unmount(target)
    yield* files.remove(target, { recursive: true })
    return {}
  })

  /** The kubelet asks for one thing at a time of a volume; a call that it gave up may still be at work. */
  const locks = new Map<string, Semaphore.Semaphore>()
  const exclusive = <A, E>(target: string, effect: Effect.Effect<A, E>) => {
    const lock = locks.get(target) ?? Semaphore.makeUnsafe(1)
    locks.set(target, lock)
    return lock.withPermits(1)(effect)
  }

  return endpoint.serve(
    config.endpoint,
    {
      GetPluginInfo: () => getPluginInfo(config.driverName, VERSION),
      GetPluginCapabilities: () => Effect.succeed(pluginCapabilities),
      Probe: () => Effect.succeed(probe),
      ControllerGetCapabilities: () => Effect.succeed(controllerCapabilities),
      controllerStub: () => unimplemented(""),
      NodeStageVolume: stage,
      NodeUnstageVolume: unstage,
      NodePublishVolume: (request) => exclusive(request.targetPath, publish(request)),
      NodeUnpublishVolume: (request) =>
        exclusive(
          request.targetPath,
          Effect.uninterruptible(
            Effect.mapError(
              unpublish(request),
              ({ message }) => new CsiStatus({ grpcCode: "INTERNAL", details: message })
            )
          )
        ),
      NodeGetVolumeStats: () => unimplemented(""),
      NodeExpandVolume: () => unimplemented(""),
      NodeGetCapabilities: () => Effect.succeed(nodeCapabilities(false)),
      NodeGetInfo: () => Effect.succeed({ nodeId: config.nodeId })
    },
    { graceMillis: GRACE_MILLIS }
  )
}
