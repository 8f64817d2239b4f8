/** The programs of the cluster tests, in one image: what it is told says which one it is. */
import { livenessProbe } from "./livenessprobe.ts"
import { provider } from "./provider.ts"
import { registrar } from "./registrar.ts"
import { flag, run } from "./run.ts"

if (flag("kubelet-registration-path") !== "") run(registrar)
else if (flag("probe-timeout") !== "") run(livenessProbe)
else run(provider)
