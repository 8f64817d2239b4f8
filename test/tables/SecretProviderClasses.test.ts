import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKubernetes, layer as memoryKubernetes } from "../../layers/fake/MemoryKubernetes.ts"
import * as Resource from "../../src/reconciler/Resource.ts"
import * as PodStatus from "../../src/volume/PodStatus.ts"
import { SecretProviderClasses } from "../../src/volume/SecretProviderClasses.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

const ROOT = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces"
const spc = (name: string, namespace = "ns", spec: unknown = { provider: "p" }) => ({
  metadata: { name, namespace, resourceVersion: "7" },
  spec
})

/** The API server: lists per namespace, and reads of single classes. */
const server = (objects: ReadonlyArray<ReturnType<typeof spc>>) => {
  const api = new ScriptedApi(({ path }) => {
    const [, namespace, , name] = /\/namespaces\/([^/]+)\/([^/]+)\/?(.*)$/u.exec(path) ?? []
    const inside = objects.filter(({ metadata }) => metadata.namespace === namespace)
    if (name === "") return Effect.succeed({ metadata: { resourceVersion: "42" }, items: inside })
    const found = inside.find(({ metadata }) => metadata.name === name)
    return found === undefined
      ? Effect.fail(failed(404, "NotFound", `secretproviderclasses.secrets-store.csi.x-k8s.io "${name}" not found`))
      : Effect.succeed(found)
  })
  return api
}

const quiet = Logger.layer([])
const run = <A, E>(api: ScriptedApi, program: (classes: SecretProviderClasses["Service"]) => Effect.Effect<A, E>) =>
  Effect.flatMap(SecretProviderClasses, program).pipe(
    Effect.provide(Layer.provideMerge(SecretProviderClasses.layer, Layer.merge(api.layer, quiet)))
  )
const list = (namespace: string) => `GET ${ROOT}/${namespace}/secretproviderclasses`
const one = (namespace: string, name: string) => `GET ${ROOT}/${namespace}/secretproviderclasses/${name}`

describe("get", () => {
  it.effect("the first use of a namespace lists it; whatever it holds is answered from memory then", () => {
    const api = server([spc("a"), spc("b")])
    return run(api, (classes) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* classes.openNamespaces, 0)
        assert.strictEqual((yield* classes.get("ns", "a")).spec?.provider, "p")
        assert.deepStrictEqual(api.lines, [list("ns")])
        for (const name of ["a", "b", "a", "b"]) yield* classes.get("ns", name)
        assert.strictEqual(api.requests.length, 1, "no request for a class that is held")
        assert.strictEqual(yield* classes.openNamespaces, 1)
      })
    )
  })

  it.effect("parallel first publishes of one namespace share one list", () => {
    const api = server([spc("a"), spc("b", "other")])
    return run(api, (classes) =>
      Effect.gen(function* () {
        yield* Effect.all(
          Array.from({ length: 50 }, (_, n) => (n % 5 === 0 ? classes.get("other", "b") : classes.get("ns", "a"))),
          { concurrency: 50 }
        )
        assert.deepStrictEqual([...api.lines].sort(), [list("ns"), list("other")])
        assert.strictEqual(yield* classes.openNamespaces, 2)
      })
    )
  })

  it.effect("wire.md (e) each namespace sees its own class of a name", () => {
    const api = server([spc("a", "one", { provider: "first" }), spc("a", "two", { provider: "second" })])
    return run(api, (classes) =>
      Effect.gen(function* () {
        assert.strictEqual((yield* classes.get("one", "a")).spec?.provider, "first")
        assert.strictEqual((yield* classes.get("two", "a")).spec?.provider, "second")
      })
    )
  })

  it.effect("a class that the watch brings is answered without a request", () => {
    const api = server([])
    return run(api, (classes) =>
      Effect.gen(function* () {
        yield* Effect.flip(classes.get("ns", "late"))
        yield* TestClock.adjust(0)
        const before = api.requests.length
        yield* api.lastWatch.send({ type: "ADDED", object: spc("late") })
        yield* TestClock.adjust(0)
        yield* classes.get("ns", "late")
        assert.strictEqual(api.requests.length, before)
      })
    )
  })
})

describe("not found", () => {
  it.effect("2.7 #12 is said in the words of the cache, after one live read", () => {
    const api = server([spc("a")])
    return run(api, (classes) =>
      Effect.gen(function* () {
        const failure = yield* Effect.flip(classes.get("ns", "missing"))
        assert.strictEqual(failure.message, 'SecretProviderClass.secrets-store.csi.x-k8s.io "missing" not found')
        assert.isTrue(failure.isNotFound)
        assert.deepStrictEqual(api.lines, [list("ns"), one("ns", "missing")])
      })
    )
  })

  it.effect("SSCSI#1436 a class that is not in memory yet is found", () => {
    const objects = [spc("a")]
    const api = server(objects)
    return run(api, (classes) =>
      Effect.gen(function* () {
        yield* classes.get("ns", "a")
        objects.push(spc("new"))
        yield* classes.get("ns", "new")
        assert.deepStrictEqual(api.lines, [list("ns"), one("ns", "new")])
      })
    )
  })

  it.effect.each([
    { name: "no name", namespace: "ns", object: "" },
    { name: "a name that is a path", namespace: "ns", object: ".." },
    { name: "a name with a slash", namespace: "ns", object: "a/b" },
    { name: "no namespace", namespace: "", object: "a" },
    { name: "a namespace that is a path", namespace: "..", object: "a" }
  ])("2.7 #12 $name is not found, and asks for nothing else", ({ namespace, object }) => {
    const api = server([spc("a")])
    return run(api, (classes) =>
      Effect.gen(function* () {
        const failure = yield* Effect.flip(classes.get(namespace, object))
        assert.strictEqual(
          failure.message,
          `SecretProviderClass.secrets-store.csi.x-k8s.io ${JSON.stringify(object)} not found`
        )
        assert.isTrue(api.lines.every((line) => line === list("ns")))
      })
    )
  })

  it.effect.each(["the server could not find the requested resource", "404 page not found"])(
    "a missing CRD keeps its words: %s",
    (detail) => {
      const api = new ScriptedApi(() => Effect.fail(failed(404, "NotFound", detail)))
      return run(api, (classes) =>
        Effect.gen(function* () {
          assert.strictEqual((yield* Effect.flip(classes.get("ns", "a"))).message, detail)
        })
      )
    }
  )
})

describe("without a list", () => {
  it.effect("a slow first list is waited for five seconds, then the one class is read", () => {
    const api = server([spc("a")])
    const inner = api.respond
    api.respond = (request, index) =>
      request.query === undefined ? inner(request, index) : Effect.delay(inner(request, index), "8 seconds")
    return run(api, (classes) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(classes.get("ns", "a"))
        yield* TestClock.adjust("4999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual((yield* Fiber.join(fiber)).metadata.name, "a")
        assert.deepStrictEqual(api.lines, [list("ns"), one("ns", "a")])
        yield* TestClock.adjust("3 seconds")
        yield* classes.get("ns", "a")
        assert.strictEqual(api.requests.length, 2, "the list came in meanwhile")
      })
    )
  })

  it.effect("a first list that arrives in time is waited for", () => {
    const api = server([spc("a")])
    const inner = api.respond
    api.respond = (request, index) => Effect.delay(inner(request, index), "3 seconds")
    return run(api, (classes) =>
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(classes.get("ns", "a"))
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(api.lines, [list("ns")])
      })
    )
  })

  it.effect("where listing is forbidden every answer is a live read, without waiting", () => {
    const api = server([spc("a")])
    const inner = api.respond
    api.respond = (request, index) =>
      request.query === undefined ? inner(request, index) : Effect.fail(failed(403, "Forbidden"))
    return run(api, (classes) =>
      Effect.gen(function* () {
        for (let n = 0; n < 3; n++) yield* classes.get("ns", "a")
        assert.strictEqual(api.lines.filter((line) => line === one("ns", "a")).length, 3)
      })
    )
  })

  it.effect("where watching is forbidden what was listed is not trusted", () => {
    const api = server([spc("a")])
    for (let n = 0; n < 10; n++) api.refusals.push(failed(403, "Forbidden"))
    return run(api, (classes) =>
      Effect.gen(function* () {
        yield* classes.get("ns", "a")
        yield* TestClock.adjust("1 second")
        const before = api.requests.length
        yield* classes.get("ns", "a")
        assert.deepStrictEqual(api.lines.slice(before), [one("ns", "a")])
      })
    )
  })

  it.effect("without a connection what is held is still answered", () => {
    const api = server([spc("a")])
    return run(api, (classes) =>
      Effect.gen(function* () {
        yield* classes.get("ns", "a")
        api.respond = () => Effect.fail(failed(0, "Network"))
        yield* TestClock.adjust(0)
        for (let n = 0; n < 10; n++) api.refusals.push(failed(0, "Network"))
        yield* api.lastWatch.fail(failed(0, "Network"))
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual((yield* classes.get("ns", "a")).metadata.name, "a")
        assert.strictEqual((yield* Effect.flip(classes.get("ns", "b"))).reason, "Network")
      })
    )
  })

  it.effect("a class of the wrong shape does not hide the others, and is Invalid itself", () => {
    const api = server([spc("good"), spc("bad", "ns", { parameters: { objects: { hidden: "hunter2" } } })])
    return run(api, (classes) =>
      Effect.gen(function* () {
        yield* classes.get("ns", "good")
        const failure = yield* Effect.flip(classes.get("ns", "bad"))
        assert.strictEqual(failure.reason, "Invalid")
        assert.include(failure.message, '["spec"]["parameters"]["objects"]')
        assert.notInclude(failure.message, "hunter2")
      })
    )
  })
})

describe("a namespace that is not used any more", () => {
  it.effect("is closed after ten minutes, and opened again by its next use", () => {
    const api = server([spc("a")])
    return run(api, (classes) =>
      Effect.gen(function* () {
        yield* classes.get("ns", "a")
        yield* TestClock.adjust("9 minutes")
        yield* classes.get("ns", "a")
        yield* TestClock.adjust("9 minutes")
        assert.strictEqual(yield* classes.openNamespaces, 1)
        assert.strictEqual(api.requests.length, 1)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* classes.openNamespaces, 0)
        assert.isTrue(api.watches.every(({ closed }) => closed))
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(api.requests.length, 1, "nothing is asked for meanwhile")
        yield* classes.get("ns", "a")
        assert.deepStrictEqual(api.lines, [list("ns"), list("ns")])
      })
    )
  })

  it.effect("S15 opening and closing leaves no watch behind", () => {
    const api = server([])
    return run(api, (classes) =>
      Effect.gen(function* () {
        for (let n = 0; n < 100; n++) yield* Effect.flip(classes.get(`ns-${n}`, "a"))
        yield* TestClock.adjust(0)
        assert.strictEqual(yield* classes.openNamespaces, 100)
        yield* TestClock.adjust("11 minutes")
        assert.strictEqual(yield* classes.openNamespaces, 0)
        assert.strictEqual(api.watches.filter(({ closed }) => !closed).length, 0)
      })
    )
  })

  it.effect("the one who opens it may leave before the list is there", () => {
    const api = server([spc("a")])
    const inner = api.respond
    api.respond = (request, index) => Effect.delay(inner(request, index), "1 second")
    return run(api, (classes) =>
      Effect.gen(function* () {
        const first = yield* Effect.forkChild(classes.get("ns", "a"))
        yield* TestClock.adjust("500 millis")
        const second = yield* Effect.forkChild(classes.get("ns", "a"))
        yield* Fiber.interrupt(first)
        yield* TestClock.adjust("500 millis")
        yield* Fiber.join(second)
        assert.deepStrictEqual(api.lines, [list("ns")])
      })
    )
  })
})

describe("on an API server in memory", () => {
  const CLASSES = "secretproviderclasses.secrets-store.csi.x-k8s.io"
  const withServer = <A, E>(
    program: Effect.Effect<A, E, SecretProviderClasses | Layer.Success<typeof memoryKubernetes>>
  ) => Effect.provide(program, Layer.provideMerge(SecretProviderClasses.layer, Layer.merge(memoryKubernetes, quiet)))
  const make = (name: string, namespace = "ns") =>
    Resource.create(Resource.secretProviderClasses, { metadata: { name, namespace }, spec: { provider: "p" } })
  const volume = (uid: string) => ({
    nodeId: "node",
    pod: { name: `pod-${uid}`, namespace: "ns", uid, serviceAccountName: "default" },
    secretProviderClassName: "a",
    targetPath: `/pods/${uid}/volumes/kubernetes.io~csi/v/mount`,
    objectVersions: [{ id: "o", version: "v" }],
    knownName: undefined
  })

  it.effect("S10 a first publish in a namespace that is followed reads nothing and writes once", () =>
    withServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const classes = yield* SecretProviderClasses
        yield* make("a")
        yield* classes.get("ns", "a")
        yield* TestClock.adjust(0)
        yield* server.resetRequests
        for (const uid of ["1", "2", "3"]) {
          yield* classes.get("ns", "a")
          yield* PodStatus.record(volume(uid))
        }
        assert.deepStrictEqual(yield* server.requests, [
          {
            method: "POST",
            resource: "secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io",
            watch: false,
            count: 3
          }
        ])
      })
    )
  )

  it.effect("a class that is changed or deleted is seen by the next publish", () =>
    withServer(
      Effect.gen(function* () {
        const classes = yield* SecretProviderClasses
        const made = yield* make("a")
        yield* classes.get("ns", "a")
        yield* TestClock.adjust(0)
        yield* Resource.replace(Resource.secretProviderClasses, { ...made, spec: { provider: "q" } })
        yield* TestClock.adjust(0)
        assert.strictEqual((yield* classes.get("ns", "a")).spec?.provider, "q")
        yield* Resource.remove(Resource.secretProviderClasses, "ns", "a")
        yield* TestClock.adjust(0)
        assert.strictEqual(
          (yield* Effect.flip(classes.get("ns", "a"))).message,
          'SecretProviderClass.secrets-store.csi.x-k8s.io "a" not found'
        )
      })
    )
  )

  it.effect("a quiet day costs a watch every five minutes and no list; an idle namespace costs nothing", () =>
    withServer(
      Effect.gen(function* () {
        const server = yield* MemoryKubernetes
        const classes = yield* SecretProviderClasses
        yield* make("a")
        for (let minute = 0; minute < 24 * 60; minute += 5) {
          yield* classes.get("ns", "a")
          yield* TestClock.adjust("5 minutes")
        }
        assert.strictEqual(yield* server.requestCount({ method: "GET", watch: false }), 1)
        assert.isAtMost(yield* server.requestCount({ resource: CLASSES, watch: true }), 24 * 12 + 12)
        assert.strictEqual(yield* server.openWatches(), 1)
        yield* TestClock.adjust("11 minutes")
        yield* server.resetRequests
        assert.strictEqual(yield* server.openWatches(), 0)
        yield* TestClock.adjust("1 day")
        assert.deepStrictEqual(yield* server.requests, [])
      })
    )
  )
})
