/**
 * What a container's command line means on this machine: a pod has a file system and a network of its own, a process
 * here has neither. Paths and ports are therefore exchanged, and everything else stays as the template says.
 *
 * - `$(NAME)` is filled in from the container's environment, as the kubelet does.
 * - A path of the container leads over its volume mounts to a path of the node, and that to a directory of ours; a path
 *   that is on no volume is one of the node already, such as the one that the kubelet is told.
 * - A port is exchanged for one that is free, on the loopback address: several pods may listen on the same one.
 *
 * @source https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container
 */
import { Result } from "effect"
import { isObject, type JsonObject, listAt, objectAt, textAt } from "../../schemas/Json.ts"

/** The node that is played. */
export interface PlayedNode {
  readonly name: string
  /** By directory of the node, without a final slash: where it is on this machine. */
  readonly directories: ReadonlyMap<string, string>
  /** By port of the container. */
  readonly ports: ReadonlyMap<number, number>
}

const objectsAt = (object: JsonObject, key: string): ReadonlyArray<JsonObject> => listAt(object, key).filter(isObject)

const variablesOf = (container: JsonObject, node: PlayedNode): ReadonlyMap<string, string> =>
  new Map(
    objectsAt(container, "env").flatMap((variable) => {
      const field = textAt(objectAt(objectAt(variable, "valueFrom"), "fieldRef"), "fieldPath")
      const value = field === "spec.nodeName" ? node.name : textAt(variable, "value")
      return value === undefined ? [] : [[textAt(variable, "name") ?? "", value] as const]
    })
  )

/** A name that is not known stays, and so does what is escaped by a second dollar sign. */
const expand = (text: string, variables: ReadonlyMap<string, string>): string =>
  text.replace(/\$\$|\$\(([^()]*)\)/gu, (found, name: string | undefined) =>
    name === undefined ? "$" : (variables.get(name) ?? found)
  )

const bare = (path: string): string => path.replace(/(?<=.)\/+$/u, "")

/** What a path is called below the longest directory that holds it; undefined when none does. */
const moved = (path: string, directories: ReadonlyMap<string, string>): string | undefined => {
  const [longest] = [...directories.keys()]
    .filter((directory) => path === directory || path.startsWith(`${directory}/`))
    .sort((one, other) => other.length - one.length)
  return longest === undefined ? undefined : `${directories.get(longest)}${path.slice(longest.length)}`
}

const mountsOf = (podSpec: JsonObject, container: JsonObject): ReadonlyMap<string, string> => {
  const hostPaths = new Map(
    objectsAt(podSpec, "volumes").map((volume) => [
      textAt(volume, "name") ?? "",
      textAt(objectAt(volume, "hostPath"), "path")
    ])
  )
  return new Map(
    objectsAt(container, "volumeMounts").flatMap((mount) => {
      const hostPath = hostPaths.get(textAt(mount, "name") ?? "")
      return hostPath === undefined ? [] : [[bare(textAt(mount, "mountPath") ?? ""), bare(hostPath)] as const]
    })
  )
}

const PATH = /^((?:unix:\/\/)?)(\/.*)$/su
const PORT = /^:(\d+)$/u

/**
 * @shape  (spec.template of a DaemonSet, name of a container, node) -> the arguments of its process on this machine
 * @errors text: there is no such container, or a path or port of it that is not to be had here
 */
export const argumentsOf = (
  template: JsonObject,
  name: string,
  node: PlayedNode
): Result.Result<ReadonlyArray<string>, string> => {
  const podSpec = objectAt(template, "spec")
  const container = objectsAt(podSpec, "containers").find((candidate) => candidate["name"] === name)
  if (container === undefined) return Result.fail(`the template has no container ${JSON.stringify(name)}`)
  const variables = variablesOf(container, node)
  const mounts = mountsOf(podSpec, container)
  const failures: Array<string> = []

  const exchange = (part: string): string => {
    const [, scheme = "", path] = PATH.exec(part) ?? []
    const port = PORT.exec(part)?.[1]
    if (path === undefined && port === undefined) return part
    const here =
      path === undefined ? node.ports.get(Number(port)) : moved(moved(path, mounts) ?? path, node.directories)
    if (here !== undefined) return path === undefined ? `127.0.0.1:${here}` : `${scheme}${here}`
    failures.push(`${JSON.stringify(part)} is nowhere on this machine`)
    return part
  }

  const args = listAt(container, "args").map((word) => {
    const text = expand(String(word), variables)
    const [, flag, value] = /^(--?[\w-]+=)(.*)$/su.exec(text) ?? []
    return flag === undefined || value === undefined ? text : `${flag}${value.split(",").map(exchange).join(",")}`
  })
  return failures.length === 0 ? Result.succeed(args) : Result.fail(failures.join("; "))
}
