/**
 * What goes wrong between a driver and its node's disk and mounts: calls that fail or take their time, a tmpfs without
 * room, one that is read-only for a while, a file that cannot be read for a while, a mount that stays busy; and what a
 * driver that is killed leaves behind. Each has a rate of its own, drawn once per run.
 */
import { type Context, Effect, FileSystem, PlatformError } from "effect"
import { MountFailed } from "../../../schemas/errors/MountFailed.ts"
import { Mounter } from "../../../src/ports/Mounter.ts"
import { type Chance, every, interval } from "./Chance.ts"
import type { Striker } from "./Striker.ts"

/** Rates are chances per call; intervals are means, and 0 is never. */
export type DiskRates = {
  /** Any call, once: EIO or ENOMEM. */
  readonly diskFailRate: number
  /** A disk that has other things to do. */
  readonly diskSlowRate: number
  readonly mountFailRate: number
  readonly unmountFailRate: number
  readonly inspectFailRate: number
  /** No room on any tmpfs for a while. */
  readonly diskFullEveryMillis: number
  readonly diskReadOnlyEveryMillis: number
  readonly fileBrokenEveryMillis: number
  readonly mountBusyEveryMillis: number
  /** The driver is killed, and leaves what a write was at. */
  readonly leftoversEveryMillis: number
  /** The driver is killed, and the volumes' time of change is still to come. */
  readonly futureTimesEveryMillis: number
}

const MINUTE = 60_000

export const drawDiskRates = (chance: Chance): DiskRates => ({
  diskFailRate: chance.sometimes(0.005),
  // Or a node that has no time for anything: whatever takes several steps meets all the others.
  diskSlowRate: chance.sometimes(1) > 0.7 ? chance.between(0.1, 0.5) : chance.sometimes(0.03),
  mountFailRate: chance.sometimes(0.1),
  unmountFailRate: chance.sometimes(0.1),
  inspectFailRate: chance.sometimes(0.05),
  diskFullEveryMillis: interval(chance, 40 * MINUTE),
  diskReadOnlyEveryMillis: interval(chance, 60 * MINUTE),
  fileBrokenEveryMillis: interval(chance, 40 * MINUTE),
  mountBusyEveryMillis: interval(chance, 40 * MINUTE),
  leftoversEveryMillis: interval(chance, 60 * MINUTE),
  futureTimesEveryMillis: interval(chance, 60 * MINUTE)
})

const MOUNT_ERRNOS = ["EPERM", "ENOMEM", "EBUSY"]
const SLOW_MILLIS_MAX = 3_000
/** Whoever waits has lost the processor as well: long enough for anything to happen meanwhile. */
const HANGS_MILLIS_MAX = 100_000
const HANG_SHARE = 0.1

const WORDS: Readonly<Record<string, string>> = {
  EIO: "i/o error",
  ENOMEM: "not enough memory",
  ENOSPC: "no space left on device",
  EROFS: "read-only file system"
}

const systemError = (method: string, path: string, errno: string) =>
  PlatformError.systemError({
    _tag: "Unknown",
    module: "FileSystem",
    method,
    pathOrDescriptor: path,
    syscall: method,
    cause: new Error(`${errno}: ${WORDS[errno] ?? errno}, ${method} '${path}'`)
  })

export class DiskFaults {
  isFull = false
  isReadOnly = false
  /** The next file that is read is broken until this is false again. */
  breaksFile = false
  /** The next mount that is to be unmounted stays busy until this is false again. */
  keepsMountBusy = false
  /** Told of the path at which the driver is held up for long. */
  onHang: (path: string) => void = () => {}
  private brokenFile: string | undefined
  private busyMount: string | undefined
  private mountFaultsSoFar = 0
  private readonly striker: Striker
  private readonly rates: DiskRates
  private readonly chance: Chance

  constructor(striker: Striker, rates: DiskRates, chance: Chance) {
    this.striker = striker
    this.rates = rates
    this.chance = chance
  }

  /** Of calls whose fault is somewhere in their middle; see `mounter`. */
  get mountFaults(): number {
    return this.mountFaultsSoFar
  }

  private isBusy(path: string): boolean {
    if (!this.keepsMountBusy) this.busyMount = undefined
    else this.busyMount ??= path
    return this.busyMount === path
  }

  private isBroken(path: string, isRead: boolean): boolean {
    if (!this.breaksFile) this.brokenFile = undefined
    else if (isRead) this.brokenFile ??= path
    return this.brokenFile === path
  }

  mounter(mounter: Mounter["Service"]): Mounter["Service"] {
    const { chance, rates, striker } = this
    const fails = (operation: MountFailed["operation"], targetPath: string, errno: string) => {
      striker.note(`Mounter.${operation} ${errno}`)
      if (operation !== "mount") this.mountFaultsSoFar += 1
      return Effect.fail(new MountFailed({ operation, targetPath, errno }))
    }
    const drawn = (rate: number) => striker.active && chance.happens(rate)
    return Mounter.of({
      ...mounter,
      inspect: (path) =>
        Effect.suspend(() =>
          drawn(rates.inspectFailRate)
            ? fails("inspect", path, chance.oneOf(["EPERM", "ENOMEM"]))
            : mounter.inspect(path)
        ),
      mountTmpfs: (path, options) =>
        Effect.suspend(() =>
          drawn(rates.mountFailRate)
            ? fails("mount", path, chance.oneOf(MOUNT_ERRNOS))
            : mounter.mountTmpfs(path, options)
        ),
      unmount: (path) =>
        Effect.suspend(() => {
          if (this.isBusy(path)) return fails("unmount", path, "EBUSY for a while")
          return drawn(rates.unmountFailRate)
            ? fails("unmount", path, chance.oneOf(MOUNT_ERRNOS))
            : mounter.unmount(path)
        })
    })
  }

  /** Calls on the paths of volumes that fail before they have done all of it, or take their time. */
  fileSystem(files: FileSystem.FileSystem): FileSystem.FileSystem {
    const { chance, rates, striker } = this
    const failing = <A>(
      method: string,
      path: string,
      effect: Effect.Effect<A, PlatformError.PlatformError>,
      errno?: () => string | undefined
    ): Effect.Effect<A, PlatformError.PlatformError> =>
      Effect.suspend(() => {
        const fails = (of: string) => {
          striker.note(`FileSystem ${of}`)
          return Effect.fail(systemError(method, path, of))
        }
        if (this.isBroken(path, method === "readFile")) {
          striker.note("FileSystem broken file")
          return fails("EIO")
        }
        const lasting = errno?.()
        if (lasting !== undefined) return fails(lasting)
        if (striker.strikes("FileSystem slow", rates.diskSlowRate)) {
          const hangs = chance.happens(HANG_SHARE)
          if (hangs) this.onHang(path)
          return Effect.delay(effect, chance.between(0, hangs ? HANGS_MILLIS_MAX : SLOW_MILLIS_MAX))
        }
        if (!striker.active || !chance.happens(rates.diskFailRate)) return effect
        return fails(chance.oneOf(["EIO", "ENOMEM"]))
      })
    const changing = <A>(method: string, path: string, effect: Effect.Effect<A, PlatformError.PlatformError>) =>
      failing(method, path, effect, () => (this.isReadOnly ? "EROFS" : undefined))
    const adding = <A>(method: string, path: string, effect: Effect.Effect<A, PlatformError.PlatformError>) =>
      failing(method, path, effect, () => {
        if (this.isReadOnly) return "EROFS"
        return this.isFull && chance.happens(0.5) ? "ENOSPC" : undefined
      })
    return FileSystem.make({
      ...files,
      chmod: (path, mode) => changing("chmod", path, files.chmod(path, mode)),
      chown: (path, uid, gid) => changing("chown", path, files.chown(path, uid, gid)),
      lstat: (path) => failing("lstat", path, files.lstat(path)),
      makeDirectory: (path, options) => adding("makeDirectory", path, files.makeDirectory(path, options)),
      readDirectoryEntries: (path) => failing("readDirectoryEntries", path, files.readDirectoryEntries(path)),
      readFile: (path) => failing("readFile", path, files.readFile(path)),
      readLink: (path) => failing("readLink", path, files.readLink(path)),
      remove: (path, options) => changing("remove", path, files.remove(path, options)),
      rename: (from, to) => changing("rename", from, files.rename(from, to)),
      stat: (path) => failing("stat", path, files.stat(path)),
      symlink: (target, path) => adding("symlink", path, files.symlink(target, path)),
      utimes: (path, atime, mtime) => changing("utimes", path, files.utimes(path, atime, mtime)),
      writeFile: (path, data, options) =>
        Effect.suspend(() => {
          if (this.isReadOnly || !this.isFull) return changing("writeFile", path, files.writeFile(path, data, options))
          // The file is there, with what there was room for.
          striker.note("FileSystem full")
          const part = files.writeFile(path, data.subarray(0, chance.below(data.length)), options)
          return Effect.andThen(part, Effect.fail(systemError("writeFile", path, "ENOSPC")))
        })
    })
  }
}

// ---- what lasts a while, and what is left behind

/** A node, as far as its disk goes. */
export interface DiskSite {
  readonly faults: { readonly disk: DiskFaults; readonly note: (site: string) => void }
  readonly lives: { readonly kill: Effect.Effect<void>; readonly noteUpstreamsLink: (targetPath: string) => void }
  /** Without faults. */
  readonly files: FileSystem.FileSystem
  readonly mounts: () => ReadonlyArray<string>
}

const LASTS_MILLIS_MAX = 3 * MINUTE
const FUTURE_MILLIS_MAX = 24 * 60 * MINUTE
const HALF_WRITTEN = "..2025_12_31_23_59_59.1"

/**
 * @shape (nodes, at least one; rates, chance, context in which files are written at once) -> effects that never end; each
 *        ends what it has begun when it is interrupted
 */
export const diskTroubles = (options: {
  readonly nodes: ReadonlyArray<DiskSite>
  readonly rates: DiskRates
  readonly chance: Chance
  readonly context: Context.Context<never>
}): ReadonlyArray<Effect.Effect<void>> => {
  const { chance, context, nodes, rates } = options
  const perNode = (meanMillis: number) => meanMillis / nodes.length
  const atOnce = Effect.runSyncWith(context)
  const lasting = (site: string, set: (disk: DiskFaults, isSo: boolean) => void) =>
    Effect.suspend(() => {
      const { faults } = chance.oneOf(nodes)
      faults.note(site)
      set(faults.disk, true)
      return Effect.ensuring(
        Effect.sleep(chance.between(0, LASTS_MILLIS_MAX)),
        Effect.sync(() => set(faults.disk, false))
      )
    })
  /** Something that is found in the mounts after a kill. */
  const left = (site: string, leave: (node: DiskSite, mount: string) => Effect.Effect<void>) =>
    Effect.suspend(() => {
      const node = chance.oneOf(nodes)
      node.faults.note(site)
      return Effect.tap(node.lives.kill, () =>
        Effect.sync(() => {
          for (const mount of node.mounts()) if (chance.happens(0.5)) atOnce(leave(node, mount))
        })
      )
    })
  /** The link is what upstream's release leaves; ours has another name for it. */
  const leftovers = left("FileSystem leftovers", ({ files, lives }, mount) =>
    Effect.gen(function* () {
      const generation = `${mount}/${HALF_WRITTEN}`
      yield* files.makeDirectory(`${generation}/below`, { recursive: true })
      yield* files.writeFileString(`${generation}/half`, "ha")
      lives.noteUpstreamsLink(mount)
      yield* files.symlink(HALF_WRITTEN, `${mount}/..data_tmp`)
    }).pipe(Effect.ignore)
  )
  const futureTimes = Effect.flatMap(
    Effect.clockWith((clock) => clock.currentTimeMillis),
    (now) =>
      left("FileSystem future", ({ files }, mount) => {
        const seconds = (now + chance.between(0, FUTURE_MILLIS_MAX)) / 1_000
        return Effect.ignore(files.utimes(mount, seconds, seconds))
      })
  )
  return [
    every(
      chance,
      perNode(rates.diskFullEveryMillis),
      lasting("FileSystem no room", (disk, isSo) => (disk.isFull = isSo))
    ),
    every(
      chance,
      perNode(rates.diskReadOnlyEveryMillis),
      lasting("FileSystem read-only", (disk, isSo) => (disk.isReadOnly = isSo))
    ),
    every(
      chance,
      perNode(rates.fileBrokenEveryMillis),
      lasting("FileSystem breaks a file", (disk, isSo) => (disk.breaksFile = isSo))
    ),
    every(
      chance,
      perNode(rates.mountBusyEveryMillis),
      lasting("Mounter keeps a mount busy", (disk, isSo) => (disk.keepsMountBusy = isSo))
    ),
    every(chance, perNode(rates.leftoversEveryMillis), leftovers),
    every(chance, perNode(rates.futureTimesEveryMillis), futureTimes)
  ]
}
