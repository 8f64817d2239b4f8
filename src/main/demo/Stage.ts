/**
 * What stands around the driver in the demo: a Kubernetes API, a provider that serves the files of a directory, and the
 * driver process itself. Everything lives in the scope, and below one temporary directory.
 */
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import { stringify } from "yaml"
import * as DevelopmentProvider from "../../../layers/development/DevelopmentProvider.ts"
import type { InlineVolume } from "../../../layers/development/Kubelet.ts"
import * as PlainMounter from "../../../layers/development/PlainMounter.ts"
import * as Workbench from "../../../layers/development/Workbench.ts"
import * as Resource from "../../reconciler/Resource.ts"
import { same } from "./Check.ts"
import * as Files from "./Files.ts"
import { get } from "./Http.ts"
import type { Terminal } from "./Terminal.ts"

export const NAMESPACE = "demo"
export const CLASS = "web-secrets"
export const PROVIDER = "development"
export const DRIVER_NAME = "secrets-store.csi.k8s.io"
export const ROTATION_MILLIS = 5_000
/** How long a mount waits for a provider that may still be starting. */
const PROVIDER_WAIT_MILLIS = 500

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
const WITHOUT_CLASS = { ...VOLUME, podName: "lost-0", secretProviderClass: "no-such-class" }
const WITHOUT_PROVIDER = { ...VOLUME, podName: "early-0", secretProviderClass: "vault-secrets" }

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

/** The bundle, unless it is older than the sources; where nothing can be mounted, the sources with plain directories. */
const entryOf = (mountsAreReal: boolean): { readonly path: string; readonly name: string } => {
  const bundle = join(root, "dist/driver.cjs")
  const sources = ["src", "layers", "schemas", "proto/gen"].map((folder) => join(root, folder))
  if (!mountsAreReal)
    return { path: join(root, "src/main/demo-driver.ts"), name: "the sources, with plain directories" }
  return existsSync(bundle) && sources.every((folder) => newestOf(folder) < statSync(bundle).mtimeMs)
    ? { path: bundle, name: "the bundle dist/driver.cjs" }
    : { path: join(root, "src/main/driver.ts"), name: "the sources" }
}

/** @shape (terminal, mountsAreReal) -> everything that the steps need, each part shown as a step of its own */
export const open = Effect.fnUntraced(function* (terminal: Terminal, mountsAreReal: boolean) {
  const entry = entryOf(mountsAreReal)

  const workbench = yield* terminal.step(
    "a Kubernetes API with three pods listens on the loopback address",
    Effect.gen(function* () {
      const made = yield* Workbench.make({
        entry: entry.path,
        credentials: "kubeconfig",
        ...(mountsAreReal ? {} : { mounter: PlainMounter.layer })
      })
      const { status } = yield* get(`${made.kubernetesUrl}/api/v1/namespaces/${NAMESPACE}/pods`)
      yield* same("status of a request without a token", status, 401)
      const volume = yield* createPod(made, VOLUME)
      const withoutClass = yield* createPod(made, WITHOUT_CLASS)
      const withoutProvider = yield* createPod(made, WITHOUT_PROVIDER)
      return { ...made, volume, withoutClass, withoutProvider }
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

  const metricsUrl = `http://127.0.0.1:${yield* Files.freePort}/metrics`
  const healthUrl = `http://127.0.0.1:${yield* Files.freePort}`
  const driver = yield* terminal.step(
    "the driver starts as a process of its own",
    Effect.gen(function* () {
      const running = yield* workbench.startDriver({
        // Ctrl-C in a terminal is for the demo, which then stops the driver itself.
        ownProcessGroup: true,
        flags: [
          `--metrics-addr=${new URL(metricsUrl).host}`,
          `--health-addr=${new URL(healthUrl).host}`,
          `--kubelet-registration-path=${workbench.socket}`,
          `--plugin-registration-path=${workbench.registrationDirectory}`,
          "--enable-secret-rotation=true",
          `--rotation-poll-interval=${ROTATION_MILLIS}ms`,
          `--provider-wait-timeout=${PROVIDER_WAIT_MILLIS}ms`
        ]
      })
      yield* same("status of /healthz", (yield* get(`${healthUrl}/healthz`)).status, 200)
      const ready = yield* get(`${healthUrl}/readyz`)
      yield* same("status of /readyz before the kubelet knows the driver", ready.status, 500)
      const { name, vendorVersion } = yield* workbench.kubelet.pluginInfo
      yield* same("name of the CSI driver", name, DRIVER_NAME)
      return { running, ready: ready.body, version: vendorVersion }
    }),
    ({ ready, running, version }) => [
      `pid ${running.pid}, version ${version}, run from ${entry.name}`,
      `/healthz: ok   /readyz: ${ready}`
    ]
  )

  return {
    ...workbench,
    mountsAreReal,
    driver: driver.running,
    metricsUrl,
    healthUrl,
    secretsDirectory,
    registrationSocket: join(workbench.registrationDirectory, `${DRIVER_NAME}-reg.sock`),
    target: workbench.kubelet.targetPath(workbench.volume)
  }
})

export type Stage = Effect.Success<ReturnType<typeof open>>
