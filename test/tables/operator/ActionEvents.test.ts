import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { KubernetesApiFailed } from "../../../schemas/errors/KubernetesApiFailed.ts"
import { configEvents, eventsOf, type OperatorEvent } from "../../../src/operator/ActionEvents.ts"
import * as Desired from "../../../src/operator/Desired.ts"
import type { OperandId } from "../../../src/operator/Kinds.ts"
import type { Management } from "../../../src/operator/Management.ts"
import type { ClusterConfig } from "../../../src/operator/Observe.ts"
import type { Action } from "../../../src/operator/Plan.ts"
import { manifestOf, NAMESPACE } from "../../support/OperatorFixtures.ts"

const object = manifestOf({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "x" } })
const daemonSet = Desired.daemonSetId(NAMESPACE)
const account: OperandId = { kind: "ServiceAccount", namespace: NAMESPACE, name: "sa" }
const DAEMON_SET = `DaemonSet.apps/secrets-store-csi-driver-node -n ${NAMESPACE}`
const CSI_DRIVER = "CSIDriver.storage.k8s.io/secrets-store.csi.k8s.io"

const apply = (id: OperandId, change: (Action & { readonly _tag: "Apply" })["change"]): Action => ({
  _tag: "Apply",
  key: "k",
  requires: [],
  file: "f",
  id,
  change
})
const remove = (id: OperandId): Action => ({ _tag: "Delete", key: "k", requires: [], id, uid: "u" })
const finalizer: Action = {
  _tag: "RemoveFinalizer",
  key: "finalizer",
  requires: [],
  resourceVersion: "1",
  finalizers: []
}
const recreate = { _tag: "Recreate", object, uid: "u" } as const
const failure = new KubernetesApiFailed({
  method: "PUT",
  path: "/p",
  status: 409,
  reason: "Conflict",
  detail: "it was changed"
})

const event = (
  reason: string,
  message: string,
  speaker: OperatorEvent["speaker"] = "staticResources"
): OperatorEvent => ({
  type: reason.endsWith("Failed") ? "Warning" : "Normal",
  reason,
  message,
  speaker
})

describe("what is said of an action", () => {
  it.each<{ readonly name: string; readonly action: Action; readonly expected: OperatorEvent }>([
    {
      name: "created",
      action: apply(daemonSet, { _tag: "Create", object }),
      expected: event("DaemonSetCreated", `Created ${DAEMON_SET} because it was missing`, "nodeService")
    },
    {
      name: "created, of the core group",
      action: apply(account, { _tag: "Create", object }),
      expected: event("ServiceAccountCreated", `Created ServiceAccount/sa -n ${NAMESPACE} because it was missing`)
    },
    {
      name: "updated",
      action: apply(Desired.csiDriverId, { _tag: "Update", object }),
      expected: event("CSIDriverUpdated", `Updated ${CSI_DRIVER} because it changed`)
    },
    {
      name: "updated, with details",
      action: apply(Desired.csiDriverId, { _tag: "Update", object, detail: "changed: spec.tokenRequests" }),
      expected: event("CSIDriverUpdated", `Updated ${CSI_DRIVER}:\nchanged: spec.tokenRequests`)
    },
    {
      name: "deleted and created again",
      action: apply(Desired.csiDriverId, recreate),
      expected: event(
        "CSIDriverUpdated",
        `Updated ${CSI_DRIVER}:\ndeleted and created again: what changed cannot be changed in place`
      )
    },
    {
      name: "deleted",
      action: remove(daemonSet),
      expected: event("DaemonSetDeleted", `Deleted ${DAEMON_SET}`, "nodeService")
    },
    {
      name: "deleted, one without a namespace",
      action: remove(Desired.csiDriverId),
      expected: event("CSIDriverDeleted", `Deleted ${CSI_DRIVER}`)
    }
  ])("4.5 $name", ({ action, expected }) => {
    assert.deepStrictEqual(eventsOf(action, Result.succeed(undefined), { _tag: "Managed" }), [expected])
  })

  it.each<{ readonly action: Action; readonly expected: OperatorEvent }>([
    {
      action: apply(daemonSet, { _tag: "Create", object }),
      expected: event("DaemonSetCreateFailed", `Failed to create ${DAEMON_SET}: ${failure.message}`, "nodeService")
    },
    {
      action: apply(Desired.csiDriverId, { _tag: "Update", object, detail: "changed: spec.tokenRequests" }),
      expected: event("CSIDriverUpdateFailed", `Failed to update ${CSI_DRIVER}: ${failure.message}`)
    },
    {
      action: apply(Desired.csiDriverId, recreate),
      expected: event("CSIDriverUpdateFailed", `Failed to update ${CSI_DRIVER}: ${failure.message}`)
    },
    {
      action: remove(Desired.csiDriverId),
      expected: event("CSIDriverDeleteFailed", `Failed to delete ${CSI_DRIVER}: ${failure.message}`)
    }
  ])("4.5 $expected.reason", ({ action, expected }) => {
    assert.deepStrictEqual(eventsOf(action, Result.fail(failure), { _tag: "Managed" }), [expected])
  })

  it.each<{ readonly name: string; readonly action: Action; readonly management: Management }>([
    { name: "a finalizer", action: { ...finalizer, _tag: "EnsureFinalizer" }, management: { _tag: "Managed" } },
    {
      name: "a note",
      action: { _tag: "Remember", key: "k", requires: [], resourceVersion: "1", value: null },
      management: { _tag: "Managed" }
    },
    { name: "the end of a removal", action: finalizer, management: { _tag: "Removing", isDeleting: true } }
  ])("3.12 nothing is said of $name", ({ action, management }) => {
    assert.deepStrictEqual(eventsOf(action, Result.succeed(undefined), management), [])
    assert.deepStrictEqual(eventsOf(action, Result.fail(failure), management), [])
  })

  it("Q4 a driver that is left in place is spoken of, once it is", () => {
    const management = { _tag: "Released", value: "Unmanaged" } as const
    assert.deepStrictEqual(eventsOf(finalizer, Result.succeed(undefined), management), [
      {
        type: "Warning",
        reason: "OperandLeftInPlace",
        message:
          'The ClusterCSIDriver was deleted in management state "Unmanaged": the driver and its objects are left as they are. Create it again with managementState Managed, then set Removed, to have them removed',
        speaker: "nodeService"
      }
    ])
    assert.deepStrictEqual(eventsOf(finalizer, Result.fail(failure), management), [])
  })
})

describe("what is said of the cluster's configuration", () => {
  const config = (change: Partial<ClusterConfig> = {}): ClusterConfig => ({
    proxy: {},
    hasProxy: true,
    servingInfo: { minTLSVersion: "VersionTLS12", cipherSuites: ["A", "B"] },
    ...change
  })
  const PROXY = { HTTPS_PROXY: "https://user:hidden@p", NO_PROXY: ".svc" }
  const observer = (type: OperatorEvent["type"], reason: string, message: string): OperatorEvent => ({
    type,
    reason,
    message,
    speaker: "configObserver"
  })
  const missing = observer("Warning", "ObserveProxyConfig", "proxy.config.openshift.io/cluster not found")

  it.each<{
    readonly row: string
    readonly name: string
    readonly before: ClusterConfig | undefined
    readonly now: ClusterConfig | undefined
    readonly expected: ReadonlyArray<OperatorEvent>
  }>([
    { row: "3.5", name: "not OpenShift", before: undefined, now: undefined, expected: [] },
    { row: "3.5", name: "seen for the first time", before: undefined, now: config({ proxy: PROXY }), expected: [] },
    {
      row: "3.5",
      name: "a proxy that could not be read before",
      before: config({ proxy: undefined }),
      now: config({ proxy: PROXY }),
      expected: []
    },
    { row: "3.5", name: "the same as before", before: config(), now: config(), expected: [] },
    {
      row: "Q34",
      name: "no Proxy, at first",
      before: undefined,
      now: config({ hasProxy: false }),
      expected: [missing]
    },
    { row: "Q34", name: "no Proxy any more", before: config(), now: config({ hasProxy: false }), expected: [missing] },
    {
      row: "Q34",
      name: "still no Proxy",
      before: config({ hasProxy: false }),
      now: config({ hasProxy: false }),
      expected: []
    },
    { row: "Q34", name: "a Proxy again", before: config({ hasProxy: false }), now: config(), expected: [] },
    {
      row: "3.5",
      name: "another proxy, by the names of its variables",
      before: config(),
      now: config({ proxy: PROXY }),
      expected: [
        observer("Normal", "ObserveProxyConfig", "proxy changed: set are HTTPS_PROXY, NO_PROXY, before none"),
        observer("Normal", "ObservedConfigChanged", "the observed configuration changed: proxy")
      ]
    },
    {
      row: "3.5",
      name: "no proxy any more",
      before: config({ proxy: PROXY }),
      now: config(),
      expected: [
        observer("Normal", "ObserveProxyConfig", "proxy changed: set are no variables, before HTTPS_PROXY, NO_PROXY"),
        observer("Normal", "ObservedConfigChanged", "the observed configuration changed: proxy")
      ]
    },
    {
      row: "3.5",
      name: "another TLS profile",
      before: config(),
      now: config({ servingInfo: { minTLSVersion: "VersionTLS13", cipherSuites: ["C", "D"] } }),
      expected: [
        observer("Normal", "ObserveTLSSecurityProfile", "minTLSVersion is VersionTLS13, cipherSuites are C,D"),
        observer("Normal", "ObservedConfigChanged", "the observed configuration changed: servingInfo")
      ]
    }
  ])("$row $name", ({ before, expected, now }) => {
    assert.deepStrictEqual(configEvents(before, now), expected)
  })
})
