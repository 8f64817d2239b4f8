import { assert, describe, it } from "@effect/vitest"
import { type OperatorCommand, type OperatorFlags, parseOperator } from "../../src/main/OperatorFlags.ts"
import { OPERATOR_NAME } from "../../src/operator/Names.ts"

const defaults: OperatorFlags = {
  config: "",
  kubeconfig: "",
  namespace: "",
  listen: "",
  terminateOnFiles: [],
  verbosity: 0
}

describe("what is run", () => {
  it.each<{ readonly words: ReadonlyArray<string>; readonly changed: Partial<OperatorFlags> }>([
    { words: ["start"], changed: {} },
    { words: ["start", "-v=2"], changed: { verbosity: 2 } },
    { words: ["start", "-v", "2"], changed: { verbosity: 2 } },
    { words: ["start", "-v2"], changed: { verbosity: 2 } },
    { words: ["start", "--v=4", "-v", "5"], changed: { verbosity: 5 } },
    { words: ["-v", "2", "start"], changed: { verbosity: 2 } },
    { words: ["--v", "2", "start"], changed: { verbosity: 2 } },
    { words: ["--namespace", "x", "start"], changed: { namespace: "x" } },
    { words: ["start", "-v=-3"], changed: { verbosity: 0 } },
    {
      words: ["start", "--namespace=x", "--listen", "127.0.0.1:1"],
      changed: { namespace: "x", listen: "127.0.0.1:1" }
    },
    { words: ["start", "--kubeconfig="], changed: {} },
    { words: ["start", "--config=/a=b"], changed: { config: "/a=b" } },
    {
      words: ["start", "--terminate-on-files=/a,b", "--terminate_on_files", "/c"],
      changed: { terminateOnFiles: ["/a,b", "/c"] }
    },
    { words: ["start", "--log_flush_frequency=1m", "--vmodule=a=1"], changed: {} },
    // Neither is looked at.
    { words: ["start", "operand", "-", "-v=1", "--", "--nonsense"], changed: { verbosity: 1 } },
    { words: ["start", "start"], changed: {} }
  ])("1.1 $words", ({ changed, words }) => {
    assert.deepStrictEqual<OperatorCommand>(parseOperator(words), { _tag: "Run", flags: { ...defaults, ...changed } })
  })
})

describe("what is refused", () => {
  it.each([
    { words: ["start", "--nonsense"], error: "unknown flag: --nonsense" },
    { words: ["start", "--no_sense=1"], error: "unknown flag: --no_sense" },
    { words: ["--namespace=x"], error: "unknown flag: --namespace" },
    { words: ["start", "-x"], error: "unknown shorthand flag: 'x' in -x" },
    { words: ["start", "-namespace=x"], error: "unknown shorthand flag: 'n' in -namespace=x" },
    { words: ["start", "--=x"], error: "bad flag syntax: --=x" },
    { words: ["start", "---x"], error: "bad flag syntax: ---x" },
    { words: ["start", "--namespace"], error: "flag needs an argument: --namespace" },
    { words: ["start", "-v"], error: "flag needs an argument: 'v' in -v" },
    {
      words: ["start", "-v=x"],
      error: 'invalid argument "x" for "-v, --v" flag: strconv.ParseInt: parsing "x": invalid syntax'
    },
    {
      words: ["start", "--log-flush-frequency=5"],
      error: 'invalid argument "5" for "--log-flush-frequency" flag: time: missing unit in duration "5"'
    },
    { words: ["start", "--leader-elect=false"], error: "unknown flag: --leader-elect" }
  ])("1.1 $words", ({ error, words }) => {
    const refused = parseOperator(words)
    assert(refused._tag === "Refused")
    const lines = refused.message.split("\n")
    assert.deepStrictEqual([lines[0], lines.at(-2)], ["Usage:", `Error: ${error}`])
    assert.match(lines.at(-1) ?? "", /^remedy: \S/u)
  })

  it("1.1 an unknown command, without the usage", () => {
    assert.deepStrictEqual<OperatorCommand>(parseOperator(["-v=2", "stop"]), {
      _tag: "Refused",
      message: `Error: unknown command "stop" for "${OPERATOR_NAME}"\nremedy: the only command is start; ${OPERATOR_NAME} --help lists the flags`
    })
  })
})

describe("help and version", () => {
  it.each([
    { words: [], exitCode: 1, first: `  ${OPERATOR_NAME} [command]` },
    { words: ["-v=2"], exitCode: 1, first: `  ${OPERATOR_NAME} [command]` },
    { words: ["--"], exitCode: 1, first: `  ${OPERATOR_NAME} [command]` },
    { words: ["--help"], exitCode: 0, first: `  ${OPERATOR_NAME} [command]` },
    { words: ["help"], exitCode: 0, first: `  ${OPERATOR_NAME} [command]` },
    { words: ["help", "start"], exitCode: 0, first: `  ${OPERATOR_NAME} start [flags]` },
    { words: ["start", "-h"], exitCode: 0, first: `  ${OPERATOR_NAME} start [flags]` },
    { words: ["start", "--help", "--nonsense"], exitCode: 0, first: `  ${OPERATOR_NAME} start [flags]` }
  ])("1.1 $words", ({ exitCode, first, words }) => {
    const help = parseOperator(words)
    assert(help._tag === "Help")
    assert.deepStrictEqual([help.exitCode, help.text.split("\n")[1]], [exitCode, first])
  })

  it("1.1 the flags of start, with their defaults", () => {
    const help = parseOperator(["start", "--help"])
    assert(help._tag === "Help")
    assert.match(help.text, /^ {6}--terminate-on-files stringArray +a file/mu)
    assert.match(help.text, /^ {2}-v, --v Level +verbosity/mu)
    assert.match(help.text, /--log-flush-frequency duration .*\(default 5s\)$/mu)
  })

  it.each([[["--version"]], [["start", "--version"]]])("ours: %j", (words) => {
    assert.deepStrictEqual<OperatorCommand>(parseOperator(words), { _tag: "Version" })
  })
})
