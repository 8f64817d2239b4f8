// What a node of Kubernetes may leave on a machine: compared before and after a run, however that ended.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { homedir, tmpdir } from "node:os"
import { join } from "node:path"

/** Where Kubernetes, containerd, runc, buildah and CNI plugins write when nobody tells them otherwise. */
const PLACES = [
  ...["kubelet", "containerd", "containers", "cni", "etcd", "buildkit"].map((name) => join("/var/lib", name)),
  ...["containerd", "containers", "runc", "netns", "buildah", "flannel"].map((name) => join("/run", name)),
  ...["pods", "containers", "kubernetes"].map((name) => join("/var/log", name)),
  ...["/etc/cni", "/etc/kubernetes", "/opt/cni", "/opt/containerd", "/var/cache/containers"],
  ...[".kube", ".local/share/containers", ".config/cni"].map((name) => join(homedir(), name))
]

const names = (directory) => {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

const text = (path) => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    // A process that has ended meanwhile.
    return ""
  }
}

const mounts = () =>
  text("/proc/self/mountinfo")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => {
      const [point, type] = [line.split(" ")[4], line.split(" - ")[1]]
      return `mount ${point} (${type})`
    })

/** @shape (words) -> processes, this one excepted, with one of the words in their command lines */
const processes = (words) =>
  names("/proc")
    .filter((name) => /^\d+$/u.test(name) && Number(name) !== process.pid)
    .map((pid) => `process ${pid} (${text(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim()})`)
    .filter((line) => words.some((word) => line.includes(word)))

/**
 * @shape ({ cgroups: of pods, words: of command lines of what was started, prefix: of temporary directories }) -> Set
 *        of what is there, in words
 */
export const present = ({ cgroups, prefix, words }) =>
  new Set([
    ...mounts(),
    ...names("/sys/class/net").map((name) => `link ${name}`),
    ...cgroups.map((path) => `cgroup ${path}`),
    ...processes(words),
    ...names(tmpdir())
      .filter((name) => name.startsWith(prefix))
      .map((name) => `file ${join(tmpdir(), name)}`),
    ...PLACES.filter(existsSync).map((path) => `file ${path}`)
  ])

/** @shape (before, after) -> what is there now and was not */
export const leftovers = (before, after) => [...after].filter((line) => !before.has(line))
