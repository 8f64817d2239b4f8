/**
 * The node driver for a demo without root: everything as in driver.ts, but plain directories in place of tmpfs. It is
 * not bundled and not shipped.
 */
import * as PlainMounter from "../../layers/development/PlainMounter.ts"
import { launch } from "./launch.ts"

launch(process.argv.slice(2), PlainMounter.layer)
