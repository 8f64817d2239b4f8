/**
 * What a provider is asked, made of the class and the kubelet's request. The result holds tokens and credentials and
 * is `Redacted` throughout.
 *
 * @source driver v1.6.0, pkg/secrets-store/nodeserver.go; reference/driver.md 2.7 #15-18, reference/wire.md (b)
 */
import { Redacted } from "effect"
import { type NodePublishVolumeRequest, TOKENS_KEY } from "../../schemas/Csi.ts"
import type { MountRequest, ObjectVersion } from "../../schemas/Provider.ts"

/** What providers parse as a file mode: 0644 in decimal, since some of them read decimal digits only. */
const PERMISSION = "420"

const ESCAPES: Readonly<Record<string, string>> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029"
}

const byteOrder = ([a]: readonly [string, string], [b]: readonly [string, string]) => (a < b ? -1 : a > b ? 1 : 0)

/** A string map as Go's encoder writes it: keys sorted, and safe inside HTML. */
export const goJson = (entries: Iterable<readonly [string, string]>): string =>
  JSON.stringify(Object.fromEntries([...entries].sort(byteOrder))).replace(
    /[<>&\u2028\u2029]/gu,
    (character) => ESCAPES[character] ?? character
  )

/**
 * The service account tokens of a request: those among the secrets, even if empty, before those of the volume context.
 *
 * @shape (request) -> the kubelet's JSON, or undefined when there is none or an empty one
 */
export const tokensOf = (
  request: Pick<NodePublishVolumeRequest, "secrets" | "serviceAccountTokens">
): Redacted.Redacted<string> | undefined => {
  const tokens = request.secrets[TOKENS_KEY] ?? request.serviceAccountTokens
  return tokens === undefined || Redacted.value(tokens) === "" ? undefined : tokens
}

/**
 * The provider's request for one volume: parameters of the class, overridden by the whole volume context (Q28), and
 * the tokens.
 *
 * @shape  (request, parameters, currentObjectVersions) -> MountRequest
 * @errors none
 */
export const providerRequest = (
  request: NodePublishVolumeRequest,
  parameters: Readonly<Record<string, string>>,
  currentObjectVersions: ReadonlyArray<ObjectVersion>
): MountRequest => {
  const attributes = new Map([...Object.entries(parameters), ...Object.entries(request.volumeContext)])
  const tokens = tokensOf(request)
  if (tokens !== undefined) attributes.set(TOKENS_KEY, Redacted.value(tokens))
  const secrets = Object.entries(request.secrets).map(([key, value]) => [key, Redacted.value(value)] as const)
  return {
    attributes: Redacted.make(goJson(attributes)),
    secrets: Redacted.make(secrets.length === 0 ? "null" : goJson(secrets)),
    targetPath: request.targetPath,
    permission: PERMISSION,
    currentObjectVersions
  }
}
