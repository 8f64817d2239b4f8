import { assert, describe, it } from "@effect/vitest"
import type { JsonObject } from "../../../schemas/Json.ts"
import { ownerOf } from "../../../src/operator/Foreign.ts"
import { manifestOf, NAMESPACE } from "../../support/OperatorFixtures.ts"

const account = (namespace: string) => ({ kind: "ServiceAccount", name: "driver", namespace })

const role = (metadata: JsonObject): JsonObject => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind: "ClusterRole",
  metadata: { name: "secretproviderclasses-role", ...metadata }
})

const binding = (subjects: ReadonlyArray<JsonObject>, kind = "ClusterRoleBinding"): JsonObject => ({
  apiVersion: "rbac.authorization.k8s.io/v1",
  kind,
  metadata: { name: "secretproviderclasses-rolebinding" },
  subjects
})

describe("objects of another installation", () => {
  it.each<{ readonly name: string; readonly object: JsonObject; readonly expected: string | undefined }>([
    { name: "nothing is known of it", object: role({}), expected: undefined },
    {
      name: "a Helm release",
      object: role({
        labels: { "app.kubernetes.io/managed-by": "Helm" },
        annotations: { "meta.helm.sh/release-name": "csi", "meta.helm.sh/release-namespace": "kube-system" }
      }),
      expected: "Helm release kube-system/csi"
    },
    {
      name: "a Helm release that does not say where",
      object: role({ annotations: { "meta.helm.sh/release-name": "csi" } }),
      expected: "Helm release default/csi"
    },
    {
      name: "a Helm release by its label alone",
      object: role({ labels: { "app.kubernetes.io/managed-by": "Helm" } }),
      expected: "a Helm release"
    },
    {
      name: "managed by something else",
      object: role({ labels: { "app.kubernetes.io/managed-by": "kustomize" } }),
      expected: undefined
    },
    {
      name: "taken over by us, whatever else it says",
      object: role({
        labels: { "app.kubernetes.io/managed-by": "secrets-store-csi-driver-operator" },
        annotations: { "meta.helm.sh/release-name": "csi" }
      }),
      expected: undefined
    },
    {
      name: "with a digest of ours, whatever else it says",
      object: role({
        labels: { "app.kubernetes.io/managed-by": "Helm" },
        annotations: { "operator.openshift.io/spec-hash": "0" }
      }),
      expected: undefined
    },
    {
      name: "a binding of ours whose subjects somebody has changed",
      object: {
        ...binding([account("kube-system")]),
        metadata: { name: "x", labels: { "app.kubernetes.io/managed-by": "secrets-store-csi-driver-operator" } }
      },
      expected: undefined
    },
    { name: "a binding of ours", object: binding([account(NAMESPACE)]), expected: undefined },
    {
      name: "a binding of a driver in another namespace",
      object: binding([account("kube-system")]),
      expected: "an installation whose ServiceAccount is kube-system/driver"
    },
    {
      name: "a binding that also binds ours",
      object: binding([account("kube-system"), account(NAMESPACE)]),
      expected: undefined
    },
    { name: "a binding of nobody", object: binding([]), expected: undefined },
    {
      name: "a binding of a user, who has no namespace",
      object: binding([{ kind: "User", name: "me" }]),
      expected: undefined
    },
    {
      name: "a RoleBinding is found by our own label",
      object: binding([account("kube-system")], "RoleBinding"),
      expected: undefined
    }
  ])("Q41 $name", ({ expected, object }) => {
    assert.strictEqual(ownerOf(manifestOf(object), NAMESPACE), expected)
  })
})
