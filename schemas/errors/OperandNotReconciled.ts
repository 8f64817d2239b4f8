/**
 * A reconcile of the operand that could not do everything; what failed is in the ClusterCSIDriver's conditions, too.
 */
import { Schema } from "effect"

export class OperandNotReconciled extends Schema.TaggedError<OperandNotReconciled>()("OperandNotReconciled", {
  /** What failed, in the order of the attempts. */
  failures: Schema.Array(Schema.String)
}) {
  readonly code = "OperandNotReconciled"
  readonly remedy = "see the conditions of the ClusterCSIDriver secrets-store.csi.k8s.io"

  override get message() {
    return `the operand is not as configured: ${this.failures.join("; ")}`
  }
}
