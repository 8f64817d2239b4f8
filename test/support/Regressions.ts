/**
 * What happened to others, told once more on the fake layers: one small story per public thread, and what must hold at
 * its end. Each says what is wrong, or nothing.
 *
 * @source reference/defects.md 1 and 2
 */
import { Clock, Context, Effect, FileSystem, Layer, Metric, Stream } from "effect"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "../../layers/fake/KubernetesObject.ts"
import { Life } from "../../layers/fake/Life.ts"
import { MemoryCsiEndpoint, layer as memoryCsiEndpoint } from "../../layers/fake/MemoryCsiEndpoint.ts"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import { MemoryProviders } from "../../layers/fake/MemoryProviders.ts"
import type { NodePublishVolumeRequest } from "../../schemas/Csi.ts"
import { ProviderCallFailed } from "../../schemas/errors/ProviderFailed.ts"
import * as Driver from "../../src/Driver.ts"
import { CsiEndpoint } from "../../src/ports/CsiEndpoint.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../src/ports/Mounter.ts"
import { Providers } from "../../src/ports/Providers.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"
import * as Cluster from "./Cluster.ts"
import * as Node from "./FakeNode.ts"
import * as OperatorWorld from "./OperatorWorld.ts"
import * as Whole from "./WholeDriver.ts"

export interface Regression {
  /** repository#number, in the words of the reference; a defect that nobody has reported goes by its number. */
  readonly thread: string
  readonly upstream: string
  readonly holds: string
  /** The planted mistake that puts the behaviour back, where one does. */
  readonly putBack?: string
  /** What is wrong. */
  readonly run: () => string | undefined
}

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const SEED = 7
const POD_STATUSES = "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io"
const CSI_DRIVER = "/apis/storage.k8s.io/v1/csidrivers/secrets-store.csi.k8s.io"
const SECRETS = "/api/v1/namespaces/default/secrets"

const answered = () => Effect.delay(Effect.succeed(Node.answer("v1")), "50 millis")
const refused = new ProviderCallFailed({
  provider: "vault",
  grpcCode: "PERMISSION_DENIED",
  details: "no",
  unanswered: false
})

const all = (resource: string) => Effect.flatMap(MemoryKubernetes, (control) => control.all(resource))
const secretNamed = (name: string) =>
  Effect.map(all("secrets"), (found) => found.find((it) => textAt(metadataOf(it), "name") === name))

const patchSecret = (name: string, body: JsonObject) =>
  Effect.flatMap(KubernetesApi, (api) =>
    api.request({ method: "PATCH", path: `${SECRETS}/${name}`, contentType: "application/merge-patch+json", body })
  )

const publishOn = (endpoint: MemoryCsiEndpoint["Service"], request: NodePublishVolumeRequest) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    endpoint.call("NodePublishVolume", request, { deadlineMillis: now + 2 * MINUTE }).pipe(
      Effect.as("OK"),
      Effect.catch(({ details, grpcCode }) => Effect.succeed(`${grpcCode} ${details}`))
    )
  )

// ---- a driver that is killed

/** One process of the driver on this node: it dies at a boundary between port calls, and never answers again. */
const mortal = Effect.fnUntraced(function* (killAtBoundary: number) {
  const config = { ...Node.settings, rotationEnabled: true }
  const life = new Life(
    () => {},
    () => {}
  )
  life.killAtBoundary(killAtBoundary)
  const sockets = yield* Layer.build(Layer.fresh(memoryCsiEndpoint))
  const context = Context.make(Mounter, life.mounter(yield* Mounter)).pipe(
    Context.add(FileSystem.FileSystem, life.fileSystem(yield* FileSystem.FileSystem)),
    Context.add(KubernetesApi, life.kubernetes(yield* KubernetesApi)),
    Context.add(Providers, life.providers(yield* Providers)),
    Context.add(CsiEndpoint, Context.get(sockets, CsiEndpoint))
  )
  yield* Effect.forkScoped(
    Driver.run(config, "0.0.0").pipe(
      Effect.provide(Layer.fresh(Driver.layer(config))),
      Effect.provideService(Shutdown, Shutdown.of({ requested: Effect.never })),
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.provideContext(context),
      Effect.ignore
    )
  )
  return { life, endpoint: Context.get(sockets, MemoryCsiEndpoint) }
})

/** A first publish is cut at a boundary, and asked for again half a minute later. */
const cutAt = (boundary: number) =>
  Whole.onVirtualTime(
    SEED,
    Effect.gen(function* () {
      const providers = yield* MemoryProviders
      yield* providers.install("vault", answered)
      yield* Node.putClass()
      const request = yield* Node.putPod()
      const first = yield* mortal(Number.POSITIVE_INFINITY)
      yield* Effect.sleep(SECOND)
      first.life.killAtBoundary(boundary)
      yield* Effect.timeoutOption(publishOn(first.endpoint, request), 5 * SECOND)
      const wasCut = !first.life.isAlive
      first.life.kill()
      const second = yield* mortal(Number.POSITIVE_INFINITY)
      yield* Effect.sleep(30 * SECOND)
      const answer = yield* publishOn(second.endpoint, request)
      const content = yield* Effect.orElseSucceed(Node.read("foo", request.targetPath), () => "no file")
      const isRight = answer === "OK" && content === "secret v1"
      return { wasCut, wrong: isRight ? undefined : `cut at ${boundary}: ${answer}, and the pod reads ${content}` }
    })
  )

const everyCut = (): string | undefined => {
  for (let boundary = 1; boundary < 500; boundary++) {
    const { wasCut, wrong } = cutAt(boundary)
    if (wrong !== undefined) return wrong
    if (!wasCut) return boundary < 20 ? `only ${boundary} boundaries` : undefined
  }
  return "no end of it"
}

// ---- the stories

export const REGRESSIONS: ReadonlyArray<Regression> = [
  {
    thread: "SSCSI#1051",
    upstream: "a driver that died between mount and files left a directory that the next call took for a volume",
    holds: "wherever a first publish is cut, the next one answers OK only with the files in place",
    putBack: "D2: a directory that is young enough is answered OK before anybody looks for a mount",
    run: everyCut
  },
  {
    thread: "SSCSI#1436",
    upstream: "a SecretProviderClass that had just been created was not in the cache, and the mount failed",
    holds: "a class that the watch has not brought yet is asked for",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const api = Cluster.behind({ lagMillisMax: HOUR, isCut: false })
          const node = yield* Cluster.node("node-1", answered, {}, { api })
          yield* Node.putClass()
          const endpoint = Context.get(node.context, MemoryCsiEndpoint)
          const first = yield* Effect.provideContext(Node.putPod(), node.context)
          yield* publishOn(endpoint, first)
          yield* Node.putClass(undefined, "just-made")
          const pod = { ...Node.POD, name: "web-1" }
          const second = yield* Effect.provideContext(Node.putPod(pod, {}, "node-1", "just-made"), node.context)
          const answer = yield* publishOn(endpoint, second)
          return answer === "OK" ? undefined : answer
        })
      )
  },
  {
    thread: "SSCSI#1483",
    upstream: "a refresh that failed was tried again at once, for ever",
    holds: "a provider that refuses is asked less and less often, though not less often than once in an interval",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const providers = yield* MemoryProviders
          let refuses = false
          yield* providers.install("vault", () => (refuses ? Effect.fail(refused) : answered()))
          yield* Node.putClass()
          yield* Whole.start({ rotationPollIntervalMillis: 2 * MINUTE })
          yield* Effect.forkScoped(Whole.keepPublished(yield* Whole.pod("web")))
          yield* Effect.sleep(MINUTE)
          refuses = true
          yield* Effect.sleep(2 * MINUTE)
          const before = providers.calls.length
          yield* Effect.sleep(HOUR)
          const calls = providers.calls.length - before
          return calls >= 20 && calls <= 40 ? undefined : `${calls} calls in an hour`
        })
      )
  },
  {
    thread: "SSCSI#2051, #733",
    upstream: "a StatefulSet that was made anew under its name was no owner of the Secret, which was collected",
    holds: "the Secret of a pod that runs is owned by what owns the pod now, and stays",
    putBack: "D6: owners of a Secret are told apart by name",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const control = yield* MemoryKubernetes
          const node = yield* Cluster.node("node-1", answered)
          yield* Node.putClass(Cluster.classOf({ synced: { username: "foo" } }))
          const begin = Effect.fnUntraced(function* () {
            const owner = yield* Cluster.owner("web", "StatefulSet")
            const pod = yield* Cluster.startPod(node, { name: "web-0", className: "spc", ownerReferences: [owner] })
            while (!Cluster.isMounted(pod)) yield* Effect.sleep(SECOND)
            return { owner, pod }
          })
          const old = yield* begin()
          yield* Effect.sleep(10 * SECOND)
          yield* Cluster.removeOwner(old.owner)
          yield* Cluster.endPod(old.pod)
          const { owner } = yield* begin()
          yield* Effect.sleep(5 * SECOND)
          const collected = yield* control.collectGarbage
          const secret = yield* secretNamed("synced")
          if (collected.some((name) => name.includes("synced"))) return "the Secret was collected"
          const uids = listAt(metadataOf(secret ?? {}), "ownerReferences").filter(isObject)
          return uids.some(({ uid }) => uid === owner.uid) ? undefined : "the owner of today is none of the Secret's"
        })
      )
  },
  {
    thread: "SSCSI#1584, #389",
    upstream: "a Secret that its class did not ask for any more stayed for ever",
    holds: "it is gone within a minute, while the pod runs on; the others stay",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const node = yield* Cluster.node("node-1", answered)
          yield* Cluster.collecting()
          yield* Node.putClass(Cluster.classOf({ kept: { username: "foo" }, dropped: { username: "foo" } }))
          const owner = yield* Cluster.owner("web")
          const pod = yield* Cluster.startPod(node, { name: "web-0", className: "spc", ownerReferences: [owner] })
          while (!Cluster.isMounted(pod)) yield* Effect.sleep(SECOND)
          yield* Effect.sleep(10 * SECOND)
          const before = (yield* all("secrets")).length
          yield* Node.changeClass(Cluster.classOf({ kept: { username: "foo" } }))
          yield* Effect.sleep(MINUTE)
          const names = (yield* all("secrets")).map((it) => textAt(metadataOf(it), "name"))
          return before === 2 && names.join() === "kept" ? undefined : `${before} before, then ${names.join(", ")}`
        })
      )
  },
  {
    thread: "SSCSI#2062",
    upstream: "every reconcile wrote every Secret, changed or not",
    holds: "in an hour in which nothing changes nothing is written",
    putBack: "D5: a Secret is written whole at every look, whoever has written what in it",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const control = yield* MemoryKubernetes
          const node = yield* Cluster.node("node-1", answered)
          yield* Node.putClass(Cluster.classOf({ synced: { username: "foo" } }))
          const owner = yield* Cluster.owner("web")
          yield* Cluster.startPod(node, { name: "web-0", className: "spc", ownerReferences: [owner] })
          yield* Effect.sleep(MINUTE)
          yield* control.resetRequests
          yield* Effect.sleep(HOUR)
          const writes = (yield* control.requests).filter(({ method }) => method !== "GET")
          const secret = yield* secretNamed("synced")
          return secret !== undefined && writes.length === 0 ? undefined : JSON.stringify(writes)
        })
      )
  },
  {
    thread: "SSCSI#292",
    upstream: "labels, annotations, finalizers and owners that others had put on a Secret were lost at the next write",
    holds: "they are there after a rotation; and a Secret that somebody else has made is left alone",
    putBack: "D5: a Secret is written whole at every look, whoever has written what in it",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const api = yield* KubernetesApi
          let version = 1
          const node = yield* Cluster.node("node-1", () =>
            Effect.succeed(Node.answer(`v${version}`, Node.file("foo", `secret v${version}`)))
          )
          const foreign = { apiVersion: "v1", kind: "Secret", metadata: { name: "foreign" }, data: { theirs: "eA==" } }
          yield* api.request({ method: "POST", path: SECRETS, body: foreign })
          yield* Node.putClass(Cluster.classOf({ synced: { username: "foo" }, foreign: { username: "foo" } }))
          const owner = yield* Cluster.owner("web")
          yield* Cluster.startPod(node, { name: "web-0", className: "spc", ownerReferences: [owner] })
          yield* Effect.sleep(30 * SECOND)
          const theirs = { "others/note": "kept" }
          yield* patchSecret("synced", {
            metadata: { labels: theirs, annotations: theirs, finalizers: ["others/finalizer"] }
          })
          version = 2
          yield* Effect.sleep(5 * MINUTE)
          const synced = (yield* secretNamed("synced")) ?? {}
          const metadata = metadataOf(synced)
          const data = objectAt((yield* secretNamed("foreign")) ?? {}, "data")
          const username = Buffer.from(textAt(objectAt(synced, "data"), "username") ?? "", "base64").toString()
          const seen = [
            username,
            textAt(objectAt(metadata, "labels"), "others/note"),
            textAt(objectAt(metadata, "annotations"), "others/note"),
            listAt(metadata, "finalizers").join(),
            Object.keys(data).join()
          ].join(" ")
          return seen === "secret v2 kept kept others/finalizer theirs" ? undefined : seen
        })
      )
  },
  {
    thread: "SSCSI#230",
    upstream: "of 100 pods of one class that started together 15 to 20 were recorded",
    holds: "each pod has its own record, which names it",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const control = yield* MemoryKubernetes
          yield* control.setLatencyMillis(50)
          yield* Node.putClass()
          const owner = yield* Cluster.owner("web")
          for (let number = 1; number <= 5; number++) {
            const node = yield* Cluster.node(`node-${number}`, answered)
            for (let pod = 0; pod < 20; pod++) {
              const name = `web-${number}-${pod}`
              yield* Effect.forkScoped(Cluster.startPod(node, { name, className: "spc", ownerReferences: [owner] }))
            }
          }
          yield* Effect.sleep(MINUTE)
          const pods = new Map(
            (yield* all("pods")).map((it) => [textAt(metadataOf(it), "name"), textAt(metadataOf(it), "uid") ?? ""])
          )
          const right = (yield* all(POD_STATUSES)).filter((it) => {
            const status = objectAt(it, "status")
            const uid = pods.get(textAt(status, "podName"))
            return uid !== undefined && textAt(status, "targetPath") === Node.targetOf(uid)
          })
          return right.length === 100 ? undefined : `${right.length} of ${pods.size} pods are recorded`
        })
      )
  },
  {
    thread: "SSCSI#1453",
    upstream: "a record whose name was too long could not be written, and each retry fetched credentials once more",
    holds: "the longest names are mounted and recorded, with one call of the provider",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const providers = yield* MemoryProviders
          yield* providers.install("vault", answered)
          const className = "c".repeat(250)
          yield* Node.putClass(undefined, className)
          yield* Whole.start({})
          const made = yield* Node.putPod({ ...Node.POD, name: "p".repeat(250) }, {}, "node-1", className)
          const endpoint = yield* MemoryCsiEndpoint
          yield* Effect.sleep(SECOND)
          const answer = yield* publishOn(endpoint, made)
          const records = (yield* all(POD_STATUSES)).length
          const calls = providers.calls.length
          return answer === "OK" && records === 1 && calls === 1
            ? undefined
            : `${answer}, ${records} records, ${calls} calls`
        })
      )
  },
  {
    thread: "OENH#2012 (D1)",
    upstream: "an interval was honoured once, and after that every republish called the provider",
    holds: "an hour between refreshes is an hour, however often the kubelet comes",
    putBack: "D1: unchanged content does not set the clock, so that every republish calls the provider",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const providers = yield* MemoryProviders
          yield* providers.install("vault", answered)
          yield* Node.putClass()
          yield* Whole.start({ rotationPollIntervalMillis: HOUR })
          const pod = yield* Whole.pod("web")
          yield* Effect.forkScoped(Whole.keepPublished(pod))
          yield* Effect.sleep(6 * HOUR + 30 * MINUTE)
          const calls = providers.calls.length
          return calls <= 7 && pod.republishes.length > 250 ? undefined : `${calls} calls in six hours and a half`
        })
      )
  },
  {
    thread: "GCP#97 (D3)",
    upstream: "a provider was never told which versions a volume held, so that it had to fetch all of them",
    holds: "every refresh says what the volume holds",
    putBack: "D3: a provider is never told which versions the volume holds",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const providers = yield* MemoryProviders
          yield* providers.install("vault", answered)
          yield* Node.putClass()
          yield* Whole.start({ rotationPollIntervalMillis: 2 * MINUTE })
          yield* Effect.forkScoped(Whole.keepPublished(yield* Whole.pod("web")))
          yield* Effect.sleep(5 * MINUTE)
          const [, ...refreshes] = providers.calls
          const told = refreshes.map(({ request }) =>
            request.currentObjectVersions.map(({ version }) => version).join()
          )
          return told.length > 0 && told.every((it) => it === "v1") ? undefined : `told: ${told.join("; ")}`
        })
      )
  },
  {
    thread: "K8S#121271 (D4)",
    upstream: "a republish that failed lost the volume's mount in old kubelets, so failures were hidden from everybody",
    holds: "the republish is answered OK, the files stay, and an Event of the pod says what is wrong",
    putBack: "D4: a refresh that fails is only counted",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const providers = yield* MemoryProviders
          let refuses = false
          yield* providers.install("vault", () => (refuses ? Effect.fail(refused) : answered()))
          yield* Node.putClass()
          yield* Whole.start({ rotationPollIntervalMillis: 2 * MINUTE })
          const { request } = yield* Whole.pod("web")
          const endpoint = yield* MemoryCsiEndpoint
          yield* Effect.sleep(SECOND)
          yield* publishOn(endpoint, request)
          refuses = true
          yield* Effect.sleep(3 * MINUTE)
          const answer = yield* publishOn(endpoint, request)
          const content = yield* Node.read("foo", request.targetPath)
          const reasons = (yield* all("events")).map((it) => textAt(it, "reason"))
          const seen = `${answer}, ${content}, ${reasons.join()}`
          return seen === "OK, secret v1, MountRotationFailed" ? undefined : seen
        })
      )
  },
  {
    thread: "D7",
    upstream: "pod web with class x-y and pod web-x with class y wrote one record by turns",
    holds: "each of the two has a record of its own",
    putBack: "D7: two volumes whose names make one name share a pod status",
    run: () =>
      Whole.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const providers = yield* MemoryProviders
          yield* providers.install("vault", answered)
          yield* Whole.start({})
          const endpoint = yield* MemoryCsiEndpoint
          yield* Effect.sleep(SECOND)
          const targets: Array<string> = []
          for (const [name, className] of [
            ["web", "default-y"],
            ["web-default", "y"]
          ] as const) {
            yield* Node.putClass(undefined, className)
            const request = yield* Node.putPod({ ...Node.POD, name }, {}, "node-1", className)
            targets.push(request.targetPath)
            yield* publishOn(endpoint, request)
          }
          const recorded = (yield* all(POD_STATUSES)).map((it) => textAt(objectAt(it, "status"), "targetPath"))
          return targets.every((it) => recorded.includes(it)) ? undefined : `${recorded.length} records of two volumes`
        })
      )
  },
  {
    thread: "OENH#2012, VLT#179 (B4)",
    upstream: "the CSIDriver was deleted and created for every change, and mounts failed in between",
    holds: "it is changed in place: the object is the same one, and was there all the time",
    putBack: "B4: the CSIDriver is deleted and created for every change",
    run: () =>
      OperatorWorld.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const api = yield* KubernetesApi
          yield* Effect.forkScoped(OperatorWorld.controlPlane())
          const operator = yield* OperatorWorld.operator("a")
          yield* OperatorWorld.createClusterCsiDriver()
          yield* OperatorWorld.until("installed", OperatorWorld.settled(operator))
          const deleted: Array<string> = []
          const watch = api.watch({ path: "/apis/storage.k8s.io/v1/csidrivers" }, Number.POSITIVE_INFINITY)
          const told = ({ type }: { readonly type: string }) =>
            Effect.sync(() => void (type === "DELETED" && deleted.push(type)))
          yield* Effect.forkScoped(Effect.orDie(Stream.runForEach(watch, told)))
          yield* OperatorWorld.patchClusterCsiDriver({
            spec: {
              driverConfig: {
                driverType: "SecretsStore",
                secretsStore: { secretRotation: { type: "None", custom: null } }
              }
            }
          })
          yield* Effect.sleep(10 * SECOND)
          const spec = objectAt((yield* OperatorWorld.csiDriver) ?? {}, "spec")
          if (spec["requiresRepublish"] !== false) return "rotation was not switched off"
          return deleted.length === 0 ? undefined : "the CSIDriver was deleted"
        })
      )
  },
  {
    thread: "AWS PR#561 (B5)",
    upstream: "audiences that an administrator had written into the CSIDriver were gone when it was made anew",
    holds: "a CSIDriver that somebody deletes comes back with them",
    putBack: "B5: audiences that an administrator has set are read from the CSIDriver alone",
    run: () =>
      OperatorWorld.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          const api = yield* KubernetesApi
          yield* Effect.forkScoped(OperatorWorld.controlPlane())
          const operator = yield* OperatorWorld.operator("a")
          yield* OperatorWorld.createClusterCsiDriver()
          yield* OperatorWorld.until("installed", OperatorWorld.settled(operator))
          const tokenRequests = [{ audience: "sts.amazonaws.com" }]
          yield* api.request({
            method: "PATCH",
            path: CSI_DRIVER,
            contentType: "application/merge-patch+json",
            body: { spec: { tokenRequests } }
          })
          yield* Effect.sleep(2 * MINUTE)
          yield* api.request({ method: "DELETE", path: CSI_DRIVER })
          yield* Effect.sleep(2 * MINUTE)
          const spec = objectAt((yield* OperatorWorld.csiDriver) ?? {}, "spec")
          const seen = JSON.stringify(listAt(spec, "tokenRequests"))
          return seen === JSON.stringify(tokenRequests) ? undefined : `tokenRequests: ${seen}`
        }).pipe(Effect.orDie)
      )
  },
  {
    thread: "OCPOP#8 (OCPBUGS-17448)",
    upstream: "roles, bindings and service accounts stayed when the driver was removed",
    holds: "after Removed nothing of the operand is left",
    putBack: "roles and service accounts stay when the driver is removed",
    run: () =>
      OperatorWorld.onVirtualTime(
        SEED,
        Effect.gen(function* () {
          yield* Effect.forkScoped(OperatorWorld.controlPlane())
          const operator = yield* OperatorWorld.operator("a")
          yield* OperatorWorld.createClusterCsiDriver()
          yield* OperatorWorld.until("installed", OperatorWorld.settled(operator))
          yield* OperatorWorld.deleteClusterCsiDriver
          yield* Effect.sleep(2 * MINUTE)
          const left = yield* OperatorWorld.operandObjects
          const it = yield* OperatorWorld.clusterCsiDriver
          return left.length === 0 && it === undefined ? undefined : `left: ${left.join(", ")}`
        })
      )
  }
]
