/**
 * From the mounted files of a volume and one entry of `secretObjects` to the Secret that it asks for.
 *
 * The files are of one generation, and already read. The same input always gives the same Secret or the same failure, so
 * what is here can be compared with what the API server has. A Secret is complete or there is none: the first key that
 * cannot be built is the failure, in the order of `data`.
 *
 * @source driver v1.6.0, pkg/util/secretutil/secret.go; reference/driver.md 6.3 #10, 6.5, Q16
 */
import { Effect, Redacted, Result } from "effect"
import type { ContentInvalid } from "../../schemas/errors/ContentInvalid.ts"
import {
  SecretKeyNotBuilt,
  type SecretNotSynced,
  SecretObjectInvalid,
  SecretTooLarge
} from "../../schemas/errors/SecretNotSynced.ts"
import type { SecretProviderClassSpec } from "../../schemas/SecretProviderClass.ts"
import type { FileFormats } from "../ports/FileFormats.ts"
import * as SecretMapping from "./SecretMapping.ts"
import * as TlsData from "./TlsData.ts"

export type SecretObject = NonNullable<SecretProviderClassSpec["secretObjects"]>[number]

/** What is mounted, in one generation. */
export interface Volume {
  /** Where, for messages. */
  readonly targetPath: string
  /** By path relative to the volume. */
  readonly files: ReadonlyMap<string, Redacted.Redacted<Uint8Array>>
}

/** A Secret without its namespace and owners. */
export interface SecretData {
  readonly name: string
  readonly type: string
  /** Those of the entry, and the one that says that the driver manages it. */
  readonly labels: Readonly<Record<string, string>>
  readonly annotations: Readonly<Record<string, string>>
  /** Not in base64. */
  readonly data: ReadonlyMap<string, Redacted.Redacted<Uint8Array>>
}

export const MANAGED_LABEL = "secrets-store.csi.k8s.io/managed"

/** What the API server takes, in bytes of all values together; keys do not count. */
export const SECRET_BYTES_MAX = 1024 * 1024

const DEFAULT_TYPE = "Opaque"
const LARGEST_SHOWN = 3

const SECRET_OBJECTS = "correct this entry of secretObjects in the SecretProviderClass"

interface Value {
  readonly objectName: string
  readonly data: Redacted.Redacted<Uint8Array>
}

interface Header {
  readonly name: string
  readonly type: string
}

/**
 * Checks an entry of `secretObjects` for what no mounted file can make good.
 *
 * @shape  (secretObject, mapping) -> { name, type }, both trimmed
 * @errors SecretObjectInvalid, in upstream's words and order; a name of blanks counts as none
 * @source driver v1.6.0, pkg/util/secretutil/secret.go, ValidateSecretObject, GetSecretType; reference/driver.md 6.5
 */
export const validate = (
  { data = [], secretName = "", type = "" }: SecretObject,
  mapping: SecretMapping.SecretMapping = SecretMapping.UPSTREAM
): Result.Result<Header, SecretObjectInvalid> => {
  const name = secretName.trim()
  const invalid = (detail: string, advice: string) =>
    Result.fail(new SecretObjectInvalid({ secretName: name, detail, advice }))
  if (name === "") return invalid("secret name is empty", "give every entry a secretName")
  if (type === "") return invalid("secret type is empty", "give the entry a type: Opaque, if nothing else fits")
  const header = { name, type: type.trim() === "" ? DEFAULT_TYPE : type.trim() }
  if (data.length === 0 && !SecretMapping.takesAllFiles(mapping, name, header.type)) {
    return invalid("data is empty", "name in its data which file becomes which key")
  }
  return Result.succeed(header)
}

/** The bytes that an objectName asks for, before they are taken for a certificate or key. */
const contentOf = Effect.fnUntraced(function* (
  volume: Volume,
  objectName: string,
  mapping: SecretMapping.SecretMapping
) {
  const file = volume.files.get(objectName)
  if (file !== undefined) return { path: objectName, content: file }
  const picked = mapping.jsonPaths ? SecretMapping.splitObjectName(objectName) : undefined
  const document = picked === undefined ? undefined : volume.files.get(picked.path)
  if (picked === undefined || document === undefined) return undefined
  return { path: picked.path, content: yield* SecretMapping.pick(picked.path, document, picked.pointer) }
})

/** @units sizes count the bytes of the values, as the API server does */
const complete = (
  { annotations = {}, labels = {} }: SecretObject,
  { name, type }: Header,
  values: ReadonlyMap<string, Value>
): Result.Result<SecretData, SecretNotSynced> => {
  for (const [key, { objectName }] of values) {
    const why = SecretMapping.refuseKey(key)
    if (why === undefined) continue
    const detail = `key ${JSON.stringify(key)} in secretObjects.data is not valid: ${why}`
    return Result.fail(new SecretKeyNotBuilt({ secretName: name, key, objectName, detail, advice: SECRET_OBJECTS }))
  }
  const sizes = [...values].map(([key, { data, objectName }]) => ({
    key,
    objectName,
    sizeBytes: Redacted.value(data).byteLength
  }))
  const sizeBytes = sizes.reduce((sum, size) => sum + size.sizeBytes, 0)
  if (sizeBytes > SECRET_BYTES_MAX) {
    const largest = sizes.sort((a, b) => b.sizeBytes - a.sizeBytes).slice(0, LARGEST_SHOWN)
    return Result.fail(new SecretTooLarge({ secretName: name, sizeBytes, limitBytes: SECRET_BYTES_MAX, largest }))
  }
  return Result.succeed({
    name,
    type,
    labels: { ...labels, [MANAGED_LABEL]: "true" },
    annotations: { ...annotations },
    data: new Map([...values].map(([key, { data }]) => [key, data] as const))
  })
}

/**
 * The Secret that one entry of `secretObjects` asks for.
 *
 * Content is taken as it is. Only for the type kubernetes.io/tls it is split into certificates and private key, which
 * then have to belong together. Names and keys are trimmed; of entries with one key the last is taken, but all are
 * checked. Keys and size are checked as the API server would, which upstream leaves to it.
 *
 * @shape  (secretObject, volume, mapping) -> SecretData
 * @errors SecretNotSynced: with upstream's texts, the Secret, key and file at fault, and never with content
 * @source driver v1.6.0, pkg/util/secretutil/secret.go, GetSecretData; reference/driver.md 6.5, 6.6, Q8, Q16
 */
export const build = Effect.fn("SecretData.build")(function* (
  secretObject: SecretObject,
  volume: Volume,
  mapping: SecretMapping.SecretMapping = SecretMapping.UPSTREAM
): Effect.fn.Return<SecretData, SecretNotSynced, FileFormats> {
  const header = yield* Effect.fromResult(validate(secretObject, mapping))
  const values = new Map<string, Value>()
  const parts = new Map<
    string,
    { readonly path: string; readonly objectName: string; readonly part: TlsData.TlsPart }
  >()
  const fails = (key: string, objectName: string) => (detail: string, advice: string) =>
    new SecretKeyNotBuilt({ secretName: header.name, key, objectName, detail, advice })

  if (SecretMapping.takesAllFiles(mapping, header.name, header.type)) {
    const keys = SecretMapping.keysOf(volume.files.keys())
    if (Result.isFailure(keys)) {
      const { key, path, why } = keys.failure
      return yield* fails(key, path)(
        `file ${path} cannot become a key, err: ${why}`,
        `rename the file, or take the Secret out of ${SecretMapping.ALL_FILES_KEY}`
      )
    }
    for (const [key, objectName] of keys.success) {
      const data = volume.files.get(objectName)
      if (data !== undefined) values.set(key, { objectName, data })
    }
  }

  for (const entry of secretObject.data ?? []) {
    const objectName = (entry.objectName ?? "").trim()
    const key = (entry.key ?? "").trim()
    const failed = fails(key, objectName)
    // Upstream's words, without a verb (Q16).
    if (objectName === "") return yield* failed("object name in secretObjects.data", "give the entry an objectName")
    if (key === "") return yield* failed("key in secretObjects.data is empty", "give the entry a key")
    const found = yield* contentOf(volume, objectName, mapping).pipe(
      Effect.mapError(({ detail, remedy }) => failed(detail, remedy))
    )
    if (found === undefined) {
      return yield* failed(
        `file matching objectName ${objectName} not found in the pod`,
        "set objectName to the path of a mounted file, relative to the volume, or let the provider mount it"
      )
    }
    if (header.type !== TlsData.TLS_TYPE) {
      values.set(key, { objectName, data: found.content })
      continue
    }
    const part = yield* TlsData.extract(key, found.content).pipe(
      Effect.mapError((invalid) => failed(inFile(volume, found.path, invalid), invalid.remedy))
    )
    parts.set(key, { path: found.path, objectName, part })
    values.set(key, { objectName, data: part.data })
  }

  const certificates = parts.get("tls.crt")
  const privateKey = parts.get("tls.key")
  if (certificates !== undefined && privateKey !== undefined) {
    yield* TlsData.checkPair(certificates.part, privateKey.part).pipe(
      Effect.mapError((invalid) =>
        fails("tls.key", privateKey.objectName)(
          certificates.path === privateKey.path
            ? inFile(volume, privateKey.path, invalid)
            : `${inFile(volume, privateKey.path, invalid)} (the certificate is in ${volume.targetPath}/${certificates.path})`,
          invalid.remedy
        )
      )
    )
  }
  if (values.size === 0) {
    return yield* new SecretObjectInvalid({
      secretName: header.name,
      detail: "data is empty",
      advice: "no file is mounted that could become a key"
    })
  }
  return yield* Effect.fromResult(complete(secretObject, header, values))
})

const inFile = (volume: Volume, path: string, invalid: ContentInvalid): string =>
  `failed to get cert data from file ${volume.targetPath}/${path}, err: ${invalid.detail}`
