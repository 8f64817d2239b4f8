// Puts together what the images have. For the Dockerfile:
//
//   node scripts/image-files.mjs packages DIRECTORY amd64|arm64   DIRECTORY/node and DIRECTORY/node_modules
//   node scripts/image-files.mjs programs DIRECTORY               after scripts/bundle.mjs: DIRECTORY/driver, DIRECTORY/operator
//
// What changes with the lock file only is apart from what changes with every release, so that nodes pull the former once.
import { spawnSync } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

/** Names of processors: Docker's, and Node's. */
const CPUS = { amd64: "x64", arm64: "arm64" }

const root = join(dirname(fileURLToPath(import.meta.url)), "..")
const [step = "", directory = "", platform = ""] = process.argv.slice(2)

/** Packages with machine code are the target's, of the same lock. */
const packagesFor = (cpu) => {
  if (cpu === process.arch) return { path: join(root, "node_modules"), remove: () => {} }
  const scratch = mkdtempSync(join(tmpdir(), "image-files-"))
  for (const name of ["package.json", "package-lock.json", ".npmrc"]) cpSync(join(root, name), join(scratch, name))
  const args = ["ci", "--omit=dev", "--os=linux", `--cpu=${cpu}`, "--libc=glibc"]
  const { status } = spawnSync("npm", args, { cwd: scratch, stdio: "inherit" })
  if (status !== 0) process.exit(status ?? 1)
  return { path: join(scratch, "node_modules"), remove: () => rmSync(scratch, { recursive: true, force: true }) }
}

/** Node, and the one package that is not inside the bundles. */
const copyPackages = (cpu) => {
  const { path, remove } = packagesFor(cpu)
  const target = join(directory, "node_modules")
  const native = join("@koromix", `koffi-linux-${cpu}`)
  for (const name of ["koffi", native]) cpSync(join(path, name), join(target, name), { recursive: true })
  for (const name of [join(native, `musl_${cpu}`), "koffi/doc", "koffi/vendor"])
    rmSync(join(target, name), { recursive: true, force: true })
  cpSync(join(path, `node-linux-${cpu}`, "bin/node"), join(directory, "node"))
  remove()
}

const copyPrograms = () => {
  const isOperator = (name) => name.startsWith("operator")
  for (const name of readdirSync(join(root, "dist")).filter((it) => it.endsWith(".cjs"))) {
    const target = join(directory, isOperator(name) ? "operator" : "driver")
    mkdirSync(target, { recursive: true })
    cpSync(join(root, "dist", name), join(target, name))
  }
  cpSync(join(root, "assets/driver"), join(directory, "operator/assets/driver"), { recursive: true })
}

if (step === "packages" && directory !== "" && Object.hasOwn(CPUS, platform)) copyPackages(CPUS[platform])
else if (step === "programs" && directory !== "") copyPrograms()
else {
  console.error(`usage: image-files.mjs packages DIRECTORY ${Object.keys(CPUS).join("|")}, or programs DIRECTORY`)
  process.exit(2)
}
