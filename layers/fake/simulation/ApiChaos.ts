/**
 * What goes wrong with an API server for a while, for all who reach it by it: outages, watches that end, stall or are
 * behind, rights that are taken away, quotas that are used up, kinds that cannot be converted or are not served, and
 * namespaces that come to their end. Each lasts some minutes and leaves nothing behind.
 */
import { Deferred, Effect } from "effect"
import type { KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import type { Failure, MemoryKubernetes } from "../MemoryKubernetes.ts"
import type { ApiFaults, ApiRates, Rule } from "./ApiFaults.ts"
import { type Chance, every } from "./Chance.ts"
import type { History } from "./History.ts"

const MINUTE = 60_000
const WHILE_MILLIS_MAX = 5 * MINUTE
const BEHIND_MILLIS_MAX = MINUTE
const API_LANE = "API server"

/** What those who are asked about may lose. */
export interface Reach {
  /** Plurals that they write or read, and how. */
  readonly rights: ReadonlyArray<readonly [method: KubernetesRequest["method"], plural: string]>
  /** Plurals of which there may be too many. */
  readonly quotas: ReadonlyArray<string>
  /** Plurals whose objects may not be converted. */
  readonly conversions: ReadonlyArray<string>
  /** API groups that may not be served. */
  readonly groups: ReadonlyArray<string>
  readonly namespaces: ReadonlyArray<string>
}

/** Those whose connections are cut, and who may lose something. */
interface Client {
  readonly api: ApiFaults
  apiIsDown: boolean
}

export interface ApiChaosOptions {
  readonly rates: ApiRates
  readonly reach: Reach
  /** Whose outage is whose: one at a time, some, or all. */
  readonly clients: ReadonlyArray<Client>
  readonly control: MemoryKubernetes["Service"]
  readonly chance: Chance
  readonly history: History
  readonly note: (site: string) => void
  /** What else there is to do when an API group goes or comes. */
  readonly served?: (isServed: boolean) => void
  /** What goes with a namespace, in any order, while it comes to its end; what comes back is made by whoever needs it. */
  readonly empty?: (namespace: string) => Effect.Effect<void>
}

const OF_NAMESPACE = /\/namespaces\/([^/]+)\//u
const PLURAL = /^\/(?:api|apis\/[^/]+)\/[^/]+\/(?:namespaces\/[^/]+\/)?([^/]+)/u

/** @shape ("/api/v1/namespaces/x/secrets/y") -> "secrets" */
const pluralOf = (path: string): string => PLURAL.exec(path)?.[1] ?? ""

const about = (
  site: string,
  applies: (method: KubernetesRequest["method"], plural: string) => boolean,
  failure: Failure
): Rule => ({ site, applies: ({ method, path }) => applies(method, pluralOf(path)), failure })

const noRight = (method: KubernetesRequest["method"], plural: string): Rule =>
  about("denied", (asked, it) => asked === method && it === plural, {
    status: 403,
    reason: "Forbidden",
    detail: `${plural} is forbidden: User "system:serviceaccount:driver:driver" cannot ${method} resource "${plural}"`
  })

const noQuota = (plural: string): Rule =>
  about("quota exceeded", (method, it) => method === "POST" && it === plural, {
    status: 403,
    reason: "Forbidden",
    detail: `${plural} "x" is forbidden: exceeded quota: objects, requested: count/${plural}=1, used: count/${plural}=9, limited: count/${plural}=9`
  })

const noConversion = (plural: string): Rule =>
  about("conversion error", (_, it) => it === plural, {
    status: 500,
    reason: "InternalError",
    detail: `conversion webhook for ${plural} failed: Post "https://webhook.svc:443/convert": connect: connection refused`
  })

/** Nothing new may be made in it; what is there may be written still. */
const noNamespace = (namespace: string): Rule => ({
  site: "namespace terminating",
  applies: ({ method, path }) => method === "POST" && OF_NAMESPACE.exec(path)?.[1] === namespace,
  failure: {
    status: 403,
    reason: "Forbidden",
    detail: `"x" is forbidden: unable to create new content in namespace ${namespace} because it is being terminated`
  }
})

/** @shape (options) -> each goes on for ever, and undoes what it has begun when it is interrupted */
export const apiChaos = (options: ApiChaosOptions): ReadonlyArray<Effect.Effect<void>> => {
  const { chance, clients, control, history, note, rates, reach } = options
  const some = () => (chance.happens(0.5) ? clients : [chance.oneOf(clients)])
  const aWhile = Effect.suspend(() => Effect.sleep(chance.between(0, WHILE_MILLIS_MAX)))

  const outage = Effect.gen(function* () {
    const affected = some()
    note("API outage")
    history.state(API_LANE, `out of reach of ${affected.length} of ${clients.length}`)
    for (const client of affected) client.apiIsDown = true
    yield* control.dropWatches("error")
    yield* Effect.ensuring(
      aWhile,
      Effect.sync(() => {
        for (const client of affected) client.apiIsDown = false
        history.state(API_LANE, "")
      })
    )
  })

  const cut = Effect.suspend(() => control.dropWatches(chance.happens(0.5) ? "close" : "error"))

  const watchCut = Effect.gen(function* () {
    if (chance.happens(0.5)) {
      note("watch cut")
      yield* cut
      return
    }
    // Versions are gone before a client comes back: it has to list, and what has come and gone meanwhile is never told.
    const how = chance.happens(0.5) ? "event" : "status"
    note(`watch 410 as ${how}`)
    yield* control.setExpiredAs(how)
    yield* control.dropWatches("error")
    yield* Effect.ensuring(Effect.sleep(chance.between(0, 500)), control.compact)
  })

  const watchStall = Effect.suspend(() => {
    const stall = { share: chance.between(0, 1), ended: Deferred.makeUnsafe<void>() }
    for (const { api } of clients) api.beginStall(stall)
    return Effect.ensuring(
      Effect.andThen(aWhile, aWhile),
      Effect.sync(() => {
        for (const { api } of clients) api.endStall(stall)
      })
    )
  })

  /** From now on another API server answers, whose watch cache is older than the last one's. */
  const watchBehind = Effect.gen(function* () {
    const affected = some()
    note("watch cache behind")
    const behindMillis = chance.between(0, BEHIND_MILLIS_MAX)
    for (const { api } of affected) api.behindMillis = behindMillis
    yield* cut
    yield* Effect.ensuring(
      aWhile,
      Effect.sync(() => {
        for (const { api } of affected) api.behindMillis = 0
      })
    )
    yield* cut
  })

  const watchBookmark = Effect.suspend(() => {
    note("watch bookmark")
    return control.bookmark
  })

  /** A rule that somebody may meet. */
  const hold = (rule: Rule) => {
    const affected = some()
    for (const { api } of affected) api.rules.add(rule)
    return Effect.ensuring(
      aWhile,
      Effect.sync(() => {
        for (const { api } of affected) api.rules.delete(rule)
      })
    )
  }

  const oneOf = <A>(items: ReadonlyArray<A>, use: (item: A) => Effect.Effect<void>): Effect.Effect<void> =>
    Effect.suspend(() => (items.length === 0 ? Effect.void : use(chance.oneOf(items))))

  const right = oneOf(reach.rights, ([method, plural]) => hold(noRight(method, plural)))
  const quota = oneOf(reach.quotas, (plural) => hold(noQuota(plural)))
  const conversion = oneOf(reach.conversions, (plural) => hold(noConversion(plural)))
  const namespace = oneOf(reach.namespaces, (name) =>
    Effect.andThen(Effect.forkChild(options.empty?.(name) ?? Effect.void), hold(noNamespace(name)))
  )

  /** As while a new API server has not read the definitions yet: objects are kept, and nobody can reach them. */
  const definition = oneOf(reach.groups, (group) =>
    Effect.gen(function* () {
      note("definition absent")
      yield* control.setServed(group, false)
      options.served?.(false)
      yield* Effect.ensuring(
        aWhile,
        Effect.suspend(() => {
          options.served?.(true)
          return control.setServed(group, true)
        })
      )
    })
  )

  return [
    every(chance, rates.apiOutageEveryMillis, outage),
    every(chance, rates.watchCutEveryMillis, watchCut),
    every(chance, rates.watchStallEveryMillis, watchStall),
    every(chance, rates.watchBehindEveryMillis, watchBehind),
    every(chance, rates.watchBookmarkEveryMillis, watchBookmark),
    every(chance, rates.rightEveryMillis, right),
    every(chance, rates.quotaEveryMillis, quota),
    every(chance, rates.conversionEveryMillis, conversion),
    every(chance, rates.namespaceEveryMillis, namespace),
    every(chance, rates.definitionEveryMillis, definition)
  ]
}

/** What a node driver reaches. */
export const driverReach = (namespaces: ReadonlyArray<string>): Reach => ({
  rights: [
    ["GET", "secretproviderclasses"],
    ["GET", "secretproviderclasspodstatuses"],
    ["POST", "secretproviderclasspodstatuses"],
    ["PUT", "secretproviderclasspodstatuses"],
    ["GET", "secrets"],
    ["POST", "secrets"],
    ["PATCH", "secrets"],
    ["DELETE", "secrets"],
    ["GET", "pods"],
    ["POST", "events"]
  ],
  quotas: ["secrets", "secretproviderclasspodstatuses", "events"],
  conversions: ["secretproviderclasses", "secretproviderclasspodstatuses"],
  groups: ["secrets-store.csi.x-k8s.io"],
  namespaces
})

/** What an operator reaches, and the namespaces in which it gives rights to drivers. */
export const operatorReach = (namespaces: ReadonlyArray<string>): Reach => ({
  rights: [],
  quotas: ["configmaps", "serviceaccounts", "rolebindings", "events"],
  conversions: ["secretproviderclasses", "clustercsidrivers", "proxies", "daemonsets"],
  groups: ["secrets-store.csi.x-k8s.io"],
  namespaces
})
