/**
 * Every promise that some scenario checks, by its id in the project's list of invariants, and those of the list that
 * none checks, with the reason. The ids that begin with Q or D are defects of others that must not come back.
 */
import * as ClusterInvariants from "./ClusterInvariants.ts"
import * as Invariants from "./Invariants.ts"
import * as OperatorInvariants from "./OperatorInvariants.ts"
import * as VersionInvariants from "./VersionInvariants.ts"

export interface PromiseName {
  readonly id: string
  readonly name: string
}

const isPromise = (value: unknown): value is PromiseName =>
  typeof value === "object" && value !== null && "broken" in value && "id" in value && "name" in value

export const PROMISES: ReadonlyArray<PromiseName> = [
  Invariants,
  VersionInvariants,
  ClusterInvariants,
  OperatorInvariants
].flatMap((module) => Object.values(module).filter(isPromise))

/** @shape (promise) -> how often a run has checked it is counted under this name */
export const figureOf = ({ id, name }: PromiseName): string => `check ${id} ${name}`
