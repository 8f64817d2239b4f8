import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { isObject, type JsonObject, listAt, objectAt } from "../../../schemas/Json.ts"
import type { Manifest } from "../../../schemas/Manifest.ts"
import { decide, type Ingredients, progressOf, render, rolloutOf } from "../../../src/operator/DaemonSet.ts"
import { configMapHash, configMapHashKey } from "../../../src/operator/Hash.ts"
import { type Change, UNCHANGED } from "../../../src/operator/Merge.ts"
import { Annotation, CA_CONFIG_MAP } from "../../../src/operator/Names.ts"
import { settingsOf } from "../../../src/operator/Settings.ts"
import {
  clusterCsiDriver,
  manifestOf,
  manifests,
  NAMESPACE,
  rolledOut,
  SIDECARS,
  SINGLE,
  sha256,
  stored
} from "../../support/OperatorFixtures.ts"

const ingredients: Ingredients = {
  manifests,
  namespace: NAMESPACE,
  images: SIDECARS,
  settings: settingsOf(clusterCsiDriver()),
  overrides: undefined,
  caBundle: undefined,
  proxy: {}
}

const rendered = (change: Partial<Ingredients> = {}): Manifest =>
  Result.getOrThrow(render({ ...ingredients, ...change }, sha256))

const settings = (secretRotation: JsonObject) =>
  settingsOf(clusterCsiDriver({ driverConfig: { driverType: "SecretsStore", secretsStore: { secretRotation } } }))

const template = (daemonSet: Manifest) => objectAt(objectAt(daemonSet, "spec"), "template")
const podSpec = (daemonSet: Manifest) => objectAt(template(daemonSet), "spec")
const containers = (daemonSet: Manifest) => listAt(podSpec(daemonSet), "containers").filter(isObject)
const container = (daemonSet: Manifest, name: string): JsonObject =>
  containers(daemonSet).find((it) => it["name"] === name) ?? {}
const driverOf = (daemonSet: Manifest) => container(daemonSet, "csi-driver")
const podAnnotations = (daemonSet: Manifest) => objectAt(objectAt(template(daemonSet), "metadata"), "annotations")

const ours = (overrides: unknown) => ({ overrides: { secretsStoreDriver: overrides } })

describe("rendering", () => {
  it("5.1 no placeholder is left, in either form", () => {
    for (const images of [SIDECARS, SINGLE]) assert.notMatch(JSON.stringify(rendered({ images })), /\$\{/u)
  })

  it.each([
    { images: SIDECARS, expected: ["csi-driver drv", "csi-node-driver-registrar reg", "csi-liveness-probe live"] },
    { images: SINGLE, expected: ["csi-driver drv"] }
  ])("5.3 containers and images: $expected", ({ expected, images }) => {
    assert.deepStrictEqual(
      containers(rendered({ images })).map((it) => `${it["name"]} ${it["image"]}`),
      expected
    )
  })

  it("5.1 the log level is that of all containers", () => {
    const daemonSet = rendered({ settings: { ...ingredients.settings, logLevel: 6 } })
    for (const it of containers(daemonSet)) assert.include(listAt(it, "args"), "--v=6")
  })

  it("5.3 arguments of the driver, in order", () => {
    assert.deepStrictEqual(listAt(driverOf(rendered()), "args"), [
      "--endpoint=$(CSI_ENDPOINT)",
      "--logtostderr",
      "--v=2",
      "--nodeid=$(KUBE_NODE_NAME)",
      "--provider-volume=/var/run/secrets-store-csi-providers",
      "--additional-provider-volume-paths=/etc/kubernetes/secrets-store-csi-providers",
      "--metrics-addr=:8095",
      "--enable-secret-rotation=true",
      "--rotation-poll-interval=2m",
      "--provider-health-check=false",
      "--provider-health-check-interval=2m"
    ])
  })

  it.each([
    { images: { driver: "", registrar: "", livenessProbe: "" }, missing: "DRIVER_IMAGE of the operator is not set" },
    { images: { ...SIDECARS, driver: "" }, missing: "DRIVER_IMAGE of the operator is not set" },
    {
      images: { ...SIDECARS, registrar: "" },
      missing:
        "NODE_DRIVER_REGISTRAR_IMAGE of the operator is not set, and LIVENESS_PROBE_IMAGE is: set both for upstream's sidecars, or neither"
    },
    {
      images: { ...SIDECARS, livenessProbe: "" },
      missing:
        "LIVENESS_PROBE_IMAGE of the operator is not set, and NODE_DRIVER_REGISTRAR_IMAGE is: set both for upstream's sidecars, or neither"
    }
  ])("Q13 images $images", ({ images, missing }) => {
    assert.deepStrictEqual(render({ ...ingredients, images }, sha256), Result.fail(`environment variable ${missing}`))
  })

  it.each([
    { images: SIDECARS, file: "node.yaml" },
    { images: SINGLE, file: "node_single.yaml" }
  ])("1.2 asset $file is missing", ({ file, images }) => {
    const others = new Map([...manifests].filter(([name]) => name !== file))
    assert.deepStrictEqual(
      render({ ...ingredients, images, manifests: others }, sha256),
      Result.fail(`asset ${file} is missing`)
    )
  })
})

/** A manifest whose driver container has these arguments. */
const withArguments = (args: ReadonlyArray<string>, name = "csi-driver"): Partial<Ingredients> => ({
  manifests: new Map([
    [
      "node.yaml",
      manifestOf({
        apiVersion: "apps/v1",
        kind: "DaemonSet",
        metadata: { name: "d" },
        spec: { template: { spec: { containers: [{ name: "other" }, { name, args }] } } }
      })
    ]
  ])
})

describe("rotation in the arguments", () => {
  const [enabled, interval] = ["--enable-secret-rotation", "--rotation-poll-interval"]

  it.each<{
    readonly name: string
    readonly args: ReadonlyArray<string>
    readonly rotation?: JsonObject
    readonly expected: ReadonlyArray<string>
  }>([
    { name: "added at the end", args: ["--a=1"], expected: ["--a=1", `${enabled}=true`, `${interval}=2m`] },
    { name: "added to none", args: [], expected: [`${enabled}=true`, `${interval}=2m`] },
    {
      name: "replaced where they are, in whatever order",
      args: [`${interval}=9m`, "--a=1", `${enabled}=false`, "--b=2"],
      expected: [`${interval}=2m`, "--a=1", `${enabled}=true`, "--b=2"]
    },
    {
      name: "only the first that begins alike",
      args: [`${enabled}=false`, `${enabled}=false`],
      expected: [`${enabled}=true`, `${enabled}=false`, `${interval}=2m`]
    },
    {
      name: "a longer flag is another",
      args: [`${interval}-max=1m`],
      expected: [`${interval}-max=1m`, `${enabled}=true`, `${interval}=2m`]
    },
    {
      name: "None puts the interval back",
      args: [`${enabled}=true`, `${interval}=5m`],
      rotation: { type: "None" },
      expected: [`${enabled}=false`, `${interval}=2m`]
    },
    {
      name: "Custom",
      args: [`${enabled}=true`, `${interval}=2m`],
      rotation: { type: "Custom", custom: { minimumRefreshAge: 90 } },
      expected: [`${enabled}=true`, `${interval}=1m30s`]
    }
  ])("3.7 $name", ({ args, expected, rotation = {} }) => {
    const daemonSet = rendered({ ...withArguments(args), settings: settings(rotation) })
    assert.deepStrictEqual(listAt(driverOf(daemonSet), "args"), expected)
    assert.deepStrictEqual<unknown>(containers(daemonSet)[0], { name: "other" })
  })

  it("3.7 there is no container of the driver", () => {
    assert.deepStrictEqual(
      render({ ...ingredients, ...withArguments([], "driver") }, sha256),
      Result.fail(`container "csi-driver" not found in DaemonSet ${NAMESPACE}/d`)
    )
  })
})

describe("overrides", () => {
  const before = rendered()

  it.each<{ readonly row: string; readonly name: string; readonly overrides: unknown }>([
    { row: "Q19", name: "absent", overrides: undefined },
    { row: "Q19", name: "null", overrides: null },
    { row: "Q19", name: "somebody else's", overrides: { otherOperator: { args: ["--x=1"] } } },
    { row: "Q19", name: "empty", overrides: { secretsStoreDriver: {} } },
    { row: "Q40", name: "a proxy, where the cluster has none", overrides: { secretsStoreDriver: { proxy: true } } },
    {
      row: "Q3",
      name: "certificates, where there are none",
      overrides: { secretsStoreDriver: { trustedCABundle: true } }
    }
  ])("$row change nothing: $name", ({ overrides }) => {
    assert.deepStrictEqual(rendered({ overrides }), before)
  })

  it.each<{ readonly name: string; readonly overrides: JsonObject; readonly expected: JsonObject }>([
    {
      name: "nodeSelector is added, and Linux stays",
      overrides: { nodeSelector: { pool: "a", "kubernetes.io/os": "windows" } },
      expected: { nodeSelector: { pool: "a", "kubernetes.io/os": "linux" } }
    },
    {
      name: "tolerations take the place of the one for everything",
      overrides: { tolerations: [{ key: "a", operator: "Equal", value: "b", effect: "NoSchedule" }] },
      expected: { tolerations: [{ key: "a", operator: "Equal", value: "b", effect: "NoSchedule" }] }
    },
    { name: "no tolerations", overrides: { tolerations: [] }, expected: { tolerations: [] } },
    {
      name: "priorityClassName",
      overrides: { priorityClassName: "high" },
      expected: { priorityClassName: "high" }
    }
  ])("Q19 of the pods: $name", ({ expected, overrides }) => {
    assert.deepStrictEqual<unknown>(podSpec(rendered(ours(overrides))), { ...podSpec(before), ...expected })
  })

  const driver = driverOf(before)
  const args = listAt(driver, "args")

  it.each<{ readonly name: string; readonly overrides: JsonObject; readonly expected: JsonObject }>([
    {
      name: "resources",
      overrides: { resources: { requests: { cpu: "1" }, limits: { memory: "1Gi" } } },
      expected: { resources: { requests: { cpu: "1" }, limits: { memory: "1Gi" } } }
    },
    {
      name: "an argument in place of one that begins alike",
      overrides: { args: ["--provider-health-check=true"] },
      expected: { args: args.with(9, "--provider-health-check=true") }
    },
    {
      name: "an argument at the end",
      overrides: { args: ["--log-format-json=true"] },
      expected: { args: [...args, "--log-format-json=true"] }
    }
  ])("Q19 of the driver's container: $name", ({ expected, overrides }) => {
    const daemonSet = rendered(ours(overrides))
    assert.deepStrictEqual<unknown>(driverOf(daemonSet), { ...driver, ...expected })
    assert.deepStrictEqual(containers(daemonSet).slice(1), containers(before).slice(1))
  })

  it.each<{ readonly name: string; readonly overrides: unknown; readonly words: string }>([
    { name: "not an object", overrides: "x", words: "Expected object" },
    {
      name: "a key that nobody knows",
      overrides: { nodeSelectors: {} },
      words: 'Expected no excess property at ["nodeSelectors"]'
    },
    {
      name: "a selector that is no map",
      overrides: { nodeSelector: ["a"] },
      words: 'Expected object at ["nodeSelector"]'
    },
    {
      name: "an operator that does not exist",
      overrides: { tolerations: [{ operator: "Like" }] },
      words: 'Expected "Exists" | "Equal" at ["tolerations"][0]["operator"]'
    },
    {
      name: "an argument without a value",
      overrides: { args: ["--a=1", "--logtostderr"] },
      words: 'Expected a string matching the RegExp ^--[a-z][a-z-]*= at ["args"][1]'
    },
    { name: "true in quotation marks", overrides: { proxy: "true" }, words: 'Expected boolean at ["proxy"]' }
  ])("Q19 refused, and it is said where: $name", ({ overrides, words }) => {
    assert.deepStrictEqual(
      render({ ...ingredients, ...ours(overrides) }, sha256),
      Result.fail(`spec.unsupportedConfigOverrides.secretsStoreDriver: ${words}`)
    )
  })

  it("Q40 Q5 a proxy that cannot be read is not taken for none, where it is asked for", () => {
    const unknown = { ...ingredients, proxy: undefined }
    assert.deepStrictEqual(
      render({ ...unknown, ...ours({ proxy: true }) }, sha256),
      Result.fail("the cluster's proxy is asked for by spec.unsupportedConfigOverrides and cannot be read")
    )
    assert.deepStrictEqual(render(unknown, sha256), render(ingredients, sha256))
  })

  it("Q40 the proxy is given to the driver's container, in the order of names", () => {
    const proxy = { NO_PROXY: ".svc", HTTPS_PROXY: "https://p", HTTP_PROXY: "http://p" }
    const daemonSet = rendered({ ...ours({ proxy: true }), proxy })
    assert.deepStrictEqual<unknown>(driverOf(daemonSet), {
      ...driver,
      env: [
        ...listAt(driver, "env"),
        { name: "HTTPS_PROXY", value: "https://p" },
        { name: "HTTP_PROXY", value: "http://p" },
        { name: "NO_PROXY", value: ".svc" }
      ]
    })
    assert.deepStrictEqual(containers(daemonSet).slice(1), containers(before).slice(1))
  })

  it("Q40 the proxy is not given unasked", () => {
    assert.deepStrictEqual(rendered({ proxy: { HTTP_PROXY: "http://p" } }), before)
  })
})

const CA_KEY = configMapHashKey(sha256, NAMESPACE, CA_CONFIG_MAP)
const CA_VOLUME = {
  name: "non-standard-root-system-trust-ca-bundle",
  configMap: { name: CA_CONFIG_MAP, items: [{ key: "ca-bundle.crt", path: "tls-ca-bundle.pem" }] }
}

describe("certificates of the cluster", () => {
  it("Q3 unasked, they change nothing", () => {
    assert.deepStrictEqual(rendered({ caBundle: { "ca-bundle.crt": "PEM" } }), rendered())
  })

  it.each([
    { name: "PEM", caBundle: { "ca-bundle.crt": "PEM" } },
    { name: "an empty text counts", caBundle: { "ca-bundle.crt": "" } },
    { name: "all of the ConfigMap is hashed", caBundle: { "ca-bundle.crt": "PEM", other: "x" } }
  ])("3.7 Q3 mounted, and hashed on the object and on its pods: $name", ({ caBundle }) => {
    const daemonSet = rendered({ ...ours({ trustedCABundle: true }), caBundle })
    const hash = { [CA_KEY]: configMapHash(caBundle) }
    assert.deepStrictEqual<unknown>(daemonSet.metadata.annotations, hash)
    assert.deepStrictEqual<unknown>(podAnnotations(daemonSet), { ...podAnnotations(rendered()), ...hash })
    assert.deepStrictEqual<unknown>(listAt(podSpec(daemonSet), "volumes").at(-1), CA_VOLUME)
    assert.deepStrictEqual<unknown>(listAt(driverOf(daemonSet), "volumeMounts").at(-1), {
      name: CA_VOLUME.name,
      mountPath: "/etc/pki/ca-trust/extracted/pem",
      readOnly: true
    })
    assert.deepStrictEqual(containers(daemonSet).slice(1), containers(rendered()).slice(1))
  })

  it.each([
    { name: "there is no ConfigMap", caBundle: undefined },
    { name: "the ConfigMap is not filled yet", caBundle: {} }
  ])("3.7 asked for, and $name", ({ caBundle }) => {
    assert.deepStrictEqual(rendered({ ...ours({ trustedCABundle: true }), caBundle }), rendered())
  })
})

/** What an API server makes of a change, from the generation before. */
const kept = (change: Change, generation: number): Manifest => {
  if (change._tag === "Unchanged") throw new Error("nothing was written")
  const made = stored(change.object)
  return { ...made, metadata: { ...made.metadata, generation } }
}

const running = (change: Partial<Ingredients> = {}): Manifest =>
  rolledOut(kept(decide(rendered(change), undefined, -1, sha256), 1))

/** Installed, rolled out, and known to be. */
const settled = (change: Partial<Ingredients> = {}): Manifest => {
  const live = running(change)
  const { annotations } = live.metadata
  return {
    ...live,
    metadata: { ...live.metadata, annotations: { ...annotations, [Annotation.stableGeneration]: "1" } }
  }
}

const withSpec = (daemonSet: Manifest, spec: JsonObject, generation = 2): Manifest => ({
  ...daemonSet,
  metadata: { ...daemonSet.metadata, generation },
  spec: { ...objectAt(daemonSet, "spec"), ...spec }
})

const withTemplate = (daemonSet: Manifest, change: JsonObject, generation = 2): Manifest =>
  withSpec(daemonSet, { template: { ...template(daemonSet), ...change } }, generation)

const withPodAnnotations = (daemonSet: Manifest, annotations: JsonObject, generation = 2): Manifest => {
  const metadata = objectAt(template(daemonSet), "metadata")
  return withTemplate(
    daemonSet,
    { metadata: { ...metadata, annotations: { ...objectAt(metadata, "annotations"), ...annotations } } },
    generation
  )
}

const decided = (live: Manifest | undefined, writtenGeneration = 1, change: Partial<Ingredients> = {}): Change =>
  decide(rendered(change), live, writtenGeneration, sha256)

describe("what is done about the DaemonSet", () => {
  it("4.3 absent: created with its hash", () => {
    const change = decided(undefined, -1)
    assert.strictEqual(change._tag, "Create")
    if (change._tag !== "Create") return
    assert.deepStrictEqual<unknown>(change.object.metadata.annotations, {
      [Annotation.specHash]: "26d33606f8c420c0a8804d6dde427df5f7b9f96c0f0171d58086aca203fdcc69"
    })
    assert.deepStrictEqual<unknown>(change.object["spec"], rendered()["spec"])
  })

  it.each<{
    readonly row: string
    readonly name: string
    readonly live: Manifest
    readonly written?: number
    readonly change?: Partial<Ingredients>
  }>([
    { row: "4.3", name: "all is as it should be", live: settled() },
    { row: "4.3", name: "in its other form too", live: settled({ images: SINGLE }), change: { images: SINGLE } },
    { row: "Q11", name: "our last generation is not known", live: settled(), written: -1 },
    {
      row: "Q11",
      name: "somebody changed it and changed it back",
      live: withSpec(
        {
          ...settled(),
          metadata: {
            ...settled().metadata,
            annotations: { ...settled().metadata.annotations, [Annotation.stableGeneration]: "3" }
          }
        },
        {},
        3
      ),
      written: 1
    },
    {
      row: "Q11",
      name: "somebody's rollout restart",
      live: {
        ...withPodAnnotations(running(), { [Annotation.restartedAt]: "2026-01-01T00:00:00Z" }),
        status: { observedGeneration: 1 }
      }
    },
    {
      row: "4.3",
      name: "the API server knows defaults that we do not",
      live: withTemplate(settled(), { spec: { ...podSpec(settled()), hostUsers: true } }, 1),
      written: 1
    },
    {
      row: "4.3",
      name: "an old API server keeps a template's time",
      live: withTemplate(
        settled(),
        { metadata: { ...objectAt(template(settled()), "metadata"), creationTimestamp: null } },
        1
      ),
      written: -1
    },
    {
      row: "4.1",
      name: "other people's labels and annotations",
      live: {
        ...settled(),
        metadata: {
          ...settled().metadata,
          labels: { team: "a" },
          annotations: { ...settled().metadata.annotations, "deprecated.daemonset.template.generation": "1" }
        }
      }
    },
    {
      row: "Q1",
      name: "it is being deleted",
      live: withSpec(
        { ...settled(), metadata: { ...settled().metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } },
        { revisionHistoryLimit: 1 }
      )
    }
  ])("$row no write: $name", ({ change = {}, live, written = 1 }) => {
    assert.deepStrictEqual(decided(live, written, change), UNCHANGED)
  })

  it.each<{
    readonly row: string
    readonly name: string
    readonly live: Manifest
    readonly written?: number
    readonly change?: Partial<Ingredients>
  }>([
    {
      row: "4.3 5.4",
      name: "another log level",
      live: settled(),
      change: { settings: { ...ingredients.settings, logLevel: 4 } }
    },
    { row: "4.3 5.4", name: "another image", live: settled(), change: { images: { ...SIDECARS, driver: "new" } } },
    { row: "4.3 5.4", name: "another interval", live: settled(), change: { settings: settings({ type: "None" }) } },
    { row: "Q13", name: "one container in place of three", live: settled(), change: { images: SINGLE } },
    { row: "4.3", name: "somebody changed a number", live: withSpec(settled(), { revisionHistoryLimit: 3 }) },
    {
      row: "4.3",
      name: "somebody changed the strategy",
      live: withSpec(settled(), { updateStrategy: { type: "OnDelete" } })
    },
    {
      row: "4.3",
      name: "somebody added an annotation to the pods",
      live: withPodAnnotations(settled(), { mine: "1" })
    },
    {
      row: "4.3",
      name: "somebody took a container away",
      live: withTemplate(settled(), { spec: { ...podSpec(settled()), containers: containers(settled()).slice(0, 2) } })
    },
    {
      row: "4.3",
      name: "somebody edited one whose defaults we do not know",
      live: withTemplate(settled(), { spec: { ...podSpec(settled()), hostUsers: true, dnsPolicy: "Default" } }),
      written: 1
    },
    {
      row: "Q3",
      name: "certificates are asked for",
      live: settled(),
      change: { ...ours({ trustedCABundle: true }), caBundle: { "ca-bundle.crt": "PEM" } }
    },
    {
      row: "Q3",
      name: "mounted certificates have changed",
      live: settled({ ...ours({ trustedCABundle: true }), caBundle: { "ca-bundle.crt": "PEM" } }),
      change: { ...ours({ trustedCABundle: true }), caBundle: { "ca-bundle.crt": "other" } }
    }
  ])("$row the whole spec is written: $name", ({ change = {}, live, written = 1 }) => {
    const update = decided(live, written, change)
    assert.strictEqual(update._tag, "Update")
    if (update._tag !== "Update") return
    assert.deepStrictEqual(update.object["spec"], rendered(change)["spec"])
    assert.strictEqual(update.object.metadata.resourceVersion, live.metadata.resourceVersion)
    // And then never again.
    const generation = (live.metadata.generation ?? 0) + 1
    const after = { ...kept(update, generation), status: { observedGeneration: 1 } }
    assert.deepStrictEqual(decided(after, generation, change), UNCHANGED)
  })

  it("Q11 a rollout restart outlives a change of ours", () => {
    const restart = { [Annotation.restartedAt]: "2026-01-01T00:00:00Z" }
    const change = { settings: { ...ingredients.settings, logLevel: 4 } }
    const update = decided(withPodAnnotations(settled(), restart), 1, change)
    assert.strictEqual(update._tag, "Update")
    if (update._tag !== "Update") return
    assert.deepStrictEqual(update.object["spec"], withPodAnnotations(rendered(change), restart)["spec"])
    // The hash is that of what we want.
    assert.strictEqual(
      update.object.metadata.annotations?.[Annotation.specHash],
      "61de878aa2e6b21c747eb8a25ecc440c4eaa1f500e4c7471116b51032fb08037"
    )
  })

  it("4.3 a hash that somebody took away is put back, and no pod is replaced", () => {
    const live = settled()
    const { [Annotation.specHash]: hash, ...annotations } = live.metadata.annotations ?? {}
    const update = decided({ ...live, metadata: { ...live.metadata, annotations } })
    assert.strictEqual(update._tag, "Update")
    if (update._tag !== "Update") return
    assert.deepStrictEqual(update.object["spec"], live["spec"])
    assert.strictEqual(update.object.metadata.annotations?.[Annotation.specHash], hash)
  })

  it("L9 the hash of certificates that are not asked for any more goes, and no pod is replaced for it", () => {
    const key = `${Annotation.dependencyPrefix}of-long-ago`
    const live = settled()
    const metadata = { ...live.metadata, annotations: { ...live.metadata.annotations, [key]: "hgbyuQ==" } }
    const update = decided({ ...live, metadata })
    assert.strictEqual(update._tag, "Update")
    if (update._tag !== "Update") return
    assert.deepStrictEqual(update.object["spec"], live["spec"])
    assert.deepStrictEqual(update.object.metadata.annotations, live.metadata.annotations)
  })

  it("4.3 one write, and no loop, where the API server keeps our words in others", () => {
    const live = withTemplate(settled(), { spec: { ...podSpec(settled()), hostUsers: true } })
    // Written by an operator whose generation we do not know.
    const update = decided(live, -1)
    assert.strictEqual(update._tag, "Update")
    assert.deepStrictEqual(
      decided(
        {
          ...live,
          metadata: {
            ...live.metadata,
            annotations: { ...live.metadata.annotations, [Annotation.stableGeneration]: "2" }
          }
        },
        2
      ),
      UNCHANGED
    )
  })
})

describe("what an older operator left of certificates", () => {
  const annotation = { [CA_KEY]: "hgbyuQ==" }

  /** As it made the DaemonSet: a volume that nothing mounts, and a hash. */
  const old = (): Manifest => {
    const required = rendered()
    const wanted: Manifest = withTemplate(
      { ...required, metadata: { ...required.metadata, annotations: annotation } },
      {
        metadata: {
          ...objectAt(template(required), "metadata"),
          annotations: { ...podAnnotations(required), ...annotation }
        },
        spec: { ...podSpec(required), volumes: [...listAt(podSpec(required), "volumes"), CA_VOLUME] }
      }
    )
    const change = decide(wanted, undefined, -1, sha256)
    const live = rolledOut(kept(change, 5))
    const { annotations } = live.metadata
    return {
      ...live,
      metadata: { ...live.metadata, annotations: { ...annotations, [Annotation.stableGeneration]: "5" } }
    }
  }

  it.each([{ written: 5 }, { written: -1 }])(
    "Q3 stays while nothing else changes (generation $written)",
    ({ written }) => {
      assert.deepStrictEqual(decided(old(), written), UNCHANGED)
    }
  )

  it("Q3 goes with the next rollout", () => {
    const change = { settings: { ...ingredients.settings, logLevel: 4 } }
    const update = decided(old(), 5, change)
    assert.strictEqual(update._tag, "Update")
    if (update._tag !== "Update") return
    assert.deepStrictEqual(update.object["spec"], rendered(change)["spec"])
  })

  it("Q3 an edit by somebody else is reverted, and is the next rollout", () => {
    const update = decided(withSpec(old(), { revisionHistoryLimit: 3 }, 6), 5)
    assert.deepStrictEqual(update._tag === "Update" ? update.object["spec"] : undefined, rendered()["spec"])
  })

  it("Q3 Q11 stays through a rollout restart", () => {
    const restart = { [Annotation.restartedAt]: "2026-01-01T00:00:00Z" }
    const live = { ...withPodAnnotations(old(), restart, 6), status: { observedGeneration: 5 } }
    assert.deepStrictEqual(decided(live, 5), UNCHANGED)
  })

  it("Q3 is mounted when that is asked for", () => {
    const change = { ...ours({ trustedCABundle: true }), caBundle: { "ca-bundle.crt": "test" } }
    const update = decided(old(), 5, change)
    assert.deepStrictEqual(update._tag === "Update" ? update.object["spec"] : undefined, rendered(change)["spec"])
  })
})

describe("a generation that was once complete", () => {
  const counts = (status: JsonObject, generation = 1, stable?: string): Manifest => {
    const live = running()
    const { annotations } = live.metadata
    return {
      ...live,
      metadata: {
        ...live.metadata,
        generation,
        annotations: { ...annotations, ...(stable === undefined ? {} : { [Annotation.stableGeneration]: stable }) }
      },
      status
    }
  }
  const complete = {
    observedGeneration: 1,
    desiredNumberScheduled: 3,
    updatedNumberScheduled: 3,
    numberAvailable: 3,
    numberReady: 3
  }
  const acting = "Waiting for DaemonSet to act on changes"
  const updating = "Waiting for DaemonSet to update 3 node pods"
  const deploying = "Waiting for DaemonSet to deploy node pods"

  it.each<{
    readonly row: string
    readonly name: string
    readonly live: Manifest
    /** The annotation that is written; undefined when nothing is. */
    readonly annotated?: string
    readonly progress: string | undefined
  }>([
    { row: "9.3", name: "initial: nobody has looked at it yet", live: counts({}), progress: acting },
    {
      row: "9.3",
      name: "without pods yet",
      live: counts({ observedGeneration: 1, desiredNumberScheduled: 3 }),
      progress: updating
    },
    {
      row: "3.6",
      name: "pods that do not run yet",
      live: counts({ ...complete, numberAvailable: 0, numberUnavailable: 3 }),
      progress: deploying
    },
    {
      row: "9.3",
      name: 'complete: "0" becomes "1"',
      live: counts(complete, 1, "0"),
      annotated: "1",
      progress: undefined
    },
    { row: "3.6", name: "complete for the first time", live: counts(complete), annotated: "1", progress: undefined },
    { row: "9.3", name: "no change", live: counts(complete, 1, "1"), progress: undefined },
    {
      row: "9.3",
      name: "an update that is not observed yet",
      live: counts(complete, 2, "1"),
      progress: acting
    },
    {
      row: "9.3",
      name: "an update under way",
      live: counts({ ...complete, observedGeneration: 2, updatedNumberScheduled: 1 }, 2, "1"),
      progress: updating
    },
    {
      row: "9.3",
      name: "an update that is complete",
      live: counts({ ...complete, observedGeneration: 2 }, 2, "1"),
      annotated: "2",
      progress: undefined
    },
    {
      row: "9.3 Q37",
      name: "missing pods of a stable generation",
      live: counts({ ...complete, numberAvailable: 1, numberUnavailable: 2 }, 1, "1"),
      progress: undefined
    },
    {
      row: "9.3 Q37",
      name: "a new node on a stable generation",
      live: counts({ ...complete, desiredNumberScheduled: 4 }, 1, "1"),
      progress: undefined
    },
    {
      row: "3.6",
      name: "no node matches",
      live: counts({ observedGeneration: 1, desiredNumberScheduled: 0 }),
      annotated: "1",
      progress: undefined
    }
  ])("$row $name", ({ annotated, live, progress }) => {
    assert.strictEqual(progressOf(rolloutOf(live)), progress)
    const change = decided(live, live.metadata.generation)
    if (annotated === undefined) return assert.deepStrictEqual(change, UNCHANGED)
    const annotations = { ...live.metadata.annotations, [Annotation.stableGeneration]: annotated }
    const object = { ...live, metadata: { ...live.metadata, annotations } }
    assert.deepStrictEqual<unknown>(change, { _tag: "Update", object })
    return assert.deepStrictEqual(decided(object, live.metadata.generation), UNCHANGED)
  })

  it("9.3 an annotation is written beside a change, and does not speak of it", () => {
    const update = decided(counts(complete, 1, "0"), 1, { settings: { ...ingredients.settings, logLevel: 4 } })
    assert.strictEqual(
      update._tag === "Update" ? update.object.metadata.annotations?.[Annotation.stableGeneration] : undefined,
      "1"
    )
  })
})
