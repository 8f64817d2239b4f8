// Has the bundles of assets/olm judged by the library behind "operator-sdk bundle validate":
//
//   node scripts/validate-bundle.mjs [directory ...]
//
// The program around it is built once per version with Go, and is kept in the user's cache.
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { homedir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const API = "0.37.0"

/**
 * Findings that are wrong: a rule for a resource has no version, and endpointslices of discovery.k8s.io/v1 were never
 * taken away.
 */
const KNOWN = [/removed in v1\.25.*Migrate the API\(s\) for endpointslices: /u]

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const source = join(root, "scripts/validate-bundle/main.go")
const digest = createHash("sha256").update(readFileSync(source)).digest("hex").slice(0, 12)
const cache = join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "secrets-store-csi")
const program = join(cache, `validate-bundle-v${API}-${digest}`)

/** What is in the cache is whole. */
const build = () => {
  if (existsSync(program)) return
  console.error(`building the validators of operator-framework/api ${API}, once`)
  mkdirSync(cache, { recursive: true })
  const workspace = mkdtempSync(join(cache, "build-"))
  try {
    copyFileSync(source, join(workspace, "main.go"))
    const required = `require github.com/operator-framework/api v${API}`
    writeFileSync(join(workspace, "go.mod"), `module secrets-store-csi/validate-bundle\n\ngo 1.26.0\n\n${required}\n`)
    const env = { ...process.env, CGO_ENABLED: "0", GOFLAGS: `${process.env["GOFLAGS"] ?? ""} -mod=mod`.trim() }
    const args = ["build", "-trimpath", "-ldflags", "-s -w", "-o", "program", "."]
    const { error, status } = spawnSync("go", args, { cwd: workspace, env, stdio: ["ignore", 2, 2] })
    if (status !== 0) {
      throw new Error(error === undefined ? "it could not be built" : `Go is needed to build it: ${error.message}`)
    }
    renameSync(join(workspace, "program"), program)
  } finally {
    rmSync(workspace, { recursive: true, force: true })
  }
}

build()

const given = process.argv.slice(2)
const directories = given.length > 0 ? given : ["openshift", "kubernetes"].map((name) => join(root, "assets/olm", name))
const { error, status, stdout } = spawnSync(program, directories, { encoding: "utf8", stdio: ["ignore", "pipe", 2] })
if (status !== 0) {
  console.error(`the validators ended early: ${error?.message ?? `status ${status}`}`)
  process.exit(1)
}
const findings = stdout
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line))
  .filter(({ text }) => !KNOWN.some((pattern) => pattern.test(text)))
for (const { directory, level, text } of findings) console.error(`${directory}: ${level}: ${text}`)
if (findings.length > 0) process.exit(1)
for (const directory of directories) console.log(`${directory}: a valid bundle`)
