/**
 * Where the kubelet wants a volume, and what its path says about it.
 *
 * The kubelet names the directory `<root>/pods/<pod uid>/volumes/kubernetes.io~csi/<volume name>/mount`.
 */
import { Schema } from "effect"

export const TargetPath = Schema.NonEmptyString.pipe(Schema.brand("TargetPath"))
export type TargetPath = typeof TargetPath.Type

// Unanchored at the start, and "|" also separates, as ever; other programs rely on what this accepts.
const SHAPE = /[\\|/]+pods[\\|/]+(.+?)[\\|/]+volumes[\\|/]+kubernetes\.io~csi[\\|/]+(.+?)[\\|/]+mount$/

/**
 * The pod UID and volume name in a target path; both empty when the path has another shape.
 *
 * @shape  (path) -> { podUid, volumeName }
 * @errors none
 * @source driver v1.6.0, pkg/util/fileutil/filesystem.go; reference/driver.md 10
 */
export const parseTargetPath = (path: string): { readonly podUid: string; readonly volumeName: string } => {
  const [, podUid = "", volumeName = ""] = SHAPE.exec(path) ?? []
  return { podUid, volumeName }
}
