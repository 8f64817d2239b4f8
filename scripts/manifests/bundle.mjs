// assets/olm: the operator as a bundle of OLM in the format registry+v1, for OpenShift and for other clusters with OLM.
//
// On OpenShift ClusterCSIDriver belongs to the platform, and the console has kinds of its own; elsewhere the bundle
// brings the former, and the latter would stop the installation.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { stringify } from "yaml"
import { crd, DRIVER_CRDS, KUBERNETES_CRDS } from "./assets.mjs"
import { consoleObjects } from "./console.mjs"
import { clusterCsiDriver, namespaceObject } from "./deploy.mjs"
import { PROVIDER_CLASSES, podStatusExample } from "./examples.mjs"
import { deploymentSpec, metricsService, networkPolicies, relatedImages } from "./operator.mjs"
import {
  BUNDLE,
  CREATED_AT,
  IMAGES,
  MAINTAINER,
  METRICS_SERVICE,
  NAMESPACES,
  OPERATOR,
  PROVIDER,
  REPOSITORY,
  root,
  SECRET_SYNC
} from "./place.mjs"
import { CLUSTER_RULES, FOREIGN_RULES, NAMESPACE_RULES, secretSyncRole } from "./rbac.mjs"

const NAME = `${OPERATOR}.v${BUNDLE.version}`
const SKIP_RANGE = `>=${BUNDLE.skipsFrom} <${BUNDLE.version}`
const ICON = readFileSync(join(root, "assets/olm/icon.svg")).toString("base64")
const SCORECARD_IMAGE = "quay.io/operator-framework/scorecard-test:v1.41.1"

const FLAVOURS = [
  {
    flavour: "openshift",
    title: "OpenShift",
    crds: DRIVER_CRDS,
    catalogs: "openshift-marketplace",
    extra: () => consoleObjects(`data:image/svg+xml;base64,${ICON}`)
  },
  { flavour: "kubernetes", title: "Kubernetes", crds: KUBERNETES_CRDS, catalogs: "olm", extra: () => ({}) }
]

const SUMMARY =
  "Installs and configures the Secrets Store CSI driver, which mounts secrets of external stores into pods."

const DESCRIPTION = `
Runs the Secrets Store CSI driver on every Linux node, and keeps it running: what an external store holds (HashiCorp Vault,
AWS Secrets Manager, Azure Key Vault, Google Secret Manager and others) appears as files in pods, follows the store, and is
kept as Kubernetes Secrets where a SecretProviderClass asks for that.

## Before it does anything

Create the ClusterCSIDriver \`secrets-store.csi.k8s.io\` with \`managementState: Managed\`, and install the provider of your
store: providers are not part of this operator. The AWS provider does not support hosted control planes.

## Rights

Neither the operator nor the driver may touch Secrets of itself. In a namespace whose SecretProviderClasses have
\`secretObjects\` the operator binds the ClusterRole \`${SECRET_SYNC}\` to the driver, there only.

## Removing it

Remove the pods that mount secrets, delete the ClusterCSIDriver, wait until it is gone, then remove the operator.

## What it does not claim

- FIPS: the programs run on Node.js with the OpenSSL it brings along, which is not a validated module.
- Proxies: the operator talks with the API server only, and hands the cluster's proxy on only when it is told to, since
  the driver calls no store itself.
- Short-lived credentials of a cloud: the operator needs none. Tokens for providers are \`tokenRequests\` of the
  ClusterCSIDriver.
`.trimStart()

const described = (path, displayName, description, ...xDescriptors) => ({
  path,
  displayName,
  description,
  ...(xDescriptors.length > 0 && { "x-descriptors": xDescriptors })
})
const TEXT = "urn:alm:descriptor:text"
const CONDITIONS = "urn:alm:descriptor:io.kubernetes.conditions"

/** What the console says of each kind. */
const KINDS = {
  SecretProviderClass: {
    displayName: "Secret Provider Class",
    description: "Which secrets of which store are mounted, and which of them are kept as Kubernetes Secrets as well.",
    resources: [{ kind: "Secret", version: "v1" }],
    specDescriptors: [
      described("provider", "Provider", "Name of the provider that knows the store.", TEXT),
      described("parameters", "Parameters", "What the provider is told: which secrets, where, as whom."),
      described("secretObjects", "Secret Objects", "Kubernetes Secrets that are made of the mounted files.")
    ],
    statusDescriptors: [],
    example: () => PROVIDER_CLASSES.find(({ sample }) => sample === "sample").object
  },
  SecretProviderClassPodStatus: {
    displayName: "Secret Provider Class Pod Status",
    description: "Which versions of which secrets a pod has mounted. Written by the driver.",
    resources: [{ kind: "Pod", version: "v1" }],
    specDescriptors: [],
    statusDescriptors: [
      described("podName", "Pod", "The pod that has the volume.", TEXT),
      described("secretProviderClassName", "Secret Provider Class", "The class of the volume.", TEXT),
      described("mounted", "Mounted", "Whether the volume is mounted.", TEXT),
      described("targetPath", "Target Path", "Where on its node.", TEXT),
      described("objects", "Objects", "Each secret with its version.")
    ],
    example: podStatusExample
  },
  ClusterCSIDriver: {
    displayName: "Cluster CSI Driver",
    description: "Tells the operator to run the driver, and how.",
    resources: [
      { kind: "DaemonSet", version: "v1" },
      { kind: "Pod", version: "v1" }
    ],
    specDescriptors: [
      described("managementState", "Management State", "Managed, Unmanaged or Removed.", TEXT),
      described("logLevel", "Log Level", "Of the driver.", TEXT),
      described("operatorLogLevel", "Operator Log Level", "Of the operator.", TEXT),
      described("driverConfig", "Driver Configuration", "Rotation of secrets, and tokens for providers.")
    ],
    statusDescriptors: [
      described("conditions", "Conditions", "Available, Progressing, Degraded, and why.", CONDITIONS),
      described("version", "Version", "Of the operator that wrote this.", TEXT),
      described("readyReplicas", "Ready Nodes", "On how many nodes the driver is ready.", TEXT)
    ],
    example: clusterCsiDriver
  }
}

const owned = (file) => {
  const { metadata, spec } = crd(file)
  const { example: _, ...kind } = KINDS[spec.names.kind]
  const { name: version } = spec.versions.find(({ storage }) => storage)
  return { name: metadata.name, version, kind: spec.names.kind, ...kind }
}
const byName = (one, other) => (one.name < other.name ? -1 : 1)

/** An image that is named by its content can be mirrored. */
const isPinned = ({ image }) => image.includes("@sha256:")

const FEATURES = () => ({
  disconnected: relatedImages().every(isPinned),
  "fips-compliant": false,
  "proxy-aware": false,
  "tls-profiles": true,
  "token-auth-aws": false,
  "token-auth-azure": false,
  "token-auth-gcp": false,
  cnf: false,
  cni: false,
  csi: true
})

const json = (value) => JSON.stringify(value, undefined, 2)

const clusterServiceVersion = ({ crds, flavour }) => ({
  apiVersion: "operators.coreos.com/v1alpha1",
  kind: "ClusterServiceVersion",
  metadata: {
    name: NAME,
    namespace: "placeholder",
    annotations: {
      "alm-examples": json(crds.map((file) => KINDS[crd(file).spec.names.kind].example())),
      "operatorframework.io/initialization-resource": json(clusterCsiDriver()),
      "operatorframework.io/suggested-namespace": NAMESPACES[flavour],
      "olm.skipRange": SKIP_RANGE,
      ...(flavour === "openshift" && {
        "olm.properties": JSON.stringify([{ type: "olm.maxOpenShiftVersion", value: BUNDLE.maxOpenShiftVersion }])
      }),
      capabilities: "Full Lifecycle",
      categories: "Storage",
      containerImage: IMAGES.operator,
      createdAt: CREATED_AT,
      description: SUMMARY,
      repository: REPOSITORY,
      support: PROVIDER.name,
      ...Object.fromEntries(
        Object.entries(FEATURES()).map(([name, value]) => [`features.operators.openshift.io/${name}`, String(value)])
      )
    },
    labels: {
      "operatorframework.io/arch.amd64": "supported",
      "operatorframework.io/arch.arm64": "supported",
      "operatorframework.io/os.linux": "supported"
    }
  },
  spec: {
    displayName: "Secrets Store CSI Driver Operator",
    description: DESCRIPTION,
    version: BUNDLE.version,
    maturity: "stable",
    minKubeVersion: BUNDLE.minKubeVersion,
    icon: [{ base64data: ICON, mediatype: "image/svg+xml" }],
    keywords: ["storage", "secrets", "csi", "vault"],
    links: [
      { name: "Documentation", url: REPOSITORY },
      { name: "Source Repository", url: REPOSITORY }
    ],
    maintainers: [MAINTAINER],
    provider: PROVIDER,
    labels: { "alm-owner-metering": OPERATOR, "alm-status-descriptors": NAME },
    selector: { matchLabels: { "alm-owner-metering": OPERATOR } },
    installModes: ["OwnNamespace", "SingleNamespace", "MultiNamespace", "AllNamespaces"].map((type) => ({
      type,
      supported: type === "AllNamespaces"
    })),
    customresourcedefinitions: { owned: crds.map(owned).sort(byName) },
    relatedImages: relatedImages(),
    install: {
      strategy: "deployment",
      spec: {
        permissions: [{ serviceAccountName: OPERATOR, rules: NAMESPACE_RULES }],
        clusterPermissions: [
          {
            serviceAccountName: OPERATOR,
            rules: [...CLUSTER_RULES, ...FOREIGN_RULES.flatMap(({ rules }) => rules)]
          }
        ],
        deployments: [{ name: OPERATOR, label: { app: OPERATOR }, spec: deploymentSpec() }]
      }
    }
  }
})

const LABELS = {
  "operators.operatorframework.io.bundle.mediatype.v1": "registry+v1",
  "operators.operatorframework.io.bundle.manifests.v1": "manifests/",
  "operators.operatorframework.io.bundle.metadata.v1": "metadata/",
  "operators.operatorframework.io.bundle.package.v1": OPERATOR,
  "operators.operatorframework.io.bundle.channels.v1": BUNDLE.channel,
  "operators.operatorframework.io.bundle.channel.default.v1": BUNDLE.channel,
  "operators.operatorframework.io.test.mediatype.v1": "scorecard+v1",
  "operators.operatorframework.io.test.config.v1": "tests/scorecard/"
}

const dockerfile = [
  '# Made by "npm run manifests"; changes belong in scripts/manifests. Its directory is the context:',
  "#   docker build -f bundle.Dockerfile .",
  "FROM scratch",
  "",
  ...Object.entries(LABELS).map(([name, value]) => `LABEL ${name}=${value}`),
  "",
  "COPY manifests/*.yaml /manifests/",
  "COPY metadata/annotations.yaml /metadata/",
  "COPY tests/scorecard /tests/scorecard/",
  ""
].join("\n")

const scorecardTest = (suite, test) => ({
  image: SCORECARD_IMAGE,
  entrypoint: ["scorecard-test", test],
  labels: { suite, test: `${test}-test` }
})
const OLM_TESTS = ["bundle-validation", "crds-have-validation", "crds-have-resources", "spec-descriptors"]
const scorecard = () => ({
  apiVersion: "scorecard.operatorframework.io/v1alpha3",
  kind: "Configuration",
  metadata: { name: "config" },
  stages: [
    {
      parallel: true,
      tests: [
        scorecardTest("basic", "basic-check-spec"),
        ...[...OLM_TESTS, "status-descriptors"].map((test) => scorecardTest("olm", `olm-${test}`))
      ]
    }
  ]
})

/** For pipelines that put digests in the place of these names. */
const imageReferences = () => ({
  apiVersion: "image.openshift.io/v1",
  kind: "ImageStream",
  spec: {
    tags: relatedImages().map(({ image, name }) => ({
      name: name === "driver" ? "secrets-store-csi-driver-container" : name,
      from: { kind: "DockerImage", name: image }
    }))
  }
})

const packageManifest = () => ({
  packageName: OPERATOR,
  defaultChannel: BUNDLE.channel,
  channels: [{ name: BUNDLE.channel, currentCSV: NAME }]
})

const catalogTemplate = () => ({
  schema: "olm.template.basic",
  entries: [
    { schema: "olm.package", name: OPERATOR, defaultChannel: BUNDLE.channel, description: SUMMARY },
    {
      schema: "olm.channel",
      package: OPERATOR,
      name: BUNDLE.channel,
      entries: [{ name: NAME, skipRange: SKIP_RANGE }]
    },
    { schema: "olm.bundle", image: IMAGES.bundle }
  ]
})

const CATALOG = "secrets-store-csi"

const installation = ({ catalogs, flavour }) => {
  const metadata = { name: OPERATOR, namespace: NAMESPACES[flavour] }
  return [
    {
      apiVersion: "operators.coreos.com/v1alpha1",
      kind: "CatalogSource",
      metadata: { name: CATALOG, namespace: catalogs },
      spec: {
        sourceType: "grpc",
        image: IMAGES.catalog,
        displayName: "Secrets Store CSI",
        publisher: PROVIDER.name,
        grpcPodConfig: { securityContextConfig: "restricted" }
      }
    },
    namespaceObject(NAMESPACES[flavour]),
    // Without targetNamespaces: all of them.
    { apiVersion: "operators.coreos.com/v1", kind: "OperatorGroup", metadata, spec: {} },
    {
      apiVersion: "operators.coreos.com/v1alpha1",
      kind: "Subscription",
      metadata,
      spec: { channel: BUNDLE.channel, name: OPERATOR, source: CATALOG, sourceNamespace: catalogs }
    }
  ]
}

const one = (object, ...why) => ({ objects: [object], why })

/** Files below assets/olm by flavour and name: a text, or what they are for and their objects. */
export const bundleFiles = () =>
  Object.fromEntries(
    FLAVOURS.map((it) => {
      const manifests = {
        [`${OPERATOR}.clusterserviceversion.yaml`]: one(clusterServiceVersion(it)),
        [`${METRICS_SERVICE}.yaml`]: one(metricsService({ servingCert: it.flavour === "openshift" })),
        [`${SECRET_SYNC}.yaml`]: one(secretSyncRole(), "Bound by the operator, namespace by namespace."),
        ...Object.fromEntries(Object.entries(it.extra()).map(([name, object]) => [name, one(object)])),
        ...Object.fromEntries(it.crds.map((name) => [name, one(crd(name))])),
        // Not in the bundle: it has no name that ends with yaml.
        ...(it.flavour === "openshift" && { "image-references": stringify(imageReferences(), { lineWidth: 0 }) })
      }
      const files = {
        ...Object.fromEntries(Object.entries(manifests).map(([name, content]) => [`manifests/${name}`, content])),
        "metadata/annotations.yaml": one({ annotations: LABELS }),
        "tests/scorecard/config.yaml": one(scorecard()),
        "bundle.Dockerfile": dockerfile,
        [`${OPERATOR}.package.yaml`]: one(packageManifest(), "For catalogs of the older format."),
        "catalog-template.yaml": one(
          catalogTemplate(),
          "A catalog of this bundle alone: opm alpha render-template basic catalog-template.yaml"
        ),
        "install.yaml": {
          objects: installation(it),
          why: [
            `An example: catalog, namespace and subscription on ${it.title}. Then ../../deploy/clustercsidriver.yaml.`
          ]
        },
        "network-policy.yaml": {
          objects: networkPolicies(NAMESPACES[it.flavour]),
          why: [
            "The operator's pods talk with the API server, and answer for metrics; nothing else. Apply it beside the bundle:",
            "OLM takes NetworkPolicies in bundles only since OpenShift 4.20.",
            "An API server that listens at another port than 443 or 6443 has to be added first."
          ]
        }
      }
      return [it.flavour, files]
    })
  )
