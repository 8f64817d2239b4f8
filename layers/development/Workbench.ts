/**
 * Everything that a real driver process needs around it, on one machine: a Kubernetes API served over HTTP or HTTPS from
 * memory, directories in place of the kubelet's, provider sockets, and a kubelet to play with. For the demo, the tests
 * and the benchmark. Nothing of it is left when the scope closes.
 */
import { execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Layer, Schedule, type Scope } from "effect"
import type { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import type { SecretProviderClassSpec } from "../../schemas/SecretProviderClass.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../src/ports/Mounter.ts"
import * as MemoryKubernetes from "../fake/MemoryKubernetes.ts"
import * as MemoryKubernetesServer from "../fake/MemoryKubernetesServer.ts"
import * as LinuxMounter from "../real/LinuxMounter.ts"
import * as DriverProcess from "./DriverProcess.ts"
import * as Kubelet from "./Kubelet.ts"

export const NODE_NAME = "workbench-node"
const TOKEN = "workbench-token"

interface DriverOptions {
  /** Added to the workbench's own; the last one of a kind wins. */
  readonly flags?: ReadonlyArray<string>
  readonly environment?: Readonly<Record<string, string>>
  readonly ownProcessGroup?: boolean
}

export interface Workbench {
  /** Temporary; everything else is below it. */
  readonly directory: string
  readonly kubeletRoot: string
  readonly providersDirectory: string
  readonly registrationDirectory: string
  readonly socket: string
  readonly kubernetesUrl: string
  /** A file by which programs find the Kubernetes API, where it is served without TLS. */
  readonly kubeconfig: string
  readonly kubernetes: typeof MemoryKubernetes.MemoryKubernetes.Service
  readonly api: typeof KubernetesApi.Service
  readonly kubelet: Kubelet.Kubelet
  readonly putClass: (
    namespace: string,
    name: string,
    provider: string,
    parameters: Readonly<Record<string, string>>,
    secretObjects?: SecretProviderClassSpec["secretObjects"]
  ) => Effect.Effect<void>
  /** Starts the driver and waits until it answers. */
  readonly startDriver: (
    options?: DriverOptions
  ) => Effect.Effect<DriverProcess.DriverProcess, DriverProcess.DriverDied, Scope.Scope>
  /** Target paths below the workbench that are mounted now. */
  readonly mounted: Effect.Effect<ReadonlyArray<string>>
}

export interface WorkbenchOptions {
  /** The driver's program: the bundle, or the sources. */
  readonly entry: string
  /** "in-cluster": HTTPS with a token and a CA of its own, as on a node. "kubeconfig": plain HTTP. */
  readonly credentials: "in-cluster" | "kubeconfig"
  /** Of every answer of the Kubernetes API. */
  readonly delayMillis?: number
  /** The only one that the Kubernetes API lets in; the driver has it. */
  readonly kubernetesToken?: string
  /** That of the driver's program: by it mounts are listed, and taken away at the end. Real ones when absent. */
  readonly mounter?: Layer.Layer<Mounter>
}

const openssl = (...args: ReadonlyArray<string>) =>
  execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] })

/** A certificate for the loopback address, signed by itself. */
const selfSigned = (directory: string): { readonly key: string; readonly cert: string; readonly certFile: string } => {
  const keyFile = join(directory, "tls.key")
  const certFile = join(directory, "tls.crt")
  openssl(
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
    ...["-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", keyFile, "-out", certFile]
  )
  return { key: readFileSync(keyFile, "utf8"), cert: readFileSync(certFile, "utf8"), certFile }
}

const kubeconfigFor = (url: string, token: string) =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "workbench",
    clusters: [{ name: "workbench", cluster: { server: url } }],
    users: [{ name: "workbench", user: { token } }],
    contexts: [{ name: "workbench", context: { cluster: "workbench", user: "workbench" } }]
  })

const every50Millis = Schedule.spaced("50 millis")

/** @errors EndpointFailed when the Kubernetes API cannot be served */
export const make = (options: WorkbenchOptions): Effect.Effect<Workbench, EndpointFailed, Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Layer.build(Layer.mergeAll(MemoryKubernetes.layer, options.mounter ?? LinuxMounter.layer))
    return yield* Effect.provideContext(build(options), context)
  })

const build = (options: WorkbenchOptions) =>
  Effect.gen(function* () {
    const mounter = yield* Mounter
    const api = yield* KubernetesApi
    const kubernetes = yield* MemoryKubernetes.MemoryKubernetes
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "secrets-store-"))),
      (made) =>
        Effect.gen(function* () {
          for (const target of yield* mounter.listTmpfs(made)) yield* mounter.unmount(target)
          rmSync(made, { recursive: true, force: true })
        }).pipe(Effect.catchTag("MountFailed", (cause) => Effect.logError("a mount is left behind", { cause })))
    )
    const inside = (name: string) => {
      const path = join(directory, name)
      mkdirSync(path, { recursive: true, mode: 0o750 })
      return path
    }
    const kubeletRoot = inside("kubelet")
    const providersDirectory = inside("providers")
    const registrationDirectory = inside("plugins_registry")
    const socket = join(inside("csi"), "csi.sock")
    const serviceAccount = inside("serviceaccount")
    const tls = options.credentials === "in-cluster" ? selfSigned(serviceAccount) : undefined

    const token = options.kubernetesToken ?? TOKEN
    const served = yield* MemoryKubernetesServer.serve({
      ...(tls === undefined ? {} : { tls: { key: tls.key, cert: tls.cert } }),
      bearerToken: token,
      delayMillis: options.delayMillis ?? 0
    })
    writeFileSync(join(serviceAccount, "token"), token, { mode: 0o600 })
    if (tls !== undefined) writeFileSync(join(serviceAccount, "ca.crt"), tls.cert)
    const kubeconfig = join(directory, "kubeconfig")
    writeFileSync(kubeconfig, kubeconfigFor(served.url, token), { mode: 0o600 })
    const kubelet = yield* Kubelet.make({ socket, root: kubeletRoot })

    const environment =
      options.credentials === "in-cluster"
        ? {
            KUBERNETES_SERVICE_HOST: "127.0.0.1",
            KUBERNETES_SERVICE_PORT: String(served.port),
            SECRETS_STORE_SERVICE_ACCOUNT_DIR: serviceAccount
          }
        : { KUBECONFIG: kubeconfig }
    const flags = [
      `--endpoint=unix://${socket}`,
      `--nodeid=${NODE_NAME}`,
      `--provider-volume=${providersDirectory}`,
      "--additional-provider-volume-paths=",
      "--metrics-addr=0"
    ]

    const workbench: Workbench = {
      directory,
      kubeletRoot,
      providersDirectory,
      registrationDirectory,
      socket,
      kubernetesUrl: served.url,
      kubeconfig,
      kubernetes,
      api,
      kubelet,
      putClass: (namespace, name, provider, parameters, secretObjects) => {
        const path = `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${namespace}/secretproviderclasses`
        const body = {
          apiVersion: "secrets-store.csi.x-k8s.io/v1",
          kind: "SecretProviderClass",
          metadata: { name, namespace },
          spec: { provider, parameters, ...(secretObjects === undefined ? {} : { secretObjects }) }
        }
        return api.request({ method: "POST", path, body }).pipe(
          Effect.catchIf(
            (failure) => failure.isAlreadyExists,
            () => api.request({ method: "PUT", path: `${path}/${name}`, body })
          ),
          Effect.orDie,
          Effect.asVoid
        )
      },
      startDriver: (driver = {}) =>
        Effect.gen(function* () {
          const running = yield* DriverProcess.start({
            entry: options.entry,
            flags: [...flags, ...(driver.flags ?? [])],
            environment: { ...environment, ...driver.environment },
            ...(driver.ownProcessGroup === undefined ? {} : { ownProcessGroup: driver.ownProcessGroup })
          })
          const died = Effect.flatMap(running.exited, (how) =>
            Effect.fail(new DriverProcess.DriverDied({ message: `the driver ended with ${how}:\n${running.output()}` }))
          )
          const answers = Effect.retry(kubelet.probe(1_000), every50Millis).pipe(
            Effect.timeout("20 seconds"),
            Effect.mapError(
              () => new DriverProcess.DriverDied({ message: `the driver does not answer:\n${running.output()}` })
            )
          )
          yield* Effect.raceFirst(answers, died)
          return running
        }),
      mounted: Effect.orDie(mounter.listTmpfs(kubeletRoot))
    }
    return workbench
  })
