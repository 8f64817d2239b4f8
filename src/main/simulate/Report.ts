/**
 * A run as one page to look at in a browser: no network, no other file. The page's own script and style are in
 * `assets/simulation`; everything of the run is data in it, and is shown as text, never as markup.
 *
 * A broken promise comes with the chain that led to it: the story of the volume, class and provider that it names, the
 * lives of the processes meanwhile, and the faults that struck.
 */
import { readFileSync } from "node:fs"
import type { EventKind, TimelineEvent } from "../../../layers/fake/simulation/History.ts"
import type { RunResult, Scenario } from "../../../layers/fake/simulation/Scenario.ts"
import { drawnRates } from "./Screen.ts"

export interface ReportOptions {
  readonly result: RunResult
  readonly scenario: Pick<Scenario, "description" | "name">
  /** That runs it again. */
  readonly command: string
}

const KINDS: ReadonlyArray<EventKind> = ["event", "state", "call", "fault", "violation"]

/** Lanes from above to below: the world first, then those who act in it, then what they act on. */
const LANES: ReadonlyArray<RegExp> = [
  /^run$/u,
  /^faults/u,
  /^API server/u,
  /^pods and people/u,
  /operator/u,
  /^provider/u,
  /driver/u,
  /kubelet/u,
  /^class/u,
  /^volume/u
]

const CHAIN_MAX = 40
const CHAIN_FAULTS_MAX = 8
const CHAIN_LIVES_MAX = 6
const DULL = /^(?:FileSystem|Mounter\.inspect)/u
const PROCESS = /driver|operator/u
const SUBJECTS_MAX = 12

const orderedLanes = (events: ReadonlyArray<TimelineEvent>): ReadonlyArray<string> => {
  const rankOf = (lane: string) => {
    const rank = LANES.findIndex((pattern) => pattern.test(lane))
    return rank < 0 ? LANES.length : rank
  }
  return [...new Set(events.map(({ lane }) => lane))].sort((a, b) => rankOf(a) - rankOf(b) || (a < b ? -1 : 1))
}

/** Names with a slash, such as paths and "namespace/name": what a text speaks of. */
const subjectsIn = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/[\w.~-]*(?:\/[\w.~-]+)+/gu)].map(([name]) => name)

/** Whether a text speaks of one of them; an object is also named by its path in the API. */
const names = (text: string, subjects: ReadonlyArray<string>): boolean =>
  subjects.some((subject) => {
    const [, namespace, name] = /^([^/]+)\/([^/]+)$/u.exec(subject) ?? []
    if (text.includes(subject)) return true
    return namespace !== undefined && text.includes(`/namespaces/${namespace}/`) && text.includes(`/${name}`)
  })

/**
 * @shape  (events) -> indices of those that led to the violation, oldest first, the violation last; none without one
 */
export const chainOf = (events: ReadonlyArray<TimelineEvent>): ReadonlyArray<number> => {
  const last = events.findIndex(({ kind }) => kind === "violation")
  const violation = events[last]
  if (violation === undefined) return []
  const subjects = subjectsIn(violation.what)
  const before = events.slice(0, last)
  const states = before.filter(({ kind }) => kind === "state")
  const ofSubjects = states.filter(({ lane, what }) => names(`${lane} ${what}`, subjects))
  // A volume leads to its class, by the words of its own states.
  const wider = ofSubjects.flatMap(({ what }) => subjectsIn(what)).slice(-SUBJECTS_MAX)
  const lanes = new Set([...ofSubjects, ...states.filter(({ lane }) => names(lane, wider))].map(({ lane }) => lane))
  const own: Array<number> = []
  const faults: Array<number> = []
  const lives: Array<number> = []
  const isShort = () => own.length < CHAIN_MAX || lives.length < CHAIN_LIVES_MAX
  for (let index = last - 1; index >= 0 && isShort(); index--) {
    const event = events[index]
    if (event === undefined) continue
    // The lives in which it happened may have begun long before the story.
    if (own.length >= CHAIN_MAX && (event.kind !== "state" || !PROCESS.test(event.lane))) continue
    // Calls that look at files and mounts and go well say little, and there are many.
    const isDull = event.kind === "call" && event.outcome === "" && DULL.test(event.what)
    const isOwn = lanes.has(event.lane) && event.kind !== "call"
    if (own.length < CHAIN_MAX && (isOwn || (!isDull && names(event.what, subjects)))) own.push(index)
    else if (event.kind === "fault" && faults.length < CHAIN_FAULTS_MAX) faults.push(index)
    else if (event.kind === "state" && PROCESS.test(event.lane) && lives.length < CHAIN_LIVES_MAX) lives.push(index)
  }
  return [...own, ...faults, ...lives, last].sort((a, b) => a - b)
}

const text = (value: string): string =>
  value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;")

/** JSON that ends no script element and opens no comment. */
const embedded = (value: unknown): string => JSON.stringify(value).replaceAll("<", "\\u003c")

const asset = (name: string): string =>
  readFileSync(new URL(`../../../assets/simulation/${name}`, import.meta.url), "utf8")

/** @shape (options) -> the whole page */
export const reportOf = ({ command, result, scenario }: ReportOptions): string => {
  const events = result.history.everything()
  const lanes = orderedLanes(events)
  const laneIndex = new Map(lanes.map((lane, index) => [lane, index]))
  const texts = new Map<string, number>()
  const textIndex = (words: string): number => {
    const index = texts.get(words) ?? texts.size
    texts.set(words, index)
    return index
  }
  const { violation } = result
  const data = {
    command,
    scenario: scenario.name,
    description: scenario.description,
    seed: result.seed,
    digest: result.digest,
    steps: result.steps,
    virtualMillis: Math.round(result.virtualMillis),
    violation:
      violation === undefined
        ? null
        : {
            promise: `${violation.id} ${violation.invariant}`,
            atMillis: violation.virtualMillis,
            seen: violation.seen
          },
    summary: result.summary,
    rates: drawnRates(result),
    faults: result.history.figuresOf("fault "),
    lanes,
    kinds: KINDS,
    /** One row per event: kind, lane, text, milliseconds, duration or -1, outcome. */
    events: events.map(({ atMillis, kind, lane, outcome, untilMillis, what }) => [
      KINDS.indexOf(kind),
      laneIndex.get(lane) ?? 0,
      textIndex(what),
      Math.round(atMillis),
      untilMillis === undefined ? -1 : Math.round(untilMillis - atMillis),
      textIndex(outcome)
    ]),
    chain: chainOf(events)
  }
  const title = `simulation ${scenario.name}, seed ${result.seed}: ${violation === undefined ? "every promise held" : `${violation.id} ${violation.invariant}`}`
  return [
    "<!doctype html>",
    '<html lang="en">',
    "<head>",
    '<meta charset="utf-8">',
    `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">`,
    `<title>${text(title)}</title>`,
    `<style>\n${asset("report.css")}</style>`,
    "</head>",
    "<body>",
    asset("report.html").trimEnd(),
    `<script type="application/json" id="run">${embedded({ ...data, texts: [...texts.keys()] })}</script>`,
    `<script>\n${asset("report.mjs")}</script>`,
    "</body>",
    "</html>",
    ""
  ].join("\n")
}
