/**
 * csi-sanity, the CSI project's own conformance test, against the real driver over its socket, called as upstream calls
 * it. It is built once per machine with `go install`, into the user's cache.
 *
 * @source reference/driver.md 2.10
 */
import { spawn, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { make, tell } from "../support/DriverWorld.ts"

const VERSION = "v5.6.0"
const PACKAGE = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
/** Upstream's list, and what it skips by an idempotency count of 0, for which the program has no flag. */
const SKIP = "Controller|should.work|NodeStageVolume|should.be.idempotent"
const cache = join(
  process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"),
  "secrets-store-csi",
  `csi-sanity-${VERSION}`
)
const binary = join(cache, "csi-sanity")
const hasGo = spawnSync("go", ["version"]).status === 0

/** One spec of ginkgo's report, as far as it is looked at. */
interface Spec {
  readonly LeafNodeType: string
  readonly ContainerHierarchyTexts: ReadonlyArray<string> | null
  readonly LeafNodeText: string
  readonly State: string
  readonly Failure?: { readonly Message: string }
}

const nameOf = ({ ContainerHierarchyTexts, LeafNodeText }: Spec) =>
  [...(ContainerHierarchyTexts ?? []), LeafNodeText].join(" ")

/** Every row of 2.10 that upstream passes. */
const MUST_PASS = [
  "Identity Service GetPluginCapabilities should return appropriate capabilities",
  "Identity Service Probe should return appropriate information",
  "Identity Service GetPluginInfo should return appropriate information",
  "Node Service NodeGetCapabilities should return appropriate capabilities",
  "Node Service NodeGetInfo should return appropriate values",
  "Node Service NodePublishVolume should fail when no volume id is provided",
  "Node Service NodePublishVolume should fail when no target path is provided",
  "Node Service NodePublishVolume should fail when no volume capability is provided",
  "Node Service NodeUnpublishVolume should fail when no volume id is provided",
  "Node Service NodeUnpublishVolume should fail when no target path is provided",
  "Node Service NodeUnstageVolume should fail when no volume id is provided",
  "Node Service NodeUnstageVolume should fail when no staging target path is provided"
]

/** What upstream skips: by its expression, by its configuration, or since the capability is not advertised. */
const MAY_SKIP = [
  /Controller/u,
  /^Node Service should (?:work|be idempotent)$/u,
  /^Node Service NodeStageVolume /u,
  /^Node Service NodeUnpublishVolume should remove target path$/u,
  /^Node Service NodePublishVolume with single node multi writer capability /u,
  /^Node Service (?:NodeGetVolumeStats|NodeExpandVolume|NodeGetVolumeHealth|NodeGetStorageHealth) /u
]

const run = (command: string, args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) =>
  Effect.callback<{ readonly code: number | null; readonly output: string }>((resume) => {
    let output = ""
    const child = spawn(command, args, { env: { ...process.env, ...environment }, stdio: ["ignore", "pipe", "pipe"] })
    const keep = (chunk: Buffer) => {
      output += chunk.toString()
    }
    child.stdout.on("data", keep)
    child.stderr.on("data", keep)
    child.on("error", (error) => keep(Buffer.from(error.message)))
    child.on("close", (code) => resume(Effect.succeed({ code, output })))
    return Effect.sync(() => void child.kill("SIGKILL"))
  })

const build = Effect.gen(function* () {
  if (existsSync(binary)) return
  mkdirSync(cache, { recursive: true })
  const { code, output } = yield* run("go", ["install", `${PACKAGE}@${VERSION}`], { GOBIN: cache })
  assert.strictEqual(code, 0, output)
})

it.live.skipIf(!hasGo && !existsSync(binary))(
  `2.10: csi-sanity ${VERSION} passes what upstream passes and skips nothing more (needs Go)`,
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        yield* build
        const { bench } = yield* make()
        yield* bench.startDriver({ flags: ["--nodeid=somenodeid"] })
        const report = join(bench.directory, "sanity.json")
        const directories = join(bench.directory, "sanity")
        mkdirSync(directories)
        const makeDirectory = join(bench.directory, "make-directory")
        writeFileSync(makeDirectory, '#!/bin/sh\nmkdir -p "$1" && echo "$1"\n', { mode: 0o755 })
        const { code, output } = yield* run(binary, [
          `--ginkgo.skip=${SKIP}`,
          "--ginkgo.no-color",
          `--ginkgo.json-report=${report}`,
          `--csi.endpoint=unix:${bench.socket}`,
          `--csi.mountdir=${join(directories, "mount")}`,
          `--csi.stagingdir=${join(directories, "staging")}`,
          // With a way of its own to make target directories, and none to check them, "should remove target path" is
          // skipped, as in upstream's call.
          `--csi.createmountpathcmd=${makeDirectory}`,
          `--csi.createstagingpathcmd=${makeDirectory}`
        ])
        const suites: ReadonlyArray<{ readonly SpecReports: ReadonlyArray<Spec> }> = JSON.parse(
          readFileSync(report, "utf8")
        )
        const specs = suites.flatMap((suite) => suite.SpecReports).filter((spec) => spec.LeafNodeType === "It")
        const inState = (...states: ReadonlyArray<string>) =>
          specs.filter(({ State }) => states.includes(State)).map(nameOf)
        const passed = inState("passed")
        const skipped = inState("skipped", "pending")
        tell(
          `csi-sanity ${VERSION}: ${passed.length} passed, ${specs.length - passed.length - skipped.length} failed, ${skipped.length} skipped`
        )
        const others = specs.filter(({ State }) => !["passed", "skipped", "pending"].includes(State))
        assert.deepStrictEqual(
          others.map((spec) => `${nameOf(spec)}: ${spec.Failure?.Message.slice(0, 80)}`),
          []
        )
        assert.strictEqual(code, 0, output)
        for (const name of MUST_PASS) {
          assert.isTrue(
            passed.some((it) => it.includes(name)),
            `not passed: ${name}; passed: ${passed.join("; ")}`
          )
        }
        assert.deepStrictEqual(
          skipped.filter((name) => !MAY_SKIP.some((pattern) => pattern.test(name))),
          []
        )
      })
    ),
  { timeout: 300_000 }
)
