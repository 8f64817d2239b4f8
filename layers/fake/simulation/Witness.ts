/**
 * Sees every call of the driver that changes the node or the API, and checks at that instant what must always be true.
 * It looks at the world directly: no other fiber runs meanwhile, and no fault reaches it.
 */
import { type Context, Effect, FileSystem } from "effect"
import { KubernetesApi } from "../../../src/ports/KubernetesApi.ts"
import { Mounter } from "../../../src/ports/Mounter.ts"
import { MANAGED_LABEL } from "../../../src/sync/SecretData.ts"
import { KEYS } from "../../../src/sync/SecretPlan.ts"
import { isObject, type JsonObject, listAt, metadataOf, objectAt, textAt } from "../KubernetesObject.ts"
import type { MemoryKubernetes } from "../MemoryKubernetes.ts"
import type { MemoryNode } from "../MemoryNode.ts"
import type { Faults } from "./Faults.ts"
import type { History } from "./History.ts"
import * as Invariants from "./Invariants.ts"
import type { Referee } from "./Referee.ts"
import type { Layout } from "./VersionInvariants.ts"
import {
  laneOf,
  MARK,
  PODS_DIRECTORY,
  type SimulatedClass,
  type SimulatedVolume,
  secretNameOf,
  sourceOf,
  targetPathIn
} from "./Volume.ts"

const POD_STATUSES = "secretproviderclasspodstatuses"
const WRITES: ReadonlySet<string> = new Set(["POST", "PUT", "PATCH", "DELETE"])

export interface World {
  readonly files: FileSystem.FileSystem
  readonly node: MemoryNode["Service"]
  readonly control: MemoryKubernetes["Service"]
  /** By "namespace/name". */
  readonly classes: ReadonlyMap<string, SimulatedClass>
  /** Every volume that there has been, by target path. */
  readonly volumes: Map<string, SimulatedVolume>
  /** "namespace/name" of Secrets in which somebody has written what no provider gave, until they are written right. */
  readonly spoilt: Set<string>
  readonly faults: Faults
  readonly referee: Referee
  readonly history: History
}

const decoder = new TextDecoder()

/** Of an object that is never changed in place, and is asked for again and again. */
const remembered = <A>(make: (object: JsonObject) => A): ((object: JsonObject) => A) => {
  const known = new WeakMap<JsonObject, A>()
  return (object) => {
    const found = known.get(object)
    if (found !== undefined) return found
    const made = make(object)
    known.set(object, made)
    return made
  }
}

const podStatusOf = remembered((object): Invariants.PodStatusView => {
  const metadata = metadataOf(object)
  const status = objectAt(object, "status")
  return {
    name: textAt(metadata, "name") ?? "",
    podName: textAt(status, "podName") ?? "",
    className: textAt(status, "secretProviderClassName") ?? "",
    targetPath: textAt(status, "targetPath") ?? "",
    ownerUids: ownerUidsOf(object),
    labels: Object.keys(objectAt(metadata, "labels")),
    mounted: status["mounted"] === true
  }
})

/** The directory of one. */
const GENERATION = /^\.\.\d/u

const OTHERS = "others/"
/** One of them, or all of a namespace; not those of the API group whose name begins so. */
const OF_SECRETS = /\/secrets(?:\/|$)/u
const SECRET_PATH = /\/namespaces\/([^/]+)\/secrets\/([^/]+)$/u

const secretOf = remembered((object): Invariants.SecretOfOthers => {
  const metadata = metadataOf(object)
  const [labels, annotations] = [objectAt(metadata, "labels"), objectAt(metadata, "annotations")]
  const theirs = [
    ...Object.keys(labels).map((key) => `label ${key}`),
    ...Object.keys(annotations).map((key) => `annotation ${key}`)
  ]
  return {
    name: nameOf(object),
    isOurs: labels[MANAGED_LABEL] === "true",
    theirs: theirs.filter((it) => it.includes(OTHERS)),
    text: JSON.stringify({ ...object, metadata: { ...metadata, managedFields: [], resourceVersion: "" } })
  }
})

const nameOf = (object: JsonObject): string =>
  `${textAt(metadataOf(object), "namespace") ?? ""}/${textAt(metadataOf(object), "name") ?? ""}`

const ownerUidsOf = (object: JsonObject): ReadonlyArray<string> =>
  listAt(metadataOf(object), "ownerReferences").flatMap((owner) =>
    isObject(owner) ? [textAt(owner, "uid") ?? ""] : []
  )

export class Witness {
  private readonly world: World
  private readonly made = new Map<string, number>()
  private readonly atOnce: <A, E>(effect: Effect.Effect<A, E>) => A
  private isNodeLost = false

  constructor(world: World, context: Context.Context<never>) {
    this.world = world
    this.atOnce = Effect.runSyncWith(context)
  }

  // ---- looking

  mounts(): ReadonlyArray<string> {
    return this.atOnce(this.world.node.mounts).map(({ path }) => path)
  }

  /** Everything that is at and below the kubelet's pods directory, without what the kubelet makes itself. */
  entries(): ReadonlyArray<string> {
    return this.atOnce(this.world.node.snapshot(PODS_DIRECTORY))
      .map(({ path }) => path)
      .filter((path) => targetPathIn(path) !== undefined)
  }

  look({ targetPath }: SimulatedVolume): Invariants.VolumeView {
    const { node } = this.world
    const mounts = this.atOnce(node.mountsAt(targetPath))
    const found = this.atOnce(Effect.orElseSucceed(node.readable(targetPath), () => undefined))
    if (found === undefined) return { exists: false, dangling: false, generations: 0, mounts, files: new Map() }
    return {
      exists: true,
      dangling: found.dangling.includes("..data"),
      generations: found.names.filter((name) => GENERATION.test(name)).length,
      mounts,
      files: new Map([...found.files].map(([name, data]) => [name, decoder.decode(data)]))
    }
  }

  /** What is at a target path itself. */
  layout({ targetPath }: SimulatedVolume): Layout {
    const { files } = this.world
    const read = Effect.gen(function* () {
      const entries = yield* files.readDirectoryEntries(targetPath)
      const links = yield* Effect.forEach(entries, ({ name, type }) =>
        type === "SymbolicLink" ? files.readLink(`${targetPath}/${name}`) : Effect.undefined
      )
      return new Map(entries.map(({ name }, index) => [name, { link: links[index] }]))
    })
    return this.atOnce(Effect.orElseSucceed(read, () => new Map()))
  }

  /** How often the target path was mounted on so far. */
  mountsMade({ targetPath }: SimulatedVolume): number {
    return this.made.get(targetPath) ?? 0
  }

  statuses(): ReadonlyArray<Invariants.PodStatusView> {
    return this.atOnce(this.world.control.all(POD_STATUSES)).map(podStatusOf)
  }

  /** Every Kubernetes Secret that the driver has made, with its content in clear. */
  secrets(): ReadonlyArray<Invariants.SecretView> {
    return this.secretsWhere(() => true)
  }

  /** Without those that upstream's release has made and ours has not written since: they go with their owners. */
  ownSecrets(): ReadonlyArray<Invariants.SecretView> {
    return this.secretsWhere((object) => KEYS.className in objectAt(metadataOf(object), "annotations"))
  }

  private secretsWhere(isAsked: (object: JsonObject) => boolean): ReadonlyArray<Invariants.SecretView> {
    const ours = this.atOnce(this.world.control.all("secrets")).filter((object) => secretOf(object).isOurs)
    return ours.filter(isAsked).map((object) => ({
      name: nameOf(object),
      values: new Map(
        Object.entries(objectAt(object, "data")).map(([key, value]) => [
          key,
          Buffer.from(String(value), "base64").toString()
        ])
      )
    }))
  }

  /** Warnings about a refresh of a pod's volumes since a time, in milliseconds since the epoch. */
  warnings(podUid: string, sinceMillis: number): number {
    return this.atOnce(this.world.control.all("events")).filter(
      (event) =>
        textAt(objectAt(event, "involvedObject"), "uid") === podUid &&
        textAt(event, "type") === "Warning" &&
        // Whole seconds.
        Date.parse(textAt(event, "lastTimestamp") ?? "") > sinceMillis - 1_000
    ).length
  }

  // ---- checking

  /** Who owns the Secret of a class, against its users. */
  checkOwners(
    its: SimulatedClass,
    users: ReadonlyArray<SimulatedVolume>,
    ownerUidOf: (volume: SimulatedVolume) => string | undefined
  ): void {
    const name = sourceOf({ ...its, name: secretNameOf(its) })
    const found = this.atOnce(this.world.control.all("secrets")).find((object) => nameOf(object) === name)
    if (found === undefined) return
    const uids = new Map(
      this.atOnce(this.world.control.all(POD_STATUSES)).map((object) => [
        podStatusOf(object).targetPath,
        textAt(metadataOf(object), "uid") ?? ""
      ])
    )
    this.world.referee.check(Invariants.usersOwnTheirSecret, {
      name,
      ownerUids: ownerUidsOf(found),
      users: new Map(users.map((user) => [user.pod.name, ownerUidOf(user) ?? uids.get(user.targetPath) ?? ""]))
    })
  }

  private secretAt(path: string): Invariants.SecretOfOthers | undefined {
    const [, namespace = "", name = ""] = SECRET_PATH.exec(path) ?? []
    const found = this.atOnce(this.world.control.all("secrets")).find(
      (object) => nameOf(object) === `${namespace}/${name}`
    )
    return found === undefined ? undefined : secretOf(found)
  }

  private classOfSecret(name: string): SimulatedClass | undefined {
    return [...this.world.classes.values()].find((it) => name === sourceOf({ ...it, name: secretNameOf(it) }))
  }

  private checkSecrets(): void {
    for (const secret of this.secrets()) {
      const its = this.classOfSecret(secret.name)
      if (its !== undefined && !this.world.spoilt.has(secret.name))
        this.world.referee.check(Invariants.secretIsOneGeneration, { secret, class: its })
    }
  }

  /** A Secret that somebody has edited is written right, and so are all others. */
  checkRestored(its: SimulatedClass): void {
    this.world.spoilt.delete(sourceOf({ ...its, name: secretNameOf(its) }))
    this.checkSecrets()
  }

  private podUids(): ReadonlySet<string | undefined> {
    return new Set(this.atOnce(this.world.control.all("pods")).map((pod) => textAt(metadataOf(pod), "uid")))
  }

  /** @shape ("namespace/name" of a Secret) -> published volumes of pods that are there and run, on any node */
  usersOf(secretName: string): ReadonlyArray<SimulatedVolume> {
    const its = this.classOfSecret(secretName)
    if (its === undefined) return []
    const all = this.atOnce(this.world.control.all("pods"))
    // The containers of a pod that has ended ask for nothing any more.
    const running = all.filter(
      (pod) => !["Succeeded", "Failed"].includes(textAt(objectAt(pod, "status"), "phase") ?? "")
    )
    const pods = new Set(running.map((pod) => textAt(metadataOf(pod), "uid")))
    return [...this.world.volumes.values()].filter(
      (volume) => volume.class === its && volume.state === "Published" && pods.has(volume.pod.uid)
    )
  }

  /** @returns to be called when it has gone: who used it until then counts */
  private removalOf(path: string): () => void {
    const [, namespace = "", name = ""] = SECRET_PATH.exec(path) ?? []
    const secretName = `${namespace}/${name}`
    if (this.classOfSecret(secretName) === undefined) return () => {}
    const users = this.usersOf(secretName)
    return () => this.world.referee.check(Invariants.usedSecretStays, { name: secretName, users })
  }

  /** What is true of a volume at any time. */
  checkVolume(volume: SimulatedVolume): void {
    const { history, referee } = this.world
    const view = this.look(volume)
    referee.check(Invariants.readersSeeOneGeneration, { view, volume })
    referee.check(Invariants.contentIsThePodsOwn, { view, volume })
    if (volume.state !== "Published") return
    const generation = Invariants.generationOf(view)
    if (generation !== volume.generationSeen) history.state(laneOf(volume), `generation ${generation}`)
    referee.check(Invariants.publishedNeverGoesBack, { view, volume })
    referee.check(Invariants.pinnedNeverChanges, { view, volume })
    volume.generationSeen = Math.max(volume.generationSeen, generation)
  }

  /** What is in a generation that is not the current one cannot be seen by anybody, and so changes nothing. */
  private isHidden(path: string, targetPath: string): boolean {
    const [top = ""] = path.slice(targetPath.length + 1).split("/")
    if (!GENERATION.test(top)) return false
    const current = this.world.files.readLink(`${targetPath}/..data`)
    return this.atOnce(Effect.orElseSucceed(current, () => "")) !== top
  }

  private checkPath(path: string): void {
    const targetPath = targetPathIn(path) ?? ""
    const volume = this.world.volumes.get(targetPath)
    if (volume !== undefined && !this.isHidden(path, targetPath)) this.checkVolume(volume)
  }

  private checkMounts(): void {
    const { referee, volumes } = this.world
    referee.check(Invariants.unpublishedStaysGone, { mounts: this.mounts(), volumes })
  }

  /** No content may be in a text that leaves the driver. */
  checkText(where: string, text: string): void {
    this.world.referee.check(Invariants.contentStaysOnTmpfs, { where, hasContent: text.includes(MARK) })
  }

  private checkWrite(path: string, data: Uint8Array, mode: number): void {
    if (this.isNodeLost) return
    const { referee, volumes } = this.world
    const targetPath = targetPathIn(path)
    const volume = volumes.get(targetPath ?? "")
    // A call that was given up may still be at work when the kubelet begins to take the volume away.
    const insideVolume = volume !== undefined && volume.state !== "Gone"
    referee.check(Invariants.writesStayInside, { path, mode, insideVolume })
    const onTmpfs = targetPath !== undefined && this.atOnce(this.world.node.mountsAt(targetPath)) > 0
    if (!onTmpfs) this.checkText(`${path}, which is on the node's disk`, decoder.decode(data))
  }

  private isOfTornDown(secret: string): boolean {
    return [...this.world.volumes.values()].some(
      ({ class: its, isTornDown }) => isTornDown === true && secret === sourceOf({ ...its, name: secretNameOf(its) })
    )
  }

  // ---- ports

  /** The node is gone, from one instant to the next: whoever was at work there has not ended in the same one. */
  nodeLost(): void {
    this.isNodeLost = true
  }

  /** Counts a call that changes something, and looks at what it was about when it has ended, well or not. */
  private readonly changing = <A, E>(figure: string, effect: Effect.Effect<A, E>, after: () => void, adds?: string) =>
    Effect.suspend(() => {
      this.world.history.count(figure)
      if (adds !== undefined) this.checkAttempt(figure, adds)
      return Effect.ensuring(
        effect,
        Effect.sync(() => {
          if (!this.isNodeLost) after()
        })
      )
    })

  /** Also what fails counts: whoever is still at work on the volume is only lucky. */
  private checkAttempt(figure: string, path: string): void {
    const volume = this.world.volumes.get(targetPathIn(path) ?? "")
    if (volume !== undefined) this.world.referee.check(Invariants.unpublishedIsLeftAlone, { figure, path, volume })
  }

  fileSystem(files: FileSystem.FileSystem): FileSystem.FileSystem {
    const adding = <A, E>(path: string, effect: Effect.Effect<A, E>) =>
      this.changing("file writes", effect, () => this.checkPath(path), path)
    return FileSystem.make({
      ...files,
      chmod: (path, mode) => adding(path, files.chmod(path, mode)),
      chown: (path, uid, gid) => adding(path, files.chown(path, uid, gid)),
      makeDirectory: (path, options) => adding(path, files.makeDirectory(path, options)),
      remove: (path, options) => this.changing("file writes", files.remove(path, options), () => this.checkPath(path)),
      rename: (from, to) => adding(to, files.rename(from, to)),
      symlink: (target, path) => adding(path, files.symlink(target, path)),
      writeFile: (path, data, options) =>
        adding(path, files.writeFile(path, data, options)).pipe(
          // One that failed wrote nothing: its volume may have been taken away while it was on its way.
          Effect.tap(() => Effect.sync(() => this.checkWrite(path, data, options?.mode ?? 0o666)))
        )
    })
  }

  mounter(mounter: Mounter["Service"]): Mounter["Service"] {
    const changing = <A, E>(path: string, effect: Effect.Effect<A, E>, adds?: string) => {
      const after = () => {
        this.checkPath(path)
        this.checkMounts()
      }
      return this.changing("mount calls", effect, after, adds)
    }
    return Mounter.of({
      ...mounter,
      mountTmpfs: (path, options) => {
        const counted = Effect.tap(mounter.mountTmpfs(path, options), () =>
          Effect.sync(() => this.made.set(path, (this.made.get(path) ?? 0) + 1))
        )
        return changing(path, counted, path)
      },
      unmount: (path) => changing(path, mounter.unmount(path))
    })
  }

  kubernetes(api: KubernetesApi["Service"]): KubernetesApi["Service"] {
    return KubernetesApi.of({
      watch: api.watch,
      request: (request) =>
        Effect.suspend(() => {
          const { body, method, path } = request
          if (!WRITES.has(method)) return api.request(request)
          this.world.history.count("API writes")
          this.checkText(`the body of ${method} ${path}`, JSON.stringify(body ?? ""))
          if (OF_SECRETS.test(path)) {
            // One that comes after all this time finds users that nobody could know of.
            const isRemoval = method === "DELETE" && !this.world.faults.api.isOverdue(request)
            const removed = isRemoval ? this.removalOf(path) : () => {}
            const before = this.secretAt(path)
            return Effect.tap(api.request(request), (answer) =>
              Effect.sync(() => {
                removed()
                // As it was stored: somebody else may have written it in the same instant.
                const isWritten = method !== "DELETE" && SECRET_PATH.test(path) && isObject(answer)
                const after = isWritten ? secretOf(answer) : this.secretAt(path)
                if (isObject(body) && body["data"] !== undefined && after !== undefined) {
                  // What is made of files of which some are gone is nobody's reply.
                  if (this.isOfTornDown(after.name)) this.world.spoilt.add(after.name)
                  else this.world.spoilt.delete(after.name)
                }
                // Whoever has made it may have taken it away meanwhile.
                if (before !== undefined && (after !== undefined || method === "DELETE")) {
                  this.world.referee.check(Invariants.secretsOfOthersStay, { before, after })
                }
                this.checkSecrets()
              })
            )
          }
          const name = method === "PUT" && path.includes(`/${POD_STATUSES}/`) ? path.split("/").at(-1) : undefined
          const before = name === undefined ? undefined : this.statuses().find((status) => status.name === name)
          return Effect.tap(api.request(request), () =>
            Effect.sync(() => {
              if (before !== undefined && isObject(body)) this.checkReplaced(before, podStatusOf(body))
              // By now the volume may have another one, under the name that was taken then.
              if (method === "POST" && this.world.faults.api.isOverdue(request) && isObject(body)) {
                const volume = this.world.volumes.get(podStatusOf(body).targetPath)
                if (volume !== undefined) volume.wasRecordedLate = true
              }
            })
          )
        })
    })
  }

  private checkReplaced(before: Invariants.PodStatusView, after: Invariants.PodStatusView): void {
    const { referee, volumes } = this.world
    const held = volumes.get(before.targetPath)
    // The status of a pod that is gone goes with it, whatever its node still has of it.
    const holder = held !== undefined && this.podUids().has(held.pod.uid) ? held : undefined
    referee.check(Invariants.podStatusIsNotTaken, { before, after, holder })
    referee.check(Invariants.labelsOfOthersStay, { before, after })
  }
}
