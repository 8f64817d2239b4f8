/**
 * How the programs say which version they are.
 *
 * @source driver v1.6.0, pkg/version/version.go; reference/driver.md 1.5; reference/operator.md 1.11
 */
import { OPERATOR_NAME } from "../operator/Names.ts"
import type { BuildLabels } from "../telemetry/OperatorMetrics.ts"
import type { BuildInfo } from "./buildInfo.ts"

/**
 * What `--version` prints, without the new line.
 *
 * @shape  (build) -> one line of JSON
 * @errors none
 */
export const versionLine = ({ time, vcs, version }: BuildInfo): string =>
  JSON.stringify({ BuildVersion: version, GitCommit: vcs, BuildDate: time })

/** Go's name of a processor where Node has another one. */
const GO_ARCH: ReadonlyMap<string, string> = new Map([
  ["x64", "amd64"],
  ["ia32", "386"],
  ["ppc64", "ppc64le"]
])

interface Host {
  readonly platform: string
  readonly arch: string
}

const platformOf = ({ arch, platform }: Host): string => `${platform}/${GO_ARCH.get(arch) ?? arch}`

/**
 * The User-Agent of every request to the API server.
 *
 * @shape  (build, Node's platform and arch) -> "csi-secrets-store/controller/<version> (<os>/<arch>) <vcs>/<time>"
 * @errors none
 */
export const userAgent = ({ time, vcs, version }: BuildInfo, host: Host): string =>
  `csi-secrets-store/controller/${version} (${platformOf(host)}) ${vcs}/${time}`

/**
 * The same, of the operator.
 *
 * @shape  (build, Node's platform and arch) -> "secrets-store-csi-driver-operator/<version> (<os>/<arch>) <vcs>"
 * @errors none
 * @source reference/operator.md 1.9
 */
export const operatorUserAgent = ({ vcs, version }: BuildInfo, host: Host): string =>
  `${OPERATOR_NAME}/${version} (${platformOf(host)}) ${vcs}`.trimEnd()

/**
 * What the operator's build metrics and /version say. The labels are those of programs in Go; what there is none of is
 * empty, and the compiler is what runs us.
 *
 * @shape  (build, Node's platform, arch and version) -> labels
 * @errors none
 * @source reference/operator.md 1.11
 */
export const buildLabels = (
  { time, vcs, version }: BuildInfo,
  host: Host & { readonly version: string }
): BuildLabels => {
  const [, major = "", minor = ""] = /^v?(\d+)\.(\d+)/u.exec(version) ?? []
  return {
    major,
    minor,
    gitVersion: version,
    gitCommit: vcs,
    gitTreeState: "",
    buildDate: time,
    goVersion: "",
    compiler: `node ${host.version}`,
    platform: platformOf(host)
  }
}
