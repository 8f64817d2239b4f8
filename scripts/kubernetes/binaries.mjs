// Kubernetes' own programs and etcd, built from Go modules once per version and kept in the user's cache.
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { homedir, tmpdir } from "node:os"
import { join } from "node:path"

export const KUBERNETES = "1.36.3"
const ETCD = "3.6.8"
const PROGRAMS = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet"]
/** What kubernetes takes from its own tree, and everybody else as modules of another number. */
const STAGING = [
  ...["api", "apiextensions-apiserver", "apimachinery", "apiserver", "cli-runtime", "client-go", "cloud-provider"],
  ...["cluster-bootstrap", "code-generator", "component-base", "component-helpers", "controller-manager", "cri-api"],
  ...["cri-client", "cri-streaming", "csi-translation-lib", "dynamic-resource-allocation", "endpointslice"],
  ...["externaljwt", "kms", "kube-aggregator", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl"],
  ...["kubelet", "metrics", "mount-utils", "pod-security-admission", "sample-apiserver", "sample-cli-plugin"],
  ...["sample-controller", "streaming"]
]

/** What is built once stays here, under names that have its version in them. */
export const cache = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "secrets-store-csi")

/**
 * Builds a Go program of a module of its own, unless the cache has it. A file that is there is whole.
 *
 * @returns the path of the program; or what went wrong, and what helps
 */
const goProgram = ({ directory, name, title, files, source, flags = [], say }) => {
  const path = join(directory, name)
  if (existsSync(path)) return { path }
  mkdirSync(directory, { recursive: true })
  const workspace = mkdtempSync(join(directory, "build-"))
  const remove = () => rmSync(workspace, { recursive: true, force: true })
  process.once("exit", remove)
  for (const [file, content] of Object.entries(files)) writeFileSync(join(workspace, file), content)
  // What Go leaves when it is cut off is in there as well.
  const env = {
    ...process.env,
    CGO_ENABLED: "0",
    GOTMPDIR: workspace,
    GOFLAGS: `${process.env["GOFLAGS"] ?? ""} -mod=mod`.trim()
  }
  say(`building ${title}, once`)
  const args = ["build", "-trimpath", "-ldflags", ["-s", "-w", ...flags].join(" "), "-o", name, source]
  const { error, status } = spawnSync("go", args, { cwd: workspace, env, stdio: ["ignore", 2, 2] })
  const built = error === undefined && status === 0
  if (built) renameSync(join(workspace, name), path)
  process.off("exit", remove)
  remove()
  if (built) return { path }
  return {
    problem: error === undefined ? `${title} could not be built` : `Go is needed to build ${title}: ${error.message}`
  }
}

const goMod = () => {
  const staging = KUBERNETES.replace(/^1/, "0")
  return [
    "module secrets-store-csi/kubernetes",
    "go 1.26.0",
    `require (\n\tgo.etcd.io/etcd/server/v3 v${ETCD}\n\tk8s.io/kubernetes v${KUBERNETES}\n)`,
    `replace (\n${STAGING.map((name) => `\tk8s.io/${name} => k8s.io/${name} v${staging}`).join("\n")}\n)\n`
  ].join("\n\n")
}

const mainGo = () => readFileSync(join(import.meta.dirname, "main.go"), "utf8")
const programsDirectory = () => {
  const key = createHash("sha256").update(mainGo()).digest("hex").slice(0, 12)
  return join(cache, `kubernetes-v${KUBERNETES}-etcd-v${ETCD}-${key}`)
}

/** @returns why they cannot be built on this machine; undefined where they can, or are there already */
export const kubernetesObstacle = () => {
  if (existsSync(join(programsDirectory(), "kubernetes"))) return undefined
  const args = ["list", "-m", `k8s.io/kubernetes@v${KUBERNETES}`]
  const { error, status, stderr } = spawnSync("go", args, { cwd: tmpdir(), encoding: "utf8", timeout: 60_000 })
  if (error?.code === "ENOENT") return "it needs Go, which Kubernetes is built with"
  if (status === 0) return undefined
  const said = (stderr ?? "").trim().split("\n").at(-1) || "no answer within a minute"
  return `it needs a Go module proxy that has k8s.io/kubernetes v${KUBERNETES}: ${said}`
}

/** @returns the directory with etcd, kube-apiserver, kubelet and the others; or the problem */
export const kubernetesPrograms = (say) => {
  const directory = programsDirectory()
  const [major, minor] = KUBERNETES.split(".")
  const version = "k8s.io/component-base/version"
  const { problem } = goProgram({
    directory,
    name: "kubernetes",
    title: `Kubernetes ${KUBERNETES} and etcd ${ETCD}`,
    files: { "go.mod": goMod(), "main.go": mainGo() },
    source: ".",
    // Clients look at the version.
    flags: [`gitVersion=v${KUBERNETES}`, `gitMajor=${major}`, `gitMinor=${minor}`].map((it) => `-X ${version}.${it}`),
    say
  })
  if (problem !== undefined) return { problem }
  for (const program of PROGRAMS) {
    if (!existsSync(join(directory, program))) symlinkSync("kubernetes", join(directory, program))
  }
  return { directory }
}
