/**
 * Mounting as a port: tmpfs on a target path, and what is mounted there. System calls only, no process is started.
 */
import { Context, type Effect } from "effect"
import type { MountFailed } from "../../schemas/errors/MountFailed.ts"
import type { TargetPath } from "../../schemas/TargetPath.ts"

export interface TmpfsOptions {
  /** 0 leaves it to the kernel. */
  readonly sizeBytes: number
  /** Permission bits of the root directory. */
  readonly mode: number
  /** Group of the root directory. */
  readonly gid?: number
}

/**
 * What is at a path: nothing, something that is not a mount point, a mount point, or a mount that cannot be entered
 * any more.
 */
export type MountState = "Missing" | "NotMounted" | "Mounted" | "Corrupted"

export class Mounter extends Context.Service<
  Mounter,
  {
    /** Symbolic links are not followed. */
    readonly inspect: (path: TargetPath) => Effect.Effect<MountState, MountFailed>
    /**
     * Mounts a tmpfs with nosuid, nodev, noexec, and noswap where the kernel has it. The directory has to exist. Never
     * mounts over a mount point: that fails with EBUSY.
     */
    readonly mountTmpfs: (path: TargetPath, options: TmpfsOptions) => Effect.Effect<void, MountFailed>
    /**
     * Unmounts everything that is mounted at the path; succeeds when nothing is. A busy mount is detached, so that it
     * disappears for everybody who is not using it yet.
     */
    readonly unmount: (path: TargetPath) => Effect.Effect<void, MountFailed>
    /** Every mount point of tmpfs at or below a directory. */
    readonly listTmpfs: (below: string) => Effect.Effect<ReadonlyArray<TargetPath>, MountFailed>
  }
>()("secrets-store/ports/Mounter") {}
