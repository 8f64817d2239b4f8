import { cutEverywhere, INSTALLATIONS } from "../support/OperatorCuts.ts"

cutEverywhere(INSTALLATIONS)
