/**
 * Our CustomResourceDefinitions, as objects: the driver's two, and the operator's. `scripts/crds.mjs` writes them to
 * assets/crds.
 *
 * @source reference/driver.md 5.1, 5.2, 5.3
 */
import {
  SecretProviderClassSpec,
  SecretProviderClassStatus,
  SecretProviderClassStatusV1Alpha1
} from "../SecretProviderClass.ts"
import { PodStatusStatus } from "../SecretProviderClassPodStatus.ts"
import { clusterCsiDriverCrd } from "./ClusterCSIDriverCrd.ts"
import { type CustomResourceDefinition, definition, versionSchema } from "./CustomResourceDefinition.ts"

const GROUP = "secrets-store.csi.x-k8s.io"

const ofDriver = (kind: string, plural: string, versions: CustomResourceDefinition["spec"]["versions"]) =>
  definition({
    group: GROUP,
    kind,
    plural,
    scope: "Namespaced",
    // Other programs look at the version of upstream's generator.
    annotations: { "controller-gen.kubebuilder.io/version": "v0.16.3" },
    versions
  })

const spec = SecretProviderClassSpec.annotate({
  description: "which provider to ask for what, and which Kubernetes Secrets to make of it"
})
const CLASS = "SecretProviderClass says what a pod's secrets volume holds"

export const secretProviderClassCrd = ofDriver("SecretProviderClass", "secretproviderclasses", [
  {
    name: "v1",
    served: true,
    storage: true,
    schema: versionSchema(CLASS, { spec, status: SecretProviderClassStatus })
  },
  {
    name: "v1alpha1",
    served: true,
    storage: false,
    deprecated: true,
    deprecationWarning: `${GROUP}/v1alpha1 is deprecated. Use ${GROUP}/v1 instead.`,
    schema: versionSchema(CLASS, {
      spec,
      status: SecretProviderClassStatusV1Alpha1.annotate({ description: "unused" })
    })
  }
])

const podStatusSchema = versionSchema("SecretProviderClassPodStatus says what one volume of one pod holds", {
  status: PodStatusStatus.annotate({ description: "what the driver mounted" })
})

export const secretProviderClassPodStatusCrd = ofDriver(
  "SecretProviderClassPodStatus",
  "secretproviderclasspodstatuses",
  [
    { name: "v1", served: true, storage: true, schema: podStatusSchema },
    { name: "v1alpha1", served: true, storage: false, deprecated: true, schema: podStatusSchema }
  ]
)

/** The driver's, wherever it runs; by the name of the file that holds it in assets/crds. */
export const CRD_FILES: Readonly<Record<string, CustomResourceDefinition>> = {
  "secrets-store.csi.x-k8s.io_secretproviderclasses.yaml": secretProviderClassCrd,
  "secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml": secretProviderClassPodStatusCrd
}

/** Also needed where there is no OpenShift, and only there: OpenShift has its own. */
export const PLAIN_CRD_FILES: Readonly<Record<string, CustomResourceDefinition>> = {
  "operator.openshift.io_clustercsidrivers.yaml": clusterCsiDriverCrd
}
