// Runs the whole test suite and closes with one line that counts it. What this machine cannot run is named, loudly.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const scratch = mkdtempSync(join(tmpdir(), "secrets-store-test-"))
const report = join(scratch, "report.json")
const vitest = [
  "node_modules/vitest/vitest.mjs",
  "run",
  "--reporter=default",
  "--reporter=json",
  `--outputFile.json=${report}`
]
const status = spawnSync(process.execPath, [...vitest, ...process.argv.slice(2)], { stdio: "inherit" }).status ?? 1

let results
try {
  results = JSON.parse(readFileSync(report, "utf8"))
} catch {
  console.error("the test runner left no report")
  process.exit(status === 0 ? 1 : status)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
const tests = results.testResults.flatMap((file) => file.assertionResults)
const notRun = tests.filter((test) => test.status === "skipped" || test.status === "pending")
if (notRun.length > 0) {
  const suites = new Map()
  for (const { ancestorTitles, title } of notRun) {
    const suite = ancestorTitles[0] ?? title
    suites.set(suite, (suites.get(suite) ?? 0) + 1)
  }
  console.log(`\nNOT RUN on this machine (${notRun.length}):`)
  for (const [suite, count] of suites) console.log(`  - ${suite}: ${count}`)
}
// A file that could not even be loaded counts as one failure.
const unloaded = results.testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0)
// Named again at the end: of a long output often only the end is kept.
const failed = [
  ...unloaded.map((file) => ({ name: file.name, message: file.message })),
  ...tests
    .filter((test) => test.status === "failed")
    .map((test) => ({ name: test.fullName, message: test.failureMessages.join("\n") }))
]
if (failed.length > 0) {
  console.log(`\nFAILED (${failed.length}):`)
  for (const { message, name } of failed)
    console.log(`  - ${name}\n      ${message.slice(0, 600).replaceAll("\n", "\n      ")}`)
}
console.log(
  `\n${results.numPassedTests} passed, ${results.numFailedTests + unloaded.length} failed, ${notRun.length} skipped`
)
process.exit(status)
