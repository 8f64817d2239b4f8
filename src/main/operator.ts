/**
 * The operator's entry point.
 */
import { launchOperator } from "./launchOperator.ts"

launchOperator(process.argv.slice(2))
