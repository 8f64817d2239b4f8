/**
 * The address of the CSI listener.
 *
 * @source driver v1.6.0, pkg/secrets-store/server.go, parseEndpoint; reference/driver.md 2.1, Q33
 */
import { Result } from "effect"

export interface Endpoint {
  /** As given, in its own case: "unix", "tcp", "TCP". */
  readonly scheme: string
  readonly address: string
}

/**
 * @shape  ("unix://tmp/csi.sock") -> { scheme: "unix", address: "tmp/csi.sock" }
 * @errors `invalid endpoint: <endpoint>`
 */
export const parseEndpoint = (endpoint: string): Result.Result<Endpoint, string> => {
  const [, scheme, address] = /^(unix|tcp):\/\/(.+)$/isu.exec(endpoint) ?? []
  return scheme === undefined || address === undefined
    ? Result.fail(`invalid endpoint: ${endpoint}`)
    : Result.succeed({ scheme, address })
}

/** Where a unix endpoint's socket is: its address always counts from the root. */
export const socketPath = ({ address }: Endpoint): string => `/${address.replace(/^\/+/u, "")}`
