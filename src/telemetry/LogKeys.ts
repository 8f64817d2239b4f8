/** The names under which things appear in log lines, as they always have. */
export const LogKeys = {
  pod: "pod",
  podUid: "podUID",
  secretProviderClass: "secretProviderClass",
  provider: "provider",
  targetPath: "targetPath",
  volumeId: "volumeID",
  namespace: "namespace",
  code: "code",
  stage: "stage",
  remedy: "remedy",
  error: "err",
  time: "time"
} as const
