// The operand's manifests and the CustomResourceDefinitions, as they are checked in, with their placeholders filled in.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parse } from "yaml"
import { root } from "./place.mjs"

/** One manifest of assets/driver. A placeholder that is left over is a mistake. */
export const operand = (path, values = {}) => {
  const text = readFileSync(join(root, "assets/driver", path), "utf8")
  const filled = Object.entries(values).reduce((it, [name, value]) => it.replaceAll(`\${${name}}`, value), text)
  const [left] = /\$\{\w+\}/u.exec(filled) ?? []
  if (left !== undefined) throw new Error(`${path}: ${left} has no value`)
  return parse(filled)
}

const CRDS = join(root, "assets/crds")
export const DRIVER_CRDS = [
  "secrets-store.csi.x-k8s.io_secretproviderclasses.yaml",
  "secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml"
]
/** OpenShift has the first already. */
export const KUBERNETES_CRDS = ["operator.openshift.io_clustercsidrivers.yaml", ...DRIVER_CRDS]

export const crd = (name) => parse(readFileSync(join(CRDS, name), "utf8"))
