/**
 * The node driver's settings, read once from the command line. Durations are in milliseconds, sizes in bytes.
 *
 * @source reference/driver.md 1.2; rows marked "ours" do not exist upstream
 */
import { Schema } from "effect"

export const DriverConfig = Schema.Struct({
  /** CSI listener, "unix://..." or "tcp://...". */
  endpoint: Schema.String,
  driverName: Schema.String,
  nodeId: Schema.String,
  logFormatJson: Schema.Boolean,
  /** klog's -v. */
  verbosity: Schema.Int,
  /** Provider socket directories in search order: the additional ones first. */
  providerDirectories: Schema.Array(Schema.String),
  /** "0" is off. */
  metricsAddr: Schema.String,
  rotationEnabled: Schema.Boolean,
  rotationPollIntervalMillis: Schema.Finite,
  pprofEnabled: Schema.Boolean,
  pprofPort: Schema.Int,
  maxCallRecvBytes: Schema.Int,
  providerHealthCheck: Schema.Boolean,
  providerHealthCheckIntervalMillis: Schema.Finite,
  /** Empty: in-cluster, or the KUBECONFIG variable, or ~/.kube/config. */
  kubeconfig: Schema.String,

  /** Ours: path of the CSI socket on the host; registers with the kubelet when not empty. */
  kubeletRegistrationPath: Schema.String,
  /** Ours: directory that the kubelet watches for registration sockets. */
  pluginRegistrationDirectory: Schema.String,
  /** Ours: listener of /healthz and /readyz; empty is off. */
  healthAddr: Schema.String,
  /** Ours: how long a publish waits for a provider's socket to appear; 0 does not wait. */
  providerWaitMillis: Schema.Finite,
  /** Ours: size bound of one volume; 0 leaves it to the kernel (half of the memory). */
  tmpfsSizeBytes: Schema.Int,
  /** Ours: advertise VOLUME_MOUNT_GROUP and give files the pod's fsGroup. */
  volumeMountGroup: Schema.Boolean,
  /** Ours: a refresh that fails is an error of the republish that asked for it, too. */
  returnRotationErrors: Schema.Boolean,
  /** Ours: an edit of a class is fetched at once, not at the next refresh. */
  refreshOnClassChange: Schema.Boolean,
  /** Ours: first mounts that one provider is asked for at a time; 0 is no limit. */
  providerMountsMax: Schema.Int,
  /** Ours: refreshes that one provider is asked for at a time; 0 is no limit. */
  providerRefreshesMax: Schema.Int,
  /** Ours: refreshes that are due, of one provider, a second; 0 is no limit. */
  providerRefreshesPerSecond: Schema.Int,
  /** Ours: how long calls may go on after SIGTERM. */
  shutdownGraceMillis: Schema.Finite,
  /** Ours: how often freed memory is given back to the system; 0 is never. */
  memoryTrimIntervalMillis: Schema.Finite
})
export type DriverConfig = typeof DriverConfig.Type
