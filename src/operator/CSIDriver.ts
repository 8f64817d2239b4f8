/**
 * Decides about the CSIDriver object: mounts fail while it does not exist, and the audiences in it may be the only copy
 * of what an administrator has set. It is changed in place, and deleted only for what Kubernetes cannot change.
 *
 * @source reference/operator.md 4.4, Q10, Q12, Q39; reference/defects.md B4, B5
 */
import { Option, Schema } from "effect"
import { type ClusterCSIDriver, TokenRequest } from "../../schemas/ClusterCSIDriver.ts"
import { isEqual, type JsonObject, listAt, objectAt } from "../../schemas/Json.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { Sha256 } from "../ports/Digest.ts"
import * as GoJson from "./GoJson.ts"
import * as Merge from "./Merge.ts"
import { Annotation, PROFILE_LABEL } from "./Names.ts"
import type { OperandSettings } from "./Settings.ts"

/** What a CSIDriver held when it was last seen, and which one that was. */
const Remembered = Schema.Struct({ uid: Schema.String, tokenRequests: Schema.Array(TokenRequest) })
type Remembered = typeof Remembered.Type

const decodeRemembered = Schema.decodeUnknownOption(Schema.fromJsonString(Remembered))
const isTokenRequest = Schema.is(TokenRequest)

/** @shape (annotation of the ClusterCSIDriver) -> what it says; undefined when it is absent or not readable */
export const rememberedIn = (clusterCsiDriver: ClusterCSIDriver | undefined): Remembered | undefined =>
  Option.getOrUndefined(decodeRemembered(clusterCsiDriver?.metadata.annotations?.[Annotation.rememberedTokens]))

const tokensIn = (csiDriver: Manifest): ReadonlyArray<TokenRequest> =>
  listAt(objectAt(csiDriver, "spec"), "tokenRequests").filter(isTokenRequest)

/**
 * The audiences that are not ours to choose: those of the live object. One that somebody else has made since, without
 * any, has lost them rather than given them up.
 */
const keptTokens = (live: Manifest | undefined, remembered: Remembered | undefined): ReadonlyArray<TokenRequest> => {
  const last = remembered?.tokenRequests ?? []
  if (live === undefined) return last
  const tokens = tokensIn(live)
  return tokens.length === 0 && remembered !== undefined && remembered.uid !== live.metadata.uid ? last : tokens
}

/**
 * What the ClusterCSIDriver's annotation has to say before anything is done to the CSIDriver.
 *
 * @shape (settings, live, remembered) -> text; null to take the annotation away; undefined when it is right
 */
export const toRemember = (
  { tokenRequests }: OperandSettings,
  live: Manifest | undefined,
  clusterCsiDriver: ClusterCSIDriver
): string | null | undefined => {
  const text = clusterCsiDriver.metadata.annotations?.[Annotation.rememberedTokens]
  const remembered = rememberedIn(clusterCsiDriver)
  // The list is in the ClusterCSIDriver itself.
  if (tokenRequests !== undefined) return text === undefined ? undefined : null
  if (live === undefined) return undefined
  const kept = keptTokens(live, remembered)
  if (kept.length === 0) return text === undefined ? undefined : null
  // They are not in it yet: a note in its name would take their absence for somebody's wish.
  if (tokensIn(live).length === 0) return undefined
  const wanted = { uid: live.metadata.uid ?? "", tokenRequests: kept }
  return isEqual(remembered, wanted) ? undefined : JSON.stringify(wanted)
}

/** Fields that Kubernetes cannot change; the order of modes says nothing. */
const isImmutableChange = (live: JsonObject, required: JsonObject): boolean => {
  const modes = (spec: JsonObject) => listAt(spec, "volumeLifecycleModes").map(String).sort()
  // Absent is true to Kubernetes.
  return (
    (live["attachRequired"] ?? true) !== (required["attachRequired"] ?? true) || !isEqual(modes(live), modes(required))
  )
}

const FIELDS = ["podInfoOnMount", "fsGroupPolicy", "requiresRepublish", "tokenRequests"] as const

const isSameField = (live: unknown, required: unknown): boolean =>
  Array.isArray(required) && required.length === 0 ? !Array.isArray(live) || live.length === 0 : isEqual(live, required)

/**
 * What is required of the CSIDriver, with the annotation that older operators compare.
 *
 * @shape (manifest, settings, live, remembered, digest) -> manifest
 */
export const render = (
  manifest: Manifest,
  { rotation, tokenRequests }: OperandSettings,
  live: Manifest | undefined,
  remembered: Remembered | undefined,
  sha256: Sha256
): Manifest => {
  const tokens = tokenRequests ?? keptTokens(live, remembered)
  const spec = { ...objectAt(manifest, "spec"), requiresRepublish: rotation.enabled, tokenRequests: tokens }
  const hash = sha256(GoJson.encode(spec, GoJson.CSI_DRIVER_SPEC))
  const { metadata } = manifest
  const annotations = { ...metadata.annotations, [Annotation.specHash]: hash }
  // An administrator may allow more than the manifest does.
  const profile = live?.metadata.labels?.[PROFILE_LABEL] ?? metadata.labels?.[PROFILE_LABEL]
  const labels = { ...metadata.labels, ...(profile === undefined ? {} : { [PROFILE_LABEL]: profile }) }
  return { ...manifest, metadata: { ...metadata, labels, annotations }, spec }
}

const withoutEmptyTokens = (spec: JsonObject): JsonObject => {
  const { tokenRequests, ...rest } = spec
  return Array.isArray(tokenRequests) && tokenRequests.length > 0 ? { ...rest, tokenRequests } : rest
}

/**
 * @shape  (required: as rendered, live) -> Change; Recreate only for attachRequired and volumeLifecycleModes
 * @errors none: every pair has a decision
 * @source reference/operator.md 4.4, Q10, Q12
 */
export const decide = (required: Manifest, live: Manifest | undefined): Merge.Change => {
  const wanted = objectAt(required, "spec")
  if (live === undefined) {
    return { _tag: "Create", object: Merge.forCreation({ ...required, spec: withoutEmptyTokens(wanted) }) }
  }
  if (live.metadata.deletionTimestamp !== undefined) return Merge.UNCHANGED
  const has = objectAt(live, "spec")
  const metadata = Merge.mergeMetadata(live.metadata, required.metadata)
  const object = { ...live, metadata, spec: withoutEmptyTokens({ ...has, ...wanted }) }
  if (isImmutableChange(has, wanted)) {
    return { _tag: "Recreate", object: Merge.forRecreation(object), uid: live.metadata.uid ?? "" }
  }
  const changed = FIELDS.filter((field) => !isSameField(has[field], wanted[field]))
  if (changed.length === 0 && isEqual(metadata, live.metadata)) return Merge.UNCHANGED
  return {
    _tag: "Update",
    object,
    ...(changed.length === 0 ? {} : { detail: `changed: ${changed.map((field) => `spec.${field}`).join(", ")}` })
  }
}
