/**
 * What the operator does, out of its flags, its config file, its environment and its pod's namespace.
 *
 * @source reference/operator.md 1.4, 1.5, 1.8, Q13, Q14, Q22, Q33
 */
import { Result, Schema } from "effect"
import { parseDocument } from "yaml"
import { OperatorConfigInvalid } from "../../schemas/errors/OperatorConfigInvalid.ts"
import { GenericOperatorConfig } from "../../schemas/GenericOperatorConfig.ts"
import type { OperatorConfig } from "../../schemas/OperatorConfig.ts"
import { LEASE, OPERATOR_NAME } from "../operator/Names.ts"
import { DEFAULT_TLS, isTlsVersion, opensslNameOf, TLS_VERSIONS, type TlsSettings } from "../operator/TlsProfile.ts"
import type { OperatorFlags } from "./OperatorFlags.ts"

export const NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
const SERVING_CERTIFICATE = {
  certFile: "/var/run/secrets/serving-cert/tls.crt",
  keyFile: "/var/run/secrets/serving-cert/tls.key"
}
/** Every interface, of both families: what Go opens for 0.0.0.0. */
const LISTEN = ":8443"
const METRICS_USER = "system:serviceaccount:openshift-monitoring:prometheus-k8s"

export interface OperatorSettings {
  readonly operator: OperatorConfig
  readonly kubeconfig: string
  readonly verbosity: number
  readonly listen: string
  /** Served as soon as both files are there; until then a certificate of our own is. */
  readonly certificate: { readonly certFile: string; readonly keyFile: string }
  /** Where the cluster does not ask for others. */
  readonly tls: TlsSettings
  /** May read /metrics without being asked about. */
  readonly metricsUser: string
  readonly authenticationDisabled: boolean
  readonly authorizationDisabled: boolean
  /** A change of one of them ends the process. */
  readonly terminateOnFiles: ReadonlyArray<string>
  /** For the log. */
  readonly warnings: ReadonlyArray<string>
}

const decode = Schema.decodeUnknownResult(Schema.toCodecGoJson(GenericOperatorConfig))

/**
 * Reads a config file.
 *
 * @shape  (path, for errors; content) -> GenericOperatorConfig; an empty file asks for nothing
 * @errors OperatorConfigInvalid: the file and the field
 */
export const parseConfigFile = (
  path: string,
  content: string
): Result.Result<GenericOperatorConfig, OperatorConfigInvalid> => {
  const invalid = (detail: string) =>
    new OperatorConfigInvalid({
      source: path,
      detail: detail.replace(/\s+/gu, " ").trim(),
      remedy: "correct the file that --config names, or remove the flag"
    })
  return Result.try({
    try: (): unknown => {
      const document = parseDocument(content, { prettyErrors: false })
      const [error] = document.errors
      if (error !== undefined) throw error
      return document.toJS() ?? {}
    },
    catch: (cause) => invalid(cause instanceof Error ? cause.message : "not YAML")
  }).pipe(Result.flatMap((value) => Result.mapError(decode(value), (error) => invalid(error.message))))
}

type ServingInfo = NonNullable<GenericOperatorConfig["servingInfo"]>

const tlsOf = (
  { cipherSuites = [], minTLSVersion = "" }: ServingInfo,
  invalid: (field: string, detail: string) => OperatorConfigInvalid
): Result.Result<TlsSettings, OperatorConfigInvalid> => {
  const version = minTLSVersion === "" ? DEFAULT_TLS.minTlsVersion : minTLSVersion
  if (!isTlsVersion(version)) {
    return Result.fail(
      invalid("minTLSVersion", `unknown version ${JSON.stringify(version)}; known are ${TLS_VERSIONS.join(", ")}`)
    )
  }
  const unknown = cipherSuites.filter((name) => opensslNameOf(name) === undefined)
  if (unknown.length > 0) return Result.fail(invalid("cipherSuites", `unknown cipher suites: ${unknown.join(", ")}`))
  return Result.succeed({
    minTlsVersion: version,
    ciphers:
      cipherSuites.length === 0 ? DEFAULT_TLS.ciphers : cipherSuites.flatMap((name) => opensslNameOf(name) ?? []),
    groups: []
  })
}

const certificateOf = (
  { certFile = "", keyFile = "" }: ServingInfo,
  invalid: (field: string, detail: string) => OperatorConfigInvalid
): Result.Result<OperatorSettings["certificate"], OperatorConfigInvalid> => {
  if (certFile === "" && keyFile === "") return Result.succeed(SERVING_CERTIFICATE)
  if (certFile === "") return Result.fail(invalid("certFile", "is missing beside keyFile"))
  return keyFile === ""
    ? Result.fail(invalid("keyFile", "is missing beside certFile"))
    : Result.succeed({ certFile, keyFile })
}

/** Left out on purpose: nobody has been seen to use them, and each would be a second way to do what there is one for. */
const IGNORED = [
  "bindNetwork",
  "clientCA",
  "namedCertificates",
  "maxRequestsInFlight",
  "requestTimeoutSeconds"
] as const

const isEmpty = (value: unknown): boolean =>
  value === undefined || value === "" || value === 0 || (Array.isArray(value) && value.length === 0)

const IGNORED_VARIABLES = ["OPENSHIFT_ON_PANIC", "OPENSHIFT_PROFILE"]

const LABEL = /^[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?$/u
const SUBDOMAIN = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*$/u
/** Beyond it, the finalizer's prefix is too long for a label's. */
const OPERATOR_NAME_LENGTH_MAX = 200

export interface Sources {
  readonly flags: OperatorFlags
  /** Of `flags.config`. */
  readonly file: GenericOperatorConfig
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Content of `NAMESPACE_FILE`, if there is one. */
  readonly namespaceFile: string | undefined
  readonly version: string
}

const namespaceOf = ({ flags, namespaceFile = "" }: Sources): Result.Result<string, OperatorConfigInvalid> => {
  const isGiven = flags.namespace !== ""
  const namespace = isGiven ? flags.namespace : namespaceFile.trim()
  if (LABEL.test(namespace)) return Result.succeed(namespace)
  return Result.fail(
    new OperatorConfigInvalid({
      source: isGiven ? "--namespace" : NAMESPACE_FILE,
      detail: namespace === "" ? "the namespace is not known" : `${JSON.stringify(namespace)} is no namespace`,
      remedy: "give --namespace, the namespace that the operator runs in and the driver is to be installed to"
    })
  )
}

const operatorNameOf = ({ environment }: Sources): Result.Result<string, OperatorConfigInvalid> => {
  const name = environment["OPERATOR_NAME"] || OPERATOR_NAME
  return SUBDOMAIN.test(name) && name.length <= OPERATOR_NAME_LENGTH_MAX
    ? Result.succeed(name)
    : Result.fail(
        new OperatorConfigInvalid({
          source: "OPERATOR_NAME",
          detail: `${JSON.stringify(name)} cannot be the prefix of a finalizer`,
          remedy: `unset OPERATOR_NAME, or set it to ${OPERATOR_NAME}`
        })
      )
}

/**
 * Decides what the operator does. Flags win over the file; of images, an unset one is not refused here but reported as
 * Degraded later, where administrators look.
 *
 * @shape  (sources) -> OperatorSettings
 * @errors OperatorConfigInvalid: the namespace is not known, or a field of the file or a variable makes no sense
 * @source reference/operator.md 1.4, 1.8
 */
export const settle = (sources: Sources): Result.Result<OperatorSettings, OperatorConfigInvalid> =>
  Result.gen(function* () {
    const { environment, file, flags, version } = sources
    const { leaderElection = {}, servingInfo = {} } = file
    const invalid = (field: string, detail: string) =>
      new OperatorConfigInvalid({
        source: `${flags.config}: servingInfo.${field}`,
        detail,
        remedy: "correct the field, or remove it"
      })
    const namespace = yield* namespaceOf(sources)
    const operatorName = yield* operatorNameOf(sources)
    const tls = yield* tlsOf(servingInfo, invalid)
    const certificate = yield* certificateOf(servingInfo, invalid)
    return {
      operator: {
        namespace,
        images: {
          driver: environment["DRIVER_IMAGE"] ?? "",
          registrar: environment["NODE_DRIVER_REGISTRAR_IMAGE"] ?? "",
          livenessProbe: environment["LIVENESS_PROBE_IMAGE"] ?? ""
        },
        version,
        operatorName,
        podName: environment["POD_NAME"] ?? "",
        lease: { namespace: leaderElection.namespace || namespace, name: leaderElection.name || LEASE }
      },
      kubeconfig: flags.kubeconfig,
      verbosity: flags.verbosity,
      listen: flags.listen || servingInfo.bindAddress || LISTEN,
      certificate,
      tls,
      metricsUser: environment["METRICS_ALLOWED_USER"] || METRICS_USER,
      authenticationDisabled: file.authentication?.disabled ?? false,
      authorizationDisabled: file.authorization?.disabled ?? false,
      terminateOnFiles: [...new Set([...flags.terminateOnFiles, ...(flags.config === "" ? [] : [flags.config])])],
      warnings: [
        ...IGNORED.filter((field) => !isEmpty(servingInfo[field])).map(
          (field) => `${flags.config}: servingInfo.${field} has no effect`
        ),
        ...IGNORED_VARIABLES.filter((name) => !isEmpty(environment[name])).map((name) => `${name} has no effect`)
      ]
    }
  })
