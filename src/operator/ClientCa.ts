/**
 * Which certificates of clients an API server, and so everything that serves beside it, believes.
 *
 * @source reference/operator.md 1.5
 */
import { Effect, Result, Schema } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"

const PATH = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
const KEY = "client-ca-file"

const decode = Schema.decodeUnknownResult(
  Schema.toCodecGoJson(Schema.Struct({ data: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)) }))
)

/**
 * Reads the cluster's CA of client certificates.
 *
 * @shape  () -> certificates in PEM; undefined when the cluster has none
 * @errors KubernetesApiFailed; a ConfigMap that does not exist is no failure
 */
export const readClientCa: Effect.Effect<string | undefined, KubernetesApiFailed, KubernetesApi> = Effect.gen(
  function* () {
    const api = yield* KubernetesApi
    const found = decode(yield* api.request({ method: "GET", path: PATH }))
    if (Result.isFailure(found)) {
      const detail = "extension-apiserver-authentication is not a ConfigMap"
      return yield* new KubernetesApiFailed({ method: "GET", path: PATH, status: 200, reason: "Invalid", detail })
    }
    const pem = found.success.data?.[KEY]
    return typeof pem === "string" && pem.trim() !== "" ? pem : undefined
  }
).pipe(
  Effect.catchIf(
    ({ isNotFound }) => isNotFound,
    () => Effect.undefined
  )
)
