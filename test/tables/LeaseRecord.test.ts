import { assert, describe, it } from "@effect/vitest"
import type { Lease } from "../../schemas/Coordination.ts"
import { claimed, decide, microTime, observe, released } from "../../src/reconciler/LeaseRecord.ts"

const metadata = { name: "lock", namespace: "ns", uid: "uid-1", resourceVersion: "7", labels: { a: "b" } }
const lease = (spec: NonNullable<Lease["spec"]> = {}): Lease => ({
  metadata,
  spec: {
    holderIdentity: "other",
    leaseDurationSeconds: 137,
    acquireTime: "2020-01-01T00:00:00.000000Z",
    renewTime: "2020-01-01T00:01:00.000000Z",
    leaseTransitions: 3,
    ...spec
  }
})
const us = { identity: "us", leaseMillis: 20_000 }

describe("observe", () => {
  const previous = { lease: lease(), atMillis: 5 }
  it.each([
    { name: "first seen", before: undefined, now: lease(), atMillis: 99 },
    { name: "the same record", before: previous, now: lease(), atMillis: 5 },
    { name: "renewed", before: previous, now: lease({ renewTime: "later" }), atMillis: 99 },
    { name: "another holder", before: previous, now: lease({ holderIdentity: "third" }), atMillis: 99 },
    { name: "another duration", before: previous, now: lease({ leaseDurationSeconds: 1 }), atMillis: 99 },
    { name: "only a label or version is new", before: previous, now: { ...lease(), metadata: {} }, atMillis: 5 }
  ])("1.6 $name", ({ atMillis, before, now }) =>
    assert.deepStrictEqual<unknown>(observe(before, now, 99), { lease: now, atMillis })
  )
})

describe("decide", () => {
  const seenAtZero = (it: Lease) => ({ lease: it, atMillis: 0 })
  const wait = (expiresInMillis: number) => ({ _tag: "Wait", holder: "other", expiresInMillis })
  it.each([
    { name: "absent", observed: undefined, nowMillis: 0, expected: { _tag: "Create" } },
    {
      name: "released",
      observed: seenAtZero(lease({ holderIdentity: "", leaseDurationSeconds: 1 })),
      nowMillis: 0,
      expected: { _tag: "Take" }
    },
    { name: "never held", observed: seenAtZero({ metadata }), nowMillis: 0, expected: { _tag: "Take" } },
    { name: "another's", observed: seenAtZero(lease()), nowMillis: 0, expected: wait(137_000) },
    { name: "nearly expired", observed: seenAtZero(lease()), nowMillis: 136_999, expected: wait(1) },
    { name: "expired", observed: seenAtZero(lease()), nowMillis: 137_000, expected: { _tag: "Take" } },
    {
      name: "expired for the clock of its holder only",
      observed: seenAtZero(lease({ renewTime: "1999-01-01T00:00:00.000000Z" })),
      nowMillis: 136_999,
      expected: wait(1)
    },
    {
      name: "good for longer than ours would be",
      observed: seenAtZero(lease({ leaseDurationSeconds: 270 })),
      nowMillis: 137_000,
      expected: wait(133_000)
    },
    {
      name: "without a duration",
      observed: seenAtZero(lease({ leaseDurationSeconds: 0 })),
      nowMillis: 19_999,
      expected: wait(1)
    },
    {
      name: "ours, since an answer was lost",
      observed: seenAtZero(lease({ holderIdentity: "us" })),
      nowMillis: 999_999,
      expected: { _tag: "Renew" }
    }
  ])("1.6 $name", ({ expected, nowMillis, observed }) =>
    assert.deepStrictEqual<unknown>(decide(observed, us, nowMillis), expected)
  )
})

describe("what is written", () => {
  const nowMillis = 1_700_000_000_123
  const NOW = "2023-11-14T22:13:20.123000Z"
  const where = { namespace: "ns", name: "lock" }
  const claim = { identity: "us", leaseMillis: 137_000, nowMillis }
  const ours = { holderIdentity: "us", leaseDurationSeconds: 137, acquireTime: NOW, renewTime: NOW }

  it("1.6 MicroTime has six digits", () => {
    assert.strictEqual(microTime(nowMillis), NOW)
    assert.strictEqual(microTime(0), "1970-01-01T00:00:00.000000Z")
  })

  it.each([
    {
      name: "a new one",
      before: undefined,
      expected: { metadata: where, spec: { ...ours, leaseTransitions: 0 } }
    },
    {
      name: "taken: one transition more, the metadata stays",
      before: lease(),
      expected: { metadata, spec: { ...ours, leaseTransitions: 4 } }
    },
    {
      name: "taken after a release",
      before: lease({ holderIdentity: "", leaseDurationSeconds: 1 }),
      expected: { metadata, spec: { ...ours, leaseTransitions: 4 } }
    },
    {
      name: "renewed: since when, and the transitions, stay",
      before: lease({ holderIdentity: "us" }),
      expected: { metadata, spec: { ...ours, acquireTime: "2020-01-01T00:00:00.000000Z", leaseTransitions: 3 } }
    },
    {
      name: "what others put there stays",
      before: { metadata, note: 1, spec: { holderIdentity: "us", acquireTime: "t", strategy: "s" } },
      expected: { metadata, note: 1, spec: { ...ours, acquireTime: "t", strategy: "s", leaseTransitions: 0 } }
    }
  ])("1.6 $name", ({ before, expected }) => assert.deepStrictEqual<unknown>(claimed(before, where, claim), expected))

  it("1.6 whole seconds, never too few", () =>
    assert.strictEqual(claimed(undefined, where, { ...claim, leaseMillis: 1_001 }).spec?.leaseDurationSeconds, 2))

  it("1.6 released: no holder, one second", () =>
    assert.deepStrictEqual<unknown>(released(lease({ holderIdentity: "us" }), nowMillis), {
      metadata,
      spec: { holderIdentity: "", leaseDurationSeconds: 1, acquireTime: NOW, renewTime: NOW, leaseTransitions: 3 }
    }))
})
