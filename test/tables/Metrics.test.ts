import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Metric } from "effect"
import { TestClock } from "effect/testing"
import { ProviderCallFailed, ProviderNotFound } from "../../schemas/errors/ProviderFailed.ts"
import * as Metrics from "../../src/telemetry/Metrics.ts"
import { exposition, type ProcessStats } from "../../src/telemetry/PrometheusText.ts"

const scraped = (program: Effect.Effect<unknown>, process?: ProcessStats) =>
  Effect.andThen(program, exposition(process)).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))

const linesOf = (text: string, name: string) => text.split("\n").filter((line) => line.startsWith(name))

const SCOPE =
  'os_type="linux",otel_scope_name="sigs.k8s.io/secrets-store-csi-driver",otel_scope_schema_url="",otel_scope_version=""'

const TARGET_INFO = `# HELP target_info Target metadata
# TYPE target_info gauge
target_info{service_name="unknown_service:secrets-store-csi",telemetry_sdk_language="go",telemetry_sdk_name="opentelemetry",telemetry_sdk_version="1.43.0"} 1
`

describe("metrics", () => {
  it.effect("8.2 nothing but target_info before the first update", () =>
    Effect.map(scraped(Effect.void), (text) => assert.strictEqual(text, TARGET_INFO))
  )

  it.effect("8.2 the example", () =>
    Effect.gen(function* () {
      const text = yield* scraped(
        Effect.gen(function* () {
          yield* Metrics.rotationReconciled({ provider: "e2e-provider", seconds: 0.15 })
          yield* Metrics.nodePublished({ provider: "e2e-provider", outcome: "mounted" })
          yield* Metrics.nodePublished({ provider: "e2e-provider", outcome: "refreshed" })
          yield* Metrics.nodePublishFailed({ provider: "", errorType: "SecretProviderClassNotFound" })
        })
      )
      const lines = text.split("\n")
      for (const expected of `# HELP node_publish_total Total number of node publish calls
# TYPE node_publish_total counter
node_publish_total{os_type="linux",otel_scope_name="sigs.k8s.io/secrets-store-csi-driver",otel_scope_schema_url="",otel_scope_version="",provider="e2e-provider"} 2
# TYPE node_publish_error_total counter
node_publish_error_total{error_type="SecretProviderClassNotFound",os_type="linux",otel_scope_name="sigs.k8s.io/secrets-store-csi-driver",otel_scope_schema_url="",otel_scope_version="",provider=""} 1
rotation_reconcile_total{os_type="linux",otel_scope_name="sigs.k8s.io/secrets-store-csi-driver",otel_scope_schema_url="",otel_scope_version="",provider="e2e-provider",rotated="true"} 1`.split(
        "\n"
      )) {
        assert.include(lines, expected)
      }
    })
  )

  it.effect.each<readonly [type: string, help: string, program: Effect.Effect<void>, line: string]>([
    [
      "counter",
      "Total number of node publish calls",
      Metrics.nodePublished({ provider: "p", outcome: "kept" }),
      `node_publish_total{${SCOPE},provider="p"} 1`
    ],
    ["counter", "Total number of node unpublish calls", Metrics.nodeUnpublished, `node_unpublish_total{${SCOPE}} 1`],
    [
      "counter",
      "Total number of node publish calls with error",
      Metrics.nodePublishFailed({ provider: "p", errorType: "GRPCProviderError" }),
      `node_publish_error_total{error_type="GRPCProviderError",${SCOPE},provider="p"} 1`
    ],
    [
      "counter",
      "Total number of node unpublish calls with error",
      Metrics.nodeUnpublishFailed,
      `node_unpublish_error_total{${SCOPE}} 1`
    ],
    [
      "counter",
      "Total number of rotation reconciles",
      Metrics.rotationReconciled({ provider: "p", seconds: 1 }),
      `rotation_reconcile_total{${SCOPE},provider="p",rotated="true"} 1`
    ],
    [
      "counter",
      "Total number of rotation reconciles with error",
      Metrics.rotationFailed({ provider: "p", errorType: "FileWriteError" }),
      `rotation_reconcile_error_total{error_type="FileWriteError",${SCOPE},provider="p",rotated="true"} 1`
    ],
    [
      "histogram",
      "Distribution of how long it took to rotate secrets-store content for pods",
      Metrics.rotationReconciled({ provider: "p", seconds: 0.25 }),
      `rotation_reconcile_duration_sec_sum{${SCOPE}} 0.25`
    ],
    [
      "counter",
      "Total number of k8s secrets synced",
      Metrics.secretSynced({ provider: "p", seconds: 1 }),
      `sync_k8s_secret_total{${SCOPE},provider="p"} 1`
    ],
    [
      "histogram",
      "Distribution of how long it took to sync k8s secret",
      Metrics.secretSynced({ provider: "p", seconds: 0.5 }),
      `k8s_secret_duration_sec_count{${SCOPE}} 1`
    ]
  ])("8.2 %s: %s", ([type, help, program, line]) =>
    Effect.map(scraped(program), (text) => {
      const name = line.replace(/\{.*$/u, "").replace(/_(?:sum|count)$/u, "")
      assert.include(text, `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`)
      assert.include(text.split("\n"), line)
    })
  )

  it.effect("8.2 the bounds of the histograms", () =>
    Effect.gen(function* () {
      const text = yield* scraped(
        Effect.gen(function* () {
          yield* Metrics.rotationReconciled({ provider: "p", seconds: 0.1 })
          yield* Metrics.rotationReconciled({ provider: "p", seconds: 2 })
        })
      )
      const bounds = [
        "0.1",
        "0.13492828476735633",
        "0.18205642030260802",
        "0.24564560522315804",
        "0.3314454017339986",
        "0.4472135954999578",
        "0.6034176336545162",
        "0.8141810630738084",
        "1.0985605433061172",
        "1.4822688982138947",
        "1.9999999999999991",
        "+Inf"
      ]
      assert.deepStrictEqual(linesOf(text, "rotation_reconcile_duration_sec"), [
        ...bounds.map((le) => `rotation_reconcile_duration_sec_bucket{${SCOPE},le="${le}"} ${le === "+Inf" ? 2 : 1}`),
        `rotation_reconcile_duration_sec_sum{${SCOPE}} 2.1`,
        `rotation_reconcile_duration_sec_count{${SCOPE}} 2`
      ])
    })
  )

  it.effect("ours: what publish calls did", () =>
    Effect.gen(function* () {
      const text = yield* scraped(
        Effect.gen(function* () {
          for (const outcome of ["mounted", "refreshed", "kept", "not_due"] as const) {
            yield* Metrics.nodePublished({ provider: "p", outcome })
          }
          yield* Metrics.nodePublishFailed({ provider: "p", errorType: "FailedToMount" })
        })
      )
      assert.deepStrictEqual(linesOf(text, "secrets_store_publish_outcomes_total"), [
        'secrets_store_publish_outcomes_total{outcome="failed",provider="p"} 1',
        'secrets_store_publish_outcomes_total{outcome="kept",provider="p"} 1',
        'secrets_store_publish_outcomes_total{outcome="mounted",provider="p"} 1',
        'secrets_store_publish_outcomes_total{outcome="not_due",provider="p"} 1',
        'secrets_store_publish_outcomes_total{outcome="refreshed",provider="p"} 1'
      ])
    })
  )

  it.effect("ours: volumes and version", () =>
    Effect.gen(function* () {
      const text = yield* scraped(
        Effect.all([Metrics.setVolumes(3), Metrics.setVolumes(2), Metrics.setBuildInfo('v"1\\2\n')])
      )
      assert.include(text, "\nsecrets_store_volumes 2\n")
      assert.include(text, 'secrets_store_build_info{version="v\\"1\\\\2\\n"} 1\n')
    })
  )

  it.effect("ours: the oldest content of every provider, as long as it has volumes", () =>
    Effect.gen(function* () {
      const text = yield* scraped(
        Effect.andThen(
          Metrics.setContentAges(
            [
              { provider: "a", lastSuccessMillis: 5_000 },
              { provider: "gone", lastSuccessMillis: 0 }
            ],
            9_000
          ),
          Metrics.setContentAges(
            [
              { provider: "a", lastSuccessMillis: 5_000 },
              { provider: "a", lastSuccessMillis: 1_500 },
              { provider: "b", lastSuccessMillis: 12_000 }
            ],
            10_000
          )
        )
      )
      assert.deepStrictEqual(linesOf(text, "secrets_store_content_age_seconds"), [
        'secrets_store_content_age_seconds{provider="a"} 8.5',
        'secrets_store_content_age_seconds{provider="b"} 0'
      ])
    })
  )

  it.effect("ours: calls to providers by what became of them", () =>
    Effect.gen(function* () {
      const measured = Metrics.measureProviderRequest("p")
      const text = yield* scraped(
        Effect.gen(function* () {
          const slow = yield* Effect.forkChild(measured(Effect.sleep("3 seconds")), { startImmediately: true })
          yield* TestClock.adjust("3 seconds")
          yield* Fiber.join(slow)
          const failed = new ProviderCallFailed({
            provider: "p",
            grpcCode: "UNAVAILABLE",
            details: "",
            unanswered: true
          })
          yield* Effect.ignore(measured(Effect.fail(failed)))
          const absent = new ProviderNotFound({ provider: "p", searched: [], waitedMillis: 0 })
          yield* Effect.ignore(measured(Effect.fail(absent)))
          const left = yield* Effect.forkChild(measured(Effect.never), { startImmediately: true })
          yield* Fiber.interrupt(left)
          yield* Effect.exit(measured(Effect.die("bug")))
        })
      )
      assert.deepStrictEqual(linesOf(text, "secrets_store_provider_requests_total"), [
        'secrets_store_provider_requests_total{grpc_code="CANCELLED",provider="p"} 1',
        'secrets_store_provider_requests_total{grpc_code="INTERNAL",provider="p"} 1',
        'secrets_store_provider_requests_total{grpc_code="OK",provider="p"} 1',
        'secrets_store_provider_requests_total{grpc_code="UNAVAILABLE",provider="p"} 1'
      ])
      const lines = text.split("\n")
      assert.include(lines, 'secrets_store_provider_request_duration_seconds_bucket{provider="p",le="2.5"} 3')
      assert.include(lines, 'secrets_store_provider_request_duration_seconds_bucket{provider="p",le="5"} 4')
      assert.include(lines, 'secrets_store_provider_request_duration_seconds_sum{provider="p"} 3')
    })
  )

  it.effect("ours: error types of providers are bounded, the driver's own are not", () =>
    Effect.gen(function* () {
      const text = yield* scraped(
        Effect.gen(function* () {
          for (let n = 0; n < 100; n++) {
            yield* Metrics.nodePublishFailed({ provider: `provider-${n}`, errorType: `Code${n}` })
          }
          yield* Metrics.nodePublishFailed({ provider: "", errorType: "Code3" })
          yield* Metrics.nodePublishFailed({ provider: "", errorType: "FileWriteError" })
        })
      )
      const lines = linesOf(text, "node_publish_error_total")
      assert.strictEqual(lines.length, 64 + 3)
      assert.include(lines, `node_publish_error_total{error_type="Other",${SCOPE},provider="Other"} 36`)
      assert.include(lines, `node_publish_error_total{error_type="Code3",${SCOPE},provider=""} 1`)
      assert.include(lines, `node_publish_error_total{error_type="FileWriteError",${SCOPE},provider=""} 1`)
    })
  )

  it.each([
    { name: "a standard word", word: "FileWriteError", seen: 64, expected: "FileWriteError" },
    { name: "the empty word, if it is standard", word: "", seen: 64, expected: "" },
    { name: "a new word", word: "Auth.Failed_1-x", seen: 63, expected: "Auth.Failed_1-x" },
    { name: "one word too many", word: "AuthFailed", seen: 64, expected: "Other" },
    { name: "a word seen before", word: "w1", seen: 64, expected: "w1" },
    { name: "a sentence", word: "not authorised", seen: 0, expected: "Other" },
    { name: "a long word", word: "x".repeat(65), seen: 0, expected: "x".repeat(64) },
    { name: "a new line at the end", word: "x\n", seen: 0, expected: "Other" }
  ])("ours: $name", ({ expected, seen, word }) => {
    const known = new Set(Array.from({ length: seen }, (_, index) => `w${index}`))
    assert.strictEqual(Metrics.boundedLabel(word, new Set(["", "FileWriteError"]), known), expected)
  })

  it.effect("8.2 families by name, and the numbers of the process as Go prints them", () =>
    Effect.gen(function* () {
      const text = yield* scraped(Metrics.nodeUnpublished, {
        residentBytes: 73_728_000,
        openFileDescriptors: 21,
        cpuSeconds: 0.000_01,
        startTimeSeconds: 1_700_000_000.25
      })
      assert.strictEqual(
        text,
        `# HELP node_unpublish_total Total number of node unpublish calls
# TYPE node_unpublish_total counter
node_unpublish_total{${SCOPE}} 1
# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1e-05
# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 21
# HELP process_resident_memory_bytes Resident memory size in bytes.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 7.3728e+07
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.70000000025e+09
${TARGET_INFO}`
      )
    })
  )

  it.effect.each([
    [0, "0"],
    [1, "1"],
    [123_456, "123456"],
    [999_999, "999999"],
    [1e6, "1e+06"],
    [1_234_567, "1.234567e+06"],
    [1_000_000.5, "1.0000005e+06"],
    [123_456.7, "123456.7"],
    [1e21, "1e+21"],
    [0.0001, "0.0001"],
    [0.00001, "1e-05"],
    [-2, "-2"],
    [Number.POSITIVE_INFINITY, "+Inf"],
    [Number.NaN, "NaN"]
  ] as const)("8.2 %s is written %s", ([value, written]) =>
    Effect.map(scraped(Metrics.setVolumes(value)), (text) =>
      assert.deepStrictEqual(linesOf(text, "secrets_store_volumes"), [`secrets_store_volumes ${written}`])
    )
  )
})
