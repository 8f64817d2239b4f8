/** Tables of reference/driver.md 6.5: from one entry of secretObjects and the mounted files to the data of a Secret. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Redacted, Result, Schema } from "effect"
import { layer } from "../../layers/real/NodeFileFormats.ts"
import type { SecretNotSynced } from "../../schemas/errors/SecretNotSynced.ts"
import * as SecretData from "../../src/sync/SecretData.ts"
import { hasOpenssl, issue, makeWorkshop, needsOpenssl, type Workshop } from "../support/OpenSsl.ts"

const TARGET = "/var/lib/kubelet/pods/uid/volumes/kubernetes.io~csi/v/mount"

const volume = (files: Readonly<Record<string, string | Uint8Array>>): SecretData.Volume => ({
  targetPath: TARGET,
  files: new Map(
    Object.entries(files).map(([path, content]) => [
      path,
      Redacted.make(typeof content === "string" ? new TextEncoder().encode(content) : content)
    ])
  )
})

/** What a Secret holds, as text. */
const shown = ({ data, ...secret }: SecretData.SecretData) => ({
  ...secret,
  data: Object.fromEntries(
    [...data].map(([key, value]) => [key, Buffer.from(Redacted.value(value)).toString("latin1")])
  )
})

const build = (secretObject: SecretData.SecretObject, mounted: SecretData.Volume) =>
  SecretData.build(secretObject, mounted).pipe(Effect.map(shown), Effect.provide(layer))

const refuse = (secretObject: SecretData.SecretObject, mounted: SecretData.Volume) =>
  Effect.flip(build(secretObject, mounted))

const valid = {
  secretName: "foo",
  type: "Opaque",
  data: [{ objectName: "bar", key: "username" }]
} satisfies SecretData.SecretObject

const mounted = volume({ bar: "secret", "nested/bar": "deeper", " odd ": "blank" })

describe("6.5 validation", () => {
  const { secretName: _1, ...unnamed } = valid
  const { type: _2, ...untyped } = valid
  const { data: _3, ...dataless } = valid
  it.each([
    { row: "13.1 TestValidateSecretObject: name missing", object: unnamed, expected: "secret name is empty" },
    { row: "13.1 TestValidateSecretObject: type missing", object: untyped, expected: "secret type is empty" },
    { row: "13.1 TestValidateSecretObject: data missing", object: dataless, expected: "data is empty" },
    { row: "13.1 TestValidateSecretObject: complete", object: valid, expected: { name: "foo", type: "Opaque" } },
    { row: "secretName empty", object: { ...valid, secretName: "" }, expected: "secret name is empty" },
    // Upstream sends such a name to the API server, which refuses it.
    { row: "secretName of blanks", object: { ...valid, secretName: " \t" }, expected: "secret name is empty" },
    { row: "type empty", object: { ...valid, type: "" }, expected: "secret type is empty" },
    { row: "data empty", object: { ...valid, data: [] }, expected: "data is empty" },
    { row: "all missing: the name first", object: {}, expected: "secret name is empty" },
    { row: "type and data missing: the type first", object: { secretName: "foo" }, expected: "secret type is empty" },
    {
      row: "Q15 secretName is trimmed",
      object: { ...valid, secretName: " foo\n" },
      expected: { name: "foo", type: "Opaque" }
    },
    {
      row: "6.3 #10b, 13.1 TestGetSecretType: empty once trimmed is Opaque",
      object: { ...valid, type: "  " },
      expected: { name: "foo", type: "Opaque" }
    },
    {
      row: "13.1 TestGetSecretType: custom",
      object: { ...valid, type: " custom " },
      expected: { name: "foo", type: "custom" }
    }
  ])("$row", ({ object, expected }) => {
    const result = SecretData.validate(object)
    assert.deepStrictEqual<unknown>(Result.isSuccess(result) ? result.success : result.failure.message, expected)
  })

  it("a failure says which Secret, and what to do", () => {
    const failed = Result.getOrThrow(Result.flip(SecretData.validate({ ...valid, type: "" })))
    assert.strictEqual(failed._tag, "SecretObjectInvalid")
    assert.strictEqual(failed.code, "FailedToCreateSecret")
    assert.strictEqual(failed.remedy, "Secret foo: give the entry a type: Opaque, if nothing else fits")
  })
})

describe("6.5 data", () => {
  const data = (...entries: ReadonlyArray<readonly [objectName: string, key: string]>) => ({
    ...valid,
    data: entries.map(([objectName, key]) => ({ objectName, key }))
  })

  it.effect.each([
    {
      row: "13.1 TestGetSecretData: objectName empty",
      entries: [["", "username"]],
      expected: "object name in secretObjects.data"
    },
    { row: "Q16 objectName of blanks", entries: [["  ", "username"]], expected: "object name in secretObjects.data" },
    {
      row: "13.1 TestGetSecretData: key empty",
      entries: [["bar", ""]],
      expected: "key in secretObjects.data is empty"
    },
    { row: "key of blanks", entries: [["bar", " \n "]], expected: "key in secretObjects.data is empty" },
    { row: "both empty: the objectName first", entries: [["", ""]], expected: "object name in secretObjects.data" },
    {
      row: "key empty and file missing: the key first",
      entries: [["none", ""]],
      expected: "key in secretObjects.data is empty"
    },
    {
      row: "13.1 TestGetSecretData: not in the map",
      entries: [["none", "username"]],
      expected: "file matching objectName none not found in the pod"
    },
    {
      row: "13.1 TestGetSecretData: not on disk",
      entries: [["/bar", "username"]],
      expected: "file matching objectName /bar not found in the pod"
    },
    {
      row: "a directory is no file",
      entries: [["nested", "username"]],
      expected: "file matching objectName nested not found in the pod"
    },
    {
      row: "entries in their order: the first at fault",
      entries: [
        ["bar", "username"],
        ["first", "a"],
        ["", ""]
      ],
      expected: "file matching objectName first not found in the pod"
    },
    {
      row: "a name with blanks in the volume is not reached, since objectName is trimmed",
      entries: [[" odd ", "username"]],
      expected: "file matching objectName odd not found in the pod"
    },
    { row: "13.1 TestGetSecretData: found", entries: [["bar", "username"]], expected: { username: "secret" } },
    {
      row: "13.1 TestGetSecretData: objectName trimmed",
      entries: [[" bar\t", "username"]],
      expected: { username: "secret" }
    },
    {
      row: "13.1 TestGetSecretData: key trimmed",
      entries: [["bar", " username\n"]],
      expected: { username: "secret" }
    },
    { row: "nested files by relative path", entries: [["nested/bar", "deep"]], expected: { deep: "deeper" } },
    {
      row: "duplicate keys: the last wins",
      entries: [
        ["bar", "username"],
        ["nested/bar", " username "]
      ],
      expected: { username: "deeper" }
    },
    {
      row: "one file under two keys",
      entries: [
        ["bar", "a"],
        ["bar", "b"]
      ],
      expected: { a: "secret", b: "secret" }
    }
  ] as const)("$row", ({ entries, expected }) =>
    Effect.gen(function* () {
      const result = yield* Effect.result(build(data(...entries), mounted))
      assert.deepStrictEqual<unknown>(Result.isSuccess(result) ? result.success.data : result.failure.message, expected)
    })
  )

  it.effect("entries without fields count as empty ones", () =>
    Effect.gen(function* () {
      const failed = yield* refuse({ ...valid, data: [{}] }, mounted)
      assert.strictEqual(failed.message, "object name in secretObjects.data")
    })
  )

  it.effect("content is raw bytes", () =>
    Effect.gen(function* () {
      const bytes = Uint8Array.from({ length: 256 }, (_, index) => index)
      const { data } = yield* build(valid, volume({ bar: bytes }))
      assert.strictEqual(data["username"], Buffer.from(bytes).toString("latin1"))
    })
  )

  it.effect("an empty file is an empty value", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual((yield* build(valid, volume({ bar: "" }))).data, { username: "" })
    })
  )

  it.effect.each(
    [
      "Opaque",
      "kubernetes.io/basic-auth",
      "bootstrap.kubernetes.io/token",
      "kubernetes.io/dockerconfigjson",
      "kubernetes.io/dockercfg",
      "kubernetes.io/ssh-auth",
      "kubernetes.io/service-account-token",
      "my.own/type"
    ].map((type) => ({ type }))
  )("type $type is free text, its content as it is", ({ type }) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* build({ ...valid, type }, volume({ bar: "-----BEGIN nothing" })), {
        name: "foo",
        type,
        labels: { [SecretData.MANAGED_LABEL]: "true" },
        annotations: {},
        data: { username: "-----BEGIN nothing" }
      })
    })
  )

  it.effect("6.3 #10d labels and annotations are those of the class, and the managed label always wins", () =>
    Effect.gen(function* () {
      const labels = { environment: "test", [SecretData.MANAGED_LABEL]: "false" }
      const annotations = { "kubed.appscode.com/sync": "app=test" }
      const secret = yield* build({ ...valid, labels, annotations }, mounted)
      assert.deepStrictEqual(secret.labels, { environment: "test", "secrets-store.csi.k8s.io/managed": "true" })
      assert.deepStrictEqual(secret.annotations, annotations)
      assert.strictEqual(labels[SecretData.MANAGED_LABEL], "false")
    })
  )

  it.effect("13.2 Sync with K8s secrets: foosecret has username, the label of the class and the managed label", () =>
    Effect.gen(function* () {
      const secret = yield* build(
        {
          secretName: "foosecret",
          type: "Opaque",
          labels: { environment: "test" },
          data: [
            { objectName: "secretalias", key: "username" },
            { objectName: "nested/bar", key: "nested" }
          ]
        },
        volume({ secretalias: "secret", "nested/bar": "secret" })
      )
      assert.deepStrictEqual(secret, {
        name: "foosecret",
        type: "Opaque",
        labels: { environment: "test", "secrets-store.csi.k8s.io/managed": "true" },
        annotations: {},
        data: { username: "secret", nested: "secret" }
      })
    })
  )

  it.effect("a failure names Secret, key and file, and what to do", () =>
    Effect.gen(function* () {
      const failed = yield* refuse(data(["none", "username"]), mounted)
      assert.strictEqual(failed._tag, "SecretKeyNotBuilt")
      assert.strictEqual(failed.code, "FailedToCreateSecret")
      assert.strictEqual(
        failed.remedy,
        "key username of Secret foo (from none): set objectName to the path of a mounted file, relative to the volume, or let the provider mount it"
      )
      assert.match((yield* refuse(data(["", ""]), mounted)).remedy, /^Secret foo: /u)
    })
  )

  it.effect.each([
    { key: "a b", why: "it may have letters, digits, '-', '_' and '.' only" },
    { key: "a/b", why: "it may have letters, digits, '-', '_' and '.' only" },
    { key: "ä", why: "it may have letters, digits, '-', '_' and '.' only" },
    { key: ".", why: "it may not be '.' or start with '..'" },
    { key: "..", why: "it may not be '.' or start with '..'" },
    { key: "..data", why: "it may not be '.' or start with '..'" },
    { key: "a".repeat(254), why: "it is longer than 253 characters" }
  ])("key $key is refused before the API server does it", ({ key, why }) =>
    Effect.gen(function* () {
      const { message } = yield* refuse(data(["bar", key]), mounted)
      assert.strictEqual(message, `key ${JSON.stringify(key)} in secretObjects.data is not valid: ${why}`)
    })
  )

  it.effect.each([".dockerconfigjson", "a.b_c-D9", "-", "_", "a".repeat(253)].map((key) => ({ key })))(
    "key $key is taken",
    ({ key }) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(Object.keys((yield* build(data(["bar", key]), mounted)).data), [key])
      })
  )
})

describe("the 1 MiB that the API server takes", () => {
  const LIMIT = 1_048_576
  const three = (a: number, b: number, c: number) =>
    volume({ a: "x".repeat(a), b: "x".repeat(b), c: "x".repeat(c), d: "" })
  const object = {
    ...valid,
    data: ["a", "b", "c", "d"].map((name) => ({ objectName: name, key: `${name}-${"k".repeat(100)}` }))
  }

  it.effect("values of exactly the limit are taken; keys do not count", () =>
    Effect.gen(function* () {
      assert.strictEqual(SecretData.SECRET_BYTES_MAX, LIMIT)
      yield* build(object, three(LIMIT - 2, 1, 1))
    })
  )

  it.effect("one byte more is refused, with size, limit and the largest files", () =>
    Effect.gen(function* () {
      const failed = yield* refuse(object, three(1, LIMIT - 3, 3))
      assert.strictEqual(failed._tag, "SecretTooLarge")
      const key = (name: string) => `${name}-${"k".repeat(100)}`
      assert.strictEqual(
        failed.message,
        `data of 1048577 bytes is more than the 1048576 bytes that a Secret can hold; the largest: ${key("b")} from file b (1048573 bytes), ${key("c")} from file c (3 bytes), ${key("a")} from file a (1 bytes)`
      )
      assert.match(failed.remedy, /^Secret foo: /u)
    })
  )

  it.effect("of duplicate keys only the last counts", () =>
    Effect.gen(function* () {
      const twice = {
        ...valid,
        data: [
          { objectName: "a", key: "k" },
          { objectName: "b", key: "k" }
        ]
      }
      yield* build(twice, three(LIMIT, LIMIT, 0))
    })
  )
})

describe.skipIf(!hasOpenssl)(`type kubernetes.io/tls${needsOpenssl}`, () => {
  let shop: Workshop
  beforeAll(() => {
    shop = makeWorkshop()
    shop.openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem")
    shop.openssl("genpkey -algorithm ed25519 -out ed25519.pem")
    issue(shop, ["rsa", "ed25519"])
    shop.openssl("rsa -in rsa.pem -traditional -out rsa.pkcs1")
    shop.openssl("pkcs12 -export -in rsa.crt -inkey rsa.pem -certfile chain.crt -passout pass: -out rsa.p12")
  })
  afterAll(() => shop.remove())

  const tls = (...entries: ReadonlyArray<readonly [objectName: string, key: string]>): SecretData.SecretObject => ({
    secretName: "tls",
    type: " kubernetes.io/tls ",
    data: entries.map(([objectName, key]) => ({ objectName, key }))
  })

  const files = () => ({
    both: shop.text("rsa.pem") + shop.text("rsa.crt") + shop.text("chain.crt"),
    "nested/crt": shop.text("rsa.crt"),
    key: shop.text("rsa.pem"),
    other: shop.text("ed25519.pem"),
    p12: shop.read("rsa.p12"),
    text: "no key"
  })

  it.effect.each([
    { row: "one PEM file for both", crt: "both", key: "both" },
    { row: "key and certificate in files of their own", crt: "nested/crt", key: "key" },
    { row: "one PKCS#12 for both", crt: "p12", key: "p12" },
    { row: "the certificate from PKCS#12, the key from PEM", crt: "p12", key: "key" }
  ])("6.6 $row", ({ crt, key }) =>
    Effect.gen(function* () {
      const secret = yield* build(tls([crt, "tls.crt"], [key, " tls.key "]), volume(files()))
      assert.strictEqual(secret.type, "kubernetes.io/tls")
      assert.strictEqual(secret.data["tls.key"], shop.text("rsa.pkcs1"))
      shop.openssl("rsa -check -noout", secret.data["tls.key"])
      const der = shop.openssl("x509 -in rsa.crt -outform DER").toString("base64")
      assert.include(secret.data["tls.crt"]!.replaceAll("\n", ""), der)
    })
  )

  it.effect("Q35 ca.crt beside the others", () =>
    Effect.gen(function* () {
      const secret = yield* build(tls(["both", "tls.crt"], ["both", "tls.key"], ["both", "ca.crt"]), volume(files()))
      assert.strictEqual(secret.data["ca.crt"], shop.text("chain.crt"))
      shop.write("ca.crt", secret.data["ca.crt"]!)
      shop.write("tls.crt", secret.data["tls.crt"]!)
      assert.strictEqual(shop.openssl("verify -CAfile ca.crt tls.crt").toString(), "tls.crt: OK\n")
    })
  )

  it.effect.each([
    {
      row: "6.5 TLS extraction failure",
      entries: [["text", "tls.key"]],
      expected: `failed to get cert data from file ${TARGET}/text, err: pkcs12: error reading P12 data: the file is neither PEM nor PKCS#12, or it is damaged`
    },
    {
      row: "6.6 any other key",
      entries: [["nested/crt", "cert.pem"]],
      expected: `failed to get cert data from file ${TARGET}/nested/crt, err: key 'cert.pem' is not supported. Only 'tls.key' and 'tls.crt' are supported`
    },
    {
      row: "Q8 no private key, and no empty PEM",
      entries: [["nested/crt", "tls.key"]],
      expected: `failed to get cert data from file ${TARGET}/nested/crt, err: there is no private key in it, only PEM blocks of CERTIFICATE`
    },
    {
      row: "in the order of data: the certificate before the missing file",
      entries: [
        ["text", "tls.crt"],
        ["none", "tls.key"]
      ],
      expected: `failed to get cert data from file ${TARGET}/text, err: pkcs12: error reading P12 data: the file is neither PEM nor PKCS#12, or it is damaged`
    },
    {
      row: "a key of another certificate",
      entries: [
        ["other", "tls.key"],
        ["nested/crt", "tls.crt"]
      ],
      expected: `failed to get cert data from file ${TARGET}/other, err: the private key and the certificate do not belong together (the certificate is in ${TARGET}/nested/crt)`
    },
    {
      row: "a bad part that a later entry replaces is a failure all the same, as upstream",
      entries: [
        ["text", "tls.crt"],
        ["nested/crt", "tls.crt"]
      ],
      expected: `failed to get cert data from file ${TARGET}/text, err: pkcs12: error reading P12 data: the file is neither PEM nor PKCS#12, or it is damaged`
    }
  ] as const)("$row", ({ entries, expected }) =>
    Effect.gen(function* () {
      const failed = yield* refuse(tls(...entries), volume(files()))
      assert.strictEqual(failed.message, expected)
      assert.match(failed.remedy, /^key \S+ of Secret tls \(from \S+\): /u)
    })
  )

  it.effect("of duplicate keys the last is compared", () =>
    Effect.asVoid(build(tls(["other", "tls.key"], ["key", "tls.key"], ["both", "tls.crt"]), volume(files())))
  )
})

describe("nothing of the content is told", () => {
  const Text = Schema.String.check(Schema.isMinLength(8), Schema.isMaxLength(40))
  const keys = ["tls.crt", "tls.key", "ca.crt", "other", "", "bad key"]

  const assertSilent = (failed: SecretNotSynced, content: string) => {
    const said = [failed.message, failed.remedy, JSON.stringify(failed), String(failed)].join("\n")
    for (let at = 0; at + 8 <= content.length; at++) {
      const window = content.slice(at, at + 8)
      // What everybody can say: eight times one blank, for one.
      if (/^[\s=-]*$/u.test(window)) continue
      assert.notInclude(said, window)
    }
  }

  it.effect.prop(
    "whatever is in a file",
    [Text, Schema.Literals(["plain", "label", "body", "json"]), Schema.Literals(["Opaque", "kubernetes.io/tls"])],
    ([content, shape, type]) =>
      Effect.gen(function* () {
        const file = {
          plain: content,
          label: `-----BEGIN ${content}-----\nAAAA\n-----END ${content}-----\n`,
          body: `-----BEGIN PRIVATE KEY-----\n${Buffer.from(content).toString("base64")}\n-----END PRIVATE KEY-----\n`,
          json: JSON.stringify({ a: content, [content]: "a" })
        }[shape]
        const mapping = { allFiles: { _tag: "None" }, jsonPaths: true } as const
        for (const key of keys) {
          for (const objectName of ["file", "file#/b", "file#/a/b", "file#"]) {
            const result = yield* Effect.result(
              SecretData.build({ secretName: "s", type, data: [{ objectName, key }] }, volume({ file }), mapping)
            )
            if (Result.isFailure(result)) assertSilent(result.failure, content)
          }
        }
      }).pipe(Effect.provide(layer)),
    { arbitrary: { runs: 200 } }
  )
})
