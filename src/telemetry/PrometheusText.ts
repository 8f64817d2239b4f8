/**
 * The metrics registry in Prometheus' text format 0.0.4, in the form that upstream's exporter gives it: families in the
 * order of their names, labels in the order of theirs with `le` last, numbers as Go prints them.
 *
 * Effect's own renderer is not used: it keeps the order of creation and prints numbers as JavaScript does.
 *
 * @source reference/driver.md 8.1, 8.2; https://prometheus.io/docs/instrumenting/exposition_formats
 */
import { Effect, Metric } from "effect"

/** Of the process itself, as the caller found it. */
export interface ProcessStats {
  readonly residentBytes: number
  readonly openFileDescriptors: number
  readonly cpuSeconds: number
  /** Seconds since the epoch. */
  readonly startTimeSeconds: number
}

interface Family {
  readonly type: "counter" | "gauge" | "histogram"
  readonly help: string | undefined
  readonly lines: Array<string>
}

/** A number as Go's strconv prints it with 'g' and the fewest digits. */
const formatNumber = (value: number | bigint): string => {
  const number = Number(value)
  if (Number.isNaN(number)) return "NaN"
  if (!Number.isFinite(number)) return number > 0 ? "+Inf" : "-Inf"
  const [mantissa = "", exponent = ""] = number.toExponential().split("e")
  const power = Number(exponent)
  if (power >= -4 && power < 6) return String(number)
  return `${mantissa}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`
}

const escapeHelp = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")
const escapeValue = (text: string): string => escapeHelp(text).replaceAll('"', '\\"')

const labelText = (attributes: Readonly<Record<string, string>>, bound?: string): string => {
  const labels = Object.entries(attributes)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}="${escapeValue(value)}"`)
  if (bound !== undefined) labels.push(`le="${bound}"`)
  return labels.length === 0 ? "" : `{${labels.join(",")}}`
}

const histogramLines = (
  name: string,
  attributes: Readonly<Record<string, string>>,
  { buckets, count, sum }: Metric.HistogramState
): ReadonlyArray<string> => {
  const labels = labelText(attributes)
  return [
    ...buckets.map(([bound, below]) => `${name}_bucket${labelText(attributes, formatNumber(bound))} ${below}`),
    `${name}_bucket${labelText(attributes, "+Inf")} ${count}`,
    `${name}_sum${labels} ${formatNumber(sum)}`,
    `${name}_count${labels} ${count}`
  ]
}

type Series = Omit<Family, "help"> | undefined

/** The driver has no frequencies and no summaries; they would need a form of their own. */
const seriesOf = (metric: Metric.Metric.Snapshot): Series => {
  const attributes = metric.attributes ?? {}
  switch (metric.type) {
    case "Counter":
      return { type: "counter", lines: [`${metric.id}${labelText(attributes)} ${formatNumber(metric.state.count)}`] }
    case "Gauge":
      return { type: "gauge", lines: [`${metric.id}${labelText(attributes)} ${formatNumber(metric.state.value)}`] }
    case "Histogram":
      return { type: "histogram", lines: [...histogramLines(metric.id, attributes, metric.state)] }
    case "Frequency":
    case "Summary":
      return undefined
  }
}

/** Upstream's exporter describes itself so, and dashboards join on it. */
const TARGET_INFO = labelText({
  service_name: "unknown_service:secrets-store-csi",
  telemetry_sdk_language: "go",
  telemetry_sdk_name: "opentelemetry",
  telemetry_sdk_version: "1.43.0"
})

const single = (
  name: string,
  type: Family["type"],
  help: string,
  value: number,
  labels = ""
): readonly [name: string, Family] => [name, { type, help, lines: [`${name}${labels} ${formatNumber(value)}`] }]

const processFamilies = (process: ProcessStats) => [
  single(
    "process_cpu_seconds_total",
    "counter",
    "Total user and system CPU time spent in seconds.",
    process.cpuSeconds
  ),
  single("process_open_fds", "gauge", "Number of open file descriptors.", process.openFileDescriptors),
  single("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", process.residentBytes),
  single(
    "process_start_time_seconds",
    "gauge",
    "Start time of the process since unix epoch in seconds.",
    process.startTimeSeconds
  )
]

interface PageOptions {
  /** Whether the page begins by saying what upstream's driver says of itself. */
  readonly targetInfo: boolean
}

/**
 * Renders a snapshot of the registry.
 *
 * @shape  (snapshot, the process' own numbers, if known; options) -> text, ending with a new line
 * @errors none
 */
const render = (
  snapshot: ReadonlyArray<Metric.Metric.Snapshot>,
  process: ProcessStats | undefined,
  { targetInfo }: PageOptions
): string => {
  const families = new Map<string, Family>([
    ...(targetInfo ? [single("target_info", "gauge", "Target metadata", 1, TARGET_INFO)] : []),
    ...(process === undefined ? [] : processFamilies(process))
  ])
  for (const metric of snapshot) {
    const series = seriesOf(metric)
    if (series === undefined) continue
    const family = families.get(metric.id)
    if (family === undefined) families.set(metric.id, { ...series, help: metric.description })
    else if (family.type === series.type) family.lines.push(...series.lines)
  }
  return [...families]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { help, lines, type }]) => {
      const head = help === undefined ? "" : `# HELP ${name} ${escapeHelp(help)}\n`
      // The lines of a histogram belong together and come in order.
      const body = type === "histogram" ? lines : lines.toSorted()
      return `${head}# TYPE ${name} ${type}\n${body.join("\n")}\n`
    })
    .join("")
}

/** Renders the registry of the running program. */
export const exposition = (
  process?: ProcessStats,
  options: PageOptions = { targetInfo: true }
): Effect.Effect<string> => Effect.map(Metric.snapshot, (snapshot) => render(snapshot, process, options))
