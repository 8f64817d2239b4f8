import { assert, describe, it } from "@effect/vitest"
import { buildInfo } from "../../src/main/buildInfo.ts"
import { buildLabels, operatorUserAgent, userAgent, versionLine } from "../../src/main/Version.ts"

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

  it("1.9 the operator's requests", () => {
    const host = { platform: "linux", arch: "x64" }
    assert.strictEqual(operatorUserAgent(built, host), "secrets-store-csi-driver-operator/v1.6.0 (linux/amd64) hash")
    assert.strictEqual(operatorUserAgent(buildInfo, host), "secrets-store-csi-driver-operator/local-dev (linux/amd64)")
  })

  it.each([
    { version: "v1.6.0", major: "1", minor: "6" },
    { version: "0.12.3-rc.1", major: "0", minor: "12" },
    { version: "local-dev", major: "", minor: "" }
  ])("1.11 labels of $version", ({ major, minor, version }) => {
    const host = { platform: "linux", arch: "arm64", version: "v26.1.0" }
    assert.deepStrictEqual(buildLabels({ ...built, version }, host), {
      major,
      minor,
      gitVersion: version,
      gitCommit: "hash",
      gitTreeState: "",
      buildDate: "2026-01-02-03:04",
      goVersion: "",
      compiler: "node v26.1.0",
      platform: "linux/arm64"
    })
  })
})
