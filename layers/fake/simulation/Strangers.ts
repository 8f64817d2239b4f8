/**
 * Everybody who writes objects that are the driver's to keep, or that it works from: people who edit and delete Secrets,
 * other controllers that hold objects back, and administrators who make a class anew.
 *
 * What is kept to: a Secret that has our label is written right again when it is edited, and what others note in it stays.
 * The label itself is what makes it ours: nobody takes it away here.
 */
import { Clock, Effect } from "effect"
import type { KubernetesApi, KubernetesRequest } from "../../../src/ports/KubernetesApi.ts"
import { KEYS } from "../../../src/sync/SecretPlan.ts"
import { NODE_LABEL } from "../../../src/volume/PodStatus.ts"
import {
  isEqual,
  isObject,
  type JsonObject,
  listAt,
  metadataOf,
  objectAt,
  textAt,
  without
} from "../KubernetesObject.ts"
import type { Neighbours } from "./ApiFaults.ts"
import type { Chance } from "./Chance.ts"
import { classObject, classPath } from "./Classes.ts"
import { type SimulatedClass, type SimulatedVolume, secretNameOf, sourceOf } from "./Volume.ts"

const MINUTE = 60_000
const WHILE_MILLIS_MAX = 5 * MINUTE
const MERGE = "application/merge-patch+json"
const POD_STATUSES = "/apis/secrets-store.csi.x-k8s.io/v1/secretproviderclasspodstatuses"
const HOLDER = "others/hold"
const SERVER_METADATA = ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"]

export interface StrangersOptions {
  /** The API as others use it. */
  readonly api: KubernetesApi["Service"]
  /** By "namespace/name". */
  readonly classes: ReadonlyMap<string, SimulatedClass>
  /** By target path. */
  readonly volumes: ReadonlyMap<string, SimulatedVolume>
  /** "namespace/name" of Secrets in which somebody has written what no provider gave, until they are written right. */
  readonly spoilt: Set<string>
  readonly chance: Chance
  readonly note: (site: string) => void
  readonly collectGarbage: Effect.Effect<void>
}

export class Strangers implements Neighbours {
  private readonly it: StrangersOptions
  readonly collectGarbage: Effect.Effect<void>

  constructor(options: StrangersOptions) {
    this.it = options
    this.collectGarbage = options.collectGarbage
  }

  /** What is refused is not tried again. */
  private send(request: KubernetesRequest): Effect.Effect<JsonObject | undefined> {
    return Effect.match(this.it.api.request(request), {
      onFailure: () => undefined,
      onSuccess: (answer) => (isObject(answer) ? answer : {})
    })
  }

  private patch(path: string, body: JsonObject): Effect.Effect<JsonObject | undefined> {
    return this.send({ method: "PATCH", path, contentType: MERGE, body })
  }

  private pause(): Effect.Effect<void> {
    return Effect.suspend(() => Effect.sleep(this.it.chance.between(0, WHILE_MILLIS_MAX)))
  }

  /** Somebody labels an object. */
  touch(path: string): Effect.Effect<void> {
    const { chance } = this.it
    return Effect.suspend(() =>
      Effect.asVoid(
        this.patch(path, { metadata: { labels: { [`others/label-${chance.below(3)}`]: `${chance.below(1_000)}` } } })
      )
    )
  }

  /** Somebody deletes an object, and makes it again as it was: it is another one. */
  readonly remake = Effect.fnUntraced({ self: this }, function* (path: string) {
    const found = yield* this.send({ method: "GET", path })
    if (found === undefined) return
    // First: whoever waits for this may end with his process at any time.
    if (path.includes("/secretproviderclasspodstatuses/")) this.disturbed(found, yield* Clock.currentTimeMillis)
    const { resourceVersion, uid } = metadataOf(found)
    const body = { preconditions: { resourceVersion, uid } }
    if ((yield* this.send({ method: "DELETE", path, body })) === undefined) return
    // Whoever holds the one does not know the other.
    const metadata = without(metadataOf(found), "finalizers", ...SERVER_METADATA)
    yield* this.send({ method: "POST", path: path.slice(0, path.lastIndexOf("/")), body: { ...found, metadata } })
  })

  // ---- classes

  /** As everybody needs it, whatever has become of it. */
  readonly restore = Effect.fnUntraced({ self: this }, function* (it: SimulatedClass) {
    const path = `${classPath(it.namespace)}/${it.name}`
    const body = classObject(it)
    const found = yield* this.send({ method: "GET", path })
    if (found === undefined) yield* this.send({ method: "POST", path: classPath(it.namespace), body })
    else if (!isEqual(objectAt(found, "spec"), body.spec)) yield* this.send({ method: "PUT", path, body })
  })

  readonly remakeClass: Effect.Effect<void> = Effect.suspend(() => {
    const { chance, classes, note } = this.it
    const it = chance.oneOf([...classes.values()])
    note("class made anew")
    return Effect.andThen(
      this.send({ method: "DELETE", path: `${classPath(it.namespace)}/${it.name}` }),
      // Some have second thoughts between the one and the other.
      Effect.ensuring(chance.happens(0.5) ? Effect.void : this.pause(), this.restore(it))
    )
  })

  /** A namespace comes to its end, and is made anew; its pods take their time, and are there for longer than that. */
  readonly empty = (namespace: string): Effect.Effect<void> => {
    const { classes } = this.it
    const own = [...classes.values()].filter((it) => it.namespace === namespace)
    const gone = Effect.forEach(
      own,
      (it) =>
        Effect.andThen(
          this.send({ method: "DELETE", path: `${classPath(namespace)}/${it.name}` }),
          Effect.sleep(this.it.chance.between(0, 5_000))
        ),
      { discard: true }
    )
    const back = Effect.forEach(own, (it) => this.restore(it), { discard: true })
    return Effect.ensuring(Effect.andThen(gone, this.pause()), back)
  }

  // ---- Secrets

  private secretPath(it: SimulatedClass): string {
    return `/api/v1/namespaces/${it.namespace}/secrets/${secretNameOf(it)}`
  }

  /** Somebody edits it, and means well. */
  readonly spoil = (it: SimulatedClass): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { chance, spoilt } = this.it
      const name = sourceOf({ ...it, name: secretNameOf(it) })
      const value = Buffer.from(`edited ${chance.below(1_000)}`).toString("base64")
      const data = chance.happens(0.5) ? { edited: value } : { base: chance.happens(0.5) ? value : null }
      const was = spoilt.has(name)
      spoilt.add(name)
      return Effect.map(this.patch(this.secretPath(it), { data }), (done) => {
        if (done === undefined && !was) spoilt.delete(name)
      })
    })

  /** Nobody owns it any more: it stays, and is nobody's to collect. */
  readonly disown = Effect.fnUntraced({ self: this }, function* (it: SimulatedClass) {
    yield* this.patch(this.secretPath(it), { metadata: { ownerReferences: null } })
    const now = yield* Clock.currentTimeMillis
    // All its users are new ones now.
    for (const volume of this.it.volumes.values()) if (volume.class === it) volume.publishedMillis = now
  })

  /** Paths of objects that are held back. */
  private readonly held = new Set<string>()

  /** @shape (name) -> somebody holds a pod status of that name back */
  holds(name: string): boolean {
    return [...this.held].some((path) => path.endsWith(`/${name}`))
  }

  /** @shape (namespace, name) -> somebody holds a pod status of that name back, or one that begins with it and a dash */
  holdsOneOf(namespace: string, name: string): boolean {
    const own = `/namespaces/${namespace}/secretproviderclasspodstatuses/${name}`
    return [...this.held].some((path) => `${path}-`.includes(`${own}-`))
  }

  /** Holds an object back that is to go. */
  private hold(path: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.held.add(path)
      return Effect.andThen(
        this.patch(path, { metadata: { finalizers: [HOLDER] } }),
        Effect.ensuring(this.pause(), this.letGo(path))
      )
    })
  }

  private letGo(path: string): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const done = yield* this.patch(path, { metadata: { finalizers: null } })
      if (done === undefined) return
      this.held.delete(path)
      // It goes now, whoever has taken it over since it was to go.
      if (metadataOf(done)["deletionTimestamp"] !== undefined) this.disturbed(done, yield* Clock.currentTimeMillis)
    })
  }

  /** Nothing is held back any more, whatever was in the way of saying so, and nothing is immutable. */
  readonly letAllGo: Effect.Effect<void> = Effect.suspend(() =>
    Effect.andThen(
      Effect.forEach([...this.held], (path) => this.letGo(path), { discard: true }),
      Effect.forEach([...this.frozen], (path) => this.thaw(path), { discard: true })
    )
  )

  /** Paths of Secrets that have been made immutable. */
  private readonly frozen = new Set<string>()

  /** It cannot be changed, until somebody follows the advice and deletes it. */
  private freeze(path: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.frozen.add(path)
      return Effect.flatMap(this.patch(path, { immutable: true }), (frozen) =>
        frozen === undefined ? Effect.void : Effect.ensuring(this.pause(), this.thaw(path))
      )
    })
  }

  /** Whether the request to make it immutable, or one to delete it, has been heeded: only it can tell. */
  private thaw(path: string): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const found = yield* this.send({ method: "GET", path })
      if (found?.["immutable"] === true) yield* this.send({ method: "DELETE", path })
    })
  }

  readonly editSecret: Effect.Effect<void> = Effect.suspend(() => {
    const { chance, classes, note } = this.it
    const synced = [...classes.values()].filter(({ isSynced }) => isSynced)
    if (synced.length === 0) return Effect.void
    const it = chance.oneOf(synced)
    const path = this.secretPath(it)
    switch (chance.below(6)) {
      case 0: {
        note("Secret notes of others")
        const notes = { [`others/note-${chance.below(3)}`]: "kept" }
        return Effect.asVoid(this.patch(path, { metadata: { labels: notes, annotations: notes } }))
      }
      case 1:
        note("Secret content edited")
        return this.spoil(it)
      case 2:
        note("Secret without owners")
        return this.disown(it)
      case 3: {
        note("Secret without our notes")
        const { className, classVersion, fetched } = KEYS
        return Effect.asVoid(
          this.patch(path, { metadata: { annotations: { [className]: null, [classVersion]: null, [fetched]: null } } })
        )
      }
      case 4:
        note("Secret held by a finalizer")
        return this.hold(path)
      default:
        note("Secret made immutable")
        return this.freeze(path)
    }
  })

  // ---- pod statuses

  /** Nobody is told by an object what has happened to it: whatever it says until it is right again counts for nothing. */
  private disturbed(status: JsonObject, nowMillis: number): void {
    const volume = this.it.volumes.get(textAt(objectAt(status, "status"), "targetPath") ?? "")
    if (volume === undefined) return
    volume.isDisturbed = true
    // It is a new user of its Secrets: what owned them for it is gone, or may be.
    volume.publishedMillis = nowMillis
    // With its record goes what is known of the wishes that its content fulfils.
    volume.mayChange = true
  }

  /** At once, and nothing that lasts. */
  readonly editStatusOnce: Effect.Effect<void> = Effect.suspend(() => this.editStatusBy(this.it.chance.below(4)))

  readonly editStatus: Effect.Effect<void> = Effect.suspend(() => this.editStatusBy(this.it.chance.below(5)))

  private readonly editStatusBy = Effect.fnUntraced({ self: this }, function* (way: number) {
    const list = yield* this.send({ method: "GET", path: POD_STATUSES })
    const found = listAt(list ?? {}, "items").filter(isObject)
    if (found.length === 0) return
    const status = this.it.chance.oneOf(found)
    const { name, namespace } = metadataOf(status)
    const path = POD_STATUSES.replace("secretprovider", `namespaces/${String(namespace)}/secretprovider`)
    const isDisturbed = Effect.map(Clock.currentTimeMillis, (now) => this.disturbed(status, now))
    // It may be seen to be right between the two.
    yield* isDisturbed
    yield* this.editStatusAt(`${path}/${String(name)}`, way)
    yield* isDisturbed
  })

  private readonly editStatusAt = Effect.fnUntraced({ self: this }, function* (own: string, way: number) {
    const { chance, note } = this.it
    switch (way) {
      case 0:
        note("pod status edited")
        yield* this.patch(own, { status: chance.happens(0.5) ? { objects: [] } : { mounted: false } })
        return
      case 1:
        note("pod status without its node")
        yield* this.patch(own, { metadata: { labels: { [NODE_LABEL]: null } } })
        return
      case 2:
        note("pod status made anew")
        return yield* this.remake(own)
      case 3:
        note("pod status deleted")
        yield* this.send({ method: "DELETE", path: own })
        return
      default:
        note("pod status held by a finalizer")
        yield* this.hold(own)
    }
  })
}
