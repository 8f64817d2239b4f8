/** Mounted content as Kubernetes Secrets: owners, labels, environment variables, and their end. */
import { assert, describe, it } from "@effect/vitest"
import { apply, at, exec, find, get, kubectl, list, listAt, podReady, textAt, until } from "../support/Kubectl.ts"
import { deployment, inNewNamespace, MOUNT, secretProviderClass } from "../support/Objects.ts"

const env = [{ name: "SECRET_USERNAME", valueFrom: { secretKeyRef: { name: "foosecret", key: "username" } } }]

/** There is no printenv in the image. */
const printed = ["sh", "-c", 'printf %s "$SECRET_USERNAME"']

const classOf = (namespace: string) =>
  secretProviderClass({
    namespace,
    name: "class",
    secretObjects: [
      { secretName: "foosecret", data: { username: "foo", pwd: "fookey" }, labels: { environment: "test" } }
    ]
  })

const readyPods = async (namespace: string, app: string, count: number): Promise<ReadonlyArray<string>> => {
  const pods = await until(`${count} pods of ${app}`, 60, async () => {
    const found = await list("pods", "--namespace", namespace, `--selector=app=${app}`)
    return found.length === count ? found.map((pod) => textAt(pod, "metadata", "name")) : undefined
  })
  for (const name of pods) await podReady(namespace, name)
  return pods
}

const ownersOf = async (namespace: string) => {
  const secret = await get("secret", "foosecret", namespace)
  return listAt(secret, "metadata", "ownerReferences").map((owner) => textAt(owner, "name"))
}

const hasOwners = (namespace: string, count: number) =>
  until(`${count} owners`, 60, async () => {
    const owners = await ownersOf(namespace)
    if (owners.length !== count) throw new Error(owners.join(", "))
    return owners
  })

const deleteDeployment = (namespace: string, name: string) =>
  kubectl(["delete", "deployment", "--namespace", namespace, name, "--cascade=foreground", "--timeout=60s"])

describe("sync", () => {
  it("Sync with K8s secrets: read secret, multiple owners, and it goes with the last of them", async () => {
    const namespace = await inNewNamespace("sync")
    await apply(
      classOf(namespace),
      deployment({ namespace, name: "one", replicas: 2, classes: ["class"], env }),
      deployment({ namespace, name: "two", replicas: 2, classes: ["class"], env })
    )
    for (const app of ["one", "two"]) {
      for (const name of await readyPods(namespace, app, 2)) {
        assert.strictEqual(await exec(namespace, name, "cat", `${MOUNT}/foo`), "secret")
        assert.strictEqual(await exec(namespace, name, ...printed), "secret")
      }
    }
    const secret = await get("secret", "foosecret", namespace)
    assert.strictEqual(Buffer.from(textAt(secret, "data", "username"), "base64").toString(), "secret")
    assert.deepInclude(at(secret, "metadata", "labels"), {
      environment: "test",
      "secrets-store.csi.k8s.io/managed": "true"
    })
    const owners = await hasOwners(namespace, 2)
    assert.deepStrictEqual([...owners].map((name) => name.split("-")[0]).sort(), ["one", "two"])

    await deleteDeployment(namespace, "one")
    const [last] = await hasOwners(namespace, 1)
    assert.match(last ?? "", /^two-/u)
    await deleteDeployment(namespace, "two")
    await until("the Secret gone", 60, async () => (await find("secret", "foosecret", namespace)) === undefined)
  })

  it("Namespaced scope: sync, read, ownerReferences, delete deployment", async () => {
    const [here, there] = [await inNewNamespace("sync-here"), await inNewNamespace("sync-there")]
    await apply(
      classOf(here),
      classOf(there),
      deployment({ namespace: here, name: "one", replicas: 1, classes: ["class"], env }),
      deployment({ namespace: there, name: "one", replicas: 1, classes: ["class"], env })
    )
    for (const namespace of [here, there]) {
      await readyPods(namespace, "one", 1)
      await hasOwners(namespace, 1)
    }
    await deleteDeployment(here, "one")
    await until("the Secret gone", 60, async () => (await find("secret", "foosecret", here)) === undefined)
    assert.strictEqual((await ownersOf(there)).length, 1)
  })

  it("a rolling update hands the Secret over", async () => {
    const namespace = "sync-there"
    const before = await get("secret", "foosecret", namespace)
    await kubectl(["rollout", "restart", "--namespace", namespace, "deployment/one"])
    await kubectl(["rollout", "status", "--namespace", namespace, "deployment/one", "--timeout=90s"])
    await until("the new ReplicaSet as an owner", 60, async () => {
      const [pod] = await list("pods", "--namespace", namespace, "--selector=app=one")
      const replicaSet = textAt(pod, "metadata", "ownerReferences", 0, "name")
      return (await ownersOf(namespace)).includes(replicaSet)
    })
    const after = await get("secret", "foosecret", namespace)
    assert.strictEqual(textAt(after, "metadata", "uid"), textAt(before, "metadata", "uid"), "never made anew")
  })

  it("nobody uses it any more, although its owner stays: the Secret goes", async () => {
    const namespace = "sync-there"
    await kubectl(["scale", "--namespace", namespace, "deployment/one", "--replicas=0"])
    await until("the Secret gone", 90, async () => (await find("secret", "foosecret", namespace)) === undefined)
    assert.isDefined(await find("deployment", "one", namespace))
    await deleteDeployment(namespace, "one")
  })
})
