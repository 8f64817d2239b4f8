/**
 * Kubernetes Secrets on the real driver: out of real files, over HTTPS, with the libraries that the bundle loads when
 * they are needed.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { objectAt } from "../../layers/fake/KubernetesObject.ts"
import { annotate, eventually, isRoot, make, PROVIDER, podPath, putPod, volumeOf } from "../support/DriverWorld.ts"
import { hasOpenssl, makeWorkshop } from "../support/OpenSsl.ts"

const SYNCED = {
  opaque: {
    secretName: "opaque",
    type: "Opaque",
    data: [{ objectName: "user", key: "username" }]
  },
  picked: {
    secretName: "picked",
    type: "Opaque",
    data: [{ objectName: "config.yaml#/database/password", key: "password" }]
  },
  tls: {
    secretName: "tls",
    type: "kubernetes.io/tls",
    data: [
      { objectName: "server.pfx", key: "tls.crt" },
      { objectName: "server.pfx", key: "tls.key" }
    ]
  }
}

describe.skipIf(!isRoot || !hasOpenssl)("Kubernetes Secrets on the real driver (needs root and openssl)", () => {
  it.live("6, L5: made of files, a YAML value and a PKCS#12 file; they follow a refresh, and go with the pod", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const workshop = yield* Effect.acquireRelease(Effect.sync(makeWorkshop), ({ remove }) => Effect.sync(remove))
        const { openssl } = workshop
        openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=server -keyout key.pem -out crt.pem")
        openssl("pkcs12 -export -inkey key.pem -in crt.pem -passout pass: -out server.pfx")
        const { bench, provider } = yield* make()
        const respond = (user: string) =>
          provider.respond(() =>
            Effect.succeed({
              objectVersion: [{ id: "secret/scripted", version: user }],
              error: undefined,
              files: [
                { path: "user", mode: 0o644, contents: Buffer.from(user) },
                { path: "config.yaml", mode: 0o644, contents: Buffer.from(`database:\n  password: ${user}'s\n`) },
                { path: "server.pfx", mode: 0o644, contents: Buffer.from(workshop.read("server.pfx")) }
              ]
            })
          )
        respond("alice")
        yield* bench.putClass("default", "spc", PROVIDER, { objects: "all" }, Object.values(SYNCED))
        const classPath = "/apis/secrets-store.csi.x-k8s.io/v1/namespaces/default/secretproviderclasses/spc"
        yield* annotate(bench, classPath, { "secrets-store.csi.k8s.io/sync-json-paths": "true" })
        const volume = yield* putPod(bench, volumeOf("web"))
        yield* bench.startDriver({ flags: ["--enable-secret-rotation=true", "--rotation-poll-interval=1h"] })
        yield* bench.kubelet.publish(volume)

        const secrets = Effect.map(bench.kubernetes.all("secrets"), (all) =>
          Object.fromEntries(
            all.map((secret) => [
              String(objectAt(secret, "metadata")["name"]),
              Object.fromEntries(
                Object.entries(objectAt(secret, "data")).map(([key, value]) => [
                  key,
                  Buffer.from(String(value), "base64").toString()
                ])
              )
            ])
          )
        )
        const made = yield* eventually(secrets, (found) => Object.keys(found).length === 3)
        assert.deepStrictEqual(made["opaque"], { username: "alice" })
        assert.deepStrictEqual(made["picked"], { password: "alice's" })
        workshop.write("tls.key", made["tls"]?.["tls.key"] ?? "")
        workshop.write("tls.crt", (made["tls"]?.["tls.crt"] ?? "").replace(/^[A-Za-z ]+: .*\n/gmu, ""))
        assert.strictEqual(
          openssl("x509 -in tls.crt -noout -pubkey").toString(),
          openssl("pkey -in tls.key -pubout").toString()
        )

        respond("bob")
        yield* annotate(bench, podPath(volume), { "secrets-store.csi.k8s.io/force-refresh": "now" })
        yield* eventually(secrets, (found) => found["opaque"]?.["username"] === "bob", 5)

        yield* bench.kubelet.unpublish(volume)
        yield* Effect.orDie(bench.api.request({ method: "DELETE", path: podPath(volume) }))
        yield* eventually(secrets, (found) => Object.keys(found).length === 0, 30)
      })
    )
  )
})
