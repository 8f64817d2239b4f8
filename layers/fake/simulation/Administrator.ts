/**
 * Everybody who writes beside the operator: an administrator who wants now this and now that, users whose classes ask for
 * Secrets, others who edit or delete what is not theirs, and a cluster whose proxy, TLS profile and certificates change.
 */
import { type Clock, DateTime, Duration, Effect } from "effect"
import { DAEMON_SET, DRIVER_NAME } from "../../../src/operator/Names.ts"
import type { KubernetesApi, KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt, without } from "../KubernetesObject.ts"
import type { MemoryKubernetes } from "../MemoryKubernetes.ts"
import type { Neighbours } from "./ApiFaults.ts"
import type { Chance } from "./Chance.ts"
import { CONSUMER_NAMESPACES } from "./OperatorControlPlane.ts"
import type { OperatorFaults } from "./OperatorFaults.ts"
import { CANARY, CR_PATH, managesAudiences, NAMESPACE, OPERAND, type OperatorWitness } from "./OperatorWitness.ts"

const CR_COLLECTION = "/apis/operator.openshift.io/v1/clustercsidrivers"
const CSI_DRIVERS = "/apis/storage.k8s.io/v1/csidrivers"
const RBAC = "/apis/rbac.authorization.k8s.io/v1"
const CONFIG = "/apis/config.openshift.io/v1"
const MERGE = "application/merge-patch+json"
const OPENSHIFT_GROUPS = ["config.openshift.io", "security.openshift.io"] as const
const MINUTE = 60_000
const SERVER_METADATA = ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"]

const AUDIENCES: ReadonlyArray<JsonObject> = [
  { audience: "sts.amazonaws.com", expirationSeconds: 3600 },
  { audience: "vault" },
  { audience: "api://AzureADTokenExchange" }
]

/** Where each kind of the operand lives. */
export const pathOf = (resource: string, key: string): string => {
  const [plural = "", ...group] = resource.split(".")
  const root = group.length === 0 ? "/api/v1" : `/apis/${group.join(".")}/v1`
  const [namespace, name] = key.includes("/") ? key.split("/") : [undefined, key]
  return namespace === undefined ? `${root}/${plural}/${name}` : `${root}/namespaces/${namespace}/${plural}/${name}`
}

const classPath = (namespace: string) =>
  `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${namespace}/secretproviderclasses`

/** Objects of others that only look like ours. */
const CANARIES: ReadonlyArray<{ readonly path: string; readonly body: JsonObject }> = [
  {
    path: `${RBAC}/clusterroles`,
    body: { kind: "ClusterRole", metadata: { name: "secretproviderclasses-admin-role" }, rules: [] }
  },
  {
    path: `${RBAC}/namespaces/others/rolebindings`,
    body: {
      kind: "RoleBinding",
      metadata: { name: "secrets-store-csi-driver-secret-sync", namespace: "others" },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "view" },
      subjects: [{ kind: "ServiceAccount", name: "secrets-store-csi-driver-node-sa", namespace: "others" }]
    }
  },
  {
    path: "/api/v1/namespaces/others/serviceaccounts",
    body: { kind: "ServiceAccount", metadata: { name: "secrets-store-csi-driver-node-sa", namespace: "others" } }
  },
  {
    path: `/api/v1/namespaces/${NAMESPACE}/configmaps`,
    body: {
      kind: "ConfigMap",
      metadata: { name: "secrets-store-csi-driver-trusted-ca-bundle-2", namespace: NAMESPACE },
      data: { "ca-bundle.crt": "others" }
    }
  },
  {
    path: CSI_DRIVERS,
    body: { kind: "CSIDriver", metadata: { name: "other.csi.k8s.io" }, spec: { attachRequired: false } }
  }
]

const apiVersionOf = (path: string): string => {
  const parts = path.split("/")
  return parts[1] === "api" ? "v1" : `${parts[2]}/${parts[3]}`
}

export interface AdministratorOptions {
  readonly api: KubernetesApi["Service"]
  readonly control: MemoryKubernetes["Service"]
  readonly witness: OperatorWitness
  readonly clock: Clock.Clock
  readonly chance: Chance
  readonly faults: OperatorFaults
}

export class Administrator implements Neighbours {
  private readonly options: AdministratorOptions
  private count = 0
  private readonly canaries = new Map<string, JsonObject>()
  /** The cluster is one of OpenShift. */
  isOpenShift = true

  constructor(options: AdministratorOptions) {
    this.options = options
  }

  /** What is refused is not tried again: the next idea comes soon. */
  private send(request: KubernetesRequest): Effect.Effect<JsonObject | undefined> {
    return Effect.match(this.options.api.request(request), {
      onFailure: () => undefined,
      onSuccess: (answer) => (isObject(answer) ? answer : {})
    })
  }

  private patch(path: string, body: JsonObject): Effect.Effect<void> {
    return Effect.asVoid(this.send({ method: "PATCH", path, contentType: MERGE, body }))
  }

  private create(path: string, body: JsonObject): Effect.Effect<JsonObject | undefined> {
    return this.send({ method: "POST", path, body: { apiVersion: apiVersionOf(path), ...body } })
  }

  private remove(path: string): Effect.Effect<void> {
    return Effect.asVoid(this.send({ method: "DELETE", path }))
  }

  private sleep(millis: number): Effect.Effect<void> {
    return this.options.clock.sleep(Duration.millis(Math.ceil(millis)))
  }

  /** Says who did what, then does it. */
  private act(what: string, effect: Effect.Effect<unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.options.faults.note(what)
      return Effect.asVoid(effect)
    })
  }

  // ---- the cluster at first

  readonly prepare: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const { chance } = this.options
    for (const { body, path } of CANARIES) {
      const made = yield* this.create(path, body)
      if (made !== undefined) this.canaries.set(`${path}/${textAt(metadataOf(made), "name") ?? ""}`, made)
    }
    yield* this.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", {
      kind: "EndpointSlice",
      metadata: { name: "kubernetes", namespace: "default" },
      addressType: "IPv4",
      endpoints: [],
      ports: [{ name: "https", port: 6443, protocol: "TCP" }]
    })
    const controlPlaneTopology = chance.happens(0.15) ? "SingleReplica" : "HighlyAvailable"
    const cluster = { metadata: { name: "cluster" }, spec: {} }
    const proxied = chance.happens(0.5) ? { status: { httpProxy: `http://user:${CANARY}@proxy:3128` } } : {}
    yield* this.create(`${CONFIG}/proxies`, { kind: "Proxy", ...cluster, ...proxied })
    yield* this.create(`${CONFIG}/apiservers`, { kind: "APIServer", ...cluster })
    const infrastructure = { kind: "Infrastructure", ...cluster, status: { controlPlaneTopology } }
    yield* this.create(`${CONFIG}/infrastructures`, infrastructure)
    this.isOpenShift = chance.happens(0.7)
    yield* this.serve(this.isOpenShift)
  })

  /** Canaries that are not as they were made. */
  readonly lostCanaries: Effect.Effect<ReadonlyArray<string>> = Effect.gen({ self: this }, function* () {
    const lost: Array<string> = []
    for (const [path, made] of this.canaries) {
      const found = yield* this.send({ method: "GET", path })
      if (metadataOf(found ?? {})["resourceVersion"] !== metadataOf(made)["resourceVersion"]) lost.push(path)
    }
    return lost
  })

  // ---- what the administrator wants

  createClusterCsiDriver(spec: JsonObject, annotations: JsonObject = {}): Effect.Effect<void> {
    return Effect.asVoid(
      this.create(CR_COLLECTION, { kind: "ClusterCSIDriver", metadata: { name: DRIVER_NAME, annotations }, spec })
    )
  }

  patchClusterCsiDriver(body: JsonObject): Effect.Effect<void> {
    return this.patch(CR_PATH, body)
  }

  readonly deleteClusterCsiDriver: Effect.Effect<void> = Effect.suspend(() => this.remove(CR_PATH))

  private readonly drawState = (): string => {
    const { chance } = this.options
    return chance.happens(0.6) ? "Managed" : chance.oneOf(["Unmanaged", "Removed", "Removed", "Force"])
  }

  private readonly drawRotation = (): JsonObject => {
    const { chance } = this.options
    return chance.happens(0.4)
      ? { type: "None", custom: null }
      : { type: "Custom", custom: { minimumRefreshAge: 60 * (1 + chance.below(10)) } }
  }

  private readonly drawTokens = (): JsonObject => {
    const { chance } = this.options
    return chance.happens(0.7)
      ? { type: "Unmanaged", managed: null }
      : { type: "Managed", managed: { audiences: AUDIENCES.filter(() => chance.happens(0.5)) } }
  }

  private readonly drawOverrides = (): JsonObject => {
    const { chance } = this.options
    return {
      secretsStoreDriver: {
        proxy: chance.happens(0.5),
        trustedCABundle: chance.happens(0.4),
        ...(chance.happens(0.3) ? { nodeSelector: { pool: chance.oneOf(["a", "b"]) } } : {}),
        ...(chance.happens(0.3) ? { args: [`--max-call-recv-msg-size=${1 + chance.below(9)}`] } : {})
      }
    }
  }

  /** What somebody wants who begins with the driver. */
  readonly drawSpec = (): JsonObject => {
    const { chance } = this.options
    const tokenRequests = chance.happens(0.2) ? { tokenRequests: this.drawTokens() } : {}
    const driverConfig = {
      driverType: "SecretsStore",
      secretsStore: { secretRotation: this.drawRotation(), ...tokenRequests }
    }
    return {
      managementState: "Managed",
      ...(chance.happens(0.3) ? { driverConfig } : {}),
      ...(chance.happens(0.5) ? { unsupportedConfigOverrides: this.drawOverrides() } : {})
    }
  }

  readonly administrate: Effect.Effect<void> = Effect.suspend(() => {
    const { chance, witness } = this.options
    const it = witness.clusterCsiDriver
    if (it === undefined) {
      return this.act(
        "administrator creates",
        this.createClusterCsiDriver({ ...this.drawSpec(), managementState: this.drawState() })
      )
    }
    const levels = ["Normal", "Debug", "Trace", "TraceAll"]
    const annotations = ["remove-without-waiting", "adopt-foreign-objects"]
    switch (chance.below(9)) {
      case 0:
      case 1: {
        const managementState = this.drawState()
        return this.act(`administrator ${managementState}`, this.patchClusterCsiDriver({ spec: { managementState } }))
      }
      case 2:
        return this.act("administrator deletes", this.deleteClusterCsiDriver)
      case 3: {
        const secretsStore = { secretRotation: this.drawRotation() }
        return this.act(
          "administrator rotation",
          this.patchClusterCsiDriver({ spec: { driverConfig: { driverType: "SecretsStore", secretsStore } } })
        )
      }
      case 4: {
        const secretsStore = { tokenRequests: this.drawTokens() }
        return this.act(
          "administrator tokens",
          this.patchClusterCsiDriver({ spec: { driverConfig: { driverType: "SecretsStore", secretsStore } } })
        )
      }
      case 5:
        return this.act(
          "administrator log level",
          this.patchClusterCsiDriver({ spec: { logLevel: chance.oneOf(levels) } })
        )
      case 6: {
        const unsupportedConfigOverrides = chance.happens(0.3) ? null : this.drawOverrides()
        return this.act("administrator overrides", this.patchClusterCsiDriver({ spec: { unsupportedConfigOverrides } }))
      }
      case 7: {
        const name = `secrets-store.csi.k8s.io/${chance.oneOf(annotations)}`
        const value = chance.happens(0.5) ? "true" : null
        return this.act(
          "administrator annotation",
          this.patchClusterCsiDriver({ metadata: { annotations: { [name]: value } } })
        )
      }
      default:
        return this.act(
          "administrator operator log level",
          this.patchClusterCsiDriver({ spec: { operatorLogLevel: chance.oneOf(levels) } })
        )
    }
  })

  // ---- users

  /** Namespaces that ask for Secrets. */
  asking(): ReadonlyArray<string> {
    const classes = this.options.witness.objects("secretproviderclasses.secrets-store.csi.x-k8s.io")
    const namespaces = [...classes.values()]
      .filter((it) => listAt(objectAt(it, "spec"), "secretObjects").length > 0)
      .map((it) => textAt(metadataOf(it), "namespace") ?? "")
    return [...new Set(namespaces)].sort()
  }

  readonly changeClass: Effect.Effect<void> = Effect.suspend(() => {
    const { chance } = this.options
    const namespace = chance.oneOf(CONSUMER_NAMESPACES)
    const name = chance.oneOf(["web", "db"])
    if (chance.happens(0.4)) return this.act("class goes", this.remove(`${classPath(namespace)}/${name}`))
    const secretObjects = chance.happens(0.6)
      ? [{ secretName: name, type: "Opaque", data: [{ objectName: "a", key: "a" }] }]
      : []
    const body = {
      kind: "SecretProviderClass",
      metadata: { name, namespace },
      spec: { provider: "vault", secretObjects }
    }
    return this.act(
      "class comes",
      Effect.flatMap(this.create(classPath(namespace), body), (made) =>
        made === undefined ? this.patch(`${classPath(namespace)}/${name}`, { spec: { secretObjects } }) : Effect.void
      )
    )
  })

  // ---- others

  /** Somebody who labels an object. */
  touch(path: string): Effect.Effect<void> {
    const { chance } = this.options
    return Effect.suspend(() =>
      this.patch(path, { metadata: { labels: { [`others/label-${chance.below(3)}`]: `${chance.below(1_000)}` } } })
    )
  }

  /** Somebody deletes an object of the operand, and makes it again as it was; but for its pods, which would have to follow. */
  readonly remake = Effect.fnUntraced({ self: this }, function* (path: string) {
    const isSmall = OPERAND.some(
      ({ key, resource }) => pathOf(resource, key) === path && resource !== "daemonsets.apps"
    )
    if (!isSmall) return
    const found = yield* this.send({ method: "GET", path })
    if (found === undefined || (yield* this.send({ method: "DELETE", path })) === undefined) return
    const metadata = without(metadataOf(found), ...SERVER_METADATA)
    yield* this.create(path.slice(0, path.lastIndexOf("/")), { ...found, metadata })
  })

  /** Nothing of an operator's is anybody's property. */
  readonly collectGarbage: Effect.Effect<void> = Effect.void

  readonly interfere: Effect.Effect<void> = Effect.suspend(() => {
    const { chance, clock, witness } = this.options
    const daemonSet = pathOf("daemonsets.apps", `${NAMESPACE}/${DAEMON_SET}`)
    const csiDriver = `${CSI_DRIVERS}/${DRIVER_NAME}`
    const { key, resource } = chance.oneOf(OPERAND)
    switch (chance.below(11)) {
      case 0:
        return this.act(`others delete ${resource}`, this.remove(pathOf(resource, key)))
      case 1: {
        const now = DateTime.formatIso(DateTime.makeUnsafe(clock.currentTimeMillisUnsafe()))
        const annotations = { "kubectl.kubernetes.io/restartedAt": now }
        return this.act(
          "others restart the rollout",
          this.patch(daemonSet, { spec: { template: { metadata: { annotations } } } })
        )
      }
      case 2: {
        const terminationGracePeriodSeconds = 31 + chance.below(30)
        return this.act(
          "others edit the DaemonSet",
          this.patch(daemonSet, { spec: { template: { spec: { terminationGracePeriodSeconds } } } })
        )
      }
      case 3:
      case 4:
        return this.act(
          "others set audiences",
          managesAudiences(witness.clusterCsiDriver)
            ? Effect.void
            : this.patch(csiDriver, { spec: { tokenRequests: AUDIENCES.filter(() => chance.happens(0.5)) } })
        )
      case 5:
        return this.act(
          "others edit the CSIDriver",
          this.patch(csiDriver, {
            spec: { requiresRepublish: chance.happens(0.5), podInfoOnMount: chance.happens(0.5) }
          })
        )
      case 6: {
        const rules = [{ apiGroups: [""], resources: ["configmaps"], verbs: ["get"] }]
        return this.act(
          "others edit the role",
          this.patch(`${RBAC}/clusterroles/secretproviderclasses-role`, { rules })
        )
      }
      case 7:
        return this.act("others label", this.touch(pathOf(resource, key)))
      case 8:
        return this.act("another installation", this.installHelm)
      case 9:
        return this.act("others hold an object", this.hold(pathOf(resource, key)))
      default:
        return this.act("CSIDriver of somebody else", this.replaceCsiDriver)
    }
  })

  /** With a finalizer, for a while: whoever deletes it has to wait. */
  private hold(path: string): Effect.Effect<void> {
    const release = Effect.suspend(() => this.patch(path, { metadata: { finalizers: null } }))
    return Effect.andThen(
      this.patch(path, { metadata: { finalizers: ["others/hold"] } }),
      Effect.ensuring(this.sleep(this.options.chance.between(0, 5 * MINUTE)), release)
    )
  }

  /** As with upstream's chart; goes again after a while. */
  private readonly installHelm: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const made = yield* this.create(`${RBAC}/clusterroles`, {
      kind: "ClusterRole",
      metadata: {
        name: "secretproviderclasses-role",
        labels: { "app.kubernetes.io/managed-by": "Helm" },
        annotations: { "meta.helm.sh/release-name": "csi", "meta.helm.sh/release-namespace": "kube-system" }
      },
      rules: []
    })
    if (made === undefined) return
    yield* this.sleep(this.options.chance.between(0, 15 * MINUTE))
    yield* this.removeHelm
  })

  readonly removeHelm: Effect.Effect<void> = Effect.suspend(() => {
    const role = this.options.witness.find("clusterroles.rbac.authorization.k8s.io", "secretproviderclasses-role")
    return objectAt(metadataOf(role ?? {}), "labels")["app.kubernetes.io/managed-by"] === "Helm"
      ? this.remove(`${RBAC}/clusterroles/secretproviderclasses-role`)
      : Effect.void
  })

  /** Somebody makes it anew, in a form that cannot be changed in place. */
  private readonly replaceCsiDriver: Effect.Effect<void> = Effect.suspend(() => {
    const { chance } = this.options
    const tokenRequests = AUDIENCES.filter(() => chance.happens(0.5))
    return Effect.andThen(
      this.remove(`${CSI_DRIVERS}/${DRIVER_NAME}`),
      this.create(CSI_DRIVERS, {
        kind: "CSIDriver",
        metadata: { name: DRIVER_NAME },
        spec: { attachRequired: chance.happens(0.5), volumeLifecycleModes: ["Persistent"], tokenRequests }
      })
    )
  })

  // ---- the cluster itself

  readonly changeSurroundings: Effect.Effect<void> = Effect.suspend(() => {
    const { chance } = this.options
    this.count += 1
    switch (chance.below(3)) {
      case 0: {
        const address = `http://user:${CANARY}@proxy-${this.count}:3128`
        const status = chance.happens(0.7)
          ? { httpProxy: address, noProxy: ".cluster.local" }
          : { httpProxy: null, noProxy: null }
        return this.act("proxy", this.patch(`${CONFIG}/proxies/cluster`, { status }))
      }
      case 1: {
        const type = chance.oneOf(["Old", "Intermediate", "Modern"])
        return this.act(
          "TLS profile",
          this.patch(`${CONFIG}/apiservers/cluster`, { spec: { tlsSecurityProfile: { type } } })
        )
      }
      default: {
        const path = pathOf("configmaps", `${NAMESPACE}/secrets-store-csi-driver-trusted-ca-bundle`)
        return this.act("certificates", this.patch(path, { data: { "ca-bundle.crt": `certificates ${this.count}` } }))
      }
    }
  })

  /** API groups of OpenShift go, and come back. */
  readonly loseDiscovery: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const { chance, control, faults, witness } = this.options
    if (!this.isOpenShift) return
    faults.note("discovery")
    const group = chance.oneOf(OPENSHIFT_GROUPS)
    yield* control.setServed(group, false)
    witness.served(false)
    yield* Effect.ensuring(this.sleep(chance.between(0, 10 * MINUTE)), this.serve(true))
  })

  /** The API groups of OpenShift are there, or are not. */
  serve(isServed: boolean): Effect.Effect<void> {
    const { control, witness } = this.options
    return Effect.gen(function* () {
      for (const group of OPENSHIFT_GROUPS) yield* control.setServed(group, isServed)
      witness.served(isServed)
    })
  }

  readonly deny: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const { chance, faults } = this.options
    faults.note("denied")
    const part = chance.oneOf([
      "/clusterroles/",
      "/rolebindings",
      "/csidrivers/",
      "/daemonsets/",
      "/configmaps/",
      "/secretproviderclasses",
      "/proxies/",
      "/endpointslices/",
      "/clustercsidrivers/secrets-store.csi.k8s.io/status",
      "/pods"
    ])
    faults.denied.add(part)
    yield* Effect.ensuring(
      this.sleep(chance.between(0, 10 * MINUTE)),
      Effect.sync(() => faults.denied.delete(part))
    )
  })
}
