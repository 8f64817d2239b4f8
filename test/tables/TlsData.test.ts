/**
 * Tables of reference/driver.md 6.6: the parts of a kubernetes.io/tls Secret. openssl makes what is split, in every format
 * that there is, and reads what comes out.
 */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Schema } from "effect"
import forge from "node-forge"
import { layer } from "../../layers/real/NodeFileFormats.ts"
import type { ContentInvalid } from "../../schemas/errors/ContentInvalid.ts"
import { FileFormats } from "../../src/ports/FileFormats.ts"
import * as Pem from "../../src/sync/Pem.ts"
import * as TlsData from "../../src/sync/TlsData.ts"
import {
  hasLegacy,
  hasOpenssl,
  issue,
  makeWorkshop,
  needsLegacy,
  needsOpenssl,
  type Workshop
} from "../support/OpenSsl.ts"

const bytes = (text: string) => new TextEncoder().encode(text)
const redacted = (file: Uint8Array | string) => Redacted.make(typeof file === "string" ? bytes(file) : file)

/** The part, as text. */
const split = (key: string, file: Uint8Array | string) =>
  TlsData.extract(key, redacted(file)).pipe(
    Effect.map(({ data }) => Buffer.from(Redacted.value(data)).toString("utf8")),
    Effect.provide(layer)
  )

const refuse = (key: string, file: Uint8Array | string) => Effect.flip(split(key, file))

const blocksOf = (text: string) => Pem.decode(bytes(text)).blocks
const labelsOf = (text: string) => blocksOf(text).map(({ label }) => label)

/** Without headers: openssl reads no block that has others than Proc-Type. */
const bare = (text: string) =>
  blocksOf(text)
    .map((block) => Pem.encode({ ...block, headers: [] }))
    .join("")

/** Go's pem.Encode, and nothing around it. */
const assertWellFormed = (text: string) => {
  assert.isAbove(text.length, 0)
  assert.isTrue(text.endsWith("-----\n"))
  for (const line of text.split("\n")) if (!line.includes(":")) assert.isAtMost(line.length, 64)
  assert.strictEqual(blocksOf(text).map(Pem.encode).join(""), text)
  for (const { der } of blocksOf(text)) assert.isAbove(der.byteLength, 0)
}

const EC = "genpkey -algorithm EC -pkeyopt"
const KEYS = ["rsa", "ec", "p384", "ed25519", "ed448", "x25519", "dsa", "pss"]
const OTHER = "other"

describe.skipIf(!hasOpenssl)(`TLS parts${needsOpenssl}`, () => {
  let shop: Workshop
  beforeAll(() => {
    shop = makeWorkshop()
    const { openssl, text, write } = shop
    openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem")
    openssl("genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out pss.pem")
    openssl(`${EC} ec_paramgen_curve:prime256v1 -out ec.pem`)
    openssl(`${EC} ec_paramgen_curve:prime256v1 -out other.pem`)
    openssl(`${EC} ec_paramgen_curve:secp384r1 -out p384.pem`)
    for (const algorithm of ["ed25519", "ed448", "x25519"]) {
      openssl(`genpkey -algorithm ${algorithm} -out ${algorithm}.pem`)
    }
    openssl("genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 -out dsa.params")
    openssl("genpkey -paramfile dsa.params -out dsa.pem")
    issue(shop, [...KEYS, OTHER])

    openssl("rsa -in rsa.pem -traditional -out rsa.pkcs1")
    openssl("ec -in ec.pem -out ec.sec1")
    openssl("ec -in ec.pem -no_public -out ec.nopublic")
    openssl("ecparam -name prime256v1 -out ec.params")
    openssl("ecparam -name prime256v1 -genkey -out genkey.pem")
    openssl("pkey -in dsa.pem -traditional -out dsa.old")
    openssl("pkcs8 -topk8 -in rsa.pem -v2 aes-256-cbc -passout pass:secret -out rsa.encrypted")
    openssl("rsa -in rsa.pem -traditional -aes128 -passout pass:secret -out rsa.oldencrypted")
    openssl("rsa -in rsa.pem -RSAPublicKey_out -out rsa.pkcs1pub")
    openssl(
      "req -x509 -new -key ec.pem -subj /CN=self -days 2 -addext basicConstraints=critical,CA:FALSE -out self.crt"
    )
    // node-forge writes certificates right only when RSA signed them.
    openssl("req -x509 -new -key rsa.pem -subj /CN=signed -days 2 -out signed.crt")
    openssl("x509 -in rsa.crt -trustout -addtrust serverAuth -out rsa.trusted")
    openssl("crl2pkcs7 -nocrl -certfile rsa.crt -out rsa.p7")
    openssl("x509 -in rsa.crt -outform DER -out rsa.der")
    write("bundle.crt", text("rsa.crt") + text("chain.crt"))
    openssl("pkcs12 -export -in rsa.crt -inkey rsa.pem -passout pass: -out leak.p12")
  })
  afterAll(() => shop.remove())

  const publicOf = (name: string) => shop.openssl(`pkey -in ${name} -pubout`).toString()
  const publicIn = (pem: string) => shop.openssl("pkey -pubout", pem).toString()

  // ---- private keys in PEM

  it.effect.each([
    {
      row: "6.6 PKCS#1 RSA stays",
      file: "rsa.pkcs1",
      label: "RSA PRIVATE KEY",
      of: "rsa.pem",
      check: "rsa -check -noout"
    },
    {
      row: "6.6 PKCS#8 RSA becomes PKCS#1",
      file: "rsa.pem",
      label: "RSA PRIVATE KEY",
      of: "rsa.pem",
      check: "rsa -check -noout"
    },
    {
      row: "6.6 PKCS#8 EC becomes SEC 1",
      file: "ec.pem",
      label: "EC PRIVATE KEY",
      of: "ec.pem",
      check: "ec -check -noout"
    },
    {
      row: "6.6 PKCS#8 EC P-384 becomes SEC 1",
      file: "p384.pem",
      label: "EC PRIVATE KEY",
      of: "p384.pem",
      check: "ec -check -noout"
    },
    { row: "6.6 SEC 1 EC stays", file: "ec.sec1", label: "EC PRIVATE KEY", of: "ec.pem", check: "ec -check -noout" },
    {
      row: "6.6 SEC 1 EC gets its public key",
      file: "ec.nopublic",
      label: "EC PRIVATE KEY",
      of: "ec.pem",
      check: "ec -check -noout"
    },
    {
      row: "6.6 SEC 1 EC after its parameters",
      file: "genkey.pem",
      label: "EC PRIVATE KEY",
      of: "genkey.pem",
      check: "ec -check -noout"
    },
    { row: "6.6 Q8 Ed25519", file: "ed25519.pem", label: "PRIVATE KEY", of: "ed25519.pem", check: "pkey -noout" },
    { row: "6.6 Q8 Ed448", file: "ed448.pem", label: "PRIVATE KEY", of: "ed448.pem", check: "pkey -noout" },
    { row: "6.6 Q8 X25519", file: "x25519.pem", label: "PRIVATE KEY", of: "x25519.pem", check: "pkey -noout" },
    { row: "6.6 Q8 DSA as PKCS#8", file: "dsa.pem", label: "PRIVATE KEY", of: "dsa.pem", check: "dsa -noout" },
    { row: "6.6 Q8 DSA as of old", file: "dsa.old", label: "PRIVATE KEY", of: "dsa.pem", check: "dsa -noout" },
    { row: "6.6 Q8 RSA-PSS", file: "pss.pem", label: "PRIVATE KEY", of: "pss.pem", check: "pkey -check -noout" }
  ])("$row", ({ file, label, of, check }) =>
    Effect.gen(function* () {
      const pem = yield* split("tls.key", shop.read(file))
      assertWellFormed(pem)
      assert.deepStrictEqual(labelsOf(pem), [label])
      shop.openssl(check, pem)
      assert.strictEqual(publicIn(pem), publicOf(of))
      // What is there already is not changed again.
      assert.strictEqual(yield* split("tls.key", pem), pem)
    })
  )

  it.effect("6.6 PKCS#1 RSA and SEC 1 EC come out as openssl writes them", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* split("tls.key", shop.read("rsa.pem")), shop.text("rsa.pkcs1"))
      assert.strictEqual(yield* split("tls.key", shop.read("ec.pem")), shop.text("ec.sec1"))
      assert.strictEqual(yield* split("tls.key", shop.read("ed25519.pem")), shop.text("ed25519.pem"))
    })
  )

  it.effect.each([
    { row: "parameters before the key", order: ["ec.params", "ec.sec1"] },
    { row: "parameters after the key", order: ["ec.sec1", "ec.params"] },
    { row: "a public key after the key", order: ["ec.sec1", "ec.pub"] },
    { row: "certificates around the key", order: ["ec.crt", "ec.sec1", "chain.crt"] },
    { row: "a request after the key", order: ["ec.sec1", "leaf.csr"] },
    { row: "a trusted certificate after the key", order: ["ec.sec1", "rsa.trusted"] },
    { row: "PKCS#7 after the key", order: ["ec.sec1", "rsa.p7"] },
    { row: "of two keys the last", order: ["other.pem", "ec.sec1"] },
    {
      row: "of two keys and all else the last",
      order: ["rsa.encrypted", "ec.params", "ec.sec1", "ec.params", "ec.pub", "ec.crt"]
    }
  ])("6.6 the last key: $row", ({ order }) =>
    Effect.gen(function* () {
      const pem = yield* split("tls.key", order.map(shop.text).join(""))
      assert.deepStrictEqual(labelsOf(pem), ["EC PRIVATE KEY"])
      assert.strictEqual(publicIn(pem), publicOf("ec.pem"))
    })
  )

  it.effect.each([
    ["a wrong label", (text: string) => text.replaceAll("PRIVATE KEY", "SOMETHING")],
    ["CRLF", (text: string) => text.replaceAll("\n", "\r\n")],
    ["a byte order mark", (text: string) => `\ufeff${text}`],
    ["text around it", (text: string) => `Bag Attributes\n    localKeyID: 01\n${text}bye\n`],
    ["no LF at the end", (text: string) => text.trimEnd()],
    ["one long line", (text: string) => text.replaceAll(/(?<=[A-Za-z0-9+/=])\n(?=[A-Za-z0-9+/=])/gu, "")],
    ["headers", (text: string) => text.replace("-----\n", "-----\nComment: x\n\n")]
  ] as const)("6.6 a key with %s", ([, change]) =>
    Effect.gen(function* () {
      const pem = yield* split("tls.key", change(shop.text("ed25519.pem")))
      assert.strictEqual(pem, shop.text("ed25519.pem"))
    })
  )

  // ---- what is no private key

  it.effect.each([
    { row: "encrypted PKCS#8", files: ["rsa.encrypted"], detail: /^the private key is encrypted$/u },
    { row: "encrypted PKCS#1", files: ["rsa.oldencrypted"], detail: /^the private key is encrypted$/u },
    {
      row: "an encrypted key after a plain one",
      files: ["rsa.pem", "rsa.encrypted"],
      detail: /^the private key is encrypted$/u
    },
    {
      row: "a public key",
      files: ["rsa.pub"],
      detail: /^there is no private key in it, only PEM blocks of PUBLIC KEY$/u
    },
    { row: "a public key as PKCS#1", files: ["rsa.pkcs1pub"], detail: /only PEM blocks of RSA PUBLIC KEY$/u },
    { row: "EC parameters alone", files: ["ec.params"], detail: /only PEM blocks of EC PARAMETERS$/u },
    { row: "DSA parameters alone", files: ["dsa.params"], detail: /only PEM blocks of DSA PARAMETERS$/u },
    {
      row: "certificates and parameters",
      files: ["bundle.crt", "ec.params"],
      detail: /only PEM blocks of CERTIFICATE, EC PARAMETERS$/u
    },
    { row: "a request", files: ["leaf.csr"], detail: /only PEM blocks of CERTIFICATE REQUEST$/u },
    { row: "a certificate in DER", files: ["rsa.der"], detail: /^pkcs12: error reading P12 data: / }
  ])("Q8 $row is refused, never an empty PEM", ({ files, detail }) =>
    Effect.gen(function* () {
      const file = Buffer.concat(files.map(shop.read))
      const failed = yield* refuse("tls.key", file)
      assert.strictEqual(failed._tag, "ContentInvalid")
      assert.match(failed.detail, detail)
      assert.isAbove(failed.remedy.length, 10)
    })
  )

  const relabel = (text: string, label: string) => text.replaceAll(/(BEGIN|END) [A-Z ]+/gu, `$1 ${label}`)

  it.effect.each([
    ["an encrypted key", "rsa.encrypted", "PRIVATE KEY", /is encrypted/u],
    ["a public key", "rsa.pub", "PRIVATE KEY", /holds a public key/u],
    ["a public key of PKCS#1", "rsa.pkcs1pub", "RSA PRIVATE KEY", /holds a public key/u],
    ["a certificate", "rsa.crt", "PRIVATE KEY", /holds a certificate where/u],
    ["parameters", "ec.params", "EC PRIVATE KEY", /cannot be read/u],
    ["OpenSSH's format", "rsa.pem", "OPENSSH PRIVATE KEY", /OpenSSH's own format/u]
  ] as const)("Q8 %s under the label of a private key is refused", ([, file, label, detail]) =>
    Effect.gen(function* () {
      assert.match((yield* refuse("tls.key", relabel(shop.text(file), label))).detail, detail)
    })
  )

  it.effect.each([
    ["nothing", ""],
    ["blanks", " \n\t\n"],
    ["a text", "not a key at all\n"],
    ["zeroes", "\0".repeat(4096)],
    ["a block without an end", "-----BEGIN PRIVATE KEY-----\nAAAA\n"],
    ["a block with another end", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"],
    ["a block that is not base64", "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n"],
    ["a block of base64 cut short", "-----BEGIN PRIVATE KEY-----\nAAA\n-----END PRIVATE KEY-----\n"],
    ["an empty block", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"],
    ["a block of garbage", `-----BEGIN PRIVATE KEY-----\n${"QUJD".repeat(40)}\n-----END PRIVATE KEY-----\n`],
    ["an empty certificate", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"],
    ["a certificate of garbage", `-----BEGIN CERTIFICATE-----\n${"QUJD".repeat(40)}\n-----END CERTIFICATE-----\n`]
  ] as const)("Q8 %s is refused for every key", ([, file]) =>
    Effect.gen(function* () {
      for (const key of ["tls.key", "tls.crt", "ca.crt"]) {
        const failed = yield* refuse(key, file)
        assert.strictEqual(failed._tag, "ContentInvalid", key)
        assert.notInclude(failed.detail, "ABCABC")
      }
    })
  )

  it.effect("Q8 a label of somebody's own is not repeated", () =>
    Effect.gen(function* () {
      const failed = yield* refuse("tls.crt", relabel(shop.text("rsa.pem"), "HUNTER SEVEN PRIVATE KEY"))
      assert.strictEqual(failed.detail, "there is no certificate in it, only PEM blocks of an unknown kind")
    })
  )

  // ---- certificates in PEM

  it.effect("6.6 certificates are concatenated in order, the whole chain", () =>
    Effect.gen(function* () {
      const mixed = ["rsa.pem", "rsa.crt", "ec.params", "int.crt", "rsa.pkcs1", "root.crt"]
        .map(shop.text)
        .join("junk\n")
      const pem = yield* split("tls.crt", mixed)
      assertWellFormed(pem)
      assert.strictEqual(pem, shop.text("bundle.crt"))
      shop.write("out.crt", pem)
      assert.strictEqual(shop.openssl("verify -CAfile root.crt -untrusted out.crt out.crt").toString(), "out.crt: OK\n")
      assert.match(shop.openssl("x509 -noout -subject", pem).toString(), /CN ?= ?leaf/u)
    })
  )

  it.effect("6.6 headers of certificates are kept, sorted, and followed by a blank line", () =>
    Effect.gen(function* () {
      const file = shop
        .text("rsa.crt")
        .replace("-----\n", "-----\nlocalKeyId: 01000000\nProc-Type: x\nfriendlyName: ä\n\n")
      const pem = yield* split("tls.crt", file)
      assert.strictEqual(
        pem,
        shop.text("rsa.crt").replace("-----\n", "-----\nProc-Type: x\nfriendlyName: ä\nlocalKeyId: 01000000\n\n")
      )
    })
  )

  it.effect.each([
    ["a private key", "rsa.pem", "there is no certificate in it, only PEM blocks of PRIVATE KEY"],
    ["a trusted certificate", "rsa.trusted", "there is no certificate in it, only PEM blocks of TRUSTED CERTIFICATE"],
    ["PKCS#7", "rsa.p7", "there is no certificate in it, only PEM blocks of PKCS7"]
  ] as const)("6.6 no certificate in %s", ([, file, detail]) =>
    Effect.gen(function* () {
      assert.strictEqual((yield* refuse("tls.crt", shop.read(file))).detail, detail)
    })
  )

  it.effect("a damaged certificate of a chain is told with its place", () =>
    Effect.gen(function* () {
      const damaged = `${shop.text("rsa.crt")}${relabel(shop.text("rsa.pub"), "CERTIFICATE")}${shop.text("root.crt")}`
      const failed = yield* refuse("tls.crt", damaged)
      assert.strictEqual(failed.detail, "certificate 2 of 3: it is not an X.509 certificate, or it is damaged")
    })
  )

  it.effect.each(KEYS.map((key) => ({ key })))("the certificate of a $key key is taken", ({ key }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* split("tls.crt", shop.read(`${key}.crt`)), shop.text(`${key}.crt`))
    })
  )

  // ---- ca.crt

  it.effect.each([
    { row: "the chain after the leaf", file: ["rsa.crt", "int.crt", "root.crt"], expected: ["int.crt", "root.crt"] },
    { row: "a chain in the other order", file: ["root.crt", "int.crt", "rsa.crt"], expected: ["root.crt", "int.crt"] },
    { row: "a file of authorities alone", file: ["root.crt"], expected: ["root.crt"] },
    { row: "a bundle of authorities", file: ["int.crt", "root.crt"], expected: ["int.crt", "root.crt"] },
    { row: "a self-signed certificate", file: ["self.crt"], expected: ["self.crt"] },
    { row: "beside the key", file: ["rsa.pem", "rsa.crt", "int.crt"], expected: ["int.crt"] }
  ])("Q35 ca.crt: $row", ({ file, expected }) =>
    Effect.gen(function* () {
      const pem = yield* split("ca.crt", file.map(shop.text).join(""))
      assert.strictEqual(pem, expected.map(shop.text).join(""))
    })
  )

  it.effect("Q35 ca.crt: a leaf alone is refused", () =>
    Effect.gen(function* () {
      const { detail } = yield* refuse("ca.crt", shop.read("rsa.crt"))
      assert.strictEqual(detail, "there is no certificate of an authority in it, only the leaf")
    })
  )

  it.effect.each(["tls.pem", "TLS.CRT", "", "ca.key"].map((key) => ({ key })))(
    "6.6 13.1 key '$key' is not supported",
    ({ key }) =>
      Effect.gen(function* () {
        const { detail } = yield* refuse(key, shop.read("rsa.crt"))
        assert.strictEqual(detail, `key '${key}' is not supported. Only 'tls.key' and 'tls.crt' are supported`)
      })
  )

  // ---- key and certificate

  const pair = (crt: Uint8Array | string, key: Uint8Array | string) =>
    Effect.gen(function* () {
      yield* TlsData.checkPair(
        yield* TlsData.extract("tls.crt", redacted(crt)),
        yield* TlsData.extract("tls.key", redacted(key))
      )
    }).pipe(Effect.provide(layer))

  it.effect.each(KEYS.map((key) => ({ key })))("a $key key belongs to its certificate, and to no other", ({ key }) =>
    Effect.gen(function* () {
      yield* pair(shop.text(`${key}.crt`) + shop.text("chain.crt"), shop.read(`${key}.pem`))
      const failed = yield* Effect.flip(pair(shop.read("other.crt"), shop.read(`${key}.pem`)))
      assert.strictEqual(failed.detail, "the private key and the certificate do not belong together")
    })
  )

  it.effect("a key of a later certificate is told as such", () =>
    Effect.gen(function* () {
      const failed = yield* Effect.flip(pair(shop.text("chain.crt") + shop.text("rsa.crt"), shop.read("rsa.pem")))
      assert.strictEqual(failed.detail, "the private key belongs to certificate 3 of 3, and not to the first")
    })
  )

  it.effect("parts in the wrong places are nothing to compare", () =>
    Effect.gen(function* () {
      const part = yield* TlsData.extract("tls.crt", redacted(shop.read("rsa.crt")))
      yield* TlsData.checkPair(part, part)
    }).pipe(Effect.provide(layer))
  )

  // ---- PKCS#12

  const exported = (name: string, options: string, password = "") => {
    shop.openssl(`pkcs12 -export ${options} -passout pass:${password} -out ${name}`)
    return shop.read(name)
  }

  const RSA = "-in rsa.crt -inkey rsa.pem -certfile chain.crt"

  const pkcs12Rows: ReadonlyArray<{ readonly row: string; readonly options: string; readonly legacy?: boolean }> = [
    { row: "SHA1+3DES and SHA1+40-bit RC2, SHA-1 MAC", options: "-legacy", legacy: true },
    { row: "SHA1+3DES throughout", options: "-keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1" },
    {
      row: "SHA1+40-bit RC2 throughout",
      options: "-legacy -keypbe PBE-SHA1-RC2-40 -certpbe PBE-SHA1-RC2-40 -macalg sha1",
      legacy: true
    },
    { row: "PBES2 AES-256, SHA-256 MAC (today's default)", options: "" },
    { row: "PBES2 AES-128, SHA-1 MAC", options: "-keypbe AES-128-CBC -certpbe AES-128-CBC -macalg sha1" },
    { row: "PBES2 AES-192, SHA-384 MAC", options: "-keypbe AES-192-CBC -certpbe AES-192-CBC -macalg sha384" },
    { row: "PBES2 AES-256, SHA-512 MAC", options: "-macalg sha512" },
    { row: "certificates that are not encrypted", options: "-certpbe NONE" },
    { row: "nothing that is encrypted", options: "-certpbe NONE -keypbe NONE" },
    { row: "one round", options: "-noiter -nomaciter" },
    { row: "10,000 rounds, as Java has it", options: "-iter 10000" }
  ]
  for (const { row, options, legacy } of pkcs12Rows) {
    const needs = legacy === true ? needsLegacy : ""
    it.effect.skipIf(legacy === true && !hasLegacy)(`6.6 PKCS#12 with ${row}${needs}`, () =>
      Effect.gen(function* () {
        const file = exported("rsa.p12", `${RSA} ${options}`)
        const key = yield* split("tls.key", file)
        assert.strictEqual(key, shop.text("rsa.pkcs1"))
        const certificates = yield* split("tls.crt", file)
        assertWellFormed(certificates)
        assert.strictEqual(bare(certificates), shop.text("bundle.crt"))
        shop.write("out.crt", bare(certificates))
        assert.strictEqual(
          shop.openssl("verify -CAfile root.crt -untrusted out.crt out.crt").toString(),
          "out.crt: OK\n"
        )
        assert.strictEqual(yield* split("ca.crt", file), shop.text("chain.crt"))
        yield* pair(file, file)
      })
    )
  }

  it.effect.each(KEYS.map((key) => ({ key })))("6.6 PKCS#12 of a $key key and its certificate", ({ key }) =>
    Effect.gen(function* () {
      const file = exported(`${key}.p12`, `-in ${key}.crt -inkey ${key}.pem`)
      assert.strictEqual(publicIn(yield* split("tls.key", file)), publicOf(`${key}.pem`))
      assert.strictEqual(bare(yield* split("tls.crt", file)), shop.text(`${key}.crt`))
      yield* pair(file, file)
    })
  )

  it.effect("6.6 13.1 TestGetCert: attributes of a PKCS#12 become headers, sorted, before a blank line", () =>
    Effect.gen(function* () {
      const file = exported(
        "names.p12",
        "-in rsa.crt -inkey rsa.pem -certfile int.crt -name 'Straße 7' -caname Zwischenstelle"
      )
      const fingerprint = shop.openssl("x509 -in rsa.crt -noout -fingerprint -sha1").toString().trim().split("=")[1]!
      const [leaf, intermediate] = (yield* split("tls.crt", file)).split(/(?<=END CERTIFICATE-----\n)/u)
      const localKeyId = fingerprint.replaceAll(":", "").toLowerCase()
      assert.match(leaf!, /^-----BEGIN CERTIFICATE-----\nfriendlyName: Straße 7\nlocalKeyId: [0-9a-f]{40}\n\nMI/u)
      assert.include(leaf!, `localKeyId: ${localKeyId}\n`)
      assert.match(intermediate!, /^-----BEGIN CERTIFICATE-----\nfriendlyName: Zwischenstelle\n\nMI/u)
      // Upstream's headers are for readers in Go: OpenSSL, and what is built on it, wants them gone.
      assert.throws(() => shop.openssl("x509 -noout", leaf!), /not proc type/u)
      shop.openssl("x509 -noout", bare(leaf!))
    })
  )

  const toBytes = (object: forge.asn1.Asn1) =>
    Uint8Array.from(Buffer.from(forge.asn1.toDer(object).getBytes(), "latin1"))

  it.effect.each([
    { row: "friendlyName", oid: "1.2.840.113549.1.9.20", header: "friendlyName" },
    // openssl writes the name of a CSP at the key only.
    { row: "Microsoft CSP Name", oid: "1.3.6.1.4.1.311.17.1", header: "Microsoft CSP Name" }
  ])("6.6 $row is a header, and adds no line of its own", ({ oid, header }) =>
    Effect.gen(function* () {
      const { oids } = forge.pki
      const friendlyName = oids["friendlyName"]!
      oids["friendlyName"] = oid
      const p12 = forge.pkcs12.toPkcs12Asn1(null, forge.pki.certificateFromPem(shop.text("signed.crt")), "", {
        friendlyName: "a\n-----END CERTIFICATE-----\nb",
        generateLocalKeyId: false,
        localKeyId: "01000000"
      })
      oids["friendlyName"] = friendlyName
      const text = yield* split("tls.crt", toBytes(p12))
      const headers: Array<readonly [string, string]> = [
        [header, "a -----END CERTIFICATE----- b"],
        ["localKeyId", "01000000"]
      ]
      assert.deepStrictEqual(
        blocksOf(text)[0]!.headers,
        headers.sort(([a], [b]) => (a < b ? -1 : 1))
      )
      assert.strictEqual(bare(text), shop.text("signed.crt"))
    })
  )

  it.effect("an attribute that nobody knows is left out, where upstream fails", () =>
    Effect.gen(function* () {
      const { oids } = forge.pki
      const friendlyName = oids["friendlyName"]!
      oids["friendlyName"] = "2.16.840.1.113894.746875.1.1"
      const certificate = forge.pki.certificateFromPem(shop.text("signed.crt"))
      const p12 = forge.pkcs12.toPkcs12Asn1(null, certificate, "", { friendlyName: "x", generateLocalKeyId: false })
      oids["friendlyName"] = friendlyName
      assert.strictEqual(yield* split("tls.crt", toBytes(p12)), shop.text("signed.crt"))
    })
  )

  it.effect.each([
    { row: "the key is not encrypted", password: null, algorithm: "3des" },
    { row: "the key is encrypted with 3DES", password: undefined, algorithm: "3des" }
  ] as const)("6.6 the empty password of zero length: $row", ({ password, algorithm }) =>
    Effect.gen(function* () {
      // openssl writes the other encoding only, and reads both.
      const key = forge.pki.privateKeyFromPem(shop.text("rsa.pkcs1"))
      const certificates = [forge.pki.certificateFromPem(shop.text("signed.crt"))]
      const file = toBytes(
        Reflect.apply(forge.pkcs12.toPkcs12Asn1, undefined, [key, certificates, password, { algorithm }])
      )
      shop.openssl("pkcs12 -passin pass: -nodes -noout", file)
      assert.strictEqual(yield* split("tls.key", file), shop.text("rsa.pkcs1"))
      yield* pair(file, file)
    })
  )

  it.effect("the certificate of the key comes first out of a PKCS#12 in another order", () =>
    Effect.gen(function* () {
      shop.write("reversed.crt", shop.text("root.crt") + shop.text("int.crt") + shop.text("rsa.crt"))
      // Without a key openssl leaves the order alone; the key is put in by forge, which reads it back.
      const certificates = [...Pem.decode(shop.read("reversed.crt")).blocks]
      const reversed = Layer.succeed(
        FileFormats,
        FileFormats.of({
          ...(yield* FileFormats),
          pkcs12: () =>
            Effect.succeed({
              certificates,
              privateKey: Redacted.make(Pem.decode(shop.read("rsa.pem")).blocks[0]!.der)
            })
        })
      )
      const text = (key: string) =>
        TlsData.extract(key, redacted("opened by the layer above")).pipe(
          Effect.map(({ data }) => Buffer.from(Redacted.value(data)).toString()),
          Effect.provide(reversed)
        )
      assert.strictEqual(yield* text("tls.crt"), shop.text("rsa.crt") + shop.text("root.crt") + shop.text("int.crt"))
      assert.strictEqual(yield* text("ca.crt"), shop.text("root.crt") + shop.text("int.crt"))
    }).pipe(Effect.provide(layer))
  )

  it.effect("6.6 the bytes after the last PEM block are the PKCS#12", () =>
    Effect.gen(function* () {
      const p12 = exported("rest.p12", RSA)
      assert.strictEqual(
        yield* split("tls.key", Buffer.concat([bytes("hello\n"), bytes(shop.text("int.crt")), p12])),
        shop.text("rsa.pkcs1")
      )
      const file = Buffer.concat([bytes(shop.text("ec.sec1")), p12])
      assert.strictEqual(labelsOf(yield* split("tls.crt", file)).length, 3)
    })
  )

  it.effect.each([
    { row: "a password", options: RSA, password: "secret", detail: "pkcs12: decryption password incorrect" },
    { row: "no MAC", options: `${RSA} -nomac`, password: "", detail: "pkcs12: no MAC in data" },
    {
      row: "an unknown digest",
      options: `${RSA} -macalg sha3-256`,
      password: "",
      detail: "pkcs12: unknown digest algorithm: 2.16.840.1.101.3.4.2.8"
    },
    {
      row: "an unknown algorithm",
      options: `${RSA} -keypbe PBE-SHA1-2DES`,
      password: "",
      detail: "pkcs12: algorithm 1.2.840.113549.1.12.1.4 is not supported"
    },
    {
      row: "a cipher that is not CBC",
      options: `${RSA} -keypbe camellia-128-cbc`,
      password: "",
      detail: "pkcs12: algorithm 1.2.392.200011.61.1.1.1.2 is not supported"
    },
    {
      row: "more rounds than are done",
      options: `${RSA} -keypbe NONE -certpbe NONE -iter 1000001`,
      password: "",
      detail: "pkcs12: its keys take more than the 1000000 rounds of hashing that are done for one file"
    },
    {
      row: "no private key",
      options: "-nokeys -in rsa.crt",
      password: "",
      detail: "there is no private key in this PKCS#12"
    }
  ])("6.6 PKCS#12 with $row", ({ options, password, detail }) =>
    Effect.gen(function* () {
      const failed = yield* refuse("tls.key", exported("bad.p12", options, password))
      assert.strictEqual(failed.detail, detail)
      assert.isAbove(failed.remedy.length, 10)
    })
  )

  it.effect("6.6 PKCS#12 without a certificate", () =>
    Effect.gen(function* () {
      const file = exported("nocerts.p12", "-nocerts -inkey rsa.pem")
      assert.strictEqual((yield* refuse("tls.crt", file)).detail, "there is no certificate in this PKCS#12")
      assert.strictEqual(yield* split("tls.key", file), shop.text("rsa.pkcs1"))
    })
  )

  it.effect("6.6 PKCS#12 in base64 is refused with a hint, and so is one that is cut short", () =>
    Effect.gen(function* () {
      const file = exported("base64.p12", RSA)
      const base64 = yield* refuse("tls.crt", Buffer.from(file).toString("base64"))
      assert.match(base64.detail, /^pkcs12: error reading P12 data: /u)
      assert.match(base64.remedy, /base64/u)
      for (const length of [1, 2, 10, 100, 1000, file.length - 1]) {
        const failed = yield* refuse("tls.key", file.slice(0, length))
        assert.match(failed.detail, /^pkcs12: /u)
      }
    })
  )

  it.effect("a file beyond the size of any PKCS#12 is not taken apart", () =>
    Effect.gen(function* () {
      const failed = yield* refuse("tls.key", new Uint8Array(4 * 1024 * 1024))
      assert.match(failed.detail, /4194304 bytes are more than the 131072 of the largest PKCS#12/u)
    })
  )

  it("four megabytes of beginnings are read in one go", () => {
    const file = bytes("-----BEGIN X-----\n".repeat(230_000))
    assert.deepStrictEqual(Pem.decode(file).blocks, [])
  })

  // ---- 13.1

  it.effect.each([
    { row: "TestGetCert: pfx", key: "tls.crt", file: "13.p12", labels: ["CERTIFICATE"], headers: ["localKeyId"] },
    { row: "TestGetCert: pem", key: "tls.crt", file: "both.pem", labels: ["CERTIFICATE"], headers: [] },
    {
      row: "TestGetCert: the key of a pem",
      key: "tls.key",
      file: "both.pem",
      labels: ["RSA PRIVATE KEY"],
      headers: []
    },
    { row: "TestGetPrivateKey: pfx, RSA", key: "tls.key", file: "13.p12", labels: ["RSA PRIVATE KEY"], headers: [] },
    { row: "TestGetPrivateKey: PKCS#8 RSA", key: "tls.key", file: "rsa.pem", labels: ["RSA PRIVATE KEY"], headers: [] },
    { row: "TestGetPrivateKey: PKCS#8 EC", key: "tls.key", file: "ec.pem", labels: ["EC PRIVATE KEY"], headers: [] },
    {
      row: "TestGetPrivateKey: PKCS#1 RSA",
      key: "tls.key",
      file: "rsa.pkcs1",
      labels: ["RSA PRIVATE KEY"],
      headers: []
    }
  ])("13.1 $row", ({ key, file, labels, headers }) =>
    Effect.gen(function* () {
      exported("13.p12", "-in rsa.crt -inkey rsa.pem -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1")
      shop.write("both.pem", shop.text("rsa.pem") + shop.text("rsa.crt"))
      const text = yield* split(key, shop.read(file))
      assert.deepStrictEqual(labelsOf(text), labels)
      assert.deepStrictEqual(
        blocksOf(text)[0]!.headers.map(([name]) => name),
        headers
      )
    })
  )

  // ---- nothing of a key is told

  const failures: Array<ContentInvalid> = []
  const Place = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))
  const Kind = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 }))
  const SOURCES = [
    "rsa.pem",
    "rsa.pkcs1",
    "ec.sec1",
    "genkey.pem",
    "ed25519.pem",
    "dsa.old",
    "rsa.encrypted",
    "leak.p12"
  ]

  /** What a key looks like in bytes, hex and base64. */
  const looksOf = (der: Uint8Array): ReadonlyArray<string> => {
    const buffer = Buffer.from(der)
    return [buffer.toString("latin1"), buffer.toString("hex"), buffer.toString("base64")]
  }

  const damage = (file: Uint8Array, kind: number, place: number): Uint8Array => {
    const at = place % file.length
    const copy = Buffer.from(file)
    if (kind === 0) return copy.subarray(0, at)
    if (kind === 1) return copy.subarray(at)
    if (kind === 2) return Buffer.concat([copy.subarray(0, at), copy.subarray(at + 1)])
    if (kind === 3) copy[at] = (copy[at]! + 1 + (place % 255)) & 0xff
    if (kind === 4) copy.copyWithin(at, 0)
    // The key itself in place of a label.
    if (kind === 5)
      return bytes(
        copy.toString("latin1").replaceAll(/(?<=BEGIN|END) [A-Z ]+/gu, ` ${copy.toString("base64", 40, 80)}`)
      )
    return copy
  }

  it.effect.prop(
    "no failure has eight bytes of a key in it, however a file is damaged",
    [Kind, Place, Place],
    ([kind, place, source]) =>
      Effect.gen(function* () {
        const name = SOURCES[source % SOURCES.length]!
        const file = shop.read(name)
        const material = [
          ...Pem.decode(file).blocks.flatMap(({ der }) => looksOf(der)),
          ...["rsa.pkcs1", "rsa.pem"].flatMap((key) => looksOf(Pem.decode(shop.read(key)).blocks[0]!.der)),
          ...looksOf(file)
        ].map((look) => look.replaceAll("\n", ""))
        for (const key of ["tls.key", "tls.crt", "ca.crt"]) {
          const result = yield* Effect.result(split(key, damage(file, kind, place)))
          if (result._tag === "Success") continue
          failures.push(result.failure)
          const said = [
            result.failure.message,
            result.failure.remedy,
            JSON.stringify(result.failure),
            String(result.failure)
          ]
          for (const words of said) {
            // Labels that everybody knows are part of a PEM file, and of messages.
            const strange = words.replaceAll(
              /[A-Z0-9]+ PRIVATE KEY|PRIVATE KEY|PUBLIC KEY|PARAMETERS|CERTIFICATE/gu,
              "\0"
            )
            for (let at = 0; at + 8 <= strange.length; at++) {
              const window = strange.slice(at, at + 8)
              assert.isFalse(
                material.some((look) => look.includes(window)),
                `${name} ${kind} ${place}: ${words}`
              )
            }
          }
        }
      }),
    { arbitrary: { runs: 200 } }
  )

  it("the property above has seen failures", () => assert.isAbove(failures.length, 100))
})
