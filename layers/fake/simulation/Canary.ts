/**
 * A node whose driver gets an answer out of an old cache, but only where two faults meet: it has been started again,
 * and since then its provider has failed. Whoever runs simulations has to find this; a quiet canary is an alarm.
 */
import { Effect } from "effect"
import type { MountResponse } from "../../../schemas/Provider.ts"
import { type Plant, run } from "../NodeSimulation.ts"
import type { Scenario } from "./Scenario.ts"

const planted = (): Plant => {
  const first = new Map<string, MountResponse>()
  let lives = 0
  return (ports) => {
    lives += 1
    let hasFailed = false
    return {
      ...ports,
      providers: {
        ...ports.providers,
        mount: (provider, request) =>
          ports.providers.mount(provider, request).pipe(
            Effect.tapError(() =>
              Effect.sync(() => {
                hasFailed = true
              })
            ),
            Effect.map((answer) => {
              const known = first.get(request.targetPath)
              if (known === undefined) first.set(request.targetPath, answer)
              return known !== undefined && lives > 1 && hasFailed ? known : answer
            })
          )
      }
    }
  }
}

export const scenario: Scenario = {
  name: "canary",
  description: "the node with a planted mistake, which a restart and a failing provider together bring out",
  run: (options) => run({ ...options, plant: planted() })
}
