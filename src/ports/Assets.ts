/**
 * The operand's manifests as they are shipped, with their placeholders.
 */
import { Context } from "effect"
import type { Manifest } from "../../schemas/Manifest.ts"

export class Assets extends Context.Service<
  Assets,
  {
    /** By the file's path below assets/driver: "rbac/privileged_role.yaml". Read once, when the layer is built. */
    readonly manifests: ReadonlyMap<string, Manifest>
  }
>()("secrets-store/ports/Assets") {}
