import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ClusterTls from "../../src/operator/ClusterTls.ts"
import type { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

const DISCOVERY = "/apis/config.openshift.io/v1"
const LIST = `${DISCOVERY}/apiservers`
const OBJECT = `${LIST}/cluster`

const apiServer = (resourceVersion: string, spec: unknown) => ({ metadata: { name: "cluster", resourceVersion }, spec })
const strict = (type: string) => ({ tlsSecurityProfile: { type }, tlsAdherence: "StrictAllComponents" })

/** An API server that has, refuses or does not know the object. */
const world = (initial: { readonly served: boolean; readonly spec?: unknown }) => {
  const state: { served: boolean; spec: unknown; broken: boolean } = { spec: undefined, broken: false, ...initial }
  const api = new ScriptedApi(({ path }) => {
    if (state.broken) return Effect.fail(failed(403, "Forbidden", "not allowed"))
    if (!state.served) return Effect.fail(failed(404, "NotFound", "the server could not find the requested resource"))
    if (path === DISCOVERY) return Effect.succeed({ resources: [{ name: "proxies" }, { name: "apiservers" }] })
    const object = state.spec === undefined ? [] : [apiServer("7", state.spec)]
    if (path === OBJECT) {
      return object.length === 0 ? Effect.fail(failed(404, "NotFound", "no")) : Effect.succeed(object[0])
    }
    return Effect.succeed({ metadata: { resourceVersion: "9" }, items: object })
  })
  return { api, state }
}

const run = <A, E>(
  api: ScriptedApi,
  program: (logged: ReadonlyArray<string>) => Effect.Effect<A, E, KubernetesApi | Scope.Scope>
) =>
  Effect.suspend(() => {
    const logged: Array<string> = []
    const logger = Logger.layer([
      Logger.make(({ logLevel, message }) => logged.push(`${logLevel} ${[message].flat().at(0)}`))
    ])
    return Effect.provide(program(logged), Layer.merge(api.layer, logger))
  })

const settle = TestClock.adjust(0)

const summary = Effect.fnUntraced(function* (tls: ClusterTls.ClusterTls) {
  const profile = yield* tls.current
  return profile === undefined ? "unknown" : `${profile.minTlsVersion} ${profile.honour ? "honoured" : "own"}`
})

describe("at the start", () => {
  it.effect("1.3 the profile is there before anything is served", () => {
    const { api } = world({ served: true, spec: strict("Modern") })
    return run(api, () =>
      Effect.gen(function* () {
        const tls = yield* ClusterTls.make
        assert.deepStrictEqual(api.lines, [`GET ${OBJECT}`])
        assert.strictEqual(yield* summary(tls), "VersionTLS13 honoured")
        assert.isUndefined(yield* tls.failure)
      })
    )
  })

  it.effect("1.3 no such API: not honoured, said once; 13 looked for again every minute, with one request", () => {
    const { api, state } = world({ served: false })
    return run(api, (logged) =>
      Effect.gen(function* () {
        const tls = yield* ClusterTls.make
        assert.strictEqual(yield* summary(tls), "VersionTLS12 own")
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(api.lines.filter((line) => line === `GET ${DISCOVERY}`).length, 11)
        assert.strictEqual(api.lines.length, 12)
        assert.isUndefined(yield* tls.failure)
        assert.strictEqual(logged.length, 2)
        state.served = true
        state.spec = strict("Old")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* summary(tls), "VersionTLS10 honoured")
        assert.strictEqual(api.lastWatch.query["fieldSelector"], "metadata.name=cluster")
      })
    )
  })

  it.effect(
    "1.3 B9 every two seconds for half a minute, then without it; it is taken up as soon as it can be read",
    () => {
      const { api, state } = world({ served: true, spec: strict("Modern") })
      state.broken = true
      return run(api, (logged) =>
        Effect.gen(function* () {
          const starting = yield* Effect.forkScoped(ClusterTls.make)
          yield* TestClock.adjust("29 seconds")
          assert.strictEqual(api.lines.length, 15)
          assert.isUndefined(starting.pollUnsafe())
          yield* TestClock.adjust("1 second")
          const tls = yield* Fiber.join(starting)
          assert.strictEqual(yield* summary(tls), "unknown")
          assert.strictEqual(yield* tls.failure, "cannot read apiservers.config.openshift.io/cluster: not allowed")
          assert.deepStrictEqual(logged, [
            "Warn the cluster's TLS profile could not be read in time, starting without it"
          ])
          yield* TestClock.adjust("5 minutes")
          assert.strictEqual(logged.length, 1)
          state.broken = false
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(yield* summary(tls), "VersionTLS13 honoured")
          assert.isUndefined(yield* tls.failure)
        })
      )
    }
  )

  it.effect("1.3 a profile that cannot be used does not hold up the start", () => {
    const { api } = world({ served: true, spec: { tlsSecurityProfile: { type: "Custom" } } })
    return run(api, () =>
      Effect.gen(function* () {
        const tls = yield* ClusterTls.make
        assert.strictEqual(yield* summary(tls), "unknown")
        assert.strictEqual(yield* tls.failure, "the TLS profile is of type Custom and has no custom profile")
      })
    )
  })
})

describe("while it runs", () => {
  it.effect("3.8 Q21 every change is told, and nothing else", () => {
    const { api } = world({ served: true, spec: strict("Modern") })
    return run(api, (logged) =>
      Effect.gen(function* () {
        const tls = yield* ClusterTls.make
        const told: Array<string> = []
        yield* Effect.forkScoped(
          Stream.runForEach(tls.changes, (profile) =>
            Effect.sync(() => void told.push(`${profile?.minTlsVersion} ${profile?.honour}`))
          )
        )
        yield* settle
        const watch = api.lastWatch
        yield* watch.send({ type: "MODIFIED", object: apiServer("10", strict("Modern")) })
        yield* settle
        yield* watch.send({ type: "MODIFIED", object: apiServer("11", strict("Intermediate")) })
        yield* settle
        yield* watch.send({
          type: "MODIFIED",
          object: apiServer("12", { tlsSecurityProfile: { type: "Intermediate" } })
        })
        yield* settle
        yield* watch.send({ type: "DELETED", object: apiServer("13", {}) })
        yield* settle
        assert.deepStrictEqual(told, [
          "VersionTLS13 true",
          "VersionTLS12 true",
          "VersionTLS12 false",
          // Only the warning that there is none is new.
          "VersionTLS12 false"
        ])
        assert.include(logged, "Warn there is no apiservers.config.openshift.io/cluster, using default TLS settings")
      })
    )
  })

  it.effect(
    "3.8 B9 what cannot be used leaves the last good profile in force, and is reported until it is corrected",
    () => {
      const { api } = world({ served: true, spec: strict("Modern") })
      return run(api, (logged) =>
        Effect.gen(function* () {
          const tls = yield* ClusterTls.make
          yield* settle
          const before = logged.length
          for (const version of ["10", "11"]) {
            yield* api.lastWatch.send({ type: "MODIFIED", object: apiServer(version, strict("Custom")) })
            yield* settle
          }
          assert.strictEqual(yield* summary(tls), "VersionTLS13 honoured")
          assert.strictEqual(yield* tls.failure, "the TLS profile is of type Custom and has no custom profile")
          assert.strictEqual(logged.length, before + 1)
          yield* api.lastWatch.send({ type: "MODIFIED", object: apiServer("12", strict("Modern")) })
          yield* settle
          assert.isUndefined(yield* tls.failure)
        })
      )
    }
  )

  it.effect("13 the API goes away, and comes back", () => {
    const { api, state } = world({ served: true, spec: strict("Modern") })
    return run(api, () =>
      Effect.gen(function* () {
        const tls = yield* ClusterTls.make
        yield* settle
        state.served = false
        api.refusals.push(...Array.from({ length: 9 }, () => failed(404, "NotFound", "gone")))
        yield* api.lastWatch.close
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* summary(tls), "VersionTLS12 own")
        assert.isUndefined(yield* tls.failure)
        const count = api.lines.length
        yield* TestClock.adjust("5 minutes")
        assert.strictEqual(api.lines.length, count + 5)
        api.refusals.length = 0
        state.served = true
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* summary(tls), "VersionTLS13 honoured")
      })
    )
  })
})
