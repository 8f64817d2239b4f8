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

/** @shape (class, isUsable) -> the object; an unusable one has no parameters, as after a slip in an editor */
export const classObject = (it: SimulatedClass, isUsable: boolean) => ({
  apiVersion: "secrets-store.csi.x-k8s.io/v1",
  kind: "SecretProviderClass",
  metadata: {
    name: it.name,
    namespace: it.namespace,
    annotations: { "secrets-store.csi.k8s.io/sync-all-files": "true" }
  },
  spec: {
    provider: it.provider,
    ...(isUsable ? { parameters: { [Backend.SOURCE]: sourceOf(it) } } : {}),
    ...(it.isSynced ? { secretObjects: [{ secretName: secretNameOf(it), type: "Opaque" }] } : {})
  }
})

/** Where a class's story is told. */
export const classLane = (it: SimulatedClass): string => `class ${sourceOf(it)}`
