/**
 * What goes wrong in a run. Rates are drawn once per run, many of them zero, so that some runs are quiet and some cruel
 * (swarm testing); each fault is then drawn call by call, until faults end.
 */
import { Effect, FileSystem, PlatformError } from "effect"
import type { GrpcCode } from "../../../schemas/errors/CsiStatus.ts"
import { MountFailed } from "../../../schemas/errors/MountFailed.ts"
import { ProviderCallFailed } from "../../../schemas/errors/ProviderFailed.ts"
import type { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../../src/ports/Mounter.ts"
import { ApiFaults, type ApiRates, drawApiRates, type Neighbours } from "./ApiFaults.ts"
import type { Chance } from "./Chance.ts"
import type { History } from "./History.ts"
import { drawKubeletRates, type KubeletRates } from "./KubeletFaults.ts"
import type { RunOptions } from "./Scenario.ts"
import { drawVersionRates, type VersionRates } from "./VersionFaults.ts"

/** Rates are chances per call; intervals are means, and 0 is never. */
export type FaultPlan = ApiRates &
  KubeletRates &
  VersionRates & {
    /** Boundaries between port calls that a life of the driver lasts. */
    readonly killEveryCalls: number
    /** SIGTERM. */
    readonly stopEveryMillis: number
    readonly rebootEveryMillis: number
    readonly apiLatencyMillisMax: number
    readonly providerFailRate: number
    readonly providerSlowRate: number
    /** No socket for a while. */
    readonly providerGoneEveryMillis: number
    /** It answers nobody for a while, since it is asked too much. */
    readonly providerThrottlesEveryMillis: number
    readonly diskFailRate: number
    readonly mountFailRate: number
    /** The kubelet leaves before the answer, or gives little time. */
    readonly cancelRate: number
    /** A pod's object is gone before its volumes are. */
    readonly forceDeleteRate: number
    /** A class is useless for a while. */
    readonly classBrokenEveryMillis: number
    /** Somebody else writes or deletes a pod status. */
    readonly statusTouchedEveryMillis: number
    /** Somebody deletes a class, and makes it again. */
    readonly classRemadeEveryMillis: number
    /** Somebody else writes something into a synced Secret, or has one of that name. */
    readonly secretTouchedEveryMillis: number
    /** A disk that has other things to do. */
    readonly diskSlowRate: number
    /** The kubelet asks twice at once, as one does that was just started again. */
    readonly duplicateRate: number
  }

const MINUTE = 60_000

/** A mean interval between an eighth of the longest and the longest, or never. */
const interval = (chance: Chance, longest: number): number =>
  chance.happens(0.4) ? 0 : chance.between(longest / 8, longest)

export const drawPlan = (chance: Chance): FaultPlan => ({
  killEveryCalls: chance.happens(0.3) ? 0 : Math.ceil(10 ** chance.between(2, 4)),
  stopEveryMillis: interval(chance, 40 * MINUTE),
  rebootEveryMillis: interval(chance, 90 * MINUTE),
  ...drawApiRates(chance),
  apiLatencyMillisMax: chance.sometimes(500),
  providerFailRate: chance.sometimes(0.3),
  providerSlowRate: chance.sometimes(0.1),
  providerGoneEveryMillis: interval(chance, 40 * MINUTE),
  providerThrottlesEveryMillis: interval(chance, 40 * MINUTE),
  diskFailRate: chance.sometimes(0.01),
  mountFailRate: chance.sometimes(0.1),
  cancelRate: chance.sometimes(0.2),
  forceDeleteRate: chance.sometimes(0.5),
  classBrokenEveryMillis: interval(chance, 40 * MINUTE),
  statusTouchedEveryMillis: interval(chance, 20 * MINUTE),
  classRemadeEveryMillis: interval(chance, 40 * MINUTE),
  secretTouchedEveryMillis: interval(chance, 10 * MINUTE),
  // Or a node that has no time for anything: whatever takes several steps meets all the others.
  diskSlowRate: chance.happens(0.2) ? chance.between(0.1, 0.5) : chance.sometimes(0.03),
  duplicateRate: chance.sometimes(0.1),
  ...drawKubeletRates(chance),
  ...drawVersionRates(chance)
})

/** @shape (drawn, change) -> the plan with what the change makes of it; an unnamed rate stays as it was drawn */
export const adjustPlan = (drawn: FaultPlan, change: RunOptions["rates"]): FaultPlan =>
  change === undefined ? drawn : { ...drawn, ...change(drawn) }

const PROVIDER_CODES: ReadonlyArray<GrpcCode> = [
  "UNAVAILABLE",
  "UNAVAILABLE",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "DEADLINE_EXCEEDED",
  "INTERNAL"
]

/** What a provider's answer may be, besides right. */
export type ProviderFault = "slow" | "hangs" | "refuses" | "answers badly" | ProviderCallFailed

const MOUNT_ERRNOS = ["EPERM", "ENOMEM", "EBUSY"]
const DISK_SLOW_MILLIS_MAX = 3_000
/** Whoever waits has lost the processor as well: long enough for anything to happen meanwhile. */
const DISK_HANGS_MILLIS_MAX = 100_000
const HANG_SHARE = 0.1
const DISK_ERRORS = ["ENOSPC: no space left on device", "EIO: i/o error"]

/** What goes wrong, all in one place; what comes of it is in the lanes of those who meet it. */
const FAULTS_LANE = "faults"

export class Faults {
  /** False: whatever is called from now on works. */
  active = true
  /** True: no request of the driver reaches the API server, whether faults are active or not. */
  apiIsDown = false
  /** Providers that throttle at present. */
  readonly throttling = new Set<string>()
  /** True: every provider refuses everybody, whether faults are active or not. */
  providersRefuse = false
  readonly plan: FaultPlan
  /** Of requests and watches. */
  readonly api: ApiFaults
  private readonly chance: Chance
  private readonly history: History

  constructor(plan: FaultPlan, chance: Chance, history: History) {
    this.plan = plan
    this.chance = chance
    this.history = history
    this.api = new ApiFaults(plan, chance, this)
  }

  note(site: string): void {
    this.history.count(`fault ${site}`)
    this.history.note(site, FAULTS_LANE, "fault")
  }

  private strikes(site: string, rate: number): boolean {
    if (!this.active || !this.chance.happens(rate)) return false
    this.note(site)
    return true
  }

  /** Of calls whose fault is somewhere in their middle; see `mounter`. */
  get mountFaults(): number {
    return this.history.figure("fault Mounter.unmount") + this.history.figure("fault Mounter.inspect")
  }

  mounter(mounter: Mounter["Service"]): Mounter["Service"] {
    const failing = <A>(
      operation: MountFailed["operation"],
      site: string,
      targetPath: string,
      effect: Effect.Effect<A, MountFailed>
    ) =>
      Effect.suspend(() =>
        this.strikes(`Mounter.${site}`, this.plan.mountFailRate)
          ? Effect.fail(new MountFailed({ operation, targetPath, errno: this.chance.oneOf(MOUNT_ERRNOS) }))
          : effect
      )
    return Mounter.of({
      ...mounter,
      inspect: (path) => failing("inspect", "inspect", path, mounter.inspect(path)),
      mountTmpfs: (path, options) => failing("mount", "mountTmpfs", path, mounter.mountTmpfs(path, options)),
      unmount: (path) => failing("unmount", "unmount", path, mounter.unmount(path))
    })
  }

  /** Calls on the paths of volumes that fail before they have done anything, or take their time. */
  fileSystem(files: FileSystem.FileSystem): FileSystem.FileSystem {
    const failing = <A>(method: string, path: string, effect: Effect.Effect<A, PlatformError.PlatformError>) =>
      Effect.suspend(() => {
        if (this.strikes("FileSystem slow", this.plan.diskSlowRate)) {
          const longest = this.chance.happens(HANG_SHARE) ? DISK_HANGS_MILLIS_MAX : DISK_SLOW_MILLIS_MAX
          return Effect.delay(effect, this.chance.between(0, longest))
        }
        return this.strikes(`FileSystem.${method}`, this.plan.diskFailRate)
          ? Effect.fail(
              PlatformError.systemError({
                _tag: "Unknown",
                module: "FileSystem",
                method,
                pathOrDescriptor: path,
                syscall: method,
                cause: new Error(`${this.chance.oneOf(DISK_ERRORS)}, ${method} '${path}'`)
              })
            )
          : effect
      })
    return FileSystem.make({
      ...files,
      lstat: (path) => failing("lstat", path, files.lstat(path)),
      makeDirectory: (path, options) => failing("makeDirectory", path, files.makeDirectory(path, options)),
      readDirectoryEntries: (path) => failing("readDirectoryEntries", path, files.readDirectoryEntries(path)),
      readFile: (path) => failing("readFile", path, files.readFile(path)),
      readLink: (path) => failing("readLink", path, files.readLink(path)),
      remove: (path, options) => failing("remove", path, files.remove(path, options)),
      rename: (from, to) => failing("rename", from, files.rename(from, to)),
      stat: (path) => failing("stat", path, files.stat(path)),
      symlink: (target, path) => failing("symlink", path, files.symlink(target, path)),
      utimes: (path, atime, mtime) => failing("utimes", path, files.utimes(path, atime, mtime)),
      writeFile: (path, data, options) => failing("writeFile", path, files.writeFile(path, data, options))
    })
  }

  kubernetes(api: KubernetesApi["Service"], neighbours: Neighbours): KubernetesApi["Service"] {
    return this.api.client(api, neighbours)
  }

  /** @shape (provider) -> what becomes of this call; undefined: nothing special */
  provider(provider: string): ProviderFault | undefined {
    if (this.providersRefuse) return "refuses"
    if (this.throttling.has(provider)) {
      this.note("Providers.mount throttled")
      const details = "too many requests"
      return new ProviderCallFailed({ provider, grpcCode: "RESOURCE_EXHAUSTED", details, unanswered: false })
    }
    if (this.strikes("Providers.mount slow", this.plan.providerSlowRate)) {
      return this.chance.happens(0.2) ? "hangs" : "slow"
    }
    if (!this.strikes("Providers.mount", this.plan.providerFailRate)) return undefined
    if (this.chance.happens(0.2)) return "refuses"
    if (this.chance.happens(0.2)) return "answers badly"
    const grpcCode = this.chance.oneOf(PROVIDER_CODES)
    return new ProviderCallFailed({
      provider,
      grpcCode,
      details: "injected",
      unanswered: grpcCode === "UNAVAILABLE" && this.chance.happens(0.7)
    })
  }
}
