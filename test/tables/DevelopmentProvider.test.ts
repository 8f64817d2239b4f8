/**
 * The development provider, row by row of reference/driver.md 12, over its socket.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { request as send } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import { Clock, Effect, Exit, Scope } from "effect"
import * as DevelopmentProvider from "../../layers/development/DevelopmentProvider.ts"
import { type CallFailed, unary } from "../../layers/real/Grpc.ts"
import { CSIDriverProviderService, type MountRequest, type MountResponse } from "../../proto/gen/provider.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"

const TOKENS = "csi.storage.k8s.io/serviceAccount.tokens"
const TWO_OBJECTS = "array:\n  - |\n    objectName: foo\n    objectVersion: v1\n  - |\n    objectName: fookey\n"
const FOOKEY = "-----BEGIN PUBLIC KEY-----\nThis is mock key\n-----END PUBLIC KEY-----"

const attributes = (changes: Readonly<Record<string, string>> = {}, podUid = "uid-1") =>
  JSON.stringify({ "csi.storage.k8s.io/pod.uid": podUid, objects: TWO_OBJECTS, ...changes })

const valid: MountRequest = {
  attributes: attributes(),
  secrets: "{}",
  targetPath: "/target",
  permission: "640",
  currentObjectVersion: []
}

const temporary: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "provider-"))),
  (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true }))
)

interface Provider extends DevelopmentProvider.DevelopmentProvider {
  readonly socket: string
  readonly mount: (request: MountRequest) => Effect.Effect<MountResponse, CallFailed>
  readonly client: grpc.Client
}

const connected = (socket: string, authority: string): Effect.Effect<grpc.Client, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(
      () =>
        new grpc.Client(`unix:${socket}`, grpc.credentials.createInsecure(), { "grpc.default_authority": authority })
    ),
    (client) => Effect.sync(() => client.close())
  )

const provider = (
  options: { readonly directory?: string; readonly controlAddr?: string } = {}
): Effect.Effect<Provider, EndpointFailed, Scope.Scope> =>
  Effect.gen(function* () {
    const socket = join(yield* temporary, "p.sock")
    const control = yield* DevelopmentProvider.serve({ endpoint: `unix://${socket}`, ...options })
    const client = yield* connected(socket, "localhost")
    return {
      ...control,
      socket,
      client,
      mount: (request) => unary(client, CSIDriverProviderService.mount, request, { timeoutMillis: 5_000 })
    }
  })

const plain = ({ error, files, objectVersion }: MountResponse) => ({
  objectVersion,
  error,
  files: files.map(({ contents, mode, path }) => ({ path, mode, contents: Buffer.from(contents).toString() }))
})

const said = (failure: CallFailed) => [failure.grpcCode, failure.details]

describe("12 the e2e provider's objects", () => {
  it.live("13.1 TestMockServer: starts, answers, and leaves no socket", () =>
    Effect.gen(function* () {
      const socket = join(yield* temporary, "p.sock")
      const scope = yield* Scope.make()
      yield* Scope.provide(DevelopmentProvider.serve({ endpoint: `unix://${socket}` }), scope)
      const client = yield* connected(socket, "localhost")
      assert.deepStrictEqual(yield* unary(client, CSIDriverProviderService.version, { version: "v1alpha1" }), {
        version: "v1alpha1",
        runtimeName: "E2EMockProvider",
        runtimeVersion: "v0.0.10"
      })
      client.close()
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(existsSync(socket))
    })
  )

  it.live("13.1 TestMount", () =>
    Effect.gen(function* () {
      const { mount } = yield* provider()
      assert.deepStrictEqual(plain(yield* mount(valid)), {
        objectVersion: [
          { id: "secret/foo", version: "v1" },
          { id: "secret/fookey", version: "v1" }
        ],
        error: undefined,
        files: [
          { path: "foo", mode: 0, contents: "secret" },
          { path: "fookey", mode: 0, contents: FOOKEY }
        ]
      })
    })
  )

  it.live("13.1 TestMountError: another name has no content, and is no error", () =>
    Effect.gen(function* () {
      const { mount } = yield* provider()
      const objects = "array:\n  - |\n    objectName: unknown\n    objectVersion: v1\n"
      assert.deepStrictEqual(plain(yield* mount({ ...valid, attributes: attributes({ objects }) })), {
        objectVersion: [{ id: "secret/unknown", version: "v1" }],
        error: undefined,
        files: [{ path: "unknown", mode: 0, contents: "" }]
      })
    })
  )

  it.live("13.1 TestRotation: only pods that were served before see it", () =>
    Effect.gen(function* () {
      const { mount, set } = yield* provider()
      const versions = (uid: string) =>
        Effect.map(mount({ ...valid, attributes: attributes({}, uid) }), ({ files, objectVersion }) => [
          objectVersion.map(({ version }) => version),
          files.map(({ contents }) => Buffer.from(contents).toString())
        ])
      const before = [
        ["v1", "v1"],
        ["secret", FOOKEY]
      ]
      const after = [
        ["v2", "v2"],
        ["rotated", "rotated"]
      ]
      assert.deepStrictEqual(yield* versions("a"), before)
      assert.deepStrictEqual(yield* versions("a"), before)
      set({ rotated: true })
      assert.deepStrictEqual(yield* versions("b"), before)
      assert.deepStrictEqual(yield* versions("a"), after)
      assert.deepStrictEqual(yield* versions("b"), after)
      set({ rotated: false })
      assert.deepStrictEqual(yield* versions("a"), before)
    })
  )

  it.live("13.1 TestValidateTokens", () =>
    Effect.gen(function* () {
      const { mount, set } = yield* provider()
      set({ validateTokensAudience: "aud1,aud2" })
      const tokens = JSON.stringify({ aud1: { token: "t1" }, aud2: { token: "t2" } })
      yield* mount({ ...valid, attributes: attributes({ [TOKENS]: tokens }) })
    })
  )

  it.live.each([
    { name: "absent", tokens: undefined, error: "service account tokens is not set" },
    { name: "empty", tokens: "", error: "service account tokens is not set" },
    {
      name: "not JSON",
      tokens: "{hunter2",
      error: "failed to unmarshal service account tokens, error: not a JSON object"
    },
    { name: "another's", tokens: '{"aud1":{}}', error: "service account token for audience aud2 is not set" },
    { name: "null", tokens: "null", error: "service account token for audience aud1 is not set" }
  ])("13.1 TestValidateTokensError: tokens $name", ({ error, tokens }) =>
    Effect.gen(function* () {
      const { mount, set } = yield* provider()
      set({ validateTokensAudience: "aud1,aud2" })
      const request = { ...valid, attributes: attributes(tokens === undefined ? {} : { [TOKENS]: tokens }) }
      assert.deepStrictEqual(said(yield* Effect.flip(mount(request))), [
        "UNKNOWN",
        `failed to validate token, error: ${error}`
      ])
    })
  )

  it.live.each([
    {
      row: "#1",
      changes: { attributes: "{hunter2" },
      error: "failed to unmarshal attributes, error: not a JSON object of strings"
    },
    {
      row: "#1",
      changes: { attributes: '{"a":1}' },
      error: "failed to unmarshal attributes, error: not a JSON object of strings"
    },
    {
      row: "#2",
      changes: { secrets: "hunter2" },
      error: "failed to unmarshal secrets, error: not a JSON object of strings"
    },
    {
      row: "#2",
      changes: { secrets: "" },
      error: "failed to unmarshal secrets, error: not a JSON object of strings"
    },
    {
      row: "#3",
      changes: { permission: '"420"' },
      error: "failed to unmarshal file permission, error: not a JSON number"
    },
    { row: "#4", changes: { targetPath: "" }, error: "missing target path" },
    { row: "#5", changes: { attributes: "{}" }, error: "objects is not set" },
    { row: "#5", changes: { attributes: "null" }, error: "objects is not set" },
    {
      row: "#6",
      changes: { attributes: attributes({ objects: "- not\n- an object" }) },
      error: "failed to yaml unmarshal objects, error: not a YAML object with an array of strings"
    },
    {
      row: "#6",
      changes: { attributes: attributes({ objects: "array: [" }) },
      error: "failed to yaml unmarshal objects, error: not a YAML object with an array of strings"
    },
    {
      row: "#7",
      changes: { attributes: attributes({ objects: "array:\n  - 'objectName: foo'\n  - just words\n" }) },
      error: "unmarshal failed for keyVaultObjects at index 1, error: not a YAML object with objectName"
    }
  ])("$row $error", ({ changes, error }) =>
    Effect.gen(function* () {
      const { mount } = yield* provider()
      assert.deepStrictEqual(said(yield* Effect.flip(mount({ ...valid, ...changes }))), ["UNKNOWN", error])
    })
  )

  it.live.each([
    { name: "null secrets", changes: { secrets: "null" } },
    { name: "a permission in decimal", changes: { permission: "420" } },
    { name: "keys that mean nothing", changes: { attributes: attributes({ keyvaultName: "x" }) } }
  ])("12 taken: $name", ({ changes }) =>
    Effect.gen(function* () {
      const { mount } = yield* provider()
      assert.strictEqual((yield* mount({ ...valid, ...changes })).files.length, 2)
    })
  )

  it.live("12 the authority has to be localhost, for every RPC", () =>
    Effect.gen(function* () {
      const { socket } = yield* provider()
      const client = yield* connected(socket, "somewhere.else")
      const expected = ["UNKNOWN", "want authority localhost, got [somewhere.else]"]
      assert.deepStrictEqual(said(yield* Effect.flip(unary(client, CSIDriverProviderService.mount, valid))), expected)
      const version = unary(client, CSIDriverProviderService.version, { version: "v1alpha1" })
      assert.deepStrictEqual(said(yield* Effect.flip(version)), expected)
    })
  )
})

describe("a directory's files", () => {
  const items = (...sources: ReadonlyArray<string>) =>
    attributes({
      objects: `array:\n${sources.map((source) => `  - |\n    ${source.replaceAll("\n", "\n    ")}\n`).join("")}`
    })

  const withFiles = (files: Readonly<Record<string, string>>) =>
    Effect.gen(function* () {
      const directory = join(yield* temporary, "files")
      mkdirSync(join(directory, "nested"), { recursive: true })
      for (const [name, contents] of Object.entries(files)) writeFileSync(join(directory, name), contents)
      return { directory, ...(yield* provider({ directory })) }
    })

  it.live("contents, modes, file names and versions", () =>
    Effect.gen(function* () {
      const { mount } = yield* withFiles({ password: "hunter2", "nested/key": "key" })
      const response = yield* mount({
        ...valid,
        attributes: items("objectName: password", "objectName: nested/key\nfileName: tls.key\nmode: 0400")
      })
      assert.deepStrictEqual(plain(response), {
        objectVersion: [
          { id: "secret/password", version: "f52fbd32b2b3b86f" },
          { id: "secret/nested/key", version: "2c70e12b7a0646f9" }
        ],
        error: undefined,
        files: [
          { path: "password", mode: 0o644, contents: "hunter2" },
          { path: "tls.key", mode: 0o400, contents: "key" }
        ]
      })
    })
  )

  it.live("a changed file has another version at the next mount", () =>
    Effect.gen(function* () {
      const { directory, mount } = yield* withFiles({ password: "before" })
      const request = { ...valid, attributes: items("objectName: password") }
      const before = yield* mount(request)
      assert.deepStrictEqual((yield* mount(request)).objectVersion, before.objectVersion)
      writeFileSync(join(directory, "password"), "after")
      const after = yield* mount(request)
      assert.notDeepEqual(after.objectVersion, before.objectVersion)
      assert.strictEqual(Buffer.from(after.files[0]!.contents).toString(), "after")
    })
  )

  it.live.each([
    { mode: "0600", bits: 0o600 },
    { mode: "420", bits: 0o644 },
    { mode: '"0640"', bits: 0o640 },
    { mode: '"640"', bits: 0o640 },
    { mode: "0o755", bits: 0o755 },
    { mode: "0", bits: 0 }
  ])("mode: $mode", ({ bits, mode }) =>
    Effect.gen(function* () {
      const { mount } = yield* withFiles({ password: "x" })
      const response = yield* mount({ ...valid, attributes: items(`objectName: password\nmode: ${mode}`) })
      assert.strictEqual(response.files[0]!.mode, bits)
    })
  )

  it.live.each([{ mode: "01000" }, { mode: '"8"' }, { mode: "-1" }, { mode: "rw-r--r--" }])(
    "mode: $mode is none",
    ({ mode }) =>
      Effect.gen(function* () {
        const { mount } = yield* withFiles({ password: "x" })
        const request = { ...valid, attributes: items(`objectName: password\nmode: ${mode}`) }
        assert.match(
          (yield* Effect.flip(mount(request))).details,
          /^unmarshal failed for keyVaultObjects at index 0, /u
        )
      })
  )

  it.live.each([
    { name: "missing", why: "there is no such file in the provider's directory" },
    { name: "nested", why: "there is no such file in the provider's directory" },
    { name: "../outside", why: "leads out of the provider's directory" },
    { name: "nested/../../outside", why: "leads out of the provider's directory" },
    { name: "/etc/passwd", why: "leads out of the provider's directory" },
    { name: ".", why: "leads out of the provider's directory" },
    { name: "link-out", why: "leads out of the provider's directory" }
  ])("object $name: $why", ({ name, why }) =>
    Effect.gen(function* () {
      const { directory, mount } = yield* withFiles({ password: "x" })
      writeFileSync(join(directory, "..", "outside"), "not served")
      symlinkSync("../outside", join(directory, "link-out"))
      const failure = yield* Effect.flip(mount({ ...valid, attributes: items(`objectName: ${name}`) }))
      assert.deepStrictEqual(said(failure), ["UNKNOWN", `object "${name}": ${why}`])
    })
  )

  it.live("a link that stays inside is followed", () =>
    Effect.gen(function* () {
      const { directory, mount } = yield* withFiles({ password: "x" })
      symlinkSync("password", join(directory, "link-in"))
      assert.strictEqual((yield* mount({ ...valid, attributes: items("objectName: link-in") })).files.length, 1)
    })
  )

  it.live("a name that looks like a number stays as it was written", () =>
    Effect.gen(function* () {
      const { mount } = yield* withFiles({ "0123": "x" })
      assert.strictEqual((yield* mount({ ...valid, attributes: items("objectName: 0123") })).files[0]!.path, "0123")
    })
  )
})

describe("switches", () => {
  it.live("error codes, gRPC errors, delays and counts", () =>
    Effect.gen(function* () {
      const { calls, mount, set } = yield* provider()
      set({ errorCode: "AuthenticationFailed" })
      assert.deepStrictEqual(plain(yield* mount(valid)), {
        objectVersion: [],
        error: { code: "AuthenticationFailed" },
        files: []
      })
      set({ errorCode: "", grpcError: { code: "UNAVAILABLE", times: 2 } })
      for (const _ of [1, 2]) {
        const failure = yield* Effect.flip(mount(valid))
        assert.deepStrictEqual([failure.grpcCode, failure.retryAfterMillis], ["UNAVAILABLE", undefined])
      }
      set({ grpcError: { code: "RESOURCE_EXHAUSTED", times: 1, retryAfterMillis: 1_500 } })
      const exhausted = yield* Effect.flip(mount(valid))
      assert.deepStrictEqual([exhausted.grpcCode, exhausted.retryAfterMillis], ["RESOURCE_EXHAUSTED", 1_500])
      yield* mount({ ...valid, attributes: attributes({}, "uid-2") })
      set({ delayMillis: 100 })
      const begun = yield* Clock.currentTimeMillis
      yield* mount(valid)
      assert.isAtLeast((yield* Clock.currentTimeMillis) - begun, 99)
      assert.deepStrictEqual(calls(), { total: 6, byPodUid: { "uid-1": 5, "uid-2": 1 } })
    })
  )

  const http = (port: number | undefined, path: string, form = "") =>
    Effect.callback<{ readonly status: number | undefined; readonly body: string }>((resume) => {
      const method = form === "" ? "GET" : "POST"
      const request = send({ host: "127.0.0.1", port, path, method, agent: false }, (response) => {
        let body = ""
        response.setEncoding("utf8").on("data", (chunk: string) => {
          body += chunk
        })
        response.on("end", () => resume(Effect.succeed({ status: response.statusCode, body })))
      })
      request.on("error", (error) => resume(Effect.die(error))).end(form)
    })

  it.live("12 HTTP: the same over the control listener", () =>
    Effect.gen(function* () {
      const { controlPort, mount, switches } = yield* provider({ controlAddr: "127.0.0.1:0" })
      for (const path of [
        "/rotation?rotated=true",
        "/validate-token-requests?audience=a,b",
        "/error?code=Denied",
        "/grpc-error?code=ABORTED&times=3",
        "/delay?millis=7"
      ]) {
        assert.deepStrictEqual(yield* http(controlPort, path), { status: 200, body: "" })
      }
      assert.deepStrictEqual(switches(), {
        rotated: true,
        validateTokensAudience: "a,b",
        errorCode: "Denied",
        grpcError: { code: "ABORTED", times: 3 },
        delayMillis: 7
      })
      yield* Effect.flip(mount(valid))
      const { body } = yield* http(controlPort, "/calls")
      assert.deepStrictEqual(JSON.parse(body), { total: 1, byPodUid: { "uid-1": 1 } })
      for (const path of ["/rotation", "/validate-token-requests", "/error", "/delay"]) yield* http(controlPort, path)
      assert.deepInclude(switches(), { rotated: false, validateTokensAudience: "", errorCode: "", delayMillis: 0 })
    })
  )

  it.live("HTTP: an error may say when to come again", () =>
    Effect.gen(function* () {
      const { controlPort, mount, switches } = yield* provider({ controlAddr: "127.0.0.1:0" })
      assert.strictEqual((yield* http(controlPort, "/grpc-error?code=ABORTED&retry-after-millis=250")).status, 200)
      assert.deepStrictEqual(switches().grpcError, { code: "ABORTED", times: 1, retryAfterMillis: 250 })
      assert.strictEqual((yield* Effect.flip(mount(valid))).retryAfterMillis, 250)
    })
  )

  it.live("12 HTTP: a form does as well, and goes before the query", () =>
    Effect.gen(function* () {
      const { controlPort, switches } = yield* provider({ controlAddr: "127.0.0.1:0" })
      assert.strictEqual((yield* http(controlPort, "/rotation?rotated=false", "rotated=true")).status, 200)
      assert.isTrue(switches().rotated)
    })
  )

  it.live.each([
    { path: "/grpc-error?code=NOPE", status: 400 },
    { path: "/grpc-error?code=OK", status: 400 },
    { path: "/grpc-error?code=ABORTED&times=many", status: 400 },
    { path: "/grpc-error?code=ABORTED&retry-after-millis=-1", status: 400 },
    { path: "/delay?millis=-1", status: 400 },
    { path: "/toString", status: 404 },
    { path: "/", status: 404 }
  ])("HTTP $path is $status and changes nothing", ({ path, status }) =>
    Effect.gen(function* () {
      const { controlPort, switches } = yield* provider({ controlAddr: "127.0.0.1:0" })
      const before = switches()
      assert.strictEqual((yield* http(controlPort, path)).status, status)
      assert.deepStrictEqual(switches(), before)
    })
  )

  it.live("no control listener unless asked for", () =>
    Effect.map(provider(), ({ controlPort }) => assert.isUndefined(controlPort))
  )
})

describe("12 the socket", () => {
  it.live("a stale socket is replaced", () =>
    Effect.gen(function* () {
      const { socket } = yield* provider()
      const first = statSync(socket).ino
      yield* DevelopmentProvider.serve({ endpoint: `unix://${socket}` })
      assert.notStrictEqual(statSync(socket).ino, first)
    })
  )

  it.live.each([
    { endpoint: "unix://", detail: "invalid endpoint: unix://" },
    { endpoint: "nonsense", detail: "invalid endpoint: nonsense" }
  ])("$detail", ({ detail, endpoint }) =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(DevelopmentProvider.serve({ endpoint }))
      assert.instanceOf(failure, EndpointFailed)
      assert.strictEqual(failure.message, detail)
    })
  )
})
