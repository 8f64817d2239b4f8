import { assert, describe, it } from "@effect/vitest"
import type { OwnerReference } from "../../schemas/Meta.ts"
import { ownersOf, united } from "../../src/sync/OwnerReferences.ts"

const replicaSet = (name: string, uid = `uid-of-${name}`): OwnerReference => ({
  apiVersion: "apps/v1",
  kind: "ReplicaSet",
  name,
  uid
})
const job: OwnerReference = { apiVersion: "batch/v1", kind: "Job", name: "web", uid: "uid-of-job" }
const podStatus = { metadata: { name: "web-default-spc", namespace: "default", uid: "uid-of-status" } }
const itsPodStatus: OwnerReference = {
  apiVersion: "secrets-store.csi.x-k8s.io/v1",
  kind: "SecretProviderClassPodStatus",
  name: "web-default-spc",
  uid: "uid-of-status"
}

describe("who owns the Secrets of a pod (6.7 #3)", () => {
  it.each([
    {
      row: "13.1 TestPatcherForPodWithOwner",
      name: "a pod of a ReplicaSet: the ReplicaSet, with its uid",
      ownerReferences: [replicaSet("web")],
      expected: [replicaSet("web")]
    },
    {
      row: "6.7",
      name: "controller and blockOwnerDeletion are left out",
      ownerReferences: [{ ...replicaSet("web"), controller: true, blockOwnerDeletion: true }],
      expected: [replicaSet("web")]
    },
    {
      row: "Q38",
      name: "all owners of a pod with several, in their order",
      ownerReferences: [replicaSet("c"), job, replicaSet("a"), replicaSet("b")],
      expected: [replicaSet("c"), job, replicaSet("a"), replicaSet("b")]
    },
    {
      row: "13.1 TestPatcherForStaticPod",
      name: "a pod without owners: its pod status",
      ownerReferences: undefined,
      expected: [itsPodStatus]
    },
    { row: "6.7", name: "a pod with an empty list: its pod status", ownerReferences: [], expected: [itsPodStatus] }
  ])("$row $name", ({ expected, ownerReferences }) => {
    const metadata = { name: "web", ...(ownerReferences === undefined ? {} : { ownerReferences }) }
    assert.deepStrictEqual(ownersOf({ metadata }, podStatus), expected)
  })
})

interface Union {
  readonly row: string
  readonly name: string
  readonly has: ReadonlyArray<OwnerReference>
  readonly more: ReadonlyArray<OwnerReference>
  readonly expected: ReadonlyArray<OwnerReference>
}

const unions: ReadonlyArray<Union> = [
  {
    row: "13.1 TestPatchSecretWithOwnerRef",
    name: "the same one twice: once",
    has: [],
    more: [replicaSet("web"), replicaSet("web")],
    expected: [replicaSet("web")]
  },
  {
    row: "13.1 TestPatchSecretWithOwnerRef",
    name: "one that is there already: nothing is added",
    has: [replicaSet("web")],
    more: [replicaSet("web")],
    expected: [replicaSet("web")]
  },
  {
    row: "Q11, D6",
    name: "made anew under its old name: added",
    has: [replicaSet("web", "old")],
    more: [replicaSet("web", "new")],
    expected: [replicaSet("web", "old"), replicaSet("web", "new")]
  },
  {
    row: "Q11",
    name: "of another kind with the same name: added",
    has: [replicaSet("web")],
    more: [job],
    expected: [replicaSet("web"), job]
  },
  {
    row: "S7",
    name: "those of others stay, in place and as they are",
    has: [{ ...job, controller: true }, replicaSet("theirs")],
    more: [replicaSet("web"), job],
    expected: [{ ...job, controller: true }, replicaSet("theirs"), replicaSet("web")]
  },
  { row: "6.7", name: "no more: those that are there", has: [job], more: [], expected: [job] }
]

describe("owners of one Secret together (6.7 #5)", () => {
  it.each(unions)("$row $name", ({ expected, has, more }) => {
    assert.deepStrictEqual(united(has, more), expected)
  })

  it("Q38 no list is changed: what one Secret gains no other one does", () => {
    const [ofPod, shared] = [[replicaSet("a"), replicaSet("b"), replicaSet("c")], [replicaSet("theirs")]]
    const [first, second] = [united(ofPod, shared), united(ofPod, [job])]
    assert.deepStrictEqual(first, [replicaSet("a"), replicaSet("b"), replicaSet("c"), replicaSet("theirs")])
    assert.deepStrictEqual(second, [replicaSet("a"), replicaSet("b"), replicaSet("c"), job])
    assert.deepStrictEqual(ofPod, [replicaSet("a"), replicaSet("b"), replicaSet("c")])
    assert.deepStrictEqual(shared, [replicaSet("theirs")])
  })

  it("upstream's way, one per name, is not what these rows say (Q11)", () => {
    const byName: typeof united = (references, more) => {
      const names = new Set(references.map(({ name }) => name))
      return [...references, ...more.filter(({ name }) => !names.has(name) && names.add(name))]
    }
    const wrong = unions.filter(({ expected, has, more }) => byName(has, more).length !== expected.length)
    assert.deepStrictEqual(
      wrong.map(({ row }) => row),
      ["Q11, D6", "Q11", "S7"]
    )
  })
})
