/**
 * What the definition of a custom resource demands of its objects: its schema as it is, and its rules, which are written
 * again here because nothing of ours reads CEL.
 *
 * @source reference/operator.md 2.2
 */
import { clusterCsiDriverCrd } from "../../schemas/crd/ClusterCSIDriverCrd.ts"
import { isObject, type JsonObject, metadataOf, objectAt, textAt } from "./KubernetesObject.ts"
import { faultsOf } from "./StructuralSchema.ts"

/** What an object has to be, and how it comes to be it. */
export interface Definition {
  readonly schema: JsonObject
  /** What the rules complain of. */
  readonly rules: (object: JsonObject, previous: JsonObject | undefined) => ReadonlyArray<string>
}

export const RULES_NOT_CHECKED =
  "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"

/**
 * @shape  (definition, object, as it was, the part that is written: "status" or all of it) -> what is wrong with it
 * @errors none
 */
export const definitionComplaints = (
  { rules, schema }: Definition,
  object: JsonObject,
  previous: JsonObject | undefined,
  subresource: string | undefined
): ReadonlyArray<string> => {
  const part = subresource ?? ""
  const properties = objectAt(schema, "properties")
  const faults =
    subresource === undefined
      ? faultsOf(object, schema, "", "")
      : faultsOf(object[part] ?? {}, objectAt(properties, part), part, part)
  const complaints = faults.map(({ complaint }) => complaint)
  return faults.some(({ hidesRules }) => hidesRules)
    ? [...complaints, RULES_NOT_CHECKED]
    : [...complaints, ...rules(object, previous)]
}

const DRIVER = "secrets-store.csi.k8s.io"

const at = (object: JsonObject, ...path: ReadonlyArray<string>): JsonObject =>
  path.reduce((part, key) => objectAt(part, key), object)

const invalid = (path: string, message: string) => `${path}: Invalid value: ${message}`

/** A field that is there without its discriminator, or the other way round. */
const union = (
  path: string,
  part: JsonObject,
  discriminator: string,
  value: string,
  field: string,
  message: string
): ReadonlyArray<string> =>
  (part[discriminator] === value) === (part[field] !== undefined) ? [] : [invalid(path, message)]

const driverRules = (object: JsonObject, previous: JsonObject | undefined): ReadonlyArray<string> => {
  const spec = objectAt(object, "spec")
  const config = objectAt(spec, "driverConfig")
  const isConfigured = isObject(spec["driverConfig"])
  const store = objectAt(config, "secretsStore")
  const [isOurs, isOurType] = [metadataOf(object)["name"] === DRIVER, config["driverType"] === "SecretsStore"]
  const tokens = (it: JsonObject) => textAt(at(it, "spec", "driverConfig", "secretsStore", "tokenRequests"), "type")
  const revision = (it: JsonObject) => Number(objectAt(it, "status")["latestAvailableRevision"] ?? 0)
  const path = "spec.driverConfig"
  const typed = (driverType: string, field: string) =>
    isConfigured
      ? union(
          path,
          config,
          "driverType",
          driverType,
          field,
          `${field} must be set if driverType is '${driverType}', but remain unset otherwise`
        )
      : []
  const inStore = (field: string, value: string, inner: string) =>
    isObject(store[field])
      ? union(
          `${path}.secretsStore.${field}`,
          store[field],
          "type",
          value,
          inner,
          `${inner} must be set when type is '${value}', and must not be set otherwise`
        )
      : []
  return [
    ...(isOurType && !isOurs ? [invalid("<nil>", `driverType 'SecretsStore' requires metadata.name '${DRIVER}'`)] : []),
    ...(isOurs && isConfigured && !isOurType
      ? [invalid("<nil>", `metadata.name '${DRIVER}' requires driverType 'SecretsStore'`)]
      : []),
    ...(previous !== undefined && tokens(previous) === "Managed" && tokens(object) !== "Managed"
      ? [invalid("<nil>", "tokenRequests type cannot be changed from Managed")]
      : []),
    ...typed("IBMCloud", "ibmcloud"),
    ...typed("SecretsStore", "secretsStore"),
    ...inStore("secretRotation", "Custom", "custom"),
    ...inStore("tokenRequests", "Managed", "managed"),
    ...(previous !== undefined && revision(object) < revision(previous)
      ? [invalid("status.latestAvailableRevision", `${revision(object)}: must only increase`)]
      : [])
  ]
}

const schemaOf = (crd: typeof clusterCsiDriverCrd): JsonObject => crd.spec.versions[0]?.schema.openAPIV3Schema ?? {}

export const clusterCsiDriverDefinition: Definition = { schema: schemaOf(clusterCsiDriverCrd), rules: driverRules }
