/**
 * Digests by Node.
 */
import { createHash } from "node:crypto"
import { Layer } from "effect"
import { Digest } from "../../src/ports/Digest.ts"

export const layer: Layer.Layer<Digest> = Layer.succeed(
  Digest,
  Digest.of({ sha256: (text) => createHash("sha256").update(text).digest("hex") })
)
