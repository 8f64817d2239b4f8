/**
 * What happened in a run: a digest of all of it, the last lines in words, and figures. Holds no content of files.
 */
import { createHash } from "node:crypto"

const LINES_KEPT = 25

export class History {
  private readonly hash = createHash("sha256")
  private readonly lines: Array<string> = []
  private readonly figures = new Map<string, number>()
  /** Milliseconds since the run began. */
  private readonly elapsedMillis: () => number

  constructor(elapsedMillis: () => number) {
    this.elapsedMillis = elapsedMillis
  }

  /** One event, with its virtual time. */
  note(what: string): void {
    const line = `${this.elapsedMillis()} ${what}`
    this.hash.update(`${line}\n`)
    this.lines.push(line)
    if (this.lines.length > 2 * LINES_KEPT) this.lines.splice(0, LINES_KEPT)
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

  /** @shape () -> 64 hexadecimal digits; of everything noted so far */
  digest(): string {
    return this.hash.copy().digest("hex")
  }
}
