/**
 * Reflectors, classes and pod statuses on an API server that loses connections, answers and its memory of old versions,
 * in the order that a seed decides.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Random, References } from "effect"
import { MemoryKubernetes, make } from "../../layers/fake/MemoryKubernetes.ts"
import { simulate } from "../../layers/fake/SeededScheduler.ts"
import { NOTHING_ASKED } from "../../schemas/ForceRefresh.ts"
import type { SecretProviderClass } from "../../schemas/SecretProviderClass.ts"
import type { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import * as Reflector from "../../src/reconciler/Reflector.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import * as PodStatus from "../../src/volume/PodStatus.ts"
import { SecretProviderClasses } from "../../src/volume/SecretProviderClasses.ts"

const SEEDS = Array.from({ length: 200 }, (_, index) => index + 1)
const classes = Resource.secretProviderClasses

/** Runs a program on a new API server; a broken promise fails with its seed. */
const onSeed = <A, E>(seed: number, program: Effect.Effect<A, E, KubernetesApi | MemoryKubernetes>): A => {
  const quiet = Effect.provideService(program, References.MinimumLogLevel, "None")
  const { exit } = simulate(
    Effect.flatMap(make(), (context) => Effect.provideContext(quiet, context)),
    { seed }
  )
  if (Exit.isSuccess(exit)) return exit.value
  throw new Error(`seed ${seed}: ${Cause.pretty(exit.cause)}`)
}

const below = (n: number) => Effect.map(Random.next, (chance) => Math.floor(chance * n))

/** Somebody who makes, changes and deletes classes; what does not succeed does not matter. */
const administrator = Effect.fnUntraced(function* (steps: number) {
  for (let step = 0; step < steps; step++) {
    const name = `class-${yield* below(6)}`
    const object = { metadata: { name, namespace: "ns" }, spec: { provider: `p${step}` } }
    const what = yield* below(3)
    const change =
      what === 0
        ? Resource.remove(classes, "ns", name)
        : Effect.catch(Resource.create(classes, object), () => Resource.replace(classes, object))
    yield* Effect.ignore(change)
    yield* Effect.sleep(yield* below(2_000))
  }
})

/** What can go wrong between the driver and the API server. How much of it does is up to the run. */
const chaos = Effect.fnUntraced(function* (steps: number) {
  const control = yield* MemoryKubernetes
  const cruelty = yield* Random.next
  yield* control.setExpiredAs((yield* below(2)) === 0 ? "event" : "status")
  yield* control.setLatencyMillis(yield* below(500))
  for (let step = 0; step < steps; step++) {
    yield* Effect.sleep(yield* below(5_000))
    if ((yield* Random.next) > cruelty) continue
    switch (yield* below(6)) {
      case 0:
        yield* control.dropWatches("close")
        break
      case 1:
        yield* control.dropWatches("error")
        break
      case 2:
        yield* control.compact
        yield* control.dropWatches("close")
        break
      case 3:
        yield* control.bookmark
        break
      default: {
        const [status, reason] = (
          [
            [0, "Network"],
            [500, "InternalError"],
            [429, "TooManyRequests"],
            [403, "Forbidden"]
          ] as const
        )[yield* below(4)]!
        const applied = (yield* below(2)) === 0
        yield* control.failNext(() => true, { status, reason }, { applied })
      }
    }
  }
})

const stored = Effect.fnUntraced(function* () {
  const control = yield* MemoryKubernetes
  const objects = yield* control.all("secretproviderclasses")
  return objects.map((object) => {
    const { name = "", resourceVersion } = Resource.metadataOf(object)
    return `ns/${name} ${resourceVersion}`
  })
})

const shown = (objects: ReadonlyMap<string, SecretProviderClass>) =>
  [...objects].map(([key, { metadata }]) => `${key} ${metadata.resourceVersion}`).sort()

describe("Reflector", () => {
  const program = Effect.gen(function* () {
    const control = yield* MemoryKubernetes
    /** What a listener makes of the changes that it is told. */
    const replica = new Map<string, SecretProviderClass>()
    const history: Array<string> = []
    const reflector = yield* Reflector.make({
      resource: classes,
      selection: { namespace: "ns" },
      pageSize: 2,
      onChange: (change) =>
        Effect.sync(() => {
          history.push(change._tag)
          if (change._tag === "Synced") {
            for (const key of replica.keys()) assert.isTrue(change.objects.has(key), `${key} left without a word`)
            for (const [key, object] of change.objects) replica.set(key, object)
          } else if (change._tag === "Deleted") replica.delete(change.key)
          else {
            const before = Number(replica.get(change.key)?.metadata.resourceVersion ?? 0)
            assert.isAbove(Number(change.object.metadata.resourceVersion), before, "a stale version never wins")
            replica.set(change.key, change.object)
          }
        })
    })
    yield* Effect.all([administrator(60), chaos(30)], { concurrency: 2, discard: true })
    // Faults that still wait for a request are used up by these.
    for (let n = 0; n < 30; n++) yield* Effect.ignore(Resource.list(classes))
    yield* control.setLatencyMillis(0)
    yield* Effect.sleep("90 seconds")
    const now = yield* stored()
    assert.deepStrictEqual(shown(reflector.objects()), now)
    assert.deepStrictEqual(shown(replica), now)
    assert.isTrue(reflector.isSynced())
    assert.strictEqual(yield* control.openWatches(), 1)
    // Once nothing happens, nothing is asked for but a watch every five minutes.
    yield* control.resetRequests
    yield* Effect.sleep("1 hour")
    assert.strictEqual(yield* control.requestCount({ watch: false }), 0)
    assert.isAtMost(yield* control.requestCount({ watch: true }), 13)
    return `${history.join(",")} ${now.join(",")} ${yield* Clock.currentTimeMillis}`
  }).pipe(Effect.scoped)

  it("L6 in the end holds what the API server holds, and told all of it: 200 seeds", () => {
    for (const seed of SEEDS) onSeed(seed, program)
  })

  it("the same seed gives the same run", () => {
    for (const seed of SEEDS.slice(0, 5)) assert.strictEqual(onSeed(seed, program), onSeed(seed, program))
  })

  it("leaves no watch behind", () => {
    for (const seed of SEEDS.slice(0, 20)) {
      const open = Effect.andThen(
        program,
        Effect.flatMap(MemoryKubernetes, (control) => control.openWatches())
      )
      assert.strictEqual(onSeed(seed, open), 0)
    }
  })
})

describe("PodStatus", () => {
  const target = (uid: string, volume: string) => `/pods/${uid}/volumes/kubernetes.io~csi/${volume}/mount`
  const volume = (podName: string, uid: string, secretProviderClassName: string, name: string) => ({
    nodeId: "node",
    pod: { name: podName, namespace: "x", uid, serviceAccountName: "default" },
    secretProviderClassName,
    targetPath: target(uid, name)
  })
  /** D7 and Q14: all of them want the same name. */
  const volumes = [
    volume("web", "uid-1", "x-y", "one"),
    volume("web", "uid-1", "x-y", "two"),
    volume("web-x", "uid-2", "y", "one"),
    volume("web-x", "uid-2", "y", "two")
  ]

  /** A volume that is refreshed again and again, and forgets now and then what it knew. */
  const life = Effect.fnUntraced(function* (input: (typeof volumes)[number], rounds: number) {
    let knownName: string | undefined
    for (let round = 0; round < rounds; round++) {
      yield* Effect.sleep(yield* below(3_000))
      const objectVersions = [{ id: "object", version: `v${round}` }]
      const exit = yield* Effect.exit(PodStatus.record({ ...input, objectVersions, knownName }))
      if (Exit.isSuccess(exit)) knownName = exit.value.name
      if ((yield* below(4)) === 0) {
        const found = yield* Effect.exit(PodStatus.find(input))
        if (Exit.isSuccess(found)) knownName = found.value?.name
      }
    }
    return knownName
  })

  const program = Effect.gen(function* () {
    const control = yield* MemoryKubernetes
    const faults = yield* Effect.forkChild(chaos(30))
    yield* Effect.forEach(volumes, (input) => life(input, 10), { concurrency: 4 })
    yield* Fiber.interrupt(faults)
    for (let n = 0; n < 30; n++) yield* Effect.ignore(Resource.list(classes))
    const last = [{ id: "object", version: "last" }]
    const names = yield* Effect.forEach(
      volumes,
      (input) => PodStatus.record({ ...input, objectVersions: last, knownName: undefined }),
      { concurrency: 4 }
    )
    assert.strictEqual(new Set(names.map(({ name }) => name)).size, 4, "two volumes never share one")
    for (const [index, input] of volumes.entries()) {
      assert.deepStrictEqual(yield* PodStatus.find(input), {
        name: names[index]!.name,
        objectVersions: last,
        honoured: NOTHING_ASKED
      })
    }
    yield* control.resetRequests
    for (const [index, input] of volumes.entries()) {
      const again = yield* PodStatus.record({ ...input, objectVersions: last, knownName: names[index]!.name })
      assert.isFalse(again.written)
    }
    assert.strictEqual(yield* control.requestCount({ method: "GET" }), 4)
    assert.deepStrictEqual(
      (yield* control.requests).map(({ method }) => method),
      ["GET"]
    )
  })

  it("S13 four volumes that want one name never share it, and S10 then write nothing: 200 seeds", () => {
    for (const seed of SEEDS) onSeed(seed, program)
  })
})

describe("listeners of classes", () => {
  it("whoever is told of a class can ask what it is, however soon the first list comes", () => {
    for (const seed of SEEDS) {
      const told = onSeed(
        seed,
        Effect.gen(function* () {
          yield* Resource.create(classes, { metadata: { name: "web", namespace: "ns" }, spec: { provider: "p" } })
          const tags: Array<string> = []
          yield* Effect.gen(function* () {
            const followed = yield* SecretProviderClasses
            yield* followed.onChange((namespace, name) => tags.push(followed.current(namespace, name)._tag))
            yield* followed.follow("ns")
            yield* Effect.sleep("1 second")
          }).pipe(Effect.provide(SecretProviderClasses.layer), Effect.scoped)
          return tags
        })
      )
      assert.include(told, "Held", `seed ${seed}`)
    }
  })
})
