/**
 * Where the API server is and what to say to be let in: out of a service account's files in a pod, out of a kubeconfig
 * elsewhere. There is one keep-alive agent; a new one takes its place when certificates change.
 *
 * Tokens are `Redacted`, and no error has any of a file's content in it: parsers quote what they stumble over.
 */
import { readFileSync } from "node:fs"
import { Agent as HttpAgent } from "node:http"
import { type AgentOptions, Agent as HttpsAgent, type RequestOptions } from "node:https"
import { delimiter, join } from "node:path"
import { Clock, Data, Effect, Redacted } from "effect"
import { KubernetesConfigInvalid } from "../../schemas/errors/KubernetesConfigInvalid.ts"

export interface Credentials {
  readonly agent: HttpAgent
  /** Value of the header; absent for anonymous and for client certificates. */
  readonly authorization: Redacted.Redacted<string> | undefined
  /** Of impersonation. */
  readonly headers: Readonly<Record<string, string>>
}

/** They could not be renewed; the detail has nothing secret. */
class CredentialsFailed extends Data.TaggedError("CredentialsFailed")<{ readonly detail: string }> {}

export interface Connection {
  readonly server: URL
  /** What is kept is used while it is young; `renew` reads it again at once. */
  readonly credentials: (renew: boolean) => Effect.Effect<Credentials, CredentialsFailed>
  readonly close: () => void
}

/** Requests at once, and so connections that are kept. More wait for their turn. Watches have theirs besides. */
export const CONNECTIONS_MAX = 16

export type Environment = Readonly<Record<string, string | undefined>>

/** As client-go does. */
const TOKEN_AGE_MILLIS = 60_000
/** Plugins are asked, and files read, this often at most. */
const KUBECONFIG_AGE_MILLIS = 10_000
/** Shorter than API servers and load balancers keep a silent connection. */
const IDLE_SOCKET_MILLIS = 55_000
const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

const agentOptions = {
  keepAlive: true,
  keepAliveMsecs: 30_000,
  maxFreeSockets: CONNECTIONS_MAX,
  timeout: IDLE_SOCKET_MILLIS
} satisfies AgentOptions

/** Connections that nobody uses just now; one that turned out to be dead says that the others are, too. */
export const dropIdle = (agent: HttpAgent): void => {
  for (const sockets of Object.values(agent.freeSockets)) {
    for (const socket of [...(sockets ?? [])]) socket.destroy()
  }
}

/** What uses the agent now goes on; nothing is kept afterwards. */
const retire = (agent: HttpAgent): void => {
  agent.maxFreeSockets = 0
  dropIdle(agent)
}

/** "ENOENT", or the kind of error: never its message. */
const codeOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return "unknown error"
  return "code" in cause && typeof cause.code === "string" ? cause.code : cause.name
}

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}

const httpsAgent = (options: AgentOptions) => new HttpsAgent({ ...agentOptions, ...options })

/**
 * The service account of the pod.
 *
 * @errors KubernetesConfigInvalid when there is no token to begin with; later, the last token stays in use
 */
const inCluster = Effect.fnUntraced(function* (host: string, port: string, directory: string) {
  const tokenFile = join(directory, "token")
  const caFile = join(directory, "ca.crt")
  const readToken = () => read(tokenFile)?.trim() ?? ""
  const makeAgent = (ca: string | undefined) => httpsAgent(ca === undefined ? {} : { ca })

  const first = readToken()
  if (first === "") {
    return yield* new KubernetesConfigInvalid({ source: tokenFile, detail: "the token is missing or empty" })
  }
  const address = `https://${host.includes(":") ? `[${host}]` : host}:${port}`
  if (!URL.canParse(address)) {
    return yield* new KubernetesConfigInvalid({ source: "KUBERNETES_SERVICE_HOST", detail: "this is not an address" })
  }
  let token = Redacted.make(`Bearer ${first}`)
  let ca = read(caFile)
  let agent = makeAgent(ca)
  let readMillis = yield* Clock.currentTimeMillis

  const renew = Effect.fnUntraced(function* (nowMillis: number) {
    readMillis = nowMillis
    const newCa = read(caFile)
    if (newCa !== undefined && newCa !== ca) {
      retire(agent)
      agent = makeAgent(newCa)
      ca = newCa
    }
    const newToken = readToken()
    if (newToken === "") {
      yield* Effect.logWarning("the service account token cannot be read, the last one stays in use", {
        file: tokenFile
      })
    } else token = Redacted.make(`Bearer ${newToken}`)
  })

  const connection: Connection = {
    server: new URL(address),
    credentials: Effect.fnUntraced(function* (now) {
      const nowMillis = yield* Clock.currentTimeMillis
      // A clock that was set back is no reason to keep a token.
      if (now || Math.abs(nowMillis - readMillis) >= TOKEN_AGE_MILLIS) yield* renew(nowMillis)
      return { agent, authorization: token, headers: {} }
    }),
    close: () => agent.destroy()
  }
  return connection
})

/** A kubeconfig's part of the agent as text, to see that it changed. */
const materialOf = ({ ca, cert, key, passphrase, rejectUnauthorized, servername }: RequestOptions): string =>
  JSON.stringify([ca, cert, key, passphrase, servername, rejectUnauthorized].map((part) => String(part ?? "")))

const authorizationOf = ({ auth, headers }: RequestOptions): string | undefined => {
  if (typeof auth === "string") return `Basic ${Buffer.from(auth).toString("base64")}`
  if (headers === undefined || Array.isArray(headers)) return undefined
  const { Authorization: value } = Object.fromEntries(Object.entries(headers))
  return typeof value === "string" ? value : undefined
}

const otherHeaders = ({ headers }: RequestOptions): Readonly<Record<string, string>> =>
  headers === undefined || Array.isArray(headers)
    ? {}
    : Object.fromEntries(
        Object.entries(headers).flatMap(([name, value]) =>
          name !== "Authorization" && typeof value === "string" ? [[name, value] as const] : []
        )
      )

/**
 * A kubeconfig, or several of them merged: certificates, tokens, plugins and proxies as client-node reads them.
 *
 * @errors KubernetesConfigInvalid for a file that cannot be read, or names no cluster
 */
const fromKubeconfig = Effect.fnUntraced(function* (files: ReadonlyArray<string>) {
  const source = files.join(delimiter)
  const invalid = (detail: string) => new KubernetesConfigInvalid({ source, detail })
  const { KubeConfig } = yield* Effect.tryPromise({
    // Only outside of a cluster: it would cost more memory than all of the driver.
    try: () => import("@kubernetes/client-node"),
    catch: () => invalid("reading a kubeconfig needs the package @kubernetes/client-node, which is not installed")
  })

  const parse = () => {
    const [first = "", ...others] = files
    const config = new KubeConfig()
    config.loadFromFile(first)
    for (const file of others) {
      const other = new KubeConfig()
      other.loadFromFile(file)
      // The first file that says it is right.
      config.mergeConfig(other, config.currentContext !== undefined && config.currentContext !== "")
    }
    // It refuses plain HTTP, such as of kubectl proxy, unless told that nothing is verified.
    config.clusters = config.clusters.map((cluster) =>
      cluster.server.startsWith("http:") ? { ...cluster, skipTLSVerify: true } : cluster
    )
    return config
  }
  const load = Effect.try({ try: parse, catch: (cause) => codeOf(cause) })

  let config = yield* Effect.mapError(load, (code) => invalid(`the file cannot be read as a kubeconfig (${code})`))
  const server = config.getCurrentCluster()?.server
  if (server === undefined) return yield* invalid("it has no current context, or one without a cluster")
  if (!URL.canParse(server) || !/^https?:/u.test(server)) {
    return yield* invalid("the server of its current context is not an http or https address")
  }
  const isPlain = server.startsWith("http:")

  /** What it is about, by now; plugins and identity providers are asked when their last answer is too old. */
  const ask = Effect.tryPromise({
    try: async () => {
      const options: RequestOptions = {}
      await config.applyToHTTPSOptions(options)
      return options
    },
    catch: (cause) =>
      new CredentialsFailed({ detail: `the kubeconfig's credentials could not be obtained (${codeOf(cause)})` })
  })

  const agentFor = (options: RequestOptions): HttpAgent => {
    // Its own agent knows the way through a proxy.
    const isProxied = config.getCurrentCluster()?.proxyUrl !== undefined
    if (isProxied && options.agent instanceof HttpAgent) return options.agent
    if (isPlain) return new HttpAgent(agentOptions)
    const { ca, cert, key, rejectUnauthorized, servername } = options
    return httpsAgent({
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
      ...(servername === undefined ? {} : { servername }),
      ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized })
    })
  }

  const settle = (options: RequestOptions): Credentials => {
    const authorization = authorizationOf(options)
    const newMaterial = materialOf(options)
    if (newMaterial !== material) {
      retire(agent)
      agent = agentFor(options)
      material = newMaterial
    }
    return {
      agent,
      authorization: authorization === undefined ? undefined : Redacted.make(authorization),
      headers: otherHeaders(options)
    }
  }

  const options = yield* Effect.mapError(ask, ({ detail }) => invalid(detail))
  let material = materialOf(options)
  let agent = agentFor(options)
  let kept = settle(options)
  let askedMillis = yield* Clock.currentTimeMillis

  const connection: Connection = {
    server: new URL(server),
    credentials: Effect.fnUntraced(function* (now) {
      const nowMillis = yield* Clock.currentTimeMillis
      if (!now && Math.abs(nowMillis - askedMillis) < KUBECONFIG_AGE_MILLIS) return kept
      // Reading the file again makes it forget the tokens that it keeps.
      if (now) config = yield* Effect.orElseSucceed(load, () => config)
      kept = settle(yield* ask)
      askedMillis = nowMillis
      return kept
    }),
    close: () => agent.destroy()
  }
  return connection
})

const present = (path: string | undefined): path is string => path !== undefined && path !== ""

/**
 * Finds the configuration: the given kubeconfig, else those of KUBECONFIG, else the pod's service account, else
 * ~/.kube/config.
 *
 * @shape  (kubeconfig or "", environment) -> connection
 * @errors KubernetesConfigInvalid of the last place that was looked at
 * @source reference/driver.md 1.5 #7; controller-runtime, pkg/client/config, loadConfig
 */
export const connect = (
  kubeconfig: string,
  environment: Environment
): Effect.Effect<Connection, KubernetesConfigInvalid> =>
  Effect.suspend(() => {
    const { HOME, KUBECONFIG, KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment
    if (kubeconfig !== "") return fromKubeconfig([kubeconfig])
    if (present(KUBECONFIG)) {
      const named = KUBECONFIG.split(delimiter).filter(present)
      // Of several files, those that do not exist are passed over.
      const found = named.filter((file) => read(file) !== undefined)
      return fromKubeconfig(found.length === 0 ? named : found)
    }
    const home = present(HOME) ? join(HOME, ".kube", "config") : undefined
    const atHome =
      home === undefined || read(home) === undefined
        ? (failure: KubernetesConfigInvalid) => Effect.fail(failure)
        : () => fromKubeconfig([home])
    if (present(host) && present(port)) {
      const directory = environment["SECRETS_STORE_SERVICE_ACCOUNT_DIR"]
      return Effect.catch(inCluster(host, port, present(directory) ? directory : SERVICE_ACCOUNT), atHome)
    }
    return atHome(
      new KubernetesConfigInvalid({
        source: "the environment",
        detail: "there is no kubeconfig, and KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"
      })
    )
  })
