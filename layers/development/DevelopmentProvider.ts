/**
 * A provider plugin for the demo, the tests and the benchmark: a real `v1alpha1.CSIDriverProvider` on a socket, which
 * serves the files of a directory, or the mock objects of upstream's e2e provider. Switches make it fail, wait or rotate.
 *
 * @source driver v1.6.0, test/e2eprovider; reference/driver.md 12, reference/wire.md (b)
 */
import { createHash } from "node:crypto"
import { readFile, realpath } from "node:fs/promises"
import { createServer } from "node:http"
import { isAbsolute, join, relative } from "node:path"
import type * as grpc from "@grpc/grpc-js"
import { Effect, Option, Result, Schema, type Scope } from "effect"
import { parse as parseYaml } from "yaml"
import {
  CSIDriverProviderService,
  type File,
  type MountRequest,
  type MountResponse,
  type ObjectVersion,
  type VersionRequest,
  type VersionResponse
} from "../../proto/gen/provider.ts"
import { TOKENS_KEY } from "../../schemas/Csi.ts"
import { CsiStatus, GRPC_CODES, type GrpcCode } from "../../schemas/errors/CsiStatus.ts"
import { EndpointFailed } from "../../schemas/errors/EndpointFailed.ts"
import { parseEndpoint, socketPath } from "../../src/csi/Endpoint.ts"
import { type Handle, serve as serveGrpc } from "../real/Grpc.ts"
import { parseListenAddress } from "../real/HttpRoutes.ts"

const API_VERSION = "v1alpha1"
const POD_UID_KEY = "csi.storage.k8s.io/pod.uid"
const GRACE_MILLIS = 5_000
const MODE_DEFAULT = 0o644
const MODE_MAX = 0o777
const FORM_CHARACTERS_MAX = 4_096
/** As many hexadecimal digits of the content's SHA-256 make an object's version. */
const VERSION_DIGITS = 16

interface Switches {
  /** Mock objects of a pod that has been served before are now others; without effect on a directory's files. */
  readonly rotated: boolean
  /** Comma-separated audiences that a mount has to bring tokens for; empty: none. */
  readonly validateTokensAudience: string
  /** `Error.code` of every reply; empty: no error. */
  readonly errorCode: string
  /** The status of as many of the next mounts, and after how long it asks to be called again. */
  readonly grpcError: { readonly code: GrpcCode; readonly times: number; readonly retryAfterMillis?: number }
  /** How long every mount takes, before anything else. */
  readonly delayMillis: number
}

const INITIALLY: Switches = {
  rotated: false,
  validateTokensAudience: "",
  errorCode: "",
  grpcError: { code: "UNAVAILABLE", times: 0 },
  delayMillis: 0
}

/** Mount calls so far, whatever became of them. */
interface Calls {
  readonly total: number
  readonly byPodUid: Readonly<Record<string, number>>
}

interface Control {
  readonly switches: () => Switches
  readonly set: (changes: Partial<Switches>) => void
  readonly calls: () => Calls
}

export interface DevelopmentProvider extends Control {
  /** Where the control listener listens, when there is one. */
  readonly controlPort: number | undefined
}

export interface DevelopmentProviderOptions {
  /** "unix:///run/providers/name.sock" or "tcp://127.0.0.1:1234". */
  readonly endpoint: string
  /** Whose files are served; the mock objects when absent. */
  readonly directory?: string
  /** Where every object comes from, instead. */
  readonly source?: Source
  /** "host:port" of the HTTP control listener; none when absent or empty. */
  readonly controlAddr?: string
}

// ---- the request. What it holds may be secret, so no error repeats any of it but names of objects.

const refuse = (details: string) => new CsiStatus({ grpcCode: "UNKNOWN", details })

const StringMap = Schema.NullOr(Schema.Record(Schema.String, Schema.NullOr(Schema.String)))
const decodeStringMap = Schema.decodeUnknownOption(Schema.fromJsonString(StringMap))
const decodePermission = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff_ffff })))
)
const decodeTokens = Schema.decodeUnknownOption(
  Schema.fromJsonString(Schema.NullOr(Schema.Record(Schema.String, Schema.Unknown)))
)

/** As Go reads JSON into a map of strings: null is an empty map, and a null in it an empty string. */
const stringMap = (json: string, what: string): Effect.Effect<ReadonlyMap<string, string>, CsiStatus> =>
  Option.match(decodeStringMap(json), {
    onNone: () => Effect.fail(refuse(`failed to unmarshal ${what}, error: not a JSON object of strings`)),
    onSome: (values) =>
      Effect.succeed(new Map(Object.entries(values ?? {}).map(([key, value]) => [key, value ?? ""] as const)))
  })

const Objects = Schema.NullOr(Schema.Struct({ array: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))) }))
const decodeObjects = Schema.decodeUnknownOption(Objects)
const Item = Schema.Struct({
  objectName: Schema.optionalKey(Schema.String),
  objectVersion: Schema.optionalKey(Schema.String),
  fileName: Schema.optionalKey(Schema.String)
})
const decodeItem = Schema.decodeUnknownOption(Schema.NullOr(Item))
const Mode = Schema.Struct({ mode: Schema.optionalKey(Schema.Union([Schema.Int, Schema.String])) })
const decodeMode = Schema.decodeUnknownOption(Schema.NullOr(Mode))

/** Every scalar stays as it was written, as it does in Go where a string is asked for. */
const yamlOf = (text: string): Option.Option<unknown> =>
  Option.liftThrowable((source: string): unknown => parseYaml(source, { schema: "failsafe", prettyErrors: false }))(
    text
  )

/** Numbers are read as in YAML 1.1, where 0644 is octal. */
const typedYamlOf = (text: string): Option.Option<unknown> =>
  Option.liftThrowable((source: string): unknown => parseYaml(source, { version: "1.1", prettyErrors: false }))(text)

interface RequestedObject {
  readonly name: string
  readonly fileName: string
  readonly mode: number | undefined
}

/** @shape 420, "0644", "644" and "0o644" are all rw-r--r-- */
const modeOf = (mode: number | string | undefined): Option.Option<number | undefined> => {
  if (mode === undefined) return Option.some(undefined)
  const octal = typeof mode === "string" ? /^(?:0o)?([0-7]+)$/u.exec(mode)?.[1] : undefined
  const bits = typeof mode === "number" ? mode : octal === undefined ? -1 : Number.parseInt(octal, 8)
  return bits >= 0 && bits <= MODE_MAX ? Option.some(bits) : Option.none()
}

const requestedObjects = (text: string): Effect.Effect<ReadonlyArray<RequestedObject>, CsiStatus> =>
  Effect.gen(function* () {
    const items = Option.flatMap(yamlOf(text), decodeObjects)
    if (Option.isNone(items)) {
      return yield* refuse("failed to yaml unmarshal objects, error: not a YAML object with an array of strings")
    }
    return yield* Effect.forEach(items.value?.array ?? [], (source, index) => {
      const failed = (why: string) =>
        Effect.fail(refuse(`unmarshal failed for keyVaultObjects at index ${index}, error: ${why}`))
      const item = Option.flatMap(yamlOf(source), decodeItem)
      if (Option.isNone(item)) return failed("not a YAML object with objectName")
      const mode = Option.flatMap(Option.flatMap(typedYamlOf(source), decodeMode), (typed) => modeOf(typed?.mode))
      if (Option.isNone(mode)) return failed("mode is not a number or an octal string from 0 to 0777")
      const name = item.value?.objectName ?? ""
      return Effect.succeed({ name, fileName: item.value?.fileName ?? name, mode: mode.value })
    })
  })

const validateTokens = (attributes: ReadonlyMap<string, string>, audiences: string): Effect.Effect<void, CsiStatus> => {
  if (audiences === "") return Effect.void
  const failed = (why: string) => Effect.fail(refuse(`failed to validate token, error: ${why}`))
  const json = attributes.get(TOKENS_KEY) ?? ""
  if (json === "") return failed("service account tokens is not set")
  const tokens = decodeTokens(json)
  if (Option.isNone(tokens)) return failed("failed to unmarshal service account tokens, error: not a JSON object")
  const missing = audiences.split(",").find((audience) => !Object.hasOwn(tokens.value ?? {}, audience))
  return missing === undefined ? Effect.void : failed(`service account token for audience ${missing} is not set`)
}

// ---- the objects

export interface Served {
  readonly version: string
  readonly contents: Buffer
  readonly modeDefault: number
}

export type Source = (
  object: RequestedObject,
  rotated: boolean,
  request: MountRequest
) => Effect.Effect<Served, CsiStatus>

/** Contents of the e2e provider's objects; any other name has none. */
const MOCK_CONTENTS: ReadonlyMap<string, string> = new Map([
  ["foo", "secret"],
  ["fookey", "-----BEGIN PUBLIC KEY-----\nThis is mock key\n-----END PUBLIC KEY-----"]
])

export const mockObject: Source = ({ name }, rotated) =>
  Effect.succeed({
    version: rotated ? "v2" : "v1",
    contents: Buffer.from(rotated ? "rotated" : (MOCK_CONTENTS.get(name) ?? "")),
    modeDefault: 0
  })

const isInside = (directory: string, path: string): boolean => {
  const way = relative(directory, path)
  return way !== "" && way !== ".." && !way.startsWith("../") && !isAbsolute(way)
}

const fileObject =
  (directory: string): Source =>
  ({ name }) => {
    const path = join(directory, name)
    const failed = (why: string) => refuse(`object ${JSON.stringify(name)}: ${why}`)
    const outside = failed("leads out of the provider's directory")
    if (name.includes("\0") || isAbsolute(name) || !isInside(directory, path)) return Effect.fail(outside)
    return Effect.gen(function* () {
      const attempt = <A>(step: () => Promise<A>) =>
        Effect.tryPromise({ try: step, catch: () => failed("there is no such file in the provider's directory") })
      // A link inside may lead anywhere.
      const [home, real] = yield* attempt(() => Promise.all([realpath(directory), realpath(path)]))
      if (!isInside(home, real)) return yield* outside
      const contents = yield* attempt(() => readFile(real))
      const version = createHash("sha256").update(contents).digest("hex").slice(0, VERSION_DIGITS)
      return { version, contents, modeDefault: MODE_DEFAULT }
    })
  }

// ---- the service

interface State {
  switches: Switches
  total: number
  readonly byPodUid: Map<string, number>
  readonly seen: Set<string>
}

const takeGrpcError = (state: State): CsiStatus | undefined => {
  const { grpcError } = state.switches
  if (grpcError.times <= 0) return undefined
  state.switches = { ...state.switches, grpcError: { ...grpcError, times: grpcError.times - 1 } }
  const { code, retryAfterMillis } = grpcError
  return new CsiStatus({ grpcCode: code, details: "as asked for by /grpc-error", retryAfterMillis })
}

const podUidOf = ({ attributes }: MountRequest): string =>
  Option.getOrUndefined(decodeStringMap(attributes))?.[POD_UID_KEY] ?? ""

const mount = (state: State, source: Source, request: MountRequest): Effect.Effect<MountResponse, CsiStatus> =>
  Effect.gen(function* () {
    const podUid = podUidOf(request)
    state.total += 1
    state.byPodUid.set(podUid, (state.byPodUid.get(podUid) ?? 0) + 1)
    if (state.switches.delayMillis > 0) yield* Effect.sleep(state.switches.delayMillis)
    const injected = takeGrpcError(state)
    if (injected !== undefined) return yield* injected
    const attributes = yield* stringMap(request.attributes, "attributes")
    yield* stringMap(request.secrets, "secrets")
    if (Option.isNone(decodePermission(request.permission))) {
      return yield* refuse("failed to unmarshal file permission, error: not a JSON number")
    }
    if (request.targetPath === "") return yield* refuse("missing target path")
    const text = attributes.get("objects") ?? ""
    if (text === "") return yield* refuse("objects is not set")
    const objects = yield* requestedObjects(text)
    const { errorCode, rotated, validateTokensAudience } = state.switches
    const objectVersion: Array<ObjectVersion> = []
    const files: Array<File> = []
    for (const object of objects) {
      const served = yield* source(object, rotated && state.seen.has(podUid), request)
      objectVersion.push({ id: `secret/${object.name}`, version: served.version })
      files.push({ path: object.fileName, mode: object.mode ?? served.modeDefault, contents: served.contents })
    }
    yield* validateTokens(attributes, validateTokensAudience)
    if (errorCode !== "") return { objectVersion: [], error: { code: errorCode }, files: [] }
    state.seen.add(podUid)
    return { objectVersion, error: undefined, files }
  })

const authorized = (authority: string): Effect.Effect<void, CsiStatus> =>
  authority === "localhost" ? Effect.void : Effect.fail(refuse(`want authority localhost, got [${authority}]`))

// ---- the control listener

type Route = (values: URLSearchParams) => string | undefined

const numberOf = (text: string): number | undefined => (/^\d{1,9}$/u.test(text) ? Number(text) : undefined)

/** @shape (control) -> by path: changes a switch, and answers with a body, or undefined when the values make no sense */
const controlRoutes = (control: Control): Readonly<Record<string, Route>> => {
  const change = (changes: Partial<Switches>) => {
    control.set(changes)
    return ""
  }
  return {
    "/rotation": (values) => change({ rotated: values.get("rotated") === "true" }),
    "/validate-token-requests": (values) => change({ validateTokensAudience: values.get("audience") ?? "" }),
    "/error": (values) => change({ errorCode: values.get("code") ?? "" }),
    "/grpc-error": (values) => {
      const code = GRPC_CODES.find((name) => name !== "OK" && name === values.get("code"))
      const times = numberOf(values.get("times") ?? "1")
      const hint = values.get("retry-after-millis")
      const retryAfterMillis = numberOf(hint ?? "0")
      if (code === undefined || times === undefined || retryAfterMillis === undefined) return undefined
      return change({ grpcError: { code, times, ...(hint === null ? {} : { retryAfterMillis }) } })
    },
    "/delay": (values) => {
      const delayMillis = numberOf(values.get("millis") ?? "0")
      return delayMillis === undefined ? undefined : change({ delayMillis })
    },
    "/calls": () => `${JSON.stringify(control.calls())}\n`
  }
}

/** Any method does; values come from the query or a form. Succeeds with the port. */
const serveControl = (address: string, control: Control): Effect.Effect<number, EndpointFailed, Scope.Scope> =>
  Effect.gen(function* () {
    const failed = (detail: string) => new EndpointFailed({ endpoint: address, detail })
    const listen = parseListenAddress(address)
    if (Result.isFailure(listen)) return yield* failed(listen.failure)
    const routes = controlRoutes(control)
    const server = yield* Effect.acquireRelease(
      Effect.sync(() =>
        createServer((request, response) => {
          let form = ""
          request.setEncoding("utf8").on("data", (chunk: string) => {
            form += chunk
            if (form.length > FORM_CHARACTERS_MAX) request.destroy()
          })
          request.on("end", () => {
            const [path = "", query = ""] = (request.url ?? "/").split(/\?(.*)/su)
            const route = Object.hasOwn(routes, path) ? routes[path] : undefined
            // As in Go, a value of the form goes before one of the query.
            const body = route?.(new URLSearchParams(`${form}&${query}`))
            response.writeHead(route === undefined ? 404 : body === undefined ? 400 : 200)
            response.end(body ?? "")
          })
        })
      ),
      (open) =>
        Effect.callback<void>((resume) => {
          open.close(() => resume(Effect.void))
          open.closeAllConnections()
        })
    )
    const { host = "127.0.0.1", port } = listen.success
    return yield* Effect.callback<number, EndpointFailed>((resume) => {
      server.on("error", (error) => resume(Effect.fail(failed(error.message))))
      server.listen({ host, port }, () => {
        const bound = server.address()
        resume(Effect.succeed(typeof bound === "object" && bound !== null ? bound.port : port))
      })
    })
  })

// ---- all of it

/**
 * Serves until the scope closes; calls under way then have some seconds to end.
 *
 * @shape  ({ endpoint, directory?, controlAddr? }) -> its switches and counts
 * @errors EndpointFailed: the endpoint's text, what is in the socket's place, or what the system says to listening
 * @source reference/driver.md 12
 */
export const serve = (
  options: DevelopmentProviderOptions
): Effect.Effect<DevelopmentProvider, EndpointFailed, Scope.Scope> =>
  Effect.gen(function* () {
    const parsed = parseEndpoint(options.endpoint)
    if (Result.isFailure(parsed)) {
      return yield* new EndpointFailed({ endpoint: options.endpoint, detail: parsed.failure })
    }
    const endpoint = parsed.success
    const isUnix = endpoint.scheme.toLowerCase() === "unix"

    const state: State = { switches: INITIALLY, total: 0, byPodUid: new Map(), seen: new Set() }
    const control: Control = {
      switches: () => state.switches,
      set: (changes) => {
        state.switches = { ...state.switches, ...changes }
      },
      calls: () => ({ total: state.total, byPodUid: Object.fromEntries(state.byPodUid) })
    }
    const controlPort =
      options.controlAddr === undefined || options.controlAddr === ""
        ? undefined
        : yield* serveControl(options.controlAddr, control)

    const { directory } = options
    const source = options.source ?? (directory === undefined ? mockObject : fileObject(directory))
    const version: VersionResponse =
      directory === undefined
        ? { version: API_VERSION, runtimeName: "E2EMockProvider", runtimeVersion: "v0.0.10" }
        : { version: API_VERSION, runtimeName: "DevelopmentProvider", runtimeVersion: "v0.1.0" }
    const rpc =
      (handle: Handle) =>
      <Request, Response>(
        handler: (request: Request) => Effect.Effect<Response, CsiStatus>
      ): grpc.handleUnaryCall<Request, Response> =>
      (call, callback) =>
        handle((request: Request) => Effect.andThen(authorized(call.getHost()), handler(request)))(call, callback)
    yield* serveGrpc({
      listen: isUnix ? { socket: socketPath(endpoint) } : { address: endpoint.address },
      graceMillis: GRACE_MILLIS,
      register: (server, handle) =>
        server.addService(CSIDriverProviderService, {
          version: rpc(handle)<VersionRequest, VersionResponse>(() => Effect.succeed(version)),
          mount: rpc(handle)<MountRequest, MountResponse>((request) => mount(state, source, request))
        })
    })
    return { ...control, controlPort }
  })
