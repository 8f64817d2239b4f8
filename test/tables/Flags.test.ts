import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { DriverConfig } from "../../schemas/Config.ts"
import { DRIVER_FLAGS, type DriverCommand, parseDriver } from "../../src/main/Flags.ts"
import { bool, duration, int, klogLevel, klogSeverity, parse, string, uint, usage } from "../../src/main/GoFlags.ts"

const MIB = 1024 * 1024

const defaults: DriverConfig = {
  endpoint: "unix://tmp/csi.sock",
  driverName: "secrets-store.csi.k8s.io",
  nodeId: "",
  logFormatJson: false,
  verbosity: 0,
  providerDirectories: ["/etc/kubernetes/secrets-store-csi-providers", "/var/run/secrets-store-csi-providers"],
  metricsAddr: ":8095",
  rotationEnabled: false,
  rotationPollIntervalMillis: 120_000,
  pprofEnabled: false,
  pprofPort: 6065,
  maxCallRecvBytes: 4_194_304,
  providerHealthCheck: false,
  providerHealthCheckIntervalMillis: 120_000,
  kubeconfig: "",
  kubeletRegistrationPath: "",
  pluginRegistrationDirectory: "/registration",
  healthAddr: "",
  providerWaitMillis: 10_000,
  tmpfsSizeBytes: 64 * MIB,
  volumeMountGroup: false,
  shutdownGraceMillis: 25_000,
  returnRotationErrors: false,
  refreshOnClassChange: false,
  providerMountsMax: 32,
  providerRefreshesMax: 4,
  providerRefreshesPerSecond: 10,
  memoryTrimIntervalMillis: 10_000
}

const expectRun = (words: ReadonlyArray<string>, changed: Partial<DriverConfig>) =>
  assert.deepStrictEqual<DriverCommand>(parseDriver(words), { _tag: "Run", config: { ...defaults, ...changed } })

const firstLines = (command: DriverCommand) =>
  command._tag === "Refused" ? command.message.split("\n").slice(0, 2) : [command._tag]

describe("Go's flag package", () => {
  const b = bool("b", false, "b")
  const i = int("i", 7, "i")
  const d = duration("d", 0, "d")
  const s = string("s", "z", "s")
  const u = uint("u", 1800, "u")
  const v = klogLevel("v", "lev")
  const flags = [b, i, d, s, u, v]

  // Each row is what a program with these flags printed under Go 1.26.
  it.each([
    { row: "prefix", words: ["-i=1", "--s", "x"], expected: { i: 1, s: "x" } },
    { row: "bool", words: ["-b", "false", "-i=3"], expected: { b: true }, operands: ["false", "-i=3"] },
    { row: "bool", words: ["-b=0"], expected: {} },
    { row: "bool", words: ["-b=TRUE"], expected: { b: true } },
    { row: "repeats", words: ["-b", "--b=F"], expected: {} },
    { row: "repeats", words: ["-i=1", "-i=2"], expected: { i: 2 } },
    { row: "int", words: ["-i=0x1F", "-d=90s"], expected: { i: 31, d: 90_000_000_000n } },
    { row: "int", words: ["-i=0X1f"], expected: { i: 31 } },
    { row: "int", words: ["-i=0x_1f"], expected: { i: 31 } },
    { row: "int", words: ["-i=1_000"], expected: { i: 1000 } },
    { row: "int", words: ["-i=017"], expected: { i: 15 } },
    { row: "int", words: ["-i=0_7"], expected: { i: 7 } },
    { row: "int", words: ["-i=0o17"], expected: { i: 15 } },
    { row: "int", words: ["-i=0b11"], expected: { i: 3 } },
    { row: "int", words: ["-i=+5"], expected: { i: 5 } },
    { row: "int", words: ["-i=-5"], expected: { i: -5 } },
    { row: "int", words: ["-i=9223372036854775807"], expected: { i: Number.MAX_SAFE_INTEGER } },
    { row: "duration", words: ["-d=0"], expected: {} },
    { row: "duration", words: ["-d", "-1h"], expected: { d: -3_600_000_000_000n } },
    { row: "string", words: ["-s", "-b"], expected: { s: "-b" } },
    { row: "string", words: ["-s=a=b"], expected: { s: "a=b" } },
    { row: "string", words: ["-s="], expected: { s: "" } },
    { row: "string", words: ["-s=a\nb"], expected: { s: "a\nb" } },
    { row: "klog level", words: ["-v=4"], expected: { v: 4 } },
    { row: "klog level", words: ["-v", "-4"], expected: { v: -4 } },
    { row: "positional", words: ["-i", "3", "pos", "-b"], expected: { i: 3 }, operands: ["pos", "-b"] },
    { row: "positional", words: ["-"], expected: {}, operands: ["-"] },
    { row: "positional", words: ["--", "-x"], expected: {}, operands: ["-x"] },
    { row: "positional", words: ["", "-x"], expected: {}, operands: ["", "-x"] }
  ])("1.1 $row: $words is read", ({ expected, operands = [], words }) => {
    const parsed = parse(flags, words)
    if (parsed._tag !== "Parsed") return assert.fail(parsed._tag)
    const { valueOf } = parsed
    assert.deepStrictEqual(
      { b: valueOf(b), i: valueOf(i), d: valueOf(d), s: valueOf(s), u: valueOf(u), v: valueOf(v) },
      { b: false, i: 7, d: 0n, s: "z", u: 1800, v: 0, ...expected }
    )
    assert.deepStrictEqual(parsed.operands, operands)
  })

  it.each([
    { words: ["-d", "30"], message: 'invalid value "30" for flag -d: parse error' },
    { words: ["-d="], message: 'invalid value "" for flag -d: parse error' },
    { words: ["-d=99999999h"], message: 'invalid value "99999999h" for flag -d: parse error' },
    { words: ["-b=x"], message: 'invalid boolean value "x" for -b: parse error' },
    { words: ["-b="], message: 'invalid boolean value "" for -b: parse error' },
    { words: ["-b=tRUE"], message: 'invalid boolean value "tRUE" for -b: parse error' },
    { words: ["-i=1__0"], message: 'invalid value "1__0" for flag -i: parse error' },
    { words: ["-i=_1"], message: 'invalid value "_1" for flag -i: parse error' },
    { words: ["-i=1_"], message: 'invalid value "1_" for flag -i: parse error' },
    { words: ["-i=08"], message: 'invalid value "08" for flag -i: parse error' },
    { words: ["-i=0_8"], message: 'invalid value "0_8" for flag -i: parse error' },
    { words: ["-i=1.5"], message: 'invalid value "1.5" for flag -i: parse error' },
    { words: ["-i="], message: 'invalid value "" for flag -i: parse error' },
    {
      words: ["-i=9223372036854775808"],
      message: 'invalid value "9223372036854775808" for flag -i: value out of range'
    },
    { words: ["-u=-1"], message: 'invalid value "-1" for flag -u: parse error' },
    {
      words: ["-u=99999999999999999999"],
      message: 'invalid value "99999999999999999999" for flag -u: value out of range'
    },
    { words: ["-s"], message: "flag needs an argument: -s" },
    { words: ["-x"], message: "flag provided but not defined: -x" },
    { words: ["--x=3"], message: "flag provided but not defined: -x" },
    { words: ["---b"], message: "bad flag syntax: ---b" },
    { words: ["-=3"], message: "bad flag syntax: -=3" },
    { words: ["-v", "x"], message: 'invalid value "x" for flag -v: strconv.ParseInt: parsing "x": invalid syntax' },
    {
      words: ["-v=0x1"],
      message: 'invalid value "0x1" for flag -v: strconv.ParseInt: parsing "0x1": invalid syntax'
    },
    {
      words: ["-v=3000000000"],
      message: 'invalid value "3000000000" for flag -v: strconv.ParseInt: parsing "3000000000": value out of range'
    }
  ])("1.1 $words is refused: $message", ({ message, words }) => {
    const parsed = parse(flags, words)
    if (parsed._tag !== "Refused") return assert.fail(parsed._tag)
    assert.strictEqual(parsed.message, message)
    assert.notStrictEqual(parsed.remedy, "")
  })

  it.each([["-h"], ["--help"], ["-h=1"]])("1.1 %s asks for help", (word) => {
    assert.strictEqual(parse(flags, ["-i=1", word, "-x"])._tag, "Help")
  })

  it("1.1 the usage text is Go's", () => {
    assert.strictEqual(
      usage("secrets-store-csi", [
        v,
        bool("b", false, "b usage"),
        bool("bt", true, "bool true"),
        int("i", 7, "i\nsecond"),
        duration("dur", 120_000, "the period"),
        duration("d0", 0, "zero"),
        string("str", 'z"q', "str"),
        u,
        klogSeverity("thr", 2, "thr"),
        string("empty", "", "empty")
      ]),
      [
        "Usage of secrets-store-csi:",
        "  -b\tb usage",
        "  -bt",
        "    \tbool true (default true)",
        "  -d0 duration",
        "    \tzero",
        "  -dur duration",
        "    \tthe period (default 2m0s)",
        "  -empty string",
        "    \tempty",
        "  -i int",
        "    \ti",
        "    \tsecond (default 7)",
        "  -str string",
        '    \tstr (default "z\\"q")',
        "  -thr value",
        "    \tthr (default 2)",
        "  -u uint",
        "    \tu (default 1800)",
        "  -v value",
        "    \tlev",
        ""
      ].join("\n")
    )
  })

  it.effect.prop("1.1 no command line throws", [Schema.Array(Schema.String)], ([words]) =>
    Effect.sync(() => {
      assert.include(
        ["Parsed", "Help", "Refused"],
        parse(
          flags,
          words.map((word) => `-${word}`)
        )._tag
      )
    })
  )
})

describe("the driver's flags", () => {
  it("1.2 no flag: the defaults", () => expectRun([], {}))

  it("1.2 what is read is a DriverConfig", () => {
    const command = parseDriver(["-max-call-recv-msg-size=9223372036854775807", "-rotation-poll-interval=1ns"])
    if (command._tag !== "Run") return assert.fail(command._tag)
    assert.deepStrictEqual(Schema.decodeSync(DriverConfig)(command.config), command.config)
    assert.strictEqual(command.config.rotationPollIntervalMillis, 1e-6)
  })

  it.each<readonly [section: string, words: ReadonlyArray<string>, changed: Partial<DriverConfig>]>([
    ["1.2", ["--endpoint", "unix:///csi/csi.sock"], { endpoint: "unix:///csi/csi.sock" }],
    ["1.2", ["-drivername=d"], { driverName: "d" }],
    ["1.2", ["--nodeid=node-1"], { nodeId: "node-1" }],
    ["1.2", ["--log-format-json=true"], { logFormatJson: true }],
    ["1.2", ["--metrics-addr=127.0.0.1:0"], { metricsAddr: "127.0.0.1:0" }],
    ["1.2", ["--metrics-addr=0"], { metricsAddr: "0" }],
    ["1.2", ["--metrics-addr="], { metricsAddr: ":8080" }],
    ["1.2", ["--enable-secret-rotation"], { rotationEnabled: true }],
    ["1.2", ["--rotation-poll-interval=30s"], { rotationPollIntervalMillis: 30_000 }],
    ["1.2", ["--rotation-poll-interval=0"], { rotationPollIntervalMillis: 0 }],
    ["1.2", ["--rotation-poll-interval=-1m"], { rotationPollIntervalMillis: 0 }],
    ["1.2", ["--enable-pprof=1", "--pprof-port=0x10"], { pprofEnabled: true, pprofPort: 16 }],
    ["1.2", ["--max-call-recv-msg-size=8"], { maxCallRecvBytes: 8 }],
    ["1.2", ["--max-call-recv-msg-size=-1"], { maxCallRecvBytes: 0 }],
    ["1.2 ours", ["--max-call-recv-msg-size=33554432"], { maxCallRecvBytes: 32 * MIB, tmpfsSizeBytes: 128 * MIB }],
    ["1.2", ["--provider-health-check"], { providerHealthCheck: true }],
    ["1.2", ["--provider-health-check-interval=1s"], { providerHealthCheckIntervalMillis: 1000 }],
    ["1.2", ["--provider-health-check-interval=0"], { providerHealthCheckIntervalMillis: 0 }],
    ["1.2", ["--metrics-backend=PROMETHEUS"], {}],
    ["1.2", ["--kubeconfig", "/k"], { kubeconfig: "/k" }],
    ["1.2", ["--provider-volume=/p"], { providerDirectories: ["/etc/kubernetes/secrets-store-csi-providers", "/p"] }],
    [
      "1.2 Q22",
      ["--additional-provider-volume-paths="],
      { providerDirectories: ["/var/run/secrets-store-csi-providers"] }
    ],
    [
      "1.2 Q22",
      ["--additional-provider-volume-paths= /a, ,/b ,,/a,/p", "--provider-volume=/p"],
      { providerDirectories: ["/a", "/b", "/p"] }
    ],
    ["1.3", ["-v=5"], { verbosity: 5 }],
    ["1.3", ["--v", "5"], { verbosity: 5 }],
    ["1.3", ["--v=2000000"], { verbosity: 999_999 }],
    ["1.3", ["--logtostderr", "--v=2"], { verbosity: 2 }],
    ["1.3", ["--logtostderr=false", "--alsologtostderr", "--skip_headers", "--skip_log_headers"], {}],
    ["1.3", ["--stderrthreshold=INFO", "--stderrthreshold=warning", "--stderrthreshold=2"], {}],
    ["1.3", ["--log_dir=/l", "--log_file=f", "--log_file_max_size=0x10", "--add_dir_header", "--one_output"], {}],
    ["1.3", ["--vmodule=driver=4,node*=5,", "--vmodule="], {}],
    ["1.3", ["--log_backtrace_at=driver.go:12", "--log_backtrace_at="], {}],
    ["1.2 ours", ["--kubelet-registration-path=/k/csi.sock"], { kubeletRegistrationPath: "/k/csi.sock" }],
    ["1.2 ours", ["--plugin-registration-path=/r"], { pluginRegistrationDirectory: "/r" }],
    ["1.2 ours", ["--health-addr=:9808"], { healthAddr: ":9808" }],
    ["1.2 ours", ["--provider-wait-timeout=0"], { providerWaitMillis: 0 }],
    ["1.2 ours", ["--tmpfs-size=0"], { tmpfsSizeBytes: 0 }],
    ["1.2 ours", ["--tmpfs-size="], {}],
    ["1.2 ours", ["--tmpfs-size=1234"], { tmpfsSizeBytes: 1234 }],
    ["1.2 ours", ["--tmpfs-size=1Mi"], { tmpfsSizeBytes: MIB }],
    ["1.2 ours", ["--tmpfs-size=1.5k"], { tmpfsSizeBytes: 1500 }],
    ["1.2 ours", ["--tmpfs-size=1e6"], { tmpfsSizeBytes: 1_000_000 }],
    ["1.2 ours", ["--tmpfs-size=1E"], { tmpfsSizeBytes: Number.MAX_SAFE_INTEGER }],
    ["1.2 ours", ["--tmpfs-size=1500m"], { tmpfsSizeBytes: 2 }],
    ["1.2 ours", ["--volume-mount-group"], { volumeMountGroup: true }],
    ["1.2 ours", ["--shutdown-grace-period=1m"], { shutdownGraceMillis: 60_000 }],
    ["1.2 ours", ["--return-rotation-errors"], { returnRotationErrors: true }],
    ["1.2 ours", ["--refresh-on-class-change"], { refreshOnClassChange: true }],
    ["1.2 ours", ["--provider-max-mounts=7"], { providerMountsMax: 7 }],
    ["1.2 ours", ["--provider-max-refreshes", "2"], { providerRefreshesMax: 2 }],
    ["1.2 ours", ["--provider-refresh-rate=0"], { providerRefreshesPerSecond: 0 }],
    ["1.2 ours: a negative limit is none", ["--provider-refresh-rate=-3"], { providerRefreshesPerSecond: 0 }],
    ["1.2 ours", ["--memory-trim-interval=0"], { memoryTrimIntervalMillis: 0 }],
    ["1.1", ["--enable-secret-rotation", "false", "--nodeid=x"], { rotationEnabled: true }]
  ])("%s %s", (_, words, changed) => expectRun(words, changed))

  it("1.3 the operator's DaemonSet: both spellings in one command line", () =>
    expectRun(["--logtostderr", "-v=1", "--v=4"], { verbosity: 4 }))

  it("1.5 --version comes before everything but the log", () => {
    assert.deepStrictEqual(parseDriver(["--version", "--metrics-backend=x"]), { _tag: "Version" })
    assert.strictEqual(parseDriver(["--version", "-v=-1"])._tag, "Refused")
  })

  it.each([
    {
      section: "1.2",
      words: ["--metrics-backend=OpenCensus"],
      exitCode: 1,
      lines: [
        "unsupported metrics backend OpenCensus",
        "remedy: set -metrics-backend=Prometheus, or remove the flag; -metrics-addr=0 switches metrics off"
      ]
    },
    {
      section: "1.3",
      words: ["-v=-1"],
      exitCode: 1,
      lines: [
        "invalid log level, valid choices are the empty string, info, debug, trace and all",
        "remedy: give -v 0 or a positive number, instead of -1"
      ]
    },
    {
      section: "1.2",
      words: ["--provider-health-check", "--provider-health-check-interval=0"],
      exitCode: 1,
      lines: [
        "non-positive interval 0s for flag -provider-health-check-interval",
        "remedy: give -provider-health-check-interval a positive duration, or remove -provider-health-check"
      ]
    },
    {
      section: "1.1",
      words: ["--rotation-poll-interval", "30"],
      exitCode: 2,
      lines: [
        'invalid value "30" for flag -rotation-poll-interval: parse error',
        'remedy: give -rotation-poll-interval a duration with its unit, such as 2m0s, 90s or 500ms, instead of "30"'
      ]
    },
    {
      section: "1.1",
      words: ["--enable-secret-rotation=yes"],
      exitCode: 2,
      lines: [
        'invalid boolean value "yes" for -enable-secret-rotation: parse error',
        'remedy: give -enable-secret-rotation true or false, after an equals sign, instead of "yes"'
      ]
    },
    {
      section: "1.1",
      words: ["--nodeid"],
      exitCode: 2,
      lines: ["flag needs an argument: -nodeid", "remedy: give -nodeid a text"]
    },
    {
      section: "1.1",
      words: ["--no-such-flag"],
      exitCode: 2,
      lines: [
        "flag provided but not defined: -no-such-flag",
        "remedy: correct or remove -no-such-flag; the flags are listed below"
      ]
    },
    {
      section: "1.2 ours",
      words: ["--tmpfs-size=64MB"],
      exitCode: 2,
      lines: [
        'invalid value "64MB" for flag -tmpfs-size: not a quantity of bytes',
        'remedy: give -tmpfs-size bytes or a Kubernetes quantity, such as 64Mi, instead of "64MB"'
      ]
    },
    {
      section: "1.3",
      words: ["--vmodule=a"],
      exitCode: 2,
      lines: [
        'invalid value "a" for flag -vmodule: syntax error: expect comma-separated list of filename=N',
        'remedy: give -vmodule a list such as driver=4,node*=5, instead of "a"'
      ]
    },
    {
      section: "1.3",
      words: ["--stderrthreshold=loud"],
      exitCode: 2,
      lines: [
        'invalid value "loud" for flag -stderrthreshold: strconv.ParseInt: parsing "loud": invalid syntax',
        'remedy: give -stderrthreshold INFO, WARNING, ERROR, FATAL, or a number, instead of "loud"'
      ]
    },
    {
      section: "1.3",
      words: ["--log_backtrace_at=driver"],
      exitCode: 2,
      lines: [
        'invalid value "driver" for flag -log_backtrace_at: syntax error: expect file.go:234',
        'remedy: give -log_backtrace_at a file and a line, such as driver.go:234, instead of "driver"'
      ]
    }
  ])("$section $words exits $exitCode", ({ exitCode, lines, words }) => {
    const command = parseDriver(words)
    assert.deepStrictEqual(firstLines(command), lines)
    assert.strictEqual<unknown>(command._tag === "Refused" && command.exitCode, exitCode)
    assert.strictEqual(command._tag === "Refused" && command.message.includes("Usage of "), exitCode === 2)
  })

  it.each(["debug", "log-report-caller", "min-provider-version", "grpc-supported-providers", "filtered-watch-secret"])(
    "1.6 -%s exits 2 and says what became of it",
    (name) => {
      const command = parseDriver([`--${name}=x`])
      assert.strictEqual(command._tag === "Refused" && command.exitCode, 2)
      const [message = "", remedy = ""] = firstLines(command)
      assert.strictEqual(message, `flag provided but not defined: -${name}`)
      assert.isTrue(remedy.startsWith(`remedy: remove -${name};`))
    }
  )

  it.each(["-h", "--help"])("1.1 %s lists every flag", (word) => {
    const command = parseDriver([word])
    if (command._tag !== "Help") return assert.fail(command._tag)
    assert.isTrue(command.text.startsWith("Usage of secrets-store-csi:\n  -add_dir_header\n"))
    for (const { name } of Object.values(DRIVER_FLAGS).flat()) {
      assert.match(command.text, new RegExp(`^  -${name}( |\t|$)`, "mu"))
    }
    assert.include(
      command.text,
      '  -metrics-addr string\n    \taddress of /metrics; "0" is off, empty means :8080 (default ":8095")\n'
    )
    assert.include(
      command.text,
      "  -rotation-poll-interval duration\n    \thow often a volume is refreshed (default 2m0s)\n"
    )
  })

  // Names, types and defaults of the reference's tables, row by row.
  it.each([
    ["endpoint", "string", '"unix://tmp/csi.sock"'],
    ["drivername", "string", '"secrets-store.csi.k8s.io"'],
    ["nodeid", "string", ""],
    ["log-format-json", "", ""],
    ["provider-volume", "string", '"/var/run/secrets-store-csi-providers"'],
    ["additional-provider-volume-paths", "string", '"/etc/kubernetes/secrets-store-csi-providers"'],
    ["metrics-addr", "string", '":8095"'],
    ["enable-secret-rotation", "", ""],
    ["rotation-poll-interval", "duration", "2m0s"],
    ["enable-pprof", "", ""],
    ["pprof-port", "int", "6065"],
    ["max-call-recv-msg-size", "int", "4194304"],
    ["version", "", ""],
    ["provider-health-check", "", ""],
    ["provider-health-check-interval", "duration", "2m0s"],
    ["metrics-backend", "string", '"Prometheus"'],
    ["kubeconfig", "string", ""],
    ["v", "value", ""],
    ["logtostderr", "", "true"],
    ["alsologtostderr", "", ""],
    ["stderrthreshold", "value", "2"],
    ["log_dir", "string", ""],
    ["log_file", "string", ""],
    ["log_file_max_size", "uint", "1800"],
    ["add_dir_header", "", ""],
    ["skip_headers", "", ""],
    ["skip_log_headers", "", ""],
    ["one_output", "", ""],
    ["vmodule", "value", ""],
    ["log_backtrace_at", "value", ""]
  ] as const)("1.2, 1.3 -%s", (name, typeName, defaultText) => {
    const flag = [...DRIVER_FLAGS.upstream, ...DRIVER_FLAGS.klog].find((it) => it.name === name)
    assert.deepStrictEqual([flag?.typeName, flag?.defaultText], [typeName, defaultText])
  })

  it("1.2, 1.3 there are no other flags under upstream's names", () => {
    assert.strictEqual(DRIVER_FLAGS.upstream.length + DRIVER_FLAGS.klog.length, 30)
    assert.strictEqual(DRIVER_FLAGS.ours.length, 13)
  })
})
