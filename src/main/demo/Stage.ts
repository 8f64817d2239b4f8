/**
 * What the demo is played on: a Kubernetes API, a provider that serves the files of a directory, the operator as a
 * process, and a node that runs whatever the operator deploys. Everything lives in the scope, and below one temporary
 * directory.
 */
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect, Latch, Schedule } from "effect"
import { stringify } from "yaml"
import * as DaemonSetController from "../../../layers/development/DaemonSetController.ts"
import * as DevelopmentProvider from "../../../layers/development/DevelopmentProvider.ts"
import * as DriverProcess from "../../../layers/development/DriverProcess.ts"
import { get } from "../../../layers/development/Http.ts"
import type { InlineVolume } from "../../../layers/development/Kubelet.ts"
import * as KubeletRegistration from "../../../layers/development/KubeletRegistration.ts"
import * as PlainMounter from "../../../layers/development/PlainMounter.ts"
import * as Workbench from "../../../layers/development/Workbench.ts"
import { DRIVER_NAME, LEASE } from "../../operator/Names.ts"
import { KubernetesApi } from "../../ports/KubernetesApi.ts"
import * as Resource from "../../reconciler/Resource.ts"
import { same } from "./Check.ts"
import * as Files from "./Files.ts"
import type { Terminal } from "./Terminal.ts"

export const NAMESPACE = "demo"
export const CLASS = "web-secrets"
export const PROVIDER = "development"
export const OPERATOR_NAMESPACE = "openshift-cluster-csi-drivers"
export const DRIVER_IMAGE = "demo/secrets-store-csi-driver"
/** How old secrets may become: at first, and after the switch. */
export const ROTATION_SECONDS = 5
export const SWITCHED_SECONDS = 2
/** Of the driver's container. */
const METRICS_PORT = 8095
const HEALTH_PORT = 9808
/** How long a mount waits for a provider that may still be starting. */
const PROVIDER_WAIT_MILLIS = 500

/** For what takes as long as a program needs to start. */
export const inTime = Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(400)])

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..")

/** The secrets at the beginning; made for the demo, and nobody's. */
export const SECRETS = { password: "correct horse battery staple", username: "web" } as const
export const MODES = { password: "0400", username: "0644" } as const

/** For the provider: which of its files, and the permissions that they get. */
export const PARAMETERS = {
  objects: stringify({
    array: Object.entries(MODES).map(([objectName, mode]) => stringify({ objectName, mode }))
  })
}

/** A Kubernetes Secret of the mounted password. */
export const SECRET = "web-password"
export const SECRET_OBJECTS = [
  {
    secretName: SECRET,
    type: "Opaque",
    labels: { app: "web" },
    data: [{ objectName: "password", key: "password" }]
  }
]

const VOLUME = { podName: "web-0", podNamespace: NAMESPACE, volumeName: "secrets", secretProviderClass: CLASS }
/** Its class asks for no Kubernetes Secret. */
const SECOND = { ...VOLUME, podName: "web-1", secretProviderClass: "file-secrets" }
const WITHOUT_CLASS = { ...VOLUME, podName: "lost-0", secretProviderClass: "no-such-class" }
const WITHOUT_PROVIDER = { ...VOLUME, podName: "early-0", secretProviderClass: "vault-secrets" }

/** Who holds the operator's Lease; empty when nobody does. */
export const holderOf = (api: KubernetesApi["Service"]) =>
  Resource.get(Resource.leases, OPERATOR_NAMESPACE, LEASE).pipe(
    Effect.map(({ spec }) => spec?.holderIdentity ?? ""),
    Effect.provideService(KubernetesApi, api)
  )

/** Creates the pod of a volume, and gives the volume the uid that the API server has made for it. */
const createPod = ({ api }: Workbench.Workbench, volume: typeof VOLUME) =>
  api
    .request({
      method: "POST",
      path: Resource.pathOf(Resource.pods, NAMESPACE),
      body: {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: volume.podName, namespace: NAMESPACE },
        spec: {
          nodeName: Workbench.NODE_NAME,
          containers: [{ name: "app", image: "app", volumeMounts: [{ name: "secrets", mountPath: "/secrets" }] }],
          volumes: [
            {
              name: volume.volumeName,
              csi: {
                driver: DRIVER_NAME,
                readOnly: true,
                volumeAttributes: { secretProviderClass: volume.secretProviderClass }
              }
            }
          ]
        }
      }
    })
    .pipe(Effect.map((body): InlineVolume => ({ ...volume, podUid: Resource.metadataOf(body).uid ?? "" })))

const newestOf = (directory: string): number =>
  Math.max(
    ...readdirSync(directory, { recursive: true, encoding: "utf8" }).map((name) =>
      name.endsWith(".ts") ? statSync(join(directory, name)).mtimeMs : 0
    )
  )

interface Entry {
  readonly path: string
  /** "run from ..." */
  readonly name: string
}

/** The bundle, unless it is older than the sources. */
const entryOf = (program: "driver" | "operator"): Entry => {
  const bundle = join(root, `dist/${program}.cjs`)
  const sources = ["src", "layers", "schemas", "proto/gen"].map((folder) => join(root, folder))
  return existsSync(bundle) && sources.every((folder) => newestOf(folder) < statSync(bundle).mtimeMs)
    ? { path: bundle, name: `the bundle dist/${program}.cjs` }
    : { path: join(root, `src/main/${program}.ts`), name: "the sources" }
}

/** Where nothing can be mounted, the sources with plain directories. */
const driverEntry = (mountsAreReal: boolean): Entry =>
  mountsAreReal
    ? entryOf("driver")
    : { path: join(root, "src/main/demo-driver.ts"), name: "the sources, with plain directories" }

const startOperator = Effect.fnUntraced(function* ({ api, kubeconfig }: Workbench.Workbench, entry: Entry) {
  const listen = `127.0.0.1:${yield* Files.freePort}`
  const operator = yield* DriverProcess.start({
    entry: entry.path,
    flags: ["start", "-v=2", `--namespace=${OPERATOR_NAMESPACE}`, `--kubeconfig=${kubeconfig}`, `--listen=${listen}`],
    // No images of upstream's sidecars: the driver is a pod's only container.
    environment: { DRIVER_IMAGE },
    ownProcessGroup: true
  })
  const died = Effect.flatMap(operator.exited, (how) =>
    Effect.fail(new DriverProcess.DriverDied({ message: `the operator ended with ${how}:\n${operator.output()}` }))
  )
  const leads = holderOf(api).pipe(
    Effect.flatMap((holder) => same("somebody holds the Lease", holder !== "", true)),
    Effect.retry(inTime)
  )
  yield* Effect.raceFirst(leads, died)
  const holder = yield* holderOf(api)
  yield* same("status of /readyz", (yield* get(`https://${listen}/readyz`)).status, 200)
  return { operator, holder, listen }
})

/** @shape (terminal, mountsAreReal) -> everything that the steps need, each part shown as a step of its own */
export const open = Effect.fnUntraced(function* (terminal: Terminal, mountsAreReal: boolean) {
  const driverProgram = driverEntry(mountsAreReal)

  const workbench = yield* terminal.step(
    "a Kubernetes API with four pods listens on the loopback address",
    Effect.gen(function* () {
      const made = yield* Workbench.make({
        entry: driverProgram.path,
        credentials: "kubeconfig",
        ...(mountsAreReal ? {} : { mounter: PlainMounter.layer })
      })
      const { status } = yield* get(`${made.kubernetesUrl}/api/v1/namespaces/${NAMESPACE}/pods`)
      yield* same("status of a request without a token", status, 401)
      const volume = yield* createPod(made, VOLUME)
      const second = yield* createPod(made, SECOND)
      const withoutClass = yield* createPod(made, WITHOUT_CLASS)
      const withoutProvider = yield* createPod(made, WITHOUT_PROVIDER)
      return { ...made, volume, second, withoutClass, withoutProvider }
    }),
    ({ directory, kubernetesUrl }) => [kubernetesUrl, `everything else is below ${directory}`]
  )

  const secretsDirectory = join(workbench.directory, "secrets")
  yield* terminal.step(
    "a provider serves the files of a directory",
    Effect.gen(function* () {
      mkdirSync(secretsDirectory, { mode: 0o700 })
      for (const [name, content] of Object.entries(SECRETS)) {
        writeFileSync(join(secretsDirectory, name), content, { mode: 0o600 })
      }
      const socket = join(workbench.providersDirectory, `${PROVIDER}.sock`)
      yield* DevelopmentProvider.serve({ endpoint: `unix://${socket}`, directory: secretsDirectory })
      yield* same("a socket named after the provider", Files.isSocket(socket), true)
      return socket
    }),
    (socket) => [`${secretsDirectory} on ${socket}`]
  )

  const operatorProgram = entryOf("operator")
  const { operator } = yield* terminal.step(
    "the operator starts as a process of its own, and leads",
    startOperator(workbench, operatorProgram),
    ({ holder, listen, operator: { pid } }) => [
      `pid ${pid}, run from ${operatorProgram.name}`,
      `Lease ${OPERATOR_NAMESPACE}/${LEASE} is held by ${holder}`,
      `https://${listen}/readyz: ok`
    ]
  )

  const ports = new Map<number, number>()
  for (const port of [METRICS_PORT, HEALTH_PORT]) ports.set(port, yield* Files.freePort)
  const address = (port: number) => `http://127.0.0.1:${ports.get(port)}`
  const otherProviders = join(workbench.directory, "other-providers")
  mkdirSync(otherProviders)
  const controller = yield* DaemonSetController.make({
    api: workbench.api,
    namespace: OPERATOR_NAMESPACE,
    node: {
      name: Workbench.NODE_NAME,
      // The hostPath volumes of the pod template.
      directories: new Map([
        ["/var/lib/kubelet/pods", join(workbench.kubeletRoot, "pods")],
        ["/var/lib/kubelet/plugins/csi-secrets-store", dirname(workbench.socket)],
        ["/var/lib/kubelet/plugins_registry", workbench.registrationDirectory],
        ["/var/run/secrets-store-csi-providers", workbench.providersDirectory],
        ["/etc/kubernetes/secrets-store-csi-providers", otherProviders]
      ]),
      ports
    },
    entry: driverProgram.path,
    // Nobody wants to look on while the driver waits for a provider that never comes.
    flags: [`--provider-wait-timeout=${PROVIDER_WAIT_MILLIS}ms`],
    // In a cluster, by the pod's service account.
    environment: { KUBECONFIG: workbench.kubeconfig },
    readyUrl: `${address(HEALTH_PORT)}/readyz`
  })
  const plugins = KubeletRegistration.watch(workbench.registrationDirectory)
  const kubeletLooks = yield* Latch.make()

  return {
    ...workbench,
    mountsAreReal,
    operator,
    driverProgram: driverProgram.name,
    driverPods: controller.pods,
    registered: plugins.registered,
    /** From now on the kubelet looks for registration sockets. */
    letKubeletLook: Latch.open(kubeletLooks),
    /** The cluster around the driver, for as long as the demo goes on. */
    cluster: Effect.all([controller.run, Effect.andThen(Latch.await(kubeletLooks), plugins.run)], {
      concurrency: 2,
      discard: true
    }),
    metricsUrl: `${address(METRICS_PORT)}/metrics`,
    healthUrl: address(HEALTH_PORT),
    secretsDirectory,
    registrationSocket: join(workbench.registrationDirectory, `${DRIVER_NAME}-reg.sock`),
    target: workbench.kubelet.targetPath(workbench.volume)
  }
})

export type Stage = Effect.Success<ReturnType<typeof open>>
