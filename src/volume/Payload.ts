/**
 * A provider's answer as files of a volume: which paths are allowed, and what directories they need.
 *
 * Nothing here touches the disk. An answer with one bad path is refused whole, with the first reason in the order of
 * the answer, so that the same answer always gives the same error.
 *
 * @source driver v1.6.0, pkg/util/fileutil; reference/driver.md 3.5, 4.2, Q6, Q7
 */
import { Result } from "effect"
import { goQuote } from "../../schemas/GoQuote.ts"
import type { PayloadFile } from "../../schemas/Provider.ts"

const PATH_BYTES_MAX = 4096
const NAME_BYTES_MAX = 255
const PERMISSIONS = 0o777

/** Files that can be written as one generation. */
export interface Payload {
  /** By clean relative path; modes are permission bits only. */
  readonly files: ReadonlyMap<string, PayloadFile>
  /** Every directory that the files need, parents before children. */
  readonly directories: ReadonlySet<string>
  /** The first component of each path: what a pod sees in the volume. */
  readonly names: ReadonlySet<string>
}

// No character is more than three bytes per UTF-16 unit, so most texts need no counting.
const isLonger = (text: string, bytesMax: number): boolean =>
  text.length * 3 > bytesMax && Buffer.byteLength(text) > bytesMax

/**
 * Why a path may not be written, in upstream's words.
 *
 * @shape  (path) -> the reason, or undefined when the path is allowed
 * @units  lengths count bytes of UTF-8
 * @errors none
 * @source reference/driver.md 4.2
 */
export const refusal = (path: string): string | undefined => {
  if (path === "") return 'invalid path: must not be empty: ""'
  if (path.startsWith("/")) return `invalid path: must be relative path: ${path}`
  if (isLonger(path, PATH_BYTES_MAX)) {
    return `invalid path: must be less than or equal to ${PATH_BYTES_MAX} characters`
  }
  // Most paths are short and without dots in a row, and need not be taken apart.
  const elements = path.includes("..") || path.length * 3 > NAME_BYTES_MAX ? path.split("/") : []
  for (const element of elements) {
    if (element === "..") return `invalid path: must not contain '..': ${path}`
    if (isLonger(element, NAME_BYTES_MAX)) {
      return `invalid path: filenames must be less than or equal to ${NAME_BYTES_MAX} characters`
    }
  }
  // The writer's own names start so.
  return path.startsWith("..") ? `invalid path: must not start with '..': ${path}` : undefined
}

// An element of nothing, one dot or two, other than the nothing before the first slash.
const UNCLEAN = /^\.{0,2}$|^\.{1,2}\/|\/\.{0,2}(?:\/|$)/u

/** @shape (path) -> the shortest path that means the same without looking at the disk, as Go's `path.Clean` */
export const cleanPath = (path: string): string => {
  if (!UNCLEAN.test(path)) return path
  const rooted = path.startsWith("/")
  const kept: Array<string> = []
  for (const element of path.split("/")) {
    if (element === "" || element === ".") continue
    if (element !== "..") kept.push(element)
    else if (kept.length > 0 && kept.at(-1) !== "..") kept.pop()
    else if (!rooted) kept.push(element)
  }
  if (rooted) return `/${kept.join("/")}`
  return kept.length === 0 ? "." : kept.join("/")
}

const invalid = (path: string, why = ""): Result.Result<never, string> =>
  Result.fail(`invalid filepath: ${goQuote(path)}${why}`)

const build = (files: ReadonlyArray<PayloadFile>, unclean: "refuse" | "clean"): Result.Result<Payload, string> => {
  const byPath = new Map<string, PayloadFile>()
  const directories = new Set<string>()
  const names = new Set<string>()
  for (const file of files) {
    const reason = refusal(file.path)
    if (reason !== undefined) return Result.fail(reason)
    const path = cleanPath(file.path)
    if (path === "." || (unclean === "refuse" && path !== file.path)) return invalid(file.path)
    byPath.set(path, { path, mode: file.mode & PERMISSIONS, contents: file.contents })
    for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1)) {
      directories.add(path.slice(0, slash))
    }
    names.add(path.slice(0, `${path}/`.indexOf("/")))
  }
  for (const path of byPath.keys()) {
    if (directories.has(path)) return invalid(path, ": other files are below it")
  }
  return Result.succeed({ files: byPath, directories, names })
}

/**
 * The files of a provider's answer, checked. Of files with one path the last is taken.
 *
 * @shape  (files) -> Payload, or the reason why the first bad file is refused
 * @errors the reason, as a text with the path and without content
 * @source driver v1.6.0, pkg/util/fileutil/writer.go, Validate; reference/driver.md 3.5, 4.2, Q6
 */
export const check = (files: ReadonlyArray<PayloadFile>): Result.Result<Payload, string> => build(files, "refuse")

/**
 * As `check`, with paths such as `foo//bar` and `./bar` made clean rather than refused.
 *
 * @source driver v1.6.0, pkg/util/fileutil/atomic_writer.go, validatePayload
 */
export const clean = (files: ReadonlyArray<PayloadFile>): Result.Result<Payload, string> => build(files, "clean")
