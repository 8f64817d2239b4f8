import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { objectAt } from "../../layers/fake/KubernetesObject.ts"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import type { NodePod } from "../../schemas/Core.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { publish } from "../../src/volume/NodePublish.ts"
import { unpublish } from "../../src/volume/NodeUnpublish.ts"
import { nameOf } from "../../src/volume/PodStatus.ts"
import * as Unrecorded from "../../src/volume/Unrecorded.ts"
import { VolumeTable } from "../../src/volume/VolumeTable.ts"
import * as Node from "../support/FakeNode.ts"

const DRIVER = Node.settings.driverName

const pod: NodePod = {
  metadata: { name: "web", namespace: "default", uid: "uid-1" },
  spec: {
    volumes: [
      { name: "secrets", csi: { driver: DRIVER, volumeAttributes: { secretProviderClass: "spc" } } },
      { name: "of-others", csi: { driver: "others", volumeAttributes: { secretProviderClass: "spc" } } },
      { name: "no-class", csi: { driver: DRIVER } },
      { name: "plain" }
    ]
  },
  status: { phase: "Running" }
}
const recorded = (targetPath: string) => ({ metadata: { name: "any" }, status: { targetPath } })
const found = [{ pod: { name: "web", namespace: "default", uid: "uid-1" }, className: "spc", volumeName: "secrets" }]

describe("volumes that no pod status names (S13, 5.5)", () => {
  it.each([
    { name: "none is there", pods: [pod], statuses: [], expected: found },
    { name: "one of another pod", pods: [pod], statuses: [recorded(Node.targetOf("uid-2"))], expected: found },
    {
      name: "one of another volume",
      pods: [pod],
      statuses: [recorded(Node.targetOf("uid-1", "second"))],
      expected: found
    },
    { name: "one without a status", pods: [pod], statuses: [{ metadata: {} }], expected: found },
    { name: "its own", pods: [pod], statuses: [recorded(Node.targetOf("uid-1"))], expected: [] },
    {
      name: "its own, below another root",
      pods: [pod],
      statuses: [recorded(`/var/data${Node.targetOf("uid-1")}`)],
      expected: []
    },
    {
      name: "a pod that is about to end",
      pods: [{ ...pod, metadata: { ...pod.metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } }],
      statuses: [],
      expected: []
    },
    { name: "a pod that has ended", pods: [{ ...pod, status: { phase: "Failed" } }], statuses: [], expected: [] },
    { name: "a pod that waits for it", pods: [{ ...pod, status: { phase: "Pending" } }], statuses: [], expected: found }
  ])("$name", ({ expected, pods, statuses }) =>
    assert.deepStrictEqual(Unrecorded.unrecorded(pods, statuses, DRIVER), expected)
  )

  it.each([
    { name: "nothing is known", registrationPath: "", statuses: [], expected: ["/var/lib/kubelet"] },
    {
      name: "the kubelet's socket for plugins",
      registrationPath: "/data/kubelet/plugins/csi-secrets-store/csi.sock",
      statuses: [],
      expected: ["/var/lib/kubelet", "/data/kubelet"]
    },
    {
      name: "volumes that are recorded",
      registrationPath: "/csi/csi.sock",
      statuses: [recorded(`/k${Node.targetOf("uid-1")}`), recorded(""), { metadata: {} }],
      expected: ["/var/lib/kubelet", "/k/var/lib/kubelet"]
    }
  ])("where pods are: $name", ({ expected, registrationPath, statuses }) =>
    assert.deepStrictEqual([...Unrecorded.kubeletRoots(registrationPath, statuses)], expected)
  )
})

const podStatuses = Effect.flatMap(MemoryKubernetes, (kubernetes) => kubernetes.all("secretproviderclasspodstatuses"))
const targets = Effect.map(podStatuses, (all) => all.map((it) => objectAt(it, "status")["targetPath"]))
const later = (seconds: number) => Effect.repeat(TestClock.adjust("1 second"), { times: seconds })

/** One life of the driver, of which the world is left as it is. */
const life = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.provide(Effect.scoped(body), Layer.fresh(Node.driverLayer(Node.script())))

/** Mounted by a life that did not come to record it. */
const mountedOnly = Effect.gen(function* () {
  yield* Node.putClass()
  const request = yield* Node.putPod(Node.POD)
  yield* life(publish(request, Number.POSITIVE_INFINITY))
  yield* Node.removePodStatus(nameOf(Node.POD.name, Node.POD.namespace, "spc"))
  assert.deepStrictEqual(yield* podStatuses, [])
  return request
})
const recordAll = Effect.forkScoped(Unrecorded.recordAll(Node.settings))

describe("after a start without rotation (S13)", () => {
  it.effect("what is mounted and not recorded is recorded, as a republish would", () =>
    Effect.gen(function* () {
      const request = yield* mountedOnly
      yield* life(
        Effect.gen(function* () {
          yield* recordAll
          yield* later(10)
          assert.deepStrictEqual(yield* targets, [request.targetPath])
          const [first] = yield* podStatuses
          const uid = request.volumeContext["csi.storage.k8s.io/pod.uid"]
          assert.deepNestedInclude(first, { "metadata.ownerReferences[0].uid": uid, "status.mounted": true })
          assert.isDefined((yield* VolumeTable).get(request.targetPath)?.podStatusName)
        })
      )
    }).pipe(Effect.provide(Node.worldLayer))
  )

  it.effect("what is recorded, or not mounted, costs two reads in all", () =>
    Effect.gen(function* () {
      const kubernetes = yield* MemoryKubernetes
      yield* Node.putClass()
      const request = yield* Node.putPod(Node.POD)
      yield* life(publish(request, Number.POSITIVE_INFINITY))
      yield* Node.putPod({ ...Node.POD, name: "waits" })
      yield* kubernetes.resetRequests
      yield* life(Effect.andThen(recordAll, later(60)))
      const requests = yield* kubernetes.requests
      assert.deepStrictEqual(
        requests.map(({ count, method }) => `${count} ${method}`),
        ["1 GET", "1 GET"]
      )
      assert.deepStrictEqual(yield* targets, [request.targetPath])
    }).pipe(Effect.provide(Node.worldLayer))
  )

  it.effect("without the API server it is tried until it answers, and ends with the volume", () => {
    let isDown = true
    const unreachable = new KubernetesApiFailed({ method: "GET", path: "", status: 0, reason: "Network", detail: "no" })
    const flaky = Layer.effect(
      KubernetesApi,
      Effect.map(KubernetesApi, (api) => ({
        ...api,
        request: (request) => Effect.suspend(() => (isDown ? Effect.fail(unreachable) : api.request(request)))
      }))
    )
    return Effect.gen(function* () {
      const request = yield* mountedOnly
      yield* Effect.gen(function* () {
        yield* recordAll
        yield* later(300)
        assert.deepStrictEqual(yield* targets, [])
        isDown = false
        yield* later(40)
        assert.deepStrictEqual(yield* targets, [request.targetPath])
        yield* unpublish(request)
        assert.strictEqual((yield* VolumeTable).get(request.targetPath), undefined)
      }).pipe(life, Effect.provide(flaky))
    }).pipe(Effect.provide(Node.worldLayer))
  })
})
