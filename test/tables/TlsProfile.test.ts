import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { ApiServer, TlsSecurityProfile } from "../../schemas/ApiServerConfig.ts"
import {
  DEFAULT_TLS,
  isTlsVersion,
  observeServingInfo,
  opensslNameOf,
  resolveTlsProfile,
  servingTls
} from "../../src/operator/TlsProfile.ts"

const MODERN = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
const INTERMEDIATE = [
  ...MODERN,
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305"
]
const INTERMEDIATE_IANA = [
  ...MODERN,
  "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
  "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
  "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
  "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
  "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
  "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
]
const GROUPS = ["X25519MLKEM768", "X25519", "secp256r1", "secp384r1"]

const cluster = (tlsSecurityProfile?: TlsSecurityProfile, tlsAdherence?: string): ApiServer => ({
  metadata: { name: "cluster" },
  spec: {
    ...(tlsSecurityProfile === undefined ? {} : { tlsSecurityProfile }),
    ...(tlsAdherence === undefined ? {} : { tlsAdherence })
  }
})

const intermediate = {
  minTlsVersion: "VersionTLS12",
  ciphers: INTERMEDIATE,
  groups: GROUPS,
  iana: INTERMEDIATE_IANA,
  honour: false,
  warnings: []
}

describe("the profile", () => {
  it.each<{ readonly name: string; readonly apiServer: ApiServer | undefined; readonly expected: unknown }>([
    {
      name: "not found",
      apiServer: undefined,
      expected: {
        ...intermediate,
        warnings: ["there is no apiservers.config.openshift.io/cluster, using default TLS settings"]
      }
    },
    { name: "without a spec", apiServer: { metadata: {} }, expected: intermediate },
    { name: "nil", apiServer: cluster(), expected: intermediate },
    { name: "of no type", apiServer: cluster({ type: "" }), expected: intermediate },
    { name: "Intermediate", apiServer: cluster({ type: "Intermediate" }), expected: intermediate },
    {
      name: "Modern",
      apiServer: cluster({ type: "Modern" }),
      expected: { ...intermediate, minTlsVersion: "VersionTLS13", ciphers: MODERN, iana: MODERN }
    },
    {
      name: "of an unknown type",
      apiServer: cluster({ type: "Ancient" }),
      expected: { ...intermediate, warnings: ['unknown TLS profile "Ancient", using Intermediate'] }
    },
    {
      name: "Custom",
      apiServer: cluster({
        type: "Custom",
        custom: { ciphers: ["AES128-SHA", "made-up"], minTLSVersion: "VersionTLS11", groups: ["X25519"] }
      }),
      expected: {
        minTlsVersion: "VersionTLS11",
        ciphers: ["AES128-SHA", "made-up"],
        groups: ["X25519"],
        iana: ["TLS_RSA_WITH_AES_128_CBC_SHA"],
        honour: false,
        warnings: []
      }
    },
    {
      name: "Custom with nothing in it",
      apiServer: cluster({ type: "Custom", custom: {} }, "StrictAllComponents"),
      expected: { minTlsVersion: "VersionTLS12", ciphers: [], groups: [], iana: [], honour: true, warnings: [] }
    }
  ])("1.3 $name", ({ apiServer, expected }) => {
    assert.deepStrictEqual<unknown>(resolveTlsProfile(apiServer), Result.succeed(expected))
  })

  it("1.3 Old has 24 ciphers, of which three have no name in IANA's spelling", () => {
    const old = Result.getOrThrow(resolveTlsProfile(cluster({ type: "Old" })))
    assert.strictEqual(old.minTlsVersion, "VersionTLS10")
    assert.strictEqual(old.ciphers.length, 24)
    assert.deepStrictEqual(old.ciphers.slice(0, 9), INTERMEDIATE)
    assert.deepStrictEqual(
      old.ciphers.filter((cipher) => !old.iana.some((iana) => opensslNameOf(iana) === cipher)),
      ["ECDHE-ECDSA-AES256-SHA384", "ECDHE-RSA-AES256-SHA384", "AES256-SHA256"]
    )
    assert.strictEqual(old.iana.at(-1), "TLS_RSA_WITH_3DES_EDE_CBC_SHA")
  })

  it.each([
    {
      name: "Custom without a custom profile",
      apiServer: cluster({ type: "Custom" }),
      detail: "the TLS profile is of type Custom and has no custom profile"
    },
    {
      name: "Custom with an unknown version",
      apiServer: cluster({ type: "Custom", custom: { minTLSVersion: "SSL3" } }),
      detail:
        'the custom TLS profile asks for the unknown version "SSL3"; known are VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13'
    },
    {
      name: "none of its ciphers is known, and it has to be honoured",
      apiServer: cluster({ type: "Custom", custom: { ciphers: ["a", "AES256-SHA256"] } }, "StrictAllComponents"),
      detail: "all 2 ciphers of the cluster's TLS profile are unknown: a, AES256-SHA256"
    }
  ])("1.3 $name: refused", ({ apiServer, detail }) => {
    const refused = resolveTlsProfile(apiServer)
    assert(Result.isFailure(refused))
    assert.strictEqual(refused.failure.message, detail)
    assert.strictEqual(refused.failure.code, "TLSProfileInvalid")
  })

  it("1.3 none of its ciphers is known, and it need not be honoured", () => {
    const resolved = resolveTlsProfile(cluster({ type: "Custom", custom: { ciphers: ["a"] } }))
    assert.deepStrictEqual(Result.getOrThrow(resolved).iana, [])
  })
})

describe("adherence", () => {
  it.each([
    { adherence: undefined, honour: false, warnings: [] },
    { adherence: "", honour: false, warnings: [] },
    { adherence: "LegacyAdheringComponentsOnly", honour: false, warnings: [] },
    { adherence: "StrictAllComponents", honour: true, warnings: [] },
    {
      adherence: "StrictEverything",
      honour: true,
      warnings: ['unknown tlsAdherence "StrictEverything", treated like StrictAllComponents']
    }
  ])("1.3 $adherence", ({ adherence, honour, warnings }) => {
    const resolved = Result.getOrThrow(resolveTlsProfile(cluster({ type: "Modern" }, adherence)))
    assert.deepStrictEqual([resolved.honour, resolved.warnings], [honour, warnings])
  })
})

describe("the server's settings", () => {
  const own = { ...DEFAULT_TLS, minTlsVersion: "VersionTLS13" } as const
  const resolved = (type: string, adherence?: string) =>
    Result.getOrThrow(resolveTlsProfile(cluster({ type }, adherence)))

  it("1.3 are its own when the profile is unknown or need not be honoured", () => {
    assert.deepStrictEqual(servingTls(undefined, own), own)
    assert.deepStrictEqual(servingTls(resolved("Old"), own), own)
  })

  it("1.3 1.4 are the profile's when it has to be honoured, whatever the file says, without unknown ciphers", () => {
    assert.deepStrictEqual(servingTls(resolved("Modern", "StrictAllComponents"), DEFAULT_TLS), {
      minTlsVersion: "VersionTLS13",
      ciphers: MODERN,
      groups: GROUPS
    })
    assert.strictEqual(servingTls(resolved("Old", "StrictAllComponents"), own).ciphers.length, 21)
  })

  it("1.5 defaults: six suites of TLS 1.2 in Go's order, then those of TLS 1.3", () => {
    assert.deepStrictEqual(
      [DEFAULT_TLS.minTlsVersion, DEFAULT_TLS.ciphers.slice(0, 2)],
      ["VersionTLS12", ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"]]
    )
    assert.deepStrictEqual(DEFAULT_TLS.ciphers.slice(-3), MODERN)
  })

  it.each([
    ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"],
    ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"],
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"],
    ["TLS_NULL", undefined]
  ])("1.4 %s of a config file is %s", (iana, openssl) => {
    assert.strictEqual(opensslNameOf(iana), openssl)
  })

  it("1.4 versions", () => {
    assert.isTrue(isTlsVersion("VersionTLS11"))
    assert.isFalse(isTlsVersion("TLSv1.2"))
  })
})

describe("what the operand would be told", () => {
  it.each<{ readonly name: string; readonly apiServer: ApiServer | undefined; readonly expected: unknown }>([
    {
      name: "not found",
      apiServer: undefined,
      expected: { minTLSVersion: "VersionTLS12", cipherSuites: INTERMEDIATE_IANA }
    },
    {
      name: "Custom without a custom profile",
      apiServer: cluster({ type: "Custom" }),
      expected: { minTLSVersion: "VersionTLS12", cipherSuites: INTERMEDIATE_IANA }
    },
    {
      name: "of an unknown type",
      apiServer: cluster({ type: "x" }),
      expected: { minTLSVersion: "VersionTLS12", cipherSuites: INTERMEDIATE_IANA }
    },
    {
      name: "Modern",
      apiServer: cluster({ type: "Modern" }),
      expected: { minTLSVersion: "VersionTLS13", cipherSuites: MODERN }
    },
    {
      name: "Custom",
      apiServer: cluster({ type: "Custom", custom: { ciphers: ["AES128-SHA", "x"], minTLSVersion: "VersionTLS10" } }),
      expected: { minTLSVersion: "VersionTLS10", cipherSuites: ["TLS_RSA_WITH_AES_128_CBC_SHA"] }
    }
  ])("3.5 $name", ({ apiServer, expected }) => {
    assert.deepStrictEqual<unknown>(observeServingInfo(apiServer), expected)
  })
})
