/**
 * One term of office: how long, by our own monotonic clock, what was promised to us by a Lease may be relied on.
 *
 * Counted from the moment a renewal was sent, not answered: another candidate cannot have seen it earlier, so it waits
 * at least until `leaseMillis` after that. A term that is over never begins again, however well a late renewal went.
 */

/** @units milliseconds; renewMillis < leaseMillis, and several times retryMillis */
export interface Timings {
  /** Another candidate waits this long after it last saw a renewal. */
  readonly leaseMillis: number
  /** The holder gives up when no renewal has succeeded for so long. */
  readonly renewMillis: number
  /** Between two renewals, and between two looks at the Lease of another. */
  readonly retryMillis: number
}

export interface Term {
  readonly isHeld: () => boolean
  /** Until the term is over, if it is not renewed; 0 when it is. */
  readonly millisLeft: () => number
  /** Until a write that is under way must have been given up; 0 when it must be now. */
  readonly writeMillisLeft: () => number
  /** @shape (when it was sent) -> whether the term goes on */
  readonly renewed: (sentAtMillis: number) => boolean
  readonly end: () => void
  readonly writeBegan: () => void
  /** Without an answer, it may take effect later. */
  readonly writeEnded: (isAnswered: boolean) => void
  /** False while a write is under way, or one without an answer may take effect: a Lease that is released now would let another begin. */
  readonly isQuiet: () => boolean
}

/**
 * Between the end of the term and the end of the Lease, writes that were sent in time may still arrive. They are given
 * up a little before its end, and the rest is for what is on its way then.
 */
const IN_FLIGHT_SHARE = 1 / 6

/**
 * @shape  (timings, monotonic clock, when the acquisition was sent) -> a term that is held
 * @units  milliseconds
 * @errors none
 * @source reference/operator.md 1.6
 */
export const begin = (
  { leaseMillis, renewMillis }: Timings,
  nowMillis: () => number,
  acquisitionSentAtMillis: number
): Term => {
  const graceMillis = leaseMillis - renewMillis
  let sentAtMillis = acquisitionSentAtMillis
  let isOver = false
  let underWay = 0
  let unansweredAtMillis = Number.NEGATIVE_INFINITY

  const millisLeft = (): number => {
    const left = sentAtMillis + renewMillis - nowMillis()
    // Whoever asks first ends it, also before the one that watches the time was woken.
    if (left <= 0) isOver = true
    return isOver ? 0 : left
  }
  const isHeld = () => millisLeft() > 0
  return {
    isHeld,
    millisLeft,
    writeMillisLeft: () => Math.max(0, sentAtMillis + leaseMillis - graceMillis * IN_FLIGHT_SHARE - nowMillis()),
    renewed: (millis) => {
      if (!isHeld()) return false
      sentAtMillis = Math.max(sentAtMillis, millis)
      return isHeld()
    },
    end: () => {
      isOver = true
    },
    writeBegan: () => {
      underWay += 1
    },
    writeEnded: (isAnswered) => {
      underWay -= 1
      if (!isAnswered) unansweredAtMillis = nowMillis()
    },
    isQuiet: () => underWay === 0 && nowMillis() - unansweredAtMillis >= graceMillis
  }
}
