/** Tables of reference/driver.md 3.5 and 4.2: which paths a provider may ask for. */
import { assert, describe, it } from "@effect/vitest"
import { Redacted, Result } from "effect"
import type { PayloadFile } from "../../schemas/Provider.ts"
import * as Payload from "../../src/volume/Payload.ts"

const file = (path: string, text = "", mode = 0o644): PayloadFile => ({
  path,
  mode,
  contents: Redacted.make(new TextEncoder().encode(text))
})

const a = (count: number) => "a".repeat(count)

describe("4.2 path rules", () => {
  it.each([
    { row: "4.6 path", name: "valid 1", path: "i/am/well/behaved.txt", expected: undefined },
    { row: "4.6 path", name: "valid 2", path: "keepyourheaddownandfollowtherules.txt", expected: undefined },
    {
      row: "4.6 path",
      name: "max path length",
      path: a(4097),
      expected: "invalid path: must be less than or equal to 4096 characters"
    },
    {
      row: "4.6 path",
      name: "max file length",
      path: a(256),
      expected: "invalid path: filenames must be less than or equal to 255 characters"
    },
    {
      row: "4.6 path",
      name: "absolute failure",
      path: "/dev/null",
      expected: "invalid path: must be relative path: /dev/null"
    },
    {
      row: "4.6 path",
      name: "reserved path",
      path: "..sneaky.txt",
      expected: "invalid path: must not start with '..': ..sneaky.txt"
    },
    {
      row: "4.6 path",
      name: "contains doubledot 1",
      path: "hello/there/../../../../../../etc/passwd",
      expected: "invalid path: must not contain '..': hello/there/../../../../../../etc/passwd"
    },
    {
      row: "4.6 path",
      name: "contains doubledot 2",
      path: "hello/../etc/somethingbad",
      expected: "invalid path: must not contain '..': hello/../etc/somethingbad"
    },
    { row: "4.6 path", name: "empty", path: "", expected: 'invalid path: must not be empty: ""' },
    { row: "4.2 #1", name: "a space is a name", path: " ", expected: undefined },
    {
      row: "4.2 #2",
      name: "absolute comes before too long",
      path: `/${a(4097)}`,
      expected: `invalid path: must be relative path: /${a(4097)}`
    },
    {
      row: "4.2 #3",
      name: "4096 bytes of short elements",
      path: `${a(255)}/`.repeat(16).slice(0, 4096),
      expected: undefined
    },
    {
      row: "4.2 #3",
      name: "lengths are bytes: 1366 characters of 3 bytes",
      path: "\u20ac".repeat(1366),
      expected: "invalid path: must be less than or equal to 4096 characters"
    },
    { row: "4.2 #4", name: "only doubledot", path: "..", expected: "invalid path: must not contain '..': .." },
    {
      row: "4.2 #4 #5",
      name: "the first bad element decides: doubledot",
      path: `../${a(256)}`,
      expected: `invalid path: must not contain '..': ../${a(256)}`
    },
    {
      row: "4.2 #4 #5",
      name: "the first bad element decides: length",
      path: `${a(256)}/..`,
      expected: "invalid path: filenames must be less than or equal to 255 characters"
    },
    { row: "4.2 #5", name: "255 bytes", path: `x/${a(255)}`, expected: undefined },
    {
      row: "4.2 #5",
      name: "lengths are bytes: 86 characters of 3 bytes",
      path: "\u20ac".repeat(86),
      expected: "invalid path: filenames must be less than or equal to 255 characters"
    },
    { row: "4.2 #5", name: "85 characters of 3 bytes", path: "\u20ac".repeat(85), expected: undefined },
    {
      row: "4.2 #5 #6",
      name: "too long comes before reserved",
      path: `..${a(254)}`,
      expected: "invalid path: filenames must be less than or equal to 255 characters"
    },
    {
      row: "4.2 #6",
      name: "the link of the writer",
      path: "..data",
      expected: "invalid path: must not start with '..': ..data"
    },
    {
      row: "4.2 #6",
      name: "reserved directory",
      path: "..data/foo",
      expected: "invalid path: must not start with '..': ..data/foo"
    },
    { row: "4.2 allowed", name: "three dots inside", path: "a/...", expected: undefined },
    { row: "4.2 allowed", name: "dotfile", path: ".x", expected: undefined },
    { row: "4.2 allowed", name: "reserved prefix in a later element", path: "a/..b", expected: undefined },
    { row: "4.2 allowed", name: "backslash", path: "a\\..\\b", expected: undefined },
    { row: "4.2 allowed", name: "newline", path: "a\nb", expected: undefined }
  ])("$row $name", ({ path, expected }) => assert.strictEqual(Payload.refusal(path), expected))
})

describe("lexically clean paths, as Go's path.Clean", () => {
  it.each([
    ["", "."],
    [".", "."],
    ["./", "."],
    ["abc", "abc"],
    ["abc/def/", "abc/def"],
    ["foo////bar", "foo/bar"],
    ["./bar", "bar"],
    ["a/./b", "a/b"],
    ["a/b/..", "a"],
    ["a/../..", ".."],
    ["../../a", "../../a"],
    ["/", "/"],
    ["/..", "/"],
    ["//a/../b//", "/b"]
  ])("%j -> %j", (path, expected) => assert.strictEqual(Payload.cleanPath(path), expected))
})

const keys = (result: Result.Result<Payload.Payload, string>) =>
  Result.isSuccess(result) ? [...result.success.files.keys()] : result.failure

describe("payloads", () => {
  it.each([
    { row: "4.6 payload", name: "valid", paths: ["foo", "bar"], expected: ["foo", "bar"] },
    {
      row: "4.6 payload",
      name: "path > 4096",
      paths: ["foo", a(4097)],
      expected: "invalid path: must be less than or equal to 4096 characters"
    },
    {
      row: "4.6 payload",
      name: "absolute",
      paths: ["/foo", "bar"],
      expected: "invalid path: must be relative path: /foo"
    },
    {
      row: "4.6 payload",
      name: "reserved",
      paths: ["..foo", "bar"],
      expected: "invalid path: must not start with '..': ..foo"
    },
    {
      row: "4.6 payload",
      name: "doubledot",
      paths: ["foo/../etc/password"],
      expected: "invalid path: must not contain '..': foo/../etc/password"
    },
    { row: "4.6 payload", name: "empty", paths: [""], expected: 'invalid path: must not be empty: ""' },
    { row: "4.6 payload", name: "unclean", paths: ["foo////bar"], expected: ["foo/bar"] },
    { row: "Q6", name: "unclean names of the volume itself", paths: ["./."], expected: 'invalid filepath: "./."' }
  ])("$row $name, by the writer alone", ({ paths, expected }) =>
    assert.deepStrictEqual<unknown>(keys(Payload.clean(paths.map((path) => file(path)))), expected)
  )

  it.each([
    { row: "4.6 validate ok", name: "double", paths: ["foo", "bar"], expected: ["foo", "bar"] },
    { row: "4.6 validate ok", name: "single", paths: ["foo"], expected: ["foo"] },
    { row: "4.6 validate ok", name: "nested", paths: ["foo/bar"], expected: ["foo/bar"] },
    { row: "4.6 validate ok", name: "backslash", paths: ["foo\\bar"], expected: ["foo\\bar"] },
    {
      row: "4.6 validate err",
      name: "4097 bytes",
      paths: [a(4097)],
      expected: "invalid path: must be less than or equal to 4096 characters"
    },
    {
      row: "4.6 validate err",
      name: "absolute",
      paths: ["/foo"],
      expected: "invalid path: must be relative path: /foo"
    },
    {
      row: "4.6 validate err",
      name: "reserved",
      paths: ["..foo"],
      expected: "invalid path: must not start with '..': ..foo"
    },
    {
      row: "4.6 validate err",
      name: "doubledot",
      paths: ["foo/../bar"],
      expected: "invalid path: must not contain '..': foo/../bar"
    },
    { row: "4.6 validate err", name: "empty", paths: [""], expected: 'invalid path: must not be empty: ""' },
    { row: "4.6 validate err", name: "unclean", paths: ["foo////bar"], expected: 'invalid filepath: "foo////bar"' },
    { row: "3.5", name: "a slash at the end", paths: ["foo/"], expected: 'invalid filepath: "foo/"' },
    { row: "3.5", name: "quoted as Go quotes", paths: ['./"\n'], expected: 'invalid filepath: "./\\"\\n"' },
    { row: "Q6", name: "the volume itself", paths: ["."], expected: 'invalid filepath: "."' },
    {
      row: "3.5",
      name: "the first bad path in the provider's order",
      paths: ["ok", "b//c", ""],
      expected: 'invalid filepath: "b//c"'
    },
    {
      row: "4.4",
      name: "a file and a file below it",
      paths: ["foo", "foo/bar"],
      expected: 'invalid filepath: "foo": other files are below it'
    },
    {
      row: "4.4",
      name: "a file below a file, in the other order",
      paths: ["x", "foo/bar/baz", "foo/bar"],
      expected: 'invalid filepath: "foo/bar": other files are below it'
    },
    { row: "3.5", name: "no files", paths: [], expected: [] }
  ])("$row $name", ({ paths, expected }) =>
    assert.deepStrictEqual<unknown>(keys(Payload.check(paths.map((path) => file(path)))), expected)
  )

  it("3.5 of files with one path the last is taken", () => {
    const { files } = Result.getOrThrow(Payload.check([file("foo", "1"), file("bar"), file("foo", "2", 0o600)]))
    assert.strictEqual(new TextDecoder().decode(Redacted.value(files.get("foo")!.contents)), "2")
    assert.strictEqual(files.get("foo")!.mode, 0o600)
  })

  it.each([
    [0o644, 0o644],
    [0o4755, 0o755],
    [0o1777, 0o777],
    [0, 0],
    [-1, 0o777],
    [0o100644, 0o644]
  ])("4.3 of mode %i only permission bits count", (mode, expected) => {
    const { files } = Result.getOrThrow(Payload.check([file("foo", "", mode)]))
    assert.strictEqual(files.get("foo")!.mode, expected)
  })

  it("directories come before what is in them, and names are what a pod sees", () => {
    const payload = Result.getOrThrow(Payload.check(["b/c/d/e", "a", "b/c/x", "f/g"].map((path) => file(path))))
    assert.deepStrictEqual([...payload.directories], ["b", "b/c", "b/c/d", "f"])
    assert.deepStrictEqual([...payload.names], ["b", "a", "f"])
  })
})
