/**
 * What is on this machine's disk, for showing and comparing: files of a volume as a pod sees them, mounts, sockets.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, realpathSync, statSync } from "node:fs"
import { createServer } from "node:net"
import { basename, dirname, join } from "node:path"
import { Effect } from "effect"
import { parseMountInfo } from "../../../layers/real/LinuxMounter.ts"

/** A file of a volume, through the links that a pod follows. */
export interface SeenFile {
  readonly name: string
  /** Permission bits in octal, "0644". */
  readonly mode: string
  /** Where the link beside the pod's name leads; undefined for a plain file. */
  readonly link: string | undefined
  readonly content: string
}

/**
 * @shape  (target path) -> what `ls` and `cat` show there, sorted by name; nothing where there is no directory
 * @errors none: a file that cannot be read is a defect of the demo
 */
export const seenBy = (targetPath: string): ReadonlyArray<SeenFile> =>
  existsSync(targetPath)
    ? readdirSync(targetPath)
        .filter((name) => !name.startsWith(".."))
        .sort()
        .map((name) => {
          const path = join(targetPath, name)
          return {
            name,
            mode: (statSync(path).mode & 0o7777).toString(8).padStart(4, "0"),
            link: lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined,
            content: readFileSync(path, "utf8")
          }
        })
    : []

/** Which of the provider's answers is mounted: the name of its directory. */
export const generationOf = (targetPath: string): string => readlinkSync(join(targetPath, "..data"))

/** When that answer was mounted, in milliseconds since the epoch. */
export const writtenMillis = (targetPath: string): number => lstatSync(join(targetPath, "..data")).mtimeMs

/** The kernel's table has no links in its paths; what does not exist keeps its name. */
const canonical = (path: string): string =>
  existsSync(path) ? realpathSync(path) : join(canonical(dirname(path)), basename(path))

/** What the kernel has mounted at or below a path, as its table says it: one line each. */
export const mountLines = (path: string): ReadonlyArray<string> => {
  const real = canonical(path)
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .filter((line) => parseMountInfo(line).some(({ target }) => target === real || target.startsWith(`${real}/`)))
}

export const isSocket = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isSocket() ?? false

export const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`)

/** Everything below a directory, for saying what is left; relative to it. */
export const below = (directory: string): ReadonlyArray<string> =>
  existsSync(directory) ? readdirSync(directory, { recursive: true, encoding: "utf8" }).sort() : []

/** A port of the loopback address that nobody listens on at this moment. */
export const freePort: Effect.Effect<number> = Effect.callback((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})
