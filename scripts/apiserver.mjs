// Runs a command beside a real kube-apiserver and its etcd, and ends with it:
//
//   node scripts/apiserver.mjs vitest run test/contracts/KubernetesApi.test.ts
//
// Without a command it stays until Ctrl-C. The command finds a kubeconfig of an administrator in TEST_KUBECONFIG, and
// our CustomResourceDefinitions are installed. Both programs are built once per version with Go, which takes some
// minutes, and are kept in the user's cache. They listen on the loopback address only; keys, certificates and data are
// in a temporary directory that goes with them.
import { spawn } from "node:child_process"
import { randomBytes } from "node:crypto"
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { stringify } from "yaml"
import { CRD_FILES, PLAIN_CRD_FILES } from "../schemas/crd/Crds.ts"
import { KUBERNETES, kubernetesPrograms } from "./kubernetes/binaries.mjs"
import { accountKeys, asking, kubeconfig } from "./kubernetes/client.mjs"

const READY_MILLIS = 120_000
const HOST = "127.0.0.1"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const say = (line) => process.stderr.write(`apiserver: ${line}\n`)

/** One that nobody listens on at the moment. */
const freePort = () =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen({ host: HOST, port: 0 }, () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

const { directory: programs, problem } = kubernetesPrograms(say)
if (problem !== undefined) {
  say(problem)
  process.exit(1)
}

const directory = mkdtempSync(join(tmpdir(), "secrets-store-apiserver-"))
const at = (name) => join(directory, name)
const running = new Map()

const start = (name, args) => {
  const log = openSync(at(`${name}.log`), "w")
  const child = spawn(join(programs, name), args, { stdio: ["ignore", log, log] })
  running.set(name, child)
  child.once("error", ({ message }) => say(`${name}: ${message}`))
  child.once("close", () => running.delete(name))
}

/** Ends the API server before its store, waits for both, and leaves nothing behind. */
const stop = async () => {
  for (const name of ["kube-apiserver", "etcd"]) {
    const child = running.get(name)
    if (child === undefined) continue
    const closed = new Promise((resolve) => child.once("close", resolve))
    // There is nothing in it that has to be kept, and it would finish its watches first.
    child.kill("SIGKILL")
    await closed
  }
  rmSync(directory, { recursive: true, force: true })
}
// For a way out that nobody thought of.
process.once("exit", () => {
  for (const child of running.values()) child.kill("SIGKILL")
})

const lastLines = (name) =>
  existsSync(at(`${name}.log`))
    ? readFileSync(at(`${name}.log`), "utf8")
        .trimEnd()
        .split("\n")
        .slice(-10)
        .join("\n")
    : ""

const token = randomBytes(16).toString("hex")
const [port, etcdPort, peerPort] = [await freePort(), await freePort(), await freePort()]
const server = `https://${HOST}:${port}`
const authority = at("certificates/apiserver.crt")

const ask = asking({ server, authority }, token)

/** Asks until the answer is good. Whoever has ended meanwhile will not answer. */
const until = async (path, isGood = ({ status }) => status === 200) => {
  const names = ["etcd", "kube-apiserver"]
  for (let waited = 0; waited < READY_MILLIS; waited += 50) {
    const answer = await ask("GET", path)
    if (answer !== undefined && isGood(answer)) return
    const ended = names.find((name) => !running.has(name))
    if (ended !== undefined) throw new Error(`${ended} ended:\n${lastLines(ended)}`)
    await sleep(50)
  }
  throw new Error(`no good answer from ${path} within ${READY_MILLIS} ms:\n${lastLines("kube-apiserver")}`)
}

const writeKubeconfig = () =>
  writeFileSync(at("kubeconfig"), stringify(kubeconfig({ server, authority }, "test", token)), { mode: 0o600 })

const startServers = async () => {
  const { privateKey, publicKey } = accountKeys()
  writeFileSync(at("accounts.key"), privateKey, { mode: 0o600 })
  writeFileSync(at("accounts.pub"), publicKey)
  writeFileSync(at("tokens.csv"), `${token},administrator,administrator,system:masters\n`, { mode: 0o600 })
  const [client, peer] = [`http://${HOST}:${etcdPort}`, `http://${HOST}:${peerPort}`]
  start("etcd", [
    ...[`--data-dir=${at("etcd")}`, "--unsafe-no-fsync"],
    ...[`--listen-client-urls=${client}`, `--advertise-client-urls=${client}`],
    ...[`--listen-peer-urls=${peer}`, `--initial-advertise-peer-urls=${peer}`, `--initial-cluster=default=${peer}`]
  ])
  start("kube-apiserver", [
    ...[`--etcd-servers=${client}`, `--bind-address=${HOST}`, `--advertise-address=${HOST}`, `--secure-port=${port}`],
    // Without a certificate it makes one of its own there.
    `--cert-dir=${at("certificates")}`,
    ...[`--token-auth-file=${at("tokens.csv")}`, "--authorization-mode=RBAC"],
    ...["--service-account-issuer=https://kubernetes.default.svc", `--service-account-key-file=${at("accounts.pub")}`],
    `--service-account-signing-key-file=${at("accounts.key")}`,
    ...["--service-cluster-ip-range=10.96.0.0/24", "--endpoint-reconciler-type=none", "--allow-privileged=true"],
    // No controller makes the accounts that pods would have to have.
    "--disable-admission-plugins=ServiceAccount"
  ])
  await until("/readyz")
  await until("/api/v1/namespaces/default")
}

const installDefinitions = async () => {
  const definitions = Object.values({ ...CRD_FILES, ...PLAIN_CRD_FILES })
  for (const definition of definitions) {
    const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    const answer = await ask("POST", path, JSON.stringify(definition))
    if (answer?.status !== 201) throw new Error(`${definition.metadata.name} was refused: ${answer?.text}`)
  }
  for (const { spec } of definitions) {
    for (const { name } of spec.versions) await until(`/apis/${spec.group}/${name}/${spec.names.plural}`)
  }
}

const runCommand = ([command, ...args]) =>
  new Promise((resolve) => {
    const env = { ...process.env, TEST_KUBECONFIG: at("kubeconfig") }
    const child = spawn(command, args, { cwd: root, env, stdio: "inherit" })
    interrupt = (signal) => child.kill(signal)
    child.once("error", ({ message }) => {
      say(message)
      resolve(127)
    })
    child.once("close", (code) => resolve(code ?? 1))
  })

let interrupted = false
let interrupt = () => {}
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    interrupted = true
    interrupt(signal)
  })
}
const whenInterrupted = () =>
  new Promise((resolve) => {
    interrupt = () => resolve(0)
    if (interrupted) resolve(0)
  })

let code = 1
try {
  const ready = startServers().then(installDefinitions)
  // Whoever leaves while it starts does not wait until it has.
  await Promise.race([ready, whenInterrupted()])
  if (!interrupted) {
    writeKubeconfig()
    say(`Kubernetes ${KUBERNETES} at ${server}`)
    const command = process.argv.slice(2)
    if (command.length > 0) code = await runCommand(command)
    else {
      console.log(`export TEST_KUBECONFIG=${at("kubeconfig")}`)
      code = await whenInterrupted()
    }
  }
} catch (error) {
  say(error instanceof Error ? error.message : String(error))
} finally {
  await stop()
}
process.exit(code)
