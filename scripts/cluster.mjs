// Runs a command beside one node of a real Kubernetes with our own images, and leaves nothing behind:
//
//   node scripts/cluster.mjs bash
//   node scripts/cluster.mjs --prepare   only builds what is kept
//
// Kubernetes' programs and the images are built once per version and kept in the user's cache; all else is in namespaces
// and in a temporary directory that go with it. What it needs of the machine, and why it does not run where that is not,
// is said. Needs root: a kubelet mounts, and starts containers.
import { spawn, spawnSync } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"
import { leftovers, present } from "./cluster/leftovers.mjs"
import { cache, kubernetesObstacle, kubernetesPrograms } from "./kubernetes/binaries.mjs"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const PREFIX = "secrets-store-cluster-"
/** Of Debian; elsewhere they have other names. */
const NEEDED = {
  buildah: "buildah",
  containerd: "containerd",
  ctr: "containerd",
  flock: "util-linux",
  ip: "iproute2",
  mmdebstrap: "mmdebstrap",
  mount: "mount",
  npm: "npm",
  runc: "runc",
  setpriv: "util-linux",
  unshare: "util-linux"
}
const FILES = { "/bin/busybox": "busybox-static", "/usr/lib/cni/bridge": "containernetworking-plugins" }
const CGROUPS = "/sys/fs/cgroup"
/** The kubelet's, and containerd's. */
const POD_CGROUPS = ["kubepods", "k8s.io"]
/** Programs of the tests that run in pods. */
const PROGRAMS = ["tools"]
const LOCKED = 75
const PREPARES = process.argv[2] === "--prepare"

const started = performance.now()
const say = (line) => process.stderr.write(`cluster: ${line}\n`)
/** Counted as scripts/test.mjs counts: what could not be tried is no failure, and is told. */
const notRun = (why) => {
  say(`NOT RUN: ${why}`)
  console.log("0 passed, 0 failed, 1 skipped")
}
const seconds = () => ((performance.now() - started) / 1000).toFixed(1)

const hierarchies = () =>
  [CGROUPS, ...readdirSync(CGROUPS).map((name) => join(CGROUPS, name))].filter((path) =>
    existsSync(join(path, "cgroup.procs"))
  )
const podCgroups = () =>
  hierarchies()
    .flatMap((path) => POD_CGROUPS.map((name) => join(path, name)))
    .filter(existsSync)

/** Why it cannot run here; undefined when it can. */
const obstacle = () => {
  if (process.platform !== "linux") return "it needs Linux"
  if (process.getuid() !== 0) return "it needs root: a kubelet mounts, and starts containers"
  const found = (name) => spawnSync("sh", ["-c", `command -v ${name}`]).status === 0
  const packages = new Set([
    ...Object.keys(NEEDED)
      .filter((name) => !found(name))
      .map((name) => NEEDED[name]),
    ...Object.keys(FILES)
      .filter((path) => !existsSync(path))
      .map((path) => FILES[path])
  ])
  if (packages.size > 0) return `it needs: apt-get install ${[...packages].join(" ")}`
  if (spawnSync("unshare", ["--mount", "--net", "--pid", "--fork", "true"]).status !== 0)
    return "it needs to be allowed to make namespaces"
  return kubernetesObstacle()
}

const removeCgroups = () => {
  const below = (path) => {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory()) below(join(path, entry.name))
    rmdirSync(path)
  }
  for (let attempt = 0; attempt < 50 && podCgroups().length > 0; attempt++) {
    for (const path of podCgroups()) {
      try {
        below(path)
      } catch {
        // Its last process is still ending.
        spawnSync("sleep", ["0.1"])
      }
    }
  }
}

const bundlePrograms = async (directory) => {
  const bundled = {}
  for (const name of PROGRAMS) {
    const bundle = await rolldown({
      input: join(root, `test/cluster/programs/${name}.ts`),
      platform: "node",
      logLevel: "warn"
    })
    const file = join(directory, `${name}.cjs`)
    await bundle.write({ file, format: "cjs", codeSplitting: false })
    await bundle.close()
    bundled[name] = file
  }
  return bundled
}

/** A program that does not outlive us, whichever way we end. */
const ending = (program, args) => ["setpriv", ["--pdeathsig", "KILL", program, ...args]]

/** A program in namespaces of its own, whose processes all end with the first of them. */
const spawned = (namespaces, args) =>
  new Promise((resolve) => {
    if (interrupted) return resolve(130)
    const options = ["--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private"]
    const unshare = namespaces.map((name) => `--${name}`).concat(options, args)
    const child = spawn(...ending("unshare", unshare), { stdio: "inherit" })
    // With it everything in its namespaces.
    kill = () => child.kill("SIGKILL")
    child.once("error", ({ message }) => {
      say(message)
      resolve(127)
    })
    child.once("close", (code, signal) => {
      kill = undefined
      resolve(signal === null ? (code ?? 1) : 130)
    })
  })

/** How whoever works for us at the moment is told that it is over. */
let kill
let interrupted = false
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    interrupted = true
    kill?.(signal)
  })
}

/** @returns archives of images; undefined where that failed, which has been said */
const imagesIn = async (directory) => {
  const [asked, answered] = [join(directory, "images.json"), join(directory, "built.json")]
  writeFileSync(asked, JSON.stringify({ root, directory, programs: await bundlePrograms(directory) }))
  const building = [process.execPath, join(root, "scripts/cluster/images.mjs"), asked, answered]
  if ((await spawned(["mount", "pid"], building)) !== 0) return undefined
  const { archives, problem } = JSON.parse(readFileSync(answered, "utf8"))
  if (problem !== undefined) say(problem)
  else say(`programs and images are there after ${seconds()} s`)
  return archives
}

/** @returns the code to end with */
const runIn = async (directory, programs) => {
  const archives = await imagesIn(directory)
  if (archives === undefined) return 1
  if (PREPARES) return 0
  const settings = join(directory, "settings.json")
  writeFileSync(settings, JSON.stringify({ directory, programs, archives, root }))
  const code = await spawned(
    ["mount", "net", "pid", "uts", "ipc"],
    // A shell as the first process: it takes in the processes that containerd leaves.
    ["sh", "-c", '"$@"; exit $?', "sh"].concat(
      [process.execPath, join(root, "scripts/cluster/node.mjs"), settings],
      process.argv.slice(2)
    )
  )
  if (code !== 0 && existsSync(join(directory, "log"))) {
    const kept = join(cache, "cluster-logs")
    rmSync(kept, { recursive: true, force: true })
    cpSync(join(directory, "log"), kept, { recursive: true })
    say(`what the node's programs said is in ${kept}`)
  }
  return code
}

const main = async () => {
  const { directory: programs, problem } = kubernetesPrograms(say)
  if (problem !== undefined) {
    say(problem)
    return 1
  }
  // Of a run that was killed together with whoever would have cleaned up.
  for (const name of readdirSync(tmpdir())) {
    if (name.startsWith(PREFIX)) rmSync(join(tmpdir(), name), { recursive: true, force: true })
  }
  if (podCgroups().length > 0) removeCgroups()
  if (podCgroups().length > 0) {
    say(`there is a kubelet on this machine already: ${podCgroups().join(", ")}`)
    return 1
  }
  const look = () => present({ cgroups: podCgroups(), prefix: PREFIX, words: [PREFIX, programs] })
  const before = look()
  const directory = mkdtempSync(join(tmpdir(), PREFIX))
  let code = 1
  try {
    code = await runIn(directory, programs)
  } finally {
    removeCgroups()
    rmSync(directory, { recursive: true, force: true })
  }
  // Others may be at work meanwhile.
  let left = PREPARES ? [] : leftovers(before, look())
  // The last processes of a namespace may still be ending.
  for (let attempt = 0; attempt < 50 && left.length > 0; attempt++) {
    spawnSync("sleep", ["0.1"])
    left = leftovers(before, look())
  }
  for (const line of left) say(`left behind: ${line}`)
  if (left.length > 0) return 1
  return interrupted ? 130 : code
}

if (process.env["CLUSTER_LOCKED"] === undefined) {
  const why = obstacle()
  if (why !== undefined) notRun(why)
  else {
    mkdirSync(cache, { recursive: true })
    // Two kubelets would end each other's pods.
    const args = ["--nonblock", "--conflict-exit-code", String(LOCKED), "--no-fork", join(cache, "cluster.lock")]
    const again = [process.execPath, fileURLToPath(import.meta.url), ...process.argv.slice(2)]
    const child = spawn(...ending("flock", [...args, ...again]), {
      stdio: "inherit",
      env: { ...process.env, CLUSTER_LOCKED: "1" }
    })
    kill = (signal) => child.kill(signal)
    child.once("close", (code) => {
      if (code === LOCKED) say("another one is running on this machine")
      process.exitCode = code ?? 1
    })
  }
} else {
  process.exitCode = await main()
}
