/**
 * An object of any kind as the operator applies it: its metadata is typed, everything else is kept as it is.
 */
import { Schema } from "effect"
import { ObjectMeta, open } from "./Meta.ts"

export const Manifest = open({
  apiVersion: Schema.String,
  kind: Schema.String,
  metadata: ObjectMeta
})
export type Manifest = typeof Manifest.Type
