/**
 * The operand's manifests out of files: every .yaml below one directory, read once. A file that cannot be read or is not
 * one Kubernetes object ends the start, by its name; what is missing is said by whoever asks for it.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join, sep } from "node:path"
import { Effect, Layer, Result, Schema } from "effect"
import { parseDocument } from "yaml"
import { AssetInvalid } from "../../schemas/errors/AssetInvalid.ts"
import { Manifest } from "../../schemas/Manifest.ts"
import { Assets } from "../../src/ports/Assets.ts"

const decode = Schema.decodeUnknownResult(Schema.toCodecGoJson(Manifest))

const reasonOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const read = (file: string): Result.Result<Manifest, AssetInvalid> => {
  const invalid = (detail: string) => new AssetInvalid({ file, detail: detail.replace(/\s+/gu, " ").trim() })
  return Result.try({
    try: (): unknown => {
      // Of several documents in one file, this takes none.
      const document = parseDocument(readFileSync(file, "utf8"), { prettyErrors: false })
      const [error] = document.errors
      if (error !== undefined) throw error
      return document.toJS()
    },
    catch: (cause) => invalid(reasonOf(cause))
  }).pipe(Result.flatMap((content) => Result.mapError(decode(content), (error) => invalid(error.message))))
}

const readAll = (directory: string): Result.Result<ReadonlyMap<string, Manifest>, AssetInvalid> => {
  const names = Result.try({
    try: () =>
      readdirSync(directory, { recursive: true, encoding: "utf8" })
        .filter((name) => name.endsWith(".yaml"))
        .sort(),
    catch: (cause) => new AssetInvalid({ file: directory, detail: reasonOf(cause) })
  })
  if (Result.isFailure(names)) return Result.fail(names.failure)
  const manifests = new Map<string, Manifest>()
  for (const name of names.success) {
    const manifest = read(join(directory, name))
    if (Result.isFailure(manifest)) return Result.fail(manifest.failure)
    manifests.set(name.split(sep).join("/"), manifest.success)
  }
  return manifests.size === 0
    ? Result.fail(new AssetInvalid({ file: directory, detail: "there is no .yaml file" }))
    : Result.succeed(manifests)
}

/**
 * @shape  (directory) -> Assets, by path below it
 * @errors AssetInvalid: the file, and what is wrong with it
 */
export const layer = (directory: string): Layer.Layer<Assets, AssetInvalid> =>
  Layer.effect(
    Assets,
    Effect.suspend(() => Effect.fromResult(readAll(directory))).pipe(
      Effect.map((manifests) => Assets.of({ manifests }))
    )
  )
