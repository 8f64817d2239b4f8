/**
 * The README is checked like code: its tables of flags are generated from the program's, and its picture of the
 * folders, its commands and its dependencies are compared with the repository. UPDATE_GOLDEN=1 rewrites the tables.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { parse } from "yaml"
import { NODE_FLAGS } from "../../layers/development/DriverProcess.ts"
import { DRIVER_FLAGS } from "../../src/main/Flags.ts"
import { OPERATOR_FLAGS } from "../../src/main/OperatorFlags.ts"
import { SIMULATE_FLAGS } from "../../src/main/simulate/Flags.ts"

const root = new URL("../../", import.meta.url)
const file = fileURLToPath(new URL("README.md", root))
const readme = readFileSync(file, "utf8")
const manifest = JSON.parse(readFileSync(new URL("package.json", root), "utf8"))

type Flags = Readonly<(typeof DRIVER_FLAGS)["upstream"]>

const cell = (text: string) => text.replaceAll("|", "\\|")
/** As the usage text shows it; a boolean is false and everything else empty where Go shows nothing. */
const defaultOf = ({ defaultText, defaultValue }: Flags[number]) => {
  if (typeof defaultValue === "string") return defaultValue === "" ? "empty" : `\`${defaultValue}\``
  if (defaultText !== "") return `\`${defaultText}\``
  return typeof defaultValue === "boolean" || typeof defaultValue === "number" ? `\`${defaultValue}\`` : "empty"
}
const tableOf = (flags: Flags): string =>
  `${[
    "| Flag | Default | Meaning |",
    "| --- | --- | --- |",
    ...flags.map((flag) => `| \`--${flag.name}\` | ${defaultOf(flag)} | ${cell(flag.usage)} |`)
  ].join("\n")}\n`

const generated: Readonly<Record<string, string>> = {
  "upstream flags": tableOf(DRIVER_FLAGS.upstream),
  "own flags": tableOf(DRIVER_FLAGS.ours),
  "klog flags": tableOf(DRIVER_FLAGS.klog),
  "operator flags": tableOf(OPERATOR_FLAGS)
}

const between = (name: string) => new RegExp(`(<!-- begin ${name} -->\n)(.*?)(<!-- end ${name} -->)`, "su")

const section = (title: string): string => {
  const [, body] = new RegExp(`^## ${title}\n(.*?)(?=^## |$(?![\\s\\S]))`, "msu").exec(readme) ?? []
  assert.isDefined(body, `the README has a section "${title}"`)
  return body!
}

describe("README", () => {
  it("its tables of flags are those of the program", () => {
    if (process.env["UPDATE_GOLDEN"] === "1") {
      const rewritten = Object.entries(generated).reduce(
        (text, [name, table]) => text.replace(between(name), (_, begin, __, end) => `${begin}${table}${end}`),
        readme
      )
      writeFileSync(file, rewritten)
    }
    const text = readFileSync(file, "utf8")
    for (const [name, table] of Object.entries(generated)) {
      assert.strictEqual(between(name).exec(text)?.[2], table, `${name}; UPDATE_GOLDEN=1 rewrites them`)
    }
  })

  it("its command lines and its DaemonSet use flags that exist", () => {
    const known = [...Object.values(DRIVER_FLAGS), OPERATOR_FLAGS].flatMap((flags) => flags.map(({ name }) => name))
    const ofNode = NODE_FLAGS.map((flag) => flag.replace(/^--([^=]+).*$/u, "$1"))
    // Of our own scripts, of kubectl and of docker.
    const ofOthers = ["keep", "type", "target", "platform", ...SIMULATE_FLAGS, ...ofNode]
    const used = [...readme.matchAll(/(?<![\w-])--([a-z][\w-]*)/gu)].map(([, name]) => name!)
    assert.deepStrictEqual(
      [...new Set(used)].filter((name) => !known.includes(name) && !ofOthers.includes(name)),
      []
    )
    const [, manifests = ""] = /```yaml\n(.*?)```/su.exec(readme) ?? []
    const { containers, volumes } = parse(manifests).spec.template.spec
    // The image's own, with Node's flags.
    assert.notProperty(containers[0], "command")
    assert.include(readme, `node ${NODE_FLAGS.join(" ")} dist/driver.cjs`)
    assert.sameMembers(
      containers[0].volumeMounts.map((mount: { readonly name: string }) => mount.name),
      volumes.map((volume: { readonly name: string }) => volume.name)
    )
  })

  it("every npm script that it names exists", () => {
    const named = [...readme.matchAll(/npm run ([\w-]+)/gu)].map(([, name]) => name!)
    const missing = [...new Set(named)].filter((name) => manifest.scripts[name] === undefined)
    assert.isNotEmpty(named)
    assert.deepStrictEqual(missing, [])
  })

  it("its picture shows folders that exist", () => {
    const [, picture = ""] = /```text\n(.*?)```/su.exec(section("The folders")) ?? []
    const missing: Array<string> = []
    let top = ""
    for (const line of picture.split("\n").filter((text) => text.trim() !== "")) {
      const [, indent = "", path = ""] = /^( *)(\S+)/u.exec(line) ?? []
      if (indent === "") top = path
      const whole = indent === "" ? path : `${top}${path}`
      if (!existsSync(new URL(whole, root))) missing.push(whole)
    }
    assert.notStrictEqual(top, "")
    assert.deepStrictEqual(missing, [])
  })

  it("lists every series of the metrics page", () => {
    const sources = ["Metrics.ts", "PrometheusText.ts"].map((name) =>
      readFileSync(new URL(`src/telemetry/${name}`, root), "utf8")
    )
    const names = sources.flatMap((text) =>
      [...text.matchAll(/"((?:node|rotation|sync|k8s|secrets_store|process)_[a-z0-9_]+)"/gu)].map(([, name]) => name!)
    )
    assert.isNotEmpty(names)
    assert.deepStrictEqual(
      names.filter((name) => !section("Metrics").includes(`\`${name}\``)),
      []
    )
  })

  it("gives a reason for each dependency, and for no other package", () => {
    const named = [...section("Dependencies").matchAll(/^\| `([^`]+)` \|/gmu)].map(([, name]) => name!).sort()
    const pinned = Object.keys({
      ...manifest.dependencies,
      ...manifest.devDependencies,
      ...manifest.optionalDependencies
    }).sort()
    assert.deepStrictEqual(named, pinned)
  })
})
