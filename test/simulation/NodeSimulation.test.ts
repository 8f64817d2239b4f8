/**
 * Runs of the whole driver on a simulated node; and mistakes that are planted between the driver and that node, to see
 * that a promise is broken when it should be.
 */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Redacted, Stream } from "effect"
import { type Plant, run } from "../../layers/fake/NodeSimulation.ts"
import type { Rates, RunResult } from "../../layers/fake/simulation/Scenario.ts"
import { CsiStatus } from "../../schemas/errors/CsiStatus.ts"
import type { MountResponse } from "../../schemas/Provider.ts"
import type { Providers } from "../../src/ports/Providers.ts"
import { INTERVAL_KEY } from "../../src/volume/Rotation.ts"

const HOURS = 0.5
const SEEDS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
const root = join(import.meta.dirname, "../..")

const simulateCommand = (...words: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, ["src/main/simulate.ts", ...words], {
    cwd: root,
    encoding: "utf8"
  })
  return { status, stderr, stdout }
}

const results = new Map<number, RunResult>()
const runOf = (seed: number): RunResult => {
  const result = results.get(seed) ?? run({ seed, hours: HOURS })
  results.set(seed, result)
  return result
}

const broken = ({ seed, violation }: RunResult): string =>
  violation === undefined
    ? ""
    : `seed ${seed}, ${violation.virtualMillis} ms: ${violation.id} ${violation.invariant}: ${violation.seen}`

describe("the driver on a simulated node", () => {
  it.each(SEEDS)(
    "keeps every promise: seed %i",
    (seed) => {
      const result = runOf(seed)
      assert.strictEqual(broken(result), "")
      assert.isAbove(result.history.figure("publish OK"), 50)
      assert.isAbove(result.history.figure("checks"), 1_000)
    },
    60_000
  )

  it.each([
    { seed: 2002, hours: 1.5, found: "S13: a volume whose record could not be read got a second pod status" },
    {
      seed: 115,
      hours: 1,
      found: "S14: a wish that was fulfilled in another life was one again while no record could be read"
    },
    {
      seed: 122,
      hours: 1,
      found: "S14: a frozen volume that a crash had left unrecorded was fetched anew to record it"
    },
    { seed: 405, hours: 0.5, found: "S8: a Secret was made of files that were being taken away" },
    {
      seed: 162,
      hours: 1,
      found: "S14: a frozen volume was recorded before its class was read, whose older wish then seemed new"
    }
  ])(
    "keeps what once failed: seed $seed ($found)",
    ({ hours, seed }) => {
      assert.strictEqual(broken(run({ seed, hours })), "")
    },
    60_000
  )

  it("most of what can go wrong does go wrong within these seeds", () => {
    const all = SEEDS.map(runOf)
    const sum = (figure: string) => all.reduce((total, { history }) => total + history.figure(figure), 0)
    for (const figure of ["kills", "stops", "fault Providers.mount fails", "fault API 503", "generations"]) {
      assert.isAbove(sum(figure), 0, figure)
    }
  })

  it("the same seed gives the same digest, also in another process, and other seeds give others", () => {
    const [one, again, other] = [11, 11, 12].map((seed) => run({ seed, hours: 0.2 }).digest)
    assert.strictEqual(one, again)
    assert.notStrictEqual(one, other)
    const { status, stdout } = simulateCommand("--seed", "11", "--hours", "0.2")
    assert.strictEqual(status, 0)
    assert.include(stdout, `digest ${one!.slice(0, 32)}`)
    assert.include(stdout, "every promise held")
  })
})

// ---- mistakes

type Mount = ReturnType<Providers["Service"]["mount"]>

const onMount =
  (mount: (target: string, ask: Mount) => Mount): Plant =>
  (ports) => ({
    ...ports,
    providers: {
      ...ports.providers,
      mount: (provider, request) => mount(request.targetPath, ports.providers.mount(provider, request))
    }
  })

const versionOf = (answer: MountResponse | undefined) => answer?.objectVersions[0]?.version

/** What has been answered already is answered with the one before. */
const goingBack = (): Plant => {
  const before = new Map<string, MountResponse>()
  const newest = new Map<string, MountResponse>()
  return onMount((target, ask) =>
    Effect.map(ask, (answer) => {
      const known = newest.get(target)
      if (versionOf(known) === versionOf(answer)) return before.get(target) ?? answer
      if (known !== undefined) before.set(target, known)
      newest.set(target, answer)
      return answer
    })
  )
}

/** The first answer that each volume got, for ever. */
const answeredOnce = (): Plant => {
  const first = new Map<string, MountResponse>()
  return onMount((target, ask) =>
    Effect.map(ask, (answer) => {
      const known = first.get(target) ?? answer
      // Answers that are refused do not count.
      if (versionOf(known) !== undefined && known.files.every(({ path }) => !/outside|below/u.test(path))) {
        first.set(target, known)
      }
      return known
    })
  )
}

/** Asks once per class, whoever it is for. */
const answeredFromACache = (): Plant => (ports) => {
  const cached = new Map<string, MountResponse>()
  return {
    ...ports,
    providers: {
      ...ports.providers,
      mount: (provider, request) => {
        const { source } = JSON.parse(Redacted.value(request.attributes))
        const known = cached.get(source)
        return known === undefined
          ? Effect.tap(ports.providers.mount(provider, request), (answer) =>
              Effect.sync(() => cached.set(source, answer))
            )
          : Effect.succeed(known)
      }
    }
  }
}

const onFiles =
  (change: (files: FileSystem.FileSystem) => Partial<FileSystem.FileSystem>): Plant =>
  (ports) => ({
    ...ports,
    fileSystem: FileSystem.make({ ...ports.fileSystem, ...change(ports.fileSystem) })
  })

const mistakes: ReadonlyArray<{
  readonly what: string
  readonly plant: () => Plant
  /** Instead of those that are drawn. */
  readonly rates?: Rates
  /** Which promise notices it, whatever the seed. */
  readonly breaks: ReadonlyArray<string>
}> = [
  {
    what: "a mounter that stacks a second mount",
    plant: () => (ports, node) => ({
      ...ports,
      mounter: {
        ...ports.mounter,
        mountTmpfs: (path, options) =>
          Effect.andThen(ports.mounter.mountTmpfs(path, options), Effect.ignore(node.mount(path, options)))
      }
    }),
    breaks: ["S1 publishedHoldsOneReply"]
  },
  {
    what: "a publish that answers OK with nothing done",
    plant: () => (ports) => ({
      ...ports,
      endpoint: {
        serve: (endpoint, handlers, options) =>
          ports.endpoint.serve(endpoint, { ...handlers, NodePublishVolume: () => Effect.succeed({}) }, options)
      }
    }),
    breaks: ["S1 publishedHoldsOneReply"]
  },
  {
    what: "a failed publish that keeps its mount",
    plant: () => (ports) => ({ ...ports, mounter: { ...ports.mounter, unmount: () => Effect.void } }),
    // Unpublish meets the same mistake, and never ends.
    breaks: ["S1 failedPublishLeavesNoMount", "L1 everyVolumeIsPublished"]
  },
  {
    what: "an exchange of ..data that is not one step",
    plant: () =>
      onFiles((files) => ({
        rename: (from, to) =>
          Effect.ignore(files.remove(to)).pipe(
            Effect.andThen(Effect.sleep(100)),
            Effect.andThen(files.rename(from, to))
          )
      })),
    breaks: ["S3 publishedNeverGoesBack", "S3 aFileNeverDisappears"]
  },
  {
    what: "files that are written over in place",
    plant: () => (ports) => ({
      ...ports,
      fileSystem: FileSystem.make({
        ...ports.fileSystem,
        // The new generation becomes the old directory, file by file.
        writeFile: (path, data, options) =>
          Effect.gen(function* () {
            yield* ports.fileSystem.writeFile(path, data, options)
            const [, target, relative] = /^(.*\/mount)\/\.\.\d[^/]*\/(.*)$/u.exec(path) ?? []
            if (target !== undefined) {
              const current = `${target}/..data/${relative}`
              if (yield* ports.fileSystem.exists(current)) yield* ports.fileSystem.writeFile(current, data)
            }
          })
      })
    }),
    breaks: ["S2 readersSeeOneGeneration"]
  },
  { what: "an answer that goes back to an older generation", plant: goingBack, breaks: ["S3 publishedNeverGoesBack"] },
  {
    what: "an answer that never gets newer",
    plant: answeredOnce,
    // Refusals are kept from the driver as well, which therefore tells nobody of them.
    breaks: ["L2 newestGenerationArrives", "S20 failuresAreTold"]
  },
  {
    what: "a wish for a refresh that is not heard",
    plant: () => (ports) => ({
      ...ports,
      kubernetes: {
        ...ports.kubernetes,
        watch: (request, idleMillis) =>
          Stream.filter(
            ports.kubernetes.watch(request, idleMillis),
            ({ type }) => type !== "MODIFIED" || !request.path.endsWith("/pods")
          )
      }
    }),
    breaks: ["L3 askedForArrives"]
  },
  {
    what: "a volume whose wish to stay as it is gets lost",
    plant: () => (ports) => ({
      ...ports,
      endpoint: {
        serve: (endpoint, handlers, options) =>
          ports.endpoint.serve(
            endpoint,
            {
              ...handlers,
              NodePublishVolume: (request, call) => {
                const { [INTERVAL_KEY]: _, ...volumeContext } = request.volumeContext
                return handlers.NodePublishVolume({ ...request, volumeContext }, call)
              }
            },
            options
          )
      }
    }),
    breaks: ["S14 pinnedNeverChanges"]
  },
  {
    what: "a Secret of which a key is lost on the way",
    plant: () => (ports) => ({
      ...ports,
      kubernetes: {
        ...ports.kubernetes,
        request: (request) => {
          if (request.method !== "POST" || !request.path.endsWith("/secrets")) return ports.kubernetes.request(request)
          const object = JSON.parse(JSON.stringify(request.body))
          const [, ...kept] = Object.entries(object.data)
          return ports.kubernetes.request({ ...request, body: { ...object, data: Object.fromEntries(kept) } })
        }
      }
    }),
    breaks: ["S8 secretIsOneGeneration"]
  },
  {
    what: "a look for users of a Secret that finds nobody",
    plant: () => (ports) => ({
      ...ports,
      kubernetes: {
        ...ports.kubernetes,
        request: (request) =>
          request.method === "GET" && request.path.endsWith("/pods") && request.query?.["fieldSelector"] === undefined
            ? Effect.succeed({ metadata: { resourceVersion: "1" }, items: [] })
            : // The pods of this node are not known either, so that every Secret seems to have lost its last user.
              ports.kubernetes.request(
                request.path.endsWith("/pods")
                  ? { ...request, query: { ...request.query, fieldSelector: "spec.nodeName=none" } }
                  : request
              )
      }
    }),
    breaks: ["S9 usedSecretStays"]
  },
  {
    what: "a provider that is asked twice",
    plant: () => onMount((_, ask) => Effect.andThen(Effect.ignore(ask), ask)),
    breaks: ["S11 providersAreSpared"]
  },
  {
    what: "an unpublish that asks the API server first",
    plant: () => (ports) => {
      const ask = Effect.mapError(
        ports.kubernetes.request({ method: "GET", path: "/api/v1/namespaces/x/pods" }),
        ({ detail }) => new CsiStatus({ grpcCode: "INTERNAL", details: detail })
      )
      return {
        ...ports,
        endpoint: {
          serve: (endpoint, handlers, options) =>
            ports.endpoint.serve(
              endpoint,
              {
                ...handlers,
                NodeUnpublishVolume: (request, call) => Effect.andThen(ask, handlers.NodeUnpublishVolume(request, call))
              },
              options
            )
        }
      }
    },
    breaks: ["S4 unpublishNeedsNobody"]
  },
  {
    what: "an unpublish that answers OK though the mount stayed",
    plant: () => (ports) => ({
      ...ports,
      endpoint: {
        serve: (endpoint, handlers, options) =>
          ports.endpoint.serve(endpoint, { ...handlers, NodeUnpublishVolume: () => Effect.succeed({}) }, options)
      }
    }),
    breaks: ["S4 unpublishLeavesNothing"]
  },
  {
    what: "a log line with what was written",
    plant: () =>
      onFiles((files) => ({
        writeFile: (path, data, options) =>
          Effect.andThen(
            Effect.logInfo("written", { text: Buffer.from(data).toString() }),
            files.writeFile(path, data, options)
          )
      })),
    breaks: ["S5 contentStaysOnTmpfs"]
  },
  {
    what: "an answer for another pod, out of a cache",
    plant: answeredFromACache,
    breaks: ["S6 contentIsThePodsOwn"]
  },
  {
    what: "an object that is replaced without the labels of others",
    plant: () => (ports) => ({
      ...ports,
      kubernetes: {
        ...ports.kubernetes,
        request: (request) => {
          if (request.method !== "PUT") return ports.kubernetes.request(request)
          const object = JSON.parse(JSON.stringify(request.body))
          const body = { ...object, metadata: { ...object.metadata, labels: {} } }
          return ports.kubernetes.request({ ...request, body })
        }
      }
    }),
    // The node's own label goes as well, by which sync finds the volume.
    breaks: ["S7 labelsOfOthersStay", "L4 secretFollows"]
  },
  {
    what: "a file outside of the volume",
    plant: () =>
      onFiles((files) => ({
        writeFile: (path, data, options) =>
          Effect.andThen(
            files.writeFile(path, data, options),
            Effect.ignore(files.writeFile("/tmp-file", new Uint8Array()))
          )
      })),
    breaks: ["S12 writesStayInside"]
  },
  {
    what: "a status write that is dropped",
    plant: () => (ports) => ({
      ...ports,
      kubernetes: {
        ...ports.kubernetes,
        request: (request) =>
          request.method === "POST" && request.path.includes("podstatuses")
            ? Effect.succeed(request.body)
            : ports.kubernetes.request(request)
      }
    }),
    breaks: ["S13 podStatusNamesItsVolume"]
  },
  {
    what: "a mount that never works after the first one of a process",
    plant: () => {
      const mounted = new Set<string>()
      return (ports) => ({
        ...ports,
        mounter: {
          ...ports.mounter,
          mountTmpfs: (path, options) =>
            Effect.suspend(() => {
              if (mounted.size < 3 || mounted.has(path)) {
                mounted.add(path)
                return ports.mounter.mountTmpfs(path, options)
              }
              return Effect.never
            })
        }
      })
    },
    breaks: ["L1 everyVolumeIsPublished", "L10 correctedClassesServe"]
  },
  {
    what: "a write that is made again and again",
    plant: () => (ports) => ({
      ...ports,
      mounter: {
        ...ports.mounter,
        inspect: (path) =>
          Effect.tap(ports.mounter.inspect(path), (state) =>
            state === "Mounted" ? Effect.ignore(ports.fileSystem.chmod(path, 0o755)) : Effect.void
          )
      }
    }),
    breaks: ["S10 quietMeansNoWrites"]
  },
  {
    what: "a link that upstream's release trips over",
    plant: () =>
      onFiles((files) => ({
        rename: (from, to) =>
          Effect.andThen(
            files.rename(from, to),
            Effect.ignore(files.symlink("..nowhere", to.replace(/\/\.\.data$/u, "/..data_tmp")))
          )
      })),
    rates: { legacyRate: 0.5, stopEveryMillis: 240_000 },
    breaks: ["S19 upstreamCanRefresh"]
  }
]

describe("a mistake is found", () => {
  const SEEDS = [21, 22, 23, 24, 25, 26]
  it.each(mistakes)("$what: $breaks.0", ({ breaks, plant, rates = {} }) => {
    for (const seed of SEEDS) {
      const { violation } = run({ seed, hours: 0.4, plant: plant(), rates: (drawn) => ({ ...drawn, ...rates }) })
      if (violation === undefined) continue
      assert.include(breaks, `${violation.id} ${violation.invariant}`, violation.seen)
      return
    }
    assert.fail(`not within the seeds ${SEEDS.join(", ")}`)
  })
})
