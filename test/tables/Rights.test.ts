/** What the cluster tests make of rules and of an audit log: a valid case, and one thing changed per row. */
import { assert, describe, it } from "@effect/vitest"
import { type AuditedRequest, compare, type Grant, grantsOf, requestsOf, show } from "../cluster/support/Rights.ts"

const GROUP = "secrets-store.csi.x-k8s.io"

describe("grantsOf", () => {
  it.each([
    {
      name: "every verb on every resource of every group",
      rules: [{ apiGroups: ["", "apps"], resources: ["pods", "pods/log"], verbs: ["get", "list"] }],
      expected: [
        ...["get pods", "list pods", "get pods/log", "list pods/log"],
        ...["get pods.apps", "list pods.apps", "get pods/log.apps", "list pods/log.apps"]
      ]
    },
    {
      name: "each name by itself",
      rules: [{ apiGroups: [GROUP], resources: ["classes"], resourceNames: ["a", "b"], verbs: ["get"] }],
      expected: [`get classes.${GROUP} a`, `get classes.${GROUP} b`]
    },
    { name: "paths are no resources", rules: [{ nonResourceURLs: ["/metrics"], verbs: ["get"] }], expected: [] },
    { name: "no rule", rules: [], expected: [] }
  ])("$name", ({ expected, rules }) => {
    assert.deepStrictEqual(grantsOf(rules).map(show), expected)
  })
})

describe("requestsOf", () => {
  const event = {
    verb: "update",
    user: { username: "somebody" },
    requestURI: "/api/v1/namespaces/here/pods/app/status",
    objectRef: { resource: "pods", subresource: "status", namespace: "here", name: "app", apiVersion: "v1" },
    responseStatus: { code: 200 },
    requestReceivedTimestamp: "1970-01-01T00:00:01.500000Z",
    annotations: { "authorization.k8s.io/decision": "allow" },
    stage: "ResponseComplete"
  }
  const request: AuditedRequest = {
    group: "",
    resource: "pods/status",
    verb: "update",
    name: "app",
    user: "somebody",
    uri: event.requestURI,
    code: 200,
    isAllowed: true,
    timeMillis: 1_500
  }
  const { name: _, ...unnamed } = request

  it.each([
    { name: "a subresource", event, expected: [request] },
    {
      name: "another group",
      event: { ...event, objectRef: { resource: "pods", apiGroup: GROUP, name: "app" } },
      expected: [{ ...request, group: GROUP, resource: "pods" }]
    },
    {
      name: "a list names nobody",
      event: { ...event, verb: "list", objectRef: { resource: "pods" } },
      expected: [{ ...unnamed, verb: "list", resource: "pods" }]
    },
    {
      name: "refused by the authorizers",
      event: { ...event, annotations: { "authorization.k8s.io/decision": "forbid" } },
      expected: [{ ...request, isAllowed: false }]
    },
    { name: "discovery is no request for a resource", event: { ...event, objectRef: undefined }, expected: [] }
  ])("$name", ({ event, expected }) => {
    assert.deepStrictEqual(requestsOf(`${JSON.stringify(event)}\n\n`), expected)
  })

  it("a line that cannot be read is an error", () => {
    assert.throws(() => requestsOf('{"verb":'))
  })
})

describe("compare", () => {
  const grant: Grant = { group: GROUP, resource: "classes", verb: "get" }
  const named: Grant = { ...grant, name: "class" }
  const made: AuditedRequest = { ...named, user: "somebody", uri: "/x", code: 200, isAllowed: true, timeMillis: 0 }
  const create: Grant = { ...grant, verb: "create" }
  const patch: Grant = { ...grant, verb: "patch" }
  const nothing = { unused: [], denied: [], keptInVain: [] }
  const why = "for a reason"

  it.each([
    { name: "used", grants: [grant], requests: [made], expected: nothing },
    { name: "used by its name", grants: [named], requests: [made], expected: nothing },
    { name: "never asked for", grants: [grant], requests: [], expected: { ...nothing, unused: [show(grant)] } },
    {
      name: "another verb",
      grants: [grant],
      requests: [{ ...made, verb: "list" }],
      expected: { ...nothing, unused: [show(grant)] }
    },
    {
      name: "another group",
      grants: [grant],
      requests: [{ ...made, group: "" }],
      expected: { ...nothing, unused: [show(grant)] }
    },
    {
      name: "a subresource is another resource",
      grants: [grant],
      requests: [{ ...made, resource: "classes/status" }],
      expected: { ...nothing, unused: [show(grant)] }
    },
    {
      name: "another name",
      grants: [named],
      requests: [{ ...made, name: "other" }],
      expected: { ...nothing, unused: [show(named)] }
    },
    {
      name: "not found is used as well",
      grants: [grant],
      requests: [{ ...made, code: 404 }],
      expected: nothing
    },
    {
      name: "an apply of what is there is a patch",
      grants: [create, patch],
      requests: [{ ...made, verb: "patch" }],
      expected: { ...nothing, unused: [show(create)] }
    },
    {
      name: "an apply of what is not there is a create as well",
      grants: [create, patch],
      requests: [{ ...made, verb: "patch", code: 201 }],
      expected: nothing
    },
    {
      name: "denied, told once",
      grants: [],
      requests: [
        { ...made, code: 403, isAllowed: false },
        { ...made, code: 403, isAllowed: false }
      ],
      expected: { ...nothing, denied: [`${show(named)} (/x)`] }
    },
    {
      name: "refused by somebody else than the authorizers",
      grants: [grant],
      requests: [{ ...made, code: 403 }],
      expected: nothing
    },
    {
      name: "denied is not used",
      grants: [grant],
      requests: [{ ...made, isAllowed: false }],
      expected: { ...nothing, unused: [show(grant)], denied: [`${show(named)} (/x)`] }
    },
    {
      name: "kept",
      grants: [grant],
      requests: [],
      kept: [{ grant: show(grant), why }],
      expected: nothing
    },
    {
      name: "kept and used",
      grants: [grant],
      requests: [made],
      kept: [{ grant: show(grant), why }],
      expected: { ...nothing, keptInVain: [show(grant)] }
    },
    {
      name: "kept, and used in a run that took long",
      grants: [grant],
      requests: [made],
      kept: [{ grant: show(grant), why, mayBeUsed: true }],
      expected: nothing
    },
    {
      name: "kept, perhaps used, and not granted",
      grants: [],
      requests: [],
      kept: [{ grant: show(grant), why, mayBeUsed: true }],
      expected: { ...nothing, keptInVain: [show(grant)] }
    },
    {
      name: "kept and not granted",
      grants: [],
      requests: [],
      kept: [{ grant: show(grant), why }],
      expected: { ...nothing, keptInVain: [show(grant)] }
    }
  ])("$name", ({ expected, grants, kept, requests }) => {
    assert.deepStrictEqual(compare(grants, requests, kept), expected)
  })
})
