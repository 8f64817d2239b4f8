import { assert, describe, it } from "@effect/vitest"
import { buildInfo } from "../../src/main/buildInfo.ts"
import { userAgent, versionLine } from "../../src/main/Version.ts"

const built = { version: "v1.6.0", vcs: "hash", time: "2026-01-02-03:04" }

describe("version", () => {
  it.each([
    {
      platform: "linux",
      arch: "x64",
      expected: "csi-secrets-store/controller/v1.6.0 (linux/amd64) hash/2026-01-02-03:04"
    },
    {
      platform: "linux",
      arch: "arm64",
      expected: "csi-secrets-store/controller/v1.6.0 (linux/arm64) hash/2026-01-02-03:04"
    }
  ])("13.1 TestGetUserAgent: $arch", ({ arch, expected, platform }) => {
    assert.strictEqual(userAgent(built, { platform, arch }), expected)
  })

  it("13.1 TestPrintVersion", () => {
    assert.strictEqual(
      versionLine(built),
      '{"BuildVersion":"v1.6.0","GitCommit":"hash","BuildDate":"2026-01-02-03:04"}'
    )
  })

  it("1.5 nothing set by the build", () => {
    assert.deepStrictEqual(buildInfo, { version: "local-dev", vcs: "", time: "" })
    assert.strictEqual(versionLine(buildInfo), '{"BuildVersion":"local-dev","GitCommit":"","BuildDate":""}')
    assert.strictEqual(
      userAgent(buildInfo, { platform: "linux", arch: "x64" }),
      "csi-secrets-store/controller/local-dev (linux/amd64) /"
    )
  })
})
