/**
 * The real driver, a kubelet, an API server and a scripted provider, for tests of the whole process.
 */
import { existsSync, readFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { Data, Effect, Schedule } from "effect"
import { inject } from "vitest"
import type { InlineVolume } from "../../layers/development/Kubelet.ts"
import * as Workbench from "../../layers/development/Workbench.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import * as ScriptedProvider from "./ScriptedProvider.ts"

export const isRoot = process.getuid?.() === 0
export const NODE_NAME = Workbench.NODE_NAME
export const PROVIDER = "scripted"
export const POD_STATUSES = "secretproviderclasspodstatuses"

/** Test code tells what it measured. */
export const tell = (...lines: ReadonlyArray<string>): void => console.log(lines.join("\n"))

export const volumeOf = (podName: string, more: Partial<InlineVolume> = {}): InlineVolume => ({
  podName,
  podNamespace: "default",
  podUid: `uid-${podName}`,
  volumeName: "secrets",
  secretProviderClass: "spc",
  ...more
})

/** A world with one class, "spc", whose provider answers with two files. No driver runs yet. */
export const make = (options: Partial<Workbench.WorkbenchOptions> = {}) =>
  Effect.gen(function* () {
    const bench = yield* Workbench.make({ entry: inject("driverEntry"), credentials: "in-cluster", ...options })
    const provider = yield* ScriptedProvider.serve(join(bench.providersDirectory, `${PROVIDER}.sock`), () =>
      Effect.succeed(ScriptedProvider.answer({ user: "alice", "tls/key.pem": "a key" }))
    )
    yield* bench.putClass("default", "spc", PROVIDER, { objects: "all" })
    yield* bench.kubernetes.resetRequests
    return { bench, provider }
  })

const podsPath = (namespace: string) => `/api/v1/namespaces/${namespace}/pods`

/** Creates the pod of a volume on this node; the volume then has the uid that the API server gave it. */
export const putPod = ({ api }: Pick<Workbench.Workbench, "api">, volume: InlineVolume) =>
  api
    .request({
      method: "POST",
      path: podsPath(volume.podNamespace),
      body: {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name: volume.podName, namespace: volume.podNamespace },
        spec: {
          nodeName: NODE_NAME,
          volumes: [
            {
              name: volume.volumeName,
              csi: {
                driver: "secrets-store.csi.k8s.io",
                readOnly: true,
                volumeAttributes: { secretProviderClass: volume.secretProviderClass }
              }
            }
          ]
        }
      }
    })
    .pipe(
      Effect.map((body): InlineVolume => ({ ...volume, podUid: Resource.metadataOf(body).uid ?? "" })),
      Effect.orDie
    )

/** Adds annotations to an object that exists. */
export const annotate = (
  { api }: Pick<Workbench.Workbench, "api">,
  path: string,
  annotations: Readonly<Record<string, string>>
) =>
  Effect.orDie(
    api.request({
      method: "PATCH",
      path,
      contentType: "application/merge-patch+json",
      body: { metadata: { annotations } }
    })
  )

export const podPath = ({ podName, podNamespace }: InlineVolume): string => `${podsPath(podNamespace)}/${podName}`
export const classPath = ({ podNamespace, secretProviderClass }: InlineVolume): string =>
  `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${podNamespace}/secretproviderclasses/${secretProviderClass}`

/** A TCP port that nobody listens on, for now. */
export const freePort: Effect.Effect<number> = Effect.callback((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

const fetched = async (url: string) => {
  const response = await fetch(url)
  return { status: response.status, body: await response.text() }
}

export const get = (url: string) => Effect.promise(() => fetched(url))

/** The value of the one series whose line begins with this; undefined when there is none. */
export const valueOf = (metrics: string, series: string, ...labels: ReadonlyArray<string>): number | undefined => {
  const line = metrics
    .split("\n")
    .find(
      (it) => it.startsWith(series) && /^[ {]/u.test(it.slice(series.length)) && labels.every((l) => it.includes(l))
    )
  return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(" ") + 1))
}

/** The kernel's line for a mount point, in parts. */
export const mountsAt = (target: string) =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => line.split(" ")[4] === target)
    .map((line) => {
      const [left = "", right = ""] = line.split(" - ")
      const [fstype = "", , superOptions = ""] = right.split(" ")
      return { fstype, options: left.split(" ")[5]!.split(","), superOptions: superOptions.split(",") }
    })

export const isGone = (target: string): boolean => !existsSync(target) && mountsAt(target).length === 0

class NotYet extends Data.TaggedError("NotYet")<{ readonly message: string }> {}

/** Looks again and again until it is so; dies with what was last seen. */
export const eventually = <A>(
  look: (() => A) | Effect.Effect<A>,
  isSo: (seen: A) => boolean,
  seconds = 20
): Effect.Effect<A> =>
  (typeof look === "function" ? Effect.sync(look) : look).pipe(
    Effect.filterOrFail(isSo, (seen) => new NotYet({ message: `still ${JSON.stringify(seen)}` })),
    Effect.retry(Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: seconds * 20 }))),
    Effect.orDie
  )

/** What is followed is followed by now, so that requests may be counted: pods and pod statuses always, and these. */
export const following = ({ bench }: Effect.Success<ReturnType<typeof make>>, ...resources: ReadonlyArray<string>) =>
  Effect.forEach(["pods", POD_STATUSES, ...resources], (resource) =>
    eventually(bench.kubernetes.openWatches(resource), (open) => open === 1)
  )
