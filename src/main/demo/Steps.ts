/**
 * What the demo shows, step by step. Each step does one thing, compares what came of it with what has to come of it, and
 * answers with the lines that a person wants to see.
 */
import { Clock, Effect, Schedule, Schema } from "effect"
import { get } from "../../../layers/development/Http.ts"
import type { InlineVolume } from "../../../layers/development/Kubelet.ts"
import { NODE_NAME } from "../../../layers/development/Workbench.ts"
import { parseMountInfo } from "../../../layers/real/LinuxMounter.ts"
import { FORCE_REFRESH_KEY } from "../../../schemas/ForceRefresh.ts"
import { DRIVER_NAME } from "../../operator/Names.ts"
import * as Resource from "../../reconciler/Resource.ts"
import { holds, present, same, Unexpected } from "./Check.ts"
import * as Files from "./Files.ts"
import {
  changePassword,
  contentsOf,
  leftOf,
  nothing,
  often,
  onKubernetes,
  passwordsIn,
  REVOKED,
  ROTATED,
  readSecret,
  type Step,
  secretBecomes,
  showFiles,
  soon
} from "./Look.ts"
import { linesOf, valueOf } from "./MetricsPage.ts"
import * as OperatorSteps from "./OperatorSteps.ts"
import {
  CLASS,
  inTime,
  MODES,
  NAMESPACE,
  PARAMETERS,
  PROVIDER,
  ROTATION_SECONDS,
  SECRET,
  SECRET_OBJECTS,
  SECRETS,
  type Stage
} from "./Stage.ts"

const ROTATION_MILLIS = ROTATION_SECONDS * 1_000

// ---- looking

const podStatusName = ({ volume }: Stage) => `${volume.podName}-${NAMESPACE}-${CLASS}`

const readStatus = (stage: Stage) =>
  onKubernetes(stage, Resource.get(Resource.podStatuses, NAMESPACE, podStatusName(stage)))

const versionsIn = (status: Effect.Success<ReturnType<typeof readStatus>>): Readonly<Record<string, string>> =>
  Object.fromEntries((status.status?.objects ?? []).map(({ id = "", version = "" }) => [id, version]))

const EventList = Schema.Struct({
  items: Schema.Array(
    Schema.Struct({
      reason: Schema.String,
      message: Schema.String,
      involvedObject: Schema.Struct({ name: Schema.String })
    })
  )
})

/** The driver writes Events after it has answered. */
const eventFor = (stage: Stage, podName: string) =>
  stage.api.request({ method: "GET", path: Resource.pathOf(Resource.events, NAMESPACE) }).pipe(
    Effect.flatMap(Schema.decodeUnknownEffect(EventList)),
    Effect.flatMap(({ items }) =>
      present(
        `an Event on pod ${podName}`,
        items.find(({ involvedObject }) => involvedObject.name === podName)
      )
    ),
    Effect.retry(soon)
  )

// ---- acting

/** A publish that has to fail: the error as the kubelet would put it into the pod's events. */
const refused = (stage: Stage, volume: InlineVolume) =>
  stage.kubelet.publish(volume).pipe(
    Effect.flip,
    Effect.mapError(
      () => new Unexpected({ what: `publishing for pod ${volume.podName}`, expected: "an error", actual: "OK" })
    )
  )

/** Long lines of text, for reading. */
const wrapped = (text: string): ReadonlyArray<string> =>
  (text.match(/.{1,90}(?:\s|$)|\S+/gu) ?? []).map((line) => line.trimEnd())

// ---- the steps

const startDriver = (stage: Stage) =>
  Effect.gen(function* () {
    const appeared = Effect.suspend(() => present("a pod of the DaemonSet", stage.driverPods().at(-1)))
    const { args, driver, name } = yield* Effect.retry(appeared, inTime)
    yield* Effect.retry(stage.kubelet.probe(1_000), inTime)
    yield* same("status of /healthz", (yield* get(`${stage.healthUrl}/healthz`)).status, 200)
    const ready = yield* get(`${stage.healthUrl}/readyz`)
    yield* same("status of /readyz before the kubelet knows the driver", ready.status, 500)
    const plugin = yield* stage.kubelet.pluginInfo
    yield* same("name of the CSI driver", plugin.name, DRIVER_NAME)
    return [
      `pod ${name}, pid ${driver.pid}, version ${plugin.vendorVersion}, run from ${stage.driverProgram}`,
      ...args,
      `/healthz: ok   /readyz: ${ready.body}`
    ]
  })

const registerDriver = (stage: Stage) =>
  Effect.gen(function* () {
    yield* stage.letKubeletLook
    const registered = Effect.suspend(() => present("a registered plugin", stage.registered().at(-1)))
    const { info, nodeId } = yield* Effect.retry(registered, soon)
    yield* same("what the plugin says of itself", info, {
      type: "CSIPlugin",
      name: DRIVER_NAME,
      endpoint: stage.socket,
      supportedVersions: ["1.0.0"]
    })
    yield* same("node id", nodeId, NODE_NAME)
    const { body, status } = yield* get(`${stage.healthUrl}/readyz`)
    yield* same("/readyz once registered", { status, body }, { status: 200, body: "ok" })
    return [`${info.type} ${info.name} at ${info.endpoint}`, `node ${nodeId}   /readyz: ${body}`]
  })

const createClasses = (stage: Stage) =>
  Effect.gen(function* () {
    yield* stage.putClass(NAMESPACE, CLASS, PROVIDER, PARAMETERS, SECRET_OBJECTS)
    yield* stage.putClass(NAMESPACE, stage.second.secretProviderClass, PROVIDER, PARAMETERS)
    yield* stage.putClass(NAMESPACE, stage.withoutProvider.secretProviderClass, "vault", { objects: "password" })
    const found = yield* onKubernetes(stage, Resource.get(Resource.secretProviderClasses, NAMESPACE, CLASS))
    yield* same("the class as stored", found.spec, {
      provider: PROVIDER,
      parameters: PARAMETERS,
      secretObjects: SECRET_OBJECTS
    })
    const { podName, volumeName } = stage.volume
    return [
      `SecretProviderClass ${NAMESPACE}/${CLASS}: provider ${PROVIDER}, Secret ${SECRET}`,
      `Pod ${NAMESPACE}/${podName} asks for it: volume ${volumeName} of ${DRIVER_NAME}`
    ]
  })

const publish = (stage: Stage) =>
  Effect.gen(function* () {
    yield* same("the target path as the driver answered", yield* stage.kubelet.publish(stage.volume), stage.target)
    const lines = Files.mountLines(stage.target)
    if (!stage.mountsAreReal) {
      yield* same("mounts", lines, [])
      return [`no tmpfs, but a plain directory: ${stage.target}`]
    }
    yield* same("number of mounts at the target path", lines.length, 1)
    const mount = yield* present("mount", parseMountInfo(lines.join("\n"))[0])
    yield* same("type of file system", mount.fstype, "tmpfs")
    yield* same(
      "mount options",
      ["nosuid", "nodev", "noexec"].filter((option) => !mount.options.includes(option)),
      []
    )
    yield* same("size is bounded", mount.superOptions.filter((option) => option.startsWith("size=")).length, 1)
    return lines
  })

const readFiles = (stage: Stage) =>
  Effect.gen(function* () {
    const files = Files.seenBy(stage.target)
    yield* same("files and their contents", contentsOf(files), SECRETS)
    yield* same("their modes", Object.fromEntries(files.map(({ mode, name }) => [name, mode])), MODES)
    yield* same(
      "links, so that all files change at once",
      files.map(({ link }) => link),
      Object.keys(SECRETS).map((name) => `..data/${name}`)
    )
    return showFiles(files)
  })

const readPodStatus = (stage: Stage) =>
  Effect.gen(function* () {
    const found = yield* readStatus(stage)
    const { objects = [], ...rest } = found.status ?? {}
    yield* same("status of the volume", rest, {
      podName: stage.volume.podName,
      secretProviderClassName: CLASS,
      mounted: true,
      targetPath: stage.target
    })
    yield* same("one version per secret", objects.length, Object.keys(SECRETS).length)
    yield* same("owned by", found.metadata.ownerReferences, [
      { apiVersion: "v1", kind: "Pod", name: stage.volume.podName, uid: stage.volume.podUid }
    ])
    return [
      `SecretProviderClassPodStatus ${NAMESPACE}/${podStatusName(stage)}, owned by pod ${stage.volume.podName}`,
      ...Object.entries(rest).map(([field, value]) => `${field}: ${value}`),
      ...objects.map(({ id, version }) => `object ${id}: version ${version}`)
    ]
  })

const readSyncedSecret = (stage: Stage) =>
  Effect.gen(function* () {
    const { owners } = yield* secretBecomes(stage, SECRETS.password)
    yield* same("number of its owners", owners.length, 1)
    return [`Secret ${NAMESPACE}/${SECRET}, key password: ${JSON.stringify(SECRETS.password)}`, ...owners]
  })

const republishEarly = (stage: Stage) =>
  Effect.gen(function* () {
    const generation = Files.generationOf(stage.target)
    yield* changePassword(stage, ROTATED)
    yield* stage.kubelet.publish(stage.volume)
    const files = Files.seenBy(stage.target)
    yield* same("contents before the refresh is due", contentsOf(files), SECRETS)
    yield* same("generation of the files", Files.generationOf(stage.target), generation)
    return [
      `the provider's password is now ${JSON.stringify(ROTATED.password)}; a volume is refreshed every ${ROTATION_SECONDS} s`,
      ...showFiles(files)
    ]
  })

/** For the refresh itself; it takes some hundredths of a second. */
const REFRESH_MILLIS = 500

const refreshWhenDue = (stage: Stage) =>
  Effect.gen(function* () {
    const before = { generation: Files.generationOf(stage.target), versions: versionsIn(yield* readStatus(stage)) }
    const mounted = Files.writtenMillis(stage.target)
    // The first interval is longer by up to a tenth, so that volumes that were mounted together come apart.
    const latest = ROTATION_MILLIS * 1.1 + REFRESH_MILLIS
    yield* Effect.sleep(mounted + latest - (yield* Clock.currentTimeMillis))
    const files = Files.seenBy(stage.target)
    yield* same("contents after the refresh", contentsOf(files), ROTATED)
    const took = Files.writtenMillis(stage.target) - mounted
    yield* secretBecomes(stage, ROTATED.password)
    yield* same(`not before ${ROTATION_MILLIS} ms`, took >= ROTATION_MILLIS, true)
    const after = { generation: Files.generationOf(stage.target), versions: versionsIn(yield* readStatus(stage)) }
    yield* same("a generation of its own", after.generation !== before.generation, true)
    const changed = Object.keys(after.versions).filter((id) => after.versions[id] !== before.versions[id])
    yield* same("number of new versions in the pod status", changed.length, 1)
    return [
      `${(took / 1_000).toFixed(1)} s after the mount, without a republish:`,
      ...showFiles(files),
      `..data: ${before.generation} -> ${after.generation}`,
      ...changed.map((id) => `version of ${id}: ${before.versions[id]} -> ${after.versions[id]}`),
      `Secret ${NAMESPACE}/${SECRET}, key password: ${JSON.stringify(ROTATED.password)}`
    ]
  })

/** Promised for a refresh that is asked for. */
const ASKED_MILLIS = 1_000

const refreshOnDemand = (stage: Stage) =>
  Effect.gen(function* () {
    yield* changePassword(stage, REVOKED)
    const path = Resource.pathOf(Resource.pods, NAMESPACE, stage.volume.podName)
    const body = { metadata: { annotations: { [FORCE_REFRESH_KEY]: "after-the-leak" } } }
    const started = yield* Clock.currentTimeMillis
    yield* stage.api.request({ method: "PATCH", path, contentType: "application/merge-patch+json", body })
    const arrived = Effect.suspend(() =>
      same("contents after the refresh", contentsOf(Files.seenBy(stage.target)), REVOKED)
    )
    yield* Effect.retry(arrived, often)
    const took = (yield* Clock.currentTimeMillis) - started
    yield* same(`within ${ASKED_MILLIS} ms`, took <= ASKED_MILLIS, true)
    yield* secretBecomes(stage, REVOKED.password)
    return [
      `kubectl annotate pod ${stage.volume.podName} ${FORCE_REFRESH_KEY}=after-the-leak`,
      `in the volume after ${took} ms, though it was not due for some seconds:`,
      ...showFiles(Files.seenBy(stage.target))
    ]
  })

const failWithoutClass = (stage: Stage) =>
  Effect.gen(function* () {
    const { grpcCode, message } = yield* refused(stage, stage.withoutClass)
    yield* same("gRPC code", grpcCode, "UNKNOWN")
    yield* holds("error text", message, `failed to get secretproviderclass ${NAMESPACE}/no-such-class`, "remedy:")
    yield* same("what is left of the volume", leftOf(stage, stage.withoutClass), nothing)
    const event = yield* eventFor(stage, stage.withoutClass.podName)
    yield* holds("the Event", event.message, "no-such-class")
    return [`${grpcCode}:`, ...wrapped(message), `Event on pod ${stage.withoutClass.podName}: ${event.reason}`]
  })

const failWithoutProvider = (stage: Stage) =>
  Effect.gen(function* () {
    const { grpcCode, message } = yield* refused(stage, stage.withoutProvider)
    yield* same("gRPC code", grpcCode, "UNKNOWN")
    yield* holds(
      "error text",
      message,
      'provider not found: provider "vault"',
      stage.providersDirectory,
      `${PROVIDER}.sock`,
      "remedy: install the provider"
    )
    yield* same("what is left of the volume", leftOf(stage, stage.withoutProvider), nothing)
    const event = yield* eventFor(stage, stage.withoutProvider.podName)
    yield* holds("the Event", event.message, "provider not found")
    return [`${grpcCode}:`, ...wrapped(message), `Event on pod ${stage.withoutProvider.podName}: ${event.reason}`]
  })

/** What the calls so far have to have counted: series, labels, value. */
const COUNTS: ReadonlyArray<readonly [string, Readonly<Record<string, string>>, number]> = [
  ["node_publish_total", { provider: PROVIDER }, 2],
  ["node_publish_error_total", { error_type: "SecretProviderClassNotFound" }, 1],
  ["node_publish_error_total", { error_type: "FailedToLookupProviderGRPCClient", provider: "vault" }, 1],
  ["rotation_reconcile_total", { provider: PROVIDER, rotated: "true" }, 2],
  ["sync_k8s_secret_total", { provider: PROVIDER }, 3],
  ["secrets_store_publish_outcomes_total", { outcome: "mounted", provider: PROVIDER }, 1],
  ["secrets_store_publish_outcomes_total", { outcome: "not_due", provider: PROVIDER }, 1],
  ["secrets_store_provider_requests_total", { grpc_code: "OK", provider: PROVIDER }, 3]
]

const readMetrics = (stage: Stage) =>
  Effect.gen(function* () {
    const { body, status } = yield* get(stage.metricsUrl)
    yield* same("status of /metrics", status, 200)
    yield* same(
      "counted",
      COUNTS.map(([series, labels]) => [series, labels, valueOf(body, series, labels)]),
      COUNTS.map((row) => [...row])
    )
    yield* same("secrets on the metrics page", passwordsIn(body), [])
    return [stage.metricsUrl, ...COUNTS.flatMap(([series, labels]) => linesOf(body, series, labels))]
  })

const unpublish = (stage: Stage) =>
  Effect.gen(function* () {
    yield* stage.kubelet.unpublish(stage.volume)
    yield* same("what is left of the volume", leftOf(stage, stage.volume), nothing)
    yield* stage.kubelet.unpublish(stage.volume)
    return ["no mount, no directory; unpublishing once more is no error"]
  })

/** From the pod's end: it is marked first, so that another node can still say that it needs it. */
const secretGoes = Schedule.max([Schedule.spaced("200 millis"), Schedule.recurs(150)])

const deletePod = (stage: Stage) =>
  Effect.gen(function* () {
    yield* onKubernetes(stage, Resource.remove(Resource.pods, NAMESPACE, stage.volume.podName))
    const started = yield* Clock.currentTimeMillis
    const isThere = readSecret(stage).pipe(
      Effect.as(true),
      Effect.catchIf(
        (failure) => failure.isNotFound,
        () => Effect.succeed(false)
      )
    )
    yield* Effect.retry(
      Effect.flatMap(isThere, (there) => same(`Secret ${SECRET} is there`, there, false)),
      secretGoes
    )
    const took = (yield* Clock.currentTimeMillis) - started
    return [`Secret ${NAMESPACE}/${SECRET} is gone ${(took / 1_000).toFixed(1)} s after its last pod`]
  })

/** Up to here a volume is mounted and the driver runs. */
export const SHOWING: ReadonlyArray<Step> = [
  { title: "a ClusterCSIDriver is created, and the operator makes the operand of it", run: OperatorSteps.deploy },
  { title: "the DaemonSet starts the driver, a process of its own with the arguments of the pod", run: startDriver },
  { title: "the kubelet finds the driver's registration socket and registers it", run: registerDriver },
  { title: "the ClusterCSIDriver says that the driver is available", run: OperatorSteps.becomeAvailable },
  { title: "the SecretProviderClass that the first pod asks for is created", run: createClasses },
  { title: "the driver gets its rights to Secrets, in that namespace alone", run: OperatorSteps.bindSecrets },
  { title: "the kubelet publishes the volume of the first pod", run: publish },
  { title: "the pod sees its secrets as files", run: readFiles },
  { title: "the pod status says which versions are mounted", run: readPodStatus },
  { title: "a Kubernetes Secret is made of the mounted password, as the class asks for", run: readSyncedSecret },
  { title: "a changed secret is not fetched before it is due", run: republishEarly },
  { title: "once due, the driver brings the new secret by itself, all files at once", run: refreshWhenDue },
  { title: "a refresh that is asked for by an annotation comes at once", run: refreshOnDemand },
  { title: "a pod that names a missing class is told so, and what to do", run: failWithoutClass },
  { title: "a pod whose provider is not installed is told where it was looked for", run: failWithoutProvider },
  { title: "the metrics count all of this", run: readMetrics },
  { title: "another age of secrets is asked for, and rolls out under a mounted volume", run: OperatorSteps.switchAge },
  { title: "the new driver goes on refreshing the volume that it found", run: OperatorSteps.refreshSwitched },
  { title: "the new driver mounts the volume of a second pod", run: OperatorSteps.publishSecond }
]

export const ENDING: ReadonlyArray<Step> = [
  {
    title: "removal is asked for; it waits for pods that use volumes, and names them",
    run: OperatorSteps.askForRemoval
  },
  { title: "the kubelet unpublishes the volume, and nothing is left of it", run: unpublish },
  { title: "the pod is deleted, and its Kubernetes Secret goes with it", run: deletePod },
  { title: "the last pod goes, and then the DaemonSet; the driver stops", run: OperatorSteps.deleteLastPod },
  { title: "everything else of the operand goes, and the ClusterCSIDriver says so", run: OperatorSteps.beRemoved },
  { title: "the operator stops when told to, and gives its Lease back", run: OperatorSteps.stop }
]
