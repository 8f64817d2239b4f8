import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import type { DriverConfig } from "../../schemas/Config.ts"
import { FORCE_REFRESH_KEY, NOTHING_ASKED } from "../../schemas/ForceRefresh.ts"
import { publish } from "../../src/volume/NodePublish.ts"
import { carriedOver, decide } from "../../src/volume/RefreshTriggers.ts"
import { afterFailure, afterSuccess, INTERVAL_KEY } from "../../src/volume/Rotation.ts"
import { SecretProviderClasses } from "../../src/volume/SecretProviderClasses.ts"
import type { VolumeRecord } from "../../src/volume/VolumeRecord.ts"
import { VolumeTable } from "../../src/volume/VolumeTable.ts"
import * as Node from "../support/FakeNode.ts"

const HOUR = 3_600_000
const NOW = 1_000_000
const hourly = { _tag: "Every", millis: HOUR } as const

const record: VolumeRecord = {
  volumeId: "csi-1",
  targetPath: Node.TARGET,
  pod: Node.POD,
  secretProviderClassName: "spc",
  provider: "vault",
  request: Node.request,
  objectVersions: [],
  lastSuccessMillis: 0,
  schedule: afterSuccess(hourly, 0),
  podStatusName: "web-default-spc",
  honoured: { pod: "done", secretProviderClass: "done" },
  wanted: { pod: "done", secretProviderClass: "done" },
  classUsed: { provider: "vault", parameters: { objects: "a" } },
  classSeen: { provider: "vault", parameters: { objects: "a" } },
  classGone: false,
  failure: undefined
}

const classOf = (change: {
  readonly asked?: string
  readonly interval?: string
  readonly objects?: string
  readonly provider?: string
}) => ({
  _tag: "Held" as const,
  object: {
    metadata: {
      name: "spc",
      namespace: "default",
      annotations: {
        ...(change.asked === "" ? {} : { [FORCE_REFRESH_KEY]: change.asked ?? "done" }),
        ...(change.interval === undefined ? {} : { [INTERVAL_KEY]: change.interval })
      }
    },
    spec: { provider: change.provider ?? "vault", parameters: { objects: change.objects ?? "a" } }
  }
})

const rules = { rotationPollIntervalMillis: HOUR, refreshOnClassChange: false }
const asked = { due: NOW, why: "Asked" as const }
const edited = { due: NOW, why: "ClassChanged" as const }
const nothing = { due: HOUR, why: undefined }

interface Row {
  readonly name: string
  readonly pod?: string | undefined
  readonly class?: Parameters<typeof decide>[1]["secretProviderClass"]
  readonly from?: Partial<VolumeRecord>
  readonly edits?: boolean
  readonly expected: { readonly due: number; readonly why: "Asked" | "ClassChanged" | undefined }
}

const backoff = afterFailure(afterSuccess(hourly, 0), {
  nowMillis: 900_000,
  random: 0.5,
  hintMillis: 600_000,
  isThrottled: false
})

const rows: ReadonlyArray<Row> = [
  { name: "nothing new", expected: nothing },
  { name: "the pod asks", pod: "now", expected: asked },
  { name: "the class asks", class: classOf({ asked: "now" }), expected: asked },
  { name: "a wish that was taken back", pod: "", class: classOf({ asked: "" }), expected: nothing },
  { name: "one that was done before, again", pod: "done", from: { wanted: NOTHING_ASKED }, expected: nothing },
  {
    name: "one that is being worked on",
    pod: "now",
    from: { wanted: { ...record.wanted, pod: "now" }, schedule: backoff },
    expected: { due: 1_500_000, why: undefined }
  },
  {
    name: "one that came before the first",
    pod: "first",
    from: { honoured: NOTHING_ASKED, wanted: NOTHING_ASKED },
    expected: asked
  },
  { name: "asked while its provider is left alone: at once", pod: "now", from: { schedule: backoff }, expected: asked },
  {
    name: "asked, while it is not known what was done before",
    pod: "now",
    from: { podStatusName: undefined },
    expected: nothing
  },
  { name: "the pod is not known", pod: undefined, expected: nothing },
  { name: "the class is not known", class: { _tag: "Unknown" }, expected: nothing },
  { name: "edited, and the flag is off", class: classOf({ objects: "b" }), expected: nothing },
  { name: "edited: parameters", class: classOf({ objects: "b" }), edits: true, expected: edited },
  { name: "edited: provider", class: classOf({ provider: "azure" }), edits: true, expected: edited },
  { name: "the same, with edits on", edits: true, expected: nothing },
  {
    name: "edited back before it was fetched",
    class: classOf({}),
    from: { classSeen: { provider: "vault", parameters: { objects: "b" } } },
    edits: true,
    expected: nothing
  },
  {
    name: "edited, and being worked on",
    class: classOf({ objects: "b" }),
    from: { classSeen: { provider: "vault", parameters: { objects: "b" } }, schedule: backoff },
    edits: true,
    expected: { due: 1_500_000, why: undefined }
  },
  {
    name: "after a restart the first look is no edit",
    class: classOf({ objects: "b" }),
    from: { classSeen: undefined, classUsed: undefined },
    edits: true,
    expected: nothing
  },
  {
    name: "a shorter interval",
    class: classOf({ interval: "20m" }),
    expected: { due: 1_200_000, why: undefined }
  },
  {
    name: "frozen",
    class: classOf({ interval: "never" }),
    expected: { due: Number.POSITIVE_INFINITY, why: undefined }
  },
  {
    name: "frozen, and edited",
    class: classOf({ interval: "never", objects: "b" }),
    edits: true,
    expected: { due: Number.POSITIVE_INFINITY, why: undefined }
  },
  { name: "frozen, and asked", class: classOf({ interval: "never", asked: "now" }), expected: asked }
]

describe("what brings a refresh forward", () => {
  it.each(rows)("$name", (row) => {
    const pod = "pod" in row ? row.pod : "done"
    const observed = { pod, secretProviderClass: row.class ?? classOf({}) }
    const decision = decide(
      { ...record, ...row.from },
      observed,
      { ...rules, refreshOnClassChange: row.edits ?? false },
      NOW
    )
    assert.deepStrictEqual({ due: decision.record.schedule.dueMillis, why: decision.why }, row.expected)
    // Looking again at the same changes nothing: no write, no wake.
    const again = decide(decision.record, observed, { ...rules, refreshOnClassChange: row.edits ?? false }, NOW)
    assert.strictEqual(again.record, decision.record)
    assert.isUndefined(again.why)
  })

  it("a class that is gone is told once, also across a time in which nothing is known", () => {
    const gone = decide(record, { pod: "done", secretProviderClass: { _tag: "Absent" } }, rules, NOW)
    assert.isTrue(gone.classGone)
    assert.strictEqual(gone.record.schedule, record.schedule)
    const unknown = decide(gone.record, { pod: "done", secretProviderClass: { _tag: "Unknown" } }, rules, NOW)
    const still = decide(unknown.record, { pod: "done", secretProviderClass: { _tag: "Absent" } }, rules, NOW)
    assert.isFalse(still.classGone)
    const back = decide(still.record, { pod: "done", secretProviderClass: classOf({}) }, rules, NOW)
    assert.isTrue(decide(back.record, { pod: "done", secretProviderClass: { _tag: "Absent" } }, rules, NOW).classGone)
  })
})

describe("what came while the provider was called", () => {
  it.each([
    { name: "nothing", honoured: "one", wished: "one", wanted: "one", asksAgain: false },
    { name: "a wish", honoured: "one", wished: "one", wanted: "two", asksAgain: true },
    { name: "a wish that was heard of before", honoured: "one", wished: "two", wanted: "two", asksAgain: false },
    {
      name: "nothing of a class whose own state says less",
      honoured: "",
      wished: "old",
      wanted: "old",
      asksAgain: false
    }
  ])("$name", ({ asksAgain, honoured, wanted, wished }) => {
    const asking = (secretProviderClass: string) => ({ pod: "", secretProviderClass })
    const filled = { ...record, schedule: afterSuccess(hourly, 0), honoured: asking(honoured) }
    const { schedule } = carriedOver(filled, { ...record, wanted: asking(wanted) }, asking(wished), NOW)
    assert.strictEqual(schedule.asked, asksAgain)
  })
})

describe("refreshes on demand", () => {
  const hours = { rotationEnabled: true, rotationPollIntervalMillis: 24 * HOUR } satisfies Partial<DriverConfig>
  /** Watch events take their way: a few steps for each who is on it. */
  const soon = Effect.repeat(TestClock.adjust("10 millis"), { times: 20 })

  const inRotation = <A, E, R>(
    body: (provider: Node.Script) => Effect.Effect<A, E, R>,
    change: Partial<DriverConfig> = {}
  ) => {
    const provider = Node.script()
    return Effect.andThen(Node.rotating, body(provider)).pipe(
      Effect.scoped,
      Effect.provide(Node.driverLayer(provider, { ...hours, ...change }).pipe(Layer.provideMerge(Node.worldLayer)))
    )
  }
  const mounted = (metadata: Parameters<typeof Node.putPod>[1] = {}) =>
    Effect.gen(function* () {
      yield* Node.putClass()
      const request = yield* Node.putPod(Node.POD, metadata)
      yield* soon
      yield* publish(request, Number.POSITIVE_INFINITY)
      yield* soon
      return request
    })
  const podStatuses = Effect.flatMap(MemoryKubernetes, (kubernetes) => kubernetes.all("secretproviderclasspodstatuses"))
  const eventReasons = Effect.flatMap(MemoryKubernetes, (kubernetes) =>
    Effect.map(kubernetes.all("events"), (events) => events.map(({ reason }) => reason))
  )

  it.effect("the pod's annotation: at once, once, and recorded", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        const request = yield* mounted()
        provider.mount = () => Effect.succeed(Node.answer("v2"))
        yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "one" })
        yield* soon
        assert.strictEqual(provider.calls.length, 2)
        assert.strictEqual(yield* Node.read("foo", request.targetPath), "secret v2")
        yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "one", "some/other": "thing" })
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(provider.calls.length, 2)
        const [status] = yield* podStatuses
        assert.deepNestedInclude(status, {
          "metadata.annotations": { "secrets-store.csi.k8s.io/refreshed-for-pod": "one" }
        })
      })
    )
  )

  it.effect("the class's annotation: all volumes of that class, and no others", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* mounted()
        yield* publish(yield* Node.putPod({ ...Node.POD, name: "second" }), Number.POSITIVE_INFINITY)
        yield* Node.putClass(undefined, "another")
        const other = yield* Node.putPod({ ...Node.POD, name: "third" })
        const volumeContext = { ...other.volumeContext, secretProviderClass: "another" }
        yield* publish({ ...other, volumeContext }, Number.POSITIVE_INFINITY)
        assert.strictEqual(provider.calls.length, 3)
        yield* Node.annotateClass({ [FORCE_REFRESH_KEY]: "one" })
        yield* soon
        assert.strictEqual(provider.calls.length, 5)
        assert.notInclude(
          provider.calls.slice(3).map(({ targetPath }) => targetPath),
          other.targetPath
        )
      })
    )
  )

  it.effect("a frozen volume is refreshed when asked, until that succeeds, and is frozen again", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* mounted()
        yield* Node.annotateClass({ [INTERVAL_KEY]: "never" })
        yield* TestClock.adjust("48 hours")
        assert.strictEqual(provider.calls.length, 1)
        provider.mount = (_, call) =>
          call < 4 ? Effect.succeed({ ...Node.answer("v1"), errorCode: "Sealed" }) : Effect.succeed(Node.answer("v2"))
        yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "one" })
        yield* soon
        assert.strictEqual(provider.calls.length, 2)
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(provider.calls.length, 4)
        yield* TestClock.adjust("48 hours")
        assert.strictEqual(provider.calls.length, 4)
      })
    )
  )

  it.effect("a wish that comes while the provider is called is one more refresh", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* mounted()
        provider.mount = () => Effect.delay(Effect.succeed(Node.answer("v2")), "5 seconds")
        yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "one" })
        yield* soon
        yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "two" })
        yield* TestClock.adjust("20 seconds")
        assert.strictEqual(provider.calls.length, 3)
        const [status] = yield* podStatuses
        assert.deepNestedInclude(status, {
          "metadata.annotations": { "secrets-store.csi.k8s.io/refreshed-for-pod": "two" }
        })
      })
    )
  )

  it.effect("a pod that is made with the annotation is not refreshed for it", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* mounted({ annotations: { [FORCE_REFRESH_KEY]: "made with it" } })
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(provider.calls.length, 1)
      })
    )
  )

  it.effect("the annotation of another pod of the same name, or of another node, is none of ours", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* Node.putClass()
        yield* Node.putPod(Node.POD, { annotations: { [FORCE_REFRESH_KEY]: "newer pod" } })
        yield* Node.prepareTarget()
        yield* publish(Node.request, Number.POSITIVE_INFINITY)
        yield* soon
        assert.strictEqual(provider.calls.length, 1)
        const elsewhere = yield* Node.putPod({ ...Node.POD, name: "elsewhere" }, {}, "node-2")
        yield* publish(elsewhere, Number.POSITIVE_INFINITY)
        yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "one" }, { ...Node.POD, name: "elsewhere" })
        yield* soon
        assert.strictEqual(provider.calls.length, 2)
      })
    )
  )

  it.effect.each([
    { name: "at its next refresh, by default", refreshOnClassChange: false, atOnce: 1 },
    { name: "at once, if a flag says so", refreshOnClassChange: true, atOnce: 2 }
  ])("an edited class takes effect $name", ({ atOnce, refreshOnClassChange }) =>
    inRotation(
      (provider) =>
        Effect.gen(function* () {
          yield* mounted()
          yield* Node.changeClass({ parameters: { roleName: "another" } })
          yield* soon
          assert.strictEqual(provider.calls.length, atOnce)
          yield* TestClock.adjust("27 hours")
          assert.strictEqual(provider.calls.length, atOnce + 1)
          // What the provider is not asked with is no reason to ask.
          yield* Node.changeClass({ secretObjects: [{ secretName: "s", data: [] }] })
          yield* soon
          assert.strictEqual(provider.calls.length, atOnce + 1)
        }),
      { refreshOnClassChange }
    )
  )

  it.effect("a deleted class keeps the files and says so; once it is there again, so are refreshes", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        const request = yield* mounted()
        yield* Node.removeClass()
        yield* soon
        assert.deepStrictEqual(yield* eventReasons, ["SecretProviderClassDeleted"])
        const table = yield* VolumeTable
        yield* TestClock.adjust(table.get(request.targetPath)?.schedule.dueMillis ?? 0)
        assert.strictEqual(yield* Node.read("foo", request.targetPath), "secret v1")
        assert.deepStrictEqual(yield* eventReasons, ["SecretProviderClassDeleted", "MountRotationFailed"])
        assert.strictEqual(provider.calls.length, 1)
        yield* Node.putClass()
        yield* Node.annotateClass({ [FORCE_REFRESH_KEY]: "now" })
        yield* soon
        assert.strictEqual(provider.calls.length, 2)
      })
    )
  )

  it.effect("a namespace is followed as long as it has volumes here, however long their interval is", () =>
    inRotation((provider) =>
      Effect.gen(function* () {
        yield* mounted()
        const classes = yield* SecretProviderClasses
        yield* TestClock.adjust("20 hours")
        assert.strictEqual(yield* classes.openNamespaces, 1)
        yield* Node.annotateClass({ [FORCE_REFRESH_KEY]: "one" })
        yield* soon
        assert.strictEqual(provider.calls.length, 2)
        const table = yield* VolumeTable
        for (const { targetPath } of table.all()) table.remove(targetPath)
        yield* TestClock.adjust("11 minutes")
        assert.strictEqual(yield* classes.openNamespaces, 0)
      })
    )
  )

  it.effect("after a restart neither repeated nor forgotten", () => {
    const life = Effect.fnUntraced(function* <A, E, R>(body: (provider: Node.Script) => Effect.Effect<A, E, R>) {
      const provider = Node.script()
      const whole = Effect.scoped(Effect.andThen(Node.rotating, body(provider)))
      return yield* Effect.provide(whole, Layer.fresh(Node.driverLayer(provider, hours)))
    })
    return Effect.gen(function* () {
      const request = yield* life(() =>
        Effect.gen(function* () {
          const its = yield* mounted()
          yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "one" })
          yield* soon
          return its
        })
      )
      const again = (provider: Node.Script) =>
        Effect.gen(function* () {
          yield* soon
          yield* publish(request, Number.POSITIVE_INFINITY)
          yield* soon
          return provider.calls.length
        })
      assert.strictEqual(yield* life(again), 0)
      yield* Node.annotatePod({ [FORCE_REFRESH_KEY]: "while the driver was down" })
      assert.strictEqual(yield* life(again), 1)
      assert.strictEqual(yield* life(again), 0)
    }).pipe(Effect.provide(Node.worldLayer))
  })
})
