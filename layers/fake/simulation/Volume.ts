/**
 * The volumes of a simulated node, and what a provider answers for them: every file says which generation it is of and
 * for whom it was fetched, so that whoever reads it can tell a mixture, an older one and somebody else's.
 */
import type { PodIdentity } from "../../../src/volume/VolumeRecord.ts"

/** A SecretProviderClass, and the newest generation of its content. */
export interface SimulatedClass {
  readonly namespace: string
  readonly name: string
  readonly provider: string
  /** How many files at most, besides the one that is in every generation. */
  readonly filesMax: number
  /** One name is a file in even generations and a directory in odd ones. */
  readonly flips: boolean
  /** Names of files come and go with generations. */
  readonly namesChange: boolean
  /** Some generations have one file and no other. */
  readonly shrinks: boolean
  /** Some generations have names that few would choose, and directories far down. */
  readonly isOdd: boolean
  /** "constant": what the provider calls a version says nothing of the content. */
  readonly versions: "generation" | "constant" | "empty"
  /** Its provider writes the files itself, and answers with none. */
  readonly writesItself: boolean
  /** It asks for a Kubernetes Secret of all of its files. */
  readonly isSynced: boolean
  generation: number
  /** When its annotation last asked for a refresh, in milliseconds since the epoch. */
  askedMillis: number
}

export interface SimulatedVolume {
  readonly pod: PodIdentity
  readonly class: SimulatedClass
  readonly volumeId: string
  readonly targetPath: string
  /** Its pod has frozen it. */
  readonly isPinned: boolean
  /** What the kubelet believes: "Published" from the first OK until it wants the volume gone. */
  state: "Publishing" | "Published" | "Unpublishing" | "Gone"
  /** When that was last begun, in milliseconds since the epoch. */
  publishedMillis: number
  /** A pod status has named it while it was published. */
  recorded: boolean
  /** The newest generation that was seen in it while it was published. */
  generationSeen: number
  /** Upstream's release may have recorded it, under the name that it might share with another volume of its pod. */
  wasUpstreams: boolean
  /** A request to record it took effect after it was given up: it may have two pod statuses. */
  wasRecordedLate: boolean
  /** The driver has answered OK to unpublishing it, and was not asked to publish it since. */
  isUnpublished: boolean
  /** How often the target path had been mounted on when it was published. */
  mountsMade: number
  /** The kubelet has it among those that are mounted, or may be: it takes only such a volume away. */
  isHeld: boolean
  /** Of a pinned volume: somebody has asked for a refresh, or its record was lost, so that it may change. */
  mayChange: boolean
  /** Somebody has written or deleted its pod status, which was not seen as it should be since. */
  isDisturbed?: boolean
  /** Upstream's release was cut off while it took the files away one by one. In a cluster its pod says that it ends. */
  isTornDown?: boolean
  /** When the kubelet has asked for it, in milliseconds since the epoch, as long as it waits for the answer. */
  waitsSinceMillis?: number | undefined
}

/** In every file's content, and allowed nowhere but on tmpfs. */
export const MARK = "marked-content"
/** The only node. */
export const NODE_NAME = "node-1"
/** This file is in every generation. */
export const ALWAYS = "base"

export const PODS_DIRECTORY = "/var/lib/kubelet/pods"

const targetPathOf = (podUid: string, volumeName: string): string =>
  `${PODS_DIRECTORY}/${podUid}/volumes/kubernetes.io~csi/${volumeName}/mount`

/** @shape (pod, class, name and whether it is pinned) -> a volume that the kubelet begins with */
export const volumeOf = (
  pod: PodIdentity,
  volume: { readonly name: string; readonly class: SimulatedClass; readonly isPinned: boolean },
  mayChange: boolean
): SimulatedVolume => ({
  pod,
  class: volume.class,
  volumeId: `csi-${pod.uid}-${volume.name}`,
  targetPath: targetPathOf(pod.uid, volume.name),
  isPinned: volume.isPinned,
  state: "Publishing",
  publishedMillis: 0,
  recorded: false,
  generationSeen: 0,
  wasUpstreams: false,
  wasRecordedLate: false,
  isUnpublished: false,
  mountsMade: 0,
  isHeld: false,
  mayChange
})

/** Where a volume's story is told: pods of one name follow each other there. */
export const laneOf = ({ pod, targetPath }: SimulatedVolume): string =>
  `volume ${pod.namespace}/${pod.name} ${targetPath.split("/").at(-2) ?? ""}`

/** @shape (path) -> the target path that it is at or below, undefined outside of all volumes */
export const targetPathIn = (path: string): string | undefined =>
  /^\/var\/lib\/kubelet\/pods\/[^/]+\/volumes\/kubernetes\.io~csi\/[^/]+\/mount(?=\/|$)/u.exec(path)?.[0]

/** @shape (class) -> name of the Kubernetes Secret that it asks for */
export const secretNameOf = ({ name }: Pick<SimulatedClass, "name">): string => `${name}-secret`

export const sourceOf = ({ name, namespace }: Pick<SimulatedClass, "namespace" | "name">): string =>
  `${namespace}/${name}`

/** @shape (class, generation) -> whether that generation lacks what others have */
export const isPartial = ({ shrinks }: SimulatedClass, generation: number): boolean => shrinks && generation % 4 === 3

/** @shape (class, generation) -> whether that generation has odd names */
export const hasOddNames = ({ isOdd }: SimulatedClass, generation: number): boolean => isOdd && generation % 3 !== 0

/** All that a protobuf string and a Linux directory have room for, and people put there. */
const ODD_PATHS: ReadonlyArray<string> = [
  "two words",
  `"quoted" and 'quoted'`,
  "line\nbreak",
  "$(id)`id`;*",
  "-rf",
  ".hidden",
  "schl\u00fcssel\u2028\u{1f511}",
  "back\\slash",
  "n".repeat(255),
  `${"d/".repeat(15)}leaf`,
  `${`${"p".repeat(200)}/`.repeat(6)}leaf`
]

/** @shape (class, generation) -> what its provider calls that generation's version */
export const versionOf = ({ versions }: SimulatedClass, generation: number): string => {
  switch (versions) {
    case "generation":
      return String(generation)
    case "constant":
      return "latest"
    case "empty":
      return ""
  }
}

/** @shape (class, generation) -> relative paths of that generation's files */
const pathsOf = (it: SimulatedClass, generation: number): ReadonlyArray<string> => {
  const { filesMax, flips, namesChange } = it
  const paths = [ALWAYS]
  if (isPartial(it, generation)) return paths
  if (hasOddNames(it, generation)) paths.push(...ODD_PATHS)
  for (let index = 1; index <= filesMax; index++) {
    if (!namesChange || (generation + index) % 3 !== 0)
      paths.push(index % 2 === 0 ? `tls/part-${index}` : `file-${index}`)
  }
  if (flips) paths.push(generation % 2 === 0 ? "flip" : "flip/inner")
  return paths
}

/** For whom content was fetched. */
export interface Identity {
  readonly source: string
  readonly podUid: string
  readonly serviceAccountName: string
}

export const identityOf = (volume: SimulatedVolume): Identity => ({
  source: sourceOf(volume.class),
  podUid: volume.pod.uid,
  serviceAccountName: volume.pod.serviceAccountName
})

const SEPARATOR = "|"

const contentOf = ({ podUid, serviceAccountName, source }: Identity, generation: number, path: string): string =>
  [MARK, generation, source, serviceAccountName, podUid, path].join(SEPARATOR)

/** @shape (class, identity, generation) -> content by relative path: one complete reply */
export const replyOf = (of: SimulatedClass, identity: Identity, generation: number): ReadonlyMap<string, string> =>
  new Map(pathsOf(of, generation).map((path) => [path, contentOf(identity, generation, path)]))

/** @shape (content) -> what it says of itself; generation -1 for what no provider has answered */
export const stampOf = (content: string): Identity & { readonly generation: number } => {
  const [mark, generation, source = "", serviceAccountName = "", podUid = ""] = content.split(SEPARATOR)
  return { generation: mark === MARK ? Number(generation) : -1, source, podUid, serviceAccountName }
}
