/**
 * The memory that a container is charged with: a memory cgroup around whatever is started meanwhile, version 1 or 2.
 * What the kubelet calls the working set is usage without inactive file pages; it includes what is written to a tmpfs.
 */
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"

export interface MemoryGroup {
  /** In MiB. */
  readonly workingSet: () => number
  /** Once nothing runs in it any more. */
  readonly remove: () => void
}

const MEBIBYTE = 1024 * 1024

const number = (path: string): number => Number(readFileSync(path, "utf8"))
const inactiveFile = (path: string, key: string): number =>
  Number(new RegExp(`^${key} (\\d+)$`, "mu").exec(readFileSync(path, "utf8"))?.[1])

/** @shape  (start something) -> its result, and its group; undefined where cgroups cannot be made */
export const around = async <A>(
  name: string,
  start: () => Promise<A>
): Promise<{ readonly result: A; readonly group: MemoryGroup | undefined }> => {
  const mine = readFileSync("/proc/self/cgroup", "utf8")
  const [, first] = /^\d+:memory:(.*)$/mu.exec(mine) ?? []
  const [, second] = /^0::(.*)$/mu.exec(mine) ?? []
  const home = first === undefined ? join("/sys/fs/cgroup", second ?? "") : join("/sys/fs/cgroup/memory", first)
  const path = join(home, name)
  const enter = (directory: string) => writeFileSync(join(directory, "cgroup.procs"), String(process.pid))
  try {
    mkdirSync(path)
    enter(path)
  } catch {
    return { result: await start(), group: undefined }
  }
  try {
    const result = await start()
    const workingSet = () =>
      first === undefined
        ? number(join(path, "memory.current")) - inactiveFile(join(path, "memory.stat"), "inactive_file")
        : number(join(path, "memory.usage_in_bytes")) - inactiveFile(join(path, "memory.stat"), "total_inactive_file")
    return { result, group: { workingSet: () => workingSet() / MEBIBYTE, remove: () => rmdirSync(path) } }
  } finally {
    enter(home)
  }
}
