/**
 * Kubernetes quantities of bytes: "64Mi", "1.5G", "1e6", "67108864".
 *
 * @source https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
 */
import { Result } from "effect"

const SHAPE = /^\+?(\d+\.?\d*|\.\d+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d{1,2})?$/u
const BINARY = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
const DECIMAL = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"]

const factorOf = (suffix: string): number => {
  const binary = BINARY.indexOf(suffix)
  if (binary >= 0) return 1024 ** (binary + 1)
  const decimal = DECIMAL.indexOf(suffix)
  return decimal >= 0 ? 1000 ** (decimal - DECIMAL.indexOf("")) : 10 ** Number(suffix.slice(1))
}

/**
 * Reads a size.
 *
 * @shape  (text) -> bytes, rounded up
 * @units  bytes, at most Number.MAX_SAFE_INTEGER
 * @errors a text saying what a quantity is; negative ones are refused
 */
export const parseQuantityBytes = (text: string): Result.Result<number, string> => {
  const [, number, suffix = ""] = SHAPE.exec(text) ?? []
  return number === undefined
    ? Result.fail("not a quantity of bytes")
    : Result.succeed(Math.min(Math.ceil(Number(number) * factorOf(suffix)), Number.MAX_SAFE_INTEGER))
}
