import { assert, describe, it } from "@effect/vitest"
import type { PodUse } from "../../schemas/PodUse.ts"
import { type Use, useOf } from "../../src/sync/SecretUsers.ts"

const DRIVER = "secrets-store.csi.k8s.io"
const mounts = (secretProviderClass: string, driver = DRIVER) => ({
  csi: { driver, volumeAttributes: { secretProviderClass } }
})
const pod = (spec: PodUse["spec"], more: Partial<PodUse> = {}): PodUse => ({
  metadata: { name: "web", namespace: "default" },
  ...(spec === undefined ? {} : { spec }),
  ...more
})
const ending = { metadata: { name: "web", deletionTimestamp: "2026-01-01T00:00:00Z" } }
const runs = { status: { phase: "Running" } }
const user = pod({ volumes: [mounts("spc")] }, runs)

const rows: ReadonlyArray<{
  readonly row: string
  readonly name: string
  readonly pods: ReadonlyArray<PodUse>
  readonly expected: Use
}> = [
  { row: "L5", name: "no pods", pods: [], expected: "Unused" },
  { row: "L5", name: "pods without a specification", pods: [pod(undefined)], expected: "Unused" },
  { row: "S9", name: "a pod mounts a class that asks for it", pods: [user], expected: "Used" },
  {
    row: "S9",
    name: "as one of several volumes",
    pods: [pod({ volumes: [{}, mounts("b"), mounts("spc")] }, runs)],
    expected: "Used"
  },
  {
    row: "S9",
    name: "a second class asks for it too",
    pods: [pod({ volumes: [mounts("second")] }, runs)],
    expected: "Used"
  },
  {
    row: "L4",
    name: "the class does not ask for it any more",
    pods: [pod({ volumes: [mounts("other")] })],
    expected: "Unused"
  },
  {
    row: "L5",
    name: "a class of this name for another driver",
    pods: [pod({ volumes: [mounts("spc", "other.csi.k8s.io")] })],
    expected: "Unused"
  },
  {
    row: "L5",
    name: "a CSI volume without a class",
    pods: [pod({ volumes: [{ csi: { driver: DRIVER } }] })],
    expected: "Unused"
  },
  {
    row: "S9",
    name: "a variable of a container",
    pods: [pod({ containers: [{}, { env: [{}, { valueFrom: { secretKeyRef: { name: "synced" } } }] }] })],
    expected: "Awaited"
  },
  {
    row: "S9",
    name: "a variable of an init container",
    pods: [pod({ initContainers: [{ env: [{ valueFrom: { secretKeyRef: { name: "synced" } } }] }] })],
    expected: "Awaited"
  },
  {
    row: "S9",
    name: "all variables of a container",
    pods: [pod({ containers: [{ envFrom: [{}, { secretRef: { name: "synced" } }] }] })],
    expected: "Awaited"
  },
  {
    row: "S9",
    name: "a pull secret",
    pods: [pod({ imagePullSecrets: [{}, { name: "synced" }] })],
    expected: "Awaited"
  },
  {
    row: "S9",
    name: "a volume of it",
    pods: [pod({ volumes: [{ secret: { secretName: "synced" } }] })],
    expected: "Awaited"
  },
  {
    row: "S9",
    name: "a projected volume",
    pods: [pod({ volumes: [{ projected: { sources: [{}, { secret: { name: "synced" } }] } }] })],
    expected: "Awaited"
  },
  {
    row: "L5",
    name: "another Secret, everywhere",
    pods: [
      pod({
        containers: [
          { env: [{ valueFrom: { secretKeyRef: { name: "b" } } }], envFrom: [{ secretRef: { name: "b" } }] }
        ],
        imagePullSecrets: [{ name: "b" }],
        volumes: [{ secret: { secretName: "b" } }, { projected: { sources: [{ secret: { name: "b" } }] } }]
      })
    ],
    expected: "Unused"
  },
  {
    row: "6.3 #3",
    name: "a pod that has succeeded",
    pods: [{ ...user, status: { phase: "Succeeded" } }],
    expected: "Unused"
  },
  {
    row: "6.3 #3",
    name: "a pod that has failed",
    pods: [{ ...user, status: { phase: "Failed" } }],
    expected: "Unused"
  },
  { row: "S9", name: "a pod that is pending", pods: [{ ...user, status: { phase: "Pending" } }], expected: "Awaited" },
  {
    row: "S9",
    name: "a pod of which nothing is known yet",
    pods: [pod({ volumes: [mounts("spc")] })],
    expected: "Awaited"
  },
  {
    row: "S9",
    name: "a pod that runs, and only refers to it",
    pods: [pod({ volumes: [{ secret: { secretName: "synced" } }] }, runs)],
    expected: "Awaited"
  },
  {
    row: "S9",
    name: "one that waits, and one that runs",
    pods: [{ ...user, status: { phase: "Pending" } }, user],
    expected: "Used"
  },
  { row: "S9", name: "a pod that is about to end", pods: [{ ...user, ...ending }], expected: "Ending" },
  { row: "S9", name: "one about to end, and one that goes on", pods: [{ ...user, ...ending }, user], expected: "Used" },
  {
    row: "6.3 #3",
    name: "one about to end, and one that has ended",
    pods: [
      { ...user, ...ending },
      { ...user, status: { phase: "Failed" } }
    ],
    expected: "Ending"
  },
  {
    row: "6.3 #3",
    name: "one that has ended and is being deleted",
    pods: [{ ...user, ...ending, status: { phase: "Failed" } }],
    expected: "Unused"
  }
]

describe("who uses a Secret (S9, L4, L5)", () => {
  it.each(rows)("$row $name: $expected", ({ expected, pods }) => {
    const asksFor = (className: string) => ["spc", "second"].includes(className)
    assert.strictEqual(useOf(pods, "synced", DRIVER, asksFor), expected)
  })
})
