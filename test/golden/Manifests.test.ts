/**
 * assets/deploy and assets/olm: they are what the script writes, and what OLM, Kubernetes and the operator ask of them.
 * What is read out of a file is decoded first, so a field that is missing fails with its name.
 */
import { execFileSync } from "node:child_process"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Predicate, Schema } from "effect"
import { parse, parseAllDocuments } from "yaml"

const root = fileURLToPath(new URL("../..", import.meta.url))
const assets = join(root, "assets")
const FLAVOURS = ["openshift", "kubernetes"] as const
type Flavour = (typeof FLAVOURS)[number]
const OPERATOR = "secrets-store-csi-driver-operator"
const NODE_ACCOUNT = "secrets-store-csi-driver-node-sa"
const DRIVER = "secrets-store.csi.k8s.io"
const SECRET_SYNC = "secrets-store-csi-driver-secret-sync"

const texts = Schema.Array(Schema.String)
const labels = Schema.Record(Schema.String, Schema.String)
const decode =
  <S extends Schema.ConstraintDecoder<unknown>>(schema: S) =>
  (value: unknown) =>
    Schema.decodeUnknownSync(schema)(value)

const Named = Schema.Struct({
  apiVersion: Schema.String,
  kind: Schema.String,
  metadata: Schema.Struct({
    name: Schema.String,
    namespace: Schema.optionalKey(Schema.String),
    labels: Schema.optionalKey(labels)
  })
})

const Rule = Schema.Struct({
  apiGroups: Schema.optionalKey(texts),
  resources: Schema.optionalKey(texts),
  resourceNames: Schema.optionalKey(texts),
  nonResourceURLs: Schema.optionalKey(texts),
  verbs: texts
})
type Rule = typeof Rule.Type
const Role = Schema.Struct({ ...Named.fields, rules: Schema.Array(Rule) })

const Binding = Schema.Struct({
  ...Named.fields,
  subjects: Schema.Array(
    Schema.Struct({ kind: Schema.String, name: Schema.String, namespace: Schema.optionalKey(Schema.String) })
  ),
  roleRef: Schema.Struct({ kind: Schema.String, name: Schema.String })
})

const Probe = Schema.Struct({
  httpGet: Schema.Struct({ path: Schema.String, port: Schema.String, scheme: Schema.optionalKey(Schema.String) })
})
const Container = Schema.Struct({
  name: Schema.String,
  image: Schema.String,
  args: texts,
  env: Schema.Array(
    Schema.Struct({
      name: Schema.String,
      value: Schema.optionalKey(Schema.String),
      valueFrom: Schema.optionalKey(Schema.Unknown)
    })
  ),
  ports: Schema.Array(Schema.Struct({ name: Schema.String, containerPort: Schema.Int })),
  livenessProbe: Probe,
  readinessProbe: Probe,
  resources: Schema.Unknown,
  securityContext: Schema.Unknown,
  terminationMessagePolicy: Schema.String
})
const Workload = Schema.Struct({
  replicas: Schema.optionalKey(Schema.Int),
  selector: Schema.Struct({ matchLabels: labels }),
  template: Schema.Struct({
    metadata: Schema.Struct({ labels, annotations: labels }),
    spec: Schema.Struct({
      serviceAccountName: Schema.String,
      priorityClassName: Schema.String,
      affinity: Schema.optionalKey(Schema.Unknown),
      tolerations: Schema.Array(
        Schema.Struct({
          key: Schema.optionalKey(Schema.String),
          operator: Schema.String,
          effect: Schema.optionalKey(Schema.String)
        })
      ),
      securityContext: Schema.optionalKey(Schema.Unknown),
      containers: Schema.Array(Container),
      volumes: Schema.Array(Schema.Record(Schema.String, Schema.Unknown))
    })
  })
})

const Descriptor = Schema.Struct({ path: Schema.String, displayName: Schema.String, description: Schema.String })
const Csv = Schema.Struct({
  kind: Schema.Literal("ClusterServiceVersion"),
  metadata: Schema.Struct({ name: Schema.String, annotations: labels, labels }),
  spec: Schema.Struct({
    version: Schema.String,
    minKubeVersion: Schema.String,
    maturity: Schema.String,
    displayName: Schema.String,
    description: Schema.String,
    icon: Schema.Array(Schema.Struct({ base64data: Schema.String, mediatype: Schema.String })),
    keywords: texts,
    links: Schema.Array(Schema.Struct({ name: Schema.String, url: Schema.String })),
    maintainers: Schema.Array(Schema.Struct({ name: Schema.String, email: Schema.String })),
    provider: Schema.Struct({ name: Schema.String }),
    labels,
    selector: Schema.Struct({ matchLabels: labels }),
    installModes: Schema.Array(Schema.Struct({ type: Schema.String, supported: Schema.Boolean })),
    customresourcedefinitions: Schema.Struct({
      owned: Schema.Array(
        Schema.Struct({
          name: Schema.String,
          version: Schema.String,
          kind: Schema.String,
          displayName: Schema.String,
          description: Schema.String,
          resources: Schema.NonEmptyArray(Schema.Struct({ kind: Schema.String, version: Schema.String })),
          specDescriptors: Schema.Array(Descriptor),
          statusDescriptors: Schema.Array(Descriptor)
        })
      )
    }),
    relatedImages: Schema.Array(Schema.Struct({ name: Schema.String, image: Schema.String })),
    install: Schema.Struct({
      strategy: Schema.Literal("deployment"),
      spec: Schema.Struct({
        permissions: Schema.Array(Schema.Struct({ serviceAccountName: Schema.String, rules: Schema.Array(Rule) })),
        clusterPermissions: Schema.Array(
          Schema.Struct({ serviceAccountName: Schema.String, rules: Schema.Array(Rule) })
        ),
        deployments: Schema.Array(Schema.Struct({ name: Schema.String, label: labels, spec: Workload }))
      })
    })
  })
})

const Crd = Schema.Struct({
  metadata: Schema.Struct({ name: Schema.String }),
  spec: Schema.Struct({
    group: Schema.String,
    names: Schema.Struct({ kind: Schema.String, plural: Schema.String }),
    versions: Schema.Array(
      Schema.Struct({
        name: Schema.String,
        served: Schema.Boolean,
        storage: Schema.Boolean,
        schema: Schema.Struct({ openAPIV3Schema: Schema.Unknown })
      })
    )
  })
})

const Service = Schema.Struct({
  ...Named.fields,
  spec: Schema.Struct({ selector: labels, ports: Schema.Array(Schema.Struct({ targetPort: Schema.Int })) })
})

const NetworkPolicy = Schema.Struct({
  ...Named.fields,
  spec: Schema.Struct({
    podSelector: Schema.Struct({ matchLabels: labels }),
    policyTypes: texts,
    ingress: Schema.optionalKey(Schema.Unknown),
    egress: Schema.optionalKey(Schema.Unknown)
  })
})

type Files = Readonly<Record<string, string>>

const filesOf = (directory: string): Files =>
  Object.fromEntries(
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path.slice(directory.length + 1), readFileSync(path, "utf8")])
  )

const objectsOf = (text: string | undefined): ReadonlyArray<unknown> =>
  parseAllDocuments(text ?? "").map((document) => document.toJS())
const read = (path: string) => objectsOf(readFileSync(join(assets, path), "utf8"))
const namedOf = (path: string) => read(path).map(decode(Named))

const find = <S extends Schema.ConstraintDecoder<unknown>>(
  schema: S,
  objects: ReadonlyArray<unknown>,
  kind: string,
  name?: string
) =>
  objects
    .filter((object) => {
      const { kind: itsKind, metadata } = decode(Named)(object)
      return itsKind === kind && (name === undefined || metadata.name === name)
    })
    .map(decode(schema))

const only = <A>(items: ReadonlyArray<A>): A => {
  assert.lengthOf(items, 1)
  return items[0]!
}

/** Runs the script as at a release, whose images are given by the environment, or as it is checked in. */
const generated = (images: Readonly<Record<string, string>> = {}): Files => {
  const directory = mkdtempSync(join(tmpdir(), "manifests-"))
  try {
    const env = { PATH: process.env["PATH"] ?? "", ...images }
    execFileSync(process.execPath, [join(root, "scripts/manifests.mjs"), directory], { env })
    return filesOf(directory)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const csvPath = (flavour: Flavour) => `olm/${flavour}/manifests/${OPERATOR}.clusterserviceversion.yaml`
const csvOf = (flavour: Flavour) => decode(Csv)(only(read(csvPath(flavour))))
const deploymentOf = (flavour: Flavour) => only(csvOf(flavour).spec.install.spec.deployments)
const crdsOf = (flavour: Flavour) =>
  readdirSync(join(assets, `olm/${flavour}/manifests`))
    .map((name) => only(read(`olm/${flavour}/manifests/${name}`)))
    .filter((object) => Predicate.isObject(object) && "kind" in object && object["kind"] === "CustomResourceDefinition")
    .map(decode(Crd))

const bySemver = (one: string, other: string) => one.localeCompare(other, "en", { numeric: true })

describe("assets/deploy, assets/olm", () => {
  it('are what "npm run manifests" writes', () => {
    const { "icon.svg": _, ...olm } = filesOf(join(assets, "olm"))
    const prefixed = (prefix: string, files: Files) =>
      Object.fromEntries(Object.entries(files).map(([name, text]) => [`${prefix}/${name}`, text]))
    const checkedIn = { ...prefixed("deploy", filesOf(join(assets, "deploy"))), ...prefixed("olm", olm) }
    assert.deepStrictEqual(generated(), checkedIn)
  })

  it("hold no placeholder, and no object twice", () => {
    for (const [name, text] of Object.entries({
      ...filesOf(join(assets, "deploy")),
      ...filesOf(join(assets, "olm"))
    })) {
      assert.notMatch(text, /\$\{/u, name)
    }
    for (const name of readdirSync(join(assets, "deploy"))) {
      const keys = namedOf(`deploy/${name}`).map(({ kind, metadata }) =>
        [kind, metadata.namespace, metadata.name].join(" ")
      )
      assert.deepStrictEqual(keys, [...new Set(keys)], name)
    }
  })
})

describe.each(FLAVOURS)("the bundle for %s", (flavour) => {
  const csv = csvOf(flavour)
  const files = filesOf(join(assets, "olm", flavour))
  const manifests = Object.entries(files).filter(([name]) => /^manifests\/.*\.yaml$/u.test(name))

  it("7.1 has the layout of registry+v1", () => {
    const outside = Object.keys(files).filter((name) => !name.startsWith("manifests/"))
    assert.deepStrictEqual(outside.sort(), [
      ...["bundle.Dockerfile", "catalog-template.yaml", "install.yaml", "metadata/annotations.yaml"],
      ...["network-policy.yaml", `${OPERATOR}.package.yaml`, "tests/scorecard/config.yaml"]
    ])
  })

  it("7.1 each manifest is one object, which begins at once", () => {
    for (const [name, text] of manifests) {
      assert.lengthOf(objectsOf(text), 1, name)
      assert.notMatch(text, /^---/mu, name)
    }
  })

  it("7.1, 7.5 has one CSV, and no kind that OLM does not take or the cluster does not have", () => {
    const kinds = manifests.map(([, text]) => decode(Named)(parse(text)).kind)
    const console = ["ConsoleQuickStart", ...Array.from({ length: 4 }, () => "ConsoleYAMLSample")]
    assert.deepStrictEqual(
      kinds.sort(),
      [
        ...["ClusterRole", "ClusterServiceVersion", "Service"],
        ...csv.spec.customresourcedefinitions.owned.map(() => "CustomResourceDefinition"),
        ...(flavour === "openshift" ? console : [])
      ].sort()
    )
  })

  it("7.1 labels of the image are the annotations, scorecard's among them (Q30)", () => {
    const prefix = "operators.operatorframework.io"
    const { annotations } = decode(Schema.Struct({ annotations: labels }))(parse(files["metadata/annotations.yaml"]!))
    assert.deepStrictEqual(annotations, {
      [`${prefix}.bundle.mediatype.v1`]: "registry+v1",
      [`${prefix}.bundle.manifests.v1`]: "manifests/",
      [`${prefix}.bundle.metadata.v1`]: "metadata/",
      [`${prefix}.bundle.package.v1`]: OPERATOR,
      [`${prefix}.bundle.channels.v1`]: "stable",
      [`${prefix}.bundle.channel.default.v1`]: "stable",
      [`${prefix}.test.mediatype.v1`]: "scorecard+v1",
      [`${prefix}.test.config.v1`]: "tests/scorecard/"
    })
    const dockerfile = files["bundle.Dockerfile"]!
    const labelled = [...dockerfile.matchAll(/^LABEL ([^=]+)=(.*)$/gmu)].map(([, name, value]) => [name, value])
    assert.deepStrictEqual<unknown>(Object.fromEntries(labelled), annotations)
    const copied = [...dockerfile.matchAll(/^COPY (\S+) (\S+)$/gmu)].map(([, from, to]) => [from, to])
    assert.deepStrictEqual(copied, [
      ["manifests/*.yaml", "/manifests/"],
      ["metadata/annotations.yaml", "/metadata/"],
      ["tests/scorecard", "/tests/scorecard/"]
    ])
    assert.match(dockerfile, /^FROM scratch$/mu)
  })

  it("7.1, 7.2 name, version, skipRange, package, catalog and subscription agree (Q30)", () => {
    const { version } = csv.spec
    const { name } = csv.metadata
    assert.strictEqual(name, `${OPERATOR}.v${version}`)
    assert.deepStrictEqual(csv.spec.labels, {
      "alm-owner-metering": OPERATOR,
      "alm-status-descriptors": name
    })
    assert.deepStrictEqual(csv.spec.selector.matchLabels, { "alm-owner-metering": OPERATOR })
    const skipRange = `>=4.13.0-0 <${version}`
    assert.strictEqual(csv.metadata.annotations["olm.skipRange"], skipRange)
    assert.isAbove(bySemver(version, "5.0.0"), 0, "it comes after the operator that it replaces")
    const { version: project } = decode(Schema.Struct({ version: Schema.String }))(
      JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    )
    const [major, ...rest] = project.split(".")
    assert.strictEqual(version, [Number(major) + 5, ...rest].join("."))
    assert.deepStrictEqual<unknown>(parse(files[`${OPERATOR}.package.yaml`]!), {
      packageName: OPERATOR,
      defaultChannel: "stable",
      channels: [{ name: "stable", currentCSV: name }]
    })
    const { entries } = decode(Schema.Struct({ entries: Schema.Array(Schema.Record(Schema.String, Schema.Unknown)) }))(
      parse(files["catalog-template.yaml"]!)
    )
    assert.deepStrictEqual(
      entries.map(({ schema, name: itsName, package: ofPackage, entries: versions }) => [
        ...[schema, itsName, ofPackage, versions]
      ]),
      [
        ["olm.package", OPERATOR, undefined, undefined],
        ["olm.channel", "stable", OPERATOR, [{ name, skipRange }]],
        ["olm.bundle", undefined, undefined, undefined]
      ]
    )
  })

  it("7.2 install contract: suggested namespace, an OperatorGroup for all, the package's channel", () => {
    const namespace = csv.metadata.annotations["operatorframework.io/suggested-namespace"]
    const objects = objectsOf(files["install.yaml"])
    assert.strictEqual(only(find(Named, objects, "Namespace")).metadata.name, namespace)
    if (flavour === "openshift") assert.strictEqual(namespace, "openshift-cluster-csi-drivers")
    const Spec = Schema.Struct({ ...Named.fields, spec: Schema.Record(Schema.String, Schema.Unknown) })
    const group = only(find(Spec, objects, "OperatorGroup"))
    assert.deepStrictEqual([group.metadata.namespace, group.spec], [namespace, {}])
    const subscription = only(find(Spec, objects, "Subscription"))
    const catalog = only(find(Spec, objects, "CatalogSource"))
    assert.deepStrictEqual([subscription.metadata.namespace, subscription.metadata.name], [namespace, OPERATOR])
    assert.deepStrictEqual<unknown>(subscription.spec, {
      channel: "stable",
      name: OPERATOR,
      source: catalog.metadata.name,
      sourceNamespace: catalog.metadata.namespace
    })
  })

  it("7.2 owns the CRDs that it brings, all of them and no other", () => {
    const { owned } = csv.spec.customresourcedefinitions
    const crds = crdsOf(flavour)
    assert.sameDeepMembers(
      owned.map(({ kind, name, version }) => ({ kind, name, version })),
      crds.map(({ metadata, spec }) => ({
        kind: spec.names.kind,
        name: metadata.name,
        version: only(spec.versions.filter(({ served, storage }) => served && storage)).name
      }))
    )
    assert.includeMembers(
      owned.map(({ kind }) => kind),
      ["SecretProviderClass", "SecretProviderClassPodStatus"]
    )
    for (const { metadata, spec } of crds) assert.strictEqual(metadata.name, `${spec.names.plural}.${spec.group}`)
  })

  it("13 ClusterCSIDriver belongs to the platform on OpenShift, and to the bundle elsewhere", () => {
    const name = "clustercsidrivers.operator.openshift.io"
    const brings = crdsOf(flavour).some(({ metadata }) => metadata.name === name)
    assert.strictEqual(brings, flavour === "kubernetes")
  })

  it("7.5 descriptors name fields that exist (Q30)", () => {
    for (const { kind, name, specDescriptors, statusDescriptors, version } of csv.spec.customresourcedefinitions
      .owned) {
      assert.isNotEmpty([...specDescriptors, ...statusDescriptors], kind)
      const crd = only(crdsOf(flavour).filter(({ metadata }) => metadata.name === name))
      const { openAPIV3Schema } = only(crd.spec.versions.filter((it) => it.name === version)).schema
      const Part = Schema.Struct({ properties: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)) })
      const propertiesOf = (schema: unknown) => decode(Part)(schema ?? {}).properties ?? {}
      const { spec, status } = propertiesOf(openAPIV3Schema)
      for (const { path } of specDescriptors) assert.property(propertiesOf(spec), path, `${kind} spec`)
      for (const { path } of statusDescriptors) assert.property(propertiesOf(status), path, `${kind} status`)
    }
  })

  it("7.5 there is an example of every owned kind, and a resource to begin with (Q30)", () => {
    const { annotations } = csv.metadata
    const examples = decode(Schema.Array(Named))(JSON.parse(annotations["alm-examples"] ?? ""))
    assert.sameDeepMembers(
      examples.map(({ apiVersion, kind }) => ({ apiVersion, kind })),
      csv.spec.customresourcedefinitions.owned.map(({ kind, name, version }) => ({
        apiVersion: `${name.slice(name.indexOf(".") + 1)}/${version}`,
        kind
      }))
    )
    const Initial = Schema.Struct({ ...Named.fields, spec: Schema.Struct({ managementState: Schema.String }) })
    const initial = decode(Initial)(JSON.parse(annotations["operatorframework.io/initialization-resource"] ?? ""))
    assert.deepStrictEqual(
      [initial.apiVersion, initial.kind, initial.metadata.name, initial.spec.managementState],
      ["operator.openshift.io/v1", "ClusterCSIDriver", DRIVER, "Managed"]
    )
    assert.deepStrictEqual<unknown>(
      JSON.parse(annotations["operatorframework.io/initialization-resource"] ?? ""),
      only(read("deploy/clustercsidriver.yaml"))
    )
  })

  it("7.2, 7.5 claims what is so, and nothing else (Q40)", () => {
    const prefix = "features.operators.openshift.io/"
    const claims = Object.entries(csv.metadata.annotations).filter(([name]) => name.startsWith(prefix))
    assert.deepStrictEqual(Object.fromEntries(claims.map(([name, value]) => [name.slice(prefix.length), value])), {
      disconnected: "false", // no image is published yet, so none has a digest
      "fips-compliant": "false",
      "proxy-aware": "false",
      "tls-profiles": "true",
      "token-auth-aws": "false",
      "token-auth-azure": "false",
      "token-auth-gcp": "false",
      cnf: "false",
      cni: "false",
      csi: "true"
    })
    assert.match(csv.spec.description, /FIPS/u)
    assert.deepStrictEqual(csv.metadata.labels, {
      "operatorframework.io/arch.amd64": "supported",
      "operatorframework.io/arch.arm64": "supported",
      "operatorframework.io/os.linux": "supported"
    })
    const properties = csv.metadata.annotations["olm.properties"]
    assert.strictEqual(
      properties,
      flavour === "openshift" ? '[{"type":"olm.maxOpenShiftVersion","value":"5.1"}]' : undefined
    )
    const { capabilities, categories, containerImage } = csv.metadata.annotations
    assert.deepStrictEqual([capabilities, categories], ["Full Lifecycle", "Storage"])
    assert.strictEqual(containerImage, only(deploymentOf(flavour).spec.template.spec.containers).image)
  })

  it("7.2 what a catalog shows", () => {
    const { icon, installModes, links, maintainers, maturity, minKubeVersion, provider } = csv.spec
    const { base64data, mediatype } = only(icon)
    assert.strictEqual(mediatype, "image/svg+xml")
    const svg = Buffer.from(base64data, "base64").toString("utf8")
    assert.strictEqual(svg, readFileSync(join(assets, "olm/icon.svg"), "utf8"))
    assert.match(svg, /^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"[\s\S]*<\/svg>\s*$/u)
    assert.deepStrictEqual(
      installModes.map(({ supported, type }) => [type, supported]),
      [
        ["OwnNamespace", false],
        ["SingleNamespace", false],
        ["MultiNamespace", false],
        ["AllNamespaces", true]
      ]
    )
    assert.deepStrictEqual([maturity, minKubeVersion], ["stable", "1.26.0"])
    for (const { url } of links) assert.match(url, /^https:\/\//u)
    for (const { email } of maintainers) assert.match(email, /^\S+@\S+$/u)
    assert.isNotEmpty(provider.name)
    assert.match(csv.metadata.annotations["createdAt"] ?? "", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/u)
  })

  it("7.5 scorecard has its configuration where the annotation says", () => {
    const Config = Schema.Struct({
      stages: Schema.Array(
        Schema.Struct({ tests: Schema.Array(Schema.Struct({ image: Schema.String, entrypoint: texts })) })
      )
    })
    const { stages } = decode(Config)(parse(files["tests/scorecard/config.yaml"]!))
    assert.deepStrictEqual(
      only(stages).tests.map(({ entrypoint }) => entrypoint[1]),
      [
        ...["basic-check-spec", "olm-bundle-validation", "olm-crds-have-validation", "olm-crds-have-resources"],
        ...["olm-spec-descriptors", "olm-status-descriptors"]
      ]
    )
  })

  it("7.4 its Deployment is that of the plain manifests", () => {
    const Deployment = Schema.Struct({ ...Named.fields, spec: Workload })
    const plain = only(find(Deployment, read("deploy/operator.yaml"), "Deployment"))
    const { label, name, spec } = deploymentOf(flavour)
    assert.deepStrictEqual([name, label, spec], [plain.metadata.name, plain.metadata.labels, plain.spec])
  })

  it("7.3 its rights are those of the plain manifests", () => {
    const { clusterPermissions, permissions } = csv.spec.install.spec
    const roles = (kind: string) => find(Role, read("deploy/operator.yaml"), kind, OPERATOR)
    const [own, foreign] = [roles("Role").slice(0, 1), roles("Role").slice(1)]
    assert.deepStrictEqual(
      foreign.map(({ metadata }) => metadata.namespace),
      ["kube-system", "default"]
    )
    assert.deepStrictEqual(permissions, [{ serviceAccountName: OPERATOR, rules: only(own).rules }])
    assert.deepStrictEqual(clusterPermissions, [
      {
        serviceAccountName: OPERATOR,
        rules: [...only(roles("ClusterRole")).rules, ...foreign.flatMap(({ rules }) => rules)]
      }
    ])
  })

  it("7.4 relatedImages are all images that run (Q30)", () => {
    const { containers } = deploymentOf(flavour).spec.template.spec
    const images = containers.flatMap(({ env, image }) => [
      image,
      ...env.filter(({ name }) => name.endsWith("_IMAGE")).map(({ value }) => value)
    ])
    assert.sameMembers(
      csv.spec.relatedImages.map(({ image }) => image),
      images
    )
    assert.lengthOf(images, 2, "the operator and the driver: no sidecars")
  })

  it("7.5, 13 the console's objects are in the bundle for OpenShift only", () => {
    const names = manifests.map(([name]) => name).filter((name) => name.includes("console"))
    assert.lengthOf(names, flavour === "openshift" ? 5 : 0)
    assert.strictEqual("manifests/image-references" in files, flavour === "openshift")
    const Sample = Schema.Struct({
      ...Named.fields,
      spec: Schema.Struct({
        targetResource: Schema.Struct({ apiVersion: Schema.String, kind: Schema.String }),
        yaml: Schema.String
      })
    })
    const samples = names
      .filter((name) => name.includes("sample"))
      .map((name) => decode(Sample)(parse(files[name]!)))
      .map(({ metadata, spec }) => {
        const Class = Schema.Struct({
          ...Named.fields,
          spec: Schema.Struct({ provider: Schema.String, parameters: labels })
        })
        const object = decode(Class)(parse(spec.yaml))
        assert.deepStrictEqual(spec.targetResource, { apiVersion: object.apiVersion, kind: object.kind })
        return [metadata.name, object.kind, object.spec.provider, Object.keys(object.spec.parameters).join()]
      })
    const sample = (name: string, provider: string, parameters: string) => [
      ...[`secrets-store-csi-secretproviderclass-${name}`, "SecretProviderClass", provider, parameters]
    ]
    assert.sameDeepMembers(
      samples,
      flavour === "openshift"
        ? [
            sample("aws", "aws", "region,objects"),
            sample("azure", "azure", "clientID,keyvaultName,tenantId,objects"),
            sample("gcp", "gcp", "secrets"),
            sample("sample", "vault", "vaultAddress,roleName,objects")
          ]
        : []
    )
  })

  it("7.5 the Service leads to the operator; its certificate is asked for where somebody makes it", () => {
    const Annotated = Schema.Struct({ metadata: Schema.Struct({ annotations: Schema.optionalKey(labels) }) })
    const text = files[`manifests/${OPERATOR}-metrics.yaml`]!
    const { spec } = decode(Service)(parse(text))
    const deployment = deploymentOf(flavour).spec
    assert.deepStrictEqual(spec.selector, deployment.selector.matchLabels)
    assert.deepStrictEqual(
      spec.ports.map(({ targetPort }) => targetPort),
      only(deployment.template.spec.containers).ports.map(({ containerPort }) => containerPort)
    )
    assert.deepStrictEqual<unknown>(
      decode(Annotated)(parse(text)).metadata.annotations,
      flavour === "openshift"
        ? { "service.beta.openshift.io/serving-cert-secret-name": `${OPERATOR}-metrics-serving-cert` }
        : undefined
    )
  })

  it("B10 the operator's pods are denied everything but metrics, the API server and names", () => {
    const namespace = csv.metadata.annotations["operatorframework.io/suggested-namespace"]
    const policies = objectsOf(files["network-policy.yaml"]).map(decode(NetworkPolicy))
    for (const { metadata, spec } of policies) {
      assert.strictEqual(metadata.namespace, namespace)
      assert.deepStrictEqual(spec.podSelector.matchLabels, deploymentOf(flavour).spec.selector.matchLabels)
    }
    const port = (protocol: string, ...ports: ReadonlyArray<number>) => ports.map((it) => ({ port: it, protocol }))
    assert.deepStrictEqual<unknown>(
      policies.map(({ spec: { podSelector: _, ...spec } }) => spec),
      [
        { policyTypes: ["Ingress", "Egress"] },
        { policyTypes: ["Ingress"], ingress: [{ ports: port("TCP", 8443) }] },
        {
          policyTypes: ["Egress"],
          egress: [{ ports: port("TCP", 443, 6443) }, { ports: [...port("UDP", 53, 5353), ...port("TCP", 53, 5353)] }]
        }
      ]
    )
    const withoutNamespace = ({ metadata: { namespace: _, ...metadata }, ...rest }: typeof NetworkPolicy.Type) => ({
      ...rest,
      metadata
    })
    assert.deepStrictEqual(
      find(NetworkPolicy, read("deploy/operator.yaml"), "NetworkPolicy").map(withoutNamespace),
      policies.map(withoutNamespace)
    )
  })
})

describe("the operator's Deployment", () => {
  const { spec } = deploymentOf("openshift")
  const pod = spec.template.spec
  const container = only(pod.containers)

  it("7.4 pod", () => {
    assert.deepStrictEqual([spec.replicas, spec.selector.matchLabels], [1, { app: OPERATOR }])
    assert.deepStrictEqual(spec.template.metadata, {
      annotations: { "target.workload.openshift.io/management": '{"effect": "PreferredDuringScheduling"}' },
      labels: {
        app: OPERATOR,
        "openshift.storage.network-policy.operator-metrics-range": "allow",
        "openshift.storage.network-policy.api-server": "allow"
      }
    })
    assert.deepStrictEqual([pod.serviceAccountName, pod.priorityClassName], [OPERATOR, "system-cluster-critical"])
  })

  it("7.4 prefers nodes of the control plane, by both names (Q30)", () => {
    const keys = ["node-role.kubernetes.io/master", "node-role.kubernetes.io/control-plane"]
    assert.deepStrictEqual<unknown>(pod.affinity, {
      nodeAffinity: {
        preferredDuringSchedulingIgnoredDuringExecution: keys.map((key) => ({
          weight: 100,
          preference: { matchExpressions: [{ key, operator: "Exists" }] }
        }))
      }
    })
    assert.deepStrictEqual(pod.tolerations, [
      { key: "CriticalAddonsOnly", operator: "Exists" },
      ...keys.map((key) => ({ key, operator: "Exists", effect: "NoSchedule" }))
    ])
  })

  it("7.4 B11 may do little on its node", () => {
    assert.deepStrictEqual<unknown>(pod.securityContext, {
      runAsNonRoot: true,
      seccompProfile: { type: "RuntimeDefault" }
    })
    assert.deepStrictEqual<unknown>(container.securityContext, {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ["ALL"] },
      readOnlyRootFilesystem: true
    })
    assert.strictEqual(container.terminationMessagePolicy, "FallbackToLogsOnError")
    assert.deepStrictEqual<unknown>(container.resources, { requests: { cpu: "10m", memory: "50Mi" } })
  })

  it("7.4, 1.5 its certificate may be missing (Q31)", () => {
    assert.deepStrictEqual<unknown>(pod.volumes, [
      { name: "tmp", emptyDir: { medium: "Memory" } },
      { name: "serving-cert", secret: { secretName: `${OPERATOR}-metrics-serving-cert`, optional: true } }
    ])
  })

  it("1.5, 7.4 is asked whether it lives and is ready (Q22)", () => {
    assert.deepStrictEqual(container.ports, [{ name: "https", containerPort: 8443 }])
    const asked = ({ httpGet }: typeof Probe.Type) => [httpGet.scheme, httpGet.port, httpGet.path]
    assert.deepStrictEqual(asked(container.livenessProbe), ["HTTPS", "https", "/healthz"])
    assert.deepStrictEqual(asked(container.readinessProbe), ["HTTPS", "https", "/readyz"])
  })

  it("1.1, 1.8 is told its namespace, its name and the driver's image", () => {
    assert.deepStrictEqual(container.args, ["start", "-v=2", "--namespace=$(POD_NAMESPACE)"])
    const field = (fieldPath: string) => ({ fieldRef: { fieldPath } })
    const { relatedImages } = csvOf("openshift").spec
    assert.deepStrictEqual<unknown>(container.env, [
      { name: "POD_NAME", valueFrom: field("metadata.name") },
      { name: "POD_NAMESPACE", valueFrom: field("metadata.namespace") },
      { name: "DRIVER_IMAGE", value: only(relatedImages.filter(({ name }) => name === "driver")).image },
      { name: "OPERATOR_NAME", value: OPERATOR }
    ])
  })
})

describe("a release", () => {
  it("7.4, 7.5 images with digests make it one for clusters without internet, with sidecars when both are given", () => {
    const pinned = (name: string) => `registry.example/${name}@sha256:${"0".repeat(64)}`
    const files = generated({
      OPERATOR_IMAGE: pinned("operator"),
      DRIVER_IMAGE: pinned("driver"),
      NODE_DRIVER_REGISTRAR_IMAGE: pinned("registrar"),
      LIVENESS_PROBE_IMAGE: pinned("livenessprobe")
    })
    for (const flavour of FLAVOURS) {
      const { metadata, spec } = decode(Csv)(parse(files[csvPath(flavour)]!))
      assert.strictEqual(metadata.annotations["features.operators.openshift.io/disconnected"], "true")
      assert.deepStrictEqual(
        spec.relatedImages.map(({ image, name }) => `${name} ${image}`),
        [
          `${OPERATOR} ${pinned("operator")}`,
          `driver ${pinned("driver")}`,
          `node-driver-registrar ${pinned("registrar")}`,
          `liveness-probe ${pinned("livenessprobe")}`
        ]
      )
      const { env } = only(only(spec.install.spec.deployments).spec.template.spec.containers)
      assert.deepStrictEqual(
        env.filter(({ name }) => name.endsWith("_IMAGE")).map(({ name }) => name),
        ["DRIVER_IMAGE", "NODE_DRIVER_REGISTRAR_IMAGE", "LIVENESS_PROBE_IMAGE"]
      )
    }
    const [daemonSet] = find(
      Schema.Struct({ ...Named.fields, spec: Workload }),
      objectsOf(files["deploy/driver.yaml"]),
      "DaemonSet"
    )
    assert.strictEqual(only(daemonSet?.spec.template.spec.containers ?? []).image, pinned("driver"))
  })

  it("one sidecar alone is none", () => {
    const files = generated({ LIVENESS_PROBE_IMAGE: "registry.example/livenessprobe" })
    assert.notInclude(files[csvPath("kubernetes")]!, "LIVENESS_PROBE_IMAGE")
  })
})

/** What one request asks for. */
interface Right {
  readonly group: string
  readonly resource: string
  readonly verb: string
  /** Of every object when it is missing. */
  readonly name?: string
}

const rightsOf = (rules: ReadonlyArray<Rule>): ReadonlyArray<Right> =>
  rules.flatMap(({ apiGroups = [], resourceNames = [undefined], resources = [], verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) =>
        verbs.flatMap((verb) =>
          resourceNames.map((name) => ({ group, resource, verb, ...(name !== undefined && { name }) }))
        )
      )
    )
  )
const isGranted = (rules: ReadonlyArray<Rule>) => {
  const granted = rightsOf(rules)
  return (right: Right) =>
    granted.some(
      ({ group, name, resource, verb }) =>
        group === right.group &&
        resource === right.resource &&
        verb === right.verb &&
        (name === undefined || name === right.name)
    )
}

describe("rights", () => {
  const operatorObjects = read("deploy/operator.yaml")
  const roles = [
    ...find(Role, operatorObjects, "ClusterRole", OPERATOR),
    ...find(Role, operatorObjects, "Role", OPERATOR)
  ]
  const rules = roles.flatMap((role) => role.rules)
  const clusterRules = only(find(Role, operatorObjects, "ClusterRole", OPERATOR)).rules
  const operandFiles = Object.keys(filesOf(join(assets, "driver")))
  const granted = operandFiles
    .filter((name) => name.startsWith("rbac/"))
    .flatMap((name) => read(`driver/${name}`))
    .filter((object) => decode(Named)(object).kind.endsWith("Role"))
    .map(decode(Role))

  it("7.3 the operator holds every right that it hands on", () => {
    assert.sameMembers(
      granted.map(({ metadata }) => metadata.name),
      ["secretproviderclasses-role", "secrets-store-privileged-role"]
    )
    const missing = rightsOf(granted.flatMap((role) => role.rules)).filter((right) => !isGranted(clusterRules)(right))
    assert.deepStrictEqual(missing, [])
  })

  it("Q29 nobody may touch Secrets but whom the role for sync is bound to", () => {
    const all = [...Object.keys(filesOf(assets))]
      .filter((name) => name.endsWith(".yaml"))
      .flatMap((name) => objectsOf(readFileSync(join(assets, name), "utf8").replaceAll(/\$\{(\w+)\}/gu, "$1")))
      .filter((object) => Predicate.hasProperty(object, "rules"))
      .map(decode(Role))
    const withSecrets = all.filter((role) =>
      rightsOf(role.rules).some(({ resource }) => /^secrets(\/|$)|\*/u.test(resource))
    )
    assert.deepStrictEqual([...new Set(withSecrets.map(({ metadata }) => metadata.name))], [SECRET_SYNC])
    for (const { rules: own } of withSecrets) {
      assert.deepStrictEqual(own, [
        {
          apiGroups: [""],
          resources: ["secrets"],
          verbs: ["create", "delete", "get", "list", "patch", "update", "watch"]
        }
      ])
    }
    for (const flavour of FLAVOURS) {
      const { clusterPermissions, permissions } = csvOf(flavour).spec.install.spec
      const inBundle = [...clusterPermissions, ...permissions].flatMap((it) => rightsOf(it.rules))
      assert.deepStrictEqual(
        inBundle.filter(({ resource }) => resource.startsWith("secrets") && !resource.startsWith("secretsprovider")),
        []
      )
      const bundled = find(Role, read(`olm/${flavour}/manifests/${SECRET_SYNC}.yaml`), "ClusterRole")
      assert.deepStrictEqual(bundled, find(Role, operatorObjects, "ClusterRole", SECRET_SYNC))
    }
  })

  it("7.3 the operator may bind that role, and has no way around the rules of RBAC", () => {
    const rights = rightsOf(rules)
    assert.deepStrictEqual(
      rights.filter(({ verb }) => verb === "bind"),
      [{ group: "rbac.authorization.k8s.io", resource: "clusterroles", verb: "bind", name: SECRET_SYNC }]
    )
    const words = new Set(rights.flatMap(({ group, resource, verb }) => [group, resource, verb]))
    for (const word of [
      "*",
      "escalate",
      "impersonate",
      "approve",
      "deletecollection",
      "serviceaccounts/token",
      "nodes"
    ]) {
      assert.isFalse(words.has(word), word)
    }
  })

  it("7.3 a name is given wherever the API can tell one, and nowhere else", () => {
    for (const { resourceNames, resources, verbs } of rules) {
      const title = `${resources}: ${verbs}`
      if (verbs.includes("create")) assert.isUndefined(resourceNames, title)
    }
    const ofAll = rightsOf(rules)
      .filter(({ name, verb }) => name === undefined && verb !== "create")
      .map(({ resource, verb }) => `${resource} ${verb}`)
    assert.deepStrictEqual(ofAll, [
      "rolebindings list", // by their label
      "rolebindings watch",
      "events patch", // handed on, as all up to the next remark
      ...["get", "list", "watch"].map((verb) => `pods ${verb}`),
      ...["get", "list", "watch"].map((verb) => `secretproviderclasses ${verb}`),
      ...["get", "list", "update", "watch"].map((verb) => `secretproviderclasspodstatuses ${verb}`),
      "replicasets get" // their names are the Deployment's with a hash
    ])
  })

  const plurals: Readonly<Record<string, readonly [group: string, resource: string]>> = {
    ServiceAccount: ["", "serviceaccounts"],
    ConfigMap: ["", "configmaps"],
    CSIDriver: ["storage.k8s.io", "csidrivers"],
    ClusterRole: ["rbac.authorization.k8s.io", "clusterroles"],
    ClusterRoleBinding: ["rbac.authorization.k8s.io", "clusterrolebindings"],
    RoleBinding: ["rbac.authorization.k8s.io", "rolebindings"],
    NetworkPolicy: ["networking.k8s.io", "networkpolicies"],
    DaemonSet: ["apps", "daemonsets"]
  }
  it.each(operandFiles)("3.4, 4.2 the operator may keep %s", (file) => {
    const { kind, metadata } = decode(Named)(only(read(`driver/${file}`)))
    const [group, resource] = plurals[kind] ?? assert.fail(`${kind} has no row`)
    const needed = [...(kind === "RoleBinding" ? [] : ["get"]), "list", "watch", "create", "update", "delete"]
    // In which namespace: the operator's own, or all of them where the object has none or a namespace of somebody else.
    const isOwn = metadata.namespace?.includes("{NAMESPACE}")
    const own = only(
      find(Role, operatorObjects, "Role", OPERATOR).filter((it) => it.metadata.namespace === "secrets-store-csi-driver")
    )
    const may = isGranted(isOwn ? own.rules : clusterRules)
    const { name } = metadata
    assert.deepStrictEqual(
      needed.filter((verb) => !may({ group, resource, verb, ...(verb !== "create" && { name }) })),
      []
    )
  })

  it.each([
    ["2", "operator.openshift.io", "clustercsidrivers", DRIVER, ["get", "list", "watch", "patch"]],
    ["2.4", "operator.openshift.io", "clustercsidrivers/status", DRIVER, ["patch"]],
    ["1.6", "config.openshift.io", "infrastructures", "cluster", ["get"]],
    ["3.5", "config.openshift.io", "proxies", "cluster", ["get"]],
    ["1.3", "config.openshift.io", "apiservers", "cluster", ["get", "list", "watch"]],
    ["1.6", "coordination.k8s.io", "leases", `${OPERATOR}-lock`, ["get", "update"]],
    ["1.5", "", "configmaps", "extension-apiserver-authentication", ["get"]],
    ["B10", "discovery.k8s.io", "endpointslices", "kubernetes", ["get"]]
  ])("%s it may use %s %s by name", (_, group, resource, name, verbs) => {
    const rights = rightsOf(rules).filter((it) => it.group === group && it.resource === resource && it.name === name)
    assert.deepStrictEqual(
      rights.map(({ verb }) => verb),
      verbs
    )
  })

  it("1.5, 1.6, 1.7 it may ask who somebody is and what they may, take the lease, and tell Events (Q22)", () => {
    const may = isGranted(rules)
    const asked: ReadonlyArray<Right> = [
      { group: "authentication.k8s.io", resource: "tokenreviews", verb: "create" },
      { group: "authorization.k8s.io", resource: "subjectaccessreviews", verb: "create" },
      { group: "coordination.k8s.io", resource: "leases", verb: "create" },
      { group: "", resource: "events", verb: "create" },
      { group: "", resource: "events", verb: "patch" },
      { group: "", resource: "pods", verb: "list" }
    ]
    assert.deepStrictEqual(
      asked.filter((right) => !may(right)),
      []
    )
  })

  it.each(["operator.yaml", "driver.yaml", "driver-secret-sync.yaml", "driver-secret-sync-namespace.yaml"])(
    "every role of %s is bound once, to its own account",
    (file) => {
      const objects = read(`deploy/${file}`)
      const bindings = [...find(Binding, objects, "ClusterRoleBinding"), ...find(Binding, objects, "RoleBinding")]
      const account = file === "operator.yaml" ? OPERATOR : NODE_ACCOUNT
      for (const { subjects } of bindings) {
        assert.deepStrictEqual(subjects, [
          { kind: "ServiceAccount", name: account, namespace: "secrets-store-csi-driver" }
        ])
      }
      const bound = bindings.map(({ metadata, roleRef }) => [
        roleRef.kind,
        roleRef.name,
        roleRef.kind === "Role" ? metadata.namespace : undefined
      ])
      const all = [...find(Role, objects, "ClusterRole"), ...find(Role, objects, "Role")]
      const expected = all
        .filter(({ metadata }) => file !== "operator.yaml" || metadata.name !== SECRET_SYNC)
        .map(({ kind, metadata }) => [kind, metadata.name, metadata.namespace])
      assert.sameDeepMembers(bound, expected)
    }
  )
})

describe("plain manifests", () => {
  it.each([
    ["crds.yaml", "CustomResourceDefinition"],
    ["clustercsidriver.yaml", "ClusterCSIDriver"],
    ["driver.yaml", "CSIDriver,ClusterRole,ClusterRoleBinding,DaemonSet,Namespace,ServiceAccount"],
    ["driver-network-policy.yaml", "NetworkPolicy"],
    ["driver-secret-sync.yaml", "ClusterRole,ClusterRoleBinding"],
    ["driver-secret-sync-namespace.yaml", "ClusterRole,RoleBinding"],
    ["servicemonitor.yaml", "ClusterRole,ClusterRoleBinding,PodMonitor,ServiceMonitor"],
    [
      "operator.yaml",
      "ClusterRole,ClusterRoleBinding,Deployment,Namespace,NetworkPolicy,Role,RoleBinding,Service,ServiceAccount"
    ]
  ])("13 %s holds %s", (file, kinds) => {
    const found = [...new Set(namedOf(`deploy/${file}`).map(({ kind }) => kind))]
    assert.deepStrictEqual(found.sort().join(), kinds)
  })

  it("13 there is no other", () => assert.lengthOf(readdirSync(join(assets, "deploy")), 8))

  it.each(["operator.yaml", "driver.yaml"])("13 pods of the namespace of %s may be privileged", (file) => {
    const { metadata } = only(find(Named, read(`deploy/${file}`), "Namespace"))
    assert.strictEqual(metadata.labels?.["pod-security.kubernetes.io/enforce"], "privileged")
    const namespaces = namedOf(`deploy/${file}`).flatMap((it) => it.metadata.namespace ?? [])
    assert.deepStrictEqual(
      [...new Set(namespaces)].filter((it) => !["kube-system", "default"].includes(it)),
      [metadata.name]
    )
  })

  it("5.3 the driver alone is the operator's one-container DaemonSet, with its values", () => {
    const DaemonSet = Schema.Struct({ ...Named.fields, spec: Workload })
    const [made] = find(DaemonSet, read("deploy/driver.yaml"), "DaemonSet")
    const text = readFileSync(join(assets, "driver/node_single.yaml"), "utf8")
    const image = only(csvOf("kubernetes").spec.relatedImages.filter(({ name }) => name === "driver")).image
    const values: Readonly<Record<string, string>> = {
      NAMESPACE: "secrets-store-csi-driver",
      DRIVER_IMAGE: image,
      LOG_LEVEL: "2"
    }
    const filled = text.replaceAll(/\$\{(\w+)\}/gu, (_, name: string) => values[name] ?? "")
    assert.deepStrictEqual(made, decode(DaemonSet)(parse(filled)))
    assert.include(only(made?.spec.template.spec.containers ?? []).args, "--v=2")
  })

  it("6 the CSIDriver of the driver alone brings fresh tokens, and claims no manager", () => {
    const Driver = Schema.Struct({
      metadata: Schema.Record(Schema.String, Schema.Unknown),
      spec: Schema.Record(Schema.String, Schema.Unknown)
    })
    const [{ metadata, spec } = { metadata: {}, spec: {} }] = find(Driver, read("deploy/driver.yaml"), "CSIDriver")
    const asset = decode(Driver)(only(read("driver/csidriver.yaml")))
    assert.deepStrictEqual<unknown>(spec, { ...asset.spec, requiresRepublish: true })
    assert.deepStrictEqual(Object.keys(metadata), ["name", "labels"])
  })
})
