/**
 * What the demo shows, step by step. Each step does one thing, compares what came of it with what has to come of it, and
 * answers with the lines that a person wants to see.
 */
import { writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { Clock, Effect, Redacted, Schedule, Schema } from "effect"
import type { InlineVolume } from "../../../layers/development/Kubelet.ts"
import { register } from "../../../layers/development/KubeletRegistration.ts"
import { NODE_NAME } from "../../../layers/development/Workbench.ts"
import { parseMountInfo } from "../../../layers/real/LinuxMounter.ts"
import { FORCE_REFRESH_KEY } from "../../../schemas/ForceRefresh.ts"
import { KubernetesApi } from "../../ports/KubernetesApi.ts"
import * as Resource from "../../reconciler/Resource.ts"
import { holds, present, same, Unexpected } from "./Check.ts"
import * as Files from "./Files.ts"
import { get } from "./Http.ts"
import { linesOf, valueOf } from "./MetricsPage.ts"
import {
  CLASS,
  DRIVER_NAME,
  MODES,
  NAMESPACE,
  PARAMETERS,
  PROVIDER,
  ROTATION_MILLIS,
  SECRET,
  SECRET_OBJECTS,
  SECRETS,
  type Stage
} from "./Stage.ts"

interface StepFailure {
  readonly _tag: string
  readonly message: string
}

export interface Step {
  readonly title: string
  readonly run: (stage: Stage) => Effect.Effect<ReadonlyArray<string>, StepFailure>
}

/** For what happens soon, but not at once. */
const soon = Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(60)])
/** For what is timed. */
const often = Schedule.max([Schedule.spaced("10 millis"), Schedule.recurs(300)])

const ROTATED = { ...SECRETS, password: "Tr0ub4dor&3" }
const REVOKED = { ...SECRETS, password: "made after a leak" }

// ---- looking

const podStatusName = ({ volume }: Stage) => `${volume.podName}-${NAMESPACE}-${CLASS}`

const onKubernetes = <A, E>(stage: Stage, request: Effect.Effect<A, E, KubernetesApi>): Effect.Effect<A, E> =>
  Effect.provideService(request, KubernetesApi, stage.api)

const readStatus = (stage: Stage) =>
  onKubernetes(stage, Resource.get(Resource.podStatuses, NAMESPACE, podStatusName(stage)))

const versionsIn = (status: Effect.Success<ReturnType<typeof readStatus>>): Readonly<Record<string, string>> =>
  Object.fromEntries((status.status?.objects ?? []).map(({ id = "", version = "" }) => [id, version]))

const contentsOf = (files: ReadonlyArray<Files.SeenFile>): Readonly<Record<string, string>> =>
  Object.fromEntries(files.map(({ content, name }) => [name, content]))

const showFiles = (files: ReadonlyArray<Files.SeenFile>): ReadonlyArray<string> =>
  files.map(({ content, link, mode, name }) => `${mode}  ${name} -> ${link ?? "(a file)"}: ${JSON.stringify(content)}`)

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

/** Everything that could be left of a volume on this node. */
const leftOf = (stage: Stage, volume: InlineVolume) => {
  const target = stage.kubelet.targetPath(volume)
  return { mounts: Files.mountLines(target), directory: Files.below(dirname(target)) }
}
const nothing = { mounts: [], directory: [] }

// ---- acting

/** A publish that has to fail: the error as the kubelet would put it into the pod's events. */
const refused = (stage: Stage, volume: InlineVolume) =>
  stage.kubelet.publish(volume).pipe(
    Effect.flip,
    Effect.mapError(
      () => new Unexpected({ what: `publishing for pod ${volume.podName}`, expected: "an error", actual: "OK" })
    )
  )

const changePassword = (stage: Stage, { password }: typeof ROTATED) =>
  Effect.sync(() => writeFileSync(join(stage.secretsDirectory, "password"), password))

/** Long lines of text, for reading. */
const wrapped = (text: string): ReadonlyArray<string> =>
  (text.match(/.{1,90}(?:\s|$)|\S+/gu) ?? []).map((line) => line.trimEnd())

// ---- the steps

const registerDriver = (stage: Stage) =>
  Effect.gen(function* () {
    const appeared = Effect.suspend(() => same("a registration socket", Files.isSocket(stage.registrationSocket), true))
    yield* Effect.retry(appeared, soon)
    const { info, nodeId } = yield* register(stage.registrationSocket)
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
    yield* stage.putClass(NAMESPACE, stage.withoutProvider.secretProviderClass, "vault", { objects: "password" })
    const found = yield* onKubernetes(stage, Resource.get(Resource.secretProviderClasses, NAMESPACE, CLASS))
    yield* same("the class as stored", found.spec, {
      provider: PROVIDER,
      parameters: PARAMETERS,
      secretObjects: SECRET_OBJECTS
    })
    const { podName, volumeName } = stage.volume
    return [
      `SecretProviderClass ${NAMESPACE}/${CLASS}: provider ${PROVIDER}`,
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

/** The password of the Kubernetes Secret, and who owns it. */
const readSecret = (stage: Stage) =>
  Effect.map(onKubernetes(stage, Resource.get(Resource.secrets, NAMESPACE, SECRET)), ({ data = {}, metadata }) => ({
    password: Buffer.from(Redacted.value(data["password"] ?? Redacted.make("")), "base64").toString(),
    owners: (metadata.ownerReferences ?? []).map(({ kind, name }) => `${kind} ${name}`)
  }))

/** It is written a moment after the files. */
const secretBecomes = (stage: Stage, password: string) =>
  readSecret(stage).pipe(
    Effect.flatMap((found) => Effect.as(same(`password in Secret ${SECRET}`, found.password, password), found)),
    Effect.retry(soon)
  )

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
      `the provider's password is now ${JSON.stringify(ROTATED.password)}; a volume is refreshed every ${ROTATION_MILLIS / 1000} s`,
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
    yield* same(
      "secrets on the metrics page",
      [SECRETS.password, ROTATED.password, REVOKED.password].filter((secret) => body.includes(secret)),
      []
    )
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

const stop = (stage: Stage) =>
  Effect.gen(function* () {
    const { driver } = stage
    yield* driver.kill("SIGTERM")
    const how = yield* driver.exited.pipe(Effect.timeoutOption("10 seconds"))
    yield* same("exit code", how._tag === "Some" ? how.value : "still running after 10 s", 0)
    yield* same("process", Files.isAlive(driver.pid), false)
    const sockets = [stage.socket, stage.registrationSocket].filter(Files.isSocket)
    yield* same("sockets", sockets, [])
    yield* same(
      "secrets in the driver's log",
      [SECRETS.password, ROTATED.password, REVOKED.password].filter((secret) => driver.output().includes(secret)),
      []
    )
    return ["exit code 0, no process, no socket, no secret in its log"]
  })

/** Up to here the volume is mounted and the driver runs. */
export const SHOWING: ReadonlyArray<Step> = [
  { title: "the kubelet finds the driver's registration socket and registers it", run: registerDriver },
  { title: "the SecretProviderClass that the first pod asks for is created", run: createClasses },
  { title: "the kubelet publishes the volume of the first pod", run: publish },
  { title: "the pod sees its secrets as files", run: readFiles },
  { title: "the pod status says which versions are mounted", run: readPodStatus },
  { title: "a Kubernetes Secret is made of the mounted password, as the class asks for", run: readSyncedSecret },
  { title: "a changed secret is not fetched before it is due", run: republishEarly },
  { title: "once due, the driver brings the new secret by itself, all files at once", run: refreshWhenDue },
  { title: "a refresh that is asked for by an annotation comes at once", run: refreshOnDemand },
  { title: "a pod that names a missing class is told so, and what to do", run: failWithoutClass },
  { title: "a pod whose provider is not installed is told where it was looked for", run: failWithoutProvider },
  { title: "the metrics count all of this", run: readMetrics }
]

export const ENDING: ReadonlyArray<Step> = [
  { title: "the kubelet unpublishes the volume, and nothing is left of it", run: unpublish },
  { title: "the pod is deleted, and its Kubernetes Secret goes with it", run: deletePod },
  { title: "the driver stops when told to", run: stop }
]
