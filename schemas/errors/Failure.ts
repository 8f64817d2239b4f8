/**
 * What every failure says. `code` is one stable word, used as metric label, event reason and condition reason;
 * `remedy` tells an administrator what to do; `message` names the object and the cause. No secret has a place in it.
 */
export interface Failure {
  readonly _tag: string
  readonly code: string
  readonly message: string
  readonly remedy: string
}
