// What a publisher of these images changes, and the names that everybody relies on. Nothing else of the manifests names
// an image, a version or an address.
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

export const root = join(dirname(fileURLToPath(import.meta.url)), "../..")

const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
const env = process.env

/** Releases set these to pullspecs with digests; only then do bundles claim to work without a way to the internet. */
export const IMAGES = {
  operator: env["OPERATOR_IMAGE"] || `ghcr.io/secrets-store-csi/operator:${version}`,
  driver: env["DRIVER_IMAGE"] || `ghcr.io/secrets-store-csi/driver:${version}`,
  bundle: env["BUNDLE_IMAGE"] || `ghcr.io/secrets-store-csi/operator-bundle:${version}`,
  catalog: env["CATALOG_IMAGE"] || `ghcr.io/secrets-store-csi/operator-catalog:${version}`,
  // Upstream's sidecars: both or none.
  registrar: env["NODE_DRIVER_REGISTRAR_IMAGE"] || "",
  livenessProbe: env["LIVENESS_PROBE_IMAGE"] || ""
}

export const REPOSITORY = "https://github.com/secrets-store-csi/secrets-store-csi"
export const PROVIDER = { name: "Secrets Store CSI", url: REPOSITORY }
export const MAINTAINER = { name: "Secrets Store CSI maintainers", email: "maintainers@secrets-store-csi.example" }
export const CREATED_AT = "2026-11-28T00:00:00Z"

export const OPERATOR = "secrets-store-csi-driver-operator"
export const DRIVER = "secrets-store.csi.k8s.io"
export const SECRET_SYNC = "secrets-store-csi-driver-secret-sync"
export const METRICS_SERVICE = `${OPERATOR}-metrics`
export const SERVING_CERT = `${OPERATOR}-metrics-serving-cert`
export const METRICS_READER = `${OPERATOR}-metrics-reader`
export const NODE_APP = "secrets-store-csi-driver-node"
export const NODE_ACCOUNT = "secrets-store-csi-driver-node-sa"

/** OpenShift's is fixed: policies and monitoring of the platform know it. */
export const NAMESPACES = { openshift: "openshift-cluster-csi-drivers", kubernetes: "secrets-store-csi-driver" }

/**
 * The bundle takes the place of the operator it replaces in the same package and channel, whose last version is 5.0.0.
 * So its version is that of this project with 5 added to the major number: 0.1.0 is 5.1.0. It grows when ours grows, and
 * its skipRange, which ends before itself, has every version of the other operator and every earlier one of ours.
 */
const [major, ...rest] = version.split(".")
export const BUNDLE = {
  version: [Number(major) + 5, ...rest].join("."),
  skipsFrom: "4.13.0-0",
  channel: "stable",
  minKubeVersion: "1.26.0",
  /** The newest OpenShift that the replaced operator was released for; ours has been tried on none. */
  maxOpenShiftVersion: "5.1"
}
