/**
 * The simulation's command: its words, how it ends, what it says of a failure, and that a run is the same run wherever
 * and however it is looked at.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { scenarioOf } from "../../layers/fake/Scenarios.ts"
import { History, type TimelineEvent } from "../../layers/fake/simulation/History.ts"
import type { Rates, RunResult, Scenario } from "../../layers/fake/simulation/Scenario.ts"
import { campaign, coverageOf, summarize } from "../../src/main/simulate/Campaign.ts"
import { exitCodeOf, outcomeOf, worstOf } from "../../src/main/simulate/ExitCodes.ts"
import { changeOf, commandOf, type Flags, parse } from "../../src/main/simulate/Flags.ts"
import { minimize } from "../../src/main/simulate/Minimize.ts"
import { chainOf, reportOf } from "../../src/main/simulate/Report.ts"
import { failedRecord, recordOf } from "../../src/main/simulate/RunRecord.ts"

const root = join(import.meta.dirname, "../..")

const simulateCommand = (...words: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, ["src/main/simulate.ts", ...words], {
    cwd: root,
    encoding: "utf8"
  })
  return { status, stderr, stdout }
}

const digestIn = (stdout: string) => /digest ([0-9a-f]+)/u.exec(stdout)?.[1]

const flagsOf = (...words: ReadonlyArray<string>): Flags => {
  const flags = parse(words, 1)
  if (flags === undefined || typeof flags === "string") return assert.fail(String(flags))
  return flags
}

const HOURS = 0.1
const canary = scenarioOf("canary")!
/** The canary breaks its promise in this run. */
/** The first run in which the planted mistake shows: which one that is changes with every change of the programs. */
const BROKEN = (() => {
  const hours = 0.3
  for (let seed = 1; seed <= 50; seed++) {
    if (canary.run({ seed, hours }).violation?.id === "S3") return { seed, hours }
  }
  throw new Error("the planted mistake is not found within 50 seeds")
})()

describe("npm run simulate", () => {
  it.each([
    { words: ["--seed", "1.5"], says: /invalid value "1.5" for --seed: give a whole number from 0 to/u },
    { words: ["--hours", "0"], says: /invalid value "0" for --hours: give a number from 0.1 to 240/u },
    { words: ["--unheard"], says: /Unknown option '--unheard'/u },
    { words: ["--scenario", "none"], says: /invalid value "none" for --scenario: give one of node, /u },
    { words: ["--campaign", "0"], says: /invalid value "0" for --campaign/u },
    { words: ["--minutes", "1"], says: /--minutes goes with --campaign/u },
    { words: ["--jobs", "1"], says: /--jobs goes with --campaign/u },
    { words: ["--campaign", "2", "--runs", "2"], says: /give --campaign or --runs, not both/u },
    { words: ["--campaign", "2", "--minimize"], says: /--minimize is for one seed/u },
    { words: ["--runs", "2", "--report", "x"], says: /--report is for one seed/u },
    { words: ["--rates", "a=b"], says: /invalid value "a=b" for --rates: give name=number/u }
  ])("refuses $words", ({ says, words }) => {
    const flags = parse(words, 1)
    assert.isString(flags)
    assert.match(String(flags), says)
  })

  it("a command line that makes no sense ends with 2, on stderr; help with 0, on stdout", () => {
    const wrong = simulateCommand("--unheard")
    assert.strictEqual(wrong.status, 2)
    assert.include(wrong.stderr, "usage: npm run simulate")
    assert.strictEqual(wrong.stdout, "")
    const help = simulateCommand("--help")
    assert.strictEqual(help.status, 0)
    assert.strictEqual(help.stderr, "")
    for (const code of [0, 1, 2, 3, 4, 5, 6]) assert.match(help.stdout, new RegExp(`^ {2}${code} {2}\\w`, "mu"))
  })

  it.each([
    { violation: undefined, outcome: "held", code: 0 },
    { violation: { id: "S1", invariant: "publishedHoldsOneReply" }, outcome: "safety", code: 1 },
    { violation: { id: "L2", invariant: "newestGenerationArrives" }, outcome: "liveness", code: 3 },
    { violation: { id: "L1", invariant: "runEnds" }, outcome: "stuck", code: 4 }
  ])("$outcome ends with $code", ({ code, outcome, violation }) => {
    assert.strictEqual(outcomeOf(violation), outcome)
    assert.strictEqual(exitCodeOf(outcomeOf(violation)), code)
  })

  it("of several failures the worst decides", () => {
    assert.strictEqual(worstOf([]), "held")
    assert.strictEqual(worstOf(["held", "liveness", "held"]), "liveness")
    assert.strictEqual(worstOf(["liveness", "safety", "stuck"]), "safety")
    assert.strictEqual(worstOf(["safety", "digest"]), "digest")
    assert.strictEqual(worstOf(["digest", "failed"]), "failed")
    assert.strictEqual(exitCodeOf("failed"), 6)
    assert.strictEqual(exitCodeOf("digest"), 5)
  })

  it("the command that is named leads back to the same flags", () => {
    const flags = flagsOf("--scenario", "canary", "--seed", "7", "--hours", "0.5", "--rates", "a=0.25,other.b=2000")
    const again = flagsOf(...commandOf(flags).split(" ").slice(4))
    assert.deepStrictEqual(again, flags)
    assert.deepStrictEqual(changeOf(again.rates)?.({ a: 1, "other.b": 2, c: 3 }), {
      a: 0.25,
      "other.b": 2000,
      c: 0
    })
    const quiet = flagsOf("--seed", "7", "--hours", "2", "--rates", "none")
    assert.strictEqual(commandOf(quiet), "npm run simulate -- --seed 7 --hours 2 --rates none")
    assert.deepStrictEqual(changeOf(quiet.rates)?.({ a: 1 }), { a: 0 })
  })
})

describe("a run is the same run", () => {
  it("in another process, with a report and without, on a thread of a campaign and alone", {
    timeout: 120_000
  }, async () => {
    const folder = mkdtempSync(join(tmpdir(), "simulate-"))
    try {
      const words = ["--seed", "31", "--hours", String(HOURS)]
      const expected = scenarioOf("node")!.run({ seed: 31, hours: HOURS }).digest
      const report = join(folder, "run.html")
      const { status, stdout } = simulateCommand(...words, "--report", report, "--twice")
      assert.strictEqual(status, 0, stdout)
      assert.isTrue(expected.startsWith(digestIn(stdout)!))
      assert.include(stdout, "every promise held")
      assert.include(stdout, "replay: npm run simulate -- --seed 31 --hours 0.1")
      const flags = flagsOf("--scenario", "node", "--campaign", "2", "--seed", "30", "--hours", String(HOURS))
      const { records } = await Effect.runPromise(campaign(flags, { progress: undefined }))
      assert.deepStrictEqual(
        records.map(({ outcome, seed }) => ({ outcome, seed })),
        [
          { outcome: "held", seed: 30 },
          { outcome: "held", seed: 31 }
        ]
      )
      assert.strictEqual(records[1]?.digest, expected)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  it("whose rates are changed to what was drawn", () => {
    const drawn = canary.run({ seed: 3, hours: HOURS })
    const again = canary.run({ seed: 3, hours: HOURS, rates: (rates) => rates, timeline: true })
    assert.strictEqual(again.digest, drawn.digest)
    assert.deepStrictEqual(drawn.history.everything(), [])
    assert.isAbove(again.history.everything().length, 100)
    const quiet = canary.run({ seed: 3, hours: HOURS, rates: changeOf({})! })
    assert.deepStrictEqual(quiet.history.figuresOf("fault "), [])
    assert.isUndefined(quiet.violation)
  })
})

// ---- a failing run

describe("a failing run", () => {
  const failing = canary.run({ ...BROKEN, timeline: true })
  const command = commandOf({ scenario: canary, rates: undefined, ...BROKEN })

  it("ends with the class of its failure, and the command that replays it", () => {
    const { status, stdout } = simulateCommand(...command.split(" ").slice(4))
    assert.strictEqual(status, 1, stdout)
    assert.match(
      stdout,
      new RegExp(`^VIOLATED S3 publishedNeverGoesBack, seed ${BROKEN.seed}, at \\d+ ms of virtual time:$`, "mu")
    )
    assert.include(stdout, `replay: ${command}`)
    assert.strictEqual(digestIn(stdout), failing.digest.slice(0, 32))
  })

  it("has a page of its own, which needs nothing else and shows what led to it", () => {
    const page = reportOf({ result: failing, scenario: canary, command })
    // What was said in the run may name any address.
    const markup = page.replace(/<script type="application\/json" id="run">.*?<\/script>/su, "")
    assert.notMatch(markup, /https?:|<link|<img|\bsrc=|\bhref=|@import|url\(|\bimport\b[ (]|fetch\(/u)
    assert.include(page, "default-src 'none'")
    const [, json = ""] = /<script type="application\/json" id="run">(.*?)<\/script>/su.exec(page) ?? []
    const data = JSON.parse(json)
    assert.strictEqual(data.violation.promise, "S3 publishedNeverGoesBack")
    assert.strictEqual(data.command, command)
    assert.deepStrictEqual(
      data.rates.map(([name]: [string]) => name),
      Object.entries(failing.rates ?? {}).flatMap(([name, rate]) => (rate > 0 ? [name] : []))
    )
    const events = failing.history.everything()
    assert.strictEqual(data.events.length, events.length)
    const chain = data.chain.map((index: number) => events[index]!)
    assert.strictEqual(chain.at(-1).kind, "violation")
    const lanes = new Set(chain.map(({ lane }: TimelineEvent) => lane))
    // Who holds the volume, who answered, and the life that the planted mistake needs.
    assert.isTrue([...lanes].some((lane) => String(lane).startsWith("volume ")))
    assert.isTrue([...lanes].some((lane) => String(lane).startsWith("provider ")))
    assert.isTrue(chain.some(({ lane, what }: TimelineEvent) => lane === "node-1 driver" && /^life (?!1$)/u.test(what)))
    const [, script = ""] = /<script>\n(.*?)<\/script>/su.exec(page) ?? []
    assert.doesNotThrow(() => new Function(script))
  })

  it("shows words of the run as text, whatever is in them", () => {
    const history = new History(() => 5, true)
    history.note("</script><script>alert(1)</script>", "<b>lane</b>")
    history.note('VIOLATION S0 "&<i>', "run", "violation")
    const result: RunResult = {
      seed: 1,
      violation: { id: "S0", invariant: "<i>&", virtualMillis: 5, seen: "</title>" },
      digest: history.digest(),
      steps: 1,
      virtualMillis: 5,
      history,
      rates: {},
      summary: []
    }
    const page = reportOf({ result, scenario: { name: "<u>", description: "" }, command: "" })
    assert.strictEqual(page.match(/<\/script>/gu)?.length, 2)
    assert.notMatch(page, /<b>lane|<u>|<i>/u)
    assert.include(page, "&lt;u&gt;")
  })
})

describe("what led to a violation", () => {
  const event = (kind: TimelineEvent["kind"], lane: string, what: string, outcome = ""): TimelineEvent => ({
    kind,
    lane,
    what,
    atMillis: 0,
    untilMillis: undefined,
    outcome
  })

  it("is nothing without one", () => {
    assert.deepStrictEqual(chainOf([event("fault", "faults", "x")]), [])
  })

  it("is the story of what it names, the class of that, the lives meanwhile and the faults", () => {
    const events = [
      event("state", "class x/y", "generation 1"),
      event("state", "class x/z", "generation 1"),
      event("state", "volume x/web one", "to be published, of x/y, at /pods/1/mount"),
      event("state", "volume x/db two", "to be published, of x/y, at /pods/2/mount"),
      event("state", "node-1 driver", "life 2"),
      event("call", "node-1 driver", "FileSystem.stat /pods/1/mount"),
      event("call", "node-1 driver", "FileSystem.rename /pods/1/mount", "EIO"),
      event("call", "node-1 driver", "Providers.mount vault /pods/2/mount"),
      event("fault", "faults", "FileSystem.rename"),
      event("violation", "run", "VIOLATION S2 mixed: /pods/1/mount holds two"),
      event("fault", "faults", "after it")
    ]
    assert.deepStrictEqual(chainOf(events), [0, 2, 4, 6, 8, 9])
  })
})

// ---- many runs

describe("a campaign", () => {
  it("sums up what struck, what was reached and what met", () => {
    const record = (seed: number, faults: ReadonlyArray<string>, decisions: ReadonlyArray<string>) => ({
      ...failedRecord({ scenario: "node", seed }, ""),
      outcome: "held" as const,
      virtualMillis: 3_600_000,
      faults: faults.map((name) => [name, 2] as const),
      decisions: decisions.map((name) => [name, 3] as const)
    })
    const records = [
      record(5, ["a", "b"], ["p"]),
      record(6, ["a"], ["p", "q"]),
      { ...record(7, [], []), outcome: "liveness" as const, seen: "L2 late: so late" }
    ]
    const { decisions, faults, together } = coverageOf(records)
    assert.deepStrictEqual(faults, [
      { name: "a", count: 4, runs: 2 },
      { name: "b", count: 2, runs: 1 }
    ])
    assert.deepStrictEqual(decisions, [
      { name: "p", count: 6, runs: 2 },
      { name: "q", count: 3, runs: 1 }
    ])
    assert.deepStrictEqual(together, [
      [2, 1],
      [1, 0]
    ])
    const { lines, outcome } = summarize(
      { records, seconds: 2 },
      flagsOf("--campaign", "3", "--seed", "5", "--hours", "2")
    )
    assert.strictEqual(outcome, "liveness")
    const text = lines.join("\n")
    assert.include(text, "fault x decision: 3 of 4 pairs met in a run (75.0 %)")
    assert.include(text, "  b x q")
    assert.include(text, "3 runs in 2.0 s: 90.0 seeds per minute, 3.00 virtual hours, 1.50 per second of real time")
    assert.include(text, "1 of 3 runs failed:")
    assert.include(text, "  node seed 7, liveness: L2 late: so late\n    npm run simulate -- --seed 7 --hours 2")
  })

  it("counts a fault and a decision as a pair only where one scenario has both", () => {
    const record = (scenario: string, seed: number, fault: string, decision: string) => ({
      ...failedRecord({ scenario, seed }, ""),
      faults: [[fault, 1] as const],
      decisions: [[decision, 1] as const]
    })
    const { together } = coverageOf([
      record("node", 1, "a", "p"),
      record("node", 2, "b", "q"),
      record("operator", 3, "c", "r")
    ])
    assert.deepStrictEqual(together, [
      [1, 0, undefined],
      [0, 1, undefined],
      [undefined, undefined, 1]
    ])
  })

  it("takes turns with the scenarios in which every promise holds, unless one is named", async () => {
    const flags = flagsOf("--campaign", "3", "--seed", "1", "--hours", String(HOURS), "--rates", "none")
    const { records } = await Effect.runPromise(campaign(flags, { progress: undefined }))
    assert.deepStrictEqual(
      records.map(({ outcome, scenario, seed }) => ({ outcome, scenario, seed })),
      [
        { outcome: "held", scenario: "node", seed: 1 },
        { outcome: "held", scenario: "operator", seed: 2 },
        { outcome: "held", scenario: "cluster", seed: 3 }
      ]
    )
    const { lines } = summarize({ records, seconds: 1 }, flags)
    assert.match(lines.join("\n"), /^operator +1 +0 +\d/mu)
    assert.strictEqual(flagsOf("--campaign", "3").hours, 0.5)
    assert.deepStrictEqual(
      flagsOf("--scenario", "canary", "--campaign", "3").worlds.map(({ name }) => name),
      ["canary"]
    )
  }, 120_000)

  it("that fails says with which seeds, and ends with the worst", { timeout: 120_000 }, () => {
    const { status, stdout } = simulateCommand(
      "--scenario",
      "canary",
      "--campaign",
      "1",
      "--seed",
      String(BROKEN.seed),
      "--hours",
      "0.3"
    )
    assert.strictEqual(status, 1, stdout)
    assert.include(stdout, "1 of 1 runs failed:")
    assert.include(stdout, `canary seed ${BROKEN.seed}, safety: S3 publishedNeverGoesBack`)
    assert.include(stdout, `    ${commandOf({ scenario: canary, rates: undefined, ...BROKEN })}`)
  })

  it("keeps the figures of a run by what they are", () => {
    const history = new History(() => 0)
    for (const figure of ["fault a", "call b", "decision c", "publish OK", "pods"]) history.count(figure)
    const { decisions, faults, others } = recordOf("node", { ...emptyResult(1), history }, 1)
    assert.deepStrictEqual(faults, [["a", 1]])
    assert.deepStrictEqual(decisions, [
      ["c", 1],
      ["publish OK", 1]
    ])
    assert.deepStrictEqual(others, [["pods", 1]])
  })
})

// ---- minimizing

const emptyResult = (seed: number): RunResult => ({
  seed,
  violation: undefined,
  digest: "",
  steps: 0,
  virtualMillis: 0,
  history: new History(() => 0),
  rates: {},
  summary: []
})

const NAMES = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]

/** Breaks a promise when `matters` says so of the rates, and another promise when only one fault is left. */
const failingWhen = (matters: (rates: Rates, hours: number, seed: number) => boolean): Scenario => ({
  name: "made up",
  description: "",
  run: ({ hours, rates = (drawn) => drawn, seed }) => {
    const drawn = rates(Object.fromEntries(NAMES.map((name) => [name, name === "i" ? 0 : 0.123456])))
    const on = Object.values(drawn).filter((rate) => rate > 0).length
    const violation = (id: string) => ({ id, invariant: "made up", virtualMillis: 0, seen: "" })
    const broken = matters(drawn, hours, seed) ? violation("S1") : on === 1 ? violation("S2") : undefined
    return { ...emptyResult(seed), rates: drawn, violation: broken }
  }
})

describe("minimizing", () => {
  const smallest = (scenario: Scenario, hours = 2) =>
    minimize({ scenario, seed: 10, hours, change: undefined, onTry: () => {} })

  it.each([
    { what: "two faults together", on: ["b", "g"] },
    { what: "one", on: ["a"] },
    { what: "three", on: ["a", "d", "h"] },
    { what: "none at all", on: [] },
    { what: "all", on: NAMES.slice(0, -1) }
  ])("finds $what", ({ on }) => {
    const found = smallest(failingWhen((rates) => on.every((name) => rates[name]! > 0)))
    assert.deepStrictEqual(Object.keys(found?.rates ?? {}), on)
    assert.strictEqual(found?.hours, 0.13)
    assert.strictEqual(found?.result.violation?.id, "S1")
    for (const name of on) assert.strictEqual(found?.rates[name], 0.123)
  })

  it("tries neighbours of the seed, keeps to what it has when a shorter run holds, and is done when nothing is broken", () => {
    const found = smallest(failingWhen((rates, hours, seed) => rates["c"]! > 0 && hours >= 1 && seed !== 11))
    assert.deepStrictEqual(found?.rates, { c: 0.123 })
    assert.strictEqual(found?.hours, 1)
    const byNeighbour = smallest(
      failingWhen(
        (rates, _, seed) => rates["c"]! > 0 && (seed === 12 || Object.values(rates).filter((it) => it > 0).length > 4)
      )
    )
    assert.deepStrictEqual(byNeighbour?.rates, { c: 0.123 })
    assert.strictEqual(byNeighbour?.seed, 12)
    assert.isUndefined(smallest(failingWhen(() => false)))
  })
})

describe("the page's script", () => {
  it("sets what it shows as text", () => {
    const script = readFileSync(join(root, "assets/simulation/report.mjs"), "utf8")
    assert.notMatch(script, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(/u)
  })
})
