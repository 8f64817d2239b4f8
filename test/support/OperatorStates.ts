/**
 * Clusters as the operator may find them: one per management state and configuration, and those that others have left.
 */
import { type JsonObject, listAt, objectAt } from "../../schemas/Json.ts"
import type { Manifest } from "../../schemas/Manifest.ts"
import type { Images } from "../../schemas/OperatorConfig.ts"
import * as Desired from "../../src/operator/Desired.ts"
import * as GoJson from "../../src/operator/GoJson.ts"
import { configMapHash, configMapHashKey } from "../../src/operator/Hash.ts"
import { keyOf } from "../../src/operator/Kinds.ts"
import { Annotation, CA_CONFIG_MAP, SYNC_LABEL } from "../../src/operator/Names.ts"
import type { Observed } from "../../src/operator/Observed.ts"
import { plan } from "../../src/operator/Plan.ts"
import {
  byKey,
  clusterCsiDriver,
  FINALIZER,
  manifestOf,
  NAMESPACE,
  observed,
  rolledOut,
  SIDECARS,
  settled,
  sha256,
  stored,
  withImages
} from "./OperatorFixtures.ts"

export interface Golden {
  /** Of the file, without its ending. */
  readonly name: string
  readonly row: string
  readonly title: string
  readonly given: Observed
  readonly images?: Images
  /** What of the live objects matters here. */
  readonly shows?: (given: Observed) => JsonObject
}

export const FRESH = "managed-fresh"

const DELETED = { deletionTimestamp: "2026-01-01T00:00:00Z" }
const csiDriverKey = keyOf(Desired.csiDriverId)
const daemonSetKey = keyOf(Desired.daemonSetId(NAMESPACE))
const caKey = `ConfigMap ${NAMESPACE}/${CA_CONFIG_MAP}`
const roleKey = "ClusterRole secretproviderclasses-role"
const bindingKey = "ClusterRoleBinding secretproviderclasses-rolebinding"

const it7 = (spec: JsonObject = { managementState: "Managed" }, metadata: JsonObject = {}, status?: JsonObject) =>
  clusterCsiDriver(spec, { finalizers: [FINALIZER], ...metadata }, status)

const rest = settled(observed())
const threeContainers = settled(observed(), withImages(SIDECARS))

const inState = (
  managementState: string | undefined,
  change: Partial<Observed> = {},
  metadata: JsonObject = {}
): Observed => ({
  ...rest,
  clusterCsiDriver: it7(managementState === undefined ? {} : { managementState }, metadata),
  ...change
})

/** Installed with the defaults, then this was asked for. */
const asked = (spec: JsonObject, change: Partial<Observed> = {}, from: Observed = rest): Observed => ({
  ...from,
  clusterCsiDriver: it7({ managementState: "Managed", ...spec }),
  ...change
})

const configured = (secretsStore: JsonObject): JsonObject => ({
  driverConfig: { driverType: "SecretsStore", secretsStore }
})
const rotation = (secretRotation: JsonObject) => configured({ secretRotation })
const tokens = (tokenRequests: JsonObject) => configured({ tokenRequests })

const withLive = (from: Observed, ...objects: ReadonlyArray<Manifest>): Observed => ({
  ...from,
  live: new Map([...from.live, ...byKey(objects)])
})
const only = (from: Observed, ...kinds: ReadonlyArray<string>): Pick<Observed, "live"> => ({
  live: new Map([...from.live].filter(([, { kind }]) => kinds.includes(kind)))
})
const changedLive = (from: Observed, key: string, change: (object: Manifest) => JsonObject): Observed => {
  const object = from.live.get(key)
  return object === undefined ? from : withLive(from, manifestOf({ ...object, ...change(object) }))
}
const withSpec = (change: JsonObject) => (object: Manifest) => ({ spec: { ...objectAt(object, "spec"), ...change } })

const AZURE = { audience: "api://AzureADTokenExchange" }
const withTokens = (from: Observed) => changedLive(from, csiDriverKey, withSpec({ tokenRequests: [AZURE] }))
const csiDriverSpec = ({ live }: Observed): JsonObject => ({ [csiDriverKey]: live.get(csiDriverKey)?.["spec"] })

const withBundle = (from: Observed) => changedLive(from, caKey, () => ({ data: { "ca-bundle.crt": "PEM" } }))
const PROXY = { HTTPS_PROXY: "https://proxy.example:3128", NO_PROXY: ".cluster.local,.svc" }

const RBAC = "rbac.authorization.k8s.io"

/** Upstream's chart on the same cluster, in another namespace. */
const helm = byKey(
  [
    { kind: "ClusterRole", name: "secretproviderclasses-role", rest: { rules: [] } },
    {
      kind: "ClusterRoleBinding",
      name: "secretproviderclasses-rolebinding",
      rest: {
        subjects: [{ kind: "ServiceAccount", name: "secrets-store-csi-driver", namespace: "kube-system" }],
        roleRef: { apiGroup: RBAC, kind: "ClusterRole", name: "secretproviderclasses-role" }
      }
    }
  ].map(({ kind, name, rest: fields }) =>
    manifestOf({
      apiVersion: `${RBAC}/v1`,
      kind,
      metadata: {
        name,
        uid: `uid-of-helms-${name}`,
        resourceVersion: "1",
        labels: { "app.kubernetes.io/managed-by": "Helm" },
        annotations: {
          "meta.helm.sh/release-name": "csi-secrets-store",
          "meta.helm.sh/release-namespace": "kube-system"
        }
      },
      ...fields
    })
  )
)

/**
 * As an operator of before left it: three containers and a volume that none of them mounts, one rule for Secrets in
 * every namespace, a CSIDriver without requiresRepublish and with audiences by hand, and no policies but one.
 */
const takenOver = (): Observed => {
  const data = { "ca-bundle.crt": "PEM" }
  const hash = { [configMapHashKey(sha256, NAMESPACE, CA_CONFIG_MAP)]: configMapHash(data) }
  const volume = {
    name: "non-standard-root-system-trust-ca-bundle",
    configMap: { name: CA_CONFIG_MAP, items: [{ key: "ca-bundle.crt", path: "tls-ca-bundle.pem" }] }
  }
  const daemonSet = ({ metadata, spec }: Manifest): Manifest => {
    const template = objectAt(objectAt({ spec }, "spec"), "template")
    const podMetadata = objectAt(template, "metadata")
    const podSpec = objectAt(template, "spec")
    const written = {
      ...objectAt({ spec }, "spec"),
      template: {
        ...template,
        metadata: { ...podMetadata, annotations: { ...objectAt(podMetadata, "annotations"), ...hash } },
        spec: { ...podSpec, volumes: [...listAt(podSpec, "volumes"), volume] }
      }
    }
    const annotations = {
      ...hash,
      [Annotation.specHash]: sha256(GoJson.encode(written, GoJson.DAEMON_SET_SPEC)),
      [Annotation.stableGeneration]: "1"
    }
    return rolledOut(
      stored(
        manifestOf({ apiVersion: "apps/v1", kind: "DaemonSet", metadata: { ...metadata, annotations }, spec: written })
      )
    )
  }
  const created = plan(observed(), withImages(SIDECARS)).actions.flatMap((action) =>
    action._tag === "Apply" && action.key === daemonSetKey ? [action.change.object] : []
  )
  const steps: ReadonlyArray<readonly [key: string, change: (object: Manifest) => JsonObject]> = [
    [caKey, () => ({ data })],
    [
      roleKey,
      ({ rules }) => ({
        rules: [
          ...(Array.isArray(rules) ? rules.slice(0, -1) : []),
          {
            apiGroups: [""],
            resources: ["secrets"],
            verbs: ["create", "delete", "get", "list", "patch", "update", "watch"]
          }
        ]
      })
    ],
    [
      csiDriverKey,
      ({ metadata, spec }) => {
        const annotation = "4fc61ff54015a7e91e07b93ac8e64f46983a59b4b296344948f72187e3318b33"
        return {
          metadata: { ...metadata, annotations: { ...metadata.annotations, [Annotation.specHash]: annotation } },
          spec: { ...objectAt({ spec }, "spec"), requiresRepublish: false, tokenRequests: [AZURE] }
        }
      }
    ]
  ]
  const full = steps.reduce(
    (at, [key, change]) => changedLive(at, key, change),
    withLive(threeContainers, ...created.map(daemonSet))
  )
  const unlabelled = ({ kind, metadata, ...rest }: Manifest): Manifest => {
    const { labels, ...others } = metadata
    return { kind, ...rest, metadata: kind.startsWith("ClusterRole") ? others : metadata }
  }
  const policies = ["sscsi-allow-egress-to-api-server-operand", "sscsi-default-deny-operand"]
  return {
    ...full,
    live: byKey(
      [...full.live.values()].filter(({ metadata }) => !policies.includes(metadata.name ?? "")).map(unlabelled)
    ),
    syncNamespaces: new Set(["team-a"])
  }
}

const binding = (namespace: string): Manifest =>
  manifestOf({
    apiVersion: `${RBAC}/v1`,
    kind: "RoleBinding",
    metadata: {
      name: "secrets-store-csi-driver-secret-sync",
      namespace,
      uid: `uid-of-binding-${namespace}`,
      resourceVersion: "1",
      labels: { [SYNC_LABEL]: "true" }
    },
    subjects: [{ kind: "ServiceAccount", name: "secrets-store-csi-driver-node-sa", namespace: NAMESPACE }],
    roleRef: { apiGroup: RBAC, kind: "ClusterRole", name: "secrets-store-csi-driver-secret-sync" }
  })

const driverPods = [`${NAMESPACE}/secrets-store-csi-driver-node-8dkqz`]
const generations = [
  {
    group: "apps",
    resource: "daemonsets",
    namespace: NAMESPACE,
    name: "secrets-store-csi-driver-node",
    lastGeneration: 1
  }
]

const STATES: ReadonlyArray<Golden> = [
  {
    name: "absent",
    row: "3.10 Q6",
    title: "there is no ClusterCSIDriver",
    given: observed({ clusterCsiDriver: undefined })
  },
  { name: FRESH, row: "3.10", title: "Managed, and nothing is there yet", given: observed() },
  { name: "managed-settled", row: "3.10 Q26", title: "Managed, and all is as it should be", given: rest },
  {
    name: "managed-deleting-1-used",
    row: "3.10 Q7",
    title: "deleted while Managed, and pods still use the driver",
    given: inState("Managed", { consumers: ["team-a/shop-0", "team-b/api-7f5c"] }, DELETED)
  },
  {
    name: "managed-deleting-2-unused",
    row: "3.10 Q1",
    title: "deleted while Managed, and no pod uses the driver any more",
    given: inState("Managed", {}, DELETED)
  },
  {
    name: "managed-deleting-3-stopping",
    row: "3.10 Q1",
    title: "deleted while Managed: the DaemonSet is gone, its pods are ending",
    given: inState(
      "Managed",
      { live: new Map([...rest.live].filter(([key]) => key !== daemonSetKey)), driverPods },
      DELETED
    )
  },
  {
    name: "managed-deleting-4-stopped",
    row: "3.10 Q1",
    title: "deleted while Managed: no driver runs any more",
    given: inState("Managed", { live: new Map([...rest.live].filter(([key]) => key !== daemonSetKey)) }, DELETED)
  },
  {
    name: "managed-deleting-5-over",
    row: "3.10 Q1",
    title: "deleted while Managed: nothing is left but the finalizer",
    given: inState("Managed", { live: new Map() }, { ...DELETED, finalizers: [FINALIZER, "example.com/other"] })
  },
  {
    name: "unmanaged",
    row: "3.10",
    title: "Unmanaged: nothing is touched",
    given: inState("Unmanaged", only(rest, "DaemonSet"))
  },
  {
    name: "unmanaged-deleting",
    row: "3.10 Q4",
    title: "deleted while Unmanaged: the operand stays, the finalizer goes",
    given: inState("Unmanaged", { live: new Map() }, DELETED)
  },
  {
    name: "removed-1-used",
    row: "3.10 Q7",
    title: "Removed, and pods still use the driver",
    given: inState("Removed", { consumers: Array.from({ length: 12 }, (_, index) => `team-a/shop-${index}`) })
  },
  {
    name: "removed-1-used-without-waiting",
    row: "3.10 Q7",
    title: "Removed, pods still use the driver, and nobody wants to wait for them",
    given: inState("Removed", {}, { annotations: { [Annotation.removeWithoutWaiting]: "true" } })
  },
  { name: "removed-2-unused", row: "3.10 Q1", title: "Removed, and no pod uses the driver", given: inState("Removed") },
  {
    name: "removed-3-stopping",
    row: "3.10 Q1",
    title: "Removed: the DaemonSet is gone, its pods are ending",
    given: inState("Removed", { ...only(rest, "CSIDriver", "ServiceAccount"), driverPods })
  },
  {
    name: "removed-4-stopped",
    row: "3.10 Q1",
    title: "Removed: no driver runs any more, and a RoleBinding for Secrets goes with the rest",
    given: inState("Removed", {
      live: new Map([...rest.live, ...byKey([binding("team-a")])].filter(([key]) => key !== daemonSetKey))
    })
  },
  {
    name: "removed-5-over",
    row: "3.10 Q1",
    title: "Removed: nothing is left but the finalizer",
    given: inState("Removed", { live: new Map() })
  },
  {
    name: "removed-settled",
    row: "3.10 Q16",
    title: "Removed, and over",
    given: inState("Removed", {
      live: new Map(),
      clusterCsiDriver: it7({ managementState: "Removed" }, { finalizers: [] }, { generations, version: "0.9.0" })
    })
  },
  {
    name: "removed-then-managed",
    row: "3.10 B5",
    title: "Managed again: audiences set by hand come back",
    given: observed({
      clusterCsiDriver: it7(
        { managementState: "Managed" },
        {
          finalizers: [],
          annotations: { [Annotation.rememberedTokens]: JSON.stringify({ uid: "before", tokenRequests: [AZURE] }) }
        }
      )
    })
  },
  {
    name: "force",
    row: "3.10 Q16",
    title: "Force: nothing is touched, and it is said",
    given: inState("Force", only(rest, "DaemonSet"))
  },
  {
    name: "state-empty",
    row: "3.10 Q16",
    title: "no management state: nothing is touched, and it is said",
    given: inState(undefined, { live: new Map() }, { finalizers: [] })
  },
  {
    name: "state-other",
    row: "3.10",
    title: "a state that nobody knows",
    given: inState("Paused", only(rest, "DaemonSet"))
  },
  {
    name: "state-other-deleting",
    row: "3.10 Q4",
    title: "deleted in a state that nobody knows",
    given: inState("Paused", { live: new Map() }, DELETED)
  }
]

const CONFIGURATIONS: ReadonlyArray<Golden> = [
  {
    name: "config-none",
    row: "2.3 Q10",
    title: "rotation None, on a settled cluster",
    given: asked(rotation({ type: "None" }))
  },
  {
    name: "config-custom-300",
    row: "2.3",
    title: "rotation every 300 seconds",
    given: asked(rotation({ type: "Custom", custom: { minimumRefreshAge: 300 } }))
  },
  {
    name: "config-custom-90",
    row: "2.3",
    title: "rotation every 90 seconds",
    given: asked(rotation({ type: "Custom", custom: { minimumRefreshAge: 90 } }))
  },
  {
    name: "config-custom-without",
    row: "2.3",
    title: "rotation Custom without an age is the default",
    given: asked(rotation({ type: "Custom" }))
  },
  {
    name: "config-rotation-unknown",
    row: "2.3",
    title: "rotation of an unknown type is the default",
    given: asked(rotation({ type: "Weekly" }))
  },
  {
    name: "config-driver-type-other",
    row: "2.3",
    title: "another driverType is the default",
    given: asked({ driverConfig: { driverType: "AWS" } })
  },
  { name: "config-log-level", row: "5.4", title: "logLevel Debug", given: asked({ logLevel: "Debug" }) },
  {
    name: "config-tokens-one",
    row: "2.3",
    title: "one audience of ours",
    given: asked(tokens({ type: "Managed", managed: { audiences: [AZURE] } }))
  },
  {
    name: "config-tokens-many",
    row: "2.3 Q12",
    title: "several audiences of ours, in order, in place of one set by hand",
    given: withTokens(
      asked(
        tokens({
          type: "Managed",
          managed: { audiences: [{ audience: "sts.amazonaws.com", expirationSeconds: 3600 }, AZURE, { audience: "" }] }
        })
      )
    ),
    shows: csiDriverSpec
  },
  {
    name: "config-tokens-empty",
    row: "2.3 Q12",
    title: "an empty list of ours clears audiences set by hand",
    given: withTokens(asked(tokens({ type: "Managed", managed: { audiences: [] } }))),
    shows: csiDriverSpec
  },
  {
    name: "config-tokens-undefined",
    row: "2.3",
    title: "Managed without a list keeps audiences set by hand, and notes them",
    given: withTokens(asked(tokens({ type: "Managed" }))),
    shows: csiDriverSpec
  },
  {
    name: "config-tokens-unmanaged",
    row: "2.3 Q10",
    title: "Unmanaged keeps audiences set by hand, and notes them",
    given: withTokens(asked(tokens({ type: "Unmanaged" }))),
    shows: csiDriverSpec
  },
  {
    name: "config-tokens-unknown",
    row: "2.3",
    title: "tokenRequests of an unknown type keep audiences set by hand",
    given: withTokens(asked(tokens({ type: "Mine" }))),
    shows: csiDriverSpec
  },
  {
    name: "config-overrides",
    row: "Q19",
    title: "overrides of the node DaemonSet",
    given: asked({
      unsupportedConfigOverrides: {
        secretsStoreDriver: {
          nodeSelector: { pool: "a" },
          tolerations: [{ key: "dedicated", operator: "Exists" }],
          resources: { limits: { memory: "200Mi" } },
          args: ["--provider-health-check=true", "--log-format-json=true"]
        }
      }
    })
  },
  {
    name: "config-overrides-wrong",
    row: "Q19",
    title: "an override that nobody knows: the DaemonSet stays as it is",
    given: asked({ logLevel: "Debug", unsupportedConfigOverrides: { secretsStoreDriver: { nodeSelectors: {} } } })
  },
  {
    name: "config-trusted-ca-and-proxy",
    row: "Q3 Q40",
    title: "certificates and proxy of the cluster are asked for",
    given: asked(
      { unsupportedConfigOverrides: { secretsStoreDriver: { trustedCABundle: true, proxy: true } } },
      { proxy: PROXY },
      withBundle(rest)
    )
  },
  {
    name: "config-trusted-ca-and-proxy-unasked",
    row: "Q3 Q40",
    title: "certificates and proxy of the cluster are there, and nobody asks",
    given: asked({}, { proxy: PROXY }, withBundle(rest))
  }
]

const SURROUNDINGS: ReadonlyArray<Golden> = [
  {
    name: "plain-kubernetes",
    row: "13 Q2",
    title: "a cluster that is not OpenShift",
    given: observed({ servedGroups: new Set(), apiServerPorts: [8443] })
  },
  { name: "three-containers", row: "5.3", title: "with upstream's two sidecars", given: observed(), images: SIDECARS },
  {
    name: "three-containers-to-one",
    row: "5.3",
    title: "from upstream's sidecars to the driver alone",
    given: { ...threeContainers, clusterCsiDriver: it7() }
  },
  {
    name: "sync-namespaces",
    row: "Q29",
    title: "SecretProviderClasses of two namespaces ask for Secrets, those of a third do no more",
    given: withLive({ ...rest, syncNamespaces: new Set(["team-b", "team-a"]) }, binding("team-b"), binding("team-c"))
  },
  {
    name: "foreign-helm",
    row: "Q41",
    title: "an installation by Helm is in the way",
    given: { ...observed(), live: helm }
  },
  {
    name: "foreign-helm-adopted",
    row: "Q41",
    title: "an installation by Helm is taken over",
    given: observed({
      live: helm,
      clusterCsiDriver: it7(undefined, { annotations: { [Annotation.adoptForeign]: "true" } })
    })
  },
  {
    name: "foreign-helm-removed",
    row: "Q41",
    title: "Removed: what belongs to Helm is left alone",
    given: inState("Removed", { live: helm })
  },
  {
    name: "image-missing",
    row: "Q13",
    title: "the driver's image is not set",
    given: observed(),
    images: { driver: "", registrar: "", livenessProbe: "" }
  },
  {
    name: "image-missing-sidecar",
    row: "Q13",
    title: "one of the two sidecars has no image: the DaemonSet stays as it is",
    given: { ...threeContainers, clusterCsiDriver: it7({ managementState: "Managed", logLevel: "Debug" }) },
    images: { ...SIDECARS, livenessProbe: "" }
  },
  {
    name: "unread",
    row: "Q5 Q2",
    title: "two objects cannot be read, and the cluster's configuration cannot",
    given: {
      ...rest,
      live: new Map([...rest.live].filter(([key]) => key !== caKey && key !== csiDriverKey)),
      clusterCsiDriver: it7({ managementState: "Managed", logLevel: "Debug" }),
      unread: new Map([
        [caKey, "ConfigMap cannot be read"],
        [csiDriverKey, "CSIDriver cannot be read"]
      ]),
      observationFailures: ["proxies.config.openshift.io/cluster cannot be read"]
    }
  },
  {
    name: "csidriver-immutable",
    row: "4.4 Q10",
    title: "somebody has changed what cannot be changed back: audiences are noted first",
    given: withTokens(changedLive(rest, csiDriverKey, withSpec({ attachRequired: true }))),
    shows: csiDriverSpec
  },
  {
    name: "csidriver-by-somebody-else",
    row: "Q10 B5",
    title: "somebody has made the CSIDriver again, without the audiences",
    given: {
      ...rest,
      clusterCsiDriver: it7(undefined, {
        annotations: { [Annotation.rememberedTokens]: JSON.stringify({ uid: "before", tokenRequests: [AZURE] }) }
      })
    }
  },
  {
    name: "binding-to-another-role",
    row: "Q27",
    title: "somebody has bound the driver to another role",
    given: changedLive(rest, bindingKey, () => ({
      roleRef: { apiGroup: RBAC, kind: "ClusterRole", name: "cluster-admin" }
    })),
    shows: ({ live }) => ({ [bindingKey]: { roleRef: live.get(bindingKey)?.["roleRef"] } })
  },
  {
    name: "rollout-stuck",
    row: "Q15",
    title: "the driver's pods have crashed for 15 minutes",
    given: {
      ...changedLive(rest, daemonSetKey, ({ metadata }) => ({
        metadata: { ...metadata, generation: 2 },
        status: {
          observedGeneration: 2,
          desiredNumberScheduled: 3,
          updatedNumberScheduled: 1,
          numberReady: 2,
          numberAvailable: 2,
          numberUnavailable: 1
        }
      })),
      stuckMillis: 900_000
    },
    shows: ({ live }) => ({ [daemonSetKey]: { status: live.get(daemonSetKey)?.["status"] } })
  },
  {
    name: "take-over",
    row: "13",
    title: "from the operator of before: no pod is replaced, no right is missing in between",
    given: takenOver(),
    images: SIDECARS,
    shows: csiDriverSpec
  }
]

/** One golden each. */
export const CASES: ReadonlyArray<Golden> = [...STATES, ...CONFIGURATIONS, ...SURROUNDINGS]
