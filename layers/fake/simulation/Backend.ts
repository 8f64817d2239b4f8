/**
 * The providers of a simulated node: they answer with the generation that a class has when they are asked, and say in
 * every file for whom it is. Faults make them slow, silent, refusing or wrong.
 */
import { Clock, Effect, Redacted } from "effect"
import type { MountRequest, MountResponse, PayloadFile } from "../../../schemas/Provider.ts"
import { isObject, textAt } from "../KubernetesObject.ts"
import type { MountHandler } from "../MemoryProviders.ts"
import type { Chance } from "./Chance.ts"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import { replyOf, type SimulatedClass } from "./Volume.ts"

/** The parameter of a class that tells its provider whose content is wanted. */
export const SOURCE = "source"

const SLOW_MILLIS_MAX = 30_000
const USUAL_MILLIS_MAX = 200
const FILE_MODE = 0o640

const encoder = new TextEncoder()

const file = (path: string, content: string): PayloadFile => ({
  path,
  mode: FILE_MODE,
  contents: Redacted.make(encoder.encode(content))
})

const attributesOf = (request: MountRequest) => {
  const attributes: unknown = JSON.parse(Redacted.value(request.attributes))
  return isObject(attributes) ? attributes : {}
}

/** Answers that must be refused whole: paths that leave the volume, a file below a file, no version. */
const spoilt = (answer: MountResponse, chance: Chance): MountResponse => {
  switch (chance.below(4)) {
    case 0:
      return { ...answer, files: [...answer.files, file("../outside", "x")] }
    case 1:
      return { ...answer, files: [...answer.files, file("/etc/outside", "x")] }
    case 2:
      return { ...answer, files: [...answer.files, file("base/below", "x")] }
    default:
      return { ...answer, objectVersions: [] }
  }
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
  /** Calls so far for a target path, oldest first. */
  readonly calls: (targetPath: string) => ReadonlyArray<Call>
}

/** @shape (classes by "namespace/name", faults, chance, history, node: when there are several) -> Backend */
export const make = (
  classes: ReadonlyMap<string, SimulatedClass>,
  faults: Faults,
  chance: Chance,
  history: History,
  nodeName?: string
): Backend => {
  const calls = new Map<string, Array<Call>>()

  const answerFor = (request: MountRequest): MountResponse => {
    const attributes = attributesOf(request)
    const source = textAt(attributes, SOURCE) ?? ""
    const asked = classes.get(source)
    if (asked === undefined) return { objectVersions: [], errorCode: "NoSuchSource", files: [], sizeBytes: 0 }
    const { generation } = asked
    const identity = {
      source,
      podUid: textAt(attributes, "csi.storage.k8s.io/pod.uid") ?? "",
      serviceAccountName: textAt(attributes, "csi.storage.k8s.io/serviceAccount.name") ?? ""
    }
    const files = [...replyOf(asked, identity, generation)].map(([path, content]) => file(path, content))
    const sizeBytes = files.reduce((sum, { contents }) => sum + Redacted.value(contents).length, 0)
    return { objectVersions: [{ id: source, version: String(generation) }], errorCode: "", files, sizeBytes }
  }

  const handler = (provider: string): MountHandler =>
    Effect.fnUntraced(function* (request) {
      const own = calls.get(request.targetPath) ?? []
      calls.set(request.targetPath, own)
      const versions = request.currentObjectVersions.map(({ version }) => version)
      own.push({ millis: yield* Clock.currentTimeMillis, versions })
      // What is true when the question arrives; while the answer is on its way it grows old.
      const answer = answerFor(request)
      const fault = faults.provider(provider)
      const [version] = answer.objectVersions
      const answered = history.begin(
        laneOf(provider, nodeName),
        `is asked for ${version === undefined ? "nothing it has" : `${version.id}, generation ${version.version}, for`} ${request.targetPath}`
      )
      yield* Effect.sleep(chance.between(1, fault === "slow" ? SLOW_MILLIS_MAX : USUAL_MILLIS_MAX))
      switch (fault) {
        case undefined:
        case "slow":
          answered()
          return answer
        case "hangs":
          return yield* Effect.never
        case "refuses":
          answered("refused")
          return { objectVersions: [], errorCode: "AuthenticationFailed", files: [], sizeBytes: 0 }
        case "answers badly":
          answered("an answer that must not be used")
          return spoilt(answer, chance)
        default:
          answered(fault.grpcCode)
          return yield* fault
      }
    })

  return { handler, calls: (targetPath) => [...(calls.get(targetPath) ?? [])] }
}
