/**
 * Certificates and private keys by node:crypto; PKCS#12 and YAML by libraries that are loaded when the first such file is
 * met, since most drivers never meet one.
 *
 * Words of OpenSSL and of the libraries stay here: they can quote what they read.
 */
import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from "node:crypto"
import { Effect, Layer, Redacted, Result } from "effect"
import { ContentInvalid } from "../../schemas/errors/ContentInvalid.ts"
import { FileFormats } from "../../src/ports/FileFormats.ts"

const attempt = <A>(use: () => A): A | undefined => Result.getOrUndefined(Result.try(use))

const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

/** Encodings of DER without a name for what is in it. */
const ENCODINGS = ["pkcs8", "pkcs1", "sec1"] as const

const readKey = (der: Buffer, label: string): KeyObject | undefined => {
  for (const type of ENCODINGS) {
    const key = attempt(() => createPrivateKey({ key: der, format: "der", type }))
    if (key !== undefined) return key
  }
  // Older encodings, such as DSA's own, are known by their label alone.
  const lines = [`-----BEGIN ${label}-----`, der.toString("base64"), `-----END ${label}-----`, ""]
  return /^[A-Z ]+$/u.test(label) ? attempt(() => createPrivateKey(lines.join("\n"))) : undefined
}

const toPem = (key: KeyObject): string | Buffer => {
  if (key.asymmetricKeyType === "rsa") return key.export({ type: "pkcs1", format: "pem" })
  if (key.asymmetricKeyType === "ec") return key.export({ type: "sec1", format: "pem" })
  return key.export({ type: "pkcs8", format: "pem" })
}

/** An encrypted key whose label does not say so. */
const isEncrypted = (der: Buffer): boolean => {
  try {
    createPrivateKey({ key: der, format: "der", type: "pkcs8" })
    return false
  } catch (cause) {
    return cause instanceof Error && "code" in cause && cause.code === "ERR_MISSING_PASSPHRASE"
  }
}

/** What is there instead of a private key. */
const explain = (der: Buffer, label: string): ContentInvalid => {
  const isPublic =
    attempt(() => createPublicKey({ key: der, format: "der", type: "spki" })) !== undefined ||
    attempt(() => createPublicKey({ key: der, format: "der", type: "pkcs1" })) !== undefined
  if (isPublic) {
    return new ContentInvalid({ detail: "it holds a public key", remedy: "store the private key that belongs to it" })
  }
  if (attempt(() => new X509Certificate(der)) !== undefined) {
    return new ContentInvalid({
      detail: "it holds a certificate where the private key has to be",
      remedy: "store the private key that belongs to it"
    })
  }
  return new ContentInvalid(
    isEncrypted(der)
      ? {
          detail: "the private key is encrypted",
          remedy: "store it without a passphrase, for example with: openssl pkey -in key.pem -out plain.pem"
        }
      : {
          detail: `the private key cannot be read: ${label === "PRIVATE KEY" ? "it" : "the block"} is damaged, or of a kind that OpenSSL does not know`,
          remedy:
            "store a private key as PKCS#8, PKCS#1 or SEC 1 in PEM; check it with: openssl pkey -in key.pem -noout"
        }
  )
}

/** Reading takes up to a thousand times as much memory, all at once: 15 MiB for brackets that are never closed. */
const YAML_BYTES_MAX = 16 * 1024

const invalidYaml = (why: string) =>
  new ContentInvalid({ detail: `it is neither valid JSON nor valid YAML: ${why}`, remedy: "store a valid document" })

const readYaml = async (text: string): Promise<unknown> => {
  const { isScalar, parseDocument, visit } = await import("yaml")
  const lineOf = (offset: number) => text.slice(0, offset).split("\n").length
  // It compares every key with every other one; a set does so at once.
  const document = parseDocument(text, { prettyErrors: false, logLevel: "error", uniqueKeys: false })
  let twice: number | undefined
  visit(document, {
    Map: (_, { items }) => {
      const seen = new Set<unknown>()
      for (const { key } of items) {
        if (isScalar(key) && seen.size === seen.add(key.source ?? key.value).size) twice ??= key.range?.[0] ?? 0
      }
    },
    Scalar: (_, node) => {
      if (typeof node.value === "number" || typeof node.value === "bigint") {
        node.value = node.source ?? String(node.value)
      }
    }
  })
  const [error] = document.errors
  if (error !== undefined) return invalidYaml(`${error.code} in line ${lineOf(error.pos[0])}`)
  if (twice !== undefined) return invalidYaml(`DUPLICATE_KEY in line ${lineOf(twice)}`)
  return document.toJS()
}

const notYaml = new ContentInvalid({
  detail: "it is neither valid JSON nor valid YAML",
  remedy: "store a valid document, with few aliases"
})

/**
 * @shape  FileFormats
 * @errors ContentInvalid, in our own words
 * @source reference/driver.md 6.6
 */
export const layer: Layer.Layer<FileFormats> = Layer.succeed(
  FileFormats,
  FileFormats.of({
    certificate: (der) =>
      Effect.suspend(() => {
        const certificate = attempt(() => new X509Certificate(der))
        return certificate === undefined
          ? Effect.fail(
              new ContentInvalid({
                detail: "it is not an X.509 certificate, or it is damaged",
                remedy: "store it again; check it with: openssl x509 -in cert.pem -noout"
              })
            )
          : Effect.succeed({ isCa: certificate.ca, isSelfIssued: certificate.issuer === certificate.subject })
      }),

    privateKey: (der, label) =>
      Effect.suspend(() => {
        const bytes = toBuffer(Redacted.value(der))
        const key = readKey(bytes, label)
        const pem = key === undefined ? undefined : attempt(() => toPem(key))
        return pem === undefined ? Effect.fail(explain(bytes, label)) : Effect.succeed(Redacted.make(pem.toString()))
      }),

    belongsTo: (certificate, privateKey) =>
      Effect.sync(
        () =>
          attempt(() =>
            new X509Certificate(certificate).checkPrivateKey(createPrivateKey(Redacted.value(privateKey)))
          ) ?? false
      ),

    pkcs12: (file) =>
      Effect.flatMap(
        Effect.promise(() => import("./Pkcs12.ts")),
        ({ open }) => Effect.fromResult(open(Redacted.value(file)))
      ),

    yaml: (text) =>
      Redacted.value(text).length > YAML_BYTES_MAX
        ? Effect.fail(
            new ContentInvalid({
              detail: `it is not valid JSON, and more than the ${YAML_BYTES_MAX} bytes that are read as YAML`,
              remedy: "store the document as JSON, or the value as a file of its own"
            })
          )
        : Effect.tryPromise({ try: () => readYaml(Redacted.value(text)), catch: () => notYaml }).pipe(
            Effect.flatMap((value) =>
              value instanceof ContentInvalid ? Effect.fail(value) : Effect.succeed(Redacted.make(value))
            )
          )
  })
)
