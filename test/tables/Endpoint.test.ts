/**
 * Rows of reference/driver.md 13.1, pkg/secrets-store/server_test.go, TestParseEndpointNoError and TestParseEndpointError.
 */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { parseEndpoint, socketPath } from "../../src/csi/Endpoint.ts"

describe("13.1 TestParseEndpointNoError", () => {
  it.each([
    { endpoint: "unix://fake.sock", scheme: "unix", address: "fake.sock" },
    { endpoint: "unix:///fakedir/fakedir/fake.sock", scheme: "unix", address: "/fakedir/fakedir/fake.sock" },
    { endpoint: "tcp://127.0.0.1:1234", scheme: "tcp", address: "127.0.0.1:1234" },
    { endpoint: "TCP://127.0.0.1:1234", scheme: "TCP", address: "127.0.0.1:1234" },
    { endpoint: "tcp://fakehost:1234", scheme: "tcp", address: "fakehost:1234" }
  ])("$endpoint", ({ address, endpoint, scheme }) => {
    assert.deepStrictEqual(parseEndpoint(endpoint), Result.succeed({ scheme, address }))
  })
})

describe("13.1 TestParseEndpointError", () => {
  it.each([
    { name: "one slash", endpoint: "unix:/fake.sock/" },
    { name: "a bare name", endpoint: "fake.sock" },
    { name: "a scheme alone", endpoint: "unix://" },
    { name: "no scheme", endpoint: "://" },
    { name: "nothing", endpoint: "" }
  ])("$name", ({ endpoint }) => {
    assert.deepStrictEqual(parseEndpoint(endpoint), Result.fail(`invalid endpoint: ${endpoint}`))
  })
})

describe("2.1 a unix address counts from the root", () => {
  it.each([
    { address: "tmp/csi.sock", path: "/tmp/csi.sock" },
    { address: "/csi/csi.sock", path: "/csi/csi.sock" },
    { address: "//csi/csi.sock", path: "/csi/csi.sock" }
  ])("$address", ({ address, path }) => {
    assert.strictEqual(socketPath({ scheme: "unix", address }), path)
  })
})
