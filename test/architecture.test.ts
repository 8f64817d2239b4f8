/**
 * The house's arrows: schemas <- src <- layers <- src/main. An import against an arrow fails here, and so does a word
 * that the programs must not use.
 */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = join(dirname(fileURLToPath(import.meta.url)), "..")

const sources = (folder: string): ReadonlyArray<string> =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(folder, name))

const importsOf = (file: string): ReadonlyArray<string> =>
  [...readFileSync(join(root, file), "utf8").matchAll(/(?:\bfrom\s+|\bimport\s*\(\s*|^import\s+)"([^"\n]+)"/gmu)].map(
    ([, name]) => name!
  )

type Room = "schemas" | "src" | "main" | "layers" | "proto"

const roomOf = (path: string): Room => {
  if (path.startsWith("src/main/")) return "main"
  const [top] = path.split("/")
  if (top === "schemas" || top === "src" || top === "layers" || top === "proto") return top
  throw new Error(`${path} is in no room`)
}

const mayImport: Readonly<Record<Room, ReadonlyArray<Room>>> = {
  schemas: ["schemas"],
  src: ["src", "schemas"],
  layers: ["layers", "src", "schemas", "proto"],
  main: ["main", "layers", "src", "schemas", "proto"],
  proto: ["proto"]
}

/** Packages besides "effect" that a room may name. */
const packages: Readonly<Record<Room, RegExp>> = {
  schemas: /^$/u,
  src: /^$/u,
  layers: /^(?:node:.*|@grpc\/grpc-js|@effect\/platform-node\/.*|@kubernetes\/client-node|koffi|node-forge|yaml)$/u,
  main: /^(?:node:.*|@effect\/platform-node\/.*|@grpc\/grpc-js|yaml)$/u,
  proto: /.*/u
}

const files = ["schemas", "src", "layers"].flatMap(sources)

describe("architecture", () => {
  it("imports follow the arrows", () => {
    const wrong = files.flatMap((file) =>
      importsOf(file).flatMap((name) => {
        const room = roomOf(file)
        if (name.startsWith(".")) {
          const target = relative(root, join(root, dirname(file), name))
          return mayImport[room].includes(roomOf(target)) ? [] : [`${file} imports ${target}`]
        }
        return name === "effect" || name.startsWith("effect/") || packages[room].test(name)
          ? []
          : [`${file} imports ${name}`]
      })
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("the fake world does not reach the real one", () => {
    const wrong = sources("layers/real").flatMap((file) =>
      importsOf(file)
        .filter((name) => name.includes("/fake/"))
        .map((name) => `${file} imports ${name}`)
    )
    assert.deepStrictEqual(wrong, [])
  })

  it.each([
    { what: "any", pattern: /\bany\b(?=\s*[;,>)\]|&=])|<any>|\bas any\b/u },
    {
      what: "an unchecked cast",
      pattern: /\bas (?!const\b)(?:unknown as )?[A-Z{"'[(]|\bas (?:never|unknown|string|number|boolean)\b/u
    },
    { what: "a non-null assertion", pattern: /[\w\])]!(?:\.|\[|;|,|\)|$)/mu },
    { what: "a suppressed diagnostic", pattern: /@ts-(?:ignore|expect-error|nocheck)|biome-ignore/u },
    {
      what: "a clock, timer or chance of the process",
      pattern: /\bDate\.now\(|\bnew Date\(\)|\bsetTimeout\(|\bsetInterval\(|\bMath\.random\(/u
    }
  ])("src and schemas hold no $what", ({ pattern }) => {
    const wrong = files
      .filter((file) => !file.startsWith("layers/"))
      .flatMap((file) =>
        readFileSync(join(root, file), "utf8")
          .split("\n")
          .flatMap((line, index) =>
            !/^\s*(?:\*|\/\/|\/\*|import\b)/u.test(line) &&
            !/^(?:import|export) .*\bfrom\b/u.test(line) &&
            pattern.test(line)
              ? [`${file}:${index + 1}: ${line.trim()}`]
              : []
          )
      )
    assert.deepStrictEqual(wrong, [])
  })

  it("no test replaces a module", () => {
    const wrong = sources("test").filter((file) =>
      /\bvi\.(?:mock|doMock|hoisted)\(/u.test(readFileSync(join(root, file), "utf8"))
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("no npm script relies on another one that npm may leave out", () => {
    // With ignore-scripts, as in our own .npmrc, npm runs no pre- and post-scripts: a clean clone would not set itself up.
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
    const names = Object.keys(scripts)
    assert.deepStrictEqual(
      names.filter((name) => names.some((other) => name === `pre${other}` || name === `post${other}`)),
      []
    )
    for (const name of ["demo", "test", "check", "build", "bench", "simulate"]) {
      assert.match(scripts[name], /^node scripts\/setup\.mjs && /u, name)
    }
  })
})
