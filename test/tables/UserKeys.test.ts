import { assert, describe, it } from "@effect/vitest"
import * as UserKeys from "../../src/sync/UserKeys.ts"

describe("who has which Secret", () => {
  it("a user keeps what he has had, until he goes", () => {
    const keys = UserKeys.make()
    assert.deepStrictEqual([...keys.note("u", ["a", "b"])], ["a", "b"])
    assert.deepStrictEqual([...keys.note("u", ["c"])], ["a", "b", "c"])
    assert.deepStrictEqual([...keys.note("v", ["a"])], ["a"])
    assert.deepStrictEqual([...keys.of("a")], ["u", "v"])
    assert.deepStrictEqual([...keys.forget("u")], ["a", "b", "c"])
    assert.deepStrictEqual([keys.hasUsers("a"), keys.hasUsers("b")], [true, false])
    assert.deepStrictEqual([...keys.forget("u")], [])
    assert.deepStrictEqual([...keys.forget("v")], ["a"])
    assert.deepStrictEqual([...keys.of("a")], [])
  })

  it("a user without keys takes no room, and has none", () => {
    const keys = UserKeys.make()
    assert.deepStrictEqual([...keys.note("u", [])], [])
    assert.deepStrictEqual([...keys.forget("u")], [])
  })
})
