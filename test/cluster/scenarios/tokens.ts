/** Tokens of the pod's service account, by either way, and whether the API server accepts them. */
import { assert, describe, it } from "@effect/vitest"
import { driverLog } from "../support/Driver.ts"
import { apply, at, exec, get, type Json, kubectl, listAt, podReady, until } from "../support/Kubectl.ts"
import {
  AUDIENCES,
  clusterCsiDriver,
  DRIVER,
  inNewNamespace,
  MOUNT,
  pod,
  ROTATION_SECONDS,
  secretProviderClass,
  secretsStore
} from "../support/Objects.ts"

const readsAs = async (namespace: string) => {
  await inNewNamespace(namespace)
  await apply(
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "reader", namespace } },
    secretProviderClass({
      namespace,
      name: "class",
      objects: ["token:vault=vault", "token:api://AzureADTokenExchange=azure"]
    }),
    pod({ namespace, name: "app", classes: ["class"], serviceAccount: "reader" })
  )
  await podReady(namespace, "app")
  const reader = `system:serviceaccount:${namespace}:reader of app`
  assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/vault`), reader)
  assert.strictEqual(await exec(namespace, "app", "cat", `${MOUNT}/azure`), reader)
  assert.notMatch(await driverLog(), /eyJ[\w-]{20,}/u, "a token in the log")
}

/** As a whole: of a list that becomes empty, a server-side apply leaves nothing. */
const setTokenRequests = (tokenRequests: Json) => {
  const secretRotation = { type: "Custom", custom: { minimumRefreshAge: ROTATION_SECONDS } }
  const value = { driverType: "SecretsStore", secretsStore: { secretRotation, tokenRequests } }
  const patch = JSON.stringify([{ op: "add", path: "/spec/driverConfig", value }])
  return kubectl(["patch", "clustercsidriver", DRIVER, "--type=json", `--patch=${patch}`])
}

/** The CSIDriver has exactly these. */
const managed = async (...audiences: ReadonlyArray<Json>) => {
  await setTokenRequests({ type: "Managed", managed: { audiences } })
  await until("the audiences in the CSIDriver", 30, async () => {
    const found = listAt(await get("csidriver", DRIVER), "spec", "tokenRequests")
    if (JSON.stringify(found) === JSON.stringify(audiences)) return true
    throw new Error(JSON.stringify(found))
  })
}

describe("tokens", () => {
  it("tokens Managed one, many and empty: the CSIDriver has exactly those", async () => {
    await managed({ audience: "vault", expirationSeconds: 3600 })
    await managed(
      { audience: "sts.amazonaws.com", expirationSeconds: 7200 },
      { audience: "api://AzureADTokenExchange", expirationSeconds: 3600 }
    )
    await managed()
  })

  it("tokens revert: from Managed to Unmanaged is refused", async () => {
    const refused = await setTokenRequests({ type: "Unmanaged" }).catch(String)
    assert.include(refused, "tokenRequests type cannot be changed from Managed")
  })

  it("in the volume context, for the audiences of the ClusterCSIDriver", async () => {
    await apply(clusterCsiDriver(secretsStore(ROTATION_SECONDS, AUDIENCES)))
    await until("the audiences in the CSIDriver", 30, async () => {
      const requests = at(await get("csidriver", DRIVER), "spec", "tokenRequests")
      return JSON.stringify(requests).includes("AzureADTokenExchange")
    })
    await readsAs("tokens-context")
  })

  it("in the secrets, where serviceAccountTokenInSecrets asks for that", async () => {
    await kubectl([
      "patch",
      "csidriver",
      DRIVER,
      "--type=merge",
      '--patch={"spec":{"serviceAccountTokenInSecrets":true}}'
    ])
    await readsAs("tokens-secrets")
    // An administrator's setting stays.
    assert.strictEqual(at(await get("csidriver", DRIVER), "spec", "serviceAccountTokenInSecrets"), true)
  })
})
