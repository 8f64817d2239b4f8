/**
 * The operand's objects as they are wanted, in the order in which they are applied: whoever runs the driver, and what it
 * may do, before the driver.
 *
 * @source reference/operator.md 3.4, 6, Q29, Q42
 */
import { Result, Schema } from "effect"
import { isEqual, isObject, listAt, objectAt } from "../../schemas/Json.ts"
import { Manifest } from "../../schemas/Manifest.ts"
import type { OperatorConfig } from "../../schemas/OperatorConfig.ts"
import { fillIn } from "./DaemonSet.ts"
import { idOf, type OperandId } from "./Kinds.ts"
import { DAEMON_SET, DRIVER_NAME, MANAGED_BY_LABEL, OPERATOR_NAME, PROFILE_LABEL } from "./Names.ts"

export const SYNC_BINDING_FILE = "rbac/secret_sync_binding.yaml"
export const DRIVER_ROLE_FILE = "rbac/secretproviderclasses_role.yaml"
export const CSI_DRIVER_FILE = "csidriver.yaml"
const EGRESS_FILE = "network-policy/allow-egress-to-api-server-operand.yaml"

interface Step {
  readonly file: string
  /** Only where the group is served that the object is about. */
  readonly group?: "security.openshift.io"
}

const STEPS: ReadonlyArray<Step> = [
  { file: "node_sa.yaml" },
  { file: "cabundle_cm.yaml" },
  { file: "rbac/privileged_role.yaml", group: "security.openshift.io" },
  { file: "rbac/node_privileged_binding.yaml", group: "security.openshift.io" },
  // Before the ClusterRole, which an older operator gave these rights in all namespaces.
  { file: SYNC_BINDING_FILE },
  { file: DRIVER_ROLE_FILE },
  { file: "rbac/secretproviderclasses_binding.yaml" },
  { file: CSI_DRIVER_FILE },
  { file: "network-policy/allow-ingress-to-metrics-operand.yaml" },
  { file: EGRESS_FILE },
  { file: "network-policy/default-deny-operand.yaml" }
]

/** An object of the operand before its live one has been looked at. */
interface Wanted {
  readonly file: string
  readonly manifest: Manifest
}

export type Rendered = Result.Result<Wanted, { readonly file: string; readonly error: string }>

export interface Surroundings {
  readonly syncNamespaces: ReadonlyArray<string>
  readonly servedGroups: ReadonlySet<string>
  /** Beside those of the manifest. */
  readonly apiServerPorts: ReadonlyArray<number>
}

const isManifest = Schema.is(Manifest)

const filled = (manifest: Manifest, values: Readonly<Record<string, string>>): Manifest => {
  const object = fillIn(manifest, values)
  // Texts stay texts: what was a manifest is one.
  return isManifest(object) ? object : manifest
}

/** Namespaces that enforce a pod security level would refuse every pod with such a volume. */
const isWithoutProfile = (csiDriver: Manifest): boolean =>
  listAt(objectAt(csiDriver, "spec"), "volumeLifecycleModes").includes("Ephemeral") &&
  csiDriver.metadata.labels?.[PROFILE_LABEL] === undefined

const SHARED_KINDS = ["ClusterRole", "ClusterRoleBinding"]

/** Others give these names to theirs: ours are known by a label. */
const marked = (manifest: Manifest): Manifest =>
  SHARED_KINDS.includes(manifest.kind)
    ? {
        ...manifest,
        metadata: { ...manifest.metadata, labels: { ...manifest.metadata.labels, [MANAGED_BY_LABEL]: OPERATOR_NAME } }
      }
    : manifest

/** The driver reaches the API server wherever the operator sees it. */
const withPorts = (manifest: Manifest, ports: ReadonlyArray<number>): Manifest => {
  const spec = objectAt(manifest, "spec")
  const [rule] = listAt(spec, "egress").filter(isObject)
  if (rule === undefined) return manifest
  const known = listAt(rule, "ports")
  const added = [...new Set(ports)]
    .sort((one, other) => one - other)
    .map((port) => ({ port, protocol: "TCP" }))
    .filter((port) => !known.some((other) => isEqual(other, port)))
  return { ...manifest, spec: { ...spec, egress: [{ ...rule, ports: [...known, ...added] }] } }
}

/**
 * Everything but the DaemonSet, which `DaemonSet.render` makes.
 *
 * @shape  (manifests by file, config, surroundings) -> wanted, in order; a failure per asset that is missing or wrong
 * @errors text with the file's name
 */
export const staticObjects = (
  manifests: ReadonlyMap<string, Manifest>,
  { namespace }: Pick<OperatorConfig, "namespace">,
  { apiServerPorts, servedGroups, syncNamespaces }: Surroundings
): ReadonlyArray<Rendered> =>
  STEPS.filter(({ group }) => group === undefined || servedGroups.has(group)).flatMap(
    ({ file }): ReadonlyArray<Rendered> => {
      const manifest = manifests.get(file)
      if (manifest === undefined) return [Result.fail({ file, error: `asset ${file} is missing` })]
      if (file === SYNC_BINDING_FILE) {
        return [...syncNamespaces]
          .sort()
          .map((name) =>
            Result.succeed({ file, manifest: filled(manifest, { NAMESPACE: namespace, SYNC_NAMESPACE: name }) })
          )
      }
      const object = marked(filled(manifest, { NAMESPACE: namespace }))
      if (file === CSI_DRIVER_FILE && isWithoutProfile(object)) {
        const error = `CSIDriver ${DRIVER_NAME} supports Ephemeral volume lifecycle but is missing required label ${PROFILE_LABEL}`
        return [Result.fail({ file, error })]
      }
      return [Result.succeed({ file, manifest: file === EGRESS_FILE ? withPorts(object, apiServerPorts) : object })]
    }
  )

export const daemonSetId = (namespace: string): OperandId => ({ kind: "DaemonSet", namespace, name: DAEMON_SET })

export const csiDriverId: OperandId = { kind: "CSIDriver", namespace: "", name: DRIVER_NAME }

/**
 * The objects that are looked at: all that may exist, wherever the operator runs. RoleBindings for Secrets are found by
 * their label.
 */
export const operandIds = (
  manifests: ReadonlyMap<string, Manifest>,
  { namespace }: Pick<OperatorConfig, "namespace">
): ReadonlyArray<OperandId> => [
  ...STEPS.flatMap(({ file }) => {
    const manifest = manifests.get(file)
    return manifest === undefined || file === SYNC_BINDING_FILE
      ? []
      : [idOf(filled(manifest, { NAMESPACE: namespace }))]
  }),
  daemonSetId(namespace)
]
