import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Redacted } from "effect"
import { TestClock } from "effect/testing"
import { expiringCache } from "../../src/operator/ExpiringCache.ts"
import {
  type Access,
  ANONYMOUS,
  bearerTokenOf,
  certificateUser,
  decideAccess,
  isAllowedBy,
  make,
  type Options,
  reviewedUser
} from "../../src/operator/MetricsAccess.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

const PROMETHEUS = "system:serviceaccount:openshift-monitoring:prometheus-k8s"
const METRICS = { verb: "get", path: "/metrics" }

describe("who a client is", () => {
  it.each([
    { header: undefined, token: undefined },
    { header: "", token: undefined },
    { header: "Basic abc", token: undefined },
    { header: "Bearer", token: undefined },
    { header: "Bearer ", token: undefined },
    { header: "Bearer a b", token: undefined },
    { header: "Bearer abc", token: "abc" },
    { header: "bearer   abc ", token: "abc" }
  ])("1.5 $header", ({ header, token }) => {
    const found = bearerTokenOf(header)
    assert.strictEqual(found === undefined ? undefined : Redacted.value(found), token)
  })

  it.each([
    { subject: {}, user: undefined },
    { subject: { CN: "" }, user: undefined },
    { subject: { CN: ["a", "b"] }, user: undefined },
    { subject: { CN: "a" }, user: { name: "a", groups: ["system:authenticated"] } },
    { subject: { CN: "a", O: "g" }, user: { name: "a", groups: ["g", "system:authenticated"] } },
    { subject: { CN: "a", O: ["g", "h", 7] }, user: { name: "a", groups: ["g", "h", "system:authenticated"] } }
  ])("1.5 a certificate of $subject", ({ subject, user }) => {
    assert.deepStrictEqual<unknown>(certificateUser(subject), user && { ...user, uid: "", extra: {} })
  })

  it.each([
    { answer: {}, user: undefined },
    { answer: { status: { authenticated: false, user: { username: "a" } } }, user: undefined },
    { answer: { status: { user: { username: "a" } } }, user: undefined },
    { answer: { status: { authenticated: true } }, user: undefined },
    { answer: { status: { authenticated: "true", user: { username: "a" } } }, user: undefined },
    {
      answer: { status: { authenticated: true, user: { username: "a", groups: null } } },
      user: { name: "a", uid: "", groups: ["system:authenticated"], extra: {} }
    },
    {
      answer: {
        status: {
          authenticated: true,
          user: { username: "a", uid: "u", groups: ["system:authenticated", "g"], extra: { k: ["v"] } }
        }
      },
      user: { name: "a", uid: "u", groups: ["system:authenticated", "g"], extra: { k: ["v"] } }
    }
  ])("1.5 a review that says $answer", ({ answer, user }) => {
    assert.deepStrictEqual<unknown>(reviewedUser(answer), user)
  })
})

describe("what a client may do", () => {
  const user = (name: string, ...groups: ReadonlyArray<string>) => ({ name, uid: "", groups, extra: {} })
  it.each([
    { who: user(PROMETHEUS), asked: METRICS, expected: "Allow" },
    { who: user(PROMETHEUS), asked: { verb: "head", path: "/metrics" }, expected: "Ask" },
    { who: user(PROMETHEUS), asked: { verb: "get", path: "/debug/pprof/" }, expected: "Ask" },
    { who: user("a", "system:masters"), asked: { verb: "put", path: "/debug/flags/v" }, expected: "Allow" },
    { who: user("system:masters"), asked: METRICS, expected: "Ask" },
    { who: ANONYMOUS, asked: METRICS, expected: "Ask" }
  ])("1.5 $who.name $asked", ({ asked, expected, who }) => {
    assert.strictEqual(decideAccess(who, asked, PROMETHEUS), expected)
  })

  it.each([
    { answer: {}, allowed: false },
    { answer: null, allowed: false },
    { answer: { status: { allowed: true } }, allowed: true },
    { answer: { status: { allowed: true, denied: true } }, allowed: false },
    { answer: { status: { allowed: "yes" } }, allowed: false },
    { answer: { status: { allowed: false } }, allowed: false }
  ])("1.5 a review that says $answer", ({ allowed, answer }) => {
    assert.strictEqual(isAllowedBy(answer), allowed)
  })
})

const options: Options = {
  metricsUser: PROMETHEUS,
  authenticationDisabled: false,
  authorizationDisabled: false,
  hash: (token) => `#${token.length}`
}

const world = (allowed: unknown = { status: { allowed: true } }) =>
  new ScriptedApi(({ body, path }) => {
    const asked = JSON.stringify(body)
    if (path.endsWith("/tokenreviews")) {
      return Effect.succeed(
        asked.includes("good") ? { status: { authenticated: true, user: { username: "reader", groups: ["g"] } } } : {}
      )
    }
    return Effect.succeed(allowed)
  })

const bearer = (token: string) => ({ certificate: undefined, authorization: `Bearer ${token}` })
const nobody = { certificate: undefined, authorization: undefined }

describe("asking the API server", () => {
  it.effect("1.5 one review of the token, one of the permission, both kept for 35 seconds", () => {
    const api = world()
    return Effect.gen(function* () {
      const access = yield* make(options)
      for (const _ of [1, 2, 3]) assert.deepStrictEqual(yield* access(bearer("good"), METRICS), { _tag: "Allowed" })
      assert.deepStrictEqual(
        api.requests.map(({ body }) => body),
        [
          { apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", spec: { token: "good" } },
          {
            apiVersion: "authorization.k8s.io/v1",
            kind: "SubjectAccessReview",
            spec: {
              user: "reader",
              uid: "",
              groups: ["g", "system:authenticated"],
              extra: {},
              nonResourceAttributes: METRICS
            }
          }
        ]
      )
      yield* TestClock.adjust("34 seconds")
      yield* access(bearer("good"), METRICS)
      assert.strictEqual(api.requests.length, 2)
      yield* TestClock.adjust("1 second")
      yield* access(bearer("good"), METRICS)
      assert.strictEqual(api.requests.length, 4)
    }).pipe(Effect.provide(api.layer))
  })

  it.effect("1.5 a refusal is kept for 10 seconds, and per path", () => {
    const api = world({ status: { allowed: false } })
    return Effect.gen(function* () {
      const access = yield* make(options)
      const refused: Access = { _tag: "Forbidden", user: "system:anonymous" }
      assert.deepStrictEqual(yield* access(nobody, METRICS), refused)
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(yield* access(nobody, METRICS), refused)
      assert.strictEqual(api.requests.length, 1)
      yield* access(nobody, { verb: "get", path: "/version" })
      assert.strictEqual(api.requests.length, 2)
      yield* TestClock.adjust("1 second")
      yield* access(nobody, METRICS)
      assert.strictEqual(api.requests.length, 3)
    }).pipe(Effect.provide(api.layer))
  })

  it.effect("1.5 a token that is nobody's does not become anonymous", () => {
    const api = world()
    return Effect.gen(function* () {
      const access = yield* make(options)
      for (const _ of [1, 2]) assert.deepStrictEqual(yield* access(bearer("bad"), METRICS), { _tag: "Unauthorized" })
      assert.strictEqual(api.requests.length, 1)
    }).pipe(Effect.provide(api.layer))
  })

  it.effect("1.5 a certificate needs no review of a token, and wins over one", () => {
    const api = world()
    return Effect.gen(function* () {
      const access = yield* make(options)
      const admin = { certificate: { CN: "admin", O: "system:masters" }, authorization: "Bearer bad" }
      assert.deepStrictEqual(yield* access(admin, { verb: "put", path: "/debug/flags/v" }), { _tag: "Allowed" })
      const prometheus = { certificate: { CN: PROMETHEUS }, authorization: undefined }
      assert.deepStrictEqual(yield* access(prometheus, METRICS), { _tag: "Allowed" })
      assert.deepStrictEqual(api.requests, [])
    }).pipe(Effect.provide(api.layer))
  })

  it.effect("1.5 Q22 what cannot be found out is not allowed, not kept, and no token is logged", () => {
    const api = new ScriptedApi(({ path }) =>
      path.endsWith("/tokenreviews")
        ? Effect.fail(failed(403, "Forbidden", "you sent s3cret"))
        : Effect.fail(failed(500, "InternalError", "you sent s3cret"))
    )
    const lines: Array<string> = []
    const logger = Logger.layer([Logger.make(({ message }) => void lines.push(JSON.stringify(message)))])
    return Effect.gen(function* () {
      const access = yield* make(options)
      for (const _ of [1, 2]) {
        assert.deepStrictEqual(yield* access(bearer("s3cret"), METRICS), { _tag: "Unauthorized" })
        assert.deepStrictEqual(yield* access(nobody, METRICS), { _tag: "Failed" })
      }
      assert.strictEqual(api.requests.length, 4)
      assert.strictEqual(lines.length, 2)
      assert.notInclude(lines.join(), "s3cret")
    }).pipe(Effect.provide(Layer.merge(api.layer, logger)))
  })

  it.effect("1.5 an API server that does not answer holds nobody up for long", () => {
    const api = new ScriptedApi(() => Effect.never)
    return Effect.gen(function* () {
      const access = yield* make(options)
      const asking = yield* Effect.forkScoped(access(nobody, METRICS))
      yield* TestClock.adjust("8 seconds")
      assert.deepStrictEqual(asking.pollUnsafe()?._tag, "Success")
    }).pipe(Effect.provide(api.layer))
  })

  it.effect("1.4 switched off: everybody is anonymous, or may do everything", () => {
    const api = world({ status: { allowed: false } })
    return Effect.gen(function* () {
      const anonymous = yield* make({ ...options, authenticationDisabled: true })
      assert.deepStrictEqual(yield* anonymous(bearer("good"), METRICS), {
        _tag: "Forbidden",
        user: "system:anonymous"
      })
      const open = yield* make({ ...options, authorizationDisabled: true })
      assert.deepStrictEqual(yield* open(nobody, METRICS), { _tag: "Allowed" })
      assert.deepStrictEqual(yield* open(bearer("bad"), METRICS), { _tag: "Unauthorized" })
    }).pipe(Effect.provide(api.layer))
  })
})

describe("what is kept", () => {
  it("is bounded, the oldest goes first, and nothing is older than it may be", () => {
    const cache = expiringCache<number>(2)
    cache.set("a", 1, 10, 0)
    cache.set("b", 2, 10, 0)
    cache.set("a", 3, 10, 5)
    cache.set("c", 4, 10, 5)
    assert.deepStrictEqual([cache.get("a", 14), cache.get("b", 5), cache.get("c", 14)], [3, undefined, 4])
    assert.deepStrictEqual([cache.get("a", 15), cache.size()], [undefined, 1])
  })
})
