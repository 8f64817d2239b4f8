/**
 * What a step of the demo is, and what several of them do: look at the stage, and change its secrets.
 */
import { writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { Effect, Redacted, Schedule } from "effect"
import type { InlineVolume } from "../../../layers/development/Kubelet.ts"
import { KubernetesApi } from "../../ports/KubernetesApi.ts"
import * as Resource from "../../reconciler/Resource.ts"
import { same } from "./Check.ts"
import * as Files from "./Files.ts"
import { NAMESPACE, SECRET, SECRETS, type Stage } from "./Stage.ts"

interface StepFailure {
  readonly _tag: string
  readonly message: string
}

export interface Step {
  readonly title: string
  readonly run: (stage: Stage) => Effect.Effect<ReadonlyArray<string>, StepFailure>
}

/** For what happens soon, but not at once. */
export const soon = Schedule.max([Schedule.spaced("50 millis"), Schedule.recurs(60)])
/** For what is timed. */
export const often = Schedule.max([Schedule.spaced("10 millis"), Schedule.recurs(300)])

/** The secrets after each change of the password. */
export const ROTATED = { ...SECRETS, password: "Tr0ub4dor&3" }
export const REVOKED = { ...SECRETS, password: "made after a leak" }
export const SWITCHED = { ...SECRETS, password: "younger than before" }

/** Those that no log and no page may show, among what it shows. */
export const passwordsIn = (text: string): ReadonlyArray<string> =>
  [SECRETS, ROTATED, REVOKED, SWITCHED].map(({ password }) => password).filter((password) => text.includes(password))

export const onKubernetes = <A, E>(stage: Stage, request: Effect.Effect<A, E, KubernetesApi>): Effect.Effect<A, E> =>
  Effect.provideService(request, KubernetesApi, stage.api)

export const contentsOf = (files: ReadonlyArray<Files.SeenFile>): Readonly<Record<string, string>> =>
  Object.fromEntries(files.map(({ content, name }) => [name, content]))

export const showFiles = (files: ReadonlyArray<Files.SeenFile>): ReadonlyArray<string> =>
  files.map(({ content, link, mode, name }) => `${mode}  ${name} -> ${link ?? "(a file)"}: ${JSON.stringify(content)}`)

/** Everything that could be left of a volume on this node. */
export const leftOf = (stage: Stage, volume: InlineVolume) => {
  const target = stage.kubelet.targetPath(volume)
  return { mounts: Files.mountLines(target), directory: Files.below(dirname(target)) }
}
export const nothing = { mounts: [], directory: [] }

/** The password of the Kubernetes Secret, and who owns it. */
export const readSecret = (stage: Stage) =>
  Effect.map(onKubernetes(stage, Resource.get(Resource.secrets, NAMESPACE, SECRET)), ({ data = {}, metadata }) => ({
    password: Buffer.from(Redacted.value(data["password"] ?? Redacted.make("")), "base64").toString(),
    owners: (metadata.ownerReferences ?? []).map(({ kind, name }) => `${kind} ${name}`)
  }))

export const changePassword = (stage: Stage, { password }: typeof ROTATED) =>
  Effect.sync(() => writeFileSync(join(stage.secretsDirectory, "password"), password))

/** It is written a moment after the files. */
export const secretBecomes = (stage: Stage, password: string) =>
  readSecret(stage).pipe(
    Effect.flatMap((found) => Effect.as(same(`password in Secret ${SECRET}`, found.password, password), found)),
    Effect.retry(soon)
  )
