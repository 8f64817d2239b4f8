/**
 * One GET request to a server on this machine, by Node alone. A certificate is not looked at: on the loopback address,
 * servers without one of their own have signed theirs themselves.
 */
import { get as httpGet } from "node:http"
import { get as httpsGet } from "node:https"
import { Data, Effect } from "effect"

export class HttpFailed extends Data.TaggedError("HttpFailed")<{ readonly message: string }> {}

interface Answer {
  readonly status: number
  readonly body: string
}

const TIMEOUT = "5 seconds"

/** @errors HttpFailed when there is no answer within five seconds; every status is an answer */
export const get = (url: string): Effect.Effect<Answer, HttpFailed> => {
  const failed = (why: string) => new HttpFailed({ message: `GET ${url}: ${why}` })
  return Effect.callback<Answer, HttpFailed>((resume) => {
    const headers = { connection: "close" }
    const begin = url.startsWith("https:") ? httpsGet : httpGet
    const request = begin(url, { headers, rejectUnauthorized: false }, (response) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") }))
      )
    })
    request.on("error", ({ message }) => resume(Effect.fail(failed(message))))
    return Effect.sync(() => request.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: TIMEOUT, orElse: () => Effect.fail(failed(`no answer in ${TIMEOUT}`)) }))
}
