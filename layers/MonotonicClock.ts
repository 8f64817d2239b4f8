/**
 * Time for those who measure how long something takes. `Stream.timeoutOrElse` reckons with the time of day, and a stream
 * that says nothing would be waited for as many hours as the clock of the node is set back meanwhile.
 */
import { type Clock, Effect } from "effect"

/** @shape (clock) -> one that tells monotonic time, whose zero means nothing, as the time of day */
export const monotonic = (clock: Clock.Clock): Clock.Clock => {
  const millis = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    currentTimeNanos: clock.monotonicTimeNanos,
    monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: clock.monotonicTimeNanos,
    sleep: (duration) => clock.sleep(duration)
  }
}
