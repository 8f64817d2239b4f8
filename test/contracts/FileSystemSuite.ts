/**
 * What the driver expects of every FileSystem, in memory or of Node: small scenarios, each with its outcome and with
 * what lies in the directory afterwards. Runs as root, with umask 022.
 */
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, FileSystem, type Layer, Option, type PlatformError, Result, type Scope } from "effect"

/** A file system, and how paths in the directory of the scenario are written in full. */
interface Place {
  readonly files: FileSystem.FileSystem
  readonly at: (path: string) => string
}

type Step = (place: Place) => Effect.Effect<unknown, PlatformError.PlatformError, Scope.Scope>

// A path beginning with "/" or "" is taken as it is, any other one is in the directory.
const write =
  (path: string, content = "", options?: { readonly flag?: FileSystem.OpenFlag; readonly mode?: number }): Step =>
  ({ at, files }) =>
    files.writeFileString(at(path), content, options)
const read =
  (path: string): Step =>
  ({ at, files }) =>
    files.readFileString(at(path))
const mkdir =
  (path: string, options?: { readonly recursive?: boolean; readonly mode?: number }): Step =>
  ({ at, files }) =>
    // Node answers with the first directory that it made, which the types do not promise.
    Effect.asVoid(files.makeDirectory(at(path), options))
const parents = (path: string) => mkdir(path, { recursive: true })
/** The target is written as it is given. */
const symlink =
  (target: string, path: string): Step =>
  ({ at, files }) =>
    files.symlink(target, at(path))
const link =
  (from: string, to: string): Step =>
  ({ at, files }) =>
    files.link(at(from), at(to))
const readLink =
  (path: string): Step =>
  ({ at, files }) =>
    files.readLink(at(path))
const rename =
  (from: string, to: string): Step =>
  ({ at, files }) =>
    files.rename(at(from), at(to))
const remove =
  (path: string, options?: { readonly recursive?: boolean; readonly force?: boolean }): Step =>
  ({ at, files }) =>
    files.remove(at(path), options)
const list =
  (path: string, options?: { readonly recursive?: boolean }): Step =>
  ({ at, files }) =>
    Effect.map(files.readDirectory(at(path), options), (names) => [...names].sort().join(" "))
const entries =
  (path: string): Step =>
  ({ at, files }) =>
    Effect.map(files.readDirectoryEntries(at(path)), (found) =>
      found
        .map(({ name, type }) => `${name}:${type}`)
        .sort()
        .join(" ")
    )
const exists =
  (path: string): Step =>
  ({ at, files }) =>
    files.exists(at(path))
const access =
  (path: string): Step =>
  ({ at, files }) =>
    files.access(at(path), { readable: true, writable: true })
const realPath =
  (path: string): Step =>
  ({ at, files }) =>
    files.realPath(at(path))
const chmod =
  (path: string, mode: number): Step =>
  ({ at, files }) =>
    files.chmod(at(path), mode)
const chown =
  (path: string, uid: number, gid: number): Step =>
  ({ at, files }) =>
    files.chown(at(path), uid, gid)
const utimes =
  (path: string, atime: Date | number, mtime: Date | number): Step =>
  ({ at, files }) =>
    files.utimes(at(path), atime, mtime)
const truncate =
  (path: string, length?: number): Step =>
  ({ at, files }) =>
    files.truncate(at(path), length)

const describeInfo = (info: FileSystem.File.Info) =>
  [
    info.type,
    info.mode.toString(8),
    `${Option.getOrUndefined(info.uid)}:${Option.getOrUndefined(info.gid)}`,
    // The size of a directory is the file system's own affair.
    ...(info.type === "Directory" ? [] : [`${info.size} bytes`, `${Option.getOrUndefined(info.nlink)} names`])
  ].join(" ")
const stat =
  (path: string): Step =>
  ({ at, files }) =>
    Effect.map(files.stat(at(path)), describeInfo)
const lstat =
  (path: string): Step =>
  ({ at, files }) =>
    Effect.map(files.lstat(at(path)), describeInfo)
const mtimeMillis = (info: FileSystem.File.Info) => Option.getOrThrow(info.mtime).getTime()
const mtime =
  (path: string): Step =>
  ({ at, files }) =>
    Effect.map(files.stat(at(path)), mtimeMillis)

/** With an open file; what its steps answer, one after the other. */
const opened =
  (
    path: string,
    options: { readonly flag?: FileSystem.OpenFlag; readonly mode?: number; readonly noFollow?: boolean } | undefined,
    ...uses: ReadonlyArray<(file: FileSystem.File) => Effect.Effect<unknown, PlatformError.PlatformError>>
  ): Step =>
  ({ at, files }) =>
    Effect.scoped(
      Effect.flatMap(files.open(at(path), options), (file) =>
        Effect.map(
          Effect.forEach(uses, (use) => use(file)),
          (answers) => answers.join(" ")
        )
      )
    )
const text = (bytes: Option.Option<Uint8Array>) =>
  Option.match(bytes, { onNone: () => "end", onSome: (some) => new TextDecoder().decode(some) })
const bytes = (content: string) => new TextEncoder().encode(content)

interface Row {
  readonly name: string
  readonly given?: ReadonlyArray<Step>
  readonly when: Step
  /** The value, or `<tag> <message of Node's error>`, with the directory as "~". */
  readonly expected: unknown
  /** What is in the directory then, where it matters. */
  readonly left?: ReadonlyArray<string>
}

const LOOP = [symlink("b", "a"), symlink("a", "b")]
const LONG_NAME = "n".repeat(256)

const rows: Readonly<Record<string, ReadonlyArray<Row>>> = {
  "writing and reading": [
    { name: "a new file", when: write("f", "hello"), expected: undefined, left: ["f = hello"] },
    {
      name: "over an old file",
      given: [write("f", "long content")],
      when: write("f", "x"),
      expected: undefined,
      left: ["f = x"]
    },
    {
      name: "nothing into a file",
      given: [write("f", "x")],
      when: write("f", ""),
      expected: undefined,
      left: ["f = "]
    },
    {
      name: "into a missing directory",
      when: write("d/f"),
      expected: "NotFound ENOENT: no such file or directory, open '~/d/f'"
    },
    {
      name: "below a file",
      given: [write("f")],
      when: write("f/g"),
      expected: "BadResource ENOTDIR: not a directory, open '~/f/g'"
    },
    {
      name: "over a directory",
      given: [mkdir("d")],
      when: write("d"),
      expected: "BadResource EISDIR: illegal operation on a directory, open '~/d'"
    },
    {
      name: "with a slash at the end",
      when: write("f/"),
      expected: "BadResource EISDIR: illegal operation on a directory, open '~/f/'"
    },
    {
      name: "over a file, with a slash at the end",
      given: [write("f")],
      when: write("f/"),
      expected: "BadResource EISDIR: illegal operation on a directory, open '~/f/'"
    },
    {
      name: "through a link",
      given: [write("f"), symlink("f", "l")],
      when: write("l", "x"),
      expected: undefined,
      left: ["f = x", "l -> f"]
    },
    {
      name: "through a dangling link",
      given: [symlink("f", "l")],
      when: write("l", "x"),
      expected: undefined,
      left: ["f = x", "l -> f"]
    },
    {
      name: "through a link in the path",
      given: [mkdir("d"), symlink("d", "l")],
      when: write("l/f", "x"),
      expected: undefined,
      left: ["d/", "d/f = x", "l -> d"]
    },
    {
      name: "through a link to itself",
      given: LOOP,
      when: write("a"),
      expected: "BadResource ELOOP: too many symbolic links encountered, open '~/a'"
    },
    { name: "exclusively", when: write("f", "x", { flag: "wx" }), expected: undefined, left: ["f = x"] },
    {
      name: "exclusively over a file",
      given: [write("f", "old")],
      when: write("f", "x", { flag: "wx" }),
      expected: "AlreadyExists EEXIST: file already exists, open '~/f'",
      left: ["f = old"]
    },
    {
      name: "exclusively over a dangling link",
      given: [symlink("f", "l")],
      when: write("l", "x", { flag: "wx" }),
      expected: "AlreadyExists EEXIST: file already exists, open '~/l'",
      left: ["l -> f"]
    },
    {
      name: "exclusively over a directory",
      given: [mkdir("d")],
      when: write("d", "x", { flag: "wx" }),
      expected: "AlreadyExists EEXIST: file already exists, open '~/d'"
    },
    {
      name: "at the end",
      given: [write("f", "one ")],
      when: write("f", "two", { flag: "a" }),
      expected: undefined,
      left: ["f = one two"]
    },
    { name: "at the end of a new file", when: write("f", "x", { flag: "a" }), expected: undefined, left: ["f = x"] },
    {
      name: "in place",
      given: [write("f", "abc")],
      when: write("f", "X", { flag: "r+" }),
      expected: undefined,
      left: ["f = Xbc"]
    },
    {
      name: "in place of nothing",
      when: write("f", "X", { flag: "r+" }),
      expected: "NotFound ENOENT: no such file or directory, open '~/f'"
    },
    { name: "a name of 255 bytes", when: write("n".repeat(255)), expected: undefined },
    {
      name: "a name of 256 bytes",
      when: write(LONG_NAME),
      expected: `Unknown ENAMETOOLONG: name too long, open '~/${LONG_NAME}'`
    },
    {
      name: "a name of 256 bytes in 128 characters",
      when: write("é".repeat(128)),
      expected: `Unknown ENAMETOOLONG: name too long, open '~/${"é".repeat(128)}'`
    },
    {
      name: "a path of 4096 bytes",
      when: write("/".repeat(4096)),
      expected: `Unknown ENAMETOOLONG: name too long, open '${"/".repeat(4096)}'`
    },
    { name: "the empty path", when: write("", "x"), expected: "NotFound ENOENT: no such file or directory, open ''" },
    { name: "a path with NUL", when: write("a\u0000b"), expected: "BadArgument" },
    { name: "reading what was written", given: [write("f", "grüß dich")], when: read("f"), expected: "grüß dich" },
    {
      name: "reading through two links",
      given: [parents("..1/d"), write("..1/d/f", "x"), symlink("..1", "..data"), symlink("..data/d", "d")],
      when: read("d/f"),
      expected: "x"
    },
    { name: "reading nothing", when: read("f"), expected: "NotFound ENOENT: no such file or directory, open '~/f'" },
    {
      name: "reading through a dangling link",
      given: [symlink("f", "l")],
      when: read("l"),
      expected: "NotFound ENOENT: no such file or directory, open '~/l'"
    },
    {
      name: "reading a directory",
      given: [mkdir("d")],
      when: read("d"),
      expected: "BadResource EISDIR: illegal operation on a directory, read '~/d'"
    },
    {
      name: "reading below a file",
      given: [write("f")],
      when: read("f/g"),
      expected: "BadResource ENOTDIR: not a directory, open '~/f/g'"
    },
    {
      name: "reading a file with a slash",
      given: [write("f")],
      when: read("f/"),
      expected: "BadResource ENOTDIR: not a directory, open '~/f/'"
    },
    {
      name: "reading without permission, as root",
      given: [write("f", "x"), chmod("f", 0)],
      when: read("f"),
      expected: "x"
    }
  ],
  modes: [
    { name: "of a new file", given: [write("f", "abc")], when: stat("f"), expected: "File 100644 0:0 3 bytes 1 names" },
    {
      name: "of a new file, as asked, less the umask",
      given: [write("f", "", { mode: 0o777 })],
      when: stat("f"),
      expected: "File 100755 0:0 0 bytes 1 names"
    },
    {
      name: "of a file that was there",
      given: [write("f", "", { mode: 0o600 }), write("f", "", { mode: 0o777 })],
      when: stat("f"),
      expected: "File 100600 0:0 0 bytes 1 names"
    },
    {
      name: "of a file that is as closed as can be",
      given: [write("f", "x", { mode: 0 })],
      when: stat("f"),
      expected: "File 100000 0:0 1 bytes 1 names"
    },
    { name: "of a new directory", given: [mkdir("d")], when: stat("d"), expected: "Directory 40755 0:0" },
    {
      name: "of a new directory, as asked, less the umask",
      given: [mkdir("d", { mode: 0o770 })],
      when: stat("d"),
      expected: "Directory 40750 0:0"
    },
    {
      name: "of directories on the way",
      given: [mkdir("d/e", { mode: 0o700, recursive: true })],
      when: stat("d"),
      expected: "Directory 40700 0:0"
    },
    {
      name: "of a link",
      given: [symlink("äöü", "l")],
      when: lstat("l"),
      expected: "SymbolicLink 120777 0:0 6 bytes 1 names"
    },
    {
      name: "chmod knows no umask",
      given: [write("f"), chmod("f", 0o666)],
      when: stat("f"),
      expected: "File 100666 0:0 0 bytes 1 names"
    },
    {
      name: "chmod of a directory",
      given: [mkdir("d"), chmod("d", 0o1777)],
      when: stat("d"),
      expected: "Directory 41777 0:0"
    },
    {
      name: "chmod follows a link",
      given: [write("f"), symlink("f", "l"), chmod("l", 0o600)],
      when: stat("f"),
      expected: "File 100600 0:0 0 bytes 1 names"
    },
    {
      name: "chmod of nothing",
      when: chmod("f", 0o600),
      expected: "NotFound ENOENT: no such file or directory, chmod '~/f'"
    },
    {
      name: "chmod through a dangling link",
      given: [symlink("f", "l")],
      when: chmod("l", 0o600),
      expected: "NotFound ENOENT: no such file or directory, chmod '~/l'"
    },
    {
      name: "chown",
      given: [write("f"), chown("f", 1000, 2000)],
      when: stat("f"),
      expected: "File 100644 1000:2000 0 bytes 1 names"
    },
    {
      name: "chown of the group only",
      given: [write("f"), chown("f", 1000, 2000), chown("f", -1, 3000)],
      when: stat("f"),
      expected: "File 100644 1000:3000 0 bytes 1 names"
    },
    {
      name: "chown follows a link",
      given: [write("f"), symlink("f", "l"), chown("l", 1, 2)],
      when: lstat("l"),
      expected: "SymbolicLink 120777 0:0 1 bytes 1 names"
    },
    {
      name: "chown of nothing",
      when: chown("f", 1, 2),
      expected: "NotFound ENOENT: no such file or directory, chown '~/f'"
    },
    {
      name: "a set-group-id directory passes its group on",
      given: [mkdir("d"), chown("d", 0, 2000), chmod("d", 0o2750), write("d/f")],
      when: stat("d/f"),
      expected: "File 100644 0:2000 0 bytes 1 names"
    },
    {
      name: "a set-group-id directory passes itself on",
      given: [mkdir("d"), chown("d", 0, 2000), chmod("d", 0o2750), mkdir("d/e")],
      when: stat("d/e"),
      expected: "Directory 42755 0:2000"
    },
    { name: "access, as root", given: [write("f"), chmod("f", 0)], when: access("f"), expected: undefined },
    {
      name: "access to nothing",
      when: access("f"),
      expected: "NotFound ENOENT: no such file or directory, access '~/f'"
    }
  ],
  looking: [
    { name: "stat of nothing", when: stat("f"), expected: "NotFound ENOENT: no such file or directory, stat '~/f'" },
    {
      name: "stat follows a link",
      given: [write("f", "x"), symlink("f", "l")],
      when: stat("l"),
      expected: "File 100644 0:0 1 bytes 1 names"
    },
    {
      name: "stat of a dangling link",
      given: [symlink("f", "l")],
      when: stat("l"),
      expected: "NotFound ENOENT: no such file or directory, stat '~/l'"
    },
    {
      name: "stat of a link to itself",
      given: LOOP,
      when: stat("a"),
      expected: "BadResource ELOOP: too many symbolic links encountered, stat '~/a'"
    },
    {
      name: "lstat of a dangling link",
      given: [symlink("f", "l")],
      when: lstat("l"),
      expected: "SymbolicLink 120777 0:0 1 bytes 1 names"
    },
    {
      name: "lstat of a link with a slash",
      given: [mkdir("d"), symlink("d", "l")],
      when: lstat("l/"),
      expected: "Directory 40755 0:0"
    },
    {
      name: "lstat of a file with a slash",
      given: [write("f")],
      when: lstat("f/"),
      expected: "BadResource ENOTDIR: not a directory, lstat '~/f/'"
    },
    {
      name: "lstat of a link that ends in a slash, to a file",
      given: [write("f"), symlink("f/", "l")],
      when: stat("l"),
      expected: "BadResource ENOTDIR: not a directory, stat '~/l'"
    },
    {
      name: "lstat below a file",
      given: [write("f")],
      when: lstat("f/g"),
      expected: "BadResource ENOTDIR: not a directory, lstat '~/f/g'"
    },
    {
      name: "dots in a path",
      given: [parents("d/e"), write("f", "x")],
      when: stat("d/./e/../../f"),
      expected: "File 100644 0:0 1 bytes 1 names"
    },
    {
      name: "dots behind a file",
      given: [write("f")],
      when: stat("f/.."),
      expected: "BadResource ENOTDIR: not a directory, stat '~/f/..'"
    },
    {
      name: "dots behind a link go up from its target",
      given: [parents("d/e"), write("d/f", "x"), symlink("d/e", "l")],
      when: stat("l/../f"),
      expected: "File 100644 0:0 1 bytes 1 names"
    },
    { name: "above the root is the root", when: stat("/../.."), expected: "Directory 40755 0:0" },
    { name: "exists: a file", given: [write("f")], when: exists("f"), expected: true },
    { name: "exists: nothing", when: exists("f"), expected: false },
    { name: "exists: a link to a file", given: [write("f"), symlink("f", "l")], when: exists("l"), expected: true },
    { name: "exists: a dangling link", given: [symlink("f", "l")], when: exists("l"), expected: false },
    {
      name: "exists: below a file",
      given: [write("f")],
      when: exists("f/g"),
      expected: "BadResource ENOTDIR: not a directory, access '~/f/g'"
    },
    {
      name: "exists: a link to itself",
      given: LOOP,
      when: exists("a"),
      expected: "BadResource ELOOP: too many symbolic links encountered, access '~/a'"
    },
    {
      name: "realPath",
      given: [parents("d/e"), write("d/e/f"), symlink("d", "l"), symlink("e/f", "d/m")],
      when: realPath("l/m"),
      expected: "~/d/e/f"
    },
    {
      name: "realPath of a directory",
      given: [parents("d/e"), symlink("d/e", "l")],
      when: realPath("l/.."),
      expected: "~"
    },
    {
      name: "realPath of a dangling link",
      given: [symlink("f", "l")],
      when: realPath("l"),
      expected: "NotFound ENOENT: no such file or directory, stat '~/l'"
    },
    {
      name: "realPath below nothing",
      when: realPath("d/e"),
      expected: "NotFound ENOENT: no such file or directory, lstat '~/d'"
    },
    {
      name: "realPath of nothing",
      when: realPath("f"),
      expected: "NotFound ENOENT: no such file or directory, lstat '~/f'"
    }
  ],
  directories: [
    { name: "a new one", when: mkdir("d"), expected: undefined, left: ["d/"] },
    { name: "a new one, with a slash", when: mkdir("d/"), expected: undefined, left: ["d/"] },
    {
      name: "where one is",
      given: [mkdir("d")],
      when: mkdir("d"),
      expected: "AlreadyExists EEXIST: file already exists, mkdir '~/d'"
    },
    {
      name: "where a file is",
      given: [write("f")],
      when: mkdir("f"),
      expected: "AlreadyExists EEXIST: file already exists, mkdir '~/f'"
    },
    {
      name: "where a dangling link is",
      given: [symlink("d", "l")],
      when: mkdir("l"),
      expected: "AlreadyExists EEXIST: file already exists, mkdir '~/l'"
    },
    { name: "in nothing", when: mkdir("d/e"), expected: "NotFound ENOENT: no such file or directory, mkdir '~/d/e'" },
    {
      name: "in a file",
      given: [write("f")],
      when: mkdir("f/d"),
      expected: "BadResource ENOTDIR: not a directory, mkdir '~/f/d'"
    },
    {
      name: "in a link to a directory",
      given: [mkdir("d"), symlink("d", "l")],
      when: mkdir("l/e"),
      expected: undefined,
      left: ["d/", "d/e/", "l -> d"]
    },
    { name: "recursively", when: parents("a/b/c"), expected: undefined, left: ["a/", "a/b/", "a/b/c/"] },
    {
      name: "recursively where one is",
      given: [parents("a/b")],
      when: parents("a/b"),
      expected: undefined,
      left: ["a/", "a/b/"]
    },
    {
      name: "recursively, some are there",
      given: [mkdir("a")],
      when: parents("a/b/c/"),
      expected: undefined,
      left: ["a/", "a/b/", "a/b/c/"]
    },
    {
      name: "recursively where a file is",
      given: [write("f")],
      when: parents("f"),
      expected: "AlreadyExists EEXIST: file already exists, mkdir '~/f'"
    },
    {
      name: "recursively where a link to a directory is",
      given: [mkdir("d"), symlink("d", "l")],
      when: parents("l"),
      expected: undefined,
      left: ["d/", "l -> d"]
    },
    {
      name: "recursively through a link",
      given: [mkdir("d"), symlink("d", "l")],
      when: parents("l/a/b"),
      expected: undefined,
      left: ["d/", "d/a/", "d/a/b/", "l -> d"]
    },
    {
      name: "recursively through a dangling link",
      given: [symlink("d", "l")],
      when: parents("l/a"),
      expected: "BadResource ENOTDIR: not a directory, mkdir '~/l'"
    },
    {
      name: "with a slash, where a file is",
      given: [write("f")],
      when: mkdir("f/"),
      expected: "AlreadyExists EEXIST: file already exists, mkdir '~/f/'"
    },
    {
      name: "recursively below a file",
      given: [write("f")],
      when: parents("f/a"),
      expected: "BadResource ENOTDIR: not a directory, mkdir '~/f/a'"
    },
    {
      name: "recursively far below a file",
      given: [write("f")],
      when: parents("f/a/b"),
      expected: "BadResource ENOTDIR: not a directory, mkdir '~/f/a/b'"
    },
    {
      name: "listed",
      given: [mkdir("d"), write("d/f"), mkdir("d/e"), symlink("f", "d/l"), symlink("g", "d/m")],
      when: list("d"),
      expected: "e f l m"
    },
    {
      name: "listed recursively, which goes through links",
      given: [parents("d/e/g"), write("d/e/f"), symlink("e", "d/l")],
      when: list("d", { recursive: true }),
      expected: "e e/f e/g l l/f l/g"
    },
    {
      name: "listed through a link",
      given: [mkdir("d"), write("d/f"), symlink("d", "l")],
      when: list("l"),
      expected: "f"
    },
    {
      name: "listed with types",
      given: [mkdir("d"), write("d/f"), mkdir("d/e"), symlink("f", "d/l"), symlink("e", "d/m")],
      when: entries("d"),
      expected: "e:Directory f:File l:SymbolicLink m:SymbolicLink"
    },
    {
      name: "a file listed",
      given: [write("f")],
      when: list("f"),
      expected: "BadResource ENOTDIR: not a directory, scandir '~/f'"
    },
    { name: "nothing listed", when: list("d"), expected: "NotFound ENOENT: no such file or directory, scandir '~/d'" },
    {
      name: "nothing listed with types",
      when: entries("d"),
      expected: "NotFound ENOENT: no such file or directory, scandir '~/d'"
    },
    {
      name: "a dangling link listed",
      given: [symlink("d", "l")],
      when: list("l"),
      expected: "NotFound ENOENT: no such file or directory, scandir '~/l'"
    }
  ],
  links: [
    { name: "a relative one", when: symlink("..data/f", "f"), expected: undefined, left: ["f -> ..data/f"] },
    {
      name: "where a file is",
      given: [write("f")],
      when: symlink("x", "f"),
      expected: "AlreadyExists EEXIST: file already exists, symlink 'x' -> '~/f'",
      left: ["f = "]
    },
    {
      name: "where a link is, also a dangling one",
      given: [symlink("a", "l")],
      when: symlink("b", "l"),
      expected: "AlreadyExists EEXIST: file already exists, symlink 'b' -> '~/l'",
      left: ["l -> a"]
    },
    {
      name: "in nothing",
      when: symlink("x", "d/l"),
      expected: "NotFound ENOENT: no such file or directory, symlink 'x' -> '~/d/l'"
    },
    {
      name: "in a file",
      given: [write("f")],
      when: symlink("x", "f/l"),
      expected: "BadResource ENOTDIR: not a directory, symlink 'x' -> '~/f/l'"
    },
    {
      name: "to the empty path",
      when: symlink("", "l"),
      expected: "NotFound ENOENT: no such file or directory, symlink '' -> '~/l'"
    },
    { name: "read", given: [symlink("../x/", "l")], when: readLink("l"), expected: "../x/" },
    {
      name: "of a file, read",
      given: [write("f")],
      when: readLink("f"),
      expected: "Unknown EINVAL: invalid argument, readlink '~/f'"
    },
    {
      name: "of a directory, read",
      given: [mkdir("d")],
      when: readLink("d"),
      expected: "Unknown EINVAL: invalid argument, readlink '~/d'"
    },
    {
      name: "of nothing, read",
      when: readLink("l"),
      expected: "NotFound ENOENT: no such file or directory, readlink '~/l'"
    },
    {
      name: "below a file, read",
      given: [write("f")],
      when: readLink("f/l"),
      expected: "BadResource ENOTDIR: not a directory, readlink '~/f/l'"
    },
    {
      name: "forty in a row are followed",
      given: [write("l0", "x"), ...Array.from({ length: 40 }, (_, i) => symlink(`l${i}`, `l${i + 1}`))],
      when: read("l40"),
      expected: "x"
    },
    {
      name: "forty-one in a row are not",
      given: [write("l0", "x"), ...Array.from({ length: 41 }, (_, i) => symlink(`l${i}`, `l${i + 1}`))],
      when: read("l41"),
      expected: "BadResource ELOOP: too many symbolic links encountered, open '~/l41'"
    },
    {
      name: "a hard one shares the content",
      given: [write("f", "a"), link("f", "g"), write("g", "b")],
      when: stat("f"),
      expected: "File 100644 0:0 1 bytes 2 names",
      left: ["f = b", "g = b"]
    },
    {
      name: "a hard one outlives the other",
      given: [write("f", "a"), link("f", "g"), remove("f")],
      when: stat("g"),
      expected: "File 100644 0:0 1 bytes 1 names",
      left: ["g = a"]
    },
    {
      name: "a hard one to a directory",
      given: [mkdir("d")],
      when: link("d", "e"),
      expected: "PermissionDenied EPERM: operation not permitted, link '~/d' -> '~/e'"
    },
    {
      name: "a hard one where a file is",
      given: [write("f"), write("g")],
      when: link("f", "g"),
      expected: "AlreadyExists EEXIST: file already exists, link '~/f' -> '~/g'"
    }
  ],
  renaming: [
    { name: "a file", given: [write("f", "x")], when: rename("f", "g"), expected: undefined, left: ["g = x"] },
    {
      name: "a file over a file",
      given: [write("f", "x"), write("g", "y")],
      when: rename("f", "g"),
      expected: undefined,
      left: ["g = x"]
    },
    {
      name: "4.3 row 8: a link over a link",
      given: [mkdir("..1"), mkdir("..2"), symlink("..1", "..data"), symlink("..2", "..data_tmp")],
      when: rename("..data_tmp", "..data"),
      expected: undefined,
      left: ["..1/", "..2/", "..data -> ..2"]
    },
    {
      name: "a link over a file",
      given: [write("f", "x"), symlink("f", "l")],
      when: rename("l", "f"),
      expected: undefined,
      left: ["f -> f"]
    },
    {
      name: "a link over a directory",
      given: [mkdir("d"), symlink("x", "l")],
      when: rename("l", "d"),
      expected: "BadResource EISDIR: illegal operation on a directory, rename '~/l' -> '~/d'",
      left: ["d/", "l -> x"]
    },
    {
      name: "a file over a directory",
      given: [mkdir("d"), write("f")],
      when: rename("f", "d"),
      expected: "BadResource EISDIR: illegal operation on a directory, rename '~/f' -> '~/d'"
    },
    {
      name: "a directory over a file",
      given: [mkdir("d"), write("f")],
      when: rename("d", "f"),
      expected: "BadResource ENOTDIR: not a directory, rename '~/d' -> '~/f'"
    },
    {
      name: "a directory over a link to a directory",
      given: [mkdir("d"), mkdir("e"), symlink("e", "l")],
      when: rename("d", "l"),
      expected: "BadResource ENOTDIR: not a directory, rename '~/d' -> '~/l'"
    },
    {
      name: "a directory over an empty one",
      given: [mkdir("d"), write("d/f", "x"), mkdir("e")],
      when: rename("d", "e"),
      expected: undefined,
      left: ["e/", "e/f = x"]
    },
    {
      name: "a directory over a full one",
      given: [mkdir("d"), mkdir("e"), write("e/f", "x")],
      when: rename("d", "e"),
      expected: "Unknown ENOTEMPTY: directory not empty, rename '~/d' -> '~/e'"
    },
    {
      name: "a directory into itself",
      given: [parents("d/e")],
      when: rename("d", "d/e/f"),
      expected: "Unknown EINVAL: invalid argument, rename '~/d' -> '~/d/e/f'"
    },
    {
      name: "a directory over the one that it is in",
      given: [parents("d/e")],
      when: rename("d/e", "d"),
      expected: "Unknown ENOTEMPTY: directory not empty, rename '~/d/e' -> '~/d'"
    },
    {
      name: "a directory over itself",
      given: [mkdir("d"), write("d/f")],
      when: rename("d", "d"),
      expected: undefined,
      left: ["d/", "d/f = "]
    },
    {
      name: "nothing",
      when: rename("f", "g"),
      expected: "NotFound ENOENT: no such file or directory, rename '~/f' -> '~/g'"
    },
    {
      name: "into nothing",
      given: [write("f")],
      when: rename("f", "d/f"),
      expected: "NotFound ENOENT: no such file or directory, rename '~/f' -> '~/d/f'"
    },
    {
      name: "into a file",
      given: [write("f"), write("g")],
      when: rename("f", "g/f"),
      expected: "BadResource ENOTDIR: not a directory, rename '~/f' -> '~/g/f'"
    },
    {
      name: "a file to a name with a slash",
      given: [write("f")],
      when: rename("f", "g/"),
      expected: "BadResource ENOTDIR: not a directory, rename '~/f' -> '~/g/'"
    },
    {
      name: "to a dot",
      given: [mkdir("d")],
      when: rename("d", "d/."),
      expected: "Busy EBUSY: resource busy or locked, rename '~/d' -> '~/d/.'"
    },
    {
      name: "between two names of one file",
      given: [write("f", "x"), link("f", "g")],
      when: rename("f", "g"),
      expected: undefined,
      left: ["f = x", "g = x"]
    },
    {
      name: "a directory keeps what is in it",
      given: [parents("d/e"), write("d/e/f", "x"), mkdir("t")],
      when: rename("d", "t/d"),
      expected: undefined,
      left: ["t/", "t/d/", "t/d/e/", "t/d/e/f = x"]
    }
  ],
  removing: [
    { name: "a file", given: [write("f"), write("g")], when: remove("f"), expected: undefined, left: ["g = "] },
    {
      name: "a link, not its target",
      given: [write("f", "x"), symlink("f", "l")],
      when: remove("l"),
      expected: undefined,
      left: ["f = x"]
    },
    {
      name: "a link to a directory, not the directory",
      given: [mkdir("d"), write("d/f", "x"), symlink("d", "l")],
      when: remove("l", { recursive: true, force: true }),
      expected: undefined,
      left: ["d/", "d/f = x"]
    },
    { name: "a dangling link", given: [symlink("x", "l")], when: remove("l"), expected: undefined, left: [] },
    { name: "nothing", when: remove("f"), expected: "NotFound ENOENT: no such file or directory, lstat '~/f'" },
    {
      name: "nothing, recursively",
      when: remove("f", { recursive: true }),
      expected: "NotFound ENOENT: no such file or directory, lstat '~/f'"
    },
    { name: "nothing, with force", when: remove("f", { force: true }), expected: undefined },
    {
      name: "below a file, with force",
      given: [write("f")],
      when: remove("f/g", { force: true }),
      expected: "BadResource ENOTDIR: not a directory, lstat '~/f/g'"
    },
    {
      name: "an empty directory, as if it were a file",
      given: [mkdir("d")],
      when: remove("d"),
      expected: "Unknown Path is a directory: rm returned EISDIR (is a directory) ~/d",
      left: ["d/"]
    },
    {
      name: "a tree",
      given: [parents("d/e/f"), write("d/e/g", "x"), write("h", "y")],
      when: remove("d", { recursive: true }),
      expected: undefined,
      left: ["h = y"]
    },
    {
      name: "a tree with links out of it, which are not followed",
      given: [
        parents("d/e"),
        mkdir("kept"),
        write("kept/f", "x"),
        symlink("../kept", "d/l"),
        symlink("../../kept/f", "d/e/m")
      ],
      when: remove("d", { recursive: true }),
      expected: undefined,
      left: ["kept/", "kept/f = x"]
    },
    {
      name: "a directory, written with a dot",
      given: [mkdir("d")],
      when: remove("d/.", { recursive: true }),
      expected: "Unknown EINVAL: invalid argument, rmdir '~/d/.'"
    },
    {
      name: "a directory, written with a slash",
      given: [mkdir("d"), write("d/f")],
      when: remove("d/", { recursive: true }),
      expected: undefined,
      left: []
    }
  ],
  "open files": [
    {
      name: "read on from where they are",
      given: [write("f", "abcdef")],
      when: opened(
        "f",
        undefined,
        (f) => Effect.map(f.readAlloc(4), text),
        (f) => Effect.map(f.readAlloc(4), text),
        (f) => Effect.map(f.readAlloc(4), text)
      ),
      expected: "abcd ef end"
    },
    {
      name: "read elsewhere without moving",
      given: [write("f", "abcdef")],
      when: opened(
        "f",
        undefined,
        (f) => Effect.map(f.readAlloc(2, { position: 3n }), text),
        (f) => Effect.map(f.readAlloc(2), text)
      ),
      expected: "de ab"
    },
    {
      name: "read into a buffer",
      given: [write("f", "abc")],
      when: opened("f", undefined, (f) => {
        const buffer = new Uint8Array(2)
        return Effect.map(f.read(buffer), (n) => `${n} ${new TextDecoder().decode(buffer)}`)
      }),
      expected: "2 ab"
    },
    {
      name: "seek",
      given: [write("f", "abcdef")],
      when: opened(
        "f",
        undefined,
        (f) => f.seek(2n, "start"),
        (f) => f.seek(1n, "current"),
        (f) => Effect.map(f.readAlloc(9), text)
      ),
      expected: "2 3 def"
    },
    {
      name: "seek before the start",
      given: [write("f")],
      when: opened("f", undefined, (f) => f.seek(-1n, "start")),
      expected: "BadArgument"
    },
    {
      name: "write, sync and say their size",
      when: opened(
        "f",
        { flag: "w", mode: 0o600 },
        (f) => f.write(bytes("abc")),
        (f) => f.writeAll(bytes("de")),
        (f) => f.sync,
        (f) => Effect.map(f.stat, describeInfo)
      ),
      expected: "3   File 100600 0:0 5 bytes 1 names",
      left: ["f = abcde"]
    },
    {
      name: "write over what is there",
      given: [write("f", "abcdef")],
      when: opened(
        "f",
        { flag: "r+" },
        (f) => f.seek(2n, "start"),
        (f) => f.writeAll(bytes("XY"))
      ),
      expected: "2 ",
      left: ["f = abXYef"]
    },
    {
      name: "append wherever they are",
      given: [write("f", "abc")],
      when: opened(
        "f",
        { flag: "a" },
        (f) => f.seek(0n, "start"),
        (f) => f.writeAll(bytes("d"))
      ),
      expected: "0 ",
      left: ["f = abcd"]
    },
    {
      name: "are cut",
      given: [write("f", "abcdef")],
      when: opened(
        "f",
        { flag: "r+" },
        (f) => f.truncate(2),
        (f) => Effect.map(f.stat, (info) => info.size)
      ),
      expected: " 2",
      left: ["f = ab"]
    },
    {
      name: "for reading are not written",
      given: [write("f")],
      when: opened("f", undefined, (f) => f.write(bytes("x"))),
      expected: "Unknown EBADF: bad file descriptor, write"
    },
    {
      name: "for writing are not read",
      given: [write("f")],
      when: opened("f", { flag: "w" }, (f) => f.readAlloc(1)),
      expected: "Unknown EBADF: bad file descriptor, read"
    },
    {
      name: "outlive their name",
      given: [write("f", "abc")],
      when: (place) =>
        opened(
          "f",
          undefined,
          (f) => Effect.map(Effect.andThen(Effect.scoped(remove("f")(place)), f.readAlloc(9)), text),
          (f) => Effect.map(f.stat, describeInfo)
        )(place),
      expected: "abc File 100644 0:0 3 bytes 0 names",
      left: []
    },
    {
      name: "directories can be opened and synced",
      given: [mkdir("d")],
      when: opened(
        "d",
        undefined,
        (f) => f.sync,
        (f) => Effect.map(f.stat, (info) => info.type)
      ),
      expected: " Directory"
    },
    {
      name: "directories cannot be read",
      given: [mkdir("d")],
      when: opened("d", undefined, (f) => f.readAlloc(1)),
      expected: "BadResource EISDIR: illegal operation on a directory, read"
    },
    {
      name: "directories cannot be opened for writing",
      given: [mkdir("d")],
      when: opened("d", { flag: "r+" }),
      expected: "BadResource EISDIR: illegal operation on a directory, open '~/d'"
    },
    {
      name: "links are followed",
      given: [write("f", "x"), symlink("f", "l")],
      when: opened("l", undefined, (f) => Effect.map(f.readAlloc(9), text)),
      expected: "x"
    },
    {
      name: "links are refused where asked",
      given: [write("f", "x"), symlink("f", "l")],
      when: opened("l", { noFollow: true }),
      expected: "BadResource ELOOP: too many symbolic links encountered, open '~/l'"
    },
    {
      name: "a file where links are refused",
      given: [write("f", "x")],
      when: opened("f", { noFollow: true }, (f) => Effect.map(f.readAlloc(9), text)),
      expected: "x"
    },
    {
      name: "nothing can be opened",
      when: opened("f", undefined),
      expected: "NotFound ENOENT: no such file or directory, open '~/f'"
    },
    { name: "truncate by path", given: [write("f", "abcdef"), truncate("f", 2)], when: read("f"), expected: "ab" },
    { name: "truncate to nothing", given: [write("f", "abcdef"), truncate("f")], when: read("f"), expected: "" },
    {
      name: "truncate to more",
      given: [write("f", "ab"), truncate("f", 4)],
      when: read("f"),
      expected: "ab\u0000\u0000"
    },
    {
      name: "truncate nothing",
      when: truncate("f"),
      expected: "NotFound ENOENT: no such file or directory, open '~/f'"
    }
  ],
  times: [
    {
      name: "set by numbers, which are seconds",
      given: [write("f"), utimes("f", 0, 1234.5)],
      when: mtime("f"),
      expected: 1_234_500
    },
    {
      name: "set by dates, which may lose a millisecond",
      given: [write("f"), utimes("f", new Date(0), new Date(1_700_000_000_123))],
      when: mtime("f"),
      expected: 1_700_000_000_122
    },
    {
      name: "set by a date of whole seconds",
      given: [write("f"), utimes("f", new Date(0), new Date(1_700_000_000_000))],
      when: mtime("f"),
      expected: 1_700_000_000_000
    },
    { name: "of a directory", given: [mkdir("d"), utimes("d", 0, 1000)], when: mtime("d"), expected: 1_000_000 },
    {
      name: "through a link",
      given: [write("f"), symlink("f", "l"), utimes("l", 0, 1000)],
      when: mtime("f"),
      expected: 1_000_000
    },
    { name: "of nothing", when: utimes("f", 0, 0), expected: "NotFound ENOENT: no such file or directory, utime '~/f'" }
  ]
}

/** What moves the mtime of a directory that was set to the past, and what does not. */
const moves: ReadonlyArray<{
  readonly name: string
  readonly given?: ReadonlyArray<Step>
  readonly when: Step
  readonly moves: boolean
}> = [
  { name: "a new file", when: write("d/f"), moves: true },
  { name: "a new directory", when: mkdir("d/e"), moves: true },
  { name: "a new link", when: symlink("x", "d/l"), moves: true },
  { name: "a file removed", given: [write("d/f")], when: remove("d/f"), moves: true },
  { name: "a directory removed", given: [mkdir("d/e")], when: remove("d/e", { recursive: true }), moves: true },
  { name: "an entry renamed within", given: [write("d/f")], when: rename("d/f", "d/g"), moves: true },
  {
    name: "a link renamed over a link",
    given: [symlink("x", "d/a"), symlink("y", "d/b")],
    when: rename("d/a", "d/b"),
    moves: true
  },
  { name: "an entry that leaves", given: [write("d/f")], when: rename("d/f", "f"), moves: true },
  { name: "an entry that comes", given: [write("f")], when: rename("f", "d/f"), moves: true },
  { name: "a file written again", given: [write("d/f")], when: write("d/f", "x"), moves: false },
  { name: "a file read", given: [write("d/f")], when: read("d/f"), moves: false },
  { name: "a new file one level below", given: [mkdir("d/e")], when: write("d/e/f"), moves: false },
  { name: "a new mode", when: chmod("d", 0o700), moves: false },
  { name: "the directory renamed", when: rename("d", "e"), moves: false },
  { name: "a new file that fails", given: [write("d/f")], when: write("d/f", "", { flag: "wx" }), moves: false },
  { name: "a directory made again, recursively", given: [mkdir("d/e")], when: parents("d/e"), moves: false }
]

/** One line per entry, in the order of names, links as they are. */
const tree = (place: Place, path = ""): Effect.Effect<ReadonlyArray<string>, PlatformError.PlatformError> =>
  Effect.gen(function* () {
    const { at, files } = place
    const lines: Array<string> = []
    for (const name of [...(yield* files.readDirectory(at(path === "" ? "." : path)))].sort()) {
      const child = path === "" ? name : `${path}/${name}`
      const { type } = yield* files.lstat(at(child))
      if (type === "SymbolicLink") lines.push(`${child} -> ${yield* files.readLink(at(child))}`)
      else if (type === "File") lines.push(`${child} = ${yield* files.readFileString(at(child))}`)
      else lines.push(`${child}/`, ...(yield* tree(place, child)))
    }
    return lines
  })

const messageOf = ({ reason }: PlatformError.PlatformError) =>
  reason._tag === "BadArgument"
    ? reason._tag
    : `${reason._tag} ${reason.cause instanceof Error ? reason.cause.message : reason.message}`

/** The outcome of a step as one plain value, with the directory as "~". */
const outcomeOf = (place: Place, step: Step) =>
  Effect.map(Effect.result(Effect.scoped(step(place))), (outcome) => {
    const value = Result.isSuccess(outcome) ? outcome.success : messageOf(outcome.failure)
    return typeof value === "string"
      ? value.replaceAll(place.at("."), "~").replaceAll(place.at(".").slice(0, -2), "~")
      : value
  })

export { outcomeOf, type Place, type Step, tree }
export const steps = {
  write,
  read,
  mkdir,
  symlink,
  link,
  readLink,
  rename,
  remove,
  list,
  entries,
  exists,
  realPath,
  chmod,
  stat,
  lstat,
  truncate
}

/**
 * @shape  (name, layer, { directory, later }) -> tests
 * `directory` is new, empty and canonical; `later` lets time pass, so that a change of an mtime shows.
 */
export const suite = <R, E>(
  name: string,
  layer: Layer.Layer<FileSystem.FileSystem | R, E>,
  world: {
    readonly directory: Effect.Effect<string, never, FileSystem.FileSystem | R | Scope.Scope>
    readonly later: (duration: Duration.Input) => Effect.Effect<void>
  }
) =>
  it.layer(layer)(`FileSystem (${name})`, (it) => {
    const fresh = Effect.gen(function* () {
      const files = yield* FileSystem.FileSystem
      const directory = yield* world.directory
      const place: Place = {
        files,
        at: (path) => (path === "" || path.startsWith("/") ? path : `${directory}/${path}`)
      }
      return place
    })

    const run = (place: Place, given: ReadonlyArray<Step> = []) =>
      Effect.forEach(given, (step) => Effect.scoped(step(place)), { discard: true })

    for (const [group, table] of Object.entries(rows)) {
      describe(group, () => {
        it.effect.each(table)("$name", (row) =>
          Effect.gen(function* () {
            const place = yield* fresh
            yield* run(place, row.given)
            assert.deepStrictEqual(yield* outcomeOf(place, row.when), row.expected)
            if (row.left !== undefined) assert.deepStrictEqual(yield* tree(place), row.left)
          })
        )
      })
    }

    describe("the time of a directory", () => {
      it.effect.each(moves)("$name: moved $moves", (row) =>
        Effect.gen(function* () {
          const place = yield* fresh
          yield* run(place, [mkdir("d"), ...(row.given ?? []), utimes("d", 1, 1)])
          yield* world.later("1 minute")
          yield* outcomeOf(place, row.when)
          const at = (yield* place.files.exists(place.at("d"))) ? "d" : "e"
          const info = yield* place.files.stat(place.at(at))
          assert.strictEqual(mtimeMillis(info) > 1000, row.moves)
        })
      )
    })

    it.effect("devices and inodes: a file keeps its own over a rename, and shares its directory's device", () =>
      Effect.gen(function* () {
        const place = yield* fresh
        yield* run(place, [write("f"), write("g"), mkdir("d")])
        const before = yield* place.files.stat(place.at("f"))
        yield* run(place, [rename("f", "d/f")])
        const after = yield* place.files.stat(place.at("d/f"))
        const other = yield* place.files.stat(place.at("g"))
        const directory = yield* place.files.stat(place.at("d"))
        assert.deepStrictEqual(after.ino, before.ino)
        assert.notDeepEqual(other.ino, before.ino)
        assert.strictEqual(after.dev, directory.dev)
      })
    )

    it.effect("temporary directories and files are new, closed to others, and go with their scope", () =>
      Effect.gen(function* () {
        const { at, files } = yield* fresh
        const made = yield* Effect.scoped(
          Effect.gen(function* () {
            const one = yield* files.makeTempDirectoryScoped({ directory: at("."), prefix: "one-" })
            const two = yield* files.makeTempDirectory({ directory: at(".") })
            const file = yield* files.makeTempFileScoped({ directory: at("."), suffix: ".txt" })
            assert.match(one, /\/one-[^/]+$/u)
            assert.match(file, /\.txt$/u)
            assert.strictEqual((yield* files.stat(one)).mode, 0o40700)
            assert.strictEqual((yield* files.stat(file)).mode, 0o100644)
            return { one, two, file }
          })
        )
        assert.isFalse(yield* files.exists(made.one))
        assert.isTrue(yield* files.exists(made.two))
        assert.isFalse(yield* files.exists(made.file))
      })
    )
  })
