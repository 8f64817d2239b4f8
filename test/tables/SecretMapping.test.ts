/** What goes beyond upstream, when a class asks for it: all files as keys, and keys out of JSON and YAML files. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Redacted, Result, Schema } from "effect"
import { layer } from "../../layers/real/NodeFileFormats.ts"
import * as SecretData from "../../src/sync/SecretData.ts"
import * as SecretMapping from "../../src/sync/SecretMapping.ts"
import { hasOpenssl, issue, makeWorkshop, needsOpenssl, type Workshop } from "../support/OpenSsl.ts"

const redacted = (text: string) => Redacted.make(new TextEncoder().encode(text))

const volume = (files: Readonly<Record<string, string>>): SecretData.Volume => ({
  targetPath: "/mount",
  files: new Map(Object.entries(files).map(([path, text]) => [path, redacted(text)]))
})

const dataOf = ({ data }: SecretData.SecretData) =>
  Object.fromEntries([...data].map(([key, value]) => [key, Buffer.from(Redacted.value(value)).toString("utf8")]))

const mappingOf = (annotations: Readonly<Record<string, string>>) => Result.getOrThrow(SecretMapping.read(annotations))

const build = (
  secretObject: SecretData.SecretObject,
  files: Readonly<Record<string, string>>,
  annotations: Readonly<Record<string, string>>
) =>
  SecretData.build(secretObject, volume(files), mappingOf(annotations)).pipe(
    Effect.map(dataOf),
    Effect.result,
    Effect.map((result) => (Result.isSuccess(result) ? result.success : result.failure.message)),
    Effect.provide(layer)
  )

const ALL = SecretMapping.ALL_FILES_KEY
const PATHS = SecretMapping.JSON_PATHS_KEY

describe("annotations of a class", () => {
  const named = (...names: ReadonlyArray<string>) => ({ _tag: "Named", names: new Set(names) })
  it.each([
    { name: "none", annotations: undefined, expected: SecretMapping.UPSTREAM },
    { name: "those of others", annotations: { a: "true" }, expected: SecretMapping.UPSTREAM },
    { name: "empty ones", annotations: { [ALL]: "", [PATHS]: " " }, expected: SecretMapping.UPSTREAM },
    { name: "false", annotations: { [ALL]: "false", [PATHS]: "false" }, expected: SecretMapping.UPSTREAM },
    {
      name: "true",
      annotations: { [ALL]: "true", [PATHS]: " true " },
      expected: { allFiles: { _tag: "All" }, jsonPaths: true }
    },
    { name: "a name", annotations: { [ALL]: "foo" }, expected: { allFiles: named("foo"), jsonPaths: false } },
    {
      name: "names",
      annotations: { [ALL]: " foo , bar" },
      expected: { allFiles: named("foo", "bar"), jsonPaths: false }
    },
    {
      name: "a list with a gap",
      annotations: { [ALL]: "foo,,bar" },
      expected: `annotation ${ALL}: "foo,,bar" has an empty name in its list`
    },
    { name: "no boolean", annotations: { [PATHS]: "yes" }, expected: `annotation ${PATHS}: "yes" is not a boolean` }
  ])("$name", ({ annotations, expected }) => {
    const result = SecretMapping.read(annotations)
    assert.deepStrictEqual<unknown>(Result.isSuccess(result) ? result.success : result.failure.message, expected)
  })
})

describe("all files as keys", () => {
  const foo = { secretName: " foo ", type: "Opaque" }
  const files = { bar: "1", "db/password": "2", "db/user.name": "3" }
  const all = { bar: "1", "db.password": "2", "db.user.name": "3" }

  it.effect.each([
    { name: "off", object: foo, annotations: {}, files, expected: "data is empty" },
    { name: "every Secret", object: foo, annotations: { [ALL]: "true" }, files, expected: all },
    { name: "a Secret by name", object: foo, annotations: { [ALL]: "other, foo" }, files, expected: all },
    {
      name: "a Secret that is not named",
      object: foo,
      annotations: { [ALL]: "other" },
      files,
      expected: "data is empty"
    },
    {
      name: "besides data, which says more",
      object: {
        ...foo,
        data: [
          { objectName: "bar", key: "extra" },
          { objectName: "bar", key: "db.password" }
        ]
      },
      annotations: { [ALL]: "true" },
      files,
      expected: { ...all, "db.password": "1", extra: "1" }
    },
    {
      name: "two paths with one key",
      object: foo,
      annotations: { [ALL]: "true" },
      files: { "a/b": "1", "a.b": "2" },
      expected: "file a.b cannot become a key, err: file a/b has the same key a.b"
    },
    {
      name: "a path that is no key",
      object: foo,
      annotations: { [ALL]: "true" },
      files: { "a b": "1" },
      expected: `file a b cannot become a key, err: "a b" is not a valid key: it may have letters, digits, '-', '_' and '.' only`
    },
    {
      name: "a path too long for a key",
      object: foo,
      annotations: { [ALL]: "true" },
      files: { [`d/${"a".repeat(252)}`]: "1" },
      expected: `file d/${"a".repeat(252)} cannot become a key, err: "d.${"a".repeat(252)}" is not a valid key: it is longer than 253 characters`
    },
    { name: "no files", object: foo, annotations: { [ALL]: "true" }, files: {}, expected: "data is empty" },
    {
      name: "a TLS Secret that is named gets the files as they are",
      object: { ...foo, type: "kubernetes.io/tls" },
      annotations: { [ALL]: "foo" },
      files,
      expected: all
    },
    {
      name: "a TLS Secret that is not named: data is still needed",
      object: { ...foo, type: "kubernetes.io/tls" },
      annotations: { [ALL]: "true" },
      files,
      expected: "data is empty"
    },
    {
      name: "the checks of the entry come before",
      object: { secretName: "foo" },
      annotations: { [ALL]: "true" },
      files,
      expected: "secret type is empty"
    }
  ])("$name", ({ object, annotations, files: mounted, expected }) =>
    Effect.gen(function* () {
      assert.deepStrictEqual<unknown>(yield* build(object, mounted, annotations), expected)
    })
  )
})

describe("a key out of a file", () => {
  const JSON_FILE = `{
    "password": "hunter2 \\u00e4", "port": 5432, "big": 12345678901234567890, "exact": 1.10, "on": true, "off": false,
    "nothing": null, "empty": "", "": "no name", "a/b": "slash", "m~n": "tilde", "~1": "both", "__proto__": "own",
    "users": [{ "name": "first" }, "second"], "nested": { "a": { "b": "deep" } }
  }`
  const YAML_FILE = [
    "# with a comment",
    "password: 'hunter2 ä'",
    "port: 5432",
    "octal: 0o17",
    "big: 12345678901234567890",
    "exact: 1.10",
    "on: true",
    "nothing: ~",
    "text: |",
    "  two",
    "  lines",
    "users: [{ name: first }, second]",
    "base: &base { a: { b: deep } }",
    "alias: *base",
    "1: number as a key",
    ""
  ].join("\n")
  const files = {
    "db.json": JSON_FILE,
    "db.yaml": YAML_FILE,
    json: JSON_FILE,
    yaml: YAML_FILE,
    "nested/db.json": '{"a":"below"}',
    "bad.json": "password: x\n",
    "bad.yaml": "password: hunter2\n\tport: [",
    twice: "password: a\npassword: b\n",
    "two.yaml": "a: b\n---\nc: d\n",
    binary: "\0\u0001",
    "text.json": '"alone"',
    "real#/name": "a file of this name",
    laughs: `a: &a [x,x,x,x,x,x,x,x,x]\n${"bcdefghi"
      .split("")
      .map((key, index) => `${key}: &${key} [${`*${"abcdefgh"[index]},`.repeat(9)}]`)
      .join("\n")}\n`
  }

  const pick = (objectName: string, on = "true") =>
    Effect.map(
      build({ secretName: "s", type: "Opaque", data: [{ objectName, key: "k" }] }, files, { [PATHS]: on }),
      (result) => (typeof result === "string" ? result : (result["k"] ?? ""))
    )

  const failed = (path: string, why: string) => `failed to pick a value from file ${path}, err: ${why}`

  it.effect.each([
    { objectName: "db.json#/password", expected: "hunter2 ä" },
    { objectName: "db.json#/port", expected: "5432" },
    { objectName: "db.json#/big", expected: "12345678901234567890" },
    { objectName: "db.json#/exact", expected: "1.10" },
    { objectName: "db.json#/on", expected: "true" },
    { objectName: "db.json#/off", expected: "false" },
    { objectName: "db.json#/empty", expected: "" },
    { objectName: "db.json#/", expected: "no name" },
    { objectName: "db.json#/a~1b", expected: "slash" },
    { objectName: "db.json#/m~0n", expected: "tilde" },
    { objectName: "db.json#/~01", expected: "both" },
    { objectName: "db.json#/__proto__", expected: "own" },
    { objectName: "db.json#/users/0/name", expected: "first" },
    { objectName: "db.json#/users/1", expected: "second" },
    { objectName: "db.json#/nested/a/b", expected: "deep" },
    { objectName: " db.json#/password\n", expected: "hunter2 ä" },
    { objectName: "json#/password", expected: "hunter2 ä" },
    { objectName: "nested/db.json#/a", expected: "below" },
    { objectName: "text.json#", expected: "alone" },
    { objectName: "db.yaml#/password", expected: "hunter2 ä" },
    { objectName: "db.yaml#/port", expected: "5432" },
    { objectName: "db.yaml#/octal", expected: "0o17" },
    { objectName: "db.yaml#/big", expected: "12345678901234567890" },
    { objectName: "db.yaml#/exact", expected: "1.10" },
    { objectName: "db.yaml#/on", expected: "true" },
    { objectName: "db.yaml#/text", expected: "two\nlines\n" },
    { objectName: "db.yaml#/users/0/name", expected: "first" },
    { objectName: "db.yaml#/alias/a/b", expected: "deep" },
    { objectName: "db.yaml#/1", expected: "number as a key" },
    { objectName: "yaml#/password", expected: "hunter2 ä" },
    { objectName: "real#/name", expected: "a file of this name" }
  ])("$objectName", ({ objectName, expected }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* pick(objectName), expected)
    })
  )

  it.effect.each([
    { objectName: "db.json#/none", why: `nothing is at /none: the document is an object without "none"` },
    { objectName: "db.json#/nested/x/b", why: `nothing is at /nested/x/b: /nested is an object without "x"` },
    { objectName: "db.json#/password/x", why: `nothing is at /password/x: /password is a scalar without "x"` },
    { objectName: "db.json#/nothing/x", why: `nothing is at /nothing/x: /nothing is null without "x"` },
    { objectName: "db.json#/users/2", why: `nothing is at /users/2: /users is an array without "2"` },
    { objectName: "db.json#/users/00", why: `nothing is at /users/00: /users is an array without "00"` },
    { objectName: "db.json#/users/-", why: `nothing is at /users/-: /users is an array without "-"` },
    { objectName: "db.json#/users/length", why: `nothing is at /users/length: /users is an array without "length"` },
    { objectName: "db.json#/toString", why: `nothing is at /toString: the document is an object without "toString"` },
    { objectName: "db.json#/~", why: "a '~' in /~ is neither ~0 nor ~1" },
    { objectName: "db.json#/a~2b", why: "a '~' in /a~2b is neither ~0 nor ~1" },
    { objectName: "db.json#/nothing", why: "/nothing is null, not a text, number or boolean" },
    { objectName: "db.json#/nested", why: "/nested is an object, not a text, number or boolean" },
    { objectName: "db.json#/users", why: "/users is an array, not a text, number or boolean" },
    { objectName: "db.json#", why: "the document is an object, not a text, number or boolean" },
    { objectName: "db.yaml#/nothing", why: "/nothing is null, not a text, number or boolean" },
    { objectName: "bad.json#/password", why: "it is not valid JSON" },
    { objectName: "bad.yaml#/password", why: /^it is neither valid JSON nor valid YAML: [A-Z_]+ in line \d$/u },
    { objectName: "twice#/password", why: "it is neither valid JSON nor valid YAML: DUPLICATE_KEY in line 2" },
    { objectName: "two.yaml#/a", why: /^it is neither valid JSON nor valid YAML: [A-Z_]+ in line \d$/u },
    { objectName: "laughs#/a/0", why: "it is neither valid JSON nor valid YAML" }
  ])("$objectName is refused", ({ objectName, why }) =>
    Effect.gen(function* () {
      const result = yield* pick(objectName)
      const path = objectName.slice(0, objectName.indexOf("#"))
      if (typeof why === "string") assert.strictEqual(result, failed(path, why))
      else assert.match(result.replace(failed(path, ""), ""), why)
    })
  )

  it.effect.each([
    { name: "off", objectName: "db.json#/password", on: "false" },
    { name: "a document that is not mounted", objectName: "none.json#/password", on: "true" },
    { name: "no document", objectName: "#/password", on: "true" },
    { name: "a hash without a path", objectName: "db.json#password", on: "true" }
  ])("$name: the file is not found, as upstream says it", ({ objectName, on }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* pick(objectName, on), `file matching objectName ${objectName} not found in the pod`)
    })
  )

  const flipped = (path: string, bytes: Uint8Array) =>
    Effect.flip(SecretMapping.pick(path, Redacted.make(bytes), "/a")).pipe(
      Effect.map(({ message }) => message),
      Effect.provide(layer)
    )

  it.effect("what is not UTF-8, or too large to be read, is refused", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* flipped("f", Uint8Array.of(0xff, 0xfe)), failed("f", "it is not UTF-8"))
      assert.strictEqual(
        yield* flipped("f", new Uint8Array(262_145)),
        failed("f", "it has 262145 bytes, more than the 262144 that are read")
      )
      assert.strictEqual(
        yield* flipped("f", new TextEncoder().encode(`a: ${"x".repeat(16_384)}`)),
        failed("f", "it is not valid JSON, and more than the 16384 bytes that are read as YAML")
      )
    })
  )

  it.effect.each([
    { name: "brackets", document: "[".repeat(16_000) },
    { name: "lists in lists", document: "- ".repeat(8_000) },
    { name: "values of values", document: "a: ".repeat(5_000) },
    { name: "brackets as JSON", document: "[".repeat(250_000) }
  ])("documents of nothing but $name are refused, at little cost", ({ document }) =>
    Effect.gen(function* () {
      assert.match(
        yield* flipped("f", new TextEncoder().encode(document)),
        /^failed to pick a value from file f, err: /u
      )
    })
  )

  it.effect.prop(
    "RFC 6901: every text can be a key, and is found again",
    [Schema.String, Schema.String],
    ([outer, inner]) =>
      Effect.gen(function* () {
        const escape = (token: string) => token.replaceAll("~", "~0").replaceAll("/", "~1")
        const document = redacted(JSON.stringify(Object.fromEntries([[outer, [Object.fromEntries([[inner, "x"]])]]])))
        const found = yield* SecretMapping.pick("f.json", document, `/${escape(outer)}/0/${escape(inner)}`)
        assert.strictEqual(Buffer.from(Redacted.value(found)).toString(), "x")
      }).pipe(Effect.provide(layer))
  )

  it.effect.prop(
    "no failure has eight characters of a document in it",
    [Schema.String.check(Schema.isMinLength(8)), Schema.Literals(["f", "f.json"]), Schema.Literals(["/a", "/b/c", ""])],
    ([content, path, pointer]) =>
      Effect.gen(function* () {
        const quoted = JSON.stringify(content)
        const documents = [content, `a: ${content}`, `a: [${content}`, `{"a":{"x":${quoted}}`, `{"a":{${quoted}:1}}`]
        for (const document of documents) {
          const result = yield* Effect.result(SecretMapping.pick(path, redacted(document), pointer))
          if (Result.isSuccess(result)) continue
          const said = `${result.failure.message}\n${result.failure.remedy}\n${JSON.stringify(result.failure)}`
          for (let at = 0; at + 8 <= content.length; at++) {
            const window = content.slice(at, at + 8)
            if (window.trim() !== "") assert.notInclude(said, window)
          }
        }
      }).pipe(Effect.provide(layer))
  )
})

describe.skipIf(!hasOpenssl)(`keys and certificates out of a JSON file${needsOpenssl}`, () => {
  let shop: Workshop
  beforeAll(() => {
    shop = makeWorkshop()
    shop.openssl("genpkey -algorithm ed25519 -out leaf.pem")
    issue(shop, ["leaf"])
  })
  afterAll(() => shop.remove())

  it.effect("6.6 they are split like files", () =>
    Effect.gen(function* () {
      const issued = {
        certificate: shop.text("leaf.crt"),
        private_key: shop.text("leaf.pem"),
        ca: shop.text("chain.crt")
      }
      const object = {
        secretName: "tls",
        type: "kubernetes.io/tls",
        data: [
          { objectName: "pki.json#/data/certificate", key: "tls.crt" },
          { objectName: "pki.json#/data/private_key", key: "tls.key" },
          { objectName: "pki.json#/data/ca", key: "ca.crt" }
        ]
      }
      assert.deepStrictEqual<unknown>(
        yield* build(object, { "pki.json": JSON.stringify({ data: issued }) }, { [PATHS]: "true" }),
        { "tls.crt": issued.certificate, "tls.key": issued.private_key, "ca.crt": issued.ca }
      )
      const broken = { ...issued, private_key: "none" }
      assert.match(
        String(yield* build(object, { "pki.json": JSON.stringify({ data: broken }) }, { [PATHS]: "true" })),
        /^failed to get cert data from file \/mount\/pki\.json, err: pkcs12: /u
      )
    })
  )
})
