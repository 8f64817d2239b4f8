import { assert, describe, it } from "@effect/vitest"
import type { NodePod } from "../../schemas/Core.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import type { CachedPodStatus } from "../../schemas/SecretProviderClassPodStatus.ts"
import { decide, entryOf, secretNames } from "../../src/sync/SyncedVolumes.ts"

const DRIVER = "secrets-store.csi.k8s.io"
const target = (uid: string, volume: string) => `/var/lib/kubelet/pods/${uid}/volumes/kubernetes.io~csi/${volume}/mount`
const volume = (name: string, secretProviderClass = "spc", driver = DRIVER) => ({
  name,
  csi: { driver, volumeAttributes: { secretProviderClass } }
})
type Volumes = NonNullable<NonNullable<NodePod["spec"]>["volumes"]>

const podWith = (volumes: Volumes): NodePod => ({
  metadata: { name: "web", namespace: "default", uid: "uid-1" },
  spec: { volumes }
})
const pod = podWith([volume("secrets")])
const statusOf = (status: CachedPodStatus["status"]): CachedPodStatus => ({
  metadata: { name: "web-default-spc", namespace: "default", uid: "uid-of-status" },
  ...(status === undefined ? {} : { status })
})
const status = {
  podName: "web",
  secretProviderClassName: "spc",
  mounted: true,
  targetPath: target("uid-1", "secrets")
}

const usable = (targetPath = status.targetPath) => ({ _tag: "Usable", targetPath })
const mismatch = (why: string) => ({ _tag: "Mismatch", why })
const noVolume = mismatch("failed to find secret provider class pod status volume for pod default/web")
const otherPod = mismatch("secret provider class pod status targetPath did not match pod UID for pod default/web")
const otherVolume = mismatch(
  "secret provider class pod status volume name did not match pod Volume for pod default/web"
)

describe("whether a volume may be synced from (6.3)", () => {
  const rows: ReadonlyArray<{
    readonly row: string
    readonly name: string
    readonly pod?: NodePod | undefined
    readonly status?: CachedPodStatus["status"]
    readonly expected: unknown
  }> = [
    { row: "6.3", name: "the pod's own volume", pod, expected: usable() },
    { row: "6.3 #2", name: "no such pod", pod: undefined, expected: { _tag: "NoPod" } },
    {
      row: "6.3 #3",
      name: "a pod that is being deleted",
      pod: { ...pod, metadata: { ...pod.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } },
      expected: { _tag: "Ending" }
    },
    {
      row: "6.3 #3",
      name: "a pod that has succeeded",
      pod: { ...pod, status: { phase: "Succeeded" } },
      expected: { _tag: "Ending" }
    },
    {
      row: "6.3 #3",
      name: "a pod that has failed",
      pod: { ...pod, status: { phase: "Failed" } },
      expected: { _tag: "Ending" }
    },
    { row: "6.3 #3", name: "a pod that is pending", pod: { ...pod, status: { phase: "Pending" } }, expected: usable() },
    { row: "6.3 #3", name: "a pod that runs", pod: { ...pod, status: { phase: "Running" } }, expected: usable() },
    {
      row: "6.3 #3",
      name: "it comes before #6: an ending pod has no complaint",
      pod: { ...podWith([]), status: { phase: "Failed" } },
      expected: { _tag: "Ending" }
    },
    {
      row: "6.3 #4",
      name: "a status without a class",
      status: { ...status, secretProviderClassName: "" },
      expected: noVolume
    },
    { row: "6.3 #4", name: "an empty status", status: undefined, expected: noVolume },
    { row: "6.3 #6, 13.1 TestSPCVolume", name: "no spec", pod: { metadata: pod.metadata }, expected: noVolume },
    { row: "6.3 #6, 13.1 TestSPCVolume", name: "no volume", pod: podWith([]), expected: noVolume },
    {
      row: "6.3 #6, 13.1 TestSPCVolume",
      name: "no CSI volume",
      pod: podWith([{ name: "secrets" }]),
      expected: noVolume
    },
    {
      row: "6.3 #6, 13.1 TestSPCVolume",
      name: "another driver's",
      pod: podWith([volume("secrets", "spc", "other.csi.k8s.io")]),
      expected: noVolume
    },
    {
      row: "6.3 #6, 13.1 TestSPCVolume",
      name: "of another class",
      pod: podWith([volume("secrets", "other")]),
      expected: noVolume
    },
    {
      row: "6.3 #6, 13.1 TestSPCVolume",
      name: "without attributes",
      pod: podWith([{ name: "secrets", csi: { driver: DRIVER } }]),
      expected: noVolume
    },
    {
      row: "6.3 #6, 13.1 TestSPCVolume",
      name: "several: the one that matches",
      pod: podWith([{ name: "data" }, volume("secrets", "other"), volume("more"), volume("secrets")]),
      expected: usable()
    },
    {
      row: "6.3 #7",
      name: "the path of another pod",
      status: { ...status, targetPath: target("uid-2", "secrets") },
      expected: otherPod
    },
    {
      row: "6.3 #7",
      name: "a path of no pod: a forged one",
      status: { ...status, targetPath: "/etc/kubernetes/pki" },
      expected: otherPod
    },
    { row: "6.3 #7", name: "no path", status: { podName: "web", secretProviderClassName: "spc" }, expected: otherPod },
    {
      row: "6.3 #7",
      name: "no path, and a pod without a uid",
      pod: { ...pod, metadata: { name: "web", namespace: "default" } },
      status: { ...status, targetPath: "" },
      expected: otherPod
    },
    {
      row: "6.3 #8",
      name: "a volume that the pod does not have",
      status: { ...status, targetPath: target("uid-1", "other") },
      expected: otherVolume
    },
    {
      row: "6.3 #8",
      name: "a volume of the pod, but of another class",
      pod: podWith([volume("secrets"), volume("other", "second")]),
      status: { ...status, targetPath: target("uid-1", "other") },
      expected: otherVolume
    },
    {
      row: "Q14",
      name: "the class twice: the first volume",
      pod: podWith([volume("secrets"), volume("again")]),
      expected: usable()
    },
    {
      row: "Q14",
      name: "the class twice: the second volume",
      pod: podWith([volume("secrets"), volume("again")]),
      status: { ...status, targetPath: target("uid-1", "again") },
      expected: usable(target("uid-1", "again"))
    }
  ]
  it.each(rows)("$row $name", (row) => {
    const observed = "pod" in row ? row.pod : pod
    assert.deepStrictEqual<unknown>(
      decide(statusOf("status" in row ? row.status : status), observed, DRIVER),
      row.expected
    )
  })
})

const classWith = (secretObjects: NonNullable<SecretProviderClass["spec"]>["secretObjects"]): SecretProviderClass => ({
  metadata: { name: "spc" },
  spec: secretObjects === undefined ? {} : { secretObjects }
})

describe("Secrets that a class asks for (6.3 #5, #10)", () => {
  it.each([
    { row: "6.3 #5", name: "no secretObjects", object: classWith(undefined), expected: [] },
    { row: "6.3 #5", name: "no spec", object: { metadata: {} }, expected: [] },
    { row: "6.3 #5", name: "an empty list", object: classWith([]), expected: [] },
    {
      row: "6.3 #10",
      name: "in their order, once",
      object: classWith([{ secretName: "b" }, { secretName: "a" }, { secretName: "b" }]),
      expected: ["b", "a"]
    },
    {
      row: "6.3 #10a, Q15",
      name: "trimmed, so that blanks make no second one",
      object: classWith([{ secretName: " a " }, { secretName: "a" }]),
      expected: ["a"]
    },
    {
      row: "6.5",
      name: "without those that have no name",
      object: classWith([{ secretName: "" }, {}, { secretName: "  " }, { secretName: "a" }]),
      expected: ["a"]
    }
  ])("$row $name", ({ expected, object }) => assert.deepStrictEqual(secretNames(object), expected))

  it.each([
    {
      row: "6.3 #10",
      name: "of two with one name the last, as the later write won",
      secretObjects: [
        { secretName: "a", type: "one" },
        { secretName: "a", type: "two" },
        { secretName: "b", type: "three" }
      ],
      asked: "a",
      expected: { secretName: "a", type: "two" }
    },
    {
      row: "Q15",
      name: "also under a name with blanks",
      secretObjects: [{ secretName: " a" }],
      asked: "a",
      expected: { secretName: " a" }
    },
    { row: "6.3 #10", name: "none", secretObjects: [{ secretName: "b" }], asked: "a", expected: undefined },
    { row: "6.3 #5", name: "no entries", secretObjects: undefined, asked: "a", expected: undefined }
  ])("$row the entry: $name", ({ asked, expected, secretObjects }) =>
    assert.deepStrictEqual(entryOf(classWith(secretObjects), asked), expected)
  )
})
