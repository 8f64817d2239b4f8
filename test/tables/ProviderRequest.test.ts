import { assert, describe, it } from "@effect/vitest"
import { Redacted } from "effect"
import { type NodePublishVolumeRequest, TOKENS_KEY } from "../../schemas/Csi.ts"
import { goJson, providerRequest, tokensOf } from "../../src/volume/ProviderRequest.ts"

const request: NodePublishVolumeRequest = {
  volumeId: "csi-1",
  publishContext: {},
  stagingTargetPath: "",
  targetPath: "/t",
  volumeCapability: { accessType: "mount", fsType: "", mountFlags: [], volumeMountGroup: "", accessMode: 1 },
  readonly: true,
  secrets: {},
  volumeContext: { secretProviderClass: "spc" },
  serviceAccountTokens: undefined
}
const token = (text: string) => Redacted.make(text)

describe("ProviderRequest", () => {
  it.each([
    { name: "keys sorted", entries: { b: "2", a: "1" }, expected: '{"a":"1","b":"2"}' },
    { name: "<, > and & escaped", entries: { k: "<a&b>" }, expected: '{"k":"\\u003ca\\u0026b\\u003e"}' },
    { name: "U+2028 and U+2029 escaped", entries: { k: "\u2028\u2029" }, expected: '{"k":"\\u2028\\u2029"}' },
    { name: "quotes and line ends", entries: { k: 'a"\n' }, expected: '{"k":"a\\"\\n"}' },
    { name: "empty", entries: {}, expected: "{}" }
  ])("2.7 #18 goJson: $name", ({ entries, expected }) => {
    assert.strictEqual(goJson(Object.entries<string>(entries)), expected)
    assert.deepStrictEqual<unknown>(JSON.parse(expected), entries)
  })

  it.each([
    { name: "none", secrets: {}, context: undefined, expected: undefined },
    { name: "volume context only", secrets: {}, context: "c", expected: "c" },
    { name: "secrets only", secrets: { [TOKENS_KEY]: token("s") }, context: undefined, expected: "s" },
    { name: "secrets before volume context", secrets: { [TOKENS_KEY]: token("s") }, context: "c", expected: "s" },
    {
      name: "an empty one among the secrets hides the other",
      secrets: { [TOKENS_KEY]: token("") },
      context: "c",
      expected: undefined
    },
    { name: "an empty one in the volume context", secrets: {}, context: "", expected: undefined }
  ])("2.7 #16 tokens: $name", ({ context, expected, secrets }) => {
    const found = tokensOf({ secrets, serviceAccountTokens: context === undefined ? undefined : token(context) })
    assert.strictEqual(found === undefined ? undefined : Redacted.value(found), expected)
  })

  it("2.7 #15 Q28 every entry of the volume context overrides a parameter", () => {
    const made = providerRequest(
      { ...request, volumeContext: { secretProviderClass: "spc", objects: "mine" } },
      { objects: "theirs", roleName: "r" },
      []
    )
    assert.deepStrictEqual<unknown>(JSON.parse(Redacted.value(made.attributes)), {
      objects: "mine",
      roleName: "r",
      secretProviderClass: "spc"
    })
  })

  it("2.7 #18 no secrets are null, others a sorted object; permission is the bare decimal", () => {
    assert.strictEqual(Redacted.value(providerRequest(request, { a: "b" }, []).secrets), "null")
    const made = providerRequest({ ...request, secrets: { z: token("1"), a: token("2") } }, { a: "b" }, [])
    assert.strictEqual(Redacted.value(made.secrets), '{"a":"2","z":"1"}')
    assert.strictEqual(made.permission, "420")
  })

  it("D3 current object versions are sent", () => {
    const versions = [{ id: "secret/a", version: "v1" }]
    assert.deepStrictEqual(providerRequest(request, { a: "b" }, versions).currentObjectVersions, versions)
  })

  it("2.7 #16 tokens reach the attributes under their key, and nothing printable shows them", () => {
    const made = providerRequest({ ...request, serviceAccountTokens: token("MARKED") }, { a: "b" }, [])
    assert.include(Redacted.value(made.attributes), `"${TOKENS_KEY}":"MARKED"`)
    assert.notInclude(`${JSON.stringify(made)}${String(made.attributes)}`, "MARKED")
  })
})
