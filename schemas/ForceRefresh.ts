/**
 * A refresh on demand: an annotation of a pod or of a SecretProviderClass. Whenever its value changes, the volumes of
 * that pod or class are refreshed at once. Upstream ignores it.
 */

export const FORCE_REFRESH_KEY = "secrets-store.csi.k8s.io/force-refresh"

/** The values that were seen; empty: none. */
export interface Asked {
  readonly pod: string
  readonly secretProviderClass: string
}

export const NOTHING_ASKED: Asked = { pod: "", secretProviderClass: "" }

/** @shape (a, b) -> whether nothing new is asked for */
export const sameAsked = (a: Asked, b: Asked): boolean =>
  a.pod === b.pod && a.secretProviderClass === b.secretProviderClass
