/**
 * The files of a volume that a Secret is made of: read while others may replace or remove them, and all of one
 * generation or none.
 */
import { Effect, FileSystem, PlatformError, Redacted } from "effect"
import * as MountedFiles from "../volume/MountedFiles.ts"
import type * as SecretData from "./SecretData.ts"
import * as SecretMapping from "./SecretMapping.ts"

const READ_ATTEMPTS = 3

/**
 * @shape  (target path, wanted: (relative path) -> boolean) -> content by relative path, of one generation
 * @errors PlatformError
 */
export const read = Effect.fnUntraced(function* (targetPath: string, wanted: (path: string) => boolean) {
  const files = yield* FileSystem.FileSystem
  const current = files.readLink(`${targetPath}/${MountedFiles.DATA}`).pipe(Effect.orElseSucceed(() => undefined))
  const once = Effect.gen(function* () {
    const generation = yield* current
    const listed = yield* MountedFiles.list(targetPath)
    const found = new Map<string, Redacted.Redacted<Uint8Array>>()
    for (const [path, absolute] of listed) {
      if (wanted(path)) found.set(path, Redacted.make(yield* files.readFile(absolute)))
    }
    // A volume that is taken away loses its link before its files: some of them would be missing.
    if ((yield* current) !== generation) {
      return yield* PlatformError.systemError({
        _tag: "NotFound",
        module: "SecretFiles",
        method: "read",
        pathOrDescriptor: targetPath,
        description: "the files were replaced or taken away while they were read"
      })
    }
    return found
  })
  // A newer generation has taken the place of the one that was being read: then all of that one.
  return yield* Effect.retry(once, {
    times: READ_ATTEMPTS,
    while: ({ reason }: PlatformError.PlatformError) => reason._tag === "NotFound"
  })
})

/** @shape (entry, mapping, type of the Secret) -> which relative paths it may need */
export const needs = (entry: SecretData.SecretObject, mapping: SecretMapping.SecretMapping, type: string) => {
  if (SecretMapping.takesAllFiles(mapping, (entry.secretName ?? "").trim(), type)) return () => true
  const names = new Set<string>()
  for (const { objectName = "" } of entry.data ?? []) {
    names.add(objectName.trim())
    names.add(SecretMapping.splitObjectName(objectName.trim())?.path ?? "")
  }
  return (path: string) => names.has(path)
}
