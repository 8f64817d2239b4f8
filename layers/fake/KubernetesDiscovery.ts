/**
 * What an API server says of the groups and kinds that it serves.
 *
 * @source k8s.io/apimachinery, pkg/apis/meta/v1: APIGroupList, APIGroup, APIVersions, APIResourceList
 */
import type { JsonObject } from "./KubernetesObject.ts"
import { apiVersionOf, type ResourceType } from "./KubernetesResources.ts"

const VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
const STATUS_VERBS = ["get", "patch", "update"]

const resourcesOf = (types: ReadonlyArray<ResourceType>): ReadonlyArray<JsonObject> =>
  types
    .flatMap(({ kind, namespaced, plural, statusApart }) => [
      { name: plural, singularName: kind.toLowerCase(), namespaced, kind, verbs: VERBS },
      ...(statusApart === true
        ? [{ name: `${plural}/status`, singularName: "", namespaced, kind, verbs: STATUS_VERBS }]
        : [])
    ])
    .sort((one, other) => (one.name < other.name ? -1 : 1))

const groupOf = (name: string, types: ReadonlyArray<ResourceType>): JsonObject => {
  const names = [...new Set(types.flatMap(({ versions }) => versions))]
  const versions = names.map((version) => ({ groupVersion: apiVersionOf(name, version), version }))
  return { name, versions, preferredVersion: versions[0] }
}

/**
 * @shape  (served kinds, path) -> the document there, or undefined for every other path
 * @errors none
 */
export const discover = (types: ReadonlyArray<ResourceType>, path: string): JsonObject | undefined => {
  const [empty, root, ...rest] = path.split("/")
  if (empty !== "" || (root !== "api" && root !== "apis")) return undefined
  const isCore = root === "api"
  const [group, version, ...more] = isCore ? ["", ...rest] : rest
  if (more.length > 0) return undefined
  const known = types.filter((type) => (type.group === "") === isCore)
  if (version === undefined && isCore) {
    return { kind: "APIVersions", versions: [...new Set(known.flatMap(({ versions }) => versions))] }
  }
  if (group === undefined) {
    const groups = Map.groupBy(known, (type) => type.group)
    return {
      kind: "APIGroupList",
      apiVersion: "v1",
      groups: [...groups].map(([name, inGroup]) => groupOf(name, inGroup))
    }
  }
  const inGroup = known.filter((type) => type.group === group)
  if (version === undefined) {
    return inGroup.length === 0 ? undefined : { kind: "APIGroup", apiVersion: "v1", ...groupOf(group, inGroup) }
  }
  const served = inGroup.filter(({ versions }) => versions.includes(version))
  if (served.length === 0) return undefined
  const groupVersion = apiVersionOf(group, version)
  return { kind: "APIResourceList", apiVersion: "v1", groupVersion, resources: resourcesOf(served) }
}
