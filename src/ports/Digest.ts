/**
 * SHA-256 as a port: the language has none of its own that answers at once.
 */
import { Context } from "effect"

/** @shape (text, as UTF-8) -> 64 hexadecimal digits */
export type Sha256 = (text: string) => string

export class Digest extends Context.Service<Digest, { readonly sha256: Sha256 }>()("secrets-store/ports/Digest") {}
