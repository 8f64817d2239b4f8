/** What the operator keeps as it has to be: its objects against everybody's hands, and what a cluster-wide setting says. */

import { type RequestOptions, request } from "node:https"
import { setTimeout as sleep } from "node:timers/promises"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { driverReady, operatorReports } from "../support/Driver.ts"
import { apply, at, conditionOf, find, get, kubectl, list, remove, textAt, until } from "../support/Kubectl.ts"
import {
  clusterCsiDriver,
  inNewNamespace,
  manifests,
  NAMESPACE,
  OPEN_SHIFT_DEFINITIONS,
  OPEN_SHIFT_OBJECTS,
  OPERAND,
  OPERATOR,
  PRIVILEGED,
  ROTATION_SECONDS,
  SECRET_SYNC,
  secretProviderClass,
  secretsStore
} from "../support/Objects.ts"

const namespace = "operand"
const EVERYTHING = [...OPERAND, ...PRIVILEGED]

/** A merge patch for one of each kind; what the operator does not care about is no part of it. */
const EDITS: Readonly<Record<string, object>> = {
  clusterrole: { rules: [] },
  clusterrolebinding: { subjects: [] },
  configmap: { metadata: { labels: { "config.openshift.io/inject-trusted-cabundle": null } } },
  csidriver: { spec: { requiresRepublish: false } },
  networkpolicy: { spec: { podSelector: { matchLabels: { app: "nobody" } } } },
  rolebinding: { subjects: [] }
}

/** What of an object is its own: neither its status nor what the API server writes. */
const contentOf = (object: unknown): unknown =>
  ["data", "roleRef", "rules", "spec", "subjects"]
    .map((key) => at(object, key))
    .concat(at(object, "metadata", "labels") ?? {})

const isPutBack = async (kind: string, name: string, inside: string | undefined, before: unknown) => {
  await until(`${kind} ${name} as it was`, 30, async () => {
    const now = contentOf(await get(kind, name, inside))
    return JSON.stringify(now) === JSON.stringify(before)
  })
}

const edited = async (kind: string, name: string, inside?: string) => {
  const edit = EDITS[kind]
  if (edit === undefined) return
  const before = contentOf(await get(kind, name, inside))
  const where = inside === undefined ? [] : ["--namespace", inside]
  await kubectl(["patch", kind, name, ...where, "--type=merge", `--patch=${JSON.stringify(edit)}`])
  await isPutBack(kind, name, inside, before)
}

const recreated = async (kind: string, name: string, inside?: string) => {
  const before = await get(kind, name, inside)
  await kubectl(["delete", kind, name, ...(inside === undefined ? [] : ["--namespace", inside]), "--wait=false"])
  await until(`another ${kind} ${name}`, 30, async () => {
    const now = await find(kind, name, inside)
    return now !== undefined && textAt(now, "metadata", "uid") !== textAt(before, "metadata", "uid")
  })
}

const operatorAddress = async (): Promise<string> => {
  const [pod] = await list("pods", "--namespace", NAMESPACE, `--selector=app=${OPERATOR}`)
  return textAt(pod, "status", "podIP")
}

const asked = (options: RequestOptions): Promise<{ readonly status: number; readonly text: string }> =>
  new Promise((resolve, reject) => {
    // Its certificate is its own here.
    request({ port: 8443, path: "/metrics", rejectUnauthorized: false, agent: false, ...options }, (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk
      })
      response.on("end", () => resolve({ status: response.statusCode ?? 0, text }))
    })
      .on("error", reject)
      .end()
  })

describe("operand", () => {
  beforeAll(async () => {
    await inNewNamespace(namespace)
    await apply(...OPEN_SHIFT_DEFINITIONS)
    for (const definition of OPEN_SHIFT_DEFINITIONS) {
      const name = textAt(definition, "metadata", "name")
      await until(`${name} established`, 30, async () => {
        return conditionOf(await get("crd", name), "Established").status === "True"
      })
    }
    await apply(
      ...OPEN_SHIFT_OBJECTS,
      secretProviderClass({
        namespace,
        name: "class",
        secretObjects: [{ secretName: "foosecret", data: { a: "foo" } }]
      })
    )
    await until("the RoleBinding of sync", 30, () => find("rolebinding", SECRET_SYNC, namespace))
    // The operator asks for what is served at every reconcile, and of the cluster's settings at its start.
    await kubectl(["rollout", "restart", "--namespace", NAMESPACE, `deployment/${OPERATOR}`])
    await kubectl(["rollout", "status", "--namespace", NAMESPACE, `deployment/${OPERATOR}`, "--timeout=90s"])
    await until("the new operator leading", 60, async () => {
      const lease = await get("lease", `${OPERATOR}-lock`, NAMESPACE)
      const pods = await list("pods", "--namespace", NAMESPACE, `--selector=app=${OPERATOR}`)
      const holder = textAt(lease, "spec", "holderIdentity")
      return pods.length === 1 && holder.startsWith(`${textAt(pods[0], "metadata", "name")}_`)
    })
    for (const [kind, name] of PRIVILEGED) await until(`${kind} ${name}`, 60, () => find(kind, name))
  }, 240_000)

  it("edited by hand: put back", async () => {
    for (const [kind, name, inside] of EVERYTHING) await edited(kind, name, inside)
    await edited("rolebinding", SECRET_SYNC, namespace)
  })

  it("deleted by hand: made anew", async () => {
    for (const [kind, name, inside] of EVERYTHING) await recreated(kind, name, inside)
    await recreated("rolebinding", SECRET_SYNC, namespace)
    await driverReady()
    await operatorReports("Available", "True")
    await operatorReports("Degraded", "False")
  })

  it("a class that asks for no Secret any more: the driver's rights in its namespace go", async () => {
    await remove("secretproviderclass", "class", namespace)
    await until("no RoleBinding", 30, async () => (await find("rolebinding", SECRET_SYNC, namespace)) === undefined)
  })

  it("Unmanaged: nothing is put back, until it is Managed again", async () => {
    const policy = ["networkpolicy", "sscsi-default-deny-operand", NAMESPACE] as const
    const spec = secretsStore(ROTATION_SECONDS)
    await apply(clusterCsiDriver({ ...spec, managementState: "Unmanaged" }))
    await operatorReports("Progressing", "False")
    const before = contentOf(await get(...policy))
    const edit = JSON.stringify(EDITS["networkpolicy"])
    await kubectl(["patch", ...policy.slice(0, 2), "--namespace", NAMESPACE, "--type=merge", `--patch=${edit}`])
    await sleep(5_000)
    assert.notDeepEqual(contentOf(await get(...policy)), before)
    await apply(clusterCsiDriver(spec))
    await isPutBack(...policy, before)
  })

  it("metrics are for those who may read them", async () => {
    const reader = manifests("deploy/servicemonitor.yaml").filter(({ kind }) => String(kind).startsWith("ClusterRole"))
    await inNewNamespace("monitoring")
    await apply(
      { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "prometheus-k8s", namespace: "monitoring" } },
      ...reader
    )
    const host = await operatorAddress()
    const as = async (account: string) => {
      const token = (await kubectl(["create", "token", account, "--namespace", "monitoring"])).trim()
      return asked({ host, headers: { authorization: `Bearer ${token}` } })
    }
    const { status, text } = await as("prometheus-k8s")
    assert.strictEqual(status, 200)
    assert.include(text, "secrets_store_reconcile_total")
    assert.strictEqual((await as("default")).status, 403)
    assert.include([401, 403], (await asked({ host })).status)
    for (const object of reader) {
      await kubectl(["delete", textAt(object, "kind"), textAt(object, "metadata", "name")])
    }
    await kubectl(["delete", "namespace", "monitoring", "--timeout=60s"])
  })

  it("the cluster's TLS profile is followed without a restart", async () => {
    const [pod] = await list("pods", "--namespace", NAMESPACE, `--selector=app=${OPERATOR}`)
    const old: RequestOptions = { host: textAt(pod, "status", "podIP"), path: "/healthz", maxVersion: "TLSv1.2" }
    assert.isAbove((await asked(old)).status, 0)
    const patch = { spec: { tlsAdherence: "StrictAllComponents", tlsSecurityProfile: { type: "Modern", modern: {} } } }
    await kubectl([
      ...["patch", "apiservers.config.openshift.io", "cluster", "--type=merge"],
      `--patch=${JSON.stringify(patch)}`
    ])
    await until("TLS 1.2 refused", 30, async () => {
      return asked(old).then(
        () => false,
        () => true
      )
    })
    assert.isAbove((await asked({ ...old, maxVersion: "TLSv1.3" })).status, 0)
    const [after] = await list("pods", "--namespace", NAMESPACE, `--selector=app=${OPERATOR}`)
    assert.strictEqual(textAt(after, "metadata", "uid"), textAt(pod, "metadata", "uid"))
    assert.strictEqual(at(after, "status", "containerStatuses", 0, "restartCount"), 0)
  })
})
