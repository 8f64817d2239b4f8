import { assert, describe, it } from "@effect/vitest"
import { Redacted } from "effect"
import { TOKENS_KEY } from "../../schemas/Csi.ts"
import { expiryMillis } from "../../src/volume/Tokens.ts"

const AT = Date.UTC(2026, 10, 25, 12)
const token = (expirationTimestamp: string) => ({ token: "t", expirationTimestamp })
const inContext = (tokens: unknown) => ({
  secrets: {},
  serviceAccountTokens: Redacted.make(typeof tokens === "string" ? tokens : JSON.stringify(tokens))
})
const inSecrets = (tokens: unknown) => ({
  secrets: { [TOKENS_KEY]: Redacted.make(JSON.stringify(tokens)) },
  serviceAccountTokens: undefined
})
const never = Number.POSITIVE_INFINITY

describe("2.6 when the tokens of a volume expire", () => {
  it.each([
    { name: "one audience", request: inContext({ aud: token("2026-11-25T12:00:00Z") }), expected: AT },
    { name: "among the secrets", request: inSecrets({ aud: token("2026-11-25T12:00:00Z") }), expected: AT },
    {
      name: "several audiences: the first to expire, since a provider does not say which it uses",
      request: inContext({ a: token("2026-11-25T13:00:00Z"), b: token("2026-11-25T12:00:00Z") }),
      expected: AT
    },
    {
      name: "a time with an offset and a fraction",
      request: inContext({ aud: token("2026-11-25T13:00:00.500+01:00") }),
      expected: AT + 500
    },
    { name: "no tokens", request: { secrets: {}, serviceAccountTokens: undefined }, expected: never },
    { name: "an empty text", request: inContext(""), expected: never },
    { name: "no audiences", request: inContext({}), expected: never },
    { name: "no time", request: inContext({ aud: { token: "t" } }), expected: never },
    { name: "a time that is none", request: inContext({ aud: token("soon") }), expected: never },
    { name: "no JSON", request: inContext("{"), expected: never },
    { name: "another shape", request: inContext([1, 2]), expected: never }
  ])("$name", ({ expected, request }) => assert.strictEqual(expiryMillis(request), expected))
})
