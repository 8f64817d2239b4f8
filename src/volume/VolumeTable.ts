/**
 * What is published on this node, by target path, and one lock per target path. Lost with the
 * process: a volume is learnt again from its mount and its pod status.
 */
import { Context, Deferred, Effect, Layer, type Scope, Semaphore } from "effect"
import { listeners } from "../reconciler/Listeners.ts"
import { dueAt } from "./Rotation.ts"
import type { VolumeRecord } from "./VolumeRecord.ts"

/** To be told which volumes the pod statuses of this node name. */
export interface PodStatusNotes {
  /** All that there are. */
  readonly all: (targetPaths: ReadonlySet<string>) => void
  readonly named: (targetPath: string) => void
  readonly gone: (targetPath: string) => void
}

interface Lock {
  readonly semaphore: Semaphore.Semaphore
  /** Whoever holds it or waits for it, also in the background. */
  users: number
  /** There while somebody works in the background; done when they are to give way. */
  giveWay: Deferred.Deferred<void> | undefined
}

export class VolumeTable extends Context.Service<
  VolumeTable,
  {
    readonly get: (targetPath: string) => VolumeRecord | undefined
    readonly set: (record: VolumeRecord) => void
    readonly remove: (targetPath: string) => void
    readonly all: () => ReadonlyArray<VolumeRecord>
    /** Hears of every volume that comes or goes, until the scope closes; runs at once. */
    readonly onVolumes: (listener: (targetPath: string) => void) => Effect.Effect<void, never, Scope.Scope>
    /** Hears of every volume whose content has changed, until the scope closes; runs at once. */
    readonly onContent: (listener: (targetPath: string) => void) => Effect.Effect<void, never, Scope.Scope>
    readonly contentChanged: (targetPath: string) => void
    /** Somebody follows the pod statuses of this node from now on, of which nothing is known at first. */
    readonly followPodStatuses: () => PodStatusNotes
    /** A pod status names the volume, or it is not known yet. False where nobody follows them. */
    readonly mayHavePodStatus: (targetPath: string) => boolean
    /** No call is working on the volume, or waits to; somebody in the background may be. */
    readonly isUnattended: (targetPath: string) => boolean
    /** Volumes whose lock is held or awaited: zero when nothing is going on. */
    readonly busy: () => number
    /** Grows with every use of a volume, so that others can tell whether anything has happened. */
    readonly changes: () => number
    /** Waits until a volume is put in, or back, that is due before this time, in milliseconds since the epoch. */
    readonly untilEarlier: (millis: number) => Effect.Effect<void>
    /** Runs the effect while no other one with the same target path runs; waiting may be interrupted. */
    readonly exclusive: <A, E, R>(targetPath: string, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    /** As `exclusive`, for what nobody waits for: not begun while others are there, and interrupted when one comes. */
    readonly inBackground: <E, R>(targetPath: string, effect: Effect.Effect<void, E, R>) => Effect.Effect<void, E, R>
  }
>()("secrets-store/volume/VolumeTable") {
  static readonly layer = Layer.sync(VolumeTable, () => {
    const records = new Map<string, VolumeRecord>()
    const locks = new Map<string, Lock>()
    const waiting = new Set<{ readonly millis: number; readonly wake: () => void }>()
    const volumes = listeners<readonly [targetPath: string]>()
    const contents = listeners<readonly [targetPath: string]>()
    let changes = 0
    let mayHavePodStatus = (_targetPath: string): boolean => false
    const enter = (targetPath: string): Lock => {
      changes += 1
      const lock = locks.get(targetPath) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0, giveWay: undefined }
      locks.set(targetPath, lock)
      lock.users += 1
      return lock
    }
    const leave = (targetPath: string, lock: Lock) => {
      lock.users -= 1
      if (lock.users === 0) locks.delete(targetPath)
    }
    return VolumeTable.of({
      get: (targetPath) => records.get(targetPath),
      set: (record) => {
        const isNew = !records.has(record.targetPath)
        records.set(record.targetPath, record)
        changes += 1
        for (const { millis, wake } of waiting) if (dueAt(record.schedule) < millis) wake()
        if (isNew) volumes.tell(record.targetPath)
      },
      remove: (targetPath) => {
        if (records.delete(targetPath)) volumes.tell(targetPath)
      },
      onVolumes: volumes.add,
      onContent: contents.add,
      contentChanged: contents.tell,
      followPodStatuses: () => {
        const named = new Set<string>()
        mayHavePodStatus = () => true
        return {
          all: (targetPaths) => {
            named.clear()
            for (const targetPath of targetPaths) named.add(targetPath)
            mayHavePodStatus = (targetPath) => named.has(targetPath)
          },
          named: (targetPath) => void named.add(targetPath),
          gone: (targetPath) => void named.delete(targetPath)
        }
      },
      mayHavePodStatus: (targetPath) => mayHavePodStatus(targetPath),
      isUnattended: (targetPath) => {
        const lock = locks.get(targetPath)
        return lock === undefined || (lock.users === 1 && lock.giveWay !== undefined)
      },
      all: () => [...records.values()],
      busy: () => locks.size,
      changes: () => changes,
      untilEarlier: (millis) =>
        Effect.callback<void>((resume) => {
          const waiter = {
            millis,
            wake: () => {
              waiting.delete(waiter)
              resume(Effect.void)
            }
          }
          waiting.add(waiter)
          return Effect.sync(() => void waiting.delete(waiter))
        }),
      exclusive: (targetPath, effect) =>
        Effect.acquireUseRelease(
          Effect.sync(() => enter(targetPath)),
          (lock) => {
            if (lock.giveWay !== undefined) Deferred.doneUnsafe(lock.giveWay, Effect.void)
            return lock.semaphore.withPermits(1)(effect)
          },
          (lock) => Effect.sync(() => leave(targetPath, lock))
        ),
      inBackground: (targetPath, effect) =>
        Effect.suspend(() =>
          locks.has(targetPath)
            ? Effect.void
            : Effect.acquireUseRelease(
                Effect.sync(() => {
                  const lock = enter(targetPath)
                  const giveWay = Deferred.makeUnsafe<void>()
                  lock.giveWay = giveWay
                  return { lock, giveWay }
                }),
                ({ giveWay, lock }) => lock.semaphore.withPermits(1)(Effect.raceFirst(Deferred.await(giveWay), effect)),
                ({ lock }) =>
                  Effect.sync(() => {
                    lock.giveWay = undefined
                    leave(targetPath, lock)
                  })
              )
        )
    })
  })
}
