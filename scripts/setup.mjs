// Installs what package-lock.json pins, when it is not installed yet. Runs on the system's own Node, before anything
// else is there, so it uses nothing but Node's standard library.
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const stamp = join(root, "node_modules/.package-lock.json")

/** Every package that the lock pins for this platform is installed in the same version. */
const installed = () => {
  if (!existsSync(stamp)) return false
  const wanted = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages
  const found = JSON.parse(readFileSync(stamp, "utf8")).packages
  return Object.entries(wanted).every(
    ([path, entry]) => path === "" || entry.optional === true || found[path]?.version === entry.version
  )
}

if (!installed()) {
  process.stderr.write("setup: installing pinned packages (npm ci)\n")
  const env = { ...process.env, npm_config_loglevel: "error" }
  const result = spawnSync("npm", ["ci"], { cwd: root, env, stdio: ["ignore", 2, 2] })
  if (result.status !== 0) {
    process.stderr.write("setup: npm ci failed; the packages come from the npm registry that npm is configured for\n")
    process.exit(result.status ?? 1)
  }
}
