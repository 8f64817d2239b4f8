/** A system call on a mount that did not succeed. */
import { Schema } from "effect"

export class MountFailed extends Schema.TaggedError<MountFailed>()("MountFailed", {
  operation: Schema.Literals(["mount", "unmount", "inspect"]),
  targetPath: Schema.String,
  /** The error's name, such as "EPERM". */
  errno: Schema.String
}) {
  readonly code = "FailedToMount"

  override get message() {
    return `${this.operation} tmpfs at ${this.targetPath}: ${this.errno}`
  }

  get remedy() {
    return this.errno === "EPERM" || this.errno === "EACCES"
      ? "the driver container has to be privileged and needs a bidirectional mount of the kubelet's pods directory"
      : "see the kernel's error; the kubelet will try again"
  }
}
