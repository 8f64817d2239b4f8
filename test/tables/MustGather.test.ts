/**
 * assets/must-gather/gather with a kubectl that records what it is asked for, and that answers with a Secret's content
 * whenever it is asked for one.
 */
import { execFile } from "node:child_process"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"

const GATHER = fileURLToPath(new URL("../../assets/must-gather/gather", import.meta.url))
const DOCKERFILE = fileURLToPath(new URL("../../assets/must-gather/Dockerfile.mustgather", import.meta.url))
const CANARY = "Y2FuYXJ5LW9mLWEtc2VjcmV0"
const END = "\u001f"
const OPERATOR = "secrets-store-csi-driver-operator"
const NODE = "secrets-store-csi-driver-node"

const SERVED_EVERYWHERE = ["csidrivers.storage.k8s.io", "csinodes.storage.k8s.io", "pods", "secrets"]
const SERVED_BY_OPENSHIFT = [
  "clustercsidrivers.operator.openshift.io",
  ...["infrastructures", "proxies", "apiservers", "clusterversions"].map((name) => `${name}.config.openshift.io`),
  "securitycontextconstraints.security.openshift.io",
  ...["subscriptions", "clusterserviceversions", "installplans", "operatorgroups"].map(
    (name) => `${name}.operators.coreos.com`
  )
]

interface World {
  readonly served: ReadonlyArray<string>
  /** Namespace of the operator's Deployment and of the driver's DaemonSet; empty is none. */
  readonly operator: string
  readonly driver: string
  /** Calls whose words have this in them fail. */
  readonly broken: string
}

const openshift: World = {
  served: [...SERVED_EVERYWHERE, ...SERVED_BY_OPENSHIFT],
  operator: "openshift-cluster-csi-drivers",
  driver: "openshift-cluster-csi-drivers",
  broken: ""
}
const plain: World = {
  served: SERVED_EVERYWHERE,
  operator: "secrets-store-csi-driver",
  driver: "secrets-store-csi-driver",
  broken: ""
}

/** Answers as a small cluster would. Its arguments are those of kubectl; a call is a line of words, each with an end. */
const program = (world: World, calls: string) => `#!/bin/bash
[[ "$1" == --request-timeout=* ]] && shift
printf '%s${END}' "$@" >>${calls}
echo >>${calls}
line="$*"
broken='${world.broken}'
if [[ -n "$broken" && "$line" == *"$broken"* ]]; then
  echo "Error from server (Forbidden): https://user:${CANARY}@proxy is not the way" >&2
  exit 1
fi
case "$line" in
  api-resources*) printf '%s\\n' ${world.served.join(" ")} ;;
  logs*) echo "I0101 volume mounted; proxy https://user:${CANARY}@proxy:3128" ;;
  adm*) printf '%s\\n' "kubelet: mounted secrets-store volume" "kubelet: ${CANARY}" ;;
  "get secrets "*" -o "*) echo "data: {password: ${CANARY}}" ;;
  "get secrets "*) printf '%s\\n' "NAME   TYPE   DATA   AGE" "synced Opaque 1      1d" ;;
  "get customresourcedefinitions"*jsonpath*)
    echo secretproviderclasses.secrets-store.csi.x-k8s.io
    echo clustercsidrivers.operator.openshift.io
    echo others.example.com ;;
  "get deployments"*jsonpath*) echo "${world.operator}" ;;
  "get daemonsets"*jsonpath*hostPath*)
    echo "vault vault-csi-provider /var/run/secrets-store-csi-providers"
    echo "log collector /var/log"
    echo "our ${NODE} /var/run/secrets-store-csi-providers" ;;
  "get daemonsets"*jsonpath*) echo "${world.driver}" ;;
  "get nodes"*jsonpath*) echo node-a ;;
  "get pods"*jsonpath*csi.driver*)
    echo "shop web node-a Running secrets-store.csi.k8s.io"
    echo "shop db node-a Running other.csi" ;;
  "get pods"*app=${OPERATOR}*jsonpath*) echo "${world.operator === "" ? "" : "operator-1 operator:0"}" ;;
  "get pods"*jsonpath*) printf '%s\\n' "node-1 csi-driver:2" node-2 ;;
  get*) echo "kind: List # https://user:${CANARY}@proxy:3128/" ;;
  *) echo "serverVersion: v1.36.3" ;;
esac
`

interface Outcome {
  readonly status: number
  readonly stderr: string
  readonly calls: ReadonlyArray<ReadonlyArray<string>>
  readonly files: Readonly<Record<string, string>>
}

const run = (world: World, environment: Readonly<Record<string, string>> = {}, name = "kubectl") =>
  Effect.acquireUseRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "must-gather-"))),
    (directory) =>
      Effect.callback<Outcome>((resume) => {
        const bin = join(directory, "bin")
        const calls = join(directory, "calls")
        const destination = join(directory, "out")
        mkdirSync(bin)
        if (name !== "") {
          writeFileSync(join(bin, name), program(world, calls))
          chmodSync(join(bin, name), 0o755)
        }
        // Tools of the system, but no real oc or kubectl.
        for (const tool of ["bash", "cat", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "sed", "sort", "tr"]) {
          writeFileSync(join(bin, tool), `#!/bin/sh\nPATH=/usr/bin:/bin exec ${tool} "$@"\n`, { mode: 0o755 })
        }
        const env = { PATH: bin, DESTINATION_DIR: destination, ...environment }
        execFile("/bin/bash", [GATHER], { cwd: directory, env }, (error, _, stderr) => {
          const names = existsSync(destination)
            ? readdirSync(destination, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
            : []
          const paths = names.map((entry) => join(entry.parentPath, entry.name))
          resume(
            Effect.succeed({
              status: error === null ? 0 : Number(error.code),
              stderr,
              calls: existsSync(calls)
                ? readFileSync(calls, "utf8")
                    .trim()
                    .split("\n")
                    .map((line) => line.split(END).slice(0, -1))
                : [],
              files: Object.fromEntries(
                paths.map((path) => [path.slice(destination.length + 1), readFileSync(path, "utf8")])
              )
            })
          )
        })
      }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  )

const COMMON = [
  ...["csidrivers.yaml", "csinodes.yaml", "nodes.txt", "secret-sync-rolebindings.yaml", "version.yaml"].map(
    (name) => `cluster/${name}`
  ),
  ...[
    ...["secretproviderclasses-role", "secrets-store-privileged-role"],
    ...["secrets-store-csi-driver-secret-sync", OPERATOR]
  ].map((name) => `cluster/clusterroles/${name}.yaml`),
  ...["secretproviderclasses-rolebinding", "secrets-store-node-privileged-binding", OPERATOR].map(
    (name) => `cluster/clusterrolebindings/${name}.yaml`
  ),
  ...["clustercsidrivers.operator.openshift.io", "secretproviderclasses.secrets-store.csi.x-k8s.io"].map(
    (name) => `cluster/definitions/${name}.yaml`
  ),
  "objects/driver-events.yaml",
  "objects/pods-that-mount.txt",
  "objects/secretproviderclasses.secrets-store.csi.x-k8s.io.yaml",
  "objects/synced-secrets.txt",
  "providers/vault.vault-csi-provider.txt"
]

const ofNamespace = (namespace: string) =>
  [
    ...["controllerrevisions.yaml", "daemonset.yaml", "deployment.yaml", "endpointslices.yaml", "events.yaml"],
    ...["leases.yaml", "namespace.yaml", "networkpolicies.yaml", "pods.yaml", "replicasets.yaml", "rolebindings.yaml"],
    ...["roles.yaml", "secrets.txt", "serviceaccounts.yaml", "services.yaml", "trusted-ca-bundle.yaml"],
    ...["logs/node-1/csi-driver.log", "logs/node-1/csi-driver.previous.log"]
  ].map((name) => `namespaces/${namespace}/${name}`)

const operatorLog = (namespace: string) => `namespaces/${namespace}/logs/operator-1/operator.log`

const ofOpenShift = (namespace: string) => [
  ...["apiservers", "clustercsidrivers", "clusterversions", "infrastructures", "proxies"].map(
    (name) => `cluster/${name}.yaml`
  ),
  "cluster/securitycontextconstraints.yaml",
  ...["clusterserviceversions", "installplans", "operatorgroups", "subscriptions"].map(
    (name) => `namespaces/${namespace}/olm/${name}.yaml`
  )
]

describe("must-gather", () => {
  it.effect.each([
    {
      name: "an installation with OLM, by oc",
      world: openshift,
      program: "oc",
      expected: [
        ...COMMON,
        ...ofNamespace(openshift.operator),
        operatorLog(openshift.operator),
        ...ofOpenShift(openshift.operator)
      ]
    },
    {
      name: "an installation without OLM, by kubectl",
      world: plain,
      program: "kubectl",
      expected: [...COMMON, ...ofNamespace(plain.operator), operatorLog(plain.operator), "not-served.txt"]
    },
    {
      name: "a driver without operator",
      world: { ...plain, operator: "", driver: "kube-system" },
      program: "kubectl",
      expected: [...COMMON, ...ofNamespace("kube-system"), "not-served.txt"]
    }
  ])("8: $name", ({ expected, program, world }) =>
    Effect.gen(function* () {
      const { files, status, stderr } = yield* run(world, {}, program)
      assert.deepStrictEqual([status, stderr], [0, ""])
      assert.deepStrictEqual(Object.keys(files).sort(), [...expected].sort())
      assert.strictEqual(files["objects/pods-that-mount.txt"], "shop web node-a Running secrets-store.csi.k8s.io\n")
    })
  )

  it.effect.each([
    { name: "OpenShift", world: openshift, environment: {} },
    { name: "kubelets' logs as well", world: openshift, environment: { GATHER_KUBELET_LOGS: "true" } },
    { name: "plain Kubernetes", world: plain, environment: {} },
    { name: "requests that fail", world: { ...plain, broken: "get" }, environment: {} }
  ])("8 B15: no content of a Secret is asked for, and none is in the result: $name", ({ environment, world }) =>
    Effect.gen(function* () {
      const { calls, files, stderr } = yield* run(world, environment)
      // A list for people is a table, which the API server makes without data. Everything with an output has the data.
      const ofSecrets = calls.filter((words) => words.some((word) => /(^|[,/])secrets?([.,/]|$)/u.test(word)))
      for (const words of ofSecrets) {
        assert.deepStrictEqual(words.slice(0, 2), ["get", "secrets"])
        assert.deepStrictEqual(
          words.filter((word) => /^(-o|--output|-w|--watch|--template|--raw)/u.test(word)),
          []
        )
      }
      assert.lengthOf(ofSecrets, world.broken === "" ? 2 : 1)
      assert.deepStrictEqual(
        calls.filter((words) => words.includes("all") || words.includes("inspect") || words.includes("--raw")),
        []
      )
      assert.notInclude(`${JSON.stringify(files)}${stderr}`, CANARY)
    })
  )

  it.effect.each([
    { name: "the namespace that is named", environment: { OPERATOR_NAMESPACE: "elsewhere" }, at: "elsewhere" },
    { name: "else that of the Deployment", environment: {}, at: plain.operator }
  ])("8 looks in $name", ({ at, environment }) =>
    Effect.gen(function* () {
      const { files } = yield* run(plain, environment)
      const namespaces = Object.keys(files).flatMap((path) => /^namespaces\/([^/]+)\//u.exec(path)?.[1] ?? [])
      assert.deepStrictEqual([...new Set(namespaces)], [at])
    })
  )

  it.effect("8 log lines of a window of time, of each run of each container", () =>
    Effect.gen(function* () {
      const since = { MUST_GATHER_SINCE: "2h", MUST_GATHER_SINCE_TIME: "2026-01-01T00:00:00Z", GATHER_LOG_BYTES: "9" }
      const { calls } = yield* run(plain, since)
      const window = ["--limit-bytes=9", "--since=2h", "--since-time=2026-01-01T00:00:00Z"]
      const logs = (pod: string, container: string, ...more: ReadonlyArray<string>) => [
        ...["logs", pod, "-n", plain.operator, "-c", container, ...window, ...more]
      ]
      assert.deepStrictEqual(
        calls.filter(([verb]) => verb === "logs"),
        [logs("operator-1", "operator"), logs("node-1", "csi-driver"), logs("node-1", "csi-driver", "--previous")]
      )
    })
  )

  it.effect.each([
    { name: "a list that is refused", world: { ...plain, broken: "get events" }, says: /^get events .*Forbidden/mu },
    { name: "logs that are refused", world: { ...plain, broken: "logs" }, says: /^logs operator-1 .*Forbidden/mu },
    {
      name: "nothing that is installed",
      world: { ...plain, operator: "", driver: "" },
      says: /found neither a Deployment/u
    }
  ])("8 what could not be collected is said, and ends with status 1: $name", ({ says, world }) =>
    Effect.gen(function* () {
      const { files, status, stderr } = yield* run(world)
      assert.strictEqual(status, 1)
      assert.match(files["failures.txt"] ?? "", says)
      assert.match(stderr, /not everything could be collected/u)
      assert.isDefined(files["cluster/csidrivers.yaml"], "the rest is there")
    })
  )

  it.effect("8 without oc and kubectl it says so", () =>
    Effect.gen(function* () {
      const { files, status, stderr } = yield* run(plain, {}, "")
      assert.deepStrictEqual([status, files], [1, {}])
      assert.match(stderr, /neither oc nor kubectl/u)
    })
  )

  it("8 the image runs it, into the directory that is fetched", () => {
    const text = readFileSync(DOCKERFILE, "utf8")
    assert.match(text, /^COPY gather \/usr\/bin\/gather$/mu)
    assert.match(text, /^ENV DESTINATION_DIR=\/must-gather$/mu)
    assert.match(text, /^ENTRYPOINT \["\/usr\/bin\/gather"\]$/mu)
  })
})
