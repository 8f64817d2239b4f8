import { cutEverywhere, REMOVALS } from "../support/OperatorCuts.ts"

cutEverywhere(REMOVALS)
