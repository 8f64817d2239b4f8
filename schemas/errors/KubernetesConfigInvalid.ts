/** It cannot be told where the API server is, or how to speak to it. */
import { Schema } from "effect"

export class KubernetesConfigInvalid extends Schema.TaggedError<KubernetesConfigInvalid>()("KubernetesConfigInvalid", {
  /** The file, or where the configuration was looked for. */
  source: Schema.String,
  /** Without any of the file's content. */
  detail: Schema.String
}) {
  readonly code = "KubernetesConfigInvalid"
  readonly remedy =
    "give a readable kubeconfig (flag or KUBECONFIG), or run in a pod with a mounted service account token"

  override get message() {
    return `no usable Kubernetes configuration in ${this.source}: ${this.detail}`
  }
}
