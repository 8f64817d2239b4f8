/**
 * Service account tokens of a simulated cluster: what the kubelet asks the API server for and hands to the driver, and
 * what a provider reads in them. A token says whose it is, for whom, and until when; its text is allowed nowhere else.
 */
import type { PodIdentity } from "../../../src/volume/VolumeRecord.ts"
import { isObject, textAt } from "../KubernetesObject.ts"
import type { Chance } from "./Chance.ts"
import type { Striker } from "./Striker.ts"
import { MARK } from "./Volume.ts"

/** What a CSIDriver object says of tokens. */
export interface TokenSettings {
  readonly audiences: ReadonlyArray<string>
  /** Among the secrets of a call, rather than in its volume context. */
  readonly inSecrets: boolean
}

export const NO_TOKENS: TokenSettings = { audiences: [], inSecrets: false }

/** Chances per call. */
export type TokenRates = {
  readonly tokenMissingRate: number
  readonly tokenAudienceRate: number
  /** It is good when the kubelet sends it, and not when the provider reads it. */
  readonly tokenExpiresRate: number
}

export const drawTokenRates = (chance: Chance): TokenRates => ({
  tokenMissingRate: chance.sometimes(0.1),
  tokenAudienceRate: chance.sometimes(0.1),
  tokenExpiresRate: chance.sometimes(0.1)
})

/** @shape (chance) -> what a CSIDriver object asks for when nobody else decides it */
export const drawTokenSettings = (chance: Chance, audiences: ReadonlyArray<string>): TokenSettings =>
  chance.happens(0.4) ? NO_TOKENS : { audiences, inSecrets: chance.happens(0.5) }

/** The shortest that the API server gives. */
const LIFETIME_MILLIS = 600_000
/** The kubelet asks for another one when a fifth of that is left. */
const RENEWED_AFTER_MILLIS = 0.8 * LIFETIME_MILLIS
/** Calls take a little longer. */
const IN_FLIGHT_MILLIS = 20
const SEPARATOR = "|"

/** A kubelet's cache of tokens. */
export class Tokens {
  private readonly issued = new Map<string, number>()
  private readonly striker: Striker
  private readonly rates: TokenRates

  constructor(striker: Striker, rates: TokenRates) {
    this.striker = striker
    this.rates = rates
  }

  /** @shape (pod, settings, nowMillis) -> the JSON that a call has with it; undefined without any audience */
  textFor(pod: PodIdentity, { audiences }: TokenSettings, nowMillis: number): string | undefined {
    const { rates, striker } = this
    if (audiences.length === 0 || striker.strikes("token missing", rates.tokenMissingRate)) return undefined
    const isForOthers = striker.strikes("token of another audience", rates.tokenAudienceRate)
    const expires = striker.strikes("token expires in flight", rates.tokenExpiresRate)
    const entries = audiences.map((wanted) => {
      const audience = isForOthers ? `not-${wanted}` : wanted
      const expiresMillis = expires ? nowMillis + IN_FLIGHT_MILLIS : this.expiryOf(`${pod.uid} ${audience}`, nowMillis)
      const token = [`${MARK}-token`, pod.uid, pod.serviceAccountName, audience, expiresMillis].join(SEPARATOR)
      return [audience, { token, expirationTimestamp: new Date(expiresMillis).toISOString() }]
    })
    return JSON.stringify(Object.fromEntries(entries))
  }

  private expiryOf(key: string, nowMillis: number): number {
    const issuedMillis = this.issued.get(key)
    const isFresh = issuedMillis !== undefined && nowMillis < issuedMillis + RENEWED_AFTER_MILLIS
    if (!isFresh) this.issued.set(key, nowMillis)
    return (isFresh ? issuedMillis : nowMillis) + LIFETIME_MILLIS
  }
}

/** What a provider finds: "Absent" for an audience that nobody has asked for. */
export type TokenFound =
  | { readonly _tag: "Absent" }
  | { readonly _tag: "Expired" }
  | { readonly _tag: "Good"; readonly podUid: string; readonly serviceAccountName: string }

/** @shape (JSON or nothing, audience, nowMillis) -> TokenFound */
export const readToken = (text: string | undefined, audience: string, nowMillis: number): TokenFound => {
  const parsed: unknown = text === undefined ? undefined : JSON.parse(text)
  const entry = isObject(parsed) ? parsed[audience] : undefined
  const token = isObject(entry) ? textAt(entry, "token") : undefined
  if (token === undefined) return { _tag: "Absent" }
  const [, podUid = "", serviceAccountName = "", , expires] = token.split(SEPARATOR)
  return nowMillis < Number(expires) ? { _tag: "Good", podUid, serviceAccountName } : { _tag: "Expired" }
}
