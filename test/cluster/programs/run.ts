/** What the programs of the cluster tests have in common: flags in Go's manner, a health endpoint, and their end. */
import { createServer } from "node:http"
import { Effect } from "effect"
import { parseListenAddress } from "../../../layers/real/HttpRoutes.ts"

/** @shape ["--http-endpoint=:9808"] -> name -> value */
const flags: ReadonlyMap<string, string> = new Map(
  process.argv.slice(2).flatMap((word) => {
    const [, name, value] = /^--?([a-z-]+)=(.*)$/u.exec(word) ?? []
    return name === undefined || value === undefined ? [] : [[name, value] as const]
  })
)

export const flag = (name: string): string => flags.get(name) ?? ""

/** /healthz answers 200 when the check succeeds. */
export const serveHealth = (address: string, check: Effect.Effect<void, { readonly message: string }>) =>
  Effect.gen(function* () {
    const answer = Effect.runForkWith(yield* Effect.context<never>())
    const { host = "0.0.0.0", port } = yield* Effect.fromResult(parseListenAddress(address))
    createServer((_, response) => {
      answer(
        Effect.match(check, {
          onFailure: ({ message }) => response.writeHead(500).end(`${message}\n`),
          onSuccess: () => response.writeHead(200).end("ok\n")
        })
      )
    }).listen(port, host)
  })

/** Until the first signal. */
export const run = <A, E>(effect: Effect.Effect<A, E>): void => {
  const fiber = Effect.runFork(effect)
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => fiber.interruptUnsafe())
  fiber.addObserver((exit) => {
    if (exit._tag === "Failure") process.stderr.write(`${exit.cause}\n`)
    process.exit(exit._tag === "Failure" ? 1 : 0)
  })
}
