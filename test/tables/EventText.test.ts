import { assert, describe, it } from "@effect/vitest"
import * as EventText from "../../src/operator/EventText.ts"

const daemonSet = { kind: "DaemonSet", group: "apps", name: "node", namespace: "ns" }
const csiDriver = { kind: "CSIDriver", group: "storage.k8s.io", name: "csi" }
const configMap = { kind: "ConfigMap", group: "", name: "config", namespace: "ns" }
const error = { message: "no" }

describe("EventText", () => {
  it.each([
    {
      name: "created",
      event: EventText.created(daemonSet),
      expected: ["Normal", "DaemonSetCreated", "Created DaemonSet.apps/node -n ns because it was missing"]
    },
    {
      name: "created, without a namespace",
      event: EventText.created(csiDriver),
      expected: ["Normal", "CSIDriverCreated", "Created CSIDriver.storage.k8s.io/csi because it was missing"]
    },
    {
      name: "create failed, core group",
      event: EventText.createFailed(configMap, error),
      expected: ["Warning", "ConfigMapCreateFailed", "Failed to create ConfigMap/config -n ns: no"]
    },
    {
      name: "updated",
      event: EventText.updated(csiDriver),
      expected: ["Normal", "CSIDriverUpdated", "Updated CSIDriver.storage.k8s.io/csi because it changed"]
    },
    {
      name: "updated, with details",
      event: EventText.updated(configMap, EventText.configMapDetails(["b", "a"])),
      expected: ["Normal", "ConfigMapUpdated", "Updated ConfigMap/config -n ns:\ncause by changes in data.a,data.b"]
    },
    {
      name: "updated, only the metadata of a ConfigMap",
      event: EventText.updated(configMap, EventText.configMapDetails([])),
      expected: ["Normal", "ConfigMapUpdated", "Updated ConfigMap/config -n ns:\n"]
    },
    {
      name: "update failed",
      event: EventText.updateFailed(daemonSet, error),
      expected: ["Warning", "DaemonSetUpdateFailed", "Failed to update DaemonSet.apps/node -n ns: no"]
    },
    {
      name: "deleted",
      event: EventText.deleted(daemonSet),
      expected: ["Normal", "DaemonSetDeleted", "Deleted DaemonSet.apps/node -n ns"]
    },
    {
      name: "deleted, with details",
      event: EventText.deleted(csiDriver, ["a", "b"]),
      expected: ["Normal", "CSIDriverDeleted", "Deleted CSIDriver.storage.k8s.io/csi:\na\nb"]
    },
    {
      name: "delete failed",
      event: EventText.deleteFailed(csiDriver, error),
      expected: ["Warning", "CSIDriverDeleteFailed", "Failed to delete CSIDriver.storage.k8s.io/csi: no"]
    }
  ])("4.5 $name", ({ event, expected: [type, reason, message] }) =>
    assert.deepStrictEqual<unknown>(event, { type, reason, message })
  )
})
