/**
 * A provider plugin for the cluster tests: upstream's mock objects, and objects that say what came with a request.
 *
 * `secret:KEY` is a value of nodePublishSecretRef's Secret, `attribute:KEY` one of the volume's attributes, and
 * `token:AUDIENCE` the user that the API server finds behind the pod's token: a token that it does not accept is an
 * error. Switches are set over HTTP, as in the development provider.
 */
import { Effect, Layer, Option, Schema } from "effect"
import * as DevelopmentProvider from "../../../layers/development/DevelopmentProvider.ts"
import * as KubernetesHttp from "../../../layers/real/KubernetesHttp.ts"
import { TOKENS_KEY } from "../../../schemas/Csi.ts"
import { CsiStatus } from "../../../schemas/errors/CsiStatus.ts"
import { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { flag } from "./run.ts"

const StringMap = Schema.fromJsonString(Schema.NullOr(Schema.Record(Schema.String, Schema.String)))
const decodeStrings = Schema.decodeUnknownOption(StringMap)
const Tokens = Schema.fromJsonString(Schema.Record(Schema.String, Schema.Struct({ token: Schema.String })))
const decodeTokens = Schema.decodeUnknownOption(Tokens)
const Review = Schema.Struct({
  status: Schema.Struct({
    authenticated: Schema.optionalKey(Schema.Boolean),
    user: Schema.optionalKey(
      Schema.Struct({
        username: Schema.optionalKey(Schema.String),
        extra: Schema.optionalKey(Schema.Record(Schema.String, Schema.Array(Schema.String)))
      })
    )
  })
})
const decodeReview = Schema.decodeUnknownEffect(Review)
const POD_NAME = "authentication.kubernetes.io/pod-name"

const refuse = (details: string) => new CsiStatus({ grpcCode: "UNAUTHENTICATED", details })
const served = (contents: string): DevelopmentProvider.Served => ({
  version: "v1",
  contents: Buffer.from(contents),
  modeDefault: 0o644
})
const valueOf = (json: string, key: string): string | undefined =>
  Option.getOrUndefined(decodeStrings(json))?.[key] ?? undefined

/** "USER of POD": whom the API server sees behind the token. */
const reviewed = Effect.fnUntraced(function* (json: string, audience: string) {
  const token = Option.getOrUndefined(decodeTokens(json))?.[audience]?.token
  if (token === undefined) return yield* refuse(`there is no token for audience ${audience}`)
  const api = yield* KubernetesApi
  const review = yield* api
    .request({
      method: "POST",
      path: "/apis/authentication.k8s.io/v1/tokenreviews",
      body: {
        apiVersion: "authentication.k8s.io/v1",
        kind: "TokenReview",
        spec: { token, audiences: [audience] }
      }
    })
    .pipe(
      Effect.flatMap(decodeReview),
      Effect.mapError(({ message }) => refuse(`the token could not be reviewed: ${message}`))
    )
  const { authenticated = false, user = {} } = review.status
  if (!authenticated) return yield* refuse(`the API server does not accept the token for audience ${audience}`)
  return `${user.username} of ${user.extra?.[POD_NAME]?.join() ?? "no pod"}`
})

export const provider = Effect.gen(function* () {
  const api = yield* KubernetesApi
  const source: DevelopmentProvider.Source = (object, rotated, request) => {
    const [kind = "", key] = object.name.split(/:(.*)/su)
    if (key === undefined) return DevelopmentProvider.mockObject(object, rotated, request)
    if (kind === "token") {
      const json = valueOf(request.attributes, TOKENS_KEY) ?? ""
      return reviewed(json, key).pipe(Effect.map(served), Effect.provideService(KubernetesApi, api))
    }
    const value = valueOf(kind === "secret" ? request.secrets : request.attributes, key)
    return value === undefined ? Effect.fail(refuse(`there is no ${kind} ${key}`)) : Effect.succeed(served(value))
  }
  yield* DevelopmentProvider.serve({ endpoint: flag("endpoint"), source, controlAddr: flag("control") })
  process.stdout.write(`serving on ${flag("endpoint")}\n`)
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.provide(
    KubernetesHttp.layer({ kubeconfig: "", userAgent: "cluster-test-provider", environment: process.env }).pipe(
      Layer.orDie
    )
  )
)
