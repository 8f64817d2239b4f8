/**
 * What two API servers answer to the same requests, as far as it can be compared.
 */
import { Effect } from "effect"
import type { KubernetesApi, KubernetesRequest } from "../../src/ports/KubernetesApi.ts"

type Json = Readonly<Record<string, unknown>>

interface Metadata extends Json {
  readonly resourceVersion?: string
  readonly managedFields?: ReadonlyArray<Json>
}

/** What both have to say alike: not the moment, nor what a server chooses. */
const comparable = (body: unknown): { readonly version: string | undefined; readonly object: unknown } => {
  const { metadata, ...rest } = body as { readonly metadata: Metadata }
  const {
    creationTimestamp: _,
    deletionTimestamp,
    managedFields = [],
    resourceVersion: version,
    uid: __,
    ...named
  } = metadata
  // Entries are in the order of times.
  const entries = managedFields.map((entry) => {
    const { apiVersion, manager, operation, subresource } = entry
    return [`${manager} ${operation} ${apiVersion} ${subresource}`, { ...entry, time: "time" in entry }] as const
  })
  const isLeaving = deletionTimestamp !== undefined
  return { version, object: { ...rest, isLeaving, metadata: named, managedFields: Object.fromEntries(entries) } }
}

/** Answers as far as they can be compared, each with whether there is a new version. */
export const asked = (api: KubernetesApi["Service"], requests: ReadonlyArray<KubernetesRequest>) =>
  Effect.gen(function* () {
    let last: string | undefined
    const answers: Array<unknown> = []
    for (const request of requests) {
      const answer = yield* Effect.match(api.request(request), {
        onSuccess: (body) => comparable(body),
        onFailure: ({ causes = [], message, reason, status }) => ({
          version: last,
          object: { status, reason, message, causes: causes.map((it) => JSON.stringify(it)).sort() }
        })
      })
      answers.push({ request, written: answer.version !== last, object: answer.object })
      last = answer.version
    }
    return answers
  })
