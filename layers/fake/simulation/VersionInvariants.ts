/**
 * What must be true of volumes that several releases of the driver have in their care, one after the other.
 */
import type { Invariant } from "./Invariants.ts"
import type { SimulatedVolume } from "./Volume.ts"

const invariant = <Observed>(
  id: string,
  name: string,
  broken: (observed: Observed) => string | undefined
): Invariant<Observed> => ({ id, name, broken })

/** S19: a running container has the mount that was there when it started, and never sees another one. */
export const publishedIsNotMountedAnew = invariant(
  "S19",
  "publishedIsNotMountedAnew",
  ({ mountsMade, volume }: { readonly volume: SimulatedVolume; readonly mountsMade: number }) =>
    mountsMade === volume.mountsMade
      ? undefined
      : `${volume.targetPath} is published, and was mounted ${mountsMade - volume.mountsMade} times since`
)

/** A target path, by name: where a link leads, or what else it is. */
export type Layout = ReadonlyMap<string, { readonly link: string | undefined }>

const GENERATION = /^\.\.\d{4}(?:_\d{2}){5}\.\d+$/u

/**
 * S19: after a downgrade a volume has to be read and refreshed by upstream's release, which follows `..data`, leaves
 * links alone that are there, and cannot write at all while there is a `..data_tmp`. What a provider has written itself
 * it leaves to that provider, as we do.
 *
 * @source reference/driver.md 4.1, 4.3, 4.5
 */
export const upstreamCanRefresh = invariant(
  "S19",
  "upstreamCanRefresh",
  ({ layout, volume }: { readonly volume: SimulatedVolume; readonly layout: Layout }) => {
    if (volume.class.writesItself) return undefined
    const wrong: Array<string> = []
    const data = layout.get("..data")?.link
    if (data === undefined || !GENERATION.test(data) || !layout.has(data)) wrong.push(`..data leads to ${data}`)
    if (layout.has("..data_tmp")) wrong.push("..data_tmp is there")
    for (const [name, { link }] of layout) {
      if (!name.startsWith("..") && link !== `..data/${name}`) wrong.push(`${name} leads to ${link}`)
    }
    return wrong.length > 0 ? `${volume.targetPath}: ${wrong.join(", ")}` : undefined
  }
)
