/**
 * The API server in memory beside a real one: both get the same random requests of several managers, and their answers
 * are the same, down to managedFields and the words of a refusal. Needs a real API server.
 *
 * Not drawn are empty objects, which a custom resource keeps in ways of its own.
 */
import { randomUUID } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Random } from "effect"
import { layer as memory } from "../../layers/fake/MemoryKubernetes.ts"
import * as Chance from "../../layers/fake/simulation/Chance.ts"
import { layer as kubernetesHttp } from "../../layers/real/KubernetesHttp.ts"
import { KubernetesApi, type KubernetesRequest } from "../../src/ports/KubernetesApi.ts"
import { asked } from "./KubernetesAnswers.ts"

const kubeconfig = process.env["TEST_KUBECONFIG"] ?? ""
const SEEDS = Array.from({ length: 20 }, (_, index) => index + 1)
const REQUESTS = 25

type Json = Readonly<Record<string, unknown>>

interface Kind {
  readonly apiVersion: string
  readonly kind: string
  readonly collection: string
  /** What an object of the kind has besides metadata. */
  readonly content: (draw: Draw) => Json
}

/** What requests are made of. */
const drawing = ({ below, happens, oneOf }: Chance.Chance) => {
  const some = <A>(items: ReadonlyArray<A>): ReadonlyArray<A> => {
    const drawn = items.filter(() => happens(0.5))
    const list = drawn.length === 0 ? [oneOf(items)] : drawn
    return happens(0.3) ? list.toReversed() : list
  }
  const values = (value: () => unknown = () => String(below(2))) =>
    Object.fromEntries(some(["a", "b", "c"]).map((key) => [key, value()]))
  const perhaps = (rate: number, part: () => Json): Json => (happens(rate) ? part() : {})
  return { below, happens, oneOf, some, values, perhaps }
}
type Draw = ReturnType<typeof drawing>

const base64 = (text: string) => Buffer.from(text).toString("base64")

const KINDS: ReadonlyArray<Kind> = [
  {
    apiVersion: "v1",
    kind: "ConfigMap",
    collection: "/api/v1/namespaces/default/configmaps",
    content: ({ perhaps, values }) => perhaps(0.8, () => ({ data: values() }))
  },
  {
    apiVersion: "v1",
    kind: "Secret",
    collection: "/api/v1/namespaces/default/secrets",
    content: ({ below, perhaps, values }) => ({
      ...perhaps(0.8, () => ({ data: values(() => base64(String(below(2)))) })),
      ...perhaps(0.2, () => ({ type: "Opaque" }))
    })
  },
  {
    apiVersion: "v1",
    kind: "ServiceAccount",
    collection: "/api/v1/namespaces/default/serviceaccounts",
    content: ({ perhaps, some }) => ({
      ...perhaps(0.6, () => ({ secrets: some(["a", "b", "c"]).map((name) => ({ name })) })),
      ...perhaps(0.4, () => ({ imagePullSecrets: some(["a", "b"]).map((name) => ({ name })) }))
    })
  },
  {
    apiVersion: "secrets-store.csi.x-k8s.io/v1",
    kind: "SecretProviderClass",
    collection: "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/default/secretproviderclasses",
    content: ({ oneOf, perhaps, some, values }) => ({
      spec: {
        provider: oneOf(["a", "b"]),
        ...perhaps(0.6, () => ({ parameters: values() })),
        ...perhaps(0.4, () => ({ secretObjects: some(["a", "b"]).map((secretName) => ({ secretName })) }))
      }
    })
  }
]

const MERGE = "application/merge-patch+json"

const requestOf = (draw: Draw, { apiVersion, collection, content, kind }: Kind, name: string): KubernetesRequest => {
  const { happens, oneOf, perhaps, some, values } = draw
  const path = `${collection}/${name}`
  const owner = (uid: string) => ({ apiVersion: "example.com/v1", kind: "Thing", name: oneOf(["x", "y"]), uid })
  const metadata = {
    ...perhaps(0.5, () => ({ labels: values() })),
    ...perhaps(0.3, () => ({ annotations: values() })),
    ...perhaps(0.3, () => ({ finalizers: some(["example.com/a", "example.com/b", "example.com/c"]) })),
    ...perhaps(0.3, () => ({ ownerReferences: some(["1", "2", "3"]).map(owner) }))
  }
  const body = { apiVersion, kind, metadata: { ...metadata, name }, ...content(draw) }
  const fieldManager = oneOf(["a", "b", "c"])
  const by = (query: KubernetesRequest["query"] = {}) => ({ path, query: { fieldManager, ...query } })
  switch (oneOf(["apply", "apply", "apply", "force", "patch", "take", "put", "post", "reset"])) {
    case "force":
      return { ...by({ force: true }), method: "PATCH", body, contentType: "application/apply-patch+yaml" }
    case "patch":
      return { ...by(), method: "PATCH", body: { metadata, ...content(draw) }, contentType: MERGE }
    case "take":
      return { ...by(), method: "PATCH", body: { metadata: { labels: values(() => null) } }, contentType: MERGE }
    case "put":
      // A custom resource's PUT needs a version, which cannot be the same here and there.
      return kind === "SecretProviderClass" ? { method: "GET", path } : { ...by(), method: "PUT", body }
    case "post":
      return { ...by(), method: "POST", path: collection, body }
    case "reset":
      return happens(0.5)
        ? { ...by(), method: "PATCH", body: { metadata: { managedFields: [{}] } }, contentType: MERGE }
        : { method: "GET", path }
    default:
      return { ...by(), method: "PATCH", body, contentType: "application/apply-patch+yaml" }
  }
}

const clean = (api: KubernetesApi["Service"], path: string) =>
  api
    .request({ method: "PATCH", path, body: { metadata: { finalizers: null } }, contentType: MERGE })
    .pipe(Effect.andThen(api.request({ method: "DELETE", path })), Effect.ignore)

const needs = kubeconfig === "" ? " (needs TEST_KUBECONFIG)" : ""

describe.skipIf(kubeconfig === "")(`the API server in memory answers as a real one${needs}`, () => {
  const run = randomUUID().slice(0, 8)
  it.live.each(KINDS.flatMap((kind) => SEEDS.map((seed) => ({ name: kind.kind, kind, seed }))))(
    "$name, seed $seed",
    ({ kind, seed }) =>
      Effect.gen(function* () {
        const fake = Context.get(yield* Layer.build(Layer.fresh(memory)), KubernetesApi)
        const userAgent = "likeness/1.0"
        const real = Context.get(
          yield* Layer.build(kubernetesHttp({ kubeconfig, userAgent, environment: process.env })),
          KubernetesApi
        )
        const name = `likeness-${run}-${seed}`
        const requests = yield* Effect.map(Chance.make, (chance) => {
          const draw = drawing(chance)
          return Array.from({ length: REQUESTS }, () => requestOf(draw, kind, name))
        }).pipe(Random.withSeed(`${seed}`))
        yield* Effect.addFinalizer(() => clean(real, `${kind.collection}/${name}`))
        assert.deepStrictEqual(yield* asked(fake, requests), yield* asked(real, requests))
      })
  )
})
