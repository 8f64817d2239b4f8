/**
 * The providers of a simulated node: they answer with the generation that a class has when they are asked, and say in
 * every file for whom it is. Some write the files themselves. Faults make them slow, silent, refusing or wrong.
 */
import { Clock, type Context, Effect, type FileSystem, Redacted } from "effect"
import { TOKENS_KEY } from "../../../schemas/Csi.ts"
import { ProviderCallFailed } from "../../../schemas/errors/ProviderFailed.ts"
import { type MountRequest, type MountResponse, PROVIDER_API_VERSION } from "../../../schemas/Provider.ts"
import { isObject, type JsonObject, textAt } from "../KubernetesObject.ts"
import type { MountHandler, VersionHandler } from "../MemoryProviders.ts"
import type { Chance } from "./Chance.ts"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import { file, type ProviderFault } from "./ProviderFaults.ts"
import { readToken, type TokenSettings } from "./Tokens.ts"
import { hasOddNames, isPartial, replyOf, type SimulatedClass, versionOf } from "./Volume.ts"

/** The parameter of a class that tells its provider whose content is wanted. */
export const SOURCE = "source"

const SLOW_MILLIS_MAX = 30_000
const USUAL_MILLIS_MAX = 200

const attributesOf = (request: MountRequest): JsonObject => {
  const attributes: unknown = JSON.parse(Redacted.value(request.attributes))
  return isObject(attributes) ? attributes : {}
}

/** Where a provider's story is told; of one node when there are several. */
export const laneOf = (provider: string, nodeName = ""): string => `${nodeName} provider ${provider}`.trim()

/** A question, as it arrived. */
interface Call {
  /** Since the epoch. */
  readonly millis: number
  /** The versions that the asker says it has. */
  readonly versions: ReadonlyArray<string>
}

export interface Backend {
  readonly handler: (provider: string) => MountHandler
  readonly version: (provider: string) => VersionHandler
  /** Calls so far for a target path, oldest first. */
  readonly calls: (targetPath: string) => ReadonlyArray<Call>
}

export interface BackendOptions {
  /** By "namespace/name". */
  readonly classes: ReadonlyMap<string, SimulatedClass>
  readonly faults: Faults
  readonly chance: Chance
  readonly history: History
  /** When there are several. */
  readonly nodeName?: string
  /** The node's disk, on which providers may write. */
  readonly files: FileSystem.FileSystem
  /** Providers have clocks of their own. */
  readonly context: Context.Context<never>
  /** What providers may expect to be sent, as long as nothing goes wrong. */
  readonly tokens: () => TokenSettings
  /** Who is asked for what, as the question arrives, and before it counts among the calls. */
  readonly onCall?: (provider: string, targetPath: string) => void
}

const unanswered = (provider: string): ProviderCallFailed =>
  new ProviderCallFailed({
    provider,
    grpcCode: "UNAVAILABLE",
    details: "the connection was closed",
    unanswered: true
  })

/** @shape (options) -> Backend */
export const make = (options: BackendOptions): Backend => {
  const { chance, classes, context, faults, files, history, nodeName, tokens } = options
  const calls = new Map<string, Array<Call>>()
  const atOnce = Effect.runSyncWith(context)

  const answerFor = (attributes: JsonObject, source: string, whose: Whose): MountResponse => {
    const asked = classes.get(source)
    if (asked === undefined) return { objectVersions: [], errorCode: "NoSuchSource", files: [], sizeBytes: 0 }
    const { generation } = asked
    if (isPartial(asked, generation)) history.count("fault Providers.mount fewer files")
    if (hasOddNames(asked, generation)) history.count("fault Providers.mount odd names")
    if (asked.versions !== "generation") history.count(`fault Providers.mount ${asked.versions} version`)
    const identity = {
      source,
      podUid: whose.podUid ?? textAt(attributes, "csi.storage.k8s.io/pod.uid") ?? "",
      serviceAccountName: whose.serviceAccountName ?? textAt(attributes, "csi.storage.k8s.io/serviceAccount.name") ?? ""
    }
    const reply = [...replyOf(asked, identity, generation)].map(([path, content]) => file(path, content))
    const sizeBytes = reply.reduce((sum, { contents }) => sum + Redacted.value(contents).length, 0)
    return {
      objectVersions: [{ id: source, version: versionOf(asked, generation) }],
      errorCode: "",
      files: reply,
      sizeBytes
    }
  }

  /** What a token says, for a provider that believes tokens; undefined: it must not answer. */
  const whoseFrom = (provider: string, attributes: JsonObject, nowMillis: number): Whose | undefined => {
    const found = readToken(textAt(attributes, TOKENS_KEY), provider, nowMillis)
    if (found._tag === "Good") return found
    if (found._tag === "Expired") return undefined
    return tokens().audiences.includes(provider) && faults.active ? undefined : {}
  }

  /** In one step, as a careful provider does it with a rename: a pod sees all of it or nothing. */
  const write = (targetPath: string, answer: MountResponse): void =>
    atOnce(
      Effect.gen(function* () {
        for (const { name } of yield* files.readDirectoryEntries(targetPath)) {
          yield* files.remove(`${targetPath}/${name}`, { recursive: true })
        }
        for (const { contents, path } of answer.files) {
          const whole = `${targetPath}/${path}`
          yield* files.makeDirectory(whole.slice(0, whole.lastIndexOf("/")), { recursive: true })
          yield* files.writeFile(whole, Redacted.value(contents))
        }
      }).pipe(Effect.ignore)
    )

  const answered = (
    answer: MountResponse,
    fault: ProviderFault | undefined,
    { currentObjectVersions, targetPath }: MountRequest,
    source: string
  ): MountResponse => {
    const changed = fault?._tag === "Answers" ? fault.change(answer) : answer
    if (classes.get(source)?.writesItself === true) {
      history.count("fault Providers.mount writes itself")
      write(targetPath, answer)
      return { ...changed, files: [] }
    }
    // Whoever has files already is told that they are what it wants; of who has none, nobody could tell it.
    const isToldNothing = currentObjectVersions.length > 0 && fault === undefined
    return isToldNothing && faults.strikes("Providers.mount no files", faults.plan.providerNoFilesRate)
      ? { ...changed, files: [] }
      : changed
  }

  const handler = (provider: string): MountHandler =>
    Effect.fnUntraced(
      function* (request) {
        options.onCall?.(provider, request.targetPath)
        const own = calls.get(request.targetPath) ?? []
        calls.set(request.targetPath, own)
        const versions = request.currentObjectVersions.map(({ version }) => version)
        const now = yield* Clock.currentTimeMillis
        own.push({ millis: now, versions })
        const attributes = attributesOf(request)
        const source = textAt(attributes, SOURCE) ?? ""
        const fault = faults.providers.draw(provider, source)
        const asked = classes.get(source)
        if (fault?._tag === "Flips" && asked !== undefined) asked.generation += 1
        const whose = whoseFrom(provider, attributes, now + TOKEN_MILLIS)
        // What is true when the question arrives; while the answer is on its way it grows old.
        const answer = answerFor(attributes, source, whose ?? {})
        const [version] = answer.objectVersions
        const told = history.begin(
          laneOf(provider, nodeName),
          `is asked for ${version === undefined ? "nothing it has" : `${version.id}, generation ${asked?.generation}, for`} ${request.targetPath}`
        )
        yield* Effect.sleep(chance.between(1, fault?._tag === "Slow" ? SLOW_MILLIS_MAX : USUAL_MILLIS_MAX))
        if (whose === undefined) {
          told("UNAUTHENTICATED")
          const details = "the token is not good"
          return yield* new ProviderCallFailed({ provider, grpcCode: "UNAUTHENTICATED", details, unanswered: false })
        }
        switch (fault?._tag) {
          case "Hangs":
            return yield* Effect.never
          case "Refuses":
            told("refused")
            return { objectVersions: [], errorCode: fault.errorCode, files: [], sizeBytes: 0 }
          case "Breaks":
            told("broke off")
            if (chance.happens(0.5)) answered(answer, undefined, request, source)
            return yield* unanswered(provider)
          case "Fails":
            told(fault.failure.grpcCode)
            return yield* fault.failure
          default:
            told(fault?._tag === "Answers" ? "an unusual answer" : "")
            return answered(answer, fault, request, source)
        }
      },
      (effect) => Effect.provideContext(effect, context)
    )

  const version =
    (provider: string): VersionHandler =>
    () =>
      Effect.suspend(() => {
        const usual = { version: PROVIDER_API_VERSION, runtimeName: provider, runtimeVersion: "0.0.10" }
        if (!faults.strikes("Providers.version lies", faults.plan.providerVersionLiesRate)) return Effect.succeed(usual)
        switch (chance.below(4)) {
          case 0:
            return Effect.succeed({ version: "v2", runtimeName: "somebody else", runtimeVersion: "" })
          case 1:
            return Effect.succeed({ version: "", runtimeName: "", runtimeVersion: "" })
          case 2:
            return Effect.never
          default:
            return Effect.fail(
              new ProviderCallFailed({
                provider,
                grpcCode: "UNIMPLEMENTED",
                details: "unknown method Version",
                unanswered: false
              })
            )
        }
      })

  return { handler, version, calls: (targetPath) => [...(calls.get(targetPath) ?? [])] }
}

/** For whom an answer is, as far as a token says it. */
interface Whose {
  readonly podUid?: string
  readonly serviceAccountName?: string
}

/** A store looks at a token a little later than its provider. */
const TOKEN_MILLIS = 50
