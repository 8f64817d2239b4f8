/** Tables of reference/driver.md 10: what a target path says about its pod and volume. */
import { assert, describe, it } from "@effect/vitest"
import { parseTargetPath } from "../../schemas/TargetPath.ts"

const UID = "7e7686a1-56c4-4c67-a6fd-4656ac484f0a"
const CSI = "volumes/kubernetes.io~csi"

describe("section 10, 13.1 TestGetPodUIDFromTargetPath: pod UID of a target path", () => {
  it.each([
    { name: "posix", path: `/var/lib/kubelet/pods/${UID}/${CSI}/secrets-store-inline/mount`, expected: UID },
    { name: "posix, other prefix", path: `/opt/new/var/lib/kubelet/pods/${UID}/${CSI}/inline/mount`, expected: UID },
    { name: "posix, relative", path: `data/kubelet/pods/${UID}/${CSI}/inline/mount`, expected: UID },
    { name: "posix, no prefix", path: `/pods/${UID}/${CSI}/inline/mount`, expected: UID },
    { name: "posix, a name for a UID", path: `/pods/fakePod/${CSI}/myvol/mount`, expected: "fakePod" },
    {
      name: "posix, doubled slashes",
      path: `/var//lib//kubelet//pods//${UID}//volumes//kubernetes.io~csi//v//mount`,
      expected: UID
    },
    {
      name: "posix, static pod",
      path: `/var/lib/kubelet/pods/0123456789abcdef0123456789abcdef/${CSI}/v/mount`,
      expected: "0123456789abcdef0123456789abcdef"
    },
    {
      name: "windows",
      path: `c:\\var\\lib\\kubelet\\pods\\${UID}\\volumes\\kubernetes.io~csi\\inline\\mount`,
      expected: UID
    },
    {
      name: "windows, doubled backslashes",
      path: `c:\\\\var\\\\lib\\\\kubelet\\\\pods\\\\${UID}\\\\volumes\\\\kubernetes.io~csi\\\\inline\\\\mount`,
      expected: UID
    },
    {
      name: "windows, no prefix",
      path: "\\pods\\fakePod\\volumes\\kubernetes.io~csi\\myvol\\mount",
      expected: "fakePod"
    },
    {
      name: "windows, no prefix, doubled backslashes",
      path: "\\\\pods\\\\fakePod\\\\volumes\\\\kubernetes.io~csi\\\\myvol\\\\mount",
      expected: "fakePod"
    },
    { name: "windows, slashes", path: `c:/var/lib/kubelet/pods/${UID}/${CSI}/inline/mount`, expected: UID },
    {
      name: "mixed separators",
      path: `c:\\var\\lib/kubelet\\pods/${UID}\\volumes/kubernetes.io~csi\\inline/mount`,
      expected: UID
    },
    { name: "a bar separates", path: `|pods|${UID}|volumes|kubernetes.io~csi|inline|mount`, expected: UID },
    { name: "the first pods directory counts", path: `/pods/a/pods/uid/${CSI}/v/mount`, expected: "a/pods/uid" },
    { name: "cut after volumes", path: `/var/lib/kubelet/pods/${UID}/volumes/`, expected: "" },
    { name: "cut after the plugin", path: `/var/lib/kubelet/pods/${UID}/${CSI}`, expected: "" },
    {
      name: "plugin kubernetes.io~pv",
      path: `/var/lib/kubelet/pods/${UID}/volumes/kubernetes.io~pv/v/mount`,
      expected: ""
    },
    {
      name: "plugin kubernetes.io~secret",
      path: `/var/lib/kubelet/pods/${UID}/volumes/kubernetes.io~secret/v/mount`,
      expected: ""
    },
    {
      name: "plugin kubernetesxio~csi",
      path: `/var/lib/kubelet/pods/${UID}/volumes/kubernetesxio~csi/v/mount`,
      expected: ""
    },
    { name: "no pods", path: "/var/lib/", expected: "" },
    { name: "only pods", path: "/var/lib/kubelet/pods", expected: "" },
    { name: "a newline at the end", path: `/var/lib/kubelet/pods/${UID}/${CSI}/inline/mount\n`, expected: "" },
    { name: "empty", path: "", expected: "" }
  ])("$name", ({ path, expected }) => assert.strictEqual(parseTargetPath(path).podUid, expected))
})

describe("section 10, 13.1 TestGetVolumeNameFromTargetPath: volume name of a target path", () => {
  it.each([
    {
      name: "posix",
      path: `/var/lib/kubelet/pods/${UID}/${CSI}/secrets-store-inline/mount`,
      expected: "secrets-store-inline"
    },
    {
      name: "posix, other prefix",
      path: `/opt/new/var/lib/kubelet/pods/${UID}/${CSI}/inline/mount`,
      expected: "inline"
    },
    { name: "posix, relative", path: `data/kubelet/pods/${UID}/${CSI}/inline/mount`, expected: "inline" },
    { name: "posix, a volume called mount", path: `/pods/${UID}/${CSI}/mount/mount`, expected: "mount" },
    {
      name: "windows",
      path: `c:\\var\\lib\\kubelet\\pods\\${UID}\\volumes\\kubernetes.io~csi\\inline\\mount`,
      expected: "inline"
    },
    {
      name: "windows, doubled backslashes",
      path: `c:\\\\var\\\\lib\\\\kubelet\\\\pods\\\\${UID}\\\\volumes\\\\kubernetes.io~csi\\\\inline\\\\mount`,
      expected: "inline"
    },
    {
      name: "windows, no prefix",
      path: "\\\\pods\\\\fakePod\\\\volumes\\\\kubernetes.io~csi\\\\myvol\\\\mount",
      expected: "myvol"
    },
    { name: "a bar separates", path: `|pods|${UID}|volumes|kubernetes.io~csi|inline|mount`, expected: "inline" },
    { name: "the first pods directory counts", path: `/pods/a/pods/uid/${CSI}/v/mount`, expected: "v" },
    { name: "cut after volumes", path: `/var/lib/kubelet/pods/${UID}/volumes/`, expected: "" },
    { name: "cut after the plugin", path: `/var/lib/kubelet/pods/${UID}/${CSI}`, expected: "" },
    { name: "cut after the volume", path: `/var/lib/kubelet/pods/${UID}/${CSI}/inline`, expected: "" },
    { name: "more after mount", path: `/var/lib/kubelet/pods/${UID}/${CSI}/inline/mount/`, expected: "" },
    {
      name: "plugin kubernetes.io~pv",
      path: `/var/lib/kubelet/pods/${UID}/volumes/kubernetes.io~pv/v/mount`,
      expected: ""
    },
    {
      name: "plugin kubernetes.io~secret",
      path: `/var/lib/kubelet/pods/${UID}/volumes/kubernetes.io~secret/v/mount`,
      expected: ""
    },
    {
      name: "plugin kubernetesxio~csi",
      path: `/var/lib/kubelet/pods/${UID}/volumes/kubernetesxio~csi/v/mount`,
      expected: ""
    },
    { name: "case counts", path: `/var/lib/kubelet/Pods/${UID}/${CSI}/inline/mount`, expected: "" },
    { name: "no pods", path: "/var/lib/", expected: "" }
  ])("$name", ({ path, expected }) => assert.strictEqual(parseTargetPath(path).volumeName, expected))
})
