/**
 * PKCS#12 with the empty password, by node-forge, which reads the old algorithms (3DES, 40-bit RC2, SHA-1) as well as
 * today's (AES, PBKDF2, SHA-2). Only to be imported when such a file is met: it takes 20 ms and 1.5 MiB.
 *
 * Two things are not left to it. Keys are derived with node:crypto, in 5 to 15 ms of the only thread rather than 160 to
 * 350. And there are limits: a file says itself how many rounds that takes, and a small one can describe a great many
 * objects.
 *
 * @source RFC 7292; Go, x/crypto/pkcs12 (error texts); reference/driver.md 6.6
 */
import { hash, pbkdf2Sync } from "node:crypto"
import { Redacted, Result } from "effect"
import forge from "node-forge"
import { ContentInvalid } from "../../schemas/errors/ContentInvalid.ts"
import type { Certificate, Pkcs12 } from "../../src/ports/FileFormats.ts"

/** Hundreds of certificates. Objects in memory take a hundred times the space of the file. */
const FILE_BYTES_MAX = 128 * 1024

/** Rounds of hashing for one file; about a second. Files in use have 2,048 to 10,000 for each of three to six keys. */
const ROUNDS_MAX = 1_000_000

const MICROSOFT_CSP_NAME = "1.3.6.1.4.1.311.17.1"

class TooManyRounds extends Error {}

// ---- keys out of passwords

interface Digest {
  readonly algorithm: string
  readonly blockLength: number
}

let rounds = 0

const spend = (iterations: number): void => {
  if (!(iterations >= 1)) throw new Error("a number of rounds below one")
  rounds += iterations
  if (rounds > ROUNDS_MAX) throw new TooManyRounds()
}

/** Repeats `text` up to a multiple of `size` bytes. */
const fill = (text: Buffer, size: number): Buffer =>
  Buffer.alloc(text.length === 0 ? 0 : size * Math.ceil(text.length / size), text)

/** RFC 7292, B.2. Without a password, unlike with an empty one, there is not even a terminating zero. */
const deriveKey = (
  password: string | null | undefined,
  salt: forge.util.ByteBuffer,
  purpose: number,
  iterations: number,
  length: number,
  digest: Digest
): forge.util.ByteBuffer => {
  const size = digest.blockLength
  const secret = password === null || password === undefined ? "" : `${password}\0`
  const state = Buffer.concat([
    fill(Buffer.from(salt.bytes(), "latin1"), size),
    fill(Buffer.from(secret, "utf16le").swap16(), size)
  ])
  const diversifier = Buffer.alloc(size, purpose)
  let derived = Buffer.alloc(0)
  while (derived.length < length) {
    spend(iterations)
    let block = hash(digest.algorithm, Buffer.concat([diversifier, state]), "buffer")
    for (let round = 1; round < iterations; round++) block = hash(digest.algorithm, block, "buffer")
    derived = Buffer.concat([derived, block])
    const addend = Buffer.alloc(size, block)
    for (let start = 0; start < state.length; start += size) {
      let carry = 1
      for (let at = size - 1; at >= 0; at--) {
        carry += (state[start + at] ?? 0) + (addend[at] ?? 0)
        state[start + at] = carry & 0xff
        carry >>= 8
      }
    }
  }
  return forge.util.createBuffer(derived.subarray(0, length).toString("latin1"))
}

const pbkdf2 = (
  password: string | null | undefined,
  salt: string,
  iterations: number,
  length: number,
  digest: Digest
): string => {
  spend(iterations)
  return pbkdf2Sync(password ?? "", Buffer.from(salt, "latin1"), iterations, length, digest.algorithm).toString(
    "latin1"
  )
}

const pbe: unknown = Reflect.get(forge.pki, "pbe")
if (typeof pbe !== "object" || pbe === null) throw new Error("node-forge derives keys where this module does not look")

/** It reads RSA only, and would write a key or certificate again as it understands it. What it cannot read it leaves. */
const leave = () => {
  throw new Error("left as it is")
}

const REPLACED: ReadonlyArray<readonly [holder: object, name: string, ours: unknown]> = [
  [pbe, "generatePkcs12Key", deriveKey],
  [forge.pkcs12, "generateKey", deriveKey],
  [forge.pkcs5, "pbkdf2", pbkdf2],
  [forge.pki, "privateKeyFromAsn1", leave],
  [forge.pki, "certificateFromAsn1", leave]
]

/** For one call, which waits for nothing, so that nobody else meets what is replaced. */
const withOurs = <A>(use: () => A): A => {
  const theirs = REPLACED.map(([holder, name]): unknown => Reflect.get(holder, name))
  for (const [holder, name, ours] of REPLACED) Reflect.set(holder, name, ours)
  try {
    return use()
  } finally {
    for (const [index, [holder, name]] of REPLACED.entries()) Reflect.set(holder, name, theirs[index])
  }
}

// Attributes whose names it does not know are left out.
Reflect.set(forge.pki.oids, MICROSOFT_CSP_NAME, "microsoftCspName")

// ---- what is in a file

/** As upstream names and writes them. */
const HEADERS: ReadonlyArray<readonly [attribute: string, header: string, toText: (value: string) => string]> = [
  ["friendlyName", "friendlyName", (value) => oneLine(value)],
  ["localKeyId", "localKeyId", (value) => Buffer.from(value, "latin1").toString("hex")],
  ["microsoftCspName", "Microsoft CSP Name", (value) => oneLine(value)]
]

/** UTF-8, one character per byte, and no line of its own in what becomes a PEM file. */
const oneLine = (value: string): string =>
  Buffer.from(value.replaceAll(/\p{Cc}+/gu, " ").trim(), "utf8").toString("latin1")

const headersOf = (attributes: unknown): Certificate["headers"] =>
  HEADERS.flatMap(([attribute, header, toText]) => {
    const values: unknown =
      typeof attributes === "object" && attributes !== null ? Reflect.get(attributes, attribute) : undefined
    const value: unknown = Array.isArray(values) ? values[0] : undefined
    return typeof value === "string" ? [[header, toText(value)] as const] : []
  })

const toDer = (object: forge.asn1.Asn1): Uint8Array =>
  new Uint8Array(Buffer.from(forge.asn1.toDer(object).getBytes(), "latin1"))

const contentOf = (pfx: forge.pkcs12.Pkcs12Pfx): Pkcs12 => {
  const certificates: Array<Certificate> = []
  let privateKey: Redacted.Redacted<Uint8Array> | undefined
  for (const bag of pfx.safeContents.flatMap(({ safeBags }) => safeBags)) {
    if (bag.type === forge.pki.oids["certBag"]) {
      certificates.push({ der: toDer(bag.asn1), headers: headersOf(bag.attributes) })
    } else {
      privateKey = Redacted.make(toDer(bag.asn1))
    }
  }
  return privateKey === undefined ? { certificates } : { certificates, privateKey }
}

// ---- what is wrong with it

const EXPORT = "export it again with an empty password, for example with: openssl pkcs12 -export -passout pass:"

const oidOf = (cause: Error): string => {
  const oid: unknown = Reflect.get(cause, "oid") ?? /MAC algorithm: (\S+)$/u.exec(cause.message)?.[1]
  return typeof oid === "string" && /^\d+(?:\.\d+){2,12}$/u.test(oid) && oid.length <= 64 ? oid : "unknown"
}

const REASONS: ReadonlyArray<readonly [message: RegExp, detail: (cause: Error) => string]> = [
  [/MAC could not be verified|wrong password|Failed to decrypt/u, () => "pkcs12: decryption password incorrect"],
  [/unsupported MAC algorithm/u, (cause) => `pkcs12: unknown digest algorithm: ${oidOf(cause)}`],
  [/version other than 3/u, () => "pkcs12: can only decode v3 PFX PDU's"],
  [/password integrity mode/u, () => "pkcs12: only password-protected PFX is implemented"],
  [/SafeBag type|certificate type/u, () => "pkcs12: only bags of keys and X.509 certificates are supported"],
  [/Unsupported/u, (cause) => `pkcs12: algorithm ${oidOf(cause)} is not supported`]
]

const explain = (cause: unknown, file: Buffer): ContentInvalid => {
  if (cause instanceof TooManyRounds) {
    return new ContentInvalid({
      detail: `pkcs12: its keys take more than the ${ROUNDS_MAX} rounds of hashing that are done for one file`,
      remedy: `${EXPORT} -iter 2048`
    })
  }
  const reason = cause instanceof Error ? REASONS.find(([message]) => message.test(cause.message)) : undefined
  if (reason !== undefined && cause instanceof Error) {
    return new ContentInvalid({ detail: reason[1](cause), remedy: EXPORT })
  }
  // How every PKCS#12 begins, in base64.
  const isBase64 = /^MI[A-Za-z0-9+/]/u.test(file.toString("latin1", 0, 3))
  return new ContentInvalid({
    detail: "pkcs12: error reading P12 data: the file is neither PEM nor PKCS#12, or it is damaged",
    remedy: isBase64
      ? "it looks like base64: let the provider decode it"
      : "store certificates and keys as PEM, or as PKCS#12 with an empty password"
  })
}

const isMacWrong = (cause: unknown): boolean =>
  cause instanceof Error && /MAC could not be verified/u.test(cause.message)

const decode = (pfx: forge.asn1.Asn1): forge.pkcs12.Pkcs12Pfx => {
  try {
    return forge.pkcs12.pkcs12FromAsn1(pfx, false, "")
  } catch (cause) {
    if (!isMacWrong(cause)) throw cause
    return forge.pkcs12.pkcs12FromAsn1(pfx, false)
  }
}

/**
 * What a PKCS#12 file holds.
 *
 * @shape  (file) -> Pkcs12
 * @units  at most 128 KiB and a million rounds of hashing
 * @errors ContentInvalid, with upstream's texts where it has one
 * @source Go, x/crypto/pkcs12, ToPEM
 */
export const open = (file: Uint8Array): Result.Result<Pkcs12, ContentInvalid> => {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength)
  if (bytes.length > FILE_BYTES_MAX) {
    return Result.fail(
      new ContentInvalid({
        detail: `pkcs12: error reading P12 data: the file is no PEM, and its ${bytes.length} bytes are more than the ${FILE_BYTES_MAX} of the largest PKCS#12 that is read`,
        remedy: "store the certificates as PEM, or fewer of them"
      })
    )
  }
  rounds = 0
  const content = Result.try({
    try: () => {
      const pfx = forge.asn1.fromDer(bytes.toString("latin1"), false)
      if (!Array.isArray(pfx.value)) throw new Error("not a sequence")
      // Nothing of it is believed without.
      if (pfx.value.length === 2) {
        throw new ContentInvalid({ detail: "pkcs12: no MAC in data", remedy: EXPORT })
      }
      return contentOf(withOurs(() => decode(pfx)))
    },
    catch: (cause) => (cause instanceof ContentInvalid ? cause : explain(cause, bytes))
  })
  // Its MAC was compared, and takes a key.
  if (Result.isSuccess(content) && rounds === 0) throw new Error("node-forge does not derive its keys by this module")
  return content
}
