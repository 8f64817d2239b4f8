/**
 * Sees every write to the API server in the instant in which it takes effect, whoever makes it, and checks what must
 * always be true of those that operators make. It keeps every object as it was before the write.
 */
import { type Clock, type Context, Effect } from "effect"
import { DAEMON_SET, DRIVER_NAME, finalizerOf, LEASE, OPERATOR_NAME, SYNC_LABEL } from "../../../src/operator/Names.ts"
import type { KubernetesApi, KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import { isEqual, isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "../KubernetesObject.ts"
import { type MemoryKubernetes, Succeeds } from "../MemoryKubernetes.ts"
import type { History } from "./History.ts"
import * as Invariants from "./OperatorInvariants.ts"
import type { Referee } from "./Referee.ts"

export const NAMESPACE = "openshift-cluster-csi-drivers"
export const CR_PATH = `/apis/operator.openshift.io/v1/clustercsidrivers/${DRIVER_NAME}`
export const FINALIZER = finalizerOf(OPERATOR_NAME)
/** Part of a proxy's address. */
export const CANARY = "hunter2-canary"

const CLUSTER_CSI_DRIVERS = "clustercsidrivers.operator.openshift.io"
const CSI_DRIVERS = "csidrivers.storage.k8s.io"
const DAEMON_SETS = "daemonsets.apps"
const CLUSTER_ROLES = "clusterroles.rbac.authorization.k8s.io"
const CLUSTER_ROLE_BINDINGS = "clusterrolebindings.rbac.authorization.k8s.io"
const ROLE_BINDINGS = "rolebindings.rbac.authorization.k8s.io"
const LEASES = "leases.coordination.k8s.io"
const SYNC_BINDING = "secrets-store-csi-driver-secret-sync"
const REMEMBERED = "secrets-store.csi.k8s.io/remembered-token-requests"

/** The operand, written down once more: what is not here is not the operator's. */
export const OPERAND: ReadonlyArray<{ readonly resource: string; readonly key: string }> = [
  { resource: "serviceaccounts", key: `${NAMESPACE}/secrets-store-csi-driver-node-sa` },
  { resource: "configmaps", key: `${NAMESPACE}/secrets-store-csi-driver-trusted-ca-bundle` },
  { resource: CLUSTER_ROLES, key: "secrets-store-privileged-role" },
  { resource: CLUSTER_ROLES, key: "secretproviderclasses-role" },
  { resource: CLUSTER_ROLE_BINDINGS, key: "secrets-store-node-privileged-binding" },
  { resource: CLUSTER_ROLE_BINDINGS, key: "secretproviderclasses-rolebinding" },
  { resource: CSI_DRIVERS, key: DRIVER_NAME },
  { resource: "networkpolicies.networking.k8s.io", key: `${NAMESPACE}/sscsi-allow-egress-to-api-server-operand` },
  { resource: "networkpolicies.networking.k8s.io", key: `${NAMESPACE}/sscsi-allow-ingress-to-metrics-operand` },
  { resource: "networkpolicies.networking.k8s.io", key: `${NAMESPACE}/sscsi-default-deny-operand` },
  { resource: DAEMON_SETS, key: `${NAMESPACE}/${DAEMON_SET}` }
]

const RESOURCES = [
  ...new Set(OPERAND.map(({ resource }) => resource)),
  ROLE_BINDINGS,
  CLUSTER_CSI_DRIVERS,
  LEASES,
  "pods",
  "proxies.config.openshift.io",
  "secretproviderclasses.secrets-store.csi.x-k8s.io"
]

/** A reconcile takes two minutes at most; its process may have stood still for as long as a Lease lasts. */
const READ_AGO_MILLIS_MAX = 420_000
/** A pod that uses volumes has been seen after this long. */
const SEEN_MILLIS = 420_000
const CHANGE_MILLIS_MAX = 3_600_000

/** An operator's process, as the API server sees it. */
export interface Sender {
  readonly identity: string
  readonly images: string
  /** The ClusterCSIDriver as this process last read it. */
  read: { readonly it: JsonObject | undefined; readonly atMillis: number } | undefined
  writes: number
}

interface Target {
  readonly resource: string
  readonly key: string
  readonly isStatus: boolean
}

/** @shape (request) -> which object it is about */
const targetOf = ({ body, path }: KubernetesRequest): Target => {
  const parts = path.split("/").slice(1)
  const group = parts[0] === "apis" ? (parts[1] ?? "") : ""
  const rest = parts.slice(parts[0] === "apis" ? 3 : 2)
  const isNamespaced = rest[0] === "namespaces" && rest.length > 2
  const [plural = "", name, subresource] = isNamespaced ? rest.slice(2) : rest
  const named = name ?? textAt(metadataOf(isObject(body) ? body : {}), "name") ?? ""
  return {
    resource: group === "" ? plural : `${plural}.${group}`,
    key: isNamespaced ? `${rest[1]}/${named}` : named,
    isStatus: subresource === "status"
  }
}

const keyOf = (object: JsonObject): string => {
  const { name, namespace } = metadataOf(object)
  return typeof namespace === "string" ? `${namespace}/${String(name)}` : String(name)
}

const isHelms = (object: JsonObject): boolean => {
  const labels = objectAt(metadataOf(object), "labels")
  return labels["app.kubernetes.io/managed-by"] === "Helm"
}

const uidOf = (object: JsonObject | undefined): string | undefined => textAt(metadataOf(object ?? {}), "uid")

const isSyncBinding = (object: JsonObject): boolean => objectAt(metadataOf(object), "labels")[SYNC_LABEL] === "true"

const hasAnnotation = (it: JsonObject | undefined, annotation: string): boolean =>
  objectAt(metadataOf(it ?? {}), "annotations")[annotation] === "true"

const finalizersOf = (it: JsonObject | undefined): ReadonlyArray<unknown> => listAt(metadataOf(it ?? {}), "finalizers")

/** Whether the ClusterCSIDriver itself says which audiences there are. */
export const managesAudiences = (it: JsonObject | undefined): boolean => {
  const store = objectAt(objectAt(objectAt(it ?? {}, "spec"), "driverConfig"), "secretsStore")
  return objectAt(store, "tokenRequests")["type"] === "Managed"
}

/** What a pod template is made of, as far as the ClusterCSIDriver says it. */
const ingredients = (it: JsonObject | undefined): unknown => {
  const { managementState: _, operatorLogLevel: __, ...spec } = objectAt(it ?? {}, "spec")
  return spec
}

const remembered = (it: JsonObject | undefined): ReadonlyArray<string> => {
  const text = textAt(objectAt(metadataOf(it ?? {}), "annotations"), REMEMBERED)
  const parsed: unknown = text === undefined ? {} : JSON.parse(text)
  return Invariants.audiencesOf({ spec: isObject(parsed) ? parsed : {} })
}

export interface WitnessOptions {
  readonly control: MemoryKubernetes["Service"]
  readonly clock: Clock.Clock
  readonly referee: Referee
  readonly history: History
  readonly context: Context.Context<never>
}

/** Of what a pod template is made of. */
interface Change {
  readonly millis: number
  /** The operator goes on with what it knew while this cannot be read: it may be seen later than others. */
  readonly isLate: boolean
}

type Objects = ReadonlyMap<string, JsonObject>

export class OperatorWitness {
  private readonly options: WitnessOptions
  private readonly atOnce: <A, E>(effect: Effect.Effect<A, E>) => A
  private readonly mirror = new Map<string, Objects>()
  /** When something changed that a pod template is made of. */
  private changes: ReadonlyArray<Change> = []
  private lastImages = ""
  /** Of the CSIDriver that an operator took away to make it anew. */
  private taken: ReadonlyArray<string> = []
  private takenFor: string | undefined
  /** When an object that is the operator's was taken away by somebody else. */
  private readonly stolen = new Map<string, number>()
  /** Since when a pod uses volumes. */
  private readonly usedSince = new Map<string, number>()
  /** Since when all API groups of OpenShift are served. */
  private servedMillis = Number.POSITIVE_INFINITY
  /** Writes of operators, without those of the election. */
  writes = 0
  lastWriteMillis = 0

  constructor(options: WitnessOptions) {
    this.options = options
    this.atOnce = Effect.runSyncWith(options.context)
    this.lastWriteMillis = this.now()
  }

  private now(): number {
    return this.options.clock.currentTimeMillisUnsafe()
  }

  // ---- looking

  objects(resource: string): Objects {
    return this.mirror.get(resource) ?? new Map()
  }

  find(resource: string, key: string): JsonObject | undefined {
    return this.objects(resource).get(key)
  }

  get clusterCsiDriver(): JsonObject | undefined {
    return this.find(CLUSTER_CSI_DRIVERS, DRIVER_NAME)
  }

  get csiDriver(): JsonObject | undefined {
    return this.find(CSI_DRIVERS, DRIVER_NAME)
  }

  get daemonSet(): JsonObject | undefined {
    return this.find(DAEMON_SETS, `${NAMESPACE}/${DAEMON_SET}`)
  }

  get holder(): string {
    const lease = this.find(LEASES, `${NAMESPACE}/${LEASE}`)
    return textAt(objectAt(lease ?? {}, "spec"), "holderIdentity") ?? ""
  }

  /** "kind namespace/name" of all that is the operator's, but for what a Helm release holds. */
  operandLeft(): ReadonlyArray<string> {
    const named = OPERAND.filter(({ key, resource }) => {
      const object = this.find(resource, key)
      return object !== undefined && !isHelms(object)
    })
    return [
      ...named.map(({ key, resource }) => `${resource} ${key}`),
      ...this.syncBindings().map((key) => `rolebinding ${key}`)
    ]
  }

  syncBindings(): ReadonlyArray<string> {
    return [...this.objects(ROLE_BINDINGS)].filter(([, object]) => isSyncBinding(object)).map(([key]) => key)
  }

  driverPods(): ReadonlyArray<string> {
    return [...this.objects("pods")]
      .filter(([, pod]) => objectAt(metadataOf(pod), "labels")["app"] === DAEMON_SET)
      .map(([key]) => key)
  }

  /** "True Removed" by type. */
  conditions(): ReadonlyMap<string, string> {
    const conditions = listAt(objectAt(this.clusterCsiDriver ?? {}, "status"), "conditions").filter(isObject)
    return new Map(
      conditions.map((it) => [
        textAt(it, "type") ?? "",
        `${textAt(it, "status") ?? ""} ${textAt(it, "reason") ?? ""}`.trim()
      ])
    )
  }

  // ---- seeing

  /** Something changed what a pod template is made of; late when it is of OpenShift's configuration. */
  private changed(isLate: boolean): void {
    this.changes = [...this.changes, { millis: this.now(), isLate }]
  }

  /** The API groups of OpenShift came or went: rights and the proxy with them. */
  served(areAll: boolean): void {
    this.servedMillis = areAll ? this.now() : Number.POSITIVE_INFINITY
    this.changed(true)
  }

  /** Whatever has changed without a request. */
  refresh(resource?: string): void {
    for (const each of resource === undefined ? RESOURCES : [resource]) {
      const all = this.atOnce(this.options.control.all(each))
      this.mirror.set(each, new Map(all.map((object) => [keyOf(object), object])))
    }
  }

  /** The API as others use it. */
  forOthers(api: KubernetesApi["Service"], who: string): KubernetesApi["Service"] {
    return { ...api, request: (request) => this.seen(api, request, who, undefined) }
  }

  /** The API as an operator's process reaches it: what arrives is seen. */
  forOperator(api: KubernetesApi["Service"], sender: Sender): KubernetesApi["Service"] {
    return { ...api, request: (request) => this.seen(api, request, sender.identity, sender) }
  }

  private seen(
    api: KubernetesApi["Service"],
    request: KubernetesRequest,
    who: string,
    sender: Sender | undefined
  ): ReturnType<KubernetesApi["Service"]["request"]> {
    if (request.method === "GET") return api.request(request)
    return Effect.provideService(api.request(request), Succeeds, () => this.tookEffect(request, who, sender))
  }

  private tookEffect(request: KubernetesRequest, who: string, sender: Sender | undefined): void {
    const target = targetOf(request)
    const { history } = this.options
    history.note(
      `${who} ${request.method} ${target.resource} ${target.key}${target.isStatus ? " status" : ""}`,
      "API server"
    )
    if (!RESOURCES.includes(target.resource)) {
      if (sender !== undefined) {
        this.options.referee.check(Invariants.writesOnlyItsOwn, {
          isOurs: false,
          what: `${request.method} ${request.path}`
        })
      }
      return
    }
    const before = this.find(target.resource, target.key)
    this.refresh(target.resource)
    const after = this.find(target.resource, target.key)
    if (sender === undefined) this.byOthers(target, before, after)
    else if (target.resource !== LEASES) this.byOperator(sender, request, target, before, after)
  }

  private byOthers({ key, resource }: Target, before: JsonObject | undefined, after: JsonObject | undefined): void {
    if (OPERAND.some((it) => it.resource === resource && it.key === key)) {
      if (after === undefined) this.stolen.set(`${resource} ${key}`, this.now())
      else this.stolen.delete(`${resource} ${key}`)
    }
    const isDifferent = (part: string) => !isEqual(before?.[part], after?.[part])
    const isIngredient =
      (resource === DAEMON_SETS && isDifferent("spec")) ||
      (resource === "configmaps" && isDifferent("data")) ||
      (resource === CLUSTER_CSI_DRIVERS && !isEqual(ingredients(before), ingredients(after)))
    const isProxy = resource === "proxies.config.openshift.io" && isDifferent("status")
    if (isIngredient || isProxy) this.changed(isProxy)
    if (resource !== "pods") return
    const volumes = listAt(objectAt(after ?? {}, "spec"), "volumes").filter(isObject)
    // One that has ended may be there for days; what is still mounted for it nobody says.
    const hasEnded = ["Succeeded", "Failed"].includes(textAt(objectAt(after ?? {}, "status"), "phase") ?? "")
    const isUser = !hasEnded && volumes.some((volume) => objectAt(volume, "csi")["driver"] === DRIVER_NAME)
    if (!isUser) this.usedSince.delete(key)
    else if (!this.usedSince.has(key)) this.usedSince.set(key, this.now())
  }

  private byOperator(
    sender: Sender,
    request: KubernetesRequest,
    target: Target,
    before: JsonObject | undefined,
    after: JsonObject | undefined
  ): void {
    const { history, referee } = this.options
    const { method } = request
    const { isStatus, key, resource } = target
    const what = `${method} ${resource} ${key}`
    this.writes += 1
    this.lastWriteMillis = this.now()
    sender.writes += 1
    history.count(`write ${method} ${resource}${isStatus ? " status" : ""}`)
    const read = sender.read?.it
    const mandate = Invariants.mandateOf(read)
    const isHurried = hasAnnotation(read, "secrets-store.csi.k8s.io/remove-without-waiting")

    referee.check(Invariants.writesAreFenced, { identity: sender.identity, holder: this.holder, what })
    referee.check(Invariants.labelsOfOthersStay, { before, after, what })
    const text = JSON.stringify(request.body ?? null)
    const wantsProxy =
      objectAt(objectAt(objectAt(read ?? {}, "spec"), "unsupportedConfigOverrides"), "secretsStoreDriver")["proxy"] ===
      true
    referee.check(Invariants.nothingSecretIsSaid, {
      where: what,
      isThere: text.includes(CANARY) && !(resource === DAEMON_SETS && wantsProxy)
    })

    const kind = this.kindOf(request, target, before, after)
    referee.check(Invariants.actsOnWhatIsWanted, {
      mandate,
      kind,
      readAgoMillis: this.now() - (sender.read?.atMillis ?? 0),
      readAgoMillisMax: READ_AGO_MILLIS_MAX,
      what
    })
    if (resource === CLUSTER_CSI_DRIVERS) {
      referee.check(Invariants.specIsTheAdministrators, { before, after })
      if (isStatus && after !== undefined) referee.check(Invariants.oneOwnerPerCondition, { it: after })
      const goes = finalizersOf(before).includes(FINALIZER) && !finalizersOf(after).includes(FINALIZER)
      if (goes) referee.check(Invariants.finalizerGoesLast, { mandate, left: this.operandLeft() })
      return
    }

    const binding = before ?? after
    const isOurs =
      OPERAND.some((it) => it.resource === resource && it.key === key) ||
      (resource === ROLE_BINDINGS &&
        key.endsWith(`/${SYNC_BINDING}`) &&
        binding !== undefined &&
        isSyncBinding(binding))
    referee.check(Invariants.writesOnlyItsOwn, { isOurs, what })
    referee.check(Invariants.objectsOfOthersStay, {
      isForeign: before !== undefined && isHelms(before),
      isAdopted: hasAnnotation(read, "secrets-store.csi.k8s.io/adopt-foreign-objects"),
      what
    })
    if (method === "POST") {
      const hasFinalizer = finalizersOf(this.clusterCsiDriver).includes(FINALIZER)
      referee.check(Invariants.finalizerGoesFirst, { hasFinalizer, what })
    }
    if (resource === CLUSTER_ROLES && key === "secretproviderclasses-role" && after !== undefined) {
      referee.check(Invariants.secretsStayShut, { rules: listAt(after, "rules"), what })
    }
    if (method === "DELETE" && mandate === "remove") this.onRemoval(what, resource, isHurried)
    if (resource === CSI_DRIVERS) this.onCsiDriver(method, mandate, managesAudiences(read), before, after)
    if (resource === DAEMON_SETS) this.onDaemonSet(sender, before, after)
  }

  private kindOf(
    { method }: KubernetesRequest,
    { isStatus, resource }: Target,
    before: JsonObject | undefined,
    after: JsonObject | undefined
  ): Invariants.WriteKind {
    if (resource !== CLUSTER_CSI_DRIVERS) return method === "DELETE" ? "operand deletion" : "operand"
    if (isStatus) return "status"
    return isEqual(finalizersOf(before), finalizersOf(after)) ? "annotation" : "finalizer"
  }

  private onRemoval(what: string, resource: string, isHurried: boolean): void {
    const { referee } = this.options
    if (resource === DAEMON_SETS) {
      const consumers = [...this.usedSince].filter(([, since]) => this.now() - since > SEEN_MILLIS).map(([key]) => key)
      referee.check(Invariants.driverOutlivesVolumes, { consumers, isHurried })
      return
    }
    const hasDaemonSet = this.daemonSet !== undefined && !isHelms(this.daemonSet)
    referee.check(Invariants.driverGoesFirst, { what, hasDaemonSet, pods: this.driverPods(), isHurried })
  }

  private onCsiDriver(
    method: string,
    mandate: Invariants.Mandate,
    areManaged: boolean,
    before: JsonObject | undefined,
    after: JsonObject | undefined
  ): void {
    const { referee } = this.options
    const audiences = Invariants.audiencesOf(before)
    if (before !== undefined && after === undefined) {
      referee.check(Invariants.csiDriverStays, { mandate, differsImmutably: Invariants.differsImmutably(before) })
      this.taken = mandate === "remove" ? [] : audiences
      this.takenFor = uidOf(this.clusterCsiDriver)
    } else if (method === "POST") {
      const known = remembered(this.clusterCsiDriver)
      referee.check(Invariants.audiencesNeverShrink, {
        areManaged,
        // With the ClusterCSIDriver for which it was taken away goes whatever was noted of it.
        before: [...(this.takenFor === uidOf(this.clusterCsiDriver) ? this.taken : []), ...known],
        after: Invariants.audiencesOf(after)
      })
      this.taken = []
    } else {
      referee.check(Invariants.audiencesNeverShrink, {
        areManaged,
        before: audiences,
        after: Invariants.audiencesOf(after)
      })
    }
  }

  private onDaemonSet(sender: Sender, before: JsonObject | undefined, after: JsonObject | undefined): void {
    const { history, referee } = this.options
    if (after === undefined) return
    const now = this.now()
    this.changes = this.changes.filter(({ millis }) => now - millis < CHANGE_MILLIS_MAX)
    const readMillis = sender.read?.atMillis ?? now
    if (before === undefined) {
      const rights = OPERAND.filter(
        ({ key, resource }) =>
          resource === "serviceaccounts" ||
          key === "secretproviderclasses-rolebinding" ||
          // Where it is served, it is asked for the right to a security context.
          (key === "secrets-store-node-privileged-binding" && now - this.servedMillis > READ_AGO_MILLIS_MAX)
      )
      const missing = rights
        .filter(({ key, resource }) => this.find(resource, key) === undefined && !this.stolen.has(`${resource} ${key}`))
        .map(({ key }) => key)
      referee.check(Invariants.rightsComeBeforePods, { missing })
      // What was changed before it was read is in it.
      this.changes = this.changes.filter(({ isLate, millis }) => isLate || millis >= readMillis)
      this.lastImages = sender.images
      return
    }
    const generation = metadataOf(after)["generation"]
    if (generation === metadataOf(before)["generation"]) return
    history.count("rollouts")
    const isOtherVersion = sender.images !== this.lastImages
    referee.check(Invariants.oneRolloutPerChange, {
      changes: this.changes.length + (isOtherVersion ? 1 : 0),
      generation
    })
    // All that was there when it was read was seen at once, but for one of those that may be seen later.
    const [late] = this.changes.filter(({ isLate }) => isLate)
    const seen = this.changes.filter(({ isLate, millis }) => !isLate && millis < readMillis)
    const consumed = seen.length === 0 && !isOtherVersion ? [late ?? this.changes[0]] : seen
    this.changes = this.changes.filter((change) => !consumed.includes(change))
    this.lastImages = sender.images
  }
}
