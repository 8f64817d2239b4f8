/**
 * Lets calls through to providers, each when its turn has come: so many at a time, so many a second, and one after the
 * other while a provider says that it is asked too much. Who comes first is decided in Budget.
 *
 * Whoever waits may be interrupted, and is then out of the queue. A call that ends gives its place back, however it
 * ends.
 */
import { Clock, Context, Deferred, Effect, FiberSet, Layer, Queue, Random } from "effect"
import { ProviderBusy } from "../../schemas/errors/ProviderFailed.ts"
import * as Budget from "./Budget.ts"
import { Settings } from "./Settings.ts"

/** Of the monotonic clock: what is waited for here is over in time, whatever the node's clock is set to meanwhile. */
const monotonicMillis = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

/** What is asked for, and for whom. */
export interface Turn {
  readonly provider: string
  readonly kind: Budget.Kind
  /** "namespace/name" of the class. */
  readonly className: string
  /** How long the turn is waited for; Infinity is for ever. */
  readonly waitMillis: number
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Says what a call has shown of its provider; said more than once, the last word counts. Unsaid, none was made. */
export type Tell = (outcome: Budget.Outcome, words?: string) => void

interface Waiting extends Budget.Waiter {
  /** Done with the epoch in which the call begins. */
  readonly admitted: Deferred.Deferred<number>
}

/** What is known of one provider. Those that were never called have none. */
interface Gate {
  state: Budget.State
  readonly waiting: Array<Waiting>
  /** The last words of a provider that throttles. */
  words: string | undefined
  /** Rung when somebody may go at a later time than was known. */
  readonly bell: Queue.Queue<void>
}

export class ProviderBudget extends Context.Service<
  ProviderBudget,
  {
    /**
     * Runs a call when its turn has come; it tells what the call has shown. Its place is its own until it ends.
     *
     * @errors ProviderBusy when the turn has not come in time, and those of the call
     */
    readonly run: <A, E, R>(
      turn: Turn,
      call: (tell: Tell) => Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | ProviderBusy, R>
    /** The words of a provider that says at present that it is asked too much, undefined while it does not. */
    readonly throttledBy: (provider: string) => string | undefined
  }
>()("secrets-store/volume/ProviderBudget") {
  static readonly layer = Layer.effect(
    ProviderBudget,
    Effect.gen(function* () {
      const { providerMountsMax, providerRefreshesMax, providerRefreshesPerSecond } = yield* Settings
      const limits: Budget.Limits = {
        mountsMax: providerMountsMax,
        refreshesMax: providerRefreshesMax,
        refreshesPerSecond: providerRefreshesPerSecond
      }
      const gates = new Map<string, Gate>()
      const fibers = yield* FiberSet.make<never, never>()

      /** Lets through whoever may go now; answers when the next one may, Infinity when nobody knows. */
      const admit = (gate: Gate, nowMillis: number): number => {
        while (true) {
          const decision = Budget.decide(gate.state, gate.waiting, limits, nowMillis)
          if (decision._tag === "Idle") return Number.POSITIVE_INFINITY
          if (decision._tag === "Wait") return decision.untilMillis
          for (const next of gate.waiting.splice(decision.index, 1)) {
            const { epoch } = gate.state
            gate.state = Budget.begun(gate.state, next.kind, limits, nowMillis)
            Deferred.doneUnsafe(next.admitted, Effect.succeed(epoch))
          }
        }
      }
      const pump = (gate: Gate) =>
        Effect.map(monotonicMillis, (now) => {
          if (Number.isFinite(admit(gate, now))) Queue.offerUnsafe(gate.bell, undefined)
        })

      /** Comes back when time alone lets somebody through. */
      const watch = (gate: Gate) =>
        Effect.forever(
          Effect.flatMap(monotonicMillis, (now) => {
            const until = admit(gate, now)
            const rung = Queue.take(gate.bell)
            return Number.isFinite(until) ? Effect.asVoid(Effect.timeoutOption(rung, Math.max(1, until - now))) : rung
          })
        )

      const gateOf = Effect.fnUntraced(function* (provider: string) {
        const known = gates.get(provider)
        if (known !== undefined) return known
        const bell = yield* Queue.sliding<void>(1)
        const state = Budget.initial(limits, yield* monotonicMillis)
        const gate: Gate = gates.get(provider) ?? { state, waiting: [], words: undefined, bell }
        if (!gates.has(provider)) {
          gates.set(provider, gate)
          yield* FiberSet.run(fibers, watch(gate))
        }
        return gate
      })

      const end = Effect.fnUntraced(function* (
        gate: Gate,
        { className, kind }: Turn,
        epoch: number,
        outcome: Budget.Outcome | undefined
      ) {
        const now = { nowMillis: yield* monotonicMillis, random: yield* Random.next }
        gate.state = Budget.ended(gate.state, { kind, epoch })
        // A turn that was not used has shown nothing: the next one may try at once.
        if (outcome !== undefined) {
          gate.state = Budget.answered(gate.state, { epoch, className }, outcome, limits, now)
        }
        yield* pump(gate)
      })

      const leave = (gate: Gate, waiting: Waiting, turn: Turn) =>
        Effect.suspend(() => {
          const index = gate.waiting.indexOf(waiting)
          if (index >= 0) {
            gate.waiting.splice(index, 1)
            return pump(gate)
          }
          // Its turn came in the very moment in which it gave up.
          return Effect.flatMap(Deferred.await(waiting.admitted), (epoch) => end(gate, turn, epoch, undefined))
        })

      const busy = (gate: Gate, { provider, waitMillis }: Turn) =>
        Effect.suspend(() =>
          Effect.fail(new ProviderBusy({ provider, waitedMillis: waitMillis, throttledBy: gate.words }))
        )

      /** Waits for a turn; `restore` lets interruptions in while it waits, and nowhere else. */
      const enter = Effect.fnUntraced(function* (gate: Gate, turn: Turn, restore: Restore) {
        const { className, kind, waitMillis } = turn
        const waiting: Waiting = { kind, className, admitted: Deferred.makeUnsafe() }
        gate.waiting.push(waiting)
        yield* pump(gate)
        const admitted = Deferred.await(waiting.admitted)
        const inTime = Number.isFinite(waitMillis)
          ? Effect.timeoutOrElse(admitted, { duration: waitMillis, orElse: () => busy(gate, turn) })
          : admitted
        return yield* Effect.onError(restore(inTime), () => leave(gate, waiting, turn))
      })

      return ProviderBudget.of({
        run: (turn, call) =>
          Effect.uninterruptibleMask((restore) =>
            Effect.gen(function* () {
              const gate = yield* gateOf(turn.provider)
              let outcome: Budget.Outcome | undefined
              const tell: Tell = (told, words) => {
                outcome = told
                if (told._tag === "Throttled") gate.words = words
              }
              const epoch = yield* enter(gate, turn, restore)
              return yield* Effect.ensuring(
                restore(call(tell)),
                Effect.suspend(() => end(gate, turn, epoch, outcome))
              )
            })
          ),
        throttledBy: (provider) => {
          const gate = gates.get(provider)
          return gate?.state.throttle === undefined ? undefined : (gate.words ?? "")
        }
      })
    })
  )
}
