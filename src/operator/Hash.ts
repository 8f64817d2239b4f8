/**
 * What annotations say of a content: digests that an older operator wrote, and that have to stay as they are.
 *
 * @source reference/operator.md 3.7, 4.3, 4.4
 */
import { Base64Url } from "effect/encoding"
import type { Sha256 } from "../ports/Digest.ts"
import * as GoJson from "./GoJson.ts"
import { Annotation } from "./Names.ts"

const FNV_PRIME = 16_777_619
const FNV_OFFSET = 2_166_136_261
const ANNOTATION_KEY_MAX = 63

/** FNV-1 of 32 bits: multiplies before it mixes in the next byte. */
const fnv1 = (text: string): number => {
  let hash = FNV_OFFSET
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash, FNV_PRIME) ^ byte
  return hash >>> 0
}

/** @shape (data of a ConfigMap) -> padded base64url of four bytes: "hgbyuQ==" */
export const configMapHash = (data: Readonly<Record<string, string>>): string => {
  const bytes = new Uint8Array(4)
  // Go's stream encoder ends with a new line, and it is part of what is hashed.
  new DataView(bytes.buffer).setUint32(0, fnv1(`${GoJson.encode(data)}\n`))
  return Base64Url.encodePadded(bytes)
}

/** @shape (namespace, name of a ConfigMap) -> key of the annotation that holds its hash, at most 63 characters */
export const configMapHashKey = (sha256: Sha256, namespace: string, name: string): string => {
  const dependency = `${namespace}.${name}.configmap`
  const plain = `${Annotation.dependencyPrefix}${dependency}`
  return plain.length <= ANNOTATION_KEY_MAX
    ? plain
    : `${Annotation.dependencyPrefix}${sha256(dependency)}`.slice(0, ANNOTATION_KEY_MAX)
}
