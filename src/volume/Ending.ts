/**
 * Whether the driver has been told to stop. From then on another one may be there already, and be at work on what a call
 * has begun that nobody waits for any more.
 */
import { Context } from "effect"

export const Ending = Context.Reference<{ readonly isEnding: () => boolean }>("secrets-store/volume/Ending", {
  defaultValue: () => ({ isEnding: () => false })
})
