/**
 * One node's disk in memory: the file system, mounting on it, and a third port by which a test or a simulated world
 * looks at it and does what the driver cannot, such as restarting the node.
 */
import { Context, Effect, FileSystem, Layer } from "effect"
import { Mounter } from "../../src/ports/Mounter.ts"
import { make as makeFileSystem } from "./MemoryFileSystem.ts"
import { make as makeMounter } from "./MemoryMounter.ts"
import {
  type Errno,
  type MemoryEntry,
  type MemoryMount,
  type MemoryMountOptions,
  type MemoryReadable,
  MemoryTree,
  type SystemCallFailed,
  systemCall
} from "./MemoryTree.ts"

/** Unlike the driver's ports, these happen at once: no other fiber runs before they have. */
export class MemoryNode extends Context.Service<
  MemoryNode,
  {
    /** As mount(2): the directory has to exist, and what is mounted there already is covered. */
    readonly mount: (path: string, options: MemoryMountOptions) => Effect.Effect<void, SystemCallFailed>
    /** The topmost mount at the path and all mounts in it, busy or not; EINVAL when there is none. */
    readonly unmount: (path: string) => Effect.Effect<void, SystemCallFailed>
    /** In the order of mounting. */
    readonly mounts: Effect.Effect<ReadonlyArray<MemoryMount>>
    /** From now on, every call that enters the topmost mount at the path fails with this errno. */
    readonly breakMount: (path: string, errno: Errno) => Effect.Effect<void, SystemCallFailed>
    /** No mount is left; directories and files outside of them are as before. */
    readonly reboot: Effect.Effect<void>
    /** All that is at and below a path, in the order of names, without contents. Plain data, for comparing. */
    readonly snapshot: (below?: string) => Effect.Effect<ReadonlyArray<MemoryEntry>, SystemCallFailed>
    /** Whether anything is mounted at exactly this path, and how often. */
    readonly mountsAt: (path: string) => Effect.Effect<number>
    /** A directory as its readers see it, with contents. */
    readonly readable: (path: string) => Effect.Effect<MemoryReadable, SystemCallFailed>
  }
>()("secrets-store/fake/MemoryNode") {}

/**
 * A new, empty node. The three services share one tree; whoever keeps the context keeps the disk, so a driver can be
 * killed and started again on it.
 */
export const make: Effect.Effect<Context.Context<FileSystem.FileSystem | Mounter | MemoryNode>> = Effect.sync(() => {
  const tree = new MemoryTree()
  const node = MemoryNode.of({
    mount: (path, options) => systemCall((nowMillis) => tree.mount(path, options, nowMillis)),
    unmount: (path) => systemCall(() => tree.umount(path, true)),
    mounts: Effect.sync(() => tree.mounts()),
    breakMount: (path, errno) => systemCall(() => tree.break(path, errno)),
    reboot: Effect.sync(() => tree.reboot()),
    snapshot: (below = "/") => systemCall(() => tree.snapshot(below)),
    mountsAt: (path) => Effect.sync(() => tree.mountsAt(path)),
    readable: (path) => systemCall(() => tree.readable(path))
  })
  return Context.make(FileSystem.FileSystem, makeFileSystem(tree)).pipe(
    Context.add(Mounter, makeMounter(tree)),
    Context.add(MemoryNode, node)
  )
})

export const layer: Layer.Layer<FileSystem.FileSystem | Mounter | MemoryNode> = Layer.effectContext(make)
