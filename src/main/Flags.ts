/**
 * The driver's command line: every flag with its default, and what a command line asks for. Flags that upstream has
 * keep their names, defaults and meanings; "ours" come after them.
 *
 * @source driver v1.6.0, cmd/secrets-store-csi-driver/main.go; reference/driver.md 1.2, 1.3, 1.5, 1.6, Q22
 */
import type { DriverConfig } from "../../schemas/Config.ts"
import { formatGoDuration } from "../../schemas/GoDuration.ts"
import * as Go from "./GoFlags.ts"

export const PROGRAM = "secrets-store-csi"

const MIB = 1024 * 1024

const upstream = {
  endpoint: Go.string("endpoint", "unix://tmp/csi.sock", "address of the CSI socket"),
  driverName: Go.string("drivername", "secrets-store.csi.k8s.io", "name of the CSI driver"),
  nodeId: Go.string("nodeid", "", "name of the node that the driver runs on"),
  logFormatJson: Go.bool("log-format-json", false, "write log lines in JSON"),
  providerVolume: Go.string(
    "provider-volume",
    "/var/run/secrets-store-csi-providers",
    "directory of provider sockets, searched last"
  ),
  additionalProviderVolumePaths: Go.string(
    "additional-provider-volume-paths",
    "/etc/kubernetes/secrets-store-csi-providers",
    "comma-separated directories of provider sockets, searched first and in this order"
  ),
  metricsAddr: Go.string("metrics-addr", ":8095", 'address of /metrics; "0" is off, empty means :8080'),
  rotationEnabled: Go.bool("enable-secret-rotation", false, "refresh mounted volumes while their pods run"),
  rotationPollInterval: Go.duration("rotation-poll-interval", 120_000, "how often a volume is refreshed"),
  pprofEnabled: Go.bool("enable-pprof", false, "serve profiles of the process"),
  pprofPort: Go.int("pprof-port", 6065, "port of the profiles, on every interface"),
  maxCallRecvBytes: Go.int("max-call-recv-msg-size", 4 * MIB, "largest answer that is taken from a provider, in bytes"),
  version: Go.bool("version", false, "print the version in JSON and exit"),
  providerHealthCheck: Go.bool("provider-health-check", false, "ask connected providers for their version regularly"),
  providerHealthCheckInterval: Go.duration("provider-health-check-interval", 120_000, "how often providers are asked"),
  metricsBackend: Go.string("metrics-backend", "Prometheus", "kind of metrics; only Prometheus exists"),
  kubeconfig: Go.string("kubeconfig", "", "path of a kubeconfig file, for use outside a cluster")
}

// Only -v has an effect. The others are accepted because manifests carry them; everything is written to stderr.
const klog = {
  verbosity: Go.klogLevel("v", "verbosity of the log"),
  logtostderr: Go.bool("logtostderr", true, "accepted without effect: the log always goes to stderr"),
  alsologtostderr: Go.bool("alsologtostderr", false, "accepted without effect"),
  stderrthreshold: Go.klogSeverity("stderrthreshold", 2, "accepted without effect"),
  logDir: Go.string("log_dir", "", "accepted without effect"),
  logFile: Go.string("log_file", "", "accepted without effect"),
  logFileMaxSize: Go.uint("log_file_max_size", 1800, "accepted without effect"),
  addDirHeader: Go.bool("add_dir_header", false, "accepted without effect"),
  skipHeaders: Go.bool("skip_headers", false, "accepted without effect"),
  skipLogHeaders: Go.bool("skip_log_headers", false, "accepted without effect"),
  oneOutput: Go.bool("one_output", false, "accepted without effect"),
  vmodule: Go.klogModules("vmodule", "accepted without effect"),
  logBacktraceAt: Go.klogTraceLocation("log_backtrace_at", "accepted without effect")
}

const ours = {
  kubeletRegistrationPath: Go.string(
    "kubelet-registration-path",
    "",
    "path of the CSI socket on the host; when given, the driver registers itself with the kubelet"
  ),
  pluginRegistrationPath: Go.string(
    "plugin-registration-path",
    "/registration",
    "directory that the kubelet watches for registration sockets"
  ),
  healthAddr: Go.string("health-addr", "", "address of /healthz and /readyz; empty is off"),
  providerWaitTimeout: Go.duration(
    "provider-wait-timeout",
    10_000,
    "how long a mount waits for the socket of its provider to appear; 0 does not wait"
  ),
  tmpfsSize: Go.quantity(
    "tmpfs-size",
    'size limit of one volume, such as 64Mi; empty is the larger of 64Mi and four times max-call-recv-msg-size, "0" leaves it to the kernel'
  ),
  volumeMountGroup: Go.bool(
    "volume-mount-group",
    false,
    "advertise VOLUME_MOUNT_GROUP and give files the fsGroup of their pod"
  ),
  returnRotationErrors: Go.bool(
    "return-rotation-errors",
    false,
    "tell the kubelet, too, when a mounted volume could not be refreshed; for kubelets with the fix of kubernetes/kubernetes#121271"
  ),
  refreshOnClassChange: Go.bool(
    "refresh-on-class-change",
    false,
    "refresh the volumes of a SecretProviderClass at once when its provider or parameters change, not at their next refresh; frozen ones stay as they are"
  ),
  providerMaxMounts: Go.int(
    "provider-max-mounts",
    32,
    "how many first mounts a provider is asked for at a time; 0 is no limit"
  ),
  providerMaxRefreshes: Go.int(
    "provider-max-refreshes",
    4,
    "how many refreshes a provider is asked for at a time; 0 is no limit"
  ),
  providerRefreshRate: Go.int(
    "provider-refresh-rate",
    10,
    "how many refreshes that are due a provider is asked for in a second; 0 is no limit"
  ),
  shutdownGracePeriod: Go.duration(
    "shutdown-grace-period",
    25_000,
    "how long calls under way may go on once the driver has been told to stop"
  ),
  memoryTrimInterval: Go.duration(
    "memory-trim-interval",
    10_000,
    "how often a driver that has worked gives freed memory back to the system; 0 is never"
  )
}

/** Every flag, by origin, in the order in which documents list them. */
export const DRIVER_FLAGS = {
  upstream: Object.values<Go.Flag<unknown>>(upstream),
  klog: Object.values<Go.Flag<unknown>>(klog),
  ours: Object.values<Go.Flag<unknown>>(ours)
}
const ALL_FLAGS = [...DRIVER_FLAGS.upstream, ...DRIVER_FLAGS.klog, ...DRIVER_FLAGS.ours]

/** Flags of older releases, and what became of them. */
const REMOVED: ReadonlyMap<string, string> = new Map([
  ["debug", "remove -debug; -v=<n> sets the verbosity"],
  ["log-report-caller", "remove -log-report-caller; every log line names its caller"],
  ["min-provider-version", "remove -min-provider-version; providers are called by gRPC and state their version"],
  ["grpc-supported-providers", "remove -grpc-supported-providers; every provider with a socket is found by itself"],
  ["filtered-watch-secret", "remove -filtered-watch-secret; it has had no effect since release 0.3"]
])

export type DriverCommand =
  | { readonly _tag: "Run"; readonly config: DriverConfig }
  /** For stderr; exit status 0. */
  | { readonly _tag: "Help"; readonly text: string }
  | { readonly _tag: "Version" }
  /** For stderr, without a final new line. */
  | { readonly _tag: "Refused"; readonly exitCode: 1 | 2; readonly message: string }

const refused = (exitCode: 1 | 2, ...lines: ReadonlyArray<string>): DriverCommand => ({
  _tag: "Refused",
  exitCode,
  message: lines.join("\n")
})

/** klog is asked level by level up to this one. */
const VERBOSITY_MAX = 999_999

/** A negative duration asks for what 0 asks for. */
const toMillis = (nanos: bigint): number => (nanos < 0n ? 0 : Number(nanos) / 1e6)

const directories = (additional: string, last: string): ReadonlyArray<string> => [
  ...new Set([...additional.split(","), last].map((path) => path.trim()).filter((path) => path !== ""))
]

/**
 * Decides what a command line asks for.
 *
 * @shape  (words after the program's name) -> Run with a config, Help, Version, or Refused
 * @errors Refused: exit status 2 for what cannot be parsed, 1 for what was understood and cannot be done. The message
 *         is Go's or upstream's line, then "remedy: ...", then for status 2 the usage
 */
export const parseDriver = (words: ReadonlyArray<string>): DriverCommand => {
  const parsed = Go.parse(ALL_FLAGS, words, REMOVED)
  if (parsed._tag === "Help") return { _tag: "Help", text: Go.usage(PROGRAM, ALL_FLAGS) }
  if (parsed._tag === "Refused") {
    return refused(2, parsed.message, `remedy: ${parsed.remedy}`, Go.usage(PROGRAM, ALL_FLAGS).trimEnd())
  }
  const { valueOf } = parsed
  // In upstream's order: the log is set up before the version is printed, everything else after it.
  const verbosity = valueOf(klog.verbosity)
  if (verbosity < 0) {
    return refused(
      1,
      "invalid log level, valid choices are the empty string, info, debug, trace and all",
      `remedy: give -v 0 or a positive number, instead of ${verbosity}`
    )
  }
  if (valueOf(upstream.version)) return { _tag: "Version" }
  const backend = valueOf(upstream.metricsBackend)
  if (backend.toLowerCase() !== "prometheus") {
    return refused(
      1,
      `unsupported metrics backend ${backend}`,
      "remedy: set -metrics-backend=Prometheus, or remove the flag; -metrics-addr=0 switches metrics off"
    )
  }
  const healthInterval = valueOf(upstream.providerHealthCheckInterval)
  if (valueOf(upstream.providerHealthCheck) && healthInterval <= 0n) {
    return refused(
      1,
      `non-positive interval ${formatGoDuration(healthInterval)} for flag -provider-health-check-interval`,
      "remedy: give -provider-health-check-interval a positive duration, or remove -provider-health-check"
    )
  }
  const maxCallRecvBytes = Math.max(0, valueOf(upstream.maxCallRecvBytes))
  const defaultTmpfsBytes = Math.min(Math.max(64 * MIB, 4 * maxCallRecvBytes), Number.MAX_SAFE_INTEGER)
  return {
    _tag: "Run",
    config: {
      endpoint: valueOf(upstream.endpoint),
      driverName: valueOf(upstream.driverName),
      nodeId: valueOf(upstream.nodeId),
      logFormatJson: valueOf(upstream.logFormatJson),
      verbosity: Math.min(verbosity, VERBOSITY_MAX),
      providerDirectories: directories(
        valueOf(upstream.additionalProviderVolumePaths),
        valueOf(upstream.providerVolume)
      ),
      metricsAddr: valueOf(upstream.metricsAddr) || ":8080",
      rotationEnabled: valueOf(upstream.rotationEnabled),
      rotationPollIntervalMillis: toMillis(valueOf(upstream.rotationPollInterval)),
      pprofEnabled: valueOf(upstream.pprofEnabled),
      pprofPort: valueOf(upstream.pprofPort),
      maxCallRecvBytes,
      providerHealthCheck: valueOf(upstream.providerHealthCheck),
      providerHealthCheckIntervalMillis: toMillis(healthInterval),
      kubeconfig: valueOf(upstream.kubeconfig),
      kubeletRegistrationPath: valueOf(ours.kubeletRegistrationPath),
      pluginRegistrationDirectory: valueOf(ours.pluginRegistrationPath),
      healthAddr: valueOf(ours.healthAddr),
      providerWaitMillis: toMillis(valueOf(ours.providerWaitTimeout)),
      tmpfsSizeBytes: valueOf(ours.tmpfsSize) ?? defaultTmpfsBytes,
      volumeMountGroup: valueOf(ours.volumeMountGroup),
      returnRotationErrors: valueOf(ours.returnRotationErrors),
      refreshOnClassChange: valueOf(ours.refreshOnClassChange),
      providerMountsMax: Math.max(0, valueOf(ours.providerMaxMounts)),
      providerRefreshesMax: Math.max(0, valueOf(ours.providerMaxRefreshes)),
      providerRefreshesPerSecond: Math.max(0, valueOf(ours.providerRefreshRate)),
      shutdownGraceMillis: toMillis(valueOf(ours.shutdownGracePeriod)),
      memoryTrimIntervalMillis: toMillis(valueOf(ours.memoryTrimInterval))
    }
  }
}
