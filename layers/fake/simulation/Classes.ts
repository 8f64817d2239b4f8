/**
 * The SecretProviderClasses of a simulated world, and their objects.
 */
import * as Backend from "./Backend.ts"
import type { Chance } from "./Chance.ts"
import { type SimulatedClass, secretNameOf, sourceOf } from "./Volume.ts"

export const PROVIDERS = ["vault", "azure"]
/** Some pods of these names and classes would have one pod status, if names alone decided. */
export const NAMESPACES = ["x", "other"]
const CLASS_NAMES = ["y", "x-y", "z"]

const drawClass = (chance: Chance, namespace: string, name: string, oddRate: number): SimulatedClass => {
  const writesItself = chance.happens(oddRate)
  const isOdd = chance.happens(oddRate)
  return {
    namespace,
    name,
    provider: chance.oneOf(PROVIDERS),
    filesMax: chance.below(7),
    namesChange: chance.happens(0.5),
    flips: chance.happens(0.3),
    shrinks: chance.happens(oddRate),
    isOdd,
    versions: chance.happens(2 * oddRate) ? chance.oneOf(["constant", "empty"]) : "generation",
    writesItself,
    // Nobody can read several files at one instant while another process writes them in place, and not every name of a
    // file is a key of a Secret.
    isSynced: !writesItself && !isOdd && chance.happens(0.6),
    generation: 1,
    askedMillis: Number.NEGATIVE_INFINITY
  }
}

/** @shape (chance, share of classes whose content has something unusual about it) -> classes by "namespace/name" */
export const drawClasses = (chance: Chance, oddRate: number): ReadonlyMap<string, SimulatedClass> =>
  new Map(
    NAMESPACES.flatMap((namespace) =>
      CLASS_NAMES.map((name): readonly [string, SimulatedClass] => [
        sourceOf({ namespace, name }),
        drawClass(chance, namespace, name, oddRate)
      ])
    )
  )

export const classPath = (namespace: string) =>
  `/apis/secrets-store.csi.x-k8s.io/v1/namespaces/${namespace}/secretproviderclasses`

/** What is wrong with a class, as after a slip in an editor. */
export const FLAWS = ["parameters", "provider", "name of a provider", "secretObjects"] as const
export type Flaw = (typeof FLAWS)[number]

const secretObjectsOf = (it: SimulatedClass, flaw: Flaw | undefined) => {
  if (!it.isSynced) return {}
  const wrong = flaw === "secretObjects" ? { data: [{ objectName: "in/no/volume", key: "key" }] } : {}
  return { secretObjects: [{ secretName: secretNameOf(it), type: "Opaque", ...wrong }] }
}

/** @shape (class, what is wrong with it, if anything) -> the object */
export const classObject = (it: SimulatedClass, flaw?: Flaw) => ({
  apiVersion: "secrets-store.csi.x-k8s.io/v1",
  kind: "SecretProviderClass",
  metadata: {
    name: it.name,
    namespace: it.namespace,
    annotations: { "secrets-store.csi.k8s.io/sync-all-files": "true" }
  },
  spec: {
    provider: flaw === "provider" ? "nobody" : flaw === "name of a provider" ? "no/provider" : it.provider,
    ...(flaw === "parameters" ? {} : { parameters: { [Backend.SOURCE]: sourceOf(it) } }),
    ...secretObjectsOf(it, flaw)
  }
})

/** Where a class's story is told. */
export const classLane = (it: SimulatedClass): string => `class ${sourceOf(it)}`
