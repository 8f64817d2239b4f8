/**
 * Any sequence of our decisions about one Secret, between the writes of others: two nodes whose classes and contents
 * change, an API server in memory that applies each decision, and what has to be true after every step.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, DateTime, Effect, Random, Redacted } from "effect"
import { isObject, objectAt } from "../../layers/fake/KubernetesObject.ts"
import * as MemoryKubernetes from "../../layers/fake/MemoryKubernetes.ts"
import { simulate } from "../../layers/fake/SeededScheduler.ts"
import type { Secret } from "../../schemas/Core.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import { united } from "../../src/sync/OwnerReferences.ts"
import * as SecretPlan from "../../src/sync/SecretPlan.ts"

const MANAGED = "secrets-store.csi.k8s.io/managed"
const PATH = "/api/v1/namespaces/default/secrets"
const STEPS = 60

type Decide = typeof SecretPlan.decide

/** What one node knows: a class, and content as of some moment. */
interface Knowledge {
  generation: number
  content: number
  fetchedMillis: number
  owners: ReadonlyArray<OwnerReference>
}

const owner = (uid: string): OwnerReference => ({ apiVersion: "apps/v1", kind: "ReplicaSet", name: "web", uid })
const bytes = (text: string) => Redacted.make(new TextEncoder().encode(text))
const decoded = (value: unknown) => Buffer.from(String(value), "base64").toString()

/** Generations ask for other keys, labels and annotations, and some for none. */
const wantedOf = ({ fetchedMillis, content, generation, owners }: Knowledge, adopts: boolean): SecretPlan.Wanted => ({
  namespace: "default",
  secret: {
    name: "synced",
    type: "Opaque",
    labels: {
      [MANAGED]: "true",
      ...(generation % 3 === 0 ? {} : { environment: `${generation % 2}`, [`label-${generation % 4}`]: "1" })
    },
    annotations: generation % 4 === 0 ? {} : { [`annotation-${generation % 3}`]: `${generation % 2}` },
    data: new Map([
      ["always", bytes(`${content}`)],
      [`key-${generation % 3}`, bytes(`${content} of ${generation % 3}`)]
    ])
  },
  owners,
  className: "spc",
  classVersion: SecretPlan.classVersionOf("2026-01-01T00:00:00Z", generation),
  fetched: DateTime.formatIso(DateTime.makeUnsafe(fetchedMillis)),
  fetchedFor: "uid-of-pod",
  trusts: true,
  isMisdated: false,
  adopts,
  yields: false
})

/** What others have set and have to find again. */
interface Others {
  readonly labels: Record<string, string>
  readonly annotations: Record<string, string>
  readonly finalizers: Array<string>
  readonly owners: Array<OwnerReference>
}

const story = (decide: Decide) =>
  Effect.gen(function* () {
    const api = yield* KubernetesApi
    const below = (limit: number) => Random.nextIntBetween(0, limit, { halfOpen: true })
    const others: Others = { labels: {}, annotations: {}, finalizers: [], owners: [] }
    /** As an API server counts it: who wrote a key last. */
    const ours = { labels: new Set<string>(), annotations: new Set<string>() }
    const nodes: ReadonlyArray<Knowledge> = [0, 1].map(() => ({
      generation: 1,
      content: 1,
      fetchedMillis: 0,
      owners: []
    }))
    let newest = { generation: 1, content: 1 }
    let patches = 0

    const object = Effect.gen(function* () {
      const [found] = yield* Effect.flatMap(MemoryKubernetes.MemoryKubernetes, (control) => control.all("secrets"))
      return found
    })
    const manages = (part: "f:labels" | "f:annotations", keys: ReadonlySet<string>) => ({
      manager: SecretPlan.FIELD_MANAGER,
      fieldsV1: { "f:metadata": { [part]: Object.fromEntries([...keys].map((key) => [`f:${key}`, {}])) } }
    })
    const live = Resource.get(Resource.secrets, "default", "synced").pipe(
      Effect.map((found): Secret => {
        const managedFields = [manages("f:labels", ours.labels), manages("f:annotations", ours.annotations)]
        return { ...found, metadata: { ...found.metadata, managedFields } }
      }),
      Effect.catchIf(
        (failure) => failure.isNotFound,
        () => Effect.undefined
      )
    )
    const mergePatch = (body: unknown) =>
      api.request({ method: "PATCH", path: `${PATH}/synced`, contentType: "application/merge-patch+json", body })
    const note = (body: unknown) => {
      const metadata = isObject(body) ? objectAt(body, "metadata") : {}
      for (const part of ["labels", "annotations"] as const) {
        for (const [key, value] of Object.entries(objectAt(metadata, part))) {
          if (value === null) ours[part].delete(key)
          else ours[part].add(key)
        }
      }
    }

    // ---- what happens

    const knowsMost = (node: Knowledge, it: Secret) => {
      const { annotations = {} } = it.metadata
      const { classVersion, fetched } = wantedOf(node, false)
      const stamp = annotations[SecretPlan.KEYS.classVersion] ?? ""
      return stamp < classVersion || (stamp === classVersion && (annotations[SecretPlan.KEYS.fetched] ?? "") <= fetched)
    }

    const reconcile = Effect.fnUntraced(function* (node: Knowledge) {
      const wanted = wantedOf(node, true)
      const before = yield* live
      const decision = decide(before, wanted)
      const most = before === undefined || knowsMost(node, before)
      if (decision._tag === "Create") {
        yield* api.request({ method: "POST", path: PATH, body: decision.object })
        note(decision.object)
      }
      if (decision._tag === "Patch") {
        patches += 1
        const { resourceVersion } = Resource.metadataOf(yield* mergePatch(decision.patch))
        note(decision.patch)
        if (resourceVersion === before?.metadata.resourceVersion) return "a patch changed nothing"
      }
      if (before?.metadata.deletionTimestamp !== undefined) return undefined
      const after = yield* live
      const again = decide(after, wanted)
      if (again._tag !== "Unchanged") return `the second decision is ${again._tag}: ${JSON.stringify(again)}`
      if (after === undefined) return "it is not there"
      if (after.metadata.annotations?.[SecretPlan.KEYS.unused] !== undefined)
        return "it is in use, and marked as unused"
      const uids = new Set(after.metadata.ownerReferences?.map(({ uid }) => uid))
      if (wanted.owners.some(({ uid }) => !uids.has(uid))) return "an owner of ours is missing"
      if (uids.size !== (after.metadata.ownerReferences ?? []).length) return "an owner is there twice"
      if (!most) return undefined
      const data = Object.entries(after.data ?? {}).map(
        ([key, value]) => [key, decoded(Redacted.value(value))] as const
      )
      const asked = [...wanted.secret.data].map(
        ([key, value]) => [key, new TextDecoder().decode(Redacted.value(value))] as const
      )
      if (JSON.stringify(data.sort()) !== JSON.stringify(asked.sort())) return `data are ${JSON.stringify(data)}`
      for (const [key, value] of Object.entries(wanted.secret.labels)) {
        if (after.metadata.labels?.[key] !== value) return `label ${key} is missing`
      }
      for (const [key, value] of Object.entries(wanted.secret.annotations)) {
        if (after.metadata.annotations?.[key] !== value) return `annotation ${key} is missing`
      }
      const stray = [...ours.labels].filter(
        (key) => !(key in wanted.secret.labels) && key in (after.metadata.labels ?? {})
      )
      if (stray.length > 0) return `labels of an older class are left: ${stray.join(", ")}`
      return undefined
    })

    /** Somebody else, who writes whatever is there. */
    const other = Effect.fnUntraced(function* () {
      const found = yield* object
      if (found === undefined || objectAt(found, "metadata")["deletionTimestamp"] !== undefined) return undefined
      const [which, name, value] = [yield* below(8), `theirs/${yield* below(5)}`, `${yield* below(3)}`]
      const finalizers = [...new Set([...others.finalizers, name])]
      const reference = { ...owner(name), controller: false }
      const owners = [...others.owners.filter(({ uid }) => uid !== name), reference]
      switch (which) {
        case 0:
          others.labels[name] = value
          return yield* mergePatch({ metadata: { labels: { [name]: value } } })
        case 1:
          others.annotations[name] = value
          return yield* mergePatch({ metadata: { annotations: { [name]: value } } })
        case 2:
          others.finalizers.push(...finalizers.filter((it) => !others.finalizers.includes(it)))
          return yield* mergePatch({ metadata: { finalizers } })
        case 3: {
          const references = objectAt(found, "metadata")["ownerReferences"]
          const left = (Array.isArray(references) ? references : []).filter(({ uid }) => uid !== name)
          others.owners.splice(0, others.owners.length, ...owners)
          return yield* mergePatch({ metadata: { ownerReferences: [...left, reference] } })
        }
        case 4:
          return yield* mergePatch({ data: { [value]: "eA==", always: null } })
        case 5:
          // A key that is ours, with a value of theirs; an API server then counts it as theirs.
          ours.labels.delete("environment")
          return yield* mergePatch({ metadata: { labels: { environment: "theirs" } } })
        case 6:
          return yield* mergePatch({ metadata: { annotations: { [SecretPlan.KEYS.unused]: "2026-01-01T00:00:00Z" } } })
        default:
          if (others.finalizers.length > 0) return undefined
          yield* api.request({ method: "DELETE", path: `${PATH}/synced` })
          Object.assign(others, { labels: {}, annotations: {}, owners: [] })
          ours.labels.clear()
          ours.annotations.clear()
          return undefined
      }
    })

    const kept = Effect.map(object, (found) => {
      const metadata = found === undefined ? {} : objectAt(found, "metadata")
      const [labels, annotations] = [objectAt(metadata, "labels"), objectAt(metadata, "annotations")]
      for (const [key, value] of Object.entries(others.labels))
        if (labels[key] !== value) return `their label ${key} is gone`
      for (const [key, value] of Object.entries(others.annotations)) {
        if (annotations[key] !== value) return `their annotation ${key} is gone`
      }
      if (JSON.stringify(metadata["finalizers"] ?? []) !== JSON.stringify(others.finalizers))
        return "their finalizers changed"
      const references = Array.isArray(metadata["ownerReferences"]) ? metadata["ownerReferences"] : []
      const areThere = others.owners.every((it) => references.some((one) => JSON.stringify(one) === JSON.stringify(it)))
      return areThere ? undefined : "their owner references changed"
    })

    // ---- the story

    const begin = yield* below(3)
    if (begin > 0) {
      const labels = begin === 1 ? { "theirs/0": "0" } : { "theirs/0": "0", [MANAGED]: "true" }
      others.labels["theirs/0"] = "0"
      yield* api.request({
        method: "POST",
        path: PATH,
        body: { apiVersion: "v1", kind: "Secret", metadata: { name: "synced", labels }, data: { old: "eA==" } }
      })
    }
    for (let step = 0; step < STEPS; step++) {
      yield* Effect.sleep(1 + (yield* below(1_000)))
      const node = nodes[yield* below(2)]
      if (node === undefined) continue
      const which = yield* below(10)
      if (which === 0) newest = { ...newest, generation: newest.generation + 1 }
      else if (which === 1) newest = { ...newest, content: newest.content + 1 }
      else if (which === 2) node.generation = newest.generation
      else if (which === 3)
        Object.assign(node, { content: newest.content, fetchedMillis: yield* Clock.currentTimeMillis })
      else if (which === 4) node.owners = [...node.owners, owner(`ours-${yield* below(4)}`)].slice(-3)
      else if (which < 7) yield* other()
      else {
        const broken = yield* reconcile(node)
        if (broken !== undefined) return { broken: `step ${step}: ${broken}`, patches }
      }
      const lost = yield* kept
      if (lost !== undefined) return { broken: `step ${step}: ${lost}`, patches }
    }
    return { broken: "", patches }
  })

const told = (seed: number, decide: Decide) => {
  const whole = story(decide).pipe(Effect.provide(MemoryKubernetes.layer), Effect.orDie)
  const { exit } = simulate(whole, { seed, preemption: 0, stepsMax: 200_000 })
  if (exit._tag === "Failure") throw new Error(`seed ${seed} died`, { cause: exit.cause })
  return exit.value
}

const SEEDS = Array.from({ length: 400 }, (_, index) => index + 1)

describe("any sequence of decisions about one Secret", () => {
  it("S7, Q1, S10: what others set survives, data are what is wanted, the second look has nothing to do, and no patch is without a difference", () => {
    let patches = 0
    for (const seed of SEEDS) {
      const result = told(seed, SecretPlan.decide)
      assert.strictEqual(result.broken, "", `seed ${seed}`)
      patches += result.patches
    }
    assert.isAbove(patches, 5 * SEEDS.length)
  })

  const onPatch =
    (change: (patch: unknown, live: Secret, wanted: SecretPlan.Wanted) => unknown): Decide =>
    (live, wanted) => {
      const decision = SecretPlan.decide(live, wanted)
      return decision._tag === "Patch" && live !== undefined
        ? { ...decision, patch: change(JSON.parse(JSON.stringify(decision.patch)), live, wanted) }
        : decision
    }
  const withMetadata = (patch: unknown, change: Readonly<Record<string, unknown>>) => {
    const whole = isObject(patch) ? patch : {}
    return { ...whole, metadata: { ...objectAt(whole, "metadata"), ...change } }
  }

  it.each<{ readonly what: string; readonly decide: Decide; readonly says: RegExp }>([
    {
      what: "it is rewritten always",
      decide: (live, wanted) => {
        const decision = SecretPlan.decide(live, wanted)
        return decision._tag === "Unchanged" ? { _tag: "Patch", patch: { metadata: {} }, changes: ["data"] } : decision
      },
      says: /the second decision is Patch|a patch changed nothing/u
    },
    {
      what: "owners are replaced by ours",
      decide: onPatch((patch, _, { owners }) => withMetadata(patch, { ownerReferences: united([], owners) })),
      says: /their owner references changed/u
    },
    {
      what: "finalizers are taken away, as by a PUT",
      decide: onPatch((patch) => withMetadata(patch, { finalizers: null })),
      says: /their finalizers changed/u
    },
    {
      what: "labels of others are taken away",
      decide: onPatch((patch, live) =>
        withMetadata(patch, {
          labels: {
            ...objectAt(objectAt(isObject(patch) ? patch : {}, "metadata"), "labels"),
            ...Object.fromEntries(
              Object.keys(live.metadata.labels ?? {}).flatMap((key) => (key.startsWith("theirs/") ? [[key, null]] : []))
            )
          }
        })
      ),
      says: /their label \S+ is gone/u
    },
    {
      what: "owners are told apart by name",
      decide: (live, wanted) => {
        const names = new Set(live?.metadata.ownerReferences?.map(({ name }) => name))
        return SecretPlan.decide(live, { ...wanted, owners: wanted.owners.filter(({ name }) => !names.has(name)) })
      },
      says: /an owner of ours is missing/u
    },
    {
      what: "data are only added",
      decide: onPatch((patch) => {
        const { data, ...rest } = isObject(patch) ? patch : {}
        const kept = isObject(data) ? Object.entries(data).filter(([, value]) => value !== null) : []
        return { ...rest, data: Object.fromEntries(kept) }
      }),
      says: /the second decision is Patch|data are|a patch changed nothing/u
    },
    {
      what: "the stamps are forgotten",
      decide: onPatch((patch) => {
        const annotations = objectAt(objectAt(isObject(patch) ? patch : {}, "metadata"), "annotations")
        const kept = Object.entries(annotations).filter(([key]) => key !== SecretPlan.KEYS.className)
        return withMetadata(patch, { annotations: Object.fromEntries(kept) })
      }),
      says: /the second decision is Patch|a patch changed nothing/u
    }
  ])("a mistake is found: $what", ({ decide, says }) => {
    for (const seed of SEEDS) {
      const { broken } = told(seed, decide)
      if (broken === "") continue
      assert.match(broken, says, `seed ${seed}`)
      return
    }
    assert.fail("not within these seeds")
  })
})
