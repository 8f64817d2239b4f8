/**
 * What only the operator counts.
 *
 * @source reference/operator.md 1.11, Q23
 */
import { Effect, Metric } from "effect"

export interface BuildLabels {
  readonly major: string
  readonly minor: string
  readonly gitVersion: string
  readonly gitCommit: string
  readonly gitTreeState: string
  readonly buildDate: string
  readonly goVersion: string
  readonly compiler: string
  readonly platform: string
}

const DESCRIPTION = "A metric with a constant '1' value, labeled by what was built"

const gauge = (name: string, labels: Readonly<Record<string, string>>) =>
  Metric.update(Metric.withAttributes(Metric.gauge(name, { description: DESCRIPTION }), labels), 1)

/**
 * The two gauges that say which operator this is. The second was never exported by the operator before us.
 *
 * @shape  (the operator's namespace, labels) -> void
 * @errors none
 * @source reference/operator.md 1.11, Q23
 */
export const setBuildInfo = (namespace: string, labels: BuildLabels): Effect.Effect<void> => {
  const { gitCommit, gitVersion, major, minor } = labels
  // A name of a series begins with a letter.
  const prefix = namespace.replaceAll("-", "_").replace(/^(?=\d)/u, "_")
  return Effect.all(
    [
      gauge(`${prefix}_build_info`, { ...labels }),
      gauge("openshift_secrets_store_csi_driver_operator", { major, minor, gitCommit, gitVersion })
    ],
    { discard: true }
  )
}
