/** The API server's own record of the whole run against the rights that operator and driver have. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { parse } from "yaml"
import { type Json, textAt } from "../support/Kubectl.ts"
import { asset, DRIVER, manifests, NAMESPACE, NODE_ACCOUNT, OPERATOR, SECRET_SYNC } from "../support/Objects.ts"
import { report } from "../support/Report.ts"
import {
  type AuditedRequest,
  compare,
  type Grant,
  grantsOf,
  type Kept,
  requestsOf,
  rulesOf,
  show
} from "../support/Rights.ts"

const keptFor = (why: string, ...grants: ReadonlyArray<string>): ReadonlyArray<Kept> =>
  grants.map((grant) => ({ grant, why }))

/** Rights of the driver that this version makes no use of. */
const KEPT_FOR_DRIVER = [
  ...keptFor(
    "drivers up to v1.5 read the audiences of their CSIDriver; their pods have this role until they are replaced",
    ...["list", "watch"].map((verb) => `${verb} csidrivers.storage.k8s.io ${DRIVER}`)
  ),
  {
    grant: "patch events",
    why: "an Event is counted up once in five minutes, and drivers of these scenarios seldom run for so long",
    mayBeUsed: true
  },
  ...keptFor("driver v1.6.0 updates Secrets; its pods have this role until they are replaced", "update secrets")
]

/** Rights of the operator that are used, or may come to be, without a request for them. */
const KEPT_FOR_OPERATOR = [
  ...keptFor(
    "the API server asks for it when the operator makes a RoleBinding to that role",
    `bind clusterroles.rbac.authorization.k8s.io ${SECRET_SYNC}`
  ),
  ...keptFor(
    "nothing of the ServiceAccount is required today; with a label or an annotation it would be brought up to date",
    `update serviceaccounts ${NODE_ACCOUNT}`
  )
]

const grantsOfObject = (object: unknown): ReadonlyArray<Grant> => grantsOf(rulesOf(object).rules)
const roles = manifests("deploy/operator.yaml").filter((object: Json) =>
  ["ClusterRole", "Role"].includes(textAt(object, "kind"))
)
const rolesNamed = (name: string) =>
  roles.filter((role) => textAt(role, "metadata", "name") === name).flatMap(grantsOfObject)
const roleOfDriver = (file: string) => grantsOfObject(parse(asset(`driver/rbac/${file}.yaml`)))

const driverRole = roleOfDriver("secretproviderclasses_role")
/** Nobody may grant a right without having it. */
const handedOn = new Set([...driverRole, ...roleOfDriver("privileged_role")].map(show))

const requestsBy = (requests: ReadonlyArray<AuditedRequest>, account: string) =>
  requests.filter(({ user }) => user === `system:serviceaccount:${NAMESPACE}:${account}`)

const NOTHING = { unused: [], denied: [], keptInVain: [] }

describe("rights", () => {
  let requests: ReadonlyArray<AuditedRequest>
  beforeAll(() => {
    requests = requestsOf(readFileSync(join(process.env["CLUSTER_DIRECTORY"] ?? "", "log/audit"), "utf8"))
  })

  it("the driver used every right that it has, and asked for no other", () => {
    const made = requestsBy(requests, NODE_ACCOUNT)
    report("API requests of the driver in all", String(made.length))
    assert.deepStrictEqual(compare([...driverRole, ...rolesNamed(SECRET_SYNC)], made, KEPT_FOR_DRIVER), NOTHING)
  })

  it("so did the operator; what else it has it hands on", () => {
    const made = requestsBy(requests, OPERATOR)
    report("API requests of the operator in all", String(made.length))
    const needed = rolesNamed(OPERATOR).filter((grant) => !handedOn.has(show(grant)))
    assert.deepStrictEqual(compare(needed, made, KEPT_FOR_OPERATOR), NOTHING)
  })
})
