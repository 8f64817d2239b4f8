/**
 * From what was observed to what is done, in order. Each action carries the version that it was planned on and may be
 * done twice; a settled cluster has an empty plan. What is to be reported is planned when it is known what came of it.
 *
 * @source reference/operator.md 3.4, 3.6, 3.9, 3.10, Q1, Q4, Q7, Q13, Q35, Q41, Q42
 */
import { Result } from "effect"
import type { ClusterCSIDriver } from "../../schemas/ClusterCSIDriver.ts"
import { objectAt, textAt } from "../../schemas/Json.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { StringMap } from "../../schemas/Meta.ts"
import * as CSIDriver from "./CSIDriver.ts"
import * as DaemonSet from "./DaemonSet.ts"
import * as Desired from "./Desired.ts"
import * as Foreign from "./Foreign.ts"
import { describe, idOf, keyOf, type OperandId } from "./Kinds.ts"
import { type Management, managementOf } from "./Management.ts"
import * as Merge from "./Merge.ts"
import { Annotation, CA_CONFIG_MAP, DAEMON_SET, finalizerOf, SYNC_LABEL } from "./Names.ts"
import { type Fixed, liveOf, type Observed, SYNC_BINDINGS } from "./Observed.ts"
import { settingsOf } from "./Settings.ts"

export type Action =
  | {
      readonly _tag: "EnsureFinalizer" | "RemoveFinalizer"
      readonly key: string
      readonly requires: ReadonlyArray<string>
      readonly resourceVersion: string
      /** All that are to be there. */
      readonly finalizers: ReadonlyArray<string>
    }
  /** Puts the audiences of the CSIDriver on record, in an annotation of the ClusterCSIDriver; null takes it away. */
  | {
      readonly _tag: "Remember"
      readonly key: string
      readonly requires: ReadonlyArray<string>
      readonly resourceVersion: string
      readonly value: string | null
    }
  | {
      readonly _tag: "Apply"
      readonly key: string
      /** Keys of actions without whose success this one is not begun. */
      readonly requires: ReadonlyArray<string>
      readonly file: string
      readonly id: OperandId
      readonly change: Exclude<Merge.Change, { readonly _tag: "Unchanged" }>
    }
  | {
      readonly _tag: "Delete"
      readonly key: string
      readonly requires: ReadonlyArray<string>
      readonly id: OperandId
      readonly uid: string
    }

/** How far a removal has come. */
export type Removal =
  | { readonly _tag: "WaitingForPods"; readonly pods: ReadonlyArray<string> }
  | { readonly _tag: "StoppingDriver"; readonly pods: ReadonlyArray<string> }
  | { readonly _tag: "DeletingObjects"; readonly objects: ReadonlyArray<string> }
  | { readonly _tag: "Done" }

export interface Plan {
  readonly management: Management
  readonly actions: ReadonlyArray<Action>
  /** Errors that are known before anything is done: by the asset's file. */
  readonly staticErrors: ReadonlyArray<{ readonly file: string; readonly error: string }>
  readonly nodeErrors: ReadonlyArray<string>
  /** "ClusterRole.rbac.authorization.k8s.io/x of Helm release a/b": why nothing is applied, or what was left. */
  readonly foreign: ReadonlyArray<string>
  readonly removal: Removal | undefined
}

const FINALIZER_KEY = "finalizer"
const REMEMBER_KEY = "remember"
const NODE_FILE = "node.yaml"

const nothing = (management: Management): Plan => ({
  management,
  actions: [],
  staticErrors: [],
  nodeErrors: [],
  foreign: [],
  removal: undefined
})

const finalizersOf = ({ metadata }: ClusterCSIDriver): ReadonlyArray<string> => metadata.finalizers ?? []

const ensureFinalizer = (it: ClusterCSIDriver, finalizer: string): ReadonlyArray<Action> =>
  finalizersOf(it).includes(finalizer)
    ? []
    : [
        {
          _tag: "EnsureFinalizer",
          key: FINALIZER_KEY,
          requires: [],
          resourceVersion: it.metadata.resourceVersion ?? "",
          finalizers: [...finalizersOf(it), finalizer]
        }
      ]

const removeFinalizer = (it: ClusterCSIDriver, finalizer: string): ReadonlyArray<Action> =>
  finalizersOf(it).includes(finalizer)
    ? [
        {
          _tag: "RemoveFinalizer",
          key: FINALIZER_KEY,
          requires: [],
          resourceVersion: it.metadata.resourceVersion ?? "",
          finalizers: finalizersOf(it).filter((other) => other !== finalizer)
        }
      ]
    : []

const hasAnnotation = ({ metadata }: ClusterCSIDriver, annotation: string): boolean =>
  metadata.annotations?.[annotation] === "true"

/** @shape (live objects, namespace) -> those of another installation, and whose they are */
const foreignAmong = (observed: Observed, namespace: string): ReadonlyMap<string, string> =>
  new Map(
    [...observed.live].flatMap(([key, object]) => {
      const owner = Foreign.ownerOf(object, namespace)
      return owner === undefined ? [] : [[key, `${describe(idOf(object))} of ${owner}`] as const]
    })
  )

/** A RoleBinding that gives the driver Secrets, made by an operator. */
const isSyncBinding = ({ kind, metadata }: Manifest): boolean =>
  kind === "RoleBinding" && metadata.labels?.[SYNC_LABEL] === "true"

const deletion = (object: Manifest): ReadonlyArray<Action> =>
  // What is on its way already is waited for.
  object.metadata.deletionTimestamp === undefined
    ? [
        {
          _tag: "Delete",
          key: keyOf(idOf(object)),
          requires: [],
          id: idOf(object),
          uid: object.metadata.uid ?? ""
        }
      ]
    : []

const applied = (
  file: string,
  required: Manifest,
  change: Merge.Change,
  requires: ReadonlyArray<string>
): ReadonlyArray<Action> =>
  change._tag === "Unchanged"
    ? []
    : [{ _tag: "Apply", key: keyOf(idOf(required)), requires, file, id: idOf(required), change }]

const caBundleOf = (observed: Observed, namespace: string): StringMap | undefined => {
  const configMap = liveOf(observed, { kind: "ConfigMap", namespace, name: CA_CONFIG_MAP })
  if (configMap === undefined) return undefined
  const data = objectAt(configMap, "data")
  return Object.fromEntries(
    Object.keys(data).flatMap((key) => {
      const value = textAt(data, key)
      return value === undefined ? [] : [[key, value]]
    })
  )
}

/** Of the DaemonSet, after the operator's last write. */
const writtenGeneration = ({ status }: ClusterCSIDriver, namespace: string): number =>
  status?.generations?.find(
    (it) => it.group === "apps" && it.resource === "daemonsets" && it.namespace === namespace && it.name === DAEMON_SET
  )?.lastGeneration ?? -1

const planManaged = (observed: Observed, it: ClusterCSIDriver, fixed: Fixed): Plan => {
  const { config, manifests, sha256 } = fixed
  const management: Management = { _tag: "Managed" }
  const foreign = hasAnnotation(it, Annotation.adoptForeign)
    ? []
    : [...foreignAmong(observed, config.namespace).values()]
  // Half an operand would serve nobody.
  if (foreign.length > 0) return { ...nothing(management), foreign }

  const settings = settingsOf(it)
  const finalizer = ensureFinalizer(it, finalizerOf(config.operatorName))
  const before = finalizer.map(({ key }) => key)
  const csiDriver = liveOf(observed, Desired.csiDriverId)
  const isUnread = (id: OperandId) => observed.unread.has(keyOf(id))
  const record = isUnread(Desired.csiDriverId) ? undefined : CSIDriver.toRemember(settings, csiDriver, it)
  const remember: ReadonlyArray<Action> =
    record === undefined
      ? []
      : [
          {
            _tag: "Remember",
            key: REMEMBER_KEY,
            requires: before,
            resourceVersion: it.metadata.resourceVersion ?? "",
            value: record
          }
        ]
  const staticErrors: Array<{ readonly file: string; readonly error: string }> = []
  const wanted = Desired.staticObjects(manifests, config, {
    syncNamespaces: [...(observed.syncNamespaces ?? [])],
    servedGroups: observed.servedGroups ?? new Set(),
    apiServerPorts: observed.apiServerPorts
  }).flatMap((result) => {
    if (Result.isSuccess(result)) return [result.success]
    staticErrors.push(result.failure)
    return []
  })
  const unreadBindings = observed.unread.get(SYNC_BINDINGS)
  if (unreadBindings !== undefined) staticErrors.push({ file: Desired.SYNC_BINDING_FILE, error: unreadBindings })
  const granting: Array<string> = []
  const statics = wanted.flatMap(({ file, manifest }) => {
    const id = idOf(manifest)
    if (file === Desired.SYNC_BINDING_FILE) {
      if (unreadBindings !== undefined) return []
      granting.push(keyOf(id))
    }
    const why = observed.unread.get(keyOf(id))
    if (why !== undefined) {
      staticErrors.push({ file, error: why })
      return []
    }
    const live = liveOf(observed, id)
    if (file === Desired.DRIVER_ROLE_FILE && live !== undefined) {
      // It may still have rights to Secrets, and it is not known yet who needs them, or has them already.
      if (observed.syncNamespaces === undefined || unreadBindings !== undefined) return []
      return applied(file, manifest, Merge.decide(manifest, live), [...before, ...granting])
    }
    if (file !== Desired.CSI_DRIVER_FILE) return applied(file, manifest, Merge.decide(manifest, live), before)
    const required = CSIDriver.render(manifest, settings, live, CSIDriver.rememberedIn(it), sha256)
    return applied(file, required, CSIDriver.decide(required, live), [...before, ...remember.map(({ key }) => key)])
  })
  const bound = new Set(wanted.map(({ manifest }) => keyOf(idOf(manifest))))
  const unbound =
    observed.syncNamespaces === undefined
      ? []
      : [...observed.live.values()]
          .filter((object) => isSyncBinding(object) && !bound.has(keyOf(idOf(object))))
          .flatMap(deletion)

  const nodeErrors: Array<string> = []
  const daemonSetId = Desired.daemonSetId(config.namespace)
  const daemonSet = (): ReadonlyArray<Action> => {
    const caBundle = { kind: "ConfigMap", namespace: config.namespace, name: CA_CONFIG_MAP }
    // A DaemonSet that is rendered from half of what it is made of would replace every pod, twice.
    const missing = [daemonSetId, caBundle].map((id) => observed.unread.get(keyOf(id))).find((why) => why !== undefined)
    if (missing !== undefined) {
      nodeErrors.push(missing)
      return []
    }
    const rendered = DaemonSet.render(
      {
        manifests,
        namespace: config.namespace,
        images: config.images,
        settings,
        overrides: it.spec?.unsupportedConfigOverrides,
        caBundle: caBundleOf(observed, config.namespace),
        proxy: observed.proxy
      },
      sha256
    )
    if (Result.isFailure(rendered)) {
      nodeErrors.push(rendered.failure)
      return []
    }
    const live = liveOf(observed, daemonSetId)
    const change = DaemonSet.decide(rendered.success, live, writtenGeneration(it, config.namespace), sha256)
    // Pods that come before their ServiceAccount and its rights are refused, and come back later and later.
    const first = change._tag === "Create" ? [...before, ...statics.map(({ key }) => key)] : before
    if (change._tag === "Create" && staticErrors.length > 0) return []
    if (change._tag === "Create" && observed.servedGroups === undefined) {
      // On OpenShift, pods without the right to a security context are refused.
      nodeErrors.push("which APIs there are cannot be read, and so not which rights the driver's pods need")
      return []
    }
    return applied(NODE_FILE, rendered.success, change, first)
  }
  const node = daemonSet()
  return {
    ...nothing(management),
    actions: [...finalizer, ...remember, ...statics, ...unbound, ...node],
    staticErrors,
    nodeErrors
  }
}

/** Kinds in the order of their removal. */
const REMOVAL_ORDER = [
  "CSIDriver",
  "ClusterRoleBinding",
  "RoleBinding",
  "ClusterRole",
  "ServiceAccount",
  "ConfigMap",
  "NetworkPolicy"
]

const planRemoval = (
  observed: Observed,
  it: ClusterCSIDriver,
  { config }: Fixed,
  management: Management & { readonly _tag: "Removing" }
): Plan => {
  const isWaiting = !hasAnnotation(it, Annotation.removeWithoutWaiting)
  const owners = hasAnnotation(it, Annotation.adoptForeign) ? new Map() : foreignAmong(observed, config.namespace)
  const ours = [...observed.live.values()].filter((object) => !owners.has(keyOf(idOf(object))))
  const plan = { ...nothing(management), foreign: [...owners.values()] }
  const daemonSet = ours.find(({ kind }) => kind === "DaemonSet")
  const errors = [...observed.unread.values()]
  // What cannot be seen cannot be said to be gone.
  if (errors.length > 0) {
    return { ...plan, nodeErrors: errors, removal: { _tag: "DeletingObjects", objects: [...observed.unread.keys()] } }
  }
  if (daemonSet !== undefined) {
    if (isWaiting && observed.consumers.length > 0 && daemonSet.metadata.deletionTimestamp === undefined) {
      return { ...plan, removal: { _tag: "WaitingForPods", pods: observed.consumers } }
    }
    return { ...plan, actions: deletion(daemonSet), removal: { _tag: "StoppingDriver", pods: observed.driverPods } }
  }
  if (isWaiting && observed.driverPods.length > 0) {
    return { ...plan, removal: { _tag: "StoppingDriver", pods: observed.driverPods } }
  }
  const rest = REMOVAL_ORDER.flatMap((kind) => ours.filter((object) => object.kind === kind))
  if (rest.length > 0) {
    return {
      ...plan,
      actions: rest.flatMap(deletion),
      removal: { _tag: "DeletingObjects", objects: rest.map((object) => describe(idOf(object))) }
    }
  }
  return {
    ...plan,
    actions: removeFinalizer(it, finalizerOf(config.operatorName)),
    removal: { _tag: "Done" }
  }
}

/**
 * @shape  (observed, what does not change) -> Plan
 * @errors none: what cannot be done is part of the plan
 */
export const plan = (observed: Observed, fixed: Fixed): Plan => {
  const { clusterCsiDriver } = observed
  const management = managementOf(clusterCsiDriver)
  if (clusterCsiDriver === undefined) return nothing(management)
  switch (management._tag) {
    case "Managed":
      return planManaged(observed, clusterCsiDriver, fixed)
    case "Removing":
      return planRemoval(observed, clusterCsiDriver, fixed, management)
    case "Released":
      return {
        ...nothing(management),
        actions: removeFinalizer(clusterCsiDriver, finalizerOf(fixed.config.operatorName))
      }
    case "Absent":
    case "Unmanaged":
    case "Unsupported":
      return nothing(management)
  }
}
