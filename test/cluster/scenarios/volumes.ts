/** Pods and their inline volumes: what they read, and what they are told when there is nothing to read. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { driverLog, mountedVolumes } from "../support/Driver.ts"
import { apply, at, eventThat, exec, find, get, listAt, podReady, remove, textAt, until } from "../support/Kubectl.ts"
import { inNewNamespace, MOUNT, type Provider, pod, secretProviderClass, startProvider } from "../support/Objects.ts"

const KEY = "-----BEGIN PUBLIC KEY-----\nThis is mock key\n-----END PUBLIC KEY-----"

describe("volumes", () => {
  beforeAll(async () => {
    await startProvider("e2e-provider")
  }, 60_000)

  describe.concurrent("at once", () => {
    it("CSI inline volume test with pod portability: read secret and key, one pod status, unmount succeeds", async () => {
      const namespace = await inNewNamespace("inline")
      await apply(
        secretProviderClass({
          namespace,
          name: "class",
          objects: ["foo", "fookey", "attribute:csi.storage.k8s.io/pod.name=pod"]
        }),
        pod({ namespace, name: "app", classes: ["class"] })
      )
      const ready = await podReady(namespace, "app")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/foo`), "secret")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/fookey`), KEY)
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/pod`), "app")
      assert.include(await exec(namespace, "app", "grep", MOUNT, "/proc/mounts"), "tmpfs ro")

      const status = await get("secretproviderclasspodstatus", `app-${namespace}-class`, namespace)
      assert.strictEqual(at(status, "status", "mounted"), true)
      assert.strictEqual(listAt(status, "status", "objects").length, 3)
      assert.strictEqual(at(status, "metadata", "ownerReferences", 0, "name"), "app")

      const uid = textAt(ready, "metadata", "uid")
      await remove("pod", "app", namespace)
      await until("the volume unmounted", 60, async () => (await mountedVolumes()).every((path) => !path.includes(uid)))
      await until("the pod status collected", 60, async () => {
        return (await find("secretproviderclasspodstatus", `app-${namespace}-class`, namespace)) === undefined
      })
      assert.notInclude(await driverLog(), "failed to clean and unmount target path")
    })

    it("[v1alpha1] CSI inline volume test with pod portability: read secret and key", async () => {
      const namespace = await inNewNamespace("test-v1alpha1")
      await apply(
        secretProviderClass({ namespace, name: "class", apiVersion: "v1alpha1" }),
        pod({ namespace, name: "app", classes: ["class"] })
      )
      await podReady(namespace, "app")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/foo`), "secret")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/fookey`), KEY)
    })

    it("what a former pod of the same name has left is taken over", async () => {
      const namespace = await inNewNamespace("former")
      await apply(
        secretProviderClass({ namespace, name: "class" }),
        pod({ namespace, name: "other", classes: ["class"] })
      )
      const other = await podReady(namespace, "other")
      const name = `app-${namespace}-class`
      await apply(
        {
          apiVersion: "secrets-store.csi.x-k8s.io/v1",
          kind: "SecretProviderClassPodStatus",
          metadata: {
            name,
            namespace,
            // Of a pod that is there: an orphan would be collected before it is met.
            ownerReferences: [{ apiVersion: "v1", kind: "Pod", name: "other", uid: textAt(other, "metadata", "uid") }]
          },
          status: { podName: "app", secretProviderClassName: "class", mounted: true }
        },
        pod({ namespace, name: "app", classes: ["class"] })
      )
      const uid = textAt(await podReady(namespace, "app"), "metadata", "uid")
      const status = await get("secretproviderclasspodstatus", name, namespace)
      assert.strictEqual(at(status, "metadata", "ownerReferences", 0, "uid"), uid)
      assert.strictEqual(listAt(status, "status", "objects").length, 2)
    })

    it("CSI inline volume test with multiple secret provider class", async () => {
      const namespace = await inNewNamespace("several")
      const classes = ["class-0", "class-1"]
      await apply(
        ...classes.map((name, index) =>
          secretProviderClass({
            namespace,
            name,
            objects: [`foo=foo-${index}`],
            secretObjects: [{ secretName: `foosecret-${index}`, data: { username: `foo-${index}` } }]
          })
        ),
        pod({ namespace, name: "app", classes })
      )
      await podReady(namespace, "app")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/foo-0`), "secret")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}-1/foo-1`), "secret")
      for (const index of [0, 1]) {
        const secret = await until(`foosecret-${index}`, 60, () => find("secret", `foosecret-${index}`, namespace))
        assert.strictEqual(Buffer.from(textAt(secret, "data", "username"), "base64").toString(), "secret")
        assert.strictEqual(listAt(secret, "metadata", "ownerReferences").length, 1)
      }
    })

    it("a pod that is not root, with fsGroup", async () => {
      const namespace = await inNewNamespace("nonroot")
      await apply(
        secretProviderClass({ namespace, name: "class" }),
        pod({
          namespace,
          name: "app",
          classes: ["class"],
          securityContext: { runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true, fsGroup: 2000 }
        })
      )
      await podReady(namespace, "app")
      assert.include(await exec(namespace, "app", "id"), "uid=1000")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/foo`), "secret")
    })

    it("a restricted namespace", async () => {
      const namespace = await inNewNamespace("restricted", "restricted")
      await apply(
        secretProviderClass({ namespace, name: "class" }),
        pod({
          namespace,
          name: "app",
          classes: ["class"],
          securityContext: { runAsUser: 1000, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
          containerSecurityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ["ALL"] }
          }
        })
      )
      await podReady(namespace, "app")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/foo`), "secret")
    })

    it("nodePublishSecretRef reaches the provider", async () => {
      const namespace = await inNewNamespace("credentials")
      await apply(
        {
          apiVersion: "v1",
          kind: "Secret",
          metadata: { name: "credentials", namespace, labels: { "secrets-store.csi.k8s.io/used": "true" } },
          stringData: { clientid: "somebody" }
        },
        secretProviderClass({ namespace, name: "class", objects: ["secret:clientid=clientid"] }),
        pod({ namespace, name: "app", classes: ["class"], publishSecret: "credentials" })
      )
      await podReady(namespace, "app")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/clientid`), "somebody")
    })

    it("Namespaced scope: same-named classes in two namespaces, each pod gets its own", async () => {
      const [good, bad] = [await inNewNamespace("scope-good"), await inNewNamespace("scope-bad")]
      await apply(
        secretProviderClass({ namespace: good, name: "class" }),
        secretProviderClass({ namespace: bad, name: "class", provider: "nobody" }),
        pod({ namespace: good, name: "app", classes: ["class"] })
      )
      await podReady(good, "app", 60)
    })

    it("Namespaced scope, no SPC in same namespace: the pod's Events say so, and it starts when there is one", async () => {
      const namespace = await inNewNamespace("negative-test-ns")
      await apply(pod({ namespace, name: "app", classes: ["class"] }))
      await eventThat(
        namespace,
        "app",
        /FailedMount.*failed to get secretproviderclass negative-test-ns\/class.*not found/su
      )
      await apply(secretProviderClass({ namespace, name: "class" }))
      await podReady(namespace, "app")
    })

    it("no provider: the pod's Events say so, and it starts when the provider does", async () => {
      const namespace = await inNewNamespace("late")
      await apply(
        secretProviderClass({ namespace, name: "class", provider: "late-provider" }),
        pod({ namespace, name: "app", classes: ["class"] })
      )
      await eventThat(namespace, "app", /FailedMount.*provider not found: provider "late-provider"/su)
      await startProvider("late-provider")
      await podReady(namespace, "app")
      assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/foo`), "secret")
    })

    it("a provider's error: the pod's Events say so, and it starts when the provider has recovered", async () => {
      const namespace = await inNewNamespace("moody")
      const provider: Provider = await startProvider("moody-provider")
      await provider.set("/error", { code: "Forbidden" })
      await apply(
        secretProviderClass({ namespace, name: "class", provider: "moody-provider" }),
        pod({ namespace, name: "app", classes: ["class"] })
      )
      await eventThat(namespace, "app", /FailedMount.*Forbidden/su)
      await provider.set("/error", { code: "" })
      await provider.set("/grpc-error", { code: "UNAVAILABLE", times: 1 })
      await podReady(namespace, "app")
    })

    it("a wrong class: the pod's Events name what is wrong", async () => {
      const namespace = await inNewNamespace("wrong")
      await apply(
        secretProviderClass({ namespace, name: "class", objects: ["foo=../../etc/passwd"] }),
        pod({ namespace, name: "app", classes: ["class"] })
      )
      await eventThat(namespace, "app", /FailedMount.*\.\.\/\.\.\/etc\/passwd/su)
      await apply(secretProviderClass({ namespace, name: "class" }))
      await podReady(namespace, "app")
    })
  })
})
