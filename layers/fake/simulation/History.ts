/**
 * What happened in a run: a digest of all of it, the last lines in words, figures, and, when asked for, every event for
 * a report. Holds no content of files.
 *
 * An event belongs to a lane, which is somebody or something in the simulated world. The digest is the same whether
 * events are kept or not.
 */
import { createHash } from "node:crypto"

const LINES_KEPT = 25

/** Of the run as a whole. */
export const RUN_LANE = "run"

/** "state" lasts until the lane's next state; a "call" until it is answered; the others are instants. */
export type EventKind = "event" | "state" | "call" | "fault" | "violation"

export interface TimelineEvent {
  readonly kind: EventKind
  readonly lane: string
  readonly what: string
  /** Since the run began. */
  readonly atMillis: number
  /** Of a call: when it was answered. */
  untilMillis: number | undefined
  /** Of a call: what was answered, empty when it went well. */
  outcome: string
}

export class History {
  private readonly hash = createHash("sha256")
  private readonly lines: Array<string> = []
  private readonly figures = new Map<string, number>()
  private readonly events: Array<TimelineEvent> = []
  /** Milliseconds since the run began. */
  private readonly elapsedMillis: () => number
  private readonly timeline: boolean

  constructor(elapsedMillis: () => number, timeline = false) {
    this.elapsedMillis = elapsedMillis
    this.timeline = timeline
  }

  private record(kind: EventKind, lane: string, what: string): TimelineEvent | undefined {
    const atMillis = this.elapsedMillis()
    this.say(atMillis, lane, what)
    if (!this.timeline) return undefined
    const event = { kind, lane, what, atMillis, untilMillis: undefined, outcome: "" }
    this.events.push(event)
    return event
  }

  private say(atMillis: number, lane: string, what: string): void {
    const line = lane === RUN_LANE ? `${atMillis} ${what}` : `${atMillis} ${lane}: ${what}`
    this.hash.update(`${line}\n`)
    this.lines.push(line)
    if (this.lines.length > 2 * LINES_KEPT) this.lines.splice(0, LINES_KEPT)
  }

  /** One event, with its virtual time. */
  note(what: string, lane = RUN_LANE, kind: "event" | "fault" | "violation" = "event"): void {
    this.record(kind, lane, what)
  }

  /** What a lane is from now on; empty words: nothing any more. */
  state(lane: string, what: string): void {
    this.record("state", lane, what)
  }

  /**
   * A call that begins now.
   *
   * @shape (lane, what) -> (outcome) -> void, to be called when it is answered; no outcome: it went well
   */
  begin(lane: string, what: string): (outcome?: string) => void {
    const event = this.record("call", lane, what)
    return (outcome = "") => {
      const now = this.elapsedMillis()
      if (outcome !== "") this.say(now, lane, `${what} -> ${outcome}`)
      if (event === undefined) return
      event.untilMillis = now
      event.outcome = outcome
    }
  }

  count(figure: string, by = 1): void {
    this.figures.set(figure, (this.figures.get(figure) ?? 0) + by)
  }

  figure(name: string): number {
    return this.figures.get(name) ?? 0
  }

  /** @shape (prefix) -> figures of that prefix, which is taken off, by name */
  figuresOf(prefix: string): ReadonlyArray<readonly [string, number]> {
    return [...this.figures]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, count]) => [name.slice(prefix.length), count] as const)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  }

  /** The newest events, oldest first. */
  last(): ReadonlyArray<string> {
    return this.lines.slice(-LINES_KEPT)
  }

  /** Every event in the order it began; none unless a timeline was asked for. */
  everything(): ReadonlyArray<TimelineEvent> {
    return this.events
  }

  /** @shape () -> 64 hexadecimal digits; of everything noted so far */
  digest(): string {
    return this.hash.copy().digest("hex")
  }
}
