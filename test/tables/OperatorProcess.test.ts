import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Layer, Logger, Metric } from "effect"
import { TestClock } from "effect/testing"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { LeadershipLost } from "../../schemas/errors/LeadershipLost.ts"
import { OperatorConfigInvalid } from "../../schemas/errors/OperatorConfigInvalid.ts"
import { exitCodeOf } from "../../src/main/launchOperator.ts"
import * as Readiness from "../../src/operator/Readiness.ts"
import { Shutdown } from "../../src/ports/Shutdown.ts"
import * as OperatorMetrics from "../../src/telemetry/OperatorMetrics.ts"
import { exposition } from "../../src/telemetry/PrometheusText.ts"
import { failed, ScriptedApi } from "./ScriptedApi.ts"

describe("exit status", () => {
  const detail = "x"
  it.each([
    { name: "told to stop", exit: Exit.void, status: 0 },
    { name: "interrupted", exit: Exit.interrupt(1), status: 0 },
    {
      name: "the Lease was lost",
      exit: Exit.fail(new LeadershipLost({ lease: "a/b", identity: "c", why: "taken" })),
      status: 0
    },
    {
      name: "the configuration is wrong",
      exit: Exit.fail(new OperatorConfigInvalid({ source: "s", detail, remedy: "r" })),
      status: 255
    },
    { name: "the port is taken", exit: Exit.fail(new EndpointFailed({ endpoint: "e", detail })), status: 255 },
    { name: "a bug", exit: Exit.die("x"), status: 1 },
    {
      name: "a bug while it was interrupted",
      exit: Exit.failCause(Cause.combine(Cause.die("x"), Cause.interrupt(1))),
      status: 1
    }
  ])("1.10 $name: $status", ({ exit, status }) => {
    assert.strictEqual(exitCodeOf(exit), status)
  })
})

describe("readiness", () => {
  const config = { lease: { namespace: "ns", name: "lock" } }
  const started = (api: ScriptedApi) =>
    Effect.gen(function* () {
      const signal = yield* Deferred.make<string>()
      const logged: Array<string> = []
      const context = yield* Layer.build(
        Layer.mergeAll(
          api.layer,
          Layer.succeed(Shutdown, Shutdown.of({ requested: Deferred.await(signal) })),
          Logger.layer([Logger.make(({ message }) => logged.push(String([message].flat()[0])))])
        )
      )
      const { check } = yield* Effect.provide(Readiness.make(config), context)
      const said = Effect.match(check, { onSuccess: () => "ready", onFailure: ({ message }) => message })
      return { said, signal, logged }
    })

  it.effect("1.5 once the Lease was read, or is not there; not any more once told to stop", () =>
    Effect.gen(function* () {
      const lease = { metadata: { name: "lock", namespace: "ns" }, spec: {} }
      for (const answer of [lease, failed(404, "NotFound")]) {
        const api = ScriptedApi.answering(answer)
        const { said, signal } = yield* started(api)
        assert.strictEqual(yield* said, "the lease was not read yet")
        yield* TestClock.adjust(0)
        assert.strictEqual(yield* said, "ready")
        assert.deepStrictEqual(api.lines, ["GET /apis/coordination.k8s.io/v1/namespaces/ns/leases/lock"])
        yield* Deferred.succeed(signal, "SIGTERM")
        yield* TestClock.adjust(0)
        assert.strictEqual(yield* said, "shutting down")
      }
    })
  )

  it.effect("1.5 an API server that cannot be reached is asked every second, and named", () =>
    Effect.gen(function* () {
      const api = ScriptedApi.answering(
        ...Array.from({ length: 40 }, () => failed(0, "Network", "connection refused")),
        failed(404, "NotFound")
      )
      const { logged, said } = yield* started(api)
      yield* TestClock.adjust("39 seconds")
      assert.strictEqual(api.requests.length, 40)
      assert.strictEqual(yield* said, "the lease cannot be read: connection refused")
      assert.strictEqual(logged.length, 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* said, "ready")
    })
  )
})

describe("what was built", () => {
  const labels = {
    major: "0",
    minor: "1",
    gitVersion: "0.1.0",
    gitCommit: "c",
    gitTreeState: "",
    buildDate: "d",
    goVersion: "",
    compiler: "node v26",
    platform: "linux/amd64"
  }

  it.effect.each([
    { namespace: "openshift-cluster-csi-drivers", name: "openshift_cluster_csi_drivers_build_info" },
    { namespace: "1a", name: "_1a_build_info" }
  ])("1.11 Q23 two series, of $namespace", ({ name, namespace }) =>
    Effect.gen(function* () {
      yield* OperatorMetrics.setBuildInfo(namespace, labels)
      yield* OperatorMetrics.setBuildInfo(namespace, labels)
      const page = yield* exposition(undefined, { targetInfo: false })
      assert.deepStrictEqual(
        page.split("\n").filter((line) => line !== "" && !line.startsWith("#")),
        [
          `${name}{buildDate="d",compiler="node v26",gitCommit="c",gitTreeState="",gitVersion="0.1.0",goVersion="",major="0",minor="1",platform="linux/amd64"} 1`,
          'openshift_secrets_store_csi_driver_operator{gitCommit="c",gitVersion="0.1.0",major="0",minor="1"} 1'
        ].sort()
      )
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})
