/**
 * One life of a process in a simulation: its ports work until it is killed, and from then on nothing that it does, not
 * even cleaning up, reaches the world. This is SIGKILL; ending a scope would be SIGTERM.
 */
import { Cause, Deferred, Effect, Exit, Fiber, FileSystem, Stream } from "effect"
import type { KubernetesApi } from "../../src/ports/KubernetesApi.ts"
import type { Mounter } from "../../src/ports/Mounter.ts"
import type { PluginRegistry } from "../../src/ports/PluginRegistry.ts"
import type { Providers } from "../../src/ports/Providers.ts"
import { isObject, textAt } from "./KubernetesObject.ts"

const OUTCOME_LENGTH_MAX = 200

/** Is told what became of a call; empty words: it went well. */
type Answered = (outcome: string) => void

/** @shape (arguments of a port call) -> the paths and names among them */
const subjectOf = (args: ReadonlyArray<unknown>): string =>
  args
    .map((arg) => {
      if (typeof arg === "string") return arg
      return isObject(arg) ? (textAt(arg, "path") ?? textAt(arg, "targetPath") ?? "") : ""
    })
    .filter((text) => text !== "")
    .join(" ")

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return ""
  if (Cause.hasInterruptsOnly(exit.cause)) return "interrupted"
  const failure = Cause.squash(exit.cause)
  return (failure instanceof Error ? failure.message : String(failure)).slice(0, OUTCOME_LENGTH_MAX)
}

/** Whether the process runs at present; a process that stands still is alive, and does nothing. */
interface Stillness {
  readonly isStill: boolean
  readonly awake: Effect.Effect<void>
}

export class Life {
  private dead = false
  private countdown = Number.POSITIVE_INFINITY
  /** What a call does to the world in several steps ends with the process that makes them. */
  private readonly underWay = new Set<Fiber.Fiber<unknown, unknown>>()
  private readonly death = Deferred.makeUnsafe<void>()
  /** Port calls begun so far. */
  calls = 0
  /** What to do when the process dies, such as telling whoever waits for an answer. */
  readonly onDeath: () => void
  /** Called with the name of each port call, and the paths and names that it is about. */
  readonly onCall: (site: string, subject: string) => Answered | undefined

  private readonly stillness: Stillness | undefined

  constructor(
    onDeath: () => void,
    onCall: (site: string, subject: string) => Answered | undefined,
    stillness?: Stillness
  ) {
    this.onDeath = onDeath
    this.onCall = onCall
    this.stillness = stillness
  }

  get isAlive() {
    return !this.dead
  }

  kill() {
    if (this.dead) return
    this.dead = true
    for (const fiber of this.underWay) fiber.interruptUnsafe()
    this.underWay.clear()
    Deferred.doneUnsafe(this.death, Effect.void)
    this.onDeath()
  }

  /** Dies at the n-th next boundary: odd ones are before a port call takes effect, even ones after. */
  killAtBoundary(n: number) {
    this.countdown = n
  }

  private passBoundary(): boolean {
    if (this.dead) return false
    this.countdown -= 1
    if (this.countdown <= 0) this.kill()
    return !this.dead
  }

  /** A port call of this process. */
  readonly gate = <A, E, R>(site: string, effect: Effect.Effect<A, E, R>, subject = ""): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      if (this.stillness?.isStill === true) {
        return Effect.andThen(this.stillness.awake, this.gate(site, effect, subject))
      }
      if (!this.passBoundary()) return Effect.never
      this.calls += 1
      const answered = this.onCall(site, subject)
      return Effect.flatMap(this.perform(effect, answered), (exit) => this.hear(exit))
    })

  /** An answer reaches a process that is alive, as soon as it runs. */
  private readonly hear = <A, E>(exit: Exit.Exit<A, E>): Effect.Effect<A, E> => {
    if (this.stillness?.isStill === true) {
      return Effect.andThen(
        this.stillness.awake,
        Effect.suspend(() => this.hear(exit))
      )
    }
    return this.passBoundary() ? exit : Effect.never
  }

  /** In a fiber of its own, which dies with the process even where the caller cannot be interrupted. */
  private readonly perform = <A, E, R>(
    effect: Effect.Effect<A, E, R>,
    answered: Answered | undefined
  ): Effect.Effect<Exit.Exit<A, E>, never, R> =>
    Effect.flatMap(Effect.context<R>(), (context) =>
      Effect.callback<Exit.Exit<A, E>>((resume) => {
        const fiber = Effect.runForkWith(context)(effect)
        this.underWay.add(fiber)
        fiber.addObserver((exit) => {
          this.underWay.delete(fiber)
          answered?.(this.dead ? "died with its process" : outcomeOf(exit))
          if (!this.dead) resume(Effect.succeed(exit))
        })
        return Fiber.interrupt(fiber)
      })
    )

  private readonly through =
    <Args extends ReadonlyArray<unknown>, A, E, R>(site: string, call: (...args: Args) => Effect.Effect<A, E, R>) =>
    (...args: Args): Effect.Effect<A, E, R> =>
      this.gate(site, call(...args), subjectOf(args))

  mounter(mounter: Mounter["Service"]): Mounter["Service"] {
    return {
      inspect: this.through("Mounter.inspect", mounter.inspect),
      mountTmpfs: this.through("Mounter.mountTmpfs", mounter.mountTmpfs),
      unmount: this.through("Mounter.unmount", mounter.unmount),
      listTmpfs: this.through("Mounter.listTmpfs", mounter.listTmpfs)
    }
  }

  providers(providers: Providers["Service"]): Providers["Service"] {
    return {
      locate: this.through("Providers.locate", providers.locate),
      mount: this.through("Providers.mount", providers.mount),
      version: this.through("Providers.version", providers.version),
      known: this.gate("Providers.known", providers.known)
    }
  }

  kubernetes(api: KubernetesApi["Service"]): KubernetesApi["Service"] {
    return {
      request: (request) => this.gate(`KubernetesApi.${request.method}`, api.request(request), request.path),
      // Its connection closes with the process; the driver, which is dead, does not hear of it.
      watch: (request, idleMillis) =>
        Stream.unwrap(
          this.gate(
            "KubernetesApi.watch",
            Effect.sync(() => Stream.interruptWhen(api.watch(request, idleMillis), Deferred.await(this.death))),
            request.path
          )
        )
    }
  }

  pluginRegistry(registry: PluginRegistry["Service"]): PluginRegistry["Service"] {
    return { register: this.through("PluginRegistry.register", registry.register) }
  }

  /** The operations that the driver uses; the others stay as they are. */
  fileSystem(files: FileSystem.FileSystem): FileSystem.FileSystem {
    return FileSystem.make({
      ...files,
      access: this.through("FileSystem.access", files.access),
      chmod: this.through("FileSystem.chmod", files.chmod),
      chown: this.through("FileSystem.chown", files.chown),
      lstat: this.through("FileSystem.lstat", files.lstat),
      makeDirectory: this.through("FileSystem.makeDirectory", files.makeDirectory),
      readDirectory: this.through("FileSystem.readDirectory", files.readDirectory),
      readDirectoryEntries: this.through("FileSystem.readDirectoryEntries", files.readDirectoryEntries),
      readFile: this.through("FileSystem.readFile", files.readFile),
      readLink: this.through("FileSystem.readLink", files.readLink),
      remove: this.through("FileSystem.remove", files.remove),
      rename: this.through("FileSystem.rename", files.rename),
      stat: this.through("FileSystem.stat", files.stat),
      symlink: this.through("FileSystem.symlink", files.symlink),
      utimes: this.through("FileSystem.utimes", files.utimes),
      writeFile: this.through("FileSystem.writeFile", files.writeFile)
    })
  }
}
