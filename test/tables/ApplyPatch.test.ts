/** Server-side apply in memory: whose fields are which, and what becomes of an object. */
import { assert, describe, it } from "@effect/vitest"
import { apply, conflictWords, duplicateIn, merge } from "../../layers/fake/ApplyPatch.ts"
import type { JsonObject } from "../../layers/fake/KubernetesObject.ts"
import {
  type Author,
  afterUpdate,
  closed,
  compare,
  decode,
  encode,
  entriesOf,
  fieldsOf,
  type MergeSchema,
  type Owner,
  ownersBefore,
  remove
} from "../../layers/fake/ManagedFields.ts"

const schema: MergeSchema = {
  fields: {
    data: { each: {} },
    rules: { atomic: true },
    set: { set: true },
    list: { keys: ["name"], item: { fields: { ports: { keys: ["port", "protocol"], defaults: { protocol: "TCP" } } } } }
  }
}

describe("fields", () => {
  it.each([
    { name: "nothing", object: {}, fields: {} },
    { name: "a scalar, also one that is false", object: { a: 1, b: false }, fields: { "f:a": {}, "f:b": {} } },
    {
      name: "an object of fields is not owned besides them",
      object: { a: { b: { c: 1 } } },
      fields: { "f:a": { "f:b": { "f:c": {} } } }
    },
    { name: "an empty object is owned itself", object: { a: {}, data: {} }, fields: { "f:a": {}, "f:data": {} } },
    { name: "a map is owned by its entries", object: { data: { a: "1" } }, fields: { "f:data": { "f:a": {} } } },
    {
      name: "an entry that is an object is owned besides what is in it",
      object: { data: { a: { b: 1 } } },
      fields: { "f:data": { "f:a": { ".": {}, "f:b": {} } } }
    },
    { name: "a list of which nothing is known is one", object: { other: [{ a: 1 }] }, fields: { "f:other": {} } },
    { name: "an object that is one", object: { rules: { a: 1 } }, fields: { "f:rules": {} } },
    {
      name: "members of a set",
      object: { set: ["b", "a"] },
      fields: { "f:set": { 'v:"a"': {}, 'v:"b"': {} } }
    },
    {
      name: "items by their keys, those that are left out as well",
      object: { list: [{ name: "x", ports: [{ port: 1 }] }] },
      fields: {
        "f:list": {
          'k:{"name":"x"}': {
            ".": {},
            "f:name": {},
            "f:ports": { 'k:{"port":1,"protocol":"TCP"}': { ".": {}, "f:port": {} } }
          }
        }
      }
    },
    { name: "an empty list of items is nobody's", object: { list: [], set: [] }, fields: {} },
    { name: "an empty list that is one", object: { other: [] }, fields: { "f:other": {} } },
    { name: "a name with dots and slashes", object: { "a.b/c": 1 }, fields: { "f:a.b/c": {} } }
  ])("of $name, written as FieldsV1 and read again", ({ fields, object }) => {
    const found = fieldsOf(object, schema)
    assert.deepStrictEqual<unknown>(encode(found), fields)
    assert.deepStrictEqual(decode(encode(found)), found)
  })

  const words = (fields: ReadonlySet<string>) => JSON.stringify(encode(fields))

  it.each([
    { name: "nothing", before: { a: { b: 1 } }, after: { a: { b: 1 } }, added: "{}", changed: "{}", removed: "{}" },
    {
      name: "a value",
      before: { a: 1, b: 1 },
      after: { a: 2, b: 1 },
      added: "{}",
      changed: '{"f:a":{}}',
      removed: "{}"
    },
    {
      name: "what is new, and all that holds it",
      before: {},
      after: { data: { a: "1" } },
      added: '{"f:data":{".":{},"f:a":{}}}',
      changed: "{}",
      removed: "{}"
    },
    {
      name: "what is gone",
      before: { data: { a: "1" }, list: [{ name: "x", v: 1 }, { name: "y" }] },
      after: { list: [{ name: "y" }] },
      added: "{}",
      changed: "{}",
      removed: '{"f:data":{".":{},"f:a":{}},"f:list":{"k:{\\"name\\":\\"x\\"}":{".":{},"f:name":{},"f:v":{}}}}'
    },
    {
      name: "a list that is one",
      before: { other: [1] },
      after: { other: [1, 2] },
      added: "{}",
      changed: '{"f:other":{}}',
      removed: "{}"
    },
    {
      name: "the order of items is no difference",
      before: { set: ["a", "b"], list: [{ name: "x" }, { name: "y" }] },
      after: { set: ["b", "a"], list: [{ name: "y" }, { name: "x" }] },
      added: "{}",
      changed: "{}",
      removed: "{}"
    }
  ])("what is different: $name", ({ added, after, before, changed, removed }) => {
    const found = compare(before, after, schema)
    assert.deepStrictEqual([words(found.added), words(found.changed), words(found.removed)], [added, changed, removed])
  })

  it("what is left empty is null", () => {
    const object = { a: { b: 1, c: 2 }, data: { x: "1" }, list: [{ name: "x", v: 1 }, { name: "y" }], set: ["m", "n"] }
    const gone = decode({
      "f:a": { "f:b": {} },
      "f:data": { "f:x": {} },
      "f:list": { 'k:{"name":"x"}': { "f:v": {} }, 'k:{"name":"y"}': {} },
      "f:set": { 'v:"m"': {} }
    })
    assert.deepStrictEqual(remove(object, gone, schema), { a: { c: 2 }, data: null, list: [{ name: "x" }], set: ["n"] })
    assert.deepStrictEqual(remove({ data: { x: "1" }, b: 1 }, decode({ "f:data": {} }), schema), { b: 1 })
  })

  it("objects that hold fields are closed over, entries of a map and items are not", () => {
    const fields = decode({
      "f:a": { "f:b": { "f:c": {} } },
      "f:data": { "f:x": { "f:y": {} } },
      "f:list": { 'k:{"name":"x"}': { "f:v": { "f:w": {} } } }
    })
    assert.deepStrictEqual(encode(closed(fields, schema)), {
      "f:a": { ".": {}, "f:b": { ".": {}, "f:c": {} } },
      "f:data": { ".": {}, "f:x": { "f:y": {} } },
      "f:list": { ".": {}, 'k:{"name":"x"}': { "f:v": { ".": {}, "f:w": {} } } }
    })
  })
})

describe("merging", () => {
  const names = (...list: ReadonlyArray<string>) => ({ list: list.map((name) => ({ name })) })
  it.each([
    {
      name: "objects by field",
      live: { a: { b: 1, c: 1 } },
      applied: { a: { c: 2, d: 2 } },
      merged: { a: { b: 1, c: 2, d: 2 } }
    },
    { name: "an empty object takes nothing away", live: { a: { b: 1 } }, applied: { a: {} }, merged: { a: { b: 1 } } },
    {
      name: "what is one is replaced",
      live: { rules: { a: 1 } },
      applied: { rules: { b: 1 } },
      merged: { rules: { b: 1 } }
    },
    {
      name: "a list that is one is replaced",
      live: { other: [1, 2] },
      applied: { other: [3] },
      merged: { other: [3] }
    },
    { name: "another shape replaces", live: { a: { b: 1 } }, applied: { a: "1" }, merged: { a: "1" } },
    {
      name: "items by name, field by field",
      live: { list: [{ name: "x", a: 1 }, { name: "y" }] },
      applied: { list: [{ name: "x", b: 2 }] },
      merged: { list: [{ name: "x", a: 1, b: 2 }, { name: "y" }] }
    },
    { name: "a new item comes last", live: names("x", "y"), applied: names("x", "n"), merged: names("x", "y", "n") },
    { name: "or where it was applied", live: names("x", "y"), applied: names("n", "y"), merged: names("x", "n", "y") },
    {
      name: "the applied order counts",
      live: names("a", "x", "b"),
      applied: names("b", "a"),
      merged: names("x", "b", "a")
    },
    {
      name: "members of a set",
      live: { set: ["a", "b"] },
      applied: { set: ["c", "b"] },
      merged: { set: ["a", "c", "b"] }
    },
    {
      name: "items are the same with a key that one leaves out",
      live: { list: [{ name: "x", ports: [{ port: 1, protocol: "TCP" }] }] },
      applied: { list: [{ name: "x", ports: [{ port: 1 }, { port: 1, protocol: "UDP" }] }] },
      merged: {
        list: [
          {
            name: "x",
            ports: [
              { port: 1, protocol: "TCP" },
              { port: 1, protocol: "UDP" }
            ]
          }
        ]
      }
    }
  ])("$name", ({ applied, live, merged }) => assert.deepStrictEqual<unknown>(merge(live, applied, schema), merged))

  it.each([
    { name: "a set", object: { set: ["a", "a"] }, expected: '.set: duplicate entries for key [="a"]' },
    {
      name: "a list within an item",
      object: { list: [{ name: "x", ports: [{ port: 1 }, { port: 1, protocol: "TCP" }] }] },
      expected: '.list[name="x"].ports: duplicate entries for key [port=1,protocol="TCP"]'
    },
    { name: "a list that is one", object: { other: [1, 1] }, expected: undefined }
  ])("what is named twice is found: $name", ({ expected, object }) =>
    assert.strictEqual(duplicateIn(object, schema), expected)
  )
})

describe("owners", () => {
  const author = (manager: string, operation: Author["operation"] = "Update"): Author => ({
    manager,
    operation,
    apiVersion: "v1"
  })
  const owner = (by: Author, fields: JsonObject, time?: string): Owner => ({
    ...by,
    ...(time === undefined ? {} : { time }),
    fields: decode(fields)
  })
  const told = (owners: ReadonlyArray<Owner>) =>
    entriesOf(owners).map(({ fieldsV1, manager, operation, time }) => [manager, operation, time, fieldsV1])

  it.each([
    {
      name: "what it sets is its own, and nobody else's any more",
      before: { a: 1, b: 1 },
      after: { a: 2, b: 1, c: 1 },
      expected: [
        ["first", "Update", "t1", { "f:b": {} }],
        ["second", "Update", "t2", { "f:a": {}, "f:c": {} }]
      ]
    },
    {
      name: "what it takes away is nobody's",
      before: { a: 1, b: 1 },
      after: { b: 1 },
      expected: [["first", "Update", "t1", { "f:b": {} }]]
    },
    { name: "whoever has nothing left is not named", before: { a: 1, b: 1 }, after: {}, expected: [] },
    {
      name: "names and versions are nobody's",
      before: { a: 1, b: 1 },
      after: { a: 1, b: 1, apiVersion: "v1", kind: "K", metadata: { name: "n", uid: "u", resourceVersion: "1" } },
      expected: [["first", "Update", "t1", { "f:a": {}, "f:b": {} }]]
    }
  ])("after an ordinary write: $name", ({ after, before, expected }) => {
    const owners = [owner(author("first"), { "f:a": {}, "f:b": {} }, "t1")]
    const left = afterUpdate(owners, compare(before, after, schema), author("second"), "t2")
    assert.deepStrictEqual<unknown>(told(left), expected)
  })

  it("a second write of the same author is one entry, of the time when it last set something", () => {
    const first = afterUpdate([], compare({}, { a: 1, b: 1 }, schema), author("me"), "t1")
    const second = afterUpdate(first, compare({ a: 1, b: 1 }, { a: 1, c: 1 }, schema), author("me"), "t2")
    const third = afterUpdate(second, compare({ a: 1, c: 1 }, { a: 1 }, schema), author("me"), "t3")
    assert.deepStrictEqual<unknown>(told(second), [["me", "Update", "t2", { "f:a": {}, "f:c": {} }]])
    assert.deepStrictEqual<unknown>(told(third), [["me", "Update", "t2", { "f:a": {} }]])
  })

  it("entries are in the order of operation, time and manager", () => {
    const owners = [
      owner(author("b"), { "f:a": {} }, "t1"),
      owner(author("a"), { "f:a": {} }, "t1"),
      owner(author("c"), { "f:a": {} }, "t0"),
      owner(author("z", "Apply"), { "f:a": {} }, "t9")
    ]
    assert.deepStrictEqual(
      entriesOf(owners).map(({ manager }) => manager),
      ["z", "c", "a", "b"]
    )
  })

  const entry = { manager: "m", operation: "Update", apiVersion: "v1", fieldsV1: { "f:a": {} } }
  it.each([
    { name: "nobody before it was there", live: undefined, sent: {}, expected: [] },
    { name: "those of the living object", live: [entry], sent: {}, expected: ["m"] },
    { name: "those that are sent", live: [], sent: { managedFields: [{ ...entry, manager: "n" }] }, expected: ["n"] },
    { name: "nobody, when they are emptied", live: [entry], sent: { managedFields: [] }, expected: [] },
    { name: "nobody, when there is an empty one", live: [entry], sent: { managedFields: [{}] }, expected: [] },
    {
      name: "those of the living object, when those that are sent make no sense",
      live: [entry],
      sent: { managedFields: [{ ...entry, operation: "Guess" }] },
      expected: ["m"]
    }
  ])("before a write: $name", ({ expected, live, sent }) => {
    const before = live === undefined ? undefined : { metadata: { managedFields: live } }
    assert.deepStrictEqual(
      ownersBefore(before, { metadata: sent }).map(({ manager }) => manager),
      expected
    )
  })

  /** Applies one after the other, and tells the object and who owns what in the end, or the conflict. */
  const applying = (
    ...steps: ReadonlyArray<readonly [manager: string, applied: JsonObject, force?: boolean]>
  ): unknown => {
    let live: JsonObject | undefined
    let owners: ReadonlyArray<Owner> = []
    for (const [index, [manager, applied, force = false]] of steps.entries()) {
      const by = author(manager, "Apply")
      const outcome = apply({ live, blank: {}, applied, owners, author: by, force, time: `t${index + 1}`, schema })
      if (outcome._tag === "Conflicts") return conflictWords(outcome.conflicts).message
      live = outcome.object
      owners = outcome.owners
    }
    return [live, ...told(owners).map(([manager, , time, fields]) => `${manager} ${time} ${JSON.stringify(fields)}`)]
  }

  it.each([
    {
      name: "the first makes it",
      result: applying(["a", { data: { x: "1" } }]),
      expected: [{ data: { x: "1" } }, 'a t1 {"f:data":{"f:x":{}}}']
    },
    {
      name: "the same again changes nothing, not even the time",
      result: applying(["a", { data: { x: "1" } }], ["a", { data: { x: "1" } }]),
      expected: [{ data: { x: "1" } }, 'a t1 {"f:data":{"f:x":{}}}']
    },
    {
      name: "what is left out goes",
      result: applying(["a", { data: { x: "1", y: "1" } }], ["a", { data: { y: "1" } }]),
      expected: [{ data: { y: "1" } }, 'a t2 {"f:data":{"f:y":{}}}']
    },
    {
      name: "what is left out stays when another applies it",
      result: applying(["a", { data: { x: "1", y: "1" } }], ["b", { data: { x: "1" } }], ["a", { data: { y: "1" } }]),
      expected: [{ data: { x: "1", y: "1" } }, 'b undefined {"f:data":{"f:x":{}}}', 'a t1 {"f:data":{"f:y":{}}}']
    },
    {
      name: "what others put beside it stays",
      result: applying(["a", { data: { x: "1" } }], ["b", { data: { y: "1" } }], ["a", {}]),
      expected: [{ data: { y: "1" } }, 'b t2 {"f:data":{"f:y":{}}}']
    },
    {
      name: "an item goes with the last that applies it, what another has in it stays",
      result: applying(
        ["a", { list: [{ name: "x", v: 1 }, { name: "y" }] }],
        ["b", { list: [{ name: "x", w: 1 }] }],
        ["a", {}]
      ),
      expected: [
        { list: [{ name: "x", w: 1 }] },
        'b t2 {"f:list":{"k:{\\"name\\":\\"x\\"}":{".":{},"f:name":{},"f:w":{}}}}'
      ]
    },
    {
      name: "another value of another is a conflict",
      result: applying(["a", { data: { x: "1" } }], ["b", { data: { x: "2" } }]),
      expected: 'Apply failed with 1 conflict: conflict with "a": .data.x'
    },
    {
      name: "an entry in a list that is one is a conflict with the whole list",
      result: applying(["a", { other: [1] }], ["b", { other: [1, 2] }]),
      expected: 'Apply failed with 1 conflict: conflict with "a": .other'
    },
    {
      name: "fields are told before what is in other fields",
      result: applying(["a", { z: 1, data: { x: "1", y: "1" } }], ["b", { z: 2, data: { x: "2", y: "2" } }]),
      expected: 'Apply failed with 3 conflicts: conflicts with "a":\n- .z\n- .data.x\n- .data.y'
    },
    {
      name: "by force it changes hands",
      result: applying(["a", { data: { x: "1", y: "1" } }], ["b", { data: { x: "2" } }, true]),
      expected: [{ data: { x: "2", y: "1" } }, 'a t1 {"f:data":{"f:y":{}}}', 'b t2 {"f:data":{"f:x":{}}}']
    }
  ])("apply: $name", ({ expected, result }) => assert.deepStrictEqual<unknown>(result, expected))

  it("an object of nobody is one author's before it is applied to", () => {
    const outcome = apply({
      live: { data: { x: "1", y: "1" } },
      blank: {},
      applied: { data: { x: "1" } },
      owners: [],
      author: author("a", "Apply"),
      force: false,
      time: "t1",
      schema
    })
    assert.deepStrictEqual<unknown>(outcome._tag === "Applied" ? told(outcome.owners) : [], [
      ["a", "Apply", undefined, { "f:data": { "f:x": {} } }],
      ["before-first-apply", "Update", "t1", { "f:data": { ".": {}, "f:x": {}, "f:y": {} } }]
    ])
  })

  it("conflicts say the version of whoever wrote, and the part it wrote to", () => {
    const path = [...decode({ "f:list": { 'k:{"port":1,"protocol":"TCP"}': { 'v:"x"': {} } } })][0] ?? ""
    const { causes, message } = conflictWords([{ owner: { ...author("me"), subresource: "status" }, path }])
    const by = 'conflict with "me" with subresource "status" using v1'
    const field = '.list[port=1,protocol="TCP"][="x"]'
    assert.strictEqual(message, `Apply failed with 1 conflict: ${by}: ${field}`)
    assert.deepStrictEqual(causes, [{ reason: "FieldManagerConflict", message: by, field }])
  })
})
