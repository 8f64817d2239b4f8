// What both kinds of test clusters need to reach their API server, and to let it sign service accounts' tokens.
import { generateKeyPairSync } from "node:crypto"
import { existsSync, readFileSync } from "node:fs"
import { request } from "node:https"

const ANSWER_MILLIS = 5_000

/**
 * One request with a token.
 *
 * @shape  ({ server: URL, authority: file of the certificate, which comes with the server }, token) -> (method, path,
 *         body) -> { status, text }, or undefined when there is no answer yet
 */
export const asking =
  ({ authority, server }, token) =>
  (method, path, body) =>
    new Promise((resolve) => {
      if (!existsSync(authority)) {
        resolve(undefined)
        return
      }
      const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" }
      const asked = request(`${server}${path}`, { method, headers, ca: readFileSync(authority) }, (response) => {
        let text = ""
        response.setEncoding("utf8")
        response.on("data", (chunk) => {
          text += chunk
        })
        response.on("end", () => resolve({ status: response.statusCode, text }))
        response.on("error", () => resolve(undefined))
      })
      asked.setTimeout(ANSWER_MILLIS, () => asked.destroy())
      asked.on("error", () => resolve(undefined))
      asked.end(body)
    })

/** @shape ({ server, authority }, name of a user, token) -> a kubeconfig */
export const kubeconfig = ({ authority, server }, name, token) => ({
  apiVersion: "v1",
  kind: "Config",
  "current-context": name,
  clusters: [{ name, cluster: { server, "certificate-authority-data": readFileSync(authority, "base64") } }],
  users: [{ name, user: { token } }],
  contexts: [{ name, context: { cluster: name, user: name } }]
})

/** @shape () -> { privateKey, publicKey } in PEM, which tokens of service accounts are signed with */
export const accountKeys = () =>
  generateKeyPairSync("rsa", {
    modulusLength: 2048,
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" }
  })
