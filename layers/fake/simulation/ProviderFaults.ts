/**
 * What goes wrong between a driver and its providers: calls that fail, break off or take too long; answers that must be
 * refused whole, and odd ones that must not; sockets that nobody accepts on; stores that are away, and secrets that are
 * taken away and given back. Each has a rate of its own, drawn once per run.
 */
import { Effect, Redacted } from "effect"
import type { GrpcCode } from "../../../schemas/errors/CsiStatus.ts"
import { ProviderCallFailed } from "../../../schemas/errors/ProviderFailed.ts"
import type { MountResponse, PayloadFile } from "../../../schemas/Provider.ts"
import type { SocketState } from "../MemoryProviders.ts"
import { type Chance, every, interval } from "./Chance.ts"
import { PROVIDERS } from "./Classes.ts"
import type { History } from "./History.ts"
import type { Striker } from "./Striker.ts"
import { ALWAYS, type SimulatedClass, sourceOf } from "./Volume.ts"

/** Rates are chances per call; intervals are means, and 0 is never. */
export type ProviderRates = {
  /** A gRPC error. */
  readonly providerFailRate: number
  /** An error code in an answer that is otherwise fine. */
  readonly providerRefusesRate: number
  readonly providerBadAnswerRate: number
  readonly providerOddAnswerRate: number
  /** It answers, and later than usual. */
  readonly providerSlowRate: number
  /** It never answers. */
  readonly providerHangsRate: number
  /** It has fetched, and ends before it has answered; another process takes its place. */
  readonly providerBreaksRate: number
  /** Of classes: names, versions or a provider such as few have, in each of several respects. */
  readonly oddClassesRate: number
  /** What it has fetched is new again with each call. */
  readonly providerFlipsRate: number
  /** Nothing, where it has answered with files before. */
  readonly providerNoFilesRate: number
  readonly providerVersionLiesRate: number
  /** No socket for a while. */
  readonly providerGoneEveryMillis: number
  /** A socket on which nobody accepts, or that may not be opened. */
  readonly providerSocketEveryMillis: number
  readonly providerReplacedEveryMillis: number
  /** It answers nobody for a while, since it is asked too much. */
  readonly providerThrottlesEveryMillis: number
  /** What is behind a provider answers nobody, for minutes or for a day. */
  readonly backendOutageEveryMillis: number
  /** The secrets of one class are deleted, disabled or not allowed any more, and come back. */
  readonly secretsRevokedEveryMillis: number
}

const MINUTE = 60_000

export const drawProviderRates = (chance: Chance): ProviderRates => ({
  providerFailRate: chance.sometimes(0.3),
  providerRefusesRate: chance.sometimes(0.05),
  providerBadAnswerRate: chance.sometimes(0.1),
  providerOddAnswerRate: chance.sometimes(0.2),
  providerSlowRate: chance.sometimes(0.1),
  providerHangsRate: chance.sometimes(0.02),
  providerBreaksRate: chance.sometimes(0.05),
  oddClassesRate: chance.sometimes(0.3),
  providerFlipsRate: chance.sometimes(0.1),
  providerNoFilesRate: chance.sometimes(0.05),
  providerVersionLiesRate: chance.sometimes(0.3),
  providerGoneEveryMillis: interval(chance, 40 * MINUTE),
  providerSocketEveryMillis: interval(chance, 40 * MINUTE),
  providerReplacedEveryMillis: interval(chance, 40 * MINUTE),
  providerThrottlesEveryMillis: interval(chance, 40 * MINUTE),
  backendOutageEveryMillis: interval(chance, 90 * MINUTE),
  secretsRevokedEveryMillis: interval(chance, 40 * MINUTE)
})

/** What becomes of a call. */
export type ProviderFault =
  | { readonly _tag: "Slow" | "Hangs" | "Breaks" | "Flips" }
  | { readonly _tag: "Refuses"; readonly errorCode: string }
  | { readonly _tag: "Fails"; readonly failure: ProviderCallFailed }
  | { readonly _tag: "Answers"; readonly change: (answer: MountResponse) => MountResponse }

const CODES: ReadonlyArray<GrpcCode> = [
  "UNAVAILABLE",
  "UNAVAILABLE",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "DEADLINE_EXCEEDED",
  "INTERNAL"
]
const REVOKED_CODES: ReadonlyArray<GrpcCode> = ["NOT_FOUND", "PERMISSION_DENIED", "FAILED_PRECONDITION"]

// ---- answers

const FILE_MODE = 0o640
const encoder = new TextEncoder()

/** @shape (path, content) -> a file of an answer */
export const file = (path: string, content: string, mode = FILE_MODE): PayloadFile => ({
  path,
  mode,
  contents: Redacted.make(encoder.encode(content))
})

type Change = (answer: MountResponse, chance: Chance) => MountResponse

const withFile =
  (path: string): Change =>
  (answer) => ({ ...answer, files: [...answer.files, file(path, "x")] })

const withModes =
  (mode: number): Change =>
  (answer) => ({ ...answer, files: answer.files.map((it) => ({ ...it, mode })) })

const withVersion =
  (version: string): Change =>
  (answer) => ({ ...answer, objectVersions: answer.objectVersions.map(({ id }) => ({ id, version })) })

/** Each must be refused whole, with nothing written that stays. */
export const BAD_ANSWERS: ReadonlyArray<readonly [name: string, change: Change]> = [
  ["leaves the volume", withFile("../outside")],
  ["leaves it further down", withFile("deep/../../outside")],
  ["absolute path", withFile("/etc/outside")],
  ["file below a file", withFile(`${ALWAYS}/below`)],
  ["the driver's own path", withFile("..data")],
  ["empty path", withFile("")],
  ["unclean path", withFile("deep//file")],
  ["256-byte name", withFile("n".repeat(256))],
  ["4097-byte path", withFile(`${`${"p".repeat(240)}/`.repeat(17)}`.padEnd(4097, "q"))],
  ["full path too long", withFile(`${"p".repeat(240)}/`.repeat(17).slice(0, 4090))],
  ["NUL in a name", withFile("with\u0000nul")],
  ["no versions", (answer) => ({ ...answer, objectVersions: [] })],
  ["over 4 MiB", (answer) => ({ ...answer, sizeBytes: 5_000_000 })]
]

/** Each is as good as the answer without it. */
export const ODD_ANSWERS: ReadonlyArray<readonly [name: string, change: Change]> = [
  ["a file twice", (answer) => ({ ...answer, files: [file(ALWAYS, "replaced by the one after it"), ...answer.files] })],
  ["modes above 0777", withModes(0o106_755)],
  ["negative modes", withModes(-1)],
  ["mode 0", withModes(0)],
  [
    "an id twice",
    (answer) => ({
      ...answer,
      objectVersions: [...answer.objectVersions.map(({ id }) => ({ id, version: "before" })), ...answer.objectVersions]
    })
  ],
  ["an empty version", withVersion("")],
  ["version always new", (answer, chance) => withVersion(`another-${chance.below(1_000_000)}`)(answer, chance)]
]

export class ProviderFaults {
  /** Providers that throttle at present. */
  readonly throttling = new Set<string>()
  /** Providers whose store is away, whether faults are active or not. */
  readonly away = new Set<string>()
  /** What is said of secrets that are not to be had at present, by source. */
  readonly revoked = new Map<string, GrpcCode>()
  /** True: every provider refuses everybody, whether faults are active or not. */
  refuse = false
  private readonly striker: Striker
  private readonly rates: ProviderRates
  private readonly chance: Chance

  constructor(striker: Striker, rates: ProviderRates, chance: Chance) {
    this.striker = striker
    this.rates = rates
    this.chance = chance
  }

  /** @shape (provider, source) -> what becomes of this call; undefined: nothing special */
  draw(provider: string, source: string): ProviderFault | undefined {
    const { chance, rates, striker } = this
    const fails = (grpcCode: GrpcCode, details: string, unanswered = false): ProviderFault => ({
      _tag: "Fails",
      failure: new ProviderCallFailed({ provider, grpcCode, details, unanswered })
    })
    if (this.refuse) return { _tag: "Refuses", errorCode: "AuthenticationFailed" }
    if (this.throttling.has(provider)) {
      if (striker.active) striker.note("Providers.mount throttled")
      return fails("RESOURCE_EXHAUSTED", "too many requests")
    }
    if (this.away.has(provider)) {
      striker.note("Backend away")
      return fails("UNAVAILABLE", "the store does not answer")
    }
    const revoked = this.revoked.get(source)
    if (revoked !== undefined) {
      striker.note(`Backend ${revoked}`)
      return fails(revoked, "the secret is not to be had")
    }
    if (striker.strikes("Providers.mount slow", rates.providerSlowRate)) return { _tag: "Slow" }
    if (striker.strikes("Providers.mount hangs", rates.providerHangsRate)) return { _tag: "Hangs" }
    if (striker.strikes("Providers.mount breaks", rates.providerBreaksRate)) return { _tag: "Breaks" }
    if (striker.strikes("Providers.mount flips", rates.providerFlipsRate)) return { _tag: "Flips" }
    if (striker.strikes("Providers.mount refused", rates.providerRefusesRate)) {
      return { _tag: "Refuses", errorCode: chance.oneOf(["AuthenticationFailed", "SecretNotFound", "x".repeat(2_000)]) }
    }
    const answers = this.drawAnswer("bad answer", rates.providerBadAnswerRate, BAD_ANSWERS)
    if (answers !== undefined) return answers
    if (striker.strikes("Providers.mount fails", rates.providerFailRate)) {
      const grpcCode = chance.oneOf(CODES)
      return fails(grpcCode, "injected", grpcCode === "UNAVAILABLE" && chance.happens(0.7))
    }
    return this.drawAnswer("odd answer", rates.providerOddAnswerRate, ODD_ANSWERS)
  }

  private drawAnswer(site: string, rate: number, of: typeof BAD_ANSWERS): ProviderFault | undefined {
    if (!this.striker.active || !this.chance.happens(rate)) return undefined
    const [name, change] = this.chance.oneOf(of)
    this.striker.note(`${site}: ${name}`)
    return { _tag: "Answers", change: (answer) => change(answer, this.chance) }
  }
}

// ---- what lasts a while

/** A node, as far as its providers go. */
export interface ProviderSite {
  readonly faults: { readonly providers: ProviderFaults; readonly note: (site: string) => void }
  readonly install: (provider: string) => Effect.Effect<void>
  readonly uninstall: (provider: string) => Effect.Effect<void>
  readonly setSocket: (provider: string, state: SocketState) => Effect.Effect<void>
  /** Where a provider's story is told. */
  readonly laneOf: (provider: string) => string
}

const DAY = 24 * 60 * MINUTE

/**
 * What goes wrong with providers for a while, over and over, on one node or, where a store is shared, on all of them. Each
 * ends what it has begun when it is interrupted.
 *
 * @shape (nodes, at least one; rates, classes, chance, history) -> effects that never end
 */
export const providerTroubles = (options: {
  readonly nodes: ReadonlyArray<ProviderSite>
  readonly rates: ProviderRates
  readonly classes: ReadonlyMap<string, SimulatedClass>
  readonly chance: Chance
  readonly history: History
}): ReadonlyArray<Effect.Effect<void>> => {
  const { chance, classes, history, nodes, rates } = options
  const perNode = (meanMillis: number) => meanMillis / nodes.length
  /** Something at a provider that lasts, is told, and is put right. */
  const lasting = (told: {
    readonly lane: string
    readonly what: string
    readonly millisMax: number
    readonly begin: Effect.Effect<void>
    readonly end: Effect.Effect<void>
  }) =>
    Effect.suspend(() => {
      history.state(told.lane, told.what)
      const end = Effect.andThen(
        told.end,
        Effect.sync(() => history.state(told.lane, ""))
      )
      return Effect.andThen(
        told.begin,
        Effect.ensuring(
          Effect.suspend(() => Effect.sleep(chance.between(0, told.millisMax))),
          end
        )
      )
    })
  const drawn = () => ({ node: chance.oneOf(nodes), provider: chance.oneOf(PROVIDERS) })
  const everywhere = (what: (providers: ProviderFaults) => void) =>
    Effect.sync(() => {
      for (const { faults } of nodes) what(faults.providers)
    })

  const gone = Effect.suspend(() => {
    const { node, provider } = drawn()
    node.faults.note("Providers.locate")
    const [lane, begin, end] = [node.laneOf(provider), node.uninstall(provider), node.install(provider)]
    return lasting({ lane, what: "gone", millisMax: 3 * MINUTE, begin, end })
  })
  const socket = Effect.suspend(() => {
    const { node, provider } = drawn()
    const state = chance.oneOf<SocketState>(["refusing", "forbidden"])
    node.faults.note(`Providers socket ${state}`)
    const [lane, begin, end] = [
      node.laneOf(provider),
      node.setSocket(provider, state),
      node.setSocket(provider, "listening")
    ]
    return lasting({ lane, what: `socket ${state}`, millisMax: 3 * MINUTE, begin, end })
  })
  const replaced = Effect.suspend(() => {
    const { node, provider } = drawn()
    node.faults.note("Providers replaced")
    history.note("is replaced by another process", node.laneOf(provider))
    return node.install(provider)
  })
  const throttles = Effect.suspend(() => {
    const { node, provider } = drawn()
    node.faults.note("Providers throttle")
    return lasting({
      lane: `store of ${provider}`,
      what: "throttles",
      millisMax: 10 * MINUTE,
      begin: everywhere((it) => it.throttling.add(provider)),
      end: everywhere((it) => it.throttling.delete(provider))
    })
  })
  const away = Effect.suspend(() => {
    const { node, provider } = drawn()
    node.faults.note("Backend outage")
    return lasting({
      lane: `store of ${provider}`,
      what: "away",
      // A day is longer than most runs have left: it ends with the faults.
      millisMax: chance.happens(0.2) ? DAY : 10 * MINUTE,
      begin: everywhere((it) => it.away.add(provider)),
      end: everywhere((it) => it.away.delete(provider))
    })
  })
  const revoked = Effect.suspend(() => {
    const { node } = drawn()
    const source = sourceOf(chance.oneOf([...classes.values()]))
    node.faults.note("Backend revokes")
    const grpcCode = chance.oneOf(REVOKED_CODES)
    return lasting({
      lane: `secrets of ${source}`,
      what: grpcCode,
      millisMax: 15 * MINUTE,
      begin: everywhere((it) => it.revoked.set(source, grpcCode)),
      end: everywhere((it) => it.revoked.delete(source))
    })
  })
  return [
    every(chance, perNode(rates.providerGoneEveryMillis), gone),
    every(chance, perNode(rates.providerSocketEveryMillis), socket),
    every(chance, perNode(rates.providerReplacedEveryMillis), replaced),
    every(chance, rates.providerThrottlesEveryMillis, throttles),
    every(chance, rates.backendOutageEveryMillis, away),
    every(chance, rates.secretsRevokedEveryMillis, revoked)
  ]
}
