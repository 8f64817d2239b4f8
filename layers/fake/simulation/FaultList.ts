/**
 * What a world has to go through, as a list, and the sites at which it does. A site is named as it is counted, and as a
 * campaign's table names it; each has a rate of its own, or is drawn with one of few others.
 *
 * @source the numbers are those of the project's list of faults, by place
 */

import { BAD_ANSWERS, ODD_ANSWERS } from "./ProviderFaults.ts"

export interface FaultEntry {
  /** "1-4": the numbers of one place. */
  readonly numbers: string
  readonly fault: string
  /** Each strikes in some run of some scenario. One that ends with a dot or a space stands for all that begin so. */
  readonly sites: ReadonlyArray<string>
  /** When there is no site: what goes on in every run instead, or why it does not. */
  readonly why?: string
}

const entry = (numbers: string, fault: string, ...sites: ReadonlyArray<string>): FaultEntry => ({
  numbers,
  fault,
  sites
})
const without = (numbers: string, fault: string, why: string): FaultEntry => ({ numbers, fault, sites: [], why })

const API_SERVER: ReadonlyArray<FaultEntry> = [
  entry("1-4", "lost before it takes effect", "API lost"),
  entry("1-4", "it takes effect, and the answer is lost: its sender does not know", "API answer lost"),
  entry("1-4", "409: somebody else was first", "API conflict"),
  entry("1-4", "429 with Retry-After", "API 429"),
  entry("1-4", "500 and 504, after which nobody knows whether it took effect", "API 500", "API 504"),
  entry("1-4", "503", "API 503"),
  entry("1-4", "no answer in time, and it takes effect then, never, or later", "API timeout", "API late"),
  entry("1-4", "one request in many takes up to half a minute", "API slow"),
  entry("1-4", "out of reach", "API outage")
]

const WATCHES: ReadonlyArray<FaultEntry> = [
  entry("5-8", "a watch is cut, or cannot be opened", "watch cut", "watch refused"),
  entry("5-8", "events are dropped: a watch says nothing any more and does not end", "watch stalls"),
  entry("5-8", "events are delayed, by each watch as long as it pleases", "watch lags"),
  entry("5-8", "410 by an event or by status: list again, and never hear what came and went", "watch 410 as "),
  entry("5-8", "a bookmark without a change", "watch bookmark"),
  entry("5-8", "a watch cache that is behind, after a switch to an older API server", "watch cache behind"),
  without(
    "5-8",
    "an older state than was seen before (time travel)",
    "lists are read by quorum, and watches go on from the version of a list: no request of ours asks for an older state, and an API server that is behind a watch's version is silent until it has caught up"
  )
]

const OBJECTS: ReadonlyArray<FaultEntry> = [
  entry("9-12", "deleted and made anew under its name, between a read and a write", "remade before a write"),
  entry("9-12", "a class is deleted and made anew", "class made anew"),
  entry(
    "9-12",
    "the garbage collector just before a read, and just after it",
    "garbage before a read",
    "garbage after a read"
  ),
  entry(
    "9-12",
    "others edit a Secret: its content, its owners, our notes, notes of theirs",
    "Secret content edited",
    "Secret without ",
    "Secret notes of others"
  ),
  entry("9-12", "others edit or delete a pod status", "pod status "),
  entry(
    "9-12",
    "a finalizer of others holds an object that is to go",
    "Secret held by a finalizer",
    "pod status held by a finalizer"
  ),
  entry("9-12", "others write what is the operator's", "others ", "CSIDriver of somebody else", "another installation"),
  entry("9-12", "a namespace comes to its end", "namespace terminating"),
  entry("13-14", "a right is taken away for a while, or one request is not authorized", "denied", "API 403"),
  entry("13-14", "a Secret is made immutable", "Secret made immutable"),
  entry("13-14", "a quota is exceeded", "quota exceeded"),
  entry("13-14", "a definition, or a whole API group, is not served", "definition absent", "discovery"),
  entry("13-14", "a kind cannot be converted", "conversion error"),
  without(
    "13-14",
    "an older schema, which takes fields away",
    "pod statuses have had all their fields since the first release that is supported, and what is newer is in annotations, which no schema takes away"
  )
]

const KUBELET: ReadonlyArray<FaultEntry> = [
  entry("15-18", "two calls for a volume at once", "publish twice"),
  entry("15-18", "a publish after the unpublish", "publish after unpublish"),
  entry("15-18", "an unpublish after the unpublish", "unpublish twice"),
  entry("15-18", "an unpublish while the driver is at work on the volume", "unpublish at work"),
  entry("15-18", "no kubelet for a while, and then all volumes at once", "kubelet restart")
]

const DRIVER: ReadonlyArray<FaultEntry> = [
  without("19-22", "SIGKILL between any two port calls", "counted as kills; some lives of some runs are not cut short"),
  entry("19-22", "SIGTERM", "SIGTERM"),
  entry("19-22", "an upgrade from upstream's release, and a downgrade to it", "driver of upstream"),
  entry("19-22", "two drivers at once during a rollout", "driver pods overlap"),
  entry("19-22", "the node restarts", "reboot")
]

const DISK: ReadonlyArray<FaultEntry> = [
  entry("23-26", "mounting fails", "Mounter.mount EPERM", "Mounter.mount ENOMEM", "Mounter.mount EBUSY"),
  entry("23-26", "unmounting fails", "Mounter.unmount EPERM", "Mounter.unmount ENOMEM", "Mounter.unmount EBUSY"),
  entry("23-26", "a mount stays busy for a while", "Mounter keeps a mount busy", "Mounter.unmount EBUSY for a while"),
  entry("23-26", "looking at mounts fails", "Mounter.inspect EPERM", "Mounter.inspect ENOMEM"),
  entry("23-26", "EIO and ENOMEM, once", "FileSystem EIO", "FileSystem ENOMEM"),
  entry(
    "23-26",
    "one file cannot be read or removed for a while",
    "FileSystem breaks a file",
    "FileSystem broken file"
  ),
  entry("23-26", "ENOSPC: a tmpfs takes part of a file", "FileSystem no room", "FileSystem full", "FileSystem ENOSPC"),
  entry("23-26", "read-only for a while", "FileSystem read-only", "FileSystem EROFS"),
  entry("23-26", "..data_tmp and a half-written generation are left", "FileSystem leftovers"),
  entry("23-26", "a time of change that is still to come", "FileSystem future"),
  entry("23-26", "the disk is slow", "FileSystem slow"),
  without("23-26", "a crash between rename and cleanup", "kills come between any two port calls, and so there as well")
]

const refused = (name: string): FaultEntry =>
  entry("27-32", `an answer that must be refused whole: ${name}`, `bad answer: ${name}`)
const allowed = (name: string): FaultEntry =>
  entry("27-32", `an answer as good as others: ${name}`, `odd answer: ${name}`)

const PROVIDERS: ReadonlyArray<FaultEntry> = [
  entry("27-32", "no socket", "Providers.locate"),
  entry("27-32", "another process listens", "Providers replaced"),
  entry("27-32", "nobody accepts on the socket", "Providers socket refusing"),
  entry("27-32", "the socket may not be opened", "Providers socket forbidden"),
  entry("27-32", "the answer takes long", "Providers.mount slow"),
  entry("27-32", "no answer at all", "Providers.mount hangs"),
  entry("27-32", "the answer breaks off after its content was fetched", "Providers.mount breaks"),
  entry("27-32", "a gRPC error, UNAVAILABLE among others", "Providers.mount fails"),
  entry("27-32", "an error code without a gRPC error", "Providers.mount refused"),
  entry("27-32", "new content with each call", "Providers.mount flips"),
  entry("27-32", "files are gone that were there", "Providers.mount fewer files"),
  entry("27-32", "odd names, deep directories", "Providers.mount odd names"),
  entry("27-32", "new content of an old version", "Providers.mount constant version"),
  entry("27-32", "content without a version", "Providers.mount empty version"),
  entry("27-32", "no files, from a provider that has written them", "Providers.mount writes itself"),
  entry("27-32", "no files, from one that has not", "Providers.mount no files"),
  entry("27-32", "Version lies, fails or hangs", "Providers.version lies"),
  ...BAD_ANSWERS.map(([name]) => refused(name)),
  ...ODD_ANSWERS.map(([name]) => allowed(name)),
  entry("33-34", "429 for a while", "Providers throttle", "Providers.mount throttled"),
  entry("33-34", "a store is away for minutes, or a day", "Backend outage", "Backend away"),
  entry(
    "33-34",
    "secrets are deleted, not allowed or disabled, and come back",
    "Backend revokes",
    "Backend NOT_FOUND",
    "Backend PERMISSION_DENIED",
    "Backend FAILED_PRECONDITION"
  )
]

const TOKENS: ReadonlyArray<FaultEntry> = [
  entry("35-36", "no token", "token missing"),
  entry("35-36", "a token of another audience", "token of another audience"),
  entry("35-36", "a token expires on its way", "token expires in flight"),
  without("35-36", "in the volume context, or among the secrets", "drawn once per run, or as the CSIDriver has it")
]

const TIME: ReadonlyArray<FaultEntry> = [
  entry("37-38", "a node's clock is wrong, unlike those of others, and is put right", "clock ahead", "clock behind"),
  entry("37-38", "a node stands still, and its monotonic clock does", "node stands still")
]

const CLUSTER: ReadonlyArray<FaultEntry> = [
  entry("39-40", "a class is edited while it is used, wrongly, and is put right", "SecretProviderClass "),
  entry("39-40", "a node is gone, and another one comes", "node lost"),
  entry("39-40", "an autoscaler changes the number of pods again and again", "replicas flap")
]

const OPERATOR: ReadonlyArray<FaultEntry> = [
  entry("41-42", "two leaders for as long as a lease", "SIGSTOP"),
  entry("41-42", "the administrator changes his mind, and back", "administrator "),
  entry("41-42", "TLS profile, proxy and certificates change", "TLS profile", "proxy", "certificates"),
  entry("41-42", "an upgrade, and back", "release "),
  entry("41-42", "classes come and go", "class comes", "class goes"),
  entry("41-42", "nodes come and go", "node comes", "node goes"),
  entry("41-42", "pods of the driver crash", "pod crash")
]

const EVERYWHERE: ReadonlyArray<FaultEntry> = [
  entry("43", "one at a time where there are many, no waiting, extreme intervals", "settings "),
  without("43", "storms of pre-emption", "their rate is drawn once per run, from hardly ever to every second step"),
  without("43", "fibers of equal priority change places", "the seed draws the next fiber, in every run, at every step")
]

/** By place, in the order of their numbers. */
export const FAULT_LIST: ReadonlyArray<FaultEntry> = [
  API_SERVER,
  WATCHES,
  OBJECTS,
  KUBELET,
  DRIVER,
  DISK,
  PROVIDERS,
  TOKENS,
  TIME,
  CLUSTER,
  OPERATOR,
  EVERYWHERE
].flat()

/** @shape (site of the list, site that struck) -> whether the one stands for the other */
export const standsFor = (listed: string, struck: string): boolean =>
  /[. ]$/u.test(listed) ? struck.startsWith(listed) : struck === listed
