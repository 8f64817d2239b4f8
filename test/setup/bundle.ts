/**
 * Bundles the programs once per run, for the tests that start them as processes. The bundle is this run's own: another
 * run, or somebody who builds, does not change a program under a test.
 */
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { TestProject } from "vitest/node"

declare module "vitest" {
  export interface ProvidedContext {
    readonly driverEntry: string
    readonly operatorEntry: string
  }
}

const root = fileURLToPath(new URL("../..", import.meta.url))

export default (project: TestProject) => {
  // Below node_modules, where the packages that stay outside the bundle are found.
  const directory = mkdtempSync(join(root, "node_modules", ".bundle-"))
  execFileSync(process.execPath, [join(root, "scripts/bundle.mjs"), directory], { cwd: root, stdio: "inherit" })
  project.provide("driverEntry", join(directory, "driver.cjs"))
  project.provide("operatorEntry", join(directory, "operator.cjs"))
  return () => rmSync(directory, { recursive: true, force: true })
}
