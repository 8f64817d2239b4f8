/**
 * `spec.operatorLogLevel` as a verbosity.
 *
 * @source reference/operator.md 3.2
 */

/** By the name that the API has for it, least first. */
const VERBOSITY: ReadonlyMap<string, number> = new Map([
  ["Normal", 2],
  ["Debug", 4],
  ["Trace", 6],
  ["TraceAll", 8]
])
const NORMAL = "Normal"

/** @shape (verbosity) -> the name of the level it amounts to; undefined below Normal, for which there is none */
export const levelOf = (verbosity: number): string | undefined =>
  [...VERBOSITY].findLast(([, least]) => verbosity >= least)?.[0]

interface LogLevelEvent {
  readonly type: "Normal" | "Warning"
  readonly reason: "OperatorLogLevelInvalid" | "OperatorLogLevelChange"
  readonly message: string
}

export interface LogLevelDecision {
  /** Undefined when nothing is to be changed. */
  readonly verbosity: number | undefined
  readonly events: ReadonlyArray<LogLevelEvent>
}

/**
 * Decides what becomes of the operator's own verbosity. What `-v` said lasts until here.
 *
 * @shape  (spec.operatorLogLevel, the verbosity now) -> LogLevelDecision
 * @errors none: a level that does not exist is Normal, and is told
 * @source reference/operator.md 3.2
 */
export const decideLogLevel = (operatorLogLevel: string | undefined, now: number): LogLevelDecision => {
  const asked = operatorLogLevel ?? ""
  const isKnown = asked === "" || VERBOSITY.has(asked)
  const desired = isKnown && asked !== "" ? asked : NORMAL
  const events: Array<LogLevelEvent> = isKnown
    ? []
    : [
        {
          type: "Warning",
          reason: "OperatorLogLevelInvalid",
          message: `Invalid logLevel ${JSON.stringify(asked)}, falling back to ${JSON.stringify(NORMAL)}`
        }
      ]
  const current = levelOf(now)
  if (current === desired) return { verbosity: undefined, events }
  if (current !== undefined) {
    events.push({
      type: "Normal",
      reason: "OperatorLogLevelChange",
      message: `Operator log level changed from ${JSON.stringify(current)} to ${JSON.stringify(desired)}`
    })
  }
  return { verbosity: VERBOSITY.get(desired), events }
}
