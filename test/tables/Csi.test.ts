import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { TOKENS_KEY } from "../../schemas/Csi.ts"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { MountFailed } from "../../schemas/errors/MountFailed.ts"
import {
  ProviderCallFailed,
  ProviderNameInvalid,
  ProviderNotFound,
  ProviderRefused
} from "../../schemas/errors/ProviderFailed.ts"
import * as Failed from "../../schemas/errors/PublishFailed.ts"
import { UnpublishFailed } from "../../schemas/errors/UnpublishFailed.ts"
import * as Controller from "../../src/csi/Controller.ts"
import * as Identity from "../../src/csi/Identity.ts"
import * as Node from "../../src/csi/Node.ts"
import { sanitise } from "../../src/csi/RequestLog.ts"
import { statusOf } from "../../src/csi/Status.ts"

const capability = { accessType: "mount", fsType: "", mountFlags: [], volumeMountGroup: "", accessMode: 1 } as const
const forbidden = new KubernetesApiFailed({
  method: "GET",
  path: "/x",
  status: 403,
  reason: "Forbidden",
  detail: "forbidden: verb get"
})

describe("Identity (2.3)", () => {
  it("13.1 TestProbe: ready", () => assert.deepStrictEqual(Identity.probe, { ready: true }))
  it("13.1 TestGetPluginCapabilities: the first one is CONTROLLER_SERVICE (Q9)", () =>
    assert.strictEqual(Identity.pluginCapabilities.services[0], "CONTROLLER_SERVICE"))
  it.effect("13.1 TestGetPluginInfo: success", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Identity.getPluginInfo("name", "v1"), { name: "name", vendorVersion: "v1" })
    })
  )
  it.effect.each([
    {
      row: "13.1 TestGetPluginInfo: driver name not configured",
      name: "",
      version: "v1",
      details: "driver name not configured"
    },
    {
      row: "13.1 TestGetPluginInfo: driver version not configured",
      name: "n",
      version: "",
      details: "driver version not configured"
    }
  ])("$row", ({ details, name, version }) =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(Identity.getPluginInfo(name, version))
      assert.deepStrictEqual([failure.grpcCode, failure.details], ["UNAVAILABLE", details])
    })
  )
})

describe("Controller (2.4)", () => {
  it("one capability, UNKNOWN", () => assert.deepStrictEqual(Controller.controllerCapabilities, { rpcs: ["UNKNOWN"] }))
  it.effect("everything else is UNIMPLEMENTED with an empty message", () =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(Controller.unimplemented(""))
      assert.deepStrictEqual([failure.grpcCode, failure.details], ["UNIMPLEMENTED", ""])
    })
  )
})

describe("Node (2.5)", () => {
  const stage = {
    volumeId: "v",
    publishContext: {},
    stagingTargetPath: "/s",
    volumeCapability: capability,
    secrets: {},
    volumeContext: {}
  }
  it("capabilities: staging; the mount group only behind its flag", () => {
    assert.deepStrictEqual(Node.nodeCapabilities(false), { rpcs: ["STAGE_UNSTAGE_VOLUME"] })
    assert.deepStrictEqual(Node.nodeCapabilities(true), { rpcs: ["STAGE_UNSTAGE_VOLUME", "VOLUME_MOUNT_GROUP"] })
  })
  it.effect.each([
    { name: "stage, no id", call: Node.stage({ ...stage, volumeId: "" }), details: "Volume ID missing in request" },
    {
      name: "stage, no path",
      call: Node.stage({ ...stage, stagingTargetPath: "" }),
      details: "Target path missing in request"
    },
    {
      name: "stage, no capability",
      call: Node.stage({ ...stage, volumeCapability: undefined }),
      details: "Volume capability missing in request"
    },
    {
      name: "unstage, no id",
      call: Node.unstage({ volumeId: "", stagingTargetPath: "/s" }),
      details: "Volume ID missing in request"
    },
    {
      name: "unstage, no path",
      call: Node.unstage({ volumeId: "v", stagingTargetPath: "" }),
      details: "Target path missing in request"
    }
  ])("2.5 $name", ({ call, details }) =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(call)
      assert.deepStrictEqual([failure.grpcCode, failure.details], ["INVALID_ARGUMENT", details])
    })
  )
  it.effect("2.5 staging succeeds and does nothing", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Node.stage(stage), {})
      assert.deepStrictEqual(yield* Node.unstage({ volumeId: "v", stagingTargetPath: "/s" }), {})
    })
  )
})

describe("request sanitising (2.2)", () => {
  it.each([
    { row: "13.1 TestSanitizeRequest: unpublish", request: { volumeId: "", targetPath: "" }, expected: "{}" },
    {
      row: "13.1 TestSanitizeRequest: secrets and tokens stripped",
      request: {
        secrets: { key: Redacted.make("MARKED") },
        volumeContext: {},
        serviceAccountTokens: Redacted.make("MARKED")
      },
      expected: `{"secrets":"***stripped***","volume_context":{"${TOKENS_KEY}":"***stripped***"}}`
    },
    {
      row: "2.2 names in snake case, keys of maps as they are, sorted",
      request: { volumeId: "v", targetPath: "/t", readonly: true, volumeContext: { podName: "p", aB: "c" } },
      expected: '{"readonly":true,"target_path":"/t","volume_context":{"aB":"c","podName":"p"},"volume_id":"v"}'
    },
    { row: "2.2 no secrets in the request, none in the log", request: { secrets: {} }, expected: "{}" },
    {
      row: "2.2 any redacted value",
      request: { other: Redacted.make("MARKED") },
      expected: '{"other":"***stripped***"}'
    }
  ])("$row", ({ expected, request }) => {
    const shown = sanitise(request)
    assert.deepStrictEqual<unknown>(JSON.parse(shown), JSON.parse(expected))
    assert.notInclude(shown, "MARKED")
  })
})

describe("Status: failures to gRPC", () => {
  const content = (reason: Failed.ContentNotMounted["reason"]) => new Failed.ContentNotMounted({ pod: "ns/p", reason })
  const call = (grpcCode: "UNAVAILABLE" | "RESOURCE_EXHAUSTED") =>
    new ProviderCallFailed({ provider: "v", grpcCode, details: "sealed", unanswered: true })
  it.each([
    {
      row: "2.7 #1-4",
      failure: new Failed.RequestInvalid({ detail: "Volume ID missing in request", remedy: "r" }),
      code: "INVALID_ARGUMENT",
      says: /^Volume ID missing in request$/u
    },
    {
      row: "2.7 #7",
      failure: new Failed.TargetNotInspected({ targetPath: "/t", detail: "EIO" }),
      code: "INTERNAL",
      says: /^failed to check if target path \/t is mount point, err: EIO/u
    },
    {
      row: "2.7 #8",
      failure: new Failed.TargetNotCreated({ targetPath: "/t", detail: "EROFS" }),
      code: "INTERNAL",
      says: /^failed to create target path \/t, err: EROFS/u
    },
    {
      row: "2.7 #12",
      failure: new Failed.SecretProviderClassUnavailable({ namespace: "ns", name: "c", reason: forbidden }),
      code: "UNKNOWN",
      says: /^failed to get secretproviderclass ns\/c, error: forbidden: verb get/u
    },
    {
      row: "2.7 #13",
      failure: new Failed.SecretProviderClassIncomplete({ detail: "provider not set in ns/c", remedy: "r" }),
      code: "UNKNOWN",
      says: /^provider not set in ns\/c/u
    },
    {
      row: "2.7 #19",
      failure: new Failed.TargetNotMounted({
        reason: new MountFailed({ operation: "mount", targetPath: "/t", errno: "EPERM" })
      }),
      code: "UNKNOWN",
      says: /^mount failed: .*EPERM.*privileged/u
    },
    {
      row: "2.7 #20 Q17",
      failure: content(call("UNAVAILABLE")),
      code: "UNAVAILABLE",
      says: /^failed to mount secrets store objects for pod ns\/p, err: rpc error: code = Unavailable desc = sealed/u
    },
    {
      row: "2.7 #20 Q17",
      failure: content(call("RESOURCE_EXHAUSTED")),
      code: "RESOURCE_EXHAUSTED",
      says: /code = ResourceExhausted/u
    },
    {
      row: "3.4 #2",
      failure: content(new ProviderRefused({ provider: "v", errorCode: "AuthFailed" })),
      code: "UNKNOWN",
      says: /mount request failed with provider error code AuthFailed/u
    },
    {
      row: "3.1",
      failure: content(new ProviderNameInvalid({ provider: "a/b" })),
      code: "UNKNOWN",
      says: /error connecting to provider "a\/b": invalid provider: provider "a\/b"/u
    },
    {
      row: "3.1",
      failure: content(
        new ProviderNotFound({ provider: "v", searched: [{ directory: "/d", found: "empty" }], waitedMillis: 0 })
      ),
      code: "UNKNOWN",
      says: /provider not found: provider "v", searched \/d \(empty\)/u
    },
    {
      row: "2.7 #21",
      failure: new Failed.PodStatusNotWritten({ pod: "ns/p", reason: forbidden }),
      code: "UNKNOWN",
      says: /^failed to create secret provider class pod status for pod ns\/p, err: forbidden/u
    },
    {
      row: "2.9 #6",
      failure: new UnpublishFailed({ targetPath: "/t", left: ["a", "b"] }),
      code: "INTERNAL",
      says: /^failed to clean and unmount target path \/t, err: a; b/u
    }
  ])("$row $failure._tag is $code", ({ code, failure, says }) => {
    const status = statusOf(failure)
    assert.strictEqual(status.grpcCode, code)
    assert.match(status.details, says)
  })

  it.each([
    {
      row: "Q19",
      failure: content(new ProviderNameInvalid({ provider: "a/b" })),
      code: "FailedToLookupProviderGRPCClient"
    },
    {
      row: "Q19",
      failure: new Failed.PodStatusNotWritten({ pod: "p", reason: forbidden }),
      code: "FailedToWritePodStatus"
    },
    { row: "3.6", failure: content(call("UNAVAILABLE")), code: "GRPCProviderError" },
    {
      row: "3.6",
      failure: content(new ProviderRefused({ provider: "v", errorCode: "AuthFailed" })),
      code: "AuthFailed"
    },
    {
      row: "3.6",
      failure: new Failed.SecretProviderClassUnavailable({ namespace: "n", name: "c", reason: forbidden }),
      code: "SecretProviderClassNotFound"
    },
    {
      row: "3.6",
      failure: new Failed.TargetNotInspected({ targetPath: "/t", detail: "e" }),
      code: "FailedToEnsureMountPoint"
    }
  ])("$row error_type of $failure._tag is $code", ({ code, failure }) => assert.strictEqual(failure.code, code))
})
