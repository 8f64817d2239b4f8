/**
 * Whether the driver serves, for `/readyz`: the socket is open and, if it registers itself, the kubelet took it.
 */
import { Context, Layer } from "effect"

export class Health extends Context.Service<
  Health,
  {
    readonly setServing: (serving: boolean) => void
    readonly setRegistered: (registered: boolean) => void
    /** The driver registers itself, so that being ready includes being registered. */
    readonly requireRegistration: () => void
    /** Why the driver is not ready, or undefined when it is. */
    readonly notReady: () => string | undefined
  }
>()("secrets-store/csi/Health") {
  static readonly layer = Layer.sync(Health, () => {
    let serving = false
    let registered = false
    let required = false
    return Health.of({
      setServing: (value) => {
        serving = value
      },
      setRegistered: (value) => {
        registered = value
      },
      requireRegistration: () => {
        required = true
      },
      notReady: () => {
        if (!serving) return "the CSI socket is not open"
        return required && !registered ? "not registered with the kubelet" : undefined
      }
    })
  })
}
