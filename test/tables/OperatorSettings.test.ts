import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { OperatorFlags } from "../../src/main/OperatorFlags.ts"
import { type OperatorSettings, parseConfigFile, type Sources, settle } from "../../src/main/OperatorSettings.ts"
import { DEFAULT_TLS } from "../../src/operator/TlsProfile.ts"

const NAME = "secrets-store-csi-driver-operator"

const flags: OperatorFlags = {
  config: "",
  kubeconfig: "",
  namespace: "",
  listen: "",
  terminateOnFiles: [],
  verbosity: 2
}
const sources: Sources = { flags, file: {}, environment: {}, namespaceFile: "drivers\n", version: "1.2.3" }

const expected: OperatorSettings = {
  operator: {
    namespace: "drivers",
    images: { driver: "", registrar: "", livenessProbe: "" },
    version: "1.2.3",
    operatorName: NAME,
    podName: "",
    lease: { namespace: "drivers", name: `${NAME}-lock` }
  },
  kubeconfig: "",
  verbosity: 2,
  listen: ":8443",
  certificate: {
    certFile: "/var/run/secrets/serving-cert/tls.crt",
    keyFile: "/var/run/secrets/serving-cert/tls.key"
  },
  tls: DEFAULT_TLS,
  metricsUser: "system:serviceaccount:openshift-monitoring:prometheus-k8s",
  authenticationDisabled: false,
  authorizationDisabled: false,
  terminateOnFiles: [],
  warnings: []
}
const { operator } = expected

describe("settings", () => {
  it.each<{
    readonly row: string
    readonly name: string
    readonly given: Partial<Sources>
    readonly changed: Partial<OperatorSettings>
  }>([
    { row: "Q33 Q13 Q14", name: "the namespace file, trimmed, and nothing else", given: {}, changed: {} },
    {
      row: "1.2",
      name: "--namespace wins over the file",
      given: { flags: { ...flags, namespace: "other" } },
      changed: {
        operator: { ...operator, namespace: "other", lease: { namespace: "other", name: `${NAME}-lock` } }
      }
    },
    {
      row: "1.8",
      name: "the environment",
      given: {
        environment: {
          DRIVER_IMAGE: "d",
          NODE_DRIVER_REGISTRAR_IMAGE: "r",
          LIVENESS_PROBE_IMAGE: "l",
          OPERATOR_NAME: "my-operator",
          POD_NAME: "p",
          METRICS_ALLOWED_USER: "system:serviceaccount:monitoring:prometheus",
          OPENSHIFT_ON_PANIC: "crash",
          OPENSHIFT_PROFILE: ""
        }
      },
      changed: {
        operator: {
          ...operator,
          images: { driver: "d", registrar: "r", livenessProbe: "l" },
          operatorName: "my-operator",
          podName: "p"
        },
        metricsUser: "system:serviceaccount:monitoring:prometheus",
        warnings: ["OPENSHIFT_ON_PANIC has no effect"]
      }
    },
    { row: "Q14", name: "an empty name is none", given: { environment: { OPERATOR_NAME: "" } }, changed: {} },
    {
      row: "1.4",
      name: "the config file",
      given: {
        flags: { ...flags, config: "/c.yaml", terminateOnFiles: ["/a", "/c.yaml"] },
        file: {
          servingInfo: {
            bindAddress: "127.0.0.1:9443",
            certFile: "/crt",
            keyFile: "/key",
            minTLSVersion: "VersionTLS13",
            cipherSuites: ["TLS_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
            bindNetwork: "tcp4",
            maxRequestsInFlight: 0
          },
          leaderElection: { namespace: "leases", name: "lock" },
          authentication: { disabled: true },
          authorization: { disabled: true }
        }
      },
      changed: {
        operator: { ...operator, lease: { namespace: "leases", name: "lock" } },
        listen: "127.0.0.1:9443",
        certificate: { certFile: "/crt", keyFile: "/key" },
        tls: {
          minTlsVersion: "VersionTLS13",
          ciphers: ["TLS_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"],
          groups: []
        },
        authenticationDisabled: true,
        authorizationDisabled: true,
        terminateOnFiles: ["/a", "/c.yaml"],
        warnings: ["/c.yaml: servingInfo.bindNetwork has no effect"]
      }
    },
    {
      row: "1.1",
      name: "--listen wins over the file",
      given: { flags: { ...flags, listen: ":1" }, file: { servingInfo: { bindAddress: ":2" } } },
      changed: { listen: ":1" }
    }
  ])("$row $name", ({ changed, given }) => {
    assert.deepStrictEqual(settle({ ...sources, ...given }), Result.succeed({ ...expected, ...changed }))
  })

  it.each<{ readonly row: string; readonly name: string; readonly given: Partial<Sources>; readonly message: string }>([
    {
      row: "Q33",
      name: "no namespace",
      given: { namespaceFile: undefined },
      message: "/var/run/secrets/kubernetes.io/serviceaccount/namespace: the namespace is not known"
    },
    {
      row: "Q33",
      name: "a namespace file of blanks",
      given: { namespaceFile: " \n" },
      message: "/var/run/secrets/kubernetes.io/serviceaccount/namespace: the namespace is not known"
    },
    {
      row: "Q33",
      name: "no name of a namespace",
      given: { flags: { ...flags, namespace: "a/b" } },
      message: '--namespace: "a/b" is no namespace'
    },
    {
      row: "Q14",
      name: "a path for a name",
      given: { environment: { OPERATOR_NAME: "/usr/bin/operator" } },
      message: 'OPERATOR_NAME: "/usr/bin/operator" cannot be the prefix of a finalizer'
    },
    {
      row: "1.4",
      name: "an unknown version of TLS",
      given: { flags: { ...flags, config: "/c" }, file: { servingInfo: { minTLSVersion: "TLSv1.2" } } },
      message:
        '/c: servingInfo.minTLSVersion: unknown version "TLSv1.2"; known are VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13'
    },
    {
      row: "1.4",
      name: "an unknown cipher",
      given: { flags: { ...flags, config: "/c" }, file: { servingInfo: { cipherSuites: ["a", "b"] } } },
      message: "/c: servingInfo.cipherSuites: unknown cipher suites: a, b"
    },
    {
      row: "1.4",
      name: "a certificate without its key",
      given: { flags: { ...flags, config: "/c" }, file: { servingInfo: { certFile: "/crt" } } },
      message: "/c: servingInfo.keyFile: is missing beside certFile"
    },
    {
      row: "1.4",
      name: "a key without its certificate",
      given: { flags: { ...flags, config: "/c" }, file: { servingInfo: { keyFile: "/key" } } },
      message: "/c: servingInfo.certFile: is missing beside keyFile"
    }
  ])("$row $name: refused", ({ given, message }) => {
    const refused = settle({ ...sources, ...given })
    assert(Result.isFailure(refused))
    assert.strictEqual(refused.failure.message, message)
    assert.isNotEmpty(refused.failure.remedy)
  })
})

describe("the config file", () => {
  it.each([
    { name: "empty", content: "", expected: {} },
    { name: "comments only", content: "# nothing\n", expected: {} },
    {
      name: "unknown fields, another kind, and nulls",
      content: "kind: Other\nfuture: {a: 1}\nservingInfo:\n  bindAddress: ':1'\n  clientCA: null\n",
      expected: { servingInfo: { bindAddress: ":1" } }
    },
    {
      name: "JSON",
      content: '{"leaderElection":{"name":"x","disable":true,"leaseDuration":"1s"}}',
      expected: { leaderElection: { name: "x" } }
    }
  ])("1.4 $name", ({ content, expected }) => {
    assert.deepStrictEqual<unknown>(parseConfigFile("/c", content), Result.succeed(expected))
  })

  it.each([
    {
      name: "a field of another type",
      content: "servingInfo: {bindAddress: 1}",
      says: /^\/c: .*servingInfo.*bindAddress/u
    },
    { name: "not YAML", content: "a: [", says: /^\/c: \S/u },
    { name: "a list", content: "[]", says: /^\/c: Expected/u }
  ])("1.4 $name: refused", ({ content, says }) => {
    const refused = parseConfigFile("/c", content)
    assert(Result.isFailure(refused))
    assert.match(refused.failure.message, says)
  })
})
