import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { ClusterCSIDriver } from "../../../schemas/ClusterCSIDriver.ts"
import { type JsonObject, objectAt } from "../../../schemas/Json.ts"
import type { Manifest } from "../../../schemas/Manifest.ts"
import { decide, rememberedIn, render, toRemember } from "../../../src/operator/CSIDriver.ts"
import { CSI_DRIVER_FILE, staticObjects } from "../../../src/operator/Desired.ts"
import { type Change, UNCHANGED } from "../../../src/operator/Merge.ts"
import { Annotation, PROFILE_LABEL } from "../../../src/operator/Names.ts"
import { settingsOf } from "../../../src/operator/Settings.ts"
import { clusterCsiDriver, config, manifestOf, manifests, sha256, stored } from "../../support/OperatorFixtures.ts"

const manifest = manifestOf(manifests.get(CSI_DRIVER_FILE))
const DEFAULT_HASH = "231f3836fed69a3709202a6e804a0f3b9765229217037cc1e259dd58433d60e8"
const AZURE = { audience: "api://AzureADTokenExchange" }
const AWS = { audience: "sts.amazonaws.com", expirationSeconds: 3600 }

const rotationNone = {
  driverConfig: { driverType: "SecretsStore", secretsStore: { secretRotation: { type: "None" } } }
}
const managedTokens = (audiences: ReadonlyArray<JsonObject>) => ({
  driverConfig: {
    driverType: "SecretsStore",
    secretsStore: { tokenRequests: { type: "Managed", managed: { audiences } } }
  }
})

/** What an API server has, `spec` and metadata changed. */
const live = (spec: JsonObject = {}, metadata: JsonObject = {}): Manifest => {
  const made = stored({
    ...manifest,
    metadata: {
      ...manifest.metadata,
      annotations: { ...manifest.metadata.annotations, [Annotation.specHash]: DEFAULT_HASH }
    },
    spec: {
      ...objectAt(manifest, "spec"),
      requiresRepublish: true,
      storageCapacity: false,
      seLinuxMount: false,
      ...spec
    }
  })
  return manifestOf({ ...made, metadata: { ...made.metadata, uid: "first", ...metadata } })
}

const remembering = (uid: string, tokenRequests: ReadonlyArray<JsonObject>): JsonObject => ({
  annotations: { [Annotation.rememberedTokens]: JSON.stringify({ uid, tokenRequests }) }
})

const decided = (it: ClusterCSIDriver, found: Manifest | undefined): Change =>
  decide(render(manifest, settingsOf(it), found, rememberedIn(it), sha256), found)

/** Type, what it says changed, and the spec that is written. */
const summary = (change: Change) => ({
  tag: change._tag,
  ...(change._tag === "Update" && change.detail !== undefined ? { detail: change.detail } : {}),
  ...(change._tag === "Unchanged" ? {} : { spec: change.object["spec"] })
})

const spec = { ...objectAt(manifest, "spec"), requiresRepublish: true }
const kept = { storageCapacity: false, seLinuxMount: false }

describe("what is done about the CSIDriver", () => {
  it.each<{
    readonly row: string
    readonly name: string
    readonly wanted?: JsonObject
    readonly marks?: JsonObject
    readonly found: Manifest | undefined
    readonly expected: JsonObject
  }>([
    { row: "4.4", name: "absent", found: undefined, expected: { tag: "Create", spec } },
    {
      row: "4.4",
      name: "absent, with audiences",
      wanted: managedTokens([AWS, AZURE]),
      found: undefined,
      expected: { tag: "Create", spec: { ...spec, tokenRequests: [AWS, AZURE] } }
    },
    { row: "4.4", name: "nothing to do", found: live(), expected: { tag: "Unchanged" } },
    {
      row: "4.4",
      name: "one that is being deleted is waited for",
      found: live({ requiresRepublish: false }, { deletionTimestamp: "2026-01-01T00:00:00Z" }),
      expected: { tag: "Unchanged" }
    },
    {
      row: "Q10",
      name: "rotation None is written in place",
      wanted: rotationNone,
      found: live(),
      expected: {
        tag: "Update",
        detail: "changed: spec.requiresRepublish",
        spec: { ...spec, ...kept, requiresRepublish: false }
      }
    },
    {
      row: "Q39",
      name: "before 5.0 there was no requiresRepublish: in place as well",
      found: live({ requiresRepublish: false, tokenRequests: [AZURE] }),
      expected: {
        tag: "Update",
        detail: "changed: spec.requiresRepublish",
        spec: { ...spec, ...kept, tokenRequests: [AZURE] }
      }
    },
    {
      row: "Q10",
      name: "audiences are written in place",
      wanted: managedTokens([AWS]),
      found: live(),
      expected: {
        tag: "Update",
        detail: "changed: spec.tokenRequests",
        spec: { ...spec, ...kept, tokenRequests: [AWS] }
      }
    },
    {
      row: "4.4",
      name: "podInfoOnMount and fsGroupPolicy are put back in place",
      found: live({ podInfoOnMount: false, fsGroupPolicy: "None" }),
      expected: {
        tag: "Update",
        detail: "changed: spec.podInfoOnMount, spec.fsGroupPolicy",
        spec: { ...spec, ...kept }
      }
    },
    {
      row: "9.3",
      name: "a field that the API server has lost is put back in place",
      found: live({ fsGroupPolicy: undefined }),
      expected: { tag: "Update", detail: "changed: spec.fsGroupPolicy", spec: { ...spec, ...kept } }
    },
    {
      row: "4.4",
      name: "what we do not set is somebody else's",
      found: live({ storageCapacity: true, seLinuxMount: true }),
      expected: { tag: "Unchanged" }
    },
    {
      row: "Q12",
      name: "an extra audience at the end is reverted",
      wanted: managedTokens([AWS]),
      found: live({ tokenRequests: [AWS, AZURE] }),
      expected: {
        tag: "Update",
        detail: "changed: spec.tokenRequests",
        spec: { ...spec, ...kept, tokenRequests: [AWS] }
      }
    },
    {
      row: "Q12",
      name: "any audience is reverted when there are to be none",
      wanted: managedTokens([]),
      found: live({ tokenRequests: [AZURE] }),
      expected: { tag: "Update", detail: "changed: spec.tokenRequests", spec: { ...spec, ...kept } }
    },
    {
      row: "Q12",
      name: "another order is another list",
      wanted: managedTokens([AWS, AZURE]),
      found: live({ tokenRequests: [AZURE, AWS] }),
      expected: {
        tag: "Update",
        detail: "changed: spec.tokenRequests",
        spec: { ...spec, ...kept, tokenRequests: [AWS, AZURE] }
      }
    },
    {
      row: "2.3",
      name: "no audiences are to be there, and there are none",
      wanted: managedTokens([]),
      found: live({ tokenRequests: [] }),
      expected: { tag: "Unchanged" }
    },
    {
      row: "4.4",
      name: "attachRequired cannot be changed",
      found: live({ attachRequired: true }),
      expected: { tag: "Recreate", spec: { ...spec, ...kept } }
    },
    {
      row: "4.4",
      name: "an absent attachRequired is true",
      found: live({ attachRequired: undefined }),
      expected: { tag: "Recreate", spec: { ...spec, ...kept } }
    },
    {
      row: "4.4",
      name: "volumeLifecycleModes cannot be changed",
      found: live({ volumeLifecycleModes: ["Persistent"] }),
      expected: { tag: "Recreate", spec: { ...spec, ...kept } }
    },
    {
      row: "4.4",
      name: "nor can one mode too many be taken away",
      found: live({ volumeLifecycleModes: ["Ephemeral", "Persistent"] }),
      expected: { tag: "Recreate", spec: { ...spec, ...kept } }
    },
    {
      row: "Q10 B5",
      name: "a new one has the audiences of the old",
      found: live({ attachRequired: true, tokenRequests: [AZURE] }),
      expected: { tag: "Recreate", spec: { ...spec, ...kept, tokenRequests: [AZURE] } }
    },
    {
      row: "Q10 B5",
      name: "absent, and its audiences are remembered",
      marks: remembering("first", [AZURE, AWS]),
      found: undefined,
      expected: { tag: "Create", spec: { ...spec, tokenRequests: [AZURE, AWS] } }
    },
    {
      row: "Q10 B5",
      name: "made again by somebody else without audiences: they come back",
      marks: remembering("before", [AZURE]),
      found: live(),
      expected: {
        tag: "Update",
        detail: "changed: spec.tokenRequests",
        spec: { ...spec, ...kept, tokenRequests: [AZURE] }
      }
    },
    {
      row: "Q10 B5",
      name: "made again by somebody else with other audiences: those stay",
      marks: remembering("before", [AZURE]),
      found: live({ tokenRequests: [AWS] }),
      expected: { tag: "Update", spec: { ...spec, ...kept, tokenRequests: [AWS] } }
    },
    {
      row: "Q10",
      name: "an administrator may take them away from the same object",
      marks: remembering("first", [AZURE]),
      found: live(),
      expected: { tag: "Unchanged" }
    },
    {
      row: "2.3",
      name: "what is remembered does not matter where the list is ours",
      wanted: managedTokens([]),
      marks: remembering("before", [AZURE]),
      found: live(),
      expected: { tag: "Unchanged" }
    },
    {
      row: "B5",
      name: "a note that cannot be read is none",
      marks: { annotations: { [Annotation.rememberedTokens]: "{" } },
      found: live(),
      expected: { tag: "Unchanged" }
    }
  ])("$row $name", ({ expected, found, marks = {}, wanted = {} }) => {
    assert.deepStrictEqual<unknown>(
      summary(decided(clusterCsiDriver({ managementState: "Managed", ...wanted }, marks), found)),
      expected
    )
  })

  it("4.4 audiences set by hand are kept; the annotation says what an older operator would compare", () => {
    const change = decided(clusterCsiDriver(), live({ tokenRequests: [AZURE] }))
    assert.strictEqual(change._tag, "Update")
    if (change._tag !== "Update") return
    assert.isUndefined(change.detail)
    assert.deepStrictEqual<unknown>(change.object["spec"], live({ tokenRequests: [AZURE] })["spec"])
    assert.notStrictEqual(change.object.metadata.annotations?.[Annotation.specHash], DEFAULT_HASH)
    assert.deepStrictEqual(decided(clusterCsiDriver(), change.object), UNCHANGED)
  })

  it("Q10 a new one keeps other people's labels, and nothing that the API server gives", () => {
    const found = live(
      { attachRequired: true },
      {
        labels: { [PROFILE_LABEL]: "baseline", team: "a" },
        creationTimestamp: "2026-01-01T00:00:00Z",
        managedFields: []
      }
    )
    const change = decided(clusterCsiDriver(), found)
    assert.deepStrictEqual<unknown>(change, {
      _tag: "Recreate",
      uid: "first",
      object: {
        apiVersion: "storage.k8s.io/v1",
        kind: "CSIDriver",
        metadata: {
          name: "secrets-store.csi.k8s.io",
          labels: { [PROFILE_LABEL]: "baseline", team: "a" },
          annotations: { "csi.openshift.io/managed": "true", [Annotation.specHash]: DEFAULT_HASH }
        },
        spec: { ...spec, ...kept }
      }
    })
  })
})

describe("the label with the profile of inline volumes", () => {
  it.each([
    { row: "4.4", name: "an administrator's value stays", labels: { [PROFILE_LABEL]: "privileged" }, value: undefined },
    { row: "4.4", name: "so does an empty one", labels: { [PROFILE_LABEL]: "" }, value: undefined },
    { row: "4.4 9.3", name: "taken away, it comes back as shipped", labels: {}, value: "restricted" }
  ])("$row $name", ({ labels, value }) => {
    const change = decided(clusterCsiDriver(), live({}, { labels }))
    assert.strictEqual(change._tag === "Update" ? change.object.metadata.labels?.[PROFILE_LABEL] : undefined, value)
  })

  it("4.4 9.3 a manifest without it is refused before anything is sent", () => {
    const without = { ...manifest, metadata: { ...manifest.metadata, labels: {} } }
    const rendered = staticObjects(new Map([[CSI_DRIVER_FILE, without]]), config, {
      syncNamespaces: [],
      servedGroups: new Set(),
      apiServerPorts: []
    })
    const failure = rendered.find((it) => Result.isFailure(it) && it.failure.file === CSI_DRIVER_FILE)
    assert.deepStrictEqual(
      failure,
      Result.fail({
        file: CSI_DRIVER_FILE,
        error: `CSIDriver secrets-store.csi.k8s.io supports Ephemeral volume lifecycle but is missing required label ${PROFILE_LABEL}`
      })
    )
  })
})

describe("what is remembered of audiences", () => {
  const note = (uid: string, tokenRequests: ReadonlyArray<JsonObject>) => JSON.stringify({ uid, tokenRequests })

  it.each<{
    readonly name: string
    readonly wanted?: JsonObject
    readonly marks?: JsonObject
    readonly found: Manifest | undefined
    readonly expected: string | null | undefined
  }>([
    { name: "nothing to remember", found: live(), expected: undefined },
    { name: "no CSIDriver yet", found: undefined, expected: undefined },
    {
      name: "audiences that are seen for the first time",
      found: live({ tokenRequests: [AZURE] }),
      expected: note("first", [AZURE])
    },
    {
      name: "the same as before",
      marks: remembering("first", [AZURE]),
      found: live({ tokenRequests: [AZURE] }),
      expected: undefined
    },
    {
      name: "others than before",
      marks: remembering("first", [AZURE]),
      found: live({ tokenRequests: [AZURE, AWS] }),
      expected: note("first", [AZURE, AWS])
    },
    {
      name: "taken away by an administrator",
      marks: remembering("first", [AZURE]),
      found: live(),
      expected: null
    },
    {
      name: "the CSIDriver is gone: the note stays",
      marks: remembering("first", [AZURE]),
      found: undefined,
      expected: undefined
    },
    {
      name: "made again without them: the note is not turned over to the new one before it has them",
      marks: remembering("before", [AZURE]),
      found: live(),
      expected: undefined
    },
    {
      name: "made again, and they are back",
      marks: remembering("before", [AZURE]),
      found: live({ tokenRequests: [AZURE] }),
      expected: note("first", [AZURE])
    },
    {
      name: "a note that cannot be read is taken away",
      marks: { annotations: { [Annotation.rememberedTokens]: "{" } },
      found: live(),
      expected: null
    },
    {
      name: "where the list is ours there is no note",
      wanted: managedTokens([AWS]),
      found: live({ tokenRequests: [AZURE] }),
      expected: undefined
    },
    {
      name: "where the list has become ours the note goes",
      wanted: managedTokens([AWS]),
      marks: remembering("first", [AZURE]),
      found: live({ tokenRequests: [AZURE] }),
      expected: null
    }
  ])("Q10 B5 $name", ({ expected, found, marks = {}, wanted = {} }) => {
    const it = clusterCsiDriver({ managementState: "Managed", ...wanted }, marks)
    assert.strictEqual(toRemember(settingsOf(it), found, it), expected)
  })
})
