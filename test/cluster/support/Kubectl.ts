/**
 * kubectl, as the administrator of the cluster that scripts/cluster.mjs runs, and waits that say what they waited for.
 */
import { spawn } from "node:child_process"
import { setTimeout as sleep } from "node:timers/promises"
import { Schema } from "effect"
import { stringify } from "yaml"

/** One object of the API, or a part of one. */
export type Json = Readonly<Record<string, unknown>>

export interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const PROGRAM_MILLIS = 120_000

/** Runs a program to its end; one that hangs is killed. */
export const program = (name: string, args: ReadonlyArray<string>, input = ""): Promise<Ran> =>
  new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: ["pipe", "pipe", "pipe"], timeout: PROGRAM_MILLIS, killSignal: "SIGKILL" })
    let [stdout, stderr] = ["", ""]
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
      stdout += chunk
    })
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      stderr += chunk
    })
    child.once("error", reject)
    child.once("close", (code) => resolve({ code: code ?? 137, stdout, stderr }))
    child.stdin.on("error", () => {})
    child.stdin.end(input)
  })

/** @errors Error: the command, and what kubectl said */
export const kubectl = async (args: ReadonlyArray<string>, input?: string): Promise<string> => {
  const { code, stderr, stdout } = await program("kubectl", args, input)
  if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${stderr.trim() || stdout.trim() || `exit ${code}`}`)
  return stdout
}

export const apply = (...objects: ReadonlyArray<Json>): Promise<string> =>
  kubectl(
    ["apply", "--server-side", "--force-conflicts", "-f", "-"],
    objects.map((object) => stringify(object)).join("---\n")
  )

const decodeJson = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown)))
const parseObject = (text: string): Json => decodeJson(text)

const isObject = Schema.is(Schema.Record(Schema.String, Schema.Unknown))
const isArray = Schema.is(Schema.Array(Schema.Unknown))

/** What stands at the path; undefined where there is nothing. */
export const at = (value: unknown, ...path: ReadonlyArray<string | number>): unknown => {
  const [step, ...rest] = path
  if (step === undefined) return value
  if (typeof step === "number") return isArray(value) ? at(value[step], ...rest) : undefined
  return isObject(value) ? at(value[step], ...rest) : undefined
}
export const textAt = (value: unknown, ...path: ReadonlyArray<string | number>): string => {
  const found = at(value, ...path)
  return typeof found === "string" ? found : ""
}
export const listAt = (value: unknown, ...path: ReadonlyArray<string | number>): ReadonlyArray<unknown> => {
  const found = at(value, ...path)
  return isArray(found) ? found : []
}

const inNamespace = (namespace: string | undefined) => (namespace === undefined ? [] : ["--namespace", namespace])

export const get = async (kind: string, name: string, namespace?: string): Promise<Json> =>
  parseObject(await kubectl(["get", kind, name, ...inNamespace(namespace), "--output=json"]))

export const list = async (kind: string, ...args: ReadonlyArray<string>): Promise<ReadonlyArray<unknown>> =>
  listAt(parseObject(await kubectl(["get", kind, ...args, "--output=json"])), "items")

/** The object; undefined when there is none. */
export const find = async (kind: string, name: string, namespace?: string): Promise<Json | undefined> => {
  const text = await kubectl(["get", kind, name, ...inNamespace(namespace), "--output=json", "--ignore-not-found"])
  return text.trim() === "" ? undefined : parseObject(text)
}

/** What a command in a pod's container prints. */
export const exec = (namespace: string, pod: string, ...command: ReadonlyArray<string>): Promise<string> =>
  kubectl(["exec", "--namespace", namespace, pod, "--", ...command])

const LOOK_MILLIS = 200

/**
 * Looks until there is something.
 *
 * @errors Error: what was waited for, and what the last look said
 */
export const until = async <A>(
  what: string,
  seconds: number,
  look: () => Promise<A | undefined | false>
): Promise<A> => {
  let last = "nothing"
  for (let since = performance.now(); performance.now() - since < seconds * 1_000; await sleep(LOOK_MILLIS)) {
    try {
      const found = await look()
      if (found !== undefined && found !== false) return found
      last = "not yet"
    } catch (cause) {
      last = cause instanceof Error ? cause.message : String(cause)
    }
  }
  throw new Error(`${what}: not within ${seconds} s; last: ${last}`)
}

export const conditionOf = (object: unknown, type: string): { readonly status: string; readonly message: string } => {
  const found = listAt(object, "status", "conditions").find((condition) => at(condition, "type") === type)
  return { status: textAt(found, "status"), message: textAt(found, "message") }
}

/** Messages of the object's Events, the latest last. */
const eventsOf = async (namespace: string, name: string): Promise<ReadonlyArray<string>> => {
  const events = await list("events", "--namespace", namespace, `--field-selector=involvedObject.name=${name}`)
  return events.map((event) => `${textAt(event, "reason")}: ${textAt(event, "message")}`)
}

export const eventThat = (namespace: string, name: string, pattern: RegExp, seconds = 60): Promise<string> =>
  until(`an Event of ${namespace}/${name} like ${pattern}`, seconds, async () => {
    const events = await eventsOf(namespace, name)
    const found = events.find((event) => pattern.test(event))
    if (found === undefined && events.length > 0) throw new Error(events.join("\n"))
    return found
  })

export const podReady = (namespace: string, name: string, seconds = 90): Promise<Json> =>
  until(`pod ${namespace}/${name} Ready`, seconds, async () => {
    const pod = await get("pod", name, namespace)
    if (conditionOf(pod, "Ready").status === "True") return pod
    throw new Error(`${textAt(pod, "status", "phase")}; ${(await eventsOf(namespace, name)).slice(-2).join("; ")}`)
  })

export const gone = (kind: string, name: string, namespace?: string, seconds = 60): Promise<true> =>
  until(`${kind} ${name} gone`, seconds, async () => (await find(kind, name, namespace)) === undefined)

export const remove = (kind: string, name: string, namespace: string): Promise<string> =>
  kubectl(["delete", kind, name, "--namespace", namespace, "--ignore-not-found", "--wait=true", "--timeout=90s"])
