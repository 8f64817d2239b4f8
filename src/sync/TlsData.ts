/**
 * The parts of a `kubernetes.io/tls` Secret, out of PEM or PKCS#12: the certificate and its chain, the private key, and
 * the certificates of the authority.
 *
 * No part is ever empty: what cannot be given is a failure that says what the file holds instead (Q8).
 *
 * - `tls.crt`: every certificate of the file, in its order, with the headers of its blocks. Of a PKCS#12 whose key is for
 *   a later certificate, that one comes first: the order of bags means nothing, and servers take the first.
 * - `tls.key`: the last block of the file that can be a private key. Certificates, parameters, public keys and lists of
 *   revoked certificates are passed over, wherever they are. RSA becomes PKCS#1, EC becomes SEC 1, and every other kind
 *   that OpenSSL knows (Ed25519, X25519, DSA, ...) becomes PKCS#8; upstream refuses those or writes an empty block.
 * - `ca.crt` (Q35; upstream refuses it): every certificate of the file but the leaf, in its order. The leaf is the first
 *   certificate that is no CA and was not issued by itself, so a file of authorities alone is taken whole, and a
 *   self-signed certificate is its own authority. A file without any is a failure.
 *
 * @source driver v1.6.0, pkg/util/secretutil/secret.go; reference/driver.md 6.6, Q8, Q35
 */
import { Effect, Redacted } from "effect"
import { ContentInvalid } from "../../schemas/errors/ContentInvalid.ts"
import { type Certificate, FileFormats, type Pkcs12 } from "../ports/FileFormats.ts"
import * as Pem from "./Pem.ts"

export const TLS_TYPE = "kubernetes.io/tls"

/** One part, ready for the Secret, and what has to be known to compare it with another one. */
export type TlsPart =
  | { readonly _tag: "Certificates"; readonly data: Redacted.Redacted<Uint8Array>; readonly first: Uint8Array }
  | {
      readonly _tag: "PrivateKey"
      readonly data: Redacted.Redacted<Uint8Array>
      readonly pem: Redacted.Redacted<string>
    }

const CERTIFICATE = "CERTIFICATE"

/** Blocks that hold no private key, whatever else they hold. */
const NOT_A_KEY = /(?:CERTIFICATE|PARAMETERS|PUBLIC KEY|X509 CRL|REQUEST|PKCS7|CMS)$/u

/** What may be said about a file: the label of a block is content, unless it is one of these. */
const KNOWN_LABELS = new Set([
  "CERTIFICATE",
  "TRUSTED CERTIFICATE",
  "CERTIFICATE REQUEST",
  "EC PARAMETERS",
  "DH PARAMETERS",
  "DSA PARAMETERS",
  "PUBLIC KEY",
  "RSA PUBLIC KEY",
  "X509 CRL",
  "PKCS7",
  "CMS",
  "PRIVATE KEY",
  "RSA PRIVATE KEY",
  "EC PRIVATE KEY",
  "DSA PRIVATE KEY",
  "ENCRYPTED PRIVATE KEY",
  "OPENSSH PRIVATE KEY"
])

const namesOf = (blocks: ReadonlyArray<Pem.PemBlock>): string =>
  [...new Set(blocks.map(({ label }) => (KNOWN_LABELS.has(label) ? label : "an unknown kind")))].join(", ")

const isBlank = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0x20 || (byte >= 0x09 && byte <= 0x0d))

const toBytes = (text: string): Redacted.Redacted<Uint8Array> =>
  Redacted.make(new Uint8Array(Buffer.from(text, "latin1")))

const without = (part: string, blocks: ReadonlyArray<Pem.PemBlock>) =>
  new ContentInvalid({
    detail: `there is no ${part} in it, only PEM blocks of ${namesOf(blocks)}`,
    remedy: `name a file that holds the ${part}: PEM, or PKCS#12 with an empty password`
  })

/** PKCS#12 with the certificate of its own key in front, where it holds both. */
const openPkcs12 = Effect.fnUntraced(function* (
  file: Uint8Array
): Effect.fn.Return<Pkcs12, ContentInvalid, FileFormats> {
  const formats = yield* FileFormats
  const pkcs12 = yield* formats.pkcs12(Redacted.make(file))
  const { certificates, privateKey } = pkcs12
  if (privateKey === undefined || certificates.length < 2) return pkcs12
  const pem = yield* Effect.option(formats.privateKey(privateKey, "PRIVATE KEY"))
  // A key that cannot be read is told when it is asked for.
  if (pem._tag === "None") return pkcs12
  for (const [index, certificate] of certificates.entries()) {
    if (yield* formats.belongsTo(certificate.der, pem.value)) {
      return { privateKey, certificates: [certificate, ...certificates.toSpliced(index, 1)] }
    }
  }
  return pkcs12
})

const readCertificates = Effect.fnUntraced(function* (
  file: Uint8Array
): Effect.fn.Return<ReadonlyArray<Certificate>, ContentInvalid, FileFormats> {
  const { blocks, rest } = Pem.decode(file)
  const certificates = blocks.filter(({ label }) => label === CERTIFICATE)
  if (certificates.length > 0) return certificates
  if (blocks.length > 0 && isBlank(rest)) return yield* without("certificate", blocks)
  const pkcs12 = yield* openPkcs12(rest)
  if (pkcs12.certificates.length === 0) {
    return yield* new ContentInvalid({
      detail: "there is no certificate in this PKCS#12",
      remedy: "export the certificate together with the key"
    })
  }
  return pkcs12.certificates
})

/** Each is looked at, so that nothing unreadable is passed on as a certificate. */
const examine = Effect.fnUntraced(function* (certificates: ReadonlyArray<Certificate>) {
  const formats = yield* FileFormats
  return yield* Effect.forEach(certificates, (certificate, index) =>
    Effect.mapBoth(formats.certificate(certificate.der), {
      onSuccess: (facts) => ({ certificate, facts }),
      onFailure: ({ detail, remedy }) =>
        new ContentInvalid({ detail: `certificate ${index + 1} of ${certificates.length}: ${detail}`, remedy })
    })
  )
})

const toPart = (certificates: ReadonlyArray<Certificate>, first: Uint8Array): TlsPart => ({
  _tag: "Certificates",
  data: toBytes(certificates.map(({ der, headers }) => Pem.encode({ label: CERTIFICATE, headers, der })).join("")),
  first
})

const certificatePart = Effect.fnUntraced(function* (file: Uint8Array) {
  const certificates = yield* readCertificates(file)
  yield* examine(certificates)
  return toPart(certificates, certificates[0]?.der ?? new Uint8Array())
})

const authorityPart = Effect.fnUntraced(function* (file: Uint8Array) {
  const examined = yield* examine(yield* readCertificates(file))
  const leaf = examined.findIndex(({ facts }) => !facts.isCa && !facts.isSelfIssued)
  const [first, ...others] = examined.filter((_, index) => index !== leaf).map(({ certificate }) => certificate)
  if (first === undefined) {
    return yield* new ContentInvalid({
      detail: "there is no certificate of an authority in it, only the leaf",
      remedy: "let the provider give the whole chain, or name a file that holds the certificates of the authority"
    })
  }
  return toPart([first, ...others], first.der)
})

const isEncrypted = ({ label, headers }: Pem.PemBlock): boolean =>
  label === "ENCRYPTED PRIVATE KEY" ||
  headers.some(([name, value]) => name === "Proc-Type" && value.endsWith("ENCRYPTED"))

const readPrivateKey = Effect.fnUntraced(function* (
  file: Uint8Array
): Effect.fn.Return<Redacted.Redacted<string>, ContentInvalid, FileFormats> {
  const formats = yield* FileFormats
  const { blocks, rest } = Pem.decode(file)
  const block = blocks.findLast(({ label }) => !NOT_A_KEY.test(label))
  if (block !== undefined) {
    if (isEncrypted(block)) {
      return yield* new ContentInvalid({
        detail: "the private key is encrypted",
        remedy: "store it without a passphrase, for example with: openssl pkey -in key.pem -out plain.pem"
      })
    }
    if (block.label === "OPENSSH PRIVATE KEY") {
      return yield* new ContentInvalid({
        detail: "the private key is in OpenSSH's own format",
        remedy: "convert it, for example with: ssh-keygen -p -m PKCS8 -f key"
      })
    }
    return yield* formats.privateKey(Redacted.make(block.der), block.label)
  }
  if (blocks.length > 0 && isBlank(rest)) return yield* without("private key", blocks)
  const { privateKey } = yield* openPkcs12(rest)
  if (privateKey === undefined) {
    return yield* new ContentInvalid({
      detail: "there is no private key in this PKCS#12",
      remedy: "export the key together with the certificate"
    })
  }
  return yield* formats.privateKey(privateKey, "PRIVATE KEY")
})

const privateKeyPart = Effect.fnUntraced(function* (file: Uint8Array) {
  const pem = yield* readPrivateKey(file)
  return { _tag: "PrivateKey", pem, data: toBytes(Redacted.value(pem)) } satisfies TlsPart
})

/**
 * The part of a file that a key of the Secret asks for.
 *
 * @shape  (key, file) -> the part
 * @errors ContentInvalid: the key is none of a TLS Secret's, or the file does not hold the part
 * @source driver v1.6.0, pkg/util/secretutil/secret.go, getCertPart; reference/driver.md 6.6, Q8, Q35
 */
export const extract = Effect.fn("TlsData.extract")(function* (
  key: string,
  file: Redacted.Redacted<Uint8Array>
): Effect.fn.Return<TlsPart, ContentInvalid, FileFormats> {
  const bytes = Redacted.value(file)
  if (key === "tls.crt") return yield* certificatePart(bytes)
  if (key === "tls.key") return yield* privateKeyPart(bytes)
  if (key === "ca.crt") return yield* authorityPart(bytes)
  return yield* new ContentInvalid({
    // Upstream's words, which people search for.
    detail: `key '${key}' is not supported. Only 'tls.key' and 'tls.crt' are supported`,
    remedy: `use the keys tls.crt, tls.key or ca.crt, or another type than ${TLS_TYPE}`
  })
})

/**
 * Refuses a private key and a certificate that do not belong together.
 *
 * The certificate is the first of its file, since that is the one that servers present.
 *
 * @shape  (certificates, private key) -> nothing
 * @errors ContentInvalid: the key is of another certificate
 */
export const checkPair = Effect.fnUntraced(function* (
  certificates: TlsPart,
  privateKey: TlsPart
): Effect.fn.Return<void, ContentInvalid, FileFormats> {
  if (certificates._tag !== "Certificates" || privateKey._tag !== "PrivateKey") return
  const formats = yield* FileFormats
  if (yield* formats.belongsTo(certificates.first, privateKey.pem)) return
  const others = Pem.decode(Redacted.value(certificates.data)).blocks
  for (const [index, { der }] of others.entries()) {
    if (!(yield* formats.belongsTo(der, privateKey.pem))) continue
    return yield* new ContentInvalid({
      detail: `the private key belongs to certificate ${index + 1} of ${others.length}, and not to the first`,
      remedy: "put the certificate of the key in front of its chain"
    })
  }
  return yield* new ContentInvalid({
    detail: "the private key and the certificate do not belong together",
    remedy: "let the provider give the key and the certificate of one issue, or correct the objectNames"
  })
})
