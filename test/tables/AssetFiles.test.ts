import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { layer } from "../../layers/real/AssetFiles.ts"
import { Assets } from "../../src/ports/Assets.ts"

const SHIPPED = fileURLToPath(new URL("../../assets/driver", import.meta.url))

const manifests = (directory: string) =>
  Effect.provide(
    Effect.map(Assets, (it) => it.manifests),
    layer(directory)
  )

const directoryOf = (files: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "assets-"))
      for (const [name, content] of Object.entries(files)) {
        mkdirSync(dirname(join(directory, name)), { recursive: true })
        writeFileSync(join(directory, name), content)
      }
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  )

const SERVICE_ACCOUNT = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: node\n  labels: null\nextra: [1]\n"

describe("the operand's manifests", () => {
  it.effect("6 what is shipped is read, by path below the directory", () =>
    Effect.gen(function* () {
      const shipped = yield* manifests(SHIPPED)
      for (const name of ["node.yaml", "csidriver.yaml", "rbac/privileged_role.yaml", "node_sa.yaml"]) {
        assert.isTrue(shipped.has(name), name)
      }
      assert.strictEqual(shipped.get("rbac/privileged_role.yaml")?.kind, "ClusterRole")
    })
  )

  it.effect("6 everything of an object is kept, null is nothing, other files are not looked at", () =>
    Effect.gen(function* () {
      const directory = yield* directoryOf({ "a/b.yaml": SERVICE_ACCOUNT, "README.md": "{" })
      assert.deepStrictEqual<unknown>(
        [...(yield* manifests(directory))],
        [["a/b.yaml", { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "node" }, extra: [1] }]]
      )
    })
  )

  it.effect.each([
    { name: "no file", files: {}, file: "", says: /there is no \.yaml file/u },
    { name: "not YAML", files: { "x.yaml": "a: [" }, file: "/x.yaml", says: /is no manifest: /u },
    { name: "empty", files: { "x.yaml": "" }, file: "/x.yaml", says: /Expected /u },
    { name: "without a kind", files: { "x.yaml": "apiVersion: v1\nmetadata: {}\n" }, file: "/x.yaml", says: /"kind"/u },
    {
      name: "two objects",
      files: { "x.yaml": `${SERVICE_ACCOUNT}---\n${SERVICE_ACCOUNT}` },
      file: "/x.yaml",
      says: /multiple documents/u
    }
  ])("1.2 $name: refused, by name", ({ file, files, says }) =>
    Effect.gen(function* () {
      const directory = yield* directoryOf(files)
      const failed = yield* Effect.flip(manifests(directory))
      assert.strictEqual(failed.file, `${directory}${file}`)
      assert.match(failed.message, says)
      assert.strictEqual(failed.code, "AssetInvalid")
    })
  )

  it.effect("1.2 no such directory", () =>
    Effect.gen(function* () {
      const failed = yield* Effect.flip(manifests("/nowhere/at/all"))
      assert.match(failed.message, /^\/nowhere\/at\/all is no manifest: ENOENT/u)
    })
  )
})
