/**
 * The Kubernetes API of a leader: reads pass, writes pass while the term lasts.
 *
 * The API server does not know who leads, so a process that was paused in the middle of its work would write over what
 * its successor has done. Every write asks the clock in the step in which it is sent, and is given up before another
 * candidate can hold the Lease. What is given up may have taken effect or not.
 */
import { Cause, Effect, Exit, Option } from "effect"
import { KubernetesApiFailed } from "../../schemas/errors/KubernetesApiFailed.ts"
import { KubernetesApi, type KubernetesRequest } from "../ports/KubernetesApi.ts"
import type { Term } from "./Term.ts"

const failed = ({ method, path }: KubernetesRequest, reason: string, detail: string) =>
  new KubernetesApiFailed({ method, path, status: 0, reason, detail })

type Answer = Effect.Effect<unknown, KubernetesApiFailed>

const isAnswered = (exit: Exit.Exit<unknown, KubernetesApiFailed>): boolean =>
  Exit.isSuccess(exit) ||
  Option.match(Cause.findErrorOption(exit.cause), { onNone: () => false, onSome: ({ status }) => status !== 0 })

/**
 * @shape  (api, term) -> the same API for as long as the term is held
 * @errors KubernetesApiFailed, status 0: "NotLeader" when nothing was sent and nothing will be, "Timeout" when a write
 *         was given up at the end of the Lease
 * @source reference/operator.md 1.6
 */
export const fence = (
  api: KubernetesApi["Service"],
  term: Pick<Term, "isHeld" | "writeMillisLeft" | "writeBegan" | "writeEnded">
): KubernetesApi["Service"] =>
  KubernetesApi.of({
    watch: api.watch,
    request: (request) => {
      if (request.method === "GET") return api.request(request)
      const underWay = (write: Answer): Answer => {
        term.writeBegan()
        return Effect.onExit(write, (exit) => Effect.sync(() => term.writeEnded(isAnswered(exit))))
      }
      const sent = Effect.suspend(() =>
        term.isHeld()
          ? underWay(api.request(request))
          : Effect.fail(failed(request, "NotLeader", "not written: this process does not hold the lease any more"))
      )
      const givenUp = Effect.suspend(() =>
        Effect.delay(
          Effect.fail(failed(request, "Timeout", "given up at the end of the lease; it may have taken effect")),
          term.writeMillisLeft()
        )
      )
      return Effect.raceFirst(sent, givenUp)
    }
  })
