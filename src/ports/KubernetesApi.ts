/**
 * The Kubernetes API as a port: one request, or one watch. Bodies are plain JSON; `src/reconciler/Resource.ts` gives
 * them types. The real layer is HTTP, the fake one an API server in memory.
 */
import { Context, type Effect, type Stream } from "effect"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"

export interface KubernetesRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  /** Absolute and already percent-encoded, without a query: "/api/v1/namespaces/default/pods". */
  readonly path: string
  /** Values are not encoded yet; undefined ones are left out. */
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>
  /** JSON. */
  readonly body?: unknown
  /** Of the body; "application/json" when absent, a patch names its kind here. */
  readonly contentType?: string
}

/** One line of a watch: "ADDED", "MODIFIED", "DELETED", "BOOKMARK" or "ERROR", and the object or Status. */
export interface WatchEvent {
  readonly type: string
  readonly object: unknown
}

export class KubernetesApi extends Context.Service<
  KubernetesApi,
  {
    /** Succeeds with the decoded JSON body of a 2xx answer ({} for an empty one). Every request has a time limit. */
    readonly request: (request: KubernetesRequest) => Effect.Effect<unknown, KubernetesApiFailed>
    /**
     * The events of a GET with `watch=true`, which this adds. Ends when the server ends it; fails with the reason
     * "Idle" after `idleMillis` without a line.
     */
    readonly watch: (
      request: Pick<KubernetesRequest, "path" | "query">,
      idleMillis: number
    ) => Stream.Stream<WatchEvent, KubernetesApiFailed>
  }
>()("secrets-store/ports/KubernetesApi") {}
