/**
 * The node DaemonSet: rendered from its manifest, and brought into the live one without replacing a pod for nothing.
 *
 * A live spec that says the same as ours is left alone, whoever wrote it last; `kubectl rollout restart` is carried over.
 *
 * @source reference/operator.md 3.6, 3.7, 4.3, 5, Q3, Q11, Q13, Q15, Q19, Q40
 */
import { Result, Schema } from "effect"
import { isEqual, isObject, type JsonObject, listAt, objectAt, textAt, without } from "../../schemas/Json.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { StringMap } from "../../schemas/Meta.ts"
import { OperandOverrides } from "../../schemas/OperandOverrides.ts"
import type { Images } from "../../schemas/OperatorConfig.ts"
import type { Sha256 } from "../ports/Digest.ts"
import { withDefaults } from "./DaemonSetDefaults.ts"
import * as GoJson from "./GoJson.ts"
import { configMapHash, configMapHashKey } from "./Hash.ts"
import * as Merge from "./Merge.ts"
import { Annotation, CA_CONFIG_MAP, DRIVER_CONTAINER } from "./Names.ts"
import { formatInterval, type OperandSettings } from "./Settings.ts"

const CA_KEY = "ca-bundle.crt"
const CA_VOLUME = "non-standard-root-system-trust-ca-bundle"
const CA_MOUNT_PATH = "/etc/pki/ca-trust/extracted/pem"

/** What the DaemonSet is made of. */
export interface Ingredients {
  readonly manifests: ReadonlyMap<string, Manifest>
  readonly namespace: string
  readonly images: Images
  readonly settings: OperandSettings
  /** `spec.unsupportedConfigOverrides` as it is. */
  readonly overrides: unknown
  /** Data of the ConfigMap with the trusted certificates; undefined when there is none. */
  readonly caBundle: StringMap | undefined
  /** NO_PROXY, HTTP_PROXY, HTTPS_PROXY, as far as they are set; undefined while that is not known. */
  readonly proxy: StringMap | undefined
}

/** @shape (text, values by placeholder's name) -> text; an unknown placeholder stays */
const fill = (text: string, values: StringMap): string =>
  text.replace(/\$\{([A-Z_]+)\}/gu, (placeholder, name: string) => values[name] ?? placeholder)

/** @shape (JSON, values) -> the same with all its texts filled in */
export const fillIn = (value: unknown, values: StringMap): unknown => {
  if (typeof value === "string") return fill(value, values)
  if (Array.isArray(value)) return value.map((item) => fillIn(item, values))
  if (!isObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, fillIn(item, values)]))
}

const decodeOverrides = Schema.decodeUnknownResult(OperandOverrides, { onExcessProperty: "error" })

const overridesOf = (overrides: unknown): Result.Result<OperandOverrides, string> => {
  const ours = isObject(overrides) ? overrides["secretsStoreDriver"] : undefined
  return ours === undefined
    ? Result.succeed({})
    : Result.mapError(
        decodeOverrides(ours),
        (error) => `spec.unsupportedConfigOverrides.secretsStoreDriver: ${error.message.replace(/\s+/gu, " ")}`
      )
}

/** Which of the two forms the images ask for. */
const fileOf = ({ driver, livenessProbe, registrar }: Images): Result.Result<string, string> => {
  if (driver === "") return Result.fail("environment variable DRIVER_IMAGE of the operator is not set")
  if (registrar === "" && livenessProbe === "") return Result.succeed("node_single.yaml")
  if (registrar !== "" && livenessProbe !== "") return Result.succeed("node.yaml")
  const [missing, given] =
    registrar === ""
      ? ["NODE_DRIVER_REGISTRAR_IMAGE", "LIVENESS_PROBE_IMAGE"]
      : ["LIVENESS_PROBE_IMAGE", "NODE_DRIVER_REGISTRAR_IMAGE"]
  return Result.fail(
    `environment variable ${missing} of the operator is not set, and ${given} is: set both for upstream's sidecars, or neither`
  )
}

/** Replaces the first argument that begins alike, or adds one. */
const withArgument = (args: ReadonlyArray<unknown>, argument: string): ReadonlyArray<unknown> => {
  const prefix = argument.slice(0, argument.indexOf("=") + 1)
  const index = args.findIndex((arg) => typeof arg === "string" && arg.startsWith(prefix))
  return index < 0 ? [...args, argument] : args.with(index, argument)
}

const argumentsOf = ({ enabled, intervalSeconds }: OperandSettings["rotation"]): ReadonlyArray<string> => [
  `--enable-secret-rotation=${enabled}`,
  `--rotation-poll-interval=${formatInterval(intervalSeconds)}`
]

const mapDriverContainer = (podSpec: JsonObject, change: (container: JsonObject) => JsonObject): JsonObject => ({
  ...podSpec,
  containers: listAt(podSpec, "containers").map((container) =>
    isObject(container) && container["name"] === DRIVER_CONTAINER ? change(container) : container
  )
})

const caVolume: JsonObject = {
  name: CA_VOLUME,
  configMap: { name: CA_CONFIG_MAP, items: [{ key: CA_KEY, path: "tls-ca-bundle.pem" }] }
}
const caMount: JsonObject = { name: CA_VOLUME, mountPath: CA_MOUNT_PATH, readOnly: true }

const templateOf = (daemonSet: Manifest): JsonObject => objectAt(objectAt(daemonSet, "spec"), "template")
const podSpecOf = (daemonSet: Manifest): JsonObject => objectAt(templateOf(daemonSet), "spec")
const templateAnnotations = (daemonSet: Manifest): JsonObject =>
  objectAt(objectAt(templateOf(daemonSet), "metadata"), "annotations")

/** Annotations of the object and of its pods, and the pods' spec. */
const changed = (
  daemonSet: Manifest,
  annotations: StringMap,
  change: (podSpec: JsonObject) => JsonObject
): Manifest => {
  const template = templateOf(daemonSet)
  const templateMetadata = objectAt(template, "metadata")
  return {
    ...daemonSet,
    metadata: {
      ...daemonSet.metadata,
      ...(Object.keys(annotations).length === 0
        ? {}
        : { annotations: { ...daemonSet.metadata.annotations, ...annotations } })
    },
    spec: {
      ...objectAt(daemonSet, "spec"),
      template: {
        ...template,
        metadata: {
          ...templateMetadata,
          annotations: { ...objectAt(templateMetadata, "annotations"), ...annotations }
        },
        spec: change(objectAt(template, "spec"))
      }
    }
  }
}

/** The trusted certificates: mounted, and the pods are replaced when they change. */
const withCaBundle = (
  daemonSet: Manifest,
  namespace: string,
  caBundle: StringMap | undefined,
  sha256: Sha256
): Manifest => {
  if (caBundle?.[CA_KEY] === undefined) return daemonSet
  const annotations = { [configMapHashKey(sha256, namespace, CA_CONFIG_MAP)]: configMapHash(caBundle) }
  return changed(daemonSet, annotations, (podSpec) =>
    mapDriverContainer({ ...podSpec, volumes: [...listAt(podSpec, "volumes"), caVolume] }, (container) => ({
      ...container,
      volumeMounts: [...listAt(container, "volumeMounts"), caMount]
    }))
  )
}

const withProxy = (daemonSet: Manifest, proxy: StringMap): Manifest => {
  const variables = Object.keys(proxy)
    .sort()
    .map((name) => ({ name, value: proxy[name] }))
  return variables.length === 0
    ? daemonSet
    : changed(daemonSet, {}, (podSpec) =>
        mapDriverContainer(podSpec, (container) => ({ ...container, env: [...listAt(container, "env"), ...variables] }))
      )
}

const withOverrides = (daemonSet: Manifest, overrides: OperandOverrides): Manifest =>
  changed(daemonSet, {}, (podSpec) =>
    mapDriverContainer(
      {
        ...podSpec,
        ...(overrides.nodeSelector === undefined
          ? {}
          : { nodeSelector: { ...overrides.nodeSelector, ...objectAt(podSpec, "nodeSelector") } }),
        ...(overrides.tolerations === undefined ? {} : { tolerations: overrides.tolerations }),
        ...(overrides.priorityClassName === undefined ? {} : { priorityClassName: overrides.priorityClassName })
      },
      (container) => ({
        ...container,
        ...(overrides.resources === undefined ? {} : { resources: overrides.resources }),
        args: (overrides.args ?? []).reduce(withArgument, listAt(container, "args"))
      })
    )
  )

/**
 * What is required of the DaemonSet, without the annotations that depend on the live one.
 *
 * @shape  (ingredients, digest) -> manifest
 * @errors text: an image, manifest or override that is missing or wrong, and where it is set
 * @source reference/operator.md 5.2, 3.7
 */
export const render = (ingredients: Ingredients, sha256: Sha256): Result.Result<Manifest, string> => {
  const { images, manifests, namespace, settings } = ingredients
  return Result.gen(function* () {
    const file = yield* fileOf(images)
    const overrides = yield* overridesOf(ingredients.overrides)
    const manifest = manifests.get(file)
    if (manifest === undefined) return yield* Result.fail(`asset ${file} is missing`)
    const values = {
      NAMESPACE: namespace,
      DRIVER_IMAGE: images.driver,
      NODE_DRIVER_REGISTRAR_IMAGE: images.registrar,
      LIVENESS_PROBE_IMAGE: images.livenessProbe,
      LOG_LEVEL: String(settings.logLevel)
    }
    const filled: Manifest = {
      ...manifest,
      metadata: { ...manifest.metadata, namespace },
      spec: fillIn(manifest["spec"], values)
    }
    const rotated = changed(filled, {}, (podSpec) =>
      mapDriverContainer(podSpec, (container) => ({
        ...container,
        args: argumentsOf(settings.rotation).reduce(withArgument, listAt(container, "args"))
      }))
    )
    const containers = listAt(podSpecOf(rotated), "containers")
    if (!containers.some((container) => isObject(container) && container["name"] === DRIVER_CONTAINER)) {
      return yield* Result.fail(
        `container "${DRIVER_CONTAINER}" not found in DaemonSet ${namespace}/${manifest.metadata.name}`
      )
    }
    const trusting =
      overrides.trustedCABundle === true ? withCaBundle(rotated, namespace, ingredients.caBundle, sha256) : rotated
    if (overrides.proxy !== true) return withOverrides(trusting, overrides)
    // Without it every pod would be replaced, and once more when it can be read.
    if (ingredients.proxy === undefined) {
      return yield* Result.fail(
        "the cluster's proxy is asked for by spec.unsupportedConfigOverrides and cannot be read"
      )
    }
    return withOverrides(withProxy(trusting, ingredients.proxy), overrides)
  })
}

/** How many pods there are, and of which generation the counts are. */
export interface Rollout {
  readonly generation: number
  readonly observedGeneration: number
  readonly desired: number
  readonly updated: number
  readonly available: number
  readonly unavailable: number
  readonly ready: number
  readonly isStable: boolean
}

const numberAt = (object: JsonObject, key: string): number => {
  const value = object[key]
  return typeof value === "number" ? value : 0
}

/** @shape (live DaemonSet) -> its counts */
export const rolloutOf = (daemonSet: Manifest): Rollout => {
  const status = objectAt(daemonSet, "status")
  const generation = daemonSet.metadata.generation ?? 0
  return {
    generation,
    observedGeneration: numberAt(status, "observedGeneration"),
    desired: numberAt(status, "desiredNumberScheduled"),
    updated: numberAt(status, "updatedNumberScheduled"),
    available: numberAt(status, "numberAvailable"),
    unavailable: numberAt(status, "numberUnavailable"),
    ready: numberAt(status, "numberReady"),
    isStable: daemonSet.metadata.annotations?.[Annotation.stableGeneration] === String(generation)
  }
}

/**
 * Why a rollout is not over. A generation that was once complete is not looked at again: a node that restarts is no
 * rollout.
 *
 * @shape  (rollout) -> message; undefined when it is over
 * @source reference/operator.md 3.6
 */
export const progressOf = (rollout: Rollout): string | undefined => {
  if (rollout.isStable) return undefined
  if (rollout.generation !== rollout.observedGeneration) return "Waiting for DaemonSet to act on changes"
  if (rollout.updated < rollout.desired) return `Waiting for DaemonSet to update ${rollout.desired} node pods`
  return rollout.unavailable > 0 ? "Waiting for DaemonSet to deploy node pods" : undefined
}

const withAnnotations = (manifest: Manifest, annotations: StringMap): Manifest => ({
  ...manifest,
  metadata: { ...manifest.metadata, annotations: { ...manifest.metadata.annotations, ...annotations } }
})

const specHash = (daemonSet: Manifest, sha256: Sha256): string =>
  sha256(GoJson.encode(daemonSet["spec"], GoJson.DAEMON_SET_SPEC))

/** A template's restart is somebody's wish, whatever we want of the rest. */
const withRestart = (required: Manifest, live: Manifest): Manifest => {
  const restartedAt = textAt(templateAnnotations(live), Annotation.restartedAt)
  if (restartedAt === undefined) return required
  const { metadata } = required
  return { ...changed(required, { [Annotation.restartedAt]: restartedAt }, (podSpec) => podSpec), metadata }
}

const isSameSpec = (required: Manifest, live: Manifest): boolean => {
  // Old servers wrote null for a template's time, which decoding leaves as it is.
  const cleaned = (spec: JsonObject): JsonObject => {
    const template = objectAt(spec, "template")
    return {
      ...spec,
      template: { ...template, metadata: without(objectAt(template, "metadata"), "creationTimestamp") }
    }
  }
  return isEqual(cleaned(withDefaults(objectAt(withRestart(required, live), "spec"))), cleaned(objectAt(live, "spec")))
}

/**
 * An older operator mounted nothing of a volume with certificates that it gave to every pod. While nothing else changes,
 * it stays: no pod is replaced to be rid of it.
 */
const withLeftovers = (required: Manifest, live: Manifest): Manifest => {
  const isOurs = ({ name }: JsonObject) => name === CA_VOLUME
  const volumes = listAt(podSpecOf(live), "volumes").filter(isObject).filter(isOurs)
  const wanted = listAt(podSpecOf(required), "volumes").filter(isObject).some(isOurs)
  if (volumes.length === 0 || wanted) return required
  const annotations = Object.fromEntries(
    Object.entries(templateAnnotations(live)).flatMap(([key, value]) =>
      key.startsWith(Annotation.dependencyPrefix) && typeof value === "string" ? [[key, value]] : []
    )
  )
  return changed(required, annotations, (podSpec) => ({
    ...podSpec,
    volumes: [...listAt(podSpec, "volumes"), ...volumes.map(leftoverVolume)]
  }))
}

/** As it was written: the API server has added the mode. */
const leftoverVolume = (volume: JsonObject): JsonObject =>
  isEqual(volume, { ...caVolume, configMap: { ...objectAt(caVolume, "configMap"), defaultMode: 0o644 } })
    ? caVolume
    : volume

/** The annotation that a generation, once complete, is known by. */
const stableAnnotation = (live: Manifest): StringMap => {
  const rollout = rolloutOf(live)
  return rollout.isStable || progressOf(rollout) !== undefined
    ? {}
    : { [Annotation.stableGeneration]: String(rollout.generation) }
}

/** Of what the pods do not depend on any more, as keys that take the annotation away. */
const withoutDependencies = (chosen: Manifest, live: Manifest): StringMap =>
  Object.fromEntries(
    Object.keys(live.metadata.annotations ?? {})
      .filter((key) => key.startsWith(Annotation.dependencyPrefix))
      .filter((key) => chosen.metadata.annotations?.[key] === undefined)
      .map((key) => [`${key}-`, ""])
  )

/**
 * @shape  (required: as rendered, live, generation of the live one after our last write, digest) -> Change
 * @errors none: every pair has a decision
 * @source reference/operator.md 4.3, Q11, Q3
 */
export const decide = (
  required: Manifest,
  live: Manifest | undefined,
  writtenGeneration: number,
  sha256: Sha256
): Merge.Change => {
  if (live === undefined) {
    const wanted = withAnnotations(required, { [Annotation.specHash]: specHash(required, sha256) })
    return { _tag: "Create", object: Merge.forCreation(wanted) }
  }
  if (live.metadata.deletionTimestamp !== undefined) return Merge.UNCHANGED
  const withOld = withLeftovers(required, live)
  const chosen = isSameSpec(required, live) || !isSameSpec(withOld, live) ? required : withOld
  const hash = specHash(chosen, sha256)
  const hashes = live.metadata.annotations?.[Annotation.specHash] === hash
  // What we wrote ourselves says the same, even where the API server keeps it in words that we do not know.
  const isSame = isSameSpec(chosen, live) || (hashes && live.metadata.generation === writtenGeneration)
  const annotations = { [Annotation.specHash]: hash, ...stableAnnotation(live), ...withoutDependencies(chosen, live) }
  const wanted = withAnnotations(chosen, annotations)
  const metadata = Merge.mergeMetadata(live.metadata, wanted.metadata)
  if (isSame && isEqual(metadata, live.metadata)) return Merge.UNCHANGED
  const spec = isSame ? live["spec"] : withRestart(chosen, live)["spec"]
  return { _tag: "Update", object: { ...live, metadata, spec } }
}
