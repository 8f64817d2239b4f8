/**
 * Our images on a real node, one scenario after the other: what one leaves is where the next begins. Run by
 * scripts/cluster.mjs, inside the node's namespaces.
 */
import { afterAll } from "@effect/vitest"
import { reported } from "./support/Report.ts"

await import("./scenarios/images.ts")
await import("./scenarios/install.ts")
await import("./scenarios/volumes.ts")
// Before there is an audience of ours: from then on they are managed for ever.
await import("./scenarios/specs.ts")
await import("./scenarios/tokens.ts")
await import("./scenarios/rotation.ts")
await import("./scenarios/sync.ts")
await import("./scenarios/disturbances.ts")
await import("./scenarios/load.ts")
await import("./scenarios/operand.ts")
await import("./scenarios/removal.ts")
await import("./scenarios/audit.ts")

afterAll(() => console.log(`\nMeasured:\n${reported()}\n`))
