/**
 * Kubernetes Secrets over hours and over the lives of pods, on the whole driver and virtual time: what is written, when
 * it goes, and that nobody who uses one ever misses it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, FileSystem, Random, Stream } from "effect"
import { isObject, objectAt } from "../../layers/fake/KubernetesObject.ts"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import type { OwnerReference } from "../../schemas/Meta.ts"
import { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { KEYS } from "../../src/sync/SecretPlan.ts"
import * as Cluster from "../support/Cluster.ts"
import { tell } from "../support/DriverWorld.ts"
import * as Node from "../support/FakeNode.ts"
import * as Whole from "../support/WholeDriver.ts"

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE

/** A mistake may make nodes write without end. */
const STEPS_MAX = 5_000_000

const names = Effect.flatMap(MemoryKubernetes, (control) =>
  Effect.map(control.all("secrets"), (all) => all.map(({ metadata }) => Reflect.get(Object(metadata), "name")))
)
const range = (length: number) => Array.from({ length }).keys()
const answered = () => Effect.delay(Effect.succeed(Node.answer("v1")), "50 millis")

describe("24 hours in which nothing changes", () => {
  const PODS = 100
  const SECRETS = 10

  const day = Effect.gen(function* () {
    const kubernetes = yield* MemoryKubernetes
    yield* Cluster.collecting(10 * MINUTE)
    const node = yield* Cluster.node("node-1", answered, { rotationPollIntervalMillis: HOUR })
    const owner = yield* Cluster.owner("web")
    for (const pod of range(PODS)) {
      const secrets = [...range(SECRETS)].map((it) => [`synced-${pod}-${it}`, { username: "foo" }] as const)
      yield* Node.putClass(Cluster.classOf(Object.fromEntries(secrets)), `spc-${pod}`)
      yield* Cluster.startPod(node, { name: `web-${pod}`, className: `spc-${pod}`, ownerReferences: [owner] })
    }
    yield* Effect.sleep(2 * MINUTE)
    const settled = yield* kubernetes.requests
    yield* kubernetes.resetRequests
    yield* Effect.sleep(24 * HOUR)
    return { settled, requests: yield* kubernetes.requests, secrets: yield* names }
  })

  it("S10, L6, Q1: 1,000 Secrets, and nothing is written", () => {
    const { requests, secrets, settled } = Whole.onVirtualTime(1, day)
    assert.strictEqual(secrets.length, PODS * SECRETS)
    const created = settled.filter(({ method, resource }) => method !== "GET" && resource === "secrets")
    assert.deepStrictEqual(created, [{ method: "POST", resource: "secrets", watch: false, count: PODS * SECRETS }])
    assert.deepStrictEqual(
      requests.filter(({ watch }) => !watch),
      []
    )
    tell(
      `1,000 synced Secrets, 24 h: 0 writes and 0 reads of ours; upstream v1.6.0 at least ${24 * 12 * PODS * SECRETS} PUTs, ` +
        "one per Secret and reconcile, and owner patches after each"
    )
  }, 180_000)
})

describe("100 revisions of a Deployment whose class and Secret carry a hash", () => {
  const REVISIONS = 100
  const KEPT = 10

  /** What installs it: one that never removes a class, one that does at once, one that does with the ReplicaSet. */
  const rollouts = (pruning: "never" | "at once" | "with the ReplicaSet") =>
    Effect.gen(function* () {
      yield* Cluster.collecting()
      const nodes = [yield* Cluster.node("node-1", answered), yield* Cluster.node("node-2", answered)]
      const owners: Array<OwnerReference> = []
      let pods: ReadonlyArray<Cluster.ClusterPod> = []
      const counts: Array<number> = []
      for (const revision of range(REVISIONS)) {
        yield* Node.putClass(Cluster.classOf({ [`s-${revision}`]: { username: "foo" } }), `spc-${revision}`)
        const owner = yield* Cluster.owner(`web-${revision}`)
        owners.push(owner)
        const next: Array<Cluster.ClusterPod> = []
        for (const [index, node] of [...nodes, nodes[revision % 2]].entries()) {
          if (node === undefined) continue
          const pod = yield* Cluster.startPod(node, {
            name: `web-${revision}-${index}`,
            className: `spc-${revision}`,
            ownerReferences: [owner]
          })
          next.push(pod)
          while (!Cluster.isMounted(pod)) yield* Effect.sleep(SECOND)
          const old = pods[index]
          if (old !== undefined) yield* Cluster.endPod(old)
        }
        pods = next
        if (pruning === "at once" && revision > 0) yield* Node.removeClass(`spc-${revision - 1}`)
        const oldest = owners[revision - KEPT]
        if (oldest !== undefined) {
          yield* Cluster.removeOwner(oldest)
          if (pruning === "with the ReplicaSet") yield* Node.removeClass(`spc-${revision - KEPT}`)
        }
        yield* Cluster.sleepBetween(5 * SECOND, 2 * MINUTE)
        counts.push((yield* names).length)
      }
      yield* Effect.sleep(MINUTE)
      return { secrets: yield* names, most: Math.max(...counts) }
    })

  it.each([
    ["never", 1],
    ["at once", 2],
    ["with the ReplicaSet", 3]
  ] as const)("L5: classes removed %s: after a minute the one Secret in use is left (seed %d)", (pruning, seed) => {
    const { most, secrets } = Whole.onVirtualTime(seed, rollouts(pruning))
    assert.deepStrictEqual(secrets, [`s-${REVISIONS - 1}`])
    tell(
      `100 revisions, classes removed ${pruning}: 0 orphans, at most ${most} Secrets at a time; ` +
        `upstream keeps ${KEPT + 1}, one for each ReplicaSet that is kept`
    )
  })
})

/** A port with a mistake in it. */
type Plant = (api: KubernetesApi["Service"]) => KubernetesApi["Service"]

const asItIs: Plant = (api) => api
const onSecretRead =
  (change: (metadata: Readonly<Record<string, unknown>>) => Readonly<Record<string, unknown>>): Plant =>
  (api) => ({
    ...api,
    request: (request) =>
      Effect.map(api.request(request), (body) =>
        request.method === "GET" && /\/secrets\/[^/]+$/u.test(request.path) && isObject(body)
          ? { ...body, metadata: change(objectAt(body, "metadata")) }
          : body
      )
  })
/** No Secret is marked, and each looks as if it had been marked long ago. */
const withoutMark: Plant = onSecretRead((metadata) => ({
  ...metadata,
  annotations: {
    ...objectAt(metadata, "annotations"),
    [KEYS.unused]: "1970-01-01T00:00:00.000Z"
  }
}))
const withoutStamps: Plant = onSecretRead((metadata) => {
  const { [KEYS.classVersion]: _, [KEYS.fetched]: __, ...annotations } = objectAt(metadata, "annotations")
  return { ...metadata, annotations }
})
/** Pods of other nodes are not asked for. */
const ownPodsOnly: Plant = (api) => ({
  ...api,
  request: (request) =>
    request.method === "GET" && request.path.endsWith("/pods") && request.query?.["fieldSelector"] === undefined
      ? Effect.succeed({ kind: "PodList", apiVersion: "v1", metadata: { resourceVersion: "1" }, items: [] })
      : api.request(request)
})

/** What one run has seen that must not be. */
interface Seen {
  readonly broken: Array<string>
  readonly uids: Set<string>
  deletions: number
}

const watched = Effect.fnUntraced(function* (pods: ReadonlySet<Cluster.ClusterPod>) {
  const seen: Seen = { broken: [], uids: new Set(), deletions: 0 }
  yield* Cluster.witness(({ millis, name, type, uid }) => {
    seen.uids.add(uid)
    if (type !== "DELETED") return
    seen.deletions += 1
    for (const { endingMillis = Number.POSITIVE_INFINITY, name: pod, published } of pods) {
      const { okMillis = Number.POSITIVE_INFINITY } = published
      if (okMillis < millis && millis < endingMillis)
        seen.broken.push(`${millis} ms: ${name} is deleted, and ${pod} uses it`)
    }
  })
  return seen
})

/** Two nodes with bad lines, a slow API server, and the class "spc" with the Secret "synced". */
const twoNodes = Effect.fnUntraced(function* (plant: Plant, isCut = true) {
  const kubernetes = yield* MemoryKubernetes
  yield* Node.putClass(Cluster.classOf({ synced: { username: "foo" } }))
  yield* kubernetes.setLatencyMillis(yield* Random.nextBetween(0, 400))
  yield* Cluster.collecting()
  const lagMillisMax = yield* Random.nextBetween(0, SECOND)
  const api = (it: KubernetesApi["Service"]) => plant(Cluster.behind({ lagMillisMax, isCut })(it))
  return [
    yield* Cluster.node("node-1", answered, {}, { api }),
    yield* Cluster.node("node-2", answered, {}, { api })
  ] as const
})

/** The line may be cut when the last pod goes. */
const GONE_WITHIN = 2 * MINUTE

const flaps = (plant: Plant) =>
  Effect.gen(function* () {
    const kubernetes = yield* MemoryKubernetes
    const nodes = yield* twoNodes(plant)
    const owner = yield* Cluster.owner("web")
    const pods = new Set<Cluster.ClusterPod>()
    const seen = yield* watched(pods)
    const begun = yield* Clock.currentTimeMillis
    let made = 0
    const scale = Effect.fnUntraced(function* (replicas: number) {
      const running = [...pods].filter(({ endingMillis }) => endingMillis === undefined)
      for (const pod of running.slice(replicas)) yield* Effect.forkScoped(Cluster.endPod(pod))
      for (const _ of range(Math.max(0, replicas - running.length))) {
        const node = nodes[(yield* Random.nextBoolean) ? 0 : 1]
        pods.add(yield* Cluster.startPod(node, { name: `web-${made++}`, className: "spc", ownerReferences: [owner] }))
      }
    })
    while ((yield* Clock.currentTimeMillis) < begun + 3 * MINUTE) {
      yield* scale(yield* Random.nextIntBetween(0, 5))
      if ((yield* Random.next) < 0.1) yield* kubernetes.compact
      yield* Cluster.sleepBetween(SECOND / 2, (yield* Random.nextBoolean) ? 10 * SECOND : 45 * SECOND)
    }
    const last = yield* Random.nextIntBetween(0, 1)
    yield* scale(2 * last)
    yield* Effect.sleep(GONE_WITHIN)
    const left = yield* names
    if (left.length < last) seen.broken.push(`at the end, with ${2 * last} pods, there are ${left.length} Secrets`)
    return { ...seen, made, leftBehind: Math.max(0, left.length - last) }
  })

/** The pod of a StatefulSet goes from node to node, with short breaks. */
const moves = (plant: Plant) =>
  Effect.gen(function* () {
    const isCut = yield* Random.nextBoolean
    const nodes = yield* twoNodes(plant, isCut)
    const owner = yield* Cluster.owner("web", "StatefulSet")
    const pods = new Set<Cluster.ClusterPod>()
    const seen = yield* watched(pods)
    for (const move of range(8)) {
      const node = nodes[move % 2]
      if (node === undefined) continue
      const pod = yield* Cluster.startPod(node, { name: "web-0", className: "spc", ownerReferences: [owner] })
      pods.add(pod)
      while (!Cluster.isMounted(pod)) yield* Effect.sleep(SECOND)
      yield* Cluster.sleepBetween(SECOND, 30 * SECOND)
      yield* Cluster.endPod(pod)
      yield* Cluster.sleepBetween(100, 4 * SECOND)
    }
    // Whose node hears nothing of it for all its life has no say: it is only not deleted while it lives.
    if (!isCut && seen.deletions > 0) seen.broken.push(`deleted ${seen.deletions} times between two pods`)
    yield* Effect.sleep(GONE_WITHIN)
    const left = yield* names
    if (left.length > 0) seen.broken.push("it is left after the last pod")
    return { ...seen, made: pods.size, leftBehind: 0 }
  })

const LIVES = [
  { what: "an HPA that flaps between 0 and 5 pods on two nodes", story: flaps },
  { what: "a StatefulSet whose pod comes back on the other node", story: moves }
]
const SEEDS = Array.from({ length: 100 }, (_, index) => index + 1)

describe("a Secret that a live pod uses is not deleted (S9, L5)", () => {
  it.each(LIVES)(
    "$what: 100 seeds with a slow API server, late and broken watches",
    ({ story, what }) => {
      let [deletions, made] = [0, 0]
      const leftBehind: Array<number> = []
      for (const seed of SEEDS) {
        const run = Whole.onVirtualTime(seed, story(asItIs), 0.01)
        assert.deepStrictEqual(run.broken, [], `seed ${seed}`)
        deletions += run.deletions
        made += run.made
        if (run.leftBehind > 0) leftBehind.push(seed)
      }
      const left = leftBehind.length === 0 ? "" : `, left to its owner by seeds ${leftBehind.join(", ")}`
      tell(`${what}: ${SEEDS.length} seeds, ${made} pods, ${deletions} Secrets deleted, none in use${left}`)
      assert.deepStrictEqual(leftBehind, [])
    },
    120_000
  )

  it.each([
    {
      what: "pods of other nodes are not asked for",
      plant: ownPodsOnly,
      story: flaps,
      says: /is deleted, and \S+ uses it/u
    },
    { what: "it is removed without having been marked", plant: withoutMark, story: moves, says: /between two pods/u }
  ])("a mistake is found: $what", ({ plant, says, story }) => {
    for (const seed of SEEDS.slice(0, 20)) {
      const { broken } = Whole.onVirtualTime(seed, story(plant), 0.01)
      if (broken.length === 0) continue
      tell(`found by seed ${seed}: ${broken[0]}`)
      assert.match(broken.join("\n"), says)
      return
    }
    assert.fail("not within these seeds")
  })
})

describe("two nodes that refresh one class at different times", () => {
  const HOURS = 6

  /** @shape (what lies between, the longest answer of the provider) -> what was written */
  const changes = (plant: Plant, answerMillisMax: number, apartMillisMax: number, hours = HOURS) =>
    Effect.gen(function* () {
      const kubernetes = yield* MemoryKubernetes
      let version = 0
      let changed = 0
      const handler = () =>
        Effect.gen(function* () {
          // It may answer with what was there when it was asked, or later.
          const millis = yield* Random.nextBetween(0, answerMillisMax)
          const early = yield* Random.next
          yield* Effect.sleep(early * millis)
          const answer = Node.answer(`v${version}`, Node.file("foo", `${version}`))
          return yield* Effect.as(Effect.sleep((1 - early) * millis), answer)
        })
      yield* Node.putClass(Cluster.classOf({ synced: { username: "foo" } }))
      const settings = { rotationPollIntervalMillis: 2 * MINUTE }
      const owner = yield* Cluster.owner("web")
      for (const name of ["node-1", "node-2"]) {
        const node = yield* Cluster.node(name, handler, settings, { api: plant })
        yield* Cluster.startPod(node, { name: `web-on-${name}`, className: "spc", ownerReferences: [owner] })
        yield* Cluster.sleepBetween(0, apartMillisMax)
      }
      yield* kubernetes.setLatencyMillis(100)
      yield* Effect.sleep(MINUTE)
      yield* kubernetes.resetRequests
      const values: Array<{ readonly value: string; readonly millis: number }> = []
      yield* Cluster.witness(({ data, millis }) => values.push({ value: data["username"] ?? "", millis }))
      const begun = yield* Clock.currentTimeMillis
      while ((yield* Clock.currentTimeMillis) < begun + hours * HOUR) {
        yield* Cluster.sleepBetween(30 * SECOND, 8 * MINUTE)
        version += 1
        changed += 1
      }
      yield* Effect.sleep(5 * MINUTE)
      const requests = yield* kubernetes.requests
      const writes = requests
        .filter(({ method, resource }) => method !== "GET" && resource === "secrets")
        .reduce((sum, { count }) => sum + count, 0)
      const isBack = (index: number) => Number(values[index]?.value) < Number(values[index - 1]?.value ?? 0)
      // From one that is older than the one before it to one that is not.
      const backMillis = values.flatMap((older, index) => {
        if (!isBack(index)) return []
        const newer = values.slice(index).find(({ value }) => Number(value) >= Number(values[index - 1]?.value))
        return [(newer?.millis ?? Number.POSITIVE_INFINITY) - older.millis]
      })
      return {
        writes,
        changed,
        reverted: backMillis.length,
        longestBackMillis: Math.max(0, ...backMillis),
        last: values.at(-1)?.value,
        newest: `${version}`
      }
    })

  it.each([
    { answers: "at once", answerMillisMax: 100, apartMillisMax: 100 * SECOND, backMillisMax: 0, seed: 1 },
    { answers: "within 2 s", answerMillisMax: 2 * SECOND, apartMillisMax: 100 * SECOND, backMillisMax: 0, seed: 2 },
    // Of two answers under way at one time the later one may hold the older content, which then counts for one interval
    // and the answer that ends it. Neither the time of asking nor that of the answer says when it was read.
    ...[3, 4, 5, 30, 31, 39].map((seed) => ({
      answers: "within 40 s",
      answerMillisMax: 40 * SECOND,
      apartMillisMax: 5 * SECOND,
      backMillisMax: 2 * MINUTE + 2 * 40 * SECOND,
      seed
    }))
  ])("S18, L6: one write per change, and in the end the newest (answers $answers, seed $seed)", (row) => {
    const { changed, last, longestBackMillis, newest, reverted, writes } = Whole.onVirtualTime(
      row.seed,
      changes(asItIs, row.answerMillisMax, row.apartMillisMax)
    )
    const back = `${reverted} back, for ${Math.round(longestBackMillis / SECOND)} s at most`
    tell(`answers ${row.answers}: ${changed} changes, ${writes} writes of the Secret, ${back}`)
    assert.strictEqual(last, newest)
    assert.isAtMost(longestBackMillis, row.backMillisMax)
    // Rare: a twentieth of all changes, and never without slow answers.
    assert.isAtMost(reverted, row.backMillisMax === 0 ? 0 : changed / 20)
    assert.isAtMost(writes, changed)
  })

  it("a mistake is found: whoever comes last writes", () => {
    const { changed, reverted, writes } = Whole.onVirtualTime(
      1,
      changes(withoutStamps, 100, 100 * SECOND, 0.5),
      0,
      STEPS_MAX
    )
    tell(`whoever comes last writes (seed 1): ${changed} changes, ${writes} writes of the Secret, ${reverted} back`)
    assert.isAbove(reverted, 0)
    assert.isAbove(writes, changed)
  })

  const stale = (plant: Plant) =>
    Effect.gen(function* () {
      let [version, isHeldUp] = [0, false]
      const handler = () => Effect.sync(() => Node.answer(`v${version}`, Node.file("foo", `${version}`)))
      /** Nothing is heard of classes while it is held up. */
      const heldUp: Plant = (api) => ({
        ...api,
        watch: (request, idleMillis) =>
          /secretproviderclasses$/u.test(request.path)
            ? Stream.mapEffect(api.watch(request, idleMillis), (event) =>
                Effect.gen(function* () {
                  while (isHeldUp) yield* Effect.sleep(SECOND)
                  return event
                })
              )
            : api.watch(request, idleMillis)
      })
      yield* Node.putClass(Cluster.classOf({ synced: { username: "foo" } }))
      const owner = yield* Cluster.owner("web")
      const nodes = [
        yield* Cluster.node("node-1", handler),
        yield* Cluster.node("node-2", handler, {}, { api: (it) => plant(heldUp(it)) })
      ]
      for (const node of nodes) {
        yield* Cluster.startPod(node, { name: `web-on-${node.nodeId}`, className: "spc", ownerReferences: [owner] })
      }
      yield* Effect.sleep(MINUTE)
      const seen: Array<Readonly<Record<string, string>>> = []
      yield* Effect.flatMap(MemoryKubernetes, (control) => control.setLatencyMillis(100))
      isHeldUp = true
      yield* Node.changeClass(Cluster.classOf({ synced: { login: "foo" } }))
      yield* Cluster.witness(({ data }) => seen.push(data))
      yield* Effect.sleep(5 * SECOND)
      for (const _ of range(10)) {
        yield* Cluster.sleepBetween(2 * MINUTE, 4 * MINUTE)
        version += 1
      }
      yield* Effect.sleep(4 * MINUTE)
      isHeldUp = false
      yield* Effect.sleep(10 * MINUTE)
      return { seen: seen.slice(1), newest: `${version}` }
    })

  it("S8, L4: one that has not heard of an edit of the class does not take it back (seed 6)", () => {
    const { newest, seen } = Whole.onVirtualTime(6, stale(asItIs))
    assert.deepStrictEqual(
      seen.filter((data) => !("login" in data) || "username" in data),
      []
    )
    assert.deepStrictEqual(seen.at(-1), { login: newest })
    assert.isAtMost(seen.length, 11)
  })
  it("a mistake is found: of which version of a class a Secret is made is not looked at (seed 6)", {
    timeout: 120_000
  }, () => {
    const { seen } = Whole.onVirtualTime(6, stale(withoutStamps), 0, STEPS_MAX)
    assert.isAbove(seen.filter((data) => "username" in data).length, 0)
  })
})

describe("key and certificate of one Secret (D8, S8)", () => {
  const FILES = ["tls.crt", "tls.key", "ca.crt", "chain"]

  /** A slow disk, and content that changes with every answer. */
  const swaps = (read: (path: string) => string) =>
    Effect.gen(function* () {
      let version = 0
      const handler = () =>
        Effect.sync(() => {
          version += 1
          return Node.answer(`v${version}`, ...FILES.map((name) => Node.file(name, `${name} ${version}`)))
        })
      const files = (disk: FileSystem.FileSystem) =>
        FileSystem.make({
          ...disk,
          readFile: (path) =>
            Effect.andThen(
              Cluster.sleepBetween(0, 2 * SECOND),
              Effect.suspend(() => disk.readFile(read(path)))
            )
        })
      const keys = Object.fromEntries(FILES.map((name) => [name, name]))
      yield* Node.putClass(Cluster.classOf({ synced: keys }))
      const node = yield* Cluster.node("node-1", handler, { rotationPollIntervalMillis: 4 * SECOND }, { files })
      const owner = yield* Cluster.owner("web")
      yield* Cluster.startPod(node, { name: "web", className: "spc", ownerReferences: [owner] })
      const seen: Array<ReadonlySet<string>> = []
      yield* Cluster.witness(({ data }) =>
        seen.push(new Set(Object.values(data).map((text) => text.split(" ")[1] ?? "")))
      )
      yield* Effect.sleep(20 * MINUTE)
      return { version, seen, mixed: seen.filter((versions) => versions.size !== 1).length }
    })

  it.each([1, 2, 3])("every write is of one generation, while they are swapped (seed %d)", (seed) => {
    const { mixed, seen, version } = Whole.onVirtualTime(
      seed,
      swaps((path) => path),
      0.05
    )
    assert.strictEqual(mixed, 0)
    assert.isAbove(seen.length, 20)
    if (seed === 1) tell(`${version} generations, ${seen.length} writes of the Secret, none of two generations`)
  })

  it("also when files are read one by one through ..data: the link is looked at before and after (seed 1)", () => {
    const throughLink = (path: string) => path.replace(/\/\.\.\d[^/]*\//u, "/..data/")
    const { mixed, seen } = Whole.onVirtualTime(1, swaps(throughLink), 0.05)
    assert.strictEqual(mixed, 0)
    assert.isAbove(seen.length, 20)
  })
})

describe("a pod status that is stale or forged holds up no other (Q10, D6)", () => {
  const PODS = 5

  const story = Effect.gen(function* () {
    const kubernetes = yield* MemoryKubernetes
    const api = yield* KubernetesApi
    let version = 0
    const handler = () => Effect.sync(() => Node.answer(`v${version}`, Node.file("foo", `${version}`)))
    yield* Node.putClass(Cluster.classOf({ broken: { username: "foo" } }), "broken")
    for (const pod of range(PODS)) {
      yield* Node.putClass(Cluster.classOf({ [`synced-${pod}`]: { username: "foo" } }), `spc-${pod}`)
    }
    // Before everybody else's, in the order of names and of time.
    const status = (name: string, status: unknown) =>
      api.request({
        method: "POST",
        path: "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/default/secretproviderclasspodstatuses",
        body: {
          apiVersion: "secrets-store.csi.x-k8s.io/v1",
          kind: "SecretProviderClassPodStatus",
          metadata: { name, labels: { "internal.secrets-store.csi.k8s.io/node-name": "node-1" } },
          status
        }
      })
    const targetPath = Node.targetOf("uid-of-another")
    yield* status("a-pod-gone", { podName: "gone", secretProviderClassName: "broken", mounted: true, targetPath })
    yield* status("a-class-gone", { podName: "web-0", secretProviderClassName: "gone", mounted: true, targetPath })
    yield* status("a-forged", { podName: "web-0", secretProviderClassName: "spc-1", mounted: true, targetPath: "/etc" })
    yield* status("a-forged-2", { podName: "web-2", secretProviderClassName: "spc-2", mounted: true, targetPath })
    yield* status("a-empty", {})
    const node = yield* Cluster.node("node-1", handler)
    const owner = yield* Cluster.owner("web")
    const pods: Array<Cluster.ClusterPod> = []
    for (const pod of range(PODS)) {
      pods.push(
        yield* Cluster.startPod(node, { name: `web-${pod}`, className: `spc-${pod}`, ownerReferences: [owner] })
      )
    }
    while (!pods.every(Cluster.isMounted)) yield* Effect.sleep(100)
    yield* Effect.sleep(5 * SECOND)
    const first = yield* names
    const owned = (yield* kubernetes.all("secrets")).map((it) => objectAt(it, "metadata")["ownerReferences"])
    // Much later, when the broken ones are tried but seldom.
    yield* Effect.sleep(HOUR)
    version += 1
    yield* Effect.sleep(3 * MINUTE)
    const values: Array<string> = []
    for (const it of yield* kubernetes.all("secrets")) {
      values.push(Buffer.from(String(objectAt(it, "data")["username"]), "base64").toString())
    }
    return { first, owned, owner, values }
  })

  it("five Secrets are there within 5 s, owned, and follow (seed 1)", () => {
    const { first, owned, owner, values } = Whole.onVirtualTime(1, story)
    assert.deepStrictEqual(
      first,
      [...range(PODS)].map((pod) => `synced-${pod}`)
    )
    assert.deepStrictEqual(
      owned,
      [...range(PODS)].map(() => [owner])
    )
    assert.deepStrictEqual(
      values,
      [...range(PODS)].map(() => "1")
    )
  })
})
