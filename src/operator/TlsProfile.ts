/**
 * What the cluster asks of a TLS server: the profiles of config.openshift.io, whether they have to be honoured, and the
 * names of ciphers in OpenSSL's and in IANA's spelling.
 *
 * @source reference/operator.md 1.3, 1.5, 3.5
 */
import { Result } from "effect"
import type { ApiServer, TlsSecurityProfile } from "../../schemas/ApiServerConfig.ts"
import { TlsProfileInvalid } from "../../schemas/errors/TlsProfileInvalid.ts"

/** Weakest first. */
export const TLS_VERSIONS = ["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"] as const
export type TlsVersion = (typeof TLS_VERSIONS)[number]

/** Of a server. */
export interface TlsSettings {
  readonly minTlsVersion: TlsVersion
  /** OpenSSL's names, in order of preference; empty leaves the choice to the TLS library. */
  readonly ciphers: ReadonlyArray<string>
  /** Key exchanges in order of preference; empty leaves the choice to the TLS library. */
  readonly groups: ReadonlyArray<string>
}

/** What the cluster asks for. */
export interface ClusterProfile extends TlsSettings {
  /** The names of `ciphers` that IANA knows. */
  readonly iana: ReadonlyArray<string>
  /** A server that does not have to honour it keeps its own settings. */
  readonly honour: boolean
  /** For the log: what was found and cannot be taken literally. */
  readonly warnings: ReadonlyArray<string>
}

const TLS13_CIPHERS = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
const INTERMEDIATE_CIPHERS = [
  ...TLS13_CIPHERS,
  "ECDHE-ECDSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-ECDSA-AES256-GCM-SHA384",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-ECDSA-CHACHA20-POLY1305",
  "ECDHE-RSA-CHACHA20-POLY1305"
]
const OLD_CIPHERS = [
  ...INTERMEDIATE_CIPHERS,
  "ECDHE-ECDSA-AES128-SHA256",
  "ECDHE-RSA-AES128-SHA256",
  "ECDHE-ECDSA-AES128-SHA",
  "ECDHE-RSA-AES128-SHA",
  "ECDHE-ECDSA-AES256-SHA384",
  "ECDHE-RSA-AES256-SHA384",
  "ECDHE-ECDSA-AES256-SHA",
  "ECDHE-RSA-AES256-SHA",
  "AES128-GCM-SHA256",
  "AES256-GCM-SHA384",
  "AES128-SHA256",
  "AES256-SHA256",
  "AES128-SHA",
  "AES256-SHA",
  "DES-CBC3-SHA"
]
const GROUPS = ["X25519MLKEM768", "X25519", "secp256r1", "secp384r1"]

const INTERMEDIATE: TlsSettings = { minTlsVersion: "VersionTLS12", ciphers: INTERMEDIATE_CIPHERS, groups: GROUPS }
const PROFILES: ReadonlyMap<string, TlsSettings> = new Map([
  ["Old", { minTlsVersion: "VersionTLS10", ciphers: OLD_CIPHERS, groups: GROUPS }],
  ["Intermediate", INTERMEDIATE],
  ["Modern", { minTlsVersion: "VersionTLS13", ciphers: TLS13_CIPHERS, groups: GROUPS }]
])

/** What a server uses that nobody told otherwise. */
export const DEFAULT_TLS: TlsSettings = {
  minTlsVersion: "VersionTLS12",
  ciphers: [
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    ...TLS13_CIPHERS
  ],
  groups: []
}

/** By OpenSSL's name. Names that are not listed have no place in a configuration and are left out. */
const IANA: ReadonlyMap<string, string> = new Map([
  ...TLS13_CIPHERS.map((name) => [name, name] as const),
  ["ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"],
  ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
  ["ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"],
  ["ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"],
  ["ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"],
  ["ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"],
  ["ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"],
  ["ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"],
  ["AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256"],
  ["AES256-GCM-SHA384", "TLS_RSA_WITH_AES_256_GCM_SHA384"],
  ["AES128-SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA256"],
  ["ECDHE-ECDSA-AES128-SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"],
  ["ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"],
  ["ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"],
  ["ECDHE-RSA-AES256-SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"],
  ["AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA"],
  ["AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA"],
  ["DES-CBC3-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA"],
  ["ECDHE-RSA-DES-CBC3-SHA", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"]
])

const OPENSSL: ReadonlyMap<string, string> = new Map([
  ...[...IANA].map(([openssl, iana]) => [iana, openssl] as const),
  // Go's own spelling of two of them.
  ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "ECDHE-ECDSA-CHACHA20-POLY1305"],
  ["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"]
])

/**
 * @shape  (a cipher's name as config files have it, of IANA) -> OpenSSL's, or undefined
 * @errors none
 */
export const opensslNameOf = (iana: string): string | undefined => OPENSSL.get(iana)

/** @shape (text) -> whether it is a version of TLS as configurations write it */
export const isTlsVersion = (version: string): version is TlsVersion => TLS_VERSIONS.some((known) => known === version)

const ianaNames = (ciphers: ReadonlyArray<string>): ReadonlyArray<string> =>
  ciphers.flatMap((cipher) => IANA.get(cipher) ?? [])

interface Spec {
  readonly settings: TlsSettings
  readonly warnings: ReadonlyArray<string>
}

const customSpec = (custom: NonNullable<TlsSecurityProfile["custom"]>): Result.Result<Spec, TlsProfileInvalid> => {
  const { ciphers = [], groups = [], minTLSVersion = "" } = custom
  const version = minTLSVersion === "" ? INTERMEDIATE.minTlsVersion : minTLSVersion
  if (!isTlsVersion(version)) {
    return Result.fail(
      new TlsProfileInvalid({
        detail: `the custom TLS profile asks for the unknown version ${JSON.stringify(version)}; known are ${TLS_VERSIONS.join(", ")}`
      })
    )
  }
  return Result.succeed({ settings: { minTlsVersion: version, ciphers, groups }, warnings: [] })
}

const specOf = (profile: TlsSecurityProfile | undefined): Result.Result<Spec, TlsProfileInvalid> => {
  const { custom, type = "" } = profile ?? {}
  if (type === "") return Result.succeed({ settings: INTERMEDIATE, warnings: [] })
  if (type === "Custom") {
    return custom === undefined
      ? Result.fail(new TlsProfileInvalid({ detail: "the TLS profile is of type Custom and has no custom profile" }))
      : customSpec(custom)
  }
  const settings = PROFILES.get(type)
  return Result.succeed(
    settings === undefined
      ? {
          settings: INTERMEDIATE,
          warnings: [`unknown TLS profile ${JSON.stringify(type)}, using Intermediate`]
        }
      : { settings, warnings: [] }
  )
}

interface Adherence {
  readonly honour: boolean
  readonly warnings: ReadonlyArray<string>
}

/** A word that is newer than we are is taken as the strictest one: better a client turned away than a weak server. */
const adherenceOf = (adherence: string): Adherence => {
  if (adherence === "" || adherence === "LegacyAdheringComponentsOnly") return { honour: false, warnings: [] }
  return {
    honour: true,
    warnings:
      adherence === "StrictAllComponents"
        ? []
        : [`unknown tlsAdherence ${JSON.stringify(adherence)}, treated like StrictAllComponents`]
  }
}

/**
 * Decides what the cluster asks for.
 *
 * @shape  (APIServer "cluster"; undefined when there is none) -> ClusterProfile
 * @errors TlsProfileInvalid: Custom without a custom profile or with an unknown version; to be honoured, and none of its
 *         ciphers is known
 * @source reference/operator.md 1.3
 */
export const resolveTlsProfile = (apiServer: ApiServer | undefined): Result.Result<ClusterProfile, TlsProfileInvalid> =>
  Result.flatMap(specOf(apiServer?.spec?.tlsSecurityProfile), ({ settings, warnings }) => {
    const adherence = adherenceOf(apiServer?.spec?.tlsAdherence ?? "")
    const iana = ianaNames(settings.ciphers)
    if (adherence.honour && settings.ciphers.length > 0 && iana.length === 0) {
      return Result.fail(
        new TlsProfileInvalid({
          detail: `all ${settings.ciphers.length} ciphers of the cluster's TLS profile are unknown: ${settings.ciphers.join(", ")}`
        })
      )
    }
    const missing =
      apiServer === undefined ? ["there is no apiservers.config.openshift.io/cluster, using default TLS settings"] : []
    return Result.succeed({
      ...settings,
      iana,
      honour: adherence.honour,
      warnings: [...missing, ...warnings, ...adherence.warnings]
    })
  })

/**
 * Decides what a server does about it.
 *
 * The cluster's profile wins over what the server was configured with when it has to be honoured: who asks for strictness
 * everywhere cannot know every component's file, and the file may date from before. Otherwise the file wins.
 *
 * @shape  (what the cluster asks for, if known; the server's own settings) -> TlsSettings; unknown ciphers are left out
 * @errors none
 * @source reference/operator.md 1.3; Q21
 */
export const servingTls = (profile: ClusterProfile | undefined, own: TlsSettings): TlsSettings =>
  profile?.honour === true
    ? {
        minTlsVersion: profile.minTlsVersion,
        ciphers: profile.ciphers.filter((cipher) => IANA.has(cipher)),
        groups: profile.groups
      }
    : own

/** `targetcsiconfig.servingInfo` of an observed configuration. */
export interface ObservedServingInfo {
  readonly minTLSVersion: string
  /** Of IANA. */
  readonly cipherSuites: ReadonlyArray<string>
}

/**
 * What the operand would be told. Unlike a server, it takes Intermediate for whatever is incomplete.
 *
 * @shape  (APIServer "cluster", if any) -> ObservedServingInfo
 * @errors none
 * @source reference/operator.md 3.5
 */
export const observeServingInfo = (apiServer: ApiServer | undefined): ObservedServingInfo => {
  const { custom, type } = apiServer?.spec?.tlsSecurityProfile ?? {}
  if (type === "Custom" && custom !== undefined) {
    return { minTLSVersion: custom.minTLSVersion ?? "", cipherSuites: ianaNames(custom.ciphers ?? []) }
  }
  const { ciphers, minTlsVersion } = PROFILES.get(type ?? "") ?? INTERMEDIATE
  return { minTLSVersion: minTlsVersion, cipherSuites: ianaNames(ciphers) }
}
