// One node of a real Kubernetes, control plane included, in namespaces of its own: started by scripts/cluster.mjs as a
// child of the first process of its process namespace. Runs a command beside it, and ends with that command's code.
//
//   node scripts/cluster/node.mjs SETTINGS.json COMMAND...
//
// Everything that it mounts, listens on and starts is in its namespaces, everything that it writes below the directory
// of the settings, so that nothing is left when the first process ends.
import { spawn, spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import {
  appendFileSync,
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { stringify } from "yaml"
import { accountKeys, asking, kubeconfig } from "../kubernetes/client.mjs"

const NODE = "node1"
const BRIDGE = "cluster0"
const NODE_ADDRESS = "10.244.0.1"
const POD_SUBNET = "10.244.0.0/16"
const SERVICE_SUBNET = "10.96.0.0/24"
/** The first of the service subnet. Nothing translates addresses here: it is one more address of the node. */
const API_SERVICE_ADDRESS = "10.96.0.1"
const SERVER = `https://${NODE_ADDRESS}:443`
const CONTAINERD = "/run/containerd/containerd.sock"
const READY_MILLIS = 120_000
const CONTROLLERS = [
  ...["daemonset", "deployment", "replicaset", "job", "statefulset", "namespace", "serviceaccount"],
  ...["serviceaccount-token", "garbagecollector", "root-ca-cert-publisher", "nodelifecycle", "podgc", "attachdetach"],
  ...["clusterrole-aggregation", "disruption", "endpoint"]
]

const started = performance.now()
const say = (line) =>
  process.stderr.write(`cluster: [${((performance.now() - started) / 1000).toFixed(1)} s] ${line}\n`)

const [settingsFile, ...command] = process.argv.slice(2)
const { directory, programs, archives, root } = JSON.parse(readFileSync(settingsFile, "utf8"))
const at = (...names) => join(directory, ...names)
const make = (...names) => {
  const path = at(...names)
  mkdirSync(path, { recursive: true })
  return path
}

const run = (program, ...args) => {
  const { error, status, stderr } = spawnSync(program, args, { encoding: "utf8" })
  if (error !== undefined) throw new Error(`${program}: ${error.message}`)
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr.trim()}`)
}

const separate = () => {
  run("mount", "--make-rshared", "/")
  // What is written into these is gone with the namespace, and below them a name can be made that the machine lacks.
  for (const name of ["etc", "var"]) {
    const options = `lowerdir=/${name},upperdir=${make("over", name)},workdir=${make("work", name)}`
    run("mount", "-t", "overlay", "overlay", "-o", options, `/${name}`)
  }
  run("mount", "-t", "tmpfs", "tmpfs", "/run")
  for (const [path, name] of [
    ["/var/lib/kubelet", "kubelet"],
    ["/var/log/pods", "pods"],
    ["/var/log/containers", "containers"]
  ]) {
    mkdirSync(path, { recursive: true })
    run("mount", "--bind", make(name), path)
  }
  run("mount", "--make-rshared", "/var/lib/kubelet")
  run("hostname", NODE)
  run("ip", "link", "set", "lo", "up")
  run("ip", "link", "add", BRIDGE, "type", "bridge")
  run("ip", "address", "add", `${NODE_ADDRESS}/16`, "dev", BRIDGE)
  run("ip", "address", "add", `${API_SERVICE_ADDRESS}/32`, "dev", BRIDGE)
  run("ip", "link", "set", BRIDGE, "up")
  run("ip", "route", "add", "default", "dev", BRIDGE)
  writeFileSync("/proc/sys/net/ipv4/ip_forward", "1")
}

// ---- processes

const running = new Map()
const logFile = (name) => at("log", name)
/** Raised once the node is taken down: nobody is started again. */
let ending = false

const start = (name, program, args, { again = false, onEnd = () => {} } = {}) => {
  const log = openSync(logFile(name), "a")
  const child = spawn(program, args, { stdio: ["ignore", log, log] })
  closeSync(log)
  running.set(name, child)
  child.once("error", ({ message }) => say(`${name}: ${message}`))
  child.once("close", (code, signal) => {
    running.delete(name)
    if (ending) return
    appendFileSync(logFile(name), `ended: ${signal ?? code}\n`)
    onEnd()
    // As the machine's init does it for the kubelet.
    if (again) setTimeout(() => start(name, program, args, { again }), 1_000)
  })
}

const lastLines = (name) =>
  existsSync(logFile(name)) ? readFileSync(logFile(name), "utf8").trimEnd().split("\n").slice(-15).join("\n") : ""

// ---- asking the API server

const TOKENS = {
  admin: { user: "admin", groups: ["system:masters"] },
  "kube-controller-manager": { user: "system:kube-controller-manager", groups: [] },
  "kube-scheduler": { user: "system:kube-scheduler", groups: [] },
  kubelet: { user: `system:node:${NODE}`, groups: ["system:nodes"] }
}
const secrets = new Map(Object.keys(TOKENS).map((name) => [name, randomBytes(16).toString("hex")]))
const authority = at("apiserver", "apiserver.crt")
const kubeconfigOf = (name) => at(`${name}.kubeconfig`)

const server = { server: SERVER, authority }
const ask = asking(server, secrets.get("admin"))

/** Waits for what is to become so; whoever has ended meanwhile will not make it so. */
const until = async (what, names, isSo) => {
  const since = performance.now()
  while (performance.now() - since < READY_MILLIS) {
    if (await isSo()) return say(what)
    const ended = names.find((name) => !running.has(name))
    if (ended !== undefined) throw new Error(`${ended} ended:\n${lastLines(ended)}`)
    await sleep(50)
  }
  throw new Error(`not ${what} within ${READY_MILLIS} ms:\n${names.map(lastLines).join("\n")}`)
}

// ---- the control plane

const writeKubeconfig = (name) =>
  writeFileSync(kubeconfigOf(name), stringify(kubeconfig(server, name, secrets.get(name))), { mode: 0o600 })

/** Who did what, without what it said: a Secret's content is in no log. */
const AUDIT_POLICY = {
  apiVersion: "audit.k8s.io/v1",
  kind: "Policy",
  omitStages: ["RequestReceived"],
  rules: [{ level: "Metadata" }]
}

const startApiServer = () => {
  const { privateKey, publicKey } = accountKeys()
  writeFileSync(at("accounts.key"), privateKey, { mode: 0o600 })
  writeFileSync(at("accounts.pub"), publicKey)
  const lines = Object.entries(TOKENS).map(([name, { groups, user }]) =>
    [secrets.get(name), user, user, ...(groups.length === 0 ? [] : [`"${groups.join(",")}"`])].join(",")
  )
  writeFileSync(at("tokens.csv"), `${lines.join("\n")}\n`, { mode: 0o600 })
  writeFileSync(at("audit.yaml"), stringify(AUDIT_POLICY))
  start("etcd", join(programs, "etcd"), [
    ...[`--data-dir=${at("etcd")}`, "--unsafe-no-fsync"],
    ...["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"],
    "--listen-peer-urls=http://127.0.0.1:2380"
  ])
  start("kube-apiserver", join(programs, "kube-apiserver"), [
    ...["--etcd-servers=http://127.0.0.1:2379", "--secure-port=443", "--bind-address=0.0.0.0"],
    ...[`--advertise-address=${NODE_ADDRESS}`, `--service-cluster-ip-range=${SERVICE_SUBNET}`],
    // Without a certificate it makes one of its own there.
    `--cert-dir=${at("apiserver")}`,
    ...[`--token-auth-file=${at("tokens.csv")}`, "--authorization-mode=Node,RBAC"],
    ...["--enable-admission-plugins=NodeRestriction", "--allow-privileged=true"],
    ...["--service-account-issuer=https://kubernetes.default.svc", `--service-account-key-file=${at("accounts.pub")}`],
    `--service-account-signing-key-file=${at("accounts.key")}`,
    "--api-audiences=https://kubernetes.default.svc",
    ...["--kubelet-preferred-address-types=InternalIP", "--endpoint-reconciler-type=none", "--profiling=false"],
    ...[`--audit-policy-file=${at("audit.yaml")}`, `--audit-log-path=${logFile("audit")}`]
  ])
}

const startControllers = () => {
  for (const name of Object.keys(TOKENS)) writeKubeconfig(name)
  start("kube-controller-manager", join(programs, "kube-controller-manager"), [
    ...[`--kubeconfig=${kubeconfigOf("kube-controller-manager")}`, "--use-service-account-credentials=true"],
    ...[`--service-account-private-key-file=${at("accounts.key")}`, `--root-ca-file=${authority}`],
    ...["--leader-elect=false", "--bind-address=127.0.0.1", `--controllers=${CONTROLLERS.join(",")}`]
  ])
  start("kube-scheduler", join(programs, "kube-scheduler"), [
    ...[`--kubeconfig=${kubeconfigOf("kube-scheduler")}`, "--leader-elect=false", "--bind-address=127.0.0.1"]
  ])
}

// ---- the node

const containerdConfig = () => `version = 2
root = "${make("containerd")}"
state = "/run/containerd"
disabled_plugins = [${["btrfs", "zfs", "devmapper", "aufs"].map((name) => `"io.containerd.snapshotter.v1.${name}"`).join(", ")}]
[grpc]
  address = "${CONTAINERD}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${make("opt")}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Not everybody may lower an oom_score_adj.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${make("cni")}"
`

const podNetwork = () => ({
  cniVersion: "0.4.0",
  name: "cluster",
  plugins: [
    {
      type: "bridge",
      bridge: BRIDGE,
      isGateway: true,
      hairpinMode: true,
      ipam: {
        type: "host-local",
        ranges: [[{ subnet: POD_SUBNET, rangeStart: "10.244.1.1", rangeEnd: "10.244.9.254", gateway: NODE_ADDRESS }]],
        routes: [{ dst: "0.0.0.0/0" }],
        dataDir: at("addresses")
      }
    }
  ]
})

const kubeletConfig = () => ({
  apiVersion: "kubelet.config.k8s.io/v1beta1",
  kind: "KubeletConfiguration",
  address: "0.0.0.0",
  // Nobody else can reach it.
  authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
  authorization: { mode: "AlwaysAllow" },
  cgroupDriver: "cgroupfs",
  failCgroupV1: false,
  failSwapOn: false,
  enforceNodeAllocatable: ["pods"],
  makeIPTablesUtilChains: false,
  oomScoreAdj: 0,
  containerRuntimeEndpoint: `unix://${CONTAINERD}`,
  resolvConf: at("resolv.conf"),
  imageGCHighThresholdPercent: 100,
  evictionHard: {
    "memory.available": "100Mi",
    "nodefs.available": "1%",
    "nodefs.inodesFree": "1%",
    "imagefs.available": "1%"
  },
  maxPods: 250,
  kubeAPIQPS: 100,
  kubeAPIBurst: 200,
  nodeStatusUpdateFrequency: "2s",
  nodeStatusReportFrequency: "10s",
  // How often the kubelet looks at its pods anew, and so how often it republishes their volumes.
  syncFrequency: "5s"
})

const startContainerd = async () => {
  writeFileSync(at("containerd.toml"), containerdConfig())
  writeFileSync(at("cni", "10-cluster.conflist"), JSON.stringify(podNetwork()))
  start("containerd", "containerd", ["--config", at("containerd.toml")])
  await until("containerd serves", ["containerd"], () => {
    const { status } = spawnSync("ctr", ["--address", CONTAINERD, "version"], { stdio: "ignore" })
    return status === 0
  })
  const args = ["--address", CONTAINERD, "--namespace", "k8s.io", "images", "import", archives[0].file]
  const code = await new Promise((resolve) => {
    const log = openSync(logFile("import"), "a")
    spawn("ctr", args, { stdio: ["ignore", log, log] }).once("close", resolve)
    closeSync(log)
  })
  if (code !== 0) throw new Error(`the images could not be imported:\n${lastLines("import")}`)
  say("images imported")
}

const startKubelet = async () => {
  writeFileSync(at("resolv.conf"), "nameserver 127.0.0.1\n")
  writeFileSync(at("kubelet.yaml"), stringify(kubeletConfig()))
  const args = [
    ...[`--config=${at("kubelet.yaml")}`, `--kubeconfig=${kubeconfigOf("kubelet")}`],
    ...[`--hostname-override=${NODE}`, `--node-ip=${NODE_ADDRESS}`, "--root-dir=/var/lib/kubelet", "--v=2"]
  ]
  start("kubelet", join(programs, "kubelet"), args, { again: true })
  await until("the node is Ready", ["kubelet", "kube-apiserver"], async () => {
    const answer = await ask("GET", `/api/v1/nodes/${NODE}`)
    if (answer?.status !== 200) return false
    const { conditions = [] } = JSON.parse(answer.text).status
    return conditions.some(({ status, type }) => type === "Ready" && status === "True")
  })
}

const environment = () => ({
  ...process.env,
  // The node's programs, kubectl among them, are of the cluster's version.
  PATH: `${programs}:${process.env["PATH"]}`,
  KUBECONFIG: kubeconfigOf("admin"),
  KUBECACHEDIR: make("kubectl"),
  TMPDIR: make("tmp"),
  CLUSTER_DIRECTORY: directory,
  CLUSTER_ARCHIVES: JSON.stringify(archives)
})

const runCommand = () =>
  new Promise((resolve) => {
    const child = spawn(command[0], command.slice(1), { cwd: root, env: environment(), stdio: "inherit" })
    child.once("error", ({ message }) => {
      say(message)
      resolve(127)
    })
    child.once("close", (code) => resolve(code ?? 1))
  })

/** What tells why, beside the logs of the programs: those of the pods, the events, and the pods themselves. */
const keepForLater = () => {
  cpSync(at("pods"), at("log", "pods"), { recursive: true })
  for (const what of ["events", "pods", "nodes"]) {
    const format = what === "events" ? ["--sort-by=.lastTimestamp"] : ["--output=yaml"]
    const args = ["get", what, "--all-namespaces", ...format]
    const options = { encoding: "utf8", timeout: 20_000, env: environment() }
    const { stderr, stdout } = spawnSync(join(programs, "kubectl"), args, options)
    writeFileSync(at("log", `${what}.txt`), stdout || stderr)
  }
}

let code = 1
try {
  make("log")
  separate()
  startApiServer()
  await Promise.all([
    startContainerd(),
    until(
      "the API server is ready",
      ["etcd", "kube-apiserver"],
      async () => (await ask("GET", "/readyz"))?.status === 200
    ).then(startControllers)
  ])
  await startKubelet()
  code = await runCommand()
  say(`ended with ${code}`)
  if (code !== 0) keepForLater()
} catch (error) {
  say(error instanceof Error ? error.message : String(error))
}
ending = true
process.exit(code)
