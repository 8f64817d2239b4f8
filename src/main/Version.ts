/**
 * How the driver says which version it is.
 *
 * @source driver v1.6.0, pkg/version/version.go; reference/driver.md 1.5
 */
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

/**
 * The User-Agent of every request to the API server.
 *
 * @shape  (build, Node's platform and arch) -> "csi-secrets-store/controller/<version> (<os>/<arch>) <vcs>/<time>"
 * @errors none
 */
export const userAgent = (
  { time, vcs, version }: BuildInfo,
  host: { readonly platform: string; readonly arch: string }
): string =>
  `csi-secrets-store/controller/${version} (${host.platform}/${GO_ARCH.get(host.arch) ?? host.arch}) ${vcs}/${time}`
