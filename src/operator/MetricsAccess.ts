/**
 * Who may ask the operator's own server what: who a client is, by certificate or token, and whether that client may do
 * what it asks for. Both are asked of the API server where they cannot be told here, and answers are kept for a while.
 *
 * Nothing is allowed because a question could not be answered. Front proxies that vouch for a client by headers are not
 * listened to: nothing reaches an operator through one, and a trusted header is one more thing to get wrong.
 *
 * @source reference/operator.md 1.5, Q22
 */
import { Clock, Effect, Option, Redacted, Result, Schema, Semaphore } from "effect"
import type { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi } from "../ports/KubernetesApi.ts"
import { complaints } from "../reconciler/Complaints.ts"
import { LogKeys } from "../telemetry/LogKeys.ts"
import { expiringCache } from "./ExpiringCache.ts"

export interface User {
  readonly name: string
  readonly uid: string
  readonly groups: ReadonlyArray<string>
  readonly extra: Readonly<Record<string, ReadonlyArray<string>>>
}

const AUTHENTICATED = "system:authenticated"
const MASTERS = "system:masters"

export const ANONYMOUS: User = {
  name: "system:anonymous",
  uid: "",
  groups: ["system:unauthenticated"],
  extra: {}
}

const authenticated = (user: User): User =>
  user.groups.includes(AUTHENTICATED) ? user : { ...user, groups: [...user.groups, AUTHENTICATED] }

/** Subject of a verified client certificate, as far as it names somebody; a repeated part is a list. */
export interface CertificateSubject {
  readonly CN?: unknown
  readonly O?: unknown
}

const texts = (value: unknown): ReadonlyArray<string> =>
  (Array.isArray(value) ? value : [value]).filter((item: unknown) => typeof item === "string")

/**
 * @shape  (subject of a certificate that was verified) -> the user it names; undefined when it does not name one
 * @errors none
 */
export const certificateUser = ({ CN, O }: CertificateSubject): User | undefined => {
  const [name = "", ...more] = texts(CN)
  // Of several names, none is believed.
  if (name === "" || more.length > 0) return undefined
  return authenticated({ name, uid: "", groups: texts(O), extra: {} })
}

/**
 * @shape  (an Authorization header) -> its bearer token; undefined for none and for every other scheme
 * @errors none
 */
export const bearerTokenOf = (authorization: string | undefined): Redacted.Redacted<string> | undefined => {
  const [, token] = /^bearer +(\S+)\s*$/iu.exec(authorization?.trim() ?? "") ?? []
  return token === undefined ? undefined : Redacted.make(token)
}

const text = Schema.optionalKey(Schema.String)

const TokenReview = Schema.Struct({
  status: Schema.optionalKey(
    Schema.Struct({
      authenticated: Schema.optionalKey(Schema.Boolean),
      user: Schema.optionalKey(
        Schema.Struct({
          username: text,
          uid: text,
          groups: Schema.optionalKey(Schema.Array(Schema.String)),
          extra: Schema.optionalKey(Schema.Record(Schema.String, Schema.Array(Schema.String)))
        })
      )
    })
  )
})
const decodeTokenReview = Schema.decodeUnknownResult(Schema.toCodecGoJson(TokenReview))

/**
 * @shape  (what came back for a TokenReview) -> the user, or undefined when the token is nobody's
 * @errors none: what cannot be read names nobody
 */
export const reviewedUser = (answer: unknown): User | undefined => {
  const review = decodeTokenReview(answer)
  if (Result.isFailure(review) || review.success.status?.authenticated !== true) return undefined
  const { extra = {}, groups = [], uid = "", username = "" } = review.success.status.user ?? {}
  return username === "" ? undefined : authenticated({ name: username, uid, groups, extra })
}

const AccessReview = Schema.Struct({
  status: Schema.optionalKey(
    Schema.Struct({ allowed: Schema.optionalKey(Schema.Boolean), denied: Schema.optionalKey(Schema.Boolean) })
  )
})
const decodeAccessReview = Schema.decodeUnknownResult(Schema.toCodecGoJson(AccessReview))

/** @shape (what came back for a SubjectAccessReview) -> whether it allows; what cannot be read does not */
export const isAllowedBy = (answer: unknown): boolean => {
  const review = decodeAccessReview(answer)
  if (Result.isFailure(review)) return false
  const { allowed = false, denied = false } = review.success.status ?? {}
  return allowed && !denied
}

/** What is asked for: a method in lower case, and a path without its query. */
export interface Asked {
  readonly verb: string
  readonly path: string
}

/**
 * Decides what can be decided without asking anybody.
 *
 * @shape  (user, asked, the user that may read metrics) -> "Allow", or "Ask" the API server
 * @errors none
 * @source reference/operator.md 1.5
 */
export const decideAccess = (user: User, { path, verb }: Asked, metricsUser: string): "Allow" | "Ask" => {
  if (user.groups.includes(MASTERS)) return "Allow"
  return user.name === metricsUser && verb === "get" && path === "/metrics" ? "Allow" : "Ask"
}

const TOKEN_MILLIS = 35_000
const ALLOWED_MILLIS = 35_000
const DENIED_MILLIS = 10_000
const CACHED_MAX = 1_024
/** Questions to the API server at once; whoever sends many tokens waits for itself. */
const QUESTIONS_MAX = 8
const QUESTION_TIMEOUT = "8 seconds"

export interface Client {
  /** Of a certificate that was verified. */
  readonly certificate: CertificateSubject | undefined
  readonly authorization: string | undefined
}

export type Access =
  | { readonly _tag: "Allowed" }
  /** A certificate or token that is nobody's. */
  | { readonly _tag: "Unauthorized" }
  | { readonly _tag: "Forbidden"; readonly user: string }
  /** It could not be found out. */
  | { readonly _tag: "Failed" }

export interface Options {
  readonly metricsUser: string
  /** Nobody is identified: everybody is anonymous. */
  readonly authenticationDisabled: boolean
  /** Everybody may do everything. */
  readonly authorizationDisabled: boolean
  /** One way, so that no token is kept. */
  readonly hash: (token: string) => string
}

/**
 * @shape  (options) -> (client, asked) -> Access
 * @units  tokens are kept 35 s, permissions 35 s, refusals 10 s
 * @errors none: a question that is not answered is Failed for a permission and Unauthorized for a token
 * @source reference/operator.md 1.5
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<(client: Client, asked: Asked) => Effect.Effect<Access>, never, KubernetesApi> {
  const api = yield* KubernetesApi
  const questions = yield* Semaphore.make(QUESTIONS_MAX)
  const users = expiringCache<User | "nobody">(CACHED_MAX)
  const verdicts = expiringCache<boolean>(CACHED_MAX)

  const said = complaints()

  /** Said once, and again five minutes later at most: anybody can make us ask. */
  const complain = Effect.fnUntraced(function* (kind: string, fields: Readonly<Record<string, unknown>>) {
    if (!said.isNew(kind, JSON.stringify(fields), yield* Clock.currentTimeMillis)) return
    yield* Effect.logWarning("clients of the management server cannot be reviewed", { kind, ...fields })
  })

  /** Of what went wrong only the kind is logged: the API server's words may repeat the question, which holds a token. */
  const ask = (group: string, plural: string, kind: string, spec: unknown): Effect.Effect<Option.Option<unknown>> =>
    api
      .request({
        method: "POST",
        path: `/apis/${group}/v1/${plural}`,
        body: { apiVersion: `${group}/v1`, kind, spec }
      })
      .pipe(
        questions.withPermits(1),
        Effect.timeoutOption(QUESTION_TIMEOUT),
        Effect.tap((answer) =>
          Option.isNone(answer)
            ? complain(kind, { reason: "Timeout" })
            : Effect.map(Clock.currentTimeMillis, (now) => said.settle(kind, now))
        ),
        Effect.catch(({ reason, remedy, status }: KubernetesApiFailed) =>
          Effect.as(complain(kind, { status, reason, [LogKeys.remedy]: remedy }), Option.none<unknown>())
        )
      )

  const userOfToken = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
    const key = options.hash(Redacted.value(token))
    const known = users.get(key, yield* Clock.currentTimeMillis)
    if (known !== undefined) return known
    const answer = yield* ask("authentication.k8s.io", "tokenreviews", "TokenReview", { token: Redacted.value(token) })
    if (Option.isNone(answer)) return "nobody"
    const user = reviewedUser(answer.value) ?? "nobody"
    users.set(key, user, TOKEN_MILLIS, yield* Clock.currentTimeMillis)
    return user
  })

  const userOf = Effect.fnUntraced(function* ({ authorization, certificate }: Client) {
    if (options.authenticationDisabled) return ANONYMOUS
    const named = certificate === undefined ? undefined : certificateUser(certificate)
    if (named !== undefined) return named
    const token = bearerTokenOf(authorization)
    return token === undefined ? ANONYMOUS : yield* userOfToken(token)
  })

  const isAllowed = Effect.fnUntraced(function* ({ extra, groups, name, uid }: User, { path, verb }: Asked) {
    const spec = { user: name, uid, groups, extra, nonResourceAttributes: { path, verb } }
    const key = JSON.stringify(spec)
    const known = verdicts.get(key, yield* Clock.currentTimeMillis)
    if (known !== undefined) return known
    const answer = yield* ask("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview", spec)
    if (Option.isNone(answer)) return undefined
    const allowed = isAllowedBy(answer.value)
    verdicts.set(key, allowed, allowed ? ALLOWED_MILLIS : DENIED_MILLIS, yield* Clock.currentTimeMillis)
    return allowed
  })

  return Effect.fnUntraced(function* (client, asked) {
    const user = yield* userOf(client)
    if (user === "nobody") return { _tag: "Unauthorized" }
    if (options.authorizationDisabled || decideAccess(user, asked, options.metricsUser) === "Allow") {
      return { _tag: "Allowed" }
    }
    const allowed = yield* isAllowed(user, asked)
    if (allowed === undefined) return { _tag: "Failed" }
    return allowed ? { _tag: "Allowed" } : { _tag: "Forbidden", user: user.name }
  })
})
