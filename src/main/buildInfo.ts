/**
 * What the bundler writes into the program. A name that it did not define stays undeclared, so each is asked for first.
 */
declare const __BUILD_VERSION__: string
declare const __BUILD_VCS__: string
declare const __BUILD_TIME__: string

export interface BuildInfo {
  readonly version: string
  /** Commit of the sources. */
  readonly vcs: string
  /** "YYYY-MM-DD-HH:MM" */
  readonly time: string
}

export const buildInfo: BuildInfo = {
  version: typeof __BUILD_VERSION__ === "string" ? __BUILD_VERSION__ : "local-dev",
  vcs: typeof __BUILD_VCS__ === "string" ? __BUILD_VCS__ : "",
  time: typeof __BUILD_TIME__ === "string" ? __BUILD_TIME__ : ""
}
