/** The images themselves, for every platform: what is in them, and what is not. */
import { spawnSync } from "node:child_process"
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync
} from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { report } from "../support/Report.ts"

const Archives = Schema.fromJsonString(
  Schema.NonEmptyArray(Schema.Struct({ architecture: Schema.Literals(["amd64", "arm64"]), file: Schema.String }))
)
const Descriptor = Schema.Struct({
  digest: Schema.String,
  size: Schema.Finite,
  annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
})
const Index = Schema.fromJsonString(Schema.Struct({ manifests: Schema.Array(Descriptor) }))
const Manifest = Schema.fromJsonString(Schema.Struct({ config: Descriptor, layers: Schema.Array(Descriptor) }))
const Config = Schema.fromJsonString(
  Schema.Struct({
    architecture: Schema.String,
    os: Schema.String,
    config: Schema.Struct({
      User: Schema.String,
      Entrypoint: Schema.Array(Schema.String),
      Labels: Schema.Record(Schema.String, Schema.String),
      Healthcheck: Schema.optionalKey(Schema.Unknown)
    })
  })
)

/** e_machine of ELF. */
const MACHINES = { amd64: 62, arm64: 183 }
const LOADERS = { amd64: "lib64/ld-linux-x86-64.so.2", arm64: "lib/ld-linux-aarch64.so.1" }
const ELF = Buffer.from([0x7f, 0x45, 0x4c, 0x46])

const directory = join(process.env["CLUSTER_DIRECTORY"] ?? "", "contents")
const tar = (...args: ReadonlyArray<string>) => {
  const { status, stderr } = spawnSync("tar", args, { encoding: "utf8" })
  assert.strictEqual(status, 0, stderr)
}

interface Entry {
  /** Inside the image. */
  readonly path: string
  /** Where it is unpacked. */
  readonly at: string
}

const entriesBelow = (at: string, path = ""): ReadonlyArray<Entry> =>
  readdirSync(at, { withFileTypes: true }).flatMap((entry) => {
    const found = { path: `${path}${entry.name}`, at: join(at, entry.name) }
    return entry.isDirectory() ? entriesBelow(found.at, `${found.path}/`) : [found]
  })

/** @returns the processor that a file's machine code is for; undefined when it is none */
const machineOf = (file: string): number | undefined => {
  if (!statSync(file, { throwIfNoEntry: false })?.isFile()) return undefined
  const head = Buffer.alloc(20)
  const opened = openSync(file, "r")
  readSync(opened, head)
  closeSync(opened)
  return head.subarray(0, 4).equals(ELF) ? head.readUInt16LE(18) : undefined
}

const layouts = Schema.decodeSync(Archives)(process.env["CLUSTER_ARCHIVES"] ?? "[]").map((archive) => {
  const layout = join(directory, archive.architecture)
  return { ...archive, layout, blob: (digest: string) => join(layout, "blobs", digest.replace(":", "/")) }
})

describe("images", () => {
  describe.each(layouts)("for $architecture", ({ architecture, blob, file, layout }) => {
    const unpacked = (digest: string) => {
      const at = join(directory, digest.replace(":", "-"))
      if (!existsSync(at)) {
        mkdirSync(at, { recursive: true })
        tar("--extract", "--file", blob(digest), "--directory", at)
      }
      return at
    }

    it.each([
      { program: "driver", user: "0:0" },
      { program: "operator", user: "65532:65532" }
    ])("$program: every program and library is of the platform, and there is no shell", ({ program, user }) => {
      if (!existsSync(layout)) {
        mkdirSync(layout, { recursive: true })
        tar("--extract", "--file", file, "--directory", layout)
      }
      const index = Schema.decodeSync(Index)(readFileSync(join(layout, "index.json"), "utf8"))
      const named = ({ annotations = {} }: typeof Descriptor.Type) =>
        (annotations["org.opencontainers.image.ref.name"] ?? "").includes(`/${program}:1.0.0`)
      const found = index.manifests.find(named)
      const manifest = Schema.decodeSync(Manifest)(readFileSync(blob(found?.digest ?? ""), "utf8"))
      const { config, ...platform } = Schema.decodeSync(Config)(readFileSync(blob(manifest.config.digest), "utf8"))
      assert.deepStrictEqual(platform, { architecture, os: "linux" })
      assert.strictEqual(config.User, user)
      assert.strictEqual(config.Entrypoint.at(-1), `/app/${program}.cjs`)
      assert.strictEqual(config.Labels["org.opencontainers.image.version"], "1.0.0")
      assert.isUndefined(config.Healthcheck)

      const entries = manifest.layers.flatMap(({ digest }) => entriesBelow(unpacked(digest)))
      const paths = new Set(entries.map(({ path }) => path))
      const native = entries.flatMap(({ at, path }) => {
        const machine = machineOf(at)
        return machine === undefined ? [] : [{ path, machine }]
      })
      assert.deepStrictEqual(
        native.filter(({ machine }) => machine !== MACHINES[architecture]),
        []
      )
      for (const name of ["usr/bin/node", "usr/lib/libatomic.so.1", LOADERS[architecture], `app/${program}.cjs`])
        assert.isTrue(paths.has(name), name)
      assert.isTrue(native.some(({ path }) => path.startsWith("app/node_modules/") && path.endsWith("/koffi.node")))
      assert.isTrue(native.some(({ path }) => path === "usr/bin/node"))
      const unwanted = /(?:^|\/)(?:sh|bash|dash|busybox|npm|npx|apt|apt-get|dpkg)$/u
      assert.deepStrictEqual(
        [...paths].filter((path) => unwanted.test(path)),
        []
      )
      const pulled = manifest.layers.reduce((sum, { size }) => sum + size, 0)
      const unpackedBytes = entries.reduce((sum, { at }) => sum + lstatSync(at).size, 0)
      const mebibytes = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`
      report(
        `${program} image for ${architecture}`,
        `${mebibytes(pulled)} to pull, ${mebibytes(unpackedBytes)} unpacked`
      )
    })
  })
})
