/**
 * The node driver's entry point.
 */
import * as LinuxMounter from "../../layers/real/LinuxMounter.ts"
import { launch } from "./launch.ts"

launch(process.argv.slice(2), LinuxMounter.layer)
