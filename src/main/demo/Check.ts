/**
 * A demo's checks: what was expected is compared with what is there, and both are shown when they differ.
 */
import { isDeepStrictEqual } from "node:util"
import { Data, Effect } from "effect"

/** Something is not as it has to be. */
export class Unexpected extends Data.TaggedError("Unexpected")<{
  readonly what: string
  readonly expected: unknown
  readonly actual: unknown
}> {
  override get message() {
    return `${this.what} is not as expected`
  }
}

const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value, undefined, 2))

/** A step of the demo did not end as it has to: which one, and how it ended instead. */
export class DemoFailed extends Data.TaggedError("DemoFailed")<{
  readonly step: string
  readonly what: string
  readonly expected: unknown
  readonly actual: unknown
}> {
  override get message() {
    return [
      `step "${this.step}": ${this.what}`,
      `expected: ${shown(this.expected)}`,
      `actual:   ${shown(this.actual)}`
    ].join("\n")
  }
}

/** Names the step in which something failed. */
export const inStep =
  (step: string) =>
  (failure: { readonly _tag: string; readonly message: string }): DemoFailed =>
    failure instanceof Unexpected
      ? new DemoFailed({ step, what: failure.what, expected: failure.expected, actual: failure.actual })
      : new DemoFailed({ step, what: failure._tag, expected: "success", actual: failure.message })

/** @errors Unexpected unless both are structurally equal */
export const same = <A>(what: string, actual: A, expected: A): Effect.Effect<void, Unexpected> =>
  isDeepStrictEqual(actual, expected) ? Effect.void : Effect.fail(new Unexpected({ what, expected, actual }))

/** @errors Unexpected unless the text holds every part */
export const holds = (
  what: string,
  actual: string,
  ...parts: ReadonlyArray<string>
): Effect.Effect<void, Unexpected> =>
  parts.every((part) => actual.includes(part))
    ? Effect.void
    : Effect.fail(new Unexpected({ what, expected: parts.map((part) => `... ${part} ...`).join("\n"), actual }))

/** The value, where there is one. */
export const present = <A>(what: string, value: A | undefined): Effect.Effect<A, Unexpected> =>
  value === undefined
    ? Effect.fail(new Unexpected({ what, expected: "something", actual: "nothing" }))
    : Effect.succeed(value)
