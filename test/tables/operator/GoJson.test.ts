/**
 * Digests that operators before this one wrote and compare: they stay the same to the byte.
 */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { objectAt } from "../../../schemas/Json.ts"
import * as CSIDriver from "../../../src/operator/CSIDriver.ts"
import * as DaemonSet from "../../../src/operator/DaemonSet.ts"
import * as GoJson from "../../../src/operator/GoJson.ts"
import { configMapHash, configMapHashKey } from "../../../src/operator/Hash.ts"
import { Annotation } from "../../../src/operator/Names.ts"
import { settingsOf } from "../../../src/operator/Settings.ts"
import { clusterCsiDriver, manifestOf, manifests, NAMESPACE, SIDECARS, sha256 } from "../../support/OperatorFixtures.ts"

const KEY = "operator.openshift.io/dep-"

describe("JSON as Go writes it", () => {
  it.each<{ readonly name: string; readonly value: unknown; readonly expected: string }>([
    { name: "maps are sorted", value: { b: "1", a: "2" }, expected: '{"a":"2","b":"1"}' },
    { name: "<, > and & are escaped", value: { a: "<b>&" }, expected: '{"a":"\\u003cb\\u003e\\u0026"}' },
    { name: "line separators are escaped", value: "\u2028\u2029", expected: '"\\u2028\\u2029"' },
    { name: "what is empty stays in a map", value: { a: "", b: 0 }, expected: '{"a":"","b":0}' },
    { name: "absent is null", value: undefined, expected: "null" },
    { name: "lists keep their order", value: ["b", "a", 1, false], expected: '["b","a",1,false]' }
  ])("4.3 $name", ({ expected, value }) => {
    assert.strictEqual(GoJson.encode(value), expected)
  })

  it.each<{ readonly name: string; readonly value: unknown; readonly expected: string }>([
    {
      name: "fields in the struct's order, whatever theirs is",
      value: { requiresRepublish: true, fsGroupPolicy: "File", attachRequired: false },
      expected: '{"attachRequired":false,"fsGroupPolicy":"File","requiresRepublish":true}'
    },
    {
      name: "empty is left out, false is not",
      value: { attachRequired: false, fsGroupPolicy: "", tokenRequests: [], volumeLifecycleModes: [] },
      expected: '{"attachRequired":false}'
    },
    {
      name: "an audience is written even when it is empty",
      value: { tokenRequests: [{ expirationSeconds: 0, audience: "" }] },
      expected: '{"tokenRequests":[{"audience":""}]}'
    },
    {
      name: "an unknown field comes last",
      value: { a: 1, seLinuxMount: false },
      expected: '{"seLinuxMount":false,"a":1}'
    }
  ])("4.4 $name", ({ expected, value }) => {
    assert.strictEqual(GoJson.encode(value, GoJson.CSI_DRIVER_SPEC), expected)
  })
})

describe("spec hash of the CSIDriver", () => {
  const config = (secretsStore: Readonly<Record<string, unknown>>) =>
    clusterCsiDriver({ managementState: "Managed", driverConfig: { driverType: "SecretsStore", secretsStore } })

  it.each([
    {
      name: "today's default",
      it: clusterCsiDriver(),
      expected: "231f3836fed69a3709202a6e804a0f3b9765229217037cc1e259dd58433d60e8"
    },
    {
      name: "rotation None",
      it: config({ secretRotation: { type: "None" } }),
      expected: "4d0c37abf5a7c506db8eb1fa8a39c97a176e76a026417488845b806527c05021"
    },
    {
      name: "two audiences",
      it: config({
        tokenRequests: {
          type: "Managed",
          managed: {
            audiences: [
              { audience: "sts.amazonaws.com", expirationSeconds: 3600 },
              { audience: "api://AzureADTokenExchange" }
            ]
          }
        }
      }),
      expected: "3b89113d00b60eed000fd33803324edbe64abf02e9c77ce7b838b76813b8d8f9"
    },
    {
      name: "an empty list hashes as none",
      it: config({ tokenRequests: { type: "Managed", managed: { audiences: [] } } }),
      expected: "231f3836fed69a3709202a6e804a0f3b9765229217037cc1e259dd58433d60e8"
    }
  ])("4.4 $name", ({ expected, it: clusterCsiDriver }) => {
    const manifest = manifestOf(manifests.get("csidriver.yaml"))
    const rendered = CSIDriver.render(manifest, settingsOf(clusterCsiDriver), undefined, undefined, sha256)
    assert.strictEqual(rendered.metadata.annotations?.[Annotation.specHash], expected)
  })

  it("4.4 before 5.0: the manifest alone", () => {
    const spec = objectAt(manifestOf(manifests.get("csidriver.yaml")), "spec")
    assert.strictEqual(
      sha256(GoJson.encode(spec, GoJson.CSI_DRIVER_SPEC)),
      "4fc61ff54015a7e91e07b93ac8e64f46983a59b4b296344948f72187e3318b33"
    )
  })
})

describe("spec hash of the DaemonSet", () => {
  it.each([
    { logLevel: "Normal", expected: "26d33606f8c420c0a8804d6dde427df5f7b9f96c0f0171d58086aca203fdcc69" },
    { logLevel: "Debug", expected: "61de878aa2e6b21c747eb8a25ecc440c4eaa1f500e4c7471116b51032fb08037" }
  ])("4.3 three containers at log level $logLevel", ({ expected, logLevel }) => {
    const rendered = Result.getOrThrow(
      DaemonSet.render(
        {
          manifests,
          namespace: NAMESPACE,
          images: SIDECARS,
          settings: settingsOf(clusterCsiDriver({ managementState: "Managed", logLevel })),
          overrides: undefined,
          caBundle: undefined,
          proxy: {}
        },
        sha256
      )
    )
    assert.strictEqual(sha256(GoJson.encode(rendered["spec"], GoJson.DAEMON_SET_SPEC)), expected)
  })
})

describe("hash of the CA bundle", () => {
  it.each([
    { name: "one key", data: { "ca-bundle.crt": "test" }, expected: "hgbyuQ==" },
    { name: "the order of keys says nothing", data: { b: "1", a: "2" }, same: { a: "2", b: "1" } }
  ])("3.7 value: $name", ({ data, expected, same }) => {
    assert.strictEqual(configMapHash(data), expected ?? configMapHash(same ?? {}))
  })

  it.each([
    {
      name: "the canonical namespace",
      namespace: NAMESPACE,
      configMap: "secrets-store-csi-driver-trusted-ca-bundle",
      expected: `${KEY}bf84c74b4a7c1cfaaf2cfffd10a70c59d7723`
    },
    { name: "short names stay as they are", namespace: "a", configMap: "b", expected: `${KEY}a.b.configmap` },
    {
      name: "63 characters still fit",
      namespace: "a",
      configMap: "b".repeat(25),
      expected: `${KEY}a.${"b".repeat(25)}.configmap`
    }
  ])("3.7 key: $name", ({ configMap, expected, namespace }) => {
    const key = configMapHashKey(sha256, namespace, configMap)
    assert.strictEqual(key, expected)
    assert.isAtMost(key.length, 63)
  })

  it("3.7 key: 64 characters are hashed", () => {
    const key = configMapHashKey(sha256, "a", "b".repeat(26))
    assert.match(key, /^operator\.openshift\.io\/dep-[0-9a-f]{37}$/u)
  })
})
