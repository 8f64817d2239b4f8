/**
 * Rights that are granted against requests that were made. Plain data on both sides, so that the comparison itself can be
 * tested without a cluster.
 */
import { Schema } from "effect"

const Names = Schema.optionalKey(Schema.Array(Schema.String))
const Rule = Schema.Struct({
  apiGroups: Names,
  resources: Names,
  resourceNames: Names,
  nonResourceURLs: Names,
  verbs: Schema.Array(Schema.String)
})
export type Rule = typeof Rule.Type
export const rulesOf = Schema.decodeUnknownSync(Schema.Struct({ rules: Schema.Array(Rule) }))

/** One verb on one resource, of one name where the rule names some. */
export interface Grant {
  readonly group: string
  /** With the subresource: "pods/log". */
  readonly resource: string
  readonly verb: string
  readonly name?: string
}

export const show = ({ group, name, resource, verb }: Grant): string =>
  `${verb} ${resource}${group === "" ? "" : `.${group}`}${name === undefined ? "" : ` ${name}`}`

export const grantsOf = (rules: ReadonlyArray<Rule>): ReadonlyArray<Grant> =>
  rules.flatMap(({ apiGroups = [], resourceNames = [], resources = [], verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) =>
        verbs.flatMap(
          (verb): ReadonlyArray<Grant> =>
            resourceNames.length === 0
              ? [{ group, resource, verb }]
              : resourceNames.map((name) => ({ group, resource, verb, name }))
        )
      )
    )
  )

const AuditEvent = Schema.Struct({
  verb: Schema.String,
  user: Schema.Struct({ username: Schema.optionalKey(Schema.String) }),
  requestURI: Schema.optionalKey(Schema.String),
  objectRef: Schema.optionalKey(
    Schema.Struct({
      resource: Schema.optionalKey(Schema.String),
      subresource: Schema.optionalKey(Schema.String),
      apiGroup: Schema.optionalKey(Schema.String),
      namespace: Schema.optionalKey(Schema.String),
      name: Schema.optionalKey(Schema.String)
    })
  ),
  responseStatus: Schema.optionalKey(Schema.Struct({ code: Schema.optionalKey(Schema.Int) })),
  requestReceivedTimestamp: Schema.optionalKey(Schema.String),
  annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
})
/** What the authorizers said. A status 403 has other reasons as well: a namespace that is ending, for one. */
const DECISION = "authorization.k8s.io/decision"
const decodeEvent = Schema.decodeUnknownSync(Schema.fromJsonString(AuditEvent))

export interface AuditedRequest extends Grant {
  readonly user: string
  readonly uri: string
  readonly code: number
  readonly isAllowed: boolean
  readonly timeMillis: number
}

/** @shape (audit log, one JSON object a line) -> requests for resources; others have no right to compare with */
export const requestsOf = (log: string): ReadonlyArray<AuditedRequest> =>
  log
    .split("\n")
    .filter((line) => line.trim() !== "")
    .flatMap((line) => {
      const event = decodeEvent(line)
      const { annotations, objectRef, requestReceivedTimestamp, requestURI, responseStatus, user, verb } = event
      if (objectRef?.resource === undefined) return []
      const subresource = objectRef.subresource === undefined ? "" : `/${objectRef.subresource}`
      return [
        {
          group: objectRef.apiGroup ?? "",
          resource: `${objectRef.resource}${subresource}`,
          verb,
          ...(objectRef.name !== undefined && { name: objectRef.name }),
          user: user.username ?? "",
          uri: requestURI ?? "",
          code: responseStatus?.code ?? 0,
          isAllowed: annotations?.[DECISION] !== "forbid",
          timeMillis: Date.parse(requestReceivedTimestamp ?? "")
        }
      ]
    })

/** A server-side apply of an object that is not there yet asks for a create as well. */
const verbsOf = ({ code, verb }: AuditedRequest): ReadonlyArray<string> =>
  verb === "patch" && code === 201 ? ["patch", "create"] : [verb]

const uses = (request: AuditedRequest, grant: Grant): boolean =>
  request.isAllowed &&
  request.group === grant.group &&
  request.resource === grant.resource &&
  verbsOf(request).includes(grant.verb) &&
  (grant.name === undefined || grant.name === request.name)

/** A right that is granted although no request makes use of it. */
export interface Kept {
  /** As `show` writes it. */
  readonly grant: string
  readonly why: string
  /** It depends on how long a run takes whether it is used. */
  readonly mayBeUsed?: boolean
}

export interface Comparison {
  readonly unused: ReadonlyArray<string>
  readonly denied: ReadonlyArray<string>
  /** Kept without a reason to: used after all, or not granted. */
  readonly keptInVain: ReadonlyArray<string>
}

/** All empty when everything that is granted is used or kept, and nothing else was asked for. */
export const compare = (
  grants: ReadonlyArray<Grant>,
  requests: ReadonlyArray<AuditedRequest>,
  kept: ReadonlyArray<Kept> = []
): Comparison => {
  const unused = grants.filter((grant) => !requests.some((request) => uses(request, grant))).map(show)
  const granted = new Set(grants.map(show))
  const isKept = new Set(kept.map(({ grant }) => grant))
  const isInVain = ({ grant, mayBeUsed = false }: Kept) => (mayBeUsed ? !granted.has(grant) : !unused.includes(grant))
  const refused = requests.filter(({ isAllowed }) => !isAllowed)
  return {
    unused: unused.filter((grant) => !isKept.has(grant)),
    denied: [...new Set(refused.map((request) => `${show(request)} (${request.uri})`))],
    keptInVain: kept.filter(isInVain).map(({ grant }) => grant)
  }
}
