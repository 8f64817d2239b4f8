import { CHANGES, cutEverywhere } from "../support/OperatorCuts.ts"

cutEverywhere(CHANGES)
