/**
 * Marked secrets go in everywhere a secret can go in, through every way in which a call can fail, at the highest
 * verbosity; then everything that the driver tells anybody is searched for the marks.
 */
import { randomInt } from "node:crypto"
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import { Effect, Fiber } from "effect"
import { type CsiCallFailed, call, type InlineVolume } from "../../layers/development/Kubelet.ts"
import type { Workbench } from "../../layers/development/Workbench.ts"
import {
  ControllerClient,
  type CreateVolumeRequest,
  NodeClient,
  type NodeStageVolumeRequest
} from "../../proto/gen/csi.ts"
import { TOKENS_KEY } from "../../schemas/Csi.ts"
import { eventually, freePort, get, isRoot, make, POD_STATUSES, tell, volumeOf } from "../support/DriverWorld.ts"
import * as ScriptedProvider from "../support/ScriptedProvider.ts"

// ---- marks, and how they are found

/** Letters beyond hexadecimal: no hash or identifier looks like it. */
const LETTERS = "ghijklmnopqrstuvwxyz"
const newMark = () => Array.from({ length: 24 }, () => LETTERS[randomInt(LETTERS.length)]).join("")

/** Parsers quote some ten characters of what they stumble over, so the beginning of a mark is a leak already. */
const QUOTED = 8

/** What base64 makes of a text that begins at the first, second or third byte of a group. */
const base64Forms = (text: string): ReadonlyArray<string> =>
  [0, 1, 2].map((before) => {
    const encoded = Buffer.concat([Buffer.alloc(before), Buffer.from(text)]).toString("base64")
    return encoded.slice(Math.ceil((before * 8) / 6), Math.floor(((before + text.length) * 8) / 6))
  })

/** All the ways in which the beginning of a mark may be written. */
const formsOf = (mark: string): ReadonlyArray<string> => {
  const start = mark.slice(0, QUOTED)
  const bytes = [...Buffer.from(start)]
  return [
    start,
    mark.slice(-QUOTED),
    [...start].reverse().join(""),
    ...base64Forms(start),
    Buffer.from(start).toString("hex"),
    bytes.map((byte) => byte.toString(16)).join(" "),
    bytes.join(","),
    bytes.join(", "),
    bytes.map((byte, index) => `"${index}":${byte}`).join(",")
  ]
}

/** Every mark that stands in a text, with what is around it. */
const leaksIn = (marks: Readonly<Record<string, string>>, text: string): ReadonlyArray<string> =>
  Object.entries(marks).flatMap(([secret, mark]) =>
    formsOf(mark).flatMap((form) => {
      const at = text.indexOf(form)
      return at < 0 ? [] : [`${secret}: ...${text.slice(Math.max(0, at - 120), at + 60)}...`]
    })
  )

describe("S5: the search for marks", () => {
  it.each([
    { name: "as it is", write: (mark: string) => `x${mark}` },
    { name: "cut off", write: (mark: string) => `"${mark.slice(0, 10)}"... is not valid JSON` },
    { name: "the end of it", write: (mark: string) => mark.slice(10) },
    { name: "base64", write: (mark: string) => Buffer.from(mark).toString("base64") },
    { name: "base64 within a text", write: (mark: string) => Buffer.from(`ab${mark}`).toString("base64") },
    { name: "base64url", write: (mark: string) => Buffer.from(`a${mark}`).toString("base64url") },
    { name: "hexadecimal", write: (mark: string) => Buffer.from(mark).toString("hex") },
    {
      name: "an inspected buffer",
      write: (mark: string) => `<Buffer ${Buffer.from(mark).toString("hex").match(/../gu)!.join(" ")}>`
    },
    { name: "bytes in JSON", write: (mark: string) => JSON.stringify(new Uint8Array(Buffer.from(mark))) },
    { name: "a buffer in JSON", write: (mark: string) => JSON.stringify(Buffer.from(mark)) }
  ])("finds a canary: $name", ({ write }) => {
    const canary = newMark()
    assert.isNotEmpty(leaksIn({ canary }, `so ${write(canary)} it goes`))
    assert.isEmpty(leaksIn({ canary }, `so ${write(newMark())} it goes`))
  })
})

// ---- the world

/** Where secrets are. The API's token is the workbench's own. */
const newMarks = () => ({
  fileContents: newMark(),
  newerFileContents: newMark(),
  tokenInContext: newMark(),
  tokenInSecrets: newMark(),
  brokenToken: newMark(),
  publishSecret: newMark(),
  apiToken: newMark()
})
type Marks = ReturnType<typeof newMarks>

const tokensWith = (token: string) => JSON.stringify({ vault: { token, expirationTimestamp: "2030-01-01T00:00:00Z" } })

const FILE_BYTES = 200_000

/** Files full of a mark, under these paths. */
const filesAt = (mark: string, ...paths: ReadonlyArray<string>) =>
  ScriptedProvider.answer(Object.fromEntries(paths.map((path) => [path, mark.repeat(40)])))

const says =
  (grpcCode: keyof typeof grpc.status): ScriptedProvider.Respond =>
  () =>
    Effect.fail(new ScriptedProvider.ProviderSays({ grpcCode, details: "the vault says no" }))

const STATUS_CODES = [
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED"
] satisfies ReadonlyArray<keyof typeof grpc.status>

const BAD_PATHS = [
  "/absolute",
  "../up",
  "a/../../up",
  "..data",
  "..sneaky/file",
  ".",
  "",
  "a//b",
  "./a",
  "n".repeat(256)
]

const hangs: ScriptedProvider.Respond = () => Effect.never

/** Ways in which a provider spoils a mount. */
const spoiled = ({
  fileContents
}: Marks): ReadonlyArray<{ readonly name: string; readonly respond: ScriptedProvider.Respond }> => [
  ...STATUS_CODES.map((code) => ({ name: code, respond: says(code) })),
  {
    name: "a refusal with files",
    respond: () => Effect.succeed({ ...filesAt(fileContents, "a"), error: { code: "AuthenticationFailed" } })
  },
  {
    name: "files without versions",
    respond: () => Effect.succeed({ ...filesAt(fileContents, "a"), objectVersion: [] })
  },
  ...BAD_PATHS.map((path) => ({
    name: `the path ${path.slice(0, 20)}`,
    respond: () => Effect.succeed(filesAt(fileContents, "good", path))
  })),
  {
    name: "one name for a file and a directory",
    respond: () => Effect.succeed(filesAt(fileContents, "same", "same/below"))
  },
  {
    name: "more than the volume takes",
    respond: () => Effect.succeed(ScriptedProvider.answer({ large: fileContents.padEnd(FILE_BYTES, fileContents) }))
  },
  {
    name: "more than a reply may be",
    respond: () => Effect.succeed(ScriptedProvider.answer({ large: fileContents.padEnd(2 * FILE_BYTES, fileContents) }))
  }
]

const API_FAILURES = [
  { status: 403, reason: "Forbidden" },
  { status: 409, reason: "Conflict" },
  { status: 422, reason: "Invalid" },
  { status: 500, reason: "InternalError" },
  { status: 0, reason: "Network" }
]

/** A provider whose answers are no messages. */
const garbled = (socket: string, bytes: Buffer) =>
  Effect.acquireRelease(
    Effect.callback<grpc.Server>((resume) => {
      const asTheyAre = (message: Buffer) => message
      const server = new grpc.Server()
      server.addService(
        {
          mount: {
            ...{ path: "/v1alpha1.CSIDriverProvider/Mount", requestStream: false, responseStream: false },
            ...{ requestSerialize: asTheyAre, requestDeserialize: asTheyAre },
            ...{ responseSerialize: asTheyAre, responseDeserialize: asTheyAre }
          }
        },
        { mount: (_: unknown, callback: grpc.sendUnaryData<Buffer>) => callback(null, bytes) }
      )
      server.bindAsync(`unix:${socket}`, grpc.ServerCredentials.createInsecure(), (error) =>
        resume(error === null ? Effect.succeed(server) : Effect.die(error))
      )
    }),
    (server) => Effect.sync(() => server.forceShutdown())
  )

/** Every file below, but for the credentials that the workbench itself puts there. */
const filesBelow = (directory: string): string =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.endsWith("/serviceaccount") && entry.name !== "kubeconfig")
    .map((entry) => `${entry.name}\n${readFileSync(join(entry.parentPath, entry.name), "latin1")}`)
    .join("\n")

const isGrpcError = (error: grpc.ServiceError | null): error is grpc.ServiceError => error !== null

/** Calls that the kubelet never makes, with secrets in them. */
const otherCalls = ({ socket }: Workbench, secrets: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const address = `unix:${socket}`
    const credentials = grpc.credentials.createInsecure()
    const [node, controller] = yield* Effect.acquireRelease(
      Effect.sync(() => [new NodeClient(address, credentials), new ControllerClient(address, credentials)] as const),
      (clients) => Effect.sync(() => clients.map((client) => client.close()))
    )
    const stage: NodeStageVolumeRequest = {
      ...{ volumeId: "v", stagingTargetPath: "/somewhere", volumeCapability: undefined },
      ...{ secrets: { ...secrets }, volumeContext: {}, publishContext: {} }
    }
    const create: CreateVolumeRequest = {
      ...{ name: "v", secrets: { ...secrets }, parameters: {}, mutableParameters: {}, volumeCapabilities: [] },
      ...{ capacityRange: undefined, volumeContentSource: undefined, accessibilityRequirements: undefined }
    }
    const noMessage = Buffer.concat([Buffer.from([0x1a, 0x7f]), Buffer.from(secrets["password"]!)])
    const asTheyAre = (message: Buffer) => message
    const raw = Effect.callback<void, CsiCallFailed | string>((resume) => {
      node.makeUnaryRequest("/csi.v1.Node/NodePublishVolume", asTheyAre, asTheyAre, noMessage, (error) =>
        resume(isGrpcError(error) ? Effect.fail(error.details) : Effect.void)
      )
    })
    return {
      stage: call((metadata, settings, answer) => node.nodeStageVolume(stage, metadata, settings, answer), 5_000),
      create: call((metadata, settings, answer) => controller.createVolume(create, metadata, settings, answer), 5_000),
      raw
    }
  })

// ---- the tests

describe.each([
  { format: "text", flags: ["-v=10"] },
  { format: "JSON", flags: ["-v=10", "--log-format-json"] }
])("S5: no secret leaves the driver, with a log in $format", ({ flags }) => {
  it.live.skipIf(!isRoot)(
    "through every failure of provider, payload, file system, API server and caller (needs root)",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const marks = newMarks()
          const { bench, provider } = yield* make({ kubernetesToken: marks.apiToken })
          const { kubelet, kubernetes } = bench
          const port = yield* freePort
          const driver = yield* bench.startDriver({
            flags: [
              ...[
                ...flags,
                `--metrics-addr=127.0.0.1:${port}`,
                "--tmpfs-size=128Ki",
                "--max-call-recv-msg-size=262144"
              ],
              ...["--enable-secret-rotation", "--rotation-poll-interval=1s", "--volume-mount-group"]
            ]
          })
          const said: Array<string> = []
          const kinds = new Set<string>()
          let number = 0
          const volume = (more: Partial<InlineVolume> = {}): InlineVolume =>
            volumeOf(`pod-${number++}`, {
              tokens: tokensWith(marks.tokenInContext),
              secrets: { password: marks.publishSecret },
              ...more
            })
          const tokenInSecrets = {
            password: marks.publishSecret,
            [TOKENS_KEY]: tokensWith(marks.tokenInSecrets)
          }
          const fails = (name: string, act: Effect.Effect<unknown, CsiCallFailed | string>) =>
            Effect.match(act, {
              onSuccess: () => assert.fail(`${name} did not fail`),
              onFailure: (failure) => {
                said.push(typeof failure === "string" ? failure : failure.message)
                kinds.add(typeof failure === "string" ? "" : failure.grpcCode)
              }
            })
          const good: ScriptedProvider.Respond = () => Effect.succeed(filesAt(marks.fileContents, "a", "b/c"))

          // First mounts that the provider spoils; the token is where it was, and where it is from Kubernetes 1.35 on.
          for (const { name, respond } of spoiled(marks)) {
            provider.respond(respond)
            // A mount waits for a provider that throttles as long as its caller does.
            const within = name === "RESOURCE_EXHAUSTED" ? 3_000 : 60_000
            yield* fails(name, kubelet.publish(volume(number % 2 === 0 ? {} : { secrets: tokenInSecrets }), within))
          }
          provider.respond(hangs)
          yield* fails("a deadline", kubelet.publish(volume(), 300))
          const cancelled = yield* Effect.forkChild(kubelet.publish(volume({ secrets: tokenInSecrets })))
          yield* eventually(provider.active, (active) => active === 1)
          yield* Fiber.interrupt(cancelled)
          yield* eventually(provider.active, (active) => active === 0)
          yield* Effect.scoped(
            Effect.gen(function* () {
              const bytes = Buffer.concat([Buffer.from([0x1a, 0x7f]), Buffer.from(marks.fileContents)])
              yield* garbled(join(bench.providersDirectory, "garbled.sock"), bytes)
              yield* bench.putClass("default", "garbled", "garbled", { objects: "all" })
              yield* fails("no message", kubelet.publish(volume({ secretProviderClass: "garbled" })))
            })
          )

          // Requests that are refused, and tokens that are none.
          provider.respond(good)
          yield* bench.putClass("default", "absent", "absent", { objects: "all" })
          yield* fails("no provider", kubelet.publish(volume({ secretProviderClass: "absent" }), 300))
          yield* fails("no class", kubelet.publish(volume({ secretProviderClass: "nowhere" })))
          yield* fails("writable", kubelet.publish(volume({ readonly: false })))
          yield* fails("no number", kubelet.publish(volume({ volumeMountGroup: "staff" })))
          yield* kubelet.publish(volume({ tokens: marks.brokenToken, secrets: { [TOKENS_KEY]: marks.brokenToken } }))
          const { create, raw, stage } = yield* otherCalls(bench, tokenInSecrets)
          for (const [name, act] of Object.entries({ stage, create, raw })) yield* fails(name, act)

          // An API server that does not do what it should.
          const failing = (failure: (typeof API_FAILURES)[number], resource: string, act: Effect.Effect<unknown>) =>
            Effect.gen(function* () {
              let isBroken = true
              const matches = (request: { readonly resource: string }) =>
                isBroken && request.resource.startsWith(resource)
              for (let times = 0; times < 30; times++) yield* kubernetes.failNext(matches, failure, { applied: false })
              yield* act
              isBroken = false
            })
          for (const failure of API_FAILURES) {
            const { reason } = failure
            yield* failing(failure, POD_STATUSES, fails(`pod status: ${reason}`, kubelet.publish(volume(), 5_000)))
            const elsewhere = volume({ podNamespace: `namespace-${failure.status}` })
            yield* failing(
              failure,
              "secretproviderclasses",
              fails(`class: ${reason}`, kubelet.publish(elsewhere, 3_000))
            )
          }

          // Republishes that fail are answered OK, and told in other places.
          const running = volume()
          const target = yield* kubelet.publish(running)
          // A volume is due again a second after whatever came of it.
          const refresh = Effect.suspend(() => {
            const before = provider.asked.length
            const republish = Effect.map(Effect.orDie(kubelet.publish(running)), () => provider.asked.length)
            return eventually(republish, (asked) => asked > before)
          })
          for (const { respond } of spoiled(marks).filter(({ name }) => name !== "UNAVAILABLE")) {
            provider.respond(respond)
            yield* refresh
          }
          provider.respond(() => Effect.succeed(filesAt(marks.newerFileContents, "a", "b/c", "d")))
          for (const failure of API_FAILURES) {
            yield* failing(failure, POD_STATUSES, Effect.orDie(refresh))
          }
          yield* refresh
          assert.include(readFileSync(join(target, "d"), "utf8"), marks.newerFileContents)
          const held = openSync(join(target, "d"), "r")
          yield* Effect.exit(kubelet.unpublish(running))
          closeSync(held)
          for (let index = 0; index < number; index++) yield* kubelet.unpublish(volumeOf(`pod-${index}`))

          // It was all there: what is not found below was not simply never sent.
          const asked = provider.asked.map((it) => `${it.attributes}${it.secrets}`).join("\n")
          for (const secret of ["tokenInContext", "tokenInSecrets", "brokenToken", "publishSecret"] as const) {
            assert.include(asked, marks[secret], secret)
          }
          for (const code of [...STATUS_CODES, "INTERNAL"]) assert.isTrue(kinds.has(code), code)
          const events = yield* Effect.repeat(kubernetes.all("events"), {
            until: (all) => all.length > 5,
            schedule: undefined
          }).pipe(Effect.timeout("5 seconds"))
          const { body } = yield* get(`http://127.0.0.1:${port}/metrics`)
          assert.include(body, "node_publish_error_total")
          yield* driver.kill("SIGTERM")
          assert.strictEqual(yield* driver.exited, 0)
          const output = driver.output()
          assert.include(output, "***stripped***")
          assert.isBelow(output.length, 3_900_000, "the beginning of the output is lost")

          tell(`${said.length} calls failed; ${events.length} events and ${output.length} characters of log searched`)
          const told = {
            output,
            events: JSON.stringify(events),
            podStatuses: JSON.stringify(yield* kubernetes.all(POD_STATUSES)),
            metrics: body,
            answers: said.join("\n"),
            disk: filesBelow(bench.directory)
          }
          for (const [place, text] of Object.entries(told)) {
            assert.deepStrictEqual(leaksIn(marks, text), [], place)
          }
        })
      ),
    { timeout: 120_000 }
  )
})

/** Credentials that something is wrong with; every one has the mark in it. */
const KUBECONFIGS: ReadonlyArray<{ readonly name: string; readonly text: (mark: string) => string }> = [
  { name: "broken YAML around a token", text: (mark) => `users:\n- name: a\n  user: {token: ${mark}\n clusters: [` },
  { name: "a token in place of a file", text: (mark) => mark },
  { name: "a token that is no header", text: (mark) => kubeconfigWith({ token: `${mark}\u0001` }) },
  { name: "a wrong token", text: (mark) => kubeconfigWith({ token: mark }) },
  { name: "a password", text: (mark) => kubeconfigWith({ username: "me", password: mark }) },
  {
    name: "a key that is none",
    text: (mark) => {
      const data = Buffer.from(mark).toString("base64")
      return kubeconfigWith({ "client-certificate-data": data, "client-key-data": data }, "https://127.0.0.1:1")
    }
  },
  { name: "a password in an address", text: (mark) => kubeconfigWith({}, `https://me:${mark}@127.0.0.1:1`) },
  {
    name: "a plugin that fails",
    text: (mark) =>
      kubeconfigWith({
        exec: {
          apiVersion: "client.authentication.k8s.io/v1",
          command: "sh",
          args: ["-c", `echo '{"status":{"token":"${mark}"}'; exit 1`]
        }
      })
  }
]

const HERE = "the workbench"
const kubeconfigWith = (user: Readonly<Record<string, unknown>>, server = HERE) =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "c",
    clusters: [{ name: "c", cluster: { server } }],
    users: [{ name: "u", user }],
    contexts: [{ name: "c", context: { cluster: "c", user: "u" } }]
  })

it.live.each(KUBECONFIGS)("S5: no credential leaves a driver that starts with $name", ({ text }) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { bench } = yield* make({ credentials: "kubeconfig" })
      const mark = newMark()
      const kubeconfig = join(bench.directory, "kubeconfig")
      writeFileSync(kubeconfig, text(mark).replaceAll(HERE, bench.kubernetesUrl))
      const attempt = Effect.gen(function* () {
        const driver = yield* bench.startDriver({ flags: ["-v=10"] })
        const failure = yield* Effect.flip(bench.kubelet.publish(volumeOf("web"), 3_000))
        return `${failure.message}\n${driver.output()}`
      })
      // It does not start, and says so, or no volume is published.
      const told = yield* Effect.catchTag(attempt, "DriverDied", ({ message }) => Effect.succeed(message))
      assert.isNotEmpty(told)
      assert.deepStrictEqual(leaksIn({ mark }, told), [])
    })
  )
)
