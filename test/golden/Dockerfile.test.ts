/** What the images promise that can be read off their recipe: the rest is shown on a node, by test/cluster. */
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { NODE_FLAGS } from "../../layers/development/DriverProcess.ts"

const text = readFileSync(fileURLToPath(new URL("../../Dockerfile", import.meta.url)), "utf8")
/** Lines of each stage, by its name. */
const stages = new Map(
  text
    .split(/^FROM /mu)
    .slice(1)
    .map((stage) => [/ AS (\S+)/u.exec(stage)?.[1] ?? "", stage.split("\n")] as const)
)
const linesOf = (stage: string, instruction: string) =>
  (stages.get(stage) ?? []).filter((line) => line.startsWith(`${instruction} `))

describe("the Dockerfile", () => {
  it.each([
    { target: "driver", user: "0:0" },
    { target: "operator", user: "65532:65532" }
  ])("$target starts Node as the tests do, as user $user", ({ target, user }) => {
    const command = ["/usr/bin/node", ...NODE_FLAGS, `/app/${target}.cjs`]
    assert.deepStrictEqual(linesOf(target, "ENTRYPOINT"), [
      `ENTRYPOINT ${JSON.stringify(command).replaceAll(",", ", ")}`
    ])
    assert.deepStrictEqual(linesOf(target, "USER"), [`USER ${user}`])
  })

  it("nothing is run in what is shipped, and probes are the cluster's", () => {
    for (const stage of ["runtime", "driver", "operator"]) assert.deepStrictEqual(linesOf(stage, "RUN"), [], stage)
    assert.notInclude(text, "HEALTHCHECK")
  })

  it("what buildah 1.28 does not know is not in it", () => {
    assert.notMatch(text, /<<|--link|@sha256:/u)
  })
})
