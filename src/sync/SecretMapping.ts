/**
 * More ways from files to keys of a Secret than upstream has. A class asks for them by annotation; without one nothing
 * here has an effect.
 *
 * `secrets-store.csi.k8s.io/sync-all-files` gives Secrets a key for every mounted file, besides the keys that their
 * `data` names. Its value is "true" for every Secret of the class (but those of type kubernetes.io/tls, whose keys have
 * a meaning), or a list of their names, separated by commas. Files are taken as they are. A `/` in a path becomes a `.`
 * in the key: the file `db/password` is the key `db.password`. A key that `data` names as well has the value that `data`
 * says.
 *
 * `secrets-store.csi.k8s.io/sync-json-paths: "true"` lets an `objectName` pick one value out of a JSON or YAML file:
 * `db.json#/users/0/password` is a mounted file, a `#`, and a JSON pointer (RFC 6901: `~1` stands for `/`, `~0` for `~`;
 * nothing is percent-encoded). A mounted file that has this very name is taken before. Texts, numbers and booleans become
 * values, numbers as they are spelled; objects, arrays and null are refused. A file that is no JSON is read as YAML 1.2,
 * unless its name ends in `.json`. JSON is read up to 256 KiB, YAML up to 16 KiB.
 *
 * @source our own, beyond upstream; RFC 6901
 */
import { Effect, Redacted, Result } from "effect"
import { ContentInvalid } from "../../schemas/errors/ContentInvalid.ts"
import { SecretMappingInvalid } from "../../schemas/errors/SecretNotSynced.ts"
import { FileFormats } from "../ports/FileFormats.ts"
import { TLS_TYPE } from "./TlsData.ts"

export const ALL_FILES_KEY = "secrets-store.csi.k8s.io/sync-all-files"
export const JSON_PATHS_KEY = "secrets-store.csi.k8s.io/sync-json-paths"

/** What a class asks for besides `secretObjects`. */
export interface SecretMapping {
  readonly allFiles: { readonly _tag: "None" | "All" } | { readonly _tag: "Named"; readonly names: ReadonlySet<string> }
  readonly jsonPaths: boolean
}

export const UPSTREAM: SecretMapping = { allFiles: { _tag: "None" }, jsonPaths: false }

/** As the API server has it. */
const KEY_CHARACTERS = /^[-._a-zA-Z0-9]+$/u
const KEY_BYTES_MAX = 253

/** Reading takes up to twenty times as much memory, all at once. */
const DOCUMENT_BYTES_MAX = 256 * 1024

/**
 * The mapping that the annotations of a class ask for.
 *
 * @shape  (annotations) -> SecretMapping
 * @errors SecretMappingInvalid: a value that is not understood
 */
export const read = (
  annotations: Readonly<Record<string, string>> | undefined
): Result.Result<SecretMapping, SecretMappingInvalid> => {
  const allFiles = (annotations?.[ALL_FILES_KEY] ?? "").trim()
  const jsonPaths = (annotations?.[JSON_PATHS_KEY] ?? "").trim()
  if (!["", "true", "false"].includes(jsonPaths)) {
    return Result.fail(
      new SecretMappingInvalid({
        annotation: JSON_PATHS_KEY,
        detail: `${JSON.stringify(jsonPaths)} is not a boolean`,
        remedy: `set it to "true" or "false"`
      })
    )
  }
  const names = allFiles.split(",").map((name) => name.trim())
  const listed = allFiles !== "" && allFiles !== "true" && allFiles !== "false"
  if (listed && names.includes("")) {
    return Result.fail(
      new SecretMappingInvalid({
        annotation: ALL_FILES_KEY,
        detail: `${JSON.stringify(allFiles)} has an empty name in its list`,
        remedy: `set it to "true", or to names of Secrets with commas between them`
      })
    )
  }
  return Result.succeed({
    allFiles: listed ? { _tag: "Named", names: new Set(names) } : { _tag: allFiles === "true" ? "All" : "None" },
    jsonPaths: jsonPaths === "true"
  })
}

/** @shape (mapping, secretName, type) -> whether the Secret gets a key for every file */
export const takesAllFiles = ({ allFiles }: SecretMapping, secretName: string, type: string): boolean =>
  allFiles._tag === "Named" ? allFiles.names.has(secretName) : allFiles._tag === "All" && type !== TLS_TYPE

/**
 * Why the API server would refuse a key.
 *
 * @shape  (key) -> the reason, or undefined when the key is valid
 * @source Kubernetes, pkg/util/validation, IsConfigMapKey
 */
export const refuseKey = (key: string): string | undefined => {
  if (Buffer.byteLength(key) > KEY_BYTES_MAX) return `it is longer than ${KEY_BYTES_MAX} characters`
  if (!KEY_CHARACTERS.test(key)) return "it may have letters, digits, '-', '_' and '.' only"
  return key === "." || key.startsWith("..") ? "it may not be '.' or start with '..'" : undefined
}

/**
 * One key per file.
 *
 * @shape  (paths) -> map of key -> path, in the order of the paths
 * @errors the path at fault, and why: two paths have one key, or the key is not valid
 */
export const keysOf = (
  paths: Iterable<string>
): Result.Result<
  ReadonlyMap<string, string>,
  { readonly path: string; readonly key: string; readonly why: string }
> => {
  const keys = new Map<string, string>()
  for (const path of paths) {
    const key = path.replaceAll("/", ".")
    const other = keys.get(key)
    if (other !== undefined) return Result.fail({ path, key, why: `file ${other} has the same key ${key}` })
    const why = refuseKey(key)
    if (why !== undefined) return Result.fail({ path, key, why: `${JSON.stringify(key)} is not a valid key: ${why}` })
    keys.set(key, path)
  }
  return Result.succeed(keys)
}

/**
 * An objectName taken apart at its first `#/`, or at a `#` at its end, which names the whole document.
 *
 * @shape (objectName) -> { path, pointer }, or undefined when it names a file only
 */
export const splitObjectName = (
  objectName: string
): { readonly path: string; readonly pointer: string } | undefined => {
  const hash = objectName.indexOf("#/")
  if (hash > 0) return { path: objectName.slice(0, hash), pointer: objectName.slice(hash + 1) }
  return objectName.length > 1 && objectName.endsWith("#") ? { path: objectName.slice(0, -1), pointer: "" } : undefined
}

const kindOf = (value: unknown): string =>
  value === null ? "null" : Array.isArray(value) ? "an array" : typeof value === "object" ? "an object" : "a scalar"

const childOf = (value: unknown, token: string): unknown => {
  if (Array.isArray(value)) return /^(?:0|[1-9]\d*)$/u.test(token) ? value[Number(token)] : undefined
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, token)) return undefined
  return Reflect.get(value, token)
}

/** Follows a pointer; says how far it leads, which are words of the class and not of the file. */
const follow = (document: unknown, pointer: string): Result.Result<unknown, string> => {
  const tokens = pointer.split("/").slice(1)
  let value = document
  for (const [index, token] of tokens.entries()) {
    if (/~(?![01])/u.test(token)) return Result.fail(`a '~' in ${pointer} is neither ~0 nor ~1`)
    const child = childOf(value, token.replaceAll("~1", "/").replaceAll("~0", "~"))
    if (child === undefined) {
      const reached = index === 0 ? "the document" : `/${tokens.slice(0, index).join("/")}`
      return Result.fail(`nothing is at ${pointer}: ${reached} is ${kindOf(value)} without ${JSON.stringify(token)}`)
    }
    value = child
  }
  return Result.succeed(value)
}

const invalid = (path: string, why: string, remedy: string) =>
  new ContentInvalid({ detail: `failed to pick a value from file ${path}, err: ${why}`, remedy })

/** Numbers stay as they are spelled, so that none is rounded. */
const parseJson = (text: string): unknown =>
  JSON.parse(text, (_key, value: unknown, context?: { readonly source?: string }) =>
    typeof value === "number" ? (context?.source ?? String(value)) : value
  )

const parse = Effect.fnUntraced(function* (path: string, text: string) {
  const json = Result.try(() => parseJson(text))
  if (Result.isSuccess(json)) return json.success
  // The parser's own words quote the file.
  if (path.endsWith(".json")) return yield* invalid(path, "it is not valid JSON", "store a valid JSON document")
  const formats = yield* FileFormats
  return yield* formats.yaml(Redacted.make(text)).pipe(
    Effect.map(Redacted.value),
    Effect.mapError(({ detail, remedy }) => invalid(path, detail, remedy))
  )
})

/**
 * One value of a JSON or YAML file.
 *
 * @shape  (path, file, pointer) -> the value's text in UTF-8
 * @errors ContentInvalid: with the file's name and the pointer, never with content
 * @source RFC 6901
 */
export const pick = Effect.fn("SecretMapping.pick")(function* (
  path: string,
  file: Redacted.Redacted<Uint8Array>,
  pointer: string
): Effect.fn.Return<Redacted.Redacted<Uint8Array>, ContentInvalid, FileFormats> {
  const bytes = Redacted.value(file)
  if (bytes.byteLength > DOCUMENT_BYTES_MAX) {
    const why = `it has ${bytes.byteLength} bytes, more than the ${DOCUMENT_BYTES_MAX} that are read`
    return yield* invalid(path, why, "let the provider give the value as a file of its own")
  }
  const text = Result.try(() => new TextDecoder("utf-8", { fatal: true }).decode(bytes))
  if (Result.isFailure(text)) return yield* invalid(path, "it is not UTF-8", "store the document in UTF-8")
  const found = follow(yield* parse(path, text.success), pointer)
  if (Result.isFailure(found)) {
    return yield* invalid(path, found.failure, "correct the path after # in objectName, or what is stored")
  }
  const value = found.success
  if (typeof value === "string" || typeof value === "boolean") {
    return Redacted.make(new TextEncoder().encode(String(value)))
  }
  return yield* invalid(
    path,
    `${pointer === "" ? "the document" : pointer} is ${kindOf(value)}, not a text, number or boolean`,
    "name one value of it"
  )
})
