/**
 * A workload that reads its volumes in a tight loop, as a process of its own: through the links, by a directory that it
 * has looked up itself, and by an open one. Says what it saw when its standard input ends.
 *
 * Every file of a generation holds that generation's number. What was begun longer ago than an old generation is kept is
 * promised nothing: a process that stood still so long is counted apart.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs"
import { join } from "node:path"
import { setImmediate as others } from "node:timers/promises"

export interface ReaderReport {
  readonly passes: number
  /** Sets of files that were read, through the links or in an open directory. */
  readonly sets: number
  /** Sets that were begun in one generation and ended when the next one was current. */
  readonly overtaken: number
  /** Of all volumes together. */
  readonly generations: number
  readonly missing: ReadonlyArray<string>
  /** Two generations where there had to be one, or an older one after a newer. */
  readonly mixed: ReadonlyArray<string>
  readonly tooLate: number
}

const FILES = ["a", "sub/b", "c"]
const GRACE_MILLIS = 1_000

const [root = ""] = process.argv.slice(2)
const volumes = readdirSync(root).map((name) => join(root, name))
const newest = new Map(volumes.map((volume) => [volume, 0]))
const generations = new Set<string>()
const missing: Array<string> = []
const mixed: Array<string> = []
let passes = 0
let sets = 0
let overtaken = 0
let tooLate = 0

const current = (volume: string) => readlinkSync(join(volume, "..data"))

/** Undefined when there is no such file. */
const read = (path: string, begunMillis: number): number | undefined => {
  try {
    return Number(readFileSync(path, "utf8"))
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error
    if (performance.now() - begunMillis < GRACE_MILLIS) missing.push(path)
    else tooLate += 1
    return undefined
  }
}

/** Compares what was read of one generation. */
const compare = (volume: string, seen: ReadonlyArray<number | undefined>) => {
  const numbers = [...new Set(seen)].filter((it) => it !== undefined)
  if (numbers.length > 1) mixed.push(`${volume}: ${numbers.join(" and ")} at once`)
  for (const number of numbers) generations.add(`${volume} ${number}`)
}

/** File by file, as most programs do: the files are of one generation when the link has not changed meanwhile. */
const readThroughLinks = (volume: string) => {
  const begun = performance.now()
  const before = current(volume)
  const seen = FILES.map((file) => read(join(volume, file), begun))
  const itself = read(join(volume, before, "a"), begun)
  sets += 1
  if (current(volume) === before) compare(volume, [...seen, itself])
  else overtaken += 1
  for (const number of seen) {
    const last = newest.get(volume) ?? 0
    if (number !== undefined && number < last) mixed.push(`${volume}: ${number} after ${last}`)
    newest.set(volume, Math.max(last, number ?? 0))
  }
}

/** Opens the current generation, and returns how to read and close it. */
const enter = (volume: string) => {
  const begun = performance.now()
  const before = current(volume)
  const directory = openSync(join(volume, "..data"), "r")
  return () => {
    const seen = FILES.map((file) => read(`/proc/self/fd/${directory}/${file}`, begun))
    closeSync(directory)
    sets += 1
    if (current(volume) !== before) overtaken += 1
    compare(volume, seen)
  }
}

let ended = false
process.stdin.on("end", () => {
  ended = true
})
process.stdin.resume()

while (!ended) {
  const leave = volumes.map(enter)
  for (const volume of volumes) readThroughLinks(volume)
  for (const readAndLeave of leave) readAndLeave()
  passes += 1
  if (passes === 1) process.stdout.write("ready\n")
  await others()
}
const report: ReaderReport = { passes, sets, overtaken, generations: generations.size, missing, mixed, tooLate }
process.stdout.write(JSON.stringify(report))
